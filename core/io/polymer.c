/* polymer.c: which residues are of a polymer, what their numbers along it are, and what a chain is.
 *
 *   labelled   the file says it (label_seq_id), water excepted
 *   SEQRES     what finds its place in the sequence of its chain, in order (align.c): the residues before the chain's TER, or all
 *              but water where there is no TER. Labels count along the sequence. Where no way is found to place every residue
 *              of ATOM records, the sequence is not of this chain's atoms, and the next rule holds
 *   neither    ATOM records of a residue that is known or has a backbone; HETATM records before the chain's TER, or without any
 *              TER when the name has a known parent. Never nucleotides in a protein chain, nor the reverse. Labels are 1, 2, ... */
#include "build.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int is_protein(int flags) { return (flags & HAS_CA) && (flags & (HAS_N | HAS_C)); }
static int is_nucleic(int flags) { return (flags & (HAS_C4 | HAS_C1 | HAS_C3)) == (HAS_C4 | HAS_C1 | HAS_C3); }

/* AMINO or NUCLEIC (of any sugar), else OTHER: by the name, then by the atoms. */
static int family(mf__kind kind, int flags) {
    if (kind.polymer == MF__AMINO) return MF__AMINO;
    if (kind.polymer == MF__RNA || kind.polymer == MF__DNA || kind.polymer == MF__NUCLEIC) return MF__NUCLEIC;
    if (kind.polymer == MF__WATER || kind.polymer == MF__CAP) return MF__OTHER;
    return is_protein(flags) ? MF__AMINO : is_nucleic(flags) ? MF__NUCLEIC : MF__OTHER;
}

/* Could this residue of an unlabelled file be of a polymer? */
static int may_join(const mf__residue *r, const mf__draft *d, mf__kind kind, int ters, int before_ter) {
    if (kind.polymer == MF__WATER) return 0;
    if (kind.polymer == MF__CAP) return before_ter;
    int backbone = is_protein(d->flags) || is_nucleic(d->flags) || (d->flags & (HAS_CA | HAS_C4 | HAS_P));
    if (!r->hetero) return family(kind, d->flags) != MF__OTHER;
    if (before_ter) return is_protein(d->flags) || is_nucleic(d->flags) || (kind.polymer != MF__OTHER && backbone);
    return ters == 0 && kind.polymer != MF__OTHER && backbone;
}

/* Does the file say so of its entity? */
static int is_ligand(const mf__rows *rows, const mf__residue *r) { return r->entity < rows->n_facts && rows->facts[r->entity].ligand; }

typedef struct census { int64_t amino, ribose, deoxy, plain, thymine, uracil, atom, last, first, count; int placed; } census;

static void count_residue(census *c, const mf__residue *r, const mf__draft *d, mf__kind kind, const char *name) {
    c->atom += !r->hetero;
    int f = family(kind, d->flags);
    if (f == MF__AMINO) c->amino++;
    if (f != MF__NUCLEIC) return;
    if (kind.polymer == MF__DNA && strcmp(name, "T") != 0 && strcmp(name, "THY") != 0) c->deoxy++;
    else if (d->flags & HAS_O2) c->ribose++;
    else c->plain++;
    c->thymine += kind.code == 'T';
    c->uracil += kind.code == 'U';
}

/* Nucleotides without O2' are DNA when thymine is among them and neither ribose nor uracil (names before 2007). */
static int chain_polymer(const census *c) {
    int64_t nucleic = c->ribose + c->deoxy + c->plain;
    if (c->amino == 0 && nucleic == 0) return MF_POLYMER_NONE;
    if (c->amino >= nucleic) return MF_POLYMER_PROTEIN;
    int old_dna = c->thymine > 0 && c->ribose == 0 && c->uracil == 0;
    return c->deoxy + (old_dna ? c->plain : 0) > c->ribose + (old_dna ? 0 : c->plain) ? MF_POLYMER_DNA : MF_POLYMER_RNA;
}

/* ---- placing residues in SEQRES ---- */

static const mf__atom *find(const mf_structure *s, const mf__residue *r, const char *name) {
    size_t n = strlen(name) + 1;
    for (int64_t i = r->first_atom; i < r->first_atom + r->atoms; i++)
        if (memcmp(mf__name(&s->names, s->atoms[i].name), name, n) == 0) return &s->atoms[i];
    return NULL;
}

static double distance(const mf__atom *a, const mf__atom *b) {
    return sqrt((a->x - b->x) * (a->x - b->x) + (a->y - b->y) * (a->y - b->y) + (a->z - b->z) * (a->z - b->z));
}

/* 1: the two are bonded, 0: they are not, -1: the atoms that would say so are missing. A bond is at most 2.5 angstrom; CA are 4.5 apart
 * at most where nothing else is there. */
static signed char linked(const mf_structure *s, const mf__residue *a, const mf__residue *b) {
    static const struct { const char *from, *to; double most; } bonds[] = {{"C", "N", 2.5}, {"O3'", "P", 2.5}, {"O3*", "P", 2.5}, {"CA", "CA", 4.5}};
    for (size_t i = 0; i < sizeof bonds / sizeof *bonds; i++) {
        const mf__atom *from = find(s, a, bonds[i].from), *to = from ? find(s, b, bonds[i].to) : NULL;
        if (from && to) return distance(from, to) <= bonds[i].most;
    }
    return -1;
}

/* Residues `list` (numbers of drafts, in order) of one chain find their places in its sequence. */
static mf_status place_residues(mf__rows *rows, census *c, const int32_t *list, int64_t n, const mf__entity *entity) {
    mf_structure *s = rows->s;
    mf__draft *drafts = rows->build->drafts;
    mf__observed *seen = malloc((size_t)(n + 1) * sizeof *seen);
    int32_t *at = malloc((size_t)(n + 1) * sizeof *at);
    mf_status status = MF_OK;
    int before = 0, caps = 0;
    if (!seen || !at) { status = mf__fail(MF_ENOMEM, "structure.read: '%s': no memory", rows->path); goto out; }
    for (int64_t i = 0; i < n; i++) {
        const mf__residue *r = &s->residues[list[i]];
        const mf__draft *d = &drafts[list[i]];
        mf__kind kind;
        MF_TRY_OUT(mf__rows_kind(rows, &kind, r->name));
        seen[i] = (mf__observed){
            .name = r->name, .also = s->residues[d->rival].name, .number = r->number,
            .linked = i == 0 || d->again || drafts[list[i - 1]].again ? -1 : linked(s, &s->residues[list[i - 1]], r),
        };
        int known = family(kind, d->flags) != MF__OTHER || kind.polymer == MF__CAP;
        seen[i].must = (unsigned char)(known && (!r->hetero || seen[i].linked == 1));
        if (before && seen[i].linked == 1) seen[i - 1].must = 1;    /* a HETATM, but bonded */
        before = known;
        caps |= kind.polymer == MF__CAP;
    }
    MF_TRY_OUT(mf__align(&c->placed, at, seen, n, s->monomers + entity->first_monomer, entity->monomers));
    if (!c->placed && caps) {    /* old files leave them out of their sequences */
        for (int64_t i = 0; i < n; i++) seen[i].must &= rows->facts[seen[i].name].kind.polymer != MF__CAP;
        MF_TRY_OUT(mf__align(&c->placed, at, seen, n, s->monomers + entity->first_monomer, entity->monomers));
    }
    for (int64_t i = 0; i < n && c->placed; i++) {
        drafts[list[i]].polymer = at[i] >= 0;
        s->residues[list[i]].label = at[i] + 1;
    }
out:
    free(seen);
    free(at);
    return status;
}

static int before_ter(const mf__build *b, const census *counts, int64_t i) {
    const mf__draft *d = &b->drafts[i];
    return d->segment < b->states[d->chain].segments || i < counts[d->chain].last;
}

/* Chains whose sequence the header gives. */
static mf_status place_chains(mf__rows *rows, census *counts) {
    mf_structure *s = rows->s;
    mf__build *b = rows->build;
    mf_status status = MF_OK;
    int64_t total = 0;
    unsigned char *candidate = calloc((size_t)s->n_residues + 1, 1);
    int32_t *list = malloc((size_t)(s->n_residues + 1) * sizeof *list);
    if (!candidate || !list) { status = mf__fail(MF_ENOMEM, "structure.read: '%s': no memory", rows->path); goto out; }
    for (int64_t i = 0; i < s->n_residues; i++) {
        const mf__draft *d = &b->drafts[i];
        mf__fact *fact;
        mf__kind kind;
        MF_TRY_OUT(mf__rows_fact(rows, &fact, s->chains[d->chain].id));
        int32_t entity = fact->chain_entity;
        MF_TRY_OUT(mf__rows_kind(rows, &kind, s->residues[i].name));
        int open = b->states[d->chain].segments == 0;    /* no TER: it may stand anywhere */
        int other_name = d->rival != i && rows->altlocs == MF_ALTLOC_ALL;
        candidate[i] = entity && s->entities[entity - 1].monomers && !d->loser && !other_name && kind.polymer != MF__WATER && (open || before_ter(b, counts, i));
        counts[d->chain].count += candidate[i];
    }
    for (int64_t c = 0; c < s->n_chains; c++) {
        counts[c].first = total;
        total += counts[c].count;
        counts[c].count = 0;
    }
    for (int32_t i = 0; i < s->n_residues; i++) {
        census *c = &counts[b->drafts[i].chain];
        if (candidate[i]) list[c->first + c->count++] = i;
    }
    for (int64_t c = 0; c < s->n_chains; c++) {
        if (counts[c].count == 0) continue;
        const mf__entity *entity = &s->entities[rows->facts[s->chains[c].id].chain_entity - 1];
        MF_TRY_OUT(place_residues(rows, &counts[c], list + counts[c].first, counts[c].count, entity));
    }
out:
    free(candidate);
    free(list);
    return status;
}

/* ---- all chains ---- */

/* The entity of residue i: what PDB's header declares, or with rows->complete one that is made. */
static mf_status find_entity(mf__rows *rows, int64_t i, mf__kind kind, const census *c) {
    mf_structure *s = rows->s;
    mf__residue *r = &s->residues[i];
    const mf__draft *d = &rows->build->drafts[i];
    const int water = !d->polymer && kind.polymer == MF__WATER;
    mf__fact *fact;
    MF_TRY(mf__rows_fact(rows, &fact, d->polymer ? s->chains[d->chain].id : r->name));
    int32_t *entity = water ? &rows->water : d->polymer ? &fact->chain_entity : &fact->entity;
    if (d->polymer && (*entity == 0 || (!c->placed && s->entities[*entity - 1].monomers > 0))) entity = &fact->own_entity;
    if (*entity == 0 && rows->complete)
        MF_TRY(mf__new_entity(s, entity, d->polymer ? MF_ENTITY_POLYMER : water ? MF_ENTITY_WATER : MF_ENTITY_NONPOLYMER, 0));
    r->entity = *entity ? s->entities[*entity - 1].id : 0;
    if (d->polymer && *entity && rows->complete) s->entities[*entity - 1].polymer = s->chains[d->chain].polymer;
    return MF_OK;
}

/* Does residue i share the label of another name at its place? Only the first of its own name there does: labels keep two apart. */
static mf_status shares_label(int *out, mf__map *sharers, const mf__rows *rows, int64_t i) {
    const mf__build *b = rows->build;
    const mf__draft *d = &b->drafts[i];
    int64_t *found;
    *out = !rows->labelled && d->polymer && d->rival != i && b->drafts[d->rival].polymer && rows->altlocs == MF_ALTLOC_ALL;
    if (!*out) return MF_OK;
    MF_TRY(mf__map_get(sharers, &found, (mf__key){(uint64_t)d->rival, (uint64_t)rows->s->residues[i].name, 0}, i));
    *out = *found == i;
    return MF_OK;
}

/* Entities, numbers along the polymer and letters, once it is known who belongs to one. */
static mf_status describe(mf__rows *rows, const census *counts) {
    mf_structure *s = rows->s;
    mf__build *b = rows->build;
    mf_status status = MF_OK;
    mf__map sharers = {0};
    int *labels = calloc((size_t)s->n_chains + 1, sizeof *labels);
    if (!labels) return mf__fail(MF_ENOMEM, "structure.read: '%s': no memory", rows->path);
    for (int64_t i = 0; i < s->n_residues; i++) {
        mf__residue *r = &s->residues[i];
        mf__draft *d = &b->drafts[i];
        mf__kind kind;
        int shares;
        MF_TRY_OUT(mf__rows_kind(rows, &kind, r->name));
        MF_TRY_OUT(shares_label(&shares, &sharers, rows, i));
        r->code = kind.code;
        if (!d->polymer) r->label = 0;
        else if (shares) r->label = s->residues[d->rival].label;
        else if (!rows->labelled && !counts[d->chain].placed && !d->loser) r->label = ++labels[d->chain];
        else if (r->label == 0) d->polymer = 0;    /* a second one of such a name, which the sequence does not have */
        if (rows->declared) MF_TRY_OUT(find_entity(rows, i, kind, &counts[d->chain]));
    }
    for (int64_t i = s->n_residues - 1; i >= 0; i--)    /* a chain's entity is that of its polymer */
        if (b->drafts[i].polymer && !b->drafts[i].loser) s->chains[b->drafts[i].chain].entity = s->residues[i].entity;
out:
    mf__map_free(&sharers);
    free(labels);
    return status;
}

mf_status mf__find_polymers(mf__rows *rows) {
    mf_structure *s = rows->s;
    mf__build *b = rows->build;
    mf_status status = MF_OK;
    census *counts = calloc((size_t)s->n_chains + 1, sizeof *counts);
    if (!counts) return mf__fail(MF_ENOMEM, "structure.read: '%s': no memory", rows->path);
    for (int64_t i = 0; i < s->n_residues; i++) {
        mf__kind kind;
        MF_TRY_OUT(mf__rows_kind(rows, &kind, s->residues[i].name));
        if (!s->residues[i].hetero && family(kind, b->drafts[i].flags) != MF__OTHER) counts[b->drafts[i].chain].last = i;
    }
    if (rows->declared && !rows->labelled) MF_TRY_OUT(place_chains(rows, counts));
    for (int64_t i = 0; i < s->n_residues; i++) {
        mf__draft *d = &b->drafts[i];
        const mf__residue *r = &s->residues[i];
        census *c = &counts[d->chain];
        if (d->loser) continue;
        mf__kind kind = rows->facts[r->name].kind;
        if (rows->labelled) d->polymer = r->label != 0 && kind.polymer != MF__WATER;
        else if (is_ligand(rows, r)) d->polymer = 0;
        else if (!c->placed) d->polymer = (unsigned char)may_join(r, d, kind, b->states[d->chain].segments, before_ter(b, counts, i));
        else if (d->rival != i && rows->altlocs == MF_ALTLOC_ALL) d->polymer = b->drafts[d->rival].polymer && kind.polymer != MF__WATER;
        if (d->polymer) count_residue(c, r, d, kind, mf__name(&s->names, r->name));
    }
    for (int64_t i = 0; i < s->n_chains; i++) {
        const census *n = &counts[i];
        int found = n->atom > 0 || n->placed || rows->labelled || b->states[i].segments > 0 || n->amino + n->ribose + n->deoxy + n->plain >= 2;
        s->chains[i].polymer = found ? chain_polymer(n) : MF_POLYMER_NONE;    /* else a ligand such as ATP */
    }
    for (int64_t i = 0; i < s->n_residues && !rows->labelled; i++) {
        mf__draft *d = &b->drafts[i];
        int type = s->chains[d->chain].polymer, f = family(rows->facts[s->residues[i].name].kind, d->flags);
        int fits = f == MF__OTHER || counts[d->chain].placed || (f == MF__AMINO) == (type == MF_POLYMER_PROTEIN);
        if ((type == MF_POLYMER_NONE && !counts[d->chain].placed) || !fits) d->polymer = 0;
    }
    MF_TRY_OUT(describe(rows, counts));
    for (int64_t i = 0; i < s->n_chains; i++) {    /* what the file says of an entity outranks the census */
        const mf__fact *fact = s->chains[i].entity < rows->n_facts ? &rows->facts[s->chains[i].entity] : NULL;
        if (fact && fact->polymer != MF_POLYMER_NONE && s->chains[i].polymer != MF_POLYMER_NONE) s->chains[i].polymer = fact->polymer;
    }
out:
    free(counts);
    return status;
}
