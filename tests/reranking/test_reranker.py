"""The re-ranker for programs: features and codes from anywhere, scores, hits; what is refused."""

import time

import numpy as np
import pytest
import torch

from ames.backbones.base import ImageFeatures
from ames.database.store import Database
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.ames import AMES
from ames.models.chamfer import Chamfer
from ames.models.checkpoints import save_checkpoint
from ames.models.load import load_model
from ames.reranking.code_stores import BytesStore, CodeStore, pack_codes, unpack_codes
from ames.reranking.fusion import Fusion
from ames.reranking.reranker import Hit, Reranker
from ames.reranking.windows import Windows
from helpers.listwise import ToyList

FUSION = Fusion(0.3, 2.0)


def model(**arguments):
    torch.manual_seed(0)
    small = {"local_dim": 8, "model_dim": 16, "num_encoder_layers": 2, "dim_feedforward": 16}
    return AMES(**small | arguments).eval()


def array(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


QUERY, CANDIDATES = array(6, 8), array(4, 5, 8, seed=1)


@pytest.mark.parametrize("binarized", [False, True])
def test_scores_are_the_model_s_in_every_form(binarized):
    net = model(binarized=binarized)
    reranker = Reranker(net)
    local = LocalFeatures.from_descriptors(torch.from_numpy(CANDIDATES))
    one = LocalFeatures.from_descriptors(torch.from_numpy(QUERY))
    with torch.inference_mode():
        tokens = net.expand(net.compress(local))
        expected = net.pairs_tokens(net.tokens(one.map(lambda x: x.expand(4, *x.shape))), tokens).numpy()
    scores = reranker.score(QUERY, CANDIDATES)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    codes = net.compress(local)
    for query in (QUERY, torch.from_numpy(QUERY), one, QUERY[None], ImageFeatures(one, None)):
        for candidates in (
            torch.from_numpy(CANDIDATES),
            list(CANDIDATES),
            local,
            [local[i] for i in range(4)],
            [ImageFeatures(local[i], None) for i in range(4)],
            ImageFeatures(local, None),
            codes,
            [codes[i] for i in range(4)],
        ):
            np.testing.assert_allclose(reranker.score(query, candidates), expected, atol=1e-6)
    if binarized:  # bytes can only be codes
        np.testing.assert_allclose(reranker.score(QUERY, codes.descriptors.numpy()), expected, atol=1e-6)


def test_unequal_numbers_of_descriptors():
    reranker = Reranker(model())
    lengths = (5, 2, 3, 1)
    unequal = [candidate[:length] for candidate, length in zip(CANDIDATES, lengths, strict=True)]
    each = [reranker.score(QUERY, [one])[0] for one in unequal]
    np.testing.assert_allclose(reranker.score(QUERY, unequal), each, atol=1e-6)
    half = reranker.score(QUERY.astype(np.float16), [one.astype(np.float16) for one in unequal])
    np.testing.assert_allclose(half, each, atol=2e-2)
    assert np.isfinite(reranker.score(QUERY, [CANDIDATES[0], np.zeros((0, 8), np.float32)])).all()


def test_ranking_by_the_model_alone_and_fused():
    reranker = Reranker(model(), FUSION)
    logits = reranker.score(QUERY, CANDIDATES)
    hits = reranker.rank(QUERY, CANDIDATES)
    assert [hit.id for hit in hits] == np.argsort(-logits, kind="stable").tolist()
    assert hits[0] == Hit(hits[0].id, float(logits[hits[0].id]), float(logits[hits[0].id]))
    similarities = [0.9, 0.1, 0.4, 0.4]
    fused = 0.3 * np.array(similarities) + 0.7 / (1 + np.exp(-2.0 * logits.astype(np.float64)))
    hits = reranker.rank(QUERY, CANDIDATES, similarities, top_k=2, ids=["a", "b", "c", "d"])
    order = np.argsort(-fused, kind="stable")[:2]
    assert [hit.id for hit in hits] == ["abcd"[i] for i in order]
    np.testing.assert_allclose([hit.score for hit in hits], fused[order], atol=1e-6)
    assert [hit.global_ for hit in hits] == pytest.approx([similarities[i] for i in order])


def test_equal_scores_keep_their_order():
    same = np.repeat(CANDIDATES[:1], 3, 0)
    assert [hit.id for hit in Reranker(model()).rank(QUERY, same)] == [0, 1, 2]


class Slow(Chamfer):
    """Takes a hundredth of a second for each pair."""

    def score_encoded(self, query, database):
        time.sleep(0.01 * len(query.valid))
        return super().score_encoded(query, database)


def test_lanes_change_no_score():
    one, two = (Reranker(model(), FUSION, lanes=count) for count in (1, 2))
    assert np.array_equal(one.score(QUERY, CANDIDATES), two.score(QUERY, CANDIDATES))
    assert two.scorer.compute.lanes == 2
    with pytest.raises(AmesError, match="lanes 0 is below 1"):
        Reranker(model(), lanes=0)


def test_a_budget_of_time_ends_the_scoring_in_the_order_of_the_first_search():
    many = array(64, 3, 8, seed=5)
    similarities = np.random.default_rng(0).permutation(64) / 64
    reranker = Reranker(Slow(local_dim=8), FUSION)
    whole = reranker.rank(QUERY, many, similarities)
    assert whole.scored == 64
    start = time.perf_counter()
    hits = reranker.rank(QUERY, many, similarities, budget_ms=250)
    assert time.perf_counter() - start < 0.6
    assert 8 <= hits.scored < 64
    assert hits.scored % 8 == 0
    nearest = set(np.argsort(-similarities)[: hits.scored])
    scored, unscored = hits[: hits.scored], hits[hits.scored :]
    assert {hit.id for hit in scored} == nearest
    by_id = {hit.id: hit for hit in whole}
    assert all(hit == by_id[hit.id] for hit in scored)
    assert [hit.score for hit in scored] == sorted((hit.score for hit in scored), reverse=True)
    assert all(np.isnan(hit.score) and np.isnan(hit.local) for hit in unscored)
    assert [hit.global_ for hit in unscored] == sorted((hit.global_ for hit in unscored), reverse=True)
    # No time at all: the first piece is scored, and without similarities the order given counts.
    least = reranker.rank(QUERY, many, budget_ms=0)
    assert (least.scored, {hit.id for hit in least[:8]}) == (8, set(range(8)))
    assert [hit.id for hit in least[8:]] == list(range(8, 64))
    assert len(reranker.rank(QUERY, many, similarities, top_k=3, budget_ms=0)) == 3
    assert reranker.rank(QUERY, many, similarities, budget_ms=1e6) == whole
    with pytest.raises(AmesError, match="ToyList is list-wise: it takes no budget_ms"):
        Reranker(ToyList(local_dim=8, window=4)).rank(QUERY, CANDIDATES, budget_ms=5)


def test_codes_from_a_store():
    net = model(binarized=True)
    reranker = Reranker(net, FUSION)
    codes = net.compress(LocalFeatures.from_descriptors(torch.from_numpy(CANDIDATES)))
    fields = dict(zip("wxyz", pack_codes(codes), strict=True))
    assert len(fields["w"]) == 5 * net.code_bytes
    store = BytesStore(lambda ids: [fields[i] for i in ids], net.code_bytes)
    hits = reranker.rank(QUERY, store, ids=["z", "x"])
    expected = reranker.score(QUERY, CANDIDATES)
    assert {hit.id: hit.local for hit in hits} == pytest.approx(
        {"z": expected[3], "x": expected[1]}, abs=1e-6
    )
    assert isinstance(store, CodeStore)
    assert issubclass(Database, CodeStore)
    unequal = LocalFeatures(
        codes.descriptors, torch.arange(5) < torch.tensor([[5], [0], [2], [3]]), coded=True
    )
    back = unpack_codes(pack_codes(unequal), net.code_bytes)
    assert back.counts.tolist() == [5, 0, 2, 3]
    assert torch.equal(back.descriptors[2, :2], codes.descriptors[2, :2])


def test_models_by_name_file_and_object(tmp_path):
    shipped = Reranker("rootsift_ames")
    assert shipped.backbone == "rootsift"
    assert shipped.fusion == Fusion(0.45, 0.1)
    save_checkpoint(
        tmp_path / "x.pt", model(), provenance={"backbone": "b", "blend": {"lamb": 0.2, "temp": 3.0}}
    )
    found = Reranker(tmp_path / "x.pt")
    assert (found.backbone, found.fusion) == ("b", Fusion(0.2, 3.0))
    np.testing.assert_allclose(
        found.score(QUERY, CANDIDATES), Reranker(model()).score(QUERY, CANDIDATES), atol=1e-6
    )
    assert Reranker(tmp_path / "x.pt", FUSION).fusion == FUSION
    assert isinstance(Reranker("chamfer").model, Chamfer)
    assert load_model("rootsift_ames_dist").binarized


def test_a_list_wise_model():
    toy = ToyList(local_dim=8, window=4, price=0.0)
    reranker = Reranker(toy, FUSION, windows=Windows(stride=2))
    local = LocalFeatures.from_descriptors(torch.from_numpy(CANDIDATES))
    with torch.inference_mode():
        query = LocalFeatures.from_descriptors(torch.from_numpy(QUERY)[None])
        tokens = toy.expand(toy.compress(local)).map(lambda x: x[None])
        expected = toy.score_tokens(toy.tokens(query), tokens)[0].numpy()
    np.testing.assert_allclose(reranker.score(QUERY, CANDIDATES), expected, atol=1e-6)
    hits = reranker.rank(QUERY, CANDIDATES, [0.1] * 4)
    assert [hit.id for hit in hits] == np.argsort(-expected, kind="stable").tolist()
    more = array(7, 5, 8, seed=2)
    with pytest.raises(AmesError, match="a list of 7 is longer than the model's 4"):
        reranker.score(QUERY, more)
    hits = reranker.rank(QUERY, more, np.linspace(1, 0, 7))
    assert sorted(hit.id for hit in hits) == list(range(7))
    assert all(np.isnan(hit.local) for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len(reranker.rank(QUERY, more, np.linspace(1, 0, 7), top_k=3)) == 3


@pytest.mark.parametrize(
    ("query", "candidates", "more", "message"),
    [
        (QUERY, [], {}, "no candidates: give at least one"),
        (QUERY, CANDIDATES[:0], {}, "no candidates: give at least one"),
        (QUERY, array(2, 5, 7), {}, "descriptors are 7-d, this model takes 8-d"),
        (QUERY, [array(5, 8), array(5, 7)], {}, "candidate 1 is 7 wide, candidate 0 8"),
        (array(2, 6, 8), CANDIDATES, {}, r"the query is \[2, 6, 8\]: give one image"),
        (QUERY, array(2, 2, 5, 8), {}, r"candidates are \[2, 2, 5, 8\]; expected \[K, M, D\]"),
        (QUERY, [CANDIDATES], {}, "a list of candidates holds one image each"),
        (array(8), CANDIDATES, {}, r"the query: torch.float32 \[8\]; expected float"),
        (QUERY.astype(int), CANDIDATES, {}, r"the query: torch.int64 \[6, 8\]; expected float"),
        ("x.jpg", CANDIDATES, {}, "the query: a str; give features, or an array"),
        (QUERY, np.full((2, 5, 8), np.nan, np.float32), {}, "candidate 0 hold values that are not finite"),
        (np.full((6, 8), np.inf, np.float32), CANDIDATES, {}, "the query hold values that are not finite"),
        (QUERY, CANDIDATES, {"similarities": [1.0]}, r"similarities are \[1\] for 4 candidates"),
        (
            QUERY,
            CANDIDATES,
            {"similarities": [1, 1, 1, np.nan]},
            "similarities hold values that are not finite",
        ),
        (QUERY, CANDIDATES, {"top_k": 0}, "top_k 0 is not a whole number of 1 or more"),
        (QUERY, CANDIDATES, {"budget_ms": "5"}, "budget_ms '5' is not a number of milliseconds"),
        (QUERY, CANDIDATES, {"top_k": 1.5}, "top_k 1.5 is not a whole number of 1 or more"),
        (QUERY, CANDIDATES, {"similarities": ["a"] * 4}, "similarities are no numbers"),
        (QUERY, None, {}, "candidates are a NoneType: give features, or a list of them"),
        (QUERY, CANDIDATES, {"ids": [1]}, "1 ids for 4 candidates"),
        (QUERY, BytesStore(lambda ids: [b"123"], 2), {"ids": [1]}, "field 0: 3 bytes, no multiple of the 2"),
        (QUERY, BytesStore(lambda ids: []), {}, "candidates are a store: give the ids"),
        (
            QUERY,
            CANDIDATES.astype(np.uint8),
            {},
            "codes are torch.uint8 of width 8; this model's are 16 numbers",
        ),
    ],
)
def test_what_is_refused(query, candidates, more, message):
    with pytest.raises(AmesError, match=message):
        Reranker(model(), FUSION).rank(query, candidates, **more)


def test_a_model_of_the_table_uses_as_many_descriptors_as_it_is_used_with():
    query, many = array(300, 128), array(3, 80, 128, seed=1)
    named = Reranker("rootsift_ames")
    assert named.desc_num == (200, 50)
    expected = Reranker(load_model("rootsift_ames")).score(query[:200], many[:, :50])
    np.testing.assert_allclose(named.score(query, many), expected, atol=1e-5)
    more = Reranker("rootsift_ames", desc_num=(300, 80)).score(query, many)
    np.testing.assert_allclose(more, Reranker(load_model("rootsift_ames")).score(query, many), atol=1e-5)
    assert np.abs(more - expected).max() > 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Reranker(None), "model is a NoneType: give a name or the path of a checkpoint"),
        (lambda: Reranker("chamfer", "x"), "fusion is a str: give ames.Fusion"),
        (lambda: Reranker("chamfer", device="gpu"), "device gpu: cannot be used here"),
        (lambda: Reranker("chamfer", device=None), "device None: cannot be used here"),
        (lambda: Reranker("chamfer", desc_num=5), "desc_num 5: give two whole numbers"),
        (lambda: Reranker("chamfer", desc_num=(0, 5)), r"desc_num \(0, 5\): give two whole numbers"),
        (lambda: Fusion(float("nan"), 1), r"lamb nan is outside \[0, 1\]"),
        (lambda: Fusion(5, 1), r"lamb 5 is outside \[0, 1\]"),
        (lambda: Fusion(0.4, -1), "temp -1 is not a number above 0"),
        (lambda: pack_codes(CANDIDATES), "codes are a ndarray: give what model.compress returned"),
        (lambda: unpack_codes(b"1234"), "fields are the bytes of one image: give a list"),
        (lambda: unpack_codes([None]), "field 0: a NoneType; expected bytes"),
        (lambda: unpack_codes(["ab"]), "field 0: a str; expected bytes"),
        (lambda: unpack_codes([b"ab"], 0), "code_bytes 0 is not a whole number of 1 or more"),
        (lambda: load_model(5), "model is a int: give a name or the path"),
    ],
)
def test_wrong_arguments_are_one_line(call, message):
    with pytest.raises(AmesError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_other_backbones_and_unknown_names_are_refused(tmp_path):
    other = ImageFeatures(LocalFeatures.from_descriptors(torch.randn(3, 128)), None, "aliked")
    with pytest.raises(AmesError, match="the query: made by aliked, but rootsift_ames takes rootsift"):
        Reranker("rootsift_ames").score(other, [other])
    with pytest.raises(
        AmesError, match="model 'rootsift_amse' does not exist; did you mean rootsift_ames or"
    ):
        Reranker("rootsift_amse")
    with pytest.raises(AmesError, match=r"x.pt: no such checkpoint"):
        Reranker(tmp_path / "x.pt")
    with pytest.raises(AmesError, match="AMES brings no lambda and gamma"):
        Reranker(model()).rank(QUERY, CANDIDATES, [1, 1, 1, 1])
