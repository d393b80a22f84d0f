/* frames.c: rigid frames: made from points, applied to points, updated, and fitted to each other.
 *
 * A frame is T = (R, t), x_global = R x_local + t; tensors are R (..., 3, 3) and t (..., 3). The gauge and the
 * superposition are constants of what follows them: they carry no gradient, which is exact for the gauge, since what is
 * computed in it does not depend on it. */
#include "geometry.h"
#include <string.h>

static const char *const any[] = {"operand 1", "operand 2", "operand 3", "operand 4", "operand 5", "operand 6"};

mf_status mf__frames_from_points_fwd(mf_call *c) {
    return mf__rows(c->op->name, MF_ROW_FRAME, (const char *const[]){"x_axis", "xy", "origin"}, c->in, c->out, NULL);
}
mf_status mf__frames_from_points_bwd(mf_grad_call *g) {
    const mf_tensor *in[] = {g->in[0], g->in[1], g->in[2], g->dout[0]};
    return mf__rows(g->op->name, MF_ROW_FRAME_GRAD, any, in, g->din, g->wanted);
}

mf_status mf__dihedral_fwd(mf_call *c) {
    return mf__rows(c->op->name, MF_ROW_DIHEDRAL, (const char *const[]){"points"}, c->in, c->out, NULL);
}
mf_status mf__dihedral_bwd(mf_grad_call *g) {
    return mf__rows(g->op->name, MF_ROW_DIHEDRAL_GRAD, any, (const mf_tensor *[]){g->in[0], g->dout[0]}, g->din, g->wanted);
}

/* ---- apply ---- */

/* Points of one frame: (..., P, 3) or, one each, (..., 3). */
static int64_t points_of(const mf_tensor *R, const mf_tensor *x) { return x->ndim == R->ndim ? x->shape[x->ndim - 2] : 1; }

mf_status mf__frames_apply_fwd(mf_call *c) {
    const char *op = c->op->name;
    const mf_tensor *R = c->in[0], *t = c->in[1], *x = c->in[2];
    int64_t shape[MF_MAX_DIMS];
    mf_status status = MF_OK;
    mf_tensor *flat[3] = {NULL};
    MF_TRY(mf__geometric(op, "R", R, R));
    MF_TRY(mf__geometric(op, "t", t, R));
    MF_TRY(mf__geometric(op, "points", x, R));
    if (R->ndim < 2 || R->shape[R->ndim - 1] != 3 || R->shape[R->ndim - 2] != 3)
        return mf__fail(MF_ESHAPE, "%s: R %s must be (..., 3, 3)", op, mf__shape(R).text);
    memcpy(shape, R->shape, sizeof shape);
    MF_TRY(mf__shaped(op, "t", t, R->ndim - 1, shape));
    if (x->ndim == R->ndim) shape[R->ndim - 2] = x->shape[R->ndim - 2];
    MF_TRY(mf__shaped(op, "points", x, x->ndim == R->ndim ? R->ndim : R->ndim - 1, shape));
    for (int i = 0; i < 3; i++) MF_TRY_OUT(mf__contiguous(&flat[i], c->in[i]));
    MF_TRY_OUT(mf__new_like(&c->out[0], x));
    status = c->device->backend->frames_apply(c->device, x->dtype, mf__count(R->ndim - 2, R->shape), points_of(R, x),
                                              c->op == &mf__ops[MF_OP_frames_invert_apply], mf__data(flat[0]), mf__data(flat[1]),
                                              mf__data(flat[2]), mf__data(c->out[0]));
out:
    for (int i = 0; i < 3; i++) mf_tensor_release(flat[i]);
    return status;
}

/* Applying needs R and the points, inverting t too (ops.def), so what has no storage stays NULL. */
mf_status mf__frames_apply_bwd(mf_grad_call *g) {
    const mf_tensor *R = g->in[0], *x = g->in[2];
    mf_tensor *flat[4] = {NULL};
    mf_status status = MF_OK;
    for (int i = 0; i < 3; i++)
        if (g->in[i]->storage) MF_TRY_OUT(mf__contiguous(&flat[i], g->in[i]));
    MF_TRY_OUT(mf__contiguous(&flat[3], g->dout[0]));
    for (int i = 0; i < 3; i++)
        if (g->wanted[i]) MF_TRY_OUT(mf__new_like(&g->din[i], g->in[i]));
    status = g->device->backend->frames_apply_grad(g->device, x->dtype, mf__count(R->ndim - 2, R->shape), points_of(R, x),
                                                   g->op == &mf__ops[MF_OP_frames_invert_apply], mf__data_or_null(flat[0]),
                                                   mf__data_or_null(flat[1]), mf__data_or_null(flat[2]), mf__data(flat[3]),
                                                   mf__data_or_null(g->din[0]), mf__data_or_null(g->din[1]), mf__data_or_null(g->din[2]));
out:
    for (int i = 0; i < 4; i++) mf_tensor_release(flat[i]);
    return status;
}

/* ---- update; a mask that is absent is all ones ---- */

mf_status mf__frames_update_fwd(mf_call *c) {
    const char *op = c->op->name;
    mf_tensor *mask = NULL;
    if (!c->in[0]) return mf__fail(MF_EVALUE, "%s: q is missing", op);
    MF_TRY(mf__geometric(op, "q", c->in[0], c->in[0]));
    if (c->in[0]->ndim < 1) return mf__fail(MF_ESHAPE, "%s: q %s must be (..., 4)", op, mf__shape(c->in[0]).text);
    MF_TRY(mf__mask(&mask, c->in[3], c->device, c->in[0]->dtype, c->in[0]->ndim - 1, c->in[0]->shape));
    const mf_tensor *in[] = {c->in[0], c->in[1], c->in[2], mask};
    mf_status status = mf__rows(op, MF_ROW_UPDATE, (const char *const[]){"q", "t", "update", "mask"}, in, c->out, NULL);
    mf_tensor_release(mask);
    return status;
}

mf_status mf__frames_update_bwd(mf_grad_call *g) {
    mf_tensor *mask = NULL, *zero[2] = {NULL, NULL};
    mf_status status = mf__mask(&mask, g->in[3], g->device, g->in[0]->dtype, g->in[0]->ndim - 1, g->in[0]->shape);
    for (int i = 0; i < 2 && status == MF_OK; i++)  /* one of the two results may be unused */
        if (!g->dout[i]) status = mf__new_zeros(&zero[i], g->device, g->in[i]->dtype, g->in[i]->ndim, g->in[i]->shape);
    if (status == MF_OK) {
        const mf_tensor *in[] = {g->in[0], g->in[1], g->in[2], mask, g->dout[0] ? g->dout[0] : zero[0], g->dout[1] ? g->dout[1] : zero[1]};
        status = mf__rows(g->op->name, MF_ROW_UPDATE_GRAD, any, in, g->din, g->wanted);
    }
    mf_tensor_release(mask);
    mf_tensor_release(zero[0]);
    mf_tensor_release(zero[1]);
    return status;
}

/* ---- frames of whole sequences ---- */

mf_status mf__frames_gauge_fwd(mf_call *c) {
    const char *op = c->op->name;
    const mf_tensor *R = c->in[0], *t = c->in[1], *mask = c->in[2];
    const mf_packing *packing = c->p.packing;
    mf_tensor *flat[3] = {NULL};
    mf_status status = MF_OK;
    MF_TRY(mf__geometric(op, "R", R, R));
    MF_TRY(mf__geometric(op, "t", t, R));
    MF_TRY(mf__packed(op, R, packing));
    MF_TRY(mf__shaped(op, "R", R, 3, (int64_t[]){packing->total, 3, 3}));
    MF_TRY(mf__shaped(op, "t", t, 2, (int64_t[]){packing->total, 3}));
    if (mask) MF_TRY(mf__shaped(op, "mask", mask, 1, (int64_t[]){packing->total}));
    for (int i = 0; i < 3; i++) MF_TRY_OUT(mf__plain(&flat[i], c->in[i], R->dtype));
    MF_TRY_OUT(mf__new(&c->out[0], c->device, R->dtype, 3, (int64_t[]){packing->count, 3, 3}));
    MF_TRY_OUT(mf__new(&c->out[1], c->device, R->dtype, 2, (int64_t[]){packing->count, 3}));
    status = c->device->backend->frames_gauge(c->device, R->dtype, packing, mf__data(flat[0]), mf__data(flat[1]), mf__data_or_null(flat[2]),
                                              mf__data(c->out[0]), mf__data(c->out[1]));
out:
    for (int i = 0; i < 3; i++) mf_tensor_release(flat[i]);
    return status;
}

/* What the two superpositions take first: moving and fixed (N, 3), weight (N) or none, and the packing of N. */
static mf_status superposable(const mf_call *c) {
    const char *op = c->op->name;
    const mf_tensor *moving = c->in[0], *fixed = c->in[1], *weight = c->in[2];
    const mf_packing *packing = c->p.packing;
    MF_TRY(mf__geometric(op, "moving", moving, moving));
    MF_TRY(mf__geometric(op, "fixed", fixed, moving));
    MF_TRY(mf__packed(op, moving, packing));
    MF_TRY(mf__shaped(op, "moving", moving, 2, (int64_t[]){packing->total, 3}));
    MF_TRY(mf__shaped(op, "fixed", fixed, 2, (int64_t[]){packing->total, 3}));
    if (weight) MF_TRY(mf__shaped(op, "weight", weight, 1, (int64_t[]){packing->total}));
    return MF_OK;
}

mf_status mf__kabsch_fwd(mf_call *c) {
    const mf_tensor *moving = c->in[0];
    const mf_packing *packing = c->p.packing;
    mf_tensor *flat[3] = {NULL};
    mf_status status = MF_OK;
    MF_TRY(superposable(c));
    for (int i = 0; i < 3; i++) MF_TRY_OUT(mf__plain(&flat[i], c->in[i], moving->dtype));
    MF_TRY_OUT(mf__new(&c->out[0], c->device, moving->dtype, 3, (int64_t[]){packing->count, 3, 3}));
    MF_TRY_OUT(mf__new(&c->out[1], c->device, moving->dtype, 2, (int64_t[]){packing->count, 3}));
    MF_TRY_OUT(mf__new(&c->out[2], c->device, moving->dtype, 1, (int64_t[]){packing->count}));
    status = c->device->backend->kabsch(c->device, moving->dtype, packing, mf__data(flat[0]), mf__data(flat[1]), mf__data_or_null(flat[2]),
                                        mf__data(c->out[0]), mf__data(c->out[1]), mf__data(c->out[2]));
out:
    for (int i = 0; i < 3; i++) mf_tensor_release(flat[i]);
    return status;
}

mf_status mf__kabsch_pairs_fwd(mf_call *c) {
    const char *op = c->op->name;
    const mf_tensor *moving = c->in[0], *pairs = c->in[3];
    const mf_packing *packing = c->p.packing;
    mf_tensor *flat[3] = {NULL}, *list = NULL;
    mf_status status = MF_OK;
    MF_TRY(superposable(c));
    if (pairs->dtype != MF_INT32) return mf__fail(MF_EDTYPE, "%s: pairs is %s, expected int32", op, mf_dtype_name(pairs->dtype));
    if (pairs->ndim != 2 || pairs->shape[1] != 2) return mf__fail(MF_ESHAPE, "%s: pairs %s must be (P, 2)", op, mf__shape(pairs).text);
    const int64_t n = pairs->shape[0];
    for (int i = 0; i < 3; i++) MF_TRY_OUT(mf__plain(&flat[i], c->in[i], moving->dtype));
    MF_TRY_OUT(mf__contiguous(&list, pairs));
    MF_TRY_OUT(mf__new(&c->out[0], c->device, moving->dtype, 3, (int64_t[]){n, 3, 3}));
    MF_TRY_OUT(mf__new(&c->out[1], c->device, moving->dtype, 1, (int64_t[]){n}));
    status = c->device->backend->kabsch_pairs(c->device, moving->dtype, packing, n, mf__data(list), mf__data(flat[0]), mf__data(flat[1]),
                                              mf__data_or_null(flat[2]), mf__data(c->out[0]), mf__data(c->out[1]));
out:
    for (int i = 0; i < 3; i++) mf_tensor_release(flat[i]);
    mf_tensor_release(list);
    return status;
}

/* ---- public ---- */

mf_status mf_frames_from_points(mf_tensor **rotation, const mf_tensor *x_axis, const mf_tensor *xy, const mf_tensor *origin) {
    return mf__run1(rotation, MF_OP_frames_from_points, (const mf_tensor *[]){x_axis, xy, origin}, 3, NULL);
}
mf_status mf_frames_apply(mf_tensor **out, const mf_tensor *R, const mf_tensor *t, const mf_tensor *points) {
    return mf__run1(out, MF_OP_frames_apply, (const mf_tensor *[]){R, t, points}, 3, NULL);
}
mf_status mf_frames_invert_apply(mf_tensor **out, const mf_tensor *R, const mf_tensor *t, const mf_tensor *points) {
    return mf__run1(out, MF_OP_frames_invert_apply, (const mf_tensor *[]){R, t, points}, 3, NULL);
}
mf_status mf_dihedral(mf_tensor **out, const mf_tensor *points) { return mf__run1(out, MF_OP_dihedral, &points, 1, NULL); }

mf_status mf_frames_update(mf_tensor **q_out, mf_tensor **t_out, const mf_tensor *q, const mf_tensor *t, const mf_tensor *update, const mf_tensor *mask) {
    mf_tensor *out[2];
    mf_status status = mf__run(out, 2, MF_OP_frames_update, (const mf_tensor *[]){q, t, update, mask}, 4, NULL);
    *q_out = out[0];
    *t_out = out[1];
    return status;
}

mf_status mf_frames_gauge(mf_tensor **R, mf_tensor **t, const mf_tensor *R_in, const mf_tensor *t_in, const mf_tensor *mask, const mf_packing *packing) {
    mf_tensor *out[2];
    mf_status status = mf__run(out, 2, MF_OP_frames_gauge, (const mf_tensor *[]){R_in, t_in, mask}, 3, &(mf_params){.packing = packing});
    *R = out[0];
    *t = out[1];
    return status;
}

mf_status mf_kabsch(mf_tensor **R, mf_tensor **t, mf_tensor **rmsd, const mf_tensor *moving, const mf_tensor *fixed, const mf_tensor *weight, const mf_packing *packing) {
    mf_tensor *out[3];
    mf_status status = mf__run(out, 3, MF_OP_kabsch, (const mf_tensor *[]){moving, fixed, weight}, 3, &(mf_params){.packing = packing});
    *R = out[0];
    *t = out[1];
    *rmsd = out[2];
    return status;
}

mf_status mf_kabsch_pairs(mf_tensor **R, mf_tensor **distance, const mf_tensor *moving, const mf_tensor *fixed, const mf_tensor *weight, const mf_tensor *pairs, const mf_packing *packing) {
    mf_tensor *out[2];
    mf_status status = mf__run(out, 2, MF_OP_kabsch_pairs, (const mf_tensor *[]){moving, fixed, weight, pairs}, 4, &(mf_params){.packing = packing});
    *R = out[0];
    *distance = out[1];
    return status;
}
