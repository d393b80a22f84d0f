/* each_row.c: rows of an mf_iter, split over threads; see each_row.h. */
#include "each_row.h"
#include "vector.h"

/* Elements [first, last) of the iteration in row-major order. */
static void walk_piece(const mf_iter *it, int64_t first, int64_t last, mf__row *row, const void *context) {
    const int inner = it->ndim - 1, n = it->n_operands;
    int64_t at[MF_MAX_DIMS], bytes[MF__MAX_OPERANDS], stride[MF__MAX_OPERANDS];
    char *base[MF__MAX_OPERANDS];
    int64_t rest = first;
    for (int axis = inner; axis >= 0; axis--) {
        at[axis] = rest % it->shape[axis];
        rest /= it->shape[axis];
    }
    for (int k = 0; k < n; k++) {
        const mf_operand *o = &it->operand[k];
        bytes[k] = mf_dtype_bytes(o->dtype);
        stride[k] = o->stride[inner];
        base[k] = o->data;
        for (int axis = 0; axis < inner; axis++) base[k] += at[axis] * o->stride[axis] * bytes[k];
    }
    int64_t start = at[inner];
    while (first < last) {
        int64_t length = it->shape[inner] - start;
        if (length > last - first) length = last - first;
        void *data[MF__MAX_OPERANDS];
        for (int k = 0; k < n; k++) data[k] = base[k] + start * stride[k] * bytes[k];
        row(length, data, stride, context);
        first += length;
        start = 0;
        for (int axis = inner - 1; axis >= 0; axis--) {
            const int carry = ++at[axis] == it->shape[axis];
            const int64_t steps = carry ? 1 - it->shape[axis] : 1;
            for (int k = 0; k < n; k++) base[k] += steps * it->operand[k].stride[axis] * bytes[k];
            if (!carry) break;
            at[axis] = 0;
        }
    }
}

void mf__each_row(mf_device *d, const mf_iter *it, int64_t cost, mf__row *row, const void *context) {
    const int64_t total = mf__count(it->ndim, it->shape);
    if (total == 0) return;
    const int64_t pieces = mf__threads(d, total, cost);
    if (pieces <= 1) {
        walk_piece(it, 0, total, row, context);
        return;
    }
    const int64_t size = (total + pieces - 1) / pieces;
#pragma omp parallel for num_threads((int)pieces) schedule(static)
    for (int64_t i = 0; i < pieces; i++) {
        const int64_t first = i * size, last = first + size < total ? first + size : total;
        if (first < last) walk_piece(it, first, last, row, context);
    }
}

void mf__float_from_16(float *to, int dtype, const void *from, int64_t stride, int64_t n) {
    const uint16_t *x = from;
    if (dtype == MF_FLOAT16)
#pragma omp simd
        for (int64_t i = 0; i < n; i++) to[i] = mf__half_to_float(x[i * stride]);
    else
#pragma omp simd
        for (int64_t i = 0; i < n; i++) to[i] = mf__bf16_to_float(x[i * stride]);
}

void mf__16_from_float(void *to, int64_t stride, int dtype, const float *from, int64_t n) {
    uint16_t *y = to;
    if (dtype == MF_FLOAT16)
#pragma omp simd
        for (int64_t i = 0; i < n; i++) y[i * stride] = mf__float_to_half(from[i]);
    else
#pragma omp simd
        for (int64_t i = 0; i < n; i++) y[i * stride] = mf__float_to_bf16(from[i]);
}

enum { BLOCK = 256 };

typedef struct converting {
    mf__row *row;
    const void *context;
    int n, reads_result;
    int dtype[MF__MAX_OPERANDS];
} converting;

static int is_16(int dtype) { return dtype == MF_BFLOAT16 || dtype == MF_FLOAT16; }

static void converting_row(int64_t n, void *const *data, const int64_t *stride, const void *context) {
    const converting *c = context;
    float buffer[MF__MAX_OPERANDS][BLOCK];
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t count = n - first < BLOCK ? n - first : BLOCK;
        void *block[MF__MAX_OPERANDS], *here[MF__MAX_OPERANDS];
        int64_t step[MF__MAX_OPERANDS];
        for (int k = 0; k < c->n; k++) {
            here[k] = (char *)data[k] + first * stride[k] * mf_dtype_bytes(c->dtype[k]);
            const int converted = is_16(c->dtype[k]);
            block[k] = converted ? buffer[k] : here[k];
            step[k] = converted ? 1 : stride[k];
            if (converted && (k > 0 || c->reads_result)) mf__float_from_16(buffer[k], c->dtype[k], here[k], stride[k], count);
        }
        c->row(count, block, step, c->context);
        if (is_16(c->dtype[0])) mf__16_from_float(here[0], stride[0], c->dtype[0], buffer[0], count);
    }
}

void mf__each_row_float(mf_device *d, const mf_iter *it, int64_t cost, mf__row *row, const void *context, int reads_result) {
    converting c = {.row = row, .context = context, .n = it->n_operands, .reads_result = reads_result};
    int any = 0;
    for (int k = 0; k < it->n_operands; k++) {
        c.dtype[k] = it->operand[k].dtype;
        any |= is_16(c.dtype[k]);
    }
    if (any) mf__each_row(d, it, cost + 2, converting_row, &c);
    else mf__each_row(d, it, cost, row, context);
}
