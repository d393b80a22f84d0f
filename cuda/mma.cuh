/* mma.cuh: the instructions of sm_80 and later that CUDA C++ has no words for, each with its twin for the emulator. Inline PTX is here and in
 * hopper.cuh only.
 *
 *   mf__copy16, mf__copy4      cp.async: global to shared memory without registers, zeros where `valid` is false
 *   mf__load4, mf__load2, ...  ldmatrix: 8 x 8 matrices of 16-bit elements as operands of a product
 *   mf__mma, mf__mma8          c += a b on a warp: 16 x 16 x 8 and 16 x 8 x 8, 16-bit operands, float accumulators
 *   mf__barrier                bar.sync of some of a block's warps
 *   mf__add4                   red.global: four neighbouring floats at once where the chip can
 *   mf__add_bulk, ...          cp.reduce.async.bulk (sm_90): floats of shared memory, behind the back of the warps
 *
 * Fragments. Lane l is (g, t) = (l / 4, l % 4); a register holds two neighbours:
 *
 *   a (16 x 16)   a[0] = (g, 2t) a[1] = (g + 8, 2t) a[2] = (g, 2t + 8) a[3] = (g + 8, 2t + 8)       two neighbours along k
 *   b (16 x 8)    b0 = (2t, g) b1 = (2t + 8, g)                                                     two neighbours along k
 *   c (16 x 8)    c[0], c[1] = (g, 2t), (g, 2t + 1);  c[2], c[3] = (g + 8, 2t), (g + 8, 2t + 1)
 *   with k = 8    a[0], a[1] and b0 only
 *
 * ldmatrix: lanes 8 i to 8 i + 7 give the addresses of the 8 rows (16 bytes each) of matrix i, and every lane gets in r[i] the elements
 * (g, 2t), (g, 2t + 1) of matrix i; with _t of its transpose. Its 8 rows are read at once when they lie in different banks, so when the
 * distance of rows is an odd number of 16 bytes. */
#ifndef MF_CUDA_MMA_CUH
#define MF_CUDA_MMA_CUH
#include "common.cuh"

/* Whether the code being compiled may use the bulk additions; its emulation may. */
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define MF_HAS_BULK true
#else
#define MF_HAS_BULK false
#endif

template <bool BF16> using mf_half = std::conditional_t<BF16, __nv_bfloat16, __half>;

#ifdef MF_EMULATE
/* ---- what lanes bring to a warp operation ---- */
using mf_address = unsigned char *;           /* in shared memory; counts bytes */
static inline mf_address mf__address(void *shared) { return (mf_address)shared; }

static inline void mf__copy_bytes(mf_address to, const void *from, bool valid, int bytes) {
    if (valid) memcpy(to, from, (size_t)bytes);
    else memset(to, 0, (size_t)bytes);
}
static inline void mf__copy16(mf_address to, const void *from, bool valid) { mf__copy_bytes(to, from, valid, 16); }
static inline void mf__copy4(mf_address to, const void *from, bool valid) { mf__copy_bytes(to, from, valid, 4); }
static inline void mf__copy_commit() {}
template <int LEFT> static inline void mf__copy_wait() {}

struct mf__matrix_lane {
    const unsigned char *row;
    uint32_t *r;
};
template <int COUNT, bool TRANSPOSED> static void mf__matrix_act(void *const *lanes) {
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < COUNT; i++) {
            uint16_t pair[2];
            for (int e = 0; e < 2; e++) {
                const int row = TRANSPOSED ? l % 4 * 2 + e : l / 4, column = TRANSPOSED ? l / 4 : l % 4 * 2 + e;
                memcpy(&pair[e], static_cast<mf__matrix_lane *>(lanes[8 * i + row])->row + 2 * column, 2);
            }
            memcpy(&static_cast<mf__matrix_lane *>(lanes[l])->r[i], pair, 4);
        }
}
template <int COUNT, bool TRANSPOSED> static inline void mf__matrix(uint32_t *r, mf_address row) {
    assert((uintptr_t)row % 16 == 0);
    mf__matrix_lane lane = {row, r};
    mf__warp_meet(0xffffffffu, mf__matrix_act<COUNT, TRANSPOSED>, &lane);
}
static inline void mf__load4(uint32_t (&r)[4], mf_address row) { mf__matrix<4, false>(r, row); }
static inline void mf__load4_t(uint32_t (&r)[4], mf_address row) { mf__matrix<4, true>(r, row); }
static inline void mf__load2(uint32_t (&r)[2], mf_address row) { mf__matrix<2, false>(r, row); }
static inline void mf__load2_t(uint32_t (&r)[2], mf_address row) { mf__matrix<2, true>(r, row); }

struct mf__mma_lane {
    float *c;
    uint32_t a[4], b[2];
};
template <class H> static inline float mf__element(const uint32_t *r, int index) {
    H x;
    memcpy((void *)&x, (const unsigned char *)r + 2 * index, 2);
    return (float)x;
}
template <bool BF16, int K> static void mf__mma_act(void *const *lanes) {
    using H = mf_half<BF16>;
    float a[16][K], b[K][8];
    for (int l = 0; l < 32; l++) {
        const mf__mma_lane *lane = static_cast<mf__mma_lane *>(lanes[l]);
        for (int i = 0; i < K / 4; i++)
            for (int e = 0; e < 2; e++) a[l / 4 + i % 2 * 8][l % 4 * 2 + e + i / 2 * 8] = mf__element<H>(&lane->a[i], e);
        for (int i = 0; i < K / 8; i++)
            for (int e = 0; e < 2; e++) b[l % 4 * 2 + e + i * 8][l / 4] = mf__element<H>(&lane->b[i], e);
    }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
            float sum = static_cast<mf__mma_lane *>(lanes[l])->c[i];
            for (int k = 0; k < K; k++) sum += a[row][k] * b[k][column];
            static_cast<mf__mma_lane *>(lanes[l])->c[i] = sum;
        }
}
template <bool BF16> static inline void mf__mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mf__mma_lane lane = {c, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    mf__warp_meet(0xffffffffu, mf__mma_act<BF16, 16>, &lane);
}
template <bool BF16> static inline void mf__mma8(float (&c)[4], const uint32_t (&a)[2], uint32_t b0) {
    mf__mma_lane lane = {c, {a[0], a[1], 0, 0}, {b0, 0}};
    mf__warp_meet(0xffffffffu, mf__mma_act<BF16, 8>, &lane);
}

static inline void mf__store4(mf_address to, uint32_t x) { memcpy(to, &x, 4); }
static inline void mf__write(mf_address to, float x) { memcpy(to, &x, 4); }
static inline float mf__read(mf_address from) { float x; memcpy(&x, from, 4); return x; }
static inline float2 mf__read2(mf_address from) { float2 x; memcpy(&x, from, 8); return x; }
static inline float4 mf__read4(mf_address from) { float4 x; memcpy(&x, from, 16); return x; }
static inline void mf__add4(float *p, const float (&x)[4]) { for (int i = 0; i < 4; i++) p[i] += x[i]; }
static inline void mf__add_bulk(float *to, mf_address from, int floats) { mf__emulate_bulk(to, from, floats); }
static inline void mf__add_commit() { mf__emulate_bulk_commit(); }
static inline void mf__add_wait() { mf__emulate_bulk_wait(); }
static inline void mf__proxy_fence() {}
static inline void mf__write16(mf_address to, const float (&x)[4]) { memcpy(to, x, 16); }
static inline float mf__exp2(float x) { return exp2f(x); }
static inline void mf__barrier(int id, int threads) { mf__emulate_barrier(id, threads, 0, false); }

#else
using mf_address = uint32_t;                  /* in shared memory; counts bytes */
static __device__ __forceinline__ mf_address mf__address(void *shared) { return (uint32_t)__cvta_generic_to_shared(shared); }

static __device__ __forceinline__ void mf__copy16(mf_address to, const void *from, bool valid) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
static __device__ __forceinline__ void mf__copy4(mf_address to, const void *from, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(valid ? 4 : 0) : "memory");
}
static __device__ __forceinline__ void mf__copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Waits until at most LEFT of this thread's groups are under way. */
template <int LEFT> static __device__ __forceinline__ void mf__copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

static __device__ __forceinline__ void mf__load4(uint32_t (&r)[4], mf_address row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}
static __device__ __forceinline__ void mf__load4_t(uint32_t (&r)[4], mf_address row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}
static __device__ __forceinline__ void mf__load2(uint32_t (&r)[2], mf_address row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(row) : "memory");
}
static __device__ __forceinline__ void mf__load2_t(uint32_t (&r)[2], mf_address row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(row) : "memory");
}

template <bool BF16> static __device__ __forceinline__ void mf__mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (BF16)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <bool BF16> static __device__ __forceinline__ void mf__mma8(float (&c)[4], const uint32_t (&a)[2], uint32_t b0) {
    if constexpr (BF16)
        asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(b0));
    else
        asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(b0));
}

static __device__ __forceinline__ void mf__store4(mf_address to, uint32_t x) { asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(x) : "memory"); }
static __device__ __forceinline__ void mf__write(mf_address to, float x) { asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(x) : "memory"); }
static __device__ __forceinline__ float mf__read(mf_address from) {
    float x;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(from) : "memory");
    return x;
}
static __device__ __forceinline__ float2 mf__read2(mf_address from) {
    float2 x;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(from) : "memory");
    return x;
}
static __device__ __forceinline__ float4 mf__read4(mf_address from) {
    float4 x;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "r"(from) : "memory");
    return x;
}
/* p[i] += x[i] in the order in which blocks arrive; p at a multiple of 16 bytes. */
static __device__ __forceinline__ void mf__add4(float *p, const float (&x)[4]) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p), "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3]) : "memory");
#else
    for (int i = 0; i < 4; i++) atomicAdd(p + i, x[i]);
#endif
}
/* One thread: to[i] += from[i], multiples of 4 floats; then a commit. mf__add_wait: what this thread committed has been read from shared
 * memory. Before, every thread that wrote there calls mf__proxy_fence and meets the one that adds. */
static __device__ __forceinline__ void mf__add_bulk(float *to, mf_address from, int floats) {
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(4 * floats) : "memory");
#endif
}
static __device__ __forceinline__ void mf__add_commit() {
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#endif
}
static __device__ __forceinline__ void mf__add_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
#endif
}
/* What this thread did to shared memory comes before what copies and warpgroup products do there, once it meets who starts them. */
static __device__ __forceinline__ void mf__proxy_fence() {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
static __device__ __forceinline__ void mf__write16(mf_address to, const float (&x)[4]) {
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3]) : "memory");
}
/* Waits until `threads` of the block (whole warps) are at barrier `id`, 1 to 15. Lanes that a loop left apart meet first: the instruction is one of
 * whole warps. */
static __device__ __forceinline__ void mf__barrier(int id, int threads) {
    __syncwarp();
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
static __device__ __forceinline__ float mf__exp2(float x) {         /* 2 ulp; denormal results are zero */
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

/* Two floats rounded to nearest even, x in the low half. */
template <bool BF16> static __device__ __forceinline__ uint32_t mf__pack(float x, float y) {
    uint32_t bits;
    if constexpr (BF16) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
        memcpy(&bits, &pair, 4);
    } else {
        const __half2 pair = __floats2half2_rn(x, y);
        memcpy(&bits, &pair, 4);
    }
    return bits;
}
#endif
