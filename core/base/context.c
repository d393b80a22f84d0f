/* context.c: opening and closing contexts and devices; limits and counters of memory. */
#include "context.h"
#include "../ops/kernels.h"
#include "../tensor/tensor.h"
#include "memory.h"
#include "plugin.h"
#include <stdio.h>
#include <stdlib.h>

enum { SOFT_LIMIT_AT_START = 300 << 20 };   /* bytes; measured: below it a collection costs more than it frees */

static void device_close(mf_device *d) {
    if (!d) return;
    d->backend->close(d);
    free(d);
}

static mf_status device_open(mf_device **out, mf_ctx *ctx, const mf_backend *backend, int code) {
    mf_device *d = calloc(1, sizeof *d);
    if (!d) return mf__fail(MF_ENOMEM, "device: out of memory");
    d->ctx = ctx;
    d->backend = backend;
    d->code = code;
    const int index = code >= MF_CUDA ? code - MF_CUDA : 0;
    snprintf(d->name, sizeof d->name, index > 0 ? "%s:%d" : "%s", backend->name, index);
    d->memory.soft_limit = SOFT_LIMIT_AT_START;
    mf_status status = backend->open(d);
    if (status != MF_OK) { free(d); return status; }
    *out = ctx->devices[ctx->n_devices++] = d;
    return MF_OK;
}

mf_status mf__ctx_device(mf_device **out, mf_ctx *ctx, int code) {
    *out = NULL;
    for (int i = 0; i < ctx->n_devices; i++)
        if (ctx->devices[i]->code == code) { *out = ctx->devices[i]; return MF_OK; }
    if (ctx->n_devices == MF__MAX_DEVICES) return mf__fail(MF_EDEVICE, "device: at most %d can be open", MF__MAX_DEVICES);
    if (code == MF_CPU) return device_open(out, ctx, &mf__cpu_backend, code);
    if (code == MF_NULL) return device_open(out, ctx, &mf__null_backend, code);
    if (code >= MF_CUDA && code < MF_CUDA + 256) {
        const mf_plugin *cuda;
        MF_TRY(mf__plugin_cuda(&cuda));
        const int count = cuda->count();
        if (code - MF_CUDA >= count)
            return mf__fail(MF_EDEVICE, "device: cuda:%d is not there (this machine has %d GPU%s)", code - MF_CUDA, count, count == 1 ? "" : "s");
        return device_open(out, ctx, cuda->backend, code);
    }
    return mf__fail(MF_EDEVICE, "device: %d is not a device code", code);
}

mf_status mf_ctx_open(mf_ctx **out) {
    *out = NULL;
    mf_ctx *ctx = calloc(1, sizeof *ctx);
    if (!ctx) return mf__fail(MF_ENOMEM, "context: out of memory");
    ctx->references = 1;
    ctx->grad_enabled = 1;
    ctx->next_id = 1;
    ctx->next_function = 1;
    ctx->rng.seed = 123;          /* data.md 4.4 */
    mf_device *cpu;
    mf_status status = mf__ctx_device(&cpu, ctx, MF_CPU);
    if (status != MF_OK) { free(ctx); return status; }
    *out = ctx;
    return MF_OK;
}

mf_ctx *mf__ctx_retain(mf_ctx *ctx) {
    ctx->references++;
    return ctx;
}

void mf_ctx_release(mf_ctx *ctx) {
    if (!ctx || --ctx->references > 0) return;
    for (int i = 0; i < ctx->n_devices; i++) device_close(ctx->devices[i]);
    free(ctx->dropped);
    free(ctx);
}

mf_status mf_ctx_threads(mf_ctx *ctx, int threads) {
    if (threads < 0 || threads > 4096) return mf__fail(MF_EVALUE, "threads: %d is not in 0..4096", threads);
    mf_device *cpu = ctx->devices[0];
    cpu->threads = threads > 0 ? threads : mf__cpu_cores();
    return MF_OK;
}

int mf_cuda_count(void) {
    const mf_plugin *cuda;
    return mf__plugin_cuda(&cuda) == MF_OK ? cuda->count() : 0;
}

mf_status mf_device_hardware(const char **out, mf_ctx *ctx, int device) {
    *out = NULL;
    mf_device *d;
    MF_TRY(mf__ctx_device(&d, ctx, device));
    *out = d->hardware[0] ? d->hardware : d->name;
    return MF_OK;
}

mf_status mf_synchronize(mf_ctx *ctx, int device) {
    mf_device *d;
    MF_TRY(mf__ctx_device(&d, ctx, device));
    return d->backend->synchronize(d);
}

mf_status mf_memory_flush(mf_ctx *ctx, int device) {
    mf_device *d;
    MF_TRY(mf__ctx_device(&d, ctx, device));
    if (d->backend->flush) d->backend->flush(d);
    return MF_OK;
}

int mf_deterministic(mf_ctx *ctx, int enabled) {
    int before = ctx->deterministic;
    ctx->deterministic = enabled != 0;
    return before;
}
int mf_is_deterministic(const mf_ctx *ctx) { return ctx->deterministic; }

int mf_ctx_thread_count(const mf_ctx *ctx) { return ctx->devices[0]->threads; }
int mf_ctx_product_precision(const mf_ctx *ctx) { return ctx->products; }

mf_status mf_ctx_products(mf_ctx *ctx, int precision) {
    if (precision != MF_EXACT && precision != MF_TF32 && precision != MF_BF16)   /* gradients leave the range of float16 */
        return mf__fail(MF_EVALUE, "products: precision %d is not MF_EXACT, MF_TF32 or MF_BF16", precision);
    ctx->products = precision;
    return MF_OK;
}

int mf_grad_enabled(const mf_ctx *ctx) { return ctx->grad_enabled; }
mf_rng *mf_ctx_rng(mf_ctx *ctx) { return &ctx->rng; }

int mf_grad_enable(mf_ctx *ctx, int enabled) {
    int before = ctx->grad_enabled;
    ctx->grad_enabled = enabled != 0;
    return before;
}
