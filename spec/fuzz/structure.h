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
#include <math.h>
#include <stdlib.h>

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

/* Written and read again. What each atom is stays to the specs: here it is that nothing is lost or refused. */
static void round_trip(const mf_structure *s, mf_read_params *params) {
    char path[64];    /* not a file of memory: writing replaces a name */
    snprintf(path, sizeof path, "/dev/shm/moonfold-fuzz-%d.cif", (int)getpid());
    if (mf_structure_write(s, path, MF_FORMAT_MMCIF) != MF_OK) return;    /* refusing is an answer: a line end in a name */
    mf_structure *again;
    const int format = params->format;
    params->format = MF_FORMAT_MMCIF;
    if (mf_structure_read(&again, path, params) != MF_OK) {
        fprintf(stderr, "what was written is refused: %s\n", mf_error_text());
        abort();
    }
    params->format = format;
    mf_structure_counts a, b;
    mf_structure_count(s, &a);
    mf_structure_count(again, &b);
    if (a.models != b.models || a.atoms != b.atoms) {
        fprintf(stderr, "%lld models, %lld atoms became %lld, %lld\n", (long long)a.models, (long long)a.atoms, (long long)b.models, (long long)b.atoms);
        abort();
    }
    mf_structure_release(again);
    unlink(path);
}

/* The pieces together are the whole, where neither is refused. */
static void by_chain(const unsigned char *data, size_t bytes, mf_read_params *params, int64_t atoms) {
    char path[64];
    int file = memory_file(path, data, bytes);
    mf_chain_reader *reader;
    mf_structure *piece;
    int64_t sum = 0;
    mf_status status = mf_chain_reader_open(&reader, path, params);
    if (status != MF_OK) abort();    /* the whole was read from the same bytes */
    while ((status = mf_chain_reader_next(&piece, reader)) == MF_OK && piece) {
        mf_structure_counts n;
        look(piece);
        mf_structure_count(piece, &n);
        sum += n.atoms;
        mf_structure_release(piece);
    }
    mf_chain_reader_close(reader);
    close(file);
    if (status != MF_OK || (params->altlocs == MF_ALTLOC_ALL && sum != atoms)) {
        fprintf(stderr, "whole %lld atoms, in pieces %lld: %s\n", (long long)atoms, (long long)sum, status == MF_OK ? "" : mf_error_text());
        abort();
    }
}

static int fuzz_structure(const unsigned char *data, size_t bytes, int format) {
    mf_structure *s;
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
    mf_structure_release(s);
    params.altlocs = MF_ALTLOC_ALL;
    if (mf_structure_parse(&s, data, (int64_t)bytes, "fuzz", &params) != MF_OK) abort();
    look(s);
    mf_structure_count(s, &all);
    if (all.atoms < best.atoms || all.records != best.records || all.atoms != all.records) abort();
    round_trip(s, &params);
    mf_structure_release(s);
    by_chain(data, bytes, &params, all.atoms);
    return 0;
}
#endif
