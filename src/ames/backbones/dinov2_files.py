"""Files of DINOv2's authors: released networks and training checkpoints, under the released names.

A training checkpoint has the network below ``backbone.``, beside heads that only training needs, and may have
its blocks in chunks (``blocks.CHUNK.NUMBER.``, numbers from 0 through all chunks). Its grid of positions and
its patches can be of other sizes than the released ones.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from ames.backbones.pretrained import KeyMapping, layer_mappings
from ames.errors import AmesError
from ames.weights.tensor_names import count_layers, own_tensors

_log = logging.getLogger(__name__)
_NETWORK = "backbone."
_CHUNKED = re.compile(r"blocks\.\d+\.(?=\d+\.)")
_MARKS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.ls1.gamma")  # no other ViT has all

T = TypeVar("T")


def released_names(state: Mapping[str, T], *, source: str) -> dict[str, T]:
    """Return the network's tensors under the released names; one line says what is left out.

    AmesError where two tensors would then have one name.
    """
    own, others = own_tensors(state, _NETWORK)
    if others:
        _log.warning("%s: %d tensors outside of %s (heads) are left out", source, others, _NETWORK[:-1])
    found: dict[str, T] = {}
    for old, x in own.items():
        new = _CHUNKED.sub("blocks.", old, count=1)
        if new in found:
            raise AmesError(f"{source}: holds two tensors {new}: write a file of one network's tensors alone")
        found[new] = x
    return found


def is_dinov2(state: Mapping[str, Tensor]) -> bool:
    """Return whether tensors under released names are a DINOv2 network."""
    return all(name in state for name in _MARKS)


def describe_dinov2(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the sizes of a network's tensors under released names, for ``ames inspect``."""
    positions = state["pos_embed"].shape[-2] - 1
    side = math.isqrt(positions)
    registers = state.get("register_tokens")
    return {
        "kind": "DINOv2 network",
        "width": state["cls_token"].shape[-1],
        "blocks": count_layers(state, "blocks"),
        "patch": state["patch_embed.proj.weight"].shape[-1],
        "positions": f"{side} x {side}" if side * side == positions else str(positions),
        "registers": 0 if registers is None else registers.shape[-2],
        "feed_forward": "SwiGLU" if "blocks.0.mlp.w12.weight" in state else "MLP",
    }


def fit_config(config: Any, state: Mapping[str, Tensor], *, source: str) -> None:
    """Set patch, grid of positions and number of registers of ``config`` to those of the tensors.

    What is no square is left for ``rename_state_dict`` to name. One line says where patches are others.
    """
    patch, positions, registers = (
        state.get(name) for name in ("patch_embed.proj.weight", "pos_embed", "register_tokens")
    )
    square = patch is not None and patch.ndim == 4 and patch.shape[-1] == patch.shape[-2]
    if patch is not None and square and patch.shape[-1] != config.patch_size:
        said = "%s: patches of %d pixels, not %d: sides become multiples of that"
        _log.warning(said, source, patch.shape[-1], config.patch_size)
        config.image_size = config.image_size // config.patch_size * patch.shape[-1]
        config.patch_size = patch.shape[-1]
    if positions is not None and positions.ndim == 3:
        side = math.isqrt(max(positions.shape[1] - 1, 0))
        if side and side * side == positions.shape[1] - 1:
            config.image_size = side * config.patch_size
    if registers is not None and registers.ndim == 3 and getattr(config, "num_register_tokens", 0) > 0:
        config.num_register_tokens = registers.shape[1]


def check_registers(state: Mapping[str, Tensor], config: Any, *, source: str) -> None:
    """AmesError where a file has registers and the network none, or the other way round."""
    wanted = getattr(config, "num_register_tokens", 0) > 0
    if "cls_token" in state and ("register_tokens" in state) != wanted:
        text = "no register tokens: take a backbone" if wanted else "register tokens: take one without"
        raise AmesError(f"{source}: weights of another model: it has {text} -noreg")


def key_mappings(config: Any) -> list[KeyMapping]:
    """The tensors of a released dinov2_vit*14_pretrain.pth or _reg4_pretrain.pth, and their names in the
    hub's files.
    """
    D, patch = config.hidden_size, config.patch_size
    registers = getattr(config, "num_register_tokens", 0)
    patches = (config.image_size // patch) ** 2
    rows = [
        KeyMapping("cls_token", (1, 1, D), ("embeddings.cls_token",)),
        KeyMapping("pos_embed", (1, 1 + patches, D), ("embeddings.position_embeddings",)),
        KeyMapping("mask_token", (1, D), ("embeddings.mask_token",)),
        *layer_mappings("patch_embed.proj", "embeddings.patch_embeddings.projection", (D, 3, patch, patch)),
    ]
    if registers:
        rows.append(KeyMapping("register_tokens", (1, registers, D), ("embeddings.register_tokens",)))
    for i in range(config.num_hidden_layers):
        rows += _block(f"blocks.{i}.", f"encoder.layer.{i}.", config)
    return [*rows, *layer_mappings("norm", "layernorm", (D,))]


def _block(old: str, new: str, config: Any) -> list[KeyMapping]:
    D = config.hidden_size
    rows = [row for x in ("norm1", "norm2") for row in layer_mappings(old + x, new + x, (D,))]
    projections = [f"{new}attention.attention.{name}" for name in ("query", "key", "value")]
    for part, shape in (("weight", (3 * D, D)), ("bias", (3 * D,))):
        rows.append(KeyMapping(f"{old}attn.qkv.{part}", shape, tuple(f"{x}.{part}" for x in projections)))
    rows += layer_mappings(old + "attn.proj", new + "attention.output.dense", (D, D))
    rows += [KeyMapping(f"{old}ls{n}.gamma", (D,), (f"{new}layer_scale{n}.lambda1",)) for n in (1, 2)]
    hidden = int(D * config.mlp_ratio)
    if config.use_swiglu_ffn:
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8  # of the original SwiGLUFFNFused
        rows += layer_mappings(old + "mlp.w12", new + "mlp.weights_in", (2 * hidden, D))
        return rows + layer_mappings(old + "mlp.w3", new + "mlp.weights_out", (D, hidden))
    rows += layer_mappings(old + "mlp.fc1", new + "mlp.fc1", (hidden, D))
    return rows + layer_mappings(old + "mlp.fc2", new + "mlp.fc2", (D, hidden))
