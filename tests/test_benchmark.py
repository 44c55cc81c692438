"""scripts/benchmark.py: all parts in one command; scoring without other libraries."""

import importlib
import json
import sys

import numpy as np

from helpers.commands import ROOT, run_process, run_script

SCRIPT = ROOT / "scripts" / "benchmark.py"

WITHOUT = """
import runpy, sys

BLOCKED = {"hydra", "omegaconf", "h5py", "cv2", "faiss", "safetensors", "tqdm", "filelock", "jinja2"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
words = "all --sizes 12x9 --pairs 2 --repeats 1 --precisions fp32 --json out.json --markdown out.md"
sys.argv = ["benchmark.py", *words.split()]
runpy.run_path(SCRIPT, run_name="__main__")
"""


def test_all_parts_in_one_command_and_scoring_without_other_libraries(tmp_path):
    (tmp_path / "program.py").write_text(WITHOUT.replace("SCRIPT", repr(str(SCRIPT))))
    done = run_process(tmp_path / "program.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\nscoring\n" in done.stdout
    for part in ("train", "search", "evaluate", "loader"):
        assert f"{part}: left out, " in done.stdout
        assert "is not installed" in done.stdout
    (row,) = json.loads((tmp_path / "out.json").read_text())["scoring"]
    assert row["query x database"] == "12 x 9"
    assert row["max difference"] < 2e-5
    assert row["busy pairs/s"] > 0
    assert (tmp_path / "out.md").read_text().startswith("### scoring\n\n| query x database | precision |")


def test_elvis_scores_as_its_twin(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    elvis = importlib.import_module("benchmarks.elvis")
    (row,) = elvis.run(sizes=[(12, 9)], pairs=3, repeats=1)
    assert row["without fp16 codes"] < 1e-5 < row["score"]
    assert row["max difference"] < 1e-3
    assert np.isfinite(row["ratio"])


def test_no_part_begins_after_the_given_minutes(tmp_path):
    done = run_script(SCRIPT, "all", "--minutes", -1, "--folder", "data", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("left out, -1 minutes are over") == 5


def test_rrt_scores_as_its_twin(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    rrt = importlib.import_module("benchmarks.rrt")
    same = ((12, 9), 3, "cpu", 0)
    scores, twin = rrt.scorer_call(*same, "fp32")(), rrt.twin_call(*same)()
    assert np.abs(scores - twin).max() < 2e-5
    assert np.ptp(twin) > 1e-3


def test_asmk_is_measured_where_the_released_package_is_missing(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setitem(sys.modules, "asmk", None)
    asmk = importlib.import_module("benchmarks.asmk")
    rows = asmk.run(images=8, words=64, queries=3, whole=2, repeats=1)
    assert "the released package asmk is not there" in capsys.readouterr().out
    assert [row["vectors"] for row in rows] == ["signs", "real"]
    # 300 descriptors near 64 words: nearly all images have all words.
    assert 63 * 20 < rows[0]["bytes/image"] <= 64 * 20 + 4
    assert 63 * 516 < rows[1]["bytes/image"] <= 64 * 516 + 4
    assert all(row["ames ms"] > 0 and row["ames whole ms"] > 0 for row in rows)
