"""VLAD: a global descriptor from local ones over a small codebook (Jegou et al., CVPR 2010).

Residuals to the nearest centroid are summed and L2-normalized per centroid (intra-normalization,
Arandjelovic and Zisserman, CVPR 2013), then reduced by PCA and half-whitened: with as much clutter as
landmark in an image, full whitening amplifies noise. Fitting uses FAISS, encoding numpy alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ames.backbones.whitening import principal_directions, unit
from ames.weights.files import read_as_written
from ames.weights.tensor_names import check_shapes


@dataclass(frozen=True)
class Vlad:
    """Fitted parameters, float32.

    mean [D], pca [D, c]: local descriptors are centred and reduced to c dimensions first;
    centroids [k, c]; vlad_mean [k * c], whiten [k * c, G].
    """

    mean: np.ndarray
    pca: np.ndarray
    centroids: np.ndarray
    vlad_mean: np.ndarray
    whiten: np.ndarray

    @property
    def dim(self) -> int:
        """G, the width of the global descriptor."""
        return self.whiten.shape[1]

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        """float32 [N, D] -> unit vector float32 [G]; the zero vector where N = 0."""
        if len(descriptors) == 0:
            return np.zeros(self.dim, np.float32)
        raw = aggregate((descriptors - self.mean) @ self.pca, self.centroids)
        return unit((raw - self.vlad_mean) @ self.whiten)

    def fingerprint(self) -> str:
        """Return 12 hexadecimal digits of the SHA-256 of what ``save`` stores."""
        arrays = (np.ascontiguousarray(x, np.float16).tobytes() for x in vars(self).values())
        return hashlib.sha256(b"".join(arrays)).hexdigest()[:12]

    @classmethod
    def fit(
        cls,
        images: list[np.ndarray],
        *,
        reduced: int = 64,
        centroids: int = 32,
        dim: int = 256,
        seed: int = 0,
    ) -> Vlad:
        """From local descriptors of many images, each float32 [N_i, D]; needs more than ``dim`` images."""
        import faiss

        rng = np.random.default_rng(seed)
        images = [x for x in images if len(x)]
        if len(images) <= dim:
            raise ValueError(f"fitting {dim} dimensions needs more than {dim} images, got {len(images)}")
        pool = np.concatenate([x[rng.permutation(len(x))[:64]] for x in images])
        mean = pool.mean(0)
        pca = principal_directions(pool - mean, reduced, whiten=0.25)
        kmeans = faiss.Kmeans(reduced, centroids, niter=25, seed=seed, max_points_per_centroid=4096)
        kmeans.train((pool - mean) @ pca)
        found = np.array(kmeans.centroids)
        raw = np.stack([aggregate((x - mean) @ pca, found) for x in images])
        vlad_mean = raw.mean(0)
        return cls(mean, pca, found, vlad_mean, principal_directions(raw - vlad_mean, dim, whiten=0.25))

    def save(self, path: Path | str) -> None:
        """safetensors, as fp16."""
        from safetensors.numpy import save_file

        # safetensors writes memory as it lies: a transposed array would be read back scrambled.
        save_file({name: np.ascontiguousarray(x, np.float16) for name, x in vars(self).items()}, path)

    @classmethod
    def load(cls, path: Path | str) -> Vlad:
        """Read a file of ``save``; AmesError names the first array that is missing, misshapen or extra."""
        state = read_as_written(path).state
        matrices = {name: tuple(x.shape) for name, x in state.items() if x.ndim == 2}
        (D, c), (k, _), (_, G) = (matrices.get(name, (0, 0)) for name in ("pca", "centroids", "whiten"))
        shapes = {"mean": (D,), "pca": (D, c), "centroids": (k, c)}
        shapes |= {"vlad_mean": (k * c,), "whiten": (k * c, G)}
        check_shapes(state, shapes, source=str(path), complaint="not a VLAD model")
        return cls(**{name: x.numpy() for name, x in state.items()})


def aggregate(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """[N, c], [k, c] -> intra-normalized residual sums, unit length, [k * c]."""
    distance = (centroids**2).sum(1) - 2 * x @ centroids.T
    nearest = distance.argmin(1)
    residuals = np.zeros_like(centroids)
    np.add.at(residuals, nearest, x - centroids[nearest])
    return unit(unit(residuals).ravel())
