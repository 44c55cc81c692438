"""A data_root with a training set and a test set of a backbone that nobody knows, 24-d."""

import json

import numpy as np
import torch

from ames.descriptors.local import create_local, write_globals
from ames.features import LocalFeatures
from ames.global_search.shortlist import Shortlist

IMAGES, WIDTH, SLOTS = 24, 24, 12
GLOBAL_WIDTH = 5


def write_training_data(root):
    """Return ``root`` with gldv2, 24 images of 6 kinds, and roxford5k, 2 queries and 24 images of the same
    kinds; global descriptors are 5-d.
    """
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.randn(6, SLOTS, WIDTH, generator=generator)
    vectors = np.random.default_rng(0)

    def write(path, rows):
        with create_local(path, images=len(rows), slots=SLOTS, width=WIDTH) as write_row:
            for i, kind in enumerate(rows):
                noise = torch.randn(SLOTS, WIDTH, generator=generator)
                write_row(i, LocalFeatures.from_descriptors(prototypes[kind] + 0.3 * noise))
        whole = vectors.standard_normal((len(rows), GLOBAL_WIDTH)).astype(np.float32)
        write_globals(path.with_name(path.name.replace("_local", "_global")), whole)

    train, test = root / "gldv2", root / "roxford5k"
    train.mkdir()
    test.mkdir()
    kinds = np.arange(IMAGES) % 6
    write(train / "mine_local.hdf5", kinds)
    (train / "train.txt").write_text("\n".join(f"{i}.jpg,{kind}" for i, kind in enumerate(kinds)))
    _nearest(IMAGES, IMAGES).save(train / "nn_mine.npz")
    write(test / "mine_query_local.hdf5", [0, 1])
    write(test / "mine_gallery_local.hdf5", kinds)
    names = [f"{i}.jpg" for i in range(IMAGES)]
    truth = [{"bbx": [0, 0, 9, 9], "easy": [0 + i, 6 + i], "hard": [12 + i], "junk": []} for i in range(2)]
    content = {"imlist": names, "qimlist": ["a.jpg", "b.jpg"], "gnd": truth}
    (test / "gnd_roxford5k.json").write_text(json.dumps(content))
    _nearest(2, IMAGES).save(test / "nn_mine.npz")
    return root


def _nearest(queries, gallery):
    ids = np.stack([np.roll(np.arange(gallery), -i) for i in range(queries)])
    return Shortlist(ids, np.linspace(1, 0.5, gallery, dtype=np.float32) * np.ones((queries, 1)))
