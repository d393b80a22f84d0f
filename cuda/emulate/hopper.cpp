/* hopper.cpp: what hopper.h declares: barriers of shared memory, copies and products that run behind the back of threads. */
#include <vector>
#include "../hopper.cuh"
#include "inner.h"

namespace {

/* ---- barriers: their state lies in their 8 bytes ---- */
constexpr uint64_t IS_BARRIER = 0x2d;
struct word {
    uint64_t is : 6, phase : 1, arrivals : 16, pending : 16;
    int64_t bytes : 25;           /* expected and not yet there */
};
static_assert(sizeof(word) == 8);

const char *place(const void *p) {
    static char text[2][64];
    static int turn;
    const int64_t at = (const char *)p - (const char *)mf__emulate_shared();
    char *to = text[turn ^= 1];
    if (at >= 0 && at < mf__emulate_shared_bytes()) snprintf(to, sizeof text[0], "byte %lld of shared memory", (long long)at);
    else snprintf(to, sizeof text[0], "%p, which is not in dynamic shared memory", p);
    return to;
}

void need_shared(const void *p, int64_t bytes, const char *what) {
    const int64_t at = (const char *)p - (const char *)mf__emulate_shared();
    if (at < 0 || at + bytes > mf__emulate_shared_bytes())
        mf__emulate_abort("%s: %s: %lld bytes at %s of %lld", mf__emulate_where(), what, (long long)bytes, place(p), (long long)mf__emulate_shared_bytes());
}

word barrier_at(mf_address bar, const char *what) {
    word w;
    if ((uintptr_t)bar % 8) mf__emulate_abort("%s: %s: a barrier at %s: not at a multiple of 8 bytes", mf__emulate_where(), what, place(bar));
    memcpy(&w, bar, 8);
    if (w.is != IS_BARRIER || w.arrivals == 0 || w.pending > w.arrivals)
        mf__emulate_abort("%s: %s: no barrier at %s: not begun by mf__bar_init, or overwritten", mf__emulate_where(), what, place(bar));
    return w;
}

/* Ends the phase if nothing is missing, and stores. */
void settle(mf_address bar, word w) {
    const bool ends = w.pending == 0 && w.bytes == 0;
    const int parity = (int)w.phase;
    if (ends) w.phase ^= 1, w.pending = w.arrivals;
    memcpy(bar, &w, 8);
    if (ends) mf__emulate_wake(bar, parity);
}

/* ---- copies under way ---- */
struct transfer {
    mf_map map;
    mf_address to, bar;
    int column, head;
    int64_t row;
};
std::vector<transfer> transfers;

uintptr_t swizzled(uintptr_t address, int bytes) { return address ^ ((address >> 7 & (uintptr_t)(bytes / 16 - 1)) << 4); }

void land(const transfer &t) {
    const mf_map &m = t.map;
    const int row_bytes = (int)m.box_columns * 2;
    for (int64_t i = 0; i < m.box_rows; i++)
        for (int64_t j = 0; j < m.box_columns; j++) {
            const int64_t row = t.row + i, column = t.column + j;
            uint16_t x = 0;
            if (row >= 0 && row < m.rows && t.head >= 0 && t.head < m.heads && column >= 0 && column < m.columns)
                memcpy(&x, (const uint16_t *)m.base + (row * m.heads + t.head) * m.ld + column, 2);
            memcpy((void *)swizzled((uintptr_t)(t.to + i * row_bytes + 2 * j), row_bytes), &x, 2);
        }
    word w = barrier_at(t.bar, "a copy that lands");
    w.bytes -= m.box_rows * row_bytes;
    settle(t.bar, w);
}

/* ---- additions out of shared memory ---- */
struct bulk {
    float *to;
    const float *from;
    int floats, thread;
    bool committed;
};
std::vector<bulk> bulks;

void perform(const bulk &b) {
    need_shared(b.from, 4 * (int64_t)b.floats, "a bulk addition");
    for (int i = 0; i < b.floats; i++) b.to[i] += b.from[i];
}

/* ---- registers ---- */
struct {
    bool known;                   /* of this block */
    int of_warp[32], left;        /* a thread; in all */
    int64_t given;                /* how often some were */
} registers;

int registers_at_launch() {
    const int threads = (int)(blockDim.x * blockDim.y * blockDim.z), each = 65536 / threads / 8 * 8;
    return each < 256 ? each : 256;
}

struct register_lane {
    int count;
    bool more, done;
    int64_t given;                /* when it was not done */
};
void registers_act(void *const *lanes) {
    if (!registers.known) {
        registers.known = true;
        registers.left = 0;
        for (int &count : registers.of_warp) count = registers_at_launch();
    }
    int &now = registers.of_warp[mf__emulate_thread() / 32];
    const register_lane *first = nullptr;
    for (int i = 0; i < 32 && !first; i++) first = static_cast<register_lane *>(lanes[i]);
    const int count = first->count;
    const bool more = first->more;
    if (more ? count < now : count > now)
        mf__emulate_abort("%s: mf__registers_%s<%d>, but it has %d", mf__emulate_where(), more ? "more" : "less", count, now);
    const bool done = (count - now) * 32 <= registers.left;
    if (done) {
        registers.left -= (count - now) * 32;
        now = count;
        if (!more) registers.given++, mf__emulate_wake(&registers, 0);
    }
    for (int i = 0; i < 32; i++)
        if (lanes[i]) static_cast<register_lane *>(lanes[i])->done = done, static_cast<register_lane *>(lanes[i])->given = registers.given;
}

/* ---- products under way ---- */
struct accumulators {             /* of a warp, 16 rows */
    float *c[32];
    int n, products;              /* columns; under way */
    float value[16][256];
};
struct product {
    mf__product_lane what;        /* of lane 0 */
    float left[16][16];           /* a, if it was in registers */
    int64_t group;
    bool done;
    accumulators *c;
};
struct warp_products {
    std::vector<product> queue;
    std::vector<std::unique_ptr<accumulators>> used;
    int64_t group;                /* that is open */
    bool fenced;
};
warp_products of_warp[32];

warp_products &mine() { return of_warp[mf__emulate_thread() / 32]; }

float element(bool bf16, uint16_t bits) {
    if (bf16) {
        __nv_bfloat16 x;
        memcpy((void *)&x, &bits, 2);
        return __bfloat162float(x);
    }
    static float *all;            /* the headers' conversion on the host takes longer than the products */
    if (!all) {
        all = new float[1 << 16];
        for (int i = 0; i < 1 << 16; i++) {
            const uint16_t word = (uint16_t)i;
            __half x;
            memcpy((void *)&x, &word, 2);
            all[i] = __half2float(x);
        }
    }
    return all[bits];
}

/* 16 bytes of an operand, `lines` of its M or N by 8 of k or the other way round, as floats. */
void load8(const mf_matrix &m, bool bf16, mf_address from, float *to, int64_t step, const char *what) {
    uint16_t bits[8];
    const void *at = (const void *)swizzled((uintptr_t)from, m.bytes);
    need_shared(at, 16, what);
    memcpy(bits, at, 16);
    for (int i = 0; i < 8; i++) to[i * step] = element(bf16, bits[i]);
}

/* to(k, line) = to[k step_k + line step_line], lines `first` to `first + count - 1` of 16 of k. */
void load(const mf_matrix &m, bool bf16, int first, int count, float *to, int64_t step_k, int64_t step_line, const char *what) {
    for (int line = 0; line < count; line += m.columns ? 8 : 1)
        for (int k = 0; k < 16; k += m.columns ? 1 : 8) {
            const int l = first + line, across = m.bytes / 2;
            const mf_address from = m.at + (m.columns ? (int64_t)(l / across) * m.stride + k * m.bytes + l % across * 2 : (int64_t)l * m.bytes + 2 * k);
            load8(m, bf16, from, to + k * step_k + line * step_line, m.columns ? step_line : step_k, what);
        }
}

/* That the descriptor says what the hardware would understand. */
void check_matrix(const mf_matrix &m, bool transposed, const char *what) {
    const int64_t pattern = 8 * m.bytes, inside = (int64_t)((uintptr_t)m.at % (uintptr_t)pattern);
    if (m.columns != transposed)
        mf__emulate_abort("%s: %s is %s-major, its product takes it as %s-major", mf__emulate_where(), what, m.columns ? "MN" : "K", transposed ? "MN" : "K");
    if (transposed ? inside != 0 || m.stride % 16 : inside + 32 > m.bytes || inside % 32)
        mf__emulate_abort("%s: %s: panel with rows of %d bytes begins at %s%s", mf__emulate_where(), what, m.bytes, place(m.at),
                          transposed ? ": not at a multiple of 8 rows" : ": not 16 of k within the first of 8 rows");
}

#ifdef __clang__
#define MF__VECTORS
#else
#define MF__VECTORS __attribute__((optimize("O3")))       /* below, gcc leaves the inner loop as it is */
#endif
MF__VECTORS void perform(product &p, int warp) {
    const mf__product_lane &w = p.what;
    static float a[16][16], b[16][256];
    if (w.left) memcpy(a, p.left, sizeof a);
    else load(w.a, w.bf16, 16 * warp, 16, &a[0][0], 1, 16, "operand a of a product");
    load(w.b, w.bf16, 0, w.n, &b[0][0], 256, 1, "operand b of a product");
    for (int row = 0; row < 16; row++) {
        float *c = p.c->value[row];
        if (!w.add) memset(c, 0, sizeof(float) * (size_t)w.n);
        for (int k = 0; k < 16; k++)
            for (int n = 0; n < w.n; n++) c[n] += a[row][k] * b[k][n];
    }
    p.done = true;
}

/* Between the registers of the lanes and rows: what(element of a lane, of a row). */
template <class F> void each(accumulators *c, F what) {
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < c->n / 2; i++) what(c->c[l][i], c->value[l / 4 + i / 2 % 2 * 8][i / 4 * 8 + l % 4 * 2 + i % 2]);
}

accumulators *accumulators_of(warp_products &w, void *const *lanes) {
    const mf__product_lane *first = static_cast<mf__product_lane *>(lanes[0]);
    for (auto &c : w.used) {
        if (c->c[0] == first->c && c->n == first->n) return c.get();
        if (c->c[0] < first->c + first->n / 2 && first->c < c->c[0] + c->n / 2)
            mf__emulate_abort("%s: a product takes accumulators of which another one of other size is under way", mf__emulate_where());
    }
    auto c = std::make_unique<accumulators>();
    c->n = first->n;
    c->products = 0;
    for (int l = 0; l < 32; l++) c->c[l] = static_cast<mf__product_lane *>(lanes[l])->c;
    each(c.get(), [](float &x, float &y) {
        y = x;
        x = NAN;
    });
    w.used.push_back(std::move(c));
    return w.used.back().get();
}

}  // namespace

/* ---- what the scheduler asks ---- */
bool mf__emulate_land() {
    if (transfers.empty()) return false;
    size_t at = 0;
    while (at + 1 < transfers.size() && mf__emulate_toss()) at++;
    const transfer t = transfers[at];
    transfers.erase(transfers.begin() + (std::ptrdiff_t)at);
    land(t);
    return true;
}

void mf__emulate_block_ends() {
    if (!transfers.empty()) mf__emulate_abort("%s: the block has ended, and nobody waited for a copy to %s", mf__emulate_where(), place(transfers[0].to));
    if (!bulks.empty()) mf__emulate_abort("%s: the block has ended, and thread %d did not wait for its bulk additions", mf__emulate_where(), bulks[0].thread);
    for (warp_products &w : of_warp) {
        if (!w.queue.empty()) mf__emulate_abort("%s: the block has ended, and nobody waited for a product", mf__emulate_where());
        w.group = 0;
        w.fenced = false;
    }
    registers.known = false;
}

const char *mf__emulate_sleep_text(const void *on, int parity) {
    static char text[160];
    if (on == &registers) {
        snprintf(text, sizeof text, "wait for registers: %d are left of a block that began with %d a thread", registers.left, registers_at_launch());
        return text;
    }
    word w;
    memcpy(&w, on, 8);
    snprintf(text, sizeof text, "wait for a phase of parity %d of the barrier at %s, which lacks %d of %d arrivals and %lld bytes", parity, place(on),
             (int)w.pending, (int)w.arrivals, (long long)w.bytes);
    return text;
}

/* ---- barriers ---- */
void mf__emulate_bar_init(mf_address bar, int arrivals) {
    if ((uintptr_t)bar % 8 || arrivals < 1 || arrivals > 0xffff)
        mf__emulate_abort("%s: mf__bar_init: %d arrivals at %s", mf__emulate_where(), arrivals, place(bar));
    word w = {};
    w.is = IS_BARRIER;
    w.arrivals = w.pending = (uint64_t)arrivals & 0xffff;
    memcpy(bar, &w, 8);
}

void mf__emulate_bar_arrive(mf_address bar, int bytes) {
    word w = barrier_at(bar, "an arrival");
    if (w.pending == 0)
        mf__emulate_abort("%s: more than %d arrivals in a phase of the barrier at %s, which still lacks %lld bytes", mf__emulate_where(), (int)w.arrivals,
                          place(bar), (long long)w.bytes);
    if (bytes < 0 || bytes >= 1 << 20) mf__emulate_abort("%s: mf__bar_expect of %d bytes", mf__emulate_where(), bytes);
    w.bytes += bytes;
    w.pending--;
    settle(bar, w);
    if (mf__emulate_toss()) mf__emulate_yield();
}

void mf__emulate_bar_await(mf_address bar, int parity) {
    if (parity != 0 && parity != 1) mf__emulate_abort("%s: mf__bar_await of parity %d", mf__emulate_where(), parity);
    if (barrier_at(bar, "mf__bar_await").phase == (uint64_t)parity) {
        mf__emulate_sleep(bar, parity, __builtin_return_address(0));
        if (barrier_at(bar, "mf__bar_await").phase == (uint64_t)parity)
            mf__emulate_abort("%s: the phase of the barrier at %s that it waits for ended, and so did the next before it could see that", mf__emulate_where(), place(bar));
    } else if (mf__emulate_toss()) {
        mf__emulate_yield();
    }
}

/* ---- copies ---- */
mf_status mf__map_make(mf_map *to, const void *base, int64_t columns, int64_t heads, int64_t rows, int64_t ld, int box_columns, int box_rows) {
    const bool sizes = columns > 0 && heads > 0 && rows > 0 && columns < 1LL << 32 && heads < 1LL << 32 && rows < 1LL << 32 && ld * heads * 2 < 1LL << 40;
    const bool box = (box_columns == 64 || box_columns == 32 || box_columns == 16) && box_rows > 0 && box_rows <= 256;
    if (!sizes || !box || (uintptr_t)base % 16 || ld % 8 || ld < 1)
        return mf__fail(MF_ESUPPORT, "cuda: no tensor map for (%lld, %lld, %lld) in rows of %lld: boxes of %d x %d from %p", (long long)rows, (long long)heads,
                        (long long)columns, (long long)ld, box_rows, box_columns, base);
    *to = {base, columns, heads, rows, ld, box_columns, box_rows};
    return MF_OK;
}

void mf__map_copy(mf_address to, const mf_map *map, mf_address bar, int column, int head, int64_t row) {
    const int64_t bytes = map->box_rows * map->box_columns * 2;
    barrier_at(bar, "mf__map_copy");
    if ((uintptr_t)map % 64) mf__emulate_abort("%s: mf__map_copy: a map that is not at a multiple of 64 bytes", mf__emulate_where());
    if ((uintptr_t)to % (uintptr_t)(map->box_columns * 16))
        mf__emulate_abort("%s: mf__map_copy: a panel of %lld columns at %s: not at a multiple of 8 rows", mf__emulate_where(), (long long)map->box_columns, place(to));
    if (row != (int32_t)row) mf__emulate_abort("%s: mf__map_copy: row %lld", mf__emulate_where(), (long long)row);
    need_shared(to, bytes, "mf__map_copy");
    memset(to, 0xff, (size_t)bytes);
    transfers.push_back({*map, to, bar, column, head, row});
    if (mf__emulate_toss()) mf__emulate_land();
}

void mf__emulate_bulk(float *to, const void *from, int floats) {
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16 || floats % 4 || floats < 0)
        mf__emulate_abort("%s: a bulk addition of %d floats from %s to %p: not in pieces of 16 bytes", mf__emulate_where(), floats, place(from), (void *)to);
    const bulk b = {to, (const float *)from, floats, (int)mf__emulate_thread(), false};
    if (mf__emulate_toss()) perform(b);
    else bulks.push_back(b);
}

void mf__emulate_bulk_commit() {
    for (bulk &b : bulks) b.committed |= b.thread == (int)mf__emulate_thread();
}

void mf__emulate_bulk_wait() {
    std::erase_if(bulks, [](const bulk &b) {
        const bool ends = b.committed && b.thread == (int)mf__emulate_thread();
        if (ends) perform(b);
        return ends;
    });
}

/* ---- products ---- */
void mf__product_fence_act(void *const *) { mine().fenced = true; }
void mf__product_commit_act(void *const *) { mine().group++; }

void mf__product_act(void *const *lanes) {
    warp_products &w = mine();
    const int warp = (int)(mf__emulate_thread() / 32);
    product p = {};
    p.what = *static_cast<mf__product_lane *>(lanes[0]);
    for (int l = 0; l < 32; l++) {
        const mf__product_lane *lane = static_cast<mf__product_lane *>(lanes[l]);
        if (!lane) mf__emulate_abort("%s: a product without lane %d", mf__emulate_where(), l);
        if (lane->n != p.what.n || lane->add != p.what.add || lane->a.at != p.what.a.at || lane->b.at != p.what.b.at || !lane->left != !p.what.left)
            mf__emulate_abort("%s: lane %d asks for another product than lane 0", mf__emulate_where(), l);
        for (int i = 0; lane->left && i < 8; i++) {
            uint16_t bits;
            memcpy(&bits, (const char *)lane->left + 2 * i, 2);
            p.left[l / 4 + i / 2 % 2 * 8][l % 4 * 2 + i / 4 * 8 + i % 2] = element(p.what.bf16, bits);
        }
    }
    if (warp / 4 * 4 + 4 > (int)(blockDim.x * blockDim.y * blockDim.z) / 32) mf__emulate_abort("%s: a product in a warpgroup of less than 4 warps", mf__emulate_where());
    if (!w.fenced) mf__emulate_abort("%s: a product, and no mf__wgmma_fence since the wait before", mf__emulate_where());
    if (!p.what.left) check_matrix(p.what.a, p.what.ta, "operand a");
    check_matrix(p.what.b, p.what.tb, "operand b");
    p.group = w.group;
    p.c = accumulators_of(w, lanes);
    p.c->products++;
    w.queue.push_back(p);
    if (mf__emulate_toss())
        for (product &q : w.queue)
            if (!q.done) perform(q, warp % 4);
}

void mf__product_wait_act(void *const *lanes) {
    warp_products &w = mine();
    const int warp = (int)(mf__emulate_thread() / 32), left = *static_cast<int *>(lanes[0]);
    size_t ended = 0;
    for (; ended < w.queue.size() && w.queue[ended].group < w.group - left; ended++) {
        product &p = w.queue[ended];
        if (!p.done) perform(p, warp % 4);
        if (--p.c->products) continue;
        each(p.c, [](float &x, float &y) { x = y; });
        for (size_t i = 0; i < w.used.size(); i++)
            if (w.used[i].get() == p.c) {
                w.used.erase(w.used.begin() + (std::ptrdiff_t)i);
                break;
            }
    }
    w.queue.erase(w.queue.begin(), w.queue.begin() + (std::ptrdiff_t)ended);
    w.fenced = false;
}

/* ---- registers ---- */
void mf__emulate_registers(int count, bool more) {
    void *site = __builtin_return_address(0);
    for (;;) {
        register_lane lane = {count, more, false, 0};
        mf__warp_meet(0xffffffffu, registers_act, &lane);
        if (lane.done) return;
        if (lane.given == registers.given) mf__emulate_sleep(&registers, 0, site);
    }
}
