/* attention_exact.cu: packed attention in float32 or float64 on ordinary arithmetic, forward and backward, never L x L.
 *
 *   S = q k' + key_bias,  lse = log sum exp S,  P = exp(S - lse),  out = P v             per sequence and head
 *   dP = dout v',  dS = P (dP - delta),  dv = P' dout,  dq = dS k,  dk = dS' q,  dkey_bias = column sums of dS
 *
 * Shapes    q, k (N, H, dqk), v, dout, out (N, H, dv), key_bias, lse, delta (N, H); any widths
 * Work      forward 2 L^2 H (dqk + dv), backward 2 L^2 H (5 dqk + 3 dv): S three times, dP twice, and the three products
 * Traffic   a block reads all of the other axis for its 64 rows: 15 operations a byte in float32, out of the second cache
 * Mapping   a block owns 64 queries (forward, dq) or 64 keys (dk, dv) of one head and walks the other axis in tiles of 128 (float64: 64);
 *           attention.cuh says who holds what. Widths over 256 are cut into pieces, one block each, which make S again
 * Numerics  everything in the real type, float32 summed in stages (32 channels, a tile of keys); the softmax keeps a running maximum.
 *           Float64 with precision fp16 or bf16 rounds what a matrix unit would take (q, k, v, P, dout, dS), as the CPU does; tf32 does
 *           not round: ordinary arithmetic is exact and no slower
 * Order     fixed by the lengths: bitwise repeatable; every gradient is written once, with '='
 * Refuses   nothing */
#include "attention.cuh"

enum { GRAD_Q, GRAD_K, GRAD_V, GRADS };

template <class R> struct exact_args : mf_tile_inputs<R> {
    int precision;
    R *out, *lse;                 /* forward */
    int groups;                   /* of the pieces of out */
    const R *lse_in, *dout, *delta;
    const float *scale;
    R *gradient[GRADS], *dkey_bias;
    int64_t blocks[GRADS];        /* of this launch; 0: not in it */
    int piece_groups;             /* of all of them */
};

/* An operand as a matrix unit would take it, times a power of two. */
template <class R> struct rounding {
    int precision;
    R scale;
    __device__ R operator()(R x) const {
        if constexpr (std::is_same_v<R, double>) {
            if (precision == MF_FP16) return mf__to<double>(mf__to<__half>(scale * x));
            if (precision == MF_BF16) return mf__to<double>(mf__to<__nv_bfloat16>(scale * x));
            return scale * x;
        } else {
            return x;
        }
    }
};

/* The block's areas of shared memory; `exchange` is for the two warps that share a row, `totals` what a thread sums over tiles. */
template <class R, int NC> struct areas {
    using tile = mf_tile<R>;
    static constexpr int most = NC > tile::groups ? NC : tile::groups;
    static constexpr int t = tile::columns * tile::stride, left = 2 * tile::depth * tile::stride,
                         right = 2 * tile::depth * mf__wide_stride<most>, exchange = 128;
    static constexpr int totals = sizeof(R) == 4 ? 16 * NC * tile::threads : 0;
    static constexpr int64_t bytes = (int64_t)(t + left + right + exchange + totals) * (int64_t)sizeof(R);
};

/* The sum of each of a thread's four rows over the threads that share it. */
template <class R, class F> static __device__ inline void combine_rows(R (&x)[4], R *exchange, F combine) {
    const int row = 4 * mf__tile_y(), half = (int)(threadIdx.x >> 5 & 1) * 64;
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int step = 1; step < 8; step <<= 1) x[i] = combine(x[i], __shfl_xor_sync(0xffffffffu, x[i], step));
        if ((threadIdx.x & 7) == 0) exchange[half + row + i] = x[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = combine(exchange[row + i], exchange[64 + row + i]);
}

/* Column j of group g of a tile of scores goes to row 64 g + 4 tx + j of `t`, which has the tile's rows side by side. */
template <class R> static __device__ inline void put_column(R *t, int column, const R (&x)[4]) {
    mf_quad<R> quad;
#pragma unroll
    for (int i = 0; i < 4; i++) quad.x[i] = x[i];
    *(mf_quad<R> *)(t + (int64_t)column * mf_tile<R>::stride + 4 * mf__tile_y()) = quad;
}

/* float: a tile's products are summed from 0 and then added to what the tiles before gave, times `again`: over a long sequence rounding
 * grows with the number of tiles, not of keys. Each thread has slots of its own, so nobody waits. */
template <class R, int N> static __device__ inline void add_tile(R (&acc)[4][N], R *totals, const R (&again)[4], bool first, bool last) {
    if constexpr (sizeof(R) == 4) {
        if (first && last) return;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int c = 0; c < N; c++) {
                R *total = totals + (i * N + c) * mf_tile<R>::threads + threadIdx.x;
                const R sum = first ? acc[i][c] : *total * again[i] + acc[i][c];
                if (!last) *total = sum;
                acc[i][c] = last ? sum : R(0);
            }
    }
}

template <class R, int NC> static __global__ void __launch_bounds__(256) exact_forward_kernel(exact_args<R> p) {
    using tile = mf_tile<R>;
    constexpr int G = tile::groups;
    MF_SHARED(R, shared);
    R *t = shared, *left = t + areas<R, NC>::t, *right = left + areas<R, NC>::left, *exchange = right + areas<R, NC>::right;
    R *totals = exchange + areas<R, NC>::exchange;
    mf_tile_place at;
    if (!mf__tile_find(&at, p.offsets, p.sequences, (int64_t)blockIdx.x % p.tiles)) return;
    const int64_t rest = (int64_t)blockIdx.x / p.tiles;
    const int head = (int)(rest % p.heads), piece = (int)(rest / p.heads), c0 = piece * 64 * NC;
    const int row = 4 * mf__tile_y(), column = 4 * mf__tile_x(), width = p.dv - c0 < 64 * NC ? p.dv - c0 : 64 * NC;
    const int64_t qk_stride = (int64_t)p.heads * p.dqk, v_stride = (int64_t)p.heads * p.dv;
    const R *q = p.q + (at.first + at.start) * qk_stride + head * p.dqk, *k = p.k + at.first * qk_stride + head * p.dqk;
    const R *v = p.v + at.first * v_stride + head * p.dv + c0, *bias = p.key_bias ? p.key_bias + at.first * p.heads + head : nullptr;
    const rounding<R> as_operand = {p.precision, R(1)};
    constexpr bool staged = sizeof(R) == 4;
    R acc[4][4 * NC] = {}, most[4], sum[4] = {}, again[4];
#pragma unroll
    for (int i = 0; i < 4; i++) most[i] = -(R)INFINITY;
    for (int64_t n0 = 0; n0 < at.length; n0 += tile::columns) {
        const int64_t keys = at.length - n0;
        R s[4][4 * G] = {}, top[4];
        mf__tile_scores<G>(s, q, qk_stride, at.length - at.start, as_operand, k + n0 * qk_stride, qk_stride, keys, as_operand, p.dqk, left, right);
#pragma unroll
        for (int c = 0; c < 4 * G; c++) {
            const int n = 64 * (c / 4) + column + c % 4;
            const R b = n >= keys ? -(R)INFINITY : bias ? bias[(n0 + n) * p.heads] : R(0);
#pragma unroll
            for (int i = 0; i < 4; i++) s[i][c] = n < keys ? s[i][c] + b : b;
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            top[i] = most[i];
#pragma unroll
            for (int c = 0; c < 4 * G; c++) top[i] = s[i][c] > top[i] ? s[i][c] : top[i];   /* passes NaN over */
        }
        combine_rows(top, exchange, [](R a, R b) { return a > b ? a : b; });
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const R base = top[i] == -(R)INFINITY ? R(0) : top[i];      /* all masked so far: exp(-inf - 0) = 0 and no NaN */
            again[i] = mf__exponential(most[i] - base);
            sum[i] *= again[i];
            most[i] = top[i];
#pragma unroll
            for (int c = 0; !staged && c < 4 * NC; c++) acc[i][c] *= again[i];
#pragma unroll
            for (int c = 0; c < 4 * G; c++) {
                s[i][c] = as_operand(mf__exponential(s[i][c] - base));      /* the sum is of what is multiplied: weights add up to one */
                sum[i] += s[i][c];
            }
        }
#pragma unroll
        for (int c = 0; c < 4 * G; c++) {
            const R x[4] = {s[0][c], s[1][c], s[2][c], s[3][c]};
            put_column(t, 64 * (c / 4) + column + c % 4, x);
        }
        mf__tile_gather<NC>(acc, t, v + n0 * v_stride, v_stride, (int)(keys < tile::columns ? keys : tile::columns), width, as_operand, right);
        add_tile(acc, totals, again, n0 == 0, keys <= tile::columns);
    }
    combine_rows(sum, exchange, [](R a, R b) { return a + b; });
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t m = at.start + row + i;
        if (m >= at.length) continue;
        const R scale = sum[i] == 0 ? R(0) : 1 / sum[i];
        R *out = p.out + (at.first + m) * v_stride + head * p.dv + c0;
#pragma unroll
        for (int c = 0; c < 4 * NC; c++) {
            const int to = 64 * (c / 4) + column + c % 4;
            if (to < width) out[to] = sum[i] == 0 ? R(0) : acc[i][c] * scale;   /* no key: zeros, also where a masked value was infinite */
        }
        if (piece == 0 && column == 0)
            p.lse[(at.first + m) * p.heads + head] = sum[i] == 0 ? -(R)INFINITY : most[i] + (R)log((double)sum[i]);
    }
}

/* One gradient of 64 rows: of queries (dq) against all keys, or of keys (dk with dkey_bias, or dv) against all queries. */
template <class R, int NC> static __global__ void __launch_bounds__(256) exact_grad_kernel(exact_args<R> p) {
    using tile = mf_tile<R>;
    constexpr int G = tile::groups;
    MF_SHARED(R, shared);
    R *t = shared, *left = t + areas<R, NC>::t, *right = left + areas<R, NC>::left, *exchange = right + areas<R, NC>::right;
    R *totals = exchange + areas<R, NC>::exchange;
    int64_t block = blockIdx.x;
    int kind = 0;
    while (block >= p.blocks[kind]) block -= p.blocks[kind++];
    mf_tile_place at;
    if (!mf__tile_find(&at, p.offsets, p.sequences, block % p.tiles)) return;
    const int head = (int)(block / p.tiles % p.heads), piece = (int)(block / p.tiles / p.heads), c0 = piece * 64 * NC;
    const bool queries = kind == GRAD_Q;
    const int row = 4 * mf__tile_y(), column = 4 * mf__tile_x();
    const int whole = kind == GRAD_V ? p.dv : p.dqk, width = whole - c0 < 64 * NC ? whole - c0 : 64 * NC;
    const int64_t qk_stride = (int64_t)p.heads * p.dqk, v_stride = (int64_t)p.heads * p.dv, x_stride = kind == GRAD_V ? v_stride : qk_stride;
    const int64_t qk_first = at.first * qk_stride + head * p.dqk, v_first = at.first * v_stride + head * p.dv, first = at.first * p.heads + head;
    const R scale = p.scale ? (R)*p.scale : R(1), weight_scale = p.precision == MF_FP16 ? R(32768) : R(1);
    const rounding<R> as_operand = {p.precision, R(1)}, as_dout = {p.precision, scale}, as_weight = {p.precision, weight_scale};
    const R *own = (queries ? p.q : p.k) + qk_first + at.start * qk_stride, *other = (queries ? p.k : p.q) + qk_first;
    const R *own_v = (queries ? p.dout : p.v) + v_first + at.start * v_stride, *other_v = (queries ? p.v : p.dout) + v_first;
    const R *x = queries ? p.k + qk_first + c0 : kind == GRAD_K ? p.q + qk_first + c0 : p.dout + v_first + c0;
    R *to = p.gradient[kind];
    /* of the block's own rows: bias of a key, or lse (taken with its sign) and delta of a query */
    R acc[4][4 * NC] = {}, own_term[4], own_delta[4], bias_sum[4] = {};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t m = at.start + row + i;
        const bool inside = m < at.length;
        own_delta[i] = queries && inside ? p.delta[first + m * p.heads] : R(0);
        if (!queries) own_term[i] = inside && p.key_bias ? p.key_bias[first + m * p.heads] : R(0);
        else own_term[i] = inside ? -p.lse_in[first + m * p.heads] : R(0);
        if (queries && own_term[i] == (R)INFINITY) own_term[i] = -(R)INFINITY;      /* a query without keys: exp(s - inf) = 0 */
    }
    for (int64_t n0 = 0; n0 < at.length; n0 += tile::columns) {
        const int64_t there = at.length - n0;
        R s[4][4 * G] = {};
        mf__tile_scores<G>(s, own, qk_stride, at.length - at.start, as_operand, other + n0 * qk_stride, qk_stride, there, as_operand, p.dqk,
                           left, right);
#pragma unroll
        for (int c = 0; c < 4 * G; c++) {
            const int64_t n = 64 * (c / 4) + column + c % 4;
            R term = 0;
            if (n < there && queries) term = p.key_bias ? p.key_bias[first + (n0 + n) * p.heads] : R(0);
            else if (n < there) term = -p.lse_in[first + (n0 + n) * p.heads];
            if (!queries && term == (R)INFINITY) term = -(R)INFINITY;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                /* as the CPU adds: the bias first */
                const R score = queries ? s[i][c] + term + own_term[i] : s[i][c] + own_term[i] + term;
                s[i][c] = n < there ? mf__exponential(score) : R(0);
            }
        }
        if (kind != GRAD_V) {
            R ds[4][4 * G] = {};
            if (queries)
                mf__tile_scores<G>(ds, own_v, v_stride, at.length - at.start, as_dout, other_v + n0 * v_stride, v_stride, there, as_operand,
                                   p.dv, left, right);
            else
                mf__tile_scores<G>(ds, own_v, v_stride, at.length - at.start, as_operand, other_v + n0 * v_stride, v_stride, there, as_dout,
                                   p.dv, left, right);
#pragma unroll
            for (int c = 0; c < 4 * G; c++) {
                const int64_t n = 64 * (c / 4) + column + c % 4;
                const R delta = !queries && n < there ? p.delta[first + (n0 + n) * p.heads] : R(0);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    s[i][c] *= ds[i][c] - (queries ? own_delta[i] : delta);
                    bias_sum[i] += s[i][c];
                    s[i][c] = as_operand(s[i][c]);
                }
            }
        } else if (std::is_same_v<R, double>) {
#pragma unroll
            for (int c = 0; c < 4 * G; c++)
#pragma unroll
                for (int i = 0; i < 4; i++) s[i][c] = as_weight(s[i][c]);
        }
        if (!to) continue;                     /* only the bias */
#pragma unroll
        for (int c = 0; c < 4 * G; c++) {
            const R values[4] = {s[0][c], s[1][c], s[2][c], s[3][c]};
            put_column(t, 64 * (c / 4) + column + c % 4, values);
        }
        const int rows = (int)(there < tile::columns ? there : tile::columns);
        if (kind == GRAD_V) mf__tile_gather<NC>(acc, t, x + n0 * x_stride, x_stride, rows, width, as_dout, right);
        else mf__tile_gather<NC>(acc, t, x + n0 * x_stride, x_stride, rows, width, as_operand, right);
        const R again[4] = {1, 1, 1, 1};
        add_tile(acc, totals, again, n0 == 0, there <= tile::columns);
    }
    const R back = kind == GRAD_V ? 1 / scale / weight_scale : 1 / scale;
    const bool bias = kind == GRAD_K && p.dkey_bias && piece == 0;
    if (bias) combine_rows(bias_sum, exchange, [](R a, R b) { return a + b; });
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t m = at.start + row + i;
        if (m >= at.length) continue;
        if (bias && column == 0) p.dkey_bias[first + m * p.heads] = bias_sum[i] / scale;
        if (!to) continue;
        R *there = to + (at.first + m) * x_stride + (int64_t)head * whole + c0;
#pragma unroll
        for (int c = 0; c < 4 * NC; c++)
            if (64 * (c / 4) + column + c % 4 < width) there[64 * (c / 4) + column + c % 4] = acc[i][c] * back;
    }
}

/* ---- launchers ---- */

template <class R> static mf_status common(exact_args<R> *p, mf_device *d, const mf_attention_args *a) {
    *p = {};
    p->precision = a->precision;
    return p->fill(d, a);
}

template <class R, int NC> static mf_status forward(mf_device *d, const exact_args<R> &p, int64_t blocks) {
    return MF_LAUNCH(d, (exact_forward_kernel<R, NC>), (unsigned)blocks, 256, (areas<R, NC>::bytes), p);
}
template <class R, int NC> static mf_status grad(mf_device *d, const exact_args<R> &p, int64_t blocks) {
    return MF_LAUNCH(d, (exact_grad_kernel<R, NC>), (unsigned)blocks, 256, (areas<R, NC>::bytes), p);
}
#define BY_GROUPS(function, groups, ...)                                  \
    ((groups) == 1 ? function<R, 1>(__VA_ARGS__) : (groups) == 2 ? function<R, 2>(__VA_ARGS__) \
     : (groups) == 3 ? function<R, 3>(__VA_ARGS__) : function<R, 4>(__VA_ARGS__))

/* The most columns that a block may make: 256, or 128 where shared memory is small. */
template <class R> static int most_columns(const mf_device *d) { return mf__cuda(d)->shared_limit >= areas<R, 4>::bytes ? 256 : 128; }

template <class R> static mf_status run_forward(mf_device *d, const mf_attention_args *a) {
    exact_args<R> p;
    MF_TRY(common(&p, d, a));
    p.out = (R *)a->out;
    p.lse = (R *)a->lse;
    const mf_pieces pieces = mf__pieces(a->dv, most_columns<R>(d));
    const double pairs = (double)a->packing->pairs * (double)a->heads, rows = (double)a->packing->total * (double)a->heads;
    mf__cuda_work(d, 2 * pairs * (double)(pieces.count * a->dqk + a->dv), rows * (double)(2 * a->dqk + 2 * a->dv + 2) * sizeof(R), mf__unit_of(a));
    return BY_GROUPS(forward, pieces.groups, d, p, p.tiles * a->heads * pieces.count);
}

template <class R> static mf_status run_grad(mf_device *d, const mf_attention_args *a, const void *delta, const float *scale) {
    exact_args<R> p;
    MF_TRY(common(&p, d, a));
    p.lse_in = (const R *)a->lse;
    p.dout = (const R *)a->dout;
    p.delta = (const R *)delta;
    p.scale = scale;
    p.gradient[GRAD_Q] = (R *)a->dq;
    p.gradient[GRAD_K] = (R *)a->dk;
    p.gradient[GRAD_V] = (R *)a->dv_;
    p.dkey_bias = (R *)a->dkey_bias;
    const int64_t width[GRADS] = {a->dqk, a->dk ? a->dqk : 0, a->dv};
    const bool wanted[GRADS] = {a->dq != nullptr, a->dk || a->dkey_bias, a->dv_ != nullptr};
    const double pairs = (double)a->packing->pairs * (double)a->heads, rows = (double)a->packing->total * (double)a->heads;
    /* gradients whose pieces have as many groups go in one launch */
    for (int groups = 1; groups <= 4; groups++) {
        int64_t blocks = 0;
        double operations = 0;
        for (int kind = 0; kind < GRADS; kind++) {
            const mf_pieces pieces = mf__pieces(width[kind], most_columns<R>(d));
            p.blocks[kind] = wanted[kind] && pieces.groups == groups ? p.tiles * a->heads * pieces.count : 0;
            blocks += p.blocks[kind];
            if (p.blocks[kind]) operations += pairs * 2 * (double)(pieces.count * (a->dqk + (kind == GRAD_V ? 0 : a->dv)) + width[kind]);
        }
        if (!blocks) continue;
        mf__cuda_work(d, operations, rows * (double)(3 * a->dqk + 3 * a->dv + 4) * sizeof(R), mf__unit_of(a));
        MF_TRY(BY_GROUPS(grad, groups, d, p, blocks));
    }
    return MF_OK;
}

mf_status mf__cuda_attention_exact(mf_device *d, const mf_attention_args *a) {
    return a->dtype == MF_FLOAT64 ? run_forward<double>(d, a) : run_forward<float>(d, a);
}
mf_status mf__cuda_attention_exact_grad(mf_device *d, const mf_attention_args *a, const void *delta, const float *scale) {
    return a->dtype == MF_FLOAT64 ? run_grad<double>(d, a, delta, scale) : run_grad<float>(d, a, delta, scale);
}
