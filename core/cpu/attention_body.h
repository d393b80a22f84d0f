/* attention_body.h: the loops of packed attention for one real type. attention.c includes it twice, with R, NAME, EXP,
 * TOP_OF, BLAS and ROUND_ROW set; it makes, each with the suffix _f32 or _f64:
 *
 *   view, view_of, operand, gather_bias       one (sequence, head) and its operands
 *   forward_rows, softmax_rows                 forward
 *   prepare_rows, grad_tile                   backward
 *
 * `operand` is where emulation of a matrix unit happens: it returns the rows where they lie, or rounded copies. */

/* One sequence and head: first elements, and the distance from residue to residue. */
typedef struct NAME(view) {
    const R *q, *k, *v, *key_bias, *out, *dout, *lse_in, *delta;
    R *dq, *dk, *dv, *dkey_bias, *out_to, *lse_to;
    int64_t length, dqk, dv_width, qk_stride, v_stride, heads;
} NAME(view);

static NAME(view) NAME(view_of)(const mf_attention_args *a, int64_t sequence, int64_t head, const R *delta) {
    const int64_t first = a->packing->offsets[sequence], row = first * a->heads + head;
#define AT(pointer, width) ((pointer) ? (pointer) + row * (width) : NULL)
    return (NAME(view)){
        .q = AT((const R *)a->q, a->dqk), .k = AT((const R *)a->k, a->dqk), .v = AT((const R *)a->v, a->dv),
        .key_bias = AT((const R *)a->key_bias, 1), .out = AT((const R *)a->out, a->dv), .dout = AT((const R *)a->dout, a->dv),
        .lse_in = AT((const R *)a->lse, 1), .delta = AT(delta, 1),
        .dq = AT((R *)a->dq, a->dqk), .dk = AT((R *)a->dk, a->dqk), .dv = AT((R *)a->dv_, a->dv),
        .dkey_bias = AT((R *)a->dkey_bias, 1), .out_to = AT((R *)a->out, a->dv), .lse_to = AT((R *)a->lse, 1),
        .length = a->packing->offsets[sequence + 1] - first, .dqk = a->dqk, .dv_width = a->dv,
        .qk_stride = a->heads * a->dqk, .v_stride = a->heads * a->dv, .heads = a->heads,
    };
#undef AT
}

/* `rows` rows as an operand of a product: themselves, or rounded into `tile`. */
static const R *NAME(operand)(int64_t *ld, const R *from, int64_t stride, int64_t rows, int64_t width, int precision, R scale,
                    R *tile) {
    *ld = stride;
    if (precision == MF_EXACT) return from;
    for (int64_t i = 0; i < rows; i++) ROUND_ROW(tile + i * width, from + i * stride, width, precision, scale);
    *ld = width;
    return tile;
}

static void NAME(gather_bias)(R *to, const NAME(view) *x, int64_t j0, int64_t columns) {
    for (int64_t j = 0; j < columns; j++) to[j] = x->key_bias ? x->key_bias[(j0 + j) * x->heads] : 0;
}

/* One step of the online softmax: S becomes exp(S + bias - max), and what was summed before is rescaled. */
static void NAME(softmax_rows)(R *s, int64_t rows, int64_t columns, const R *bias, R *max, R *sum, R *out, int64_t out_stride,
                               int64_t width, int first, int precision) {
    for (int64_t i = 0; i < rows; i++) {
        R *row = s + i * columns, total = 0;
        const R top = TOP_OF(row, bias, columns, max[i]);
        const R base = top == -(R)INFINITY ? 0 : top;   /* all masked so far: exp(-inf - 0) = 0 and no NaN */
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < columns; j++) {
            const R e = EXP(row[j] + bias[j] - base);
            row[j] = e;
            total += e;
        }
        if (precision != MF_EXACT) {
            /* The row is divided by the sum of what is really multiplied. Then its weights add up to one exactly, and
             * rounding moves a global coordinate by its spread over the neighbours, not by its distance from the origin. */
            ROUND_ROW(row, row, columns, precision, 1);
            total = 0;
#pragma omp simd reduction(+ : total)
            for (int64_t j = 0; j < columns; j++) total += row[j];
        }
        if (first) {
            sum[i] = total;
        } else {
            const R scale = EXP(max[i] - base);
            sum[i] = sum[i] * scale + total;
            if (top != max[i]) {
                R *to = out + i * out_stride;
#pragma omp simd
                for (int64_t c = 0; c < width; c++) to[c] *= scale;
            }
        }
        max[i] = top;
    }
}

/* out and lse of the queries [i0, i0 + rows): they are summed in `out` itself. */
static void NAME(forward_rows)(const mf_attention_args *a, const layout *w, int64_t sequence, int64_t head, int64_t i0,
                    int64_t rows, char *work) {
    const NAME(view) x = NAME(view_of)(a, sequence, head, NULL);
    R *s = AREA(w, work, AREA_S), *bias = AREA(w, work, AREA_BIAS), *max = AREA(w, work, AREA_MAX), *sum = AREA(w, work, AREA_SUM);
    R *out = x.out_to + i0 * x.v_stride;
    const int64_t step = even(x.length, COLUMNS);
    int64_t q_ld, k_ld, v_ld;
    const R *q = NAME(operand)(&q_ld, x.q + i0 * x.qk_stride, x.qk_stride, rows, x.dqk, a->precision, 1, AREA(w, work, AREA_Q));
    for (int64_t i = 0; i < rows; i++) max[i] = -(R)INFINITY;
    for (int64_t j0 = 0; j0 < x.length; j0 += step) {
        const int64_t columns = mf__min_i64(step, x.length - j0);
        const R *k = NAME(operand)(&k_ld, x.k + j0 * x.qk_stride, x.qk_stride, columns, x.dqk, a->precision, 1, AREA(w, work,
            AREA_K));
        const R *v = NAME(operand)(&v_ld, x.v + j0 * x.v_stride, x.v_stride, columns, x.dv_width, a->precision, 1, AREA(w, work,
            AREA_V));
        NAME(gather_bias)(bias, &x, j0, columns);
        MF__GEMM(BLAS, 0, 1, rows, columns, x.dqk, 1, q, q_ld, k, k_ld, 0, s, columns);
        NAME(softmax_rows)(s, rows, columns, bias, max, sum, out, x.v_stride, x.dv_width, j0 == 0, a->precision);
        MF__GEMM(BLAS, 0, 0, rows, x.dv_width, columns, 1, s, columns, v, v_ld, j0 == 0 ? 0 : 1, out, x.v_stride);
    }
    for (int64_t i = 0; i < rows; i++) {
        R *to = out + i * x.v_stride;
        x.lse_to[(i0 + i) * x.heads] = sum[i] == 0 ? -(R)INFINITY : max[i] + (R)log((double)sum[i]);
        if (sum[i] == 0) {
            memset(to, 0, (size_t)x.dv_width * sizeof(R));   /* no key: also where a masked value was infinite */
            continue;
        }
        const R scale = 1 / sum[i];
        for (int64_t c = 0; c < x.dv_width; c++) to[c] *= scale;
    }
}

/* delta = scale rowsum(dout out) of the rows [first, last) of (N H), with dout as the products will see it. */
static void NAME(prepare_rows)(const mf_attention_args *a, R *delta, int64_t first, int64_t last, R scale, R *tile) {
    for (int64_t i = first; i < last; i++) {
        const R *out = (const R *)a->out + i * a->dv, *dout = (const R *)a->dout + i * a->dv;
        R total = 0;
        if (a->precision != MF_EXACT) {
            ROUND_ROW(tile, dout, a->dv, a->precision, scale);
            dout = tile;
        }
#pragma omp simd reduction(+ : total)
        for (int64_t c = 0; c < a->dv; c++) total += dout[c] * out[c];
        delta[i] = total;
    }
}

/* What the tile of queries [i0, ...) and keys [j0, ...) gives to the gradients in `what`. The first tile of a row or
 * column writes with '=', the later ones add, in order. */
static void NAME(grad_tile)(const mf_attention_args *a, const layout *w, const NAME(view) *x, int64_t i0, int64_t rows, int64_t j0,
                    int64_t columns,
                            int what, R scale, char *work) {
    R *p = AREA(w, work, AREA_S), *ds = AREA(w, work, AREA_DS), *bias = AREA(w, work, AREA_BIAS), *dbias = AREA(w, work,
        AREA_DBIAS);
    const int precision = a->precision;
    const R p_scale = precision == MF_FP16 ? 32768 : 1;
    int64_t q_ld, k_ld, v_ld, do_ld;
    const R *q = NAME(operand)(&q_ld, x->q + i0 * x->qk_stride, x->qk_stride, rows, x->dqk, precision, 1, AREA(w, work, AREA_Q));
    const R *k = NAME(operand)(&k_ld, x->k + j0 * x->qk_stride, x->qk_stride, columns, x->dqk, precision, 1, AREA(w, work, AREA_K));
    const R *v = NAME(operand)(&v_ld, x->v + j0 * x->v_stride, x->v_stride, columns, x->dv_width, precision, 1, AREA(w, work,
        AREA_V));
    const R *dout = NAME(operand)(&do_ld, x->dout + i0 * x->v_stride, x->v_stride, rows, x->dv_width, precision, scale, AREA(w,
        work, AREA_DOUT));
    const int scores = what & (WANT_Q | WANT_K | WANT_BIAS);
    NAME(gather_bias)(bias, x, j0, columns);
    memset(dbias, 0, (size_t)columns * sizeof(R));
    MF__GEMM(BLAS, 0, 1, rows, columns, x->dqk, 1, q, q_ld, k, k_ld, 0, p, columns);
    if (scores) MF__GEMM(BLAS, 0, 1, rows, columns, x->dv_width, 1, dout, do_ld, v, v_ld, 0, ds, columns);
    for (int64_t i = 0; i < rows; i++) {
        R *p_row = p + i * columns, *ds_row = ds + i * columns;
        R lse = x->lse_in[(i0 + i) * x->heads];
        lse = lse == -(R)INFINITY ? (R)INFINITY : lse;      /* a query without keys: exp(s - inf) = 0 */
#pragma omp simd
        for (int64_t j = 0; j < columns; j++) p_row[j] = EXP(p_row[j] + bias[j] - lse);
        if (scores) {
            const R delta = x->delta[(i0 + i) * x->heads];
#pragma omp simd
            for (int64_t j = 0; j < columns; j++) {
                const R y = p_row[j] * (ds_row[j] - delta);
                ds_row[j] = y;
                dbias[j] += y;
            }
            if (precision != MF_EXACT) ROUND_ROW(ds_row, ds_row, columns, precision, 1);
        }
        if (precision != MF_EXACT) ROUND_ROW(p_row, p_row, columns, precision, p_scale);
    }
    const R back = 1 / scale;
    if (what & WANT_V)
        MF__GEMM(BLAS, 1, 0, columns, x->dv_width, rows, back / p_scale, p, columns, dout, do_ld, i0 == 0 ? 0 : 1,
            x->dv + j0 * x->v_stride, x->v_stride);
    if (what & WANT_Q)
        MF__GEMM(BLAS, 0, 0, rows, x->dqk, columns, back, ds, columns, k, k_ld, j0 == 0 ? 0 : 1, x->dq + i0 * x->qk_stride,
            x->qk_stride);
    if (what & WANT_K)
        MF__GEMM(BLAS, 1, 0, columns, x->dqk, rows, back, ds, columns, q, q_ld, i0 == 0 ? 0 : 1, x->dk + j0 * x->qk_stride,
            x->qk_stride);
    if (what & WANT_BIAS)
        for (int64_t j = 0; j < columns; j++) {
            R *to = x->dkey_bias + (j0 + j) * x->heads;
            *to = (i0 == 0 ? 0 : *to) + back * dbias[j];
        }
}
