"""extract/prepare_topk_global.py: what it writes, what it keeps, and one line for whatever is wrong."""

import hashlib
import io
import pickle
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch

from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import write_globals
from ames.descriptors.vectors import Vectors
from ames.global_search.build import Source, make, make_superglobal, rerank_blocks
from ames.global_search.exact import search
from ames.global_search.shortlist import Shortlist, read_meta
from ames.global_search.superglobal import Reranking
from ames.io.locks import exclusively
from ames.pipelines.prepare import make_shortlist
from ames.training.data.neighbours import Neighbours
from helpers.commands import ROOT

SCRIPT = ROOT / "extract" / "prepare_topk_global.py"


def units(n, seed, width=8):
    x = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


QUERIES, GALLERY, FAR = units(6, 0), units(40, 1), units(25, 2)


def arguments(root, dataset, *words):
    return [str(x) for x in ("--dataset", dataset, "--desc_name", "cvnet", "--data_root", root, *words)]


def call(root, *words, dataset="toy5k"):
    """The script in this process, where torch is loaded already: (status, stdout, stderr)."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["prepare_topk_global", *arguments(root, dataset, *words)])
        patch.setattr(sys, "path", sys.path.copy())
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as end:
            status = end.code
    return status, out.getvalue(), err.getvalue()


def done(*given, **options):
    """Paths that the command printed."""
    status, out, err = call(*given, **options)
    assert status == 0, err
    return [Path(line) for line in out.splitlines()]


def refused(message, *given, **options):
    status, _, err = call(*given, **options)
    assert status == 2
    assert len(err.splitlines()) == 1, err
    assert message in err


@pytest.fixture
def root(tmp_path):
    write_globals(tmp_path / "toy5k" / "cvnet_query_global.hdf5", QUERIES)
    write_globals(tmp_path / "toy5k" / "cvnet_gallery_global.hdf5", GALLERY)
    write_globals(tmp_path / "train" / "cvnet_global.hdf5", GALLERY)
    write_globals(tmp_path / "revisitop1m" / "cvnet_global.hdf5", FAR)
    return tmp_path


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".hdf5")


def same(path, expected):
    found = Shortlist.load(path)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_allclose(found.similarities, expected.similarities, atol=1e-6)
    return found.meta


def test_as_a_process_of_its_own(root):
    words = [str(SCRIPT), *arguments(root, "toy5k", "--rerank", "superglobal")]
    found = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
    paths = [root / "toy5k" / name for name in ("nn_cvnet.npz", "nn_superglobal.npz")]
    assert found.stdout.split() == [str(path) for path in paths]
    same(paths[0], search(QUERIES, GALLERY))


def test_distractors_go_on_behind_the_gallery(root):
    [path] = done(root, "--distractors", "revisitop1m", "--shortlist_size", 50, "--block", 4)
    assert path == root / "toy5k+1m" / "nn_cvnet.npz"
    meta = same(path, search(QUERIES, np.concatenate((GALLERY, FAR)), 50))
    assert (meta["gallery_size"], meta["entries"], meta["dataset"]) == (65, 50, "toy5k+1m")
    assert files(root / "toy5k") == []
    more = root / "revisitop1m" / "cvnet_global.hdf5"
    [path] = done(root, "--distractors", more, "revisitop1m")
    assert path == root / "toy5k+cvnet_global+1m" / "nn_cvnet.npz"
    same(path, search(QUERIES, np.concatenate((GALLERY, FAR, FAR))))


def test_a_training_set_without_itself(root):
    [path] = done(root, "--skip_self", "--shortlist_size", 39, dataset="train")
    found = Shortlist.load(path)
    assert (np.sort(found.ids, 1) == [[j for j in range(40) if j != i] for i in range(40)]).all()
    assert done(root, dataset="train") == [path]  # neither was asked for to be otherwise
    path.unlink()
    [path] = done(root, dataset="train")
    assert (Shortlist.load(path).ids[:, 0] == np.arange(40)).all()
    refused("made with skip_self False, not True", root, "--skip_self", dataset="train")


@pytest.mark.parametrize("training", [False, True])
def test_the_published_layout(root, training):
    dataset = "train" if training else "toy5k"
    [path] = done(root, "--format", "pkl", "--shortlist_size", 12, dataset=dataset)
    assert files(path.parent) == ["nn_cvnet.pkl"]
    content = pickle.loads(path.read_bytes())
    assert type(content) is (np.ndarray if training else torch.Tensor)
    assert tuple(content.shape) == (2, 40 if training else 6, 12)
    same(path, search(GALLERY if training else QUERIES, GALLERY, 12))
    if training:
        assert Neighbours.open(path, images=40).columns == 12


def test_superglobal(root):
    first, second = done(root, "--rerank", "superglobal", "--top_m", 15, "--neighbours", 4, "--beta", 0.3)
    assert (first.name, second.name) == ("nn_cvnet.npz", "nn_superglobal.npz")
    found, settings = search(QUERIES, GALLERY), Reranking(top=15, neighbours=4, beta=0.3)
    blocks = rerank_blocks(found, Vectors.of(QUERIES), Vectors.of(GALLERY), settings)
    meta = same(second, Shortlist(*(np.concatenate(x) for x in zip(*blocks, strict=True))))
    assert meta["superglobal"] == {"top": 15, "neighbours": 4, "beta": 0.3, "formula": "released"}
    assert (Shortlist.load(second).ids != found.ids).any()
    before = second.stat().st_mtime_ns
    done(root, "--rerank", "superglobal", "--top_m", 15, "--neighbours", 4, "--beta", 0.3)
    assert second.stat().st_mtime_ns == before
    refused("made with superglobal {'top': 15", root, "--rerank", "superglobal")
    second.unlink()
    done(root, "--rerank", "superglobal", "--top_m", 15)
    assert read_meta(second)["superglobal"] == meta["superglobal"] | {"neighbours": 9, "beta": 0.15}
    second.unlink()
    done(root, "--rerank", "superglobal", "--distractors", "revisitop1m")
    assert files(root / "toy5k+1m") == ["nn_cvnet.npz", "nn_superglobal.npz"]
    assert Shortlist.load(root / "toy5k+1m" / "nn_superglobal.npz", gallery_size=65).ids.shape == (6, 65)
    done(root, "--rerank", "superglobal", "--format", "pkl")
    assert pickle.loads((root / "toy5k" / "nn_superglobal.pkl").read_bytes()).shape == (2, 6, 40)


def test_superglobal_of_an_earlier_version_is_not_taken_for_the_released_one(root, caplog):
    settings = {"top": 400, "neighbours": 9, "beta": 0.15, "normalize": False}
    about = {"digest": DIGEST, "gallery_size": 40, "superglobal": settings}
    path = search(QUERIES, GALLERY).save(root / "toy5k" / "nn_superglobal.npz", meta=about)
    refused(
        "nn_superglobal.npz: made by the SuperGlobal formula of an earlier version of ames; move it away",
        root,
        "--rerank",
        "superglobal",
    )
    path.unlink()
    done(root, "--rerank", "superglobal", "--format", "pkl")
    assert "kept; a pickle does not say" not in caplog.text
    done(root, "--rerank", "superglobal", "--format", "pkl")
    assert "nn_superglobal.pkl: kept; a pickle does not say how it was made" in caplog.text


def test_wrong_input_is_one_line(root):
    refused("'0' is not a whole number of 1 or more", root, "--shortlist_size", 0)
    refused("are for --rerank superglobal", root, "--top_m", 5)
    refused("only test sets are re-ranked", root, "--rerank", "superglobal", dataset="train")
    refused("queries of a test set are not in its gallery", root, "--skip_self")
    refused("--distractors none: neither", root, "--distractors", "none")
    refused("no such file", root, dataset="none")
    refused("--device tpu9: cannot be used", root, "--device", "tpu9")
    refused("--top_m, --neighbours and --beta are for --rerank superglobal", root, "--beta", 0.3)
    refused("--device meta: cannot be used", root, "--device", "meta")
    refused("top is 1 or more, neighbours and beta 0 or more", root, "--rerank", "superglobal", "--beta", -1)
    assert files(root / "toy5k") == []  # all of it is said before anything is searched
    write_globals(root / "toy5k" / "cvnet_query_global.hdf5", units(6, 0, width=7))
    refused("cvnet_query_global.hdf5: 7-d global descriptors, those of", root)
    assert files(root / "toy5k") == []


def test_what_is_there_is_kept_if_it_is_the_same(root):
    folder = DatasetFolder(root / "toy5k", "cvnet")
    path = make_shortlist(folder, size=10)
    before = path.stat().st_mtime_ns
    assert make_shortlist(folder) == make_shortlist(folder, size=10) == path
    assert path.stat().st_mtime_ns == before
    refused("made with entries 10, not 12; move it away to make it again", root, "--shortlist_size", 12)
    write_globals(folder.vectors("gallery"), FAR)
    refused("made from other descriptors", root)


def test_a_pickle_of_another_shape_is_not_taken_for_what_is_asked_for(root):
    [path] = done(root, "--format", "pkl", "--shortlist_size", 10)
    before = path.stat().st_mtime_ns
    assert done(root) == done(root, "--shortlist_size", 10) == [path]
    refused("nn_cvnet.pkl: has 10 entries, not 12; move it away", root, "--shortlist_size", 12)
    write_globals(root / "toy5k" / "cvnet_query_global.hdf5", FAR)
    refused("nn_cvnet.pkl: has 6 queries, not 25; move it away", root, "--format", "pkl")
    assert path.stat().st_mtime_ns == before
    path.write_bytes(pickle.dumps([1]))
    refused("nn_cvnet.pkl: not a shortlist", root)


def test_a_gallery_without_images(root):
    write_globals(root / "toy5k" / "cvnet_gallery_global.hdf5", np.empty((0, 8), np.float32))
    for path in done(root, "--rerank", "superglobal"):
        assert Shortlist.load(path).ids.shape == (6, 0)


def test_what_a_killed_call_left_is_removed_and_what_another_writes_is_not(root):
    left = root / "toy5k" / ".nn_cvnet.npz.999999.part"
    left.write_text("gigabytes")
    with exclusively(root / "toy5k" / "nn_cvnet.npz"):
        refused("another process writes these files; wait for it to end", root)
        assert left.exists()
    done(root)
    assert files(root / "toy5k") == ["nn_cvnet.npz"]


def test_a_shortlist_of_an_earlier_version_is_kept(root):
    """Its file says what it was made from, and nothing of sizes; the digest has stayed what it was."""
    path = search(QUERIES, GALLERY).save(
        root / "toy5k" / "nn_cvnet.npz", meta={"digest": DIGEST, "gallery_size": 40}
    )
    assert make_shortlist(DatasetFolder(root / "toy5k", "cvnet"), size=7) == path
    assert "entries" not in read_meta(path)


DIGEST = hashlib.sha256(QUERIES.tobytes() + GALLERY.tobytes()).hexdigest()[:16]


def test_more_than_there_are_is_said(root, caplog):
    folder = DatasetFolder(root / "toy5k", "cvnet")
    assert Shortlist.load(make(Source(folder=folder), size=1600)).ids.shape == (6, 40)
    assert "1600 entries asked for, the gallery has 40 images: all are taken" in caplog.text


def test_nothing_stays_of_a_search_that_fails(root):
    broken = FAR.copy()
    broken[11] = np.nan
    write_globals(root / "revisitop1m" / "cvnet_global.hdf5", broken)
    refused(
        "revisitop1m/cvnet_global.hdf5: the vector of image 11 is not finite",
        root,
        "--distractors",
        "revisitop1m",
    )
    write_globals(root / "revisitop1m" / "cvnet_global.hdf5", units(3, 0, width=7))
    refused("holds 7-d global descriptors", root, "--distractors", "revisitop1m")
    assert not (root / "toy5k+1m").exists()


def test_a_shortlist_of_another_gallery_is_not_re_ranked(root):
    folder = DatasetFolder(root / "toy5k", "cvnet")
    path = make(Source(folder=folder))
    write_globals(folder.vectors("gallery"), FAR)
    with pytest.raises(Exception, match="made from other descriptors"):
        make_superglobal(Source(folder=folder), path)
    with pytest.raises(Exception, match="npz or pkl, not 'csv'"):
        Source(folder=folder, kind="csv")
