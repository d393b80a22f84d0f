/* sanitize.c: the cases of sanitize.def on one device, forward and backward, beside the CPU. A host without Lua, for tools that
 * do not get along with a compiler in the process, as compute-sanitizer does not.
 *
 *     sanitize DEVICE [large] [I/N] [ROW ...]     every Nth case from the Ith on, or those of the rows named
 *
 * Prints a line for each result that is not the CPU's, then how many there were; exits with 1 if any, or if a row of the table has no
 * case. Inputs come contiguous, with gaps between their elements, and beginning one element after an aligned address.
 *
 * The comparison says that the kernels ran and meant the same, no more: agree_spec.lua knows how exact they have to be. Here a
 * result may be off by a fraction of its largest value that the worst sums of these cases leave far below. */
#include "../../core/moonfold.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_IN = 12, MOST_OUT = 4, MOST_SEQUENCES = 8 };
enum { PLAIN, GAPS, SHIFTED, VIEWS };

/* Element types of a case. HALF: float32 whose products round their operands to 16 bits; LARGE: the same, only when asked for. */
enum { SINGLE = 1 << MF_FLOAT32, REAL = SINGLE | 1 << MF_FLOAT64, ANY = REAL | 1 << MF_FLOAT16 | 1 << MF_BFLOAT16, ROUNDED = 1 << 16,
       HALF = SINGLE | ROUNDED, LARGE = HALF | 1 << 17 };

static mf_ctx *ctx;

static void stop(const char *what) {
    fprintf(stderr, "sanitize: %s: %s\n", what, mf_error_text());
    exit(1);
}
static void need(mf_status status, const char *what) {
    if (status != MF_OK) stop(what);
}
#define TRY(call) do { mf_status tried_ = (call); if (tried_ != MF_OK) return tried_; } while (0)

/* ---- calls that take more than a line ---- */

typedef const mf_tensor *const *inputs;

static mf_status turned(mf_tensor **y, const mf_tensor *x, const int *axes) {
    mf_tensor *view;
    TRY(mf_permute(&view, x, axes));
    mf_status status = mf_contiguous(y, view);
    mf_tensor_release(view);
    return status;
}

/* Until the case is over: backward takes the precision that it finds. */
static mf_status rounded_products(mf_tensor **y, inputs x, int precision) {
    TRY(mf_ctx_products(ctx, precision));
    return mf_matmul(y, x[0], x[1]);
}

/* Attention by kernels whose sums have a fixed order, backward too. */
static mf_status in_order(mf_tensor **y, inputs x, const mf_tensor *key_bias, const mf_packing *p, int precision) {
    mf_deterministic(ctx, 1);
    return mf_attention(y, x[0], x[1], x[2], key_bias, p, precision);
}

/* An index past the end must be an error, at the latest when the device is waited for, and nothing may be read there. */
static mf_status refused_index(const mf_tensor *x) {
    const int32_t past[3] = {0, (int32_t)mf_tensor_size(x, 0), -1};
    mf_tensor *here, *index = NULL, *y = NULL;
    TRY(mf_tensor_from(&here, ctx, MF_CPU, MF_INT32, 1, (int64_t[]){3}, past));
    mf_status status = mf_to_device(&index, here, mf_tensor_device(x));
    if (status == MF_OK) {
        status = mf_index_select(&y, x, 0, index);
        if (status == MF_OK) status = mf_synchronize(ctx, mf_tensor_device(x));
        if (status == MF_OK) {
            fprintf(stderr, "sanitize: an index past the end was taken\n");
            exit(1);
        }
        status = MF_OK;
    }
    mf_tensor_release(y);
    mf_tensor_release(index);
    mf_tensor_release(here);
    return status;
}

static mf_status neighbour_linear(mf_tensor **y, inputs x) {
    return mf_neighbour_linear(y, x[0], x[1], x[2], x[3], &(mf_neighbour_params){0.001, 20, 2056, 22, 32});
}

static mf_flash_ipa_inputs ipa_inputs(inputs x) {
    return (mf_flash_ipa_inputs){.q = x[0], .kv = x[1], .q_points = x[2], .kv_points = x[3], .head_weights = x[4], .R = x[5], .t = x[6],
                                 .pair_bias = x[7], .pair_value = x[8], .mask = x[9]};
}
static mf_status flash_ipa(mf_tensor **y, inputs x, const mf_packing *p, int heads, int precision, int split) {
    const mf_flash_ipa_inputs in = ipa_inputs(x);
    return mf_flash_ipa(y, &in, p, &(mf_flash_ipa_params){heads, MF_GAUGE_CANONICAL, precision, split, 0});
}
static mf_status flash_ipa_attend(mf_tensor **y, inputs x, const mf_packing *p, int heads, int precision) {
    const mf_flash_ipa_inputs in = ipa_inputs(x);
    return mf_flash_ipa_attend(y, y + 1, y + 2, &in, p, &(mf_flash_ipa_params){heads, MF_GAUGE_CENTRED, precision, 0, 0});
}

static mf_status empty_like(mf_tensor **y, const mf_tensor *x) {
    int64_t shape[MF_MAX_DIMS];
    for (int i = 0; i < mf_tensor_ndim(x); i++) shape[i] = mf_tensor_size(x, i);
    return mf_tensor_empty(y, ctx, mf_tensor_device(x), mf_tensor_dtype(x), mf_tensor_ndim(x), shape);
}
static mf_status copy_of(mf_tensor **y, const mf_tensor *x) {
    TRY(empty_like(y, x));
    return mf_tensor_copy(*y, x);
}

static mf_status in_place(mf_tensor **y, inputs x) {
    TRY(copy_of(y, x[0]));
    TRY(mf_tensor_axpy(*y, 0.5, x[1]));
    TRY(mf_tensor_scale(*y, -3));
    TRY(empty_like(y + 1, x[0]));
    return mf_tensor_fill(y[1], 7);
}

static mf_status draws(mf_tensor **y, const mf_tensor *sigma) {
    const int device = mf_tensor_device(sigma), dtype = mf_tensor_dtype(sigma);
    const int64_t n = mf_tensor_size(sigma, 0);
    mf_rng rng = {7, 0, 0};
    TRY(mf_tensor_empty(y, ctx, device, dtype, 1, (int64_t[]){1031}));
    TRY(mf_random_uniform(y[0], &rng, -1, 1));
    TRY(mf_random_normal(y[0], &rng, 0, 2));
    TRY(mf_random_truncated(y[0], &rng, 2));
    TRY(mf_tensor_empty(y + 1, ctx, device, dtype, 3, (int64_t[]){n, 3, 3}));
    TRY(mf_random_rotations(y[1], &rng));
    TRY(mf_tensor_empty(y + 2, ctx, device, dtype, 2, (int64_t[]){n, 3}));
    TRY(mf_random_igso3(y[2], &rng, sigma));
    TRY(mf_tensor_empty(y + 3, ctx, device, MF_INT32, 1, (int64_t[]){1031}));
    return mf_random_permutation(y[3], &rng);
}

/* Each sequence from a generator of its own; y[0] is normal, y[1] rotations, y[2] vectors. */
static mf_status draws_each(mf_tensor **y, const mf_tensor *sigma, const mf_tensor *streams, const mf_packing *p) {
    const int device = mf_tensor_device(sigma), dtype = mf_tensor_dtype(sigma);
    const int64_t n = mf_tensor_size(sigma, 0);
    const mf_rng rng = {7, 3, 5};
    TRY(mf_tensor_empty(y, ctx, device, dtype, 2, (int64_t[]){2 * n, 3}));
    TRY(mf_random_normal_each(y[0], &rng, streams, p));
    TRY(mf_tensor_empty(y + 1, ctx, device, dtype, 3, (int64_t[]){n, 3, 3}));
    TRY(mf_random_rotations_each(y[1], &rng, streams, p));
    TRY(mf_tensor_empty(y + 2, ctx, device, dtype, 2, (int64_t[]){n, 3}));
    return mf_random_igso3_each(y[2], &rng, streams, p, sigma);
}

/* Two parameters, two steps of AdamW with averages, one of SGD; the control tensor comes back too. */
static mf_status optimizers(mf_tensor **y, inputs x) {
    enum { TENSORS = 2, RATES = MF_CONTROL_RATE + 1 };
    double control[RATES] = {[MF_CONTROL_CLIP] = 1, [MF_CONTROL_RATE] = 0.1};
    mf_tensor *state[3][TENSORS] = {{NULL}}, *gradients[TENSORS], *here = NULL;
    mf_status status = mf_tensor_from(&here, ctx, MF_CPU, MF_FLOAT64, 1, (int64_t[]){RATES}, control);
    if (status == MF_OK) status = mf_to_device(y + 2, here, mf_tensor_device(x[0]));
    mf_tensor_release(here);
    for (int i = 0; i < TENSORS && status == MF_OK; i++) {
        gradients[i] = mf_tensor_retain((mf_tensor *)(uintptr_t)x[2 * i + 1]);   /* const is about what it holds */
        status = copy_of(y + i, x[2 * i]);
        for (int s = 0; s < 3 && status == MF_OK; s++) {
            status = empty_like(&state[s][i], x[2 * i]);
            if (status == MF_OK) status = mf_tensor_fill(state[s][i], 0);
        }
    }
    if (status == MF_OK) {
        const mf_optim_list list = {TENSORS, y, gradients, state[0], state[1], state[2], 0.9, 0};
        const mf_optim_list plain = {TENSORS, y, gradients, state[0], NULL, NULL, 0, 0};
        const mf_adam_params adam = {0, 0.9, 0.999, 1e-8, 0.01, 1, 0, 1};
        for (int step = 0; step < 2 && status == MF_OK; step++) {
            status = mf_optim_norm(y[2], gradients, TENSORS);
            if (status == MF_OK) status = mf_adam_many(y[2], &list, &adam);
        }
        if (status == MF_OK) status = mf_sgd_many(y[2], &plain, 0.9, 0.01);
        if (status == MF_OK) status = mf_ema_many(&list);
        if (status == MF_OK) status = copy_of(y + 3, state[2][1]);
    }
    for (int i = 0; i < TENSORS; i++) {
        mf_tensor_release(gradients[i]);
        for (int s = 0; s < 3; s++) mf_tensor_release(state[s][i]);
    }
    return status;
}

/* All that a packing has, as one int32 tensor. */
static mf_status packing_tensors(mf_tensor **y, const mf_tensor *x, const mf_packing *p) {
    mf_tensor *parts[MF_PACK_PAIR_OFFSET + 1] = {NULL};
    mf_status status = MF_OK;
    for (int what = 0; what <= MF_PACK_PAIR_OFFSET && status == MF_OK; what++)
        status = mf_packing_tensor(&parts[what], p, mf_tensor_device(x), what);
    if (status == MF_OK) status = mf_cat(y, (inputs)parts, MF_PACK_PAIR_OFFSET + 1, 0);
    for (int what = 0; what <= MF_PACK_PAIR_OFFSET; what++) mf_tensor_release(parts[what]);
    return status;
}

/* What the graph captures: y = segments of softmax(dropout(relu(x W' + b))); *between has it not yet summed. */
static mf_status step_of_graph(mf_tensor **y, mf_tensor **between, inputs x, const mf_packing *p) {
    mf_tensor *hidden, *dropped = NULL;
    TRY(mf_linear_act(&hidden, x[0], x[1], x[2], MF_ACTIVATION_RELU));
    mf_status status = mf_dropout(&dropped, hidden, 0.2, mf_ctx_rng(ctx));
    if (status == MF_OK) status = mf_softmax(between, dropped, 1);
    if (status == MF_OK) status = mf_segment_sum(y, *between, p);
    mf_tensor_release(hidden);
    mf_tensor_release(dropped);
    return status;
}

/* Run twice, or captured and replayed twice, which must draw the same numbers. */
static mf_status graph(mf_tensor **y, inputs x, const mf_packing *p) {
    const int device = mf_tensor_device(x[0]);
    mf_tensor *sums = NULL, *between = NULL;
    mf_graph *g = NULL;
    *mf_ctx_rng(ctx) = (mf_rng){3, 0, 0};
    mf_status status;
    if (device < MF_CUDA) {
        for (int i = 0; i < 2; i++) {
            mf_tensor_release(sums);
            mf_tensor_release(between);
            TRY(step_of_graph(&sums, &between, x, p));
        }
        status = MF_OK;
    } else {
        TRY(mf_packing_prepare(p, device));
        TRY(mf_graph_begin(&g, ctx, device, NULL));
        status = step_of_graph(&sums, &between, x, p);
        const mf_status ended = mf_graph_end(g, status == MF_OK);
        if (status == MF_OK) status = ended;
        for (int i = 0; i < 2 && status == MF_OK; i++) status = mf_graph_replay(g);
    }
    if (status == MF_OK) status = copy_of(y, sums);
    if (status == MF_OK) status = copy_of(y + 1, between);
    mf_tensor_release(sums);
    mf_tensor_release(between);
    mf_graph_release(g);
    return status;
}

/* ---- the cases: a function for each line of sanitize.def, and the table ---- */

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)

#define CASE(types, row, words, ...) \
    static mf_status PASTE(case_, __LINE__)(mf_tensor **y, inputs x, const mf_packing *p) { (void)y, (void)x, (void)p; return __VA_ARGS__; }
#include "sanitize.def"
#undef CASE

static const struct test_case {
    int types;
    const char *row, *words;
    mf_status (*call)(mf_tensor **y, inputs x, const mf_packing *p);
} cases[] = {
#define CASE(types, row, words, ...) {types, #row, words, PASTE(case_, __LINE__)},
#include "sanitize.def"
#undef CASE
};
enum { CASES = sizeof cases / sizeof *cases };

/* ---- inputs from words ---- */

typedef struct run {
    int device, dtype, view;
    int n_in;
    mf_packing *packing;
    mf_tensor *leaf[MOST_IN];      /* as uploaded, gaps and all */
    mf_tensor *in[MOST_IN];        /* the view of it that the call gets */
    mf_tensor *out[MOST_OUT];
} run;

typedef struct word {
    char kind;
    int ndim;
    int64_t shape[MF_MAX_DIMS], count;
    double factor;
    int64_t below;
} word;

static word read_word(const char *text) {
    word w = {.kind = *text++, .count = 1, .factor = 1};
    if (*text >= '0' && *text <= '9')
        do {
            char *end;
            w.shape[w.ndim] = strtoll(text, &end, 10);
            w.count *= w.shape[w.ndim++];
            text = end;
        } while (*text++ == 'x');
    if (text[-1] == '*') w.factor = strtod(text, NULL);
    if (text[-1] == '<') w.below = strtoll(text, NULL, 10);
    const int frame = w.kind == 'r', quaternion = w.kind == 'q';
    if (frame) w.shape[w.ndim++] = 3;
    if (frame || quaternion) w.shape[w.ndim++] = quaternion ? 4 : 3;
    w.count *= frame ? 9 : quaternion ? 4 : 1;
    return w;
}

static double normal(mf_rng *rng) {
    const double u = mf_random_number(rng), v = mf_random_number(rng);
    return sqrt(-2 * log(1 - u)) * cos(6.283185307179586 * v);
}

static void unit_quaternion(double *q, mf_rng *rng) {
    double square = 0;
    for (int i = 0; i < 4; i++) {
        q[i] = normal(rng);
        square += q[i] * q[i];
    }
    for (int i = 0; i < 4; i++) q[i] /= sqrt(square);
}

static void rotation(double *R, mf_rng *rng) {
    double q[4];
    unit_quaternion(q, rng);
    const double w = q[0], x = q[1], y = q[2], z = q[3];
    const double rows[9] = {1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
                            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)};
    memcpy(R, rows, sizeof rows);
}

static double number(char kind, int64_t i, int64_t below, mf_rng *rng) {
    switch (kind) {
    case 'p': case 'P': return fabs(normal(rng)) + 0.5;
    case 'u': return 0.8 * tanh(normal(rng));
    case 'h': return floor(normal(rng)) + 0.5 + 0.2 * tanh(normal(rng));
    case 'k': return i % 5 == 3 ? -INFINITY : normal(rng);
    case 'b': case 'm': return mf_random_number(rng) < 0.7;
    case 'i': case 'l': return floor(mf_random_number(rng) * (double)below);
    default: return normal(rng);
    }
}

/* The numbers of a word in float64; a case has the same ones on every device. */
static double *numbers_of(const word *w, mf_rng *rng) {
    double *x = malloc(sizeof *x * (size_t)(w->count + 1));
    if (!x) stop("no memory");
    if (w->kind == 'r') for (int64_t i = 0; i < w->count; i += 9) rotation(x + i, rng);
    else if (w->kind == 'q') for (int64_t i = 0; i < w->count; i += 4) unit_quaternion(x + i, rng);
    else for (int64_t i = 0; i < w->count; i++) x[i] = number(w->kind, i, w->below, rng) * w->factor;
    return x;
}

static void upload(run *r, const word *w, mf_rng *rng) {
    double *x = numbers_of(w, rng);
    const int view = w->ndim ? r->view : PLAIN, gaps = view == GAPS, i = r->n_in++;
    const int dtype = w->kind == 'i' ? MF_INT32 : w->kind == 'l' ? MF_INT64 : w->kind == 'b' ? MF_BOOL : r->dtype;
    const int64_t count = gaps ? 2 * w->count : view == SHIFTED ? w->count + 1 : w->count;
    double *all = malloc(sizeof *all * (size_t)(count + 1));
    if (!all) stop("no memory");
    for (int64_t k = 0; k < count; k++) all[k] = gaps ? (k % 2 ? 1 : x[k / 2]) : view == SHIFTED ? (k ? x[k - 1] : 1) : x[k];
    int64_t shape[MF_MAX_DIMS + 1];
    memcpy(shape, w->shape, sizeof w->shape);
    shape[w->ndim] = 2;
    mf_tensor *wide, *narrow, *line;
    if (view == SHIFTED) need(mf_tensor_from(&wide, ctx, MF_CPU, MF_FLOAT64, 1, &count, all), "an input");
    else need(mf_tensor_from(&wide, ctx, MF_CPU, MF_FLOAT64, w->ndim + gaps, shape, all), "an input");
    need(mf_cast(&narrow, wide, dtype), "an input");
    need(mf_to_device(&r->leaf[i], narrow, r->device), "an input");
    need(mf_tensor_require_grad(r->leaf[i], strchr("npuhqrk", w->kind) != NULL), "an input");
    if (gaps) need(mf_select(&r->in[i], r->leaf[i], -1, 0), "an input");
    else if (view == SHIFTED) {
        need(mf_narrow(&line, r->leaf[i], 0, 1, w->count), "an input");
        need(mf_reshape(&r->in[i], line, w->ndim, w->shape), "an input");
        mf_tensor_release(line);
    } else r->in[i] = mf_tensor_retain(r->leaf[i]);
    mf_tensor_release(wide);
    mf_tensor_release(narrow);
    free(all);
    free(x);
}

static void read_packing(run *r, const char *text) {
    int64_t lengths[MOST_SEQUENCES];
    int n = 0;
    for (char *end; *text && *text != ' '; text = *end == ',' ? end + 1 : end) lengths[n++] = strtoll(text, &end, 10);
    need(mf_packing_create(&r->packing, ctx, lengths, n), "a packing");
}

static void read_words(run *r, const char *text) {
    mf_rng rng = {11, 0, 0};
    while (*text) {
        if (*text == 's') read_packing(r, text + 1);
        else {
            const word w = read_word(text);
            upload(r, &w, &rng);
        }
        text += strcspn(text, " ");
        text += *text == ' ';
    }
}

/* ---- a run and what it gave ---- */

typedef struct values {
    double *x;
    int64_t n;
} values;

static int is_float(const mf_tensor *x) { return mf_tensor_dtype(x) <= MF_FLOAT16; }

static values values_of(const mf_tensor *x) {
    mf_tensor *here, *wide;
    need(mf_to_device(&here, x, MF_CPU), "a result");
    need(mf_cast(&wide, here, MF_FLOAT64), "a result");
    values v = {malloc(sizeof(double) * (size_t)(mf_tensor_count(x) + 1)), mf_tensor_count(x)};
    if (!v.x) stop("no memory");
    need(mf_tensor_read(v.x, (int64_t)sizeof(double) * v.n, wide), "a result");
    mf_tensor_release(here);
    mf_tensor_release(wide);
    return v;
}

/* Backward from one output, with a cotangent of normal numbers. */
static mf_status backward(const mf_tensor *y, int i) {
    mf_tensor *cotangent;
    mf_rng rng = {23, (uint64_t)i, 0};
    TRY(empty_like(&cotangent, y));
    mf_status status = mf_random_normal(cotangent, &rng, 0, 1);
    mf_walk *walk = NULL;
    if (status == MF_OK) status = mf_walk_begin(&walk, y, cotangent, 1);
    for (int64_t function = 0; status == MF_OK; ) {
        status = mf_walk_step(walk, &function);
        if (!function) break;
    }
    mf_walk_end(walk);
    mf_tensor_release(cotangent);
    return status;
}

enum { RESULTS = MOST_OUT + MOST_IN };

/* Outputs, then the gradients of inputs; absent ones have n = -1. */
static mf_status results_of(values *out, const struct test_case *c, run *r) {
    for (int i = 0; i < RESULTS; i++) out[i].n = -1;
    read_words(r, c->words);
    TRY(c->call(r->out, (inputs)r->in, r->packing));
    for (int i = 0; i < MOST_OUT && r->out[i]; i++) {
        out[i] = values_of(r->out[i]);
        if (is_float(r->out[i]) && mf_tensor_requires_grad(r->out[i])) TRY(backward(r->out[i], i));
    }
    for (int i = 0; i < r->n_in; i++) {
        mf_tensor *g = NULL;
        if (mf_tensor_requires_grad(r->leaf[i])) TRY(mf_tensor_grad(&g, r->leaf[i]));
        if (g) out[MOST_OUT + i] = values_of(g);
        mf_tensor_release(g);
    }
    return mf_synchronize(ctx, r->device);
}

static mf_status perform(values *out, const struct test_case *c, int device, int dtype, int view) {
    run r = {.device = device, .dtype = dtype, .view = view};
    mf_status status = results_of(out, c, &r);
    for (int i = 0; i < r.n_in; i++) {
        mf_tensor_release(r.in[i]);
        mf_tensor_release(r.leaf[i]);
    }
    for (int i = 0; i < MOST_OUT; i++) mf_tensor_release(r.out[i]);
    mf_packing_release(r.packing);
    need(mf_ctx_products(ctx, MF_EXACT), "products");
    mf_deterministic(ctx, 0);
    return status;
}

/* The largest difference over the largest value; infinite when only one of two is finite. */
static double difference(values a, values b) {
    double worst = 0, scale = 0;
    if (a.n != b.n) return INFINITY;
    for (int64_t i = 0; i < a.n; i++) {
        if (isfinite(b.x[i])) scale = fmax(scale, fabs(b.x[i]));
        if (a.x[i] == b.x[i] || (isnan(a.x[i]) && isnan(b.x[i]))) continue;
        const double d = fabs(a.x[i] - b.x[i]);
        worst = isnan(d) ? INFINITY : fmax(worst, d);
    }
    return worst == 0 ? 0 : worst / scale;
}

static double allowed(const struct test_case *c, int dtype) {
    if (c->types & ROUNDED) return 0x1p-6;
    return dtype == MF_FLOAT64 ? 0x1p-36 : dtype == MF_FLOAT32 ? 0x1p-14 : dtype == MF_FLOAT16 ? 0x1p-7 : 0x1p-4;
}

/* How many results of a case are not the CPU's. */
static int compare(const struct test_case *c, int device, int dtype, int view) {
    static const char *const how[VIEWS] = {"contiguous", "with gaps", "off alignment"};
    values mine[RESULTS], theirs[RESULTS];
    int wrong = 0;
    char text[512] = "";
    if (perform(theirs, c, MF_CPU, dtype, view) != MF_OK) stop(c->row);
    if (perform(mine, c, device, dtype, view) != MF_OK) snprintf(text, sizeof text, "%s", mf_error_text());
    if (*text) {
        printf("%s [%s], %s, %s: %s\n", c->row, c->words, mf_dtype_name(dtype), how[view], text);
        wrong++;
    }
    for (int i = 0; i < RESULTS; i++) {
        const double d = *text ? 0 : difference(mine[i], theirs[i]);
        if (!(d <= allowed(c, dtype))) {
            printf("%s [%s], %s, %s: %s %d is off by %.3g of the largest\n", c->row, c->words, mf_dtype_name(dtype), how[view],
                   i < MOST_OUT ? "output" : "gradient", i < MOST_OUT ? i + 1 : i - MOST_OUT + 1, d);
            wrong++;
        }
        if (mine[i].n >= 0) free(mine[i].x);
        if (theirs[i].n >= 0) free(theirs[i].x);
    }
    return wrong;
}

/* ---- the program ---- */

static int rows_without_a_case(void) {
    int missing = 0;
    for (int op = 0; op < mf_op_count(); op++) {
        int found = 0;
        for (int i = 0; i < CASES; i++) found |= strcmp(cases[i].row, mf_op_name(op)) == 0;
        if (!found) printf("%s: no case in sanitize.def\n", mf_op_name(op));
        missing += !found;
    }
    return missing;
}

int main(int argc, char **argv) {
    const char *device_name = argc > 1 ? argv[1] : "cuda:0";
    int device = MF_CPU, large = 0, first = 1, step = 1, named = 0, runs = 0, wrong = rows_without_a_case();
    if (strncmp(device_name, "cuda", 4) == 0) device = MF_CUDA + (device_name[4] == ':' ? atoi(device_name + 5) : 0);
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);       /* what was found is seen even if the tool ends us */
    need(mf_ctx_open(&ctx), "context");
    need(mf_synchronize(ctx, device), device_name);
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "large") == 0) large = 1;
        else if (sscanf(argv[i], "%d/%d", &first, &step) != 2 && !named) named = i;   /* rows come last */
    }
    for (int i = 0; i < CASES; i++) {
        const struct test_case *c = &cases[i];
        int asked = !named && i % step == first - 1;
        for (int k = named; named && k < argc; k++) asked |= strcmp(argv[k], c->row) == 0;
        const int is_large = (c->types & LARGE) == LARGE;
        if (!asked || (is_large && !large)) continue;
        for (int dtype = 0; dtype <= MF_FLOAT16; dtype++) {
            if (!(c->types & 1 << dtype)) continue;
            const int views = dtype == MF_FLOAT32 && !is_large ? VIEWS : PLAIN + 1;
            for (int view = PLAIN; view < views; view++, runs++) wrong += compare(c, device, dtype, view);
        }
    }
    mf_ctx_release(ctx);
    printf("sanitize: %d runs on %s, %d wrong\n", runs, device_name, wrong);
    return wrong != 0;
}
