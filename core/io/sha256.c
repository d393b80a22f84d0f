/* sha256.c: SHA-256 (FIPS 180-4) of bytes in memory and of a part of a file. */
#include "../base/error.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 64, CHUNK = 1 << 17 };

typedef struct sha256 {
    uint32_t state[8];
    uint64_t bytes;
    unsigned char pending[BLOCK];
} sha256;

static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t turn(uint32_t x, int by) { return x >> by | x << (32 - by); }

static void absorb(uint32_t state[8], const unsigned char *data) {
    uint32_t w[64];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)data[4 * i] << 24 | (uint32_t)data[4 * i + 1] << 16 | (uint32_t)data[4 * i + 2] << 8 | data[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; i++) {
        uint32_t t1 = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + constants[i] + w[i];
        uint32_t t2 = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    state[0] += a; state[1] += b; state[2] += c; state[3] += d;
    state[4] += e; state[5] += f; state[6] += g; state[7] += h;
}

static void begin(sha256 *s) {
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s->state, start, sizeof start);
    s->bytes = 0;
}

static void add(sha256 *s, const void *data, int64_t bytes) {
    const unsigned char *p = data;
    int64_t used = (int64_t)(s->bytes % BLOCK);
    s->bytes += (uint64_t)bytes;
    if (used > 0) {
        int64_t part = bytes < BLOCK - used ? bytes : BLOCK - used;
        if (part > 0) memcpy(s->pending + used, p, (size_t)part);
        p += part;
        bytes -= part;
        if (used + part < BLOCK) return;
        absorb(s->state, s->pending);
    }
    for (; bytes >= BLOCK; p += BLOCK, bytes -= BLOCK) absorb(s->state, p);
    if (bytes > 0) memcpy(s->pending, p, (size_t)bytes);
}

static void finish(char *hex, sha256 *s) {
    static const unsigned char padding[BLOCK] = {0x80};
    uint64_t bits = 8 * s->bytes;
    add(s, padding, 1 + (int64_t)((119 - s->bytes % BLOCK) % BLOCK));
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)(bits >> (56 - 8 * i));
    add(s, length, 8);
    for (int i = 0; i < 64; i++) hex[i] = "0123456789abcdef"[s->state[i / 8] >> (28 - 4 * (i % 8)) & 15];
    hex[64] = '\0';
}

mf_status mf_sha256(char *hex, const void *data, int64_t bytes) {
    if (bytes < 0 || (bytes > 0 && !data)) return mf__fail(MF_EVALUE, "sha256: no data of %lld bytes", (long long)bytes);
    sha256 s;
    begin(&s);
    add(&s, data, bytes);
    finish(hex, &s);
    return MF_OK;
}

mf_status mf_file_sha256(char *hex, int64_t *size, const char *path, int64_t offset, int64_t bytes) {
    *size = 0;
    if (!path || offset < 0) return mf__fail(MF_EVALUE, "file.sha256: no path, or offset %lld", (long long)offset);
    mf_status status = MF_OK;
    struct stat info;
    char *chunk = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0) { status = mf__fail(MF_EIO, "file.sha256: '%s': %s", path, strerror(errno)); goto out; }
    if (S_ISDIR(info.st_mode)) { status = mf__fail(MF_EIO, "file.sha256: '%s': %s", path, strerror(EISDIR)); goto out; }
    chunk = malloc(CHUNK);
    if (!chunk) { status = mf__fail(MF_ENOMEM, "file.sha256: '%s': no memory", path); goto out; }
    sha256 s;
    begin(&s);
    while (bytes < 0 || *size < bytes) {
        int64_t wanted = bytes < 0 || bytes - *size > CHUNK ? CHUNK : bytes - *size;
        ssize_t n = pread(fd, chunk, (size_t)wanted, offset + *size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) { status = mf__fail(MF_EIO, "file.sha256: '%s': %s", path, strerror(errno)); goto out; }
        if (n == 0) break;
        add(&s, chunk, n);
        *size += n;
    }
    if (bytes >= 0 && *size < bytes) {
        status = mf__fail(MF_EFORMAT, "file.sha256: '%s' ends %lld bytes before byte %lld", path, (long long)(bytes - *size), (long long)(offset + bytes));
        goto out;
    }
    finish(hex, &s);
out:
    free(chunk);
    if (fd >= 0) close(fd);
    return status;
}
