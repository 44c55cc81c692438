"""`ames plot`: what the lines and the table show is what the journals say."""

import builtins
import json
import math

import cv2
import numpy as np
import pytest

from ames.cli.main import main
from ames.errors import AmesError
from ames.reporting.training_plot import draw, find_journals, load_curves, picture, run_names, smooth
from ames.training.logging.journal import Journal

figures = pytest.importorskip("matplotlib.figure")


def journal(path, *, steps=(), losses=(), maps=(), accuracy=None):
    """Losses of steps 10, 20, ...; of epochs, each of 20 steps, loss and mAP."""
    found = Journal(path)
    found.begin(0)
    for number, loss in enumerate(steps, start=1):
        figures = {} if accuracy is None else {"accuracy": accuracy}
        found.write({"kind": "step", "step": 10 * number, "loss": loss} | figures)
    for number in range(1, max(len(losses), len(maps)) + 1):
        record = {"kind": "epoch", "step": 20 * number, "epoch": number}
        record |= {"loss": losses[number - 1], "accuracy": 0.75} if number <= len(losses) else {}
        record |= {"val_map": maps[number - 1]} if number <= len(maps) and maps[number - 1] else {}
        found.write(record)
    found.close()
    return path


def points(line):
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


# ---- the figure ------------------------------------------------------------------------------------------


def test_loss_and_map(tmp_path):
    losses = [1.0, 0.5, 0.75, 0.25, 0.5]
    a = journal(tmp_path / "a-journal.jsonl", steps=losses, losses=[0.8, 0.4], maps=[40.0, None, 42.5])
    b = journal(tmp_path / "b-journal.jsonl", losses=[0.9, 0.6])
    loss, val = picture(load_curves([a, b]), width=3).axes
    raw, smoothed, means = loss.get_lines()
    x = [10.0, 20.0, 30.0, 40.0, 50.0]
    assert points(raw) == list(zip(x, losses, strict=True))
    assert raw.get_alpha() < 0.5
    assert smoothed.get_xdata().tolist() == x
    assert smoothed.get_ydata() == pytest.approx([1.0, 0.75, 0.5, 0.5, 0.375])
    assert points(means) == [(20.0, 0.9), (40.0, 0.6)]  # no steps there
    one, none = val.get_lines()
    assert points(one) == [(1.0, 40.0), (3.0, 42.5)]
    assert points(none) == []
    assert (raw.get_marker(), means.get_marker()) == ("None", "o")
    assert raw.get_color() == smoothed.get_color() == one.get_color() != means.get_color()
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("step", "loss")
    assert (val.get_xlabel(), val.get_ylabel()) == ("epoch", "validation mAP (%)")


def test_one_panel_without_validation_and_one_line_without_means(tmp_path):
    path = journal(tmp_path / "a-journal.jsonl", steps=[1.0, None, 0.5])
    for width in (1, None):
        (axes,) = picture(load_curves([path]), width=width).axes
        (line,) = axes.get_lines()
        assert line.get_ydata()[[0, 2]].tolist() == [1.0, 0.5]
        assert math.isnan(line.get_ydata()[1])


def test_by_itself_a_mean_takes_a_fiftieth(tmp_path):
    losses = np.linspace(2, 1, 150) + np.tile([0.1, -0.1], 75)
    path = journal(tmp_path / "a-journal.jsonl", steps=losses)
    (axes,) = picture(load_curves([path])).axes
    smoothed = axes.get_lines()[1].get_ydata()
    assert smoothed == pytest.approx(smooth(losses, 3))
    assert np.abs(np.diff(smoothed[1:-1])).max() < 0.5 * np.abs(np.diff(losses)).max()


def test_the_legend_names_the_runs_and_each_looks_different(tmp_path):
    paths = [journal(tmp_path / f"{i}" / "a$b-journal.jsonl", steps=[1.0, 2.0]) for i in range(8)]
    figure = picture(load_curves([*paths[:7], journal(tmp_path / "c-journal.jsonl", steps=[1.0])]), width=1)
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [*(rf"{i}/a\$b" for i in range(7)), "c"]
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()}
    assert len(looks) == 8


def test_means_of_neighbours():
    values = np.array([4.0, 1.0, 1.0, 7.0, math.nan, 1.0, 5.0])
    found = smooth(values, 3)
    assert found == pytest.approx([4.0, 2.0, 3.0, 4.0, 4.0, 3.0, 3.0])
    assert smooth(values, 2) == pytest.approx(found)
    assert smooth(values[:4], 1).tolist() == [4.0, 1.0, 1.0, 7.0]
    line = np.arange(20.0)
    assert smooth(line, 9)[:-4] == pytest.approx(line[:-4])  # nothing is shifted, but at the end
    assert smooth(line, 9)[-1] == 17.0
    assert np.isnan(smooth(np.full(3, math.nan), 3)).all()
    assert len(smooth(np.zeros(0), 5)) == 0


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["x/teacher"], ["teacher"]),
        (["x/teacher", "x/student"], ["teacher", "student"]),
        (["x/teacher", "y/student"], ["teacher", "student"]),
        (["x/model", "y/model"], ["x", "y"]),
        (["1/x/model", "1/y/model", "2/y/model"], ["x", "1/y", "2/y"]),
        (["x/model", "y/model", "y/other"], ["x/model", "y/model", "other"]),
        (["model", "x/model"], None),
    ],
)
def test_names(tmp_path, files, names):
    found = run_names([tmp_path / f"{name}-journal.jsonl" for name in files])
    assert found == (names or [tmp_path.name, "x"])


# ---- which journals --------------------------------------------------------------------------------------


def test_what_a_run_can_be(tmp_path):
    a, b = (journal(tmp_path / "models" / f"{name}-journal.jsonl", steps=[1.0]) for name in "ab")
    (tmp_path / "models" / "b.pt").touch()
    run = tmp_path / "runs" / "1"
    run.mkdir(parents=True)
    (run / "environment.json").write_text(json.dumps({"journal": "../../models/b-journal.jsonl"}))
    for given in (a, a.with_name("a.pt"), a.with_name("a.safetensors")):
        assert find_journals([given]) == [a]
    assert find_journals([tmp_path / "models"]) == [a, b]
    assert [path.resolve() for path in find_journals([run])] == [b]
    assert find_journals([b, tmp_path / "models", run]) == [b, a]  # each once, as they were first given
    other = journal(tmp_path / "other.jsonl", steps=[1.0])
    assert find_journals([str(other)]) == [other]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("none", "none: no such run; give a journal, a model file or a folder"),
        ("none-journal.jsonl", "none-journal.jsonl: no such run"),
        ("folder", "folder: no journal (*-journal.jsonl) in it"),
        ("model.pt", "model.pt: no journal beside it (model-journal.jsonl)"),
        ("empty-journal.jsonl", "empty-journal.jsonl: no metrics in it yet"),
        ("bare-journal.jsonl", "bare-journal.jsonl: no metrics in it yet"),
        ("damaged-journal.jsonl", "damaged-journal.jsonl, line 1: no record of a training"),
        ("text-journal.jsonl", "text-journal.jsonl: loss is 'low' at step 1, not a number"),
        ("moved", "environment.json: its journal gone.jsonl does not exist"),
        ("list", "environment.json: not what a training writes"),
        ("unnamed", "unnamed: no journal (*-journal.jsonl) in it"),
    ],
)
def test_runs_without_figures(tmp_path, monkeypatch, capsys, run, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "moved", "list", "unnamed"):
        (tmp_path / folder).mkdir()
    files = {
        "model.pt": "",
        "empty-journal.jsonl": "",
        "bare-journal.jsonl": '{"kind": "step", "step": 1, "lr": 0.1}\n',
        "damaged-journal.jsonl": "nonsense\n",
        "text-journal.jsonl": '{"kind": "step", "step": 1, "loss": "low"}\n',
        "moved/environment.json": '{"journal": "gone.jsonl"}',
        "list/environment.json": "[]",
        "unnamed/environment.json": "{}",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert main(["plot", run, "-o", "out.png"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("ames plot: ")
    assert message in err
    assert not (tmp_path / "out.png").exists()


# ---- the command -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "head"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("SVG", b"<?xml")])
def test_formats(tmp_path, suffix, head):
    runs = load_curves([journal(tmp_path / "a-journal.jsonl", steps=[1.0, 0.5], maps=[40.0])])
    path = draw(runs, tmp_path / "new" / f"out.{suffix}")
    assert path.read_bytes().startswith(head)
    assert [x.name for x in path.parent.iterdir()] == [path.name]


def test_the_command(tmp_path, capsys):
    a = journal(tmp_path / "a-journal.jsonl", steps=[0.7, 0.1], losses=[0.5, 0.125], maps=[41.0, 45.26, 44.0])
    b = journal(tmp_path / "b-journal.jsonl", steps=[0.7, 0.625], accuracy=0.5)
    c = journal(tmp_path / "c-journal.jsonl", steps=[0.7, None])
    out = tmp_path / "out.png"
    assert main(["plot", *map(str, (a, b, c)), "-o", str(out), "--smooth", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:-1]] == [
        ["run", "loss", "accuracy", "best_map", "at_epoch"],
        ["a", "0.1250", "0.7500", "45.3", "2"],
        ["b", "0.6250", "0.5000", "-", "-"],
        ["c", "-", "-", "-", "-"],
    ]
    assert lines[-1] == f"picture: {out}"
    height, width, _ = cv2.imread(str(out)).shape
    assert (height, width) == (750, 1800)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "out.gif"], "out.gif: a picture's name ends in .png, .pdf, .svg"),
        (["-o", "out"], "out: a picture's name ends in"),
        (["-o", "."], "a picture's name ends in"),
        (["-o", "file/out.png"], "out.png: cannot be written"),
        (["-o", "folder.png"], "folder.png: cannot be written"),
        (["-o", "out.png", "--smooth", "0"], "'0' is not a whole number of 1 or more"),
        ([], "the following arguments are required: -o/--out"),
    ],
)
def test_wrong_words(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    journal(tmp_path / "a-journal.jsonl", steps=[1.0])
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.rglob("*"))
    try:
        status = main(["plot", "a-journal.jsonl", *words])
    except SystemExit as end:  # argparse's way out
        status = end.code
    err = capsys.readouterr().err
    assert status == 2
    assert len(err.splitlines()) == 1
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before


def test_without_matplotlib_the_table_is_printed(tmp_path, capsys, monkeypatch):
    found = builtins.__import__

    def lacking(name, *rest, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError(f"No module named {name!r}")
        return found(name, *rest, **keywords)

    path = journal(tmp_path / "a-journal.jsonl", steps=[1.0, 0.25])
    monkeypatch.setattr(builtins, "__import__", lacking)
    assert main(["plot", str(path), "-o", str(tmp_path / "a.png")]) == 2
    out, err = capsys.readouterr()
    assert "0.2500" in out
    assert "pip install 'ames-retrieval[plot]'" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "a.png").exists()


def test_a_picture_is_whole_or_not_there(tmp_path, monkeypatch):
    runs = load_curves([journal(tmp_path / "a-journal.jsonl", steps=[1.0])])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figures.Figure, "savefig", full)
    with pytest.raises(AmesError, match=r"out\.png: cannot be written \(No space left"):
        draw(runs, tmp_path / "out.png")
    assert [x.name for x in tmp_path.iterdir()] == ["a-journal.jsonl"]
