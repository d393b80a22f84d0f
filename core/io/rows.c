/* rows.c: from the atom records of a file to a structure.
 *
 *   chain      all rows of one model and author chain id, wherever they lie; in order of models, then of first appearance
 *   residue    rows of one chain, number, insertion code, name (and label, asym). A residue may come in pieces (conformers one
 *              after the other, atoms after a TER); a piece that repeats an atom's location is another residue
 *   atom       of the locations of one name, the highest occupancy, then the first. Two residue names at one place
 *              (microheterogeneity): the name whose best atom has the higher occupancy, then the first
 *              MF_ALTLOC_ALL keeps every location of every name instead
 *
 * Each row goes into the structure's arrays as it comes: what is taken beside them is 40 bytes a residue and, where chains or
 * residues come in pieces, 4 bytes an atom to put them in order. Everything is linear: the atom of a name in the current residue
 * stands with the name; hash tables find residues, and atoms of residues that go on after others; a counting sort orders. */
#include "build.h"
#include <stdlib.h>
#include <string.h>

mf_status mf__reserve(void **items, int64_t count, int64_t *room, size_t size) {
    if (count < *room) return MF_OK;
    int64_t wanted = *room ? 2 * *room : 16;
    void *grown = realloc(*items, (size_t)wanted * size);
    if (!grown) return mf__fail(MF_ENOMEM, "structure: no memory for %lld items", (long long)wanted);
    *items = grown;
    *room = wanted;
    return MF_OK;
}

static mf_status no_memory(const mf__rows *rows) { return mf__fail(MF_ENOMEM, "structure.read: '%s': no memory", rows->path); }

/* ---- names ---- */

static unsigned char backbone_flag(const char *name) {
    static const struct { char name[4]; unsigned char flag; } known[] = {
        {"CA", HAS_CA}, {"N", HAS_N}, {"C", HAS_C}, {"P", HAS_P}, {"O2'", HAS_O2}, {"C4'", HAS_C4}, {"C1'", HAS_C1}, {"C3'", HAS_C3},
    };
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof known / sizeof *known && n < 4; i++) {
        if (strlen(known[i].name) != n) continue;
        if (memcmp(known[i].name, name, n) == 0 || (n == 3 && memcmp(known[i].name, name, 2) == 0 && name[2] == '*')) return known[i].flag;
    }
    return 0;
}

mf_status mf__rows_fact(mf__rows *rows, mf__fact **out, int32_t name) {
    if (name >= rows->n_facts) {
        int64_t wanted = rows->s->names.count > 2 * rows->fact_room ? rows->s->names.count : 2 * rows->fact_room;
        if (name >= rows->fact_room) {
            mf__fact *grown = realloc(rows->facts, (size_t)wanted * sizeof *grown);
            if (!grown) return no_memory(rows);
            rows->facts = grown;
            rows->fact_room = wanted;
        }
        memset(rows->facts + rows->n_facts, 0, (size_t)(name + 1 - rows->n_facts) * sizeof *rows->facts);
        rows->n_facts = name + 1;
    }
    *out = &rows->facts[name];
    return MF_OK;
}

mf_status mf__rows_kind(mf__rows *rows, mf__kind *out, int32_t name) {
    mf__fact *fact = NULL;
    MF_TRY(mf__rows_fact(rows, &fact, name));
    if (!fact->knows_kind) fact->kind = mf__residue_kind(mf__name(&rows->s->names, name));
    fact->knows_kind = 1;
    *out = fact->kind;
    return MF_OK;
}

mf_status mf__rows_add_parent(mf__rows *rows, const char *name, int64_t bytes, const char *parent, int64_t parent_bytes) {
    char text[8];
    if (bytes == 0 || parent_bytes == 0 || parent_bytes >= (int64_t)sizeof text) return MF_OK;
    memcpy(text, parent, (size_t)parent_bytes);
    text[parent_bytes] = '\0';
    mf__kind kind = mf__residue_kind(text);
    if (!kind.standard) return MF_OK;
    kind.standard = 0;
    int32_t number;
    mf__fact *fact = NULL;
    mf__kind known;
    MF_TRY(mf__names_add(&rows->s->names, &number, name, bytes));
    MF_TRY(mf__rows_kind(rows, &known, number));
    MF_TRY(mf__rows_fact(rows, &fact, number));
    if (known.polymer == MF__OTHER) fact->kind = kind;
    return MF_OK;
}

mf_status mf__rows_add_polymer(mf__rows *rows, int32_t entity, int polymer) {
    mf__fact *fact = NULL;
    MF_TRY(mf__rows_fact(rows, &fact, entity));
    fact->polymer = (signed char)polymer;
    return MF_OK;
}

mf_status mf__rows_add_ligand(mf__rows *rows, int32_t entity, int ligand) {
    mf__fact *fact = NULL;
    MF_TRY(mf__rows_fact(rows, &fact, entity));
    fact->ligand = (unsigned char)ligand;
    return MF_OK;
}

/* ---- hash tables of numbers ---- */

static uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

/* Room for one more; 1 when the table is new and all has to be put in again. */
static mf_status grow(const mf__rows *rows, mf__slots *t, int *again) {
    *again = 0;
    if (t->count < t->room / 2) return MF_OK;
    int64_t wanted = t->room ? 2 * t->room : 64;
    int32_t *at = calloc((size_t)wanted, sizeof *at);
    if (!at) return no_memory(rows);
    free(t->at);
    *t = (mf__slots){at, wanted, 0};
    *again = 1;
    return MF_OK;
}

static int32_t *chain_slot(const mf__rows *rows, int model, int32_t id) {
    const mf__slots *t = &rows->build->chains;
    uint64_t mask = (uint64_t)t->room - 1;
    for (uint64_t i = mix(mix(0, (uint64_t)model), (uint64_t)id) & mask;; i = (i + 1) & mask) {
        if (t->at[i] == 0) return &t->at[i];
        const mf__chain *c = &rows->s->chains[t->at[i] - 1];
        if (c->model == model && c->id == id) return &t->at[i];
    }
}

static uint64_t place_hash(const mf__residue *r, const mf__draft *d) {
    uint64_t h = mix((uint64_t)d->chain, (uint64_t)(uint32_t)r->number << 8 | (unsigned char)r->insertion);
    return mix(h, (uint64_t)(uint32_t)r->label << 32 ^ (uint64_t)(uint32_t)r->asym);
}

static int same_number(const mf__residue *r, const mf__draft *d, const mf__residue *q, const mf__draft *e) {
    return r->number == q->number && r->insertion == q->insertion && r->label == q->label && r->asym == q->asym && d->chain == e->chain;
}

/* The slot of a residue at this place, or with `named` of this number and name whatever TER came between; or the free one where
 * it belongs. */
static int32_t *residue_slot(const mf__rows *rows, const mf__slots *t, const mf__residue *r, const mf__draft *d, int named) {
    uint64_t mask = (uint64_t)t->room - 1, h = place_hash(r, d);
    for (uint64_t i = mix(h, (uint64_t)(named ? r->name : d->segment)) & mask;; i = (i + 1) & mask) {
        int32_t number = t->at[i] - 1;
        if (number < 0) return &t->at[i];
        const mf__residue *q = &rows->s->residues[number];
        const mf__draft *e = &rows->build->drafts[number];
        if ((named ? r->name == q->name : d->segment == e->segment) && same_number(r, d, q, e)) return &t->at[i];
    }
}

/* ---- chains and residues ---- */

static mf_status find_chain(mf__rows *rows) {
    mf__build *b = rows->build;
    mf_structure *s = rows->s;
    const mf__row *row = &rows->row;
    if (b->chain >= 0 && s->chains[b->chain].id == row->chain && s->chains[b->chain].model == row->model) return MF_OK;
    int again;
    MF_TRY(grow(rows, &b->chains, &again));
    for (int64_t i = 0; again && i < s->n_chains; i++, b->chains.count++) *chain_slot(rows, s->chains[i].model, s->chains[i].id) = (int32_t)i + 1;
    int32_t *slot = chain_slot(rows, row->model, row->chain);
    if (*slot == 0) {
        if (s->n_chains >= INT32_MAX) return mf__fail(MF_EFORMAT, "structure.read: '%s': too many chains", rows->path);
        MF_TRY(mf__reserve((void **)&s->chains, s->n_chains, &s->chain_room, sizeof *s->chains));
        MF_TRY(mf__reserve((void **)&b->states, s->n_chains, &b->state_room, sizeof *b->states));
        s->chains[s->n_chains] = (mf__chain){.id = row->chain, .entity = row->entity, .model = row->model};
        b->states[s->n_chains] = (mf__state){-1, rows->ended};
        b->chains.count++;
        *slot = (int32_t)++s->n_chains;
    }
    b->chain = *slot - 1;
    if (row->model > s->models) s->models = row->model;
    return MF_OK;
}

/* The atom of the name in the residue, -1: it has none yet. */
static mf_status find_atom(mf__rows *rows, int64_t *out, int32_t residue, int32_t name, int64_t fresh) {
    mf__build *b = rows->build;
    *out = -1;
    if (b->drafts[residue].again) {
        int64_t *found;
        MF_TRY(mf__map_get(&b->atoms, &found, (mf__key){(uint64_t)residue, (uint64_t)name, 0}, fresh));
        if (*found != fresh) *out = *found;
        return MF_OK;
    }
    mf__fact *fact = &rows->facts[name];
    if (fact->residue == rows->passed + residue + 1) *out = fact->atom;
    else fact->residue = rows->passed + residue + 1, fact->atom = (int32_t)fresh;
    return MF_OK;
}

/* From now on the atoms of this residue are found in the map. */
static mf_status go_on(mf__rows *rows, int32_t residue) {
    mf__build *b = rows->build;
    if (b->drafts[residue].again) return MF_OK;
    const mf__residue *r = &rows->s->residues[residue];
    int64_t *found;
    for (int64_t i = r->first_atom; i < r->first_atom + r->atoms; i++)
        MF_TRY(mf__map_get(&b->atoms, &found, (mf__key){(uint64_t)residue, (uint64_t)rows->s->atoms[i].name, 0}, i));
    b->drafts[residue].again = 1;
    return MF_OK;
}

static uint64_t altloc_bit(char altloc) { return (uint64_t)1 << (altloc & 63); }

/* Does the row give a location that the residue has? */
static mf_status repeats(mf__rows *rows, int *out, int32_t residue) {
    int64_t *found;
    const mf__row *row = &rows->row;
    *out = 0;
    if (!(rows->build->drafts[residue].altlocs & altloc_bit(row->atom.altloc))) return MF_OK;
    MF_TRY(mf__map_get(&rows->build->atoms, &found, (mf__key){(uint64_t)residue, (uint64_t)row->atom.name, 0}, INT64_MAX));
    *out = *found != INT64_MAX;
    if (!*out) *found = rows->s->n_atoms;    /* the row becomes that atom */
    return MF_OK;
}

static mf_status add_residue(mf__rows *rows, const mf__residue *made, const mf__draft *draft) {
    mf__build *b = rows->build;
    mf_structure *s = rows->s;
    int32_t number = (int32_t)s->n_residues;
    if (number == INT32_MAX - 1) return mf__fail(MF_EFORMAT, "structure.read: '%s': too many residues", rows->path);
    MF_TRY(mf__reserve((void **)&s->residues, number, &s->residue_room, sizeof *s->residues));
    MF_TRY(mf__reserve((void **)&b->drafts, number, &b->draft_room, sizeof *b->drafts));
    s->residues[number] = *made;
    s->residues[number].first_atom = s->n_atoms;
    b->drafts[number] = *draft;
    b->drafts[number].rival = number;
    int again;
    MF_TRY(grow(rows, &b->places, &again));
    for (int32_t i = 0; again && i < number; i++) {
        int32_t *slot = residue_slot(rows, &b->places, &s->residues[i], &b->drafts[i], 0);
        if (*slot == 0) *slot = i + 1, b->places.count++;
    }
    s->n_residues++;
    int32_t *place = residue_slot(rows, &b->places, made, draft, 0);
    if (*place == 0) {
        *place = number + 1;
        b->places.count++;
    } else if (s->residues[*place - 1].name != made->name) {
        b->drafts[number].rival = *place - 1;
    }
    b->residue = b->states[draft->chain].current = number;
    return MF_OK;
}

/* The residue of the row becomes the current one. */
static mf_status find_residue(mf__rows *rows) {
    mf__build *b = rows->build;
    mf_structure *s = rows->s;
    const mf__row *row = &rows->row;
    mf__state *state = &b->states[b->chain];
    const mf__residue made = {
        .name = row->residue, .asym = row->asym, .entity = row->entity, .number = row->number, .label = row->label,
        .insertion = row->insertion, .hetero = row->hetero,
    };
    const mf__draft draft = {.chain = b->chain, .segment = state->segments, .best = row->atom.occupancy};
    int32_t last = state->current;
    if (last >= 0 && s->residues[last].name == made.name && same_number(&s->residues[last], &b->drafts[last], &made, &draft)) {
        if (last != b->residue) MF_TRY(go_on(rows, last));
        b->residue = last;
        return MF_OK;
    }
    int again;
    MF_TRY(grow(rows, &b->residues, &again));
    for (int32_t i = 0; again && i < s->n_residues; i++) {    /* of those that are alike the last */
        int32_t *slot = residue_slot(rows, &b->residues, &s->residues[i], &b->drafts[i], 1);
        b->residues.count += *slot == 0;
        *slot = i + 1;
    }
    int32_t *slot = residue_slot(rows, &b->residues, &made, &draft, 1), earlier = *slot - 1;
    if (earlier >= 0) {    /* a piece of an earlier residue, unless it repeats a location of it */
        int repeated;
        MF_TRY(go_on(rows, earlier));
        MF_TRY(repeats(rows, &repeated, earlier));
        if (!repeated) {
            b->residue = state->current = earlier;
            return MF_OK;
        }
    }
    b->residues.count += *slot == 0;
    *slot = (int32_t)s->n_residues + 1;
    return add_residue(rows, &made, &draft);
}

/* ---- atoms ---- */

static mf_status place(mf__rows *rows) {
    if (!rows->pending) return MF_OK;
    rows->pending = 0;
    mf_structure *s = rows->s;
    mf__build *b = rows->build;
    const mf__row *row = &rows->row;
    s->records++;
    s->alternates += row->atom.altloc != '\0';
    if (rows->models && row->model > rows->models) return MF_OK;
    if (s->n_atoms >= INT32_MAX - 1) return mf__fail(MF_EFORMAT, "structure.read: '%s': too many atoms", rows->path);
    MF_TRY(mf__reserve((void **)&s->atoms, s->n_atoms, &s->atom_room, sizeof *s->atoms));
    MF_TRY(mf__reserve((void **)&b->runs, b->n_runs, &b->run_room, sizeof *b->runs));
    mf__fact *fact = NULL;
    MF_TRY(find_chain(rows));
    MF_TRY(find_residue(rows));
    MF_TRY(mf__rows_fact(rows, &fact, row->atom.name));
    if (!fact->knows_flags) fact->flags = backbone_flag(mf__name(&s->names, row->atom.name));
    fact->knows_flags = 1;
    mf__draft *d = &b->drafts[b->residue];
    if (row->atom.occupancy > d->best) d->best = row->atom.occupancy;
    d->flags |= fact->flags;
    d->altlocs |= altloc_bit(row->atom.altloc);
    int64_t found;
    MF_TRY(find_atom(rows, &found, b->residue, row->atom.name, s->n_atoms));
    if (found >= 0 && found < s->n_atoms && rows->altlocs == MF_ALTLOC_BEST) {
        if (row->atom.occupancy > s->atoms[found].occupancy) s->atoms[found] = row->atom;
        return MF_OK;
    }
    mf__run *run = b->n_runs ? &b->runs[b->n_runs - 1] : NULL;
    if (!run || run->residue != b->residue) {
        run = &b->runs[b->n_runs++];
        *run = (mf__run){.residue = b->residue, .first = s->n_atoms};
    }
    s->atoms[s->n_atoms++] = row->atom;
    run->atoms++;
    s->residues[b->residue].atoms++;
    return MF_OK;
}

mf_status mf__rows_add(mf__rows *rows, mf__row **out) {
    if (!rows->build) {
        rows->build = calloc(1, sizeof *rows->build);
        if (!rows->build) return no_memory(rows);
        rows->build->chain = rows->build->residue = -1;
    }
    MF_TRY(place(rows));
    memset(&rows->row, 0, sizeof rows->row);
    rows->pending = 1;
    rows->count++;
    *out = &rows->row;
    return MF_OK;
}

mf_status mf__rows_ter(mf__rows *rows) {
    if (!rows->pending) return MF_OK;
    MF_TRY(place(rows));
    mf__build *b = rows->build;
    if (b->chain < 0 || rows->s->chains[b->chain].model != rows->row.model) return MF_OK;    /* of a model that is left out */
    b->states[b->chain].segments++;
    b->states[b->chain].current = -1;    /* what follows may be another residue of the same name and number */
    return MF_OK;
}

/* Another name at the same place is an alternative when the file says so: by the label or by locations of both. */
static void find_rivals(const mf__rows *rows) {
    mf__draft *drafts = rows->build->drafts;
    for (int32_t i = 0; i < rows->s->n_residues; i++) {
        const mf__draft *first = &drafts[drafts[i].rival];
        int apart = drafts[i].altlocs > altloc_bit('\0') && first->altlocs > altloc_bit('\0');
        if (!apart && rows->s->residues[i].label == 0) drafts[i].rival = i;
    }
}

/* Of the names at one place the best stays: each rival meets the winner so far, which the first of them keeps. */
static void settle_rivals(const mf__rows *rows) {
    mf__draft *drafts = rows->build->drafts;
    for (int32_t i = 0; i < rows->s->n_residues; i++) {
        int32_t first = drafts[i].rival;
        if (first == i) continue;
        int32_t holder = drafts[first].rival;    /* the winner so far */
        if (drafts[i].best > drafts[holder].best) {
            drafts[holder].loser = 1;
            drafts[first].rival = i;
        } else {
            drafts[i].loser = 1;
        }
    }
}

/* ---- order ---- */

/* Atom i goes to to[i], or away where that is negative. */
static void permute(mf__atom *atoms, int32_t *to, int64_t count) {
    for (int32_t i = 0; i < count; i++)
        while (to[i] >= 0 && to[i] != i) {
            int32_t j = to[i], next = to[j];
            mf__atom moved = atoms[j];
            atoms[j] = atoms[i];
            atoms[i] = moved;
            to[j] = j;
            to[i] = next;
        }
}

static void give_back(void **items, int64_t count, int64_t *room, size_t size) {
    void *less = count ? realloc(*items, (size_t)count * size) : NULL;
    if (!less) return;    /* the larger block serves as well */
    *items = less;
    *room = count;
}

/* Chains by model, where the file has a model's atoms in several places. */
static mf_status sort_chains(mf__rows *rows) {
    mf_structure *s = rows->s;
    int sorted = 1;
    for (int64_t c = 1; c < s->n_chains; c++) sorted &= s->chains[c].model >= s->chains[c - 1].model;
    if (sorted) return MF_OK;

    mf_status status = MF_OK;
    int64_t *next = calloc((size_t)s->models + 2, sizeof *next);    /* where the next chain of each model goes */
    int32_t *to = malloc((size_t)s->n_chains * sizeof *to);
    mf__chain *chains = malloc((size_t)s->n_chains * sizeof *chains);
    if (!next || !to || !chains) { status = no_memory(rows); goto out; }
    for (int64_t c = 0; c < s->n_chains; c++) next[s->chains[c].model + 1]++;
    for (int m = 1; m <= s->models; m++) next[m] += next[m - 1];
    for (int64_t c = 0; c < s->n_chains; c++) {
        to[c] = (int32_t)next[s->chains[c].model]++;
        chains[to[c]] = s->chains[c];
    }
    for (int64_t i = 0; i < s->n_residues; i++) rows->build->drafts[i].chain = to[rows->build->drafts[i].chain];
    memcpy(s->chains, chains, (size_t)s->n_chains * sizeof *chains);
out:
    free(next);
    free(to);
    free(chains);
    return status;
}

/* Residues by chain, atoms by residue, each in order of first appearance. */
static mf_status put_in_order(mf__rows *rows) {
    mf_structure *s = rows->s;
    mf__build *b = rows->build;
    mf_status status = MF_OK;
    int64_t kept = 0, atoms = 0, total = s->n_residues;
    int ordered = b->n_runs == total;
    for (int64_t i = 0; i < total; i++) {
        ordered &= !b->drafts[i].loser && (i == 0 || b->drafts[i].chain >= b->drafts[i - 1].chain);
        if (b->drafts[i].loser) continue;
        kept++;
        atoms += s->residues[i].atoms;
        s->chains[b->drafts[i].chain].residues++;
    }
    for (int64_t c = 0, first = 0; c < s->n_chains; first += s->chains[c++].residues) s->chains[c].first_residue = first;
    if (ordered) return MF_OK;

    mf__residue *residues = malloc((size_t)(kept ? kept : 1) * sizeof *residues);
    int64_t *next = malloc((size_t)(s->n_chains + 1) * sizeof *next);
    int32_t *at = malloc((size_t)(total + 1) * sizeof *at), *to = malloc((size_t)(s->n_atoms + 1) * sizeof *to);
    if (!residues || !next || !at || !to) { status = no_memory(rows); goto out; }
    for (int64_t c = 0; c < s->n_chains; c++) next[c] = s->chains[c].first_residue;
    for (int64_t i = 0; i < total; i++) {
        at[i] = b->drafts[i].loser ? -1 : (int32_t)next[b->drafts[i].chain]++;
        if (at[i] >= 0) residues[at[i]] = s->residues[i];
    }
    for (int64_t r = 0, first = 0; r < kept; r++) {
        residues[r].first_atom = first;
        first += residues[r].atoms;
        residues[r].atoms = 0;    /* counts up again as the atoms arrive */
    }
    for (int64_t i = 0; i < b->n_runs; i++) {
        const mf__run *run = &b->runs[i];
        mf__residue *r = at[run->residue] < 0 ? NULL : &residues[at[run->residue]];
        for (int64_t k = 0; k < run->atoms; k++) to[run->first + k] = r ? (int32_t)(r->first_atom + r->atoms++) : -1;
    }
    permute(s->atoms, to, s->n_atoms);
    free(s->residues);
    s->residues = residues;
    s->n_residues = s->residue_room = kept;
    s->n_atoms = atoms;
    residues = NULL;
out:
    free(residues);
    free(next);
    free(at);
    free(to);
    return status;
}

static void free_build(mf__build *b) {
    if (!b) return;
    free(b->drafts);
    free(b->states);
    free(b->runs);
    free(b->chains.at);
    free(b->residues.at);
    free(b->places.at);
    mf__map_free(&b->atoms);
    free(b);
}

mf_status mf__assemble(mf__rows *rows) {
    mf_structure *s = rows->s;
    MF_TRY(place(rows));
    if (!rows->build) return MF_OK;
    const int64_t total = s->n_residues;
    find_rivals(rows);
    if (rows->altlocs == MF_ALTLOC_BEST) settle_rivals(rows);
    MF_TRY(mf__find_polymers(rows));
    MF_TRY(sort_chains(rows));
    MF_TRY(put_in_order(rows));
    free_build(rows->build);
    rows->build = NULL;
    rows->passed += total;
    give_back((void **)&s->atoms, s->n_atoms, &s->atom_room, sizeof *s->atoms);
    give_back((void **)&s->residues, s->n_residues, &s->residue_room, sizeof *s->residues);
    return MF_OK;
}

void mf__rows_continue(mf__rows *rows, mf_structure *s) {
    free_build(rows->build);
    rows->build = NULL;
    rows->s = s;
    if (rows->n_facts > s->names.shared) rows->n_facts = s->names.shared;    /* other names will have these numbers */
}

void mf__rows_free(mf__rows *rows) {
    free_build(rows->build);
    free(rows->facts);
}
