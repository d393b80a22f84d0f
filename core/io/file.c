/* file.c: whole files in and out.
 *
 * Reading: what source.c gives, in one piece. What comes out is bounded, so a bomb costs at most the bound.
 * Writing: temporary in the same folder (rename does not cross file systems), write, fsync, rename, fsync of the
 * folder. Whatever fails, the old file is untouched and the temporary is gone. */
#include "file.h"
#include "source.h"
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

mf_status mf_file_read(char **text, int64_t *bytes, const char *path, int64_t max_bytes) {
    *text = NULL;
    *bytes = 0;
    if (max_bytes < 0) return mf__fail(MF_EVALUE, "file.read: max_bytes %lld is negative", (long long)max_bytes);
    mf__source *s;
    MF_TRY(mf__source_open(&s, path, 0, -1, max_bytes ? max_bytes : (int64_t)1 << 30));
    mf_status status = mf__source_whole(text, bytes, s);
    mf__source_close(s);
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

mf_status mf__writer_place(mf__writer *w, int64_t offset, const void *data, int64_t bytes) {
    if (w->status != MF_OK) return w->status;
    if (w->deflating) return w->status = mf__fail(MF_EVALUE, "file.write: '%s': pieces in any order cannot be compressed; choose a name without .gz", w->path);
    MF_TRY(send(w, w->pending, w->used));
    w->used = 0;
    const char *p = data;
    while (bytes > 0) {
        ssize_t n = pwrite(w->fd, p, (size_t)(bytes < INT_MAX ? bytes : INT_MAX), offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return broken(w, n < 0 ? errno : EIO);
        p += n;
        offset += n;
        bytes -= n;
    }
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

mf_status mf_file_move(const char *from, const char *to) {
    if (!from || !to) return mf__fail(MF_EVALUE, "file.move: no path");
    mf_status status = MF_OK;
    char *target = NULL;
    struct stat old;
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0) { status = mf__fail(MF_EIO, "file.move: '%s': %s", from, strerror(errno)); goto out; }
    int exists = stat(to, &old) == 0;
    target = exists ? realpath(to, NULL) : strdup(to);
    if (!target) { status = mf__fail(MF_ENOMEM, "file.move: '%s': no memory", to); goto out; }
    if (fsync(fd) != 0 || (exists && S_ISREG(old.st_mode) && fchmod(fd, old.st_mode & 07777) != 0)) {
        status = mf__fail(MF_EIO, "file.move: '%s': %s", from, strerror(errno));
        goto out;
    }
    if (rename(from, target) != 0) { status = mf__fail(MF_EIO, "file.move: '%s' to '%s': %s", from, to, strerror(errno)); goto out; }
    sync_folder(target);
out:
    free(target);
    if (fd >= 0) close(fd);
    return status;
}

mf_status mf_file_inflate(const char *from, const char *to) {
    if (!from) return mf__fail(MF_EVALUE, "file.inflate: no path");
    mf_status status = MF_OK;
    mf__source *s = NULL;
    mf__writer *w = NULL;
    int64_t got = 0;
    char *chunk = malloc(CHUNK);
    if (!chunk) return mf__fail(MF_ENOMEM, "file.inflate: '%s': no memory", from);
    MF_TRY_OUT(mf__source_open(&s, from, 0, -1, INT64_MAX));
    MF_TRY_OUT(mf__writer_open(&w, to));
    do {
        MF_TRY_OUT(mf__source_read(&got, s, chunk, CHUNK));
        MF_TRY_OUT(mf__writer_put(w, chunk, got));
    } while (got > 0);
    status = mf__writer_commit(w);
    w = NULL;
out:
    mf__writer_abandon(w);
    mf__source_close(s);
    free(chunk);
    return status;
}
