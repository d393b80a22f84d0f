/* rowwise.c: the per-residue geometry of geometry/rows.h over all rows of a tensor.
 *
 * A row is loaded to double, computed, and stored back in the tensor's type. Rows are independent, so the
 * result does not depend on the thread count. Outputs that nobody wants are NULL and are not stored. */
#include "../geometry/rows.h"
#include "cpu.h"

static inline void load(double *to, int dtype, const void *from, int64_t row, int width) {
    if (dtype == MF_FLOAT32)
        for (int i = 0; i < width; i++) to[i] = (double)((const float *)from)[row * width + i];
    else
        for (int i = 0; i < width; i++) to[i] = ((const double *)from)[row * width + i];
}

static inline void store(void *to, int dtype, const double *from, int64_t row, int width) {
    if (dtype == MF_FLOAT32)
        for (int i = 0; i < width; i++) ((float *)to)[row * width + i] = (float)from[i];
    else
        for (int i = 0; i < width; i++) ((double *)to)[row * width + i] = from[i];
}

mf_status mf__cpu_rowwise(mf_device *d, int kind, int dtype, int64_t rows, const void *const *in, void *const *out) {
    if (dtype != MF_FLOAT32 && dtype != MF_FLOAT64)
        return mf__fail(MF_ESUPPORT, "cpu.rowwise: geometry takes float32 or float64, not %s", mf_dtype_name(dtype));
    mf_row_shape shape = mf__row_shape(kind);
#pragma omp parallel for num_threads(mf__threads(d, rows, 200)) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        double x[MF__ROW_MAX_IN], y[MF__ROW_MAX_OUT];
        for (int i = 0, at = 0; i < shape.n_in; at += shape.in[i++]) load(x + at, dtype, in[i], row, shape.in[i]);
        mf__row(kind, x, y);
        for (int i = 0, at = 0; i < shape.n_out; at += shape.out[i++])
            if (out[i]) store(out[i], dtype, y + at, row, shape.out[i]);
    }
    return MF_OK;
}
