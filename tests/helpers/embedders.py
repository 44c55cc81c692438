"""Small embedders with random weights, and their files."""

import torch

from ames.embedders.checkpoints import save_embedders
from ames.embedders.features import FeatureSpec
from ames.embedders.mixer import Mixer
from ames.embedders.network import GlobalNetwork

DIM = 16
ROOTSIFT = (
    FeatureSpec("vlad", "global", 256, 1, "rootsift"),
    FeatureSpec("sift", "local", 128, 20, "rootsift"),
)


def network(seed=3, **options):
    """A light network of images of 32 pixels."""
    torch.manual_seed(seed)
    return GlobalNetwork(**{"trunk": "resnet10", "width": 0.125, "dim": DIM, "size": 32} | options).eval()


def mixer(features=ROOTSIFT, seed=4):
    """A mixer of RootSIFT's features, or of others."""
    torch.manual_seed(seed)
    return Mixer(features=[x.to_dict() for x in features], dim=DIM, layers=1, heads=2).eval()


def save_one(path, seed=3, **options):
    """A file with one network for both sides; return the network."""
    made = network(seed, **options)
    save_embedders(path, {"both": made})
    return made


def save_pair(path, features=ROOTSIFT, seed=3):
    """A file with a query network and a gallery mixer, as AFF has them; return both."""
    query, gallery = network(seed), mixer(features, seed + 1)
    save_embedders(path, {"query": query, "gallery": gallery})
    return query, gallery
