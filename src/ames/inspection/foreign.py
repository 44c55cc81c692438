"""What files of other projects are, in figures, for ``ames inspect``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ames.inspection.asmk_files import is_codebook, read_codebook, read_features
from ames.inspection.hloc import image_names, read_image, read_shape
from ames.inspection.row_figures import about_rows
from ames.io.hdf5 import open_hdf5


def about_hloc(path: Path, sample: int | None) -> dict[str, Any]:
    """Return sizes of a feature file of hloc, and statistics of a sample of its images (None: of all)."""
    names = image_names(path)
    count = len(names) if sample is None else min(sample, len(names))
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, count).round().astype(int)]
    with open_hdf5(path) as file:
        shapes = [read_shape(file, name) for name in chosen]
        images = [read_image(file, name) for name in chosen]
    local = bool(shapes[0].width)
    counts = np.array([one.count for one in shapes])
    found: dict[str, Any] = {
        "kind": "local features of hloc" if local else "global descriptors of hloc",
        "images": len(names),
        "first": names[0],
        "images_read": count,
        "width": shapes[0].width or shapes[0].vector,
    }
    if local:
        found |= {
            "descriptors_per_image": {"min": int(counts.min()), "max": int(counts.max())},
            "has_scores": all(one.scored for one in shapes),
            "has_image_size": all(one.sized for one in shapes),
        }
        vectors = [x.descriptors for x in images if x.descriptors is not None]
    else:
        vectors = [x.vector[None] for x in images if x.vector is not None]
    same = [x for x in vectors if x.shape[1] == found["width"]]
    found["images_of_other_width"] = len(vectors) - len(same) or None
    return found | about_rows(np.concatenate(same))


def about_asmk(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return sizes of a pickle of the asmk package, and statistics of its vectors."""
    if is_codebook(content):
        centroids = read_codebook(content, path)
        kind = {"kind": "codebook of the asmk package", "words": len(centroids)}
        return kind | {"width": centroids.shape[1]} | about_rows(centroids)
    splits = read_features(content, path)
    found: dict[str, Any] = {"kind": "features of the asmk package"}
    if set(splits) == {""}:
        values = splits[""].values
        found = {"kind": "training features of the asmk package", "width": values.shape[1]}
        return found | about_rows(values)
    for split, vectors in splits.items():
        found[f"{split}_images"] = len(vectors)
        found[f"{split}_vectors"] = len(vectors.values)
        found["width"] = vectors.values.shape[1]
    return found | about_rows(np.concatenate([x.values for x in splits.values()]))
