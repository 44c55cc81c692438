"""``python src/evaluate.py cascade=NAME``."""

import json

import pytest

from ames.chains.chain import parse_chain
from ames.datasets.layout import DatasetFolder
from ames.evaluation.chains import evaluate_chain, open_chain_set
from ames.evaluation.protocols import REVISITED
from helpers import chain_sets
from helpers.commands import ROOT, refused, run_script

CASCADE = """descriptors: rootsift
stages:
- {model: chamfer, num_rerank: 40, query_desc_num: 2, db_desc_num: 2, lamb: 0.1, temp: 3.0}
- {model: chamfer, num_rerank: 10, query_desc_num: 5, db_desc_num: 5, lamb: 0.2, temp: 0.5}
"""
STAGES = [
    {"chamfer": {"num_rerank": 40, "query_desc_num": 2, "db_desc_num": 2, "lamb": 0.1, "temp": 3.0}},
    {"chamfer": {"num_rerank": 10, "query_desc_num": 5, "db_desc_num": 5, "lamb": 0.2, "temp": 0.5}},
]
WORDS = ["data_root=data", "descriptors=rootsift", "test_dataset.desc_dir=set", "cascade=fast.yaml"]
SCRIPT = ROOT / "src" / "evaluate.py"


@pytest.fixture
def here(tmp_path):
    chain_sets.made(tmp_path / "data" / "set")
    (tmp_path / "fast.yaml").write_text(CASCADE)
    return tmp_path


def test_it_is_the_chain_of_its_stages(here):
    done = run_script(SCRIPT, *WORDS, "hydra.run.dir=run", cwd=here)
    assert done.returncode == 0, done.stderr
    results = json.loads((here / "run" / "results.json").read_text())
    test = open_chain_set(DatasetFolder(here / "data" / "set", "rootsift"))
    wanted = evaluate_chain(parse_chain("c", ["shortlist", *STAGES]), test, REVISITED).results
    (row,) = results["rows"]
    for protocol, key in zip(REVISITED, ("E_map", "M_map", "H_map"), strict=True):
        assert row[key] == pytest.approx(wanted[protocol].map, abs=1e-3)
    assert row["stages"] == "40 by chamfer, 10 by chamfer"
    assert results["initial"]["M_map"] != row["M_map"]
    assert "fast" in done.stdout


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("cascade=nonesuch", "cascade 'nonesuch' does not exist"),
        (
            "descriptors=dinov2",
            "cascade fast: for rootsift descriptors, not dinov2: give",
        ),
        ("test_dataset.num_rerank=[20]", "test_dataset.num_rerank=[20]: the cascade says it itself"),
        (
            "dataset@val_dataset=landmarks-val",
            "dataset@val_dataset=landmarks-val: nothing is chosen for a cascade; leave the word out",
        ),
        ("model_path=x.pt", "model_path=x.pt: the cascade says it itself; leave the word out"),
    ],
)
def test_wrong_words(here, word, message):
    assert message in refused(SCRIPT, *WORDS, word, cwd=here)
