/* pool.h: the CPU's memory: blocks that were freed wait to be used again. */
#ifndef MF_CPU_POOL_H
#define MF_CPU_POOL_H
#include "cpu.h"

mf_status mf__pool_open(mf_device *d);
void mf__pool_close(mf_device *d);
mf_status mf__pool_alloc(mf_device *d, void **data, int64_t bytes);      /* 64-byte aligned */
void mf__pool_free(mf_device *d, void *data, int64_t bytes);             /* bytes as they were asked for */
#endif
