"""What the training commands share between configuration and plain arguments."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig
from torch import nn

from ames.config.evaluation import dataset_folder, device, read_dataset, run_folder
from ames.config.values import file_name, flag, number, optional, optional_number, plain, read_fields, whole
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_list, read_training_list
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.io.hashing import weights_digest
from ames.io.locks import exclusively
from ames.models.base import Similarity
from ames.training import Recipe, Task, Trainer
from ames.training.data.candidates import Candidates, LabelledNeighbours
from ames.training.data.lists import ListLoader, ListSampler
from ames.training.data.loader import TripletLoader
from ames.training.data.neighbours import Neighbours
from ames.training.data.pairs import ListedPairs, read_pairs
from ames.training.data.sampler import TripletSampler, describe
from ames.training.distributed import Ranks, init_distributed
from ames.training.logging.environment import write_environment
from ames.training.logging.journal import Journal, journal_path
from ames.training.logging.monitor import TrainingMonitor
from ames.training.logging.trackers import make_trackers
from ames.training.resuming import Checkpoints

R = TypeVar("R", bound=Recipe)


def train(
    config: DictConfig,
    build: Callable[[DictConfig, Ranks], tuple[Task[Any, Any], dict[str, Any]]],
    name: str,
    kind: str,
) -> float:
    """Train the task that ``build`` returns, with what files say of its model; print and return the last
    loss. name: of the file in the run folder, unless ``model_path`` is given; kind: what it holds, in a word.
    """
    with init_distributed(device(config)) as ranks, ExitStack() as held:
        out = trained_file(config, name, ranks)
        kept = checkpoints(config, out)
        ranks.broadcast_from_main(lambda: check_new(out, kept))
        torch.manual_seed(whole(config, "seed", least=0))
        task, provenance = build(config, ranks)
        ranks.broadcast_from_main(lambda: held.enter_context(exclusively(out)))
        ranks.broadcast_from_main(lambda: check_new(out, kept))  # another process may just have ended
        shown = monitor(config, out, ranks)
        options: dict[str, Any] = {"provenance": provenance, "checkpoints": kept, "monitor": shown}
        trainer = Trainer(task, out=out, ranks=ranks, lanes=optional(config, "num_lanes"), **options)
        last = trainer.fit()[-1]
        if ranks.is_main:
            accuracy = f", accuracy {last['accuracy']:.3f}" if "accuracy" in last else ""
            print(f"loss {last['loss']:.4f}{accuracy}; {kind}: {out}")
        return last["loss"]


def training_set(config: DictConfig) -> tuple[DatasetFolder, DescriptorFile]:
    """The folder of ``train_dataset`` and its local descriptors."""
    folder = dataset_folder(config, read_dataset(config, "train_dataset"))
    return folder, DescriptorFile(folder.local())


def read_recipe(kind: type[R], *trees: DictConfig, start_from: nn.Module | None, **given: Any) -> R:
    """Read a recipe from the first of ``trees`` that has each key. start_from: the model under that key."""
    autocast = {True: "bf16", False: None}.get(trees[0].autocast, trees[0].autocast)
    digest = None if start_from is None else weights_digest(start_from)
    return read_fields(kind, *trees, autocast=autocast, start_from=digest, **given)


def triplets(
    config: DictConfig,
    folder: DatasetFolder,
    descriptors: DescriptorFile,
    ranks: Ranks,
    *,
    scales: bool = False,
) -> TripletLoader:
    """Batches of ``train_dataset``, whose folder and descriptors are open; says how many there are.
    scales: as ``TripletLoader`` reads them.

    One process looks through all images for valid anchors and tells the others.
    """
    data = config.train_dataset
    candidates = _candidates(data, folder)
    options: dict[str, Any] = {
        "min_positives": optional(data, "min_positives"),
        "min_negatives": optional(data, "min_negatives"),
        "negatives": whole(data, "negatives"),
        "hard_negative_fraction": number(data, "hard_negative_fraction"),
    }
    summary = ranks.broadcast_from_main(lambda: TripletSampler(candidates, **options).summary())
    images = 2 + options["negatives"]  # per triplet
    size = whole(data, "batch_size", least=images)
    used = size // images * images
    loader = TripletLoader(
        TripletSampler(candidates, **options, summary=summary),
        descriptors,
        triplets=size // images,
        scales=scales,
        **_reading(config, descriptors),
    )
    if ranks.is_main:
        print(f"{describe(loader.sampler.statistics)}; {len(loader)} batches per epoch")
        if used != size:
            print(f"batch_size {size}: a triplet has {images} images, so that a batch has {used}")
    return loader


def lists(
    config: DictConfig,
    folder: DatasetFolder,
    descriptors: DescriptorFile,
    ranks: Ranks,
    *,
    model: Similarity,
) -> ListLoader:
    """As ``triplets``: batches of lists of the candidates that a list-wise model reads."""
    length = model.window or 0
    data = config.train_dataset
    refuse_keys_of_triplets(data, "this model learns from lists")
    size = whole(data, "batch_size")
    if size <= length:
        raise AmesError(
            f"batch_size {size}: a list has {1 + length} images, its query among them; give at least as many"
        )
    candidates = _candidates(data, folder)
    least = optional(data, "min_positives") or 0
    sampler = ListSampler(
        candidates, length=length, min_positives=least, scan=ranks.broadcast_from_main(candidates.scan)
    )
    loader = ListLoader(
        sampler,
        descriptors,
        lists=size // (1 + length),
        scales=model.reads_locations,
        **_reading(config, descriptors, model.most),
    )
    if ranks.is_main:
        print(f"{sampler.describe()}; {len(loader)} batches of {loader.size} lists per epoch")
    return loader


# Keys of training sets that lists have no use for, and their values in conf/dataset.
_OF_TRIPLETS = {
    "negatives": 1,
    "min_negatives": None,
    "hard_negative_fraction": 1.0,
    "query_desc": None,
    "database_desc": None,
    "desc_num_sampling": "batch",
}


def refuse_keys_of_triplets(data: DictConfig, learns: str) -> None:
    """AmesError names the first key of a training set that has an effect on triplets alone."""
    for key, usual in _OF_TRIPLETS.items():
        if data[key] != usual:
            raise AmesError(f"{key} {data[key]} is of triplets, and {learns}: leave it out")


def _reading(config: DictConfig, descriptors: DescriptorFile, most: int | None = None) -> dict[str, int]:
    """How a ``BatchLoader`` reads. most: descriptors of an image that the model reads."""
    return {
        "count": min(whole(config.train_dataset, "desc_num"), descriptors.slots, most or descriptors.slots),
        "seed": whole(config, "seed", least=0),
        "workers": whole(config, "num_workers", least=0),
    }


def _candidates(data: DictConfig, folder: DatasetFolder) -> Candidates:
    """Listed pairs if the configuration names them, else neighbours with labels."""
    images = folder.image_list() if data.list is None else folder.file(str(data.list))
    power, columns = number(data, "similarity_power"), whole(data, "num_neighbours")
    highest = optional_number(data, "max_similarity")
    if data.pairs is None:
        labels, first = read_training_list(images)
        shortlist = folder.find_shortlist(file_name(data, "nn_file"))
        return LabelledNeighbours(
            Neighbours.open(shortlist, images=len(labels), columns=columns),
            labels,
            first=first,
            similarity_power=power,
            max_similarity=highest,
        )
    names = [item.path for item in read_list(images)]
    neighbours = None
    there = [folder.shortlist.with_suffix(ending).is_file() for ending in (".npz", ".pkl")]
    if data.nn_file is not None or any(there):
        shortlist = folder.find_shortlist(file_name(data, "nn_file"))
        neighbours = Neighbours.open(shortlist, images=len(names), columns=columns)
    pairs = read_pairs(folder.file(str(data.pairs)), names)
    return ListedPairs(pairs, neighbours=neighbours, similarity_power=power, max_similarity=highest)


def trained_file(config: DictConfig, name: str, ranks: Ranks) -> Path:
    """Where training writes: ``model_path``, else ``name`` in the first process's run folder."""
    given = None if config.model_path is None else Path(str(config.model_path))
    out = ranks.broadcast_from_main(lambda: given or run_folder() / name)
    if out.is_dir():  # refused before the first epoch, not after it
        raise AmesError(f"model_path {out} is a folder: give the name of a file in it")
    return out


def checkpoints(config: DictConfig, out: Path) -> Checkpoints:
    """Where the state of the training of ``out`` is kept: ``state_dir``, else beside it."""
    if config.resume not in (None, "auto"):
        raise AmesError(f"resume is {config.resume!r}: give auto, which goes on where it was interrupted")
    resume, overwrite = config.resume is not None, flag(config, "overwrite")
    if resume and config.state_dir is None and config.model_path is None:
        raise AmesError("resume=auto finds nothing in a new run folder: give model_path, or state_dir")
    folder = out.with_name(f"{out.stem}-state") if config.state_dir is None else Path(str(config.state_dir))
    every, keep = whole(config, "save_every", least=0), whole(config, "keep")
    return Checkpoints(folder, every=every, keep=keep, resume=resume, overwrite=overwrite)


def check_new(out: Path, kept: Checkpoints) -> None:
    """AmesError where training would replace a model that it does not resume, unless told to."""
    if not out.exists() or kept.overwrite or (kept.resume and not kept.empty):
        return
    if kept.resume:
        found = f"exists already, and {kept.folder} has no state to resume from; give"
    else:
        found = "exists already; give resume=auto to go on with it,"
    raise AmesError(f"{out}: {found} overwrite=true to replace it, or another model_path")


def monitor(config: DictConfig, out: Path, ranks: Ranks) -> TrainingMonitor:
    """Show the training in the first process alone, which also records its environment."""
    if not ranks.is_main:
        return TrainingMonitor(quiet=True)
    journal, settings = journal_path(out), plain(config)
    noted = {"model": out, "journal": journal, "seed": config.seed, "processes": ranks.count}
    write_environment(run_folder(), **noted)
    folder = out.with_name(f"{out.stem}-tracked")
    return TrainingMonitor(
        Journal(journal),
        lambda step: make_trackers(settings["tracker"], folder=folder, config=settings, step=step),
    )
