/* cif.c: the tokenizer of CIF 1.1 and the events made of its tokens.
 *
 *     data_1ABC                      a data block
 *     save_frame ... save_           a save frame in it
 *     _entry.id 1ABC                 a tag and its value
 *     loop_ _a.x _a.y 1 2 3 4        tags, then rows of values
 *     'quoted' "quoted" ;text field  a quote ends only before a blank; a text field begins and ends with ; first in a line
 *     # comment                      . and ? unquoted: inapplicable, unknown
 *
 * Source: S. R. Hall, J. D. Westbrook, International Tables for Crystallography G (2005), 2.2.7, and the common semantic
 * features there (the folding of long lines). Tags and keywords ignore case. Taken although the grammar has no place for
 * them, since files hold them: loops without rows, bytes past ASCII, values that begin with [ ] or $, global_ as a block of that
 * name, stop_ after a loop, a byte order mark. Refused with their line: a loop cut in a row, a tag without a value or given
 * twice in its table, quotes and text fields that do not end, zero bytes, a value, row or header of more than WHOLE bytes, and
 * more than COLUMNS tags that belong together.
 *
 * The text stands in a window. `keep` is where the row (or header) that is being read begins: all before may go. */
#include "cif.h"
#include "bcif.h"
#include "names.h"
#include "window.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { WHOLE = 1 << 26, COLUMNS = 1 << 16 };
enum { T_END, T_TEXT, T_QUOTED, T_TAG, T_LOOP, T_DATA, T_SAVE, T_GLOBAL, T_STOP };
enum { BETWEEN, ROWS, PAIRS, PAIR_ROW };    /* where we stand: between items, in a loop, among tags and values */

typedef struct token { char *at; int64_t bytes, line; int kind; } token;

/* A tag and its value. Those that follow one another are gathered, since other categories may stand between those of one. */
typedef struct pair {
    mf__span tag;
    mf_cif_cell cell;
    int64_t line;
    int32_t first, order;      /* the first pair of the category; its own place */
} pair;

struct mf__cif {
    mf__window window;
    mf__bcif *binary;              /* NULL: text */
    const char *what;              /* of errors */
    char *at, *keep;               /* keep NULL: nothing but the token */
    int64_t line;
    int line_begins;               /* nothing but blanks stands between `at` and the line end before it */
    int state, in_block, in_frame;
    token pending;                 /* read but not used; kind -1: none */
    mf__span *tags;
    int64_t columns, held;         /* held: tags that still stand in the window */
    mf_cif_cell *cells;            /* a row: of each column */
    mf_cif_cell *chosen;           /* of each slot */
    mf_cif_cell *shown;            /* one of the two; NULL: rows are passed over */
    mf_cif_cell **to;              /* where the value of each column goes, NULL: nowhere */
    int64_t filled;                /* columns of the row that have come */
    uint32_t *seen;                /* by hash: number + 1 of a tag or a pair */
    pair *pairs;
    int64_t n_pairs, next_pair;
    int64_t tag_room, cell_room, to_room, chosen_room, seen_room, pair_room;
    int64_t rows, table_line, row_line;
    char *row_at;                  /* where the row begins, in line row_line */
};

/* What ends a run of ordinary characters: 1 a blank, 2 a line end, 4 a zero (the window's end, or a zero byte). */
static const unsigned char ends[256] = {[' '] = 1, ['\t'] = 1, ['\f'] = 1, ['\v'] = 1, ['\n'] = 2, ['\r'] = 2, ['\0'] = 4};
static inline int end_of(const char *p) { return ends[(unsigned char)*p]; }

/* Characters that a value without quotes may begin with wherever it stands: not ; either, which may begin a line. */
static inline int ordinary(unsigned char c) { return c > ' ' && c != '_' && c != '#' && c != ';' && c != '\'' && c != '"'; }

mf_status mf__cif_fail(const mf__cif *c, int64_t line, const char *message) {
    return mf__fail(MF_EFORMAT, "%s: '%s': %s %lld: %s", c->what, mf__source_name(c->window.source), mf__cif_place(c), (long long)line, message);
}

const char *mf__cif_place(const mf__cif *c) { return c->binary ? "row" : "line"; }

/* ---- tokens ---- */

/* More text: whatever points into the window moves along. *p is where reading stands, *start where its token begins. */
static mf_status more(mf__cif *c, char **p, char **start) {
    int64_t moved;
    MF_TRY(mf__window_more(&c->window, c->keep ? c->keep : *start, &moved, c->what, c->line));
    if (moved == 0) return MF_OK;
    *p += moved;
    *start += moved;
    if (!c->keep) return MF_OK;
    c->keep += moved;
    if (c->row_at) c->row_at += moved;
    for (int64_t i = 0; i < c->held; i++) c->tags[i].at += moved;
    for (int64_t i = 0; i < c->filled; i++)
        if (c->to[i]) c->to[i]->text += moved;
    for (int64_t i = 0; i < c->n_pairs; i++) {
        c->pairs[i].tag.at += moved;
        if (c->pairs[i].cell.text) c->pairs[i].cell.text += moved;
    }
    return MF_OK;
}

/* At a zero: more text, or *ended at the end of all. */
static mf_status at_zero(mf__cif *c, char **p, char **start, int *ended) {
    *ended = 0;
    if (*p < c->window.end) return mf__cif_fail(c, c->line, "a zero byte: not a text file");
    if (!c->window.last) MF_TRY(more(c, p, start));
    *ended = c->window.last && *p == c->window.end;
    return MF_OK;
}

/* Counts the line that ends at *p and goes on to the next: \n, \r\n, or \r alone. */
static mf_status line_end(mf__cif *c, char **p, char **start) {
    int ended = 0;
    if (**p == '\r') {
        ++*p;
        if (*p == c->window.end) MF_TRY(at_zero(c, p, start, &ended));
    }
    if (**p == '\n') ++*p;
    c->line++;
    return MF_OK;
}

/* To the first character of a token, or *ended. */
static mf_status skip_blanks(mf__cif *c, char **p, int *ended) {
    *ended = 0;
    for (int comment = 0;;) {
        int end = end_of(*p);
        if (end == 2) {
            char *start = *p;
            MF_TRY(line_end(c, p, &start));
            c->line_begins = 1;
            comment = 0;
        } else if (end == 4) {
            char *start = *p;
            MF_TRY(at_zero(c, p, &start, ended));
            if (*ended) return MF_OK;
        } else if (end == 1 || comment || **p == '#') {
            comment |= end == 0;
            c->line_begins = 0;
            ++*p;
        } else {
            return MF_OK;
        }
    }
}

/* The folding of long lines: a text field whose first line is \ alone has each line end after a \ taken out. */
static void unfold(token *t) {
    char *end = t->at + t->bytes, *to = t->at, *p = t->at;
    for (char *q = p + 1;; q++) {
        if (q == end || (end_of(q) == 0)) return;
        if (end_of(q) == 2) break;
    }
    while (p < end) {
        char *stop = p;
        while (stop < end && end_of(stop) != 2) stop++;
        char *last = stop;
        while (last > p && end_of(last - 1) == 1) last--;
        char *next = stop;
        if (next < end && *next == '\r') next++;
        if (next < end && *next == '\n') next++;
        if (last > p && last[-1] == '\\') {
            memmove(to, p, (size_t)(last - 1 - p));
            to += last - 1 - p;
        } else {
            memmove(to, p, (size_t)(next - p));
            to += next - p;
        }
        p = next;
    }
    t->bytes = to - t->at;
}

/* p stands on the ; that begins a text field. */
static mf_status text_field(mf__cif *c, char *p, token *t) {
    char *start = p++;
    int ended = 0;
    t->kind = T_QUOTED;
    while (!ended) {
        while (!(end_of(p) & (2 | 4))) p++;
        if (*p == '\0') {
            MF_TRY(at_zero(c, &p, &start, &ended));
            continue;
        }
        const int64_t bytes = p - start - 1;
        MF_TRY(line_end(c, &p, &start));
        if (*p == '\0') MF_TRY(at_zero(c, &p, &start, &ended));
        if (*p != ';') continue;
        if (*++p == '\0') MF_TRY(at_zero(c, &p, &start, &ended));
        if (!end_of(p)) return mf__cif_fail(c, c->line, "text after the ; that ends a text field");
        t->at = start + 1;
        t->bytes = bytes;
        if (bytes > 0 && *t->at == '\\') unfold(t);
        c->at = p;
        return MF_OK;
    }
    return mf__cif_fail(c, t->line, "a text field (;) does not end");
}

/* p stands on the quote. */
static mf_status quoted(mf__cif *c, char *p, token *t) {
    char *start = p, quote = *p++;
    int ended = 0;
    t->kind = T_QUOTED;
    while (!ended && end_of(p) != 2) {
        if (*p == '\0') {
            MF_TRY(at_zero(c, &p, &start, &ended));
            continue;
        }
        if (*p++ != quote) continue;
        if (*p == '\0') MF_TRY(at_zero(c, &p, &start, &ended));
        if (!ended && !end_of(p)) continue;
        t->at = start + 1;
        t->bytes = p - start - 2;
        c->at = p;
        return MF_OK;
    }
    return mf__cif_fail(c, t->line, "a quoted value does not end in its line");
}

/* loop_ data_x save_x global_ stop_ */
static int keyword(const token *t) {
    if (t->bytes < 5) return T_TEXT;
    if (t->at[4] == '_') {
        switch (*t->at | 0x20) {
        case 'd': return strncasecmp(t->at, "data_", 5) == 0 ? T_DATA : T_TEXT;
        case 's':
            if (strncasecmp(t->at, "save_", 5) == 0) return T_SAVE;
            return t->bytes == 5 && strncasecmp(t->at, "stop_", 5) == 0 ? T_STOP : T_TEXT;
        case 'l': return t->bytes == 5 && strncasecmp(t->at, "loop_", 5) == 0 ? T_LOOP : T_TEXT;
        default: return T_TEXT;
        }
    }
    return t->bytes == 7 && t->at[6] == '_' && strncasecmp(t->at, "global_", 7) == 0 ? T_GLOBAL : T_TEXT;
}

static mf_status next(mf__cif *c, token *t) {
    char *p = c->at;
    int ended = 0;
    if (end_of(p) || *p == '#') MF_TRY(skip_blanks(c, &p, &ended));
    *t = (token){.at = p, .line = c->line, .kind = T_END};
    c->at = p;
    if (ended) return MF_OK;
    int begins = c->line_begins;
    c->line_begins = 0;
    if (*p == ';' && begins) return text_field(c, p, t);
    if (*p == '\'' || *p == '"') return quoted(c, p, t);
    char *start = p;
    for (;;) {
        while (!end_of(p)) p++;
        if (*p != '\0') break;
        MF_TRY(at_zero(c, &p, &start, &ended));
        if (ended) break;
    }
    t->at = start;
    t->bytes = p - start;
    t->kind = *start == '_' ? T_TAG : keyword(t);
    c->at = p;
    return MF_OK;
}

static mf_status take(mf__cif *c, token *t) {
    if (c->pending.kind < 0) return next(c, t);
    *t = c->pending;
    c->pending.kind = -1;
    return MF_OK;
}

static int is_value(const token *t) { return t->kind == T_TEXT || t->kind == T_QUOTED; }

/* Field by field: a struct put together first and copied then waits for its own halves, which took a tenth of all reading. */
static inline void set_cell(mf_cif_cell *cell, const token *t) {
    int kind = t->kind == T_QUOTED ? MF_CIF_QUOTED : MF_CIF_TEXT;
    if (t->bytes == 1 && kind == MF_CIF_TEXT) kind = *t->at == '.' ? MF_CIF_INAPPLICABLE : *t->at == '?' ? MF_CIF_UNKNOWN : kind;
    cell->text = t->at;
    cell->bytes = t->bytes;
    cell->number = 0;
    cell->kind = kind;
}

/* ---- tables ---- */

static mf_status reserve(mf__cif *c, void *items, int64_t wanted, int64_t *room, size_t size) {
    void **block = items;
    if (wanted <= *room) return MF_OK;
    int64_t larger = wanted < 32 ? 32 : 2 * wanted;
    void *grown = realloc(*block, (size_t)larger * size);
    if (!grown) return mf__fail(MF_ENOMEM, "%s: '%s': no memory for %lld columns", c->what, mf__source_name(c->window.source), (long long)wanted);
    *block = grown;
    *room = larger;
    return MF_OK;
}

static mf_status too_many(const mf__cif *c, int64_t line) { return mf__cif_fail(c, line, "more than 65,536 tags that belong together"); }

/* One more column. Every column has a cell, which is where its values go unless others are chosen. */
static mf_status add_column(mf__cif *c, mf__span tag, int64_t line) {
    int64_t n = c->columns;
    if (n == COLUMNS) return too_many(c, line);
    MF_TRY(reserve(c, &c->tags, n + 1, &c->tag_room, sizeof *c->tags));
    mf_cif_cell *old = c->cells;
    MF_TRY(reserve(c, &c->cells, n + 1, &c->cell_room, sizeof *c->cells));
    MF_TRY(reserve(c, &c->to, n + 1, &c->to_room, sizeof *c->to));
    for (int64_t i = old == c->cells ? n : 0; i <= n; i++) c->to[i] = &c->cells[i];
    c->tags[n] = tag;
    c->columns = n + 1;
    return MF_OK;
}

static uint32_t hash_text(const mf__span *text, int64_t bytes) {
    uint32_t h = 2166136261u;    /* FNV-1a of what differs by more than case */
    for (int64_t i = 0; i < bytes; i++) h = (h ^ ((unsigned char)text->at[i] | 0x20)) * 16777619u;
    return h ^ h >> 15;
}

/* Zeros in `seen` for twice as many numbers, a power of two; *mask of a slot. */
static mf_status clear_seen(mf__cif *c, int64_t count, uint32_t *mask) {
    int64_t slots = 32;
    while (slots < 2 * count) slots *= 2;
    MF_TRY(reserve(c, &c->seen, slots, &c->seen_room, sizeof *c->seen));
    memset(c->seen, 0, (size_t)slots * sizeof *c->seen);
    *mask = (uint32_t)(slots - 1);
    return MF_OK;
}

static mf_status refuse_twice(mf__cif *c) {
    uint32_t mask;
    MF_TRY(clear_seen(c, c->columns, &mask));
    for (int64_t i = 0; i < c->columns; i++) {
        const mf__span *tag = &c->tags[i];
        uint32_t at = hash_text(tag, tag->bytes) & mask;
        for (; c->seen[at]; at = (at + 1) & mask) {
            const mf__span *other = &c->tags[c->seen[at] - 1];
            if (other->bytes == tag->bytes && strncasecmp(other->at, tag->at, (size_t)tag->bytes) == 0)
                return mf__fail(MF_EFORMAT, "%s: '%s': line %lld: the tag %.*s is given twice", c->what, mf__source_name(c->window.source),
                                (long long)c->table_line, (int)(tag->bytes < 80 ? tag->bytes : 80), tag->at);
        }
        c->seen[at] = (uint32_t)i + 1;
    }
    return MF_OK;
}

static mf_status table_event(mf__cif *c, mf__cif_event *e, int loop) {
    MF_TRY(refuse_twice(c));
    c->shown = c->cells;
    c->state = loop ? ROWS : PAIR_ROW;
    c->rows = 0;
    *e = (mf__cif_event){.kind = MF__CIF_TABLE, .loop = loop, .line = c->table_line, .tags = c->tags, .columns = c->columns};
    return MF_OK;
}

static mf_status read_header(mf__cif *c, mf__cif_event *e, const token *loop) {
    c->keep = c->row_at = loop->at;
    c->columns = 0;
    c->table_line = loop->line;
    for (;;) {
        MF_TRY(next(c, &c->pending));
        if (c->pending.kind != T_TAG) break;
        MF_TRY(add_column(c, (mf__span){c->pending.at, c->pending.bytes}, c->pending.line));
        c->held = c->columns;
    }
    if (c->columns == 0) return mf__cif_fail(c, c->table_line, "loop_ without tags");
    return table_event(c, e, 1);
}

/* ---- tags and values ---- */

/* How much of a tag is its category: what stands before the point. Tags of small molecules have none, and are one category. */
static int64_t category(const mf__span *tag) {
    const char *point = memchr(tag->at, '.', (size_t)tag->bytes);
    return point ? point - tag->at : 0;
}

static int by_category(const void *a, const void *b) {
    const pair *x = a, *y = b;
    return x->first != y->first ? (x->first > y->first) - (x->first < y->first) : (x->order > y->order) - (x->order < y->order);
}

/* Categories one after the other, in the order in which they begin. */
static mf_status group_pairs(mf__cif *c) {
    uint32_t mask;
    int ordered = 1;
    MF_TRY(clear_seen(c, c->n_pairs, &mask));
    for (int64_t i = 0; i < c->n_pairs; i++) {
        pair *p = &c->pairs[i];
        int64_t bytes = category(&p->tag);
        uint32_t at = hash_text(&p->tag, bytes) & mask;
        for (; c->seen[at]; at = (at + 1) & mask) {
            const pair *other = &c->pairs[c->seen[at] - 1];
            if (category(&other->tag) == bytes && strncasecmp(other->tag.at, p->tag.at, (size_t)bytes) == 0) break;
        }
        if (!c->seen[at]) c->seen[at] = (uint32_t)i + 1;
        p->first = (int32_t)c->seen[at] - 1;
        p->order = (int32_t)i;
        ordered &= i == 0 || c->pairs[i - 1].first <= p->first;
    }
    if (!ordered) qsort(c->pairs, (size_t)c->n_pairs, sizeof *c->pairs, by_category);
    return MF_OK;
}

static mf_status gather_pairs(mf__cif *c, const token *first) {
    token t = *first;
    c->keep = c->row_at = first->at;
    c->row_line = first->line;
    c->next_pair = 0;
    do {
        if (c->n_pairs == COLUMNS) return too_many(c, t.line);
        MF_TRY(reserve(c, &c->pairs, c->n_pairs + 1, &c->pair_room, sizeof *c->pairs));
        c->pairs[c->n_pairs++] = (pair){.tag = {t.at, t.bytes}, .line = t.line};
        MF_TRY(next(c, &t));
        pair *p = &c->pairs[c->n_pairs - 1];
        if (!is_value(&t))
            return mf__fail(MF_EFORMAT, "%s: '%s': line %lld: %.*s has no value", c->what, mf__source_name(c->window.source), (long long)p->line,
                            (int)(p->tag.bytes < 80 ? p->tag.bytes : 80), p->tag.at);
        set_cell(&p->cell, &t);
        MF_TRY(next(c, &t));
    } while (t.kind == T_TAG);
    c->pending = t;
    return group_pairs(c);
}

/* The next category of those that were gathered. */
static mf_status pair_table(mf__cif *c, mf__cif_event *e) {
    const pair *begin = &c->pairs[c->next_pair];
    c->columns = 0;
    c->table_line = begin->line;
    for (; c->next_pair < c->n_pairs && c->pairs[c->next_pair].first == begin->first; c->next_pair++) {
        const pair *p = &c->pairs[c->next_pair];
        MF_TRY(add_column(c, p->tag, p->line));
        c->cells[c->columns - 1] = p->cell;
    }
    return table_event(c, e, 0);
}

mf_status mf__cif_choose(mf__cif *c, const int *slots, int count) {
    if (c->binary) return mf__bcif_choose(c->binary, slots, count);
    MF_TRY(reserve(c, &c->chosen, count, &c->chosen_room, sizeof *c->chosen));
    for (int i = 0; i < count; i++) c->chosen[i] = (mf_cif_cell){.text = "", .kind = MF__CIF_ABSENT};
    for (int64_t i = 0; i < c->columns; i++) {
        c->to[i] = count && slots[i] >= 0 ? &c->chosen[slots[i]] : NULL;
        if (c->to[i] && c->state == PAIR_ROW) *c->to[i] = c->cells[i];
    }
    c->shown = count ? c->chosen : NULL;
    return MF_OK;
}

/* As many values of the row as stand in the window, in one line and without quotes: nearly all of them. A character at a time:
 * lengths repeat from row to row and are foreseen, and eight at a time took half as long again. */
static void read_bare(mf__cif *c) {
    char *p = c->at;
    int64_t i = c->filled;
    for (; i < c->columns; i++) {
        char *start = p;
        while (*start == ' ') start++;
        if (start == p || !ordinary((unsigned char)*start)) break;
        char *stop = start + 1;
        while (!end_of(stop)) stop++;
        if (*stop == '\0') break;
        token t = {.at = start, .bytes = stop - start, .kind = T_TEXT};
        if (t.bytes >= 5 && keyword(&t) != T_TEXT) break;
        if (c->to[i]) set_cell(c->to[i], &t);
        p = stop;
    }
    c->at = p;
    c->filled = i;
}

/* Nothing but the token to come has to stay. */
static void let_go(mf__cif *c) {
    c->held = c->filled = c->n_pairs = 0;
    c->keep = c->row_at = NULL;
}

/* A row of the loop; *some is 0 where the loop has ended. */
static mf_status read_row(mf__cif *c, int *some) {
    token t;
    let_go(c);
    MF_TRY(take(c, &t));
    *some = is_value(&t);
    if (!*some) {
        c->pending = t;
        c->state = BETWEEN;
        if (t.kind == T_STOP) c->pending.kind = -1;
        return MF_OK;
    }
    c->keep = c->row_at = t.at;
    c->row_line = t.line;
    for (;;) {
        mf_cif_cell *to = c->to[c->filled++];
        if (to) set_cell(to, &t);
        read_bare(c);
        if (c->filled == c->columns) break;
        MF_TRY(next(c, &t));
        if (!is_value(&t))
            return mf__fail(MF_EFORMAT, "%s: '%s': line %lld: the loop of %lld columns that begins in line %lld ends in the middle of a row (%lld values)",
                            c->what, mf__source_name(c->window.source), (long long)t.line, (long long)c->columns, (long long)c->table_line,
                            (long long)(c->rows * c->columns + c->filled));
    }
    c->rows++;
    return MF_OK;
}

/* ---- events ---- */

static mf_status named(mf__cif_event *e, int kind, const token *t, int prefix) {
    *e = (mf__cif_event){.kind = kind, .line = t->line, .name = {t->at + prefix, t->bytes - prefix}};
    return MF_OK;
}

/* Save frames stand in a block, and not in one another. */
static mf_status frame_event(mf__cif *c, mf__cif_event *e, const token *t) {
    if (!c->in_block) return mf__cif_fail(c, t->line, "a save frame before any data_ block");
    int begins = t->bytes > 5;
    if (begins && c->in_frame) return mf__cif_fail(c, t->line, "a save frame inside another: save_ is missing");
    if (!begins && !c->in_frame) return mf__cif_fail(c, t->line, "save_ without a save frame");
    c->in_frame = begins;
    return named(e, begins ? MF__CIF_FRAME : MF__CIF_FRAME_END, t, 5);
}

static mf_status item_event(mf__cif *c, mf__cif_event *e) {
    token t;
    let_go(c);
    MF_TRY(take(c, &t));
    if (c->in_frame && (t.kind == T_END || t.kind == T_DATA || t.kind == T_GLOBAL)) return mf__cif_fail(c, t.line, "the save frame before does not end: save_ is missing");
    switch (t.kind) {
    case T_END: *e = (mf__cif_event){.kind = MF__CIF_END, .line = t.line}; c->pending = t; return MF_OK;
    case T_DATA: c->in_block = 1; return named(e, MF__CIF_BLOCK, &t, 5);
    case T_GLOBAL: c->in_block = 1; return named(e, MF__CIF_BLOCK, &t, 0);
    case T_SAVE: return frame_event(c, e, &t);
    case T_STOP: return mf__cif_fail(c, t.line, "stop_ without a loop");
    case T_LOOP: if (c->in_block) return read_header(c, e, &t); break;
    case T_TAG:
        if (!c->in_block) break;
        MF_TRY(gather_pairs(c, &t));
        return pair_table(c, e);
    default: return mf__cif_fail(c, t.line, c->in_block ? "a value without a tag" : "a value before any data_ block: not a CIF file");
    }
    return mf__cif_fail(c, t.line, t.kind == T_TAG ? "a tag before any data_ block" : "loop_ before any data_ block");
}

mf_status mf__cif_next(mf__cif_event *e, mf__cif *c) {
    if (c->binary) return mf__bcif_next(e, c->binary);
    int64_t line = c->table_line;
    int some = c->state == PAIR_ROW;
    if (some) c->state = c->next_pair < c->n_pairs ? PAIRS : BETWEEN;
    some &= c->shown != NULL;
    if (!some && c->state == PAIRS) return pair_table(c, e);
    while (c->state == ROWS && !some) {
        MF_TRY(read_row(c, &some));
        some &= c->shown != NULL;
        line = c->row_line;
    }
    if (!some) return item_event(c, e);
    *e = (mf__cif_event){.kind = MF__CIF_ROW, .line = line, .cells = c->shown};
    return MF_OK;
}

int64_t mf__cif_line(const mf__cif *c, const mf_cif_cell *cell) {
    int64_t line = c->row_line;
    if (c->binary) return mf__bcif_row(c->binary);
    for (const char *p = c->row_at; cell->kind != MF__CIF_ABSENT && p < cell->text; p++) line += *p == '\n' || (*p == '\r' && p[1] != '\n');
    return line;
}

/* ---- opening ---- */

static mf_status begin(mf__cif *c) {
    mf__window *w = &c->window;
    int64_t moved;
    while (!w->last && w->end - w->begin < 3) MF_TRY(mf__window_more(w, w->begin, &moved, c->what, 1));
    c->at = w->begin;
    if (mf__cif_is_binary(w->begin)) {
        w->bound = mf__source_limit(w->source);
        while (!w->last) MF_TRY(mf__window_more(w, w->begin, &moved, c->what, 1));
        return mf__bcif_open(&c->binary, w->begin, w->end - w->begin, mf__source_name(w->source), mf__source_limit(w->source), c->what);
    }
    if (w->end - w->begin >= 3 && memcmp(w->begin, "\xef\xbb\xbf", 3) == 0) c->at += 3;
    return MF_OK;
}

mf_status mf__cif_open(mf__cif **out, mf__source *source, const char *what) {
    *out = NULL;
    mf__cif *c = calloc(1, sizeof *c);
    if (!c) return mf__fail(MF_ENOMEM, "%s: '%s': no memory", what, mf__source_name(source));
    c->what = what;
    c->line = c->line_begins = 1;
    c->pending.kind = -1;
    mf_status status = mf__window_open(&c->window, source, WHOLE);
    if (status == MF_OK) status = begin(c);
    if (status == MF_OK) *out = c;
    else mf__cif_close(c);
    return status;
}

void mf__cif_close(mf__cif *c) {
    if (!c) return;
    mf__bcif_close(c->binary);
    mf__window_close(&c->window);
    free(c->tags);
    free(c->cells);
    free(c->chosen);
    free(c->to);
    free(c->seen);
    free(c->pairs);
    free(c);
}

/* ---- cells and tags ---- */

int mf__cell_int(int *out, const mf_cif_cell *cell) {
    if (cell->kind == MF_CIF_INTEGER && cell->number >= INT32_MIN && cell->number <= INT32_MAX) {
        *out = (int)cell->number;
        return 1;
    }
    return cell->kind <= MF_CIF_QUOTED && mf__parse_int(out, cell->text, cell->bytes);
}

int mf__cell_real(double *out, const mf_cif_cell *cell) {
    if (cell->kind == MF_CIF_INTEGER || cell->kind == MF_CIF_REAL) {
        *out = cell->number;
        return isfinite(cell->number);
    }
    return cell->kind <= MF_CIF_QUOTED && mf__parse_real(out, cell->text, cell->bytes);
}

mf__span mf__cell_text(const mf_cif_cell *cell, char *room) {
    if (cell->kind <= MF_CIF_QUOTED) return (mf__span){(char *)(uintptr_t)cell->text, cell->bytes};
    int n = 0;
    if (cell->kind == MF_CIF_INTEGER) n = snprintf(room, 32, "%.0f", cell->number);
    if (cell->kind == MF_CIF_REAL) n = snprintf(room, 32, "%.15g", cell->number);
    return (mf__span){room, n};
}

int mf__tag_is(const mf__span *tag, const char *name) {
    return strlen(name) == (size_t)tag->bytes && strncasecmp(tag->at, name, (size_t)tag->bytes) == 0;    /* a tag may hold zeros */
}
