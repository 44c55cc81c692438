"""Images through a network: batches of equal sizes, rows in order, locations in the original image."""

from itertools import chain

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from ames.backbones.detector import SpatialAttention
from ames.datasets.finding import find_images
from ames.datasets.images import read_image
from ames.errors import AmesError
from ames.extraction.base import ImageRegion
from ames.extraction.batched import BatchedExtractor
from ames.extraction.config import ExtractionConfig
from ames.extraction.parts import MapPart
from helpers import photos
from helpers.brightness import Brightness
from helpers.image_files import with_orientation

SIZES = ((60, 80), (80, 60), (64, 64), (30, 90))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for number in range(12):
        photos.save(root / f"{number:02}.png", photos.scene(number, size=SIZES[number % 3]))
    (root / "07.png").write_bytes(b"text")
    return root


DEFAULTS = {"desc_num": 20, "workers": 0}


def features(root, network=None, size=100, photo=ImageRegion, **options):
    names = find_images(root).names
    source = BatchedExtractor(network or Brightness(), ExtractionConfig(**DEFAULTS | options))
    return [x for chunk in source.chunks([photo(root / name) for name in names], size) for x in chunk]


def same(first, second, atol=0.0):
    for a, b in zip(first, second, strict=True):
        if isinstance(a, str):
            assert a == b
            continue
        for field in ("descriptors", "valid", "positions", "scale", "weight"):
            x, y = getattr(a.local, field), getattr(b.local, field)
            torch.testing.assert_close(x, y, atol=atol, rtol=0)
        np.testing.assert_allclose(a.vector, b.vector, atol=max(atol, 1e-7))


def test_neither_threads_nor_batches_nor_chunks_matter(root):
    expected = features(root, batch_size=1)
    assert expected[7] == "not an image that OpenCV can decode"
    for options in (
        {"batch_size": 4},
        {"batch_size": 4, "workers": 3},
        {"batch_size": 3, "size": 5},
        {"batch_size": 64},
    ):
        same(features(root, **options), expected, atol=1e-6)


def test_runs_are_equal_to_the_bit_wherever_they_begin(root):
    names = [root / name for name in find_images(root).names]

    def run(first):
        source = BatchedExtractor(Brightness(), ExtractionConfig(desc_num=20, batch_size=3, workers=2))
        return list(source.chunks([ImageRegion(name) for name in names[first:]], 4))

    whole = run(0)
    for first in (4, 8):
        same(chain.from_iterable(run(first)), chain.from_iterable(whole[first // 4 :]))


@pytest.fixture
def batches(monkeypatch):
    """As on a GPU: whole batches go through the network."""
    monkeypatch.setattr("ames.extraction.batched.Lanes", lambda: None)


def test_on_a_cpu_images_go_through_lanes_whatever_the_batch(root):
    seen = []

    class Seeing(Brightness):
        def maps(self, images):
            seen.append(len(images))
            return super().maps(images)

    found = [features(root, Seeing(), batch_size=size) for size in (1, 4)]
    assert set(seen) == {1}
    pairs = [pair for pair in zip(*found, strict=True) if not isinstance(pair[0], str)]  # some are unreadable
    assert len(pairs) == 11
    assert all(torch.equal(one.local.descriptors, other.local.descriptors) for one, other in pairs)


def test_images_of_equal_size_share_a_batch(root, batches):
    seen = []

    class Seeing(Brightness):
        def maps(self, images):
            seen.append(tuple(images.shape))
            return super().maps(images)

    features(root, Seeing(), batch_size=4)
    assert sorted(shape[0] for shape in seen[1:]) == [3, 4, 4]  # the first is the network's trial


def test_pixels_are_those_of_the_interface(root):
    class Rgb(Brightness):
        mean, std, channels = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1), "rgb"

        def maps(self, images):
            self.last = images
            return super().maps(images)

    for network in (Rgb(), Brightness(14, 0)):
        image = photos.scene(3, size=(28, 42))
        part = MapPart(network, ExtractionConfig(desc_num=5))
        ordered = image if network.channels == "bgr" else image[..., ::-1]
        expected = (ordered / 255 - np.array(network.mean)) / np.array(network.std)
        found = part.pixels([image])[0].permute(1, 2, 0).double()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("shape", [(240, 320), (320, 240), (150, 400)])
@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 2.0)])
def test_a_mark_is_found_where_it_was_drawn(tmp_path, monkeypatch, orientation, shape, boxed, scales):
    """Portrait, landscape, turned by EXIF, cut, at several scales: the brightest cell lies on the mark."""
    image = np.zeros((*shape, 3), np.uint8)
    image[60:80, 200:220] = 255  # rows 60 ... 79, columns 200 ... 219
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    (tmp_path / "x.jpg").write_bytes(with_orientation(jpeg, orientation))
    height, width = read_image(tmp_path / "x.jpg").shape[:2]
    # Turned clockwise, rows become columns, counted from the right.
    row, column = (70, 210) if orientation == 1 else (210, width - 70)
    box = [column - 50, row - 40, column + 35, row + 60] if boxed else None
    for pixels in (False, True):
        monkeypatch.setattr("ames.extraction.batched.PUBLISHED_IN_PIXELS", ("brightness",) if pixels else ())
        config = ExtractionConfig(
            desc_num=1, weight_by="attention", long_side=224, scales=scales, coordinates="published"
        )
        source = BatchedExtractor(Brightness(), config)
        ((found,),) = source.chunks([ImageRegion(tmp_path / "x.jpg", box)], 8)
        unit = torch.tensor([1.0, 1.0] if pixels else [height, width])
        place = (found.local.positions[0] * unit).tolist()
        assert place == pytest.approx([row, column], abs=14), (place, row, column)


def test_a_box_outside_is_an_error_of_its_image(root):
    source = BatchedExtractor(Brightness(), ExtractionConfig(desc_num=5))
    ((found, good),) = source.chunks(
        [ImageRegion(root / "00.png", (500, 500, 600, 600)), ImageRegion(root / "01.png")], 9
    )
    assert "shows nothing of 80 x 60 pixels" in found
    assert good.local.size == 5


def test_suppressed_cells_are_no_descriptors(root):
    found = features(root, desc_num=64, weight_by="attention", nms=3)
    counts = [x.local.size for x in found if not isinstance(x, str)]
    assert 0 < max(counts) < 20
    assert all(bool(x.local.valid.all()) for x in found if not isinstance(x, str))


def test_values_that_are_not_finite_are_an_error_of_their_image(root, batches):
    class Overflowing(Brightness):
        def maps(self, images):
            maps = super().maps(images)
            if images.any():
                maps.local[0] = torch.nan
            return maps

    found = features(root, Overflowing(), batch_size=4)
    assert sum("not finite" in x for x in found if isinstance(x, str)) == 3


def test_what_does_not_fit_the_memory_is_one_line(root):
    class Large(Brightness):
        def maps(self, images):
            if images.any():
                torch.empty(2**55)
            return super().maps(images)

    with pytest.raises(
        AmesError, match=r"images of \d+ x \d+ pixels do not fit cpu's memory: lower --batch-size"
    ):
        features(root, Large())


def test_autocast(root):
    class Convolved(Brightness):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.mix = nn.Conv2d(3, 4, 14, 14)

        def maps(self, images):
            maps = super().maps(images)
            local = self.mix(images)
            self.seen = local.dtype
            return maps._replace(local=local)

    network = Convolved()
    full = features(root, network, desc_num=999)
    assert network.seen == torch.float32
    low = features(root, network, desc_num=999, autocast="bf16")
    assert network.seen == torch.bfloat16
    assert low[0].local.descriptors.dtype == torch.float32
    assert not torch.equal(full[0].local.weight, low[0].local.weight)
    torch.testing.assert_close(full[0].local.weight, low[0].local.weight, atol=0.02, rtol=0.02)


def test_what_a_source_says(root):
    detector = SpatialAttention(4)
    words = {"weight_by": "detector", "descriptors": "projected", "vector": "average"}
    source = BatchedExtractor(Brightness(), ExtractionConfig(desc_num=7, **words), detector)
    assert (source.rows.slots, source.local_dim, source.global_dim) == (7, 4, 4)
    said = source.provenance
    assert said.backbone == "brightness"
    assert (said.by, said.features, said.vector) == ("detector", "projected", "average")
    assert (said.long_side, said.locations, said.scales) == (112, "normalized", [1.0])
    torch.manual_seed(3)
    other = SpatialAttention(4)
    weighting = ExtractionConfig(weight_by="detector")
    assert said.detector != BatchedExtractor(Brightness(), weighting, other).provenance.detector
    unused = BatchedExtractor(Brightness(), ExtractionConfig(weight_by="norm"), other)
    assert unused.provenance.detector is None  # it has no part in it
    with pytest.raises(AmesError, match="need the detector's file"):
        BatchedExtractor(Brightness(), weighting)
    with pytest.raises(AmesError, match="autocast 'half' is none of bf16, fp16"):
        ExtractionConfig(autocast="half")


@pytest.mark.gpu
def test_on_a_gpu_as_on_the_cpu(root):
    options = {"batch_size": 4, "workers": 2}
    same(features(root, device="cuda", **options), features(root, **options), atol=1e-4)
