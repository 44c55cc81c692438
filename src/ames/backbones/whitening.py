"""PCA-whitening of global vectors (Jegou and Chum, ECCV 2012): fitted on vectors of training images.

Fitting uses FAISS, applying numpy alone. ``principal_directions`` is VLAD's, too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ames.errors import AmesError
from ames.weights.files import read_as_written
from ames.weights.tensor_names import check_shapes

_ROOM = 60000.0  # of the largest value of a matrix in fp16


@dataclass(frozen=True)
class Whitening:
    """mean [D], matrix [D, G], float32. power: of the variance that directions are divided by: 0 is PCA
    alone, 0.25 half whitened, 0.5 whitened.
    """

    mean: np.ndarray
    matrix: np.ndarray
    power: float

    @property
    def dim(self) -> int:
        """G, the width of the result."""
        return self.matrix.shape[1]

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """float32 [..., D] -> unit vectors float32 [..., G]; a zero vector, of no image, stays one."""
        found = unit((vectors - self.mean) @ self.matrix)
        return found * vectors.any(-1, keepdims=True)

    @classmethod
    def fit(cls, vectors: np.ndarray, *, dim: int, power: float = 0.5) -> Whitening:
        """From vectors float32 [n, D] of training images; AmesError unless n > dim and D >= dim."""
        n, width = vectors.shape
        if dim < 1 or not np.isfinite(vectors).all():
            raise AmesError(f"whitening: {dim} dimensions, or vectors that are not finite")
        if n <= dim or width < dim:
            raise AmesError(
                f"whitening: {dim} dimensions of {n} vectors {width}-d: give more than {dim} of them"
            )
        mean = vectors.mean(0, dtype=np.float64).astype(np.float32)
        matrix = principal_directions(vectors - mean, dim, whiten=power)
        # The length of the result is 1 whatever the matrix's scale, which fp16 has to hold.
        return cls(mean, matrix / max(1.0, float(np.abs(matrix).max()) / _ROOM), power)

    def fingerprint(self) -> str:
        """Return 12 hexadecimal digits of the SHA-256 of what ``save`` stores."""
        arrays = (self.mean, self.matrix, np.array([self.power]))
        return hashlib.sha256(
            b"".join(np.ascontiguousarray(x, np.float16).tobytes() for x in arrays)
        ).hexdigest()[:12]

    def save(self, path: Path | str) -> None:
        """safetensors, as fp16."""
        from safetensors.numpy import save_file

        arrays = {"mean": self.mean, "matrix": self.matrix, "power": np.array([self.power])}
        save_file({name: np.ascontiguousarray(x, np.float16) for name, x in arrays.items()}, path)

    @classmethod
    def load(cls, path: Path | str) -> Whitening:
        """Read a file of ``save``; AmesError names the first array that is missing, misshapen or extra."""
        state = read_as_written(path).state
        matrix = state.get("matrix")
        D, G = matrix.shape if matrix is not None and matrix.ndim == 2 else (0, 0)
        shapes = {"mean": (D,), "matrix": (D, G), "power": (1,)}
        check_shapes(state, shapes, source=str(path), complaint="not a whitening")
        return cls(state["mean"].numpy(), state["matrix"].numpy(), float(state["power"]))


def unit(x: np.ndarray) -> np.ndarray:
    """[..., D] -> float32 of unit length; a zero vector stays one."""
    return (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)).astype(np.float32)


def principal_directions(centred: np.ndarray, dim: int, *, whiten: float) -> np.ndarray:
    """Main directions as columns [D, dim], each divided by its variance to the power ``whiten``."""
    import faiss

    pca = faiss.PCAMatrix(centred.shape[1], dim)
    pca.train(np.ascontiguousarray(centred, np.float32))
    basis = faiss.vector_to_array(pca.PCAMat).reshape(-1, centred.shape[1])[:dim].T
    variance = faiss.vector_to_array(pca.eigenvalues)[:dim] / len(centred)
    return (basis * np.maximum(variance, 1e-9) ** -whiten).astype(np.float32)
