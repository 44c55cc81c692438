"""Scripts of the repository as a person calls them: in a process of their own, or (faster) in this one."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def call(script, *words, cwd, **environment):
    """A process; ``script`` is a path."""
    kept = {k: v for k, v in os.environ.items() if k not in ("HYDRA_FULL_ERROR", "PYTHONPATH")}
    return subprocess.run(
        [sys.executable, "-u", str(script), *map(str, words)],
        cwd=cwd,
        env=kept | {"OMP_NUM_THREADS": "1", "PWD": str(cwd)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def run_here(monkeypatch, script, *words, cwd):
    """The exit status of a script, run in this process from ``cwd``."""
    monkeypatch.chdir(cwd)
    monkeypatch.setattr(sys, "argv", [Path(script).name, *map(str, words)])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("COLUMNS", "200")
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)  # set by the script, so not monkeypatch's to put back
    return 0


def refused(monkeypatch, capsys, script, *words, cwd):
    """The one line on stderr of a script that ends with status 2."""
    capsys.readouterr()
    status = run_here(monkeypatch, script, *words, cwd=cwd)
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert status == 2, lines
    assert len(lines) == 1, lines
    return lines[0]
