"""The public names: lazy, complete, and without cost until they are used."""

import importlib
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ames


def test_every_name_is_there():
    assert set(ames._PUBLIC) <= set(dir(ames))
    for name in ames.__all__:
        assert getattr(ames, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Extractr'"):
        _ = ames.Extractr


def test_a_name_is_what_its_module_has():
    for name, module in ames._PUBLIC.items():
        assert getattr(ames, name) is getattr(importlib.import_module(module), name)


def test_type_checkers_are_told_the_same():
    stub = Path(ames.__file__).with_suffix(".pyi").read_text()
    told = re.findall(r"^from (ames\S+) import (\w+) as \w+$", stub, re.MULTILINE)
    assert {name: module for module, name in told} == ames._PUBLIC


def test_importing_loads_nothing_and_takes_no_time():
    code = "import sys; before = set(sys.modules); import ames; print(*sorted(set(sys.modules) - before))"
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - begun < 30  # a process; the import alone is measured below
    assert not {"torch", "numpy", "cv2", "hydra"} & set(done.stdout.split())
