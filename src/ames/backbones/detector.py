"""The feature detector: how much each location of a feature map says about what the image shows.

A 1 x 1 convolution, batch normalization, ReLU and a second 1 x 1 convolution with softplus give one weight a
location: attention as in DELF (Noh et al., ICCV 2017) and DELG (Cao et al., ECCV 2020). What the first two
give, L2-normalized, are the projected features. ``ames.training.tasks.detector`` trains it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ames.errors import AmesError
from ames.weights.files import read_weights, save_content, weights_for

DETECTOR_INPUTS = ("network", "normalized")
_COUNT = "bn.num_batches_tracked"


class SpatialAttention(nn.Module):
    """The detector of the published files <backbone>_detector.pt, names of parameters included.

    input: the features that trained it, and that it takes: "network" (as a backbone gives them) or
    "normalized" (L2, as files of raw descriptors hold them).
    """

    def __init__(self, width: int, *, input: str = "normalized") -> None:
        super().__init__()
        self.width, self.input = width, input
        self.conv1 = nn.Conv2d(width, width, 1)
        self.bn = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 1, 1)
        nn.init.dirac_(self.conv1.weight)  # training starts from the backbone's features as they are
        nn.init.zeros_(self.conv1.get_parameter("bias"))
        self.register_load_state_dict_pre_hook(_add_count)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """A feature map [B, D, H, W] -> projected features, unit length, [B, D, H, W]; weights [B, H, W]."""
        projected, weights = self.locations(features.movedim(1, -1))
        return projected.movedim(-1, 1), weights

    def locations(self, features: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same for a set of locations: features [..., N, D], any float dtype; valid bool [..., N],
        None: all -> projected features [..., N, D] and weights [..., N], both 0 in padding.

        AmesError for features of another width, and in training mode for fewer than two real ones.
        """
        if features.shape[-1] != self.width:
            raise AmesError(f"descriptors are {features.shape[-1]}-d, but the detector takes {self.width}-d")
        # 1 x 1 convolutions see one location at a time, so that they are matrices here, and padding is left
        # out before the first of them: zeros would draw the batch's mean and variance towards themselves,
        # by as much as the images of a batch differ in size, and evaluation sees images without padding.
        # How many are real is asked of the device, so that nothing is where all of them are.
        x = features.flatten(0, -2) if valid is None else features[valid]  # [n, D]
        x = x.to(self.conv1.weight.dtype)
        if self.training and len(x) < 2:
            raise AmesError(f"a batch of {len(x)} descriptors: the detector's batch normalization needs two")
        x = F.linear(x, self.conv1.weight.flatten(1), self.conv1.bias)
        x = self.bn(x[..., None, None]).flatten(1)
        scores = F.linear(x.relu(), self.conv2.weight.flatten(1), self.conv2.bias)
        found = F.softplus(scores.squeeze(-1))
        unit = F.normalize(x, dim=-1)
        if valid is None:
            return unit.view(features.shape), found.view(features.shape[:-1])
        projected = unit.new_zeros(features.shape).index_put((valid,), unit)
        return projected, found.new_zeros(valid.shape).index_put((valid,), found)


def global_descriptor(projected: Tensor, weights: Tensor) -> Tensor:
    """Features [..., N, D] summed by their weights [..., N] (0 in padding), unit length: [..., D].

    The released extractor's global descriptor, and the aggregation of HOW (Tolias et al., ECCV 2020), there
    with the features' norms as weights. An image without descriptors gives the zero vector.
    """
    return F.normalize((weights[..., None, :] @ projected).squeeze(-2), dim=-1)


def save_detector(
    path: Path | str, detector: SpatialAttention, *, provenance: Mapping[str, object] | None = None
) -> None:
    """A file as the published ones are laid out, {'state', 'about'}; atomic."""
    about = {"detector": {"width": detector.width, "input": detector.input}} | dict(provenance or {})
    save_content(path, {"state": detector.state_dict()}, about)


def load_detector(path: Path | str, *, backbone: str | None = None) -> SpatialAttention:
    """The detector of a published file, or of one that training wrote, in evaluation mode.

    A published file says nothing of itself: it takes features as the network gives them. Files of this
    library that do not name their input were trained on normalized features. AmesError if it is none, or if
    it says that another backbone's features trained it than ``backbone``.
    """
    state = read_detector(path)
    about = read_weights(path).about
    said = about.get("detector")
    taken = (said if isinstance(said, dict) else {}).get("input", "normalized" if about else "network")
    if taken not in DETECTOR_INPUTS:
        raise AmesError(
            f"{path}: its detector takes {taken!r}, which is none of {', '.join(DETECTOR_INPUTS)}"
        )
    if backbone is not None:
        weights_for(backbone, path)
    detector = SpatialAttention(len(state["conv1.bias"]), input=taken)
    detector.load_state_dict(state)
    return detector.eval()


def read_detector(path: Path | str) -> dict[str, Tensor]:
    """A published feature detector, <backbone>_detector.pt: conv1 -> batch norm -> ReLU -> conv2.

    -> conv1.weight [D, D, 1, 1], conv1.bias, bn.{weight, bias, running_mean, running_var} [D] and
    conv2.weight [1, D, 1, 1], conv2.bias [1], float32. AmesError names what is missing or of another shape.
    """
    state = read_weights(path).state
    name = "conv1.weight"
    D = state[name].shape[0] if name in state and state[name].ndim else 0
    norm = {f"bn.{part}": (D,) for part in ("weight", "bias", "running_mean", "running_var")}
    wanted = (
        {name: (D, D, 1, 1), "conv1.bias": (D,)} | norm | {"conv2.weight": (1, D, 1, 1), "conv2.bias": (1,)}
    )
    for key, shape in wanted.items():
        if key not in state:
            raise AmesError(f"{path}: not a feature detector: it lacks {key}")
        if tuple(state[key].shape) != shape:
            raise AmesError(
                f"{path}: not a feature detector: {key} is {tuple(state[key].shape)}, expected {shape}"
            )
    surplus = sorted(set(state) - set(wanted) - {"bn.num_batches_tracked"})
    if surplus:
        raise AmesError(f"{path}: not a feature detector: {surplus[0]} has no place in it")
    return {key: state[key] for key in wanted}


def _add_count(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Some files lack the number of batches, which is only counted: the momentum is a constant."""
    state.setdefault(prefix + _COUNT, torch.tensor(0))
