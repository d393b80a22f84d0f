/* optim.cu: optimizers over many tensors in one pass, and the norm of their gradients.
 *
 *   norm = sqrt(sum of squares of all gradients);  scale = min(1, clip / norm), or -1 where the norm is not finite
 *   g = scale g  (+ weight_decay p unless decoupled);  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 *   p = (1 - lr weight_decay) p  (decoupled);  p = p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)
 *   average = decay average + (1 - decay) p
 *   SGD: velocity = momentum velocity + scale g + weight_decay p;  p = p - lr velocity
 *
 * Everything that changes from step to step (t, lr, scale, whether to skip) is read from the control tensor, so a captured step
 * replays truly. Addresses and sizes of up to 512 tensors go in the kernel's parameters (26 KB of the 32 KB that CUDA 12.1 and
 * later take), so a model is one launch, two where it has more.
 *
 * Traffic   Adam in float32 28 bytes an element, 36 with the average; the norm 4
 * Work      some 12 operations an element
 * Mapping   a block of 256 threads takes 4096 elements of one tensor, which it finds by bisection in the list of first blocks;
 *           16-byte accesses where every array of the tensor is aligned
 * Numerics  the update in the parameter's type with constants rounded from double once a block, as on the CPU; squares are
 *           summed in double: float32 gradients neither overflow nor lose the small ones
 * Order     a block sums its squares by a tree, one block sums those of all blocks: fixed by the sizes alone. Bitwise deterministic. */
#include "common.cuh"
#include "table.cuh"

static constexpr int THREADS = 256, CHUNK = 4096, FEW = 64, MOST = 512;

template <int N> struct tensor_list {
    int count;
    int first_block[N + 1];       /* of each tensor */
    int64_t n[N];
    void *p[N], *m[N], *v[N], *average[N];
    const void *g[N];
};
static_assert(sizeof(tensor_list<MOST>) < 32000, "kernel parameters end at 32764 bytes");

/* The part of a tensor that belongs to this block. */
struct part {
    int tensor;
    int64_t begin, end;
};
template <int N> static __device__ inline part part_of(const tensor_list<N> &list) {
    int low = 0, high = list.count;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (list.first_block[middle] <= (int)blockIdx.x) low = middle;
        else high = middle;
    }
    const int64_t begin = (int64_t)((int)blockIdx.x - list.first_block[low]) * CHUNK;
    return {low, begin, begin + CHUNK < list.n[low] ? begin + CHUNK : list.n[low]};
}

template <class T> struct alignas(16) pack {
    static constexpr int V = 16 / (int)sizeof(T);
    T at[V];
};
static __device__ inline bool aligned(const void *p) { return ((uintptr_t)p & 15) == 0; }

/* Calls each(i, whole) for the places of this block: i begins a vector (whole) or is one element. */
template <class T, class F> static __device__ inline void each_place(part mine, bool vectors, F each) {
    constexpr int V = pack<T>::V;
    int64_t i = mine.begin + (int64_t)threadIdx.x * (vectors ? V : 1);
    if (vectors) {
        for (; i + V <= mine.end; i += THREADS * V) each(i, std::true_type{});
        if (i < mine.end)
            for (; i < mine.end; i++) each(i, std::false_type{});
    } else {
        for (; i < mine.end; i += THREADS) each(i, std::false_type{});
    }
}
/* x[0 .. count-1] from or to memory. */
template <class T, class W> static __device__ inline void load(T *x, const void *from, int64_t i, W whole) {
    if constexpr (W::value) *(pack<T> *)x = *(const pack<T> *)((const T *)from + i);
    else x[0] = ((const T *)from)[i];
}
template <class T, class W> static __device__ inline void store(const T *x, void *to, int64_t i, W whole) {
    if constexpr (W::value) *(pack<T> *)((T *)to + i) = *(const pack<T> *)x;
    else ((T *)to)[i] = x[0];
}

/* ---- the norm ---- */
template <class T, int N>
static __global__ void __launch_bounds__(THREADS) squares_kernel(const __grid_constant__ tensor_list<N> list, double *sums) {
    __shared__ double slots[32];
    const part mine = part_of(list);
    const void *g = list.g[mine.tensor];
    double sum = 0;
    if (aligned(g) && mine.end - mine.begin == CHUNK) {        /* all loads of a full block are under way together */
        constexpr int V = pack<T>::V, ROUNDS = CHUNK / (THREADS * V);
        pack<T> x[ROUNDS];
#pragma unroll
        for (int round = 0; round < ROUNDS; round++)
            x[round] = *(const pack<T> *)((const T *)g + mine.begin + (round * THREADS + (int)threadIdx.x) * V);
#pragma unroll
        for (int round = 0; round < ROUNDS; round++)
#pragma unroll
            for (int k = 0; k < V; k++) sum += (double)x[round].at[k] * (double)x[round].at[k];
    } else {
        each_place<T>(mine, false, [&](int64_t i, auto) {
            const double x = (double)((const T *)g)[i];
            sum += x * x;
        });
    }
    sum = mf__block_sum(sum, slots);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

static constexpr int JOIN = 1024;
static __device__ inline double joined(int64_t n, const double *sums) {
    __shared__ double slots[32];
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += JOIN) sum += sums[i];
    return mf__block_sum(sum, slots);
}
static __global__ void __launch_bounds__(JOIN) control_kernel(int64_t n, const double *sums, double *control) {
    const double norm = sqrt(joined(n, sums));
    if (threadIdx.x > 0) return;
    const double clip = control[MF_CONTROL_CLIP];
    const bool finite = norm <= 1.7976931348623157e308;
    control[MF_CONTROL_NORM] = norm;
    control[MF_CONTROL_SCALE] = !finite ? -1 : norm > clip ? clip / norm : 1;
    control[finite ? MF_CONTROL_STEPS : MF_CONTROL_SKIPPED] += 1;
}
static __global__ void __launch_bounds__(JOIN) total_kernel(int64_t n, const double *sums, double *total) {
    const double sum = joined(n, sums);
    if (threadIdx.x == 0) *total = sum;
}

/* ---- updates ---- */
template <class T> struct averaging {
    T kept, taken;
    bool on;
};
template <class T> static averaging<T> averaging_of(double decay, const mf_optim_item *item) {
    return {(T)decay, (T)(1 - decay), item->average != nullptr};
}

struct adam_constants {
    double beta1, beta2, epsilon, weight_decay;
    int decoupled;
    /* where control is NULL */
    double lr, scale, step;
};
template <class T> struct adam_numbers {
    T scale, rate, unbias, shrink;
};
template <class T> static __device__ inline adam_numbers<T> adam_of(const adam_constants &a, double lr, double scale, double step) {
    return {(T)scale, (T)(lr / (1 - pow(a.beta1, step))), (T)(1 / sqrt(1 - pow(a.beta2, step))),
            (T)(a.decoupled ? 1 - lr * a.weight_decay : 1)};
}

template <class T, int N>
static __global__ void __launch_bounds__(THREADS) adam_kernel(const __grid_constant__ tensor_list<N> list, const adam_constants a, const double *control,
                                                              int group, const averaging<T> average) {
    __shared__ adam_numbers<T> numbers;
    if (threadIdx.x == 0)
        numbers = control ? adam_of<T>(a, control[MF_CONTROL_RATE + group], control[MF_CONTROL_SCALE], control[MF_CONTROL_STEPS])
                          : adam_of<T>(a, a.lr, a.scale, a.step);
    const part mine = part_of(list);
    T *const p = (T *)list.p[mine.tensor], *const m = (T *)list.m[mine.tensor], *const v = (T *)list.v[mine.tensor];
    T *const mean = (T *)list.average[mine.tensor];
    const T *const g = (const T *)list.g[mine.tensor];
    const T b1 = (T)a.beta1, b2 = (T)a.beta2, c1 = (T)(1 - a.beta1), c2 = (T)(1 - a.beta2), epsilon = (T)a.epsilon;
    const T decay = (T)(a.decoupled ? 0 : a.weight_decay);
    __syncthreads();
    const adam_numbers<T> now = numbers;
    const bool update = now.scale >= 0;
    if (!update && !average.on) return;
    const bool vectors = aligned(p) && aligned(m) && aligned(v) && aligned(g) && (!average.on || aligned(mean));
    each_place<T>(mine, vectors, [&](int64_t i, auto whole) {
        constexpr int V = pack<T>::V;
        alignas(16) T pi[V], mi[V], vi[V], gi[V], ai[V];
        load(pi, p, i, whole);
        if (average.on) load(ai, mean, i, whole);
        if (update) {
            load(gi, g, i, whole);
            load(mi, m, i, whole);
            load(vi, v, i, whole);
#pragma unroll
            for (int k = 0; k < (whole.value ? V : 1); k++) {
                const T gk = now.scale * gi[k] + decay * pi[k];
                mi[k] = b1 * mi[k] + c1 * gk;
                vi[k] = b2 * vi[k] + c2 * gk * gk;
                pi[k] = now.shrink * pi[k] - now.rate * mi[k] / (sqrt(vi[k]) * now.unbias + epsilon);
            }
            store(mi, m, i, whole);
            store(vi, v, i, whole);
            store(pi, p, i, whole);
        }
        if (average.on) {
#pragma unroll
            for (int k = 0; k < (whole.value ? V : 1); k++) ai[k] = average.kept * ai[k] + average.taken * pi[k];
            store(ai, mean, i, whole);
        }
    });
}

struct sgd_constants {
    double momentum, weight_decay;
    double lr;                    /* where control is NULL */
};

template <class T, int N>
static __global__ void __launch_bounds__(THREADS) sgd_kernel(const __grid_constant__ tensor_list<N> list, const sgd_constants a, const double *control,
                                                             int group, const averaging<T> average) {
    const part mine = part_of(list);
    T *const p = (T *)list.p[mine.tensor], *const velocity = (T *)list.m[mine.tensor], *const mean = (T *)list.average[mine.tensor];
    const T *const g = (const T *)list.g[mine.tensor];
    const T momentum = (T)a.momentum, decay = (T)a.weight_decay;
    const T scale = (T)(control ? control[MF_CONTROL_SCALE] : 1), lr = (T)(control ? control[MF_CONTROL_RATE + group] : a.lr);
    const bool update = scale >= 0;
    if (!update && !average.on) return;
    const bool vectors = aligned(p) && aligned(g) && (!velocity || aligned(velocity)) && (!average.on || aligned(mean));
    each_place<T>(mine, vectors, [&](int64_t i, auto whole) {
        constexpr int V = pack<T>::V;
        alignas(16) T pi[V], gi[V], vi[V], ai[V];
        load(pi, p, i, whole);
        if (average.on) load(ai, mean, i, whole);
        if (update) {
            load(gi, g, i, whole);
            if (velocity) load(vi, velocity, i, whole);
#pragma unroll
            for (int k = 0; k < (whole.value ? V : 1); k++) {
                T step = scale * gi[k] + decay * pi[k];
                if (velocity) vi[k] = step = momentum * vi[k] + step;
                pi[k] -= lr * step;
            }
            if (velocity) store(vi, velocity, i, whole);
            store(pi, p, i, whole);
        }
        if (average.on) {
#pragma unroll
            for (int k = 0; k < (whole.value ? V : 1); k++) ai[k] = average.kept * ai[k] + average.taken * pi[k];
            store(ai, mean, i, whole);
        }
    });
}

template <class T, int N>
static __global__ void __launch_bounds__(THREADS) average_kernel(const __grid_constant__ tensor_list<N> list, const averaging<T> average) {
    const part mine = part_of(list);
    const T *const p = (const T *)list.p[mine.tensor];
    T *const mean = (T *)list.average[mine.tensor];
    each_place<T>(mine, aligned(p) && aligned(mean), [&](int64_t i, auto whole) {
        constexpr int V = pack<T>::V;
        alignas(16) T pi[V], ai[V];
        load(pi, p, i, whole);
        load(ai, mean, i, whole);
#pragma unroll
        for (int k = 0; k < (whole.value ? V : 1); k++) ai[k] = average.kept * ai[k] + average.taken * pi[k];
        store(ai, mean, i, whole);
    });
}

/* ---- lists into launches ---- */

/* The next items of type T from *at on that fill a list. */
template <class T, int N> static int64_t fill(tensor_list<N> *list, const mf_optim_item *items, int64_t count, int64_t *at) {
    const int dtype = sizeof(T) == 4 ? MF_FLOAT32 : MF_FLOAT64;
    int64_t blocks = 0;
    list->count = 0;
    for (; *at < count && list->count < N && blocks < (1 << 30); (*at)++) {
        const mf_optim_item *x = &items[*at];
        if (x->dtype != dtype || x->n == 0) continue;
        const int k = list->count++;
        list->first_block[k] = (int)blocks;
        list->n[k] = x->n;
        list->p[k] = x->p;
        list->m[k] = x->m;
        list->v[k] = x->v;
        list->g[k] = x->g;
        list->average[k] = x->average;
        blocks += mf__blocks(x->n, CHUNK);
    }
    list->first_block[list->count] = (int)blocks;
    return blocks;
}

static double elements(const mf_optim_item *items, int64_t count) {
    double n = 0;
    for (int64_t i = 0; i < count; i++) n += (double)items[i].n;
    return n;
}

/* launch(list, blocks) for all items of type T. */
template <class T, int N, class F> static mf_status in_lists_of(const mf_optim_item *items, int64_t count, F launch) {
    tensor_list<N> list = {};
    for (int64_t at = 0; at < count;) {
        const int64_t blocks = fill<T>(&list, items, count, &at);
        if (blocks > 0) MF_TRY(launch(list, blocks));
    }
    return MF_OK;
}
template <class F> static mf_status in_lists(const mf_optim_item *items, int64_t count, F launch) {
    int64_t of_type[2] = {0, 0};
    for (int64_t i = 0; i < count; i++) {
        if (!mf__is_real(items[i].dtype)) return mf__fail(MF_ESUPPORT, "cuda: optimizers have no kernel for %s", mf_dtype_name(items[i].dtype));
        of_type[items[i].dtype == MF_FLOAT64]++;
    }
    if (of_type[0] > FEW) MF_TRY((in_lists_of<float, MOST>(items, count, launch.template of<float, MOST>())));
    else if (of_type[0] > 0) MF_TRY((in_lists_of<float, FEW>(items, count, launch.template of<float, FEW>())));
    if (of_type[1] > 0) MF_TRY((in_lists_of<double, FEW>(items, count, launch.template of<double, FEW>())));
    return MF_OK;
}

struct squares {
    mf_device *d;
    double *sums;
    int64_t *used;
    template <class T, int N> auto of() const {
        return [*this](const tensor_list<N> &list, int64_t blocks) {
            double *here = sums + *used;
            *used += blocks;
            return MF_LAUNCH(d, (squares_kernel<T, N>), (unsigned)blocks, THREADS, 0, list, here);
        };
    }
};

static int64_t blocks_of(const mf_optim_item *items, int64_t count) {
    int64_t blocks = 0;
    for (int64_t i = 0; i < count; i++) blocks += mf__blocks(items[i].n, CHUNK);
    return blocks;
}

static mf_status square_sums(mf_device *d, mf_scratch *sums, const mf_optim_item *items, int64_t count, int64_t *used) {
    MF_TRY(sums->take(d, (blocks_of(items, count) + 1) * (int64_t)sizeof(double)));
    mf__cuda_work(d, 2 * elements(items, count), 4 * elements(items, count));
    *used = 0;
    return in_lists(items, count, squares{d, sums->as<double>(), used});
}

mf_status mf__cuda_optim_norm(mf_device *d, double *control, const mf_optim_item *items, int64_t count) {
    mf_scratch sums;
    int64_t used;
    MF_TRY(square_sums(d, &sums, items, count, &used));
    return MF_LAUNCH(d, control_kernel, 1, JOIN, 0, used, sums.as<double>(), control);
}

mf_status mf__cuda_sum_squares(mf_device *d, int dtype, int64_t n, const void *x, double *out) {
    const mf_optim_item item = {.dtype = dtype, .n = n, .g = x};
    mf_scratch sums;
    int64_t used;
    double sum;
    MF_TRY(square_sums(d, &sums, &item, 1, &used));
    double *total = sums.as<double>() + used;
    MF_TRY(MF_LAUNCH(d, total_kernel, 1, JOIN, 0, used, sums.as<double>(), total));
    MF_TRY(d->backend->download(d, &sum, total, sizeof sum));
    *out += sum;
    return MF_OK;
}

struct adam {
    mf_device *d;
    adam_constants a;
    const double *control;
    int group;
    const mf_optim_item *first;
    double decay;
    template <class T, int N> auto of() const {
        return [*this](const tensor_list<N> &list, int64_t blocks) {
            return MF_LAUNCH(d, (adam_kernel<T, N>), (unsigned)blocks, THREADS, 0, list, a, control, group, averaging_of<T>(decay, first));
        };
    }
};

static mf_status adam_items(mf_device *d, const double *control, int group, const mf_optim_item *items, int64_t count, const mf_adam_params *params,
                            double decay) {
    if (count == 0) return MF_OK;
    const adam_constants a = {params->beta1, params->beta2, params->epsilon, params->weight_decay, params->decoupled, params->lr, params->scale,
                              (double)params->step};
    mf__cuda_work(d, 15 * elements(items, count), (items[0].average ? 36 : 28) * elements(items, count));
    return in_lists(items, count, adam{d, a, control, group, items, decay});
}

mf_status mf__cuda_adam_many(mf_device *d, const double *control, int group, const mf_optim_item *items, int64_t count, const mf_adam_params *params,
                             double decay) {
    return adam_items(d, control, group, items, count, params, decay);
}

mf_status mf__cuda_adam(mf_device *d, int dtype, int64_t n, void *p, void *m, void *v, const void *g, const mf_adam_params *params) {
    const mf_optim_item item = {.dtype = dtype, .n = n, .p = p, .m = m, .v = v, .g = g};
    return adam_items(d, nullptr, 0, &item, 1, params, 0);
}

struct sgd {
    mf_device *d;
    sgd_constants a;
    const double *control;
    int group;
    const mf_optim_item *first;
    double decay;
    template <class T, int N> auto of() const {
        return [*this](const tensor_list<N> &list, int64_t blocks) {
            return MF_LAUNCH(d, (sgd_kernel<T, N>), (unsigned)blocks, THREADS, 0, list, a, control, group, averaging_of<T>(decay, first));
        };
    }
};

mf_status mf__cuda_sgd_many(mf_device *d, const double *control, int group, const mf_optim_item *items, int64_t count, double momentum,
                            double weight_decay, double decay) {
    if (count == 0) return MF_OK;
    mf__cuda_work(d, 6 * elements(items, count), (items[0].m ? 20 : 12) * elements(items, count));
    return in_lists(items, count, sgd{d, {momentum, weight_decay, 0}, control, group, items, decay});
}

mf_status mf__cuda_sgd(mf_device *d, int dtype, int64_t n, void *p, void *velocity, const void *g, double lr, double momentum, double weight_decay) {
    const mf_optim_item item = {.dtype = dtype, .n = n, .p = p, .m = velocity, .g = g};
    mf__cuda_work(d, 6.0 * (double)n, (velocity ? 5.0 : 3.0) * (double)(n * mf_dtype_bytes(dtype)));
    return in_lists(&item, 1, sgd{d, {momentum, weight_decay, lr}, nullptr, 0, &item, 0});
}

struct averages {
    mf_device *d;
    const mf_optim_item *first;
    double decay;
    template <class T, int N> auto of() const {
        return [*this](const tensor_list<N> &list, int64_t blocks) {
            return MF_LAUNCH(d, (average_kernel<T, N>), (unsigned)blocks, THREADS, 0, list, averaging_of<T>(decay, first));
        };
    }
};

mf_status mf__cuda_ema_many(mf_device *d, const mf_optim_item *items, int64_t count, double decay) {
    if (count == 0) return MF_OK;
    mf__cuda_work(d, 3 * elements(items, count), 12 * elements(items, count));
    return in_lists(items, count, averages{d, items, decay});
}
