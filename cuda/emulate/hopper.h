/* hopper.h: the twins of hopper.cuh's instructions for the emulator; what they do is in hopper.cpp.
 *
 * What runs behind the back of threads does so here as late as it may, and shows where somebody does not wait for it:
 *
 *   copies     their destination is NaN from the call on; they land when no thread can go on otherwise
 *   products   accumulators are NaN from the call until the wait that covers their group; operands in shared memory are read at that
 *              wait, those in registers at the call. A product after a wait needs a fence
 *   barriers   who waits sleeps; a barrier that nobody completes ends in the list of who waits where. More arrivals than a phase takes, a
 *              phase that passes twice while somebody waits, memory that is no barrier: an abort says so
 *   registers  a block has what it could be launched with, 65536 / threads in multiples of 8 each: who asks for more than is left waits
 *
 * With MOONFOLD_EMULATE_ORDER=random each of them is drawn to happen at once or late. Shared memory that is overwritten before a product
 * has read it, or read before a copy has landed, so gives wrong results in one order or the other. What is not seen: a proxy fence
 * that is missing. */
#ifndef MF_CUDA_EMULATE_HOPPER_H
#define MF_CUDA_EMULATE_HOPPER_H

/* ---- barriers ---- */
void mf__emulate_bar_init(mf_address bar, int arrivals);
void mf__emulate_bar_arrive(mf_address bar, int bytes);          /* once; `bytes` more are to come */
void mf__emulate_bar_await(mf_address bar, int parity);
static inline void mf__bar_init(mf_address bar, int arrivals) { mf__emulate_bar_init(bar, arrivals); }
static inline void mf__bar_init_seen() {}
static inline void mf__bar_expect(mf_address bar, int bytes) { mf__emulate_bar_arrive(bar, bytes); }
static inline void mf__bar_arrive(mf_address bar) { mf__emulate_bar_arrive(bar, 0); }
static inline void mf__bar_copied(mf_address bar) { mf__emulate_bar_arrive(bar, 0); }
static inline void mf__bar_await(mf_address bar, int parity) { mf__emulate_bar_await(bar, parity); }

/* ---- bulk tensor copies ---- */
struct alignas(64) mf_map {
    const void *base = nullptr;
    int64_t columns = 0, heads = 0, rows = 0, ld = 0, box_columns = 0, box_rows = 0;
};
mf_status mf__map_make(mf_map *to, const void *base, int64_t columns, int64_t heads, int64_t rows, int64_t ld, int box_columns, int box_rows);
static inline void mf__map_prefetch(const mf_map *) {}
void mf__map_copy(mf_address to, const mf_map *map, mf_address bar, int column, int head, int64_t row);

/* ---- products of a warpgroup ---- */
struct mf_matrix {
    mf_address at;
    int bytes, stride;            /* of a panel's row; from one panel of an MN-major operand to the next */
    bool columns;                 /* MN-major */
};
template <int BYTES> static inline mf_matrix mf__matrix_rows(mf_address panel) {
    static_assert(BYTES == 128 || BYTES == 64 || BYTES == 32);
    return {panel, BYTES, 0, false};
}
template <int BYTES> static inline mf_matrix mf__matrix_columns(mf_address panel, int panel_stride) {
    static_assert(BYTES == 128 || BYTES == 64 || BYTES == 32);
    return {panel, BYTES, panel_stride, true};
}
static inline mf_matrix mf__matrix_on(mf_matrix m, int bytes) { return {m.at + bytes, m.bytes, m.stride, m.columns}; }

struct mf__product_lane {
    float *c;
    const uint32_t *left;         /* a in registers, or NULL */
    mf_matrix a, b;
    int n;
    bool bf16, ta, tb, add;
};
mf__warp_act mf__product_act, mf__product_fence_act, mf__product_commit_act, mf__product_wait_act;
template <bool BF16, int N, int TA, int TB> static inline void mf__wgmma(float (&c)[N / 2], mf_matrix a, mf_matrix b, bool add) {
    static_assert(N % 8 == 0 && N >= 8 && N <= 256);
    mf__product_lane lane = {c, nullptr, a, b, N, BF16, TA != 0, TB != 0, add};
    mf__warp_meet(0xffffffffu, mf__product_act, &lane);
}
template <bool BF16, int N, int TB> static inline void mf__wgmma_r(float (&c)[N / 2], const uint32_t (&a)[4], mf_matrix b) {
    static_assert(N % 8 == 0 && N >= 8 && N <= 256);
    mf__product_lane lane = {c, a, {}, b, N, BF16, false, TB != 0, true};
    mf__warp_meet(0xffffffffu, mf__product_act, &lane);
}
static inline void mf__wgmma_fence() {
    int none = 0;
    mf__warp_meet(0xffffffffu, mf__product_fence_act, &none);
}
static inline void mf__wgmma_commit() {
    int none = 0;
    mf__warp_meet(0xffffffffu, mf__product_commit_act, &none);
}
template <int LEFT> static inline void mf__wgmma_wait() {
    int left = LEFT;
    mf__warp_meet(0xffffffffu, mf__product_wait_act, &left);
}
template <int COUNT> static inline void mf__keep(float (&)[COUNT]) {}

/* ---- warpgroups ---- */
void mf__emulate_registers(int count, bool more);
template <int N> static inline void mf__registers_more() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 240);
    mf__emulate_registers(N, true);
}
template <int N> static inline void mf__registers_less() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 240);
    mf__emulate_registers(N, false);
}
static inline bool mf__elect() {
    __syncwarp();
    return mf__emulate_lane() == 0;
}
#endif
