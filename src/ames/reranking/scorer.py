"""Score pairs of images on one or more devices, in any number format.

Work that concerns one image alone is done once per image (``PairSimilarity.encode``). Pairs are grouped by
their numbers of descriptors, in chunks that fit into memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from ames.errors import AmesError, naming
from ames.features import LocalFeatures
from ames.lanes import Lanes
from ames.models.base import PairSimilarity, Similarity
from ames.precision import has_tf32, usable

# tf32: fp32 whose products a GPU rounds to 10 bits of mantissa; elsewhere the same as fp32.
# int8: the feed-forward layers on a CPU; all else is fp32.
PRECISIONS = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.int8,
}

# Tokens per chunk. On a CPU the tensors between two layers should stay in its caches; a GPU must be full, and
# more than that only takes memory (docs/performance.md).
_CPU_TOKENS = {torch.float32: 1280, torch.bfloat16: 6144, torch.float16: 6144, torch.int8: 1280}
_GPU_TOKENS = 1 << 19
_GPU_PROBE = 1 << 13  # of the first chunk, from which the memory of a token is known
_GPU_SHARE = 0.6  # of the free memory
_FEW = 16  # chunks of a call, of which lanes could have unequal numbers

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Where and how pairs are scored.

    devices: torch's names; several share the database images among them. precision: one of ``PRECISIONS``;
    projection and codes are always fp32, scores too. What a device only imitates (``ames.precision``), or
    does not have (tf32), is not taken: ``precision`` then reads "fp32", as in all that is recorded of it.
    batch_size: pairs scored together at most (None: what memory allows). compile: the scoring by
    ``torch.compile``, which takes a while at first. workers: threads that read ahead of the model.
    lanes: threads that share the work on a CPU, each on a core of its own (None: as many as this process may
    use, ``ames.lanes.usable_cores``); scores do not depend on it.
    """

    devices: tuple[str, ...] = ("cpu",)
    precision: str = "fp32"
    batch_size: int | None = None
    compile: bool = False
    workers: int = 0
    lanes: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise AmesError(f"precision {self.precision!r} is none of {', '.join(PRECISIONS)}")
        if not self.devices:
            raise AmesError("no device given")
        if self.batch_size is not None and self.batch_size < 1:
            raise AmesError(f"batch_size {self.batch_size} is below 1")
        if self.lanes is not None and self.lanes < 1:
            raise AmesError(f"lanes {self.lanes} is below 1")
        if self.precision == "int8" and any(torch.device(x).type != "cpu" for x in self.devices):
            raise AmesError("precision int8 is for CPUs: give bf16 or fp16 on a GPU")
        tf32_nowhere = self.precision == "tf32" and not any(map(has_tf32, self.devices))
        dtype, asked = PRECISIONS[self.precision], f"precision={self.precision}"
        if tf32_nowhere or not usable(dtype, self.devices, asked=asked):
            object.__setattr__(self, "precision", "fp32")


class PairScorer:
    """A model ready to score: ``queries`` once, then ``score`` against any number of database images.

    The model is moved to the first device and put into evaluation mode; other devices and number formats
    get copies of it.
    """

    def __init__(self, model: PairSimilarity, compute: ComputeConfig | None = None) -> None:
        self.compute = compute or ComputeConfig()
        self.model = model.eval()
        first, *others = self.compute.devices
        models = [model.to(first), *(copy.deepcopy(model).to(device) for device in others)]
        pairs = zip(models, self.compute.devices, strict=True)
        self._scorers = [_DeviceScorer(own, device, self.compute) for own, device in pairs]

    def queries(self, local: LocalFeatures) -> list[LocalFeatures]:
        """What every pair of these images [Q, N, D] needs, on each device; handed to ``score``.

        AmesError for another shape or width, NotFiniteError for an image with NaN or infinity.
        """
        _check_images(local, "queries")
        with self._mode():
            return [scorer.encode(local, database=False) for scorer in self._scorers]

    def score(
        self,
        queries: list[LocalFeatures],
        images: LocalFeatures,
        query_rows: np.ndarray,
        image_rows: np.ndarray,
    ) -> np.ndarray:
        """Return logits float32 [P] of the pairs (query_rows[p], image_rows[p]), both int [P].

        queries: of ``queries``; images: descriptors [I, M, D] of database images, or their codes.
        Descriptors are scored as a database stores them (compressed and expanded). AmesError for shapes and
        rows that do not fit, NotFiniteError for an image with NaN or infinity.
        """
        _check_images(images, "database images")
        if len(queries) != len(self._scorers):
            raise AmesError("queries: give what PairScorer.queries returned, one for each device")
        query_rows = _rows(query_rows, len(queries[0].valid), "query_rows")
        image_rows = _rows(image_rows, len(images.valid), "image_rows")
        if len(query_rows) != len(image_rows):
            raise AmesError(f"{len(query_rows)} query_rows, but {len(image_rows)} image_rows: give pairs")
        order = np.argsort(image_rows, kind="stable")
        logits = np.empty(len(order), np.float32)

        def work(part: tuple[_DeviceScorer, LocalFeatures, np.ndarray]) -> None:
            scorer, encoded, pairs = part
            if not len(pairs):
                return
            first, last = image_rows[pairs[0]], image_rows[pairs[-1]] + 1
            with naming(place=lambda image: int(first) + image):
                database = scorer.encode(images[first:last], database=True)
            if encoded.width != database.width:
                raise AmesError(f"queries are {encoded.width}-d, database images {database.width}-d")
            logits[pairs] = scorer.score(encoded, database, query_rows[pairs], image_rows[pairs] - first)

        shares = _split(image_rows[order], len(self._scorers))
        parts = [
            (scorer, encoded, order[share])
            for scorer, encoded, share in zip(self._scorers, queries, shares, strict=True)
        ]
        with self._mode():
            if len(parts) == 1:
                work(parts[0])
            else:
                with ThreadPoolExecutor(len(parts)) as pool:
                    list(pool.map(work, parts))
        return logits

    @contextmanager
    def _mode(self) -> Iterator[None]:
        """Set the number format of products, which is one global setting of torch."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if self.compute.precision == "tf32" else "highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


class _DeviceScorer:
    """One device: its copy of the model, and how much of the work fits at a time."""

    def __init__(self, model: PairSimilarity, device: str, compute: ComputeConfig) -> None:
        self.model, self.device = model, torch.device(device)
        dtype = PRECISIONS[compute.precision]
        changed = compute.compile or dtype != torch.float32
        self.scorer = copy.deepcopy(model) if changed else model
        if dtype != torch.float32:
            self.scorer.set_compute_dtype(dtype)
        if compute.compile:
            self.scorer.compile_pairs()
        self.batch_size = compute.batch_size
        self.lanes = Lanes(compute.lanes) if self.device.type == "cpu" else None
        on_cpu = self.model.cpu_tokens or _CPU_TOKENS[dtype]
        self.tokens = on_cpu if self.device.type == "cpu" else _GPU_PROBE
        self._probed = False

    def encode(self, local: LocalFeatures, *, database: bool) -> LocalFeatures:
        """Images [I, N, ...] -> ``PairSimilarity.encode`` of them, on the device."""
        local = _read_by(self.model, local).trim_padding()
        step = max(1, self.tokens // (local.size + 1))

        @torch.inference_mode()
        def run(start: int) -> LocalFeatures:
            part = self._here(local[start : start + step])
            with naming(place=lambda image: start + image):
                tokens = encode_side(self.model, part, database=database)
            return self.scorer.encode(tokens)

        starts = range(0, len(local.valid), step)
        parts = [run(start) for start in starts] if self.lanes is None else self.lanes.map(run, starts)
        return LocalFeatures.cat(parts)

    def score(
        self, queries: LocalFeatures, database: LocalFeatures, query_rows: np.ndarray, image_rows: np.ndarray
    ) -> np.ndarray:
        """Return logits float32 [P] of pairs of encoded images."""
        query_lengths = queries.lengths.cpu().numpy()[query_rows]
        image_lengths = database.lengths.cpu().numpy()[image_rows]
        # Pairs of one size together, largest first: if memory is too small, that shows at once.
        order = np.lexsort((image_rows, query_rows, -image_lengths, -query_lengths))
        logits = np.empty(len(order), np.float32)

        @torch.inference_mode()
        def run(pairs: np.ndarray) -> np.ndarray:
            sides = (
                (queries, query_rows[pairs], query_lengths[pairs]),
                (database, image_rows[pairs], image_lengths[pairs]),
            )
            gathered = (
                x.trim(max(int(lengths.max()), 1))[torch.from_numpy(rows).to(self.device)]
                for x, rows, lengths in sides
            )
            return self.scorer.score_encoded(*gathered).float().cpu().numpy()

        while len(order):
            chunks = self._chunks(order, query_lengths, image_lengths)
            if self.lanes is None:
                chunks = chunks[:1]  # what memory holds is known after the first one
                found = [self._within_memory(run, chunks[0], query_lengths, image_lengths)]
            else:
                found = self.lanes.map(partial(_unless_out_of_memory, run), chunks)
            failed = [pairs for pairs, scores in zip(chunks, found, strict=True) if scores is None]
            for pairs, scores in zip(chunks, found, strict=True):
                if scores is not None:
                    logits[pairs] = scores
            if failed:
                self._shrink(len(failed[0]))
            order = np.concatenate([*failed, order[sum(map(len, chunks)) :]])
        return logits

    def _chunks(
        self, order: np.ndarray, query_lengths: np.ndarray, image_lengths: np.ndarray
    ) -> list[np.ndarray]:
        """The pairs that are scored together; they do not depend on the number of lanes."""
        first, second = query_lengths[order], image_lengths[order]
        changes = (np.diff(first) != 0) | (np.diff(second) != 0)
        ends = np.append(np.flatnonzero(changes) + 1, len(order))  # of runs of equal lengths
        chunks: list[np.ndarray] = []
        start = 0
        while start < len(order):
            equal = int(ends[np.searchsorted(ends, start, side="right")]) - start
            most = self._most(first[start:], second[start:])
            # Pairs of equal lengths need no mask: a chunk ends where they do, unless it would be a small one.
            if equal >= most / 2:
                count = -(-equal // most)
                if self.lanes is not None and count < _FEW:
                    count = min(-(-count // 4) * 4, equal)  # one, two or four lanes have the same to do
                chunks += np.array_split(order[start : start + equal], count)
                start += equal
            else:
                chunks.append(order[start : start + most])
                start += most
        return chunks

    def _most(self, query_lengths: np.ndarray, image_lengths: np.ndarray) -> int:
        """Return how many of the pairs are scored together at most; lengths: of each, descending."""
        within = 1 + int(self.tokens // (query_lengths[0] + 1))  # no more fit, however short the images
        most = max(1, int(self.tokens // (query_lengths[0] + image_lengths[:within].max() + 1)))
        return most if self.batch_size is None else min(most, self.batch_size)

    def _within_memory(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        pairs: np.ndarray,
        query_lengths: np.ndarray,
        image_lengths: np.ndarray,
    ) -> np.ndarray | None:
        """Return the result of a chunk; None if it does not fit. On a GPU the first one tells how many do."""
        tokens = len(pairs) * int(query_lengths[pairs[0]] + image_lengths[pairs].max() + 1)
        probe = self.device.type == "cuda" and not self._probed and tokens > _GPU_PROBE // 2
        if probe:
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
        result = _unless_out_of_memory(run, pairs)
        if probe and result is not None:
            taken = torch.cuda.max_memory_allocated(self.device) - before
            fits = _GPU_SHARE * torch.cuda.mem_get_info(self.device)[0] * tokens / max(taken, 1)
            self.tokens, self._probed = int(min(max(fits, tokens), _GPU_TOKENS)), True
        return result

    def _shrink(self, size: int) -> None:
        """Halve the chunks after one of ``size`` pairs did not fit; AmesError if it was a single pair."""
        if size == 1:
            raise AmesError(f"a single pair does not fit the memory of {self.device}: use fewer descriptors")
        self.tokens, self.batch_size = max(self.tokens // 2, 1), size // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _here(self, local: LocalFeatures) -> LocalFeatures:
        if self.device.type != "cuda":
            return local.to(self.device)
        return local.map(lambda x: x.pin_memory().to(self.device, non_blocking=True))


def _unless_out_of_memory(run: Callable[[np.ndarray], np.ndarray], pairs: np.ndarray) -> np.ndarray | None:
    """Return the result of a chunk; None if memory is too small for it."""
    try:
        return run(pairs)
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not _out_of_memory(error):
            raise
        return None


def _read_by(model: Similarity, local: LocalFeatures) -> LocalFeatures:
    """Without what the model does not read of an image."""
    scale = local.scale if model.reads_scale else None
    vector = local.vector if model.reads_vector else None
    positions = local.positions if model.reads_positions else None
    size = local.image_size if model.reads_size else None
    return LocalFeatures(
        local.descriptors,
        local.valid,
        positions,
        scale,
        vector=vector,
        image_size=size,
        coded=local.coded,
    )


def encode_side(model: Similarity, local: LocalFeatures, *, database: bool) -> LocalFeatures:
    """Tokens of images, from descriptors or codes; descriptors of the database side are compressed and
    expanded, as it stores them.
    """
    if local.coded:
        return model.expand(local)
    return model.expand(model.compress(local)) if database else model.tokens(local)


def _check_images(local: LocalFeatures, what: str) -> None:
    if local.valid.ndim != 2:
        raise AmesError(f"{what} are {list(local.descriptors.shape)}; expected [images, descriptors, width]")


def _rows(rows: np.ndarray, count: int, name: str) -> np.ndarray:
    """Return rows as int64 [P]; AmesError unless all are below ``count``."""
    rows = np.asarray(rows)
    if rows.ndim != 1 or (rows.dtype.kind not in "iu" and rows.size):
        raise AmesError(f"{name} are {rows.dtype} {list(rows.shape)}; expected int [pairs]")
    outside = (rows < 0) | (rows >= count)
    if outside.any():
        raise AmesError(f"{name}: there is no image {rows[outside][0]} among {count}")
    return rows.astype(np.int64, copy=False)


def _out_of_memory(error: BaseException) -> bool:
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or "can't allocate memory" in str(error).lower()


def _split(images: np.ndarray, parts: int) -> list[np.ndarray]:
    """Split positions of ascending image rows [P] into parts of similar size, each image in one part."""
    cuts = np.arange(1, parts) * len(images) // parts
    if len(images):
        cuts = np.searchsorted(images, images[cuts])
    return np.split(np.arange(len(images)), cuts)
