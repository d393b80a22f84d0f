/* geometry.h: what the operators of this room share. */
#ifndef MF_GEOMETRY_GEOMETRY_H
#define MF_GEOMETRY_GEOMETRY_H
#include "../ops/op.h"

/* Applies a row-wise kind to whole tensors of shape (..., tail), the tails being what the kind's widths mean: 9 a matrix,
 * 12 four points, 1 a number, else a vector. Checks the operands against each other, calling them by `names`, and
 * makes the outputs, those with wanted[i] == 0 excepted (NULL: all). Inputs may be any views. */
mf_status mf__rows(const char *op, int kind, const char *const *names, const mf_tensor *const *in, mf_tensor **out, const unsigned char *wanted);

/* x is there, float32 or float64, and of the type of `like` (which may be x). */
mf_status mf__geometric(const char *op, const char *name, const mf_tensor *x, const mf_tensor *like);

/* x has exactly this shape. */
mf_status mf__shaped(const char *op, const char *name, const mf_tensor *x, int ndim, const int64_t *shape);

/* x's first axis is the packing's residues; names what is missing where either is. */
mf_status mf__packed(const char *op, const mf_tensor *x, const mf_packing *packing);

/* x as a contiguous array of `dtype`; NULL where x is. Release it. */
mf_status mf__plain(mf_tensor **out, const mf_tensor *x, int dtype);

/* The mask as a contiguous array of `dtype`; ones of this shape where it is NULL. Release it. */
mf_status mf__mask(mf_tensor **out, const mf_tensor *mask, mf_device *device, int dtype, int ndim, const int64_t *shape);

static inline void *mf__data_or_null(const mf_tensor *x) { return x ? mf__data(x) : NULL; }
#endif
