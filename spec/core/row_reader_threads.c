/* row_reader_threads.c: what mf_row_reader's threads share, for ThreadSanitizer (make check-threads). LuaJIT cannot run under it.
 *
 *     row_reader_threads FOLDER
 *
 * Readers of 0 to 8 threads over one file: jobs of changing sizes are submitted and taken in bursts, some fail, some are never
 * taken. What comes back is compared with the rows that were written. Exits with 1 at the first difference. */
#include "../../core/moonfold.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 5000, TENSORS = 3, BAD_ROW = 4321 };

#define OK(call) do { if ((call) != MF_OK) { printf("%s: %s\n", #call, mf_error_text()); exit(1); } } while (0)

static unsigned state = 1;
static int64_t below(int64_t n) {
    state = state * 1664525u + 1013904223u;
    return (int64_t)(state >> 8) % n;
}

static int32_t *numbers;                  /* tensor 0: 0, 1, 2, ...; tensor 1: three of each */

static void write_file(const char *path, mf_ctx *ctx) {
    const char *names[TENSORS] = {"a", "b", "c"};
    mf_tensor *t[TENSORS];
    int32_t *three = malloc(3 * ROWS * sizeof *three);
    char *flags = calloc(ROWS, 1);
    numbers = malloc(ROWS * sizeof *numbers);
    for (int i = 0; i < ROWS; i++) three[3 * i] = three[3 * i + 1] = three[3 * i + 2] = numbers[i] = i;
    OK(mf_tensor_from(&t[0], ctx, MF_CPU, MF_INT32, 1, (int64_t[]){ROWS}, numbers));
    OK(mf_tensor_from(&t[1], ctx, MF_CPU, MF_INT32, 2, (int64_t[]){ROWS, 3}, three));
    OK(mf_tensor_from(&t[2], ctx, MF_CPU, MF_BOOL, 1, (int64_t[]){ROWS}, flags));
    OK(mf_archive_write(path, names, (const mf_tensor *const *)t, TENSORS, NULL, NULL, 0));
    for (int i = 0; i < TENSORS; i++) mf_tensor_release(t[i]);
    FILE *f = fopen(path, "r+b");
    fseek(f, -(long)(ROWS - BAD_ROW), SEEK_END);
    fputc(9, f);                          /* what is no bool: jobs with this row fail */
    fclose(f);
    free(three);
    free(flags);
}

enum { MOST = 16, RUNS = 6 };
typedef struct asked { int64_t first[RUNS], count[RUNS], runs; int bad; } asked;

static void compare(mf_row_reader *reader, const asked *a) {
    mf_tensor *t[TENSORS];
    const mf_status status = mf_row_reader_next(t, reader);
    if (a->bad != (status == MF_EFORMAT) || (!a->bad && status != MF_OK)) { printf("status %d: %s\n", status, mf_error_text()); exit(1); }
    if (a->bad) return;
    const int64_t n = mf_tensor_size(t[0], 0);
    int32_t *got = malloc((size_t)(4 * n + 1) * sizeof *got);
    OK(mf_tensor_read(got, 4 * n, t[0]));
    OK(mf_tensor_read(got + n, 12 * n, t[1]));
    int64_t at = 0;
    for (int64_t k = 0; k < a->runs; k++)
        for (int64_t i = 0; i < a->count[k]; i++, at++)
            if (got[at] != numbers[a->first[k] + i] || got[n + 3 * at + 2] != got[at]) { printf("row %lld differs\n", (long long)at); exit(1); }
    if (at != n) { printf("%lld rows, expected %lld\n", (long long)n, (long long)at); exit(1); }
    free(got);
    for (int i = 0; i < TENSORS; i++) mf_tensor_release(t[i]);
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    char path[4096];
    snprintf(path, sizeof path, "%s/rows.safetensors", argv[1]);
    mf_ctx *ctx;
    mf_archive *archive;
    OK(mf_ctx_open(&ctx));
    write_file(path, ctx);
    OK(mf_archive_open(&archive, path));
    for (int round = 0; round < 45; round++) {
        mf_row_reader *reader;
        OK(mf_row_reader_open(&reader, archive, ctx, (int64_t[]){0, 1, 2}, TENSORS, round % 9));
        asked ring[MOST];
        int64_t put = 0, got = 0;
        for (int step = 0; step < 200; step++) {
            if (put - got < MOST && (put == got || below(2))) {
                asked *a = &ring[put++ % MOST];
                a->runs = below(RUNS + 1);
                a->bad = 0;
                for (int64_t k = 0; k < a->runs; k++) {
                    a->first[k] = below(ROWS);
                    a->count[k] = below(ROWS - a->first[k] + 1) / (below(2) ? 1 : 16);
                    a->bad |= a->first[k] <= BAD_ROW && BAD_ROW < a->first[k] + a->count[k];
                }
                OK(mf_row_reader_submit(reader, a->first, a->count, a->runs));
            } else {
                compare(reader, &ring[got++ % MOST]);
            }
        }
        mf_row_reader_close(reader);      /* up to 16 jobs under way */
    }
    mf_archive_close(archive);
    mf_ctx_release(ctx);
    free(numbers);
    puts("rows are what was written");
    return 0;
}
