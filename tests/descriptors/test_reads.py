"""Reads of local descriptors against a naive one: any layout, storage, order, count, process and thread."""

import hashlib
import importlib.util
import threading
import warnings

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.io import gather as gathering
from ames.io.prefetch import ahead
from golden.data_root import laid_out
from helpers.commands import ROOT
from twins import released_reads

IMAGES, SLOTS, WIDTH = 9, 12, 16
LAYOUTS = ("float16", "float32", "compound", "compound by image", "packed", "packed by image", "bare")
STORAGE = {"contiguous": {}, "chunked": {"chunks": True}, "compressed": {"compression": "gzip"}}
ROWS = {
    "one": [4],
    "rising": [0, 3, 8],
    "run": range(2, 7),
    "any order, repeated": [5, 0, 5, 8, 1, 0],
    "falling": np.arange(IMAGES, dtype=np.int32)[::-1],
    "none": [],
}


@pytest.fixture(params=[1, 2], autouse=True)
def torch_threads(request):
    """Both ways to gather; torch's number of threads chooses."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def large(monkeypatch):
    """Small files are read as large ones are: by threads, into memory that is used again."""
    monkeypatch.setattr(gathering, "_LARGE", 1)
    monkeypatch.setattr(gathering, "_THREADS", 3)


def content(padding="gaps"):
    """Metadata, and descriptors float16 that are NaN where padded."""
    rng = np.random.default_rng(0)
    metadata = rng.random((IMAGES, SLOTS, 5)).astype(np.float16).astype(np.float32)
    metadata[..., 3] = rng.integers(0, 2, (IMAGES, SLOTS)) if padding == "gaps" else 0
    descriptors = rng.standard_normal((IMAGES, SLOTS, WIDTH)).astype(np.float16)
    descriptors[metadata[..., 3] == 1] = np.nan
    return metadata, descriptors


def written(path, layout, padding="gaps", **storage):
    metadata, descriptors = content(padding)
    if layout.startswith(("packed", "bare")):
        descriptors = np.packbits(descriptors > 0, axis=-1)
    names = {"packed": "compound", "packed by image": "compound by image"}
    with h5py.File(path, "w") as file:
        file.create_dataset("before", data=np.arange(99))  # so that the data do not lie first
        data = laid_out(metadata, descriptors, names.get(layout, layout))
        file.create_dataset("features", data=data, **storage)
    return DescriptorFile(path)


def naive(path, layout, rows, count):
    """Metadata (None: no such) and descriptors as they are stored, image by image."""
    with h5py.File(path) as file:
        images = [file["features"][int(row)] for row in rows]
    if layout == "bare":
        return None, np.stack([image[:count] for image in images])
    if layout in ("float16", "float32"):
        table = np.stack([image[:count] for image in images])
        return table[..., :5], table[..., 5:]
    return (np.stack([image[name][:count] for image in images]) for name in ("metadata", "descriptor"))


@pytest.mark.parametrize("storage", STORAGE.values(), ids=STORAGE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equal_to_a_naive_read(tmp_path, large, layout, storage):
    path = tmp_path / "x.hdf5"
    file = written(path, layout, **storage)
    before = hashlib.sha256(path.read_bytes()).digest()
    for rows in ROWS.values():
        for count in (0, 1, 7, SLOTS, None):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                read = file.read(rows, count)
                fewer = file.read(rows, count, locations=False)
            size = SLOTS if count is None else count
            assert read.descriptors.shape[:2] == read.valid.shape == (len(rows), size)
            assert torch.equal(fewer.descriptors, read.descriptors)
            assert torch.equal(fewer.valid, read.valid)
            assert fewer.positions is fewer.scale is fewer.weight is None
            if not len(rows):
                continue
            metadata, expected = naive(path, layout, rows, size)
            assert read.descriptors.dtype == torch.from_numpy(expected).dtype
            if metadata is None:
                assert read.valid.all()
                assert read.positions is None
            else:
                real = metadata[..., 3] == 0
                np.testing.assert_array_equal(read.valid.numpy(), real)
                expected = np.where(real[..., None], expected, 0)
                for found, columns in ((read.positions, slice(0, 2)), (read.scale, 2), (read.weight, 4)):
                    assert found.dtype == torch.float32
                    np.testing.assert_array_equal(found.numpy(), metadata[..., columns].astype(np.float32))
            np.testing.assert_array_equal(read.descriptors.numpy(), expected)
    assert hashlib.sha256(path.read_bytes()).digest() == before  # padding is cleared in the copy alone


@pytest.mark.parametrize(
    ("stored", "kept"), [("<f2", "f2"), (">f2", "f2"), (">f4", "f4"), ("<f8", "f4"), (">f8", "f4")]
)
def test_floats_of_any_width_and_byte_order(tmp_path, stored, kept):
    table = np.random.default_rng(0).standard_normal((IMAGES, SLOTS, 5 + WIDTH)).astype(stored)
    table[..., 3] = 0
    for storage in ({}, {"chunks": True}):
        with h5py.File(tmp_path / "x.hdf5", "w") as file:
            file.create_dataset("features", data=table, **storage)
        read = DescriptorFile(tmp_path / "x.hdf5").read([2, 1], 5)
        assert read.descriptors.numpy().dtype == kept
        np.testing.assert_array_equal(read.descriptors.numpy(), table[[2, 1], :5, 5:].astype(kept))
        np.testing.assert_array_equal(read.positions.numpy(), table[[2, 1], :5, :2].astype(np.float32))


def test_records_of_an_odd_size(tmp_path):
    """Descriptors float32 behind 10 bytes of metadata: at addresses that torch does not take."""
    data = np.zeros((IMAGES, SLOTS), [("metadata", "<f2", 5), ("descriptor", "<f4", WIDTH)])
    data["descriptor"] = np.random.default_rng(0).standard_normal(data["descriptor"].shape)
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("features", data=data)
    for rows in ([3], [3, 1]):
        read = DescriptorFile(tmp_path / "x.hdf5").read(rows, 1)
        np.testing.assert_array_equal(read.descriptors.numpy(), data["descriptor"][rows, :1])


def test_blocks_through_hdf5(tmp_path, monkeypatch):
    file = written(tmp_path / "x.hdf5", "float16", chunks=True)
    rows = [8, 1, 1, 6, 0, 3, 2]
    whole = file.read(rows)
    monkeypatch.setattr("ames.descriptors.local._BLOCK", 2 * file.image_bytes)
    assert torch.equal(file.read(rows).descriptors, whole.descriptors)


@pytest.mark.parametrize("rows", [[0, IMAGES], [-1]])
def test_rows_that_are_not_there(tmp_path, rows):
    file = written(tmp_path / "x.hdf5", "float16")
    with pytest.raises(AmesError, match=rf"x.hdf5: holds {IMAGES} images, there is no row {rows[-1]}$"):
        file.read(rows)


def test_a_file_without_images(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("features", (0, SLOTS, 5 + WIDTH), np.float16)
    assert DescriptorFile(tmp_path / "x.hdf5").read([]).descriptors.shape == (0, SLOTS, WIDTH)


@pytest.mark.parametrize("storage", STORAGE.values(), ids=STORAGE)
def test_bytes_read(tmp_path, storage):
    file = written(tmp_path / "x.hdf5", "float16", **storage)
    assert file.bytes_read == 0
    file.read([0, 0, 5], 7)
    assert file.bytes_read == 3 * 7 * (5 + WIDTH) * 2
    file.read([1])
    assert file.bytes_read == 3 * 7 * (5 + WIDTH) * 2 + file.image_bytes


def test_memory_is_used_again_once_nothing_refers_to_it(tmp_path, large):
    file = written(tmp_path / "x.hdf5", "float16", padding="none")
    expected = [file.read([i]).descriptors.clone() for i in range(IMAGES)]
    places, kept = set(), []
    for i in range(IMAGES):
        read = file.read([i], locations=False)
        places.add(read.descriptors.data_ptr())
        if i % 3 == 0:  # a view of a view, of another type, as torch and as numpy
            kept.append((i, read.trim(3)[0].descriptors[:, 2:].view(torch.int16)))
            kept.append((i, read.trim(3)[0].descriptors[:, 2:].view(torch.int16).numpy()))
        del read
    assert len(places) < IMAGES
    for i, view in kept:
        np.testing.assert_array_equal(np.asarray(view), expected[i][0, :3, 2:].view(torch.int16).numpy())


@pytest.mark.parametrize("storage", STORAGE.values(), ids=STORAGE)
def test_threads_share_a_file(tmp_path, large, storage):
    file = written(tmp_path / "x.hdf5", "float32", **storage)
    expected = file.read(range(IMAGES)).descriptors
    for i, read in enumerate(ahead(lambda i: file.read([i % IMAGES, 0]).descriptors, range(60), 4)):
        assert torch.equal(read, expected[[i % IMAGES, 0]])


def test_the_released_reader_reads_the_same(tmp_path):
    file = written(tmp_path / "x.hdf5", "float16", padding="none")
    rows = [5, 0, 5, 8]
    descriptors, padding = released_reads.read(file.path, rows, 7)
    read = file.read(rows, 7)
    assert torch.equal(read.descriptors, descriptors)
    assert torch.equal(read.valid, ~padding)


def test_the_benchmark_of_reads(tmp_path):
    path = ROOT / "scripts" / "benchmarks" / "loader.py"
    spec = importlib.util.spec_from_file_location("benchmarks_loader", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    for _ in range(2):  # the file is made, then found
        (found,) = benchmark.run(tmp_path, images=4, seed=0)
        assert found["bytes"] == 4 * 400 * 773 * 2
        assert found["ratio"] > 0
    assert len(list(tmp_path.iterdir())) == 1


# ---- processes ------------------------------------------------------------------------------------


class Images(Dataset):
    """A map-style data set of single images."""

    def __init__(self, file):
        self.file = file

    def __len__(self):
        return len(self.file)

    def __getitem__(self, row):
        return self.file.read([row]).descriptors[0]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("storage", ["contiguous", "compressed"])
def test_a_file_that_was_used_before_works_in_worker_processes(tmp_path, storage, context, torch_threads):
    if context not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"no {context} here")
    file = written(tmp_path / "x.hdf5", "float16", **STORAGE[storage])
    expected = file.read(range(IMAGES)).descriptors
    workers = 2 if context == "fork" else 1  # a spawned one imports everything again
    loader = DataLoader(Images(file), batch_size=2, num_workers=workers, multiprocessing_context=context)
    assert torch.equal(torch.cat(list(loader)), expected)
    assert torch.equal(file.read(range(IMAGES)).descriptors, expected)  # and here it still does


# ---- reading ahead --------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_ahead_keeps_the_order(workers):
    assert list(ahead(lambda x: x * x, iter(range(20)), workers)) == [x * x for x in range(20)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_ahead_is_no_further_than_its_workers(workers):
    drawn = []
    for used, _ in enumerate(ahead(abs, (drawn.append(x) or x for x in range(20)), workers)):
        assert len(drawn) <= used + 1 + workers


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_ahead_raises_where_the_result_would_have_been(workers):
    before = threading.active_count()
    results = ahead(lambda x: 1 // (3 - x), range(20), workers)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [1, 3])
def test_nothing_runs_on_when_ahead_is_broken_off(workers):
    before = threading.active_count()
    results = ahead(abs, range(20), workers)
    next(results)
    results.close()
    assert threading.active_count() == before
