/* json.h: a pull reader for the JSON of a safetensors header. */
#ifndef MF_IO_JSON_H
#define MF_IO_JSON_H
#include "../base/error.h"

/* Walks a writable buffer that the caller owns. Strings are decoded in place and end with a zero: an escape is
 * never shorter than what it stands for, and the closing quote leaves room. */
typedef struct mf__json {
    char *at, *begin, *end;
    const char *what;     /* opens error texts: "archive.open: 'x.safetensors': header" */
} mf__json;

/* The next character after blanks must be `c`. */
mf_status mf__json_expect(mf__json *j, char c);
/* 1 and past it when the next character after blanks is `c`, else 0. */
int mf__json_accept(mf__json *j, char c);
mf_status mf__json_string(mf__json *j, char **out);      /* UTF-8, without U+0000 */
mf_status mf__json_size(mf__json *j, int64_t *out);      /* an integer from 0 to INT64_MAX */
mf_status mf__json_fail(const mf__json *j, const char *message);

int mf__utf8_valid(const char *text, int64_t bytes);
#endif
