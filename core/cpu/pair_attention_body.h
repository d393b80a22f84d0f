/* pair_attention_body.h: the loops of pair attention for one real type. pair_attention.c includes it twice, with R, NAME,
 * EXP, TOP_OF and BLAS set; it makes, each with the suffix _f32 or _f64: bias_row, forward_block, grad_block, add_up.
 *
 * A block holds `rows` queries of one sequence with all heads: S[head][row][key], so that one query's heads are the rows
 * of a matrix with stride rows x keys, which meets pair_value as one product. */

/* key_bias + pair_bias of one head and query over all keys. */
static void NAME(bias_row)(R *to, const mf_attention_args *a, const R *key_bias, const R *pair_bias, int64_t head, int64_t length) {
    for (int64_t j = 0; j < length; j++) {
        R x = key_bias ? key_bias[j * a->heads + head] : 0;
        to[j] = pair_bias ? x + pair_bias[j * a->heads + head] : x;
    }
}

static void NAME(forward_block)(const mf_attention_args *a, const layout *w, int64_t sequence, int64_t i0, int64_t rows,
                    char *work) {
    const int64_t first = a->packing->offsets[sequence], length = a->packing->offsets[sequence + 1] - first, heads = a->heads;
    const int64_t qk_stride = heads * a->dqk, v_stride = heads * a->dv, stride = rows * length;
    const int64_t pair = a->packing->pair_offsets[sequence] + i0 * length;     /* of (i0, 0) */
    R *s = AREA(w, work, AREA_S), *bias = AREA(w, work, AREA_BIAS);
    const R *q = (const R *)a->q + (first + i0) * qk_stride, *k = (const R *)a->k + first * qk_stride,
        *v = (const R *)a->v + first * v_stride;
    const R *key_bias = a->key_bias ? (const R *)a->key_bias + first * heads : NULL;
    R *out = (R *)a->out + (first + i0) * v_stride, *lse = (R *)a->lse + (first + i0) * heads;
    for (int64_t h = 0; h < heads; h++) {
        R *block = s + h * stride;
        MF__GEMM(BLAS, 0, 1, rows, length, a->dqk, 1, q + h * a->dqk, qk_stride, k + h * a->dqk, qk_stride, 0, block, length);
        for (int64_t i = 0; i < rows; i++) {
            R *row = block + i * length, total = 0;
            const R *pair_bias = a->pair_bias ? (const R *)a->pair_bias + (pair + i * length) * heads : NULL;
            NAME(bias_row)(bias, a, key_bias, pair_bias, h, length);
            const R top = TOP_OF(row, bias, length, -(R)INFINITY), base = top == -(R)INFINITY ? 0 : top;
#pragma omp simd reduction(+ : total)
            for (int64_t j = 0; j < length; j++) {
                const R e = EXP(row[j] + bias[j] - base);
                row[j] = e;
                total += e;
            }
            lse[i * heads + h] = total == 0 ? -(R)INFINITY : top + (R)log((double)total);
            const R scale = total == 0 ? 0 : 1 / total;
            for (int64_t j = 0; j < length; j++) row[j] *= scale;
        }
        MF__GEMM(BLAS, 0, 0, rows, a->dv, length, 1, block, length, v + h * a->dv, v_stride, 0, out + h * a->dv, v_stride);
    }
    for (int64_t i = 0; i < rows; i++) {
        R *pair_out = a->pair_out ? (R *)a->pair_out + (first + i0 + i) * heads * a->dz : NULL;
        if (pair_out)
            MF__GEMM(BLAS, 0, 0, heads, a->dz, length, 1, s + i * length, stride,
                (const R *)a->pair_value + (pair + i * length) * a->dz,
                     a->dz, 0, pair_out, a->dz);
        for (int64_t h = 0; h < heads; h++) {      /* a query without keys: zeros, also where a masked value is infinite */
            if (lse[i * heads + h] != -(R)INFINITY) continue;
            memset(out + i * v_stride + h * a->dv, 0, (size_t)a->dv * sizeof(R));
            if (pair_out) memset(pair_out + h * a->dz, 0, (size_t)a->dz * sizeof(R));
        }
    }
}

/* The gradients of a block. What belongs to its queries or pairs is written; what belongs to keys (dk, dv, dkey_bias of the
 * whole sequence, in `to`) is written by the first block of a run and added to by the next. */
static void NAME(grad_block)(const mf_attention_args *a, const layout *w, const key_gradients *to, int first_block,
                    int64_t sequence, int64_t i0,
                             int64_t rows, char *work) {
    const int64_t first = a->packing->offsets[sequence], length = a->packing->offsets[sequence + 1] - first, heads = a->heads;
    const int64_t qk_stride = heads * a->dqk, v_stride = heads * a->dv, z_stride = heads * a->dz, stride = rows * length;
    const int64_t pair = a->packing->pair_offsets[sequence] + i0 * length;
    R *p = AREA(w, work, AREA_S), *ds = AREA(w, work, AREA_DS), *bias = AREA(w, work, AREA_BIAS);
    const R *q = (const R *)a->q + (first + i0) * qk_stride, *k = (const R *)a->k + first * qk_stride,
        *v = (const R *)a->v + first * v_stride;
    const R *key_bias = a->key_bias ? (const R *)a->key_bias + first * heads : NULL;
    const R *out = (const R *)a->out + (first + i0) * v_stride, *dout = (const R *)a->dout + (first + i0) * v_stride;
    const R *lse = (const R *)a->lse + (first + i0) * heads;
    const R *pair_out = a->dpair_out ? (const R *)a->pair_out_in + (first + i0) * z_stride : NULL;
    const R *dpair_out = a->dpair_out ? (const R *)a->dpair_out + (first + i0) * z_stride : NULL;
    const R *pair_value = dpair_out ? (const R *)a->pair_value + pair * a->dz : NULL;
    const R keep = first_block ? 0 : 1;
    for (int64_t h = 0; h < heads; h++) {
        MF__GEMM(BLAS, 0, 1, rows, length, a->dqk, 1, q + h * a->dqk, qk_stride, k + h * a->dqk, qk_stride, 0, p + h * stride,
            length);
        MF__GEMM(BLAS, 0, 1, rows, length, a->dv, 1, dout + h * a->dv, v_stride, v + h * a->dv, v_stride, 0, ds + h * stride,
            length);
    }
    if (dpair_out)
        for (int64_t i = 0; i < rows; i++)
            MF__GEMM(BLAS, 0, 1, heads, length, a->dz, 1, dpair_out + i * z_stride, a->dz, pair_value + i * length * a->dz, a->dz,
                1,
                     ds + i * length, stride);
    for (int64_t h = 0; h < heads; h++) {
        for (int64_t i = 0; i < rows; i++) {
            R *p_row = p + h * stride + i * length, *ds_row = ds + h * stride + i * length, delta = 0, rest = 0;
            const R *pair_bias = a->pair_bias ? (const R *)a->pair_bias + (pair + i * length) * heads : NULL;
            const R *o = out + i * v_stride + h * a->dv, *g = dout + i * v_stride + h * a->dv;
            R top = lse[i * heads + h];
            top = top == -(R)INFINITY ? (R)INFINITY : top;      /* a query without keys: exp(s - inf) = 0 */
#pragma omp simd reduction(+ : delta)
            for (int64_t c = 0; c < a->dv; c++) delta += o[c] * g[c];
            for (int64_t c = 0; dpair_out && c < a->dz; c++) rest += pair_out[i * z_stride + h * a->dz + c] * dpair_out[i * z_stride + h * a->dz + c];
            delta += rest;
            NAME(bias_row)(bias, a, key_bias, pair_bias, h, length);
#pragma omp simd
            for (int64_t j = 0; j < length; j++) {
                p_row[j] = EXP(p_row[j] + bias[j] - top);
                ds_row[j] = p_row[j] * (ds_row[j] - delta);
            }
            if (a->dpair_bias) {
                R *dpair_bias = (R *)a->dpair_bias + (pair + i * length) * heads + h;
                for (int64_t j = 0; j < length; j++) dpair_bias[j * heads] = ds_row[j];
            }
        }
        const R *p_head = p + h * stride, *ds_head = ds + h * stride;
        if (a->dq)
            MF__GEMM(BLAS, 0, 0, rows, a->dqk, length, 1, ds_head, length, k + h * a->dqk, qk_stride, 0,
                     (R *)a->dq + (first + i0) * qk_stride + h * a->dqk, qk_stride);
        if (to->dk)
            MF__GEMM(BLAS, 1, 0, length, a->dqk, rows, 1, ds_head, length, q + h * a->dqk, qk_stride, keep,
                (R *)to->dk + h * a->dqk, qk_stride);
        if (to->dv)
            MF__GEMM(BLAS, 1, 0, length, a->dv, rows, 1, p_head, length, dout + h * a->dv, v_stride, keep, (R *)to->dv + h * a->dv,
                v_stride);
        if (to->dkey_bias) {
            R *sum = (R *)to->dkey_bias + h;
            for (int64_t i = 0; i < rows; i++)
                for (int64_t j = 0; j < length; j++) sum[j * heads] = (first_block && i == 0 ? 0 : sum[j * heads]) + ds_head[i * length + j];
        }
    }
    if (a->dpair_value && dpair_out)
        for (int64_t i = 0; i < rows; i++)
            MF__GEMM(BLAS, 1, 0, length, a->dz, heads, 1, p + i * length, stride, dpair_out + i * z_stride, a->dz, 0,
                     (R *)a->dpair_value + (pair + i * length) * a->dz, a->dz);
}

/* to += from, elements [first, last). */
static void NAME(add_up)(void *to, const void *from, int64_t first, int64_t last) {
    R *y = to;
    const R *x = from;
    for (int64_t i = first; i < last; i++) y[i] += x[i];
}
