"""Feature files of hloc, written here as hloc lays them out, become the library's and the other way round."""

import json

import cv2
import h5py
import numpy as np
import pytest
import torch

from ames.cli.main import main
from ames.descriptors.local import DescriptorFile, GlobalFile, create_local, write_globals
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.inspection.conversion import Options
from ames.inspection.convert import convert
from ames.inspection.hloc import image_names
from ames.inspection.inspect import inspect

WIDTH = 4
NAMES = ["db/a.jpg", "db/deep/b.jpg", "query/c.jpg"]
SIZES = {"db/a.jpg": (640, 480), "db/deep/b.jpg": (100, 50), "query/c.jpg": (30, 60)}
COUNTS = {"db/a.jpg": 5, "db/deep/b.jpg": 0, "query/c.jpg": 3}


def image(name, count):
    """What hloc writes for an image, half precision as it does by default."""
    rng = np.random.default_rng(NAMES.index(name))
    size = np.array(SIZES[name])
    return {
        "keypoints": (rng.random((count, 2)) * (size - 1)).astype(np.float16),
        "descriptors": rng.standard_normal((WIDTH, count)).astype(np.float16),
        "scores": rng.permutation(np.linspace(0.1, 0.9, count)).astype(np.float16),
        "image_size": size,
    }


def write(path, images):
    with h5py.File(path, "a", libver="latest") as file:
        for name, values in images.items():
            group = file.create_group(name)
            for key, value in values.items():
                group.create_dataset(key, data=value)
            if "keypoints" in values:
                group["keypoints"].attrs["uncertainty"] = 1.5
    return path


@pytest.fixture
def images():
    return {name: image(name, count) for name, count in COUNTS.items()}


@pytest.fixture
def file(tmp_path, images):
    return write(tmp_path / "feats-superpoint-n4096-r1024.h5", images)


def listed(path, *lines):
    path.write_text("\n".join(lines))
    return path


# ---- hloc's become the library's --------------------------------------------------------------------


def test_local_features(file, images, tmp_path):
    path, what = convert(file, tmp_path / "x", how=Options(dtype="float32"))
    assert path == tmp_path / "x_local.hdf5"
    assert what == "3 images of feats-superpoint-n4096-r1024.h5"
    found = DescriptorFile(path)
    assert (found.names, found.slots, found.width, found.missing) == (NAMES, 5, WIDTH, {"scale"})
    made = found.provenance
    assert (made["converted_from"], made["source"]) == ("hloc", file.name)
    assert (made["locations"], made["descriptors"]) == ("normalized", 5)
    local = found.read([0, 1, 2])
    assert local.counts.tolist() == [5, 0, 3]
    for row, name in enumerate(NAMES):
        one, (width, height) = images[name], SIZES[name]
        ranking = sorted(range(COUNTS[name]), key=lambda i: -one["scores"][i])
        for slot, i in enumerate(ranking):
            x, y = one["keypoints"][i].astype(float)
            at = local.positions[row, slot].tolist()
            assert at == pytest.approx([(y + 0.5) / height, (x + 0.5) / width], abs=1e-6)
            assert local.weight[row, slot] == one["scores"][i]
            assert local.descriptors[row, slot].tolist() == one["descriptors"][:, i].astype(float).tolist()


def test_the_strongest_in_the_order_of_a_list(file, images, tmp_path, caplog):
    order = listed(tmp_path / "order.txt", "query/c.jpg,7", "db/a.jpg,8")
    path, _ = convert(file, tmp_path / "x", how=Options(listed=order, desc_num=2, coordinates="pixels"))
    found = DescriptorFile(path)
    assert (found.names, found.slots, str(found.dtype)) == (["query/c.jpg", "db/a.jpg"], 2, "float16")
    assert found.provenance["locations"] == "pixels"
    best = int(images["query/c.jpg"]["scores"].argmax())
    x, y = images["query/c.jpg"]["keypoints"][best].astype(float)
    assert found.read([0]).positions[0, 0].tolist() == pytest.approx([y + 0.5, x + 0.5], rel=1e-3)
    assert "1 images are not in" in caplog.text
    assert "float16 rounds pixels" in caplog.text


def test_global_descriptors(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3, 6)).astype(np.float16)
    content = {x: {"global_descriptor": v, "image_size": [4, 5]} for x, v in zip(NAMES, vectors, strict=True)}
    file = write(tmp_path / "global-feats-netvlad.h5", content)
    path, _ = convert(file)
    assert path == tmp_path / "global-feats-netvlad_global.hdf5"
    found = GlobalFile(path)
    assert found.names == NAMES
    assert np.array_equal(found.read(), vectors.astype(np.float32))
    said = inspect(file)
    assert (said["kind"], said["images"], said["width"]) == ("global descriptors of hloc", 3, 6)


def test_without_sizes_and_scores(tmp_path, images, caplog):
    bare = {
        x: {k: v for k, v in one.items() if k in ("keypoints", "descriptors")} for x, one in images.items()
    }
    file = write(tmp_path / "x.h5", bare)
    path, _ = convert(file, how=Options(dtype="float32"))
    found = DescriptorFile(path)
    assert found.missing == {"scale", "weight"}
    assert found.provenance["locations"] == "pixels"
    expected = bare["db/a.jpg"]["keypoints"][:, ::-1].astype(float) + 0.5
    np.testing.assert_allclose(found.read([0]).positions[0], expected, rtol=1e-6)
    assert "no image_size: locations are (row, col) in pixels" in caplog.text
    assert "no scores: descriptors stay in their order" in caplog.text
    with pytest.raises(AmesError, match="no image_size: locations stay in pixels"):
        convert(file, tmp_path / "y", how=Options(coordinates="normalized"))


def test_a_size_as_an_attribute(tmp_path, images):
    one = {k: v for k, v in images["db/a.jpg"].items() if k != "image_size"}
    file = write(tmp_path / "x.h5", {"a.jpg": one})
    with h5py.File(file, "a") as opened:
        opened["a.jpg"].attrs["image_size"] = SIZES["db/a.jpg"]
    found = DescriptorFile(convert(file)[0])
    assert found.provenance["locations"] == "normalized"
    assert 0 <= float(found.read([0]).positions.min()) <= float(found.read([0]).positions.max()) <= 1


def test_the_same_command_again(file, tmp_path, images):
    path, what = convert(file, tmp_path / "x")
    before = path.read_bytes()
    assert convert(file, tmp_path / "x") == (path, f"{what}; exists already")
    with pytest.raises(AmesError, match=r"was made with different settings \(descriptors: there 5, now 2\)"):
        convert(file, tmp_path / "x", how=Options(desc_num=2))
    assert path.read_bytes() == before
    convert(file, tmp_path / "x", how=Options(desc_num=2, overwrite=True))
    assert DescriptorFile(path).slots == 2


def test_a_conversion_goes_on_where_it_was_stopped(file, tmp_path, monkeypatch):
    from ames.inspection import conversion, from_hloc

    monkeypatch.setattr(conversion, "BLOCK", 1)
    whole = convert(file, tmp_path / "whole")[0].read_bytes()
    read, seen = from_hloc.read_image, []

    def stop(opened, name):
        seen.append(name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return read(opened, name)

    monkeypatch.setattr(from_hloc, "read_image", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(file, tmp_path / "x")
    assert not (tmp_path / "x_local.hdf5").exists()
    path, _ = convert(file, tmp_path / "x")
    assert seen == [*NAMES, NAMES[2]]
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("descriptors", None, r"query/c\.jpg: neither descriptors nor a global_descriptor"),
        (
            "descriptors",
            np.ones((3, 3), np.float32),
            "query/c.jpg has 3 dimensions of descriptors, db/a.jpg has 4",
        ),
        (
            "descriptors",
            np.ones((3, WIDTH), np.float32),
            r"descriptors are \(3, 4\), \[D, N\], and keypoints",
        ),
        ("descriptors", np.ones((WIDTH, 3), np.uint8), r"query/c.jpg: descriptors is uint8 \(4, 3\)"),
        ("descriptors", np.full((WIDTH, 3), np.nan), "query/c.jpg: descriptors hold NaN or infinity"),
        ("descriptors", np.full((WIDTH, 3), 1e6, np.float32), "query/c.jpg: descriptors beyond float16's"),
        ("keypoints", None, "query/c.jpg: descriptors without keypoints"),
        ("keypoints", np.full((3, 2), np.inf, np.float32), "query/c.jpg: keypoints hold NaN or infinity"),
        ("scores", None, "query/c.jpg has no scores, db/a.jpg has scores"),
        ("scores", np.ones(4, np.float16), r"and scores \(4,\): expected \(3,\)"),
        ("image_size", None, "query/c.jpg has no image_size, db/a.jpg has image_size"),
        ("image_size", np.array([0, 5]), "query/c.jpg: its image_size is 0 x 5"),
    ],
)
def test_images_that_cannot_be_converted(tmp_path, images, key, value, message):
    one = {k: v for k, v in images["query/c.jpg"].items() if k != key}
    images["query/c.jpg"] = one | ({} if value is None else {key: value})
    file = write(tmp_path / "x.h5", images)
    with pytest.raises(AmesError, match=message) as caught:
        convert(file)
    assert "\n" not in str(caught.value)
    assert sorted(x.name for x in tmp_path.iterdir() if x.suffix != ".lock") == ["x.h5"]


def test_lists_and_options_that_do_not_fit(file, tmp_path):
    other = listed(tmp_path / "l.txt", "db/a.jpg", "nowhere.jpg")
    with pytest.raises(AmesError, match=r"lacks 1 of 2 images of .*l\.txt \(first: nowhere\.jpg\)"):
        convert(file, how=Options(listed=other))
    with pytest.raises(AmesError, match="--columns is not for feature files of hloc: leave it out"):
        convert(file, how=Options(columns=2))
    with pytest.raises(AmesError, match="--images is not for feature files of hloc"):
        convert(file, how=Options(images=tmp_path))
    with h5py.File(tmp_path / "matches.h5", "w") as matches:
        for i in range(9):
            matches[f"{i}/x/matches0"] = np.zeros(3)
    with pytest.raises(AmesError, match=r"no dataset 'features' \(it holds 0, 1, 2, 3, 4, \.\.\.\)"):
        convert(tmp_path / "matches.h5")


def test_described(file):
    found = inspect(file)
    wanted = {"kind": "local features of hloc", "images": 3, "width": WIDTH, "rows": 8, "first": "db/a.jpg"}
    assert {key: found[key] for key in wanted} == wanted
    assert found["has_scores"] is found["has_image_size"] is True
    assert found["descriptors_per_image"] == {"min": 0, "max": 5}


def test_only_groups_with_features_are_images(tmp_path, images):
    file = write(tmp_path / "x.h5", {"descriptors/keypoints/a.jpg": images["db/a.jpg"]})
    assert image_names(file) == ["descriptors/keypoints/a.jpg"]


# ---- the library's become hloc's --------------------------------------------------------------------


def local_file(path, names=NAMES, **provenance):
    with create_local(
        path, images=3, slots=6, width=WIDTH, dtype="float32", names=names, provenance=provenance
    ) as write_row:
        for row, name in enumerate(NAMES):
            torch.manual_seed(row)
            x, n = torch.randn(COUNTS[name], WIDTH), COUNTS[name]
            write_row(
                row,
                LocalFeatures.from_descriptors(
                    x, positions=torch.rand(n, 2), weight=torch.linspace(1, 0.1, n), scale=torch.ones(n)
                ),
            )
    return path


def sized(path):
    return listed(path, *(f"{name},0,{w},{h}" for name, (w, h) in SIZES.items()))


def test_to_hloc(tmp_path):
    source = local_file(tmp_path / "x_local.hdf5", locations="normalized")
    path, what = convert(source, how=Options(listed=sized(tmp_path / "l.txt")))
    assert (path, what) == (tmp_path / "x_local.h5", "3 images of x_local.hdf5 for hloc")
    local = DescriptorFile(source).read([0, 1, 2])
    with h5py.File(path) as file:
        for row, name in enumerate(NAMES):
            group, n, (w, h) = file[name], COUNTS[name], SIZES[name]
            assert group["image_size"][()].tolist() == [w, h]
            assert group["keypoints"].attrs["uncertainty"] == 1
            assert group["keypoints"].shape == (n, 2)
            assert np.array_equal(group["descriptors"], local.descriptors[row, :n].T)
            assert np.array_equal(group["scores"], local.weight[row, :n])
            at = local.positions[row, :n].double().numpy()
            expected = np.stack([at[:, 1] * w - 0.5, at[:, 0] * h - 0.5], 1)
            np.testing.assert_allclose(group["keypoints"], expected, atol=1e-4)
    before = path.read_bytes()
    assert convert(source, how=Options(listed=tmp_path / "l.txt"))[1] == f"{what}; exists already"
    with pytest.raises(AmesError, match="exists, and was made from something else; --overwrite replaces it"):
        convert(source, how=Options(listed=tmp_path / "l.txt", desc_num=1))
    assert path.read_bytes() == before


def test_there_and_back(tmp_path):
    source = local_file(tmp_path / "x_local.hdf5", locations="normalized")
    path, _ = convert(source, how=Options(listed=sized(tmp_path / "l.txt")))
    back, _ = convert(path, tmp_path / "again", how=Options(dtype="float32"))
    one, other = DescriptorFile(source), DescriptorFile(back)
    assert one.names == other.names
    for name in ("descriptors", "weight"):
        a, b = getattr(one.read([0, 1, 2], 5), name), getattr(other.read([0, 1, 2]), name)
        assert torch.equal(a, b)
    torch.testing.assert_close(one.read([0, 2], 5).positions, other.read([0, 2]).positions, atol=1e-5, rtol=0)


def test_sizes_of_images(tmp_path, caplog):
    source = local_file(tmp_path / "x.hdf5")
    for name, (w, h) in SIZES.items():
        if COUNTS[name]:  # the one without descriptors cannot be read
            (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "photos" / name), np.zeros((h, w, 3), np.uint8))
    path, what = convert(source, tmp_path / "y.h5", how=Options(images=tmp_path / "photos", desc_num=2))
    assert what.endswith("for hloc; 1 that cannot be read are left out")
    assert "does not say what its locations are; they are read as shares" in caplog.text
    with h5py.File(path) as file:
        assert file["db/a.jpg"]["image_size"][()].tolist() == [640, 480]
        assert file["db/a.jpg"]["descriptors"].shape == (WIDTH, 2)
    assert image_names(path) == [NAMES[0], NAMES[2]]


def test_vectors_to_hloc_and_back(tmp_path):
    vectors = np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32)
    write_globals(tmp_path / "v.hdf5", vectors, names=NAMES)
    path, _ = convert(tmp_path / "v.hdf5")
    back, _ = convert(path, tmp_path / "w")
    assert GlobalFile(back).names == NAMES
    assert np.array_equal(GlobalFile(back).read(), vectors)


def test_what_hloc_cannot_have(tmp_path):
    source = local_file(tmp_path / "x.hdf5", locations="normalized")
    with pytest.raises(
        AmesError, match=r"db/a\.jpg: its size is not known.*--list with path,label,width,height"
    ):
        convert(source)
    with pytest.raises(AmesError, match=r"db/a\.jpg: its size cannot be read \(No such file"):
        convert(source, how=Options(images=tmp_path))
    nameless = local_file(tmp_path / "n.hdf5", names=None)
    with pytest.raises(AmesError, match=r"n\.hdf5: holds no names of images: give their list"):
        convert(nameless)
    bad = local_file(tmp_path / "b.hdf5", names=["a", "..", "c"])
    with pytest.raises(AmesError, match=r"'\.\.' cannot be the name of a group"):
        convert(bad)
    with pytest.raises(AmesError, match=r"x\.hdf5 becomes another \.h5 file"):
        convert(source, source)
    assert not list(tmp_path.glob("*.h5"))


def test_commands(file, tmp_path, capsys):
    words = ["convert", str(file), "-o", str(tmp_path / "y"), "--desc-num", "2", "--dtype", "float32"]
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == f"{tmp_path / 'y'}_local.hdf5: 3 images of {file.name}"
    assert main(words) == 0
    assert capsys.readouterr().out.strip().endswith("exists already")
    assert main(["inspect", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 3
