import pytest
import torch

from helpers.small_training import write_store


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Descriptors of 32 images, 8 of each of 4 classes."""
    return write_store(tmp_path_factory.mktemp("store") / "local.hdf5")


@pytest.fixture
def one_thread():
    """As processes of their own compute: sums of other numbers of threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
