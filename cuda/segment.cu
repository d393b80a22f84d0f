/* segment.cu: sums over the sequences of a packing, and values of sequences repeated for their residues.
 *
 *     y[s] = sum over residues i of s of x[i]        (N, inner) to (count, inner)
 *     y[i] = x[sequence of i]                        (count, row) to (N, row)
 *
 * Work      one addition an element; a binary search over the sequences for each 16 bytes written
 * Traffic   every element once
 * Mapping   sums: the columns of reduce.cuh with the offsets as limits of the rows, long sequences in chunks. Repeating: a thread
 *           for the widest unit, up to 16 bytes, that rows and addresses allow
 * Order     depends on the packing alone: bitwise repeatable. Types of results are those of reduce.cu. */
#include "reduce.cuh"
#include "table.cuh"

template <class U> static __global__ void __launch_bounds__(256)
segment_expand_kernel(int64_t units, int64_t total, int64_t count, const int32_t *offsets, const U *x, U *y) {
    MF_GRID_LOOP(i, total * units) {
        const int64_t residue = i / units;
        int64_t lo = 0, hi = count;   /* offsets[lo] <= residue < offsets[hi] */
        while (hi - lo > 1) {
            const int64_t middle = (lo + hi) / 2;
            if (offsets[middle] <= residue) lo = middle;
            else hi = middle;
        }
        y[i] = x[lo * units + i % units];
    }
}

mf_status mf__cuda_segment_sum(mf_device *d, int dtype, const mf_packing *packing, int64_t inner, const void *x, void *y) {
    MF_DISPATCH_ALL(dtype, T, return mf__reduce_segments(d, mf_total<T>(x, y), packing, inner, mf__aligned16(x)));
    return MF_OK;
}

template <class U> static mf_status expand(mf_device *d, int64_t row_bytes, const mf_packing *packing, const int32_t *offsets, const void *x, void *y) {
    const int64_t units = row_bytes / (int64_t)sizeof(U);
    return MF_LAUNCH(d, segment_expand_kernel<U>, mf__grid(d, packing->total * units, 256), 256, 0, units, packing->total, packing->count, offsets,
                     (const U *)x, (U *)y);
}

mf_status mf__cuda_segment_expand(mf_device *d, int64_t row_bytes, const mf_packing *packing, const void *x, void *y) {
    if (packing->total == 0 || row_bytes == 0) return MF_OK;
    mf_status status = MF_OK;
    const int32_t *offsets = mf__cuda_offsets(d, packing, &status);
    MF_TRY(status);
    mf__cuda_work(d, 0, (double)row_bytes * (double)(packing->total + packing->count));
    const uintptr_t fit = (uintptr_t)row_bytes | (uintptr_t)x | (uintptr_t)y;
    if (fit % 16 == 0) return expand<uint4>(d, row_bytes, packing, offsets, x, y);
    if (fit % 8 == 0) return expand<uint64_t>(d, row_bytes, packing, offsets, x, y);
    if (fit % 4 == 0) return expand<uint32_t>(d, row_bytes, packing, offsets, x, y);
    if (fit % 2 == 0) return expand<uint16_t>(d, row_bytes, packing, offsets, x, y);
    return expand<uint8_t>(d, row_bytes, packing, offsets, x, y);
}
