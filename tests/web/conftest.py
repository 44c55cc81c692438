"""One collection for all tests that leave it as it is."""

import pytest

from helpers import serving


@pytest.fixture(scope="package")
def shared(tmp_path_factory):
    """The folder of a collection that no test changes."""
    return serving.collection(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="package")
def site(shared):
    """A client of its application."""
    with serving.client(shared) as made:
        yield made
