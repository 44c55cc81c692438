"""Configurations of embedders, and AFF by the command on a few generated products (RAML: test_raml.py)."""

from dataclasses import fields

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ames.config import embedders as door
from ames.config.commands.train_embedder import TASKS
from ames.config.training import read_recipe
from ames.embedders.checkpoints import load_embedder, load_pair, sides_of
from ames.embedders.features import FeatureSpec
from ames.training.data.augmentation import Augmentation
from ames.training.logging.journal import read_journal
from ames.training.tasks.aff import AffRecipe
from ames.weights.files import read_weights
from helpers.commands import ROOT, run_script
from helpers.product_training import SCRIPT, VALIDATION, embedder_experiments, words, write_root

CONF = ROOT / "conf"
SPECS = [FeatureSpec("a_global", "global", 6, 1), FeatureSpec("b_local", "local", 5, 3)]


def names(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(*words):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("embedder", ["data_root=x", *words])


# ---- the tree --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", names("fusion"))
def test_fusions_compose_and_build(fusion):
    config = composed(f"fusion={fusion}", "dim=16")
    built = door.build_fusion(config, SPECS)
    assert built.dim == 16
    assert built.features == tuple(SPECS)
    asked = OmegaConf.to_container(config.fusion, resolve=True)
    assert {key: built.arguments[key] for key in asked if key != "_target_"} == {
        key: x for key, x in asked.items() if key != "_target_"
    }


@pytest.mark.parametrize("network", names("network"))
def test_networks_compose_and_build(network):
    config = composed(f"network={network}", "dim=16")
    built = door.build_network(config)
    assert built.arguments == {
        key: x for key, x in OmegaConf.to_container(config.network, resolve=True).items() if key != "_target_"
    }
    assert built.arguments["trunk"] == network
    assert (built.inputs.size, built.inputs.resize) == (512, "long")  # of method=aff


@pytest.mark.parametrize("method", names("method"))
def test_methods_compose(method):
    config = composed(f"method={method}")
    OmegaConf.to_container(config, resolve=True)
    assert config.task in TASKS
    built = door.build_network(composed(f"method={method}", "network=shufflenet_v2", "dim=8"))
    assert built.inputs.size == config.network.size
    assert door.augmentation(config).scale == tuple(config.crop_scale)


@pytest.mark.parametrize("experiment", embedder_experiments())
def test_experiments_of_embedders_compose(experiment):
    config = composed(f"experiment={experiment}")
    OmegaConf.to_container(config, resolve=True)
    assert config.task in TASKS
    door.build_network(config)


def test_the_defaults_of_aff_are_those_of_its_recipe():
    config = composed("print_freq=0")
    assert read_recipe(AffRecipe, config, start_from=None) == AffRecipe()
    own = {x.name for x in fields(AffRecipe)} - {"start_from"}
    assert own <= {*config}
    assert config.train_dataset.batch_size == 256
    assert composed("method=arcface").stage == "network"
    wanted = Augmentation((0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), jitter_probability=0.8)
    assert door.augmentation(config) == wanted


# ---- the command -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_root(tmp_path_factory.mktemp("root"))


def run(root, out, *more):
    done = run_script(SCRIPT, *words(root, out, *more), cwd=out.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def epochs(out):
    return [x for x in read_journal(out.with_name(f"{out.stem}-journal.jsonl")) if x["kind"] == "epoch"]


@pytest.fixture(scope="module")
def joint(root, tmp_path_factory):
    """The file of a training of both sides, what it said, and its epochs."""
    out = tmp_path_factory.mktemp("joint") / "x.pt"
    return out, run(root, out, *VALIDATION), epochs(out)


def test_both_sides_are_trained_and_validated(joint):
    out, said, records = joint
    assert "12 images of 4 classes; 2 batches of 6 per epoch" in said
    assert f"embedder: {out}" in said
    assert [x["epoch"] for x in records] == [1, 2]
    for record in records:
        assert {"loss", "mixer", "query", "accuracy", "val_map", "val_recall_1"} <= record.keys()
        assert record["loss"] == pytest.approx(record["mixer"] + record["query"], rel=1e-5)
        assert 0 <= record["val_map"] <= 100
    query, gallery = load_pair(out)
    assert query.arguments["width"] == 0.125
    assert [(x.name, x.count, x.backbone) for x in gallery.features] == [
        ("a_global", 1, "mine"),
        ("b_local", 3, "mine"),
    ]
    about = read_weights(out).about
    assert (about["method"], about["stage"], about["epochs"]) == ("aff", "joint", 2)
    assert (out.parent / "x-best.pt").is_file()


def test_a_training_goes_on_where_it_was(root, joint, tmp_path):
    out = tmp_path / "x.pt"
    run(root, out, "resume=auto", "save_every=1", *VALIDATION)
    max((tmp_path / "x-state").iterdir()).unlink()  # as if the power had gone before the last one
    out.unlink()
    assert "resumes in epoch" in run(root, out, "resume=auto", *VALIDATION)
    first, again = read_weights(joint[0]).state, read_weights(out).state
    assert all(torch.equal(x, again[name]) for name, x in first.items())


def test_two_stages(root, tmp_path):
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    run(root, one, "stage=gallery", *VALIDATION)
    assert sides_of(one) == ("gallery",)
    assert epochs(one)[-1]["val_map"] > 0
    second = ["stage=query", f"start_from={one}", *VALIDATION]
    without = [x for x in words(root, two, *second) if not x.startswith("features")]  # ArcFace needs none
    done = run_script(SCRIPT, *without, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    query, gallery = load_pair(two, one)
    assert query.space == gallery.space
    a, b = (load_embedder(x, "gallery").state_dict() for x in (one, two))
    assert all(torch.equal(x, b[name]) for name, x in a.items())
    run(root, tmp_path / "three.pt", *second, "query_loss=csd")


def test_one_network_for_both_sides_and_a_trunk_that_starts_from_it(root, tmp_path):
    out = tmp_path / "x.pt"
    run(root, out, "method=arcface", "class_share=0.5", *VALIDATION)
    assert sides_of(out) == ("both",)
    more = ["method=arcface", f"trunk_weights={out}", "query_lr=0", "lr=1e-9", "epochs=1"]
    run(root, tmp_path / "y.pt", *more)
    a, b = (load_embedder(x).backbone.state_dict() for x in (out, tmp_path / "y.pt"))
    assert all(torch.equal(x, b[name]) for name, x in a.items() if name.endswith(("weight", "bias")))
