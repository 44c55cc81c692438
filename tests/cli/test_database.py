"""The commands around databases, and evaluation from one."""

import json

import numpy as np
import pytest

from ames.cli.main import main
from ames.database.build import compress
from ames.database.store import Database
from ames.datasets.ground_truth import GroundTruth, save_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import write_globals
from ames.errors import AmesError
from ames.evaluation.evaluate import Scoring, evaluate_test_set
from ames.evaluation.protocols import MEDIUM
from ames.evaluation.sweep import Grid
from ames.evaluation.test_set import open_test_set
from ames.global_search.shortlist import Shortlist
from ames.models.checkpoints import save_weights
from helpers.databases import database, model, source


def run(*words):
    try:
        return main([str(word) for word in words])
    except SystemExit as end:
        return end.code


@pytest.fixture
def prepared(tmp_path):
    """A test set of five queries over twenty images, with its database and model."""
    folder = DatasetFolder(tmp_path / "set", "rootsift")
    gallery, queries = source(folder.path, prefix="gallery"), source(folder.path, 5, seed=3, prefix="query")
    for made, split in ((gallery, "gallery"), (queries, "query")):
        made.local.path.rename(folder.local(split))
        write_globals(folder.vectors(split), made.vectors.read())
    rng = np.random.default_rng(0)
    truth = [{"easy": rng.permutation(20)[:4], "hard": np.array([], int), "junk": np.array([], int)}] * 5
    save_ground_truth(folder.ground_truth, GroundTruth(truth, gallery.local.names, queries.local.names))
    ids = np.stack([rng.permutation(20) for _ in range(5)])
    similarities = -np.sort(-rng.random(ids.shape), axis=1).astype(np.float32)
    Shortlist(ids, similarities).save(folder.shortlist)
    save_weights(tmp_path / "model.safetensors", model())
    return folder


def words_of(folder):
    return folder.local("gallery"), "--model", folder.path.parent / "model.safetensors", "--desc-num", 4


def compressed(folder, *more):
    out = folder.path.parent / "db"
    assert run("compress", *words_of(folder), "--global", folder.vectors("gallery"), "-o", out, *more) == 0
    return out


def test_the_life_of_a_database(prepared, tmp_path, capsys):
    out = compressed(prepared)
    assert "20 images, " in capsys.readouterr().out
    assert run("inspect", out, "--verify") == 0
    text = capsys.readouterr().out
    assert "as they should be" in text
    assert "database" in text
    new = source(tmp_path, 3, seed=8, prefix="new")
    words = (new.local.path, "--global", new.vectors.path, "--model", tmp_path / "model.safetensors")
    assert run("append", out, *words) == 0
    assert "3 images added" in capsys.readouterr().out
    (tmp_path / "gone.txt").write_text("new 0.jpg\nnew 1.jpg\n")
    assert run("delete", out, "gallery 7.jpg", "--list", tmp_path / "gone.txt") == 0
    assert run("compact", out) == 0
    assert "3 rows given back" in capsys.readouterr().out
    db = Database(out)
    assert len(db) == 20
    assert db.names[-1] == "new 2.jpg"
    assert run("inspect", out, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["images"], said["deleted"], said["segments"]) == (20, 0, 1)


def test_commands_that_are_called_again_say_so(prepared, tmp_path, capsys):
    out = tmp_path / "db"
    new = source(tmp_path, 3, seed=8, prefix="new")
    words = ("--global", prepared.vectors("gallery"), "-o", out)
    more = (new.local.path, "--global", new.vectors.path, "--model", tmp_path / "model.safetensors")
    for command, said in (
        (("compress", *words_of(prepared), *words), "is there already, of the same descriptors and settings"),
        (("append", out, *more), "nothing to add, it holds these images with these codes"),
        (("delete", out, "new 1.jpg"), "nothing to delete, an earlier call has deleted them"),
        (("compact", out), "nothing to give back"),
    ):
        assert run(*command) == 0
        assert said not in capsys.readouterr().out
        manifest = (out / "manifest.json").read_bytes()
        assert run(*command) == 0
        told = capsys.readouterr().out
        assert said in told
        assert len(told.splitlines()) == 1
        assert (out / "manifest.json").read_bytes() == manifest
    assert run("compress", *words_of(prepared), *words) == 0
    assert "22 images" in (told := capsys.readouterr().out)
    assert "and has been changed since: left as it is" in told
    assert run("compress", *words_of(prepared), *words, "--global-factory", "SQ8") == 2
    assert "made with other settings (global factory: there SQfp16, now SQ8)" in capsys.readouterr().err


def test_wrong_input_is_one_line(prepared, tmp_path, capsys):
    out = compressed(prepared)
    cases = [
        (("compress", tmp_path / "none.hdf5", "-o", tmp_path / "x"), "no such file"),
        (("compress", prepared.local("gallery"), "-o", tmp_path / "x"), "give --model"),
        (
            ("append", tmp_path / "none", prepared.local("query"), "--model", tmp_path / "model.safetensors"),
            "no such folder",
        ),
        (("delete", out), "no name given"),
        (("delete", out, "nobody"), "no image 'nobody' in it"),
        (("compact", tmp_path / "none"), "no such folder"),
        (("inspect", prepared.local("gallery"), "--verify"), "--verify is for databases"),
        (("inspect", tmp_path / "set"), "no database"),
        (
            ("choose-codec", prepared.vectors("gallery"), "--bytes-per-image", 60),
            "60 bytes per image hold no 50",
        ),
    ]
    for words, message in cases:
        capsys.readouterr()
        assert run(*words) == 2, words
        err = capsys.readouterr().err
        assert message in err
        assert len(err.splitlines()) == 1, err
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "set" / "lock").exists()
    assert run("delete", tmp_path / "set", "somebody") == 2
    assert run("compress", *words_of(prepared), "-o", tmp_path / "set") == 2
    assert not (tmp_path / "set" / "lock").exists()


def test_tune_says_what_to_call(prepared, tmp_path, capsys):
    words = ("--factories", "SQ8", "SQfp16", "--json", tmp_path / "codes.json", "--sample", 10)
    assert run("choose-codec", prepared.vectors("gallery"), *words) == 0
    assert "--global-factory SQ8 --desc-num 60" in capsys.readouterr().out
    assert json.loads((tmp_path / "codes.json").read_text())["pick"]["factory"] == "SQ8"


def test_evaluation_from_a_database_is_the_same(prepared, tmp_path):
    out = compressed(prepared)
    scoring = Scoring(query_count=6, database_count=4)
    runs = []
    for i, where in enumerate((None, out)):
        test = open_test_set(prepared, model(), database=where)
        evaluation = evaluate_test_set(test, model(), [MEDIUM], scoring, Grid([10], [0.0, 0.5], [1.0]))
        runs.append(evaluation.save(tmp_path / f"run{i}"))
    assert runs[0]["rows"] == runs[1]["rows"]
    scores = [np.load(tmp_path / f"run{i}" / "scores.npz")["logits"] for i in (0, 1)]
    np.testing.assert_array_equal(*scores)


def test_evaluation_may_search_the_database_too(prepared):
    out = compressed(prepared)
    test = open_test_set(prepared, model(), shortlist="database", database=out)
    assert test.shortlist.ids.shape == (5, 20)
    assert test.shortlist.ids[0, 0] >= 0


def test_a_database_of_other_images_is_refused(prepared, tmp_path):
    with pytest.raises(AmesError, match=r"image 0 is 'image 0.jpg', but 'gallery 0.jpg' in"):
        open_test_set(prepared, model(), database=database(tmp_path / "other")[0].path)
    few = compress(source(tmp_path / "few", 7), model(), tmp_path / "few" / "db", desc_num=4)
    with pytest.raises(AmesError, match="7 images, but 20 gallery images in the ground truth"):
        open_test_set(prepared, model(), database=few.path)
    with pytest.raises(AmesError, match="another projection"):
        open_test_set(prepared, model(seed=4), database=compressed(prepared))
