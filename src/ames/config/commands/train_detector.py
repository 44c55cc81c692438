"""Train a feature detector: what src/train_detector.py and ``ames train-detector`` do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hydra
from omegaconf import DictConfig

from ames.backbones.detector import SpatialAttention, load_detector
from ames.config import evaluation as door
from ames.config import training
from ames.config.launch import CONF, launch, run
from ames.config.values import file_name
from ames.descriptors.local import check_backbone
from ames.evaluation.pooled_search import PooledSearch
from ames.evaluation.protocols import left_out, query_counts
from ames.training import Validation
from ames.training.distributed import Ranks
from ames.training.tasks.detector import DetectorRecipe, DetectorTask


def build(config: DictConfig, ranks: Ranks) -> tuple[DetectorTask, dict[str, Any]]:
    folder, descriptors = training.training_set(config)
    first = None
    if config.start_from is not None:
        first = load_detector(config.start_from, backbone=config.desc_name)
        first.input = "normalized"  # what descriptor files hold, whatever trained it before
    recipe = training.read_recipe(DetectorRecipe, config, start_from=first)
    detector = first or SpatialAttention(descriptors.width)
    check_backbone(descriptors, width=detector.width, backbone=config.desc_name)
    loader = training.triplets(config, folder, descriptors, ranks)
    validate = _validation(config, detector, loader.count, ranks)
    provenance = {"backbone": config.desc_name, "descriptors": descriptors.provenance}
    return DetectorTask(detector, loader, recipe, validate=validate), provenance


def _validation(
    config: DictConfig, detector: SpatialAttention, count: int, ranks: Ranks
) -> Callable[[SpatialAttention], Validation] | None:
    """What is measured between epochs: global search on val_dataset; first that of the backbone alone."""
    val = door.validation_set(config)
    if val is None:
        return None
    folder, truth = door.dataset_folder(config, val), file_name(val, "test_gnd_file")
    test = PooledSearch.open(folder, door.protocols(val), ground_truth=truth, count=count)
    for file in (test.queries, test.gallery):
        check_backbone(file, width=detector.width, backbone=config.desc_name)
    if ranks.is_main:
        for line in left_out(query_counts(test.ground_truth, test.protocols)):
            print(f"{folder.name}: {line}")
        print(f"mAP on {folder.name} of the descriptors by equal weights: {test.map(None):.2f}")

    def validate(trained: SpatialAttention) -> Validation:
        metrics = test(trained)
        return Validation(metrics, metrics["val_map"])

    return validate


@hydra.main(config_path=CONF, config_name="detector", version_base="1.3")
def main(config: DictConfig) -> float:
    return run(
        "train_detector", lambda config: training.train(config, build, "detector.pt", "detector"), config
    )


def start() -> None:
    """Run the command with the words of ``sys.argv``."""
    launch("train_detector", main)
