/* optim.c: one fused pass of an optimizer over a parameter, and the sum of squares for clipping.
 *
 *   g = scale g  (+ weight_decay p unless decoupled);  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 *   p = (1 - lr weight_decay) p  (decoupled: AdamW, Loshchilov and Hutter 2019)
 *   p = p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)         (Kingma and Ba 2015)
 *
 *   g = g + weight_decay p;  velocity = momentum velocity + g;  p = p - lr velocity
 *
 * Over many tensors: the same passes one after the other, with the clip scale, the step and the learning rate of a control
 * tensor (moonfold.h).
 */
#include "cpu.h"

#include <math.h>

#define REAL_KERNELS(T, s, root)                                                                              \
    static void adam_##s(mf_device *d, int64_t n, T *p, T *m, T *v, const T *g, const mf_adam_params *a) {    \
        const T b1 = (T)a->beta1, b2 = (T)a->beta2, c1 = (T)(1 - a->beta1), c2 = (T)(1 - a->beta2);           \
        const T scale = (T)a->scale, epsilon = (T)a->epsilon;                                                 \
        const T step = (T)(a->lr / (1 - pow(a->beta1, (double)a->step)));                                     \
        const T unbias = (T)(1 / sqrt(1 - pow(a->beta2, (double)a->step)));                                   \
        const T decay = (T)(a->decoupled ? 0 : a->weight_decay);                                              \
        const T shrink = (T)(a->decoupled ? 1 - a->lr * a->weight_decay : 1);                                 \
        _Pragma("omp parallel for simd num_threads(mf__threads(d, n, 8)) schedule(static)")                   \
        for (int64_t i = 0; i < n; i++) {                                                                     \
            const T gi = scale * g[i] + decay * p[i];                                                         \
            const T mi = b1 * m[i] + c1 * gi;                                                                 \
            const T vi = b2 * v[i] + c2 * gi * gi;                                                            \
            m[i] = mi;                                                                                        \
            v[i] = vi;                                                                                        \
            p[i] = shrink * p[i] - step * mi / (root(vi) * unbias + epsilon);                                 \
        }                                                                                                     \
    }                                                                                                         \
    static void sgd_##s(mf_device *d, int64_t n, T *p, T *velocity, const T *g, T lr, T momentum, T decay) {  \
        if (velocity) {                                                                                       \
            _Pragma("omp parallel for simd num_threads(mf__threads(d, n, 4)) schedule(static)")               \
            for (int64_t i = 0; i < n; i++) {                                                                 \
                const T vi = momentum * velocity[i] + g[i] + decay * p[i];                                    \
                velocity[i] = vi;                                                                             \
                p[i] -= lr * vi;                                                                              \
            }                                                                                                 \
        } else {                                                                                              \
            _Pragma("omp parallel for simd num_threads(mf__threads(d, n, 4)) schedule(static)")               \
            for (int64_t i = 0; i < n; i++) p[i] -= lr * (g[i] + decay * p[i]);                               \
        }                                                                                                     \
    }                                                                                                         \
    static double squares_##s(int64_t n, const T *x) {                                                        \
        double lane[8] = {0};                                                                                 \
        int64_t i = 0;                                                                                        \
        for (; i + 8 <= n; i += 8)                                                                            \
            for (int k = 0; k < 8; k++) lane[k] += (double)x[i + k] * (double)x[i + k];                       \
        for (; i < n; i++) lane[0] += (double)x[i] * (double)x[i];                                            \
        return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));     \
    }
REAL_KERNELS(float, f32, sqrtf)
REAL_KERNELS(double, f64, sqrt)

static mf_status no_kernel(int dtype) {
    return mf__fail(MF_ESUPPORT, "cpu: optimizers have no kernel for %s", mf_dtype_name(dtype));
}

mf_status mf__cpu_adam(mf_device *d, int dtype, int64_t n, void *p, void *m, void *v, const void *g, const mf_adam_params *params) {
    if (!mf__is_real(dtype)) return no_kernel(dtype);
    if (dtype == MF_FLOAT32) adam_f32(d, n, p, m, v, g, params);
    else adam_f64(d, n, p, m, v, g, params);
    return MF_OK;
}

mf_status mf__cpu_sgd(mf_device *d, int dtype, int64_t n, void *p, void *velocity, const void *g, double lr, double momentum, double weight_decay) {
    if (!mf__is_real(dtype)) return no_kernel(dtype);
    if (dtype == MF_FLOAT32) sgd_f32(d, n, p, velocity, g, (float)lr, (float)momentum, (float)weight_decay);
    else sgd_f64(d, n, p, velocity, g, lr, momentum, weight_decay);
    return MF_OK;
}

/* The array is cut into PARTS whatever the thread count, so the sum is the same on every machine with the same
 * vector order, which the eight lanes fix. */
enum { PARTS = 64 };

mf_status mf__cpu_sum_squares(mf_device *d, int dtype, int64_t n, const void *x, double *out) {
    if (!mf__is_real(dtype)) return no_kernel(dtype);
    double part[PARTS];
    const int64_t size = (n + PARTS - 1) / PARTS;
#pragma omp parallel for num_threads(mf__threads(d, n, 1)) schedule(static)
    for (int i = 0; i < PARTS; i++) {
        const int64_t first = i * size < n ? i * size : n, count = first + size < n ? size : n - first;
        part[i] = dtype == MF_FLOAT32 ? squares_f32(count, (const float *)x + first) : squares_f64(count, (const double *)x + first);
    }
    double sum = 0;
    for (int i = 0; i < PARTS; i++) sum += part[i];
    *out += sum;
    return MF_OK;
}

/* ---- many tensors ---- */

mf_status mf__cpu_optim_norm(mf_device *d, double *control, const mf_optim_item *items, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) MF_TRY(mf__cpu_sum_squares(d, items[i].dtype, items[i].n, items[i].g, &sum));
    const double norm = sqrt(sum), clip = control[MF_CONTROL_CLIP];
    const int finite = isfinite(norm);
    control[MF_CONTROL_NORM] = norm;
    control[MF_CONTROL_SCALE] = !finite ? -1 : norm > clip ? clip / norm : 1;
    control[finite ? MF_CONTROL_STEPS : MF_CONTROL_SKIPPED] += 1;
    return MF_OK;
}

static mf_status average(mf_device *d, const mf_optim_item *item, double decay) {
    if (!item->average || item->n == 0) return MF_OK;
    const mf_iter it = {.ndim = 1, .n_operands = 2, .shape = {item->n},
                        .operand = {{.data = item->average, .dtype = item->dtype, .stride = {1}}, {.data = item->p, .dtype = item->dtype, .stride = {1}}}};
    return mf__cpu_axpy(d, &it, decay, 1 - decay);
}

mf_status mf__cpu_ema_many(mf_device *d, const mf_optim_item *items, int64_t count, double decay) {
    for (int64_t i = 0; i < count; i++) MF_TRY(average(d, &items[i], decay));
    return MF_OK;
}

mf_status mf__cpu_adam_many(mf_device *d, const double *control, int group, const mf_optim_item *items, int64_t count, const mf_adam_params *params,
                            double decay) {
    mf_adam_params now = *params;
    now.lr = control[MF_CONTROL_RATE + group];
    now.scale = control[MF_CONTROL_SCALE];
    now.step = (int64_t)control[MF_CONTROL_STEPS];
    for (int64_t i = 0; i < count; i++) {
        const mf_optim_item *x = &items[i];
        if (now.scale >= 0) MF_TRY(mf__cpu_adam(d, x->dtype, x->n, x->p, x->m, x->v, x->g, &now));
        MF_TRY(average(d, x, decay));
    }
    return MF_OK;
}

/* A clipped gradient is rounded before it is used, a block at a time. */
#define SCALED_SGD(T, s)                                                                                            \
    static void scaled_sgd_##s(mf_device *d, const mf_optim_item *x, T scale, T lr, T momentum, T decay) {          \
        enum { BLOCK = 1024 };                                                                                      \
        T scaled[BLOCK];                                                                                            \
        for (int64_t first = 0; first < x->n; first += BLOCK) {                                                     \
            const int64_t n = x->n - first < BLOCK ? x->n - first : BLOCK;                                          \
            for (int64_t i = 0; i < n; i++) scaled[i] = scale * ((const T *)x->g)[first + i];                       \
            sgd_##s(d, n, (T *)x->p + first, x->m ? (T *)x->m + first : NULL, scaled, lr, momentum, decay);         \
        }                                                                                                           \
    }
SCALED_SGD(float, f32)
SCALED_SGD(double, f64)

mf_status mf__cpu_sgd_many(mf_device *d, const double *control, int group, const mf_optim_item *items, int64_t count, double momentum,
                           double weight_decay, double decay) {
    const double scale = control[MF_CONTROL_SCALE], lr = control[MF_CONTROL_RATE + group];
    for (int64_t i = 0; i < count; i++) {
        const mf_optim_item *x = &items[i];
        if (scale == 1) MF_TRY(mf__cpu_sgd(d, x->dtype, x->n, x->p, x->m, x->g, lr, momentum, weight_decay));
        else if (scale >= 0 && x->dtype == MF_FLOAT32) scaled_sgd_f32(d, x, (float)scale, (float)lr, (float)momentum, (float)weight_decay);
        else if (scale >= 0) scaled_sgd_f64(d, x, scale, lr, momentum, weight_decay);
        MF_TRY(average(d, x, decay));
    }
    return MF_OK;
}
