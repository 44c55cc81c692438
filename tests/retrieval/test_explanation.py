"""Explanations: the score of a collection, contributions by leaving out, links in their order, refusals."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from ames.backbones.base import ImageFeatures
from ames.errors import AmesError
from ames.extraction.extractor import Extractor
from ames.features import LocalFeatures
from ames.models.ames import AMES
from ames.models.chamfer import Chamfer
from ames.models.elvis import ELViS
from ames.models.load import load_model
from ames.models.locore import Locore
from ames.models.rrt import RRT
from ames.reranking.fusion import Fusion
from ames.reranking.reranker import Reranker
from ames.retrieval import explanation
from ames.retrieval.explanation import explain
from helpers import photos

D, N, M = 16, 6, 4
SMALL = {"local_dim": D, "model_dim": 16, "dim_feedforward": 16}
torch.manual_seed(0)
MODELS = [
    AMES(**SMALL, num_encoder_layers=2, init="matching"),
    AMES(**SMALL, num_encoder_layers=2, binarized=True),
    ELViS(local_dim=D, binarized=True),
    RRT(**SMALL, num_layers=2, global_dim=D),
    RRT(**SMALL, num_layers=2, variant="sop"),
    Chamfer(local_dim=D, symmetric=True),
]


def image(count, seed):
    """Features of one image with all that a model may read."""
    generator = torch.Generator().manual_seed(seed)
    local = LocalFeatures.from_descriptors(
        torch.randn(count, D, generator=generator),
        positions=torch.rand(count, 2, generator=generator),
        scale=torch.randint(0, 3, (count,), generator=generator).float(),
    )
    vector = torch.randn(D, generator=generator).numpy()
    return ImageFeatures(local, vector / np.linalg.norm(vector))


def without(features, row):
    kept = [i for i in range(features.local.size) if i != row]
    local = features.local.map(lambda x: x[kept])
    return replace(features, local=local)


QUERY, DATABASE = image(9, 1), image(7, 2)  # more than are used


@pytest.mark.parametrize("model", MODELS, ids=lambda x: type(x).__name__)
def test_score_and_shares_are_those_of_plain_scores(model, monkeypatch):
    monkeypatch.setattr(explanation, "_VARIANT_VALUES", 4 * D * N)  # several parts
    found = explain(QUERY, DATABASE, model, desc_num=(N, M))
    reranker = Reranker(model, desc_num=(N, M))
    score = reranker.score(QUERY, [DATABASE])[0]
    assert found.score == pytest.approx(score, abs=1e-6)
    a, b = (replace(x, local=x.local.trim(n)) for x, n in ((QUERY, N), (DATABASE, M)))
    shares_a = [score - reranker.score(without(a, i), [b])[0] for i in range(N)]
    shares_b = [score - reranker.score(a, [without(b, j)])[0] for j in range(M)]
    np.testing.assert_allclose(found.shares_a, shares_a, atol=1e-5)
    np.testing.assert_allclose(found.shares_b, shares_b, atol=1e-5)
    assert np.abs(found.shares_b).max() > 1e-4
    np.testing.assert_array_equal(found.positions_a, QUERY.local.positions[:N])
    np.testing.assert_array_equal(found.positions_b, DATABASE.local.positions[:M])


@pytest.mark.parametrize("model", MODELS, ids=lambda x: type(x).__name__)
def test_links_are_the_models_strongest_first(model):
    one, other = (x.local.trim(n).map(lambda x: x[None]) for x, n in ((QUERY, N), (DATABASE, M)))
    one, other = (
        replace(side, vector=torch.tensor(x.vector)[None]) for side, x in ((one, QUERY), (other, DATABASE))
    )
    with torch.inference_mode():
        links = model.links(model.tokens(one), model.expand(model.compress(other)))[0].numpy()
    found = explain(QUERY, DATABASE, model, desc_num=(N, M), top=5)
    values = links[tuple(found.links.T)]
    expected = np.sort(links[links > 0])[::-1][:5]
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    np.testing.assert_allclose(found.weights, expected / expected[0], rtol=1e-4)
    assert found.links.dtype == np.int64
    assert found.weights.dtype == np.float32
    assert found.kind == model.links_are


def test_the_fused_score_blends_the_global_vectors():
    fusion, options = Fusion(lamb=0.3, gamma=0.2), {"desc_num": (N, M)}
    found = explain(QUERY, DATABASE, MODELS[0], fusion=fusion, **options)
    similarity = float(QUERY.vector @ DATABASE.vector)
    expected = 0.3 * similarity + 0.7 / (1 + np.exp(-0.2 * found.score))
    assert found.fused == pytest.approx(expected, abs=1e-5)
    assert explain(QUERY, DATABASE, MODELS[0], **options).fused is None
    bare = replace(QUERY, vector=None)
    assert explain(bare, DATABASE, MODELS[0], fusion=fusion, **options).fused is None


def test_json_holds_all_of_it():
    found = explain(QUERY, DATABASE, MODELS[2], desc_num=(N, M), top=3)
    content = json.loads(json.dumps(found.as_dict()))
    assert list(content) == [
        *("score", "fused", "links", "weights", "shares_a", "shares_b"),
        *("positions_a", "positions_b", "kind"),
    ]
    assert content["links"] == found.links.tolist()
    assert np.float32(content["shares_a"]).tolist() == found.shares_a.tolist()
    assert content["kind"] == "votes"


def test_padding_is_no_descriptor():
    padded = replace(DATABASE, local=DATABASE.local.trim(M).pad(M + 2))
    expected = explain(QUERY, DATABASE, MODELS[0], desc_num=(N, M))
    found = explain(QUERY, padded, MODELS[0], desc_num=(N, M + 2))
    assert len(found.shares_b) == M
    np.testing.assert_allclose(found.shares_b, expected.shares_b, atol=1e-5)


def test_an_image_of_one_descriptor():
    found = explain(image(1, 3), image(1, 4), MODELS[2], desc_num=(N, M))
    assert found.shares_a == pytest.approx([found.score])  # an image without any has score 0
    assert found.links.tolist() == [[0, 0]]
    assert found.weights.tolist() == [1.0]


def test_what_is_refused():
    lists = Locore(local_dim=D, hidden=16, num_layers=1, nhead=2, intermediate=16, global_dim=D)
    empty = replace(QUERY, local=QUERY.local.trim(0))
    nowhere = replace(QUERY, local=replace(QUERY.local, positions=None))
    broken = replace(QUERY, local=QUERY.local.with_descriptors(QUERY.local.descriptors * torch.nan))
    several = replace(QUERY, local=QUERY.local.map(lambda x: x[None]))
    for query, model, message in (
        (QUERY, lists, "Locore reads lists"),
        (empty, MODELS[0], "the query has no local features"),
        (nowhere, MODELS[0], "the query has no positions"),
        (broken, MODELS[0], "not finite"),
        (several, MODELS[0], "give one image"),
    ):
        with pytest.raises(AmesError, match=message):
            explain(query, DATABASE, model, desc_num=(N, M))


@pytest.mark.parametrize("name", ["rootsift_ames_dist", "rootsift_elvis_binary"])
def test_links_of_a_shipped_model_join_the_same_places(name):
    """A scene and a tilted view of it, of which every place is known."""
    view = photos.scene(2, size=(300, 400))
    corners = np.float32([[0, 0], [400, 0], [400, 300], [0, 300]])
    moved = np.float32([[30, 20], [370, 0], [390, 280], [0, 300]])
    tilt = cv2.getPerspectiveTransform(corners, moved)
    tilted = cv2.warpPerspective(view, tilt, (400, 300), borderMode=cv2.BORDER_REFLECT)
    extract = Extractor("rootsift")
    query, database = (extract(np.ascontiguousarray(x[..., ::-1])) for x in (view, tilted))
    found = explain(query, database, load_model(name), desc_num=(200, 50), top=20)
    size = np.array([400, 300])
    a = found.positions_a[found.links[:, 0]][:, ::-1] * size
    b = found.positions_b[found.links[:, 1]][:, ::-1] * size
    distance = np.linalg.norm(cv2.perspectiveTransform(a[None], tilt)[0] - b, axis=1)
    assert (distance < 0.05 * 500).mean() > 0.8
