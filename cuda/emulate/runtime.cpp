/* runtime.cpp: the calls of the CUDA runtime that cuda/ makes, on a device that is this process.
 *
 * Device memory is a range of addresses of its own. Blocks end where a page ends, an unmapped page follows, and they hold NaN when
 * allocated. With MOONFOLD_EMULATE_STRICT=1 they are closed to the host but for the time of a copy or a kernel, as long as there
 * are few: closing costs a system call a block. Copies check that their ends are where their kind says. A stream has always
 * finished. */
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <dlfcn.h>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <functional>
#include <vector>
#include "emulate.h"
#include "inner.h"

struct CUgraph_st;
static CUgraph_st *recorded;      /* the graph being captured */
static bool spoiled;              /* by a call that no capture outlives */

namespace {

constexpr int64_t ARENA = 256LL << 30, PAGE = 4096, FEW = 64;

struct block {
    int64_t bytes, pages;         /* asked for; mapped */
};
std::recursive_mutex lock;
char *arena;
int64_t used, allocated, limit = 4LL << 30;
bool strict, is_open;
std::map<char *, block> blocks;                  /* by the first mapped page */
std::multimap<int64_t, char *> gone;             /* by size, to be mapped again */
std::map<char *, int64_t> pinned;
thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device;

cudaError_t result(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

void prepare() {
    if (arena) return;
    arena = (char *)mmap(nullptr, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED) mf__emulate_abort("no address space for device memory");
    if (const char *text = getenv("MOONFOLD_EMULATE_STRICT")) strict = strcmp(text, "1") == 0;
    if (const char *text = getenv("MOONFOLD_EMULATE_MEMORY")) limit = atoll(text);
}

int device_count() {
    const char *text = getenv("MOONFOLD_EMULATE_DEVICES");
    return text ? atoi(text) : 1;
}

bool in_arena(const void *p) { return arena && (const char *)p >= arena && (const char *)p < arena + ARENA; }

/* The block that holds all of [p, p + bytes). */
bool is_device(const void *p, int64_t bytes) {
    if (!in_arena(p)) return false;
    auto it = blocks.upper_bound((char *)p);
    if (it == blocks.begin()) return false;
    --it;
    return (const char *)p + bytes <= it->first + it->second.pages;
}

bool is_pinned(const void *p) {
    auto it = pinned.upper_bound((char *)p);
    if (it == pinned.begin()) return false;
    --it;
    return (const char *)p < it->first + it->second;
}

void protect(bool open) {
    if (is_open == open) return;
    is_open = open;
    if (!strict || (int64_t)blocks.size() > FEW) return;
    for (auto &[p, b] : blocks) mprotect(p, (size_t)b.pages, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

/* Open while it lives. */
struct opening {
    const bool before = is_open;
    opening() { protect(true); }
    ~opening() { protect(before); }
};

cudaError_t copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    if (bytes == 0) return cudaSuccess;
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice || (kind == cudaMemcpyDefault && in_arena(to));
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice || (kind == cudaMemcpyDefault && in_arena(from));
    if (is_device(to, (int64_t)bytes) != to_device || is_device(from, (int64_t)bytes) != from_device || in_arena(to) != to_device || in_arena(from) != from_device)
        return result(cudaErrorInvalidValue);
    const opening open;
    memmove(to, from, bytes);
    return cudaSuccess;
}

}  // namespace

void mf__emulate_open(bool open) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    prepare();
    protect(open);
}

const char *mf__emulate_region(const void *p) {
    static char text[160];
    if (!in_arena(p)) return nullptr;
    auto it = blocks.upper_bound((char *)p);
    if (it == blocks.begin()) return "device memory that is not allocated";
    --it;
    const long long at = (const char *)p - it->first, first = it->second.pages - (it->second.bytes + 255) / 256 * 256;
    snprintf(text, sizeof text, "device memory, byte %lld of a block of %lld", at - first, (long long)it->second.bytes);
    return text;
}

/* Memory of the host is what is mapped, is neither pinned nor in the file of a library (kernels and literals are). */
void mf__emulate_argument(const void *bytes, int64_t size, int position) {
    for (int64_t at = 0; at + 8 <= size; at += 8) {
        uint64_t word;
        memcpy(&word, (const char *)bytes + at, 8);
        if (word >> 44 == 0 || word >> 47 != 0) continue;
        const void *p = (const void *)word;
        if (in_arena(p) || is_pinned(p)) continue;
        unsigned char there;
        Dl_info library;
        if (mincore((void *)(word & ~(uint64_t)(PAGE - 1)), 1, &there) != 0 || dladdr(p, &library)) continue;
        mf__emulate_abort("%s: argument %d points to memory of the host (%p, byte %lld of the argument)", mf__emulate_kernel(), position, p, (long long)at);
    }
}

/* ---- memory ---- */
cudaError_t cudaMalloc(void **out, size_t bytes) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    prepare();
    *out = nullptr;
    if (bytes == 0) return cudaSuccess;
    const int64_t rounded = ((int64_t)bytes + 255) / 256 * 256, pages = (rounded + PAGE - 1) / PAGE * PAGE;
    if (allocated + pages > limit) return result(cudaErrorMemoryAllocation);
    char *p;
    auto again = gone.find(pages);
    if (again != gone.end()) {
        p = again->second;
        gone.erase(again);
    } else {
        if (used + pages + PAGE > ARENA) return result(cudaErrorMemoryAllocation);
        p = arena + used;
        used += pages + PAGE;
    }
    if (mprotect(p, (size_t)pages, PROT_READ | PROT_WRITE)) return result(cudaErrorMemoryAllocation);
    memset(p, 0xff, (size_t)pages);
    if (strict && !is_open) mprotect(p, (size_t)pages, PROT_NONE);
    if (strict && !is_open && (int64_t)blocks.size() == FEW)               /* from here on all are open */
        for (auto &[q, b] : blocks) mprotect(q, (size_t)b.pages, PROT_READ | PROT_WRITE);
    blocks[p] = {(int64_t)bytes, pages};
    if ((int64_t)blocks.size() > FEW) mprotect(p, (size_t)pages, PROT_READ | PROT_WRITE);
    allocated += pages;
    *out = p + pages - rounded;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    if (!p) return cudaSuccess;
    char *first = (char *)((uintptr_t)p & ~(uintptr_t)(PAGE - 1));
    auto it = blocks.find(first);
    if (it == blocks.end()) return result(cudaErrorInvalidValue);
    const int64_t pages = it->second.pages;
    mprotect(first, (size_t)pages, PROT_NONE);
    madvise(first, (size_t)pages, MADV_DONTNEED);
    allocated -= pages;
    gone.emplace(pages, first);
    blocks.erase(it);
    return cudaSuccess;
}
cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t) { return cudaMalloc(out, bytes); }
cudaError_t cudaFreeAsync(void *p, cudaStream_t) { return cudaFree(p); }
cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    prepare();
    *available = (size_t)(limit - allocated);
    *total = (size_t)limit;
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    *out = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    if (!*out) return result(cudaErrorMemoryAllocation);
    pinned[(char *)*out] = (int64_t)bytes;
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **out, size_t bytes) { return cudaHostAlloc(out, bytes, 0); }
cudaError_t cudaFreeHost(void *p) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    if (p && !pinned.erase((char *)p)) return result(cudaErrorInvalidValue);
    free(p);
    return cudaSuccess;
}
cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    pinned[(char *)p] = (int64_t)bytes;
    return cudaSuccess;
}
cudaError_t cudaHostUnregister(void *p) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    return pinned.erase((char *)p) ? cudaSuccess : result(cudaErrorInvalidValue);
}
cudaError_t cudaHostGetDevicePointer(void **out, void *host, unsigned) {
    *out = host;
    return is_pinned(host) ? cudaSuccess : result(cudaErrorInvalidValue);
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) { return copy(to, from, bytes, kind); }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) { return copy(to, from, bytes, kind); }
cudaError_t cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t bytes, cudaStream_t) { return copy(to, from, bytes, cudaMemcpyDeviceToDevice); }
cudaError_t cudaMemset(void *to, int value, size_t bytes) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    if (bytes == 0) return cudaSuccess;
    if (!is_device(to, (int64_t)bytes)) return result(cudaErrorInvalidValue);
    const opening open;
    memset(to, value, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t) {
    cudaError_t error = cudaSuccess;
    if (recorded) mf__emulate_or_record([=] { (void)cudaMemset(to, value, bytes); });
    else error = cudaMemset(to, value, bytes);
    return error;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *out, const void *p) {
    *out = {};
    out->type = is_device(p, 1) ? cudaMemoryTypeDevice : is_pinned(p) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
    out->devicePointer = out->hostPointer = const_cast<void *>(p);
    return cudaSuccess;
}

/* ---- devices ---- */
cudaError_t cudaGetDeviceCount(int *count) { *count = device_count(); return *count ? cudaSuccess : result(cudaErrorNoDevice); }
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= device_count()) return result(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device) { *device = current_device; return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *out, int device) {
    if (device < 0 || device >= device_count()) return result(cudaErrorInvalidDevice);
    prepare();
    *out = {};
    snprintf(out->name, sizeof out->name, "Emulated device");
    out->totalGlobalMem = (size_t)limit;
    out->sharedMemPerBlock = 48 << 10;
    out->sharedMemPerBlockOptin = 227 << 10;
    out->sharedMemPerMultiprocessor = 228 << 10;
    out->reservedSharedMemPerBlock = 1 << 10;
    out->regsPerBlock = out->regsPerMultiprocessor = 65536;
    out->warpSize = 32;
    out->maxThreadsPerBlock = 1024;
    out->maxThreadsPerMultiProcessor = 2048;
    out->maxBlocksPerMultiProcessor = 32;
    out->maxThreadsDim[0] = out->maxThreadsDim[1] = 1024;
    out->maxThreadsDim[2] = 64;
    out->maxGridSize[0] = 0x7fffffff;
    out->maxGridSize[1] = out->maxGridSize[2] = 65535;
    const char *capability = getenv("MOONFOLD_EMULATE_CAPABILITY");
    out->major = capability ? atoi(capability) / 10 : 9;
    out->minor = capability ? atoi(capability) % 10 : 0;
    out->multiProcessorCount = 4;
    out->l2CacheSize = 50 << 20;
    out->memoryBusWidth = 5120;
    out->canMapHostMemory = out->unifiedAddressing = out->concurrentKernels = 1;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int device) {
    cudaDeviceProp p;
    const cudaError_t error = cudaGetDeviceProperties(&p, device);
    if (error != cudaSuccess) return error;
    switch (which) {
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)p.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)p.sharedMemPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = (int)p.sharedMemPerMultiprocessor; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
    case cudaDevAttrMemoryClockRate: *value = 2619000; break;
    case cudaDevAttrClockRate: *value = 1980000; break;
    case cudaDevAttrGlobalMemoryBusWidth: *value = p.memoryBusWidth; break;
    default: *value = 0;
    }
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaDeviceReset() { return cudaSuccess; }
cudaError_t cudaSetDeviceFlags(unsigned) { return cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int *can, int, int) { *can = 1; return cudaSuccess; }
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device) { snprintf(text, (size_t)size, "0000:%02x:00.0", device); return cudaSuccess; }

/* ---- errors ---- */
cudaError_t cudaGetLastError() {
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError() { return last_error; }
const char *cudaGetErrorName(cudaError_t error) {
    switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorNotSupported: return "cudaErrorNotSupported";
    default: return "cudaErrorUnknown";
    }
}
const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorNotSupported: return "operation not supported";
    default: return "unknown error";
    }
}

/* ---- streams and events ---- */
struct CUevent_st {
    std::chrono::steady_clock::time_point at;
};
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned) { *out = (cudaStream_t)malloc(16); return cudaSuccess; }
cudaError_t cudaStreamCreate(cudaStream_t *out) { return cudaStreamCreateWithFlags(out, 0); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int) { return cudaStreamCreateWithFlags(out, flags); }
cudaError_t cudaStreamDestroy(cudaStream_t s) { free(s); return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) {
    if (!recorded) return cudaSuccess;
    spoiled = true;
    return result(cudaErrorStreamCaptureUnsupported);
}
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t f, void *data) { f(data); return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned) { *out = new CUevent_st; return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t *out) { return cudaEventCreateWithFlags(out, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t e) { delete e; return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t) { e->at = std::chrono::steady_clock::now(); return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) {
    *ms = std::chrono::duration<float, std::milli>(b->at - a->at).count();
    return cudaSuccess;
}

/* ---- kernels ---- */
cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int) { return cudaSuccess; }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *out, const void *) {
    *out = {};
    out->maxThreadsPerBlock = 1024;
    out->numRegs = 64;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *out, const void *, int threads, size_t shared) {
    const int by_threads = 2048 / (threads > 0 ? threads : 1), by_shared = (int)((228 << 10) / (shared + 1024));
    *out = by_threads < by_shared ? by_threads : by_shared;
    return cudaSuccess;
}

/* ---- graphs: what a stream was asked to do, in order; branches, which one stream does not make, do not exist ---- */
struct CUgraph_st {
    std::vector<std::function<void()>> work;
};
struct CUgraphExec_st {
    std::vector<std::function<void()>> work;
};

void mf__emulate_or_record(std::function<void()> work) {
    if (recorded) recorded->work.push_back(std::move(work));
    else work();
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
    if (recorded) return result(cudaErrorIllegalState);
    recorded = new CUgraph_st;
    spoiled = false;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *out) {
    *out = recorded;
    recorded = nullptr;
    if (*out && spoiled) {
        delete *out;
        *out = nullptr;
        return result(cudaErrorStreamCaptureInvalidated);
    }
    return *out ? cudaSuccess : result(cudaErrorIllegalState);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus *status) {
    *status = recorded ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *) { return cudaSuccess; }
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
    *out = new CUgraphExec_st{graph->work};
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
    for (const auto &work : graph->work) work();
    return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
    if (nodes) return result(cudaErrorNotSupported);
    *count = graph->work.size();
    return cudaSuccess;
}
cudaError_t cudaGraphNodeGetType(cudaGraphNode_t, cudaGraphNodeType *) { return result(cudaErrorNotSupported); }
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    delete graph;
    return cudaSuccess;
}
