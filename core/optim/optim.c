/* optim.c: optimizer steps: every check first, then one kernel that writes in place; a failed step changes nothing.
 *
 * Parameters require gradients, so writing to them is refused while operations are recorded; a step is the one
 * write that means it, so it stops recording for itself. */
#include "../ops/op.h"

#include <math.h>

/* `x` must be like `parameter`: same device, type and shape, and contiguous where it is written. */
static mf_status alike(const char *op, const char *role, const mf_tensor *x, const mf_tensor *parameter, int written) {
    MF_TRY(mf__usable(op, x));
    if (x->device != parameter->device)
        return mf__fail(MF_EDEVICE, "%s: the %s lives on another device than the parameter", op, role);
    if (x->dtype != parameter->dtype)
        return mf__fail(MF_EDTYPE, "%s: the %s is %s, the parameter %s", op, role, mf_dtype_name(x->dtype), mf_dtype_name(parameter->dtype));
    int same = x->ndim == parameter->ndim;
    for (int i = 0; same && i < x->ndim; i++) same = x->shape[i] == parameter->shape[i];
    if (!same)
        return mf__fail(MF_ESHAPE, "%s: the %s has shape %s, the parameter %s", op, role, mf__shape(x).text, mf__shape(parameter).text);
    if (written && !mf_tensor_contiguous(x))
        return mf__fail(MF_ESTATE, "%s: the %s must be contiguous to be written in place", op, role);
    return MF_OK;
}

static mf_status open_for_writing(const char *op, const mf_tensor *x) {
    const int before = mf_grad_enable(x->ctx, 0);
    const mf_status status = mf__writable(op, x);
    mf_grad_enable(x->ctx, before);
    return status;
}

static mf_status parameter_ok(const char *op, const mf_tensor *parameter) {
    MF_TRY(mf__usable(op, parameter));
    if (!mf__is_real(parameter->dtype))
        return mf__fail(MF_EDTYPE, "%s: the parameter is %s, needed float32 or float64", op, mf_dtype_name(parameter->dtype));
    if (parameter->node) return mf__fail(MF_ESTATE, "%s: the parameter is the result of an operation; only leaves are trained", op);
    return alike(op, "parameter", parameter, parameter, 1);
}

static mf_status shared(const char *op, const mf_tensor *a, const mf_tensor *b) {
    if (a->storage != b->storage) return MF_OK;
    return mf__fail(MF_EVALUE, "%s: two of its tensors share memory", op);
}

mf_status mf_adam_step(mf_tensor *parameter, mf_tensor *m, mf_tensor *v, const mf_tensor *grad, const mf_adam_params *params) {
    const char *op = "optim.adam";
    MF_TRY(parameter_ok(op, parameter));
    MF_TRY(alike(op, "first moment", m, parameter, 1));
    MF_TRY(alike(op, "second moment", v, parameter, 1));
    MF_TRY(alike(op, "gradient", grad, parameter, 0));
    MF_TRY(shared(op, parameter, m));
    MF_TRY(shared(op, parameter, v));
    MF_TRY(shared(op, m, v));
    if (!params) return mf__fail(MF_EVALUE, "%s: no parameters given", op);
    if (params->step < 1) return mf__fail(MF_EVALUE, "%s: step %lld, steps count from 1", op, (long long)params->step);
    if (!(params->beta1 >= 0 && params->beta1 < 1 && params->beta2 >= 0 && params->beta2 < 1))
        return mf__fail(MF_EVALUE, "%s: betas %g and %g must lie in [0, 1)", op, params->beta1, params->beta2);
    if (!(params->epsilon >= 0)) return mf__fail(MF_EVALUE, "%s: epsilon %g is negative", op, params->epsilon);
    if (!isfinite(params->lr) || !isfinite(params->weight_decay) || !isfinite(params->scale))
        return mf__fail(MF_EVALUE, "%s: lr %g, weight_decay %g and scale %g must be finite", op, params->lr, params->weight_decay, params->scale);

    mf_tensor *g = NULL;
    MF_TRY(mf__contiguous(&g, grad));
    mf_status status;
    MF_TRY_OUT(mf__updatable(op, parameter));
    MF_TRY_OUT(open_for_writing(op, m));
    MF_TRY_OUT(open_for_writing(op, v));
    status = mf__kernels(parameter)->adam(parameter->device, parameter->dtype, mf_tensor_count(parameter), mf__data(parameter),
                                          mf__data(m), mf__data(v), mf__data(g), params);
out:
    mf_tensor_release(g);
    return status;
}

mf_status mf_sgd_step(mf_tensor *parameter, mf_tensor *velocity, const mf_tensor *grad, double lr, double momentum, double weight_decay) {
    const char *op = "optim.sgd";
    MF_TRY(parameter_ok(op, parameter));
    if (velocity) {
        MF_TRY(alike(op, "velocity", velocity, parameter, 1));
        MF_TRY(shared(op, parameter, velocity));
    }
    MF_TRY(alike(op, "gradient", grad, parameter, 0));
    if (!isfinite(lr) || !isfinite(momentum) || !isfinite(weight_decay))
        return mf__fail(MF_EVALUE, "%s: lr %g, momentum %g and weight_decay %g must be finite", op, lr, momentum, weight_decay);
    if (!velocity && momentum != 0) return mf__fail(MF_EVALUE, "%s: momentum %g needs a velocity", op, momentum);

    mf_tensor *g = NULL;
    MF_TRY(mf__contiguous(&g, grad));
    mf_status status;
    MF_TRY_OUT(mf__updatable(op, parameter));
    if (velocity) MF_TRY_OUT(open_for_writing(op, velocity));
    status = mf__kernels(parameter)->sgd(parameter->device, parameter->dtype, mf_tensor_count(parameter), mf__data(parameter),
                                         velocity ? mf__data(velocity) : NULL, mf__data(g), lr, momentum, weight_decay);
out:
    mf_tensor_release(g);
    return status;
}

mf_status mf_ema_step(mf_tensor *average, const mf_tensor *x, double decay) {
    const char *op = "optim.ema";
    MF_TRY(mf__usable(op, average));
    if (!mf__is_float(average->dtype))
        return mf__fail(MF_EDTYPE, "%s: the average is %s, needed a floating type", op, mf_dtype_name(average->dtype));
    MF_TRY(alike(op, "value", x, average, 0));
    if (!(decay >= 0 && decay <= 1)) return mf__fail(MF_EVALUE, "%s: decay %g must lie in [0, 1]", op, decay);
    MF_TRY(mf__updatable(op, average));
    mf_iter it;
    mf__iter_make(&it, average->ndim, average->shape, (const mf_tensor *[]){average, x}, 2);
    return mf__kernels(average)->axpy(average->device, &it, decay, 1 - decay);
}

mf_status mf_grad_norm(double *out, mf_tensor *const *gradients, int64_t count) {
    const char *op = "optim.grad_norm";
    *out = 0;
    for (int64_t i = 0; i < count; i++) {
        MF_TRY(mf__usable(op, gradients[i]));
        if (!mf__is_real(gradients[i]->dtype))
            return mf__fail(MF_EDTYPE, "%s: gradient %lld is %s, needed float32 or float64", op, (long long)i + 1, mf_dtype_name(gradients[i]->dtype));
    }
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        mf_tensor *g = NULL;
        MF_TRY(mf__contiguous(&g, gradients[i]));
        const mf_status status = mf__kernels(g)->sum_squares(g->device, g->dtype, mf_tensor_count(g), mf__data(g), &sum);
        mf_tensor_release(g);
        if (status != MF_OK) return status;
    }
    *out = sqrt(sum);
    return MF_OK;
}
