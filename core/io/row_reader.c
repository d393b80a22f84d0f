/* row_reader.c: rows of an archive's tensors, run after run end to end, read ahead by threads.
 *
 *     submit ->  job 4 | job 3 | job 2 | job 1  -> next        first in, first out
 *
 * A job's work is one piece for each tensor. Threads claim pieces of the oldest job that has one; `next` claims pieces of
 * its own job too, and sleeps only while others finish theirs, so no thread at all is the same program without the lead.
 *
 * Tensors are made by submit, on the caller's thread, since a context belongs to one; threads see bare addresses, their own
 * job and the file. What a piece holds depends on its runs alone. `lock` guards the list of jobs and what a job says of
 * its progress; the rest of a job is written before it is listed and read only after. */
#include "safetensors.h"
#include "../base/memory.h"
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_THREADS = 64 };

typedef struct job {
    struct job *next;             /* submitted later */
    int64_t runs;
    int64_t *first, *count;
    mf_tensor **tensors;          /* ours until `next` hands them over */
    char **data;                  /* where each tensor's rows go */
    int64_t claimed, finished;    /* pieces */
    int64_t failed;               /* the lowest piece that failed, so that the message does not depend on who was first */
    mf_status status;
    char message[1024];
} job;

struct mf_row_reader {
    mf_archive *archive;
    mf_ctx *ctx;
    int64_t n;
    mf__row_source *sources;
    pthread_mutex_t lock;
    pthread_cond_t work, done;    /* a piece may be claimed, or it is time to stop; a piece was finished */
    job *oldest, *latest;
    int64_t pending;
    int stop;
    int threads;
    pthread_t *thread;
};

static mf_status read_rows(const mf__row_source *s, char *to, int64_t first, int64_t count) {
    int64_t at = s->begin + first * s->row_bytes, left = count * s->row_bytes;
    while (left > 0) {
        ssize_t got = pread(s->file, to, (size_t)(left < INT_MAX ? left : INT_MAX), at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return mf__fail(MF_EIO, "rows: '%s': tensor '%.200s': %s", s->path, s->name, strerror(errno));
        if (got == 0) return mf__fail(MF_EIO, "rows: '%s': tensor '%.200s' ends too early: the file has changed since it was opened", s->path, s->name);
        to += got;
        at += got;
        left -= got;
    }
    return MF_OK;
}

static mf_status fill(const mf__row_source *s, const job *j, char *to) {
    for (int64_t k = 0; k < j->runs; k++) {
        const int64_t bytes = j->count[k] * s->row_bytes;
        /* one entry many times over is read once */
        if (k > 0 && j->first[k] == j->first[k - 1] && j->count[k] == j->count[k - 1]) {
            if (bytes > 0) memcpy(to, to - bytes, (size_t)bytes);
        } else {
            MF_TRY(read_rows(s, to, j->first[k], j->count[k]));
            if (s->dtype == MF_BOOL) MF_TRY(mf__archive_bools("rows", s->path, s->name, to, bytes));
        }
        to += bytes;
    }
    return MF_OK;
}

/* Does the piece that was claimed, with the lock given up meanwhile. */
static void work_on(mf_row_reader *r, job *j, int64_t piece) {
    pthread_mutex_unlock(&r->lock);
    const mf_status status = fill(&r->sources[piece], j, j->data[piece]);
    pthread_mutex_lock(&r->lock);
    if (status != MF_OK && piece < j->failed) {
        j->failed = piece;
        j->status = status;
        strncpy(j->message, mf_error_text(), sizeof j->message - 1);
    }
    j->finished++;
    pthread_cond_signal(&r->done);
}

static void *run(void *argument) {
    mf_row_reader *r = argument;
    pthread_mutex_lock(&r->lock);
    while (!r->stop) {
        job *j = r->oldest;
        while (j && j->claimed == r->n) j = j->next;
        if (j) work_on(r, j, j->claimed++);
        else pthread_cond_wait(&r->work, &r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static void free_job(const mf_row_reader *r, job *j) {
    if (!j) return;
    for (int64_t i = 0; j->tensors && i < r->n; i++) mf_tensor_release(j->tensors[i]);
    free(j->tensors);
    free(j->data);
    free(j->first);
    free(j->count);
    free(j);
}

/* Signals stay with the thread that knows what to do with them. */
static mf_status start_threads(mf_row_reader *r, int threads) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int problem = 0;
    for (; r->threads < threads; r->threads++) {
        problem = mf__may_allocate(r->ctx) ? pthread_create(&r->thread[r->threads], NULL, run, r) : ENOMEM;
        if (problem) break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (problem) return mf__fail(MF_ENOMEM, "row_reader.open: out of memory for thread %d of %d (%s)", r->threads + 1, threads, strerror(problem));
    return MF_OK;
}

mf_status mf_row_reader_open(mf_row_reader **out, mf_archive *archive, mf_ctx *ctx, const int64_t *tensors, int64_t n, int threads) {
    *out = NULL;
    if (n < 1) return mf__fail(MF_EVALUE, "row_reader.open: %lld tensors, expected at least 1", (long long)n);
    if (threads < 0 || threads > MOST_THREADS) return mf__fail(MF_EVALUE, "row_reader.open: %d threads, expected 0 to %d", threads, MOST_THREADS);
    mf_row_reader *r = mf__host_alloc(ctx, sizeof *r);
    if (!r) return MF_ENOMEM;
    memset(r, 0, sizeof *r);
    r->n = n;
    r->archive = mf__archive_retain(archive);
    r->ctx = mf__ctx_retain(ctx);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->work, NULL);
    pthread_cond_init(&r->done, NULL);
    mf_status status = MF_ENOMEM;
    r->sources = mf__host_alloc(ctx, (size_t)n * sizeof *r->sources);
    if (!r->sources) goto out;
    r->thread = mf__host_alloc(ctx, (size_t)threads * sizeof *r->thread);
    if (!r->thread) goto out;
    for (int64_t i = 0; i < n; i++) MF_TRY_OUT(mf__archive_row_source(&r->sources[i], "row_reader.open", archive, tensors[i]));
    MF_TRY_OUT(start_threads(r, threads));
    *out = r;
    r = NULL;
out:
    mf_row_reader_close(r);
    return status;
}

void mf_row_reader_close(mf_row_reader *r) {
    if (!r) return;
    pthread_mutex_lock(&r->lock);
    r->stop = 1;
    pthread_cond_broadcast(&r->work);
    pthread_mutex_unlock(&r->lock);
    for (int i = 0; i < r->threads; i++) pthread_join(r->thread[i], NULL);
    while (r->oldest) {
        job *j = r->oldest;
        r->oldest = j->next;
        free_job(r, j);
    }
    pthread_cond_destroy(&r->work);
    pthread_cond_destroy(&r->done);
    pthread_mutex_destroy(&r->lock);
    free(r->thread);
    free(r->sources);
    mf_archive_close(r->archive);
    mf_ctx_release(r->ctx);
    free(r);
}

static mf_status check_runs(const mf_row_reader *r, const int64_t *first, const int64_t *count, int64_t runs, int64_t *total) {
    if (runs < 0 || (runs > 0 && (!first || !count))) return mf__fail(MF_EVALUE, "row_reader.submit: no list of %lld runs", (long long)runs);
    for (int64_t k = 0; k < runs; k++) {
        for (int64_t i = 0; i < r->n; i++) {
            const mf__row_source *s = &r->sources[i];
            const int64_t rows = s->shape[0];
            if (first[k] < 0 || count[k] < 0 || first[k] > rows || count[k] > rows - first[k])
                return mf__fail(MF_EVALUE, "row_reader.submit: '%s': tensor '%.200s' has %lld rows, %lld from row %lld do not fit", s->path,
                                s->name, (long long)rows, (long long)count[k], (long long)first[k] + 1);
        }
        if (__builtin_add_overflow(*total, count[k], total)) return mf__fail(MF_EVALUE, "row_reader.submit: more rows than can be counted");
    }
    return MF_OK;
}

mf_status mf_row_reader_submit(mf_row_reader *r, const int64_t *first, const int64_t *count, int64_t runs) {
    int64_t total = 0;
    MF_TRY(check_runs(r, first, count, runs, &total));
    job *j = mf__host_alloc(r->ctx, sizeof *j);
    if (!j) return MF_ENOMEM;
    memset(j, 0, sizeof *j);
    j->runs = runs;
    j->failed = r->n;
    mf_status status = MF_ENOMEM;
    const size_t list = (size_t)runs * sizeof *first;
    if (!(j->first = mf__host_alloc(r->ctx, list)) || !(j->count = mf__host_alloc(r->ctx, list))) goto out;
    if (!(j->data = mf__host_alloc(r->ctx, (size_t)r->n * sizeof *j->data))) goto out;
    mf_tensor **tensors = mf__host_alloc(r->ctx, (size_t)r->n * sizeof *tensors);
    if (!tensors) goto out;
    memset(tensors, 0, (size_t)r->n * sizeof *tensors);
    j->tensors = tensors;
    if (runs > 0) {
        memcpy(j->first, first, list);
        memcpy(j->count, count, list);
    }
    for (int64_t i = 0; i < r->n; i++) {
        int64_t shape[MF_MAX_DIMS];
        memcpy(shape, r->sources[i].shape, sizeof shape);
        shape[0] = total;
        MF_TRY_OUT(mf_tensor_empty(&tensors[i], r->ctx, MF_CPU, r->sources[i].dtype, r->sources[i].ndim, shape));
        j->data[i] = mf__data(tensors[i]);
    }
    pthread_mutex_lock(&r->lock);
    if (r->latest) r->latest->next = j;
    else r->oldest = j;
    r->latest = j;
    r->pending++;
    pthread_cond_broadcast(&r->work);
    pthread_mutex_unlock(&r->lock);
    return MF_OK;
out:
    free_job(r, j);
    return status;
}

mf_status mf_row_reader_next(mf_tensor **out, mf_row_reader *r) {
    for (int64_t i = 0; i < r->n; i++) out[i] = NULL;
    pthread_mutex_lock(&r->lock);
    job *j = r->oldest;
    if (!j) {
        pthread_mutex_unlock(&r->lock);
        return mf__fail(MF_ESTATE, "row_reader.next: nothing was submitted");
    }
    while (j->claimed < r->n) work_on(r, j, j->claimed++);
    while (j->finished < r->n) pthread_cond_wait(&r->done, &r->lock);
    r->oldest = j->next;
    if (!r->oldest) r->latest = NULL;
    r->pending--;
    pthread_mutex_unlock(&r->lock);
    if (j->status != MF_OK) mf__fail(j->status, "%s", j->message);
    for (int64_t i = 0; i < r->n && j->status == MF_OK; i++) {
        out[i] = j->tensors[i];
        j->tensors[i] = NULL;
    }
    const mf_status status = j->status;
    free_job(r, j);
    return status;
}

int64_t mf_row_reader_pending(const mf_row_reader *r) { return r->pending; }
