"""The type in which descriptors travel: every array follows, whatever the leading axes."""

import numpy as np
import pytest
import torch

from ames.features import LocalFeatures


def made(*leading, slots=5, width=3, seed=0):
    """Features with all their arrays; the last slot of every image is padding."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.rand(*leading, slots, *shape, generator=generator)

    valid = (torch.arange(slots) < slots - 1).expand(*leading, slots)
    return LocalFeatures(random(width), valid, random(2), random(), random())


def shapes(local):
    arrays = (local.descriptors, local.valid, local.positions, local.scale, local.weight)
    return [None if x is None else tuple(x.shape) for x in arrays]


def assert_equal(a, b):
    for name in ("descriptors", "valid", "positions", "scale", "weight"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=0, rtol=0, msg=name)


LEADING = pytest.mark.parametrize("leading", [(), (4,), (2, 3)])


def test_all_are_real_unless_said_otherwise():
    local = LocalFeatures.from_descriptors(torch.zeros(2, 5, 3))
    assert local.valid.dtype == torch.bool
    assert local.counts.tolist() == [5, 5]
    assert (local.width, local.size) == (3, 5)
    assert local.positions is None


def test_counts_are_of_real_descriptors():
    assert made(2).counts.tolist() == [4, 4]
    assert made().counts == 4


@pytest.mark.parametrize(
    "valid", [torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 5), torch.ones(5, dtype=torch.bool)]
)
def test_a_mask_of_another_shape_or_type_is_refused(valid):
    with pytest.raises(ValueError, match=r"valid must be bool \(2, 5\)"):
        LocalFeatures(torch.zeros(2, 5, 3), valid)


@LEADING
def test_trim_keeps_the_first(leading):
    local = made(*leading)
    short = local.trim(2)
    assert shapes(short) == [(*leading, 2, 3), (*leading, 2), (*leading, 2, 2), (*leading, 2), (*leading, 2)]
    assert torch.equal(short.descriptors, local.descriptors[..., :2, :])
    assert torch.equal(short.positions, local.positions[..., :2, :])
    assert torch.equal(short.weight, local.weight[..., :2])
    assert_equal(local.trim(9), local)


@LEADING
def test_padding_is_marked_and_zero(leading):
    local = made(*leading)
    longer = local.pad(8)
    assert longer.size == 8
    assert_equal(longer.trim(5), local)
    assert not longer.valid[..., 5:].any()
    assert not longer.descriptors[..., 5:, :].any()
    assert not longer.positions[..., 5:, :].any()
    with pytest.raises(ValueError, match="cannot pad 5 descriptors to 4"):
        local.pad(4)


def test_codes_are_padded_too():
    codes = LocalFeatures.from_descriptors(torch.full((2, 3, 4), 255, dtype=torch.uint8)).pad(5)
    assert codes.descriptors.dtype == torch.uint8
    assert codes.valid.sum() == 6


@LEADING
def test_trim_padding_drops_slots_that_no_image_uses(leading):
    local = made(*leading)
    assert_equal(local.pad(9).trim_padding(), local.trim(4))


def test_trim_padding_keeps_a_slot_that_one_image_uses():
    valid = torch.tensor([[True, False, False, False], [False, False, True, False]])
    assert LocalFeatures.from_descriptors(torch.zeros(2, 4, 3), valid).trim_padding().size == 3


@pytest.mark.parametrize("leading", [(), (2,), (0,)])
def test_trim_padding_of_images_without_descriptors(leading):
    nothing = torch.zeros(*leading, 4, dtype=torch.bool)
    assert LocalFeatures.from_descriptors(torch.zeros(*leading, 4, 3), nothing).trim_padding().size == 1
    assert LocalFeatures.from_descriptors(torch.zeros(*leading, 0, 3)).trim_padding().size == 0


def test_indexing_takes_images():
    local = made(4)
    assert shapes(local[1]) == shapes(made())
    assert torch.equal(local[1].positions, local.positions[1])
    assert torch.equal(local[[3, 0]].scale, local.scale[[3, 0]])
    assert torch.equal(local[1:3].valid, local.valid[1:3])
    with pytest.raises(IndexError, match="no leading axis"):
        made()[0]


def test_reshape_changes_leading_axes_only():
    local = made(2, 3)
    flat = local.reshape(-1)
    assert shapes(flat) == shapes(made(6))
    assert torch.equal(flat.descriptors[4], local.descriptors[1, 1])
    assert_equal(flat.reshape(2, 3), local)
    assert shapes(made().reshape(1, 1)) == shapes(made(1, 1))


def test_stack_pads_to_the_longest():
    a, b = made(slots=5), made(slots=7, seed=1)
    both = LocalFeatures.stack((a, b))
    assert shapes(both) == shapes(made(2, slots=7))
    assert both.counts.tolist() == [4, 6]
    assert_equal(both[0].trim(5), a)
    assert_equal(both[1], b)


def test_cat_pads_to_the_longest():
    a, b = made(2, slots=5), made(3, slots=7, seed=1)
    both = LocalFeatures.cat((a, b))
    assert shapes(both) == shapes(made(5, slots=7))
    assert_equal(both[:2].trim(5), a)
    assert_equal(both[2:], b)


def test_joining_drops_an_array_that_one_lacks():
    joined = LocalFeatures.cat((made(2), LocalFeatures.from_descriptors(torch.zeros(2, 5, 3))))
    assert joined.positions is None
    assert joined.size == 5


def test_to_changes_the_type_of_descriptors_alone():
    local = made(2).to("cpu", torch.float16)
    assert local.descriptors.dtype == torch.float16
    assert local.positions.dtype == torch.float32
    assert local.valid.dtype == torch.bool
    assert_equal(made(2).to(), made(2))


def test_other_descriptors_keep_the_rest():
    local = made(2)
    coded = local.with_descriptors(torch.zeros(2, 5, 16))
    assert coded.width == 16
    assert coded.positions is local.positions
    with pytest.raises(ValueError, match="valid must be bool"):
        local.with_descriptors(torch.zeros(2, 4, 16))


# ---- counts of each image -------------------------------------------------------------------------


def test_keep_marks_what_lies_behind_each_count_as_padding():
    descriptors = torch.arange(3 * 5 * 2.0).reshape(3, 5, 2)
    local = LocalFeatures.from_descriptors(
        descriptors,
        torch.tensor([[1, 1, 1, 1, 0], [1, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool(),
        positions=descriptors,
    )
    kept = local.keep(np.array([2, 4, 1]))
    assert kept.valid.tolist() == [
        [True, True, False, False],
        [True, False, True, True],
        [True, False, False, False],
    ]
    assert torch.equal(kept.descriptors, descriptors[:, :4])
    assert torch.equal(kept.positions, descriptors[:, :4])
    assert local.valid.sum() == 13  # the features themselves stay as they were


def test_keep_of_one_count_is_trim():
    local = LocalFeatures.from_descriptors(torch.randn(2, 3, 5, 4), torch.rand(2, 3, 5) < 0.7)
    for count in (3, np.int64(3), torch.tensor(3), 9):
        kept, trimmed = local.keep(count), local.trim(int(count))
        assert torch.equal(kept.descriptors, trimmed.descriptors)
        assert torch.equal(kept.valid, trimmed.valid)


def test_keep_of_nothing_leaves_one_slot_of_padding():
    kept = LocalFeatures.from_descriptors(torch.ones(2, 3, 4)).keep(torch.tensor([0, 0]))
    assert kept.size == 1
    assert not kept.valid.any()
    assert LocalFeatures.from_descriptors(torch.ones(0, 3, 4)).keep(np.zeros(0, int)).valid.shape == (0, 1)
