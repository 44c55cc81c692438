"""Commands with spoilt words, and configurations with spoilt YAML, in this process.

What would rightly run for hours with a huge number (drawing landmarks, epochs of training) is not among them.
"""

import contextlib
import io
import json
import os
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from hydra.core.global_hydra import GlobalHydra

from ames.cli.main import main
from ames.descriptors.local import write_globals
from ames.evaluation.protocols import Protocol
from ames.evaluation.runs import Run
from ames.global_search.shortlist import Shortlist
from ames.models.ames import AMES
from ames.models.checkpoints import save_weights
from fuzz.mutation import damaged, spoilt
from golden.data_root import write_local

SOURCE = Path(__file__).parents[2] / "src"
QUERIES, IMAGES, SLOTS, WIDTH = 3, 12, 4, 8
LINES = 3

EVALUATE = [
    "evaluate.py", "data_root=data", "dataset@test_dataset=own", "test_dataset.desc_dir=mine",
    "desc_name=mine", "model=chamfer", f"dim_local_features={WIDTH}", "test_dataset.temp=[0.2]",
    "test_dataset.lamb=[0.5,0.1]", "test_dataset.num_rerank=[5]", "test_dataset.query_desc_num=4", "cpu=true",
    "precision=fp32", "hydra.run.dir=run",
]  # fmt: skip
_LOCAL, _QUERY = "data/mine/mine_gallery_local.hdf5", "data/mine/mine_query_local.hdf5"
_GLOBAL = "data/mine/mine_gallery_global.hdf5"

COMMANDS = [
    ["inspect", _LOCAL, "--json"],
    ["inspect", _LOCAL, "--against", _QUERY, "--image", "0", "--against-image", "1"],
    ["convert", "model.safetensors", "-o", "made.safetensors", "--columns", "3"],
    ["convert", "nn.pkl", "-o", "made.npz", "--columns", "3"],
    ["compress", _LOCAL, "--global", _GLOBAL, "--global-factory", "SQ4", "--desc-num", "2", "--model",
     "model.safetensors", "-o", "db"],
    ["choose-codec", _GLOBAL, "--factories", "SQ4", "SQ8"],
    ["report", "run", "--lamb", "0.1", "0.3", "--temp", "1", "--num-rerank", "5", "--protocol", "own"],
    ["extract", "--images", "photos", "-o", "made", "--desc-num", "5", "--workers", "0", "--device", "cpu"],
    ["plot", "nowhere", "-o", "x.png"],
    EVALUATE,
    EVALUATE,
    EVALUATE,
    ["extract.py", "images=photos", "out=made", "workers=0", "hydra.run.dir=run"],
]  # fmt: skip

YAML = """\
name: mine
desc_dir: mine
test_gnd_file: null
nn_file: null
query_desc_num: 4
db_desc_num: 4
num_rerank: [5]
lamb: null
temp: [0.2]
default_blend: {lamb: 0.5, temp: 0.2}
batch_size: null
pin_memory: false
distractors: false
protocols:
  - {name: own, positives: [ok], junk: [junk], cutoff: 3}
"""


def ask_words(templates: list[list[str]], work: Path, rng: np.random.Generator) -> None:
    """One of the commands with one or two of its words spoilt."""
    _fill(work)
    command, *words = templates[rng.integers(len(templates))]
    words = spoilt(words, rng)
    if command.endswith(".py"):
        _check(lambda: _script(command, words), work, [command, *words])
    else:
        _check(lambda: main([command, *words]), work, [command, *words])


def ask_yaml(text: str, work: Path, rng: np.random.Generator) -> None:
    """A test set described by a damaged file of one's own."""
    _fill(work)
    (work / "conf" / "dataset").mkdir(parents=True)
    (work / "conf" / "dataset" / "mine.yaml").write_bytes(damaged(text.encode(), rng))
    words = [f"--config-dir={work / 'conf'}", *(word for word in EVALUATE[1:] if "test_dataset" not in word)]
    _check(lambda: _script("evaluate.py", [*words, "dataset@test_dataset=mine"]), work, words)


def _check(call, work: Path, words: list[str]) -> None:
    """Status 0, or 2 and a few lines on stderr."""
    said, before = io.StringIO(), Path.cwd()
    os.chdir(work)
    try:
        with contextlib.redirect_stderr(said):
            status = call()
    except SystemExit as end:
        status = end.code
    finally:
        os.chdir(before)
    lines = said.getvalue().strip().splitlines()
    assert status in (0, None, 2), f"status {status} of {words}:\n{said.getvalue()[-2000:]}"
    if status == 2:
        assert 1 <= len(lines) <= LINES, f"{len(lines)} lines of {words}:\n{said.getvalue()[-2000:]}"


def _script(name: str, words: list[str]):
    GlobalHydra.instance().clear()
    kept = sys.argv, sys.path
    sys.argv, sys.path = [name, *words], [*sys.path]
    try:
        runpy.run_path(str(SOURCE / name), run_name="__main__")
    finally:
        sys.argv, sys.path = kept
        os.environ.pop("HYDRA_FULL_ERROR", None)


def _fill(work: Path) -> None:
    """Files that the commands name."""
    data = work / "data" / "mine"
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, images in (("gallery", IMAGES), ("query", QUERIES)):
        x = rng.standard_normal((images, SLOTS, WIDTH)).astype(np.float32)
        write_local(data / f"mine_{split}_local.hdf5", x, rng, 0, True)
        vectors = rng.standard_normal((images, 6)).astype(np.float32)
        write_globals(
            data / f"mine_{split}_global.hdf5", vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        )
    names = [f"{i}.jpg" for i in range(IMAGES)]
    found = [{"ok": [q, q + 3], "junk": [q + 6]} for q in range(QUERIES)]
    truth = {"imlist": names, "qimlist": names[:QUERIES], "gnd": found}
    (data / "gnd_mine.json").write_text(json.dumps(truth))
    ids = np.stack([np.roll(np.arange(IMAGES), -q) for q in range(QUERIES)])
    near = Shortlist(ids, np.linspace(1, 0.1, IMAGES, dtype=np.float32) * np.ones((QUERIES, 1)))
    near.save(data / "nn_mine.npz")
    np.stack([near.similarities, near.ids]).dump(work / "nn.pkl")
    (work / "run").mkdir()
    about = {"num_rerank": [5], "lamb": [0.5], "temp": [1.0], "model": "x", "dataset": "y"}
    about |= {"query_desc_num": 4, "db_desc_num": 4}
    own = (Protocol("own", ("ok",), ("junk",)),)
    logits = rng.standard_normal(ids.shape).astype(np.float32)
    Run(near, logits, data / "gnd_mine.json", IMAGES, own, about).save(work / "run")
    torch.manual_seed(0)
    sizes = {"local_dim": WIDTH, "model_dim": 16, "num_encoder_layers": 1, "dim_feedforward": 16}
    save_weights(work / "model.safetensors", AMES(**sizes, binarized=True))
    (work / "photos").mkdir()
    cv2.imwrite(str(work / "photos" / "a.png"), rng.integers(0, 256, (32, 32, 3), np.uint8))
