"""Loads a structure and what was written of it into PyMOL and holds states and atoms against each other, for spec/tools/roundtrip.lua.

    python3 pymol_same.py       lines of: check TAB original TAB written; prints check TAB original TAB result

The result is "same", "unread: reason" when PyMOL cannot load the original, or the first difference.
"""
import sys

import pymol2

# A session of its own: the module's, which starts threads beside this one, sometimes dies as it begins or ends.
session = pymol2.PyMOL()
session.start()
cmd = session.cmd


def atoms(path):
    cmd.reinitialize()
    cmd.feedback("disable", "all", "everything")
    cmd.load(path, "m")
    rows = sorted(
        (a.chain, a.resi, a.resn, a.name, a.alt, a.symbol.upper(), *(round(v, 3) + 0.0 for v in a.coord)) for a in cmd.get_model("m").atom)
    return cmd.count_states("m"), rows


def compare(original, written):
    try:
        states, theirs = atoms(original)
    except Exception as why:
        return "unread: " + str(why)
    if not theirs:
        return "unread: no atoms"
    ours_states, ours = atoms(written)
    if states != ours_states:
        return f"{states} states -> {ours_states}"
    if len(theirs) != len(ours):
        return f"{len(theirs)} atoms -> {len(ours)}"
    differ = [pair for pair in zip(theirs, ours) if pair[0] != pair[1]]
    return f"{len(differ)} atoms differ: {differ[0][0]} -> {differ[0][1]}" if differ else "same"


for line in sys.stdin:
    check, original, written = line.rstrip("\n").split("\t")
    try:
        result = compare(original, written)
    except Exception as why:
        result = "refused: " + str(why).replace("\n", " ")
    print(check, original, result, sep="\t", flush=True)
session.stop()
