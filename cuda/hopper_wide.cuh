/* hopper_wide.cuh: what the kernels for widths beyond the registers share: stages in shared memory that go round, of a size and a number
 * that only the launcher knows. */
#ifndef MF_CUDA_HOPPER_WIDE_CUH
#define MF_CUDA_HOPPER_WIDE_CUH
#include "hopper_tile.cuh"

/* `count` stages of `bytes` from `stages` on, each with a barrier for what was copied there and one for what was read. Whoever fills and
 * whoever reads has one of its own and counts along. */
struct mf_stages {
    mf_address stages, bars;
    int bytes, count, at = 0, phase = 0;
    __device__ __forceinline__ mf_stages(mf_address stages_, mf_address bars_, int bytes_, int count_)
        : stages(stages_), bars(bars_), bytes(bytes_), count(count_) {}
    /* Shared memory that the barriers take. */
    static __host__ __device__ constexpr int bars_bytes(int count) { return 16 * count; }
    __device__ __forceinline__ void init(int writers, int readers) const {
        for (int i = 0; i < count; i++) mf__bar_init(bars + 8 * i, writers), mf__bar_init(bars + 8 * (count + i), readers);
    }
    __device__ __forceinline__ mf_address stage() const { return stages + at * bytes; }
    __device__ __forceinline__ mf_address full() const { return bars + 8 * at; }
    __device__ __forceinline__ mf_address empty() const { return bars + 8 * (count + at); }
    __device__ __forceinline__ void next() {
        if (++at == count) at = 0, phase ^= 1;
    }
    __device__ __forceinline__ void await_empty() const { mf__bar_await(empty(), phase ^ 1); }
    __device__ __forceinline__ void await_full() const { mf__bar_await(full(), phase); }
};
#endif
