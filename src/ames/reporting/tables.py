"""Tables of results: cells as text, for terminals and pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple


class Column(NamedTuple):
    """A heading, and whether all values below it are numbers (or absent)."""

    name: str
    numeric: bool


def table_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Column], list[list[str]]]:
    """Columns, which are the keys of the first row, and the cells of each row as text.

    Floats have one decimal; None, NaN and a missing key become "-".
    """
    keys = list(rows[0]) if rows else []
    columns = [Column(str(key), all(_is_number(row.get(key)) for row in rows)) for key in keys]
    return columns, [[_cell(row.get(key)) for key in keys] for row in rows]


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as an aligned plain-text table with a line of headings; no rows give an empty text.

    Columns of numbers are aligned right; cells are those of ``table_cells``.
    """
    columns, lines = table_cells(rows)
    aligned = []
    for column, *cells in zip(columns, *lines, strict=True):
        texts = [column.name, *cells]
        width = max(map(len, texts))
        aligned.append([text.rjust(width) if column.numeric else text.ljust(width) for text in texts])
    return "\n".join("  ".join(line).rstrip() for line in zip(*aligned, strict=True))


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, Real) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return "-" if math.isnan(value) else f"{float(value):.1f}"
    return " ".join(str(value).split())  # a line break would tear the table
