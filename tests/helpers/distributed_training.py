"""Trainings of several processes, in a row: python distributed_training.py FOLDER '[{OPTIONS}, ...]'."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.training import Trainer, Validation
from ames.training.distributed import Ranks, init_distributed
from ames.training.resuming import Checkpoints
from ames.training.tasks.pairwise import PairwiseTask
from helpers.small_aff import AFF
from helpers.small_networks import NETWORKS
from helpers.small_training import (
    RECIPE,
    RERANKERS,
    detector_task,
    documented_task,
    loader,
    made,
    reranker_task,
    slow_down,
)

DEFAULTS = {"task": "pairwise", "recipe": {}, "pause": 0, "store": "local.hdf5", "seed": 0, "bad": None}


def made_task(options, data, validate, path):
    """The task that the options name, whose batches take ``pause`` seconds."""
    common, seed = (
        {"epochs": 3, "clip": 0.5, **options["recipe"]},
        options["seed"] and int(os.environ["RANK"]),
    )
    if options["task"] == "documented":
        task = documented_task(seed, **common)
        task.validate = validate
    elif options["task"] in AFF:
        task = AFF[options["task"]](path.parent / "aff", seed, validate, options["bad"], **common)
    elif options["task"] in NETWORKS:
        task = NETWORKS[options["task"]](path.parent / "photos", seed, validate, options["bad"], **common)
    elif options["task"] in RERANKERS:
        task = reranker_task(options["task"], path, seed, validate, **common)
    elif options["task"] == "detector":
        task = detector_task(data, seed, validate, **common)
    else:
        distilled = options["task"] == "distilled"
        model, teacher = made(seed, binarized=distilled), made(1) if distilled else None
        task = PairwiseTask(model, data, replace(RECIPE, **common), teacher=teacher, validate=validate)
    slow_down(task, options["pause"])
    return task


def train(folder, ranks=None, **options):
    """Trains; each process leaves a file: its history and what it validated, or the error that stopped it."""
    ranks, options = ranks or Ranks(), DEFAULTS | options
    data = loader(DescriptorFile(folder / options["store"]), negatives=2)
    seen, out = [], folder / options["out"]

    def validate(model):
        seen.append(ranks.rank)
        return Validation({"val_map": float(len(seen))}, len(seen))

    try:
        history = Trainer(
            made_task(options, data, validate, folder / options["store"]),
            ranks=ranks,
            out=out,
            checkpoints=Checkpoints(folder / f"{out.name}-state", every=1, resume=True),
        ).fit()
    except AmesError as error:
        (folder / f"error-{out.name}-{ranks.rank}").write_text(str(error))
    else:
        (folder / f"{out.name}-{ranks.rank}.json").write_text(json.dumps([history, seen]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with init_distributed("cpu") as ranks:
        for options in json.loads(sys.argv[2]):
            train(Path(sys.argv[1]), ranks, **options)
