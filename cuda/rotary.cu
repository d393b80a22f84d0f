/* rotary.cu: pairs of columns turned by angles that grow along the chain (core/geometry/rotary.c).
 *
 *   (a_l | b_l) <- (a_l cos - b_l sin | a_l sin + b_l cos) of index_i pi / max_len^(2l / dim)        backward: of the opposite angles
 *
 *   index (N), x, y (N, H, w): a are columns from 0, b from dim / 2, columns from dim on are copied; y = x turned
 *
 * Work      3 operations an element and a sine with its cosine for each of the N dim / 2 angles, whatever H
 * Traffic   x read once, y written once: bandwidth bound
 * Mapping   a block has some residues and keeps the sines and cosines of their angles in shared memory, where all heads find them. A
 *           thread has one column, or 16 bytes of them where widths and addresses allow, and those dim / 2 behind, of every few heads.
 *           blockIdx.y takes CHANNELS columns, whose powers a block makes once for all its residues.
 * Numerics  angles in float32, step by step as the CPU's; sines, cosines and what is turned in the tensor's type
 * Bitwise   deterministic
 * Refuses   heads of more than 16 million columns */
#include "table.cuh"
#define MF_DEVICE_FUNCTION __host__ __device__
#include "../core/geometry/features.h"

enum { THREADS = 256, CHANNELS = 256, TURNS = 1024, ROWS = 4 };

template <class T, int V> struct __align__(sizeof(T) * V) vec {
    T at[V];
};

static __device__ inline void sine_cosine(float angle, float *sine, float *cosine) { sincosf(angle, sine, cosine); }
static __device__ inline void sine_cosine(float angle, double *sine, double *cosine) { sincos((double)angle, sine, cosine); }

/* Widths in vectors. threadIdx: column, row; a row is a head of a residue. */
template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
rotary_kernel(int64_t n, int64_t heads, int64_t width, int64_t half, int residues, double max_len, int inverse, const int32_t *__restrict__ index,
              const vec<T, V> *__restrict__ x, vec<T, V> *__restrict__ y) {
    __shared__ float power[CHANNELS];
    __shared__ vec<T, V> sine[TURNS / V], cosine[TURNS / V];     /* residues, turned */
    const int threads = blockDim.x * blockDim.y, thread = threadIdx.y * blockDim.x + threadIdx.x;
    const int64_t first = (int64_t)blockIdx.y * (CHANNELS / V), left = first + threadIdx.x, right = left + half;
    const int turned = half - first < CHANNELS / V ? (int)(half > first ? half - first : 0) : CHANNELS / V, channels = turned * V;
    for (int c = thread; c < channels; c += threads) power[c] = mf__embedding_power(first * V + c, 2 * half * V, max_len);
    for (int64_t start = (int64_t)blockIdx.x * residues; start < n; start += (int64_t)gridDim.x * residues) {
        const int here = n - start < residues ? (int)(n - start) : residues;
        __syncthreads();
        for (int i = thread; i < here * channels; i += threads) {
            const int r = i / channels, c = i - r * channels;
            T s, k;
            sine_cosine(mf__embedding_turn(index[start + r]) / power[c], &s, &k);
            sine[i / V].at[i % V] = inverse ? -s : s;
            cosine[i / V].at[i % V] = k;
        }
        __syncthreads();
        if (right >= width) continue;
        for (int64_t row = threadIdx.y; row < here * heads; row += blockDim.y) {
            const int64_t at = (start * heads + row) * width;
            vec<T, V> b = x[at + right];
            if (left < half) {
                const int angle = (residues == 1 ? 0 : (int)row / (int)heads) * turned + threadIdx.x;
                const vec<T, V> s = sine[angle], k = cosine[angle];
                vec<T, V> a = x[at + left];
#pragma unroll
                for (int v = 0; v < V; v++) {
                    const T turning = a.at[v];
                    a.at[v] = turning * k.at[v] - b.at[v] * s.at[v];
                    b.at[v] = turning * s.at[v] + b.at[v] * k.at[v];
                }
                y[at + left] = a;
            }
            y[at + right] = b;
        }
    }
}

/* Residues of a block: ROWS rows a thread, and so few that their angles find room and, where there are several, 32 bits their rows. */
template <class T, int V> static mf_status turn(mf_device *d, const mf_rotary_args *a) {
    const int64_t half = a->dim / 2, columns = (a->width - half) / V, most = TURNS / (half < CHANNELS ? half : CHANNELS);
    const unsigned across = columns < CHANNELS / V ? (unsigned)columns : CHANNELS / V, down = THREADS / across;
    int64_t residues = ROWS * (int64_t)down / a->heads;
    residues = residues < 1 ? 1 : residues > most ? most : residues;
    const int64_t parts = mf__blocks(columns, CHANNELS / V);
    if (parts > 65535) return mf__fail(MF_ESUPPORT, "rotary: width %lld is more than the grid of a GPU takes", (long long)a->width);
    return MF_LAUNCH(d, (rotary_kernel<T, V>), dim3(mf__grid(d, a->n, residues), (unsigned)parts), dim3(across, down), 0, a->n, a->heads,
                     a->width / V, half / V, (int)residues, a->max_len, a->inverse, a->index, (const vec<T, V> *)a->x, (vec<T, V> *)a->y);
}

mf_status mf__cuda_rotary(mf_device *d, const mf_rotary_args *a) {
    const int64_t elements = a->n * a->heads * a->width;
    if (elements == 0) return MF_OK;
    mf__cuda_work(d, 3.0 * (double)elements + 15.0 * (double)(a->n * a->dim), (double)(2 * elements * mf_dtype_bytes(a->dtype) + 4 * a->n),
                  a->dtype == MF_FLOAT64 ? MF_UNIT_FP64 : MF_UNIT_FP32);
    MF_DISPATCH_REAL(a->dtype, T, {
        constexpr int V = 16 / sizeof(T);
        if (a->width % V == 0 && a->dim / 2 % V == 0 && (((uintptr_t)a->x | (uintptr_t)a->y) & 15) == 0) return (turn<T, V>(d, a));
        return (turn<T, 1>(d, a));
    });
}
