"""CVNet's global network (Lee et al., CVPR 2022), a ResNet whose third stage gives AMES' other descriptors.

transformers' ResNet is the same network as pycls', which CVNet was trained with: the stride lies in the
3 x 3 convolutions. It is filled by a table of names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ames.backbones.base import FeatureMaps
from ames.backbones.pooling import THRESHOLD, pooled, relu_p
from ames.backbones.pretrained import (
    PUBLISHED,
    KeyMapping,
    Network,
    fingerprint,
    import_transformers,
    random_init,
    rename_state_dict,
)
from ames.errors import AmesError
from ames.weights.files import read_as_written
from ames.weights.released import fetch, files
from ames.weights.tensor_names import plain_names

_FLOOR = 1e-6  # of the activations that GeM raises to a power
_NORM = ("weight", "bias", "running_mean", "running_var")
_COUNT = "num_batches_tracked"  # for nothing here; some files lack it
_ENCODER = "encoder_q."


class CvNet(Network):
    """name: one of ``SIZES``. weights: a file {'model_state'} of CVNet's authors, ``PUBLISHED`` (ResNet-101
    from the released files of AMES), or None: random ones from ``seed``.

    Of a training checkpoint the query encoder is taken. AmesError names the first tensor that does not fit.
    """

    SIZES: ClassVar = {"cvnet": (3, 4, 23, 3), "cvnet-r50": (3, 4, 6, 3)}

    mean = (0.406, 0.456, 0.485)  # blue first
    std = (0.225, 0.224, 0.229)
    channels = "bgr"
    # What ROxford's and RParis' images have at most: the released extraction leaves their size alone.
    long_side = 1024
    scales = (0.7071, 1.0, 1.4142)
    local_dim = 1024
    global_dim = 2048
    superglobal = (
        False  # True: the vector is SuperGlobal's, by ``ames.backbones.pooling`` and the same weights
    )

    def __init__(self, name: str, *, weights: str | Path | None = PUBLISHED, seed: int = 0) -> None:
        super().__init__(name)
        if weights == PUBLISHED:
            if name != "cvnet":
                raise AmesError(f"{name}: no address of its weights is known: give the authors' file")
            weights = fetch(files()["CVPR2022_CVNet_R101"][0])
        transformers = import_transformers()
        config = transformers.ResNetConfig(depths=self.SIZES[name])
        self.network = random_init(transformers.ResNetModel, config, seed)
        self.network.pooler = nn.Identity()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.fc = nn.Linear(2048, self.global_dim)
        self.p = nn.Parameter(torch.full((1,), 3.0))
        self.weights = f"random seed {seed}"
        if weights is not None:
            path = Path(weights).expanduser()
            self._load(path)
            self.weights = fingerprint(path)
        # The local map is what the third stage's last block gives before its ReLU; maps() applies that.
        self.network.encoder.stages[2].layers[-1].activation = nn.Identity()
        self.eval()

    def maps(self, images: Tensor) -> FeatureMaps:
        """images float [B, 3, H, W], BGR -> map [B, 1024, ceil(H / 16), ceil(W / 16)], vector [B, 2048].

        The vector is GeM of the fourth stage and a linear layer; there is no weight. ``superglobal``: the
        vector is of a pass of its own through the stages, with ReLU-P and SuperGlobal's pooling, so that the
        map stays what it is.
        """
        x = self.network.embedder(images)
        stages = self.network.encoder.stages
        local = stages[2](stages[1](stages[0](x)))
        if self.superglobal:
            return FeatureMaps(local, self.fc(pooled(self._with_relu_p(x))), None)
        deep = stages[3](local.relu())
        plain = deep.clamp(min=_FLOOR).pow(self.p).mean((2, 3)).pow(1 / self.p)
        return FeatureMaps(local, self.fc(plain), None)

    def provenance(self) -> dict[str, Any]:
        found = super().provenance()
        return found | {"pooling": "ReLU-P in the blocks"} if self.superglobal else found

    def _with_relu_p(self, x: Tensor) -> Tensor:
        """The fourth stage's map of the stem's output x, with ReLU-P in place of ReLU behind the blocks of
        the first three stages, and within those of the first, as in SuperGlobal's released code.
        """
        for number, stage in enumerate(self.network.encoder.stages):
            inner, outer = THRESHOLD if number == 0 else 0, THRESHOLD if number < 3 else 0
            for block in stage.layers:
                found = x
                for layer in block.layer[:-1]:
                    found = relu_p(layer.normalization(layer.convolution(found)), inner)
                last = block.layer[-1]
                found = last.normalization(last.convolution(found))
                x = relu_p(found + block.shortcut(x), outer)
        return x

    def centers(self, rows: int, columns: int, height: int, width: int) -> Tensor:
        """float [rows, columns, 2]: (row, col) of the middle of each cell's receptive field, in input pixels.

        DELF's formula, as in the published files: the field of cell i reaches from pixel 16 i - 145 over 291
        pixels. The first pixel has its middle at 0, so that of cell i is at 16 i.
        """
        axes = (torch.arange(n) * 16.0 for n in (rows, columns))
        return torch.cartesian_prod(*axes).reshape(rows, columns, 2)

    def _load(self, path: Path) -> None:
        # The authors' files have these names, so that nothing is said of them.
        found, _ = plain_names(read_as_written(path).state, source=str(path))
        if any(name.startswith(_ENCODER) for name in found):  # beside it: the momentum encoder, the re-ranker
            found = {name.removeprefix(_ENCODER): x for name, x in found.items() if name.startswith(_ENCODER)}
        found = {name: x for name, x in found.items() if not name.endswith(_COUNT)}
        state = self.state_dict()
        names = _names(self.network.config.depths)
        rows = [KeyMapping(old, tuple(state[new].shape), (new,)) for old, new in names.items()]
        self.load_state_dict(state | rename_state_dict(rows, found, source=str(path)))


def _names(depths: Any) -> dict[str, str]:
    """pycls' name of each tensor -> its name in ``CvNet``."""
    layers = {"stem.conv": "embedder.embedder.convolution", "stem.bn": "embedder.embedder.normalization"}
    for s, depth in enumerate(depths):
        for b in range(depth):
            old, new = f"s{s + 1}.b{b + 1}.", f"encoder.stages.{s}.layers.{b}."
            if b == 0:
                layers[f"{old}proj"] = f"{new}shortcut.convolution"
                layers[f"{old}bn"] = f"{new}shortcut.normalization"
            for i, letter in enumerate("abc"):
                layers[f"{old}f.{letter}"] = f"{new}layer.{i}.convolution"
                layers[f"{old}f.{letter}_bn"] = f"{new}layer.{i}.normalization"
    names = {
        f"{old}.{part}": f"network.{new}.{part}"
        for old, new in layers.items()
        for part in (_NORM if old.endswith("bn") else ("weight",))
    }
    return names | {"head.pool.p": "p", "head.fc.weight": "fc.weight", "head.fc.bias": "fc.bias"}
