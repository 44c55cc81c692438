"""The task of RAML's teachers: triplets of groups, mined once an epoch."""

import logging

import numpy as np
import pytest
import torch

from ames.embedders.checkpoints import load_pair
from ames.errors import AmesError
from ames.training import Trainer
from ames.training.learner import Learner
from ames.training.tasks.metric_triplets import MetricTriplets, TripletRecipe
from helpers.small_networks import IMAGES, network, photos, triplets_task, write_photos
from helpers.small_training import same, weights

OWN = {"mining_labels": "own", "batch_norm": "frozen"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder)
    return folder


def naive(task, batch):
    """(sum over anchors, anchors) of the mean hinge over the pairs that could be read."""
    recipe, width = task.recipe, task.recipe.group * (1 + task.recipe.negatives)
    vectors = task.model(task.model.inputs.tensor(batch.photos.pixels)).detach()
    at = dict(zip(batch.photos.places.tolist(), vectors, strict=True))
    total, anchors = 0.0, 0
    for group in range(len(batch.pairs)):
        for i in range(recipe.group):
            hinges = [
                max(0.0, float((a - p).square().sum() - (a - n).square().sum()) + recipe.margin)
                for j in range(recipe.group)
                for k in range(recipe.negatives)
                if i != j
                for a, p, n in [
                    [at.get(group * width + x) for x in (i, j, recipe.group + i * recipe.negatives + k)]
                ]
                if a is not None and p is not None and n is not None
            ]
            if hinges:
                total, anchors = total + np.mean(hinges), anchors + 1
    return total, anchors


@pytest.mark.parametrize("bad", [None, {0: "cut.jpg", 6: "cut.jpg", 3: "text.jpg"}])
def test_the_loss_is_the_mean_over_pairs_of_what_can_be_read(folder, bad):
    task = triplets_task(folder, bad=bad, **OWN)
    task.model.train()
    for batch in task.epoch(0):
        total, anchors = naive(task, batch)
        assert task.count(batch) == anchors > 0
        found = float(task.loss(task.model, batch)["loss"].detach())
        assert found == pytest.approx(total / anchors, rel=1e-4)
        assert task.gradient_weight(anchors, anchors) == anchors


def test_an_image_that_breaks_after_mining_takes_its_pairs_along(folder, caplog):
    task = triplets_task(folder, **OWN)
    rows = next(task.epoch(0)).photos.rows
    row = int(rows[0])  # a member
    task.loader.photos.names[row] = "broken/empty.jpg"
    batch = next(task.epoch(0))
    assert row not in batch.photos.rows
    total, anchors = naive(task, batch)
    assert anchors == 7
    assert not batch.pairs[0, 0].any()
    assert float(task.loss(task.model, batch)["loss"].detach()) == pytest.approx(total / 7, rel=1e-4)
    assert [x.getMessage() for x in caplog.records] == [f"{folder}/broken/empty.jpg: left out: empty file"]


def test_steps_separate_the_classes_of_a_batch(folder):
    """Crops of so small photos do not generalize; a batch is learnt by heart."""
    task = triplets_task(folder, lr=3e-3, schedule="constant", mining_labels="own")
    batch = next(task.epoch(0))
    learner, losses = Learner(task), []
    task.model.train()
    for done in range(30):
        losses.append(learner.accumulate(batch)[0]["loss"])
        learner.step(done, 30)
    assert losses[0] > 0.5
    assert losses[-1] < 0.1


def test_groups_are_mined_once_an_epoch_with_the_network_of_that_moment(folder):
    task = triplets_task(folder, **OWN)
    list(task.epoch(0))
    first = task.mined.groups
    list(task.epoch(0))
    assert task.mined.groups is first
    again = triplets_task(folder, **OWN)
    list(again.epoch(0))
    np.testing.assert_array_equal(again.mined.groups, first)
    other = triplets_task(folder, seed=4, **OWN)
    list(other.epoch(0))
    np.testing.assert_array_equal(other.mined.groups[:, :4], first[:, :4])
    assert (other.mined.groups[:, 4:] != first[:, 4:]).any()  # another network, other distances
    list(task.epoch(1))
    assert (task.mined.epoch, again.mined.epoch) == (1, 0)
    assert (task.mined.groups[:, :4] != first[:, :4]).any()


def test_mining_leaves_the_network_as_it_was(folder):
    task = triplets_task(folder, batch_norm="trained")
    before = weights(task.model.train())
    next(task.epoch(0))
    assert same(before, weights(task.model))
    assert all(module.training for module in task.model.modules())


def test_what_is_mined_is_part_of_the_state(folder):
    task, other = triplets_task(folder, **OWN), triplets_task(folder, seed=4, **OWN)
    assert task.state_dict() == {"unreadable": 0}
    list(task.epoch(1))
    other.load_state_dict(task.state_dict())
    for a, b in zip(task.epoch(1, 1), other.epoch(1, 1), strict=True):
        np.testing.assert_array_equal(a.photos.rows, b.photos.rows)


def test_classes_of_one_image_are_named_by_their_number_and_no_anchors(folder, caplog):
    labels = [0, 1, *np.repeat([2, 3], (IMAGES - 2) // 2)]
    with caplog.at_level(logging.WARNING):
        task = triplets_task(folder, labels=labels, **OWN)
    assert [x.getMessage() for x in caplog.records] == [
        "2 of 4 classes have one image, which can be no anchor"
    ]
    assert len(task) == 1
    (batch,) = task.epoch(0)
    assert {2, 3} == {labels[row] for row in task.mined.groups[:, :4].reshape(-1)}
    assert task.count(batch) == 8
    with pytest.raises(AmesError, match="no class has two images"):
        triplets_task(folder, labels=[*range(IMAGES)])


def test_a_batch_without_a_triplet_ends_the_training(folder):
    bad = {
        row: "cut.jpg" for row in range(IMAGES) if row % 6 < 5 and row >= 6
    }  # one image is left of 5 classes
    task = triplets_task(folder, bad=bad, batch_size=20, **OWN)
    with pytest.raises(AmesError, match="has no triplet that can be read"):
        list(task.epoch(0))


def test_unreadable_images_of_an_epoch_are_counted(folder):
    task = triplets_task(folder, bad={0: "cut.jpg", 3: "text.jpg"}, epochs=1, **OWN)
    (record,) = Trainer(task).fit()
    assert record["unreadable"] == 2


def test_the_file_serves_either_side(folder, tmp_path):
    task = triplets_task(folder, epochs=1)
    Trainer(task, out=tmp_path / "t.pt").fit()
    query, gallery = load_pair(tmp_path / "t.pt")
    assert same(weights(query), weights(task.model))
    assert same(weights(gallery), weights(task.model))
    assert not torch.equal(query.whiten.weight, triplets_task(folder).model.whiten.weight)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"margin": 0.0}, "margin 0.0 is outside"),
        ({"group": 1}, "group must be at least 2"),
        ({"batch_size": 19}, "batch_size 19 is less than one group: give 20 or more"),
        ({"pool": 3}, "pool 3 is smaller than negatives 4"),
        ({"mining_labels": "wrong"}, "mining_labels 'wrong' is none of released, own"),
    ],
)
def test_recipes_of_nothing_are_refused(change, said):
    with pytest.raises(AmesError, match=said):
        TripletRecipe(**change)


def test_a_network_without_crops_is_refused(folder):
    with pytest.raises(AmesError, match="the network resizes the long side"):
        MetricTriplets(network(resize="long"), photos(folder), TripletRecipe())
