/* product.c: matrix products: matmul over broadcast leading axes, and the linear layer.
 *
 *     matmul   c = a b               da = dc b', db = a' dc, summed over the axes along which a or b was repeated
 *     linear   y = act(x w' + bias)  dz = dy act'(y),  dx = dz w,  dw = dz' x,  dbias = column sums of dz
 *
 * With relu the row is linear_relu, which keeps y too: where a layer follows, that is its input and costs nothing. One pass over dy
 * makes dz and dbias.
 *
 * float32 products round their operands to the context's precision of products, which the node remembers for backward. Matrices with
 * a side under 16 do not: matrix units gain nothing there, and those are rotations, coordinates and the heads that make them.
 *
 * A matrix goes to the kernel where it lies when one of its two strides is 1, as it is or as a transpose; anything else is
 * copied first. Leading axes are merged as far as the strides of both sides allow, so that one call of the kernel takes
 * them all; and when every matrix of a batch meets the same b, the batch is one tall matrix. */
#include "op.h"

/* The last two axes of a tensor as the kernel reads them: `x` is owned, transpose means columns are contiguous. */
typedef struct matrix {
    mf_tensor *x;
    int transpose;
    int64_t ld;
} matrix;

static mf_status matrix_of(matrix *m, const mf_tensor *x) {
    const int64_t rows = x->shape[x->ndim - 2], columns = x->shape[x->ndim - 1];
    const int64_t row_stride = x->stride[x->ndim - 2], column_stride = x->stride[x->ndim - 1];
    *m = (matrix){.x = NULL};
    if ((column_stride == 1 || columns <= 1) && (row_stride >= columns || rows <= 1)) {
        m->ld = rows <= 1 ? columns : row_stride;
    } else if ((row_stride == 1 || rows <= 1) && (column_stride >= rows || columns <= 1)) {
        m->transpose = 1;
        m->ld = columns <= 1 ? rows : column_stride;
    } else {
        m->ld = columns;
        return mf__contiguous(&m->x, x);
    }
    m->x = mf_tensor_retain((mf_tensor *)x);
    return MF_OK;
}

/* `elements` past x's first; NULL stays NULL, as on the null device. */
static void *at(const mf_tensor *x, int64_t elements) {
    char *data = mf__data(x);
    return data ? data + elements * mf_dtype_bytes(x->dtype) : NULL;
}

static mf_status check_type(const char *op, const mf_tensor *a, const mf_tensor *b) {
    if (!mf__is_float(a->dtype))
        return mf__fail(MF_EDTYPE, "%s: %s is not a floating type; cast it first", op, mf_dtype_name(a->dtype));
    if (a->dtype != b->dtype)
        return mf__fail(MF_EDTYPE, "%s: %s and %s, one type expected; cast one of them", op, mf_dtype_name(a->dtype),
            mf_dtype_name(b->dtype));
    return MF_OK;
}

/* BLAS refuses a leading dimension of 0, also for empty matrices. */
static int64_t at_least_1(int64_t ld) { return ld < 1 ? 1 : ld; }

enum { LEAST_ROUNDED = 16 };

/* i[0] of every row of this file: the precision of products, at first as the context has it; i[1]: the activation of linear. */
static mf_params params_of(const mf_tensor *x, int activation) {
    return (mf_params){.i = {x ? x->ctx->products : MF_EXACT, activation}};
}

/* Only float32 is rounded: 16-bit values have nothing to lose, and who stores float64 wants it. `least` is the shortest side. */
static int settle_precision(mf_call *c, const mf_tensor *x, int64_t least) {
    if (x->dtype != MF_FLOAT32 || least < LEAST_ROUNDED) c->p.i[0] = MF_EXACT;
    return (int)c->p.i[0];
}

static int64_t shorter(int64_t a, int64_t b) { return a < b ? a : b; }

/* c = a b for a contiguous c (..., m, n) whose leading axes those of a and b broadcast to. */
static mf_status multiply(mf_tensor *c, const mf_tensor *a, const mf_tensor *b, int precision) {
    matrix ma = {.x = NULL}, mb = {.x = NULL};
    mf_status status;
    MF_TRY_OUT(matrix_of(&ma, a));
    MF_TRY_OUT(matrix_of(&mb, b));
    a = ma.x;
    b = mb.x;
    mf_gemm g = {.dtype = c->dtype, .transpose_a = ma.transpose, .transpose_b = mb.transpose, .precision = precision, .alpha = 1,
                 .m = c->shape[c->ndim - 2], .n = c->shape[c->ndim - 1], .k = a->shape[a->ndim - 1],
                 .lda = at_least_1(ma.ld), .ldb = at_least_1(mb.ld)};
    g.ldc = at_least_1(g.n);

    /* leading axes, merged from the last to the first: axis 0 of these arrays is the innermost */
    int64_t size[MF_MAX_DIMS + 1] = {1}, sa[MF_MAX_DIMS + 1] = {0}, sb[MF_MAX_DIMS + 1] = {0}, sc[MF_MAX_DIMS + 1] = {0};
    int n = 0;
    for (int i = c->ndim - 3; i >= 0; i--) {
        const int ia = i - c->ndim + a->ndim, ib = i - c->ndim + b->ndim;
        const int64_t here = c->shape[i];
        if (here == 1) continue;
        const int64_t step_a = ia >= 0 && a->shape[ia] != 1 ? a->stride[ia] : 0,
            step_b = ib >= 0 && b->shape[ib] != 1 ? b->stride[ib] : 0;
        if (n > 0 && step_a == sa[n - 1] * size[n - 1] && step_b == sb[n - 1] * size[n - 1] && c->stride[i] == sc[n - 1] * size[n - 1]) {
            size[n - 1] *= here;
            continue;
        }
        size[n] = here;
        sa[n] = step_a;
        sb[n] = step_b;
        sc[n++] = c->stride[i];
    }
    if (n > 0 && sb[0] == 0 && !ma.transpose && sa[0] == g.m * g.lda && sc[0] == g.m * g.ldc) {
        g.m *= size[0];                           /* one b for all: a tall matrix */
        size[0] = 1;
    }
    g.batch = size[0];
    g.stride_a = sa[0];
    g.stride_b = sb[0];
    g.stride_c = sc[0];
    int64_t calls = mf__count(c->ndim, c->shape) == 0 ? 0 : 1, index[MF_MAX_DIMS + 1] = {0};
    for (int i = 1; i < n; i++) calls *= size[i];
    int64_t offset_a = 0, offset_b = 0, offset_c = 0;
    for (int64_t call = 0; call < calls; call++) {
        g.a = at(a, offset_a);
        g.b = at(b, offset_b);
        g.c = at(c, offset_c);
        MF_TRY_OUT(mf__kernels(c)->gemm(c->device, &g));
        for (int i = 1; i < n; i++) {             /* the next place of the axes that did not merge */
            offset_a += sa[i];
            offset_b += sb[i];
            offset_c += sc[i];
            if (++index[i] < size[i]) break;
            offset_a -= sa[i] * size[i];
            offset_b -= sb[i] * size[i];
            offset_c -= sc[i] * size[i];
            index[i] = 0;
        }
    }
out:
    mf_tensor_release(ma.x);
    mf_tensor_release(mb.x);
    return status;
}

static mf_status product(mf_tensor **out, const mf_tensor *a, const mf_tensor *b, int precision) {
    *out = NULL;
    if (a->ndim < 2 || b->ndim < 2) {
        const mf_tensor *x = a->ndim < 2 ? a : b;
        return mf__fail(MF_ESHAPE, "matmul: %s has %d axes, at least 2 expected; reshape a vector to (1, n) or (n, 1)",
            mf__shape(x).text, x->ndim);
    }
    MF_TRY(check_type("matmul", a, b));
    if (a->shape[a->ndim - 1] != b->shape[b->ndim - 2])
        return mf__fail(MF_ESHAPE, "matmul: %s by %s: axis %d of the first is %lld, axis %d of the second %lld", mf__shape(a).text,
                        mf__shape(b).text, a->ndim, (long long)a->shape[a->ndim - 1], b->ndim - 1,
                            (long long)b->shape[b->ndim - 2]);
    const int ndim = a->ndim > b->ndim ? a->ndim : b->ndim;
    int64_t shape[MF_MAX_DIMS];
    for (int i = 0; i < ndim - 2; i++) {
        const int ia = i - ndim + a->ndim, ib = i - ndim + b->ndim;
        const int64_t na = ia >= 0 ? a->shape[ia] : 1, nb = ib >= 0 ? b->shape[ib] : 1;
        if (na != nb && na != 1 && nb != 1)
            return mf__fail(MF_ESHAPE, "matmul: the leading axes of %s and %s do not broadcast: %lld against %lld",
                mf__shape(a).text,
                            mf__shape(b).text, (long long)na, (long long)nb);
        shape[i] = na == 1 ? nb : na;
    }
    shape[ndim - 2] = a->shape[a->ndim - 2];
    shape[ndim - 1] = b->shape[b->ndim - 1];
    MF_TRY(mf__new(out, a->device, a->dtype, ndim, shape));
    mf_status status = multiply(*out, a, b, precision);
    if (status != MF_OK) {
        mf_tensor_release(*out);
        *out = NULL;
    }
    return status;
}

/* A view of x with its last two axes exchanged. */
static mf_status transposed(mf_tensor **out, const mf_tensor *x) {
    int64_t shape[MF_MAX_DIMS], stride[MF_MAX_DIMS];
    for (int i = 0; i < x->ndim; i++) {
        const int from = i < x->ndim - 2 ? i : 2 * x->ndim - 3 - i;
        shape[i] = x->shape[from];
        stride[i] = x->stride[from];
    }
    return mf__view(out, x, x->ndim, shape, stride, x->offset);
}

/* a b', or a' b when not `second`, summed to the shape of `like`. */
static mf_status product_to(mf_tensor **out, const mf_tensor *a, const mf_tensor *b, int second, const mf_tensor *like, int precision) {
    mf_tensor *view = NULL, *full = NULL;
    mf_status status;
    MF_TRY_OUT(transposed(&view, second ? b : a));
    MF_TRY_OUT(product(&full, second ? a : view, second ? view : b, precision));
    MF_TRY_OUT(mf__sum_to(out, full, like));
out:
    mf_tensor_release(view);
    mf_tensor_release(full);
    return status;
}

/* x as (rows, columns), its last axis kept. */
static mf_status flattened(mf_tensor **out, const mf_tensor *x) {
    const int64_t shape[2] = {mf__count(x->ndim - 1, x->shape), x->shape[x->ndim - 1]};
    return mf_reshape(out, x, 2, shape);
}

mf_status mf__matmul_fwd(mf_call *c) {
    MF_TRY(mf__usable("matmul", c->in[0]));
    MF_TRY(mf__usable("matmul", c->in[1]));
    const mf_tensor *a = c->in[0], *b = c->in[1];
    int64_t least = INT64_MAX;
    if (a->ndim >= 2 && b->ndim >= 2)
        least = shorter(shorter(a->shape[a->ndim - 2], a->shape[a->ndim - 1]), b->shape[b->ndim - 1]);
    return product(&c->out[0], a, b, settle_precision(c, a, least));
}

mf_status mf__matmul_bwd(mf_grad_call *g) {
    const mf_tensor *a = g->in[0], *b = g->in[1], *dc = g->dout[0];
    const int precision = (int)g->p->i[0];
    if (g->wanted[0]) MF_TRY(product_to(&g->din[0], dc, b, 1, a, precision));
    if (!g->wanted[1]) return MF_OK;
    if (mf__count(b->ndim - 2, b->shape) != 1 || mf__count(dc->ndim - 2, dc->shape) == 1)
        return product_to(&g->din[1], a, dc, 0, b, precision);

    /* one b for the whole batch: a' dc over all rows at once, instead of a product for each and their sum */
    mf_tensor *a_rows = NULL, *dc_rows = NULL, *flat = NULL;
    mf_status status;
    MF_TRY_OUT(flattened(&a_rows, a));
    MF_TRY_OUT(flattened(&dc_rows, dc));
    MF_TRY_OUT(mf__new(&flat, b->device, b->dtype, 2, b->shape + b->ndim - 2));
    {
        mf_tensor *view;
        MF_TRY_OUT(transposed(&view, a_rows));
        status = multiply(flat, view, dc_rows, precision);
        mf_tensor_release(view);
        if (status != MF_OK) goto out;
    }
    MF_TRY_OUT(mf_reshape(&g->din[1], flat, b->ndim, b->shape));
out:
    mf_tensor_release(a_rows);
    mf_tensor_release(dc_rows);
    mf_tensor_release(flat);
    return status;
}

static mf_status linear_check(const mf_tensor *x, const mf_tensor *weight, const mf_tensor *bias) {
    MF_TRY(mf__usable("linear", x));
    MF_TRY(mf__usable("linear", weight));
    MF_TRY(check_type("linear", x, weight));
    if (bias) MF_TRY(check_type("linear", x, bias));
    if (x->ndim < 1 || weight->ndim != 2 || x->shape[x->ndim - 1] != weight->shape[1])
        return mf__fail(MF_ESHAPE, "linear: x %s and weight %s, expected x (..., in) and weight (out, in)", mf__shape(x).text,
            mf__shape(weight).text);
    if (bias && (bias->ndim != 1 || bias->shape[0] != weight->shape[0]))
        return mf__fail(MF_ESHAPE, "linear: bias %s must be (%lld), the first axis of weight %s", mf__shape(bias).text,
                        (long long)weight->shape[0], mf__shape(weight).text);
    return MF_OK;
}

mf_status mf__linear_fwd(mf_call *c) {
    const mf_tensor *x = c->in[0], *weight = c->in[1], *bias = c->in[2];
    MF_TRY(linear_check(x, weight, bias));
    int64_t shape[MF_MAX_DIMS];
    for (int i = 0; i < x->ndim; i++) shape[i] = x->shape[i];
    shape[x->ndim - 1] = weight->shape[0];
    mf_tensor *rows = NULL, *flat_bias = NULL;
    matrix mx = {.x = NULL}, mw = {.x = NULL};
    mf_status status;
    MF_TRY_OUT(flattened(&rows, x));
    MF_TRY_OUT(matrix_of(&mx, rows));
    MF_TRY_OUT(matrix_of(&mw, weight));
    if (bias) MF_TRY_OUT(mf__contiguous(&flat_bias, bias));
    MF_TRY_OUT(mf__new(&c->out[0], x->device, x->dtype, x->ndim, shape));
    const int precision = settle_precision(c, x, shorter(weight->shape[0], weight->shape[1]));
    const mf_gemm g = {.dtype = x->dtype, .transpose_a = mx.transpose, .transpose_b = !mw.transpose, .precision = precision,
                       .m = rows->shape[0], .n = weight->shape[0], .k = weight->shape[1], .batch = 1, .lda = at_least_1(mx.ld),
                       .ldb = at_least_1(mw.ld), .ldc = at_least_1(weight->shape[0]), .alpha = 1, .a = mf__data(mx.x), .b = mf__data(mw.x),
                       .bias = flat_bias ? mf__data(flat_bias) : NULL, .c = mf__data(c->out[0]), .activation = (int)c->p.i[1]};
    status = mf__kernels(x)->gemm(x->device, &g);
out:
    mf_tensor_release(rows);
    mf_tensor_release(flat_bias);
    mf_tensor_release(mx.x);
    mf_tensor_release(mw.x);
    return status;
}

/* The cotangent of x w' + bias as rows whose columns are contiguous: dy where it lies if it can be, without relu. And dbias. */
static mf_status linear_dz(matrix *dz, mf_tensor **dbias, const mf_tensor *dy, const mf_tensor *y, int want_bias) {
    mf_tensor *rows = NULL, *masked = NULL;
    mf_status status;
    MF_TRY_OUT(flattened(&rows, dy));
    MF_TRY_OUT(matrix_of(dz, rows));
    if (dz->transpose) {
        mf_tensor_release(dz->x);
        *dz = (matrix){.ld = rows->shape[1]};
        MF_TRY_OUT(mf__contiguous(&dz->x, rows));
    }
    if (!y && !want_bias) goto out;
    if (want_bias) MF_TRY_OUT(mf__new(dbias, dy->device, dy->dtype, 1, rows->shape + 1));
    if (y) MF_TRY_OUT(mf__new(&masked, dy->device, dy->dtype, 2, rows->shape));
    status = mf__kernels(dy)->bias_grad(dy->device, dy->dtype, rows->shape[0], rows->shape[1], dz->ld, mf__data(dz->x),
                                        y ? mf__data(y) : NULL, y ? mf__data(masked) : NULL, want_bias ? mf__data(*dbias) : NULL);
    if (y) {
        mf_tensor_release(dz->x);
        *dz = (matrix){.x = masked, .ld = rows->shape[1]};
    }
out:
    mf_tensor_release(rows);
    return status;
}

/* dx = dz w, or added to the gradient that x has already. */
static mf_status linear_dx(mf_tensor **out, mf_tensor *into, const matrix *dz, const mf_tensor *x, const mf_tensor *weight, int precision) {
    matrix mw;
    mf_tensor *fresh = NULL;
    MF_TRY(matrix_of(&mw, weight));
    mf_status status = into ? MF_OK : mf__new(&fresh, dz->x->device, dz->x->dtype, x->ndim, x->shape);
    if (status == MF_OK) {
        const mf_gemm g = {.dtype = dz->x->dtype, .transpose_b = mw.transpose, .precision = precision, .m = dz->x->shape[0],
                           .n = weight->shape[1], .k = weight->shape[0], .batch = 1, .lda = at_least_1(dz->ld), .ldb = at_least_1(mw.ld),
                           .ldc = at_least_1(weight->shape[1]), .alpha = 1, .beta = into ? 1 : 0, .a = mf__data(dz->x), .b = mf__data(mw.x),
                           .c = mf__data(into ? into : fresh)};
        status = mf__kernels(dz->x)->gemm(dz->x->device, &g);
    }
    mf_tensor_release(mw.x);
    *out = fresh;
    return status;
}

static mf_status linear_dweight(mf_tensor **out, const matrix *dz, const mf_tensor *x, const mf_tensor *weight, int precision) {
    mf_tensor *rows = NULL;
    matrix mx = {.x = NULL};
    mf_status status;
    MF_TRY_OUT(flattened(&rows, x));
    MF_TRY_OUT(matrix_of(&mx, rows));
    MF_TRY_OUT(mf__new(out, x->device, x->dtype, 2, weight->shape));
    const mf_gemm g = {.dtype = x->dtype, .transpose_a = 1, .transpose_b = mx.transpose, .precision = precision, .m = weight->shape[0],
                       .n = weight->shape[1], .k = rows->shape[0], .batch = 1, .lda = at_least_1(dz->ld), .ldb = at_least_1(mx.ld),
                       .ldc = at_least_1(weight->shape[1]), .alpha = 1, .a = mf__data(dz->x), .b = mf__data(mx.x), .c = mf__data(*out)};
    status = mf__kernels(x)->gemm(x->device, &g);
out:
    mf_tensor_release(rows);
    mf_tensor_release(mx.x);
    return status;
}

mf_status mf__linear_bwd(mf_grad_call *g) {
    const mf_tensor *x = g->in[0], *weight = g->in[1];
    const int precision = (int)g->p->i[0], relu = g->p->i[1] == MF_ACTIVATION_RELU;
    const int want_bias = g->n_in > 2 && g->in[2] && g->wanted[2];
    matrix dz = {.x = NULL};
    mf_status status;
    MF_TRY_OUT(linear_dz(&dz, &g->din[2], g->dout[0], relu ? g->out[0] : NULL, want_bias));
    if (g->wanted[0]) MF_TRY_OUT(linear_dx(&g->din[0], g->into[0], &dz, x, weight, precision));
    if (g->wanted[1]) MF_TRY_OUT(linear_dweight(&g->din[1], &dz, x, weight, precision));
out:
    mf_tensor_release(dz.x);
    return status;
}

mf_status mf_matmul(mf_tensor **out, const mf_tensor *a, const mf_tensor *b) {
    const mf_params p = params_of(a, MF_ACTIVATION_NONE);
    return mf__run1(out, MF_OP_matmul, (const mf_tensor *[]){a, b}, 2, &p);
}

mf_status mf_linear_act(mf_tensor **out, const mf_tensor *x, const mf_tensor *weight, const mf_tensor *bias, int activation) {
    *out = NULL;
    if (activation != MF_ACTIVATION_NONE && activation != MF_ACTIVATION_RELU)
        return mf__fail(MF_EVALUE, "linear: activation %d is not MF_ACTIVATION_NONE or MF_ACTIVATION_RELU", activation);
    const mf_params p = params_of(x, activation);
    const int op = activation == MF_ACTIVATION_RELU ? MF_OP_linear_relu : MF_OP_linear;
    return mf__run1(out, op, (const mf_tensor *[]){x, weight, bias}, 3, &p);
}

mf_status mf_linear(mf_tensor **out, const mf_tensor *x, const mf_tensor *weight, const mf_tensor *bias) {
    return mf_linear_act(out, x, weight, bias, MF_ACTIVATION_NONE);
}
