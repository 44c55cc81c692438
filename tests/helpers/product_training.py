"""A data root with a few generated products and their features, and words that train embedders on them."""

import numpy as np
import torch
from omegaconf import OmegaConf

from ames.datasets.landmarks.products import ProductSet, make_products
from ames.datasets.lists import read_list
from ames.descriptors.local import create_local, write_globals
from ames.features import LocalFeatures
from helpers.commands import ROOT

SCRIPT = ROOT / "src" / "train_embedder.py"
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
VALIDATION = ["dataset@val_dataset=own", "val_dataset.desc_dir=val"]


def embedder_experiments():
    """The files of conf/experiment that choose a method, themselves or by a file that they begin with."""

    def chooses(name):
        found = OmegaConf.load(ROOT / "conf" / "experiment" / f"{name}.yaml").get("defaults", [])
        parts = [
            chooses(x) if isinstance(x, str) else "override /method" in x for x in found if x != "_self_"
        ]
        return any(parts)

    return [path.stem for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml")) if chooses(path.stem)]


def write_root(root):
    """Products for training (4 of 3 views) and for validation, and their features in files."""
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


def words(root, out, *more):
    return [f"data_root={root}", f"model_path={out}", f"hydra.run.dir={out.parent / 'run'}", *SMALL, *more]
