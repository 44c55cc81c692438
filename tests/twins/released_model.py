"""A twin of AMES that computes as the released code does: dense masks and ``nn.MultiheadAttention``.

Every token may read every other one as far as two [S, S] masks allow, both images are projected for every
pair, and all tokens pass through all layers. For tests and for benchmarks, where it is the other side.
"""

import torch
import torch.nn.functional as F
from torch import nn


class DenseLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward over [match token; query; database]."""

    def __init__(self, layer):
        super().__init__()
        dim, heads = layer.norm1.normalized_shape[0], layer.self_attn.heads
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.self_attn.load_state_dict(layer.self_attn.state_dict())
        self.cross_attn.load_state_dict(layer.cross_attn.state_dict())
        self.linear1, self.linear2 = layer.linear1, layer.linear2
        self.norm1, self.norm2, self.norm3 = layer.norm1, layer.norm2, layer.norm3
        self.activation = {"relu": F.relu, "gelu": F.gelu}[layer.activation_name]
        self.pre_norm = layer.pre_norm

    def forward(self, x, forbidden_within, forbidden_across, padding):
        def within(y):
            return self.self_attn(y, y, y, attn_mask=forbidden_within, key_padding_mask=padding)[0]

        def across(y):
            return self.cross_attn(y, y, y, attn_mask=forbidden_across, key_padding_mask=padding)[0]

        def feed_forward(y):
            return self.linear2(self.activation(self.linear1(y)))

        for norm, block in ((self.norm1, within), (self.norm2, across), (self.norm3, feed_forward)):
            x = x + block(norm(x)) if self.pre_norm else norm(x + block(x))
        return x


class ReleasedAMES(nn.Module):
    """The published ``forward`` with the weights of an ``ames.models.ames.AMES``."""

    def __init__(self, model):
        super().__init__()
        self.mtc_token, self.remap_local = model.mtc_token, model.remap_local
        self.layers = nn.ModuleList(DenseLayer(layer) for layer in model.decoder.stack)
        self.norm, self.classifier = model.decoder.norm, model.classifier
        self.binarized = model.binarized

    def forward(self, src_local, src_mask, tgt_local, tgt_mask, return_logits=False):
        """src_local [B, N, D], tgt_local [B, M, D], masks bool [B, N], [B, M], True = padding -> logits [B];
        with ``return_logits`` also the final tokens [B, 1 + N + M, d].
        """
        query = self.remap_local(F.normalize(src_local, dim=-1))
        database = self.remap_local(F.normalize(tgt_local, dim=-1))
        if not (self.training or self.binarized):
            database = database.half().float()
        B, N, M = len(query), query.shape[1], database.shape[1]
        image = torch.tensor([0] + [1] * N + [2] * M, device=query.device)
        same = image[:, None] == image
        token = (image[:, None] == 0) | (image == 0)
        padding = torch.cat((src_mask.new_zeros(B, 1), src_mask, tgt_mask), 1)
        x = torch.cat((self.mtc_token.expand(B, 1, -1), query, database), 1)
        for layer in self.layers:
            x = layer(x, ~(same | token), same & ~token, padding)
        x = x if self.norm is None else self.norm(x)
        logits = self.classifier(x[:, 0]).squeeze(-1)
        return (logits, x) if return_logits else logits
