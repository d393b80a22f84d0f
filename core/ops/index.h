/* index.h: what the backward passes of reductions and of indexing share. */
#ifndef MF_OPS_INDEX_H
#define MF_OPS_INDEX_H
#include "op.h"

/* Zeros shaped like `like` (which may be a bare shape) plus `source` at `index` along `axis`; both are shaped like
 * `like` but for that axis. A new tensor. */
mf_status mf__scatter(mf_tensor **out, const mf_tensor *like, int axis, const mf_tensor *index, const mf_tensor *source);
#endif
