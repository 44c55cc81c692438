"""Extraction by keypoint networks and composed backbones, with random weights: every option, or one line."""

import cv2
import numpy as np
import pytest
import torch

from ames.backbones.composed import Composed
from ames.backbones.keypoints import XFeat
from ames.backbones.whitening import Whitening
from ames.cli.main import main
from ames.datasets.finding import find_images
from ames.descriptors.local import DescriptorFile, read_globals
from ames.extraction.base import ImageRegion
from ames.extraction.batched import BatchedExtractor
from ames.extraction.config import ExtractionConfig
from ames.extraction.extractor import Extractor
from ames.extraction.parts import strongest
from ames.extraction.pipeline import Images, plan_output, run
from ames.features import LocalFeatures
from helpers import photos
from helpers.brightness import Brightness
from helpers.learned import made

pytest.importorskip("kornia")

SIZES = ((96, 128), (128, 96), (96, 128), (50, 120))
POINTS = 40


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for number in range(8):
        photos.save(root / f"{number}.png", photos.scene(number, size=SIZES[number % 4]))
    (root / "5.png").write_bytes(b"text")
    return root


@pytest.fixture(scope="module")
def xfeat():
    return made("xfeat")


def composed(whitening=None):
    return Composed("pair", made("aliked-t16"), Brightness(14, 56), whitening=whitening)


def extracted(photos_, network, size=100, **options):
    config = ExtractionConfig(**{"desc_num": POINTS, "workers": 0, "long_side": 128} | options)
    source = BatchedExtractor(network, config)
    return source, [x for chunk in source.chunks(photos_, size) for x in chunk]


def regions(root, box=None):
    return [ImageRegion(root / name, box) for name in find_images(root).names]


def same(first, second, atol=0.0):
    for a, b in zip(first, second, strict=True):
        if isinstance(a, str):
            assert a == b
            continue
        for field in ("descriptors", "valid", "positions", "scale", "weight"):
            torch.testing.assert_close(getattr(a.local, field), getattr(b.local, field), atol=atol, rtol=0)
        assert (a.vector is None) == (b.vector is None)
        if a.vector is not None:
            np.testing.assert_allclose(a.vector, b.vector, atol=max(atol, 1e-6))


@pytest.mark.parametrize("lanes", [True, False])  # False: batches, as on a GPU
def test_neither_threads_nor_batches_nor_chunks_matter(root, xfeat, monkeypatch, lanes):
    expected = extracted(regions(root), xfeat, batch_size=1)[1]
    assert expected[5] == "not an image that OpenCV can decode"
    if not lanes:
        monkeypatch.setattr("ames.extraction.batched.Lanes", lambda: None)
    for options in ({"batch_size": 4}, {"batch_size": 3, "workers": 2, "size": 5}):
        same(extracted(regions(root), xfeat, **options)[1], expected, atol=0 if lanes else 1e-4)


def test_positions_are_shares_and_small_images_are_enlarged(root, xfeat):
    source, (one, *_) = extracted(regions(root)[:1], xfeat, long_side=256)
    image = cv2.resize(photos.scene(0, size=SIZES[0]), (256, 192), interpolation=cv2.INTER_LINEAR)
    _, (large, *_) = extracted([ImageRegion(image)], xfeat, long_side=0)
    same([one], [large])
    assert source.provenance.long_side == 256
    assert one.local.size == POINTS
    assert one.vector is None
    assert source.global_dim is None
    assert set(one.local.scale.tolist()) == {0.0}
    assert ((one.local.positions >= 0) & (one.local.positions <= 1)).all()


def test_a_box_is_a_crop(root, xfeat):
    box = (30, 16, 94, 80)
    _, (found,) = extracted(regions(root, box)[:1], xfeat, long_side=256)
    crop = photos.scene(0, size=SIZES[0])[16:80, 30:94]
    _, (alone,) = extracted([ImageRegion(crop)], xfeat, long_side=128)  # the scale of the whole image
    assert torch.equal(found.local.descriptors, alone.local.descriptors)
    inside = (alone.local.positions * 64 + torch.tensor([16, 30])) / torch.tensor(SIZES[0])
    torch.testing.assert_close(found.local.positions, inside)


def test_scales_are_joined_by_their_scores(root, xfeat):
    source, (both,) = extracted(regions(root)[:1], xfeat, scales=(1.0, 2.0))
    assert source.provenance.scales == [1.0, 2.0]
    alone = [extracted(regions(root)[:1], xfeat, scales=(scale,))[1][0].local for scale in (1.0, 2.0)]
    weights = torch.cat([x.weight for x in alone])
    assert torch.equal(both.local.weight, weights.sort(descending=True).values[:POINTS])
    for number, one in enumerate(alone):
        mine = both.local.scale == number
        assert mine.any()
        assert torch.equal(both.local.descriptors[mine], one.descriptors[: int(mine.sum())])
        assert torch.equal(both.local.positions[mine], one.positions[: int(mine.sum())])


def test_scales_of_unequal_counts():
    first = LocalFeatures.from_descriptors(
        torch.tensor([[[1.0], [2], [0]]]),
        torch.tensor([[True, True, False]]),
        positions=torch.zeros(1, 3, 2),
        scale=torch.zeros(1, 3),
        weight=torch.tensor([[-1.0, -3, 0]]),
    )
    second = LocalFeatures.from_descriptors(
        torch.tensor([[[5.0]]]),
        positions=torch.ones(1, 1, 2),
        scale=torch.ones(1, 1),
        weight=torch.tensor([[-2.0]]),
    )
    found = strongest([first, second], 9)
    assert found.descriptors[0, :, 0].tolist() == [1, 5, 2, 0]
    assert found.valid.tolist() == [[True, True, True, False]]
    assert strongest([first, second], 2).weight.tolist() == [[-1, -2]]


def test_each_part_of_a_composed_backbone_gives_its_own(root):
    local, vector = made("aliked-t16"), Brightness(14, 56)
    source, found = extracted(regions(root), composed())
    _, points = extracted(regions(root), local)
    _, cells = extracted(regions(root), vector, long_side=None)
    assert (source.local_dim, source.global_dim) == (64, 4)
    for one, a, b in zip(found, points, cells, strict=True):
        if isinstance(one, str):
            continue
        assert torch.equal(one.local.descriptors, a.local.descriptors)
        np.testing.assert_allclose(one.vector, b.vector, atol=1e-6)
    record = source.provenance.to_dict()
    assert (record["backbone"], record["long_side"]) == ("pair", 128)
    assert record["global_network"] == {"backbone": "brightness", "patch": 14, "pooling": "cls"}
    bare, without = extracted(regions(root), composed(), vector="none")
    assert bare.global_dim is None
    assert without[0].vector is None
    assert torch.equal(without[0].local.descriptors, found[0].local.descriptors)


def test_whitening_comes_last(root):
    rng = np.random.default_rng(0)
    fitted = Whitening(rng.random(4, np.float32), rng.random((4, 2), np.float32), 0.5)
    source, found = extracted(regions(root), composed(fitted))
    _, plain = extracted(regions(root), composed())
    assert source.global_dim == 2
    for one, other in zip(found, plain, strict=True):
        if not isinstance(one, str):
            np.testing.assert_allclose(one.vector, fitted.apply(other.vector), atol=1e-6)


def test_photos_in_memory(root):
    extract = Extractor("xfeat", desc_num=POINTS, weights="random", long_side=128)
    found = extract([cv2.cvtColor(photos.scene(0), cv2.COLOR_BGR2RGB), root / "1.png"])
    assert (found.backbone, found.local.descriptors.shape, found.vector) == ("xfeat", (2, POINTS, 64), None)
    pair = Extractor("xfeat+efficientnet-lite0", weights="random", long_side=128)
    assert pair.config.desc_num == 400
    assert pair(root / "0.png").vector.shape == (1280,)


# ---- the command --------------------------------------------------------------------------------------


def command(root, out, *options, backbone="xfeat"):
    words = ["extract", "--images", root, "-o", out, "--backbone", backbone, "--weights", "random"]
    words += ["--long-side", 128, "--workers", 0, "--desc-num", POINTS, *options]
    return main([str(x) for x in words])


def test_the_files_of_the_command(root, tmp_path):
    assert command(root, tmp_path / "x", backbone="xfeat+efficientnet-lite0") == 0
    file = DescriptorFile(tmp_path / "x_local.hdf5")
    assert file.provenance["backbone"] == "xfeat+efficientnet-lite0"
    assert file.provenance["weights"] == "random seed 0"
    assert file.provenance["global_network"]["long_side"] == 288
    counts = file.read(range(8)).counts.tolist()
    assert counts == [POINTS] * 5 + [0] + [POINTS] * 2
    vectors = read_globals(tmp_path / "x_global.hdf5")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1] * 5 + [0] + [1] * 2, atol=1e-3)
    assert command(root, tmp_path / "y", backbone="xfeat") == 0
    assert [path.name for path in sorted(tmp_path.glob("y*.hdf5"))] == ["y_local.hdf5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--weight-by", "norm"],
            "backbone xfeat: finds points in fp32, not cells of maps; leave weight-by out",
        ),
        (["--nms", 3], "leave nms out"),
        (["--detector", "x.pt"], "leave detector out"),
        (["--detector-input", "network"], "leave detector-input out"),
        (["--descriptors", "projected"], "leave descriptors out"),
        (["--autocast", "bf16"], "leave autocast out"),
        (["--global", "gem"], "backbone xfeat: global gem: take cls (its own) or none"),
        (["--weight-by", "attention"], "xfeat has no attention of its own"),
    ],
)
def test_options_of_maps_are_refused(root, tmp_path, capsys, options, message):
    assert command(root, tmp_path / "x", *options) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1, err
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["xfeat", "aliked", "disk"])
def test_a_gpu_finds_the_same_points(root, name):
    first, second = (extracted(regions(root), made(name), device=device)[1] for device in ("cpu", "cuda"))
    for one, other in zip(first, second, strict=True):
        if isinstance(one, str):
            continue
        apart = torch.cdist(one.local.positions, other.local.positions)
        assert (apart.amin(1) < 1e-3).float().mean() > 0.8  # the weakest can change places
        cosine = (one.local.descriptors * other.local.descriptors[apart.argmin(1)]).sum(1)
        assert cosine[apart.amin(1) < 1e-3].median() > 0.999


class Stopping(XFeat):
    """Ends the program at the fifth image."""

    def keypoints(self, images, count):
        self.seen = getattr(self, "seen", 0) + 1
        if self.seen == 5:
            raise KeyboardInterrupt
        return super().keypoints(images, count)


def test_an_interrupted_run_resumes(root, tmp_path):
    images = Images(root, find_images(root).names)

    def write(out, network):
        source = BatchedExtractor(network, ExtractionConfig(desc_num=POINTS, workers=0, long_side=128))
        return run(images, source, plan_output(out, images, source), chunk=2)

    whole = write(tmp_path / "whole", XFeat("xfeat", weights=None))
    assert (whole.extracted, list(whole.unreadable)) == (7, ["5.png"])
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "x", Stopping("xfeat", weights=None))
    seen = []

    class Counting(XFeat):
        def keypoints(self, images, count):
            seen.append(len(images))
            return super().keypoints(images, count)

    write(tmp_path / "x", Counting("xfeat", weights=None))
    assert len(seen) == 3  # of the last four, one of which is unreadable
    first, second = (
        DescriptorFile(tmp_path / f"{name}_local.hdf5").read(range(8)) for name in ("whole", "x")
    )
    assert torch.equal(first.descriptors, second.descriptors)
    assert torch.equal(first.positions, second.positions)
