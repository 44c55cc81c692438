"""Configurations of embedders, and AFF by the command on a few generated products; mistakes are one line.

RAML's trainings are in test_raml.py.
"""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ames.config import embedders as door
from ames.config.commands.train_embedder import TASKS
from ames.config.training import read_recipe
from ames.datasets.landmarks.products import ProductSet, make_products
from ames.datasets.lists import read_list
from ames.descriptors.local import create_local, write_globals
from ames.embedders.checkpoints import load_embedder, load_pair, save_embedders, sides_of
from ames.embedders.features import FeatureSpec
from ames.embedders.network import GlobalNetwork
from ames.features import LocalFeatures
from ames.training.data.augmentation import Augmentation
from ames.training.logging.journal import read_journal
from ames.training.tasks.aff import AffRecipe
from ames.weights.files import read_weights
from helpers.commands import ROOT, refused, run_script

SCRIPT, CONF = ROOT / "src" / "train_embedder.py", ROOT / "conf"
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


@pytest.mark.parametrize(
    "experiment",
    [x for x in names("experiment") if "/method:" in (CONF / "experiment" / f"{x}.yaml").read_text()],
)
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
    """A data root with products for training and validation, and their features in files."""
    root = tmp_path_factory.mktemp("root")
    for split, products in (("train", 4), ("val", 3)):
        folder = make_products(root / split, ProductSet(split, products, views=3, side=48), workers=0)
        for part in ("",) if split == "train" else ("_query", "_gallery"):
            name = "train.txt" if split == "train" else f"test{part}.txt"
            write_features(folder, read_list(folder / name), part)
    return root


def write_features(folder, listed, part="", backbone="mine"):
    labels, paths = [int(x.label) for x in listed], [x.path for x in listed]
    rng, about = np.random.default_rng(0), {"names": paths, "provenance": {"backbone": backbone}}
    kinds = rng.standard_normal((2, 4, 6)).astype(np.float32)
    noise = np.random.default_rng(1).standard_normal((len(paths), 4, 6)).astype(np.float32)
    vectors = kinds[0][labels] + 0.3 * noise[:, 0]
    write_globals(
        folder / f"a{part}_global.hdf5", vectors / np.linalg.norm(vectors, axis=1)[:, None], **about
    )
    file = folder / f"b{part}_local.hdf5"
    with create_local(file, images=len(paths), slots=4, width=5, **about) as write:
        for row, label in enumerate(labels):
            x = kinds[1, label, None, :5] + 0.3 * noise[row, :, :5]
            write(row, LocalFeatures.from_descriptors(torch.from_numpy(x)))


SMALL = [
    "train_dataset.desc_dir=train",
    "train_dataset.batch_size=6",
    "features=[a_global,b_local:3]",
    "dim=8",
    "fusion.heads=2",
    "fusion.layers=1",
    "network.trunk=resnet10",
    "network.width=0.125",
    "network.size=40",
    "crop_size=40",
    "epochs=2",
    "cpu=true",
    "tracker=null",
]


def words(root, out, *more):
    return [f"data_root={root}", f"model_path={out}", f"hydra.run.dir={out.parent / 'run'}", *SMALL, *more]


def run(root, out, *more):
    done = run_script(SCRIPT, *words(root, out, *more), cwd=out.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def epochs(out):
    return [x for x in read_journal(out.with_name(f"{out.stem}-journal.jsonl")) if x["kind"] == "epoch"]


VALIDATION = ["dataset@val_dataset=own", "val_dataset.desc_dir=val"]


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


# ---- mistakes --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wrong(root, tmp_path_factory):
    """Folders with something wrong: other images, another number of them, another backbone, no labels."""
    made = tmp_path_factory.mktemp("wrong")
    listed = read_list(root / "train" / "train.txt")
    text = (root / "train" / "train.txt").read_text()

    def folder(name, text=text, features=listed):
        (made / name / "train").mkdir(parents=True)
        (made / name / "train" / "train.txt").write_text(text)
        (made / name / "train" / "images").symlink_to(root / "train" / "images")
        write_features(made / name / "train", features)

    folder("order", features=[listed[1], listed[0], *listed[2:]])
    folder("fewer", features=listed[:-1])
    folder("unlabelled", "".join(line.split(",")[0] + "\n" for line in text.splitlines()))
    folder(
        "absent",
        text.replace("images/", "pictures/"),
        [x._replace(path=x.path.replace("images", "pictures")) for x in listed],
    )
    (made / "val").mkdir()
    for path in (root / "val").iterdir():
        (made / "val" / path.name).symlink_to(path)
    for part in ("_query", "_gallery"):
        (made / "val" / f"a{part}_global.hdf5").unlink()
        (made / "val" / f"b{part}_local.hdf5").unlink()
        write_features(made / "val", read_list(root / "val" / "test_query.txt"), part, backbone="another")
    torch.manual_seed(0)
    save_embedders(made / "network.pt", {"both": GlobalNetwork(trunk="resnet10", width=0.125, dim=8)})
    return made


ERRORS = [
    (["data_root=null"], "data_root is missing: give the folder that holds the data sets"),
    (["data_root=/nowhere"], "/nowhere/train: no such folder"),
    (["task=nothing"], "task 'nothing' is none of aff, "),
    (["method=nothing"], "Could not find 'method/nothing': choose one of aff, "),
    (["method=null"], "method=null: give the name of a file of conf/method, or leave it out"),
    (["fusion=nothing"], "Could not find 'fusion/nothing': choose one of attentive, mixer, mlp, orthogonal"),
    (["model=ames"], "model: the command has no such group; its groups are dataset@train_dataset, "),
    (["train_dataset.batch_size=0"], "batch_size is 0: give a whole number of at least 1"),
    (
        ["train_dataset.negatives=3"],
        "negatives 3 is of triplets, and AFF learns from images and their labels",
    ),
    (["train_dataset.list=none.txt"], "none.txt: no such list of images"),
    (["features=???"], "features is missing: give features=[NAME_global,NAME_local:COUNT,...]"),
    (["features=[a_global,c_local]"], "c_local.hdf5: no such file"),
    (["features=a"], "features: 'a' is none of NAME_global, NAME_local, NAME_local:COUNT"),
    (["features=[a_global:3]"], "features: 'a_global:3' is none of"),
    (["features=[b_local:0]"], "feature b_local: count 0 must be at least 1"),
    (
        ["features=[a_global,a_global]"],
        "features a_global, a_global: give each once",
    ),
    (["features=[]"], "no feature files given"),
    (["stage=both"], "stage 'both' is none of joint, gallery, query, network"),
    (["query_loss=l2"], "query_loss 'l2' is none of arcface, regression, csd, lce"),
    (["class_share=0"], "class_share 0.0 is outside (0, 1]"),
    (["alpha=1"], "alpha 1.0 is outside [0, 1)"),
    (["lr=0"], "lr 0.0 must be above 0"),
    (["lr=fast"], "lr is 'fast': give a number of at least 0"),
    (["momentum=1"], "momentum 1.0 is outside [0, 1)"),
    (["scale=0"], "scale 0.0 leaves nothing of a logit"),
    (["compile=true"], "compile=true: torch.compile is not tried with AFF's losses; leave it out"),
    (["network.trunk=resnet9"], "network: trunk 'resnet9' does not exist"),
    (["network.size=4"], "network: size 4: give at least 8 pixels"),
    (["network.dim=16"], "the gallery side has 8 dimensions, the query side 16"),
    (
        ["network._target_=builtins.dict"],
        "network._target_ is 'builtins.dict': give a network of conf/network",
    ),
    (["fusion._target_=builtins.dict"], "fusion._target_ is 'builtins.dict': give a fusion of conf/fusion"),
    (["fusion.heads=3"], "fusion: dim 8 is not divisible by 3 heads"),
    (["fusion.heads=0"], "fusion: heads is 0: give a whole number of at least 1"),
    (
        ["network.trunk=efficientnet-lite0", "network.width=1.0"],
        "trunk efficientnet-lite0 has no weights yet: give",
    ),
    (["trunk_weights=none.pt"], "none.pt: no such checkpoint"),
    (["trunk_weights=published"], "trunk resnet10: its weights are read from a file of trunk_weights"),
    (["crop_scale=0.5"], "crop_scale is 0.5: give a list of 2 numbers"),
    (["jitter=[1,1,1]"], "jitter is [1, 1, 1]: give a list of 4 numbers"),
    (["crop_scale=[0.9,0.1]"], "scale (0.9, 0.1) of a crop"),
    (["flip=2"], "flip 2.0 is no probability"),
    (["stage=query"], "stage=query needs start_from=FILE, what stage=gallery has written"),
    (["stage=query", "start_from=none.pt"], "none.pt: no such checkpoint"),
    (
        ["stage=query", "start_from={joint}"],
        "has no classifier; start_from is the file that stage=gallery has",
    ),
    (
        ["stage=query", "start_from={wrong}/network.pt"],
        "network.pt: its gallery side reads images: give what stage=",
    ),
    (
        ["stage=gallery", "start_from={joint}"],
        "start_from is of stage=query, the second one; this is stage=gal",
    ),
    (
        ["start_from={joint}"],
        "start_from is of stage=query, the second one; this is stage=joint: leave it out",
    ),
    (["resume=auto", "model_path=null"], "resume=auto finds nothing in a new run folder"),
    (
        ["data_root={wrong}/order"],
        "a_global.hdf5: not of the images of the training list: image 1 is 'images/product_",
    ),
    (["data_root={wrong}/fewer"], "a_global.hdf5: 11 images, but 12 in the training list"),
    (["data_root={wrong}/unlabelled"], "has no label; training needs path,label"),
    (["data_root={wrong}/absent"], "train: none of the 12 listed images exists (first: pictures/"),
    (["val_dataset=own"], "choose a file of conf/dataset, dataset@val_dataset=own"),
    (["dataset@val_dataset=own"], "own: no such folder"),
    (
        ["dataset@val_dataset=own", "val_dataset.desc_dir={wrong}/val"],
        "made by backbone 'another', but the embedder",
    ),
]


@pytest.mark.parametrize(("given", "message"), ERRORS, ids=lambda x: x[0][:40] if x else None)
def test_what_the_command_refuses(root, joint, wrong, tmp_path, given, message):
    known = {"{joint}": str(joint[0]), "{wrong}": str(wrong)}
    for key, value in known.items():
        given = [word.replace(key, value) for word in given]
    line = refused(SCRIPT, *words(root, tmp_path / "x.pt", *given), cwd=ROOT)
    assert line.startswith("train_embedder: ")
    assert message in line
    assert not list(tmp_path.rglob("*.pt"))
