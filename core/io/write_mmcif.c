/* write_mmcif.c: mmCIF that DSSP, PyMOL, ChimeraX and gemmi open: entities, their sequences, asyms, atoms.
 *
 *   entity    polymer chains of one kind and one sequence; each kind of ligand; water
 *   asym      a polymer chain (the same in all models), a ligand, or the waters of a chain. A polymer keeps its chain
 *             id where that is free; others get A, B, ..., AA, ... that nobody has
 *   label     kept where it rises along the chain; a gap in it becomes an unknown residue of the sequence
 */
#include "write.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NONPOLYMER = -1, WATER = -2 };

typedef struct entity { int64_t chain, residue; int polymer; } entity;    /* its first chain; its first residue for a ligand */
typedef struct asym { int32_t id; int64_t entity, chain; } asym;    /* chain -1: no polymer */

typedef struct cif {
    mf__writer *w;
    const mf_structure *s;
    mf__names ids;            /* asym ids taken, and other texts */
    entity *entities;
    asym *asyms;
    int64_t n_entities, entity_room, n_asyms, asym_room;
    int64_t *chain_asym;      /* of each chain's polymer, -1: none */
    int64_t *residue_asym;    /* of each residue outside polymers */
    int *label;               /* of each residue, as written */
    mf__map by_chain, by_sequence, by_ligand, by_water;
    int64_t next_id;
    int gaps;                 /* bit p: a sequence of polymer p has unknown residues */
} cif;

/* A value, quoted where CIF wants it; one line (titles and names hold no newlines). */
static mf_status put_value(mf__writer *w, const char *text) {
    if (!*text) return mf__writer_put(w, "?", 1);
    int plain = strchr("_#$'\"[];", *text) == NULL && !strpbrk(text, " \t") && strcmp(text, "?");
    if (plain && (strncmp(text, "data_", 5) == 0 || strncmp(text, "save_", 5) == 0 || strcmp(text, "loop_") == 0 || strcmp(text, "stop_") == 0 || strcmp(text, "global_") == 0)) plain = 0;
    if (plain) return mf__writer_put(w, text, (int64_t)strlen(text));
    char quote = strstr(text, "' ") ? '"' : '\'';
    if (quote == '"' && strstr(text, "\" ")) {
        MF_TRY(mf__writer_put(w, "\n;", 2));
        MF_TRY(mf__writer_put(w, text, (int64_t)strlen(text)));
        return mf__writer_put(w, "\n;\n", 3);
    }
    MF_TRY(mf__writer_put(w, &quote, 1));
    MF_TRY(mf__writer_put(w, text, (int64_t)strlen(text)));
    return mf__writer_put(w, &quote, 1);
}

static mf_status put_pair(mf__writer *w, const char *tag, const char *text) {
    MF_TRY(mf__writer_print(w, "%s ", tag));
    MF_TRY(put_value(w, text));
    return mf__writer_put(w, "\n", 1);
}

static mf_status put_loop(mf__writer *w, const char *category, const char *const *columns, int n) {
    MF_TRY(mf__writer_put(w, "#\nloop_\n", 8));
    for (int i = 0; i < n; i++) MF_TRY(mf__writer_print(w, "_%s.%s\n", category, columns[i]));
    return MF_OK;
}
#define PUT_LOOP(w, category, ...) put_loop(w, category, (const char *[]){__VA_ARGS__}, (int)(sizeof(const char *[]){__VA_ARGS__} / sizeof(const char *)))

/* The i-th of A, ..., Z, AA, AB, ... */
static void letters(char *out, int64_t i) {
    char reversed[16];
    int n = 0;
    for (i++; i > 0; i = (i - 1) / 26) reversed[n++] = (char)('A' + (i - 1) % 26);
    for (int k = 0; k < n; k++) out[k] = reversed[n - 1 - k];
    out[n] = '\0';
}

static mf_status add_asym(cif *x, int64_t *out, const char *wanted, int64_t entity_index, int64_t chain) {
    MF_TRY(mf__reserve((void **)&x->asyms, x->n_asyms, &x->asym_room, sizeof *x->asyms));
    char made[24];
    snprintf(made, sizeof made, "%.20s", wanted);
    if (!*made || strlen(wanted) > 20 || mf__names_find(&x->ids, made, (int64_t)strlen(made)) >= 0)
        do letters(made, x->next_id++); while (mf__names_find(&x->ids, made, (int64_t)strlen(made)) >= 0);
    asym *a = &x->asyms[x->n_asyms];
    MF_TRY(mf__names_add(&x->ids, &a->id, made, (int64_t)strlen(made)));
    a->entity = entity_index;
    a->chain = chain;
    *out = x->n_asyms++;
    return MF_OK;
}

static mf_status add_entity(cif *x, int64_t chain, int64_t residue, int polymer) {
    MF_TRY(mf__reserve((void **)&x->entities, x->n_entities, &x->entity_room, sizeof *x->entities));
    x->entities[x->n_entities++] = (entity){chain, residue, polymer};
    return MF_OK;
}

static const char *unknown_residue(int polymer) { return polymer == MF_POLYMER_PROTEIN ? "UNK" : polymer == MF_POLYMER_DNA ? "DN" : "N"; }

/* Labels that rise, with few gaps, stay; others become 1, 2, ... Returns the last. */
static int number_labels(cif *x, const mf__chain *c) {
    const mf__residue *r = x->s->residues + c->first_residue;
    int *label = x->label + c->first_residue, last = 0, rising = 1;
    int64_t polymers = 0;
    for (int64_t i = 0; i < c->residues; i++) {
        if (r[i].label == 0) continue;
        rising &= r[i].label > last;
        last = r[i].label;
        polymers++;
    }
    int keep = rising && last <= 10 * polymers + 1000;
    if (!keep) last = 0;
    else if (last > polymers) x->gaps |= 1 << c->polymer;
    for (int64_t i = 0; i < c->residues; i++) label[i] = r[i].label == 0 ? 0 : keep ? r[i].label : ++last;
    return last;
}

/* One key for equal kinds and sequences: names chained through the table of texts, so equal means equal. */
static mf_status sequence_key(cif *x, const mf__chain *c, int64_t *out) {
    int64_t state = -1 - (int64_t)c->polymer, *slot, at = 0;
    for (int64_t r = c->first_residue; r < c->first_residue + c->residues; r++) {
        if (x->label[r] == 0) continue;
        MF_TRY(mf__map_get(&x->by_sequence, &slot, (mf__key){(uint64_t)state, (uint64_t)x->s->residues[r].name, (uint64_t)x->label[r]}, x->by_sequence.count));
        state = at = *slot;
    }
    *out = at;
    return MF_OK;
}

static mf_status plan_polymers(cif *x) {
    const mf_structure *s = x->s;
    mf__map of_sequence = {0};
    mf_status status = MF_OK;
    for (int64_t c = 0; c < s->n_chains; c++) {
        const mf__chain *chain = &s->chains[c];
        x->chain_asym[c] = -1;
        if (number_labels(x, chain) == 0) continue;
        int64_t key, *index, *found;
        MF_TRY_OUT(sequence_key(x, chain, &key));
        MF_TRY_OUT(mf__map_get(&of_sequence, &index, (mf__key){(uint64_t)key, (uint64_t)chain->polymer, 0}, x->n_entities));
        if (*index == x->n_entities) MF_TRY_OUT(add_entity(x, c, -1, chain->polymer));
        /* A chain of a later model shares the asym of the first when it has the same sequence. */
        MF_TRY_OUT(mf__map_get(&x->by_chain, &found, (mf__key){(uint64_t)chain->id, (uint64_t)*index, 0}, x->n_asyms));
        if (*found == x->n_asyms) MF_TRY_OUT(add_asym(x, &x->chain_asym[c], mf__name(&s->names, chain->id), *index, c));
        else x->chain_asym[c] = *found;
    }
out:
    mf__map_free(&of_sequence);
    return status;
}

static mf_status plan_others(cif *x) {
    const mf_structure *s = x->s;
    for (int64_t c = 0; c < s->n_chains; c++) {
        const mf__chain *chain = &s->chains[c];
        for (int64_t r = chain->first_residue; r < chain->first_residue + chain->residues; r++) {
            const mf__residue *residue = &s->residues[r];
            x->residue_asym[r] = -1;
            if (residue->label != 0) continue;
            const char *name = mf__name(&s->names, residue->name);
            int water = mf__residue_kind(name).polymer == MF__WATER;
            int64_t *index, *found;
            MF_TRY(mf__map_get(&x->by_ligand, &index, (mf__key){water ? UINT64_MAX : (uint64_t)residue->name, 0, 0}, x->n_entities));
            if (*index == x->n_entities) MF_TRY(add_entity(x, c, r, water ? WATER : NONPOLYMER));
            mf__key key = water ? (mf__key){(uint64_t)chain->id, 0, UINT64_MAX}
                                : (mf__key){(uint64_t)chain->id, (uint64_t)(uint32_t)residue->number << 32 | (uint32_t)residue->name, (unsigned char)residue->insertion};
            MF_TRY(mf__map_get(&x->by_water, &found, key, x->n_asyms));
            if (*found == x->n_asyms) MF_TRY(add_asym(x, &x->residue_asym[r], "", *index, -1));
            else x->residue_asym[r] = *found;
        }
    }
    return MF_OK;
}

/* Every residue of an entity's sequence in turn; gaps are unknown residues. */
static mf_status put_sequence(cif *x, int64_t e, int one_letter) {
    const mf_structure *s = x->s;
    const mf__chain *c = &s->chains[x->entities[e].chain];
    int next = 1, written = 0;
    for (int64_t r = c->first_residue; r < c->first_residue + c->residues; r++) {
        if (x->label[r] == 0) continue;
        for (; next <= x->label[r]; next++) {
            int gap = next < x->label[r];
            if (one_letter) {
                char code = gap ? 'X' : s->residues[r].code;
                if (code == 'X' && c->polymer != MF_POLYMER_PROTEIN) code = 'N';
                MF_TRY(mf__writer_print(x->w, "%c%s", code, ++written % 80 == 0 ? "\n" : ""));
            } else {
                MF_TRY(mf__writer_print(x->w, "%lld %d ", (long long)e + 1, next));
                MF_TRY(put_value(x->w, gap ? unknown_residue(c->polymer) : mf__name(&s->names, s->residues[r].name)));
                MF_TRY(mf__writer_put(x->w, " n\n", 3));
            }
        }
    }
    return MF_OK;
}

static mf_status put_entities(cif *x) {
    mf__writer *w = x->w;
    const mf_structure *s = x->s;
    static const char *const types[] = {"other", "'polypeptide(L)'", "polyribonucleotide", "polydeoxyribonucleotide"};
    int64_t polymers = 0;
    MF_TRY(PUT_LOOP(w, "entity", "id", "type", "src_method", "pdbx_description"));
    for (int64_t e = 0; e < x->n_entities; e++) {
        const entity *n = &x->entities[e];
        const char *type = n->polymer == WATER ? "water" : n->polymer == NONPOLYMER ? "non-polymer" : "polymer";
        polymers += n->polymer >= 0;
        MF_TRY(mf__writer_print(w, "%lld %s man ", (long long)e + 1, type));
        MF_TRY(put_value(w, n->polymer == WATER ? "water" : n->polymer == NONPOLYMER ? mf__name(&s->names, s->residues[n->residue].name) : ""));
        MF_TRY(mf__writer_put(w, "\n", 1));
    }
    if (polymers > 0) {
        MF_TRY(PUT_LOOP(w, "entity_poly", "entity_id", "type", "nstd_linkage", "nstd_monomer", "pdbx_strand_id", "pdbx_seq_one_letter_code_can"));
        for (int64_t e = 0; e < x->n_entities; e++) {
            if (x->entities[e].polymer < 0) continue;
            MF_TRY(mf__writer_print(w, "%lld %s no no ", (long long)e + 1, types[x->entities[e].polymer]));
            MF_TRY(put_value(w, mf__name(&s->names, s->chains[x->entities[e].chain].id)));
            MF_TRY(mf__writer_put(w, "\n;", 2));
            MF_TRY(put_sequence(x, e, 1));
            MF_TRY(mf__writer_put(w, "\n;\n", 3));
        }
        MF_TRY(PUT_LOOP(w, "entity_poly_seq", "entity_id", "num", "mon_id", "hetero"));
        for (int64_t e = 0; e < x->n_entities; e++)
            if (x->entities[e].polymer >= 0) MF_TRY(put_sequence(x, e, 0));
    }
    MF_TRY(PUT_LOOP(w, "struct_asym", "id", "entity_id"));
    for (int64_t i = 0; i < x->n_asyms; i++) {
        MF_TRY(put_value(w, mf__name(&x->ids, x->asyms[i].id)));
        MF_TRY(mf__writer_print(w, " %lld\n", (long long)x->asyms[i].entity + 1));
    }
    return MF_OK;
}

static int has_polymer(const cif *x) {
    for (int64_t i = 0; i < x->n_asyms; i++)
        if (x->asyms[i].chain >= 0) return 1;
    return 0;
}

/* Author numbers beside those of the sequence; DSSP and ChimeraX find polymers through this table. */
static mf_status put_scheme(cif *x) {
    mf__writer *w = x->w;
    const mf_structure *s = x->s;
    MF_TRY(PUT_LOOP(w, "pdbx_poly_seq_scheme", "asym_id", "entity_id", "seq_id", "mon_id", "ndb_seq_num", "pdb_seq_num", "auth_seq_num", "pdb_mon_id",
                    "auth_mon_id", "pdb_strand_id", "pdb_ins_code", "hetero"));
    for (int64_t i = 0; i < x->n_asyms; i++) {
        if (x->asyms[i].chain < 0) continue;
        const mf__chain *c = &s->chains[x->asyms[i].chain];
        const char *asym_id = mf__name(&x->ids, x->asyms[i].id), *strand = mf__name(&s->names, c->id);
        int next = 1;
        for (int64_t r = c->first_residue; r < c->first_residue + c->residues; r++) {
            const mf__residue *residue = &s->residues[r];
            for (; residue->label && next <= x->label[r]; next++) {
                int gap = next < x->label[r];    /* its number is counted back from the residue after it */
                const char *comp = gap ? unknown_residue(c->polymer) : mf__name(&s->names, residue->name);
                char numbers[96], insertion[2] = {gap ? '\0' : residue->insertion, '\0'};
                MF_TRY(put_value(w, asym_id));
                MF_TRY(mf__writer_print(w, " %lld %d ", (long long)x->asyms[i].entity + 1, next));
                MF_TRY(put_value(w, comp));
                int64_t number = (int64_t)residue->number - (x->label[r] - next);
                if (gap) snprintf(numbers, sizeof numbers, " %d %lld ? ? ? ", next, (long long)number);
                else snprintf(numbers, sizeof numbers, " %d %lld %lld ", next, (long long)number, (long long)number);
                MF_TRY(mf__writer_print(w, "%s", numbers));
                for (int k = 0; k < 2 && !gap; k++) {
                    MF_TRY(put_value(w, comp));
                    MF_TRY(mf__writer_put(w, " ", 1));
                }
                MF_TRY(put_value(w, *strand ? strand : asym_id));
                MF_TRY(mf__writer_put(w, " ", 1));
                MF_TRY(put_value(w, *insertion ? insertion : "."));
                MF_TRY(mf__writer_put(w, " n\n", 3));
            }
        }
    }
    return MF_OK;
}

/* Each component once, with what it is: DSSP builds peptides of those that are linking. */
static mf_status put_component(cif *x, mf__names *seen, const char *name, int polymer) {
    int64_t n = (int64_t)strlen(name);
    int32_t index;
    if (n == 0 || mf__names_find(seen, name, n) >= 0) return MF_OK;
    MF_TRY(mf__names_add(seen, &index, name, n));
    const char *type = polymer == MF_POLYMER_PROTEIN ? (strcmp(name, "GLY") ? "'L-peptide linking'" : "'peptide linking'")
                       : polymer == MF_POLYMER_RNA   ? "'RNA linking'"
                       : polymer == MF_POLYMER_DNA   ? "'DNA linking'"
                                                     : "non-polymer";
    MF_TRY(put_value(x->w, name));
    return mf__writer_print(x->w, " %s %s\n", type, polymer == MF_POLYMER_NONE ? "." : mf__residue_kind(name).standard ? "y" : "n");
}

static mf_status put_components(cif *x) {
    const mf_structure *s = x->s;
    MF_TRY(PUT_LOOP(x->w, "chem_comp", "id", "type", "mon_nstd_flag"));
    mf__names seen;
    mf_status status = mf__names_init(&seen);
    for (int polymer = MF_POLYMER_PROTEIN; polymer <= MF_POLYMER_DNA && status == MF_OK; polymer++)
        if (x->gaps >> polymer & 1) status = put_component(x, &seen, unknown_residue(polymer), polymer);
    for (int64_t c = 0; c < s->n_chains; c++)
        for (int64_t r = s->chains[c].first_residue; r < s->chains[c].first_residue + s->chains[c].residues && status == MF_OK; r++)
            status = put_component(x, &seen, mf__name(&s->names, s->residues[r].name), s->residues[r].label ? s->chains[c].polymer : MF_POLYMER_NONE);
    mf__names_free(&seen);
    return status;
}

static mf_status put_atom(cif *x, int64_t chain, int64_t r, const mf__atom *atom, int64_t serial) {
    mf__writer *w = x->w;
    const mf_structure *s = x->s;
    const mf__residue *residue = &s->residues[r];
    const asym *a = &x->asyms[residue->label ? x->chain_asym[chain] : x->residue_asym[r]];
    const char *name = mf__name(&s->names, atom->name), *comp = mf__name(&s->names, residue->name), *id = mf__name(&s->names, s->chains[chain].id);
    char number[5][40];
    if (fabs(atom->x) > 1e9 || fabs(atom->y) > 1e9 || fabs(atom->z) > 1e9 || fabs(atom->b) > 1e9 || fabs(atom->occupancy) > 1e9)
        return mf__fail(MF_EVALUE, "structure.write: atom %lld has a value beyond 1e9", (long long)serial);
    mf__format_fixed(number[0], atom->x, 3, 0);
    mf__format_fixed(number[1], atom->y, 3, 0);
    mf__format_fixed(number[2], atom->z, 3, 0);
    mf__format_fixed(number[3], atom->occupancy, 2, 0);
    mf__format_fixed(number[4], atom->b, 2, 0);
    MF_TRY(mf__writer_print(w, "%s %lld ", residue->hetero ? "HETATM" : "ATOM", (long long)serial));
    MF_TRY(put_value(w, mf__name(&s->names, atom->element)));
    MF_TRY(mf__writer_put(w, " ", 1));
    MF_TRY(put_value(w, name));
    MF_TRY(mf__writer_put(w, " . ", 3));
    MF_TRY(put_value(w, comp));
    MF_TRY(mf__writer_put(w, " ", 1));
    MF_TRY(put_value(w, mf__name(&x->ids, a->id)));
    MF_TRY(mf__writer_print(w, " %lld ", (long long)a->entity + 1));
    if (residue->label) MF_TRY(mf__writer_print(w, "%d ", x->label[r]));
    else MF_TRY(mf__writer_put(w, ". ", 2));
    char insertion[2] = {residue->insertion, '\0'};
    MF_TRY(put_value(w, insertion));
    MF_TRY(mf__writer_print(w, " %s %s %s %s %s ? %d ", number[0], number[1], number[2], number[3], number[4], residue->number));
    MF_TRY(put_value(w, comp));
    MF_TRY(mf__writer_put(w, " ", 1));
    MF_TRY(put_value(w, *id ? id : mf__name(&x->ids, a->id)));
    MF_TRY(mf__writer_put(w, " ", 1));
    MF_TRY(put_value(w, name));
    return mf__writer_print(w, " %d\n", s->chains[chain].model);
}

static mf_status put_atoms(cif *x) {
    const mf_structure *s = x->s;
    MF_TRY(PUT_LOOP(x->w, "atom_site", "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id", "label_entity_id",
                    "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv", "pdbx_formal_charge", "auth_seq_id",
                    "auth_comp_id", "auth_asym_id", "auth_atom_id", "pdbx_PDB_model_num"));
    int64_t serial = 0;
    for (int64_t c = 0; c < s->n_chains; c++)
        for (int64_t r = s->chains[c].first_residue; r < s->chains[c].first_residue + s->chains[c].residues; r++)
            for (int64_t a = s->residues[r].first_atom; a < s->residues[r].first_atom + s->residues[r].atoms; a++) MF_TRY(put_atom(x, c, r, &s->atoms[a], ++serial));
    return mf__writer_put(x->w, "#\n", 2);
}

static mf_status put_heading(cif *x) {
    const mf_structure *s = x->s;
    const char *id = mf__name(&s->names, s->id), *title = mf__name(&s->names, s->title), *method = mf__name(&s->names, s->method), *date = mf__name(&s->names, s->date);
    char block[80], number[40];
    snprintf(block, sizeof block, "%.72s", *id ? id : "structure");
    for (char *p = block; *p; p++)
        if (*p <= ' ' || *p > '~') *p = '_';
    MF_TRY(mf__writer_print(x->w, "data_%s\n#\n", block));
    MF_TRY(put_pair(x->w, "_entry.id", block));
    if (*title) {
        MF_TRY(put_pair(x->w, "_struct.entry_id", block));
        MF_TRY(put_pair(x->w, "_struct.title", title));
    }
    if (*method) {
        MF_TRY(put_pair(x->w, "_exptl.entry_id", block));
        MF_TRY(put_pair(x->w, "_exptl.method", method));
    }
    if (*date) {
        MF_TRY(put_pair(x->w, "_pdbx_database_status.entry_id", block));
        MF_TRY(put_pair(x->w, "_pdbx_database_status.status_code", ""));
        MF_TRY(put_pair(x->w, "_pdbx_database_status.recvd_initial_deposition_date", date));
    }
    if (s->resolution > 0 && s->resolution < 1e6) {
        mf__format_fixed(number, s->resolution, 3, 0);
        MF_TRY(put_pair(x->w, "_refine.entry_id", block));
        MF_TRY(put_pair(x->w, "_refine.pdbx_refine_id", *method ? method : "unknown"));
        MF_TRY(put_pair(x->w, "_refine.ls_d_res_high", number));
    }
    return MF_OK;
}

mf_status mf__write_mmcif(mf__writer *w, const mf_structure *s) {
    cif x = {.w = w, .s = s};
    mf_status status = MF_OK;
    MF_TRY_OUT(mf__names_init(&x.ids));
    x.chain_asym = malloc((size_t)(s->n_chains + 1) * sizeof *x.chain_asym);
    x.residue_asym = malloc((size_t)(s->n_residues + 1) * sizeof *x.residue_asym);
    x.label = malloc((size_t)(s->n_residues + 1) * sizeof *x.label);
    if (!x.chain_asym || !x.residue_asym || !x.label) { status = mf__fail(MF_ENOMEM, "structure.write: no memory"); goto out; }
    MF_TRY_OUT(plan_polymers(&x));
    MF_TRY_OUT(plan_others(&x));
    MF_TRY_OUT(put_heading(&x));
    MF_TRY_OUT(put_entities(&x));
    MF_TRY_OUT(put_components(&x));
    if (has_polymer(&x)) MF_TRY_OUT(put_scheme(&x));
    MF_TRY_OUT(put_atoms(&x));
out:
    mf__names_free(&x.ids);
    free(x.entities);
    free(x.asyms);
    free(x.chain_asym);
    free(x.residue_asym);
    free(x.label);
    mf__map_free(&x.by_chain);
    mf__map_free(&x.by_sequence);
    mf__map_free(&x.by_ligand);
    mf__map_free(&x.by_water);
    return status;
}
