"""The extractor that a configuration describes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ames.backbones import make_backbone
from ames.backbones.base import MapBackbone
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


def build_extractor(config: ExtractionConfig) -> BaseExtractor:
    """Build it; AmesError names an option that the backbone has no use for, or cannot serve."""
    options: dict[str, Any] = {}
    if config.weights is not None:
        options["weights"] = None if config.weights == RANDOM else config.weights
    if config.weight_by == "attention":
        options["attention"] = True
    backbone = make_backbone(config.backbone, **options)
    if not isinstance(backbone, MapBackbone):
        for option in fields(config):
            if option.name not in _FOR_ALL and getattr(config, option.name) != option.default:
                word = "global" if option.name == "vector" else option.name.replace("_", "-")
                raise AmesError(f"backbone {config.backbone}: is no network; leave {word} out")
        return PoolExtractor(backbone, config)
    if config.vector == "superglobal":
        if not isinstance(backbone, CvNet):
            name = config.backbone
            raise AmesError(f"backbone {name}: global superglobal is CVNet's; take cls, average or gem")
        backbone.superglobal = True
    detector = None if config.detector is None else load_detector(config.detector, backbone=backbone.name)
    return BatchedExtractor(backbone, config, detector)
