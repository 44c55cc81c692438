"""Chamfer similarity against a twin in loops."""

import math

import pytest
import torch

from ames.features import LocalFeatures
from ames.models.chamfer import Chamfer

N, M, D = 5, 4, 6


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def naive(query, database, symmetric):
    """query, database: lists of real descriptors."""
    if not query or not database:
        return -1.0
    forward = sum(max(cosine(q, d) for d in database) for q in query) / len(query)
    if not symmetric:
        return forward
    return (forward + sum(max(cosine(d, q) for q in query) for d in database) / len(database)) / 2


def made(seed):
    """Six pairs with gaps in their masks, also in the middle and at the start."""
    generator = torch.Generator().manual_seed(seed)
    sides = []
    for slots in (N, M):
        valid = torch.rand(6, slots, generator=generator) < 0.6
        valid[0] = True
        valid[1] = torch.arange(slots) == slots - 1
        sides.append(LocalFeatures.from_descriptors(torch.randn(6, slots, D, generator=generator), valid))
    return sides


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_loops(symmetric, seed):
    query, database = made(seed)
    found = Chamfer(symmetric=symmetric).pairs(query, database)
    for i in range(6):
        real = [side.descriptors[i][side.valid[i]].tolist() for side in (query, database)]
        assert found[i].item() == pytest.approx(naive(*real, symmetric), abs=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_padding_does_not_matter(symmetric):
    query, database = made(0)
    model = Chamfer(symmetric=symmetric)
    padded = model.pairs(query.pad(9), database.pad(11))
    torch.testing.assert_close(padded, model.pairs(query, database))


@pytest.mark.parametrize("symmetric", [False, True])
def test_only_the_symmetric_one_is_the_same_both_ways(symmetric):
    query, database = made(0)
    model = Chamfer(symmetric=symmetric)
    both_ways = model.pairs(query, database), model.pairs(database, query)
    assert torch.allclose(*both_ways) == symmetric


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("slots", [0, 3])
def test_an_image_without_descriptors_is_like_nothing(symmetric, slots):
    full = LocalFeatures.from_descriptors(torch.randn(2, N, D))
    empty = LocalFeatures.from_descriptors(torch.randn(2, slots, D), torch.zeros(2, slots, dtype=torch.bool))
    for query, database in ((empty, full), (full, empty), (empty, empty)):
        assert Chamfer(symmetric=symmetric).pairs(query, database).tolist() == [-1, -1]


def test_an_image_is_most_like_itself():
    image = LocalFeatures.from_descriptors(torch.randn(3, N, D))
    torch.testing.assert_close(Chamfer().pairs(image, image), torch.ones(3))


def test_score_is_pairs_in_a_loop():
    query, candidates = made(0)
    model = Chamfer()
    scores = model.score(query[:2], candidates.reshape(2, 3))
    expected = model.pairs(query[[0, 0, 0, 1, 1, 1]], candidates).view(2, 3)
    torch.testing.assert_close(scores, expected)


def test_stored_codes_score_as_descriptors():
    query, database = made(0)
    model = Chamfer(local_dim=D)
    codes = model.compress(database)
    assert codes.descriptors[0].nbytes == M * model.code_bytes
    found = model.pairs_tokens(model.tokens(query), model.expand(codes))
    assert torch.equal(found, model.pairs(query, database))
