/* intrinsics.h: CUDA's arithmetic by name, in plain C++. Approximate device functions are the exact ones here. */
#ifndef MF_CUDA_EMULATE_INTRINSICS_H
#define MF_CUDA_EMULATE_INTRINSICS_H
#include <bit>
#include <climits>
#include <ctime>
#include <limits>

/* ---- bits ---- */
static inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
static inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
static inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
static inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
static inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
static inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
static inline int __double2hiint(double x) { return (int)(std::bit_cast<long long>(x) >> 32); }
static inline int __double2loint(double x) { return (int)std::bit_cast<long long>(x); }
static inline double __hiloint2double(int hi, int lo) { return std::bit_cast<double>((uint64_t)(unsigned)hi << 32 | (unsigned)lo); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
    return y;
}
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n) { return (unsigned)((((uint64_t)hi << 32 | lo) << (n & 31)) >> 32); }
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n) { return (unsigned)(((uint64_t)hi << 32 | lo) >> (n & 31)); }
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned select) {
    const uint64_t bytes = (uint64_t)b << 32 | a;
    unsigned y = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned s = select >> (4 * i) & 15;
        unsigned byte = (unsigned)(bytes >> (8 * (s & 7))) & 255;
        if (s & 8) byte = byte & 128 ? 255 : 0;
        y |= byte << (8 * i);
    }
    return y;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
static inline int __mul24(int a, int b) { return (int)((unsigned)(a << 8 >> 8) * (unsigned)(b << 8 >> 8)); }
static inline unsigned __umul24(unsigned a, unsigned b) { return (a & 0xffffffu) * (b & 0xffffffu); }

/* ---- loads and stores with a cache policy ---- */
template <class T> static inline T __ldg(const T *p) { return *p; }
template <class T> static inline T __ldca(const T *p) { return *p; }
template <class T> static inline T __ldcg(const T *p) { return *p; }
template <class T> static inline T __ldcs(const T *p) { return *p; }
template <class T> static inline T __ldlu(const T *p) { return *p; }
template <class T> static inline T __ldcv(const T *p) { return *p; }
template <class T, class U> static inline void __stwb(T *p, U x) { *p = x; }
template <class T, class U> static inline void __stcg(T *p, U x) { *p = x; }
template <class T, class U> static inline void __stcs(T *p, U x) { *p = x; }
template <class T, class U> static inline void __stwt(T *p, U x) { *p = x; }
static inline void __nanosleep(unsigned) {}
static inline void __trap() { __builtin_trap(); }
static inline long long clock64() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static inline void __builtin_assume(bool) {}

/* ---- float ---- */
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
static inline float rsqrt(float x) { return 1 / sqrtf(x); }
static inline float rcbrtf(float x) { return 1 / cbrtf(x); }
static inline double rcbrt(double x) { return 1 / cbrt(x); }
static inline float __frcp_rn(float x) { return 1 / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return (float)(1 / sqrt((double)x)); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float fdividef(float a, float b) { return a / b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __drcp_rn(double x) { return 1 / x; }
static inline double __dsqrt_rn(double x) { return sqrt(x); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
/* the C library declares these names, so macros */
#define __expf(x) expf(x)
#define __exp10f(x) powf(10, x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __tanhf(x) tanhf(x)
#define __powf(x, y) powf(x, y)
static inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
#define __sincosf(x, s, c) sincosf(x, s, c)
static inline void sincospif(float x, float *s, float *c) { *s = (float)sin(M_PI * x); *c = (float)cos(M_PI * x); }
static inline void sincospi(double x, double *s, double *c) {
    const double turn = x - 2 * floor(x / 2);
    *s = sin(M_PI * turn);
    *c = cos(M_PI * turn);
}
static inline float sinpif(float x) { return (float)sin(M_PI * fmod(x, 2)); }
static inline float cospif(float x) { return (float)cos(M_PI * fmod(x, 2)); }
static inline double sinpi(double x) { return sin(M_PI * fmod(x, 2)); }
static inline double cospi(double x) { return cos(M_PI * fmod(x, 2)); }
static inline float normcdff(float x) { return (float)(0.5 * erfc(-x * M_SQRT1_2)); }
static inline double normcdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }
static inline float norm3df(float x, float y, float z) { return (float)sqrt((double)x * x + (double)y * y + (double)z * z); }
static inline double norm3d(double x, double y, double z) { return sqrt(x * x + y * y + z * z); }
static inline float rnorm3df(float x, float y, float z) { return 1 / norm3df(x, y, z); }
static inline double rnorm3d(double x, double y, double z) { return 1 / norm3d(x, y, z); }

/* ---- conversions; to integers they saturate and take NaN to 0, as the device does ---- */
template <class I, class F> static inline I mf__saturate(F x) {
    if (!(x == x)) return 0;
    if (x >= (F)std::numeric_limits<I>::max()) return std::numeric_limits<I>::max();
    if (x <= (F)std::numeric_limits<I>::min()) return std::numeric_limits<I>::min();
    return (I)x;
}
#define MF__CONVERSIONS(prefix, suffix, To, F, I)                                                  \
    static inline I prefix##To##_rn(F x) { return mf__saturate<I>(nearbyint##suffix(x)); }              \
    static inline I prefix##To##_rz(F x) { return mf__saturate<I>(trunc##suffix(x)); }                  \
    static inline I prefix##To##_rd(F x) { return mf__saturate<I>(floor##suffix(x)); }                  \
    static inline I prefix##To##_ru(F x) { return mf__saturate<I>(ceil##suffix(x)); }
MF__CONVERSIONS(__float2, f, int, float, int)
MF__CONVERSIONS(__float2, f, uint, float, unsigned)
MF__CONVERSIONS(__float2, f, ll, float, long long)
MF__CONVERSIONS(__float2, f, ull, float, unsigned long long)
MF__CONVERSIONS(__double2, , int, double, int)
MF__CONVERSIONS(__double2, , uint, double, unsigned)
MF__CONVERSIONS(__double2, , ll, double, long long)
MF__CONVERSIONS(__double2, , ull, double, unsigned long long)
#undef MF__CONVERSIONS
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline float __ll2float_rn(long long x) { return (float)x; }
static inline float __ull2float_rn(unsigned long long x) { return (float)x; }
static inline double __int2double_rn(int x) { return x; }
static inline double __uint2double_rn(unsigned x) { return x; }
static inline double __ll2double_rn(long long x) { return (double)x; }
static inline double __ull2double_rn(unsigned long long x) { return (double)x; }
static inline float __double2float_rn(double x) { return (float)x; }

/* ---- min, max of numbers of any two types; NaN loses, as on the device ---- */
template <class A, class B> static inline std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>, std::common_type_t<A, B>> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) return (T)fmin((T)a, (T)b);
    else return (T)a < (T)b ? (T)a : (T)b;
}
template <class A, class B> static inline std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>, std::common_type_t<A, B>> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) return (T)fmax((T)a, (T)b);
    else return (T)a > (T)b ? (T)a : (T)b;
}
#endif
