"""Mistakes of those who train embedders are one line and status 2, and nothing is written."""

import pytest
import torch

from ames.datasets.lists import read_list
from ames.embedders.checkpoints import save_embedders
from ames.embedders.network import GlobalNetwork
from helpers.commands import ROOT, refused, run_script
from helpers.product_training import SCRIPT, words, write_features, write_root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def joint(root, tmp_path_factory):
    """The file of a training of both sides."""
    out = tmp_path_factory.mktemp("joint") / "x.pt"
    done = run_script(SCRIPT, *words(root, out, "epochs=1"), cwd=out.parent)
    assert done.returncode == 0, done.stderr
    return out


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
    (["data_root={wrong}/order"], "not of the images of the training list: image 1 is 'images/product_"),
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
    known = {"{joint}": str(joint), "{wrong}": str(wrong)}
    for key, value in known.items():
        given = [word.replace(key, value) for word in given]
    line = refused(SCRIPT, *words(root, tmp_path / "x.pt", *given), cwd=ROOT)
    assert line.startswith("train_embedder: ")
    assert message in line
    assert not list(tmp_path.rglob("*.pt"))
