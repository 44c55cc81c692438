"""RRT: Reranking Transformers (ICCV 2021), the landmark matcher and the product matcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.base import FromZero, PairSimilarity, constructor_arguments
from ames.models.layers.attention_maps import encoder_maps, read_links
from ames.models.layers.encoder import Encoder
from ames.models.layers.initialization import check_init, pca_projection
from ames.models.layers.positions import cells_of, sine_positions
from ames.models.layers.soft_matcher import match_pair
from ames.weights.tensor_names import count_layers

# Rows of the segment embedding: class token, separator, local tokens of query and database image and, where
# there are global tokens, these.
_SEGMENTS = {"gld": (2, 3, 0, 1, 4, 5), "sop": (0, 1, 2, 3)}


class RRT(PairSimilarity):
    """Transformer encoder over the tokens of both images; parameters carry the names of the published files.

    The sequence is [CLS; query; SEP; database]. A token is the sum of what it shows and of a segment's
    embedding; CLS and SEP are segments alone. A linear head on the final class token gives the logit.

    ``variant`` "gld" (landmarks): an image is its global descriptor, by a linear layer and L2-normalized, and
    its L2-normalized local descriptors, each plus the embedding of its scale (``LocalFeatures.scale``, an
    index below ``scales``; published weights count DELG's 1 / image scale, so that 0 is the most enlarged
    image). "sop" (products): an image is the cells of a feature map, as they are, plus sine embeddings of
    their places. A descriptor's place is the cell of ``map_size`` (rows, columns) in which
    ``LocalFeatures.positions`` lie; without positions, descriptors are the cells row by row.

    Options that the published models do not have: ``scales`` 0, no embedding of scales; ``local_dim`` other
    than ``model_dim``, for which a linear layer ``remap_local`` exists; ``init`` "matching", which starts
    from a soft matcher (``ames.models.layers.soft_matcher``) and learns many times faster.
    Padding is never attended.
    """

    part = "matcher."  # of the published networks for products
    links_are = "attention"
    cells: Tensor  # float [cells, d], of "sop"

    def __init__(
        self,
        *,
        variant: str = "gld",
        local_dim: int = 128,
        global_dim: int = 2048,
        model_dim: int = 128,
        nhead: int = 4,
        num_layers: int = 6,
        dim_feedforward: int = 1024,
        activation: str = "relu",
        normalize_before: bool = False,
        scales: FromZero = 7,
        map_size: Sequence[int] = (7, 7),
        init: str = "paper",
    ) -> None:
        arguments = constructor_arguments(locals())
        super().__init__()
        size = _check(variant, activation, model_dim, map_size)
        check_init(init)
        if init == "matching" and variant != "gld":
            raise ValueError("init 'matching' is for landmarks, variant gld")
        self.arguments = arguments | {"map_size": list(size)}
        self.variant, self.local_dim, self.code_bytes = variant, local_dim, 2 * model_dim
        if variant == "gld":
            self.global_dim, self.reads_vector, self.extra_slots = global_dim, True, 1
            self.remap = nn.Linear(global_dim, model_dim)
            self.scale_encoder = nn.Embedding(scales, model_dim) if scales else None
        else:
            self.reads_positions, self.map_size = True, size
            self.register_buffer("cells", sine_positions(*size, model_dim), persistent=False)
        self.reads_scale = variant == "gld" and scales > 0
        self.remap_local = nn.Linear(local_dim, model_dim) if local_dim != model_dim else None
        self.seg_encoder = nn.Embedding(len(_SEGMENTS[variant]), model_dim)
        self.encoder = Encoder(num_layers, model_dim, nhead, dim_feedforward, activation, normalize_before)
        self.classifier = nn.Linear(model_dim, 1)
        for x in self.parameters():
            if x.ndim > 1:
                nn.init.xavier_uniform_(x)
        if init == "matching":
            match_pair(self.encoder, self.seg_encoder, *_SEGMENTS[variant][2:4])

    @classmethod
    def arguments_of(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """As in the base class. No tensor shows nhead, activation and map_size."""
        shapes = {name: tuple(x.shape) for name, x in state.items()}
        segments, d = shapes.get("seg_encoder.weight", (0, 0))
        variant = next((name for name, rows in _SEGMENTS.items() if len(rows) == segments), None)
        feed_forward = shapes.get("encoder.layers.0.linear1.weight")
        if variant is None or feed_forward is None:
            return None
        found = {
            "variant": variant,
            "local_dim": shapes.get("remap_local.weight", (d, d))[1],
            "model_dim": d,
            "num_layers": count_layers(state, "encoder.layers"),
            "dim_feedforward": feed_forward[0],
            "normalize_before": "encoder.norm.weight" in state,
        }
        if variant == "gld":
            found["global_dim"] = shapes.get("remap.weight", (d, 2048))[1]
            found["scales"] = shapes.get("scale_encoder.weight", (0, d))[0]
        return found

    # ---- tokens of one image ----------------------------------------------------------------------

    def tokens(self, local: LocalFeatures) -> LocalFeatures:
        """[..., N, D] -> tokens without segments, [..., N, d]; "gld": [..., 1 + N, d], the global one first.

        AmesError without what the variant reads (class), or for a scale that is no index.
        """
        return self._tokens(local)

    def _tokens(self, local: LocalFeatures, *, checked: bool = True) -> LocalFeatures:
        if self.variant == "sop":
            x = self.plain(local, self._dtype, checked=checked)
            x = x if self.remap_local is None else self.remap_local(x)
            return LocalFeatures(x + self.cells[self._cells_of(local)], local.valid)
        x = self.normalized(local, self._dtype, checked=checked)
        x = x if self.remap_local is None else F.normalize(self.remap_local(x), dim=-1)
        if self.scale_encoder is not None:
            x = x + self.scale_encoder(self.scale_of(local, self.arguments["scales"]))
        vector = self.vector_of(local, self._dtype, checked=checked)
        whole = F.normalize(self.remap(vector), dim=-1)[..., None, :]
        return LocalFeatures(torch.cat((whole, x), -2), F.pad(local.valid, (1, 0), value=True))

    def _cells_of(self, local: LocalFeatures) -> Tensor:
        """int64 [..., N] or [N], any cell for padding."""
        if local.positions is not None:
            places = local.positions[local.valid]
            if not bool(((places >= 0) & (places <= 1)).all()):
                raise AmesError("positions are not all in [0, 1]: give shares of height and width")
            return cells_of(local.positions, *self.map_size)
        count, cells = int(local.lengths.max()) if local.valid.numel() else 0, len(self.cells)
        if count > cells:
            size = " x ".join(map(str, self.map_size))
            raise AmesError(f"{count} descriptors of an image without positions, but {size} cells of a map")
        return torch.arange(local.size, device=local.valid.device).clamp(max=cells - 1)

    def projection(self) -> dict[str, Tensor]:
        names = ("remap.", "remap_local.", "scale_encoder.")
        found = {name: x for name, x in self.state_dict().items() if name.startswith(names)}
        return found | ({"cells": self.cells} if self.variant == "sop" else {})

    @property
    def _dtype(self) -> torch.dtype:
        return self.classifier.weight.dtype

    # ---- similarity -------------------------------------------------------------------------------

    def score_encoded(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        return self.classifier(self.class_token(query, database)).squeeze(-1)

    def class_token(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """Return the final class token of pairs, [P, d], from tokens [P, N, d] and [P, M, d]."""
        return self.encoder.first(*self._sequence(query, database))

    def link_tokens(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """Attention between the images both ways, of what the class token reads (``read_links``)."""
        x, mask = self._sequence(query, database)
        places = slice(1, 1 + query.size), slice(2 + query.size, None)
        return read_links(encoder_maps(self.encoder, x, *places, mask))

    def _sequence(self, query: LocalFeatures, database: LocalFeatures) -> tuple[Tensor, Tensor | None]:
        """Tokens [P, N + M + 2, d] of pairs, and what may be attended, bool [P, 1, 1, N + M + 2] or None."""
        P, device = len(query.valid), query.valid.device
        cls, sep, *own = _SEGMENTS[self.variant]
        rows = [cls, *own[2:3], *[own[0]] * (query.size - self.extra_slots)]
        rows += [sep, *own[3:4], *[own[1]] * (database.size - self.extra_slots)]
        empty = query.descriptors.new_zeros(1, 1, 1).expand(P, 1, query.width)
        x = torch.cat((empty, query.descriptors, empty, database.descriptors), 1)
        x = x + self.seg_encoder(torch.tensor(rows, device=device))
        seen = torch.cat([F.pad(side.valid, (1, 0), value=True) for side in (query, database)], 1)
        return x, None if bool(seen.all()) else seen[:, None, None]

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """As in the base class; int8 changes nothing."""
        self.encoder.set_compute_dtype(dtype)

    def forward(
        self,
        src_local: Tensor,
        tgt_local: Tensor,
        *,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        src_global: Tensor | None = None,
        tgt_global: Tensor | None = None,
        src_scales: Tensor | None = None,
        tgt_scales: Tensor | None = None,
    ) -> Tensor:
        """Inputs of the published code -> logits [B]; nothing is rounded, values that are not finite pass.

        "gld": locals [B, N, D], [B, M, D], masks bool [B, N], [B, M] or None, **True = padding**, globals
        [B, G], scales int [B, N], [B, M]. "sop": maps [B, D, rows, columns] of ``map_size``, and no more.
        """
        if self.variant == "sop":
            sides = [LocalFeatures.from_descriptors(self._flat(x)) for x in (src_local, tgt_local)]
        else:
            sides = [
                LocalFeatures.from_descriptors(
                    x, None if mask is None else ~mask.bool(), scale=scale, vector=vector
                )
                for x, mask, scale, vector in (
                    (src_local, src_mask, src_scales, src_global),
                    (tgt_local, tgt_mask, tgt_scales, tgt_global),
                )
            ]
        return self.pairs_tokens(*(self._tokens(side, checked=False) for side in sides))

    def fit_projection(self, descriptors: Tensor, *, seed: int = 0) -> None:
        """With ``init`` "matching": start ``remap_local``, if there is one, by PCA of descriptors [n, D]."""
        if self.remap_local is not None and self.arguments["init"] == "matching":
            pca_projection(self.remap_local, F.normalize(descriptors.to(self._dtype), dim=-1))

    def _flat(self, maps: Tensor) -> Tensor:
        """[B, D, rows, columns] -> [B, cells, D]."""
        if maps.ndim != 4 or tuple(maps.shape[2:]) != self.map_size:
            raise AmesError(f"maps are {list(maps.shape)}; expected [B, D, {self.map_size}]")
        return maps.flatten(2).transpose(1, 2)


def _check(variant: str, activation: str, model_dim: int, map_size: Sequence[int]) -> tuple[int, int]:
    """Return ``map_size`` as rows and columns; ValueError for what ``constructor_arguments`` cannot see."""
    if variant not in _SEGMENTS:
        raise ValueError(f"variant {variant!r} is none of {', '.join(_SEGMENTS)}")
    if activation not in ("relu", "gelu"):
        raise ValueError(f"activation {activation!r} is none of relu, gelu")
    if variant == "sop" and model_dim % 4:
        raise ValueError(f"sine embeddings need a multiple of 4: model_dim {model_dim}")
    size = tuple(map_size) if isinstance(map_size, Sequence) else ()
    if len(size) != 2 or not all(type(x) is int and x > 0 for x in size):
        raise ValueError(f"map_size is {map_size!r}: give rows and columns")
    return size[0], size[1]
