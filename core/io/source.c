/* source.c: bytes as they come, plain or gzip.
 *
 *     file or memory --fetch--> ahead (64 KB) --inflate--> the reader's buffer
 *                        \______ plain ____________________/
 *
 * The first bytes are read ahead to see whether they are gzip's. Nothing is held but these 64 KB and zlib's window, so a
 * bomb costs its reader at most the bytes that it takes; past the limit it is refused. */
#include "source.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { AHEAD = 1 << 16 };

struct mf__source {
    char *name;
    int fd;                        /* -1: memory */
    const unsigned char *memory;
    int64_t left;                  /* of the part to be fetched, -1: to the end of the file */
    int64_t size;                  /* of the part, 0 where it is not known */
    int64_t given, limit;
    int gzip, seekable;
    int ended, finished;           /* gzip: a member has ended; nothing is left to fetch */
    z_stream z;
    unsigned char *at;             /* plain: what is still ahead */
    int64_t ahead;
    char *head;                    /* what was looked at before it is read */
    int64_t head_bytes, head_given;
    unsigned char input[AHEAD];
};

/* Raw bytes of the part: *got is 0 at its end. */
static mf_status fetch(int64_t *got, mf__source *s, void *data, int64_t room) {
    *got = 0;
    if (s->left >= 0 && room > s->left) room = s->left;
    if (room == 0) return MF_OK;
    if (s->fd < 0) {
        memcpy(data, s->memory, (size_t)room);
        s->memory += room;
        *got = room;
    } else {
        ssize_t n;
        do n = read(s->fd, data, (size_t)(room < INT_MAX ? room : INT_MAX));
        while (n < 0 && errno == EINTR);
        if (n < 0) return mf__fail(MF_EIO, "file.read: '%s': %s", s->name, strerror(errno));
        *got = n;
    }
    if (s->left > 0 && *got == 0)
        return mf__fail(MF_EFORMAT, "file.read: '%s': the file ends %lld bytes before the part that was asked for", s->name, (long long)s->left);
    if (s->left > 0) s->left -= *got;
    return MF_OK;
}

static mf_status over_limit(const mf__source *s, const char *verb) {
    return mf__fail(MF_EFORMAT, "file.read: '%s': %smore than the limit of %lld bytes", s->name, verb, (long long)s->limit);
}

/* Looks at the first two bytes; a pipe may give a single one at first. */
static mf_status begin(mf__source *s) {
    int64_t got;
    s->at = s->input;
    do {
        MF_TRY(fetch(&got, s, s->input + s->ahead, AHEAD - s->ahead));
        s->ahead += got;
    } while (got && s->ahead < 2);
    s->gzip = s->ahead >= 2 && s->input[0] == 0x1f && s->input[1] == 0x8b;
    if (!s->gzip) {
        if (s->size > s->limit)
            return mf__fail(MF_EFORMAT, "file.read: '%s': %lld bytes, more than the limit of %lld bytes", s->name, (long long)s->size, (long long)s->limit);
        return MF_OK;
    }
    if (inflateInit2(&s->z, 15 + 16) != Z_OK) {
        s->gzip = 0;
        return mf__fail(MF_ENOMEM, "file.read: '%s': no memory to inflate", s->name);
    }
    s->z.next_in = s->input;
    s->z.avail_in = (uInt)s->ahead;
    return MF_OK;
}

static mf_status make(mf__source **out, const char *name, int64_t limit) {
    mf__source *s = malloc(sizeof *s);
    char *copy = strdup(name);
    if (!s || !copy) {
        free(s);
        free(copy);
        return mf__fail(MF_ENOMEM, "file.read: '%s': no memory", name);
    }
    memset(s, 0, offsetof(mf__source, input));
    s->name = copy;
    s->fd = -1;
    s->limit = limit;
    *out = s;
    return MF_OK;
}

mf_status mf__source_open(mf__source **out, const char *path, int64_t offset, int64_t bytes, int64_t limit) {
    *out = NULL;
    if (!path) return mf__fail(MF_EVALUE, "file.read: no path");
    if (offset < 0 || bytes < -1) return mf__fail(MF_EVALUE, "file.read: '%s': no part of %lld bytes at %lld", path, (long long)bytes, (long long)offset);
    mf__source *s = NULL;
    MF_TRY(make(&s, path, limit));
    mf_status status = MF_OK;
    struct stat info;
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0 || fstat(s->fd, &info) != 0) { status = mf__fail(MF_EIO, "file.read: '%s': %s", path, strerror(errno)); goto out; }
    if (S_ISDIR(info.st_mode)) { status = mf__fail(MF_EIO, "file.read: '%s': %s", path, strerror(EISDIR)); goto out; }
    s->seekable = S_ISREG(info.st_mode);
    s->left = bytes;
    if (offset && lseek(s->fd, offset, SEEK_SET) < 0) { status = mf__fail(MF_EIO, "file.read: '%s': %s", path, strerror(errno)); goto out; }
    if (s->seekable) s->size = info.st_size > offset ? info.st_size - offset : 0;
    if (bytes >= 0) s->size = bytes;
    MF_TRY_OUT(begin(s));
    *out = s;
    s = NULL;
out:
    mf__source_close(s);
    return status;
}

mf_status mf__source_memory(mf__source **out, const void *data, int64_t bytes, const char *name, int64_t limit) {
    *out = NULL;
    if (bytes < 0 || (bytes > 0 && !data)) return mf__fail(MF_EVALUE, "file.read: no text of %lld bytes", (long long)bytes);
    mf__source *s = NULL;
    MF_TRY(make(&s, name ? name : "text", limit));
    s->memory = data;
    s->left = s->size = bytes;
    mf_status status = begin(s);
    if (status != MF_OK) mf__source_close(s);
    else *out = s;
    return status;
}

static mf_status plain(int64_t *got, mf__source *s, void *data, int64_t room) {
    if (s->ahead == 0) return fetch(got, s, data, room);
    *got = room < s->ahead ? room : s->ahead;
    memcpy(data, s->at, (size_t)*got);
    s->at += *got;
    s->ahead -= *got;
    return MF_OK;
}

/* Fills the input when it is empty; notes the end. */
static mf_status feed(mf__source *s) {
    if (s->z.avail_in || s->finished) return MF_OK;
    int64_t got;
    MF_TRY(fetch(&got, s, s->input, AHEAD));
    s->z.next_in = s->input;
    s->z.avail_in = (uInt)got;
    s->finished = got == 0;
    return MF_OK;
}

static mf_status inflated(int64_t *got, mf__source *s, void *data, int64_t room) {
    z_stream *z = &s->z;
    z->next_out = data;
    z->avail_out = (uInt)(room < 1 << 30 ? room : 1 << 30);
    const uInt wanted = z->avail_out;
    *got = 0;
    while (z->avail_out == wanted) {
        MF_TRY(feed(s));
        if (s->ended) {
            while (z->avail_in && *z->next_in == 0) z->next_in++, z->avail_in--;    /* tape padding */
            if (z->avail_in == 0 && s->finished) return MF_OK;
            if (z->avail_in == 0) continue;
            if (*z->next_in != 0x1f) return mf__fail(MF_EFORMAT, "file.read: '%s': bytes after the gzip stream that are no gzip", s->name);
            if (inflateReset(z) != Z_OK) return mf__fail(MF_EFORMAT, "file.read: '%s': gzip: cannot go on", s->name);
            s->ended = 0;
        }
        if (z->avail_in == 0 && s->finished) return mf__fail(MF_EFORMAT, "file.read: '%s': the gzip stream is truncated", s->name);
        int code = inflate(z, Z_NO_FLUSH);
        if (code == Z_STREAM_END) s->ended = 1;
        else if (code == Z_MEM_ERROR) return mf__fail(MF_ENOMEM, "file.read: '%s': no memory to inflate", s->name);
        else if (code != Z_OK && code != Z_BUF_ERROR)
            return mf__fail(MF_EFORMAT, "file.read: '%s': corrupt gzip stream (%s)", s->name, z->msg ? z->msg : "bad data");
    }
    *got = wanted - z->avail_out;
    return MF_OK;
}

/* From the head, or nothing. */
static int64_t take_head(mf__source *s, void *data, int64_t room) {
    int64_t n = s->head_bytes - s->head_given;
    if (n > room) n = room;
    if (n > 0 && data) memcpy(data, s->head + s->head_given, (size_t)n);
    s->head_given += n;
    return n;
}

mf_status mf__source_read(int64_t *got, mf__source *s, void *data, int64_t room) {
    *got = take_head(s, data, room);
    if (*got) return MF_OK;
    unsigned char probe;    /* at the limit, one byte of room tells the end from more text */
    int full = s->given >= s->limit;
    if (full) data = &probe, room = 1;
    else if (room > s->limit - s->given) room = s->limit - s->given;
    MF_TRY(s->gzip ? inflated(got, s, data, room) : plain(got, s, data, room));
    if (full && *got) return over_limit(s, s->gzip ? "inflates to " : "");
    s->given += *got;
    return MF_OK;
}

mf_status mf__source_peek(const char **at, int64_t *bytes, mf__source *s, int64_t wanted) {
    mf_assert(!s->head);
    char *head = malloc((size_t)wanted);
    if (!head) return mf__fail(MF_ENOMEM, "file.read: '%s': no memory", s->name);
    mf_status status = MF_OK;
    int64_t have = 0;
    for (int64_t got = 1; status == MF_OK && got && have < wanted; have += got) status = mf__source_read(&got, s, head + have, wanted - have);
    if (status != MF_OK) {
        free(head);
        return status;
    }
    *at = s->head = head;
    *bytes = s->head_bytes = have;
    return MF_OK;
}

mf_status mf__source_skip(mf__source *s, int64_t bytes) {
    bytes -= take_head(s, NULL, bytes);
    int64_t ahead = s->gzip ? 0 : bytes < s->ahead ? bytes : s->ahead;
    s->at += ahead;
    s->ahead -= ahead;
    s->given += ahead;
    bytes -= ahead;
    if (bytes > 0 && !s->gzip && s->seekable) {
        if (s->left >= 0 && bytes > s->left) bytes = s->left;
        if (lseek(s->fd, bytes, SEEK_CUR) < 0) return mf__fail(MF_EIO, "file.read: '%s': %s", s->name, strerror(errno));
        if (s->left >= 0) s->left -= bytes;
        s->given += bytes;
        return MF_OK;
    }
    char passed[4096];
    for (int64_t got = 1; bytes > 0 && got; bytes -= got) MF_TRY(mf__source_read(&got, s, passed, bytes < (int64_t)sizeof passed ? bytes : (int64_t)sizeof passed));
    return MF_OK;
}

const char *mf__source_name(const mf__source *s) { return s->name; }
int64_t mf__source_limit(const mf__source *s) { return s->limit; }
int mf__source_compressed(const mf__source *s) { return s->gzip; }

int64_t mf__source_expected(const mf__source *s) {
    int64_t guess = s->gzip ? 4 * s->size : s->size > s->ahead ? s->size : s->ahead;
    return guess < s->limit ? guess : s->limit;
}

void mf__source_close(mf__source *s) {
    if (!s) return;
    if (s->gzip) inflateEnd(&s->z);
    if (s->fd >= 0) close(s->fd);
    free(s->head);
    free(s->name);
    free(s);
}

mf_status mf__source_whole(char **text, int64_t *bytes, mf__source *s) {
    *text = NULL;
    *bytes = 0;
    /* One allocation of the right size when the size is known: twice the text would be the peak otherwise. */
    int64_t room = mf__source_expected(s) + 1, used = 0, got = 0;
    char *data = NULL;
    mf_status status = MF_OK;
    do {
        if (!data || used == room) {
            if (data) room = 2 * room > AHEAD ? 2 * room : AHEAD;
            char *grown = realloc(data, (size_t)room + 1);
            if (!grown) { status = mf__fail(MF_ENOMEM, "file.read: '%s': no memory for %lld bytes", mf__source_name(s), (long long)room); goto out; }
            data = grown;
        }
        MF_TRY_OUT(mf__source_read(&got, s, data + used, room - used));
        used += got;
    } while (got);
    data[used] = '\0';
    *text = data;
    *bytes = used;
    data = NULL;
out:
    free(data);
    return status;
}
