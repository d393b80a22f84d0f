/* bcif_decode.c: the encodings of BinaryCIF undone.
 *
 *     {data: bytes, encoding: [first, ..., last]}     the last was applied last and is undone first
 *
 *     ByteArray             little-endian numbers of 1, 2, 4, 8 bytes; always the last
 *     IntegerPacking        a number is a sum: it goes on while its part is the largest (or least) there is
 *     RunLength             value, how often, value, how often ...
 *     Delta                 sums from an origin
 *     FixedPoint            x / factor: the quotient of whole numbers, so the double nearest to the decimal that was written
 *     IntervalQuantization  min + x (max - min) / (steps - 1)
 *     StringArray           which of some strings, that are slices of one text; the first
 *
 * Source: D. Sehnal et al., PLoS Comput. Biol. 16 (2020), e1008247, and molstar/BinaryCIF, encoding.md. Whole numbers are
 * those of 32 bits, signed or not. Nothing is believed: every count is held against the rows or the bytes that there are
 * before memory is taken for it. */
#include "bcif_decode.h"
#include "json.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ENCODINGS = 8 };

/* What an encoding may say. */
typedef struct encoding {
    mf__pack kind;
    int64_t type, size, origin, bytes, steps;    /* -1 where absent */
    int is_unsigned;
    double factor, min, max;                     /* NaN where absent */
    const char *indices, *offsets;               /* StringArray: encodings of both; NULL: absent */
    mf__pack text, offset_data;
} encoding;

typedef struct decoder {
    mf__msgpack p;
    int64_t *budget;
    const char *where;
} decoder;

static mf_status bad(const decoder *d, const char *message) {
    return mf__fail(MF_EFORMAT, "%s: '%s': BinaryCIF: %s: %s", d->p.what, d->p.name, d->where, message);
}

/* Room for `count` numbers of 8 bytes. */
static mf_status numbers(void *out, const decoder *d, int64_t count) {
    void **block = out;
    if (count > *d->budget / 8) return bad(d, "its category decodes to more than the limit of bytes");
    *d->budget -= 8 * count;
    *block = malloc(8 * (size_t)(count ? count : 1));
    return *block ? MF_OK : mf__fail(MF_ENOMEM, "%s: '%s': no memory for %lld values", d->p.what, d->p.name, (long long)count);
}

/* ---- what an encoding says ---- */

static mf_status read_encoding(encoding *e, decoder *d) {
    mf__msgpack *p = &d->p;
    mf__pack map, key, v;
    *e = (encoding){.type = -1, .size = -1, .bytes = -1, .steps = -1, .factor = NAN, .min = NAN, .max = NAN};
    MF_TRY(mf__msgpack_expect(&map, p, MF__PACK_MAP, "an encoding"));
    for (int64_t i = 0; i < map.size; i++) {
        MF_TRY(mf__msgpack_expect(&key, p, MF__PACK_TEXT, "a key of an encoding"));
        const char *at = p->at;
        if (mf__pack_is(&key, "dataEncoding")) e->indices = at;
        if (mf__pack_is(&key, "offsetEncoding")) e->offsets = at;
        MF_TRY(mf__msgpack_next(&v, p));
        if (v.kind == MF__PACK_ARRAY || v.kind == MF__PACK_MAP) {
            p->at = at;
            MF_TRY(mf__msgpack_skip(p));
        }
        int is_number = v.kind == MF__PACK_INTEGER || v.kind == MF__PACK_REAL;
        int64_t whole = is_number && fabs(v.number) < 1e15 ? (int64_t)v.number : -1;
        double value = is_number ? v.number : NAN;
        if (mf__pack_is(&key, "kind")) e->kind = v;
        else if (mf__pack_is(&key, "type")) e->type = whole;
        else if (mf__pack_is(&key, "srcSize")) e->size = whole;
        else if (mf__pack_is(&key, "origin")) e->origin = whole;
        else if (mf__pack_is(&key, "byteCount")) e->bytes = whole;
        else if (mf__pack_is(&key, "numSteps")) e->steps = whole;
        else if (mf__pack_is(&key, "isUnsigned")) e->is_unsigned = v.kind == MF__PACK_BOOL && v.size;
        else if (mf__pack_is(&key, "factor")) e->factor = value;
        else if (mf__pack_is(&key, "min")) e->min = value;
        else if (mf__pack_is(&key, "max")) e->max = value;
        else if (mf__pack_is(&key, "stringData")) e->text = v;
        else if (mf__pack_is(&key, "offsets")) e->offset_data = v;
    }
    return MF_OK;
}

static mf_status read_encodings(encoding *list, int *count, decoder *d, const char *at) {
    mf__pack array;
    d->p.at = at;
    MF_TRY(mf__msgpack_expect(&array, &d->p, MF__PACK_ARRAY, "the list of encodings"));
    if (array.size < 1 || array.size > MOST_ENCODINGS) return bad(d, "the list of encodings is empty or longer than 8");
    for (int64_t i = 0; i < array.size; i++) MF_TRY(read_encoding(&list[i], d));
    *count = (int)array.size;
    return MF_OK;
}

/* ---- numbers ---- */

static mf_status byte_array(mf__bcif_column *c, const decoder *d, const encoding *e, const mf__pack *bytes, int64_t most) {
    static const int widths[] = {[1] = 1, [2] = 2, [3] = 4, [4] = 1, [5] = 2, [6] = 4, [32] = 4, [33] = 8};
    int width = e->type >= 1 && e->type <= 33 ? widths[e->type] : 0;
    if (width == 0) return bad(d, "ByteArray of an unknown type (known: 1 to 6, 32, 33)");
    if (bytes->kind != MF__PACK_BYTES) return bad(d, "the data are not bytes");
    if (bytes->size % width) return bad(d, "the bytes are no whole number of values");
    c->count = bytes->size / width;
    /* As packed integers a value may take some: more than four times the rows is nothing that an encoder writes. */
    if (c->count > most) return bad(d, "more values than rows");
    const unsigned char *p = (const unsigned char *)bytes->data;
    c->kind = e->type >= 32 ? MF_CIF_REAL : MF_CIF_INTEGER;
    MF_TRY(numbers(e->type >= 32 ? (void *)&c->real : (void *)&c->whole, d, c->count));
    for (int64_t i = 0; i < c->count; i++, p += width) {
        uint64_t bits = 0;
        for (int k = width; k-- > 0;) bits = bits << 8 | p[k];
        if (e->type == 33) {
            memcpy(&c->real[i], &bits, sizeof bits);
        } else if (e->type == 32) {
            float single;
            uint32_t half = (uint32_t)bits;
            memcpy(&single, &half, sizeof single);
            c->real[i] = (double)single;
        } else if (e->type <= 3) {
            c->whole[i] = (int64_t)(bits << (64 - 8 * width)) >> (64 - 8 * width);
        } else {
            c->whole[i] = (int64_t)bits;
        }
    }
    return MF_OK;
}

static mf_status in_range(const decoder *d, int64_t value) {
    return value >= INT32_MIN && value <= UINT32_MAX ? MF_OK : bad(d, "a whole number has more than 32 bits");
}

static mf_status integer_packing(mf__bcif_column *c, const decoder *d, const encoding *e) {
    if (e->bytes != 1 && e->bytes != 2) return bad(d, "IntegerPacking of another byteCount than 1 or 2");
    if (e->size < 0 || e->size > c->count) return bad(d, "IntegerPacking gives more values than it has parts");
    const int64_t top = e->bytes == 1 ? (e->is_unsigned ? 0xff : 0x7f) : e->is_unsigned ? 0xffff : 0x7fff;
    const int64_t bottom = e->is_unsigned ? INT64_MIN : -top - 1;
    int64_t *out = c->whole, n = 0, value = 0;    /* in place: no value is longer than its parts */
    int going = 0;
    for (int64_t i = 0; i < c->count; i++) {
        const int64_t part = c->whole[i];
        value += part;
        going = part == top || part == bottom;
        if (going) continue;
        if (n == e->size) return bad(d, "IntegerPacking gives more values than its srcSize");
        MF_TRY(in_range(d, value));
        out[n++] = value;
        value = 0;
    }
    if (going || n != e->size) return bad(d, "IntegerPacking ends before its srcSize");
    c->count = n;
    return MF_OK;
}

static mf_status run_length(mf__bcif_column *c, const decoder *d, const encoding *e, int64_t most) {
    if (e->size < 0 || e->size > most) return bad(d, "RunLength gives more values than rows");
    if (c->count % 2) return bad(d, "RunLength of an odd number of values");
    int64_t *out, n = 0;
    MF_TRY(numbers(&out, d, e->size));
    for (int64_t i = 0; i < c->count; i += 2) {
        int64_t times = c->whole[i + 1];
        if (times < 0 || times > e->size - n) {
            free(out);
            return bad(d, "RunLength gives more values than its srcSize");
        }
        while (times-- > 0) out[n++] = c->whole[i];
    }
    free(c->whole);
    c->whole = out;
    c->count = n;
    return n == e->size ? MF_OK : bad(d, "RunLength ends before its srcSize");
}

static mf_status delta(mf__bcif_column *c, const decoder *d, const encoding *e) {
    int64_t sum = e->origin;
    MF_TRY(in_range(d, sum));
    for (int64_t i = 0; i < c->count; i++) {
        sum += c->whole[i];
        MF_TRY(in_range(d, sum));
        c->whole[i] = sum;
    }
    return MF_OK;
}

static mf_status to_real(mf__bcif_column *c, const decoder *d, const encoding *e) {
    const int quantized = mf__pack_is(&e->kind, "IntervalQuantization");
    if (quantized ? !(isfinite(e->min) && isfinite(e->max) && e->steps >= 2) : !(isfinite(e->factor) && e->factor != 0))
        return bad(d, quantized ? "IntervalQuantization without a finite min and max or two steps" : "FixedPoint without a factor");
    MF_TRY(numbers(&c->real, d, c->count));
    const double step = quantized ? (e->max - e->min) / (double)(e->steps - 1) : 0;
    for (int64_t i = 0; i < c->count; i++) c->real[i] = quantized ? e->min + step * (double)c->whole[i] : (double)c->whole[i] / e->factor;
    c->kind = MF_CIF_REAL;
    free(c->whole);
    c->whole = NULL;
    return MF_OK;
}

/* Undoes list[first..count) of numbers; at most `most` values. */
static mf_status decode_numbers(mf__bcif_column *c, const decoder *d, const encoding *list, int first, int count, const mf__pack *bytes, int64_t most) {
    if (count <= first || !mf__pack_is(&list[count - 1].kind, "ByteArray")) return bad(d, "the last encoding is not ByteArray");
    const int packed = count - 2 >= first && (mf__pack_is(&list[count - 2].kind, "IntegerPacking") || mf__pack_is(&list[count - 2].kind, "RunLength"));
    MF_TRY(byte_array(c, d, &list[count - 1], bytes, packed ? bytes->size : most));
    for (int i = count - 2; i >= first; i--) {
        const encoding *e = &list[i];
        if (c->kind == MF_CIF_REAL) return bad(d, "an encoding of whole numbers on top of real ones");
        if (mf__pack_is(&e->kind, "IntegerPacking")) MF_TRY(integer_packing(c, d, e));
        else if (mf__pack_is(&e->kind, "RunLength")) MF_TRY(run_length(c, d, e, most));
        else if (mf__pack_is(&e->kind, "Delta")) MF_TRY(delta(c, d, e));
        else if (mf__pack_is(&e->kind, "FixedPoint") || mf__pack_is(&e->kind, "IntervalQuantization")) MF_TRY(to_real(c, d, e));
        else return bad(d, "an unknown encoding");
    }
    return c->count <= most ? MF_OK : bad(d, "more values than rows");
}

/* ---- strings ---- */

/* Offsets count UTF-16 units, as the encoders' language does; they become bytes. In plain ASCII they are that already. */
static mf_status check_offsets(const mf__bcif_column *c, const decoder *d, int64_t bytes) {
    const char *text = c->strings;
    int64_t at = 0, units = 0, before = 0;
    int ascii = 1;
    for (int64_t i = 0; i < bytes && ascii; i++) ascii = (unsigned char)text[i] < 0x80;
    if (!ascii && !mf__utf8_valid(text, bytes)) return bad(d, "the strings are not UTF-8");
    for (int64_t i = 0; i <= c->n_strings; i++) {
        const int64_t offset = c->offset[i];
        if (offset < before || (ascii && offset > bytes)) return bad(d, "the strings' offsets are out of order or past their text");
        before = offset;
        if (ascii) continue;
        while (units < offset && at < bytes) {
            const unsigned char lead = (unsigned char)text[at];
            at += lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
            units += lead < 0xf0 ? 1 : 2;
        }
        if (units != offset) return bad(d, "the strings' offsets are out of order or past their text");
        c->offset[i] = at;
    }
    return MF_OK;
}

static mf_status string_array(mf__bcif_column *c, decoder *d, const encoding *e, const mf__pack *bytes, int64_t rows) {
    encoding list[MOST_ENCODINGS];
    int count;
    if (e->text.kind != MF__PACK_TEXT || e->offset_data.kind != MF__PACK_BYTES || !e->indices || !e->offsets)
        return bad(d, "StringArray without stringData, offsets or their encodings");
    if (memchr(e->text.data, 0, (size_t)e->text.size)) return bad(d, "a zero byte in a string");
    MF_TRY(read_encodings(list, &count, d, e->offsets));
    mf__bcif_column offsets = {.kind = MF_CIF_INTEGER};
    mf_status status = decode_numbers(&offsets, d, list, 0, count, &e->offset_data, (rows > e->text.size ? rows : e->text.size) + 1);
    free(offsets.real);
    c->offset = offsets.whole;
    MF_TRY(status);
    if (offsets.kind != MF_CIF_INTEGER || offsets.count == 0) return bad(d, "the strings have no whole offsets");
    c->n_strings = offsets.count - 1;
    c->strings = e->text.data;
    MF_TRY(check_offsets(c, d, e->text.size));
    MF_TRY(read_encodings(list, &count, d, e->indices));
    MF_TRY(decode_numbers(c, d, list, 0, count, bytes, rows));
    if (c->kind != MF_CIF_INTEGER) return bad(d, "the strings' numbers are not whole");
    for (int64_t i = 0; i < c->count; i++)
        if (c->whole[i] < -1 || c->whole[i] >= c->n_strings) return bad(d, "a string's number is past the strings");
    c->kind = MF_CIF_TEXT;
    return MF_OK;
}

/* ---- columns ---- */

/* {data, encoding} at a place. */
static mf_status decode(mf__bcif_column *c, decoder *d, const char *at, int64_t rows) {
    mf__msgpack *p = &d->p;
    mf__pack map, key, bytes = {.kind = MF__PACK_NIL};
    const char *encodings = NULL;
    p->at = at;
    MF_TRY(mf__msgpack_expect(&map, p, MF__PACK_MAP, "a column's data"));
    for (int64_t i = 0; i < map.size; i++) {
        MF_TRY(mf__msgpack_expect(&key, p, MF__PACK_TEXT, "a key of a column's data"));
        if (mf__pack_is(&key, "encoding")) encodings = p->at;
        if (mf__pack_is(&key, "data")) MF_TRY(mf__msgpack_expect(&bytes, p, MF__PACK_BYTES, "data"));
        else MF_TRY(mf__msgpack_skip(p));
    }
    if (!encodings) return bad(d, "no encoding");
    encoding list[MOST_ENCODINGS];
    int count;
    MF_TRY(read_encodings(list, &count, d, encodings));
    if (!mf__pack_is(&list[0].kind, "StringArray")) MF_TRY(decode_numbers(c, d, list, 0, count, &bytes, rows));
    else if (count > 1) return bad(d, "an encoding besides StringArray");
    else MF_TRY(string_array(c, d, &list[0], &bytes, rows));
    return c->count == rows ? MF_OK : bad(d, "fewer values than rows");
}

mf_status mf__bcif_decode(mf__bcif_column *out, const mf__msgpack *p, const char *data, const char *mask, int64_t rows, int64_t *budget,
                          const char *where) {
    decoder d = {.p = *p, .budget = budget, .where = where};
    *out = (mf__bcif_column){.count = 0};
    MF_TRY(decode(out, &d, data, rows));
    mf__pack v;
    if (!mask) return MF_OK;
    d.p.at = mask;
    MF_TRY(mf__msgpack_next(&v, &d.p));
    if (v.kind == MF__PACK_NIL) return MF_OK;
    mf__bcif_column marks = {.count = 0};
    mf_status status = decode(&marks, &d, mask, rows);
    if (status == MF_OK && marks.kind != MF_CIF_INTEGER) status = bad(&d, "the mask is not of whole numbers");
    for (int64_t i = 0; i < rows && status == MF_OK; i++)
        if (marks.whole[i] < 0 || marks.whole[i] > 2) status = bad(&d, "a mask other than 0, 1 or 2");
    if (status == MF_OK) {
        out->mask = marks.whole;
        marks.whole = NULL;
    }
    mf__bcif_column_free(&marks);
    return status;
}

void mf__bcif_column_free(mf__bcif_column *c) {
    free(c->whole);
    free(c->real);
    free(c->offset);
    free(c->mask);
    *c = (mf__bcif_column){.count = 0};
}
