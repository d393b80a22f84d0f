/* norm.cu: layer normalisation of rows, of a sum of two rows too, and its gradient.
 *
 *     h = a   or   a + m b        m: a number a row, or 1
 *     mu = mean h      var = mean (h - mu)^2      r = 1 / sqrt(var + epsilon)      n = (h - mu) r
 *     y = n w + c      g = dy w      dh = r (g - mean g - n mean(g n))      dw = sum dy n      dc = sum dy
 *     da = dh          db = m dh                                            (all written with '=')
 *
 * Work      about 8 operations an element forward, 14 backward          Traffic   forward a, b, y; backward dy, a, b, da, db once
 * Mapping   rows of up to 32 K V columns (K vectors of V elements a lane, 1024 columns of float32): a power of two of lanes a row,
 *           which lives in registers between the passes, w with it; blocks go over many rows. Backward keeps each lane's share of dw
 *           and dc in registers over its rows, adds them up in its block and leaves one part a block; a second launch merges the
 *           parts (reduce.cuh). Up to 1024 rows the same launch sums columns in blocks of their own instead. Wider rows: a block a row, re-read from the cache; dw and dc by a reduction of their own.
 * Numerics  the variance is a second pass over registers: the one-pass formula loses every digit when |mu| is far above the
 *           deviation. All in the type of x, by trees over lanes.
 * Order     depends on the sizes alone: bitwise repeatable. h is computed again in backward from a and b: it is never stored. */
#include "reduce.cuh"
#include "table.cuh"

enum { NORM_THREADS = 128, NORM_WIDE = 256, NORM_FEW = 512, NORM_FEW_ROWS = 1024, NORM_PARTS = 1056 };

template <class T> struct mf_norm_rows {  /* what all kernels read */
    int64_t rows, columns;
    const T *a, *b, *mask;        /* b and mask may be NULL */
    const T *weight;              /* NULL: 1 */
    template <int V> __device__ mf_pack<T, V> row(int64_t i, int64_t column) const {
        mf_pack<T, V> h = mf__pack_at<V>(a + i * columns + column);
        if (!b) return h;
        const mf_pack<T, V> other = mf__pack_at<V>(b + i * columns + column);
        const T m = mask ? mask[i] : T(1);
#pragma unroll
        for (int j = 0; j < V; j++) h.v[j] += m * other.v[j];
        return h;
    }
    template <int V> __device__ mf_pack<T, V> weights(int64_t column) const {
        if (weight) return mf__pack_at<V>(weight + column);
        mf_pack<T, V> w;
#pragma unroll
        for (int j = 0; j < V; j++) w.v[j] = T(1);
        return w;
    }
};

template <class T> static __device__ inline T group_sum(T x, int group) {
    for (int bits = group / 2; bits > 0; bits /= 2) x += __shfl_xor_sync(0xffffffffu, x, bits);
    return x;
}
template <class T> static __device__ inline T inverse_deviation(T squares, int64_t columns, double epsilon) {
    return (T)(1 / sqrt((double)squares / (double)columns + epsilon));
}

/* ---- forward ---- */
template <class T, int V, int K> static __global__ void __launch_bounds__(NORM_THREADS)
layer_norm_kernel(mf_norm_rows<T> x, int group, const T *bias, double epsilon, T *y, T *mean, T *rstd) {
    const int lane = threadIdx.x & (group - 1), per_block = NORM_THREADS / group;
    for (int64_t start = (int64_t)blockIdx.x * per_block; start < x.rows; start += (int64_t)gridDim.x * per_block) {
        const int64_t i = start + threadIdx.x / group;
        const bool there = i < x.rows;
        mf_pack<T, V> h[K];
        T sum = 0;
#pragma unroll
        for (int k = 0; k < K; k++) {
            const int64_t column = (int64_t)(lane + k * group) * V;
            const bool inside = there && column < x.columns;
            if (inside) h[k] = x.template row<V>(i, column);
#pragma unroll
            for (int j = 0; j < V; j++) sum += inside ? h[k].v[j] : T(0);
        }
        const T mu = group_sum(sum, group) / (T)x.columns;
        T squares = 0;
#pragma unroll
        for (int k = 0; k < K; k++)
#pragma unroll
            for (int j = 0; j < V; j++)
                if (there && (int64_t)(lane + k * group) * V < x.columns) squares += (h[k].v[j] - mu) * (h[k].v[j] - mu);
        const T r = inverse_deviation(group_sum(squares, group), x.columns, epsilon);
        if (!there) continue;
        if (lane == 0) {
            mean[i] = mu;
            rstd[i] = r;
        }
#pragma unroll
        for (int k = 0; k < K; k++) {
            const int64_t column = (int64_t)(lane + k * group) * V;
            if (column >= x.columns) continue;
            const mf_pack<T, V> w = x.template weights<V>(column);
            mf_pack<T, V> c = {};
            if (bias) c = mf__pack_at<V>(bias + column);
#pragma unroll
            for (int j = 0; j < V; j++) h[k].v[j] = (h[k].v[j] - mu) * r * w.v[j] + c.v[j];
            *reinterpret_cast<mf_pack<T, V> *>(y + i * x.columns + column) = h[k];
        }
    }
}

template <class T> static __global__ void __launch_bounds__(NORM_WIDE)
layer_norm_wide_kernel(mf_norm_rows<T> x, const T *bias, double epsilon, T *y, T *mean, T *rstd) {
    __shared__ T slots[32];
    for (int64_t i = blockIdx.x; i < x.rows; i += gridDim.x) {
        T sum = 0, squares = 0;
        for (int64_t j = threadIdx.x; j < x.columns; j += NORM_WIDE) sum += x.template row<1>(i, j).v[0];
        const T mu = mf__block_sum(sum, slots) / (T)x.columns;
        for (int64_t j = threadIdx.x; j < x.columns; j += NORM_WIDE) {
            const T from = x.template row<1>(i, j).v[0] - mu;
            squares += from * from;
        }
        const T r = inverse_deviation(mf__block_sum(squares, slots), x.columns, epsilon);
        if (threadIdx.x == 0) {
            mean[i] = mu;
            rstd[i] = r;
        }
        for (int64_t j = threadIdx.x; j < x.columns; j += NORM_WIDE)
            y[i * x.columns + j] = (x.template row<1>(i, j).v[0] - mu) * r * x.template weights<1>(j).v[0] + (bias ? bias[j] : T(0));
    }
}

/* ---- backward ---- */
template <class T> struct mf_norm_affine {  /* dw and dc of columns, as a rule of reduce.cuh over (1, rows, columns) */
    struct State {
        T w, c;
    };
    using Element = T;
    enum { VECTOR = sizeof(T) == 8 ? 2 : 4, READS = 3, MAPS = 0 };
    template <int V> struct Raw {
        mf_pack<T, V> dy, h;
        T mean, rstd;
    };
    mf_norm_rows<T> x;
    const T *dy, *mean, *rstd;
    T *dweight, *dbias;
    template <int V> __device__ Raw<V> fetch(int64_t at, int64_t, int64_t m) const {
        return {mf__pack_at<V>(dy + at), x.template row<V>(m, at - m * x.columns), mean[m], rstd[m]};
    }
    template <int V> __device__ State value(const Raw<V> &raw, int j, int64_t) const {
        return {raw.dy.v[j] * ((raw.h.v[j] - raw.mean) * raw.rstd), raw.dy.v[j]};
    }
    static __device__ State neutral() { return {T(0), T(0)}; }
    static __device__ State merge(State a, State b) { return {a.w + b.w, a.c + b.c}; }
    static __device__ State shuffle(State a, int bits) {
        return {__shfl_xor_sync(0xffffffffu, a.w, bits), __shfl_xor_sync(0xffffffffu, a.c, bits)};
    }
    __device__ void finish(int64_t out, State total) const {
        dweight[out] = total.w;
        dbias[out] = total.c;
    }
};

/* The rows of one block among `blocks`: da and db, which may be NULL, and each lane's share of dw and dc. */
template <class T, int V, int K> static __device__ inline void gradient_rows(const mf_norm_rows<T> &x, int group, int64_t block, int64_t blocks, const T *dy,
                                                                            const T *mean, const T *rstd, T *da, T *db, mf_pack<T, V> *dw,
                                                                            mf_pack<T, V> *dc) {
    const int lane = threadIdx.x & (group - 1), per_block = blockDim.x / group;
    mf_pack<T, V> w[K];
#pragma unroll
    for (int k = 0; k < K; k++) {
        const int64_t column = (int64_t)(lane + k * group) * V;
        dw[k] = dc[k] = w[k] = {};
        if (column < x.columns) w[k] = x.template weights<V>(column);
    }
    for (int64_t start = block * per_block; start < x.rows; start += blocks * per_block) {
        const int64_t i = start + threadIdx.x / group;
        const bool there = i < x.rows;
        mf_pack<T, V> n[K], g[K];
        const T mu = there ? mean[i] : T(0), r = there ? rstd[i] : T(0);
        T g_sum = 0, gn_sum = 0;
#pragma unroll
        for (int k = 0; k < K; k++) {
            const int64_t column = (int64_t)(lane + k * group) * V;
            n[k] = g[k] = {};
            if (!there || column >= x.columns) continue;
            n[k] = x.template row<V>(i, column);
            g[k] = mf__pack_at<V>(dy + i * x.columns + column);
        }
#pragma unroll
        for (int k = 0; k < K; k++)
#pragma unroll
            for (int j = 0; j < V; j++) {
                n[k].v[j] = (n[k].v[j] - mu) * r;
                dw[k].v[j] += g[k].v[j] * n[k].v[j];
                dc[k].v[j] += g[k].v[j];
                g[k].v[j] *= w[k].v[j];
                g_sum += g[k].v[j];
                gn_sum += g[k].v[j] * n[k].v[j];
            }
        if (!da && !db) continue;
        g_sum = group_sum(g_sum, group) / (T)x.columns;
        gn_sum = group_sum(gn_sum, group) / (T)x.columns;
        if (!there) continue;
        const T m = db && x.mask ? x.mask[i] : T(1);
#pragma unroll
        for (int k = 0; k < K; k++) {
            const int64_t column = (int64_t)(lane + k * group) * V;
            if (column >= x.columns) continue;
            mf_pack<T, V> d;
#pragma unroll
            for (int j = 0; j < V; j++) d.v[j] = r * (g[k].v[j] - g_sum - n[k].v[j] * gn_sum);
            if (da) *reinterpret_cast<mf_pack<T, V> *>(da + i * x.columns + column) = d;
            if (!db) continue;
#pragma unroll
            for (int j = 0; j < V; j++) d.v[j] *= m;
            *reinterpret_cast<mf_pack<T, V> *>(db + i * x.columns + column) = d;
        }
    }
}

/* parts (blocks, columns) or NULL. */
template <class T, int V, int K> static __global__ void __launch_bounds__(NORM_THREADS)
layer_norm_grad_kernel(mf_norm_rows<T> x, int group, const T *dy, const T *mean, const T *rstd, T *da, T *db, typename mf_norm_affine<T>::State *parts) {
    using State = typename mf_norm_affine<T>::State;
    MF_SHARED(State, warps);      /* a row of columns for each warp */
    const int lane = threadIdx.x & (group - 1);
    mf_pack<T, V> dw[K], dc[K];
    gradient_rows<T, V, K>(x, group, blockIdx.x, gridDim.x, dy, mean, rstd, da, db, dw, dc);
    if (!parts) return;
    State *mine = warps + (threadIdx.x >> 5) * x.columns;
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
        for (int j = 0; j < V; j++) {
            State s = {dw[k].v[j], dc[k].v[j]};
            for (int bits = group; bits < 32; bits *= 2) s = mf_norm_affine<T>::merge(s, mf_norm_affine<T>::shuffle(s, bits));
            const int64_t column = (int64_t)(lane + k * group) * V + j;
            if ((threadIdx.x & 31) < group && column < x.columns) mine[column] = s;
        }
    __syncthreads();
    for (int64_t column = threadIdx.x; column < x.columns; column += NORM_THREADS) {
        State s = warps[column];
#pragma unroll
        for (int warp = 1; warp < NORM_THREADS / 32; warp++) s = mf_norm_affine<T>::merge(s, warps[warp * x.columns + column]);
        parts[blockIdx.x * x.columns + column] = s;
    }
}

/* Few rows, in one launch: the first blocks take rows, the others a tile of columns each, down all rows. */
template <class T, int V, int K> static __global__ void __launch_bounds__(NORM_FEW)
layer_norm_grad_few_kernel(mf_norm_rows<T> x, int group, int row_blocks, int across, mf_norm_affine<T> affine, T *da, T *db) {
    using State = typename mf_norm_affine<T>::State;
    MF_SHARED(State, slots);      /* V for each thread */
    if ((int)blockIdx.x < row_blocks) {
        mf_pack<T, V> dw[K], dc[K];
        gradient_rows<T, V, K>(x, group, blockIdx.x, row_blocks, affine.dy, affine.mean, affine.rstd, da, db, dw, dc);
        return;
    }
    const int row = threadIdx.x / across, of_tile = threadIdx.x % across;
    const int64_t column = ((int64_t)(blockIdx.x - row_blocks) * across + of_tile) * V;
    const bool active = row < NORM_FEW / across && column < x.columns;
    mf__tile_totals<mf_norm_affine<T>, V>(slots, affine, column, 0, 0, x.rows, x.columns, across, active);
    if (active && row == 0)
        for (int j = 0; j < V; j++) affine.finish(column + j, slots[of_tile * V + j]);
}

template <class T> static __global__ void __launch_bounds__(NORM_WIDE)
layer_norm_grad_wide_kernel(mf_norm_rows<T> x, const T *dy, const T *mean, const T *rstd, T *da, T *db) {
    __shared__ T slots[32];
    for (int64_t i = blockIdx.x; i < x.rows; i += gridDim.x) {
        const T mu = mean[i], r = rstd[i], m = db && x.mask ? x.mask[i] : T(1);
        T g_sum = 0, gn_sum = 0;
        for (int64_t j = threadIdx.x; j < x.columns; j += NORM_WIDE) {
            const T g = dy[i * x.columns + j] * x.template weights<1>(j).v[0];
            g_sum += g;
            gn_sum += g * ((x.template row<1>(i, j).v[0] - mu) * r);
        }
        g_sum = mf__block_sum(g_sum, slots) / (T)x.columns;
        gn_sum = mf__block_sum(gn_sum, slots) / (T)x.columns;
        for (int64_t j = threadIdx.x; j < x.columns; j += NORM_WIDE) {
            const T g = dy[i * x.columns + j] * x.template weights<1>(j).v[0], n = (x.template row<1>(i, j).v[0] - mu) * r;
            const T dh = r * (g - g_sum - n * gn_sum);
            if (da) da[i * x.columns + j] = dh;
            if (db) db[i * x.columns + j] = m * dh;
        }
    }
}

/* ---- launchers ---- */

/* Lanes of a row and vectors of a lane; K = 0: too wide. */
struct mf_norm_shape { int group, each; };
static mf_norm_shape shape_of(int64_t vectors) {
    mf_norm_shape s = {1, 1};
    while (s.group < 32 && s.group < vectors) s.group *= 2;
    while (s.each < 8 && (int64_t)s.group * s.each < vectors) s.each *= 2;
    if ((int64_t)s.group * s.each < vectors) s.each = 0;
    return s;
}

template <class T> static bool fits_vectors(const mf_add_norm_args *p) {
    constexpr int V = 16 / sizeof(T);
    bool fits = p->columns % V == 0;
    for (const void *q : {p->a, p->b, p->weight, p->bias, (const void *)p->y, p->dy, (const void *)p->da, (const void *)p->db}) fits &= mf__aligned16(q);
    return fits;
}

template <class T> static mf_norm_rows<T> rows_of(const mf_add_norm_args *p) {
    return {p->rows, p->columns, (const T *)p->a, (const T *)p->b, (const T *)p->mask, (const T *)p->weight};
}

#define WITH_EACH(each, K, ...)                                \
    switch (each) {                                            \
    case 1: { constexpr int K = 1; __VA_ARGS__; break; }       \
    case 2: { constexpr int K = 2; __VA_ARGS__; break; }       \
    case 4: { constexpr int K = 4; __VA_ARGS__; break; }       \
    default: { constexpr int K = 8; __VA_ARGS__; break; }      \
    }

template <class T, int V> static mf_status forward(mf_device *d, const mf_add_norm_args *p) {
    const mf_norm_shape s = shape_of(p->columns / V);
    const mf_norm_rows<T> x = rows_of<T>(p);
    T *y = (T *)p->y, *mean = (T *)p->mean, *rstd = (T *)p->rstd;
    const T *bias = (const T *)p->bias;
    if (!s.each)
        return MF_LAUNCH(d, layer_norm_wide_kernel<T>, mf__grid(d, p->rows, 1), NORM_WIDE, 0, x, bias, p->epsilon, y, mean, rstd);
    const unsigned grid = mf__grid(d, p->rows, NORM_THREADS / s.group);
    WITH_EACH(s.each, K, return MF_LAUNCH(d, (layer_norm_kernel<T, V, K>), grid, NORM_THREADS, 0, x, s.group, bias, p->epsilon, y, mean, rstd));
}

template <class T, int V> static mf_status backward(mf_device *d, const mf_add_norm_args *p) {
    using State = typename mf_norm_affine<T>::State;
    const mf_norm_shape s = shape_of(p->columns / V);
    const mf_norm_rows<T> x = rows_of<T>(p);
    const T *dy = (const T *)p->dy, *mean = (const T *)p->mean, *rstd = (const T *)p->rstd;
    const mf_norm_affine<T> affine = {x, dy, mean, rstd, (T *)p->dweight, (T *)p->dbias};
    if (p->rows == 0) {           /* no blocks, but dw and dc are zero */
        const mf_rows none = {1, 0, p->columns, 0, 1, nullptr};
        return p->dweight ? mf__reduce_columns<mf_norm_affine<T>, 1>(d, affine, none, nullptr) : MF_OK;
    }
    if (!s.each) {
        if (p->da || p->db)
            MF_TRY(MF_LAUNCH(d, layer_norm_grad_wide_kernel<T>, mf__grid(d, p->rows, 1), NORM_WIDE, 0, x, dy, mean, rstd, (T *)p->da, (T *)p->db));
        return p->dweight ? mf__reduce_shaped<mf_norm_affine<T>, V>(d, affine, 1, p->rows, p->columns, nullptr, p->rows) : MF_OK;
    }
    if (p->dweight && p->rows <= NORM_FEW_ROWS && s.each <= 4) {
        const int across = mf__reduce_across<mf_norm_affine<T>, V>(p->columns);
        const int64_t row_blocks = p->da || p->db ? mf__blocks(p->rows, NORM_FEW / s.group) : 0, tiles = mf__blocks(p->columns / V, across);
        WITH_EACH(s.each, K, return MF_LAUNCH(d, (layer_norm_grad_few_kernel<T, V, (K < 8 ? K : 4)>), (unsigned)(row_blocks + tiles), NORM_FEW,
                                              NORM_FEW * V * (int64_t)sizeof(State), x, s.group, (int)row_blocks, across, affine, (T *)p->da,
                                              (T *)p->db));
    }
    const int64_t wanted = mf__blocks(p->rows, NORM_THREADS / s.group), blocks = wanted < NORM_PARTS ? wanted : NORM_PARTS;
    mf_scratch parts;
    if (p->dweight) MF_TRY(parts.take(d, blocks * p->columns * (int64_t)sizeof(State)));
    const int64_t shared = p->dweight ? NORM_THREADS / 32 * p->columns * (int64_t)sizeof(State) : 0;
    WITH_EACH(s.each, K, MF_TRY(MF_LAUNCH(d, (layer_norm_grad_kernel<T, V, K>), (unsigned)blocks, NORM_THREADS, shared, x, s.group, dy, mean, rstd,
                                          (T *)p->da, (T *)p->db, parts.as<State>())));
    return p->dweight ? mf__reduce_parts(d, affine, parts.as<State>(), 1, blocks, p->columns, (State *)nullptr) : MF_OK;
}

static mf_status check(int dtype) {
    if (dtype == MF_FLOAT32 || dtype == MF_FLOAT64) return MF_OK;
    return mf__fail(MF_ESUPPORT, "layer_norm: no kernel for %s", mf_dtype_name(dtype));
}

mf_status mf__cuda_add_layer_norm(mf_device *d, const mf_add_norm_args *p) {
    MF_TRY(check(p->dtype));
    if (p->rows == 0 || p->columns == 0) return MF_OK;
    const double n = (double)p->rows * (double)p->columns;
    mf__cuda_work(d, 8 * n, n * (p->b ? 3 : 2) * (double)mf_dtype_bytes(p->dtype));
    MF_DISPATCH_REAL(p->dtype, T, {
        if (fits_vectors<T>(p)) return forward<T, 16 / sizeof(T)>(d, p);
        return forward<T, 1>(d, p);
    });
}

mf_status mf__cuda_add_layer_norm_grad(mf_device *d, const mf_add_norm_args *p) {
    MF_TRY(check(p->dtype));
    if (p->columns == 0) return MF_OK;
    const double n = (double)p->rows * (double)p->columns;
    mf__cuda_work(d, 14 * n, n * (2 + (p->b ? 1 : 0) + (p->da ? 1 : 0) + (p->db ? 1 : 0)) * (double)mf_dtype_bytes(p->dtype));
    MF_DISPATCH_REAL(p->dtype, T, {
        if (fits_vectors<T>(p)) return backward<T, 16 / sizeof(T)>(d, p);
        return backward<T, 1>(d, p);
    });
}

mf_status mf__cuda_layer_norm(mf_device *d, int dtype, int64_t rows, int64_t columns, const void *x, const void *weight, const void *bias,
                              double epsilon, void *y, void *mean, void *rstd) {
    mf_add_norm_args p = {};
    p.dtype = dtype;
    p.rows = rows;
    p.columns = columns;
    p.epsilon = epsilon;
    p.a = x;
    p.weight = weight;
    p.bias = bias;
    p.y = y;
    p.mean = mean;
    p.rstd = rstd;
    return mf__cuda_add_layer_norm(d, &p);
}

mf_status mf__cuda_layer_norm_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, const void *dy, const void *x, const void *weight,
                                   const void *mean, const void *rstd, void *dx, void *dweight, void *dbias) {
    mf_add_norm_args p = {};
    p.dtype = dtype;
    p.rows = rows;
    p.columns = columns;
    p.dy = dy;
    p.a = x;
    p.weight = weight;
    p.mean = (void *)mean;
    p.rstd = (void *)rstd;
    p.da = dx;
    p.dweight = dweight;
    p.dbias = dbias;
    return mf__cuda_add_layer_norm_grad(d, &p);
}
