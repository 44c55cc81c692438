"""Vectors of an embedder alone: of stored features, and of a data set with its shortlist (``ames embed``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ames.backbones import is_backbone
from ames.datasets.boxes import read_boxes
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_list
from ames.embedders.base import GALLERY, QUERY, FeatureEmbedder
from ames.embedders.checkpoints import load_embedder, load_pair
from ames.embedders.features import GLOBAL
from ames.errors import AmesError
from ames.evaluation.embedded_search import feature_files
from ames.extraction.config import ExtractionConfig
from ames.extraction.factory import build_vector_extractor
from ames.extraction.fused_files import open_stored, write_fused
from ames.extraction.pipeline import Extraction, Images, plan_output, run
from ames.io.console import check_device
from ames.pipelines.extract import check_out
from ames.pipelines.prepare import make_shortlist


def embed_features(
    config: ExtractionConfig, files: Mapping[str, Path], *, out: str, listed: Path | None = None
) -> Extraction:
    """Write the vectors of the configuration's embedder to OUT_global.hdf5, of stored features.

    files: of features, by name. out: DIR/NAME. listed: names of the images, where the files have none.
    """
    assert config.embedder is not None
    stem = check_out(out)
    check_device(config.device)
    embedder = load_embedder(config.embedder, config.side)
    if not isinstance(embedder, FeatureEmbedder):
        raise AmesError(f"{config.embedder}: its {embedder.side} side reads images: give --images")
    names = None if listed is None else [item.path for item in read_list(listed)]
    stored = open_stored(embedder, files)
    return write_fused(embedder.to(config.device), stored, stem, names=names, overwrite=config.overwrite)


def embed_dataset(
    path: Path,
    name: str,
    config: ExtractionConfig,
    *,
    query_embedder: Path | None = None,
    images: Path | None = None,
    boxes: str | None = None,
) -> Iterator[str]:
    """Make the vectors of a data set's queries and gallery, and the shortlist ``nn_<name>``; yield a line
    after each.

    name: the files' beginning. query_embedder: the file of the query side (None: the configuration's). A side
    that reads features takes them from the folder, as a training finds them
    (``ames.evaluation.embedded_search.feature_files``), or under the names of their backbones; one that reads
    images takes those of the folder's lists. A training set is a gallery. images, boxes: as of
    ``ames.pipelines.prepare.prepare``. Complete files stay, and AmesError is raised where they are others.
    """
    assert config.embedder is not None
    if is_backbone(name):
        raise AmesError(f"--name {name}: is a backbone's, whose files may be in the folder; give another one")
    if config.side is not None:
        raise AmesError("--side: queries take the query side, the gallery the gallery side; leave it out")
    check_device(config.device)
    query, gallery = query_embedder or config.embedder, config.embedder
    load_pair(query, gallery)
    target = DatasetFolder(path, name)
    training = not target.image_list("gallery").exists() and target.image_list().exists()
    for split in ("",) if training else ("query", "gallery"):
        file, side = (query, QUERY) if split == "query" else (gallery, GALLERY)
        own = replace(config, embedder=file, side=side)
        yield _embed_split(target, split, own, images, boxes if split == "query" else None).summary()
    yield str(make_shortlist(target, training=training, overwrite=config.overwrite, device=config.device))


def _embed_split(
    target: DatasetFolder, split: str, config: ExtractionConfig, images: Path | None, boxes: str | None
) -> Extraction:
    embedder = load_embedder(str(config.embedder), config.side)
    if isinstance(embedder, FeatureEmbedder):
        stored = open_stored(embedder, _feature_files(embedder, target.path, split, config.embedder))
        listed = target.image_list(split)
        if listed.is_file():
            stored.check_images([item.path for item in read_list(listed)], listed)
        return write_fused(embedder.to(config.device), stored, target.stem(split), overwrite=config.overwrite)
    listed = target.image_list(split)
    names = [item.path for item in read_list(listed)]
    cut = None if boxes is None else read_boxes(str(target.file(boxes)), names, listed)
    found = Images(Path(images or target.path), names, cut)
    extractor = build_vector_extractor(config)
    return run(found, extractor, plan_output(target.stem(split), found, extractor, kinds=("global",)))


def _feature_files(embedder: FeatureEmbedder, path: Path, split: str, source: object) -> dict[str, Path]:
    """The files of a data set's folder that hold the features of an embedder."""
    found = feature_files(path, embedder.features, split)
    for spec in embedder.features:
        if found[spec.name].is_file():
            continue
        if spec.backbone is None:
            raise AmesError(
                f"{found[spec.name]}: missing; {source} reads its feature {spec.name!r}: make it, or give "
                f"-o {path / 'NAME'}_{split} and --features {spec.name}=FILE"
            )
        folder = DatasetFolder(path, spec.backbone)
        file = folder.vectors(split) if spec.kind == GLOBAL else folder.local(split)
        if not file.is_file():
            raise AmesError(
                f"{file}: missing; the embedder reads its feature {spec.name!r} from it (ames prepare "
                f"--backbone {spec.backbone} makes it)"
            )
        found[spec.name] = file
    return found
