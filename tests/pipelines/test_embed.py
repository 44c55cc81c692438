"""``ames embed``: vectors of images, of stored features, of a data set; resumed, skipped, refused."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from ames.cli.main import main
from ames.datasets.ground_truth import load_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import write_names
from ames.descriptors.local import GlobalFile, create_local, write_globals
from ames.embedders.checkpoints import fingerprint, load_embedder, save_embedders
from ames.embedders.features import FeatureSpec, StoredFeatures
from ames.evaluation.protocols import choose_protocols
from ames.evaluation.sweep import evaluate_initial, metrics
from ames.extraction import fused_files, pipeline
from ames.features import LocalFeatures
from ames.global_search.exact import search
from ames.global_search.shortlist import Shortlist
from helpers import embedders, photos, small_sets
from helpers.commands import ROOT, run_script

COUNT = 11
SPECS = (FeatureSpec("a", "global", 6, 1, "one"), FeatureSpec("b", "local", 4, 3, "two"))


def ames(*words):
    return main([str(word) for word in words])


@pytest.fixture
def features(tmp_path):
    """Files of two features of eleven images, of which one has neither, and a mixer's file."""
    rng = np.random.default_rng(8)
    names = [f"{i}.jpg" for i in range(COUNT)]
    vectors = rng.standard_normal((COUNT, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[4] = 0
    write_globals(tmp_path / "a.hdf5", vectors, names=names, provenance={"backbone": "one", "long_side": 9})
    made = {"images": COUNT, "slots": 5, "width": 4, "names": names, "provenance": {"backbone": "two"}}
    with create_local(tmp_path / "b.hdf5", **made) as write:
        for row in range(COUNT):
            count = 0 if row == 4 else rng.integers(1, 6)
            write(row, LocalFeatures.from_descriptors(torch.from_numpy(rng.standard_normal((count, 4)))))
    save_embedders(tmp_path / "mixer.pt", {"gallery": embedders.mixer(SPECS)})
    return tmp_path


def embed(folder, out="x", *words):
    given = [f"a={folder / 'a.hdf5'}", f"b={folder / 'b.hdf5'}"]
    return ames("embed", folder / "mixer.pt", "-o", folder / out, "--features", *given, *words)


def test_fused_vectors_are_the_mixer_s_of_the_stored_features(features):
    assert embed(features) == 0
    found = GlobalFile(features / "x_global.hdf5")
    mixer = load_embedder(features / "mixer.pt")
    stored = StoredFeatures({"a": features / "a.hdf5", "b": features / "b.hdf5"}, {"b": 3})
    with torch.no_grad():
        wanted = mixer(stored.read(np.arange(COUNT))).numpy()
    wanted[4] = 0
    np.testing.assert_allclose(found.read(), wanted, atol=1e-6)
    assert found.names == stored.names
    made = found.provenance
    assert (made["space"], made["side"]) == (mixer.space, "gallery")
    assert made["embedder"] == fingerprint(mixer)
    assert made["fused"] == {"a": {"backbone": "one", "long_side": 9}, "b": {"backbone": "two"}}


def test_a_call_that_was_interrupted_resumes_to_equal_bytes(features, monkeypatch, capsys):
    monkeypatch.setattr(fused_files, "BLOCK", 4)
    monkeypatch.setattr(fused_files, "FUSED", 2)
    assert embed(features, "whole") == 0
    real, calls = fused_files.fuse, []

    def dying(*given):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(fused_files, "fuse", dying)
    assert embed(features) == 130
    assert (features / "x_global.hdf5.partial").exists()
    assert embed(features) == 0
    assert len(calls) == 4 + 4  # of the six parts, two were written
    whole, resumed = ((features / f"{x}_global.hdf5").read_bytes() for x in ("whole", "x"))
    assert whole == resumed
    capsys.readouterr()
    assert embed(features) == 0
    assert "exists already, with the same images and settings" in capsys.readouterr().out
    assert len(calls) == 8


def test_another_embedder_does_not_go_on(features, capsys):
    assert embed(features) == 0
    save_embedders(features / "mixer.pt", {"gallery": embedders.mixer(SPECS, seed=40)})
    assert embed(features) == 2
    assert "exists but was made with different settings (space: there" in capsys.readouterr().err
    assert embed(features, "x", "--overwrite") == 0
    assert GlobalFile(features / "x_global.hdf5").space == load_embedder(features / "mixer.pt").space


def test_files_without_names(features):
    bare = features / "bare"
    bare.mkdir()
    shutil.copy(features / "mixer.pt", bare)
    write_globals(bare / "a.hdf5", GlobalFile(features / "a.hdf5").read())
    stored = StoredFeatures({"b": features / "b.hdf5"}).read(np.arange(COUNT))["b"]
    with create_local(bare / "b.hdf5", images=COUNT, slots=5, width=4) as write:
        for row in range(COUNT):
            write(row, stored[row].trim(int(stored[row].counts)))
    assert embed(bare) == embed(features) == 0
    found, named = (GlobalFile(folder / "x_global.hdf5") for folder in (bare, features))
    assert found.names is None
    np.testing.assert_array_equal(found.read(), named.read())
    assert embed(bare) == 0  # is there already
    write_names(bare / "names.txt", named.names)
    assert embed(bare, "named", "--list", bare / "names.txt") == 0
    assert GlobalFile(bare / "named_global.hdf5").names == named.names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": None}, "the embedder reads the features a, b: 'a' is missing"),
        ({"c": "a.hdf5"}, "the embedder reads the features a, b: 'c' is none of them"),
        ({"a": "b.hdf5"}, "b.hdf5: feature 'a' is of kind local, the embedder takes global"),
        ({"a": "wide.hdf5"}, "wide.hdf5: feature 'a' is of width 7, the embedder takes 6"),
        ({"a": "else.hdf5"}, "else.hdf5: feature 'a' is of backbone nine, the embedder takes one"),
        ({"a": "few.hdf5"}, "11 images, but 10 in"),
        ({"a": "names.hdf5"}, "image 1 is '1.jpg', there 'x'"),
        ({"a": "nowhere.hdf5"}, "nowhere.hdf5"),
    ],
)
def test_features_that_do_not_fit_are_one_line(features, capsys, change, message):
    vectors, names = GlobalFile(features / "a.hdf5").read(), [f"{i}.jpg" for i in range(COUNT)]
    write_globals(features / "wide.hdf5", np.ones((COUNT, 7)), names=names)
    write_globals(features / "else.hdf5", vectors, names=names, provenance={"backbone": "nine"})
    write_globals(features / "few.hdf5", vectors[:10])
    write_globals(features / "names.hdf5", vectors, names=["0.jpg", "x", *names[2:]])
    files = {"a": "a.hdf5", "b": "b.hdf5"} | change
    given = [f"{name}={features / file}" for name, file in files.items() if file]
    assert ames("embed", features / "mixer.pt", "-o", features / "x", "--features", *given) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(features.glob("x*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "x"], "--images is missing"),
        (["--dataset", "."], "--name is missing"),
        (["--dataset", ".", "--name", "rootsift"], "--name rootsift: is a backbone's"),
        (["--dataset", ".", "--name", "x", "--side", "query"], "leave it out"),
        (["--dataset", ".", "--name", "x", "-o", "y"], "--out does not go with --dataset: leave it out"),
        (["--dataset", ".", "--name", "x", "--shard", "1/2"], "--shard does not go with --dataset"),
        (["-o", "y", "--features", "a=b", "--shard", "1/2"], "--shard does not go with --features"),
        (["-o", "x", "--features", "a"], "--features a: give NAME=FILE"),
        (["-o", "x", "--images", "1.png"], "feature 'a', made by 'one', no backbone here"),
        (["-o", "x", "--features", "a=a.hdf5", "--boxes", "1"], "--boxes does not go with --features"),
    ],
)
def test_words_that_are_refused(features, capsys, monkeypatch, words, message):
    monkeypatch.chdir(features)
    photos.save(features / "1.png", photos.scene(1))
    assert ames("embed", "mixer.pt", *words) == 2
    assert message in capsys.readouterr().err


# ---- images, and a data set -----------------------------------------------------------------------


def by_hand(embedder, image):
    with torch.no_grad():
        return embedder(embedder.inputs.tensor([embedder.inputs.fit(image)]))[0].numpy()


def test_images_alone_are_resumed_too(tmp_path, monkeypatch, capsys):
    for seed in range(7):
        photos.save(tmp_path / "photos" / f"{seed}.png", photos.scene(seed))
    (tmp_path / "photos" / "5.png").write_bytes(b"text")
    network = embedders.save_one(tmp_path / "one.pt")

    def embed_images(out):
        words = ("--images", tmp_path / "photos", "--workers", 0, "--batch-size", 3)
        return ames("embed", tmp_path / "one.pt", "-o", tmp_path / out, *words)

    monkeypatch.setattr(pipeline.run, "__kwdefaults__", {"keep": True, "chunk": 2})
    assert embed_images("whole") == 0
    out = capsys.readouterr().out
    assert "6 of 7 images extracted" in out
    assert "without keypoints" not in out
    real, calls = type(network).forward, []

    def dying(self, images):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, images)

    monkeypatch.setattr(type(network), "forward", dying)
    assert embed_images("x") == 130
    assert embed_images("x") == 0
    assert len(calls) == 3 + 2
    assert (tmp_path / "x_global.hdf5").read_bytes() == (tmp_path / "whole_global.hdf5").read_bytes()
    found = GlobalFile(tmp_path / "x_global.hdf5")
    monkeypatch.setattr(type(network), "forward", real)
    wanted = np.stack([by_hand(network, photos.scene(seed)) for seed in range(7)])
    wanted[5] = 0
    np.testing.assert_allclose(found.read(), wanted, atol=1e-6)
    assert not (tmp_path / "x_local.hdf5").exists()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A test set of RootSIFT with its ground truth, and the file of a query network and a mixer."""
    root = tmp_path_factory.mktemp("data")
    small_sets.prepared_photos(root / "small")
    embedders.save_pair(root / "pair.pt")
    return root


def test_a_data_set_is_embedded_and_searched(dataset, capsys):
    folder = DatasetFolder(dataset / "small", "aff")
    words = ("--dataset", folder.path, "--name", "aff", "--workers", 0)
    assert ames("embed", dataset / "pair.pt", *words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(folder.shortlist)
    network, mixer = (load_embedder(dataset / "pair.pt", side) for side in ("query", "gallery"))
    queries, gallery = (GlobalFile(folder.vectors(split)) for split in ("query", "gallery"))
    wanted = np.stack([by_hand(network, cv2.imread(str(folder.path / f"q{seed}.png"))) for seed in (2, 5)])
    np.testing.assert_allclose(queries.read(), wanted, atol=1e-6)
    plain = DatasetFolder(folder.path, "rootsift")
    stored = StoredFeatures({"vlad": plain.vectors("gallery"), "sift": plain.local("gallery")}, {"sift": 20})
    with torch.no_grad():
        np.testing.assert_allclose(gallery.read(), mixer(stored.read(np.arange(8))).numpy(), atol=1e-6)
    found = Shortlist.load(folder.shortlist, gallery_size=8)
    np.testing.assert_array_equal(found.ids, search(queries.read(), gallery.read()).ids)
    assert ames("embed", dataset / "pair.pt", *words) == 0
    assert capsys.readouterr().out.count("exists already") == 2


def test_the_evaluation_re_ranks_that_shortlist(dataset, tmp_path):
    assert ames("embed", dataset / "pair.pt", "--dataset", dataset / "small", "--name", "mine") == 0
    words = ["dataset@test_dataset=own", f"data_root={dataset}", "test_dataset.desc_dir=small", "cpu=true"]
    words += ["desc_name=rootsift", "test_dataset.nn_file=nn_mine", "test_dataset.num_rerank=[8]"]
    words += ["model_path=rootsift_ames", f"hydra.run.dir={tmp_path}"]
    done = run_script(ROOT / "src" / "evaluate.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    found = Shortlist.load(dataset / "small" / "nn_mine.npz", gallery_size=8)
    truth = load_ground_truth(dataset / "small" / "gnd_small.json")
    assert results["initial"] == metrics(evaluate_initial(found, truth, choose_protocols(truth, [])))
    assert results["initial"]["map"] < 60  # of networks of random weights
    assert results["rows"][0]["map"] == 100.0


def test_prepare_takes_the_sides_of_an_embedder(dataset, tmp_path, capsys):
    shutil.copytree(dataset / "small", tmp_path / "small", ignore=shutil.ignore_patterns("*.hdf5", "nn_*"))
    words = ("prepare", tmp_path / "small", "--backbone", "rootsift", "--workers", 0)
    words += ("--embedder", dataset / "pair.pt")
    assert ames(*words, "--side", "query") == 2
    assert "leave it out" in capsys.readouterr().err
    assert ames(*words) == 0
    assert ames("embed", dataset / "pair.pt", "--dataset", dataset / "small", "--name", "aff") == 0
    for split in ("query", "gallery"):
        found = GlobalFile(tmp_path / "small" / f"rootsift_{split}_global.hdf5")
        assert found.provenance["side"] == split
        wanted = GlobalFile(dataset / "small" / f"aff_{split}_global.hdf5")
        assert found.space == wanted.space
        np.testing.assert_allclose(found.read(), wanted.read(), atol=1e-6)
    ours, theirs = (
        Shortlist.load(path) for path in (tmp_path / "small/nn_rootsift.npz", dataset / "small/nn_aff.npz")
    )
    np.testing.assert_array_equal(ours.ids, theirs.ids)


def test_a_training_set_is_a_gallery(dataset, tmp_path):
    for seed in range(3):
        photos.save(tmp_path / "train" / f"{seed}.png", photos.scene(seed))
    write_names(tmp_path / "train" / "train.txt", [f"{seed}.png" for seed in range(3)])
    words = ("prepare", tmp_path / "train", "--backbone", "rootsift", "--workers", 0)
    assert ames(*words) == 0
    assert ames("embed", dataset / "pair.pt", "--dataset", tmp_path / "train", "--name", "aff") == 0
    assert GlobalFile(tmp_path / "train" / "aff_global.hdf5").provenance["side"] == "gallery"
    assert Shortlist.load(tmp_path / "train" / "nn_aff.npz").ids.shape == (3, 3)


def test_features_of_another_list_are_not_embedded(dataset, tmp_path, capsys):
    shutil.copytree(dataset / "small", tmp_path / "small", ignore=shutil.ignore_patterns("*aff*", "nn_*"))
    names = [f"g{seed}.png" for seed in (0, 2, 1, 3, 4, 5, 6, 7)]
    write_names(tmp_path / "small" / "test_gallery.txt", names)
    words = ("--dataset", tmp_path / "small", "--name", "aff", "--workers", 0)
    assert ames("embed", dataset / "pair.pt", *words) == 2
    assert "test_gallery.txt: image 2 is 'g1.png', there 'g2.png'" in capsys.readouterr().err
    assert not (tmp_path / "small" / "aff_gallery_global.hdf5").exists()


def test_vectors_of_two_spaces_make_no_shortlist(dataset, tmp_path, capsys):
    shutil.copytree(dataset / "small", tmp_path / "small", ignore=shutil.ignore_patterns("*aff*"))
    embedders.save_pair(tmp_path / "other.pt", seed=90)
    words = ("--dataset", tmp_path / "small", "--name", "aff")
    assert ames("embed", tmp_path / "other.pt", *words) == 0
    shutil.copy(
        dataset / "small" / "rootsift_query_global.hdf5", tmp_path / "small" / "aff_query_global.hdf5"
    )
    (tmp_path / "small" / "nn_aff.npz").unlink()
    script = ROOT / "extract" / "prepare_topk_global.py"
    words = ("--dataset", "small", "--desc_name", "aff", "--data_root", tmp_path)
    done = run_script(script, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "aff_query_global.hdf5: its vectors are of no embedder, those of" in done.stderr
    only = save_embedders(tmp_path / "g.pt", {"gallery": embedders.mixer()})
    assert only is not None
    words = ("embed", tmp_path / "g.pt", "--query-embedder", tmp_path / "other.pt")
    assert ames(*words, "--dataset", tmp_path / "small", "--name", "two") == 2
    assert "are of two spaces" in capsys.readouterr().err
