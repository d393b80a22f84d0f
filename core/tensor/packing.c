/* packing.c: lengths and offsets of packed sequences, and the index tensors that follow from them.
 *
 *   lengths 3, 2:   residue     0 1 2 | 3 4        sequence 0 0 0 1 1     position 0 1 2 0 1
 *                   pair        00 01 02 10 .. 22 | 33 34 43 44            (rows of L x L blocks, one a sequence)
 *
 * The host keeps the offsets, so that no kernel launch waits for a device to tell how long a sequence is. */
#include "tensor.h"
#include "../base/graph.h"
#include "../base/memory.h"
#include "../ops/kernels.h"
#include <inttypes.h>
#include <stdlib.h>

mf_status mf_packing_create(mf_packing **out, mf_ctx *ctx, const int64_t *lengths, int64_t count) {
    *out = NULL;
    if (count < 0 || count > INT32_MAX) return mf__fail(MF_EVALUE, "packing: %" PRId64 " sequences", count);
    int64_t total = 0, pairs = 0, longest = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t n = lengths[i];
        if (n < 0) return mf__fail(MF_EVALUE, "packing: sequence %" PRId64 " has length %" PRId64 ", expected 0 or more", i + 1, n);
        if (n > INT32_MAX - total)
            return mf__fail(MF_EVALUE, "packing: more than %d residues in one batch; split it", INT32_MAX);
        total += n;
        pairs += n * n;
        if (n > longest) longest = n;
    }
    mf_packing *p = mf__host_alloc(ctx, sizeof *p);
    int64_t *offsets = mf__host_alloc(ctx, (size_t)(2 * (count + 1)) * sizeof *offsets);
    if (!p || !offsets) {
        free(p);
        free(offsets);
        return MF_ENOMEM;
    }
    *p = (mf_packing){.references = 1, .ctx = mf__ctx_retain(ctx), .count = count, .total = total, .longest = longest, .pairs = pairs,
                      .offsets = offsets, .pair_offsets = offsets + count + 1};
    offsets[0] = p->pair_offsets[0] = 0;
    for (int64_t i = 0; i < count; i++) {
        offsets[i + 1] = offsets[i] + lengths[i];
        p->pair_offsets[i + 1] = p->pair_offsets[i] + lengths[i] * lengths[i];
    }
    *out = p;
    return MF_OK;
}

mf_packing *mf__packing_retain(const mf_packing *packing) {
    mf_packing *p = (mf_packing *)packing;
    if (p) p->references++;
    return p;
}

void mf_packing_release(mf_packing *p) {
    if (!p || --p->references > 0) return;
    mf_ctx *ctx = p->ctx;
    for (int i = 0; i < p->n_copies; i++) mf__device_free(p->copies[i].device, p->copies[i].data, (p->count + 1) * (int64_t)sizeof(int32_t));
    free(p->copies);
    free(p->offsets);
    free(p);
    mf_ctx_release(ctx);
}

mf_status mf__packing_offsets_on(const int32_t **out, const mf_packing *packing, mf_device *device) {
    mf_packing *p = (mf_packing *)packing;   /* what is written is a cache */
    *out = NULL;
    MF_TRY(mf__graph_holds_packing(p->ctx, p));
    for (int i = 0; i < p->n_copies; i++)
        if (p->copies[i].device == device) { *out = p->copies[i].data; return MF_OK; }
    const int64_t bytes = (p->count + 1) * (int64_t)sizeof(int32_t);
    struct mf_packing_copy *copies = realloc(p->copies, (size_t)(p->n_copies + 1) * sizeof *copies);
    if (!copies) return mf__fail(MF_ENOMEM, "packing: out of memory");
    p->copies = copies;
    int32_t *offsets = mf__host_alloc(p->ctx, (size_t)bytes);
    if (!offsets) return MF_ENOMEM;
    for (int64_t i = 0; i <= p->count; i++) offsets[i] = (int32_t)p->offsets[i];
    void *data = NULL;
    mf_status status = mf__device_alloc(device, &data, bytes);
    if (status == MF_OK && (status = device->backend->upload(device, data, offsets, bytes)) != MF_OK) mf__device_free(device, data, bytes);
    free(offsets);
    if (status != MF_OK) return status;
    copies[p->n_copies++] = (struct mf_packing_copy){device, data};
    *out = data;
    return MF_OK;
}

mf_status mf_packing_prepare(const mf_packing *packing, int device) {
    mf_device *d;
    const int32_t *offsets;
    MF_TRY(mf__ctx_device(&d, packing->ctx, device));
    return d->code < MF_CUDA ? MF_OK : mf__packing_offsets_on(&offsets, packing, d);   /* the others read the host's */
}

int64_t mf_packing_count(const mf_packing *p) { return p->count; }
int64_t mf_packing_total(const mf_packing *p) { return p->total; }
int64_t mf_packing_pairs(const mf_packing *p) { return p->pairs; }
int64_t mf_packing_longest(const mf_packing *p) { return p->longest; }
int64_t mf_packing_offset(const mf_packing *p, int64_t i) { return i < 0 ? 0 : p->offsets[i < p->count ? i : p->count]; }

mf_status mf_packing_tensor(mf_tensor **out, const mf_packing *p, int device, int what) {
    *out = NULL;
    int64_t n;
    switch (what) {
    case MF_PACK_OFFSETS: n = p->count + 1; break;
    case MF_PACK_SEQUENCE: case MF_PACK_POSITION: n = p->total; break;
    case MF_PACK_PAIR_ROW: case MF_PACK_PAIR_COLUMN: case MF_PACK_PAIR_OFFSET: n = p->pairs; break;
    default: return mf__fail(MF_EVALUE, "packing: %d names no tensor of a packing", what);
    }
    if (device == MF_NULL) return mf_tensor_empty(out, p->ctx, device, MF_INT32, 1, &n);
    mf_device *d;
    MF_TRY(mf__ctx_device(&d, p->ctx, device));
    if (d->backend->packing_tensor && what != MF_PACK_OFFSETS) {
        MF_TRY(mf__new(out, d, MF_INT32, 1, &n));
        mf_status made = d->backend->packing_tensor(d, p, what, mf__data(*out));
        if (made != MF_OK) {
            mf_tensor_release(*out);
            *out = NULL;
        }
        return made;
    }
    int32_t *v = mf__host_alloc(p->ctx, (size_t)n * sizeof *v);
    if (!v) return MF_ENOMEM;
    int64_t at = 0;
    if (what == MF_PACK_OFFSETS)
        for (; at < n; at++) v[at] = (int32_t)p->offsets[at];
    for (int64_t s = 0; what != MF_PACK_OFFSETS && s < p->count; s++) {
        int64_t first = p->offsets[s], length = p->offsets[s + 1] - first;
        for (int64_t i = 0; i < length; i++) {
            if (what == MF_PACK_SEQUENCE) v[at++] = (int32_t)s;
            else if (what == MF_PACK_POSITION) v[at++] = (int32_t)i;
            else
                for (int64_t j = 0; j < length; j++)
                    v[at++] = (int32_t)(what == MF_PACK_PAIR_ROW ? first + i : what == MF_PACK_PAIR_COLUMN ? first + j : j - i);
        }
    }
    mf_status status = mf_tensor_from(out, p->ctx, device, MF_INT32, 1, &n, v);
    free(v);
    return status;
}
