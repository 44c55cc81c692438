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

from ames.datasets.ground_truth import parse_ground_truth, save_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.global_search.shortlist import Shortlist
from golden.rebuild import valid

LAYOUTS = ("float16", "float32", "compound", "compound by image")

NOISE = {"easy": 0.6, "hard": 1.0, "junk": 1.4}


def make(root, case, *, width=32, layout="float16", pack=None, pickles=False, **storage):
    """The folder of a case of evaluate.json below ``root``.

    layout: of the descriptor files, one of LAYOUTS; pack: descriptors float32 -> codes uint8, stored in
    their place; storage: chunks, compression ... of the datasets. pickles: shortlist and ground truth are
    written as the published ones are.
    """
    name, seed, slots = case["dataset"], case["seed"], case["desc_num"]
    raw = json.loads((Path(__file__).parent / f"gnd_{name}.json").read_text())
    raw["imlist"] = [f"gallery_{i}" for i in range(raw["num_images"])]
    raw["qimlist"] = [f"query_{i}" for i in range(len(raw["gnd"]))]
    truth = parse_ground_truth(raw, source=name)
    folder = DatasetFolder(Path(root) / name, "dinov2")
    if pickles:
        folder.path.mkdir(parents=True)
        folder.ground_truth.with_suffix(".pkl").write_bytes(pickle.dumps(raw))
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
        write_local(
            folder.local(split), local[split], rng, seed + offset, case["padded"], layout, pack, **storage
        )

    unit = {split: x / np.linalg.norm(x, axis=1, keepdims=True) for split, x in vectors.items()}
    similarities, ids = torch.from_numpy(unit["query"] @ unit["gallery"].T).sort(
        dim=1, descending=True, stable=True
    )
    if pickles:
        content = pickle.dumps(torch.stack((similarities, ids.float())))
        folder.shortlist.with_suffix(".pkl").write_bytes(content)
    else:
        Shortlist(ids.numpy(), similarities.numpy()).save(folder.shortlist)
    return folder


def write_local(path, descriptors, rng, seed, padded, layout="float16", pack=None, **storage):
    """One file: location, scale, 1 = padding, falling weight, descriptor (or codes)."""
    n, slots = descriptors.shape[:2]
    metadata = np.zeros((n, slots, 5), np.float32)
    metadata[..., :2] = rng.random((n, slots, 2))
    metadata[..., 4] = -np.sort(-rng.random((n, slots)))
    if padded:
        metadata[..., 3] = ~valid(n, slots, seed).numpy()
        descriptors = descriptors * (metadata[..., 3:4] == 0)
    if layout not in ("float16", "float32"):
        descriptors = descriptors.astype(np.float16)
    if pack is not None:
        descriptors = pack(descriptors.astype(np.float32))
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=laid_out(metadata, descriptors, layout), **storage)


def laid_out(metadata, descriptors, layout):
    """The array of a file: metadata [n, slots, 5] and descriptors [n, slots, ...] in a layout."""
    n, slots, width = descriptors.shape
    if layout == "bare":
        return descriptors
    if layout in ("float16", "float32"):
        return np.concatenate((metadata, descriptors), -1).astype(layout)
    lead = (slots,) if layout == "compound by image" else ()
    dtype = [("metadata", "<f4", (*lead, 5)), ("descriptor", descriptors.dtype, (*lead, width))]
    table = np.zeros((n,) if lead else (n, slots), dtype)
    table["metadata"], table["descriptor"] = metadata, descriptors
    return table
