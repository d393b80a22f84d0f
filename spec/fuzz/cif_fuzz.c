/* cif_fuzz.c: any bytes as CIF, text or BinaryCIF: every block, tag and value is asked for. */
#include "../../core/moonfold.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes) {
    static volatile int64_t sum;
    mf_cif *cif;
    mf_cif_counts n;
    if (mf_cif_parse(&cif, data, (int64_t)bytes, "fuzz") != MF_OK) {
        if (cif) abort();
        return 0;
    }
    mf_cif_count(&n, cif);
    for (int64_t i = 0; i < n.blocks; i++) {
        int64_t parent;
        sum += (int64_t)strlen(mf_cif_block(cif, i, &parent));
        if (parent < -1 || parent >= i) abort();
    }
    for (int64_t i = 0; i < n.tables; i++) {
        mf_cif_table_info t;
        if (mf_cif_table(&t, cif, i) != MF_OK || t.block < 0 || t.block >= n.blocks) abort();
        for (int64_t c = 0; c < t.columns; c++) sum += (int64_t)strlen(mf_cif_tag(cif, i, c));
        for (int64_t r = 0; r < t.rows; r++)
            for (int64_t c = 0; c < t.columns; c++) {
                mf_cif_cell v;
                if (mf_cif_value(&v, cif, i, r, c) != MF_OK) abort();
                if (v.kind == MF_CIF_TEXT || v.kind == MF_CIF_QUOTED)
                    for (int64_t k = 0; k < v.bytes; k++) sum += v.text[k];
            }
    }
    mf_cif_release(cif);
    return 0;
}
