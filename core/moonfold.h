/* moonfold.h: the whole public C API of libmoonfold, an SE(3) modeling toolkit.
 *
 * The LuaJIT binding reads this very file: after dropping lines that start with '#', what remains is
 * comments, enums, opaque types, plain structs and prototypes. Nothing else may be written here.
 *
 *     mf_ctx *ctx;  mf_tensor *x, *w, *y;
 *     mf_ctx_open(&ctx);
 *     mf_tensor_empty(&x, ctx, MF_CPU, MF_FLOAT32, 2, (int64_t[]){128, 256});
 *     ...
 *     if (mf_matmul(&y, x, w) != MF_OK) fprintf(stderr, "%s\n", mf_error_text());
 *     mf_tensor_release(y);
 *
 * Conventions
 *   Status    functions return MF_OK or a negative code; the text waits in mf_error_text(), one line, per thread
 *   Results   leave through `out` parameters, which come first; *out is NULL on every failure
 *   Owning    a pointer-to-pointer out is yours: release it. A returned pointer is borrowed
 *   Axes      from 0; negative counts from the end. Error texts count axes from 1
 *   Shapes    row-major, strides count elements; at most MF_MAX_DIMS axes
 *   Packing   a batch is ONE residue axis; an mf_packing says where each sequence begins (no padding)
 *   Gradients operators record themselves when an input requires a gradient; const covers shape and
 *             contents, the reference count is outside it
 */
#ifndef MOONFOLD_H
#define MOONFOLD_H
#include <stddef.h>
#include <stdint.h>
#pragma GCC visibility push(default)

typedef int mf_status;
enum {
    MF_OK = 0,
    MF_ESHAPE = -1,    /* shapes do not fit */
    MF_EDTYPE = -2,    /* element types do not fit */
    MF_EDEVICE = -3,   /* tensors live on different devices, or the device is absent */
    MF_EVALUE = -4,    /* a parameter is out of range */
    MF_ENOMEM = -5,    /* an allocation failed; nothing was changed */
    MF_EIO = -6,       /* the operating system refused a file */
    MF_EFORMAT = -7,   /* a file is not what it says it is */
    MF_ESUPPORT = -8,  /* the backend has no kernel for this */
    MF_ESTATE = -9     /* the object is not in a state that allows this */
};

enum { MF_FLOAT32, MF_FLOAT64, MF_BFLOAT16, MF_FLOAT16, MF_INT32, MF_INT64, MF_BOOL, MF_DTYPE_COUNT };
enum { MF_CPU = 0, MF_NULL = 256, MF_CUDA = 512 };            /* a device is kind + index: MF_CUDA + 1 */
enum { MF_MAX_DIMS = 8 };
enum { MF_EXACT, MF_FP16, MF_BF16, MF_TF32 };                 /* what matrix products round their operands to */
enum { MF_ACTIVATION_NONE, MF_ACTIVATION_RELU };              /* what mf_linear_act applies to its result */

typedef struct mf_ctx mf_ctx;             /* devices, limits, the record of operations */
typedef struct mf_tensor mf_tensor;       /* a strided view of a storage, reference counted */
typedef struct mf_packing mf_packing;     /* lengths and offsets of packed sequences, immutable */
typedef struct mf_walk mf_walk;           /* a backward pass under way */
typedef struct mf_archive mf_archive;     /* an open safetensors file, memory mapped */
typedef struct mf_archive_stream mf_archive_stream; /* a safetensors file being written */
typedef struct mf_process mf_process;     /* a child process */
typedef struct mf_row_reader mf_row_reader; /* reads rows of an archive ahead of time */
typedef struct mf_zip mf_zip;             /* an open ZIP archive, memory mapped */
typedef struct mf_pickle mf_pickle;       /* what a pickle holds, as inert values */
typedef struct mf_structure mf_structure; /* models, chains, residues and atoms of one structure */

/* ---- errors and library ---- */
const char *mf_error_text(void);                              /* the last failure of this thread, one line */
const char *mf_version(void);
const char *mf_status_name(mf_status status);
const char *mf_dtype_name(int dtype);
int64_t mf_dtype_bytes(int dtype);
double mf_clock(void);                                        /* seconds since an arbitrary moment, never going back */
int mf_is_terminal(int file);                                 /* whether a file descriptor is one */

/* ---- child processes ---- */
/* A child reads and writes pipes of ours, has a process group of its own (a terminal's Ctrl-C does not reach it) and dies with the thread
 * that started it. `arguments` begin with the program, found on the PATH; `environment` ("NAME=value") is set over ours. Both end
 * with NULL. A program that cannot be run is MF_EIO here. Release kills what still runs. */
mf_status mf_process_start(mf_process **out, const char *const *arguments, const char *const *environment);
void mf_process_release(mf_process *process);
mf_status mf_process_write(mf_process *process, const void *data, int64_t bytes);   /* waits until all is taken; its output is kept meanwhile */
void mf_process_close_input(mf_process *process);
mf_status mf_process_line(const char **line, int64_t *bytes, mf_process *process);  /* never waits: *line NULL when none is whole; until the next call */
int mf_process_ended(mf_process *process);                    /* no line will come any more */
mf_status mf_process_poll(int64_t *ready, mf_process *const *list, int64_t count, double seconds); /* the first with a line or at its end; -1: time is up */
int64_t mf_process_errors(char *text, int64_t bytes, mf_process *process);          /* the last it wrote to stderr, 4096 bytes at the most; returns how many */
void mf_process_kill(mf_process *process, int signal);
mf_status mf_process_wait(int *code, int *signal, mf_process *process);             /* closes its input; signal 0: it ended by itself */

/* ---- context ---- */
mf_status mf_ctx_open(mf_ctx **out);
void mf_ctx_release(mf_ctx *ctx);                             /* legal before its tensors go: it lives until the last */
mf_status mf_ctx_threads(mf_ctx *ctx, int threads);           /* CPU threads, 0 for all cores */
int mf_ctx_thread_count(const mf_ctx *ctx);
int mf_cuda_count(void);                                      /* GPUs that can be used; 0: mf_error_text() says why */
mf_status mf_device_hardware(const char **out, mf_ctx *ctx, int device); /* "NVIDIA H100 80GB HBM3"; lives as long as ctx */
mf_status mf_synchronize(mf_ctx *ctx, int device);            /* waits until a device has done its work; raises what it found to be wrong */
int mf_deterministic(mf_ctx *ctx, int enabled);               /* 1: bitwise repeatable, only sums of fixed order; returns the previous setting */
int mf_is_deterministic(const mf_ctx *ctx);
mf_status mf_ctx_products(mf_ctx *ctx, int precision);        /* of matmul and linear on float32: MF_EXACT (default), MF_TF32 or MF_BF16 */
int mf_ctx_product_precision(const mf_ctx *ctx);
int mf_grad_enabled(const mf_ctx *ctx);
int mf_grad_enable(mf_ctx *ctx, int enabled);                 /* returns the previous setting */

/* What a device holds. `soft_limit` is where mf_memory_pressure() starts to ask for a collection. */
typedef struct mf_memory {
    int64_t live;         /* bytes in storages now */
    int64_t peak;         /* the largest `live` since the last reset */
    int64_t storages;     /* storages alive */
    int64_t allocations;  /* storages ever made */
    int64_t limit;        /* hard limit in bytes, 0 for none */
    int64_t soft_limit;   /* bytes; grows by 1.4 when a collection frees too little */
    int64_t reserved;     /* bytes that the backend holds from the system, cached ones too (GPUs) */
    int64_t total;        /* bytes that the device has (GPUs) */
} mf_memory;
mf_status mf_memory_get(mf_memory *out, const mf_ctx *ctx, int device);
mf_status mf_memory_reset_peak(mf_ctx *ctx, int device);
mf_status mf_memory_limit(mf_ctx *ctx, int device, int64_t bytes);
mf_status mf_memory_flush(mf_ctx *ctx, int device);           /* gives cached blocks back to the system */
int mf_memory_pressure(const mf_ctx *ctx);                    /* 1 when a host's collector should run now */
void mf_memory_collected(mf_ctx *ctx);                        /* the host has collected: adapt the soft limit */
void mf_memory_fail_at(mf_ctx *ctx, int64_t nth);             /* tests: the nth allocation from now fails; 0 stops */
int64_t mf_memory_report(const mf_ctx *ctx, char *text, int64_t bytes); /* the largest live tensors, a line each */

/* ---- graphs: work on a device captured once and replayed with new data in the same tensors ----
 * Between begin and end nothing runs: launches are recorded. Whatever needs the host's answer (reading a value, uploading
 * data, waiting) is MF_ESTATE with the reason, and then mf_graph_end(g, 0) forgets the capture. Tensors made in between keep
 * their places as long as the graph lives; generators drawn from advance at every replay as if the code ran again. */
typedef struct mf_graph mf_graph;
mf_status mf_graph_begin(mf_graph **out, mf_ctx *ctx, int device, mf_graph *sibling); /* sibling or NULL: share its memory */
mf_status mf_graph_end(mf_graph *g, int keep);
mf_status mf_graph_replay(mf_graph *g);
void mf_graph_release(mf_graph *g);
int mf_graph_capturing(const mf_ctx *ctx);

/* ---- profile: what each kernel took ---- */
typedef struct mf_profile_row {
    char name[64];        /* of the kernel */
    int64_t calls;
    double seconds;
    double operations;    /* 0 where the launcher does not say */
    double bytes;
    double bound;         /* seconds that the roofline needs: the larger of operations and bytes over the device's peaks */
} mf_profile_row;
mf_status mf_profile_begin(mf_ctx *ctx, int device);
mf_status mf_profile_end(mf_profile_row *rows, int64_t most, int64_t *count, mf_ctx *ctx, int device);

/* ---- random numbers: Philox 4x32-10; draw i of a call is a function of (seed, stream, counter + i) ---- */
typedef struct mf_rng {
    uint64_t seed;     /* the key */
    uint64_t stream;   /* separates uses: times, noise, shuffling */
    uint64_t counter;  /* advances by what was drawn; save all three to resume */
} mf_rng;
mf_rng *mf_ctx_rng(mf_ctx *ctx);                              /* the context's own generator (dropout, default draws) */
mf_status mf_random_uniform(mf_tensor *x, mf_rng *rng, double lo, double hi);        /* in place, [lo, hi) */
mf_status mf_random_normal(mf_tensor *x, mf_rng *rng, double mean, double deviation);
mf_status mf_random_truncated(mf_tensor *x, mf_rng *rng, double deviation);          /* N(0, deviation) cut at two of them */
mf_status mf_random_rotations(mf_tensor *x, mf_rng *rng);                            /* (..., 3, 3), uniform on SO(3) */
mf_status mf_random_igso3(mf_tensor *x, mf_rng *rng, const mf_tensor *sigma);        /* (n, 3) vectors; sigma (n) or (1): flow.md 1.6 */
mf_status mf_random_normal_each(mf_tensor *x, const mf_rng *rng, const mf_tensor *streams, const mf_packing *packing);
mf_status mf_random_rotations_each(mf_tensor *x, const mf_rng *rng, const mf_tensor *streams, const mf_packing *packing);
mf_status mf_random_igso3_each(mf_tensor *x, const mf_rng *rng, const mf_tensor *streams, const mf_packing *packing, const mf_tensor *sigma);
    /* the rows of each sequence are what the function without _each draws of (seed, stream + streams[s], counter), streams int64 (n); x (m N, ...), m rows a
     * residue; rng does not move on */
mf_status mf_random_permutation(mf_tensor *x, mf_rng *rng);                          /* int32 or int64 (n) */
double mf_random_number(mf_rng *rng);                                                /* one double in [0, 1) */

/* ---- tensors ---- */
mf_status mf_tensor_empty(mf_tensor **out, mf_ctx *ctx, int device, int dtype, int ndim, const int64_t *shape);
mf_status mf_tensor_full(mf_tensor **out, mf_ctx *ctx, int device, int dtype, int ndim, const int64_t *shape, double value);
mf_status mf_tensor_from(mf_tensor **out, mf_ctx *ctx, int device, int dtype, int ndim, const int64_t *shape, const void *data);
mf_tensor *mf_tensor_retain(mf_tensor *x);
void mf_tensor_release(mf_tensor *x);
void mf_tensor_drop(mf_tensor *x);                            /* frees the values now; the handle stays and says so when used */
int mf_tensor_dropped(const mf_tensor *x);
int64_t mf_tensor_id(const mf_tensor *x);                     /* never reused */
mf_ctx *mf_tensor_ctx(const mf_tensor *x);
int mf_tensor_device(const mf_tensor *x);
int mf_tensor_dtype(const mf_tensor *x);
int mf_tensor_ndim(const mf_tensor *x);
int64_t mf_tensor_size(const mf_tensor *x, int axis);
int64_t mf_tensor_stride(const mf_tensor *x, int axis);
int64_t mf_tensor_count(const mf_tensor *x);                  /* elements */
int64_t mf_tensor_bytes(const mf_tensor *x);                  /* elements times their size */
int64_t mf_tensor_version(const mf_tensor *x);                /* in-place writes so far */
int mf_tensor_contiguous(const mf_tensor *x);
mf_status mf_tensor_read(void *data, int64_t bytes, const mf_tensor *x);             /* row-major copy to the host */
mf_status mf_tensor_write(mf_tensor *x, const void *data, int64_t bytes);            /* row-major copy from the host, in place */
mf_status mf_tensor_item(double *out, const mf_tensor *x);                           /* the value of a one-element tensor */

/* In place; each counts a new version. An error on a tensor that is being recorded. */
mf_status mf_tensor_fill(mf_tensor *x, double value);
mf_status mf_tensor_copy(mf_tensor *x, const mf_tensor *from);                       /* casts and broadcasts, any device */
mf_status mf_tensor_axpy(mf_tensor *x, double a, const mf_tensor *y);                /* x += a y */
mf_status mf_tensor_scale(mf_tensor *x, double a);                                   /* x *= a */

/* ---- gradients ---- */
int mf_tensor_requires_grad(const mf_tensor *x);
mf_status mf_tensor_require_grad(mf_tensor *x, int required);                        /* leaves only, floating types */
mf_status mf_tensor_grad(mf_tensor **out, const mf_tensor *x);                       /* *out NULL when there is none; release it */
mf_status mf_tensor_set_grad(mf_tensor *x, const mf_tensor *grad);                   /* NULL forgets it */
mf_status mf_detach(mf_tensor **out, const mf_tensor *x);                            /* same values, no history */

/* A backward pass. `mf_walk_step` runs until it is done (*function = 0) or reaches a differentiable
 * function that the host wrote: then *function is its id, mf_walk_cotangent gives the gradient of each output
 * (NULL: none came), mf_walk_give takes the gradient of each input, and the next step goes on. C never calls back.
 * Every node's saved tensors are freed as it is passed, unless `retain`. Leaves accumulate (+=). */
mf_status mf_walk_begin(mf_walk **out, const mf_tensor *root, const mf_tensor *cotangent, int retain);
mf_status mf_walk_step(mf_walk *walk, int64_t *function);
const mf_tensor *mf_walk_cotangent(const mf_walk *walk, int output);
mf_status mf_walk_give(mf_walk *walk, int input, const mf_tensor *gradient);
void mf_walk_end(mf_walk *walk);                              /* always, also after an error */
mf_status mf_function_record(mf_ctx *ctx, int64_t *id, const mf_tensor *const *in, int n_in, mf_tensor *const *out, int n_out);
int64_t mf_function_dropped(mf_ctx *ctx);                     /* the id of a function whose graph is gone, 0 when no more */

/* The operator table, for tools and tests. */
int mf_op_count(void);
const char *mf_op_name(int op);
int mf_op_differentiable(int op);
const char *mf_op_keeps(int op);                              /* what it keeps for backward, in words */

/* ---- packed sequences ---- */
mf_status mf_packing_create(mf_packing **out, mf_ctx *ctx, const int64_t *lengths, int64_t count);
void mf_packing_release(mf_packing *packing);
int64_t mf_packing_count(const mf_packing *packing);          /* sequences */
int64_t mf_packing_total(const mf_packing *packing);          /* residues */
int64_t mf_packing_pairs(const mf_packing *packing);          /* sum of squared lengths */
int64_t mf_packing_longest(const mf_packing *packing);
int64_t mf_packing_offset(const mf_packing *packing, int64_t i); /* first residue of sequence i; count gives the total */
mf_status mf_packing_prepare(const mf_packing *packing, int device); /* offsets onto the device now, not at first use: before a capture */
enum { MF_PACK_OFFSETS, MF_PACK_SEQUENCE, MF_PACK_POSITION, MF_PACK_PAIR_ROW, MF_PACK_PAIR_COLUMN, MF_PACK_PAIR_OFFSET };
/* int32 tensors: offsets (n+1); sequence and position of each residue (N); residue i and j of each pair (P); j - i (P). */
mf_status mf_packing_tensor(mf_tensor **out, const mf_packing *packing, int device, int what);

/* ---- elementwise, with broadcasting ---- */
mf_status mf_add(mf_tensor **out, const mf_tensor *a, const mf_tensor *b);
mf_status mf_sub(mf_tensor **out, const mf_tensor *a, const mf_tensor *b);
mf_status mf_mul(mf_tensor **out, const mf_tensor *a, const mf_tensor *b);
mf_status mf_div(mf_tensor **out, const mf_tensor *a, const mf_tensor *b);
mf_status mf_pow(mf_tensor **out, const mf_tensor *a, const mf_tensor *b);
mf_status mf_atan2(mf_tensor **out, const mf_tensor *y, const mf_tensor *x);
mf_status mf_maximum(mf_tensor **out, const mf_tensor *a, const mf_tensor *b);       /* ties: the gradient goes to a */
mf_status mf_minimum(mf_tensor **out, const mf_tensor *a, const mf_tensor *b);
mf_status mf_equal(mf_tensor **out, const mf_tensor *a, const mf_tensor *b);         /* bool results from here */
mf_status mf_less(mf_tensor **out, const mf_tensor *a, const mf_tensor *b);
mf_status mf_less_equal(mf_tensor **out, const mf_tensor *a, const mf_tensor *b);
mf_status mf_logical_and(mf_tensor **out, const mf_tensor *a, const mf_tensor *b);
mf_status mf_logical_or(mf_tensor **out, const mf_tensor *a, const mf_tensor *b);
mf_status mf_logical_not(mf_tensor **out, const mf_tensor *x);
mf_status mf_where(mf_tensor **out, const mf_tensor *condition, const mf_tensor *a, const mf_tensor *b);

mf_status mf_affine(mf_tensor **out, const mf_tensor *x, double scale, double shift); /* scale x + shift */
mf_status mf_pow_scalar(mf_tensor **out, const mf_tensor *x, double exponent);
mf_status mf_clamp(mf_tensor **out, const mf_tensor *x, double lo, double hi);
mf_status mf_neg(mf_tensor **out, const mf_tensor *x);
mf_status mf_abs(mf_tensor **out, const mf_tensor *x);
mf_status mf_sign(mf_tensor **out, const mf_tensor *x);
mf_status mf_floor(mf_tensor **out, const mf_tensor *x);
mf_status mf_exp(mf_tensor **out, const mf_tensor *x);
mf_status mf_log(mf_tensor **out, const mf_tensor *x);
mf_status mf_sqrt(mf_tensor **out, const mf_tensor *x);
mf_status mf_rsqrt(mf_tensor **out, const mf_tensor *x);
mf_status mf_square(mf_tensor **out, const mf_tensor *x);
mf_status mf_reciprocal(mf_tensor **out, const mf_tensor *x);
mf_status mf_sin(mf_tensor **out, const mf_tensor *x);
mf_status mf_cos(mf_tensor **out, const mf_tensor *x);
mf_status mf_acos(mf_tensor **out, const mf_tensor *x);
mf_status mf_tanh(mf_tensor **out, const mf_tensor *x);
mf_status mf_sigmoid(mf_tensor **out, const mf_tensor *x);
mf_status mf_relu(mf_tensor **out, const mf_tensor *x);
mf_status mf_gelu(mf_tensor **out, const mf_tensor *x);       /* exact, by erf */
mf_status mf_silu(mf_tensor **out, const mf_tensor *x);
mf_status mf_softplus(mf_tensor **out, const mf_tensor *x);   /* x for x > 20 */
mf_status mf_round_to(mf_tensor **out, const mf_tensor *x, int precision);           /* nearest MF_FP16 or MF_BF16 value, same dtype; gradient passes through */
mf_status mf_dropout(mf_tensor **out, const mf_tensor *x, double rate, mf_rng *rng); /* the mask is redrawn in backward, not kept */
mf_status mf_cast(mf_tensor **out, const mf_tensor *x, int dtype);
mf_status mf_to_device(mf_tensor **out, const mf_tensor *x, int device);

/* ---- reductions over `axes` (n_axes = 0: all); keep: leave them as 1 ---- */
mf_status mf_sum(mf_tensor **out, const mf_tensor *x, const int *axes, int n_axes, int keep);
mf_status mf_mean(mf_tensor **out, const mf_tensor *x, const int *axes, int n_axes, int keep);
mf_status mf_max(mf_tensor **out, const mf_tensor *x, int axis, int keep);           /* ties: the gradient goes to the first */
mf_status mf_min(mf_tensor **out, const mf_tensor *x, int axis, int keep);
mf_status mf_argmax(mf_tensor **out, const mf_tensor *x, int axis, int keep);        /* int32, the first of equals */
mf_status mf_argmin(mf_tensor **out, const mf_tensor *x, int axis, int keep);
mf_status mf_logsumexp(mf_tensor **out, const mf_tensor *x, int axis, int keep);
mf_status mf_cumsum(mf_tensor **out, const mf_tensor *x, int axis);
mf_status mf_sort(mf_tensor **values, mf_tensor **index, const mf_tensor *x, int axis, int descending);   /* stable; index int32 */
mf_status mf_topk(mf_tensor **values, mf_tensor **index, const mf_tensor *x, int k, int axis, int largest); /* ordered; ties by index */
mf_status mf_segment_sum(mf_tensor **out, const mf_tensor *x, const mf_packing *packing);    /* (N, ...) -> (n, ...) */
mf_status mf_segment_expand(mf_tensor **out, const mf_tensor *x, const mf_packing *packing); /* (n, ...) -> (N, ...) */

/* ---- products and normalisation ---- */
mf_status mf_matmul(mf_tensor **out, const mf_tensor *a, const mf_tensor *b);        /* (..., m, k) (..., k, n), leading axes broadcast */
mf_status mf_linear(mf_tensor **out, const mf_tensor *x, const mf_tensor *weight, const mf_tensor *bias); /* x W' + b; W (out, in), bias may be NULL */
mf_status mf_linear_act(mf_tensor **out, const mf_tensor *x, const mf_tensor *weight, const mf_tensor *bias, int activation);
mf_status mf_softmax(mf_tensor **out, const mf_tensor *x, int axis);
mf_status mf_log_softmax(mf_tensor **out, const mf_tensor *x, int axis);
mf_status mf_layer_norm(mf_tensor **out, const mf_tensor *x, const mf_tensor *weight, const mf_tensor *bias, double epsilon);
/* The layer norm of a + b, or of a + mask b with a number for each row; the mask takes no gradient. */
mf_status mf_add_layer_norm(mf_tensor **out, const mf_tensor *a, const mf_tensor *b, const mf_tensor *mask, const mf_tensor *weight, const mf_tensor *bias, double epsilon);

/* ---- losses of rows ---- */
/* (N): sum of weight (a - b)^2 over all axes but the first. The weight's shape is the first axes of a's, NULL for 1; it takes no gradient. */
mf_status mf_squared_error(mf_tensor **out, const mf_tensor *a, const mf_tensor *b, const mf_tensor *weight);
mf_status mf_cross_entropy(mf_tensor **out, const mf_tensor *logits, const mf_tensor *target);  /* (N, C), index (N) from 0 -> (N) */

/* ---- shape: views share storage, their gradients flow ---- */
mf_status mf_reshape(mf_tensor **out, const mf_tensor *x, int ndim, const int64_t *shape);  /* one size may be -1; copies only if it must */
mf_status mf_permute(mf_tensor **out, const mf_tensor *x, const int *axes);
mf_status mf_narrow(mf_tensor **out, const mf_tensor *x, int axis, int64_t start, int64_t length);
mf_status mf_select(mf_tensor **out, const mf_tensor *x, int axis, int64_t index);
mf_status mf_expand(mf_tensor **out, const mf_tensor *x, int ndim, const int64_t *shape);
mf_status mf_contiguous(mf_tensor **out, const mf_tensor *x);
mf_status mf_cat(mf_tensor **out, const mf_tensor *const *in, int n_in, int axis);
mf_status mf_split(mf_tensor **outs, const mf_tensor *x, int axis, const int64_t *sizes, int n); /* n views, at most 16; sizes add up */

/* ---- indexing; indices are int32 or int64, out of range is an error ---- */
mf_status mf_index_select(mf_tensor **out, const mf_tensor *x, int axis, const mf_tensor *index);   /* index (m); embedding is axis 0 */
mf_status mf_index_add(mf_tensor **out, const mf_tensor *x, int axis, const mf_tensor *index, const mf_tensor *source);
mf_status mf_gather(mf_tensor **out, const mf_tensor *x, int axis, const mf_tensor *index);         /* out[i][j] = x[index[i][j]][j] */
mf_status mf_scatter_add(mf_tensor **out, const mf_tensor *x, int axis, const mf_tensor *index, const mf_tensor *source);

/* ---- geometry; R (N, 3, 3), t (N, 3), float32 or float64; frames.md and flow.md ---- */
mf_status mf_frames_from_points(mf_tensor **rotation, const mf_tensor *x_axis, const mf_tensor *xy, const mf_tensor *origin); /* x toward x_axis, y on the side of xy */
mf_status mf_frames_apply(mf_tensor **out, const mf_tensor *R, const mf_tensor *t, const mf_tensor *points);  /* (N, P, 3) */
mf_status mf_frames_invert_apply(mf_tensor **out, const mf_tensor *R, const mf_tensor *t, const mf_tensor *points);
mf_status mf_quat_to_rot(mf_tensor **out, const mf_tensor *q);                       /* (N, 4) w x y z -> (N, 3, 3), not normalised */
mf_status mf_rot_to_quat(mf_tensor **out, const mf_tensor *R);                       /* nearest; first non-zero of (w x y z) positive */
mf_status mf_quat_multiply(mf_tensor **out, const mf_tensor *p, const mf_tensor *q);
mf_status mf_so3_exp(mf_tensor **out, const mf_tensor *v);                           /* (N, 3) -> (N, 3, 3) */
mf_status mf_so3_log(mf_tensor **out, const mf_tensor *R);                           /* (N, 3, 3) -> (N, 3), valid up to pi */
mf_status mf_frames_update(mf_tensor **q_out, mf_tensor **t_out, const mf_tensor *q, const mf_tensor *t, const mf_tensor *update, const mf_tensor *mask); /* layers.md 8 */
mf_status mf_frames_gauge(mf_tensor **R, mf_tensor **t, const mf_tensor *R_in, const mf_tensor *t_in, const mf_tensor *mask, const mf_packing *packing); /* frame of each sequence, (n, 3, 3) and (n, 3); constants */
mf_status mf_dihedral(mf_tensor **out, const mf_tensor *points);                     /* (N, 4, 3) -> (N, 2) sin, cos */
mf_status mf_kabsch(mf_tensor **R, mf_tensor **t, mf_tensor **rmsd, const mf_tensor *moving, const mf_tensor *fixed, const mf_tensor *weight, const mf_packing *packing); /* metrics.md 1; weight may be NULL */
mf_status mf_kabsch_pairs(mf_tensor **R, mf_tensor **distance, const mf_tensor *moving, const mf_tensor *fixed, const mf_tensor *weight, const mf_tensor *pairs, const mf_packing *packing);
    /* rows (a, b) of pairs, int32 (P, 2), are sequences of equal length, from 0: the rotation about the origin (P, 3, 3) that brings a of moving
     * nearest to b of fixed, weighted as b, and the mean distance that is left (P); without gradients */
mf_status mf_neighbours(mf_tensor **index, mf_tensor **distance, const mf_tensor *x, const mf_tensor *mask, int k, const mf_packing *packing); /* positions in the sequence, nearest first, ties by index; layers.md 3 */
mf_status mf_distogram(mf_tensor **out, const mf_tensor *distance, double lo, double hi, int bins);          /* one-hot, layers.md 3 */
mf_status mf_index_embedding(mf_tensor **out, const mf_tensor *index, int width, double max_len);
mf_status mf_rotary(mf_tensor **out, const mf_tensor *x, const mf_tensor *index, int64_t dim, double max_len);
    /* x (N, H, w) with columns l and dim / 2 + l of each head turned by index (N) pi / max_len^(2l / dim); columns from dim, even, on stay */
mf_status mf_pair_distance_loss(mf_tensor **sum, mf_tensor **pairs, const mf_tensor *predicted, const mf_tensor *truth, const mf_tensor *mask, double cutoff, const mf_packing *packing);
    /* predicted, truth (N, A, 3), mask (N, A); per sequence: sum over ordered pairs a != b of (D - D')^2 with D < cutoff (0: all), and how many; never L x L */
typedef struct mf_neighbour_params {
    double lo, hi;         /* edges of the bins of distances, as mf_distogram's */
    double max_len;        /* as mf_index_embedding's */
    int bins, feat;        /* how many bins; width of a position's embedding, even */
} mf_neighbour_params;
mf_status mf_neighbour_linear(mf_tensor **out, const mf_tensor *index, const mf_tensor *distance, const mf_tensor *weight, const mf_tensor *bias, const mf_neighbour_params *params);
    /* linear(cat(mf_distogram(distance), mf_index_embedding(index)) of each of the k neighbours) without making its input: index, distance (N, k),
     * weight (O, k (bins + feat)), bias (O) or NULL; only weight and bias get gradients */
mf_status mf_assignment(int32_t *row_of, const double *cost, int64_t n);             /* exact: column j goes with row row_of[j]; cost n x n row-major */
/* Two structures whose residues correspond one to one, (n, 3) angstrom: CA of proteins, C3' of nucleic acids (metrics.md 2). `reference` residues
 * are what the scores are shares of, n or more; d0 is mf_tm_d0 of as many. The search is the program TMscore's, every start of it. */
typedef struct mf_tm_result {
    double tm;                          /* TM-score, (0, 1] */
    double gdt_ts, gdt_ha;              /* the largest shares over all superpositions within 1, 2, 4, 8 (0.5, 1, 2, 4) angstrom, their mean */
    double gdt_superposed;              /* as gdt_ts of the pairs, after their one best superposition */
    double rmsd, mean_distance;         /* after that superposition, angstrom */
    double rotation[9], translation[3]; /* the TM-score's own: R moving + t lies on fixed */
} mf_tm_result;
mf_status mf_tm_score(mf_tm_result *out, const double *moving, const double *fixed, int64_t n, int64_t reference, double d0);
double mf_tm_d0(int64_t length, int polymer);                                        /* angstrom; of RNA's rule for RNA and DNA, of proteins' for anything else */

/* ---- attention over packed sequences: softmax(q k' + key_bias) v, any widths, never L x L ---- */
mf_status mf_attention(mf_tensor **out, const mf_tensor *q, const mf_tensor *k, const mf_tensor *v, const mf_tensor *key_bias, const mf_packing *packing, int precision);
    /* q, k (N, H, dqk), v (N, H, dv), key_bias (N, H) or NULL, -inf masks a key; out (N, H, dv) */
mf_status mf_attention_attend(mf_tensor **out, mf_tensor **lse, const mf_tensor *q, const mf_tensor *k, const mf_tensor *v, const mf_tensor *key_bias, const mf_packing *packing, int precision);
    /* the same without a record, and the logarithm of each row's sum, (N, H) */
mf_status mf_attention_resume(mf_tensor **out, const mf_tensor *q, const mf_tensor *k, const mf_tensor *v, const mf_tensor *key_bias, const mf_tensor *attended, const mf_tensor *lse, const mf_packing *packing, int precision);
    /* recorded as mf_attention, with the results of mf_attention_attend on the same inputs instead of a computation */
mf_status mf_pair_attention(mf_tensor **out, mf_tensor **pair_out, const mf_tensor *q, const mf_tensor *k, const mf_tensor *v, const mf_tensor *key_bias,
                            const mf_tensor *pair_bias, const mf_tensor *pair_value, const mf_packing *packing);
    /* pair_bias (P, H), pair_value (P, dz) or NULL, P = mf_packing_pairs; pair_out (N, H, dz) */

/* ---- flash invariant point attention from its projections to the input of linear_out, nn/ipa.lua; float32 or float64 ---- */
enum { MF_GAUGE_CANONICAL, MF_GAUGE_CENTRED, MF_GAUGE_NONE };  /* the frame that a sequence is written in: own axes and mean, mean, as given */
typedef struct mf_flash_ipa_inputs {
    const mf_tensor *q, *kv;                   /* (N, H c), (N, 2 H c): k | v in each head */
    const mf_tensor *q_points, *kv_points;     /* (N, 3 H P), (N, 3 H (P + Pv)): all x, all y, all z; P | Pv in each head */
    const mf_tensor *pair_bias, *pair_value;   /* (N, 2, r, H), (N, 2, r, dz), or both NULL */
    const mf_tensor *head_weights, *R, *t;     /* (H), (N, 3, 3), (N, 3) */
    const mf_tensor *mask;                     /* (N) bool or NULL: who is a key */
    const mf_tensor *attended, *lse;           /* of mf_flash_ipa_attend on the same inputs, or NULL: attention is not done again */
} mf_flash_ipa_inputs;
typedef struct mf_flash_ipa_params {
    int heads, gauge, precision;               /* MF_GAUGE_*; MF_EXACT, MF_FP16, MF_BF16 or MF_TF32 */
    int split;                                 /* 1: points in two halves of 16 bits */
    double scale;                              /* of q . k; 0: sqrt(1 / (3 c)) */
} mf_flash_ipa_params;
mf_status mf_flash_ipa(mf_tensor **out, const mf_flash_ipa_inputs *inputs, const mf_packing *packing, const mf_flash_ipa_params *params);
    /* (N, H c + 4 H Pv + H dz): o | o_x | o_y | o_z | norms | pair */
mf_status mf_flash_ipa_attend(mf_tensor **out, mf_tensor **attended, mf_tensor **lse, const mf_flash_ipa_inputs *inputs, const mf_packing *packing,
                              const mf_flash_ipa_params *params);
    /* the same without a record, and what attention gave, (N, H, dv) and (N, H) */

/* ---- optimizers: one fused pass a call, in place ---- */
typedef struct mf_adam_params {
    double lr, beta1, beta2, epsilon, weight_decay;
    double scale;          /* multiplies the gradient (clipping) */
    int64_t step;          /* from 1 */
    int decoupled;         /* 1: AdamW, 0: decay joins the gradient */
} mf_adam_params;
mf_status mf_adam_step(mf_tensor *parameter, mf_tensor *m, mf_tensor *v, const mf_tensor *grad, const mf_adam_params *params);
mf_status mf_sgd_step(mf_tensor *parameter, mf_tensor *velocity, const mf_tensor *grad, double lr, double momentum, double weight_decay); /* velocity may be NULL */
mf_status mf_ema_step(mf_tensor *average, const mf_tensor *x, double decay);
mf_status mf_grad_norm(double *out, mf_tensor *const *gradients, int64_t count);     /* sqrt of the sum of squares */

/* A training step over many tensors in a few kernels, of which nothing comes back to the host, so that it can be captured in a
 * graph. What changes from step to step stands in a control tensor: float64, one axis, MF_CONTROL_RATE + groups numbers, on the
 * tensors' device. mf_optim_norm writes the first four, the host the others; the host may read and write all with
 * mf_tensor_read and mf_tensor_write. */
enum {
    MF_CONTROL_NORM,       /* of the last gradient, before clipping */
    MF_CONTROL_SCALE,      /* min(1, clip / norm), which multiplies gradients; -1: the norm is not finite, updates are skipped */
    MF_CONTROL_STEPS,      /* updates made */
    MF_CONTROL_SKIPPED,    /* updates skipped */
    MF_CONTROL_CLIP,       /* largest norm, infinite for none */
    MF_CONTROL_RATE        /* learning rate of group 0; those of groups 1, 2, ... follow */
};
typedef struct mf_optim_list {
    int64_t count;
    mf_tensor **parameters;
    mf_tensor **gradients;
    mf_tensor **m;               /* first moments; SGD: velocities, or NULL without momentum */
    mf_tensor **v;               /* second moments; SGD: NULL */
    mf_tensor **averages;        /* running averages, updated last and after skipped updates too; or NULL */
    double decay;                /* of the averages */
    int group;                   /* whose learning rate counts */
} mf_optim_list;
mf_status mf_optim_norm(mf_tensor *control, mf_tensor *const *gradients, int64_t count);
mf_status mf_adam_many(const mf_tensor *control, const mf_optim_list *list, const mf_adam_params *params); /* lr, scale and step of params do not count */
mf_status mf_sgd_many(const mf_tensor *control, const mf_optim_list *list, double momentum, double weight_decay);
mf_status mf_ema_many(const mf_optim_list *list);                                    /* parameters, averages and decay count */

/* ---- safetensors: written to a temporary file, synced, renamed ---- */
mf_status mf_archive_open(mf_archive **out, const char *path);
void mf_archive_close(mf_archive *archive);                   /* legal before its row readers go: it lives until the last */
int64_t mf_archive_count(const mf_archive *archive);
const char *mf_archive_name(const mf_archive *archive, int64_t i);
mf_status mf_archive_info(const mf_archive *archive, int64_t i, int *dtype, int *ndim, int64_t *shape, int64_t *bytes);
    /* shape has room for MF_MAX_DIMS; dtype -1: a type that we lack, mf_archive_tensor refuses it */
mf_status mf_archive_tensor(mf_tensor **out, const mf_archive *archive, mf_ctx *ctx, int64_t i);    /* a copy on the CPU */
mf_status mf_archive_rows(mf_tensor **out, const mf_archive *archive, mf_ctx *ctx, int64_t i, int64_t first, int64_t count); /* of axis 0 */
mf_status mf_archive_bytes(void *data, const mf_archive *archive, int64_t i, int64_t first, int64_t bytes); /* as stored, of any type */
int64_t mf_archive_metadata_count(const mf_archive *archive);
const char *mf_archive_metadata_key(const mf_archive *archive, int64_t i);
const char *mf_archive_metadata_value(const mf_archive *archive, int64_t i);
mf_status mf_archive_write(const char *path, const char *const *names, const mf_tensor *const *tensors, int64_t count,
                           const char *const *keys, const char *const *values, int64_t metadata_count);

/* The same piece by piece, in bounded memory: declare every tensor, then append rows (of axis 0) to any of them in any order. What was
 * there before stays until commit, which frees the stream, also when it fails; abandon leaves nothing behind. */
enum { MF_ARCHIVE_BYTES = -1 };                                /* the dtype of a tensor of plain bytes, U8 in the file */
mf_status mf_archive_stream_open(mf_archive_stream **out, const char *path);
mf_status mf_archive_stream_declare(mf_archive_stream *s, const char *name, int dtype, int ndim, const int64_t *shape);
mf_status mf_archive_stream_metadata(mf_archive_stream *s, const char *key, const char *value);
mf_status mf_archive_stream_append(mf_archive_stream *s, int64_t i, const mf_tensor *rows);
mf_status mf_archive_stream_put(mf_archive_stream *s, int64_t i, const void *data, int64_t bytes);  /* row-major, any piece of what comes next */
mf_status mf_archive_stream_copy(mf_archive_stream *s, int64_t i, const mf_archive *from, int64_t k, int64_t first, int64_t count); /* rows of its tensor k */
mf_status mf_archive_stream_commit(mf_archive_stream *s);
void mf_archive_stream_abandon(mf_archive_stream *s);

/* ---- reading rows of an archive: runs of rows, end to end, of several tensors at once, ahead of time on threads ----
 * What is submitted comes back from next in the order of submission, the same bits for any number of threads. Rows are read from
 * the file, not its map: a disk that fails or a file that has shrunk is MF_EIO from the `next` whose rows they are, and the jobs
 * behind it stay. All calls on one thread, the context's. */
mf_status mf_row_reader_open(mf_row_reader **out, mf_archive *archive, mf_ctx *ctx, const int64_t *tensors, int64_t n, int threads);
    /* of n tensors of the archive, by number; 0 threads: `next` reads what it returns */
void mf_row_reader_close(mf_row_reader *r);                   /* stops the threads and forgets what is under way */
mf_status mf_row_reader_submit(mf_row_reader *r, const int64_t *first, const int64_t *count, int64_t runs); /* count[k] rows from first[k], run after run */
mf_status mf_row_reader_next(mf_tensor **out, mf_row_reader *r); /* n tensors on the CPU; waits. MF_ESTATE: nothing was submitted */
int64_t mf_row_reader_pending(const mf_row_reader *r);        /* jobs submitted and not taken */

/* ---- ZIP archives: checkpoints of PyTorch, arrays of NumPy ----
 * Checked wholly when opened (bounds, overlaps, names), data against their CRC when read; stored or deflated, ZIP64. */
mf_status mf_zip_open(mf_zip **out, const char *path);
void mf_zip_close(mf_zip *zip);
int64_t mf_zip_count(const mf_zip *zip);
const char *mf_zip_name(const mf_zip *zip, int64_t i);
int64_t mf_zip_size(const mf_zip *zip, int64_t i);                                   /* bytes of the content; -1: no such entry */
mf_status mf_zip_read(char **data, int64_t *bytes, mf_zip *zip, int64_t i);          /* free with mf_file_free */
/* Elements as another program laid them out. What we have no type for is widened exactly: signed 1 and 2 to int32, unsigned
 * 1 and 2 to int32, 4 and 8 to int64 (an error from 2^63 on). */
enum { MF_LAYOUT_FLOAT, MF_LAYOUT_BFLOAT, MF_LAYOUT_SIGNED, MF_LAYOUT_UNSIGNED, MF_LAYOUT_BOOL };
typedef struct mf_layout {
    int kind, width;           /* MF_LAYOUT_*; bytes of an element */
    int big_endian, ndim;
    int64_t offset;            /* elements before the first */
    int64_t shape[MF_MAX_DIMS], stride[MF_MAX_DIMS];    /* elements, none negative */
} mf_layout;
mf_status mf_zip_tensor(mf_tensor **out, mf_zip *zip, mf_ctx *ctx, int64_t i, const mf_layout *layout);   /* of entry i, on the CPU */
mf_status mf_layout_tensor(mf_tensor **out, mf_ctx *ctx, const mf_layout *layout, const void *data, int64_t bytes); /* the same of bytes in memory */
mf_status mf_zip_npy(mf_tensor **out, mf_zip *zip, mf_ctx *ctx, int64_t i);          /* entry i is an array of NumPy */
/* One entry to write: `bytes` of data, then the elements of a tensor, row-major; either may be absent. */
typedef struct mf_zip_part {
    const char *name;
    const void *data;
    int64_t bytes;
    const mf_tensor *tensor;
    int deflate;               /* 0: stored */
} mf_zip_part;
mf_status mf_zip_write(const char *path, const mf_zip_part *parts, int64_t count, int alignment);         /* data begin at multiples of `alignment` */
mf_status mf_npy_read(mf_tensor **out, mf_ctx *ctx, const char *path);               /* versions 1.0 to 3.0, either order */
mf_status mf_npy_write(const char *path, const mf_tensor *x);
mf_status mf_npz_write(const char *path, const char *const *names, const mf_tensor *const *tensors, int64_t count, int deflate);

/* ---- pickles of Python, protocols 0 to 5: read as inert values, of which nothing is imported or called ----
 * Values are numbered and form a graph: one may be reached by many paths, or contain itself, so a walk goes by number. */
enum {
    MF_PICKLE_NONE, MF_PICKLE_BOOL, MF_PICKLE_INTEGER, MF_PICKLE_REAL,
    MF_PICKLE_LONG,            /* an integer of more than 8 bytes: text is its two's complement, little endian */
    MF_PICKLE_TEXT,            /* UTF-8 */
    MF_PICKLE_BYTES,
    MF_PICKLE_LIST, MF_PICKLE_TUPLE, MF_PICKLE_SET, MF_PICKLE_DICT,
    MF_PICKLE_GLOBAL,          /* a class or function: first is its module, second its name, both texts */
    MF_PICKLE_OBJECT,          /* first was to be called with second (a tuple) and third (a dictionary or -1); what came of it: unknown */
    MF_PICKLE_PERSISTENT       /* first names something outside the pickle */
};
typedef struct mf_pickle_value {
    int kind;
    int64_t items, pairs;      /* elements; keys with values: of containers and of objects that were filled */
    int64_t first, second, third;
    int64_t state;             /* of an object, or -1 */
    int64_t integer;
    double real;
    const char *text;          /* borrowed from the pickle, `bytes` long */
    int64_t bytes;
} mf_pickle_value;
mf_status mf_pickle_parse(mf_pickle **out, const char *data, int64_t bytes, const char *name);   /* name: for error texts */
void mf_pickle_release(mf_pickle *pickle);
int64_t mf_pickle_root(const mf_pickle *pickle);
mf_status mf_pickle_get(const mf_pickle *pickle, int64_t i, mf_pickle_value *out);
mf_status mf_pickle_children(int64_t *items, int64_t *pairs, const mf_pickle *pickle, int64_t i);
    /* numbers of the elements; of key, value, key, value, ...; either may be NULL */

/* ---- structure files ---- */
mf_status mf_file_read(char **text, int64_t *bytes, const char *path, int64_t max_bytes);   /* .gz is inflated; free with mf_file_free */
void mf_file_free(char *text);
mf_status mf_file_replace(const char *path, const char *text, int64_t bytes);               /* atomically: temporary, fsync, rename */
mf_status mf_file_move(const char *from, const char *to);                                   /* synced and renamed: `to` is the old file or the new */
mf_status mf_file_inflate(const char *from, const char *to);                                /* what a gzip file holds, piece by piece */
mf_status mf_sha256(char *hex, const void *data, int64_t bytes);                            /* 64 digits and a zero */
mf_status mf_file_sha256(char *hex, int64_t *size, const char *path, int64_t offset, int64_t bytes); /* bytes -1: to the end, how many is *size */
enum { MF_FORMAT_AUTO, MF_FORMAT_PDB, MF_FORMAT_MMCIF, MF_FORMAT_BCIF };                     /* AUTO: by content, then by name */
enum { MF_ALTLOC_BEST, MF_ALTLOC_ALL };    /* of the locations of an atom: the highest occupancy, then the first; or every one, in file order */
enum { MF_POLYMER_NONE, MF_POLYMER_PROTEIN, MF_POLYMER_RNA, MF_POLYMER_DNA };
typedef struct mf_read_params {
    int64_t size;            /* of this struct: set by mf_read_params_init */
    int format, altlocs;
    int models;              /* only the first so many; 0: all */
    int64_t max_bytes;       /* of the inflated text; 0: 1 GiB */
    int64_t offset, bytes;   /* a part of the file, as a member of a tar is; bytes 0: to its end */
} mf_read_params;
void mf_read_params_init(mf_read_params *params);
mf_status mf_structure_read(mf_structure **out, const char *path, const mf_read_params *params);   /* NULL: as initialised */
mf_status mf_structure_parse(mf_structure **out, const void *text, int64_t bytes, const char *name, const mf_read_params *params);
void mf_structure_release(mf_structure *s);
/* A file one chain at a time, in the memory of the largest: a polymer, or ligands and water. In mmCIF a piece ends where label_asym_id or the
 * model changes; in PDB at TER or where the chain id or the model does. A chain that comes back is a further piece. Each piece has what the
 * file says before its first atom: title, entities, assemblies. *out NULL: the end. After a failure the reader can only be closed. */
typedef struct mf_chain_reader mf_chain_reader;
mf_status mf_chain_reader_open(mf_chain_reader **out, const char *path, const mf_read_params *params);
mf_status mf_chain_reader_next(mf_structure **out, mf_chain_reader *reader);
void mf_chain_reader_close(mf_chain_reader *reader);
typedef struct mf_structure_counts {
    int64_t models, chains, residues, atoms;
    int64_t entities, monomers, assemblies;
    int64_t records, alternates;    /* atom records of the file, and those with an alternate location, kept or not */
} mf_structure_counts;
void mf_structure_count(const mf_structure *s, mf_structure_counts *out);
enum {
    MF_TEXT_ID, MF_TEXT_TITLE, MF_TEXT_METHOD, MF_TEXT_DATE, MF_TEXT_SPACE_GROUP,
    MF_TEXT_CHAIN, MF_TEXT_ENTITY,                                             /* of chain i: its id, and the entity of its polymer */
    MF_TEXT_RESIDUE, MF_TEXT_ASYM, MF_TEXT_RESIDUE_ENTITY,                     /* of residue i; asym: label_asym_id */
    MF_TEXT_ATOM, MF_TEXT_ELEMENT,
    MF_TEXT_ENTITY_ID, MF_TEXT_ENTITY_NAME, MF_TEXT_MONOMER,                   /* of entity i; of monomer i of all their sequences */
    MF_TEXT_ASSEMBLY, MF_TEXT_ASSEMBLY_DETAILS, MF_TEXT_OLIGOMER,              /* of assembly i; OLIGOMER: "monomeric", "dimeric", ... */
};
const char *mf_structure_text(const mf_structure *s, int what, int64_t i);                  /* "" where absent */
double mf_structure_resolution(const mf_structure *s);                                     /* angstrom, 0 where absent */
int mf_structure_cell(double *cell, const mf_structure *s);                                /* a, b, c angstrom, three angles in degrees; 0: there is none */
enum { MF_ENTITY_UNKNOWN, MF_ENTITY_POLYMER, MF_ENTITY_NONPOLYMER, MF_ENTITY_BRANCHED, MF_ENTITY_WATER, MF_ENTITY_MACROLIDE };
typedef struct mf_entity_info { int64_t first_monomer, monomers; int kind, polymer; } mf_entity_info;   /* the whole sequence, label numbers 1, 2, ... */
mf_status mf_structure_entity(const mf_structure *s, int64_t i, mf_entity_info *out);
mf_status mf_structure_assembly(const mf_structure *s, int64_t i, int *oligomeric_count);   /* 0 where absent */
typedef struct mf_chain_info { int64_t first_residue, residues; int model, polymer; } mf_chain_info;
/* label: label_seq_id, in PDB 1, 2, ... along the polymer; 0 for ligands and water. model counts from 1. */
typedef struct mf_residue_info { int64_t first_atom, atoms; int number, label; char insertion, code; int hetero; } mf_residue_info;
typedef struct mf_atom_info { double x, y, z, occupancy, b; char altloc; int serial, charge; } mf_atom_info;
mf_status mf_structure_chain(const mf_structure *s, int64_t i, mf_chain_info *out);
mf_status mf_structure_residue(const mf_structure *s, int64_t i, mf_residue_info *out);
mf_status mf_structure_atom(const mf_structure *s, int64_t i, mf_atom_info *out);
/* What a residue's name means, by the wwPDB's Chemical Component Dictionary and the names of force fields; NUCLEIC: of either sugar. */
enum { MF_RESIDUE_UNKNOWN, MF_RESIDUE_AMINO, MF_RESIDUE_RNA, MF_RESIDUE_DNA, MF_RESIDUE_NUCLEIC, MF_RESIDUE_CAP, MF_RESIDUE_WATER };
typedef struct mf_residue_kind {
    const char *parent;    /* the standard residue that it is or derives from: "MET" of MSE; "" without one */
    int kind, standard;
    char code;             /* one letter, the parent's; X unknown */
} mf_residue_kind;
void mf_residue_describe(mf_residue_kind *out, const char *name);
/* Named atoms of the polymer residues of one chain: positions (N, A, 3) float32 (after subtracting nothing), mask (N, A)
 * bool. `names` is A atom names; a name may list alternatives with '|': "N9|N1", "O1P|OP1". */
mf_status mf_structure_atoms(mf_tensor **positions, mf_tensor **mask, const mf_structure *s, mf_ctx *ctx, int64_t chain, const char *const *names, int n_names);

/* Building and writing: chains, residues and atoms are appended in order to the last of the level above. */
mf_status mf_structure_create(mf_structure **out, const char *id, const char *title);
mf_status mf_structure_add_chain(mf_structure *s, int model, const char *id, int polymer);
mf_status mf_structure_add_residue(mf_structure *s, const char *name, int number);
mf_status mf_structure_add_atom(mf_structure *s, const char *name, const char *element, const double *xyz, double b);
/* AUTO: by the name; where it does not say, mmCIF past PDB's limits. MF_EVALUE for what PDB cannot hold; the old file stays then. What is
 * read back is what was written: of PDB, what its columns hold. */
mf_status mf_structure_write(const mf_structure *s, const char *path, int format);
/* A file of many models in the memory of one. add: each model of s becomes the next; the heading is that of the first structure, whose
 * chains and sequences those that follow share (mmCIF). Nothing can be added after a failure. commit puts the file in its place and frees
 * the writer, also on failure, when the old file stays; abandon leaves nothing. */
typedef struct mf_structure_writer mf_structure_writer;
mf_status mf_structure_writer_open(mf_structure_writer **out, const char *path, int format);
mf_status mf_structure_writer_add(mf_structure_writer *w, const mf_structure *s);
mf_status mf_structure_writer_commit(mf_structure_writer *w);
void mf_structure_writer_abandon(mf_structure_writer *w);

/* ---- CIF, text (1.1) or BinaryCIF, plain or gzip: every category of it, in memory ---- */
typedef struct mf_cif mf_cif;
mf_status mf_cif_read(mf_cif **out, const char *path, int64_t max_bytes);            /* of the inflated text, and of the values' table; 0: 1 GiB */
mf_status mf_cif_parse(mf_cif **out, const void *data, int64_t bytes, const char *name);
void mf_cif_release(mf_cif *cif);
typedef struct mf_cif_counts { int64_t blocks, tables; } mf_cif_counts;              /* save frames are blocks too */
void mf_cif_count(mf_cif_counts *out, const mf_cif *cif);
const char *mf_cif_block(const mf_cif *cif, int64_t i, int64_t *parent);             /* its name; parent: the block that a frame stands in, or -1 */
/* A loop, or the tags and values of one category, which are one row. Tags without a point are one category. */
typedef struct mf_cif_table_info { int64_t block, rows, columns; int loop; } mf_cif_table_info;
mf_status mf_cif_table(mf_cif_table_info *out, const mf_cif *cif, int64_t i);
const char *mf_cif_tag(const mf_cif *cif, int64_t table, int64_t column);            /* "_atom_site.id", as the file writes it; NULL past the end */
enum { MF_CIF_TEXT, MF_CIF_QUOTED, MF_CIF_INTEGER, MF_CIF_REAL, MF_CIF_INAPPLICABLE, MF_CIF_UNKNOWN };   /* the last two: . and ? */
/* INTEGER and REAL are of BinaryCIF and stand in `number`; a QUOTED value came in quotes or as a text field. */
typedef struct mf_cif_cell { const char *text; int64_t bytes; double number; int kind; } mf_cif_cell;
mf_status mf_cif_value(mf_cif_cell *out, const mf_cif *cif, int64_t table, int64_t row, int64_t column);

/* ---- tar archives, plain or gzip: ustar, pax and GNU names and sizes; the regular files in them, in order ---- */
typedef struct mf_tar mf_tar;
typedef struct mf_tar_member { const char *name; int64_t offset, bytes; } mf_tar_member;   /* offset: of its data in the file, -1 in a compressed one */
mf_status mf_tar_open(mf_tar **out, const char *path);
mf_status mf_tar_next(mf_tar_member *out, mf_tar *tar);                              /* name NULL at the end; it stands until the next */
mf_status mf_tar_read(char **data, int64_t *bytes, mf_tar *tar, int64_t max_bytes);  /* of the member, as they are; once; 0: 1 GiB; mf_file_free */
void mf_tar_close(mf_tar *tar);

/* ---- chemistry: of one model of a structure, counted from 1; residues and atoms by their numbers in the structure ---- */
/* Secondary structure by the rule of DSSP 4, a letter for each residue of the structure: H alpha, G 3-10, I pi helix, E strand,
 * B bridge, T turn, S bend, P polyproline II of at least `ppii` residues (2 or 3; 0: none), - other, ? a protein's residue
 * without a whole backbone, a blank for what is no protein of this model. */
mf_status mf_structure_dssp(char *letters, const mf_structure *s, int model, int ppii);
/* The same for n residues of N, CA, C, O (n, 4, 3); not finite where absent. A change in `chain` is a break; both may be NULL. */
mf_status mf_backbone_dssp(char *letters, const double *backbone, const int32_t *chain, const unsigned char *proline, int64_t n, int ppii);
enum {
    MF_TORSION_PHI, MF_TORSION_PSI, MF_TORSION_OMEGA, MF_TORSION_ALPHA, MF_TORSION_BETA, MF_TORSION_GAMMA, MF_TORSION_DELTA,
    MF_TORSION_EPSILON, MF_TORSION_ZETA, MF_TORSION_CHI, MF_TORSION_PUCKER, MF_TORSION_PUCKER_AMPLITUDE, MF_TORSION_COUNT
};
mf_status mf_structure_torsions(double *angles, const mf_structure *s, int model);           /* (residues, MF_TORSION_COUNT) degrees, NaN where absent */
mf_status mf_backbone_build(double *xyz, const double *torsions, int64_t n);                /* phi, psi, omega (n, 3) degrees -> N, CA, C, O, CB (n, 5, 3) */
mf_status mf_structure_gyration(double *radius, const mf_structure *s, int model);          /* of the polymers' heavy atoms, equal masses, angstrom */
/* Pairs of residues (K, 2) int32, in order, and their distances (K); each_atom: the least of heavy atoms, else CA or C4'.
 * In one chain only from `separation` residues on. */
typedef struct mf_contact_params { double cutoff; int model, each_atom, separation; } mf_contact_params;
mf_status mf_structure_contacts(mf_tensor **pairs, mf_tensor **distances, const mf_structure *s, mf_ctx *ctx, const mf_contact_params *params);
/* Pairs of atoms (K, 2) int32 nearer than their radii less `allowed` (negative: 1.5 between proteins, else 0.6), by how much (K). */
mf_status mf_structure_clashes(mf_tensor **pairs, mf_tensor **depths, const mf_structure *s, mf_ctx *ctx, int model, double allowed);
enum { MF_PAIR_GC, MF_PAIR_AU, MF_PAIR_GU };
mf_status mf_structure_base_pairs(mf_tensor **pairs, mf_tensor **kinds, const mf_structure *s, mf_ctx *ctx, int model);
/* Standard frames of the bases (Olson et al. 2001), a row for each polymer residue of the chain: R (N, 3, 3), t (N, 3) angstrom, rmsd (N) of
 * the ring to the standard one, all float64, mask (N) bool. Where a base lacks atoms: the identity, 0, 0. */
mf_status mf_structure_base_frames(mf_tensor **R, mf_tensor **t, mf_tensor **rmsd, mf_tensor **mask, const mf_structure *s, mf_ctx *ctx, int64_t chain);
mf_status mf_image_png(const char *path, const unsigned char *pixels, int64_t width, int64_t height, int channels);  /* 1 grey, 3 RGB */

#pragma GCC visibility pop
#endif
