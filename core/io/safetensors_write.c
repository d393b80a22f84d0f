/* safetensors_write.c: archives written piece by piece, or at once from tensors.
 *
 * Names, types and shapes come first, so where every tensor will lie is known before a byte of it is: rows may then be appended to
 * any tensor in any order, and what waits in memory is a buffer a tensor. The data begin at a multiple of 64 bytes and wide elements
 * come first, so that every tensor is aligned for its type; the header keeps the order of the declarations. */
#include "elements.h"
#include "file.h"
#include "json.h"
#include "safetensors.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64, BUFFER = 1 << 16 };

typedef struct part {
    char *name;
    int dtype, ndim;              /* dtype MF_ARCHIVE_BYTES: U8 */
    int64_t shape[MF_MAX_DIMS];
    int64_t begin, bytes;         /* from the start of the data */
    int64_t written;              /* bytes in the file */
    char *pending;                /* NULL until there are some */
    int64_t waiting;
} part;

typedef struct pair { char *key, *value; } pair;

struct mf_archive_stream {
    const char *op;               /* for messages */
    char *path;
    mf__writer *writer;
    part *parts;
    int64_t count, capacity;
    pair *metadata;
    int64_t metadata_count, metadata_capacity;
    int64_t data;                 /* where the data begin in the file; 0 until the header is written */
};

static int64_t width_of(int dtype) { return dtype == MF_ARCHIVE_BYTES ? 1 : mf_dtype_bytes(dtype); }

static const char *type_name(int dtype) { return dtype == MF_ARCHIVE_BYTES ? "U8" : mf__archive_dtype_text(dtype); }

/* ---- declaring ---- */

static mf_status open_stream(mf_archive_stream **out, const char *op, const char *path) {
    *out = NULL;
    if (!path) return mf__fail(MF_EVALUE, "%s: no path", op);
    mf_archive_stream *s = calloc(1, sizeof *s);
    if (!s) return mf__fail(MF_ENOMEM, "%s: '%s': no memory", op, path);
    s->op = op;
    mf_status status = MF_OK;
    s->path = strdup(path);
    if (!s->path) { status = mf__fail(MF_ENOMEM, "%s: '%s': no memory", op, path); goto out; }
    MF_TRY_OUT(mf__writer_open(&s->writer, path));
    *out = s;
    s = NULL;
out:
    mf_archive_stream_abandon(s);
    return status;
}

mf_status mf_archive_stream_open(mf_archive_stream **out, const char *path) { return open_stream(out, "archive.stream", path); }

/* Room for one more element; the old block survives a failure. */
static mf_status reserve(const char *op, void **items, int64_t count, int64_t *capacity, size_t size) {
    if (count < *capacity) return MF_OK;
    int64_t wanted = *capacity ? 2 * *capacity : 16;
    void *grown = realloc(*items, (size_t)wanted * size);
    if (!grown) return mf__fail(MF_ENOMEM, "%s: no memory for %lld entries", op, (long long)wanted);
    *items = grown;
    *capacity = wanted;
    return MF_OK;
}

static mf_status check_open(const mf_archive_stream *s) {
    return s->data ? mf__fail(MF_ESTATE, "%s: '%s': rows came already; declare all tensors and metadata before them", s->op, s->path) : MF_OK;
}

static mf_status check_text(const mf_archive_stream *s, const char *text, const char *what, int64_t i) {
    if (!text) return mf__fail(MF_EVALUE, "%s: %s %lld is NULL", s->op, what, (long long)i + 1);
    if (!mf__utf8_valid(text, (int64_t)strlen(text))) return mf__fail(MF_EVALUE, "%s: %s %lld is not UTF-8", s->op, what, (long long)i + 1);
    return MF_OK;
}

mf_status mf_archive_stream_declare(mf_archive_stream *s, const char *name, int dtype, int ndim, const int64_t *shape) {
    MF_TRY(check_open(s));
    MF_TRY(check_text(s, name, "name", s->count));
    if (strcmp(name, "__metadata__") == 0) return mf__fail(MF_EVALUE, "%s: __metadata__ cannot name a tensor", s->op);
    if (dtype != MF_ARCHIVE_BYTES && (dtype < 0 || dtype >= MF_DTYPE_COUNT)) return mf__fail(MF_EDTYPE, "%s: '%.200s': there is no dtype %d", s->op, name, dtype);
    MF_TRY(mf__check_shape(s->op, ndim, shape));
    MF_TRY(reserve(s->op, (void **)&s->parts, s->count, &s->capacity, sizeof *s->parts));
    part *p = &s->parts[s->count];
    memset(p, 0, sizeof *p);
    p->name = strdup(name);
    if (!p->name) return mf__fail(MF_ENOMEM, "%s: no memory for the name '%.200s'", s->op, name);
    p->dtype = dtype;
    p->ndim = ndim;
    for (int d = 0; d < ndim; d++) p->shape[d] = shape[d];
    p->bytes = mf__count(ndim, shape) * width_of(dtype);
    s->count++;
    return MF_OK;
}

mf_status mf_archive_stream_metadata(mf_archive_stream *s, const char *key, const char *value) {
    MF_TRY(check_open(s));
    MF_TRY(check_text(s, key, "metadata key", s->metadata_count));
    if (!value || !mf__utf8_valid(value, (int64_t)strlen(value)))
        return mf__fail(MF_EVALUE, "%s: the value of metadata key '%.200s' is not UTF-8 text", s->op, key);
    MF_TRY(reserve(s->op, (void **)&s->metadata, s->metadata_count, &s->metadata_capacity, sizeof *s->metadata));
    pair *p = &s->metadata[s->metadata_count];
    p->key = strdup(key);
    p->value = strdup(value);
    if (!p->key || !p->value) {
        free(p->key);
        free(p->value);
        return mf__fail(MF_ENOMEM, "%s: no memory for the metadata '%.200s'", s->op, key);
    }
    s->metadata_count++;
    return MF_OK;
}

/* ---- the header, which grows in memory: its length is written before it ---- */

typedef struct text { char *at; int64_t bytes, capacity; mf_status status; const char *op; } text;

static void append(text *t, const char *data, int64_t bytes) {
    if (t->status != MF_OK) return;
    if (bytes > t->capacity - t->bytes) {
        int64_t wanted = 2 * (t->bytes + bytes) + 4096;
        char *grown = realloc(t->at, (size_t)wanted);
        if (!grown) {
            t->status = mf__fail(MF_ENOMEM, "%s: no memory for a header of %lld bytes", t->op, (long long)wanted);
            return;
        }
        t->at = grown;
        t->capacity = wanted;
    }
    memcpy(t->at + t->bytes, data, (size_t)bytes);
    t->bytes += bytes;
}

static void append_quoted(text *t, const char *s) {
    append(t, "\"", 1);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        char escape[8];
        if (c == '"' || c == '\\') append(t, (char[]){'\\', *s}, 2);
        else if (c < 0x20) append(t, escape, snprintf(escape, sizeof escape, "\\u%04x", c));
        else append(t, s, 1);
    }
    append(t, "\"", 1);
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* `texts` is used up: sorted. */
static mf_status check_apart(const char *op, const char **texts, int64_t count, const char *what) {
    qsort(texts, (size_t)count, sizeof *texts, by_text);
    for (int64_t i = 1; i < count; i++)
        if (strcmp(texts[i - 1], texts[i]) == 0) return mf__fail(MF_EVALUE, "%s: the %s '%.200s' occurs twice", op, what, texts[i]);
    return MF_OK;
}

static mf_status check_names(const mf_archive_stream *s) {
    int64_t most = s->count > s->metadata_count ? s->count : s->metadata_count;
    const char **texts = malloc((size_t)(most ? most : 1) * sizeof *texts);
    if (!texts) return mf__fail(MF_ENOMEM, "%s: no memory", s->op);
    for (int64_t i = 0; i < s->count; i++) texts[i] = s->parts[i].name;
    mf_status status = check_apart(s->op, texts, s->count, "name");
    for (int64_t i = 0; i < s->metadata_count; i++) texts[i] = s->metadata[i].key;
    if (status == MF_OK) status = check_apart(s->op, texts, s->metadata_count, "metadata key");
    free(texts);
    return status;
}

static void lay_out(mf_archive_stream *s) {
    int64_t at = 0;
    for (int64_t width = 8; width > 0; width /= 2)
        for (int64_t i = 0; i < s->count; i++) {
            if (width_of(s->parts[i].dtype) != width) continue;
            s->parts[i].begin = at;
            at += s->parts[i].bytes;
        }
}

static mf_status write_header(mf_archive_stream *s) {
    MF_TRY(check_names(s));
    lay_out(s);
    text t = {.op = s->op};
    char number[64];
    append(&t, "{", 1);
    if (s->metadata_count > 0) {
        append(&t, "\"__metadata__\":{", 16);
        for (int64_t i = 0; i < s->metadata_count; i++) {
            if (i) append(&t, ",", 1);
            append_quoted(&t, s->metadata[i].key);
            append(&t, ":", 1);
            append_quoted(&t, s->metadata[i].value);
        }
        append(&t, "}", 1);
    }
    for (int64_t i = 0; i < s->count; i++) {
        const part *p = &s->parts[i];
        if (i || s->metadata_count > 0) append(&t, ",", 1);
        append_quoted(&t, p->name);
        append(&t, number, snprintf(number, sizeof number, ":{\"dtype\":\"%s\",\"shape\":[", type_name(p->dtype)));
        for (int d = 0; d < p->ndim; d++) append(&t, number, snprintf(number, sizeof number, d ? ",%lld" : "%lld", (long long)p->shape[d]));
        append(&t, number, snprintf(number, sizeof number, "],\"data_offsets\":[%lld,%lld]}", (long long)p->begin, (long long)(p->begin + p->bytes)));
    }
    append(&t, "}", 1);
    while (t.status == MF_OK && (t.bytes + 8) % ALIGNMENT) append(&t, " ", 1);
    mf_status status = t.status;
    if (status == MF_OK && t.bytes > MF__ARCHIVE_MAX_HEADER)
        status = mf__fail(MF_EVALUE, "%s: a header of %lld bytes (the format allows %d)", s->op, (long long)t.bytes, MF__ARCHIVE_MAX_HEADER);
    uint64_t length = (uint64_t)t.bytes;
    if (status == MF_OK) status = mf__writer_put(s->writer, &length, 8);
    if (status == MF_OK) status = mf__writer_put(s->writer, t.at, t.bytes);
    if (status == MF_OK) s->data = 8 + t.bytes;
    free(t.at);
    return status;
}

/* ---- rows ---- */

static mf_status find_part(part **out, mf_archive_stream *s, int64_t i) {
    if (i < 0 || i >= s->count)
        return mf__fail(MF_EVALUE, "%s: '%s': there is no tensor %lld, %lld were declared", s->op, s->path, (long long)i + 1, (long long)s->count);
    if (!s->data) MF_TRY(write_header(s));
    *out = &s->parts[i];
    return MF_OK;
}

static mf_status flush(mf_archive_stream *s, part *p) {
    if (p->waiting == 0) return MF_OK;
    MF_TRY(mf__writer_place(s->writer, s->data + p->begin + p->written, p->pending, p->waiting));
    p->written += p->waiting;
    p->waiting = 0;
    return MF_OK;
}

static mf_status put(mf_archive_stream *s, part *p, const void *data, int64_t bytes) {
    int64_t have = p->written + p->waiting;
    if (bytes > p->bytes - have)
        return mf__fail(MF_EVALUE, "%s: '%s': tensor '%.200s' takes %lld bytes, %lld are there and %lld come", s->op, s->path, p->name,
                        (long long)p->bytes, (long long)have, (long long)bytes);
    if (bytes > BUFFER - p->waiting) MF_TRY(flush(s, p));
    if (bytes >= BUFFER || (p->waiting == 0 && have + bytes == p->bytes)) {
        if (bytes > 0) MF_TRY(mf__writer_place(s->writer, s->data + p->begin + p->written, data, bytes));
        p->written += bytes;
        return MF_OK;
    }
    if (!p->pending && !(p->pending = malloc(BUFFER))) return mf__fail(MF_ENOMEM, "%s: '%s': no memory for rows", s->op, s->path);
    if (bytes > 0) memcpy(p->pending + p->waiting, data, (size_t)bytes);
    p->waiting += bytes;
    return MF_OK;
}

mf_status mf_archive_stream_put(mf_archive_stream *s, int64_t i, const void *data, int64_t bytes) {
    part *p = NULL;
    if (bytes < 0 || (bytes > 0 && !data)) return mf__fail(MF_EVALUE, "%s: no data of %lld bytes", s->op, (long long)bytes);
    MF_TRY(find_part(&p, s, i));
    return put(s, p, data, bytes);
}

/* Rows of this type and shape may follow what `p` has. A tensor without axes is one row of itself. */
static mf_status check_rows(const mf_archive_stream *s, const part *p, const char *type, int ndim, const int64_t *shape) {
    int fits = ndim == p->ndim && type && strcmp(type, type_name(p->dtype)) == 0;
    for (int d = 1; d < p->ndim && fits; d++) fits = shape[d] == p->shape[d];
    if (fits) return MF_OK;
    char have[160] = "", want[160] = "";
    for (int d = 0, at = 0; d < ndim; d++) at += snprintf(have + at, sizeof have - (size_t)at, d ? ", %lld" : "%lld", (long long)shape[d]);
    for (int d = 0, at = 0; d < p->ndim; d++) at += snprintf(want + at, sizeof want - (size_t)at, d ? ", %lld" : "%lld", (long long)p->shape[d]);
    return mf__fail(MF_ESHAPE, "%s: '%s': rows %s (%s) do not fit tensor '%.200s', %s (%s)", s->op, s->path, type ? type : "of no type", have, p->name,
                    type_name(p->dtype), want);
}

mf_status mf_archive_stream_append(mf_archive_stream *s, int64_t i, const mf_tensor *rows) {
    part *p = NULL;
    MF_TRY(mf__usable(s->op, rows));
    MF_TRY(find_part(&p, s, i));
    MF_TRY(check_rows(s, p, mf__archive_dtype_text(rows->dtype), rows->ndim, rows->shape));
    int64_t bytes = mf_tensor_bytes(rows);
    if (bytes == 0) return MF_OK;
    const void *data;
    void *copy;
    MF_TRY(mf__elements_bytes(&data, &copy, s->op, rows));
    const mf_status status = put(s, p, data, bytes);
    free(copy);
    return status;
}

mf_status mf_archive_stream_copy(mf_archive_stream *s, int64_t i, const mf_archive *from, int64_t k, int64_t first, int64_t count) {
    part *p = NULL;
    mf__archive_tensor stored = {0};
    MF_TRY(mf__archive_stored(&stored, from, k));
    MF_TRY(find_part(&p, s, i));
    MF_TRY(check_rows(s, p, stored.dtype_name, stored.ndim, stored.shape));
    if (p->ndim == 0) return mf__fail(MF_ESHAPE, "%s: tensor '%.200s' has no axis", s->op, p->name);
    int64_t rows = stored.shape[0];
    if (first < 0 || count < 0 || first > rows || count > rows - first)
        return mf__fail(MF_EVALUE, "%s: tensor '%.200s' has %lld rows, %lld from row %lld do not fit", s->op, stored.name, (long long)rows, (long long)count,
                        (long long)first + 1);
    int64_t row_bytes = rows ? stored.bytes / rows : 0;
    return put(s, p, stored.data + first * row_bytes, count * row_bytes);
}

/* ---- the end ---- */

mf_status mf_archive_stream_commit(mf_archive_stream *s) {
    mf_status status = MF_OK;
    if (!s->data) MF_TRY_OUT(write_header(s));
    for (int64_t i = 0; i < s->count; i++) {
        part *p = &s->parts[i];
        MF_TRY_OUT(flush(s, p));
        if (p->written < p->bytes) {
            status = mf__fail(MF_ESTATE, "%s: '%s': tensor '%.200s' has %lld bytes of %lld", s->op, s->path, p->name, (long long)p->written, (long long)p->bytes);
            goto out;
        }
    }
    status = mf__writer_commit(s->writer);
    s->writer = NULL;
out:
    mf_archive_stream_abandon(s);
    return status;
}

void mf_archive_stream_abandon(mf_archive_stream *s) {
    if (!s) return;
    mf__writer_abandon(s->writer);
    for (int64_t i = 0; i < s->count; i++) {
        free(s->parts[i].name);
        free(s->parts[i].pending);
    }
    for (int64_t i = 0; i < s->metadata_count; i++) {
        free(s->metadata[i].key);
        free(s->metadata[i].value);
    }
    free(s->parts);
    free(s->metadata);
    free(s->path);
    free(s);
}

mf_status mf_archive_write(const char *path, const char *const *names, const mf_tensor *const *tensors, int64_t count,
                           const char *const *keys, const char *const *values, int64_t metadata_count) {
    if (count < 0 || metadata_count < 0) return mf__fail(MF_EVALUE, "archive.write: a negative count");
    if (count > 0 && !names) return mf__fail(MF_EVALUE, "archive.write: no names");
    if (metadata_count > 0 && !keys) return mf__fail(MF_EVALUE, "archive.write: no metadata keys");
    for (int64_t i = 0; i < count; i++) MF_TRY(mf__usable("archive.write", tensors ? tensors[i] : NULL));
    mf_archive_stream *s;
    MF_TRY(open_stream(&s, "archive.write", path));
    mf_status status = MF_OK;
    for (int64_t i = 0; i < metadata_count; i++) MF_TRY_OUT(mf_archive_stream_metadata(s, keys[i], values ? values[i] : NULL));
    for (int64_t i = 0; i < count; i++)
        MF_TRY_OUT(mf_archive_stream_declare(s, names[i], mf_tensor_dtype(tensors[i]), mf_tensor_ndim(tensors[i]), tensors[i]->shape));
    for (int64_t i = 0; i < count; i++) MF_TRY_OUT(mf_archive_stream_append(s, i, tensors[i]));
    status = mf_archive_stream_commit(s);
    s = NULL;
out:
    mf_archive_stream_abandon(s);
    return status;
}
