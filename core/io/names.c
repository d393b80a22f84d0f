/* names.c: interned strings, a map of small keys, decimal numbers. */
#include "names.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t hash_text(const char *text, int64_t bytes) {
    uint32_t h = 2166136261u;    /* FNV-1a */
    for (int64_t i = 0; i < bytes; i++) h = (h ^ (unsigned char)text[i]) * 16777619u;
    return h ^ h >> 15;
}

mf_status mf__names_init(mf__names *names) {
    memset(names, 0, sizeof *names);
    int32_t empty;
    return mf__names_add(names, &empty, "", 0);
}

void mf__names_on(mf__names *names, const mf__names *base) { *names = (mf__names){.base = base, .shared = base->count, .count = base->count}; }

void mf__names_free(mf__names *names) {
    free(names->bytes);
    free(names->offset);
    free(names->slots);
    memset(names, 0, sizeof *names);
}

/* The slot of the text, or the free one where it belongs. */
static int32_t *find_slot(const mf__names *names, const char *text, int64_t bytes) {
    uint32_t mask = (uint32_t)names->n_slots - 1;
    for (uint32_t i = hash_text(text, bytes) & mask;; i = (i + 1) & mask) {
        int32_t *slot = &names->slots[i];
        if (*slot == 0) return slot;
        const char *s = mf__name(names, *slot - 1);
        if (strncmp(s, text, (size_t)bytes) == 0 && s[bytes] == '\0') return slot;
    }
}

int32_t mf__names_find(const mf__names *names, const char *text, int64_t bytes) {
    int32_t found = names->base ? mf__names_find(names->base, text, bytes) : -1;
    return found < 0 && names->n_slots ? *find_slot(names, text, bytes) - 1 : found;
}

static mf_status no_memory(void) { return mf__fail(MF_ENOMEM, "structure: no memory for names"); }

static mf_status grow_slots(mf__names *names) {
    int32_t wanted = names->n_slots ? 2 * names->n_slots : 256;
    int32_t *slots = calloc((size_t)wanted, sizeof *slots);
    if (!slots) return no_memory();
    free(names->slots);
    names->slots = slots;
    names->n_slots = wanted;
    for (int32_t i = names->shared; i < names->count; i++) {
        const char *s = mf__name(names, i);
        *find_slot(names, s, (int64_t)strlen(s)) = i + 1;
    }
    return MF_OK;
}

mf_status mf__names_add(mf__names *names, int32_t *out, const char *text, int64_t bytes) {
    if (names->base) {
        *out = mf__names_find(names->base, text, bytes);
        if (*out >= 0) return MF_OK;
    }
    int32_t own = names->count - names->shared;
    if (own >= names->n_slots / 2) {
        if (names->count >= 1 << 29) return mf__fail(MF_EFORMAT, "structure: too many distinct names");
        MF_TRY(grow_slots(names));
    }
    int32_t *slot = find_slot(names, text, bytes);
    if (*slot) {
        *out = *slot - 1;
        return MF_OK;
    }
    if (own == names->offsets) {
        int32_t wanted = names->offsets ? 2 * names->offsets : 128;
        int64_t *offset = realloc(names->offset, (size_t)wanted * sizeof *offset);
        if (!offset) return no_memory();
        names->offset = offset;
        names->offsets = wanted;
    }
    if (names->capacity - names->used <= bytes) {
        int64_t wanted = 2 * (names->capacity + bytes) + 1024;
        char *grown = realloc(names->bytes, (size_t)wanted);
        if (!grown) return no_memory();
        names->bytes = grown;
        names->capacity = wanted;
    }
    memcpy(names->bytes + names->used, text, (size_t)bytes);
    names->bytes[names->used + bytes] = '\0';
    names->offset[own] = names->used;
    names->used += bytes + 1;
    *out = names->count++;
    *slot = names->count;
    return MF_OK;
}

static uint64_t hash_key(mf__key k) {
    uint64_t h = k.a * 0x9e3779b97f4a7c15u ^ (k.b + 0x7f4a7c15u) * 0xbf58476d1ce4e5b9u ^ (k.c + 0x1ce4e5b9u) * 0x94d049bb133111ebu;
    h = (h ^ h >> 29) * 0xbf58476d1ce4e5b9u;
    return h ^ h >> 32;
}

static mf__map_slot *find_key(mf__map_slot *slots, int64_t n_slots, mf__key key) {
    uint64_t mask = (uint64_t)n_slots - 1;
    for (uint64_t i = hash_key(key) & mask;; i = (i + 1) & mask) {
        mf__map_slot *s = &slots[i];
        if (s->value < 0 || (s->key.a == key.a && s->key.b == key.b && s->key.c == key.c)) return s;
    }
}

mf_status mf__map_get(mf__map *map, int64_t **out, mf__key key, int64_t fresh) {
    if (map->count >= map->n_slots / 2) {
        int64_t wanted = map->n_slots ? 2 * map->n_slots : 256;
        mf__map_slot *slots = malloc((size_t)wanted * sizeof *slots);
        if (!slots) return mf__fail(MF_ENOMEM, "structure: no memory for %lld keys", (long long)wanted);
        for (int64_t i = 0; i < wanted; i++) slots[i].value = -1;
        for (int64_t i = 0; i < map->n_slots; i++)
            if (map->slots[i].value >= 0) *find_key(slots, wanted, map->slots[i].key) = map->slots[i];
        free(map->slots);
        map->slots = slots;
        map->n_slots = wanted;
    }
    mf__map_slot *s = find_key(map->slots, map->n_slots, key);
    if (s->value < 0) {
        *s = (mf__map_slot){key, fresh};
        map->count++;
    }
    *out = &s->value;
    return MF_OK;
}

void mf__map_free(mf__map *map) { free(map->slots); }

int64_t mf__one_line(char *text, int64_t room, const char *from, int64_t bytes) {
    int64_t used = 0;
    for (int64_t i = 0; i < bytes && used + 1 < room; i++) {
        char c = from[i];
        if (c == '\t' || c == '\n' || c == '\r') c = ' ';
        if (c != ' ' || (used > 0 && text[used - 1] != ' ')) text[used++] = c;
    }
    while (used > 0 && text[used - 1] == ' ') used--;
    text[used] = '\0';
    return used;
}

int mf__parse_int(int *out, const char *text, int64_t bytes) {
    int64_t i = 0, value = 0;
    int negative = bytes > 0 && text[0] == '-';
    if (bytes > 0 && (text[0] == '-' || text[0] == '+')) i = 1;
    if (i == bytes || bytes - i > 10) return 0;
    for (; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '9') return 0;
        value = 10 * value + (text[i] - '0');
    }
    if (negative) value = -value;
    if (value < INT32_MIN || value > INT32_MAX) return 0;
    *out = (int)value;
    return 1;
}

/* What the short way does not cover: many digits, exponents, and CIF's standard uncertainty, 1.234(5), which is passed over.
 * The digits are handed to strtod without a point, so that no locale has a say; past 800 of them none can matter. */
static int parse_long_real(double *out, const char *text, int64_t bytes, int negative) {
    enum { DIGITS = 800 };
    char digits[DIGITS + 16];
    const char *p = text, *end = text + bytes;
    int n = 0, any = 0, exponent = 0;
    for (int point = 0; p < end; p++) {
        if (*p == '.' && !point) { point = 1; continue; }
        if (*p < '0' || *p > '9') break;
        any = 1;
        int kept = n < DIGITS && (n > 0 || *p != '0');
        if (kept) digits[n++] = *p;
        if (kept || n == 0) exponent -= point;
        else exponent += !point;
    }
    if (!any) return 0;
    if (p < end && (*p == 'e' || *p == 'E')) {
        int64_t stop = end - ++p;
        const char *bracket = memchr(p, '(', (size_t)stop);
        int power;
        if (!mf__parse_int(&power, p, bracket ? bracket - p : stop) || power > 9999 || power < -9999) return 0;
        exponent += power;
        p = bracket ? bracket : end;
    }
    if (p < end && *p == '(') {
        const char *q = p + 1;
        while (q < end && *q >= '0' && *q <= '9') q++;
        if (q == p + 1 || q + 1 != end || *q != ')') return 0;
        p = end;
    }
    if (p != end) return 0;
    double value = 0;
    if (n > 0) {
        snprintf(digits + n, 16, "e%d", exponent);
        value = strtod(digits, NULL);
    }
    *out = negative ? -value : value;
    return isfinite(value);
}

static const double tens[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};

/* Up to 15 digits and a point: both the digits and the power of ten are exact doubles, so their quotient is the nearest. */
int mf__parse_real(double *out, const char *text, int64_t bytes) {
    const char *p = text, *end = text + bytes;
    int negative = 0;
    uint64_t digits = 0;
    if (p < end && (*p == '-' || *p == '+')) negative = *p++ == '-';
    const char *begin = p;
    while (p < end && *p >= '0' && *p <= '9') digits = 10 * digits + (uint64_t)(*p++ - '0');
    int64_t count = p - begin, places = 0;
    if (p < end && *p == '.') {
        const char *point = p++;
        while (p < end && *p >= '0' && *p <= '9') digits = 10 * digits + (uint64_t)(*p++ - '0');
        places = p - point - 1;
    }
    count += places;
    if (p != end || count == 0 || count > 15) return parse_long_real(out, begin, end - begin, negative);
    double value = (double)digits / tens[places];
    *out = negative ? -value : value;
    return 1;
}

int mf__format_fixed(char *text, double value, int decimals, int width) {
    mf_assert(decimals >= 0 && decimals <= 15 && fabs(value) * tens[decimals] < 9e18);
    int64_t scaled = llround(value * tens[decimals]), unit = (int64_t)tens[decimals];
    char digits[48];
    if (decimals == 0) snprintf(digits, sizeof digits, "%lld", (long long)scaled);
    else snprintf(digits, sizeof digits, "%s%lld.%0*lld", scaled < 0 ? "-" : "", llabs(scaled) / unit, decimals, llabs(scaled) % unit);
    return snprintf(text, 40, "%*s", width, digits);
}

int mf__format_exact(char *text, double value, int decimals) {
    for (; decimals <= 15 && fabs(value) * tens[decimals] < 1e15; decimals++)
        if ((double)llround(value * tens[decimals]) / tens[decimals] == value) return mf__format_fixed(text, value, decimals, 0);
    char scientific[64];    /* no decimal of 15 digits: 17 tell any double from its neighbours */
    snprintf(scientific, sizeof scientific, "%.16e", value);
    int n = 0, point = 0;
    for (const char *p = scientific; *p; p++) {
        int plain = (*p >= '0' && *p <= '9') || *p == '-' || *p == '+' || *p == 'e';
        if (plain) text[n++] = *p;
        else if (!point++) text[n++] = '.';    /* whatever the locale has */
    }
    text[n] = '\0';
    return n;
}
