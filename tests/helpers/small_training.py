"""A training of seconds: 32 images of 4 classes, a model of 16 dimensions."""

import math

import numpy as np
import torch

from ames.descriptors.local import DescriptorFile, create_local
from ames.features import LocalFeatures
from ames.models.ames import AMES
from ames.training import Recipe
from ames.training.data.candidates import LabelledNeighbours
from ames.training.data.loader import TripletLoader
from ames.training.data.neighbours import Neighbours
from ames.training.data.sampler import TripletSampler

IMAGES, CLASSES, SLOTS, WIDTH = 32, 4, 8, 16
SIZE = {"local_dim": WIDTH, "model_dim": 16, "num_encoder_layers": 2, "dim_feedforward": 32}
RECIPE = Recipe(epochs=2, lr=1e-3, min_desc=4, max_desc=SLOTS)


def write_store(path, spoiled=None, unequal=False):
    """Images of a class share noisy descriptors; ``spoiled`` has one that is no number. unequal: some images
    have fewer descriptors.
    """
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.randn(CLASSES, SLOTS, WIDTH, generator=generator)
    with create_local(path, images=IMAGES, slots=SLOTS, width=WIDTH) as write_row:
        for i in range(IMAGES):
            descriptors = prototypes[i % CLASSES] + 0.2 * torch.randn(SLOTS, WIDTH, generator=generator)
            if i == spoiled:
                descriptors[0, 0] = math.nan
            write_row(i, LocalFeatures.from_descriptors(descriptors[: SLOTS - i % 3 if unequal else SLOTS]))
    return DescriptorFile(path)


def loader(store, seed=0, negatives=1, **options):
    labels = np.arange(IMAGES) % CLASSES
    ids = np.stack([np.roll(np.arange(IMAGES), -i) for i in range(IMAGES)])
    sampler = TripletSampler(
        LabelledNeighbours(Neighbours.from_arrays(ids, np.ones(ids.shape)), labels), negatives=negatives
    )
    return TripletLoader(sampler, store, triplets=8, count=SLOTS, seed=seed, **options)


def made(seed=0, **changes):
    torch.manual_seed(seed)
    return AMES(**SIZE | changes)


def weights(model):
    return {name: x.clone() for name, x in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(x, b[name]) for name, x in a.items())
