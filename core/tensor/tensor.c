/* tensor.c: storages and tensors: making, counting, describing, reading and writing. */
#include "tensor.h"
#include "../base/graph.h"
#include "../base/memory.h"
#include "../ops/kernels.h"
#include "../ops/op.h"
#include "tape.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct { const char *name; int64_t bytes; } dtypes[MF_DTYPE_COUNT] = {
    [MF_FLOAT32] = {"float32", 4}, [MF_FLOAT64] = {"float64", 8}, [MF_BFLOAT16] = {"bfloat16", 2}, [MF_FLOAT16] = {"float16", 2},
    [MF_INT32] = {"int32", 4},     [MF_INT64] = {"int64", 8},     [MF_BOOL] = {"bool", 1},
};

const char *mf_dtype_name(int dtype) { return dtype >= 0 && dtype < MF_DTYPE_COUNT ? dtypes[dtype].name : "unknown"; }
int64_t mf_dtype_bytes(int dtype) { return dtype >= 0 && dtype < MF_DTYPE_COUNT ? dtypes[dtype].bytes : 0; }

mf_text mf__shape(const mf_tensor *x) {
    mf_text out = {"(none)"};
    if (!x) return out;
    size_t at = (size_t)snprintf(out.text, sizeof out.text, "(");
    for (int i = 0; i < x->ndim && at < sizeof out.text - 24; i++)
        at += (size_t)snprintf(out.text + at, sizeof out.text - at, i ? ", %" PRId64 : "%" PRId64, x->shape[i]);
    snprintf(out.text + at, sizeof out.text - at, ")");
    return out;
}

/* ---- storage ---- */

static mf_status storage_new(mf_storage **out, mf_device *device, int64_t bytes) {
    *out = NULL;
    mf_storage *s = mf__host_alloc(device->ctx, sizeof *s);
    if (!s) return MF_ENOMEM;
    *s = (mf_storage){.references = 1, .device = device, .bytes = bytes};
    mf_status status = mf__device_alloc(device, &s->data, bytes);
    if (status != MF_OK) { free(s); return status; }
    s->next = device->storages;
    if (s->next) s->next->previous = s;
    device->storages = s;
    mf__ctx_retain(device->ctx);
    *out = s;
    return MF_OK;
}

void mf__storage_release(mf_storage *s) {
    if (!s || --s->references > 0) return;
    mf_device *device = s->device;
    if (s->previous) s->previous->next = s->next; else device->storages = s->next;
    if (s->next) s->next->previous = s->previous;
    mf__device_free(device, s->data, s->bytes);
    free(s);
    mf_ctx_release(device->ctx);
}

/* ---- tensors ---- */

static mf_status tensor_new(mf_tensor **out, mf_device *device, int dtype, int ndim, const int64_t *shape) {
    *out = NULL;
    mf_tensor *x = mf__host_alloc(device->ctx, sizeof *x);
    if (!x) return MF_ENOMEM;
    *x = (mf_tensor){.references = 1, .id = device->ctx->next_id++, .ctx = mf__ctx_retain(device->ctx), .device = device,
                     .dtype = dtype, .ndim = ndim};
    if (ndim) memcpy(x->shape, shape, (size_t)ndim * sizeof *shape);
    mf__contiguous_strides(x->stride, ndim, x->shape);
    *out = x;
    return MF_OK;
}

void mf__contiguous_strides(int64_t *stride, int ndim, const int64_t *shape) {
    int64_t step = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        stride[i] = step;
        step *= shape[i];
    }
}

/* An empty axis does not excuse the others: strides are products of sizes too. */
mf_status mf__check_shape(const char *op, int ndim, const int64_t *shape) {
    if (ndim < 0 || ndim > MF_MAX_DIMS) return mf__fail(MF_ESHAPE, "%s: %d axes, at most %d", op, ndim, MF_MAX_DIMS);
    int64_t n = 1;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0) return mf__fail(MF_ESHAPE, "%s: axis %d has size %" PRId64 ", expected 0 or more", op, i + 1, shape[i]);
        if (shape[i] && n > INT64_MAX / 16 / shape[i]) {
            mf_tensor wanted = {.ndim = ndim};
            memcpy(wanted.shape, shape, (size_t)ndim * sizeof *shape);
            return mf__fail(MF_ESHAPE, "%s: shape %s has too many elements", op, mf__shape(&wanted).text);
        }
        if (shape[i]) n *= shape[i];
    }
    return MF_OK;
}

mf_status mf__new(mf_tensor **out, mf_device *device, int dtype, int ndim, const int64_t *shape) {
    *out = NULL;
    if (dtype < 0 || dtype >= MF_DTYPE_COUNT) return mf__fail(MF_EDTYPE, "tensor: %d is not an element type", dtype);
    MF_TRY(mf__check_shape("tensor", ndim, shape));
    mf_tensor *x;
    MF_TRY(tensor_new(&x, device, dtype, ndim, shape));
    mf_status status = storage_new(&x->storage, device, mf__count(ndim, shape) * mf_dtype_bytes(dtype));
    if (status != MF_OK) { mf_tensor_release(x); return status; }
    x->storage->id = x->id;
    x->storage->dtype = dtype;
    x->storage->ndim = ndim;
    memcpy(x->storage->shape, x->shape, sizeof x->shape);
    *out = x;
    return MF_OK;
}

mf_status mf__new_like(mf_tensor **out, const mf_tensor *x) { return mf__new(out, x->device, x->dtype, x->ndim, x->shape); }

mf_status mf__new_zeros(mf_tensor **out, mf_device *device, int dtype, int ndim, const int64_t *shape) {
    MF_TRY(mf__new(out, device, dtype, ndim, shape));
    mf_status status = mf_tensor_fill(*out, 0);
    if (status != MF_OK) { mf_tensor_release(*out); *out = NULL; }
    return status;
}

mf_status mf__view(mf_tensor **out, const mf_tensor *x, int ndim, const int64_t *shape, const int64_t *stride, int64_t offset) {
    MF_TRY(tensor_new(out, x->device, x->dtype, ndim, shape));
    if (ndim) memcpy((*out)->stride, stride, (size_t)ndim * sizeof *stride);
    (*out)->offset = offset;
    (*out)->storage = x->storage;
    if (x->storage) x->storage->references++;
    return MF_OK;
}

mf_status mf__alias(mf_tensor **out, const mf_tensor *x) { return mf__view(out, x, x->ndim, x->shape, x->stride, x->offset); }
mf_status mf__shape_only(mf_tensor **out, const mf_tensor *x) { return tensor_new(out, x->device, x->dtype, x->ndim, x->shape); }

mf_tensor *mf_tensor_retain(mf_tensor *x) {
    if (x) x->references++;
    return x;
}

void mf_tensor_release(mf_tensor *x) {
    if (!x || --x->references > 0) return;
    mf__storage_release(x->storage);
    mf__node_release(x->node);
    mf_tensor_release(x->grad);
    mf_ctx *ctx = x->ctx;
    free(x);
    mf_ctx_release(ctx);
}

void mf_tensor_drop(mf_tensor *x) {
    if (!x) return;
    mf__storage_release(x->storage);
    x->storage = NULL;
    mf__node_release(x->node);
    x->node = NULL;
    mf_tensor_release(x->grad);
    x->grad = NULL;
}

int mf_tensor_dropped(const mf_tensor *x) { return x->storage == NULL; }

mf_status mf__usable(const char *op, const mf_tensor *x) {
    if (!x) return mf__fail(MF_EVALUE, "%s: a tensor is missing", op);
    if (!x->storage)
        return mf__fail(MF_ESTATE, "%s: this tensor %s was released (by release() or at the end of the scope that made it; "
                        "return it from the scope or :keep() it)", op, mf__shape(x).text);
    return mf__graph_holds(x->ctx, x->storage);
}

static mf_status count_write(const char *op, const mf_tensor *x) {
    for (int i = 0; i < x->ndim && mf_tensor_count(x) > 0; i++)
        if (x->stride[i] == 0 && x->shape[i] > 1)
            return mf__fail(MF_ESTATE, "%s: axis %d of %s is expanded, many elements share one place; make it contiguous first",
                            op, i + 1, mf__shape(x).text);
    x->storage->version++;
    x->storage->writer = op;
    return MF_OK;
}

mf_status mf__writable(const char *op, const mf_tensor *x) {
    MF_TRY(mf__usable(op, x));
    if (x->requires_grad && x->ctx->grad_enabled)
        return mf__fail(MF_ESTATE, "%s: a tensor that requires a gradient can only be written in place under no_grad", op);
    return count_write(op, x);
}

mf_status mf__updatable(const char *op, const mf_tensor *x) {
    MF_TRY(mf__usable(op, x));
    if (x->node) return mf__fail(MF_ESTATE, "%s: the parameter is the result of an operation, expected a leaf", op);
    return count_write(op, x);
}

mf_status mf__axis(int *out, const char *op, const mf_tensor *x, int axis) {
    int i = axis < 0 ? axis + x->ndim : axis;
    if (i < 0 || i >= x->ndim)
        return mf__fail(MF_EVALUE, "%s: there is no axis %lld in shape %s", op, axis < 0 ? axis : axis + 1LL, mf__shape(x).text);
    *out = i;
    return MF_OK;
}

int64_t mf_tensor_id(const mf_tensor *x) { return x->id; }
mf_ctx *mf_tensor_ctx(const mf_tensor *x) { return x->ctx; }
int mf_tensor_device(const mf_tensor *x) { return x->device->code; }
int mf_tensor_dtype(const mf_tensor *x) { return x->dtype; }
int mf_tensor_ndim(const mf_tensor *x) { return x->ndim; }
int64_t mf_tensor_count(const mf_tensor *x) { return mf__count(x->ndim, x->shape); }
int64_t mf_tensor_bytes(const mf_tensor *x) { return mf_tensor_count(x) * mf_dtype_bytes(x->dtype); }
int64_t mf_tensor_version(const mf_tensor *x) { return x->storage ? x->storage->version : 0; }

int64_t mf_tensor_size(const mf_tensor *x, int axis) {
    int i = axis < 0 ? axis + x->ndim : axis;
    return i >= 0 && i < x->ndim ? x->shape[i] : -1;
}

int64_t mf_tensor_stride(const mf_tensor *x, int axis) {
    int i = axis < 0 ? axis + x->ndim : axis;
    return i >= 0 && i < x->ndim ? x->stride[i] : 0;
}

int mf_tensor_contiguous(const mf_tensor *x) {
    int64_t step = 1;
    for (int i = x->ndim - 1; i >= 0; i--) {
        if (x->shape[i] == 0) return 1;
        if (x->shape[i] != 1 && x->stride[i] != step) return 0;
        step *= x->shape[i];
    }
    return 1;
}

mf_status mf__contiguous(mf_tensor **out, const mf_tensor *x) {
    if (mf_tensor_contiguous(x)) {
        *out = mf_tensor_retain((mf_tensor *)x);
        return MF_OK;
    }
    MF_TRY(mf__new_like(out, x));
    mf_iter it;
    mf__iter_make(&it, x->ndim, x->shape, (const mf_tensor *[]){*out, x}, 2);
    mf_status status = x->device->backend->copy(x->device, &it);
    if (status != MF_OK) { mf_tensor_release(*out); *out = NULL; }
    return status;
}

/* ---- public makers ---- */

mf_status mf_tensor_empty(mf_tensor **out, mf_ctx *ctx, int device, int dtype, int ndim, const int64_t *shape) {
    *out = NULL;
    mf_device *d;
    MF_TRY(mf__ctx_device(&d, ctx, device));
    return mf__new(out, d, dtype, ndim, shape);
}

mf_status mf_tensor_full(mf_tensor **out, mf_ctx *ctx, int device, int dtype, int ndim, const int64_t *shape, double value) {
    MF_TRY(mf_tensor_empty(out, ctx, device, dtype, ndim, shape));
    mf_status status = mf_tensor_fill(*out, value);
    if (status != MF_OK) { mf_tensor_release(*out); *out = NULL; }
    return status;
}

mf_status mf_tensor_from(mf_tensor **out, mf_ctx *ctx, int device, int dtype, int ndim, const int64_t *shape, const void *data) {
    MF_TRY(mf_tensor_empty(out, ctx, device, dtype, ndim, shape));
    mf_status status = mf_tensor_write(*out, data, mf_tensor_bytes(*out));
    if (status != MF_OK) { mf_tensor_release(*out); *out = NULL; }
    return status;
}

mf_status mf_tensor_read(void *data, int64_t bytes, const mf_tensor *x) {
    MF_TRY(mf__usable("read", x));
    if (bytes != mf_tensor_bytes(x))
        return mf__fail(MF_ESHAPE, "read: %" PRId64 " bytes given for %" PRId64 " of %s", bytes, mf_tensor_bytes(x), mf__shape(x).text);
    if (x->device->code == MF_NULL) return mf__fail(MF_EDEVICE, "read: the null device holds shapes, not values");
    if (bytes == 0) return MF_OK;
    mf_tensor *flat;
    MF_TRY(mf__contiguous(&flat, x));
    mf_status status = x->device->backend->download(x->device, data, mf__data(flat), bytes);
    mf_tensor_release(flat);
    return status;
}

mf_status mf_tensor_write(mf_tensor *x, const void *data, int64_t bytes) {
    MF_TRY(mf__usable("write", x));
    if (bytes != mf_tensor_bytes(x))
        return mf__fail(MF_ESHAPE, "write: %" PRId64 " bytes given for %" PRId64 " of %s", bytes, mf_tensor_bytes(x), mf__shape(x).text);
    if (mf_tensor_contiguous(x)) {
        MF_TRY(mf__writable("write", x));
        return bytes == 0 ? MF_OK : x->device->backend->upload(x->device, mf__data(x), data, bytes);
    }
    mf_tensor *flat;
    MF_TRY(mf__new_like(&flat, x));
    mf_status status = x->device->backend->upload(x->device, mf__data(flat), data, bytes);
    if (status == MF_OK) status = mf_tensor_copy(x, flat);
    mf_tensor_release(flat);
    return status;
}

mf_status mf_tensor_item(double *out, const mf_tensor *x) {
    MF_TRY(mf__usable("item", x));
    if (mf_tensor_count(x) != 1) return mf__fail(MF_ESHAPE, "item: shape %s has %" PRId64 " elements, expected 1", mf__shape(x).text, mf_tensor_count(x));
    if (x->device->code == MF_NULL) return mf__fail(MF_EDEVICE, "item: the null device holds shapes, not values");
    mf_tensor *wide;              /* any element type reads as a double */
    int before = mf_grad_enable(x->ctx, 0);
    mf_status status = mf_cast(&wide, x, MF_FLOAT64);
    mf_grad_enable(x->ctx, before);
    if (status != MF_OK) return status;
    status = x->device->backend->download(x->device, out, mf__data(wide), sizeof *out);
    if (status == MF_OK && *out != *out) *out = NAN;    /* hosts that keep types in the bits of NaNs know the usual one only */
    mf_tensor_release(wide);
    return status;
}

/* ---- in place ---- */

static mf_iter iterate(const mf_tensor *x, const mf_tensor *y) {
    mf_iter it;
    mf__iter_make(&it, x->ndim, x->shape, (const mf_tensor *[]){x, y}, y ? 2 : 1);
    return it;
}

mf_status mf_tensor_fill(mf_tensor *x, double value) {
    MF_TRY(mf__writable("fill", x));
    mf_iter it = iterate(x, NULL);
    return x->device->backend->fill(x->device, &it, value);
}

static mf_status check_fits_into(const char *op, const mf_tensor *x, const mf_tensor *y) {
    MF_TRY(mf__usable(op, y));
    int extra = x->ndim - y->ndim, fits = extra >= 0;
    for (int i = 0; fits && i < y->ndim; i++) fits = y->shape[i] == 1 || y->shape[i] == x->shape[i + extra];
    return fits ? MF_OK : mf__fail(MF_ESHAPE, "%s: %s does not broadcast to %s", op, mf__shape(y).text, mf__shape(x).text);
}

/* Between devices: through the host, in the source's type. */
static mf_status copy_across(mf_tensor **out, const mf_tensor *from, mf_device *device) {
    *out = NULL;
    if (from->device->code == MF_NULL) return mf__fail(MF_EDEVICE, "to: the null device holds shapes, not values");
    MF_TRY(mf__new(out, device, from->dtype, from->ndim, from->shape));
    int64_t bytes = mf_tensor_bytes(from);
    if (bytes == 0 || device->code == MF_NULL) return MF_OK;
    mf_status status = MF_OK;
    void *host = mf__host_alloc(from->ctx, (size_t)bytes);
    if (!host) status = MF_ENOMEM;
    if (status == MF_OK) status = mf_tensor_read(host, bytes, from);
    if (status == MF_OK) status = device->backend->upload(device, mf__data(*out), host, bytes);
    free(host);
    if (status != MF_OK) { mf_tensor_release(*out); *out = NULL; }
    return status;
}

/* Where y looks at x's own storage in another order, writing x would change elements of y that are still to be read:
 * then *moved is a copy. Otherwise it stays NULL. */
static mf_status apart(mf_tensor **moved, const mf_tensor *x, const mf_tensor *y) {
    *moved = NULL;
    if (x->storage != y->storage) return MF_OK;
    int same = x->ndim == y->ndim && x->offset == y->offset;
    for (int i = 0; same && i < x->ndim; i++) same = x->shape[i] == y->shape[i] && (x->shape[i] == 1 || x->stride[i] == y->stride[i]);
    if (same) return MF_OK;
    MF_TRY(mf__new_like(moved, y));
    mf_iter it = iterate(*moved, y);
    mf_status status = y->device->backend->copy(y->device, &it);
    if (status != MF_OK) { mf_tensor_release(*moved); *moved = NULL; }
    return status;
}

mf_status mf_tensor_copy(mf_tensor *x, const mf_tensor *from) {
    MF_TRY(mf__usable("copy", x));
    MF_TRY(check_fits_into("copy", x, from));
    mf_tensor *moved = NULL;
    if (from->device != x->device) MF_TRY(copy_across(&moved, from, x->device));
    else MF_TRY(apart(&moved, x, from));
    if (moved) from = moved;
    mf_status status = mf__writable("copy", x);
    if (status == MF_OK) {
        mf_iter it = iterate(x, from);
        status = x->device->backend->copy(x->device, &it);
    }
    mf_tensor_release(moved);
    return status;
}

mf_status mf_tensor_axpy(mf_tensor *x, double a, const mf_tensor *y) {
    MF_TRY(mf__usable("add_", x));
    MF_TRY(check_fits_into("add_", x, y));
    if (x->dtype != y->dtype)
        return mf__fail(MF_EDTYPE, "add_: %s and %s; cast one with :to", mf_dtype_name(x->dtype), mf_dtype_name(y->dtype));
    if (x->device != y->device) return mf__fail(MF_EDEVICE, "add_: tensors live on %s and %s", x->device->name, y->device->name);
    mf_tensor *moved;
    MF_TRY(apart(&moved, x, y));
    mf_status status = mf__writable("add_", x);
    if (status == MF_OK) {
        mf_iter it = iterate(x, moved ? moved : y);
        status = x->device->backend->axpy(x->device, &it, 1.0, a);
    }
    mf_tensor_release(moved);
    return status;
}

mf_status mf_tensor_scale(mf_tensor *x, double a) {
    MF_TRY(mf__usable("mul_", x));
    if (!mf__is_float(x->dtype) && (x->dtype == MF_BOOL || a != floor(a) || fabs(a) > 0x1p53))
        return mf__fail(MF_EDTYPE, "mul_: %s cannot be scaled by %g; cast it with :to", mf_dtype_name(x->dtype), a);
    MF_TRY(mf__writable("mul_", x));
    mf_iter it = iterate(x, x);
    return x->device->backend->unary(x->device, &it, MF_UNARY_affine, a, 0);
}

/* ---- to another device, recorded ---- */

mf_status mf__to_device_fwd(mf_call *c) {
    mf_device *device;
    MF_TRY(mf__ctx_device(&device, c->ctx, (int)c->p.i[0]));
    return copy_across(&c->out[0], c->in[0], device);
}

mf_status mf__to_device_bwd(mf_grad_call *g) { return mf_to_device(&g->din[0], g->dout[0], g->in[0]->device->code); }

mf_status mf_to_device(mf_tensor **out, const mf_tensor *x, int device) {
    *out = NULL;
    MF_TRY(mf__usable("to", x));
    if (x->device->code == device) {
        *out = mf_tensor_retain((mf_tensor *)x);
        return MF_OK;
    }
    return mf__run1(out, MF_OP_to_device, (const mf_tensor *[]){x}, 1, &(mf_params){.i = {device}});
}
