"""The environment of a training: versions, machine, settings that change numbers, the code's commit."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import ames
from ames.io.atomic import atomic_file

# The whole environment would hold secrets; these change numbers, or what the numbers are shared among.
VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "LOCAL_WORLD_SIZE",
    "MKL_CBWR",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "WORLD_SIZE",
)
DIFF_BYTES = 1_000_000  # a larger difference from the commit is not kept

_HERE = Path(ames.__file__).parent


def collect_environment() -> dict[str, Any]:
    """Collect what the results of this process depend on beside its configuration, as plain data.

    ``variables`` has those of ``VARIABLES`` that are set. ``git``: commit and whether files that it knows
    differ from it, of the checkout that holds this package; None if there is no checkout or git does not
    answer.
    """
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": _packages(),
        "platform": platform.platform(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": _cuda(),
        "torch": {
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "matmul_precision": torch.get_float32_matmul_precision(),
        },
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "git": _commit(),
    }


def write_environment(folder: Path | str, **more: Any) -> Path:
    """Write ``collect_environment`` and ``more`` to ``environment.json`` in ``folder``; returns its path.

    A Path among ``more`` is written relative to ``folder``. If the code differs from its commit, the
    difference is written beside it as ``uncommitted.diff`` for ``git apply``, and ``diff`` names it. ``diff``
    is None without a difference, or if it exceeds ``DIFF_BYTES``. AmesError if the files cannot be written.
    """
    folder = Path(folder)
    about = collect_environment()
    patch = folder / "uncommitted.diff"
    diff = _diff() if about["git"] and about["git"]["dirty"] else None
    if diff is not None and len(diff) < DIFF_BYTES:
        with atomic_file(patch) as file:
            file.write(diff)
        about["diff"] = patch.name
    else:
        with suppress(NotADirectoryError):  # said by the file that follows
            patch.unlink(missing_ok=True)  # of an earlier training in the same folder
        about["diff"] = None
    for key, value in more.items():
        relative = Path(os.path.relpath(value, folder)).as_posix() if isinstance(value, Path) else value
        about[key] = relative
    path = folder / "environment.json"
    with atomic_file(path) as file:
        file.write(json.dumps(about, indent=1).encode())
    return path


def _packages() -> dict[str, str]:
    """Return the versions of ames, its dependencies and the extras that are installed."""
    found = {"ames": ames.__version__}
    try:
        needed = metadata.requires(ames.DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # used from its folder, without an installation
        needed = ["numpy"]
    for name in sorted({re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in needed}):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found | {"torch": torch.__version__}  # with its build: +cpu, +cu126


def processor() -> str:
    """The name of the CPU; Linux tells it in a file alone."""
    with suppress(OSError):
        names = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if names:
            return names[1]
    return platform.processor() or platform.machine()


def _cuda() -> dict[str, Any] | None:
    """Versions and devices; None where torch has none to compute on."""
    if not torch.cuda.is_available():
        return None
    return {
        "version": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _commit() -> dict[str, Any] | None:
    # A package installed in an environment inside a checkout is not one of that checkout's files.
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git("rev-parse", "HEAD")
    changed = _git("diff", "--name-only", "HEAD")
    if commit is None or changed is None:
        return None
    return {"commit": commit.decode().strip(), "dirty": bool(changed)}


def _diff() -> bytes | None:
    return _git("diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--no-relative", "HEAD")


def _git(*words: str) -> bytes | None:
    """Return git's output in the folder of this package; None if git is absent, refuses or does not end."""
    # Set in a hook, they would mean another checkout; and asking changes nothing, not even the index.
    clean = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}
    clean["GIT_OPTIONAL_LOCKS"] = "0"
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(_HERE), *words]
    try:
        done = subprocess.run(command, env=clean, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
