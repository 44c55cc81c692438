"""What tells the weights of one model from those of another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch


def add_tensors(digest: hashlib._Hash, tensors: Mapping[str, torch.Tensor]) -> None:
    """Adds names, shapes and values of tensors, whatever their order."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())


def weights_digest(module: torch.nn.Module) -> str:
    """16 hexadecimal digits of the SHA-256 of a module's state."""
    digest = hashlib.sha256()
    add_tensors(digest, module.state_dict())
    return digest.hexdigest()[:16]
