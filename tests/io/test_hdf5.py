"""HDF5 as others write it: every way to store a dataset reads as h5py reads it, nothing reads as zeros."""

import re

import h5py
import numpy as np
import pytest

from ames.cli.main import main
from ames.descriptors.local import DescriptorFile, GlobalFile, read_globals, recorded, write_globals
from ames.descriptors.merge import merge_parts
from ames.descriptors.vectors import Vectors
from ames.errors import AmesError

RNG = np.random.default_rng(0)
LOCAL = RNG.random((6, 3, 5 + 4)).astype(np.float32)
LOCAL[..., 3] = 0  # all real
VECTORS = RNG.random((6, 4)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


def plain(path, data=LOCAL, **storage):
    with h5py.File(path, "w") as file:
        file.create_dataset("before", data=np.full(1000, 7.0))
        file.create_dataset("features", data=data, **storage)
    return path


def reads_as(path, expected):
    """By every reader of the library."""
    read = DescriptorFile(path).read(range(len(expected)))
    np.testing.assert_array_equal(read.descriptors.numpy(), expected[..., 5:])
    np.testing.assert_array_equal(read.positions.numpy(), expected[..., :2])


def refused(path, *words):
    """By both readers, in one line."""
    for reader in (DescriptorFile, GlobalFile):
        with pytest.raises(AmesError) as error:
            reader(path)
        line = str(error.value)
        assert "\n" not in line
        assert all(word in line for word in (path.name, *words)), line


# ---- where the bytes are ----------------------------------------------------------------------------


@pytest.mark.parametrize("more", [0, 5000], ids=["alone", "with another dataset"])
@pytest.mark.parametrize("folder", ["", "sub/"])
def test_a_link_to_another_file(tmp_path, folder, more):
    (tmp_path / "sub").mkdir()
    plain(tmp_path / folder / "target.hdf5")
    plain(tmp_path / folder / "vectors.hdf5", VECTORS)
    for name, target in (("x.hdf5", "target"), ("g.hdf5", "vectors")):
        with h5py.File(tmp_path / name, "w") as file:
            if more:
                file["behind"] = np.full(more, 3.0)
            file["features"] = h5py.ExternalLink(f"{folder}{target}.hdf5", "features")
    reads_as(tmp_path / "x.hdf5", LOCAL)
    np.testing.assert_array_equal(read_globals(tmp_path / "g.hdf5"), VECTORS)
    found = Vectors.open(tmp_path / "g.hdf5")
    np.testing.assert_array_equal(found.read(0, 6), VECTORS)
    np.testing.assert_array_equal(found.gather(np.array([5, 0])), VECTORS[[5, 0]])


def test_a_broken_link_names_its_target(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["features"] = h5py.ExternalLink("gone.hdf5", "/data/features")
    refused(tmp_path / "x.hdf5", "a link to /data/features in gone.hdf5")
    with h5py.File(tmp_path / "soft.hdf5", "w") as file:
        file["features"] = h5py.SoftLink("/elsewhere")
    refused(tmp_path / "soft.hdf5", "a link to /elsewhere")


def test_links_within_a_file_and_a_block_before_it(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w", userblock_size=1024) as file:
        file["deep/down"] = LOCAL
        file["features"] = h5py.SoftLink("/deep/down")
    reads_as(tmp_path / "x.hdf5", LOCAL)


def test_numbers_that_numpy_has_no_type_for_are_read_by_hdf5(tmp_path):
    """bfloat16 comes as float32: a map of the file would see two numbers as one."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    exact = np.round(LOCAL * 128) / 128  # eight bits
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        created = h5py.h5d.create(file.id, b"features", kind, h5py.h5s.create_simple(exact.shape))
        h5py.Dataset(created)[...] = exact
    reads_as(tmp_path / "x.hdf5", exact)


@pytest.mark.parametrize("dtype", [">f4", ">f2", "<f8"])
def test_other_byte_orders(tmp_path, dtype):
    exact = LOCAL.astype(np.float16).astype(np.float32)
    plain(tmp_path / "x.hdf5", exact.astype(dtype))
    reads_as(tmp_path / "x.hdf5", exact)


def test_raw_files_beside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = [("raw.bin", 0, h5py.h5f.UNLIMITED)]
    with h5py.File("x.hdf5", "w") as file:
        file.create_dataset("features", data=LOCAL, external=raw)
    reads_as(tmp_path / "x.hdf5", LOCAL)
    (tmp_path / "raw.bin").write_bytes((tmp_path / "raw.bin").read_bytes()[:-4])
    refused(tmp_path / "x.hdf5", "raw.bin", "too short")


# ---- what would be zeros ----------------------------------------------------------------------------


def test_what_was_never_written_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("features", LOCAL.shape, "f4")
    refused(tmp_path / "x.hdf5", "never written")
    with h5py.File(tmp_path / "y.hdf5", "w") as file:
        features = file.create_dataset("features", LOCAL.shape, "f4", chunks=(2, *LOCAL.shape[1:]))
        features[:4] = LOCAL[:4]
    refused(tmp_path / "y.hdf5", "1 of 3 chunks")


def test_a_merged_file_of_merged_files_misses_its_last_part(tmp_path):
    for number in range(2):
        plain(tmp_path / f"x_{number}_local.hdf5", LOCAL[3 * number : 3 * number + 3])
    merge_parts(tmp_path / "x_local.hdf5", [tmp_path / f"x_{number}_local.hdf5" for number in range(2)])
    merge_parts(tmp_path / "all_local.hdf5", [tmp_path / "x_local.hdf5"])
    reads_as(tmp_path / "all_local.hdf5", LOCAL)
    (tmp_path / "x_1_local.hdf5").unlink()
    with pytest.raises(AmesError, match=r"x_1_local.hdf5, which does not exist"):
        DescriptorFile(tmp_path / "all_local.hdf5")


def test_a_file_merged_from_itself(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        layout = h5py.VirtualLayout(LOCAL.shape, "f4")
        layout[:] = h5py.VirtualSource(".", "features", LOCAL.shape)
        file.create_virtual_dataset("features", layout)
    refused(tmp_path / "x.hdf5", "merged from itself")


def test_a_size_that_no_image_has(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("features", (1, 2**20, 2**10), "f4", chunks=(1, 1, 1))
    refused(tmp_path / "x.hdf5", "no image has so much")


# ---- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 7])
@pytest.mark.parametrize("data", [LOCAL, VECTORS], ids=["local", "global"])
def test_names_of_another_number(tmp_path, count, data, capsys):
    plain(tmp_path / "x.hdf5", data)
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        file.create_dataset("names", data=["n"] * count, dtype=h5py.string_dtype())
    reader = DescriptorFile if data is LOCAL else GlobalFile
    with pytest.raises(AmesError, match=f"holds {count} names for 6 images"):
        reader(tmp_path / "x.hdf5")
    assert main(["inspect", str(tmp_path / "x.hdf5")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(AmesError, match=f"holds {count} names for 6 images"):
        merge_parts(tmp_path / "all_local.hdf5", [tmp_path / "x.hdf5"])


@pytest.mark.parametrize("names", [["a", "ü/b", ""], ["x" * 4000, *map(str, range(999))], []])
def test_names_of_any_length(tmp_path, names):
    """One long name does not give every image as much room."""
    write_globals(tmp_path / "g.hdf5", np.ones((len(names), 2)), names=names, provenance={"of": "ü"})
    assert GlobalFile(tmp_path / "g.hdf5").names == names
    assert recorded(tmp_path / "g.hdf5")[1]["of"] == "ü"
    assert (tmp_path / "g.hdf5").stat().st_size < 100_000


@pytest.mark.parametrize("word", [b"\0" * 16, b"\1\0" + b"\0" * 6 + b"\xf0" + b"\xff" * 7])
@pytest.mark.parametrize("text", [b"2.jpg", b'{"of"'])
@pytest.mark.parametrize("storage", [{}, {"chunks": (1, *LOCAL.shape[1:])}], ids=["contiguous", "chunked"])
def test_a_heap_without_an_end(tmp_path, word, text, storage):
    """Text of variable length, as others write it; HDF5 would walk in circles."""
    plain(tmp_path / "x.hdf5", **storage)
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        file.create_dataset("names", data=[f"{i}.jpg" for i in range(6)], dtype=h5py.string_dtype())
        file.attrs["provenance"] = '{"of": "x"}'
    assert DescriptorFile(tmp_path / "x.hdf5").names == [f"{i}.jpg" for i in range(6)]
    assert DescriptorFile(tmp_path / "x.hdf5").provenance == {"of": "x"}
    content = (tmp_path / "x.hdf5").read_bytes()
    place = content.index(text) - 16
    (tmp_path / "x.hdf5").write_bytes(content[:place] + word + content[place + 16 :])
    with pytest.raises(AmesError, match=r"x.hdf5: its names or its provenance are damaged"):
        DescriptorFile(tmp_path / "x.hdf5")


# ---- damage that shows late -------------------------------------------------------------------------


def test_damage_that_shows_when_rows_are_read(tmp_path):
    path = plain(tmp_path / "x.hdf5", compression="gzip", chunks=(1, *LOCAL.shape[1:]))
    plain(tmp_path / "g.hdf5", VECTORS, compression="gzip", chunks=(1, 4))
    for name in ("x.hdf5", "g.hdf5"):
        with h5py.File(tmp_path / name) as file:
            chunk = file["features"].id.get_chunk_info(4)
        content = bytearray((tmp_path / name).read_bytes())
        content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
        (tmp_path / name).write_bytes(content)
    file = DescriptorFile(path)
    np.testing.assert_array_equal(file.read([3]).descriptors[0].numpy(), LOCAL[3, :, 5:])
    one_line = re.compile(r"[xg].hdf5: not a readable HDF5 file \([^\n]*\)$")
    with pytest.raises(AmesError, match=one_line):
        file.read([4])
    vectors = Vectors.open(tmp_path / "g.hdf5")
    for read in (lambda: vectors.read(0, 6), lambda: vectors.gather(np.array([4]))):
        with pytest.raises(AmesError, match=one_line):
            read()


def test_a_file_that_was_cut_after_it_was_opened(tmp_path):
    file = DescriptorFile(plain(tmp_path / "x.hdf5"))
    file.path.write_bytes(file.path.read_bytes()[:-100])
    with pytest.raises(AmesError, match=r"x.hdf5"):
        file.read([5])
