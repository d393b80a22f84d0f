/* backend.c: the CPU: opening it, and the table of every kernel of cpu.h. Its memory is in pool.c.
 *
 * OpenBLAS runs on one thread: products are split over OpenMP by us, so that two pools never compete for the cores. */
#include "cpu.h"
#include "pool.h"
#include "../base/memory.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

void openblas_set_num_threads(int threads);

/* OpenMP's workers sleep inside libgomp for as long as the process lives. A host that unloads us at its end, as Lua
 * does, would unmap libgomp under them and crash once in a few runs: so the library, once used, stays mapped. */
static void stay_loaded(void) {
    Dl_info own;
    if (dladdr(&mf__cpu_backend, &own) != 0 && own.dli_fname) (void)dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

/* The processor's name, where Linux tells it: not on every architecture. */
static void read_hardware(mf_device *d) {
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[sizeof d->hardware];
    while (file && !d->hardware[0] && fgets(line, sizeof line, file)) {
        const char *name = strncmp(line, "model name", 10) == 0 ? strstr(line, ": ") : NULL;
        if (name) snprintf(d->hardware, sizeof d->hardware, "%.*s", (int)strcspn(name + 2, "\n"), name + 2);
    }
    if (file) fclose(file);
}

static mf_status cpu_open(mf_device *d) {
    stay_loaded();
    read_hardware(d);
    openblas_set_num_threads(1);
    if (d->threads <= 0) d->threads = mf__cpu_cores();
    return mf__pool_open(d);
}

static mf_status cpu_move(mf_device *d, void *to, const void *from, int64_t bytes) {
    (void)d;
    if (bytes > 0) memcpy(to, from, (size_t)bytes);
    return MF_OK;
}

static mf_status cpu_synchronize(mf_device *d) {
    (void)d;
    return MF_OK;
}

const mf_backend mf__cpu_backend = {
    .name = "cpu",
    .open = cpu_open,
    .close = mf__pool_close,
    .alloc = mf__pool_alloc,
    .release = mf__pool_free,
    .upload = cpu_move,
    .download = cpu_move,
    .synchronize = cpu_synchronize,

    .copy = mf__cpu_copy,
    .fill = mf__cpu_fill,
    .axpy = mf__cpu_axpy,
    .unary = mf__cpu_unary,
    .unary_grad = mf__cpu_unary_grad,
    .binary = mf__cpu_binary,
    .where = mf__cpu_where,
    .logical_not = mf__cpu_logical_not,
    .round_to = mf__cpu_round_to,
    .dropout = mf__cpu_dropout,

    .reduce = mf__cpu_reduce,
    .cumsum = mf__cpu_cumsum,
    .logsumexp = mf__cpu_logsumexp,
    .softmax = mf__cpu_softmax,
    .softmax_grad = mf__cpu_softmax_grad,
    .sort = mf__cpu_sort,
    .segment_sum = mf__cpu_segment_sum,
    .segment_expand = mf__cpu_segment_expand,

    .gemm = mf__cpu_gemm,
    .layer_norm = mf__cpu_layer_norm,
    .layer_norm_grad = mf__cpu_layer_norm_grad,

    .index_select = mf__cpu_index_select,
    .index_add = mf__cpu_index_add,
    .gather = mf__cpu_gather,
    .scatter_add = mf__cpu_scatter_add,

    .random = mf__cpu_random,
    .random_rotations = mf__cpu_random_rotations,
    .random_igso3 = mf__cpu_random_igso3,
    .random_permutation = mf__cpu_random_permutation,

    .attention = mf__cpu_attention,
    .attention_grad = mf__cpu_attention_grad,
    .pair_attention = mf__cpu_pair_attention,
    .pair_attention_grad = mf__cpu_pair_attention_grad,

    .rowwise = mf__cpu_rowwise,
    .frames_apply = mf__cpu_frames_apply,
    .frames_apply_grad = mf__cpu_frames_apply_grad,
    .frames_gauge = mf__cpu_frames_gauge,
    .kabsch = mf__cpu_kabsch,
    .kabsch_pairs = mf__cpu_kabsch_pairs,
    .neighbours = mf__cpu_neighbours,
    .distogram = mf__cpu_distogram,
    .index_embedding = mf__cpu_index_embedding,
    .rotary = mf__cpu_rotary,
    .pair_loss = mf__cpu_pair_loss,
    .pair_loss_grad = mf__cpu_pair_loss_grad,

    .adam = mf__cpu_adam,
    .sgd = mf__cpu_sgd,
    .sum_squares = mf__cpu_sum_squares,
    .optim_norm = mf__cpu_optim_norm,
    .adam_many = mf__cpu_adam_many,
    .sgd_many = mf__cpu_sgd_many,
    .ema_many = mf__cpu_ema_many,
    .bias_grad = mf__cpu_bias_grad,
    .lift = mf__cpu_lift,
    .lift_grad = mf__cpu_lift_grad,
    .readout = mf__cpu_readout,
    .readout_grad = mf__cpu_readout_grad,
    .bins_gather = mf__cpu_bins_gather,
    .bins_scatter = mf__cpu_bins_scatter,
    .add_layer_norm = mf__cpu_add_layer_norm,
    .add_layer_norm_grad = mf__cpu_add_layer_norm_grad,
    .squared_error = mf__cpu_squared_error,
    .squared_error_grad = mf__cpu_squared_error_grad,
    .cross_entropy = mf__cpu_cross_entropy,
    .cross_entropy_grad = mf__cpu_cross_entropy_grad,
};
