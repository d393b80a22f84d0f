/* hopper_test.cu: that the instructions of cuda/hopper.cuh do what it says, on a GPU or in the emulator.
 *
 *     nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -cudart static -o hopper_test spec/cuda/hopper_test.cu
 *     g++ -std=c++20 -O1 -DMF_EMULATE -isystem /usr/local/cuda/include -o hopper_test -x c++ spec/cuda/hopper_test.cu cuda/emulate/<all>.cpp -ldl
 *
 * One line a case: what, then how far it is off. Operands are small integers, so that every sum is exact and a right result is off by 0.
 * Ends with the number of cases that are wrong as its status. Waits are bounded on the device: a barrier that never turns is a wrong case.
 * In the emulator also what it says about mistakes. */
#include "../../cuda/hopper.cuh"
#include <cstdarg>
#include <cstdlib>
#include <string>
#include <vector>
#ifdef MF_EMULATE
#include <sys/wait.h>
#include <unistd.h>
#endif

#define CHECK(x)                                                                                    \
    do {                                                                                            \
        const cudaError_t error_ = (x);                                                             \
        if (error_ != cudaSuccess) {                                                                \
            printf("%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(error_));                  \
            fflush(stdout);                                                                         \
            _Exit(99);                                                                              \
        }                                                                                           \
    } while (0)

extern "C" mf_status mf__fail(mf_status status, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    printf("\n");
    return status;
}
mf_status mf__cuda_status(cudaError_t error, const char *what) {
    return error == cudaSuccess ? MF_OK : mf__fail(MF_ESUPPORT, "%s: %s", what, cudaGetErrorString(error));
}

template <class... P, class... A> static void launch(void (*kernel)(P...), int grid, int block, int64_t shared_bytes, A... arguments) {
    CHECK(cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes));
#ifdef MF_EMULATE
    mf__emulate_arguments("kernel", arguments...);
    mf__emulate(dim3((unsigned)grid), dim3((unsigned)block), shared_bytes, [&] { kernel(static_cast<P>(arguments)...); });
#else
    kernel<<<grid, block, (size_t)shared_bytes>>>(static_cast<P>(arguments)...);
#endif
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
}

template <class T> struct array {                 /* on the device */
    T *data;
    explicit array(const std::vector<T> &x) {
        CHECK(cudaMalloc((void **)&data, x.size() * sizeof(T)));
        CHECK(cudaMemcpy(data, x.data(), x.size() * sizeof(T), cudaMemcpyHostToDevice));
    }
    ~array() { cudaFree(data); }
    std::vector<T> read(int64_t n) const {
        std::vector<T> x((size_t)n);
        CHECK(cudaMemcpy(x.data(), data, x.size() * sizeof(T), cudaMemcpyDeviceToHost));
        return x;
    }
};

static uint32_t seed = 1;
static int small_integer() {                      /* -4 to 4 */
    seed = seed * 1664525u + 1013904223u;
    return (int)(seed >> 16) % 9 - 4;
}
static uint16_t rounded(bool bf16, float x) {
    uint16_t bits;
    if (bf16) {
        const __nv_bfloat16 y = __float2bfloat16_rn(x);
        memcpy(&bits, &y, 2);
    } else {
        const __half y = __float2half_rn(x);
        memcpy(&bits, &y, 2);
    }
    return bits;
}

template <class H> static float element(const std::vector<uint16_t> &x, int index) {
    H y;
    memcpy((void *)&y, &x[(size_t)index], 2);
    return (float)y;
}

static int wrong;
static void say(const std::string &what, double off) {
    if (off != 0) wrong++;
    printf("%-64s %s %g\n", what.c_str(), off == 0 ? "ok   " : "WRONG", off);
    fflush(stdout);
}
static double furthest(const std::vector<float> &x, const std::vector<float> &y) {
    double most = 0;
    for (size_t i = 0; i < x.size(); i++) {
        const double off = fabs((double)x[i] - y[i]);
        if (!(off <= most)) most = off == off ? off : 1e30;
    }
    return most;
}

/* ---- device code ---- */
/* False: it did not turn in time. */
static __device__ bool await(mf_address bar, int parity) {
#ifdef MF_EMULATE
    mf__bar_await(bar, parity);
    return true;
#else
    for (int i = 0; i < 1 << 20; i++) {
        uint32_t done;
        asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done) : "r"(bar), "r"(parity) : "memory");
        if (done) return true;
    }
    return false;
#endif
}
static __device__ unsigned char *aligned(unsigned char *shared) {
    return shared + (1024 - (uint64_t)(uintptr_t)mf__address(shared) % 1024) % 1024;
}
static __host__ __device__ int swizzled(int offset, int bytes) { return offset ^ (offset >> 7 & (bytes / 16 - 1)) << 4; }

/* A box as it lies in shared memory. */
static __global__ void copy_kernel(const __grid_constant__ mf_map map, int bytes, int column, int head, int row, uint16_t *out, int *late) {
    MF_SHARED(unsigned char, shared_bytes);
    unsigned char *shared = aligned(shared_bytes);
#if MF_HAS_WGMMA
    const mf_address bar = mf__address(shared), to = mf__address(shared) + 1024;
    if (threadIdx.x == 0) {
        mf__map_prefetch(&map);
        mf__bar_init(bar, 1);
        mf__bar_init_seen();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        mf__bar_expect(bar, bytes);
        mf__map_copy(to, &map, bar, column, head, row);
    }
    if (!await(bar, 0)) *late = 1;
    for (int i = (int)threadIdx.x; i < bytes / 2; i += (int)blockDim.x) out[i] = ((const uint16_t *)(shared + 1024))[i];
#endif
}

constexpr int M = 128, K = 128;
struct operands {
    const uint16_t *a, *b;        /* (M, K), (N, K) */
    const float *c;               /* (M, N) */
    float *out;
    int bytes_a, bytes_b, stride_a, stride_b;     /* of a panel's row; of panels */
    int start_b;                  /* of b in shared memory */
    int add;
};
static __host__ __device__ int at_of(int bytes, int stride, int transposed, int line, int k) {
    const int across = bytes / 2;
    const int offset = transposed ? k * bytes + line % across * 2 : line * bytes + k % across * 2;
    return (transposed ? line / across : k / across) * stride + swizzled(offset, bytes);
}
#if MF_HAS_WGMMA
/* Lines from `line` on, 16 of k from k on. */
template <int BYTES> static __device__ mf_matrix part(mf_address base, int stride, int transposed, int line, int k) {
    constexpr int across = BYTES / 2;
    if (transposed) return mf__matrix_on(mf__matrix_columns<BYTES>(base + line / across * stride, stride), k * BYTES);
    return mf__matrix_on(mf__matrix_rows<BYTES>(base + k / across * stride + line * BYTES), k % across * 2);
}
static __device__ mf_matrix part_of(mf_address base, int bytes, int stride, int transposed, int line, int k) {
    return bytes == 128 ? part<128>(base, stride, transposed, line, k) : bytes == 64 ? part<64>(base, stride, transposed, line, k) :
           part<32>(base, stride, transposed, line, k);
}
#endif

/* out = (add: c +) a b by two warpgroups; operands put into shared memory by plain stores. TA 2: a in registers. */
template <bool BF16, int N, int TA, int TB> static __global__ void __launch_bounds__(256, 1) product_kernel(const operands o) {
    MF_SHARED(unsigned char, shared_bytes);
    unsigned char *shared = aligned(shared_bytes);
#if MF_HAS_WGMMA
    const int thread = (int)threadIdx.x, group = thread / 128, warp = thread / 32 % 4, lane = thread % 32, g = lane / 4, t = lane % 4;
    for (int i = thread; i < M * K; i += 256) *(uint16_t *)(shared + at_of(o.bytes_a, o.stride_a, TA == 1, i / K, i % K)) = o.a[i];
    for (int i = thread; i < N * K; i += 256) *(uint16_t *)(shared + o.start_b + at_of(o.bytes_b, o.stride_b, TB, i / K, i % K)) = o.b[i];
    mf__proxy_fence();
    __syncthreads();
    float c[N / 2];
    uint32_t left[K / 16][4];
    const int row = group * 64 + warp * 16 + g;
#pragma unroll
    for (int i = 0; i < N / 2; i++) c[i] = o.c[(row + i / 2 % 2 * 8) * N + i / 4 * 8 + 2 * t + i % 2];
    if (TA == 2)
#pragma unroll
        for (int s = 0; s < K / 16; s++)
#pragma unroll
            for (int i = 0; i < 4; i++) left[s][i] = *(const uint32_t *)(o.a + (row + i % 2 * 8) * K + s * 16 + i / 2 * 8 + 2 * t);
    const mf_address a = mf__address(shared), b = mf__address(shared) + o.start_b;
    mf__keep(c);
    mf__wgmma_fence();
#pragma unroll
    for (int s = 0; s < K / 16; s++) {
        const mf_matrix right = part_of(b, o.bytes_b, o.stride_b, TB, 0, 16 * s);
        if constexpr (TA == 2) mf__wgmma_r<BF16, N, TB>(c, left[s], right);
        else mf__wgmma<BF16, N, TA, TB>(c, part_of(a, o.bytes_a, o.stride_a, TA, group * 64, 16 * s), right, s > 0 || o.add);
    }
    mf__wgmma_commit();
    mf__wgmma_wait<0>();
    mf__keep(c);
#pragma unroll
    for (int i = 0; i < N / 2; i++) o.out[(row + i / 2 % 2 * 8) * N + i / 4 * 8 + 2 * t + i % 2] = c[i];
#endif
}

/* Two products under way, the first used while the second runs: s = a b' (64 x 64 x 64), out = s (16 bits, from registers) b. */
static __global__ void __launch_bounds__(128, 1) chain_kernel(const uint16_t *x, const uint16_t *y, float *out) {
    MF_SHARED(unsigned char, shared_bytes);
    unsigned char *shared = aligned(shared_bytes);
#if MF_HAS_WGMMA
    const int thread = (int)threadIdx.x, warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
    for (int i = thread; i < 64 * 64; i += 128) {
        *(uint16_t *)(shared + at_of(128, 8192, 0, i / 64, i % 64)) = x[i];
        *(uint16_t *)(shared + 8192 + at_of(128, 8192, 0, i / 64, i % 64)) = y[i];
    }
    mf__proxy_fence();
    __syncthreads();
    const mf_address a = mf__address(shared), b = mf__address(shared) + 8192;
    float s[32], next[32], c[32];
    for (int i = 0; i < 32; i++) c[i] = 0;
    mf__keep(c);
    mf__wgmma_fence();
#pragma unroll
    for (int k = 0; k < 64; k += 16) mf__wgmma<false, 64, 0, 0>(s, part<128>(a, 0, 0, 0, k), part<128>(b, 0, 0, 0, k), k > 0);
    mf__wgmma_commit();
#pragma unroll
    for (int k = 0; k < 64; k += 16) mf__wgmma<false, 64, 0, 0>(next, part<128>(b, 0, 0, 0, k), part<128>(a, 0, 0, 0, k), k > 0);
    mf__wgmma_commit();
    mf__wgmma_wait<1>();
    mf__keep(s);
    uint32_t left[4][4];
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) left[k][i] = mf__pack<false>(s[8 * k + 2 * i] , s[8 * k + 2 * i + 1]);
    mf__wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++) mf__wgmma_r<false, 64, 1>(c, left[k], part<128>(b, 8192, 1, 0, 16 * k));
    mf__wgmma_commit();
    mf__wgmma_wait<0>();
    mf__keep(c);
    mf__keep(next);
#pragma unroll
    for (int i = 0; i < 32; i++) {
        const int at = (16 * warp + g + i / 2 % 2 * 8) * 64 + i / 4 * 8 + 2 * t + i % 2;
        out[at] = c[i];
        out[64 * 64 + at] = next[i];
    }
#endif
}

/* A producer and two consumers: out (128, N) = sum over CHUNKS of a b' + bias, STAGES chunks of 64 in flight. */
constexpr int WIDTH = 104, CHUNKS = 15, STAGES = 2, LONG = CHUNKS * 64;
struct pipeline_layout {
    static constexpr int a = 0, b = 128 * 128, bias = b + WIDTH * 128, stage = (bias + WIDTH * 4 + 1023) / 1024 * 1024, bars = STAGES * stage,
                         bytes = bars + 16 * STAGES + 1024;
};
template <bool BOUNDED> static __global__ void __launch_bounds__(384, 1)
pipeline_kernel(const __grid_constant__ mf_map a, const __grid_constant__ mf_map b, const float *bias, int row_a, int row_b, float *out, int *late) {
    using at = pipeline_layout;
    MF_SHARED(unsigned char, shared_bytes);
    unsigned char *shared = aligned(shared_bytes);
#if MF_HAS_WGMMA
    const mf_address base = mf__address(shared), full = base + at::bars, empty = full + 8 * STAGES;
    const int group = (int)threadIdx.x / 128, thread = (int)threadIdx.x % 128, warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            mf__bar_init(full + 8 * s, 1 + 32);
            mf__bar_init(empty + 8 * s, 2);
        }
        mf__bar_init_seen();
    }
    __syncthreads();
    auto wait = [&](mf_address bar, int parity) {
        if (!BOUNDED) mf__bar_await(bar, parity);
        else if (!await(bar, parity)) *late = 1;
    };
    if (group == 0) {
        mf__registers_less<40>();
        if (warp == 0 && mf__elect()) {
            for (int chunk = 0; chunk < CHUNKS; chunk++) {
                const int s = chunk % STAGES, round = chunk / STAGES;
                wait(empty + 8 * s, (round + 1) & 1);
                mf__bar_expect(full + 8 * s, (128 + WIDTH) * 128);
                mf__map_copy(base + s * at::stage + at::a, &a, full + 8 * s, 64 * chunk, 1, row_a + (int)blockIdx.x * 128);
                mf__map_copy(base + s * at::stage + at::b, &b, full + 8 * s, 64 * chunk, 1, row_b);
            }
        } else if (warp == 1) {
            for (int chunk = 0; chunk < CHUNKS; chunk++) {
                const int s = chunk % STAGES, round = chunk / STAGES;
                wait(empty + 8 * s, (round + 1) & 1);
                for (int i = lane; i < WIDTH; i += 32) mf__copy4(base + s * at::stage + at::bias + 4 * i, bias + chunk * WIDTH + i, true);
                mf__bar_copied(full + 8 * s);
            }
        }
    } else {
        mf__registers_more<232>();
        float c[WIDTH / 2] = {};
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            const int s = chunk % STAGES, round = chunk / STAGES;
            wait(full + 8 * s, round & 1);
            const mf_address left = base + s * at::stage + at::a + (group - 1) * 64 * 128, right = base + s * at::stage + at::b;
#pragma unroll
            for (int i = 0; i < WIDTH / 2; i++) c[i] += mf__read(base + s * at::stage + at::bias + 4 * (i / 4 * 8 + 2 * t + i % 2));
            mf__keep(c);
            mf__wgmma_fence();
#pragma unroll
            for (int k = 0; k < 64; k += 16)
                mf__wgmma<false, WIDTH, 0, 0>(c, mf__matrix_on(mf__matrix_rows<128>(left), 2 * k), mf__matrix_on(mf__matrix_rows<128>(right), 2 * k), true);
            mf__wgmma_commit();
            mf__wgmma_wait<0>();
            mf__keep(c);
            mf__barrier(group, 128);
            if (thread == 0) mf__bar_arrive(empty + 8 * s);
        }
#pragma unroll
        for (int i = 0; i < WIDTH / 2; i++) {
            const int row = (int)blockIdx.x * 128 + (group - 1) * 64 + warp * 16 + g + i / 2 % 2 * 8;
            out[row * WIDTH + i / 4 * 8 + 2 * t + i % 2] = c[i];
        }
    }
#endif
}

#ifdef MF_EMULATE
/* s = x x' (64 x 64 x 64) with something wrong. */
enum { NOTHING, NO_WAIT, NO_COMMIT, NO_FENCE, OTHER_MAJOR, LEFT_RUNNING, OPERAND_LOST, NO_ARRIVAL, MANY_ARRIVALS, COPY_NOT_AWAITED, COPY_LEFT, NO_BARRIER, NOT_ALIGNED,
       LANE_APART, NO_REGISTERS, MISTAKES };
static __global__ void mistake_kernel(const __grid_constant__ mf_map map, int mistake, float *out) {
    MF_SHARED(unsigned char, shared);
    const mf_address x = mf__address(shared), bar = x + 8192;
    const int thread = (int)threadIdx.x;
    if (thread == 0 && mistake != NO_BARRIER) mf__bar_init(bar, 1);
    __syncthreads();
    if (thread == 0) {
        if (mistake != NO_ARRIVAL) mf__bar_expect(bar, 8192);
        if (mistake == MANY_ARRIVALS) mf__bar_arrive(bar);
        mf__map_copy(x + (mistake == NOT_ALIGNED ? 128 : 0), &map, bar, 0, 0, 0);
    }
    if (mistake == COPY_LEFT) return;
    if (mistake == NO_REGISTERS && thread < 128) mf__registers_more<240>();
    if (mistake == NO_REGISTERS && thread >= 384) mf__registers_less<64>();
    if (thread >= 128) return;
    if (mistake != COPY_NOT_AWAITED) mf__bar_await(bar, 0);
    float s[32];
    if (mistake != NO_FENCE) mf__wgmma_fence();
    for (int k = 0; k < 64; k += 16) {
        const mf_matrix left = part<128>(x, 8192, 0, mistake == LANE_APART && thread == 9 ? 8 : 0, k), right = part<128>(x, 8192, mistake == OTHER_MAJOR, 0, k);
        mf__wgmma<false, 64, 0, 0>(s, left, right, k > 0);
    }
    if (mistake != NO_COMMIT) mf__wgmma_commit();
    if (mistake == LEFT_RUNNING) return;
    if (mistake == OPERAND_LOST) {
        __syncthreads();
        memset(x + 64 * thread, 0, 64);
        __syncthreads();
    }
    if (mistake == NO_WAIT) {
        out[thread] = s[0];
        mf__wgmma_wait<0>();
        return;
    }
    mf__wgmma_wait<0>();
    out[thread] = s[0];
    if (mistake == COPY_NOT_AWAITED) mf__bar_await(bar, 0);
}

static void mistakes() {
    static const struct { int mistake; const char *what, *says; } cases[] = {
        {NOTHING, "nothing", "ok"}, {NO_WAIT, "accumulators read before the wait", "not a number"}, {NO_COMMIT, "no commit", "nobody waited for a product"},
        {NO_FENCE, "no fence", "no mf__wgmma_fence"}, {OTHER_MAJOR, "the other major", "is MN-major"}, {LEFT_RUNNING, "returns early", "nobody waited for a product"},
        {OPERAND_LOST, "operand overwritten before the wait", "other numbers"}, {NO_ARRIVAL, "nobody arrives", "lacks 1 of 1 arrivals and -8192 bytes"},
        {MANY_ARRIVALS, "two arrive where one should", "more than 1 arrivals"}, {COPY_NOT_AWAITED, "copy read before it landed", "not a number"},
        {COPY_LEFT, "copy left alone", "nobody waited for a copy"}, {NO_BARRIER, "no barrier", "no barrier at byte 8192"},
        {NOT_ALIGNED, "panel not aligned", "not at a multiple of 8 rows"}, {LANE_APART, "lanes that do not agree", "asks for another product"},
        {NO_REGISTERS, "more registers than others gave", "are left of a block that began with 128 a thread"}};
    static_assert(sizeof cases / sizeof *cases == MISTAKES);
    std::vector<uint16_t> x(64 * 64);
    std::vector<float> expected(128);
    for (uint16_t &y : x) y = rounded(false, (float)small_integer());
    for (int i = 0; i < 128; i++)                 /* s[0] of every thread */
        for (int k = 0; k < 64; k++) expected[(size_t)i] += element<__half>(x, (i / 32 * 16 + i % 32 / 4) * 64 + k) * element<__half>(x, i % 4 * 2 * 64 + k);
    const array<uint16_t> dx(x);
    mf_map map;
    if (mf__map_make(&map, dx.data, 64, 1, 64, 64, 64, 64) != MF_OK) abort();
    for (const auto &c : cases) {
        int ends[2];
        if (pipe(ends)) abort();
        fflush(stdout);
        const pid_t child = fork();
        if (child == 0) {
            dup2(ends[1], 2);
            const array<float> out(std::vector<float>(128, 7));
            launch(mistake_kernel, 1, c.mistake == NO_REGISTERS ? 512 : 128, 8192 + 8, map, c.mistake, out.data);
            const double off = furthest(out.read(128), expected);
            fputs(off == 0 ? "ok" : off == 1e30 ? "not a number" : "other numbers", stderr);
            _Exit(0);
        }
        close(ends[1]);
        std::string said;
        char text[512];
        for (ssize_t n; (n = read(ends[0], text, sizeof text)) > 0;) said.append(text, (size_t)n);
        close(ends[0]);
        waitpid(child, nullptr, 0);
        const bool right = said.find(c.says) != std::string::npos;
        say(std::string("mistake: ") + c.what, !right);
        if (!right) printf("    %s\n", said.c_str());
    }
}
#endif

/* ---- cases ---- */
static void copies() {
    constexpr int rows = 100, heads = 3, columns = 228, ld = 232;
    std::vector<uint16_t> x(rows * heads * ld);
    for (size_t i = 0; i < x.size(); i++) x[i] = (uint16_t)(i % 65521);
    const array<uint16_t> from(x);
    struct { int box_columns, box_rows, column, head, row; } cases[] = {{64, 128, 0, 0, 0}, {64, 64, 64, 1, 0}, {64, 96, 64, 1, 7}, {64, 96, 192, 2, 37},
        {64, 128, 256, 0, 3}, {32, 64, 64, 1, 5}, {32, 96, 128, 2, 91}, {32, 256, 224, 0, 13}, {16, 64, 144, 1, 0}, {16, 80, 224, 2, 51}, {64, 64, 0, 1, 100}};
    for (const auto &c : cases) {
        mf_map map;
        if (mf__map_make(&map, from.data, columns, heads, rows, ld, c.box_columns, c.box_rows) != MF_OK) {
            say("copy: tensor map", 1);
            continue;
        }
        const int n = c.box_rows * c.box_columns, bytes = 2 * c.box_columns;
        const array<uint16_t> to(std::vector<uint16_t>((size_t)n, 7));
        const array<int> late(std::vector<int>{0});
        launch(copy_kernel, 1, 128, 2 * n + 2048, map, 2 * n, c.column, c.head, c.row, to.data, late.data);
        const std::vector<uint16_t> y = to.read(n);
        int off = 0;
        for (int i = 0; i < c.box_rows; i++)
            for (int j = 0; j < c.box_columns; j++) {
                const bool inside = c.row + i < rows && c.column + j < columns;
                off += y[(size_t)swizzled(i * bytes + 2 * j, bytes) / 2] != (inside ? x[(size_t)(((c.row + i) * heads + c.head) * ld + c.column + j)] : 0);
            }
        char text[128];
        snprintf(text, sizeof text, "copy: box %d x %d at row %d, head %d, column %d%s", c.box_rows, c.box_columns, c.row, c.head, c.column,
                 late.read(1)[0] ? ", TOO LATE" : "");
        say(text, off + late.read(1)[0]);
    }
}

template <bool BF16, int N, int TA, int TB> static void product(int bytes_a, int bytes_b, int apart, int add) {
    std::vector<float> a(M * K), b(N * K), c(M * N), expected(M * N);
    std::vector<uint16_t> a16(M * K), b16(N * K);
    for (size_t i = 0; i < a.size(); i++) a16[i] = rounded(BF16, a[i] = (float)small_integer());
    for (size_t i = 0; i < b.size(); i++) b16[i] = rounded(BF16, b[i] = (float)small_integer());
    for (float &x : c) x = (float)small_integer();
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float sum = add || TA == 2 ? c[(size_t)(i * N + j)] : 0;
            for (int k = 0; k < K; k++) sum += a[(size_t)(i * K + k)] * b[(size_t)(j * K + k)];
            expected[(size_t)(i * N + j)] = sum;
        }
    const array<uint16_t> da(a16), db(b16);
    const array<float> dc(c), out(std::vector<float>(M * N, NAN));
    /* an MN-major operand takes whole panels */
    auto stride = [&](int bytes, int transposed, int lines) { return ((transposed ? K : lines) * bytes + 1023) / 1024 * 1024 + 1024 * apart; };
    auto panels = [&](int bytes, int transposed, int lines) { return ((transposed ? lines : K) + bytes / 2 - 1) / (bytes / 2); };
    operands o = {da.data, db.data, dc.data, out.data, bytes_a, bytes_b, stride(bytes_a, TA == 1, M), stride(bytes_b, TB, N), 0, add};
    o.start_b = o.stride_a * panels(bytes_a, TA == 1, M);
    launch(product_kernel<BF16, N, TA, TB>, 1, 256, o.start_b + o.stride_b * panels(bytes_b, TB, N) + 1024, o);
    char text[128];
    snprintf(text, sizeof text, "product: %s N %d, a %s %d B, b %s-major %d B, %s%s", BF16 ? "bf16" : "fp16", N,
             TA == 2 ? "in registers" : TA ? "MN-major" : "K-major", bytes_a, TB ? "MN" : "K", bytes_b, apart ? "panels apart, " : "", add || TA == 2 ? "+=" : "=");
    say(text, furthest(out.read(M * N), expected));
}
template <bool BF16, int N> static void products() {
    for (int bytes = 128; bytes >= 32; bytes /= 2) {
        const int other = bytes == 128 ? 64 : bytes == 64 ? 32 : 128;
        product<BF16, N, 0, 0>(bytes, bytes, 0, 0);
        product<BF16, N, 0, 1>(128, bytes, 0, 1);
        product<BF16, N, 1, 0>(bytes, other, 1, 1);
        product<BF16, N, 1, 1>(other, bytes, 1, 0);
        product<BF16, N, 2, 0>(128, bytes, 1, 1);
        product<BF16, N, 2, 1>(128, bytes, bytes == 64, 1);
    }
}

static void chain() {
    std::vector<float> x(64 * 64), y(64 * 64), expected(2 * 64 * 64);
    std::vector<uint16_t> x16(64 * 64), y16(64 * 64);
    for (size_t i = 0; i < x.size(); i++) {
        x16[i] = rounded(false, x[i] = (float)small_integer());
        y16[i] = rounded(false, y[i] = (float)small_integer());
    }
    for (int i = 0; i < 64; i++) {
        float s[64];
        for (int j = 0; j < 64; j++) {
            float sum = 0, other = 0;
            for (int k = 0; k < 64; k++) {
                sum += x[(size_t)(i * 64 + k)] * y[(size_t)(j * 64 + k)];
                other += y[(size_t)(i * 64 + k)] * x[(size_t)(j * 64 + k)];
            }
            s[j] = sum;
            expected[(size_t)(64 * 64 + i * 64 + j)] = other;
        }
        for (int j = 0; j < 64; j++) {
            float sum = 0;
            for (int k = 0; k < 64; k++) sum += s[k] * y[(size_t)(k * 64 + j)];
            expected[(size_t)(i * 64 + j)] = sum;
        }
    }
    const array<uint16_t> dx(x16), dy(y16);
    const array<float> out(std::vector<float>(2 * 64 * 64, NAN));
    launch(chain_kernel, 1, 128, 16384 + 1024, dx.data, dy.data, out.data);
    say("two groups under way, accumulators as operand", furthest(out.read(2 * 64 * 64), expected));
}

template <bool BOUNDED> static void pipeline() {
    constexpr int rows_a = 203, rows_b = 130, row_a = 3, row_b = 7, blocks = 2;
    std::vector<float> a(rows_a * 2 * LONG), b(rows_b * 2 * LONG), bias(CHUNKS * WIDTH), expected(blocks * 128 * WIDTH);
    std::vector<uint16_t> a16(a.size()), b16(b.size());
    for (size_t i = 0; i < a.size(); i++) a16[i] = rounded(false, a[i] = (float)small_integer());
    for (size_t i = 0; i < b.size(); i++) b16[i] = rounded(false, b[i] = (float)small_integer());
    for (float &x : bias) x = (float)small_integer();
    for (int i = 0; i < blocks * 128; i++)
        for (int j = 0; j < WIDTH; j++) {
            float sum = 0;
            for (int chunk = 0; chunk < CHUNKS; chunk++) sum += bias[(size_t)(chunk * WIDTH + j)];
            for (int k = 0; k < LONG && row_a + i < rows_a; k++) sum += a[(size_t)(((row_a + i) * 2 + 1) * LONG + k)] * b[(size_t)(((row_b + j) * 2 + 1) * LONG + k)];
            expected[(size_t)(i * WIDTH + j)] = sum;
        }
    const array<uint16_t> da(a16), db(b16);
    const array<float> dbias(bias), out(std::vector<float>(expected.size(), NAN));
    const array<int> late(std::vector<int>{0});
    mf_map map_a, map_b;
    if (mf__map_make(&map_a, da.data, LONG, 2, rows_a, LONG, 64, 128) != MF_OK || mf__map_make(&map_b, db.data, LONG, 2, rows_b, LONG, 64, WIDTH) != MF_OK) {
        say("pipeline: tensor maps", 1);
        return;
    }
    launch(pipeline_kernel<BOUNDED>, blocks, 384, pipeline_layout::bytes, map_a, map_b, dbias.data, row_a, row_b, out.data, late.data);
    const double off = furthest(out.read((int64_t)expected.size()), expected);
    say(std::string("pipeline of a producer and two consumers") + (BOUNDED ? "" : ", waits as they are") + (late.read(1)[0] ? ", TOO LATE" : ""), off + late.read(1)[0]);
}

int main() {
    cudaDeviceProp properties;
    CHECK(cudaGetDeviceProperties(&properties, 0));
    if (properties.major * 10 + properties.minor != 90) {
        printf("skipped: %s has compute capability %d.%d\n", properties.name, properties.major, properties.minor);
        return 0;
    }
    copies();
    products<false, 64>();
    products<false, 8>();
    products<false, 96>();
    products<false, 104>();
    products<false, 160>();
    products<false, 232>();
    products<false, 256>();
    products<true, 64>();
    chain();
    pipeline<true>();
    if (!wrong) pipeline<false>();
#ifdef MF_EMULATE
    if (!getenv("MOONFOLD_EMULATE_ORDER")) mistakes();         /* of random order only some show */
#endif
    printf("%d wrong\n", wrong);
    return wrong > 98 ? 98 : wrong;
}
