/* pool.cuh: a GPU's memory, cached: blocks come and go in stream order, so a freed block may be handed out at once. */
#ifndef MF_CUDA_POOL_CUH
#define MF_CUDA_POOL_CUH
#include "common.cuh"

mf_status mf__cuda_pool_open(mf_device *d);
void mf__cuda_pool_close(mf_device *d);
mf_status mf__cuda_alloc(mf_device *d, void **data, int64_t bytes);
void mf__cuda_release(mf_device *d, void *data, int64_t bytes);
void mf__cuda_flush(mf_device *d);              /* segments without a block in use go back to the driver; not while a graph is captured */
void mf__cuda_make_room(mf_device *d);          /* before a capture: flushes where the device has less left than lies unused in the pool */

/* Private arenas: while one is entered, blocks come from it alone, so that a captured graph owns the places it writes. An arena
 * is counted; it goes back to the driver when the last graph and the last block of it are gone. */
struct mf_cuda_arena;
mf_cuda_arena *mf__cuda_arena_new(mf_device *d);
void mf__cuda_arena_retain(mf_cuda_arena *arena);
void mf__cuda_arena_release(mf_device *d, mf_cuda_arena *arena);
void mf__cuda_arenas_end(mf_device *d);         /* after a capture: frees arenas that were given up in it */
void mf__cuda_arena_enter(mf_device *d, mf_cuda_arena *arena);   /* NULL: the common one again */
#endif
