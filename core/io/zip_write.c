/* zip_write.c: writing ZIP archives: sizes and CRC in the headers before the data, ZIP64 where 4 bytes do not do, data
 * at multiples of an alignment (a field of padding in the header, as PyTorch's own writer has it). The date of
 * every entry is 1980-01-01, so that the same content gives the same file. */
#include "elements.h"
#include "file.h"
#include "json.h"
#include "zip.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { VERSION = 20, VERSION64 = 45, DATE = 0x21, UTF8_NAME = 0x800, EXTRA_PADDING = 0x4246, LARGE = 0xffff };
#define LARGE32 0xffffffffLL

typedef struct piece { const void *data; int64_t bytes; } piece;

typedef struct record {
    const char *name;
    uint32_t crc;
    int method;
    int64_t header, packed, bytes;
} record;

typedef struct output {
    mf__writer *w;
    int64_t at;
    unsigned char field[64];
    int used;                              /* bytes collected in `field` */
} output;

static void number(output *o, uint64_t value, int bytes) {
    for (int k = 0; k < bytes; k++) o->field[o->used++] = (unsigned char)(value >> (8 * k));
}

static void put(output *o, const void *data, int64_t bytes) {
    mf__writer_put(o->w, data, bytes);     /* commit returns its status */
    o->at += bytes;
}

static void flush_field(output *o) {
    put(o, o->field, o->used);
    o->used = 0;
}

/* What both headers say of an entry, from the version to the length of the name. */
static void common(output *o, const record *r, int large) {
    number(o, large ? VERSION64 : VERSION, 2);
    number(o, UTF8_NAME, 2);
    number(o, (uint64_t)r->method, 2);
    number(o, 0, 2);
    number(o, DATE, 2);
    number(o, r->crc, 4);
    number(o, large ? LARGE32 : (uint64_t)r->packed, 4);
    number(o, large ? LARGE32 : (uint64_t)r->bytes, 4);
    number(o, strlen(r->name), 2);
}

static int is_large(const record *r) { return r->bytes >= LARGE32 || r->packed >= LARGE32; }

static void put_local(output *o, const record *r, int alignment) {
    const int large = is_large(r);
    int64_t extra = large ? 20 : 0;
    const int64_t before = o->at + 30 + (int64_t)strlen(r->name) + extra + 4;
    const int64_t padding = alignment > 1 ? (alignment - before % alignment) % alignment : 0;
    if (alignment > 1) extra += 4 + padding;
    number(o, MF__ZIP_LOCAL, 4);
    common(o, r, large);
    number(o, (uint64_t)extra, 2);
    flush_field(o);
    put(o, r->name, (int64_t)strlen(r->name));
    if (large) {
        number(o, MF__ZIP_EXTRA64, 2);
        number(o, 16, 2);
        number(o, (uint64_t)r->bytes, 8);
        number(o, (uint64_t)r->packed, 8);
    }
    if (alignment > 1) {
        number(o, EXTRA_PADDING, 2);
        number(o, (uint64_t)padding, 2);
    }
    flush_field(o);
    for (int64_t k = 0; k < padding; k++) put(o, "", 1);
}

static void put_central(output *o, const record *r) {
    const int large = is_large(r), far = r->header >= LARGE32;
    number(o, MF__ZIP_CENTRAL, 4);
    number(o, large || far ? VERSION64 : VERSION, 2);
    common(o, r, large);
    number(o, (uint64_t)((large ? 16 : 0) + (far ? 8 : 0) + (large || far ? 4 : 0)), 2);
    number(o, 0, 2);                       /* comment */
    number(o, 0, 2);                       /* volume */
    number(o, 0, 2);
    number(o, 0, 4);                       /* attributes */
    number(o, far ? LARGE32 : (uint64_t)r->header, 4);
    flush_field(o);
    put(o, r->name, (int64_t)strlen(r->name));
    if (!large && !far) return;
    number(o, MF__ZIP_EXTRA64, 2);
    number(o, (uint64_t)((large ? 16 : 0) + (far ? 8 : 0)), 2);
    if (large) {
        number(o, (uint64_t)r->bytes, 8);
        number(o, (uint64_t)r->packed, 8);
    }
    if (far) number(o, (uint64_t)r->header, 8);
    flush_field(o);
}

static void put_directory(output *o, const record *records, int64_t count) {
    const int64_t place = o->at;
    for (int64_t i = 0; i < count; i++) put_central(o, &records[i]);
    const int64_t bytes = o->at - place, end = o->at;
    if (count >= LARGE || place >= LARGE32 || bytes >= LARGE32) {
        number(o, MF__ZIP_END64, 4);
        number(o, 44, 8);                  /* bytes of this record that follow */
        number(o, VERSION64, 2);
        number(o, VERSION64, 2);
        number(o, 0, 8);                   /* volumes */
        number(o, (uint64_t)count, 8);
        number(o, (uint64_t)count, 8);
        number(o, (uint64_t)bytes, 8);
        number(o, (uint64_t)place, 8);
        flush_field(o);
        number(o, MF__ZIP_LOCATOR64, 4);
        number(o, 0, 4);
        number(o, (uint64_t)end, 8);
        number(o, 1, 4);
    }
    const int64_t shown = count < LARGE ? count : LARGE;
    number(o, MF__ZIP_END, 4);
    number(o, 0, 4);
    number(o, (uint64_t)shown, 2);
    number(o, (uint64_t)shown, 2);
    number(o, (uint64_t)(bytes < LARGE32 ? bytes : LARGE32), 4);
    number(o, (uint64_t)(place < LARGE32 ? place : LARGE32), 4);
    number(o, 0, 2);
    flush_field(o);
}

/* Both pieces as one raw deflate stream in *packed, which the caller frees. */
static mf_status deflate_pieces(unsigned char **packed, int64_t *bytes, const piece pieces[2]) {
    z_stream z;
    memset(&z, 0, sizeof z);
    if (deflateInit2(&z, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK) return mf__fail(MF_ENOMEM, "zip.write: no memory to deflate");
    const int64_t room = (int64_t)deflateBound(&z, (uLong)(pieces[0].bytes + pieces[1].bytes)) + 64;
    *packed = malloc((size_t)room);
    if (!*packed) {
        deflateEnd(&z);
        return mf__fail(MF_ENOMEM, "zip.write: no memory to deflate %lld bytes", (long long)(pieces[0].bytes + pieces[1].bytes));
    }
    int64_t made = 0;
    for (int k = 0; k < 2; k++) {
        int64_t at = 0;
        int code = Z_OK;
        do {                               /* zlib counts in 32 bits */
            const int64_t more = pieces[k].bytes - at;
            const int last = k == 1 && more <= INT_MAX;
            z.next_in = (z_const unsigned char *)(uintptr_t)pieces[k].data + at;
            z.avail_in = (uInt)(more < INT_MAX ? more : INT_MAX);
            const uInt given = z.avail_in;
            z.next_out = *packed + made;
            z.avail_out = (uInt)(room - made < INT_MAX ? room - made : INT_MAX);
            const uInt space = z.avail_out;
            code = deflate(&z, last ? Z_FINISH : Z_NO_FLUSH);
            at += given - z.avail_in;
            made += space - z.avail_out;
            if (last && code == Z_STREAM_END) break;
        } while (at < pieces[k].bytes || k == 1);
    }
    deflateEnd(&z);
    *bytes = made;
    return MF_OK;
}

static mf_status put_part(output *o, record *r, const mf_zip_part *part, int alignment) {
    mf_status status = MF_OK;
    void *copy = NULL;
    unsigned char *packed = NULL;
    piece pieces[2] = {{part->data, part->bytes}, {NULL, 0}};
    if (part->tensor) {
        MF_TRY_OUT(mf__elements_bytes(&pieces[1].data, &copy, "zip.write", part->tensor));
        pieces[1].bytes = mf_tensor_bytes(part->tensor);
    }
    r->name = part->name;
    r->header = o->at;
    r->packed = r->bytes = pieces[0].bytes + pieces[1].bytes;
    uLong crc = crc32(0, NULL, 0);
    for (int k = 0; k < 2; k++)
        if (pieces[k].bytes) crc = crc32_z(crc, pieces[k].data, (size_t)pieces[k].bytes);
    r->crc = (uint32_t)crc;
    if (part->deflate && r->bytes) {
        MF_TRY_OUT(deflate_pieces(&packed, &r->packed, pieces));
        r->method = MF__ZIP_DEFLATED;
    }
    put_local(o, r, alignment);
    if (packed) {
        put(o, packed, r->packed);
    } else {
        for (int k = 0; k < 2; k++)
            if (pieces[k].bytes) put(o, pieces[k].data, pieces[k].bytes);
    }
out:
    free(packed);
    free(copy);
    return status;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static mf_status check_parts(const mf_zip_part *parts, int64_t count, int alignment) {
    if (count < 0 || (count > 0 && !parts)) return mf__fail(MF_EVALUE, "zip.write: no parts");
    if (alignment < 1 || alignment > 4096) return mf__fail(MF_EVALUE, "zip.write: an alignment of %d, expected 1 to 4096", alignment);
    const char **names = malloc((size_t)(count ? count : 1) * sizeof *names);
    if (!names) return mf__fail(MF_ENOMEM, "zip.write: no memory");
    mf_status status = MF_OK;
    for (int64_t i = 0; i < count; i++) {
        const char *name = names[i] = parts[i].name;
        if (!name || !*name || strlen(name) > LARGE || !mf__utf8_valid(name, (int64_t)strlen(name))) {
            status = mf__fail(MF_EVALUE, "zip.write: name %lld is not UTF-8 of 1 to %d bytes", (long long)i + 1, LARGE);
            goto out;
        }
        if (parts[i].bytes < 0 || (parts[i].bytes > 0 && !parts[i].data)) { status = mf__fail(MF_EVALUE, "zip.write: '%.200s': no data", name); goto out; }
        if (parts[i].tensor) MF_TRY_OUT(mf__usable("zip.write", parts[i].tensor));
    }
    qsort(names, (size_t)count, sizeof *names, by_text);
    for (int64_t i = 1; i < count; i++)
        if (strcmp(names[i - 1], names[i]) == 0) { status = mf__fail(MF_EVALUE, "zip.write: the name '%.200s' occurs twice", names[i]); goto out; }
out:
    free(names);
    return status;
}

mf_status mf_zip_write(const char *path, const mf_zip_part *parts, int64_t count, int alignment) {
    MF_TRY(check_parts(parts, count, alignment));
    mf_status status = MF_OK;
    output o = {0};
    record *records = calloc((size_t)(count ? count : 1), sizeof *records);
    if (!records) return mf__fail(MF_ENOMEM, "zip.write: no memory for %lld entries", (long long)count);
    MF_TRY_OUT(mf__writer_open(&o.w, path));
    for (int64_t i = 0; i < count; i++) MF_TRY_OUT(put_part(&o, &records[i], &parts[i], alignment));
    put_directory(&o, records, count);
    status = mf__writer_commit(o.w);
    o.w = NULL;
out:
    mf__writer_abandon(o.w);
    free(records);
    return status;
}
