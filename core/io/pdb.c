/* pdb.c: reading the PDB format, version 3 and the habits of those who write it.
 *
 *     1-6 record  7-11 serial  13-16 name  17 altloc  18-21 residue  22 chain  23-26 number  27 insertion
 *     31-38 39-46 47-54 x y z  55-60 occupancy  61-66 B  77-78 element
 *
 * Column 21 is blank in the standard and a fourth letter for CHARMM. Serials and numbers past their columns are
 * hybrid-36, hexadecimal (VMD), or stars. A line may end after z. MODEL, ENDMDL and END all end a model that
 * has atoms; models are counted, their numbers not trusted. Lower-case records are read as upper-case ones. */
#include "structure.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 82 };

typedef struct reader {
    mf__rows *rows;
    int64_t line;
    char at[WIDTH + 2];       /* the line, blank padded; column k is at[k] */
    int64_t length;           /* of the line in the file */
    int model, boundary;      /* boundary: the next atom begins a model if this one has atoms */
    int64_t last;             /* row of the last atom of the model, -1: none */
    char title[1024], method[256];
} reader;

/* Columns first..last without the blanks around them. */
static const char *field(const reader *r, int first, int last, int64_t *bytes) {
    const char *p = r->at + first, *end = r->at + last + 1;
    while (p < end && *p == ' ') p++;
    while (end > p && end[-1] == ' ') end--;
    *bytes = end - p;
    return p;
}

static mf_status bad_line(const reader *r, const char *message) {
    return mf__fail(MF_EFORMAT, "structure.read: '%s': line %lld: %s", r->rows->path, (long long)r->line, message);
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

static mf_status coordinate(const reader *r, double *out, int first) {
    int64_t n;
    const char *p = field(r, first, first + 7, &n);
    if (n == 0) return bad_line(r, r->length < first ? "the line ends before its coordinates" : "a coordinate is blank");
    if (mf__parse_real(out, p, n)) return MF_OK;
    return mf__fail(MF_EFORMAT, "structure.read: '%s': line %lld: the coordinate '%.*s' is not a finite number", r->rows->path,
                    (long long)r->line, (int)n, p);
}

static void upper_case(char *p, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (p[i] >= 'a' && p[i] <= 'z') p[i] = (char)(p[i] - 'a' + 'A');
}

static mf_status read_atom(reader *r, int lower) {
    mf__rows *rows = r->rows;
    mf__names *names = &rows->s->names;
    int64_t n;
    const char *p;
    if (lower) {
        upper_case(r->at + 13, 9);    /* not the chain in column 22 */
        upper_case(r->at + 77, 2);
    }
    if (r->length < 54) return bad_line(r, "an atom record ends before its coordinates");
    if (r->boundary && r->last >= 0) {
        r->model++;
        r->last = -1;
    }
    r->boundary = 0;
    mf__row *row;
    MF_TRY(mf__rows_add(rows, &row));
    row->model = r->model;
    row->hetero = r->at[1] == 'H';
    p = field(r, 18, 21, &n);
    MF_TRY(mf__names_add(names, &row->residue, p, n));
    p = field(r, 22, 22, &n);
    MF_TRY(mf__names_add(names, &row->chain, p, n));
    p = field(r, 13, 16, &n);
    if (n == 0) return bad_line(r, "an atom has no name");
    MF_TRY(mf__names_add(names, &row->atom.name, p, n));
    row->atom.altloc = r->at[17] == ' ' ? '\0' : r->at[17];
    row->insertion = r->at[27] == ' ' ? '\0' : r->at[27];

    p = field(r, 7, 11, &n);
    if (!parse_hybrid(&row->atom.serial, p, n, 5)) row->atom.serial = 0;    /* stars, or too many digits: of no use */
    int wide = r->at[27] >= '0' && r->at[27] <= '9';    /* five digits run into the insertion code */
    p = field(r, 23, wide ? 27 : 26, &n);
    if (wide) row->insertion = '\0';
    if (n == 0) row->number = 0;
    else if (!parse_hybrid(&row->number, p, n, 4)) return bad_line(r, "the residue number is no number");

    MF_TRY(coordinate(r, &row->atom.x, 31));
    MF_TRY(coordinate(r, &row->atom.y, 39));
    MF_TRY(coordinate(r, &row->atom.z, 47));
    p = field(r, 55, 60, &n);
    if (n == 0 || !mf__parse_real(&row->atom.occupancy, p, n)) row->atom.occupancy = 1;
    p = field(r, 61, 66, &n);
    if (n == 0 || !mf__parse_real(&row->atom.b, p, n)) row->atom.b = 0;

    p = field(r, 77, 78, &n);
    int letters = n > 0;
    for (int64_t i = 0; i < n; i++) letters &= (p[i] >= 'A' && p[i] <= 'Z') || (i > 0 && p[i] >= 'a' && p[i] <= 'z');
    if (letters) {
        char symbol[2] = {p[0], n > 1 && p[1] >= 'a' ? (char)(p[1] - 'a' + 'A') : p[n - 1]};
        MF_TRY(mf__names_add(names, &row->atom.element, symbol, n));
    } else {
        MF_TRY(mf__guess_element(&row->atom.element, names, r->at + 13, mf__name(names, row->residue), row->hetero));
    }
    r->last = rows->count - 1;
    return MF_OK;
}

/* Appends columns first.. to a text that goes over several lines. */
static void append(const reader *r, char *text, size_t room, int first) {
    int64_t n;
    const char *p = field(r, first, 79, &n);
    size_t used = strlen(text);
    if (n > 0) snprintf(text + used, room - used, "%s%.*s", used ? " " : "", (int)n, p);
}

/* dd-MMM-yy to yyyy-mm-dd; the archive began in 1971. */
static mf_status read_header(reader *r) {
    static const char months[] = "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC";
    mf_structure *s = r->rows->s;
    int64_t n;
    const char *p = field(r, 63, 66, &n);
    MF_TRY(mf__names_add(&s->names, &s->id, p, n));
    char month[4] = {0};
    int day, year;
    p = r->at + 51;
    memcpy(month, p + 3, 3);
    upper_case(month, 3);
    const char *found = strstr(months, month);
    const char *tens = p[0] == ' ' ? p + 1 : p;
    if (!found || (found - months) % 3 || p[2] != '-' || p[6] != '-' || !mf__parse_int(&day, tens, p + 2 - tens) || !mf__parse_int(&year, p + 7, 2)) return MF_OK;
    char date[32];
    int bytes = snprintf(date, sizeof date, "%04d-%02d-%02d", year + (year > 70 ? 1900 : 2000), (int)(found - months) / 3 + 1, day);
    return mf__names_add(&s->names, &s->date, date, bytes);
}

static mf_status read_modres(reader *r) {
    int64_t n, m;
    const char *name = field(r, 13, 15, &n), *parent = field(r, 25, 27, &m);
    return mf__rows_add_parent(r->rows, name, n, parent, m);
}

static void read_remark(reader *r) {
    double value;
    int64_t n;
    if (r->at[10] != '2' || r->rows->s->resolution > 0 || memcmp(r->at + 12, "RESOLUTION.", 11) != 0) return;
    const char *p = field(r, 24, 30, &n), *blank = memchr(p, ' ', (size_t)n);
    if (mf__parse_real(&value, p, blank ? blank - p : n) && value > 0) r->rows->s->resolution = value;
}

/* Records that say nothing about atoms; a lower-case file has its records upper-cased by then. */
static mf_status read_record(reader *r, int lower) {
    const char *name = r->at + 1;
    if (memcmp(name, "ATOM  ", 6) == 0 || memcmp(name, "HETATM", 6) == 0) return read_atom(r, lower);
    if (memcmp(name, "TER ", 4) == 0) {
        if (r->last >= 0) r->rows->rows[r->last].ter = 1;
    } else if (memcmp(name, "MODEL ", 6) == 0 || memcmp(name, "ENDMDL", 6) == 0 || memcmp(name, "END   ", 6) == 0) {
        r->boundary = 1;
    } else if (memcmp(name, "HEADER", 6) == 0) {
        return read_header(r);
    } else if (memcmp(name, "TITLE ", 6) == 0) {
        append(r, r->title, sizeof r->title, 11);
    } else if (memcmp(name, "EXPDTA", 6) == 0) {
        append(r, r->method, sizeof r->method, 11);
    } else if (memcmp(name, "REMARK", 6) == 0) {
        read_remark(r);
    } else if (memcmp(name, "MODRES", 6) == 0) {
        return read_modres(r);
    }
    return MF_OK;
}

mf_status mf__read_pdb(mf__rows *rows, const char *text, int64_t bytes) {
    reader r = {.rows = rows, .model = 1, .last = -1};
    const char *p = text, *end = text + bytes;
    while (p < end) {
        r.line++;
        const char *stop = p;
        while (stop < end && *stop != '\n' && *stop != '\r') stop++;
        r.length = stop - p;
        int64_t kept = r.length < WIDTH ? r.length : WIDTH;
        memset(r.at, ' ', sizeof r.at);
        memcpy(r.at + 1, p, (size_t)kept);
        for (int64_t i = 1; i <= kept; i++)
            if (r.at[i] == '\t') r.at[i] = ' ';
        int lower = r.at[1] >= 'a' && r.at[1] <= 'z';
        if (lower) upper_case(r.at + 1, 6);
        MF_TRY(read_record(&r, lower));
        p = stop;
        if (p < end && *p == '\r') p++;
        if (p < end && *p == '\n') p++;
    }
    mf_structure *s = rows->s;
    MF_TRY(mf__names_add(&s->names, &s->title, r.title, (int64_t)strlen(r.title)));
    return mf__names_add(&s->names, &s->method, r.method, (int64_t)strlen(r.method));
}
