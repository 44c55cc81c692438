"""DINOv2 with registers (Oquab et al., TMLR 2024; Darcet et al., ICLR 2024): ViT-S to g, patches of 14.

AMES' descriptors are those of ViT-B at 770 pixels. Positions are interpolated as in the original code for the
networks with registers (bicubic, antialiased, no offset), which transformers does likewise; for those without
registers it does not, and they are not offered.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ames.backbones.pretrained import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    KeyMapping,
    layer_mappings,
    rename_state_dict,
)
from ames.backbones.vit import Size, VisionTransformer


def _size(letter: str, width: int, layers: int, heads: int, **more: Any) -> Size:
    more |= {"patch_size": 14, "image_size": 518, "num_register_tokens": 4}
    return Size.of(f"facebook/dinov2-with-registers-{letter}", width, layers, heads, **more)


class DinoV2(VisionTransformer):
    """Global vector: the class token after the final norm; the map: the patch tokens after it."""

    SIZES: ClassVar = {
        "dinov2": _size("base", 768, 12, 12),
        "dinov2-s": _size("small", 384, 12, 6),
        "dinov2-l": _size("large", 1024, 24, 16),
        "dinov2-g": _size("giant", 1536, 40, 24, use_swiglu_ffn=True),
    }
    _model = "Dinov2WithRegistersModel"
    _config = "Dinov2WithRegistersConfig"

    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    long_side = 770

    def _from_authors(self, state: dict[str, Tensor], config: Any, source: str) -> dict[str, Tensor]:
        return rename_state_dict(key_mappings(config), state, source=source)


def key_mappings(config: Any) -> list[KeyMapping]:
    """The tensors of a released dinov2_vit*14_reg4_pretrain.pth, and their names in the hub's files."""
    D, patch = config.hidden_size, config.patch_size
    patches = (config.image_size // patch) ** 2
    rows = [
        KeyMapping("cls_token", (1, 1, D), ("embeddings.cls_token",)),
        KeyMapping("pos_embed", (1, 1 + patches, D), ("embeddings.position_embeddings",)),
        KeyMapping("register_tokens", (1, config.num_register_tokens, D), ("embeddings.register_tokens",)),
        KeyMapping("mask_token", (1, D), ("embeddings.mask_token",)),
        *layer_mappings("patch_embed.proj", "embeddings.patch_embeddings.projection", (D, 3, patch, patch)),
    ]
    for i in range(config.num_hidden_layers):
        old, new = f"blocks.{i}.", f"encoder.layer.{i}."
        for norm in ("norm1", "norm2"):
            rows += layer_mappings(old + norm, new + norm, (D,))
        projections = [f"{new}attention.attention.{name}" for name in ("query", "key", "value")]
        for part, shape in (("weight", (3 * D, D)), ("bias", (3 * D,))):
            rows.append(KeyMapping(f"{old}attn.qkv.{part}", shape, tuple(f"{x}.{part}" for x in projections)))
        rows += layer_mappings(old + "attn.proj", new + "attention.output.dense", (D, D))
        for number in (1, 2):
            rows.append(KeyMapping(f"{old}ls{number}.gamma", (D,), (f"{new}layer_scale{number}.lambda1",)))
        hidden = int(D * config.mlp_ratio)
        if config.use_swiglu_ffn:
            hidden = (int(hidden * 2 / 3) + 7) // 8 * 8  # of the original SwiGLUFFNFused
            rows += layer_mappings(old + "mlp.w12", new + "mlp.weights_in", (2 * hidden, D))
            rows += layer_mappings(old + "mlp.w3", new + "mlp.weights_out", (D, hidden))
        else:
            rows += layer_mappings(old + "mlp.fc1", new + "mlp.fc1", (hidden, D))
            rows += layer_mappings(old + "mlp.fc2", new + "mlp.fc2", (D, hidden))
    return [*rows, *layer_mappings("norm", "layernorm", (D,))]
