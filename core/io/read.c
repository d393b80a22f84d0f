/* read.c: which format a text is in, and reading it. */
#include "cif.h"
#include "structure.h"
#include "write.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

/* By the first line that says something; AUTO when none of the first does. */
static int format_of_content(const char *text) {
    static const char *const records[] = {
        "ATOM  ", "HETATM", "HEADER", "TITLE ", "COMPND", "SOURCE", "REMARK", "CRYST1", "MODEL ", "SEQRES", "AUTHOR",
        "EXPDTA", "OBSLTE", "SPLIT ", "CAVEAT", "KEYWDS", "NUMMDL", "REVDAT", "JRNL  ", "DBREF ", "HELIX ", "SHEET ", "ORIGX1", "SCALE1",
        "MTRIX1", "USER  ", "LINK  ", "SSBOND", "CISPEP", "HET   ", "MODRES", "SEQADV", "TER   ", "END   ", "SITE  ", "ANISOU", "FORMUL",
    };
    const char *p = text;
    for (int lines = 0; lines < 100 && *p; lines++) {
        while (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n') p++;
        size_t n = strcspn(p, "\r\n");
        if (*p != '#' && n > 0) {
            if (strncasecmp(p, "data_", 5) == 0) return MF_FORMAT_MMCIF;
            char head[7] = "      ";
            memcpy(head, p, n < 6 ? n : 6);
            for (size_t i = 0; i < sizeof records / sizeof *records; i++)
                if (strncasecmp(head, records[i], 6) == 0) return MF_FORMAT_PDB;
        }
        p += n;
    }
    return MF_FORMAT_AUTO;
}

static mf_status parse(mf__rows *rows, const char *text, int64_t bytes, int format) {
    const char *path = rows->path;
    if (bytes == 0) return mf__fail(MF_EFORMAT, "structure.read: '%s': the file is empty", path);
    if (format == MF_FORMAT_AUTO && mf__cif_is_binary(text)) format = MF_FORMAT_BCIF;
    const char *zero = format == MF_FORMAT_BCIF ? NULL : memchr(text, 0, (size_t)bytes);
    if (zero) {
        int64_t line = 1;
        for (const char *p = text; p < zero; p++) line += *p == '\n';
        return mf__fail(MF_EFORMAT, "structure.read: '%s': line %lld: a zero byte: not a text file", path, (long long)line);
    }
    if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) text += 3, bytes -= 3;    /* byte order mark */
    if (text[strspn(text, " \t\r\n")] == '<') return mf__fail(MF_EFORMAT, "structure.read: '%s': HTML or XML, neither PDB nor mmCIF", path);
    if (text[strspn(text, " \t\r\n")] == '\0') return mf__fail(MF_EFORMAT, "structure.read: '%s': the file is blank", path);
    if (format == MF_FORMAT_AUTO) format = format_of_content(text);
    if (format == MF_FORMAT_AUTO) format = mf__format_of_name(path);
    if (format == MF_FORMAT_AUTO) return mf__fail(MF_EFORMAT, "structure.read: '%s': neither PDB nor mmCIF by content or name", path);
    MF_TRY(format == MF_FORMAT_PDB ? mf__read_pdb(rows, text, bytes) : mf__read_mmcif(rows, text, bytes));
    if (rows->count == 0)
        return mf__fail(MF_EFORMAT, "structure.read: '%s': no atoms (%s)", path, format == MF_FORMAT_PDB ? "no ATOM or HETATM record" : "no _atom_site");
    return mf__assemble(rows);
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

/* `text` ends with a zero that `bytes` does not count. */
static mf_status parse_terminated(mf_structure **out, const char *text, int64_t bytes, const char *path, const mf_read_params *params) {
    mf_structure *s;
    MF_TRY(mf_structure_create(&s, "", ""));
    mf__rows rows = {.s = s, .path = path, .altlocs = params->altlocs, .models = params->models};
    mf_status status = parse(&rows, text, bytes, params->format);
    mf__rows_free(&rows);
    if (status != MF_OK) {
        mf_structure_release(s);
        return status;
    }
    *out = s;
    return MF_OK;
}

mf_status mf_structure_read(mf_structure **out, const char *path, const mf_read_params *params) {
    *out = NULL;
    mf_read_params p;
    MF_TRY(check_params(&p, params));
    char *text;
    int64_t bytes;
    mf__source *source;
    MF_TRY(mf__source_open(&source, path, p.offset, p.bytes ? p.bytes : -1, p.max_bytes));
    mf_status status = mf__source_whole(&text, &bytes, source);
    mf__source_close(source);
    if (status != MF_OK) return status;
    status = parse_terminated(out, text, bytes, path, &p);
    mf_file_free(text);
    return status;
}

mf_status mf_structure_parse(mf_structure **out, const void *text, int64_t bytes, const char *name, const mf_read_params *params) {
    *out = NULL;
    mf_read_params p;
    MF_TRY(check_params(&p, params));
    if (bytes < 0 || (bytes > 0 && !text)) return mf__fail(MF_EVALUE, "structure.parse: no text of %lld bytes", (long long)bytes);
    char *copy = malloc((size_t)bytes + 1);    /* the readers rely on a terminating zero */
    if (!copy) return mf__fail(MF_ENOMEM, "structure.parse: no memory for %lld bytes", (long long)bytes);
    if (bytes > 0) memcpy(copy, text, (size_t)bytes);
    copy[bytes] = '\0';
    mf_status status = parse_terminated(out, copy, bytes, name ? name : "text", &p);
    free(copy);
    return status;
}
