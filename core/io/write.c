/* write.c: structure files: which format a name asks for, and models that come one at a time.
 *
 * PDB is in write_pdb.c, mmCIF in write_mmcif.c. What has been written waits in a temporary file; only commit puts it in
 * the place of the old one. */
#include "write.h"
#include <stdlib.h>
#include <string.h>

int64_t mf__model_end(const mf_structure *s, int64_t first) {
    int64_t end = first;
    while (end < s->n_chains && s->chains[end].model == s->chains[first].model) end++;
    return end;
}

/* One past the last polymer residue of a chain, its first residue without any. */
static int64_t polymer_end(const mf_structure *s, const mf__chain *c) {
    int64_t end = c->first_residue + c->residues;
    while (end > c->first_residue && s->residues[end - 1].label == 0) end--;
    return end;
}

static void append(mf__order *order, int64_t chain, int64_t from, int64_t end) {
    for (int64_t r = from; r < end; r++) order->items[order->count++] = (mf__item){chain, r, 0};
}

mf_status mf__order_model(mf__order *order, const mf_structure *s, int64_t first, int64_t end) {
    int64_t residues = 0, leading = first;    /* leading: one past the last chain with a polymer */
    for (int64_t c = first; c < end; c++) {
        residues += s->chains[c].residues;
        if (polymer_end(s, &s->chains[c]) > s->chains[c].first_residue) leading = c + 1;
    }
    *order = (mf__order){.items = malloc((size_t)(residues + 1) * sizeof *order->items)};
    if (!order->items) return mf__fail(MF_ENOMEM, "structure.write: no memory for %lld residues", (long long)residues);
    for (int64_t c = first; c < leading; c++) {
        int64_t from = s->chains[c].first_residue, polymer = polymer_end(s, &s->chains[c]);
        append(order, c, from, polymer > from ? polymer : from + s->chains[c].residues);
        if (polymer > from) order->items[order->count - 1].ter = 1;
    }
    for (int64_t c = first; c < end; c++) {
        int64_t from = s->chains[c].first_residue, polymer = polymer_end(s, &s->chains[c]);
        if (c >= leading || polymer > from) append(order, c, polymer, from + s->chains[c].residues);
    }
    for (int64_t i = 1; i < order->count; i++) {    /* only a TER keeps two of one name and number apart */
        const mf__residue *a = &s->residues[order->items[i - 1].residue], *b = &s->residues[order->items[i].residue];
        int alike = a->number == b->number && a->insertion == b->insertion && a->name == b->name;
        order->items[i - 1].ter |= alike && order->items[i].chain == order->items[i - 1].chain;
    }
    return MF_OK;
}

int mf__serials_rise(const mf__order *order, const mf_structure *s, int64_t last, int64_t most, int ters) {
    for (int64_t i = 0; i < order->count; i++) {
        const mf__residue *residue = &s->residues[order->items[i].residue];
        for (int64_t a = residue->first_atom; a < residue->first_atom + residue->atoms; a++) {
            if (s->atoms[a].serial <= last) return 0;
            last = s->atoms[a].serial;
        }
        last += ters && order->items[i].ter;
    }
    return last <= most;
}

const char *mf__parent_of(const char *name, char code, int polymer) {
    static const int families[] = {[MF_POLYMER_NONE] = MF__OTHER, [MF_POLYMER_PROTEIN] = MF__AMINO, [MF_POLYMER_RNA] = MF__RNA, [MF_POLYMER_DNA] = MF__DNA};
    if (mf__residue_kind(name).standard) return NULL;
    return mf__standard_residue(families[polymer], code);
}

static mf_status open_writer(mf_structure_writer **out, const char *path, int format) {
    *out = NULL;
    if (!path) return mf__fail(MF_EVALUE, "structure.write: no path");
    if (format < MF_FORMAT_AUTO || format > MF_FORMAT_BCIF) return mf__fail(MF_EVALUE, "structure.write: unknown format %d", format);
    if (format == MF_FORMAT_AUTO) format = mf__format_of_name(path);
    if (format == MF_FORMAT_BCIF) return mf__fail(MF_ESUPPORT, "structure.write: '%s': BinaryCIF cannot be written; .cif or .cif.gz can", path);
    mf_structure_writer *w = calloc(1, sizeof *w);
    if (!w) return mf__fail(MF_ENOMEM, "structure.write: '%s': no memory", path);
    w->format = format;
    w->path = strdup(path);
    w->serial = -1;
    mf_status status = w->path ? mf__writer_open(&w->file, path) : mf__fail(MF_ENOMEM, "structure.write: '%s': no memory", path);
    if (status != MF_OK) {
        mf_structure_writer_abandon(w);
        return status;
    }
    *out = w;
    return MF_OK;
}

static mf_status add(mf_structure_writer *w, const mf_structure *s) {
    if (s->n_atoms == 0) return mf__fail(MF_EVALUE, "structure.write: '%s': the structure has no atoms", w->path);
    if (w->format == MF_FORMAT_AUTO) w->format = mf__pdb_holds(s, 1) == MF_OK ? MF_FORMAT_PDB : MF_FORMAT_MMCIF;
    return w->format == MF_FORMAT_PDB ? mf__write_pdb(w, s) : mf__write_mmcif(w, s);
}

mf_status mf_structure_writer_open(mf_structure_writer **out, const char *path, int format) { return open_writer(out, path, format); }

mf_status mf_structure_writer_add(mf_structure_writer *w, const mf_structure *s) {
    if (w->status != MF_OK) return mf__fail(w->status, "structure.writer: '%s': an earlier model could not be written; nothing can follow it", w->path);
    return w->status = add(w, s);
}

mf_status mf_structure_writer_commit(mf_structure_writer *w) {
    mf_status status = w->status;
    if (status != MF_OK) status = mf__fail(status, "structure.writer: '%s': a model could not be written; the file stays as it was", w->path);
    else if (w->models == 0) status = mf__fail(MF_ESTATE, "structure.writer: '%s': no model was added", w->path);
    else status = w->format == MF_FORMAT_PDB ? mf__end_pdb(w) : mf__end_mmcif(w);
    if (status == MF_OK) {
        mf__writer *file = w->file;
        w->file = NULL;
        status = mf__writer_commit(file);
    }
    mf_structure_writer_abandon(w);
    return status;
}

void mf_structure_writer_abandon(mf_structure_writer *w) {
    if (!w) return;
    mf__writer_abandon(w->file);
    mf__plan_free(&w->plan);
    free(w->path);
    free(w);
}

mf_status mf_structure_write(const mf_structure *s, const char *path, int format) {
    mf_structure_writer *w;
    MF_TRY(open_writer(&w, path, format));
    w->alone = 1;
    mf_status status = mf_structure_writer_add(w, s);
    if (status == MF_OK) return mf_structure_writer_commit(w);
    mf_structure_writer_abandon(w);
    return status;
}
