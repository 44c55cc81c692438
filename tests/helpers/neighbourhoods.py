"""Neighbours of made-up images, and samplers of them."""

import numpy as np

from ames.global_search.shortlist import Shortlist
from ames.training.data.candidates import LabelledNeighbours
from ames.training.data.neighbours import Neighbours
from ames.training.data.sampler import TripletSampler


def everyone(images, classes, seed=0):
    """Shortlist of random images against themselves, themselves included, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    similarity = rng.uniform(0.05, 0.8, (images, images)) + 0.1 * (labels[:, None] == labels)
    np.fill_diagonal(similarity, 1)
    ids = np.argsort(-similarity, axis=1)
    return Shortlist(ids, np.take_along_axis(similarity, ids, 1)), labels


def one_row(ids, similarities, labels):
    """A shortlist in which only image 0 has neighbours."""
    table = np.full((len(labels), len(ids)), -1)
    table[0] = ids
    values = np.zeros(table.shape)
    values[0] = similarities
    return Shortlist(table, values, distinct=False), np.array(labels)


def sampled(shortlist, labels, *, neighbours=300, options=None, **rest):
    """A sampler; ``options`` are those of the labelled neighbours."""
    near = Neighbours.from_arrays(shortlist.ids, shortlist.similarities, columns=neighbours)
    return TripletSampler(LabelledNeighbours(near, labels, **options or {}), **rest)
