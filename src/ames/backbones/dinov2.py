"""DINOv2 (Oquab et al., TMLR 2024), with registers (Darcet et al., ICLR 2024) and without: ViT-S to g.

AMES' descriptors are those of ViT-B with registers at 770 pixels. Positions of other grids are interpolated
as the authors' hub does it for the released weights. With registers: bicubic, antialiased, no offset, which
transformers does likewise. Without: bicubic, not antialiased, and 0.1 patches are added to each side, by
which the original code kept its rounding right. transformers leaves that out, so it is computed here.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ames.backbones.dinov2_files import check_registers, fit_config, key_mappings, released_names
from ames.backbones.pretrained import IMAGENET_MEAN, IMAGENET_STD, rename_state_dict
from ames.backbones.vit import Size, VisionTransformer

OFFSET = 0.1  # patches that are added to each side of the grid, of networks without registers


def _sizes(hub: str, names: tuple[str, str, str, str], **more: Any) -> dict[str, Size]:
    small, base, large, giant = names
    more |= {"patch_size": 14, "image_size": 518}
    return {
        base: Size.of(f"{hub}-base", 768, 12, 12, **more),
        small: Size.of(f"{hub}-small", 384, 12, 6, **more),
        large: Size.of(f"{hub}-large", 1024, 24, 16, **more),
        giant: Size.of(f"{hub}-giant", 1536, 40, 24, use_swiglu_ffn=True, **more),
    }


class DinoV2(VisionTransformer):
    """Global vector: the class token after the final norm; the map: the patch tokens after it.

    Weights are also a training checkpoint of DINOv2's code (``ames.backbones.dinov2_files``).
    """

    SIZES: ClassVar = _sizes(
        "facebook/dinov2-with-registers",
        ("dinov2-s", "dinov2", "dinov2-l", "dinov2-g"),
        num_register_tokens=4,
    )
    _model = "Dinov2WithRegistersModel"
    _config = "Dinov2WithRegistersConfig"

    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    long_side = 770

    def _from_authors(self, state: dict[str, Tensor], config: Any, source: str) -> dict[str, Tensor]:
        state = released_names(state, source=source)
        check_registers(state, config, source=source)
        fit_config(config, state, source=source)
        return rename_state_dict(key_mappings(config), state, source=source)


class DinoV2Plain(DinoV2):
    """The networks without registers."""

    SIZES: ClassVar = _sizes(
        "facebook/dinov2", ("dinov2-s-noreg", "dinov2-b-noreg", "dinov2-l-noreg", "dinov2-g-noreg")
    )
    _model = "Dinov2Model"
    _config = "Dinov2Config"

    def _forward(self, images: Tensor) -> Any:
        embeddings = self.network.embeddings
        patches = embeddings.patch_embeddings(images)
        grid = (images.shape[-2] // self.patch, images.shape[-1] // self.patch)
        tokens = torch.cat([embeddings.cls_token.expand(len(images), -1, -1), patches], dim=1)
        tokens = tokens + interpolated(embeddings.position_embeddings, grid)
        last = self.network.layernorm(self.network.encoder(tokens).last_hidden_state)
        return SimpleNamespace(last_hidden_state=last, pooler_output=last[:, 0])


def interpolated(positions: Tensor, grid: tuple[int, int], offset: float = OFFSET) -> Tensor:
    """Return positions [1, 1 + rows * columns, D] of a grid (rows, columns) from [1, 1 + n * n, D].

    The class token's stays. Cell i of the grid is read at (i + 1/2) n / (side + offset) - 1/2 of the n cells,
    by a bicubic kernel (A = -0.75) without antialiasing. The grid n x n itself is not changed.
    """
    side = math.isqrt(positions.shape[1] - 1)
    if grid == (side, side):
        return positions
    cells = positions[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = tuple((n + offset) / side for n in grid)
    cells = F.interpolate(cells, scale_factor=scale, mode="bicubic", recompute_scale_factor=False)
    return torch.cat([positions[:, :1], cells.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)
