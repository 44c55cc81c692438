"""Digests of files and of a model's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # files are fetched and checked without torch
    import torch


def sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def add_tensors(digest: hashlib._Hash, tensors: Mapping[str, torch.Tensor]) -> None:
    """Add names, shapes and values of tensors to a digest, whatever their order."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())


def weights_digest(module: torch.nn.Module) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a module's state."""
    digest = hashlib.sha256()
    add_tensors(digest, module.state_dict())
    return digest.hexdigest()[:16]
