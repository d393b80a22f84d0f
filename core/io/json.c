/* json.c: the part of JSON that a safetensors header may hold: objects, arrays of sizes, strings. */
#include "json.h"

mf_status mf__json_fail(const mf__json *j, const char *message) {
    return mf__fail(MF_EFORMAT, "%s: byte %lld: %s", j->what, (long long)(j->at - j->begin), message);
}

static void skip_blanks(mf__json *j) {
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\n' || *j->at == '\r' || *j->at == '\t')) j->at++;
}

int mf__json_accept(mf__json *j, char c) {
    skip_blanks(j);
    if (j->at >= j->end || *j->at != c) return 0;
    j->at++;
    return 1;
}

mf_status mf__json_expect(mf__json *j, char c) {
    if (mf__json_accept(j, c)) return MF_OK;
    char message[32] = "expected ' '";
    message[10] = c;
    return mf__json_fail(j, message);
}

/* Length of the UTF-8 sequence at p, 0 when it is none (overlong, surrogate, past U+10FFFF, cut). */
static int utf8_length(const unsigned char *p, int64_t room) {
    if (p[0] < 0x80) return 1;
    int n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || room < n) return 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)) return 0;
    if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) return 0;
    return n;
}

int mf__utf8_valid(const char *text, int64_t bytes) {
    const unsigned char *p = (const unsigned char *)text;
    for (int64_t i = 0; i < bytes;) {
        int n = utf8_length(p + i, bytes - i);
        if (n == 0) return 0;
        i += n;
    }
    return 1;
}

static int hex4(const mf__json *j, const char *p, unsigned *out) {
    if (j->end - p < 4) return 0;
    unsigned value = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                                : 16;
        if (digit == 16) return 0;
        value = value << 4 | digit;
    }
    *out = value;
    return 1;
}

/* \uXXXX at j->at (on the u), perhaps a surrogate pair; appends UTF-8 at *to. */
static mf_status unicode_escape(mf__json *j, char **to) {
    unsigned code, low;
    if (!hex4(j, j->at + 1, &code)) return mf__json_fail(j, "\\u needs four hexadecimal digits");
    j->at += 5;
    if (code >= 0xd800 && code < 0xdc00) {
        if (j->end - j->at < 6 || j->at[0] != '\\' || j->at[1] != 'u' || !hex4(j, j->at + 2, &low) || low < 0xdc00 || low > 0xdfff)
            return mf__json_fail(j, "half of a surrogate pair");
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        j->at += 6;
    } else if (code >= 0xdc00 && code <= 0xdfff) {
        return mf__json_fail(j, "half of a surrogate pair");
    } else if (code == 0) {
        return mf__json_fail(j, "a zero character in a string");
    }
    unsigned char *p = (unsigned char *)*to;
    if (code < 0x80) {
        *p++ = (unsigned char)code;
    } else if (code < 0x800) {
        *p++ = (unsigned char)(0xc0 | code >> 6);
        *p++ = (unsigned char)(0x80 | (code & 0x3f));
    } else {
        if (code < 0x10000) {
            *p++ = (unsigned char)(0xe0 | code >> 12);
        } else {
            *p++ = (unsigned char)(0xf0 | code >> 18);
            *p++ = (unsigned char)(0x80 | (code >> 12 & 0x3f));
        }
        *p++ = (unsigned char)(0x80 | (code >> 6 & 0x3f));
        *p++ = (unsigned char)(0x80 | (code & 0x3f));
    }
    *to = (char *)p;
    return MF_OK;
}

mf_status mf__json_string(mf__json *j, char **out) {
    MF_TRY(mf__json_expect(j, '"'));
    char *to = j->at;
    *out = to;
    while (j->at < j->end) {
        unsigned char c = (unsigned char)*j->at;
        if (c == '"') {
            j->at++;
            *to = '\0';
            return MF_OK;
        }
        if (c < 0x20) return mf__json_fail(j, "a control character in a string");
        if (c != '\\') {
            int n = utf8_length((unsigned char *)j->at, j->end - j->at);
            if (n == 0) return mf__json_fail(j, "a string is not UTF-8");
            while (n-- > 0) *to++ = *j->at++;
            continue;
        }
        if (++j->at >= j->end) break;
        switch (*j->at) {
        case '"': case '\\': case '/': *to++ = *j->at++; break;
        case 'b': *to++ = '\b'; j->at++; break;
        case 'f': *to++ = '\f'; j->at++; break;
        case 'n': *to++ = '\n'; j->at++; break;
        case 'r': *to++ = '\r'; j->at++; break;
        case 't': *to++ = '\t'; j->at++; break;
        case 'u': MF_TRY(unicode_escape(j, &to)); break;
        default: return mf__json_fail(j, "an unknown escape in a string");
        }
    }
    return mf__json_fail(j, "a string does not end");
}

mf_status mf__json_size(mf__json *j, int64_t *out) {
    skip_blanks(j);
    char *start = j->at;
    int64_t value = 0;
    while (j->at < j->end && *j->at >= '0' && *j->at <= '9') {
        int digit = *j->at - '0';
        if (value > (INT64_MAX - digit) / 10) return mf__json_fail(j, "a number is too large");
        value = 10 * value + digit;
        j->at++;
    }
    if (j->at == start) return mf__json_fail(j, "expected a number from 0");
    if (*start == '0' && j->at - start > 1) return mf__json_fail(j, "a number begins with 0");
    if (j->at < j->end && (*j->at == '.' || *j->at == 'e' || *j->at == 'E')) return mf__json_fail(j, "expected a whole number");
    *out = value;
    return MF_OK;
}
