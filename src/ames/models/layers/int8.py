"""Linear layers that multiply 8-bit integers, on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LARGEST = 127


class Int8Linear(nn.Module):
    """A linear layer whose weights are rounded to 8 bits once, and its input at each call.

    Weights are scaled by output, the input by row (a token): so a token's result does not depend on what is
    computed together with it, as it would with one scale for all of them. Sums are exact.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = _scale(weight)
        self.codes: Tensor
        self.scale: Tensor
        self.bias: Tensor
        self.register_buffer("codes", (weight / scale).round().to(torch.int8).T.contiguous())
        self.register_buffer("scale", scale[:, 0].clone())
        self.register_buffer("bias", linear.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """float32 [..., in] -> float32 [..., out]."""
        rows = x.reshape(-1, len(self.codes))
        scale = _scale(rows)
        product = torch._int_mm((rows / scale).round_().to(torch.int8), self.codes)  # int32
        return torch.addcmul(self.bias, product * scale, self.scale).view(*x.shape[:-1], len(self.bias))


def _scale(x: Tensor) -> Tensor:
    """What makes the largest value of each row one of 8 bits: [rows, 1]."""
    return x.abs().amax(1, keepdim=True).clamp_min_(1e-12).div_(_LARGEST)
