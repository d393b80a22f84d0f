/* profile.c: asking a device how long each of its kernels took. */
#include "../ops/kernels.h"
#include "context.h"
#include "error.h"

/* The device, if it times its kernels. */
static mf_status timed(mf_device **out, mf_ctx *ctx, int device) {
    MF_TRY(mf__ctx_device(out, ctx, device));
    if ((*out)->backend->profile_begin) return MF_OK;
    return mf__fail(MF_ESUPPORT, "profile: %s does not time its kernels; only CUDA devices do", (*out)->name);
}

mf_status mf_profile_begin(mf_ctx *ctx, int device) {
    mf_device *d;
    MF_TRY(timed(&d, ctx, device));
    return d->backend->profile_begin(d);
}

mf_status mf_profile_end(mf_profile_row *rows, int64_t most, int64_t *count, mf_ctx *ctx, int device) {
    *count = 0;
    mf_device *d;
    MF_TRY(timed(&d, ctx, device));
    return d->backend->profile_end(d, rows, most, count);
}
