"""The made-up test sets behind evaluate.json, rebuilt from a seed on the real ground truth beside this file.

Gallery images that show a query's landmark get noisy copies of its local and global descriptors. Everything
comes from one stream, [seed, 5], in a fixed order; padding from the streams [seed + 1, 78] (gallery) and
[seed + 2, 78] (queries).
"""

import json
import pickle
from pathlib import Path

import h5py
import numpy as np
import torch

from ames.data.folder import DatasetFolder
from ames.data.ground_truth import parse_ground_truth, save_ground_truth
from ames.data.shortlist import Shortlist
from golden.rebuild import valid

NOISE = {"easy": 0.6, "hard": 1.0, "junk": 1.4}


# The published pickles in place of .npz and .json: to be switched on when the library reads them.
PICKLES = False


def make(root, case, *, width=32, dtype="float16", pickles=PICKLES):
    """The folder of a case of evaluate.json below ``root``."""
    name, seed, slots = case["dataset"], case["seed"], case["desc_num"]
    raw = json.loads((Path(__file__).parent / f"gnd_{name}.json").read_text())
    raw["imlist"] = [f"gallery_{i}" for i in range(raw["num_images"])]
    raw["qimlist"] = [f"query_{i}" for i in range(len(raw["gnd"]))]
    truth = parse_ground_truth(raw, source=name)
    folder = DatasetFolder(Path(root) / name, "dinov2")
    folder.path.mkdir(parents=True, exist_ok=True)
    if pickles:
        (folder.path / f"gnd_{name}.pkl").write_bytes(pickle.dumps(raw))
    else:
        save_ground_truth(folder.ground_truth, truth)

    rng = np.random.default_rng([seed, 5])
    sizes = {"gallery": len(truth.imlist), "query": len(truth.qimlist)}
    local, vectors = {}, {}
    for split, n in sizes.items():
        local[split] = rng.standard_normal((n, slots, width)).astype(np.float32)
        vectors[split] = rng.standard_normal((n, 16)).astype(np.float32)
    for number, query in enumerate(raw["gnd"]):
        for key, noise in NOISE.items():
            for image in query[key]:
                order = rng.permutation(slots)
                copy = local["query"][number][order]
                local["gallery"][image] = copy + noise * rng.standard_normal(copy.shape).astype(np.float32)
                copy = vectors["query"][number]
                vectors["gallery"][image] = copy + noise * rng.standard_normal(16).astype(np.float32)
    for offset, split in enumerate(sizes, start=1):
        write_local(folder.local(split), local[split], rng, seed + offset, case["padded"], dtype)

    unit = {split: x / np.linalg.norm(x, axis=1, keepdims=True) for split, x in vectors.items()}
    similarities, ids = torch.from_numpy(unit["query"] @ unit["gallery"].T).sort(
        dim=1, descending=True, stable=True
    )
    if pickles:
        both = torch.stack((similarities, ids.float()))
        (folder.path / "nn_dinov2.pkl").write_bytes(pickle.dumps(both))
    else:
        Shortlist(ids.numpy(), similarities.numpy()).save(folder.shortlist)
    return folder


def write_local(path, descriptors, rng, seed, padded, dtype):
    """One flat file: location, scale, 1 = padding, falling weight, descriptor."""
    n, slots = descriptors.shape[:2]
    metadata = np.zeros((n, slots, 5), np.float32)
    metadata[..., :2] = rng.random((n, slots, 2))
    metadata[..., 4] = -np.sort(-rng.random((n, slots)))
    if padded:
        metadata[..., 3] = ~valid(n, slots, seed).numpy()
        descriptors = descriptors * (metadata[..., 3:4] == 0)
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=np.concatenate((metadata, descriptors), -1).astype(dtype))
