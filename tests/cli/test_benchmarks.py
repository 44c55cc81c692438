"""``ames benchmark-lists``: what it writes and says, and what it refuses; evaluation reads what it wrote."""

from ames.datasets.classes.class_lists import read_class_list
from ames.datasets.ground_truth import load_ground_truth
from ames.datasets.layout import DatasetFolder
from helpers import benchmark_archives as archives
from helpers import class_archives
from helpers.commands import refused_by_ames as refused
from helpers.commands import run_ames as run


def test_lists_of_a_benchmark(tmp_path, capsys):
    root, out = archives.revisited(tmp_path / "x"), tmp_path / "data" / "roxford5k"
    assert run("benchmark-lists", "roxford5k", root, "-o", out) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"query: no listed image is in {root}, so that none is checked",
        f"gallery: no listed image is in {root}, so that none is checked",
        "queries: 2 images were read, 70 are published: this is a subset, or another version",
        "gallery: 4 images were read, 4,993 are published: this is a subset, or another version",
        "Revisited Oxford: 2 queries, 4 gallery images",
        "easy: 1 of 2 queries has no positive and is left out",
        f"{out}: lists and ground truth of paths below {root}",
    ]
    assert (out / "test_query.txt").read_text() == "jpg/all_souls_9.jpg\njpg/christ_9.jpg\n"
    folder = DatasetFolder(out, "dinov2")
    assert load_ground_truth(folder.find_ground_truth()).boxes.shape == (2, 4)
    assert run("benchmark-lists", "roxford5k", root, "-o", out) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{out}: has these files already, below {root}"


def test_what_is_not_verified_is_said(tmp_path, capsys):
    assert run("benchmark-lists", "ilias", archives.ilias(tmp_path / "x"), "-o", tmp_path / "ilias") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "not verified: the exact number of distractors, about 100 million" in lines
    behind = tmp_path / "x" / "image_ids" / "distractor_ids.txt.gz"
    assert f"distractors: those of {behind}, behind the gallery" in lines
    assert len((tmp_path / "ilias" / "test_gallery.txt").read_text().splitlines()) == 5


def test_the_lists_of_a_set_with_classes(tmp_path, capsys):
    """Test lists are those of ``class-lists``, so that either command may come first."""
    root, out = class_archives.sop(tmp_path / "x"), tmp_path / "sop"
    assert run("class-lists", "sop", root, "-o", out) == 0
    capsys.readouterr()
    before = (out / "test_query.txt").read_bytes()
    assert run("benchmark-lists", "sop", root, "-o", out) == 0
    assert (out / "test_query.txt").read_bytes() == before
    assert read_class_list(out / "test_gallery.txt").labels == ["11319", "11319", "11320"]
    assert run("class-lists", "sop", root, "-o", out) == 0
    assert "has these lists already" in capsys.readouterr().out
    assert [query["junk"].tolist() for query in load_ground_truth(out / "gnd_sop.json").queries] == [
        [0],
        [1],
        [2],
    ]


def test_what_the_command_refuses(tmp_path, capsys):
    root = archives.places(tmp_path / "x")
    words = ["-o", tmp_path / "out"]
    refused(
        capsys,
        "benchmark 'pits30k' does not exist; did you mean pitts30k",
        "benchmark-lists",
        "pits30k",
        root,
        *words,
    )
    refused(capsys, "none: no such folder", "benchmark-lists", "pitts30k", tmp_path / "none", *words)
    assert run("benchmark-lists", "pitts30k", root, *words) == 0
    archives.revisited(tmp_path / "y")
    refused(capsys, "exists and has another content", "benchmark-lists", "roxford5k", tmp_path / "y", *words)
    assert run("benchmark-lists", "roxford5k", tmp_path / "y", *words, "--overwrite") == 0
    archives.touch(tmp_path / "y", "jpg/all_souls_9.jpg")
    refused(
        capsys, "1 image of the query list is missing", "benchmark-lists", "roxford5k", tmp_path / "y", *words
    )
