/* structure.h: what must hold of any bytes read as a structure, whatever the format.
 *
 *   - every string, number and index that the structure gives is asked for: the sanitizers see what is out of place
 *   - all locations of the atoms are at least as many atoms as the best ones, and never more than the file's records
 *   - what is read is written as mmCIF, where the writer takes it, and read again: as many models and atoms
 *   - chain by chain there are as many atoms as whole, with all locations */
#ifndef MF_FUZZ_STRUCTURE_H
#define MF_FUZZ_STRUCTURE_H
#include "../../core/moonfold.h"
#include "memory_file.h"
#include "same.h"
#include "../../core/io/cif.h"
#include "../../core/io/write.h"
#include <math.h>
#include <stdlib.h>
#include <strings.h>

static void look(const mf_structure *s) {
    static volatile size_t sum;
    mf_structure_counts n;
    mf_structure_count(s, &n);
    if (n.chains < 1 || n.atoms < 1 || n.models < 1 || n.atoms > n.records) abort();
    for (int what = MF_TEXT_ID; what <= MF_TEXT_OLIGOMER; what++) sum += strlen(mf_structure_text(s, what, 0));
    int64_t residues = 0, atoms = 0;
    for (int64_t i = 0; i < n.chains; i++) {
        mf_chain_info c;
        if (mf_structure_chain(s, i, &c) != MF_OK || c.first_residue != residues || c.model < 1 || c.model > n.models) abort();
        sum += strlen(mf_structure_text(s, MF_TEXT_CHAIN, i)) + strlen(mf_structure_text(s, MF_TEXT_ENTITY, i));
        residues += c.residues;
    }
    for (int64_t i = 0; i < n.residues; i++) {
        mf_residue_info r;
        if (mf_structure_residue(s, i, &r) != MF_OK || r.first_atom != atoms || r.atoms < 1) abort();
        sum += strlen(mf_structure_text(s, MF_TEXT_RESIDUE, i)) + strlen(mf_structure_text(s, MF_TEXT_ASYM, i));
        atoms += r.atoms;
    }
    if (residues != n.residues || atoms != n.atoms) abort();
    for (int64_t i = 0; i < n.atoms; i++) {
        mf_atom_info a;
        if (mf_structure_atom(s, i, &a) != MF_OK || !isfinite(a.x) || !isfinite(a.y) || !isfinite(a.z)) abort();
        sum += strlen(mf_structure_text(s, MF_TEXT_ATOM, i)) + strlen(mf_structure_text(s, MF_TEXT_ELEMENT, i));
    }
    int64_t monomers = 0;
    for (int64_t i = 0; i < n.entities; i++) {
        mf_entity_info e;
        if (mf_structure_entity(s, i, &e) != MF_OK || e.first_monomer < 0 || e.first_monomer + e.monomers > n.monomers) abort();
        monomers += e.monomers;
    }
    if (monomers > n.monomers) abort();
}

/* Written and read again. */
static mf_structure *trip(const mf_structure *s, int format, const char *path) {
    mf_structure *again;
    mf_read_params params;
    mf_read_params_init(&params);
    params.format = format;
    params.altlocs = MF_ALTLOC_ALL;
    if (mf_structure_write(s, path, format) != MF_OK) return NULL;    /* refusing is an answer */
    if (mf_structure_read(&again, path, &params) != MF_OK) {
        fprintf(stderr, "what was written is refused: %s\n", mf_error_text());
        abort();
    }
    unlink(path);
    return again;
}

static void same_counts(const same *p) {
    mf_structure_counts n, m;
    mf_structure_count(p->a, &n);
    mf_structure_count(p->b, &m);
    same_number(p, "structure", 0, "models", (double)n.models, (double)m.models);
    same_number(p, "structure", 0, "chains", (double)n.chains, (double)m.chains);
    same_number(p, "structure", 0, "residues", (double)n.residues, (double)m.residues);
    same_number(p, "structure", 0, "atoms", (double)n.atoms, (double)m.atoms);
    same_number(p, "structure", 0, "records", (double)n.records, (double)m.records);
    same_number(p, "structure", 0, "alternates", (double)n.alternates, (double)m.alternates);
}

/* Are the serials of the model that begins with chain `first` kept? Those that rise from above `last` in the order of the file are. */
static int keeps_serials(const mf_structure *s, int64_t first, int64_t end, int64_t last, int64_t most, int ters) {
    mf__order order;
    if (mf__order_model(&order, s, first, end) != MF_OK) abort();
    const int keeps = mf__serials_rise(&order, s, last, most, ters);
    free(order.items);
    return keeps;
}

static int64_t last_serial(const mf_structure *s, int64_t first, int64_t end) {
    int64_t last = -1;
    const mf__chain *c = &s->chains[end - 1];
    const mf__residue *r = &s->residues[c->first_residue + c->residues - 1];
    for (int64_t i = s->residues[s->chains[first].first_residue].first_atom; i < r->first_atom + r->atoms; i++)
        if (s->atoms[i].serial > last) last = s->atoms[i].serial;
    return last;
}

/* A residue without an asym: then the writer makes asyms for all, and may number the residues of polymers anew. */
static int lacks_asyms(const mf_structure *s) {
    for (int64_t i = 0; i < s->n_residues; i++)
        if (s->residues[i].asym == 0) return 1;
    return 0;
}

/* The last label of the residues of entity i: its sequence has to reach so far in mmCIF. -1 where the writer decides: labels that fall
 * along a chain or leave large gaps are not filled up. */
static int64_t reach(const mf_structure *s, int64_t i) {
    int64_t last = 0;
    if (lacks_asyms(s)) return -1;
    for (int64_t c = 0; c < s->n_chains; c++) {
        int64_t before = 0;
        for (int64_t r = s->chains[c].first_residue; r < s->chains[c].first_residue + s->chains[c].residues; r++) {
            const mf__residue *q = &s->residues[r];
            if (q->entity != s->entities[i].id || q->label == 0) continue;
            if (q->label < before || q->label > 1000) return -1;
            before = q->label;
        }
        if (before > last) last = before;
    }
    return last;
}

/* Has another chain of the same id, in another model, or of the same entity a polymer of another kind? mmCIF knows one for both. */
static int is_torn(const mf_structure *s, int64_t i) {
    const mf__chain *c = &s->chains[i];
    for (int64_t k = 0; k < s->n_chains; k++) {
        const mf__chain *d = &s->chains[k];
        if ((d->id == c->id || (c->entity && d->entity == c->entity)) && d->polymer != c->polymer) return 1;
    }
    return 0;
}

/* mmCIF holds everything. What a structure lacks, the writer makes: asyms, entities, sequences. */
static void by_mmcif(const mf_structure *s, const char *path) {
    mf_structure *b = trip(s, MF_FORMAT_MMCIF, path);
    if (!b) return;
    same p = {s, b, "mmCIF"};
    int fields = lacks_asyms(s) ? FIELD_FILE & ~FIELD_LABEL : FIELD_FILE;
    same_counts(&p);
    same_heading(&p);
    same_entities(&p, FIELD_POLYMER, reach);
    same_assemblies(&p);
    int64_t last = -1;
    for (int64_t first = 0, end; first < s->n_chains; first = end) {
        end = mf__model_end(s, first);
        if (!keeps_serials(s, first, end, last, INT32_MAX, 0)) fields &= ~FIELD_SERIAL;    /* nor are those that follow */
        for (int64_t i = first; i < end; i++) same_chain(&p, i, i, fields & ~(is_torn(s, i) ? FIELD_POLYMER : 0));
        last = last_serial(s, first, end);
    }
    mf_structure_release(b);
}

/* Without blanks: between words they are one, and a word longer than a line is broken. */
static void squeeze(char *out, size_t room, const char *text) {
    size_t n = 0;
    for (; *text && n + 1 < room; text++)
        if (*text != ' ') out[n++] = *text;
    out[n] = '\0';
}

static void same_words(const same *p, const char *field, int text) {
    char x[2048], y[2048];
    squeeze(x, sizeof x, mf_structure_text(p->a, text, 0));
    squeeze(y, sizeof y, mf_structure_text(p->b, text, 0));
    if (strcmp(x, y) != 0) differ(p, "structure", 0, field, x, y);
}

/* Are two residues of a chain told apart by their asyms or labels alone? In PDB they may be one. */
static int has_twins(const mf_structure *s) {
    for (int64_t c = 0; c < s->n_chains; c++) {
        const mf__residue *r = s->residues + s->chains[c].first_residue;
        for (int64_t i = 0; i < s->chains[c].residues; i++)
            for (int64_t k = 0; k < i; k++)
                if (r[i].number == r[k].number && r[i].insertion == r[k].insertion && r[i].name == r[k].name) return 1;
    }
    return 0;
}

/* PDB has no asyms, entities and assemblies; which residues are of a polymer, and what it is, is a guess from names, atoms and TER,
 * which another order of the residues may change (spec/tools/roundtrip.lua compares it over real files). Numbers are as wide as their
 * columns. Ids have four characters, and texts one blank between words. */
static void by_pdb(const mf_structure *s, const char *path) {
    mf_structure *b = trip(s, MF_FORMAT_PDB, path);
    if (!b) return;
    same p = {s, b, "PDB"};
    double x[6], y[6];
    if (!has_twins(s)) same_counts(&p);
    same_words(&p, "title", MF_TEXT_TITLE);
    same_words(&p, "method", MF_TEXT_METHOD);
    if (strlen(mf_structure_text(s, MF_TEXT_ID, 0)) <= 4) same_words(&p, "id", MF_TEXT_ID);
    if (mf_structure_cell(x, s)) {
        mf_structure_cell(y, b);
        for (int i = 0; i < 6; i++) same_number(&p, "cell", i, "number", rounded(x[i], i < 3 ? 3 : 2), y[i]);
        same_words(&p, "space group", MF_TEXT_SPACE_GROUP);
    }
    for (int64_t first = 0, end; first < s->n_chains && !has_twins(s); first = end) {
        end = mf__model_end(s, first);
        int fields = FIELD_COLUMNS;
        if (keeps_serials(s, first, end, -1, 99999 + 52 * 36 * 36 * 36 * 36, 1)) fields |= FIELD_SERIAL;
        for (int64_t i = first; i < end; i++) same_chain(&p, i, i, fields);
    }
    mf_structure_release(b);
}

/* ---- chain by chain ---- */

/* How many pieces have atoms of this chain of the whole; *piece and *chain: the last that has. */
static int pieces_with(const mf_structure *whole, int64_t c, mf_structure *const *pieces, int n, int *piece, int64_t *chain) {
    int found = 0;
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < pieces[i]->n_chains; k++) {
            const int same_id = strcmp(mf_structure_text(whole, MF_TEXT_CHAIN, c), mf_structure_text(pieces[i], MF_TEXT_CHAIN, k)) == 0;
            if (!same_id || whole->chains[c].model != pieces[i]->chains[k].model) continue;
            *piece = i;
            *chain = k;
            found++;
        }
    return found;
}

/* An atom and all that it stands in, for sorting. */
typedef struct placed { const mf_structure *s; const mf__chain *chain; const mf__residue *residue; const mf__atom *atom; } placed;

static int64_t place_atoms(placed *out, const mf_structure *s) {
    int64_t n = 0;
    for (int64_t c = 0; c < s->n_chains; c++)
        for (int64_t r = s->chains[c].first_residue; r < s->chains[c].first_residue + s->chains[c].residues; r++)
            for (int64_t a = s->residues[r].first_atom; a < s->residues[r].first_atom + s->residues[r].atoms; a++)
                out[n++] = (placed){s, &s->chains[c], &s->residues[r], &s->atoms[a]};
    return n;
}

#define BY(x, y) if ((x) != (y)) return (x) < (y) ? -1 : 1
/* By all that a row of the file says; labels are left out, which a piece may have counted. */
static int by_content(const void *x, const void *y) {
    const placed *a = x, *b = y;
    const int32_t names[2][6] = {
        {a->chain->id, a->residue->name, a->residue->asym, a->residue->entity, a->atom->name, a->atom->element},
        {b->chain->id, b->residue->name, b->residue->asym, b->residue->entity, b->atom->name, b->atom->element},
    };
    BY(a->chain->model, b->chain->model);
    for (int i = 0; i < 6; i++) {
        if (i == 3) continue;    /* of PDB: made of what is read */
        const int order = strcmp(mf__name(&a->s->names, names[0][i]), mf__name(&b->s->names, names[1][i]));
        if (order) return order;
    }
    BY(a->residue->number, b->residue->number);
    BY(a->residue->insertion, b->residue->insertion);
    BY(a->residue->hetero, b->residue->hetero);
    BY(a->atom->altloc, b->atom->altloc);
    BY(a->atom->serial, b->atom->serial);
    BY(a->atom->charge, b->atom->charge);
    BY(a->atom->x, b->atom->x);
    BY(a->atom->y, b->atom->y);
    BY(a->atom->z, b->atom->z);
    BY(a->atom->occupancy, b->atom->occupancy);
    BY(a->atom->b, b->atom->b);
    return 0;
}

/* Every location of every atom is in a piece. */
static void same_atoms(const mf_structure *whole, mf_structure *const *pieces, int n) {
    int64_t total = 0, there = 0;
    for (int i = 0; i < n; i++) total += pieces[i]->n_atoms;
    if (total != whole->n_atoms) {
        fprintf(stderr, "whole %lld atoms, in pieces %lld\n", (long long)whole->n_atoms, (long long)total);
        abort();
    }
    placed *a = malloc((size_t)total * sizeof *a), *b = malloc((size_t)total * sizeof *b);
    if (!a || !b) abort();
    place_atoms(a, whole);
    for (int i = 0; i < n; i++) there += place_atoms(b + there, pieces[i]);
    qsort(a, (size_t)total, sizeof *a, by_content);
    qsort(b, (size_t)total, sizeof *b, by_content);
    for (int64_t i = 0; i < total; i++)
        if (by_content(&a[i], &b[i]) != 0) {
            fprintf(stderr, "whole and pieces: atom %lld of serial %d became %d, in content\n", (long long)i + 1, a[i].atom->serial, b[i].atom->serial);
            abort();
        }
    free(a);
    free(b);
}

/* The pieces together are the whole. A chain that is in one piece is the same chain, field by field; but for what the file says after its
 * atoms, or of atoms that come later: is the text of mmCIF in that order (`early`), then nothing differs. The last piece knows what
 * stands above the atoms, and below. */
static void by_chain(const unsigned char *data, size_t bytes, const mf_read_params *params, const mf_structure *whole, int early) {
    const int format = params->format;
    enum { MOST = 4096 };
    static mf_structure *pieces[MOST];
    char path[64];
    int file = memory_file(path, data, bytes), n = 0;
    mf_chain_reader *reader;
    if (mf_chain_reader_open(&reader, path, params) != MF_OK) abort();    /* the whole was read from the same bytes */
    mf_status status;
    while ((status = mf_chain_reader_next(&pieces[n], reader)) == MF_OK && pieces[n] && n + 1 < MOST) look(pieces[n++]);
    if (status != MF_OK) {
        fprintf(stderr, "whole it is read, in pieces refused: %s\n", mf_error_text());
        abort();
    }
    mf_structure_release(pieces[n]);
    mf_chain_reader_close(reader);
    close(file);
    if (n + 1 < MOST) {
        if (params->altlocs == MF_ALTLOC_ALL) same_atoms(whole, pieces, n);
        const int fields = early ? FIELD_FILE : FIELD_ASYM | FIELD_SERIAL;
        for (int64_t c = 0; c < whole->n_chains; c++) {
            int piece;
            int64_t chain;
            if (pieces_with(whole, c, pieces, n, &piece, &chain) != 1) continue;
            same p = {pieces[piece], whole, "a piece"};
            same_chain(&p, chain, c, fields);
        }
        same p = {pieces[n - 1], whole, "the last piece"};
        if (early) {
            same_heading(&p);
            same_entities(&p, format == MF_FORMAT_PDB ? 0 : FIELD_POLYMER, NULL);
            same_assemblies(&p);
        }
    }
    for (int i = 0; i < n; i++) mf_structure_release(pieces[i]);
}

/* Does a text of mmCIF give its atoms last, and the label of the first of them? Then a piece knows all that the whole file knows. */
static int atoms_are_last(const unsigned char *data, size_t bytes) {
    mf_cif *cif;
    mf_cif_counts n;
    int early = 0;
    if (mf_cif_parse(&cif, data, (int64_t)bytes, "fuzz") != MF_OK) return 0;
    mf_cif_count(&n, cif);
    for (int64_t i = 0; i < n.tables; i++) {
        mf_cif_table_info t, last;
        if (mf_cif_table(&t, cif, i) != MF_OK) abort();
        for (int64_t c = 0; c < t.columns; c++)
            if (strcasecmp(mf_cif_tag(cif, i, c), "_atom_site.label_seq_id") == 0) {
                mf_cif_cell cell;
                int label;
                if (mf_cif_value(&cell, cif, i, 0, c) == MF_OK && mf__cell_int(&label, &cell) && label != 0)
                    early = i + 1 == n.tables || (mf_cif_table(&last, cif, i + 1) == MF_OK && last.block != t.block);
            }
    }
    mf_cif_release(cif);
    return early;
}

static int fuzz_structure(const unsigned char *data, size_t bytes, int format) {
    mf_structure *s;
    char path[64];
    mf_read_params params;
    mf_structure_counts best, all;
    mf_read_params_init(&params);
    params.format = format;
    params.max_bytes = 1 << 22;
    if (mf_structure_parse(&s, data, (int64_t)bytes, "fuzz", &params) != MF_OK) {
        if (s) abort();
        return 0;
    }
    look(s);
    mf_structure_count(s, &best);
    const int early = format == MF_FORMAT_PDB || atoms_are_last(data, bytes);
    by_chain(data, bytes, &params, s, early);
    mf_structure_release(s);
    params.altlocs = MF_ALTLOC_ALL;
    if (mf_structure_parse(&s, data, (int64_t)bytes, "fuzz", &params) != MF_OK) abort();
    look(s);
    mf_structure_count(s, &all);
    if (all.atoms < best.atoms || all.records != best.records || all.atoms != all.records) abort();
    snprintf(path, sizeof path, "/dev/shm/moonfold-fuzz-%d", (int)getpid());    /* not a file of memory: writing replaces a name */
    by_mmcif(s, path);
    by_pdb(s, path);
    by_chain(data, bytes, &params, s, early);
    mf_structure_release(s);
    return 0;
}
#endif
