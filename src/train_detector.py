"""Train a feature detector: python src/train_detector.py data_root=DIR desc_name=NAME [key=value ...]."""

from __future__ import annotations

import hydra
import torch
from omegaconf import DictConfig

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.backbones.detector import SpatialAttention, load_detector
from ames.config import evaluation as door
from ames.config import training
from ames.config.launch import launch, run
from ames.config.values import file_name, read_fields, whole
from ames.descriptors.local import DescriptorFile, check_backbone
from ames.evaluation.global_search import PooledSearch
from ames.evaluation.protocols import left_out, query_counts
from ames.training.detector import DetectorRecipe, fit_detector
from ames.training.distributed import single_process


def train(config: DictConfig) -> float:
    seed = whole(config, "seed", least=0)
    torch.manual_seed(seed)
    ranks = single_process()
    out = training.trained_file(config, "detector.pt", ranks)
    checkpoints = training.checkpoints(config, out)
    recipe = read_fields(DetectorRecipe, config)
    folder = door.dataset_folder(config, door.read_dataset(config, "train_dataset"))
    descriptors = DescriptorFile(folder.local())
    if config.start is None:
        detector = SpatialAttention(descriptors.width)
    else:
        detector = load_detector(config.start, backbone=config.desc_name)
        detector.input = "normalized"  # what descriptor files hold, whatever trained it before
    check_backbone(descriptors, width=detector.width, backbone=config.desc_name)
    loader = training.triplets(config, folder, descriptors, ranks, seed=seed)
    with training.exclusive_output(out, ranks):
        history = fit_detector(
            detector,
            loader,
            recipe,
            out=out,
            device=door.device(config),
            validate=_validation(config, detector, loader.count),
            provenance={"backbone": config.desc_name, "descriptors": descriptors.provenance},
            checkpoints=checkpoints,
        )
    print(f"loss {history[-1]['loss']:.4f}, accuracy {history[-1]['accuracy']:.3f}; detector: {out}")
    return history[-1]["loss"]


def _validation(config: DictConfig, detector: SpatialAttention, count: int) -> PooledSearch | None:
    """What is measured between epochs: global search on val_dataset; first that of the backbone alone."""
    val = door.validation_set(config)
    if val is None:
        return None
    folder, truth = door.dataset_folder(config, val), file_name(val, "test_gnd_file")
    test = PooledSearch.open(folder, door.protocols(val), ground_truth=truth, count=count)
    for line in left_out(query_counts(test.ground_truth, test.protocols)):
        print(f"{folder.name}: {line}")
    for file in (test.queries, test.gallery):
        check_backbone(file, width=detector.width, backbone=config.desc_name)
    print(f"mAP on {folder.name} of the descriptors by equal weights: {test.map(None):.2f}")
    return test


@hydra.main(config_path="../conf", config_name="detector", version_base="1.3")
def main(config: DictConfig) -> float:
    return run("train_detector", train, config)


if __name__ == "__main__":
    launch("train_detector", main)
