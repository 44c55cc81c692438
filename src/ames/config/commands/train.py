"""Train a model: what src/train.py and ``ames train`` do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ames.config import evaluation as door
from ames.config import training
from ames.config.launch import CONF, launch, run
from ames.config.models import build_model
from ames.config.values import several, whole
from ames.descriptors.local import DescriptorFile, check_backbone
from ames.errors import AmesError
from ames.models.ames import AMES
from ames.models.base import PairSimilarity, Similarity
from ames.models.load import load
from ames.models.locore import Locore
from ames.models.registry import MODELS
from ames.training import Validation
from ames.training.distributed import Ranks
from ames.training.tasks.listwise import ListwiseRecipe, ListwiseTask
from ames.training.tasks.pairwise import PairwiseRecipe, PairwiseTask
from ames.weights.files import load_state, read_weights

log = logging.getLogger(__name__)
M = TypeVar("M", bound=Similarity)


def build(config: DictConfig, ranks: Ranks) -> tuple[PairwiseTask | ListwiseTask, dict[str, Any]]:
    folder, descriptors = training.training_set(config)
    if OmegaConf.is_interpolation(config, "dim_local_features") and config.desc_name not in config.local_dims:
        config.dim_local_features = descriptors.width  # of a backbone that the configuration does not know
    model = build_model(config)
    if not model.learned or not any(True for _ in model.parameters()):
        raise AmesError(f"{type(model).__name__} has no weights to train")
    text = _text_weights(config, model)
    teacher = _given(config, "teacher", AMES)
    first = None if text else _given(config, "start_from", type(model))
    check_backbone(descriptors, width=model.local_dim, backbone=config.desc_name)
    if model.reads_vector:
        descriptors.with_vectors(folder.vectors(), width=model.global_dim)
    provenance = {"backbone": config.desc_name, "seed": config.seed}
    files = (config, folder, descriptors, ranks)
    if not isinstance(model, PairSimilarity):
        if teacher is not None:
            raise AmesError(f"{type(model).__name__} cannot be distilled from AMES: leave the teacher out")
        if model.window is None:
            raise AmesError(f"{type(model).__name__} has no window, the length of its lists: set one")
        lists = training.lists(*files, model=model)
        _initialize(model, descriptors, config.seed, first)
        if text is not None and isinstance(model, Locore):
            model.start_from_longformer(text, source=str(config.start_from))
        started = model if text else first
        list_recipe = training.read_recipe(ListwiseRecipe, config, start_from=started)
        return ListwiseTask(model, lists, list_recipe, _validation(config, model)), provenance
    triplets = training.triplets(*files, scales=model.reads_locations)
    _initialize(model, descriptors, config.seed, first)
    recipe = training.read_recipe(
        PairwiseRecipe, config, config.train_dataset, start_from=first, max_desc=triplets.count
    )
    task = PairwiseTask(model, triplets, recipe, teacher=teacher, validate=_validation(config, model))
    return task, provenance


def _text_weights(config: DictConfig, model: Similarity) -> Mapping[str, Tensor] | None:
    """The tensors under ``start_from`` if they are a text model's, from which LOCORE can start."""
    if config.start_from is None or not isinstance(model, Locore) or str(config.start_from) in MODELS:
        return None
    state = read_weights(Path(str(config.start_from))).state
    return state if any(name.endswith("embeddings.word_embeddings.weight") for name in state) else None


def _given(config: DictConfig, key: str, kind: type[M]) -> M | None:
    """Return the model of the checkpoint under ``key``, None where none is given."""
    if config[key] is None:
        return None
    model = load(config[key], backbone=config.desc_name).model
    if not isinstance(model, kind):
        given = f"{key} {config[key]} is of class {type(model).__name__}"
        raise AmesError(f"{given}: give a checkpoint of {kind.__name__}")
    return model


def _initialize(model: Similarity, descriptors: DescriptorFile, seed: int, first: Similarity | None) -> None:
    """Start the model from another one's weights, or from the data: a thousand images, the 60 strongest
    descriptors of each.
    """
    if first is not None and first.code_bits == model.code_bits:
        load_state(model, first.state_dict(), source="start_from")
        return
    rows = np.linspace(0, len(descriptors) - 1, min(1000, len(descriptors))).astype(int)
    sample = descriptors.read(rows, min(60, descriptors.slots))
    # Those that are no numbers are for training to find: it names their images, or leaves them out.
    finite = sample.descriptors[sample.valid & sample.descriptors.isfinite().all(-1)]
    try:
        model.fit_projection(finite, seed=seed)
        if first is not None:
            if not (isinstance(model, AMES) and isinstance(first, AMES)):
                raise ValueError("start_from has codes of another form; only AMES starts from such a model")
            model.start_from(first, finite)
    except ValueError as error:
        raise AmesError(f"model: {error}") from error


def _validation(config: DictConfig, model: Similarity) -> Callable[[Similarity], Validation] | None:
    """What is measured between epochs: mAP on val_dataset with the fusion that is best there."""
    val = config.val_dataset
    ks = several(val, "num_rerank") if isinstance(val, DictConfig) else []
    choose = door.chooser(config, model, ks)
    if choose is None:
        if whole(config, "num_gpus") > 1:
            text = "num_gpus %d: of validation alone, and there is none; torchrun trains on several GPUs"
            log.warning(text, config.num_gpus)
        return None
    door.say_idle_gpus(config)

    def validate(trained: Similarity) -> Validation:
        found = choose(trained)
        fusion = found.fusion.to_keys()
        return Validation({**found.metrics, **fusion}, found.metrics["val_map"], {"blend": fusion})

    return validate


@hydra.main(config_path=CONF, config_name="train", version_base="1.3")
def main(config: DictConfig) -> float:
    return run("train", lambda x: training.train(x, build, "model.pt", "checkpoint"), config)


def start() -> None:
    """Run the command with the words of ``sys.argv``."""
    launch("train", main)
