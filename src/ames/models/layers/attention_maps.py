"""What attention reads from where, to explain a pair.

The fast paths of ``ames.models.layers.attention`` give no probabilities. They are computed here beside them,
from the same projections.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ames.models.layers.attention import PairDecoder
from ames.models.layers.encoder import Encoder


class PairMaps(NamedTuple):
    """Attention between two images in one layer, and what reads them, float32, means over heads.

    across: [P, N, M], of query descriptors to database descriptors. back: [P, M, N], of these to those.
    query, database: [P, N] and [P, M], how much the token that gives the score reads each descriptor; the sum
    over the layer's attentions.
    """

    across: Tensor
    back: Tensor
    query: Tensor
    database: Tensor


def probabilities(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """Return what ``ames.models.layers.attention.attend`` weighs values with, float32 [B, h, n, m].

    query [B, h, n, e], key [B, h, m, e]; mask: bool [B, 1, 1, m], True = may be attended, or None.
    """
    scores = (query.float() * query.shape[-1] ** -0.5) @ key.float().mT
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return torch.softmax(scores, -1)


def decoder_maps(decoder: PairDecoder, x: Tensor, n: int, mask: Tensor | None) -> list[PairMaps]:
    """Return the maps of each layer; x: [P, N + 1 + M, d] with ``n`` = N, mask: as of ``PairDecoder``."""
    found = []
    for layer in decoder.stack:
        query, key, _ = layer.self_attn.project(layer.norm1(x) if layer.pre_norm else x)
        read = probabilities(query[:, :, n : n + 1], key, mask)
        x = layer.within_pair(x, n, mask)
        query, key, _ = layer.cross_attn.project(layer.norm2(x) if layer.pre_norm else x)
        # The match token is among the keys of both, and takes what has no partner.
        across = probabilities(query[:, :, :n], key[:, :, n:], _part(mask, slice(n, None)))[..., 1:]
        back = probabilities(query[:, :, n + 1 :], key[:, :, : n + 1], _part(mask, slice(n + 1)))[..., :n]
        read = (read + probabilities(query[:, :, n : n + 1], key, mask)).mean(1)[:, 0]
        found.append(PairMaps(across.mean(1), back.mean(1), read[:, :n], read[:, n + 1 :]))
        x = layer.across(x, n, mask)
    return found


def encoder_maps(
    encoder: Encoder, x: Tensor, query: slice, database: slice, mask: Tensor | None
) -> list[PairMaps]:
    """Return the maps of each layer of one sequence x [P, S, d], whose first token gives the score.

    query, database: the places of either image's descriptors. mask: bool [P, 1, 1, S] or None.
    """
    found = []
    for layer in encoder.stack:
        queries, keys, _ = layer.self_attn.project(layer.norm1(x) if layer.pre_norm else x)
        all_pairs = probabilities(queries, keys, mask).mean(1)
        across, back = all_pairs[:, query, database], all_pairs[:, database, query]
        found.append(PairMaps(across, back, all_pairs[:, 0, query], all_pairs[:, 0, database]))
        x = layer(x, mask)
    return found


def read_links(maps: list[PairMaps]) -> Tensor:
    """Return the ties float32 [P, N, M] of descriptors that attend to each other and are read later.

    The sum over layers l of sqrt(r_i across_ij * r_j back_ji), where r is what the score's token reads of a
    descriptor in all layers after l. r_i across_ij is what it reads of j by way of i; the geometric mean asks
    for both ways. The last layer ties nothing: nobody reads what its descriptors become.
    """
    query, database = torch.zeros_like(maps[0].query), torch.zeros_like(maps[0].database)
    links = torch.zeros_like(maps[0].across)
    for layer in reversed(maps):
        ways = query.unsqueeze(2) * layer.across, database.unsqueeze(1) * layer.back.mT
        links += (ways[0] * ways[1]).sqrt()
        query, database = query + layer.query, database + layer.database
    return links


def _part(mask: Tensor | None, keys: slice) -> Tensor | None:
    return None if mask is None else mask[..., keys]
