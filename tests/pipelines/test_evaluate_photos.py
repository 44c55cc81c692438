"""Own evaluation: figures equal those of the demo on the same photos; forms of a truth; the page."""

import json

import numpy as np
import pytest

from ames.cli.main import main
from ames.errors import AmesError
from ames.evaluation.protocols import LEAVE_ONE_OUT
from ames.models.load import load
from ames.pipelines import demo
from ames.pipelines.evaluate_photos import evaluate_photos
from ames.reranking.fusion import Fusion
from ames.retrieval.collection import Collection
from ames.retrieval.indexing import index_photos
from ames.retrieval.retriever import Retriever
from helpers import photos

MODEL = "rootsift_ames_dist"


def mixed(number, view):
    """A narrow part of an object beside another scene, which its other views do not have: no easy photo."""
    other = photos.scene(40 + 3 * number + view)
    other[:, :36] = photos.scene(number, 2 * view)[:, :36]
    return other


def album(root):
    """Four objects of three views, distractors, one picture without keypoints, two files that are broken."""
    for number, name in enumerate(("tower", "bridge, old", "ümlaut", "gate")):
        for view in range(3):
            photos.save(root / name / f"{view}.png", mixed(number, view))
    for number in range(4):
        photos.save(root / "distractors" / f"{number}.png", photos.scene(20 + number))
    photos.save(root / "top.png", photos.plain())
    (root / "tower" / "empty.jpg").touch()
    (root / "bad.jpg").write_text("text")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    index_photos(album(folder / "photos"), folder / "db", MODEL, factory="Flat", workers=0)
    return folder


def by_demo(folder, k):
    """Results of ``ames demo --images`` before and after re-ranking, with the same model."""
    test = demo.OwnPhotos(folder / "photos").prepare(folder / "demo", backbone="rootsift", workers=0)
    config = demo.ExtractionConfig(backbone="rootsift", desc_num=demo.STORED, workers=0, device="cpu")
    shortlist = demo._prepare(test, demo.build_extractor(config))
    found = load(MODEL)
    fusion = Fusion.from_checkpoint(found.about, source=MODEL)
    method = demo.Method("AMES binary", found.model, demo.FEW, fusion)
    outcome = demo._measure(method, test, shortlist, k, "cpu")
    before = demo.evaluate_initial(shortlist, test.ground_truth, test.protocols)
    return before[LEAVE_ONE_OUT], outcome.results[LEAVE_ONE_OUT]


@pytest.mark.parametrize("k", [5, 100])
def test_figures_are_those_of_the_demo_to_the_digit(made, k):
    found = evaluate_photos(made / "db", made / "photos", num_rerank=k)
    before, after = by_demo(made, min(k, 16))
    for ours, theirs in ((found.before, before), (found.after, after)):
        mean = ours.mean()
        assert mean["mAP"] == theirs.map
        assert [mean[f"P@{n}"] for n in (1, 5, 10)] == list(theirs.mp.values())
        np.testing.assert_array_equal(ours.aps, theirs.aps)
    assert found.before.mean()["mAP"] < 100  # the photos are not all easy


def test_the_rankings_are_those_of_a_search(made):
    index = Retriever.open(made / "db")
    found = evaluate_photos(made / "db", made / "photos")
    for (name, path, _), (_, shown) in zip(found.queries, found.shown, strict=True):
        hits = [hit for hit in index.search(path, k=9) if hit.name != name][:8]
        expected = {hit.name: hit.score for hit in hits}
        assert shown.names[0] == hits[0].name
        assert set(shown.names) == set(expected)
        # Files hold 16 bits of a descriptor: a bit of its code may differ.
        assert shown.scores == pytest.approx([expected[x] for x in shown.names], abs=0.03)
        assert shown.right == [x.split("/")[0] == name.split("/")[0] for x in shown.names]


def test_queries_from_outside_and_without_answers(made, tmp_path):
    for number, name in enumerate(("tower", "bridge, old")):
        photos.save(tmp_path / "queries" / name / "new.png", photos.scene(number, 1))
    photos.save(tmp_path / "queries" / "unknown" / "alone.png", photos.scene(77))
    (tmp_path / "queries" / "tower" / "broken.png").write_bytes(b"no image")
    found = evaluate_photos(made / "db", tmp_path / "queries")
    content = found.as_dict()
    assert content["queries"] == 3
    assert content["without_answers"][0].endswith("unknown/alone.png")
    assert content["after"]["mAP"] == 100
    assert content["after"]["R@1"] == pytest.approx(100 / 3)
    assert list(content["unreadable"]) == [str(tmp_path / "queries" / "tower" / "broken.png")]
    assert "1 query has no answer, and no part in the figures: " in found.text()
    assert "4 queries are not in the collection" in content["notes"]
    (tmp_path / "one.csv").write_text("query,answer\nqueries/tower/new.png,\n")
    with pytest.raises(AmesError, match="no query has an answer"):
        evaluate_photos(made / "db", tmp_path / "one.csv")


def test_command(made, tmp_path, capsys):
    page = tmp_path / "page.html"
    words = ["evaluate-photos", str(made / "db"), str(made / "photos"), "--workers", "0", "-o", str(page)]
    assert main([*words, "--json", "-q"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["photos"] == 17
    assert len(content["per_query"]) == 12
    assert [one["object"] for one in content["objects"]] == ["bridge, old", "gate", "tower", "ümlaut"]
    html = page.read_text(encoding="utf-8")
    aps = [one["after"]["mAP"] for one in content["per_query"]]
    shown = [line for line in html.splitlines() if "re-ranked: AP" in line]
    assert shown[0] == f"<h3>re-ranked: AP {min(aps):.1f}</h3>"
    assert len(shown) == 12
    assert main(words[:5]) == 0
    assert "all, re-ranked" in capsys.readouterr().out
    assert main(["evaluate-photos", str(made / "db"), str(tmp_path / "none.csv")]) == 2
    assert capsys.readouterr().err == f"ames evaluate-photos: {tmp_path / 'none.csv'}: no such truth\n"


def test_a_collection_without_a_record_is_refused(made, tmp_path):
    Retriever.build(tmp_path / "index", made / "photos" / "tower")
    with pytest.raises(AmesError, match="not made by ames index"):
        evaluate_photos(tmp_path / "index", made / "photos")
    assert Collection.load(tmp_path / "index").model == MODEL
