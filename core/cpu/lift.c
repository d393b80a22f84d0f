/* lift.c: from projections and frames to the columns of attention, and back; ipa/flash_ipa.c has the equations.
 *
 * A residue is one piece of work: its frame is turned into the gauge, its points are placed, and the columns of every head are
 * written side by side, with the key bias beside them. Residues are independent; the gradient of head_weights is the sum over
 * residues of one number a head, added in their order in double, so nothing depends on the thread count. */
#include <stdlib.h>
#include "cpu.h"
#include "vector.h"

/* gamma = softplus(w) sqrt(1 / (3 P 9/2)), and the factor of its derivative. */
static double gamma_factor(const mf_ipa_args *a) {
    return a->query_points > 0 ? sqrt(1 / (3 * ((double)a->query_points * 9 / 2))) : 0;
}
static double softplus(double w) { return w > 20 ? w : log1p(exp(w)); }

static int is_masked(const mf_ipa_args *a, int64_t i) { return a->mask && !a->mask[i]; }

#define BODY "lift_real.h"
#include "both_reals.h"

static mf_status check(const char *entry, const mf_ipa_args *a) {
    if (!mf__is_real(a->dtype))
        return mf__fail(MF_ESUPPORT, "cpu.%s: takes float32 or float64, not %s", entry, mf_dtype_name(a->dtype));
    if (a->operand) return mf__fail(MF_ESUPPORT, "cpu.%s: attention on the CPU takes no 16-bit operands", entry);
    return MF_OK;
}

static int threads_for(const mf_device *d, const mf_ipa_args *a) {
    return mf__threads(d, a->packing->total, 2 * a->heads * (2 * a->dqk + a->dv));
}

mf_status mf__cpu_lift(mf_device *d, const mf_ipa_args *a) {
    MF_TRY(check("lift", a));
#pragma omp parallel for num_threads(threads_for(d, a)) schedule(static)
    for (int64_t i = 0; i < a->packing->total; i++) {
        const int64_t s = mf__sequence_at(a->packing, i);
        if (a->dtype == MF_FLOAT32) lift_f32(a, i, s);
        else lift_f64(a, i, s);
    }
    return MF_OK;
}

mf_status mf__cpu_lift_grad(mf_device *d, const mf_ipa_args *a) {
    MF_TRY(check("lift_grad", a));
    const int64_t n = a->packing->total, heads = a->heads;
    double *part = mf__host_alloc(d->ctx, (size_t)(n * heads) * sizeof *part);
    if (!part) return MF_ENOMEM;
#pragma omp parallel for num_threads(threads_for(d, a)) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const int64_t s = mf__sequence_at(a->packing, i);
        if (a->dtype == MF_FLOAT32) lift_grad_f32(a, i, s, part + i * heads);
        else lift_grad_f64(a, i, s, part + i * heads);
    }
    for (int64_t h = 0; a->dhead_weights && h < heads; h++) {
        double total = 0;
        for (int64_t i = 0; i < n; i++) total += part[i * heads + h];
        const double w = a->dtype == MF_FLOAT32 ? (double)((const float *)a->head_weights)[h] : ((const double *)a->head_weights)[h];
        total *= gamma_factor(a) / (1 + exp(-w));
        if (a->dtype == MF_FLOAT32) ((float *)a->dhead_weights)[h] = (float)total;
        else ((double *)a->dhead_weights)[h] = total;
    }
    free(part);
    return MF_OK;
}
