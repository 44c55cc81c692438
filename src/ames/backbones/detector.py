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
from ames.weights.tensor_names import check_shapes

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
        # 1 x 1 convolutions see one location at a time, so that they are matrices here. Padding is left out
        # before the first of them: its zeros would shift the batch's mean and variance, by as much as the
        # images of a batch differ in size, and evaluation sees images without padding.
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
    """Return the detector of a published file, or of one that training wrote, in evaluation mode.

    A published file does not name its input: it takes features as the network gives them. Files of this
    library that do not name it were trained on normalized features. AmesError for a file that holds no
    detector, or that says that another backbone than ``backbone`` trained it.
    """
    state = read_detector(path)
    about = (read_weights(path) if backbone is None else weights_for(backbone, path)).about
    said = about.get("detector")
    taken = (said if isinstance(said, dict) else {}).get("input", "normalized" if about else "network")
    if taken not in DETECTOR_INPUTS:
        known = ", ".join(DETECTOR_INPUTS)
        raise AmesError(f"{path}: its detector takes {taken!r}, which is none of {known}")
    detector = SpatialAttention(len(state["conv1.bias"]), input=taken)
    detector.load_state_dict(state)
    return detector.eval()


def read_detector(path: Path | str) -> dict[str, Tensor]:
    """Read a published feature detector, <backbone>_detector.pt: conv1 -> batch norm -> ReLU -> conv2.

    -> conv1.weight [D, D, 1, 1], conv1.bias, bn.{weight, bias, running_mean, running_var} [D] and
    conv2.weight [1, D, 1, 1], conv2.bias [1], float32. AmesError names what is missing or of another shape.
    """
    state = read_weights(path).state
    state.pop(_COUNT, None)
    D = next((len(x) for name, x in state.items() if name.startswith("conv1.") and x.ndim), 0)
    shapes = {"conv1.weight": (D, D, 1, 1), "conv1.bias": (D,)}
    shapes |= {f"bn.{part}": (D,) for part in ("weight", "bias", "running_mean", "running_var")}
    shapes |= {"conv2.weight": (1, D, 1, 1), "conv2.bias": (1,)}
    check_shapes(state, shapes, source=str(path), complaint="not a feature detector")
    return state


def _add_count(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Some files lack the number of batches, which has no effect: the momentum is a constant."""
    state.setdefault(prefix + _COUNT, torch.tensor(0))
