"""ames expand: the files that it writes, what it keeps and resumes, and one line for whatever is wrong."""

import os

import numpy as np
import pytest

from ames.cli.main import main
from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import GlobalFile, read_globals, write_globals
from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.global_search import expanded as expanded_files
from ames.global_search.build import Source, make
from ames.global_search.exact import search
from ames.global_search.expanded import make_augmented, make_expanded
from ames.global_search.expansion import Expansion, augment, search_expanded
from ames.global_search.shortlist import Shortlist, read_meta


def units(n, seed, width=8):
    x = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


QUERIES, GALLERY, OTHERS = units(6, 0), units(40, 1), units(40, 2)
NAMES = [f"{i}.jpg" for i in range(40)]


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "toy5k"
    write_globals(place / "dinov2_query_cls.hdf5", QUERIES)
    write_globals(place / "dinov2_gallery_cls.hdf5", GALLERY, names=NAMES, provenance={"backbone": "dinov2"})
    return place


@pytest.fixture
def expand(folder, capsys):
    def call(method, *words, name="dinov2", place=folder):
        status = main(["expand", str(place), "--name", name, "--method", method, *map(str, words)])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return call


@pytest.fixture
def refused(expand):
    def check(message, *words, **options):
        status, _, err = expand(*words, **options)
        assert status == 2
        assert message in err[-1]
        return err

    return check


def files(place):
    return sorted(path.name for path in place.iterdir() if not path.name.startswith("dinov2_"))


def second(settings, size=None):
    queries, gallery = Vectors.of(QUERIES), Vectors.of(GALLERY)
    return search_expanded(queries, gallery, search(QUERIES, GALLERY), settings, size)


def same(path, wanted):
    found = Shortlist.load(path)
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_allclose(found.similarities, wanted.similarities, atol=1e-6)


def test_expanded_queries(expand, folder):
    status, out, _ = expand("alpha-qe")
    path = folder / "nn_dinov2+alpha-qe.npz"
    assert (status, out) == (0, [str(path)])
    assert files(folder) == ["nn_dinov2+alpha-qe.npz", "nn_dinov2.npz"]  # the first one was missing
    same(path, second(Expansion()))
    meta = read_meta(path)
    assert meta["expansion"].items() >= {"neighbours": 10, "alpha": 3.0}.items()
    assert (meta["gallery_size"], meta["entries"], meta["descriptors"]) == (40, 40, "dinov2")
    assert DatasetFolder(folder, "dinov2").find_shortlist("nn_dinov2+alpha-qe") == path
    status, out, _ = expand("average-qe", "--neighbours", 3, "--size", 7)
    assert out == [str(folder / "nn_dinov2+average-qe.npz")]
    same(out[0], second(Expansion(neighbours=3, alpha=0), 7))


def test_an_existing_shortlist_is_kept_if_it_is_the_same(expand, refused, folder):
    [path] = expand("alpha-qe", "--neighbours", 4)[1]
    before = os.stat(path).st_mtime_ns
    assert expand("alpha-qe", "--neighbours", 4)[1] == [f"{path}: exists already, with the same settings"]
    refused("made with expansion {'neighbours': 4, 'alpha': 3.0", "alpha-qe")
    refused("take --overwrite to make it again", "alpha-qe", "--neighbours", 4, "--alpha", 2)
    refused("made with entries 40, not 12; take --overwrite", "alpha-qe", "--neighbours", 4, "--size", 12)
    assert os.stat(path).st_mtime_ns == before
    assert expand("alpha-qe", "--overwrite", "--alpha", 2)[1] == [path]
    same(path, second(Expansion(alpha=2)))
    search(QUERIES, GALLERY).save(path)
    refused("does not say that its queries were expanded; take --overwrite", "alpha-qe")


def test_another_first_shortlist_is_another_input(expand, refused, folder):
    expand("alpha-qe", "--neighbours", 4)
    first = Shortlist.load(folder / "nn_dinov2.npz")
    first.ids[0, :4] = first.ids[0, [3, 1, 2, 0]]
    first.save(folder / "nn_dinov2.npz")
    refused("made with expansion", "alpha-qe", "--neighbours", 4)


def test_descriptors_that_changed_are_said(expand, refused, folder):
    expand("alpha-qe")
    write_globals(folder / "dinov2_gallery_cls.hdf5", OTHERS)
    refused("nn_dinov2.npz: made from other descriptors; move it away to make it again", "alpha-qe")
    (folder / "nn_dinov2.npz").unlink()
    refused("+alpha-qe.npz: made from other descriptors; take --overwrite to make it again", "alpha-qe")


def test_a_first_shortlist_that_does_not_say_its_descriptors(expand, folder):
    search(QUERIES, GALLERY).save(folder / "nn_dinov2.npz")
    status, _, err = expand("alpha-qe")
    assert status == 0
    assert "nn_dinov2.npz: does not say of which descriptors it is" in err[0]


def test_an_augmented_gallery(expand, folder):
    status, out, _ = expand("dba", "--neighbours", 5, "--alpha", 2)
    made = DatasetFolder(folder, "dinov2+dba")
    gallery, queries = folder / "dinov2+dba_gallery_global.hdf5", folder / "dinov2+dba_query_global.hdf5"
    assert (status, out) == (0, [str(gallery), str(made.shortlist)])
    assert (made.vectors("gallery"), made.vectors("query")) == (gallery, queries)
    wanted = augment(Vectors.of(GALLERY), Expansion(neighbours=5, alpha=2))
    np.testing.assert_allclose(read_globals(gallery), wanted, atol=1e-6)
    assert os.readlink(queries) == "dinov2_query_cls.hdf5"
    np.testing.assert_array_equal(read_globals(queries), QUERIES)
    same(made.shortlist, search(QUERIES, wanted))
    found = GlobalFile(gallery)
    assert found.names == NAMES
    assert found.provenance["backbone"] == "dinov2"
    assert found.provenance["dba"].items() >= {"neighbours": 5, "alpha": 2.0}.items()
    assert files(folder) == [
        "dinov2+dba_gallery_global.hdf5",
        "dinov2+dba_query_global.hdf5",
        "nn_dinov2+dba.npz",
    ]
    before = gallery.stat().st_mtime_ns
    _, out, _ = expand("dba", "--neighbours", 5, "--alpha", 2)
    assert [line.split(": ")[1] for line in out] == [
        "exists already, with the same settings",
        "exists already, of the same descriptors",
    ]
    assert gallery.stat().st_mtime_ns == before


def test_after_augmentation_queries_are_expanded(expand, folder):
    expand("dba", "--neighbours", 3)
    [path] = expand("alpha-qe", "--neighbours", 3, "-o", "both", name="dinov2+dba")[1]
    augmented = augment(Vectors.of(GALLERY), Expansion(neighbours=3))
    first = search(QUERIES, augmented)
    settings = Expansion(neighbours=3)
    same(path, search_expanded(Vectors.of(QUERIES), Vectors.of(augmented), first, settings))
    assert path == str(folder / "nn_both.npz")


def test_an_augmented_gallery_of_other_settings_or_descriptors(expand, refused, folder):
    expand("dba")
    refused(
        "dinov2+dba_gallery_global.hdf5: exists but was made with different settings", "dba", "--alpha", 1
    )
    expand("dba", "--alpha", 1, "--overwrite")
    same(
        folder / "nn_dinov2+dba.npz",
        search(QUERIES, augment(Vectors.of(GALLERY), Expansion(alpha=1))),
    )
    write_globals(folder / "dinov2_gallery_cls.hdf5", OTHERS, names=NAMES, provenance={"backbone": "dinov2"})
    refused("use --overwrite to replace it", "dba", "--alpha", 1)


def test_augmentation_resumes(folder, monkeypatch):
    source, settings = Source(folder=DatasetFolder(folder, "dinov2")), Expansion(neighbours=4)
    real, seen = expanded_files.augment_blocks, []

    def killed(*words, **options):
        for first, vectors in real(*words, **options):
            seen.append(first)
            if len(seen) == 3:
                raise KeyboardInterrupt
            yield first, vectors

    monkeypatch.setattr(expanded_files, "augment_blocks", killed)
    with pytest.raises(KeyboardInterrupt):
        make_augmented(source, settings, block=8)
    assert not (folder / "dinov2+dba_gallery_global.hdf5").exists()
    made, done = make_augmented(source, settings, block=8)
    assert seen == [0, 8, 16, 16, 24, 32]
    assert (done.already, made.folder.descriptors) == (False, "dinov2+dba")
    wanted = augment(Vectors.of(GALLERY), settings)
    np.testing.assert_allclose(read_globals(done.files[0]), wanted, atol=1e-6)
    assert not [x for x in folder.iterdir() if "partial" in x.name or x.suffix == ".lock"]


def test_where_no_link_can_be_made_the_queries_are_copied(folder, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    source = Source(folder=DatasetFolder(folder, "dinov2"))
    for _ in range(2):  # a copy is kept, too
        make_augmented(source, Expansion())
    copy = folder / "dinov2+dba_query_global.hdf5"
    assert not copy.is_symlink()
    np.testing.assert_array_equal(read_globals(copy), QUERIES)
    assert caplog.text.count("copied; no link can be made there (Operation not permitted)") == 1
    write_globals(copy, OTHERS)
    with pytest.raises(AmesError, match=r"dinov2\+dba_query_global.hdf5: exists and is not"):
        make_augmented(source, Expansion())


def test_distractors_are_augmented_with_the_gallery(folder, tmp_path):
    write_globals(tmp_path / "far.hdf5", OTHERS)
    target = DatasetFolder(tmp_path / "toy5k+far", "dinov2")
    target.path.mkdir()
    source = Source(folder=DatasetFolder(folder, "dinov2"), more=[tmp_path / "far.hdf5"], target=target)
    made, done = make_augmented(source, Expansion(neighbours=2))
    wanted = augment(Vectors.of(np.concatenate((GALLERY, OTHERS))), Expansion(neighbours=2))
    np.testing.assert_allclose(read_globals(done.files[0]), wanted, atol=1e-6)
    assert done.files[0].parent == target.path
    assert GlobalFile(done.files[0]).names is None  # the distractors have none
    assert os.readlink(made.folder.vectors("query")) == "../toy5k/dinov2_query_cls.hdf5"
    assert len(Shortlist.load(make(made), gallery_size=80).ids) == 6


def test_wrong_input_is_one_line(expand, refused, folder):
    assert len(refused("alpha -1.0: give a number of 0 or more", "alpha-qe", "--alpha", -1)) == 1
    refused("alpha nan: give a number of 0 or more", "dba", "--alpha", "nan")
    refused("--alpha: average-qe takes all neighbours alike", "average-qe", "--alpha", 3)
    refused("name 'dinov2': give a new one", "alpha-qe", "-o", "dinov2")
    refused("name 'a/b': give a new one", "dba", "-o", "a/b")
    refused("cvnet_query_global.hdf5: no such file; extract descriptors first", "dba", name="cvnet")
    refused("--device tpu9: cannot be used", "dba", "--device", "tpu9")
    assert files(folder) == []
    make(Source(folder=DatasetFolder(folder, "dinov2")), size=5)
    refused("nn_dinov2.npz: has 5 entries a query, 10 neighbours are asked for: take fewer", "alpha-qe")
    Shortlist(np.tile(np.arange(31, 41), (6, 1)), np.zeros((6, 10))).save(folder / "nn_dinov2.npz")
    refused("but the gallery has 40 images: use the shortlist of this gallery", "alpha-qe")
    assert files(folder) == ["nn_dinov2.npz"]


def test_training_sets_and_pickles_are_refused(refused, tmp_path, folder):
    write_globals(tmp_path / "train" / "dinov2_cls.hdf5", GALLERY)
    for method in ("alpha-qe", "dba"):
        refused("only the descriptors of test sets are expanded", method, place=tmp_path / "train")
    with pytest.raises(AmesError, match="are written as npz, not pkl"):
        make_expanded(Source(folder=DatasetFolder(folder, "dinov2"), kind="pkl"), Expansion())
