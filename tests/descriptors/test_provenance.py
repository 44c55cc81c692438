"""The record of how a descriptor file was made, of this release and of earlier ones."""

import dataclasses

import pytest

from ames.descriptors.provenance import Provenance

RECORD = {
    "backbone": "dinov2",
    "weights": "w",
    "descriptors": 700,
    "by": "norm",
    "scales": [1.0],
    "boxes": False,
}


def test_a_record_is_what_was_written():
    made = Provenance.from_dict(RECORD | {"ames": "0.1.0"})
    assert (made.backbone, made.descriptors, made.more) == ("dinov2", 700, {"weights": "w"})
    assert made.to_dict() == RECORD


@pytest.mark.parametrize(
    ("earlier", "today"),
    [
        ({"autocast": "bfloat16"}, {"autocast": "bf16"}),
        ({"autocast": "float16"}, {"autocast": "fp16"}),
        ({"locations": "shares"}, {"locations": "normalized"}),
        ({"locations": "pixels"}, {"locations": "pixels"}),
        ({"autocast": None, "detector": None}, {}),
        ({"ames": "0.0.1"}, {"ames": "0.1.0"}),
    ],
)
def test_earlier_words_for_the_same(earlier, today):
    assert Provenance.from_dict(RECORD | earlier).difference(Provenance.from_dict(RECORD | today)) is None


def test_the_first_difference_is_named():
    made = Provenance.from_dict(RECORD)
    other = dataclasses.replace(made, boxes=True)
    assert made.difference(other) == "boxes: there false, now true"
    assert made.difference(Provenance.from_dict(RECORD | {"weights": "v"})) == 'weights: there "w", now "v"'
    assert Provenance().difference(made) == 'backbone: there null, now "dinov2"'
