"""What is kept of an earlier call, and when it no longer holds; by which protocols choices are made."""

import json
import os

import pytest

from ames.bench import data as data_module
from ames.bench import run as run_module
from ames.bench.cells import Bench
from ames.bench.data import extraction_ms, open_parts
from ames.bench.run import run_suite
from ames.bench.suite import parse_suite
from ames.chains.chain import parse_chain
from ames.database.build import Source, compress
from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.evaluation.chains import evaluate_chain, open_chain_set, with_fusions
from ames.evaluation.protocols import EASY, HARD
from ames.local_search.codebook import train_codebook
from ames.models.mutual_nearest import MutualNearest
from ames.reranking.scorer import ComputeConfig
from helpers import chain_sets, small_sets

SETS = {
    "test": {"folder": "test", "descriptors": "rootsift", "validation": "val"},
    "val": {"folder": "val", "descriptors": "rootsift"},
}


@pytest.fixture
def root(tmp_path):
    chain_sets.made(tmp_path / "test", queries=6)
    chain_sets.made(tmp_path / "val", queries=5, seed=1)
    return tmp_path


def parts(root, **datasets):
    content = {"datasets": datasets or SETS, "methods": {"global": ["search"]}}
    return open_parts(parse_suite(content, source="s"), root)


def key(root, *items, device="cpu"):
    (part,) = parts(root)
    return Bench(root, ComputeConfig(devices=(device,))).key(part, parse_chain("c", list(items)))


def touched(path):
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def test_a_method_is_measured_again_when_a_file_of_its_own_changes(root):
    words = root / "words.npz"
    train_codebook(DescriptorFile(root / "val" / "rootsift_gallery_local.hdf5"), 8).save(words)
    chains = {
        "words": [{"asmk": {"codebook": str(words)}}],
        "stored": ["shortlist"],
        "plain": ["search"],
    }
    before = {name: key(root, *items) for name, items in chains.items()}
    assert before == {name: key(root, *items) for name, items in chains.items()}
    touched(words)
    touched(root / "test" / "nn_rootsift.npz")
    after = {name: key(root, *items) for name, items in chains.items()}
    assert [name for name in chains if after[name] != before[name]] == ["words", "stored"]


@pytest.mark.parametrize(
    "name", ["val/gnd_val.json", "val/rootsift_gallery_local.hdf5", "test/rootsift_query_global.hdf5"]
)
def test_a_method_is_measured_again_when_its_sets_change(root, name):
    before = key(root, "search")
    if name.endswith(".json"):
        truth = json.loads((root / name).read_text())
        truth["gnd"][0]["easy"] = truth["gnd"][0]["easy"][:1]
        (root / name).write_text(json.dumps(truth))
    else:
        touched(root / name)
    assert key(root, "search") != before


def test_databases_do_not_share_what_was_measured(root):
    source = Source(DescriptorFile(root / "test" / "rootsift_gallery_local.hdf5"))
    found = set()
    for count in (2, 5):
        compress(source, MutualNearest(local_dim=8), root / "test" / f"db{count}", desc_num=count)
        (part,) = parts(root, test={**SETS["test"], "database": f"db{count}"}, val=SETS["val"])
        found.add(Bench(root, ComputeConfig()).key(part, parse_chain("c", ["search", "mutual_nearest"])))
    assert len(found) == 2


def test_times_of_another_device_are_not_taken(root):
    assert key(root, "search", device="cuda") != key(root, "search")


def test_another_data_set_of_the_same_name_is_refused(root):
    twin = {"generate": {}, "descriptors": "rootsift"}
    made = {"a": {**twin, "seeds": [0, 1]}, "a-s1": {"folder": "val", "descriptors": "rootsift"}}
    for seed in (0, 1):
        chain_sets.made(root / f"a-s{seed}")
        (root / f"a-s{seed}" / "gnd_a.json").touch()
    with pytest.raises(AmesError, match=r"dataset a-s1: another one is called a-s1, too: rename it"):
        parts(root, **made)


# ---- protocols ----------------------------------------------------------------------------------------


def names(part):
    return [protocol.name for protocol in part.choosing]


def test_choices_are_made_by_protocols_that_fit_the_validation_set(root):
    (part,) = parts(root)
    assert names(part) == ["easy", "medium", "hard"]
    (part,) = parts(root, test={**SETS["test"], "protocols": ["hard"]}, val=SETS["val"])
    assert names(part) == ["hard"]
    chain_sets.made(root / "other", keys={"ok": 4})
    other = {"folder": "other", "descriptors": "rootsift"}
    (part,) = parts(root, test=SETS["test"], val=other)
    assert names(part) == ["all"]
    (part,) = parts(root, test=SETS["test"], val={**other, "benchmark": "vpr"})
    assert names(part) == ["25m"]
    (part,) = parts(root, test=SETS["test"], val={**SETS["val"], "protocols": ["medium"]})
    assert names(part) == ["medium"]
    (part,) = parts(root, val=SETS["val"])
    assert names(part) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"benchmark": "instre"}, "dataset test: protocol 'top100', query 0: ground truth has no key 'ok'"),
        ({"protocols": ["mdium"]}, "dataset test: protocol 'mdium' is none of"),
        ({"primary": "mdium"}, "dataset test: primary 'mdium' is none of easy, medium, hard"),
    ],
)
def test_protocols_that_do_not_fit_are_refused_before_anything_runs(root, given, message):
    with pytest.raises(AmesError, match=message):
        parts(root, test={**SETS["test"], **given}, val=SETS["val"])


def test_a_set_of_other_keys_chooses(root, tmp_path):
    chain_sets.made(root / "other", keys={"ok": 4})
    content = {
        "datasets": {"test": SETS["test"], "val": {"folder": "other", "descriptors": "rootsift"}},
        "methods": {"Chamfer": ["search", {"chamfer": {"num_rerank": 20}}]},
    }
    report = run_suite(parse_suite(content, source="s"), tmp_path / "out", data=root)
    assert "lambda, gamma and codebooks are of other (all)" in report.notes["test"]


def test_a_part_of_a_set_chooses_for_another(root, tmp_path):
    """As the public queries of GLDv2 choose for the private ones: no choice is made on what is reported."""
    datasets = {
        "private": {**SETS["test"], "protocols": ["hard"]},
        "val": {"folder": "test", "descriptors": "rootsift", "protocols": ["easy"]},
    }
    chain = ["search", {"chamfer": {"num_rerank": 20}}]
    content = {"datasets": datasets, "methods": {"Chamfer": chain}}
    report = run_suite(parse_suite(content, source="s"), tmp_path / "out", data=root)
    test = open_chain_set(DatasetFolder(root / "test", "rootsift"))
    chosen = with_fusions(parse_chain("c", chain), test, [EASY])
    assert chosen != with_fusions(parse_chain("c", chain), test, [HARD])
    wanted = evaluate_chain(chosen, test, [HARD]).results[HARD].map
    (row,) = report.rows["private"]
    assert row["protocols"]["hard"]["mAP"]["mean"] == pytest.approx(wanted, abs=1e-3)
    assert row["ms"] > 0  # scores of the choice are not those of an interrupted call


@pytest.mark.parametrize(
    ("protocols", "figure"), [(["whole"], ("whole", "mAP")), ([], ("top100", "mAP@100"))]
)
def test_the_first_figure_is_one_of_the_first_protocol(root, protocols, figure):
    chain_sets.made(root / "ok", keys={"ok": 4})
    spec = {"folder": "ok", "descriptors": "rootsift", "benchmark": "instre", "protocols": protocols}
    (part,) = parts(root, ok=spec)
    assert (part.primary[0].name, part.primary[1]) == figure


# ---- cascades, databases, extraction ------------------------------------------------------------------


def test_a_cascade_is_searched_for_again_when_what_is_asked_for_changes(root, tmp_path, monkeypatch):
    searched, find = [], run_module.find_cascade
    monkeypatch.setattr(
        run_module,
        "find_cascade",
        lambda spec, *rest, **more: searched.append(spec) or find(spec, *rest, **more),
    )
    fusion = {"lamb": 0.1, "temp": 2.0}
    exact = {"chamfer": {"num_rerank": 60, "query_desc_num": 5, "db_desc_num": 5, **fusion}}

    def run(loss):
        cheap = [{"model": "chamfer", "query_desc_num": 1, "db_desc_num": 1, **fusion}]
        content = {
            "datasets": SETS,
            "methods": {"exact": ["search", exact]},
            "cascades": {"fast": {"of": "exact", "loss": loss, "cheap": cheap}},
        }
        run_suite(parse_suite(content, source="s"), tmp_path / "out", data=root)
        return len(searched)

    assert [run(50), run(50), run(60)] == [1, 1, 2]
    touched(root / "val" / "rootsift_query_local.hdf5")
    assert run(60) == 3


def test_extraction_is_timed_again_for_other_descriptors(tmp_path, monkeypatch):
    small_sets.prepared_photos(tmp_path / "photos")
    timed = []
    monkeypatch.setattr(data_module, "query_ms", lambda *given: timed.append(given) or 5.0 * len(timed))
    spec = {"photos": {"folder": "photos", "descriptors": "rootsift"}}

    def measured():
        (part,) = parts(tmp_path, **spec)
        return extraction_ms(part, tmp_path / "kept.json")

    assert [measured(), measured()] == [5.0, 5.0]
    touched(DatasetFolder(tmp_path / "photos", "rootsift").local("query"))
    assert measured() == 10.0
