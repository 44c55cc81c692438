"""Mutual nearest neighbours against a twin in loops, and by hand."""

import pytest
import torch

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.chamfer import Chamfer
from ames.models.load import load
from ames.models.mutual_nearest import MutualNearest

D = 6


def naive(query, database, share, least):
    """query, database: lists of real descriptors."""
    if not query or not database:
        return 0.0

    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / sum(x * x for x in a) ** 0.5 / sum(y * y for y in b) ** 0.5

    count = 0
    for q in query:
        d = max(database, key=lambda d, q=q: cosine(q, d))
        mutual = max(query, key=lambda other, d=d: cosine(other, d)) is q
        count += mutual and (least is None or cosine(q, d) >= least)
    return count / (len(query) if share == "query" else min(len(query), len(database)))


def made(seed, pairs=5):
    """Pairs with gaps in their masks."""
    generator = torch.Generator().manual_seed(seed)
    sides = []
    for slots in (8, 6):
        valid = torch.rand(pairs, slots, generator=generator) < 0.7
        valid[0] = True
        valid[1] = torch.arange(slots) == slots - 1
        valid[2] = False
        sides.append(LocalFeatures.from_descriptors(torch.randn(pairs, slots, D, generator=generator), valid))
    return sides


@pytest.mark.parametrize("share", ["query", "smaller"])
@pytest.mark.parametrize("least", [None, 0.3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_loops(share, least, seed):
    query, database = made(seed)
    model = MutualNearest(share=share, least_cosine=least)
    scores = model.pairs(query, database)
    links = model.links(model.tokens(query), model.tokens(database))
    for i in range(5):
        real = [side.descriptors[i][side.valid[i]].tolist() for side in (query, database)]
        assert scores[i].item() == pytest.approx(naive(*real, share, least))
        of = len(real[0]) if share == "query" else min(map(len, real))
        assert links[i].sum() == round(scores[i].item() * of)


def test_by_hand():
    query = LocalFeatures.from_descriptors(torch.tensor([[[1.0, 0], [0.9, 0.5], [0, 1], [-1, -1]]]))
    database = LocalFeatures.from_descriptors(torch.tensor([[[1.0, 0.1], [0, 2]]]))
    # The first and the third choose each other's; the second prefers the first, which is taken.
    assert MutualNearest().pairs(query, database).tolist() == [0.5]
    assert MutualNearest(share="smaller").pairs(query, database).tolist() == [1.0]
    assert MutualNearest(least_cosine=0.999).pairs(query, database).tolist() == [0.25]


def test_the_smaller_share_is_symmetric_and_a_single_descriptor_is_its_trap():
    query, database = made(3)
    model = MutualNearest(share="smaller", least_cosine=None)
    torch.testing.assert_close(model.pairs(query, database), model.pairs(database, query))
    one = LocalFeatures.from_descriptors(torch.randn(1, 1, D))
    assert model.pairs(query[[0]], one).item() == 1
    assert MutualNearest(least_cosine=None).pairs(query[[0]], one).item() == 1 / 8


def test_equal_descriptors_are_one_pair():
    same = LocalFeatures.from_descriptors(torch.ones(1, 5, D))
    assert MutualNearest().pairs(same, same).item() == pytest.approx(0.2)


def test_codes_are_halves_also_of_any_width():
    query, database = made(4)
    model = MutualNearest()
    codes = model.compress(database)
    assert codes.descriptors.dtype == torch.float16
    torch.testing.assert_close(
        model.pairs_tokens(model.tokens(query), model.expand(codes)), model.pairs(query, database)
    )
    with pytest.raises(AmesError, match="codes are"):
        MutualNearest(local_dim=D + 1).expand(codes)


def test_an_unknown_share_is_refused():
    with pytest.raises(AmesError, match="share 'both' is none of query, smaller"):
        MutualNearest(share="both")


def test_names():
    model = load("chamfer_symmetric").model
    assert isinstance(model, Chamfer)
    query, database = made(5)
    torch.testing.assert_close(model.pairs(query, database), model.pairs(database, query))
    assert isinstance(load("mutual_nearest").model, MutualNearest)
