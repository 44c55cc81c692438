"""Describe a file: kind, layout, sizes and statistics, as plain dicts that JSON can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ames.database.store import Database
from ames.datasets.ground_truth import GroundTruth, load_ground_truth, parse_ground_truth
from ames.datasets.lists import read_list
from ames.descriptors.local import DescriptorFile, read_globals, recorded
from ames.errors import AmesError
from ames.global_search.shortlist import Shortlist, count_repeated
from ames.inspection.about_weights import about_itq, about_weights
from ames.inspection.asmk_files import is_asmk
from ames.inspection.foreign import about_asmk, about_hloc
from ames.inspection.hloc import is_hloc
from ames.inspection.row_figures import about_rows, joined, spread
from ames.io.archives import reading_npz
from ames.io.hdf5 import find_features, open_hdf5
from ames.io.pickles import load_pickle
from ames.models.layers.binarization import read_itq
from ames.weights.files import read_as_written, with_plain_names

HDF5, WEIGHTS = (".hdf5", ".h5"), (".pt", ".pth", ".safetensors")
ENDINGS = (*HDF5, *WEIGHTS, ".npz", ".pkl", ".json", ".txt", ".csv")
SAMPLE = 1000  # images for the statistics
_READ = 32  # images read at a time


def inspect(path: Path | str, *, sample: int | None = SAMPLE) -> dict[str, Any]:
    """Describe a file or a database. ``kind`` is "local descriptors", "global descriptors", "shortlist",
    "scores", "ground truth", "checkpoint of AMES", "feature detector", "ITQ projection", "weights", "list of
    images", "codebook" or, for a folder, "database"; of other projects: "local features of hloc", "global
    descriptors of hloc", "features of the asmk package", "training features of ...", "codebook of ...",
    "DINOv2 network".

    sample: images, evenly spread, for the statistics of descriptors (None: all). AmesError for files that are
    missing, broken or none of these; nothing in a file is executed.
    """
    path = Path(path)
    if path.is_dir():
        return about_database(Database(path, allow_partial=True))
    if not path.is_file():
        raise AmesError(f"{path}: no such file")
    found = _by_ending(path, sample)
    return {"file": str(path), "kind": found.pop("kind"), "file_bytes": path.stat().st_size} | found


def _by_ending(path: Path, sample: int | None) -> dict[str, Any]:
    if path.suffix in HDF5:
        return _descriptors(path, sample)
    if path.suffix in WEIGHTS:
        written = read_as_written(path)
        found = about_weights(path, with_plain_names(written, path))
        return found | ({"first": sorted(written.state)[:3]} if "first" in found else {})
    if path.suffix == ".npz":
        return _archive(path)
    if path.suffix == ".pkl":
        content = load_pickle(path)
        if isinstance(content, dict) and is_asmk(content):
            return about_asmk(content, path)
        if isinstance(content, dict):
            return about_ground_truth(parse_ground_truth(content, source=str(path)))
        try:
            found = about_shortlist(Shortlist.from_array(content, distinct=False))
        except AmesError as error:
            raise AmesError(f"{path}: {error}") from error
        return found | {"stored_as": f"{type(content).__name__} of {content.dtype}"}
    if path.suffix == ".json":
        return about_ground_truth(load_ground_truth(path))
    if path.suffix in (".txt", ".csv"):
        return _list(path)
    raise AmesError(f"{path}: the ending {path.suffix!r} is none of {', '.join(ENDINGS)}")


# ---- descriptors ------------------------------------------------------------------------------------


def _descriptors(path: Path, sample: int | None) -> dict[str, Any]:
    if is_hloc(path):
        return about_hloc(path, sample)
    with open_hdf5(path) as file:
        features = find_features(file)
        flat = features.ndim == 2 and not features.dtype.names
        storage = _storage(features)
    if flat:
        vectors = read_globals(path)
        names, provenance = recorded(path)
        return {
            "kind": "global descriptors",
            "images": len(vectors),
            "width": vectors.shape[1],
            "bytes_per_image": 4 * vectors.shape[1],
            "backbone": provenance.get("backbone"),
            "provenance": provenance,
            "has_names": names is not None,
            "storage": storage,
        } | about_rows(vectors)
    return about_local(DescriptorFile(path), sample) | {"storage": storage}


def _storage(features: h5py.Dataset) -> str:
    if features.is_virtual:
        return f"merged from {len({source.file_name for source in features.virtual_sources()})} files"
    if features.chunks is None:
        return "contiguous"
    return f"chunks {features.chunks}" + (f", {features.compression}" if features.compression else "")


_SHOWN = {"positions": "locations", "scale": "scales", "weight": "weights_fall"}


def about_local(file: DescriptorFile, sample: int | None = SAMPLE) -> dict[str, Any]:
    """Return layout, sizes and provenance of a file of local descriptors, and statistics of a sample."""
    found = {
        "kind": "local descriptors",
        "layout": file.layout.text,
        "images": len(file),
        "slots": file.slots,
        "width": file.width,
        "dtype": str(file.dtype),
        "bytes_per_image": file.image_bytes,
        "backbone": file.provenance.get("backbone"),
        "provenance": file.provenance,
        "has_names": file.names is not None,
    }
    if not len(file):
        return found
    n = len(file) if sample is None else min(sample, len(file))
    counts, parts = [], []
    extent, scales, falling = 0.0, set(), True
    for rows in np.array_split(np.linspace(0, len(file) - 1, n).round().astype(int), -(-n // _READ)):
        local = file.read(rows)
        counts.append(local.counts.numpy())
        parts.append(about_rows(local.descriptors[local.valid].numpy()))
        if local.weight is not None:
            both = local.valid[:, 1:] & local.valid[:, :-1]
            falling &= not bool((local.weight.diff(dim=1) > 0)[both].any())
        if local.positions is not None and bool(local.valid.any()):
            extent = max(extent, float(local.positions[local.valid].max()))
        if local.scale is not None:
            scales |= set(local.scale[local.valid].unique().tolist())
    count = np.concatenate(counts)
    found |= {
        "images_read": n,
        "descriptors_per_image": spread(count),
        "images_without_descriptors": int((count == 0).sum()),
        "padding": round(1 - float(count.mean()) / max(file.slots, 1), 4),
    }
    if file.layout.kind != "bare":
        found |= {
            "locations": "pixels" if extent > 1.01 else "shares of height and width",
            "scales": len(scales),
            "weights_fall": falling,
        }
        found |= dict.fromkeys((_SHOWN[name] for name in file.missing & _SHOWN.keys()), "not in the file")
    return found | joined(parts)


def about_database(database: Database) -> dict[str, Any]:
    """Return sizes and origin of a compact database."""
    manifest = database.manifest
    return {
        "file": str(database.path),
        "kind": "database",
        "file_bytes": manifest.file_bytes,
        "images": len(database),
        "deleted": database.rows - len(database),
        "bytes_per_image": round(database.bytes_per_image, 1),
        "slots": database.slots,
        "width": database.width,
        "codes": database.codes,
        "global_bytes": manifest.global_bytes,
        "global_factory": manifest.factory,
        "model": manifest.model.get("name"),
        "projection": manifest.projection[:16],
        "segments": len(database.segments),
        "unfinished_of": manifest.building,
        "provenance": manifest.provenance,
    }


# ---- shortlists, ground truths, lists -----------------------------------------------------------------


def about_shortlist(shortlist: Shortlist) -> dict[str, Any]:
    ids, similarities = shortlist.ids, shortlist.similarities
    there = ids >= 0
    found = {
        "kind": "shortlist",
        "queries": ids.shape[0],
        "entries": ids.shape[1],
        "highest_id": int(ids.max(initial=-1)),
        "empty_entries": int((~there).sum()),
        "repeated_entries": count_repeated(ids),
        "meta": dict(shortlist.meta),
    }
    if there.any():
        found["similarities"] = spread(similarities[there].astype(np.float64))
        ordered = np.where(there, similarities, -np.inf)
        found["best_first"] = bool((ordered[:, 1:] <= ordered[:, :-1]).all())
        found["first_is_self"] = round(float((ids[:, 0] == np.arange(len(ids))).mean()), 4)
    return found


def about_ground_truth(truth: GroundTruth) -> dict[str, Any]:
    keys = sorted(truth.queries[0]) if truth.queries else []
    return {
        "kind": "ground truth",
        "queries": len(truth.queries),
        "gallery_images": len(truth.imlist) or None,
        "boxes": truth.boxes is not None,
        "images_per_query": {key: spread(np.array([len(q[key]) for q in truth.queries])) for key in keys},
        "queries_without": {key: sum(not len(q[key]) for q in truth.queries) for key in keys},
    }


def _list(path: Path) -> dict[str, Any]:
    items = read_list(path)
    labels = {item.label for item in items if item.label is not None}
    return {
        "kind": "list of images",
        "images": len(items),
        "labelled": sum(item.label is not None for item in items),
        "labels": len(labels),
        "first": items[0].path,
    }


def _archive(path: Path) -> dict[str, Any]:
    with reading_npz(path, "an .npz file"), np.load(path, allow_pickle=False) as archive:
        names = set(archive.files)
        logits = archive["logits"] if "logits" in names else None
        ids = archive["ids"] if logits is not None and "ids" in names else None
        centroids = archive["centroids"] if names == {"centroids", "meta"} else None
    if "proj" in names:
        return about_itq(read_itq(path))
    if centroids is not None:
        return {"kind": "codebook", "words": len(centroids)} | about_rows(centroids)
    if logits is not None:
        scored = np.isfinite(logits)
        found = {
            "kind": "scores",
            "queries": logits.shape[0],
            "entries": logits.shape[-1],
            "scored": int(scored.sum()),
            "logits": spread(logits[scored].astype(np.float64)) if scored.any() else None,
        }
        return found | ({} if ids is None else {"repeated_entries": count_repeated(ids)})
    return about_shortlist(Shortlist.load(path, distinct=False))
