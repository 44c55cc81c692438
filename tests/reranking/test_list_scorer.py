"""List-wise scoring: each list is read as a whole, once, in the order given."""

import numpy as np
import pytest
import torch

from ames.errors import AmesError, NotFiniteError
from ames.features import LocalFeatures
from ames.reranking.fusion import Fusion
from ames.reranking.list_scorer import ListScorer
from ames.reranking.scorer import ComputeConfig
from ames.reranking.windows import Windows
from helpers.listwise import ToyList


def features(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return LocalFeatures.from_descriptors(torch.randn(*shape, generator=generator))


@pytest.fixture
def opened():
    """The model, a query, six candidates, and both opened by its scorer."""
    model, query, candidates = ToyList(window=4, price=0.01), features(5, 8), features(6, 3, 8, seed=1)
    return model, query, candidates, ListScorer(model).open(query, candidates)


def test_scores_are_the_model_s(opened):
    model, query, candidates, lists = opened
    places = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [5, 4, 0, 1]])
    stored = model.expand(model.compress(candidates))
    for row, logits in zip(places, lists.score(places), strict=True):
        tokens = model.tokens(query).map(lambda x: x[None])
        expected = model.score_tokens(tokens, stored[torch.from_numpy(row)].map(lambda x: x[None]))
        np.testing.assert_allclose(logits, expected[0].detach().numpy(), atol=1e-6)
    assert not np.allclose(lists.score(places[:1]), lists.score(places[1:2])[:, ::-1])  # the order counts


def test_codes_score_as_the_descriptors_that_they_came_from(opened):
    model, query, candidates, lists = opened
    places = np.array([[0, 2, 4]])
    coded = ListScorer(model).open(query, model.compress(candidates))
    np.testing.assert_array_equal(coded.score(places), lists.score(places))


def test_a_batch_of_lists_is_what_each_is_alone(opened):
    model, query, candidates, lists = opened
    places = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [5, 4, 0, 1]])
    batched = ListScorer(model, ComputeConfig(batch_size=2)).open(query, candidates)
    np.testing.assert_allclose(batched.score(places), lists.score(places), atol=1e-6)


def test_a_list_is_scored_once(opened, monkeypatch):
    model, _, _, lists = opened
    calls = []
    score = model.score_tokens
    monkeypatch.setattr(model, "score_tokens", lambda *x: calls.append(1) or score(*x))
    first = lists.score(np.array([[0, 1, 2]]))
    np.testing.assert_array_equal(lists.score(np.array([[0, 1, 2], [0, 1, 2]])), np.concatenate([first] * 2))
    assert len(calls) == 1
    lists.score(np.array([[0, 2, 1]]))
    assert len(calls) == 2


def test_ranking_passes_windows(opened):
    _, _, _, lists = opened
    similarities = np.linspace(1, 0, 6, dtype=np.float32)
    order = lists.rank(similarities, Fusion(0.0, 1.0), Windows(stride=2))
    assert sorted(order) == list(range(6))
    # The same by hand: the last four, then the first four of what that left.
    expected = np.arange(6)
    for start in (2, 0):
        part = expected[start : start + 4]
        expected[start : start + 4] = part[np.argsort(-lists.score(part[None])[0], kind="stable")]
    assert order.tolist() == expected.tolist()
    assert set(map(len, lists.known)) == {4}


def test_what_is_refused(opened):
    model, query, candidates, lists = opened
    with pytest.raises(AmesError, match="a list of 5 is longer than the model's 4"):
        lists.score(np.array([[0, 1, 2, 3, 4]]))
    scorer = ListScorer(model)
    with pytest.raises(AmesError, match=r"query and candidates are \[1, 5, 8\] and \[6, 3, 8\]"):
        scorer.open(query.map(lambda x: x[None]), candidates)
    with pytest.raises(AmesError, match="descriptors are 7-d, this model takes 8-d"):
        scorer.open(features(5, 7), candidates)
    broken = candidates.map(torch.clone)
    broken.descriptors[2, 0, 0] = torch.nan
    with pytest.raises(NotFiniteError) as caught:
        scorer.open(query, broken)
    assert caught.value.image == 3
