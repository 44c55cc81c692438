"""Commands as a person calls them: in this process, which is fast, or in one of their own.

A process of its own costs seconds of imports. It is for what only it shows: kills, signals, torchrun, spawned
workers, and once a command its exit status and what the user sees.
"""

import contextlib
import io
import logging
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from ames.cli.main import main

ROOT = Path(__file__).parents[2]


def run_script(script, *words, cwd):
    """The finished script, run in this process from ``cwd``: returncode, stdout and stderr."""
    words = [str(word) for word in words]
    root, out, err = logging.getLogger(), io.StringIO(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [Path(script).name, *words])
        patch.setattr(sys, "path", [*sys.path])
        patch.setenv("COLUMNS", "200")
        patch.delenv("HYDRA_FULL_ERROR", raising=False)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = _status(script)
        finally:
            os.environ.pop("HYDRA_FULL_ERROR", None)  # set by the script, so not monkeypatch's to put back
            root.handlers[:] = handlers  # Hydra's write to the streams above
            root.setLevel(level)
            sys.stdout.write(out.getvalue())  # for capsys, and for the reader of a failure
            sys.stderr.write(err.getvalue())
    return subprocess.CompletedProcess([str(script), *words], status, out.getvalue(), err.getvalue())


def _status(script):
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    return 0


def run_process(script, *words, cwd, processes=None, **environment):
    """The same of a process of its own; with ``processes``, of that many under torchrun."""
    head = [sys.executable, "-u"]
    if processes:
        head += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    kept = {k: v for k, v in os.environ.items() if k not in ("HYDRA_FULL_ERROR", "PYTHONPATH")}
    return subprocess.run(
        [*head, str(script), *map(str, words)],
        cwd=cwd,
        env=kept | {"OMP_NUM_THREADS": "1", "PWD": str(cwd)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def refused(script, *words, cwd):
    """The one line on stderr of a script that ends with status 2."""
    done = run_script(script, *words, cwd=cwd)
    lines = [line for line in done.stderr.splitlines() if line]
    assert done.returncode == 2, lines
    assert len(lines) == 1, lines
    return lines[0]


def run_ames(*words):
    """Exit status of ``ames`` with these words, in this process."""
    try:
        return main([str(word) for word in words])
    except SystemExit as end:  # argparse's way out
        return end.code


def refused_by_ames(capsys, message, *words):
    """Checks status 2 and a single line on stderr with ``message`` in it."""
    capsys.readouterr()
    assert run_ames(*words) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("ames")
    assert message in err, err
