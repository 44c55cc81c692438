"""What every registered model must hold. A new model is a line in ``MODELS`` here (docs/extending.md)."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from ames.errors import AmesError, NotFiniteError
from ames.features import LocalFeatures
from ames.models import registry
from ames.models.ames import AMES
from ames.models.asmk import ASMK
from ames.models.base import PairSimilarity
from ames.models.chamfer import Chamfer
from ames.models.checkpoints import load_model, save_checkpoint, save_weights
from ames.models.elvis import ELViS
from ames.models.light_glue import LightGlueMatches
from ames.models.locore import Locore
from ames.models.mutual_nearest import MutualNearest
from ames.models.rrt import RRT
from ames.models.spatial import SpatialVerification
from ames.precision import AUTOCAST
from ames.reranking.list_scorer import ListScorer
from ames.reranking.reranker import Reranker
from ames.reranking.scorer import ComputeConfig, PairScorer
from helpers.listwise import ToyList

D = 16
SMALL = {"local_dim": D, "model_dim": 16, "num_encoder_layers": 2, "dim_feedforward": 16}
TINY = {"local_dim": D, "model_dim": 16, "num_layers": 2, "dim_feedforward": 16}
LISTS = {
    "local_dim": D,
    "hidden": 16,
    "num_layers": 2,
    "nhead": 2,
    "intermediate": 16,
    "local_count": 8,
    "window": 6,
    "attention_window": 12,
    "max_position_embeddings": 80,
}

torch.manual_seed(0)
# Class -> small models of it.
MODELS = {
    "AMES": [AMES(**SMALL), AMES(**SMALL, binarized=True)],
    "Chamfer": [Chamfer(local_dim=D), Chamfer(local_dim=D, symmetric=True)],
    "RRT": [RRT(**TINY, global_dim=D), RRT(**TINY | {"model_dim": 8}, variant="sop")],
    "Locore": [
        Locore(**LISTS, global_dim=D),
        Locore(**LISTS, global_dim=None, scales=0, score_mode="max-sum", bottleneck=8),
    ],
    "ELViS": [ELViS(local_dim=D), ELViS(local_dim=D, binarized=True)],
    "ASMK": [
        ASMK(words=6, local_dim=D, query_assign=2),
        ASMK(words=6, local_dim=D, query_assign=3, binary=False),
    ],
    "MutualNearest": [
        MutualNearest(local_dim=D, least_cosine=None),
        MutualNearest(local_dim=D, least_cosine=None, share="smaller"),
    ],
    # Of random descriptors the nearest are far: any distance will do.
    "SpatialVerification": [
        SpatialVerification(local_dim=D, distance=3.0),
        SpatialVerification(local_dim=D, distance=3.0, estimator="homography-magsac"),
        SpatialVerification(local_dim=D, distance=3.0, estimator="affine-prosac", floor="sample"),
    ],
    "LightGlueMatches": [LightGlueMatches(local_dim=D, weights="random", threshold=0.0)],
    "ToyList": [ToyList(local_dim=D, window=6)],
}


def needs(library):
    missing = library is not None and find_spec(library) is None
    return pytest.mark.skipif(missing, reason=f"needs {library}")


OPTIONAL = {"LightGlueMatches": "kornia"}  # classes, and the library that they need
ORDERED = {"Locore"}  # classes whose tokens have positions, as those of words
ALL = [
    pytest.param(model.eval(), id=f"{name}{i}", marks=needs(OPTIONAL.get(name)))
    for name, models in MODELS.items()
    for i, model in enumerate(models)
]


def features(*shape, seed=0):
    """With everything that a model may read beside descriptors."""
    generator = torch.Generator().manual_seed(seed)
    return LocalFeatures.from_descriptors(
        torch.randn(*shape, D, generator=generator),
        vector=torch.randn(*shape[:-1], D, generator=generator),
        scale=torch.randint(0, 3, shape, generator=generator).float(),
        positions=torch.rand(*shape, 2, generator=generator),
        image_size=torch.tensor([600.0, 800.0]).expand(*shape[:-1], 2),
    )


def turned(local):
    """The same descriptors in reverse order."""
    changed = local.map(lambda x: x.flip(local.valid.ndim - 1))
    return replace(changed, vector=local.vector, image_size=local.image_size)


QUERY, CANDIDATES = features(1, 7), features(1, 4, 5, seed=1)


def score(model, query=QUERY, candidates=CANDIDATES):
    """float [K], through descriptors as a database stores them."""
    with torch.inference_mode():
        stored = model.expand(model.compress(candidates))
        return model.score_tokens(model.tokens(query), stored)[0]


def close(a, b, atol=1e-5):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), atol=atol, rtol=1e-4)


def test_every_class_is_tested():
    assert set(registry.CLASSES) <= set(MODELS)


@pytest.mark.parametrize("model", ALL)
def test_the_order_of_descriptors_does_not_matter(model):
    if type(model).__name__ in ORDERED:
        pytest.skip("it reads the order")
    close(score(model, turned(QUERY), turned(CANDIDATES)), score(model))


@pytest.mark.parametrize("model", ALL)
def test_padding_does_not_matter_whatever_it_holds(model):
    query, candidates = QUERY.pad(11), CANDIDATES.pad(9)
    close(score(model, query, candidates), score(model))
    for local in (query, candidates):
        local.descriptors[~local.valid] = torch.nan
    close(score(model, query, candidates), score(model))


@pytest.mark.parametrize("model", ALL)
def test_a_batch_is_what_each_is_alone(model):
    queries = LocalFeatures.cat([QUERY, features(1, 6, seed=5)])
    lists = LocalFeatures.cat([CANDIDATES, features(1, 4, 3, seed=6)])
    with torch.inference_mode():
        together = model.score(queries, lists)
        alone = [model.score(queries[i : i + 1], lists[i : i + 1])[0] for i in range(2)]
    close(together, torch.stack(alone))
    if model.window is None:  # a pair's score does not depend on the list
        single = [score(model, QUERY, CANDIDATES.map(lambda x, i=i: x[:, i : i + 1]))[0] for i in range(4)]
        close(score(model), torch.stack(single))


@pytest.mark.parametrize("model", ALL)
def test_codes_are_what_is_stored_of_descriptors(model):
    codes = model.compress(CANDIDATES)
    assert codes.coded
    assert not model.expand(codes).coded
    size = codes.descriptors.element_size() * codes.width
    assert size == model.code_bytes
    assert (codes.descriptors.dtype == torch.uint8) == (model.code_bits is not None)
    with pytest.raises(AmesError, match="these are a model's codes"):
        model.tokens(codes)
    reranker = Reranker(model)
    one = QUERY.map(lambda x: x[0])
    expected = reranker.score(one, CANDIDATES.map(lambda x: x[0]))
    close(reranker.score(one, codes.map(lambda x: x[0])), expected)
    close(expected, score(model))


@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize("precision", [name for name in AUTOCAST if name])
def test_other_number_formats_are_near_fp32(model, precision):
    one, many = QUERY.map(lambda x: x[0]), CANDIDATES.map(lambda x: x[0])
    exact, near = Reranker(model).score(one, many), Reranker(model, precision=precision).score(one, many)
    # A tenth of the spread, and the rounding of logits of this size.
    tolerance = 0.1 * float(np.ptp(exact)) + 2e-2 * max(float(np.abs(exact).max()), 1)
    assert np.abs(near - exact).max() < tolerance


@pytest.mark.parametrize("model", ALL)
def test_saved_and_loaded(model, tmp_path, monkeypatch):
    monkeypatch.setitem(registry.CLASSES, "ToyList", ToyList.__module__)
    save_checkpoint(tmp_path / "x.pt", model)
    save_weights(tmp_path / "x.safetensors", model)
    for path in tmp_path.iterdir():
        if not model.state_dict() and path.suffix == ".safetensors":
            continue  # nothing to hold
        found = load_model(path) if model.state_dict() else type(model)(**model.arguments)
        assert type(found) is type(model)
        assert found.arguments == model.arguments
        close(score(found), score(model))
        assert found.fingerprint() == model.fingerprint()


@pytest.mark.parametrize("model", ALL)
def test_scores_are_finite_and_symmetric_where_that_is_said(model):
    assert torch.isfinite(score(model)).all()
    if model.arguments.get("symmetric"):
        one, other = features(1, 7), features(1, 5, seed=1)
        pair = [score(model, a, b.map(lambda x: x[:, None]))[0] for a, b in ((one, other), (other, one))]
        close(*pair)


@pytest.mark.parametrize("model", ALL)
def test_an_image_without_descriptors_has_a_score(model):
    nothing, many = features(0), CANDIDATES.map(lambda x: x[0])
    one = QUERY.map(lambda x: x[0])
    reranker = Reranker(model)
    for query, candidates in ((nothing, many), (one, [nothing, many[0]]), (nothing, [nothing])):
        assert np.isfinite(reranker.score(query, candidates)).all()
    assert reranker.score(one, [many[0], nothing, many[1]]).shape == (3,)


@pytest.mark.parametrize("model", ALL)
def test_wrong_input_is_one_error(model):
    with pytest.raises(AmesError, match=f"descriptors are {D + 1}-d"):
        model.tokens(LocalFeatures.from_descriptors(torch.randn(1, 3, D + 1)))
    broken = QUERY.map(torch.clone)
    broken.descriptors[0, 2, 0] = torch.inf
    with pytest.raises(NotFiniteError):
        model.tokens(broken)
    with pytest.raises(AmesError, match="expected"):
        model.score(QUERY, QUERY)


@pytest.mark.parametrize("model", ALL)
def test_the_right_scorer_takes_it(model):
    if isinstance(model, PairSimilarity):
        assert model.window is None
        scorer = PairScorer(model, ComputeConfig(batch_size=1))
        places = np.arange(4)
        queries = scorer.queries(QUERY)
        close(scorer.score(queries, CANDIDATES.map(lambda x: x[0]), np.zeros(4, int), places), score(model))
    else:
        assert model.window >= 1
        close(ListScorer(model).score(QUERY, CANDIDATES)[0], score(model))


@pytest.mark.parametrize("model", ALL)
def test_links_are_of_the_descriptors_of_a_pair(model):
    query, database = features(1, 7), features(1, 5, seed=1)
    with torch.inference_mode():
        sides = [model.tokens(query), model.tokens(database)]
        if not isinstance(model, PairSimilarity):
            with pytest.raises(AmesError, match="reads lists of candidates"):
                model.links(*sides)
            return
        links = model.links(*sides)
        assert links.shape == (1, 7, 5)
        assert links.dtype == torch.float32
        assert (links >= 0).all()
        assert links.any()
        assert model.links_are
        # Order and padding change nothing but their own rows.
        close(model.links(model.tokens(turned(query)), model.tokens(turned(database))), links.flip(1, 2))
        padded = model.links(model.tokens(query.pad(9)), model.tokens(database.pad(6)))
        close(padded[:, :7, :5], links)
        assert not padded[:, 7:].any()
        assert not padded[:, :, 5:].any()
        assert model.links(model.tokens(features(1, 0)), sides[1]).shape == (1, 0, 5)
        with pytest.raises(AmesError, match="expected"):
            model.links(query, CANDIDATES)


@pytest.mark.parametrize("model", [x for x in ALL if x.id[:-1] in ("ELViS", "Chamfer", "ASMK")])
def test_links_that_are_parts_of_the_score_sum_to_it(model):
    """Also with padding, and in a batch. Cosines are above 0 where descriptors are."""
    query, database = (features(2, n, seed=n).pad(9) for n in (7, 5))
    sides = [replace(x, descriptors=x.descriptors.abs()) for x in (query, database)]
    sides[0].valid[0, :2] = sides[1].valid[1, 3:] = False
    with torch.inference_mode():
        tokens = [model.tokens(side) for side in sides]
        score = model.pairs_tokens(*tokens)
        torch.testing.assert_close(model.links(*tokens).sum((1, 2)), score, atol=1e-4, rtol=0)


def test_a_model_without_links_of_its_own_has_cosines():
    class Plain(Chamfer):
        link_tokens = PairSimilarity.link_tokens
        links_are = PairSimilarity.links_are

    model = Plain(local_dim=2)
    sides = [torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.tensor([[[3.0, 4.0], [-1.0, 0.0]]])]
    links = model.links(*(model.tokens(LocalFeatures.from_descriptors(x)) for x in sides))
    close(links, torch.tensor([[[0.6, 0.0], [0.8, 0.0]]]))
    assert model.links_are == "cosines of tokens"
