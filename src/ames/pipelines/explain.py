"""Explain the score of two photos: extraction, explanation, picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ames.datasets.images import UnreadableImage, read_image
from ames.errors import AmesError
from ames.extraction.extractor import extract_photos, preset_config
from ames.extraction.factory import build_extractor
from ames.extraction.preprocessing import Box
from ames.io.text import counted
from ames.models.load import load
from ames.reporting.match_plot import Side, draw_match, write_picture
from ames.reranking.fusion import Fusion
from ames.retrieval.explanation import Explanation, explain
from ames.retrieval.planning import query_count


@dataclass(frozen=True, eq=False)
class ExplainedPair:
    """Two photos, the part of each that was described (None: all), and why they have their score."""

    photos: tuple[Path, Path]
    boxes: tuple[Box | None, Box | None]
    model: str
    explanation: Explanation

    def text(self) -> str:
        """Return one line about the score."""
        found = self.explanation
        fused = "" if found.fused is None else f", fused {found.fused:.3f}"
        links = counted(len(found.links), "link")
        return f"{self.model}: score {found.score:.3f}{fused}; {links} ({found.kind})"

    def write_picture(self, path: Path | str) -> Path:
        """Draw it (``ames.reporting.match_plot.draw_match``), and return the path of the picture."""
        found = self.explanation
        a = _side(self.photos[0], self.boxes[0], found.positions_a, found.shares_a)
        b = _side(self.photos[1], self.boxes[1], found.positions_b, found.shares_b)
        return write_picture(path, draw_match(a, b, found.links, found.weights, self.text()))


def explain_photos(
    photos: tuple[Path, Path],
    model: str | Path,
    *,
    boxes: tuple[Box | None, Box | None] = (None, None),
    backbone: str | None = None,
    top: int = 50,
    device: str = "cpu",
) -> ExplainedPair:
    """Return why two photos have their score, the first as a query, the second as a photo of a collection.

    model: a name of ``list_models``, or a checkpoint's path. boxes: x1, y1, x2, y2 in pixels of the upright
    photos: what is described of them. backbone: of a model that names none.
    AmesError for a photo that cannot be read or has no local features, for a box outside of it, for a
    backbone that the model does not take, and as ``explain``.
    """
    found = load(model, backbone=backbone)
    entry = found.entry
    preset = found.name if entry is not None and entry.backbone else backbone or found.about.get("backbone")
    if preset is None:
        raise AmesError(f"{found.name}: name the backbone that describes the photos, such as rootsift")
    extractor = build_extractor(preset_config(preset, device=device))
    query, database = extract_photos(extractor, list(photos), boxes)
    for photo, image in zip(photos, (query, database), strict=True):
        if not image.local.size:
            raise AmesError(
                f"{photo}: no local features were found in it: give another photo, or a larger box"
            )
    explanation = explain(
        query,
        database,
        found.model.to(device),
        desc_num=(query_count(entry), 50 if entry is None else entry.db_desc_num),
        top=top,
        fusion=Fusion.from_checkpoint(found.about, source=found.name),
    )
    return ExplainedPair(photos, boxes, found.name, explanation)


def _side(photo: Path, box: Box | None, positions: np.ndarray, shares: np.ndarray) -> Side:
    try:
        pixels = read_image(photo)
    except UnreadableImage as error:
        raise AmesError(f"{photo}: {error}") from error
    return Side(pixels, positions, shares, photo.name, None if box is None else tuple(box))
