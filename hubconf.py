"""torch.hub entry points: torch.hub.load(CLONE, "rootsift_ames", source="local")."""

import importlib
import sys
from pathlib import Path

dependencies = ["torch"]


def _library(module: str):
    """A module of this clone's library, whether or not it is installed."""
    source = str(Path(__file__).parent / "src")
    if source not in sys.path:
        sys.path.append(source)
    return importlib.import_module(f"ames.{module}")


def _shipped(name: str, binarized: bool, pretrained: bool):
    path = _library("weights").path_of(name)
    checkpoints = _library("checkpoints")
    if pretrained:
        return checkpoints.load_model(path)
    structure = checkpoints.read_weights(path).about["model"]
    return _library("models.ames").AMES(**structure | {"binarized": binarized}).eval()


def rootsift_ames(pretrained: bool = True):
    """AMES for RootSIFT descriptors (128-d), full precision."""
    return _shipped("rootsift_ames", False, pretrained)


def rootsift_ames_dist(pretrained: bool = True):
    """AMES for RootSIFT descriptors (128-d), binary: 16 bytes a database descriptor."""
    return _shipped("rootsift_ames_dist", True, pretrained)
