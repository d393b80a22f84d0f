/* memory.h: counted allocation on a device, and the switch that lets a test fail the nth one. */
#ifndef MF_BASE_MEMORY_H
#define MF_BASE_MEMORY_H
#include "context.h"

/* `bytes` on the device, counted in its mf_memory. *data is NULL for zero bytes and on the null device. */
mf_status mf__device_alloc(mf_device *device, void **data, int64_t bytes);
void mf__device_free(mf_device *device, void *data, int64_t bytes);
int mf__may_allocate(mf_ctx *ctx);    /* 0 when a test wants this allocation to fail */
int mf__cpu_cores(void);               /* or what OMP_NUM_THREADS says */
#endif
