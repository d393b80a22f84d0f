/* write_mmcif.c: mmCIF with what DSSP, PyMOL, ChimeraX and gemmi look for.
 *
 *     entry  struct  exptl  pdbx_database_status  refine  cell  symmetry
 *     entity  entity_poly  entity_poly_seq  struct_asym  pdbx_struct_assembly
 *     chem_comp  pdbx_struct_mod_residue  pdbx_poly_seq_scheme  atom_site
 *
 * Numbers have as many digits as it takes to read the same ones back. Atoms keep the serials of the structure
 * where those rise. An author's chain id that is blank is '', which is not the same as . or ?. */
#include "plan.h"
#include "write.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct cif {
    mf__writer *w;
    const mf_structure *s;
    const mf__plan *plan;
} cif;

static mf_status put(mf__writer *w, const char *text) { return mf__writer_put(w, text, (int64_t)strlen(text)); }

static int reserved(const char *text) {
    return strncasecmp(text, "data_", 5) == 0 || strncasecmp(text, "save_", 5) == 0 || strcasecmp(text, "loop_") == 0 ||
           strcasecmp(text, "stop_") == 0 || strcasecmp(text, "global_") == 0;
}

#define BLANKS " \t\r\n\f\v"    /* what ends a value for a reader */

/* Could the text stand between these quotes? A quote ends a value only before a blank. */
static int quotable(const char *text, char quote) {
    for (const char *p = text; *p; p++)
        if (*p == '\n' || *p == '\r' || (*p == quote && p[1] && strchr(BLANKS, p[1]))) return 0;
    return 1;
}

/* A value that is there, quoted where CIF wants it. Primes are legal without, but in the archive they are quoted. */
static mf_status put_present(mf__writer *w, const char *text) {
    int plain = *text && !strchr("_#$[];", *text) && !strpbrk(text, BLANKS "'\"") && strcmp(text, "?") && strcmp(text, ".") && !reserved(text);
    if (plain) return put(w, text);
    char quote = quotable(text, '\'') && !strchr(text, '\'') ? '\'' : quotable(text, '"') ? '"' : quotable(text, '\'') ? '\'' : 0;
    if (!quote) {
        if (strstr(text, "\n;") || strstr(text, "\r;") || *text == '\\')    /* a backslash there would fold lines */
            return mf__fail(MF_EVALUE, "structure.write: CIF cannot hold a text of lines that begins with '\\' or a line with ';': '%.40s'", text);
        MF_TRY(put(w, "\n;"));
        MF_TRY(put(w, text));
        return put(w, "\n;\n");
    }
    MF_TRY(mf__writer_put(w, &quote, 1));
    MF_TRY(put(w, text));
    return mf__writer_put(w, &quote, 1);
}

static mf_status put_value(mf__writer *w, const char *text) { return *text ? put_present(w, text) : put(w, "?"); }

static mf_status put_word(mf__writer *w, const char *text) {
    MF_TRY(put_value(w, text));
    return put(w, " ");
}

static mf_status put_whole(mf__writer *w, int64_t value) {
    char digits[24], *p = digits + sizeof digits;
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    *--p = ' ';
    do *--p = (char)('0' + left % 10); while (left /= 10);
    if (value < 0) *--p = '-';
    return mf__writer_put(w, p, digits + sizeof digits - p);
}

static mf_status put_real(mf__writer *w, double value, int decimals) {
    char text[48];
    int n = mf__format_exact(text, value, decimals);
    text[n] = ' ';
    return mf__writer_put(w, text, n + 1);
}

static mf_status put_pair(mf__writer *w, const char *tag, const char *text) {
    MF_TRY(put(w, tag));
    MF_TRY(put(w, " "));
    MF_TRY(put_value(w, text));
    return put(w, "\n");
}

static mf_status put_real_pair(mf__writer *w, const char *tag, double value, int decimals) {
    MF_TRY(put(w, tag));
    MF_TRY(put(w, " "));
    MF_TRY(put_real(w, value, decimals));
    return put(w, "\n");
}

static mf_status put_loop(mf__writer *w, const char *category, const char *const *columns, int n) {
    MF_TRY(put(w, "#\nloop_\n"));
    for (int i = 0; i < n; i++) MF_TRY(mf__writer_print(w, "_%s.%s\n", category, columns[i]));
    return MF_OK;
}
#define PUT_LOOP(w, category, ...) put_loop(w, category, (const char *[]){__VA_ARGS__}, (int)(sizeof(const char *[]){__VA_ARGS__} / sizeof(const char *)))

static const char *planned(const cif *x, int32_t name) { return mf__name(&x->plan->names, name); }

/* ---- what stands above the atoms ---- */

static mf_status put_heading(const cif *x) {
    const mf_structure *s = x->s;
    mf__writer *w = x->w;
    const char *id = mf__name(&s->names, s->id), *title = mf__name(&s->names, s->title), *method = mf__name(&s->names, s->method), *date = mf__name(&s->names, s->date);
    const char *entry = *id ? id : "structure";
    char block[80] = {0};
    strncpy(block, entry, sizeof block - 1);
    for (char *p = block; *p; p++)
        if (*p <= ' ' || *p > '~') *p = '_';
    MF_TRY(mf__writer_print(w, "data_%s\n#\n", block));
    if (*id) MF_TRY(put_pair(w, "_entry.id", entry));
    if (*title) {
        MF_TRY(put_pair(w, "#\n_struct.entry_id", entry));
        MF_TRY(put_pair(w, "_struct.title", title));
    }
    if (*method) {
        MF_TRY(put_pair(w, "#\n_exptl.entry_id", entry));
        MF_TRY(put_pair(w, "_exptl.method", method));
    }
    if (*date) {
        MF_TRY(put_pair(w, "#\n_pdbx_database_status.entry_id", entry));
        MF_TRY(put_pair(w, "_pdbx_database_status.status_code", ""));
        MF_TRY(put_pair(w, "_pdbx_database_status.recvd_initial_deposition_date", date));
    }
    if (s->resolution > 0) {
        MF_TRY(put_pair(w, "#\n_refine.entry_id", entry));
        MF_TRY(put_pair(w, "_refine.pdbx_refine_id", method));
        MF_TRY(put_real_pair(w, "_refine.ls_d_res_high", s->resolution, 2));
    }
    if (s->cell[0] > 0) {
        static const char *const tags[] = {"_cell.length_a", "_cell.length_b", "_cell.length_c", "_cell.angle_alpha", "_cell.angle_beta", "_cell.angle_gamma"};
        MF_TRY(put_pair(w, "#\n_cell.entry_id", entry));
        for (int i = 0; i < 6; i++) MF_TRY(put_real_pair(w, tags[i], s->cell[i], i < 3 ? 3 : 2));
    }
    if (!s->space_group) return MF_OK;
    MF_TRY(put_pair(w, "#\n_symmetry.entry_id", entry));
    return put_pair(w, "_symmetry.space_group_name_H-M", mf__name(&s->names, s->space_group));
}

static const char *kind_text(int kind) {
    static const char *const texts[] = {[MF_ENTITY_UNKNOWN] = "?", [MF_ENTITY_POLYMER] = "polymer", [MF_ENTITY_NONPOLYMER] = "non-polymer",
                                        [MF_ENTITY_BRANCHED] = "branched", [MF_ENTITY_WATER] = "water", [MF_ENTITY_MACROLIDE] = "macrolide"};
    return texts[kind];
}

/* Letters of a sequence; modified residues as their parents' letter, or as (MSE). */
static mf_status put_letters(const cif *x, const mf__part *part, int parents) {
    int column = 0, last = 0;
    MF_TRY(put(x->w, "\n;"));
    for (int64_t i = part->first; i < part->first + part->units; i++) {
        const mf__unit *unit = &x->plan->units[i];
        const char *name = planned(x, unit->name);
        char code[2] = {unit->code == 'X' && part->polymer != MF_POLYMER_PROTEIN ? 'N' : unit->code, '\0'};
        if (unit->number == last) continue;    /* another name at one place */
        last = unit->number;
        int whole = !parents && !mf__residue_kind(name).standard;
        if (column >= 80) {
            MF_TRY(put(x->w, "\n"));
            column = 0;
        }
        if (whole) MF_TRY(put(x->w, "("));
        MF_TRY(put(x->w, whole ? name : code));
        if (whole) MF_TRY(put(x->w, ")"));
        column += whole ? (int)strlen(name) + 2 : 1;
    }
    return put(x->w, "\n;\n");
}

static mf_status put_strands(const cif *x, int64_t part) {
    char list[512] = "";
    size_t used = 0;
    for (int64_t i = 0; i < x->plan->n_asyms; i++) {
        const mf__asym *a = &x->plan->asyms[i];
        const char *id = planned(x, a->chain);
        size_t n = strlen(id);
        if (a->part != part || !a->polymer || n == 0 || used + n + 2 > sizeof list) continue;
        if (used) list[used++] = ',';
        memcpy(list + used, id, n + 1);
        used += n;
    }
    return put_value(x->w, list);
}

static mf_status put_polymers(const cif *x) {
    static const char *const types[] = {"other", "'polypeptide(L)'", "polyribonucleotide", "polydeoxyribonucleotide"};
    const mf__plan *plan = x->plan;
    mf__writer *w = x->w;
    MF_TRY(PUT_LOOP(w, "entity_poly", "entity_id", "type", "nstd_linkage", "nstd_monomer", "pdbx_strand_id", "pdbx_seq_one_letter_code", "pdbx_seq_one_letter_code_can"));
    for (int64_t i = 0; i < plan->n_parts; i++) {
        const mf__part *part = &plan->parts[i];
        if (part->kind != MF_ENTITY_POLYMER) continue;
        int modified = 0;
        for (int64_t u = part->first; u < part->first + part->units; u++) modified |= !mf__residue_kind(planned(x, plan->units[u].name)).standard;
        MF_TRY(put_word(w, planned(x, part->id)));
        MF_TRY(mf__writer_print(w, "%s no %s ", types[part->polymer], modified ? "yes" : "no"));
        MF_TRY(put_strands(x, i));
        MF_TRY(put_letters(x, part, 0));
        MF_TRY(put_letters(x, part, 1));
    }
    if (plan->n_units == 0) return MF_OK;
    MF_TRY(PUT_LOOP(w, "entity_poly_seq", "entity_id", "num", "mon_id", "hetero"));
    for (int64_t i = 0; i < plan->n_parts; i++) {
        const mf__part *part = &plan->parts[i];
        for (int64_t u = 0; u < part->units; u++) {
            const mf__unit *unit = &plan->units[part->first + u];
            int several = (u > 0 && unit[-1].number == unit->number) || (u + 1 < part->units && unit[1].number == unit->number);
            MF_TRY(put_word(w, planned(x, part->id)));
            MF_TRY(put_whole(w, unit->number));
            MF_TRY(put_word(w, planned(x, unit->name)));
            MF_TRY(put(w, several ? "y\n" : "n\n"));
        }
    }
    return MF_OK;
}

static mf_status put_parts(const cif *x) {
    const mf__plan *plan = x->plan;
    mf__writer *w = x->w;
    int polymers = 0;
    MF_TRY(PUT_LOOP(w, "entity", "id", "type", "src_method", "pdbx_description"));
    for (int64_t i = 0; i < plan->n_parts; i++) {
        const mf__part *part = &plan->parts[i];
        MF_TRY(put_word(w, planned(x, part->id)));
        MF_TRY(mf__writer_print(w, "%s ? ", kind_text(part->kind)));
        MF_TRY(put_word(w, planned(x, part->description)));
        MF_TRY(put(w, "\n"));
        polymers |= part->kind == MF_ENTITY_POLYMER;
    }
    if (polymers) MF_TRY(put_polymers(x));
    MF_TRY(PUT_LOOP(w, "struct_asym", "id", "entity_id"));
    for (int64_t i = 0; i < plan->n_asyms; i++) {
        MF_TRY(put_word(w, planned(x, plan->asyms[i].id)));
        MF_TRY(put_word(w, planned(x, plan->parts[plan->asyms[i].part].id)));
        MF_TRY(put(w, "\n"));
    }
    if (x->s->n_assemblies == 0) return MF_OK;
    MF_TRY(PUT_LOOP(w, "pdbx_struct_assembly", "id", "details", "oligomeric_details", "oligomeric_count"));
    for (int64_t i = 0; i < x->s->n_assemblies; i++) {
        const mf__assembly *a = &x->s->assemblies[i];
        MF_TRY(put_word(w, mf__name(&x->s->names, a->id)));
        MF_TRY(put_word(w, mf__name(&x->s->names, a->details)));
        MF_TRY(put_word(w, mf__name(&x->s->names, a->oligomer)));
        MF_TRY(a->count ? put_whole(w, a->count) : put(w, "? "));
        MF_TRY(put(w, "\n"));
    }
    return MF_OK;
}

/* Each component once, with what it is: DSSP builds peptides of those that are linking. */
static mf_status put_component(const cif *x, mf__names *seen, const char *name, int polymer) {
    int64_t n = (int64_t)strlen(name);
    int32_t index;
    if (n == 0 || mf__names_find(seen, name, n) >= 0) return MF_OK;
    MF_TRY(mf__names_add(seen, &index, name, n));
    const char *type = polymer == MF_POLYMER_PROTEIN ? (strcmp(name, "GLY") ? "'L-peptide linking'" : "'peptide linking'")
                       : polymer == MF_POLYMER_RNA   ? "'RNA linking'"
                       : polymer == MF_POLYMER_DNA   ? "'DNA linking'"
                                                     : "non-polymer";
    MF_TRY(put_word(x->w, name));
    return mf__writer_print(x->w, "%s %s\n", type, polymer == MF_POLYMER_NONE ? "." : mf__residue_kind(name).standard ? "y" : "n");
}

static mf_status put_components(const cif *x) {
    const mf_structure *s = x->s;
    const mf__plan *plan = x->plan;
    MF_TRY(PUT_LOOP(x->w, "chem_comp", "id", "type", "mon_nstd_flag"));
    mf__names seen;
    mf_status status = mf__names_init(&seen);
    for (int64_t i = 0; i < plan->n_parts; i++)
        for (int64_t u = plan->parts[i].first; u < plan->parts[i].first + plan->parts[i].units && status == MF_OK; u++)
            status = put_component(x, &seen, planned(x, plan->units[u].name), plan->parts[i].polymer);
    for (int64_t r = 0; r < s->n_residues && status == MF_OK; r++) status = put_component(x, &seen, mf__name(&s->names, s->residues[r].name), MF_POLYMER_NONE);
    mf__names_free(&seen);
    return status;
}

/* Modified residues of the first model that have a parent. */
static mf_status put_modified(const cif *x) {
    const mf_structure *s = x->s;
    mf__writer *w = x->w;
    int64_t rows = 0, end = mf__model_end(s, 0);
    for (int64_t c = 0; c < end; c++)
        for (int64_t r = s->chains[c].first_residue; r < s->chains[c].first_residue + s->chains[c].residues; r++) {
            const mf__residue *residue = &s->residues[r];
            const char *name = mf__name(&s->names, residue->name), insertion[2] = {residue->insertion, '\0'};
            const char *parent = x->plan->label[r] ? mf__parent_of(name, residue->code, s->chains[c].polymer) : NULL;
            if (!parent) continue;
            if (rows == 0) MF_TRY(PUT_LOOP(w, "pdbx_struct_mod_residue", "id", "label_asym_id", "label_comp_id", "label_seq_id", "auth_asym_id", "auth_comp_id", "auth_seq_id", "PDB_ins_code", "parent_comp_id"));
            MF_TRY(put_whole(w, ++rows));
            MF_TRY(put_word(w, planned(x, x->plan->asyms[x->plan->asym[r]].id)));
            MF_TRY(put_word(w, name));
            MF_TRY(put_whole(w, x->plan->label[r]));
            MF_TRY(put_present(w, mf__name(&s->names, s->chains[c].id)));
            MF_TRY(put(w, " "));
            MF_TRY(put_word(w, name));
            MF_TRY(put_whole(w, residue->number));
            MF_TRY(put_word(w, insertion));
            MF_TRY(put_word(w, parent));
            MF_TRY(put(w, "\n"));
        }
    return MF_OK;
}

/* ---- author numbers beside those of the sequence: DSSP and ChimeraX find polymers through this table ---- */

/* Residues of polymers by asym, label and name; the first model's come first and stay. */
static mf_status find_residues(mf__map *map, const cif *x) {
    for (int64_t r = 0; r < x->s->n_residues; r++) {
        int64_t *found;
        mf__key key = {(uint64_t)x->plan->asym[r], (uint64_t)x->plan->label[r], (uint64_t)x->plan->text[x->s->residues[r].name]};
        if (x->plan->label[r]) MF_TRY(mf__map_get(map, &found, key, r));
    }
    return MF_OK;
}

static mf_status put_scheme_row(const cif *x, const mf__asym *asym, const mf__unit *unit, const mf__residue *residue, int64_t number, int several) {
    mf__writer *w = x->w;
    const char *name = planned(x, unit->name), insertion[2] = {residue ? residue->insertion : '\0', '\0'};
    MF_TRY(put_word(w, planned(x, asym->id)));
    MF_TRY(put_word(w, planned(x, x->plan->parts[asym->part].id)));
    MF_TRY(put_whole(w, unit->number));
    MF_TRY(put_word(w, name));
    MF_TRY(put_whole(w, unit->number));
    MF_TRY(put_whole(w, number));
    if (residue) {
        MF_TRY(put_whole(w, residue->number));
        MF_TRY(put_word(w, name));
        MF_TRY(put_word(w, name));
    } else {
        MF_TRY(put(w, "? ? ? "));
    }
    MF_TRY(put_present(w, planned(x, asym->chain)));
    MF_TRY(put(w, " "));
    MF_TRY(*insertion ? put_word(w, insertion) : put(w, ". "));
    return put(w, several ? "y\n" : "n\n");
}

/* The residue of a unit in an asym; NULL where it is missing. */
static mf_status residue_of(const mf__residue **out, mf__map *places, const cif *x, int64_t asym, const mf__unit *unit) {
    int64_t *found;
    MF_TRY(mf__map_get(places, &found, (mf__key){(uint64_t)asym, (uint64_t)unit->number, (uint64_t)unit->name}, x->s->n_residues));
    *out = *found < x->s->n_residues ? &x->s->residues[*found] : NULL;
    return MF_OK;
}

static mf_status put_asym_scheme(const cif *x, mf__map *places, int64_t i) {
    const mf__asym *asym = &x->plan->asyms[i];
    const mf__part *part = &x->plan->parts[asym->part];
    if (part->units == 0) return MF_OK;
    const mf__unit *units = &x->plan->units[part->first];
    const mf__residue *residue = NULL;
    int64_t first = 0;
    while (first < part->units && !residue) MF_TRY(residue_of(&residue, places, x, i, &units[first++]));
    int64_t shift = residue ? (int64_t)residue->number - units[first - 1].number : 0;    /* author's number less label: for residues that are missing */
    for (int64_t u = 0; u < part->units; u++) {
        MF_TRY(residue_of(&residue, places, x, i, &units[u]));
        if (residue) shift = (int64_t)residue->number - units[u].number;
        int several = (u > 0 && units[u - 1].number == units[u].number) || (u + 1 < part->units && units[u + 1].number == units[u].number);
        MF_TRY(put_scheme_row(x, asym, &units[u], residue, units[u].number + shift, several));
    }
    return MF_OK;
}

static mf_status put_scheme(const cif *x) {
    const mf__plan *plan = x->plan;
    mf__map places = {0};
    mf_status status = MF_OK;
    int rows = 0;
    for (int64_t i = 0; i < plan->n_asyms; i++) rows |= plan->asyms[i].polymer && plan->parts[plan->asyms[i].part].units > 0;
    if (!rows) return MF_OK;
    MF_TRY_OUT(find_residues(&places, x));
    MF_TRY_OUT(PUT_LOOP(x->w, "pdbx_poly_seq_scheme", "asym_id", "entity_id", "seq_id", "mon_id", "ndb_seq_num", "pdb_seq_num", "auth_seq_num",
                        "pdb_mon_id", "auth_mon_id", "pdb_strand_id", "pdb_ins_code", "hetero"));
    for (int64_t i = 0; i < plan->n_asyms; i++)
        if (plan->asyms[i].polymer) MF_TRY_OUT(put_asym_scheme(x, &places, i));
out:
    mf__map_free(&places);
    return status;
}

/* ---- atoms ---- */

static mf_status put_atom(const cif *x, int64_t chain, int64_t r, const mf__atom *atom, int64_t serial, int model) {
    mf__writer *w = x->w;
    const mf_structure *s = x->s;
    const mf__residue *residue = &s->residues[r];
    const mf__asym *asym = &x->plan->asyms[x->plan->asym[r]];
    const char *name = mf__name(&s->names, atom->name), *comp = mf__name(&s->names, residue->name);
    const char altloc[2] = {atom->altloc, '\0'}, insertion[2] = {residue->insertion, '\0'};
    MF_TRY(put(w, residue->hetero ? "HETATM " : "ATOM "));
    MF_TRY(put_whole(w, serial));
    MF_TRY(put_word(w, mf__name(&s->names, atom->element)));
    MF_TRY(put_word(w, name));
    MF_TRY(atom->altloc ? put_word(w, altloc) : put(w, ". "));
    MF_TRY(put_present(w, comp));
    MF_TRY(put(w, " "));
    MF_TRY(put_word(w, planned(x, asym->id)));
    MF_TRY(put_word(w, planned(x, x->plan->parts[x->plan->part[r]].id)));
    MF_TRY(x->plan->label[r] ? put_whole(w, x->plan->label[r]) : put(w, ". "));
    MF_TRY(put_word(w, insertion));
    MF_TRY(put_real(w, atom->x, 3));
    MF_TRY(put_real(w, atom->y, 3));
    MF_TRY(put_real(w, atom->z, 3));
    MF_TRY(put_real(w, atom->occupancy, 2));
    MF_TRY(put_real(w, atom->b, 2));
    MF_TRY(atom->charge ? put_whole(w, atom->charge) : put(w, "? "));
    MF_TRY(put_whole(w, residue->number));
    MF_TRY(put_present(w, comp));
    MF_TRY(put(w, " "));
    MF_TRY(put_present(w, mf__name(&s->names, s->chains[chain].id)));
    MF_TRY(put(w, " "));
    MF_TRY(put_word(w, name));
    MF_TRY(put_whole(w, model));
    return put(w, "\n");
}

static mf_status put_model(mf_structure_writer *w, const cif *x, int64_t first, int64_t end) {
    const mf_structure *s = x->s;
    mf__order order;
    MF_TRY(mf__order_model(&order, s, first, end));
    mf_status status = MF_OK;
    int keep = mf__serials_rise(&order, s, w->serial, INT32_MAX, 0);
    for (int64_t i = 0; i < order.count; i++) {
        const mf__residue *residue = &s->residues[order.items[i].residue];
        for (int64_t a = residue->first_atom; a < residue->first_atom + residue->atoms; a++) {
            w->serial = keep ? s->atoms[a].serial : w->serial < 1 ? 1 : w->serial + 1;
            MF_TRY_OUT(put_atom(x, order.items[i].chain, order.items[i].residue, &s->atoms[a], w->serial, w->models));
        }
    }
out:
    free(order.items);
    return status;
}

mf_status mf__write_mmcif(mf_structure_writer *w, const mf_structure *s) {
    cif x = {w->file, s, &w->plan};
    MF_TRY(mf__plan_take(&w->plan, s));
    if (!w->plan.frozen) {
        MF_TRY(put_heading(&x));
        MF_TRY(put_parts(&x));
        MF_TRY(put_components(&x));
        MF_TRY(put_modified(&x));
        MF_TRY(put_scheme(&x));
        MF_TRY(PUT_LOOP(w->file, "atom_site", "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id", "label_entity_id",
                        "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv", "pdbx_formal_charge", "auth_seq_id",
                        "auth_comp_id", "auth_asym_id", "auth_atom_id", "pdbx_PDB_model_num"));
        w->plan.frozen = 1;
    }
    for (int64_t first = 0, end; first < s->n_chains; first = end) {
        end = mf__model_end(s, first);
        w->models++;
        MF_TRY(put_model(w, &x, first, end));
    }
    return MF_OK;
}

mf_status mf__end_mmcif(mf_structure_writer *w) { return put(w->file, "#\n"); }
