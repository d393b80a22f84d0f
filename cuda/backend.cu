/* backend.cu: a GPU: opening it, moving memory between it and the host, and the table of every kernel of table.cuh.
 *
 * All work of a device is put on one stream, in the order of the calls, and the host runs ahead. It waits where it needs a
 * value (download, synchronize); there, what kernels found to be wrong is raised. Uploads are copied into pinned staging and
 * go on their way while the host continues: the caller may overwrite its memory at once. */
#include "table.cuh"
#include "capture.cuh"
#include "pool.cuh"
#include "profile.cuh"
#include <cstdio>
#include <cstring>
#include <type_traits>
extern "C" {
#include "../core/base/plugin.h"
#include "../core/base/version.h"
}

mf_status mf__cuda_status(cudaError_t error, const char *what) {
    if (error == cudaSuccess) return MF_OK;
    return mf__fail(error == cudaErrorMemoryAllocation ? MF_ENOMEM : MF_EDEVICE, "cuda: %s: %s", what, cudaGetErrorString(error));
}

static thread_local int current = -1;

mf_status mf__cuda_enter(mf_device *d) {
    const int index = mf__cuda(d)->index;
    if (index == current) return MF_OK;
    MF_TRY(mf__cuda_status(cudaSetDevice(index), "cudaSetDevice"));
    current = index;
    return MF_OK;
}

/* ---- staging: two pinned pieces, each with the event after which it may be filled again ---- */

enum { PIECES = 2 };
static const int64_t PIECE = 8 << 20;
struct mf_cuda_staging {
    char *data[PIECES];
    cudaEvent_t passed[PIECES];
    int64_t used[PIECES];         /* small uploads share a piece until it is full */
    int at;
};

static mf_status staging_open(mf_cuda *c) {
    c->staging = new (std::nothrow) mf_cuda_staging{};
    if (!c->staging) return mf__fail(MF_ENOMEM, "cuda: out of host memory");
    for (int i = 0; i < PIECES; i++) {
        MF_TRY(mf__cuda_status(cudaMallocHost((void **)&c->staging->data[i], (size_t)PIECE), "cudaMallocHost"));
        MF_TRY(mf__cuda_status(cudaEventCreateWithFlags(&c->staging->passed[i], cudaEventDisableTiming), "cudaEventCreate"));
    }
    return MF_OK;
}

static void staging_close(mf_cuda *c) {
    if (!c->staging) return;
    for (int i = 0; i < PIECES; i++) {
        if (c->staging->data[i]) cudaFreeHost(c->staging->data[i]);
        if (c->staging->passed[i]) cudaEventDestroy(c->staging->passed[i]);
    }
    delete c->staging;
}

/* Room for up to `bytes` of pinned memory; the piece before is marked as on its way when it is left. */
static mf_status staged(mf_cuda *c, int64_t bytes, char **to) {
    mf_cuda_staging *s = c->staging;
    if (PIECE - s->used[s->at] < bytes) {
        MF_TRY(mf__cuda_status(cudaEventRecord(s->passed[s->at], c->stream), "cudaEventRecord"));
        s->at = (s->at + 1) % PIECES;
        MF_TRY(mf__cuda_status(cudaEventSynchronize(s->passed[s->at]), "cudaEventSynchronize"));
        s->used[s->at] = 0;
    }
    *to = s->data[s->at] + s->used[s->at];
    s->used[s->at] += (bytes + 63) / 64 * 64;
    return MF_OK;
}

/* ---- memory ---- */

static mf_status cuda_upload(mf_device *d, void *to, const void *host, int64_t bytes) {
    mf_cuda *c = mf__cuda(d);
    if (c->capture) return mf__fail(MF_ESTATE, "graph: values from the host cannot be captured; make the tensor before, and pass it in");
    MF_TRY(mf__cuda_enter(d));
    for (int64_t at = 0; at < bytes; at += PIECE) {
        const int64_t piece = bytes - at < PIECE ? bytes - at : PIECE;
        char *pinned;
        MF_TRY(staged(c, piece, &pinned));
        memcpy(pinned, (const char *)host + at, (size_t)piece);
        MF_TRY(mf__cuda_status(cudaMemcpyAsync((char *)to + at, pinned, (size_t)piece, cudaMemcpyHostToDevice, c->stream), "upload"));
    }
    return MF_OK;
}

static mf_status raise_fault(mf_cuda *c) {
    mf_fault fault = *c->fault;
    if (!fault.raised) return MF_OK;
    memset(c->fault, 0, sizeof *c->fault);
    if (fault.what == MF_FAULT_FINITE) return mf__fail(MF_EVALUE, fault.op, fault.value, fault.bound);
    return mf__fail(MF_EVALUE, "%s: index %lld must be at least 0 and below %lld, the size of the axis (found by the GPU: an earlier call)",
                    fault.op, fault.value, fault.bound);
}

static mf_status cuda_synchronize(mf_device *d) {
    mf_cuda *c = mf__cuda(d);
    if (c->capture) return mf__fail(MF_ESTATE, "graph: waiting for the device cannot be captured");
    MF_TRY(mf__cuda_enter(d));
    MF_TRY(mf__cuda_status(cudaStreamSynchronize(c->stream), "waiting for the device"));
    return raise_fault(c);
}

static mf_status cuda_download(mf_device *d, void *host, const void *from, int64_t bytes) {
    mf_cuda *c = mf__cuda(d);
    if (c->capture)
        return mf__fail(MF_ESTATE, "graph: reading values (item, totable, a copy to the cpu) cannot be captured; return the tensor and read it after");
    MF_TRY(mf__cuda_enter(d));
    for (int64_t at = 0; at < bytes; at += PIECE) {
        const int64_t piece = bytes - at < PIECE ? bytes - at : PIECE;
        char *pinned;
        MF_TRY(staged(c, piece, &pinned));
        MF_TRY(mf__cuda_status(cudaMemcpyAsync(pinned, (const char *)from + at, (size_t)piece, cudaMemcpyDeviceToHost, c->stream), "download"));
        MF_TRY(mf__cuda_status(cudaStreamSynchronize(c->stream), "waiting for the device"));
        memcpy((char *)host + at, pinned, (size_t)piece);
    }
    return raise_fault(c);
}

/* ---- launching ---- */

mf_status mf__cuda_before(mf_device *d, const char *name, const void *kernel, int64_t shared_bytes) {
    MF_TRY(mf__cuda_enter(d));
    mf_cuda *c = mf__cuda(d);
    if (shared_bytes > c->shared_limit)
        return mf__fail(MF_ESUPPORT, "cuda: %s needs %lld bytes of shared memory, the GPU has %lld", name, (long long)shared_bytes,
                        (long long)c->shared_limit);
    if (shared_bytes > 48 << 10)
        MF_TRY(mf__cuda_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes), name));
    if (c->profile) MF_TRY(mf__cuda_profile_before(d, name));
    return MF_OK;
}

mf_status mf__cuda_after(mf_device *d, const char *name) {
    MF_TRY(mf__cuda_status(cudaGetLastError(), name));
    return mf__cuda(d)->profile ? mf__cuda_profile_after(d) : MF_OK;
}

void mf__cuda_work(mf_device *d, double operations, double bytes, int unit) {
    if (mf__cuda(d)->profile) mf__cuda_profile_work(d, operations, bytes, unit);
}

const int32_t *mf__cuda_offsets(mf_device *d, const mf_packing *packing, mf_status *status) {
    const int32_t *offsets;
    *status = mf__packing_offsets_on(&offsets, packing, d);
    return offsets;
}

bool mf__cuda_deterministic(const mf_device *d) { return mf_is_deterministic(d->ctx); }

/* ---- opening ---- */

static int cuda_count(void) {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        mf__fail(MF_EDEVICE, "cuda: %s", cudaGetErrorString(error));
        return 0;
    }
    if (count == 0) mf__fail(MF_EDEVICE, "cuda: the driver knows no GPU");
    return count;
}

/* Peaks by the clocks: memory 2 x clock x width; units by what a multiprocessor does in a cycle. */
static void peaks(mf_cuda *c) {
    int memory_khz = 0, width = 0, khz = 0;
    cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, c->index);
    cudaDeviceGetAttribute(&width, cudaDevAttrGlobalMemoryBusWidth, c->index);
    cudaDeviceGetAttribute(&khz, cudaDevAttrClockRate, c->index);
    c->peak_bytes = 2.0 * memory_khz * 1e3 * width / 8;
    const double cycles = khz * 1e3 * c->multiprocessors;
    const bool data_center = c->capability == 80 || c->capability == 90 || c->capability == 100;
    c->peak_operations[MF_UNIT_FP32] = cycles * (c->capability == 80 ? 128 : 256);
    c->peak_operations[MF_UNIT_FP64] = cycles * (c->capability == 80 ? 64 : data_center ? 128 : 4);
    c->peak_operations[MF_UNIT_FP16] = cycles * (c->capability >= 90 && data_center ? 4096 : c->capability == 80 ? 2048 : 1024);
    c->peak_operations[MF_UNIT_TF32] = c->peak_operations[MF_UNIT_FP16] / 2;
}

static void cuda_close(mf_device *d) {
    mf_cuda *c = mf__cuda(d);
    if (!c) return;
    (void)mf__cuda_enter(d);
    if (c->stream) cudaStreamSynchronize(c->stream);
    mf__cuda_blas_close(d);
    mf__cuda_pool_close(d);
    staging_close(c);
    if (c->fault) cudaFreeHost(c->fault);
    if (c->stream) cudaStreamDestroy(c->stream);
    delete c;
    d->state = nullptr;
}

static mf_status open_parts(mf_device *d) {
    mf_cuda *c = mf__cuda(d);
    MF_TRY(mf__cuda_enter(d));
    cudaDeviceProp properties;
    MF_TRY(mf__cuda_status(cudaGetDeviceProperties(&properties, c->index), "cudaGetDeviceProperties"));
    c->capability = properties.major * 10 + properties.minor;
    if (c->capability < 80)
        return mf__fail(MF_ESUPPORT, "cuda: %s has compute capability %d.%d, at least 8.0 is needed", properties.name, properties.major,
                        properties.minor);
    c->multiprocessors = properties.multiProcessorCount;
    c->shared_limit = (int64_t)properties.sharedMemPerBlockOptin;
    snprintf(d->hardware, sizeof d->hardware, "%s", properties.name);
    d->memory.total = (int64_t)properties.totalGlobalMem;
    peaks(c);
    MF_TRY(mf__cuda_status(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "cudaStreamCreate"));
    MF_TRY(mf__cuda_status(cudaHostAlloc((void **)&c->fault, sizeof *c->fault, cudaHostAllocMapped), "cudaHostAlloc"));
    memset(c->fault, 0, sizeof *c->fault);
    MF_TRY(mf__cuda_status(cudaHostGetDevicePointer((void **)&c->fault_device, c->fault, 0), "cudaHostGetDevicePointer"));
    MF_TRY(staging_open(c));
    return mf__cuda_pool_open(d);
}

static mf_status cuda_open(mf_device *d) {
    mf_cuda *c = new (std::nothrow) mf_cuda{};
    if (!c) return mf__fail(MF_ENOMEM, "cuda: out of host memory");
    d->state = c;
    c->index = d->code - MF_CUDA;
    mf_status status = open_parts(d);
    if (status != MF_OK) cuda_close(d);
    return status;
}

#define MF_CUDA_ROW(entry) table.entry = mf__cuda_##entry;
static mf_backend make_table() {
    mf_backend table{};
    table.name = "cuda";
    table.stores_16_bits = 1;
    table.open = cuda_open;
    table.close = cuda_close;
    table.alloc = mf__cuda_alloc;
    table.release = mf__cuda_release;
    table.upload = cuda_upload;
    table.download = cuda_download;
    table.synchronize = cuda_synchronize;
    table.flush = mf__cuda_flush;
    table.capture_begin = mf__cuda_capture_begin;
    table.capture_end = mf__cuda_capture_end;
    table.capture_draw = mf__cuda_capture_draw;
    table.graph_replay = mf__cuda_graph_replay;
    table.graph_release = mf__cuda_graph_release;
    table.profile_begin = mf__cuda_profile_begin;
    table.profile_end = mf__cuda_profile_end;
    MF_CUDA_ENTRIES(MF_CUDA_ROW)
    return table;
}
static const mf_backend table = make_table();
extern "C" __attribute__((visibility("default"))) const mf_plugin mf__cuda_plugin = {sizeof(mf_backend), MF_VERSION, &table, cuda_count};
