"""A training of AFF of seconds: 24 photos of 6 scenes, with a global feature and sets of local ones."""

import numpy as np
import torch

from ames.descriptors.local import create_local, write_globals
from ames.embedders.features import StoredFeatures
from ames.embedders.mixer import Mixer
from ames.embedders.network import GlobalNetwork
from ames.features import LocalFeatures
from ames.training.data.aff import AffLoader
from ames.training.data.augmentation import Augmentation
from ames.training.data.photos import PhotoLoader, SquareView, TrainingPhotos
from ames.training.tasks.aff import AffModel, AffRecipe, AffTask
from helpers.photos import broken, save, scene

IMAGES, CLASSES, DIM, SIDE = 24, 6, 8, 40
LABELS = np.arange(IMAGES) % CLASSES
RECIPE = {"epochs": 2, "lr": 0.02, "query_lr": 0.02}
NAMES = [f"photos/{i}.png" for i in range(IMAGES)]


def write_aff(folder):
    """Photos, some broken ones, and the files a_global.hdf5 (6-d) and b_local.hdf5 (5-d, up to 4)."""
    for i in range(IMAGES):
        save(folder / NAMES[i], scene(i % CLASSES, view=i // CLASSES, size=(44, 52)))
    broken(folder / "photos" / "broken")
    write_features(folder)
    return folder


def write_features(folder, names=NAMES, seed=0):
    """Features that images of a class nearly share, in unequal counts, beside what only one file knows."""
    rng = np.random.default_rng(seed)
    kinds = rng.standard_normal((CLASSES, 4, 5)).astype(np.float32)
    vectors = rng.standard_normal((CLASSES, 6))[LABELS] + 0.5 * rng.standard_normal((IMAGES, 6))
    write_globals(folder / "a_global.hdf5", vectors / np.linalg.norm(vectors, axis=1)[:, None], names=names)
    with create_local(folder / "b_local.hdf5", images=IMAGES, slots=4, width=5, names=names) as write:
        for i in range(IMAGES):
            x = kinds[i % CLASSES] + 0.5 * rng.standard_normal((4, 5)).astype(np.float32)
            write(i, LocalFeatures.from_descriptors(torch.from_numpy(x[: 1 + i % 4])))


def stored(folder):
    return StoredFeatures({name: folder / f"{name}.hdf5" for name in ("a_global", "b_local")})


def network(dim=DIM):
    """Small, and with batch normalization over enough cells that rounding stays small."""
    return GlobalNetwork(trunk="resnet10", width=0.125, dim=dim, size=SIDE)


def photo_loader(folder, bad=None, *, batch=8, seed=0, workers=0):
    """Rows of ``bad`` are broken files instead."""
    names = list(NAMES)
    for row, name in (bad or {}).items():
        names[int(row)] = f"photos/broken/{name}"
    view = SquareView(SIDE, Augmentation(scale=(0.5, 1)))
    return PhotoLoader(TrainingPhotos(folder, names, LABELS), view, batch=batch, seed=seed, workers=workers)


def aff_loader(folder, bad=None, *, stage="joint", share=1.0, seed=0, **options):
    photos = None if stage == "gallery" else photo_loader(folder, bad, seed=seed, **options)
    return AffLoader(
        LABELS,
        batch=options.get("batch", 8),
        photos=photos,
        stored=None if stage == "network" else stored(folder),
        class_share=share,
        seed=seed,
    )


def aff_task(folder, seed=0, validate=None, bad=None, *, dropout=0.0, share=1.0, first=None, **recipe):
    """first: the model of the first stage, for stage="query"."""
    chosen = AffRecipe(**RECIPE | recipe)
    loader = aff_loader(folder, bad, stage=chosen.stage, share=share)
    torch.manual_seed(seed)
    features = [x.to_dict() for x in stored(folder).specs]
    mixer = Mixer(features=features, dim=DIM, heads=2, layers=1, dropout=dropout)
    model = AffModel(
        None if chosen.stage == "network" else mixer,
        None if chosen.stage == "gallery" else network(),
        CLASSES,
    )
    if first is not None:
        model.gallery.load_state_dict(first.gallery.state_dict())
        model.classifier.load_state_dict(first.classifier.state_dict())
    return AffTask(model, loader, chosen, validate=validate)


# Trainings by name, of arguments (folder, seed, validate, bad, **recipe).
AFF = {
    "aff": aff_task,
    "aff_csd": lambda *given, **recipe: aff_task(*given, query_loss="csd", **recipe),
    "aff_sampled": lambda *given, **recipe: aff_task(*given, share=0.5, query_loss="lce", **recipe),
    "aff_gallery": lambda *given, **recipe: aff_task(*given, stage="gallery", **recipe),
    "aff_network": lambda *given, **recipe: aff_task(*given, stage="network", **recipe),
}
