/* flash.cuh: what attention.cu asks of a fused 16-bit attention, and the kernels that answer.
 *
 *   attention.cu     checks, rounds q, k, v and dout to 16 bits, scales dout, makes delta; exact attention is in attention_exact.cu
 *   flash_forward.cu, flash_backward.cu   mma.sync, sm_80 and later, for widths up to those of MF_FLASH_DIMS (flash_tile.cuh)
 *   flash_wide.cu    the same for any width
 *   hopper_*.cu      wgmma and tensor copies, sm_90a, where there is enough to do
 *
 * A kernel for one architecture plugs in where mf__cuda_flash_forward and _backward choose (flash.cu). */
#ifndef MF_CUDA_FLASH_CUH
#define MF_CUDA_FLASH_CUH
#include "common.cuh"

/* One packed attention on 16-bit operands. Row i, head h of q begins at element (i heads + h) ldq: ldq is a multiple of 8, pointers are
 * 16-byte aligned; ldv > dv is one of 16, so that rows of v and dout are whole sectors of memory. Columns from the width up to ld hold
 * zeros in q, k and dout. In v column dv holds ones, where the second product leaves the sum of the weights as it saw them, rounded;
 * what follows it up to ldv is finite. */
struct mf_flash {
    int bf16;                     /* operands: 0 float16, 1 bfloat16 */
    int heads, dqk, dv;
    int64_t ldq, ldv;             /* of q and k; of v and dout */
    int64_t sequences, total, longest;
    int64_t pairs;                /* sum of length^2 over sequences, for mf.profile */
    const int32_t *offsets;       /* sequences + 1, on the device */
    const void *q, *k, *v;
    const float *key_bias;        /* (N, H) or NULL; -inf masks a key */
    float *out;                   /* (N, H, dv) float32: forward writes it */
    float *lse;                   /* (N, H) natural logarithm; forward writes, backward reads */
    /* backward */
    const void *dout;             /* (N, H, ldv), 16 bits, already multiplied by *scale */
    const float *delta;           /* (N, H) rowsum(dout out), in the scaled units of dout */
    const float *scale;           /* one number on the device: the power of two that dout was multiplied by */
    float *dq, *dk, *dv_;         /* (N, H, dqk), (N, H, dqk), (N, H, dv), float32, not scaled; written with '='; any may be NULL */
    float *dkey_bias;             /* (N, H) or NULL */
    int deterministic;            /* no float atomics */
};
mf_status mf__cuda_flash_forward(mf_device *d, const mf_flash *f);
mf_status mf__cuda_flash_backward(mf_device *d, const mf_flash *f);
#endif
