"""A twin of RRT that computes as the released code does: ``nn.MultiheadAttention`` with its weights returned.

All tokens pass through all layers, and padding is a key mask even where there is none. For tests and for
benchmarks, where it is the other side. It takes tokens, as the library makes them of one image.
"""

import torch
import torch.nn.functional as F
from torch import nn


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward over [S, B, d]."""

    def __init__(self, layer):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(layer.norm1.normalized_shape[0], layer.self_attn.heads)
        self.self_attn.load_state_dict(layer.self_attn.state_dict())
        self.linear1, self.linear2 = layer.linear1, layer.linear2
        self.norm1, self.norm2 = layer.norm1, layer.norm2
        self.activation = {"relu": F.relu, "gelu": F.gelu}[layer.activation_name]
        self.pre_norm = layer.pre_norm

    def forward(self, x, padding):
        def attention(y):
            return self.self_attn(y, y, y, key_padding_mask=padding)[0]

        def feed_forward(y):
            return self.linear2(self.activation(self.linear1(y)))

        for norm, block in ((self.norm1, attention), (self.norm2, feed_forward)):
            x = x + block(norm(x)) if self.pre_norm else norm(x + block(x))
        return x


class ReleasedRRT(nn.Module):
    """Logits of pairs with the weights of an ``ames.models.rrt.RRT``."""

    def __init__(self, model):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(layer) for layer in model.encoder.stack)
        self.norm, self.classifier, self.segments = model.encoder.norm, model.classifier, model.seg_encoder
        self.landmarks = model.variant == "gld"

    def forward(self, query, database):
        """Features of tokens [B, N, d] and [B, M, d] -> logits [B]."""
        B = len(query.valid)
        rows = (2, 3) if self.landmarks else (0, 1)
        cls, sep = (self.segments.weight[row].expand(B, 1, -1) for row in rows)
        places = ((4, 0), (5, 1)) if self.landmarks else ((None, 2), (None, 3))
        parts, masks = [], []
        for first, side, (whole, local) in zip((cls, sep), (query, database), places, strict=True):
            rows = [local] * side.size if whole is None else [whole, *[local] * (side.size - 1)]
            segments = self.segments(torch.tensor(rows, device=side.valid.device))
            parts += [first, side.descriptors + segments]
            masks.append(F.pad(~side.valid, (1, 0)))
        x, padding = torch.cat(parts, 1).transpose(0, 1), torch.cat(masks, 1)
        for layer in self.layers:
            x = layer(x, padding)
        x = x if self.norm is None else self.norm(x)
        return self.classifier(x[0]).squeeze(-1)
