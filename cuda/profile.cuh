/* profile.cuh: timing every kernel between two calls. */
#ifndef MF_CUDA_PROFILE_CUH
#define MF_CUDA_PROFILE_CUH
#include "common.cuh"

mf_status mf__cuda_profile_begin(mf_device *d);
mf_status mf__cuda_profile_end(mf_device *d, mf_profile_row *rows, int64_t most, int64_t *count);
mf_status mf__cuda_profile_before(mf_device *d, const char *name);
mf_status mf__cuda_profile_after(mf_device *d);
void mf__cuda_profile_work(mf_device *d, double operations, double bytes, int unit);
#endif
