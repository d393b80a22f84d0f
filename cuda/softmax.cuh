/* softmax.cuh: the sum of exponentials as a rule of reduce.cuh: m = max x, s = sum exp(x - m).
 *
 * A pair merges as s = s_a + s_b exp(m_b - m_a), m_a the larger: one rescaling a level of the tree, no overflow. Nothing, and -inf,
 * is (-inf, 0); NaN and +inf make s NaN. Who finishes or maps the pair derives from this. */
#ifndef MF_CUDA_SOFTMAX_CUH
#define MF_CUDA_SOFTMAX_CUH
#include "reduce.cuh"

template <class T> struct mf_exponentials {
    struct State {
        T m, s;
    };
    using Element = T;
    enum { VECTOR = sizeof(T) == 8 ? 2 : 4, READS = 1 };
    const T *x;
    T *y;
    template <int V> __device__ mf_pack<T, V> fetch(int64_t at, int64_t, int64_t) const { return mf__pack_at<V>(x + at); }
    template <int V> __device__ State value(const mf_pack<T, V> &raw, int j, int64_t) const {
        const T v = raw.v[j];
        return v == T(-INFINITY) ? neutral() : State{v == v ? v : T(-INFINITY), 1 + (v - v)};
    }
    static __device__ State neutral() { return {T(-INFINITY), T(0)}; }
    static __device__ State merge(State a, State b) {
        const bool first = a.m >= b.m;
        const State high = first ? a : b, low = first ? b : a;
        const T scale = low.m == high.m ? T(1) : exp(low.m - high.m);
        return {high.m, high.s + low.s * scale};
    }
    static __device__ State shuffle(State a, int bits) {
        return {__shfl_xor_sync(0xffffffffu, a.m, bits), __shfl_xor_sync(0xffffffffu, a.s, bits)};
    }
};

/* log sum exp(x). */
template <class State> static __device__ inline auto mf__log_of(State t) { return t.m == -INFINITY && t.s == 0 ? t.m : t.m + log(t.s); }
#endif
