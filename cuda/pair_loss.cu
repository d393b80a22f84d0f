/* pair_loss.cu: how far predicted distances between atoms are from the true ones, without a matrix (core/cpu/pair_loss.c).
 *
 *   predicted p, truth t (N, A, 3), mask (N, A)  ->  sum, pairs (n), over ordered pairs a != b of a sequence, both there:
 *   sum = sum over D_ab < cutoff of (D_ab - D'_ab)^2        d sum / d p_a = 4 sum_b (D' - D)(p_a - p_b) / D'      (dpredicted is =)
 *
 * Work      forward 22 operations and two roots for each of N A / 2 later atoms of an atom; backward 30 and two for each of them all.
 *           With a cutoff, tiles whose boxes of true atoms are out of reach are skipped: what is left is linear in N.
 * Traffic   an atom's 25 bytes once for each tile of 32 rows, from the caches
 * Mapping   a block has a tile of 32 rows, one a lane; its warps take turns at the tiles of columns, a warp lays one down in shared
 *           memory and every lane runs over it. Forward visits a pair once (later columns) and doubles; backward visits it from both
 *           sides, so that a gradient is summed by its own block and no atomics are needed.
 * Numerics  true distances have the CPU's bits (they decide which pairs count), predicted ones its accuracy. 32 columns are summed
 *           in the tensor's type and everything beyond in double, as on the CPU.
 * Bitwise   deterministic: which warp takes a tile follows from the boxes, and partial sums are combined in the order of the tiles.
 * Refuses   sequences of more than 2^31 - 1 atoms */
#include "table.cuh"
#include "tiles.cuh"

enum { THREADS = 256, WARPS = THREADS / 32 };
static constexpr unsigned ALL = 0xffffffffu;

template <class T> struct atoms {
    const int32_t *offsets;
    int64_t per_residue, slots;   /* A; tiles of 32 */
    int count;
    T cutoff;                     /* infinity for none */
    const T *predicted, *truth;
    const unsigned char *mask;
    mf_fault *fault;
    const char *sentence;
};

/* One atom as the columns lie in shared memory: t[0] is NaN where there is none, and no distance to it is below the cutoff. */
template <class T> struct __align__(8 * sizeof(T)) atom {
    T t[3], p[3], unused[2];
};

template <class T> static __device__ __forceinline__ atom<T> load(const atoms<T> &x, int64_t i, bool there) {
    atom<T> a = {};
    a.t[0] = (T)NAN;
    if (there && x.mask[i])
#pragma unroll
        for (int j = 0; j < 3; j++) {
            a.t[j] = x.truth[3 * i + j];
            a.p[j] = x.predicted[3 * i + j];
        }
    return a;
}

template <class T> struct box {
    T lo[3], hi[3];               /* inverted where no atom is there */
};

template <class T>
static __global__ void __launch_bounds__(THREADS) pair_loss_boxes_kernel(atoms<T> x, box<T> *__restrict__ boxes) {
    const int lane = threadIdx.x & 31;
    const int64_t slot = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    if (slot >= x.slots) return;
    const int s = mf__slot_sequence(x.offsets, x.per_residue, x.count, slot, 32);
    const int64_t begin = x.offsets[s] * x.per_residue, end = x.offsets[s + 1] * x.per_residue;
    const int64_t i = begin + (slot - mf__slot_of(begin, s, 32)) * 32 + lane;
    const bool there = i < end && x.mask[i];
    box<T> b;
#pragma unroll
    for (int j = 0; j < 3; j++) {
        const T at = there ? x.truth[3 * i + j] : T(0);
        b.lo[j] = mf__warp_all(there ? at : (T)INFINITY, [](T u, T v) { return u < v ? u : v; });
        b.hi[j] = mf__warp_all(there ? at : (T)-INFINITY, [](T u, T v) { return u > v ? u : v; });
    }
    if (lane == 0) boxes[slot] = b;
}

template <class T> static __device__ __forceinline__ bool within(const box<T> &a, const box<T> &b, T cutoff) {
    T gap[3];
#pragma unroll
    for (int j = 0; j < 3; j++) {
        const T below = a.lo[j] - b.hi[j], above = b.lo[j] - a.hi[j];
        gap[j] = below > above ? below : above;
        gap[j] = gap[j] > T(0) ? gap[j] : T(0);
    }
    const T reach = cutoff * (T)1.00001;   /* and what rounding may add to it */
    return gap[0] * gap[0] + gap[1] * gap[1] + gap[2] * gap[2] <= reach * reach;
}

/* The distances of the true atoms, when the pair counts; the test of squares spares a root where it surely does not. */
template <class T> static __device__ __forceinline__ bool counts(const atom<T> &a, const atom<T> &b, T cutoff, T limit, T *truth) {
    const T square = mf__square(mf__subtract(a.t[0], b.t[0]), mf__subtract(a.t[1], b.t[1]), mf__subtract(a.t[2], b.t[2]));
    if (!(square <= limit)) return false;
    *truth = mf__root(square);
    return *truth < cutoff;
}

/* boxes: NULL without a cutoff. Forward: partial[2 slot], sums and pairs of the tile's rows. Backward: dpredicted of the tile's rows. */
template <class T, bool GRADIENT>
static __global__ void __launch_bounds__(THREADS)
pair_loss_kernel(atoms<T> x, const box<T> *__restrict__ boxes, double *__restrict__ partial, const T *__restrict__ dsum, T *__restrict__ dpredicted) {
    __shared__ atom<T> columns[WARPS][32];
    __shared__ double sums[WARPS][96];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int64_t slot = blockIdx.x;
    const int s = mf__slot_sequence(x.offsets, x.per_residue, x.count, slot, 32);
    const int64_t begin = x.offsets[s] * x.per_residue, size = x.offsets[s + 1] * x.per_residue - begin, first = mf__slot_of(begin, s, 32);
    const int own = (int)(slot - first), tiles = (int)((size + 31) / 32);
    if (own >= tiles) return;
    const int64_t row = (int64_t)own * 32 + lane;
    const atom<T> a = load(x, begin + row, row < size);
    if (warp == 0 && row < size && x.mask[begin + row] && !(isfinite(a.t[0]) && isfinite(a.t[1]) && isfinite(a.t[2])))
        mf__raise_finite(x.fault, x.sentence, row / x.per_residue + 1, s + 1);
    const T cutoff = x.cutoff, limit = cutoff * cutoff * (T)1.00001;
    box<T> mine = {};
    if (boxes) mine = boxes[slot];

    double total[3] = {0, 0, 0};  /* forward: sum, pairs */
    int turn = 0;
    for (int group = GRADIENT ? 0 : own; group < tiles; group += 32) {
        const int candidate = group + lane;
        unsigned left = __ballot_sync(ALL, candidate < tiles && (!boxes || within(mine, boxes[first + candidate], cutoff)));
        while (left) {
            const int tile = group + __ffs((int)left) - 1;
            left &= left - 1;
            if (turn++ % WARPS != warp) continue;
            const int64_t column = (int64_t)tile * 32 + lane;
            __syncwarp();
            columns[warp][lane] = load(x, begin + column, column < size);
            __syncwarp();
            T sum[3] = {0, 0, 0};
            const int after = !GRADIENT && tile == own ? lane : -1;
#pragma unroll 4
            for (int j = 0; j < 32; j++) {
                const atom<T> b = columns[warp][j];
                T truth, f[3];
                if (!counts(a, b, cutoff, limit, &truth) || j <= after) continue;
#pragma unroll
                for (int c = 0; c < 3; c++) f[c] = a.p[c] - b.p[c];
                const T guess = mf__root(f[0] * f[0] + f[1] * f[1] + f[2] * f[2]);
                if (GRADIENT) {   /* a row's own column gives 0 */
                    const T pull = guess < (T)1e-8 ? T(0) : (guess - truth) / guess;
#pragma unroll
                    for (int c = 0; c < 3; c++) sum[c] += pull * f[c];
                } else {
                    const T error = truth - guess;
                    sum[0] += error * error;
                    sum[1] += T(1);
                }
            }
#pragma unroll
            for (int c = 0; c < 3; c++) total[c] += (double)sum[c];
        }
    }
    if (GRADIENT) {
#pragma unroll
        for (int c = 0; c < 3; c++) sums[warp][3 * lane + c] = total[c];
        __syncthreads();
        const int64_t at = (int64_t)own * 96 + threadIdx.x;
        if (threadIdx.x < 96 && at < 3 * size) {
            double g = 0;
            for (int w = 0; w < WARPS; w++) g += sums[w][threadIdx.x];
            dpredicted[3 * begin + at] = (T)(4 * (double)dsum[s] * g);
        }
    } else {
        double *slots = &sums[0][0];
#pragma unroll
        for (int c = 0; c < 2; c++) {
            total[c] = mf__block_sum(total[c], slots);
            if (threadIdx.x == 0) partial[2 * slot + c] = total[c];
        }
    }
}

/* A block a sequence: the tiles' sums, twice, as every pair counts both ways. */
template <class T>
static __global__ void __launch_bounds__(THREADS)
pair_loss_combine_kernel(const int32_t *__restrict__ offsets, int64_t per_residue, const double *__restrict__ partial, T *__restrict__ sum,
                         T *__restrict__ pairs) {
    __shared__ double slots[32];
    const int64_t s = blockIdx.x, begin = offsets[s] * per_residue, tiles = (offsets[s + 1] * per_residue - begin + 31) / 32;
    const double *from = partial + 2 * mf__slot_of(begin, s, 32);
    double total[2] = {0, 0};
    for (int64_t i = threadIdx.x; i < tiles; i += THREADS)
        for (int c = 0; c < 2; c++) total[c] += from[2 * i + c];
    for (int c = 0; c < 2; c++) total[c] = mf__block_sum(total[c], slots);
    if (threadIdx.x == 0) {
        sum[s] = (T)(2 * total[0]);
        pairs[s] = (T)(2 * total[1]);
    }
}

template <class T, bool GRADIENT> static mf_status run(mf_device *d, const mf_pair_loss_args *a) {
    mf_status status;
    const mf_packing *packing = a->packing;
    const int32_t *offsets = mf__cuda_offsets(d, packing, &status);
    MF_TRY(status);
    const int64_t n = packing->total * a->atoms, slots = mf__slot_of(n, packing->count, 32);
    const bool near = a->cutoff > 0;
    if (GRADIENT && n == 0) return MF_OK;
    const atoms<T> x = {offsets, a->atoms, slots, (int)packing->count, near ? (T)a->cutoff : (T)INFINITY, (const T *)a->predicted, (const T *)a->truth,
                        a->mask, mf__cuda(d)->fault_device,
                        "pair_distance_loss: a true atom of residue %lld of sequence %lld is not finite; mask it"};
    mf_scratch boxes, partial;
    if (near) {
        MF_TRY(boxes.take(d, (slots + 1) * (int64_t)sizeof(box<T>)));
        mf__cuda_work(d, 6.0 * (double)n, (double)n * (3 * sizeof(T) + 1));
        MF_TRY(MF_LAUNCH(d, pair_loss_boxes_kernel<T>, (unsigned)mf__blocks(slots, WARPS), THREADS, 0, x, boxes.as<box<T>>()));
    }
    if (!GRADIENT) MF_TRY(partial.take(d, (slots + 1) * 2 * (int64_t)sizeof(double)));
    mf__cuda_work(d, (GRADIENT ? 40.0 : 16.0) * (double)packing->pairs * (double)(a->atoms * a->atoms), (double)n * (6 * sizeof(T) + 1),
                  sizeof(T) == 8 ? MF_UNIT_FP64 : MF_UNIT_FP32);
    MF_TRY(MF_LAUNCH(d, (pair_loss_kernel<T, GRADIENT>), n ? (unsigned)slots : 0, THREADS, 0, x, (const box<T> *)boxes.data, partial.as<double>(),
                     (const T *)a->dsum, (T *)a->dpredicted));
    if (GRADIENT) return MF_OK;
    mf__cuda_work(d, 2.0 * (double)slots, 16.0 * (double)slots);
    return MF_LAUNCH(d, pair_loss_combine_kernel<T>, (unsigned)packing->count, THREADS, 0, offsets, a->atoms, partial.as<double>(), (T *)a->sum,
                     (T *)a->pairs);
}

static mf_status check(const mf_pair_loss_args *a) {
    if (!mf__is_real(a->dtype))
        return mf__fail(MF_ESUPPORT, "pair_distance_loss: geometry takes float32 or float64, not %s", mf_dtype_name(a->dtype));
    if (a->packing->longest * a->atoms > INT32_MAX)
        return mf__fail(MF_ESUPPORT, "pair_distance_loss: a sequence of %lld atoms; they are counted in 32 bits",
                        (long long)(a->packing->longest * a->atoms));
    return MF_OK;
}

mf_status mf__cuda_pair_loss(mf_device *d, const mf_pair_loss_args *a) {
    MF_TRY(check(a));
    MF_DISPATCH_REAL(a->dtype, T, return (run<T, false>(d, a)));
}

mf_status mf__cuda_pair_loss_grad(mf_device *d, const mf_pair_loss_args *a) {
    MF_TRY(check(a));
    MF_DISPATCH_REAL(a->dtype, T, return (run<T, true>(d, a)));
}
