/* capture.cu: CUDA graphs: the launches between begin and end, kept and replayed in one call.
 *
 * Memory. While capturing, blocks come from the graph's own arena and never return to the common pool, so that a replay writes
 * where nobody else is; graphs of one family share an arena, because their replays follow each other on the one stream and
 * only what is still held outlives a replay.
 *
 * Random numbers. A kernel's counter is an argument and so frozen. Each generator of the capture has a cell in device memory,
 * added to the counter by the kernel (mf__draw_rng); a replay writes the cells first.
 *
 * What must not happen inside (uploads, downloads, waiting) is refused by backend.cu with the reason. A collector may release another
 * graph meanwhile: that waits for the stream, and so for the end of the capture. */
#include "capture.cuh"
#include "pool.cuh"
#include <new>

enum { CELLS = 8 };

struct mf_cuda_capture {          /* one captured graph; mf_cuda.capture points at the one under way */
    mf_cuda_arena *arena;
    cudaGraphExec_t graph;
    int n_cells;
    uint64_t seed[CELLS], stream[CELLS];
    uint64_t *cells;              /* on the device */
    uint64_t *pinned;             /* what a replay writes there */
    cudaEvent_t written;          /* the last replay has read `pinned` */
    mf_cuda_capture *ended, *next; /* graphs that were released while this one was captured, and the next of such a list */
};

void mf__cuda_graph_release(mf_device *d, void *graph) {
    mf_cuda_capture *g = (mf_cuda_capture *)graph;
    if (!g) return;
    if (mf_cuda_capture *under_way = mf__cuda(d)->capture) {
        g->next = under_way->ended;
        under_way->ended = g;
        return;
    }
    (void)mf__cuda_enter(d);
    cudaStreamSynchronize(mf__cuda(d)->stream);
    if (g->graph) cudaGraphExecDestroy(g->graph);
    if (g->cells) cudaFree(g->cells);
    if (g->pinned) cudaFreeHost(g->pinned);
    if (g->written) cudaEventDestroy(g->written);
    if (g->arena) mf__cuda_arena_release(d, g->arena);
    delete g;
}

static mf_status prepare(mf_device *d, mf_cuda_capture *g, mf_cuda_capture *sibling) {
    if (sibling) {
        g->arena = sibling->arena;
        mf__cuda_arena_retain(g->arena);
    } else {
        g->arena = mf__cuda_arena_new(d);
    }
    if (!g->arena) return mf__fail(MF_ENOMEM, "cuda: out of host memory");
    MF_TRY(mf__cuda_status(cudaMalloc((void **)&g->cells, CELLS * sizeof *g->cells), "cudaMalloc"));
    MF_TRY(mf__cuda_status(cudaMallocHost((void **)&g->pinned, CELLS * sizeof *g->pinned), "cudaMallocHost"));
    MF_TRY(mf__cuda_status(cudaEventCreateWithFlags(&g->written, cudaEventDisableTiming), "cudaEventCreate"));
    return mf__cuda_status(cudaStreamBeginCapture(mf__cuda(d)->stream, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
}

mf_status mf__cuda_capture_begin(mf_device *d, void **graph) {
    mf_cuda_capture *sibling = (mf_cuda_capture *)*graph;
    *graph = nullptr;
    MF_TRY(mf__cuda_enter(d));
    if (mf__cuda(d)->profile) return mf__fail(MF_ESTATE, "graph: a capture cannot begin inside mf.profile");
    mf_cuda_capture *g = new (std::nothrow) mf_cuda_capture{};
    if (!g) return mf__fail(MF_ENOMEM, "cuda: out of host memory");
    mf__cuda_make_room(d);
    mf_status status = prepare(d, g, sibling);
    if (status != MF_OK) {
        mf__cuda_graph_release(d, g);
        return status;
    }
    mf__cuda_arena_enter(d, g->arena);
    mf__cuda(d)->capture = g;
    *graph = g;
    return MF_OK;
}

mf_status mf__cuda_capture_end(mf_device *d, int keep) {
    mf_cuda *c = mf__cuda(d);
    mf_cuda_capture *g = c->capture;
    c->capture = nullptr;
    mf__cuda_arena_enter(d, nullptr);
    cudaGraph_t recorded = nullptr;
    const cudaError_t error = cudaStreamEndCapture(c->stream, &recorded);
    if (error != cudaSuccess) (void)cudaGetLastError();
    mf_status status = MF_OK;
    if (keep) {
        status = mf__cuda_status(error, "cudaStreamEndCapture");
        if (status == MF_OK) status = mf__cuda_status(cudaGraphInstantiate(&g->graph, recorded, 0), "cudaGraphInstantiate");
        if (status == MF_OK) status = mf__cuda_status(cudaGraphUpload(g->graph, c->stream), "cudaGraphUpload");
    }
    if (recorded) cudaGraphDestroy(recorded);
    while (mf_cuda_capture *other = g->ended) {
        g->ended = other->next;
        mf__cuda_graph_release(d, other);
    }
    mf__cuda_arenas_end(d);
    return status;
}

mf_status mf__cuda_capture_draw(mf_device *d, mf_rng rng) {
    mf_cuda_capture *g = mf__cuda(d)->capture;
    mf_assert(g && g->n_cells < CELLS);
    g->seed[g->n_cells] = rng.seed;
    g->stream[g->n_cells++] = rng.stream;
    return MF_OK;
}

mf_draw mf__cuda_draw(mf_device *d, mf_rng rng) {
    mf_cuda_capture *g = mf__cuda(d)->capture;
    for (int i = 0; g && i < g->n_cells; i++)
        if (g->seed[i] == rng.seed && g->stream[i] == rng.stream) return {rng, g->cells + i};
    return {rng, nullptr};
}

mf_status mf__cuda_graph_replay(mf_device *d, void *graph, const uint64_t *advance) {
    mf_cuda *c = mf__cuda(d);
    mf_cuda_capture *g = (mf_cuda_capture *)graph;
    MF_TRY(mf__cuda_enter(d));
    if (c->capture) return mf__fail(MF_ESTATE, "graph: a graph cannot be replayed while another is captured");
    if (g->n_cells > 0) {
        MF_TRY(mf__cuda_status(cudaEventSynchronize(g->written), "cudaEventSynchronize"));
        for (int i = 0; i < g->n_cells; i++) g->pinned[i] = advance[i];
        MF_TRY(mf__cuda_status(cudaMemcpyAsync(g->cells, g->pinned, (size_t)g->n_cells * sizeof *g->cells, cudaMemcpyHostToDevice, c->stream),
                               "graph's generators"));
        MF_TRY(mf__cuda_status(cudaEventRecord(g->written, c->stream), "cudaEventRecord"));
    }
    return mf__cuda_status(cudaGraphLaunch(g->graph, c->stream), "cudaGraphLaunch");
}
