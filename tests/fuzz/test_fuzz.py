"""Damaged files and spoilt words: no trace, no crash, no hang, at most three lines, a few hundred of them.

10,000 more are in the slow test. A case is made again from the seed and its number; see ``worker``.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
HANG = 20  # seconds
STARTING = 120  # of a process: torch is imported, files are made


def watched(folder, seed, first, last, module="fuzz.worker"):
    """{case: what came of it} of the worker's cases, in as many processes as crash or hang."""
    found, left = {}, first
    while left < last:
        words = [sys.executable, "-X", "faulthandler", "-m", module, folder, seed, left, last]
        path = os.pathsep.join([str(TESTS), *sys.path])
        child = subprocess.Popen(
            list(map(str, words)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HYDRA_FULL_ERROR": "0", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            cwd=TESTS,
        )
        begun, ended = _follow(child, found)
        assert begun is not None, "the worker does not start"
        if begun == ended:
            return found
        left = begun + 1
    return found


def _follow(child, found):
    """(last case that began, last case that ended) when the child is done, dead or killed."""
    begun = ended = None
    with child, selectors.DefaultSelector() as ready:
        os.set_blocking(child.stdout.fileno(), False)
        ready.register(child.stdout, selectors.EVENT_READ)
        deadline, rest, kind = time.monotonic() + STARTING, b"", None
        while ready.select(max(0, deadline - time.monotonic())):
            block = child.stdout.read()
            if not block:
                status = child.wait()
                if begun != ended:
                    found[begun] = {"kind": kind, "fault": f"a crash, status {status}"}
                return begun, ended
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                said = json.loads(line)
                kind = said["kind"]
                if "begin" in said:
                    begun = said["begin"]
                else:
                    ended = said["end"]
                    found[ended] = said
            deadline = time.monotonic() + HANG
        child.kill()
        if begun is not None:
            found[begun] = {"kind": kind, "fault": f"no answer within {HANG} seconds"}
    return begun, ended


def check(found, cases):
    assert sorted(found) == list(cases)
    faults = {number: said for number, said in found.items() if said["fault"]}
    text = "\n".join(f"case {number} ({said['kind']}): {said['fault']}" for number, said in faults.items())
    assert not faults, f"{len(faults)} faults\n{text[:20000]}"


def test_a_few_hundred(tmp_path):
    found = watched(tmp_path, 1, 0, 400)
    check(found, range(400))
    answers = [said for said in found.values() if said.get("answer")]
    assert len(answers) > 100  # else nothing was damaged


@pytest.mark.slow
def test_ten_thousand(tmp_path):
    found = watched(tmp_path, 2, 0, 10_000)
    check(found, range(10_000))


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("trace", "ValueError: planted"),
        ("crash", "a crash"),
        ("hang", "no answer"),
        ("talk", "too long"),
        ("print_trace", "a trace"),
    ],
)
def test_the_watch_sees_a_planted_fault(tmp_path, monkeypatch, fault, seen):
    """The cases after it are asked all the same."""
    monkeypatch.setattr(sys.modules[__name__], "HANG", 3)
    monkeypatch.setenv("FAULT", fault)
    found = watched(tmp_path, 0, 0, 4, "fuzz.planted")
    assert [bool(found[case]["fault"]) for case in range(4)] == [False, True, False, False]
    assert seen in found[1]["fault"]
    with pytest.raises(AssertionError, match=r"1 faults\s+case 1 \(planted\)"):
        check(found, range(4))
