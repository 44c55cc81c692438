import pytest

from helpers.small_training import write_store


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Descriptors of 32 images, 8 of each of 4 classes."""
    return write_store(tmp_path_factory.mktemp("store") / "local.hdf5")
