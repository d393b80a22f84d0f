/* flash_ipa.c: flash invariant point attention between its projections and linear_out, as one operator of three stages.
 *
 *     a_ij  = scale q_i . k_j - gamma_h / 2 sum_p |T_i q_p - T_j k_p|^2 + sum_rho b1_i,rho b2_j,rho
 *     out_i = o | o_x | o_y | o_z | norms | pair       alpha = softmax_j(a),  gamma = softplus(head_weights) sqrt(1 / (3 P 9/2))
 *
 *     lift       frames in the gauge, T' = G^-1 T, points placed, columns side by side, each head:
 *                  q  =  q       | T' q_p         | b1          k  =  scale k | gamma T' k_p | b2
 *                  v  =  v       | T' v_p         | y2          key_bias = -gamma / 2 sum_p |T' k_p|^2,  -inf where masked
 *     attention  softmax(q k' + key_bias) v, the kernel that knows no columns
 *     readout    o | R'^T (o_p - t')  x, y, z | sqrt(|.|^2 + 1e-8) | sum_rho y1 w,  the features in linear_out's order
 *
 * |T_i q_p|^2 is constant over j and cancels. The gauge of each sequence (its mean and the nearest rotation to the axes of its
 * first residue; only the mean; none) is a constant: the function does not depend on it, so its derivative is zero, and rounding sees
 * the same numbers however the structure lies in space. R and t get their gradients in the frame that they came in.
 *
 * In 16-bit precision the pair bias goes in halves, hi hi lo against hi lo hi, 3 r columns for r; with `split` so do the points,
 * 9 P columns, and values in hi | lo, 6 Pv columns. The gradient passes through hi alone, as if hi were the number. Where the
 * backend says so (stores_16_bits) the columns are stored in the 16 bits that attention would round them to anyway.
 *
 * nn.lifted_attention composes the same from some 60 operators; a spec holds the two against each other.
 *
 * Kept for backward, bytes a residue at the default widths (c 128, H 8, P 8, Pv 12, r 2, dz 32), in float32:
 *
 *                                    16-bit operands     float32
 *     q, k (H dqk), v (H dv)        2560 + 2560 + 3840   4928 + 4928 + 7296
 *     what attention gave (H dv)                  7296      7296
 *     lse, key bias, frames, norms of v            144       112
 *     q_points, kv_points, y                      3200      3200        inputs; the scalar projections (12 KiB) are not kept
 *     in all                                     19600     27760
 *
 * `attended` and `lse` of an earlier call (flash_ipa_attend) stand in for the stage of attention: so a layer that computes its
 * projections again in backward keeps 7.3 KiB, and never does again what is quadratic. */
#include "ipa.h"
#include <math.h>

enum { Q, KV, Q_POINTS, KV_POINTS, PAIR_BIAS, PAIR_VALUE, HEAD_WEIGHTS, R, T, MASK, ATTENDED, LSE, INPUTS };
enum { SAVED_Q, SAVED_K, SAVED_V, SAVED_BIAS, SAVED_LSE, SAVED_ATTENDED, SAVED_FRAMES, SAVED_GAUGE, SAVED_NORMS };
enum { HEADS, GAUGE, PRECISION, SPLIT };                       /* of mf_params.i; f[0] is the scale, 0 for the default */

/* ---- what was asked for ---- */

static const char *const names[INPUTS] = {"q", "kv", "q_points", "kv_points", "pair_bias", "pair_value", "head_weights", "R", "t",
                                          "mask", "attended", "lse"};

static mf_status shaped(const char *op, int input, const mf_tensor *x, int ndim, const int64_t *shape) {
    int fits = x->ndim == ndim;
    for (int i = 0; fits && i < ndim; i++) fits = x->shape[i] == shape[i];
    if (fits) return MF_OK;
    const mf_tensor expected = {.ndim = ndim, .shape = {ndim > 0 ? shape[0] : 0, ndim > 1 ? shape[1] : 0, ndim > 2 ? shape[2] : 0, ndim > 3 ? shape[3] : 0}};
    return mf__fail(MF_ESHAPE, "%s: %s %s must be %s", op, names[input], mf__shape(x).text, mf__shape(&expected).text);
}

/* The sizes that follow from the inputs, checked against each other. */
static mf_status sizes(mf_ipa_args *a, const char *op, const mf_tensor *const *in, const mf_params *p) {
    const int64_t H = p->i[HEADS];
    if (!p->packing) return mf__fail(MF_EVALUE, "%s: a packing is missing", op);
    if (H < 1 || H > INT32_MAX) return mf__fail(MF_EVALUE, "%s: %lld heads, expected 1 or more", op, (long long)H);
    for (int i = 0; i < INPUTS; i++) {
        const mf_tensor *x = in[i];
        const int optional = i == PAIR_BIAS || i == PAIR_VALUE || i >= MASK;
        if (!x && !optional) return mf__fail(MF_EVALUE, "%s: %s is missing", op, names[i]);
        if (!x) continue;
        if (i == MASK && x->dtype != MF_BOOL) return mf__fail(MF_EDTYPE, "%s: mask is %s, expected bool", op, mf_dtype_name(x->dtype));
        if (i == MASK) continue;
        if (!mf__is_real(x->dtype)) return mf__fail(MF_EDTYPE, "%s: %s is %s, expected float32 or float64", op, names[i], mf_dtype_name(x->dtype));
        if (x->dtype != in[Q]->dtype)
            return mf__fail(MF_EDTYPE, "%s: q is %s, %s %s; one type expected", op, mf_dtype_name(in[Q]->dtype), names[i], mf_dtype_name(x->dtype));
    }
    if (!in[PAIR_BIAS] != !in[PAIR_VALUE]) return mf__fail(MF_EVALUE, "%s: pair_bias and pair_value come together", op);
    if (!in[ATTENDED] != !in[LSE]) return mf__fail(MF_EVALUE, "%s: attended and lse come together", op);
    const int64_t n = p->packing->total;
    for (int i = Q; i <= KV_POINTS; i++)
        if (in[i]->ndim != 2 || in[i]->shape[0] != n)
            return mf__fail(MF_ESHAPE, "%s: %s %s must be (%lld, width), a row a residue", op, names[i], mf__shape(in[i]).text, (long long)n);
    if (in[Q]->shape[1] % H)
        return mf__fail(MF_ESHAPE, "%s: q %s does not divide into %lld heads", op, mf__shape(in[Q]).text, (long long)H);
    const int64_t c = in[Q]->shape[1] / H;
    MF_TRY(shaped(op, KV, in[KV], 2, (int64_t[]){n, 2 * H * c}));
    if (in[Q_POINTS]->shape[1] % (3 * H))
        return mf__fail(MF_ESHAPE, "%s: q_points %s are no points of three numbers in %lld heads", op, mf__shape(in[Q_POINTS]).text, (long long)H);
    const int64_t P = in[Q_POINTS]->shape[1] / (3 * H);
    if (in[KV_POINTS]->shape[1] % (3 * H) || in[KV_POINTS]->shape[1] / (3 * H) < P)
        return mf__fail(MF_ESHAPE, "%s: kv_points %s must hold %lld key points and the value points of %lld heads", op,
                        mf__shape(in[KV_POINTS]).text, (long long)P, (long long)H);
    const int64_t V = in[KV_POINTS]->shape[1] / (3 * H) - P;
    MF_TRY(shaped(op, HEAD_WEIGHTS, in[HEAD_WEIGHTS], 1, (int64_t[]){H}));
    MF_TRY(shaped(op, R, in[R], 3, (int64_t[]){n, 3, 3}));
    MF_TRY(shaped(op, T, in[T], 2, (int64_t[]){n, 3}));
    if (in[MASK]) MF_TRY(shaped(op, MASK, in[MASK], 1, (int64_t[]){n}));
    int64_t r = 0, dz = 0;
    if (in[PAIR_BIAS]) {
        const mf_tensor *b = in[PAIR_BIAS], *y = in[PAIR_VALUE];
        if (b->ndim != 4 || y->ndim != 4)
            return mf__fail(MF_ESHAPE, "%s: pair_bias %s and pair_value %s must be (N, 2, rank, heads) and (N, 2, rank, width)", op,
                            mf__shape(b).text, mf__shape(y).text);
        r = b->shape[2];
        dz = y->shape[3];
        MF_TRY(shaped(op, PAIR_BIAS, b, 4, (int64_t[]){n, 2, r, H}));
        MF_TRY(shaped(op, PAIR_VALUE, y, 4, (int64_t[]){n, 2, r, dz}));
    }
    const int64_t precision = p->i[PRECISION];
    if (precision < MF_EXACT || precision > MF_TF32)
        return mf__fail(MF_EVALUE, "%s: precision %lld is none of exact, fp16, bf16, tf32", op, (long long)precision);
    const int sixteen = precision == MF_FP16 || precision == MF_BF16;
    if (p->i[SPLIT] && !sixteen) return mf__fail(MF_EVALUE, "%s: split points need precision fp16 or bf16", op);
    if (p->i[GAUGE] < MF_GAUGE_CANONICAL || p->i[GAUGE] > MF_GAUGE_NONE)
        return mf__fail(MF_EVALUE, "%s: gauge %lld is none of canonical, centred, none", op, (long long)p->i[GAUGE]);
    *a = (mf_ipa_args){.dtype = in[Q]->dtype, .heads = H, .hidden = c, .query_points = P, .value_points = V, .rank = r, .dz = dz,
                       .packing = p->packing, .halves = sixteen && r > 0 ? (int)precision : 0, .split = p->i[SPLIT] ? (int)precision : 0,
                       .scale = p->f[0] != 0 ? p->f[0] : c > 0 ? sqrt(1 / (3 * (double)c)) : 1};
    a->dqk = c + (a->split ? 9 : 3) * P + (a->halves ? 3 : 1) * r;
    a->dv = c + (a->split ? 6 : 3) * V + r * dz;
    if (sixteen && a->dtype == MF_FLOAT32 && in[Q]->device->backend->stores_16_bits)
        a->operand = precision == MF_FP16 ? MF_FLOAT16 : MF_BFLOAT16;
    a->ldq = a->operand ? (a->dqk + 7) / 8 * 8 : a->dqk;
    a->ldv = a->operand ? (a->dv + 1 + 15) / 16 * 16 : a->dv;   /* and a column of ones */
    if (in[ATTENDED]) {
        MF_TRY(shaped(op, ATTENDED, in[ATTENDED], 3, (int64_t[]){n, H, a->dv}));
        MF_TRY(shaped(op, LSE, in[LSE], 2, (int64_t[]){n, H}));
    }
    return MF_OK;
}

/* The inputs, contiguous; an absent one or one without storage stays NULL. */
static mf_status gather(mf_tensor **x, const mf_tensor *const *in) {
    for (int i = 0; i < INPUTS; i++)
        if (in[i] && in[i]->storage) MF_TRY(mf__contiguous(&x[i], in[i]));
    return MF_OK;
}
static void drop(mf_tensor **x, int n) {
    for (int i = 0; i < n; i++) {
        mf_tensor_release(x[i]);
        x[i] = NULL;
    }
}

/* ---- forward ---- */

/* The gauge of each sequence; *rotation stays NULL where only the origin moves, both where nothing does. */
static mf_status find_gauge(mf_tensor **rotation, mf_tensor **origin, mf_device *d, const mf_params *p, mf_tensor *const *x) {
    const mf_packing *packing = p->packing;
    const int dtype = x[R]->dtype;
    mf_tensor *mask = NULL, *axes = NULL;
    mf_status status = MF_OK;
    if (p->i[GAUGE] == MF_GAUGE_NONE) return MF_OK;
    if (x[MASK]) MF_TRY_OUT(mf_cast(&mask, x[MASK], dtype));
    MF_TRY_OUT(mf__new(&axes, d, dtype, 3, (int64_t[]){packing->count, 3, 3}));
    MF_TRY_OUT(mf__new(origin, d, dtype, 2, (int64_t[]){packing->count, 3}));
    MF_TRY_OUT(d->backend->frames_gauge(d, dtype, packing, mf__data(x[R]), mf__data(x[T]), mf__ipa_data(mask), mf__data(axes),
                                        mf__data(*origin)));
    if (p->i[GAUGE] == MF_GAUGE_CANONICAL) {
        /* A frame that is not quite orthogonal (or not at all) must still give a rigid motion. */
        MF_TRY_OUT(mf__new_like(rotation, axes));
        const void *const from[] = {mf__data(axes)};
        void *const to[] = {mf__data(*rotation)};
        status = d->backend->rowwise(d, MF_ROW_NEAREST_ROTATION, dtype, packing->count, from, to);
    }
out:
    mf_tensor_release(mask);
    mf_tensor_release(axes);
    return status;
}

static mf_attention_args attention_of(const mf_ipa_args *a, int precision, mf_tensor *const *saved) {
    return (mf_attention_args){.dtype = a->dtype, .precision = precision, .heads = a->heads, .dqk = a->dqk, .dv = a->dv, .packing = a->packing,
                               .q = mf__data(saved[SAVED_Q]), .k = mf__data(saved[SAVED_K]), .v = mf__data(saved[SAVED_V]),
                               .key_bias = mf__data(saved[SAVED_BIAS]), .out = mf__data(saved[SAVED_ATTENDED]), .lse = mf__data(saved[SAVED_LSE]),
                               .operand = a->operand, .ldq = a->ldq, .ldv = a->ldv};
}

static mf_status run_lift(mf_ipa_args *a, mf_device *d, const mf_params *p, mf_tensor *const *x, mf_tensor **saved, int recording) {
    const int64_t n = p->packing->total, H = a->heads;
    const int lifted = a->operand ? a->operand : a->dtype;
    mf_tensor *origin = NULL;
    mf_status status;
    MF_TRY_OUT(find_gauge(&saved[SAVED_GAUGE], &origin, d, p, x));
    MF_TRY_OUT(mf__new(&saved[SAVED_Q], d, lifted, 3, (int64_t[]){n, H, a->ldq}));
    MF_TRY_OUT(mf__new(&saved[SAVED_K], d, lifted, 3, (int64_t[]){n, H, a->ldq}));
    MF_TRY_OUT(mf__new(&saved[SAVED_V], d, lifted, 3, (int64_t[]){n, H, a->ldv}));
    MF_TRY_OUT(mf__new(&saved[SAVED_BIAS], d, a->dtype, 2, (int64_t[]){n, H}));
    MF_TRY_OUT(mf__new(&saved[SAVED_FRAMES], d, a->dtype, 2, (int64_t[]){n, 12}));
    if (recording && a->operand) MF_TRY_OUT(mf__new(&saved[SAVED_NORMS], d, MF_FLOAT32, 2, (int64_t[]){n, H}));
    a->q = mf__data(x[Q]);
    a->kv = mf__data(x[KV]);
    a->q_points = mf__data(x[Q_POINTS]);
    a->kv_points = mf__data(x[KV_POINTS]);
    a->pair_bias = mf__ipa_data(x[PAIR_BIAS]);
    a->pair_value = mf__ipa_data(x[PAIR_VALUE]);
    a->head_weights = mf__data(x[HEAD_WEIGHTS]);
    a->R = mf__data(x[R]);
    a->t = mf__data(x[T]);
    a->mask = mf__ipa_data(x[MASK]);
    a->gauge_R = mf__ipa_data(saved[SAVED_GAUGE]);
    a->gauge_t = mf__ipa_data(origin);
    a->frames = mf__data(saved[SAVED_FRAMES]);
    a->q_lifted = mf__data(saved[SAVED_Q]);
    a->k_lifted = mf__data(saved[SAVED_K]);
    a->v_lifted = mf__data(saved[SAVED_V]);
    a->key_bias = mf__data(saved[SAVED_BIAS]);
    a->v_square = mf__ipa_data(saved[SAVED_NORMS]);
    status = d->backend->lift(d, a);
out:
    mf_tensor_release(origin);
    return status;
}

mf_status mf__flash_ipa_fwd(mf_call *c) {
    mf_device *d = c->device;
    mf_tensor *x[INPUTS] = {NULL};
    mf_ipa_args a;
    mf_status status;
    MF_TRY(sizes(&a, c->op->name, c->in, &c->p));
    const int64_t n = c->p.packing->total, H = a.heads;
    MF_TRY_OUT(gather(x, c->in));
    MF_TRY_OUT(run_lift(&a, d, &c->p, x, c->saved, c->recording));
    if (x[ATTENDED]) {
        c->saved[SAVED_ATTENDED] = mf_tensor_retain(x[ATTENDED]);
        c->saved[SAVED_LSE] = mf_tensor_retain(x[LSE]);
    } else {
        MF_TRY_OUT(mf__new(&c->saved[SAVED_ATTENDED], d, a.dtype, 3, (int64_t[]){n, H, a.dv}));
        MF_TRY_OUT(mf__new(&c->saved[SAVED_LSE], d, a.dtype, 2, (int64_t[]){n, H}));
        const mf_attention_args attention = attention_of(&a, (int)c->p.i[PRECISION], c->saved);
        MF_TRY_OUT(d->backend->attention(d, &attention));
    }
    if (!c->recording) drop(c->saved, SAVED_V + 1);
    MF_TRY_OUT(mf__new(&c->out[0], d, a.dtype, 2, (int64_t[]){n, H * (a.hidden + 4 * a.value_points + a.dz)}));
    a.attended = mf__data(c->saved[SAVED_ATTENDED]);
    a.features = mf__data(c->out[0]);
    MF_TRY_OUT(d->backend->readout(d, &a));
    if (c->n_out == 3) {                                       /* flash_ipa_attend */
        c->out[1] = mf_tensor_retain(c->saved[SAVED_ATTENDED]);
        c->out[2] = mf_tensor_retain(c->saved[SAVED_LSE]);
    }
out:
    drop(x, INPUTS);
    return status;
}

/* ---- backward ---- */

/* dout of attention, with what 16 bits of it need, and the part of the frames; dy1. */
enum { DOUT, DELTA, DOUT_SCALE, DFRAMES, READ };
static mf_status run_readout_grad(mf_ipa_args *a, mf_grad_call *g, mf_tensor **read) {
    const int64_t n = g->p->packing->total;
    mf_tensor *dout = NULL;
    mf_status status;
    MF_TRY_OUT(mf__contiguous(&dout, g->dout[0]));
    MF_TRY_OUT(mf__new(&read[DOUT], g->device, a->operand ? a->operand : a->dtype, 3, (int64_t[]){n, a->heads, a->ldv}));
    if (a->operand) {
        MF_TRY_OUT(mf__new(&read[DELTA], g->device, MF_FLOAT32, 2, (int64_t[]){n, a->heads}));
        MF_TRY_OUT(mf__new(&read[DOUT_SCALE], g->device, MF_FLOAT32, 1, (int64_t[]){1}));
    }
    MF_TRY_OUT(mf__new(&read[DFRAMES], g->device, a->dtype, 2, (int64_t[]){n, 12}));
    MF_TRY_OUT(mf__ipa_want(&a->dpair_value, g, PAIR_VALUE));
    a->attended = mf__data(g->saved[SAVED_ATTENDED]);
    a->dfeatures = mf__data(dout);
    a->v_square = mf__ipa_data(g->saved[SAVED_NORMS]);
    a->dattended = mf__data(read[DOUT]);
    a->delta = mf__ipa_data(read[DELTA]);
    a->dout_scale = mf__ipa_data(read[DOUT_SCALE]);
    a->dframes = mf__data(read[DFRAMES]);
    status = g->device->backend->readout_grad(g->device, a);
out:
    mf_tensor_release(dout);
    return status;
}

enum { DQ, DK, DV, DBIAS, LIFTED };
static mf_status run_attention_grad(const mf_ipa_args *a, mf_grad_call *g, mf_tensor **lifted) {
    const int64_t n = g->p->packing->total, H = a->heads;
    mf_attention_args attention = attention_of(a, (int)g->p->i[PRECISION], g->saved);
    MF_TRY(mf__new(&lifted[DQ], g->device, a->dtype, 3, (int64_t[]){n, H, a->dqk}));
    MF_TRY(mf__new(&lifted[DK], g->device, a->dtype, 3, (int64_t[]){n, H, a->dqk}));
    MF_TRY(mf__new(&lifted[DV], g->device, a->dtype, 3, (int64_t[]){n, H, a->dv}));
    MF_TRY(mf__new(&lifted[DBIAS], g->device, a->dtype, 2, (int64_t[]){n, H}));
    attention.dout = a->dattended;
    attention.delta = a->delta;
    attention.dout_scale = a->dout_scale;
    attention.dq = mf__data(lifted[DQ]);
    attention.dk = mf__data(lifted[DK]);
    attention.dv_ = mf__data(lifted[DV]);
    attention.dkey_bias = mf__data(lifted[DBIAS]);
    return g->device->backend->attention_grad(g->device, &attention);
}

static mf_status run_lift_grad(mf_ipa_args *a, mf_grad_call *g, mf_tensor *const *lifted) {
    MF_TRY(mf__ipa_want(&a->dq, g, Q));
    MF_TRY(mf__ipa_want(&a->dkv, g, KV));
    MF_TRY(mf__ipa_want(&a->dq_points, g, Q_POINTS));
    MF_TRY(mf__ipa_want(&a->dkv_points, g, KV_POINTS));
    MF_TRY(mf__ipa_want(&a->dpair_bias, g, PAIR_BIAS));
    MF_TRY(mf__ipa_want(&a->dhead_weights, g, HEAD_WEIGHTS));
    MF_TRY(mf__ipa_want(&a->dR, g, R));
    MF_TRY(mf__ipa_want(&a->dt, g, T));
    a->dq_lifted = mf__data(lifted[DQ]);
    a->dk_lifted = mf__data(lifted[DK]);
    a->dv_lifted = mf__data(lifted[DV]);
    a->dkey_bias = mf__data(lifted[DBIAS]);
    return g->device->backend->lift_grad(g->device, a);
}

mf_status mf__flash_ipa_bwd(mf_grad_call *g) {
    mf_tensor *x[INPUTS] = {NULL}, *read[READ] = {NULL}, *lifted[LIFTED] = {NULL};
    mf_ipa_args a;
    mf_status status;
    MF_TRY(sizes(&a, g->op->name, (const mf_tensor *const *)g->in, g->p));
    if (g->wanted[ATTENDED] || g->wanted[LSE])
        return mf__fail(MF_ESTATE, "%s: attended and lse are constants of a call before and have no gradient; detach them", g->op->name);
    MF_TRY_OUT(gather(x, (const mf_tensor *const *)g->in));
    a.q_points = mf__ipa_data(x[Q_POINTS]);
    a.kv_points = mf__ipa_data(x[KV_POINTS]);
    a.pair_value = mf__ipa_data(x[PAIR_VALUE]);
    a.head_weights = mf__ipa_data(x[HEAD_WEIGHTS]);
    a.frames = mf__data(g->saved[SAVED_FRAMES]);
    a.gauge_R = mf__ipa_data(g->saved[SAVED_GAUGE]);
    MF_TRY_OUT(run_readout_grad(&a, g, read));
    MF_TRY_OUT(run_attention_grad(&a, g, lifted));
    drop(read, DFRAMES);
    status = run_lift_grad(&a, g, lifted);
out:
    drop(x, INPUTS);
    drop(read, READ);
    drop(lifted, LIFTED);
    return status;
}

/* ---- public ---- */

static void list(const mf_tensor **in, mf_params *p, const mf_flash_ipa_inputs *x, const mf_packing *packing, const mf_flash_ipa_params *params) {
    const mf_tensor *const all[INPUTS] = {x->q, x->kv, x->q_points, x->kv_points, x->pair_bias, x->pair_value, x->head_weights, x->R, x->t,
                                          x->mask, x->attended, x->lse};
    for (int i = 0; i < INPUTS; i++) in[i] = all[i];
    *p = (mf_params){.f = {params->scale}, .packing = packing,
                     .i = {[HEADS] = params->heads, [GAUGE] = params->gauge, [PRECISION] = params->precision, [SPLIT] = params->split}};
}

mf_status mf_flash_ipa(mf_tensor **out, const mf_flash_ipa_inputs *inputs, const mf_packing *packing, const mf_flash_ipa_params *params) {
    const mf_tensor *in[INPUTS];
    mf_params p;
    list(in, &p, inputs, packing, params);
    return mf__run1(out, MF_OP_flash_ipa, in, INPUTS, &p);
}

mf_status mf_flash_ipa_attend(mf_tensor **out, mf_tensor **attended, mf_tensor **lse, const mf_flash_ipa_inputs *inputs, const mf_packing *packing,
                              const mf_flash_ipa_params *params) {
    const mf_tensor *in[INPUTS];
    mf_tensor *outs[3];
    mf_params p;
    list(in, &p, inputs, packing, params);
    mf_status status = mf__run(outs, 3, MF_OP_flash_ipa_attend, in, INPUTS, &p);
    *out = outs[0];
    *attended = outs[1];
    *lse = outs[2];
    return status;
}
