"""``ames extract`` through vision transformers, tiny ones: what is taken, and from where."""

import cv2
import numpy as np
import pytest

from ames.backbones import NETWORKS
from ames.backbones.detector import SpatialAttention, save_detector
from ames.cli.main import main
from ames.descriptors.local import DescriptorFile, read_globals
from helpers import photos

TINY = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
NAMES = {
    "dinov2-s": {"patch_size": 14, "image_size": 56},
    "dinov2-s-noreg": {"patch_size": 14, "image_size": 56},
    "dinov3-s": {"intermediate_size": 96, "num_register_tokens": 4},
    "siglip2-b": {"intermediate_size": 96, "image_size": 64},
}
SIZES = {"high.png": (120, 60), "square.png": (70, 70), "wide.png": (40, 160)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for seed, (name, size) in enumerate(SIZES.items()):
        photos.save(root / name, photos.scene(seed, size=size))
    save_detector(root / "detector.pt", SpatialAttention(TINY["hidden_size"]))
    return root


@pytest.fixture(params=NAMES)
def name(request, monkeypatch):
    sizes = NETWORKS[request.param].SIZES
    monkeypatch.setitem(
        sizes, request.param, sizes[request.param]._replace(config=TINY | NAMES[request.param])
    )
    return request.param


def extract(root, out, name, *options, long_side=96):
    """Exit status of the command, random weights."""
    words = ["extract", "--images", root, "-o", out, "--backbone", name, "--weights", "random"]
    return main([str(x) for x in (*words, "--long-side", long_side, "--workers", 0, *options)])


def rows(out, images=3):
    """Local descriptors of each image, without padding."""
    found = DescriptorFile(f"{out}_local.hdf5").read(range(images))
    return [found[i].trim(int(found.counts[i])) for i in range(images)]


def grids(name, long_side=96):
    """Of each image: rows and columns of its map."""
    patch = NAMES[name].get("patch_size", 16)
    return [
        tuple(max(1, round(side * long_side / max(size) / patch)) for side in size) for size in SIZES.values()
    ]


@pytest.mark.parametrize("select", ["attention", "norm", "cls", "detector"])
@pytest.mark.parametrize("vector", ["cls", "average", "gem", "none"])
def test_every_way_to_select_and_to_pool(root, tmp_path, name, select, vector):
    options = ["--weight-by", select, "--global", vector, "--detector", root / "detector.pt"]
    assert extract(root, tmp_path / "x", name, *options) == 0
    for local, (down, across) in zip(rows(tmp_path / "x"), grids(name), strict=True):
        assert local.descriptors.shape == (down * across, 48)
        np.testing.assert_allclose(np.linalg.norm(local.descriptors, axis=1), 1, atol=2e-3)
        places = np.stack(np.meshgrid(np.arange(down) + 0.5, np.arange(across) + 0.5, indexing="ij"), -1)
        expected = (places / [down, across]).reshape(-1, 2)
        order = np.lexsort(np.asarray(local.positions.round(decimals=3)).T[::-1])
        np.testing.assert_allclose(local.positions[order], expected, atol=1e-3)
        assert (np.diff(local.weight) <= 0).all()
        assert (local.weight > 0).all() or select == "cls"
    vectors = list(tmp_path.glob("x_*.hdf5"))
    assert len(vectors) == 1 + (vector != "none")
    if vector != "none":
        found = read_globals(next(path for path in vectors if "local" not in path.name))
        assert found.shape == (3, 48)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)


@pytest.mark.parametrize(("row", "column"), [(10, 30), (100, 150), (60, 90), (17, 152)])
@pytest.mark.parametrize("portrait", [False, True])
@pytest.mark.parametrize("boxed", [False, True])
def test_what_changes_most_lies_where_a_mark_was_drawn(tmp_path, name, row, column, portrait, boxed):
    image = np.full((112, 176, 3), 120, np.uint8)
    if portrait:
        image, row, column = image.transpose(1, 0, 2).copy(), column, row
    box = (max(column - 60, 0), max(row - 50, 0), column + 30, row + 40)
    (tmp_path / "boxes.txt").write_text(",".join(map(str, box)))
    options = ["--boxes", tmp_path / "boxes.txt"] if boxed else []
    found = []
    for path, colour in (("plain", 120), ("marked", 255)):
        cv2.rectangle(image, (column - 3, row - 3), (column + 3, row + 3), (colour,) * 3, -1)
        photos.save(tmp_path / path / "x.png", image)
        assert extract(tmp_path / path, tmp_path / path / "x", name, *options, long_side=352) == 0
        (local,) = rows(tmp_path / path / "x", 1)
        found.append(dict(zip(map(tuple, local.positions.tolist()), local.descriptors, strict=True)))
    plain, marked = found
    place = max(plain, key=lambda x: float((plain[x] - marked[x]).norm()))
    assert np.array(place) * image.shape[:2] == pytest.approx(
        [row, column], abs=8
    )  # half a patch, and a mark


@pytest.mark.parametrize("select", ["attention", "norm", "cls"])
def test_scales_suppression_and_half_precision(root, tmp_path, name, select):
    for number, options in enumerate(
        (
            ["--scales", "0.5", "1", "2"],
            ["--nms", "3"],
            ["--autocast", "bf16"],
            ["--coordinates", "published"],
        )
    ):
        assert extract(root, tmp_path / f"{number}", name, "--weight-by", select, *options) == 0
    several, suppressed, low, published = (rows(tmp_path / f"{number}") for number in range(4))
    for image, (down, across) in enumerate(grids(name)):
        cells = sum(h * w for h, w in (grids(name, side)[image] for side in (48, 96, 192)))
        assert several[image].size == cells
        assert set(several[image].scale.tolist()) == {0, 1, 2}
        assert 0 < suppressed[image].size < down * across
        assert low[image].size == published[image].size == down * across
        assert (
            float(published[image].positions.max()) < 1
        )  # shares: only CVNet's published locations are pixels
        np.testing.assert_allclose(low[image].weight, published[image].weight, atol=0.02, rtol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--global", "superglobal"], "global superglobal is CVNet's"),
        (["--weight-by", "detector"], "weights by detector need the detector's file"),
        (["--descriptors", "projected"], "projected descriptors need the detector's file"),
        (["--weight-by", "luck"], "'luck' is none of detector, attention, norm, cls"),
        (["--scales", "0"], "scales 0: give some above 0"),
        (["--nms", "2"], "give an odd number of cells"),
    ],
)
def test_what_cannot_be_is_one_line(root, tmp_path, capsys, name, options, message):
    assert extract(root, tmp_path / "x", name, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("taken", ["network", "normalized"])
def test_a_detector_gets_the_features_that_trained_it(root, tmp_path, name, taken):
    save_detector(tmp_path / "d.pt", SpatialAttention(TINY["hidden_size"], input=taken))
    for out, words in (("said", []), ("given", ["--detector-input", taken])):
        assert extract(root, tmp_path / out, name, "--detector", tmp_path / "d.pt", *words) == 0
        assert DescriptorFile(tmp_path / f"{out}_local.hdf5").provenance["detector_input"] == taken
    for a, b in zip(rows(tmp_path / "said"), rows(tmp_path / "given"), strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
