"""Metrics of a model on a prepared test set, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ames.datasets.layout import DatasetFolder
from ames.errors import AmesError
from ames.evaluation.evaluate import Scoring, evaluate_test_set
from ames.evaluation.protocols import REVISITED, Protocol
from ames.evaluation.sweep import Grid
from ames.evaluation.test_set import open_test_set
from ames.models.base import Similarity
from ames.models.load import load
from ames.reranking.fusion import Fusion
from ames.reranking.scorer import ComputeConfig


def evaluate(
    folder: Path | str,
    model: str | Path | Similarity,
    *,
    protocols: Sequence[Protocol] = REVISITED,
    num_rerank: int = 100,
    desc_num: tuple[int, int] | None = None,
    fusion: Fusion | None = None,
    **files: Any,
) -> dict[str, Any]:
    """Return metrics in percent before and after re-ranking: {"initial": {...}, "reranked": {...}, ...} with
    the keys of results.json (docs/files.md).

    folder: made by ``ames prepare``. model: a name, a checkpoint, or a model. desc_num: local descriptors of
    a query and of a gallery image (None: as the model is used). fusion: None: what the model brings. files:
    ``descriptors`` (the beginning of the files' names, by default the model's backbone), ``device``, and
    those of ``ames.evaluation.test_set.open_test_set``. For sweeps, a validation split and files of results
    use ``src/evaluate.py``.
    """
    counts, about, name = (600, 50), {}, type(model).__name__
    if not isinstance(model, Similarity):
        found = load(model)
        model, name, about = found.model, found.name, dict(found.about)
        if found.entry is not None:
            counts = found.entry.query_desc_num, found.entry.db_desc_num
    fusion = fusion or Fusion.from_checkpoint(about, source=name)
    if fusion is None:
        raise AmesError(f"{name} brings no lambda and gamma: give fusion=Fusion(lamb, gamma)")
    descriptors = files.pop("descriptors", None) or about.get("backbone")
    if descriptors is None:
        raise AmesError(f"{name}: give the descriptors of the test set, such as descriptors='rootsift'")
    scoring = Scoring(
        query_count=(desc_num or counts)[0],
        database_count=(desc_num or counts)[1],
        compute=ComputeConfig(devices=(files.pop("device", "cpu"),)),
    )
    test = open_test_set(DatasetFolder(Path(folder), descriptors), model, **files)
    grid = Grid([num_rerank], [fusion.lamb], [fusion.gamma])
    results = evaluate_test_set(test, model, protocols, scoring, grid, description=name).results
    return {**results, "reranked": results["rows"][0]}
