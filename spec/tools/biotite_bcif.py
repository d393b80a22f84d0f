"""CIF files as BinaryCIF by biotite (PyPI), for spec/tools/bcif_biotite.lua.

    python3 biotite_bcif.py IN.cif.gz OUT.bcif       numbers as numbers; encodings as biotite's compress() chooses them
"""
import gzip
import io
import sys

import numpy
from biotite.structure.io import pdbx


def column(values):
    mask = values.mask.array if values.mask is not None else None
    for kind in (numpy.int32, numpy.float64):
        try:
            data = values.as_array(kind, masked_value=0)
            break
        except ValueError:
            data = values.as_array(str)
    marks = pdbx.BinaryCIFData(mask.astype(numpy.uint8)) if mask is not None and mask.any() else None
    return pdbx.BinaryCIFColumn(pdbx.BinaryCIFData(data), marks)


source = gzip.open(sys.argv[1]) if sys.argv[1].endswith(".gz") else open(sys.argv[1], "rb")
text = pdbx.CIFFile.read(io.TextIOWrapper(source, encoding="latin-1"))
out = pdbx.BinaryCIFFile()
for name, block in text.items():
    out[name] = pdbx.BinaryCIFBlock({
        title: pdbx.BinaryCIFCategory({item: column(values) for item, values in category.items()}) for title, category in block.items()
    })
pdbx.compress(out, float_tolerance=1e-9).write(sys.argv[2])
