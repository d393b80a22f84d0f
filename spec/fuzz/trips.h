/* trips.h: a structure written and read again is the same one. What a format cannot hold is not compared: a small function says of each
 * case what it is. */
#ifndef MF_FUZZ_TRIPS_H
#define MF_FUZZ_TRIPS_H
#include "same.h"
#include "../../core/io/write.h"
#include <unistd.h>

/* Written and read again. */
static mf_structure *trip(const mf_structure *s, int format, const char *path) {
    mf_structure *again;
    mf_read_params params;
    mf_read_params_init(&params);
    params.format = format;
    params.altlocs = MF_ALTLOC_ALL;
    if (mf_structure_write(s, path, format) != MF_OK) return NULL;    /* refusing is an answer */
    if (mf_structure_read(&again, path, &params) != MF_OK) {
        fprintf(stderr, "what was written is refused: %s\n", mf_error_text());
        abort();
    }
    unlink(path);
    return again;
}

static void same_counts(const same *p) {
    mf_structure_counts n, m;
    mf_structure_count(p->a, &n);
    mf_structure_count(p->b, &m);
    same_number(p, "structure", 0, "models", (double)n.models, (double)m.models);
    same_number(p, "structure", 0, "chains", (double)n.chains, (double)m.chains);
    same_number(p, "structure", 0, "residues", (double)n.residues, (double)m.residues);
    same_number(p, "structure", 0, "atoms", (double)n.atoms, (double)m.atoms);
    same_number(p, "structure", 0, "records", (double)n.records, (double)m.records);
    same_number(p, "structure", 0, "alternates", (double)n.alternates, (double)m.alternates);
}

/* Are the serials of the model that begins with chain `first` kept? Those that rise from above `last` in the order of the file are. */
static int keeps_serials(const mf_structure *s, int64_t first, int64_t end, int64_t last, int64_t most, int ters) {
    mf__order order;
    if (mf__order_model(&order, s, first, end) != MF_OK) abort();
    const int keeps = mf__serials_rise(&order, s, last, most, ters);
    free(order.items);
    return keeps;
}

static int64_t last_serial(const mf_structure *s, int64_t first, int64_t end) {
    int64_t last = -1;
    const mf__chain *c = &s->chains[end - 1];
    const mf__residue *r = &s->residues[c->first_residue + c->residues - 1];
    for (int64_t i = s->residues[s->chains[first].first_residue].first_atom; i < r->first_atom + r->atoms; i++)
        if (s->atoms[i].serial > last) last = s->atoms[i].serial;
    return last;
}

/* A residue without an asym: then the writer makes asyms for all, and may number the residues of polymers anew. */
static int lacks_asyms(const mf_structure *s) {
    for (int64_t i = 0; i < s->n_residues; i++)
        if (s->residues[i].asym == 0) return 1;
    return 0;
}

/* The entity of residue r of chain c, a name: a residue of a polymer that has none is of the chain's. */
static int32_t entity_of(const mf_structure *s, const mf__chain *c, int64_t r) {
    const mf__residue *q = &s->residues[r];
    return q->entity || q->label == 0 ? q->entity : c->entity;
}

/* The last label of the residues of entity i: its sequence has to reach so far in mmCIF. -1 where the writer decides: labels that it
 * numbers anew, or that leave a gap which is nonsense. */
static int64_t reach(const mf_structure *s, int64_t i) {
    int64_t last = 0, n = 0;
    if (lacks_asyms(s)) return -1;
    for (int64_t c = 0; c < s->n_chains; c++)
        for (int64_t r = s->chains[c].first_residue; r < s->chains[c].first_residue + s->chains[c].residues; r++) {
            const int64_t label = s->residues[r].label;
            if (label == 0 || entity_of(s, &s->chains[c], r) != s->entities[i].id) continue;
            n++;
            if (label > last) last = label;
        }
    return last - s->entities[i].monomers <= 10 * n + 1000 ? last : -1;
}

/* Are there chains with residues of the entity of that id, a name, that have polymers of several kinds? mmCIF knows one for an entity. */
static int is_torn(const mf_structure *s, int32_t id) {
    int polymer = -1;
    for (int64_t c = 0; c < s->n_chains && id; c++)
        for (int64_t r = s->chains[c].first_residue; r < s->chains[c].first_residue + s->chains[c].residues; r++) {
            if (s->residues[r].label == 0 || entity_of(s, &s->chains[c], r) != id) continue;
            if (polymer >= 0 && s->chains[c].polymer != polymer) return 1;
            polymer = s->chains[c].polymer;
        }
    return 0;
}

static int entity_is_torn(const mf_structure *s, int64_t i) { return is_torn(s, s->entities[i].id); }

/* Are two residues of a chain alike in name, number and insertion code, and for mmCIF in asym and label too? They are two, since one
 * repeats an atom of the other or stands after a TER; when what stands between their rows has moved they may be one. Where the writer
 * makes asyms it keeps them apart by those, but for residues of a polymer, which have one. */
static int has_twins(const mf_structure *s, int mmcif) {
    const int makes = lacks_asyms(s);
    for (int64_t c = 0; c < s->n_chains; c++) {
        const mf__residue *r = s->residues + s->chains[c].first_residue;
        for (int64_t i = 0; i < s->chains[c].residues; i++)
            for (int64_t k = 0; k < i; k++) {
                const int alike = r[i].number == r[k].number && r[i].insertion == r[k].insertion && r[i].name == r[k].name;
                const int apart = mmcif && (r[i].label != r[k].label || (makes ? r[i].label == 0 : r[i].asym != r[k].asym));
                if (alike && !apart) return 1;
            }
    }
    return 0;
}

static const same_written written = {reach, entity_is_torn};

/* mmCIF holds everything. What a structure lacks, the writer makes: asyms, entities, sequences. */
static void by_mmcif(const mf_structure *s, const char *path) {
    mf_structure *b = trip(s, MF_FORMAT_MMCIF, path);
    if (!b) return;
    same p = {s, b, "mmCIF"};
    int fields = lacks_asyms(s) ? FIELD_FILE & ~(FIELD_LABEL | FIELD_ASYM) : FIELD_FILE;
    const int whole = !has_twins(s, 1);
    if (whole) same_counts(&p);
    same_heading(&p);
    same_entities(&p, FIELD_POLYMER, &written);
    same_assemblies(&p);
    int64_t last = -1;
    for (int64_t first = 0, end; first < s->n_chains && whole; first = end) {
        end = mf__model_end(s, first);
        if (!keeps_serials(s, first, end, last, INT32_MAX, 0)) fields &= ~FIELD_SERIAL;    /* nor are those that follow */
        for (int64_t i = first; i < end; i++) same_chain(&p, i, i, fields & ~(is_torn(s, s->chains[i].entity) ? FIELD_POLYMER : 0));
        last = last_serial(s, first, end);
    }
    mf_structure_release(b);
}

/* Without blanks: between words they are one, and a word longer than a line is broken. */
static void squeeze(char *out, size_t room, const char *text) {
    size_t n = 0;
    for (; *text && n + 1 < room; text++)
        if (*text != ' ') out[n++] = *text;
    out[n] = '\0';
}

static void same_words(const same *p, const char *field, int text) {
    char x[2048], y[2048];
    squeeze(x, sizeof x, mf_structure_text(p->a, text, 0));
    squeeze(y, sizeof y, mf_structure_text(p->b, text, 0));
    if (strcmp(x, y) != 0) differ(p, "structure", 0, field, x, y);
}

/* PDB has no asyms, entities and assemblies; which residues are of a polymer, and what it is, is a guess from names, atoms and TER,
 * which another order of the residues may change (spec/tools/roundtrip.lua compares it over real files). Numbers are as wide as their
 * columns. Ids have four characters, and texts one blank between words. */
static void by_pdb(const mf_structure *s, const char *path) {
    mf_structure *b = trip(s, MF_FORMAT_PDB, path);
    if (!b) return;
    same p = {s, b, "PDB"};
    double x[6], y[6];
    const int whole = !has_twins(s, 0);
    if (whole) same_counts(&p);
    same_words(&p, "title", MF_TEXT_TITLE);
    same_words(&p, "method", MF_TEXT_METHOD);
    if (strlen(mf_structure_text(s, MF_TEXT_ID, 0)) <= 4) same_words(&p, "id", MF_TEXT_ID);
    if (mf_structure_cell(x, s)) {
        mf_structure_cell(y, b);
        for (int i = 0; i < 6; i++) same_number(&p, "cell", i, "number", rounded(x[i], i < 3 ? 3 : 2), y[i]);
        if (strlen(mf_structure_text(s, MF_TEXT_SPACE_GROUP, 0)) <= 11) same_words(&p, "space group", MF_TEXT_SPACE_GROUP);
    }
    for (int64_t first = 0, end; first < s->n_chains && whole; first = end) {
        end = mf__model_end(s, first);
        int fields = FIELD_COLUMNS;
        if (keeps_serials(s, first, end, -1, 99999 + 52 * 36 * 36 * 36 * 36, 1)) fields |= FIELD_SERIAL;
        for (int64_t i = first; i < end; i++) same_chain(&p, i, i, fields);
    }
    mf_structure_release(b);
}
#endif
