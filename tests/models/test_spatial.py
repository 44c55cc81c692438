"""Spatial verification: golden cases, a twin in loops, sizes, codes, the order of its ranking."""

import logging
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from ames.errors import AmesError, NotFiniteError
from ames.features import LocalFeatures
from ames.models.layers import opencv_ransac
from ames.models.layers.opencv_ransac import ESTIMATORS
from ames.models.registry import MODELS
from ames.models.spatial import SpatialVerification
from ames.reranking.fusion import Fusion
from ames.reranking.reranker import Reranker
from ames.reranking.scorer import ComputeConfig, PairScorer
from golden.spatial import CASES, image, pair, unit

SIZE = torch.tensor([[600.0, 800.0]])
ESTIMATED = ("affine", *ESTIMATORS)


def of_case(case, **options):
    limits = {"distance": case["distance_threshold"], "residual": case["residual_threshold"]}
    return SpatialVerification(**limits | options)


def views(seed, true=20, false=10, dim=32, noise=2.0):
    """Query and database image, positions in pixels, that share ``true`` descriptors by an affine map."""
    rng = np.random.default_rng(seed)
    mine, theirs = rng.random((2, true + false, 2)) * 800
    theirs[:true] = mine[:true] @ np.array([[0.9, -0.2], [0.3, 0.8]]) + [40, 60]
    theirs[:true] += noise * rng.standard_normal((true, 2))
    values = torch.from_numpy(rng.standard_normal((2, true + false, dim)).astype(np.float32))
    values[1, :true] = values[0, :true] + 0.1 * values[1, :true]
    return image(unit(values[0]), mine), image(unit(values[1]), theirs)


def shares(local, size=SIZE):
    """The same image with positions as shares of a size, which it knows."""
    return replace(local, positions=local.positions / size[:, None], image_size=size)


def by_tokens(model, query, database):
    return model.pairs_tokens(model.tokens(query), model.expand(model.compress(database)))


# ---- figures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden(case):
    model, sides = of_case(case), pair(case)
    query, database = map(model.tokens, sides)
    place, kept = model.putative(query, database)
    assert [[q, int(place[0, q])] for q in kept[0].nonzero()[:, 0].tolist()] == case["putative"]
    assert model.pairs(*sides).tolist() == [case["inliers"]]
    assert by_tokens(model, *sides).tolist() == [case["inliers"]]
    assert model.links(query, database).sum() == case["inliers"]
    for seed in range(4):  # few samples never reach more
        assert of_case(case, trials=10, seed=seed).pairs(*sides).item() <= case["inliers"]
    subtracted = of_case(case, floor="sample").pairs(*sides).item()
    assert subtracted == max(case["inliers"] - 3, 0)


@pytest.mark.parametrize("options", [{}, {"mutual": True}, {"ratio": 0.9}, {"mutual": True, "ratio": 0.95}])
def test_putative_matches_are_those_of_loops(options):
    rng = np.random.default_rng(0)
    values = [torch.from_numpy(rng.standard_normal((1, n, 4)).astype(np.float32)) for n in (15, 11)]
    sides = [image(unit(x[0]), rng.random((x.shape[1], 2))) for x in values]
    place, kept = SpatialVerification(distance=0.8, **options).putative(*sides)
    a, b = (x.descriptors[0].double().numpy() for x in sides)
    distances = np.linalg.norm(a[:, None] - b[None], axis=-1)
    some = 0
    for q, row in enumerate(distances):
        first, second = np.sort(row)[:2]
        wanted = first < 0.8
        if options.get("mutual"):
            wanted &= distances[:, row.argmin()].argmin() == q
        if "ratio" in options:
            wanted &= first < options["ratio"] * second
        assert bool(kept[0, q]) == wanted
        assert place[0, q] == row.argmin()
        some += wanted
    assert 0 < some < 15


@pytest.mark.parametrize("estimator", ESTIMATED)
def test_every_estimator_finds_the_true_matches(estimator):
    model = SpatialVerification(estimator=estimator, residual=15.0)
    query, database = views(1)
    score = model.pairs(query, database).item()
    assert 20 <= score <= 30
    links = model.links(model.tokens(query), model.tokens(database))[0]
    assert links.diagonal()[:20].all()
    assert links.sum() == score


@pytest.mark.parametrize("estimator", ESTIMATED)
def test_scores_depend_on_the_pair_alone(estimator):
    """Neither on the batch, nor on the order of descriptors or pairs, nor on calls before."""
    model = SpatialVerification(estimator=estimator, trials=30)
    pairs = [views(seed, true, 30 - true) for seed, true in enumerate((4, 8, 12, 20, 0))]
    alone = torch.cat([model.pairs(*sides) for sides in pairs])
    order = [3, 1, 4, 0, 2, 3]
    sides = [LocalFeatures.cat([pairs[i][side].pad(40) for i in order]) for side in (0, 1)]
    torch.testing.assert_close(model.pairs(*sides), alone[order])
    shuffled = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    turned = [
        replace(
            x,
            descriptors=x.descriptors[:, shuffled],
            valid=x.valid[:, shuffled],
            positions=x.positions[:, shuffled],
        )
        for x in sides
    ]
    torch.testing.assert_close(model.pairs(*turned), alone[order])


def test_matches_as_many_as_determine_the_model_score_nothing():
    query, database = views(2, true=7, false=0)
    for estimator, most in (
        ("affine", 3),
        ("affine-magsac", 3),
        ("homography-usac", 4),
        ("fundamental-usac", 7),
    ):
        model = SpatialVerification(estimator=estimator)
        for count in range(1, 8):
            score = model.pairs(query.trim(count), database).item()
            assert score == 0 if count <= most else score >= most


def test_unrelated_images_have_the_floor_of_three():
    query, database = views(3, true=0, false=30, dim=4)
    published, mended = SpatialVerification(), SpatialVerification(floor="sample", residual=1.0)
    assert published.pairs(query, database).item() >= 3
    assert mended.pairs(query, database).item() == 0


def test_an_error_inside_opencv_is_no_model_and_said_once(monkeypatch, caplog):
    def fail(*_, **__):
        raise cv2.error("assertion failed: !model.empty()")

    opencv_ransac._say_failed.cache_clear()
    monkeypatch.setitem(opencv_ransac.MODELS, "homography", (4, fail))
    model = SpatialVerification(estimator="homography-usac")
    with caplog.at_level(logging.WARNING):
        for seed in (1, 2):
            assert model.pairs(*views(seed)).item() == 0
    (line,) = [r.message for r in caplog.records]
    assert line.startswith("OpenCV's homography-usac failed on some matches, which count as no inliers (")


# ---- pixels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["affine", "affine-usac", "homography-magsac"])
def test_the_size_of_the_database_image_changes_nothing(estimator):
    model = SpatialVerification(estimator=estimator)
    query, database = views(4, true=15, false=20, noise=8)
    in_pixels = model.pairs(query, database).item()
    assert model.pairs(shares(query), database).item() == in_pixels
    assert model.reads_size == ("query",)
    for size in (SIZE, SIZE * torch.tensor([3.0, 0.5])):
        unknown = replace(shares(database, size), image_size=None)
        assert model.pairs(shares(query), unknown).item() == in_pixels
    assert in_pixels >= 10
    smaller = replace(shares(query), image_size=SIZE / 100)
    assert model.pairs(smaller, database).item() > in_pixels  # 20 pixels are far there


def test_a_fundamental_matrix_needs_both_sizes_and_stores_pixels():
    model = SpatialVerification(local_dim=32, estimator="fundamental-usac")
    query, database = views(5, true=15, false=20, noise=4)
    assert model.reads_size == ("query", "database")
    in_pixels = model.pairs(query, database).item()
    assert model.pairs(shares(query), shares(database)).item() == in_pixels
    codes = model.compress(shares(database))
    torch.testing.assert_close(model.expand(codes).positions, database.positions, atol=0.3, rtol=0)
    assert by_tokens(model, shares(query), shares(database)).item() >= 15
    with pytest.raises(AmesError, match="height and width of each database image"):
        model.compress(replace(shares(database), image_size=None))
    assert model.fingerprint() != SpatialVerification(local_dim=32).fingerprint()


def test_without_a_size_a_line_says_what_to_give(caplog):
    query, database = map(shares, views(6))
    query = replace(query, image_size=None)
    with pytest.raises(
        AmesError, match=r"^SpatialVerification needs the height and width of each query image"
    ):
        SpatialVerification().pairs(query, database)
    with caplog.at_level(logging.WARNING):
        model = SpatialVerification(nominal_size=800)
    assert [r.message for r in caplog.records] == [
        "spatial verification takes a query of unknown size as 800 x 800 pixels"
    ]
    square = replace(query, image_size=torch.tensor([[800.0, 800.0]]))
    assert model.pairs(query, database) == SpatialVerification().pairs(square, database)
    # Where nothing is measured in pixels, no size is missed.
    assert SpatialVerification(distance=0.01).pairs(query, database).item() == 0


def test_wrong_input_is_one_error():
    query, database = map(shares, views(7))
    model = SpatialVerification().eval()
    with pytest.raises(AmesError, match="reads where descriptors are: no positions were given"):
        model.pairs(replace(query, positions=None), database)
    for size in (0.0, -3.0, torch.nan, torch.inf):
        with pytest.raises(AmesError, match="not a height and a width in pixels"):
            model.tokens(replace(query, image_size=torch.tensor([[size, 5.0]])))
    for name in ("positions", "descriptors"):
        broken = query.map(torch.clone)
        getattr(broken, name)[0, 3, 1] = torch.nan
        with pytest.raises(NotFiniteError):
            model.tokens(broken)
        broken.valid[0, 3] = False
        assert torch.isfinite(model.pairs(broken, database)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "magsac"}, "estimator 'magsac' is none of affine, affine-ransac"),
        ({"floor": "zero"}, "floor 'zero' is none of none, sample"),
        ({"residual": 0.0}, "residual 0.0 is not above 0"),
        ({"ratio": -1.0}, "ratio -1.0 is not above 0"),
        ({"trials": 0}, "trials is 0: give a whole number of at least 1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(AmesError, match=message):
        SpatialVerification(**options)


# ---- what is stored, and the ranking ----------------------------------------------------------------


def test_codes_hold_descriptors_and_places():
    model = SpatialVerification(local_dim=32)
    query, database = map(shares, views(8))
    codes = model.compress(database)
    assert (codes.descriptors.dtype, codes.width, model.code_bytes) == (torch.float16, 34, 68)
    stored = LocalFeatures(codes.descriptors, codes.valid, coded=True)  # a database has nothing else
    assert model.pairs_tokens(model.tokens(query), model.expand(stored)) == model.pairs(query, database)
    back = model.expand(stored)
    torch.testing.assert_close(back.positions, database.positions, atol=5e-4, rtol=0)
    torch.testing.assert_close(back.descriptors.norm(dim=-1), torch.ones(1, 30))


@pytest.mark.parametrize("name", ["spatial", "mutual_nearest", "lightglue"])
def test_the_fusion_of_counts_ranks_by_them_and_then_by_the_global_similarity(name):
    fusion = Fusion.from_keys(MODELS[name].fusion, source=name)
    most = 3000
    counts = np.arange(most + 1)
    scores = (counts / most if name == "mutual_nearest" else counts).astype(np.float32)
    worst, best = (fusion.fuse(np.full(len(scores), x, np.float32), scores) for x in (-1, 1))
    assert (best[:-1] < worst[1:]).all()  # one match more outweighs any similarity
    near = np.float32(0.5), np.nextafter(np.float32(0.5), np.float32(1))
    tied = [fusion.fuse(np.full(len(scores), x, np.float32), scores) for x in near]
    assert (tied[0] < tied[1]).all()  # and of equal counts the smallest difference decides


def test_a_reranker_ranks_by_inliers_then_similarity():
    pairs = [views(10 + true, true, 30 - true) for true in (0, 12, 25)]
    query = pairs[2][0]
    others = [replace(pairs[2][1], valid=torch.arange(30)[None] < n) for n in (25, 2, 12, 25, 1)]
    reranker = Reranker("spatial")
    hits = reranker.rank(
        query.map(lambda x: x[0]),
        [x.map(lambda y: y[0]) for x in others],
        similarities=[0.1, 0.9, 0.8, 0.2, 0.95],
    )
    assert [hit.id for hit in hits] == [3, 0, 2, 4, 1]
    assert [hit.local for hit in hits] == [25, 25, 12, 0, 0]


def test_a_scorer_on_any_number_of_lanes_gives_the_same():
    model = SpatialVerification(trials=50)
    pairs = [tuple(map(shares, views(20 + i, true=5 + i, false=15))) for i in range(8)]
    queries, images = (LocalFeatures.cat([x[side] for x in pairs]) for side in (0, 1))
    rows, columns = (x.reshape(-1) for x in np.indices((8, 8)))
    found = []
    for compute in (ComputeConfig(lanes=1, batch_size=1), ComputeConfig(lanes=3)):
        scorer = PairScorer(model, compute)
        found.append(scorer.score(scorer.queries(queries), images, rows, columns))
    np.testing.assert_array_equal(*found)
    expected = [
        by_tokens(model, queries[[r]], images[[c]]).item() for r, c in zip(rows, columns, strict=True)
    ]
    np.testing.assert_array_equal(found[0], expected)
