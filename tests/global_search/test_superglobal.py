"""SuperGlobal against the released code's figures and a twin in plain loops, and the shortlist that it
re-ranks.
"""

import numpy as np
import pytest
import torch

from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import write_globals
from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.global_search import build as shortlists
from ames.global_search.build import rerank
from ames.global_search.exact import search
from ames.global_search.shortlist import Shortlist
from ames.global_search.superglobal import Reranking, pool, refine, rescore
from golden import qe as golden


def units(*shape, seed=0):
    x = np.random.default_rng(seed).standard_normal(shape)
    return torch.from_numpy(x / np.linalg.norm(x, axis=-1, keepdims=True))


@pytest.mark.parametrize("settings", [{"top": 0}, {"beta": float("nan")}, {"beta": -1}, {"neighbours": -1}])
def test_what_makes_no_sense(settings):
    with pytest.raises(AmesError, match="top is 1 or more, neighbours and beta 0 or more"):
        Reranking(**settings)


@pytest.mark.parametrize("case", golden.CASES["superglobal"], ids=lambda case: case["seed"])
def test_the_released_codes_figures(case):
    queries, gallery = golden.vectors(case)
    settings = Reranking(top=case["M"], neighbours=case["K"], beta=case["beta"])
    close = {"rtol": 0, "atol": golden.CASES["tolerance"]}
    found = search(queries, gallery)
    head = found.ids[:, : case["M"]]
    np.testing.assert_array_equal(head[:, :6], case["shortlist_first6"])
    candidates = torch.from_numpy(gallery[head])
    refined = refine(candidates, torch.ones(head.shape, dtype=torch.bool), settings)
    np.testing.assert_allclose(refined[:, 0, :6], case["refined_first_first6"], **close)
    first = torch.einsum("bg,bmg->bm", torch.from_numpy(queries), refined)
    np.testing.assert_allclose(first[:, :6], case["score_1"], **close)
    order = first.argsort(dim=1, descending=True).numpy()
    refined_ranking = np.take_along_axis(head, order, 1)[:, :6]
    np.testing.assert_array_equal(refined_ranking, case["ranking_after_refinement"])
    after = reranked(found, queries, gallery, settings)
    np.testing.assert_allclose(after.similarities[:, :6], case["final_score"], **close)
    np.testing.assert_array_equal(after.ids[:, : case["M"]], case["ranking"])
    np.testing.assert_array_equal(after.ids[:, case["M"] :], found.ids[:, case["M"] :])


def best_first(values, places):
    """Stable: equal ones as they were."""
    return sorted(places, key=lambda j: -values[j])


def twin(query, candidates, there, settings):
    """Scores of one query's candidates, and the refined ones, by loops."""
    m = len(candidates)
    refined = np.empty_like(candidates)
    for i in range(m):
        similar = candidates @ candidates[i]
        near = best_first(similar, [j for j in range(m) if j != i and there[j]])[: settings.neighbours]
        total, weight = candidates[i].copy(), 1.0
        for j in near:
            total += settings.beta * similar[j] * candidates[j]
            weight += settings.beta * similar[j]
        refined[i] = total / weight if weight > 0 else candidates[i]
    first = refined @ query
    near = best_first(first, [j for j in range(m) if there[j]])[: settings.neighbours + 1]
    pooled = np.max([refined[j] for j in near], axis=0) if near else np.zeros(len(query))
    return np.where(there, (first + refined @ pooled) / 2, -np.inf), refined, pooled


@pytest.mark.parametrize("neighbours", [0, 3, 9, 50])
@pytest.mark.parametrize(("m", "missing"), [(12, 0), (12, 4), (12, 12), (1, 0), (2, 0), (10, 0)])
def test_rescoring(neighbours, m, missing):
    settings = Reranking(neighbours=neighbours)
    queries, candidates = units(4, 6, seed=1), units(4, m, 6, seed=2)
    there = torch.ones(4, m, dtype=torch.bool)
    there[1, m - missing :] = False
    scores = rescore(queries, candidates, there, settings)
    refined = refine(candidates, there, settings)
    first = torch.einsum("bg,bmg->bm", queries, refined).masked_fill(~there, -torch.inf)
    pooled = pool(refined, first, settings)
    for b in range(4):
        expected = twin(queries[b].numpy(), candidates[b].numpy(), there[b].numpy(), settings)
        for found, value in zip((scores[b], refined[b], pooled[b]), expected, strict=True):
            np.testing.assert_allclose(found, value, atol=1e-12)


def test_neighbours_that_tie_are_taken_in_the_shortlists_order():
    """Of whole numbers: products are exact, many are equal."""
    settings = Reranking(neighbours=2, beta=0.0625)
    rng = np.random.default_rng(0)
    candidates = rng.integers(-1, 2, (3, 10, 4)).astype(np.float64)
    queries = rng.integers(-1, 2, (3, 4)).astype(np.float64)
    there = np.ones(10, bool)
    scores = rescore(
        torch.from_numpy(queries), torch.from_numpy(candidates), torch.ones(3, 10).bool(), settings
    )
    for b in range(3):
        np.testing.assert_allclose(scores[b], twin(queries[b], candidates[b], there, settings)[0], atol=1e-12)


def test_an_image_and_its_opposites_stay_finite():
    """Weights are 1 and -1, or more of them: their sum is 0 or less."""
    candidates = torch.tensor([[[1.0, 0], [-1, 0], [-1, 0]]], dtype=torch.float64)
    there = torch.ones(1, 3, dtype=torch.bool)
    found = refine(candidates, there, Reranking(neighbours=2, beta=0.5))
    # 1 - 0.5 - 0.5 = 0: the first stays; the others: (-1 + 0.5 * -1 + -0.5 * 1) / (1 + 0.5 - 0.5)
    np.testing.assert_allclose(found[0, :, 0], [1, -2, -2])
    assert refine(candidates, there, Reranking(neighbours=2, beta=3)).isfinite().all()


def test_without_neighbours_the_best_candidate_is_the_pooled_one():
    queries, candidates = units(2, 5), units(2, 7, 5, seed=1)
    there = torch.ones(2, 7, dtype=torch.bool)
    plain = torch.einsum("bg,bmg->bm", queries, candidates)
    best = candidates[torch.arange(2), plain.argmax(1)]
    expected = (plain + torch.einsum("bg,bmg->bm", best, candidates)) / 2
    torch.testing.assert_close(rescore(queries, candidates, there, Reranking(neighbours=0)), expected)
    torch.testing.assert_close(refine(candidates, there, Reranking(beta=0)), candidates)


def reranked(found, queries, gallery, settings):
    return rerank(found, Vectors.of(queries), Vectors.of(gallery), settings)


def made(q=5, n=40, width=8):
    queries, gallery = (units(size, width, seed=s).float().numpy() for s, size in enumerate((q, n)))
    return queries, gallery, search(queries, gallery)


@pytest.mark.parametrize("top", [1, 7, 40, 400])
@pytest.mark.parametrize("bytes_", [1, 1 << 27])
def test_a_shortlist(monkeypatch, top, bytes_):
    monkeypatch.setattr("ames.global_search.build._BYTES", bytes_)
    queries, gallery, found = made()
    settings = Reranking(top=top)
    after = reranked(found, queries, gallery, settings)
    m = min(top, 40)
    for b in range(5):
        head = found.ids[b, :m]
        scores = twin(queries[b].astype(float), gallery[head].astype(float), np.ones(m, bool), settings)[0]
        order = np.argsort(-scores, kind="stable")
        np.testing.assert_array_equal(after.ids[b, :m], head[order])
        np.testing.assert_allclose(after.similarities[b, :m], scores[order], atol=1e-6)
    np.testing.assert_array_equal(after.ids[:, m:], found.ids[:, m:])
    assert (np.diff(after.similarities, axis=1) <= 0).all()
    steps = [np.diff(x.similarities[:, m:], axis=1) for x in (after, found)]
    np.testing.assert_allclose(*steps, atol=1e-6)


def test_what_is_behind_does_not_stand_above_by_a_rounding():
    rng = np.random.default_rng(0)
    found = np.tile(np.arange(30), (500, 1)), -np.sort(-rng.uniform(0.1, 0.9, (500, 30)).astype(np.float32))
    scores = rng.uniform(-0.2, 0.9, (500, 10)).astype(np.float32)
    ids, similarities = shortlists._reordered(*found, scores)
    assert (np.diff(similarities, axis=1) <= 0).all()
    np.testing.assert_array_equal(ids[:, 10:], np.tile(np.arange(10, 30), (500, 1)))


def test_of_a_single_entry_the_order_stays():
    queries, gallery, found = made()
    np.testing.assert_array_equal(reranked(found, queries, gallery, Reranking(top=1)).ids, found.ids)


def test_images_without_a_vector_are_not_re_ranked():
    queries, gallery, _ = made()
    gallery[[3, 8]], queries[2] = 0, 0
    found = search(queries, gallery)
    after = reranked(found, queries, gallery, Reranking())
    np.testing.assert_array_equal(after.ids[:, -2:], found.ids[:, -2:])
    np.testing.assert_array_equal(after.ids[2], found.ids[2])
    np.testing.assert_array_equal(after.similarities[2], found.similarities[2])
    assert (np.diff(after.similarities, axis=1) <= 0).all()


def test_rows_without_entries():
    queries, gallery, found = made()
    ids, similarities = found.ids.copy(), found.similarities.copy()
    ids[0], similarities[0] = -1, np.nan
    ids[1, 4:], similarities[1, 4:] = -1, -1
    after = reranked(Shortlist(ids, similarities), queries, gallery, Reranking())
    assert (after.ids[0] == -1).all()
    assert sorted(after.ids[1, :4]) == sorted(ids[1, :4])
    assert (after.ids[1, 4:] == -1).all()


def test_lengths_of_vectors_change_neither_shortlist(tmp_path, caplog):
    """Similarities are cosines, whatever a file holds; each of its files is named once."""
    queries, gallery = (units(n, 16, seed=n).float().numpy() for n in (5, 40))
    gallery[7] = 0
    made = {}
    for name, length in (("unit", 1), ("raw", 45)):
        folder = DatasetFolder(tmp_path / name, "cvnet")
        folder.path.mkdir()
        write_globals(folder.vectors("query"), queries * length)
        write_globals(folder.vectors("gallery"), gallery * length)
        source = shortlists.Source(folder=folder)
        caplog.clear()
        first = shortlists.make(source)
        said = [x.message.split(": ")[0] for x in caplog.records]
        assert said == ([] if name == "unit" else [str(path) for path in source.files])
        made[name] = [
            Shortlist.load(path)
            for path in (first, shortlists.make_superglobal(source, first, Reranking(top=10)))
        ]
    for one, other in zip(made["unit"], made["raw"], strict=True):
        np.testing.assert_allclose(one.similarities, other.similarities, atol=1e-6)
        assert np.array_equal(one.ids, other.ids)
