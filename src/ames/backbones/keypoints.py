"""Keypoint networks of kornia: what they share, XFeat and DISK. No network is written here.

kornia comes with ``pip install 'ames-retrieval[local]'`` and is loaded when such a network is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ames.backbones.base import KeypointBackbone
from ames.backbones.pretrained import PUBLISHED, fingerprint
from ames.errors import AmesError, first_line, installing
from ames.features import LocalFeatures
from ames.weights.files import load_state, read_weights
from ames.weights.published import published

KORNIA = "0.9"  # whose networks these files were written for


class KorniaNetwork(KeypointBackbone):
    """A network of ``kornia.feature``, in evaluation mode; it can be pickled.

    name: one of ``SIZES``, whose values name the published weights. weights: their file, ``PUBLISHED``
    (``ames.weights.published``), or None: random ones from ``seed``. AmesError names the first tensor that
    does not fit.
    """

    SIZES: ClassVar[Mapping[str, str]]
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def __init__(self, name: str, *, weights: str | Path | None = PUBLISHED, seed: int = 0) -> None:
        super().__init__()
        if name not in self.SIZES:
            raise AmesError(f"{type(self).__name__} {name!r} is none of: {', '.join(self.SIZES)}")
        self.name = name
        features = import_kornia().feature
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = self._build(features)
        self.weights = f"random seed {seed}"
        if weights is not None:
            path = published(self.SIZES[name]) if weights == PUBLISHED else Path(weights).expanduser()
            self._load(path)
            self.weights = fingerprint(path)
        # A tenth less time on a CPU.
        self.network.to(memory_format=torch.channels_last)
        self.eval()

    def provenance(self) -> dict[str, Any]:
        return super().provenance() | {"kornia": import_kornia().__version__}

    def _build(self, features: Any) -> Any:
        """The network, of the module ``kornia.feature``, with random weights."""
        raise NotImplementedError

    def _load(self, path: Path) -> None:
        own = self.network.state_dict()
        # A constant grid, which the files do not have.
        constant = {name: x for name, x in own.items() if name.endswith("hw_grid")}
        load_state(self.network, constant | read_weights(path).state, source=str(path))


class XFeat(KorniaNetwork):
    """XFeat (Potje et al., CVPR 2024): 64-d, the fastest; keypoints are whole pixels."""

    SIZES: ClassVar = {"xfeat": "xfeat"}
    long_side = 640
    multiple = 32
    local_dim = 64

    def _build(self, features: Any) -> Any:
        return features.XFeat()

    def _load(self, path: Path) -> None:
        load_state(self.network.net, read_weights(path).state, source=str(path))

    def keypoints(self, images: Tensor, count: int) -> LocalFeatures:
        """As the interface says; images RGB in 0 ... 1. The score is heatmap times reliability."""
        found = self.network.detectAndCompute(images, top_k=count, detection_threshold=0.0)
        return collected(
            [one["keypoints"].flip(1) + 0.5 for one in found],
            [one["scores"] for one in found],
            [one["descriptors"] for one in found],
        )


class Disk(KorniaNetwork):
    """DISK (Tyszkiewicz et al., NeurIPS 2020): 128-d, the slowest; the score is a logit, below 0 too."""

    SIZES: ClassVar = {"disk": "disk"}
    long_side = 320
    multiple = 16
    local_dim = 128

    def _build(self, features: Any) -> Any:
        return features.DISK()

    def keypoints(self, images: Tensor, count: int) -> LocalFeatures:
        """As the interface says; images RGB in 0 ... 1."""
        if max(images.shape[2:]) <= self.multiple:  # one place of the deepest map, which has no statistics
            empty = images.new_zeros(0)
            return collected(*[[x] * len(images) for x in (empty.view(0, 2), empty, empty.view(0, 128))])
        found = self.network(images, n=count, score_threshold=float("-inf"))
        return collected(
            [one.keypoints.flip(1) + 0.5 for one in found],
            [one.detection_scores for one in found],
            [one.descriptors for one in found],
        )


def import_kornia() -> Any:
    """The module kornia, its features loaded; AmesError says how to install it."""
    try:
        importlib.import_module("kornia.feature")
        kornia = importlib.import_module("kornia")
    except ImportError as error:
        raise AmesError(
            f"this backbone needs kornia, which cannot be loaded ({first_line(error)}): "
            + installing("local")
        ) from error
    if not kornia.__version__.startswith(f"{KORNIA}."):
        raise AmesError(
            f"kornia {kornia.__version__} is installed, and {KORNIA} is needed: " + installing("local")
        )
    return kornia


def collected(
    positions: Sequence[Tensor], scores: Sequence[Tensor], descriptors: Sequence[Tensor]
) -> LocalFeatures:
    """Points of B images, [n, 2], [n] and [n, D] each -> features [B, most, D], highest score first."""
    images = []
    for place, score, descriptor in zip(positions, scores, descriptors, strict=True):
        # Stable, so that equal scores have an order: a resumed run writes the same.
        score, order = score.float().sort(descending=True, stable=True)
        unit = F.normalize(descriptor.float()[order], dim=-1)
        images.append(LocalFeatures.from_descriptors(unit, positions=place.float()[order], weight=score))
    return LocalFeatures.stack(images)
