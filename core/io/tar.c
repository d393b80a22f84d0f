/* tar.c: the members of a tar archive, one after another.
 *
 *     0 name 100  124 size 12  148 checksum 8  156 type  157 link 100  257 magic 6  345 prefix 155     a header of 512 bytes
 *     data, filled up to blocks of 512                                                                 two blocks of zeros end it
 *
 * Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format". Sizes are
 * octal or, with the first bit set, binary; names longer than the header come before it, as a pax record (type x) or as a
 * GNU long name (L). Folders, links and devices are passed over. Sparse files are refused, as are headers whose checksum is
 * wrong, sizes below 0, and an archive that ends before its blocks of zeros: it was cut. */
#include "source.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 512, LONGEST = 1 << 20 };    /* LONGEST: of what stands before a header */

struct mf_tar {
    mf__source *source;
    char *name;              /* of the member */
    int64_t at;              /* of the next byte in the (inflated) archive */
    int64_t left, padding;   /* of the member: data still to come, and zeros after them */
    int64_t bytes;
    int state;               /* a member is there; it has been read; the archive has ended */
};
enum { NONE, MEMBER, WAS_READ, ENDED };

static mf_status bad(const mf_tar *t, const char *message) {
    return mf__fail(MF_EFORMAT, "tar: '%s': byte %lld: %s", mf__source_name(t->source), (long long)t->at, message);
}

static mf_status read_all(mf_tar *t, void *data, int64_t bytes) {
    char *p = data;
    for (int64_t got; bytes > 0; p += got, bytes -= got, t->at += got) {
        MF_TRY(mf__source_read(&got, t->source, p, bytes));
        if (got == 0) return bad(t, "the archive is truncated");
    }
    return MF_OK;
}

static mf_status skip(mf_tar *t, int64_t bytes) {
    MF_TRY(mf__source_skip(t->source, bytes));
    t->at += bytes;
    return MF_OK;
}

/* ---- headers ---- */

/* A number of a header; -1 where it is none, negative or past 2^62. */
static int64_t number(const char *field, int width) {
    const unsigned char *p = (const unsigned char *)field;
    int64_t value = 0;
    if (*p & 0x80) {
        if (*p & 0x40) return -1;
        for (int i = 0; i < width; i++) {
            if (value >> 54) return -1;
            value = value << 8 | (i ? p[i] : p[i] & 0x3f);
        }
        return value;
    }
    int i = 0;
    while (i < width && p[i] == ' ') i++;
    for (; i < width && p[i] != ' ' && p[i] != '\0'; i++) {
        if (p[i] < '0' || p[i] > '7') return -1;
        value = value << 3 | (p[i] - '0');
    }
    return value;
}

static int is_zero(const char *header) {
    for (int i = 0; i < BLOCK; i++)
        if (header[i]) return 0;
    return 1;
}

/* Old archives summed signed bytes. */
static int sum_fits(const char *header) {
    int64_t sum = 0, sum_signed = 0, wanted = number(header + 148, 8);
    for (int i = 0; i < BLOCK; i++) {
        char c = i >= 148 && i < 156 ? ' ' : header[i];
        sum += (unsigned char)c;
        sum_signed += (signed char)c;
    }
    return wanted == sum || wanted == sum_signed;
}

static size_t length_of(const char *field, size_t width) {
    const char *zero = memchr(field, 0, width);
    return zero ? (size_t)(zero - field) : width;
}

static mf_status set_name(mf_tar *t, const char *text, size_t bytes) {
    char *name = malloc(bytes + 1);
    if (!name) return mf__fail(MF_ENOMEM, "tar: '%s': no memory", mf__source_name(t->source));
    memcpy(name, text, bytes);
    name[bytes] = '\0';
    free(t->name);
    t->name = name;
    return MF_OK;
}

static mf_status name_of_header(mf_tar *t, const char *header) {
    char text[257];
    size_t n = memcmp(header + 257, "ustar\0", 6) == 0 ? length_of(header + 345, 155) : 0;
    memcpy(text, header + 345, n);
    if (n) text[n++] = '/';
    size_t m = length_of(header, 100);
    memcpy(text + n, header, m);
    return set_name(t, text, n + m);
}

/* ---- what stands before a header ---- */

/* "length key=value\n" over and over; *size -1 unless a record says it. */
static mf_status read_pax(mf_tar *t, const char *text, int64_t bytes, int64_t *size) {
    const char *p = text, *end = text + bytes;
    while (p < end) {
        int64_t length = 0;
        const char *q = p;
        while (q < end && *q >= '0' && *q <= '9' && length <= bytes) length = 10 * length + (*q++ - '0');
        if (q == end || *q != ' ' || length > end - p || length < q - p + 3 || p[length - 1] != '\n') return bad(t, "a pax record is broken");
        const char *key = q + 1, *stop = p + length - 1, *equals = memchr(key, '=', (size_t)(stop - key));
        if (!equals) return bad(t, "a pax record is broken");
        const size_t n = (size_t)(equals - key);
        if (n == 4 && memcmp(key, "path", 4) == 0) {
            MF_TRY(set_name(t, equals + 1, (size_t)(stop - equals - 1)));
        } else if (n == 4 && memcmp(key, "size", 4) == 0) {
            *size = 0;
            for (const char *d = equals + 1; d < stop; d++) {
                if (*d < '0' || *d > '9' || *size >> 58) return bad(t, "the size of a pax record is no size");
                *size = 10 * *size + (*d - '0');
            }
        } else if (n > 10 && memcmp(key, "GNU.sparse", 10) == 0) {
            return bad(t, "a sparse file");
        }
        p += length;
    }
    return MF_OK;
}

/* The data of the header are a name or records for the header that follows. */
static mf_status read_before(mf_tar *t, char type, int64_t bytes, int64_t *size) {
    if (bytes > LONGEST) return bad(t, "a name or pax records of more than 1 MiB");
    char *text = malloc((size_t)bytes + 1);
    if (!text) return mf__fail(MF_ENOMEM, "tar: '%s': no memory", mf__source_name(t->source));
    mf_status status = read_all(t, text, bytes);
    if (status == MF_OK) status = skip(t, -bytes & (BLOCK - 1));
    if (status == MF_OK) status = type == 'x' ? read_pax(t, text, bytes, size) : set_name(t, text, length_of(text, (size_t)bytes));
    free(text);
    return status;
}

/* ---- members ---- */

mf_status mf_tar_open(mf_tar **out, const char *path) {
    *out = NULL;
    mf_tar *t = calloc(1, sizeof *t);
    if (!t) return mf__fail(MF_ENOMEM, "tar: no memory");
    mf_status status = mf__source_open(&t->source, path, 0, -1, INT64_MAX);
    if (status == MF_OK) *out = t;
    else mf_tar_close(t);
    return status;
}

/* The next header of a regular file, with what stood before it. */
static mf_status next_file(mf_tar *t) {
    char header[BLOCK];
    int64_t size = -1;       /* of a pax record */
    free(t->name);
    t->name = NULL;
    for (;;) {
        MF_TRY(read_all(t, header, BLOCK));
        if (is_zero(header)) {
            t->state = ENDED;
            return MF_OK;
        }
        t->at -= BLOCK;      /* where it begins, for errors */
        if (!sum_fits(header)) return bad(t, "the checksum of a header is wrong: not a tar archive, or a broken one");
        int64_t bytes = number(header + 124, 12);
        const char type = header[156];
        if (bytes < 0) return bad(t, "the size of a member is no size");
        if (type == 'S') return bad(t, "a sparse file");
        t->at += BLOCK;
        if (type == 'x' || type == 'L') {
            MF_TRY(read_before(t, type, bytes, &size));
            continue;
        }
        if (type >= '1' && type <= '6') bytes = 0;    /* links, devices, folders: no data follow, whatever the size says */
        else if (size >= 0) bytes = size;
        if (type == '0' || type == '\0' || type == '7') {
            if (!t->name) MF_TRY(name_of_header(t, header));
            t->bytes = t->left = bytes;
            t->padding = -bytes & (BLOCK - 1);
            t->state = MEMBER;
            return MF_OK;
        }
        MF_TRY(skip(t, bytes));
        MF_TRY(skip(t, -bytes & (BLOCK - 1)));
        if (type == 'K' || type == 'g') continue;     /* the member is still to come */
        free(t->name);
        t->name = NULL;
        size = -1;
    }
}

mf_status mf_tar_next(mf_tar_member *out, mf_tar *t) {
    *out = (mf_tar_member){.offset = -1};
    if (t->state == ENDED) return MF_OK;
    MF_TRY(skip(t, t->left));
    MF_TRY(skip(t, t->padding));
    t->left = t->padding = 0;
    t->state = NONE;
    MF_TRY(next_file(t));
    if (t->state == MEMBER) *out = (mf_tar_member){.name = t->name, .offset = mf__source_compressed(t->source) ? -1 : t->at, .bytes = t->bytes};
    return MF_OK;
}

mf_status mf_tar_read(char **data, int64_t *bytes, mf_tar *t, int64_t max_bytes) {
    *data = NULL;
    *bytes = 0;
    if (max_bytes < 0) return mf__fail(MF_EVALUE, "tar: max_bytes %lld is negative", (long long)max_bytes);
    if (t->state != MEMBER) return mf__fail(MF_ESTATE, "tar: '%s': no member is open, or it has been read", mf__source_name(t->source));
    const int64_t limit = max_bytes ? max_bytes : (int64_t)1 << 30;
    if (t->bytes > limit)
        return mf__fail(MF_EFORMAT, "tar: '%s': member '%s' has %lld bytes, more than the limit of %lld bytes", mf__source_name(t->source), t->name,
                        (long long)t->bytes, (long long)limit);
    char *text = NULL;
    int64_t room = 0, used = 0;
    mf_status status = MF_OK;
    t->state = WAS_READ;
    do {    /* room grows with what comes: a header may promise more than the file has */
        room = room ? 2 * room : LONGEST;
        if (room > t->bytes) room = t->bytes;
        char *grown = realloc(text, (size_t)room + 1);
        if (!grown) { status = mf__fail(MF_ENOMEM, "tar: '%s': no memory for %lld bytes", mf__source_name(t->source), (long long)room); goto out; }
        text = grown;
        MF_TRY_OUT(read_all(t, text + used, room - used));
        used = room;
        t->left = t->bytes - used;
    } while (t->left);
    text[used] = '\0';
    *data = text;
    *bytes = used;
    text = NULL;
out:
    free(text);
    return status;
}

void mf_tar_close(mf_tar *t) {
    if (!t) return;
    mf__source_close(t->source);
    free(t->name);
    free(t);
}
