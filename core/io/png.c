/* png.c: pixels as a PNG file: 8 bits a channel, grey or RGB, no filter, one deflated block of rows. */
#include "file.h"
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static void big_endian(unsigned char *to, uint32_t x) {
    for (int k = 0; k < 4; k++) to[k] = (unsigned char)(x >> (24 - 8 * k));
}

static void put_chunk(mf__writer *w, const char *type, const unsigned char *data, uint32_t bytes) {
    unsigned char head[8], tail[4];
    big_endian(head, bytes);
    memcpy(head + 4, type, 4);
    uLong sum = crc32(crc32(0, NULL, 0), head + 4, 4);
    if (bytes) sum = crc32(sum, data, bytes);
    big_endian(tail, (uint32_t)sum);
    mf__writer_put(w, head, 8);
    mf__writer_put(w, data, bytes);
    mf__writer_put(w, tail, 4);
}

mf_status mf_image_png(const char *path, const unsigned char *pixels, int64_t width, int64_t height, int channels) {
    if (width < 1 || height < 1 || width > 32767 || height > 32767)
        return mf__fail(MF_EVALUE, "image: %lld x %lld pixels, expected 1 to 32767 each way", (long long)width, (long long)height);
    if (channels != 1 && channels != 3) return mf__fail(MF_EVALUE, "image: %d channels, expected 1 (grey) or 3 (RGB)", channels);
    size_t row = (size_t)(width * channels), raw = (row + 1) * (size_t)height;
    uLongf packed = compressBound((uLong)raw);
    unsigned char *rows = malloc(raw), *data = malloc(packed), header[13];
    mf__writer *w = NULL;
    mf_status status = MF_OK;
    if (!rows || !data) { status = mf__fail(MF_ENOMEM, "image: no memory for %lld x %lld pixels", (long long)width, (long long)height); goto out; }
    for (int64_t y = 0; y < height; y++) {
        rows[(size_t)y * (row + 1)] = 0;
        memcpy(rows + (size_t)y * (row + 1) + 1, pixels + (size_t)y * row, row);
    }
    if (compress2(data, &packed, rows, (uLong)raw, 6) != Z_OK || packed > UINT32_MAX / 2) { status = mf__fail(MF_ENOMEM, "image: no memory to deflate %lld bytes", (long long)raw); goto out; }
    MF_TRY_OUT(mf__writer_open(&w, path));
    mf__writer_put(w, "\x89PNG\r\n\x1a\n", 8);
    big_endian(header, (uint32_t)width);
    big_endian(header + 4, (uint32_t)height);
    memcpy(header + 8, (unsigned char[]){8, channels == 3 ? 2 : 0, 0, 0, 0}, 5);
    put_chunk(w, "IHDR", header, 13);
    put_chunk(w, "IDAT", data, (uint32_t)packed);
    put_chunk(w, "IEND", header, 0);
    status = mf__writer_commit(w);
out:
    free(rows);
    free(data);
    return status;
}
