"""``ames explain``: the picture, JSON, boxes, and one line for whatever is wrong."""

import json

import numpy as np
import pytest

from ames.cli.main import main
from ames.datasets.images import read_image
from ames.extraction.extractor import Extractor
from ames.models.ames import AMES
from ames.models.checkpoints import save_weights
from ames.reranking.reranker import Reranker
from helpers import photos

MODEL = "rootsift_elvis_binary"


def run(*words):
    try:
        return main(["explain", *map(str, words)])
    except SystemExit as end:  # argparse's way out
        return end.code


@pytest.fixture
def pair(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for view in range(2):
        photos.save(tmp_path / f"{view}.png", photos.scene(1, view, size=(150, 200)))
    return "0.png", "1.png"


def printed(capsys, *words):
    capsys.readouterr()
    assert run(*words) == 0
    return capsys.readouterr().out


def test_a_picture_and_a_line(pair, capsys, tmp_path):
    out = printed(capsys, *pair)
    lines = out.splitlines()
    assert lines[0].startswith("rootsift_ames_dist: score ")  # the backbone's default
    assert lines[0].endswith(" links (attention)")
    assert lines[1] == "match.png"
    assert read_image("match.png").shape[1] > 1500
    assert printed(capsys, *pair, "-q", "-o", "new/why.jpg", "--preset", MODEL) == ""
    assert read_image("new/why.jpg").shape[1] > 1500
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["0.png", "1.png", "match.png", "new"]


def test_json_is_the_explanation_of_the_score(pair, capsys, tmp_path):
    content = json.loads(printed(capsys, *pair, "--json", "--top", 7, "--preset", MODEL))
    assert (content["a"], content["b"], content["model"]) == (*pair, MODEL)
    assert content["picture"] is None
    assert not (tmp_path / "match.png").exists()
    assert len(content["links"]) == len(content["weights"]) == 7
    extract = Extractor("rootsift")
    a, b = (extract(name) for name in pair)
    reranker = Reranker(MODEL)
    assert content["score"] == pytest.approx(float(reranker.score(a, [b])[0]), abs=1e-4)
    similarity = float(np.dot(a.vector, b.vector))
    (hit,) = reranker.rank(a, [b], [similarity])
    assert content["fused"] == pytest.approx(hit.score, abs=1e-4)
    again = json.loads(printed(capsys, *pair, "--json", "-o", "why.png", "--preset", MODEL))
    assert again["picture"] == "why.png"
    assert (tmp_path / "why.png").exists()


def test_a_box_is_the_part_that_is_described(pair, capsys):
    words = (*pair, "--json", "--box-a", "10,20,110,140", "--box-b", "100,0,200,150", "--preset", MODEL)
    content = json.loads(printed(capsys, *words))
    for side, (x1, y1, x2, y2) in (("a", (10, 20, 110, 140)), ("b", (100, 0, 200, 150))):
        rows, columns = np.array(content[f"positions_{side}"]).T * [[150], [200]]
        assert (rows > y1).all()
        assert (rows < y2).all()
        assert (columns > x1).all()
        assert (columns < x2).all()


def test_a_photo_with_itself_and_a_checkpoint(pair, capsys):
    sizes = {"local_dim": 128, "model_dim": 16, "num_encoder_layers": 2, "dim_feedforward": 16}
    save_weights("own.safetensors", AMES(**sizes))
    words = (pair[0], pair[0], "--preset", "own.safetensors", "--backbone", "rootsift", "--json")
    content = json.loads(printed(capsys, *words))
    assert content["model"] == "own.safetensors"
    assert content["fused"] is None  # it brings no lambda and gamma
    np.testing.assert_allclose(content["positions_b"], content["positions_a"][: len(content["shares_b"])])


def test_what_is_wrong_is_one_line(pair, capsys, tmp_path):
    photos.save(tmp_path / "plain.png", photos.plain())
    (tmp_path / "file").write_text("")
    (tmp_path / "text.png").write_text("no image")
    for words, message in (
        (("none.png", pair[0]), "none.png: No such file"),
        ((pair[0], "text.png"), "text.png: not an image"),
        ((pair[0], "plain.png"), "plain.png: no local features were found"),
        ((*pair, "--box-b", "500,500,600,600"), "1.png: its box 500, 500, 600, 600 shows nothing"),
        ((*pair, "--box-a", "1,2,3"), "'1,2,3' is not a box"),
        ((*pair, "-o", "match.gif"), "match.gif: pictures end with"),
        ((*pair, "-o", "file/match.png"), "file/match.png: cannot be written"),
        ((*pair, "-o", pair[1]), "1.png: is one of the photos"),
        ((*pair, "--preset", "rootsif"), "did you mean"),
        ((*pair, "--preset", "chamfer"), "chamfer: name the backbone"),
        ((*pair, "--preset", MODEL, "--backbone", "dinov2"), "trained on rootsift descriptors"),
        ((*pair, "--top", "0"), "not a whole number of 1 or more"),
        ((*pair, "--device", "none"), "--device none"),
        ((pair[0],), "required: B"),
    ):
        capsys.readouterr()
        assert run(*words) == 2, words
        err = capsys.readouterr().err
        lines = [line for line in err.splitlines() if not line.startswith("model ")]
        assert len(lines) == 1, err
        assert lines[0].startswith("ames explain: ")
        assert message in lines[0], err
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["0.png", "1.png", "file", "plain.png", "text.png"]
