/* process.c: child processes: started, written to, read from a line at a time, waited for.
 *
 *     ours    input  ->  pipe  ->  0
 *             output <-  pipe  <-  1    lines wait in a buffer until they are asked for
 *             errors <-  pipe  <-  2    of which the last few thousand bytes are kept
 *
 * All three of our ends are non-blocking: whoever waits for one child keeps its pipes moving, so that neither side waits for
 * the other for ever. A child has a process group of its own, so that Ctrl-C at a terminal reaches the host alone, which decides;
 * and it dies with the thread that started it, so that a killed host leaves no work behind. */
#include "error.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

enum { CHUNK = 65536, MOST_WAITING = 64 << 20, TAIL = 4096 };

struct mf_process {
    char *name;                   /* of the program, for messages */
    pid_t pid;
    int input, output, errors;    /* -1: closed */
    char *text;                   /* of output: [begin, end) has not been taken */
    int64_t begin, end, room;
    int64_t searched;             /* [begin, searched) holds no end of a line */
    char tail[TAIL + 1];
    int64_t tail_bytes;
    int ended, status;            /* status as waitpid gives it */
};

static void shut(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* Both ends past the standard three, whatever of them the host has closed: dup2 in the child then moves them. */
static int open_pipe(int ends[2]) {
    if (pipe2(ends, O_CLOEXEC) != 0) return -1;
    for (int i = 0; i < 2; i++)
        if (ends[i] < 3) {
            int moved = fcntl(ends[i], F_DUPFD_CLOEXEC, 3);
            int error = errno;
            close(ends[i]);
            ends[i] = moved;
            if (moved < 0) {
                shut(&ends[1 - i]);
                errno = error;
                return -1;
            }
        }
    return 0;
}

/* Our environment with `added` ("NAME=value") over it; the texts stay where they are. */
static char **merge_environment(const char *const *added) {
    size_t ours = 0, new = 0;
    while (environ[ours]) ours++;
    while (added && added[new]) new++;
    char **merged = malloc((ours + new + 1) * sizeof *merged);
    if (!merged) return NULL;
    size_t n = 0;
    for (size_t i = 0; i < ours; i++) {
        int replaced = 0;
        for (size_t k = 0; k < new && !replaced; k++) {
            size_t name = strcspn(added[k], "=") + 1;
            replaced = strncmp(environ[i], added[k], name) == 0;
        }
        if (!replaced) merged[n++] = environ[i];
    }
    for (size_t k = 0; k < new; k++) merged[n++] = (char *)(uintptr_t)added[k];
    merged[n] = NULL;
    return merged;
}

/* Between fork and exec only what may follow a fork in a process with threads. */
static _Noreturn void become(char *const *arguments, char **environment, int input, int output, int errors, int report, pid_t parent) {
    setpgid(0, 0);
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
#else
    (void)parent;
#endif
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (dup2(input, 0) == 0 && dup2(output, 1) == 1 && dup2(errors, 2) == 2) execvpe(arguments[0], arguments, environment);
    int error = errno;
    ssize_t told = write(report, &error, sizeof error);
    (void)told;
    _exit(127);
}

static void release(mf_process *p) {
    if (!p) return;
    shut(&p->input);
    shut(&p->output);
    shut(&p->errors);
    free(p->name);
    free(p->text);
    free(p);
}

mf_status mf_process_start(mf_process **out, const char *const *arguments, const char *const *environment) {
    *out = NULL;
    if (!arguments || !arguments[0] || !*arguments[0]) return mf__fail(MF_EVALUE, "process.start: no program");
    for (size_t k = 0; environment && environment[k]; k++)
        if (!strchr(environment[k], '=') || *environment[k] == '=')
            return mf__fail(MF_EVALUE, "process.start: '%s': the environment's '%.80s' is not NAME=value", arguments[0], environment[k]);
    mf_status status = MF_OK;
    int in[2] = {-1, -1}, from[2] = {-1, -1}, errors[2] = {-1, -1}, report[2] = {-1, -1};
    char **merged = NULL;
    mf_process *p = calloc(1, sizeof *p);
    if (!p) return mf__fail(MF_ENOMEM, "process.start: '%s': no memory", arguments[0]);
    p->input = p->output = p->errors = -1;
    p->ended = 1;
    p->name = strdup(arguments[0]);
    merged = merge_environment(environment);
    if (!p->name || !merged) { status = mf__fail(MF_ENOMEM, "process.start: '%s': no memory", arguments[0]); goto out; }
    if (open_pipe(in) || open_pipe(from) || open_pipe(errors) || open_pipe(report)) {
        status = mf__fail(MF_EIO, "process.start: '%s': %s", arguments[0], strerror(errno));
        goto out;
    }
    pid_t parent = getpid();
    p->pid = fork();
    if (p->pid == 0) become((char *const *)(uintptr_t)arguments, merged, in[0], from[1], errors[1], report[1], parent);
    if (p->pid < 0) { status = mf__fail(MF_EIO, "process.start: '%s': %s", arguments[0], strerror(errno)); goto out; }
    p->ended = 0;
    setpgid(p->pid, p->pid);      /* the child does so too: whoever comes first, nobody sees it in our group */
    shut(&report[1]);
    int error = 0;
    ssize_t got;
    while ((got = read(report[0], &error, sizeof error)) < 0 && errno == EINTR) {}
    if (got > 0) {
        while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR) {}
        p->ended = 1;
        status = mf__fail(MF_EIO, "process.start: '%s': %s", arguments[0], strerror(error));
        goto out;
    }
    p->input = in[1];
    p->output = from[0];
    p->errors = errors[0];
    in[1] = from[0] = errors[0] = -1;
    fcntl(p->input, F_SETFL, O_NONBLOCK);
    fcntl(p->output, F_SETFL, O_NONBLOCK);
    fcntl(p->errors, F_SETFL, O_NONBLOCK);
    *out = p;
    p = NULL;
out:
    for (int i = 0; i < 2; i++) {
        shut(&in[i]);
        shut(&from[i]);
        shut(&errors[i]);
        shut(&report[i]);
    }
    free(merged);
    release(p);
    return status;
}

void mf_process_release(mf_process *p) {
    if (!p) return;
    if (!p->ended) {
        kill(-p->pid, SIGKILL);
        kill(p->pid, SIGKILL);
        while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR) {}
    }
    release(p);
}

/* ---- keeping the pipes moving ---- */

static mf_status make_room(mf_process *p) {
    if (p->room - p->end >= CHUNK) return MF_OK;
    if (p->begin > 0) {           /* what was taken goes, the rest moves to the front */
        memmove(p->text, p->text + p->begin, (size_t)(p->end - p->begin));
        p->end -= p->begin;
        p->searched -= p->begin;
        p->begin = 0;
    }
    if (p->room - p->end >= CHUNK) return MF_OK;
    int64_t wanted = 2 * p->room + CHUNK + 1;
    char *grown = realloc(p->text, (size_t)wanted);
    if (!grown) return mf__fail(MF_ENOMEM, "process: '%s': no memory for %lld bytes of output", p->name, (long long)wanted);
    p->text = grown;
    p->room = wanted;
    return MF_OK;
}

static int may_read_output(const mf_process *p) { return p->output >= 0 && p->end - p->begin < MOST_WAITING; }

/* What the output holds now, without waiting. A byte of room stays for the zero behind the last line. */
static mf_status drain_output(mf_process *p) {
    while (may_read_output(p)) {
        MF_TRY(make_room(p));
        ssize_t n = read(p->output, p->text + p->end, (size_t)(p->room - p->end - 1));
        if (n > 0) p->end += n;
        else if (n == 0 || (errno != EAGAIN && errno != EINTR)) shut(&p->output);
        else if (errno == EAGAIN) break;
    }
    return MF_OK;
}

static void drain_errors(mf_process *p) {
    while (p->errors >= 0) {
        char piece[TAIL];
        ssize_t n = read(p->errors, piece, sizeof piece);
        if (n > 0) {
            int64_t keep = p->tail_bytes < TAIL - n ? p->tail_bytes : TAIL - n;
            memmove(p->tail, p->tail + p->tail_bytes - keep, (size_t)keep);
            memcpy(p->tail + keep, piece, (size_t)n);
            p->tail_bytes = keep + n;
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            shut(&p->errors);
        } else if (errno == EAGAIN) {
            break;
        }
    }
}

/* Waits until a pipe of one of the children moves, `seconds` at the most (negative: as long as it takes); with `writing` also
 * until the first child takes input. Signals end the wait early. */
static mf_status turn(mf_process *const *list, int64_t count, int writing, double seconds) {
    struct pollfd small[32], *fds = small;
    if (3 * count > 32) {
        fds = malloc((size_t)(3 * count) * sizeof *fds);
        if (!fds) return mf__fail(MF_ENOMEM, "process: no memory to wait for %lld children", (long long)count);
    }
    nfds_t n = 0;
    for (int64_t i = 0; i < count; i++) {
        if (may_read_output(list[i])) fds[n++] = (struct pollfd){.fd = list[i]->output, .events = POLLIN};
        if (list[i]->errors >= 0) fds[n++] = (struct pollfd){.fd = list[i]->errors, .events = POLLIN};
        if (writing && i == 0) fds[n++] = (struct pollfd){.fd = list[i]->input, .events = POLLOUT};
    }
    mf_status status = MF_OK;
    int wait = seconds < 0 ? -1 : seconds > 1e6 ? 1000000000 : (int)ceil(seconds * 1000);
    if (poll(fds, n, wait) < 0 && errno != EINTR) status = mf__fail(MF_EIO, "process: waiting: %s", strerror(errno));
    if (fds != small) free(fds);
    for (int64_t i = 0; i < count && status == MF_OK; i++) {
        drain_errors(list[i]);
        status = drain_output(list[i]);
    }
    return status;
}

/* ---- input ---- */

/* write() to a pipe that nobody reads raises SIGPIPE, and a library installs no handler: it is blocked for the moment and, where
 * it came from us, taken back. */
static ssize_t write_quietly(int fd, const char *data, size_t bytes) {
    sigset_t pipe_only, before, waiting;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&waiting);
    int was_waiting = sigismember(&waiting, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    ssize_t n = write(fd, data, bytes);
    int error = errno;
    if (n < 0 && error == EPIPE && !was_waiting) {
        const struct timespec now = {0, 0};
        while (sigtimedwait(&pipe_only, NULL, &now) < 0 && errno == EINTR) {}
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return n;
}

mf_status mf_process_write(mf_process *p, const void *data, int64_t bytes) {
    if (bytes < 0 || (bytes > 0 && !data)) return mf__fail(MF_EVALUE, "process.write: no data of %lld bytes", (long long)bytes);
    if (p->input < 0) return mf__fail(MF_ESTATE, "process.write: the input of '%s' is closed", p->name);
    const char *at = data;
    while (bytes > 0) {
        ssize_t n = write_quietly(p->input, at, (size_t)bytes);
        if (n > 0) {
            at += n;
            bytes -= n;
        } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
            mf_status status = mf__fail(MF_EIO, "process.write: '%s': %s", p->name, strerror(errno));
            shut(&p->input);
            return status;
        } else {
            MF_TRY(turn(&p, 1, 1, -1));
        }
    }
    return MF_OK;
}

void mf_process_close_input(mf_process *p) { shut(&p->input); }

/* ---- output ---- */

/* The end of the first whole line, or of all when no more comes; -1: there is none yet. */
static int64_t line_end(mf_process *p) {
    if (p->end > p->searched) {
        char *found = memchr(p->text + p->searched, '\n', (size_t)(p->end - p->searched));
        if (found) return found - p->text;
        p->searched = p->end;
    }
    return p->output < 0 && p->end > p->begin ? p->end : -1;
}

mf_status mf_process_line(const char **line, int64_t *bytes, mf_process *p) {
    *line = NULL;
    *bytes = 0;
    int64_t end = line_end(p);
    if (end < 0) {
        MF_TRY(drain_output(p));
        end = line_end(p);
    }
    if (end < 0) {
        if (p->end - p->begin >= MOST_WAITING)
            return mf__fail(MF_EFORMAT, "process.line: '%s' wrote %lld bytes without an end of line", p->name, (long long)(p->end - p->begin));
        return MF_OK;
    }
    p->text[end] = '\0';
    *line = p->text + p->begin;
    *bytes = end - p->begin;
    p->begin = end < p->end ? end + 1 : end;
    p->searched = p->begin;
    return MF_OK;
}

int mf_process_ended(mf_process *p) { return p->output < 0 && p->begin == p->end; }

static int64_t first_ready(mf_process *const *list, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (line_end(list[i]) >= 0 || list[i]->output < 0 || !may_read_output(list[i])) return i;
    return -1;
}

mf_status mf_process_poll(int64_t *ready, mf_process *const *list, int64_t count, double seconds) {
    *ready = -1;
    if (count < 0 || (count > 0 && !list)) return mf__fail(MF_EVALUE, "process.poll: no list of %lld processes", (long long)count);
    if (!(seconds >= 0)) return mf__fail(MF_EVALUE, "process.poll: %g seconds, expected 0 or more", seconds);
    const double until = mf_clock() + seconds;
    *ready = first_ready(list, count);
    while (*ready < 0) {
        double left = until - mf_clock();
        MF_TRY(turn(list, count, 0, left > 0 ? left : 0));
        *ready = first_ready(list, count);
        if (left <= 0) break;
    }
    return MF_OK;
}

int64_t mf_process_errors(char *text, int64_t bytes, mf_process *p) {
    drain_errors(p);
    if (bytes > 0) {
        int64_t keep = p->tail_bytes < bytes - 1 ? p->tail_bytes : bytes - 1;
        memcpy(text, p->tail + p->tail_bytes - keep, (size_t)keep);
        text[keep] = '\0';
    }
    return p->tail_bytes;
}

/* ---- the end ---- */

void mf_process_kill(mf_process *p, int signal_number) {
    if (!p->ended) kill(p->pid, signal_number);
}

mf_status mf_process_wait(int *code, int *signal_number, mf_process *p) {
    *code = *signal_number = 0;
    shut(&p->input);
    while (!p->ended) {
        pid_t got = waitpid(p->pid, &p->status, WNOHANG);
        if (got == p->pid) {
            p->ended = 1;
        } else if (got < 0 && errno != EINTR) {
            return mf__fail(MF_EIO, "process.wait: '%s': %s", p->name, strerror(errno));
        } else if (p->output < 0 && p->errors < 0) {
            while ((got = waitpid(p->pid, &p->status, 0)) < 0 && errno == EINTR) {}
            if (got < 0) return mf__fail(MF_EIO, "process.wait: '%s': %s", p->name, strerror(errno));
            p->ended = 1;
        } else {
            MF_TRY(turn(&p, 1, 0, 0.02));    /* a grandchild may hold the pipes open, so their end alone tells nothing */
        }
    }
    drain_errors(p);
    MF_TRY(drain_output(p));
    if (WIFSIGNALED(p->status)) *signal_number = WTERMSIG(p->status);
    else *code = WEXITSTATUS(p->status);
    return MF_OK;
}
