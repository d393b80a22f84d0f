/* rows.c: from the atom records of a file to a structure.
 *
 *   chain      all rows of one model and author chain id, wherever they lie; in order of first appearance
 *   residue    rows of one chain, number, insertion code, name (and label, TER segment). A residue may come in
 *              pieces (conformers one after the other); a piece that repeats an atom is another residue
 *   atom       of the locations of one name, the highest occupancy, then the first. Two residue names at one place
 *              (microheterogeneity): the name whose best atom has the higher occupancy, then the first
 *              MF_ALTLOC_ALL keeps every location of every name instead
 *   polymer    labelled files say it (label_seq_id), water excepted. Otherwise: ATOM records of a residue that is known
 *              or has a backbone; HETATM records before the chain's TER, or without any TER when the name has a
 *              known parent. Water never; nor nucleotides in a protein chain and the reverse.
 *
 * Everything is linear: hash maps find residues and atoms, counting sorts put them in order. */
#include "structure.h"
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

mf_status mf__rows_add(mf__rows *rows, mf__row **out) {
    MF_TRY(mf__reserve((void **)&rows->rows, rows->count, &rows->room, sizeof *rows->rows));
    *out = &rows->rows[rows->count++];
    memset(*out, 0, sizeof **out);
    return MF_OK;
}

mf_status mf__rows_add_parent(mf__rows *rows, const char *name, int64_t bytes, const char *parent, int64_t parent_bytes) {
    char text[8];
    if (bytes == 0 || parent_bytes == 0 || parent_bytes >= (int64_t)sizeof text) return MF_OK;
    memcpy(text, parent, (size_t)parent_bytes);
    text[parent_bytes] = '\0';
    mf__kind kind = mf__residue_kind(text);
    if (!kind.standard) return MF_OK;
    MF_TRY(mf__reserve((void **)&rows->parents, rows->n_parents, &rows->parent_room, sizeof *rows->parents));
    mf__parent *p = &rows->parents[rows->n_parents];
    MF_TRY(mf__names_add(&rows->s->names, &p->name, name, bytes));
    kind.standard = 0;
    p->kind = kind;
    rows->n_parents++;
    return MF_OK;
}

mf_status mf__rows_add_polymer(mf__rows *rows, int32_t entity, int polymer) {
    MF_TRY(mf__reserve((void **)&rows->polymers, rows->n_polymers, &rows->polymer_room, sizeof *rows->polymers));
    rows->polymers[rows->n_polymers++] = (mf__polymer){entity, polymer};
    return MF_OK;
}

void mf__rows_free(mf__rows *rows) {
    free(rows->rows);
    free(rows->parents);
    free(rows->polymers);
}

mf_status mf__guess_element(int32_t *out, mf__names *names, const char columns[4], const char *residue, int hetero) {
    static const char two[] = " LI NA MG AL SI CL CA MN FE CO NI CU ZN GA AS SE BR RB SR MO AG CD SB BA PT AU HG PB TL SM EU GD TB YB LU ";
    char a = columns[0], b = columns[1];
    int left = (a >= 'A' && a <= 'Z') && (b >= 'A' && b <= 'Z');    /* a two-letter symbol begins in the first column */
    if (left && hetero) {
        char wanted[5] = {' ', a, b, ' ', '\0'};
        int ion = strncmp(residue, (char[]){a, b, '\0'}, 3) == 0;
        int metal = strstr(two, wanted) && (columns[2] < 'A' || columns[2] > 'Z') && columns[3] == ' ';
        if (ion || (metal && b != 'A' && b != 'D' && b != 'G' && b != 'E') || (metal && strcmp(residue, "MSE") == 0 && a == 'S'))
            return mf__names_add(names, out, columns, 2);
    }
    for (int i = 0; i < 4; i++)
        if ((columns[i] >= 'A' && columns[i] <= 'Z')) return mf__names_add(names, out, columns + i, 1);
    *out = 0;
    return MF_OK;
}

/* What an atom name says of its residue. */
enum { HAS_CA = 1, HAS_N = 2, HAS_C = 4, HAS_O2 = 8, HAS_C4 = 16, HAS_C1 = 32, HAS_C3 = 64, HAS_P = 128 };
static int backbone_flag(const char *name) {
    static const struct { char name[4]; int flag; } known[] = {
        {"CA", HAS_CA}, {"N", HAS_N}, {"C", HAS_C}, {"P", HAS_P}, {"O2'", HAS_O2}, {"C4'", HAS_C4}, {"C1'", HAS_C1}, {"C3'", HAS_C3},
    };
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof known / sizeof *known && n < 4; i++) {
        if (strlen(known[i].name) != n) continue;
        if (memcmp(known[i].name, name, n) == 0 || (n == 3 && memcmp(known[i].name, name, 2) == 0 && name[2] == '*')) return known[i].flag;
    }
    return 0;
}

/* A residue while its rows come in. */
typedef struct draft {
    mf__residue residue;
    int64_t chain;
    int64_t rival;        /* the residue at the same place under another name, or itself */
    int64_t tracks;       /* atoms so far */
    double best;          /* the highest occupancy */
    int flags, segment;   /* TER records of the chain before it */
    char altloc;          /* of its first row */
    unsigned char loser, polymer;
} draft;

typedef struct place { int64_t residue, row; } place;    /* an atom: its residue, the row kept */

typedef struct assembly {
    mf__rows *in;
    mf_structure *s;
    draft *drafts;
    place *places;
    int64_t n_drafts, draft_room, n_places, place_room;
    int64_t *current;     /* of each chain: the residue of its last row */
    int *segments;        /* of each chain: TER records so far */
    int64_t current_room, segment_room;
    mf__map chains, residues, spots, atoms;
    int *flags;           /* of each name */
    mf__kind *kinds;      /* of each name */
} assembly;

static mf_status find_chain(int64_t *out, assembly *a, const mf__row *row) {
    mf_structure *s = a->s;
    int64_t *slot;
    MF_TRY(mf__map_get(&a->chains, &slot, (mf__key){(uint64_t)row->model, (uint64_t)row->chain, 0}, s->n_chains));
    *out = *slot;
    if (*slot < s->n_chains) return MF_OK;
    MF_TRY(mf__reserve((void **)&s->chains, s->n_chains, &s->chain_room, sizeof *s->chains));
    MF_TRY(mf__reserve((void **)&a->current, s->n_chains, &a->current_room, sizeof *a->current));
    MF_TRY(mf__reserve((void **)&a->segments, s->n_chains, &a->segment_room, sizeof *a->segments));
    s->chains[s->n_chains] = (mf__chain){.id = row->chain, .entity = row->entity, .model = row->model};
    a->current[s->n_chains] = -1;
    a->segments[s->n_chains] = 0;
    s->n_chains++;
    return MF_OK;
}

static int same_residue(const draft *d, const mf__row *row, int segment) {
    const mf__residue *r = &d->residue;
    return r->number == row->number && r->insertion == row->insertion && r->name == row->residue && r->label == row->label && d->segment == segment;
}

static mf_status new_residue(int64_t *out, assembly *a, const mf__row *row, int64_t chain) {
    MF_TRY(mf__reserve((void **)&a->drafts, a->n_drafts, &a->draft_room, sizeof *a->drafts));
    int64_t i = a->n_drafts;
    a->drafts[i] = (draft){
        .residue = {
            .name = row->residue, .asym = row->asym, .entity = row->entity, .number = row->number, .label = row->label,
            .insertion = row->insertion, .hetero = row->hetero,
        },
        .chain = chain, .rival = i, .best = row->atom.occupancy, .segment = a->segments[chain], .altloc = row->atom.altloc,
    };
    /* Another name at the same place is an alternative when the file says so: by the label or by altlocs. */
    int64_t *spot;
    uint64_t where = (uint64_t)(uint32_t)row->number << 8 | (unsigned char)row->insertion;
    MF_TRY(mf__map_get(&a->spots, &spot, (mf__key){(uint64_t)chain, where, (uint64_t)(uint32_t)a->segments[chain] << 32 | (uint32_t)row->label}, i));
    draft *first = &a->drafts[*spot];
    if (*spot != i && first->residue.name != row->residue && (row->label || (row->atom.altloc && first->altloc))) a->drafts[i].rival = *spot;
    a->n_drafts++;
    *out = i;
    return MF_OK;
}

static mf_status find_residue(int64_t *out, assembly *a, const mf__row *row, int64_t chain) {
    int64_t last = a->current[chain];
    int segment = a->segments[chain];
    if (last >= 0 && same_residue(&a->drafts[last], row, segment)) {
        *out = last;
        return MF_OK;
    }
    int64_t *slot;
    mf__key key = {(uint64_t)chain << 32 | (uint32_t)row->number, (uint64_t)(uint32_t)row->residue << 32 | (uint32_t)row->label,
                   (uint64_t)(uint32_t)segment << 8 | (unsigned char)row->insertion};
    MF_TRY(mf__map_get(&a->residues, &slot, key, a->n_drafts));
    if (*slot < a->n_drafts) {    /* a piece of an earlier residue, unless it repeats an atom of it */
        int64_t *atom, absent = a->n_places;
        MF_TRY(mf__map_get(&a->atoms, &atom, (mf__key){(uint64_t)*slot, (uint64_t)row->atom.name, 0}, absent));
        int repeats = *atom < absent && a->in->rows[a->places[*atom].row].atom.altloc == row->atom.altloc;
        if (*atom == absent) {    /* it was put there by this very look: keep the map and the places in step */
            MF_TRY(mf__reserve((void **)&a->places, a->n_places, &a->place_room, sizeof *a->places));
            a->places[a->n_places++] = (place){*slot, row - a->in->rows};
            a->drafts[*slot].tracks++;
        }
        if (!repeats) {
            *out = a->current[chain] = *slot;
            return MF_OK;
        }
        *slot = a->n_drafts;
    }
    MF_TRY(new_residue(out, a, row, chain));
    a->current[chain] = *out;
    return MF_OK;
}

static mf_status add_row(assembly *a, int64_t index) {
    const mf__row *row = &a->in->rows[index];
    int64_t chain, residue, *atom;
    MF_TRY(find_chain(&chain, a, row));
    MF_TRY(find_residue(&residue, a, row, chain));
    draft *d = &a->drafts[residue];
    if (row->atom.occupancy > d->best) d->best = row->atom.occupancy;
    d->flags |= a->flags[row->atom.name];
    MF_TRY(mf__map_get(&a->atoms, &atom, (mf__key){(uint64_t)residue, (uint64_t)row->atom.name, 0}, a->n_places));
    if (*atom == a->n_places || a->in->altlocs == MF_ALTLOC_ALL) {
        MF_TRY(mf__reserve((void **)&a->places, a->n_places, &a->place_room, sizeof *a->places));
        a->places[a->n_places++] = (place){residue, index};
        d->tracks++;
    } else {
        place *p = &a->places[*atom];
        if (row->atom.occupancy > a->in->rows[p->row].atom.occupancy) p->row = index;
    }
    a->segments[chain] += row->ter;
    return MF_OK;
}

/* Of the names at one place the best stays: each rival meets the winner so far, which the first of them keeps. */
static void settle_rivals(assembly *a) {
    for (int64_t i = 0; i < a->n_drafts; i++) {
        int64_t first = a->drafts[i].rival;
        if (first == i) continue;
        int64_t holder = a->drafts[first].rival;    /* the winner so far */
        if (a->drafts[i].best > a->drafts[holder].best) {
            a->drafts[holder].loser = 1;
            a->drafts[first].rival = i;
        } else {
            a->drafts[i].loser = 1;
        }
    }
}

static int is_protein(int flags) { return (flags & HAS_CA) && (flags & (HAS_N | HAS_C)); }
static int is_nucleic(int flags) { return (flags & (HAS_C4 | HAS_C1 | HAS_C3)) == (HAS_C4 | HAS_C1 | HAS_C3); }

/* AMINO or NUCLEIC (of any sugar), else OTHER: by the name, then by the atoms. */
static int family(mf__kind kind, int flags) {
    if (kind.polymer == MF__AMINO) return MF__AMINO;
    if (kind.polymer == MF__RNA || kind.polymer == MF__DNA || kind.polymer == MF__NUCLEIC) return MF__NUCLEIC;
    if (kind.polymer == MF__WATER || kind.polymer == MF__CAP) return MF__OTHER;
    return is_protein(flags) ? MF__AMINO : is_nucleic(flags) ? MF__NUCLEIC : MF__OTHER;
}

/* Could this residue of an unlabelled file be of a polymer? `within`: polymer ATOM records of its chain follow. */
static int may_join(const draft *d, mf__kind kind, int ters, int within) {
    if (kind.polymer == MF__WATER) return 0;
    int before_ter = d->segment < ters || within;
    if (kind.polymer == MF__CAP) return before_ter;
    int backbone = is_protein(d->flags) || is_nucleic(d->flags) || (d->flags & (HAS_CA | HAS_C4 | HAS_P));
    if (!d->residue.hetero) return family(kind, d->flags) != MF__OTHER;
    if (before_ter) return is_protein(d->flags) || is_nucleic(d->flags) || (kind.polymer != MF__OTHER && backbone);
    return ters == 0 && kind.polymer != MF__OTHER && backbone;
}

typedef struct census { int64_t amino, ribose, deoxy, plain, thymine, uracil, atom, last; } census;

static void count_residue(census *c, const draft *d, mf__kind kind, const char *name) {
    c->atom += !d->residue.hetero;
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

static int by_entity(const void *a, const void *b) {
    int32_t x = ((const mf__polymer *)a)->entity, y = ((const mf__polymer *)b)->entity;
    return x < y ? -1 : x > y;
}

/* What every name means, once for each. */
static mf_status describe_names(assembly *a) {
    const mf__names *names = &a->s->names;
    a->flags = malloc((size_t)names->count * sizeof *a->flags);
    a->kinds = malloc((size_t)names->count * sizeof *a->kinds);
    unsigned char *used = calloc((size_t)names->count, 1);    /* residue names: their look-up is the dear one */
    if (!a->flags || !a->kinds || !used) {
        free(used);
        return mf__fail(MF_ENOMEM, "structure.read: '%s': no memory", a->in->path);
    }
    for (int64_t i = 0; i < a->in->count; i++) used[a->in->rows[i].residue] = 1;
    for (int32_t i = 0; i < names->count; i++) {
        a->flags[i] = backbone_flag(mf__name(names, i));
        a->kinds[i] = used[i] ? mf__residue_kind(mf__name(names, i)) : (mf__kind){MF__OTHER, 0, 'X'};
    }
    free(used);
    for (int64_t i = 0; i < a->in->n_parents; i++) {
        mf__parent *p = &a->in->parents[i];
        if (a->kinds[p->name].polymer == MF__OTHER) a->kinds[p->name] = p->kind;
    }
    return MF_OK;
}

/* Decides chain polymers and which residues belong to them. */
static mf_status find_polymers(assembly *a) {
    mf_structure *s = a->s;
    mf__rows *in = a->in;
    census *counts = calloc((size_t)(s->n_chains ? s->n_chains : 1), sizeof *counts);
    if (!counts) return mf__fail(MF_ENOMEM, "structure.read: '%s': no memory", in->path);
    for (int64_t i = 0; i < a->n_drafts; i++) {
        const draft *d = &a->drafts[i];
        if (!d->residue.hetero && family(a->kinds[d->residue.name], d->flags) != MF__OTHER) counts[d->chain].last = i;
    }
    for (int64_t i = 0; i < a->n_drafts; i++) {
        draft *d = &a->drafts[i];
        if (d->loser) continue;
        mf__kind kind = a->kinds[d->residue.name];
        d->polymer = (unsigned char)(in->labelled ? d->residue.label != 0 && kind.polymer != MF__WATER : may_join(d, kind, a->segments[d->chain], i < counts[d->chain].last));
        if (d->polymer) count_residue(&counts[d->chain], d, kind, mf__name(&s->names, d->residue.name));
    }
    if (in->n_polymers > 1) qsort(in->polymers, (size_t)in->n_polymers, sizeof *in->polymers, by_entity);
    for (int64_t c = 0; c < s->n_chains; c++) {
        const census *n = &counts[c];
        int alone = !in->labelled && n->atom == 0 && a->segments[c] == 0 && n->amino + n->ribose + n->deoxy + n->plain < 2;    /* a ligand such as ATP */
        s->chains[c].polymer = alone ? MF_POLYMER_NONE : chain_polymer(n);
    }
    /* The entity of a chain is that of its polymer; its declared type outranks the census. */
    for (int64_t i = a->n_places - 1; i >= 0; i--) {
        const draft *d = &a->drafts[a->places[i].residue];
        if (d->polymer && !d->loser) s->chains[d->chain].entity = in->rows[a->places[i].row].entity;
    }
    for (int64_t c = 0; c < s->n_chains && in->n_polymers; c++) {
        mf__polymer key = {.entity = s->chains[c].entity}, *found = bsearch(&key, in->polymers, (size_t)in->n_polymers, sizeof key, by_entity);
        if (found && found->polymer != MF_POLYMER_NONE && s->chains[c].polymer != MF_POLYMER_NONE) s->chains[c].polymer = found->polymer;
    }
    for (int64_t i = 0; i < a->n_drafts; i++) {
        draft *d = &a->drafts[i];
        int type = s->chains[d->chain].polymer, f = family(a->kinds[d->residue.name], d->flags);
        int fits = f == MF__OTHER || (f == MF__AMINO) == (type == MF_POLYMER_PROTEIN);
        if (type == MF_POLYMER_NONE && !in->labelled) d->polymer = 0;
        if (!in->labelled && !fits) d->polymer = 0;
    }
    free(counts);
    return MF_OK;
}

/* The structure's arrays: residues by chain, atoms by residue, each in order of first appearance. */
static mf_status lay_out(assembly *a) {
    mf_structure *s = a->s;
    mf_status status = MF_OK;
    int64_t kept_residues = 0, kept_atoms = 0;
    for (int64_t i = 0; i < a->n_drafts; i++) {
        if (a->drafts[i].loser) continue;
        kept_residues++;
        kept_atoms += a->drafts[i].tracks;
        s->chains[a->drafts[i].chain].residues++;
    }
    s->residues = malloc((size_t)(kept_residues ? kept_residues : 1) * sizeof *s->residues);
    s->atoms = malloc((size_t)(kept_atoms ? kept_atoms : 1) * sizeof *s->atoms);
    int64_t *at = malloc((size_t)(a->n_drafts ? a->n_drafts : 1) * sizeof *at);    /* final index of each draft */
    int64_t *next = malloc((size_t)(s->n_chains ? s->n_chains : 1) * sizeof *next);
    if (!s->residues || !s->atoms || !at || !next) { status = mf__fail(MF_ENOMEM, "structure.read: '%s': no memory", a->in->path); goto out; }
    s->n_residues = s->residue_room = kept_residues;
    s->n_atoms = s->atom_room = kept_atoms;
    int64_t first = 0;
    for (int64_t c = 0; c < s->n_chains; c++) {
        s->chains[c].first_residue = next[c] = first;
        first += s->chains[c].residues;
    }
    for (int64_t i = 0; i < a->n_drafts; i++) {
        draft *d = &a->drafts[i];
        if (d->loser) continue;
        at[i] = next[d->chain]++;
        d->residue.atoms = d->tracks;
        d->residue.code = a->kinds[d->residue.name].code;
        if (!a->in->labelled || !d->polymer) d->residue.label = d->polymer;    /* numbered below */
        s->residues[at[i]] = d->residue;
    }
    for (int64_t c = 0; c < s->n_chains && !a->in->labelled; c++) {
        int label = 0;
        for (int64_t r = 0; r < s->chains[c].residues; r++) {
            mf__residue *residue = &s->residues[s->chains[c].first_residue + r];
            if (residue->label) residue->label = ++label;
        }
    }
    first = 0;
    for (int64_t r = 0; r < s->n_residues; r++) {
        s->residues[r].first_atom = first;
        first += s->residues[r].atoms;
        s->residues[r].atoms = 0;    /* counts up again as the atoms arrive */
    }
    for (int64_t i = 0; i < a->n_places; i++) {
        const place *p = &a->places[i];
        if (a->drafts[p->residue].loser) continue;
        mf__residue *residue = &s->residues[at[p->residue]];
        s->atoms[residue->first_atom + residue->atoms++] = a->in->rows[p->row].atom;
    }
out:
    free(at);
    free(next);
    return status;
}

mf_status mf__assemble(mf__rows *rows) {
    assembly a = {.in = rows, .s = rows->s};
    mf_status status = MF_OK;
    MF_TRY_OUT(describe_names(&a));
    rows->s->records = rows->count;
    for (int64_t i = 0; i < rows->count; i++) {
        const mf__row *row = &rows->rows[i];
        rows->s->alternates += row->atom.altloc != '\0';
        if (rows->models && row->model > rows->models) continue;
        MF_TRY_OUT(add_row(&a, i));
        if (row->model > rows->s->models) rows->s->models = row->model;
    }
    if (rows->altlocs == MF_ALTLOC_BEST) settle_rivals(&a);
    MF_TRY_OUT(find_polymers(&a));
    MF_TRY_OUT(lay_out(&a));
out:
    free(a.drafts);
    free(a.places);
    free(a.current);
    free(a.segments);
    free(a.flags);
    free(a.kinds);
    mf__map_free(&a.chains);
    mf__map_free(&a.residues);
    mf__map_free(&a.spots);
    mf__map_free(&a.atoms);
    return status;
}
