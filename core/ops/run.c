/* run.c: the operator table, and how an operator is applied. */
#include "../tensor/tape.h"
#include "op.h"
#include <string.h>

const mf_op mf__ops[MF__OP_COUNT] = {
#define OP(name, forward, backward, keep) {#name, forward, backward, keep},
#include "ops.def"
#undef OP
};

/* Stands in rows without a gradient; never reached, because such operators are not recorded. */
mf_status mf__no_bwd(mf_grad_call *g) { return mf__fail(MF_ESUPPORT, "%s: not differentiable", g->op->name); }

mf_status mf__run(mf_tensor **outs, int n_out, int op, const mf_tensor *const *in, int n_in, const mf_params *params) {
    for (int i = 0; i < n_out; i++) outs[i] = NULL;
    mf_call c = {.op = &mf__ops[op], .n_in = n_in, .n_out = n_out, .in = in, .keep = mf__ops[op].keep};
    int wanted = 0;
    const mf_tensor *first = NULL;
    if (params) c.p = *params;
    for (int i = 0; i < n_in; i++) {
        const mf_tensor *x = in[i];
        if (!x) continue;         /* an optional input that is absent; operators check the others themselves */
        MF_TRY(mf__usable(c.op->name, x));
        if (!first) first = x;
        else if (x->device != first->device)
            return mf__fail(MF_EDEVICE, "%s: input 1 is on %s, input %d on %s; move one with :to", c.op->name,
                            first->device->name, i + 1, x->device->name);
        wanted |= x->requires_grad;
    }
    if (!first) return mf__fail(MF_EVALUE, "%s: a tensor is missing", c.op->name);
    c.ctx = first->ctx;
    c.device = first->device;
    c.recording = wanted && c.ctx->grad_enabled && mf__differentiable(c.op);

    int before = mf_grad_enable(c.ctx, 0);    /* operators inside operators leave no record */
    mf_status status = c.op->forward(&c);
    mf_grad_enable(c.ctx, before);
    if (status == MF_OK && c.recording) status = mf__record(&c);
    for (int i = 0; i < MF__MAX_SAVED; i++) mf_tensor_release(c.saved[i]);
    for (int i = 0; i < n_out; i++) {
        if (status == MF_OK) outs[i] = c.out[i];
        else mf_tensor_release(c.out[i]);
    }
    return status;
}

int mf_op_count(void) { return MF__OP_COUNT; }
const char *mf_op_name(int op) { return op >= 0 && op < MF__OP_COUNT ? mf__ops[op].name : ""; }
int mf_op_differentiable(int op) { return op >= 0 && op < MF__OP_COUNT && mf__differentiable(&mf__ops[op]); }

const char *mf_op_keeps(int op) {
    if (op < 0 || op >= MF__OP_COUNT) return "";
    unsigned keep = mf__ops[op].keep;
    int in = (keep & KEEP_INS) != 0, out = (keep & KEEP_OUT) != 0, saved = (keep & KEEP_SAVED) != 0;
    static const char *const words[8] = {"shapes", "inputs", "output", "inputs, output", "extra", "inputs, extra", "output, extra", "inputs, output, extra"};
    return words[in + 2 * out + 4 * saved];
}
