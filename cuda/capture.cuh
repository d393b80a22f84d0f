/* capture.cuh: a device's work captured into a CUDA graph and replayed. */
#ifndef MF_CUDA_CAPTURE_CUH
#define MF_CUDA_CAPTURE_CUH
#include "common.cuh"

mf_status mf__cuda_capture_begin(mf_device *d, void **graph);
mf_status mf__cuda_capture_end(mf_device *d, int keep);
mf_status mf__cuda_capture_draw(mf_device *d, mf_rng rng);
mf_status mf__cuda_graph_replay(mf_device *d, void *graph, const uint64_t *advance);
void mf__cuda_graph_release(mf_device *d, void *graph);
#endif
