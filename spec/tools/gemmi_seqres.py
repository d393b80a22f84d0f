"""Turns mmCIF files into PDB files with SEQRES by gemmi, for spec/tools/seqres.lua.

    python3 gemmi_seqres.py FOLDER < paths > lines of: path TAB pdb file, or path TAB ! reason
"""
import sys

import gemmi

for number, line in enumerate(sys.stdin):
    path = line.rstrip("\n")
    try:
        structure = gemmi.read_structure(path)
        if any(len(c.name) > 1 for c in structure[0]):
            raise ValueError("chain ids of several characters")
        name = f"{sys.argv[1]}/{number}.pdb"
        structure.write_pdb(name)
        print(path, name, sep="\t", flush=True)
    except Exception as error:
        print(path, "! " + str(error).replace("\n", " "), sep="\t", flush=True)
