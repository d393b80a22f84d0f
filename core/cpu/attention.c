/* attention.c: attention over packed sequences on the CPU, forward and backward, never L x L.
 *
 *   S = q k' + key_bias,  lse = log sum exp S,  P = exp(S - lse),  out = P v             per sequence and head
 *   delta = rowsum(dout out)
 *   dP = dout v',  dS = P (dP - delta),  dv = P' dout,  dq = dS k,  dk = dS' q,  dkey_bias = column sums of dS
 *
 * Tiles of ROWS queries x COLUMNS keys; each product is one sgemm on rows where they lie (stride H d), so nothing is
 * packed but by OpenBLAS. Forward keeps a running maximum and sum per query (online softmax) and sums in `out`.
 *
 * Who owns what (so that nothing is atomic and no sum depends on timing)
 *   forward    a thread owns a block of queries of one sequence and head
 *   backward   one sweep: a thread owns a whole (sequence, head), five products a tile; taken when that loads the
 *              threads evenly enough. Otherwise two sweeps: blocks of keys own dk, dv and dkey_bias, then blocks of queries
 *              own dq; S and dP are then computed twice, seven products. Both add the same tiles in the same order, so
 *              they give the same bits, and the choice, like the thread count, is only one of speed.
 *
 * Precision. With MF_FP16, MF_BF16 or MF_TF32 every operand of a product (q, k, v, P, dout, dS) is rounded first, as a matrix
 * unit takes it; sums, softmax, lse and delta stay in the real type. Float16's least normal number is 2^-14 and dS is
 * about |dout| / L, so in float16 dout is multiplied by a power of two, chosen per call as the largest for which nothing
 * can overflow: |dout| and |dS| <= max_i |dout_i| max_j |v_j| / 2 (from P (1 - P) <= 1/4) both stay below 2^15; and P, at most
 * 1, by 2^15, so that 1 / L does not fall below 2^-14. The products' alpha takes both back, exactly. Relative error of dq
 * against float64 at L = 512, widths 154 and 228, by the size of dout:
 *
 *     dout    float16, scaled   float16, plain   bfloat16
 *     1       4.5e-4            4.5e-4           3.6e-3
 *     1e-3    4.5e-4            5.3e-4           3.6e-3
 *     1e-6    4.6e-4            2.4e-1           3.7e-3
 *     1e-8    4.5e-4            1                3.6e-3      */
#include <omp.h>
#include <stdlib.h>
#include "attention.h"

enum { ROWS = 256, COLUMNS = 256, LEAST_ROWS = 64 };
enum { WANT_Q = 1, WANT_K = 2, WANT_V = 4, WANT_BIAS = 8 };

/* One thread's workspace: byte offsets of its areas. */
enum { AREA_S, AREA_DS, AREA_BIAS, AREA_DBIAS, AREA_MAX, AREA_SUM, AREA_Q, AREA_K, AREA_V, AREA_DOUT, AREA_COUNT };
typedef struct layout {
    int64_t at[AREA_COUNT], bytes;
} layout;
#define AREA(w, work, area) ((R *)(void *)((work) + (w)->at[area]))

/* Cuts n into equal steps of at most `most`, multiples of 16 so that OpenBLAS meets few ragged edges. */
static int64_t even(int64_t n, int64_t most) {
    return mf__min_i64(most, (mf__ceil_div(n, mf__max_i64(1, mf__ceil_div(n, most))) + 15) / 16 * 16);
}

#define R float
#define NAME(x) x##_f32
#define EXP mf__expf
#define TOP_OF mf__top_of_f32
#define BLAS cblas_sgemm
#define ROUND_ROW mf__round_row_f32
#include "attention_body.h"
#undef R
#undef NAME
#undef EXP
#undef TOP_OF
#undef BLAS
#undef ROUND_ROW
#define R double
#define NAME(x) x##_f64
#define EXP mf__exp_double
#define TOP_OF mf__top_of_f64
#define BLAS cblas_dgemm
#define ROUND_ROW mf__round_row_f64
#include "attention_body.h"
#undef R
#undef NAME
#undef EXP
#undef TOP_OF
#undef BLAS
#undef ROUND_ROW

static layout lay_out(const mf_attention_args *a, int backward) {
    const int64_t longest = a->packing->longest, real = a->dtype == MF_FLOAT64 ? 8 : 4;
    const int64_t rows = mf__min_i64(ROWS, longest), columns = mf__min_i64(COLUMNS, longest), rounded = a->precision != MF_EXACT;
    const int64_t count[AREA_COUNT] = {
        [AREA_S] = rows * columns, [AREA_DS] = backward ? rows * columns : 0, [AREA_BIAS] = columns, [AREA_DBIAS] = columns,
        [AREA_MAX] = rows, [AREA_SUM] = rows, [AREA_Q] = rounded * rows * a->dqk, [AREA_K] = rounded * columns * a->dqk,
        [AREA_V] = rounded * columns * a->dv, [AREA_DOUT] = backward * rounded * mf__max_i64(rows, 1) * a->dv,
    };
    layout w = {.bytes = 0};
    for (int i = 0; i < AREA_COUNT; i++) {
        w.at[i] = w.bytes;
        w.bytes += (count[i] * real + 63) / 64 * 64;
    }
    return w;
}

/* Work items: every (sequence, head, block of at most `step` residues), the blocks of one head side by side because they
 * read the same keys. first[s] is the first item of sequence s. */
typedef struct items {
    int64_t *first, count, heads, step;
    const mf_packing *packing;
} items;
typedef struct item {
    int64_t sequence, head, start, length;
} item;

static void count_items(items *all) {
    all->count = 0;
    for (int64_t s = 0; s < all->packing->count; s++) {
        const int64_t length = all->packing->offsets[s + 1] - all->packing->offsets[s];
        all->first[s] = all->count;
        all->count += all->heads * mf__ceil_div(length, mf__max_i64(1, mf__min_i64(all->step, length)));
    }
    all->first[all->packing->count] = all->count;
}

static item item_at(const items *all, int64_t i) {
    int64_t low = 0, high = all->packing->count;            /* the last s with first[s] <= i; empty sequences have no items */
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (all->first[middle] <= i) low = middle;
        else high = middle;
    }
    const int64_t length = all->packing->offsets[low + 1] - all->packing->offsets[low];
    const int64_t blocks = (all->first[low + 1] - all->first[low]) / all->heads, local = i - all->first[low];
    const int64_t step = even(length, mf__min_i64(all->step, length));
    item it = {.sequence = low, .head = local / blocks, .start = local % blocks * step};
    it.length = mf__max_i64(0, mf__min_i64(step, length - it.start));
    return it;
}

/* Blocks small enough to occupy every thread several times over, large enough for the products. */
static void choose_step(items *all, int64_t threads) {
    for (all->step = ROWS;; all->step /= 2) {
        count_items(all);
        if (all->step <= LEAST_ROWS || all->count >= 4 * threads) return;
    }
}

mf_status mf__cpu_attention(mf_device *d, const mf_attention_args *a) {
    MF_TRY(mf__attention_check("attention", a));
    if (a->packing->total == 0 || a->heads == 0) return MF_OK;
    const int64_t threads = mf__attention_threads(d, a), n = a->packing->count;
    const layout w = lay_out(a, 0);
    void *block = NULL;
    char *work;
    mf_status status = MF_OK;
    items all = {.heads = a->heads, .packing = a->packing, .first = mf__host_alloc(d->ctx, (size_t)(n + 1) * sizeof(int64_t))};
    if (!all.first) return MF_ENOMEM;
    MF_TRY_OUT(mf__workspaces(&block, &work, d, threads, w.bytes));
    choose_step(&all, threads);
#pragma omp parallel for num_threads((int)threads) schedule(dynamic) if (threads > 1)
    for (int64_t i = 0; i < all.count; i++) {
        const item it = item_at(&all, i);
        char *mine = work + omp_get_thread_num() * w.bytes;
        if (it.length == 0) continue;
        if (a->dtype == MF_FLOAT32) forward_rows_f32(a, &w, it.sequence, it.head, it.start, it.length, mine);
        else forward_rows_f64(a, &w, it.sequence, it.head, it.start, it.length, mine);
    }
out:
    free(block);
    free(all.first);
    return status;
}

/* The largest |x| and the largest norm of a row of x (rows, width); NaN is passed over. */
static void extent(double *largest, double *norm, const void *x, int dtype, int64_t rows, int64_t width, int64_t threads) {
    double top = 0, top_norm = 0;
#pragma omp parallel for num_threads((int)threads) schedule(static) reduction(max : top, top_norm) if (threads > 1)
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0, most = 0;
        for (int64_t c = 0; c < width; c++) {
            const double y = fabs(dtype == MF_FLOAT32 ? (double)((const float *)x)[i * width + c] : ((const double *)x)[i * width + c]);
            sum += y * y;
            most = y > most ? y : most;
        }
        top = most > top ? most : top;
        top_norm = sum > top_norm ? sum : top_norm;
    }
    *largest = top;
    *norm = sqrt(top_norm);
}

/* The power of two for dout in float16; 1 in the wider types, and where dout is zero or not finite. */
static double dout_scale(const mf_attention_args *a, int64_t threads) {
    if (a->precision != MF_FP16) return 1;
    double largest, norm, ignored, v_norm;
    const int64_t rows = a->packing->total * a->heads;
    extent(&largest, &norm, a->dout, a->dtype, rows, a->dv, threads);
    extent(&ignored, &v_norm, a->v, a->dtype, rows, a->dv, threads);
    const double bound = fmax(largest, norm * v_norm / 2);
    if (!(bound > 0 && bound < 1e300)) return 1;
    int exponent;
    frexp(bound, &exponent);                                /* bound < 2^exponent */
    exponent = 15 - exponent;
    return ldexp(1, exponent > 100 ? 100 : exponent < -100 ? -100 : exponent);
}

/* A block of queries (by_rows) or keys against all of the other axis. */
static void grad_block(const mf_attention_args *a, const layout *w, const item *it, int by_rows, int what, double scale,
                    const void *delta, char *work) {
    const int64_t length = a->packing->offsets[it->sequence + 1] - a->packing->offsets[it->sequence];
    const int64_t row_step = even(length, ROWS), column_step = even(length, COLUMNS);
    const int64_t end = it->start + it->length;
    const int64_t i_first = by_rows ? it->start : 0, i_last = by_rows ? end : length;
    const int64_t j_first = by_rows ? 0 : it->start, j_last = by_rows ? length : end;
    for (int64_t j = j_first; j < j_last; j += column_step)
        for (int64_t i = i_first; i < i_last; i += row_step) {
            const int64_t rows = mf__min_i64(row_step, i_last - i), columns = mf__min_i64(column_step, j_last - j);
            if (a->dtype == MF_FLOAT32) {
                const view_f32 x = view_of_f32(a, it->sequence, it->head, delta);
                grad_tile_f32(a, w, &x, i, rows, j, columns, what, (float)scale, work);
            } else {
                const view_f64 x = view_of_f64(a, it->sequence, it->head, delta);
                grad_tile_f64(a, w, &x, i, rows, j, columns, what, scale, work);
            }
        }
}

/* Whether whole (sequence, head) items, five products a tile, beat blocks with seven. */
static int one_sweep(const mf_attention_args *a, int64_t threads) {
    const double largest = (double)a->packing->longest * (double)a->packing->longest;
    const double total = (double)a->packing->pairs * (double)a->heads;
    const double whole = (double)(3 * a->dqk + 2 * a->dv) * largest * ceil(total / largest / (double)threads);
    return whole <= (double)(4 * a->dqk + 3 * a->dv) * total / (double)threads;
}

static void sweep(const mf_attention_args *a, const layout *w, const items *all, int by_rows, int what, double scale,
                    const void *delta,
                  char *work, int64_t threads) {
#pragma omp parallel for num_threads((int)threads) schedule(dynamic) if (threads > 1)
    for (int64_t i = 0; i < all->count; i++) {
        const item it = item_at(all, i);
        if (it.length > 0) grad_block(a, w, &it, by_rows, what, scale, delta, work + omp_get_thread_num() * w->bytes);
    }
}

mf_status mf__cpu_attention_grad(mf_device *d, const mf_attention_args *a) {
    MF_TRY(mf__attention_check("attention", a));
    const int what = (a->dq ? WANT_Q : 0) | (a->dk ? WANT_K : 0) | (a->dv_ ? WANT_V : 0) | (a->dkey_bias ? WANT_BIAS : 0);
    if (a->packing->total == 0 || a->heads == 0 || !what) return MF_OK;
    const int64_t threads = mf__attention_threads(d, a), n = a->packing->count, rows = a->packing->total * a->heads;
    const int64_t real = a->dtype == MF_FLOAT64 ? 8 : 4;
    const layout w = lay_out(a, 1);
    void *block = NULL, *delta = NULL;
    char *work;
    mf_status status = MF_OK;
    items all = {.heads = a->heads, .packing = a->packing, .first = mf__host_alloc(d->ctx, (size_t)(n + 1) * sizeof(int64_t))};
    if (!all.first) return MF_ENOMEM;
    delta = mf__host_alloc(d->ctx, (size_t)(rows * real));
    if (!delta) { status = MF_ENOMEM; goto out; }
    MF_TRY_OUT(mf__workspaces(&block, &work, d, threads, w.bytes));

    const double scale = dout_scale(a, threads);
#pragma omp parallel for num_threads((int)threads) schedule(static) if (threads > 1)
    for (int64_t t = 0; t < threads; t++) {
        void *tile = work + t * w.bytes + w.at[AREA_DOUT];
        if (a->dtype == MF_FLOAT32) prepare_rows_f32(a, delta, rows * t / threads, rows * (t + 1) / threads, (float)scale, tile);
        else prepare_rows_f64(a, delta, rows * t / threads, rows * (t + 1) / threads, scale, tile);
    }
    if ((what & WANT_Q) && (what & ~WANT_Q) && one_sweep(a, threads)) {
        all.step = INT64_MAX / 2;
        count_items(&all);
        sweep(a, &w, &all, 0, what, scale, delta, work, threads);
    } else {
        /* blocks are whole tiles of the single sweep, so that both ways add the same tiles */
        all.step = ROWS;
        count_items(&all);
        if (what & ~WANT_Q) sweep(a, &w, &all, 0, what & ~WANT_Q, scale, delta, work, threads);
        if (what & WANT_Q) sweep(a, &w, &all, 1, WANT_Q, scale, delta, work, threads);
    }
out:
    free(block);
    free(delta);
    free(all.first);
    return status;
}
