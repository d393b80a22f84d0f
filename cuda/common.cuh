/* common.cuh: what every kernel file stands on: a device's state, launching, element types, warp sums. Nothing about operators.
 *
 * A kernel family is one file with the name it has in core/cpu: note, device code, kernels, launchers. Launchers are the
 * entries of core/ops/kernels.h, named mf__cuda_<entry> (table.cuh), and never synchronise: they see sizes and device pointers, put
 * kernels on the device's one stream with MF_LAUNCH and return. What only the device can know to be wrong (an index out of
 * range) is noted in the device's mf_fault and raised when the host next waits for the device.
 *
 *     static __global__ void fill_kernel(float *x, int64_t n, float value) { ... }
 *     mf_status mf__cuda_fill(mf_device *d, ...) { return MF_LAUNCH(d, fill_kernel, mf__grid(d, n, 256), 256, 0, x, n, value); }
 *
 * The same sources are compiled for the host with MF_EMULATE (emulate/), where threads are fibers: so kernels use __shared__
 * or MF_SHARED for shared memory, the usual intrinsics, and inline PTX only in mma.cuh and hopper.cuh, which have both versions. */
#ifndef MF_CUDA_COMMON_CUH
#define MF_CUDA_COMMON_CUH
#ifdef MF_EMULATE
#include "emulate/emulate.h"
#else
#include <cuda_runtime.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif
#include <type_traits>
extern "C" {
#include "../core/base/error.h"
#include "../core/ops/kernels.h"
#include "../core/tensor/tensor.h"
}

/* What a kernel found to be wrong: the first to raise it writes. Lives in pinned memory that the device sees. */
enum { MF_FAULT_NONE, MF_FAULT_INDEX, MF_FAULT_FINITE };
struct mf_fault {
    int raised;
    int what;                     /* MF_FAULT_* */
    long long value, bound;       /* index and size */
    const char *op;               /* a literal of the host */
};

struct mf_cuda_pool;              /* pool.cu */
struct mf_cuda_blas;              /* gemm.cu */
struct mf_cuda_capture;           /* capture.cu */
struct mf_cuda_profile;           /* profile.cu */
struct mf_cuda_staging;           /* backend.cu */
struct mf_cuda {                  /* mf_device.state */
    int index;                    /* of the GPU */
    int capability;               /* 80, 90, ... */
    int multiprocessors;
    double peak_bytes, peak_operations[4]; /* a second, by the clocks; of MF_UNIT_*: the roofline of mf.profile */
    int64_t shared_limit;         /* bytes of shared memory that one block may ask for */
    cudaStream_t stream;
    mf_cuda_pool *pool;
    mf_cuda_staging *staging;
    mf_cuda_blas *blas;           /* made at the first product */
    mf_cuda_capture *capture;     /* while a graph is captured */
    mf_cuda_profile *profile;     /* while mf.profile runs */
    mf_fault *fault;              /* as the host sees it; */
    mf_fault *fault_device;       /* and as kernels do */
};
static inline mf_cuda *mf__cuda(const mf_device *d) { return (mf_cuda *)d->state; }

mf_status mf__cuda_status(cudaError_t error, const char *what);   /* MF_OK, or the text of the error */
mf_status mf__cuda_enter(mf_device *d);                           /* makes the GPU current; every launch does */
void mf__cuda_blas_close(mf_device *d);                           /* gemm.cu */
const int32_t *mf__cuda_offsets(mf_device *d, const mf_packing *packing, mf_status *status); /* count + 1, on the device */
bool mf__cuda_deterministic(const mf_device *d);                  /* no sums whose order varies */

/* Memory for the length of a launcher: given back to the pool in stream order. */
struct mf_scratch {
    mf_device *device = nullptr;
    void *data = nullptr;
    int64_t bytes = 0;
    mf_status take(mf_device *d, int64_t bytes_wanted);
    template <class T> T *as() const { return (T *)data; }
    mf_scratch() = default;
    mf_scratch(const mf_scratch &) = delete;
    mf_scratch &operator=(const mf_scratch &) = delete;
    ~mf_scratch();
};

/* Random draws: while a graph is captured the counter moves on by *advance at each replay; NULL otherwise. */
struct mf_draw {
    mf_rng rng;
    const uint64_t *advance;
};
mf_draw mf__cuda_draw(mf_device *d, mf_rng rng);
static inline __device__ mf_rng mf__draw_rng(mf_draw draw) {
    if (draw.advance) draw.rng.counter += *draw.advance;
    return draw.rng;
}

/* Operations and bytes (read and written once) of the next launch, and the unit that does them, for mf.profile. */
enum { MF_UNIT_FP32, MF_UNIT_FP64, MF_UNIT_TF32, MF_UNIT_FP16 };
void mf__cuda_work(mf_device *d, double operations, double bytes, int unit = MF_UNIT_FP32);

/* ---- launching ---- */
mf_status mf__cuda_before(mf_device *d, const char *name, const void *kernel, int64_t shared_bytes);
mf_status mf__cuda_after(mf_device *d, const char *name);

template <class... P, class... A>
static inline mf_status mf__cuda_launch(mf_device *d, const char *name, void (*kernel)(P...), dim3 grid, dim3 block, int64_t shared_bytes,
                                        A... arguments) {
    if ((int64_t)grid.x * grid.y * grid.z == 0) return MF_OK;
    MF_TRY(mf__cuda_before(d, name, (const void *)kernel, shared_bytes));
#ifdef MF_EMULATE
    mf__emulate_or_record([=] {
        mf__emulate_arguments(name, arguments...);
        mf__emulate(grid, block, shared_bytes, [&] { kernel(static_cast<P>(arguments)...); });
    });
#else
    kernel<<<grid, block, (size_t)shared_bytes, mf__cuda(d)->stream>>>(static_cast<P>(arguments)...);
#endif
    return mf__cuda_after(d, name);
}
/* kernel: in parentheses where its template arguments have commas. An empty grid launches nothing. */
#define MF_LAUNCH(d, kernel, grid, block, shared_bytes, ...) \
    mf__cuda_launch((d), #kernel, (kernel), dim3(grid), dim3(block), (shared_bytes), __VA_ARGS__)

/* Dynamic shared memory as an array of `type`; one per kernel. */
#ifndef MF_EMULATE
#define MF_SHARED(type, name)                                          \
    extern __shared__ __align__(128) unsigned char mf__shared_bytes[]; \
    type *name = reinterpret_cast<type *>(mf__shared_bytes)
#endif

/* Blocks for a grid-stride loop over n items: enough to fill the device, never more than needed. */
static inline unsigned mf__grid(const mf_device *d, int64_t n, int64_t per_block) {
    const int64_t wanted = (n + per_block - 1) / per_block, most = (int64_t)mf__cuda(d)->multiprocessors * 32;
    return (unsigned)(wanted < most ? wanted : most);
}
static inline int64_t mf__blocks(int64_t n, int64_t per_block) { return (n + per_block - 1) / per_block; }
#define MF_GRID_LOOP(i, n) \
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (int64_t)gridDim.x * blockDim.x)

/* ---- element types ---- */
/* Runs the statements once with T the type of `dtype`; the launcher has refused other types before. */
#define MF_DISPATCH_REAL(dtype, T, ...)                      \
    do {                                                     \
        if ((dtype) == MF_FLOAT64) { using T = double; __VA_ARGS__; } \
        else { using T = float; __VA_ARGS__; }               \
    } while (0)
#define MF_DISPATCH_FLOAT(dtype, T, ...)                     \
    do {                                                     \
        switch (dtype) {                                     \
        case MF_FLOAT64: { using T = double; __VA_ARGS__; break; }         \
        case MF_BFLOAT16: { using T = __nv_bfloat16; __VA_ARGS__; break; } \
        case MF_FLOAT16: { using T = __half; __VA_ARGS__; break; }         \
        default: { using T = float; __VA_ARGS__; break; }    \
        }                                                    \
    } while (0)
#define MF_DISPATCH_ALL(dtype, T, ...)                       \
    do {                                                     \
        switch (dtype) {                                     \
        case MF_INT32: { using T = int32_t; __VA_ARGS__; break; } \
        case MF_INT64: { using T = int64_t; __VA_ARGS__; break; } \
        case MF_BOOL: { using T = bool; __VA_ARGS__; break; }     \
        default: MF_DISPATCH_FLOAT(dtype, T, __VA_ARGS__);   \
        }                                                    \
    } while (0)

/* What arithmetic on T is done in: 16-bit types in float, bool and int32 in int64 as the CPU does. */
template <class T> struct mf_wide { using type = T; };
template <> struct mf_wide<__half> { using type = float; };
template <> struct mf_wide<__nv_bfloat16> { using type = float; };
template <> struct mf_wide<bool> { using type = int64_t; };
template <> struct mf_wide<int32_t> { using type = int64_t; };
template <class T> using mf_wide_t = typename mf_wide<T>::type;

template <class To, class From> static __host__ __device__ inline To mf__to(From x) {
    constexpr bool sixteen = std::is_same_v<To, __half> || std::is_same_v<To, __nv_bfloat16>;
    if constexpr (std::is_same_v<To, From>) return x;
    else if constexpr (std::is_same_v<From, __half>) return mf__to<To>(__half2float(x));
    else if constexpr (std::is_same_v<From, __nv_bfloat16>) return mf__to<To>(__bfloat162float(x));
    else if constexpr (sixteen && std::is_same_v<From, double>) {
        if constexpr (std::is_same_v<To, __half>) return __double2half(x);       /* rounded once */
        else return __double2bfloat16(x);
    } else if constexpr (std::is_same_v<To, __half>) return __float2half_rn((float)x);
    else if constexpr (std::is_same_v<To, __nv_bfloat16>) return __float2bfloat16_rn((float)x);
    else if constexpr (std::is_same_v<To, bool>) return x != From(0);
    else return (To)x;
}

/* ---- sums within a warp and a block; every thread gets the result; the order is fixed ---- */
template <class T, class F> static __device__ inline T mf__warp_all(T x, F combine) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x = combine(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}
template <class T> static __device__ inline T mf__warp_sum(T x) {
    return mf__warp_all(x, [](T a, T b) { return a + b; });
}
template <class T> static __device__ inline T mf__warp_max(T x) {
    return mf__warp_all(x, [](T a, T b) { return a > b ? a : b; });
}
/* `slots` is shared, 32 values; blockDim.x a multiple of 32; may be called again at once. */
template <class T, class F> static __device__ inline T mf__block_all(T x, T *slots, T neutral, F combine) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    x = mf__warp_all(x, combine);
    __syncthreads();
    if (lane == 0) slots[warp] = x;
    __syncthreads();
    return mf__warp_all(lane < (int)(blockDim.x >> 5) ? slots[lane] : neutral, combine);
}
template <class T> static __device__ inline T mf__block_sum(T x, T *slots) {
    return mf__block_all(x, slots, T(0), [](T a, T b) { return a + b; });
}

static __device__ inline void mf__raise(mf_fault *fault, int what, const char *op, long long value, long long bound) {
    if (atomicCAS(&fault->raised, 0, 1) != 0) return;
    fault->what = what;
    fault->value = value;
    fault->bound = bound;
    fault->op = op;
}
/* Notes that an index is out of range, once. */
static __device__ inline void mf__raise_index(mf_fault *fault, const char *op, long long value, long long bound) {
    mf__raise(fault, MF_FAULT_INDEX, op, value, bound);
}
/* Notes that a coordinate is not finite: `sentence` is a literal of the host that says so, with a %lld for the residue and one for the
 * sequence, both from 1. */
static __device__ inline void mf__raise_finite(mf_fault *fault, const char *sentence, long long residue, long long sequence) {
    mf__raise(fault, MF_FAULT_FINITE, sentence, residue, sequence);
}
#endif
