"""ASMK: the aggregated selective match kernel between two images (Tolias, Avrithis, Jégou, IJCV 2016)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.local_search.aggregation import aggregate, unit
from ames.local_search.codebook import Codebook, nearest_words
from ames.local_search.kernel import Kernel
from ames.models.base import PairSimilarity, constructor_arguments, sound
from ames.models.layers.binarization import pack_bits, unpack_bits

FUSION = {"lamb": 0.3, "temp": 400.0}  # chosen on generated validation landmarks (docs/asmk.md)
_MOST = 1 << 21  # words: their numbers are exact in float32, and in two float16
_BASE = 1024  # of these two


class ASMK(PairSimilarity):
    """Similarity by visual words: Σ u(σ) over common words, divided by √(words of X · words of Y).

    **The score is in [0, 1]**, seldom above 0.1, and no logit: a fusion needs a large gamma (``FUSION``).
    It is that of ``ames.local_search.inverted_file.InvertedFile`` without idf. Nothing here is learned by
    gradients: ``fit_projection`` or ``asmk_from_codebook`` gives the codebook, which a checkpoint holds.

    A query descriptor goes to its ``query_assign`` nearest words, a database descriptor to one: a database
    has one slot for each descriptor, hence at most as many words. A word is stored as 4 bytes and ⌈D / 8⌉ of
    signs (``binary``), or as D + 2 fp16. A token is a descriptor and the numbers of its words; where it comes
    from a code, it is the aggregated vector of one word, whose number is stored as -1 - word.

    words: at most 2^21. alpha, threshold, released_padding: as in ``ames.local_search.kernel.Kernel``.
    """

    cpu_tokens = 1 << 15
    score_unit = 0.001
    links_are = "shares of common words"
    centroids: Tensor

    def __init__(
        self,
        *,
        words: int = 65536,
        local_dim: int = 128,
        binary: bool = True,
        alpha: float = 3.0,
        threshold: float = 0.0,
        query_assign: int = 5,
        released_padding: bool = True,
    ) -> None:
        arguments = constructor_arguments(locals())
        super().__init__()
        self.kernel = Kernel(
            binary=binary,
            alpha=alpha,
            threshold=threshold,
            query_assign=query_assign,
            released_padding=released_padding,
        )
        if not query_assign <= words <= _MOST:
            raise AmesError(f"words is {words}: give {query_assign} (query_assign) to {_MOST}")
        self.arguments, self.local_dim, self.words = arguments, local_dim, words
        self.code_bytes = 4 + -(-local_dim // 8) if binary else 2 * (local_dim + 2)
        self.code_bits = 8 * self.code_bytes if binary else None
        self.register_buffer("centroids", F.normalize(torch.randn(words, local_dim), dim=1))

    # ---- projection -----------------------------------------------------------------------------

    def tokens(self, local: LocalFeatures) -> LocalFeatures:
        """[..., N, D] -> [..., N, D + query_assign]."""
        values = self.plain(local, self.centroids.dtype)
        words = values.new_zeros(*values.shape[:-1], self.kernel.query_assign)
        words[local.valid] = self._nearest(values[local.valid], self.kernel.query_assign).to(values.dtype)
        return local.with_descriptors(torch.cat((values, words), -1))

    def compress(self, local: LocalFeatures) -> LocalFeatures:
        """[..., M, D] -> codes [..., M, bytes or halves] of words, in rising order; the rest is padding."""
        values = self.plain(local, self.centroids.dtype)
        images, values = _owners(local.valid), values[local.valid]
        found = aggregate(values, images, self._nearest(values, 1), self.centroids)
        if self.kernel.binary:
            filled = F.pad(found.vectors, (0, -local.width % 8))
            shifts = torch.arange(0, 32, 8, device=images.device)
            number = (found.words.unsqueeze(1) >> shifts & 255).to(torch.uint8)
            codes = torch.cat((number, pack_bits(filled)), 1)
        else:
            number = torch.stack((found.words // _BASE, found.words % _BASE), 1)
            codes = torch.cat((unit(found.vectors), number.to(values.dtype)), 1).half()
        shape = local.valid.shape
        stored = _table(found.images, codes, shape[:-1].numel(), local.size)
        return LocalFeatures(
            stored.descriptors.view(*shape, stored.width), stored.valid.view(shape), coded=True
        )

    def expand(self, codes: LocalFeatures) -> LocalFeatures:
        """codes -> tokens [..., M, D + query_assign]; AmesError for words that the codebook does not have."""
        self.check_form(codes)
        stored, width = codes.descriptors, self.centroids.shape[1]
        if self.kernel.binary:
            weights = 256.0 ** torch.arange(4, dtype=torch.float64, device=stored.device)
            number = (stored[..., :4] * weights).sum(-1)
            values = unpack_bits(stored[..., 4:], self.centroids.dtype)[..., :width]
        else:
            values = sound(stored.float(), stored.float().sum(-1), codes.valid)
            number, values = values[..., width] * _BASE + values[..., width + 1], values[..., :width]
        number = number.masked_fill(~codes.valid, 0)
        wrong = (number < 0) | (number >= self.words) | (number != number.round())
        if bool(wrong.any()):
            word = number[wrong][0].item()
            raise AmesError(f"a code names word {word:g}: the codebook has {self.words}; use its own codes")
        number = (-1 - number).to(values.dtype).unsqueeze(-1)
        tokens = torch.cat((values, number.expand(*number.shape[:-1], self.kernel.query_assign)), -1)
        return LocalFeatures(tokens, codes.valid)

    def _nearest(self, values: Tensor, count: int) -> Tensor:
        return nearest_words(values, self.centroids, count)

    # ---- similarity -----------------------------------------------------------------------------

    def encode(self, tokens: LocalFeatures) -> LocalFeatures:
        """tokens [..., N, D + query_assign] -> words [..., S, D + 1]: vector and number, in rising order."""
        shape, width = tokens.valid.shape[:-1], self.centroids.shape[1]
        images, rows = _owners(tokens.valid), tokens.descriptors[tokens.valid]
        values, words = rows[:, :width], rows[:, width:].long()
        stored = words[:, 0] < 0
        found = aggregate(values[~stored], images[~stored], words[~stored], self.centroids)
        vectors = torch.where(found.vectors > 0, 1.0, -1.0) if self.kernel.binary else unit(found.vectors)
        images = torch.cat((found.images, images[stored]))
        words = torch.cat((found.words, -1 - words[stored, 0]))
        vectors = torch.cat((vectors, values[stored]))
        order = (images * self.words + words).argsort()
        encoded = torch.cat((vectors, words.unsqueeze(1).to(vectors.dtype)), 1)[order]
        table = _table(images[order], encoded, shape.numel())
        return table.reshape(*shape)

    def score_encoded(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """``encode`` of P query images and of P database images -> similarities [P] in [0, 1]."""
        matches = self._matches(query, database)
        return query.descriptors.new_zeros(len(query.valid)).index_add(0, matches.pairs, matches.shares)

    def _matches(self, query: LocalFeatures, database: LocalFeatures) -> _Matches:
        query, database = query.pad(max(query.size, 1)), database.pad(max(database.size, 1))
        wanted, held = self._numbers(query, self.words + 1), self._numbers(database, self.words)
        place = torch.searchsorted(held, wanted).clamp(max=database.size - 1)
        pairs, first = (held.gather(1, place) == wanted).nonzero(as_tuple=True)
        second = place[pairs, first]
        x, y = query.descriptors[pairs, first, :-1], database.descriptors[pairs, second, :-1]
        sigma = (x.float() * y.float()).sum(-1)
        if self.kernel.binary:
            bits = self.kernel.bits(x.shape[1])
            sigma = (sigma + bits - x.shape[1]) / bits
        norms = (query.counts * database.counts).to(sigma.dtype).sqrt()
        return _Matches(pairs, first, second, self.kernel.selective(sigma) / norms[pairs])

    @staticmethod
    def _numbers(encoded: LocalFeatures, padding: int) -> Tensor:
        """Words int64 [P, S] in rising order: those of padding are ``padding``."""
        return encoded.descriptors[..., -1].long().masked_fill(~encoded.valid, padding)

    def link_tokens(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """What a common word adds to the score, in equal parts for the pairs of descriptors that have it."""
        encoded = [self.encode(side) for side in (query, database)]
        matches, slots = self._matches(*encoded), [self._slots(side) for side in (query, database)]
        words = self._numbers(encoded[0].pad(max(encoded[0].size, 1)), self.words)[
            matches.pairs, matches.first
        ]
        links = query.descriptors.new_zeros(*query.valid.shape, database.size)
        for pair, word, share in zip(matches.pairs.tolist(), words.tolist(), matches.shares, strict=True):
            having = [(side[pair] == word).any(-1).to(links.dtype) for side in slots]
            both = having[0].unsqueeze(1) * having[1].unsqueeze(0)
            links[pair] += share * both / both.sum()
        return links

    def _slots(self, tokens: LocalFeatures) -> Tensor:
        """The words of each token int64 [P, N, query_assign]; -1 of padding."""
        words = tokens.descriptors[..., self.centroids.shape[1] :].long()
        return torch.where(words < 0, -1 - words, words).masked_fill(~tokens.valid.unsqueeze(-1), -1)

    # ---- start from data ------------------------------------------------------------------------

    @torch.no_grad()
    def fit_projection(self, descriptors: Tensor, *, seed: int = 0) -> None:
        """Make the codebook of real descriptors float [n, D]: k-means. AmesError for fewer than ``words``."""
        found = Codebook.train(descriptors.float().cpu().numpy(), self.words, seed=seed)
        self.centroids.copy_(torch.from_numpy(found.centroids))


class _Matches(NamedTuple):
    """Common words of pairs, int64 [m] each: the pair, the places of the word in both encoded images; and
    float [m], what it adds to the score.
    """

    pairs: Tensor
    first: Tensor
    second: Tensor
    shares: Tensor


def asmk_from_codebook(path: Path | str, **arguments: Any) -> ASMK:
    """Return the model of a codebook's file, in evaluation mode; arguments: others of ``ASMK``."""
    codebook = Codebook.load(path)
    model = ASMK(words=codebook.words, local_dim=codebook.width, **arguments)
    model.centroids.copy_(torch.from_numpy(codebook.centroids))
    return model.eval()


def _owners(valid: Tensor) -> Tensor:
    """The image of each real slot, int64 [n], of bool [..., N] in its order."""
    return valid.reshape(valid.shape[:-1].numel(), valid.shape[-1]).nonzero()[:, 0]


def _table(images: Tensor, rows: Tensor, count: int, size: int | None = None) -> LocalFeatures:
    """Lay rows [n, w], whose images int64 [n] rise, out as [count, size, w], an image's in front; size: None:
    as many as the longest has, at least 1.
    """
    counts = torch.bincount(images, minlength=count)
    longest = max(int(counts.max()) if count else 0, 1) if size is None else size
    slot = torch.arange(len(images), device=images.device) - (counts.cumsum(0) - counts)[images]
    table = rows.new_zeros(count, longest, rows.shape[1])
    table[images, slot] = rows
    return LocalFeatures(table, torch.arange(longest, device=images.device) < counts.unsqueeze(1))
