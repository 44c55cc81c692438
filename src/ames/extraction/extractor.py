"""Photos to features, in memory: the extractor for programs. ``ames.extraction.pipeline`` writes files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ames.backbones import NAMES, is_backbone
from ames.backbones.base import ImageFeatures
from ames.backbones.choice import chosen, default_backbone
from ames.errors import AmesError, unknown
from ames.extraction.base import BaseExtractor, ImageRegion
from ames.extraction.config import ExtractionConfig
from ames.extraction.factory import build_extractor
from ames.extraction.preprocessing import Box
from ames.features import LocalFeatures
from ames.io.console import check_device
from ames.models.registry import MODELS

log = logging.getLogger(__name__)
_CHANNELS = ((), (3,), (4,))

# A file, pixels uint8 [H, W, 3] RGB (or grey [H, W], or with transparency [H, W, 4]), or a PIL image.
Photo: TypeAlias = Any


class Extractor:
    """Makes local features and a global vector of photos.

    name: a backbone, or a model of ``list_models``, whose backbone, detector and settings are then taken.
    None: ``ames.backbones.choice.default_backbone``.
    detector: a file that says which locations of a network count, or the name of a released one. device:
    torch's name. Other options are those of ``ames.extraction.config.ExtractionConfig``; ``embedder`` is the
    file of what gives the global vector in place of the backbone, and ``side`` its side.
    """

    def __init__(
        self,
        name: str | None = None,
        detector: Path | str | None = None,
        *,
        device: str = "cpu",
        **options: Any,
    ) -> None:
        check_device(device, option="device")
        if name is None:
            name = default_backbone()
            log.info("%s", chosen(name))
        self._extractor = build_extractor(preset_config(name, detector=detector, device=device, **options))
        self.name = self._extractor.name

    @property
    def config(self) -> ExtractionConfig:
        """The options, with what was left open filled in."""
        return self._extractor.config

    def __call__(self, photos: Photo | Iterable[Photo]) -> ImageFeatures:
        """Return the features of a photo: local [N, D], vector float32 [G]. Of several: [B, N, D] and [B, G].

        A photo without keypoints has N = 0 and a zero vector. AmesError names a photo that cannot be read.
        """
        if _is_photo(photos):
            return self._extract([photos])[0]
        if not isinstance(photos, Iterable) or isinstance(photos, bytes):
            kind = type(photos).__name__
            raise AmesError(f"photos: a {kind}; give a path, an array, a PIL image, or several")
        many = list(photos)
        if not many:
            raise AmesError("no photos: give at least one")
        found = self._extract(many)
        vectors = None if found[0].vector is None else np.stack([x.vector for x in found])  # type: ignore[misc]
        local = LocalFeatures.stack([x.local for x in found])
        return ImageFeatures(local, vectors, self.name, found[0].space)

    def _extract(self, photos: list[Photo]) -> list[ImageFeatures]:
        return extract_photos(self._extractor, photos)


def extract_photos(
    extractor: BaseExtractor, photos: list[Photo], boxes: Sequence[Box | None] | None = None
) -> list[ImageFeatures]:
    """Return the features of each photo, local ones packed where the extractor packs.

    boxes: x1, y1, x2, y2 of what is extracted of each, in pixels; None: all of it.
    """
    boxes = [None] * len(photos) if boxes is None else [_checked(box) for box in boxes]
    regions = [
        ImageRegion(_opened(photo, place), box)
        for place, (photo, box) in enumerate(zip(photos, boxes, strict=True))
    ]
    (found,) = extractor.chunks(regions, len(regions))
    features = []
    for place, result in enumerate(found):
        if isinstance(result, str):
            raise AmesError(f"{_named(photos[place], place)}: {result}")
        local, space = extractor.pack(result.local), extractor.provenance.space
        features.append(ImageFeatures(local, result.vector, extractor.name, space))
    return features


def _checked(box: Any) -> Box | None:
    """AmesError unless a box has four numbers."""
    if box is None:
        return None
    try:
        left, top, right, bottom = (float(side) for side in box)
    except (TypeError, ValueError):
        raise AmesError(f"box {box!r}: give four numbers, x1, y1, x2, y2 in pixels") from None
    return left, top, right, bottom


def preset_config(
    name: str, *, detector: Path | str | None = None, device: str = "cpu", **options: Any
) -> ExtractionConfig:
    """Return the options of a backbone, or of the backbone of a model of the table, with others changed."""
    preset: dict[str, Any] = {}
    if not isinstance(name, str):
        raise AmesError(f"backbone or model is a {type(name).__name__}: give a name")
    if name in MODELS:
        entry = MODELS[name]
        if entry.backbone is None:
            raise AmesError(f"model {name} takes any descriptors: name the backbone, such as rootsift")
        preset = {"backbone": entry.backbone, **entry.extraction}
    elif is_backbone(name):
        preset = {"backbone": name}
    else:
        raise AmesError(unknown("backbone or model", name, [*NAMES, *MODELS]))
    given = preset | options | {"device": device} | ({} if detector is None else {"detector": detector})
    known = ExtractionConfig.__dataclass_fields__
    for option in given:
        if option not in known:
            raise AmesError(unknown("option", option, known))
    if given.get("detector") is not None:
        given["detector"] = detector_path(given["detector"])
    if given.get("embedder") is not None:
        given["embedder"] = Path(given["embedder"])
    return ExtractionConfig(**{"workers": 0} | given)


def detector_path(detector: Path | str) -> Path:
    """Return the file of a detector, downloaded if it is the name of a released one."""
    from ames.weights.released import OTHERS, fetch

    if str(detector) in OTHERS and not os.path.exists(detector):
        return fetch(f"networks/{detector}.pt")
    return Path(detector)


def _is_photo(given: Any) -> bool:
    return isinstance(given, (str, os.PathLike, np.ndarray)) or _is_pil(given)


def _is_pil(given: Any) -> bool:
    return hasattr(given, "getexif") and hasattr(given, "convert")


def _opened(photo: Photo, place: int) -> Path | np.ndarray:
    if isinstance(photo, (str, os.PathLike)):
        return Path(photo)
    if _is_pil(photo):
        from PIL import ImageOps

        photo = np.asarray(ImageOps.exif_transpose(photo).convert("RGB"))
    if not isinstance(photo, np.ndarray):
        raise AmesError(f"photo {place}: a {type(photo).__name__}; give a path, an array or a PIL image")
    if photo.dtype != np.uint8 or not photo.size or photo.ndim < 2 or photo.shape[2:] not in _CHANNELS:
        expected = "expected uint8 [H, W, 3] RGB, or [H, W]"
        raise AmesError(f"photo {place}: {photo.dtype} {list(photo.shape)}; {expected}")
    if photo.ndim == 2:
        photo = np.repeat(photo[..., None], 3, axis=2)
    return np.ascontiguousarray(photo[..., 2::-1])  # BGR, as files are read; transparency is dropped


def _named(photo: Photo, place: int) -> str:
    return str(photo) if isinstance(photo, (str, os.PathLike)) else f"photo {place}"
