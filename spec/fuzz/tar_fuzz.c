/* tar_fuzz.c: any bytes as a tar archive, gzip or not: every member is walked, every second one read. */
#include "../../core/moonfold.h"
#include "memory_file.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes) {
    char path[64];
    int file = memory_file(path, data, bytes);
    mf_tar *tar;
    mf_tar_member m;
    if (mf_tar_open(&tar, path) == MF_OK) {
        for (int k = 0; mf_tar_next(&m, tar) == MF_OK && m.name; k++) {
            char *content;
            int64_t n;
            if (m.bytes < 0) abort();
            if (k % 2 == 0 && mf_tar_read(&content, &n, tar, 1 << 20) == MF_OK) {
                if (n != m.bytes) abort();
                mf_file_free(content);
            }
        }
        mf_tar_close(tar);
    }
    close(file);
    return 0;
}
