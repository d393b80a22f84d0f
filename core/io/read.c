/* read.c: which format a text is in, and reading it. */
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
    const char *zero = memchr(text, 0, (size_t)bytes);
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

/* `text` ends with a zero that `bytes` does not count. */
static mf_status parse_terminated(mf_structure **out, const char *text, int64_t bytes, int format, const char *path) {
    if (format < MF_FORMAT_AUTO || format > MF_FORMAT_MMCIF) return mf__fail(MF_EVALUE, "structure.read: unknown format %d", format);
    mf_structure *s;
    MF_TRY(mf_structure_create(&s, "", ""));
    mf__rows rows = {.s = s, .path = path};
    mf_status status = parse(&rows, text, bytes, format);
    mf__rows_free(&rows);
    if (status != MF_OK) {
        mf_structure_release(s);
        return status;
    }
    *out = s;
    return MF_OK;
}

mf_status mf_structure_read(mf_structure **out, const char *path, int format) {
    *out = NULL;
    char *text;
    int64_t bytes;
    MF_TRY(mf_file_read(&text, &bytes, path, 0));
    mf_status status = parse_terminated(out, text, bytes, format, path);
    mf_file_free(text);
    return status;
}

mf_status mf_structure_parse(mf_structure **out, const char *text, int64_t bytes, int format, const char *name) {
    *out = NULL;
    if (bytes < 0 || (bytes > 0 && !text)) return mf__fail(MF_EVALUE, "structure.parse: no text of %lld bytes", (long long)bytes);
    char *copy = malloc((size_t)bytes + 1);    /* the readers rely on a terminating zero */
    if (!copy) return mf__fail(MF_ENOMEM, "structure.parse: no memory for %lld bytes", (long long)bytes);
    if (bytes > 0) memcpy(copy, text, (size_t)bytes);
    copy[bytes] = '\0';
    mf_status status = parse_terminated(out, copy, bytes, format, name ? name : "text");
    free(copy);
    return status;
}
