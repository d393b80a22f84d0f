/* look.h: every string, number and index of a structure is asked for, so that the sanitizers see what is out of place. */
#ifndef MF_FUZZ_LOOK_H
#define MF_FUZZ_LOOK_H
#include "../../core/moonfold.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

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
#endif
