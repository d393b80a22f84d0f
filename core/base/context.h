/* context.h: what a context holds: its devices, their memory, the generator, whether operations are recorded.
 *
 * A context is used by one thread at a time. It is counted: every storage, tensor and packing holds it, so
 * releasing the context first is legal (the "zombie" close that garbage-collected hosts need). */
#ifndef MF_BASE_CONTEXT_H
#define MF_BASE_CONTEXT_H
#include "../moonfold.h"

typedef struct mf_backend mf_backend;

typedef struct mf_device {
    mf_ctx *ctx;
    const mf_backend *backend;    /* memory operations and kernels */
    int code;                     /* MF_CPU, MF_NULL, MF_CUDA + i */
    char name[16];                /* "cpu", "null", "cuda", "cuda:1" */
    int threads;                  /* CPU threads that kernels may use */
    void *state;                  /* the backend's own: streams, handles, caches */
    mf_memory memory;
    struct mf_storage *storages;  /* doubly linked, for the out-of-memory report */
    char hardware[256];           /* what the machine calls it, set by `open`; empty: nobody knows */
} mf_device;

enum { MF__MAX_DEVICES = 16 };

struct mf_ctx {
    int64_t references;
    mf_device *devices[MF__MAX_DEVICES]; /* opened at first use; [0] is the CPU */
    int n_devices;
    int grad_enabled;
    int products;                 /* precision of matmul and linear on float32 */
    int deterministic;            /* kernels whose sum order varies are forbidden */
    struct mf_graph *graph;       /* the capture under way */
    int64_t next_id;              /* tensors and nodes, in order of making */
    int64_t next_function;        /* differentiable functions of the host */
    int64_t *dropped;             /* functions whose graph is gone, waiting to be polled */
    int64_t n_dropped, dropped_capacity;
    int64_t fail_countdown;       /* mf_memory_fail_at */
    int64_t collected_live;       /* bytes after the last collection of the host */
    mf_rng rng;
};

mf_ctx *mf__ctx_retain(mf_ctx *ctx);
mf_status mf__ctx_device(mf_device **out, mf_ctx *ctx, int code);  /* opens the backend at first use */

/* Host memory for bookkeeping (nodes, packings, workspaces): counted by fail_at, not by mf_memory. NULL on
 * failure with the error set. Freed by free(). */
void *mf__host_alloc(mf_ctx *ctx, size_t bytes);
#endif
