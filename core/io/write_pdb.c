/* write_pdb.c: the PDB format, version 3.3.
 *
 *     HEADER TITLE EXPDTA REMARK-2 SEQRES MODRES CRYST1 [MODEL] ATOM HETATM TER [ENDMDL] END
 *     1-6 record  7-11 serial  13-16 name  17 altloc  18-20 residue  22 chain  23-26 number  27 insertion
 *     31-38 39-46 47-54 x y z  55-60 occupancy  61-66 B  77-78 element  79-80 charge
 *
 * Every line has 80 columns. A file opens with HEADER and CRYST1, which DSSP wants: without a cell it is the
 * conventional one of 1 angstrom. Models are numbered 1, 2, ... Serials past 99,999 and residue numbers past 9,999 are hybrid-36.
 * What the columns cannot hold is an error that names mmCIF; coordinates are rounded to the three decimals that they have. */
#include "write.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { COLUMNS = 80, MAX_SERIAL = 99999 + 52 * 36 * 36 * 36 * 36, MAX_NUMBER = 9999 + 52 * 36 * 36 * 36 };

static mf_status put_line(mf__writer *w, const char *text) {
    char line[COLUMNS + 2];
    snprintf(line, sizeof line, "%-80.80s\n", text);
    return mf__writer_put(w, line, COLUMNS + 1);
}

/* `width` columns: decimal while it fits, then hybrid-36: letters first, upper case, then lower case. */
static void hybrid(char *text, int64_t value, int width) {
    int64_t ten = 1, power = 1;
    for (int i = 0; i < width; i++) ten *= 10;
    for (int i = 1; i < width; i++) power *= 36;
    if (value < ten) {
        snprintf(text, 24, "%*lld", width, (long long)value);
        return;
    }
    value -= ten;
    char letter = value < 26 * power ? 'A' : 'a';
    if (letter == 'a') value -= 26 * power;
    value += 10 * power;
    for (int i = width - 1; i >= 0; i--, value /= 36) text[i] = (char)(value % 36 < 10 ? '0' + value % 36 : letter + value % 36 - 10);
    text[width] = '\0';
}

/* ---- what the columns hold ---- */

static mf_status too_wide(const char *what, const char *value) {
    return mf__fail(MF_EVALUE, "structure.write: the %s '%.32s' does not fit the columns of PDB: write mmCIF", what, value);
}

static mf_status too_large(const char *what, double value) {
    char text[48];
    snprintf(text, sizeof text, "%g", value);
    return too_wide(what, text);
}

/* Six columns: two decimals, or as many as fit. */
static int six_columns(char *text, double value) {
    if (!(fabs(value) < 1e6)) return 0;
    for (int decimals = 2; decimals >= 0; decimals--)
        if (mf__format_fixed(text, value, decimals, 6) == 6) return 1;
    return 0;
}

/* A name, which blanks fill up to its columns. Line ends would break the line. */
static mf_status check_name(const char *what, const char *name, size_t width) {
    const size_t n = strlen(name);
    int held = n <= width && (n == 0 || (name[0] != ' ' && name[n - 1] != ' '));
    for (size_t i = 0; i < n; i++) held &= (unsigned char)name[i] >= ' ' && name[i] != 127;
    return held ? MF_OK : too_wide(what, name);
}

/* Nine columns of three decimals for a length, seven of two for an angle. A length of 0, or three of 1, would say that there is no cell. */
static mf_status check_cell(const mf_structure *s) {
    static const char *called[6] = {"cell length a", "cell length b", "cell length c", "cell angle alpha", "cell angle beta", "cell angle gamma"};
    int ones = 0;
    if (s->cell[0] <= 0) return MF_OK;
    for (int i = 0; i < 3; i++) ones += fabs(s->cell[i] - 1) < 0.0005;
    if (ones == 3) return too_large(called[0], s->cell[0]);
    for (int i = 0; i < 6; i++) {
        const double x = s->cell[i];
        const int fits = i < 3 ? x >= 0.0005 && x < 99999.9995 : x > -999.995 && x < 9999.995;
        if (!fits) return too_large(called[i], x);
    }
    return MF_OK;
}

static mf_status check_atom(const mf_structure *s, const mf__atom *atom) {
    char text[48];
    const double xyz[3] = {atom->x, atom->y, atom->z};
    for (int i = 0; i < 3; i++)
        if (!(xyz[i] > -999.9995 && xyz[i] < 9999.9995)) return too_large("coordinate", xyz[i]);
    if (!six_columns(text, atom->occupancy)) return too_large("occupancy", atom->occupancy);
    if (!six_columns(text, atom->b)) return too_large("B factor", atom->b);
    MF_TRY(check_name("atom name", mf__name(&s->names, atom->name), 4));
    return check_name("element", mf__name(&s->names, atom->element), 2);
}

mf_status mf__pdb_holds(const mf_structure *s, int decimal) {
    for (int64_t first = 0, end; first < s->n_chains; first = end) {
        int64_t records = 0;    /* atoms and TER of the model */
        end = mf__model_end(s, first);
        for (int64_t c = first; c < end; c++) {
            const mf__chain *chain = &s->chains[c];
            MF_TRY(check_name("chain id", mf__name(&s->names, chain->id), 1));
            records++;
            for (int64_t r = chain->first_residue; r < chain->first_residue + chain->residues; r++) {
                const mf__residue *residue = &s->residues[r];
                MF_TRY(check_name("residue name", mf__name(&s->names, residue->name), 3));
                if (residue->number < -999 || residue->number > (decimal ? 9999 : MAX_NUMBER)) return too_large("residue number", residue->number);
                if (residue->insertion >= '0' && residue->insertion <= '9')    /* it would be a fifth digit of the number */
                    return too_wide("insertion code", (char[]){residue->insertion, '\0'});
                records += residue->atoms;
                for (int64_t a = residue->first_atom; a < residue->first_atom + residue->atoms; a++) MF_TRY(check_atom(s, &s->atoms[a]));
            }
        }
        if (records > (decimal ? 99999 : MAX_SERIAL)) return too_large("number of atoms", (double)records);
    }
    for (int64_t i = 0; i < s->n_monomers; i++)
        MF_TRY(check_name("residue name", mf__name(&s->names, s->monomers[i]), 3));
    return check_cell(s);
}

/* ---- one model ---- */

typedef struct model {
    mf__writer *w;
    const mf_structure *s;
    int64_t serial;           /* of the last record */
    int keeps;                /* the structure's serials */
} model;

/* Columns 13-16: the symbol is right-aligned in the first two, unless the name needs all four. */
static void atom_columns(char *out, const char *name, const char *element) {
    int wide = strlen(name) >= 4 || (strlen(element) == 2 && strncasecmp(name, element, 2) == 0);
    snprintf(out, 5, wide ? "%-4.4s" : " %-3.3s", name);
}

/* "2+": the digit before the sign. */
static void charge_columns(char *out, int charge) {
    int one = charge != 0 && charge >= -9 && charge <= 9;
    out[0] = one ? (char)('0' + abs(charge)) : ' ';
    out[1] = !one ? ' ' : charge < 0 ? '-' : '+';
    out[2] = '\0';
}

static mf_status put_atom(model *m, const mf__item *at, const mf__atom *atom) {
    const mf__names *names = &m->s->names;
    const mf__residue *residue = &m->s->residues[at->residue];
    const char *element = mf__name(names, atom->element);
    char aligned[5], serial[24], number[24], position[3][40], occupancy[40], b[40], charge[3], line[320];
    const double xyz[3] = {atom->x, atom->y, atom->z};
    for (int i = 0; i < 3; i++) mf__format_fixed(position[i], xyz[i], 3, 8);
    six_columns(occupancy, atom->occupancy);
    six_columns(b, atom->b);
    m->serial = m->keeps ? atom->serial : m->serial + 1;
    hybrid(serial, m->serial, 5);
    hybrid(number, residue->number, 4);
    atom_columns(aligned, mf__name(names, atom->name), element);
    charge_columns(charge, atom->charge);
    snprintf(line, sizeof line, "%s%5s %4s%c%3s %1s%4s%c   %s%s%s%s%s          %2s%s", residue->hetero ? "HETATM" : "ATOM  ", serial, aligned,
             atom->altloc ? atom->altloc : ' ', mf__name(names, residue->name), mf__name(names, m->s->chains[at->chain].id), number,
             residue->insertion ? residue->insertion : ' ', position[0], position[1], position[2], occupancy, b, element, charge);
    return put_line(m->w, line);
}

static mf_status put_ter(model *m, const mf__item *at) {
    const mf__names *names = &m->s->names;
    const mf__residue *residue = &m->s->residues[at->residue];
    char serial[24], number[24], line[128];
    hybrid(serial, ++m->serial, 5);
    hybrid(number, residue->number, 4);
    snprintf(line, sizeof line, "TER   %5s      %3s %1s%4s%c", serial, mf__name(names, residue->name), mf__name(names, m->s->chains[at->chain].id), number,
             residue->insertion ? residue->insertion : ' ');
    return put_line(m->w, line);
}

static mf_status put_model(mf__writer *w, const mf_structure *s, int64_t first, int64_t end) {
    mf__order order;
    MF_TRY(mf__order_model(&order, s, first, end));
    model m = {.w = w, .s = s, .keeps = mf__serials_rise(&order, s, -1, MAX_SERIAL, 1)};
    mf_status status = MF_OK;
    for (int64_t i = 0; i < order.count; i++) {
        const mf__residue *residue = &s->residues[order.items[i].residue];
        for (int64_t a = residue->first_atom; a < residue->first_atom + residue->atoms; a++) MF_TRY_OUT(put_atom(&m, &order.items[i], &s->atoms[a]));
        if (order.items[i].ter) MF_TRY_OUT(put_ter(&m, &order.items[i]));
    }
out:
    free(order.items);
    return status;
}

/* ---- what stands above ---- */

static mf_status put_text(mf__writer *w, const char *record, const char *text) {
    char line[128];
    size_t n = strlen(text), at = 0;
    for (int k = 1; at < n; k++) {
        const size_t most = k == 1 ? 69 : 68;                               /* up to column 79 */
        at += k > 1 && text[at] == ' ';
        size_t part = n - at > most ? most : n - at;
        while (n - at > most && part > 0 && text[at + part] != ' ') part--; /* break at a blank */
        if (part == 0) part = most;
        if (k == 1) snprintf(line, sizeof line, "%-10s%.*s", record, (int)part, text + at);
        else snprintf(line, sizeof line, "%-6s  %2d %.*s", record, k % 100, (int)part, text + at);
        MF_TRY(put_line(w, line));
        at += part;
    }
    return MF_OK;
}

/* yyyy-mm-dd as dd-MMM-yy, blank when it is no date. */
static void pdb_date(char *out, const char *date) {
    static const char months[] = "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC";
    int year, month, day;
    int whole = strlen(date) == 10 && mf__parse_int(&year, date, 4) && mf__parse_int(&month, date + 5, 2) && mf__parse_int(&day, date + 8, 2);
    if (whole && month >= 1 && month <= 12) snprintf(out, 10, "%.2s-%.3s-%.2s", date + 8, months + 3 * (month - 1), date + 2);
    else snprintf(out, 10, "%9s", "");
}

/* The whole sequence of a chain, 13 residues a line: where the file has stated it, or where there was no file but a builder. */
static mf_status put_seqres(mf__writer *w, const mf_structure *s, const mf__plan *plan, int64_t chain) {
    int64_t total = 0;
    char line[128];
    for (int pass = 0; pass < 2; pass++) {    /* count, then write */
        int64_t at = 0;
        for (int64_t i = 0; i < plan->n_asyms; i++) {
            const mf__asym *asym = &plan->asyms[i];
            const mf__part *part = &plan->parts[asym->part];
            int stated = s->records == 0 || (asym->part < s->n_entities && s->entities[asym->part].monomers > 0);
            if (asym->chain_index != chain || !asym->polymer || !stated) continue;
            for (int64_t u = part->first, last = 0; u < part->first + part->units; u++) {
                if (plan->units[u].number == last) continue;    /* another name at one place */
                last = plan->units[u].number;
                if (pass == 0) { total++; continue; }
                if (at % 13 == 0) {
                    char count[24] = "    ";
                    if (total <= 9999) snprintf(count, sizeof count, "%4lld", (long long)total);
                    snprintf(line, sizeof line, "SEQRES %3lld %1s %4s ", (long long)(at / 13 % 999 + 1), mf__name(&s->names, s->chains[chain].id), count);
                }
                size_t used = strlen(line);
                snprintf(line + used, sizeof line - used, " %3s", mf__name(&plan->names, plan->units[u].name));
                if (++at % 13 == 0 || at == total) MF_TRY(put_line(w, line));
            }
        }
    }
    return MF_OK;
}

static mf_status put_modres(mf__writer *w, const mf_structure *s, const char *id, int64_t chain) {
    char number[24], line[128];
    for (int64_t r = s->chains[chain].first_residue; r < s->chains[chain].first_residue + s->chains[chain].residues; r++) {
        const mf__residue *residue = &s->residues[r];
        const char *name = mf__name(&s->names, residue->name), *parent = residue->label ? mf__parent_of(name, residue->code, s->chains[chain].polymer) : NULL;
        if (!parent) continue;
        hybrid(number, residue->number, 4);
        snprintf(line, sizeof line, "MODRES %-4s %3s %1s %4s%c %3s", id, name, mf__name(&s->names, s->chains[chain].id), number,
                 residue->insertion ? residue->insertion : ' ', parent);
        MF_TRY(put_line(w, line));
    }
    return MF_OK;
}

static mf_status put_cell(mf__writer *w, const mf_structure *s) {
    char number[6][40], line[320];
    const char *group = strlen(mf__name(&s->names, s->space_group)) <= 11 ? mf__name(&s->names, s->space_group) : "";    /* a part of it would be another's */
    if (s->cell[0] <= 0) return put_line(w, "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1");
    for (int i = 0; i < 6; i++) mf__format_fixed(number[i], s->cell[i], i < 3 ? 3 : 2, i < 3 ? 9 : 7);
    snprintf(line, sizeof line, "CRYST1%s%s%s%s%s%s %-11s", number[0], number[1], number[2], number[3], number[4], number[5], group);
    return put_line(w, line);
}

static mf_status put_heading(mf__writer *w, const mf_structure *s, const mf__plan *plan) {
    const mf__names *names = &s->names;
    const char *id = strlen(mf__name(names, s->id)) <= 4 ? mf__name(names, s->id) : "";    /* half an id would be another's */
    int64_t end = mf__model_end(s, 0);
    char date[10], line[128], number[48];
    pdb_date(date, mf__name(names, s->date));
    snprintf(line, sizeof line, "HEADER    %-40s%9s   %s", "", date, id);
    MF_TRY(put_line(w, line));
    MF_TRY(put_text(w, "TITLE", mf__name(names, s->title)));
    MF_TRY(put_text(w, "EXPDTA", mf__name(names, s->method)));
    if (s->resolution > 0 && s->resolution < 1000) {
        if (mf__format_exact(number, s->resolution, 2) > 7) mf__format_fixed(number, s->resolution, 2, 0);
        MF_TRY(put_line(w, "REMARK   2"));
        snprintf(line, sizeof line, "REMARK   2 RESOLUTION. %7s ANGSTROMS.", number);
        MF_TRY(put_line(w, line));
    }
    for (int64_t c = 0; c < end; c++) MF_TRY(put_seqres(w, s, plan, c));
    for (int64_t c = 0; c < end; c++) MF_TRY(put_modres(w, s, id, c));
    return put_cell(w, s);
}

mf_status mf__write_pdb(mf_structure_writer *w, const mf_structure *s) {
    MF_TRY(mf__pdb_holds(s, 0));
    if (w->models == 0) {
        MF_TRY(mf__plan_take(&w->plan, s));
        MF_TRY(put_heading(w->file, s, &w->plan));
    }
    for (int64_t first = 0, end; first < s->n_chains; first = end) {
        char line[32];
        end = mf__model_end(s, first);
        int numbered = !w->alone || s->models > 1;
        snprintf(line, sizeof line, "MODEL     %4d", ++w->models);
        if (numbered) MF_TRY(put_line(w->file, line));
        MF_TRY(put_model(w->file, s, first, end));
        if (numbered) MF_TRY(put_line(w->file, "ENDMDL"));
    }
    return MF_OK;
}

mf_status mf__end_pdb(mf_structure_writer *w) { return put_line(w->file, "END"); }
