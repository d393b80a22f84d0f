/* json_fuzz.c: any bytes as the JSON of a safetensors header: token after token, and as the header of a file that says how long it is. */
#include "../../core/io/json.h"
#include "../../core/moonfold.h"
#include "memory_file.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes);

/* Whatever token comes is taken, in any order. A string is UTF-8, ends where it says, and lies in what has been read. */
static void take_tokens(const unsigned char *data, size_t bytes) {
    char *text = malloc(bytes + !bytes), *string;    /* no byte more: reading past the end is seen */
    if (!text) abort();
    memcpy(text, data, bytes);
    mf__json j = {text, text, text + bytes, "fuzz"};
    mf_status status = MF_OK;
    while (status == MF_OK && j.at < j.end) {
        const char *before = j.at;
        int64_t size = 0;
        if (mf__json_accept(&j, '{') || mf__json_accept(&j, '}') || mf__json_accept(&j, '[') || mf__json_accept(&j, ']') || mf__json_accept(&j, ',') || mf__json_accept(&j, ':')) continue;
        if (j.at < j.end && *j.at == '"') {
            status = mf__json_string(&j, &string);
            const int64_t n = status == MF_OK ? (int64_t)strlen(string) : 0;
            if (status == MF_OK && (string < text || string + n >= j.at || !mf__utf8_valid(string, n))) abort();
        } else {
            status = mf__json_size(&j, &size);
            if (status == MF_OK && size < 0) abort();
        }
        if (status == MF_OK && j.at <= before) abort();
    }
    free(text);
}

static void open_header(const unsigned char *data, size_t bytes) {
    enum { DATA = 64 };
    char path[64];
    mf_archive *a;
    unsigned char *whole = calloc(8 + bytes + DATA, 1);
    if (!whole) abort();
    const uint64_t length = bytes;
    memcpy(whole, &length, 8);
    memcpy(whole + 8, data, bytes);
    const int file = memory_file(path, whole, 8 + bytes + DATA);
    if (mf_archive_open(&a, path) == MF_OK) {
        for (int64_t i = 0; i < mf_archive_count(a); i++) {
            int dtype, ndim;
            int64_t shape[MF_MAX_DIMS], size;
            if (mf_archive_info(a, i, &dtype, &ndim, shape, &size) != MF_OK || size < 0 || size > DATA) abort();
            if (!mf__utf8_valid(mf_archive_name(a, i), (int64_t)strlen(mf_archive_name(a, i)))) abort();
        }
        mf_archive_close(a);
    } else if (a) {
        abort();
    }
    close(file);
    free(whole);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes) {
    take_tokens(data, bytes);
    open_header(data, bytes);
    return 0;
}
