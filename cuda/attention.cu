/* attention.cu: packed attention: which kernel runs, and what a 16-bit one needs before it.
 *
 *   float32, exact or tf32             attention_exact.cu
 *   float32 with fp16 or bf16          q, k, v rounded to 16 bits here, rows padded with zeros to multiples of 8, v's with a one before
 *                                      them to one of 16 (flash.cuh says what for), then flash.cuh;
 *                                      operands that are 16 bits already (args.operand) go there as they lie
 *   float64, any precision             attention_exact.cu, which rounds in double as the CPU does
 *
 * Backward needs first
 *   dout' = round(scale dout),  delta = rowsum(dout' out)
 * where scale is 1 but in float16: there the largest power of two for which |dout'| and |dS| <= max_i |dout_i| max_j |v_j| / 2 both stay
 * below 2^15 (core/cpu/attention.c says why). It is found on the device: one kernel rounds q, k, v and leaves each block's maxima, the
 * next one combines those (scale.cuh), scales dout and sums delta; so a backward is two kernels and the products. readout.cu does
 * all this for operands that lift.cu made: there dout comes rounded, with delta.
 *
 * Traffic   rounding 6 bytes an element of q, k, v; dout 6 and out 4; a warp a row, a lane two neighbours
 * Numerics  norms in double where a square would leave float's range. delta in the real type, over what the products will see. Maxima do not depend on
 *           their order: bitwise repeatable
 * Refuses   rows of 2^31 elements and more; 16-bit operands of width 0 */
#include <limits.h>
#include "attention.cuh"
#include "flash.cuh"
#include "scale.cuh"

struct operand_args {
    int64_t rows;                 /* N H */
    int dqk, dv;
    int64_t ldq, ldv;
    const void *q, *k, *v, *dout;
    void *q_to, *k_to, *v_to;     /* 16 bits */
    double *extents;              /* (blocks, 3): largest |dout|, largest squared norm of a row of dout and of v; or NULL */
};

template <class T> struct alignas(2 * sizeof(T)) two {
    T x[2];
};

/* Two neighbours of a row, 0 beyond its width; in one access where every pair of the array is aligned. */
template <class T> static __device__ inline two<T> load_two(const T *row, int c, int width, bool paired) {
    if (paired && c + 1 < width) return *(const two<T> *)(row + c);
    two<T> pair;
    pair.x[0] = c < width ? row[c] : mf__to<T>(0.0f);
    pair.x[1] = c + 1 < width ? row[c + 1] : mf__to<T>(0.0f);
    return pair;
}
template <class T> static __device__ inline bool is_paired(const T *x, int64_t width) {
    return width % 2 == 0 && (uintptr_t)x % (2 * sizeof(T)) == 0;
}

/* A warp rounds a row; `after` comes in the column after the last, then zeros. */
template <class H>
static __device__ inline void round_row(H *to, int64_t ld, const float *from, int width, bool paired, int lane, float after = 0) {
#pragma unroll 4
    for (int c = 2 * lane; c < ld; c += 64) {
        const two<float> x = load_two(from, c, width, paired);
        two<H> y;
        y.x[0] = mf__to<H>(c == width ? after : x.x[0]);
        y.x[1] = mf__to<H>(c + 1 == width ? after : x.x[1]);
        *(two<H> *)(to + c) = y;
    }
}

/* One of the two sums below: in float where no square leaves its range, in double elsewhere. */
template <class S, class T> static __device__ inline S row_square(S *largest, const T *from, int width, bool paired, int lane) {
    S most = 0, sum = 0;
#pragma unroll 4
    for (int c = 2 * lane; c < width; c += 64) {
        const two<T> x = load_two(from, c, width, paired);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const S y = mf__to<S>(x.x[i]);
            most = fabs(y) > most ? fabs(y) : most;
            sum += y * y;
        }
    }
    *largest = mf__warp_max(most);
    return mf__warp_sum(sum);
}

/* A warp measures a row: the largest |x|, NaN passed over, and the squared norm. */
template <class T> static __device__ inline void measure_row(double *largest, double *square, const T *from, int width, bool paired, int lane) {
    double most = 0, sum;
    if constexpr (std::is_same_v<T, double>) {
        sum = row_square(&most, from, width, paired, lane);
    } else {
        float narrow;
        sum = (double)row_square(&narrow, from, width, paired, lane);
        most = (double)narrow;
        if (narrow > 0 && !(narrow > 1e-15f && narrow < 1e15f)) sum = row_square(&most, from, width, paired, lane);
    }
    *largest = most > *largest ? most : *largest;
    *square = sum > *square ? sum : *square;
}

/* V: type of v in memory; D: of dout; H: what q, k, v are rounded to where q_to says so. */
template <class V, class D, class H> static __global__ void __launch_bounds__(256) operands_kernel(operand_args p) {
    __shared__ double slots[32];
    const int lane = threadIdx.x & 31;
    const int64_t ldv = std::is_same_v<V, H> ? p.ldv : p.dv;
    const V *v = (const V *)p.v;
    const D *dout = (const D *)p.dout;
    double ignored = 0, largest = 0, dout_square = 0, v_square = 0;
    for (int64_t row = (int64_t)blockIdx.x * 8 + threadIdx.x / 32; row < p.rows; row += (int64_t)gridDim.x * 8) {
        if constexpr (std::is_same_v<V, float>) {
            const float *q = (const float *)p.q, *k = (const float *)p.k;
            round_row((H *)p.q_to + row * p.ldq, p.ldq, q + row * p.dqk, p.dqk, is_paired(q, p.dqk), lane);
            round_row((H *)p.k_to + row * p.ldq, p.ldq, k + row * p.dqk, p.dqk, is_paired(k, p.dqk), lane);
            round_row((H *)p.v_to + row * p.ldv, p.ldv, v + row * p.dv, p.dv, is_paired(v, p.dv), lane, 1.0f);
        }
        if (!p.extents) continue;
        measure_row(&ignored, &v_square, v + row * ldv, p.dv, is_paired(v, ldv), lane);
        measure_row(&largest, &dout_square, dout + row * p.dv, p.dv, is_paired(dout, p.dv), lane);
    }
    if (p.extents) mf__leave_extents(p.extents, largest, dout_square, v_square, slots);
}

/* delta, and dout as the products will see it. H is R where nothing is rounded; `copy` may be NULL. */
template <class R, class H> static __global__ void __launch_bounds__(256)
prepare_kernel(int64_t rows, int width, int64_t ld, const R *dout, const R *out, H *copy, R *delta, const double *extents, int count,
               float *scale_to) {
    __shared__ double slots[32];
    const R scale = extents ? (R)mf__dout_scale(extents, count, slots) : R(1);
    if (blockIdx.x == 0 && threadIdx.x == 0 && scale_to) *scale_to = (float)scale;
    const int lane = threadIdx.x & 31;
    const bool paired = is_paired(dout, width) && is_paired(out, width);
    for (int64_t row = (int64_t)blockIdx.x * 8 + threadIdx.x / 32; row < rows; row += (int64_t)gridDim.x * 8) {
        R total = 0;
#pragma unroll 4
        for (int c = 2 * lane; c < ld; c += 64) {
            const two<R> x = load_two(dout + row * width, c, width, paired), y = load_two(out + row * width, c, width, paired);
            two<H> rounded;
            rounded.x[0] = mf__to<H>(scale * x.x[0]);
            rounded.x[1] = mf__to<H>(scale * x.x[1]);
            total += mf__to<R>(rounded.x[0]) * y.x[0] + mf__to<R>(rounded.x[1]) * y.x[1];
            if (copy) *(two<H> *)(copy + row * ld + c) = rounded;
        }
        total = mf__warp_sum(total);
        if (lane == 0) delta[row] = total;
    }
}

/* ---- launchers ---- */

static mf_status check(const mf_attention_args *a) {
    const int64_t width = a->dqk > a->dv ? a->dqk : a->dv;
    if (a->dtype != MF_FLOAT32 && a->dtype != MF_FLOAT64)
        return mf__fail(MF_EDTYPE, "attention: element type %s, expected float32 or float64", mf_dtype_name(a->dtype));
    if (width > 0 && a->heads > INT_MAX / width)
        return mf__fail(MF_ESUPPORT, "attention: %lld heads of width %lld: a residue's row must stay under 2^31 elements", (long long)a->heads,
                        (long long)width);
    const bool fits = a->dtype == MF_FLOAT32 && a->dqk > 0 && a->dv > 0 && a->ldq >= a->dqk && a->ldv > a->dv && a->ldq % 8 == 0 &&
                      a->ldv % 16 == 0 && a->precision == (a->operand == MF_FLOAT16 ? MF_FP16 : MF_BF16);
    if (a->operand && !fits)
        return mf__fail(MF_ESUPPORT, "attention: 16-bit operands of widths %lld, %lld in rows of %lld, %lld: rows of multiples of 8, those of v of "
                        "16 with a column more, their type as precision, and the rest float32 expected",
                        (long long)a->dqk, (long long)a->dv, (long long)a->ldq, (long long)a->ldv);
    return MF_OK;
}

static bool rounds(const mf_attention_args *a) { return a->precision == MF_FP16 || a->precision == MF_BF16; }
static bool takes_flash(const mf_attention_args *a) { return rounds(a) && a->dtype == MF_FLOAT32 && a->dqk > 0 && a->dv > 0; }
static int64_t padded(int64_t width) { return (width + 7) / 8 * 8; }

/* Pieces of one scratch block, each aligned for any access. */
struct carving {
    int64_t bytes = 0;
    int64_t add(int64_t size) {
        const int64_t at = bytes;
        bytes += (size + 255) / 256 * 256;
        return at;
    }
};

static mf_status fill_flash(mf_flash *f, mf_device *d, const mf_attention_args *a) {
    mf_status status = MF_OK;
    *f = {};
    f->bf16 = a->precision == MF_BF16;
    f->heads = (int)a->heads;
    f->dqk = (int)a->dqk;
    f->dv = (int)a->dv;
    f->ldq = a->operand ? a->ldq : padded(a->dqk);
    f->ldv = a->operand ? a->ldv : (a->dv + 1 + 15) / 16 * 16;
    f->sequences = a->packing->count;
    f->total = a->packing->total;
    f->longest = a->packing->longest;
    f->pairs = a->packing->pairs;
    f->offsets = mf__cuda_offsets(d, a->packing, &status);
    f->key_bias = (const float *)a->key_bias;
    f->out = (float *)a->out;
    f->lse = (float *)a->lse;
    return status;
}

static int64_t row_blocks(const mf_device *d, int64_t rows) {
    const int64_t most = (int64_t)mf__cuda(d)->multiprocessors * 8, wanted = mf__blocks(rows, 8);
    return wanted < most ? wanted : most;
}

/* Rounds q, k, v (unless they are) and, with extents, measures v and dout. */
static mf_status make_operands(mf_device *d, const mf_attention_args *a, mf_flash *f, char *q, char *k, char *v, double *extents) {
    const int64_t rows = a->packing->total * a->heads;
    operand_args p = {rows, (int)a->dqk, (int)a->dv, f->ldq, f->ldv, a->q, a->k, a->v, a->dout, q, k, v, extents};
    const unsigned blocks = (unsigned)row_blocks(d, rows);
    const double width = (double)(2 * a->dqk + a->dv), measured = extents ? 4.0 * (double)a->dv : 0;
    if (a->operand) {
        f->q = a->q;
        f->k = a->k;
        f->v = a->v;
        if (!extents) return MF_OK;
        mf__cuda_work(d, 0, (double)rows * (2.0 * (double)a->dv + measured));
        return MF_LAUNCH(d, (operands_kernel<__half, float, __half>), blocks, 256, 0, p);
    }
    f->q = q;
    f->k = k;
    f->v = v;
    mf__cuda_work(d, 0, (double)rows * (6 * width + measured));
    if (f->bf16) return MF_LAUNCH(d, (operands_kernel<float, float, __nv_bfloat16>), blocks, 256, 0, p);
    return MF_LAUNCH(d, (operands_kernel<float, float, __half>), blocks, 256, 0, p);
}

template <class R, class H>
static mf_status prepare(mf_device *d, const mf_attention_args *a, int64_t ld, H *copy, R *delta, const double *extents, float *scale) {
    const int64_t rows = a->packing->total * a->heads;
    mf__cuda_work(d, 2.0 * (double)rows * (double)a->dv, (double)rows * (double)a->dv * (2 * sizeof(R) + (copy ? sizeof(H) : 0)));
    return MF_LAUNCH(d, (prepare_kernel<R, H>), (unsigned)row_blocks(d, rows), 256, 0, rows, (int)a->dv, ld, (const R *)a->dout,
                     (const R *)a->out, copy, delta, extents, (int)row_blocks(d, rows), scale);
}

mf_status mf__cuda_attention(mf_device *d, const mf_attention_args *a) {
    MF_TRY(check(a));
    const int64_t rows = a->packing->total * a->heads;
    if (rows == 0) return MF_OK;
    if (!takes_flash(a)) return mf__cuda_attention_exact(d, a);
    mf_flash f;
    MF_TRY(fill_flash(&f, d, a));
    mf_scratch scratch;
    carving c;
    const int64_t q = c.add(2 * rows * f.ldq), k = c.add(2 * rows * f.ldq), v = c.add(2 * rows * f.ldv);
    if (!a->operand) MF_TRY(scratch.take(d, c.bytes));
    char *base = scratch.as<char>();
    MF_TRY(make_operands(d, a, &f, base + q, base + k, base + v, nullptr));
    return mf__cuda_flash_forward(d, &f);
}

static mf_status flash_gradients(mf_device *d, const mf_attention_args *a, mf_flash *f) {
    f->dq = (float *)a->dq;
    f->dk = (float *)a->dk;
    f->dv_ = (float *)a->dv_;
    f->dkey_bias = (float *)a->dkey_bias;
    f->deterministic = mf__cuda_deterministic(d);
    return mf__cuda_flash_backward(d, f);
}

static mf_status grad_flash(mf_device *d, const mf_attention_args *a) {
    const int64_t rows = a->packing->total * a->heads;
    mf_flash f;
    MF_TRY(fill_flash(&f, d, a));
    if (a->operand && a->delta) {                              /* dout came rounded, as q, k and v did */
        f.q = a->q;
        f.k = a->k;
        f.v = a->v;
        f.dout = a->dout;
        f.delta = (const float *)a->delta;
        f.scale = (const float *)a->dout_scale;
        return flash_gradients(d, a, &f);
    }
    mf_scratch scratch;
    carving c;
    const int64_t extents = c.add(row_blocks(d, rows) * 3 * (int64_t)sizeof(double)), scale = c.add(sizeof(float)), delta = c.add(4 * rows),
                  dout = c.add(2 * rows * f.ldv);
    const int64_t rounded = a->operand ? 0 : 1, q = c.add(rounded * 2 * rows * f.ldq), k = c.add(rounded * 2 * rows * f.ldq),
                  v = c.add(rounded * 2 * rows * f.ldv);
    MF_TRY(scratch.take(d, c.bytes));
    char *base = scratch.as<char>();
    double *measured = f.bf16 ? nullptr : (double *)(base + extents);
    MF_TRY(make_operands(d, a, &f, base + q, base + k, base + v, measured));
    f.dout = base + dout;
    f.delta = (float *)(base + delta);
    f.scale = (float *)(base + scale);
    if (f.bf16)
        MF_TRY(prepare(d, a, f.ldv, (__nv_bfloat16 *)(base + dout), (float *)(base + delta), measured, (float *)(base + scale)));
    else
        MF_TRY(prepare(d, a, f.ldv, (__half *)(base + dout), (float *)(base + delta), measured, (float *)(base + scale)));
    return flash_gradients(d, a, &f);
}

static mf_status grad_exact(mf_device *d, const mf_attention_args *a) {
    const int64_t rows = a->packing->total * a->heads;
    mf_scratch scratch;
    carving c;
    const int64_t extents = c.add(row_blocks(d, rows) * 3 * (int64_t)sizeof(double)), scale = c.add(sizeof(float)), delta = c.add(8 * rows);
    MF_TRY(scratch.take(d, c.bytes));
    char *base = scratch.as<char>();
    float *scale_to = (float *)(base + scale);
    if (a->dtype == MF_FLOAT32) {
        MF_TRY(prepare(d, a, a->dv, (float *)nullptr, (float *)(base + delta), nullptr, nullptr));
        return mf__cuda_attention_exact_grad(d, a, base + delta, nullptr);
    }
    double *measured = nullptr, *sums = (double *)(base + delta);
    if (a->precision == MF_FP16) {
        measured = (double *)(base + extents);
        const operand_args p = {rows, 0, (int)a->dv, 0, 0, nullptr, nullptr, a->v, a->dout, nullptr, nullptr, nullptr, measured};
        mf__cuda_work(d, 0, 16.0 * (double)rows * (double)a->dv);
        MF_TRY(MF_LAUNCH(d, (operands_kernel<double, double, __half>), (unsigned)row_blocks(d, rows), 256, 0, p));
        MF_TRY(prepare(d, a, a->dv, (__half *)nullptr, sums, measured, scale_to));
    } else if (a->precision == MF_BF16) {
        MF_TRY(prepare(d, a, a->dv, (__nv_bfloat16 *)nullptr, sums, measured, scale_to));
    } else {
        MF_TRY(prepare(d, a, a->dv, (double *)nullptr, sums, measured, scale_to));
    }
    return mf__cuda_attention_exact_grad(d, a, sums, scale_to);
}

mf_status mf__cuda_attention_grad(mf_device *d, const mf_attention_args *a) {
    MF_TRY(check(a));
    if (a->packing->total * a->heads == 0 || !(a->dq || a->dk || a->dv_ || a->dkey_bias)) return MF_OK;
    return takes_flash(a) ? grad_flash(d, a) : grad_exact(d, a);
}
