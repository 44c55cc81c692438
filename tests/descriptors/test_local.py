"""The descriptor store: what is written is read back, whole or not at all; the message of each defect."""

import json
import pickle

import h5py
import numpy as np
import pytest
import torch

from ames.descriptors.layouts import METADATA, PADDING
from ames.descriptors.local import (
    DescriptorFile,
    check_backbone,
    create_local,
    read_globals,
    write_globals,
)
from ames.errors import AmesError
from ames.features import LocalFeatures

WIDTH, SLOTS = 6, 5


def local(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return LocalFeatures.from_descriptors(
        torch.randn(count, WIDTH, generator=generator),
        positions=torch.rand(count, 2, generator=generator),
        scale=torch.rand(count, generator=generator),
        weight=torch.rand(count, generator=generator).sort(descending=True).values,
    )


def write(path, counts, **settings):
    items = [local(count, seed) for seed, count in enumerate(counts)]
    with create_local(path, images=len(items), slots=SLOTS, width=WIDTH, **settings) as write_row:
        for row, item in enumerate(items):
            write_row(row, item)
    return items


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("float32", 0)])
def test_round_trip(tmp_path, dtype, tolerance):
    counts = [3, 0, 9, 5]  # padded, empty, cut, full
    items = write(tmp_path / "x.hdf5", counts, dtype=dtype, names=["a", "b", "ç", "d"])
    file = DescriptorFile(tmp_path / "x.hdf5")
    assert (len(file), file.slots, file.width, file.dtype) == (4, SLOTS, WIDTH, np.dtype(dtype))
    assert file.names == ["a", "b", "ç", "d"]
    read = file.read(range(4))
    assert read.counts.tolist() == [3, 0, 5, 5]
    assert read.descriptors.dtype == getattr(torch, dtype)
    for row, item in enumerate(items):
        n = min(item.size, SLOTS)
        kept = item.trim(n)
        for field in ("descriptors", "positions", "scale", "weight"):
            found = getattr(read, field)[row].float()
            torch.testing.assert_close(found[:n], getattr(kept, field), atol=tolerance, rtol=tolerance)
            assert not found[n:].any()


@pytest.mark.parametrize(("dtype", "most"), [("float16", 65_504), ("float32", 3e6)])
def test_what_float16_cannot_hold_is_its_largest_number(tmp_path, dtype, most):
    """Pixels of a very long image, and weights: an infinite one would spoil whatever is computed from it."""
    far = torch.tensor([[3e6, 1.0], [2.0, 70_000.0]])
    item = LocalFeatures.from_descriptors(
        torch.ones(2, WIDTH), positions=far, weight=torch.tensor([3e6, 0.5])
    )
    with create_local(tmp_path / "x.hdf5", images=1, slots=2, width=WIDTH, dtype=dtype) as write_row:
        write_row(0, item)
    read = DescriptorFile(tmp_path / "x.hdf5").read([0])
    assert read.positions[0].tolist() == [[most, 1], [2, min(most, 70_000)]]
    assert read.weight[0].tolist() == [most, 0.5]


def test_one_in_the_mask_column_is_padding(tmp_path):
    write(tmp_path / "x.hdf5", [2])
    with h5py.File(tmp_path / "x.hdf5") as file:
        assert file["features"][0, :, PADDING].tolist() == [0, 0, 1, 1, 1]
    assert DescriptorFile(tmp_path / "x.hdf5").read([0]).valid[0].tolist() == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_masked_rows_of_the_features_themselves_are_written_as_padding(tmp_path):
    item = LocalFeatures.from_descriptors(torch.ones(3, WIDTH), torch.tensor([True, True, False]))
    with create_local(tmp_path / "x.hdf5", images=1, slots=SLOTS, width=WIDTH) as write_row:
        write_row(0, item)
    assert DescriptorFile(tmp_path / "x.hdf5").read([0]).counts.tolist() == [2]


def test_rows_that_are_never_written_are_empty(tmp_path):
    with create_local(tmp_path / "x.hdf5", images=3, slots=SLOTS, width=WIDTH) as write_row:
        write_row(1, local(4))
    assert DescriptorFile(tmp_path / "x.hdf5").read([0, 1, 2]).counts.tolist() == [0, 4, 0]


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4"])
@pytest.mark.parametrize("layout", [{}, {"chunks": (2, 3, 4)}, {"chunks": True, "compression": "gzip"}])
def test_any_storage_reads_the_same(tmp_path, layout, dtype):
    table = np.random.default_rng(0).standard_normal((7, SLOTS, METADATA + WIDTH)).astype(dtype)
    table[..., PADDING] = np.random.default_rng(1).integers(0, 2, table.shape[:2])
    table[table[..., PADDING] == 1, METADATA:] = np.nan  # whatever lies in padding must not reach a score
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("before", data=np.arange(100))  # so that the data do not lie first
        file.create_dataset("features", data=table, **layout)
    file = DescriptorFile(tmp_path / "x.hdf5")
    rows = [5, 0, 5]
    read = file.read(rows, 3)
    expected = table[rows, :3].astype(np.float32)
    np.testing.assert_array_equal(read.descriptors.numpy(), np.nan_to_num(expected[..., METADATA:]))
    np.testing.assert_array_equal(read.valid.numpy(), expected[..., PADDING] == 0)
    np.testing.assert_array_equal(read.positions.numpy(), expected[..., :2])
    assert isinstance(file._features(), np.memmap) == (not layout)
    assert file.read(rows, 100).size == SLOTS


def test_it_travels_to_other_processes(tmp_path):
    write(tmp_path / "x.hdf5", [3, 4])
    for layout in ({}, {"chunks": True}):
        with h5py.File(tmp_path / "x.hdf5") as file:
            table = file["features"][:]
        with h5py.File(tmp_path / "y.hdf5", "w") as file:
            file.create_dataset("features", data=table, **layout)
        file = DescriptorFile(tmp_path / "y.hdf5")
        expected = file.read([0, 1]).descriptors  # opened before it is handed on
        copy = pickle.loads(pickle.dumps(file))
        assert len(pickle.dumps(file)) < 2000  # the name of the file, not what is in it
        assert torch.equal(copy.read([0, 1]).descriptors, expected)


def fail(path):
    with create_local(path, images=3, slots=SLOTS, width=WIDTH) as write_row:
        write_row(0, local(3))
        raise KeyboardInterrupt


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path / "x.hdf5")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_keeps_the_older_file(tmp_path):
    write(tmp_path / "x.hdf5", [4])
    before = (tmp_path / "x.hdf5").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path / "x.hdf5")
    assert (tmp_path / "x.hdf5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.hdf5"]


def test_a_failure_while_the_file_is_laid_out_leaves_nothing(tmp_path):
    with (
        pytest.raises(TypeError),
        create_local(tmp_path / "x.hdf5", images=1, slots=2, width=2, provenance={"backbone": object()}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AmesError, match="cannot be written"):
        write(tmp_path / "file" / "x.hdf5", [1])


def test_globals_round_trip(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((4, 3))
    write_globals(tmp_path / "g.hdf5", vectors, names=["a", "b", "c", "d"], provenance={"backbone": "x"})
    read = read_globals(tmp_path / "g.hdf5")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, vectors.astype(np.float32))
    with h5py.File(tmp_path / "g.hdf5") as file:
        assert json.loads(file.attrs["provenance"])["backbone"] == "x"


def test_provenance_is_kept_with_the_version(tmp_path):
    write(tmp_path / "x.hdf5", [1], provenance={"backbone": "rootsift", "max_size": 640})
    found = DescriptorFile(tmp_path / "x.hdf5").provenance
    assert (found["backbone"], found["max_size"]) == ("rootsift", 640)
    assert found["ames"]


@pytest.mark.parametrize("value", [None, "{", "[1]", 3, np.arange(3)])
def test_provenance_of_foreign_files_is_empty(tmp_path, value):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("features", data=np.zeros((2, 3, 9), np.float16))
        file.create_dataset("names", data=np.arange(2))  # not ours either
        if value is not None:
            file.attrs["provenance"] = value
    file = DescriptorFile(tmp_path / "x.hdf5")
    assert file.provenance == {}
    assert file.names is None


def test_check_backbone(tmp_path):
    write(tmp_path / "x.hdf5", [1], provenance={"backbone": "rootsift"})
    write(tmp_path / "y.hdf5", [1])
    file, unknown = DescriptorFile(tmp_path / "x.hdf5"), DescriptorFile(tmp_path / "y.hdf5")
    check_backbone(file, width=WIDTH, backbone="rootsift")
    check_backbone(file, width=None, backbone=None)
    check_backbone(unknown, width=WIDTH, backbone="dinov2")
    with pytest.raises(AmesError, match="made by backbone 'rootsift', but the model was trained on 'dinov2'"):
        check_backbone(file, width=WIDTH, backbone="dinov2")
    with pytest.raises(AmesError, match="descriptors are 6-d, but the model takes 768-d"):
        check_backbone(unknown, width=768, backbone=None)


def features_of(data):
    def make(path):
        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=data)

    return make


def other_dataset(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("descriptors", data=np.zeros(3))


def group(path):
    with h5py.File(path, "w") as file:
        file.create_group("features")


def truncated(path):
    features_of(np.zeros((20, 4, 9), np.float16))(path)
    path.write_bytes(path.read_bytes()[:2500])


def without_sources(path):
    features_of(np.ones((2, 4, 9), np.float32))(path.with_name("part.hdf5"))
    layout = h5py.VirtualLayout((2, 4, 9), np.float32)
    layout[:] = h5py.VirtualSource("part.hdf5", "features", (2, 4, 9))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("features", layout)
    assert DescriptorFile(path).read([0]).positions.all()  # zeros would mean a missing source
    path.with_name("part.hdf5").unlink()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, r"no such file; extract descriptors first"),
        (lambda path: path.mkdir(), "no such file"),
        (lambda path: path.write_text("not HDF5\n"), "not a readable HDF5 file"),
        (lambda path: path.write_bytes(b""), "not a readable HDF5 file"),
        (truncated, "not a readable HDF5 file"),
        (other_dataset, r"no dataset 'features' \(it holds descriptors\)"),
        (group, "no dataset 'features'"),
        (features_of(np.zeros((4, 9), np.float32)), r"'features' is float32 \(4, 9\); expected float"),
        (features_of(np.zeros((4, 3, 5), np.float32)), "expected float"),
        (features_of(np.zeros((4, 3, 9), np.int64)), "'features' is int64"),
        (
            features_of(np.zeros(4, [("metadata", "<f4", (3, 5)), ("descriptor", "<f2", (2, 8))])),
            "a compound",
        ),
        (features_of(np.zeros((4, 3), [("metadata", "<f4", (4,)), ("descriptor", "<f2", (8,))])), "expected"),
        (features_of(np.zeros((4, 3), [("metadata", "<f4", (5,)), ("codes", "u1", (8,))])), "expected"),
        (features_of(np.zeros((4, 3), [("metadata", "<f4", (5,)), ("descriptor", "<i2", (8,))])), "expected"),
        (without_sources, "merged from part.hdf5, which does not exist"),
    ],
    ids=lambda value: None if callable(value) else value[:20],
)
def test_files_that_hold_no_local_descriptors(tmp_path, make, message):
    path = tmp_path / "x.hdf5"
    make(path)
    with pytest.raises(AmesError, match=message) as error:
        DescriptorFile(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [np.zeros((4, 3, 9), np.float32), np.zeros((4, 9), np.uint8)])
def test_files_that_hold_no_global_descriptors(tmp_path, data):
    features_of(data)(tmp_path / "x.hdf5")
    with pytest.raises(AmesError, match=r"expected float \(images, width\)"):
        read_globals(tmp_path / "x.hdf5")
