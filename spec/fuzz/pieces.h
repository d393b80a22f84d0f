/* pieces.h: the chains that the chain reader gives, one after the other, are together the structure that is read whole. */
#ifndef MF_FUZZ_PIECES_H
#define MF_FUZZ_PIECES_H
#include "look.h"
#include "memory_file.h"
#include "same.h"

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
typedef struct placed { const mf_structure *s; const mf__chain *chain; const mf__residue *residue; const mf__atom *atom; int first; } placed;

static int64_t place_atoms(placed *out, const mf_structure *s) {
    int64_t n = 0;
    for (int64_t c = 0; c < s->n_chains; c++)
        for (int64_t r = s->chains[c].first_residue; r < s->chains[c].first_residue + s->chains[c].residues; r++)
            for (int64_t a = s->residues[r].first_atom; a < s->residues[r].first_atom + s->residues[r].atoms; a++)
                out[n++] = (placed){s, &s->chains[c], &s->residues[r], &s->atoms[a], a == s->residues[r].first_atom};
    return n;
}

#define BY(x, y) if ((x) != (y)) return (x) < (y) ? -1 : 1
/* By all that a row of the file says of its atom; labels are left out, which a piece may have counted. */
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

static void same_atom_in_pieces(const placed *a, const placed *b, int64_t i) {
    if (by_content(a, b) == 0) return;
    fprintf(stderr, "whole and pieces: atom %lld of serial %d became %d, in content\n", (long long)i + 1, a->atom->serial, b->atom->serial);
    abort();
}

/* ATOM or HETATM is of a residue, as its first row says it. A residue that goes on in another piece has another first row there, which may
 * say something else: so it is compared where both begin with the same atom, and no other atom has that content. */
static void same_hetero(const placed *a, const placed *b, int64_t i, int64_t total) {
    const int one = (i == 0 || by_content(&a[i - 1], &a[i]) != 0) && (i + 1 == total || by_content(&a[i], &a[i + 1]) != 0);
    if (!one || !a[i].first || !b[i].first || a[i].residue->hetero == b[i].residue->hetero) return;
    fprintf(stderr, "whole and pieces: ATOM or HETATM differs, of the residue that begins with the atom of serial %d\n", a[i].atom->serial);
    abort();
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
    for (int64_t i = 0; i < total; i++) same_atom_in_pieces(&a[i], &b[i], i);
    for (int64_t i = 0; i < total; i++) same_hetero(a, b, i, total);
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
#endif
