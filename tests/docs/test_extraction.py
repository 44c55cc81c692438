"""The sizes that docs/extraction.md promises are those of the rows that are written."""

import re

from ames.descriptors.encoding import LocalRows, VectorRows, row_bytes
from ames.io.text import size_text
from helpers.commands import ROOT

ROWS = {
    "dinov2, float16": (LocalRows(700, 768), 768),
    "dinov2, float32": (LocalRows(700, 768, "float32"), 768),
    "dinov2, float16, `--desc-num 400`": (LocalRows(400, 768), 768),
    "cvnet, float16": (LocalRows(700, 1024), 2048),
    "dinov2, `--pack` 128 bits": (LocalRows(700, 16, "uint8"), 768),
    "dinov2, `--pack` 128 bits, `--desc-num 50`": (LocalRows(50, 16, "uint8"), 768),
}


def test_sizes():
    text = (ROOT / "docs" / "extraction.md").read_text()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    found = {cells[0]: cells[1:] for cells in table if cells[0] in ROWS}
    header = next(cells for cells in table if cells[0].startswith("700 descriptors"))
    images = [int(re.search(r"\(([\d,]+)\)", cell)[1].replace(",", "")) for cell in header[2:]]
    for name, (local, width) in ROWS.items():
        each = row_bytes(local) + row_bytes(VectorRows(width))
        assert found[name] == [f"{each:,}", *(size_text(each * n) for n in images)], name
