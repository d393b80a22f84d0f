/* emulate.h: the language of CUDA kernels for a host compiler, so that the sources of cuda/ can be tested where no GPU is.
 *
 *     g++ -x c++ -std=c++20 -DMF_EMULATE cuda/norm.cu
 *
 * Threads are fibers (emulate.cpp): the threads of a block run in turn, each until it waits for others at a barrier or in a warp
 * operation, blocks one after the other. The calls of the CUDA runtime are in runtime.cpp, arithmetic by CUDA's names in
 * intrinsics.h; the instructions of sm_90a in hopper.h; vector types, float16 and bfloat16 are NVIDIA's own headers, which a host
 * compiler takes.
 *
 * What it proves: indices, sizes and tails (blocks of device memory end at a protected page, arrays with a size are checked by
 * -fsanitize=bounds); that vectors are loaded at their alignment (-fsanitize=alignment); that every thread reaches every barrier and
 * every lane of a mask its warp operation, or an abort says who waits where; that no dynamic shared memory is read before it is
 * written (it holds NaN) or past its end; that kernels get no pointer to memory of the host, and with MOONFOLD_EMULATE_STRICT=1 that
 * the host does not touch the device's; with MOONFOLD_EMULATE_ORDER=random:1 that results do not hang on the order in which
 * threads and blocks run: a missing barrier shows.
 *
 * What it cannot: time, the memory model (what another thread wrote is seen at once; volatile and fences say nothing), races
 * between threads that never switch in between, registers and launch bounds, initial values of static __shared__ arrays (they
 * hold what the block before left), the last bits of device functions (products and sums are contracted to fma where the host
 * has it, as nvcc does by default, though perhaps not the same ones), asynchrony of streams (every call has ended when it returns).
 *
 * Environment: MOONFOLD_EMULATE_ORDER=random:<seed>; MOONFOLD_EMULATE_STRICT=1 closes device memory to the host (each launch
 * then costs 0.2 ms and more); MOONFOLD_EMULATE_MEMORY=<bytes> of the device (4 GiB); MOONFOLD_EMULATE_DEVICES (1);
 * MOONFOLD_EMULATE_CAPABILITY (90; 80: what answers where warpgroups cannot). */
#ifndef MF_CUDA_EMULATE_H
#define MF_CUDA_EMULATE_H
#include <cassert>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <math.h>
#include <memory>                 /* before host_defines.h, whose __noinline__ the library's headers would trip over */
#include <type_traits>
#include <utility>
#include <cuda_runtime_api.h>
#include <vector_functions.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __launch_bounds__
#undef __grid_constant__
#undef __noinline__
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __noinline__ __attribute__((noinline))

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

/* Runs body once for every thread of the grid. */
void mf__emulate_run(dim3 grid, dim3 block, int64_t shared_bytes, void (*body)(void *), void *argument);
template <class F> static inline void mf__emulate(dim3 grid, dim3 block, int64_t shared_bytes, F &&body) {
    mf__emulate_run(grid, block, shared_bytes, [](void *f) { (*static_cast<std::remove_reference_t<F> *>(f))(); }, &body);
}

/* Does the work of the stream now, or, while a graph is captured, at each of its replays. */
void mf__emulate_or_record(std::function<void()> work);

/* Before a launch: the kernel's name for messages, and that no argument points to memory of the host: pointers themselves, and
 * words of structures that look like one. */
void mf__emulate_name(const char *kernel);
void mf__emulate_argument(const void *bytes, int64_t size, int position);
template <class A> static inline void mf__emulate_scan(A argument, int position) {
    if constexpr (!std::is_same_v<A, const char *> && !std::is_arithmetic_v<A>) {
        __builtin_clear_padding(&argument);          /* where anything may lie */
        mf__emulate_argument(&argument, (int64_t)sizeof argument, position);
    }
}
template <class... A> static inline void mf__emulate_arguments(const char *kernel, const A &...arguments) {
    mf__emulate_name(kernel);
    [[maybe_unused]] int position = 0;
    (mf__emulate_scan<A>(arguments, ++position), ...);
}

/* Dynamic shared memory; NaN when a block starts. */
void *mf__emulate_shared();
#define MF_SHARED(type, name) type *name = static_cast<type *>(mf__emulate_shared())

/* ---- barriers ---- */
/* Waits until `threads` of the block (0: all that have not returned) are at barrier `id` (0 to 15). Gives how many predicates
 * were true. `kind` tells apart what must not meet. */
int mf__emulate_barrier(int id, int threads, int kind, bool predicate);
static inline void __syncthreads() { mf__emulate_barrier(0, 0, 0, false); }
static inline int __syncthreads_count(int p) { return mf__emulate_barrier(0, 0, 1, p != 0); }
static inline int __syncthreads_or(int p) { return mf__emulate_barrier(0, 0, 2, p != 0) != 0; }
static inline int __syncthreads_and(int p) { return mf__emulate_barrier(0, 0, 3, p == 0) == 0; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}

/* ---- warp operations ---- */
/* Every lane of `mask` that has not returned meets here; then `act` runs once with what each lane brought (NULL: lane absent). */
typedef void mf__warp_act(void *const lanes[32]);
void mf__warp_meet(unsigned mask, mf__warp_act *act, void *mine);
static inline unsigned mf__emulate_thread() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
static inline int mf__emulate_lane() { return (int)(mf__emulate_thread() & 31); }

static inline void mf__nothing_act(void *const *) {}
static inline void __syncwarp(unsigned mask = 0xffffffffu) { mf__warp_meet(mask, mf__nothing_act, &mask); }
static inline unsigned __activemask() { return 1u << mf__emulate_lane(); }   /* nothing more may be relied on */

template <class T> struct mf__shuffle {
    T value, result;
    int source;
};
template <class T> static void mf__shuffle_act(void *const *lanes) {
    for (int i = 0; i < 32; i++) {
        mf__shuffle<T> *s = static_cast<mf__shuffle<T> *>(lanes[i]);
        if (!s) continue;
        const mf__shuffle<T> *from = static_cast<mf__shuffle<T> *>(lanes[s->source]);
        if (from) memcpy((void *)&s->result, (const void *)&from->value, sizeof(T));
        else memset((void *)&s->result, 0xff, sizeof(T));    /* from an absent lane: anything */
    }
}
template <class T> static inline T mf__shuffle_from(unsigned mask, T value, int source) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 2, "shuffles move 2, 4 or 8 bytes");
    mf__shuffle<T> s;
    s.value = value;
    s.source = source;
    mf__warp_meet(mask, mf__shuffle_act<T>, &s);
    return s.result;
}
template <class T> static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    return mf__shuffle_from(mask, value, (mf__emulate_lane() & ~(width - 1)) | (source & (width - 1)));
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const int lane = mf__emulate_lane(), from = lane - (int)delta;
    return mf__shuffle_from(mask, value, from < (lane & ~(width - 1)) ? lane : from);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const int lane = mf__emulate_lane(), from = lane + (int)delta;
    return mf__shuffle_from(mask, value, from > (lane | (width - 1)) ? lane : from);
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    const int lane = mf__emulate_lane(), from = lane ^ bits;
    return mf__shuffle_from(mask, value, from > (lane | (width - 1)) ? lane : from);
}

struct mf__vote {
    unsigned value, result;
};
void mf__ballot_act(void *const *lanes);
void mf__sum_act(void *const *lanes);
void mf__min_act(void *const *lanes);
void mf__max_act(void *const *lanes);
void mf__signed_min_act(void *const *lanes);
void mf__signed_max_act(void *const *lanes);
void mf__and_act(void *const *lanes);
void mf__or_act(void *const *lanes);
void mf__xor_act(void *const *lanes);
static inline unsigned mf__vote_of(unsigned mask, mf__warp_act *act, unsigned value) {
    mf__vote v = {value, 0};
    mf__warp_meet(mask, act, &v);
    return v.result;
}
static inline unsigned __ballot_sync(unsigned mask, int p) { return mf__vote_of(mask, mf__ballot_act, p != 0); }
static inline int __any_sync(unsigned mask, int p) { return mf__vote_of(mask, mf__or_act, p != 0) != 0; }
static inline int __all_sync(unsigned mask, int p) { return mf__vote_of(mask, mf__and_act, p != 0) != 0; }
static inline unsigned __reduce_add_sync(unsigned mask, unsigned x) { return mf__vote_of(mask, mf__sum_act, x); }
static inline int __reduce_add_sync(unsigned mask, int x) { return (int)mf__vote_of(mask, mf__sum_act, (unsigned)x); }
static inline unsigned __reduce_min_sync(unsigned mask, unsigned x) { return mf__vote_of(mask, mf__min_act, x); }
static inline int __reduce_min_sync(unsigned mask, int x) { return (int)mf__vote_of(mask, mf__signed_min_act, (unsigned)x); }
static inline unsigned __reduce_max_sync(unsigned mask, unsigned x) { return mf__vote_of(mask, mf__max_act, x); }
static inline int __reduce_max_sync(unsigned mask, int x) { return (int)mf__vote_of(mask, mf__signed_max_act, (unsigned)x); }
static inline unsigned __reduce_and_sync(unsigned mask, unsigned x) { return mf__vote_of(mask, mf__and_act, x); }
static inline unsigned __reduce_or_sync(unsigned mask, unsigned x) { return mf__vote_of(mask, mf__or_act, x); }
static inline unsigned __reduce_xor_sync(unsigned mask, unsigned x) { return mf__vote_of(mask, mf__xor_act, x); }
template <class T> static void mf__match_act(void *const *lanes) {
    for (int i = 0; i < 32; i++) {
        if (!lanes[i]) continue;
        auto *mine = static_cast<std::pair<T, unsigned> *>(lanes[i]);
        mine->second = 0;
        for (int j = 0; j < 32; j++)
            if (lanes[j] && !memcmp(&static_cast<std::pair<T, unsigned> *>(lanes[j])->first, &mine->first, sizeof(T))) mine->second |= 1u << j;
    }
}
template <class T> static inline unsigned __match_any_sync(unsigned mask, T value) {
    std::pair<T, unsigned> mine(value, 0);
    mf__warp_meet(mask, mf__match_act<T>, &mine);
    return mine.second;
}

/* ---- atomics: a thread is never interrupted between two of its instructions ---- */
template <class T, class U> static inline T atomicAdd(T *p, U x) { const T old = *p; *p = (T)(old + (T)x); return old; }
template <class T, class U> static inline T atomicSub(T *p, U x) { const T old = *p; *p = (T)(old - (T)x); return old; }
template <class T, class U> static inline T atomicExch(T *p, U x) { const T old = *p; *p = (T)x; return old; }
template <class T, class U> static inline T atomicMax(T *p, U x) { const T old = *p; if ((T)x > old) *p = (T)x; return old; }
template <class T, class U> static inline T atomicMin(T *p, U x) { const T old = *p; if ((T)x < old) *p = (T)x; return old; }
template <class T, class U> static inline T atomicAnd(T *p, U x) { const T old = *p; *p = old & (T)x; return old; }
template <class T, class U> static inline T atomicOr(T *p, U x) { const T old = *p; *p = old | (T)x; return old; }
template <class T, class U> static inline T atomicXor(T *p, U x) { const T old = *p; *p = old ^ (T)x; return old; }
template <class T, class U, class V> static inline T atomicCAS(T *p, U expected, V x) {
    const T old = *p;
    if (old == (T)expected) *p = (T)x;
    return old;
}
static inline unsigned atomicInc(unsigned *p, unsigned most) { const unsigned old = *p; *p = old >= most ? 0 : old + 1; return old; }
static inline unsigned atomicDec(unsigned *p, unsigned most) {
    const unsigned old = *p;
    *p = old == 0 || old > most ? most : old - 1;
    return old;
}

/* ---- bulk additions from shared to global memory (hopper.cpp): as late as the thread's wait, in random order perhaps at once ---- */
void mf__emulate_bulk(float *to, const void *from, int floats);
void mf__emulate_bulk_commit();
void mf__emulate_bulk_wait();

#include "intrinsics.h"

/* ---- the runtime's templates, for kernels by their own type ---- */
template <class... P> static inline cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute which, int value) {
    return cudaFuncSetAttribute((const void *)kernel, which, value);
}
template <class... P> static inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *out, void (*kernel)(P...)) {
    return cudaFuncGetAttributes(out, (const void *)kernel);
}
template <class... P>
static inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *out, void (*kernel)(P...), int threads, size_t shared) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessor(out, (const void *)kernel, threads, shared);
}
template <class T> static inline cudaError_t cudaMalloc(T **p, size_t bytes) { return cudaMalloc((void **)p, bytes); }
template <class T> static inline cudaError_t cudaMallocHost(T **p, size_t bytes) { return cudaMallocHost((void **)p, bytes); }
template <class T> static inline cudaError_t cudaHostAlloc(T **p, size_t bytes, unsigned flags) { return cudaHostAlloc((void **)p, bytes, flags); }
template <class T> static inline cudaError_t cudaHostGetDevicePointer(T **p, void *host, unsigned flags) {
    return cudaHostGetDevicePointer((void **)p, host, flags);
}
template <class T> static inline cudaError_t cudaMallocAsync(T **p, size_t bytes, cudaStream_t s) { return cudaMallocAsync((void **)p, bytes, s); }
#endif
