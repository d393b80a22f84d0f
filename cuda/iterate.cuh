/* iterate.cuh: kernels that go through an mf_iter element by element; the elementwise families stand on it.
 *
 *   y[c] = f(a[c], b[c], ...) for every coordinate c of the iteration
 *
 * The axes are sorted by the steps of the result and merged again, so the innermost one is what lies next to each other in
 * the result. A thread makes one vector, 16 bytes of the widest type, of one row; rows are found by division with a
 * multiplication. An operand that steps by 1 and is aligned is moved as a whole vector, one that stays (a bias over rows, a
 * column, a number) is read once, any other is read element by element: so same shapes, biases, columns and views take one
 * kernel. Rows whose length is no multiple of the vector take the kernel with vectors of one element, neighbours in neighbouring
 * threads. Iterations of 2^31 vectors and more are cut in halves: indices inside are 32 bits, addresses 64.
 *
 * Traffic is the operands once; all of them are bandwidth bound but powers and the error function in double.
 * Results depend on no order: deterministic. */
#ifndef MF_CUDA_ITERATE_CUH
#define MF_CUDA_ITERATE_CUH
#include "common.cuh"
#include <utility>

/* n / divisor for n and divisor below 2^31 (Granlund and Montgomery 1994). */
struct mf_divider {
    uint32_t divisor, factor, shift;
    __host__ __device__ uint32_t quotient(uint32_t n) const { return ((uint32_t)((uint64_t)n * factor >> 32) + n) >> shift; }
};
static inline mf_divider mf__divider(uint32_t divisor) {
    uint32_t shift = 0;
    while (((uint64_t)1 << shift) < divisor) shift++;
    return {divisor, (uint32_t)((((uint64_t)1 << shift) - divisor) * ((uint64_t)1 << 32) / divisor + 1), shift};
}

struct mf_nothing {};             /* the type of an operand that is not there */

template <int N> struct mf_steps {
    uint32_t vectors;             /* in all */
    int axes;                     /* but the innermost; [0] is the one next to it */
    int64_t inner;                /* elements of a row */
    mf_divider row;               /* vectors of a row */
    mf_divider size[MF_MAX_DIMS];
    int64_t stride[MF_MAX_DIMS][N];
    int64_t step[N];              /* along the row; elements */
    uint32_t whole;               /* bit k: operand k moves as whole vectors */
    void *data[N];
};

template <class T, int V> struct alignas(sizeof(T) * V) mf_vector { T at[V]; };

template <int V, class T>
static __device__ inline void mf__fetch(T (&x)[V], const void *base, int64_t offset, int64_t step, bool whole, int count) {
    const T *p = (const T *)base + offset;
    if constexpr (V > 1) {
        if (whole && count == V) {
            const mf_vector<T, V> v = *(const mf_vector<T, V> *)p;
#pragma unroll
            for (int k = 0; k < V; k++) x[k] = v.at[k];
            return;
        }
        if (step == 0) {
            const T one = *p;
#pragma unroll
            for (int k = 0; k < V; k++) x[k] = one;
            return;
        }
    }
#pragma unroll
    for (int k = 0; k < V; k++) x[k] = p[k < count ? k * step : 0];
}

template <int V, class R, class A, class B, class C, class F, int N>
static __global__ void __launch_bounds__(256) each_kernel(const mf_steps<N> s, const F f) {
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < s.vectors; i += gridDim.x * blockDim.x) {
        int64_t at[N] = {}, column = (int64_t)i * V;
        if (s.axes > 0) {
            uint32_t rest = s.row.quotient(i);
            column = (int64_t)(i - rest * s.row.divisor) * V;
            for (int axis = 0; axis < s.axes; axis++) {
                const uint32_t next = s.size[axis].quotient(rest), here = rest - next * s.size[axis].divisor;
#pragma unroll
                for (int k = 0; k < N; k++) at[k] += here * s.stride[axis][k];
                rest = next;
            }
        }
        const int count = V == 1 || s.inner - column >= V ? V : (int)(s.inner - column);
#pragma unroll
        for (int k = 0; k < N; k++) at[k] += column * s.step[k];

        R y[V];
        A a[V];
        B b[V];
        C c[V];
        if constexpr (N > 1) mf__fetch<V>(a, s.data[1], at[1], s.step[1], s.whole >> 1 & 1, count);
        if constexpr (N > 2) mf__fetch<V>(b, s.data[2], at[2], s.step[2], s.whole >> 2 & 1, count);
        if constexpr (N > 3) mf__fetch<V>(c, s.data[3], at[3], s.step[3], s.whole >> 3 & 1, count);
#pragma unroll
        for (int k = 0; k < V; k++) {
            if constexpr (N == 1) y[k] = f();
            else if constexpr (N == 2) y[k] = f(a[k]);
            else if constexpr (N == 3) y[k] = f(a[k], b[k]);
            else y[k] = f(a[k], b[k], c[k]);
        }
        R *to = (R *)s.data[0] + at[0];
        if (V > 1 && (s.whole & 1) && count == V) {
            mf_vector<R, V> v;
#pragma unroll
            for (int k = 0; k < V; k++) v.at[k] = y[k];
            *(mf_vector<R, V> *)to = v;
        } else {
#pragma unroll
            for (int k = 0; k < V; k++)
                if (k < count) to[k * s.step[0]] = y[k];
        }
    }
}

/* Sorts the axes by the steps of operand 0, largest first, and merges those that every operand walks evenly. */
static inline void mf__arrange(mf_iter *it) {
    for (int i = 1; i < it->ndim; i++)
        for (int j = i; j > 0; j--) {
            int k = 0;
            while (k < it->n_operands && it->operand[k].stride[j - 1] == it->operand[k].stride[j]) k++;
            if (k == it->n_operands || it->operand[k].stride[j - 1] > it->operand[k].stride[j]) break;
            std::swap(it->shape[j - 1], it->shape[j]);
            for (int n = 0; n < it->n_operands; n++) std::swap(it->operand[n].stride[j - 1], it->operand[n].stride[j]);
        }
    int kept = 0;
    for (int axis = 0; axis < it->ndim; axis++) {
        if (it->shape[axis] == 1 && it->ndim > 1 && (kept > 0 || axis + 1 < it->ndim)) continue;
        bool joins = kept > 0;
        for (int n = 0; joins && n < it->n_operands; n++)
            joins = it->operand[n].stride[kept - 1] == it->operand[n].stride[axis] * it->shape[axis];
        if (joins) it->shape[kept - 1] *= it->shape[axis];
        else it->shape[kept++] = it->shape[axis];
        for (int n = 0; n < it->n_operands; n++) it->operand[n].stride[kept - 1] = it->operand[n].stride[axis];
    }
    it->ndim = kept;
}

/* Bytes that one walk reads and writes: an axis along which an operand repeats counts once. */
static inline double mf__iter_bytes(const mf_iter *it) {
    double sum = 0;
    for (int k = 0; k < it->n_operands; k++) {
        double bytes = (double)mf_dtype_bytes(it->operand[k].dtype);
        for (int axis = 0; axis < it->ndim; axis++) bytes *= it->operand[k].stride[axis] == 0 ? 1 : (double)it->shape[axis];
        sum += bytes;
    }
    return sum;
}

static const int64_t MF_ITER_MOST = (int64_t)1 << 31;

/* Halves of the longest axis; the first has a multiple of 16 elements, so that alignment stays. */
static inline void mf__iter_halve(mf_iter half[2], const mf_iter *it) {
    int axis = 0;
    for (int i = 1; i < it->ndim; i++)
        if (it->shape[i] >= it->shape[axis]) axis = i;
    const int64_t first = it->shape[axis] / 2 >= 16 ? it->shape[axis] / 2 / 16 * 16 : it->shape[axis] / 2;
    half[0] = half[1] = *it;
    half[0].shape[axis] = first;
    half[1].shape[axis] -= first;
    for (int k = 0; k < it->n_operands; k++)
        half[1].operand[k].data = (char *)it->operand[k].data + first * it->operand[k].stride[axis] * mf_dtype_bytes(it->operand[k].dtype);
}

template <int V, class R, class A, class B, class C, class F, int N>
static inline mf_status mf__each_launch(mf_device *d, const char *name, const mf_iter *it, const mf_steps<N> &steps, F f, double operations) {
    const unsigned block = steps.vectors < 65536 ? 128 : 256;
    double count = 1;
    for (int axis = 0; axis < it->ndim; axis++) count *= (double)it->shape[axis];
    mf__cuda_work(d, operations * count, mf__iter_bytes(it));
    return mf__cuda_launch(d, name, each_kernel<V, R, A, B, C, F, N>, dim3(mf__grid(d, steps.vectors, block)), dim3(block), 0, steps, f);
}

/* it: arranged. `vectorised` runs where rows are vectors, `plain` elsewhere; they compute the same. */
template <class R, class A, class B, class C, class F, class G>
static mf_status mf__each_arranged(mf_device *d, const char *name, const mf_iter *it, F vectorised, G plain, double operations) {
    constexpr int N = std::is_same_v<A, mf_nothing> ? 1 : std::is_same_v<B, mf_nothing> ? 2 : std::is_same_v<C, mf_nothing> ? 3 : 4;
    constexpr size_t two = sizeof(R) > sizeof(A) ? sizeof(R) : sizeof(A), other = sizeof(B) > sizeof(C) ? sizeof(B) : sizeof(C);
    constexpr int V = 16 / (int)(two > other ? two : other);
    const int inner = it->ndim - 1;
    int64_t rows = 1;
    for (int axis = 0; axis < inner; axis++) rows *= it->shape[axis];
    if (rows * it->shape[inner] == 0) return MF_OK;

    mf_steps<N> s = {};
    for (int k = 0; k < N; k++) {
        const int64_t bytes = mf_dtype_bytes(it->operand[k].dtype) * V;
        bool whole = it->operand[k].stride[inner] == 1 && (uintptr_t)it->operand[k].data % (uintptr_t)bytes == 0;
        for (int axis = 0; axis < inner; axis++) whole = whole && it->operand[k].stride[axis] % V == 0;
        s.whole |= (uint32_t)whole << k;
        s.data[k] = it->operand[k].data;
        s.step[k] = it->operand[k].stride[inner];
        for (int axis = 0; axis < inner; axis++) s.stride[axis][k] = it->operand[k].stride[inner - 1 - axis];
    }
    const bool vectors = (s.whole & 1) && (inner == 0 || it->shape[inner] % V == 0);
    const int64_t per_row = vectors ? mf__blocks(it->shape[inner], V) : it->shape[inner];
    if (rows * per_row >= MF_ITER_MOST) {
        mf_iter half[2];
        mf__iter_halve(half, it);
        MF_TRY((mf__each_arranged<R, A, B, C>(d, name, &half[0], vectorised, plain, operations)));
        return mf__each_arranged<R, A, B, C>(d, name, &half[1], vectorised, plain, operations);
    }
    s.vectors = (uint32_t)(rows * per_row);
    s.axes = inner;
    s.inner = it->shape[inner];
    s.row = mf__divider((uint32_t)per_row);
    for (int axis = 0; axis < inner; axis++) s.size[axis] = mf__divider((uint32_t)it->shape[inner - 1 - axis]);
    if (vectors) return mf__each_launch<V, R, A, B, C>(d, name, it, s, vectorised, operations);
    return mf__each_launch<1, R, A, B, C>(d, name, it, s, plain, operations);
}

/* f over every element: R the type of operand 0, A, B, C of the others, mf_nothing where there is none. `name` is what
 * mf.profile shows, `operations` the price of an element. */
template <class R, class A, class B, class C, class F, class G>
static inline mf_status mf__each(mf_device *d, const char *name, const mf_iter *given, F vectorised, G plain, double operations) {
    mf_iter it = *given;
    mf__arrange(&it);
    return mf__each_arranged<R, A, B, C>(d, name, &it, vectorised, plain, operations);
}
#endif
