/* rowwise.cu: the per-residue geometry of core/geometry/rows.h over all rows of a tensor: the very functions of the CPU.
 *
 * Work      10 to 900 operations a row (rotations to quaternions iterate), in double as on the CPU: a row is 3 to 21 numbers, and
 *           double removes every question of cancellation near 0 and pi
 * Traffic   each operand once; threads of a warp read neighbouring rows, whose lines stay in the first cache meanwhile
 * Mapping   one thread a row, one kernel a kind, so that widths are constants and a row lives in registers
 * Bitwise   deterministic: rows are independent. An output that nobody wants is NULL and is not stored. */
#include "table.cuh"
#define MF_DEVICE_FUNCTION __host__ __device__
#include "../core/geometry/rows.h"

enum { THREADS = 128 };

struct row_operands {
    const void *in[MF__ROW_MAX_OPERANDS];
    void *out[3];
};

template <int KIND, class T> static __global__ void __launch_bounds__(THREADS) rowwise_kernel(int64_t rows, row_operands o) {
    constexpr mf_row_shape shape = mf__row_shapes[KIND];
    MF_GRID_LOOP(row, rows) {
        double x[MF__ROW_MAX_IN], y[MF__ROW_MAX_OUT];
        int at = 0;
#pragma unroll
        for (int i = 0; i < shape.n_in; i++)
#pragma unroll
            for (int j = 0; j < shape.in[i]; j++) x[at++] = (double)((const T *)o.in[i])[row * shape.in[i] + j];
        mf__row(KIND, x, y);
        at = 0;
#pragma unroll
        for (int i = 0; i < shape.n_out; i++) {
            T *to = (T *)o.out[i];
#pragma unroll
            for (int j = 0; j < shape.out[i]; j++, at++)
                if (to) to[row * shape.out[i] + j] = (T)y[at];
        }
    }
}

template <int KIND, class T> static mf_status launch(mf_device *d, int64_t rows, const row_operands &o) {
    return MF_LAUNCH(d, (rowwise_kernel<KIND, T>), mf__grid(d, rows, THREADS), THREADS, 0, rows, o);
}

mf_status mf__cuda_rowwise(mf_device *d, int kind, int dtype, int64_t rows, const void *const *in, void *const *out) {
    if (!mf__is_real(dtype)) return mf__fail(MF_ESUPPORT, "cuda.rowwise: geometry takes float32 or float64, not %s", mf_dtype_name(dtype));
    const mf_row_shape shape = mf__row_shape(kind);
    row_operands o = {};
    int64_t numbers = 0;
    for (int i = 0; i < shape.n_in; i++) {
        o.in[i] = in[i];
        numbers += shape.in[i];
    }
    for (int i = 0; i < shape.n_out; i++) {
        o.out[i] = out[i];
        if (out[i]) numbers += shape.out[i];
    }
    mf__cuda_work(d, 60.0 * (double)rows, (double)(rows * numbers) * (double)mf_dtype_bytes(dtype), MF_UNIT_FP64);
#define LAUNCH(name) \
    case MF_ROW_##name: MF_DISPATCH_REAL(dtype, T, return launch<MF_ROW_##name, T>(d, rows, o))
    switch (kind) {
        LAUNCH(QUAT_TO_ROT);
        LAUNCH(QUAT_TO_ROT_GRAD);
        LAUNCH(ROT_TO_QUAT);
        LAUNCH(ROT_TO_QUAT_GRAD);
        LAUNCH(QUAT_MULTIPLY);
        LAUNCH(QUAT_MULTIPLY_GRAD);
        LAUNCH(SO3_EXP);
        LAUNCH(SO3_EXP_GRAD);
        LAUNCH(SO3_LOG);
        LAUNCH(SO3_LOG_GRAD);
        LAUNCH(FRAME);
        LAUNCH(FRAME_GRAD);
        LAUNCH(UPDATE);
        LAUNCH(UPDATE_GRAD);
        LAUNCH(DIHEDRAL);
        LAUNCH(DIHEDRAL_GRAD);
        LAUNCH(NEAREST_ROTATION);
    }
#undef LAUNCH
    return mf__fail(MF_ESUPPORT, "cuda.rowwise: %d is not a kind", kind);
}
