/* frames.c: rigid frames applied to points, their adjoint, and the canonical frame of each sequence.
 *
 *   y = R x + t            dR = sum_p dy x'          dt = sum_p dy          dx = R' dy
 *   y = R' (x - t)         dR = sum_p (x - t) dy'    dt = -R sum_p dy       dx = R dy
 *
 * In the tensor's own type: these run over N P points and are bound by memory. Residues are independent and each
 * sums its own points in order. The gauge of a sequence is the mean of its valid translations (in double) and the
 * axes of its first valid residue; identity and zero where none is valid. */
#include "cpu.h"

#define BODY "frames_real.h"
#include "both_reals.h"

static mf_status refuse(const char *name, int dtype) {
    return mf__fail(MF_ESUPPORT, "cpu.%s: geometry takes float32 or float64, not %s", name, mf_dtype_name(dtype));
}

mf_status mf__cpu_frames_apply(mf_device *d, int dtype, int64_t n, int64_t points, int inverse, const void *R, const void *t, const void *x, void *y) {
    if (dtype == MF_FLOAT32) apply_f32(d, n, points, inverse, R, t, x, y);
    else if (dtype == MF_FLOAT64) apply_f64(d, n, points, inverse, R, t, x, y);
    else return refuse("frames_apply", dtype);
    return MF_OK;
}

mf_status mf__cpu_frames_apply_grad(mf_device *d, int dtype, int64_t n, int64_t points, int inverse, const void *R, const void *t, const void *x,
                                    const void *dy, void *dR, void *dt, void *dx) {
    if (dtype == MF_FLOAT32) apply_grad_f32(d, n, points, inverse, R, t, x, dy, dR, dt, dx);
    else if (dtype == MF_FLOAT64) apply_grad_f64(d, n, points, inverse, R, t, x, dy, dR, dt, dx);
    else return refuse("frames_apply_grad", dtype);
    return MF_OK;
}

mf_status mf__cpu_frames_gauge(mf_device *d, int dtype, const mf_packing *packing, const void *R, const void *t, const void *mask, void *gauge_R, void *gauge_t) {
    (void)d;
    if (dtype == MF_FLOAT32) gauge_f32(packing, R, t, mask, gauge_R, gauge_t);
    else if (dtype == MF_FLOAT64) gauge_f64(packing, R, t, mask, gauge_R, gauge_t);
    else return refuse("frames_gauge", dtype);
    return MF_OK;
}
