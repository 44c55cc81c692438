"""From feature maps to descriptors, against the definition written out for one image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ames.backbones.base import FeatureMaps
from ames.backbones.detector import SpatialAttention
from ames.backbones.selection import Selection, check, select
from ames.errors import AmesError

SIZES = ((3, 4), (5, 6))
D = 8


def maps(images=2, sizes=SIZES, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=generator)

    return [
        FeatureMaps(drawn(images, D, h, w), drawn(images, D), drawn(images, h, w).exp()) for h, w in sizes
    ]


def centers(sizes=SIZES):
    return [torch.rand(h, w, 2, generator=torch.Generator().manual_seed(h)) for h, w in sizes]


def trained():
    torch.manual_seed(1)
    detector = SpatialAttention(D)
    for parameter in detector.parameters():
        torch.nn.init.normal_(parameter)
    detector.bn.running_var.uniform_(0.5, 2)
    return detector.eval()


def by_hand(scales, places, image, selection, detector):
    """(weight, scale, place, descriptor) of one image's cells, strongest first; and its global vector."""
    found, vectors = [], []
    for number, (level, place) in enumerate(zip(scales, places, strict=True)):
        cells, sums = [], torch.zeros(D)
        h, w = level.weight.shape[1:]
        for row in range(h):
            for column in range(w):
                x = level.local[image, :, row, column]
                taken = F.normalize(x, dim=0) if selection.detector_input == "normalized" else x
                projected, detected = detector.locations(taken[None])
                weight = {
                    "detector": detected[0],
                    "attention": h * w * level.weight[image, row, column],
                    "norm": x.norm(),
                    "cls": F.cosine_similarity(x, level.vector[image], dim=0),
                }[selection.weight_by]
                unit = F.normalize(x, dim=0) if selection.descriptors == "raw" else projected[0]
                cells.append((float(weight), number, place[row, column], unit, (row, column)))
                sums += max(float(weight), 0) * unit
        gem = level.local[image].clamp(min=1e-6).pow(3).mean((1, 2)).pow(1 / 3)
        vectors.append({"cls": level.vector[image], "average": sums, "gem": gem}[selection.vector])
        reach = selection.nms // 2
        for cell in cells:
            near = [x[0] for x in cells if max(abs(x[4][0] - cell[4][0]), abs(x[4][1] - cell[4][1])) <= reach]
            if cell[0] >= max(near):
                found.append(cell)
    vector = F.normalize(torch.stack([F.normalize(x, dim=0) for x in vectors]).mean(0), dim=0)
    return sorted(found, key=lambda x: -x[0])[: selection.desc_num], vector


@pytest.mark.parametrize("by", ["detector", "attention", "norm", "cls"])
@pytest.mark.parametrize("descriptors", ["raw", "projected"])
@pytest.mark.parametrize("vector", ["cls", "average", "gem"])
@pytest.mark.parametrize(("count", "suppression"), [(10, 1), (99, 3)])
@pytest.mark.parametrize("detector_input", ["network", "normalized"])
@torch.no_grad()
def test_as_written_out(by, descriptors, vector, count, suppression, detector_input):
    selection = Selection(count, by, descriptors, vector, suppression, detector_input)
    scales, places, detector = maps(), centers(), trained()
    check(selection, scales[0], detector)
    local, vectors = select(scales, places, selection, detector)
    assert local.size == min(count, 12 + 30)
    for image in range(2):
        expected, unit = by_hand(scales, places, image, selection, detector)
        n = len(expected)
        assert local.valid[image].tolist() == [True] * n + [False] * (local.size - n)
        for position, (weight, scale, place, descriptor, _) in enumerate(expected):
            assert float(local.weight[image, position]) == pytest.approx(weight, rel=1e-5)
            assert float(local.scale[image, position]) == scale
            torch.testing.assert_close(local.positions[image, position], place)
            torch.testing.assert_close(local.descriptors[image, position], descriptor, atol=1e-5, rtol=1e-4)
        assert not local.descriptors[image, n:].any()
        assert not local.weight[image, n:].any()
        torch.testing.assert_close(vectors[image], unit, atol=1e-5, rtol=1e-4)


def test_equal_weights_keep_the_order_of_the_map():
    level = FeatureMaps(torch.ones(1, D, 4, 5), None, None)
    place = torch.arange(40.0).view(4, 5, 2)
    local, vector = select([level], [place], Selection(7, vector=None))
    assert vector is None
    assert local.positions[0, :, 0].tolist() == [0, 2, 4, 6, 8, 10, 12]


def test_attention_is_compared_over_scales_by_its_multiple_of_an_equal_share():
    """One cell of the finer map has twice its equal share, each of the coarser one its own."""
    coarse, fine = torch.full((1, 2, 2), 0.25), torch.full((1, 5, 5), 23 / 24 / 25)
    fine[0, 3, 1] = 2 / 25
    scales = [FeatureMaps(torch.ones(1, D, *x.shape[1:]), None, x) for x in (coarse, fine)]
    places = [torch.zeros(2, 2, 2), torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0)).view(5, 5, 2)]
    local, _ = select(scales, places, Selection(5, "attention", vector=None))
    assert local.scale[0].tolist() == [1, 0, 0, 0, 0]
    assert local.positions[0, 0].tolist() == [3, 1]
    torch.testing.assert_close(local.weight[0], torch.tensor([2.0, 1, 1, 1, 1]))


def test_an_image_whose_cells_have_no_weight_above_zero_has_an_average():
    """Cosines with a vector of another space can all be negative; a zero vector would never be found."""
    local = torch.rand(2, D, 3, 4, generator=torch.Generator().manual_seed(5))
    vector = torch.stack([-torch.ones(D), torch.ones(D)])
    found = select([FeatureMaps(local, vector, None)], centers()[:1], Selection(5, "cls", vector="average"))[
        1
    ]
    cells = F.normalize(local.flatten(2).transpose(1, 2), dim=-1)
    torch.testing.assert_close(found[0], F.normalize(cells[0].mean(0), dim=-1))
    cosines = F.cosine_similarity(cells[1], vector[1], dim=-1)
    torch.testing.assert_close(found[1], F.normalize(cosines @ cells[1], dim=-1))


def test_half_precision_maps_are_computed_in_full():
    full = maps()
    half = [FeatureMaps(*(x.half() for x in level)) for level in full]
    for by in ("norm", "attention", "cls"):
        local, vectors = select(half, centers(), Selection(5, by))
        assert local.descriptors.dtype == local.weight.dtype == vectors.dtype == torch.float32
        np.testing.assert_allclose(vectors, select(full, centers(), Selection(5, by))[1], atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "spoil", "message"),
    [
        ({"weight_by": "detector"}, {}, "weights by detector need the detector's file"),
        ({"descriptors": "projected"}, {}, "projected descriptors need the detector's file"),
        ({"weight_by": "attention"}, {"weight": None}, "the network gives no attention: select by"),
        ({"weight_by": "cls", "vector": "gem"}, {"vector": None}, "the network has no global vector"),
        ({}, {"vector": None}, "the network has no global vector"),
        ({"weight_by": "cls"}, {"vector": torch.ones(2, 3)}, "global vector is 3-d, its cells 8-d"),
    ],
)
def test_what_the_network_cannot_serve(settings, spoil, message):
    with pytest.raises(AmesError, match=message):
        check(Selection(**settings), maps()[0]._replace(**spoil), None)


def test_a_detector_of_another_width():
    with pytest.raises(AmesError, match="the detector takes 4-d features, the network gives 8-d"):
        check(Selection(weight_by="detector"), maps()[0], SpatialAttention(4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_by": "luck"}, "weight_by 'luck' is none of detector, attention, norm, cls"),
        ({"descriptors": "both"}, "descriptors 'both' is none of raw, projected"),
        ({"vector": "mac"}, "vector 'mac' is none of cls, average, gem, superglobal, None"),
        ({"nms": 2}, "nms 2: give an odd number of cells"),
    ],
)
def test_selections_that_are_none(settings, message):
    with pytest.raises(AmesError, match=message):
        Selection(**settings)


def test_all_of_it_is_recorded():
    raw, projected = Selection(5), Selection(5, descriptors="projected", detector_input="normalized")
    assert raw.provenance()["features"] == "raw"
    assert raw.provenance()["descriptors"] == 5
    assert raw.provenance()["detector_input"] is None
    assert projected.provenance()["detector_input"] == "normalized"
