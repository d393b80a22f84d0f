/* memory_file.h: bytes under a path, for what reads files: no disk is touched. */
#ifndef MF_FUZZ_MEMORY_FILE_H
#define MF_FUZZ_MEMORY_FILE_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Close the descriptor and the file is gone. */
static int memory_file(char path[64], const unsigned char *data, size_t bytes) {
    int file = memfd_create("fuzz", MFD_CLOEXEC);
    if (file < 0) abort();
    for (size_t done = 0; done < bytes;) {
        ssize_t n = write(file, data + done, bytes - done);
        if (n <= 0) abort();
        done += (size_t)n;
    }
    snprintf(path, 64, "/proc/self/fd/%d", file);
    return file;
}
#endif
