"""Extraction: the same files whatever the number of workers, and what becomes of images that are none."""

from dataclasses import replace

import numpy as np
import pytest

from ames.backbones import make_backbone
from ames.backbones.rootsift import RootSift
from ames.descriptors.local import DescriptorFile, read_globals
from ames.errors import AmesError
from ames.extraction.config import ExtractionConfig
from ames.extraction.pipeline import Images, extract, plan_output
from ames.extraction.pipeline import run as run_all
from ames.extraction.process_pool import PoolExtractor
from ames.weights import shipped_path
from helpers import photos


def folder_of_images(root):
    """Good images, every kind of bad one, and one without keypoints; the names in a list's order."""
    bad = photos.broken(root)
    for number in range(3):
        photos.save(root / f"scene{number}.png", photos.scene(number))
    photos.save(root / "plain.png", photos.plain())
    (root / "folder.jpg").mkdir()
    names = ["scene0.png", *bad, "folder.jpg", "scene1.png", "missing.jpg", "plain.png", "scene2.png"]
    return names, [*bad, "folder.jpg", "missing.jpg"]


def run(root, names, out, **settings):
    return extract(
        root,
        names,
        make_backbone("rootsift"),
        out / "x",
        desc_num=30,
        **settings,
    )


def test_bad_images_are_named_and_keep_an_empty_row(tmp_path):
    names, bad = folder_of_images(tmp_path / "images")
    done = run(tmp_path / "images", names, tmp_path / "out")
    assert sorted(done.unreadable) == sorted(bad)
    assert done.empty == ["plain.png"]
    assert done.images == len(names)
    file, vectors = DescriptorFile(done.files[0]), read_globals(done.files[1])
    assert file.names == names
    assert file.provenance["backbone"] == "rootsift"
    counts = dict(zip(names, file.read(range(len(names))).counts.tolist(), strict=True))
    lengths = dict(zip(names, np.linalg.norm(vectors, axis=1), strict=True))
    for name in names:
        filled = name.startswith("scene")
        assert (counts[name] > 0) == filled, name
        assert lengths[name] == pytest.approx(float(filled), abs=1e-5), name


def test_the_summary_counts_and_names(tmp_path):
    names, bad = folder_of_images(tmp_path / "images")
    first, unreadable, empty = run(tmp_path / "images", names, tmp_path / "out").summary().splitlines()
    assert first.startswith(f"{len(names) - len(bad)} of {len(names)} images extracted to ")
    assert unreadable.startswith(f"{len(bad)} unreadable, skipped: cut.jpg (cut off")
    assert unreadable.endswith(f" and {len(bad) - 5} more")
    assert "empty.jpg (empty file)" in unreadable
    assert empty == "1 without keypoints: plain.png"


def test_a_bad_image_that_is_listed_twice_counts_twice(tmp_path):
    photos.save(tmp_path / "a.png", photos.scene(0))
    (tmp_path / "b.png").touch()
    done = run(tmp_path, ["a.png", "b.png", "b.png"], tmp_path / "out")
    assert done.summary().startswith("1 of 3 images extracted")


def test_rows_are_the_backbone_s_own(tmp_path):
    for number in range(2):
        photos.save(tmp_path / f"{number}.png", photos.scene(number))
    done = run(tmp_path, ["1.png", "0.png"], tmp_path / "out")
    expected = RootSift().extract(photos.scene(1), 30).local
    read = DescriptorFile(done.files[0]).read([0])
    n = expected.size
    np.testing.assert_allclose(read.descriptors[0, :n], expected.descriptors, atol=1e-3)
    np.testing.assert_allclose(read.positions[0, :n], expected.positions, atol=1e-3)


def test_workers_do_not_change_the_files(tmp_path):
    names, _ = folder_of_images(tmp_path / "images")
    runs = [run(tmp_path / "images", names, tmp_path / f"out{n}", workers=n) for n in (0, 2)]
    local = [DescriptorFile(done.files[0]) for done in runs]
    first, second = (file.read(range(len(names))) for file in local)
    for field in ("descriptors", "valid", "positions", "scale", "weight"):
        assert np.array_equal(getattr(first, field), getattr(second, field)), field
    assert np.array_equal(*(read_globals(done.files[1]) for done in runs))
    assert runs[0].unreadable == runs[1].unreadable
    assert runs[0].empty == runs[1].empty
    assert local[0].provenance == local[1].provenance


def test_no_readable_image_at_all(tmp_path):
    names = photos.broken(tmp_path / "images")
    with pytest.raises(AmesError, match=r"none of the 4 images can be read \(first: cut.jpg: cut off"):
        run(tmp_path / "images", names, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_wrong_root(tmp_path):
    with pytest.raises(AmesError, match="none of the 1 listed images exists"):
        run(tmp_path, ["a.jpg"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_without_keypoints_alone_are_no_error(tmp_path):
    photos.save(tmp_path / "a.png", photos.plain())
    done = run(tmp_path, ["a.png"], tmp_path / "out")
    assert done.empty == ["a.png"]
    assert not read_globals(done.files[1]).any()


class Interrupted(RootSift):
    def extract(self, image, count):
        if getattr(self, "seen", 0) == 2:
            raise KeyboardInterrupt
        self.seen = getattr(self, "seen", 0) + 1
        return super().extract(image, count)


def test_an_interruption_leaves_nothing_and_keeps_what_was_there(tmp_path):
    for number in range(4):
        photos.save(tmp_path / f"{number}.png", photos.scene(number))
    names = [f"{number}.png" for number in range(4)]
    out = tmp_path / "out" / "x_local.hdf5"
    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path, names, Interrupted(), tmp_path / "out" / "x", desc_num=10)
    assert list(out.parent.iterdir()) == []
    extract(tmp_path, names, RootSift(), tmp_path / "out" / "x", desc_num=10)
    before = out.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path, names, Interrupted(), tmp_path / "out" / "x", desc_num=10)
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


class Loud(RootSift):
    """Gives descriptors that float16 cannot hold, of dark images alone."""

    def extract(self, image, count):
        found = super().extract(image, count)
        if image.mean() > 100:
            return found
        return replace(found, local=found.local.map(lambda x: x * 1e6 if x.ndim == 2 else x))


def test_descriptors_beyond_the_dtype_are_an_error_of_their_image(tmp_path):
    for name, gain in (("bright.png", 1.0), ("dark.png", 0.5)):
        photos.save(tmp_path / name, (photos.scene(0) * gain).astype(np.uint8))
    done = extract(tmp_path, ["bright.png", "dark.png"], Loud(), tmp_path / "x", desc_num=10)
    assert done.unreadable == {"dark.png": "descriptors beyond float16's 65,504; take float32"}
    assert DescriptorFile(tmp_path / "x_local.hdf5").read([0, 1], 10).counts.tolist() == [10, 0]


class Spoiled(Loud):
    """Gives NaN among the descriptors of dark images."""

    def extract(self, image, count):
        found = RootSift.extract(self, image, count)
        if image.mean() <= 100:
            found.local.descriptors[3, 5] = float("nan")
        return found


@pytest.mark.parametrize("packed", [False, True])
def test_descriptors_that_are_not_finite_are_an_error_of_their_image(tmp_path, packed):
    for name, gain in (("bright.png", 1.0), ("dark.png", 0.5)):
        photos.save(tmp_path / name, (photos.scene(0) * gain).astype(np.uint8))
    pack = shipped_path("rootsift_ames_dist") if packed else None
    images = Images(tmp_path, ["bright.png", "dark.png"])
    extractor = PoolExtractor(Spoiled(), ExtractionConfig(desc_num=10, dtype="float32", pack=pack, workers=0))
    done = run_all(images, extractor, plan_output(tmp_path / "x", images, extractor))
    assert done.unreadable == {"dark.png": "the backbone gave values that are not finite (NaN or infinity)"}
    assert DescriptorFile(tmp_path / "x_local.hdf5").read([0, 1], 10).counts.tolist() == [10, 0]


def test_global_descriptors_need_their_model(tmp_path):
    photos.save(tmp_path / "a.png", photos.scene(0))
    with pytest.raises(AmesError, match="no global descriptor"):
        extract(tmp_path, ["a.png"], RootSift(), tmp_path / "x", kinds=["local", "global"])


@pytest.mark.parametrize("taken", ["x_local.hdf5", "x_global.hdf5"])
def test_no_half_of_the_pair_where_one_name_is_taken_by_a_folder(tmp_path, taken):
    photos.save(tmp_path / "a.png", photos.scene(0))
    (tmp_path / "out" / taken).mkdir(parents=True)
    with pytest.raises(AmesError, match=f"{taken}: is a folder"):
        run(tmp_path, ["a.png"], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [taken]
