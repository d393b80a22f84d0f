/* npy.c: NumPy's arrays, alone (.npy) or several in a ZIP archive (.npz).
 *
 *     \x93NUMPY | major | minor | length of the header, 2 bytes in 1.0 and 4 in 2.0 and 3.0
 *     {'descr': '<f4', 'fortran_order': False, 'shape': (5, 4), }     a literal of Python, read as such and never run
 *     the elements, row-major or column-major, of either byte order
 *
 * Arrays of objects would be pickles and are refused, and so are text, dates, records and complex numbers. We write
 * version 1.0, row-major, little endian; bfloat16 has no type in NumPy and is refused. */
#include "elements.h"
#include "file.h"
#include "npy.h"
#include "zip.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_HEADER = 1 << 16, ALIGNMENT = 64, MAGIC_BYTES = 8 };
#define OP "npy.read"

/* ---- the header ---- */

typedef struct header {
    const char *at, *end, *what;
    mf_layout layout;
    int fortran;
} header;

static mf_status bad(const header *h, const char *message) { return mf__fail(MF_EFORMAT, OP ": %s: %s", h->what, message); }

static void blanks(header *h) {
    while (h->at < h->end && (*h->at == ' ' || *h->at == '\n' || *h->at == '\t' || *h->at == '\r')) h->at++;
}

static int accept(header *h, const char *word) {
    const size_t n = strlen(word);
    blanks(h);
    if ((size_t)(h->end - h->at) < n || memcmp(h->at, word, n) != 0) return 0;
    h->at += n;
    return 1;
}

/* A string in single or double quotes, without escapes. */
static int quoted(header *h, char *text, int room) {
    blanks(h);
    if (h->at == h->end || (*h->at != '\'' && *h->at != '"')) return 0;
    const char quote = *h->at++;
    int n = 0;
    for (; h->at < h->end && *h->at != quote; h->at++) {
        if (n == room - 1 || *h->at == '\\' || (unsigned char)*h->at < 0x20) return 0;
        text[n++] = *h->at;
    }
    text[n] = '\0';
    if (h->at == h->end) return 0;
    h->at++;
    return 1;
}

static mf_status read_descr(header *h) {
    char text[32];
    blanks(h);
    if (h->at < h->end && *h->at == '[') return mf__fail(MF_ESUPPORT, OP ": %s: an array of records: only plain numbers are read", h->what);
    if (!quoted(h, text, sizeof text)) return bad(h, "its type is not a short text");
    const char *p = text;
    const char order = strchr("<>|=", *p) && *p ? *p++ : '=';
    static const struct { char letter; int kind; } kinds[] = {
        {'f', MF_LAYOUT_FLOAT}, {'i', MF_LAYOUT_SIGNED}, {'u', MF_LAYOUT_UNSIGNED}, {'b', MF_LAYOUT_BOOL},
    };
    int kind = -1;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        if (*p == kinds[k].letter) kind = kinds[k].kind;
    const int width = kind >= 0 && p[1] >= '1' && p[1] <= '8' && p[2] == '\0' ? p[1] - '0' : 0;
    const int known = kind == MF_LAYOUT_BOOL ? width == 1 : kind == MF_LAYOUT_FLOAT ? width == 2 || width == 4 || width == 8
                                                                                    : width == 1 || width == 2 || width == 4 || width == 8;
    if (*p == 'O') return mf__fail(MF_ESUPPORT, OP ": %s: an array of Python objects: never unpickled", h->what);
    if (kind < 0 || !known)
        return mf__fail(MF_ESUPPORT, OP ": %s: type '%s' (known: f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1; bfloat16, which NumPy writes as V2, "
                        "should be saved as f4)", h->what, text);
    h->layout.kind = kind;
    h->layout.width = width;
    h->layout.big_endian = order == '>';
    return MF_OK;
}

static mf_status read_shape(header *h) {
    if (!accept(h, "(")) return bad(h, "its shape is not a tuple");
    h->layout.ndim = 0;
    while (!accept(h, ")")) {
        blanks(h);
        int64_t size = 0;
        const char *first = h->at;
        for (; h->at < h->end && *h->at >= '0' && *h->at <= '9'; h->at++)
            if (__builtin_mul_overflow(size, (int64_t)10, &size) || __builtin_add_overflow(size, (int64_t)(*h->at - '0'), &size))
                return bad(h, "a size overflows");
        if (h->at == first) return bad(h, "its shape is not a tuple of sizes");
        if (h->at < h->end && *h->at == 'L') h->at++;    /* Python 2 */
        if (h->layout.ndim == MF_MAX_DIMS) return mf__fail(MF_ESUPPORT, OP ": %s: more than %d axes", h->what, MF_MAX_DIMS);
        h->layout.shape[h->layout.ndim++] = size;
        if (accept(h, ",")) continue;
        if (!accept(h, ")")) return bad(h, "its shape does not end");
        break;
    }
    return MF_OK;
}

static mf_status read_dictionary(header *h) {
    enum { DESCR = 1, ORDER = 2, SHAPE = 4 };
    int seen = 0;
    if (!accept(h, "{")) return bad(h, "its header is not a dictionary");
    while (!accept(h, "}")) {
        char key[32];
        if (!quoted(h, key, sizeof key) || !accept(h, ":")) return bad(h, "its header is corrupt");
        const int bit = strcmp(key, "descr") == 0 ? DESCR : strcmp(key, "fortran_order") == 0 ? ORDER : strcmp(key, "shape") == 0 ? SHAPE : 0;
        if (!bit || seen & bit) return bad(h, "its header has a key twice or an unknown one (known: descr, fortran_order, shape)");
        seen |= bit;
        if (bit == DESCR) {
            MF_TRY(read_descr(h));
        } else if (bit == SHAPE) {
            MF_TRY(read_shape(h));
        } else {
            h->fortran = accept(h, "True");
            if (!h->fortran && !accept(h, "False")) return bad(h, "fortran_order is neither True nor False");
        }
        if (accept(h, ",")) continue;
        if (!accept(h, "}")) return bad(h, "its header does not end");
        break;
    }
    blanks(h);
    if (h->at != h->end) return bad(h, "text after its header");
    return seen == (DESCR | ORDER | SHAPE) ? MF_OK : bad(h, "descr, fortran_order or shape is missing");
}

/* Strides of either order; the shape's product is bounded by the data, which have to be exactly of its size. */
static mf_status lay_out(header *h, int64_t bytes) {
    mf_layout *l = &h->layout;
    int64_t count = 1;
    for (int d = 0; d < l->ndim; d++)
        if (l->shape[d] == 0) count = 0;
    for (int d = 0; d < l->ndim && count; d++)
        if (__builtin_mul_overflow(count, l->shape[d], &count)) return bad(h, "the shape overflows");
    int64_t needed;
    if (__builtin_mul_overflow(count, (int64_t)l->width, &needed)) return bad(h, "the shape overflows");
    if (needed != bytes)
        return mf__fail(MF_EFORMAT, OP ": %s: %" PRId64 " bytes of data, the shape needs %" PRId64, h->what, bytes, needed);
    int64_t stride = 1;
    for (int k = 0; k < l->ndim && count; k++) {
        const int d = h->fortran ? k : l->ndim - 1 - k;
        l->stride[d] = stride;
        stride *= l->shape[d];
    }
    return MF_OK;
}

mf_status mf__npy_tensor(mf_tensor **out, mf_ctx *ctx, const void *data, int64_t bytes, const char *what) {
    *out = NULL;
    const unsigned char *p = data;
    header h = {.what = what};
    if (bytes < MAGIC_BYTES || memcmp(p, "\x93NUMPY", 6) != 0) return bad(&h, "not an array of NumPy (npy)");
    const int major = p[6], wide = major > 1;
    if (major < 1 || major > 3 || p[7] != 0) return mf__fail(MF_ESUPPORT, OP ": %s: version %d.%d (known: 1.0, 2.0, 3.0)", what, major, p[7]);
    const int64_t prefix = MAGIC_BYTES + (wide ? 4 : 2);
    if (bytes < prefix) return bad(&h, "truncated");
    const int64_t length = wide ? mf__little32(p + MAGIC_BYTES) : mf__little16(p + MAGIC_BYTES);
    if (length > MAX_HEADER) return mf__fail(MF_EFORMAT, OP ": %s: a header of %" PRId64 " bytes (at most %d)", what, length, MAX_HEADER);
    if (length > bytes - prefix) return bad(&h, "truncated");
    h.at = (const char *)p + prefix;
    h.end = h.at + length;
    MF_TRY(read_dictionary(&h));
    MF_TRY(lay_out(&h, bytes - prefix - length));
    return mf__elements_tensor(out, OP, what, ctx, &h.layout, p + prefix + length, bytes - prefix - length);
}

/* ---- reading ---- */

mf_status mf_npy_read(mf_tensor **out, mf_ctx *ctx, const char *path) {
    *out = NULL;
    char *data = NULL, what[320];
    int64_t bytes = 0;
    struct stat info;
    if (!path) return mf__fail(MF_EVALUE, OP ": no path");
    if (stat(path, &info) != 0) return mf__fail(MF_EIO, OP ": '%s': %s", path, strerror(errno));
    MF_TRY(mf_file_read(&data, &bytes, path, info.st_size ? info.st_size : 1));    /* gzip, which would inflate past it, is not NumPy's */
    snprintf(what, sizeof what, "'%.300s'", path);
    const mf_status status = mf__npy_tensor(out, ctx, data, bytes, what);
    mf_file_free(data);
    return status;
}

mf_status mf_zip_npy(mf_tensor **out, mf_zip *zip, mf_ctx *ctx, int64_t i) {
    *out = NULL;
    const unsigned char *data;
    int64_t bytes;
    MF_TRY(mf__zip_bytes(&data, &bytes, OP, zip, i));
    char what[640];
    snprintf(what, sizeof what, "'%.300s': entry '%.300s'", mf__zip_path(zip), mf_zip_name(zip, i));
    return mf__npy_tensor(out, ctx, data, bytes, what);
}

mf_status mf_zip_tensor(mf_tensor **out, mf_zip *zip, mf_ctx *ctx, int64_t i, const mf_layout *layout) {
    *out = NULL;
    if (!layout) return mf__fail(MF_EVALUE, "zip.tensor: no layout");
    const unsigned char *data;
    int64_t bytes;
    MF_TRY(mf__zip_bytes(&data, &bytes, "zip.tensor", zip, i));
    char what[640];
    snprintf(what, sizeof what, "'%.300s': entry '%.300s'", mf__zip_path(zip), mf_zip_name(zip, i));
    return mf__elements_tensor(out, "zip.tensor", what, ctx, layout, data, bytes);
}

/* ---- writing ---- */

enum { HEADER_ROOM = 512 };                /* 8 axes of 19 digits and the words fit */

static mf_status make_header(char text[HEADER_ROOM], int64_t *bytes, const mf_tensor *x) {
    static const char *const types[MF_DTYPE_COUNT] = {
        [MF_FLOAT32] = "<f4", [MF_FLOAT64] = "<f8", [MF_FLOAT16] = "<f2", [MF_INT32] = "<i4", [MF_INT64] = "<i8", [MF_BOOL] = "|b1",
    };
    MF_TRY(mf__usable("npy.write", x));
    const char *type = types[mf_tensor_dtype(x)];
    if (!type) return mf__fail(MF_EDTYPE, "npy.write: NumPy has no type for %s; convert to float32 first", mf_dtype_name(mf_tensor_dtype(x)));
    int n = 10 + snprintf(text + 10, HEADER_ROOM - 10, "{'descr': '%s', 'fortran_order': False, 'shape': (", type);
    const int ndim = mf_tensor_ndim(x);
    for (int d = 0; d < ndim; d++)
        n += snprintf(text + n, (size_t)(HEADER_ROOM - n), d + 1 < ndim || ndim == 1 ? "%lld, " : "%lld", (long long)mf_tensor_size(x, d));
    n += snprintf(text + n, (size_t)(HEADER_ROOM - n), "), }");
    while ((n + 1) % ALIGNMENT) text[n++] = ' ';
    text[n++] = '\n';
    memcpy(text, "\x93NUMPY\1\0", 8);
    text[8] = (char)((n - 10) & 255);
    text[9] = (char)((n - 10) >> 8);
    *bytes = n;
    return MF_OK;
}

mf_status mf_npy_write(const char *path, const mf_tensor *x) {
    char text[HEADER_ROOM];
    int64_t bytes;
    MF_TRY(make_header(text, &bytes, x));
    mf_status status = MF_OK;
    mf__writer *w = NULL;
    const void *data;
    void *copy;
    MF_TRY(mf__elements_bytes(&data, &copy, "npy.write", x));
    MF_TRY_OUT(mf__writer_open(&w, path));
    mf__writer_put(w, text, bytes);        /* commit returns its status */
    mf__writer_put(w, data, mf_tensor_bytes(x));
    status = mf__writer_commit(w);
out:
    free(copy);
    return status;
}

mf_status mf_npz_write(const char *path, const char *const *names, const mf_tensor *const *tensors, int64_t count, int deflate) {
    if (count < 0 || (count > 0 && (!names || !tensors))) return mf__fail(MF_EVALUE, "npz.write: no tensors");
    mf_status status = MF_OK;
    const size_t n = count ? (size_t)count : 1;
    mf_zip_part *parts = calloc(n, sizeof *parts);
    char (*headers)[HEADER_ROOM] = calloc(n, sizeof *headers);
    char **files = calloc(n, sizeof *files);
    if (!parts || !headers || !files) { status = mf__fail(MF_ENOMEM, "npz.write: no memory for %lld tensors", (long long)count); goto out; }
    for (int64_t i = 0; i < count; i++) {
        if (!names[i]) { status = mf__fail(MF_EVALUE, "npz.write: name %lld is NULL", (long long)i + 1); goto out; }
        const size_t room = strlen(names[i]) + 5;
        files[i] = malloc(room);
        if (!files[i]) { status = mf__fail(MF_ENOMEM, "npz.write: no memory"); goto out; }
        snprintf(files[i], room, "%s.npy", names[i]);
        int64_t bytes;
        MF_TRY_OUT(make_header(headers[i], &bytes, tensors[i]));
        parts[i] = (mf_zip_part){.name = files[i], .data = headers[i], .bytes = bytes, .tensor = tensors[i], .deflate = deflate};
    }
    status = mf_zip_write(path, parts, count, ALIGNMENT);
out:
    for (int64_t i = 0; files && i < count; i++) free(files[i]);
    free(files);
    free(headers);
    free(parts);
    return status;
}
