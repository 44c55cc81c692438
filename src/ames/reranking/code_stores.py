"""Where candidates' codes come from: stores that are read by id, and codes as bytes of a vector database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from ames.errors import AmesError
from ames.features import LocalFeatures


@runtime_checkable
class CodeStore(Protocol):
    """Local descriptors, or a model's codes of them, by id: a ``Database`` and a ``DescriptorFile`` are such
    stores, and so is a ``BytesStore`` on top of a vector database.
    """

    def read(self, ids: Any, /) -> LocalFeatures:
        """Return the features of images [K, M, ...], in the order of ``ids``."""
        ...


class BytesStore:
    """Codes in a binary field of a vector database: a ``CodeStore``.

    fetch: from ids to the fields, one ``bytes`` per id in the same order. code_bytes: of one descriptor's
    code (``Similarity.code_bytes``: 16 of a 128-bit model).
    """

    def __init__(self, fetch: Callable[[Any], Sequence[bytes]], code_bytes: int = 16) -> None:
        self._fetch, self.code_bytes = fetch, code_bytes

    def read(self, ids: Any, /) -> LocalFeatures:
        """Return the codes uint8 [K, M, code_bytes]. AmesError for a field that is no number of codes."""
        return unpack_codes(self._fetch(ids), self.code_bytes)


def pack_codes(codes: LocalFeatures) -> list[bytes]:
    """Return each image's codes uint8 [K, M, bytes] as ``bytes``, padding left out: what a binary field of a
    vector database holds.
    """
    if not isinstance(codes, LocalFeatures):
        raise AmesError(f"codes are a {type(codes).__name__}: give what model.compress returned")
    if codes.descriptors.dtype != torch.uint8:
        raise AmesError(f"codes are {codes.descriptors.dtype}: give those of a binary model (uint8)")
    if codes.valid.ndim != 2:
        shape = list(codes.descriptors.shape)
        raise AmesError(f"codes are {shape}: give those of a batch of images, [K, M, bytes]")
    rows = zip(codes.descriptors.cpu().numpy(), codes.valid.cpu().numpy(), strict=True)
    return [row[valid].tobytes() for row, valid in rows]


def unpack_codes(fields: Sequence[bytes], code_bytes: int = 16) -> LocalFeatures:
    """Return codes uint8 [K, M, code_bytes] of the fields that ``pack_codes`` made."""
    if not isinstance(code_bytes, int) or code_bytes < 1:
        raise AmesError(f"code_bytes {code_bytes!r} is not a whole number of 1 or more")
    if isinstance(fields, (bytes, bytearray, memoryview)):
        raise AmesError("fields are the bytes of one image: give a list, one field per image")
    images = []
    for i, field in enumerate(fields):
        if not isinstance(field, (bytes, bytearray, memoryview)):
            raise AmesError(f"field {i}: a {type(field).__name__}; expected bytes")
        if len(field) % code_bytes:
            raise AmesError(f"field {i}: {len(field)} bytes, no multiple of the {code_bytes} of a code")
        codes = np.frombuffer(field, np.uint8).reshape(-1, code_bytes).copy()
        images.append(LocalFeatures.from_descriptors(torch.from_numpy(codes), coded=True))
    if not images:
        raise AmesError("no fields: give at least one")
    return LocalFeatures.stack(images)
