"""Shortlists by ASMK from files, and the commands: what they write, keep and refuse."""

import re

import numpy as np
import pytest

from ames.cli.main import main
from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import DescriptorFile, create_local
from ames.errors import AmesError, NotFiniteError
from ames.global_search import asmk as shortlists
from ames.global_search.asmk import AsmkSearch, make, search_files
from ames.global_search.shortlist import Shortlist
from ames.local_search.codebook import Codebook
from ames.local_search.inverted_file import InvertedFile
from ames.local_search.kernel import Kernel
from ames.models.asmk import ASMK
from ames.models.load import load
from golden import asmk

CASE = asmk.CASES[1]  # five words a query descriptor


def write(path, images, **changes):
    local = asmk.local(images)
    provenance = {"backbone": "rootsift", **changes}
    size = {"images": len(images), "slots": local.size, "width": local.width}
    with create_local(path, **size, dtype="float32", provenance=provenance) as row:
        for i in range(len(images)):
            row(i, local[i])


@pytest.fixture
def folder(tmp_path):
    """A test set of the golden case, and its codebook."""
    images, queries = asmk.image_sets(CASE)
    made = DatasetFolder(tmp_path / "set", "sift")
    made.path.mkdir()
    write(made.local("gallery"), images)
    write(made.local("query"), queries)
    asmk.codebook(CASE).save(tmp_path / "words.npz")
    return made


def files(folder):
    return (DescriptorFile(folder.local(split)) for split in ("query", "gallery"))


def test_shortlists_of_files_are_those_of_the_released_code(folder, monkeypatch):
    monkeypatch.setattr(shortlists, "_BYTES", 4 * 2 * 12 * CASE["dim"])  # two images at a time
    for binary in (True, False):
        found = search_files(*files(folder), asmk.codebook(CASE), Kernel(binary=binary))
        figures = CASE["binary" if binary else "real"]
        assert found.ids.tolist() == figures["ranking"]
        expected = -np.sort(-np.array(figures["scores"]), 1)
        np.testing.assert_allclose(found.similarities, expected, atol=1e-5)
        assert found.meta == {"gallery_size": 8}


def test_descriptors_that_are_left_out_do_not_count(folder):
    counts = {"query_count": 3, "database_count": 4}
    found = search_files(*files(folder), asmk.codebook(CASE), k=5, **counts)
    images, queries = asmk.image_sets(CASE)
    index = InvertedFile(asmk.codebook(CASE))
    index.add(asmk.local([x[:4] for x in images]))
    ids, similarities = index.search(asmk.local([x[:3] for x in queries]), 5)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.similarities, similarities)


def test_more_entries_than_images_are_all_of_them(folder, caplog):
    assert search_files(*files(folder), asmk.codebook(CASE), k=100).ids.shape == (3, 8)
    assert "100 entries asked for, the gallery has 8 images" in caplog.text
    with pytest.raises(AmesError, match="k is 0: give a whole number of at least 1"):
        search_files(*files(folder), asmk.codebook(CASE), k=0)


def test_an_image_with_nan_is_named(folder):
    images, _ = asmk.image_sets(CASE)
    images[5][2] = np.nan
    write(folder.local("gallery"), images)
    with pytest.raises(NotFiniteError, match=r"sift_gallery_local\.hdf5: the descriptors of image 5 hold"):
        search_files(*files(folder), asmk.codebook(CASE))


# ---- the file in a folder --------------------------------------------------------------------------


def test_a_shortlist_is_kept_and_one_of_other_settings_refused(folder, tmp_path):
    words, index = tmp_path / "words.npz", tmp_path / "x.ivf"
    path, made = make(folder, words, AsmkSearch(k=5))
    assert path == folder.path / "nn_asmk.npz"
    assert len(made) == 8
    found = Shortlist.load(path, gallery_size=8)
    assert found.ids.tolist() == [row[:5] for row in CASE["binary"]["ranking"]]
    assert found.meta["dataset"] == "set"
    before = path.stat().st_mtime_ns
    assert make(folder, words, AsmkSearch(k=5)) == (path, None)
    assert make(folder, words, AsmkSearch(k=5), index=index)[1] is not None  # the index alone is new
    assert make(folder, words, AsmkSearch(k=5), index=index) == (path, None)
    assert path.stat().st_mtime_ns == before
    for other, said in (
        (AsmkSearch(k=4), "made with 5 entries, not 4"),
        (AsmkSearch(k=5, kernel=Kernel(alpha=2.0)), "made with alpha 3.0, not 2.0"),
        (AsmkSearch(k=5, query_count=2), "made with query_count None, not 2"),
    ):
        with pytest.raises(AmesError, match=rf"nn_asmk\.npz: {said}; give --overwrite"):
            make(folder, words, other)
    make(folder, words, AsmkSearch(k=4), overwrite=True)
    assert Shortlist.load(path).ids.shape == (3, 4)
    Codebook(asmk.drawn((24, CASE["dim"]), 1)).save(words)
    with pytest.raises(AmesError, match="made with codebook"):
        make(folder, words, AsmkSearch(k=4))
    assert sorted(x.name for x in folder.path.iterdir() if x.suffix != ".hdf5") == [
        "nn_asmk.npz",
    ]


def test_files_that_changed_and_other_shortlists_are_refused(folder, tmp_path):
    words = tmp_path / "words.npz"
    path, _ = make(folder, words)
    write(folder.local("query"), asmk.image_sets(CASE)[1][:2])
    with pytest.raises(AmesError, match="made from other descriptor files"):
        make(folder, words)
    Shortlist(np.zeros((3, 1), int), np.zeros((3, 1))).save(path)
    with pytest.raises(AmesError, match="not made by ames asmk"):
        make(folder, words)


def test_a_saved_index_answers_other_settings_of_queries(folder, tmp_path):
    words, index = tmp_path / "words.npz", tmp_path / "x.ivf"
    make(folder, words, index=index)
    before = index.stat().st_mtime_ns
    (folder.path / "nn_asmk.npz").unlink()
    search = AsmkSearch(kernel=Kernel(query_assign=2, idf=True, alpha=1.0))
    path, _ = make(folder, words, search, index=index)
    assert index.stat().st_mtime_ns == before
    expected = search_files(*files(folder), asmk.codebook(CASE), search.kernel)
    np.testing.assert_array_equal(Shortlist.load(path).ids, expected.ids)
    path.unlink()
    with pytest.raises(AmesError, match=r"x\.ivf: made with binary True, not False"):
        make(folder, words, AsmkSearch(kernel=Kernel(binary=False)), index=index)


# ---- commands --------------------------------------------------------------------------------------


def refused(capsys, *words):
    assert main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_codebook_then_asmk(folder, tmp_path, capsys):
    words, model = tmp_path / "made.npz", tmp_path / "asmk.safetensors"
    source = folder.local("gallery")
    options = ["--words", "20", "--images", "6", "--desc-num", "7", "--seed", "3"]
    assert main(["codebook", str(source), "-o", str(words), *options, "--model", str(model)]) == 0
    made = Codebook.load(words)
    assert (made.words, made.meta["seed"], made.meta["trained_on"]["images"]) == (20, 3, 6)
    said = capsys.readouterr().out
    assert re.search(r"made\.npz: 20 words of 64 dimensions, from \d\d descriptors of 6 images\n", said)
    assert "asmk.safetensors: 12 bytes a word; lambda 0.3, gamma 400\n" in said
    found = load(model)
    assert isinstance(found.model, ASMK)
    np.testing.assert_array_equal(found.model.centroids, made.centroids)
    assert found.about["backbone"] == "rootsift"
    index = tmp_path / "x.ivf"
    command = ["asmk", folder.path, "--name", "sift", "--codebook", words, "-k", 5, "--index", index]
    assert main([str(word) for word in command]) == 0
    said = capsys.readouterr().out
    size = InvertedFile.load(index).bytes_per_image
    assert f"nn_asmk.npz: of 8 images, {size:,.0f} bytes each in the inverted file\n{index}\n" in said
    ids = Shortlist.load(folder.path / "nn_asmk.npz").ids
    assert ids.shape == (3, 5)
    np.testing.assert_array_equal(ids, search_files(*files(folder), made, k=5).ids)
    assert main([str(word) for word in command]) == 0
    assert "is there already" in capsys.readouterr().out
    assert "made with binary True, not False" in refused(capsys, *command[:-2], "--real")


def test_wrong_words_are_one_line(folder, tmp_path, capsys):
    source, words = folder.local("gallery"), tmp_path / "words.npz"
    for command, said in (
        (("codebook", source, "-o", tmp_path / "x.bin"), "ends in .npz"),
        (("codebook", source, "-o", words, "--model", "x.onnx"), "ends in .safetensors or .pt"),
        (("codebook", source, "-o", words, "--real"), "give --model"),
        (("codebook", source, "-o", tmp_path / "new.npz"), "are too few for 65536 words"),
        (("codebook", source, "-o", words), "other settings; --overwrite replaces it"),
        (
            ("asmk", folder.path, "--name", "sift", "--codebook", words, "--index", words, "--overwrite"),
            "exists and is no inverted file",
        ),
        (("asmk", folder.path, "--name", "sift", "--codebook", source), "broken, or not a codebook"),
        (("asmk", folder.path, "--name", "other", "--codebook", words), "other_query_local.hdf5"),
        (("asmk", folder.path, "--name", "sift", "--codebook", words, "--half"), "give --real"),
        (("asmk", folder.path, "--name", "sift", "--codebook", words, "--alpha", -1), "alpha is -1"),
        (("asmk", folder.path, "--name", "sift", "--codebook", words, "--query-assign", 25), "25 words"),
    ):
        assert said in refused(capsys, *command), command
    Codebook(np.ones((8, 65), np.float32)).save(words)
    error = refused(capsys, "asmk", folder.path, "--name", "sift", "--codebook", words)
    assert "descriptors are 64-d, the codebook takes 65-d" in error
    Codebook(np.ones((8, 64), np.float32), {"trained_on": {"backbone": "how"}}).save(words)
    error = refused(capsys, "asmk", folder.path, "--name", "sift", "--codebook", words)
    assert "made by backbone 'rootsift', the codebook is of 'how' descriptors" in error
    with pytest.raises(SystemExit):
        main(["asmk", str(folder.path), "--name", "sift", "--codebook", str(words), "-k", "0"])


def test_packed_files_are_refused(folder, tmp_path):
    import h5py

    with h5py.File(folder.local("gallery"), "w") as file:
        file.create_dataset("features", data=np.zeros((8, 12, 8), np.uint8))
    with pytest.raises(AmesError, match="packed codes"):
        make(folder, tmp_path / "words.npz")


def test_a_query_without_descriptors_finds_the_first_images(folder):
    write(folder.local("query"), [np.zeros((0, CASE["dim"]), np.float32), asmk.image_sets(CASE)[1][0]])
    found = search_files(*files(folder), asmk.codebook(CASE), k=3)
    assert found.ids[0].tolist() == [0, 1, 2]
    assert found.similarities[0].tolist() == [0, 0, 0]
    assert found.ids[1].tolist() == CASE["binary"]["ranking"][0][:3]
