"""Rows of descriptor files from features as they come."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from ames.backbones.base import ImageFeatures
from ames.descriptors.encoding import LocalRows, VectorRows
from ames.descriptors.resumable import ResumableFiles
from ames.extraction.process_pool import ExtractionResult
from ames.features import LocalFeatures
from ames.io.atomic import atomic_file
from ames.io.progress import progress
from ames.models.base import Similarity

Chunks = Callable[[Callable[[], object]], Iterator[list[ExtractionResult]]]


def fill(
    growing: ResumableFiles, chunks: Chunks, *, packer: Similarity | None = None, errors: Path | None = None
) -> None:
    """Appends the missing rows, a chunk at a time, each of them while the next one is computed.

    chunks: gives them, from the first missing row on; it calls what it is given once an image. packer: a
    binary model whose codes are stored. errors: the list of unreadable images, written with each chunk that
    has one.
    """
    images = progress("extract", len(growing.plan.names), "images", done=growing.state.done)
    with images as tick, ThreadPoolExecutor(1) as writer:
        writing: Future[None] | None = None
        found = chunks(lambda: tick(1))
        try:
            for chunk in found:
                if writing is not None:
                    writing.result()
                writing = writer.submit(_write, growing, chunk, packer, errors)
            if writing is not None:
                writing.result()
        finally:
            found.close()  # type: ignore[attr-defined]  # ends its threads and processes


@torch.inference_mode()
def _write(
    growing: ResumableFiles, chunk: list[ExtractionResult], packer: Similarity | None, errors: Path | None
) -> None:
    first = growing.state.done
    kinds = growing.plan.rows.values()
    chunk = [x if isinstance(x, str) else _trouble(x, kinds) or x for x in chunk]
    features = [None if isinstance(x, str) else x for x in chunk]
    blocks = []
    for rows in kinds:
        if isinstance(rows, LocalRows):
            local = [None if x is None else packed(x.local, packer) for x in features]
            blocks.append(rows.encode(local))
        else:
            blocks.append(rows.encode([None if x is None else x.vector for x in features]))
    unreadable = [(first + i, x) for i, x in enumerate(chunk) if isinstance(x, str)]
    empty = [first + i for i, x in enumerate(features) if x is not None and x.local.size == 0]
    growing.append(blocks, unreadable, empty)
    if unreadable and errors is not None:
        list_errors(growing, errors)


def _trouble(found: ImageFeatures, kinds: Iterable[LocalRows | VectorRows]) -> str | None:
    """Why an image's features cannot be stored; None if they can."""
    local, vector = found.local, found.vector
    if not bool(local.descriptors[local.valid].isfinite().all()) or (
        vector is not None and not np.isfinite(vector).all()
    ):
        return "the backbone gave values that are not finite (NaN or infinity)"
    if not all(kind.holds(local) for kind in kinds if isinstance(kind, LocalRows)):
        return "descriptors beyond float16's 65,504; take float32"
    return None


def list_errors(growing: ResumableFiles, path: Path) -> None:
    """The list of all unreadable images so far; no file where there is none."""
    names = growing.plan.names
    if not growing.state.unreadable:
        path.unlink(missing_ok=True)
        return
    write_errors(path, [(names[row], why) for row, why in growing.state.unreadable])


def packed(local: LocalFeatures, packer: Similarity | None) -> LocalFeatures:
    """The codes of a binary model, uint8 [N, bytes]; without one the features as they are."""
    if packer is None:
        return local
    if not local.size:
        return local.with_descriptors(torch.zeros(0, packer.code_bytes, dtype=torch.uint8))
    return packer.compress(local)


def write_errors(path: Path, errors: Sequence[tuple[str, str]]) -> None:
    """A list of images and why they have no descriptors, as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "reason"), *errors])
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
