"""AMES: asymmetric and memory-efficient similarity of two sets of local descriptors (ECCV 2024)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ames.features import LocalFeatures
from ames.models.base import PairSimilarity, constructor_arguments
from ames.models.layers.attention import PairDecoder
from ames.models.layers.attention_maps import decoder_maps, read_links
from ames.models.layers.binarization import Binarize, fit_itq, pack_bits, unpack_bits
from ames.models.layers.initialization import (
    check_init,
    identical_attention,
    matching,
    pca_projection,
)


class AMES(PairSimilarity):
    """Similarity transformer; parameters carry the names of the published checkpoints.

    A descriptor is L2-normalized and projected by f: Linear + LayerNorm (full precision; a database
    descriptor is stored as 2 * model_dim bytes, fp16) or sign(x W) + Linear + LayerNorm (``binarized``;
    stored as model_dim bits). The tokens of both images and a learnable match token pass through
    ``num_encoder_layers`` of self-attention, cross-attention and feed-forward; a linear head on the
    match token gives the logit. The score depends neither on the order of descriptors nor on padding.

    ``init``: "paper" starts every layer from the same attention weights, as the released code does;
    "matching" starts from a soft matcher (``ames.models.layers.initialization``) and learns many times
    faster.
    """

    links_are = "attention"

    def __init__(
        self,
        *,
        local_dim: int = 768,
        model_dim: int = 128,
        nhead: int = 2,
        num_encoder_layers: int = 5,
        dim_feedforward: int = 1024,
        activation: str = "relu",
        normalize_before: bool = False,
        binarized: bool = False,
        init: str = "paper",
    ) -> None:
        arguments = constructor_arguments(locals())
        super().__init__()
        self.arguments = arguments
        if activation not in ("relu", "gelu"):
            raise ValueError(f"activation {activation!r} is none of relu, gelu")
        check_init(init)
        if binarized and model_dim % 8:
            raise ValueError(f"a binarized model packs bits into bytes: model_dim {model_dim} % 8 != 0")
        self.local_dim, self.model_dim, self.binarized = local_dim, model_dim, binarized
        self.code_bytes = model_dim // 8 if binarized else 2 * model_dim
        self.code_bits = model_dim if binarized else None
        self.mtc_token = nn.Parameter(torch.randn(model_dim))
        if binarized:
            self.remap_local = nn.Sequential(
                Binarize(local_dim, model_dim), nn.Linear(model_dim, model_dim), nn.LayerNorm(model_dim)
            )
        else:
            self.remap_local = nn.Sequential(nn.Linear(local_dim, model_dim), nn.LayerNorm(model_dim))
        self.decoder = PairDecoder(
            num_encoder_layers, model_dim, nhead, dim_feedforward, activation, normalize_before
        )
        self.classifier = nn.Linear(model_dim, 1)
        if init == "matching":
            matching(self.decoder, self.mtc_token, self.project, self.norm, self.classifier)
        else:
            identical_attention(self.decoder)

    @property
    def binarize(self) -> Binarize:
        """W of the binary projection."""
        return cast(Binarize, self.remap_local[0])

    @property
    def project(self) -> nn.Linear:
        """The linear layer of f."""
        return cast(nn.Linear, self.remap_local[-2])

    @property
    def norm(self) -> nn.LayerNorm:
        """The LayerNorm that ends f."""
        return cast(nn.LayerNorm, self.remap_local[-1])

    # ---- projection -----------------------------------------------------------------------------

    def tokens(self, local: LocalFeatures) -> LocalFeatures:
        return self._tokens(local)

    def _tokens(self, local: LocalFeatures, *, checked: bool = True) -> LocalFeatures:
        return local.with_descriptors(self.remap_local(self.normalized(local, self._dtype, checked=checked)))

    def compress(self, local: LocalFeatures) -> LocalFeatures:
        """Codes as a database stores them: packed bits, or fp16 tokens (the paper's evaluation rounding)."""
        if not self.binarized:
            return super().compress(local)
        signs = self.binarize(self.normalized(local, self._dtype))
        return local.with_descriptors(pack_bits(signs), coded=True)

    def expand(self, codes: LocalFeatures) -> LocalFeatures:
        if not self.binarized:
            return super().expand(codes)
        self.check_form(codes)
        signs = unpack_bits(codes.descriptors, self._dtype)
        return codes.with_descriptors(self.norm(self.project(signs)))

    def projection(self) -> dict[str, Tensor]:
        return self.remap_local.state_dict()

    @property
    def _dtype(self) -> torch.dtype:
        return self.mtc_token.dtype

    # ---- similarity -----------------------------------------------------------------------------

    def encode(self, tokens: LocalFeatures) -> LocalFeatures:
        """The first layer's self-attention, in which an image meets only itself and the match token."""
        leading = tokens.valid.shape[:-1]
        flat = LocalFeatures(tokens.descriptors, tokens.valid).pad(max(tokens.size, 1)).reshape(-1)
        descriptors, summary = self.decoder.encode(
            flat.descriptors, self.mtc_token.to(flat.descriptors.dtype), flat.valid
        )
        return LocalFeatures(descriptors, flat.valid, summary=summary).reshape(*leading)

    def score_encoded(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        token = self.mtc_token.to(query.descriptors.dtype)
        shares = cast(Tensor, query.summary), cast(Tensor, database.summary)
        mask = _mask(query, database)
        return self._head(self.decoder.match(query.descriptors, database.descriptors, shares, token, mask))

    def link_tokens(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """Cross-attention both ways, of what the match token reads (``read_links``)."""
        mask = _mask(query, database)
        return read_links(decoder_maps(self.decoder, self._sequence(query, database), query.size, mask))

    def _sequence(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """[P, N + 1 + M, d]: query, match token, database."""
        token = self.mtc_token.to(query.descriptors.dtype).expand(len(query.valid), 1, -1)
        return torch.cat((query.descriptors, token, database.descriptors), 1)

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        self.decoder.set_compute_dtype(dtype)

    def compile_pairs(self) -> None:
        # Only what follows the check for padding, which would break the graph.
        self.decoder.match = torch.compile(self.decoder.match, dynamic=True)  # type: ignore[method-assign]

    def forward(
        self,
        src_local: Tensor,
        src_mask: Tensor | None = None,
        tgt_local: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        return_logits: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As published: src_local [B, N, D], tgt_local [B, M, D], masks bool [B, N], [B, M] or None,
        **True = padding** -> logits [B]; with ``return_logits`` also the final tokens
        [B, 1 + N + M, d], in the order match token, query, database.

        In evaluation mode full-precision database tokens are rounded to fp16, as stored ones are. Values that
        are not finite pass, as in the published code; ``score`` refuses them.
        """
        if tgt_local is None:
            raise ValueError("tgt_local is missing: AMES scores two images")
        query, database = (
            self._tokens(
                LocalFeatures.from_descriptors(x, None if mask is None else ~mask.bool()), checked=False
            )
            for x, mask in ((src_local, src_mask), (tgt_local, tgt_mask))
        )
        if not (self.training or self.binarized):
            stored = database.descriptors.half().to(database.descriptors.dtype)
            database = database.with_descriptors(stored)
        if not return_logits:
            return self.pairs_tokens(query, database)
        n = query.size
        x = self.decoder(self._sequence(query, database), n, _mask(query, database))
        return self._head(x[:, n]), torch.cat((x[:, n : n + 1], x[:, :n], x[:, n + 1 :]), dim=1)

    def _head(self, token: Tensor) -> Tensor:
        return self.classifier(token).squeeze(-1)

    # ---- start from data ------------------------------------------------------------------------

    @torch.no_grad()
    def fit_projection(self, descriptors: Tensor, *, seed: int = 0) -> None:
        """Start f from data: ITQ for the binary projection, centred PCA for full precision.

        descriptors: float [n, D], n at least model_dim; real descriptors only.
        """
        x = F.normalize(descriptors.to(self.mtc_token.device, torch.float32), dim=-1)
        if self.binarized:
            self.binarize.W.copy_(fit_itq(x, self.model_dim, seed=seed))
        else:
            pca_projection(self.project, x)

    @torch.no_grad()
    def start_from(self, teacher: AMES, descriptors: Tensor) -> None:
        """Start this binary model as close to its full-precision teacher as possible without training.

        W must have been fitted (``fit_projection``). Transformer, match token and head are copied. The linear
        layer after the bits is the least-squares fit to the input of the teacher's LayerNorm.
        descriptors: float [n, D] real descriptors, n above model_dim.
        """
        if not self.binarized or teacher.binarized:
            raise ValueError("a binary model starts from a full-precision one, and not the other way round")
        for name, value in self.arguments.items():
            if name not in ("binarized", "init") and value != (other := teacher.arguments[name]):
                raise ValueError(f"its {name} is {value}, that of the model to start from {other}")
        copied = {k: v for k, v in teacher.state_dict().items() if not k.startswith("remap_local.")}
        self.load_state_dict(self.state_dict() | copied)
        x = F.normalize(descriptors.to(self.mtc_token.device, torch.float32), dim=-1)
        bits = torch.where(x @ self.binarize.W > 0, 1.0, -1.0)
        bits = torch.cat((bits, bits.new_ones(len(bits), 1)), 1).double()
        solution = torch.linalg.lstsq(bits, teacher.project(x).double()).solution.float()
        self.project.weight.copy_(solution[:-1].T)
        self.project.bias.copy_(solution[-1])
        self.norm.load_state_dict(teacher.norm.state_dict())


def _mask(query: LocalFeatures, database: LocalFeatures) -> Tensor | None:
    """bool [P, 1, 1, N + 1 + M], True = may be attended, in the order query, match token, database.

    None where there is no padding.
    """
    valid = torch.cat((F.pad(query.valid, (0, 1), value=True), database.valid), dim=1)
    return None if bool(valid.all()) else valid[:, None, None]
