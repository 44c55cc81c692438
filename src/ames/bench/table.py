"""The rows of a benchmark's table, and their files: Markdown, CSV, LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ames.bench.cells import Cell
from ames.bench.data import Part
from ames.bench.significance import difference, mean, query_objects, seed_spread
from ames.evaluation.held_out import Interval

Cells = Mapping[str, Sequence[Cell]]  # method -> its cell of each part


def dataset_rows(parts: Sequence[Part], cells: Cells, baseline: str) -> list[dict[str, Any]]:
    """Return one row per method on the parts (seeds) of one data set, in the suite's order.

    A row has method, bytes, ms, offline_s, memory_mb, and of each protocol ``map``: mean, low, high of the 95
    % interval over queries of all seeds, ``seeds``: the standard deviation over seeds, ``above``: the paired
    difference to the baseline with its interval.
    """
    objects = {
        p.name: [query_objects(part.test.ground_truth, p) for part in parts] for p in parts[0].protocols
    }
    return [_row(name, found, cells[baseline], objects, name == baseline) for name, found in cells.items()]


def _row(
    name: str,
    cells: Sequence[Cell],
    base: Sequence[Cell],
    objects: Mapping[str, list[list[str]]],
    is_base: bool,
) -> dict[str, Any]:
    count = len(cells)
    known = [x.memory_mb for x in cells if x.memory_mb is not None]
    took = [x.online_ms for x in cells if x.online_ms is not None]
    row: dict[str, Any] = {
        "method": name,
        "bytes": round(sum(x.bytes for x in cells) / count, 1),
        "ms": round(sum(took) / len(took), 3) if took else None,
        "offline_s": round(sum(x.offline_s for x in cells) / count, 3),
        "memory_mb": round(max(known), 1) if known else None,
        "protocols": {},
    }
    for protocol, groups in objects.items():
        values, other = ([x.aps[protocol] for x in side] for side in (cells, base))
        spread = seed_spread(values)
        row["protocols"][protocol] = {
            "map": _plain(mean(values, groups)),
            "seed_deviation": None if spread is None else round(spread, 3),
            "above_baseline": None if is_base else _plain(difference(values, other, groups)),
        }
    return row


def _plain(found: Interval | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"mean": round(found.mean, 3), "low": round(found.low, 3), "high": round(found.high, 3)}


# ---- for people ---------------------------------------------------------------------------------------


def flat(row: Mapping[str, Any], primary: str, *, seeds: int) -> dict[str, Any]:
    """Return the cells of a row as text: the primary protocol with its intervals, the others as means."""
    cells: dict[str, Any] = {"method": row["method"]}
    main = row["protocols"][primary]
    for protocol, found in row["protocols"].items():
        value = found["map"]
        cells[f"mAP {protocol}"] = "-" if value is None else f"{value['mean']:.1f}"
        if protocol == primary:
            cells["95 % interval"] = _span(value)
            if seeds > 1:
                deviation = found["seed_deviation"]
                cells["seeds ±"] = "-" if deviation is None else f"{deviation:.1f}"
    above = main["above_baseline"]
    cells["above baseline"] = "-" if above is None else f"{above['mean']:+.1f} ({_span(above)})"
    cells["bytes/image"] = f"{row['bytes']:,.0f}"
    cells["ms/query"] = "-" if row["ms"] is None else f"{row['ms']:.1f}"
    cells["offline s"] = f"{row['offline_s']:.1f}"
    cells["memory MB"] = "-" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}"
    return cells


def _span(value: Mapping[str, float] | None) -> str:
    return "-" if value is None else f"{value['low']:.1f} to {value['high']:.1f}"


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of texts as a table of Markdown."""
    keys = list(rows[0])
    lines = [keys, ["---"] * len(keys), *([str(row[key]) for key in keys] for row in rows)]
    return "".join("| " + " | ".join(x.replace("|", "\\|") for x in line) + " |\n" for line in lines)


def latex(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of texts as a tabular of LaTeX (booktabs), numbers aligned right."""
    keys = list(rows[0])
    body = [" & ".join(_escaped(str(row[key])) for key in keys) + r" \\" for row in rows]
    head = " & ".join(_escaped(key) for key in keys) + r" \\"
    columns = "l" + "r" * (len(keys) - 1)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


_SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_"}
_SPECIAL |= {"{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
_SPECIAL |= {"×": r"$\times$", "λ": r"$\lambda$", "γ": r"$\gamma$", "→": r"$\rightarrow$"}


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(c, c) for c in text)


def comma_separated(datasets: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return one line per data set, method and protocol, with all figures as numbers."""
    text = io.StringIO()
    heads = ["dataset", "method", "protocol", "map", "low", "high", "seed_deviation", "above_baseline"]
    heads += ["above_low", "above_high", "bytes", "ms", "offline_s", "memory_mb"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    for name, rows in datasets.items():
        for row in rows:
            for protocol, found in row["protocols"].items():
                value, above = found["map"] or {}, found["above_baseline"] or {}
                figures = [value.get(x) for x in ("mean", "low", "high")]
                more = [above.get(x) for x in ("mean", "low", "high")]
                costs = [row[x] for x in ("bytes", "ms", "offline_s", "memory_mb")]
                writer.writerow(
                    [name, row["method"], protocol, *figures, found["seed_deviation"], *more, *costs]
                )
    return text.getvalue()
