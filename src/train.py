"""Trains a model: python src/train.py data_root=DIR [teacher=CHECKPOINT] [key=value ...]."""

from __future__ import annotations

import hydra
import numpy as np
import torch
from omegaconf import DictConfig

from ames import config as door
from ames.checkpoints import load_model
from ames.data.descriptors import DescriptorFile, check_backbone
from ames.data.folder import DatasetFolder
from ames.data.images import read_labels
from ames.data.shortlist import Shortlist
from ames.data.triplets import TripletLoader, TripletSampler
from ames.errors import AmesError
from ames.models.ames import AMES
from ames.training import Recipe, fit


def train(config: DictConfig) -> float:
    data = config.train_dataset
    torch.manual_seed(config.seed)
    folder = DatasetFolder(door.data_folder(config, data.name), config.desc_name)
    model = door.build_model(config)
    if not isinstance(model, AMES):
        raise AmesError(f"{type(model).__name__} has no weights to train")
    teacher = None if config.teacher is None else load_model(config.teacher)
    descriptors = DescriptorFile(folder.local())
    check_backbone(descriptors, width=model.local_dim, backbone=config.desc_name)
    labels = read_labels(folder.image_list())
    sampler = TripletSampler(
        Shortlist.load(folder.shortlist, gallery_size=len(labels)),
        labels,
        neighbours=data.neighbours,
        min_positives=data.min_positives,
        min_negatives=data.min_negatives,
        power=data.power,
    )
    count = min(data.desc_num, descriptors.slots)
    loader = TripletLoader(
        sampler, descriptors, triplets=max(1, data.batch_size // 3), count=count, seed=config.seed
    )
    sample = descriptors.read(
        np.linspace(0, len(descriptors) - 1, min(1000, len(descriptors))).astype(int), 60
    )
    model.fit_projection(sample.descriptors[sample.valid], seed=config.seed)
    out = door.run_folder() / "model.pt" if config.model_path is None else config.model_path
    recipe = Recipe(
        epochs=config.epochs,
        lr=config.lr,
        weight_decay=config.weight_decay,
        min_desc=data.min_desc,
        max_desc=count,
        beta=config.beta,
        warmup=config.warmup,
        clip=config.clip,
        seed=config.seed,
    )
    print(f"{len(sampler.anchors)} valid anchors of {len(labels)} images, {len(loader)} batches an epoch")
    history = fit(
        model,
        loader,
        recipe,
        out=out,
        teacher=teacher,
        device=door.device(config),
        provenance={"backbone": config.desc_name},
    )
    print(f"loss {history[-1]['loss']:.4f}, accuracy {history[-1]['accuracy']:.3f}; checkpoint: {out}")
    return history[-1]["loss"]


@hydra.main(config_path="../conf", config_name="train", version_base="1.3")
def main(config: DictConfig) -> float:
    return door.run("train", lambda: train(config))


if __name__ == "__main__":
    main()
