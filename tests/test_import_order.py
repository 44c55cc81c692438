"""The contract of pyproject.toml: rooms import in the order in which data flows, modules in no cycle."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.commands import ROOT


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A checkout that may be spoiled."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(
        ROOT / "src" / "ames", folder / "src" / "ames", ignore=shutil.ignore_patterns("__pycache__")
    )
    return folder


def lint(folder):
    """(exit status, output) of ``lint-imports``."""
    words = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    path = os.environ | {"PYTHONPATH": str(folder / "src")}
    done = subprocess.run(words, cwd=folder, env=path, capture_output=True, text=True, timeout=120)
    return done.returncode, " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "line", "message"),
    [
        ("features", "", "2 kept, 0 broken"),
        ("features", "import ames.io.atomic", "ames.features is not allowed to import ames.io"),
        ("io/atomic", "from ames.cli import main", "ames.io is not allowed to import ames.cli"),
        ("io/atomic", "def f():\n    import ames.cli.main", "ames.io is not allowed to import ames.cli"),
        ("evaluation/metrics", "import ames.evaluation.sweep", "No cycles are allowed in ames.evaluation"),
        ("attic/__init__", "", "attic"),
    ],
)
def test_what_the_contract_refuses(copy, module, line, message):
    path = copy / "src" / "ames" / f"{module}.py"
    before = path.read_text() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    try:
        path.write_text(f"{before or ''}\n{line}\n")
        status, said = lint(copy)
    finally:
        path.write_text(before) if before is not None else shutil.rmtree(path.parent)
    assert message in said
    assert status == int("0 broken" not in message)
