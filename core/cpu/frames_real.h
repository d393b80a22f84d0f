/* frames_real.h: the loops of frames.c for one real type; included once for float and once for double.
 * Needs REAL and NAME(x); makes NAME(apply), NAME(apply_grad), NAME(gauge). */

static void NAME(apply)(const mf_device *d, int64_t n, int64_t points, int inverse, const REAL *R, const REAL *t, const REAL *x, REAL *y) {
#pragma omp parallel for num_threads(mf__threads(d, n, 18 * points)) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const REAL *r = R + 9 * i, *from = x + 3 * points * i;
        REAL *to = y + 3 * points * i;
        REAL t0 = t[3 * i], t1 = t[3 * i + 1], t2 = t[3 * i + 2];
        REAL r0 = r[0], r1 = r[1], r2 = r[2], r3 = r[3], r4 = r[4], r5 = r[5], r6 = r[6], r7 = r[7], r8 = r[8];
        if (inverse)
            for (int64_t p = 0; p < 3 * points; p += 3) {
                REAL a = from[p] - t0, b = from[p + 1] - t1, c = from[p + 2] - t2;
                to[p] = r0 * a + r3 * b + r6 * c;
                to[p + 1] = r1 * a + r4 * b + r7 * c;
                to[p + 2] = r2 * a + r5 * b + r8 * c;
            }
        else
            for (int64_t p = 0; p < 3 * points; p += 3) {
                REAL a = from[p], b = from[p + 1], c = from[p + 2];
                to[p] = r0 * a + r1 * b + r2 * c + t0;
                to[p + 1] = r3 * a + r4 * b + r5 * c + t1;
                to[p + 2] = r6 * a + r7 * b + r8 * c + t2;
            }
    }
}

/* The inverse is the same loop with the roles of x - t and dy exchanged: dR = sum (x - t) dy', dx = R dy. */
static void NAME(apply_grad)(const mf_device *d, int64_t n, int64_t points, int inverse, const REAL *R, const REAL *t, const REAL *x,
                             const REAL *dy, REAL *dR, REAL *dt, REAL *dx) {
#pragma omp parallel for num_threads(mf__threads(d, n, 36 * points)) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const REAL *r = R ? R + 9 * i : NULL, *g = dy + 3 * points * i;
        REAL total[3] = {0, 0, 0};
        for (int64_t p = 0; p < 3 * points; p += 3)
            for (int j = 0; j < 3; j++) total[j] += g[p + j];
        if (dR) {
            const REAL *from = x + 3 * points * i;
            REAL s[9] = {0};  /* s[3 j + k] = sum of dy_j (x_k, less t_k in the inverse) */
            REAL origin[3] = {0, 0, 0};
            for (int j = 0; inverse && j < 3; j++) origin[j] = t[3 * i + j];
            for (int64_t p = 0; p < 3 * points; p += 3)
                for (int j = 0; j < 3; j++)
                    for (int k = 0; k < 3; k++) s[3 * j + k] += g[p + j] * (from[p + k] - origin[k]);
            for (int j = 0; j < 3; j++)
                for (int k = 0; k < 3; k++) dR[9 * i + 3 * j + k] = inverse ? s[3 * k + j] : s[3 * j + k];
        }
        if (dt)
            for (int j = 0; j < 3; j++)
                dt[3 * i + j] = inverse ? -(r[3 * j] * total[0] + r[3 * j + 1] * total[1] + r[3 * j + 2] * total[2]) : total[j];
        if (dx) {
            REAL *to = dx + 3 * points * i;
            REAL a[9];  /* dx = a dy */
            for (int j = 0; j < 3; j++)
                for (int k = 0; k < 3; k++) a[3 * j + k] = inverse ? r[3 * j + k] : r[3 * k + j];
            for (int64_t p = 0; p < 3 * points; p += 3)
                for (int j = 0; j < 3; j++) to[p + j] = a[3 * j] * g[p] + a[3 * j + 1] * g[p + 1] + a[3 * j + 2] * g[p + 2];
        }
    }
}

static void NAME(gauge)(const mf_packing *packing, const REAL *R, const REAL *t, const REAL *mask, REAL *gauge_R, REAL *gauge_t) {
    for (int64_t s = 0; s < packing->count; s++) {
        double mean[3] = {0, 0, 0};
        int64_t valid = 0, first = 0;
        for (int64_t i = packing->offsets[s]; i < packing->offsets[s + 1]; i++) {
            if (mask && mask[i] == 0) continue;
            if (valid++ == 0) first = i;
            for (int j = 0; j < 3; j++) mean[j] += (double)t[3 * i + j];
        }
        for (int j = 0; j < 3; j++) gauge_t[3 * s + j] = valid ? (REAL)(mean[j] / (double)valid) : 0;
        for (int j = 0; j < 9; j++) gauge_R[9 * s + j] = valid ? R[9 * first + j] : (REAL)(j % 4 == 0);
    }
}
