"""What training/test_resuming.py kills: python killed_training.py FOLDER TASK."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from ames.descriptors.local import DescriptorFile
from ames.training import Trainer
from ames.training.resuming import Checkpoints
from ames.training.tasks.pairwise import PairwiseTask
from helpers.small_training import RECIPE, RERANKERS, detector_task, loader, made, reranker_task, slow_down


def train(folder, name, task="pairwise", pause=0.0):
    """Leaves ``<name>.pt``; begins at the newest state in folder ``<name>``. pause: seconds per batch."""
    data = loader(DescriptorFile(folder / "local.hdf5"))
    if task == "detector":
        made_task = detector_task(data, epochs=5, ema=0.9)
    elif task in RERANKERS:
        made_task = reranker_task(task, folder / "local.hdf5", epochs=5)
    else:
        made_task = PairwiseTask(made(), data, replace(RECIPE, epochs=5))
    slow_down(made_task, pause)
    states = Checkpoints(folder / name, every=1, resume=True)
    Trainer(made_task, out=folder / f"{name}.pt", checkpoints=states).fit()


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), "model", sys.argv[2], 0.1)
