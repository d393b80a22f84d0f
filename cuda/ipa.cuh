/* ipa.cuh: what lift.cu and readout.cu share: their sizes and pointers as kernels take them, a residue's arrays in shared memory, rows
 * copied by a warp, points.
 *
 * A block takes one residue after the other, its warps the heads in turn: warp w those of w, w + warps, ... So no element needs a
 * division to find its head. What a residue needs is a few arrays, each in one piece in memory, that rows of points and of single
 * channels make small change of. So they go through shared memory: cp.async brings those of the next residue while this one is worked on,
 * and results are put together there and written 16 bytes a thread. Where they do not fit, kernels work on memory itself (STAGED). */
#ifndef MF_CUDA_IPA_CUH
#define MF_CUDA_IPA_CUH
#include "common.cuh"
#include "mma.cuh"

struct mf_ipa_sizes {
    int heads, hidden, query_points, value_points, rank, dz;  /* H, c, P, Pv, r, dz */
    int points, values;           /* columns of a head that points take in q and k, in v */
    int dqk, dv, ldq, ldv;
    int halves, split, sequences;
    double scale;
};

static inline mf_status mf__ipa_sizes(mf_ipa_sizes *s, const char *entry, const mf_ipa_args *a) {
    if (!mf__is_real(a->dtype)) return mf__fail(MF_ESUPPORT, "cuda.%s: takes float32 or float64, not %s", entry, mf_dtype_name(a->dtype));
    const int64_t widest = 3 * (a->ldq > a->ldv ? a->ldq : a->ldv) + 3 * a->dqk + 3 * a->dv;
    if (widest * a->heads > INT32_MAX)
        return mf__fail(MF_ESUPPORT, "cuda.%s: %lld heads of width %lld: a residue's row must stay under 2^31 elements", entry,
                        (long long)a->heads, (long long)widest);
    *s = mf_ipa_sizes{(int)a->heads, (int)a->hidden, (int)a->query_points, (int)a->value_points, (int)a->rank, (int)a->dz,
                      (int)((a->split ? 9 : 3) * a->query_points), (int)((a->split ? 6 : 3) * a->value_points), (int)a->dqk, (int)a->dv,
                      (int)a->ldq, (int)a->ldv, a->halves, a->split, (int)a->packing->count, a->scale};
    return MF_OK;
}

/* Threads of a block: a warp a head, at most eight. */
static inline unsigned mf__ipa_threads(const mf_ipa_args *a) { return 32u * (unsigned)(a->heads < 8 ? a->heads : 8); }

template <class T, int N> struct alignas(N * sizeof(T)) mf_pack {
    T x[N];
};

/* Arrays one after the other in shared memory, each where any access is aligned. */
struct mf_rooms {
    int64_t bytes = 0;
    int add(int64_t elements, int size) {
        const int64_t at = bytes;
        bytes += (elements * size + 15) / 16 * 16;
        return (int)at;
    }
};
/* Blocks of a kernel that needs `bytes` of shared memory, at most `most` a multiprocessor; each goes on to a further residue. */
static inline unsigned mf__ipa_blocks(const mf_device *d, int64_t n, int64_t bytes, int most) {
    const mf_cuda *c = mf__cuda(d);
    const int64_t fit = c->shared_limit / (bytes + 1024), each = fit < 1 ? 1 : fit < most ? fit : most, all = each * c->multiprocessors;
    return (unsigned)(n < all ? n : all);
}
/* Where an array of the residue is: in shared memory or where it came from. */
template <bool STAGED, class T> static __device__ __forceinline__ T *mf__room(unsigned char *room, int at, T *global) {
    if constexpr (STAGED) return (T *)(room + at);
    else return global;
}
/* Begins to bring `count` elements to `to`; all threads of the block. */
template <class T> static __device__ __forceinline__ void mf__fetch(unsigned char *to, const T *from, int count) {
    static_assert(sizeof(T) % 4 == 0);
    const mf_address at = mf__address(to);
    const int bytes = count * (int)sizeof(T);
    if (bytes % 16 == 0 && (uintptr_t)from % 16 == 0) {
        for (int j = 16 * (int)threadIdx.x; j < bytes; j += 16 * (int)blockDim.x) mf__copy16(at + j, (const char *)from + j, true);
    } else {
        for (int j = 4 * (int)threadIdx.x; j < bytes; j += 4 * (int)blockDim.x) mf__copy4(at + j, (const char *)from + j, true);
    }
}
/* `count` elements of shared memory to where they belong, 16 bytes a thread where both ends allow. */
template <class T> static __device__ __forceinline__ void mf__write_out(T *to, const T *from, int count) {
    constexpr int WIDE = 16 / (int)sizeof(T);
    if (count % WIDE == 0 && ((uintptr_t)to | (uintptr_t)from) % 16 == 0) {
        for (int j = (int)threadIdx.x; j < count / WIDE; j += (int)blockDim.x)
            ((mf_pack<T, WIDE> *)to)[j] = ((const mf_pack<T, WIDE> *)from)[j];
    } else {
        for (int j = (int)threadIdx.x; j < count; j += (int)blockDim.x) to[j] = from[j];
    }
}
/* K rows at once, two packs of each: all loads are on their way before the first store, for the compiler must take it that a store
 * may change what is loaded after it. */
template <int N, int K, class To, class From>
static __device__ __forceinline__ void mf__copy_packs(To *const (&to)[K], const From *const (&from)[K], const From (&scale)[K], int n) {
    for (int j = N * (int)(threadIdx.x & 31); j < n; j += 2 * 32 * N) {
        mf_pack<From, N> x[K][2] = {};
#pragma unroll
        for (int k = 0; k < K; k++)
#pragma unroll
            for (int m = 0; m < 2; m++)
                if (j + 32 * N * m < n) x[k][m] = *(const mf_pack<From, N> *)(from[k] + j + 32 * N * m);
#pragma unroll
        for (int k = 0; k < K; k++)
#pragma unroll
            for (int m = 0; m < 2; m++) {
                mf_pack<To, N> y;
#pragma unroll
                for (int l = 0; l < N; l++) y.x[l] = mf__to<To>(scale[k] * x[k][m].x[l]);
                if (to[k] && j + 32 * N * m < n) *(mf_pack<To, N> *)(to[k] + j + 32 * N * m) = y;
            }
    }
}
/* to = scale from, rows of n numbers, by a warp, in the widest accesses that all addresses and n allow, of at most
 * WIDEST elements: registers hold two of them for every row. A `to` may be NULL. */
template <int K, int WIDEST, class To, class From>
static __device__ __forceinline__ void mf__copy_rows(To *const (&to)[K], const From *const (&from)[K], const From (&scale)[K], int n) {
    uintptr_t reads = 0, writes = 0;
#pragma unroll
    for (int k = 0; k < K; k++) {
        reads |= (uintptr_t)from[k];
        writes |= (uintptr_t)to[k];
    }
    const auto fits = [&](int m) { return n % m == 0 && reads % (m * sizeof(From)) == 0 && writes % (m * sizeof(To)) == 0; };
    constexpr int WIDE = sizeof(From) == 4 ? WIDEST : 2;
    if (WIDE > 2 && fits(WIDE)) mf__copy_packs<WIDE>(to, from, scale, n);
    else if (fits(2)) mf__copy_packs<2>(to, from, scale, n);
    else mf__copy_packs<1>(to, from, scale, n);
}

/* The nearest number of 16 bits. */
template <class R> static __device__ __forceinline__ R mf__high(R x, int kind) {
    return kind == MF_FP16 ? mf__to<R>(mf__to<__half>(x)) : mf__to<R>(mf__to<__nv_bfloat16>(x));
}

/* gamma = softplus(w) sqrt(1 / (3 P 9/2)) */
template <class R> static __device__ __forceinline__ R mf__gamma_factor(int query_points) {
    return query_points > 0 ? sqrt(R(1) / (R(13.5) * (R)query_points)) : R(0);
}
template <class R> static __device__ __forceinline__ R mf__gamma(const R *head_weights, int head, int query_points) {
    const R w = head_weights[head];
    return (w > R(20) ? w : log1p(exp(w))) * mf__gamma_factor<R>(query_points);
}

template <class R> struct mf_frame {
    R x[12];                      /* the rotation, then the origin */
};
template <class R> static __device__ __forceinline__ mf_frame<R> mf__load_frame(const R *frames, int64_t i) {
    constexpr int WIDE = 16 / (int)sizeof(R);                  /* a tensor of its own: 12 numbers of a row keep the alignment */
    mf_frame<R> f;
#pragma unroll
    for (int j = 0; j < 12; j += WIDE) {
        const mf_pack<R, WIDE> x = *(const mf_pack<R, WIDE> *)(frames + 12 * i + j);
#pragma unroll
        for (int k = 0; k < WIDE; k++) f.x[j + k] = x.x[k];
    }
    return f;
}

/* The last sequence that begins at or before residue i: a warp looks at 32 of them at a time. */
static __device__ __forceinline__ int mf__sequence_of(const int32_t *offsets, int count, int64_t i) {
    const int lane = threadIdx.x & 31;
    int low = 0, high = count;
    while (high - low > 1) {
        const int step = (high - low + 31) / 32, at = low + lane * step;
        const unsigned before = __ballot_sync(0xffffffffu, at < high && offsets[at] <= i);
        low += (31 - __clz((int)before)) * step;
        high = high < low + step ? high : low + step;
    }
    return low;
}
#endif
