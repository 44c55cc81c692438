"""Global search against a full sort, in blocks of any size."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from ames.descriptors.local import write_globals
from ames.descriptors.unit_length import unit
from ames.descriptors.vectors import Vectors, digest
from ames.errors import AmesError
from ames.global_search import exact
from ames.global_search.exact import search, search_blocks
from helpers.commands import ROOT


def units(n, dim, seed):
    x = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def naive(queries, gallery, *, skip_self=False):
    similarities = queries.astype(np.float64) @ gallery.astype(np.float64).T
    similarities[:, ~gallery.any(1)] = -1
    similarities[~queries.any(1)] = -1
    if skip_self:
        np.fill_diagonal(similarities, -np.inf)
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
    """Vectors of unit length whose products are eighths: many exactly equal similarities."""
    return np.random.default_rng(seed).choice(np.float32([-0.25, 0.25]), (n, 16))


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


def in_blocks(queries, gallery, k, **sizes):
    found = list(search_blocks(Vectors.of(queries), Vectors.of(gallery), k, **sizes))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def assert_same(found, expected):
    """Similarities alike within 1e-6, and the same ids but for the order of images that are so close."""
    (ids, similarities), (other_ids, others) = found, expected
    np.testing.assert_allclose(similarities, others, atol=1e-6)
    for row, other, values in zip(ids, other_ids, others, strict=True):
        for group in np.split(np.arange(len(row)), np.flatnonzero(np.diff(values) < -1e-6) + 1):
            if len(row) - 1 not in group:  # the last group is cut
                assert set(row[group]) == set(other[group])


def test_block_sizes_change_only_rounding_and_a_call_is_repeatable():
    gallery = units(1501, 256, 0)
    gallery[np.unique([7, 1499, 1500, *range(0, 1501, 97)])] = gallery[7]
    expected = in_blocks(gallery[:130], gallery, 700)
    for sizes in ({"block": 64}, {"block": 7}, {"tile": 512}, {"tile": 333, "block": 100}):
        found = in_blocks(gallery[:130], gallery, 700, **sizes)
        assert_same(found, expected)
        for first, second in zip(found, in_blocks(gallery[:130], gallery, 700, **sizes), strict=True):
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("skip_self", [False, True])
@pytest.mark.parametrize("k", [1, 6, 150, None])
@pytest.mark.parametrize(("block", "tile"), [(100, 7), (7, 100), (64, 63), (200, 1000)])
def test_block_sizes_change_nothing(k, block, tile, skip_self):
    gallery = whole_numbers(130, 3)
    gallery[[5, 60, 61, 129]] = 0
    ids, similarities = naive(gallery, gallery, skip_self=skip_self)
    k = min(130 if k is None else k, 130 - skip_self)
    found, values = in_blocks(gallery, gallery, k, block=block, tile=tile, skip_self=skip_self)
    assert (found.dtype, values.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(found, ids[:, :k])
    np.testing.assert_array_equal(values, similarities[:, :k].astype(np.float32))


def test_galleries_of_many_tiles():
    """Many merges; a duplicate in each tile."""
    queries, gallery = units(20, 16, 0), units(3000, 16, 1)
    gallery[::100] = gallery[7]
    ids, similarities = naive(queries, gallery)
    assert_same(in_blocks(queries, gallery, 40, block=16, tile=100), (ids[:, :40], similarities[:, :40]))


def test_the_gallery_gets_better_and_better():
    angles = np.linspace(np.pi, 0, 500)
    gallery = np.stack((np.cos(angles), np.sin(angles)), 1).astype(np.float32)
    found, _ = in_blocks(np.float32([[1, 0]] * 3), gallery, 5, tile=10)
    assert found.tolist() == [[499, 498, 497, 496, 495]] * 3


def test_only_the_image_itself_is_left_out_not_its_duplicates():
    vectors = units(6, 8, 0)
    vectors[4] = vectors[1]
    found, values = in_blocks(vectors, vectors, 2, skip_self=True, tile=4)
    assert (found != np.arange(6)[:, None]).all()
    assert (found[1, 0], found[4, 0]) == (4, 1)
    assert values[1, 0] == pytest.approx(1)


def test_more_duplicates_than_entries():
    gallery = np.concatenate((units(200, 4, 1), np.repeat(units(1, 4, 2), 100, 0), units(50, 4, 3)))
    found, _ = in_blocks(gallery[200:202], gallery, 3)
    assert found.tolist() == [[200, 201, 202]] * 2


@pytest.mark.parametrize("tile", [None, 900])
def test_hundreds_of_images_tie_at_the_cut(tile):
    """More than are found beyond k at first: those of the smallest ids are returned all the same."""
    gallery = np.zeros((3000, 4), np.float32)
    gallery[:, 0] = 1
    gallery[100:110] = [0.6, 0.8, 0, 0]
    queries = np.float32([[1, 0, 0, 0], [0.6, 0.8, 0, 0]])
    found, values = in_blocks(queries, gallery, 15, tile=tile)
    assert found.tolist() == [list(range(15)), [*range(100, 110), *range(5)]]
    assert (values[1, 10:] == np.float32(0.6)).all()
    found, _ = in_blocks(gallery[:8], gallery, 15, tile=tile, skip_self=True)
    assert found.tolist() == [[i for i in range(16) if i != own] for own in range(8)]


def test_zero_queries_are_not_searched_for(monkeypatch):
    """All their similarities tie, so that they would be searched for again and again."""
    asked = []
    whole = exact._candidates
    monkeypatch.setattr(exact, "_candidates", lambda x, *rest: asked.append(len(x)) or whole(x, *rest))
    queries = units(5, 4, 0)
    queries[[1, 3]] = 0
    found = search(queries, units(1000, 4, 1), 3)
    assert asked == [3]
    assert found.ids[[1, 3]].tolist() == [[0, 1, 2]] * 2


def test_all_images_are_without_a_vector():
    found, values = in_blocks(units(2, 4, 0), np.zeros((7, 4), np.float32), 3, tile=2)
    assert (found.tolist(), values.tolist()) == ([[0, 1, 2]] * 2, [[-1] * 3] * 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same():
    gallery = units(3000, 64, 0)
    gallery[[5, 60]] = 0
    expected = in_blocks(gallery[:200], gallery, 40, skip_self=True)
    assert_same(in_blocks(gallery[:200], gallery, 40, skip_self=True, device="cuda", tile=700), expected)


def test_torch_finds_the_same(monkeypatch):
    """What a GPU does, on a CPU: torch knows it by another name, too."""
    gallery = units(300, 16, 0)
    gallery[[5, 60]] = 0
    expected = in_blocks(gallery[:50], gallery, 40, skip_self=True)
    monkeypatch.setattr("ames.global_search.exact._PRODUCT_BYTES", 4 * 100 * 7)
    assert_same(in_blocks(gallery[:50], gallery, 40, skip_self=True, device="cpu:0", tile=100), expected)


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


def test_nothing_to_find():
    assert search(units(3, 4, 0), np.empty((0, 4), np.float32), 5).ids.shape == (3, 0)
    assert search(np.empty((0, 4), np.float32), units(3, 4, 0), 2).ids.shape == (0, 2)
    assert search(units(1, 4, 0), units(1, 4, 0), 2, skip_self=True).ids.shape == (1, 0)


def test_lengths_do_not_matter(caplog):
    """Vectors are searched at unit length; one line a source says so, whatever the blocks."""
    queries, gallery = units(9, 8, 0), units(40, 8, 1)
    gallery[[3, 17]] = 0
    lengths = np.random.default_rng(2).uniform(1e-30, 200, (40, 1)).astype(np.float32)
    expected = search(queries, gallery)
    assert not caplog.records
    raw = gallery * lengths
    kept = raw.copy()
    found = in_blocks(queries, raw, None, block=4, tile=7)
    assert [x.message.split(":")[0] for x in caplog.records] == ["global descriptors"]
    assert np.array_equal(raw, kept)  # the caller's
    np.testing.assert_array_equal(found[0], expected.ids)
    np.testing.assert_allclose(found[1], expected.similarities, atol=1e-6)
    for sizes in ({"block": 3, "tile": 1}, {"tile": 39}, {}):
        assert_same(in_blocks(queries, raw, None, **sizes), found)


def test_what_is_of_unit_length_up_to_rounding_stays_as_it_is():
    x = units(300, 512, 0)
    assert unit(x, str) is x
    half = x.astype(np.float16).astype(np.float32)
    assert unit(half, str) is half
    assert unit(np.zeros((2, 4), np.float32), str).any() == False  # noqa: E712
    for length in (1.002, 0.998, 1e-25, 1e18):
        np.testing.assert_allclose(unit(x * np.float32(length), str), x, atol=1e-6)


def test_fewer_than_no_entries():
    with pytest.raises(AmesError, match="-1 entries a query were asked for"):
        search(units(1, 4, 0), units(2, 4, 0), -1)


def test_widths_that_differ():
    with pytest.raises(AmesError, match="queries: 3-d global descriptors, those of gallery are 4-d"):
        search(units(1, 3, 0), units(2, 4, 0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named(value):
    gallery = units(9, 4, 0)
    gallery[5, 2] = value
    with pytest.raises(AmesError, match="gallery: the vector of image 5 is not finite"):
        search(units(1, 4, 1), gallery)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vectors_whose_products_would_not_be_finite(dtype):
    gallery = units(9, 4, 0).astype(dtype)
    search(units(1, 4, 1), gallery * dtype(1e18))
    gallery[5] *= 1e25 if dtype is np.float32 else 1e200
    with pytest.raises(AmesError, match=r"gallery: the vector of image 5 is not finite .*or its squares"):
        search(units(1, 4, 1), gallery)
    with pytest.raises(AmesError, match="gallery: the vector of image 5 is not finite"):
        Vectors.of(gallery, "gallery").gather(np.array([2, 5]))


def test_the_benchmark():
    script = ROOT / "scripts" / "benchmark.py"
    words = [sys.executable, str(script), "search", "--images", "400", "--repeats", "1", "--threads", "1"]
    found = subprocess.run(words, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    lines = [line.split() for line in found.stdout.splitlines()[2:]]
    assert [line[:3] for line in lines] == [["400", "400", "300"], ["400", "400", "400"]]


# ---- vectors that stay in their files ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mapped", "chunked", "float16", "virtual"])
def test_vectors_of_several_files(tmp_path, kind):
    arrays = [units(5, 4, 0), units(1, 4, 1), units(8, 4, 2)]
    paths = [tmp_path / f"{i}.hdf5" for i in range(3)]
    for path, array in zip(paths, arrays, strict=True):
        with h5py.File(path, "w") as file:
            dtype = np.float16 if kind == "float16" else np.float32
            file.create_dataset(
                "features", data=array.astype(dtype), chunks=(1, 2) if kind == "chunked" else None
            )
    if kind == "virtual":
        with h5py.File(tmp_path / "merged.hdf5", "w") as file:
            layout = h5py.VirtualLayout((8, 4), np.float32)
            layout[:] = h5py.VirtualSource("2.hdf5", "features", (8, 4))
            file.create_virtual_dataset("features", layout)
        paths[2] = tmp_path / "merged.hdf5"
    whole = np.concatenate(arrays)
    whole = whole.astype(np.float16).astype(np.float32) if kind == "float16" else whole
    vectors = Vectors.open(*paths)
    assert (len(vectors), vectors.width) == (14, 4)
    for start, stop in ((0, 14), (3, 7), (4, 6), (13, 99), (5, 5)):
        np.testing.assert_array_equal(vectors.read(start, stop), whole[start:stop])
    rows = np.array([13, 0, 5, 13, 6, 4])
    np.testing.assert_array_equal(vectors.gather(rows), whole[rows])
    assert [start for start, _ in vectors.blocks(5)] == [0, 5, 10]
    assert digest(vectors) == digest(Vectors.of(whole))
    assert digest(vectors) != digest(Vectors.of(whole[::-1].copy()))


def test_vectors_that_do_not_fit_together(tmp_path):
    write_globals(tmp_path / "a.hdf5", units(2, 4, 0))
    write_globals(tmp_path / "b.hdf5", units(2, 5, 0))
    with pytest.raises(AmesError, match=r"b.hdf5: holds 5-d global descriptors, .*a.hdf5 4-d"):
        Vectors.open(tmp_path / "a.hdf5", tmp_path / "b.hdf5")
    bad = units(3, 4, 0)
    bad[1] = np.nan
    write_globals(tmp_path / "c.hdf5", bad)
    vectors = Vectors.open(tmp_path / "a.hdf5", tmp_path / "c.hdf5")
    with pytest.raises(AmesError, match=r"c.hdf5: the vector of image 1 is not finite"):
        vectors.read(2, 5)
    with pytest.raises(AmesError, match=r"c.hdf5: the vector of image 1 is not finite"):
        vectors.gather(np.array([0, 3]))


def test_a_merged_file_whose_part_is_gone(tmp_path):
    with h5py.File(tmp_path / "merged.hdf5", "w") as file:
        layout = h5py.VirtualLayout((8, 4), np.float32)
        layout[:] = h5py.VirtualSource("gone.hdf5", "features", (8, 4))
        file.create_virtual_dataset("features", layout)
    with pytest.raises(AmesError, match=r"merged from gone.hdf5, which does not exist"):
        Vectors.open(tmp_path / "merged.hdf5")
