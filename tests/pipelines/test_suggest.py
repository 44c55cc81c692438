"""Suggestions: chosen on one half, reported on the other, applied as a whole; groups by command."""

import json

import numpy as np
import pytest

from ames.cli.main import main
from ames.database.store import Database
from ames.errors import AmesError
from ames.evaluation.held_out import Interval
from ames.pipelines import suggest as module
from ames.pipelines.evaluate_photos import evaluate_photos
from ames.pipelines.suggest import Suggestion, Trial, apply_fusion, suggest
from ames.reranking.fusion import Fusion
from ames.retrieval.collection import Collection
from ames.retrieval.indexing import index_photos
from helpers import photos


def mixed(number, view):
    """A narrow part of an object beside another scene: no easy photo."""
    other = photos.scene(40 + 3 * number + view)
    other[:, :36] = photos.scene(number, 2 * view)[:, :36]
    return other


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suggest")
    for number in range(5):
        for view in range(3):
            photos.save(folder / "photos" / f"object {number}" / f"{view}.png", mixed(number, view))
    photos.save(folder / "photos" / "lonely" / "1.png", photos.scene(90))
    index_photos(folder / "photos", folder / "db", "rootsift_elvis_binary", workers=0)
    return folder


def test_figures_are_of_the_half_that_nothing_was_chosen_on(made):
    found = suggest(made / "db", made / "photos", counts=(5, 20, 999), seed=2)
    whole = evaluate_photos(made / "db", made / "photos")
    assert found.objects == (3, 2)  # one of a single photo has no part
    halves = sorted({name for _, _, name in whole.queries} - {"lonely"})
    order = np.random.default_rng(2).permutation(5)
    other = {halves[i] for i in order[3:]}
    rows = [row for row, (_, _, name) in enumerate(whole.queries) if name in other]
    assert found.now.reported == whole.after.mean(rows)["mAP"]
    assert [trial.stored for trial in found.trials] == [5, 20, 50]
    assert found.best.reported - found.now.reported == pytest.approx(found.best.gain.mean)
    assert found.best.chosen >= found.now.chosen - 0.5  # the choice's slack
    size = Database(made / "db").image_bytes
    assert [trial.size for trial in found.trials] == [size - 45 * 16, size - 30 * 16, size]
    assert found.text().count("WARNING: 3 and 2 objects are too few to tell") == 1


def trial(lamb, gain, stored=50):
    return Trial(stored, 16 * stored, Fusion(lamb, 0.1), 50.0, 50.0 + gain.mean, gain)


def suggestion(made, lamb, gain):
    now = trial(0.45, Interval(0.0, 0.0, 0.0))
    trials = [trial(0.2, gain, 10), trial(lamb, gain)]
    return Suggestion(now, trials, trials[0], (12, 12), [str(made / "my photos"), "--preset", "x"], [])


def test_apply_writes_lambda_and_gamma_alone(made):
    before = json.loads((made / "db" / "retriever.json").read_text())
    said = apply_fusion(made / "db", suggestion(made, 0.25, Interval(1.0, 0.5, 1.5)))
    assert said == f"{made / 'db'}: lambda 0.25 and gamma 0.1 are written (before: 0.45 and 0.1)"
    after = json.loads((made / "db" / "retriever.json").read_text())
    assert after == before | {"fusion": {"lamb": 0.25, "gamma": 0.1}}
    assert evaluate_photos(made / "db", made / "photos").fusion == Fusion(0.25, 0.1)
    index_photos(made / "photos", made / "db", workers=0)  # a later call keeps it
    assert Collection.load(made / "db").fusion == Fusion(0.25, 0.1)


def test_nothing_is_written_where_it_would_not_help(made):
    before = (made / "db" / "retriever.json").read_bytes()
    worse = suggestion(made, 0.3, Interval(-1.0, -2.0, 0.5))
    assert "left as it is: on the other half, the suggestion is worse" in apply_fusion(made / "db", worse)
    assert "has these lambda and gamma already" in apply_fusion(
        made / "db", suggestion(made, 0.45, Interval(0.0, 0.0, 0.0))
    )
    assert (made / "db" / "retriever.json").read_bytes() == before


def test_warnings_and_the_command_of_a_smaller_collection(made):
    unsure = suggestion(made, 0.3, Interval(1.0, -0.5, 2.5))
    assert unsure.warnings() == [
        "WARNING: the interval [-0.5, +2.5] holds 0: these photos do not tell the suggestion from what the "
        "collection has"
    ]
    assert suggestion(made, 0.3, Interval(1.0, 0.5, 2.5)).warnings() == []
    assert f"ames index '{made / 'my photos'}' --preset x -o NEW.db --desc-num 10" in unsure.text()
    assert "save 640 bytes per photo" in unsure.text()


def test_commands(made, tmp_path, capsys):
    words = [str(made / "db"), str(made / "photos"), "--workers", "0", "--desc-num", "5"]
    assert main(["suggest", *words, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [x["descriptors"] for x in content["trials"]] == [5, 50]
    assert content["applied"] is None
    assert main(["split", str(made / "photos"), "-o", str(tmp_path), "--parts", "0.5,0.5"]) == 0
    assert main(["evaluate-photos", str(made / "db"), str(tmp_path / "part-1.csv"), "--json", "-q"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :])["queries"] in (7, 9)
    assert main(["duplicates", str(made / "db"), "--threshold", "0.2", "-o", str(tmp_path / "p.html")]) == 0
    assert "photos; pairs from 0.2 on" in capsys.readouterr().out
    assert (tmp_path / "p.html").read_text().count('class="query"') >= 1
    with pytest.raises(SystemExit):
        main(["split", str(made / "photos"), "-o", str(tmp_path), "--parts", "a"])


def test_the_command_that_is_printed_makes_a_smaller_collection(made, tmp_path):
    words = suggest(made / "db", made / "photos", counts=(10,)).words
    assert words == [str(made / "photos"), "--preset", "rootsift_elvis_binary"]
    assert (
        main(["index", *words, "-o", str(tmp_path / "new"), "--desc-num", "10", "--workers", "0", "-q"]) == 0
    )
    assert Database(tmp_path / "new").slots == 10
    saved = Database(made / "db").image_bytes - Database(tmp_path / "new").image_bytes
    assert saved == 40 * 16


def test_what_is_refused(made, tmp_path):
    (tmp_path / "one.csv").write_text("photo,object\nobject 0/0.png,a\nobject 0/1.png,a\n")
    with pytest.raises(AmesError, match="1 object with answers"):
        suggest(made / "db", tmp_path / "one.csv")
    assert module.COUNTS[-1] == 200
