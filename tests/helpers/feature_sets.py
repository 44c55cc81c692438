"""Stored features of a few images: two global ones, and a set of unequal counts."""

from dataclasses import replace

import torch

from ames.features import LocalFeatures

SPECS = [
    {"name": "a_global", "kind": "global", "width": 6, "count": 1},
    {"name": "b_local", "kind": "local", "width": 5, "count": 4},
    {"name": "c_global", "kind": "global", "width": 3, "count": 1},
]


def drawn(images=4, seed=0):
    """Features by name. The first image has all four local descriptors, the others one to three."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for spec in SPECS:
        x = torch.randn(images, spec["count"], spec["width"], generator=generator)
        found[spec["name"]] = LocalFeatures.from_descriptors(x)
    counts = torch.tensor([4 if not i else 1 + i % 3 for i in range(images)])
    local = found["b_local"]
    return found | {"b_local": replace(local, valid=torch.arange(4) < counts[:, None])}


def without(features, name, image):
    """The same; one image lacks a feature."""
    valid = features[name].valid.clone()
    valid[image] = False
    return features | {name: replace(features[name], valid=valid)}


def longer(features, name, more):
    """The same, with ``more`` further vectors in each image's set; and all of the set's vectors are real."""
    x = features[name].descriptors
    return LocalFeatures.from_descriptors(torch.cat((x, torch.ones(len(x), more, x.shape[-1])), 1))


def rows(features, name, image):
    """The real vectors of an image, float [n, D]."""
    one = features[name][image]
    return one.descriptors[one.valid]


def seeded(embedder, seed=3):
    """Weights of every layer drawn anew, biases and norms among them; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for x in embedder.parameters():
            x.add_(0.3 * torch.randn(x.shape, generator=generator))
    return embedder.eval()
