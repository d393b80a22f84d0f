"""CIF files by gemmi, for spec/tools/cif_values.lua.

    ls *.cif.gz | python3 gemmi_cif.py values      blocks, tags and values, in a form that is compared line by line
    ls *.cif.gz | python3 gemmi_cif.py seconds     of this process: cif.read of all files, read_structure of all files
"""
import sys
import time

from gemmi import cif, read_structure


def value(text):
    if text in ("?", "."):
        return "\1" + text
    return cif.as_string(text).replace("\r\n", "\n").replace("\n", "\2")


def columns(block):
    for item in block:
        if item.pair:
            yield [item.pair[0], item.pair[1]]
        elif item.loop:
            width = len(item.loop.tags)
            for i, tag in enumerate(item.loop.tags):
                yield [tag] + item.loop.values[i::width]


def blocks(found):
    for block in found:
        yield block
        yield from blocks([item.frame for item in block if item.frame is not None])


def print_values(paths):
    for path in paths:
        print("FILE", path)
        try:
            found = cif.read(path)
        except Exception:
            print("REFUSED")
            continue
        for block in blocks(found):
            print("BLOCK", block.name)
            for line in sorted("\3".join([c[0].lower()] + [value(v) for v in c[1:]]) for c in columns(block)):
                print(line)


def seconds(paths, read):
    start = time.process_time()
    for path in paths:
        read(path)
    return time.process_time() - start


sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
names = sys.stdin.read().split()
if sys.argv[1] == "values":
    print_values(names)
else:
    print(seconds(names, cif.read), seconds(names, read_structure))
