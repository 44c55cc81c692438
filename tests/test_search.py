"""Global search against a full sort."""

import numpy as np
import pytest

from ames.errors import AmesError
from ames.search import search


def units(n, dim, seed):
    x = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def naive(queries, gallery):
    similarities = queries.astype(np.float64) @ gallery.astype(np.float64).T
    similarities[:, ~gallery.any(1)] = -1
    similarities[~queries.any(1)] = -1
    ids = np.argsort(-similarities.round(12), axis=1, kind="stable")  # equal ones by id
    return ids, np.take_along_axis(similarities, ids, 1)


@pytest.mark.parametrize("block", [4, 1024])
@pytest.mark.parametrize("k", [1, 17, 50, 99, None])
def test_it_is_a_full_sort(k, block):
    queries, gallery = units(30, 8, 0), units(50, 8, 1)
    found = search(queries, gallery, k, block=block)
    ids, similarities = naive(queries, gallery)
    k = 50 if k is None else min(k, 50)
    assert found.ids.shape == (30, k)
    np.testing.assert_array_equal(found.ids, ids[:, :k])
    np.testing.assert_allclose(found.similarities, similarities[:, :k], atol=1e-6)


def whole_numbers(n, seed):
    """Vectors of a few small whole numbers: many exactly equal similarities."""
    x = np.random.default_rng(seed).integers(-1, 2, (n, 4)).astype(np.float32)
    x[:, 0] = 1  # none is zero by chance
    return x / 4


@pytest.mark.parametrize("k", [1, 2, 5, 20, 59, 60])
@pytest.mark.parametrize("blank", [0, 7])
def test_ties_are_ordered_by_id_also_at_the_cut(k, blank):
    queries, gallery = whole_numbers(25, 0), whole_numbers(60, 1)
    gallery[3 : 3 + blank] = 0
    queries[4] = 0 if blank else queries[4]
    ids, similarities = naive(queries, gallery)
    assert (similarities[:, 0] == similarities[:, 1]).any()
    found = search(queries, gallery, k)
    np.testing.assert_array_equal(found.ids, ids[:, :k])
    np.testing.assert_array_equal(found.similarities, similarities[:, :k].astype(np.float32))


def test_an_image_without_a_vector_comes_last_even_where_others_are_opposite():
    gallery = np.float32([[0, 0], [-1, 0], [0.6, 0.8], [0, 0]])
    found = search(np.float32([[1, 0], [0, 0]]), gallery)
    assert found.ids[0].tolist() == [2, 0, 1, 3]  # -1 is the least there is: ties by id
    assert found.similarities[0].tolist() == pytest.approx([0.6, -1, -1, -1])
    assert found.ids[1].tolist() == [0, 1, 2, 3]
    assert found.similarities[1].tolist() == [-1] * 4


def test_the_blank_ones_do_not_push_real_ones_out_of_the_cut():
    gallery = np.concatenate((np.zeros((5, 2), np.float32), np.float32([[-0.6, 0.8], [-0.8, 0.6]])))
    assert search(np.float32([[1, 0]]), gallery, 2).ids.tolist() == [[5, 6]]


def test_widths_that_differ():
    with pytest.raises(AmesError, match="queries have 3-d global descriptors, the gallery 4-d"):
        search(units(1, 3, 0), units(2, 4, 0))
