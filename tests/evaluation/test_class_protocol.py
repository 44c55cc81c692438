"""Protocols of images with classes: values that a file may have."""

import pytest

from ames.errors import AmesError
from ames.evaluation.class_protocol import ClassProtocol


def test_headings():
    every = ClassProtocol("x", average_precision=("trapezoid", "rectangle", "at-r"), cutoff=100)
    assert [every.heading(rule) for rule in every.average_precision] == ["mAP", "mAP@100", "mAP@R"]
    assert ClassProtocol("x", average_precision=("rectangle",)).heading("rectangle") == "mAP@all"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": " "}, "name is ' ': give text"),
        ({"recall_at": (2, 1)}, r"recall_at is \(2, 1\): give different whole numbers from 1 on, rising"),
        ({"recall_at": (1, 1)}, "recall_at is"),
        ({"recall_at": (0, 1)}, "recall_at is"),
        ({"recall_at": (True,)}, "recall_at is"),
        ({"recall_at": 5}, "recall_at is 5"),
        ({"average_precision": ("square",)}, "give a list of trapezoid, rectangle, at-r, each once"),
        ({"average_precision": ("at-r", "at-r")}, "average_precision is"),
        ({"average_precision": (["at-r"],)}, "average_precision is"),
        ({"average_precision": "at-r"}, "average_precision is 'at-r'"),
        ({"cutoff": 0, "average_precision": ("rectangle",)}, "cutoff is 0: give a whole number from 1 on"),
        ({"cutoff": 5}, "cutoff 5 is for the rule 'rectangle' alone"),
        ({"skip_self": "no"}, "skip_self is 'no': give true or false"),
        ({"transform": None}, "transform is None: give a name, as text"),
    ],
)
def test_wrong_values_are_one_line(change, message):
    with pytest.raises(AmesError, match=message) as raised:
        ClassProtocol(**{"name": "x"} | change)
    assert len(str(raised.value).splitlines()) == 1
