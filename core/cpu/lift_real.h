/* lift_real.h: one residue of lift.c in one real type; included once for float and once for double. Needs REAL, NAME(x), HALF and
 * BF16 (rounding of a REAL); makes NAME(high), NAME(put), NAME(place), NAME(frame_in_gauge), NAME(lift), NAME(pull), NAME(lift_grad). */

static inline REAL NAME(high)(REAL x, int kind) { return kind == MF_FP16 ? HALF(x) : BF16(x); }

/* Column j of `width` of a query and a key; in halves hi hi lo against hi lo hi, `width` apart. */
static inline void NAME(put)(REAL *q, REAL *k, int64_t j, int64_t width, REAL x, REAL y, int kind) {
    if (!kind) {
        q[j] = x;
        k[j] = y;
        return;
    }
    const REAL x_hi = NAME(high)(x, kind), y_hi = NAME(high)(y, kind);
    q[j] = q[j + width] = x_hi;
    q[j + 2 * width] = x - x_hi;
    k[j] = k[j + 2 * width] = y_hi;
    k[j + width] = y - y_hi;
}

/* frame x, x being point p of (3, points), coordinates outermost. */
static inline void NAME(place)(REAL *to, const REAL *frame, const REAL *x, int64_t points, int64_t p) {
    const REAL a = x[p], b = x[points + p], c = x[2 * points + p];
    for (int j = 0; j < 3; j++) to[j] = frame[3 * j] * a + frame[3 * j + 1] * b + frame[3 * j + 2] * c + frame[9 + j];
}

/* G' R, G' (t - g): the frame as seen from the gauge of its sequence. */
static void NAME(frame_in_gauge)(const mf_ipa_args *a, int64_t i, int64_t s, REAL *frame) {
    const REAL *R = (const REAL *)a->R + 9 * i, *t = (const REAL *)a->t + 3 * i;
    REAL x[3];
    for (int j = 0; j < 3; j++) x[j] = t[j] - (a->gauge_t ? ((const REAL *)a->gauge_t)[3 * s + j] : 0);
    if (!a->gauge_R) {
        for (int j = 0; j < 9; j++) frame[j] = R[j];
        for (int j = 0; j < 3; j++) frame[9 + j] = x[j];
        return;
    }
    const REAL *G = (const REAL *)a->gauge_R + 9 * s;
    for (int j = 0; j < 3; j++) {
        for (int k = 0; k < 3; k++) frame[3 * j + k] = G[j] * R[k] + G[3 + j] * R[3 + k] + G[6 + j] * R[6 + k];
        frame[9 + j] = G[j] * x[0] + G[3 + j] * x[1] + G[6 + j] * x[2];
    }
}

static void NAME(lift)(const mf_ipa_args *a, int64_t i, int64_t s) {
    const int64_t H = a->heads, c = a->hidden, P = a->query_points, V = a->value_points, r = a->rank, dz = a->dz;
    const int64_t points = (a->split ? 9 : 3) * P, values = (a->split ? 6 : 3) * V;
    const REAL *q_in = (const REAL *)a->q + i * H * c, *kv = (const REAL *)a->kv + i * 2 * H * c;
    const REAL *qp = (const REAL *)a->q_points + i * 3 * H * P, *kvp = (const REAL *)a->kv_points + i * 3 * H * (P + V);
    const REAL *b = a->rank ? (const REAL *)a->pair_bias + i * 2 * r * H : NULL;
    const REAL *y = a->rank ? (const REAL *)a->pair_value + i * 2 * r * dz + r * dz : NULL;
    const REAL scale = (REAL)a->scale;
    REAL frame[12];
    NAME(frame_in_gauge)(a, i, s, frame);
    for (int j = 0; j < 12; j++) ((REAL *)a->frames)[12 * i + j] = frame[j];
    for (int64_t h = 0; h < H; h++) {
        REAL *q = (REAL *)a->q_lifted + (i * H + h) * a->ldq, *k = (REAL *)a->k_lifted + (i * H + h) * a->ldq;
        REAL *v = (REAL *)a->v_lifted + (i * H + h) * a->ldv;
        const REAL gamma = (REAL)(softplus((double)((const REAL *)a->head_weights)[h]) * gamma_factor(a));
        for (int64_t j = 0; j < c; j++) {
            q[j] = q_in[h * c + j];
            k[j] = scale * kv[2 * h * c + j];
            v[j] = kv[2 * h * c + c + j];
        }
        REAL square = 0;
        for (int64_t p = 0; p < P; p++) {
            REAL from[3], to[3];
            NAME(place)(from, frame, qp, H * P, h * P + p);
            NAME(place)(to, frame, kvp, H * (P + V), h * (P + V) + p);
            for (int j = 0; j < 3; j++) {
                square += to[j] * to[j];
                NAME(put)(q + c, k + c, 3 * p + j, 3 * P, from[j], gamma * to[j], a->split);
            }
        }
        for (int64_t p = 0; p < V; p++) {
            REAL to[3];
            NAME(place)(to, frame, kvp, H * (P + V), h * (P + V) + P + p);
            for (int j = 0; j < 3; j++) {
                const REAL hi = a->split ? NAME(high)(to[j], a->split) : to[j];
                v[c + 3 * p + j] = hi;
                if (a->split) v[c + 3 * V + 3 * p + j] = to[j] - hi;
            }
        }
        for (int64_t rho = 0; rho < r; rho++)
            NAME(put)(q + c + points, k + c + points, rho, r, b[rho * H + h], b[(r + rho) * H + h], a->halves);
        for (int64_t j = 0; j < r * dz; j++) v[c + values + j] = y[j];
        ((REAL *)a->key_bias)[i * H + h] = is_masked(a, i) ? -(REAL)INFINITY : -(gamma * square) / 2;
    }
}

/* The adjoint of `place`: dx where it is wanted, dR and dt are added to `sum`. */
static inline void NAME(pull)(REAL *dx, REAL *sum, const REAL *frame, const REAL *x, const REAL *g, int64_t points, int64_t p) {
    for (int j = 0; j < 3; j++) {
        if (dx) dx[j * points + p] = frame[j] * g[0] + frame[3 + j] * g[1] + frame[6 + j] * g[2];
        for (int k = 0; k < 3; k++) sum[3 * j + k] += g[j] * x[k * points + p];
        sum[9 + j] += g[j];
    }
}

/* dgamma (H): what this residue gives to the gradient of each gamma. */
static void NAME(lift_grad)(const mf_ipa_args *a, int64_t i, int64_t s, double *dgamma) {
    const int64_t H = a->heads, c = a->hidden, P = a->query_points, V = a->value_points, r = a->rank, dz = a->dz;
    const int64_t points = (a->split ? 9 : 3) * P, values = (a->split ? 6 : 3) * V;
    const REAL *qp = (const REAL *)a->q_points + i * 3 * H * P, *kvp = (const REAL *)a->kv_points + i * 3 * H * (P + V);
    const REAL *frame = (const REAL *)a->frames + 12 * i, *before = (const REAL *)a->dframes + 12 * i;
    REAL *dqp = a->dq_points ? (REAL *)a->dq_points + i * 3 * H * P : NULL;
    REAL *dkvp = a->dkv_points ? (REAL *)a->dkv_points + i * 3 * H * (P + V) : NULL;
    REAL *db = a->dpair_bias ? (REAL *)a->dpair_bias + i * 2 * r * H : NULL;
    REAL *dy = a->dpair_value ? (REAL *)a->dpair_value + i * 2 * r * dz + r * dz : NULL;
    REAL sum[12];
    for (int j = 0; j < 12; j++) sum[j] = before[j];
    for (int64_t j = 0; dy && j < r * dz; j++) dy[j] = 0;
    for (int64_t h = 0; h < H; h++) {
        const REAL *dq = (const REAL *)a->dq_lifted + (i * H + h) * a->dqk, *dk = (const REAL *)a->dk_lifted + (i * H + h) * a->dqk;
        const REAL *dv = (const REAL *)a->dv_lifted + (i * H + h) * a->dv;
        const REAL gamma = (REAL)(softplus((double)((const REAL *)a->head_weights)[h]) * gamma_factor(a));
        const REAL bias = ((const REAL *)a->dkey_bias)[i * H + h];
        if (a->dq) memcpy((REAL *)a->dq + (i * H + h) * c, dq, (size_t)c * sizeof(REAL));
        if (a->dkv) {
            REAL *to = (REAL *)a->dkv + (i * H + h) * 2 * c;
            for (int64_t j = 0; j < c; j++) to[j] = (REAL)a->scale * dk[j];
            memcpy(to + c, dv, (size_t)c * sizeof(REAL));
        }
        dgamma[h] = 0;
        for (int64_t p = 0; p < P; p++) {
            REAL g[3], to[3];
            for (int j = 0; j < 3; j++) g[j] = dq[c + 3 * p + j] + (a->split ? dq[c + 3 * P + 3 * p + j] : 0);
            NAME(pull)(dqp, sum, frame, qp, g, H * P, h * P + p);
            NAME(place)(to, frame, kvp, H * (P + V), h * (P + V) + p);
            for (int j = 0; j < 3; j++) {
                const REAL column = dk[c + 3 * p + j] + (a->split ? dk[c + 6 * P + 3 * p + j] : 0);
                dgamma[h] += (double)(column * to[j]) - (double)(bias * to[j] * to[j]) / 2;
                g[j] = gamma * (column - bias * to[j]);
            }
            NAME(pull)(dkvp, sum, frame, kvp, g, H * (P + V), h * (P + V) + p);
        }
        for (int64_t p = 0; p < V; p++) NAME(pull)(dkvp, sum, frame, kvp, dv + c + 3 * p, H * (P + V), h * (P + V) + P + p);
        for (int64_t rho = 0; db && rho < r; rho++) {
            const REAL *to_q = dq + c + points + rho, *to_k = dk + c + points + rho;
            db[rho * H + h] = to_q[0] + (a->halves ? to_q[r] : 0);
            db[(r + rho) * H + h] = to_k[0] + (a->halves ? to_k[2 * r] : 0);
        }
        for (int64_t j = 0; dy && j < r * dz; j++) dy[j] += dv[c + values + j];
    }
    const REAL *G = a->gauge_R ? (const REAL *)a->gauge_R + 9 * s : NULL;
    for (int j = 0; j < 3; j++) {
        for (int k = 0; a->dR && k < 3; k++)
            ((REAL *)a->dR)[9 * i + 3 * j + k] = G ? G[3 * j] * sum[k] + G[3 * j + 1] * sum[3 + k] + G[3 * j + 2] * sum[6 + k] : sum[3 * j + k];
        if (a->dt) ((REAL *)a->dt)[3 * i + j] = G ? G[3 * j] * sum[9] + G[3 * j + 1] * sum[10] + G[3 * j + 2] * sum[11] : sum[9 + j];
    }
}
