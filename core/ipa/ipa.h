/* ipa.h: what both operators of this room do with their inputs and gradients. */
#ifndef MF_IPA_IPA_H
#define MF_IPA_IPA_H
#include "../ops/op.h"

/* The data of an input that may be absent. */
static inline void *mf__ipa_data(const mf_tensor *x) { return x ? mf__data(x) : NULL; }

/* The gradient of input i like the input, where it is wanted; its data in *to. */
static inline mf_status mf__ipa_want(void **to, mf_grad_call *g, int i) {
    *to = NULL;
    if (i >= g->n_in || !g->in[i] || !g->wanted[i]) return MF_OK;
    MF_TRY(mf__new_like(&g->din[i], g->in[i]));
    *to = mf__data(g->din[i]);
    return MF_OK;
}
#endif
