"""The models by name, in one table, and the classes that they are of.

A new model is a file, a line in ``CLASSES`` and, where it has weights, a row in ``MODELS``
(docs/extending.md). Reading the table needs nothing but Python.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ames.errors import AmesError, unknown

if TYPE_CHECKING:
    from ames.models.base import Similarity

CLASSES = {
    "AMES": "ames.models.ames",
    "ELViS": "ames.models.elvis",
    "RRT": "ames.models.rrt",
    "Locore": "ames.models.locore",
    "Chamfer": "ames.models.chamfer",
    "ASMK": "ames.models.asmk",
    "MutualNearest": "ames.models.mutual_nearest",
    "SpatialVerification": "ames.models.spatial",
    "LightGlueMatches": "ames.models.light_glue",
}

SHIPPED = "shipped"  # ``ModelEntry.weights``: the file is part of the package


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model by name, and the system that it is part of: what extracts its descriptors, and its fusion.

    kind: of ``CLASSES``. arguments: of the constructor, where they differ from the defaults. weights:
    ``SHIPPED``, a file below the address of the released ones (``ames.weights.released``), or None: it has
    none. home: where its authors have that file, which is not downloaded: it must lie in the folder of
    weights (``ames.weights.released.given``). backbone: whose descriptors it takes, None: any, or those that
    ``takes`` names, which no backbone here makes. extraction:
    options of ``ames.extraction.config.ExtractionConfig`` that its descriptors were made with; a detector is
    the name of a released file. fusion: ``lamb`` and ``temp``. query_desc_num, db_desc_num: descriptors per
    image, as it is used. default: of the shipped models for its backbone, the one that is taken where none is
    named. same: the ``sameness`` (``ames.retrieval.duplicates``) from which on two photos are taken to show
    the same, None: not measured. licence: of the weights.
    """

    kind: str = "AMES"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    home: str | None = None
    takes: str | None = None
    backbone: str | None = None
    extraction: Mapping[str, Any] = field(default_factory=dict)
    fusion: Mapping[str, float] | None = None
    query_desc_num: int = 600
    db_desc_num: int = 50
    default: bool = False
    same: float | None = None
    licence: str = "Apache-2.0"


_DEFAULT_KINDS = {"aliked": "ELViS", "rootsift": "AMES"}  # docs/shipped.md: why


def _shipped(
    backbone: str, binarized: bool, lamb: float, temp: float, kind: str = "AMES", same: float | None = None
) -> ModelEntry:
    """lambda, gamma (docs/shipped.md) and ``same`` (docs/own_photos.md) were chosen on generated validation
    pictures.
    """
    small = {"num_encoder_layers": 3, "dim_feedforward": 256, "init": "matching"} if kind == "AMES" else {}
    return ModelEntry(
        kind=kind,
        arguments={"local_dim": 128, "binarized": binarized, **small},
        weights=SHIPPED,
        backbone=backbone,
        fusion={"lamb": lamb, "temp": temp},
        query_desc_num=200,
        default=_DEFAULT_KINDS[backbone] == kind,
        same=same,
    )


def _released(name: str, binarized: bool, lamb: float, temp: float) -> ModelEntry:
    """lambda and gamma are those that its authors chose on the public split of GLDv2."""
    backbone = name.split("_")[0]
    return ModelEntry(
        arguments={"local_dim": {"dinov2": 768, "cvnet": 1024}[backbone], "binarized": binarized},
        weights=f"networks/{name}.pt",
        backbone=backbone,
        extraction={"detector": f"{backbone}_detector", "desc_num": 700},
        fusion={"lamb": lamb, "temp": temp},
        licence="not stated",
    )


_RRT_AUTHORS = "https://github.com/uvavision/RerankingTransformer"
_RRT_PRODUCTS = "https://huggingface.co/fwtan/rrt_sop_data"


def _rrt_landmarks(features: str) -> ModelEntry:
    """For descriptors of DELG, which no backbone here makes. Its authors rank by the logit alone."""
    return ModelEntry(
        kind="RRT",
        takes="DELG",
        weights=f"RRT_GLD/rrt_gld_ckpts/{features}.pt",
        home=_RRT_AUTHORS,
        fusion={"lamb": 0.0, "temp": 1.0},
        query_desc_num=500,
        db_desc_num=500,
        licence="GPL-3.0",
    )


def _rrt_products(recipe: str) -> ModelEntry:
    """For the 7 x 7 cells of the network in the same file. Its authors rank by the logit alone."""
    return ModelEntry(
        kind="RRT",
        arguments={"variant": "sop"},
        takes="its own network",
        weights=f"rrt_sop_ckpts/rrt_r50_sop_{recipe}.pt",
        home=_RRT_PRODUCTS,
        fusion={"lamb": 0.0, "temp": 1.0},
        query_desc_num=49,
        db_desc_num=49,
        licence="not stated",
    )


def _elvis(backbone: str, local_dim: int, trained_on: str, **extraction: Any) -> ModelEntry:
    """lambda and gamma are those of its authors' configuration. What the score is: ``ames.models.elvis``."""
    name = f"{backbone.split('-')[0]}_elvis_{trained_on}"
    return ModelEntry(
        kind="ELViS",
        arguments={"local_dim": local_dim},
        weights=f"../elvis/networks/{name}.pt",
        backbone=backbone,
        extraction={"desc_num": 700, **extraction},
        fusion={"lamb": 0.5, "temp": 0.5},
        db_desc_num=600,
    )


# First by the count of matches, then by the global similarity, which is in [-1, 1]: one match more adds more
# to the fused score than 2 lamb, up to 3,000 matches, where the sigmoid's slope is still above 0.04.
_COUNTS = {"lamb": 2e-5, "temp": 1e-3}
_SHARES = {"lamb": 2e-5, "temp": 1.0}


def _spatial(**arguments: Any) -> ModelEntry:
    """Descriptors as many as of DELG."""
    return ModelEntry(
        kind="SpatialVerification",
        arguments=arguments,
        fusion=_COUNTS,
        query_desc_num=1000,
        db_desc_num=1000,
    )


MODELS = {
    "aliked_elvis": _shipped("aliked", False, 0.1, 0.02, "ELViS"),
    "aliked_elvis_binary": _shipped("aliked", True, 0.35, 0.08, "ELViS", same=0.998),
    "aliked_ames": _shipped("aliked", False, 0.4, 0.2),
    "aliked_ames_dist": _shipped("aliked", True, 0.4, 0.2, same=0.988),
    "rootsift_ames": _shipped("rootsift", False, 0.45, 0.1),
    "rootsift_ames_dist": _shipped("rootsift", True, 0.5, 0.2, same=0.991),
    "rootsift_elvis": _shipped("rootsift", False, 0.3, 0.05, "ELViS"),
    "rootsift_elvis_binary": _shipped("rootsift", True, 0.35, 0.08, "ELViS", same=0.988),
    "dinov2_ames": _released("dinov2_ames", False, 0.50, 0.20),
    "dinov2_ames_dist": _released("dinov2_ames_dist", True, 0.35, 0.10),
    "cvnet_ames": _released("cvnet_ames", False, 0.85, 0.80),
    "cvnet_ames_dist": _released("cvnet_ames_dist", True, 0.65, 0.20),
    "rrt_gld_r50_gldv1": _rrt_landmarks("r50_gldv1"),
    "rrt_gld_r50_gldv2": _rrt_landmarks("r50_gldv2"),
    "rrt_gld_r101_gldv1": _rrt_landmarks("r101_gldv1"),
    "rrt_gld_r101_gldv2": _rrt_landmarks("r101_gldv2"),
    "rrt_sop_r50_frozen": _rrt_products("rerank_frozen"),
    "rrt_sop_r50_finetune": _rrt_products("rerank_finetune"),
    "locore_dinov2_base": ModelEntry(
        kind="Locore",
        weights="model.safetensors",
        home="https://huggingface.co/vislang/locore_dinov2_base",
        backbone="dinov2",
        fusion={"lamb": 0.5, "temp": 0.1},
        query_desc_num=48,
        db_desc_num=48,
        licence="not stated",
    ),
    "dinov2_elvis_gld": _elvis("dinov2", 768, "gld", detector="dinov2_detector"),
    "dinov2_elvis_sop": _elvis("dinov2", 768, "sop", detector="dinov2_detector"),
    "dinov3_elvis_gld": _elvis("dinov3-l", 1024, "gld", long_side=768),
    "siglip2_elvis_gld": _elvis("siglip2-so400m", 1152, "gld", long_side=768),
    "chamfer": ModelEntry(kind="Chamfer", fusion={"lamb": 0.5, "temp": 0.2}),
    "chamfer_symmetric": ModelEntry(
        kind="Chamfer", arguments={"symmetric": True}, fusion={"lamb": 0.5, "temp": 0.2}
    ),
    "mutual_nearest": ModelEntry(kind="MutualNearest", fusion=_SHARES, db_desc_num=600),
    "spatial": _spatial(),
    "spatial_magsac": _spatial(estimator="homography-magsac"),
    "lightglue": ModelEntry(
        kind="LightGlueMatches", backbone="aliked", fusion=_COUNTS, query_desc_num=200, db_desc_num=200
    ),
}


def list_models() -> list[str]:
    """Return the names that ``load_model`` takes."""
    return list(MODELS)


def model_entry(name: str) -> ModelEntry:
    """Return the row of a model; AmesError names the nearest ones."""
    if name not in MODELS:
        raise AmesError(unknown("model", name, MODELS))
    return MODELS[name]


def own_fusion(kind: str) -> Mapping[str, float] | None:
    """Return lambda and gamma of a class whose scores are no logits and which has no weights, from its first
    row; None: it has no row without weights.
    """
    rows = (entry for entry in MODELS.values() if entry.kind == kind and entry.weights is None)
    return next((entry.fusion for entry in rows), None)


def shipped_for(backbone: str | None, *, binarized: bool, kind: str | None = None) -> str | None:
    """Return the name of the shipped model for a backbone's descriptors that is taken by default.

    kind: of ``CLASSES``, None: any. None where none is shipped.
    """
    return next(iter(all_shipped_for(backbone, binarized=binarized, kind=kind)), None)


def preset_model(name: str) -> str:
    """Return the model that a preset stands for: a backbone's binary one, else the name or path as it is."""
    binary = [x for x, entry in MODELS.items() if entry.arguments.get("binarized") and entry.backbone == name]
    return min(binary, key=lambda x: not MODELS[x].default, default=name)


def all_shipped_for(backbone: str | None, *, binarized: bool, kind: str | None = None) -> list[str]:
    """As ``shipped_for``: the names of all, the default first."""
    found = []
    for name, entry in MODELS.items():
        own = (entry.weights, entry.backbone, entry.arguments.get("binarized", False))
        if own == (SHIPPED, backbone, binarized) and kind in (None, entry.kind):
            found.append(name)
    return sorted(found, key=lambda name: not MODELS[name].default)


def released_files() -> dict[str, list[str]]:
    """Name -> paths of released models, from ``ames.weights.released.BASE`` (``../``: beside it)."""
    released = {name: entry.weights for name, entry in MODELS.items() if entry.home is None}
    return {name: [path] for name, path in released.items() if path not in (None, SHIPPED)}


def model_class(name: object, *, source: str = "model") -> type[Similarity]:
    """Return the class of this name; AmesError lists the known ones."""
    if not isinstance(name, str) or name not in CLASSES:
        raise AmesError(f"{source}: class {name!r} is none of {', '.join(CLASSES)}")
    found: type[Similarity] = getattr(importlib.import_module(CLASSES[name]), name)
    return found
