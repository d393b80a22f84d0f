"""Reads a structure and what was written of it with gemmi and holds their atoms against each other, for spec/tools/roundtrip.lua.

    python3 gemmi_same.py       lines of: check TAB original TAB written; prints check TAB original TAB result

The result is "same", "unread: reason" when gemmi cannot read the original, or the first difference. Atoms are known by model, chain,
number, residue, name and location; a PDB file has three decimals, two for B and occupancy.
"""
import collections
import gzip
import sys

import gemmi


def without_b(path):
    """Has a PDB file records that end before the B factor? gemmi fills in 20."""
    if ".pdb" not in path:
        return False
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as lines:
        return any(line[:6] in (b"ATOM  ", b"HETATM") and not line[60:66].strip() for line in lines)


def atoms(structure, digits, filled):
    found = collections.Counter()
    for number, model in enumerate(structure):
        for chain in model:
            for residue in chain:
                for atom in residue:
                    key = (number, chain.name, residue.seqid.num, residue.seqid.icode, residue.name, atom.name, atom.altloc, atom.element.name)
                    place = tuple(round(v, digits) + 0.0 for v in atom.pos.tolist())
                    b = 0 if filled and atom.b_iso == 20 else atom.b_iso
                    found[key + place + (round(atom.occ, 2), round(b, 1 if digits == 3 else 2), atom.charge)] += 1
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
    filled = without_b(original)
    a, b = atoms(theirs, digits, filled), atoms(ours, digits, filled)
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
