"""The extractor that a configuration describes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any

from ames.backbones import make_backbone
from ames.backbones.base import KeypointBackbone, MapBackbone
from ames.backbones.composed import Composed
from ames.backbones.cvnet import CvNet
from ames.backbones.detector import load_detector
from ames.errors import AmesError
from ames.extraction.base import BaseExtractor
from ames.extraction.batched import BatchedExtractor
from ames.extraction.config import ExtractionConfig
from ames.extraction.process_pool import PoolExtractor

RANDOM = "random"  # untrained weights, to measure times
# Options that backbones without a network accept, too.
_FOR_ALL = (
    *("backbone", "desc_num", "dtype", "overwrite", "max_pixels", "workers", "pack"),
    *("coordinates", "batch_size", "device"),
)
# Those of networks that find points. In 16 bits scores tie, and of points that tie none is the highest.
_FOR_KEYPOINTS = (*_FOR_ALL, "weights", "long_side", "scales", "vector")


def build_extractor(config: ExtractionConfig) -> BaseExtractor:
    """Build it; AmesError names an option that the backbone has no use for, or cannot serve."""
    options: dict[str, Any] = {}
    if config.weights is not None:
        options["weights"] = None if config.weights == RANDOM else config.weights
    if config.weight_by == "attention":
        options["attention"] = True
    backbone = make_backbone(config.backbone, vector=config.vector != "none", **options)
    if isinstance(backbone, (KeypointBackbone, Composed)):
        _check_options(config, _FOR_KEYPOINTS, "finds points in fp32, not cells of maps")
        if config.vector not in ("cls", "none"):
            raise AmesError(f"backbone {config.backbone}: global {config.vector}: take cls (its own) or none")
        return BatchedExtractor(backbone, config)
    if not isinstance(backbone, MapBackbone):
        _check_options(config, _FOR_ALL, "is no network")
        return PoolExtractor(backbone, config)
    if config.vector == "superglobal":
        if not isinstance(backbone, CvNet):
            name = config.backbone
            raise AmesError(f"backbone {name}: global superglobal is CVNet's; take cls, average or gem")
        backbone.superglobal = True
    detector = None if config.detector is None else load_detector(config.detector, backbone=backbone.name)
    return BatchedExtractor(backbone, config, detector)


def _check_options(config: ExtractionConfig, known: Collection[str], why: str) -> None:
    """AmesError names the first option that is set and not ``known``."""
    for option in fields(config):
        if option.name not in known and getattr(config, option.name) != option.default:
            word = "global" if option.name == "vector" else option.name.replace("_", "-")
            raise AmesError(f"backbone {config.backbone}: {why}; leave {word} out")
