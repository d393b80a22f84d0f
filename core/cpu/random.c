/* random.c: draws from Philox (base/philox.h): one block an element, so threads and split calls do not matter.
 *
 *   uniform      lo + (hi - lo) u, from 24 bits for 16- and 32-bit types and 53 for double; never hi itself
 *   normal, truncated, rotations: computed in double and rounded once, so a float draw is the rounded double draw
 *   IGSO(3)      angle by the inverse of its distribution function, axis uniform on the sphere (flow.md 1.6)
 *   permutation  Fisher-Yates with unbiased draws
 */
#include "cpu.h"
#include "vector.h"
#include "../base/igso3.h"
#include "../base/philox.h"

#include <stdlib.h>

static inline void store(void *x, int dtype, int64_t i, double value) {
    switch (dtype) {
    case MF_FLOAT32: ((float *)x)[i] = (float)value; break;
    case MF_FLOAT64: ((double *)x)[i] = value; break;
    case MF_FLOAT16: ((uint16_t *)x)[i] = mf__double_to_half(value); break;
    default: ((uint16_t *)x)[i] = mf__double_to_bf16(value); break;
    }
}

/* Rounding up to the type may reach hi, which the interval excludes: such a value goes back to lo. */
static inline double below(double value, int dtype, double lo, double hi) {
    const double rounded = dtype == MF_FLOAT64   ? value
                           : dtype == MF_FLOAT32 ? (double)(float)value
                           : dtype == MF_FLOAT16 ? mf__round_half_double(value)
                                                 : mf__round_bf16_double(value);
    return rounded < hi ? value : lo;
}

mf_status mf__cpu_random(mf_device *d, int kind, int dtype, int64_t n, void *x, mf_rng rng, double p0, double p1) {
    if (!mf__is_float(dtype)) return mf__fail(MF_ESUPPORT, "cpu: random draws have no kernel for %s", mf_dtype_name(dtype));
#pragma omp parallel for num_threads(mf__threads(d, n, 32)) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const mf_words b = mf__philox(rng.seed, rng.stream, rng.counter + (uint64_t)i);
        double value;
        if (kind == MF_RANDOM_UNIFORM) {
            const double u = dtype == MF_FLOAT64 ? mf__uniform53(b.w[0], b.w[1]) : (double)mf__uniform24(b);
            value = below(p0 + (p1 - p0) * u, dtype, p0, p1);
        } else if (kind == MF_RANDOM_NORMAL) {
            value = p0 + p1 * mf__normal(b);
        } else {
            value = p0 * mf__truncated_normal(b);
        }
        store(x, dtype, i, value);
    }
    return MF_OK;
}

mf_status mf__cpu_random_rotations(mf_device *d, int dtype, int64_t n, void *R, mf_rng rng) {
#pragma omp parallel for num_threads(mf__threads(d, n, 128)) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        double m[9];
        mf__uniform_rotation(m, mf__philox(rng.seed, rng.stream, rng.counter + (uint64_t)i));
        for (int k = 0; k < 9; k++) store(R, dtype, 9 * i + k, m[k]);
    }
    return MF_OK;
}

typedef struct angle_table { double cdf[MF__IGSO3_KNOTS + 1], largest; } angle_table;

static void angle_table_make(angle_table *t, double sigma) {
    t->largest = mf__igso3_largest(sigma);
    double last = 0;
    t->cdf[0] = 0;
    for (int i = 1; i <= MF__IGSO3_KNOTS; i++) {
        const double density = mf__igso3_density(mf__igso3_knot(t->largest, i), sigma);
        t->cdf[i] = t->cdf[i - 1] + 0.5 * (density + last) * (mf__igso3_knot(t->largest, i) - mf__igso3_knot(t->largest, i - 1));
        last = density;
    }
    for (int i = 1; i <= MF__IGSO3_KNOTS; i++) t->cdf[i] /= t->cdf[MF__IGSO3_KNOTS];
    t->cdf[MF__IGSO3_KNOTS] = 1;
}

typedef struct scale { double sigma; int64_t element; } scale;

static int by_sigma(const void *a, const void *b) {
    const scale *p = a, *q = b;
    if (p->sigma != q->sigma) return p->sigma < q->sigma ? -1 : 1;
    return p->element < q->element ? -1 : p->element > q->element;
}

static double sigma_at(int dtype, const void *sigma, int64_t i) {
    return dtype == MF_FLOAT32 ? (double)((const float *)sigma)[i] : ((const double *)sigma)[i];
}

/* Elements sorted by their sigma, so that each distinct one makes its table once; a thread takes a run of elements. */
mf_status mf__cpu_random_igso3(mf_device *d, int dtype, int64_t n, void *v, mf_rng rng, const void *sigma, int64_t n_sigma) {
    for (int64_t i = 0; i < n_sigma; i++) {
        const double s = sigma_at(dtype, sigma, i);
        if (!(s >= 0) || isinf(s)) return mf__fail(MF_EVALUE, "random.igso3: sigma %g of element %lld must be finite and at least 0", s, (long long)i + 1);
    }
    if (n == 0) return MF_OK;
    scale *order = mf__host_alloc(d->ctx, (size_t)n * sizeof *order);
    if (!order) return MF_ENOMEM;
    for (int64_t i = 0; i < n; i++) order[i] = (scale){sigma_at(dtype, sigma, n_sigma == 1 ? 0 : i), i};
    if (n_sigma > 1) qsort(order, (size_t)n, sizeof *order, by_sigma);
    const int threads = mf__threads(d, n, 1024);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int piece = 0; piece < threads; piece++) {
        angle_table table;
        double made = -1;
        for (int64_t k = n * piece / threads; k < n * (piece + 1) / threads; k++) {
            const mf_words b = mf__philox(rng.seed, rng.stream, rng.counter + (uint64_t)order[k].element);
            double axis[3], angle = 0;
            mf__uniform_axis(axis, b);
            if (order[k].sigma > 0) {
                const double tabled = mf__igso3_tabled(order[k].sigma);
                if (tabled != made) angle_table_make(&table, made = tabled);
                angle = mf__igso3_angle(table.cdf, table.largest, mf__uniform53(b.w[0], b.w[1]));
                if (order[k].sigma < tabled) angle *= order[k].sigma / tabled;
            }
            for (int c = 0; c < 3; c++) store(v, dtype, 3 * order[k].element + c, angle * axis[c]);
        }
    }
    free(order);
    return MF_OK;
}

/* Uniform on [0, range) from the high word of a 64 x 64 bit product; the few low words that would favour some results
 * are thrown away (Lemire 2019), the next attempt has a key of its own. */
static uint64_t uniform_below(uint64_t range, mf_rng rng, uint64_t position) {
    for (uint64_t attempt = 0;; attempt++) {
        const mf_words b = mf__philox(rng.seed + attempt, rng.stream, position);
        for (int k = 0; k < 4; k += 2) {
            const unsigned __int128 product = (unsigned __int128)((uint64_t)b.w[k] << 32 | b.w[k + 1]) * range;
            if ((uint64_t)product >= (0 - range) % range) return (uint64_t)(product >> 64);
        }
    }
}

mf_status mf__cpu_random_permutation(mf_device *d, int dtype, int64_t n, void *x, mf_rng rng) {
    (void)d;
    int32_t *small = x;
    int64_t *large = x;
    for (int64_t i = 0; i < n; i++) {
        /* inside out: element i takes a random place among the first i + 1, whoever was there moves to place i */
        const int64_t j = (int64_t)uniform_below((uint64_t)i + 1, rng, rng.counter + (uint64_t)i);
        if (dtype == MF_INT32) {
            small[i] = small[j];
            small[j] = (int32_t)i;
        } else {
            large[i] = large[j];
            large[j] = i;
        }
    }
    return MF_OK;
}
