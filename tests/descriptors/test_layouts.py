"""Published layouts of local descriptors: each reads as the flat one, its mask included."""

import logging
import pickle

import h5py
import numpy as np
import pytest
import torch

from ames.descriptors.local import DescriptorFile, check_backbone
from ames.errors import AmesError
from golden.data_root import laid_out

IMAGES, SLOTS, WIDTH = 7, 6, 16
LAYOUTS = ("float32", "compound", "compound by image")
STORAGE = {"contiguous": {}, "chunked": {"chunks": True}, "compressed": {"compression": "gzip"}}


def content(seed=0):
    """Metadata with gaps in its mask, and descriptors float16 that are NaN where padded."""
    rng = np.random.default_rng(seed)
    metadata = rng.random((IMAGES, SLOTS, 5)).astype(np.float32)
    metadata[..., 3] = rng.integers(0, 2, (IMAGES, SLOTS))
    descriptors = rng.standard_normal((IMAGES, SLOTS, WIDTH)).astype(np.float16)
    descriptors[metadata[..., 3] == 1] = np.nan
    return metadata, descriptors


def write(path, data, **storage):
    with h5py.File(path, "w") as file:
        file.create_dataset("before", data=np.arange(99))  # so that the data do not lie first
        file.create_dataset("features", data=data, **storage)
    return DescriptorFile(path)


@pytest.mark.parametrize("storage", STORAGE.values(), ids=STORAGE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_the_same(tmp_path, layout, storage):
    metadata, descriptors = content()
    file = write(tmp_path / "x.hdf5", laid_out(metadata, descriptors, layout), **storage)
    assert (len(file), file.slots, file.width, file.packed) == (IMAGES, SLOTS, WIDTH, False)
    rows = [5, 0, 5]
    read = file.read(rows, 4)
    kept, real = metadata[rows, :4], metadata[rows, :4, 3] == 0
    np.testing.assert_array_equal(read.valid.numpy(), real)
    expected = np.where(real[..., None], descriptors[rows, :4], 0)
    np.testing.assert_array_equal(read.descriptors.numpy(), expected)
    assert read.descriptors.dtype == (torch.float32 if layout == "float32" else torch.float16)
    for found, columns in ((read.positions, slice(0, 2)), (read.scale, 2), (read.weight, 4)):
        np.testing.assert_array_equal(found.numpy(), kept[..., columns])
    assert isinstance(file._features(), np.memmap) == (not storage)
    assert torch.equal(pickle.loads(pickle.dumps(file)).read(rows, 4).descriptors, read.descriptors)


@pytest.mark.parametrize("storage", STORAGE.values(), ids=STORAGE)
@pytest.mark.parametrize("layout", ["compound", "compound by image", "bare"])
def test_packed_bits_stay_packed(tmp_path, layout, storage):
    metadata, descriptors = content()
    codes = np.packbits(descriptors > 0, axis=-1)
    file = write(tmp_path / "x.hdf5", laid_out(metadata, codes, layout), **storage)
    assert (len(file), file.slots, file.width, file.packed) == (IMAGES, SLOTS, WIDTH, True)
    read = file.read(range(IMAGES), 5)
    assert read.descriptors.dtype == torch.uint8
    if layout == "bare":
        assert read.valid.all()
        assert read.positions is None
        np.testing.assert_array_equal(read.descriptors.numpy(), codes[:, :5])
    else:
        real = metadata[:, :5, 3] == 0
        np.testing.assert_array_equal(read.valid.numpy(), real)
        np.testing.assert_array_equal(read.descriptors.numpy(), codes[:, :5] * real[..., None])
        np.testing.assert_array_equal(read.positions.numpy(), metadata[:, :5, :2])
    assert isinstance(file._features(), np.memmap) == (not storage)
    check_backbone(file, width=768, backbone="dinov2")  # scoring judges codes


def test_bytes_an_image(tmp_path):
    """The figures of the published files, at a fraction of their size."""
    metadata, descriptors = np.zeros((1, 700, 5), np.float32), np.zeros((1, 700, 768), np.float16)
    file = write(tmp_path / "x.hdf5", laid_out(metadata, descriptors, "compound by image"))
    assert file.image_bytes == 1_089_200
    file = write(tmp_path / "y.hdf5", laid_out(metadata[:, :400], descriptors[:, :400], "float16"))
    assert file.image_bytes == 618_400
    file = write(tmp_path / "z.hdf5", np.zeros((1, 50, 16), np.uint8))
    assert file.image_bytes == 800


def test_fewer_descriptors_than_asked_for_is_said_once(tmp_path, caplog):
    file = write(tmp_path / "x.hdf5", laid_out(*content(), "compound"))
    with caplog.at_level(logging.WARNING, "ames"):
        file.read([0], SLOTS)
        file.read([0])
        assert not caplog.records
        assert file.read([0], 50).size == SLOTS
        file.read([1], 60)
    assert [r.getMessage() for r in caplog.records] == [
        f"{file.path}: holds {SLOTS} descriptors per image, 50 asked for; all are used"
    ]


# ---- merged files -----------------------------------------------------------------------------------


def merged(folder, name="part.hdf5", dtype=np.float32):
    """A file in ``folder`` merged from one part, which is not there yet, and the part's content."""
    data = np.ones((2, 4, 9), dtype)
    data[..., 3] = 0
    layout = h5py.VirtualLayout(data.shape, data.dtype)
    layout[:] = h5py.VirtualSource(name, "features", data.shape)
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / "x.hdf5", "w") as file:
        file.create_virtual_dataset("features", layout)
    return folder / "x.hdf5", data


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("part.hdf5", "set/part.hdf5"),
        ("parts/part.hdf5", "set/parts/part.hdf5"),
        ("part.hdf5", "part.hdf5"),  # in the working folder
        ("/no/such/folder/part.hdf5", "set/part.hdf5"),  # moved since
    ],
)
def test_parts_are_looked_for_where_hdf5_does(tmp_path, monkeypatch, name, place):
    monkeypatch.chdir(tmp_path)
    path, data = merged(tmp_path / "set", name)
    with pytest.raises(AmesError, match=f"merged from {name}, which does not exist"):
        DescriptorFile(path)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    write(tmp_path / place, data)
    assert DescriptorFile(path).read([0, 1]).descriptors.all()
    assert DescriptorFile("set/x.hdf5").read([1]).descriptors.all()


def test_from_another_working_folder(tmp_path, monkeypatch):
    path, data = merged(tmp_path / "set")
    write(tmp_path / "set" / "part.hdf5", data)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in (path, "../set/x.hdf5"):
        assert DescriptorFile(name).read([0]).descriptors.all()
    (tmp_path / "elsewhere" / "link.hdf5").symlink_to(path)
    assert DescriptorFile("link.hdf5").read([0]).descriptors.all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_text("text"), "which is not a readable HDF5 file"),
        (lambda path: h5py.File(path, "w").close(), "which has no dataset 'features'"),
        (lambda path: write(path, np.ones((1, 4, 9), np.float32)), r"now of shape \(1, 4, 9\)"),
    ],
)
def test_parts_that_would_read_as_zeros(tmp_path, change, message):
    path, _ = merged(tmp_path)
    change(tmp_path / "part.hdf5")
    with pytest.raises(AmesError, match=message) as error:
        DescriptorFile(path)
    assert "\n" not in str(error.value)
