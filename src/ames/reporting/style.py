"""The common style of plots: colours, plain text, and matplotlib, which is loaded on use."""

from __future__ import annotations

from typing import Any

from ames.errors import AmesError, installing

# Okabe and Ito's colours, which differ under colour blindness too; markers differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure of so many inches. AmesError where matplotlib is missing.

    Not through pyplot, which would choose a backend for the whole process and keep the figure.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AmesError(f"matplotlib cannot be loaded ({error}): {installing('plot')}") from error
    return FigureCanvasAgg(Figure(figsize=(width, height), dpi=150, layout="constrained")).figure


def tidy(axes: Any) -> None:
    """Draw a light grid below the curves, and no frame above and at the right."""
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def plain(text: str) -> str:
    """Return a text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")
