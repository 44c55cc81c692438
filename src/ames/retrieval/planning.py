"""What a collection is to be built of: from a caller's options to a ``Collection``."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from ames.backbones.choice import chosen, default_backbone
from ames.errors import AmesError
from ames.extraction.extractor import preset_config
from ames.io.hashing import sha256
from ames.models.load import Loaded
from ames.models.registry import ModelEntry, shipped_for
from ames.reranking.fusion import Fusion
from ames.retrieval.collection import GALLERY, QUERY, Collection

log = logging.getLogger(__name__)


def default_model() -> str:
    """The shipped binary model of the default backbone."""
    backbone = default_backbone()
    name = shipped_for(backbone, binarized=True)
    assert name is not None
    log.info("model %s; %s", name, chosen(backbone))
    return name


def plan_collection(
    found: Loaded, model: str | Path, images: str, fusion: Fusion | None, options: dict[str, Any]
) -> Collection:
    """What a collection is built of, from the options of ``Retriever.build``."""
    entry = found.entry
    name = found.name if entry is not None and entry.backbone else options.pop("backbone", None)
    if name is None:
        raise AmesError(f"model {model}: name the backbone of its photos, such as backbone='rootsift'")
    if fusion is None and Fusion.from_checkpoint(found.about, source=found.name) is None:
        raise AmesError(f"{found.name} brings no lambda and gamma: give fusion=Fusion(lamb, gamma)")
    stored = options.pop("desc_num", 50 if entry is None else entry.db_desc_num)
    if type(stored) is not int or stored < 1:
        raise AmesError(f"desc_num {stored!r} is not a whole number of 1 or more")
    given, query_embedder = embedder_options(options)
    config = preset_config(name, **given)
    files = {GALLERY: config.embedder, QUERY: query_embedder}
    place = Path(model) if entry is not None else Path(model).resolve()
    return Collection(
        model=str(place),
        extraction=config if found.model.code_bits is None else replace(config, pack=place),
        desc_num=stored,
        query_desc_num=query_count(entry),
        images=images,
        fusion=fusion,
        query_embedder=query_embedder,
        embedders={side: sha256(path) for side, path in files.items() if path is not None},
    )


def embedder_options(options: dict[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """Return the options of extraction of photos, by the gallery side, and the query side's file (None: the
    same).

    AmesError where the embedders are not of one space, or read what no backbone makes of photos.
    """
    given = {key: value for key, value in options.items() if key != "query_embedder"}
    query, gallery = options.get("query_embedder"), options.get("embedder")
    if given.get("side") is not None:
        raise AmesError("side: photos take the gallery side, queries the query side; leave side out")
    if gallery is None:
        if query is not None:
            raise AmesError("query_embedder: give the embedder of the photos, too")
        return given, None
    from ames.extraction.embedded import check_sides

    gallery, query = Path(gallery).resolve(), None if query is None else Path(query).resolve()
    check_sides(query or gallery, gallery)
    return given | {"embedder": gallery, "side": GALLERY}, None if query == gallery else query


def plan_update(
    folder: Path,
    there: Collection,
    made_by: Loaded,
    model: str | Path | None,
    fusion: Fusion | None,
    options: dict[str, Any],
) -> Collection:
    """Return a folder's collection, for this machine. AmesError where options name another one."""
    machine = {key: options[key] for key in ("device", "workers", "batch_size") if key in options}
    told = {**options}
    if made_by.entry is None or made_by.entry.backbone is None:  # the collection knows what it was given
        told = {"backbone": there.extraction.backbone} | told
    wanted = plan_collection(made_by, model or there.model, there.images, fusion or there.fusion, told)
    same = ["model"] if model is not None else []
    same += [key for key in ("fusion", "desc_num") if key in options or (key == "fusion" and fusion)]
    same += ["embedders"] if options.get("embedder") is not None else []
    asked = {key: getattr(wanted, key) for key in same}
    extraction = {key: getattr(wanted.extraction, key) for key in options if hasattr(wanted.extraction, key)}
    asked["extraction"] = replace(there.extraction, **extraction | {"desc_num": there.extraction.desc_num})
    there.check_same(folder, replace(there, **asked))
    return replace(there, extraction=replace(there.extraction, **machine))


def query_count(entry: ModelEntry | None) -> int:
    """Local descriptors that a model is used with of a query."""
    return 600 if entry is None else entry.query_desc_num
