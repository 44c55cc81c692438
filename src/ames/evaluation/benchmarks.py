"""A published benchmark as data: where its lists come from, its sizes, and how rankings are evaluated."""

from __future__ import annotations

from dataclasses import dataclass, field

from ames.errors import AmesError
from ames.evaluation.protocol_figures import figure_names
from ames.evaluation.protocols import Protocol
from ames.evaluation.recognition import RecognitionRule

QUERY_BOXES = ("none", "crop")


@dataclass(frozen=True)
class Benchmark:
    """A file of conf/benchmark.

    title, source: what the set is, the paper, and where its rule is stated.
    reader, files: the kind of published files, and their names (``ames.datasets.benchmarks.readers``).
    queries, gallery: published numbers of images, None where they are not known for certain. unsure: what
    could not be verified, in sentences.
    query_box: "crop", the query is the part of its image inside the box of the ground truth; "none".
    transform: of the images, which changes figures; "any".
    skip_self: the queries are in the gallery, and none is searched for itself: it is junk, removed by its
    number.
    protocols: how a ranking is evaluated. primary_protocol, primary: its name, and that of its figure, which
    tables show first.
    recognition: rules to choose from on validation queries, for GAP; none: the set has no classification.
    AmesError where the primary figure is none of the figures, or a value is unknown.
    """

    name: str
    title: str
    source: str
    reader: str
    protocols: tuple[Protocol, ...]
    primary_protocol: str
    primary: str
    files: dict[str, str] = field(default_factory=dict)
    queries: int | None = None
    gallery: int | None = None
    unsure: tuple[str, ...] = ()
    query_box: str = "none"
    transform: str = "any"
    skip_self: bool = False
    recognition: tuple[RecognitionRule, ...] = ()

    def __post_init__(self) -> None:
        if self.query_box not in QUERY_BOXES:
            raise AmesError(
                f"benchmark {self.name!r}: query_box {self.query_box!r} is none of {', '.join(QUERY_BOXES)}"
            )
        names = [protocol.name for protocol in self.protocols]
        if len(set(names)) < len(names):
            raise AmesError(f"benchmark {self.name!r}: two protocols have one name; give each its own")
        if self.primary_protocol not in names:
            raise AmesError(
                f"benchmark {self.name!r}: primary protocol {self.primary_protocol!r} is none of "
                f"{', '.join(names)}"
            )
        figures = figure_names(self.protocol(self.primary_protocol))
        if self.primary not in figures:
            raise AmesError(
                f"benchmark {self.name!r}: primary figure {self.primary!r} is none of {', '.join(figures)}"
            )

    def protocol(self, name: str | None = None) -> Protocol:
        """Return a protocol by its name; None: that of the primary figure. AmesError for another name."""
        wanted = self.primary_protocol if name is None else name
        for protocol in self.protocols:
            if protocol.name == wanted:
                return protocol
        known = ", ".join(protocol.name for protocol in self.protocols)
        raise AmesError(f"benchmark {self.name!r}: protocol {wanted!r} is none of {known}")

    def size_notes(self, queries: int, gallery: int) -> list[str]:
        """Return a line for each number of images that was read and is not the published one."""
        lines = []
        for what, found, published in (
            ("queries", queries, self.queries),
            ("gallery", gallery, self.gallery),
        ):
            if published is not None and found != published:
                lines.append(
                    f"{what}: {found:,} images were read, {published:,} are published: this is a subset, or "
                    "another version"
                )
        return lines
