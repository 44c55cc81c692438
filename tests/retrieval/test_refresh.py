"""A collection that another process changes while it is open."""

import shutil

import pytest

from ames.errors import AmesError
from ames.retrieval.indexing import index_photos
from ames.retrieval.retriever import Retriever
from helpers import photos


@pytest.fixture
def opened(tmp_path):
    """A collection of two scenes, and the folder around it."""
    for seed in range(2):
        photos.save(tmp_path / "photos" / f"{seed}.png", photos.scene(seed))
    index_photos(tmp_path / "photos", tmp_path / "photos.db", workers=0)
    return Retriever.open(tmp_path / "photos.db"), tmp_path


def test_it_is_seen_after_a_refresh_and_not_before(opened):
    index, folder = opened
    index.extract(photos.scene(7))
    extractor, moved = index._extractor, folder / "moved"
    (folder / "photos").rename(moved)
    photos.save(moved / "7.png", photos.scene(7))
    (moved / "0.png").unlink()
    index_photos(moved, folder / "photos.db", workers=0)
    assert [hit.name for hit in index.search(photos.scene(7), k=3)] != ["7.png", "1.png"]
    index.refresh()
    assert [hit.name for hit in index.search(photos.scene(7), k=3)] == ["7.png", "1.png"]
    assert index.photo("7.png") == moved / "7.png"
    with pytest.raises(AmesError, match=r"holds no photo '0.png'"):
        index.photo("0.png")
    assert index._extractor is extractor  # nothing is loaded again


def test_a_database_of_another_model_is_refused_and_the_old_one_kept(opened):
    index, folder = opened
    before = index.search(photos.scene(1), k=2)
    shutil.rmtree(folder / "photos.db")
    index_photos(folder / "photos", folder / "photos.db", "rootsift_elvis_binary", workers=0)
    with pytest.raises(AmesError, match="made by another projection"):
        index.refresh()
    assert index.search(photos.scene(1), k=2) == before
