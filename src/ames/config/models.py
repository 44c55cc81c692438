"""The model of a configuration: new, or with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from ames.config.launch import given_words
from ames.config.values import flag, value_of
from ames.errors import AmesError, first_line
from ames.evaluation.sweep import Fusion
from ames.models.base import Similarity
from ames.models.checkpoints import build_from_weights
from ames.models.load import load
from ames.models.registry import CLASSES, MODELS, model_class, own_fusion, shipped_for
from ames.weights.files import load_state, weights_for
from ames.weights.tensor_names import own_tensors


def build_model(config: DictConfig) -> Similarity:
    """The model of ``config.model``, new."""
    if OmegaConf.is_interpolation(config, "dim_local_features") and config.desc_name not in config.local_dims:
        raise AmesError(
            f"desc_name {config.desc_name!r} is none of {', '.join(config.local_dims)}: give "
            "dim_local_features too"
        )
    try:
        model = hydra.utils.instantiate(config.model)
    except (HydraException, ValueError) as error:
        raise AmesError(f"model: {first_line(error.__cause__ or error)}") from error
    if not isinstance(model, Similarity):
        example = f"{CLASSES['AMES']}.AMES"
        raise AmesError(
            f"model._target_ is {config.model._target_!r}: give a model's class, such as {example}"
        )
    return model


def _check_given(config: DictConfig, model: Similarity, source: str) -> None:
    """AmesError where the command line asks for another model than the one that was loaded: ``model=NAME`` of
    another class, or ``model.KEY=VALUE``. Values that nobody gave do not count, nor does how training starts.
    """
    kind, asked = type(model).__name__, str(config.model._target_).rsplit(".", 1)[-1]
    for word in given_words():
        group, _, key = word.key_or_group.partition(".")
        if group != "model" or word.is_delete() or key == "init":
            continue
        if key in ("", "_target_"):
            known = kind
            value = asked
            differs = f"is of class {kind}, not {asked}"
        elif key not in model.arguments:
            raise AmesError(
                f"{word.input_line}: {source} is of class {kind}, which has no {key}; leave the word out"
            )
        else:
            known = model.arguments[key]
            value = value_of(config.model, key)
            differs = f"has {key} {known}"
        if value != known or isinstance(value, bool) != isinstance(known, bool):
            raise AmesError(
                f"{word.input_line}: {source} {differs}; leave the word out, or give another model_path"
            )


class Trained(NamedTuple):
    """A model with its weights, a name for reports, and the fusion that its checkpoint brings."""

    model: Similarity
    name: str
    fusion: Fusion | None


def trained_model(config: DictConfig, path: Path | str | None) -> Trained:
    """Load the model with its weights; ``path`` None: the shipped ones, or none for a model without weights.

    A checkpoint that describes itself decides the structure, and a word of the command line that contradicts
    it is an AmesError; for others (published ones) ``config.model`` decides. ``path``: a file, a name of
    ``ames.models.registry``, or None: the shipped weights; a model without weights needs none.
    """
    kind = str(config.model._target_).rsplit(".", 1)[-1]
    if kind in CLASSES and not model_class(kind).learned:
        if path is not None:
            raise AmesError(f"{config.model._target_} has no weights: leave model_path={path} out")
        model = build_model(config).eval()
        # What a data set proposes is for logits.
        keys = None if model.score_unit == 1 else own_fusion(kind)
        fusion = None if keys is None else Fusion.from_keys(keys, source=kind)
        return Trained(model, kind, fusion)
    if path is None and kind in ("AMES", "ELViS"):
        path = shipped_for(config.desc_name, binarized=flag(config.model, "binarized"), kind=kind)
    if path is None and kind != "AMES":
        raise AmesError(f"model_path is missing: give a checkpoint of {kind}")
    if path is None:
        name = f"{config.desc_name}_ames" + ("_dist" if config.model.binarized else "")
        hint = f"; model_path={name} fetches the released ones" if name in MODELS else ""
        raise AmesError(f"model_path is missing, and no weights {name} are shipped{hint}")
    if str(path) in MODELS:
        model, name, about, _ = load(path, backbone=config.desc_name)
        _check_given(config, model, name)
        return Trained(model, name, Fusion.from_checkpoint(about, source=name))
    weights = weights_for(config.desc_name, path)
    if "model" in weights.about:
        model = build_from_weights(weights, source=str(path))
        _check_given(config, model, str(path))
    else:
        model = build_model(config)
        load_state(model, own_tensors(weights.state, model.part)[0], source=str(path))
    return Trained(model.eval(), Path(path).name, Fusion.from_checkpoint(weights.about, source=str(path)))
