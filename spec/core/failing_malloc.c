/* failing_malloc.c: walks the functions whose allocations no context counts (files, structures, assignment, opening):
 * malloc, calloc and realloc of the whole process are ours, the nth fails, and what was taken has to come back.
 *
 *     failing_malloc FOLDER        (with a.bcif and a.tar in it) prints a line for each function, exits with 1 after the first that is wrong
 *
 * A function is called with the first allocation failing, then the second, until one call succeeds. Every failure must
 * return MF_ENOMEM or MF_EIO (where a library of the system hides its own), leave *out NULL, and free what it took. */
#include "../../core/moonfold.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void *p);

static long countdown;            /* 0: none fails */
static long taken;                /* blocks alive */

static int refused(void) { return countdown > 0 && --countdown == 0; }

void *malloc(size_t bytes) {
    void *p = refused() ? NULL : __libc_malloc(bytes);
    taken += p != NULL;
    return p;
}

void *calloc(size_t n, size_t bytes) {
    void *p = refused() ? NULL : __libc_calloc(n, bytes);
    taken += p != NULL;
    return p;
}

void *realloc(void *old, size_t bytes) {
    void *p = refused() ? NULL : __libc_realloc(old, bytes);
    taken += p != NULL && old == NULL;
    return p;
}

int posix_memalign(void **out, size_t alignment, size_t bytes) {
    void *p = refused() ? NULL : __libc_memalign(alignment, bytes);
    if (p == NULL) return ENOMEM;
    taken++;
    *out = p;
    return 0;
}

/* OpenMP's runtime alone asks this way; it ends the process when it gets nothing, so it always does. */
void *memalign(size_t alignment, size_t bytes) {
    void *p = __libc_memalign(alignment, bytes);
    taken += p != NULL;
    return p;
}

void free(void *p) {
    taken -= p != NULL;
    __libc_free(p);
}

static char tar_path[4096], bcif_path[4096], path[4096], text_path[4096], pdb_path[4096], cif_path[4096];
static char entry_path[4096], npy_path[4096], npz_path[4096];
static mf_ctx *ctx;
static mf_tensor *w, *turned;     /* turned: (3, 3), not contiguous */
static mf_archive *stored;        /* two rows of three */
static mf_structure *built, *folded;   /* folded: a real protein, and a base pair */

typedef struct results {          /* what a call made; all NULL after a failure */
    mf_archive *archive;
    mf_zip *zip;
    mf_pickle *pickle;
    mf_structure *structure;
    mf_cif *cif;
    mf_tar *tar;
    mf_ctx *ctx;
    char *text;
    mf_tensor *tensors[4];
} results;

static mf_status ctx_open(results *r) { return mf_ctx_open(&r->ctx); }

static mf_status memory_report(results *r) {
    char text[512];
    (void)r;
    if (mf_memory_report(ctx, text, sizeof text) > 0) return MF_OK;
    return countdown == 0 && text[0] == 0 ? MF_ENOMEM : MF_EVALUE;
}

static mf_status assignment(results *r) {
    double cost[9] = {1, 2, 3, 2, 4, 6, 3, 6, 9};
    int32_t row_of[3];
    (void)r;
    return mf_assignment(row_of, cost, 3);
}

static mf_status tm_score(results *r) {
    double x[15] = {0, 0, 0, 3, 1, 0, 5, 4, 1, 8, 5, 4, 9, 9, 9};
    mf_tm_result scores;
    (void)r;
    return mf_tm_score(&scores, x, x, 5, 5, 0.5);
}

static mf_status archive_write(results *r) {
    const char *names[2] = {"weight", "bias"}, *key[1] = {"format"}, *value[1] = {"one"};
    const mf_tensor *tensors[2] = {w, w};
    (void)r;
    return mf_archive_write(path, names, tensors, 2, key, value, 1);
}

static mf_status archive_stream(results *r) {
    const int64_t shape[2] = {6, 3}, none[1] = {0};
    static const char row[12];
    mf_archive_stream *s;
    mf_status status = mf_archive_stream_open(&s, path);
    (void)r;
    if (status != MF_OK) return status;
    if ((status = mf_archive_stream_declare(s, "weight", MF_FLOAT32, 2, shape)) != MF_OK) goto out;
    if ((status = mf_archive_stream_declare(s, "none", MF_ARCHIVE_BYTES, 1, none)) != MF_OK) goto out;
    if ((status = mf_archive_stream_metadata(s, "key", "value")) != MF_OK) goto out;
    if ((status = mf_archive_stream_put(s, 0, row, 12)) != MF_OK) goto out;
    if ((status = mf_archive_stream_append(s, 0, turned)) != MF_OK) goto out;
    if ((status = mf_archive_stream_copy(s, 0, stored, 0, 0, 2)) != MF_OK) goto out;
    return mf_archive_stream_commit(s);
out:
    mf_archive_stream_abandon(s);
    return status;
}

static mf_status process(results *r) {
    const char *const words[2] = {"cat", NULL}, *const added[2] = {"NAME=value", NULL};
    mf_process *p;
    mf_status status = mf_process_start(&p, words, added);
    int64_t ready, bytes;
    int code, number;
    const char *line;
    (void)r;
    if (status == MF_OK) status = mf_process_write(p, "one\ntwo\n", 8);
    if (status == MF_OK) status = mf_process_poll(&ready, &p, 1, 60);
    if (status == MF_OK) status = mf_process_line(&line, &bytes, p);
    if (status == MF_OK) status = mf_process_wait(&code, &number, p);
    mf_process_release(p);
    return status;
}

static mf_status poll_many(results *r) {
    mf_process *list[20], *p;
    const char *const words[2] = {"cat", NULL};
    int64_t ready;
    mf_status status = mf_process_start(&p, words, NULL);
    (void)r;
    for (int i = 0; i < 20; i++) list[i] = p;
    if (status == MF_OK) status = mf_process_poll(&ready, list, 20, 0.01);
    mf_process_release(p);
    return status;
}

static mf_status file_sha256(results *r) {
    char hex[65];
    int64_t bytes;
    (void)r;
    return mf_file_sha256(hex, &bytes, "spec/fixtures/1ubq.pdb.gz", 0, -1);
}

static mf_status file_inflate(results *r) {
    (void)r;
    return mf_file_inflate("spec/fixtures/1ubq.pdb.gz", pdb_path);
}

static mf_status file_move(results *r) {
    (void)r;
    mf_status status = mf_file_move(text_path, pdb_path);
    if (status == MF_OK) status = rename(pdb_path, text_path) == 0 ? MF_OK : MF_EVALUE;
    return status;
}

static mf_status archive_open(results *r) { return mf_archive_open(&r->archive, path); }

static mf_status zip_write(results *r) {
    const mf_zip_part parts[2] = {{.name = "a", .data = "head", .bytes = 4, .tensor = w}, {.name = "b", .tensor = w, .deflate = 1}};
    (void)r;
    return mf_zip_write(npz_path, parts, 2, 64);
}

static mf_status npz_write(results *r) {
    const char *names[2] = {"weight", "bias"};
    const mf_tensor *tensors[2] = {w, w};
    (void)r;
    return mf_npz_write(npz_path, names, tensors, 2, 1);
}

static mf_status npy_write(results *r) { (void)r; return mf_npy_write(npy_path, w); }
static mf_status npy_read(results *r) { return mf_npy_read(&r->tensors[0], ctx, npy_path); }
static mf_status zip_open(results *r) { return mf_zip_open(&r->zip, npz_path); }

/* Opening is a part of it: a second reading would find what the first has inflated. */
static mf_status zip_read(results *r) {
    int64_t bytes;
    mf_zip *zip;
    mf_status status = mf_zip_open(&zip, npz_path);
    if (status == MF_OK) status = mf_zip_read(&r->text, &bytes, zip, 0);
    mf_zip_close(zip);
    return status;
}

static mf_status zip_npy(results *r) {
    mf_zip *zip;
    mf_status status = mf_zip_open(&zip, npz_path);
    if (status == MF_OK) status = mf_zip_npy(&r->tensors[0], zip, ctx, 0);
    mf_zip_close(zip);
    return status;
}

static const mf_layout layout = {.kind = MF_LAYOUT_UNSIGNED, .width = 1, .ndim = 1, .shape = {6}, .stride = {1}};

static mf_status zip_tensor(results *r) {
    mf_zip *zip;
    mf_status status = mf_zip_open(&zip, npz_path);
    if (status == MF_OK) status = mf_zip_tensor(&r->tensors[0], zip, ctx, 0, &layout);
    mf_zip_close(zip);
    return status;
}

static mf_status layout_tensor(results *r) { return mf_layout_tensor(&r->tensors[0], ctx, &layout, "sixsix", 6); }

/* Every table grows past its first block: values, cells, stack, marks, memo, decoded text. */
static mf_status pickle_parse(results *r) {
    static char text[4096];
    int n = 0;
    for (int k = 0; k < 100; k++) n += snprintf(text + n, sizeof text - (size_t)n, "(]p%d\n", k);
    for (int k = 0; k < 100; k++) n += snprintf(text + n, sizeof text - (size_t)n, "Va\\u00e9\nKat");
    text[n++] = '.';
    return mf_pickle_parse(&r->pickle, text, n, "text");
}

static mf_status file_replace(results *r) {
    (void)r;
    return mf_file_replace(text_path, "some text\n", 10);
}

static mf_status file_read(results *r) {
    int64_t bytes;
    return mf_file_read(&r->text, &bytes, text_path, 0);
}

/* Enough residues, chains and names for every table to grow. */
static mf_status build(results *r) {
    mf_status status = mf_structure_create(&r->structure, "1ABC", "A TITLE");
    for (int c = 0; c < 3 && status == MF_OK; c++) {
        const char chain[2] = {(char)('A' + c), 0};
        status = mf_structure_add_chain(r->structure, 1, chain, MF_POLYMER_PROTEIN);
        for (int i = 0; i < 30 && status == MF_OK; i++) {
            status = mf_structure_add_residue(r->structure, i % 2 ? "GLY" : "ALA", i + 1);
            for (int k = 0; k < 4 && status == MF_OK; k++)
                status = mf_structure_add_atom(r->structure, (const char *[]){"N", "CA", "C", "O"}[k], k ? k < 3 ? "C" : "O" : "N",
                                               (double[]){1.5 * i, 0.5 * k, c}, 0);
        }
    }
    if (status != MF_OK) {        /* a structure being built is the caller's to release */
        mf_structure_release(r->structure);
        r->structure = NULL;
    }
    return status;
}

static mf_status write_pdb(results *r) { (void)r; return mf_structure_write(built, pdb_path, MF_FORMAT_PDB); }
static mf_status write_mmcif(results *r) { (void)r; return mf_structure_write(built, cif_path, MF_FORMAT_MMCIF); }
/* Two models, of which the second has the parts of the first. */
static mf_status stream(const char *to, const mf_structure *s) {
    mf_structure_writer *out;
    mf_status status = mf_structure_writer_open(&out, to, MF_FORMAT_AUTO);
    if (status != MF_OK) return out ? MF_EVALUE : status;
    for (int i = 0; i < 2 && status == MF_OK; i++) status = mf_structure_writer_add(out, s);
    if (status == MF_OK) return mf_structure_writer_commit(out);
    mf_structure_writer_abandon(out);
    return status;
}
static mf_status stream_pdb(results *r) { (void)r; return stream(pdb_path, built); }
static mf_status stream_mmcif(results *r) { (void)r; return stream(cif_path, folded); }

static mf_status read_pdb(results *r) { return mf_structure_read(&r->structure, pdb_path, NULL); }
static mf_status read_mmcif(results *r) { return mf_structure_read(&r->structure, cif_path, NULL); }

/* Sequences, molecules and ligands; locations; a chain that comes back; a residue of another name, and one that goes on after others. */
#define ATOM(name, alt, residue, place, x) "ATOM      1  " name alt residue " " place "      " x "   2.000   3.000  0.50  0.00           C\n"
static const char entry[] =
    "COMPND    MOL_ID: 1; MOLECULE: X; CHAIN: A\nSEQRES   1 A    4  ALA GLY SER VAL\nSEQRES   1 B    1  GLY\nHETNAM     XYZ A LIGAND\n"
    "REMARK 350 BIOMOLECULE: 1\nREMARK 350 AUTHOR DETERMINED BIOLOGICAL UNIT: DIMERIC\nMODRES 1ABC QQQ A    1  ALA\n"
    ATOM("CA ", " ", "QQQ", "A   1", " 1.000") ATOM("CA ", " ", "GLY", "B   1", " 2.000") "TER\n" ATOM("CA ", "A", "SER", "A   3", " 3.000")
    ATOM("CA ", "B", "VAL", "A   3", " 4.000") ATOM("CB ", "A", "SER", "A   3", " 5.000") ATOM("CA ", " ", "VAL", "A   9", " 6.000") "TER\n"
    "HETATM    1  O   HOH A   9       7.000   2.000   3.000  1.00  0.00           O\nEND\n";

static mf_status parse(results *r) { return mf_structure_parse(&r->structure, entry, sizeof entry - 1, "text", NULL); }

static mf_status read_chains(results *r, const char *file) {
    mf_chain_reader *reader;
    mf_status status = mf_chain_reader_open(&reader, file, NULL);
    if (status != MF_OK) return status;
    do {
        mf_structure_release(r->structure);
        r->structure = NULL;
        status = mf_chain_reader_next(&r->structure, reader);
    } while (status == MF_OK && r->structure);
    mf_chain_reader_close(reader);
    return status;
}

static mf_status read_bcif(results *r) { return mf_structure_read(&r->structure, bcif_path, NULL); }
static mf_status cif_read(results *r) { return mf_cif_read(&r->cif, cif_path, 0); }
static mf_status cif_read_binary(results *r) { return mf_cif_read(&r->cif, bcif_path, 0); }

static mf_status cif_parse(results *r) {
    static const char text[] = "data_x _a.u 1 _b.u 2 _a.v 3 loop_ _c.u _c.v 1 2 3 4 save_f _a.u 1 save_ data_y _z 'q'";
    return mf_cif_parse(&r->cif, text, sizeof text - 1, "text");
}

static mf_status tar_open(results *r) { return mf_tar_open(&r->tar, tar_path); }

/* One member, of a name that does not fit its header. */
static mf_status tar_walk(results *r) {
    mf_tar_member m;
    int64_t bytes;
    mf_status status = mf_tar_open(&r->tar, tar_path);
    if (status == MF_OK) status = mf_tar_next(&m, r->tar);
    if (status == MF_OK) status = mf_tar_read(&r->text, &bytes, r->tar, 0);
    if (status == MF_OK) status = mf_tar_next(&m, r->tar);
    if (status != MF_OK && r->text == NULL) {
        mf_tar_close(r->tar);
        r->tar = NULL;
    }
    return status;
}
static mf_status chains_pdb(results *r) { return read_chains(r, entry_path); }
static mf_status chains_mmcif(results *r) { return read_chains(r, cif_path); }

static mf_status dssp(results *r) {
    static char letters[4096];
    (void)r;
    return mf_structure_dssp(letters, folded, 1, 3);
}

static mf_status backbone_dssp(results *r) {
    static const double nothing[24];
    char letters[2];
    (void)r;
    return mf_backbone_dssp(letters, nothing, NULL, NULL, 2, 0);
}

static mf_status gyration(results *r) {
    double radius;
    (void)r;
    return mf_structure_gyration(&radius, folded, 1);
}

static mf_status contacts(results *r) {
    mf_contact_params params = {.cutoff = 12, .model = 1, .each_atom = 1, .separation = 1};
    return mf_structure_contacts(&r->tensors[0], &r->tensors[1], folded, ctx, &params);
}

static mf_status clashes(results *r) { return mf_structure_clashes(&r->tensors[0], &r->tensors[1], folded, ctx, 1, 0); }
static mf_status base_pairs(results *r) { return mf_structure_base_pairs(&r->tensors[0], &r->tensors[1], folded, ctx, 1); }
static mf_status base_frames(results *r) {
    return mf_structure_base_frames(&r->tensors[0], &r->tensors[1], &r->tensors[2], &r->tensors[3], folded, ctx, 2);    /* the C */
}

static mf_status image_png(results *r) {
    static const unsigned char pixels[12];
    (void)r;
    return mf_image_png(text_path, pixels, 2, 2, 3);
}

/* Ubiquitin and a G-C pair, flat, of the atoms that matter. */
static mf_status fold(void) {
    static const struct { const char *name; double x, y; } atoms[2][9] = {
        {{"C1'", -2.477, 5.399}, {"C4", -1.265, 3.177}, {"C6", 0.424, 1.460}, {"O6", 1.554, 0.955}, {"N1", -0.700, 0.641},
         {"C2", -1.999, 1.087}, {"N2", -2.949, 0.139}, {"N3", -2.342, 2.364}, {"N7", 0.870, 3.969}},
        {{"C1'", -2.477, -5.402}, {"N1", -1.285, -4.542}, {"C2", -1.472, -3.158}, {"O2", -2.628, -2.709}, {"N3", -0.391, -2.344},
         {"C4", 0.837, -2.868}, {"N4", 1.875, -2.027}, {"C5", 1.056, -4.275}, {"C6", -0.023, -5.068}},
    };
    mf_status status = mf_structure_read(&folded, "spec/fixtures/1ubq.pdb.gz", NULL);
    for (int c = 0; c < 2 && status == MF_OK; c++) {
        status = mf_structure_add_chain(folded, 1, c ? "C" : "B", MF_POLYMER_RNA);
        if (status == MF_OK) status = mf_structure_add_residue(folded, c ? "C" : "G", 1);
        for (int k = 0; k < 9 && status == MF_OK; k++) {
            const char element[2] = {atoms[c][k].name[0], 0};
            status = mf_structure_add_atom(folded, atoms[c][k].name, element, (double[]){atoms[c][k].x, atoms[c][k].y, 90}, 0);
        }
    }
    return status;
}

static void give_back(results *r) {
    for (size_t i = 0; i < sizeof r->tensors / sizeof *r->tensors; i++) mf_tensor_release(r->tensors[i]);
    mf_archive_close(r->archive);
    mf_zip_close(r->zip);
    mf_pickle_release(r->pickle);
    mf_structure_release(r->structure);
    mf_cif_release(r->cif);
    mf_tar_close(r->tar);
    mf_ctx_release(r->ctx);
    mf_file_free(r->text);
}

/* Blocks that someone holds: not those that the context keeps for its next tensor. */
static long alive(void) {
    (void)mf_memory_flush(ctx, MF_CPU);
    return taken;
}

static int walk(const char *name, mf_status (*call)(results *)) {
    results warm = {NULL};        /* what the system keeps from its first call (stdio, locales) is not ours */
    if (call(&warm) != MF_OK) {
        printf("%s: fails with nothing in its way: %s\n", name, mf_error_text());
        return 1;
    }
    give_back(&warm);
    for (long n = 1; n < 100000; n++) {
        results r = {NULL};
        const long before = alive();
        countdown = n;
        const mf_status status = call(&r);
        const int reached = countdown == 0;
        countdown = 0;
        if (status == MF_OK) {
            give_back(&r);
            if (alive() != before) {
                printf("%s: %ld blocks lost by a call that succeeded\n", name, taken - before);
                return 1;
            }
            if (reached) continue;          /* it did without: a cache, or a library of the system */
            printf("%s: %ld allocations\n", name, n - 1);
            return 0;
        }
        if (status != MF_ENOMEM && status != MF_EIO) {
            printf("%s: allocation %ld: %s: %s\n", name, n, mf_status_name(status), mf_error_text());
            return 1;
        }
        if (r.archive || r.structure || r.cif || r.zip || r.pickle || r.tar || r.ctx || r.text || r.tensors[0] || r.tensors[1] || r.tensors[2] ||
            r.tensors[3] || alive() != before) {
            printf("%s: allocation %ld failed and left %ld blocks or a result\n", name, n, taken - before);
            return 1;
        }
    }
    printf("%s: does not end\n", name);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    snprintf(path, sizeof path, "%s/a.safetensors", argv[1]);
    snprintf(text_path, sizeof text_path, "%s/a.txt", argv[1]);
    snprintf(pdb_path, sizeof pdb_path, "%s/a.pdb", argv[1]);
    snprintf(cif_path, sizeof cif_path, "%s/a.cif", argv[1]);
    snprintf(bcif_path, sizeof bcif_path, "%s/a.bcif", argv[1]);
    snprintf(tar_path, sizeof tar_path, "%s/a.tar", argv[1]);
    snprintf(npy_path, sizeof npy_path, "%s/a.npy", argv[1]);
    snprintf(npz_path, sizeof npz_path, "%s/a.npz", argv[1]);
    snprintf(entry_path, sizeof entry_path, "%s/entry.pdb", argv[1]);
    if (mf_file_replace(entry_path, entry, sizeof entry - 1) != MF_OK) return 2;
    results r = {NULL};
    if (mf_ctx_open(&ctx) != MF_OK || build(&r) != MF_OK || fold() != MF_OK) return 2;
    if (mf_tensor_full(&w, ctx, MF_CPU, MF_FLOAT32, 2, (int64_t[]){2, 3}, 1) != MF_OK) return 2;
    const char *name = "rows";
    char stored_path[4096];
    snprintf(stored_path, sizeof stored_path, "%.4000s/stored", argv[1]);
    if (mf_archive_write(stored_path, &name, (const mf_tensor *const *)&w, 1, NULL, NULL, 0) != MF_OK) return 2;
    if (mf_archive_open(&stored, stored_path) != MF_OK) return 2;
    mf_tensor *square;
    if (mf_tensor_full(&square, ctx, MF_CPU, MF_FLOAT32, 2, (int64_t[]){3, 3}, 2) != MF_OK) return 2;
    if (mf_permute(&turned, square, (int[]){1, 0}) != MF_OK) return 2;
    mf_tensor_release(square);
    built = r.structure;
    int bad = walk("mf_ctx_open", ctx_open) | walk("mf_memory_report", memory_report) | walk("mf_assignment", assignment) | walk("mf_tm_score", tm_score) |
              walk("mf_archive_write", archive_write) | walk("mf_archive_open", archive_open) |
              walk("mf_archive_stream_open mf_archive_stream_declare mf_archive_stream_metadata mf_archive_stream_append "
                   "mf_archive_stream_put mf_archive_stream_copy mf_archive_stream_commit", archive_stream) |
              walk("mf_process_start mf_process_write mf_process_line mf_process_wait", process) | walk("mf_process_poll", poll_many) | walk("mf_file_replace", file_replace) |
              walk("mf_file_read", file_read) | walk("mf_file_sha256", file_sha256) | walk("mf_file_move", file_move) |
              walk("mf_file_inflate", file_inflate) | walk("mf_structure_create and add", build) |
              walk("mf_zip_write", zip_write) | walk("mf_npz_write", npz_write) | walk("mf_zip_open", zip_open) | walk("mf_zip_read", zip_read) |
              walk("mf_zip_npy", zip_npy) | walk("mf_zip_tensor", zip_tensor) | walk("mf_layout_tensor", layout_tensor) |
              walk("mf_npy_write", npy_write) | walk("mf_npy_read", npy_read) | walk("mf_pickle_parse", pickle_parse) |
              walk("mf_structure_write pdb", write_pdb) | walk("mf_structure_write mmcif", write_mmcif) |
              walk("mf_structure_writer_open to commit, pdb", stream_pdb) |
              walk("mf_structure_writer_open, mf_structure_writer_add, mf_structure_writer_commit mmcif", stream_mmcif) |
              walk("mf_structure_read pdb", read_pdb) | walk("mf_structure_read mmcif", read_mmcif) | walk("mf_structure_parse", parse) |
              walk("mf_structure_read bcif", read_bcif) | walk("mf_cif_read text", cif_read) | walk("mf_cif_read binary", cif_read_binary) |
              walk("mf_cif_parse", cif_parse) | walk("mf_tar_open", tar_open) | walk("mf_tar_next and mf_tar_read", tar_walk) |
              walk("mf_chain_reader_open mf_chain_reader_next pdb", chains_pdb) | walk("mf_chain_reader_open mf_chain_reader_next mmcif", chains_mmcif) |
              walk("mf_structure_dssp", dssp) | walk("mf_backbone_dssp", backbone_dssp) | walk("mf_structure_gyration", gyration) |
              walk("mf_structure_contacts", contacts) | walk("mf_structure_clashes", clashes) |
              walk("mf_structure_base_pairs", base_pairs) |
              walk("mf_structure_base_frames", base_frames) | walk("mf_image_png", image_png);
    mf_structure_release(folded);
    mf_structure_release(built);
    mf_archive_close(stored);
    mf_tensor_release(turned);
    mf_tensor_release(w);
    mf_ctx_release(ctx);
    return bad;
}
