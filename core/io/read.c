/* read.c: which format a file is in, and reading it: whole, or a chain at a time.
 *
 * Both formats are pulled from a source of bytes, so that no more of the text is held than a window of it. */
#include "cif.h"
#include "mmcif.h"
#include "pdb.h"
#include "write.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { HEAD = 1 << 16 };    /* bytes that are looked at to tell the format */

static int ends_with(const char *name, const char *suffix) {
    size_t n = strlen(name), m = strlen(suffix);
    return n >= m && strcasecmp(name + n - m, suffix) == 0;
}

int mf__format_of_name(const char *path) {
    char name[4096];
    snprintf(name, sizeof name, "%s", path);
    if (ends_with(name, ".gz")) name[strlen(name) - 3] = '\0';
    if (ends_with(name, ".bcif")) return MF_FORMAT_BCIF;
    if (ends_with(name, ".cif") || ends_with(name, ".mmcif")) return MF_FORMAT_MMCIF;
    if (ends_with(name, ".pdb") || ends_with(name, ".ent") || ends_with(name, ".pdb1")) return MF_FORMAT_PDB;
    return MF_FORMAT_AUTO;
}

static int is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* By the first line that says something; AUTO when none of the first does. */
static int format_of_content(const char *p, const char *end) {
    static const char *const records[] = {
        "ATOM  ", "HETATM", "HEADER", "TITLE ", "COMPND", "SOURCE", "REMARK", "CRYST1", "MODEL ", "SEQRES", "AUTHOR",
        "EXPDTA", "OBSLTE", "SPLIT ", "CAVEAT", "KEYWDS", "NUMMDL", "REVDAT", "JRNL  ", "DBREF ", "HELIX ", "SHEET ", "ORIGX1", "SCALE1",
        "MTRIX1", "USER  ", "LINK  ", "SSBOND", "CISPEP", "HET   ", "MODRES", "SEQADV", "TER   ", "END   ", "SITE  ", "ANISOU", "FORMUL",
    };
    for (int lines = 0; lines < 100 && p < end; lines++) {
        while (p < end && is_blank(*p)) p++;
        int64_t n = 0;
        while (p + n < end && p[n] != '\r' && p[n] != '\n') n++;
        if (n > 0 && *p != '#') {
            if (n >= 5 && strncasecmp(p, "data_", 5) == 0) return MF_FORMAT_MMCIF;
            char head[7] = "      ";
            memcpy(head, p, n < 6 ? (size_t)n : 6);
            for (size_t i = 0; i < sizeof records / sizeof *records; i++)
                if (strncasecmp(head, records[i], 6) == 0) return MF_FORMAT_PDB;
        }
        p += n;
    }
    return MF_FORMAT_AUTO;
}

/* The format of the text that a source gives: what was asked for, else what it looks like. */
static mf_status find_format(int *format, mf__source *source, int asked) {
    const char *text, *path = mf__source_name(source);
    int64_t bytes;
    *format = asked;
    MF_TRY(mf__source_peek(&text, &bytes, source, HEAD));
    if (bytes == 0) return mf__fail(MF_EFORMAT, "structure.read: '%s': the file is empty", path);
    if (asked == MF_FORMAT_BCIF) return MF_OK;
    if (asked == MF_FORMAT_AUTO && mf__cif_is_binary(text)) {
        *format = MF_FORMAT_BCIF;
        return MF_OK;
    }
    const char *zero = memchr(text, 0, (size_t)bytes), *p = text, *end = text + bytes;
    if (zero) {
        int64_t line = 1;
        while (p < zero) line += *p++ == '\n';
        return mf__fail(MF_EFORMAT, "structure.read: '%s': line %lld: a zero byte: not a text file", path, (long long)line);
    }
    if (bytes >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) p += 3;    /* byte order mark */
    const char *first = p;
    while (first < end && is_blank(*first)) first++;
    if (first < end && *first == '<') return mf__fail(MF_EFORMAT, "structure.read: '%s': HTML or XML, neither PDB nor mmCIF", path);
    if (first == end && bytes < HEAD) return mf__fail(MF_EFORMAT, "structure.read: '%s': the file is blank", path);
    if (*format == MF_FORMAT_AUTO) *format = format_of_content(p, end);
    if (*format == MF_FORMAT_AUTO) *format = mf__format_of_name(path);
    if (*format == MF_FORMAT_AUTO) return mf__fail(MF_EFORMAT, "structure.read: '%s': neither PDB nor mmCIF by content or name", path);
    return MF_OK;
}

void mf_read_params_init(mf_read_params *params) { *params = (mf_read_params){.size = sizeof *params}; }

static mf_status check_params(mf_read_params *out, const mf_read_params *params) {
    mf_read_params_init(out);
    if (!params) params = out;
    if (params->size != out->size) return mf__fail(MF_EVALUE, "structure.read: parameters of %lld bytes, expected %lld", (long long)params->size, (long long)out->size);
    *out = *params;
    if (out->max_bytes == 0) out->max_bytes = (int64_t)1 << 30;
    if (out->format < MF_FORMAT_AUTO || out->format > MF_FORMAT_BCIF) return mf__fail(MF_EVALUE, "structure.read: unknown format %d", out->format);
    if (out->altlocs < MF_ALTLOC_BEST || out->altlocs > MF_ALTLOC_ALL) return mf__fail(MF_EVALUE, "structure.read: unknown altlocs %d", out->altlocs);
    if (out->models < 0) return mf__fail(MF_EVALUE, "structure.read: models %d is negative", out->models);
    if (out->max_bytes < 0 || out->offset < 0 || out->bytes < 0) return mf__fail(MF_EVALUE, "structure.read: max_bytes, offset or bytes is negative");
    return MF_OK;
}

struct mf_chain_reader {
    mf__source *source;
    mf__pdb *pdb;            /* one of the two */
    mf__mmcif *mmcif;
    mf__rows rows;
    mf_structure *first;     /* whose header later structures share; NULL: nothing has been read */
};

/* Takes the source. */
static mf_status open_reader(mf_chain_reader *r, mf__source *source, const mf_read_params *params) {
    int format;
    *r = (mf_chain_reader){.source = source};
    r->rows = (mf__rows){.path = mf__source_name(source), .altlocs = params->altlocs, .models = params->models};
    MF_TRY(find_format(&format, source, params->format));
    return format == MF_FORMAT_PDB ? mf__pdb_open(&r->pdb, source) : mf__mmcif_open(&r->mmcif, source);
}

static void close_reader(mf_chain_reader *r) {
    mf__pdb_close(r->pdb);
    mf__mmcif_close(r->mmcif);
    mf__rows_free(&r->rows);
    mf_structure_release(r->first);
    mf__source_close(r->source);
}

/* A damaged gzip stream gives wrong text before it is found to be damaged at its end: then that is what there is to say. */
static mf_status blame(mf_status status, mf__source *source) {
    if (status != MF_EFORMAT || !mf__source_compressed(source)) return status;
    char text[512], passed[4096];
    snprintf(text, sizeof text, "%s", mf_error_text());
    for (int64_t got = 1; got;) {
        mf_status end = mf__source_read(&got, source, passed, sizeof passed);
        if (end != MF_OK) return end;
    }
    return mf__fail(status, "%s", text);
}

/* The rows of the next chain, or of all that is left, go into s. */
static mf_status read_rows(int64_t *got, mf_chain_reader *r, mf_structure *s, int whole) {
    mf__rows_continue(&r->rows, s);
    mf_status status = r->pdb ? mf__pdb_rows(got, r->pdb, &r->rows, whole) : mf__mmcif_rows(got, r->mmcif, &r->rows, whole);
    if (status != MF_OK) return blame(status, r->source);
    if (r->rows.count == 0)
        return mf__fail(MF_EFORMAT, "structure.read: '%s': no atoms (%s)", r->rows.path, r->pdb ? "no ATOM or HETATM record" : "no _atom_site");
    return mf__assemble(&r->rows);
}

/* Takes the source. */
static mf_status read_whole(mf_structure **out, mf__source *source, const mf_read_params *params) {
    mf_chain_reader r;
    int64_t got;
    mf_structure *s = NULL;
    mf_status status = MF_OK;
    MF_TRY_OUT(open_reader(&r, source, params));
    MF_TRY_OUT(mf_structure_create(&s, "", ""));
    r.rows.complete = 1;
    MF_TRY_OUT(read_rows(&got, &r, s, 1));
    *out = s;
    s = NULL;
out:
    mf_structure_release(s);
    close_reader(&r);
    return status;
}

static mf_status open_source(mf__source **out, const char *path, const mf_read_params *p) {
    return mf__source_open(out, path, p->offset, p->bytes ? p->bytes : -1, p->max_bytes);
}

mf_status mf_structure_read(mf_structure **out, const char *path, const mf_read_params *params) {
    *out = NULL;
    mf_read_params p;
    mf__source *source;
    MF_TRY(check_params(&p, params));
    MF_TRY(open_source(&source, path, &p));
    return read_whole(out, source, &p);
}

mf_status mf_structure_parse(mf_structure **out, const void *text, int64_t bytes, const char *name, const mf_read_params *params) {
    *out = NULL;
    mf_read_params p;
    mf__source *source;
    MF_TRY(check_params(&p, params));
    if (bytes < 0 || (bytes > 0 && !text)) return mf__fail(MF_EVALUE, "structure.parse: no text of %lld bytes", (long long)bytes);
    MF_TRY(mf__source_memory(&source, text, bytes, name ? name : "text", p.max_bytes));
    return read_whole(out, source, &p);
}

/* ---- a chain at a time ---- */

mf_status mf_chain_reader_open(mf_chain_reader **out, const char *path, const mf_read_params *params) {
    *out = NULL;
    mf_read_params p;
    mf__source *source;
    MF_TRY(check_params(&p, params));
    mf_chain_reader *r = malloc(sizeof *r);
    if (!r) return mf__fail(MF_ENOMEM, "structure.chains: '%s': no memory", path ? path : "");
    mf_status status = open_source(&source, path, &p);
    if (status != MF_OK) {
        free(r);
        return status;
    }
    status = open_reader(r, source, &p);
    if (status == MF_OK) *out = r;
    else mf_chain_reader_close(r);
    return status;
}

mf_status mf_chain_reader_next(mf_structure **out, mf_chain_reader *r) {
    *out = NULL;
    mf_structure *s = NULL;
    mf_status status = MF_OK;
    int64_t got = 1;
    do {
        mf_structure_release(s);
        s = NULL;
        MF_TRY_OUT(r->first ? mf__structure_like(&s, r->first) : mf_structure_create(&s, "", ""));
        MF_TRY_OUT(read_rows(&got, r, s, 0));
        if (r->first) continue;
        MF_TRY_OUT(mf__share_header(s));
        MF_TRY_OUT(mf__structure_like(&r->first, s));
    } while (got > 0 && s->n_atoms == 0 && r->mmcif);    /* of a model past the last that is wanted; in PDB no other follows */
    if (s->n_atoms == 0) goto out;
    *out = s;
    s = NULL;
out:
    mf_structure_release(s);
    return status;
}

void mf_chain_reader_close(mf_chain_reader *r) {
    if (!r) return;
    close_reader(r);
    free(r);
}
