"""The inverted file against figures of the released ASMK and a twin in plain dicts; what it may refuse."""

import math

import numpy as np
import pytest
import torch

from ames.errors import AmesError, NotFiniteError
from ames.features import LocalFeatures
from ames.local_search.aggregation import aggregate_images, packed, unit
from ames.local_search.codebook import Codebook
from ames.local_search.inverted_file import InvertedFile
from ames.local_search.kernel import Kernel
from golden import asmk
from helpers.visual_words import axes, planted, some

TOLERANCE = asmk.FIGURES["tolerance"]


def by_name(case):
    return case["name"]


def index_of(case, binary, **changes):
    index = InvertedFile(asmk.codebook(case), asmk.kernel(case, binary, **changes))
    images, queries = asmk.image_sets(case)
    index.add(asmk.local(images))
    return index, asmk.local(queries)


# ---- figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [False, True], ids=["real", "binary"])
@pytest.mark.parametrize("case", asmk.CASES, ids=by_name)
def test_scores_and_rankings_of_the_released_code(case, binary):
    figures = case["binary" if binary else "real"]
    index, queries = index_of(case, binary)
    np.testing.assert_allclose(np.stack([*index.scores(queries)]), figures["scores"], atol=TOLERANCE)
    ids, similarities = index.search(queries)
    assert [row[s > 0].tolist() for row, s in zip(ids, similarities, strict=True)] == figures["ranking"]
    assert index._counts.tolist() == figures["norm_factor"]
    assert len(index._merged().images) == sum(figures["norm_factor"])
    assert sum(map(len, asmk.image_sets(case)[0])) == case["vectors"]


@pytest.mark.parametrize("binary", [False, True], ids=["real", "binary"])
@pytest.mark.parametrize("case", asmk.CASES, ids=by_name)
def test_idf_of_the_released_code(case, binary):
    figures = case["binary" if binary else "real"]
    index, queries = index_of(case, binary, idf=True)
    np.testing.assert_allclose(index.idf, figures["idf"], atol=TOLERANCE)
    np.testing.assert_allclose(np.stack([*index.scores(queries)]), figures["scores_idf"], atol=TOLERANCE)
    ids, similarities = index.search(queries)
    assert [row[s > 0].tolist() for row, s in zip(ids, similarities, strict=True)] == figures["ranking_idf"]


@pytest.mark.parametrize("case", asmk.CASES, ids=by_name)
def test_words_and_vectors_of_the_first_image(case):
    codebook, (images, _) = asmk.codebook(case), asmk.image_sets(case)
    assert codebook.assign(images[0], case["db_assign"]).tolist() == case["words_of_image_0"]
    (found,) = aggregate_images(
        asmk.local(images[:1]), torch.from_numpy(codebook.centroids), case["db_assign"]
    )
    for figures in (case["real"], case["binary"]):
        assert found.words.tolist() == figures["words"]
    first = unit(found.vectors)[0, :4].numpy()
    np.testing.assert_allclose(first, case["real"]["vector_first_first4"], atol=TOLERANCE)
    assert words32(packed(found.vectors)[:2]).tolist() == case["binary"]["packed_first2"]


def words32(codes):
    """Packed bytes as the released 32-bit integers, the first bit the most significant."""
    filled = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 4)))
    return filled.view(">u4")


@pytest.mark.parametrize("case", asmk.FIGURES["hamming"], ids=lambda case: str(case["dim"]))
def test_hamming_distances_of_the_released_code(case):
    """Through one word at the origin, alpha 1: the score is 1 - 2 distance, of distances below a half."""
    a, b = (asmk.drawn((case[x], case["dim"]), case["seed"] + i) for i, x in enumerate("ab"))
    assert words32(packed(torch.from_numpy(a)))[0].tolist() == case["packed_first"]
    for padded, distances in ((True, case["distance"]), (False, case["distance_true_dim"])):
        kernel = Kernel(alpha=1.0, query_assign=1, released_padding=padded)
        index = InvertedFile(Codebook(np.zeros((1, case["dim"]), np.float32)), kernel)
        index.add(LocalFeatures.from_descriptors(torch.from_numpy(b)[:, None]))
        found = np.stack([*index.scores(LocalFeatures.from_descriptors(torch.from_numpy(a)[:, None]))])
        np.testing.assert_allclose(found, np.maximum(1 - 2 * np.array(distances), 0), atol=1e-6)


# ---- a twin ----------------------------------------------------------------------------------------


def twin(images, queries, centroids, kernel):
    """Similarities [Q][n] in float64, image by image and word by word."""

    def words(vectors, assign):
        found = {}
        for x in vectors:
            order = np.argsort(((x - centroids) ** 2).sum(1), kind="stable")
            for word in order[:assign]:
                found.setdefault(int(word), []).append(x - centroids[word])
        return {word: code(np.sum(parts, 0)) for word, parts in found.items()}

    def code(v):
        return np.where(v > 0, 1, -1) if kernel.binary else v / (np.linalg.norm(v) + 1e-6)

    def u(a, b):
        pad = kernel.bits(len(a)) - len(a)
        sigma = (a @ b + pad) / kernel.bits(len(a)) if kernel.binary else a @ b
        return sigma**kernel.alpha if sigma >= kernel.threshold else 0

    held = [words(x, kernel.db_assign) for x in images]

    def weight(word):
        having = sum(word in one for one in held)
        return math.log(len(held) / having) ** 2 if kernel.idf and having else 1

    def norm(one):
        return math.sqrt(sum(map(weight, one)))

    rows = []
    for query in (words(x, kernel.query_assign) for x in queries):
        row = []
        for one in held:
            total = sum(weight(w) * u(query[w], one[w]) for w in query.keys() & one.keys())
            row.append(total / (norm(query) * norm(one)) if total else 0)
        rows.append(row)
    return np.array(rows)


SETTINGS = [
    {"binary": True},
    {"binary": False},
    {"binary": True, "idf": True, "released_padding": False},
    {"binary": False, "idf": True, "alpha": 1.5, "threshold": 0.3, "db_assign": 2},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dim", [20, 64])
def test_similarities_of_a_twin_in_dicts(settings, dim):
    centroids = 0.5 * asmk.unit(asmk.drawn((30, dim), 3))
    kernel = Kernel(query_assign=3, **settings)
    images, queries = some(12, dim, 1), some(4, dim, 2)
    images[5] = queries[0]
    index = InvertedFile(Codebook(centroids), kernel)
    index.add(asmk.local(images))
    expected = twin(images, queries, centroids.astype(np.float64), kernel)
    np.testing.assert_allclose(np.stack([*index.scores(asmk.local(queries))]), expected, atol=1e-6)
    ids, similarities = index.search(asmk.local(queries), 7)
    for row, found, values in zip(expected.astype(np.float32), ids, similarities, strict=True):
        np.testing.assert_allclose(values, np.sort(row)[::-1][:7], atol=1e-6)
        np.testing.assert_allclose(row[found], values, atol=1e-6)
    assert not expected[1].any()  # a query without descriptors
    assert ids[1].tolist() == list(range(7))


def test_an_image_is_as_similar_to_itself_as_can_be():
    images = some(6, 32, 4)
    for binary in (True, False):
        index = InvertedFile(
            Codebook(asmk.unit(asmk.drawn((16, 32), 3))), Kernel(binary=binary, query_assign=1)
        )
        index.add(asmk.local(images))
        own = np.stack([*index.scores(asmk.local(images))]).diagonal()
        np.testing.assert_allclose(own, [1, 0, 1, 1, 1, 1], atol=1e-5)


# ---- adding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_added_later_in_any_order_is_as_all_at_once(settings):
    codebook, kernel = Codebook(asmk.unit(asmk.drawn((16, 24), 3))), Kernel(query_assign=3, **settings)
    images, queries = asmk.local(some(10, 24, 1)), asmk.local(some(3, 24, 2))
    whole, parts = InvertedFile(codebook, kernel), InvertedFile(codebook, kernel)
    whole.add(images)
    given = np.array([9, 2, 4])
    for ids in (given, np.array([0, 1, 3, 5, 6]), np.array([], int), np.array([7, 8])):
        parts.add(images[ids], ids)
        parts.search(queries)
    assert given.tolist() == [9, 2, 4]
    for a, b in zip(whole.search(queries), parts.search(queries), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("offsets", "images", "codes"):
        np.testing.assert_array_equal(getattr(whole._merged(), name), getattr(parts._merged(), name))


def test_ids_that_were_never_added_are_not_found():
    images = asmk.local(some(3, 8, 1))
    index = InvertedFile(Codebook(asmk.drawn((4, 8), 3)), Kernel(query_assign=2, idf=True))
    index.add(images, np.array([7, 0, 3]))
    assert len(index) == 3
    ids, _ = index.search(images, 5)
    assert np.sort(ids, 1).tolist() == [[0, 3, 7]] * 3
    index.add(images)  # the next ones
    assert set(index.search(images)[0][0]) == {0, 3, 7, 8, 9, 10}


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([0, 1, 9], "image 9 is added twice"),
        ([4, 5, 4], "image 4 is added twice"),
        ([0, 1], "one for each image"),
        ([0.0, 1.0, 2.0], "give whole numbers"),
        ([-1, 1, 2], "numbers from 0"),
        ([0, 1, 2**31], "numbers from 0"),
    ],
)
def test_ids_that_are_refused(ids, said):
    images = asmk.local(some(3, 8, 1))
    index = InvertedFile(Codebook(asmk.drawn((4, 8), 3)), Kernel(query_assign=1))
    index.add(images[:1], np.array([9]))
    with pytest.raises(AmesError, match=said):
        index.add(images, np.array(ids))
    assert len(index) == 1


# ---- search ----------------------------------------------------------------------------------------


def test_ties_are_in_rising_order_of_id_also_at_the_cut():
    index = axes(binary=False)
    index.add(asmk.local([planted(1), planted(0), planted(2), planted(0), planted(0, 3), planted(0)]))
    ids, similarities = index.search(asmk.local([planted(0)]), 6)
    assert ids.tolist() == [[1, 3, 5, 4, 0, 2]]
    np.testing.assert_allclose(similarities, [[1, 1, 1, 0.5**0.5, 0, 0]], atol=1e-4)
    assert index.search(asmk.local([planted(0)]), 2)[0].tolist() == [[1, 3]]
    assert index.search(asmk.local([planted(0)]), 5)[0].tolist() == [[1, 3, 5, 4, 0]]
    assert index.search(asmk.local([planted(0)]), 100)[0].shape == (1, 6)
    assert index.search(asmk.local([planted(5)]), 3)[0].tolist() == [[0, 1, 2]]  # no common word


def test_an_empty_index_finds_nothing():
    ids, similarities = axes().search(asmk.local([planted(0)]), 3)
    assert ids.shape == similarities.shape == (1, 0)


def test_a_word_that_all_images_have_weighs_nothing():
    index = axes(idf=True)
    index.add(asmk.local([planted(0), planted(0, 1)]))
    assert index.idf.tolist() == [0, math.log(2) ** 2, 1, 1, 1, 1, 1, 1]
    ids, similarities = index.search(asmk.local([planted(0), planted(1)]))
    assert ids.tolist() == [[0, 1], [1, 0]]
    np.testing.assert_allclose(similarities, [[0, 0], [1, 0]], atol=1e-6)


def test_lists_in_pieces_are_as_whole_ones(monkeypatch):
    images, queries = asmk.local(some(10, 24, 1)), asmk.local(some(3, 24, 2))
    for binary in (True, False):
        index = InvertedFile(Codebook(asmk.unit(asmk.drawn((16, 24), 3))), Kernel(binary=binary))
        index.add(images)
        whole = np.stack([*index.scores(queries)])
        monkeypatch.setattr("ames.local_search.postings._ENTRIES", 7)
        monkeypatch.setattr("ames.local_search.postings._CACHED", 48)
        monkeypatch.setattr("ames.local_search.aggregation._ROWS", 20)
        again = InvertedFile(index.codebook, index.kernel)
        again.add(images)
        np.testing.assert_allclose(np.stack([*again.scores(queries)]), whole, atol=1e-6)
        monkeypatch.undo()


def test_bits_are_counted_without_the_function_of_numpy_2(monkeypatch):
    from ames.local_search.postings import _bits

    numbers = np.array([0, 1, 2**64 - 1, 0x0F0F], np.uint64)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert _bits(numbers).tolist() == [0, 1, 64, 8]


def test_wrong_input_is_one_line():
    index = axes()
    with pytest.raises(AmesError, match=r"descriptors are 9-d, the codebook takes 8-d"):
        index.add(LocalFeatures.from_descriptors(torch.ones(1, 2, 9)))
    with pytest.raises(AmesError, match="expected"):
        index.add(LocalFeatures.from_descriptors(torch.ones(2, 8)))
    with pytest.raises(AmesError, match="0 images a query were asked for"):
        index.search(asmk.local([planted(0)]), 0)
    broken = asmk.local([planted(0), planted(1)])
    broken.descriptors[1, 0, 3] = torch.nan
    for call in (index.add, index.search):
        with pytest.raises(NotFiniteError, match="image 1"):
            call(broken)
    assert len(index) == 0
    with pytest.raises(AmesError, match="5 words a descriptor were asked for: the codebook has 4"):
        InvertedFile(Codebook(np.ones((4, 2), np.float32)))
    for wrong in (
        {"alpha": 0.0},
        {"threshold": 1.5},
        {"query_assign": 0},
        {"binary": 1},
        {"alpha": math.nan},
    ):
        with pytest.raises(AmesError, match=f"{next(iter(wrong))} is"):
            Kernel(**wrong)
