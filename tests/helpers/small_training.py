"""A training of seconds: 32 images of 4 classes, a model of 16 dimensions."""

import functools
import math
import time
from dataclasses import replace

import numpy as np
import torch

from ames.backbones.detector import SpatialAttention
from ames.descriptors.local import DescriptorFile, create_local, write_globals
from ames.features import LocalFeatures
from ames.models.ames import AMES
from ames.models.elvis import ELViS
from ames.models.locore import Locore
from ames.models.rrt import RRT
from ames.training import Recipe, Trainer
from ames.training.data.candidates import LabelledNeighbours
from ames.training.data.lists import ListLoader, ListSampler
from ames.training.data.loader import TripletLoader
from ames.training.data.neighbours import Neighbours
from ames.training.data.sampler import TripletSampler
from ames.training.tasks.detector import DetectorRecipe, DetectorTask
from ames.training.tasks.listwise import ListwiseRecipe, ListwiseTask
from ames.training.tasks.pairwise import PairwiseRecipe, PairwiseTask
from helpers.commands import ROOT
from helpers.documents import blocks

IMAGES, CLASSES, SLOTS, WIDTH = 32, 4, 8, 16
SIZE = {"local_dim": WIDTH, "model_dim": 16, "num_encoder_layers": 2, "dim_feedforward": 32}
RECIPE = PairwiseRecipe(epochs=2, lr=1e-3, min_desc=4, max_desc=SLOTS)


def write_store(path, spoiled=None, unequal=False):
    """Images of a class share noisy descriptors; ``spoiled`` has one that is no number. unequal: some images
    have fewer descriptors. Global descriptors, means of the local ones, are beside it.
    """
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.randn(CLASSES, SLOTS, WIDTH, generator=generator)
    means = []
    with create_local(path, images=IMAGES, slots=SLOTS, width=WIDTH) as write_row:
        for i in range(IMAGES):
            descriptors = prototypes[i % CLASSES] + 0.2 * torch.randn(SLOTS, WIDTH, generator=generator)
            if i == spoiled:
                descriptors[0, 0] = math.nan
            means.append(descriptors[1:].mean(0))
            write_row(i, LocalFeatures.from_descriptors(descriptors[: SLOTS - i % 3 if unequal else SLOTS]))
    write_globals(path.with_name(f"{path.stem}_vectors.hdf5"), torch.stack(means).numpy())
    return DescriptorFile(path)


def candidates():
    """Every image is a neighbour of every other."""
    ids = np.stack([np.roll(np.arange(IMAGES), -i) for i in range(IMAGES)])
    near = Neighbours.from_arrays(ids, np.ones(ids.shape))
    return LabelledNeighbours(near, np.arange(IMAGES) % CLASSES)


def loader(store, seed=0, negatives=1, **options):
    sampler = TripletSampler(candidates(), negatives=negatives)
    return TripletLoader(sampler, store, triplets=8, count=SLOTS, seed=seed, **options)


def made(seed=0, **changes):
    torch.manual_seed(seed)
    return AMES(**SIZE | changes)


def _locore():
    sizes = {"hidden": 16, "num_layers": 2, "nhead": 2, "intermediate": 32, "attention_window": 12}
    lists = {"local_count": 6, "window": 7, "max_position_embeddings": 66}
    return Locore(
        local_dim=WIDTH, global_dim=WIDTH, scales=0, activation_checkpointing=True, **sizes, **lists
    )


RERANKERS = {
    "elvis": lambda: ELViS(local_dim=WIDTH),
    "rrt": lambda: RRT(
        local_dim=WIDTH,
        global_dim=WIDTH,
        model_dim=16,
        nhead=2,
        num_layers=2,
        dim_feedforward=32,
        scales=0,
    ),
    "locore": _locore,
}


def reranker_task(name, path, seed=0, validate=None, **recipe):
    """The task of one of ``RERANKERS`` over the file of ``write_store``; a recipe's changes."""
    torch.manual_seed(seed)
    model, store = RERANKERS[name](), DescriptorFile(path)
    if model.reads_vector:
        store.with_vectors(path.with_name(f"{path.stem}_vectors.hdf5"))
    if model.window is None:
        return PairwiseTask(model, loader(store), replace(RECIPE, **recipe), validate=validate)
    lists = ListLoader(ListSampler(candidates(), length=model.window), store, lists=8, count=SLOTS)
    return ListwiseTask(model, lists, ListwiseRecipe(**{"epochs": 2, "lr": 1e-3} | recipe), validate)


def detector_task(loader, seed=0, validate=None, **recipe):
    """A margin that no triplet reaches, so that each has a gradient."""
    torch.manual_seed(seed)
    recipe = DetectorRecipe(**{"epochs": 3, "lr": 3e-3, "margin": 4.0} | recipe)
    return DetectorTask(SpatialAttention(WIDTH), loader, recipe, validate=validate)


@functools.cache
def documented():
    """The names of the example of docs/training.md: ``Classification`` and ``train``."""
    (block,) = blocks((ROOT / "docs" / "training.md").read_text(), "python")
    names = {}
    exec(compile(block, "docs/training.md", "exec"), names)
    return names


def documented_task(seed=0, **recipe):
    """80 vectors of 4 classes, 16-d, in batches of 16."""
    generator, labels = torch.Generator().manual_seed(0), torch.arange(80) % 4
    x = torch.randn(4, 16, generator=generator)[labels] + torch.randn(80, 16, generator=generator)
    torch.manual_seed(seed)
    return documented()["Classification"](x, labels, Recipe(**{"epochs": 3, "lr": 0.1} | recipe))


def fit(model, loader, recipe, *, teacher=None, validate=None, **options):
    """Train as a pair-wise re-ranker; options of the Trainer."""
    task = PairwiseTask(model, loader, recipe, teacher=teacher, validate=validate)
    return Trainer(task, **options).fit()


def slow_down(task, seconds):
    """Each batch of the task takes at least so long."""
    loss = task.loss

    def slow(*args):
        time.sleep(seconds)
        return loss(*args)

    task.loss = slow


def weights(model):
    return {name: x.clone() for name, x in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(x, b[name]) for name, x in a.items())
