"""What gemmi reads of each file, for spec/tools/gemmi_counts.lua: counts, and every atom as a record of 80 bytes.

    python3 gemmi_counts.py < paths > records

One line a file, "models chains residues atoms alternates" and then that many records, or "! reason". Order: models, chains (their parts
merged), residues, atoms, as gemmi has them. gemmi keeps occupancy and B as float32.
"""
import struct
import sys

import gemmi

RECORD = struct.Struct("<3d2f8s8s8s4sii4cb7x")    # x y z, occupancy B, atom residue chain element, model number, altloc icode hetero, charge


def flag(c):
    return b"\0" if c in ("\0", " ", "") else c.encode("latin-1")


def records(structure):
    counts = [len(structure), 0, 0, 0, 0]
    data = []
    for m, model in enumerate(structure):
        for chain in model:
            counts[1] += 1
            name = chain.name.encode()[:8]
            for residue in chain:
                counts[2] += 1
                number, icode = residue.seqid.num, flag(residue.seqid.icode)
                res, het = residue.name.encode()[:8], b"H" if residue.het_flag == "H" else b"A"
                for a in residue:
                    p = a.pos
                    counts[3] += 1
                    counts[4] += a.altloc != "\0"
                    data.append(RECORD.pack(p.x, p.y, p.z, a.occ, a.b_iso, a.name.encode()[:8], res, name,
                                            a.element.name.upper().encode(), m + 1, -999 if number is None else number,
                                            flag(a.altloc), icode, het, b"\0", a.charge))
    return counts, data


for line in sys.stdin:
    try:
        counts, data = records(gemmi.read_structure(line.rstrip("\n")))
        head = " ".join(map(str, counts))
    except Exception as error:
        head, data = "! " + str(error).replace("\n", " "), []
    sys.stdout.buffer.write(head.encode() + b"\n" + b"".join(data))
    sys.stdout.buffer.flush()
