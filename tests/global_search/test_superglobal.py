"""SuperGlobal against twins in plain loops, what must not change, and the shortlist that it re-ranks."""

import numpy as np
import pytest
import torch

from ames.backbones.pooling import gem, pooled, regional_gem, relu_p
from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import write_globals
from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.global_search import build as shortlists
from ames.global_search.build import rerank_blocks
from ames.global_search.exact import search
from ames.global_search.shortlist import Shortlist
from ames.global_search.superglobal import Reranking, expand, refine, rescore


def positive(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.1, 2, shape))


def units(*shape, seed=0):
    x = np.random.default_rng(seed).standard_normal(shape)
    return torch.from_numpy(x / np.linalg.norm(x, axis=-1, keepdims=True))


# ---- pooling ---------------------------------------------------------------------------------------


def power_mean(values, p):
    return float(np.mean(np.asarray(values, np.float64) ** p) ** (1 / p))


def twin_regional(maps, p, size, share):
    reach = size // 2
    out = np.empty_like(maps)
    for b, c in np.ndindex(*maps.shape[:2]):
        wide = np.pad(maps[b, c], reach, mode="reflect")
        for i, j in np.ndindex(*maps.shape[2:]):
            around = power_mean(wide[i : i + size, j : j + size], p)
            out[b, c, i, j] = share * around + (1 - share) * maps[b, c, i, j]
    return out


def test_relu_p():
    assert relu_p(torch.tensor([-1.0, 0.01, 0.02])).tolist() == pytest.approx([0.014, 0.014, 0.02])
    assert relu_p(torch.tensor([-1.0, 2.0]), 0).tolist() == [0, 2]


@pytest.mark.parametrize("p", [1, 2.5, 4.6])
def test_gem(p):
    maps = positive(2, 3, 4, 5)
    expected = [[power_mean(maps[b, c], p) for c in range(3)] for b in range(2)]
    np.testing.assert_allclose(gem(maps, p), expected)


def test_gem_from_the_mean_to_the_maximum():
    maps = positive(2, 3, 4, 5).float() * 30
    torch.testing.assert_close(gem(maps, 1), maps.mean((2, 3)))
    torch.testing.assert_close(gem(maps, 2000), maps.amax((2, 3)), rtol=3e-3, atol=0)
    torch.testing.assert_close(gem(maps * 7), gem(maps) * 7)
    assert gem(torch.zeros(1, 2, 3, 3)).isfinite().all()


@pytest.mark.parametrize("shape", [(6, 7), (3, 3), (2, 5), (1, 4), (1, 1)])
@pytest.mark.parametrize(("p", "size", "share"), [(2.5, 5, 0.5), (1, 3, 0.3), (4, 1, 0.5)])
def test_regional_gem(shape, p, size, share):
    maps = positive(2, 3, *shape)
    found = regional_gem(maps, p, size=size, share=share)
    np.testing.assert_allclose(found, twin_regional(maps.numpy(), p, size, share), rtol=1e-6)


def test_regional_gem_leaves_an_even_map_and_a_window_of_one_cell():
    even = torch.full((1, 2, 6, 6), 0.7)
    torch.testing.assert_close(regional_gem(even), even)
    maps = positive(1, 2, 4, 4).float()
    torch.testing.assert_close(regional_gem(maps, size=1), maps)
    torch.testing.assert_close(regional_gem(maps, share=0), maps)
    assert regional_gem(torch.zeros(1, 1, 5, 5)).isfinite().all()


def test_the_pooling_is_its_steps():
    maps = positive(2, 6, 5, 7) - 0.5
    local = torch.from_numpy(twin_regional(maps.clamp(min=0.014).numpy(), 2.5, 5, 0.5))
    torch.testing.assert_close(pooled(maps), (local**4.6).mean((2, 3)) ** (1 / 4.6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gem(positive(1, 1, 2, 2), 0), "p is 0; give a number above 0"),
        (lambda: regional_gem(positive(1, 1, 2, 2), size=4), "windows of 4 x 4 have no middle"),
        (lambda: Reranking(top=0), "top is 1 or more"),
        (lambda: Reranking(beta=float("nan")), "neighbours and beta 0 or more"),
    ],
)
def test_what_makes_no_sense(call, message):
    with pytest.raises(AmesError, match=message):
        call()


# ---- re-ranking ------------------------------------------------------------------------------------


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
        weights = [settings.beta * max(similar[j], 0) for j in near]
        total = candidates[i] + sum((w * candidates[j] for w, j in zip(weights, near, strict=True)), 0)
        refined[i] = total / (1 + sum(weights))
        if settings.normalize:
            refined[i] /= np.linalg.norm(refined[i])
    first = refined @ query
    near = best_first(first, [j for j in range(m) if there[j]])[: settings.neighbours]
    expanded = np.max([query, *(refined[j] for j in near)], axis=0)
    if settings.normalize:
        expanded = expanded / np.linalg.norm(expanded)
    return np.where(there, (first + candidates @ expanded) / 2, -np.inf), refined, expanded


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("neighbours", [0, 3, 9, 50])
@pytest.mark.parametrize("missing", [0, 4])
def test_rescoring(neighbours, normalize, missing):
    settings = Reranking(neighbours=neighbours, normalize=normalize)
    queries, candidates = units(4, 6, seed=1), units(4, 12, 6, seed=2)
    there = torch.ones(4, 12, dtype=torch.bool)
    there[1, 12 - missing :] = False
    scores = rescore(queries, candidates, there, settings)
    refined = refine(candidates, there, settings)
    expanded = expand(
        queries,
        refined,
        torch.einsum("bg,bmg->bm", queries, refined).masked_fill(~there, -torch.inf),
        settings,
    )
    for b in range(4):
        expected = twin(queries[b].numpy(), candidates[b].numpy(), there[b].numpy(), settings)
        for found, value in zip((scores[b], refined[b], expanded[b]), expected, strict=True):
            np.testing.assert_allclose(found, value, atol=1e-12)


def test_neighbours_that_tie_are_taken_in_the_shortlists_order():
    """Of whole numbers: products are exact, many are equal."""
    settings = Reranking(neighbours=2, beta=0.25)
    rng = np.random.default_rng(0)
    candidates = rng.integers(-1, 2, (3, 10, 4)).astype(np.float64)
    queries = rng.integers(-1, 2, (3, 4)).astype(np.float64)
    there = np.ones(10, bool)
    scores = rescore(
        torch.from_numpy(queries), torch.from_numpy(candidates), torch.ones(3, 10).bool(), settings
    )
    for b in range(3):
        np.testing.assert_allclose(scores[b], twin(queries[b], candidates[b], there, settings)[0], atol=1e-12)


def test_no_weight_and_no_neighbours_is_the_search():
    queries, candidates = units(2, 5), units(2, 7, 5, seed=1)
    there = torch.ones(2, 7, dtype=torch.bool)
    plain = torch.einsum("bg,bmg->bm", queries, candidates)
    torch.testing.assert_close(rescore(queries, candidates, there, Reranking(neighbours=0)), plain)
    torch.testing.assert_close(refine(candidates, there, Reranking(beta=0)), candidates)


def reranked(found, queries, gallery, settings):
    blocks = rerank_blocks(found, Vectors.of(queries), Vectors.of(gallery), settings)
    ids, similarities = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Shortlist(ids, similarities)


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
