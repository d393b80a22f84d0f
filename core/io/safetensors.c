/* safetensors.c: reading named tensors of one file.
 *
 *     8 bytes   N, little endian
 *     N bytes   {"name": {"dtype": "F32", "shape": [5, 4], "data_offsets": [0, 80]}, ..., "__metadata__": {"k": "v"}}
 *     the rest  tensors, row-major, little endian, covering it exactly: no holes, no overlaps
 *
 * An archive is checked wholly when it is opened; after that its sizes and offsets are trusted. Names, dtypes and
 * metadata point into a copy of the header. Tensors of a type that we lack are listed, and refused when asked for.
 * Writing is safetensors_write.c's. */
#include "json.h"
#include "safetensors.h"
#include "../tensor/tensor.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors data are little endian");

typedef struct entry {
    char *name;
    char *dtype_name;
    int dtype;                    /* -1: not one of ours */
    int ndim;
    int64_t shape[MF_MAX_DIMS];
    int64_t begin, end;           /* bytes from the start of the data */
} entry;

typedef struct pair { char *key, *value; } pair;

struct mf_archive {
    int64_t references;
    char *path;
    int file;                     /* stays open: row_reader.c reads through it */
    void *map;                    /* the whole file */
    int64_t mapped;
    char *header;                 /* decoded in place */
    const char *data;
    int64_t data_bytes;
    entry *entries;
    int64_t count, capacity;
    pair *metadata;
    int64_t metadata_count, metadata_capacity;
};

/* bits: 0 where the size is not known to us, then only the bounds are checked */
static const struct { const char *name; int dtype, bits; } dtypes[] = {
    {"F32", MF_FLOAT32, 32}, {"F64", MF_FLOAT64, 64}, {"BF16", MF_BFLOAT16, 16}, {"F16", MF_FLOAT16, 16},
    {"I32", MF_INT32, 32},   {"I64", MF_INT64, 64},   {"BOOL", MF_BOOL, 8},      {"U8", -1, 8},
    {"I8", -1, 8},           {"I16", -1, 16},         {"U16", -1, 16},           {"U32", -1, 32},
    {"U64", -1, 64},         {"C64", -1, 64},         {"F8_E4M3", -1, 8},        {"F8_E5M2", -1, 8},
    {"F8_E8M0", -1, 8},      {"F4", -1, 4},           {"F6_E2M3", -1, 6},        {"F6_E3M2", -1, 6},
};
enum { DTYPES = (int)(sizeof dtypes / sizeof *dtypes) };

const char *mf__archive_dtype_text(int dtype) {
    for (int i = 0; i < DTYPES; i++)
        if (dtypes[i].dtype == dtype) return dtypes[i].name;
    return NULL;
}

static int find_dtype(const char *name) {
    for (int i = 0; i < DTYPES; i++)
        if (strcmp(dtypes[i].name, name) == 0) return i;
    return -1;
}

/* Room for one more element; the old block survives a failure. */
static mf_status reserve(void **items, int64_t count, int64_t *capacity, size_t size) {
    if (count < *capacity) return MF_OK;
    int64_t wanted = *capacity ? 2 * *capacity : 16;
    void *grown = realloc(*items, (size_t)wanted * size);
    if (!grown) return mf__fail(MF_ENOMEM, "archive.open: no memory for %lld entries", (long long)wanted);
    *items = grown;
    *capacity = wanted;
    return MF_OK;
}

static mf_status bad_entry(const mf_archive *a, const entry *e, const char *message) {
    return mf__fail(MF_EFORMAT, "archive.open: '%s': tensor '%.200s': %s", a->path, e->name, message);
}

static mf_status read_shape(mf_archive *a, mf__json *j, entry *e) {
    MF_TRY(mf__json_expect(j, '['));
    e->ndim = 0;
    if (mf__json_accept(j, ']')) return MF_OK;
    do {
        int64_t size;
        MF_TRY(mf__json_size(j, &size));
        if (e->ndim == MF_MAX_DIMS)
            return mf__fail(MF_ESUPPORT, "archive.open: '%s': tensor '%.200s' has more than %d axes", a->path, e->name, MF_MAX_DIMS);
        e->shape[e->ndim++] = size;
    } while (mf__json_accept(j, ','));
    return mf__json_expect(j, ']');
}

static mf_status check_entry(const mf_archive *a, const entry *e) {
    int known = find_dtype(e->dtype_name);
    if (e->begin > e->end) return bad_entry(a, e, "data_offsets run backwards");
    if (e->end > a->data_bytes) return bad_entry(a, e, "data_offsets lie outside the file");
    int64_t count = 1;
    int empty = 0;
    for (int i = 0; i < e->ndim; i++) empty |= e->shape[i] == 0;
    for (int i = 0; i < e->ndim && !empty; i++)
        if (__builtin_mul_overflow(count, e->shape[i], &count)) return bad_entry(a, e, "the shape overflows");
    if (empty) count = 0;
    if (known < 0) return MF_OK;
    int64_t bits;
    if (__builtin_mul_overflow(count, (int64_t)dtypes[known].bits, &bits)) return bad_entry(a, e, "the shape overflows");
    if (bits % 8) return bad_entry(a, e, "the shape does not fill whole bytes");
    if (bits / 8 != e->end - e->begin)
        return mf__fail(MF_EFORMAT, "archive.open: '%s': tensor '%.200s': data_offsets span %lld bytes, the shape needs %lld", a->path,
                        e->name, (long long)(e->end - e->begin), (long long)(bits / 8));
    return MF_OK;
}

static mf_status read_entry(mf_archive *a, mf__json *j, char *name) {
    MF_TRY(reserve((void **)&a->entries, a->count, &a->capacity, sizeof *a->entries));
    entry *e = &a->entries[a->count];
    memset(e, 0, sizeof *e);
    e->name = name;
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    int seen = 0;
    MF_TRY(mf__json_expect(j, '{'));
    if (!mf__json_accept(j, '}')) {
        do {
            char *key;
            MF_TRY(mf__json_string(j, &key));
            MF_TRY(mf__json_expect(j, ':'));
            int bit = strcmp(key, "dtype") == 0 ? DTYPE : strcmp(key, "shape") == 0 ? SHAPE : strcmp(key, "data_offsets") == 0 ? OFFSETS : 0;
            if (!bit) return bad_entry(a, e, "an unknown key (known: data_offsets, dtype, shape)");
            if (seen & bit) return bad_entry(a, e, "a key occurs twice");
            seen |= bit;
            if (bit == DTYPE) {
                MF_TRY(mf__json_string(j, &e->dtype_name));
            } else if (bit == SHAPE) {
                MF_TRY(read_shape(a, j, e));
            } else {
                MF_TRY(mf__json_expect(j, '['));
                MF_TRY(mf__json_size(j, &e->begin));
                MF_TRY(mf__json_expect(j, ','));
                MF_TRY(mf__json_size(j, &e->end));
                MF_TRY(mf__json_expect(j, ']'));
            }
        } while (mf__json_accept(j, ','));
        MF_TRY(mf__json_expect(j, '}'));
    }
    if (seen != (DTYPE | SHAPE | OFFSETS)) return bad_entry(a, e, "dtype, shape or data_offsets is missing");
    int known = find_dtype(e->dtype_name);
    e->dtype = known < 0 ? -1 : dtypes[known].dtype;
    MF_TRY(check_entry(a, e));
    a->count++;
    return MF_OK;
}

static int by_key(const void *a, const void *b) { return strcmp(((const pair *)a)->key, ((const pair *)b)->key); }

static mf_status read_metadata(mf_archive *a, mf__json *j) {
    if (a->metadata) return mf__fail(MF_EFORMAT, "archive.open: '%s': __metadata__ occurs twice", a->path);
    MF_TRY(reserve((void **)&a->metadata, 0, &a->metadata_capacity, sizeof *a->metadata));
    MF_TRY(mf__json_expect(j, '{'));
    if (mf__json_accept(j, '}')) return MF_OK;
    do {
        MF_TRY(reserve((void **)&a->metadata, a->metadata_count, &a->metadata_capacity, sizeof *a->metadata));
        pair *p = &a->metadata[a->metadata_count];
        MF_TRY(mf__json_string(j, &p->key));
        MF_TRY(mf__json_expect(j, ':'));
        MF_TRY(mf__json_string(j, &p->value));
        a->metadata_count++;
    } while (mf__json_accept(j, ','));
    MF_TRY(mf__json_expect(j, '}'));
    qsort(a->metadata, (size_t)a->metadata_count, sizeof *a->metadata, by_key);    /* keys have no order of their own */
    for (int64_t i = 1; i < a->metadata_count; i++)
        if (strcmp(a->metadata[i - 1].key, a->metadata[i].key) == 0)
            return mf__fail(MF_EFORMAT, "archive.open: '%s': metadata key '%.200s' occurs twice", a->path, a->metadata[i].key);
    return MF_OK;
}

static int by_name(const void *a, const void *b) { return strcmp((*(const entry *const *)a)->name, (*(const entry *const *)b)->name); }

static int by_place(const void *a, const void *b) {
    const entry *x = *(const entry *const *)a, *y = *(const entry *const *)b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* No name twice; the tensors cover the data exactly. */
static mf_status check_together(const mf_archive *a) {
    mf_status status = MF_OK;
    entry **order = malloc((size_t)(a->count ? a->count : 1) * sizeof *order);
    if (!order) return mf__fail(MF_ENOMEM, "archive.open: '%s': no memory", a->path);
    for (int64_t i = 0; i < a->count; i++) order[i] = &a->entries[i];
    qsort(order, (size_t)a->count, sizeof *order, by_name);
    for (int64_t i = 1; i < a->count && status == MF_OK; i++)
        if (strcmp(order[i - 1]->name, order[i]->name) == 0) status = bad_entry(a, order[i], "the name occurs twice");
    qsort(order, (size_t)a->count, sizeof *order, by_place);
    int64_t at = 0;
    for (int64_t i = 0; i < a->count && status == MF_OK; i++) {
        if (order[i]->begin < at) status = bad_entry(a, order[i], "its data overlap another tensor's");
        else if (order[i]->begin > at) status = bad_entry(a, order[i], "unused bytes lie before its data");
        at = order[i]->end;
    }
    if (status == MF_OK && at != a->data_bytes)
        status = mf__fail(MF_EFORMAT, "archive.open: '%s': the tensors end at byte %lld of %lld bytes of data", a->path, (long long)at, (long long)a->data_bytes);
    free(order);
    return status;
}

static mf_status read_header(mf_archive *a) {
    uint64_t length;
    if (a->mapped < 8) return mf__fail(MF_EFORMAT, "archive.open: '%s': %lld bytes are too few for a safetensors file", a->path, (long long)a->mapped);
    memcpy(&length, a->map, 8);
    if (length > MF__ARCHIVE_MAX_HEADER)
        return mf__fail(MF_EFORMAT, "archive.open: '%s': a header of %llu bytes (at most %d): not a safetensors file?", a->path, (unsigned long long)length, MF__ARCHIVE_MAX_HEADER);
    int64_t n = (int64_t)length;
    if (n > a->mapped - 8)
        return mf__fail(MF_EFORMAT, "archive.open: '%s': the header has %lld bytes, the file %lld: truncated", a->path, (long long)n, (long long)a->mapped);
    a->header = malloc((size_t)n + 1);
    if (!a->header) return mf__fail(MF_ENOMEM, "archive.open: '%s': no memory for a header of %lld bytes", a->path, (long long)n);
    memcpy(a->header, (char *)a->map + 8, (size_t)n);
    a->header[n] = '\0';
    a->data = (char *)a->map + 8 + n;
    a->data_bytes = a->mapped - 8 - n;

    char what[320];
    snprintf(what, sizeof what, "archive.open: '%.256s': header", a->path);
    mf__json j = {.at = a->header, .begin = a->header, .end = a->header + n, .what = what};
    if (n == 0 || *a->header != '{') return mf__json_fail(&j, "expected '{' first");
    MF_TRY(mf__json_expect(&j, '{'));
    if (!mf__json_accept(&j, '}')) {
        do {
            char *name;
            MF_TRY(mf__json_string(&j, &name));
            MF_TRY(mf__json_expect(&j, ':'));
            MF_TRY(strcmp(name, "__metadata__") == 0 ? read_metadata(a, &j) : read_entry(a, &j, name));
        } while (mf__json_accept(&j, ','));
        MF_TRY(mf__json_expect(&j, '}'));
    }
    for (; j.at < j.end; j.at++)
        if (*j.at != ' ' && *j.at != '\n' && *j.at != '\r' && *j.at != '\t') return mf__json_fail(&j, "text after the header");
    return check_together(a);
}

mf_status mf_archive_open(mf_archive **out, const char *path) {
    *out = NULL;
    if (!path) return mf__fail(MF_EVALUE, "archive.open: no path");
    mf_archive *a = calloc(1, sizeof *a);
    if (!a) return mf__fail(MF_ENOMEM, "archive.open: '%s': no memory", path);
    a->references = 1;
    mf_status status = MF_OK;
    struct stat info;
    const int fd = a->file = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0) { status = mf__fail(MF_EIO, "archive.open: '%s': %s", path, strerror(errno)); goto out; }
    if (!S_ISREG(info.st_mode)) {
        status = mf__fail(MF_EIO, "archive.open: '%s': %s", path, S_ISDIR(info.st_mode) ? strerror(EISDIR) : "not a regular file");
        goto out;
    }
    a->path = strdup(path);
    if (!a->path) { status = mf__fail(MF_ENOMEM, "archive.open: '%s': no memory", path); goto out; }
    a->mapped = info.st_size;
    if (a->mapped > 0) {
        a->map = mmap(NULL, (size_t)a->mapped, PROT_READ, MAP_PRIVATE, fd, 0);
        if (a->map == MAP_FAILED) {
            a->map = NULL;
            status = mf__fail(MF_EIO, "archive.open: '%s': %s", path, strerror(errno));
            goto out;
        }
    }
    MF_TRY_OUT(read_header(a));
    *out = a;
    a = NULL;
out:
    mf_archive_close(a);
    return status;
}

mf_archive *mf__archive_retain(mf_archive *a) {
    a->references++;
    return a;
}

void mf_archive_close(mf_archive *a) {
    if (!a || --a->references > 0) return;
    if (a->file >= 0) close(a->file);
    if (a->map) munmap(a->map, (size_t)a->mapped);
    free(a->header);
    free(a->entries);
    free(a->metadata);
    free(a->path);
    free(a);
}

int64_t mf_archive_count(const mf_archive *a) { return a->count; }

const char *mf_archive_name(const mf_archive *a, int64_t i) { return i >= 0 && i < a->count ? a->entries[i].name : NULL; }

int64_t mf_archive_metadata_count(const mf_archive *a) { return a->metadata_count; }

const char *mf_archive_metadata_key(const mf_archive *a, int64_t i) {
    return i >= 0 && i < a->metadata_count ? a->metadata[i].key : NULL;
}

const char *mf_archive_metadata_value(const mf_archive *a, int64_t i) {
    return i >= 0 && i < a->metadata_count ? a->metadata[i].value : NULL;
}

static mf_status find_entry(const entry **out, const char *op, const mf_archive *a, int64_t i) {
    if (i < 0 || i >= a->count)
        return mf__fail(MF_EVALUE, "%s: '%s': there is no tensor %lld, the archive has %lld", op, a->path, (long long)i + 1, (long long)a->count);
    *out = &a->entries[i];
    return MF_OK;
}

mf_status mf_archive_info(const mf_archive *a, int64_t i, int *dtype, int *ndim, int64_t *shape, int64_t *bytes) {
    const entry *e = NULL;
    MF_TRY(find_entry(&e, "archive.info", a, i));
    if (dtype) *dtype = e->dtype;
    if (ndim) *ndim = e->ndim;
    if (shape)
        for (int d = 0; d < e->ndim; d++) shape[d] = e->shape[d];
    if (bytes) *bytes = e->end - e->begin;
    return MF_OK;
}

mf_status mf__archive_bools(const char *op, const char *path, const char *name, const void *data, int64_t count) {
    const unsigned char *bytes = data;
    for (int64_t k = 0; k < count; k++)
        if (bytes[k] > 1) return mf__fail(MF_EFORMAT, "%s: '%s': tensor '%.200s' is BOOL and holds a %d", op, path, name, bytes[k]);
    return MF_OK;
}

static mf_status check_known(const char *op, const mf_archive *a, const entry *e) {
    if (e->dtype >= 0) return MF_OK;
    return mf__fail(MF_ESUPPORT, "%s: '%s': tensor '%.200s' has dtype %.32s (known: BF16, BOOL, F16, F32, F64, I32, I64)", op, a->path, e->name, e->dtype_name);
}

mf_status mf__archive_row_source(mf__row_source *out, const char *op, const mf_archive *a, int64_t i) {
    const entry *e = NULL;
    MF_TRY(find_entry(&e, op, a, i));
    MF_TRY(check_known(op, a, e));
    if (e->ndim == 0) return mf__fail(MF_ESHAPE, "%s: '%s': tensor '%.200s' has no axis", op, a->path, e->name);
    *out = (mf__row_source){.path = a->path, .name = e->name, .dtype = e->dtype, .ndim = e->ndim, .shape = e->shape,
                            .row_bytes = e->shape[0] ? (e->end - e->begin) / e->shape[0] : 0,
                            .begin = a->data - (const char *)a->map + e->begin, .file = a->file};
    return MF_OK;
}

static mf_status make_tensor(mf_tensor **out, const mf_archive *a, const entry *e, mf_ctx *ctx, const int64_t *shape, const char *data) {
    MF_TRY(check_known("archive.tensor", a, e));
    if (e->dtype == MF_BOOL) MF_TRY(mf__archive_bools("archive.tensor", a->path, e->name, data, mf__count(e->ndim, shape)));
    return mf_tensor_from(out, ctx, MF_CPU, e->dtype, e->ndim, shape, data);
}

mf_status mf_archive_tensor(mf_tensor **out, const mf_archive *a, mf_ctx *ctx, int64_t i) {
    *out = NULL;
    const entry *e = NULL;
    MF_TRY(find_entry(&e, "archive.tensor", a, i));
    return make_tensor(out, a, e, ctx, e->shape, a->data + e->begin);
}

mf_status mf_archive_rows(mf_tensor **out, const mf_archive *a, mf_ctx *ctx, int64_t i, int64_t first, int64_t count) {
    *out = NULL;
    const entry *e = NULL;
    mf__row_source source = {0};
    MF_TRY(find_entry(&e, "archive.rows", a, i));
    MF_TRY(mf__archive_row_source(&source, "archive.rows", a, i));
    int64_t rows = e->shape[0];
    if (first < 0 || count < 0 || first > rows || count > rows - first)
        return mf__fail(MF_EVALUE, "archive.rows: '%s': tensor '%.200s' has %lld rows, %lld from row %lld do not fit", a->path, e->name,
                        (long long)rows, (long long)count, (long long)first + 1);
    int64_t shape[MF_MAX_DIMS];
    memcpy(shape, e->shape, sizeof shape);
    shape[0] = count;
    return make_tensor(out, a, e, ctx, shape, a->data + e->begin + first * source.row_bytes);
}

mf_status mf_archive_bytes(void *data, const mf_archive *a, int64_t i, int64_t first, int64_t bytes) {
    const entry *e = NULL;
    MF_TRY(find_entry(&e, "archive.bytes", a, i));
    int64_t have = e->end - e->begin;
    if (first < 0 || bytes < 0 || first > have || bytes > have - first)
        return mf__fail(MF_EVALUE, "archive.bytes: '%s': tensor '%.200s' has %lld bytes, %lld from byte %lld do not fit", a->path, e->name,
                        (long long)have, (long long)bytes, (long long)first + 1);
    if (bytes > 0) memcpy(data, a->data + e->begin + first, (size_t)bytes);
    return MF_OK;
}

mf_status mf__archive_stored(mf__archive_tensor *out, const mf_archive *a, int64_t i) {
    const entry *e = NULL;
    MF_TRY(find_entry(&e, "archive", a, i));
    *out = (mf__archive_tensor){.name = e->name, .dtype_name = e->dtype_name, .ndim = e->ndim, .shape = e->shape, .data = a->data + e->begin,
                                .bytes = e->end - e->begin};
    return MF_OK;
}
