/* rotary.c: pairs of columns turned by angles that grow along the chain (geometry/rotary.c).
 *
 * A residue's sines and cosines are made once, CHANNELS at a time, and serve all its heads; angles in float32, as the index embedding's,
 * the rest in the tensor's type. Residues are independent of each other and of the thread count. */
#include <stdlib.h>
#include <string.h>
#include "../geometry/features.h"
#include "cpu.h"

enum { CHANNELS = 128 };

#define TURN(REAL, suffix, SIN, COS)                                                                                            \
    static void turn_##suffix(const mf_device *d, const mf_rotary_args *a, const float *power) {                                \
        const int64_t half = a->dim / 2, rest = a->width - a->dim;                                                              \
        const int64_t cost = a->heads * a->width + 20 * a->dim;                                                                 \
        _Pragma("omp parallel for num_threads(mf__threads(d, a->n, cost)) schedule(static)")                                    \
        for (int64_t i = 0; i < a->n; i++) {                                                                                    \
            const REAL *x = (const REAL *)a->x + i * a->heads * a->width;                                                       \
            REAL *y = (REAL *)a->y + i * a->heads * a->width, sine[CHANNELS], cosine[CHANNELS];                                 \
            const float turn = mf__embedding_turn(a->index[i]);                                                                 \
            for (int64_t first = 0; first < half; first += CHANNELS) {                                                          \
                const int64_t channels = half - first < CHANNELS ? half - first : CHANNELS;                                     \
                for (int64_t c = 0; c < channels; c++) {                                                                        \
                    const REAL angle = (REAL)(turn / power[first + c]);                                                         \
                    sine[c] = a->inverse ? -SIN(angle) : SIN(angle);                                                            \
                    cosine[c] = COS(angle);                                                                                     \
                }                                                                                                               \
                for (int64_t h = 0; h < a->heads; h++) {                                                                        \
                    const REAL *left = x + h * a->width + first, *right = left + half;                                          \
                    REAL *to = y + h * a->width + first;                                                                        \
                    for (int64_t c = 0; c < channels; c++) {                                                                    \
                        to[c] = left[c] * cosine[c] - right[c] * sine[c];                                                       \
                        to[half + c] = left[c] * sine[c] + right[c] * cosine[c];                                                \
                    }                                                                                                           \
                }                                                                                                               \
            }                                                                                                                   \
            for (int64_t h = 0; h < a->heads && rest > 0; h++)                                                                  \
                memcpy(y + h * a->width + a->dim, x + h * a->width + a->dim, (size_t)rest * sizeof *y);                         \
        }                                                                                                                       \
    }
TURN(float, f32, sinf, cosf)
TURN(double, f64, sin, cos)

mf_status mf__cpu_rotary(mf_device *d, const mf_rotary_args *a) {
    const int64_t half = a->dim / 2;
    float *power = mf__host_alloc(d->ctx, (size_t)half * sizeof *power);
    if (!power) return MF_ENOMEM;
    for (int64_t c = 0; c < half; c++) power[c] = mf__embedding_power(c, a->dim, a->max_len);
    if (a->dtype == MF_FLOAT32) turn_f32(d, a, power);
    else turn_f64(d, a, power);
    free(power);
    return MF_OK;
}
