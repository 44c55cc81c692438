"""Backbones, detectors and binary models as a command names them, made into a source of features."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ames.backbones import make_backbone
from ames.backbones.base import MapBackbone
from ames.backbones.cvnet import CvNet
from ames.backbones.detector import load_detector
from ames.backbones.selection import Selection
from ames.datasets.images import MAX_PIXELS
from ames.errors import AmesError
from ames.extraction.batched import BatchedExtractor, NetworkOptions
from ames.extraction.pipeline import Source
from ames.extraction.preprocessing import Sizing
from ames.extraction.process_pool import PoolExtractor
from ames.models.base import Similarity
from ames.models.checkpoints import load_model
from ames.models.fingerprint import projection_fingerprint
from ames.weights.files import read_weights

RANDOM = "random"  # weights that nobody trained, for trying what takes how long
PUBLISHED_IN_PIXELS = ("cvnet",)  # backbones of whose published files locations are pixels, not shares
_COUNT, _ROOTSIFT_COUNT = 700, 400


@dataclass(frozen=True)
class ExtractionConfig:
    """A source of features in words; what is None is the network's own, or the usual.

    Everything behind ``max_pixels`` is for networks alone (``ames.backbones.selection.Selection``,
    ``ames.extraction.batched.NetworkOptions``). published_locations: as in the backbone's published files.
    """

    backbone: str
    count: int | None = None
    workers: int = 0
    max_pixels: int = MAX_PIXELS
    weights: str | None = None
    detector: Path | None = None
    select: str | None = None
    descriptors: str = "raw"
    detector_input: str | None = None
    suppression: int = 1
    vector: str | None = "cls"
    long_side: int | None = None
    scales: tuple[float, ...] | None = None
    published_locations: bool = False
    batch: int = 8
    device: str = "cpu"
    autocast: str | None = None


_OPTIONS = {"vector": "global", "suppression": "nms"}  # of commands, where they have another name
_FOR_ALL = ("backbone", "count", "workers", "max_pixels", "published_locations", "batch", "device")


def build_extractor(wanted: ExtractionConfig) -> Source:
    """AmesError names a setting that the backbone has no use for, or cannot serve."""
    options: dict[str, Any] = {}
    if wanted.weights is not None:
        options["weights"] = None if wanted.weights == RANDOM else wanted.weights
    if wanted.select == "attention":
        options["attention"] = True
    backbone = make_backbone(wanted.backbone, **options)
    if isinstance(backbone, MapBackbone):
        return _network(backbone, wanted)
    for field in fields(wanted):
        if field.name not in _FOR_ALL and getattr(wanted, field.name) != field.default:
            word = _OPTIONS.get(field.name, field.name.replace("_", " "))
            raise AmesError(f"backbone {wanted.backbone}: is no network; leave {word} out")
    return PoolExtractor(backbone, wanted.count or _ROOTSIFT_COUNT, wanted.workers, wanted.max_pixels)


def _network(network: MapBackbone, wanted: ExtractionConfig) -> BatchedExtractor:
    if wanted.vector == "superglobal":
        if not isinstance(network, CvNet):
            raise AmesError(
                f"backbone {network.name}: global superglobal is CVNet's; take cls, average or gem"
            )
        network.superglobal = True
    detector, taken = None, "network"
    if wanted.detector is not None:
        detector = load_detector(wanted.detector, backbone=network.name)
        # A published file says nothing of itself; this library's are trained on files of normalized ones.
        taken = "normalized" if read_weights(wanted.detector).about else "network"
    selection = Selection(
        wanted.count or _COUNT,
        wanted.select or ("norm" if detector is None else "detector"),
        wanted.descriptors,
        wanted.vector,
        wanted.suppression,
        wanted.detector_input or taken,
    )
    scales = network.scales if wanted.scales is None else wanted.scales
    if not all(0 < scale <= 16 for scale in scales):
        raise AmesError(f"scales {', '.join(f'{x:g}' for x in scales)}: give some above 0, up to 16")
    long_side = network.long_side if wanted.long_side is None else wanted.long_side
    options = NetworkOptions(
        Sizing(long_side, network.multiple, tuple(scales)),
        pixels=wanted.published_locations and network.name in PUBLISHED_IN_PIXELS,
        device=wanted.device,
        autocast=wanted.autocast,
        batch=wanted.batch,
        workers=wanted.workers,
        max_pixels=wanted.max_pixels,
    )
    return BatchedExtractor(network, selection, detector, options)


def open_packer(path: Path, width: int) -> tuple[Similarity, dict[str, Any]]:
    """A binary model for descriptors of ``width`` dimensions, and what is recorded of it.

    AmesError for a full-precision model, or one of another width.
    """
    model = load_model(path)
    if model.code_bits is None:
        raise AmesError(f"{path}: a full-precision model, which has no bits to pack; give a binary one")
    if model.local_dim != width:
        raise AmesError(f"{path}: takes {model.local_dim}-d descriptors, these are {width}-d")
    return model, {"packed_by": path.name, "projection": projection_fingerprint(model)[:16]}
