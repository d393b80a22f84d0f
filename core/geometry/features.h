/* features.h: bins of distances and angles of positions, the same on every device, as the layers define them (layers.md 3).
 *
 * Everything is in float32, each operation rounded by itself: edges decide which bin a distance falls in, and at channel 0 the
 * sine of a position is rounding noise that trained weights have seen. A CUDA backend sets MF_DEVICE_FUNCTION as for rows.h. */
#ifndef MF_GEOMETRY_FEATURES_H
#define MF_GEOMETRY_FEATURES_H
#include <math.h>
#include <stdint.h>

#ifndef MF_DEVICE_FUNCTION
#define MF_DEVICE_FUNCTION
#endif

/* Bin b is open between edges b and b + 1; the last ends at 1e8. */
typedef struct mf_bins {
    float lo, hi, step;
    int count;
} mf_bins;

static inline mf_bins mf__bins(double lo, double hi, int64_t count) {
    float first = (float)lo, last = (float)hi;
    mf_bins bins = {first, last, count > 1 ? (last - first) / (float)(count - 1) : 0, (int)count};
    return bins;
}

/* lo + b step in the lower half and hi - (bins - 1 - b) step in the upper. */
MF_DEVICE_FUNCTION static inline double mf__bin_edge(mf_bins bins, int b) {
    int lower = b < bins.count / 2;
    float steps = (float)(lower ? b : bins.count - 1 - b);
#ifdef __CUDA_ARCH__
    float offset = __fmul_rn(bins.step, steps);  /* no fused multiply-add: nvcc contracts across statements, others within one */
#else
    float offset = bins.step * steps;
#endif
    if (b == bins.count) return 1e8;
    if (bins.count == 1) return (double)bins.lo;
    return (double)(lower ? bins.lo + offset : bins.hi - offset);
}

/* The bin of x, or -1: below the first edge, beyond the last, on one, or NaN. */
MF_DEVICE_FUNCTION static inline int mf__bin_of(mf_bins bins, double x) {
    int bin = 0, end = bins.count;  /* the last bin whose lower edge is below x */
    while (end - bin > 1) {
        int middle = bin + (end - bin) / 2;
        if (mf__bin_edge(bins, middle) < x) bin = middle;
        else end = middle;
    }
    return mf__bin_edge(bins, bin) < x && x < mf__bin_edge(bins, bin + 1) ? bin : -1;
}

/* Channels c and width / 2 + c of position n are the sine and cosine of turn(n) / power(c), (n pi) / max_len^(2 c / width). */
MF_DEVICE_FUNCTION static inline float mf__embedding_turn(int32_t n) { return (float)n * 3.14159265358979f; }

MF_DEVICE_FUNCTION static inline float mf__embedding_power(int64_t c, int64_t width, double max_len) {
    return (float)pow((double)(float)max_len, (double)((float)(2 * c) / (float)width));
}
#endif
