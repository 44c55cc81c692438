"""The options of extraction: their names, defaults and bounds, for every command."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ames.backbones.selection import Selection
from ames.datasets.images import MAX_PIXELS
from ames.errors import AmesError

_LEAST = {"desc_num": 1, "max_pixels": 1, "workers": 0, "nms": 1, "long_side": 0, "batch_size": 1}
_WORDS = {
    "dtype": ("float16", "float32"),
    "coordinates": ("normalized", "published"),
    "autocast": ("bf16", "fp16", None),
    "side": ("query", "gallery", None),
}
LOCATIONS = 700  # per image, of maps, as published
KEYPOINTS = 400  # per image, of backbones that find points


@dataclass(frozen=True, kw_only=True)
class ExtractionConfig:
    """How features are made and stored: the commands' options (``--global`` is ``vector``).

    None: the network's own. AmesError names the first value that is out of bounds.

    desc_num: local descriptors per image, at most. dtype: of local descriptors in the file. overwrite:
    replace existing files. pack: a binary model whose codes are stored. workers: processes (of networks:
    threads). max_pixels: of an image that is read. embedder: a file (``ames.embedders.checkpoints``) whose
    embedder of ``side`` gives the global vector in place of the backbone; None: the file's only side.

    The others are for networks. weight_by, descriptors, vector (or "none"), nms, detector_input: as in
    ``ames.backbones.selection.Selection``. detector: its file. long_side, scales: as in
    ``ames.extraction.preprocessing.Sizing``. coordinates: "normalized" (shares of height and width) or
    "published" (pixels where the backbone's published files have them). batch_size: images per batch.
    autocast: "bf16" or "fp16".
    """

    backbone: str = "rootsift"
    desc_num: int | None = None
    dtype: str = "float16"
    overwrite: bool = False
    max_pixels: int = MAX_PIXELS
    workers: int = field(default_factory=lambda: min(os.cpu_count() or 1, 8))
    pack: Path | None = None
    weights: str | None = None
    detector: Path | None = None
    weight_by: str | None = None
    descriptors: str = "raw"
    detector_input: str | None = None
    nms: int = 1
    vector: str = "cls"
    long_side: int | None = None
    scales: tuple[float, ...] | None = None
    coordinates: str = "normalized"
    batch_size: int = 8
    device: str = "cpu"
    autocast: str | None = None
    embedder: Path | None = None
    side: str | None = None

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name in ("desc_num", "long_side"):
                continue
            if type(value) is not int or value < least:
                raise AmesError(f"{name} {value!r} is not a whole number of {least} or more")
        for name, known in _WORDS.items():
            if getattr(self, name) not in known:
                words = ", ".join(word for word in known if word is not None)
                raise AmesError(f"{name} {getattr(self, name)!r} is none of {words}")
        if type(self.overwrite) is not bool:
            raise AmesError(f"overwrite {self.overwrite!r} is neither true nor false")
        if self.embedder is None and self.side is not None:
            raise AmesError(f"side {self.side}: of an embedder, which is not given")
        if self.embedder is not None and self.vector != "cls":
            raise AmesError(f"global {self.vector}: the embedder gives the vector; leave one of them out")
        for scale in self.scales or ():
            if type(scale) not in (int, float) or not 0 < scale <= 16:
                word = f"{scale:g}" if isinstance(scale, float) else scale
                raise AmesError(f"scales {word}: give some above 0, up to 16")
        self.selection()

    def selection(self, detector_input: str = "network") -> Selection:
        """What is taken from a network's maps; detector_input: what the detector's file says."""
        return Selection(
            desc_num=self.desc_num or LOCATIONS,
            weight_by=self.weight_by or ("norm" if self.detector is None else "detector"),
            descriptors=self.descriptors,
            vector=None if self.vector == "none" else self.vector,
            nms=self.nms,
            detector_input=self.detector_input or detector_input,
        )
