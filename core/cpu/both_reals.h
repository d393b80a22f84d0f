/* both_reals.h: includes BODY, loops in one real type, for float and for double. Each BODY lists the functions that it makes; it has
 *
 *     REAL          the type                      NAME(x)       x_f32 or x_f64
 *     SQRT          the root in that type         HALF, BF16    the nearest value of 16 bits (vector.h)
 *
 * No guard: a file includes this once for its BODY. */
#define REAL float
#define NAME(x) x##_f32
#define SQRT sqrtf
#define HALF mf__round_half
#define BF16 mf__round_bf16
#include BODY
#undef REAL
#undef NAME
#undef SQRT
#undef HALF
#undef BF16
#define REAL double
#define NAME(x) x##_f64
#define SQRT sqrt
#define HALF mf__round_half_double
#define BF16 mf__round_bf16_double
#include BODY
#undef REAL
#undef NAME
#undef SQRT
#undef HALF
#undef BF16
#undef BODY
