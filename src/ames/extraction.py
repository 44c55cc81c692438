"""From images to descriptor files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ames.backbones.base import Backbone, ImageFeatures
from ames.data.descriptors import DescriptorWriter, write_globals
from ames.data.images import UnreadableImage, check_all_exist, read_image
from ames.errors import AmesError
from ames.features import LocalFeatures

_CHUNK = 16  # images a worker takes at a time


@dataclass(frozen=True)
class Extraction:
    """What came of a pass: the files, and the images without features, by name."""

    local: Path | None
    vectors: Path | None
    images: int
    unreadable: dict[str, str] = field(default_factory=dict)  # name -> why
    empty: list[str] = field(default_factory=list)  # readable, but no keypoint

    def summary(self) -> str:
        """One line, and one more for each kind of trouble."""
        target = self.local or self.vectors
        lines = [f"{self.images - len(self.unreadable)} of {self.images} images extracted to {target}"]
        if self.unreadable:
            named = ", ".join(f"{name} ({why})" for name, why in list(self.unreadable.items())[:5])
            lines.append(f"{len(self.unreadable)} unreadable, skipped: {named}{_more(self.unreadable)}")
        if self.empty:
            lines.append(
                f"{len(self.empty)} without keypoints: {', '.join(self.empty[:5])}{_more(self.empty)}"
            )
        return "\n".join(lines)


def extract(
    root: Path | str,
    names: Sequence[str],
    backbone: Backbone,
    *,
    local: Path | str | None,
    vectors: Path | str | None = None,
    count: int = 400,
    workers: int = 0,
) -> Extraction:
    """Writes local or global descriptors or both of ``names`` below ``root``, one row an image, in order.

    count: descriptors an image, at most. workers: processes beside this one, 0 = none; the files do not
    depend on it. An unreadable image keeps its row, empty, and is named in the result; if none at all
    can be read, AmesError, and nothing is written.
    """
    root = Path(root)
    check_all_exist(root, names)
    for path in (local, vectors):
        if path is not None and Path(path).is_dir():
            raise AmesError(f"{path}: is a folder, so no file of this name can be written")
    if vectors is not None and backbone.global_dim is None:
        raise AmesError(
            f"backbone {backbone.name} has no global descriptor here: its global model is not loaded"
        )
    provenance = backbone.provenance() | {"descriptors": count}
    found = np.zeros((len(names), backbone.global_dim or 0), np.float32)
    unreadable: dict[str, str] = {}
    empty: list[str] = []
    paths = [root / name for name in names]
    writing = (
        nullcontext()
        if local is None
        else DescriptorWriter(
            local,
            images=len(names),
            slots=count,
            width=backbone.local_dim,
            names=names,
            provenance=provenance,
        )
    )
    with writing as writer:
        features = extract_images(paths, backbone, count=count, workers=workers)
        for row, (name, result) in enumerate(zip(names, features, strict=True)):
            if isinstance(result, str):
                unreadable[name] = result
                continue
            if writer is not None:
                writer.write(row, result.local)
            if result.local.size == 0:
                empty.append(name)
            if result.vector is not None:
                found[row] = result.vector
        if len(unreadable) == len(names):
            name, why = next(iter(unreadable.items()))
            raise AmesError(f"{root}: none of the {len(names)} images can be read (first: {name}: {why})")
        # Before the local file takes its name: no half of the pair stays alone.
        if vectors is not None:
            write_globals(vectors, found, names=names, provenance=provenance)
    files = [None if path is None else Path(path) for path in (local, vectors)]
    return Extraction(files[0], files[1], len(names), unreadable, empty)


def extract_images(
    paths: Sequence[Path], backbone: Backbone, *, count: int, workers: int = 0
) -> Iterator[ImageFeatures | str]:
    """Features of each image in order, or why it cannot be read."""
    bar = tqdm(total=len(paths), desc="extract", unit="img", disable=None)
    with bar, _mapper(backbone, count, workers) as mapper:
        for result in mapper(paths):
            bar.update()
            yield result


@contextmanager
def _mapper(backbone: Backbone, count: int, workers: int):
    if not workers:
        yield lambda paths: (_extract_one(backbone, count, path) for path in paths)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (backbone, count))
    try:
        yield lambda paths: map(_received, pool.map(_in_worker, paths, chunksize=_CHUNK))
    except BrokenProcessPool as error:
        raise AmesError("a worker process died, perhaps for lack of memory: use fewer workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _extract_one(backbone: Backbone, count: int, path: Path) -> ImageFeatures | str:
    try:
        return backbone.extract(read_image(path), count)
    except UnreadableImage as error:
        return str(error)


_worker: tuple[Backbone, int]


def _start_worker(backbone: Backbone, count: int) -> None:
    import cv2

    global _worker
    _worker = backbone, count
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


# Tensors would travel between processes as shared memory files, thousands of them: arrays are copied.
_Sent = tuple[dict[str, np.ndarray | None], np.ndarray | None]


def _in_worker(path: Path) -> _Sent | str:
    result = _extract_one(*_worker, path)
    if isinstance(result, str):
        return result
    arrays = {name: None if x is None else x.numpy() for name, x in vars(result.local).items()}
    return arrays, result.vector


def _received(sent: _Sent | str) -> ImageFeatures | str:
    if isinstance(sent, str):
        return sent
    arrays, vector = sent
    tensors: dict[str, Any] = {k: None if x is None else torch.from_numpy(x) for k, x in arrays.items()}
    return ImageFeatures(LocalFeatures(**tensors), vector)


def _more(items: Sequence[str] | dict[str, str]) -> str:
    return f" and {len(items) - 5} more" if len(items) > 5 else ""
