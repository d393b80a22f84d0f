/* copy.cu: copies between every two element types, and fill.
 *
 *   copy  y = (type of y) x        fill  y = value
 *
 * A cast is a load to a wide type and a store from it, as in core/cpu/copy.c: 16-bit floats and float go through float, double
 * through double, integers and bool through int64; one rounding, to nearest; what an integer cannot hold becomes its nearest
 * bound, NaN becomes 0, anything but 0 is true.
 *
 * Traffic   both operands once, with 16-byte accesses where rows allow it (iterate.cuh)
 * Mapping   permuted axes (the result steps by 1 along one axis, the source along another) of 16 and more are turned in tiles of
 *           32 x 32 through shared memory, rows of 33 against bank conflicts: both sides are read and written along their rows
 * Bitwise deterministic. Any size. */
#include "iterate.cuh"
#include "table.cuh"

static __host__ __device__ inline int64_t to_int64(double x) {
    return x >= 0x1p63 ? INT64_MAX : x < -0x1p63 ? INT64_MIN : x != x ? 0 : (int64_t)x;
}
static __host__ __device__ inline int32_t to_int32(double x) {
    return x >= 2147483647.0 ? INT32_MAX : x <= -2147483648.0 ? INT32_MIN : x != x ? 0 : (int32_t)x;
}

/* bool is a byte here: what is not 0 is true. */
template <class T> struct is_16 : std::bool_constant<std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>> {};
template <class T>
using wide_of = std::conditional_t<is_16<T>::value, float, std::conditional_t<std::is_integral_v<T>, int64_t, T>>;

template <class T> static __device__ inline wide_of<T> widen(T x) {
    if constexpr (std::is_same_v<T, uint8_t>) return x != 0;
    else return mf__to<wide_of<T>>(x);
}
template <class T, class W> static __device__ inline T narrow(W x) {
    if constexpr (std::is_same_v<T, uint8_t>) return x != 0;
    else if constexpr (std::is_integral_v<T> && std::is_floating_point_v<W>) {
        if constexpr (sizeof(T) == 8) return to_int64(x);
        else return to_int32(x);
    } else if constexpr (std::is_same_v<T, int32_t>) {
        return x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : (int32_t)x;
    } else if constexpr (is_16<T>::value && std::is_integral_v<W>) return mf__to<T>((double)x);
    else return mf__to<T>(x);
}

template <class T, class A> struct cast {
    __device__ T operator()(A x) const { return narrow<T>(widen(x)); }
};
template <class T> struct same {
    __device__ T operator()(T x) const { return x; }
};
template <class T> struct constant {
    T value;
    __device__ T operator()() const { return value; }
};

#define DISPATCH_BYTE_BOOL(dtype, T, ...)                      \
    do {                                                       \
        if ((dtype) == MF_BOOL) { using T = uint8_t; __VA_ARGS__; } \
        else if ((dtype) == MF_INT32) { using T = int32_t; __VA_ARGS__; } \
        else if ((dtype) == MF_INT64) { using T = int64_t; __VA_ARGS__; } \
        else MF_DISPATCH_FLOAT(dtype, T, __VA_ARGS__);         \
    } while (0)

/* ---- turning tiles: y[b][i][j] = x[b][j][i], i along x, j along y ---- */
enum { TILE = 32, TILE_ROWS = 8 };

struct turn {
    int64_t along_x, along_y;     /* sizes of i and j */
    int64_t x_stride, y_stride;   /* of j in x and of i in y */
    uint32_t tiles;
    mf_divider tiles_x, tiles_y;
    int axes;                     /* the others, innermost first */
    mf_divider size[MF_MAX_DIMS];
    int64_t stride[MF_MAX_DIMS][2];
};

template <class T> static __global__ void __launch_bounds__(TILE * TILE_ROWS) turn_kernel(const turn s, T *y, const T *x) {
    __shared__ T tile[TILE][TILE + 1];
    uint32_t rest = s.tiles_x.quotient(blockIdx.x);
    const int64_t i = (int64_t)(blockIdx.x - rest * s.tiles_x.divisor) * TILE;
    const uint32_t batch = s.tiles_y.quotient(rest);
    const int64_t j = (int64_t)(rest - batch * s.tiles_y.divisor) * TILE;
    rest = batch;
    for (int axis = 0; axis < s.axes; axis++) {
        const uint32_t next = s.size[axis].quotient(rest), here = rest - next * s.size[axis].divisor;
        y += here * s.stride[axis][0];
        x += here * s.stride[axis][1];
        rest = next;
    }
#pragma unroll
    for (int k = threadIdx.y; k < TILE; k += TILE_ROWS)
        if (j + k < s.along_y && i + threadIdx.x < s.along_x) tile[k][threadIdx.x] = x[(j + k) * s.x_stride + i + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int k = threadIdx.y; k < TILE; k += TILE_ROWS)
        if (i + k < s.along_x && j + threadIdx.x < s.along_y) y[(i + k) * s.y_stride + j + threadIdx.x] = tile[threadIdx.x][k];
}

/* The axis along which the source steps by 1 while the result does along the innermost; -1 where tiles do not pay. */
static int turned_axis(const mf_iter *it) {
    enum { SHORTEST = 16 };
    const int inner = it->ndim - 1;
    if (it->operand[0].stride[inner] != 1 || it->operand[1].stride[inner] <= 1 || it->shape[inner] < SHORTEST) return -1;
    for (int axis = 0; axis < inner; axis++)
        if (it->operand[1].stride[axis] == 1) return it->shape[axis] < SHORTEST ? -1 : axis;
    return -1;
}

template <class T> static mf_status turn_axes(mf_device *d, const mf_iter *it, int axis) {
    const int inner = it->ndim - 1;
    turn s = {};
    s.along_x = it->shape[axis];
    s.along_y = it->shape[inner];
    s.x_stride = it->operand[1].stride[inner];
    s.y_stride = it->operand[0].stride[axis];
    const int64_t tiles_x = mf__blocks(s.along_x, TILE), tiles_y = mf__blocks(s.along_y, TILE);
    int64_t tiles = tiles_x * tiles_y;
    s.tiles_x = mf__divider((uint32_t)tiles_x);
    s.tiles_y = mf__divider((uint32_t)tiles_y);
    for (int other = inner - 1; other >= 0; other--) {
        if (other == axis) continue;
        s.size[s.axes] = mf__divider((uint32_t)it->shape[other]);
        for (int k = 0; k < 2; k++) s.stride[s.axes][k] = it->operand[k].stride[other];
        s.axes++;
        tiles *= it->shape[other];
    }
    mf__cuda_work(d, 0, mf__iter_bytes(it));
    return mf__cuda_launch(d, "copy turned", turn_kernel<T>, dim3((unsigned)tiles), dim3(TILE, TILE_ROWS), 0, s, (T *)it->operand[0].data,
                           (const T *)it->operand[1].data);
}

template <class T> static mf_status move(mf_device *d, const mf_iter *given) {
    mf_iter it = *given;
    mf__arrange(&it);
    int64_t count = 1;
    for (int axis = 0; axis < it.ndim; axis++) count *= it.shape[axis];
    if (count == 0) return MF_OK;
    const int axis = turned_axis(&it);
    if (axis < 0) return mf__each_arranged<T, T, mf_nothing, mf_nothing>(d, "copy", &it, same<T>{}, same<T>{}, 0);
    if (count < MF_ITER_MOST) return turn_axes<T>(d, &it, axis);
    mf_iter half[2];
    mf__iter_halve(half, &it);
    MF_TRY(move<T>(d, &half[0]));
    return move<T>(d, &half[1]);
}

mf_status mf__cuda_copy(mf_device *d, const mf_iter *given) {
    const int to = given->operand[0].dtype, from = given->operand[1].dtype;
    if (to == from) {
        switch (mf_dtype_bytes(to)) {
        case 1: return move<uint8_t>(d, given);
        case 2: return move<uint16_t>(d, given);
        case 4: return move<uint32_t>(d, given);
        default: return move<uint64_t>(d, given);
        }
    }
    DISPATCH_BYTE_BOOL(to, T, DISPATCH_BYTE_BOOL(from, A, if constexpr (!std::is_same_v<T, A>)
        return mf__each<T, A, mf_nothing, mf_nothing>(d, "cast", given, cast<T, A>{}, cast<T, A>{}, 0)));
    return MF_OK;
}

template <class T> static mf_status fill_with(mf_device *d, const mf_iter *it, uint64_t bits) {
    mf_iter one = *it;
    one.n_operands = 1;
    const constant<T> f = {(T)bits};
    return mf__each<T, mf_nothing, mf_nothing, mf_nothing>(d, "fill", &one, f, f, 0);
}

mf_status mf__cuda_fill(mf_device *d, const mf_iter *it, double value) {
    uint64_t bits = 0;
    const int dtype = it->operand[0].dtype;
    switch (dtype) {
    case MF_FLOAT32: { const float x = (float)value; memcpy(&bits, &x, sizeof x); break; }
    case MF_FLOAT64: memcpy(&bits, &value, sizeof value); break;
    case MF_BFLOAT16: { const __nv_bfloat16 x = __double2bfloat16(value); memcpy(&bits, (const void *)&x, sizeof x); break; }
    case MF_FLOAT16: { const __half x = __double2half(value); memcpy(&bits, (const void *)&x, sizeof x); break; }
    case MF_INT32: bits = (uint32_t)to_int32(value); break;
    case MF_INT64: bits = (uint64_t)to_int64(value); break;
    default: bits = value != 0; break;
    }
    switch (mf_dtype_bytes(dtype)) {
    case 1: return fill_with<uint8_t>(d, it, bits);
    case 2: return fill_with<uint16_t>(d, it, bits);
    case 4: return fill_with<uint32_t>(d, it, bits);
    default: return fill_with<uint64_t>(d, it, bits);
    }
}
