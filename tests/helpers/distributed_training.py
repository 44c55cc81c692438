"""Trainings of several processes, in a row: python distributed_training.py FOLDER '[{OPTIONS}, ...]'."""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.training import Validation
from ames.training.distributed import Ranks, init_distributed
from ames.training.resuming import Checkpoints
from helpers.small_training import RECIPE, fit, loader, made

DEFAULTS = {"distilled": False, "recipe": {}, "pause": 0, "store": "local.hdf5", "seed": 0}


def train(folder, ranks=None, **options):
    """Trains; each process leaves a file: its history and what it validated, or the error that stopped it."""
    ranks, options = ranks or Ranks(), DEFAULTS | options
    model = made(options["seed"] and int(os.environ["RANK"]), binarized=options["distilled"])

    def slow(*args, original=model.pairs):
        time.sleep(options["pause"])
        return original(*args)

    model.pairs = slow
    data = loader(DescriptorFile(folder / options["store"]), negatives=2)
    seen, out = [], folder / options["out"]

    def validate(model):
        seen.append(ranks.rank)
        return Validation({"val_map": float(len(seen))}, len(seen))

    try:
        history = fit(
            model,
            data,
            replace(RECIPE, epochs=3, clip=0.5, **options["recipe"]),
            teacher=made(1) if options["distilled"] else None,
            ranks=ranks,
            validate=validate,
            out=out,
            checkpoints=Checkpoints(folder / f"{out.name}-state", every=1, resume=True),
        )
    except AmesError as error:
        (folder / f"error-{ranks.rank}").write_text(str(error))
        raise SystemExit(2) from error
    (folder / f"{out.name}-{ranks.rank}.json").write_text(json.dumps([history, seen]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with init_distributed("cpu") as ranks:
        for options in json.loads(sys.argv[2]):
            train(Path(sys.argv[1]), ranks, **options)
