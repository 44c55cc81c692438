"""Embedders on a prepared data set: their vectors, shortlists and times, for ``ames curve --embedders``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ames.backbones import is_backbone
from ames.datasets.boxes import read_boxes
from ames.datasets.ground_truth import GroundTruth, load_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_list
from ames.descriptors.local import GlobalFile
from ames.embedders.base import QUERY, ImageEmbedder
from ames.embedders.checkpoints import load_embedder
from ames.errors import AmesError
from ames.evaluation.query_time import MEASURED, network_ms, query_ms, spread
from ames.evaluation.vector_curve import VectorSource
from ames.extraction.base import ImageRegion
from ames.extraction.config import ExtractionConfig
from ames.extraction.factory import build_extractor, build_vector_extractor
from ames.extraction.pipeline import Images
from ames.global_search.shortlist import Shortlist
from ames.pipelines.embed import embed_dataset

Say = Callable[[str], object]


def parse_pair(word: str) -> tuple[Path, Path]:
    """(gallery, query) of FILE[:QUERYFILE]; one file has both sides."""
    gallery, colon, query = word.rpartition(":")
    if not colon or Path(word).exists():
        return Path(word), Path(word)
    return Path(gallery), Path(query)


def open_truth(folder: DatasetFolder) -> GroundTruth:
    """Read the ground truth of a data set's folder, of as many images as its descriptors have."""
    sizes = {f"{x}_size": len(GlobalFile(folder.vectors(x))) for x in ("query", "gallery")}
    return load_ground_truth(folder.find_ground_truth(), **sizes)


def vector_sources(
    folder: DatasetFolder,
    pairs: Sequence[tuple[Path, Path]],
    config: ExtractionConfig,
    truth: GroundTruth,
    *,
    images: Path | None = None,
    boxes: str | None = None,
    say: Say = lambda line: None,
) -> list[VectorSource]:
    """Return the vectors of a data set's descriptors, then those of each pair (gallery, query) of embedders.

    Vectors and shortlists of a pair are made in the folder, under the name of the gallery's file, as
    ``ames.pipelines.embed.embed_dataset`` makes them; ``say`` gets its lines. Queries are timed where their
    photos are there: those of the folder's descriptors with all features of their backbone.
    """
    names = [folder.descriptors, *(gallery.stem for gallery, _ in pairs)]
    for name in names:
        if names.count(name) > 1:
            raise AmesError(f"two vectors are called {name!r}: rename one of the embedders' files")
    regions = timed_queries(folder, images, boxes)
    backbone = folder.descriptors
    own = replace(config, backbone=backbone, workers=0, batch_size=1)
    known = regions and is_backbone(backbone)
    found = [
        _source(folder, truth, _time(lambda: query_ms(build_extractor(own), regions), say) if known else None)
    ]
    for gallery, query in pairs:
        name = gallery.stem
        given = replace(config, embedder=gallery)
        for line in embed_dataset(folder.path, name, given, query_embedder=query, images=images, boxes=boxes):
            say(line)
        asked = replace(own, embedder=query, side=QUERY)
        whole = network = None
        if regions:
            whole = _time(lambda asked=asked: query_ms(build_vector_extractor(asked), regions), say)  # type: ignore[misc]
            embedder = load_embedder(query, QUERY).to(config.device)
            network = network_ms(embedder, regions) if isinstance(embedder, ImageEmbedder) else None
        found.append(_source(DatasetFolder(folder.path, name), truth, whole, network))
    return found


def _source(
    folder: DatasetFolder, truth: GroundTruth, whole: float | None, network: float | None = None
) -> VectorSource:
    path = folder.find_shortlist()
    shortlist = Shortlist.load(path, gallery_size=len(truth.imlist))
    if len(shortlist.ids) != len(truth.queries):
        raise AmesError(f"{path}: {len(shortlist.ids)} queries, but {len(truth.queries)} in the ground truth")
    width = GlobalFile(folder.vectors("query")).width
    return VectorSource(folder.descriptors, width, shortlist, path, whole, network)


def timed_queries(
    folder: DatasetFolder, images: Path | None = None, boxes: str | None = None, *, count: int = MEASURED
) -> list[ImageRegion]:
    """Return queries to be timed, evenly spread over the list; none where their photos are not there.

    images: the root of the list's paths (None: the folder). boxes: what queries are cut to.
    """
    listed = folder.image_list("query")
    if not listed.is_file():
        return []
    names = [item.path for item in read_list(listed)]
    cut = None if boxes is None else read_boxes(str(folder.file(boxes)), names, listed)
    regions = spread(Images(Path(images or folder.path), names, cut).photos(0), count)
    return [x for x in regions if isinstance(x.image, Path) and x.image.is_file()]


def _time(measure: Callable[[], float | None], say: Say) -> float | None:
    """What cannot be measured, such as a network without its weights, has no time."""
    try:
        return measure()
    except AmesError as error:
        say(f"no time of a query: {error}")
        return None
