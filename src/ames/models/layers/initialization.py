"""Initial weights of a similarity transformer.

Attention from random weights takes thousands of steps to learn that equal descriptors should find each other.
``matching`` writes that into the initial weights: a soft matcher whose dustbin is the match token. Every
weight stays trainable.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ames.models.layers.attention import PairDecoder, PairLayer

# Of ``matching``: scale of the shared projection, cosine below which a descriptor has no partner, and scale
# of all other outputs.
SHARPNESS, THRESHOLD, QUIET = 1.2, 0.5, 0.1


def check_init(name: str) -> None:
    """ValueError unless ``name`` is a way to start a model: as published, or as a soft matcher."""
    if name not in ("paper", "matching"):
        raise ValueError(f"init {name!r} is none of paper, matching")


@torch.no_grad()
def identical_attention(decoder: PairDecoder) -> None:
    """Start all layers from the first one's weights (the released code copies one layer)."""
    first, *others = decoder.stack
    weights = first.state_dict()
    for layer in others:
        layer.load_state_dict(weights)


@torch.no_grad()
def pca_projection(linear: nn.Linear, x: Tensor) -> None:
    """Set rows of ``linear`` to the main directions of x [n, D], centred; zero rows stay zero."""
    mean = x.mean(0)
    centred = (x - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))  # rising eigenvalues
    used = linear.weight.abs().sum(1) > 0
    count = min(int(used.sum()), x.shape[1])
    # Half-whitened: the leading directions of local descriptors would else drown the rest.
    half = values.flip(0)[:count].clamp(min=1e-9) ** -0.25
    basis = (vectors.flip(1)[:, :count] * half).T.float()
    rows = used.nonzero().squeeze(1)[:count]
    linear.weight.zero_()
    linear.weight[rows] = basis
    linear.bias.copy_(-linear.weight @ mean)


@torch.no_grad()
def matching(
    decoder: PairDecoder, token: nn.Parameter, project: nn.Linear, norm: nn.LayerNorm, head: nn.Linear
) -> None:
    """Start AMES, given its match token, the last layers of its projection and its head, as a soft matcher.

    The last 2h of the d dimensions (h = heads) are set aside: one *flag* per head, which marks the match
    token, and one *evidence* per head. In cross-attention queries and keys share one orthogonal projection,
    so that like finds like, and the match token's key has the constant score of a pair with cosine
    ``THRESHOLD``: a descriptor whose best match is worse attends to the match token. Its flag is copied into
    the descriptor's evidence ("unmatched"). Self-attention carries the mean evidence to the match token,
    where the head reads it. All other outputs start at ``QUIET`` times their usual size.
    """
    d, heads = len(token), decoder.stack[0].cross_attn.heads
    main = d - 2 * heads
    flags, evidence = torch.arange(main, main + heads), torch.arange(main + heads, d)
    width = d // heads
    if width < 4:
        raise ValueError(f"init 'matching' needs at least 4 dimensions a head, has {width}")
    sign = 1.0 - 2.0 * (torch.arange(heads) % 2)  # alternating, so that LayerNorm's mean stays near 0

    token.zero_()
    token[flags] = math.sqrt(d / heads) * sign
    nn.init.orthogonal_(project.weight)
    project.weight[main:] = 0
    nn.init.zeros_(project.bias)
    norm.weight[main:] = 0

    for layer in decoder.stack:
        _match(layer, main, sign)
        for attention in (layer.cross_attn, layer.self_attn):
            attention.out_proj.weight *= QUIET
            attention.out_proj.weight[evidence, :] = 0
            attention.out_proj.weight[evidence, torch.arange(heads) * width + width - 2] = 1.0
        layer.linear2.weight *= QUIET
    nn.init.zeros_(head.weight)
    head.weight[0, evidence] = -1.0
    nn.init.zeros_(head.bias)


def _match(layer: PairLayer, main: int, sign: Tensor) -> None:
    """Write the matcher into the projections of a layer, whose first ``main`` dimensions are compared."""
    cross, heads = layer.cross_attn, layer.cross_attn.heads
    d = main + 2 * heads
    width, per_head = d // heads, d // heads - 2
    # A pair of cosine c scores SHARPNESS^2 * (d / heads) * c / sqrt(width) in a head.
    token_key = SHARPNESS * math.sqrt(d / heads)
    token_query = SHARPNESS**2 * THRESHOLD * (d / heads) / token_key
    shared, rotation = torch.zeros(d, d), nn.init.orthogonal_(torch.empty(main, main))
    for h in range(heads):
        shared[h * width : h * width + per_head, :main] = rotation[h * per_head : (h + 1) * per_head]
    flag_rows, flags = torch.arange(heads) * width + per_head, torch.arange(main, main + heads)
    cross.in_proj_weight[:d] = SHARPNESS * shared
    cross.in_proj_weight[d : 2 * d] = SHARPNESS * shared
    cross.in_proj_weight[d + flag_rows, flags] = SHARPNESS * sign
    cross.in_proj_bias[flag_rows] = token_query
    sources = (cross, flags, sign), (layer.self_attn, flags + heads, torch.ones(heads))
    for attention, source, factor in sources:
        value = attention.in_proj_weight[2 * d :]
        value[flag_rows] = 0
        value[flag_rows, source] = factor
