"""The README's commands and Python blocks, run in order as they are written, on data made small by ADDED.

Run in this process. ``small``: a gallery of 10 images, with the words of SMALL. ``written`` (slow): a gallery
of 102, so that only the number of drawn landmarks and the size of the trained model are added. Slow, too:
"Your own data set" of docs/extraction.md, with RootSIFT in place of a network, whose weights are not here.
"""

import ast
import json
import re
import shutil
from collections import namedtuple

import numpy as np
import pytest

from helpers.commands import ROOT, run_script
from helpers.documents import blocks, commands, program
from helpers.photos import save, scene

README = (ROOT / "README.md").read_text()
PYTHON = (ROOT / "docs" / "python.md").read_text()
# Beginnings of commands that are not run; test_commands.py looks at their words.
NOT_RUN = {
    "make demo": "tests/pipelines/test_demo.py runs what it calls",
    "make test": "runs this test",
    "pip install": "tests/test_wheel.py runs what is in the wheel",
    "ames prepare data/mine": "needs the weights of a network",
    "ames bench": "takes ten minutes; tests/bench/test_shipped_suites.py runs it small",
    "ames serve": "runs until it is ended; tests/web runs it",
}
MODEL = "epochs=1 model.model_dim=16 model.num_encoder_layers=1 model.dim_feedforward=16"
BATCHES = "train_dataset.batch_size=6 train_dataset.min_positives=1 train_dataset.min_negatives=1"
TRAINING = f"{MODEL} {BATCHES} train_dataset.desc_num=16"
EVALUATE = "python src/evaluate.py experiment=landmarks data_root=data"
RECIPE = "experiment=landmarks-train"
DRAWN = "--landmarks 2 --easy 1 --hard 1 --junk 1"
# What is added to commands that begin so, in place of words of the same key. Of two that fit, the first.
ADDED = {
    "ames landmarks data/landmarks-test": f"{DRAWN} --distractors 96",
    "ames landmarks data/landmarks-train": "--landmarks 6 --easy 3 --hard 1 --distractors 4",
    "python src/train.py": TRAINING,
}
SMALL = {
    "ames landmarks data/landmarks-test": f"{DRAWN} --distractors 4 --workers 0",
    "ames landmarks data/landmarks-train": "--landmarks 3 --easy 2 --hard 1 --distractors 2 --workers 0",
    "ames prepare": "--workers 0",
    "ames extract": "--workers 0",
    "ames index": "--workers 0",
    "ames demo": "--num-rerank 2 --workers 0",
    "ames curve": "--num-rerank 5 --db-desc-num 10 50",
    "python src/train.py": TRAINING,
    f"{EVALUATE} test_dataset.num_rerank": "test_dataset.num_rerank=[3,5]",
    EVALUATE: "test_dataset.num_rerank=[5]",
}
OWN = {
    "python src/train_detector.py": f"epochs=1 {BATCHES}",
    "python src/train.py": f"{MODEL} {BATCHES}",
    "python src/evaluate.py": "test_dataset.num_rerank=[20]",
}
LANDMARKS = {
    "ames landmarks data/landmarks-train": "--landmarks 6 --easy 2 --hard 2 --distractors 6",
    "ames landmarks data/landmarks-val": f"{DRAWN} --distractors 100",
    "python src/train_detector.py": "epochs=1 train_dataset.min_negatives=1",
    "python src/train.py": "epochs=1 model.num_encoder_layers=1 train_dataset.min_negatives=1",
}
# What the run leaves, as the README names it.
OUTPUTS = [
    "demo-photos/report.html",
    "curve.json",
    "curve.png",
    "photos_local.hdf5",
    "photos_global.hdf5",
    "photos.db",
    "page.html",
    "match.png",
    "gallery.db",
    "teacher.pt",
    "student.pt",
    "training.png",
    "results.json",
    "scores.npz",
]


def photos(folder):
    """A folder as "Your own photos" describes it."""
    for view in range(3):
        save(folder / "object" / f"{view}.jpg", scene(0, view))
    for other in range(1, 4):
        save(folder / "distractors" / f"{other}.jpg", scene(other))


def added(text, table):
    return next((words.split() for start, words in table.items() if text.startswith(start)), [])


def run_command(words, table, folder, number):
    """One command of a page, from ``folder``, with what the table adds; what it printed."""
    name, rest = program(words)
    text = " ".join([*(["python"] if "/" in name else []), name, *rest])
    more = added(text, table)
    keys = {word.split("=")[0] for word in more if "=" in word}
    rest = [word for word in rest if word.split("=")[0] not in keys] + more
    if name == "ames":
        script = ROOT / "src/ames/cli/main.py"
    else:
        script = ROOT / name
        if name.startswith("src/"):
            rest.append(f"hydra.run.dir=runs/{number}")  # the folders of one second would be one
    runs = sorted(path.parent.name for path in (folder / "runs").glob("*/scores.npz"))
    rest = [f"runs/{runs[0]}" if word == "RUN_FOLDER" else word for word in rest]
    done = run_script(script, *rest, cwd=folder)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def said_shapes(block):
    """(name, shape) of each assignment whose comment says one shape, such as [B, N, D] or [1, 10]."""
    lines = block.splitlines()
    for node in ast.parse(block).body:
        found = re.findall(r"\[([\w, ]+)\]", lines[node.end_lineno - 1].partition("#")[2])
        if isinstance(node, ast.Assign) and len(found) == 1:
            yield node.targets[0].id, found[0].split(", ")


def shape(value):
    for name in ("descriptors", "ids"):
        value = getattr(value, name, value)
    return value.shape


def run_blocks(text, folder, patch, **names):
    """The page's Python, block after block with the same names, beginning with ``names``; these names."""
    patch.chdir(folder)
    for block in blocks(text, "python"):
        exec(compile(block, "README.md", "exec"), names)
        for name, said in said_shapes(block):
            actual = shape(names[name])
            assert len(actual) == len(said), name
            assert all(not x.isdigit() or int(x) == n for x, n in zip(said, actual, strict=True)), name
    return names


SIZES = [pytest.param(SMALL, id="small"), pytest.param(ADDED, id="written", marks=pytest.mark.slow)]


@pytest.mark.parametrize("table", SIZES)
def test_the_readme_runs(tmp_path, monkeypatch, table):
    photos(tmp_path / "PHOTOS")
    for name, view in (("query.jpg", 4), ("found.jpg", 5)):
        save(tmp_path / name, scene(0, view))
    printed = {}
    for number, words in enumerate(commands(README)):
        text = " ".join(words)
        if not any(text.startswith(start) for start in NOT_RUN):
            printed[text] = run_command(words, table, tmp_path, f"{number:02}")
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    for name in OUTPUTS:
        assert name in README
        assert any(path.endswith(name) for path in left), name
    report = next(out for text, out in printed.items() if text.startswith("ames report"))
    assert [line.split()[1:3] for line in report.splitlines()[-2:]] == [["0.1", "1"], ["0.3", "1"]]

    data = tmp_path / "data/landmarks-test"
    shown = (data / "test_gallery.txt").read_text().partition(",")[0]
    for name in ("query.jpg", "a.jpg"):
        shutil.copy(data / shown, tmp_path / name)
    names = run_blocks(PYTHON, tmp_path, monkeypatch)
    assert names["names"][0] == shown
    assert len(names["names"]) == 10
    np.testing.assert_allclose(names["same"], names["logits"][0].detach(), atol=1e-4)


class VectorDatabase:
    """What the README takes for somebody's vector database: a vector and a binary field for each name."""

    Found = namedtuple("Found", "id score")

    def __init__(self):
        self.vectors, self.fields = {}, {}

    def insert(self, name, vector, field):
        self.vectors[name], self.fields[name] = vector, field

    def search(self, vector, limit):
        found = [self.Found(name, float(x @ vector)) for name, x in self.vectors.items()]
        return sorted(found, key=lambda x: -x.score)[:limit]

    def field(self, name):
        return self.fields[name]


def test_the_readme_s_programs_run(tmp_path, monkeypatch, capsys):
    for seed in range(5):
        save(tmp_path / "photos" / f"{seed}.jpg", scene(seed))
    for name, seed in (("query.jpg", 3), ("a.jpg", 3), ("b.jpg", 1), ("new.jpg", 9)):
        save(tmp_path / name, scene(seed, view=1))
    given = {"photos": [f"photos/{seed}.jpg" for seed in range(5)], "photo": "query.jpg"}
    stored = VectorDatabase()
    names = run_blocks(README, tmp_path, monkeypatch, vector_db=stored, **given)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "5 added"
    assert printed[1].split()[1] == "3.jpg"
    printed = printed[6:]  # the five hits
    same, other = (float(x) for x in printed[0].strip("[]").split())
    assert same > other
    assert printed[1].split()[1] == "3.jpg"
    assert len(printed) == 6
    assert len(names["index"]) == 6
    assert {len(field) for field in stored.fields.values()} == {800}
    assert names["best"][0].id == "photos/3.jpg"
    assert len(names["best"]) == 5


def test_every_shape_that_the_readme_says_is_found():
    found = [name for block in blocks(PYTHON, "python") for name, _ in said_shapes(block)]
    assert found == ["query", "database", "logits", "codes", "same", "found"]


def test_what_is_not_run_and_what_is_added_is_in_the_readme():
    texts = [" ".join(words).removeprefix(".venv/bin/") for words in commands(README)]
    for start in NOT_RUN | ADDED | SMALL:
        assert any(text.startswith(start) for text in texts), start


def own_data(folder):
    """PHOTOS with 4 objects and 8 others, NEW with a view of 2 of the objects, and the data sets' lists."""
    views = [f"{label}-{view}.jpg" for label in range(4) for view in range(4)]
    for name in views:
        save(folder / "PHOTOS" / name, scene(int(name[0]), int(name[2])))
    others = [f"other-{i}.jpg" for i in range(8)]
    for i, name in enumerate(others):
        save(folder / "PHOTOS" / name, scene(50 + i))
    for label in range(2):
        save(folder / "NEW" / f"{label}-new.jpg", scene(label, 7))
    queries, gallery = views[::4], [name for name in views if name[2] != "0"] + others
    right = [[i for i, name in enumerate(gallery) if name[:2] == query[:2]] for query in queries]
    truth = {"qimlist": queries, "imlist": gallery, "gnd": [{"ok": ok, "junk": []} for ok in right]}
    texts = {
        "mine/gnd_mine.json": json.dumps(truth),
        "mine/test_query.txt": "\n".join(queries),
        "mine/test_gallery.txt": "\n".join(gallery),
        "train/train.txt": "\n".join(f"{name},{name[0]}" for name in views),
    }
    for name, text in texts.items():
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).write_text(text)


@pytest.mark.slow
def test_the_commands_for_own_data_run(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs/extraction.md").read_text()
    section = page[page.index("## Your own data set") : page.index("## Conventions")]
    section = section.replace("dinov2-s", "rootsift")
    own_data(tmp_path)
    printed = {}
    ordered = sorted(
        commands(section), key=lambda words: not re.search("data/train|desc_dir=train", str(words))
    )
    for number, words in enumerate(ordered):
        printed[" ".join(words)] = run_command(words, OWN, tmp_path, f"{number:02}")
    assert len(printed) == 8
    reproduce = commands((ROOT / "docs/reproduce.md").read_text())
    protocols = next(words for words in reproduce if words[-1].startswith("test_dataset.protocols="))
    run_command(protocols, OWN, tmp_path, "protocols")
    keys = {"runs/04": {"map"}, "runs/protocols": {"k1_map", "whole_map"}}
    for run, expected in keys.items():
        initial = json.loads((tmp_path / run / "results.json").read_text())["initial"]
        assert {key: x for key, x in initial.items() if key.endswith("map")} == dict.fromkeys(expected, 100)
    assert (tmp_path / "detector.pt").is_file()
    capsys.readouterr()
    run_blocks(section, tmp_path, monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:9] for line in lines] == ["0-new.jpg", "1-new.jpg"]
    assert all(line.split("['")[1][:2] == line[:2] for line in lines)


@pytest.mark.slow
def test_the_recipes_on_generated_landmarks_run(tmp_path):
    """docs/detector.md's commands, then docs/training.md's on these landmarks; … is the line before."""
    (tmp_path / "src").symlink_to(ROOT / "src")  # where the shipped models are
    recipes = [
        *commands((ROOT / "docs/detector.md").read_text()),
        *(words for words in commands((ROOT / "docs/training.md").read_text()) if {"…", RECIPE} & set(words)),
    ]
    assert len(recipes) == 7
    for number, words in enumerate(recipes):
        words = [word if word != "…" else RECIPE for word in words]
        words += ["data_root=data"] if words[-1].startswith("train_dataset.database_desc") else []
        run_command(words, LANDMARKS, tmp_path, f"{number:02}")
    assert (tmp_path / "rootsift_detector.pt").is_file()
    assert sorted(path.parent.name for path in tmp_path.glob("runs/*/model.pt")) == ["05", "06"]
