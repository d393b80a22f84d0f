/* host.c: what a script needs of the machine and Lua does not give. */
#include "../moonfold.h"
#include <time.h>
#include <unistd.h>

double mf_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int mf_is_terminal(int file) { return isatty(file); }
