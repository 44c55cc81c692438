"""Groups of photos of one object: pairs by both directions, copies, components, resuming."""

import shutil

import numpy as np
import pytest
import torch

from ames.errors import AmesError
from ames.models.load import load_model
from ames.pipelines.duplicates import find_duplicates
from ames.reranking.score_cache import ScoreCache
from ames.reranking.scorer import PairScorer
from ames.retrieval import duplicates
from ames.retrieval.duplicates import Pairs, exact_copies, group, mutual_pairs, sameness
from ames.retrieval.indexing import index_photos
from ames.retrieval.retriever import Retriever
from helpers import photos

SCENES = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five scenes of two views, one file twice, one picture without keypoints."""
    folder = tmp_path_factory.mktemp("duplicates")
    for seed in range(SCENES):
        for view in range(2):
            photos.save(folder / "photos" / f"{seed}-{view}.png", photos.scene(seed, view))
    shutil.copy(folder / "photos" / "3-0.png", folder / "photos" / "copy.png")
    photos.save(folder / "photos" / "plain.png", photos.plain())
    index_photos(folder / "photos", folder / "db", "rootsift_ames_dist", workers=0)
    return folder


@pytest.fixture
def index(folder):
    return Retriever.open(folder / "db")


def test_pairs_are_the_lower_of_both_directions(index):
    database, scorer = index.database, index.reranker.scorer
    found = mutual_pairs(database, scorer, threshold=0.3, candidates=4)
    rows = np.arange(len(database))
    local = database.read(rows)
    first, second = (x.reshape(-1) for x in np.meshgrid(rows, rows, indexing="ij"))
    both = scorer.score(scorer.queries(local), local, first, second).reshape(len(rows), -1)
    lower = sameness(scorer, np.minimum(both, both.T))  # sigmoid rises
    assert len(found.same)
    assert (found.same >= 0.3).all()
    assert found.same == pytest.approx(lower[found.first, found.second], abs=1e-4)
    assert len({frozenset(pair) for pair in zip(found.first, found.second, strict=True)}) == len(found.same)
    names = database.names
    pairs = {frozenset((names[i], names[j])) for i, j in zip(found.first, found.second, strict=True)}
    assert {frozenset((f"{seed}-0.png", f"{seed}-1.png")) for seed in range(SCENES)} <= pairs
    assert not any("plain.png" in pair for pair in pairs)


def test_groups_with_an_exact_copy(folder, index, monkeypatch):
    scored = []
    original = duplicates.score_shortlist
    monkeypatch.setattr(
        duplicates, "score_shortlist", lambda *a, **k: scored.append(a[3].ids) or original(*a, **k)
    )
    copies = exact_copies(index.database)
    names = index.database.names
    assert copies == {names.index("3-0.png"): [names.index("copy.png")]}
    assert find_duplicates(folder / "db").threshold == 0.991
    found = find_duplicates(folder / "db", threshold=0.9, candidates=4)
    assert (found.copies, found.photos) == (1, 12)
    of = {name: one for one in found.groups for name in one.names}
    assert of["copy.png"].names == ["3-0.png", "3-1.png", "copy.png"]
    assert of["copy.png"].copies == ["copy.png"]
    assert not any((ids == names.index("copy.png")).any() for ids in scored)  # nothing scores a copy
    assert "1 file is an exact copy of another one" in found.text()
    assert not (folder / "db.duplicates").exists()


def test_an_interrupted_call_resumes(folder, index, monkeypatch):
    expected = mutual_pairs(index.database, index.reranker.scorer, threshold=0.3)
    with monkeypatch.context() as patch:
        patch.setattr(duplicates, "_turned", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            mutual_pairs(index.database, index.reranker.scorer, threshold=0.3)
    assert list((folder / "db.duplicates").iterdir())
    seen = []
    append = ScoreCache.append
    monkeypatch.setattr(ScoreCache, "append", lambda self, *a: seen.append(len(a[0])) or append(self, *a))
    found = mutual_pairs(index.database, index.reranker.scorer, threshold=0.3)
    assert sum(seen) < len(index.database) * 3  # the first direction was kept
    np.testing.assert_array_equal(found.same, expected.same)
    assert not (folder / "db.duplicates").exists()


def test_groups_are_components_the_largest_first(index):
    names = index.database.names
    pairs = Pairs(np.array([1, 2, 7]), np.array([2, 9, 8]), np.array([0.99, 0.995, 0.992]))
    found = group(index.database, pairs, {4: [5]})
    assert [one.names for one in found] == [
        [names[i] for i in (1, 2, 9)],
        [names[4], names[5]],
        [names[7], names[8]],
    ]
    assert [one.same for one in found] == [0.99, None, 0.992]
    assert [one.copies for one in found] == [[], [names[5]], []]


def test_each_pair_once_and_turned():
    ids = np.array([[1, 2, -1], [0, 2, -1], [0, 1, 3], [-1, -1, -1]])
    mask = duplicates._first_of_pair(ids)
    pairs = [(q, i) for q, i in zip(*np.nonzero(mask), strict=True)]
    assert [(q, int(ids[q, c])) for q, c in pairs] == [(0, 1), (0, 2), (1, 2), (2, 3)]
    first, second = np.array([0, 1, 2, 3]), np.array([9, 9, 9, 5])
    parts = duplicates._turned(first, second, 10, 2)
    assert [ids.ids[9].tolist() for _, ids in parts] == [[0, 1], [2, -1]]
    assert parts[0][1].ids[5].tolist() == [3, -1]
    assert sorted(np.concatenate([places for places, _ in parts]).tolist()) == [0, 1, 2, 3]


def test_sameness_is_what_training_compares(index):
    scores = np.array([-2.0, 0.0, 3.0], np.float32)
    assert sameness(index.reranker.scorer, scores) == pytest.approx(1 / (1 + np.exp(-scores)))
    elvis = load_model("rootsift_elvis_binary")
    logits = elvis.logits(torch.tensor([0.0, 12.5])).detach().numpy()
    assert sameness(PairScorer(elvis), np.float32([0, 12.5])) == pytest.approx(1 / (1 + np.exp(-logits)))


def test_what_is_refused(folder, tmp_path):
    for value in (0, 1, 1.5):
        with pytest.raises(AmesError, match=r"is outside \(0, 1\)"):
            find_duplicates(folder / "db", threshold=value)
    index_photos(folder / "photos", tmp_path / "full", "rootsift_ames", workers=0)
    with pytest.raises(AmesError, match="no threshold was measured for rootsift_ames; give --threshold"):
        find_duplicates(tmp_path / "full")
    assert find_duplicates(tmp_path / "full", threshold=0.9).copies == 1


def test_a_collection_that_may_only_be_read(folder, index, monkeypatch):
    wanted = mutual_pairs(index.database, index.reranker.scorer, threshold=0.5)
    used = []

    def noted(place, key):
        used.append(place)
        return ScoreCache(place, key)

    monkeypatch.setattr(duplicates.os, "access", lambda *_: False)
    monkeypatch.setattr(duplicates, "ScoreCache", noted)
    found = mutual_pairs(index.database, index.reranker.scorer, threshold=0.5)
    assert used[0].parent != folder
    assert not used[0].parent.exists()
    assert list(zip(found.first, found.second, found.same, strict=True)) == list(
        zip(wanted.first, wanted.second, wanted.same, strict=True)
    )
    assert len(found.first) >= SCENES - 2
