/* pool.cu: a caching allocator ordered by the device's one stream.
 *
 *   segment   what cudaMalloc gave: 2 MB shared by small blocks (up to 1 MB), 32 MB by medium ones (up to 8 MB), or the size of one
 *             large block rounded to 2 MB
 *   block     a piece of a segment; neighbours that are free are one block. Free blocks are kept by size: the smallest that fits
 *             is taken and split when what remains is of use
 *
 *       segment |  used  |  free  | used |      free      |        free: { (size, address) } in an ordered set
 *
 * Every kernel of a device runs on one stream, so memory that is released while kernels still use it can be given to
 * the next kernel at once: that one runs later. cudaMalloc and cudaFree wait for the device; they happen only while the pool
 * grows. When the device is full, unused segments are given back and the request is tried again. A capture cannot do that: before it begins
 * there is room on the device for what lies unused in the pool, which the same function took in the call before.
 *
 * Guard mode (MOONFOLD_CUDA_GUARD=1, for tests): every block is filled with NaN bytes and bracketed by canaries, checked when
 * it is released: a kernel that reads what nobody wrote or writes past its end cannot pass. It waits at every release.
 *
 * Apart (MOONFOLD_CUDA_GUARD=apart, for compute-sanitizer): every block is an allocation of its own, of its own size, and goes
 * back to the driver when it is released, so that the tool sees the first byte past it and the first read of what nobody wrote.
 * Blocks of a graph stay until the graph is gone. */
#include "pool.cuh"
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>
#include <unordered_map>
#include <vector>

namespace {

constexpr int64_t ALIGN = 512, SMALL = 1 << 20, MEDIUM = 8 << 20, SMALL_SEGMENT = 2 << 20, MEDIUM_SEGMENT = 32 << 20, GUARD = 512;

struct block {
    char *data;
    int64_t bytes;
    bool free;
    int kind;                     /* of its segment: 0 small, 1 medium, 2 large */
    block *before, *after;        /* neighbours in the segment */
    mf_cuda_arena *arena;
};
struct by_size {
    bool operator()(const block *a, const block *b) const { return a->bytes != b->bytes ? a->bytes < b->bytes : a->data < b->data; }
};

}  // namespace

struct mf_cuda_arena {
    std::set<block *, by_size> idle[3]; /* small, medium and large blocks do not share segments */
    int64_t used = 0;                   /* blocks in use */
    int64_t references = 1;
};

struct mf_cuda_pool {
    mf_cuda_arena common;
    mf_cuda_arena *current = &common;
    std::unordered_map<void *, block *> used;
    std::vector<mf_cuda_arena *> ended;  /* arenas that nobody needs any more since the capture under way began */
    bool guard = false, apart = false;
    bool failed_guard = false;
};

static int kind_of(int64_t bytes) { return bytes <= SMALL ? 0 : bytes <= MEDIUM ? 1 : 2; }
static int64_t round_to(int64_t bytes, int64_t step) { return (bytes + step - 1) / step * step; }

mf_status mf__cuda_pool_open(mf_device *d) {
    mf_cuda_pool *pool = new (std::nothrow) mf_cuda_pool;
    if (!pool) return mf__fail(MF_ENOMEM, "cuda: out of host memory");
    const char *guard = getenv("MOONFOLD_CUDA_GUARD");
    pool->apart = guard && strcmp(guard, "apart") == 0;
    pool->guard = guard && *guard && strcmp(guard, "0") != 0 && !pool->apart;
    mf__cuda(d)->pool = pool;
    return MF_OK;
}

/* Gives idle whole segments of an arena back. */
static void trim(mf_device *d, mf_cuda_arena *arena) {
    for (auto &idle : arena->idle)
        for (auto it = idle.begin(); it != idle.end();) {
            block *b = *it;
            if (b->before || b->after) { ++it; continue; }
            it = idle.erase(it);
            cudaFree(b->data);
            d->memory.reserved -= b->bytes;
            delete b;
        }
}

void mf__cuda_flush(mf_device *d) {
    if (mf__cuda(d)->capture) return;     /* waiting for a stream ends its capture */
    cudaStreamSynchronize(mf__cuda(d)->stream);
    trim(d, &mf__cuda(d)->pool->common);
}

void mf__cuda_make_room(mf_device *d) {
    int64_t unused = 0;
    for (const auto &idle : mf__cuda(d)->pool->common.idle)
        for (const block *b : idle) unused += b->before || b->after ? 0 : b->bytes;
    size_t available = 0, total = 0;
    if (cudaMemGetInfo(&available, &total) == cudaSuccess && (int64_t)available < unused) mf__cuda_flush(d);
}

void mf__cuda_pool_close(mf_device *d) {
    mf_cuda_pool *pool = mf__cuda(d)->pool;
    if (!pool) return;
    trim(d, &pool->common);
    delete pool;
    mf__cuda(d)->pool = nullptr;
}

static mf_status grow(mf_device *d, mf_cuda_arena *arena, int64_t bytes, block **out) {
    const int kind = kind_of(bytes);
    const int64_t size = mf__cuda(d)->pool->apart ? bytes
                       : kind == 0 ? SMALL_SEGMENT : kind == 1 ? MEDIUM_SEGMENT : round_to(bytes, SMALL_SEGMENT);
    void *data = nullptr;
    cudaError_t error = cudaMalloc(&data, (size_t)size);
    if (error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        mf__cuda_flush(d);
        error = cudaMalloc(&data, (size_t)size);
        if (error == cudaErrorMemoryAllocation) (void)cudaGetLastError();
    }
    if (error == cudaErrorMemoryAllocation) {
        size_t idle = 0, total = 0;
        cudaMemGetInfo(&idle, &total);
        return mf__fail(MF_ENOMEM, "out of memory: %lld bytes wanted on cuda:%d, %lld in use, %lld held in all, %lld of %lld free", (long long)bytes,
                        mf__cuda(d)->index, (long long)d->memory.live, (long long)d->memory.reserved, (long long)idle, (long long)total);
    }
    MF_TRY(mf__cuda_status(error, "cudaMalloc"));
    d->memory.reserved += size;
    *out = new block{(char *)data, size, true, kind, nullptr, nullptr, arena};
    return MF_OK;
}

static mf_status take(mf_device *d, void **data, int64_t bytes) {
    mf_cuda_pool *pool = mf__cuda(d)->pool;
    mf_cuda_arena *arena = pool->current;
    bytes = pool->apart ? std::max(bytes, int64_t{1}) : round_to(bytes, ALIGN);
    const int kind = kind_of(bytes);
    auto &idle = arena->idle[kind];
    block wanted{nullptr, bytes, false, kind, nullptr, nullptr, nullptr};
    auto it = pool->apart ? idle.end() : idle.lower_bound(&wanted);
    block *b = nullptr;
    if (it != idle.end()) {
        b = *it;
        idle.erase(it);
    } else {
        MF_TRY(mf__cuda_enter(d));
        MF_TRY(grow(d, arena, bytes, &b));
    }
    if (b->bytes - bytes >= (kind == 2 ? SMALL : ALIGN)) {
        block *rest = new block{b->data + bytes, b->bytes - bytes, true, kind, b, b->after, arena};
        if (b->after) b->after->before = rest;
        b->after = rest;
        b->bytes = bytes;
        idle.insert(rest);
    }
    b->free = false;
    arena->used++;
    pool->used.emplace(b->data, b);
    *data = b->data;
    return MF_OK;
}

static void arena_free(mf_device *d, mf_cuda_arena *arena) {
    mf_cuda_pool *pool = mf__cuda(d)->pool;
    if (arena->references > 0 || arena->used > 0 || arena == &pool->common) return;
    if (mf__cuda(d)->capture) {
        pool->ended.push_back(arena);
        return;
    }
    cudaStreamSynchronize(mf__cuda(d)->stream);
    trim(d, arena);
    delete arena;
}

static void give(mf_device *d, void *data) {
    mf_cuda_pool *pool = mf__cuda(d)->pool;
    auto found = pool->used.find(data);
    mf_assert(found != pool->used.end());
    block *b = found->second;
    pool->used.erase(found);
    mf_cuda_arena *arena = b->arena;
    auto &idle = arena->idle[b->kind];
    b->free = true;
    if (block *next = b->after; next && next->free) {
        idle.erase(next);
        b->bytes += next->bytes;
        b->after = next->after;
        if (b->after) b->after->before = b;
        delete next;
    }
    if (block *last = b->before; last && last->free) {
        idle.erase(last);
        last->bytes += b->bytes;
        last->after = b->after;
        if (last->after) last->after->before = last;
        delete b;
        b = last;
    }
    idle.insert(b);
    arena->used--;
    if (pool->apart && arena == &pool->common) mf__cuda_flush(d);
    arena_free(d, arena);
}

/* ---- guard mode ---- */

static mf_status guarded_take(mf_device *d, void **data, int64_t bytes) {
    mf_cuda *c = mf__cuda(d);
    MF_TRY(take(d, data, round_to(bytes, ALIGN) + 2 * GUARD));
    char *start = (char *)*data;
    cudaMemsetAsync(start, 0xa5, GUARD, c->stream);
    cudaMemsetAsync(start + GUARD, 0xff, (size_t)bytes, c->stream);
    cudaMemsetAsync(start + GUARD + bytes, 0xa5, (size_t)(round_to(bytes, ALIGN) - bytes + GUARD), c->stream);
    *data = start + GUARD;
    return MF_OK;
}

static bool untouched(mf_cuda *c, const char *from, int64_t bytes) {
    unsigned char host[GUARD + ALIGN];
    if (cudaMemcpyAsync(host, from, (size_t)bytes, cudaMemcpyDeviceToHost, c->stream) != cudaSuccess) return true;
    if (cudaStreamSynchronize(c->stream) != cudaSuccess) return true;   /* the device has failed, and says so itself */
    for (int64_t i = 0; i < bytes; i++)
        if (host[i] != 0xa5) return false;
    return true;
}

static void guarded_give(mf_device *d, void *data, int64_t bytes) {
    mf_cuda *c = mf__cuda(d);
    char *start = (char *)data - GUARD;
    /* canaries of a captured block are written by replays, if any */
    const bool checked = !c->capture && c->pool->used.find(start)->second->arena == &c->pool->common;
    if (checked && !(untouched(c, start, GUARD) && untouched(c, start + GUARD + bytes, round_to(bytes, ALIGN) - bytes + GUARD)))
        c->pool->failed_guard = true;
    give(d, start);
}

mf_status mf__cuda_alloc(mf_device *d, void **data, int64_t bytes) {
    mf_cuda_pool *pool = mf__cuda(d)->pool;
    if (pool->failed_guard) {
        pool->failed_guard = false;
        return mf__fail(MF_ESTATE, "cuda: a kernel wrote outside its memory (guard mode)");
    }
    return pool->guard ? guarded_take(d, data, bytes) : take(d, data, bytes);
}

void mf__cuda_release(mf_device *d, void *data, int64_t bytes) {
    if (!data) return;
    if (mf__cuda(d)->pool->guard) guarded_give(d, data, bytes);
    else give(d, data);
}

/* ---- arenas ---- */

mf_cuda_arena *mf__cuda_arena_new(mf_device *d) {
    (void)d;
    return new (std::nothrow) mf_cuda_arena;
}
void mf__cuda_arena_retain(mf_cuda_arena *arena) { arena->references++; }
void mf__cuda_arena_release(mf_device *d, mf_cuda_arena *arena) {
    arena->references--;
    arena_free(d, arena);
}
void mf__cuda_arena_enter(mf_device *d, mf_cuda_arena *arena) {
    mf_cuda_pool *pool = mf__cuda(d)->pool;
    pool->current = arena ? arena : &pool->common;
}
void mf__cuda_arenas_end(mf_device *d) {
    std::vector<mf_cuda_arena *> ended;
    ended.swap(mf__cuda(d)->pool->ended);
    for (mf_cuda_arena *arena : ended) arena_free(d, arena);
}

/* ---- scratch ---- */

mf_status mf_scratch::take(mf_device *d, int64_t bytes_wanted) {
    device = d;
    bytes = bytes_wanted > 0 ? bytes_wanted : 1;
    mf_status status = mf__cuda_alloc(d, &data, bytes);
    if (status != MF_OK) {
        data = nullptr;
        return status;
    }
    d->memory.live += bytes;      /* the peak counts what kernels work in, too */
    if (d->memory.live > d->memory.peak) d->memory.peak = d->memory.live;
    return MF_OK;
}
mf_scratch::~mf_scratch() {
    if (!data) return;
    mf__cuda_release(device, data, bytes);
    device->memory.live -= bytes;
}
