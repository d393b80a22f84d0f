/* hopper.cuh: the instructions of sm_90a that CUDA C++ has no words for; twins for the emulator in emulate/hopper.h.
 *
 *   mf__bar_...       mbarriers in shared memory: a phase ends when all arrivals and all expected bytes are there
 *   mf__map_...       bulk tensor copies: a box of a (row, head, column) array to shared memory, swizzled, zeros outside of the array
 *   mf__wgmma_...     c += a b by a warpgroup (128 threads), 64 x N x 16, operands in shared memory or a in registers
 *   mf__registers_... setmaxnreg: warpgroups of one kernel share registers as they need them
 *
 * A product runs behind the back of its warps: between mf__wgmma_fence and mf__wgmma_wait nobody touches its accumulators or overwrites
 * its operands. Accumulators: thread (warp w, lane 4 g + t) of the warpgroup holds c[4 j + 2 h + e] = (16 w + 8 h + g, 8 j + 2 t + e), which
 * for two neighbouring j is the fragment of an operand a (mma.cuh): weights become operands where they are.
 *
 * Operands in shared memory are panels: rows of BYTES = 128, 64 or 32 bytes in which the hardware exchanges 16-byte pieces (byte address
 * bits 4.. ^= bits 7..), 8 rows a pattern. A panel is K-major where a row is a row of a (or a column of b), k along it; MN-major
 * where a row is one k. */
#ifndef MF_CUDA_HOPPER_CUH
#define MF_CUDA_HOPPER_CUH
#include "mma.cuh"

/* Whether the code being compiled may use them. */
#if defined(MF_EMULATE) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define MF_HAS_WGMMA 1
#else
#define MF_HAS_WGMMA 0
#endif

#ifdef MF_EMULATE
#include "emulate/hopper.h"
#else
#include <cudaTypedefs.h>

/* ---- barriers in shared memory, 8 bytes each ---- */
static __device__ __forceinline__ void mf__bar_init(mf_address bar, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals) : "memory");
}
/* After the last mf__bar_init, before the block meets: copies see the barriers too. */
static __device__ __forceinline__ void mf__bar_init_seen() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
/* Arrives, and has the phase wait for `bytes` of copies. */
static __device__ __forceinline__ void mf__bar_expect(mf_address bar, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
static __device__ __forceinline__ void mf__bar_arrive(mf_address bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
/* Arrives once this thread's mf__copy4s and mf__copy16s so far have landed. */
static __device__ __forceinline__ void mf__bar_copied(mf_address bar) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(bar) : "memory");
}
/* Waits until the phase of that parity has ended: parity 1 of a new barrier counts as ended. */
static __device__ __forceinline__ void mf__bar_await(mf_address bar, int parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra ended;\n"
                 "bra again;\n"
                 "ended:\n"
                 "}" ::"r"(bar), "r"(parity) : "memory");
}

/* ---- bulk tensor copies ---- */
struct mf_map {                   /* a kernel takes it as const __grid_constant__ */
    CUtensorMap map;
};
/* 16-bit array (rows, heads, ld) of which `columns` are read, in boxes of box_rows x box_columns (64, 32 or 16, swizzled accordingly) of
 * one head. base at a multiple of 16 bytes, ld of 8, box_rows up to 256. */
static inline mf_status mf__map_make(mf_map *to, const void *base, int64_t columns, int64_t heads, int64_t rows, int64_t ld, int box_columns,
    int box_rows) {
    static PFN_cuTensorMapEncodeTiled_v12000 encode;          /* from the driver: nothing links against it */
    if (!encode) {
        cudaDriverEntryPointQueryResult found;
        void *function = nullptr;
        MF_TRY(mf__cuda_status(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
            "cuTensorMapEncodeTiled"));
        if (found != cudaDriverEntryPointSuccess) return mf__fail(MF_ESUPPORT, "cuda: this driver has no tensor maps (cuTensorMapEncodeTiled)");
        encode = (PFN_cuTensorMapEncodeTiled_v12000)function;
    }
    const cuuint64_t sizes[3] = {(cuuint64_t)columns, (cuuint64_t)heads, (cuuint64_t)rows};
    const cuuint64_t strides[2] = {(cuuint64_t)ld * 2, (cuuint64_t)(ld * heads) * 2};
    const cuuint32_t box[3] = {(cuuint32_t)box_columns, 1, (cuuint32_t)box_rows}, steps[3] = {1, 1, 1};
    const CUtensorMapSwizzle swizzle = box_columns == 64 ? CU_TENSOR_MAP_SWIZZLE_128B :
                                       box_columns == 32 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_32B;
    const CUresult result = encode(&to->map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 3, const_cast<void *>(base), sizes, strides, box, steps,
        CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return mf__fail(MF_ESUPPORT, "cuda: no tensor map for (%lld, %lld, %lld) in rows of %lld: error %d", (long long)rows, (long long)heads,
            (long long)columns, (long long)ld, (int)result);
    return MF_OK;
}
static __device__ __forceinline__ void mf__map_prefetch(const mf_map *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
/* One thread: box_rows rows from `row` on, columns from `column` on. Completes box_rows * box_columns * 2 bytes of `bar`, whatever lies outside. */
static __device__ __forceinline__ void mf__map_copy(mf_address to, const mf_map *map, mf_address bar, int column, int head, int64_t row) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
                 "l"(map), "r"(bar), "r"(column), "r"(head), "r"((int)row) : "memory");
}

/* ---- products of a warpgroup ---- */
using mf_matrix = uint64_t;       /* an operand in shared memory */
/* K-major: row r of the operand is row r of the panel, which lies at a multiple of 8 BYTES; k on by 16 is mf__matrix_on(m, 32). */
template <int BYTES> static __device__ __forceinline__ mf_matrix mf__matrix_rows(mf_address panel) {
    constexpr uint64_t kind = BYTES == 128 ? 1 : BYTES == 64 ? 2 : 3;
    return (uint64_t)(panel >> 4 & 0x3fff) | (uint64_t)1 << 16 | (uint64_t)(8 * BYTES >> 4) << 32 | kind << 62;
}
/* MN-major: row k of the panel is k, columns go on `panel_stride` bytes further; k on by 16 is mf__matrix_on(m, 16 BYTES). */
template <int BYTES> static __device__ __forceinline__ mf_matrix mf__matrix_columns(mf_address panel, int panel_stride) {
    constexpr uint64_t kind = BYTES == 128 ? 1 : BYTES == 64 ? 2 : 3;
    return (uint64_t)(panel >> 4 & 0x3fff) | (uint64_t)(panel_stride >> 4 & 0x3fff) << 16 | (uint64_t)(8 * BYTES >> 4) << 32 | kind << 62;
}
static __device__ __forceinline__ mf_matrix mf__matrix_on(mf_matrix m, int bytes) { return m + (uint64_t)(bytes >> 4); }

/* Accumulators and registers of this warpgroup are as its products will find them. */
static __device__ __forceinline__ void mf__wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
static __device__ __forceinline__ void mf__wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* Waits until at most LEFT committed groups are under way. */
template <int LEFT> static __device__ __forceinline__ void mf__wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}
/* Has the compiler believe that c changes here: before the first product and after the wait, so that it moves no copy across. */
template <int COUNT> static __device__ __forceinline__ void mf__keep(float (&c)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(c[i])::"memory");
}

/* The text of the instruction for each N: inputs are operands 0 to 2, accumulators follow. */
#define MF_TEXT_1 "%3, %4, %5, %6"
#define MF_TEXT_2 MF_TEXT_1 ", %7, %8, %9, %10"
#define MF_TEXT_3 MF_TEXT_2 ", %11, %12, %13, %14"
#define MF_TEXT_4 MF_TEXT_3 ", %15, %16, %17, %18"
#define MF_TEXT_5 MF_TEXT_4 ", %19, %20, %21, %22"
#define MF_TEXT_6 MF_TEXT_5 ", %23, %24, %25, %26"
#define MF_TEXT_7 MF_TEXT_6 ", %27, %28, %29, %30"
#define MF_TEXT_8 MF_TEXT_7 ", %31, %32, %33, %34"
#define MF_TEXT_9 MF_TEXT_8 ", %35, %36, %37, %38"
#define MF_TEXT_10 MF_TEXT_9 ", %39, %40, %41, %42"
#define MF_TEXT_11 MF_TEXT_10 ", %43, %44, %45, %46"
#define MF_TEXT_12 MF_TEXT_11 ", %47, %48, %49, %50"
#define MF_TEXT_13 MF_TEXT_12 ", %51, %52, %53, %54"
#define MF_TEXT_14 MF_TEXT_13 ", %55, %56, %57, %58"
#define MF_TEXT_15 MF_TEXT_14 ", %59, %60, %61, %62"
#define MF_TEXT_16 MF_TEXT_15 ", %63, %64, %65, %66"
#define MF_TEXT_17 MF_TEXT_16 ", %67, %68, %69, %70"
#define MF_TEXT_18 MF_TEXT_17 ", %71, %72, %73, %74"
#define MF_TEXT_19 MF_TEXT_18 ", %75, %76, %77, %78"
#define MF_TEXT_20 MF_TEXT_19 ", %79, %80, %81, %82"
#define MF_TEXT_21 MF_TEXT_20 ", %83, %84, %85, %86"
#define MF_TEXT_22 MF_TEXT_21 ", %87, %88, %89, %90"
#define MF_TEXT_23 MF_TEXT_22 ", %91, %92, %93, %94"
#define MF_TEXT_24 MF_TEXT_23 ", %95, %96, %97, %98"
#define MF_TEXT_25 MF_TEXT_24 ", %99, %100, %101, %102"
#define MF_TEXT_26 MF_TEXT_25 ", %103, %104, %105, %106"
#define MF_TEXT_27 MF_TEXT_26 ", %107, %108, %109, %110"
#define MF_TEXT_28 MF_TEXT_27 ", %111, %112, %113, %114"
#define MF_TEXT_29 MF_TEXT_28 ", %115, %116, %117, %118"
#define MF_TEXT_30 MF_TEXT_29 ", %119, %120, %121, %122"
#define MF_TEXT_31 MF_TEXT_30 ", %123, %124, %125, %126"
#define MF_TEXT_32 MF_TEXT_31 ", %127, %128, %129, %130"
#define MF_ACC(k) "+f"(c[4 * (k)]), "+f"(c[4 * (k) + 1]), "+f"(c[4 * (k) + 2]), "+f"(c[4 * (k) + 3])
#define MF_ACCS_1 MF_ACC(0)
#define MF_ACCS_2 MF_ACCS_1, MF_ACC(1)
#define MF_ACCS_3 MF_ACCS_2, MF_ACC(2)
#define MF_ACCS_4 MF_ACCS_3, MF_ACC(3)
#define MF_ACCS_5 MF_ACCS_4, MF_ACC(4)
#define MF_ACCS_6 MF_ACCS_5, MF_ACC(5)
#define MF_ACCS_7 MF_ACCS_6, MF_ACC(6)
#define MF_ACCS_8 MF_ACCS_7, MF_ACC(7)
#define MF_ACCS_9 MF_ACCS_8, MF_ACC(8)
#define MF_ACCS_10 MF_ACCS_9, MF_ACC(9)
#define MF_ACCS_11 MF_ACCS_10, MF_ACC(10)
#define MF_ACCS_12 MF_ACCS_11, MF_ACC(11)
#define MF_ACCS_13 MF_ACCS_12, MF_ACC(12)
#define MF_ACCS_14 MF_ACCS_13, MF_ACC(13)
#define MF_ACCS_15 MF_ACCS_14, MF_ACC(14)
#define MF_ACCS_16 MF_ACCS_15, MF_ACC(15)
#define MF_ACCS_17 MF_ACCS_16, MF_ACC(16)
#define MF_ACCS_18 MF_ACCS_17, MF_ACC(17)
#define MF_ACCS_19 MF_ACCS_18, MF_ACC(18)
#define MF_ACCS_20 MF_ACCS_19, MF_ACC(19)
#define MF_ACCS_21 MF_ACCS_20, MF_ACC(20)
#define MF_ACCS_22 MF_ACCS_21, MF_ACC(21)
#define MF_ACCS_23 MF_ACCS_22, MF_ACC(22)
#define MF_ACCS_24 MF_ACCS_23, MF_ACC(23)
#define MF_ACCS_25 MF_ACCS_24, MF_ACC(24)
#define MF_ACCS_26 MF_ACCS_25, MF_ACC(25)
#define MF_ACCS_27 MF_ACCS_26, MF_ACC(26)
#define MF_ACCS_28 MF_ACCS_27, MF_ACC(27)
#define MF_ACCS_29 MF_ACCS_28, MF_ACC(28)
#define MF_ACCS_30 MF_ACCS_29, MF_ACC(29)
#define MF_ACCS_31 MF_ACCS_30, MF_ACC(30)
#define MF_ACCS_32 MF_ACCS_31, MF_ACC(31)
#define MF_WIDTHS(X) X(8, 1) X(16, 2) X(24, 3) X(32, 4) X(40, 5) X(48, 6) X(56, 7) X(64, 8) X(72, 9) X(80, 10) X(88, 11) X(96, 12) X(104, 13) X(112, 14) X(120, 15) X(128, 16) \
    X(136, 17) X(144, 18) X(152, 19) X(160, 20) X(168, 21) X(176, 22) X(184, 23) X(192, 24) X(200, 25) X(208, 26) X(216, 27) X(224, 28) X(232, 29) X(240, 30) X(248, 31) X(256, 32)


/* c = a b (add: c += a b) on 64 x N x 16, by the whole warpgroup; TA, TB: 0 for a K-major operand, 1 for an MN-major one. */
template <bool BF16, int N, int TA, int TB>
static __device__ __forceinline__ void mf__wgmma(float (&c)[N / 2], mf_matrix a, mf_matrix b, bool add) {
#if MF_HAS_WGMMA
    int adds = add;
#define MF_PRODUCT(width, count, type, transposed)                                                                                      \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %2, 0;\nwgmma.mma_async.sync.aligned.m64n" #width "k16.f32." type "." type            \
                 " {" MF_TEXT_##count "}, %0, %1, p, 1, 1, " transposed ";\n}" : "+l"(a), "+l"(b), "+r"(adds), MF_ACCS_##count)
#define MF_PRODUCTS(width, count)                                                                                                       \
    if constexpr (N == width) {                                                                                                         \
        if constexpr (BF16 && TA && TB) MF_PRODUCT(width, count, "bf16", "1, 1");                                                        \
        else if constexpr (BF16 && TA) MF_PRODUCT(width, count, "bf16", "1, 0");                                                         \
        else if constexpr (BF16 && TB) MF_PRODUCT(width, count, "bf16", "0, 1");                                                         \
        else if constexpr (BF16) MF_PRODUCT(width, count, "bf16", "0, 0");                                                               \
        else if constexpr (TA && TB) MF_PRODUCT(width, count, "f16", "1, 1");                                                            \
        else if constexpr (TA) MF_PRODUCT(width, count, "f16", "1, 0");                                                                  \
        else if constexpr (TB) MF_PRODUCT(width, count, "f16", "0, 1");                                                                  \
        else MF_PRODUCT(width, count, "f16", "0, 0");                                                                                    \
    }
    MF_WIDTHS(MF_PRODUCTS)
#undef MF_PRODUCTS
#undef MF_PRODUCT
#endif
}

/* c += a b, a in registers. */
template <bool BF16, int N, int TB>
static __device__ __forceinline__ void mf__wgmma_r(float (&c)[N / 2], const uint32_t (&a)[4], mf_matrix b) {
#if MF_HAS_WGMMA
    uint64_t low = (uint64_t)a[1] << 32 | a[0], high = (uint64_t)a[3] << 32 | a[2];
#define MF_PRODUCT(width, count, type, transposed)                                                                                      \
    asm volatile("{\n.reg .b32 r0, r1, r2, r3;\nmov.b64 {r0, r1}, %0;\nmov.b64 {r2, r3}, %1;\n"                                           \
                 "wgmma.mma_async.sync.aligned.m64n" #width "k16.f32." type "." type " {" MF_TEXT_##count                                  \
                 "}, {r0, r1, r2, r3}, %2, 1, 1, 1, " transposed ";\n}" : "+l"(low), "+l"(high), "+l"(b), MF_ACCS_##count)
#define MF_PRODUCTS(width, count)                                                                                                       \
    if constexpr (N == width) {                                                                                                         \
        if constexpr (BF16 && TB) MF_PRODUCT(width, count, "bf16", "1");                                                                 \
        else if constexpr (BF16) MF_PRODUCT(width, count, "bf16", "0");                                                                  \
        else if constexpr (TB) MF_PRODUCT(width, count, "f16", "1");                                                                     \
        else MF_PRODUCT(width, count, "f16", "0");                                                                                       \
    }
    MF_WIDTHS(MF_PRODUCTS)
#undef MF_PRODUCTS
#undef MF_PRODUCT
#endif
}
#undef MF_WIDTHS

/* ---- warpgroups ---- */
/* Every warp of the warpgroup: N registers a thread from here on, a multiple of 8 from 24 to 240; `more` waits until others gave theirs. */
template <int N> static __device__ __forceinline__ void mf__registers_more() {
#if MF_HAS_WGMMA
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
#endif
}
template <int N> static __device__ __forceinline__ void mf__registers_less() {
#if MF_HAS_WGMMA
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
#endif
}
/* True in one lane of a warp whose lanes all call it. */
static __device__ __forceinline__ bool mf__elect() {
    uint32_t chosen;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(chosen));
    return chosen != 0;
}
#endif

/* A warp is done with what a barrier guards: its one arrival comes after what its lanes have read or written. */
static __device__ __forceinline__ void mf__bar_release(mf_address bar) {
    __syncwarp();
    if ((threadIdx.x & 31) == 0) mf__bar_arrive(bar);
}
#endif
