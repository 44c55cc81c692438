"""Trains a model: python src/train.py data_root=DIR [teacher=CHECKPOINT] [key=value ...]."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import DictConfig

from ames import config as door
from ames.checkpoints import model_of, weights_for
from ames.data.descriptors import DescriptorFile, check_backbone
from ames.data.images import read_labels
from ames.data.shortlist import Shortlist
from ames.data.triplets import TripletLoader, TripletSampler
from ames.errors import AmesError
from ames.models.ames import AMES
from ames.training import Recipe, fit
from ames.training.resuming import Checkpoints


def train(config: DictConfig) -> float:
    data = config.train_dataset
    if config.resume not in (None, "auto"):
        raise AmesError(f"resume is {config.resume!r}: give auto, which goes on where it was interrupted")
    seed = door.whole(config, "seed", least=0)
    torch.manual_seed(seed)
    folder = door.dataset_folder(config, data)
    model = door.build_model(config)
    if not isinstance(model, AMES):
        raise AmesError(f"{type(model).__name__} has no weights to train")
    teacher = None
    if config.teacher is not None:
        teacher = model_of(weights_for(config.desc_name, config.teacher), source=str(config.teacher))
    descriptors = DescriptorFile(folder.local())
    check_backbone(descriptors, width=model.local_dim, backbone=config.desc_name)
    labels = read_labels(folder.image_list())
    sampler = TripletSampler(
        Shortlist.load(folder.find_shortlist(door.file_name(data, "nn_file")), gallery_size=len(labels)),
        labels,
        neighbours=door.whole(data, "neighbours"),
        min_positives=door.whole(data, "min_positives"),
        min_negatives=door.whole(data, "min_negatives"),
        power=door.number(data, "power"),
    )
    count = min(door.whole(data, "desc_num"), descriptors.slots)
    triplets = door.whole(data, "batch_size", least=3) // 3
    workers = door.whole(config, "num_workers", least=0)
    loader = TripletLoader(sampler, descriptors, triplets=triplets, count=count, seed=seed, workers=workers)
    sample = descriptors.read(
        np.linspace(0, len(descriptors) - 1, min(1000, len(descriptors))).astype(int), 60
    )
    try:
        model.fit_projection(sample.descriptors[sample.valid], seed=seed)
    except ValueError as error:
        raise AmesError(f"model: {error}") from error
    validate = _validation(config, model)
    out = door.run_folder() / "model.pt" if config.model_path is None else Path(str(config.model_path))
    if out.is_dir():  # said before an epoch of training, not after it
        raise AmesError(f"model_path {out} is a folder: give the name of a file in it")
    recipe = Recipe(
        epochs=door.whole(config, "epochs"),
        lr=door.number(config, "lr"),
        weight_decay=door.number(config, "weight_decay"),
        min_desc=door.whole(data, "min_desc"),
        max_desc=count,
        query_desc=None if data.query_desc is None else door.whole(data, "query_desc"),
        database_desc=None if data.database_desc is None else door.whole(data, "database_desc"),
        beta=door.number(config, "beta"),
        warmup=door.whole(config, "warmup", least=0),
        clip=None if config.clip is None else door.number(config, "clip"),
        accumulate=door.whole(config, "accumulate"),
        non_finite=str(config.non_finite),
        autocast=bool(config.autocast),
        val_freq=door.whole(config, "val_freq"),
        print_freq=door.whole(config, "print_freq", least=0),
        seed=seed,
    )
    print(
        "{anchors} valid anchors of {images} images with {labels} labels ({few_positives} have too few "
        "positives, {few_negatives} too few negatives); an anchor has {positives:.1f} positives and "
        "{negatives:.1f} negatives on average; ".format(**sampler.statistics)
        + f"{len(loader)} batches an epoch"
    )
    history = fit(
        model,
        loader,
        recipe,
        out=out,
        teacher=teacher,
        device=door.device(config),
        validate=validate,
        provenance={"backbone": config.desc_name},
        checkpoints=_checkpoints(config, out),
    )
    print(f"loss {history[-1]['loss']:.4f}, accuracy {history[-1]['accuracy']:.3f}; checkpoint: {out}")
    return history[-1]["loss"]


def _checkpoints(config: DictConfig, out: Path) -> Checkpoints:
    """Where the state of the training is kept: ``state_dir``, else beside the model."""
    resume = config.resume is not None
    if resume and config.state_dir is None and config.model_path is None:
        raise AmesError("resume=auto finds nothing in a new run folder: give model_path, or state_dir")
    folder = out.with_name(f"{out.stem}-state") if config.state_dir is None else Path(str(config.state_dir))
    every, keep = door.whole(config, "save_every", least=0), door.whole(config, "keep")
    return Checkpoints(folder, every=every, keep=keep, resume=resume)


def _validation(config: DictConfig, model: AMES) -> Callable[[AMES], dict[str, float]] | None:
    """What is measured between epochs: mAP on val_dataset with the blend that is best there."""
    val = config.val_dataset
    ks = door.several(val, "num_rerank") if isinstance(val, DictConfig) else []
    choose = door.chooser(config, model, ks)
    if choose is None:
        return None

    def validate(_: AMES) -> dict[str, float]:
        found = choose()
        return {"val_map": found.reached, "lamb": found.blend.lamb, "temp": found.blend.temp}

    return validate


@hydra.main(config_path="../conf", config_name="train", version_base="1.3")
def main(config: DictConfig) -> float:
    return door.run("train", lambda: train(config))


if __name__ == "__main__":
    door.launch("train", main)
