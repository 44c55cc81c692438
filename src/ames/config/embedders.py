"""Embedders and what they read: from Hydra's tree to objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from ames.backbones.pretrained import PUBLISHED
from ames.config.evaluation import dataset_path, protocols, read_dataset, validation_set
from ames.config.values import file_name, number, optional_path, several, value_of, whole
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import TrainingList, read_list, read_training_list
from ames.embedders.base import Embedder, FeatureEmbedder
from ames.embedders.checkpoints import load_trunk
from ames.embedders.features import GLOBAL, LOCAL, FeatureSpec, StoredFeatures
from ames.embedders.network import GlobalNetwork
from ames.embedders.trunks import FROM_SCRATCH, build_trunk
from ames.errors import AmesError, first_line
from ames.evaluation.embedded_search import SPLITS, EmbeddedSearch, feature_files
from ames.training import Validation
from ames.training.data.augmentation import Augmentation
from ames.training.data.photos import PhotoLoader, SquareView, TrainingPhotos

M = TypeVar("M")


def training_list(config: DictConfig) -> tuple[Path, list[str], TrainingList]:
    """Return the folder of ``train_dataset``, and the paths and labels of its list."""
    dataset = read_dataset(config, "train_dataset")
    folder = dataset_path(config, dataset)
    place = DatasetFolder(folder, "any")
    path = place.image_list() if dataset.list is None else place.file(str(dataset.list))
    return folder, [x.path for x in read_list(path)], read_training_list(path)


def stored_features(config: DictConfig, folder: Path, split: str = "") -> StoredFeatures:
    """Open the files of ``features``, a list of NAME_global and NAME_local[:COUNT]."""
    if OmegaConf.is_missing(config, "features"):
        raise AmesError("features is missing: give features=[NAME_global,NAME_local:COUNT,...]")
    asked = [_feature(str(x)) for x in several(config, "features")]
    names = [x.name for x in asked]
    if len(set(names)) < len(names):
        raise AmesError(f"features {', '.join(names)}: give each once")
    return StoredFeatures(feature_files(folder, asked, split), {x.name: x.count for x in asked})


def _feature(text: str) -> FeatureSpec:
    name, _, count = text.partition(":")
    kind = next((kind for kind in (LOCAL, GLOBAL) if name.endswith(f"_{kind}")), None)
    if kind is None or (count and (kind == GLOBAL or not count.isdecimal())):
        raise AmesError(f"features: {text!r} is none of NAME_global, NAME_local, NAME_local:COUNT")
    return FeatureSpec(name, kind, 0, int(count) if count else None)


def build_fusion(config: DictConfig, specs: Sequence[FeatureSpec]) -> FeatureEmbedder:
    """Build ``config.fusion`` for these features."""
    found = _instantiate(config, "fusion", features=[x.to_dict() for x in specs])
    if not isinstance(found, FeatureEmbedder):
        raise AmesError(f"fusion._target_ is {config.fusion._target_!r}: give a fusion of conf/fusion")
    return found


def build_network(config: DictConfig, *, replaced: bool = False) -> GlobalNetwork:
    """Build ``config.network``, with the weights of ``trunk_weights``.

    replaced: other weights are loaded next. If not, AmesError for a backbone of the library without weights:
    its own random ones are for tests (maps of an EfficientNet-Lite are then below what GeM can see).
    """
    network = _instantiate(config, "network")
    if not isinstance(network, GlobalNetwork):
        raise AmesError(f"network._target_ is {config.network._target_!r}: give a network of conf/network")
    weights, name = config.trunk_weights, network.arguments["trunk"]
    if weights is None and name not in FROM_SCRATCH and not replaced:
        raise AmesError(
            f"trunk {name} has no weights yet: give trunk_weights=published, or a file of an embedder"
        )
    if weights == PUBLISHED:
        trunk = build_trunk(name, network.arguments["width"], weights=PUBLISHED)
        network.backbone.load_state_dict(trunk.module.state_dict())
    elif weights is not None:
        load_trunk(network, Path(str(weights)))
    return network


def _instantiate(config: DictConfig, key: str, **given: Any) -> Embedder:
    try:
        return hydra.utils.instantiate(config[key], **given)
    except (HydraException, ValueError) as error:
        raise AmesError(f"{key}: {first_line(error.__cause__ or error)}") from error


def augmentation(config: DictConfig) -> Augmentation:
    """Read how views are drawn."""
    numbers = {key: value_of(config, key) for key in ("crop_scale", "jitter")}
    for key, count in (("crop_scale", 2), ("jitter", 4)):
        given = numbers[key]
        if not isinstance(given, list) or len(given) != count or not all(map(_is_number, given)):
            raise AmesError(f"{key} is {given!r}: give a list of {count} numbers")
    return Augmentation(
        scale=tuple(map(float, numbers["crop_scale"])),  # type: ignore[arg-type]
        flip=number(config, "flip"),
        jitter=tuple(map(float, numbers["jitter"])),  # type: ignore[arg-type]
        jitter_probability=number(config, "jitter_probability"),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def training_photos(config: DictConfig, folder: Path, names: Sequence[str], labels: Any) -> TrainingPhotos:
    """Open the images of a training list."""
    return TrainingPhotos(optional_path(config, "images") or folder, names, labels)


def photo_loader(
    config: DictConfig, folder: Path, names: Sequence[str], labels: Any, batch: int
) -> PhotoLoader:
    """Return batches of the training images, one view each."""
    photos = training_photos(config, folder, names, labels)
    views = SquareView(whole(config, "crop_size"), augmentation(config))
    seed, workers = whole(config, "seed", least=0), whole(config, "num_workers", least=0)
    return PhotoLoader(photos, views, batch=batch, seed=seed, workers=workers)


def embedded_search(config: DictConfig) -> EmbeddedSearch | None:
    """Open ``val_dataset``; None where none is given."""
    val = validation_set(config)
    if val is None:
        return None
    return EmbeddedSearch.open(
        dataset_path(config, val),
        protocols(val),
        images=optional_path(config, "val_images"),
        ground_truth=file_name(val, "test_gnd_file"),
        workers=whole(config, "num_workers", least=0),
    )


def validation(
    config: DictConfig, sides: Callable[[M], tuple[Embedder, Embedder]], model: M
) -> Callable[[M], Validation] | None:
    """Return what measures mAP on val_dataset with the (query, gallery) embedders of a model; None where no
    set is given. What ``model`` reads of it is opened at once.
    """
    test = embedded_search(config)
    if test is None:
        return None
    for side, split in zip(sides(model), SPLITS, strict=True):
        test.prepare(side, split)

    def validate(trained: M) -> Validation:
        metrics = test.metrics(*sides(trained))
        return Validation(metrics, metrics["val_map"])

    return validate
