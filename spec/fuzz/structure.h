/* structure.h: what must hold of any bytes read as a structure, whatever the format.
 *
 *   - every string, number and index that the structure gives is asked for: the sanitizers see what is out of place
 *   - all locations of the atoms are at least as many atoms as the best ones, and never more than the file's records
 *   - what is read is written as mmCIF, where the writer takes it, and read again: the same structure (trips.h)
 *   - chain by chain it is the same too (pieces.h) */
#ifndef MF_FUZZ_STRUCTURE_H
#define MF_FUZZ_STRUCTURE_H
#include "look.h"
#include "pieces.h"
#include "trips.h"
#include "../../core/io/cif.h"
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

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
    const int early = format == MF_FORMAT_PDB || (atoms_are_last(data, bytes) && s->residues[0].label != 0);    /* that of water says nothing */
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
