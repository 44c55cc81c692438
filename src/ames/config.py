"""Where configuration stops: from Hydra's tree to plain arguments, with errors that people can read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ames.checkpoints import load_state, read_weights
from ames.errors import AmesError
from ames.models.ames import AMES
from ames.models.base import Similarity
from ames.protocols import Protocol
from ames.weights import SHIPPED, path_of


def plain(config: Any) -> Any:
    """A sub-tree as plain Python, interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True)


def data_folder(config: DictConfig, dataset: str) -> Path:
    """``data_root/dataset``; AmesError if ``data_root`` is not given or the folder is not there."""
    if OmegaConf.is_missing(config, "data_root"):
        raise AmesError("data_root is missing: give the folder that holds the data sets, data_root=DIR")
    path = Path(config.data_root) / dataset
    if not path.is_dir():
        raise AmesError(f"{path}: no such folder; data_root must hold a folder {dataset!r}")
    return path


def protocols(dataset: DictConfig) -> list[Protocol]:
    """The protocols that a data set's file describes."""
    found = []
    for item in plain(dataset.protocols):
        item = {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
        try:
            found.append(Protocol(**item))
        except TypeError as error:
            raise AmesError(f"protocol {item.get('name')!r} of {dataset.name}: {error}") from error
    return found


def device(config: DictConfig) -> str:
    return "cuda" if torch.cuda.is_available() and not config.cpu else "cpu"


def run_folder() -> Path:
    return Path(HydraConfig.get().runtime.output_dir)


def build_model(config: DictConfig) -> Similarity:
    """The model of ``config.model``, new."""
    try:
        return hydra.utils.instantiate(config.model)
    except (HydraException, ValueError) as error:
        reason = error.__cause__ or error
        raise AmesError(f"model: {str(reason).splitlines()[0]}") from error


def trained_model(config: DictConfig, path: Path | str | None) -> tuple[Similarity, str]:
    """The model with its weights, and a name for reports.

    A checkpoint that describes itself decides the structure; for others (published ones)
    ``config.model`` does. ``path`` None: the shipped weights; a model without weights needs none.
    """
    if not config.model._target_.endswith(".AMES"):
        return build_model(config).eval(), config.model._target_.rsplit(".", 1)[-1]
    if path is None:
        name = f"{config.desc_name}_ames" + ("_dist" if config.model.binarized else "")
        if name not in SHIPPED:
            raise AmesError(f"model_path is missing, and no weights for {config.desc_name} are shipped")
        path = path_of(name)
    weights = read_weights(path)
    backbone = weights.about.get("backbone")
    if backbone not in (None, config.desc_name):
        raise AmesError(f"{path}: trained on {backbone} descriptors, not on {config.desc_name}")
    model = AMES(**weights.about["model"]) if "model" in weights.about else build_model(config)
    load_state(model, weights.state, source=str(path))
    return model.eval(), Path(path).name


def run(command: str, task: Callable[[], Any]) -> Any:
    """Runs a task; wrong input becomes one line on stderr and exit status 2."""
    try:
        return task()
    except (AmesError, OmegaConfBaseException) as error:
        print(f"{command}: {str(error).splitlines()[0]}", file=sys.stderr)
        sys.exit(2)
