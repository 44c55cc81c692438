"""Evaluation: from Hydra's tree to plain arguments."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ames.config.benchmarks import benchmark
from ames.config.values import file_name, flag, optional, optional_path, several, value_of, whole
from ames.datasets.layout import DatasetFolder
from ames.errors import AmesError
from ames.evaluation.evaluate import Choice, Scoring, choose
from ames.evaluation.protocols import KNOWN, Protocol, left_out, query_counts
from ames.evaluation.sweep import Grid, columns, evaluate_initial, validation_metrics
from ames.evaluation.test_set import open_test_set
from ames.models.base import Similarity
from ames.reranking.fusion import Fusion
from ames.reranking.scorer import ComputeConfig
from ames.reranking.windows import Windows

log = logging.getLogger(__name__)
_PROTOCOL = (
    f"{{name: NAME, positives: [KEY], junk: [KEY]}}, or names among {', '.join(KNOWN)}, or "
    "{benchmark: NAME}"
)


def dataset_folder(config: DictConfig, dataset: DictConfig) -> DatasetFolder:
    """Return ``data_root/desc_dir`` under ``desc_name``; AmesError if a key or the folder is missing."""
    return DatasetFolder(dataset_path(config, dataset, desc_name=config.desc_name), str(config.desc_name))


def dataset_path(config: DictConfig, dataset: DictConfig, **needed: Any) -> Path:
    """Return ``data_root/desc_dir``; AmesError if one of them, a ``needed`` key or the folder is missing."""
    if OmegaConf.is_missing(config, "data_root") or config.data_root is None:
        raise AmesError("data_root is missing: give the folder that holds the data sets, data_root=DIR")
    for key, value in ({"desc_dir": dataset.desc_dir} | needed).items():
        if value is None:
            raise AmesError(f"{key} is missing: give {key}=NAME")
    path = Path(str(config.data_root)) / str(dataset.desc_dir)
    if not path.is_dir():
        raise AmesError(f"{path}: no such folder; data_root must hold a folder {str(dataset.desc_dir)!r}")
    return path


def test_files(dataset: DictConfig) -> dict[str, Any]:
    """Keywords of ``ames.evaluation.test_set.open_test_set``."""
    return {
        "shortlist": file_name(dataset, "nn_file"),
        "ground_truth": file_name(dataset, "test_gnd_file"),
        "distractors": "distractors" in dataset and flag(dataset, "distractors"),
    }


def chooser(
    config: DictConfig, model: Similarity, num_rerank: Sequence[int]
) -> Callable[[Similarity], Choice] | None:
    """What chooses a combination on ``val_dataset`` for models like this one; None where none is given.

    Its keys and files are checked at once.
    """
    val = validation_set(config)
    if val is None:
        return None
    chosen, how = protocols(val), scoring(config, val)
    test = open_test_set(dataset_folder(config, val), model, **test_files(val))
    Grid(num_rerank).check(test.shortlist)
    validation_metrics(evaluate_initial(test.shortlist, test.ground_truth, chosen))
    for line in left_out(query_counts(test.ground_truth, chosen)):
        log.info("%s: %s", test.folder.name, line)
    return lambda model: choose(test, model, chosen, how, num_rerank=num_rerank)


def validation_set(config: DictConfig) -> DictConfig | None:
    """``val_dataset``, None where none is given."""
    return None if config.val_dataset is None else read_dataset(config, "val_dataset")


def read_dataset(config: DictConfig, key: str) -> DictConfig:
    """The data set under ``key``; AmesError where it is something else, such as its name."""
    dataset = config[key]
    if not isinstance(dataset, DictConfig):
        name = dataset if isinstance(dataset, str) else "NAME"
        raise AmesError(f"{key} is {dataset!r}: choose a file of conf/dataset, dataset@{key}={name}")
    return dataset


def scoring(config: DictConfig, dataset: DictConfig) -> Scoring:
    """How the pairs of a test set are scored."""
    return Scoring(
        query_count=whole(dataset, "query_desc_num"),
        database_count=whole(dataset, "db_desc_num"),
        compute=compute(config, dataset),
        windows=_windows(dataset),
        score_cache=optional_path(config, "score_cache"),
    )


def _windows(dataset: DictConfig) -> Windows:
    """How a list-wise model passes a list that is longer than it reads."""
    given = value_of(dataset, "windows")
    if not isinstance(given, dict) or set(given) != {"route", "stride"}:
        raise AmesError(f"windows is {given!r}: give {{route: NAME, stride: NUMBER or null}}")
    stride = given["stride"]
    if stride is not None and type(stride) is not int:
        raise AmesError(f"windows: stride {stride!r} is not a whole number")
    return Windows(route=str(given["route"]), stride=stride)


def compute(config: DictConfig, dataset: DictConfig) -> ComputeConfig:
    """Where and how pairs are scored."""
    count, devices = whole(config, "num_gpus"), [device(config)]
    if devices == ["cuda"]:
        if count > torch.cuda.device_count():
            raise AmesError(f"num_gpus {count}: this machine has {torch.cuda.device_count()}")
        devices = [f"cuda:{i}" for i in range(count)]
    return ComputeConfig(
        devices=tuple(devices),
        precision=str(config.precision),
        batch_size=None if dataset.batch_size is None else whole(dataset, "batch_size"),
        compile=flag(config, "compile"),
        lanes=optional(config, "num_lanes"),
        workers=whole(config, "num_workers", least=0),
    )


def say_idle_gpus(config: DictConfig) -> None:
    """One line where ``num_gpus`` asks for several and the CPU computes."""
    if whole(config, "num_gpus") > 1 and device(config) == "cpu":
        log.warning("num_gpus %d: there is no GPU to use, the CPU computes", config.num_gpus)


def protocols(dataset: DictConfig) -> list[Protocol]:
    """Return the protocols that a data set's file names or describes, or those of a benchmark."""
    listed = value_of(dataset, "protocols")
    if not isinstance(listed, list) or not listed:
        raise AmesError(f"protocols of {dataset.name} is {listed!r}: give a list of {_PROTOCOL}")
    found: list[Protocol] = []
    for item in listed:
        if isinstance(item, str) and item in KNOWN:
            found.append(KNOWN[item])
            continue
        if isinstance(item, dict) and set(item) == {"benchmark"}:
            found += benchmark(str(item["benchmark"])).protocols
            continue
        if not isinstance(item, dict):
            raise AmesError(f"protocol {item!r} of {dataset.name}: give {_PROTOCOL}")
        item = {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
        try:
            found.append(Protocol(**item))
        except TypeError as error:
            raise AmesError(f"protocol {item.get('name')!r} of {dataset.name}: {error}") from error
    columns(found)
    return found


def device(config: DictConfig) -> str:
    return "cuda" if not flag(config, "cpu") and torch.cuda.is_available() else "cpu"


def run_folder() -> Path:
    return Path(HydraConfig.get().runtime.output_dir)


def grid(dataset: DictConfig, stored: Fusion | None) -> Grid:
    """Return the combinations to evaluate: lamb and temp given, else the checkpoint's, else the default."""
    default = value_of(dataset, "default_blend") if stored is None else stored.to_keys()
    if not isinstance(default, dict) or not {"lamb", "temp"} <= set(default):
        raise AmesError(f"default_blend is {default!r}: give {{lamb: NUMBER, temp: NUMBER}}")
    given = {key: dataset[key] for key in ("lamb", "temp")}
    values = {key: [default[key]] if x is None else several(dataset, key) for key, x in given.items()}
    return Grid(several(dataset, "num_rerank"), **values)
