/* rotations.c: quaternions, matrices and rotation vectors, tensor against tensor (frames.md 1, flow.md 1).
 *
 * All of these work on one residue at a time, so each is a MF_ROW_* kind of rows.h over the leading axes, forward
 * and backward alike; mf__rows checks, allocates and calls the backend once for all of them. */
#include "geometry.h"
#include "rows.h"
#include <string.h>

mf_status mf__geometric(const char *op, const char *name, const mf_tensor *x, const mf_tensor *like) {
    if (!x) return mf__fail(MF_EVALUE, "%s: %s is missing", op, name);
    if (!mf__is_real(x->dtype))
        return mf__fail(MF_EDTYPE, "%s: %s is %s; geometry takes float32 or float64", op, name, mf_dtype_name(x->dtype));
    if (x->dtype != like->dtype)
        return mf__fail(MF_EDTYPE, "%s: %s is %s, the first operand %s; cast one", op, name, mf_dtype_name(x->dtype), mf_dtype_name(like->dtype));
    return MF_OK;
}

mf_status mf__shaped(const char *op, const char *name, const mf_tensor *x, int ndim, const int64_t *shape) {
    if (x->ndim == ndim && !memcmp(x->shape, shape, (size_t)ndim * sizeof *shape)) return MF_OK;
    mf_tensor expected = {.ndim = ndim};
    memcpy(expected.shape, shape, (size_t)ndim * sizeof *shape);
    return mf__fail(MF_ESHAPE, "%s: %s %s must be %s", op, name, mf__shape(x).text, mf__shape(&expected).text);
}

mf_status mf__packed(const char *op, const mf_tensor *x, const mf_packing *packing) {
    if (!packing) return mf__fail(MF_EVALUE, "%s: a packing is missing", op);
    return mf__fits(op, x, packing);
}

mf_status mf__plain(mf_tensor **out, const mf_tensor *x, int dtype) {
    *out = NULL;
    if (!x) return MF_OK;
    if (x->dtype == dtype) return mf__contiguous(out, x);
    mf_tensor *cast;
    MF_TRY(mf_cast(&cast, x, dtype));
    mf_status status = mf__contiguous(out, cast);
    mf_tensor_release(cast);
    return status;
}

mf_status mf__mask(mf_tensor **out, const mf_tensor *mask, mf_device *device, int dtype, int ndim, const int64_t *shape) {
    if (mask) return mf__plain(out, mask, dtype);
    MF_TRY(mf__new(out, device, dtype, ndim, shape));
    mf_status status = mf_tensor_fill(*out, 1);
    if (status == MF_OK) return MF_OK;
    mf_tensor_release(*out);
    *out = NULL;
    return status;
}

/* The axes that a width stands for; returns how many. */
static int tail_of(int width, int64_t *tail) {
    tail[0] = width == 9 ? 3 : width == 12 ? 4 : width;
    tail[1] = 3;
    return width == 1 ? 0 : width == 9 || width == 12 ? 2 : 1;
}

/* x is (lead..., tail of width), the leading axes being those of the first operand. */
static mf_status check_row(const char *op, const char *name, const mf_tensor *x, int width, const mf_tensor *first, int lead) {
    int64_t shape[MF_MAX_DIMS + 2] = {0};
    if (lead >= 0) memcpy(shape, first->shape, (size_t)lead * sizeof *shape);
    int n = lead >= 0 ? lead + tail_of(width, shape + lead) : 0;
    if (lead >= 0 && x->ndim == n && !memcmp(x->shape, shape, (size_t)n * sizeof *shape)) return MF_OK;
    if (lead < 0 || x == first || n > MF_MAX_DIMS)
        return mf__fail(MF_ESHAPE, "%s: %s %s must be (..., %s)", op, name, mf__shape(x).text,
                        width == 9 ? "3, 3" : width == 12 ? "4, 3" : width == 4 ? "4" : "3");
    return mf__shaped(op, name, x, n, shape);
}

mf_status mf__rows(const char *op, int kind, const char *const *names, const mf_tensor *const *in, mf_tensor **out, const unsigned char *wanted) {
    mf_row_shape s = mf__row_shape(kind);
    mf_tensor *flat[MF__ROW_MAX_OPERANDS] = {NULL};
    const void *from[MF__ROW_MAX_OPERANDS];
    void *to[3] = {NULL};
    mf_status status = MF_OK;
    int64_t tail[2];
    if (!in[0]) return mf__fail(MF_EVALUE, "%s: %s is missing", op, names[0]);
    int lead = in[0]->ndim - tail_of(s.in[0], tail);
    for (int i = 0; i < s.n_in; i++) {
        MF_TRY(mf__geometric(op, names[i], in[i], in[0]));
        MF_TRY(check_row(op, names[i], in[i], s.in[i], in[0], lead));
    }
    for (int i = 0; i < s.n_in; i++) {
        MF_TRY_OUT(mf__contiguous(&flat[i], in[i]));
        from[i] = mf__data(flat[i]);
    }
    for (int i = 0; i < s.n_out; i++) {
        if (wanted && !wanted[i]) continue;
        int64_t shape[MF_MAX_DIMS + 2];
        memcpy(shape, in[0]->shape, (size_t)lead * sizeof *shape);
        int n = lead + tail_of(s.out[i], shape + lead);
        if (n > MF_MAX_DIMS) {
            status = mf__fail(MF_ESHAPE, "%s: %s %s has too many axes for a result of %d", op, names[0], mf__shape(in[0]).text, n);
            goto out;
        }
        MF_TRY_OUT(mf__new(&out[i], in[0]->device, in[0]->dtype, n, shape));
        to[i] = mf__data(out[i]);
    }
    status = in[0]->device->backend->rowwise(in[0]->device, kind, in[0]->dtype, mf__count(lead, in[0]->shape), from, to);
out:
    for (int i = 0; i < s.n_in; i++) mf_tensor_release(flat[i]);
    return status;
}

mf_status mf__rowwise1_fwd(mf_call *c) {
    static const char *const matrix[] = {"R"}, *const quaternion[] = {"q"}, *const vector[] = {"v"};
    switch (c->op - mf__ops) {
    case MF_OP_quat_to_rot: return mf__rows(c->op->name, MF_ROW_QUAT_TO_ROT, quaternion, c->in, c->out, NULL);
    case MF_OP_rot_to_quat: return mf__rows(c->op->name, MF_ROW_ROT_TO_QUAT, matrix, c->in, c->out, NULL);
    case MF_OP_so3_exp: return mf__rows(c->op->name, MF_ROW_SO3_EXP, vector, c->in, c->out, NULL);
    default: return mf__rows(c->op->name, MF_ROW_SO3_LOG, matrix, c->in, c->out, NULL);
    }
}

/* Operands of a gradient were checked when they were recorded, so these names are never printed. */
static const char *const any[] = {"operand 1", "operand 2", "operand 3", "operand 4", "operand 5", "operand 6"};

mf_status mf__quat_to_rot_bwd(mf_grad_call *g) {
    return mf__rows(g->op->name, MF_ROW_QUAT_TO_ROT_GRAD, any, (const mf_tensor *[]){g->in[0], g->dout[0]}, g->din, g->wanted);
}
mf_status mf__rot_to_quat_bwd(mf_grad_call *g) {
    return mf__rows(g->op->name, MF_ROW_ROT_TO_QUAT_GRAD, any, (const mf_tensor *[]){g->in[0], g->out[0], g->dout[0]}, g->din, g->wanted);
}
mf_status mf__so3_exp_bwd(mf_grad_call *g) {
    return mf__rows(g->op->name, MF_ROW_SO3_EXP_GRAD, any, (const mf_tensor *[]){g->in[0], g->dout[0]}, g->din, g->wanted);
}
mf_status mf__so3_log_bwd(mf_grad_call *g) {
    return mf__rows(g->op->name, MF_ROW_SO3_LOG_GRAD, any, (const mf_tensor *[]){g->in[0], g->dout[0]}, g->din, g->wanted);
}

mf_status mf__quat_multiply_fwd(mf_call *c) {
    return mf__rows(c->op->name, MF_ROW_QUAT_MULTIPLY, (const char *const[]){"p", "q"}, c->in, c->out, NULL);
}
mf_status mf__quat_multiply_bwd(mf_grad_call *g) {
    return mf__rows(g->op->name, MF_ROW_QUAT_MULTIPLY_GRAD, any, (const mf_tensor *[]){g->in[0], g->in[1], g->dout[0]}, g->din, g->wanted);
}

mf_status mf_quat_to_rot(mf_tensor **out, const mf_tensor *q) { return mf__run1(out, MF_OP_quat_to_rot, &q, 1, NULL); }
mf_status mf_rot_to_quat(mf_tensor **out, const mf_tensor *R) { return mf__run1(out, MF_OP_rot_to_quat, &R, 1, NULL); }
mf_status mf_so3_exp(mf_tensor **out, const mf_tensor *v) { return mf__run1(out, MF_OP_so3_exp, &v, 1, NULL); }
mf_status mf_so3_log(mf_tensor **out, const mf_tensor *R) { return mf__run1(out, MF_OP_so3_log, &R, 1, NULL); }
mf_status mf_quat_multiply(mf_tensor **out, const mf_tensor *p, const mf_tensor *q) {
    return mf__run1(out, MF_OP_quat_multiply, (const mf_tensor *[]){p, q}, 2, NULL);
}
