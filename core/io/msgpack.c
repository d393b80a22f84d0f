/* msgpack.c: MessagePack (github.com/msgpack/msgpack/blob/master/spec.md), every form of it but the meaning of extensions. */
#include "msgpack.h"
#include <string.h>

enum { DEPTH = 32 };

mf_status mf__msgpack_fail(const mf__msgpack *p, const char *message) {
    return mf__fail(MF_EFORMAT, "%s: '%s': BinaryCIF: byte %lld: %s", p->what, p->name, (long long)(p->at - p->begin), message);
}

/* A big-endian number of `bytes` bytes. */
static mf_status number(uint64_t *out, mf__msgpack *p, int bytes) {
    *out = 0;
    if (p->end - p->at < bytes) return mf__msgpack_fail(p, "the file ends in a value");
    for (int i = 0; i < bytes; i++) *out = *out << 8 | (unsigned char)*p->at++;
    return MF_OK;
}

static mf_status body(mf__pack *v, mf__msgpack *p, int kind, uint64_t size) {
    if (size > (uint64_t)(p->end - p->at)) return mf__msgpack_fail(p, "a value is longer than the file");
    *v = (mf__pack){.kind = kind, .size = (int64_t)size, .data = p->at};
    p->at += size;
    return MF_OK;
}

/* Each of the values that follow takes a byte at least. */
static mf_status list(mf__pack *v, const mf__msgpack *p, int kind, uint64_t size) {
    if (size > (uint64_t)(p->end - p->at) / (kind == MF__PACK_MAP ? 2 : 1)) return mf__msgpack_fail(p, "a list has more values than the file bytes");
    *v = (mf__pack){.kind = kind, .size = (int64_t)size};
    return MF_OK;
}

static void integer(mf__pack *v, int64_t value) { *v = (mf__pack){.kind = MF__PACK_INTEGER, .size = value, .number = (double)value}; }

static mf_status real(mf__pack *v, mf__msgpack *p, int bytes) {
    uint64_t bits;
    MF_TRY(number(&bits, p, bytes));
    float single;
    double value;
    uint32_t half = (uint32_t)bits;
    memcpy(&single, &half, sizeof single);
    memcpy(&value, &bits, sizeof value);
    *v = (mf__pack){.kind = MF__PACK_REAL, .number = bytes == 4 ? (double)single : value};
    return MF_OK;
}

mf_status mf__msgpack_next(mf__pack *v, mf__msgpack *p) {
    uint64_t head, n;
    MF_TRY(number(&head, p, 1));
    if (head < 0x80) { integer(v, (int64_t)head); return MF_OK; }
    if (head < 0x90) return list(v, p, MF__PACK_MAP, head & 15);
    if (head < 0xa0) return list(v, p, MF__PACK_ARRAY, head & 15);
    if (head < 0xc0) return body(v, p, MF__PACK_TEXT, head & 31);
    if (head >= 0xe0) { integer(v, (int64_t)head - 256); return MF_OK; }
    const int width = 1 << (head & 3);    /* of most forms that are left */
    switch (head) {
    case 0xc0: *v = (mf__pack){.kind = MF__PACK_NIL}; return MF_OK;
    case 0xc2: case 0xc3: *v = (mf__pack){.kind = MF__PACK_BOOL, .size = head == 0xc3}; return MF_OK;
    case 0xc4: case 0xc5: case 0xc6: MF_TRY(number(&n, p, width)); return body(v, p, MF__PACK_BYTES, n);
    case 0xc7: case 0xc8: case 0xc9: MF_TRY(number(&n, p, 1 << (head - 0xc7))); return body(v, p, MF__PACK_OTHER, n + 1);
    case 0xca: return real(v, p, 4);
    case 0xcb: return real(v, p, 8);
    case 0xcc: case 0xcd: case 0xce: case 0xcf:
        MF_TRY(number(&n, p, width));
        if (n > INT64_MAX) return mf__msgpack_fail(p, "a number past 2^63");
        integer(v, (int64_t)n);
        return MF_OK;
    case 0xd0: case 0xd1: case 0xd2: case 0xd3:
        MF_TRY(number(&n, p, width));
        integer(v, (int64_t)(n << (64 - 8 * width)) >> (64 - 8 * width));
        return MF_OK;
    case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8: return body(v, p, MF__PACK_OTHER, ((uint64_t)1 << (head - 0xd4)) + 1);
    case 0xd9: case 0xda: case 0xdb: MF_TRY(number(&n, p, 1 << (head - 0xd9))); return body(v, p, MF__PACK_TEXT, n);
    case 0xdc: case 0xdd: MF_TRY(number(&n, p, head == 0xdc ? 2 : 4)); return list(v, p, MF__PACK_ARRAY, n);
    case 0xde: case 0xdf: MF_TRY(number(&n, p, head == 0xde ? 2 : 4)); return list(v, p, MF__PACK_MAP, n);
    default: return mf__msgpack_fail(p, "no value of MessagePack begins with this byte");
    }
}

static mf_status skip(mf__msgpack *p, int depth) {
    mf__pack v;
    if (depth == DEPTH) return mf__msgpack_fail(p, "values are nested more than 32 deep");
    MF_TRY(mf__msgpack_next(&v, p));
    int64_t inside = v.kind == MF__PACK_ARRAY ? v.size : v.kind == MF__PACK_MAP ? 2 * v.size : 0;
    while (inside-- > 0) MF_TRY(skip(p, depth + 1));
    return MF_OK;
}

mf_status mf__msgpack_skip(mf__msgpack *p) { return skip(p, 0); }

mf_status mf__msgpack_expect(mf__pack *out, mf__msgpack *p, int kind, const char *what) {
    static const char *const kinds[] = {"nil", "a boolean", "an integer", "a real number", "a text", "bytes", "an array", "a map"};
    mf__msgpack before = *p;
    MF_TRY(mf__msgpack_next(out, p));
    if (out->kind == kind) return MF_OK;
    return mf__fail(MF_EFORMAT, "%s: '%s': BinaryCIF: byte %lld: %s is not %s", p->what, p->name, (long long)(before.at - p->begin), what, kinds[kind]);
}

int mf__pack_is(const mf__pack *v, const char *text) {
    return v->kind == MF__PACK_TEXT && v->size == (int64_t)strlen(text) && memcmp(v->data, text, (size_t)v->size) == 0;
}
