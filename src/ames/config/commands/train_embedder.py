"""Train an embedder: what src/train_embedder.py and ``ames train-embedder`` do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig

from ames.config import embedders as door
from ames.config import training
from ames.config.launch import CONF, launch, run
from ames.config.raml import build_raml, build_raml_teacher
from ames.config.values import number, whole
from ames.embedders.base import GALLERY, Embedder, FeatureEmbedder
from ames.embedders.checkpoints import load_embedder
from ames.errors import AmesError
from ames.training import Task
from ames.training.data.aff import AffLoader
from ames.training.distributed import Ranks
from ames.training.tasks.aff import AffModel, AffRecipe, AffTask
from ames.weights.files import read_weights

_CLASSIFIER = "classifier.weight"


def build(config: DictConfig, ranks: Ranks) -> tuple[Task[Any, Any], dict[str, Any]]:
    if config.task not in TASKS:
        raise AmesError(f"task {config.task!r} is none of {', '.join(TASKS)}: choose method=NAME")
    return TASKS[config.task](config, ranks)


def build_aff(config: DictConfig, ranks: Ranks) -> tuple[AffTask, dict[str, Any]]:
    folder, names, listed = door.training_list(config)
    training.refuse_keys_of_triplets(config.train_dataset, "AFF learns from images and their labels")
    stage, batch = str(config.stage), whole(config.train_dataset, "batch_size")
    needs_features = stage != "network" and (stage != "query" or config.query_loss != "arcface")
    stored = door.stored_features(config, folder) if needs_features else None
    if stored is not None:
        stored.check_images(names, "the training list")
    query = door.build_network(config) if stage != "gallery" else None
    gallery = None if stored is None or stage == "query" else door.build_fusion(config, stored.specs)
    classes = int(listed.labels.max()) + 1
    if stage == "query":
        gallery = _first_stage(config)
    model = AffModel(gallery, query, classes)
    first = None
    if stage == "query":
        _take_classifier(model, Path(str(config.start_from)))
        first = model.classifier
    elif config.start_from is not None:
        raise AmesError(f"start_from is of stage=query, the second one; this is stage={stage}: leave it out")
    photos = None if query is None else door.photo_loader(config, folder, names, listed.labels, batch)
    loader = AffLoader(
        listed.labels,
        batch=batch,
        photos=photos,
        inputs=None if query is None else query.inputs,
        stored=stored,
        class_share=number(config, "class_share"),
        seed=whole(config, "seed", least=0),
    )
    recipe = training.read_recipe(AffRecipe, config, start_from=first)
    if ranks.is_main:
        print(f"{len(names)} images of {classes} classes; {len(loader)} batches of {loader.batch} per epoch")
    task = AffTask(model, loader, recipe, validate=door.validation(config, _sides, model))
    return task, {"seed": config.seed, "method": "aff", "stage": stage}


def _first_stage(config: DictConfig) -> FeatureEmbedder:
    if config.start_from is None:
        raise AmesError("stage=query needs start_from=FILE, what stage=gallery has written")
    found = load_embedder(Path(str(config.start_from)), GALLERY)
    if not isinstance(found, FeatureEmbedder):
        raise AmesError(
            f"{config.start_from}: its gallery side reads images: give what stage=gallery has written"
        )
    return found


def _take_classifier(model: AffModel, path: Path) -> None:
    """Take the classifier of the first stage, for the side that learns and for its twin."""
    weight = read_weights(path).state.get(_CLASSIFIER)
    if weight is None:
        raise AmesError(f"{path}: has no classifier; start_from is the file that stage=gallery has written")
    if weight.shape != model.classifier.weight.shape:
        wanted = tuple(model.classifier.weight.shape)
        raise AmesError(f"{path}: its classifier is {tuple(weight.shape)}, this training's {wanted}")
    with torch.no_grad():
        model.classifier.weight.copy_(weight)
        model.classifier.follow(0.0)


def _sides(trained: AffModel) -> tuple[Embedder, Embedder]:
    """What asks and what is searched: the query network and the mixer, else the only side for both."""
    found = list(trained.sides().values())  # the gallery side, if there is one, then the query side
    return found[-1], found[0]


TASKS: dict[str, Callable[[DictConfig, Ranks], tuple[Task[Any, Any], dict[str, Any]]]] = {
    "aff": build_aff,
    "raml": build_raml,
    "raml_teacher": build_raml_teacher,
}


@hydra.main(config_path=CONF, config_name="embedder", version_base="1.3")
def main(config: DictConfig) -> float:
    return run(
        "train_embedder", lambda config: training.train(config, build, "embedder.pt", "embedder"), config
    )


def start() -> None:
    """Run the command with the words of ``sys.argv``."""
    launch("train_embedder", main)
