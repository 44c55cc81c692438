"""From a folder of images and lists to descriptors and a shortlist: stages that skip what is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ames.datasets.boxes import read_boxes
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_list
from ames.embedders.base import GALLERY, QUERY
from ames.errors import AmesError
from ames.extraction.base import BaseExtractor
from ames.extraction.config import ExtractionConfig
from ames.extraction.embedded import check_sides
from ames.extraction.factory import build_extractor
from ames.extraction.pipeline import Extraction, Images, plan_output, run
from ames.global_search import build as shortlists
from ames.io.console import check_device


def prepare(
    path: Path,
    config: ExtractionConfig,
    *,
    images: Path | None = None,
    boxes: str | None = None,
    query_embedder: Path | None = None,
) -> Iterator[str]:
    """Make the descriptors and the shortlist of a data set's lists; yield a line after each.

    images: the root of the lists' paths (default: the folder). boxes: that queries are cropped to. With an
    embedder, its query side makes the vectors of queries, its gallery side all others. query_embedder: the
    file of the query side (None: the same file).
    """
    if config.vector == "none":
        raise AmesError("--global none: a shortlist needs global descriptors")
    folder = DatasetFolder(path, config.backbone)
    training = folder.image_list().exists()
    if training and boxes is not None:
        raise AmesError(f"{path}: a training set, which has no queries; leave --boxes out")
    splits = ("",) if training else ("query", "gallery")
    for listed in map(folder.image_list, splits):  # before an hour of extraction
        if not listed.is_file():
            raise AmesError(
                f"{listed}: no such list of images; a data set's folder holds train.txt, or test_query.txt "
                "and test_gallery.txt, with one image's path per line"
            )
    check_device(config.device)
    configs = _sides(config, query_embedder)
    extractors = [build_extractor(configs[splits[0]])]
    if len(splits) > 1:
        same = configs[splits[1]] == configs[splits[0]]
        extractors.append(extractors[0] if same else build_extractor(configs[splits[1]]))
    for split, extractor in zip(splits, extractors, strict=True):
        cut = boxes if split == "query" else None
        yield extract_split(folder, split, extractor, images=images, boxes=cut).summary()
    yield str(make_shortlist(folder, training=training, overwrite=config.overwrite, device=config.device))


def _sides(config: ExtractionConfig, query_embedder: Path | None) -> dict[str, ExtractionConfig]:
    """How each split is extracted; a training set's images are a gallery."""
    if config.embedder is None:
        if query_embedder is not None:
            raise AmesError("--query-embedder: give --embedder, that of the gallery, too")
        return dict.fromkeys(("", "query", "gallery"), config)
    if config.side is not None:
        raise AmesError("--side: queries take the query side, all others the gallery side; leave it out")
    check_sides(query_embedder or config.embedder, config.embedder)
    gallery = replace(config, side=GALLERY)
    query = replace(config, embedder=query_embedder or config.embedder, side=QUERY)
    return {"": gallery, "gallery": gallery, "query": query}


def extract_split(
    folder: DatasetFolder,
    split: str,
    extractor: BaseExtractor,
    *,
    images: Path | str | None = None,
    boxes: str | None = None,
) -> Extraction:
    """Extract local and global descriptors of one split's list, or resume an earlier call.

    images: the root of the list's paths (None: the data set's folder). boxes: see
    ``ames.datasets.boxes.read_boxes``; files are looked up in the folder first. Complete files stay.
    AmesError if they are of other images or settings and the extractor's configuration does not overwrite.
    Unreadable images are listed in ``<descriptors>[_<split>].errors.csv``.
    """
    listed = folder.image_list(split)
    names = [item.path for item in read_list(listed)]
    cut = None if boxes is None else read_boxes(str(folder.file(boxes)), names, listed)
    found = Images(Path(images or folder.path), names, cut)
    kinds = ("local", folder.vector_kind(split))
    return run(found, extractor, plan_output(folder.stem(split), found, extractor, kinds=kinds))


def make_shortlist(
    folder: DatasetFolder,
    *,
    training: bool = False,
    size: int | None = None,
    overwrite: bool = False,
    device: str = "cpu",
) -> Path:
    """Write the shortlist of the queries (of every image, for a training set) and return its path.

    size: entries per query (None: the whole gallery; for a training set 300, which the sampler reads). An
    image of a training set may be its own neighbour; the sampler skips it. An existing shortlist is kept,
    unless ``overwrite``; AmesError if it was made from other descriptors. Other options:
    ``ames.global_search.build.make``.
    """
    source = shortlists.Source(folder=folder, training=training)
    return shortlists.make(source, size=size, overwrite=overwrite, device=device)
