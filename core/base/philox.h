/* philox.h: the counter-based generator and what is drawn from one block; the CPU and CUDA share this text.
 *
 * Philox 4x32-10 (Salmon, Moraes, Dror, Shaw 2011): ten rounds of two 32 x 32 -> 64 bit products turn a 128-bit
 * counter and a 64-bit key into four 32-bit words. Here key = seed, counter = (position, stream), and element i of a
 * draw has position = counter + i: one block an element, whatever it needs of the four words. So a value depends
 * on (seed, stream, counter + i) alone, not on threads, on the device or on how a draw was split into calls.
 *
 *     uniform float    24 bits of word 0              normal      Box-Muller on (words 0, 1) and (words 2, 3)
 *     uniform double   53 bits of words 0 and 1       quaternion  Box-Muller on each pair of words: 4 normals
 */
#ifndef MF_BASE_PHILOX_H
#define MF_BASE_PHILOX_H
#include <math.h>
#include <stdint.h>

#ifndef MF_DEVICE_FUNCTION
#define MF_DEVICE_FUNCTION           /* a CUDA file defines it as __device__ first */
#endif

typedef struct mf_words { uint32_t w[4]; } mf_words;

MF_DEVICE_FUNCTION static inline mf_words mf__philox(uint64_t seed, uint64_t stream, uint64_t position) {
    uint32_t c0 = (uint32_t)position, c1 = (uint32_t)(position >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xd2511f53u * c0, b = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    mf_words out;
    out.w[0] = c0;
    out.w[1] = c1;
    out.w[2] = c2;
    out.w[3] = c3;
    return out;
}

/* [0, 1) with 24 and 53 bits; the first is the second cut off. */
MF_DEVICE_FUNCTION static inline float mf__uniform24(mf_words b) { return (float)(b.w[0] >> 8) * 0x1p-24f; }
MF_DEVICE_FUNCTION static inline double mf__uniform53(uint32_t high, uint32_t low) {
    return ((double)(high >> 5) * 67108864.0 + (double)(low >> 6)) * 0x1p-53;
}
/* (0, 1) from one word: the logarithm of it is finite. */
MF_DEVICE_FUNCTION static inline double mf__uniform_open(uint32_t word) { return ((double)word + 0.5) * 0x1p-32; }

MF_DEVICE_FUNCTION static inline double mf__normal(mf_words b) {
    const double radius = sqrt(-2 * log(mf__uniform53(b.w[0], b.w[1]) + 0x1p-54));
    return radius * cos(6.283185307179586 * mf__uniform53(b.w[2], b.w[3]));
}

/* Uniform on SO(3): four normals, normalised, are a uniform unit quaternion (w, x, y, z) (flow.md 1.5). */
MF_DEVICE_FUNCTION static inline void mf__uniform_quaternion(double q[4], mf_words b) {
    const double r0 = sqrt(-2 * log(mf__uniform_open(b.w[0]))), a0 = 6.283185307179586 * mf__uniform_open(b.w[1]);
    const double r1 = sqrt(-2 * log(mf__uniform_open(b.w[2]))), a1 = 6.283185307179586 * mf__uniform_open(b.w[3]);
    const double scale = 1 / sqrt(r0 * r0 + r1 * r1);
    q[0] = scale * r0 * cos(a0);
    q[1] = scale * r0 * sin(a0);
    q[2] = scale * r1 * cos(a1);
    q[3] = scale * r1 * sin(a1);
}
/* The same rotation as a matrix, by rows. */
MF_DEVICE_FUNCTION static inline void mf__uniform_rotation(double m[9], mf_words b) {
    double q[4];
    mf__uniform_quaternion(q, b);
    const double w = q[0], x = q[1], y = q[2], z = q[3];
    m[0] = 1 - 2 * (y * y + z * z), m[1] = 2 * (x * y - w * z), m[2] = 2 * (x * z + w * y);
    m[3] = 2 * (x * y + w * z), m[4] = 1 - 2 * (x * x + z * z), m[5] = 2 * (y * z - w * x);
    m[6] = 2 * (x * z - w * y), m[7] = 2 * (y * z + w * x), m[8] = 1 - 2 * (x * x + y * y);
}

/* Uniform on the sphere, by height and longitude (Archimedes): the law of three normals, normalised, from words 2 and 3. */
MF_DEVICE_FUNCTION static inline void mf__uniform_axis(double axis[3], mf_words b) {
    const double z = 2 * mf__uniform_open(b.w[2]) - 1, longitude = 6.283185307179586 * mf__uniform_open(b.w[3]);
    const double radius = sqrt(1 - z * z);
    axis[0] = radius * cos(longitude);
    axis[1] = radius * sin(longitude);
    axis[2] = z;
}

/* The standard normal cut at +-2, by the inverse of its distribution function: Wichura's AS 241 (1988), relative error
 * 1e-16. Only its two inner ranges are needed, because the tail beyond 2 is never asked for. */
MF_DEVICE_FUNCTION static inline double mf__truncated_normal(mf_words b) {
    const double tail = 0.022750131948179207;           /* P(z < -2) */
    const double p = tail + (1 - 2 * tail) * (mf__uniform53(b.w[0], b.w[1]) + 0x1p-54);
    const double q = p - 0.5;
    if (fabs(q) <= 0.425) {
        const double r = 0.180625 - q * q;
        return q * (((((((2.5090809287301226727e3 * r + 3.3430575583588128105e4) * r + 6.7265770927008700853e4) * r
                        + 4.5921953931549871457e4) * r + 1.3731693765509461125e4) * r + 1.9715909503065514427e3) * r
                     + 1.3314166789178437745e2) * r + 3.3871328727963666080e0)
               / (((((((5.2264952788528545610e3 * r + 2.8729085735721942674e4) * r + 3.9307895800092710610e4) * r
                      + 2.1213794301586595867e4) * r + 5.3941960214247511077e3) * r + 6.8718700749205790830e2) * r
                   + 4.2313330701600911252e1) * r + 1.0);
    }
    const double r = sqrt(-log(q < 0 ? p : 1 - p)) - 1.6;
    const double z = (((((((7.74545014278341407640e-4 * r + 2.27238449892691845833e-2) * r + 2.41780725177450611770e-1) * r
                         + 1.27045825245236838258e0) * r + 3.64784832476320460504e0) * r + 5.76949722146069140550e0) * r
                      + 4.63033784615654529590e0) * r + 1.42343711074968357734e0)
                   / (((((((1.05075007164441684324e-9 * r + 5.47593808499534494600e-4) * r + 1.51986665636164571966e-2) * r
                          + 1.48103976427480074590e-1) * r + 6.89767334985100004550e-1) * r + 1.67638483018380384940e0) * r
                       + 2.05319162663775882187e0) * r + 1.0);
    return q < 0 ? -z : z;
}
#endif
