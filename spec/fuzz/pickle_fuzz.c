/* pickle_fuzz.c: any bytes as a pickle; every value that comes out is looked at, and every number that it holds is one. */
#include "../../core/moonfold.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes);

static void look(const mf_pickle *p, int64_t i) {
    mf_pickle_value v, child;
    int64_t bytes = 0;
    if (mf_pickle_get(p, i, &v) != MF_OK) abort();
    for (int64_t k = 0; v.text && k < v.bytes; k++) bytes += v.text[k];
    const int64_t others[4] = {v.first, v.second, v.third, v.state};
    for (int k = 0; k < 4; k++)
        if (others[k] >= 0 && mf_pickle_get(p, others[k], &child) != MF_OK) abort();
    int64_t *items = malloc((size_t)(v.items + 1) * 8), *pairs = malloc((size_t)(2 * v.pairs + 1) * 8);
    if (!items || !pairs || mf_pickle_children(items, pairs, p, i) != MF_OK) abort();
    for (int64_t k = 0; k < v.items; k++)
        if (mf_pickle_get(p, items[k], &child) != MF_OK) abort();
    for (int64_t k = 0; k < 2 * v.pairs; k++)
        if (mf_pickle_get(p, pairs[k], &child) != MF_OK) abort();
    free(items);
    free(pairs);
    if (bytes == INT64_MIN) abort();    /* the sum is used */
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes) {
    mf_pickle *p;
    mf_pickle_value v;
    if (mf_pickle_parse(&p, (const char *)data, (int64_t)bytes, "fuzz") != MF_OK) return p != NULL;
    if (mf_pickle_get(p, mf_pickle_root(p), &v) != MF_OK) abort();
    for (int64_t i = 0; mf_pickle_get(p, i, &v) == MF_OK; i++) look(p, i);
    mf_pickle_release(p);
    return 0;
}
