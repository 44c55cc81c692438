"""The surroundings of a training: what changes its numbers, and nothing that is nobody's business."""

import json
import os
import platform
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

import ames
from ames.errors import AmesError
from ames.training.logging import environment as module
from ames.training.logging.environment import collect_environment, write_environment


def git(folder, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A package in a repository of one commit, which stands for the one that holds ames."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    package = tmp_path / "checkout" / "src" / "ames"
    package.mkdir(parents=True)
    git(tmp_path / "checkout", "init", "-q")
    (package / "__init__.py").write_text("a = 1\n")
    (tmp_path / "checkout" / "notes").write_text("first\n")
    git(tmp_path / "checkout", "add", ".")
    git(tmp_path / "checkout", "commit", "-q", "-m", "first")
    monkeypatch.setattr(module, "_HERE", package)
    return tmp_path / "checkout"


def test_versions_and_machine():
    found = collect_environment()
    assert found["python"] == platform.python_version()
    packages = found["packages"]
    assert (packages["ames"], packages["torch"]) == (ames.__version__, torch.__version__)
    assert (packages["numpy"], packages["h5py"]) == (np.__version__, h5py.__version__)
    assert all(version[0].isdigit() for version in packages.values())
    assert found["threads"] == torch.get_num_threads()
    assert found["cpus"] == os.cpu_count()
    assert found["platform"] == platform.platform()
    assert found["processor"]
    assert found["command"] == sys.argv
    assert (found["cuda"] is None) == (not torch.cuda.is_available())
    assert json.loads(json.dumps(found)) == found


def test_a_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"device {i}")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)  # a build for GPUs would look for one
    assert collect_environment()["cuda"]["devices"] == ["device 0", "device 1"]


def test_settings_that_change_numbers(monkeypatch):
    before = collect_environment()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    found = collect_environment()
    assert found["variables"]["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert "PYTHONHASHSEED" not in found["variables"]
    assert (before["torch"]["deterministic"], found["torch"]["deterministic"]) == (False, True)


def test_no_secrets(monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_API_KEY", "topsecret")
    assert "topsecret" not in write_environment(tmp_path).read_text()


def test_without_an_installation(monkeypatch):
    def missing(name):
        raise module.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.metadata, "requires", missing)
    assert collect_environment()["packages"] == {
        "ames": ames.__version__,
        "numpy": np.__version__,
        "torch": torch.__version__,
    }


# ---- the commit ------------------------------------------------------------------------------------------


def test_a_clean_checkout(checkout, tmp_path):
    (checkout / "untracked").write_text("whatever lies about")
    commit = git(checkout, "rev-parse", "HEAD")
    assert collect_environment()["git"] == {"commit": commit, "dirty": False}
    found = json.loads(write_environment(tmp_path / "run").read_text())
    assert found["diff"] is None
    assert [x.name for x in (tmp_path / "run").iterdir()] == ["environment.json"]


def test_changes_are_kept_and_can_be_applied(checkout, tmp_path):
    (checkout / "src" / "ames" / "__init__.py").write_text("a = 2\n")
    (checkout / "notes").write_bytes(b"\0binary\xff")
    git(checkout, "add", "notes")  # staged or not
    (checkout / "src" / "ames" / "new.py").write_text("b = 3\n")
    git(checkout, "add", "-N", "src/ames/new.py")
    found = json.loads(write_environment(tmp_path / "run").read_text())
    assert (found["git"]["dirty"], found["diff"]) == (True, "uncommitted.diff")
    git(tmp_path, "clone", "-q", str(checkout), "clone")
    git(tmp_path / "clone", "apply", str(tmp_path / "run" / "uncommitted.diff"))
    for name in ("src/ames/__init__.py", "notes", "src/ames/new.py"):
        assert (tmp_path / "clone" / name).read_bytes() == (checkout / name).read_bytes()

    git(checkout, "commit", "-q", "-a", "-m", "second")
    assert json.loads(write_environment(tmp_path / "run").read_text())["diff"] is None
    assert not (tmp_path / "run" / "uncommitted.diff").exists()  # the other run's


def test_large_changes_are_not_kept(checkout, tmp_path, monkeypatch):
    (checkout / "notes").write_text("much\n" * 100)
    size = len(module._diff())
    for limit, name in ((size, None), (size + 1, "uncommitted.diff")):
        monkeypatch.setattr(module, "DIFF_BYTES", limit)
        found = json.loads(write_environment(tmp_path / "run").read_text())
        assert (found["git"]["dirty"], found["diff"]) == (True, name)
        assert (tmp_path / "run" / "uncommitted.diff").exists() == (name is not None)


def test_another_checkout_is_not_taken_for_this_one(checkout, tmp_path, monkeypatch):
    commit = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as in a hook of another repository
    assert collect_environment()["git"]["commit"] == commit
    monkeypatch.delenv("GIT_DIR")
    installed = checkout / ".venv" / "ames"  # installed into somebody's checkout
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    monkeypatch.setattr(module, "_HERE", installed)
    assert collect_environment()["git"] is None


def test_without_git(checkout, tmp_path, monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError("git")

    def endless(*_, **__):
        raise subprocess.TimeoutExpired("git", 20)

    for run in (absent, endless):
        monkeypatch.setattr(module.subprocess, "run", run)
        found = json.loads(write_environment(tmp_path / "run").read_text())
        assert (found["git"], found["diff"]) == (None, None)
    monkeypatch.undo()
    monkeypatch.setattr(module, "_HERE", tmp_path)  # no checkout
    assert collect_environment()["git"] is None


# ---- the file --------------------------------------------------------------------------------------------


def test_more_is_written_and_paths_can_move_with_the_folder(tmp_path):
    path = write_environment(
        tmp_path / "runs" / "1", journal=tmp_path / "models" / "a-journal.jsonl", seed=3, name="a"
    )
    assert path == tmp_path / "runs" / "1" / "environment.json"
    found = json.loads(path.read_text())
    assert (found["journal"], found["seed"], found["name"]) == ("../../models/a-journal.jsonl", 3, "a")
    assert found["python"] == platform.python_version()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AmesError, match="cannot be written"):
        write_environment(tmp_path / "file" / "run")
