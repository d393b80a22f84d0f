/* zip.c: reading ZIP archives.
 *
 *     local header | name | extra | data      of each entry
 *     central directory                       what entries there are: what we go by
 *     [end of central directory, ZIP64]       8-byte sizes, behind a locator of its own
 *     end of central directory | comment      the last bytes of the file
 *
 * An archive is checked wholly when it is opened: every entry lies inside the file, no two overlap, both headers say
 * the same, no name occurs twice. Data are checked against their CRC when read. Entries may be stored or deflated; what
 * inflates to a gibibyte and a hundred times its size is refused, and so is a size that deflate cannot reach. Files that
 * something else precedes (self-extracting programs), several volumes and encryption are refused. */
#include "zip.h"
#include "json.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { END_BYTES = 22, END64_BYTES = 56, LOCATOR64_BYTES = 20, LOCAL_BYTES = 30, CENTRAL_BYTES = 46, MAX_COMMENT = 65535 };
enum { DEFLATE_MOST = 1032 };              /* times its input: what deflate can make at best */
#define BOMB_BYTES ((int64_t)1 << 30)
enum { BOMB_RATIO = 100 };

typedef struct entry {
    const char *name;
    int method, flags, checked;            /* checked: the CRC of a stored entry was compared */
    uint32_t crc;
    int64_t header, begin, packed, bytes;  /* header: where the local header is; begin: the data */
} entry;

struct mf_zip {
    char *path;
    const unsigned char *map;
    int64_t mapped;
    int owned;                             /* unmap when closed */
    entry *entries;
    int64_t count;
    char *names;
    int64_t directory, directory_bytes, end; /* end: where what follows the directory begins */
    unsigned char *inflated;               /* of entry `inflated_entry` */
    int64_t inflated_entry;
};

static mf_status bad_file(const mf_zip *z, const char *message) { return mf__fail(MF_EFORMAT, "zip.open: '%s': %s", z->path, message); }

static mf_status bad_entry(const mf_zip *z, const entry *e, const char *message) {
    return mf__fail(MF_EFORMAT, "zip.open: '%s': entry '%.200s': %s", z->path, e->name, message);
}

/* A field of 8 bytes that has to be a place or a size in this file. */
static int small64(int64_t *out, const unsigned char *p) {
    uint64_t value = mf__little64(p);
    *out = (int64_t)value;
    return value <= INT64_MAX;
}

/* The end record is where its comment reaches exactly to the end of the file. */
static mf_status find_end(mf_zip *z, const unsigned char **out) {
    for (int64_t n = END_BYTES; n <= END_BYTES + MAX_COMMENT && n <= z->mapped; n++) {
        const unsigned char *p = z->map + z->mapped - n;
        if (mf__little32(p) == MF__ZIP_END && mf__little16(p + 20) == n - END_BYTES) {
            *out = p;
            return MF_OK;
        }
    }
    return bad_file(z, z->mapped >= 4 && mf__little32(z->map) == MF__ZIP_LOCAL ? "no end record: truncated" : "not a ZIP archive");
}

/* The ZIP64 record, where a locator stands before the end record, says what the end record has no room for. */
static mf_status read_end64(mf_zip *z, const unsigned char *end) {
    int64_t place, at = end - z->map, entries;
    if (at < LOCATOR64_BYTES || mf__little32(end - LOCATOR64_BYTES) != MF__ZIP_LOCATOR64) return MF_OK;
    const unsigned char *locator = end - LOCATOR64_BYTES;
    if (!small64(&place, locator + 8) || place > at - LOCATOR64_BYTES - END64_BYTES) return bad_file(z, "the ZIP64 record lies outside the file");
    const unsigned char *p = z->map + place;
    if (mf__little32(p) != MF__ZIP_END64) return bad_file(z, "there is no ZIP64 record where the locator says");
    if (mf__little32(locator + 4) != 0 || mf__little32(p + 16) != 0 || mf__little32(p + 20) != 0) return bad_file(z, "several volumes");
    if (!small64(&entries, p + 32) || !small64(&z->directory_bytes, p + 40) || !small64(&z->directory, p + 48))
        return bad_file(z, "a ZIP64 size is out of range");
    /* what the end record says as well has to be the same: other readers may go by it */
    const uint32_t count16 = mf__little16(end + 10), bytes32 = mf__little32(end + 12), place32 = mf__little32(end + 16);
    if ((count16 != 0xffff && count16 != entries) || (bytes32 != 0xffffffff && bytes32 != z->directory_bytes) ||
        (place32 != 0xffffffff && place32 != z->directory))
        return bad_file(z, "the end record and the ZIP64 record differ");
    z->count = entries;
    z->end = place;
    return MF_OK;
}

static mf_status read_end(mf_zip *z) {
    const unsigned char *end = NULL;
    MF_TRY(find_end(z, &end));
    z->end = end - z->map;
    z->count = mf__little16(end + 10);
    z->directory_bytes = mf__little32(end + 12);
    z->directory = mf__little32(end + 16);
    if (mf__little16(end + 4) != 0 || mf__little16(end + 6) != 0) return bad_file(z, "several volumes");
    if (mf__little16(end + 8) != mf__little16(end + 10)) return bad_file(z, "several volumes");
    MF_TRY(read_end64(z, end));
    if (z->directory > z->end || z->directory_bytes > z->end - z->directory) return bad_file(z, "the central directory lies outside the file");
    if (z->count > z->directory_bytes / CENTRAL_BYTES) return bad_file(z, "the central directory is too short for its entries");
    return MF_OK;
}

/* Sizes that did not fit into 4 bytes stand in the extra field, in this order. */
static mf_status read_extra64(const mf_zip *z, entry *e, const unsigned char *extra, int64_t bytes) {
    int64_t *const fields[3] = {&e->bytes, &e->packed, &e->header};
    int wanted = 0;
    for (int k = 0; k < 3; k++) wanted += *fields[k] == 0xffffffff;
    while (wanted && bytes >= 4) {
        const uint32_t kind = mf__little16(extra), size = mf__little16(extra + 2);
        extra += 4;
        bytes -= 4;
        if (size > bytes) break;
        if (kind == MF__ZIP_EXTRA64) {
            int64_t at = 0;
            for (int k = 0; k < 3; k++) {
                if (*fields[k] != 0xffffffff) continue;
                if (at + 8 > size) return bad_entry(z, e, "its ZIP64 field is too short");
                if (!small64(fields[k], extra + at)) return bad_entry(z, e, "a ZIP64 size is out of range");
                at += 8;
            }
            return MF_OK;
        }
        extra += size;
        bytes -= size;
    }
    return MF_OK;    /* none: 0xffffffff is what is meant, and the bounds tell */
}

static mf_status check_local(const mf_zip *z, entry *e) {
    if (e->header > z->directory - LOCAL_BYTES) return bad_entry(z, e, "its header lies outside the file");
    const unsigned char *p = z->map + e->header;
    if (mf__little32(p) != MF__ZIP_LOCAL) return bad_entry(z, e, "there is no header where the directory says");
    const int64_t name_bytes = mf__little16(p + 26);
    e->begin = e->header + LOCAL_BYTES + name_bytes + mf__little16(p + 28);
    if (e->begin > z->directory || e->packed > z->directory - e->begin) return bad_entry(z, e, "its data lie outside the file");
    if (name_bytes != (int64_t)strlen(e->name) || memcmp(p + LOCAL_BYTES, e->name, (size_t)name_bytes) != 0)
        return bad_entry(z, e, "its header has another name");
    if ((int)mf__little16(p + 8) != e->method) return bad_entry(z, e, "its header has another method");
    if (e->method == MF__ZIP_STORED && e->bytes != e->packed) return bad_entry(z, e, "it is stored and has two sizes");
    if (e->method == MF__ZIP_DEFLATED && e->bytes / DEFLATE_MOST > e->packed) return bad_entry(z, e, "its size is more than its data can inflate to");
    return MF_OK;
}

static int printable(const char *name, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f) return 0;
    return bytes > 0 && mf__utf8_valid(name, bytes);
}

static mf_status read_directory(mf_zip *z) {
    /* names follow one another in one block, each with its zero: a central header is longer than the zero */
    z->entries = calloc((size_t)(z->count ? z->count : 1), sizeof *z->entries);
    z->names = malloc((size_t)(z->directory_bytes + 1));
    if (!z->entries || !z->names) return mf__fail(MF_ENOMEM, "zip.open: '%s': no memory for %lld entries", z->path, (long long)z->count);
    const unsigned char *p = z->map + z->directory, *end = p + z->directory_bytes;
    char *name = z->names;
    for (int64_t i = 0; i < z->count; i++) {
        entry *e = &z->entries[i];
        if (end - p < CENTRAL_BYTES || mf__little32(p) != MF__ZIP_CENTRAL) return bad_file(z, "the central directory is corrupt");
        const int64_t name_bytes = mf__little16(p + 28), extra_bytes = mf__little16(p + 30), comment_bytes = mf__little16(p + 32);
        if (end - p < CENTRAL_BYTES + name_bytes + extra_bytes + comment_bytes) return bad_file(z, "the central directory is corrupt");
        if (!printable((const char *)p + CENTRAL_BYTES, name_bytes)) return bad_file(z, "an entry's name is not printable UTF-8");
        memcpy(name, p + CENTRAL_BYTES, (size_t)name_bytes);
        name[name_bytes] = '\0';
        e->name = name;
        name += name_bytes + 1;
        e->flags = (int)mf__little16(p + 8);
        e->method = (int)mf__little16(p + 10);
        e->crc = mf__little32(p + 16);
        e->packed = mf__little32(p + 20);
        e->bytes = mf__little32(p + 24);
        e->header = mf__little32(p + 42);
        if (mf__little16(p + 34) != 0) return bad_entry(z, e, "it is in another volume");
        MF_TRY(read_extra64(z, e, p + CENTRAL_BYTES + name_bytes, extra_bytes));
        MF_TRY(check_local(z, e));
        p += CENTRAL_BYTES + name_bytes + extra_bytes + comment_bytes;
    }
    return p == end ? MF_OK : bad_file(z, "the central directory is longer than its entries");
}

static int by_name(const void *a, const void *b) { return strcmp((*(const entry *const *)a)->name, (*(const entry *const *)b)->name); }

static int by_place(const void *a, const void *b) {
    const entry *x = *(const entry *const *)a, *y = *(const entry *const *)b;
    return (x->header > y->header) - (x->header < y->header);
}

static mf_status check_together(const mf_zip *z) {
    mf_status status = MF_OK;
    const entry **order = malloc((size_t)(z->count ? z->count : 1) * sizeof *order);
    if (!order) return mf__fail(MF_ENOMEM, "zip.open: '%s': no memory", z->path);
    for (int64_t i = 0; i < z->count; i++) order[i] = &z->entries[i];
    qsort(order, (size_t)z->count, sizeof *order, by_name);
    for (int64_t i = 1; i < z->count && status == MF_OK; i++)
        if (strcmp(order[i - 1]->name, order[i]->name) == 0) status = bad_entry(z, order[i], "the name occurs twice");
    qsort(order, (size_t)z->count, sizeof *order, by_place);
    for (int64_t i = 1; i < z->count && status == MF_OK; i++)
        if (order[i]->header < order[i - 1]->begin + order[i - 1]->packed) status = bad_entry(z, order[i], "its data overlap another entry's");
    free(order);
    return status;
}

static mf_status start(mf_zip **out, const char *path) {
    mf_zip *z = calloc(1, sizeof *z);
    if (!z) return mf__fail(MF_ENOMEM, "zip.open: '%s': no memory", path);
    z->inflated_entry = -1;
    z->path = strdup(path);
    if (!z->path) {
        free(z);
        return mf__fail(MF_ENOMEM, "zip.open: '%s': no memory", path);
    }
    *out = z;
    return MF_OK;
}

static mf_status check_all(mf_zip *z) {
    MF_TRY(read_end(z));
    MF_TRY(read_directory(z));
    return check_together(z);
}

mf_status mf__zip_view(mf_zip **out, const void *data, int64_t bytes, const char *path) {
    *out = NULL;
    mf_zip *z = NULL;
    MF_TRY(start(&z, path));
    z->map = data;
    z->mapped = bytes;
    mf_status status = check_all(z);
    if (status == MF_OK) *out = z;
    else mf_zip_close(z);
    return status;
}

mf_status mf_zip_open(mf_zip **out, const char *path) {
    *out = NULL;
    if (!path) return mf__fail(MF_EVALUE, "zip.open: no path");
    mf_zip *z = NULL;
    MF_TRY(start(&z, path));
    mf_status status = MF_OK;
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0) { status = mf__fail(MF_EIO, "zip.open: '%s': %s", path, strerror(errno)); goto out; }
    if (!S_ISREG(info.st_mode)) {
        status = mf__fail(MF_EIO, "zip.open: '%s': %s", path, S_ISDIR(info.st_mode) ? strerror(EISDIR) : "not a regular file");
        goto out;
    }
    if (info.st_size > 0) {
        void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) { status = mf__fail(MF_EIO, "zip.open: '%s': %s", path, strerror(errno)); goto out; }
        z->map = map;
        z->mapped = info.st_size;
        z->owned = 1;
    }
    MF_TRY_OUT(check_all(z));
    *out = z;
    z = NULL;
out:
    if (fd >= 0) close(fd);
    mf_zip_close(z);
    return status;
}

void mf_zip_close(mf_zip *z) {
    if (!z) return;
    if (z->owned) munmap((void *)(uintptr_t)z->map, (size_t)z->mapped);
    free(z->inflated);
    free(z->entries);
    free(z->names);
    free(z->path);
    free(z);
}

int64_t mf_zip_count(const mf_zip *z) { return z->count; }

const char *mf_zip_name(const mf_zip *z, int64_t i) { return i >= 0 && i < z->count ? z->entries[i].name : NULL; }

int64_t mf_zip_size(const mf_zip *z, int64_t i) { return i >= 0 && i < z->count ? z->entries[i].bytes : -1; }

const char *mf__zip_path(const mf_zip *z) { return z->path; }

/* A fuzzer cannot guess a CRC: its build takes any, so that it gets to what the CRC guards. */
static int intact(const entry *e, const unsigned char *data) {
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    (void)e;
    return data != NULL;
#else
    return crc32_z(crc32(0, NULL, 0), data, (size_t)e->bytes) == e->crc;
#endif
}

static mf_status inflate_entry(const char *op, mf_zip *z, int64_t i) {
    const entry *e = &z->entries[i];
    if (e->bytes > BOMB_BYTES && e->bytes / BOMB_RATIO > e->packed)
        return mf__fail(MF_EFORMAT, "%s: '%s': entry '%.200s' inflates to %lld bytes, %lld times its size: refused", op, z->path, e->name,
                        (long long)e->bytes, (long long)(e->bytes / (e->packed ? e->packed : 1)));
    free(z->inflated);
    z->inflated_entry = -1;
    z->inflated = malloc((size_t)(e->bytes ? e->bytes : 1));
    if (!z->inflated) return mf__fail(MF_ENOMEM, "%s: '%s': no memory for %lld bytes of entry '%.200s'", op, z->path, (long long)e->bytes, e->name);
    z_stream s;
    memset(&s, 0, sizeof s);
    if (inflateInit2(&s, -15) != Z_OK) return mf__fail(MF_ENOMEM, "%s: '%s': no memory to inflate", op, z->path);
    int64_t in = 0, made = 0;
    int code = Z_OK;
    while (code == Z_OK) {    /* zlib counts in 32 bits */
        int64_t more = e->packed - in, room = e->bytes - made;
        unsigned char probe;    /* past the declared size a single byte tells that there is more */
        s.next_in = (z_const unsigned char *)(uintptr_t)(z->map + e->begin + in);
        s.avail_in = (uInt)(more < INT_MAX ? more : INT_MAX);
        s.next_out = room ? z->inflated + made : &probe;
        s.avail_out = (uInt)(room == 0 ? 1 : room < INT_MAX ? room : INT_MAX);
        const uInt given = s.avail_in, free_before = s.avail_out;
        code = inflate(&s, Z_NO_FLUSH);
        in += given - s.avail_in;
        const int64_t step = free_before - s.avail_out;
        if (room == 0 && step) code = Z_DATA_ERROR;
        made += room ? step : 0;
    }
    inflateEnd(&s);
    if (code == Z_MEM_ERROR) return mf__fail(MF_ENOMEM, "%s: '%s': no memory to inflate", op, z->path);
    if (code != Z_STREAM_END || made != e->bytes || in != e->packed)
        return mf__fail(MF_EFORMAT, "%s: '%s': entry '%.200s': corrupt or truncated deflate stream", op, z->path, e->name);
    if (!intact(e, z->inflated))
        return mf__fail(MF_EFORMAT, "%s: '%s': entry '%.200s': its CRC is wrong: the file is damaged", op, z->path, e->name);
    z->inflated_entry = i;
    return MF_OK;
}

mf_status mf__zip_bytes(const unsigned char **data, int64_t *bytes, const char *op, mf_zip *z, int64_t i) {
    *data = NULL;
    *bytes = 0;
    if (i < 0 || i >= z->count)
        return mf__fail(MF_EVALUE, "%s: '%s': there is no entry %lld, the archive has %lld", op, z->path, (long long)i + 1, (long long)z->count);
    entry *e = &z->entries[i];
    if (e->flags & 1) return mf__fail(MF_ESUPPORT, "%s: '%s': entry '%.200s' is encrypted", op, z->path, e->name);
    if (e->method == MF__ZIP_STORED) {
        if (!e->checked && !intact(e, z->map + e->begin))
            return mf__fail(MF_EFORMAT, "%s: '%s': entry '%.200s': its CRC is wrong: the file is damaged", op, z->path, e->name);
        e->checked = 1;
        *data = z->map + e->begin;
    } else if (e->method == MF__ZIP_DEFLATED) {
        if (z->inflated_entry != i) MF_TRY(inflate_entry(op, z, i));
        *data = z->inflated;
    } else {
        return mf__fail(MF_ESUPPORT, "%s: '%s': entry '%.200s' is packed by method %d (known: 0 stored, 8 deflated)", op, z->path, e->name, e->method);
    }
    *bytes = e->bytes;
    return MF_OK;
}

mf_status mf_zip_read(char **data, int64_t *bytes, mf_zip *z, int64_t i) {
    *data = NULL;
    *bytes = 0;
    const unsigned char *found;
    int64_t n;
    MF_TRY(mf__zip_bytes(&found, &n, "zip.read", z, i));
    char *copy = malloc((size_t)n + 1);
    if (!copy) return mf__fail(MF_ENOMEM, "zip.read: '%s': no memory for %lld bytes", z->path, (long long)n);
    if (n) memcpy(copy, found, (size_t)n);
    copy[n] = '\0';
    *data = copy;
    *bytes = n;
    return MF_OK;
}
