/* each_row.h: how elementwise kernels go through an mf_iter.
 *
 * A kernel is a row function: n elements of every operand, each with its own stride. mf__each_row cuts the elements into
 * one piece a thread, a piece into rows along the innermost axis, and calls the row function on each. float16 and
 * bfloat16 operands can be converted a block at a time, so that row functions see float and stride 1 instead. */
#ifndef MF_CPU_EACH_ROW_H
#define MF_CPU_EACH_ROW_H
#include "cpu.h"

typedef void mf__row(int64_t n, void *const *data, const int64_t *stride, const void *context);

/* Calls `row` on every row. `cost` is the price of an element, for mf__threads. */
void mf__each_row(mf_device *d, const mf_iter *it, int64_t cost, mf__row *row, const void *context);
/* The same, with 16-bit floats converted to float and back; `reads_result` if the row reads operand 0 too. */
void mf__each_row_float(mf_device *d, const mf_iter *it, int64_t cost, mf__row *row, const void *context, int reads_result);

void mf__float_from_16(float *to, int dtype, const void *from, int64_t stride, int64_t n);
void mf__16_from_float(void *to, int64_t stride, int dtype, const float *from, int64_t n);

/* What arithmetic on `dtype` is done in: float for the 16-bit floats, itself otherwise. */
static inline int mf__computed_in(int dtype) { return dtype == MF_BFLOAT16 || dtype == MF_FLOAT16 ? MF_FLOAT32 : dtype; }
#endif
