/* write.c: writing structures as PDB, and which format a name asks for. mmCIF is in write_mmcif.c.
 *
 * Every line has 80 columns. Files open with HEADER and CRYST1, which DSSP wants. Models are numbered 1, 2, ...;
 * in each, polymers come first, a TER after each, then ligands and water as HETATM. Serials past 99,999 and
 * residue numbers past 9,999 are hybrid-36. What the columns cannot hold is an error that names mmCIF. */
#include "write.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { COLUMNS = 80, MAX_SERIAL = 99999 + 52 * 36 * 36 * 36 * 36, MAX_NUMBER = 9999 + 52 * 36 * 36 * 36 };

/* Pads to 80 columns and ends the line. */
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

static mf_status too_wide(const char *what, const char *value) {
    return mf__fail(MF_EVALUE, "structure.write: the %s '%.32s' does not fit the columns of PDB: write mmCIF", what, value);
}

/* Columns 13-16: the symbol is right-aligned in the first two, unless the name needs all four. */
static void atom_columns(char *out, const char *name, const char *element) {
    int wide = strlen(name) >= 4 || (strlen(element) == 2 && strncasecmp(name, element, 2) == 0);
    snprintf(out, 5, wide ? "%-4.4s" : " %-3.3s", name);
}

typedef struct pdb {
    mf__writer *w;
    const mf_structure *s;
    int64_t serial;
} pdb;

static mf_status put_atom(pdb *p, const mf__chain *chain, const mf__residue *residue, const mf__atom *atom) {
    const mf__names *names = &p->s->names;
    const char *name = mf__name(names, atom->name), *element = mf__name(names, atom->element);
    const char *residue_name = mf__name(names, residue->name), *id = mf__name(names, chain->id);
    double xyz[3] = {atom->x, atom->y, atom->z};
    char aligned[5], serial[24], number[24], position[3][40], occupancy[40], b[40], line[320];
    for (int i = 0; i < 3; i++) {
        if (!(xyz[i] > -999.9995 && xyz[i] < 9999.9995)) {
            snprintf(line, sizeof line, "%g", xyz[i]);
            return too_wide("coordinate", line);
        }
        mf__format_fixed(position[i], xyz[i], 3, 8);
    }
    mf__format_fixed(occupancy, fmin(fmax(atom->occupancy, -99.99), 999.99), 2, 6);
    mf__format_fixed(b, fmin(fmax(atom->b, -99.99), 999.99), 2, 6);
    if (++p->serial > MAX_SERIAL) return too_wide("number of atoms", "too many");
    hybrid(serial, p->serial, 5);
    hybrid(number, residue->number, 4);
    atom_columns(aligned, name, element);
    snprintf(line, sizeof line, "%s%5s %4s%c%3s %1s%4s%c   %s%s%s%s%s          %2s", residue->hetero ? "HETATM" : "ATOM  ", serial, aligned, ' ',
             residue_name, id, number, residue->insertion ? residue->insertion : ' ', position[0], position[1], position[2], occupancy, b, element);
    return put_line(p->w, line);
}

static mf_status check_pdb(const mf_structure *s) {
    for (int64_t c = 0; c < s->n_chains; c++)
        if (strlen(mf__name(&s->names, s->chains[c].id)) > 1) return too_wide("chain id", mf__name(&s->names, s->chains[c].id));
    char number[16];
    for (int64_t r = 0; r < s->n_residues; r++) {
        const mf__residue *residue = &s->residues[r];
        snprintf(number, sizeof number, "%d", residue->number);
        if (strlen(mf__name(&s->names, residue->name)) > 3) return too_wide("residue name", mf__name(&s->names, residue->name));
        if (residue->number < -999 || residue->number > MAX_NUMBER) return too_wide("residue number", number);
    }
    for (int64_t a = 0; a < s->n_atoms; a++) {
        if (strlen(mf__name(&s->names, s->atoms[a].name)) > 4) return too_wide("atom name", mf__name(&s->names, s->atoms[a].name));
        if (strlen(mf__name(&s->names, s->atoms[a].element)) > 2) return too_wide("element", mf__name(&s->names, s->atoms[a].element));
    }
    return MF_OK;
}

static mf_status put_ter(pdb *p, const mf__chain *chain, const mf__residue *last) {
    char serial[24], number[24], line[128];
    if (++p->serial > MAX_SERIAL) return too_wide("number of atoms", "too many");
    hybrid(serial, p->serial, 5);
    hybrid(number, last->number, 4);
    snprintf(line, sizeof line, "TER   %5s      %3s %1s%4s%c", serial, mf__name(&p->s->names, last->name), mf__name(&p->s->names, chain->id), number,
             last->insertion ? last->insertion : ' ');
    return put_line(p->w, line);
}

/* The residues of one kind in the chains of a model: polymer, each chain with its TER, or the others. */
static mf_status put_residues(pdb *p, int64_t first, int64_t end, int polymer) {
    const mf_structure *s = p->s;
    for (int64_t c = first; c < end; c++) {
        const mf__residue *last = NULL;
        for (int64_t r = s->chains[c].first_residue; r < s->chains[c].first_residue + s->chains[c].residues; r++) {
            const mf__residue *residue = &s->residues[r];
            if ((residue->label != 0) != polymer) continue;
            for (int64_t a = residue->first_atom; a < residue->first_atom + residue->atoms; a++) MF_TRY(put_atom(p, &s->chains[c], residue, &s->atoms[a]));
            if (residue->atoms) last = residue;
        }
        if (polymer && last) MF_TRY(put_ter(p, &s->chains[c], last));
    }
    return MF_OK;
}

static mf_status put_text(mf__writer *w, const char *record, const char *text) {
    char line[128];
    size_t n = strlen(text), at = 0;
    for (int k = 1; at < n; k++) {
        size_t part = n - at > 69 ? 69 : n - at;
        while (n - at > 69 && part > 40 && text[at + part] != ' ') part--;    /* break at a blank */
        if (k == 1) snprintf(line, sizeof line, "%-10s%.*s", record, (int)part, text + at);
        else snprintf(line, sizeof line, "%-6s  %2d %.*s", record, k % 100, (int)part, text + at + (text[at] == ' '));
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

static mf_status put_heading(mf__writer *w, const mf_structure *s) {
    const mf__names *names = &s->names;
    char date[10], line[128], number[40];
    pdb_date(date, mf__name(names, s->date));
    snprintf(line, sizeof line, "HEADER    %-40s%9s   %-4.4s", "", date, mf__name(names, s->id));
    MF_TRY(put_line(w, line));
    MF_TRY(put_text(w, "TITLE", mf__name(names, s->title)));
    MF_TRY(put_text(w, "EXPDTA", mf__name(names, s->method)));
    if (s->resolution > 0 && s->resolution < 1000) {
        mf__format_fixed(number, s->resolution, 2, 7);
        MF_TRY(put_line(w, "REMARK   2"));
        snprintf(line, sizeof line, "REMARK   2 RESOLUTION. %s ANGSTROMS.", number);
        MF_TRY(put_line(w, line));
    }
    return put_line(w, "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1");
}

static mf_status put_pdb(mf__writer *w, const mf_structure *s) {
    MF_TRY(check_pdb(s));
    MF_TRY(put_heading(w, s));
    for (int64_t first = 0; first < s->n_chains;) {
        int64_t end = first;
        while (end < s->n_chains && s->chains[end].model == s->chains[first].model) end++;
        pdb p = {.w = w, .s = s};
        char line[32];
        snprintf(line, sizeof line, "MODEL     %4d", s->chains[first].model);
        if (s->models > 1) MF_TRY(put_line(w, line));
        MF_TRY(put_residues(&p, first, end, 1));
        MF_TRY(put_residues(&p, first, end, 0));
        if (s->models > 1) MF_TRY(put_line(w, "ENDMDL"));
        first = end;
    }
    return put_line(w, "END");
}

/* Does every model fit decimal serials and numbers, and every name its columns? */
static int fits_pdb(const mf_structure *s) {
    if (check_pdb(s) != MF_OK) return 0;
    int64_t serials = 0;
    for (int64_t c = 0; c < s->n_chains; c++) {
        if (c > 0 && s->chains[c].model != s->chains[c - 1].model) serials = 0;
        serials++;
        for (int64_t r = s->chains[c].first_residue; r < s->chains[c].first_residue + s->chains[c].residues; r++) {
            serials += s->residues[r].atoms;
            if (s->residues[r].number > 9999) return 0;
        }
        if (serials > 99999) return 0;
    }
    for (int64_t a = 0; a < s->n_atoms; a++)
        if (fmin(s->atoms[a].x, fmin(s->atoms[a].y, s->atoms[a].z)) < -999.999 || fmax(s->atoms[a].x, fmax(s->atoms[a].y, s->atoms[a].z)) > 9999.999) return 0;
    return 1;
}

mf_status mf_structure_write(const mf_structure *s, const char *path, int format) {
    if (!path) return mf__fail(MF_EVALUE, "structure.write: no path");
    if (format < MF_FORMAT_AUTO || format > MF_FORMAT_MMCIF) return mf__fail(MF_EVALUE, "structure.write: unknown format %d", format);
    if (s->n_atoms == 0) return mf__fail(MF_EVALUE, "structure.write: '%s': the structure has no atoms", path);
    if (format == MF_FORMAT_AUTO) format = mf__format_of_name(path);
    if (format == MF_FORMAT_BCIF) return mf__fail(MF_ESUPPORT, "structure.write: '%s': BinaryCIF cannot be written; .cif or .cif.gz can", path);
    if (format == MF_FORMAT_AUTO) format = fits_pdb(s) ? MF_FORMAT_PDB : MF_FORMAT_MMCIF;
    mf__writer *w;
    MF_TRY(mf__writer_open(&w, path));
    mf_status status = format == MF_FORMAT_PDB ? put_pdb(w, s) : mf__write_mmcif(w, s);
    if (status == MF_OK) return mf__writer_commit(w);
    mf__writer_abandon(w);
    return status;
}
