/* optim.c: optimizer steps of one tensor and of many: every check first, then one kernel that writes in place; a failed step
 * changes nothing.
 *
 * Parameters require gradients, so writing to them is refused while operations are recorded; a step is the one
 * write that means it, so it stops recording for itself. */
#include "../ops/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static mf_status adam_params_ok(const char *op, const mf_adam_params *params) {
    if (!params) return mf__fail(MF_EVALUE, "%s: no parameters given", op);
    if (params->step < 1) return mf__fail(MF_EVALUE, "%s: step %lld, steps count from 1", op, (long long)params->step);
    if (!(params->beta1 >= 0 && params->beta1 < 1 && params->beta2 >= 0 && params->beta2 < 1))
        return mf__fail(MF_EVALUE, "%s: betas %g and %g must lie in [0, 1)", op, params->beta1, params->beta2);
    if (!(params->epsilon >= 0)) return mf__fail(MF_EVALUE, "%s: epsilon %g is negative", op, params->epsilon);
    if (!isfinite(params->lr) || !isfinite(params->weight_decay) || !isfinite(params->scale))
        return mf__fail(MF_EVALUE, "%s: lr %g, weight_decay %g and scale %g must be finite", op, params->lr, params->weight_decay, params->scale);
    return MF_OK;
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
    MF_TRY(adam_params_ok(op, params));

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

/* ---- many tensors at once ---- */

static mf_status control_ok(const char *op, const mf_tensor *control, int group) {
    MF_TRY(mf__usable(op, control));
    if (control->dtype != MF_FLOAT64)
        return mf__fail(MF_EDTYPE, "%s: the control tensor is %s, needed float64", op, mf_dtype_name(control->dtype));
    if (control->ndim == 1 && mf_tensor_contiguous(control) && group >= 0 && control->shape[0] > MF_CONTROL_RATE + group) return MF_OK;
    return mf__fail(MF_ESHAPE, "%s: the control tensor %s must have one axis of at least %d numbers for group %d", op, mf__shape(control).text,
                    MF_CONTROL_RATE + group + 1, group + 1);
}

/* What kernels need of the tensors of a list: their addresses, and contiguous gradients that are held until the kernel is called. */
typedef struct gathered {
    int64_t count;
    mf_optim_item *items;
    mf_tensor **gradients;
} gathered;

static void let_go(gathered *all) {
    for (int64_t i = 0; all->gradients && i < all->count; i++) mf_tensor_release(all->gradients[i]);
    free(all->gradients);
    free(all->items);
}

static mf_status gather(gathered *all, mf_ctx *ctx, int64_t count, mf_tensor *const *gradients) {
    *all = (gathered){.count = count};
    all->items = mf__host_alloc(ctx, (size_t)count * sizeof *all->items);
    if (!all->items) return MF_ENOMEM;
    memset(all->items, 0, (size_t)count * sizeof *all->items);
    if (!gradients) return MF_OK;
    all->gradients = mf__host_alloc(ctx, (size_t)count * sizeof *all->gradients);
    if (!all->gradients) return MF_ENOMEM;
    memset(all->gradients, 0, (size_t)count * sizeof *all->gradients);
    for (int64_t i = 0; i < count; i++) {
        MF_TRY(mf__contiguous(&all->gradients[i], gradients[i]));
        all->items[i].g = mf__data(all->gradients[i]);
        all->items[i].dtype = gradients[i]->dtype;
        all->items[i].n = mf_tensor_count(gradients[i]);
    }
    return MF_OK;
}

static mf_status same_device(const char *op, const mf_tensor *control, const mf_tensor *x, int64_t i) {
    if (x->device == control->device) return MF_OK;
    return mf__fail(MF_EDEVICE, "%s: tensor %lld lives on another device than the control tensor", op, (long long)i + 1);
}

mf_status mf_optim_norm(mf_tensor *control, mf_tensor *const *gradients, int64_t count) {
    const char *op = "optim.norm";
    MF_TRY(control_ok(op, control, 0));
    for (int64_t i = 0; i < count; i++) {
        MF_TRY(mf__usable(op, gradients[i]));
        if (!mf__is_real(gradients[i]->dtype))
            return mf__fail(MF_EDTYPE, "%s: gradient %lld is %s, needed float32 or float64", op, (long long)i + 1, mf_dtype_name(gradients[i]->dtype));
        MF_TRY(same_device(op, control, gradients[i], i));
    }
    gathered all;
    mf_status status;
    MF_TRY_OUT(gather(&all, control->ctx, count, gradients));
    MF_TRY_OUT(open_for_writing(op, control));
    status = mf__kernels(control)->optim_norm(control->device, mf__data(control), all.items, count);
out:
    let_go(&all);
    return status;
}

/* Everything but the gradients, which may be missing (averages alone). `moments`: how many a parameter needs, -1: what is there. */
static mf_status list_ok(const char *op, const mf_optim_list *list, int moments) {
    if (!list || !list->parameters) return mf__fail(MF_EVALUE, "%s: no list of parameters given", op);
    if (moments == 2 && (!list->m || !list->v)) return mf__fail(MF_EVALUE, "%s: no moments given", op);
    if (list->averages && !(list->decay >= 0 && list->decay <= 1)) return mf__fail(MF_EVALUE, "%s: decay %g must lie in [0, 1]", op, list->decay);
    for (int64_t i = 0; i < list->count; i++) {
        const mf_tensor *p = list->parameters[i];
        MF_TRY(parameter_ok(op, p));
        if (list->gradients) MF_TRY(alike(op, "gradient", list->gradients[i], p, 0));
        if (list->m) MF_TRY(alike(op, moments == 2 ? "first moment" : "velocity", list->m[i], p, 1));
        if (list->v) MF_TRY(alike(op, "second moment", list->v[i], p, 1));
        if (list->averages) MF_TRY(alike(op, "average", list->averages[i], p, 1));
        const mf_tensor *own[] = {p, list->m ? list->m[i] : NULL, list->v ? list->v[i] : NULL, list->averages ? list->averages[i] : NULL};
        for (int a = 0; a < 4; a++)
            for (int b = 0; b < a; b++)
                if (own[a] && own[b]) MF_TRY(shared(op, own[a], own[b]));
    }
    return MF_OK;
}

/* Counts the versions of what is written and fills in its addresses. */
static mf_status open_list(const char *op, gathered *all, const mf_optim_list *list, int updates) {
    for (int64_t i = 0; i < list->count; i++) {
        mf_optim_item *item = &all->items[i];
        item->dtype = list->parameters[i]->dtype;
        item->n = mf_tensor_count(list->parameters[i]);
        item->p = mf__data(list->parameters[i]);
        if (updates) MF_TRY(mf__updatable(op, list->parameters[i]));
        mf_tensor *const *written[] = {list->m, list->v, list->averages};
        void **address[] = {&item->m, &item->v, &item->average};
        for (int k = 0; k < 3; k++) {
            if (!written[k]) continue;
            MF_TRY(open_for_writing(op, written[k][i]));
            *address[k] = mf__data(written[k][i]);
        }
    }
    return MF_OK;
}

mf_status mf_adam_many(const mf_tensor *control, const mf_optim_list *list, const mf_adam_params *params) {
    const char *op = "optim.adam";
    if (!params) return mf__fail(MF_EVALUE, "%s: no parameters given", op);
    mf_adam_params checked = *params;
    checked.lr = checked.scale = 0;            /* the control tensor's count */
    checked.step = 1;
    MF_TRY(adam_params_ok(op, &checked));
    MF_TRY(list_ok(op, list, 2));
    if (!list->gradients) return mf__fail(MF_EVALUE, "%s: no gradients given", op);
    MF_TRY(control_ok(op, control, list->group));
    for (int64_t i = 0; i < list->count; i++) MF_TRY(same_device(op, control, list->parameters[i], i));
    gathered all;
    mf_status status;
    MF_TRY_OUT(gather(&all, control->ctx, list->count, list->gradients));
    MF_TRY_OUT(open_list(op, &all, list, 1));
    status = mf__kernels(control)->adam_many(control->device, mf__data(control), list->group, all.items, all.count, params, list->decay);
out:
    let_go(&all);
    return status;
}

mf_status mf_sgd_many(const mf_tensor *control, const mf_optim_list *list, double momentum, double weight_decay) {
    const char *op = "optim.sgd";
    if (!isfinite(momentum) || !isfinite(weight_decay))
        return mf__fail(MF_EVALUE, "%s: momentum %g and weight_decay %g must be finite", op, momentum, weight_decay);
    MF_TRY(list_ok(op, list, 1));
    if (!list->gradients) return mf__fail(MF_EVALUE, "%s: no gradients given", op);
    if (!list->m && momentum != 0) return mf__fail(MF_EVALUE, "%s: momentum %g needs a velocity", op, momentum);
    MF_TRY(control_ok(op, control, list->group));
    for (int64_t i = 0; i < list->count; i++) MF_TRY(same_device(op, control, list->parameters[i], i));
    gathered all;
    mf_status status;
    MF_TRY_OUT(gather(&all, control->ctx, list->count, list->gradients));
    MF_TRY_OUT(open_list(op, &all, list, 1));
    status = mf__kernels(control)->sgd_many(control->device, mf__data(control), list->group, all.items, all.count, momentum, weight_decay, list->decay);
out:
    let_go(&all);
    return status;
}

mf_status mf_ema_many(const mf_optim_list *list) {
    const char *op = "optim.ema";
    MF_TRY(list_ok(op, list, 0));
    if (!list->averages) return mf__fail(MF_EVALUE, "%s: no averages given", op);
    if (list->count == 0) return MF_OK;
    mf_tensor *first = list->parameters[0];
    for (int64_t i = 0; i < list->count; i++) MF_TRY(same_device(op, first, list->parameters[i], i));
    const mf_optim_list alone = {.count = list->count, .parameters = list->parameters, .averages = list->averages, .decay = list->decay};
    gathered all;
    mf_status status;
    MF_TRY_OUT(gather(&all, first->ctx, alone.count, NULL));
    MF_TRY_OUT(open_list(op, &all, &alone, 0));
    status = mf__kernels(first)->ema_many(first->device, all.items, all.count, alone.decay);
out:
    let_go(&all);
    return status;
}
