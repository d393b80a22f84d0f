/* profile.cu: an event before and after every launch, added up by kernel.
 *
 * The two events enclose one kernel and the gap that its launch leaves on an idle stream, some 2 us: small kernels look slower than in
 * a graph. Launchers say what a kernel had to do (mf__cuda_work); the roofline's bound is the larger of operations and bytes
 * over the device's peaks by its clocks. */
#include "profile.cuh"
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

struct mf_cuda_profile {
    struct launch {
        const char *name;
        cudaEvent_t before, after;
        double operations, bytes, bound;
    };
    std::vector<launch> launches;
    double operations = 0, bytes = 0, bound = 0;   /* of the next launch */
};

mf_status mf__cuda_profile_begin(mf_device *d) {
    mf_cuda *c = mf__cuda(d);
    if (c->profile) return mf__fail(MF_ESTATE, "profile: one is under way already");
    if (c->capture) return mf__fail(MF_ESTATE, "profile: kernels cannot be timed while a graph is captured");
    c->profile = new (std::nothrow) mf_cuda_profile;
    return c->profile ? MF_OK : mf__fail(MF_ENOMEM, "cuda: out of host memory");
}

void mf__cuda_profile_work(mf_device *d, double operations, double bytes, int unit) {
    mf_cuda *c = mf__cuda(d);
    c->profile->operations = operations;
    c->profile->bytes = bytes;
    c->profile->bound = std::max(c->peak_bytes > 0 ? bytes / c->peak_bytes : 0,
                                 c->peak_operations[unit] > 0 ? operations / c->peak_operations[unit] : 0);
}

mf_status mf__cuda_profile_before(mf_device *d, const char *name) {
    mf_cuda *c = mf__cuda(d);
    mf_cuda_profile *p = c->profile;
    mf_cuda_profile::launch l{name, nullptr, nullptr, p->operations, p->bytes, p->bound};
    p->operations = p->bytes = p->bound = 0;
    MF_TRY(mf__cuda_status(cudaEventCreate(&l.before), "cudaEventCreate"));
    MF_TRY(mf__cuda_status(cudaEventCreate(&l.after), "cudaEventCreate"));
    p->launches.push_back(l);
    return mf__cuda_status(cudaEventRecord(l.before, c->stream), "cudaEventRecord");
}

mf_status mf__cuda_profile_after(mf_device *d) {
    mf_cuda *c = mf__cuda(d);
    return mf__cuda_status(cudaEventRecord(c->profile->launches.back().after, c->stream), "cudaEventRecord");
}

/* "(attention_kernel<float, 4>)" -> "attention_kernel<float, 4>" */
static void plain_name(char *to, size_t bytes, const char *name) {
    size_t length = strlen(name);
    if (length > 1 && name[0] == '(') { name++; length -= 2; }
    snprintf(to, bytes, "%.*s", (int)std::min(length, bytes - 1), name);
}

mf_status mf__cuda_profile_end(mf_device *d, mf_profile_row *rows, int64_t most, int64_t *count) {
    mf_cuda *c = mf__cuda(d);
    mf_cuda_profile *p = c->profile;
    *count = 0;
    if (!p) return mf__fail(MF_ESTATE, "profile: none is under way");
    c->profile = nullptr;
    mf_status status = mf__cuda_status(cudaStreamSynchronize(c->stream), "waiting for the device");
    std::unordered_map<std::string, mf_profile_row> sums;
    for (auto &l : p->launches) {
        float milliseconds = 0;
        if (status == MF_OK) status = mf__cuda_status(cudaEventElapsedTime(&milliseconds, l.before, l.after), "cudaEventElapsedTime");
        mf_profile_row &row = sums[l.name];
        plain_name(row.name, sizeof row.name, l.name);
        row.calls++;
        row.seconds += milliseconds * 1e-3;
        row.operations += l.operations;
        row.bytes += l.bytes;
        row.bound += l.bound;
        cudaEventDestroy(l.before);
        cudaEventDestroy(l.after);
    }
    delete p;
    if (status != MF_OK) return status;
    std::vector<mf_profile_row> sorted;
    for (auto &entry : sums) sorted.push_back(entry.second);
    std::sort(sorted.begin(), sorted.end(), [](const mf_profile_row &a, const mf_profile_row &b) { return a.seconds > b.seconds; });
    *count = (int64_t)sorted.size();
    for (int64_t i = 0; i < *count && i < most; i++) rows[i] = sorted[(size_t)i];
    return MF_OK;
}
