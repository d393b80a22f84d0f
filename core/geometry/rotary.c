/* rotary.c: queries and keys turned by angles that grow along the chain, so that their product knows the offset (Su et al. 2021).
 *
 *   (a_l | b_l) <- (a_l cos w_l i - b_l sin w_l i | a_l sin w_l i + b_l cos w_l i)       l < dim / 2,  w_l = pi / max_len^(2l / dim)
 *
 *   x (N, H, w), a its columns from 0 on, b those from dim / 2 on; columns from dim on are copied. i is the residue's index.
 *
 * Angles are those of the index embedding, in float32 (features.h); their sines and cosines and what is turned are in x's type. The
 * adjoint of a rotation is the opposite one, so backward is the same kernel and a step holds the index alone. */
#include "geometry.h"
#include <math.h>

static mf_status check(const mf_call *c) {
    const char *op = c->op->name;
    const mf_tensor *x = c->in[0], *index = c->in[1];
    const int64_t dim = c->p.i[0];
    const double max_len = c->p.f[0];
    MF_TRY(mf__geometric(op, "x", x, x));
    if (x->ndim != 3) return mf__fail(MF_ESHAPE, "%s: x %s must be (N, heads, width)", op, mf__shape(x).text);
    if (!index) return mf__fail(MF_EVALUE, "%s: index is missing", op);
    if (!mf__is_index(index->dtype)) return mf__fail(MF_EDTYPE, "%s: index is %s, expected int32 or int64", op, mf_dtype_name(index->dtype));
    MF_TRY(mf__shaped(op, "index", index, 1, x->shape));
    if (dim < 2 || dim % 2) return mf__fail(MF_EVALUE, "%s: dim is %lld, expected an even number of at least 2", op, (long long)dim);
    if (dim > x->shape[2])
        return mf__fail(MF_ESHAPE, "%s: dim is %lld, x %s has %lld columns a head", op, (long long)dim, mf__shape(x).text, (long long)x->shape[2]);
    if (!isfinite(max_len) || !(max_len > 0)) return mf__fail(MF_EVALUE, "%s: max_len is %g, expected a positive number", op, max_len);
    return MF_OK;
}

static mf_status turn(mf_tensor **out, const mf_tensor *x, const mf_tensor *index, const mf_params *p, int inverse) {
    mf_tensor *flat = NULL, *at = NULL;
    mf_status status = MF_OK;
    MF_TRY_OUT(mf__contiguous(&flat, x));
    MF_TRY_OUT(mf__plain(&at, index, MF_INT32));
    MF_TRY_OUT(mf__new_like(out, x));
    mf_rotary_args a = {.dtype = x->dtype, .inverse = inverse, .n = x->shape[0], .heads = x->shape[1], .width = x->shape[2], .dim = p->i[0],
                        .max_len = p->f[0], .index = mf__data(at), .x = mf__data(flat), .y = mf__data(*out)};
    status = x->device->backend->rotary(x->device, &a);
out:
    mf_tensor_release(flat);
    mf_tensor_release(at);
    return status;
}

mf_status mf__rotary_fwd(mf_call *c) {
    MF_TRY(check(c));
    return turn(&c->out[0], c->in[0], c->in[1], &c->p, 0);
}

mf_status mf__rotary_bwd(mf_grad_call *g) {
    return turn(&g->din[0], g->dout[0], g->in[1], g->p, 1);
}

mf_status mf_rotary(mf_tensor **out, const mf_tensor *x, const mf_tensor *index, int64_t dim, double max_len) {
    return mf__run1(out, MF_OP_rotary, (const mf_tensor *[]){x, index}, 2, &(mf_params){.f = {max_len}, .i = {dim}});
}
