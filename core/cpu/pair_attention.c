/* pair_attention.c: attention with dense pairs on the CPU, forward and backward: the quadratic IPA's inner part.
 *
 *   S_ij^h = q_i^h k_j^h + key_bias_j^h + pair_bias_ij^h,  P = softmax_j S
 *   out_i^h = sum_j P_ij^h v_j^h,    pair_out_i^h = sum_j P_ij^h pair_value_ij
 *   dP_ij^h = dout_i^h v_j^h + dpair_out_i^h pair_value_ij,  delta_i^h = dout out + dpair_out pair_out
 *   dS = P (dP - delta) = dpair_bias,  dq = dS k,  dk = dS' q,  dv = P' dout,  dpair_value_ij = sum_h P_ij^h dpair_out_i^h
 *
 * The pairs (P, ...) are given and lie row by row: pair (i, j) of a sequence of L is row i L + j after its first. The work
 * goes by blocks of a few queries with all their heads and keys, so that every pair is read once (pair_value is what
 * the time goes into, 128 channels against 8 heads' logits) and a softmax sees its whole row. Workspace per
 * thread is O(L).
 *
 * Backward: a block owns dq, dpair_bias and dpair_value. dk, dv and dkey_bias sum over all queries: with many
 * sequences a thread takes whole ones; with few, each thread takes a run of blocks of every sequence and sums into
 * keys' gradients of its own, (L, H (dqk + dv + 1)) a thread, which are added in thread order. Deterministic for a
 * given thread count. */
#include <omp.h>
#include <stdlib.h>
#include "attention.h"

/* rows of a block: enough for a product, while S and dS stay within a core's second cache */
enum { MOST_ROWS = 32, BLOCK_ELEMENTS = 1 << 16 };
enum { AREA_S, AREA_DS, AREA_BIAS, AREA_COUNT };
typedef struct layout {
    int64_t at[AREA_COUNT], bytes;
} layout;
#define AREA(w, work, area) ((R *)(void *)((work) + (w)->at[area]))

/* Where the gradients of a sequence's keys go; each may be NULL. */
typedef struct key_gradients {
    void *dk, *dv, *dkey_bias;
} key_gradients;

#define R float
#define NAME(x) x##_f32
#define EXP mf__expf
#define TOP_OF mf__top_of_f32
#define BLAS cblas_sgemm
#include "pair_attention_body.h"
#undef R
#undef NAME
#undef EXP
#undef TOP_OF
#undef BLAS
#define R double
#define NAME(x) x##_f64
#define EXP mf__exp_double
#define TOP_OF mf__top_of_f64
#define BLAS cblas_dgemm
#include "pair_attention_body.h"
#undef R
#undef NAME
#undef EXP
#undef TOP_OF
#undef BLAS

static int64_t block_rows(const mf_attention_args *a, int64_t length) {
    const int64_t fit = BLOCK_ELEMENTS / mf__max_i64(1, a->heads * length);
    return mf__max_i64(1, mf__min_i64(mf__min_i64(fit, MOST_ROWS), length));
}

static int64_t length_of(const mf_attention_args *a, int64_t sequence) {
    return a->packing->offsets[sequence + 1] - a->packing->offsets[sequence];
}
static int64_t blocks_of(const mf_attention_args *a, int64_t sequence) {
    const int64_t length = length_of(a, sequence);
    return mf__ceil_div(length, block_rows(a, length));
}

/* Large enough for every length up to the longest: rows x keys is at most the larger of BLOCK_ELEMENTS / heads and one row. */
static layout lay_out(const mf_attention_args *a, int backward) {
    const int64_t real = a->dtype == MF_FLOAT64 ? 8 : 4, longest = a->packing->longest;
    const int64_t block = mf__min_i64(mf__max_i64(BLOCK_ELEMENTS, a->heads * longest), a->heads * longest * mf__min_i64(longest,
        MOST_ROWS));
    const int64_t count[AREA_COUNT] = {[AREA_S] = block, [AREA_DS] = backward ? block : 0, [AREA_BIAS] = longest};
    layout w = {.bytes = 0};
    for (int i = 0; i < AREA_COUNT; i++) {
        w.at[i] = w.bytes;
        w.bytes += (count[i] * real + 63) / 64 * 64;
    }
    return w;
}

mf_status mf__cpu_pair_attention(mf_device *d, const mf_attention_args *a) {
    MF_TRY(mf__attention_check("pair_attention", a));
    if (a->packing->total == 0 || a->heads == 0) return MF_OK;
    const int64_t threads = mf__attention_threads(d, a), n = a->packing->count;
    const layout w = lay_out(a, 0);
    void *block;
    char *work;
    MF_TRY(mf__workspaces(&block, &work, d, threads, w.bytes));
#pragma omp parallel num_threads((int)threads) if (threads > 1)
    for (int64_t s = 0; s < n; s++) {
        const int64_t length = length_of(a, s), rows = block_rows(a, length), blocks = blocks_of(a, s);
        char *mine = work + omp_get_thread_num() * w.bytes;
#pragma omp for schedule(dynamic) nowait
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t i0 = b * rows, here = mf__min_i64(rows, length - i0);
            if (a->dtype == MF_FLOAT32) forward_block_f32(a, &w, s, i0, here, mine);
            else forward_block_f64(a, &w, s, i0, here, mine);
        }
    }
    free(block);
    return MF_OK;
}

/* Blocks [first, last) of a sequence, one after the other. */
static void grad_run(const mf_attention_args *a, const layout *w, const key_gradients *to, int64_t sequence, int64_t first,
                    int64_t last, char *work) {
    const int64_t length = length_of(a, sequence), rows = block_rows(a, length);
    for (int64_t b = first; b < last; b++) {
        const int64_t i0 = b * rows, here = mf__min_i64(rows, length - i0);
        if (a->dtype == MF_FLOAT32) grad_block_f32(a, w, to, b == first, sequence, i0, here, work);
        else grad_block_f64(a, w, to, b == first, sequence, i0, here, work);
    }
}

/* The keys' gradients of a sequence inside the outputs. */
static key_gradients outputs_of(const mf_attention_args *a, int64_t sequence) {
    const int64_t row = a->packing->offsets[sequence] * a->heads * (a->dtype == MF_FLOAT64 ? 8 : 4);
    return (key_gradients){.dk = a->dk ? (char *)a->dk + row * a->dqk : NULL, .dv = a->dv_ ? (char *)a->dv_ + row * a->dv : NULL,
                           .dkey_bias = a->dkey_bias ? (char *)a->dkey_bias + row : NULL};
}

static void add_up(const mf_attention_args *a, void *to, const void *from, int64_t n, int64_t threads) {
    if (!to) return;
#pragma omp parallel for num_threads((int)threads) schedule(static)
    for (int64_t t = 0; t < threads; t++) {
        if (a->dtype == MF_FLOAT32) add_up_f32(to, from, n * t / threads, n * (t + 1) / threads);
        else add_up_f64(to, from, n * t / threads, n * (t + 1) / threads);
    }
}

mf_status mf__cpu_pair_attention_grad(mf_device *d, const mf_attention_args *a) {
    MF_TRY(mf__attention_check("pair_attention", a));
    if (a->packing->total == 0 || a->heads == 0) return MF_OK;
    const int64_t threads = mf__attention_threads(d, a), n = a->packing->count, longest = a->packing->longest;
    const int64_t real = a->dtype == MF_FLOAT64 ? 8 : 4;
    const int whole = threads == 1 || n >= 4 * threads;
    const layout w = lay_out(a, 1);
    /* private gradients of a thread's keys: dk, dv, dkey_bias one after the other */
    const int64_t k_bytes = a->dk ? longest * a->heads * a->dqk * real : 0,
        v_bytes = a->dv_ ? longest * a->heads * a->dv * real : 0;
    const int64_t b_bytes = a->dkey_bias ? longest * a->heads * real : 0;
    const int64_t private_bytes = whole ? 0 : (k_bytes + v_bytes + b_bytes + 63) / 64 * 64;
    void *block;
    char *work;
    MF_TRY(mf__workspaces(&block, &work, d, threads, w.bytes + private_bytes));
    if (whole) {
#pragma omp parallel for num_threads((int)threads) schedule(dynamic) if (threads > 1)
        for (int64_t s = 0; s < n; s++) {
            const key_gradients to = outputs_of(a, s);
            grad_run(a, &w, &to, s, 0, blocks_of(a, s), work + omp_get_thread_num() * w.bytes);
        }
        free(block);
        return MF_OK;
    }
    char *private = work + threads * w.bytes;
    for (int64_t s = 0; s < n; s++) {
        const int64_t blocks = blocks_of(a, s), runs = mf__min_i64(threads, blocks), elements = length_of(a, s) * a->heads;
        const key_gradients to = outputs_of(a, s);
        if (blocks == 0) continue;
#pragma omp parallel for num_threads((int)runs) schedule(static, 1) if (runs > 1)
        for (int64_t r = 0; r < runs; r++) {
            char *mine = private + r * private_bytes;
            const key_gradients own = {.dk = a->dk ? mine : NULL, .dv = a->dv_ ? mine + k_bytes : NULL,
                                       .dkey_bias = a->dkey_bias ? mine + k_bytes + v_bytes : NULL};
            grad_run(a, &w, r == 0 ? &to : &own, s, blocks * r / runs, blocks * (r + 1) / runs, work + r * w.bytes);
        }
        for (int64_t r = 1; r < runs; r++) {
            const char *from = private + r * private_bytes;
            add_up(a, to.dk, from, elements * a->dqk, runs);
            add_up(a, to.dv, from + k_bytes, elements * a->dv, runs);
            add_up(a, to.dkey_bias, from + k_bytes + v_bytes, elements, runs);
        }
    }
    free(block);
    return MF_OK;
}
