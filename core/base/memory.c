/* memory.c: counting what devices hold, limits, and the pressure that tells a host when to collect.
 *
 * A garbage-collected host sees a tensor as a handful of bytes, so it must be told: mf_memory_pressure() is 1 when
 * a device holds more than its soft limit; the host collects and reports back, and a collection that freed too
 * little raises the limit by 1.4 (STYLE 2.1). */
#include "memory.h"
#include "../ops/kernels.h"
#include "../tensor/tensor.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

int mf__may_allocate(mf_ctx *ctx) {
    return ctx->fail_countdown == 0 || --ctx->fail_countdown > 0;
}

void *mf__host_alloc(mf_ctx *ctx, size_t bytes) {
    void *p = mf__may_allocate(ctx) ? malloc(bytes ? bytes : 1) : NULL;
    if (!p) mf__fail(MF_ENOMEM, "out of memory: %zu bytes of workspace", bytes);
    return p;
}

mf_status mf__device_alloc(mf_device *device, void **data, int64_t bytes) {
    mf_memory *m = &device->memory;
    *data = NULL;
    int over = m->limit > 0 && bytes > m->limit - m->live;
    if (bytes > INT64_MAX - m->live)          /* the null device has no other end */
        return mf__fail(MF_ENOMEM, "out of memory: %lld bytes wanted on %s, more than can be counted", (long long)bytes, device->name);
    if (over || !mf__may_allocate(device->ctx))
        return mf__fail(MF_ENOMEM, "out of memory: %lld bytes wanted on %s, %lld in use%s", (long long)bytes,
                        device->name, (long long)m->live, over ? " of the limit set" : "");
    if (bytes > 0) MF_TRY(device->backend->alloc(device, data, bytes));
    m->live += bytes;
    m->storages++;
    m->allocations++;
    if (m->live > m->peak) m->peak = m->live;
    return MF_OK;
}

void mf__device_free(mf_device *device, void *data, int64_t bytes) {
    if (data) device->backend->release(device, data, bytes);
    device->memory.live -= bytes;
    device->memory.storages--;
}

int mf__cpu_cores(void) { return omp_get_max_threads(); }

static mf_device *find(const mf_ctx *ctx, int code) {
    for (int i = 0; i < ctx->n_devices; i++)
        if (ctx->devices[i]->code == code) return ctx->devices[i];
    return NULL;
}

mf_status mf_memory_get(mf_memory *out, const mf_ctx *ctx, int device) {
    mf_device *d = find(ctx, device);
    *out = d ? d->memory : (mf_memory){0};   /* a device that was never used holds nothing */
    return MF_OK;
}

mf_status mf_memory_reset_peak(mf_ctx *ctx, int device) {
    mf_device *d;
    MF_TRY(mf__ctx_device(&d, ctx, device));
    d->memory.peak = d->memory.live;
    return MF_OK;
}

mf_status mf_memory_limit(mf_ctx *ctx, int device, int64_t bytes) {
    if (bytes < 0) return mf__fail(MF_EVALUE, "memory limit: %lld bytes is negative", (long long)bytes);
    mf_device *d;
    MF_TRY(mf__ctx_device(&d, ctx, device));
    d->memory.limit = bytes;
    return MF_OK;
}

int mf_memory_pressure(const mf_ctx *ctx) {
    for (int i = 0; i < ctx->n_devices; i++) {
        const mf_device *d = ctx->devices[i];
        if (d->code != MF_NULL && d->memory.live > d->memory.soft_limit) return 1;
    }
    return 0;
}

void mf_memory_collected(mf_ctx *ctx) {
    for (int i = 0; i < ctx->n_devices; i++) {
        mf_memory *m = &ctx->devices[i]->memory;
        if (ctx->devices[i]->code == MF_NULL) continue;
        while (m->live / 7 > m->soft_limit / 10) m->soft_limit = m->soft_limit / 10 * 14;
    }
}

void mf_memory_fail_at(mf_ctx *ctx, int64_t nth) { ctx->fail_countdown = nth > 0 ? nth : 0; }

static int by_bytes(const void *a, const void *b) {
    const mf_storage *x = *(mf_storage *const *)a, *y = *(mf_storage *const *)b;
    return x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : (x->id > y->id) - (x->id < y->id);
}

int64_t mf_memory_report(const mf_ctx *ctx, char *text, int64_t bytes) {
    enum { LINES = 10 };
    int64_t n = 0, used = 0;
    for (int i = 0; i < ctx->n_devices; i++)
        for (mf_storage *s = ctx->devices[i]->storages; s; s = s->next) n++;
    if (bytes > 0) text[0] = 0;
    mf_storage **all = malloc((size_t)(n ? n : 1) * sizeof *all);
    if (!all) return 0;           /* a report of an exhausted machine may be empty */
    n = 0;
    for (int i = 0; i < ctx->n_devices; i++)
        for (mf_storage *s = ctx->devices[i]->storages; s; s = s->next) all[n++] = s;
    qsort(all, (size_t)n, sizeof *all, by_bytes);
    for (int64_t i = 0; i < n && i < LINES && used < bytes; i++) {
        const mf_storage *s = all[i];
        char shape[128] = "";
        int at = 0;
        for (int d = 0; d < s->ndim && at < (int)sizeof shape - 24; d++)
            at += snprintf(shape + at, sizeof shape - (size_t)at, d ? "x%lld" : "%lld", (long long)s->shape[d]);
        int wrote = snprintf(text + used, (size_t)(bytes - used), "  %-24s %-9s %12lld bytes on %s\n", s->ndim ? shape : "scalar",
                             mf_dtype_name(s->dtype), (long long)s->bytes, s->device->name);
        if (wrote < 0 || wrote >= bytes - used) { text[used] = 0; break; }
        used += wrote;
    }
    free(all);
    return used;
}
