/* elements.h: between tensors and elements as other programs lay them out. */
#ifndef MF_IO_ELEMENTS_H
#define MF_IO_ELEMENTS_H
#include "../tensor/tensor.h"

/* A CPU tensor of what a layout describes in `bytes` of data; `op` and `what` ("'x.pth': entry 'data/0'") open error texts. */
mf_status mf__elements_tensor(mf_tensor **out, const char *op, const char *what, mf_ctx *ctx, const mf_layout *layout, const void *data, int64_t bytes);
/* The row-major bytes of a tensor: *data is its own storage, or *copy, which the caller frees. */
mf_status mf__elements_bytes(const void **data, void **copy, const char *op, const mf_tensor *x);
#endif
