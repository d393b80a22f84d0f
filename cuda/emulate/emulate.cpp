/* emulate.cpp: the threads of a block as fibers.
 *
 * A fiber is a stack. It takes a thread that has not started, runs it, and when it returns takes the next: threads that never wait all
 * run on one fiber, and cost a call each. A thread that waits keeps its fiber; another fiber goes on. `ready` holds the threads
 * that may run: first all of them, later those that a barrier or a warp operation let go. When it is empty and threads are left, they
 * wait for what cannot come, and the run aborts with a list of who waits where.
 *
 * The last to arrive at a barrier or a warp operation completes it and runs on. A thread that returns no longer counts in
 * either, as on the device. With MOONFOLD_EMULATE_ORDER=random:<seed> the next thread is drawn, also after each completion, and
 * blocks are walked with a random stride.
 *
 * One launch at a time: a lock is held while a grid runs. */
#include <cstdarg>
#include <csignal>
#include <cstdlib>
#include <dlfcn.h>
#include <mutex>
#include <sys/mman.h>
#if !defined(__x86_64__) || defined(MF_EMULATE_UCONTEXT)
#define MF__UCONTEXT 1
#include <ucontext.h>
#endif
#include "emulate.h"
#include "inner.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {

/* ---- fibers ---- */
constexpr int64_t STACK = 256 << 10;
constexpr int MOST = 1024;
constexpr int64_t SHARED = 227 << 10;

struct fiber {
#ifdef MF__UCONTEXT
    ucontext_t context;
#else
    void *sp;
#endif
    fiber *next;                  /* in the list of idle ones */
};

#ifdef MF__UCONTEXT
void change(fiber *from, fiber *to) { swapcontext(&from->context, &to->context); }
#else
extern "C" void mf__fiber_change(void **save, void *to);
asm(R"(
.text
.hidden mf__fiber_change
.globl mf__fiber_change
.type mf__fiber_change, @function
mf__fiber_change:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size mf__fiber_change, . - mf__fiber_change
)");
inline void change(fiber *from, fiber *to) { mf__fiber_change(&from->sp, to->sp); }
#endif

/* ---- the block that runs ---- */
enum { RUNS, AT_BARRIER, IN_WARP, ASLEEP, RETURNED };
struct thread {
    fiber *on;                    /* NULL before it starts */
    uint3 index;
    int state;
    int barrier, kind, expected, result;     /* at a barrier */
    bool predicate;
    unsigned mask;                /* in a warp operation */
    mf__warp_act *act;
    void *mine;
    const void *sleeps_on;        /* asleep */
    int detail;
    void *site;                   /* where it was called */
};
struct warp {
    unsigned live, waiting;       /* lanes */
};
struct barrier {
    int waiting;
};

thread threads[MOST];
warp warps[MOST / 32];
barrier barriers[16];
int n_threads, n_live;
thread *current;
thread *ready[MOST];
int ready_first, ready_count;
fiber main_fiber, fibers[MOST], *idle;
int n_fibers;
char *stacks, *shared_area, *shared_now;
int64_t shared_size;
void (*body)(void *);
void *argument;
const char *kernel_name = "a kernel";
bool in_kernel;
uint64_t random_state;            /* 0: in order */
std::recursive_mutex lock;

uint64_t draw() {                 /* xorshift64* */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1dull;
}

int lane_of(const thread *t) { return (int)(t - threads) & 31; }
warp *warp_of(const thread *t) { return &warps[(t - threads) >> 5]; }

void make_ready(thread *t) {
    t->state = RUNS;
    ready[(ready_first + ready_count++) & (MOST - 1)] = t;
}

thread *take_ready() {
    while (ready_count == 0)
        if (n_live == 0 || !mf__emulate_land()) return nullptr;
    if (random_state) {
        const int at = (ready_first + (int)(draw() % (uint64_t)ready_count)) & (MOST - 1);
        std::swap(ready[at], ready[ready_first]);
    }
    thread *t = ready[ready_first];
    ready_first = (ready_first + 1) & (MOST - 1);
    ready_count--;
    return t;
}

/* ---- who waits where ---- */
void print_waiting() {
    for (int i = 0; i < n_threads;) {
        const thread *t = &threads[i];
        int last = i;
        while (last + 1 < n_threads && threads[last + 1].state == t->state && threads[last + 1].site == t->site
               && (t->state != IN_WARP || threads[last + 1].mask == t->mask)
               && (t->state != AT_BARRIER || threads[last + 1].barrier == t->barrier)
               && (t->state != ASLEEP || (threads[last + 1].sleeps_on == t->sleeps_on && threads[last + 1].detail == t->detail))) last++;
        fprintf(stderr, "    threads %d to %d: ", i, last);
        Dl_info where = {};
        if (t->state != RETURNED) dladdr(t->site, &where);
        const long offset = where.dli_fbase ? (long)((char *)t->site - (char *)where.dli_fbase) : 0;
        if (t->state == RETURNED) fprintf(stderr, "have returned\n");
        else if (t->state == AT_BARRIER) fprintf(stderr, "at barrier %d%s (addr2line -e %s %#lx)\n", t->barrier,
                                                 t->kind ? ", counting" : "", where.dli_fname ? where.dli_fname : "?", offset);
        else if (t->state == IN_WARP) fprintf(stderr, "in a warp operation of mask %08x (addr2line -e %s %#lx)\n", t->mask,
                                              where.dli_fname ? where.dli_fname : "?", offset);
        else if (t->state == ASLEEP) fprintf(stderr, "%s (addr2line -e %s %#lx)\n", mf__emulate_sleep_text(t->sleeps_on, t->detail),
                                             where.dli_fname ? where.dli_fname : "?", offset);
        else fprintf(stderr, "can run\n");
        i = last + 1;
    }
}

[[noreturn]] void stuck() {
    fprintf(stderr, "\nemulator: %s: threads wait for each other in vain\n", mf__emulate_where());
    print_waiting();
    abort();
}

/* ---- completing ---- */
/* Runs the warp operation that lane `t` waits in if all that are needed wait in it too. */
bool complete_warp(thread *t) {
    warp *w = warp_of(t);
    const unsigned needed = t->mask & w->live;
    if ((w->waiting & needed) != needed) return false;
    thread *first = threads + (t - threads) / 32 * 32;
    void *lanes[32];
    for (int i = 0; i < 32; i++) {
        lanes[i] = nullptr;
        if (!(needed >> i & 1)) continue;
        if (first[i].mask != t->mask || first[i].act != t->act) return false;
        lanes[i] = first[i].mine;
    }
    t->act(lanes);
    w->waiting &= ~needed;
    for (int i = 0; i < 32; i++)
        if ((needed >> i & 1) && (&first[i] != current || random_state)) make_ready(&first[i]);
    return true;
}

bool complete_barrier(int id, int expected) {
    barrier *b = &barriers[id];
    if (b->waiting < (expected ? expected : n_live) || b->waiting == 0) return false;
    int count = 0, kind = -1;
    for (int i = 0; i < n_threads; i++) {
        const thread *t = &threads[i];
        if (t->state != AT_BARRIER || t->barrier != id) continue;
        count += t->predicate;
        if (kind >= 0 && kind != t->kind) {
            fprintf(stderr, "\nemulator: %s: different operations meet at barrier %d\n", mf__emulate_where(), id);
            print_waiting();
            abort();
        }
        kind = t->kind;
    }
    for (int i = 0; i < n_threads; i++) {
        thread *t = &threads[i];
        if (t->state != AT_BARRIER || t->barrier != id) continue;
        t->result = count;
        if (t != current || random_state) make_ready(t);
    }
    b->waiting = 0;
    return true;
}

/* ---- going on with another thread ---- */
void run_threads();

#ifndef MF__UCONTEXT
void entry() { run_threads(); }
#endif

fiber *take_fiber() {
    if (idle) {
        fiber *f = idle;
        idle = f->next;
        return f;
    }
    fiber *f = &fibers[n_fibers];
    /* tops are staggered: stacks a power of two apart would share cache sets */
    char *top = stacks + (int64_t)(n_fibers + 1) * STACK - (n_fibers % 61) * 320 - 64;
    top = (char *)((uintptr_t)top & ~(uintptr_t)63);
#ifdef MF__UCONTEXT
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = stacks + (int64_t)n_fibers * STACK + 4096;
    f->context.uc_stack.ss_size = (size_t)(top - (char *)f->context.uc_stack.ss_sp);
    f->context.uc_link = nullptr;
    makecontext(&f->context, run_threads, 0);
#else
    void **sp = (void **)top;
    *--sp = nullptr;              /* where a debugger stops */
    *--sp = (void *)entry;
    for (int i = 0; i < 6; i++) *--sp = nullptr;
    f->sp = sp;
#endif
    n_fibers++;
    return f;
}

void enter(thread *t) {
    current = t;
    threadIdx = t->index;
}

/* The current thread waits: another one runs. */
void wait() {
    thread *me = current, *next = take_ready();
    if (!next) stuck();
    if (next == me) return;
    if (!next->on) next->on = take_fiber();
    enter(next);
    change(me->on, next->on);
}

void returned(thread *t) {
    warp *w = warp_of(t);
    t->state = RETURNED;
    w->live &= ~(1u << lane_of(t));
    n_live--;
    if (w->waiting) {             /* those who waited for this lane */
        thread *first = threads + (t - threads) / 32 * 32;
        for (int i = 0; i < 32; i++)
            if ((w->waiting >> i & 1) && (first[i].mask >> lane_of(t) & 1)) complete_warp(&first[i]);
    }
    if (barriers[0].waiting && barriers[0].waiting == n_live) complete_barrier(0, 0);
}

/* What a fiber does all its life. */
void run_threads() {
    for (;;) {
        fiber *me = current->on;
        body(argument);
        returned(current);
        thread *next = take_ready();
        if (next && !next->on) {
            next->on = me;
            enter(next);
            continue;
        }
        if (!next && n_live) stuck();
        me->next = idle;
        idle = me;
        if (next) {
            enter(next);
            change(me, next->on);
        } else {
            change(me, &main_fiber);
        }
    }
}

void run_block() {
    n_live = n_threads;
    for (int i = 0; i < n_threads; i++) {
        threads[i].on = nullptr;
        threads[i].state = RUNS;
        ready[i] = &threads[i];
    }
    ready_first = 0;
    ready_count = n_threads;
    for (int i = 0; i < (n_threads + 31) / 32; i++) {
        const int lanes = n_threads - 32 * i < 32 ? n_threads - 32 * i : 32;
        warps[i] = {lanes == 32 ? ~0u : (1u << lanes) - 1, 0};
    }
    memset(barriers, 0, sizeof barriers);
    if (shared_size) memset(shared_now, 0xff, (size_t)(shared_area + SHARED - shared_now));
    thread *first = take_ready();
    first->on = take_fiber();
    enter(first);
    change(&main_fiber, first->on);
    mf__emulate_block_ends();
    for (char *p = shared_now + shared_size; shared_size && p < shared_area + SHARED; p++)
        if (*p != (char)0xff) mf__emulate_abort("%s: wrote past the %lld bytes of dynamic shared memory", mf__emulate_where(), (long long)shared_size);
}

/* ---- signals: what went wrong, and in which thread ---- */
struct sigaction before_segv, before_ill;
void on_signal(int number, siginfo_t *info, void *) {
    mf__emulate_fault(number == SIGSEGV ? info->si_addr : nullptr, number == SIGILL);
    sigaction(number, number == SIGILL ? &before_ill : &before_segv, nullptr);
}

void prepare() {
    if (stacks) return;
    stacks = (char *)mmap(nullptr, (size_t)(MOST * STACK), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    const int64_t whole = (SHARED + 4096 + 4095) & ~(int64_t)4095;      /* ends where a page does */
    char *area = (char *)mmap(nullptr, (size_t)whole + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stacks == MAP_FAILED || area == MAP_FAILED) mf__emulate_abort("no memory for the stacks of threads");
    for (int i = 0; i < MOST; i++) mprotect(stacks + i * STACK, 4096, PROT_NONE);
    shared_area = area + whole - SHARED;
    mprotect(area + whole, 4096, PROT_NONE);
    const char *order = getenv("MOONFOLD_EMULATE_ORDER");
    if (order && !strncmp(order, "random", 6)) random_state = order[6] == ':' ? strtoull(order + 7, nullptr, 10) * 0x9e3779b97f4a7c15ull | 1 : 1;
    static char alternate[64 << 10];
    const stack_t s = {alternate, 0, sizeof alternate};
    sigaltstack(&s, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &before_segv);
    sigaction(SIGILL, &action, &before_ill);
}

}  // namespace

void mf__emulate_abort(const char *format, ...) {
    va_list list;
    va_start(list, format);
    fputs("\nemulator: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    abort();
}

const char *mf__emulate_where() {
    static char text[256];
    if (!in_kernel) return "the host";
    snprintf(text, sizeof text, "%.120s, block (%u, %u, %u) of (%u, %u, %u), thread (%u, %u, %u) of (%u, %u, %u)", kernel_name, blockIdx.x,
             blockIdx.y, blockIdx.z, gridDim.x, gridDim.y, gridDim.z, threadIdx.x, threadIdx.y, threadIdx.z, blockDim.x, blockDim.y, blockDim.z);
    return text;
}

void mf__emulate_fault(void *address, bool trap) {
    if (trap) {
        if (in_kernel) mf__emulate_abort("%s: -fsanitize trapped: alignment, array bound, shift or division (gdb shows the line)", mf__emulate_where());
        return;
    }
    const char *region = mf__emulate_region(address);
    if (in_kernel && (char *)address >= stacks && (char *)address < stacks + MOST * STACK)
        mf__emulate_abort("%s: the stack overflowed", mf__emulate_where());
    if (in_kernel && (char *)address >= shared_area && (char *)address < shared_area + SHARED + 4096)
        mf__emulate_abort("%s: past the end of dynamic shared memory", mf__emulate_where());
    if (region) mf__emulate_abort("%s: touches %s at %p", mf__emulate_where(), region, address);
    if (in_kernel) mf__emulate_abort("%s: bad address %p", mf__emulate_where(), address);
    if ((uintptr_t)address < 4096) fputs("\nemulator: the host follows a null pointer; in a PARTIAL build perhaps to a kernel that is not there\n", stderr);
}

void *mf__emulate_shared() { return shared_now; }

int64_t mf__emulate_shared_bytes() { return shared_size; }

void mf__emulate_name(const char *kernel) { kernel_name = kernel; }

const char *mf__emulate_kernel() { return kernel_name; }

int mf__emulate_barrier(int id, int expected, int kind, bool predicate) {
    thread *me = current;
    if (!in_kernel || id < 0 || id > 15) mf__emulate_abort("%s: barrier %d", mf__emulate_where(), id);
    me->state = AT_BARRIER;
    me->barrier = id;
    me->kind = kind;
    me->expected = expected;
    me->predicate = predicate;
    me->site = __builtin_return_address(0);
    barriers[id].waiting++;
    if (!complete_barrier(id, expected) || random_state) wait();
    me->state = RUNS;
    return me->result;
}

void mf__emulate_sleep(const void *on, int detail, void *site) {
    current->state = ASLEEP;
    current->sleeps_on = on;
    current->detail = detail;
    current->site = site;
    wait();
}

void mf__emulate_wake(const void *on, int detail) {
    for (int i = 0; i < n_threads; i++)
        if (threads[i].state == ASLEEP && threads[i].sleeps_on == on && threads[i].detail == detail) make_ready(&threads[i]);
}

bool mf__emulate_toss() { return random_state && draw() >> 63; }

void mf__emulate_yield() {
    make_ready(current);
    wait();
}

void mf__warp_meet(unsigned mask, mf__warp_act *act, void *mine) {
    thread *me = current;
    if (!in_kernel) mf__emulate_abort("a warp operation outside of a kernel");
    if (!(mask >> lane_of(me) & 1)) mf__emulate_abort("%s: not in the mask %08x of its own warp operation", mf__emulate_where(), mask);
    me->state = IN_WARP;
    me->mask = mask;
    me->act = act;
    me->mine = mine;
    me->site = __builtin_return_address(0);
    warp_of(me)->waiting |= 1u << lane_of(me);
    if (!complete_warp(me) || random_state) wait();
    me->state = RUNS;
}

#define MF__VOTE(name, start, combine)                                                      \
    void name(void *const *lanes) {                                                         \
        unsigned y = start;                                                                 \
        for (int i = 0; i < 32; i++) {                                                      \
            if (!lanes[i]) continue;                                                        \
            const unsigned x = static_cast<mf__vote *>(lanes[i])->value;                    \
            y = combine;                                                                    \
        }                                                                                   \
        for (int i = 0; i < 32; i++)                                                        \
            if (lanes[i]) static_cast<mf__vote *>(lanes[i])->result = y;                    \
    }
MF__VOTE(mf__ballot_act, 0, y | (x & 1) << i)
MF__VOTE(mf__sum_act, 0, y + x)
MF__VOTE(mf__and_act, ~0u, y & x)
MF__VOTE(mf__or_act, 0, y | x)
MF__VOTE(mf__xor_act, 0, y ^ x)
MF__VOTE(mf__min_act, ~0u, x < y ? x : y)
MF__VOTE(mf__max_act, 0, x > y ? x : y)
MF__VOTE(mf__signed_min_act, 0x7fffffffu, (unsigned)((int)x < (int)y ? (int)x : (int)y))
MF__VOTE(mf__signed_max_act, 0x80000000u, (unsigned)((int)x > (int)y ? (int)x : (int)y))

void mf__emulate_run(dim3 grid, dim3 block, int64_t shared_bytes, void (*run)(void *), void *with) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    prepare();
    if (in_kernel) mf__emulate_abort("%s: launches a kernel", mf__emulate_where());
    const int64_t count = (int64_t)block.x * block.y * block.z;
    if (count < 1 || count > MOST || block.z > 64 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        mf__emulate_abort("%s: grid (%u, %u, %u) of blocks (%u, %u, %u) is refused by the device", kernel_name, grid.x, grid.y, grid.z, block.x, block.y, block.z);
    if (shared_bytes < 0 || shared_bytes > SHARED)
        mf__emulate_abort("%s: %lld bytes of shared memory; a block has %lld", kernel_name, (long long)shared_bytes, (long long)SHARED);
    n_threads = (int)count;
    for (int i = 0; i < n_threads; i++) {
        const unsigned u = (unsigned)i;
        threads[i].index = uint3{u % block.x, u / block.x % block.y, u / block.x / block.y};
    }
    gridDim = grid;
    blockDim = block;
    body = run;
    argument = with;
    shared_size = shared_bytes;
    shared_now = (char *)((uintptr_t)(shared_area + SHARED - shared_bytes) & ~(uintptr_t)1023);     /* tensor copies take 1024 */
    mf__emulate_open(true);
    in_kernel = true;
    const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    uint64_t stride = 1, at = 0;
    if (random_state) {           /* a stride that visits every block once */
        at = draw() % blocks;
        stride = draw() % blocks | 1;
        auto common = [](uint64_t a, uint64_t b) { while (b) { const uint64_t c = a % b; a = b; b = c; } return a; };
        while (common(stride, blocks) != 1) stride++;
    }
    for (uint64_t i = 0; i < blocks; i++) {
        blockIdx = uint3{(unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y), (unsigned)(at / grid.x / grid.y)};
        run_block();
        at = (at + stride) % blocks;
    }
    in_kernel = false;
    mf__emulate_open(false);
}
