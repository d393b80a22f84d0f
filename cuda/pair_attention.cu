/* pair_attention.cu: attention with dense pairs, forward and backward: the quadratic IPA's inner part, in float32 or float64.
 *
 *   S_ij^h = q_i^h k_j^h + key_bias_j^h + pair_bias_ij^h,  P = softmax_j S
 *   out_i^h = sum_j P_ij^h v_j^h,    pair_out_i^h = sum_j P_ij^h pair_value_ij
 *   dP_ij^h = dout_i^h v_j^h + dpair_out_i^h pair_value_ij,  delta_i^h = dout out + dpair_out pair_out
 *   dS = P (dP - delta) = dpair_bias,  dq = dS k,  dk = dS' q,  dv = P' dout,  dpair_value_ij = sum_h P_ij^h dpair_out_i^h
 *
 * Shapes    pairs (P, H) and (P, dz) as given: pair (i, j) of a sequence of L is row i L + j after its first
 * Kernels   three each way, over scratch of (P, H), which is small beside pair_value, laid out [sequence][head][i][j]:
 *             scores    tiles of S = q k' + key_bias, and backward of dout v'
 *             rows      a block owns query i with all heads: adds pair_bias, softmax, and everything that touches pairs, so that
 *                       pair_value is read once and dpair_value and dpair_bias are written once
 *             products  out; or dq, dk with dkey_bias, dv: tiles of 64 rows, sums along the sequence in order
 * Work      forward 2 P H (dqk + dv + dz), backward 2 P H (3 dqk + 2 dv + 2 dz)
 * Traffic   forward P (dz + 5 H) elements, backward P (2 dz + 9 H); at 8 heads 4 operations a byte of pair_value, so the rows' kernel is
 *           bound by memory, the other two by arithmetic
 * Mapping   rows: softmax a warp a head; pair_value a group of 8 or 32 lanes a pair, 4 channels a lane, 8 heads at a time in registers
 * Order     fixed by the lengths: bitwise repeatable; every gradient is written once, with '='
 * Refuses   nothing */
#include <limits.h>
#include "attention.cuh"

enum { HEADS = 8, KEYS = 128, P_STRIDE = 12, G_STRIDE = 9 };   /* heads and keys at a time; strides that spread the banks */
enum { PRODUCT_OUT, PRODUCT_DQ, PRODUCT_DK, PRODUCT_DV, PRODUCTS };

template <class R> struct pair_args : mf_tile_inputs<R> {
    int dz;
    int64_t column_tiles;
    const R *pair_bias, *pair_value;
    R *out, *lse, *pair_out;
    const R *lse_in, *out_in, *pair_out_in, *dout, *dpair_out;
    R *dpair_bias, *dpair_value, *dkey_bias;
    R *p, *ds;                    /* scratch: S, then P; dout v', then dS */
    R *product[PRODUCTS];         /* what the last kernel makes */
    int64_t blocks[PRODUCTS];
    bool quads;                   /* rows of pair_value and its like are in 16-byte pieces */
};

/* First pair of a sequence; every warp finds it for itself. */
static __device__ inline int64_t pair_offset(const int32_t *offsets, int sequence) {
    int64_t sum = 0;
    for (int s = (int)(threadIdx.x & 31); s < sequence; s += 32) {
        const int64_t length = offsets[s + 1] - offsets[s];
        sum += length * length;
    }
    return mf__warp_sum(sum);
}

template <class R> static __device__ inline mf_quad<R> load_quad(const R *row, int c, int width, bool quads) {
    if (quads && c < width) return *(const mf_quad<R> *)(row + c);
    mf_quad<R> x;
#pragma unroll
    for (int i = 0; i < 4; i++) x.x[i] = c + i < width ? row[c + i] : R(0);
    return x;
}
template <class R> static __device__ inline void store_quad(R *row, int c, int width, bool quads, const mf_quad<R> &x) {
    if (quads && c < width) *(mf_quad<R> *)(row + c) = x;
    else
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (c + i < width) row[c + i] = x.x[i];
}

/* A tile of 64 queries and 128 (float64: 64) keys of one head: of S, or with the second half of the grid of dout v'. */
template <class R> static __global__ void __launch_bounds__(256) pair_scores_kernel(pair_args<R> p) {
    using tile = mf_tile<R>;
    constexpr int G = tile::groups;
    MF_SHARED(R, left);
    R *right = left + 2 * tile::depth * tile::stride;
    const int64_t each = p.column_tiles * p.tiles * p.heads;
    const bool values = (int64_t)blockIdx.x >= each;
    const int64_t block = (int64_t)blockIdx.x - (values ? each : 0), n0 = block % p.column_tiles * tile::columns;
    const int head = (int)(block / p.column_tiles / p.tiles);
    mf_tile_place at;
    if (!mf__tile_find(&at, p.offsets, p.sequences, block / p.column_tiles % p.tiles) || n0 >= at.length) return;
    const int width = values ? p.dv : p.dqk;
    const int64_t stride = (int64_t)p.heads * width, first = at.first * stride + (int64_t)head * width;
    const auto as_is = [](R x) { return x; };
    R s[4][4 * G] = {};
    mf__tile_scores<G>(s, (values ? p.dout : p.q) + first + at.start * stride, stride, at.length - at.start, as_is,
                       (values ? p.v : p.k) + first + n0 * stride, stride, at.length - n0, as_is, width, left, right);
    const int row = 4 * mf__tile_y(), column = 4 * mf__tile_x();
    R *to = (values ? p.ds : p.p) + pair_offset(p.offsets, at.sequence) * p.heads + (head * at.length + at.start) * at.length;
    const R *bias = !values && p.key_bias ? p.key_bias + at.first * p.heads + head : nullptr;
#pragma unroll
    for (int c = 0; c < 4 * G; c++) {
        const int64_t n = n0 + 64 * (c / 4) + column + c % 4;
        if (n >= at.length) continue;
        const R term = bias ? bias[n * p.heads] : R(0);
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (at.start + row + i < at.length) to[(row + i) * at.length + n] = s[i][c] + term;
    }
}

/* Where a block's query is. */
struct row_place {
    int64_t row;                  /* of all residues */
    int64_t i, first, length;     /* in its sequence; where that begins, how long it is */
    int64_t pairs;                /* first pair of the sequence */
};
static __device__ inline row_place find_row(const int32_t *offsets, int sequences) {
    row_place at;
    at.row = blockIdx.x;
    int low = 0, high = sequences;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (offsets[middle] <= at.row) low = middle;
        else high = middle;
    }
    at.first = offsets[low];
    at.length = offsets[low + 1] - at.first;
    at.i = at.row - at.first;
    at.pairs = pair_offset(offsets, low);
    return at;
}

/* S becomes P, and pair_out = P pair_value. LANES lanes share a pair. */
template <class R, int LANES> static __global__ void __launch_bounds__(256) pair_rows_kernel(pair_args<R> p) {
    constexpr int channels = 4 * LANES, together = 32 / LANES;
    __shared__ __align__(16) R weight[KEYS * P_STRIDE];
    MF_SHARED(R, sums);           /* (8 warps, HEADS, channels) */
    const row_place at = find_row(p.offsets, p.sequences);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, mine = lane / LANES, c_lane = 4 * (lane % LANES);
    const int64_t pair = at.pairs + at.i * at.length;
    for (int h0 = 0; h0 < p.heads; h0 += HEADS) {
        const int head = h0 + warp;
        R *s = p.p + at.pairs * p.heads + (head * at.length + at.i) * at.length;
        R top = -(R)INFINITY, sum = 0;
        if (head < p.heads) {
            for (int64_t j = lane; j < at.length; j += 32) {
                const R x = p.pair_bias ? s[j] + p.pair_bias[(pair + j) * p.heads + head] : s[j];
                s[j] = x;
                top = x > top ? x : top;
            }
            top = mf__warp_max(top);
            const R base = top == -(R)INFINITY ? R(0) : top;
            for (int64_t j = lane; j < at.length; j += 32) sum += mf__exponential(s[j] - base);
            sum = mf__warp_sum(sum);
            if (lane == 0) p.lse[at.row * p.heads + head] = sum == 0 ? -(R)INFINITY : top + (R)log((double)sum);
            top = base;
        }
        const R scale = sum == 0 ? R(0) : 1 / sum;
        for (int c0 = 0; c0 == 0 || c0 < p.dz; c0 += channels) {
            R acc[HEADS][4] = {};
            for (int64_t j0 = 0; j0 < at.length; j0 += KEYS) {
                const int keys = (int)(at.length - j0 < KEYS ? at.length - j0 : KEYS);
                for (int j = lane; j < keys; j += 32) {
                    R x = 0;
                    if (head < p.heads) {
                        x = c0 == 0 ? mf__exponential(s[j0 + j] - top) * scale : s[j0 + j];
                        if (c0 == 0) s[j0 + j] = x;
                    }
                    weight[j * P_STRIDE + warp] = x;
                }
                __syncthreads();
                if (p.dz) {
                    const R *z = p.pair_value + (pair + j0) * p.dz;
#pragma unroll 4
                    for (int j = warp * together + mine; j < keys; j += 8 * together) {
                        const mf_quad<R> value = load_quad(z + (int64_t)j * p.dz, c0 + c_lane, p.dz, p.quads);
                        const mf_quad<R> a = *(const mf_quad<R> *)(weight + j * P_STRIDE), b = *(const mf_quad<R> *)(weight + j * P_STRIDE + 4);
#pragma unroll
                        for (int h = 0; h < HEADS; h++)
#pragma unroll
                            for (int c = 0; c < 4; c++) acc[h][c] += (h < 4 ? a.x[h] : b.x[h - 4]) * value.x[c];
                    }
                }
                __syncthreads();
            }
            if (!p.dz) break;
#pragma unroll
            for (int h = 0; h < HEADS; h++)
#pragma unroll
                for (int c = 0; c < 4; c++) {
#pragma unroll
                    for (int step = LANES; step < 32; step <<= 1) acc[h][c] += __shfl_xor_sync(0xffffffffu, acc[h][c], step);
                    if (mine == 0) sums[(warp * HEADS + h) * channels + c_lane + c] = acc[h][c];
                }
            __syncthreads();
            for (int at_sum = (int)threadIdx.x; at_sum < HEADS * channels; at_sum += 256) {
                const int h = h0 + at_sum / channels, c = c0 + at_sum % channels;
                if (h >= p.heads || c >= p.dz) continue;
                R total = 0;
#pragma unroll
                for (int w = 0; w < 8; w++) total += sums[w * HEADS * channels + at_sum];
                const bool empty = p.lse[at.row * p.heads + h] == -(R)INFINITY;   /* no key: zeros, also where a masked value is infinite */
                p.pair_out[(at.row * p.heads + h) * p.dz + c] = empty ? R(0) : total;
            }
            __syncthreads();
        }
    }
}

/* Adds V values over LANES lanes; afterwards lane l of them holds the sums number l (V / LANES) and on, or all of one. */
template <int LANES, int V, class R> static __device__ inline void scatter_sums(R (&x)[V], int lane) {
    int n = V;
#pragma unroll
    for (int mask = LANES / 2; mask >= 1; mask >>= 1) {
        n /= 2;
#pragma unroll
        for (int i = 0; i < V / 2; i++)
            if (i < n) {
                const bool upper = lane & mask;
                const R keep = upper ? x[i + n] : x[i], give = upper ? x[i] : x[i + n];
                x[i] = keep + __shfl_xor_sync(0xffffffffu, give, mask);
            }
    }
}

/* S becomes P, dout v' becomes dS; dpair_bias and dpair_value are written. */
template <class R, int LANES> static __global__ void __launch_bounds__(256, sizeof(R) == 4 ? 2 : 1) pair_rows_grad_kernel(pair_args<R> p) {
    constexpr int channels = 4 * LANES, together = 32 / LANES, each = 4;      /* pairs that a lane holds at a time */
    __shared__ __align__(16) R weight[KEYS * P_STRIDE];
    __shared__ R inner[KEYS * G_STRIDE];
    const row_place at = find_row(p.offsets, p.sequences);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, mine = lane / LANES, c_lane = 4 * (lane % LANES);
    const int64_t pair = at.pairs + at.i * at.length;
    for (int h0 = 0; h0 < p.heads; h0 += HEADS) {
        const int head = h0 + warp;
        const int64_t row = at.row * p.heads + head, scratch = at.pairs * p.heads + (head * at.length + at.i) * at.length;
        R lse = 0, delta = 0;
        if (head < p.heads) {
            lse = p.lse_in[row];
            lse = lse == -(R)INFINITY ? (R)INFINITY : lse;          /* a query without keys: exp(s - inf) = 0 */
            for (int c = lane; c < p.dv; c += 32) delta += p.out_in[row * p.dv + c] * p.dout[row * p.dv + c];
            for (int c = lane; p.dpair_out && c < p.dz; c += 32) delta += p.pair_out_in[row * p.dz + c] * p.dpair_out[row * p.dz + c];
            delta = mf__warp_sum(delta);
        }
        for (int64_t j0 = 0; j0 < at.length; j0 += KEYS) {
            const int keys = (int)(at.length - j0 < KEYS ? at.length - j0 : KEYS);
            for (int j = lane; j < KEYS; j += 32) {
                R x = 0;
                if (head < p.heads && j < keys) {
                    const R bias = p.pair_bias ? p.pair_bias[(pair + j0 + j) * p.heads + head] : R(0);
                    x = mf__exponential(p.p[scratch + j0 + j] + bias - lse);
                    p.p[scratch + j0 + j] = x;
                }
                weight[j * P_STRIDE + warp] = x;
                inner[j * G_STRIDE + warp] = 0;
            }
            __syncthreads();
            if (p.dpair_out) {
                const R *from = p.dpair_out + (at.row * p.heads + h0) * p.dz, *z = p.pair_value + (pair + j0) * p.dz;
                R *dz = p.dpair_value ? p.dpair_value + (pair + j0) * p.dz : nullptr;
                for (int first = warp * together * each; first < keys; first += 8 * together * each) {
                    R g[HEADS * each] = {};
                    for (int c0 = 0; c0 < p.dz; c0 += channels) {
                        mf_quad<R> value[each], gradient[each] = {};
#pragma unroll
                        for (int e = 0; e < each; e++) {
                            const int j = first + e * together + mine;
                            value[e] = load_quad(z + (int64_t)j * p.dz, c0 + c_lane, j < keys ? p.dz : 0, p.quads);
                            if (dz && h0 > 0) gradient[e] = load_quad(dz + (int64_t)j * p.dz, c0 + c_lane, j < keys ? p.dz : 0, p.quads);
                        }
#pragma unroll
                        for (int half = 0; half < HEADS; half += 4) {
                            mf_quad<R> w[each];
#pragma unroll
                            for (int e = 0; e < each; e++)
                                w[e] = *(const mf_quad<R> *)(weight + (first + e * together + mine) * P_STRIDE + half);
#pragma unroll
                            for (int h = 0; h < 4; h++) {
                                const bool is_head = h0 + half + h < p.heads;
                                const mf_quad<R> d = load_quad(from + (int64_t)(half + h) * p.dz, c0 + c_lane, is_head ? p.dz : 0, p.quads);
#pragma unroll
                                for (int e = 0; e < each; e++)
#pragma unroll
                                    for (int c = 0; c < 4; c++) {
                                        g[(half + h) * each + e] += d.x[c] * value[e].x[c];
                                        gradient[e].x[c] += w[e].x[h] * d.x[c];
                                    }
                            }
                        }
#pragma unroll
                        for (int e = 0; e < each; e++) {
                            const int j = first + e * together + mine;
                            if (dz && j < keys) store_quad(dz + (int64_t)j * p.dz, c0 + c_lane, p.dz, p.quads, gradient[e]);
                        }
                    }
                    scatter_sums<LANES>(g, lane);
#pragma unroll
                    for (int i = 0; i < HEADS * each / LANES; i++) {
                        const int sum = lane % LANES * (HEADS * each / LANES) + i;
                        inner[(first + sum % each * together + mine) * G_STRIDE + sum / each] = g[i];
                    }
                }
            }
            __syncthreads();
            for (int j = lane; j < keys; j += 32) {
                if (head >= p.heads) continue;
                const R ds = weight[j * P_STRIDE + warp] * (p.ds[scratch + j0 + j] + inner[j * G_STRIDE + warp] - delta);
                p.ds[scratch + j0 + j] = ds;
                inner[j * G_STRIDE + warp] = ds;
            }
            __syncthreads();
            if (p.dpair_bias)
                for (int x = (int)threadIdx.x; x < keys * HEADS; x += 256)
                    if (h0 + x % HEADS < p.heads)
                        p.dpair_bias[(pair + j0 + x / HEADS) * p.heads + h0 + x % HEADS] = inner[x / HEADS * G_STRIDE + x % HEADS];
            __syncthreads();
        }
    }
}

/* 64 rows of one product of P or dS, or of its transpose, with the rows of one head of x. */
template <class R, int NC> static __global__ void __launch_bounds__(256) pair_products_kernel(pair_args<R> p) {
    using tile = mf_tile<R>;
    constexpr int wide = mf__wide_stride<NC>, left_size = tile::depth * tile::stride, right_size = tile::depth * wide;
    MF_SHARED(R, left);
    R *right = left + 2 * left_size;
    __shared__ R column_sums[256];
    int64_t block = blockIdx.x;
    int kind = 0;
    while (block >= p.blocks[kind]) block -= p.blocks[kind++];
    mf_tile_place at;
    if (!mf__tile_find(&at, p.offsets, p.sequences, block % p.tiles)) return;
    const int head = (int)(block / p.tiles % p.heads), c0 = (int)(block / p.tiles / p.heads) * 64 * NC;
    const bool by_columns = kind == PRODUCT_DK || kind == PRODUCT_DV;          /* the matrix transposed: rows of the result are keys */
    const int whole = kind == PRODUCT_DQ || kind == PRODUCT_DK ? p.dqk : p.dv;
    const int64_t stride = (int64_t)p.heads * whole, first = at.first * stride + (int64_t)head * whole + c0, width = whole - c0;
    const R *matrix = (kind == PRODUCT_DQ || kind == PRODUCT_DK ? p.ds : p.p) + pair_offset(p.offsets, at.sequence) * p.heads +
                      head * at.length * at.length;
    const R *x = (kind == PRODUCT_OUT ? p.v : kind == PRODUCT_DQ ? p.k : kind == PRODUCT_DK ? p.q : p.dout) + first;
    const auto as_is = [](R value) { return value; };
    const bool sums = kind == PRODUCT_DK && p.dkey_bias && c0 == 0;
    R a[tile::row_values], b[NC * tile::depth / 4], acc[4][4 * NC] = {}, column_sum = 0;
    const auto fetch = [&](int64_t n) {
        if (by_columns) mf__fetch_plain<1>(a, matrix + n * at.length + at.start, at.length, at.length - n, at.length - at.start, as_is);
        else mf__fetch_turned(a, matrix + at.start * at.length + n, at.length, at.length - at.start,
                              (int)(at.length - n < tile::depth ? at.length - n : tile::depth), as_is);
        if (sums)
#pragma unroll
            for (int i = 0; i < tile::row_values; i++) column_sum += a[i];
        mf__fetch_plain<NC>(b, x + n * stride, stride, at.length - n, width, as_is);
    };
    const auto put = [&](int buffer) {
        if (by_columns) mf__put_plain<1>(left + buffer * left_size, tile::stride, a);
        else mf__put_turned(left + buffer * left_size, tile::stride, a);
        mf__put_plain<NC>(right + buffer * right_size, wide, b);
    };
    fetch(0);
    put(0);
    __syncthreads();
    int buffer = 0;
    for (int64_t n = 0; n < at.length; n += tile::depth, buffer ^= 1) {
        const int64_t next = n + tile::depth;
        if (next < at.length) fetch(next);
        mf__tile_multiply<NC>(acc, left + buffer * left_size, right + buffer * right_size, wide);
        if (next < at.length) put(buffer ^ 1);
        __syncthreads();
    }
    R *to = p.product[kind];
    const int row = 4 * mf__tile_y(), column = 4 * mf__tile_x();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t m = at.start + row + i;
        if (m >= at.length || !to) continue;
        const bool empty = kind == PRODUCT_OUT && p.lse[(at.first + m) * p.heads + head] == -(R)INFINITY;
#pragma unroll
        for (int c = 0; c < 4 * NC; c++) {
            const int at_column = 64 * (c / 4) + column + c % 4;
            if (at_column < width) to[first + m * stride + at_column] = empty ? R(0) : acc[i][c];
        }
    }
    if (!sums) return;
    column_sums[threadIdx.x] = column_sum;
    __syncthreads();
    const int64_t m = at.start + threadIdx.x;
    if (threadIdx.x < 64 && m < at.length) {
        R total = 0;
        for (int i = 0; i < 4; i++) total += column_sums[threadIdx.x + 64 * i];
        p.dkey_bias[(at.first + m) * p.heads + head] = total;
    }
}

/* ---- launchers ---- */

static mf_status check(const mf_attention_args *a) {
    int64_t width = a->dqk > a->dv ? a->dqk : a->dv;
    width = a->dz > width ? a->dz : width;
    if (a->dtype != MF_FLOAT32 && a->dtype != MF_FLOAT64)
        return mf__fail(MF_EDTYPE, "pair_attention: element type %s, expected float32 or float64", mf_dtype_name(a->dtype));
    if (width > 0 && a->heads > INT_MAX / width)
        return mf__fail(MF_ESUPPORT, "pair_attention: %lld heads of width %lld: a residue's row must stay under 2^31 elements",
                        (long long)a->heads, (long long)width);
    return MF_OK;
}

template <class R> static mf_status common(pair_args<R> *p, mf_device *d, const mf_attention_args *a) {
    *p = {};
    p->dz = a->pair_value ? (int)a->dz : 0;
    p->column_tiles = mf__blocks(a->packing->longest, mf_tile<R>::columns);
    p->pair_bias = (const R *)a->pair_bias;
    p->pair_value = (const R *)a->pair_value;
    const auto aligned = [](const void *x) { return (uintptr_t)x % 16 == 0; };
    p->quads = a->dz % 4 == 0 && aligned(a->pair_value) && aligned(a->dpair_value) && aligned(a->dpair_out);
    return p->fill(d, a);
}

static double cells(const mf_attention_args *a) { return (double)a->packing->pairs * (double)a->heads; }

template <class R> static mf_status scores(mf_device *d, const mf_attention_args *a, const pair_args<R> &p, int products) {
    const int64_t shared = 2 * mf_tile<R>::depth * (mf_tile<R>::stride + mf__wide_stride<mf_tile<R>::groups>) * (int64_t)sizeof(R);
    mf__cuda_work(d, 2 * cells(a) * (double)(a->dqk + (products > 1 ? a->dv : 0)), cells(a) * products * sizeof(R), mf__unit_of(a));
    return MF_LAUNCH(d, pair_scores_kernel<R>, (unsigned)(p.column_tiles * p.tiles * p.heads * products), 256, shared, p);
}

template <class R, int NC> static mf_status products(mf_device *d, const pair_args<R> &p, int64_t blocks) {
    const int64_t shared = 2 * mf_tile<R>::depth * (mf_tile<R>::stride + mf__wide_stride<NC>) * (int64_t)sizeof(R);
    return MF_LAUNCH(d, (pair_products_kernel<R, NC>), (unsigned)blocks, 256, shared, p);
}

/* The products among `wanted` in as few launches as their widths allow. */
template <class R> static mf_status all_products(mf_device *d, const mf_attention_args *a, pair_args<R> p, const bool *wanted) {
    const int64_t widths[PRODUCTS] = {a->dv, a->dqk, a->dk ? a->dqk : 0, a->dv};
    for (int groups = 1; groups <= 4; groups++) {
        int64_t blocks = 0, width = 0;
        for (int kind = 0; kind < PRODUCTS; kind++) {
            const mf_pieces pieces = mf__pieces(widths[kind]);
            p.blocks[kind] = wanted[kind] && pieces.groups == groups ? p.tiles * p.heads * pieces.count : 0;
            blocks += p.blocks[kind];
            if (p.blocks[kind]) width += widths[kind];
        }
        if (!blocks) continue;
        mf__cuda_work(d, 2 * cells(a) * (double)width, cells(a) * sizeof(R), mf__unit_of(a));
        MF_TRY(groups == 1   ? (products<R, 1>(d, p, blocks))
               : groups == 2 ? (products<R, 2>(d, p, blocks))
               : groups == 3 ? (products<R, 3>(d, p, blocks))
                             : (products<R, 4>(d, p, blocks)));
    }
    return MF_OK;
}

template <class R> static mf_status run_forward(mf_device *d, const mf_attention_args *a) {
    pair_args<R> p;
    mf_scratch scratch;
    MF_TRY(common(&p, d, a));
    MF_TRY(scratch.take(d, a->packing->pairs * a->heads * (int64_t)sizeof(R)));
    p.p = scratch.as<R>();
    p.lse = (R *)a->lse;
    p.pair_out = (R *)a->pair_out;
    if (!a->pair_out) p.dz = 0;
    MF_TRY(scores(d, a, p, 1));
    mf__cuda_work(d, 2 * cells(a) * (double)p.dz, ((double)a->packing->pairs * (double)p.dz + 3 * cells(a)) * sizeof(R), mf__unit_of(a));
    const unsigned rows = (unsigned)a->packing->total;
    if (p.dz > 64) MF_TRY(MF_LAUNCH(d, (pair_rows_kernel<R, 32>), rows, 256, (int64_t)(8 * HEADS * 128 * sizeof(R)), p));
    else MF_TRY(MF_LAUNCH(d, (pair_rows_kernel<R, 8>), rows, 256, (int64_t)(8 * HEADS * 32 * sizeof(R)), p));
    p.product[PRODUCT_OUT] = (R *)a->out;
    const bool wanted[PRODUCTS] = {true, false, false, false};
    return all_products(d, a, p, wanted);
}

template <class R> static mf_status run_grad(mf_device *d, const mf_attention_args *a) {
    pair_args<R> p;
    mf_scratch scratch;
    MF_TRY(common(&p, d, a));
    const int64_t elements = (a->packing->pairs * a->heads + 63) / 64 * 64;
    MF_TRY(scratch.take(d, 2 * elements * (int64_t)sizeof(R)));
    p.p = scratch.as<R>();
    p.ds = p.p + elements;
    p.lse_in = (const R *)a->lse;
    p.out_in = (const R *)a->out;
    p.pair_out_in = (const R *)a->pair_out_in;
    p.dout = (const R *)a->dout;
    p.dpair_out = p.dz ? (const R *)a->dpair_out : nullptr;
    p.dpair_bias = (R *)a->dpair_bias;
    p.dpair_value = (R *)a->dpair_value;
    p.dkey_bias = (R *)a->dkey_bias;
    MF_TRY(scores(d, a, p, 2));
    const double channels = p.dpair_out ? (double)p.dz : 0;
    mf__cuda_work(d, 4 * cells(a) * channels, (2 * (double)a->packing->pairs * channels + 6 * cells(a)) * sizeof(R), mf__unit_of(a));
    const unsigned rows = (unsigned)a->packing->total;
    if (p.dz > 64) MF_TRY(MF_LAUNCH(d, (pair_rows_grad_kernel<R, 32>), rows, 256, 0, p));
    else MF_TRY(MF_LAUNCH(d, (pair_rows_grad_kernel<R, 8>), rows, 256, 0, p));
    p.product[PRODUCT_DQ] = (R *)a->dq;
    p.product[PRODUCT_DK] = (R *)a->dk;
    p.product[PRODUCT_DV] = (R *)a->dv_;
    const bool wanted[PRODUCTS] = {false, a->dq != nullptr, a->dk || a->dkey_bias, a->dv_ != nullptr};
    return all_products(d, a, p, wanted);
}

mf_status mf__cuda_pair_attention(mf_device *d, const mf_attention_args *a) {
    MF_TRY(check(a));
    if (a->packing->total == 0 || a->heads == 0) return MF_OK;
    return a->dtype == MF_FLOAT64 ? run_forward<double>(d, a) : run_forward<float>(d, a);
}
mf_status mf__cuda_pair_attention_grad(mf_device *d, const mf_attention_args *a) {
    MF_TRY(check(a));
    if (a->packing->total == 0 || a->heads == 0) return MF_OK;
    return a->dtype == MF_FLOAT64 ? run_grad<double>(d, a) : run_grad<float>(d, a);
}
