/* attention.c: attention over packed sequences as operators: shapes checked, kernels called, gradients wired.
 *
 *     attention        softmax(q k' + key_bias) v                          per sequence and head, never L x L
 *     pair_attention   softmax(q k' + key_bias + pair_bias) (v, pair_value)   pairs dense, as given
 *
 * Both keep their inputs, their outputs and lse (N, H): backward recomputes the weights from those. Scale and points are the
 * caller's: columns of q and k (the lift), or terms of key_bias. Where the backend stores operands in 16 bits, `attention` in
 * float16 or bfloat16 rounds q, k and v itself, from wherever they lie, and keeps that instead.
 *
 * What `attention_attend` gave, out and lse, may be handed to a later `attention` of the same inputs, which then computes nothing:
 * for those who make q, k and v again in backward. */
#include "ipa.h"
#include <string.h>

enum { Q, K, V, KEY_BIAS, PAIR_BIAS, PAIR_VALUE, INPUTS };
enum { PRECISION = 0 };
enum { ATTENDED = 4, LSE = 5, RESUMED_INPUTS };               /* of `attention`, which has no pairs */

/* The inputs, contiguous; an absent one stays NULL. Release with drop(). */
typedef struct inputs {
    mf_tensor *x[INPUTS];
} inputs;

static mf_status gather(inputs *f, const mf_tensor *const *in, int n) {
    for (int i = 0; i < n; i++)
        if (in[i] && in[i]->storage) MF_TRY(mf__contiguous(&f->x[i], in[i]));
    return MF_OK;
}
static void drop(inputs *f) {
    for (int i = 0; i < INPUTS; i++) mf_tensor_release(f->x[i]);
}

/* q, k (N, H, dqk), v (N, H, dv), key_bias (N, H) of one real type. */
static mf_status check(const char *op, const mf_call *c) {
    const mf_packing *packing = c->p.packing;
    for (int i = Q; i <= V; i++) MF_TRY(mf__usable(op, c->in[i]));
    if (!packing) return mf__fail(MF_EVALUE, "%s: a packing is missing", op);
    const mf_tensor *q = c->in[Q], *k = c->in[K], *v = c->in[V];
    for (int i = 0; i < c->n_in; i++) {
        const mf_tensor *x = c->in[i];
        if (!x) continue;
        if (!mf__is_real(x->dtype))
            return mf__fail(MF_EDTYPE, "%s: %s, float32 or float64 expected; `precision` sets what products round to", op,
                mf_dtype_name(x->dtype));
        if (x->dtype != q->dtype)
            return mf__fail(MF_EDTYPE, "%s: q is %s, another input %s; one type expected", op, mf_dtype_name(q->dtype),
                mf_dtype_name(x->dtype));
    }
    const int64_t n = packing->total;
    const int fits = q->ndim == 3 && k->ndim == 3 && v->ndim == 3 && q->shape[0] == n && k->shape[0] == n && v->shape[0] == n &&
                     k->shape[1] == q->shape[1] && v->shape[1] == q->shape[1] && k->shape[2] == q->shape[2];
    if (!fits)
        return mf__fail(MF_ESHAPE,
            "%s: q %s, k %s, v %s; expected q and k (N, H, dqk), v (N, H, dv) with N = %lld, the packing's total", op,
                        mf__shape(q).text, mf__shape(k).text, mf__shape(v).text, (long long)n);
    const mf_tensor *bias = c->in[KEY_BIAS];
    if (bias && (bias->ndim != 2 || bias->shape[0] != n || bias->shape[1] != q->shape[1]))
        return mf__fail(MF_ESHAPE, "%s: key_bias %s must be (%lld, %lld), residues and heads", op, mf__shape(bias).text,
            (long long)n,
                        (long long)q->shape[1]);
    return MF_OK;
}

/* q and v for their shapes alone: where operands have 16 bits, f does not hold them. */
static mf_attention_args arguments(const inputs *f, const mf_tensor *q, const mf_tensor *v, const mf_packing *packing, int precision) {
    return (mf_attention_args){
        .dtype = q->dtype, .precision = precision, .packing = packing,
        .heads = q->shape[1], .dqk = q->shape[2], .dv = v->shape[2], .dz = f->x[PAIR_VALUE] ? f->x[PAIR_VALUE]->shape[1] : 0,
        .q = mf__ipa_data(f->x[Q]), .k = mf__ipa_data(f->x[K]), .v = mf__ipa_data(f->x[V]),
        .key_bias = mf__ipa_data(f->x[KEY_BIAS]),
        .pair_bias = mf__ipa_data(f->x[PAIR_BIAS]), .pair_value = mf__ipa_data(f->x[PAIR_VALUE])};
}

/* ---- operands that the backend takes in 16 bits ---- */

enum { SAVED_LSE, SAVED_OPERANDS };                           /* q, k, v from there */

/* Their type, 0 where attention takes them as they come. */
static int operand_type(const mf_tensor *q, const mf_tensor *v, int precision) {
    const int wide = q->dtype == MF_FLOAT32 && q->shape[2] > 0 && v->shape[2] > 0;
    if (!wide || !q->device->backend->stores_16_bits) return 0;
    return precision == MF_FP16 ? MF_FLOAT16 : precision == MF_BF16 ? MF_BFLOAT16 : 0;
}

/* x (N, H, d) rounded, any view, in rows of a multiple of 8 that end in zeros; those of v, of a multiple of 16, in one 1 or more, where
 * weights are summed. */
static mf_status operand_of(mf_tensor **out, const mf_tensor *x, int type, int one) {
    const int64_t d = x->shape[2], ld = one ? (d + 1 + 15) / 16 * 16 : (d + 7) / 8 * 8;
    const int64_t shape[3] = {x->shape[0], x->shape[1], ld}, stride[3] = {x->shape[1] * ld, ld, 1};
    const int64_t rest[3] = {x->shape[0], x->shape[1], ld - d};
    mf_tensor *part = NULL, *tail = NULL;
    mf_status status;
    MF_TRY(mf__new(out, x->device, type, 3, shape));
    MF_TRY_OUT(mf__view(&part, *out, 3, x->shape, stride, 0));
    MF_TRY_OUT(mf_tensor_copy(part, x));
    if (ld > d) {
        MF_TRY_OUT(mf__view(&tail, *out, 3, rest, stride, d));
        status = mf_tensor_fill(tail, one);
    }
out:
    mf_tensor_release(part);
    mf_tensor_release(tail);
    return status;
}

static mf_status make_operands(mf_call *c, int type) {
    for (int i = Q; i <= V; i++) MF_TRY(operand_of(&c->saved[SAVED_OPERANDS + i], c->in[i], type, i == V));
    c->keep = KEEP_IN(KEY_BIAS) | KEEP_OUT | KEEP_SAVED;
    return MF_OK;
}

static void use_operands(mf_attention_args *a, mf_tensor *const *saved) {
    const mf_tensor *q = saved[SAVED_OPERANDS + Q], *v = saved[SAVED_OPERANDS + V];
    a->operand = q->dtype;
    a->ldq = q->shape[2];
    a->ldv = v->shape[2];
    a->q = mf__data(q);
    a->k = mf__data(saved[SAVED_OPERANDS + K]);
    a->v = mf__data(v);
}

/* The results of an earlier call in place of a computation. */
static mf_status resume(mf_call *c, int type) {
    const mf_tensor *attended = c->in[ATTENDED], *lse = c->in[LSE], *q = c->in[Q], *v = c->in[V];
    if (!attended || !lse) return mf__fail(MF_EVALUE, "attention: attended and lse come together");
    if (attended->ndim != 3 || memcmp(attended->shape, v->shape, 3 * sizeof *v->shape) || lse->ndim != 2 ||
        memcmp(lse->shape, q->shape, 2 * sizeof *q->shape))
        return mf__fail(MF_ESHAPE, "attention: attended %s and lse %s do not belong to q %s and v %s", mf__shape(attended).text, mf__shape(lse).text,
                        mf__shape(q).text, mf__shape(v).text);
    mf_tensor *flat;
    MF_TRY(mf__contiguous(&flat, attended));
    mf_status status = mf__alias(&c->out[0], flat);
    mf_tensor_release(flat);
    if (status == MF_OK) status = mf__contiguous(&c->saved[SAVED_LSE], lse);
    if (status == MF_OK && type && c->recording) status = make_operands(c, type);
    return status;
}

mf_status mf__attention_fwd(mf_call *c) {
    MF_TRY(check("attention", c));
    const int precision = (int)c->p.i[PRECISION];
    if (precision < MF_EXACT || precision > MF_TF32)
        return mf__fail(MF_EVALUE, "attention: precision %d is none of exact, fp16, bf16, tf32", precision);
    const mf_tensor *q = c->in[Q], *v = c->in[V];
    const int type = operand_type(q, v, precision);
    if (c->n_in == RESUMED_INPUTS) return resume(c, type);
    inputs f = {.x = {NULL}};
    mf_status status;
    if (type) MF_TRY_OUT(make_operands(c, type));
    for (int i = type ? KEY_BIAS : Q; i < c->n_in; i++)
        if (c->in[i]) MF_TRY_OUT(mf__contiguous(&f.x[i], c->in[i]));
    MF_TRY_OUT(mf__new_like(&c->out[0], v));
    MF_TRY_OUT(mf__new(&c->saved[SAVED_LSE], q->device, q->dtype, 2, q->shape));
    mf_attention_args a = arguments(&f, q, v, c->p.packing, precision);
    if (type) use_operands(&a, c->saved);
    a.out = mf__data(c->out[0]);
    a.lse = mf__data(c->saved[SAVED_LSE]);
    MF_TRY_OUT(mf__kernels(q)->attention(q->device, &a));
    if (c->n_out == 2) c->out[1] = mf_tensor_retain(c->saved[SAVED_LSE]);   /* attention_attend */
out:
    drop(&f);
    return status;
}

mf_status mf__attention_bwd(mf_grad_call *g) {
    inputs f = {.x = {NULL}};
    mf_tensor *dout = NULL;
    mf_status status;
    if (g->n_in == RESUMED_INPUTS && (g->wanted[ATTENDED] || g->wanted[LSE]))
        return mf__fail(MF_ESTATE, "attention: attended and lse are constants of a call before and have no gradient; detach them");
    MF_TRY_OUT(gather(&f, (const mf_tensor *const *)g->in, KEY_BIAS + 1));
    MF_TRY_OUT(mf__contiguous(&dout, g->dout[0]));
    mf_attention_args a = arguments(&f, g->in[Q], g->in[V], g->p->packing, (int)g->p->i[PRECISION]);
    if (g->saved[SAVED_OPERANDS]) use_operands(&a, g->saved);
    a.out = mf__data(g->out[0]);
    a.lse = mf__data(g->saved[SAVED_LSE]);
    a.dout = mf__data(dout);
    MF_TRY_OUT(mf__ipa_want(&a.dq, g, Q));
    MF_TRY_OUT(mf__ipa_want(&a.dk, g, K));
    MF_TRY_OUT(mf__ipa_want(&a.dv_, g, V));
    MF_TRY_OUT(mf__ipa_want(&a.dkey_bias, g, KEY_BIAS));
    status = mf__kernels(dout)->attention_grad(g->device, &a);
out:
    mf_tensor_release(dout);
    drop(&f);
    return status;
}

/* pair_bias (P, H) and pair_value (P, dz). */
static mf_status check_pairs(const mf_call *c) {
    const long long pairs = (long long)c->p.packing->pairs, heads = (long long)c->in[Q]->shape[1];
    const mf_tensor *bias = c->in[PAIR_BIAS], *value = c->in[PAIR_VALUE];
    if (bias && (bias->ndim != 2 || bias->shape[0] != pairs || bias->shape[1] != heads))
        return mf__fail(MF_ESHAPE, "pair_attention: pair_bias %s must be (%lld, %lld), the packing's pairs and the heads",
            mf__shape(bias).text, pairs, heads);
    if (value && (value->ndim != 2 || value->shape[0] != pairs))
        return mf__fail(MF_ESHAPE, "pair_attention: pair_value %s must be (%lld, dz), the packing's pairs and any width",
            mf__shape(value).text, pairs);
    return MF_OK;
}

mf_status mf__pair_attention_fwd(mf_call *c) {
    MF_TRY(check("pair_attention", c));
    MF_TRY(check_pairs(c));
    const mf_tensor *q = c->in[Q], *v = c->in[V], *value = c->in[PAIR_VALUE];
    const int64_t pair_shape[3] = {q->shape[0], q->shape[1], value ? value->shape[1] : 0};
    inputs f = {.x = {NULL}};
    mf_status status;
    MF_TRY_OUT(gather(&f, c->in, c->n_in));
    MF_TRY_OUT(mf__new_like(&c->out[0], v));
    MF_TRY_OUT(mf__new(&c->out[1], q->device, q->dtype, 3, pair_shape));
    MF_TRY_OUT(mf__new(&c->saved[0], q->device, q->dtype, 2, q->shape));
    mf_attention_args a = arguments(&f, q, v, c->p.packing, MF_EXACT);
    a.out = mf__data(c->out[0]);
    a.pair_out = value ? mf__data(c->out[1]) : NULL;
    a.lse = mf__data(c->saved[0]);
    status = mf__kernels(q)->pair_attention(q->device, &a);
out:
    drop(&f);
    return status;
}

mf_status mf__pair_attention_bwd(mf_grad_call *g) {
    inputs f = {.x = {NULL}};
    mf_tensor *dout = NULL, *dpair_out = NULL;
    mf_status status;
    MF_TRY_OUT(gather(&f, (const mf_tensor *const *)g->in, g->n_in));
    if (g->dout[0]) MF_TRY_OUT(mf__contiguous(&dout, g->dout[0]));
    else MF_TRY_OUT(mf__new_zeros(&dout, g->device, g->out[0]->dtype, 3, g->out[0]->shape));    /* only pair_out was used */
    const int pair_values = f.x[PAIR_VALUE] && g->dout[1];
    if (pair_values) MF_TRY_OUT(mf__contiguous(&dpair_out, g->dout[1]));
    mf_attention_args a = arguments(&f, g->in[Q], g->in[V], g->p->packing, MF_EXACT);
    a.out = mf__data(g->out[0]);
    a.lse = mf__data(g->saved[0]);
    a.dout = mf__data(dout);
    a.pair_out_in = pair_values ? mf__data(g->out[1]) : NULL;
    a.dpair_out = mf__ipa_data(dpair_out);
    MF_TRY_OUT(mf__ipa_want(&a.dq, g, Q));
    MF_TRY_OUT(mf__ipa_want(&a.dk, g, K));
    MF_TRY_OUT(mf__ipa_want(&a.dv_, g, V));
    MF_TRY_OUT(mf__ipa_want(&a.dkey_bias, g, KEY_BIAS));
    MF_TRY_OUT(mf__ipa_want(&a.dpair_bias, g, PAIR_BIAS));
    if (pair_values) MF_TRY_OUT(mf__ipa_want(&a.dpair_value, g, PAIR_VALUE));
    status = mf__kernels(dout)->pair_attention_grad(g->device, &a);
out:
    mf_tensor_release(dout);
    mf_tensor_release(dpair_out);
    drop(&f);
    return status;
}

mf_status mf_attention(mf_tensor **out, const mf_tensor *q, const mf_tensor *k, const mf_tensor *v, const mf_tensor *key_bias,
                       const mf_packing *packing, int precision) {
    const mf_params p = {.i = {[PRECISION] = precision}, .packing = packing};
    return mf__run1(out, MF_OP_attention, (const mf_tensor *[]){q, k, v, key_bias}, 4, &p);
}

mf_status mf_attention_attend(mf_tensor **out, mf_tensor **lse, const mf_tensor *q, const mf_tensor *k, const mf_tensor *v,
                              const mf_tensor *key_bias, const mf_packing *packing, int precision) {
    const mf_params p = {.i = {[PRECISION] = precision}, .packing = packing};
    mf_tensor *outs[2];
    mf_status status = mf__run(outs, 2, MF_OP_attention_attend, (const mf_tensor *[]){q, k, v, key_bias}, 4, &p);
    *out = outs[0];
    *lse = outs[1];
    return status;
}

mf_status mf_attention_resume(mf_tensor **out, const mf_tensor *q, const mf_tensor *k, const mf_tensor *v, const mf_tensor *key_bias,
                              const mf_tensor *attended, const mf_tensor *lse, const mf_packing *packing, int precision) {
    const mf_params p = {.i = {[PRECISION] = precision}, .packing = packing};
    return mf__run1(out, MF_OP_attention, (const mf_tensor *[]){q, k, v, key_bias, attended, lse}, RESUMED_INPUTS, &p);
}

mf_status mf_pair_attention(mf_tensor **out, mf_tensor **pair_out, const mf_tensor *q, const mf_tensor *k, const mf_tensor *v,
                            const mf_tensor *key_bias, const mf_tensor *pair_bias, const mf_tensor *pair_value,
                                const mf_packing *packing) {
    const mf_params p = {.packing = packing};
    mf_tensor *outs[2];
    mf_status status = mf__run(outs, 2, MF_OP_pair_attention, (const mf_tensor *[]){q, k, v, key_bias, pair_bias, pair_value}, 6,
        &p);
    *out = outs[0];
    *pair_out = outs[1];
    return status;
}
