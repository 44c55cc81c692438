"""What training/test_resuming.py kills: python killed_training.py FOLDER."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from ames.descriptors.local import DescriptorFile
from ames.training.resuming import Checkpoints
from helpers.small_training import RECIPE, fit, loader, made


def train(folder, name, pause=0.0):
    """Leaves ``<name>.pt``; begins at the newest state in folder ``<name>``. pause: seconds a batch."""
    model = made()

    def slow(*args, original=model.pairs):
        time.sleep(pause)
        return original(*args)

    model.pairs = slow
    states = Checkpoints(folder / name, every=1, resume=True)
    recipe = replace(RECIPE, epochs=5)
    fit(
        model,
        loader(DescriptorFile(folder / "local.hdf5")),
        recipe,
        out=folder / f"{name}.pt",
        checkpoints=states,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), "model", 0.1)
