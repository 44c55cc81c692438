"""Shortlists written block by block: the same files as in one piece, or none."""

import pickle
import shutil
import zipfile
from tempfile import TemporaryFile

import numpy as np
import pytest
import torch

from ames.errors import AmesError
from ames.global_search.shortlist import Shortlist, read_meta
from ames.global_search.shortlist_writer import write_npz, write_pkl
from ames.io import pickles
from ames.training.data.neighbours import Neighbours

IDS = np.random.default_rng(0).permuted(np.tile(np.arange(30), (30, 1)), axis=1)[:, :9]
SIMILARITIES = np.random.default_rng(1).uniform(-1, 1, (30, 9)).astype(np.float32)


def fill(write, step=7, entries=9):
    for start in range(0, 30, step):
        rows = slice(start, start + step)
        write(IDS[rows, :entries], SIMILARITIES[rows, :entries])


def test_npz(tmp_path):
    path = tmp_path / "new" / "nn.npz"
    with write_npz(path, 30, 9, meta={"dataset": "toy"}) as write:
        fill(write)
    assert [file.name for file in path.parent.iterdir()] == ["nn.npz"]
    found = Shortlist.load(path, gallery_size=30)
    np.testing.assert_array_equal(found.ids, IDS)
    np.testing.assert_array_equal(found.similarities, SIMILARITIES)
    assert (found.ids.dtype, found.meta) == (np.int64, {"dataset": "toy"})
    assert read_meta(path) == {"dataset": "toy"}
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
    near = Neighbours.open(path, images=30, columns=4)
    assert isinstance(near._ids.base, np.memmap) or isinstance(near._ids.base.base, np.memmap)
    np.testing.assert_array_equal(near.rows(np.array([29, 3]))[0], IDS[[29, 3], :4])


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_pkl(tmp_path, monkeypatch, training, mapped):
    path = tmp_path / "nn.pkl"
    with write_pkl(path, 30, 9, training=training, gallery_size=30) as write:
        fill(write)
    assert [file.name for file in tmp_path.iterdir()] == ["nn.pkl"]
    content = pickle.loads(path.read_bytes())  # as the released code reads it
    if training:
        assert (type(content), content.dtype) == (np.ndarray, np.float64)
    else:
        assert (type(content), content.dtype) == (torch.Tensor, torch.float32)
    np.testing.assert_array_equal(content[1], IDS)
    np.testing.assert_array_equal(content[0], SIMILARITIES)
    if mapped:
        monkeypatch.setattr(pickles, "_LARGE", 0)
    found = Shortlist.load(path)
    np.testing.assert_array_equal(found.ids, IDS)
    np.testing.assert_array_equal(found.similarities, SIMILARITIES)


def test_a_large_training_pickle_is_mapped(tmp_path, monkeypatch):
    path = tmp_path / "nn.pkl"
    ids = np.arange(40_000).reshape(4000, 10) % 4000
    with write_pkl(path, 4000, 10, training=True, gallery_size=4000) as write:
        write(ids, np.zeros(ids.shape, np.float32))
    monkeypatch.setattr(pickles, "_LARGE", 0)
    assert isinstance(pickles.load_pickle(path), np.memmap)
    near = Neighbours.open(path, images=4000, columns=10)
    np.testing.assert_array_equal(near.rows(slice(3990, 4000))[0], ids[3990:])


def test_empty_ones(tmp_path):
    with write_npz(tmp_path / "nn.npz", 0, 9, meta={}):
        pass
    assert Shortlist.load(tmp_path / "nn.npz").ids.shape == (0, 9)
    for training in (False, True):
        with write_pkl(tmp_path / "nn.pkl", 0, 9, training=training, gallery_size=3):
            pass
        assert Shortlist.load(tmp_path / "nn.pkl").ids.shape == (0, 9)


@pytest.mark.parametrize("kind", ["npz", "test", "training"])
def test_nothing_half_written_stays(tmp_path, kind):
    (tmp_path / "nn").write_text("what was there")

    def writer():
        if kind == "npz":
            return write_npz(tmp_path / "nn", 30, 9, meta={})
        return write_pkl(tmp_path / "nn", 30, 9, training=kind == "training", gallery_size=30)

    def stop(write):
        write(IDS[:7], SIMILARITIES[:7])
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), writer() as write:
        stop(write)
    with pytest.raises(AmesError, match="nn: 7 of 30 rows were written"), writer() as write:
        write(IDS[:7], SIMILARITIES[:7])
    for rows in ((IDS[:, :8], SIMILARITIES[:, :8]), (IDS[:3], SIMILARITIES[:2]), (IDS[[0] * 31],) * 2):
        with (
            pytest.raises(AmesError, match=r"nn: rows .* behind row 0 do not fit \(30, 9\)"),
            writer() as write,
        ):
            write(*rows)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("nn", "what was there")]


def writers(path, queries, entries):
    return (
        write_npz(path, queries, entries, meta={}),
        write_pkl(path, queries, entries, training=True, gallery_size=30),
        write_pkl(path, queries, entries, training=False, gallery_size=30),
    )


def test_rows_without_entries(tmp_path):
    for suffix, writer in zip(("npz", "pkl", "pkl"), writers(tmp_path / "nn", 30, 0), strict=True):
        with writer as write:
            fill(write, entries=0)
        path = (tmp_path / "nn").rename(tmp_path / f"nn.{suffix}")
        assert Shortlist.load(path).ids.shape == (30, 0)


def test_a_disk_that_is_too_small_is_said_first(tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=2000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    for needed, writer in zip((4320, 8640, 2160), writers(tmp_path / "nn", 30, 9), strict=True):
        text = rf"nn: {needed / 1000:.3g} kB are needed while it is written, 2 kB are free; take fewer"
        with pytest.raises(AmesError, match=text), writer:
            pytest.fail("nothing is searched for")
    assert not list(tmp_path.iterdir())


def test_what_lies_in_a_file_is_written_not_mapped(tmp_path, monkeypatch):
    """A full disk kills a process that stores into a map; a write says so."""

    class Full:
        def __init__(self, **_):
            self.file = TemporaryFile()  # noqa: SIM115 - closed by __exit__
            self.seek, self.flush, self.fileno = self.file.seek, self.file.flush, self.file.fileno

        def write(self, _):
            raise OSError(28, "No space left on device")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    monkeypatch.setattr("ames.global_search.shortlist_writer.TemporaryFile", Full)
    for writer in writers(tmp_path / "nn", 30, 9)[:2]:
        with pytest.raises(AmesError, match=r"nn: cannot be written .No space left"), writer as write:
            fill(write)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ames.global_search.shortlist_writer.shutil.copyfileobj", full)
    with (
        pytest.raises(AmesError, match=r"nn.npz: cannot be written .No space left"),
        write_npz(tmp_path / "nn.npz", 30, 9, meta={}) as write,
    ):
        fill(write)
    assert not list(tmp_path.iterdir())


def test_ids_that_float32_cannot_hold(tmp_path):
    with (
        pytest.raises(
            AmesError, match=r"exact up to 16777216, and the gallery has 20000000 images: write .npz"
        ),
        write_pkl(tmp_path / "nn.pkl", 1, 1, training=False, gallery_size=20_000_000),
    ):
        pass
    with write_pkl(tmp_path / "nn.pkl", 1, 1, training=True, gallery_size=20_000_000) as write:
        write(np.array([[2**24 + 1]]), np.ones((1, 1)))
    assert Shortlist.load(tmp_path / "nn.pkl").ids.tolist() == [[2**24 + 1]]


def test_meta_of_what_is_no_shortlist(tmp_path):
    with pytest.raises(AmesError, match="there is no such shortlist file"):
        read_meta(tmp_path / "nn.npz")
    np.savez(tmp_path / "nn.npz", ids=IDS)
    with pytest.raises(AmesError, match=r"nn.npz: not the file of a shortlist: it lacks meta"):
        read_meta(tmp_path / "nn.npz")
    np.savez(tmp_path / "nn.npz", meta=np.array("no JSON"))
    with pytest.raises(AmesError, match=r"nn.npz: meta of the shortlist is not a JSON dict"):
        read_meta(tmp_path / "nn.npz")
