/* plan.c: see plan.h. */
#include "plan.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BY_CHAIN = 1, BY_LIGAND, BY_WATERS, BY_NAME };    /* what a key of by_asym is about */

static mf_status refuse_new(const char *what, const char *name) {
    return mf__fail(MF_EVALUE, "structure.writer: the %s '%.32s' is not in the first model: mmCIF lists entities and chains before atoms", what, name);
}

static const char *text_of(const mf__plan *p, int32_t name) { return mf__name(&p->names, name); }

static mf_status add_part(mf__plan *p, int64_t *out, int32_t id, int kind, int polymer) {
    MF_TRY(mf__reserve((void **)&p->parts, p->n_parts, &p->part_room, sizeof *p->parts));
    p->parts[p->n_parts] = (mf__part){.id = id, .kind = kind, .polymer = polymer, .first = p->n_units};
    *out = p->n_parts++;
    return MF_OK;
}

/* The part of that id, which is made when it is new. */
static mf_status named_part(mf__plan *p, int64_t *out, int32_t id, int kind, int polymer) {
    int64_t *found;
    MF_TRY(mf__map_get(&p->by_id, &found, (mf__key){(uint64_t)id, 0, 0}, p->n_parts));
    *out = *found;
    if (*found < p->n_parts) return MF_OK;
    if (p->frozen) return refuse_new("entity", text_of(p, id));
    return add_part(p, out, id, kind, polymer);
}

/* A part whose id is the next number that is free, also of entities that residues to come name. */
static mf_status numbered_part(mf__plan *p, int64_t *out, int kind, int polymer) {
    for (;;) {
        char text[24];
        int32_t id;
        int64_t *found, *taken, before = p->n_parts;
        snprintf(text, sizeof text, "%lld", (long long)++p->next_part);
        MF_TRY(mf__names_add(&p->names, &id, text, (int64_t)strlen(text)));
        MF_TRY(mf__map_get(&p->taken, &taken, (mf__key){(uint64_t)id, 0, 0}, 0));
        if (*taken) continue;
        MF_TRY(mf__map_get(&p->by_id, &found, (mf__key){(uint64_t)id, 0, 0}, before));
        if (*found == before) return add_part(p, out, id, kind, polymer);
    }
}

/* The i-th of A, ..., Z, AA, AB, ... */
static void letters(char *out, int64_t i) {
    char reversed[16];
    int n = 0;
    for (i++; i > 0; i = (i - 1) / 26) reversed[n++] = (char)('A' + (i - 1) % 26);
    for (int k = 0; k < n; k++) out[k] = reversed[n - 1 - k];
    out[n] = '\0';
}

static mf_status add_asym(mf__plan *p, int64_t *out, int32_t id, int64_t part, const mf_structure *s, int64_t chain) {
    MF_TRY(mf__reserve((void **)&p->asyms, p->n_asyms, &p->asym_room, sizeof *p->asyms));
    p->asyms[p->n_asyms] = (mf__asym){.id = id, .chain = p->text[s->chains[chain].id], .part = part, .chain_index = chain};
    *out = p->n_asyms++;
    return MF_OK;
}

/* The asym of a key, made when it is new: with the id that is wanted where that is free, else with letters. */
static mf_status keyed_asym(mf__plan *p, int64_t *out, mf__key key, const char *wanted, int64_t part, const mf_structure *s, int64_t chain) {
    int64_t *found, *taken, n = p->n_asyms;
    MF_TRY(mf__map_get(&p->by_asym, &found, key, n));
    *out = *found;
    if (*found < n) return MF_OK;
    if (p->frozen) return refuse_new("chain", mf__name(&s->names, s->chains[chain].id));
    char made[24];
    int32_t id;
    int free = *wanted && strlen(wanted) <= 20;
    snprintf(made, sizeof made, "%.20s", wanted);
    do {
        if (!free) letters(made, p->next_asym++);
        MF_TRY(mf__names_add(&p->names, &id, made, (int64_t)strlen(made)));
        MF_TRY(mf__map_get(&p->by_asym, &taken, (mf__key){BY_NAME, (uint64_t)id, 0}, n));
        free = 0;
    } while (*taken != n);
    return add_asym(p, out, id, part, s, chain);
}

/* ---- sequences ---- */

static mf_status add_unit(mf__plan *p, int32_t name, int number, char code) {
    MF_TRY(mf__reserve((void **)&p->units, p->n_units, &p->unit_room, sizeof *p->units));
    p->units[p->n_units++] = (mf__unit){name, number, code};
    return MF_OK;
}

static mf_status add_named_unit(mf__plan *p, const char *name, int number) {
    int32_t text;
    MF_TRY(mf__names_add(&p->names, &text, name, (int64_t)strlen(name)));
    return add_unit(p, text, number, mf__residue_kind(name).code);
}

static const char *unknown_residue(int polymer) { return polymer == MF_POLYMER_PROTEIN ? "UNK" : polymer == MF_POLYMER_DNA ? "DN" : "N"; }

/* Labels that do not fall, with few gaps, stay; others become 1, 2, ... along the chain. */
static void number_labels(mf__plan *p, const mf_structure *s, const mf__chain *c) {
    const mf__residue *r = s->residues + c->first_residue;
    int *label = p->label + c->first_residue, last = 0, rising = 1, next = 0;
    int64_t polymers = 0;
    for (int64_t i = 0; i < c->residues; i++) {
        label[i] = r[i].label;
        if (label[i] == 0) continue;
        rising &= label[i] >= last;
        last = label[i];
        polymers++;
    }
    if (rising && last <= 10 * polymers + 1000) return;
    for (int64_t i = 0; i < c->residues; i++)
        if (label[i]) label[i] = ++next;
}

static int by_place(const void *x, const void *y) {
    const mf__site *a = x, *b = y;
    if (a->part != b->part) return a->part < b->part ? -1 : 1;
    if (a->number != b->number) return a->number < b->number ? -1 : 1;
    return a->residue < b->residue ? -1 : 1;
}

static mf_status add_site(mf__plan *p, int64_t part, int64_t residue) {
    MF_TRY(mf__reserve((void **)&p->sites, p->n_sites, &p->site_room, sizeof *p->sites));
    p->sites[p->n_sites++] = (mf__site){part, residue, p->label[residue]};
    return MF_OK;
}

/* A residue's name is a unit of its number, units from `first` on; the last to have the name says its letter. */
static mf_status add_residue_unit(mf__plan *p, int64_t first, const mf__residue *residue, int number) {
    const int32_t name = p->text[residue->name];
    int64_t same = first;
    while (same < p->n_units && p->units[same].name != name) same++;
    if (same == p->n_units) return add_unit(p, name, number, residue->code);
    p->units[same].code = residue->code;
    return MF_OK;
}

/* Appends the units of a polymer: what the entity states, else the residues there are (sites i to end, by number) and unknown ones in
 * gaps, up to a gap that is nonsense; and the further names that residues have at one place. */
static mf_status add_sequence(mf__plan *p, const mf_structure *s, const mf__entity *stated, int64_t i, int64_t end, int polymer) {
    const int64_t known = stated ? stated->monomers : 0, seen = end > i ? p->sites[end - 1].number : 0, last = seen > known ? seen : known;
    const int fill = last - known <= 10 * (end - i) + 1000;
    for (int64_t number = 1; number <= last; number++) {
        const int64_t first = p->n_units;
        while (i < end && p->sites[i].number < number) i++;
        const int there = i < end && p->sites[i].number == number;
        if (number <= known) MF_TRY(add_named_unit(p, mf__name(&s->names, s->monomers[stated->first_monomer + number - 1]), (int)number));
        else if (!there && fill) MF_TRY(add_named_unit(p, unknown_residue(polymer), (int)number));
        else if (!there) break;
        for (; i < end && p->sites[i].number == number; i++) MF_TRY(add_residue_unit(p, first, &s->residues[p->sites[i].residue], (int)number));
    }
    return MF_OK;
}

/* One number for equal sequences: units chained through a map, so equal means equal. */
static mf_status sequence_state(mf__plan *p, int64_t *out, int64_t first, int polymer) {
    int64_t state = -1 - (int64_t)polymer, *slot;
    for (int64_t i = first; i < p->n_units; i++) {
        MF_TRY(mf__map_get(&p->states, &slot, (mf__key){(uint64_t)state, (uint64_t)p->units[i].name, (uint64_t)p->units[i].number}, p->states.count));
        state = *slot;
    }
    *out = state;
    return MF_OK;
}

/* ---- parts and asyms of each residue ---- */

/* The part of a chain's polymer that the structure gives no entity: by its sequence. */
static mf_status part_by_sequence(mf__plan *p, int64_t *out, const mf_structure *s, const mf__chain *c) {
    int64_t first = p->n_units, state, *found;
    p->n_sites = 0;
    for (int64_t r = c->first_residue; r < c->first_residue + c->residues; r++)
        if (p->label[r] != 0 && s->residues[r].entity == 0) MF_TRY(add_site(p, 0, r));
    qsort(p->sites, (size_t)p->n_sites, sizeof *p->sites, by_place);
    MF_TRY(add_sequence(p, s, NULL, 0, p->n_sites, c->polymer));
    MF_TRY(sequence_state(p, &state, first, c->polymer));
    MF_TRY(mf__map_get(&p->by_content, &found, (mf__key){(uint64_t)state, (uint64_t)c->polymer, BY_CHAIN}, p->n_parts));
    *out = *found;
    if (*found < p->n_parts) {
        p->n_units = first;
        return MF_OK;
    }
    if (p->frozen) return refuse_new("sequence of chain", mf__name(&s->names, c->id));
    MF_TRY(numbered_part(p, out, MF_ENTITY_POLYMER, c->polymer));
    p->parts[*out].first = first;
    p->parts[*out].units = p->n_units - first;
    return MF_OK;
}

/* The part of a residue outside polymers that the structure gives no entity: by its name. */
static mf_status part_by_name(mf__plan *p, int64_t *out, const mf__residue *residue, int water) {
    int64_t *found;
    int32_t name = water ? 0 : p->text[residue->name];
    MF_TRY(mf__map_get(&p->by_content, &found, (mf__key){(uint64_t)name, 0, water ? BY_WATERS : BY_LIGAND}, p->n_parts));
    *out = *found;
    if (*found < p->n_parts) return MF_OK;
    if (p->frozen) return refuse_new("residue", text_of(p, p->text[residue->name]));
    MF_TRY(numbered_part(p, out, water ? MF_ENTITY_WATER : MF_ENTITY_NONPOLYMER, MF_POLYMER_NONE));
    if (water) return mf__names_add(&p->names, &p->parts[*out].description, "water", 5);
    p->parts[*out].description = name;
    return MF_OK;
}

/* Water, by the name; asked for every residue, so answered once for each name. */
static int is_water(const mf__plan *p, const mf_structure *s, int32_t name) {
    if (p->water[name] < 0) p->water[name] = mf__residue_kind(mf__name(&s->names, name)).polymer == MF__WATER;
    return p->water[name];
}

/* The asym that residue r of chain c names itself. */
static mf_status take_asym(mf__plan *p, const mf_structure *s, int64_t c, int64_t r) {
    const int32_t name = p->text[s->residues[r].asym];
    int64_t *found;
    MF_TRY(mf__map_get(&p->by_asym, &found, (mf__key){BY_NAME, (uint64_t)name, 0}, p->n_asyms));
    p->asym[r] = *found;
    if (*found < p->n_asyms) return MF_OK;
    if (p->frozen) return refuse_new("asym", text_of(p, name));
    return add_asym(p, &p->asym[r], name, p->part[r], s, c);
}

/* One that is made: of the polymer, of the waters, or of this ligand. Residues outside polymers that are alike in name and number get
 * several: nothing else keeps them apart. */
static mf_status make_asym(mf__plan *p, const mf_structure *s, int64_t c, int64_t r, int water) {
    const mf__residue *residue = &s->residues[r];
    const char *id = mf__name(&s->names, s->chains[c].id);
    const uint64_t author = (uint64_t)p->text[s->chains[c].id] << 2, part = (uint64_t)p->part[r];
    if (p->label[r] != 0) return keyed_asym(p, &p->asym[r], (mf__key){author | BY_CHAIN, part, 0}, id, p->part[r], s, c);
    const uint64_t place = (uint64_t)(uint32_t)residue->number << 32 | (uint32_t)p->text[residue->name];
    int64_t *alike;
    MF_TRY(mf__map_get(&p->alike, &alike, (mf__key){(uint64_t)c, place, (unsigned char)residue->insertion}, 0));
    const uint64_t twins = (uint64_t)(*alike)++;
    const mf__key key = water ? (mf__key){author | BY_WATERS, twins, 0} : (mf__key){author | BY_LIGAND, place, twins << 8 | (unsigned char)residue->insertion};
    return keyed_asym(p, &p->asym[r], key, "", p->part[r], s, c);
}

/* A chain has residues of the part in its polymer. own: it is one of the part, and not one of another that it has beside its own. */
static void see_polymer(mf__part *part, int polymer, int own) {
    if (polymer == MF_POLYMER_NONE || (part->seen != MF_POLYMER_NONE && (part->own || !own))) return;
    part->seen = polymer;
    part->own = own;
}

static mf_status plan_chain(mf__plan *p, const mf_structure *s, int64_t c, int own_asyms) {
    const mf__chain *chain = &s->chains[c];
    int64_t polymer = -1;    /* the part of residues of the polymer that have no entity */
    for (int64_t r = chain->first_residue; r < chain->first_residue + chain->residues; r++) {
        const mf__residue *residue = &s->residues[r];
        int labelled = p->label[r] != 0, water = !labelled && is_water(p, s, residue->name);
        int64_t part;
        int32_t entity = residue->entity ? residue->entity : labelled ? chain->entity : 0;
        if (entity) {
            MF_TRY(named_part(p, &part, p->text[entity], labelled ? MF_ENTITY_POLYMER : water ? MF_ENTITY_WATER : MF_ENTITY_NONPOLYMER, labelled ? chain->polymer : MF_POLYMER_NONE));
        } else if (labelled) {
            if (polymer < 0) MF_TRY(part_by_sequence(p, &polymer, s, chain));
            part = polymer;
        } else {
            MF_TRY(part_by_name(p, &part, residue, water));
        }
        p->part[r] = part;
        if (labelled) see_polymer(&p->parts[part], chain->polymer, p->parts[part].id == p->text[chain->entity]);
        MF_TRY(own_asyms ? take_asym(p, s, c, r) : make_asym(p, s, c, r, water));
        p->asyms[p->asym[r]].polymer |= labelled;
    }
    return MF_OK;
}

/* The first asym of a part, of those with a polymer if there are any; n_asyms where it has none. */
static int64_t asym_of(const mf__plan *p, int64_t part) {
    int64_t first = p->n_asyms;
    for (int64_t a = p->n_asyms - 1; a >= 0; a--)
        if (p->asyms[a].part == part && (first == p->n_asyms || p->asyms[a].polymer || !p->asyms[first].polymer)) first = a;
    return first;
}

/* The residues of polymers by part, then by number. */
static mf_status find_sites(mf__plan *p, const mf_structure *s) {
    p->n_sites = 0;
    for (int64_t r = 0; r < s->n_residues; r++)
        if (p->label[r] != 0) MF_TRY(add_site(p, p->part[r], r));
    if (p->n_sites > 0) qsort(p->sites, (size_t)p->n_sites, sizeof *p->sites, by_place);
    return MF_OK;
}

/* Sequences of the polymers that have none yet, and what they are where the structure does not say. */
static mf_status finish_parts(mf__plan *p, const mf_structure *s) {
    MF_TRY(find_sites(p, s));
    for (int64_t i = 0, site = 0; i < p->n_parts; i++) {
        mf__part *part = &p->parts[i];
        const int64_t first_site = site;
        while (site < p->n_sites && p->sites[site].part == i) site++;
        const int64_t a = asym_of(p, i);
        if (part->kind == MF_ENTITY_UNKNOWN) part->kind = a < p->n_asyms && !p->asyms[a].polymer ? MF_ENTITY_NONPOLYMER : MF_ENTITY_POLYMER;
        if (part->kind != MF_ENTITY_POLYMER || part->units > 0) continue;
        if (part->own || part->polymer == MF_POLYMER_NONE) part->polymer = part->seen;    /* where a header may have guessed */
        const mf__entity *stated = i < s->n_entities ? &s->entities[i] : NULL;    /* they were planned first, in their order */
        int64_t first = p->n_units;
        MF_TRY(add_sequence(p, s, stated, first_site, site, part->polymer));
        part->first = first;
        part->units = p->n_units - first;
    }
    return MF_OK;
}

static mf_status plan_all(mf__plan *p, const mf_structure *s) {
    for (int32_t i = 0; i < s->names.count; i++) {
        const char *name = mf__name(&s->names, i);
        MF_TRY(mf__names_add(&p->names, &p->text[i], name, (int64_t)strlen(name)));
        p->water[i] = -1;
    }
    int own_asyms = 1;
    for (int64_t r = 0; r < s->n_residues; r++) {
        int64_t *taken;
        own_asyms &= s->residues[r].asym != 0;
        p->label[r] = s->residues[r].label;
        MF_TRY(mf__map_get(&p->taken, &taken, (mf__key){(uint64_t)p->text[s->residues[r].entity], 0, 0}, 1));
    }
    for (int64_t c = 0; c < s->n_chains && !own_asyms; c++) number_labels(p, s, &s->chains[c]);
    for (int64_t i = 0; i < s->n_entities && !p->frozen; i++) {
        const mf__entity *e = &s->entities[i];
        int64_t part;
        MF_TRY(named_part(p, &part, p->text[e->id], e->kind, e->polymer));
        p->parts[part].description = p->text[e->description];
    }
    for (int64_t c = 0; c < s->n_chains; c++) MF_TRY(plan_chain(p, s, c, own_asyms));
    return p->frozen ? MF_OK : finish_parts(p, s);
}

mf_status mf__plan_take(mf__plan *p, const mf_structure *s) {
    free(p->text);
    free(p->water);
    free(p->asym);
    free(p->part);
    free(p->label);
    mf__map_free(&p->alike);
    p->alike = (mf__map){0};
    p->text = malloc((size_t)s->names.count * sizeof *p->text);
    p->water = malloc((size_t)s->names.count);
    p->asym = malloc((size_t)(s->n_residues + 1) * sizeof *p->asym);
    p->part = malloc((size_t)(s->n_residues + 1) * sizeof *p->part);
    p->label = malloc((size_t)(s->n_residues + 1) * sizeof *p->label);
    if (!p->text || !p->water || !p->asym || !p->part || !p->label) return mf__fail(MF_ENOMEM, "structure.write: no memory for %lld residues", (long long)s->n_residues);
    if (p->names.count == 0) MF_TRY(mf__names_init(&p->names));
    return plan_all(p, s);
}

void mf__plan_free(mf__plan *p) {
    mf__names_free(&p->names);
    free(p->parts);
    free(p->asyms);
    free(p->units);
    free(p->text);
    free(p->water);
    free(p->asym);
    free(p->part);
    free(p->label);
    free(p->sites);
    mf__map_free(&p->alike);
    mf__map_free(&p->taken);
    mf__map_free(&p->by_id);
    mf__map_free(&p->by_content);
    mf__map_free(&p->by_asym);
    mf__map_free(&p->states);
}
