/* readout_real.h: one residue of readout.c in one real type; included once for float and once for double. Needs REAL and NAME(x);
 * makes NAME(gathered), NAME(readout), NAME(readout_grad). */

/* x = the gathered point less the frame's origin, back = R' x. */
static inline void NAME(gathered)(REAL *x, REAL *back, const REAL *frame, const REAL *columns, int64_t low) {
    for (int j = 0; j < 3; j++) x[j] = columns[j] + (low ? columns[low + j] : 0) - frame[9 + j];
    for (int j = 0; j < 3; j++) back[j] = frame[j] * x[0] + frame[3 + j] * x[1] + frame[6 + j] * x[2];
}

static void NAME(readout)(const mf_ipa_args *a, int64_t i) {
    const int64_t H = a->heads, c = a->hidden, V = a->value_points, r = a->rank, dz = a->dz, low = a->split ? 3 * V : 0;
    const REAL *frame = (const REAL *)a->frames + 12 * i, *y = r ? (const REAL *)a->pair_value + i * 2 * r * dz : NULL;
    REAL *features = (REAL *)a->features + i * H * (c + 4 * V + dz), *at = features + H * c;
    for (int64_t h = 0; h < H; h++) {
        const REAL *from = (const REAL *)a->attended + (i * H + h) * a->dv, *w = from + c + 3 * V + low;
        memcpy(features + h * c, from, (size_t)c * sizeof(REAL));
        for (int64_t p = 0; p < V; p++) {
            REAL x[3], back[3];
            NAME(gathered)(x, back, frame, from + c + 3 * p, low);
            for (int j = 0; j < 3; j++) at[(j * H + h) * V + p] = back[j];
            at[(3 * H + h) * V + p] = (REAL)sqrt((double)(back[0] * back[0] + back[1] * back[1] + back[2] * back[2] + (REAL)1e-8));
        }
        REAL *to = at + 4 * H * V + h * dz;
        for (int64_t j = 0; j < dz; j++) to[j] = 0;
        for (int64_t rho = 0; rho < r; rho++)
            for (int64_t j = 0; j < dz; j++) to[j] += y[rho * dz + j] * w[rho * dz + j];
    }
}

static void NAME(readout_grad)(const mf_ipa_args *a, int64_t i) {
    const int64_t H = a->heads, c = a->hidden, V = a->value_points, r = a->rank, dz = a->dz, low = a->split ? 3 * V : 0;
    const REAL *frame = (const REAL *)a->frames + 12 * i, *y = r ? (const REAL *)a->pair_value + i * 2 * r * dz : NULL;
    const REAL *dfeatures = (const REAL *)a->dfeatures + i * H * (c + 4 * V + dz), *at = dfeatures + H * c;
    REAL *dy = a->dpair_value ? (REAL *)a->dpair_value + i * 2 * r * dz : NULL, *dframe = (REAL *)a->dframes + 12 * i;
    for (int j = 0; j < 12; j++) dframe[j] = 0;
    for (int64_t j = 0; dy && j < r * dz; j++) dy[j] = 0;
    for (int64_t h = 0; h < H; h++) {
        const REAL *from = (const REAL *)a->attended + (i * H + h) * a->dv, *w = from + c + 3 * V + low;
        REAL *to = (REAL *)a->dattended + (i * H + h) * a->dv, *dw = to + c + 3 * V + low;
        memcpy(to, dfeatures + h * c, (size_t)c * sizeof(REAL));
        for (int64_t p = 0; p < V; p++) {
            REAL x[3], back[3], g[3];
            NAME(gathered)(x, back, frame, from + c + 3 * p, low);
            const REAL norm = (REAL)sqrt((double)(back[0] * back[0] + back[1] * back[1] + back[2] * back[2] + (REAL)1e-8));
            for (int j = 0; j < 3; j++) g[j] = at[(j * H + h) * V + p] + at[(3 * H + h) * V + p] * (back[j] / norm);
            for (int j = 0; j < 3; j++) {
                const REAL turned = frame[3 * j] * g[0] + frame[3 * j + 1] * g[1] + frame[3 * j + 2] * g[2];
                to[c + 3 * p + j] = turned;
                if (low) to[c + low + 3 * p + j] = turned;
                dframe[9 + j] -= turned;
                for (int k = 0; k < 3; k++) dframe[3 * j + k] += x[j] * g[k];
            }
        }
        const REAL *g = at + 4 * H * V + h * dz;
        for (int64_t rho = 0; rho < r; rho++)
            for (int64_t j = 0; j < dz; j++) {
                dw[rho * dz + j] = g[j] * y[rho * dz + j];
                if (dy) dy[rho * dz + j] += g[j] * w[rho * dz + j];
            }
    }
}
