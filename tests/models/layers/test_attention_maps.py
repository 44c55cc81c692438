"""Attention maps: the probabilities are those of the layers, and links are made of them as is said."""

import pytest
import torch
from torch import nn

from ames.models.layers.attention import PairDecoder
from ames.models.layers.attention_maps import PairMaps, decoder_maps, encoder_maps, probabilities, read_links
from ames.models.layers.encoder import Encoder

P, N, M, DIM, HEADS = 2, 4, 3, 8, 2
S = N + 1 + M


def tokens(size):
    return torch.randn(P, size, DIM, generator=torch.Generator().manual_seed(3))


def mask():
    """Padding in both images of the first pair."""
    seen = torch.ones(P, 1, 1, S, dtype=torch.bool)
    seen[0, ..., [1, S - 1]] = False
    return seen


def decoder(pre_norm=False, layers=2):
    torch.manual_seed(0)
    made = PairDecoder(layers, DIM, HEADS, 16, "relu", pre_norm).eval()
    for x in made.parameters():
        nn.init.normal_(x, std=0.5)
    return made


def of_torch(attention, x, forbidden, padding):
    """Mean over heads of the weights of torch's own attention, whose parameters have the same names."""
    other = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    other.load_state_dict(attention.state_dict())
    return other(x, x, x, key_padding_mask=padding, attn_mask=forbidden)[1]


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("seen", [None, mask()])
@torch.inference_mode()
def test_the_output_rebuilt_from_probabilities_is_the_layers(cross, seen):
    attention, x = decoder().stack[0].cross_attn, tokens(S)
    query, key, value = attention.project(x)
    parts = []
    own, other = (slice(0, N + 1), slice(N, S))
    for rows, keys in (
        (slice(0, N), other if cross else own),
        (slice(N, N + 1), slice(0, S)),
        (slice(N + 1, S), own if cross else other),
    ):
        part = None if seen is None else seen[..., keys]
        weights = probabilities(query[:, :, rows], key[:, :, keys], part)
        torch.testing.assert_close(weights.sum(-1), torch.ones(P, HEADS, weights.shape[2]))
        parts.append(weights @ value[:, :, keys])
    torch.testing.assert_close(attention.merge(*parts), attention(x, N, seen, cross=cross))


@pytest.mark.parametrize("pre_norm", [False, True])
@torch.inference_mode()
def test_maps_of_a_decoder_are_torchs(pre_norm):
    model, x, padding = decoder(pre_norm), tokens(S), ~mask()[:, 0, 0]
    image = torch.tensor([0] * N + [2] + [1] * M)  # 2: the match token
    same, token = image[:, None] == image[None], (image[:, None] == 2) | (image[None] == 2)
    for layer, found in zip(model.stack, decoder_maps(model, x, N, mask()), strict=True):
        before = layer.norm1(x) if pre_norm else x
        within = of_torch(layer.self_attn, before, ~(same | token), padding)
        x = layer.within_pair(x, N, mask())
        before = layer.norm2(x) if pre_norm else x
        across = of_torch(layer.cross_attn, before, same & ~token, padding)
        x = layer.across(x, N, mask())
        torch.testing.assert_close(found.across, across[:, :N, N + 1 :])
        torch.testing.assert_close(found.back, across[:, N + 1 :, :N])
        torch.testing.assert_close(found.query, (within + across)[:, N, :N])
        torch.testing.assert_close(found.database, (within + across)[:, N, N + 1 :])


@pytest.mark.parametrize("pre_norm", [False, True])
@torch.inference_mode()
def test_maps_of_an_encoder_are_torchs(pre_norm):
    torch.manual_seed(1)
    model, x = Encoder(2, DIM, HEADS, 16, "relu", pre_norm).eval(), tokens(S + 1)
    seen = torch.ones(P, 1, 1, S + 1, dtype=torch.bool)
    seen[0, ..., 2] = False
    query, database = slice(1, N + 1), slice(N + 2, None)
    for layer, found in zip(model.stack, encoder_maps(model, x, query, database, seen), strict=True):
        before = layer.norm1(x) if pre_norm else x
        weights = of_torch(layer.self_attn, before, None, ~seen[:, 0, 0])
        x = layer(x, seen)
        torch.testing.assert_close(found.across, weights[:, query, database])
        torch.testing.assert_close(found.back, weights[:, database, query])
        torch.testing.assert_close(found.query, weights[:, 0, query])
        torch.testing.assert_close(found.database, weights[:, 0, database])


def test_links_are_attended_both_ways_and_read_later():
    torch.manual_seed(2)
    maps = [PairMaps(*(torch.rand(P, *x) for x in ((N, M), (M, N), (N,), (M,)))) for _ in range(3)]
    links = read_links(maps)
    for p in range(P):
        for i in range(N):
            for j in range(M):
                expected = 0.0
                for number, one in enumerate(maps):
                    later = maps[number + 1 :]
                    by_way_of_i = sum(x.query[p, i] for x in later) * one.across[p, i, j]
                    by_way_of_j = sum(x.database[p, j] for x in later) * one.back[p, j, i]
                    expected += float(by_way_of_i * by_way_of_j) ** 0.5
                assert links[p, i, j].item() == pytest.approx(expected, rel=1e-5)
    assert not read_links(maps[:1]).any()  # nobody reads what the descriptors of a single layer become
