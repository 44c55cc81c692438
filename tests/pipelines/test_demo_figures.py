"""What the shipped models reach on the generated test landmarks: the figures that the README claims."""

import json

import pytest

from ames.pipelines.demo import run_demo


@pytest.mark.slow
def test_the_shipped_models_keep_what_the_readme_says(tmp_path):
    run_demo(tmp_path / "demo", backbone="rootsift")
    rows = json.loads((tmp_path / "demo" / "results.json").read_text())["rows"]
    medium = {(row["method"], row["query x database"]): row["mAP medium"] for row in rows}
    alone, perfect = medium["global only", None], medium["perfect re-ranking", None]
    for counts in ("200 x 200", "200 x 50"):
        ames, chamfer = medium["AMES", counts], medium["Chamfer, float", counts]
        assert ames >= chamfer + {"200 x 200": 3, "200 x 50": 12}[counts]
        assert alone + 15 <= ames <= perfect
    binary = medium["AMES binary", "200 x 50"]
    assert binary >= medium["AMES", "200 x 50"] - 3
    assert binary >= medium["Chamfer, float", "200 x 50"] + 10
    assert next(row["bytes/image"] for row in rows if row["method"] == "AMES binary") <= 800
