"""The suites of conf/bench as they are, on few landmarks."""

import pytest

from ames.bench.run import run_suite
from ames.bench.suite import FOLDER, list_suites, parse_suite
from ames.io.yaml_files import load_yaml


@pytest.mark.slow
@pytest.mark.parametrize("name", list_suites())
def test_every_method_runs(tmp_path, name):
    content = load_yaml(FOLDER / f"{name}.yaml")
    for dataset in content["datasets"].values():
        dataset["generate"] |= {"landmarks": 3, "distractors": 10}
        dataset.pop("seeds", None)
    for steps in content["methods"].values():
        for step in steps:
            if isinstance(step, dict) and "asmk" in step:
                step["asmk"]["words"] = 64
    report = run_suite(parse_suite(content, source=name), tmp_path, workers=2)
    (rows,) = report.rows.values()
    assert [row["method"] for row in rows][: len(content["methods"])] == list(content["methods"])
    assert all(0 <= row["protocols"]["medium"]["mAP"]["mean"] <= 100 for row in rows)
    assert all(row["bytes"] > 0 for row in rows)
