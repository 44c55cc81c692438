"""List-wise scoring: each list is read as a whole, in the order given."""

import numpy as np
import pytest
import torch

from ames.errors import AmesError, NotFiniteError
from ames.features import LocalFeatures
from ames.reranking.list_scorer import ListScorer
from ames.reranking.scorer import ComputeConfig
from helpers.listwise import ToyList


def features(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return LocalFeatures.from_descriptors(torch.randn(*shape, generator=generator))


@pytest.fixture
def lists():
    """The model, queries [2, 5, 8] and lists [2, 4, 3, 8]."""
    return ToyList(window=4, price=0.01), features(2, 5, 8), features(2, 4, 3, 8, seed=1)


def test_scores_are_the_model_s(lists):
    model, queries, candidates = lists
    stored = model.expand(model.compress(candidates))
    with torch.inference_mode():
        expected = model.score_tokens(model.tokens(queries), stored).numpy()
    scores = ListScorer(model).score(queries, candidates)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    turned = ListScorer(model).score(queries, candidates.map(lambda x: x.flip(1)))
    assert not np.allclose(turned[:, ::-1], scores, atol=1e-3)  # the order counts


def test_codes_score_as_the_descriptors_that_they_came_from(lists):
    model, queries, candidates = lists
    scorer = ListScorer(model)
    codes = model.compress(candidates)
    np.testing.assert_array_equal(scorer.score(queries, codes), scorer.score(queries, candidates))


def test_a_batch_of_lists_is_what_each_is_alone(lists):
    model, queries, candidates = lists
    scorer = ListScorer(model)
    alone = [scorer.score(queries[i : i + 1], candidates[i : i + 1])[0] for i in range(2)]
    np.testing.assert_allclose(scorer.score(queries, candidates), alone, atol=1e-6)


def test_what_is_refused(lists):
    model, queries, candidates = lists
    scorer = ListScorer(model)
    with pytest.raises(AmesError, match="a list of 5 is longer than the model's 4"):
        scorer.score(queries, features(2, 5, 3, 8))
    with pytest.raises(AmesError, match=r"queries and lists are \[5, 8\] and \[2, 4, 3, 8\]"):
        scorer.score(queries[0], candidates)
    with pytest.raises(AmesError, match="descriptors are 7-d, this model takes 8-d"):
        scorer.score(queries, features(2, 4, 3, 7))
    broken = candidates.map(torch.clone)
    broken.descriptors[1, 2, 0, 0] = torch.nan
    with pytest.raises(NotFiniteError) as caught:
        scorer.score(queries, broken)
    assert caught.value.image == 2 + 4 + 2


def test_int8_is_refused(monkeypatch):
    monkeypatch.setattr("ames.reranking.scorer.usable", lambda *_, **__: True)
    with pytest.raises(AmesError, match="int8 is for pair-wise models: give bf16 or fp16"):
        ListScorer(ToyList(window=4), ComputeConfig(precision="int8"))
