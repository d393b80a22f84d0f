/* lift.cu: from projections and frames to the columns of attention, and the adjoint (core/ipa/flash_ipa.c has the equations).
 *
 *   lift       q | T' q_p | b1,  scale k | gamma T' k_p | b2,  v | T' v_p | y2  in rows of ldq, ldq, ldv;  key_bias;  frames T' = G^-1 T
 *   lift_grad  dq, dkv, dq_points, dkv_points, db, dy2, dR, dt, dhead_weights; every result is written with '=', dR and dt from the sum
 *              of what readout_grad left in dframes and what comes here. G is a constant.
 *
 * Traffic   at the default widths a residue takes 15 KB in and 9 KB out (float16 operands), backward 20 KB in and 15 KB out; some
 *           5 operations a number: bound by bandwidth
 * Mapping   a block a residue at a time, a warp a head, through shared memory (ipa.cuh). The query, key and value points of a head are
 *           items of one loop over lanes: 28 of 32 at the default widths.
 * Numerics  frames and points in the tensor's type throughout: only what has become a column is rounded. Sums over points by
 *           shuffles, over heads in order; dgamma, a difference of large numbers, in double from its products on, in two stages: the
 *           residues of a block in order, then a tree over blocks.
 * Bitwise   deterministic: every sum's order follows from the sizes.
 * Refuses   2^31 elements a residue. */
#include "table.cuh"
#include "ipa.cuh"

enum { LIFT_BLOCKS = 4, LIFT_GRAD_BLOCKS = 3, SUM_THREADS = 1024 };   /* a multiprocessor, where they fit */

template <class R> struct lift_inputs {
    const R *q, *kv, *q_points, *kv_points, *pair_bias, *pair_value, *head_weights, *rotation, *origin, *gauge_R, *gauge_t;
    const unsigned char *mask;
    const int32_t *offsets;
};
template <class R, class T> struct lift_results {
    R *frames, *key_bias;
    float *v_square;              /* or NULL */
    T *q, *k, *v;
};

/* Column j of `width` of a query and a key; in halves hi hi lo against hi lo hi, `width` apart. `key` says which of the two. */
template <class R, class T> static __device__ __forceinline__ void put(T *to, bool key, int j, int width, R x, int kind) {
    if (!kind) {
        to[j] = mf__to<T>(x);
        return;
    }
    const R hi = mf__high(x, kind);
    const T high = mf__to<T>(hi), low = mf__to<T>(x - hi);
    to[j] = high;
    to[j + width] = key ? low : high;
    to[j + 2 * width] = key ? high : low;
}

/* Query points of head h, then key and value points: point `item` of them, coordinates outermost in memory. */
struct point_place {
    bool query;
    int count, at;
};
static __device__ __forceinline__ point_place point_of(const mf_ipa_sizes &s, int h, int item) {
    const int P = s.query_points, V = s.value_points;
    return item < P ? point_place{true, s.heads * P, h * P + item} : point_place{false, s.heads * (P + V), h * (P + V) + item - P};
}
template <class R>
static __device__ __forceinline__ void load_point(R *x, const mf_ipa_sizes &s, const R *q_points, const R *kv_points, int h, int item) {
    const point_place p = point_of(s, h, item);
    const R *from = (p.query ? q_points : kv_points) + p.at;
#pragma unroll
    for (int j = 0; j < 3; j++) x[j] = from[j * p.count];
}

template <class R> static __device__ __forceinline__ void place(R *to, const R *frame, const R *x) {
#pragma unroll
    for (int j = 0; j < 3; j++) to[j] = frame[3 * j] * x[0] + frame[3 * j + 1] * x[1] + frame[3 * j + 2] * x[2] + frame[9 + j];
}

/* Number j of G' R, G' (t - g). */
template <class R> static __device__ __forceinline__ R frame_number(const lift_inputs<R> &in, const R *r, const R *t, int sequence, int j) {
    const R *g = in.gauge_t ? in.gauge_t + 3 * (int64_t)sequence : nullptr;
    const R *G = in.gauge_R ? in.gauge_R + 9 * (int64_t)sequence : nullptr;
    if (j < 9) {
        const int row = j / 3, column = j % 3;
        return G ? G[row] * r[column] + G[3 + row] * r[3 + column] + G[6 + row] * r[6 + column] : r[j];
    }
    const R x[3] = {t[0] - (g ? g[0] : R(0)), t[1] - (g ? g[1] : R(0)), t[2] - (g ? g[2] : R(0))};
    return G ? G[j - 9] * x[0] + G[j - 6] * x[1] + G[j - 3] * x[2] : x[j - 9];
}

struct lift_rooms {
    int q, kv, q_points, kv_points, bias, value, rotation, origin, in; /* `in` twice, then results */
    int q_to, k_to, v_to;
};

template <class R, class T, bool STAGED>
static __global__ void __launch_bounds__(256, STAGED && sizeof(R) == 4 ? LIFT_BLOCKS : 1)
lift_kernel(mf_ipa_sizes s, lift_rooms at, int64_t n, lift_inputs<R> in, lift_results<R, T> out) {
    MF_SHARED(unsigned char, shared);
    __shared__ R frames[8][12];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, c = s.hidden, P = s.query_points, V = s.value_points;
    const int H = s.heads, items = 2 * P + V, pairs = s.rank * s.dz;
    R *frame = frames[warp];
    const auto fetch = [&](int64_t i, int buffer) {
        unsigned char *to = shared + buffer * at.in;
        mf__fetch(to + at.q, in.q + i * H * c, H * c);
        mf__fetch(to + at.kv, in.kv + i * H * 2 * c, H * 2 * c);
        mf__fetch(to + at.q_points, in.q_points + i * 3 * H * P, 3 * H * P);
        mf__fetch(to + at.kv_points, in.kv_points + i * 3 * H * (P + V), 3 * H * (P + V));
        mf__fetch(to + at.bias, in.pair_bias + i * 2 * s.rank * H, 2 * s.rank * H);
        mf__fetch(to + at.value, in.pair_value + (2 * i + 1) * pairs, pairs);
        mf__fetch(to + at.rotation, in.rotation + 9 * i, 9);
        mf__fetch(to + at.origin, in.origin + 3 * i, 3);
        mf__copy_commit();
    };
    if (STAGED) fetch(blockIdx.x, 0);
    int buffer = 0;
    for (int64_t i = blockIdx.x; i < n; i += gridDim.x, buffer ^= 1) {
        const bool masked = in.mask && !in.mask[i];
        const int sequence = in.gauge_t ? mf__sequence_of(in.offsets, s.sequences, i) : 0;
        if (STAGED) {
            mf__copy_wait<0>();
            __syncthreads();                                   /* this residue is there; of the one before nothing is in use */
            if (i + gridDim.x < n) fetch(i + gridDim.x, buffer ^ 1);
        }
        unsigned char *from = shared + buffer * at.in;
        const R *q_in = mf__room<STAGED>(from, at.q, in.q + i * H * c), *kv_in = mf__room<STAGED>(from, at.kv, in.kv + i * H * 2 * c);
        const R *qp = mf__room<STAGED>(from, at.q_points, in.q_points + i * 3 * H * P);
        const R *kvp = mf__room<STAGED>(from, at.kv_points, in.kv_points + i * 3 * H * (P + V));
        const R *b = mf__room<STAGED>(from, at.bias, in.pair_bias + i * 2 * s.rank * H);
        const R *y = mf__room<STAGED>(from, at.value, in.pair_value + (2 * i + 1) * pairs);
        T *q_rows = mf__room<STAGED>(shared, at.q_to, out.q + i * H * s.ldq), *k_rows = mf__room<STAGED>(shared, at.k_to, out.k + i * H * s.ldq);
        T *v_rows = mf__room<STAGED>(shared, at.v_to, out.v + i * H * s.ldv);
        if (lane < 12) {
            const R x = frame_number(in, mf__room<STAGED>(from, at.rotation, in.rotation + 9 * i),
                                     mf__room<STAGED>(from, at.origin, in.origin + 3 * i), sequence, lane);
            frame[lane] = x;
            if (warp == 0) out.frames[12 * i + lane] = x;
        }
        __syncwarp();
        for (int h = warp; h < H; h += warps) {
            T *q = q_rows + h * s.ldq, *k = k_rows + h * s.ldq, *v = v_rows + h * s.ldv;
            const R *kv = kv_in + h * 2 * c;
            const R gamma = mf__gamma(in.head_weights, h, P);
            mf__copy_rows<3, 4, T, R>({q, k, v}, {q_in + h * c, kv, kv + c}, {R(1), (R)s.scale, R(1)}, c);
            R square = 0;
            for (int item = lane; item < items; item += 32) {
                R given[3], x[3];
                load_point(given, s, qp, kvp, h, item);
                place(x, frame, given);
                if (item < P) {
#pragma unroll
                    for (int j = 0; j < 3; j++) put(q + c, false, 3 * item + j, 3 * P, x[j], s.split);
                } else if (item < 2 * P) {
#pragma unroll
                    for (int j = 0; j < 3; j++) {
                        square += x[j] * x[j];
                        put(k + c, true, 3 * (item - P) + j, 3 * P, gamma * x[j], s.split);
                    }
                } else {
                    const int p = item - 2 * P;
#pragma unroll
                    for (int j = 0; j < 3; j++) {
                        const R hi = s.split ? mf__high(x[j], s.split) : x[j];
                        v[c + 3 * p + j] = mf__to<T>(hi);
                        if (s.split) v[c + 3 * V + 3 * p + j] = mf__to<T>(x[j] - hi);
                    }
                }
            }
            square = mf__warp_sum(square);
            if (lane == 0) out.key_bias[i * H + h] = masked ? -(R)INFINITY : R(-0.5) * (gamma * square);
            for (int rho = lane; rho < s.rank; rho += 32) {
                put(q + c + s.points, false, rho, s.rank, b[rho * H + h], s.halves);
                put(k + c + s.points, true, rho, s.rank, b[(s.rank + rho) * H + h], s.halves);
            }
            for (int j = lane; j < pairs; j += 32) v[c + s.values + j] = mf__to<T>(y[j]);
            for (int j = s.dqk + lane; j < s.ldq; j += 32) q[j] = k[j] = mf__to<T>(0.0f);
            for (int j = s.dv + lane; j < s.ldv; j += 32) v[j] = mf__to<T>(j == s.dv ? 1.0f : 0.0f);   /* weights are summed there */
            if (!out.v_square) continue;
            __syncwarp();
            float norm = 0;
            for (int j = lane; j < s.dv; j += 32) {
                const float x = mf__to<float>(v[j]);
                norm += x * x;
            }
            norm = mf__warp_sum(norm);
            if (lane == 0) out.v_square[i * H + h] = norm;
        }
        if (!STAGED) continue;
        __syncthreads();
        mf__write_out(out.q + i * H * s.ldq, q_rows, H * s.ldq);
        mf__write_out(out.k + i * H * s.ldq, k_rows, H * s.ldq);
        mf__write_out(out.v + i * H * s.ldv, v_rows, H * s.ldv);
    }
}

/* ---- backward ---- */

template <class R> struct grad_inputs {
    const R *q_points, *kv_points, *head_weights, *frames, *dframes, *gauge_R, *dq_lifted, *dk_lifted, *dv_lifted, *dkey_bias;
    const int32_t *offsets;
};
template <class R> struct grad_results {
    R *dq, *dkv, *dq_points, *dkv_points, *dpair_bias, *dpair_value, *dR, *dt;
    double *part;                 /* dgamma of each block, (blocks, H) */
};

/* The adjoint of `place`: dx = R' g, its coordinates `count` apart; dR and dt join `sum`. */
template <class R> static __device__ __forceinline__ void pull(R *dx, int count, R *sum, const R *frame, const R *x, const R *g) {
#pragma unroll
    for (int j = 0; j < 3; j++) {
        if (dx) dx[j * count] = frame[j] * g[0] + frame[3 + j] * g[1] + frame[6 + j] * g[2];
#pragma unroll
        for (int k = 0; k < 3; k++) sum[3 * j + k] += g[j] * x[k];
        sum[9 + j] += g[j];
    }
}

/* The gradients of columns that point `item` of a head became: hi's alone where points are split. */
template <class R>
static __device__ __forceinline__ void load_columns(R *g, const mf_ipa_sizes &s, const R *dq, const R *dk, const R *dv, int item) {
    const int P = s.query_points, c = s.hidden;
    const R *from = item < P ? dq + c + 3 * item : item < 2 * P ? dk + c + 3 * (item - P) : dv + c + 3 * (item - 2 * P);
    const int again = item < P ? 3 * P : 6 * P;               /* where hi stands a second time, in q and in k */
#pragma unroll
    for (int j = 0; j < 3; j++) g[j] = from[j] + (s.split && item < 2 * P ? from[again + j] : R(0));
}

struct lift_grad_rooms {
    int first;                    /* after dgamma (H) */
    int dq, dk, dv, dbias, q_points, kv_points, frame, dframe, in;     /* `in` twice, then results */
    int dq_to, dkv_to, dq_points_to, dkv_points_to, dpair_bias_to;
};

template <class R, bool STAGED>
static __global__ void __launch_bounds__(256, STAGED && sizeof(R) == 4 ? LIFT_GRAD_BLOCKS : 1)
lift_grad_kernel(mf_ipa_sizes s, lift_grad_rooms at, int64_t n, grad_inputs<R> in, grad_results<R> out) {
    MF_SHARED(unsigned char, shared);
    __shared__ R sums[8][12], frame_sum[12];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, c = s.hidden, P = s.query_points, V = s.value_points;
    const int H = s.heads, items = 2 * P + V, pairs = s.rank * s.dz;
    double *dgamma = (double *)shared;                         /* (H), each written by the warp of its head */
    for (int h = (int)threadIdx.x; h < H; h += (int)blockDim.x) dgamma[h] = 0;
    const auto fetch = [&](int64_t i, int buffer) {
        unsigned char *to = shared + at.first + buffer * at.in;
        mf__fetch(to + at.dq, in.dq_lifted + i * H * s.dqk, H * s.dqk);
        mf__fetch(to + at.dk, in.dk_lifted + i * H * s.dqk, H * s.dqk);
        mf__fetch(to + at.dv, in.dv_lifted + i * H * s.dv, H * s.dv);
        mf__fetch(to + at.dbias, in.dkey_bias + i * H, H);
        mf__fetch(to + at.q_points, in.q_points + i * 3 * H * P, 3 * H * P);
        mf__fetch(to + at.kv_points, in.kv_points + i * 3 * H * (P + V), 3 * H * (P + V));
        mf__fetch(to + at.frame, in.frames + 12 * i, 12);
        mf__fetch(to + at.dframe, in.dframes + 12 * i, 12);
        mf__copy_commit();
    };
    if (STAGED) fetch(blockIdx.x, 0);
    int buffer = 0;
    for (int64_t i = blockIdx.x; i < n; i += gridDim.x, buffer ^= 1) {
        const int sequence = in.gauge_R ? mf__sequence_of(in.offsets, s.sequences, i) : 0;
        if (STAGED) mf__copy_wait<0>();
        __syncthreads();                                       /* this residue is there; of the one before nothing is in use */
        if (STAGED && i + gridDim.x < n) fetch(i + gridDim.x, buffer ^ 1);
        unsigned char *from = shared + at.first + buffer * at.in;
        const R *dq_in = mf__room<STAGED>(from, at.dq, in.dq_lifted + i * H * s.dqk);
        const R *dk_in = mf__room<STAGED>(from, at.dk, in.dk_lifted + i * H * s.dqk);
        const R *dv_in = mf__room<STAGED>(from, at.dv, in.dv_lifted + i * H * s.dv), *dbias = mf__room<STAGED>(from, at.dbias, in.dkey_bias + i * H);
        const R *qp = mf__room<STAGED>(from, at.q_points, in.q_points + i * 3 * H * P);
        const R *kvp = mf__room<STAGED>(from, at.kv_points, in.kv_points + i * 3 * H * (P + V));
        const R *frame = mf__room<STAGED>(from, at.frame, in.frames + 12 * i);
        R *dq_to = out.dq ? mf__room<STAGED>(shared, at.dq_to, out.dq + i * H * c) : nullptr;
        R *dkv_to = out.dkv ? mf__room<STAGED>(shared, at.dkv_to, out.dkv + i * H * 2 * c) : nullptr;
        R *dqp = out.dq_points ? mf__room<STAGED>(shared, at.dq_points_to, out.dq_points + i * 3 * H * P) : nullptr;
        R *dkvp = out.dkv_points ? mf__room<STAGED>(shared, at.dkv_points_to, out.dkv_points + i * 3 * H * (P + V)) : nullptr;
        R *db_to = out.dpair_bias ? mf__room<STAGED>(shared, at.dpair_bias_to, out.dpair_bias + i * 2 * s.rank * H) : nullptr;
        R sum[12] = {};
        for (int h = warp; h < H; h += warps) {
            const R *dq = dq_in + h * s.dqk, *dk = dk_in + h * s.dqk, *dv = dv_in + h * s.dv;
            const R gamma = mf__gamma(in.head_weights, h, P), bias = dbias[h];
            R *dkv = dkv_to ? dkv_to + h * 2 * c : nullptr;
            mf__copy_rows<3, 2, R, R>({dq_to ? dq_to + h * c : nullptr, dkv, dkv ? dkv + c : nullptr}, {dq, dk, dv}, {R(1), (R)s.scale, R(1)}, c);
            double along = 0;
            for (int item = lane; item < items; item += 32) {
                R g[3], x[3];
                load_point(x, s, qp, kvp, h, item);
                load_columns(g, s, dq, dk, dv, item);
                if (item >= P && item < 2 * P) {
                    R placed[3];
                    place(placed, frame, x);
#pragma unroll
                    for (int j = 0; j < 3; j++) {
                        along += (double)(g[j] * placed[j]) - 0.5 * (double)(bias * placed[j] * placed[j]);
                        g[j] = gamma * (g[j] - bias * placed[j]);
                    }
                }
                const point_place p = point_of(s, h, item);
                R *dx = p.query ? dqp : dkvp;
                pull(dx ? dx + p.at : nullptr, p.count, sum, frame, x, g);
            }
            along = mf__warp_sum(along);
            if (lane == 0) dgamma[h] += along;
            for (int rho = lane; db_to && rho < s.rank; rho += 32) {
                const R *to_q = dq + c + s.points + rho, *to_k = dk + c + s.points + rho;
                db_to[rho * H + h] = to_q[0] + (s.halves ? to_q[s.rank] : R(0));
                db_to[(s.rank + rho) * H + h] = to_k[0] + (s.halves ? to_k[2 * s.rank] : R(0));
            }
        }
#pragma unroll
        for (int j = 0; j < 12; j++) {
            const R total = mf__warp_sum(sum[j]);
            if (lane == 0) sums[warp][j] = total;
        }
        for (int j = (int)threadIdx.x; out.dpair_value && j < pairs; j += (int)blockDim.x) {
            const R *dv = dv_in + c + s.values + j;
            R total = 0;
            for (int h = 0; h < H; h++) total += dv[h * s.dv];
            out.dpair_value[(2 * i + 1) * pairs + j] = total;
        }
        __syncthreads();
        if (STAGED) {
            if (dq_to) mf__write_out(out.dq + i * H * c, dq_to, H * c);
            if (dkv_to) mf__write_out(out.dkv + i * H * 2 * c, dkv_to, H * 2 * c);
            if (dqp) mf__write_out(out.dq_points + i * 3 * H * P, dqp, 3 * H * P);
            if (dkvp) mf__write_out(out.dkv_points + i * 3 * H * (P + V), dkvp, 3 * H * (P + V));
            if (db_to) mf__write_out(out.dpair_bias + i * 2 * s.rank * H, db_to, 2 * s.rank * H);
        }
        if (warp == 0) {
            if (lane < 12) {
                R total = mf__room<STAGED>(from, at.dframe, in.dframes + 12 * i)[lane];
                for (int w = 0; w < warps; w++) total += sums[w][lane];
                frame_sum[lane] = total;
            }
            __syncwarp();
            if (lane < 12) {      /* G dR', G dt' */
                const int row = lane < 9 ? lane / 3 : lane - 9, column = lane < 9 ? lane % 3 : 9, step = lane < 9 ? 3 : 1;
                const R *G = in.gauge_R ? in.gauge_R + 9 * (int64_t)sequence + 3 * row : nullptr;
                const R total = G ? G[0] * frame_sum[column] + G[1] * frame_sum[column + step] + G[2] * frame_sum[column + 2 * step]
                                  : frame_sum[lane];
                if (lane < 9 && out.dR) out.dR[9 * i + lane] = total;
                if (lane >= 9 && out.dt) out.dt[3 * i + lane - 9] = total;
            }
        }
    }
    __syncthreads();
    for (int h = (int)threadIdx.x; out.part && h < H; h += (int)blockDim.x) out.part[(int64_t)blockIdx.x * H + h] = dgamma[h];
}

/* A block a head: dw = sigmoid(w) sqrt(1 / (3 P 9/2)) sum of the blocks' dgamma. */
template <class R>
static __global__ void __launch_bounds__(SUM_THREADS) head_weights_kernel(int heads, int query_points, int blocks, const double *part, const R *w, R *dw) {
    __shared__ double slots[32];
    const int h = (int)blockIdx.x;
    double total = 0;
    for (int j = (int)threadIdx.x; j < blocks; j += SUM_THREADS) total += part[(int64_t)j * heads + h];
    total = mf__block_sum(total, slots);
    if (threadIdx.x == 0) dw[h] = (R)(total * mf__gamma_factor<double>(query_points) / (1 + exp(-(double)w[h])));
}

/* ---- launchers ---- */

template <class R, class T> static mf_status launch_lift(mf_device *d, const mf_ipa_sizes &s, const mf_ipa_args *a, const int32_t *offsets) {
    const lift_inputs<R> in = {(const R *)a->q, (const R *)a->kv, (const R *)a->q_points, (const R *)a->kv_points, (const R *)a->pair_bias,
                               (const R *)a->pair_value, (const R *)a->head_weights, (const R *)a->R, (const R *)a->t, (const R *)a->gauge_R,
                               (const R *)a->gauge_t, a->mask, offsets};
    const lift_results<R, T> out = {(R *)a->frames, (R *)a->key_bias, (float *)a->v_square, (T *)a->q_lifted, (T *)a->k_lifted, (T *)a->v_lifted};
    const int64_t rows = a->heads * (2 * a->ldq + a->ldv), read = a->heads * (3 * a->hidden + 6 * a->query_points + 3 * a->value_points);
    mf__cuda_work(d, 6.0 * (double)(a->packing->total * rows),
                  (double)a->packing->total * (double)(rows * (int64_t)sizeof(T) + read * (int64_t)sizeof(R)));
    constexpr int size = (int)sizeof(R);
    mf_rooms r;
    lift_rooms at;
    at.q = r.add(s.heads * s.hidden, size);
    at.kv = r.add(s.heads * 2 * s.hidden, size);
    at.q_points = r.add(3 * s.heads * s.query_points, size);
    at.kv_points = r.add(3 * s.heads * (s.query_points + s.value_points), size);
    at.bias = r.add(2 * s.rank * s.heads, size);
    at.value = r.add(s.rank * s.dz, size);
    at.rotation = r.add(9, size);
    at.origin = r.add(3, size);
    at.in = (int)r.bytes;
    r.bytes *= 2;
    at.q_to = r.add(s.heads * s.ldq, (int)sizeof(T));
    at.k_to = r.add(s.heads * s.ldq, (int)sizeof(T));
    at.v_to = r.add(s.heads * s.ldv, (int)sizeof(T));
    const unsigned blocks = mf__ipa_blocks(d, a->packing->total, r.bytes, LIFT_BLOCKS), threads = mf__ipa_threads(a);
    if (r.bytes + 1024 <= mf__cuda(d)->shared_limit)
        return MF_LAUNCH(d, (lift_kernel<R, T, true>), blocks, threads, r.bytes, s, at, a->packing->total, in, out);
    return MF_LAUNCH(d, (lift_kernel<R, T, false>), (unsigned)a->packing->total, threads, 0, s, at, a->packing->total, in, out);
}

mf_status mf__cuda_lift(mf_device *d, const mf_ipa_args *a) {
    mf_ipa_sizes s{};
    mf_status status;
    MF_TRY(mf__ipa_sizes(&s, "lift", a));
    const int32_t *offsets = mf__cuda_offsets(d, a->packing, &status);
    MF_TRY(status);
    if (a->dtype == MF_FLOAT64) return launch_lift<double, double>(d, s, a, offsets);
    if (a->operand == MF_FLOAT16) return launch_lift<float, __half>(d, s, a, offsets);
    if (a->operand == MF_BFLOAT16) return launch_lift<float, __nv_bfloat16>(d, s, a, offsets);
    return launch_lift<float, float>(d, s, a, offsets);
}

template <class R> static mf_status launch_grad(mf_device *d, const mf_ipa_sizes &s, const mf_ipa_args *a, const int32_t *offsets) {
    const int64_t n = a->packing->total;
    constexpr int size = (int)sizeof(R);
    mf_rooms r;
    lift_grad_rooms at;
    r.add(s.heads, (int)sizeof(double));
    at.first = (int)r.bytes;
    r.bytes = 0;
    at.dq = r.add(s.heads * s.dqk, size);
    at.dk = r.add(s.heads * s.dqk, size);
    at.dv = r.add(s.heads * s.dv, size);
    at.dbias = r.add(s.heads, size);
    at.q_points = r.add(3 * s.heads * s.query_points, size);
    at.kv_points = r.add(3 * s.heads * (s.query_points + s.value_points), size);
    at.frame = r.add(12, size);
    at.dframe = r.add(12, size);
    at.in = (int)r.bytes;
    r.bytes = at.first + 2 * r.bytes;
    at.dq_to = r.add(s.heads * s.hidden, size);
    at.dkv_to = r.add(s.heads * 2 * s.hidden, size);
    at.dq_points_to = r.add(3 * s.heads * s.query_points, size);
    at.dkv_points_to = r.add(3 * s.heads * (s.query_points + s.value_points), size);
    at.dpair_bias_to = r.add(2 * s.rank * s.heads, size);
    const bool staged = r.bytes + 1024 <= mf__cuda(d)->shared_limit;
    const int64_t shared = staged ? r.bytes : at.first;
    const unsigned blocks = mf__ipa_blocks(d, n, shared, LIFT_GRAD_BLOCKS), threads = mf__ipa_threads(a);
    mf_scratch part;
    if (a->dhead_weights) MF_TRY(part.take(d, blocks * a->heads * (int64_t)sizeof(double)));
    const grad_inputs<R> in = {(const R *)a->q_points, (const R *)a->kv_points, (const R *)a->head_weights, (const R *)a->frames,
                               (const R *)a->dframes, (const R *)a->gauge_R, (const R *)a->dq_lifted, (const R *)a->dk_lifted,
                               (const R *)a->dv_lifted, (const R *)a->dkey_bias, offsets};
    const grad_results<R> out = {(R *)a->dq, (R *)a->dkv, (R *)a->dq_points, (R *)a->dkv_points, (R *)a->dpair_bias, (R *)a->dpair_value,
                                 (R *)a->dR, (R *)a->dt, part.as<double>()};
    const int64_t moved = a->heads * (2 * a->dqk + a->dv + 3 * a->hidden + 12 * a->query_points + 6 * a->value_points);
    mf__cuda_work(d, 8.0 * (double)(n * moved), (double)(n * moved) * (double)sizeof(R));
    MF_TRY(staged ? MF_LAUNCH(d, (lift_grad_kernel<R, true>), blocks, threads, shared, s, at, n, in, out)
                  : MF_LAUNCH(d, (lift_grad_kernel<R, false>), blocks, threads, shared, s, at, n, in, out));
    if (!a->dhead_weights) return MF_OK;
    return MF_LAUNCH(d, head_weights_kernel<R>, (unsigned)a->heads, SUM_THREADS, 0, s.heads, s.query_points, (int)blocks, part.as<double>(),
                     (const R *)a->head_weights, (R *)a->dhead_weights);
}

mf_status mf__cuda_lift_grad(mf_device *d, const mf_ipa_args *a) {
    mf_ipa_sizes s{};
    mf_status status;
    MF_TRY(mf__ipa_sizes(&s, "lift_grad", a));
    const int32_t *offsets = mf__cuda_offsets(d, a->packing, &status);
    MF_TRY(status);
    MF_DISPATCH_REAL(a->dtype, R, return launch_grad<R>(d, s, a, offsets));
}
