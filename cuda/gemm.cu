/* gemm.cu: matrix products on cuBLASLt: C = activation(alpha op(A) op(B) + beta C + bias), row-major, batched.
 *
 * cuBLASLt counts columns first. A row-major matrix is the transpose of the column-major one in the same memory, so
 *
 *     C = op(A) op(B)    is    C' = op(B)' op(A)'      its first operand is our B, its second our A, its m is our n
 *
 * and a transpose flag keeps its meaning. `bias` runs along its rows, as its epilogue wants. (BGRADB, its epilogue for the gradient of a
 * bias in the product that makes dw, is not used. On an H200, over the network's layers, dw and then bias_grad.cu against the one
 * product: up to 0.9 us a layer more at 512 and 2048 rows, 1 to 34 us less from 8192 on.)
 *
 *     storage            operands                    cuBLASLt's compute type       sums in
 *     float32            exact                       32F: no tensor cores          float32
 *     float32            rounded to tf32, bf16, fp16 32F_FAST_TF32, _16BF, _16F    float32
 *     bfloat16, float16  as they are                 32F                           float32
 *     float64            exact                       64F                           float64
 *
 * Plans. Asking cuBLASLt for an algorithm takes tens of microseconds, so descriptors and algorithm are kept in a table keyed by all
 * that matters. Where an operand's number of rows is no row length of anything (the residues of a batch), the key holds it
 * rounded up to three fraction bits and the algorithm is the one for that size: batches of ever different lengths
 * soon find every plan made. Layouts are refitted to the size at hand and cuBLASLt checks that the algorithm takes it. Which
 * algorithm runs depends on sizes, types and alignment alone, never on what ran before.
 *
 * Deterministic: a plan has one algorithm; those that split k keep their parts in the workspace and add them up in order (other
 * reduction schemes are masked out). The workspace is the device's own, made once: nothing is allocated for a product, so that
 * one can be captured.
 *
 * Small products (a 3x3 costs cuBLASLt what a 64x64 does), what cuBLASLt has no algorithm for, and everything in the emulator are
 * loops_kernel: one thread for each element of C, summing in order with fused multiply-adds.
 *
 * Refused: sizes and strides of a matrix from 2^31 on, but for m; float64 operands rounded to anything. */
#include "table.cuh"
#include <climits>

/* ---- loops ---- */

/* x as the matrix units would read it: rounded to nearest. float64 has no such unit. */
static __device__ inline double operand(double x, int) { return x; }
static __device__ inline float operand(float x, int precision) {
    if (precision == MF_TF32) {
        const unsigned u = __float_as_uint(x), rounded = (u + 0xfffu + (u >> 13 & 1u)) & ~0x1fffu;
        return __uint_as_float((u & 0x7f800000u) == 0x7f800000u ? u : rounded);
    }
    if (precision == MF_BF16) return __bfloat162float(__float2bfloat16_rn(x));
    if (precision == MF_FP16) return __half2float(__float2half_rn(x));
    return x;
}

template <class T> static __global__ void loops_kernel(mf_gemm g, mf_wide_t<T> alpha, mf_wide_t<T> beta) {
    using W = mf_wide_t<T>;
    const T *const a = (const T *)g.a, *const b = (const T *)g.b, *const bias = (const T *)g.bias;
    const int64_t ai = g.transpose_a ? 1 : g.lda, ak = g.transpose_a ? g.lda : 1;
    const int64_t bk = g.transpose_b ? 1 : g.ldb, bj = g.transpose_b ? g.ldb : 1;
    MF_GRID_LOOP(e, g.batch * g.m * g.n) {
        const int64_t j = e % g.n, i = e / g.n % g.m, z = e / g.n / g.m;
        const T *const x = a + z * g.stride_a + i * ai, *const y = b + z * g.stride_b + j * bj;
        W sum = 0;
        for (int64_t l = 0; l < g.k; l++)
            sum += operand(mf__to<W>(x[l * ak]), g.precision) * operand(mf__to<W>(y[l * bk]), g.precision);
        T *const to = (T *)g.c + z * g.stride_c + i * g.ldc + j;
        sum *= alpha;
        if (beta != 0) sum += beta * mf__to<W>(*to);     /* beta = 0 does not read C, which may hold NaN */
        if (bias) sum += mf__to<W>(bias[j]);
        if (g.activation == MF_ACTIVATION_RELU && sum < 0) sum = 0;
        *to = mf__to<T>(sum);
    }
}

/* Bytes read and written once. */
static double traffic(const mf_gemm *g) {
    const double m = (double)g->m, n = (double)g->n, k = (double)g->k, batch = (double)g->batch;
    return (double)mf_dtype_bytes(g->dtype) *
           (m * k * (g->stride_a ? batch : 1) + k * n * (g->stride_b ? batch : 1) + m * n * batch * (g->beta != 0 ? 2 : 1));
}
static double operations(const mf_gemm *g) { return 2.0 * (double)g->m * (double)g->n * (double)g->k * (double)g->batch; }

static mf_status loops(mf_device *d, const mf_gemm *g) {
    const int64_t n = g->batch * g->m * g->n;
    mf__cuda_work(d, operations(g), traffic(g), g->dtype == MF_FLOAT64 ? MF_UNIT_FP64 : MF_UNIT_FP32);
    MF_DISPATCH_FLOAT(g->dtype, T, {
        return MF_LAUNCH(d, loops_kernel<T>, mf__grid(d, n, 128), 128, 0, *g, (mf_wide_t<T>)g->alpha, (mf_wide_t<T>)g->beta);
    });
    return MF_OK;
}

/* A thread's loop over k is short, and either all fits in a few blocks or B stays in the cache. */
static bool small(const mf_gemm *g) {
    return g->k <= 32 && (g->m * g->n <= 256 || (g->n * g->k <= 64 && !g->transpose_a));
}

#ifdef MF_EMULATE
static mf_status multiply(mf_device *d, const mf_gemm *g) {
    return loops(d, g);
}

void mf__cuda_blas_close(mf_device *) {}
#else
#include <cublasLt.h>
#include <cstring>
#include <new>
#include <unordered_map>

/* ---- plans ---- */

static const size_t WORKSPACE = 32 << 20;   /* what cuBLAS itself takes on Hopper */
enum { FUSE_BIAS = 1, FUSE_RELU = 2, MOST_PLANS = 4096 };

struct plan_key {
    int64_t m, n, k, lda, ldb, ldc, stride_a, stride_b, stride_c;
    int32_t batch;
    uint8_t dtype, precision, transpose_a, transpose_b, fuse;
    uint8_t align_a, align_b, align_c, align_bias;                /* log2 of bytes */
    uint8_t zero[3];                                              /* no byte without a value: keys are compared as memory */
    bool operator==(const plan_key &other) const { return memcmp(this, &other, sizeof *this) == 0; }
};
static_assert(sizeof(plan_key) == 9 * 8 + 16, "plan_key has padding");

struct plan_hash {
    size_t operator()(const plan_key &key) const {
        uint64_t words[sizeof key / 8], h = 0x9e3779b97f4a7c15u;
        memcpy(words, &key, sizeof key);
        for (uint64_t word : words) {
            h = (h ^ word) * 0xff51afd7ed558ccdu;
            h ^= h >> 32;
        }
        return (size_t)h;
    }
};

struct plan {
    bool usable = false;
    int64_t m = -1, k = -1;                                       /* of the layouts */
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t a, b, c;                         /* of our A, B, C */
    cublasLtMatmulAlgo_t algorithm;
};

struct mf_cuda_blas {
    cublasLtHandle_t handle = nullptr;
    void *workspace = nullptr;
    std::unordered_map<plan_key, plan, plan_hash> plans;
};

static mf_status blas_status(cublasStatus_t status, const char *what) {
    if (status == CUBLAS_STATUS_SUCCESS) return MF_OK;
    return mf__fail(status == CUBLAS_STATUS_ALLOC_FAILED ? MF_ENOMEM : MF_EDEVICE, "matmul: cuBLASLt: %s: %s", what,
                    cublasLtGetStatusString(status));
}

void mf__cuda_blas_close(mf_device *d) {
    mf_cuda_blas *blas = mf__cuda(d)->blas;
    if (!blas) return;
    if (blas->handle) cublasLtDestroy(blas->handle);
    if (blas->workspace) d->backend->release(d, blas->workspace, (int64_t)WORKSPACE);
    delete blas;
    mf__cuda(d)->blas = nullptr;
}

static mf_status blas_open(mf_device *d) {
    if (mf__cuda(d)->blas) return MF_OK;
    MF_TRY(mf__cuda_enter(d));
    mf_cuda_blas *blas = mf__cuda(d)->blas = new (std::nothrow) mf_cuda_blas;
    if (!blas) return mf__fail(MF_ENOMEM, "cuda: out of host memory");
    mf_status status = blas_status(cublasLtCreate(&blas->handle), "cublasLtCreate");
    if (status == MF_OK) status = d->backend->alloc(d, &blas->workspace, (int64_t)WORKSPACE);
    if (status != MF_OK) mf__cuda_blas_close(d);
    return status;
}

static cudaDataType_t data_type(int dtype) {
    switch (dtype) {
    case MF_FLOAT64: return CUDA_R_64F;
    case MF_BFLOAT16: return CUDA_R_16BF;
    case MF_FLOAT16: return CUDA_R_16F;
    default: return CUDA_R_32F;
    }
}

static cublasComputeType_t compute_type(int dtype, int precision) {
    if (dtype == MF_FLOAT64) return CUBLAS_COMPUTE_64F;
    if (dtype != MF_FLOAT32) return CUBLAS_COMPUTE_32F;
    switch (precision) {
    case MF_TF32: return CUBLAS_COMPUTE_32F_FAST_TF32;
    case MF_BF16: return CUBLAS_COMPUTE_32F_FAST_16BF;
    case MF_FP16: return CUBLAS_COMPUTE_32F_FAST_16F;
    default: return CUBLAS_COMPUTE_32F;
    }
}

static uint32_t epilogue(int fuse) {
    return fuse == (FUSE_BIAS | FUSE_RELU) ? CUBLASLT_EPILOGUE_RELU_BIAS
           : fuse == FUSE_BIAS             ? CUBLASLT_EPILOGUE_BIAS
           : fuse == FUSE_RELU             ? CUBLASLT_EPILOGUE_RELU
                                           : CUBLASLT_EPILOGUE_DEFAULT;
}

/* 256 bytes (whole allocations), 16 (vectors), or what the pointer has. */
static uint8_t alignment(const void *p) {
    const uintptr_t at = (uintptr_t)p;
    return at % 256 == 0 ? 8 : at % 16 == 0 ? 4 : at % 8 == 0 ? 3 : at % 4 == 0 ? 2 : 1;
}

static plan_key key_of(const mf_gemm *g) {
    plan_key key;
    memset(&key, 0, sizeof key);
    key.m = g->m;
    key.n = g->n;
    key.k = g->k;
    key.lda = g->lda;
    key.ldb = g->ldb;
    key.ldc = g->ldc;
    key.batch = (int32_t)g->batch;
    if (g->batch > 1) {
        key.stride_a = g->stride_a;
        key.stride_b = g->stride_b;
        key.stride_c = g->stride_c;
    }
    key.dtype = (uint8_t)g->dtype;
    key.precision = (uint8_t)g->precision;
    key.transpose_a = g->transpose_a != 0;
    key.transpose_b = g->transpose_b != 0;
    key.fuse = (uint8_t)((g->bias ? FUSE_BIAS : 0) | (g->activation == MF_ACTIVATION_RELU ? FUSE_RELU : 0));
    key.align_a = alignment(g->a);
    key.align_b = alignment(g->b);
    key.align_c = alignment(g->c);
    key.align_bias = g->bias ? alignment(g->bias) : 0;
    return key;
}

/* x rounded up to three bits after the first: at most an eighth more. */
static int64_t rounded_up(int64_t x) {
    int64_t step = 1;
    while (x / step >= 16) step *= 2;
    return (x + step - 1) / step * step;
}

/* The key under which products of about this size share an algorithm: m or k where no matrix has rows of that length. */
static plan_key rough(plan_key key) {
    if (key.batch > 1) return key;
    if (!key.transpose_a) key.m = rounded_up(key.m);
    else if (!key.transpose_b) key.k = rounded_up(key.k);
    return key;
}

static cublasStatus_t layout(cublasLtMatrixLayout_t to, const plan_key &key, int64_t rows, int64_t columns, int64_t ld, int64_t stride) {
    /* row-major (rows, columns) is column-major (columns, rows) */
    cublasStatus_t status = cublasLtMatrixLayoutInit(to, data_type(key.dtype), (uint64_t)columns, (uint64_t)rows, ld);
    if (status != CUBLAS_STATUS_SUCCESS || key.batch == 1) return status;
    status = cublasLtMatrixLayoutSetAttribute(to, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &key.batch, sizeof key.batch);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    return cublasLtMatrixLayoutSetAttribute(to, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride);
}

static mf_status fit_layouts(plan *p, const plan_key &key) {
    p->m = key.m;
    p->k = key.k;
    const bool ta = key.transpose_a, tb = key.transpose_b;
    MF_TRY(blas_status(layout(&p->a, key, ta ? key.k : key.m, ta ? key.m : key.k, key.lda, key.stride_a), "layout of A"));
    MF_TRY(blas_status(layout(&p->b, key, tb ? key.n : key.k, tb ? key.k : key.n, key.ldb, key.stride_b), "layout of B"));
    return blas_status(layout(&p->c, key, key.m, key.n, key.ldc, key.stride_c), "layout of C");
}

template <class T> static cublasStatus_t set(plan *p, cublasLtMatmulDescAttributes_t what, T value) {
    return cublasLtMatmulDescSetAttribute(&p->product, what, &value, sizeof value);
}

static mf_status describe(plan *p, const plan_key &key, const void *bias) {
    const cudaDataType_t scale = key.dtype == MF_FLOAT64 ? CUDA_R_64F : CUDA_R_32F;
    MF_TRY(blas_status(cublasLtMatmulDescInit(&p->product, compute_type(key.dtype, key.precision), scale), "descriptor"));
    MF_TRY(blas_status(set(p, CUBLASLT_MATMUL_DESC_TRANSA, (int32_t)(key.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N)), "transpose of B"));
    MF_TRY(blas_status(set(p, CUBLASLT_MATMUL_DESC_TRANSB, (int32_t)(key.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N)), "transpose of A"));
    MF_TRY(blas_status(set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue(key.fuse)), "epilogue"));
    /* only its alignment matters here */
    if (bias) MF_TRY(blas_status(set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias), "bias"));
    return fit_layouts(p, key);
}

static mf_status choose(mf_cuda_blas *blas, plan *p, const plan_key &key) {
    cublasLtMatmulPreferenceOpaque_t preference;
    MF_TRY(blas_status(cublasLtMatmulPreferenceInit(&preference), "preference"));
    const uint64_t workspace = WORKSPACE;
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint32_t align_a = 1u << key.align_a, align_b = 1u << key.align_b, align_c = 1u << key.align_c;
    const struct { cublasLtMatmulPreferenceAttributes_t what; const void *value; size_t bytes; } settings[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align_b, sizeof align_b},       /* its A is our B */
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align_a, sizeof align_a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align_c, sizeof align_c},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align_c, sizeof align_c},
    };
    for (const auto &s : settings)
        MF_TRY(blas_status(cublasLtMatmulPreferenceSetAttribute(&preference, s.what, s.value, s.bytes), "preference"));
    cublasLtMatmulHeuristicResult_t result;
    memset(&result, 0, sizeof result);
    int found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(blas->handle, &p->product, &p->b, &p->a, &p->c, &p->c, &preference, 1,
                                                                 &result, &found);
    p->usable = status == CUBLAS_STATUS_SUCCESS && found > 0 && result.state == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= WORKSPACE;
    p->algorithm = result.algo;
    /* an epilogue that is not offered for these types is no failure: it is done apart; a plain product that is refused as wrong is one */
    if (status == CUBLAS_STATUS_SUCCESS || status == CUBLAS_STATUS_NOT_SUPPORTED || key.fuse) return MF_OK;
    return blas_status(status, "choosing an algorithm");
}

/* Whether the plan's algorithm takes the size of the key; its layouts are then of that size. */
static mf_status fit(mf_cuda_blas *blas, plan *p, const plan_key &key, bool *fits) {
    *fits = p->usable;
    if (!p->usable || (p->m == key.m && p->k == key.k)) return MF_OK;
    MF_TRY(fit_layouts(p, key));
    cublasLtMatmulHeuristicResult_t result;
    memset(&result, 0, sizeof result);
    const cublasStatus_t status = cublasLtMatmulAlgoCheck(blas->handle, &p->product, &p->b, &p->a, &p->c, &p->c, &p->algorithm, &result);
    *fits = status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= WORKSPACE;
    if (!*fits) p->m = -1;
    return MF_OK;
}

static mf_status plan_at(plan **out, mf_cuda_blas *blas, const plan_key &key, const void *bias) {
    auto it = blas->plans.find(key);
    if (it == blas->plans.end()) {
        if (blas->plans.size() >= MOST_PLANS) blas->plans.clear();
        it = blas->plans.emplace(key, plan()).first;          /* descriptors stay where they were made */
        mf_status status = describe(&it->second, key, bias);
        if (status == MF_OK) status = choose(blas, &it->second, key);
        if (status != MF_OK) {
            blas->plans.erase(it);
            return status;
        }
    }
    *out = &it->second;
    return MF_OK;
}

/* The plan for a product, NULL where cuBLASLt has none. */
static mf_status find_plan(plan **out, mf_cuda_blas *blas, const mf_gemm *g) {
    const plan_key exact = key_of(g), about = rough(exact);
    bool fits;
    MF_TRY(plan_at(out, blas, about, g->bias));
    MF_TRY(fit(blas, *out, exact, &fits));
    if (!fits && !(about == exact)) {
        MF_TRY(plan_at(out, blas, exact, g->bias));
        fits = (*out)->usable;
    }
    if (!fits) *out = nullptr;
    return MF_OK;
}

/* ---- products ---- */

static const char *name_of(const mf_gemm *g) {
    if (g->dtype == MF_FLOAT64) return "gemm, float64";
    if (g->dtype == MF_BFLOAT16) return "gemm, bfloat16";
    if (g->dtype == MF_FLOAT16) return "gemm, float16";
    return g->precision == MF_TF32 ? "gemm, tf32" : g->precision == MF_EXACT ? "gemm, float32" : "gemm, 16-bit products";
}

static int unit_of(const mf_gemm *g) {
    if (g->dtype == MF_FLOAT64) return MF_UNIT_FP64;
    if (g->dtype != MF_FLOAT32) return MF_UNIT_FP16;
    return g->precision == MF_TF32 ? MF_UNIT_TF32 : g->precision == MF_EXACT ? MF_UNIT_FP32 : MF_UNIT_FP16;
}

static mf_status run_plan(mf_device *d, plan *p, const mf_gemm *g) {
    mf_cuda_blas *blas = mf__cuda(d)->blas;
    if (g->bias) MF_TRY(blas_status(set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g->bias), "bias"));
    const float alpha = (float)g->alpha, beta = (float)g->beta;
    const bool wide = g->dtype == MF_FLOAT64;
    const char *name = name_of(g);
    mf__cuda_work(d, operations(g), traffic(g), unit_of(g));
    MF_TRY(mf__cuda_before(d, name, nullptr, 0));
    MF_TRY(blas_status(cublasLtMatmul(blas->handle, &p->product, wide ? (const void *)&g->alpha : &alpha, g->b, &p->b, g->a, &p->a,
                                      wide ? (const void *)&g->beta : &beta, g->c, &p->c, g->c, &p->c, &p->algorithm, blas->workspace,
                                      WORKSPACE, mf__cuda(d)->stream),
                       name));
    return mf__cuda_after(d, name);
}

/* C = activation(C + bias), for epilogues that cuBLASLt lacks: a product without terms. */
static mf_status finish(mf_device *d, const mf_gemm *g) {
    mf_gemm rest = *g;
    rest.k = 0;
    rest.beta = 1;
    return loops(d, &rest);
}

static mf_status multiply(mf_device *d, const mf_gemm *g) {
    MF_TRY(blas_open(d));
    plan *p;
    MF_TRY(find_plan(&p, mf__cuda(d)->blas, g));
    if (p) return run_plan(d, p, g);
    if (!g->bias && !g->activation) return loops(d, g);
    mf_gemm plain = *g;
    plain.bias = nullptr;
    plain.activation = MF_ACTIVATION_NONE;
    MF_TRY(multiply(d, &plain));
    return finish(d, g);
}
#endif

/* ---- the entry ---- */

/* In pieces that cuBLASLt can count: its rows are int, its batch ends in a dimension of the grid. */
static mf_status pieces(mf_device *d, const mf_gemm *g) {
    const int64_t most_rows = 1 << 30, most_batch = 65535, bytes = mf_dtype_bytes(g->dtype);
    for (int64_t z = 0; z < g->batch; z += most_batch)
        for (int64_t i = 0; i < g->m; i += most_rows) {
            mf_gemm piece = *g;
            piece.batch = g->batch - z < most_batch ? g->batch - z : most_batch;
            piece.m = g->m - i < most_rows ? g->m - i : most_rows;
            piece.a = (const char *)g->a + (z * g->stride_a + i * (g->transpose_a ? 1 : g->lda)) * bytes;
            piece.b = (const char *)g->b + z * g->stride_b * bytes;
            piece.c = (char *)g->c + (z * g->stride_c + i * g->ldc) * bytes;
            MF_TRY(multiply(d, &piece));
        }
    return MF_OK;
}

mf_status mf__cuda_gemm(mf_device *d, const mf_gemm *g) {
    if (g->dtype > MF_FLOAT16) return mf__fail(MF_EDTYPE, "matmul: element type %s is not a floating one", mf_dtype_name(g->dtype));
    if (g->dtype == MF_FLOAT64 && g->precision != MF_EXACT)
        return mf__fail(MF_ESUPPORT, "matmul: operands in float64 cannot be rounded on this device");
    if (g->m <= 0 || g->n <= 0 || g->batch <= 0) return MF_OK;
    if (g->k <= 0) return loops(d, g);
    if (g->k > INT_MAX || g->lda > INT_MAX || g->ldb > INT_MAX || g->ldc > INT_MAX)
        return mf__fail(MF_ESUPPORT, "matmul: the common size %lld and row strides %lld, %lld, %lld must stay under 2^31",
                        (long long)g->k, (long long)g->lda, (long long)g->ldb, (long long)g->ldc);
    const bool sixteen = g->dtype == MF_BFLOAT16 || g->dtype == MF_FLOAT16;   /* rounded further: only loops do that */
    if (small(g) || (sixteen && g->precision != MF_EXACT && g->precision != MF_TF32)) return loops(d, g);
    return pieces(d, g);
}
