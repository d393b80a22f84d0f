/* flash.cu: which kernel answers a 16-bit attention. A kernel for one architecture is asked first, here. */
#include "flash_tile.cuh"

mf_status mf__cuda_flash_forward(mf_device *d, const mf_flash *f) {
    if (f->total == 0 || f->heads == 0) return MF_OK;
    mf_status status = MF_OK;
    if (mf__hopper_forward(d, f, &status)) return status;
    if (mf__flash_listed_forward(d, f, &status)) return status;
    return mf__hopper_wide_forward(d, f, &status) ? status : mf__flash_wide_forward(d, f);
}

mf_status mf__cuda_flash_backward(mf_device *d, const mf_flash *f) {
    if (f->total == 0 || f->heads == 0) return MF_OK;
    mf_status status = MF_OK;
    if (mf__hopper_backward_fused(d, f, &status)) return status;
    if (mf__hopper_backward_apart(d, f, &status)) return status;
    if (mf__flash_listed_backward(d, f, &status)) return status;
    return mf__hopper_wide_backward(d, f, &status) ? status : mf__flash_wide_backward(d, f);
}
