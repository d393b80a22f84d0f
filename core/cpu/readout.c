/* readout.c: from what attention gathered to the features that linear_out expects, and back; ipa/flash_ipa.c has the equations.
 *
 * A residue is one piece of work: its points go back into its frame, their norms follow, and its own factor of the pair meets
 * the gathered one. Residues are independent, so nothing depends on the thread count. */
#include "cpu.h"
#include "vector.h"

#define BODY "readout_real.h"
#include "both_reals.h"

static mf_status check(const char *entry, const mf_ipa_args *a) {
    if (mf__is_real(a->dtype)) return MF_OK;
    return mf__fail(MF_ESUPPORT, "cpu.%s: takes float32 or float64, not %s", entry, mf_dtype_name(a->dtype));
}

mf_status mf__cpu_readout(mf_device *d, const mf_ipa_args *a) {
    MF_TRY(check("readout", a));
#pragma omp parallel for num_threads(mf__threads(d, a->packing->total, 2 * a->heads * a->dv)) schedule(static)
    for (int64_t i = 0; i < a->packing->total; i++) {
        if (a->dtype == MF_FLOAT32) readout_f32(a, i);
        else readout_f64(a, i);
    }
    return MF_OK;
}

mf_status mf__cpu_readout_grad(mf_device *d, const mf_ipa_args *a) {
    MF_TRY(check("readout_grad", a));
#pragma omp parallel for num_threads(mf__threads(d, a->packing->total, 4 * a->heads * a->dv)) schedule(static)
    for (int64_t i = 0; i < a->packing->total; i++) {
        if (a->dtype == MF_FLOAT32) readout_grad_f32(a, i);
        else readout_grad_f64(a, i);
    }
    return MF_OK;
}
