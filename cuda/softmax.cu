/* softmax.cu: logsumexp, softmax, log softmax and their gradient over the middle of (outer, middle, inner).
 *
 *     m = max x        s = sum exp(x - m)        lse = m + log s        y = exp(x - m) / s   or   x - lse
 *     dx = y (dy - sum y dy)                     logarithm: dx = dy - exp(y) sum dy
 *
 * Work      one exponential and one merge an element, one more exponential to write it
 * Traffic   x twice (the second time from a cache where a line fits), y once; the gradient y and dy twice, dx once
 * Mapping   reduce.cuh: a pair (m, s) is reduced by its own rule, then the same threads go over the line again; where a long
 *           line was cut, a last launch does
 * Numerics  of pairs: softmax.cuh. Lines whose x are all -inf have m = -inf and s = 0: they get zeros, a logarithm and logsumexp of -inf, and a gradient
 *           of zero through y = 0. NaN and +inf make s NaN, which spreads over the line.
 * Order     depends on the sizes alone: bitwise repeatable. */
#include "softmax.cuh"
#include "table.cuh"

template <class T> struct mf_logsumexp_rule : mf_exponentials<T> {
    using State = typename mf_exponentials<T>::State;
    enum { MAPS = 0 };
    __device__ void finish(int64_t out, State t) const { this->y[out] = mf__log_of(t); }
};

template <class T, bool LOGARITHM> struct mf_softmax_rule : mf_exponentials<T> {
    using State = typename mf_exponentials<T>::State;
    enum { MAPS = 1 };
    static __device__ T one(T x, T shift, T by) { return LOGARITHM ? (x - shift) - by : exp(x - shift) * by; }
    static __device__ void prepare(State t, T *shift, T *by) {
        const bool none = t.m == T(-INFINITY) && t.s == 0;    /* every x is -inf */
        *shift = t.m == T(-INFINITY) ? T(0) : t.m;
        *by = none ? T(0) : LOGARITHM ? log(t.s) : 1 / t.s;
    }
    template <int V> __device__ void map(int64_t at, State total) const {
        T shift, by;
        prepare(total, &shift, &by);
        mf_pack<T, V> v = mf__pack_at<V>(this->x + at);
#pragma unroll
        for (int j = 0; j < V; j++) v.v[j] = one(v.v[j], shift, by);
        *reinterpret_cast<mf_pack<T, V> *>(this->y + at) = v;
    }
    template <int V> __device__ void map_columns(int64_t at, const State *totals) const {
        mf_pack<T, V> v = mf__pack_at<V>(this->x + at);
#pragma unroll
        for (int j = 0; j < V; j++) {
            T shift, by;
            prepare(totals[j], &shift, &by);
            v.v[j] = one(v.v[j], shift, by);
        }
        *reinterpret_cast<mf_pack<T, V> *>(this->y + at) = v;
    }
};

/* sum y dy, or sum dy; then dx. */
template <class T, bool LOGARITHM> struct mf_softmax_grad_rule : mf_total_base<T> {
    using State = T;
    using Element = T;
    enum { VECTOR = sizeof(T) == 8 ? 2 : 4, READS = 2, MAPS = 1 };
    template <int V> struct Raw {
        mf_pack<T, V> y, dy;
    };
    const T *y, *dy;
    T *dx;
    mf_softmax_grad_rule(const void *y_, const void *dy_, void *dx_) : y((const T *)y_), dy((const T *)dy_), dx((T *)dx_) {}
    template <int V> __device__ Raw<V> fetch(int64_t at, int64_t, int64_t) const { return {mf__pack_at<V>(y + at), mf__pack_at<V>(dy + at)}; }
    template <int V> __device__ T value(const Raw<V> &raw, int j, int64_t) const { return LOGARITHM ? raw.dy.v[j] : raw.y.v[j] * raw.dy.v[j]; }
    static __device__ T one(T y, T dy, T total) { return LOGARITHM ? dy - exp(y) * total : y * (dy - total); }
    template <int V> __device__ void map(int64_t at, T total) const {
        const Raw<V> raw = fetch<V>(at, 0, 0);
        mf_pack<T, V> v;
#pragma unroll
        for (int j = 0; j < V; j++) v.v[j] = one(raw.y.v[j], raw.dy.v[j], total);
        *reinterpret_cast<mf_pack<T, V> *>(dx + at) = v;
    }
    template <int V> __device__ void map_columns(int64_t at, const T *totals) const {
        const Raw<V> raw = fetch<V>(at, 0, 0);
        mf_pack<T, V> v;
#pragma unroll
        for (int j = 0; j < V; j++) v.v[j] = one(raw.y.v[j], raw.dy.v[j], totals[j]);
        *reinterpret_cast<mf_pack<T, V> *>(dx + at) = v;
    }
};

static mf_status check(const char *op, int dtype) {
    if (dtype == MF_FLOAT32 || dtype == MF_FLOAT64) return MF_OK;
    return mf__fail(MF_ESUPPORT, "%s: no kernel for %s", op, mf_dtype_name(dtype));
}

mf_status mf__cuda_logsumexp(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y) {
    MF_TRY(check("logsumexp", dtype));
    MF_DISPATCH_REAL(dtype, T, {
        mf_logsumexp_rule<T> rule;
        rule.x = (const T *)x;
        rule.y = (T *)y;
        return mf__reduce(d, rule, outer, middle, inner, mf__aligned16(x));
    });
}

template <class T, bool LOGARITHM> static mf_status softmax(mf_device *d, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y) {
    mf_softmax_rule<T, LOGARITHM> rule;
    rule.x = (const T *)x;
    rule.y = (T *)y;
    return mf__reduce(d, rule, outer, middle, inner, mf__aligned16(x) && mf__aligned16(y));
}

mf_status mf__cuda_softmax(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y, int logarithm) {
    MF_TRY(check("softmax", dtype));
    if (middle == 0) return MF_OK;
    MF_DISPATCH_REAL(dtype, T, {
        if (logarithm) return softmax<T, true>(d, outer, middle, inner, x, y);
        return softmax<T, false>(d, outer, middle, inner, x, y);
    });
}

mf_status mf__cuda_softmax_grad(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *y, const void *dy, void *dx, int logarithm) {
    MF_TRY(check("softmax", dtype));
    if (middle == 0) return MF_OK;
    const bool aligned = mf__aligned16(y) && mf__aligned16(dy) && mf__aligned16(dx);
    MF_DISPATCH_REAL(dtype, T, {
        if (logarithm) return mf__reduce(d, mf_softmax_grad_rule<T, true>(y, dy, dx), outer, middle, inner, aligned);
        return mf__reduce(d, mf_softmax_grad_rule<T, false>(y, dy, dx), outer, middle, inner, aligned);
    });
}
