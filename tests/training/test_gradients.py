"""Parts of a batch in lanes: the gradient of the whole, and the same bits for any number of lanes."""

import numpy as np
import pytest
import torch
from torch import nn

from ames.lanes import Lanes
from ames.training.data.loader import TripletBatch
from ames.training.gradients import in_lanes, separable
from ames.training.learner import Learner
from ames.training.tasks import pairwise
from ames.training.tasks.pairwise import CountedBatch, PairwiseRecipe, PairwiseTask
from helpers.small_training import SLOTS, detector_task, fit, loader, made, same, weights, write_store


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """Images of 6 to 8 descriptors; parts of one triplet."""
    monkeypatch.setattr(pairwise, "_PART_TOKENS", 1)
    return loader(write_store(tmp_path / "local.hdf5", unequal=True), negatives=2)


def learner_of(batches, distilled=False, lanes=2, **recipe):
    model = made(0).train()
    teacher = made(1) if distilled else None
    task = PairwiseTask(model, batches, PairwiseRecipe(min_desc=4, max_desc=SLOTS, **recipe), teacher=teacher)
    return Learner(task, lanes)


@pytest.mark.parametrize("sampling", ["batch", "pair"])
@pytest.mark.parametrize("distilled", [False, True])
def test_parts_have_the_losses_and_the_gradient_of_the_whole(batches, distilled, sampling):
    found = {}
    for name in ("whole", "parts"):
        learner = learner_of(batches, distilled, desc_num_sampling=sampling)
        (batch, *_) = learner.task.epoch(0)
        if name == "whole":
            learner.lanes = None
        else:
            assert len(learner.task.parts(batch)) == 8
        means, items = learner.accumulate(batch)
        assert items == 24
        found[name] = means, [x.grad for x in learner.model.parameters()]
    (losses, gradient), (others, other) = found.values()
    assert losses == pytest.approx(others, rel=1e-5)
    for x, y in zip(gradient, other, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("recipe", [{}, {"desc_num_sampling": "pair"}, {"accumulate": 2}])
@pytest.mark.parametrize("distilled", [False, True])
def test_weights_are_the_same_bits_for_any_number_of_lanes(batches, distilled, recipe):
    found = []
    for lanes in (1, 2, 4):
        model = made(0)
        options = PairwiseRecipe(epochs=1, lr=1e-3, min_desc=4, max_desc=SLOTS, **recipe)
        fit(model, batches, options, teacher=made(1) if distilled else None, lanes=lanes)
        found.append(weights(model))
    assert same(found[0], found[1])
    assert same(found[0], found[2])
    assert not same(found[0], weights(made(0)))


def test_more_parts_than_groups_are_all_learnt():
    x = torch.arange(100.0)
    w = nn.Parameter(torch.tensor(2.0))
    losses, (gradient,) = in_lanes(
        lambda i: {"loss": w * x[i]}, range(100), [1 + i for i in range(100)], [w], Lanes(2)
    )
    mean = float((x * (x + 1)).sum() / (x + 1).sum())
    assert (losses["loss"], float(gradient)) == (pytest.approx(2 * mean), pytest.approx(mean))


def test_parameters_that_share_a_gradient_or_have_none_keep_their_own():
    a, b, unused = (nn.Parameter(torch.ones(3)) for _ in range(3))
    scale = [1.0, 2.0, 4.0]
    learnt = in_lanes(lambda s: {"loss": (a + b).sum() * s}, scale, [1, 1, 2], [a, b, unused], Lanes(2))
    assert learnt.losses["loss"] == pytest.approx(6 * (1 + 2 + 8) / 4)
    assert learnt.gradient[2] is None
    for gradient in learnt.gradient[:2]:
        assert gradient.tolist() == pytest.approx([2.75] * 3)


def test_a_part_that_fails_fails_the_batch():
    def loss(part):
        raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part 0"):
        in_lanes(loss, [0, 1], [1, 1], [], Lanes(2))


@pytest.mark.parametrize(
    ("layer", "alone"),
    [
        (nn.Linear(2, 2), True),
        (nn.LayerNorm(2), True),
        (nn.Dropout(0.0), True),
        (nn.Dropout(0.1), False),
        (nn.BatchNorm1d(2), False),
    ],
)
def test_layers_that_need_the_whole_batch_get_it(layer, alone):
    assert separable(nn.Sequential(nn.Linear(2, 2), layer)) == alone


def test_a_detector_reads_the_whole_batch(batches):
    assert Learner(detector_task(batches)).lanes is None


def test_padding_is_left_out_of_parts_but_not_in_distillation(batches):
    for distilled, sizes in ((False, {6, 7, 8}), (True, {8})):
        task = learner_of(batches, distilled).task
        (batch, *_) = task.epoch(0)
        assert {part.triplets.longest for part in task.parts(batch)} <= sizes
        assert max(part.triplets.longest for part in task.parts(batch)) == 8


def test_parts_have_their_triplets_and_their_counts(batches):
    task = learner_of(batches, desc_num_sampling="pair").task
    (batch, *_) = task.epoch(0)
    parts = task.parts(CountedBatch(batch.triplets, np.arange(48).reshape(2, 24) % 3 + 5))
    assert [part.triplets.images.tolist() for part in parts] == batch.triplets.images.T[:, :, None].tolist()
    assert parts[3].counts.tolist() == [
        [3 % 3 + 5, 11 % 3 + 5, 19 % 3 + 5],
        [27 % 3 + 5, 35 % 3 + 5, 43 % 3 + 5],
    ]
    one: TripletBatch = parts[3].triplets
    assert one.positions.tolist() == [3, 11, 19]
    assert one.share == 1 / 8
    for place, row in enumerate((3, 11)):
        mine, whole = one.negatives.descriptors[place], batch.triplets.negatives.descriptors[row]
        assert torch.equal(mine, whole[: len(mine)])
