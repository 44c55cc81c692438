"""Vision transformers of the transformers library as feature maps: what DINOv2, DINOv3 and SigLIP share."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ames.backbones.base import FeatureMaps
from ames.backbones.pretrained import (
    PUBLISHED,
    Network,
    fingerprint,
    folder_config,
    folder_state,
    import_transformers,
    load_strict,
    random_init,
    resolve_weights,
)
from ames.errors import AmesError
from ames.weights.files import read_weights

# Settings in which weights of one network agree; a folder's config.json gives the others.
_SIZE = ("hidden_size", "num_hidden_layers", "num_attention_heads")


class Size(NamedTuple):
    """A published network: its name on the hub, and what differs from its configuration's defaults."""

    hub: str
    config: dict[str, Any]

    @classmethod
    def of(cls, hub: str, width: int, layers: int, heads: int, **more: Any) -> Size:
        config = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
        return cls(hub, config | more)


class VisionTransformer(Network):
    """Patch tokens after the final norm as the map, a token or a pooled head as the global vector.

    name: one of ``SIZES``, recorded in files. weights: a file of the authors (.pth), a Hugging Face folder, a
    name of the hub, ``PUBLISHED``, or None: random ones from ``seed``. attention: whether ``maps`` gives
    weights. config: a transformers configuration of another network. AmesError names the first size or tensor
    that does not fit.
    """

    SIZES: ClassVar[Mapping[str, Size]]
    _model: ClassVar[str]  # names in transformers
    _config: ClassVar[str]
    _class_token: ClassVar[bool] = True  # before the patches' tokens

    def __init__(
        self,
        name: str,
        *,
        weights: str | Path | None = PUBLISHED,
        attention: bool = False,
        seed: int = 0,
        config: Any = None,
    ) -> None:
        super().__init__(name)
        kind, config_kind = (getattr(import_transformers(), x) for x in (self._model, self._config))
        config = copy.deepcopy(config) or config_kind(**self.SIZES[name].config)
        if weights is None:
            network, self.weights = random_init(kind, config, seed), f"random seed {seed}"
        else:
            path = resolve_weights(weights, self.SIZES[name].hub)
            if path.is_dir():
                config = _same_size(folder_config(path, config_kind), config, path)
                state = self._own_tensors(folder_state(path))
            else:
                state = self._from_authors(read_weights(path).state, config, str(path))
            network, self.weights = load_strict(kind, config, state, source=str(path)), fingerprint(path)
        self.attention = attention
        self.network = network.eval()
        self.patch: int = config.patch_size
        self.multiple = self.patch
        self.local_dim = self.global_dim = config.hidden_size
        # Token of the first patch.
        self.first = int(self._class_token) + getattr(config, "num_register_tokens", 0)
        self.eval()

    def maps(self, images: Tensor) -> FeatureMaps:
        """images float [B, 3, H, W] -> maps of H / patch rows and W / patch columns.

        AmesError for sides that are no multiples of the patch.
        """
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch or not height or not width:
            raise AmesError(f"images are {height} x {width} pixels: sides must be multiples of {self.patch}")
        grid = (height // self.patch, width // self.patch)
        with self._noting_attention(images) as noted:
            found = self._forward(images)
        local = found.last_hidden_state[:, self.first :].transpose(1, 2).unflatten(2, grid)
        weight = noted[0].unflatten(1, grid) if self.attention else None
        return FeatureMaps(local, found.pooler_output, weight)

    def centers(self, rows: int, columns: int, height: int, width: int) -> Tensor:
        """float [rows, columns, 2]: (row, col) of the middle of each patch, in pixels of the network's input.

        Edges are counted, not pixels: the first patch of 14 x 14 lies between 0 and 14, its middle at 7.
        Divided by ``height`` and ``width`` that is the published DINOv2 files' location.
        """
        middles = [(torch.arange(n) + 0.5) * side / n for n, side in ((rows, height), (columns, width))]
        return torch.cartesian_prod(*middles).reshape(rows, columns, 2)

    def _forward(self, images: Tensor) -> Any:
        return self.network(images)

    def _from_authors(self, state: dict[str, Tensor], config: Any, source: str) -> dict[str, Tensor]:
        """Tensors of the authors' file under the names of the hub's files. ``config`` may be changed to what
        the tensors show.
        """
        raise AmesError(f"{source}: weights of {type(self).__name__} are read from a Hugging Face folder")

    def _own_tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """What this network takes of a folder's tensors."""
        return state

    def _rotated(self, keys: Tensor, images: Tensor) -> Tensor:
        """Keys [B, heads, tokens, d] as the attention meets them: with positions, if those turn keys."""
        return keys

    @contextmanager
    def _noting_attention(self, images: Tensor) -> Iterator[list[Tensor]]:
        """Attention of the class token to each patch [B, patches] in the last block, mean over the heads.

        It comes from the projections of that one token: whole attention matrices of all blocks take gigabytes
        at 770 pixels.
        """
        noted: list[Tensor] = []
        if not self.attention:
            yield noted
            return
        projected: dict[str, Tensor] = {}

        def note(kind: str) -> Any:
            return lambda module, inputs, output: projected.update({kind: output})

        layers = list(self.network.named_modules())
        hooks = []
        for kind, names in _PROJECTIONS.items():
            last = [layer for path, layer in layers if path.rpartition(".")[2] in names][-1]
            hooks.append(last.register_forward_hook(note(kind)))
        try:
            yield noted
        finally:
            for hook in hooks:
                hook.remove()
        heads = self.network.config.num_attention_heads
        q, k = (projected[kind].unflatten(2, (heads, -1)).transpose(1, 2) for kind in _PROJECTIONS)
        scores = q[:, :, :1] @ self._rotated(k, images).transpose(2, 3) * q.shape[-1] ** -0.5
        noted.append(scores.float().softmax(-1).mean(1)[:, 0, self.first :])


# What versions of transformers call the projections of an attention.
_PROJECTIONS = {"query": ("q_proj", "query"), "key": ("k_proj", "key")}


def _same_size(found: Any, wanted: Any, folder: Path) -> Any:
    for name in _SIZE:
        has, needs = getattr(found, name), getattr(wanted, name)
        if has != needs:
            raise AmesError(f"{folder}: weights of another model: its {name} is {has}, this one's is {needs}")
    return found
