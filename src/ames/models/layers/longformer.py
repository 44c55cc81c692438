"""A Longformer (arXiv 2004.05150) over given vectors instead of words; parameters carry its usual names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ames.errors import AmesError
from ames.models.layers.banded_attention import BandedAttention, Plan, make_plan
from ames.weights.tensor_names import check_shapes

FIRST = 2  # row of the position table of the first token: those before it belong to padding of words


class DenseNorm(nn.Module):
    """Linear, residual and LayerNorm."""

    def __init__(self, inputs: int, dim: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return cast(Tensor, self.LayerNorm(self.dense(x) + residual))


class Layer(nn.Module):
    """Banded attention and feed-forward (exact GELU), both post-norm."""

    def __init__(self, dim: int, heads: int, intermediate: int, eps: float) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": BandedAttention(dim, heads), "output": DenseNorm(dim, dim, eps)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(dim, intermediate)})
        self.output = DenseNorm(intermediate, dim, eps)

    def forward(self, x: Tensor, valid: Tensor | None, plan: Plan) -> Tensor:
        """x: [B, S, d], valid: bool [B, S] or None -> the rows of the plan, [B, R, d]."""
        read = self.attention["self"](x, valid, plan)
        x = self.attention["output"](read, x[:, plan.rows])
        return cast(Tensor, self.output(F.gelu(self.intermediate["dense"](x)), x))


class Embeddings(nn.Module):
    """Adds the positions and the one token type, then LayerNorm."""

    def __init__(self, dim: int, positions: int, eps: float) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(positions, dim)
        self.token_type_embeddings = nn.Embedding(1, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, S, d] -> the same shape."""
        places = self.position_embeddings.weight[FIRST : FIRST + x.shape[1]]
        return cast(Tensor, self.LayerNorm(x + places + self.token_type_embeddings.weight[0]))


class Longformer(nn.Module):
    """The encoder. ``reach``: keys that a token sees to either side, half of the attention window.

    ``sep_embedding`` ends an image. ``pad_embedding`` is in published files; nothing reads it here: it fills
    sequences up to whole windows, where no real token sees it.
    """

    def __init__(
        self, dim: int, heads: int, layers: int, intermediate: int, positions: int, eps: float
    ) -> None:
        super().__init__()
        self.sep_embedding, self.pad_embedding = (nn.Parameter(0.02 * torch.randn(dim)) for _ in range(2))
        self.embeddings = Embeddings(dim, positions, eps)
        stack = nn.ModuleList(Layer(dim, heads, intermediate, eps) for _ in range(layers))
        self.encoder = nn.ModuleDict({"layer": stack})
        self.checkpointing = False
        self.apply(_initialize)

    @property
    def layers(self) -> list[Layer]:
        """The layers, first to last."""
        return cast(list[Layer], list(cast(nn.ModuleList, self.encoder["layer"])))

    def forward(
        self, x: Tensor, valid: Tensor | None, anchored: Tensor, wanted: Tensor, reach: int
    ) -> Tensor:
        """Return the final tokens of the ``wanted`` rows: x [B, S, d] -> [B, R, d].

        valid: bool [B, S], False = padding, or None. anchored, wanted: bool [S], True = a global token, a row
        to return. The last layer computes no other row.
        """
        x = self.embeddings(x)
        every = make_plan(anchored, torch.ones_like(wanted), reach)
        plans = [every] * (len(self.layers) - 1) + [make_plan(anchored, wanted, reach)]
        for layer, plan in zip(self.layers, plans, strict=True):
            if self.checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(layer, x, valid, plan, use_reentrant=False)
            else:
                x = layer(x, valid, plan)
        return x

    @torch.no_grad()
    def start_from(self, state: Mapping[str, Tensor], *, source: str) -> None:
        """Take the weights of a text model, with or without the prefix ``longformer.``.

        Its word embeddings, head and pooler are dropped; of its layers, the first are taken. Positions are
        repeated until the table is full. AmesError names the first tensor that does not fit.
        """
        own = {name: x for name, x in self.state_dict().items() if not name.endswith("_embedding")}
        layers = len(self.layers)
        found = {name.removeprefix("longformer."): x for name, x in state.items()}
        taken = {name: x for name, x in found.items() if _of_encoder(name, layers)}
        table = "embeddings.position_embeddings.weight"
        if table in taken:
            taken[table] = _longer(taken[table], own[table], f"{source}: {table}")
        shapes = {name: tuple(x.shape) for name, x in own.items()}
        check_shapes(taken, shapes, source=source, complaint="no Longformer of this size")
        self.load_state_dict(taken, strict=False)


def _of_encoder(name: str, layers: int) -> bool:
    numbered = re.match(r"encoder\.layer\.(\d+)\.", name)
    if numbered:
        return int(numbered[1]) < layers
    return name.startswith("embeddings.") and not re.search(r"word_embeddings|position_ids", name)


def _longer(table: Tensor, own: Tensor, what: str) -> Tensor:
    """Repeat the positions of a table [2 + n, d] until it has the rows of ``own``."""
    if table.ndim != 2 or len(table) <= FIRST:
        raise AmesError(f"{what} is {tuple(table.shape)}, no table of positions: give a Longformer's weights")
    wanted = len(own) - FIRST
    repeated = table[FIRST:].repeat(-(-wanted // (len(table) - FIRST)), 1)[:wanted]
    return torch.cat((table[:FIRST], repeated))


def _initialize(module: nn.Module) -> None:
    """As text models of this family start: normal with deviation 0.02, biases 0."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
