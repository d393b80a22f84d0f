/* loss.cu: squared errors and cross entropies of rows, and their gradients.
 *
 *     squared_error   y_i = sum over j of w_ij (a_ij - b_ij)^2      w: one number for each of `groups` equal parts of a row, or 1
 *                     da = 2 w (a - b) dy_i      db = -da
 *     cross_entropy   y_i = lse_i - x_i,t(i)     lse_i = log sum exp(x_i)
 *                     dx = (exp(x - lse_i) - [j = t(i)]) dy_i
 *
 * Work      3 operations an element; an exponential an element for entropies
 * Traffic   a and b once, and the gradients; logits once each way: no difference, square or softmax is stored
 * Mapping   rows are reduced as lines of reduce.cuh; gradients are a thread for each element, or each V of them
 * Order     depends on the sizes alone: bitwise repeatable. A target out of range is reported at the next synchronisation; its
 *           loss is NaN and its gradient 0. */
#include "softmax.cuh"
#include "table.cuh"

template <class T> struct mf_squared_errors : mf_total_base<T> {
    using Element = T;
    enum { VECTOR = sizeof(T) == 8 ? 2 : 4, READS = 2, MAPS = 0 };
    template <int V> struct Raw {
        mf_pack<T, V> a, b;
        const T *weight;          /* of the row, where it has several */
    };
    const T *a, *b, *weight;
    T *y;
    int64_t groups, part;         /* of a row; elements of each */
    template <int V> __device__ Raw<V> fetch(int64_t at, int64_t line, int64_t) const {
        return {mf__pack_at<V>(a + at), mf__pack_at<V>(b + at), weight && groups > 1 ? weight + line * groups : nullptr};
    }
    template <int V> __device__ T value(const Raw<V> &raw, int j, int64_t m) const {
        const T off = raw.a.v[j] - raw.b.v[j];
        if (!raw.weight) return off * off;
        return raw.weight[m <= INT32_MAX ? (uint32_t)m / (uint32_t)part : m / part] * (off * off);
    }
    __device__ void finish(int64_t out, T total) const { y[out] = weight && groups == 1 ? weight[out] * total : total; }
};

template <class T, int V> static __global__ void __launch_bounds__(256)
squared_error_grad_kernel(int64_t n, int64_t columns, int64_t part, int64_t groups, const T *a, const T *b, const T *weight, const T *dy, T *da, T *db) {
    MF_GRID_LOOP(i, n / V) {
        const int64_t at = i * V, row = at / columns, column = at - row * columns;
        const mf_pack<T, V> x = mf__pack_at<V>(a + at), z = mf__pack_at<V>(b + at);
        const T by = 2 * dy[row];
        mf_pack<T, V> g, minus;
#pragma unroll
        for (int j = 0; j < V; j++) {
            const T w = weight ? by * weight[row * groups + (groups == 1 ? 0 : (column + j) / part)] : by;
            g.v[j] = w * (x.v[j] - z.v[j]);
            minus.v[j] = -g.v[j];
        }
        if (da) *reinterpret_cast<mf_pack<T, V> *>(da + at) = g;
        if (db) *reinterpret_cast<mf_pack<T, V> *>(db + at) = minus;
    }
}

static __device__ inline int64_t target_at(int64_t dtype, const void *target, int64_t i) {
    return dtype == MF_INT32 ? ((const int32_t *)target)[i] : ((const int64_t *)target)[i];
}

template <class T> struct mf_cross_entropy_rule : mf_exponentials<T> {
    using State = typename mf_exponentials<T>::State;
    enum { MAPS = 0 };
    int64_t columns, index_dtype;
    const void *target;
    T *lse;
    mf_fault *fault;
    const char *op;
    __device__ void finish(int64_t row, State s) const {
        const int64_t t = target_at(index_dtype, target, row);
        const T low = mf__log_of(s);
        lse[row] = low;
        if (t < 0 || t >= columns) {
            mf__raise_index(fault, op, t, columns);
            this->y[row] = T(NAN);
        } else {
            this->y[row] = low == T(-INFINITY) ? T(INFINITY) : low - this->x[row * columns + t];
        }
    }
};

template <class T> static __global__ void __launch_bounds__(256)
cross_entropy_grad_kernel(int64_t rows, int64_t columns, int index_dtype, const void *target, const T *x, const T *lse, const T *dy, T *dx) {
    MF_GRID_LOOP(i, rows * columns) {
        const int64_t row = i / columns, column = i - row * columns, t = target_at(index_dtype, target, row);
        const T low = lse[row], by = dy[row];
        const T share = low == T(-INFINITY) ? T(0) : exp(x[i] - low);
        dx[i] = t < 0 || t >= columns ? T(0) : share * by - (column == t ? by : T(0));
    }
}

static mf_status check(const char *op, int dtype) {
    if (dtype == MF_FLOAT32 || dtype == MF_FLOAT64) return MF_OK;
    return mf__fail(MF_ESUPPORT, "%s: no kernel for %s", op, mf_dtype_name(dtype));
}

mf_status mf__cuda_squared_error(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t groups, const void *a, const void *b,
                                 const void *weight, void *y) {
    MF_TRY(check("squared_error", dtype));
    MF_DISPATCH_REAL(dtype, T, {
        auto rule = mf_squared_errors<T>();
        rule.a = (const T *)a;
        rule.b = (const T *)b;
        rule.weight = (const T *)weight;
        rule.y = (T *)y;
        rule.groups = groups;
        rule.part = groups && columns ? columns / groups : 1;
        return mf__reduce(d, rule, rows, columns, 1, mf__aligned16(a) && mf__aligned16(b));
    });
}

template <class T, int V> static mf_status squared_error_grad(mf_device *d, int64_t rows, int64_t columns, int64_t groups, const void *a, const void *b,
                                                             const void *weight, const void *dy, void *da, void *db) {
    const int64_t n = rows * columns;
    mf__cuda_work(d, 4.0 * (double)n, (double)n * sizeof(T) * (2 + (da != nullptr) + (db != nullptr)));
    return MF_LAUNCH(d, (squared_error_grad_kernel<T, V>), mf__grid(d, n / V, 256), 256, 0, n, columns, groups ? columns / groups : columns, groups,
                     (const T *)a, (const T *)b, (const T *)weight, (const T *)dy, (T *)da, (T *)db);
}

mf_status mf__cuda_squared_error_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t groups, const void *a, const void *b,
                                      const void *weight, const void *dy, void *da, void *db) {
    MF_TRY(check("squared_error", dtype));
    if (rows == 0 || columns == 0) return MF_OK;
    const bool aligned = mf__aligned16(a) && mf__aligned16(b) && mf__aligned16(da) && mf__aligned16(db);
    MF_DISPATCH_REAL(dtype, T, {
        constexpr int V = 16 / sizeof(T);
        if (aligned && columns % V == 0) return squared_error_grad<T, V>(d, rows, columns, groups, a, b, weight, dy, da, db);
        return squared_error_grad<T, 1>(d, rows, columns, groups, a, b, weight, dy, da, db);
    });
}

mf_status mf__cuda_cross_entropy(mf_device *d, int dtype, int64_t rows, int64_t columns, int index_dtype, const void *target, const void *x,
                                 void *y, void *lse) {
    MF_TRY(check("cross_entropy", dtype));
    MF_DISPATCH_REAL(dtype, T, {
        auto rule = mf_cross_entropy_rule<T>();
        rule.x = (const T *)x;
        rule.y = (T *)y;
        rule.columns = columns;
        rule.index_dtype = index_dtype;
        rule.target = target;
        rule.lse = (T *)lse;
        rule.fault = mf__cuda(d)->fault_device;
        rule.op = "cross_entropy";
        return mf__reduce(d, rule, rows, columns, 1, mf__aligned16(x));
    });
}

mf_status mf__cuda_cross_entropy_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, int index_dtype, const void *target, const void *x,
                                      const void *lse, const void *dy, void *dx) {
    MF_TRY(check("cross_entropy", dtype));
    const int64_t n = rows * columns;
    mf__cuda_work(d, 2.0 * (double)n, 2.0 * (double)n * (double)mf_dtype_bytes(dtype));
    MF_DISPATCH_REAL(dtype, T, return MF_LAUNCH(d, cross_entropy_grad_kernel<T>, mf__grid(d, n, 256), 256, 0, rows, columns, index_dtype, target,
                                                (const T *)x, (const T *)lse, (const T *)dy, (T *)dx));
}
