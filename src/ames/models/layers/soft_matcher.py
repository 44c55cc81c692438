"""Initial weights by which like descriptors of two images find each other, for models of one sequence.

From random weights such attention takes very many steps to learn. In one sequence a descriptor is most like
itself: so tokens of the query carry a mark, those of other images its opposite, and keys turn its sign. The
mark of what a descriptor reads then shows whether it found its like in the other image or only itself. Every
weight stays trainable. (``ames.models.layers.initialization.matching`` is for AMES, whose attention between
images is a layer of its own.)
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from ames.errors import AmesError
from ames.models.layers.banded_attention import BandedAttention
from ames.models.layers.encoder import Encoder
from ames.models.layers.initialization import pca_projection
from ames.models.layers.longformer import FIRST, Longformer

# Scale of queries and keys, length of the mark in a head beside a descriptor of length 1, and dimensions that
# tell the images of a list apart.
SHARPNESS, MARK, CODE = 1.5, 0.3, 16


@torch.no_grad()
def match_pair(encoder: Encoder, segments: nn.Embedding, query: int, database: int) -> None:
    """Start the first two layers of a pair's encoder as a soft matcher.

    query, database: the rows of ``segments`` of either image's local tokens; all others are made small.
    """
    d = segments.embedding_dim
    heads = encoder.stack[0].self_attn.heads
    rotation = nn.init.orthogonal_(torch.empty(d, d))
    marked = _last_rows(d, heads)
    segments.weight *= MARK
    segments.weight[query] = MARK * rotation[marked].sum(0)
    segments.weight[database] = -segments.weight[query]
    for number, layer in enumerate(encoder.stack[:2]):
        # Behind a norm a token has length sqrt(d), before the first one that of a descriptor and its mark.
        raw = number == 0 and not layer.pre_norm
        factor = SHARPNESS * (math.sqrt(d / (1 + heads * MARK**2)) if raw else 1)
        key = rotation.clone()
        key[marked] *= -1
        layer.self_attn.in_proj_weight[: 2 * d] = factor * torch.cat((rotation, key))


@torch.no_grad()
def match_list(longformer: Longformer, project: nn.Linear, slots: int) -> None:
    """Start the first two layers of a list's encoder: a descriptor finds its likes in the query, then each
    token reads those of its own image.

    project: of the descriptors; its last rows are left 0, for the marks and for a code of each image, both in
    the position table. slots: tokens of an image, its separator among them. AmesError for too few dimensions
    or layers.
    """
    if len(longformer.layers) < 2:
        raise AmesError("init 'matching' needs at least 2 layers")
    first, second = (cast(BandedAttention, layer.attention["self"]) for layer in longformer.layers[:2])
    d, heads = len(project.weight), first.heads
    width, main = d // heads, d - heads - CODE
    if width < CODE or main < heads:
        raise AmesError(f"init 'matching' needs at least {CODE} dimensions a head, has {width}")
    for layer in longformer.layers:
        for linear in layer.modules():
            if isinstance(linear, nn.Linear):
                nn.init.xavier_uniform_(linear.weight)
    project.weight[main:] = 0
    project.bias[main:] = 0
    marks, code = torch.arange(main, main + heads), torch.arange(main + heads, d)
    _fill_positions(longformer.embeddings.position_embeddings.weight, marks, code, slots)

    taken = min(width - 1, main // heads)
    rotation, shared = nn.init.orthogonal_(torch.empty(main, main)), torch.zeros(d, d)
    own = torch.zeros(d, d)
    for h in range(heads):
        shared[h * width : h * width + taken, :main] = rotation[h * taken : (h + 1) * taken]
        own[h * width : h * width + CODE, code] = nn.init.orthogonal_(torch.empty(CODE, CODE))
    marked, key = _last_rows(d, heads), shared.clone()
    shared[marked, marks], key[marked, marks] = 1, -1
    for attention, query, keys in ((first, shared, key), (second, own, own)):
        attention.query.weight.copy_(SHARPNESS * query)
        attention.key.weight.copy_(SHARPNESS * keys)


def _fill_positions(table: Tensor, marks: Tensor, code: Tensor, slots: int) -> None:
    """The mark of the query or of the others, and a random code of length 1 of each image."""
    image = torch.arange(len(table) - FIRST) // slots
    codes = nn.functional.normalize(torch.randn(int(image.max()) + 1, len(code)), dim=1)
    table.zero_()
    table[FIRST:, code] = codes[image]
    table[FIRST:, marks] = torch.where(image == 0, MARK, -MARK)[:, None].expand(-1, len(marks))


def _last_rows(d: int, heads: int) -> Tensor:
    """The last output of each head."""
    return torch.arange(1, heads + 1) * (d // heads) - 1


@torch.no_grad()
def fit_unit_projection(project: nn.Linear, descriptors: Tensor) -> None:
    """``pca_projection`` from descriptors [n, D] to tokens of mean length 1; zero rows stay zero."""
    pca_projection(project, descriptors)
    length = project(descriptors).norm(dim=1).mean()
    project.weight.div_(length)
    project.bias.div_(length)
