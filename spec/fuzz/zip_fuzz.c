/* zip_fuzz.c: any bytes as a ZIP archive; every entry is read, and as an array, and as tensors whose layout is made of its own
 * bytes. */
#include "../../core/io/zip.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes);

/* The first bytes of the content: kind, width, order, axes, then either a byte or 8 for each number. */
static void lay_out(mf_zip *zip, mf_ctx *ctx, int64_t i, const unsigned char *p, int64_t bytes) {
    mf_layout l;
    mf_tensor *x;
    const int wide = bytes > 0 && p[0] & 0x80, step = wide ? 8 : 1;
    if (bytes < 4 + step * 17) return;
    memset(&l, 0, sizeof l);
    l.kind = p[0] & 7;
    l.width = p[1];
    l.big_endian = p[2] & 1;
    l.ndim = p[3] % 10;
    const unsigned char *at = p + 4;
    int64_t numbers[17];
    for (int k = 0; k < 17; k++, at += step) {
        numbers[k] = at[0];
        if (wide) memcpy(&numbers[k], at, 8);
    }
    l.offset = numbers[0];
    memcpy(l.shape, numbers + 1, sizeof l.shape);
    memcpy(l.stride, numbers + 9, sizeof l.stride);
    int64_t count = 1;                  /* repetition up to 2^26 elements is allowed, and slow */
    for (int k = 0; k < 8 && k < l.ndim; k++)
        if (l.shape[k] > 0 && __builtin_mul_overflow(count, l.shape[k], &count)) break;
    if (count > 1 << 16 && count <= 1 << 26) return;
    if (mf_zip_tensor(&x, zip, ctx, i, &l) == MF_OK) mf_tensor_release(x);
    else if (x) abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes) {
    static mf_ctx *ctx;
    mf_zip *zip;
    if (!ctx && mf_ctx_open(&ctx) != MF_OK) abort();
    if (mf__zip_view(&zip, data, (int64_t)bytes, "fuzz") != MF_OK) return 0;
    for (int64_t i = 0; i < mf_zip_count(zip); i++) {
        char *content;
        int64_t n;
        mf_tensor *x;
        if (!mf_zip_name(zip, i)) abort();
        if (mf_zip_read(&content, &n, zip, i) != MF_OK) continue;
        if (n != mf_zip_size(zip, i)) abort();
        if (mf_zip_npy(&x, zip, ctx, i) == MF_OK) mf_tensor_release(x);
        lay_out(zip, ctx, i, (const unsigned char *)content, n);
        mf_file_free(content);
    }
    mf_zip_close(zip);
    return 0;
}
