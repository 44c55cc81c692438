"""A database knows the space of its global vectors: what is added, and what asks it, is of the same."""

import shutil

import numpy as np
import pytest

from ames.cli.main import main
from ames.database.build import Source, append, compress
from ames.database.index import search_database
from ames.database.store import Database
from ames.descriptors.local import GlobalFile, write_globals
from ames.descriptors.provenance import Provenance, of_both
from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from helpers import databases


def made(folder, prefix, seed, **record):
    """A source whose global vectors say how they were made; local ones come from rootsift."""
    source = databases.source(folder, 6, seed=seed, prefix=prefix)
    path = folder / f"{prefix}_global.hdf5"
    write_globals(path, GlobalFile(path).read(), names=source.local.names, provenance=record or None)
    return Source(source.local, GlobalFile(path))


@pytest.fixture
def first(tmp_path):
    source = made(tmp_path, "a", 1, space="aaaa", side="gallery", embedder="e1")
    return compress(source, databases.model(), tmp_path / "db", desc_num=4)


def test_the_manifest_says_the_space(first, tmp_path):
    assert first.space == Database(tmp_path / "db").space == "aaaa"
    made = {key: value for key, value in first.provenance.items() if key != "ames"}
    assert made == {"space": "aaaa", "side": "gallery", "embedder": "e1"}
    plain = databases.database(tmp_path / "plain")[0]
    assert plain.space is None


def test_more_images_are_of_the_same_space(first, tmp_path):
    model = databases.model()
    other_side = made(tmp_path, "b", 2, space="aaaa", side="query", embedder="e2")
    assert append(other_side, model, tmp_path / "db") == 6
    for wrong in ({"space": "bbbb", "side": "gallery"}, {"long_side": 3}, {}):
        before = (tmp_path / "db" / "manifest.json").read_bytes()
        with pytest.raises(AmesError, match=r"c_global.hdf5: its vectors are of .*: they cannot be compared"):
            append(made(tmp_path, "c", 3, **wrong), model, tmp_path / "db")
        assert (tmp_path / "db" / "manifest.json").read_bytes() == before
    plain = databases.database(tmp_path / "plain")[0]
    with pytest.raises(AmesError, match=r"c_global.hdf5: its vectors are of space bbbb, those of .* of no"):
        append(made(tmp_path, "c", 3, space="bbbb"), model, plain.path)


def test_what_asks_it_is_of_its_space(first, tmp_path):
    good = Vectors.open(made(tmp_path, "q", 4, space="aaaa", side="query").vectors.path)
    first.check_space(good.space, good.sources[0])
    assert search_database(first, good.all(), 2).ids.shape == (6, 2)
    bad = Vectors.open(made(tmp_path, "q", 4, space="bbbb").vectors.path)
    with pytest.raises(AmesError, match=r"of space bbbb, those of .*db of space aaaa"):
        first.check_space(bad.space, bad.sources[0])


def test_parts_of_a_gallery_are_of_one_space(tmp_path):
    one, two = (made(tmp_path, x, 5, space=x * 4).vectors.path for x in "ab")
    assert Vectors.open(one, one).space == "aaaa"
    with pytest.raises(AmesError, match=r"b_global.hdf5: its vectors are of space bbbb, those of .*a_global"):
        Vectors.open(one, two)
    with pytest.raises(AmesError, match="they cannot be compared"):
        Vectors.open(one).check_searchable(Vectors.of(np.ones((1, 8), np.float32)))


def test_a_record_is_that_of_the_vectors_that_are_stored():
    plain = {"backbone": "aliked", "vlad": "v", "vector": "cls", "long_side": 9}
    ours = {"space": "s", "side": "gallery", "embedder": "e", "opencv": "5", "list": "x"}
    assert of_both(plain, plain) == plain
    assert of_both(plain, {}) == plain
    wanted = {"backbone": "aliked", "long_side": 9, "space": "s", "side": "gallery", "embedder": "e"}
    assert of_both(plain, ours) == wanted
    assert of_both(plain | ours, plain) == {**plain, "opencv": "5", "list": "x"}
    assert Provenance.from_dict(wanted).other_features(Provenance.from_dict(plain)) is not None


def test_the_command_says_it_in_one_line(first, tmp_path, capsys):
    from ames.models.checkpoints import save_weights

    save_weights(tmp_path / "m.safetensors", databases.model())
    wrong = made(tmp_path, "c", 3, space="bbbb")
    words = ["append", tmp_path / "db", wrong.local.path, "--global", wrong.vectors.path]
    assert main([str(x) for x in (*words, "--model", tmp_path / "m.safetensors")]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert "its vectors are of space bbbb" in err[0]
    shutil.rmtree(tmp_path / "db")
    out = ["compress", wrong.local.path, "--global", wrong.vectors.path, "-o", tmp_path / "db"]
    assert main([str(x) for x in (*out, "--desc-num", 3, "--model", tmp_path / "m.safetensors")]) == 0
    assert Database(tmp_path / "db").space == "bbbb"


def test_swapped_sides_are_said_and_others_are_not(tmp_path, caplog):
    for side in ("query", "gallery", "both"):
        made = {"space": "s", "side": side}
        write_globals(tmp_path / f"{side}.hdf5", np.eye(3, dtype=np.float32), provenance=made)
    query, gallery, both = (Vectors.open(tmp_path / f"{x}.hdf5") for x in ("query", "gallery", "both"))
    for asked, searched in ((query, gallery), (query, query), (gallery, gallery), (both, both)):
        asked.check_searchable(searched)
    assert not caplog.records
    gallery.check_searchable(query)
    assert "gallery.hdf5: made by the gallery side, and" in caplog.text
    assert "query.hdf5 by the query side: the sides are swapped" in caplog.text
