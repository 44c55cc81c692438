"""RAML's two trainings: from Hydra's tree to tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from ames.config import embedders as door
from ames.config import training
from ames.config.values import whole
from ames.embedders.base import GALLERY, QUERY, ImageEmbedder
from ames.embedders.checkpoints import load_embedder
from ames.embedders.network import GlobalNetwork
from ames.errors import AmesError
from ames.training import Validation
from ames.training.data.photos import TrainingPhotos
from ames.training.distributed import Ranks
from ames.training.tasks.metric_triplets import MetricTriplets, TripletRecipe
from ames.training.tasks.raml import RamlRecipe, RamlTask
from ames.weights.files import load_state


def build_raml(config: DictConfig, ranks: Ranks) -> tuple[RamlTask, dict[str, Any]]:
    """Return the task of a student, and what its file says."""
    if OmegaConf.is_missing(config, "teacher") or config.teacher is None:
        raise AmesError("teacher is missing: give the file of the gallery side, teacher=FILE")
    photos = _photos(config)
    teacher = load_embedder(Path(str(config.teacher)), GALLERY)
    if not isinstance(teacher, ImageEmbedder):
        raise AmesError(
            f"{config.teacher}: its gallery side reads stored features: give one that reads images"
        )
    network, first = _network(config)
    recipe = training.read_recipe(RamlRecipe, config, config.train_dataset, start_from=first)
    task = RamlTask(
        network,
        teacher,
        photos,
        recipe,
        augmentation=door.augmentation(config),
        workers=whole(config, "num_workers", least=0),
        validate=_against_teacher(config, teacher),
    )
    _tell(task, photos, ranks)
    return task, {"seed": config.seed, "method": "raml", "variant": recipe.variant}


def build_raml_teacher(config: DictConfig, ranks: Ranks) -> tuple[MetricTriplets, dict[str, Any]]:
    """Return the task of a teacher, and what its file says."""
    photos = _photos(config)
    network, first = _network(config)
    task = MetricTriplets(
        network,
        photos,
        training.read_recipe(TripletRecipe, config, config.train_dataset, start_from=first),
        augmentation=door.augmentation(config),
        workers=whole(config, "num_workers", least=0),
        validate=door.validation(config, lambda trained: (trained, trained), network),
    )
    _tell(task, photos, ranks)
    return task, {"seed": config.seed, "method": "raml_teacher"}


def _photos(config: DictConfig) -> TrainingPhotos:
    folder, names, listed = door.training_list(config)
    training.refuse_keys_of_triplets(config.train_dataset, "RAML learns from images and their labels")
    return door.training_photos(config, folder, names, listed.labels)


def _network(config: DictConfig) -> tuple[GlobalNetwork, GlobalNetwork | None]:
    """Return the network that learns, and the one of ``start_from`` whose weights it has."""
    if config.start_from is not None and config.trunk_weights is not None:
        raise AmesError("start_from gives all weights: leave trunk_weights out")
    network = door.build_network(config, replaced=config.start_from is not None)
    if config.start_from is None:
        if config.trunk_weights is None and config.batch_norm == "frozen":
            raise AmesError(
                "the network starts from random weights, whose batch normalization has to learn: give "
                "trunk_weights=FILE, start_from=FILE, or batch_norm=trained"
            )
        return network, None
    first = load_embedder(Path(str(config.start_from)), QUERY)
    if not isinstance(first, GlobalNetwork):
        raise AmesError(f"{config.start_from}: holds no network that reads images")
    load_state(network, first.state_dict(), source=str(config.start_from))
    return network, first


def _tell(task: RamlTask | MetricTriplets, photos: TrainingPhotos, ranks: Ranks) -> None:
    if ranks.is_main:
        many, steps = len(task), -(-len(task) // task.recipe.accumulate)
        print(f"{len(photos)} images of {photos.classes} classes; {many} batches and {steps} steps per epoch")


def _against_teacher(
    config: DictConfig, teacher: ImageEmbedder
) -> Callable[[GlobalNetwork], Validation] | None:
    """mAP on val_dataset: student against teacher, which is the score, and the student against itself."""
    test = door.embedded_search(config)
    if test is None:
        return None
    test.prepare(teacher, "gallery")
    gallery: list[np.ndarray] = []  # the teacher's, which do not change

    def validate(student: GlobalNetwork) -> Validation:
        if not gallery:
            gallery.append(test.vectors(teacher, "gallery"))
        queries = test.vectors(student, "query")
        metrics = test.measure(queries, gallery[0])
        own = test.measure(queries, test.vectors(student, "gallery"))
        return Validation(metrics | {"val_map_symmetric": own["val_map"]}, metrics["val_map"])

    return validate
