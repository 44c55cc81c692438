"""Asks the library about damaged files and words, case after case, and prints what came of each.

In a process of its own, so that a crash and a hang are findings too; ``tests/fuzz/test_fuzz.py`` watches it.
By hand, one case: PYTHONPATH=tests python -m fuzz.worker FOLDER SEED NUMBER
"""

import json
import os
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

from ames.errors import AmesError

MEMORY = 4 << 30  # bytes beside what is taken at the start: a size that a file claims is not allocated
LINES = 3  # of an answer


def main(kinds: dict, folder: Path, seed: int, first: int, last: int) -> None:
    for name, kind in kinds.items():
        kind.prepare(folder / name)
    _limit_memory()
    out = os.fdopen(os.dup(1), "w", buffering=1)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 1)  # also what libraries in C print
        os.dup2(said.fileno(), 2)
        for number in range(first, last):
            name = list(kinds)[number % len(kinds)]
            print(json.dumps({"begin": number, "kind": name}), file=out)
            said.seek(0)
            said.truncate()
            start = time.perf_counter()
            rng = np.random.default_rng([seed, number])
            verdict = _case(kinds[name], folder / name, rng)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            said.seek(0)
            verdict |= {"end": number, "kind": name, "seconds": round(time.perf_counter() - start, 2)}
            if not verdict["fault"]:
                verdict["fault"] = _too_much(said.read().decode(errors="replace"))
            print(json.dumps(verdict), file=out)


def _case(kind, folder: Path, rng) -> dict:
    """{"fault": None or a text, "answer": the error's text, None where there was none}."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        try:
            kind.ask(folder, Path(work), rng)
        except AmesError as error:
            text = str(error)
            long = text.count("\n") >= LINES or len(text) > 2000
            return {"fault": f"an answer too long:\n{text[:3000]}" if long else None, "answer": text[:200]}
        except BaseException:
            return {"fault": traceback.format_exc()[-3000:], "answer": None}
    return {"fault": None, "answer": None}


def _too_much(said: str) -> str | None:
    lines = said.splitlines()
    errors = [line for line in lines if "Traceback" in line]
    if errors:
        return f"a trace:\n{said[-3000:]}"
    return None


def _limit_memory() -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))


def run(kinds: dict, words: list[str]) -> None:
    """FOLDER SEED FIRST [BEHIND_THE_LAST]"""
    seed, first, last = (int(x) for x in [*words[1:], int(words[2]) + 1][:3])
    main(kinds, Path(words[0]), seed, first, last)


if __name__ == "__main__":
    from fuzz.kinds import KINDS

    run(KINDS, sys.argv[1:])
