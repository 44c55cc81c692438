"""How a descriptor file was made: the record in its ``provenance`` attribute, written and read here alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ames.errors import AmesError

# Values of earlier files, and today's names for them: their rows still compare and resume.
_EARLIER = {"autocast": {"bfloat16": "bf16", "float16": "fp16"}, "locations": {"shares": "normalized"}}
# Two images with other values of these can be compared.
_SETTINGS = ("descriptors", "boxes", "list", "packed_by", "projection", "locations", "autocast")
_COMPARABLE = frozenset((*_SETTINGS, "opencv", "kornia", "transformers", "side", "embedder", "files"))
_OF_EMBEDDER = ("space", "side", "embedder", "fused", "files")
_OF_BACKBONE = ("vector", "pooling", "vlad", "local_network", "global_network")  # on the vector that it gave


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Settings that must be equal for rows of two files to be comparable; None: not applicable.

    Fields are the keys of the file's record. Values are those that were used, the network's own for an option
    that was left out. descriptors: most local ones per image. features: "raw" or "projected"; by: their
    weights' source; vector: the global descriptor; suppression: cells of non-maximum suppression. detector:
    fingerprint of its weights. boxes: whether images were cropped; list: digest of the whole list. packed_by,
    projection: the model whose codes are stored. space: what vectors of an embedder (``ames.embedders``) can
    be compared with; side, embedder: its side and fingerprint; fused: records of the features that it read.
    more: keys of the backbone (its weights, versions of libraries) and of files that others wrote.
    """

    backbone: str | None = None
    descriptors: int | None = None
    features: str | None = None
    by: str | None = None
    vector: str | None = None
    suppression: int | None = None
    detector: str | None = None
    detector_input: str | None = None
    long_side: int | None = None
    multiple: int | None = None
    scales: list[float] | None = None
    locations: str | None = None
    autocast: str | None = None
    boxes: bool | None = None
    list: str | None = None
    packed_by: str | None = None
    projection: str | None = None
    space: str | None = None
    side: str | None = None
    embedder: str | None = None
    fused: dict[str, Any] | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Provenance:
        """From a file's record, without the release that wrote it."""
        known = {one.name for one in fields(cls)} - {"more"}
        named: dict[str, Any] = {}
        more: dict[str, Any] = {}
        for key, value in content.items():
            if isinstance(value, str):
                value = _EARLIER.get(key, {}).get(value, value)
            if key != "ames":
                (named if key in known else more)[key] = value
        return cls(**named, more=more)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it, without what does not apply."""
        content = asdict(self)
        content |= content.pop("more")
        return json.loads(json.dumps({key: value for key, value in content.items() if value is not None}))

    def difference(self, wanted: Provenance) -> str | None:
        """As the function ``difference``, between two records."""
        return difference(self.to_dict(), wanted.to_dict())

    def other_features(self, wanted: Provenance) -> str | None:
        """As ``difference``, of what decides whether features of two images can be compared: not how many
        there are, of which list, how they are stored, or the versions of libraries. Vectors of two sides of
        one space can be.
        """
        ignored = _COMPARABLE if self.side == wanted.side else {*_COMPARABLE, "fused"}
        made, now = (
            {key: value for key, value in record.to_dict().items() if key not in ignored}
            for record in (self, wanted)
        )
        return difference(made, now)


def comparable(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides whether a record's features can be compared with others."""
    return {key: value for key, value in content.items() if key not in {*_COMPARABLE, "ames"}}


def of_both(local: Mapping[str, Any], vectors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of local descriptors, with what that of the global ones says of an embedder.

    What the first says of a backbone's vector goes where an embedder made the global ones.
    """
    more = {key: vectors[key] for key in _OF_EMBEDDER if vectors.get(key) is not None}
    gone = {*_OF_EMBEDDER, *(_OF_BACKBONE if more else ())}
    return {key: value for key, value in local.items() if key not in gone} | more


def check_one_space(space: str | None, source: object, other: str | None, compared: object) -> None:
    """AmesError unless vectors of two sources are of one space (None: of no embedder)."""
    if space != other:
        here, there = (f"space {x}" if x else "no embedder" for x in (space, other))
        raise AmesError(
            f"{source}: its vectors are of {here}, those of {compared} of {there}: they cannot be compared; "
            "take the two sides of one embedder"
        )


def difference(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first key under which two descriptions differ, for people; None if they are equal."""
    for key in [*wanted, *made]:
        if made.get(key) != wanted.get(key):
            return f"{key}: there {_short(made.get(key))}, now {_short(wanted.get(key))}"
    return None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
