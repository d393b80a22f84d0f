/* file.c: whole files in and out.
 *
 * Reading: plain or gzip, told apart by the magic bytes. A gzip file may have several members. What comes out is
 * bounded, so a bomb costs at most the bound.
 * Writing: temporary in the same folder (rename does not cross file systems), write, fsync, rename, fsync of the
 * folder. Whatever fails, the old file is untouched and the temporary is gone. */
#include "file.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { CHUNK = 1 << 17 };

/* ---- reading ---- */

typedef struct buffer {
    char *text;
    int64_t bytes, capacity, limit;    /* capacity excludes the terminating zero */
} buffer;

/* Room for at least one more byte; MF_EFORMAT at the limit. */
static mf_status grow(buffer *b, const char *path) {
    if (b->bytes < b->capacity) return MF_OK;
    if (b->bytes >= b->limit)
        return mf__fail(MF_EFORMAT, "file.read: '%s': more than the limit of %lld bytes", path, (long long)b->limit);
    int64_t wanted = b->capacity > b->limit / 2 ? b->limit : 2 * b->capacity;
    if (wanted < CHUNK) wanted = CHUNK < b->limit ? CHUNK : b->limit;
    char *text = realloc(b->text, (size_t)wanted + 1);
    if (!text) return mf__fail(MF_ENOMEM, "file.read: '%s': no memory for %lld bytes", path, (long long)wanted);
    b->text = text;
    b->capacity = wanted;
    return MF_OK;
}

static mf_status read_some(int64_t *got, int fd, void *data, int64_t room, const char *path) {
    for (;;) {
        ssize_t n = read(fd, data, (size_t)(room < INT_MAX ? room : INT_MAX));
        if (n >= 0) { *got = n; return MF_OK; }
        if (errno != EINTR) return mf__fail(MF_EIO, "file.read: '%s': %s", path, strerror(errno));
    }
}

static mf_status read_plain(buffer *b, int fd, const char *path) {
    for (;;) {
        int64_t got = 0;
        char extra;
        if (b->bytes == b->limit) {    /* full: only the end of the file may follow */
            MF_TRY(read_some(&got, fd, &extra, 1, path));
            return got ? mf__fail(MF_EFORMAT, "file.read: '%s': more than the limit of %lld bytes", path, (long long)b->limit) : MF_OK;
        }
        MF_TRY(grow(b, path));
        MF_TRY(read_some(&got, fd, b->text + b->bytes, b->capacity - b->bytes, path));
        if (got == 0) return MF_OK;
        b->bytes += got;
    }
}

/* Inflates what was read so far (`input`, `have` bytes) and the rest of the file. */
static mf_status read_gzip(buffer *b, int fd, unsigned char *input, int64_t have, const char *path) {
    z_stream z;
    memset(&z, 0, sizeof z);
    if (inflateInit2(&z, 15 + 16) != Z_OK) return mf__fail(MF_ENOMEM, "file.read: '%s': no memory to inflate", path);
    z.next_in = input;
    z.avail_in = (uInt)have;
    mf_status status = MF_OK;
    int ended = 0, finished = 0;    /* a member has ended; the file has ended */
    for (;;) {
        if (z.avail_in == 0 && !finished) {
            int64_t got = 0;
            MF_TRY_OUT(read_some(&got, fd, input, CHUNK, path));
            z.next_in = input;
            z.avail_in = (uInt)got;
            finished = got == 0;
        }
        if (ended) {
            while (z.avail_in && *z.next_in == 0) z.next_in++, z.avail_in--;    /* tape padding */
            if (z.avail_in == 0 && finished) break;
            if (z.avail_in == 0) continue;
            if (*z.next_in != 0x1f) {
                status = mf__fail(MF_EFORMAT, "file.read: '%s': bytes after the gzip stream that are no gzip", path);
                goto out;
            }
            if (inflateReset(&z) != Z_OK) { status = mf__fail(MF_EFORMAT, "file.read: '%s': gzip: cannot go on", path); goto out; }
            ended = 0;
        }
        if (z.avail_in == 0 && finished) {
            status = mf__fail(MF_EFORMAT, "file.read: '%s': the gzip stream is truncated", path);
            goto out;
        }
        unsigned char probe;    /* at the limit, one byte of room tells the end of the stream from more text */
        int full = b->bytes >= b->limit;
        if (!full) MF_TRY_OUT(grow(b, path));
        int64_t room = full ? 1 : b->capacity - b->bytes;
        if (room > CHUNK * 8) room = CHUNK * 8;
        z.next_out = full ? &probe : (unsigned char *)b->text + b->bytes;
        z.avail_out = (uInt)room;
        int code = inflate(&z, Z_NO_FLUSH);
        int64_t made = room - z.avail_out;
        if (full && made) {
            status = mf__fail(MF_EFORMAT, "file.read: '%s': inflates to more than the limit of %lld bytes", path, (long long)b->limit);
            goto out;
        }
        if (!full) b->bytes += made;
        if (code == Z_STREAM_END) ended = 1;
        else if (code == Z_MEM_ERROR) { status = mf__fail(MF_ENOMEM, "file.read: '%s': no memory to inflate", path); goto out; }
        else if (code != Z_OK && code != Z_BUF_ERROR) {
            status = mf__fail(MF_EFORMAT, "file.read: '%s': corrupt gzip stream (%s)", path, z.msg ? z.msg : "bad data");
            goto out;
        }
    }
out:
    inflateEnd(&z);
    return status;
}

mf_status mf_file_read(char **text, int64_t *bytes, const char *path, int64_t max_bytes) {
    *text = NULL;
    *bytes = 0;
    if (!path) return mf__fail(MF_EVALUE, "file.read: no path");
    if (max_bytes < 0) return mf__fail(MF_EVALUE, "file.read: max_bytes %lld is negative", (long long)max_bytes);
    buffer b = {.limit = max_bytes ? max_bytes : (int64_t)1 << 30};
    unsigned char *head = NULL;
    mf_status status = MF_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return mf__fail(MF_EIO, "file.read: '%s': %s", path, strerror(errno));
    struct stat info;
    if (fstat(fd, &info) != 0) { status = mf__fail(MF_EIO, "file.read: '%s': %s", path, strerror(errno)); goto out; }
    if (S_ISDIR(info.st_mode)) { status = mf__fail(MF_EIO, "file.read: '%s': %s", path, strerror(EISDIR)); goto out; }

    head = malloc(CHUNK);
    if (!head) { status = mf__fail(MF_ENOMEM, "file.read: '%s': no memory", path); goto out; }
    int64_t have = 0, got = 0;
    do {    /* a pipe may give a single byte at first */
        MF_TRY_OUT(read_some(&got, fd, head + have, CHUNK - have, path));
        have += got;
    } while (got && have < 2);

    /* One allocation of the right size when the size is known: twice the text would be the peak otherwise. */
    int gzip = have >= 2 && head[0] == 0x1f && head[1] == 0x8b;
    int64_t expected = gzip ? 4 * (int64_t)info.st_size : (int64_t)info.st_size;
    if (!gzip && expected > b.limit) {
        status = mf__fail(MF_EFORMAT, "file.read: '%s': %lld bytes, more than the limit of %lld bytes", path, (long long)expected, (long long)b.limit);
        goto out;
    }
    if (expected < have) expected = have;
    b.capacity = expected < b.limit ? expected : b.limit;
    b.text = malloc((size_t)b.capacity + 1);
    if (!b.text) { status = mf__fail(MF_ENOMEM, "file.read: '%s': no memory for %lld bytes", path, (long long)b.capacity); goto out; }
    if (gzip) {
        MF_TRY_OUT(read_gzip(&b, fd, head, have, path));
    } else {
        if (have > b.limit) { status = mf__fail(MF_EFORMAT, "file.read: '%s': more than the limit of %lld bytes", path, (long long)b.limit); goto out; }
        memcpy(b.text, head, (size_t)have);
        b.bytes = have;
        MF_TRY_OUT(read_plain(&b, fd, path));
    }
    b.text[b.bytes] = '\0';
    *text = b.text;
    *bytes = b.bytes;
    b.text = NULL;
out:
    free(b.text);
    free(head);
    close(fd);
    return status;
}

void mf_file_free(char *text) { free(text); }

/* ---- writing ---- */

struct mf__writer {
    char *path;           /* where it will be: links resolved */
    char *temporary;      /* NULL: `fd` is the target itself */
    int fd;
    mf_status status;     /* the first failure */
    int deflating;
    z_stream z;
    int64_t used;
    char pending[CHUNK];
    unsigned char packed[CHUNK];
};

static mf_status broken(mf__writer *w, int error) {
    w->status = mf__fail(MF_EIO, "file.write: '%s': %s", w->path, strerror(error));
    return w->status;
}

static mf_status write_all(mf__writer *w, const void *data, int64_t bytes) {
    const char *p = data;
    while (bytes > 0) {
        ssize_t n = write(w->fd, p, (size_t)(bytes < INT_MAX ? bytes : INT_MAX));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return broken(w, n < 0 ? errno : EIO);
        p += n;
        bytes -= n;
    }
    return MF_OK;
}

static mf_status deflate_all(mf__writer *w, const void *data, int64_t bytes, int flush) {
    z_const unsigned char *p = (z_const unsigned char *)(uintptr_t)data;
    do {
        int64_t part = bytes < (1 << 30) ? bytes : 1 << 30;
        w->z.next_in = p;
        w->z.avail_in = (uInt)part;
        do {
            w->z.next_out = w->packed;
            w->z.avail_out = CHUNK;
            deflate(&w->z, flush);    /* cannot fail: the state is ours and there is room */
            MF_TRY(write_all(w, w->packed, CHUNK - (int64_t)w->z.avail_out));
        } while (w->z.avail_out == 0);
        p += part;
        bytes -= part;
    } while (bytes > 0);
    return MF_OK;
}

static mf_status send(mf__writer *w, const void *data, int64_t bytes) {
    return w->deflating ? deflate_all(w, data, bytes, Z_NO_FLUSH) : write_all(w, data, bytes);
}

/* An exclusive file beside the target. Not mkstemp: that makes it private, where the umask should decide. */
static mf_status open_temporary(mf__writer *w, const struct stat *old) {
    static _Thread_local unsigned counter;
    size_t room = strlen(w->path) + 48;
    w->temporary = malloc(room);
    if (!w->temporary) return w->status = mf__fail(MF_ENOMEM, "file.write: '%s': no memory", w->path);
    for (int attempt = 0; attempt < 1000; attempt++) {
        snprintf(w->temporary, room, "%s.%ld-%lx-%u.tmp", w->path, (long)getpid(), (unsigned long)(uintptr_t)w & 0xffffffUL, counter++);
        w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd >= 0) {
            if (old && fchmod(w->fd, old->st_mode & 07777) != 0) return broken(w, errno);
            return MF_OK;
        }
        if (errno != EEXIST) break;
    }
    int error = errno;
    free(w->temporary);
    w->temporary = NULL;
    return broken(w, error);
}

mf_status mf__writer_open(mf__writer **out, const char *path) {
    *out = NULL;
    if (!path || !*path) return mf__fail(MF_EVALUE, "file.write: no path");
    mf__writer *w = malloc(sizeof *w);
    if (!w) return mf__fail(MF_ENOMEM, "file.write: '%s': no memory", path);
    w->temporary = NULL;
    w->fd = -1;
    w->status = MF_OK;
    w->deflating = 0;
    w->used = 0;
    mf_status status = MF_OK;
    struct stat old;
    int exists = stat(path, &old) == 0;
    w->path = exists ? realpath(path, NULL) : strdup(path);
    if (!w->path) { status = mf__fail(MF_ENOMEM, "file.write: '%s': no memory", path); goto out; }
    if (exists && S_ISDIR(old.st_mode)) { status = broken(w, EISDIR); goto out; }
    if (exists && !S_ISREG(old.st_mode)) {
        w->fd = open(w->path, O_WRONLY | O_CLOEXEC);
        if (w->fd < 0) { status = broken(w, errno); goto out; }
    } else {
        MF_TRY_OUT(open_temporary(w, exists ? &old : NULL));
    }
    size_t length = strlen(path);
    if (length > 3 && strcmp(path + length - 3, ".gz") == 0) {
        memset(&w->z, 0, sizeof w->z);
        if (deflateInit2(&w->z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
            status = mf__fail(MF_ENOMEM, "file.write: '%s': no memory to deflate", path);
            goto out;
        }
        w->deflating = 1;
    }
    *out = w;
    w = NULL;
out:
    mf__writer_abandon(w);
    return status;
}

mf_status mf__writer_put(mf__writer *w, const void *data, int64_t bytes) {
    if (w->status != MF_OK) return w->status;
    if (bytes <= CHUNK - w->used) {
        if (bytes > 0) memcpy(w->pending + w->used, data, (size_t)bytes);
        w->used += bytes;
        return MF_OK;
    }
    MF_TRY(send(w, w->pending, w->used));
    w->used = 0;
    if (bytes >= CHUNK) return send(w, data, bytes);
    memcpy(w->pending, data, (size_t)bytes);
    w->used = bytes;
    return MF_OK;
}

mf_status mf__writer_print(mf__writer *w, const char *format, ...) {
    char line[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    mf_assert(n >= 0 && n < (int)sizeof line);
    return mf__writer_put(w, line, n);
}

/* The rename is durable only when the folder is: some file systems refuse to sync one, which is no failure. */
static void sync_folder(const char *path) {
    char *folder = strdup(path);
    if (!folder) return;
    char *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = '\0';
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(folder);
}

mf_status mf__writer_commit(mf__writer *w) {
    mf_status status = w->status;
    if (status != MF_OK) goto out;
    MF_TRY_OUT(send(w, w->pending, w->used));
    if (w->deflating) MF_TRY_OUT(deflate_all(w, NULL, 0, Z_FINISH));
    if (w->temporary && fsync(w->fd) != 0) { status = broken(w, errno); goto out; }
    int closed = close(w->fd);
    w->fd = -1;
    if (closed != 0) { status = broken(w, errno); goto out; }
    if (w->temporary) {
        if (rename(w->temporary, w->path) != 0) { status = broken(w, errno); goto out; }
        free(w->temporary);
        w->temporary = NULL;
        sync_folder(w->path);
    }
out:
    mf__writer_abandon(w);
    return status;
}

void mf__writer_abandon(mf__writer *w) {
    if (!w) return;
    if (w->deflating) deflateEnd(&w->z);
    if (w->fd >= 0) close(w->fd);
    if (w->temporary) {
        unlink(w->temporary);
        free(w->temporary);
    }
    free(w->path);
    free(w);
}

mf_status mf_file_replace(const char *path, const char *text, int64_t bytes) {
    if (bytes < 0 || (bytes > 0 && !text)) return mf__fail(MF_EVALUE, "file.replace: no text of %lld bytes", (long long)bytes);
    mf__writer *w;
    MF_TRY(mf__writer_open(&w, path));
    mf__writer_put(w, text, bytes);    /* commit returns its status */
    return mf__writer_commit(w);
}
