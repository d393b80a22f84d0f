/* pickle.c: Python's pickles, protocols 0 to 5, as inert data.
 *
 * A pickle is a program for a stack machine; the dangerous part is that it names functions and has them called. This
 * machine has nothing to call: GLOBAL makes a node that holds two words, REDUCE one that says "this, applied to that". Which
 * of them mean something to us is decided by the reader of the nodes (lua/moonfold/pickle.lua), by name, from a list.
 *
 *     bytes --opcodes--> stack of node numbers, memo of node numbers --> nodes, a graph
 *
 *     node                  a, b, c                         items              pairs
 *     LIST TUPLE SET                                        its elements
 *     DICT                                                                     key, value, key, value, ...
 *     GLOBAL                module, name (texts)
 *     OBJECT                what is called, arguments,      appended to it     set in it
 *                           keyword arguments or -1; `state` by BUILD or -1
 *     PERSISTENT            what names it
 *
 * Everything is bounded by the pickle's own length: an opcode makes at most one node and its names, a repeated reference
 * costs its opcode, and no memo is larger than the opcodes that could have filled it. So a "billion laughs" is a
 * small graph; whoever walks it must go by node, not by path. Nothing here recurses, and there is no limit on depth:
 * that is the walker's. Refused: the extension registry, out-of-band buffers, BUILD of what is no object. */
#include "json.h"
#include "names.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 1 << 26, MAX_NODES = 1 << 22, MAX_CELLS = 1 << 23, NONE = -1 };

typedef struct node {
    int kind;
    int32_t a, b, c, state;
    int32_t items, items_last, pairs, pairs_last;    /* cells */
    int32_t count, pair_count;
    union { int64_t integer; double real; struct { const char *text; int64_t bytes; } words; } value;
} node;

typedef struct cell { int32_t node, next; } cell;

struct mf_pickle {
    char *what;                    /* opens error texts */
    char *data;                    /* a copy: texts point into it */
    char *decoded;                 /* texts of protocol 0, which grow when decoded */
    int64_t bytes, decoded_bytes;
    node *nodes;
    cell *cells;
    int64_t node_count, node_room, cell_count, cell_room;
    int32_t root;
};

typedef struct machine {
    mf_pickle *p;
    const unsigned char *at, *begin, *end;
    int32_t *stack, *marks, *memo;
    int64_t depth, stack_room, mark_count, mark_room, memo_room, memo_count;
    int32_t none, truth[2], empty;    /* made once: these opcodes are a byte each */
    mf_status status;                 /* the first failure */
} machine;

static mf_status fail(machine *m, const char *message) {
    if (m->status == MF_OK)
        m->status = mf__fail(MF_EFORMAT, "pickle: %s: byte %lld: %s", m->p->what, (long long)(m->at - m->begin), message);
    return m->status;
}

/* Room for item number `count`; the old block survives a failure. */
static int grow(machine *m, void **items, int64_t count, int64_t *room, int64_t most, size_t size) {
    if (count < *room) return 1;
    if (count >= most) {
        fail(m, "more values than a checkpoint can have");
        return 0;
    }
    int64_t wanted = *room ? 2 * *room : 64;
    if (wanted <= count) wanted = count + 1;
    if (wanted > most) wanted = most;
    void *grown = realloc(*items, (size_t)wanted * size);
    if (!grown) {
        m->status = mf__fail(MF_ENOMEM, "pickle: %s: no memory for %lld values", m->p->what, (long long)wanted);
        return 0;
    }
    *items = grown;
    *room = wanted;
    return 1;
}

/* A new node, or NONE after a failure, which every function takes and passes on. */
static int32_t make(machine *m, int kind) {
    mf_pickle *p = m->p;
    if (m->status != MF_OK || !grow(m, (void **)&p->nodes, p->node_count, &p->node_room, MAX_NODES, sizeof *p->nodes)) return NONE;
    node *n = &p->nodes[p->node_count];
    memset(n, 0, sizeof *n);
    n->kind = kind;
    n->a = n->b = n->c = n->state = n->items = n->items_last = n->pairs = n->pairs_last = NONE;
    return (int32_t)p->node_count++;
}

static node *get(machine *m, int32_t i) { return &m->p->nodes[i]; }

static void append(machine *m, int32_t to, int32_t item, int to_pairs) {
    mf_pickle *p = m->p;
    if (m->status != MF_OK || !grow(m, (void **)&p->cells, p->cell_count, &p->cell_room, MAX_CELLS, sizeof *p->cells)) return;
    const int32_t at = (int32_t)p->cell_count++;
    p->cells[at] = (cell){item, NONE};
    node *n = get(m, to);
    int32_t *first = to_pairs ? &n->pairs : &n->items, *last = to_pairs ? &n->pairs_last : &n->items_last;
    if (*last == NONE) *first = at;
    else p->cells[*last].next = at;
    *last = at;
    ++*(to_pairs ? &n->pair_count : &n->count);
}

static void push(machine *m, int32_t i) {
    if (m->status != MF_OK || !grow(m, (void **)&m->stack, m->depth, &m->stack_room, MAX_NODES, sizeof *m->stack)) return;
    m->stack[m->depth++] = i;
}

/* The bottom of what may be taken: nothing passes the last mark but what takes the mark itself. */
static int64_t bottom(const machine *m) { return m->mark_count ? m->marks[m->mark_count - 1] : 0; }

static int32_t pop(machine *m) {
    if (m->status != MF_OK) return NONE;
    if (m->depth <= bottom(m)) {
        fail(m, "the stack is empty");
        return NONE;
    }
    return m->stack[--m->depth];
}

static int32_t top(machine *m) {
    const int32_t i = pop(m);
    if (m->status == MF_OK) m->depth++;
    return i;
}

/* Takes the last mark; *from is where its items begin on the stack. */
static int take_mark(machine *m, int64_t *from) {
    if (m->status != MF_OK) return 0;
    if (m->mark_count == 0) {
        fail(m, "there is no mark");
        return 0;
    }
    *from = m->marks[--m->mark_count];
    return 1;
}

/* ---- what opcodes are followed by ---- */

static const unsigned char *take(machine *m, uint64_t n) {
    if (m->status != MF_OK) return NULL;
    if (n > (uint64_t)(m->end - m->at)) {
        fail(m, "truncated");
        return NULL;
    }
    const unsigned char *p = m->at;
    m->at += n;
    return p;
}

static uint64_t number(machine *m, int bytes) {
    const unsigned char *p = take(m, (uint64_t)bytes);
    uint64_t value = 0;
    for (int k = 0; p && k < bytes; k++) value |= (uint64_t)p[k] << (8 * k);
    return value;
}

/* A line without its end. */
static const char *line(machine *m, int64_t *bytes) {
    *bytes = 0;
    if (m->status != MF_OK) return NULL;
    const unsigned char *first = m->at, *end = memchr(first, '\n', (size_t)(m->end - first));
    if (!end) {
        fail(m, "truncated");
        return NULL;
    }
    m->at = end + 1;
    *bytes = end - first;
    return (const char *)first;
}

static int32_t words(machine *m, int kind, const char *text, int64_t bytes) {
    const int32_t i = make(m, kind);
    if (i != NONE) get(m, i)->value.words.text = text, get(m, i)->value.words.bytes = bytes;
    return i;
}

static void push_words(machine *m, int kind, uint64_t bytes) {
    const char *text = (const char *)take(m, bytes);
    if (!text) return;
    if (kind == MF_PICKLE_TEXT && !mf__utf8_valid(text, (int64_t)bytes)) fail(m, "a text that is not UTF-8");
    push(m, words(m, kind, text, (int64_t)bytes));
}

static void push_integer(machine *m, int64_t value) {
    const int32_t i = make(m, MF_PICKLE_INTEGER);
    if (i != NONE) get(m, i)->value.integer = value;
    push(m, i);
}

static void push_real(machine *m, double value) {
    const int32_t i = make(m, MF_PICKLE_REAL);
    if (i != NONE) get(m, i)->value.real = value;
    push(m, i);
}

/* Two's complement, little endian; what does not fit 8 bytes stays bytes. */
static void push_long(machine *m, uint64_t bytes) {
    const unsigned char *p = take(m, bytes);
    if (!p) return;
    if (bytes > 8) {
        push(m, words(m, MF_PICKLE_LONG, (const char *)p, (int64_t)bytes));
        return;
    }
    uint64_t value = bytes && p[bytes - 1] & 0x80 ? ~(uint64_t)0 : 0;
    for (uint64_t k = bytes; k > 0; k--) value = value << 8 | p[k - 1];
    push_integer(m, (int64_t)value);
}

/* ---- protocol 0: everything in lines of text ---- */

/* Room for what n bytes of protocol 0 can decode to: a byte of Latin-1 is two of UTF-8, an escape never grows. One block for
 * the whole pickle, since texts may not move. */
static char *decode_room(machine *m) {
    mf_pickle *p = m->p;
    if (!p->decoded) p->decoded = malloc(2 * (size_t)p->bytes + 1);
    if (!p->decoded) m->status = mf__fail(MF_ENOMEM, "pickle: %s: no memory for %lld bytes of text", p->what, 2 * (long long)p->bytes);
    return p->decoded ? p->decoded + p->decoded_bytes : NULL;
}

/* Digits beyond 64 bits, as two's complement. Python itself reads no more than MOST_DIGITS. */
static void push_long_decimal(machine *m, const char *digits, int64_t n, int negative) {
    enum { MOST_DIGITS = 4300 };
    unsigned char *first = (unsigned char *)decode_room(m);
    if (!first) return;
    if (n > MOST_DIGITS) {
        fail(m, "a number of more than 4300 digits");
        return;
    }
    int64_t bytes = 0;
    for (int64_t i = 0; i < n; i++) {
        unsigned carry = (unsigned)(digits[i] - '0');
        for (int64_t k = 0; k < bytes || carry; k++) {
            if (k == bytes) first[bytes++] = 0;
            carry += 10u * first[k];
            first[k] = (unsigned char)carry;
            carry >>= 8;
        }
    }
    first[bytes++] = 0;    /* the sign */
    for (int64_t k = 0, carry = 1; negative && k < bytes; k++) {
        carry += (unsigned char)~first[k];
        first[k] = (unsigned char)carry;
        carry >>= 8;
    }
    m->p->decoded_bytes += bytes;
    push(m, words(m, MF_PICKLE_LONG, (char *)first, bytes));
}

static void push_decimal(machine *m, int is_long) {
    int64_t n, value = 0;
    const char *text = line(m, &n);
    if (!text) return;
    if (!is_long && n == 2 && text[0] == '0' && (text[1] == '0' || text[1] == '1')) {    /* I00 and I01 are False and True */
        push(m, m->truth[text[1] - '0']);
        return;
    }
    if (is_long && n > 0 && text[n - 1] == 'L') n--;
    const int negative = n > 0 && text[0] == '-';
    const char *digits = text + negative;
    n -= negative;
    int large = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t digit = digits[i] - '0';
        if (digit < 0 || digit > 9) n = 0;
        else large |= __builtin_mul_overflow(value, (int64_t)10, &value) || __builtin_add_overflow(value, negative ? -digit : digit, &value);
    }
    if (n == 0) fail(m, "not a decimal number");
    else if (large) push_long_decimal(m, digits, n, negative);
    else push_integer(m, value);
}

static void push_float_text(machine *m) {
    int64_t n;
    const char *text = line(m, &n);
    if (!text) return;
    double value = 0;
    const int negative = n > 0 && text[0] == '-';
    if (n - negative == 3 && memcmp(text + negative, "inf", 3) == 0) value = negative ? -INFINITY : INFINITY;
    else if (n == 3 && memcmp(text, "nan", 3) == 0) value = NAN;
    else if (n > 400 || !mf__parse_real(&value, text, n)) fail(m, "not a decimal fraction");
    push_real(m, value);
}

static int hex(const char *p, int64_t n, uint32_t *out) {
    *out = 0;
    for (int64_t k = 0; k < n; k++) {
        const char c = p[k];
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return 0;
        *out = *out << 4 | (uint32_t)digit;
    }
    return 1;
}

static char *put_utf8(char *to, uint32_t code) {
    if (code < 0x80) { *to++ = (char)code; return to; }
    if (code < 0x800) *to++ = (char)(0xc0 | code >> 6);
    else {
        if (code < 0x10000) *to++ = (char)(0xe0 | code >> 12);
        else {
            *to++ = (char)(0xf0 | code >> 18);
            *to++ = (char)(0x80 | (code >> 12 & 63));
        }
        *to++ = (char)(0x80 | (code >> 6 & 63));
    }
    *to++ = (char)(0x80 | (code & 63));
    return to;
}

/* 'V': Latin-1 with \uXXXX and \UXXXXXXXX. */
static void push_unicode_line(machine *m) {
    int64_t n;
    const char *text = line(m, &n);
    char *first = text ? decode_room(m) : NULL, *to = first;
    if (!first) return;
    for (int64_t i = 0; i < n;) {
        uint32_t code = (unsigned char)text[i];
        const int64_t digits = text[i] != '\\' || i + 1 >= n ? 0 : text[i + 1] == 'u' ? 4 : text[i + 1] == 'U' ? 8 : 0;
        if (digits) {
            if (i + 2 + digits > n || !hex(text + i + 2, digits, &code) || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
                fail(m, "a bad escape in a text");
                return;
            }
            i += 2 + digits;
        } else {
            i++;
        }
        to = put_utf8(to, code);
    }
    m->p->decoded_bytes += to - first;
    push(m, words(m, MF_PICKLE_TEXT, first, to - first));
}

/* 'S': a string of Python 2 as its source would have it: quotes, backslash escapes. */
static void push_quoted_line(machine *m) {
    int64_t n;
    const char *text = line(m, &n);
    char *first = text ? decode_room(m) : NULL, *to = first;
    if (!first) return;
    while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\r')) n--;
    if (n < 2 || (text[0] != '\'' && text[0] != '"') || text[n - 1] != text[0]) {
        fail(m, "a string without quotes");
        return;
    }
    for (int64_t i = 1; i < n - 1; i++) {
        if (text[i] != '\\') { *to++ = text[i]; continue; }
        static const char from[] = "nrtabfv0\\'\"", becomes[] = "\n\r\t\a\b\f\v\0\\'\"";
        const char *known = ++i < n - 1 && text[i] ? strchr(from, text[i]) : NULL;
        uint32_t code;
        if (known) *to++ = becomes[known - from];
        else if (i + 2 < n - 1 && text[i] == 'x' && hex(text + i + 1, 2, &code)) { *to++ = (char)code; i += 2; }
        else {
            fail(m, "a bad escape in a string");
            return;
        }
    }
    m->p->decoded_bytes += to - first;
    push(m, words(m, MF_PICKLE_BYTES, first, to - first));
}

/* ---- containers ---- */

static void collect(machine *m, int kind) {
    int64_t from;
    if (!take_mark(m, &from)) return;
    const int32_t i = make(m, kind);
    for (int64_t k = from; k < m->depth && i != NONE; k++) append(m, i, m->stack[k], 0);
    m->depth = from;
    push(m, i);
}

static void collect_last(machine *m, int n) {
    int32_t items[3] = {NONE, NONE, NONE};
    for (int k = n - 1; k >= 0; k--) items[k] = pop(m);
    const int32_t i = make(m, MF_PICKLE_TUPLE);
    for (int k = 0; k < n && i != NONE; k++) append(m, i, items[k], 0);
    push(m, i);
}

static int takes(machine *m, int32_t i, int kind) {
    if (i == NONE) return 0;
    if (get(m, i)->kind == kind || get(m, i)->kind == MF_PICKLE_OBJECT) return 1;
    fail(m, kind == MF_PICKLE_DICT ? "items are set in what is neither a dictionary nor an object"
            : kind == MF_PICKLE_SET ? "values are added to what is neither a set nor an object" : "values are appended to what is neither a list nor an object");
    return 0;
}

/* Everything after the mark goes into the value before it. */
static void add_marked(machine *m, int kind) {
    int64_t from;
    if (!take_mark(m, &from)) return;
    const int64_t n = m->depth - from;
    const int pairs = kind == MF_PICKLE_DICT;
    if (pairs && n % 2) {
        fail(m, "a key without a value");
        return;
    }
    const int64_t depth = m->depth;
    m->depth = from;
    const int32_t to = top(m);
    if (!takes(m, to, kind)) return;
    for (int64_t k = from; k < depth; k++) append(m, to, m->stack[k], pairs);
}

static void add_one(machine *m, int kind) {
    int32_t items[2];
    const int n = kind == MF_PICKLE_DICT ? 2 : 1;
    for (int k = n - 1; k >= 0; k--) items[k] = pop(m);
    const int32_t to = top(m);
    if (!takes(m, to, kind)) return;
    for (int k = 0; k < n; k++) append(m, to, items[k], kind == MF_PICKLE_DICT);
}

static void make_dict(machine *m) {
    int64_t from;
    if (!take_mark(m, &from)) return;
    const int32_t i = make(m, MF_PICKLE_DICT);
    if ((m->depth - from) % 2) fail(m, "a key without a value");
    for (int64_t k = from; k < m->depth && i != NONE; k++) append(m, i, m->stack[k], 1);
    m->depth = from;
    push(m, i);
}

/* ---- names, and what is made of them ---- */

/* A word of an identifier with dots; it will be printed. */
static int is_name(const node *n) {
    if (n->kind != MF_PICKLE_TEXT || n->value.words.bytes < 1 || n->value.words.bytes > 255) return 0;
    for (int64_t i = 0; i < n->value.words.bytes; i++) {
        const unsigned char c = (unsigned char)n->value.words.text[i];
        if (c <= 0x20 || c == 0x7f) return 0;
    }
    return mf__utf8_valid(n->value.words.text, n->value.words.bytes);
}

static void push_global(machine *m, int32_t module, int32_t name) {
    const int32_t i = make(m, MF_PICKLE_GLOBAL);
    if (i == NONE || module == NONE || name == NONE) return;
    if (!is_name(get(m, module)) || !is_name(get(m, name))) {
        fail(m, "a class whose name is not a name");
        return;
    }
    get(m, i)->a = module;
    get(m, i)->b = name;
    push(m, i);
}

static int32_t global_lines(machine *m) {
    int64_t n;
    const char *text = line(m, &n);
    const int32_t module = text ? words(m, MF_PICKLE_TEXT, text, n) : NONE;
    text = line(m, &n);
    const int32_t name = text ? words(m, MF_PICKLE_TEXT, text, n) : NONE;
    push_global(m, module, name);
    return m->status == MF_OK ? m->stack[m->depth - 1] : NONE;
}

static void push_object(machine *m, int32_t called, int32_t arguments, int32_t keywords) {
    const int32_t i = make(m, MF_PICKLE_OBJECT);
    if (i == NONE || called == NONE || arguments == NONE) return;
    const int kind = get(m, called)->kind;
    if (kind != MF_PICKLE_GLOBAL && kind != MF_PICKLE_OBJECT && kind != MF_PICKLE_PERSISTENT) {
        fail(m, "what is called is neither a class nor an object");
        return;
    }
    if (get(m, arguments)->kind != MF_PICKLE_TUPLE) {
        fail(m, "the arguments are not a tuple");
        return;
    }
    node *n = get(m, i);
    n->a = called;
    n->b = arguments;
    n->c = keywords;
    push(m, i);
}

/* Protocols 0 and 1: the arguments stand after the mark, and in OBJ the class before them. */
static void push_marked_object(machine *m, int32_t called) {
    int64_t from;
    if (!take_mark(m, &from)) return;
    int64_t first = from;
    if (called == NONE) {
        if (first >= m->depth) {
            fail(m, "an object without a class");
            return;
        }
        called = m->stack[first++];
    }
    const int32_t arguments = make(m, MF_PICKLE_TUPLE);
    for (int64_t k = first; k < m->depth && arguments != NONE; k++) append(m, arguments, m->stack[k], 0);
    m->depth = from;
    push_object(m, called, arguments, NONE);
}

static void push_instance(machine *m) {
    const int32_t called = global_lines(m);
    if (called == NONE) return;
    m->depth--;
    push_marked_object(m, called);
}

static void build(machine *m) {
    const int32_t state = pop(m), i = top(m);
    if (i == NONE || state == NONE) return;
    if (get(m, i)->kind != MF_PICKLE_OBJECT) fail(m, "a state for what is no object");
    else if (get(m, i)->state != NONE) fail(m, "a second state for an object");
    else get(m, i)->state = state;
}

static void push_persistent(machine *m, int32_t name) {
    const int32_t i = make(m, MF_PICKLE_PERSISTENT);
    if (i == NONE || name == NONE) return;
    get(m, i)->a = name;
    push(m, i);
}

static void push_persistent_line(machine *m) {
    int64_t n;
    const char *text = line(m, &n);
    if (text) push_persistent(m, words(m, MF_PICKLE_BYTES, text, n));
}

/* ---- the memo ---- */

static void put(machine *m, uint64_t index) {
    const int32_t i = top(m);
    if (i == NONE) return;
    if (index >= (uint64_t)m->p->bytes) {    /* each is numbered in turn and costs an opcode at least */
        fail(m, "a memo number beyond what could have been remembered");
        return;
    }
    const int64_t before = m->memo_room;
    if (!grow(m, (void **)&m->memo, (int64_t)index, &m->memo_room, m->p->bytes, sizeof *m->memo)) return;
    for (int64_t k = before; k < m->memo_room; k++) m->memo[k] = NONE;
    if (m->memo[index] == NONE) m->memo_count++;
    m->memo[index] = i;
}

static void recall(machine *m, uint64_t index) {
    if (m->status != MF_OK) return;
    if (index >= (uint64_t)m->memo_room || m->memo[index] == NONE) fail(m, "a memo number that nothing was remembered by");
    else push(m, m->memo[index]);
}

static uint64_t index_line(machine *m) {
    int64_t n;
    uint64_t value = 0;
    const char *text = line(m, &n);
    if (!text) return 0;
    if (n < 1 || n > 10) fail(m, "not a memo number");
    for (int64_t k = 0; k < n && m->status == MF_OK; k++) {
        if (text[k] < '0' || text[k] > '9') fail(m, "not a memo number");
        value = 10 * value + (uint64_t)(text[k] - '0');
    }
    return value;
}

/* ---- the machine ---- */

static void set_mark(machine *m) {
    if (!grow(m, (void **)&m->marks, m->mark_count, &m->mark_room, MAX_NODES, sizeof *m->marks)) return;
    m->marks[m->mark_count++] = (int32_t)m->depth;
}

static void drop(machine *m) {
    if (m->mark_count && m->depth == m->marks[m->mark_count - 1]) m->mark_count--;
    else pop(m);
}

static void drop_marked(machine *m) {
    int64_t from;
    if (take_mark(m, &from)) m->depth = from;
}

static void push_binary_real(machine *m) {
    const unsigned char *p = take(m, 8);
    uint64_t bits = 0;
    double value;
    for (int k = 0; p && k < 8; k++) bits = bits << 8 | p[k];
    memcpy(&value, &bits, 8);
    push_real(m, value);
}

static void check_protocol(machine *m) {
    if (number(m, 1) > 5) fail(m, "a protocol after 5");
}

static void check_frame(machine *m) {
    if (number(m, 8) > (uint64_t)(m->end - m->at)) fail(m, "truncated");
}

/* A length of 4 bytes that Python 2 wrote signed. */
static uint64_t signed_length(machine *m) {
    const uint64_t n = number(m, 4);
    if (n > INT32_MAX) fail(m, "a negative length");
    return n;
}

static void new_object(machine *m, int with_keywords) {
    const int32_t keywords = with_keywords ? pop(m) : NONE, arguments = pop(m), called = pop(m);
    push_object(m, called, arguments, keywords);
}

static void stack_global(machine *m) {
    const int32_t name = pop(m), module = pop(m);
    push_global(m, module, name);
}

/* One opcode; 0 at STOP. */
static int step(machine *m) {
    const unsigned char *opcode = take(m, 1);
    if (!opcode) return 0;
    switch (*opcode) {
    case '.': return 0;
    case '(': set_mark(m); break;
    case '0': drop(m); break;
    case '1': drop_marked(m); break;
    case '2': push(m, top(m)); break;
    case 0x80: check_protocol(m); break;
    case 0x95: check_frame(m); break;

    case 'N': push(m, m->none); break;
    case 0x88: push(m, m->truth[1]); break;
    case 0x89: push(m, m->truth[0]); break;
    case 'I': push_decimal(m, 0); break;
    case 'L': push_decimal(m, 1); break;
    case 'J': push_integer(m, (int32_t)(uint32_t)number(m, 4)); break;
    case 'K': push_integer(m, (int64_t)number(m, 1)); break;
    case 'M': push_integer(m, (int64_t)number(m, 2)); break;
    case 0x8a: push_long(m, number(m, 1)); break;
    case 0x8b: push_long(m, signed_length(m)); break;
    case 'F': push_float_text(m); break;
    case 'G': push_binary_real(m); break;

    case 'S': push_quoted_line(m); break;
    case 'V': push_unicode_line(m); break;
    case 'T': push_words(m, MF_PICKLE_BYTES, signed_length(m)); break;
    case 'U': case 'C': push_words(m, MF_PICKLE_BYTES, number(m, 1)); break;
    case 'B': push_words(m, MF_PICKLE_BYTES, number(m, 4)); break;
    case 0x8e: case 0x96: push_words(m, MF_PICKLE_BYTES, number(m, 8)); break;
    case 'X': push_words(m, MF_PICKLE_TEXT, number(m, 4)); break;
    case 0x8c: push_words(m, MF_PICKLE_TEXT, number(m, 1)); break;
    case 0x8d: push_words(m, MF_PICKLE_TEXT, number(m, 8)); break;

    case ']': push(m, make(m, MF_PICKLE_LIST)); break;
    case '}': push(m, make(m, MF_PICKLE_DICT)); break;
    case ')': push(m, m->empty); break;
    case 0x8f: push(m, make(m, MF_PICKLE_SET)); break;
    case 'l': collect(m, MF_PICKLE_LIST); break;
    case 't': collect(m, MF_PICKLE_TUPLE); break;
    case 0x91: collect(m, MF_PICKLE_SET); break;
    case 'd': make_dict(m); break;
    case 0x85: collect_last(m, 1); break;
    case 0x86: collect_last(m, 2); break;
    case 0x87: collect_last(m, 3); break;
    case 'a': add_one(m, MF_PICKLE_LIST); break;
    case 's': add_one(m, MF_PICKLE_DICT); break;
    case 'e': add_marked(m, MF_PICKLE_LIST); break;
    case 'u': add_marked(m, MF_PICKLE_DICT); break;
    case 0x90: add_marked(m, MF_PICKLE_SET); break;

    case 'c': global_lines(m); break;
    case 0x93: stack_global(m); break;
    case 'R': case 0x81: new_object(m, 0); break;
    case 0x92: new_object(m, 1); break;
    case 'i': push_instance(m); break;
    case 'o': push_marked_object(m, NONE); break;
    case 'b': build(m); break;
    case 'P': push_persistent_line(m); break;
    case 'Q': push_persistent(m, pop(m)); break;

    case 'p': put(m, index_line(m)); break;
    case 'q': put(m, number(m, 1)); break;
    case 'r': put(m, number(m, 4)); break;
    case 0x94: put(m, (uint64_t)m->memo_count); break;
    case 'g': recall(m, index_line(m)); break;
    case 'h': recall(m, number(m, 1)); break;
    case 'j': recall(m, number(m, 4)); break;

    case 0x82: case 0x83: case 0x84: fail(m, "the extension registry, which is not read"); break;
    case 0x97: case 0x98: fail(m, "an out-of-band buffer, which is not here"); break;
    default: fail(m, "an unknown opcode");
    }
    return m->status == MF_OK;
}

static mf_status run(mf_pickle *p) {
    machine m = {.p = p, .at = (unsigned char *)p->data, .begin = (unsigned char *)p->data, .end = (unsigned char *)p->data + p->bytes};
    m.none = make(&m, MF_PICKLE_NONE);
    for (int k = 0; k < 2; k++) {
        m.truth[k] = make(&m, MF_PICKLE_BOOL);
        if (m.status == MF_OK) get(&m, m.truth[k])->value.integer = k;
    }
    m.empty = make(&m, MF_PICKLE_TUPLE);
    while (step(&m)) { }
    if (m.status == MF_OK && (m.depth != 1 || m.mark_count != 0)) fail(&m, "it leaves more or less than one value");
    if (m.status == MF_OK && m.at != m.end) fail(&m, "bytes after its end");
    if (m.status == MF_OK) p->root = m.stack[0];
    free(m.stack);
    free(m.marks);
    free(m.memo);
    return m.status;
}

mf_status mf_pickle_parse(mf_pickle **out, const char *data, int64_t bytes, const char *name) {
    *out = NULL;
    if (!name || bytes < 0 || (bytes > 0 && !data)) return mf__fail(MF_EVALUE, "pickle: no data or no name");
    if (bytes > MAX_BYTES)
        return mf__fail(MF_EFORMAT, "pickle: '%s': %lld bytes (at most %d)", name, (long long)bytes, MAX_BYTES);
    mf_pickle *p = calloc(1, sizeof *p);
    if (!p) return mf__fail(MF_ENOMEM, "pickle: '%s': no memory", name);
    mf_status status = MF_OK;
    const size_t room = strlen(name) + 3;
    p->what = malloc(room);
    p->data = malloc((size_t)bytes + 1);
    p->bytes = bytes;
    if (!p->what || !p->data) { status = mf__fail(MF_ENOMEM, "pickle: '%s': no memory for %lld bytes", name, (long long)bytes); goto out; }
    snprintf(p->what, room, "'%s'", name);
    if (bytes) memcpy(p->data, data, (size_t)bytes);
    p->data[bytes] = '\0';
    MF_TRY_OUT(run(p));
    *out = p;
    p = NULL;
out:
    mf_pickle_release(p);
    return status;
}

void mf_pickle_release(mf_pickle *p) {
    if (!p) return;
    free(p->what);
    free(p->data);
    free(p->decoded);
    free(p->nodes);
    free(p->cells);
    free(p);
}

int64_t mf_pickle_root(const mf_pickle *p) { return p->root; }

mf_status mf_pickle_get(const mf_pickle *p, int64_t i, mf_pickle_value *out) {
    memset(out, 0, sizeof *out);
    if (i < 0 || i >= p->node_count) return mf__fail(MF_EVALUE, "pickle: %s: there is no value %lld", p->what, (long long)i);
    const node *n = &p->nodes[i];
    out->kind = n->kind;
    out->items = n->count;
    out->pairs = n->pair_count / 2;
    out->first = n->a;
    out->second = n->b;
    out->third = n->c;
    out->state = n->state;
    const int worded = n->kind == MF_PICKLE_LONG || n->kind == MF_PICKLE_TEXT || n->kind == MF_PICKLE_BYTES;
    if (n->kind == MF_PICKLE_REAL) out->real = n->value.real;
    else if (worded) out->text = n->value.words.text, out->bytes = n->value.words.bytes;
    else out->integer = n->value.integer;
    return MF_OK;
}

mf_status mf_pickle_children(int64_t *items, int64_t *pairs, const mf_pickle *p, int64_t i) {
    if (i < 0 || i >= p->node_count) return mf__fail(MF_EVALUE, "pickle: %s: there is no value %lld", p->what, (long long)i);
    for (int32_t at = p->nodes[i].items; items && at != NONE; at = p->cells[at].next) *items++ = p->cells[at].node;
    for (int32_t at = p->nodes[i].pairs; pairs && at != NONE; at = p->cells[at].next) *pairs++ = p->cells[at].node;
    return MF_OK;
}
