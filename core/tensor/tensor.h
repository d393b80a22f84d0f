/* tensor.h: storages, tensors and packings from the inside.
 *
 *   storage   bytes on one device, counted; `version` grows with every in-place write
 *   tensor    shape + strides + offset over a storage; several tensors may share one
 *
 *     tensor a (4, 3)  strides (3, 1) offset 0 --\
 *     tensor b (3, 4)  strides (1, 3) offset 0 ----> storage, 12 elements     b = a transposed
 *     tensor c (3)     strides (1)    offset 6 --/                            c = a[2]
 *
 * A tensor whose storage is NULL was dropped (mf_tensor_drop) or is the bare shape of an input that an
 * operator's backward does not need. */
#ifndef MF_TENSOR_TENSOR_H
#define MF_TENSOR_TENSOR_H
#include "../base/context.h"
#include "../base/error.h"

typedef struct mf_node mf_node;

typedef struct mf_storage {
    int64_t references;
    mf_device *device;
    void *data;                   /* NULL on the null device and for zero bytes */
    int64_t bytes;
    int64_t version;
    const char *writer;           /* who wrote in place last, for the message of the version check */
    int64_t id;                   /* of the tensor that made it */
    int dtype, ndim;              /* of the tensor that made it, for the report */
    int64_t shape[MF_MAX_DIMS];
    const void *graph;            /* the latest capture that holds it */
    struct mf_storage *previous, *next;
} mf_storage;
void mf__storage_release(mf_storage *s);

struct mf_tensor {
    int64_t references;
    int64_t id;
    mf_ctx *ctx;
    mf_device *device;
    mf_storage *storage;
    int dtype, ndim;
    int64_t shape[MF_MAX_DIMS];
    int64_t stride[MF_MAX_DIMS];  /* elements */
    int64_t offset;               /* elements */
    int requires_grad;
    mf_node *node;                /* the operation that made it, or NULL: a leaf */
    int slot;                     /* which of the node's outputs it is */
    mf_tensor *grad;              /* leaves only */
};

struct mf_packing {
    int64_t references;
    mf_ctx *ctx;
    int64_t count, total, longest, pairs;
    int64_t *offsets;             /* count + 1, on the host */
    int64_t *pair_offsets;        /* count + 1: first pair of each sequence */
    struct mf_packing_copy { mf_device *device; void *data; } *copies; /* offsets as int32 on devices, made when asked for */
    int n_copies;
};
mf_packing *mf__packing_retain(const mf_packing *packing);
#pragma GCC visibility push(default)   /* backends in libraries of their own use it */
/* The offsets, count + 1 of int32, on a device; they live as long as the packing. */
mf_status mf__packing_offsets_on(const int32_t **out, const mf_packing *packing, mf_device *device);
#pragma GCC visibility pop

typedef struct mf_text { char text[96]; } mf_text;
mf_text mf__shape(const mf_tensor *x);                          /* "(5, 4, 3)" */

static inline int64_t mf__count(int ndim, const int64_t *shape) {
    int64_t n = 1;
    for (int i = 0; i < ndim; i++) n *= shape[i];
    return n;
}
mf_status mf__check_shape(const char *op, int ndim, const int64_t *shape); /* sizes of 0 or more whose product can be counted in bytes */
static inline int mf__is_float(int dtype) { return dtype <= MF_FLOAT16; }
static inline int mf__is_real(int dtype) { return dtype == MF_FLOAT32 || dtype == MF_FLOAT64; }
static inline int mf__is_index(int dtype) { return dtype == MF_INT32 || dtype == MF_INT64; }

/* The address of the first element; NULL on the null device. */
static inline void *mf__data(const mf_tensor *x) {
    if (!x->storage || !x->storage->data) return NULL;
    return (char *)x->storage->data + x->offset * mf_dtype_bytes(x->dtype);
}

/* A new contiguous tensor with unset values. */
mf_status mf__new(mf_tensor **out, mf_device *device, int dtype, int ndim, const int64_t *shape);
mf_status mf__new_like(mf_tensor **out, const mf_tensor *x);     /* same device, dtype and shape, contiguous */
mf_status mf__new_zeros(mf_tensor **out, mf_device *device, int dtype, int ndim, const int64_t *shape);
/* Another view of x's storage, without history. */
mf_status mf__view(mf_tensor **out, const mf_tensor *x, int ndim, const int64_t *shape, const int64_t *stride, int64_t offset);
mf_status mf__alias(mf_tensor **out, const mf_tensor *x);        /* the same view, without history */
mf_status mf__shape_only(mf_tensor **out, const mf_tensor *x);   /* dtype, device and shape, no storage */
/* x itself (retained) when contiguous, else a contiguous copy; never recorded. Release it either way. */
mf_status mf__contiguous(mf_tensor **out, const mf_tensor *x);
mf_status mf__usable(const char *op, const mf_tensor *x);        /* not NULL, not dropped */
mf_status mf__writable(const char *op, const mf_tensor *x);      /* may be written in place now; counts the version */
mf_status mf__updatable(const char *op, const mf_tensor *x);     /* the same for an optimizer, which writes leaves on purpose */
mf_status mf__axis(int *out, const char *op, const mf_tensor *x, int axis); /* 0..ndim-1 from a possibly negative axis */
void mf__contiguous_strides(int64_t *stride, int ndim, const int64_t *shape);
#endif
