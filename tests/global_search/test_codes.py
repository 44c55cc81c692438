"""Codes of global descriptors: what they find, what they leave out, what is refused."""

import numpy as np
import pytest

from ames.errors import AmesError
from ames.global_search.codes import GlobalCodec
from ames.global_search.exact import search
from helpers.clusters import unit

FACTORIES = ["Flat", "SQfp16", "SQ8", "SQ4", "PCA16,SQ8", "RaBitQ", "IVF8,SQ8", "PCA16,IVF8,SQ8", "PQ8x4"]


def recall(found, exact, k):
    return np.mean([len(set(a[:k]) & set(b[:k])) / k for a, b in zip(found, exact, strict=True)])


@pytest.mark.parametrize("factory", FACTORIES)
def test_codes_find_about_what_exact_search_finds(factory):
    x, q = unit(1000), unit(20, seed=1)
    codec = GlobalCodec.fit(x, factory)
    codes = codec.encode(x)
    assert codes.shape == (1000, codec.code_bytes)
    assert codes.dtype == np.uint8
    found = codec.index(codes, np.ones(1000, bool)).search(q, 50)
    exact = search(q, x, 50)
    least = {"RaBitQ": 0.5, "PQ8x4": 0.4}.get(factory, 0.85 if "PCA" not in factory else 0.6)
    assert recall(found.ids, exact.ids, 50) > least
    if factory == "Flat":
        np.testing.assert_array_equal(found.ids, exact.ids)
        np.testing.assert_allclose(found.similarities, exact.similarities, atol=1e-6)
    assert (np.diff(found.similarities, axis=1) <= 0).all()


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_codec_is_the_same_after_it_was_stored(factory):
    x, q = unit(600), unit(5, seed=1)
    codec = GlobalCodec.fit(x, factory)
    again = GlobalCodec.from_bytes(codec.to_bytes())
    np.testing.assert_array_equal(codec.encode(x), again.encode(x))
    everything = np.ones(600, bool)
    a, b = (c.index(c.encode(x), everything).search(q, 9) for c in (codec, again))
    np.testing.assert_array_equal(a.ids, b.ids)


@pytest.mark.parametrize("factory", ["SQ8", "PCA16,SQ8", "IVF8,SQ8"])
def test_rows_that_are_not_present_never_come(factory):
    x = unit(500)
    codec = GlobalCodec.fit(x, factory)
    present = np.arange(500) % 3 > 0
    index = codec.index(codec.encode(x), present)
    found = index.search(x[:30], 500, nprobe=8)
    assert found.ids.shape == (30, 500)
    named = [set(row[row >= 0]) for row in found.ids]
    assert all(names == set(np.flatnonzero(present)) for names in named)
    assert (found.ids[:, present.sum() :] == -1).all()
    assert (found.similarities[:, present.sum() :] == -1).all()


def test_a_query_without_keypoints_finds_nothing():
    x = unit(50)
    codec = GlobalCodec.fit(x, "SQ8")
    index = codec.index(codec.encode(x), np.ones(50, bool))
    queries = np.concatenate((np.zeros((1, 32), np.float32), x[:1]))
    found = index.search(queries, 5)
    assert found.ids[0].tolist() == [-1] * 5
    assert found.ids[1, 0] == 0
    assert (index.search(queries[:1], 5).ids == -1).all()
    nothing = codec.index(codec.encode(x), np.zeros(50, bool)).search(queries, 5)
    assert (nothing.ids == -1).all()


def test_more_lists_find_more():
    x, q = unit(2000), unit(50, seed=1)
    codec = GlobalCodec.fit(x, "IVF32,SQ8")
    index = codec.index(codec.encode(x), np.ones(2000, bool))
    exact = search(q, x, 20)
    few, many = (recall(index.search(q, 20, nprobe=n).ids, exact.ids, 20) for n in (1, 32))
    assert few < many
    assert many > 0.95


@pytest.mark.parametrize(
    ("factory", "vectors", "message"),
    [
        ("nonsense", unit(50), "global factory 'nonsense': "),
        ("HNSW32", unit(50), "'HNSW32': a IndexHNSWFlat cannot be kept as codes"),
        ("IVF8,PQ8x4fs", unit(400), "cannot be kept as codes"),
        ("PQ8x4fs", unit(400), "cannot be kept as codes"),
        ("SQ8,RFlat", unit(400), "cannot be kept as codes"),
        ("PCAW8,SQ8", unit(400), "whitening changes the similarity"),
        ("PQ8x0", unit(50), "a size of 0"),
        ("PCA0,SQ8", unit(50), "a size of 0"),
        ("IVF64,SQ8", unit(20), "'IVF64,SQ8' cannot be fitted on 20 vectors: Number of training points"),
        ("SQ8", np.zeros((9, 32), np.float32), "no global descriptors to fit a codec on"),
        ("SQ8", np.full((9, 32), np.nan, np.float32), "not finite"),
    ],
)
def test_what_cannot_be_fitted(factory, vectors, message):
    with pytest.raises(AmesError, match=message):
        GlobalCodec.fit(vectors, factory)


def test_pca_keeps_inner_products_of_vectors_with_a_mean():
    """What FAISS's own training would subtract is a part of the similarity."""
    x = unit(1000) + 0.5 * unit(1, seed=5)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    codec = GlobalCodec.fit(x, "PCA32,SQ8")  # all 32 dimensions: a rotation
    found = codec.index(codec.encode(x), np.ones(1000, bool)).search(x[:20], 50)
    exact = search(x[:20], x, 50)
    assert recall(found.ids, exact.ids, 50) > 0.95
    np.testing.assert_allclose(found.similarities, exact.similarities, atol=0.01)


def test_vectors_that_are_not_finite_are_not_encoded():
    codec = GlobalCodec.fit(unit(50), "SQ8")
    with pytest.raises(AmesError, match="not finite"):
        codec.encode(np.full((1, 32), np.inf, np.float32))


def test_vectors_of_another_width():
    x = unit(50)
    codec = GlobalCodec.fit(x, "SQ8")
    index = codec.index(codec.encode(x), np.ones(50, bool))
    with pytest.raises(AmesError, match=r"\(3, 8\), the codec takes \(n, 32\)"):
        codec.encode(np.zeros((3, 8), np.float32))
    with pytest.raises(AmesError, match=r"queries are \(3, 8\), the database's vectors \(n, 32\)"):
        index.search(np.ones((3, 8), np.float32), 2)


def test_bytes_that_are_no_codec():
    import faiss

    whole = GlobalCodec.fit(unit(50), "SQ8").to_bytes()
    full = faiss.IndexFlatIP(4)
    full.add(np.eye(4, dtype=np.float32))
    for data in (b"", b"nonsense of some length", whole[:40], faiss.serialize_index(full).tobytes()):
        with pytest.raises(AmesError, match="not a codec"):
            GlobalCodec.from_bytes(data)


def test_codes_are_decoded_to_vectors_of_unit_length():
    vectors = np.random.default_rng(3).normal(size=(300, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for factory, error in (("Flat", 1e-6), ("SQfp16", 1e-3), ("SQ8", 0.02), ("PCA16,SQ8", 0.02)):
        codec = GlobalCodec.fit(vectors, factory)
        decoded = codec.decode(codec.encode(vectors))
        assert np.abs(decoded - vectors).max() < error
        assert np.linalg.norm(decoded, axis=1) == pytest.approx(1, abs=1e-3)  # TOLERANCE of ``unit``
