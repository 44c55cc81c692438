"""The interface of similarity models, which one evaluator, one index and one trainer use.

A list-wise model reads a whole shortlist (``window`` = its length). A pair-wise one scores each candidate by
itself (``window`` is None), so that a pair is scored once for all protocols, lambdas, gammas and lengths.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from inspect import signature
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ames.errors import AmesError, NotFiniteError
from ames.features import LocalFeatures
from ames.io.hashing import add_tensors

FromZero = Annotated[int, 0]  # of a constructor: a whole number that may be 0


class Similarity(nn.Module):
    """Similarity of a query image to candidate images, from their local descriptors.

    ``score``, ``tokens``, ``compress`` and ``expand`` raise AmesError where shapes do not fit together, and
    NotFiniteError for NaN or infinity in a real descriptor; padding may hold anything. In training mode
    values pass as they are, for the loss to show (``ames.training``).

    ``local_dim``: width of the descriptors, None if any. ``code_bytes``: storage of one database descriptor,
    2 d unless a model has codes of its own.
    ``code_bits``: its bits where codes are packed, one per dimension; None where they are numbers.
    ``reads_vector``, ``reads_scale``: ``tokens`` needs the image's ``vector`` (``global_dim`` wide), the
    descriptors' ``scale``. ``reads_positions``: it takes ``positions`` where they are given.
    ``reads_size``: the sides, "query" and "database", of which it reads the ``image_size``.
    ``extra_slots``: slots that tokens and codes have before those of the descriptors (1: a global token).
    ``most``: descriptors of an image that it reads at most; None: all.
    ``score_unit``: a logit's 1 in this model's scores. A validation divides the gammas that it tries by it.
    ``arguments``: the constructor's, which a checkpoint holds and which rebuild the model.
    ``part``: the prefix of this model's tensors in published files that hold a whole network; else "".
    """

    window: int | None = None
    learned: ClassVar[bool] = True  # it has weights, so that evaluation needs a checkpoint
    part: ClassVar[str] = ""
    local_dim: int | None = None
    global_dim: int | None = None
    reads_vector: bool = False
    reads_scale: bool = False
    reads_positions: bool = False
    reads_size: tuple[str, ...] = ()
    extra_slots: int = 0
    most: int | None = None
    score_unit: float = 1.0
    code_bytes: int
    code_bits: int | None = None
    arguments: dict[str, Any]

    @property
    def reads_locations(self) -> bool:
        """Whether it reads where descriptors are, or how large."""
        return self.reads_scale or self.reads_positions

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU without any."""
        return next((x.device for x in self.state_dict().values()), torch.device("cpu"))

    def score(self, query: LocalFeatures, candidates: LocalFeatures) -> Tensor:
        """query [B, N, D], candidates [B, K, M, D] -> logits [B, K]."""
        _check_sides(query, candidates, listed=True)
        return self.score_tokens(self.tokens(query), self.tokens(candidates))

    def list_logits(self, query: LocalFeatures, candidates: LocalFeatures) -> Tensor:
        """Return what training on lists compares with a candidate's label: query [B, N, D], candidates
        [B, K, M, D] -> logits [B, K, T], T of each candidate. Here its score; LOCORE has one per token.
        """
        return self.score(query, candidates)[..., None]

    def compress(self, local: LocalFeatures) -> LocalFeatures:
        """[..., M, D] -> codes [..., M, bytes or halves]: exactly what a database stores. Unless a model has
        codes of its own, they are its tokens as fp16, the rounding of AMES' evaluation.
        """
        tokens = self.tokens(local)
        return tokens.with_descriptors(tokens.descriptors.half(), coded=True)

    def expand(self, codes: LocalFeatures) -> LocalFeatures:
        """codes -> tokens [..., M, d], as scoring reads them. AmesError for codes of another form."""
        self.check_form(codes)
        values = codes.descriptors.float()
        return codes.with_descriptors(sound(values, values.sum(-1), codes.valid))

    def check_form(self, codes: LocalFeatures) -> None:
        """AmesError unless codes have the type and the width of this model's."""
        packed = self.code_bits is not None
        width = self.code_bytes if packed else self.code_bytes // 2
        if codes.width != width or (codes.descriptors.dtype == torch.uint8) != packed:
            form = f"{width} bytes (uint8)" if packed else f"{width} numbers"
            kind = f"{codes.descriptors.dtype} of width {codes.width}"
            raise AmesError(f"codes are {kind}; this model's are {form} each")

    def slots_of(self, count: int, *, coded: bool) -> int:
        """Return the slots that ``count`` descriptors of an image take, or their codes."""
        return count + (self.extra_slots if coded else 0)

    def normalized(self, local: LocalFeatures, dtype: torch.dtype, *, checked: bool = True) -> Tensor:
        """L2-normalized descriptors [..., N, D], those of padding finite, too (unless not ``checked``)."""
        self._check_descriptors(local)
        values = local.descriptors.to(dtype)
        length = values.norm(dim=-1, keepdim=True)
        values = values / length.clamp_min(1e-12)  # as F.normalize, whose lengths show what is not finite
        return values if self.training or not checked else sound(values, length[..., 0], local.valid)

    def plain(self, local: LocalFeatures, dtype: torch.dtype, *, checked: bool = True) -> Tensor:
        """As ``normalized``, of the lengths that they have."""
        self._check_descriptors(local)
        values = local.descriptors.to(dtype)
        return values if self.training or not checked else sound(values, values.norm(dim=-1), local.valid)

    def vector_of(self, local: LocalFeatures, dtype: torch.dtype, *, checked: bool = True) -> Tensor:
        """Global descriptors [..., G] of the images; AmesError without one, or of another width."""
        if local.vector is None:
            kind = type(self).__name__
            raise AmesError(f"{kind} reads a global descriptor of each image: none was given (vector)")
        vector = local.vector.to(dtype)
        if vector.shape[-1] != self.global_dim:
            width = vector.shape[-1]
            raise AmesError(f"global descriptors are {width}-d, this model takes {self.global_dim}-d")
        if self.training or not checked:
            return vector
        real = torch.ones_like(vector[..., :1], dtype=torch.bool)
        return sound(vector.unsqueeze(-2), vector.norm(dim=-1, keepdim=True), real).squeeze(-2)

    def scale_of(self, local: LocalFeatures, scales: int) -> Tensor:
        """Indices of scales, int64 [..., N], 0 of padding; AmesError without, or for one that is no index."""
        if local.scale is None:
            kind = type(self).__name__
            raise AmesError(f"{kind} reads the scale of each descriptor: none was given (scale)")
        scale = local.scale.masked_fill(~local.valid, 0)
        index = scale.long()
        wrong = (index != scale) | (index < 0) | (index >= scales)
        if bool(wrong.any()):
            value = f"{scale[wrong][0].item():g}"
            raise AmesError(f"a descriptor has scale {value}: give the index of a scale, 0 ... {scales - 1}")
        return index

    def _check_descriptors(self, local: LocalFeatures) -> None:
        if local.coded:
            raise AmesError("these are a model's codes: give descriptors, or expand the codes")
        if self.local_dim is not None and local.width != self.local_dim:
            raise AmesError(f"descriptors are {local.width}-d, this model takes {self.local_dim}-d")

    def projection(self) -> dict[str, Tensor]:
        """The weights on which ``compress`` and ``expand`` depend, by name."""
        return self.state_dict()

    def fingerprint(self) -> str:
        """Return the SHA-256 of what decides the codes: class, their form, weights of the projection."""
        form = f"{type(self).__name__} {self.local_dim} {self.code_bytes} {self.code_bits}"
        form += f" {self.extra_slots}" if self.extra_slots else ""
        digest = hashlib.sha256(form.encode())
        add_tensors(digest, self.projection())
        return digest.hexdigest()

    @classmethod
    def arguments_of(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """Return the constructor's arguments that the tensors of a published file show by names and shapes,
        without the prefix ``part``; None: they are no weights of this class.
        """
        return None

    def tokens(self, local: LocalFeatures) -> LocalFeatures:
        """[..., N, D] -> tokens [..., N, d] at full precision (the query side)."""
        raise NotImplementedError

    def score_tokens(self, query: LocalFeatures, candidates: LocalFeatures) -> Tensor:
        """As ``score``, from tokens: query [B, N, d], candidates [B, K, M, d] -> logits [B, K]."""
        raise NotImplementedError

    def links(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """Return what ties the descriptors of a pair (``PairSimilarity.links``). AmesError: not pair-wise."""
        raise AmesError(f"{type(self).__name__} reads lists of candidates: it ties no pair of descriptors")

    def fit_projection(self, descriptors: Tensor, *, seed: int = 0) -> None:
        """Start what depends on the data, before training, from real descriptors float [n, D]. By default
        nothing does.
        """


class PairSimilarity(Similarity):
    """A model that reads one pair. Subclasses write the projections, ``score_encoded`` and, where part of the
    work concerns one image alone, ``encode``.

    ``cpu_tokens``: descriptors that a CPU best scores together; None: as many as of AMES.
    ``links_are``: what ``links`` returns, for people.
    """

    cpu_tokens: ClassVar[int | None] = None
    links_are: ClassVar[str] = "cosines of tokens"

    def encode(self, tokens: LocalFeatures) -> LocalFeatures:
        """tokens [..., N, d] -> what one image contributes to every pair, computed once per image."""
        return tokens

    def score_encoded(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """``encode`` of P query images and of P database images -> logits [P]."""
        raise NotImplementedError

    def training_logits(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """What training compares with labels, for pairs as in ``pairs``: ``logits`` of their scores."""
        return self.logits(self.pairs(query, database))

    def logits(self, score: Tensor) -> Tensor:
        """Scores [P] -> the logits [P] that training compares with labels: the scores themselves, unless a
        model learns from another quantity.
        """
        return score

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Compute ``encode`` and ``score_encoded`` in another format, in place; both take and give fp32."""

    def compile_pairs(self) -> None:
        """Compile what ``score_encoded`` computes, in place (``torch.compile``), where that is much."""

    def pairs_tokens(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """query [P, N, d], database [P, M, d] -> logits [P]."""
        _check_sides(query, database, listed=False)
        return self.score_encoded(self.encode(query), self.encode(database))

    def links(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """Return what ties descriptors in this model, float32 [P, N, M]: at least 0, and 0 for padding.

        query, database: tokens as of ``pairs_tokens``; N and M are their descriptors without extra slots.
        Values of one pair compare with each other alone. ``links_are`` says what they are.
        """
        _check_sides(query, database, listed=False)
        x, y = query.pad(max(query.size, 1)), database.pad(max(database.size, 1))
        either = x.valid.unsqueeze(2) & y.valid.unsqueeze(1)
        links, first = self.link_tokens(x, y).float().masked_fill(~either, 0), self.extra_slots
        return links[:, first : query.size, first : database.size]

    def link_tokens(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """As ``links``, of every slot, [P, N, M]; anything for padding. Models write their own: by default
        it is what any model has, the cosines of tokens where they are above 0.
        """
        x, y = (F.normalize(side.descriptors, dim=-1) for side in (query, database))
        return (x @ y.mT).clamp(min=0)

    def pairs(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """query [P, N, D], database [P, M, D] -> logits [P]."""
        _check_sides(query, database, listed=False)
        return self.pairs_tokens(self.tokens(query), self.tokens(database))

    def score_tokens(self, query: LocalFeatures, candidates: LocalFeatures) -> Tensor:
        _check_sides(query, candidates, listed=True)
        B, K = candidates.valid.shape[:2]
        repeated = self.encode(query).map(lambda x: x.unsqueeze(1).expand(B, K, *x.shape[1:]))
        return self.score_encoded(repeated.reshape(-1), self.encode(candidates).reshape(-1)).view(B, K)


def constructor_arguments(scope: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments among ``locals()`` at the top of a constructor, checked by its annotations.

    AmesError for one of another type. Whole numbers are at least 1, or their default where that is less;
    those of type ``FromZero`` at least 0.
    """
    given = {name: value for name, value in scope.items() if name not in ("self", "__class__")}
    constructor = scope.get("__class__", type(scope["self"])).__init__
    kinds, parameters = get_type_hints(constructor, include_extras=True), signature(constructor).parameters
    for name in given.keys() & kinds.keys() & parameters.keys():
        _check_argument(name, given[name], kinds[name], parameters[name].default)
    return given


def _check_argument(name: str, value: Any, kind: Any, default: Any) -> None:
    if type(None) in get_args(kind):
        if value is None:
            return
        kind = next(x for x in get_args(kind) if x is not type(None))
    least = min(1, default) if type(default) is int else 1
    if get_origin(kind) is Annotated:
        kind, least = get_args(kind)
    expected = {
        bool: (type(value) is bool, "true or false"),
        int: (type(value) is int and value >= least, f"a whole number of at least {least}"),
        float: (type(value) in (int, float) and math.isfinite(value), "a number"),
        str: (isinstance(value, str), "a word"),
    }
    fits, what = expected.get(kind, (True, ""))
    if not fits:
        raise AmesError(f"{name} is {value!r}: give {what}")


def sound(values: Tensor, measure: Tensor, valid: Tensor) -> Tensor:
    """Return ``values`` [..., N, w], with zeros for padding that holds NaN or infinity: masks alone would not
    keep these out of a score.

    measure: [..., N], not finite where a row of values is not. NotFiniteError where a real row is not.
    """
    bad = ~torch.isfinite(measure)
    if not bool(bad.any()):
        return values
    images = (bad & valid).any(-1).reshape(-1)
    if bool(images.any()):
        raise NotFiniteError(int(images.nonzero()[0]))
    return values.masked_fill(~valid.unsqueeze(-1), 0)


def _check_sides(query: LocalFeatures, others: LocalFeatures, *, listed: bool) -> None:
    """AmesError unless query [B, N, w] and others [B, M, w] ([B, K, M, w] if ``listed``) go together."""
    if query.valid.ndim != 2 or others.valid.ndim != 2 + listed:
        sides = [list(x.descriptors.shape) for x in (query, others)]
        expected = "[B, N, D] and [B, K, M, D]" if listed else "[P, N, D] and [P, M, D]"
        raise AmesError(f"query and database descriptors are {sides[0]} and {sides[1]}; expected {expected}")
    if len(query.valid) != len(others.valid):
        counts = f"{len(query.valid)} query images, but database images for {len(others.valid)}"
        raise AmesError(f"{counts}: give as many")
    if query.width != others.width:
        raise AmesError(f"query descriptors are {query.width}-d, those of database images {others.width}-d")
