/* safetensors_fuzz.c: any bytes as a safetensors file: names, sizes, metadata, every tensor, its last row and its last byte. */
#include "../../core/moonfold.h"
#include "memory_file.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes) {
    static mf_ctx *ctx;
    static volatile size_t sum;
    char path[64];
    mf_archive *a;
    if (!ctx && mf_ctx_open(&ctx) != MF_OK) abort();
    int file = memory_file(path, data, bytes);
    if (mf_archive_open(&a, path) == MF_OK) {
        for (int64_t i = 0; i < mf_archive_metadata_count(a); i++)
            sum += strlen(mf_archive_metadata_key(a, i)) + strlen(mf_archive_metadata_value(a, i));
        for (int64_t i = 0; i < mf_archive_count(a); i++) {
            int dtype, ndim;
            int64_t shape[MF_MAX_DIMS], size;
            unsigned char last;
            mf_tensor *x;
            sum += strlen(mf_archive_name(a, i));
            if (mf_archive_info(a, i, &dtype, &ndim, shape, &size) != MF_OK || size < 0 || size > (int64_t)bytes) abort();
            if (size > 0 && mf_archive_bytes(&last, a, i, size - 1, 1) != MF_OK) abort();
            if (mf_archive_tensor(&x, a, ctx, i) == MF_OK) {
                if (mf_tensor_bytes(x) != size) abort();
                mf_tensor_release(x);
            }
            if (ndim > 0 && shape[0] > 0 && mf_archive_rows(&x, a, ctx, i, shape[0] - 1, 1) == MF_OK) mf_tensor_release(x);
        }
        mf_archive_close(a);
    }
    close(file);
    return 0;
}
