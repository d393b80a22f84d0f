/* random.c: in-place draws. Each call takes as many positions of the generator as it says and moves its counter on by
 * that many, on success only, so a failed draw can be repeated. */
#include "op.h"
#include "../base/graph.h"
#include "../base/philox.h"

typedef struct draw {
    int kind;                     /* MF_RANDOM_*, or one of the next three */
    double p0, p1;
    const mf_tensor *sigma;
} draw;
enum { ROTATIONS = 100, IGSO3, PERMUTATION };

static mf_status call_kernel(mf_tensor *x, mf_rng rng, const draw *a) {
    const mf_backend *kernels = mf__kernels(x);
    const int64_t n = mf_tensor_count(x);
    switch (a->kind) {
    case ROTATIONS: return kernels->random_rotations(x->device, x->dtype, n / 9, mf__data(x), rng);
    case IGSO3: return kernels->random_igso3(x->device, x->dtype, n / 3, mf__data(x), rng, mf__data(a->sigma), mf_tensor_count(a->sigma));
    case PERMUTATION: return kernels->random_permutation(x->device, x->dtype, n, mf__data(x), rng);
    default: return kernels->random(x->device, a->kind, x->dtype, n, mf__data(x), rng, a->p0, a->p1);
    }
}

/* `positions` is what the draw takes of the generator. */
static mf_status fill_in(const char *op, mf_tensor *x, mf_rng *rng, int64_t positions, const draw *a) {
    if (!rng) rng = mf_ctx_rng(x->ctx);
    MF_TRY(mf__graph_draws(x, rng));
    if (mf_tensor_contiguous(x)) {
        MF_TRY(mf__writable(op, x));
        MF_TRY(call_kernel(x, *rng, a));
    } else {
        mf_tensor *flat = NULL;
        MF_TRY(mf__new_like(&flat, x));
        mf_status status = call_kernel(flat, *rng, a);
        if (status == MF_OK) status = mf_tensor_copy(x, flat);
        mf_tensor_release(flat);
        if (status != MF_OK) return status;
    }
    rng->counter += (uint64_t)positions;
    return MF_OK;
}

static mf_status floating(const char *op, const mf_tensor *x) {
    MF_TRY(mf__usable(op, x));
    if (mf__is_float(x->dtype)) return MF_OK;
    return mf__fail(MF_EDTYPE, "%s: needs a floating type, not %s", op, mf_dtype_name(x->dtype));
}

mf_status mf_random_uniform(mf_tensor *x, mf_rng *rng, double lo, double hi) {
    const char *op = "random.uniform";
    MF_TRY(floating(op, x));
    if (!(lo < hi) || !isfinite(hi - lo)) return mf__fail(MF_EVALUE, "%s: [%g, %g) is not a finite interval", op, lo, hi);
    return fill_in(op, x, rng, mf_tensor_count(x), &(draw){.kind = MF_RANDOM_UNIFORM, .p0 = lo, .p1 = hi});
}

mf_status mf_random_normal(mf_tensor *x, mf_rng *rng, double mean, double deviation) {
    const char *op = "random.normal";
    MF_TRY(floating(op, x));
    if (!(deviation >= 0) || !isfinite(deviation) || !isfinite(mean))
        return mf__fail(MF_EVALUE, "%s: mean %g and deviation %g must be finite, the deviation at least 0", op, mean, deviation);
    return fill_in(op, x, rng, mf_tensor_count(x), &(draw){.kind = MF_RANDOM_NORMAL, .p0 = mean, .p1 = deviation});
}

mf_status mf_random_truncated(mf_tensor *x, mf_rng *rng, double deviation) {
    const char *op = "random.truncated";
    MF_TRY(floating(op, x));
    if (!(deviation >= 0) || !isfinite(deviation))
        return mf__fail(MF_EVALUE, "%s: deviation %g must be finite and at least 0", op, deviation);
    return fill_in(op, x, rng, mf_tensor_count(x), &(draw){.kind = MF_RANDOM_TRUNCATED, .p0 = deviation});
}

static mf_status real(const char *op, const mf_tensor *x) {
    MF_TRY(mf__usable(op, x));
    if (mf__is_real(x->dtype)) return MF_OK;
    return mf__fail(MF_EDTYPE, "%s: needs float32 or float64, not %s", op, mf_dtype_name(x->dtype));
}

mf_status mf_random_rotations(mf_tensor *x, mf_rng *rng) {
    const char *op = "random.rotations";
    MF_TRY(real(op, x));
    if (x->ndim < 2 || x->shape[x->ndim - 1] != 3 || x->shape[x->ndim - 2] != 3)
        return mf__fail(MF_ESHAPE, "%s: shape %s must end in 3 x 3", op, mf__shape(x).text);
    return fill_in(op, x, rng, mf_tensor_count(x) / 9, &(draw){.kind = ROTATIONS});
}

/* Vectors (n, 3) of IGSO(3) and their sigma. */
static mf_status scales(const char *op, const mf_tensor *x, const mf_tensor *sigma) {
    MF_TRY(mf__usable(op, sigma));
    if (x->ndim != 2 || x->shape[1] != 3) return mf__fail(MF_ESHAPE, "%s: shape %s must be (n, 3)", op, mf__shape(x).text);
    const int64_t count = mf_tensor_count(sigma);
    if (sigma->ndim > 1 || (count != 1 && count != x->shape[0]))
        return mf__fail(MF_ESHAPE, "%s: sigma %s must be (1) or (%lld)", op, mf__shape(sigma).text, (long long)x->shape[0]);
    if (sigma->dtype != x->dtype)
        return mf__fail(MF_EDTYPE, "%s: sigma is %s, the result %s; cast one with :to", op, mf_dtype_name(sigma->dtype), mf_dtype_name(x->dtype));
    if (sigma->device != x->device) return mf__fail(MF_EDEVICE, "%s: sigma lives on another device; move it with :to", op);
    return MF_OK;
}

mf_status mf_random_igso3(mf_tensor *x, mf_rng *rng, const mf_tensor *sigma) {
    const char *op = "random.igso3";
    MF_TRY(real(op, x));
    MF_TRY(scales(op, x, sigma));
    mf_tensor *flat = NULL;
    MF_TRY(mf__contiguous(&flat, sigma));
    const mf_status status = fill_in(op, x, rng, x->shape[0], &(draw){.kind = IGSO3, .sigma = flat});
    mf_tensor_release(flat);
    return status;
}

mf_status mf_random_permutation(mf_tensor *x, mf_rng *rng) {
    const char *op = "random.permutation";
    MF_TRY(mf__usable(op, x));
    if (!mf__is_index(x->dtype)) return mf__fail(MF_EDTYPE, "%s: needs int32 or int64, not %s", op, mf_dtype_name(x->dtype));
    if (x->ndim != 1) return mf__fail(MF_ESHAPE, "%s: shape %s must have one axis", op, mf__shape(x).text);
    if (x->dtype == MF_INT32 && x->shape[0] > INT32_MAX)
        return mf__fail(MF_EVALUE, "%s: %lld positions do not fit int32", op, (long long)x->shape[0]);
    return fill_in(op, x, rng, x->shape[0], &(draw){.kind = PERMUTATION});
}

/* ---- each sequence from a generator of its own ---- */

/* By the kernels of single draws, for a device whose memory the host reads. */
static mf_status one_by_one(mf_device *d, const mf_random_each_args *a) {
    static const int64_t width[] = {[MF_EACH_NORMAL] = 1, [MF_EACH_ROTATIONS] = 9, [MF_EACH_IGSO3] = 3};
    const int64_t bytes = mf_dtype_bytes(a->dtype);
    for (int64_t s = 0; s < a->packing->count; s++) {
        const int64_t first = a->packing->offsets[s] * a->per_residue, n = a->packing->offsets[s + 1] * a->per_residue - first;
        char *x = (char *)a->x + first * width[a->kind] * bytes;
        const char *sigma = a->n_sigma > 1 ? (const char *)a->sigma + first * bytes : a->sigma;
        mf_rng rng = a->rng;
        rng.stream += (uint64_t)a->streams[s];
        switch (a->kind) {
        case MF_EACH_NORMAL: MF_TRY(d->backend->random(d, MF_RANDOM_NORMAL, a->dtype, n, x, rng, 0, 1)); break;
        case MF_EACH_ROTATIONS: MF_TRY(d->backend->random_rotations(d, a->dtype, n, x, rng)); break;
        default: MF_TRY(d->backend->random_igso3(d, a->dtype, n, x, rng, sigma, a->n_sigma > 1 ? n : 1)); break;
        }
    }
    return MF_OK;
}

/* x holds `width` numbers an element. */
static mf_status each(const char *op, mf_tensor *x, int64_t width, mf_random_each_args *a, const mf_tensor *streams) {
    const int64_t total = a->packing->total, n = mf_tensor_count(x);
    MF_TRY(mf__usable(op, streams));
    if (x->ctx->graph) return mf__fail(MF_ESTATE, "%s: cannot be captured in a graph: its generators do not move on; draw before, and pass the result in", op);
    if (x->ndim < 1 || (total ? n % (total * width) != 0 || x->shape[0] % total != 0 : n != 0))
        return mf__fail(MF_ESHAPE, "%s: shape %s does not divide among the %lld residues of the packing", op, mf__shape(x).text, (long long)total);
    if (streams->dtype != MF_INT64) return mf__fail(MF_EDTYPE, "%s: streams is %s, expected int64", op, mf_dtype_name(streams->dtype));
    if (streams->ndim != 1 || streams->shape[0] != a->packing->count)
        return mf__fail(MF_ESHAPE, "%s: streams %s must be (%lld), one a sequence", op, mf__shape(streams).text, (long long)a->packing->count);
    if (streams->device != x->device) return mf__fail(MF_EDEVICE, "%s: streams lives on another device; move it with :to", op);
    if (n == 0) return MF_OK;
    mf_tensor *list = NULL, *flat = NULL;
    mf_status status = MF_OK;
    const mf_backend *kernels = mf__kernels(x);
    /* a draw of IGSO(3) may fail after others were made */
    const int direct = mf_tensor_contiguous(x) && (kernels->random_each || a->kind != MF_EACH_IGSO3);
    if (direct) MF_TRY(mf__writable(op, x));
    MF_TRY_OUT(mf__contiguous(&list, streams));
    if (!direct) MF_TRY_OUT(mf__new_like(&flat, x));
    a->dtype = x->dtype;
    a->streams = mf__data(list);
    a->per_residue = n / (total * width);
    a->x = mf__data(direct ? x : flat);
    status = kernels->random_each ? kernels->random_each(x->device, a) : one_by_one(x->device, a);
    if (status == MF_OK && !direct) status = mf_tensor_copy(x, flat);
out:
    mf_tensor_release(list);
    mf_tensor_release(flat);
    return status;
}

mf_status mf_random_normal_each(mf_tensor *x, const mf_rng *rng, const mf_tensor *streams, const mf_packing *packing) {
    const char *op = "random.normal_each";
    MF_TRY(real(op, x));
    return each(op, x, 1, &(mf_random_each_args){.kind = MF_EACH_NORMAL, .rng = *rng, .packing = packing}, streams);
}

mf_status mf_random_rotations_each(mf_tensor *x, const mf_rng *rng, const mf_tensor *streams, const mf_packing *packing) {
    const char *op = "random.rotations_each";
    MF_TRY(real(op, x));
    if (x->ndim < 3 || x->shape[x->ndim - 1] != 3 || x->shape[x->ndim - 2] != 3)
        return mf__fail(MF_ESHAPE, "%s: shape %s must be (n, 3, 3)", op, mf__shape(x).text);
    return each(op, x, 9, &(mf_random_each_args){.kind = MF_EACH_ROTATIONS, .rng = *rng, .packing = packing}, streams);
}

mf_status mf_random_igso3_each(mf_tensor *x, const mf_rng *rng, const mf_tensor *streams, const mf_packing *packing, const mf_tensor *sigma) {
    const char *op = "random.igso3_each";
    mf_random_each_args a = {.kind = MF_EACH_IGSO3, .rng = *rng, .packing = packing};
    mf_tensor *flat = NULL;
    MF_TRY(real(op, x));
    MF_TRY(scales(op, x, sigma));
    MF_TRY(mf__contiguous(&flat, sigma));
    a.sigma = mf__data(flat);
    a.n_sigma = mf_tensor_count(flat);
    const mf_status status = each(op, x, 3, &a, streams);
    mf_tensor_release(flat);
    return status;
}

double mf_random_number(mf_rng *rng) {
    const mf_words b = mf__philox(rng->seed, rng->stream, rng->counter++);
    return mf__uniform53(b.w[0], b.w[1]);
}
