"""Torsions of every chain by gemmi, for spec/tools/torsions.lua: chain, number with insertion code, and phi, psi, omega of
proteins, alpha to zeta and chi of nucleic acids.

    ls *.pdb | python3 gemmi_torsions.py       first models; the location of highest occupancy, then the first
"""
import math
import sys

import gemmi


def best(residue, name):
    chosen = None
    for atom in residue:
        if atom.name == name and (chosen is None or atom.occ > chosen.occ):
            chosen = atom
    return chosen


def degrees(residues_and_names):
    atoms = [best(r, n) for r, n in residues_and_names]
    if any(a is None for a in atoms):
        return math.nan
    return math.degrees(gemmi.calculate_dihedral(*(a.pos for a in atoms)))


def plain(residue):
    return all(a.altloc == "\0" for a in residue)


NUCLEIC = ["-O3' P O5' C5'", "P O5' C5' C4'", "O5' C5' C4' C3'", "C5' C4' C3' O3'", "C4' C3' O3' +P", "C3' O3' +P +O5'"]


def nucleic(before, r, after):
    values = []
    for quartet in NUCLEIC:
        places = [({"-": before, "+": after}.get(name[0], r), name.lstrip("-+")) for name in quartet.split()]
        values.append(math.nan if any(x is None for x, _ in places) else degrees(places))
    purine = best(r, "N9") is not None
    values.append(degrees([(r, n) for n in ("O4'", "C1'", "N9" if purine else "N1", "C4" if purine else "C2")]))
    return values


def print_torsions(path):
    structure = gemmi.read_structure(path)
    structure.setup_entities()
    for chain in structure[0] if len(structure) else []:
        rows = list(chain.get_polymer().first_conformer())
        for i, r in enumerate(rows):
            before = rows[i - 1] if i > 0 else None
            after = rows[i + 1] if i + 1 < len(rows) else None
            if best(r, "CA") is None and best(r, "C4'") is not None:
                values = [math.nan if r.name == "PSU" and k == 6 else v for k, v in enumerate(nucleic(before, r, after))]
                print(chain.name, f"{r.seqid.num}{r.seqid.icode.strip()}", *(f"{v:.5f}" for v in values), sep="\t")
                continue
            if all(plain(x) for x in (before, r, after) if x is not None):
                phi, psi = (math.degrees(a) for a in gemmi.calculate_phi_psi(before, r, after))
                omega = math.degrees(gemmi.calculate_omega(r, after)) if after else math.nan
            else:    # gemmi's functions take the first location: the same dihedral of the one that we keep
                phi = degrees([(before, "C"), (r, "N"), (r, "CA"), (r, "C")]) if before else math.nan
                psi = degrees([(r, "N"), (r, "CA"), (r, "C"), (after, "N")]) if after else math.nan
                omega = degrees([(r, "CA"), (r, "C"), (after, "N"), (after, "CA")]) if after else math.nan
            print(chain.name, f"{r.seqid.num}{r.seqid.icode.strip()}", f"{phi:.5f}", f"{psi:.5f}", f"{omega:.5f}", sep="\t")


for line in sys.stdin:
    path = line.rstrip("\n")
    print("#" + path)
    try:
        print_torsions(path)
    except Exception as error:
        print("!" + str(error).replace("\n", " "))
