/* table.cuh: every entry of core/ops/kernels.h that this backend fills, declared as mf__cuda_<entry>. */
#ifndef MF_CUDA_TABLE_CUH
#define MF_CUDA_TABLE_CUH
#include "common.cuh"

#define MF_CUDA_ENTRIES(X) \
    X(copy) X(fill) X(axpy) X(unary) X(unary_grad) X(binary) X(where) X(logical_not) X(round_to) X(dropout) \
    X(reduce) X(cumsum) X(logsumexp) X(softmax) X(softmax_grad) X(sort) X(segment_sum) X(segment_expand) \
    X(gemm) X(layer_norm) X(layer_norm_grad) \
    X(index_select) X(index_add) X(gather) X(scatter_add) \
    X(random) X(random_rotations) X(random_igso3) X(random_each) X(random_permutation) \
    X(attention) X(attention_grad) X(pair_attention) X(pair_attention_grad) \
    X(rowwise) X(frames_apply) X(frames_apply_grad) X(frames_gauge) X(kabsch) X(kabsch_pairs) X(neighbours) X(distogram) X(index_embedding) \
    X(rotary) X(pair_loss) X(pair_loss_grad) X(adam) X(sgd) X(sum_squares) \
    X(bias_grad) X(packing_tensor) \
    X(lift) X(lift_grad) X(readout) X(readout_grad) \
    X(bins_gather) X(bins_scatter) \
    X(add_layer_norm) X(add_layer_norm_grad) X(squared_error) X(squared_error_grad) X(cross_entropy) X(cross_entropy_grad) \
    X(optim_norm) X(adam_many) X(sgd_many) X(ema_many)

#ifdef MF_PARTIAL                 /* a build while entries are being written: missing ones are NULL */
#define MF_CUDA_DECLARE(entry) std::remove_pointer_t<decltype(mf_backend::entry)> mf__cuda_##entry __attribute__((weak));
#else
#define MF_CUDA_DECLARE(entry) std::remove_pointer_t<decltype(mf_backend::entry)> mf__cuda_##entry;
#endif
MF_CUDA_ENTRIES(MF_CUDA_DECLARE)
#endif
