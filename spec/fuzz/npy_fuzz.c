/* npy_fuzz.c: any bytes as an array of NumPy; what is accepted has the size that its header says. */
#include "../../core/io/npy.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes) {
    static mf_ctx *ctx;
    mf_tensor *x;
    if (!ctx && mf_ctx_open(&ctx) != MF_OK) abort();
    if (mf__npy_tensor(&x, ctx, data, (int64_t)bytes, "fuzz") != MF_OK) {
        if (x) abort();
        return 0;
    }
    if (mf_tensor_count(x) > (int64_t)bytes) abort();
    mf_tensor_release(x);
    return 0;
}
