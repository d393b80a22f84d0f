"""What other readers of structure files take, for scripts/bench/structures.lua.

    python3 structures_peers.py gemmi|biopython REPEATS < paths     seconds of one core: the median of the runs over all paths
    python3 structures_peers.py gemmi|biopython memory < path       megabytes at the peak, and before anything was read

A file that a peer cannot read is passed over: "unread N" ends the line.
"""
import gzip
import resource
import statistics
import sys
import time
import warnings

warnings.simplefilter("ignore")


def read_gemmi(path):
    gemmi.read_structure(path)


def read_biopython(path):
    parser = MMCIFParser(QUIET=True) if ".cif" in path else PDBParser(QUIET=True)
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
        parser.get_structure("x", file)


which, how = sys.argv[1:]
if which == "gemmi":
    import gemmi
    read = read_gemmi
else:
    from Bio.PDB import MMCIFParser, PDBParser
    read = read_biopython

paths = sys.stdin.read().split("\n")[:-1]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, unread, times = peak(), 0, []
for _ in range(1 if how == "memory" else int(how)):
    unread, started = 0, time.process_time()
    for path in paths:
        try:
            read(path)
        except Exception:
            unread += 1
    times.append(time.process_time() - started)
print(*((peak(), before) if how == "memory" else (statistics.median(times),)), "unread", unread)
