/* npy.h: an array of NumPy in memory. */
#ifndef MF_IO_NPY_H
#define MF_IO_NPY_H
#include "../base/error.h"

/* `what` names the data in error texts. */
mf_status mf__npy_tensor(mf_tensor **out, mf_ctx *ctx, const void *data, int64_t bytes, const char *what);
#endif
