"""What tells the codes of one model from those of another."""

from __future__ import annotations

import hashlib

from ames.io.hashing import add_tensors
from ames.models.base import Similarity


def projection_fingerprint(model: Similarity) -> str:
    """Return the SHA-256 of what decides a model's codes: class, their form, weights of the projection."""
    digest = hashlib.sha256(
        f"{type(model).__name__} {model.local_dim} {model.code_bytes} {model.code_bits}".encode()
    )
    add_tensors(digest, model.projection())
    return digest.hexdigest()
