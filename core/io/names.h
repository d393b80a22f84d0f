/* names.h: each distinct string once, known by a small number; what residue names mean; numbers in text. */
#ifndef MF_IO_NAMES_H
#define MF_IO_NAMES_H
#include "../base/error.h"

/* Strings by number, in order of first use; 0 is always "". An atom of a large file is one of a few hundred names.
 * Names may stand on others that do not change any more: those keep their numbers, and several may stand on them. */
typedef struct mf__names {
    const struct mf__names *base;
    int32_t shared;           /* names of the base */
    int32_t count;            /* the base's too */
    char *bytes;
    int64_t used, capacity;
    int64_t *offset;          /* of each string in bytes */
    int32_t offsets;          /* room in offset */
    int32_t n_slots;          /* a power of two */
    int32_t *slots;           /* open addressing: number + 1, 0 is free */
} mf__names;

mf_status mf__names_init(mf__names *names);
void mf__names_on(mf__names *names, const mf__names *base);    /* base must outlive names and has no base itself */
void mf__names_free(mf__names *names);
mf_status mf__names_add(mf__names *names, int32_t *out, const char *text, int64_t bytes);
int32_t mf__names_find(const mf__names *names, const char *text, int64_t bytes);    /* -1 when absent */
static inline const char *mf__name(const mf__names *names, int32_t i) {
    return i < names->shared ? names->base->bytes + names->base->offset[i] : names->bytes + names->offset[i - names->shared];
}

/* A map from three numbers to one, with the same open addressing. */
typedef struct mf__key { uint64_t a, b, c; } mf__key;
typedef struct mf__map_slot { mf__key key; int64_t value; } mf__map_slot;    /* value -1: free */
typedef struct mf__map { mf__map_slot *slots; int64_t n_slots, count; } mf__map;
/* The value of the key, put there as `fresh` if the key is new: compare *out with it to know. */
mf_status mf__map_get(mf__map *map, int64_t **out, mf__key key, int64_t fresh);
void mf__map_free(mf__map *map);

enum { MF__OTHER, MF__AMINO, MF__RNA, MF__DNA, MF__NUCLEIC, MF__CAP, MF__WATER };    /* NUCLEIC: a sugar decides */
typedef struct mf__kind {
    unsigned char polymer;    /* one of the above */
    unsigned char standard;   /* one of the 20 amino acids, of A C G U, of DA DC DG DT */
    char code;                /* one letter, of the parent where modified; 'X' unknown */
} mf__kind;
mf__kind mf__residue_kind(const char *name);
/* The standard residue of a code, "MET" for M of MF__AMINO: what a modified one derives from; NULL without one. */
const char *mf__standard_residue(int polymer, char code);

/* A text as one line, cut where there is no more room: line ends and tabs are blanks, one blank stands between words and none at the
 * ends. The number of characters; `from` may be `text` itself. */
int64_t mf__one_line(char *text, int64_t room, const char *from, int64_t bytes);

/* Decimal numbers without the locale's decimal point. 1 when the whole text is one, else 0. */
int mf__parse_real(double *out, const char *text, int64_t bytes);
int mf__parse_int(int *out, const char *text, int64_t bytes);
/* `value` with `decimals` places, at least `width` characters; the number of characters (text has room for 40). */
int mf__format_fixed(char *text, double value, int decimals, int width);
/* The shortest text of at least `decimals` places that reads back as the same double; room for 40 too. */
int mf__format_exact(char *text, double value, int decimals);
#endif
