/* kernels.h: the table that a backend fills: memory, then one entry per kernel family.
 *
 * Kernels see raw pointers, sizes and element types; operators have checked shapes before. Every array is
 * contiguous unless it comes in an mf_iter. Gradients are written with '=', never '+=', unless it is said.
 * A kernel that lacks a type or size returns MF_ESUPPORT with a text; sizes may be 0. Every entry of `cpu` is
 * complete for float32 and float64 and is the oracle; `null` has every entry and does nothing; the sum order
 * of `cpu` does not depend on anything but the sizes and the thread count.
 *
 * "real" below means float32 or float64, the same for every real array of one call. */
#ifndef MF_OPS_KERNELS_H
#define MF_OPS_KERNELS_H
#include "../base/context.h"

/* Elementwise iteration: shape with merged axes, last axis innermost; operand 0 is written. Stride 0 repeats. */
enum { MF__MAX_OPERANDS = 4 };
typedef struct mf_operand {
    void *data;
    int dtype;
    int64_t stride[MF_MAX_DIMS];  /* elements */
} mf_operand;
typedef struct mf_iter {
    int ndim, n_operands;
    int64_t shape[MF_MAX_DIMS];
    mf_operand operand[MF__MAX_OPERANDS];
} mf_iter;

/*       name         f(x)                 df/dx, from x or y      kept */
#define MF_UNARY_LIST(X) \
    X(affine,      p0 * x + p1,            p0,                     none) \
    X(pow_scalar,  pow(x, p0),             p0 * pow(x, p0 - 1),    x)    \
    X(clamp,       min(max(x, p0), p1),    p0 <= x && x <= p1,     x)    \
    X(neg,         -x,                     -1,                     none) \
    X(abs,         fabs(x),                sign(x),                x)    \
    X(sign,        sign(x),                0,                      none) \
    X(floor,       floor(x),               0,                      none) \
    X(exp,         exp(x),                 y,                      y)    \
    X(log,         log(x),                 1 / x,                  x)    \
    X(sqrt,        sqrt(x),                0.5 / y,                y)    \
    X(rsqrt,       1 / sqrt(x),            -0.5 * y * y * y,       y)    \
    X(square,      x * x,                  2 * x,                  x)    \
    X(reciprocal,  1 / x,                  -y * y,                 y)    \
    X(sin,         sin(x),                 cos(x),                 x)    \
    X(cos,         cos(x),                 -sin(x),                x)    \
    X(acos,        acos(x),                -1 / sqrt(1 - x * x),   x)    \
    X(tanh,        tanh(x),                1 - y * y,              y)    \
    X(sigmoid,     1 / (1 + exp(-x)),      y * (1 - y),            y)    \
    X(relu,        max(x, 0),              y > 0,                  y)    \
    X(gelu,        x * Phi(x),             Phi(x) + x * phi(x),    x)    \
    X(silu,        x * sigmoid(x),         s * (1 + x * (1 - s)),  x)    \
    X(softplus,    log(1 + exp(x)),        sigmoid(x),             x)
#define MF__UNARY_ENUM(name, f, df, kept) MF_UNARY_##name,
enum { MF_UNARY_LIST(MF__UNARY_ENUM) MF_UNARY_COUNT };

enum { MF_BINARY_add, MF_BINARY_sub, MF_BINARY_mul, MF_BINARY_div, MF_BINARY_pow, MF_BINARY_atan2, MF_BINARY_maximum,
       MF_BINARY_minimum, MF_BINARY_equal, MF_BINARY_less, MF_BINARY_less_equal, MF_BINARY_logical_and, MF_BINARY_logical_or };
enum { MF_REDUCE_sum, MF_REDUCE_max, MF_REDUCE_min, MF_REDUCE_argmax, MF_REDUCE_argmin, MF_REDUCE_mean };
enum { MF_RANDOM_UNIFORM, MF_RANDOM_NORMAL, MF_RANDOM_TRUNCATED };

/* C = activation(alpha op(A) op(B) + beta C (+ bias over rows)), batched. Row-major; op transposes the last two axes. */
typedef struct mf_gemm {
    int dtype, transpose_a, transpose_b, precision;
    int64_t m, n, k, batch;
    int64_t lda, ldb, ldc, stride_a, stride_b, stride_c;  /* elements; batch strides may be 0 for A and B */
    double alpha, beta;
    const void *a, *b, *bias;     /* bias (n) or NULL */
    void *c;
    int activation;               /* MF_ACTIVATION_* */
} mf_gemm;

/* Packed attention. q, k (N, H, dqk), v (N, H, dv), key_bias (N, H) float or NULL; out (N, H, dv), lse (N, H).
 * The softmax and every sum are in the real type; operands of the products are rounded to `precision` first.
 * A query with no key (all -inf) gets zeros and lse = -inf. */
typedef struct mf_attention_args {
    int dtype, precision;
    int64_t heads, dqk, dv;
    const mf_packing *packing;
    const void *q, *k, *v, *key_bias;
    void *out, *lse;
    const void *dout;                           /* backward from here: all outputs written with '=' */
    void *dq, *dk, *dv_, *dkey_bias;            /* any may be NULL */
    /* dense pairs (pair_attention only): pair_bias (P, H) or NULL, pair_value (P, dz) or NULL, pair_out (N, H, dz) */
    int64_t dz;
    const void *pair_bias, *pair_value, *dpair_out;
    const void *pair_out_in;                    /* pair_out again, for backward */
    void *pair_out, *dpair_bias, *dpair_value;
    /* operands that are 16 bits already (`cuda` only; attention, not pair_attention): */
    int operand;                  /* 0: q, k, v have `dtype`; else MF_FLOAT16 or MF_BFLOAT16, and `precision` says the same */
    int64_t ldq, ldv;             /* then row i, head h of q and k begins at element (i H + h) ldq, a multiple of 8, of v at */
                                  /* (i H + h) ldv, of 16 and > dv; zeros from dqk up to ldq; column dv of v holds ones, where the */
                                  /* weights' sum comes out, those after it finite numbers; gradients as above, in `dtype` float32 */
    const void *delta, *dout_scale; /* NULL, or: dout too has 16 bits, in rows of ldv that end in zeros, times *dout_scale (float, a power */
                                  /* of two); delta (N, H) float is the sum of dout out over a row, of that dout */
} mf_attention_args;

/* Row-wise geometry: one small function per residue; widths in elements of each operand, in order.
 * GRAD kinds take the inputs, then the cotangents, and write the input gradients. */
enum {
    MF_ROW_QUAT_TO_ROT,           /* q 4 -> R 9 */
    MF_ROW_QUAT_TO_ROT_GRAD,      /* q 4, dR 9 -> dq 4 */
    MF_ROW_ROT_TO_QUAT,           /* R 9 -> q 4 */
    MF_ROW_ROT_TO_QUAT_GRAD,      /* R 9, q 4, dq 4 -> dR 9 (derivative of the eigenvector) */
    MF_ROW_QUAT_MULTIPLY,         /* p 4, q 4 -> 4 */
    MF_ROW_QUAT_MULTIPLY_GRAD,    /* p, q, dr -> dp 4, dq 4 */
    MF_ROW_SO3_EXP,               /* v 3 -> R 9 */
    MF_ROW_SO3_EXP_GRAD,          /* v 3, dR 9 -> dv 3 */
    MF_ROW_SO3_LOG,               /* R 9 -> v 3 */
    MF_ROW_SO3_LOG_GRAD,          /* R 9, dv 3 -> dR 9: the tangent one, R hat(g) / 2 */
    MF_ROW_FRAME,                 /* x_axis 3, xy 3, origin 3 -> R 9 */
    MF_ROW_FRAME_GRAD,            /* x_axis, xy, origin, dR 9 -> d x_axis 3, d xy 3, d origin 3 */
    MF_ROW_UPDATE,                /* q 4, t 3, u 6, mask 1 -> q' 4, t' 3 */
    MF_ROW_UPDATE_GRAD,           /* q, t, u, mask, dq' 4, dt' 3 -> dq 4, dt 3, du 6 */
    MF_ROW_DIHEDRAL,              /* points 12 -> (sin, cos) 2 */
    MF_ROW_DIHEDRAL_GRAD,         /* points 12, d 2 -> d points 12 */
    MF_ROW_NEAREST_ROTATION       /* R 9 -> R 9 */
};

/* What stands before and after `attention` in invariant point attention: ipa/flash_ipa.c has the equations. Points and frames of one
 * residue: (3, heads P) with the coordinate outermost; R then t, 12 numbers. Widths of a head: dqk = c + 3 P + r, with 9 P for 3 P
 * where points are split and 3 r for r where the pair bias is in halves; dv = c + 3 Pv (split: 6 Pv) + r dz. */
typedef struct mf_ipa_args {
    int dtype;                    /* real; of everything but what `operand` says and the mask */
    int operand;                  /* of the lifted q, k, v: 0 `dtype`, else MF_FLOAT16 or MF_BFLOAT16, as in mf_attention_args */
    int halves, split;            /* the pair bias, the points as hi + lo: 0, or what hi is rounded to, MF_FP16 or MF_BF16 */
    int64_t heads, hidden, query_points, value_points, rank, dz; /* H, c, P, Pv, r, dz; r = 0: no pairs */
    int64_t dqk, dv, ldq, ldv;    /* widths and rows of the lifted, v with its column of ones; ld = d where operand is 0 */
    double scale;                 /* of q . k */
    const mf_packing *packing;
    /* lift */
    const void *q, *kv;           /* (N, H c), (N, H, k c | v c) */
    const void *q_points, *kv_points, *pair_bias, *pair_value;   /* ..., (N, 2, r, H), (N, 2, r, dz) */
    const void *head_weights, *R, *t;
    const unsigned char *mask;    /* (N) or NULL; 0: no key */
    const void *gauge_R, *gauge_t;/* (n, 3, 3), (n, 3): of each sequence; NULL: identity, zero */
    void *frames;                 /* (N, 12) in the gauge: lift writes, all others read */
    void *q_lifted, *k_lifted, *v_lifted;
    void *key_bias;               /* (N, H) */
    void *v_square;               /* (N, H) float with `operand`, or NULL: squared norms of v's rows; lift writes, readout_grad reads */
    /* readout */
    const void *attended;         /* (N, H, dv) */
    void *features;               /* (N, H c | H Pv x | y | z | H Pv norms | H dz) */
    /* readout_grad; reads frames, attended and pair_value too */
    const void *dfeatures;
    void *dattended;              /* (N, H, dv); with `operand` as dout of mf_attention_args has it there, 16 bits, scaled for float16, */
    void *delta, *dout_scale;     /* with these */
    void *dframes;                /* (N, 12), what readout gives; lift_grad adds its own */
    /* lift_grad; reads q_points, kv_points, head_weights, frames, gauge_R and dframes too; any result may be NULL */
    const void *dq_lifted, *dk_lifted, *dv_lifted, *dkey_bias;   /* (N, H, dqk), (N, H, dqk), (N, H, dv), (N, H) of `dtype` */
    void *dq, *dkv, *dq_points, *dkv_points, *dpair_bias, *dhead_weights, *dR, *dt;
    void *dpair_value;            /* (N, 2, r, dz): readout_grad writes the first half of each row, lift_grad the second */
} mf_ipa_args;

/* Pairs of columns l, dim / 2 + l turned by angles that grow with the residue's index (geometry/rotary.c); dtype real. */
typedef struct mf_rotary_args {
    int dtype, inverse;           /* inverse: by the opposite angles */
    int64_t n, heads, width, dim;
    double max_len;
    const int32_t *index;         /* (n) */
    const void *x;                /* (n, heads, width) */
    void *y;                      /* like x, apart from it */
} mf_rotary_args;

typedef struct mf_pair_loss_args {
    int dtype;
    int64_t atoms;                /* A */
    double cutoff;                /* angstrom on the true distance; 0: none */
    const mf_packing *packing;
    const void *predicted, *truth;/* (N, A, 3) */
    const unsigned char *mask;    /* (N, A) bool */
    void *sum, *pairs;            /* (n) each, real */
    const void *dsum;             /* (n), backward: d predicted (N, A, 3) = */
    void *dpredicted;
} mf_pair_loss_args;

/* Sums over neighbours by the bin of their distance (geometry/features.h); dtype real, distances float32 or float64. */
typedef struct mf_bins_args {
    int dtype, distance_dtype;
    int64_t n, k, width, bins;
    double lo, hi;
    const void *distance;         /* (n, k) */
    const void *table, *bias;     /* (k, bins, width), (width) or NULL */
    void *y;                      /* (n, width) = bias + sum over j of table[j, bin of distance (i, j)] */
    const void *dy;
    void *dtable;                 /* (k, bins, width) = for each slot and bin the sum of dy over its rows */
} mf_bins_args;

/* Layer norm of a + mask b (cpu/norm.c); dtype real. */
typedef struct mf_add_norm_args {
    int dtype;
    int64_t rows, columns;
    double epsilon;
    const void *a, *b, *mask;     /* (rows, columns); b NULL: 0; mask (rows) or NULL: 1 */
    const void *weight, *bias;    /* (columns) or NULL: 1 and 0 */
    void *y, *mean, *rstd;        /* (rows, columns), (rows) twice; backward reads mean and rstd */
    const void *dy;               /* backward from here */
    void *da, *db;                /* gradients of a and b; either may be NULL, db without a mask is da */
    void *dweight, *dbias;        /* both or neither */
} mf_add_norm_args;

/* Draws of a packing, each sequence from a generator of its own: element i of sequence s takes position rng.counter + i of
 * (rng.seed, rng.stream + streams[s]). */
enum { MF_EACH_NORMAL, MF_EACH_ROTATIONS, MF_EACH_IGSO3 };
typedef struct mf_random_each_args {
    int kind, dtype;
    mf_rng rng;
    const mf_packing *packing;
    const int64_t *streams;       /* on the device */
    int64_t per_residue;          /* elements: numbers, rotations or vectors */
    void *x;
    const void *sigma;            /* MF_EACH_IGSO3: one an element, or one for all */
    int64_t n_sigma;
} mf_random_each_args;

/* One tensor of an optimizer's list, contiguous; what a kernel does not need is NULL. */
typedef struct mf_optim_item {
    int dtype;                    /* real */
    int64_t n;
    void *p, *m, *v, *average;
    const void *g;
} mf_optim_item;

struct mf_backend {
    const char *name;
    mf_status (*open)(mf_device *d);
    void (*close)(mf_device *d);
    mf_status (*alloc)(mf_device *d, void **data, int64_t bytes);           /* 64-byte aligned */
    void (*release)(mf_device *d, void *data, int64_t bytes);
    mf_status (*upload)(mf_device *d, void *to, const void *host, int64_t bytes);
    mf_status (*download)(mf_device *d, void *host, const void *from, int64_t bytes);
    mf_status (*synchronize)(mf_device *d);

    /* elementwise */
    mf_status (*copy)(mf_device *d, const mf_iter *it);                     /* casts; all types to all types */
    mf_status (*fill)(mf_device *d, const mf_iter *it, double value);
    mf_status (*axpy)(mf_device *d, const mf_iter *it, double a, double b); /* x = a x + b y; operands x, y */
    mf_status (*unary)(mf_device *d, const mf_iter *it, int op, double p0, double p1);
    mf_status (*unary_grad)(mf_device *d, const mf_iter *it, int op, double p0, double p1); /* dx; dy; x or y as the list says */
    mf_status (*binary)(mf_device *d, const mf_iter *it, int op);           /* inputs of one type; comparisons write bool */
    mf_status (*where)(mf_device *d, const mf_iter *it);                    /* out; bool; a; b */
    mf_status (*logical_not)(mf_device *d, const mf_iter *it);
    mf_status (*round_to)(mf_device *d, const mf_iter *it, int precision);
    mf_status (*dropout)(mf_device *d, int dtype, int64_t n, const void *x, void *y, double rate, mf_rng rng); /* element i uses draw i */

    /* reductions over the middle of (outer, middle, inner) */
    mf_status (*reduce)(mf_device *d, int op, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y);
        /* sum keeps the type (bool and ints give int64); max, min keep it; arg* give int32; mean: floating types, middle > 0 */
    mf_status (*cumsum)(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y, int reverse);
    mf_status (*logsumexp)(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y);
    mf_status (*softmax)(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y, int logarithm);
    mf_status (*softmax_grad)(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *y, const void *dy, void *dx, int logarithm);
    mf_status (*sort)(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, int64_t k, const void *x, void *values, int32_t *index, int descending);
        /* the first k of the stable order */
    mf_status (*segment_sum)(mf_device *d, int dtype, const mf_packing *packing, int64_t inner, const void *x, void *y);
    mf_status (*segment_expand)(mf_device *d, int64_t row_bytes, const mf_packing *packing, const void *x, void *y);

    /* products, normalisation */
    mf_status (*gemm)(mf_device *d, const mf_gemm *g);
    mf_status (*layer_norm)(mf_device *d, int dtype, int64_t rows, int64_t columns, const void *x, const void *weight, const void *bias,
                            double epsilon, void *y, void *mean, void *rstd);
    mf_status (*layer_norm_grad)(mf_device *d, int dtype, int64_t rows, int64_t columns, const void *dy, const void *x, const void *weight,
                                 const void *mean, const void *rstd, void *dx, void *dweight, void *dbias); /* dx, or dweight and dbias, may be NULL */

    /* indexing; x is (outer, size, inner); out of range: MF_EVALUE naming the index and the size */
    mf_status (*index_select)(mf_device *d, int64_t element_bytes, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index, const void *x, void *y);
    mf_status (*index_add)(mf_device *d, int dtype, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index, const void *source, void *y); /* y += */
    mf_status (*gather)(mf_device *d, int64_t element_bytes, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index, const void *x, void *y);
    mf_status (*scatter_add)(mf_device *d, int dtype, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index, const void *source, void *y); /* y += */

    /* random numbers */
    mf_status (*random)(mf_device *d, int kind, int dtype, int64_t n, void *x, mf_rng rng, double p0, double p1);
    mf_status (*random_rotations)(mf_device *d, int dtype, int64_t n, void *R, mf_rng rng);
    mf_status (*random_igso3)(mf_device *d, int dtype, int64_t n, void *v, mf_rng rng, const void *sigma, int64_t n_sigma);
    mf_status (*random_each)(mf_device *d, const mf_random_each_args *a);   /* NULL: called for one sequence after the other */
    mf_status (*random_permutation)(mf_device *d, int dtype, int64_t n, void *x, mf_rng rng);

    /* attention */
    mf_status (*attention)(mf_device *d, const mf_attention_args *a);
    mf_status (*attention_grad)(mf_device *d, const mf_attention_args *a);
    mf_status (*pair_attention)(mf_device *d, const mf_attention_args *a);
    mf_status (*pair_attention_grad)(mf_device *d, const mf_attention_args *a);

    /* geometry */
    mf_status (*rowwise)(mf_device *d, int kind, int dtype, int64_t rows, const void *const *in, void *const *out); /* an out may be NULL */
    mf_status (*frames_apply)(mf_device *d, int dtype, int64_t n, int64_t points, int inverse, const void *R, const void *t, const void *x, void *y);
    mf_status (*frames_apply_grad)(mf_device *d, int dtype, int64_t n, int64_t points, int inverse, const void *R, const void *t, const void *x, const void *dy, void *dR, void *dt, void *dx);
    mf_status (*frames_gauge)(mf_device *d, int dtype, const mf_packing *packing, const void *R, const void *t, const void *mask, void *gauge_R, void *gauge_t);
    mf_status (*kabsch)(mf_device *d, int dtype, const mf_packing *packing, const void *moving, const void *fixed, const void *weight, void *R, void *t, void *rmsd);
    mf_status (*kabsch_pairs)(mf_device *d, int dtype, const mf_packing *packing, int64_t n, const int32_t *pairs, const void *moving, const void *fixed, const void *weight, void *R, void *distance);
        /* pairs (n, 2); a pair out of range or of sequences of two lengths: MF_EVALUE */
    mf_status (*neighbours)(mf_device *d, int dtype, const mf_packing *packing, int64_t k, const void *x, const void *mask, int32_t *index, void *distance);
    mf_status (*distogram)(mf_device *d, int dtype, int64_t n, const void *distance, double lo, double hi, int64_t bins, void *y);
    mf_status (*index_embedding)(mf_device *d, int64_t n, const int32_t *index, int64_t width, double max_len, float *y);
    mf_status (*rotary)(mf_device *d, const mf_rotary_args *a);
    mf_status (*pair_loss)(mf_device *d, const mf_pair_loss_args *a);
    mf_status (*pair_loss_grad)(mf_device *d, const mf_pair_loss_args *a);

    /* optimizers, contiguous, in place */
    mf_status (*adam)(mf_device *d, int dtype, int64_t n, void *p, void *m, void *v, const void *g, const mf_adam_params *params);
    mf_status (*sgd)(mf_device *d, int dtype, int64_t n, void *p, void *velocity, const void *g, double lr, double momentum, double weight_decay);
    mf_status (*sum_squares)(mf_device *d, int dtype, int64_t n, const void *x, double *out);   /* adds to *out, on the host */

    mf_status (*packing_tensor)(mf_device *d, const mf_packing *packing, int what, int32_t *out); /* MF_PACK_*, not the offsets; NULL: the host makes them */

    /* memory and capture; NULL where a backend has no such thing */
    void (*flush)(mf_device *d);                                            /* gives cached blocks back */
    mf_status (*capture_begin)(mf_device *d, void **graph);                 /* from here launches are recorded, not run; *graph: NULL, or one whose memory is shared */
    mf_status (*capture_end)(mf_device *d, int keep);                       /* ready to replay, or (not keep) forgotten */
    mf_status (*capture_draw)(mf_device *d, mf_rng rng);                    /* this generator is drawn from: its replays advance */
    mf_status (*graph_replay)(mf_device *d, void *graph, const uint64_t *advance); /* advance of each generator, in order of capture_draw */
    void (*graph_release)(mf_device *d, void *graph);
    mf_status (*profile_begin)(mf_device *d);
    mf_status (*profile_end)(mf_device *d, mf_profile_row *rows, int64_t most, int64_t *count); /* by time, largest first */

    /* linear layers: dbias (columns) = sums over the rows of dz, or NULL. dz = dy where y > 0, else 0; without y, dz is dy and not written.
     * dy has rows `ld` apart; y and dz are contiguous */
    mf_status (*bias_grad)(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t ld, const void *dy, const void *y, void *dz, void *dbias);

    /* invariant point attention around `attention` */
    int stores_16_bits;           /* 1: attention takes 16-bit operands, so lift makes them */
    mf_status (*lift)(mf_device *d, const mf_ipa_args *a);
    mf_status (*lift_grad)(mf_device *d, const mf_ipa_args *a);
    mf_status (*readout)(mf_device *d, const mf_ipa_args *a);
    mf_status (*readout_grad)(mf_device *d, const mf_ipa_args *a);

    /* features of neighbours */
    mf_status (*bins_gather)(mf_device *d, const mf_bins_args *a);
    mf_status (*bins_scatter)(mf_device *d, const mf_bins_args *a);

    /* normalisation and losses in one pass */
    mf_status (*add_layer_norm)(mf_device *d, const mf_add_norm_args *a);
    mf_status (*add_layer_norm_grad)(mf_device *d, const mf_add_norm_args *a);
    mf_status (*squared_error)(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t groups, const void *a, const void *b, const void *weight, void *y);
        /* weight (rows, groups), a number for each of the equal parts of a row, or NULL; da or db may be NULL */
    mf_status (*squared_error_grad)(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t groups, const void *a, const void *b, const void *weight, const void *dy, void *da, void *db);
    mf_status (*cross_entropy)(mf_device *d, int dtype, int64_t rows, int64_t columns, int index_dtype, const void *target, const void *x, void *y, void *lse);
        /* a target out of range: MF_EVALUE naming it and the size */
    mf_status (*cross_entropy_grad)(mf_device *d, int dtype, int64_t rows, int64_t columns, int index_dtype, const void *target, const void *x, const void *lse, const void *dy, void *dx);

    /* optimizers over many tensors (moonfold.h); control lives on the device */
    mf_status (*optim_norm)(mf_device *d, double *control, const mf_optim_item *items, int64_t count);
    mf_status (*adam_many)(mf_device *d, const double *control, int group, const mf_optim_item *items, int64_t count, const mf_adam_params *params, double decay);
    mf_status (*sgd_many)(mf_device *d, const double *control, int group, const mf_optim_item *items, int64_t count, double momentum, double weight_decay, double decay);
    mf_status (*ema_many)(mf_device *d, const mf_optim_item *items, int64_t count, double decay);
};

extern const mf_backend mf__cpu_backend;    /* core/cpu/backend.c */
extern const mf_backend mf__null_backend;   /* core/null/backend.c */
#endif
