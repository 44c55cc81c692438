"""Pictures of a benchmark: mAP against bytes per image, and against milliseconds per query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ames.evaluation.protocols import Protocol
from ames.io.atomic import atomic_file
from ames.reporting.style import COLOURS, MARKERS, new_figure, plain, tidy

AXES = (("bytes", "bytes per image"), ("ms", "milliseconds per query"))


def draw(rows: Sequence[Mapping[str, Any]], primary: tuple[Protocol, str], path: Path, *, title: str) -> Path:
    """Draw the methods of a data set as points with their 95 % intervals, as a PNG, and return its path.

    Left, bytes per image, right, milliseconds per query, both logarithmic. AmesError without matplotlib.
    """
    protocol, figure = primary
    picture = new_figure(12, 5.5)
    for place, (key, label) in enumerate(AXES, 1):
        axes = picture.add_subplot(1, 2, place)
        for number, row in enumerate(rows):
            value = row["protocols"][protocol.name][figure]
            if "mean" not in value or not row[key]:
                continue
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number // len(COLOURS) % len(MARKERS)]
            error = [[value["mean"] - value["low"]], [value["high"] - value["mean"]]]
            axes.errorbar(
                row[key],
                value["mean"],
                yerr=error,
                color=colour,
                marker=marker,
                markersize=7,
                elinewidth=1,
                capsize=2,
                linestyle="none",
                label=plain(str(row["method"])),
            )
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.set_ylabel(plain(f"{figure} {protocol.name} (%)"))
        tidy(axes)
    picture.suptitle(plain(title))
    handles, labels = picture.axes[0].get_legend_handles_labels()
    if handles:
        picture.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    with atomic_file(path) as file:
        picture.canvas.print_png(file)
    return path
