/* pdb.c: reading the PDB format, version 3 and the habits of those who write it: lines and atoms.
 *
 *     1-6 record  7-11 serial  13-16 name  17 altloc  18-21 residue  22 chain  23-26 number  27 insertion
 *     31-38 39-46 47-54 x y z  55-60 occupancy  61-66 B  77-78 element  79-80 charge
 *
 * Column 21 is blank in the standard and a fourth letter for CHARMM. Serials and numbers past their columns are hybrid-36,
 * hexadecimal (VMD), or stars. A line may end after z, with LF, CRLF or CR. MODEL, ENDMDL and END all end a model that has atoms; models
 * are counted, their numbers not trusted. Lower-case records are read as upper-case ones. Segment ids (73-76) are passed over.
 *
 * The text stands in a window; a line is read where it stands, or padded with blanks in `padded` where it is short. Names repeat:
 * their columns are looked up as numbers in tables of a few hundred before the structure's names are asked. */
#include "pdb.h"
#include "window.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 80, LONGEST = 1 << 16, CACHED = 256 };

typedef struct cached { uint32_t key; int32_t name, element; } cached;    /* element: number + 1 of what the name alone says */

struct mf__pdb {
    mf__window window;
    mf__rows *rows;
    mf__pdb_header *header;
    char *next, *zero;        /* the line to come; the first zero byte in the window, or its end */
    char *at;                 /* the line: column k is at[k] */
    int64_t line, length;     /* its number from 1, its length in the file */
    int held;                 /* the line has been looked at, and begins the next run */
    int model, boundary;      /* boundary: the next atom begins a model if this one has atoms */
    int64_t atoms;            /* of the model so far */
    char chain;               /* of the run */
    int ended[256];           /* by chain id: the model in which it had its TER */
    uint32_t residue_key;
    int32_t residue, chain_names[256];    /* numbers + 1 */
    cached atom_names[CACHED], elements[CACHED];
    char padded[WIDTH + 4];
};

static mf_status bad_line(const mf__pdb *r, const char *message) {
    return mf__fail(MF_EFORMAT, "structure.read: '%s': line %lld: %s", mf__source_name(r->window.source), (long long)r->line, message);
}

/* ---- lines ---- */

static mf_status more_text(mf__pdb *r) {
    int64_t moved;
    MF_TRY(mf__window_more(&r->window, r->next, &moved, "structure.read", r->line + 1));
    r->next += moved;
    char *zero = memchr(r->next, 0, (size_t)(r->window.end - r->next));
    r->zero = zero ? zero : r->window.end;
    return MF_OK;
}

/* The first CR or LF from `from` on, or NULL. CR alone ends lines of a few old files: hence bounded steps. */
static char *line_end(char *from, char *end) {
    while (from < end) {
        int64_t step = end - from < 256 ? end - from : 256;
        char *lf = memchr(from, '\n', (size_t)step), *cr = memchr(from, '\r', (size_t)((lf ? lf : from + step) - from));
        if (cr || lf) return cr ? cr : lf;
        from += step;
    }
    return NULL;
}

static void upper_case(char *p, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (p[i] >= 'a' && p[i] <= 'z') p[i] = (char)(p[i] - 'a' + 'A');
}

/* Goes to the next line; *ended at the end of the text. */
static mf_status next_line(mf__pdb *r, int *ended) {
    char *stop = line_end(r->next, r->window.end);
    for (int64_t seen; (!stop || stop + 1 == r->window.end) && !r->window.last;) {    /* CR at the end: LF may follow */
        seen = stop ? stop - r->next : r->window.end - r->next;
        if (seen > LONGEST) break;
        MF_TRY(more_text(r));
        stop = line_end(r->next + seen, r->window.end);
    }
    *ended = r->next == r->window.end;
    if (*ended) return MF_OK;
    r->line++;
    if (!stop) stop = r->window.end;
    r->length = stop - r->next;
    if (r->length > LONGEST) return bad_line(r, "more than 65536 characters: not a PDB file");
    if (r->zero < stop) return bad_line(r, "a zero byte: not a text file");
    char *text = r->next;
    r->next = stop;
    if (r->next < r->window.end && *r->next == '\r') r->next++;
    if (r->next < r->window.end && *r->next == '\n') r->next++;
    for (char *tab = text; (tab = memchr(tab, '\t', (size_t)(stop - tab)));) *tab = ' ';
    r->at = text - 1;
    if (r->length < WIDTH) {
        memset(r->padded, ' ', sizeof r->padded);
        memcpy(r->padded + 1, text, (size_t)r->length);
        r->at = r->padded;
    }
    return MF_OK;
}

/* ---- fields ---- */

const char *mf__pdb_field(const char *at, int first, int last, int64_t *bytes) {
    const char *p = at + first, *end = at + last + 1;
    while (p < end && *p == ' ') p++;
    while (end > p && end[-1] == ' ') end--;
    *bytes = end - p;
    return p;
}

/* A number of `width` columns: decimal, hybrid-36, or hexadecimal digits that begin with a digit. 0 when it is none. */
static int parse_hybrid(int *out, const char *text, int64_t bytes, int width) {
    if (mf__parse_int(out, text, bytes)) return 1;
    if (bytes != width) return 0;
    int lower = text[0] >= 'a' && text[0] <= 'z', upper = text[0] >= 'A' && text[0] <= 'Z';
    int hexadecimal = !lower && !upper;
    int64_t base = hexadecimal ? 16 : 36, value = 0, power = 1, ten = 1;
    for (int i = 0; i < width; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'z' ? c - 'a' + 10 : c >= 'A' && c <= 'Z' ? c - 'A' + 10 : 99;
        int mixed = (lower && c >= 'A' && c <= 'Z') || (upper && c >= 'a' && c <= 'z');
        if (digit >= base || mixed) return 0;
        value = value * base + digit;
        if (i > 0) power *= 36;
        ten *= 10;
    }
    if (hexadecimal) *out = (int)value;
    else *out = (int)(value - 10 * power + ten + (lower ? 26 * power : 0));
    return 1;
}

/* Right-aligned digits with blanks and perhaps a sign before them, which is what nearly all are: 0 for anything else. */
static inline int plain_int(int64_t *out, const char *p, int width, int *negative) {
    int64_t value = 0;
    int i = 0;
    *negative = 0;
    while (i < width && p[i] == ' ') i++;
    if (i < width && p[i] == '-') *negative = 1, i++;
    int from = i;
    for (; i < width; i++) {
        unsigned digit = (unsigned char)p[i] - (unsigned)'0';
        if (digit > 9) return 0;
        value = 10 * value + digit;
    }
    *out = value;
    return from < width;
}

/* A number with its point where the format has it, `places` from the end of `width` columns. The quotient of two exact doubles is the
 * nearest to the decimal text, as what mf__parse_real gives. */
static inline int plain_real(double *out, const char *p, int width, int places) {
    const double power = places == 3 ? 1000 : 100;
    int64_t whole;
    unsigned part = 0;
    int negative;
    if (p[width - places - 1] != '.' || !plain_int(&whole, p, width - places - 1, &negative)) return 0;
    for (int i = width - places; i < width; i++) {
        unsigned digit = (unsigned char)p[i] - (unsigned)'0';
        if (digit > 9) return 0;
        part = 10 * part + digit;
    }
    double value = (double)(whole * (int64_t)power + part) / power;
    *out = negative ? -value : value;
    return 1;
}

static mf_status coordinate(const mf__pdb *r, double *out, int first) {
    if (plain_real(out, r->at + first, 8, 3)) return MF_OK;
    int64_t n;
    const char *p = mf__pdb_field(r->at, first, first + 7, &n);
    if (n == 0) return bad_line(r, r->length < first ? "the line ends before its coordinates" : "a coordinate is blank");
    if (mf__parse_real(out, p, n)) return MF_OK;
    char text[64];
    snprintf(text, sizeof text, "the coordinate '%.*s' is not a finite number", (int)n, p);
    return bad_line(r, text);
}

static void optional_real(const mf__pdb *r, double *out, int first, double absent) {
    int64_t n;
    if (plain_real(out, r->at + first, 6, 2)) return;
    const char *p = mf__pdb_field(r->at, first, first + 5, &n);
    if (n == 0 || !mf__parse_real(out, p, n)) *out = absent;
}

/* ---- names ---- */

static mf_status name_of(mf__pdb *r, int32_t *out, int first, int last) {
    int64_t n;
    const char *p = mf__pdb_field(r->at, first, last, &n);
    return mf__names_add(&r->rows->s->names, out, p, n);
}

static uint32_t key_of(const char *p) {
    uint32_t key;
    memcpy(&key, p, sizeof key);
    return key;
}

static mf_status find_names(mf__pdb *r, mf__row *row, cached **atom) {
    uint32_t key = key_of(r->at + 18);
    if (key != r->residue_key || r->residue == 0) {
        MF_TRY(name_of(r, &row->residue, 18, 21));
        r->residue = row->residue + 1;
        r->residue_key = key;
    }
    row->residue = r->residue - 1;
    int32_t *chain = &r->chain_names[(unsigned char)r->at[22]];
    if (*chain == 0) {
        MF_TRY(name_of(r, &row->chain, 22, 22));
        *chain = row->chain + 1;
    }
    row->chain = *chain - 1;
    key = key_of(r->at + 13);
    *atom = &r->atom_names[(key * 0x9e3779b9u) >> 24];
    if ((*atom)->key != key) {    /* no name is four zero bytes: those are refused */
        MF_TRY(name_of(r, &row->atom.name, 13, 16));
        if (row->atom.name == 0) return bad_line(r, "an atom has no name");
        **atom = (cached){.key = key, .name = row->atom.name};
    }
    row->atom.name = (*atom)->name;
    return MF_OK;
}

/* What columns 77 and 78 say, else the name. */
static mf_status find_element(mf__pdb *r, mf__row *row, cached *atom) {
    mf__names *names = &r->rows->s->names;
    uint32_t key = (uint32_t)(unsigned char)r->at[77] << 8 | (unsigned char)r->at[78];
    cached *c = &r->elements[(key * 0x9e3779b9u) >> 24];
    if (c->key != key) {
        int64_t n;
        const char *p = mf__pdb_field(r->at, 77, 78, &n);
        *c = (cached){.key = key};
        char symbol[2] = {p[0], p[n > 1]};
        upper_case(symbol + (n > 1), n > 1);
        if (mf__is_element(symbol, n)) {
            MF_TRY(mf__names_add(names, &c->element, symbol, n));
            c->element++;
        }
    }
    if (c->element) {
        row->atom.element = c->element - 1;
    } else if (row->hetero || atom->element == 0) {
        MF_TRY(mf__guess_element(&row->atom.element, names, r->at + 13, mf__name(names, row->residue), row->hetero));
        if (!row->hetero) atom->element = row->atom.element + 1;
    } else {
        row->atom.element = atom->element - 1;
    }
    return MF_OK;
}

/* "2+", or "+2" of some writers; old files have other things there. */
static signed char charge_of(char a, char b) {
    if ((a == '+' || a == '-') && b >= '1' && b <= '9') { char sign = a; a = b, b = sign; }
    if (a < '0' || a > '9' || (b != '+' && b != '-')) return 0;
    return (signed char)(b == '-' ? '0' - a : a - '0');
}

/* ---- records ---- */

static mf_status read_atom(mf__pdb *r) {
    mf__rows *rows = r->rows;
    mf__row *row;
    cached *atom;
    int64_t serial, number, n;
    int negative;
    MF_TRY(mf__rows_add(rows, &row));
    const char *at = r->at;
    row->model = r->model;
    row->hetero = at[1] == 'H';
    row->atom.altloc = at[17] == ' ' ? '\0' : at[17];
    row->insertion = at[27] == ' ' ? '\0' : at[27];
    MF_TRY(find_names(r, row, &atom));
    int six = row->hetero ? 0 : at[6] != ' ';
    if (plain_int(&serial, at + 7 - six, 5 + six, &negative)) {
        row->atom.serial = (int)(negative ? -serial : serial);
    } else {
        const char *p = mf__pdb_field(at, 7, 11, &n);
        if (!parse_hybrid(&row->atom.serial, p, n, 5)) row->atom.serial = 0;    /* stars, or too many digits: of no use */
    }
    int wide = at[27] >= '0' && at[27] <= '9';    /* five digits run into the insertion code */
    if (wide) row->insertion = '\0';
    if (!wide && plain_int(&number, at + 23, 4, &negative)) {
        row->number = (int)(negative ? -number : number);
    } else {
        const char *p = mf__pdb_field(at, 23, wide ? 27 : 26, &n);
        if (n > 0 && !parse_hybrid(&row->number, p, n, 4)) return bad_line(r, "the residue number is no number");
    }
    MF_TRY(coordinate(r, &row->atom.x, 31));
    MF_TRY(coordinate(r, &row->atom.y, 39));
    MF_TRY(coordinate(r, &row->atom.z, 47));
    optional_real(r, &row->atom.occupancy, 55, 1);
    optional_real(r, &row->atom.b, 61, 0);
    row->atom.charge = charge_of(at[79], at[80]);
    return find_element(r, row, atom);
}

static int is_record(const mf__pdb *r, const char *name) { return memcmp(r->at + 1, name, strlen(name)) == 0; }

/* An atom record; r->held says that it begins the next run. */
static mf_status meet_atom(mf__pdb *r, int64_t in_run, int whole, int lower) {
    if (lower) {
        upper_case(r->at + 13, 9);    /* not the chain in column 22 */
        upper_case(r->at + 77, 2);
    }
    if (r->length < 54) return bad_line(r, "an atom record ends before its coordinates");
    if (!whole && in_run > 0 && ((r->boundary && r->atoms > 0) || r->at[22] != r->chain)) {
        r->held = 1;
        return MF_OK;
    }
    if (r->boundary && r->atoms > 0) {
        r->model++;
        r->atoms = 0;
    }
    if (in_run == 0) {
        r->chain = r->at[22];
        r->rows->ended = !whole && r->ended[(unsigned char)r->chain] == r->model;
    }
    r->boundary = 0;
    r->atoms++;
    return read_atom(r);
}

/* One line. *done: the run ends with it, or before it (r->held). */
static mf_status read_record(mf__pdb *r, int64_t in_run, int whole, int *done) {
    char *at = r->at;
    int lower = at[1] >= 'a' && at[1] <= 'z';
    if (lower) upper_case(at + 1, 6);
    *done = 0;
    if (is_record(r, "ATOM ") || is_record(r, "HETATM")) {    /* serials of six digits begin in column 6 */
        if (r->header) {
            MF_TRY(mf__pdb_header_end(r->header, r->rows));
            mf__pdb_header_close(r->header);
            r->header = NULL;
        }
        MF_TRY(meet_atom(r, in_run, whole, lower));
        *done = r->held;
    } else if (is_record(r, "TER ")) {
        if (r->atoms == 0 || in_run == 0) return MF_OK;
        r->ended[(unsigned char)r->chain] = r->model;
        *done = !whole;
        return mf__rows_ter(r->rows);
    } else if (is_record(r, "MODEL ") || is_record(r, "ENDMDL") || is_record(r, "END   ")) {
        r->boundary = 1;
    } else if (r->header) {
        if (lower && is_record(r, "SEQRES")) upper_case(at + 14, 60);    /* not the chain in column 12 */
        if (lower && is_record(r, "MODRES")) upper_case(at + 13, 3), upper_case(at + 25, 3);
        return mf__pdb_header_record(r->header, r->rows, at);
    }
    return MF_OK;
}

mf_status mf__pdb_rows(int64_t *got, mf__pdb *r, mf__rows *rows, int whole) {
    const int64_t before = rows->count;
    int ended = 0, done = 0;
    *got = 0;
    r->rows = rows;
    r->residue = 0;
    memset(r->chain_names, 0, sizeof r->chain_names);    /* names of another structure have other numbers */
    memset(r->atom_names, 0, sizeof r->atom_names);
    memset(r->elements, 0, sizeof r->elements);
    while (!done) {
        if (!r->held) MF_TRY(next_line(r, &ended));
        if (ended) break;
        r->held = 0;
        MF_TRY(read_record(r, rows->count - before, whole, &done));
    }
    if (ended && r->header) MF_TRY(mf__pdb_header_end(r->header, rows));
    *got = rows->count - before;
    return MF_OK;
}

mf_status mf__pdb_open(mf__pdb **out, mf__source *source) {
    *out = NULL;
    mf__pdb *r = calloc(1, sizeof *r);
    if (!r) return mf__fail(MF_ENOMEM, "structure.read: '%s': no memory", mf__source_name(source));
    mf_status status = mf__window_open(&r->window, source, 4 * LONGEST);
    if (status == MF_OK) status = mf__pdb_header_open(&r->header);
    r->model = 1;
    r->next = r->zero = r->window.begin;
    if (status == MF_OK) status = more_text(r);
    if (status == MF_OK && r->window.end - r->next >= 3 && memcmp(r->next, "\xef\xbb\xbf", 3) == 0) r->next += 3;    /* byte order mark */
    if (status == MF_OK) *out = r;
    else mf__pdb_close(r);
    return status;
}

void mf__pdb_close(mf__pdb *r) {
    if (!r) return;
    mf__window_close(&r->window);
    mf__pdb_header_close(r->header);
    free(r);
}
