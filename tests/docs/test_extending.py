"""docs/extending.md as a stranger follows it: its model in a copy of the repository, in every command."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from helpers.commands import ROOT
from helpers.documents import blocks, commands

PAGE = (ROOT / "docs" / "extending.md").read_text()
REGISTRY, CONTRACT = "src/ames/models/registry.py", "tests/models/test_contract.py"
CHAMFER = "from ames.models.chamfer import Chamfer\n"
SOFT = "from ames.models.soft_chamfer import SoftChamfer\n"
# What is added to the page's commands, so that they run on little data.
ADDED = {
    "src/train.py": "epochs=1 train_dataset.batch_size=6 train_dataset.min_positives=1 "
    "train_dataset.min_negatives=1 train_dataset.desc_num=16 tracker=null",
    "src/evaluate.py": "test_dataset.num_rerank=[5] hydra.run.dir=run",
}
DRAWN = (
    "train --landmarks 3 --easy 2 --hard 1 --distractors 2",
    "test --landmarks 2 --easy 1 --hard 1 --distractors 4",
)
# All of it in one process: a start takes seconds.
PROGRAM = """
import runpy, sys
from pathlib import Path

import torch

import ames
from ames.cli.main import main
from ames.models.checkpoints import load_model
from ames.models.registry import shipped_for

for words in DRAWN:
    folder = f"data/landmarks-{words.split()[0]}"
    assert main(["landmarks", folder, "--junk", "1", "--workers", "0", "--split", *words.split()]) == 0
    assert main(["prepare", folder, "--workers", "0"]) == 0
for name, *words in COMMANDS:
    if name == "ames":
        assert main(words) == 0, words
    else:
        sys.argv = [name, *words]
        runpy.run_path(f"{CLONE}/{name}", run_name="__main__")
trained = load_model("soft.pt")
Path("src").symlink_to(f"{CLONE}/src")
exec(SAVING)
# The row takes no other model's place: without a model_path evaluation takes the shipped AMES.
assert shipped_for("rootsift", binarized=False) == "rootsift_ames"
assert shipped_for("rootsift", binarized=True) == "rootsift_ames_dist"
sys.argv = ["src/evaluate.py", *EVALUATION]
runpy.run_path(f"{CLONE}/src/evaluate.py", run_name="__main__")
found = torch.hub.load(CLONE, "soft_chamfer", source="local")
assert type(found).__name__ == "SoftChamfer"
assert torch.equal(found.project.weight, trained.project.weight)
extract, rerank = ames.Extractor("rootsift"), ames.Reranker("soft_chamfer")
photos = sorted(Path("data/landmarks-test/images").rglob("*.jpg"))[:3]
print("scores", *rerank.score(extract(photos[0]), extract(photos)))
"""


def line(beginning):
    """The one line of code in the page's tables that begins so."""
    (found,) = re.findall(rf"`({re.escape(beginning)}[^`]*)`", PAGE)
    return found


def insert(path, anchor, text):
    before = path.read_text()
    assert before.count(anchor) == 1, anchor
    path.write_text(before.replace(anchor, f"{anchor}{text}"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the repository with what the page adds."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("src", "conf", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "hubconf.py", root)
    model, _ = blocks(PAGE, "python")
    (root / "src/ames/models/soft_chamfer.py").write_text(model)
    (yaml,) = blocks(PAGE, "yaml")
    (root / "conf/model/soft_chamfer.yaml").write_text(yaml)
    insert(root / REGISTRY, "CLASSES = {", line('"SoftChamfer": "ames'))
    insert(root / REGISTRY, "\nMODELS = {", line('"soft_chamfer": ModelEntry'))
    insert(root / CONTRACT, "\nMODELS = {", line('"SoftChamfer": ['))
    insert(root / CONTRACT, CHAMFER, SOFT)
    return root


def run(clone, folder, *words):
    environment = os.environ | {"PYTHONPATH": str(clone / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_page_s_model_reaches_training_evaluation_database_and_hub(clone, tmp_path):
    words = []
    for command in commands(PAGE):
        name, *rest = command[1:] if command[0] == "python" else command
        words.append([name, *rest, *ADDED.get(name, "").split()])
    assert [name for name, *_ in words] == ["src/train.py", "src/evaluate.py", "ames"]
    shipped = [
        "experiment=landmarks",
        "data_root=data",
        "test_dataset.num_rerank=[5]",
        "hydra.run.dir=shipped",
    ]
    _, saving = blocks(PAGE, "python")
    given = {"CLONE": str(clone), "COMMANDS": words, "DRAWN": DRAWN, "EVALUATION": shipped, "SAVING": saving}
    head = "".join(f"{name} = {value!r}\n" for name, value in given.items())
    (tmp_path / "program.py").write_text(head + PROGRAM)
    out = run(clone, tmp_path, "program.py")
    assert "checkpoint: soft.pt" in out
    assert "soft.pt on landmarks-test" in out
    assert "rootsift_ames_dist on landmarks-test" in out
    assert len(out.rpartition("scores")[2].split()) == 3
    assert (tmp_path / "soft.db" / "manifest.json").is_file()


def test_the_page_s_model_passes_the_contract(clone):
    options = ["-o", "addopts=--import-mode=importlib", "-o", "pythonpath=tests", "-p", "no:cacheprovider"]
    out = run(clone, clone, "-m", "pytest", "-q", *options, CONTRACT, "-k", "SoftChamfer or every_class")
    assert re.search(r"\b13 passed", out), out
