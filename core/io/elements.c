/* elements.c: elements as other programs lay them out (PyTorch's storages with strides, NumPy's arrays in either order
 * of axes and bytes), made into tensors of ours.
 *
 *     float 8, 4, 2 bytes   float64, float32, float16        signed 8, 4 bytes       int64, int32
 *     bfloat 2              bfloat16                         signed 2, 1             int32, exactly
 *     bool 1                bool; a byte must be 0 or 1      unsigned 4, 2, 1        int64, int32, int32, exactly
 *                                                            unsigned 8              int64; from 2^63 on refused
 *
 * Nothing a layout says is trusted: every element that it reaches lies inside the data, or it is refused. */
#include "elements.h"
#include <stdlib.h>
#include <string.h>

/* The axes 0 strides repeat: a small storage must not become a huge tensor. */
#define MOST_REPEATED ((int64_t)1 << 26)

static int dtype_of(int kind, int width) {
    switch (kind) {
    case MF_LAYOUT_FLOAT: return width == 8 ? MF_FLOAT64 : width == 4 ? MF_FLOAT32 : width == 2 ? MF_FLOAT16 : -1;
    case MF_LAYOUT_BFLOAT: return width == 2 ? MF_BFLOAT16 : -1;
    case MF_LAYOUT_SIGNED: return width == 8 ? MF_INT64 : width == 4 || width == 2 || width == 1 ? MF_INT32 : -1;
    case MF_LAYOUT_UNSIGNED: return width == 8 || width == 4 ? MF_INT64 : width == 2 || width == 1 ? MF_INT32 : -1;
    case MF_LAYOUT_BOOL: return width == 1 ? MF_BOOL : -1;
    default: return -1;
    }
}

static mf_status bad(const char *op, const char *what, const char *message) { return mf__fail(MF_EFORMAT, "%s: %s: %s", op, what, message); }

/* *count: elements of the tensor. Every place offset + sum of index times stride lies in [0, available). */
static mf_status check_layout(int64_t *count, const char *op, const char *what, const mf_layout *l, int64_t available) {
    *count = 1;
    if (l->ndim < 0 || l->ndim > MF_MAX_DIMS)
        return mf__fail(MF_ESUPPORT, "%s: %s: %d axes (at most %d)", op, what, l->ndim, MF_MAX_DIMS);
    for (int d = 0; d < l->ndim; d++) {
        if (l->shape[d] < 0) return bad(op, what, "a negative size");
        if (l->stride[d] < 0) return bad(op, what, "a negative stride");
        if (l->shape[d] == 0) *count = 0;
    }
    if (l->offset < 0 || l->offset > available) return bad(op, what, "the offset lies outside the storage");
    if (*count == 0) return mf__check_shape(op, l->ndim, l->shape);
    int64_t last = l->offset, step;
    for (int d = 0; d < l->ndim; d++) {
        if (__builtin_mul_overflow(*count, l->shape[d], count)) return bad(op, what, "the shape overflows");
        if (__builtin_mul_overflow(l->shape[d] - 1, l->stride[d], &step) || __builtin_add_overflow(last, step, &last))
            return bad(op, what, "the strides overflow");
    }
    if (last >= available)
        return mf__fail(MF_EFORMAT, "%s: %s: the last element is number %lld, the storage has %lld", op, what, (long long)last + 1, (long long)available);
    if (*count > available && *count > MOST_REPEATED)
        return mf__fail(MF_EFORMAT, "%s: %s: %lld elements made of %lld: refused", op, what, (long long)*count, (long long)available);
    return MF_OK;
}

static int row_major(const mf_layout *l) {
    int64_t expected = 1;
    for (int d = l->ndim - 1; d >= 0; d--) {
        if (l->shape[d] != 1 && l->stride[d] != expected) return 0;
        expected *= l->shape[d];
    }
    return 1;
}

/* One element to `to`, widened; 0 where it does not fit. */
static int convert(unsigned char *to, const unsigned char *from, const mf_layout *l) {
    unsigned char p[8] = {0};
    for (int k = 0; k < l->width; k++) p[l->big_endian ? l->width - 1 - k : k] = from[k];
    const int is_signed = l->kind == MF_LAYOUT_SIGNED, is_unsigned = l->kind == MF_LAYOUT_UNSIGNED;
    if (l->kind == MF_LAYOUT_BOOL && p[0] > 1) return 0;
    if (is_unsigned && l->width == 8 && p[7] > 127) return 0;
    if ((is_signed || is_unsigned) && l->width < 4) {
        const uint32_t raw = l->width == 1 ? p[0] : p[0] | (uint32_t)p[1] << 8;
        const int32_t value = !is_signed ? (int32_t)raw : l->width == 1 ? (int8_t)raw : (int16_t)raw;
        memcpy(to, &value, 4);
    } else if (is_unsigned && l->width == 4) {
        uint32_t raw;
        memcpy(&raw, p, 4);
        const int64_t value = raw;
        memcpy(to, &value, 8);
    } else {
        memcpy(to, p, (size_t)l->width);
    }
    return 1;
}

static int convert_all(unsigned char *to, int width, const unsigned char *data, const mf_layout *l, int64_t count) {
    int64_t index[MF_MAX_DIMS] = {0}, at = l->offset;
    for (int64_t i = 0; i < count; i++) {
        if (!convert(to + i * width, data + at * l->width, l)) return 0;
        for (int d = l->ndim - 1; d >= 0; d--) {
            at += l->stride[d];
            if (++index[d] < l->shape[d]) break;
            at -= l->shape[d] * l->stride[d];
            index[d] = 0;
        }
    }
    return 1;
}

mf_status mf__elements_tensor(mf_tensor **out, const char *op, const char *what, mf_ctx *ctx, const mf_layout *l, const void *data, int64_t bytes) {
    *out = NULL;
    const int dtype = dtype_of(l->kind, l->width);
    if (dtype < 0) return mf__fail(MF_ESUPPORT, "%s: %s: there is no element type of kind %d with %d bytes", op, what, l->kind, l->width);
    int64_t count;
    MF_TRY(check_layout(&count, op, what, l, bytes / l->width));
    MF_TRY(mf_tensor_empty(out, ctx, MF_CPU, dtype, l->ndim, l->shape));
    if (count == 0) return MF_OK;
    const unsigned char *from = data;
    const int width = (int)mf_dtype_bytes(dtype), plain = width == l->width && !(l->big_endian && width > 1);
    const int checked = l->kind == MF_LAYOUT_BOOL || l->kind == MF_LAYOUT_UNSIGNED;
    if (plain && !checked && row_major(l)) {
        memcpy(mf__data(*out), from + l->offset * width, (size_t)(count * width));
    } else if (!convert_all(mf__data(*out), width, from, l, count)) {
        mf_tensor_release(*out);
        *out = NULL;
        return bad(op, what, l->kind == MF_LAYOUT_BOOL ? "a bool is neither 0 nor 1" : "an unsigned number of 2^63 or more: int64 cannot hold it");
    }
    return MF_OK;
}

mf_status mf_layout_tensor(mf_tensor **out, mf_ctx *ctx, const mf_layout *layout, const void *data, int64_t bytes) {
    *out = NULL;
    if (!layout || bytes < 0 || (bytes > 0 && !data)) return mf__fail(MF_EVALUE, "layout.tensor: no layout or no data");
    return mf__elements_tensor(out, "layout.tensor", "elements", ctx, layout, data, bytes);
}

mf_status mf__elements_bytes(const void **data, void **copy, const char *op, const mf_tensor *x) {
    *data = *copy = NULL;
    const int64_t bytes = mf_tensor_bytes(x);
    if (bytes == 0) return MF_OK;
    if (mf_tensor_device(x) == MF_CPU && mf_tensor_contiguous(x)) {
        *data = mf__data(x);
        return MF_OK;
    }
    *copy = malloc((size_t)bytes);
    if (!*copy) return mf__fail(MF_ENOMEM, "%s: no memory for %lld bytes of a tensor", op, (long long)bytes);
    const mf_status status = mf_tensor_read(*copy, bytes, x);
    if (status == MF_OK) {
        *data = *copy;
    } else {
        free(*copy);
        *copy = NULL;
    }
    return status;
}
