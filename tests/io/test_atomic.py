import pytest

from ames.errors import AmesError
from ames.io.atomic import atomic_file


def interrupted_write(path):
    with atomic_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt


def test_an_interrupted_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        interrupted_write(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AmesError, match="cannot be written"), atomic_file(tmp_path / "file" / "inside"):
        pass
