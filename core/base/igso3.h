/* igso3.h: the angle of the isotropic Gaussian on SO(3) by the inverse of its distribution function; the CPU and CUDA share
 * this text.
 *
 * The distribution function is tabled at omega_i = omega_max (i / n)^3, omega_max = min(pi, 12 sigma), by the trapezoidal rule;
 * between knots it is linear. Below MF__IGSO3_NARROW space is flat to double precision, so angles scale with sigma; above
 * MF__IGSO3_WIDE the law is the uniform one. */
#ifndef MF_BASE_IGSO3_H
#define MF_BASE_IGSO3_H
#include <math.h>

#ifndef MF_DEVICE_FUNCTION
#define MF_DEVICE_FUNCTION           /* a CUDA file defines it as __host__ __device__ first */
#endif

enum { MF__IGSO3_KNOTS = 1000 };
#define MF__IGSO3_NARROW 1e-6
#define MF__IGSO3_WIDE 100.0

/* The sigma that is tabled for one that is not 0. */
MF_DEVICE_FUNCTION static inline double mf__igso3_tabled(double sigma) { return fmin(fmax(sigma, MF__IGSO3_NARROW), MF__IGSO3_WIDE); }
MF_DEVICE_FUNCTION static inline double mf__igso3_largest(double sigma) { return fmin(3.141592653589793, 12 * sigma); }
MF_DEVICE_FUNCTION static inline double mf__igso3_knot(double largest, int i) {
    const double fraction = (double)i / (double)MF__IGSO3_KNOTS;
    return largest * fraction * fraction * fraction;
}

/* The density of the angle on [0, pi]: f(omega; sigma) (1 - cos omega) / pi with f of flow.md 1.6, where one
 * sin(omega / 2) of 1 - cos omega = 2 sin^2(omega / 2) has cancelled the denominator. The three terms of the
 * closed form are enough up to sigma = 1.5 (6 digits); the series needs few terms from 1 on. The constant factor
 * drops out when the table is normalised. */
MF_DEVICE_FUNCTION static inline double mf__igso3_density(double omega, double sigma) {
    const double pi = 3.141592653589793, e = sigma * sigma / 2;
    if (sigma >= 1) {
        double sum = 0;
        for (int l = 0; l * (l + 1) * e <= 30; l++) sum += (2 * l + 1) * exp(-l * (l + 1) * e) * sin((l + 0.5) * omega);
        return fmax(sum * sin(omega / 2), 0.0);
    }
    const double bracket = omega - (omega - 2 * pi) * exp(pi * (omega - pi) / e) - (omega + 2 * pi) * exp(-pi * (omega + pi) / e);
    return fmax(exp(-omega * omega / (4 * e)) * bracket * sin(omega / 2), 0.0);
}

/* The angle below which lies the share u, from the distribution function at the knots. */
MF_DEVICE_FUNCTION static inline double mf__igso3_angle(const double *cdf, double largest, double u) {
    int low = 0, high = MF__IGSO3_KNOTS;       /* cdf[low] <= u < cdf[high] */
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (cdf[middle] <= u) low = middle;
        else high = middle;
    }
    const double from = mf__igso3_knot(largest, low);
    return from + (mf__igso3_knot(largest, low + 1) - from) * (u - cdf[low]) / (cdf[low + 1] - cdf[low]);
}
#endif
