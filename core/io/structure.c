/* structure.c: structures in memory: building, looking, and taking atoms out as tensors. */
#include "structure.h"
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

mf_status mf_structure_create(mf_structure **out, const char *id, const char *title) {
    *out = NULL;
    const char *const texts[] = {id ? id : "", title ? title : ""};
    for (int i = 0; i < 2; i++)
        for (const char *p = texts[i]; *p; p++)
            if ((unsigned char)*p < ' ' || *p == 127) return mf__fail(MF_EVALUE, "structure.create: the %s has a control character", i ? "title" : "id");
    mf_structure *s = calloc(1, sizeof *s);
    if (!s) return mf__fail(MF_ENOMEM, "structure.create: no memory");
    mf_status status = mf__names_init(&s->names);
    if (status == MF_OK) status = mf__names_add(&s->names, &s->id, texts[0], (int64_t)strlen(texts[0]));
    if (status == MF_OK) status = mf__names_add(&s->names, &s->title, texts[1], (int64_t)strlen(texts[1]));
    if (status != MF_OK) {
        mf_structure_release(s);
        return status;
    }
    *out = s;
    return MF_OK;
}

/* What structures of one file have in common. It does not change once it is shared, so that threads may hold some each. */
struct mf__header {
    atomic_int users;
    mf__names names;
    mf__entity *entities;
    int32_t *monomers;
    mf__assembly *assemblies;
};

static void release_header(mf__header *h) {
    if (!h || atomic_fetch_sub(&h->users, 1) > 1) return;
    mf__names_free(&h->names);
    free(h->entities);
    free(h->monomers);
    free(h->assemblies);
    free(h);
}

void mf_structure_release(mf_structure *s) {
    if (!s) return;
    mf__names_free(&s->names);
    mf__map_free(&s->entity_of);
    free(s->chains);
    free(s->residues);
    free(s->atoms);
    if (!s->header || s->entities != s->header->entities) free(s->entities);
    if (!s->header || s->monomers != s->header->monomers) free(s->monomers);
    if (!s->header || s->assemblies != s->header->assemblies) free(s->assemblies);
    release_header(s->header);
    free(s);
}

mf_status mf__share_header(mf_structure *s) {
    mf_assert(!s->header);
    mf__header *h = calloc(1, sizeof *h);
    if (!h) return mf__fail(MF_ENOMEM, "structure.read: no memory");
    atomic_init(&h->users, 1);
    h->names = s->names;
    mf__names_on(&s->names, &h->names);
    h->entities = s->entities;
    h->monomers = s->monomers;
    h->assemblies = s->assemblies;
    s->entity_room = s->monomer_room = s->assembly_room = 0;
    s->header = h;
    return MF_OK;
}

mf_status mf__structure_like(mf_structure **out, const mf_structure *s) {
    *out = malloc(sizeof **out);
    if (!*out) return mf__fail(MF_ENOMEM, "structure.read: no memory");
    **out = (mf_structure){
        .header = s->header, .id = s->id, .title = s->title, .method = s->method, .date = s->date, .space_group = s->space_group,
        .resolution = s->resolution, .entities = s->header->entities, .monomers = s->header->monomers, .assemblies = s->header->assemblies,
        .n_entities = s->n_entities, .n_monomers = s->n_monomers, .n_assemblies = s->n_assemblies,
    };
    memcpy((*out)->cell, s->cell, sizeof s->cell);
    mf__names_on(&(*out)->names, &s->header->names);
    atomic_fetch_add(&s->header->users, 1);
    return MF_OK;
}

/* mf__reserve for one of the three arrays that may be the header's. */
static mf_status reserve_own(void **items, const void *shared, int64_t count, int64_t *room, size_t size) {
    if (!shared || *items != shared) return mf__reserve(items, count, room, size);
    void *copy = malloc((size_t)(2 * count + 16) * size);
    if (!copy) return mf__fail(MF_ENOMEM, "structure: no memory for %lld items", (long long)(2 * count + 16));
    memcpy(copy, shared, (size_t)count * size);
    *items = copy;
    *room = 2 * count + 16;
    return MF_OK;
}

/* A name of the caller's: text without control characters (they would break the lines of a file). */
static mf_status add_name(mf_structure *s, int32_t *out, const char *what, const char *text, int may_be_empty) {
    if (!text || (!*text && !may_be_empty)) return mf__fail(MF_EVALUE, "structure.add: no %s", what);
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 127) return mf__fail(MF_EVALUE, "structure.add: the %s '%.32s' has a blank or a control character", what, text);
    return mf__names_add(&s->names, out, text, (int64_t)strlen(text));
}

mf_status mf_structure_add_chain(mf_structure *s, int model, const char *id, int polymer) {
    if (model < 1 || model < s->models || model > s->models + 1)
        return mf__fail(MF_EVALUE, "structure.add_chain: model %d after model %d (models count from 1, in order)", model, s->models);
    if (polymer < MF_POLYMER_NONE || polymer > MF_POLYMER_DNA) return mf__fail(MF_EVALUE, "structure.add_chain: unknown polymer %d", polymer);
    int32_t name;
    MF_TRY(add_name(s, &name, "chain id", id, 1));
    MF_TRY(mf__reserve((void **)&s->chains, s->n_chains, &s->chain_room, sizeof *s->chains));
    s->chains[s->n_chains++] = (mf__chain){.id = name, .first_residue = s->n_residues, .model = model, .polymer = polymer};
    s->models = model;
    return MF_OK;
}

mf_status mf_structure_add_residue(mf_structure *s, const char *name, int number) {
    if (s->n_chains == 0) return mf__fail(MF_ESTATE, "structure.add_residue: add a chain first");
    mf__chain *chain = &s->chains[s->n_chains - 1];
    int32_t number_of_name;
    MF_TRY(add_name(s, &number_of_name, "residue name", name, 0));
    MF_TRY(mf__reserve((void **)&s->residues, s->n_residues, &s->residue_room, sizeof *s->residues));
    mf__kind kind = mf__residue_kind(name);
    int polymer = chain->polymer != MF_POLYMER_NONE;
    if (chain->residues >= INT32_MAX) return mf__fail(MF_EVALUE, "structure.add_residue: too many residues");
    s->residues[s->n_residues++] = (mf__residue){
        .name = number_of_name, .number = number, .label = polymer ? (int)chain->residues + 1 : 0, .first_atom = s->n_atoms,
        .code = kind.code, .hetero = !polymer || !kind.standard,
    };
    chain->residues++;
    return MF_OK;
}

mf_status mf_structure_add_atom(mf_structure *s, const char *name, const char *element, const double *xyz, double b) {
    if (s->n_residues == 0 || s->chains[s->n_chains - 1].residues == 0) return mf__fail(MF_ESTATE, "structure.add_atom: add a residue first");
    mf__residue *residue = &s->residues[s->n_residues - 1];
    if (!isfinite(xyz[0]) || !isfinite(xyz[1]) || !isfinite(xyz[2]) || !isfinite(b))
        return mf__fail(MF_EVALUE, "structure.add_atom: atom '%.32s' of residue %d has a coordinate or B that is not finite", name ? name : "", residue->number);
    if (s->n_atoms >= INT32_MAX) return mf__fail(MF_EVALUE, "structure.add_atom: too many atoms");
    int32_t atom, symbol;
    MF_TRY(add_name(s, &atom, "atom name", name, 0));
    MF_TRY(add_name(s, &symbol, "element", element ? element : "", 1));
    MF_TRY(mf__reserve((void **)&s->atoms, s->n_atoms, &s->atom_room, sizeof *s->atoms));
    const mf__chain *chain = &s->chains[s->n_chains - 1];
    int begins = s->residues[chain->first_residue].first_atom == s->n_atoms && (s->n_chains == 1 || chain[-1].model != chain->model);
    int serial = begins ? 1 : s->atoms[s->n_atoms - 1].serial + 1;    /* from 1 in every model */
    s->atoms[s->n_atoms] = (mf__atom){
        .x = xyz[0], .y = xyz[1], .z = xyz[2], .occupancy = 1, .b = b, .name = atom, .element = symbol, .serial = serial,
    };
    s->n_atoms++;
    residue->atoms++;
    return MF_OK;
}

void mf_structure_count(const mf_structure *s, mf_structure_counts *out) {
    *out = (mf_structure_counts){
        s->models, s->n_chains, s->n_residues, s->n_atoms, s->n_entities, s->n_monomers, s->n_assemblies, s->records, s->alternates,
    };
}

/* How many there are of what a text belongs to. */
static int64_t count_of(const mf_structure *s, int what) {
    switch (what) {
    case MF_TEXT_CHAIN: case MF_TEXT_ENTITY: return s->n_chains;
    case MF_TEXT_RESIDUE: case MF_TEXT_ASYM: case MF_TEXT_RESIDUE_ENTITY: return s->n_residues;
    case MF_TEXT_ATOM: case MF_TEXT_ELEMENT: return s->n_atoms;
    case MF_TEXT_ENTITY_ID: case MF_TEXT_ENTITY_NAME: return s->n_entities;
    case MF_TEXT_MONOMER: return s->n_monomers;
    case MF_TEXT_ASSEMBLY: case MF_TEXT_ASSEMBLY_DETAILS: case MF_TEXT_OLIGOMER: return s->n_assemblies;
    default: return INT64_MAX;
    }
}

const char *mf_structure_text(const mf_structure *s, int what, int64_t i) {
    if (i < 0 || i >= count_of(s, what)) return "";
    int32_t name = 0;
    switch (what) {
    case MF_TEXT_ID: name = s->id; break;
    case MF_TEXT_TITLE: name = s->title; break;
    case MF_TEXT_METHOD: name = s->method; break;
    case MF_TEXT_DATE: name = s->date; break;
    case MF_TEXT_SPACE_GROUP: name = s->space_group; break;
    case MF_TEXT_CHAIN: name = s->chains[i].id; break;
    case MF_TEXT_ENTITY: name = s->chains[i].entity; break;
    case MF_TEXT_RESIDUE: name = s->residues[i].name; break;
    case MF_TEXT_ASYM: name = s->residues[i].asym; break;
    case MF_TEXT_RESIDUE_ENTITY: name = s->residues[i].entity; break;
    case MF_TEXT_ATOM: name = s->atoms[i].name; break;
    case MF_TEXT_ELEMENT: name = s->atoms[i].element; break;
    case MF_TEXT_ENTITY_ID: name = s->entities[i].id; break;
    case MF_TEXT_ENTITY_NAME: name = s->entities[i].description; break;
    case MF_TEXT_MONOMER: name = s->monomers[i]; break;
    case MF_TEXT_ASSEMBLY: name = s->assemblies[i].id; break;
    case MF_TEXT_ASSEMBLY_DETAILS: name = s->assemblies[i].details; break;
    case MF_TEXT_OLIGOMER: name = s->assemblies[i].oligomer; break;
    default: break;
    }
    return mf__name(&s->names, name);
}

double mf_structure_resolution(const mf_structure *s) { return s->resolution; }

int mf_structure_cell(double *cell, const mf_structure *s) {
    memcpy(cell, s->cell, sizeof s->cell);
    return s->cell[0] > 0;
}

int mf__set_cell(mf_structure *s, const double cell[6]) {
    int is_none = (cell[0] == 1 && cell[1] == 1 && cell[2] == 1) || !(cell[0] > 0 && cell[1] > 0 && cell[2] > 0);
    if (!is_none) memcpy(s->cell, cell, sizeof s->cell);
    return !is_none;
}

static mf_status check_index(const char *what, int64_t i, int64_t count) {
    if (i >= 0 && i < count) return MF_OK;
    return mf__fail(MF_EVALUE, "structure.%s: there is no %s %lld, the structure has %lld", what, what, (long long)i + 1, (long long)count);
}

mf_status mf_structure_chain(const mf_structure *s, int64_t i, mf_chain_info *out) {
    memset(out, 0, sizeof *out);
    MF_TRY(check_index("chain", i, s->n_chains));
    const mf__chain *c = &s->chains[i];
    *out = (mf_chain_info){c->first_residue, c->residues, c->model, c->polymer};
    return MF_OK;
}

mf_status mf_structure_residue(const mf_structure *s, int64_t i, mf_residue_info *out) {
    memset(out, 0, sizeof *out);
    MF_TRY(check_index("residue", i, s->n_residues));
    const mf__residue *r = &s->residues[i];
    *out = (mf_residue_info){r->first_atom, r->atoms, r->number, r->label, r->insertion, r->code, r->hetero};
    return MF_OK;
}

mf_status mf_structure_atom(const mf_structure *s, int64_t i, mf_atom_info *out) {
    memset(out, 0, sizeof *out);
    MF_TRY(check_index("atom", i, s->n_atoms));
    const mf__atom *a = &s->atoms[i];
    *out = (mf_atom_info){a->x, a->y, a->z, a->occupancy, a->b, a->altloc, a->serial, a->charge};
    return MF_OK;
}

mf_status mf_structure_entity(const mf_structure *s, int64_t i, mf_entity_info *out) {
    memset(out, 0, sizeof *out);
    MF_TRY(check_index("entity", i, s->n_entities));
    const mf__entity *e = &s->entities[i];
    *out = (mf_entity_info){e->first_monomer, e->monomers, e->kind, e->polymer};
    return MF_OK;
}

mf_status mf_structure_assembly(const mf_structure *s, int64_t i, int *oligomeric_count) {
    *oligomeric_count = 0;
    MF_TRY(check_index("assembly", i, s->n_assemblies));
    *oligomeric_count = s->assemblies[i].count;
    return MF_OK;
}

mf_status mf__find_entity(mf__entity **out, mf_structure *s, const char *id, int64_t bytes) {
    int32_t name;
    int64_t *found;
    MF_TRY(mf__names_add(&s->names, &name, id, bytes));
    MF_TRY(reserve_own((void **)&s->entities, s->header ? s->header->entities : NULL, s->n_entities, &s->entity_room, sizeof *s->entities));
    for (int64_t i = s->entity_of.count; i < s->n_entities; i++)    /* those of a shared header */
        MF_TRY(mf__map_get(&s->entity_of, &found, (mf__key){(uint64_t)s->entities[i].id, 0, 0}, i));
    MF_TRY(mf__map_get(&s->entity_of, &found, (mf__key){(uint64_t)name, 0, 0}, s->n_entities));
    *out = &s->entities[*found];
    if (*found < s->n_entities) return MF_OK;
    s->n_entities++;
    **out = (mf__entity){.id = name, .first_monomer = s->n_monomers};
    return MF_OK;
}

mf_status mf__new_entity(mf_structure *s, int32_t *number, int kind, int32_t description) {
    char id[24];
    mf__entity *entity;
    snprintf(id, sizeof id, "%lld", (long long)s->n_entities + 1);
    MF_TRY(mf__find_entity(&entity, s, id, (int64_t)strlen(id)));
    entity->kind = kind;
    entity->description = description;
    *number = (int32_t)s->n_entities;
    return MF_OK;
}

mf_status mf__add_monomer(mf_structure *s, mf__entity *entity, const char *name, int64_t bytes) {
    if (entity->monomers == 0) entity->first_monomer = s->n_monomers;
    MF_TRY(reserve_own((void **)&s->monomers, s->header ? s->header->monomers : NULL, s->n_monomers, &s->monomer_room, sizeof *s->monomers));
    MF_TRY(mf__names_add(&s->names, &s->monomers[s->n_monomers], name, bytes));
    s->n_monomers++;
    entity->monomers++;
    return MF_OK;
}

mf_status mf__add_assembly(mf__assembly **out, mf_structure *s, const char *id, int64_t bytes) {
    MF_TRY(reserve_own((void **)&s->assemblies, s->header ? s->header->assemblies : NULL, s->n_assemblies, &s->assembly_room, sizeof *s->assemblies));
    *out = &s->assemblies[s->n_assemblies];
    **out = (mf__assembly){0};
    MF_TRY(mf__names_add(&s->names, &(*out)->id, id, bytes));
    s->n_assemblies++;
    return MF_OK;
}

/* One spelling of an atom name to look for: its number, the column it fills, its rank among the alternatives. */
typedef struct wanted { int32_t name; int column, rank; } wanted;

/* Appends "C4'" as C4' and as C4*; names that the structure lacks are left out. */
static int add_spellings(wanted *list, int n, const mf__names *names, const char *text, int64_t bytes, int column, int rank) {
    char spelled[16];
    if (bytes >= (int64_t)sizeof spelled) return n;
    int primes = 0;
    for (int64_t i = 0; i < bytes; i++) primes += text[i] == '\'' || text[i] == '*';
    for (int star = 0; star <= (primes > 0); star++) {
        for (int64_t i = 0; i < bytes; i++) spelled[i] = text[i] == '\'' || text[i] == '*' ? (star ? '*' : '\'') : text[i];
        int32_t found = mf__names_find(names, spelled, bytes);
        if (found >= 0) list[n++] = (wanted){found, column, 2 * rank + star};
    }
    return n;
}

mf_status mf_structure_atoms(mf_tensor **positions, mf_tensor **mask, const mf_structure *s, mf_ctx *ctx, int64_t chain,
                             const char *const *names, int n_names) {
    *positions = *mask = NULL;
    MF_TRY(check_index("chain", chain, s->n_chains));
    if (n_names < 0) return mf__fail(MF_EVALUE, "structure.atoms: a negative number of names");
    mf_status status = MF_OK;
    const mf__chain *c = &s->chains[chain];
    int64_t rows = 0, alternatives = 0;
    for (int64_t r = 0; r < c->residues; r++) rows += s->residues[c->first_residue + r].label != 0;
    for (int k = 0; k < n_names; k++) {
        if (!names[k] || !*names[k]) return mf__fail(MF_EVALUE, "structure.atoms: name %d is empty", k + 1);
        alternatives++;
        for (const char *p = names[k]; *p; p++) alternatives += *p == '|';
    }
    int64_t cells = rows * n_names;
    float *xyz = calloc((size_t)(cells ? 3 * cells : 1), sizeof *xyz);
    unsigned char *present = calloc((size_t)(cells ? cells : 1), 1);
    wanted *list = malloc((size_t)(2 * alternatives + 1) * sizeof *list);
    int *rank = malloc((size_t)(n_names ? n_names : 1) * sizeof *rank);
    if (!xyz || !present || !list || !rank) { status = mf__fail(MF_ENOMEM, "structure.atoms: no memory for %lld atoms", (long long)cells); goto out; }

    int n = 0;
    for (int k = 0; k < n_names; k++) {
        int alternative = 0;
        for (const char *p = names[k]; p; alternative++) {
            const char *bar = strchr(p, '|');
            n = add_spellings(list, n, &s->names, p, bar ? bar - p : (int64_t)strlen(p), k, alternative);
            p = bar ? bar + 1 : NULL;
        }
    }
    int64_t row = 0;
    for (int64_t r = c->first_residue; r < c->first_residue + c->residues; r++) {
        const mf__residue *residue = &s->residues[r];
        if (residue->label == 0) continue;
        for (int k = 0; k < n_names; k++) rank[k] = INT32_MAX;
        for (int64_t i = residue->first_atom; i < residue->first_atom + residue->atoms; i++) {
            const mf__atom *atom = &s->atoms[i];
            for (int w = 0; w < n; w++) {
                if (list[w].name != atom->name || list[w].rank >= rank[list[w].column]) continue;
                int64_t cell = row * n_names + list[w].column;
                rank[list[w].column] = list[w].rank;
                xyz[3 * cell] = (float)atom->x;
                xyz[3 * cell + 1] = (float)atom->y;
                xyz[3 * cell + 2] = (float)atom->z;
                present[cell] = 1;
            }
        }
        row++;
    }
    MF_TRY_OUT(mf_tensor_from(positions, ctx, MF_CPU, MF_FLOAT32, 3, (int64_t[]){rows, n_names, 3}, xyz));
    status = mf_tensor_from(mask, ctx, MF_CPU, MF_BOOL, 2, (int64_t[]){rows, n_names}, present);
    if (status != MF_OK) {
        mf_tensor_release(*positions);
        *positions = NULL;
    }
out:
    free(xyz);
    free(present);
    free(list);
    free(rank);
    return status;
}
