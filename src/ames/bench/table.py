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
from ames.evaluation.protocols import Protocol

Cells = Mapping[str, Sequence[Cell]]  # method -> its cell of each part


def dataset_rows(parts: Sequence[Part], cells: Cells, baseline: str) -> list[dict[str, Any]]:
    """Return one row per method on the parts (seeds) of one data set, in the suite's order.

    A row has method, bytes, ms, offline_s, memory_mb, and protocols: protocol -> figure -> mean, low and high
    of the 95 % interval over the queries of all seeds, ``seed_deviation``: the standard deviation over seeds,
    ``above_baseline``: the paired difference to the baseline with its interval.
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
        figures = row["protocols"][protocol] = {}
        for figure in cells[0].figures[protocol]:
            values, other = ([x.figures[protocol][figure] for x in side] for side in (cells, base))
            spread = seed_spread(values)
            figures[figure] = (_plain(mean(values, groups)) or {}) | {
                "seed_deviation": None if spread is None else round(spread, 3),
                "above_baseline": None if is_base else _plain(difference(values, other, groups)),
            }
    return row


def _plain(found: Interval | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"mean": round(found.mean, 3), "low": round(found.low, 3), "high": round(found.high, 3)}


# ---- for people ---------------------------------------------------------------------------------------


def flat(row: Mapping[str, Any], primary: tuple[Protocol, str], *, seeds: int) -> dict[str, Any]:
    """Return the cells of a row as text: the primary figure with its intervals, then the average precision of
    other protocols, and recall at k of the primary one, as means; what it costs.
    """
    protocol, figure = primary
    cells: dict[str, Any] = {"method": row["method"]}
    main = row["protocols"][protocol.name][figure]
    cells[_heading(row, protocol.name, figure)] = _mean(main)
    cells["95 % interval"] = _span(main)
    if seeds > 1:
        deviation = main["seed_deviation"]
        cells["seeds ±"] = "-" if deviation is None else f"{deviation:.1f}"
    above = main["above_baseline"]
    cells["above baseline"] = "-" if above is None else f"{above['mean']:+.1f} ({_span(above)})"
    for name, figures in row["protocols"].items():
        own = name == protocol.name
        for key, value in figures.items():
            first = key == next(iter(figures))
            if (own and key != figure and (first or key.startswith("R@"))) or (first and not own):
                cells[_heading(row, name, key)] = _mean(value)
    cells["bytes/image"] = f"{row['bytes']:,.0f}"
    cells["ms/query"] = "-" if row["ms"] is None else f"{row['ms']:.1f}"
    cells["offline s"] = f"{row['offline_s']:.1f}"
    cells["memory MB"] = "-" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}"
    return cells


def _heading(row: Mapping[str, Any], protocol: str, figure: str) -> str:
    return f"{figure} {protocol}" if len(row["protocols"]) > 1 else figure


def _mean(value: Mapping[str, Any]) -> str:
    return f"{value['mean']:.1f}" if "mean" in value else "-"


def _span(value: Mapping[str, Any]) -> str:
    return "-" if "low" not in value else f"{value['low']:.1f} to {value['high']:.1f}"


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
    """Return one line per data set, method, protocol and figure, all as numbers."""
    text = io.StringIO()
    heads = ["dataset", "method", "protocol", "figure", "mean", "low", "high", "seed_deviation"]
    heads += ["above_baseline", "above_low", "above_high", "bytes", "ms", "offline_s", "memory_mb"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    for name, rows in datasets.items():
        for row in rows:
            costs = [row[x] for x in ("bytes", "ms", "offline_s", "memory_mb")]
            for protocol, figures in row["protocols"].items():
                for figure, found in figures.items():
                    above = found["above_baseline"] or {}
                    values = [found.get(x) for x in ("mean", "low", "high", "seed_deviation")]
                    more = [above.get(x) for x in ("mean", "low", "high")]
                    writer.writerow([name, row["method"], protocol, figure, *values, *more, *costs])
    return text.getvalue()
