/* gzip_fuzz.c: any bytes as a source: what is gzip is inflated. And any bytes as a text that is compressed into two members and cut.
 *
 *   - read in small pieces, after a look ahead, by skipping and at once: the same bytes, or an error
 *   - what was compressed comes back; cut anywhere it is a prefix and then an error; with a limit of fewer bytes it is refused */
#include "../../core/io/source.h"
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes);

enum { LIMIT = 1 << 20 };

/* All that the source gives until it ends or fails, in pieces of `step` bytes at most, after a look at `head` and passing over `skip`. */
static mf_status drain(char *out, int64_t *count, const unsigned char *data, int64_t bytes, int64_t limit, int64_t step, int64_t head, int64_t skip) {
    mf__source *s;
    const char *at;
    int64_t got = 1, seen = 0;
    *count = 0;
    mf_status status = mf__source_memory(&s, data, bytes, "fuzz", limit);
    if (status != MF_OK) {
        if (s) abort();
        return status;
    }
    if (head) status = mf__source_peek(&at, &seen, s, head);
    if (status == MF_OK && seen > head) abort();
    if (status == MF_OK && skip) {
        status = mf__source_skip(s, skip);
        *count = skip;    /* or fewer: then nothing follows */
    }
    while (status == MF_OK && got > 0) {
        const int64_t room = step < limit + 1 - *count ? step : limit + 1 - *count;
        if (room <= 0) abort();    /* more than the limit */
        status = mf__source_read(&got, s, out + *count, room);
        if (status == MF_OK && (got < 0 || got > room)) abort();
        if (status == MF_OK) *count += got;
    }
    mf__source_close(s);
    return status;
}

static void read_raw(const unsigned char *data, int64_t bytes) {
    static char whole[LIMIT + 1], again[LIMIT + 1];
    int64_t n, m;
    const mf_status status = drain(whole, &n, data, bytes, LIMIT, LIMIT, 0, 0);
    const int64_t steps[] = {1 + bytes % 7, 4096};
    for (int i = 0; i < 2; i++) {
        if (drain(again, &m, data, bytes, LIMIT, steps[i], i * 100, 0) != status) abort();
        if (status == MF_OK && (n != m || memcmp(whole, again, (size_t)n) != 0)) abort();
    }
    if (status != MF_OK) return;
    const int64_t half = n / 2;
    if (drain(again, &m, data, bytes, LIMIT, 4096, 10, half) != MF_OK || m != n || memcmp(whole + half, again + half, (size_t)(n - half)) != 0) abort();
    if (n > 0 && drain(again, &m, data, bytes, n - 1, 4096, 0, 0) == MF_OK) abort();
}

/* One member of gzip; how many bytes it has. */
static int64_t compress_member(unsigned char *out, int64_t room, const unsigned char *data, int64_t bytes, int level) {
    z_stream z;
    memset(&z, 0, sizeof z);
    if (deflateInit2(&z, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) abort();
    z.next_in = (unsigned char *)data;
    z.avail_in = (uInt)bytes;
    z.next_out = out;
    z.avail_out = (uInt)room;
    if (deflate(&z, Z_FINISH) != Z_STREAM_END) abort();
    deflateEnd(&z);
    return room - z.avail_out;
}

static void compress_and_read(const unsigned char *data, int64_t bytes) {
    if (bytes < 4) return;
    const int64_t cut_wish = data[0] | data[1] << 8, part = data[2] % bytes, room = 2 * bytes + 200;
    const int level = data[3] % 10;
    unsigned char *zipped = malloc((size_t)room);
    char *back = malloc((size_t)bytes + 1);
    if (!zipped || !back) abort();
    int64_t n, size = compress_member(zipped, room, data, part, level);
    const int64_t first = size;
    size += compress_member(zipped + size, room - size, data + part, bytes - part, 9 - level);
    if (drain(back, &n, zipped, size, bytes, 1 + cut_wish % 50, part, 0) != MF_OK || n != bytes || memcmp(back, data, (size_t)bytes) != 0) abort();
    if (drain(back, &n, zipped, size, bytes - 1, 4096, 0, 0) == MF_OK) abort();
    const int64_t cut = 2 + cut_wish % (size - 2);
    const mf_status status = drain(back, &n, zipped, cut, bytes, 4096, 0, 0);
    if ((status == MF_OK) != (cut == first) || n > bytes || memcmp(back, data, (size_t)n) != 0) abort();
    free(zipped);
    free(back);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes) {
    read_raw(data, (int64_t)bytes);
    compress_and_read(data, (int64_t)bytes);
    return 0;
}
