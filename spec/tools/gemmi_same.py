"""Reads a structure and what was written of it with gemmi and holds their atoms against each other, for spec/tools/roundtrip.lua.

    python3 gemmi_same.py       lines of: check TAB original TAB written; prints check TAB original TAB result

The result is "same", "unread: reason" when gemmi cannot read the original, or the first difference. Atoms are known by model, chain,
number, residue, name and location; a PDB file has three decimals, two for B and occupancy.
"""
import collections
import sys

import gemmi


def atoms(structure, digits):
    found = collections.Counter()
    for number, model in enumerate(structure):
        for chain in model:
            for residue in chain:
                for atom in residue:
                    key = (number, chain.name, residue.seqid.num, residue.seqid.icode, residue.name, atom.name, atom.altloc, atom.element.name)
                    place = tuple(round(v, digits) + 0.0 for v in atom.pos.tolist())
                    found[key + place + (round(atom.occ, 2), round(atom.b_iso, 1 if digits == 3 else 2), atom.charge)] += 1
    return found


def compare(original, written):
    try:
        theirs = gemmi.read_structure(original)
    except Exception as why:
        return "unread: " + str(why)
    if len(theirs) == 0 or theirs[0].count_atom_sites() == 0:
        return "unread: no atoms"
    ours = gemmi.read_structure(written)
    digits = 3 if written.endswith(".pdb") else 6
    a, b = atoms(theirs, digits), atoms(ours, digits)
    missing, added = a - b, b - a
    if not missing and not added:
        return "same"
    example = [next(iter(missing), None), next(iter(added), None)]
    return f"{sum(missing.values())} atoms of {sum(a.values())} missing, {sum(added.values())} added: {example[0]} -> {example[1]}"


for line in sys.stdin:
    check, original, written = line.rstrip("\n").split("\t")
    try:
        result = compare(original, written)
    except Exception as why:
        result = "refused: " + str(why).replace("\n", " ")
    print(check, original, result, sep="\t", flush=True)
