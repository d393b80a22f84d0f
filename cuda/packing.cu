/* packing.cu: sequence and position of residues, row, column and offset of pairs, from a packing's offsets on the device.
 *
 * Work      a binary search in the offsets for each residue or pair: about log2(sequences) loads from cache
 * Mapping   a thread each; deterministic */
#include "table.cuh"

/* The last sequence that begins at or before `at`; empty ones never hold anything. */
template <class F> static __device__ int sequence_of(int64_t at, int sequences, F first) {
    int low = 0, high = sequences;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (first(middle) <= at) low = middle;
        else high = middle;
    }
    return low;
}

static __global__ void residues_kernel(int32_t *out, int64_t n, const int32_t *offsets, int sequences, int position) {
    MF_GRID_LOOP(i, n) {
        const int s = sequence_of(i, sequences, [&](int k) { return (int64_t)offsets[k]; });
        out[i] = position ? (int32_t)(i - offsets[s]) : s;
    }
}

/* starts[k] = pairs before sequence k, the squared lengths before it. The host knows them too, but bringing them here would be
 * an upload, which a captured graph cannot make; so one block adds them up. */
static __global__ void pair_starts_kernel(int64_t *starts, const int32_t *offsets, int sequences) {
    __shared__ long long sums[1024];
    long long before = 0;
    for (int base = 0; base < sequences; base += 1024) {
        const int k = base + (int)threadIdx.x;
        const long long length = k < sequences ? offsets[k + 1] - offsets[k] : 0;
        sums[threadIdx.x] = length * length;
        __syncthreads();
        for (int step = 1; step < 1024; step *= 2) {       /* inclusive sums */
            const long long left = (int)threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
            __syncthreads();
            sums[threadIdx.x] += left;
            __syncthreads();
        }
        if (k < sequences) starts[k] = before + sums[threadIdx.x] - length * length;
        before += sums[1023];
        __syncthreads();
    }
}

static __global__ void pairs_kernel(int32_t *out, int64_t n, const int64_t *starts, const int32_t *offsets, int sequences, int what) {
    MF_GRID_LOOP(p, n) {
        const int s = sequence_of(p, sequences, [&](int k) { return starts[k]; });
        const int64_t length = offsets[s + 1] - offsets[s], local = p - starts[s];
        const int32_t i = (int32_t)(local / length), j = (int32_t)(local % length);
        out[p] = what == MF_PACK_PAIR_ROW ? offsets[s] + i : what == MF_PACK_PAIR_COLUMN ? offsets[s] + j : j - i;
    }
}

mf_status mf__cuda_packing_tensor(mf_device *d, const mf_packing *packing, int what, int32_t *out) {
    mf_status status;
    const int32_t *offsets = mf__cuda_offsets(d, packing, &status);
    MF_TRY(status);
    const int sequences = (int)packing->count;
    if (what == MF_PACK_SEQUENCE || what == MF_PACK_POSITION) {
        const int64_t n = packing->total;
        mf__cuda_work(d, 0, 4.0 * (double)n);
        return MF_LAUNCH(d, residues_kernel, mf__grid(d, n, 256), 256, 0, out, n, offsets, sequences, what == MF_PACK_POSITION);
    }
    const int64_t n = packing->pairs;
    if (n == 0) return MF_OK;
    mf_scratch starts;
    MF_TRY(starts.take(d, (int64_t)sequences * 8));
    MF_TRY(MF_LAUNCH(d, pair_starts_kernel, 1, 1024, 0, starts.as<int64_t>(), offsets, sequences));
    mf__cuda_work(d, 0, 4.0 * (double)n);
    return MF_LAUNCH(d, pairs_kernel, mf__grid(d, n, 256), 256, 0, out, n, starts.as<int64_t>(), offsets, sequences, what);
}
