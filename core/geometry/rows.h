/* rows.h: the geometry of one residue: rotations, quaternions, SO(3), frames, dihedrals, and their adjoints.
 *
 * Every MF_ROW_* kind of ops/kernels.h is one function here, on flat arrays of double: `mf__row(kind, in, out)` reads
 * the operands of one row one after the other from `in` and writes the results one after the other to `out`.
 * The CPU backend loops over rows; a CUDA backend compiles this same file with MF_DEVICE_FUNCTION set to
 * __device__, so both compute the same expressions. Everything is in double whatever the tensor's type: a row is
 * 3 to 21 numbers, so loading dominates, and double removes every question of cancellation near 0 and pi.
 *
 * Conventions (frames.md, flow.md): matrices row-major, the columns of R are the local axes; quaternions (w, x, y, z),
 * R(q) not normalised; rotation vectors are body-frame, R exp(v); hat(v) w = v x w. */
#ifndef MF_GEOMETRY_ROWS_H
#define MF_GEOMETRY_ROWS_H
#include <math.h>
#include "../ops/kernels.h"

#ifndef MF_DEVICE_FUNCTION
#define MF_DEVICE_FUNCTION
#endif

enum { MF__ROW_MAX_IN = 21, MF__ROW_MAX_OUT = 13, MF__ROW_MAX_OPERANDS = 6 };

/* Widths of the operands of a kind, in order. */
typedef struct mf_row_shape {
    int n_in, n_out;
    int in[MF__ROW_MAX_OPERANDS], out[3];
} mf_row_shape;

#ifdef __cplusplus
#define MF_ROW_TABLE static constexpr  /* kernels are compiled for one kind each */
#else
#define MF_ROW_TABLE static const
#endif
MF_ROW_TABLE mf_row_shape mf__row_shapes[] = {  /* in the order of the enum */
    {1, 1, {4}, {9}},                 {2, 1, {4, 9}, {4}},
    {1, 1, {9}, {4}},                 {3, 1, {9, 4, 4}, {9}},
    {2, 1, {4, 4}, {4}},              {3, 2, {4, 4, 4}, {4, 4}},
    {1, 1, {3}, {9}},                 {2, 1, {3, 9}, {3}},
    {1, 1, {9}, {3}},                 {2, 1, {9, 3}, {9}},
    {3, 1, {3, 3, 3}, {9}},           {4, 3, {3, 3, 3, 9}, {3, 3, 3}},
    {4, 2, {4, 3, 6, 1}, {4, 3}},     {6, 3, {4, 3, 6, 1, 4, 3}, {4, 3, 6}},
    {1, 1, {12}, {2}},                {2, 1, {12, 2}, {12}},
    {1, 1, {9}, {9}},
};
static inline mf_row_shape mf__row_shape(int kind) { return mf__row_shapes[kind]; }

/* ---- small vectors ---- */

MF_DEVICE_FUNCTION static inline double mf__dot3(const double *a, const double *b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

MF_DEVICE_FUNCTION static inline void mf__cross(const double *a, const double *b, double *c) {
    c[0] = a[1] * b[2] - a[2] * b[1];
    c[1] = a[2] * b[0] - a[0] * b[2];
    c[2] = a[0] * b[1] - a[1] * b[0];
}

/* The eigenvalues (on the diagonal of a, unordered) and eigenvectors (columns of v) of a symmetric 4x4 matrix, by
 * cyclic Jacobi. Quadratic convergence makes six sweeps plenty; the cap only bounds the work on NaN. Repeated
 * eigenvalues give some orthonormal basis of their space, the same one each time. */
MF_DEVICE_FUNCTION static inline void mf__jacobi4(double a[16], double v[16]) {
    double norm = 0;
    for (int i = 0; i < 16; i++) {
        v[i] = i % 5 == 0;
        norm += a[i] * a[i];
    }
    for (int sweep = 0; sweep < 20; sweep++) {
        double off = 0;
        for (int p = 0; p < 3; p++)
            for (int q = p + 1; q < 4; q++) off += a[4 * p + q] * a[4 * p + q];
        if (!(off > 1e-36 * norm)) return;
        for (int p = 0; p < 3; p++)
            for (int q = p + 1; q < 4; q++) {
                double apq = a[4 * p + q];
                if (apq == 0) continue;
                double theta = (a[5 * q] - a[5 * p]) / (2 * apq);
                double t = (theta < 0 ? -1.0 : 1.0) / (fabs(theta) + sqrt(theta * theta + 1));
                double c = 1 / sqrt(t * t + 1), s = t * c;
                for (int k = 0; k < 4; k++) {
                    double akp = a[4 * k + p], akq = a[4 * k + q];
                    a[4 * k + p] = c * akp - s * akq;
                    a[4 * k + q] = s * akp + c * akq;
                }
                for (int k = 0; k < 4; k++) {
                    double apk = a[4 * p + k], aqk = a[4 * q + k];
                    a[4 * p + k] = c * apk - s * aqk;
                    a[4 * q + k] = s * apk + c * aqk;
                }
                a[4 * p + q] = a[4 * q + p] = 0;
                for (int k = 0; k < 4; k++) {
                    double vkp = v[4 * k + p], vkq = v[4 * k + q];
                    v[4 * k + p] = c * vkp - s * vkq;
                    v[4 * k + q] = s * vkp + c * vkq;
                }
            }
    }
}

/* ---- quaternions ---- */

/* The first non-zero component becomes positive: q and -q are one rotation, and this picks one of them. */
MF_DEVICE_FUNCTION static inline void mf__row_fix_sign(double *q, int n) {
    for (int i = 0; i < n; i++) {
        if (q[i] > 0) return;
        if (q[i] < 0) {
            for (int k = 0; k < n; k++) q[k] = -q[k];
            return;
        }
    }
}

MF_DEVICE_FUNCTION static inline void mf__row_quat_to_rot(const double *q, double *R) {
    double a = q[0], b = q[1], c = q[2], d = q[3];
    R[0] = a * a + b * b - c * c - d * d;
    R[1] = 2 * (b * c - a * d);
    R[2] = 2 * (b * d + a * c);
    R[3] = 2 * (b * c + a * d);
    R[4] = a * a - b * b + c * c - d * d;
    R[5] = 2 * (c * d - a * b);
    R[6] = 2 * (b * d - a * c);
    R[7] = 2 * (c * d + a * b);
    R[8] = a * a - b * b - c * c + d * d;
}

MF_DEVICE_FUNCTION static inline void mf__row_quat_to_rot_grad(const double *q, const double *G, double *dq) {
    double a = q[0], b = q[1], c = q[2], d = q[3];
    dq[0] = 2 * (a * (G[0] + G[4] + G[8]) + b * (G[7] - G[5]) + c * (G[2] - G[6]) + d * (G[3] - G[1]));
    dq[1] = 2 * (b * (G[0] - G[4] - G[8]) + c * (G[1] + G[3]) + d * (G[2] + G[6]) + a * (G[7] - G[5]));
    dq[2] = 2 * (c * (G[4] - G[0] - G[8]) + b * (G[1] + G[3]) + d * (G[5] + G[7]) + a * (G[2] - G[6]));
    dq[3] = 2 * (d * (G[8] - G[0] - G[4]) + b * (G[2] + G[6]) + c * (G[5] + G[7]) + a * (G[3] - G[1]));
}

/* The symmetric matrix K(R) of frames.md 1.3: its top eigenvector maximises <R, R(q)> over unit q, which for a
 * rotation is its quaternion and for a covariance is the superposition. For a rotation K = 4 q q' - I. */
MF_DEVICE_FUNCTION static inline void mf__row_profile(const double *R, double *K) {
    K[0] = R[0] + R[4] + R[8];
    K[5] = R[0] - R[4] - R[8];
    K[10] = R[4] - R[0] - R[8];
    K[15] = R[8] - R[0] - R[4];
    K[1] = K[4] = R[7] - R[5];
    K[2] = K[8] = R[2] - R[6];
    K[3] = K[12] = R[3] - R[1];
    K[6] = K[9] = R[3] + R[1];
    K[7] = K[13] = R[2] + R[6];
    K[11] = K[14] = R[7] + R[5];
}

/* Which eigenvector of the diagonalised K is the top one: the first of equals. */
MF_DEVICE_FUNCTION static inline int mf__row_top(const double *K) {
    int top = 0;
    for (int j = 1; j < 4; j++)
        if (K[5 * j] > K[5 * top]) top = j;
    return top;
}

MF_DEVICE_FUNCTION static inline void mf__row_rot_to_quat(const double *R, double *q) {
    double K[16], v[16];
    mf__row_profile(R, K);
    mf__jacobi4(K, v);
    int top = mf__row_top(K);
    double norm = 0;
    for (int i = 0; i < 4; i++) norm += v[4 * i + top] * v[4 * i + top];
    norm = sqrt(norm) + 0 * (R[0] + R[1] + R[2] + R[3] + R[4] + R[5] + R[6] + R[7] + R[8]);  /* NaN in, NaN out */
    for (int i = 0; i < 4; i++) q[i] = v[4 * i + top] / norm;
    mf__row_fix_sign(q, 4);
}

/* The rotation that maximises <R, Q>. What is nearly one already takes three steps Q <- Q (3 - Q'Q) / 2, whose error 1e-3 becomes
 * 1e-6, 4e-13, 1e-25; anything else, reflections too, goes by its quaternion. */
MF_DEVICE_FUNCTION static inline void mf__row_nearest_rotation(const double *R, double *Q) {
    double gram[9], q[4], off = 0;
    for (int i = 0; i < 9; i++) Q[i] = R[i];
    for (int step = 0; step < 3; step++) {
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 3; j++) gram[3 * i + j] = Q[i] * Q[j] + Q[3 + i] * Q[3 + j] + Q[6 + i] * Q[6 + j];
        for (int i = 0; i < 9 && step == 0; i++) {
            double e = fabs(gram[i] - (i % 4 == 0));
            off = e > off || e != e ? e : off;
        }
        if (!(off < 1e-3)) break;
        for (int i = 0; i < 9; i += 3) {
            double a = Q[i], b = Q[i + 1], c = Q[i + 2];
            for (int j = 0; j < 3; j++) Q[i + j] = (3 * Q[i + j] - a * gram[j] - b * gram[3 + j] - c * gram[6 + j]) / 2;
        }
    }
    double determinant = Q[0] * (Q[4] * Q[8] - Q[5] * Q[7]) - Q[1] * (Q[3] * Q[8] - Q[5] * Q[6]) + Q[2] * (Q[3] * Q[7] - Q[4] * Q[6]);
    if (off < 1e-3 && determinant > 0) return;
    mf__row_rot_to_quat(R, q);
    mf__row_quat_to_rot(q, Q);
}

/* dq = sum_j v_j <v_j, dK q> / (lambda - lambda_j), the derivative of an eigenvector, carried back through the
 * linear K(R). Directions of an eigenvalue equal to the top one have no derivative and get none. */
MF_DEVICE_FUNCTION static inline void mf__row_rot_to_quat_grad(const double *R, const double *q, const double *dq, double *dR) {
    double K[16], v[16], x[4] = {0, 0, 0, 0}, u[4], G[16];
    mf__row_profile(R, K);
    mf__jacobi4(K, v);
    int top = mf__row_top(K);
    double sign = 0;
    for (int i = 0; i < 4; i++) {
        u[i] = v[4 * i + top];
        sign += u[i] * q[i];
    }
    for (int i = 0; i < 4; i++) u[i] = sign < 0 ? -u[i] : u[i];
    for (int j = 0; j < 4; j++) {
        double gap = K[5 * top] - K[5 * j];
        if (j == top || !(gap > 1e-14 * fabs(K[5 * top]))) continue;
        double along = 0;
        for (int i = 0; i < 4; i++) along += v[4 * i + j] * dq[i];
        for (int i = 0; i < 4; i++) x[i] += v[4 * i + j] * along / gap;
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) G[4 * i + j] = i == j ? x[i] * u[i] : x[i] * u[j] + x[j] * u[i];
    dR[0] = G[0] + G[5] - G[10] - G[15];
    dR[4] = G[0] - G[5] + G[10] - G[15];
    dR[8] = G[0] - G[5] - G[10] + G[15];
    dR[7] = G[1] + G[11];
    dR[5] = G[11] - G[1];
    dR[2] = G[2] + G[7];
    dR[6] = G[7] - G[2];
    dR[3] = G[3] + G[6];
    dR[1] = G[6] - G[3];
}

MF_DEVICE_FUNCTION static inline void mf__row_quat_multiply(const double *p, const double *q, double *r) {
    r[0] = p[0] * q[0] - p[1] * q[1] - p[2] * q[2] - p[3] * q[3];
    r[1] = p[0] * q[1] + p[1] * q[0] + p[2] * q[3] - p[3] * q[2];
    r[2] = p[0] * q[2] - p[1] * q[3] + p[2] * q[0] + p[3] * q[1];
    r[3] = p[0] * q[3] + p[1] * q[2] - p[2] * q[1] + p[3] * q[0];
}

/* r = L(p) q = M(q) p with L(p)' = L(p*) and M(q)' = M(q*), * the conjugate. */
MF_DEVICE_FUNCTION static inline void mf__row_quat_multiply_grad(const double *p, const double *q, const double *dr, double *dp, double *dq) {
    double pc[4] = {p[0], -p[1], -p[2], -p[3]}, qc[4] = {q[0], -q[1], -q[2], -q[3]};
    mf__row_quat_multiply(dr, qc, dp);
    mf__row_quat_multiply(pc, dr, dq);
}

/* ---- SO(3), flow.md 1 ---- */

/* exp v = I + a hat(v) + b hat(v)^2, a = sin t / t, b = 2 sin^2(t/2) / t^2, t = |v|. */
MF_DEVICE_FUNCTION static inline void mf__row_so3_exp(const double *v, double *R) {
    double x = v[0], y = v[1], z = v[2], t2 = mf__dot3(v, v), t = sqrt(t2), a, b;
    if (t < 1e-2) {
        a = 1 - t2 / 6 + t2 * t2 / 120;
        b = 0.5 - t2 / 24 + t2 * t2 / 720;
    } else {
        double half = sin(t / 2);
        a = sin(t) / t;
        b = 2 * half * half / t2;
    }
    R[0] = 1 - b * (y * y + z * z);
    R[4] = 1 - b * (x * x + z * z);
    R[8] = 1 - b * (x * x + y * y);
    R[1] = b * x * y - a * z;
    R[3] = b * x * y + a * z;
    R[2] = b * x * z + a * y;
    R[6] = b * x * z - a * y;
    R[5] = b * y * z - a * x;
    R[7] = b * y * z + a * x;
}

/* With h the vector of the skew part, <G, hat v> = h.v and <G, hat(v)^2> = v'Gv - |v|^2 tr G:
 *   dv = a h + b (G + G' - 2 tr G) v + (a'/t h.v + b'/t (v'Gv - |v|^2 tr G)) v
 * a'/t and b'/t cancel to eps/t^2, hence the series up to t = 0.1, whose first dropped term is 3e-15 there. */
MF_DEVICE_FUNCTION static inline void mf__row_so3_exp_grad(const double *v, const double *G, double *dv) {
    double t2 = mf__dot3(v, v), t = sqrt(t2), a, b, da, db;
    if (t < 0.1) {
        a = 1 - t2 / 6 * (1 - t2 / 20 * (1 - t2 / 42 * (1 - t2 / 72)));
        b = 0.5 - t2 / 24 * (1 - t2 / 30 * (1 - t2 / 56 * (1 - t2 / 90)));
        da = -1.0 / 3 + t2 / 30 - t2 * t2 / 840 + t2 * t2 * t2 / 45360;
        db = -1.0 / 12 + t2 / 180 - t2 * t2 / 6720 + t2 * t2 * t2 / 453600;
    } else {
        double half = sin(t / 2);
        a = sin(t) / t;
        b = 2 * half * half / t2;
        da = (cos(t) - a) / t2;
        db = (a - 2 * b) / t2;
    }
    double trace = G[0] + G[4] + G[8], h[3] = {G[7] - G[5], G[2] - G[6], G[3] - G[1]}, s[3];
    for (int i = 0; i < 3; i++) {
        s[i] = -2 * trace * v[i];
        for (int j = 0; j < 3; j++) s[i] += (G[3 * i + j] + G[3 * j + i]) * v[j];
    }
    double quadratic = mf__dot3(s, v) / 2;  /* v'Gv - |v|^2 tr G */
    double along = da * mf__dot3(h, v) + db * quadratic;
    for (int i = 0; i < 3; i++) dv[i] = a * h[i] + b * s[i] + along * v[i];
}

/* The quaternion route: the largest of (tr R, R11, R22, R33) picks the branch that divides by no small number, so
 * the result is valid on the whole group. At w = 0 exactly (an angle of pi) the axis has two signs: the first non-zero
 * component is taken positive. */
MF_DEVICE_FUNCTION static inline void mf__row_so3_log(const double *R, double *v) {
    double trace = R[0] + R[4] + R[8], q[4];
    int i = 0;
    if (R[4] > R[0]) i = 1;
    if (R[8] > R[4 * i]) i = 2;
    if (R[4 * i] > trace) {
        int j = (i + 1) % 3, k = (i + 2) % 3;
        q[0] = R[3 * k + j] - R[3 * j + k];
        q[1 + i] = 1 - trace + 2 * R[4 * i];
        q[1 + j] = R[3 * j + i] + R[3 * i + j];
        q[1 + k] = R[3 * k + i] + R[3 * i + k];
    } else {
        q[0] = 1 + trace;
        q[1] = R[7] - R[5];
        q[2] = R[2] - R[6];
        q[3] = R[3] - R[1];
    }
    mf__row_fix_sign(q, 4);
    double norm = sqrt(q[0] * q[0] + mf__dot3(q + 1, q + 1));
    for (int n = 0; n < 4; n++) q[n] /= norm;
    double s = sqrt(mf__dot3(q + 1, q + 1)), w = q[0];
    double factor = s < 1e-4 ? 2 / w * (1 - s * s / (3 * w * w)) : 2 * atan2(s, w) / s;
    for (int n = 0; n < 3; n++) v[n] = factor * q[1 + n];
}

/* The tangent cotangent R hat(g) / 2, whose product with R hat(e_k) is g_k, for the body gradient
 *   g = Jr^-T dv = dv - phi x dv / 2 + c phi x (phi x dv),  c = (1 - (t/2) cot(t/2)) / t^2
 * c(pi) = 1/pi^2: no singularity there. The derivative exists off the group too, but has no use and many forms. */
MF_DEVICE_FUNCTION static inline void mf__row_so3_log_grad(const double *R, const double *dv, double *dR) {
    double phi[3], once[3], twice[3], g[3];
    mf__row_so3_log(R, phi);
    double t2 = mf__dot3(phi, phi), t = sqrt(t2);
    double c = t < 0.1 ? 1.0 / 12 + t2 / 720 + t2 * t2 / 30240 + t2 * t2 * t2 / 1209600
                       : (1 - t / 2 * cos(t / 2) / sin(t / 2)) / t2;
    mf__cross(phi, dv, once);
    mf__cross(phi, once, twice);
    for (int i = 0; i < 3; i++) g[i] = (dv[i] - once[i] / 2 + c * twice[i]) / 2;
    for (int i = 0; i < 3; i++) {
        const double *r = R + 3 * i;  /* row i of R hat(g) is r x g */
        mf__cross(r, g, dR + 3 * i);
    }
}

/* ---- frames ---- */

/* Columns e1 = x/|x|, e2 = (y - (e1.y) e1)/|.|, e3 = e1 x e2, with |v| = sqrt(v.v + 1e-8): three points on a line or
 * on one spot give a finite (not orthonormal) matrix with finite gradients. `length` gets the two norms. */
MF_DEVICE_FUNCTION static inline void mf__row_gram_schmidt(const double *x, const double *y, double *e1, double *e2, double *e3, double *length) {
    double w[3];
    length[0] = sqrt(mf__dot3(x, x) + 1e-8);
    for (int i = 0; i < 3; i++) e1[i] = x[i] / length[0];
    double d = mf__dot3(e1, y);
    for (int i = 0; i < 3; i++) w[i] = y[i] - d * e1[i];
    length[1] = sqrt(mf__dot3(w, w) + 1e-8);
    for (int i = 0; i < 3; i++) e2[i] = w[i] / length[1];
    mf__cross(e1, e2, e3);
}

/* From the cotangents of e1, e2, e3 those of x and y. */
MF_DEVICE_FUNCTION static inline void mf__row_gram_schmidt_grad(const double *x, const double *y, const double *g1, const double *g2, const double *g3, double *dx, double *dy) {
    double e1[3], e2[3], e3[3], length[2], h1[3], h2[3], w[3];
    mf__row_gram_schmidt(x, y, e1, e2, e3, length);
    mf__cross(e2, g3, h1);
    mf__cross(g3, e1, h2);
    for (int i = 0; i < 3; i++) {
        h1[i] += g1[i];
        h2[i] += g2[i];
    }
    double along = mf__dot3(e2, h2), d = mf__dot3(e1, y);
    for (int i = 0; i < 3; i++) w[i] = (h2[i] - along * e2[i]) / length[1];
    double dd = -mf__dot3(w, e1);
    for (int i = 0; i < 3; i++) {
        dy[i] = w[i] + dd * e1[i];
        h1[i] += dd * y[i] - d * w[i];
    }
    along = mf__dot3(e1, h1);
    for (int i = 0; i < 3; i++) dx[i] = (h1[i] - along * e1[i]) / length[0];
}

MF_DEVICE_FUNCTION static inline void mf__row_frame(const double *x_axis, const double *xy, const double *origin, double *R) {
    double x[3], y[3], e[3][3], length[2];
    for (int i = 0; i < 3; i++) {
        x[i] = x_axis[i] - origin[i];
        y[i] = xy[i] - origin[i];
    }
    mf__row_gram_schmidt(x, y, e[0], e[1], e[2], length);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) R[3 * i + j] = e[j][i];
}

MF_DEVICE_FUNCTION static inline void mf__row_frame_grad(const double *x_axis, const double *xy, const double *origin, const double *dR,
                                                         double *dx_axis, double *dxy, double *dorigin) {
    double x[3], y[3], g[3][3];
    for (int i = 0; i < 3; i++) {
        x[i] = x_axis[i] - origin[i];
        y[i] = xy[i] - origin[i];
        for (int j = 0; j < 3; j++) g[j][i] = dR[3 * i + j];
    }
    mf__row_gram_schmidt_grad(x, y, g[0], g[1], g[2], dx_axis, dxy);
    for (int i = 0; i < 3; i++) dorigin[i] = -dx_axis[i] - dxy[i];
}

/* layers.md 8: q' = q (1, mask v) normalised, t' = t + mask R(q) tau, u = (v, tau). Mask 0 passes q unchanged, not
 * even normalised, as flash_ipa and RNA-FrameFlow do. */
MF_DEVICE_FUNCTION static inline void mf__row_update(const double *q, const double *t, const double *u, double mask, double *q_out, double *t_out) {
    double R[9];
    if (mask == 0) {
        for (int i = 0; i < 4; i++) q_out[i] = q[i];
        for (int i = 0; i < 3; i++) t_out[i] = t[i];
        return;
    }
    double r[4] = {1, mask * u[0], mask * u[1], mask * u[2]}, p[4];
    mf__row_quat_multiply(q, r, p);
    double norm = sqrt(p[0] * p[0] + mf__dot3(p + 1, p + 1));
    for (int i = 0; i < 4; i++) q_out[i] = p[i] / norm;
    mf__row_quat_to_rot(q, R);
    for (int i = 0; i < 3; i++) t_out[i] = t[i] + mask * mf__dot3(R + 3 * i, u + 3);
}

MF_DEVICE_FUNCTION static inline void mf__row_update_grad(const double *q, const double *u, double mask, const double *dq_out, const double *dt_out,
                                                          double *dq, double *dt, double *du) {
    for (int i = 0; i < 3; i++) dt[i] = dt_out[i];
    if (mask == 0) {
        for (int i = 0; i < 4; i++) dq[i] = dq_out[i];
        for (int i = 0; i < 6; i++) du[i] = 0;
        return;
    }
    double r[4] = {1, mask * u[0], mask * u[1], mask * u[2]}, p[4], dp[4], dr[4], R[9], dR[9], through[4];
    mf__row_quat_multiply(q, r, p);
    double norm = sqrt(p[0] * p[0] + mf__dot3(p + 1, p + 1)), along = 0;
    for (int i = 0; i < 4; i++) along += p[i] / norm * dq_out[i];
    for (int i = 0; i < 4; i++) dp[i] = (dq_out[i] - along * p[i] / norm) / norm;
    mf__row_quat_multiply_grad(q, r, dp, dq, dr);
    mf__row_quat_to_rot(q, R);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) dR[3 * i + j] = mask * dt_out[i] * u[3 + j];
    mf__row_quat_to_rot_grad(q, dR, through);
    for (int i = 0; i < 4; i++) dq[i] += through[i];
    for (int i = 0; i < 3; i++) {
        du[i] = mask * dr[1 + i];
        du[3 + i] = mask * (R[i] * dt_out[0] + R[3 + i] * dt_out[1] + R[6 + i] * dt_out[2]);
    }
}

/* data.md 3: in frame(a2 - a1, a0 - a1, a2) the atom a3 lies at (., y, z); (sin, cos) = (z, y) / sqrt(y^2 + z^2 + 1e-8). */
MF_DEVICE_FUNCTION static inline void mf__row_dihedral(const double *a, double *out) {
    double x[3], y[3], d[3], e1[3], e2[3], e3[3], length[2];
    for (int i = 0; i < 3; i++) {
        x[i] = a[6 + i] - a[3 + i];
        y[i] = a[i] - a[3 + i];
        d[i] = a[9 + i] - a[6 + i];
    }
    mf__row_gram_schmidt(x, y, e1, e2, e3, length);
    double cosine = mf__dot3(e2, d), sine = mf__dot3(e3, d), norm = sqrt(cosine * cosine + sine * sine + 1e-8);
    out[0] = sine / norm;
    out[1] = cosine / norm;
}

MF_DEVICE_FUNCTION static inline void mf__row_dihedral_grad(const double *a, const double *dout, double *da) {
    double x[3], y[3], d[3], e1[3], e2[3], e3[3], length[2], g1[3] = {0, 0, 0}, g2[3], g3[3], dx[3], dy[3];
    for (int i = 0; i < 3; i++) {
        x[i] = a[6 + i] - a[3 + i];
        y[i] = a[i] - a[3 + i];
        d[i] = a[9 + i] - a[6 + i];
    }
    mf__row_gram_schmidt(x, y, e1, e2, e3, length);
    double cosine = mf__dot3(e2, d), sine = mf__dot3(e3, d), norm = sqrt(cosine * cosine + sine * sine + 1e-8);
    double along = (sine * dout[0] + cosine * dout[1]) / norm;
    double dsine = (dout[0] - along * sine / norm) / norm, dcosine = (dout[1] - along * cosine / norm) / norm;
    for (int i = 0; i < 3; i++) {
        g2[i] = dcosine * d[i];
        g3[i] = dsine * d[i];
    }
    mf__row_gram_schmidt_grad(x, y, g1, g2, g3, dx, dy);
    for (int i = 0; i < 3; i++) {
        double dd = dcosine * e2[i] + dsine * e3[i];
        da[i] = dy[i];
        da[3 + i] = -dx[i] - dy[i];
        da[6 + i] = dx[i] - dd;
        da[9 + i] = dd;
    }
}

/* One row of any kind. */
MF_DEVICE_FUNCTION static inline void mf__row(int kind, const double *in, double *out) {
    switch (kind) {
    case MF_ROW_QUAT_TO_ROT: mf__row_quat_to_rot(in, out); break;
    case MF_ROW_QUAT_TO_ROT_GRAD: mf__row_quat_to_rot_grad(in, in + 4, out); break;
    case MF_ROW_ROT_TO_QUAT: mf__row_rot_to_quat(in, out); break;
    case MF_ROW_ROT_TO_QUAT_GRAD: mf__row_rot_to_quat_grad(in, in + 9, in + 13, out); break;
    case MF_ROW_QUAT_MULTIPLY: mf__row_quat_multiply(in, in + 4, out); break;
    case MF_ROW_QUAT_MULTIPLY_GRAD: mf__row_quat_multiply_grad(in, in + 4, in + 8, out, out + 4); break;
    case MF_ROW_SO3_EXP: mf__row_so3_exp(in, out); break;
    case MF_ROW_SO3_EXP_GRAD: mf__row_so3_exp_grad(in, in + 3, out); break;
    case MF_ROW_SO3_LOG: mf__row_so3_log(in, out); break;
    case MF_ROW_SO3_LOG_GRAD: mf__row_so3_log_grad(in, in + 9, out); break;
    case MF_ROW_FRAME: mf__row_frame(in, in + 3, in + 6, out); break;
    case MF_ROW_FRAME_GRAD: mf__row_frame_grad(in, in + 3, in + 6, in + 9, out, out + 3, out + 6); break;
    case MF_ROW_UPDATE: mf__row_update(in, in + 4, in + 7, in[13], out, out + 4); break;
    case MF_ROW_UPDATE_GRAD: mf__row_update_grad(in, in + 7, in[13], in + 14, in + 18, out, out + 4, out + 7); break;
    case MF_ROW_DIHEDRAL: mf__row_dihedral(in, out); break;
    case MF_ROW_DIHEDRAL_GRAD: mf__row_dihedral_grad(in, in + 12, out); break;
    default: mf__row_nearest_rotation(in, out); break;
    }
}
#endif
