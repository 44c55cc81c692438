"""LOCORE, computed densely, with the weights of an ``ames.models.locore.Locore``.

The whole sequence, filled up to whole attention windows with ``pad_embedding``, passes through all layers.
Every token meets every other one under a mask; global rows are computed beside these, with projections of
their own, and take their place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class DenseLayer(nn.Module):
    """One layer of the encoder, with explicit probabilities."""

    def __init__(self, layer):
        super().__init__()
        self.own, self.joined = layer.attention["self"], layer.attention["output"]
        self.first, self.output = layer.intermediate["dense"], layer.output

    def forward(self, x, seen, real, is_global):
        own, heads = self.own, self.own.heads

        def split(y):
            return y.view(*y.shape[:2], heads, -1).transpose(1, 2)

        def attend(query, key, value, mask):
            scores = split(query) @ split(key).mT / (x.shape[-1] // heads) ** 0.5
            return scores.masked_fill(~mask, float("-inf")).softmax(-1) @ split(value)

        local = attend(own.query(x), own.key(x), own.value(x), seen & real[:, None, None])
        distant = own.query_global(x)[:, is_global]
        local[:, :, is_global] = attend(distant, own.key_global(x), own.value_global(x), real[:, None, None])
        read = local.transpose(1, 2).flatten(2) * real[..., None]
        x = self.joined.LayerNorm(self.joined.dense(read) + x)
        return self.output.LayerNorm(self.output.dense(F.gelu(self.first(x))) + x)


class ReleasedLocore(nn.Module):
    """Logits of both classes of all tokens of all candidates."""

    def __init__(self, model):
        super().__init__()
        longformer = model.longformer
        self.embeddings, self.classifier = longformer.embeddings, model.language_model["classifier"]
        self.sep, self.fill = longformer.sep_embedding, longformer.pad_embedding
        self.layers = nn.ModuleList(DenseLayer(layer) for layer in longformer.layers)
        self.reach = model.reach

    def forward(self, query, candidates):
        """query [B, T, h] and candidates [B, K, T, h] with ``valid``, all T tokens of every image ->
        [B, K, T + 1, 2].
        """
        B, K, T, _ = candidates.descriptors.shape
        images = torch.cat((query.descriptors[:, None], candidates.descriptors), 1)
        x = torch.cat((images, self.sep.expand(B, K + 1, 1, -1)), 2).flatten(1, 2)
        real = F.pad(torch.cat((query.valid[:, None], candidates.valid), 1), (0, 1), value=True).flatten(1)
        S = x.shape[1]
        missing = -S % (2 * self.reach)
        x = torch.cat((x, self.fill.expand(B, missing, -1)), 1)
        real = F.pad(real, (0, missing))
        place = torch.arange(S + missing)
        is_global = (place < S) & ((place <= T) | (place % (T + 1) == T))
        seen = ((place[:, None] - place).abs() <= self.reach) | is_global
        table = self.embeddings.position_embeddings.weight[2 : 2 + S + missing]
        x = self.embeddings.LayerNorm(x + table + self.embeddings.token_type_embeddings.weight[0])
        for layer in self.layers:
            x = layer(x, seen, real, is_global)
        return self.classifier(x[:, :S]).view(B, K + 1, T + 1, 2)[:, 1:]
