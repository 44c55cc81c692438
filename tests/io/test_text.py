"""Numbers as text."""

import pytest

from ames.io.text import counted, size_text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (12345, "12,345 images")]
)
def test_a_number_of_things(count, text):
    assert counted(count, "image") == text


@pytest.mark.parametrize(("size", "text"), [(999, "999 bytes"), (5.1e9, "5.1 GB"), (2e12, "2 TB")])
def test_a_size(size, text):
    assert size_text(size) == text
