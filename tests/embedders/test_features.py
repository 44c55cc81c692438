"""Stored features of the same images: rows, names, counts, and files that do not go together."""

import h5py
import numpy as np
import pytest
import torch

from ames.descriptors.local import create_local, write_globals
from ames.embedders.features import FeatureSpec, StoredFeatures, specs
from ames.errors import AmesError
from ames.features import LocalFeatures

IMAGES = 5
NAMES = [f"{i}.jpg" for i in range(IMAGES)]


def local(path, counts=(4, 2, 0, 1, 3), names=NAMES, width=6, seed=0, **provenance):
    rng = torch.Generator().manual_seed(seed)
    sets = [torch.randn(n, width, generator=rng) for n in counts]
    with create_local(
        path, images=len(counts), slots=4, width=width, names=names, provenance=provenance
    ) as write:
        for row, x in enumerate(sets):
            write(row, LocalFeatures.from_descriptors(x))
    return sets


def vectors(path, images=IMAGES, names=NAMES, seed=1, **provenance):
    found = np.random.default_rng(seed).standard_normal((images, 3)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    found[1] = 0  # an image without
    write_globals(path, found, names=names, provenance=provenance)
    return found


@pytest.fixture
def folder(tmp_path):
    local(tmp_path / "a_local.hdf5", backbone="first")
    vectors(tmp_path / "b_global.hdf5", backbone="second")
    return tmp_path


def opened(folder, counts=None, **more):
    files = {"a_local": folder / "a_local.hdf5", "b_global": folder / "b_global.hdf5"}
    return StoredFeatures(files | {name: folder / file for name, file in more.items()}, counts)


def test_rows_in_any_order_repeated_or_not(folder):
    sets, wanted = local(folder / "a_local.hdf5"), vectors(folder / "b_global.hdf5")
    stored, rows = opened(folder), [3, 0, 4, 0, 1, 2]
    found = stored.read(np.array(rows))
    assert [*found] == ["a_local", "b_global"]
    assert found["a_local"].descriptors.dtype == torch.float32
    assert found["a_local"].descriptors.shape == (6, 4, 6)
    assert found["b_global"].descriptors.shape == (6, 1, 3)
    for place, row in enumerate(rows):
        one = found["a_local"][place]
        torch.testing.assert_close(one.descriptors[one.valid], sets[row].half().float())
        assert np.allclose(found["b_global"].descriptors[place, 0].numpy(), wanted[row], atol=1e-6)
    assert found["a_local"].counts.tolist() == [1, 4, 3, 4, 2, 0]
    assert found["b_global"].valid[:, 0].tolist() == [True, True, True, True, False, True]
    nothing = stored.read(np.array([], np.int64))
    assert nothing["a_local"].descriptors.shape == (0, 4, 6)
    assert nothing["b_global"].descriptors.shape == (0, 1, 3)


def test_what_the_files_hold_is_told(folder):
    stored = opened(folder)
    assert len(stored) == IMAGES
    assert stored.names == NAMES
    assert stored.specs == (
        FeatureSpec("a_local", "local", 6, 4, "first"),
        FeatureSpec("b_global", "global", 3, 1, "second"),
    )
    assert {name: x["backbone"] for name, x in stored.provenance().items()} == {
        "a_local": "first",
        "b_global": "second",
    }


@pytest.mark.parametrize(("asked", "kept"), [(2, 2), (9, 4), (None, 4)])
def test_the_strongest_are_read(folder, asked, kept):
    sets = local(folder / "a_local.hdf5")
    stored = opened(folder, {"a_local": asked})
    assert stored.specs[0].count == kept
    found = stored.read(np.arange(IMAGES))["a_local"]
    assert found.descriptors.shape == (IMAGES, kept, 6)
    torch.testing.assert_close(found.descriptors[0], sets[0][:kept].half().float())


def test_names_of_any_file_count_and_none_is_needed(folder):
    vectors(folder / "b_global.hdf5", names=None)
    assert opened(folder).names == NAMES
    local(folder / "a_local.hdf5", names=None)
    assert opened(folder).names is None
    vectors(folder / "b_global.hdf5")
    assert opened(folder).names == NAMES


def one_line(call, message):
    with pytest.raises(AmesError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_files_of_other_images_are_one_line(folder):
    vectors(folder / "c.hdf5", images=4, names=None)
    one_line(lambda: opened(folder, c_global="c.hdf5"), r"c.hdf5: 4 images, but 5 in .*a_local.hdf5$")
    vectors(folder / "c.hdf5", names=[*NAMES[:3], "4.jpg", "3.jpg"])
    one_line(
        lambda: opened(folder, c_global="c.hdf5"),
        r"c.hdf5: not of the images of .*a_local.hdf5: image 3 is '4.jpg', there '3.jpg'",
    )


def test_a_packed_file_is_one_line(folder):
    with h5py.File(folder / "packed.hdf5", "w") as file:
        file["features"] = np.zeros((IMAGES, 4, 2), np.uint8)
    one_line(
        lambda: opened(folder, c_local="packed.hdf5"), r"packed.hdf5: holds packed bits; an embedder reads"
    )


def test_missing_and_damaged_files_are_one_line(folder):
    one_line(lambda: opened(folder, c_local="none.hdf5"), "none.hdf5: no such file")
    (folder / "text.hdf5").write_text("text")
    one_line(lambda: opened(folder, c_local="text.hdf5"), "text.hdf5: not a readable HDF5 file")
    one_line(lambda: StoredFeatures({}), "no feature files given: give at least one")
    found = np.full((IMAGES, 3), np.nan, np.float32)
    write_globals(folder / "nan.hdf5", found)
    stored = opened(folder, c_global="nan.hdf5")
    one_line(lambda: stored.read(np.arange(2)), "nan.hdf5: the vector of image 0 .*finite")
    one_line(lambda: opened(folder).read(np.array([5])), "holds 5 images, there is no row 5")


def test_features_of_another_backbone_are_one_line(folder):
    stored = opened(folder)
    wanted = [*stored.specs]
    stored.check(wanted)
    stored.check([FeatureSpec("a_local", "local", 6), FeatureSpec("other", "local", 6, None, "third")])
    one_line(
        lambda: stored.check([FeatureSpec("b_global", "global", 3, 1, "third")]),
        "b_global.hdf5: made by backbone 'second', but the embedder learned from 'third'",
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "features none: give at least one"),
        (
            [{"name": "a", "kind": "local", "width": 3}] * 2,
            "features a, a: give at least one, each of its own",
        ),
        ([{"name": "a", "kind": "lokal", "width": 3}], "feature a: kind 'lokal' is none of local, global"),
        ([{"name": "a", "kind": "local", "width": 3, "count": 0}], "feature a: count 0 must be at least 1"),
        ([{"name": "a", "kind": "local", "width": 0}], "feature a: width 0: give a whole number"),
        ([{"name": "a", "kind": "local", "width": "3"}], "feature a: width '3': give a whole number"),
        (
            [{"name": "v1.5_local", "kind": "local", "width": 3}],
            "feature 'v1.5_local': its name is empty or has a",
        ),
        ([{"name": "a", "kind": "local"}], "features: .*width"),
        ([{"name": "a", "size": 5}], "features: .*size"),
        (["a"], "features: "),
        (5, "features: "),
    ],
)
def test_wrong_lists_of_features_are_one_line(given, message):
    one_line(lambda: specs(given), message)
