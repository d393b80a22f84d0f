/* error.c: the text of the last failure. The only global of the library, one per thread. */
#include "error.h"
#include "version.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local char error_text[1024];

mf_status mf__fail(mf_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(error_text, sizeof error_text, format, args);
    va_end(args);
    return status;
}

void mf__assert_failed(const char *condition, const char *file, int line) {
    fprintf(stderr, "moonfold: broken invariant: %s (%s:%d)\n", condition, file, line);
    abort();
}

const char *mf_error_text(void) { return error_text; }

const char *mf_version(void) { return MF_VERSION; }

const char *mf_status_name(mf_status status) {
    static const char *const names[] = {"ok", "shape", "dtype", "device", "value", "memory", "io", "format", "support", "state"};
    int i = -status;
    return i >= 0 && i < (int)(sizeof names / sizeof *names) ? names[i] : "unknown";
}
