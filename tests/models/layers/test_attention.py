"""Attention over two images: against a dense twin, one mask over [match token; query; database]."""

import pytest
import torch
from torch import nn

from ames.models.layers.attention import PairAttention, PairDecoder, attend
from twins.released_model import DenseLayer

B, N, M, D, HEADS = 3, 5, 4, 16, 2


def dense_mask(n, m, cross):
    """bool [S, S], True = this row may read this column; order match token, query, database."""
    image = torch.tensor([0] + [1] * n + [2] * m)
    same = image[:, None] == image[None]
    token = image == 0
    return (~same if cross else same) | token[:, None] | token[None]


def dense_attention(attention, x, n, valid, cross):
    """The twin: x [B, 1 + N + M, D] and valid [B, 1 + N + M], both in the order of ``dense_mask``."""
    twin = nn.MultiheadAttention(x.shape[-1], attention.heads, batch_first=True)
    twin.load_state_dict(attention.state_dict())
    forbidden = ~dense_mask(n, x.shape[1] - 1 - n, cross)
    return twin(x, x, x, attn_mask=forbidden, key_padding_mask=~valid, need_weights=False)[0]


def dense_decoder(decoder, x, n, valid):
    m = x.shape[1] - 1 - n
    for layer in decoder.stack:
        x = DenseLayer(layer)(x, ~dense_mask(n, m, False), ~dense_mask(n, m, True), ~valid)
    return decoder.norm(x) if decoder.norm is not None else x


def token_first(x, n):
    """[query; match token; database] -> [match token; query; database], along axis 1."""
    return torch.cat((x[:, n : n + 1], x[:, :n], x[:, n + 1 :]), dim=1)


def sequence(padded, seed=0):
    """x [B, N + 1 + M, D] and valid [B, N + 1 + M]; one image keeps nothing but the match token."""
    torch.manual_seed(seed)
    x = torch.randn(B, N + 1 + M, D)
    valid = torch.ones(B, N + 1 + M, dtype=torch.bool)
    if padded:
        valid[0, 3:N] = False
        valid[1, N + 2 :] = False
        valid[2, :N] = False
    return x, valid


def randomized(module):
    """Biases and norms away from 0 and 1, where a mistake would not show."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_attention_equals_its_dense_twin(cross, padded):
    x, valid = sequence(padded)
    attention = randomized(PairAttention(D, HEADS))
    mask = valid[:, None, None] if padded else None
    found = token_first(attention(x, N, mask, cross=cross), N)
    expected = dense_attention(attention, token_first(x, N), N, token_first(valid, N), cross)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("pre_norm", "activation"), [(False, "relu"), (True, "gelu")])
def test_decoder_equals_its_dense_twin(pre_norm, activation, padded):
    x, valid = sequence(padded, seed=1)
    decoder = randomized(PairDecoder(2, D, HEADS, 32, activation, pre_norm))
    mask = valid[:, None, None] if padded else None
    found = token_first(decoder(x, N, mask), N)
    expected = dense_decoder(decoder, token_first(x, N), N, token_first(valid, N))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("pre_norm", "activation"), [(False, "relu"), (True, "gelu")])
@torch.no_grad()
def test_the_match_token_alone_is_that_of_the_whole(pre_norm, activation, padded, layers):
    """Work once an image, and none that the match token does not need: the same final match token."""
    x, valid = sequence(padded, seed=2)
    decoder = randomized(PairDecoder(layers, D, HEADS, 32, activation, pre_norm))
    token = x[0, N].clone()
    x[:, N] = token
    mask = valid[:, None, None] if padded else None
    expected = decoder(x, N, mask)[:, N]
    query, of_query = decoder.encode(x[:, :N], token, valid[:, :N])
    database, of_database = decoder.encode(x[:, N + 1 :], token, valid[:, N + 1 :])
    found = decoder.match(query, database, (of_query, of_database), token, mask)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("keys", [3, 300])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_is_the_same_by_either_way(keys, padded):
    """With gradients by torch's fused call, without by three products where they are small."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, HEADS, n, 8) for n in (300, keys, keys))
    mask = torch.arange(keys).lt(keys - 1).expand(2, 1, 1, keys) if padded else None
    expected = attend(query, key, value, mask)
    with torch.inference_mode():
        torch.testing.assert_close(attend(query, key, value, mask), expected, atol=1e-5, rtol=1e-5)


def test_self_and_cross_attention_read_different_images():
    x, _ = sequence(False)
    attention = PairAttention(D, HEADS)
    changed = x.clone()
    changed[:, N + 1 :] += 1  # the database image
    for cross in (False, True):
        moved = attention(changed, N, None, cross=cross) - attention(x, N, None, cross=cross)
        assert (moved[:, :N].abs().max() > 1e-3) == cross  # the query descriptors


@pytest.mark.parametrize("pre_norm", [False, True])
def test_only_pre_norm_has_a_closing_norm(pre_norm):
    names = set(PairDecoder(1, D, HEADS, 8, "relu", pre_norm).state_dict())
    assert ("norm.weight" in names) == pre_norm


def test_a_dimension_that_the_heads_do_not_divide():
    with pytest.raises(ValueError, match="model_dim 16 is not a multiple of nhead 3"):
        PairAttention(16, 3)
