"""Trainings of small networks on a few small photos: 24 images of 6 classes."""

import torch

from ames.embedders.network import GlobalNetwork
from ames.training.data.photos import TrainingPhotos
from ames.training.tasks.metric_triplets import MetricTriplets, TripletRecipe
from ames.training.tasks.raml import RamlRecipe, RamlTask
from helpers.photos import broken, save, scene

IMAGES, CLASSES = 24, 6
RAML = {
    "epochs": 2,
    "lr": 1e-3,
    "accumulate": 2,
    "views": 2,
    "batch_size": 4,
    "epoch_images": 20,
    "batch_norm": "trained",
}
TRIPLETS = {"epochs": 2, "lr": 1e-3, "accumulate": 1, "batch_size": 40, "batch_norm": "trained"}


def network(seed=0, size=32, **options):
    torch.manual_seed(seed)
    return GlobalNetwork(**{"trunk": "resnet10", "width": 0.125, "dim": 8, "size": size} | options)


def write_photos(folder):
    """Views of 6 scenes, and broken files in ``broken``."""
    for i in range(IMAGES):
        save(folder / f"{i}.png", scene(i % CLASSES, view=i // CLASSES, size=(40, 48)))
    broken(folder / "broken")


def photos(folder, bad=None, labels=None):
    """The list of the photos; rows of ``bad`` are broken files instead."""
    names = [f"{i}.png" for i in range(IMAGES)]
    for row, name in (bad or {}).items():
        names[int(row)] = f"broken/{name}"
    return TrainingPhotos(folder, names, [i % CLASSES for i in range(IMAGES)] if labels is None else labels)


def raml_task(folder, seed=0, validate=None, bad=None, workers=0, **recipe):
    return RamlTask(
        network(seed),
        network(5, size=64),
        photos(folder, bad),
        RamlRecipe(**RAML | recipe),
        workers=workers,
        validate=validate,
    )


def triplets_task(folder, seed=0, validate=None, bad=None, labels=None, **recipe):
    chosen = TripletRecipe(**TRIPLETS | recipe)
    return MetricTriplets(network(seed), photos(folder, bad, labels), chosen, validate=validate)


NETWORKS = {"raml": raml_task, "triplets": triplets_task}
