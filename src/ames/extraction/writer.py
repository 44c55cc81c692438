"""Rows of descriptor files from features as they come."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from ames.backbones.base import ImageFeatures
from ames.descriptors.encoding import LocalRows
from ames.descriptors.resumable import ResumableFiles
from ames.extraction.base import BaseExtractor, ExtractionResult, is_finite
from ames.io.atomic import atomic_file
from ames.io.progress import progress

Chunks = Callable[[Callable[[], object]], Iterator[list[ExtractionResult]]]


def write_features(
    files: ResumableFiles, chunks: Chunks, extractor: BaseExtractor, *, errors: Path | None = None
) -> None:
    """Append the missing rows, a chunk at a time, each of them while the next one is computed.

    chunks: yields features from the first missing row on, and calls its argument once per image. errors: the
    list of unreadable images, written with each chunk that has one.
    """
    images = progress("extract", len(files.plan.names), "images", done=files.state.done)
    with images as tick, ThreadPoolExecutor(1) as writer:
        writing: Future[None] | None = None
        found = chunks(lambda: tick(1))
        try:
            for chunk in found:
                if writing is not None:
                    writing.result()
                writing = writer.submit(_write, files, chunk, extractor, errors)
            if writing is not None:
                writing.result()
        finally:
            found.close()  # type: ignore[attr-defined]  # ends its threads and processes


@torch.inference_mode()
def _write(
    files: ResumableFiles, chunk: list[ExtractionResult], extractor: BaseExtractor, errors: Path | None
) -> None:
    first = files.state.done
    chunk = [x if isinstance(x, str) else _trouble(x, extractor.rows) or x for x in chunk]
    features = [None if isinstance(x, str) else x for x in chunk]
    blocks = []
    for rows in files.plan.rows.values():
        if isinstance(rows, LocalRows):
            blocks.append(rows.encode([None if x is None else extractor.pack(x.local) for x in features]))
        else:
            blocks.append(rows.encode([None if x is None else x.vector for x in features]))
    unreadable = [(first + i, x) for i, x in enumerate(chunk) if isinstance(x, str)]
    bare = extractor.local_dim == 0  # there are vectors alone
    empty = [first + i for i, x in enumerate(features) if x is not None and x.local.size == 0 and not bare]
    files.append(blocks, unreadable, empty)
    if unreadable and errors is not None:
        list_errors(files, errors)


def _trouble(found: ImageFeatures, rows: LocalRows) -> str | None:
    """Why an image's features cannot be stored; None if they can."""
    if not is_finite(found):
        return "the backbone gave values that are not finite (NaN or infinity)"
    return None if rows.holds(found.local) else "descriptors beyond float16's 65,504; take float32"


def list_errors(files: ResumableFiles, path: Path) -> None:
    """The list of all unreadable images so far; no file where there is none."""
    write_errors(path, [(files.plan.names[row], why) for row, why in files.state.unreadable])


def write_errors(path: Path, errors: Sequence[tuple[str, str]]) -> None:
    """A list of images and why they have no descriptors, as CSV; no file where there is none."""
    if not errors:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "reason"), *errors])
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
