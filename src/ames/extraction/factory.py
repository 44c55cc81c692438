"""The extractor that a configuration describes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from typing import Any

from ames.backbones import NETWORKS, make_backbone
from ames.backbones.base import KeypointBackbone, MapBackbone
from ames.backbones.composed import Composed
from ames.backbones.cvnet import CvNet
from ames.backbones.detector import load_detector
from ames.errors import AmesError
from ames.extraction.base import BaseExtractor
from ames.extraction.batched import BatchedExtractor
from ames.extraction.config import KEYPOINTS, LOCATIONS, ExtractionConfig
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
    """Build it; AmesError names an option that the backbone has no use for, or cannot serve, and a feature
    of the embedder that no backbone gives as it takes it.
    """
    if config.embedder is not None:
        return _embedded(config, config.backbone)
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
        shown = replace(config, vector="cls") if config.vector == "none" else config
        _check_options(shown, _FOR_ALL, "is no network")
        return PoolExtractor(backbone, config)
    if config.vector == "superglobal":
        if not isinstance(backbone, CvNet):
            name = config.backbone
            raise AmesError(f"backbone {name}: global superglobal is CVNet's; take cls, average or gem")
        backbone.superglobal = True
    detector = None if config.detector is None else load_detector(config.detector, backbone=backbone.name)
    return BatchedExtractor(backbone, config, detector)


def build_vector_extractor(config: ExtractionConfig) -> BaseExtractor:
    """Build what gives the vectors of ``config.embedder`` alone. ``config.backbone`` is not used."""
    return _embedded(config, None)


def _embedded(config: ExtractionConfig, kept: str | None) -> BaseExtractor:
    """Build the extractor of an embedder's vectors. kept: the backbone of local features that are kept."""
    # A search without an embedder does not load h5py.
    from ames.embedders.base import FeatureEmbedder, ImageEmbedder
    from ames.embedders.checkpoints import load_embedder
    from ames.extraction.embedded import FeatureEmbedded, ImageEmbedded, feature_backbones

    assert config.embedder is not None
    embedder = load_embedder(config.embedder, config.side)
    local = replace(config, embedder=None, side=None, vector="none")
    if isinstance(embedder, ImageEmbedder):
        return ImageEmbedded(embedder, config, None if kept is None else build_extractor(local))
    assert isinstance(embedder, FeatureEmbedder)
    extractors = {}
    for name, count in feature_backbones(embedder, config.embedder).items():
        own = replace(local, vector="cls")
        if name != kept:
            shared = {key: getattr(config, key) for key in ("max_pixels", "workers", "batch_size", "device")}
            own = ExtractionConfig(backbone=name, **shared)
        # A vector may depend on how many local descriptors there are (VLAD): never fewer than by default.
        most = max(_default_count(name), own.desc_num or 1, count or 1)
        extractors[name] = build_extractor(replace(own, desc_num=most))
    if kept is not None:
        config = replace(config, desc_num=config.desc_num or _default_count(kept))
        if kept not in extractors:
            extractors[kept] = build_extractor(local)
    return FeatureEmbedded(embedder, config, extractors, kept)


def _default_count(backbone: str) -> int:
    family = NETWORKS.get(backbone)
    return LOCATIONS if family is not None and issubclass(family, MapBackbone) else KEYPOINTS


def _check_options(config: ExtractionConfig, known: Collection[str], why: str) -> None:
    """AmesError names the first option that is set and not ``known``."""
    for option in fields(config):
        if option.name not in known and getattr(config, option.name) != option.default:
            word = "global" if option.name == "vector" else option.name.replace("_", "-")
            raise AmesError(f"backbone {config.backbone}: {why}; leave {word} out")
