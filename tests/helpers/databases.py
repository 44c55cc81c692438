"""Small databases."""

import numpy as np
import torch

from ames.database.build import Source, compress
from ames.descriptors.local import DescriptorFile, GlobalFile, create_local, write_globals
from ames.features import LocalFeatures
from ames.models.ames import AMES

WIDTH, SLOTS = 16, 6


def model(*, binarized=True, seed=0):
    torch.manual_seed(seed)
    sizes = {"local_dim": WIDTH, "model_dim": 16, "num_encoder_layers": 2, "dim_feedforward": 32}
    return AMES(**sizes, binarized=binarized).eval()


def source(folder, images=20, *, seed=0, vectors=True, names=None, prefix="image"):
    """Descriptors of unequal counts (one image has none, its global vector is zero) with global ones."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    names = names if names is not None else [f"{prefix} {i}.jpg" for i in range(images)]
    counts = rng.integers(1, SLOTS + 1, images)
    counts[images // 2] = 0
    path = folder / f"{prefix}_local.hdf5"
    with create_local(path, images=images, slots=SLOTS, width=WIDTH, names=names or None) as write_row:
        for row, count in enumerate(counts):
            write_row(
                row, LocalFeatures.from_descriptors(torch.from_numpy(rng.standard_normal((count, WIDTH))))
            )
    if not vectors:
        return Source(DescriptorFile(path))
    x = rng.standard_normal((images, 8)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x[images // 2] = 0
    write_globals(folder / f"{prefix}_global.hdf5", x)
    return Source(DescriptorFile(path), GlobalFile(folder / f"{prefix}_global.hdf5"))


def database(folder, images=20, *, desc_num=4, **options):
    """A database below ``folder``, with what it was made of."""
    made = source(folder, images, **options)
    return compress(made, model(), folder / "db", desc_num=desc_num, factory="SQfp16"), made


def state(database):
    """What a reader sees: names and the content of every image."""
    local = database.read(range(len(database)))
    return dict(zip(database.names, [x.numpy().tobytes() for x in local.descriptors], strict=True))
