"""DINOv3 (Simeoni et al., 2025): ViT-S, B and L trained on LVD-1689M, patches of 16, rotary positions."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ames.backbones.pretrained import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    KeyMapping,
    layer_mappings,
    rename_state_dict,
)
from ames.backbones.vit import Size, VisionTransformer
from ames.errors import AmesError


def _size(letter: str, width: int, layers: int, heads: int) -> Size:
    more = {"intermediate_size": 4 * width, "num_register_tokens": 4}
    return Size.of(f"facebook/dinov3-vit{letter}16-pretrain-lvd1689m", width, layers, heads, **more)


class DinoV3(VisionTransformer):
    """Global vector: the class token after the final norm; the map: the patch tokens after it.

    The hub gives its weights after a licence is agreed to. 768 is the multiple of 16 next to AMES' 770.
    """

    SIZES: ClassVar = {
        "dinov3-s": _size("s", 384, 12, 6),
        "dinov3-b": _size("b", 768, 12, 12),
        "dinov3-l": _size("l", 1024, 24, 16),
    }
    _model = "DINOv3ViTModel"
    _config = "DINOv3ViTConfig"

    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    long_side = 768

    def _from_authors(self, state: dict[str, Tensor], config: Any, source: str) -> dict[str, Tensor]:
        found = rename_state_dict(key_mappings(config), state, source=source)
        # Neither has a place in transformers' network, which computes the periods and has no bias of keys, so
        # that the file has to mean the same. Released periods are rounded to bfloat16.
        if not torch.allclose(found.pop(_PERIODS), _periods(config), rtol=0.01):
            raise AmesError(f"{source}: weights of another model: rope_embed.periods are others")
        for name in [name for name in found if name.endswith(_MASK)]:
            if found.pop(name).any():
                raise AmesError(f"{source}: weights of another model: its keys have a bias ({name})")
        found[_TOKEN] = found[_TOKEN][None]
        return found

    def _rotated(self, keys: Tensor, images: Tensor) -> Tensor:
        cos, sin = self.network.rope_embeddings(images)
        others, patches = keys[:, :, : self.first], keys[:, :, self.first :]
        one, two = patches.chunk(2, dim=-1)
        return torch.cat([others, patches * cos + torch.cat([-two, one], dim=-1) * sin], dim=2)


_TOKEN = "embeddings.mask_token"
_PERIODS = "rope periods"
_MASK = "key bias mask"


def key_mappings(config: Any) -> list[KeyMapping]:
    """The tensors of a released dinov3_vit*16_pretrain_lvd1689m*.pth, and their names in the hub's files."""
    D, hidden, patch = config.hidden_size, config.intermediate_size, config.patch_size
    rows = [
        KeyMapping("cls_token", (1, 1, D), ("embeddings.cls_token",)),
        KeyMapping("storage_tokens", (1, config.num_register_tokens, D), ("embeddings.register_tokens",)),
        KeyMapping("mask_token", (1, D), (_TOKEN,)),
        KeyMapping("rope_embed.periods", tuple(_periods(config).shape), (_PERIODS,)),
    ]
    layers = [
        ("patch_embed.proj", "embeddings.patch_embeddings", (D, 3, patch, patch)),
        ("norm", "norm", (D,)),
    ]
    for i in range(config.num_hidden_layers):
        old, new = f"blocks.{i}.", f"layer.{i}."
        q, k, v = (f"{new}attention.{letter}_proj" for letter in "qkv")
        rows += [
            KeyMapping(old + "attn.qkv.weight", (3 * D, D), (f"{q}.weight", f"{k}.weight", f"{v}.weight")),
            KeyMapping(old + "attn.qkv.bias", (3 * D,), (f"{q}.bias", "", f"{v}.bias")),
            KeyMapping(old + "attn.qkv.bias_mask", (3 * D,), ("", f"{new}{_MASK}", "")),
        ]
        rows += [KeyMapping(f"{old}ls{n}.gamma", (D,), (f"{new}layer_scale{n}.lambda1",)) for n in (1, 2)]
        layers += [
            (old + "norm1", new + "norm1", (D,)),
            (old + "attn.proj", new + "attention.o_proj", (D, D)),
            (old + "norm2", new + "norm2", (D,)),
            (old + "mlp.fc1", new + "mlp.up_proj", (hidden, D)),
            (old + "mlp.fc2", new + "mlp.down_proj", (D, hidden)),
        ]
    return rows + [row for old, new, shape in layers for row in layer_mappings(old, new, shape)]


def _periods(config: Any) -> Tensor:
    """float [d / 4] of the rotations, for heads of d dimensions: powers of the base from 0 up to 1."""
    width = config.hidden_size // config.num_attention_heads
    return float(config.rope_theta) ** torch.arange(0, 1, 4 / width)
