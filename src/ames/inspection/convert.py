"""Convert published pickles and checkpoints into plain data (.npz, .json, .safetensors), and files of other
projects into the library's; descriptor files also into hloc's.
"""

from __future__ import annotations

import filecmp
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from ames.backbones.dinov2_files import is_dinov2, released_names
from ames.datasets.ground_truth import parse_ground_truth, save_ground_truth
from ames.errors import AmesError
from ames.global_search.shortlist import Shortlist
from ames.inspection.asmk_files import (
    convert_features,
    is_asmk,
    is_codebook,
    read_codebook,
    save_codebook,
)
from ames.inspection.conversion import Options
from ames.inspection.from_hloc import from_hloc
from ames.inspection.hloc import is_hloc
from ames.inspection.to_hloc import to_hloc
from ames.io.pickles import load_pickle
from ames.models.checkpoints import read_arguments, recognize
from ames.weights.files import Weights, read_weights, save_state


def convert(
    path: Path | str,
    out: Path | str | None = None,
    *,
    columns: int | None = None,
    how: Options | None = None,
) -> tuple[Path, str]:
    """Convert a file, and return the new path and what it is; the text names further files.

    A shortlist ``.pkl`` becomes .npz, a ground truth ``.pkl`` .json, a checkpoint .safetensors (weights
    alone), a codebook of the asmk package .npz; features of the asmk package and of hloc become descriptor
    files, whose names begin with ``out``, and descriptor files become hloc's .h5. out: the new path, or its
    beginning (None: the same name with the new suffix). columns: entries per query of a shortlist, as
    ``how.columns``. An existing file stays if it is what would be written.

    AmesError for other files, for options that a file does not take, and if ``out`` exists and differs.
    """
    path, target = Path(path), None if out is None else Path(out)
    options = how or Options(columns=columns)
    if path.suffix in (".hdf5", ".h5"):
        return from_hloc(path, target, options) if is_hloc(path) else to_hloc(path, target, options)
    if path.suffix == ".pkl":
        return _pickle(path, target, options)
    if path.suffix in (".pt", ".pth"):
        options.check(path, "a checkpoint", ("columns",))
        weights = read_weights(path)
        target = _target(path, target, ".safetensors")
        about, state = _described(weights, str(path))
        about["converted_from"] = path.name
        what = f"weights, {len(state)} tensors"
        return target, what + _written(target, path, lambda place: save_state(place, state, about))
    raise AmesError(f"{path}: only .pkl, .pt, .pth, .hdf5 and .h5 files are converted")


def _described(weights: Weights, source: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what is known of weights, with the model that tensors show, and the model's own tensors."""
    about, state = dict(weights.about), weights.state
    found = None if "model" in about else recognize(state, source=source)
    if found:
        return about | {"class": found.kind, "model": found.arguments}, found.state
    if "mtc_token" in state and "model" not in about:
        about["model"] = read_arguments(state, source=source)
    if any(name.endswith("pos_embed") for name in state):
        network = released_names(state, source=source)
        state = network if is_dinov2(network) else state
    return about, state


def _pickle(path: Path, out: Path | None, how: Options) -> tuple[Path, str]:
    content = load_pickle(path)
    if isinstance(content, dict):
        return _dict(content, path, out, how)
    how.check(path, "a shortlist", ("columns",))
    try:
        shortlist = Shortlist.from_array(content, columns=how.columns)
    except AmesError as error:
        raise AmesError(f"{path}: {error}") from error
    target, meta = _target(path, out, ".npz"), {"converted_from": path.name}
    queries, entries = shortlist.ids.shape
    what = f"shortlist of {queries} queries, {entries} entries each"
    return target, what + _written(target, path, lambda place: shortlist.save(place, meta=meta))


def _dict(content: dict[Any, Any], path: Path, out: Path | None, how: Options) -> tuple[Path, str]:
    if is_asmk(content) and not is_codebook(content):
        return convert_features(content, path, out, how)
    if is_asmk(content):
        how.check(path, "a codebook", ())
        centroids = read_codebook(content, path)
        target = _target(path, out, ".npz")
        what = f"codebook of {len(centroids):,} words, {centroids.shape[1]}-d"
        return target, what + _written(target, path, lambda place: save_codebook(place, centroids, path))
    how.check(path, "a ground truth", ())
    truth = parse_ground_truth(content, source=str(path))
    target, what = _target(path, out, ".json"), f"ground truth of {len(truth.queries)} queries"
    return target, what + _written(target, path, lambda place: save_ground_truth(place, truth))


def _target(path: Path, out: Path | None, suffix: str) -> Path:
    target = path.with_suffix(suffix) if out is None else out
    if target.suffix != suffix:
        raise AmesError(f"{target}: {path.name} becomes a {suffix} file; give a name that ends so")
    return target


def _written(target: Path, path: Path, save: Callable[[Path], object]) -> str:
    """Write the file; return an empty text, or a note that the same file exists."""
    if not target.exists():
        save(target)
        return ""
    if target.is_file():
        try:
            with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
                twin = Path(folder) / target.name
                save(twin)
                if filecmp.cmp(twin, target, shallow=False):
                    return "; exists already"
        except OSError as error:
            raise AmesError(f"{target.parent}: cannot be written ({error.strerror or error})") from error
    raise AmesError(
        f"{target}: exists, and is not what {path.name} gives; move it away, or give another name with -o"
    )
