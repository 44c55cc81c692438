"""Networks of the transformers library: where their weights come from, and strict loading.

Weights are a file of a network's authors, a Hugging Face folder (config.json, *.safetensors), a name of the
hub, or none. Files are read by ``ames.weights.files``, so that nothing in them is executed. transformers gets
tensors under the names of the hub's files, which every version knows.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ames.backbones.base import MapBackbone
from ames.errors import AmesError, first_line, installing
from ames.io.hashing import sha256
from ames.weights.files import read_as_written
from ames.weights.tensor_names import check_shapes

PUBLISHED = "published"  # weights that the authors released; fetched if missing

IMAGENET_MEAN: tuple[float, float, float] = (0.485, 0.456, 0.406)
IMAGENET_STD: tuple[float, float, float] = (0.229, 0.224, 0.225)

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PATIENCE = 5.0  # seconds for the hub to answer, at each of its addresses
_HUB_FILES = ["config.json", "model.safetensors", "model-*.safetensors"]
_FILES = (".pt", ".pth", ".pyth", ".safetensors")


class Network(MapBackbone):
    """A ``MapBackbone`` that notes its weights; in evaluation mode. Pickling copies the weights."""

    SIZES: ClassVar[Mapping[str, Any]]  # of the published networks, by name
    weights: str = "not set"

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in self.SIZES:
            raise AmesError(f"{type(self).__name__} {name!r} is none of: {', '.join(self.SIZES)}")
        self.name = name

    def provenance(self) -> dict[str, Any]:
        return super().provenance() | {"transformers": import_transformers().__version__}


class KeyMapping(NamedTuple):
    """A tensor of the authors' file, and what its equal parts along the first axis become.

    targets: one name per part, "" for a part that the network has no place for.
    """

    name: str
    shape: tuple[int, ...]
    targets: tuple[str, ...]


def layer_mappings(old: str, new: str, shape: tuple[int, ...]) -> list[KeyMapping]:
    """Weight, of this shape, and bias of one layer under another name."""
    return [
        KeyMapping(f"{old}.weight", shape, (f"{new}.weight",)),
        KeyMapping(f"{old}.bias", shape[:1], (f"{new}.bias",)),
    ]


def import_transformers() -> Any:
    """The module transformers; AmesError says how to install it."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise AmesError(
            f"this backbone needs transformers, which cannot be loaded ({first_line(error)}): "
            + installing("extract")
        ) from error


def resolve_weights(weights: str | Path, published: str) -> Path:
    """The file or folder that ``weights`` names; a name of the hub is fetched to the hub's cache.

    ``published``: the hub's name that ``PUBLISHED`` stands for. AmesError where there is nothing.
    """
    if weights == PUBLISHED:
        weights = published
    path = Path(weights).expanduser()
    if path.exists():
        return path
    if not _HUB_NAME.fullmatch(str(weights)) or str(weights).startswith(".") or path.suffix in _FILES:
        raise AmesError(f"{weights}: no such file or folder of weights, nor a name of the hub (owner/model)")
    import_transformers()
    try:
        return _fetched(str(weights))
    except Exception as error:  # the network, the hub and the licence can refuse in any way
        raise AmesError(
            f"{weights}: cannot be fetched from the hub ({first_line(error)}); "
            "fetch it where that is possible and give the folder or file as weights"
        ) from error


def _fetched(name: str) -> Path:
    """Return the folder of a model in the hub's cache, updated where the hub answers in time."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        # Asked first: snapshot_download waits for an answer without end, also for what the cache holds.
        HfApi().model_info(name, timeout=_PATIENCE)
    except Exception as error:
        try:
            return Path(snapshot_download(name, allow_patterns=_HUB_FILES, local_files_only=True))
        except Exception:
            raise error from None  # it says why the hub was of no use
    return Path(snapshot_download(name, allow_patterns=_HUB_FILES))


def fingerprint(path: Path) -> str:
    """Return "NAME sha256 <12 hex digits>" of a file, or of a folder's *.safetensors."""
    if path.is_file():
        return f"{path.name} sha256 {sha256(path)[:12]}"
    files = _tensors_of(path)
    if len(files) == 1:
        return fingerprint(files[0])
    digests = "".join(map(sha256, files))
    return f"{len(files)} safetensors sha256 {hashlib.sha256(digests.encode()).hexdigest()[:12]}"


def folder_config(folder: Path, kind: Any) -> Any:
    """config.json of a Hugging Face folder as a configuration of class ``kind``; AmesError for another's."""
    if not (folder / "config.json").is_file():
        raise AmesError(f"{folder}: no config.json in it: not a folder of a Hugging Face model")
    try:
        found, _ = kind.get_config_dict(str(folder))
        base = getattr(kind, "base_config_key", "")
        part = found.get(base) if isinstance(found.get(base), dict) else found
        if part.get("model_type", kind.model_type) != kind.model_type:
            raise AmesError(f"{folder}: a model of type {part['model_type']}, expected {kind.model_type}")
        return kind.from_dict(part)
    except AmesError:
        raise
    except Exception as error:  # a file by hand can be wrong in any way
        why = first_line(error)
        raise AmesError(f"{folder}/config.json: not a readable configuration ({why})") from error


def folder_state(folder: Path) -> dict[str, Tensor]:
    """All tensors of a Hugging Face folder's *.safetensors, float32."""
    # Names are not stripped per file: one of several may hold nothing but tensors below "model.".
    return {name: x for path in _tensors_of(folder) for name, x in read_as_written(path).state.items()}


def rename_state_dict(
    mappings: Sequence[KeyMapping], state: Mapping[str, Tensor], *, source: str
) -> dict[str, Tensor]:
    """A file's tensors under other names; AmesError names the first that is missing, misshapen or extra."""
    check_shapes(state, {row.name: row.shape for row in mappings}, source=source)
    _check_real(state, source)
    new: dict[str, Tensor] = {}
    for name, _, targets in mappings:
        parts = state[name].chunk(len(targets)) if len(targets) > 1 else (state[name],)
        new |= {target: part for target, part in zip(targets, parts, strict=True) if target}
    return new


def load_strict(kind: Any, config: Any, state: dict[str, Tensor], *, source: str) -> Any:
    """A transformers model of class ``kind`` with the tensors of ``state``, named as in the hub's files.

    Strict: AmesError names the first tensor that is missing, of another shape, or has no place.
    """
    _check_real(state, source)
    try:
        with _quiet():
            model, info = kind.from_pretrained(
                None,
                config=config,
                state_dict=state,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # reported below instead of raised in many lines
                output_loading_info=True,
            )
    except Exception as error:  # of settings that make no network: an unknown activation, quantization ...
        raise AmesError(f"{source}: its settings make no network here ({first_line(error)})") from error
    for trouble, text in (
        ("mismatched_keys", "{} has another shape than this model's"),
        ("missing_keys", "it lacks {}"),
        ("unexpected_keys", "{} has no place in this one"),
    ):
        names = sorted(x if isinstance(x, str) else x[0] for x in info[trouble])
        if names:
            raise AmesError(f"{source}: weights of another model: {text.format(names[0])}")
    return model


def random_init(kind: Any, config: Any, seed: int) -> Any:
    """A transformers model with random weights; torch's own random state is left as it is."""
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        return kind(config)


def _check_real(state: Mapping[str, Tensor], source: str) -> None:
    """AmesError for a tensor of whole or complex numbers, which would be cast: quantized ones."""
    for name, x in state.items():
        if not x.is_floating_point():
            kind = str(x.dtype).removeprefix("torch.")
            raise AmesError(f"{source}: {name} holds {kind}; weights of floating-point numbers only")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and reports: what is wrong is raised."""
    log = import_transformers().logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


def _tensors_of(folder: Path) -> list[Path]:
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise AmesError(f"{folder}: no model.safetensors in it (pickled weights of the hub are not read)")
    return files
