"""Re-ranking of a shortlist: every pair is scored once, then blended and ranked as often as one likes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from tqdm import tqdm

from ames.data.ahead import ahead
from ames.data.descriptors import DescriptorFile
from ames.data.ground_truth import GroundTruth, ids
from ames.data.shortlist import Shortlist
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.base import Similarity
from ames.protocols import Protocol

_READ = 64  # gallery images read and compressed at a time


def junk_of(ground_truth: GroundTruth, protocol: Protocol) -> list[np.ndarray]:
    """The junk ids of each query under a protocol."""
    return [ids(query, protocol.junk) for query in ground_truth.queries]


def junk_behind(shortlist_ids: np.ndarray, junk: Sequence[np.ndarray]) -> np.ndarray:
    """Columns int64 [Q, M] of a shortlist [Q, M] with each query's junk (and empty entries, -1) moved
    behind the rest, order otherwise kept: what is cut to the top k is chosen after that.
    """
    behind = np.stack([np.isin(row, j) | (row < 0) for row, j in zip(shortlist_ids, junk, strict=True)])
    return np.argsort(behind, axis=1, kind="stable")


def needed(
    shortlist: Shortlist, ground_truth: GroundTruth, protocols: Iterable[Protocol], ks: Iterable[int]
) -> np.ndarray:
    """bool [Q, M]: the entries of the shortlist that some protocol re-ranks at some k."""
    mask = np.zeros(shortlist.ids.shape, bool)
    k = max(ks)
    for protocol in protocols:
        judged = slice(*protocol.queries) if protocol.queries else slice(None)
        columns = junk_behind(shortlist.ids, junk_of(ground_truth, protocol))
        np.put_along_axis(mask[judged], columns[judged, :k], True, 1)
    return mask & (shortlist.ids >= 0)


@torch.inference_mode()
def score_shortlist(
    model: Similarity,
    queries: DescriptorFile,
    gallery: DescriptorFile,
    shortlist: Shortlist,
    *,
    mask: np.ndarray | None = None,
    query_count: int | None = None,
    database_count: int | None = None,
    chunk: int = 100,
    device: str | torch.device = "cpu",
    workers: int = 0,
) -> np.ndarray:
    """Logits float32 [Q, M] of the entries of a shortlist that ``mask`` [Q, M] selects; NaN elsewhere.

    Each gallery image is read once, in the order of the file, and kept as the model's codes; each pair is
    scored once. query_count, database_count: descriptors used of each image (None: all there are).
    chunk: pairs scored together. workers: threads that read ahead of the model; the scores do not depend on
    it. Either file may be packed (``DescriptorFile.packed``): its codes are what the binary model would
    have made of the descriptors, and the scores are the same. AmesError if a packed file is not of this
    model's kind, or a score is not finite.
    """
    for file in (queries, gallery):
        check_packed(model, file)
    wanted = shortlist.ids >= 0 if mask is None else mask & (shortlist.ids >= 0)
    used = np.unique(shortlist.ids[wanted])
    logits = np.full(shortlist.ids.shape, np.nan, np.float32)
    if not len(used):
        return logits
    codes = _compress(model, gallery, used, database_count, device, workers)
    for q in tqdm(range(len(shortlist.ids)), desc="score", unit="query", disable=None):
        columns = np.flatnonzero(wanted[q])
        local = queries.read([q], query_count).trim_padding().to(device)
        query = model.expand(local) if queries.packed else model.tokens(local)
        rows = np.searchsorted(used, shortlist.ids[q, columns])
        for part in np.array_split(np.arange(len(columns)), max(1, -(-len(columns) // chunk))):
            if not len(part):
                continue
            candidates = model.expand(codes[torch.from_numpy(rows[part])].to(device)).trim_padding()
            scores = model.score_tokens(query, candidates.reshape(1, len(part)))
            logits[q, columns[part]] = scores[0].float().cpu().numpy()
        _check_finite(logits[q, columns], f"{queries.path} (query {q}), {gallery.path}", columns)
    return logits


def check_packed(model: Similarity, file: DescriptorFile) -> None:
    """Refuses packed descriptors that are no codes of this model; other files pass."""
    if not file.packed or file.width == model.code_bits:
        return
    takes = "takes no packed bits" if model.code_bits is None else f"takes {model.code_bits}"
    raise AmesError(
        f"{file.path}: holds descriptors packed to {file.width} bits, but the model {takes}; "
        "use a binary model of that many bits, or descriptors that are not packed"
    )


def _check_finite(scores: np.ndarray, files: str, columns: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise AmesError(
            f"{files}: the score of shortlist entry {columns[bad[0]]} is {scores[bad[0]]}; the descriptors "
            "or the model's weights hold values that are not finite"
        )


def _compress(
    model: Similarity,
    gallery: DescriptorFile,
    rows: np.ndarray,
    count: int | None,
    device: str | torch.device,
    workers: int,
) -> LocalFeatures:
    """Codes of some gallery images, on the CPU, without locations."""
    parts = []
    for local in _blocks(gallery, rows, count, workers):
        local = LocalFeatures(local.descriptors, local.valid).to(device)
        parts.append((local if gallery.packed else model.compress(local)).to("cpu"))
    return LocalFeatures.cat(parts).trim_padding()


def _blocks(
    gallery: DescriptorFile, rows: np.ndarray, count: int | None, workers: int
) -> Iterator[LocalFeatures]:
    """Some gallery images in blocks, in order; ``workers`` threads hold at most one block each ahead."""
    blocks = [rows[start : start + _READ] for start in range(0, len(rows), _READ)]
    return ahead(lambda block: gallery.read(block, count), blocks, workers)


def blend(similarities: np.ndarray, logits: np.ndarray, lamb: float, temp: float) -> np.ndarray:
    """lambda * s_global + (1 - lambda) * sigmoid(gamma * logit), elementwise (AMES, ECCV 2024)."""
    local = 0.5 * (1 + np.tanh(0.5 * temp * logits.astype(np.float64)))  # the sigmoid, without overflow
    return lamb * similarities + (1 - lamb) * local


def rerank(
    shortlist: Shortlist,
    logits: np.ndarray,
    junk: Sequence[np.ndarray],
    *,
    num_rerank: int,
    lamb: float,
    temp: float,
    queries: tuple[int | None, int | None] | None = None,
) -> np.ndarray:
    """Ranking int64 [Q, M]: junk moved behind, then the first ``num_rerank`` sorted by the blended score.

    Ties keep the shortlist's order; what lies behind ``num_rerank`` is left as it is, and so are queries
    outside of the part ``queries`` (start, stop). AmesError where a score is missing.
    """
    columns = junk_behind(shortlist.ids, junk)
    head = columns[:, :num_rerank]
    judged = np.zeros((len(head), 1), bool)
    judged[slice(*queries) if queries else slice(None)] = True
    present = (np.take_along_axis(shortlist.ids, head, 1) >= 0) & judged
    scores = blend(
        np.take_along_axis(shortlist.similarities, head, 1), np.take_along_axis(logits, head, 1), lamb, temp
    )
    if np.isnan(scores[present]).any():
        raise AmesError("some of the entries to re-rank were not scored")
    order = np.argsort(np.where(present, -scores, np.inf), axis=1, kind="stable")
    ranked = np.take_along_axis(head, order, 1)
    return np.take_along_axis(shortlist.ids, np.concatenate((ranked, columns[:, num_rerank:]), 1), 1)
