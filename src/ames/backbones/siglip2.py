"""SigLIP and SigLIP 2 (Zhai et al., ICCV 2023; Tschannen et al., 2025): the image tower of fixed resolution.

Both are the same network; folders of either are read. Other sizes and aspects interpolate the positions, as
transformers does. The variable-resolution networks (NaFlex) are others, and are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor

from ames.backbones.vit import Size, VisionTransformer

_TOWER = "vision_model."


class SigLip2(VisionTransformer):
    """Global vector: the output of the pooling head; the map: the patch tokens after the final norm.

    ``attention``: what the pooling head's probe gives to each patch, averaged over its heads.
    long_side is the size that the network was trained at.
    """

    SIZES: ClassVar = {
        "siglip2-b": Size("google/siglip2-base-patch16-512", {"image_size": 512}),
        "siglip2-so400m": Size.of(
            "google/siglip2-so400m-patch16-512", 1152, 27, 16, intermediate_size=4304, image_size=512
        ),
    }
    _model = "SiglipVisionModel"
    _config = "SiglipVisionConfig"
    _class_token = False

    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.long_side = self.network.config.image_size

    def _forward(self, images: Tensor) -> Any:
        return self.network(images, interpolate_pos_encoding=True)

    def _own_tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep the image tower of files that hold the text tower and the temperature too."""
        tower = {name: x for name, x in state.items() if name.startswith(_TOWER)}
        return tower or state

    @contextmanager
    def _noting_attention(self, images: Tensor) -> Iterator[list[Tensor]]:
        noted: list[Tensor] = []
        # torch's own attention layer returns (values, weights averaged over the heads [B, 1, patches])
        head = next(x for name, x in self.network.named_modules() if name.endswith("head.attention"))
        hook = head.register_forward_hook(lambda module, inputs, output: noted.append(output[1][:, 0]))
        try:
            yield noted
        finally:
            hook.remove()
