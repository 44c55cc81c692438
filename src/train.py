"""Train a model: python src/train.py data_root=DIR [teacher=CHECKPOINT] [key=value ...].

On several GPUs or machines: torchrun --nproc-per-node N src/train.py data_root=DIR ...
"""

from __future__ import annotations

from collections.abc import Callable

import hydra
import numpy as np
import torch
from omegaconf import DictConfig

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.config import evaluation as door
from ames.config import training
from ames.config.launch import launch, run
from ames.config.models import build_model
from ames.config.values import read_fields, several, whole
from ames.descriptors.local import DescriptorFile, check_backbone
from ames.errors import AmesError
from ames.io.hashing import weights_digest
from ames.models.ames import AMES
from ames.models.checkpoints import build_from_weights
from ames.training import Recipe, fit
from ames.training.distributed import Ranks, init_distributed
from ames.weights.files import load_state, weights_for


def train(config: DictConfig) -> float:
    with init_distributed(door.device(config)) as ranks:
        return _train(config, ranks)


def _train(config: DictConfig, ranks: Ranks) -> float:
    out = training.trained_file(config, "model.pt", ranks)
    checkpoints = training.checkpoints(config, out)
    seed = whole(config, "seed", least=0)
    torch.manual_seed(seed)
    folder = door.dataset_folder(config, door.read_dataset(config, "train_dataset"))
    descriptors = DescriptorFile(folder.local())
    training.take_width(config, descriptors.width)
    model = build_model(config)
    if not isinstance(model, AMES):
        raise AmesError(f"{type(model).__name__} has no weights to train")
    teacher, first = (_given(config, key) for key in ("teacher", "init_from"))
    check_backbone(descriptors, width=model.local_dim, backbone=config.desc_name)
    loader = training.triplets(config, folder, descriptors, ranks, seed=seed)
    _initialize(model, descriptors, seed, first)
    validate = _validation(config, model)
    with training.exclusive_output(out, ranks):
        history = fit(
            model,
            loader,
            _recipe(config, loader.count, first),
            out=out,
            teacher=teacher,
            ranks=ranks,
            validate=validate,
            provenance={"backbone": config.desc_name, "seed": seed},
            checkpoints=checkpoints,
            watch=training.watch(config, out, ranks),
        )
    if ranks.is_main:
        print(f"loss {history[-1]['loss']:.4f}, accuracy {history[-1]['accuracy']:.3f}; checkpoint: {out}")
    return history[-1]["loss"]


def _given(config: DictConfig, key: str) -> AMES | None:
    """Return the model of the checkpoint under ``key``, None where none is given."""
    if config[key] is None:
        return None
    model = build_from_weights(weights_for(config.desc_name, config[key]), source=str(config[key]))
    if not isinstance(model, AMES):
        raise AmesError(f"{key} {config[key]} is a {type(model).__name__}: give a checkpoint of AMES")
    return model


def _recipe(config: DictConfig, count: int, first: AMES | None) -> Recipe:
    return read_fields(
        Recipe,
        config,
        config.train_dataset,
        max_desc=count,
        autocast={True: "bf16", False: None}.get(config.autocast, config.autocast),
        init_from=None if first is None else weights_digest(first),
    )


def _initialize(model: AMES, descriptors: DescriptorFile, seed: int, first: AMES | None) -> None:
    """Start the model from another one's weights, or its projection from the data: a thousand images, the 60
    strongest descriptors of each.
    """
    if first is not None and first.binarized == model.binarized:
        load_state(model, first.state_dict(), source="init_from")
        return
    rows = np.linspace(0, len(descriptors) - 1, min(1000, len(descriptors))).astype(int)
    sample = descriptors.read(rows, min(60, descriptors.slots))
    # Those that are no numbers are for training to find: it names their images, or leaves them out.
    finite = sample.descriptors[sample.valid & sample.descriptors.isfinite().all(-1)]
    try:
        model.fit_projection(finite, seed=seed)
        if first is not None:
            model.start_from(first, finite)
    except ValueError as error:
        raise AmesError(f"model: {error}") from error


def _validation(config: DictConfig, model: AMES) -> Callable[[AMES], dict[str, float]] | None:
    """What is measured between epochs: mAP on val_dataset with the fusion that is best there."""
    val = config.val_dataset
    ks = several(val, "num_rerank") if isinstance(val, DictConfig) else []
    choose = door.chooser(config, model, ks)
    if choose is None:
        return None

    def validate(trained: AMES) -> dict[str, float]:
        found = choose(trained)
        return {**found.metrics, **found.fusion.to_keys()}

    return validate


@hydra.main(config_path="../conf", config_name="train", version_base="1.3")
def main(config: DictConfig) -> float:
    return run("train", train, config)


if __name__ == "__main__":
    launch("train", main)
