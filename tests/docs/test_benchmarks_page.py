"""docs/protocols.md lists every benchmark, with the sizes, the reader and the figures of its file."""

import re

import pytest

from ames.config.benchmarks import benchmark, benchmark_names
from helpers.commands import ROOT

TEXT = (ROOT / "docs" / "protocols.md").read_text()
ROWS = {
    cells[0].strip("`"): cells
    for cells in (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TEXT.splitlines()
        if line.startswith("| `")
    )
    if len(cells) == 6
}


def test_every_benchmark_has_a_row():
    assert sorted(ROWS) == benchmark_names()


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_row_says_what_the_file_says(name):
    _, queries, gallery, figures, reader, _ = ROWS[name]
    found = benchmark(name)
    for text, published in ((queries, found.queries), (gallery, found.gallery)):
        number = re.match(r"\(?([\d,]+)", text)
        if published is not None:
            assert number is not None
            assert number[1] == f"{published:,}"
            assert not text.startswith("(") or any("number" in line for line in found.unsure)
        elif number is not None and text.startswith("("):
            assert any(number[1] in line for line in found.unsure)
    assert reader == f"`{found.reader}`"
    protocol, first = figures.split(",")[0].split(";")[0].split(": ")
    assert (protocol, first) == (found.primary_protocol, found.primary)
