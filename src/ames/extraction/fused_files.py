"""From stored features to a file of fused vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ames.datasets.lists import list_digest
from ames.descriptors.encoding import VectorRows
from ames.descriptors.plan import OutputPlan
from ames.descriptors.provenance import Provenance
from ames.descriptors.resumable import ResumableFiles
from ames.embedders.base import FeatureEmbedder
from ames.embedders.features import StoredFeatures
from ames.errors import AmesError
from ames.extraction.embedded import vector_record
from ames.extraction.fusing import FUSED, fuse
from ames.extraction.pipeline import Extraction, complete
from ames.extraction.writer import list_errors
from ames.io.progress import progress

BLOCK = 1024  # images that are written at a time: what an interruption costs at most


def open_stored(embedder: FeatureEmbedder, files: Mapping[str, Path]) -> StoredFeatures:
    """Open the features that an embedder reads, by their names.

    AmesError for a feature that is missing, that it does not read, of another kind or width, or that the
    file says another backbone made, and where files are not of the same images.
    """
    wanted = {x.name: x for x in embedder.features}
    missing = [name for name in wanted if name not in files]
    more = [name for name in files if name not in wanted]
    if missing or more:
        what = f"{missing[0]!r} is missing" if missing else f"{more[0]!r} is none of them"
        raise AmesError(f"the embedder reads the features {', '.join(wanted)}: {what}")
    stored = StoredFeatures(files, {name: x.count for name, x in wanted.items()})
    for found in stored.specs:
        spec, path = wanted[found.name], stored.paths[found.name]
        for what in ("kind", "width", "backbone"):
            here, there = getattr(found, what), getattr(spec, what)
            if here != there and not (what == "backbone" and None in (here, there)):
                raise AmesError(
                    f"{path}: feature {spec.name!r} is of {what} {here}, the embedder takes {there}"
                )
    return stored


def write_fused(
    embedder: FeatureEmbedder,
    stored: StoredFeatures,
    out: Path,
    *,
    names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Extraction:
    """Write the vectors of stored features to OUT_global.hdf5, or resume an interrupted call.

    The embedder computes where it is. names: of the images where no file has any (None: the file has none).
    Complete files stay; AmesError where they are of other images or settings, unless ``overwrite``.
    """
    if names is not None and stored.names is not None and list(names) != stored.names:
        raise AmesError(
            f"{next(iter(stored.paths.values()))}: has other names than the list; leave the list out"
        )
    names = stored.names or names
    if names is not None and len(names) != len(stored):
        raise AmesError(f"{len(names)} names for the {len(stored)} images of the features")
    plan = OutputPlan(
        out=out,
        rows={"global": VectorRows(embedder.dim)},
        names=[""] * len(stored) if names is None else names,
        named=names is not None,
        provenance=Provenance.from_dict(_record(embedder, stored, names)),
    )
    return complete(plan, partial(_fill, embedder=embedder, stored=stored), overwrite=overwrite)


def _record(embedder: FeatureEmbedder, stored: StoredFeatures, names: Sequence[str] | None) -> dict[str, Any]:
    """What the file says of its vectors. Files without names are told by their name and size."""
    found = vector_record(embedder, stored.provenance())
    if names is not None:
        return found | {"list": list_digest(names)}
    return found | {"files": {k: [path.name, path.stat().st_size] for k, path in stored.paths.items()}}


def _fill(
    files: ResumableFiles, errors: Path | None, *, embedder: FeatureEmbedder, stored: StoredFeatures
) -> None:
    files.check_space()
    rows, count, start = VectorRows(embedder.dim), len(stored), files.state.done
    with progress("embed", count, "images", done=start) as tick:
        for first in range(start, count, BLOCK):
            vectors: list[np.ndarray | None] = []
            unreadable = []
            for low in range(first, min(first + BLOCK, count), FUSED):
                part = np.arange(low, min(low + FUSED, first + BLOCK, count))
                found = fuse(embedder, stored.read(part))
                unreadable += [
                    (int(row), x) for row, x in zip(part, found, strict=True) if isinstance(x, str)
                ]
                vectors += [None if isinstance(x, str) else x for x in found]
                tick(len(part))
            files.append([rows.encode(vectors)], unreadable, [])
    list_errors(files, files.plan.errors)
