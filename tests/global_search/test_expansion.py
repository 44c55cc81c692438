"""Query expansion and database augmentation against golden figures and a twin in plain loops."""

import math

import numpy as np
import pytest

from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.global_search.exact import search
from ames.global_search.expansion import (
    Expansion,
    augment,
    augment_blocks,
    expand_queries,
    search_expanded,
)
from ames.global_search.shortlist import Shortlist
from golden import qe as golden

CLOSE = {"rtol": 0, "atol": golden.CASES["tolerance"]}


def units(n, width, seed):
    return golden.unit(np.random.default_rng(seed).standard_normal((n, width)))


def expanded(queries, gallery, found, **settings):
    return expand_queries(Vectors.of(queries), Vectors.of(gallery), found, Expansion(**settings))


# ---- golden figures --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", golden.CASES["alpha_qe"], ids=lambda case: case["seed"])
def test_the_released_scripts_figures(case):
    queries, gallery = golden.vectors(case)
    settings = Expansion(neighbours=case["k"], alpha=case["alpha"])
    first = search(queries, gallery)
    np.testing.assert_array_equal(first.ids[:, : case["k"]], case["neighbours"])
    found = expand_queries(Vectors.of(queries), Vectors.of(gallery), first, settings)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, :6], case["expanded_first6"], **CLOSE)
    second = search_expanded(Vectors.of(queries), Vectors.of(gallery), first, settings)
    np.testing.assert_allclose(second.similarities[:, :6], case["similarities"], **CLOSE)
    np.testing.assert_array_equal(second.ids[:, :6], case["ranking"])
    assert second.ids.shape == first.ids.shape


@pytest.mark.parametrize("case", golden.CASES["dba"], ids=lambda case: case["seed"])
def test_the_figures_of_augmentation(case):
    queries, gallery = golden.vectors(case)
    found = augment(Vectors.of(gallery), Expansion(neighbours=case["k"], alpha=case["alpha"]), block=4)
    np.testing.assert_allclose(found[:4, :6], case["augmented_first6"], **CLOSE)
    # They are listed in the order of the images.
    np.testing.assert_allclose((queries @ found.T)[:, :6], case["similarities"], **CLOSE)
    np.testing.assert_array_equal(search(queries, found, 6).ids, case["ranking"])


# ---- twins -----------------------------------------------------------------------------------------


def twin(own, neighbours, alpha):
    """unit(own + sum of max(s, 0)^alpha x) by loops; neighbours: (similarity, vector) each."""
    if not own.any():
        return own
    total = [float(x) for x in own]
    for similarity, vector in neighbours:
        weight = max(similarity, 0.0) ** alpha
        total = [a + weight * float(b) for a, b in zip(total, vector, strict=True)]
    length = math.sqrt(sum(a * a for a in total))
    return np.array(total) / length if length else own


def nearest(x, gallery, k, without=None):
    """(similarity, image) of the k most similar; a zero vector is -1 to all; ties by number."""
    found = []
    for j, y in enumerate(gallery):
        if j != without:
            found.append((float(np.float32(x @ y)) if x.any() and y.any() else -1.0, j))
    return sorted(found, key=lambda one: (-one[0], one[1]))[:k]


def sets(kind):
    """(queries, gallery)."""
    rng = np.random.default_rng(7)
    if kind == "plain":
        return units(9, 6, 1), units(25, 6, 2)
    if kind == "ties":  # of half a unit in four dimensions: products are exact, many are equal
        pick = np.sign(rng.standard_normal((30, 4))).astype(np.float32) / 2
        return pick[:8], pick[5:]
    if kind == "zeros":
        queries, gallery = units(6, 5, 3), units(20, 5, 4)
        queries[2], gallery[[0, 7, 19]] = 0, 0
        return queries, gallery
    return units(3, 4, 5), units(1, 4, 6)  # one image


KINDS = ("plain", "ties", "zeros", "one image")


@pytest.mark.parametrize("alpha", [0, 0.3, 1, 3])
@pytest.mark.parametrize("k", [0, 1, 4, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_queries_against_a_twin(kind, k, alpha):
    queries, gallery = sets(kind)
    found = expanded(queries, gallery, search(queries, gallery), neighbours=k, alpha=alpha)
    for q, x in enumerate(queries):
        near = [(s, gallery[j]) for s, j in nearest(x, gallery, k)]
        np.testing.assert_allclose(found[q], twin(x, near, alpha), atol=2e-6)


@pytest.mark.parametrize("alpha", [0, 0.3, 1, 3])
@pytest.mark.parametrize("k", [0, 1, 4, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_a_gallery_against_a_twin(kind, k, alpha):
    gallery = sets(kind)[1]
    found = augment(Vectors.of(gallery), Expansion(neighbours=k, alpha=alpha), block=7)
    assert (found.shape, found.dtype) == (gallery.shape, np.float32)
    for i, x in enumerate(gallery):
        near = [(s, gallery[j]) for s, j in nearest(x, gallery, k, without=i)]
        np.testing.assert_allclose(found[i], twin(x, near, alpha), atol=2e-6)


@pytest.mark.parametrize("seed", range(5))
def test_random_sizes_against_a_twin(seed):
    rng = np.random.default_rng([seed, 1])
    n, q, width, k = (int(x) for x in rng.integers((2, 1, 2, 0), (60, 10, 20, 12)))
    queries, gallery = units(q, width, [seed, 2]), units(n, width, [seed, 3])
    settings = {"neighbours": min(k, n), "alpha": float(rng.uniform(0, 4))}
    found = expanded(queries, gallery, search(queries, gallery, min(k, n)), **settings)
    for x, made in zip(queries, found, strict=True):
        near = [(s, gallery[j]) for s, j in nearest(x, gallery, k)]
        np.testing.assert_allclose(made, twin(x, near, settings["alpha"]), atol=2e-6)


# ---- by hand ---------------------------------------------------------------------------------------

E1, E2, OPPOSITE = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def by_hand(*rows):
    return np.array(rows, np.float32)


def test_a_similarity_below_zero_counts_as_zero_and_the_average_takes_it():
    queries, gallery = by_hand(E1), by_hand(E2, OPPOSITE)
    first = search(queries, gallery)
    np.testing.assert_array_equal(expanded(queries, gallery, first, neighbours=2, alpha=0.3), [E1])
    # alpha 0: (1, 0) + (0, 1) + (-1, 0)
    np.testing.assert_allclose(expanded(queries, gallery, first, neighbours=2, alpha=0), [E2])


def test_a_sum_of_zero_leaves_the_vector():
    queries, gallery = by_hand(E1), by_hand(OPPOSITE)
    first = search(queries, gallery)
    np.testing.assert_array_equal(expanded(queries, gallery, first, neighbours=1, alpha=0), [E1])


def test_duplicates_of_an_image_are_its_neighbours_and_it_is_not():
    gallery = by_hand(E1, E1, E1, E2)
    found = augment(Vectors.of(gallery), Expansion(neighbours=1, alpha=1))
    np.testing.assert_allclose(found, gallery, atol=1e-7)
    # Two of the others of E2: both E1, similarity 0, alpha 0: (0, 1) + 2 (1, 0)
    found = augment(Vectors.of(gallery), Expansion(neighbours=2, alpha=0))
    np.testing.assert_allclose(found[3], np.array([2, 1]) / math.sqrt(5), atol=1e-7)
    np.testing.assert_allclose(found[:3], gallery[:3], atol=1e-7)


def test_more_duplicates_than_neighbours():
    """The image itself is beyond the k + 1 entries of its search."""
    gallery = np.repeat(units(2, 8, 0), 30, axis=0)
    found = augment(Vectors.of(gallery), Expansion(neighbours=3, alpha=1))
    np.testing.assert_allclose(found, gallery, atol=1e-6)


def test_empty_entries_count_for_nothing():
    gallery = by_hand(E2, E2)
    found = Shortlist(np.array([[-1, 1]]), np.array([[np.nan, 1]], np.float32))
    made = expanded(by_hand(E1), gallery, found, neighbours=2, alpha=0)
    np.testing.assert_allclose(made, [[0.5**0.5, 0.5**0.5]])


@pytest.mark.parametrize("bytes_", [1, 1 << 27])
def test_blocks_change_nothing(monkeypatch, bytes_):
    queries, gallery = units(20, 8, 1), units(50, 8, 2)
    first, settings = search(queries, gallery), {"neighbours": 5}
    whole = expanded(queries, gallery, first, **settings)
    augmented = augment(Vectors.of(gallery), Expansion(**settings))
    monkeypatch.setattr("ames.global_search.expansion._BYTES", bytes_)
    np.testing.assert_array_equal(expanded(queries, gallery, first, **settings), whole)
    parts = list(augment_blocks(Vectors.of(gallery), Expansion(**settings), first=12, block=10))
    assert [start for start, _ in parts] == [12, 22, 32, 42]
    np.testing.assert_allclose(np.concatenate([x for _, x in parts]), augmented[12:], atol=1e-6)


def test_a_gallery_without_images():
    empty = Vectors.of(np.empty((0, 4), np.float32))
    assert augment(empty, Expansion()).shape == (0, 4)
    found = search_expanded(
        Vectors.of(units(2, 4, 0)), empty, Shortlist(*(np.empty((2, 0), int),) * 2), Expansion()
    )
    assert found.ids.shape == (2, 0)


# ---- wrong input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"neighbours": -1}, "neighbours -1: give a whole number of 0 or more"),
        ({"neighbours": 2.5}, "neighbours 2.5: give a whole number"),
        ({"neighbours": True}, "neighbours True: give a whole number"),
        ({"alpha": -0.1}, "alpha -0.1: give a number of 0 or more"),
        ({"alpha": float("nan")}, "alpha nan: give a number of 0 or more"),
        ({"alpha": float("inf")}, "alpha inf: give a number of 0 or more"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(AmesError, match=message):
        Expansion(**settings)


def test_wrong_shortlists():
    queries, gallery = units(3, 4, 0), units(20, 4, 1)
    found = search(queries, gallery, 5)
    with pytest.raises(AmesError, match="shortlist: has 5 entries a query, 10 neighbours are asked for"):
        expanded(queries, gallery, found)
    with pytest.raises(AmesError, match="shortlist: 3 queries, but 2 in"):
        expanded(queries[:2], gallery, found, neighbours=5)
    with pytest.raises(AmesError, match="shortlist: of another gallery than"):
        expanded(queries, gallery[:1], found, neighbours=1)
    named = Shortlist(found.ids, found.similarities, {"gallery_size": 21})
    with pytest.raises(AmesError, match="which has 20 images: take the shortlist of this gallery"):
        expanded(queries, gallery, named, neighbours=1)


def test_weights_beyond_floats_are_said():
    found = Shortlist(np.array([[0]]), np.array([[2.0]], np.float32))
    with pytest.raises(AmesError, match=r"alpha 5000\.0: weights are not finite"):
        expanded(units(1, 4, 0), units(3, 4, 1), found, neighbours=1, alpha=5000.0)


def test_more_than_there_are_is_said(caplog):
    queries, gallery = units(2, 4, 0), units(3, 4, 1)
    expanded(queries, gallery, search(queries, gallery), neighbours=9)
    assert "9 neighbours asked for, there are 3: all are taken" in caplog.text
    augment(Vectors.of(gallery), Expansion(neighbours=8))
    assert "8 neighbours asked for, there are 2: all are taken" in caplog.text
