"""One batch: per-pair counts against pairs computed one by one, several negatives, and parts of a batch."""

import numpy as np
import pytest
import torch

from ames.features import LocalFeatures
from ames.models.ames import AMES
from ames.training.data.loader import TripletBatch
from ames.training.losses import distillation_losses, pair_losses
from ames.training.tasks.pairwise import step_losses

SLOTS, WIDTH, B, NEGATIVES = 7, 16, 4, 2
SIZE = {"local_dim": WIDTH, "model_dim": 16, "num_encoder_layers": 2, "dim_feedforward": 32}


def made(seed, **changes):
    torch.manual_seed(seed)
    return AMES(**SIZE | changes).train()


def images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    descriptors = torch.randn(count, SLOTS, WIDTH, generator=generator)
    real = torch.randint(5, SLOTS + 1, (count,), generator=generator)
    valid = torch.arange(SLOTS) < real[:, None]
    return LocalFeatures.from_descriptors(descriptors * valid[..., None], valid)


def batch_of(negatives=NEGATIVES):
    numbers = np.arange((2 + negatives) * B).reshape(2 + negatives, B)
    return TripletBatch(numbers, images(B, 1), images(B, 2), images(negatives * B, 3))


def parts(batch, cuts):
    """The batch as ranks see it."""
    for part in np.array_split(np.arange(B), cuts):
        columns = np.arange(len(batch.images) - 2)[:, None] * B + part
        yield TripletBatch(
            batch.images[:, part],
            batch.anchor[part],
            batch.positive[part],
            batch.negatives[columns.reshape(-1)],
            first=int(part[0]),
            triplets=B,
        )


def counts_of(pairs, seed=0):
    return np.random.default_rng(seed).integers(2, SLOTS + 1, (2, pairs))


def test_labels_tell_matching_pairs_from_others():
    batch = batch_of()
    query, database = batch.pairs()
    assert batch.labels.tolist() == [1] * B + [0] * NEGATIVES * B
    assert batch.labels.dtype == torch.float32
    assert torch.equal(query.descriptors, torch.cat([batch.anchor.descriptors] * (1 + NEGATIVES)))
    assert torch.equal(database.descriptors[:B], batch.positive.descriptors)
    assert torch.equal(database.descriptors[B:], batch.negatives.descriptors)
    assert (batch.share, batch.first, batch.longest) == (1.0, 0, SLOTS)
    assert batch.positions.tolist() == list(range(3 * B))


@pytest.mark.parametrize("distilled", [False, True])
def test_one_count_for_all_is_the_released_recipe(distilled):
    batch, model, teacher = batch_of(1), made(0), made(1).eval() if distilled else None
    found = step_losses(model, teacher, batch, np.array([4, 6]), 10.0)
    query, database = batch.pairs()
    labels = torch.tensor([1.0] * B + [0.0] * B)
    if distilled:
        known = distillation_losses(model, teacher, query, database, labels, (4, 6), beta=10.0)
        expected = torch.nn.functional.mse_loss(*tokens(model, teacher, query, database, 4, 6))
        assert torch.equal(known.mse, expected)
    else:
        known = pair_losses(model, query.trim(4), database.trim(6), labels)
    for mine, other in zip(found, known, strict=True):
        assert torch.equal(mine, other)


def tokens(student, teacher, query, database, n, m):
    """The student's final tokens, and the teacher's for the same descriptors."""
    _, target = teacher(
        query.descriptors, ~query.valid, database.descriptors, ~database.valid, return_logits=True
    )
    target = torch.cat((target[:, : 1 + n], target[:, 1 + query.size : 1 + query.size + m]), 1)
    query, database = query.trim(n), database.trim(m)
    _, read = student(
        query.descriptors, ~query.valid, database.descriptors, ~database.valid, return_logits=True
    )
    return read, target


@pytest.mark.parametrize("distilled", [False, True])
def test_counts_of_each_pair_are_pairs_one_by_one(distilled):
    batch, model, teacher = batch_of(), made(0), made(1).eval() if distilled else None
    query, database = batch.pairs()
    counts = counts_of(len(query.valid))
    assert len(set(counts[0])) > 2
    found = step_losses(model, teacher, batch, counts, 10.0)
    losses = []
    for i, (n, m) in enumerate(counts.T.tolist()):
        one = slice(i, i + 1)
        if distilled:
            pair = query[one], database[one], batch.labels[one]
            losses.append(distillation_losses(model, teacher, *pair, (n, m), beta=10.0))
        else:
            losses.append(pair_losses(model, query[one].trim(n), database[one].trim(m), batch.labels[one]))
    for mine, alone in zip(found, zip(*losses, strict=True), strict=True):
        torch.testing.assert_close(mine, torch.stack(alone).mean(), rtol=1e-4, atol=1e-6)
    assert (found.mse > 0) == distilled


def test_equal_counts_of_each_pair_are_one_count():
    batch, model, teacher = batch_of(), made(0), made(1).eval()
    alone = step_losses(model, teacher, batch, np.array([3, 5]), 10.0)
    each = step_losses(model, teacher, batch, np.array([[3], [5]]).repeat(3 * B, 1), 10.0)
    for mine, other in zip(each, alone, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("ranks", [2, 3])
def test_parts_weighed_by_their_share_make_the_whole(ranks):
    batch, model, teacher = batch_of(), made(0), made(1).eval()
    counts = counts_of(3 * B)
    whole = step_losses(model, teacher, batch, counts, 10.0)
    found = [
        torch.stack(step_losses(model, teacher, part, counts[:, part.positions], 10.0)) * part.share
        for part in parts(batch, ranks)
    ]
    torch.testing.assert_close(torch.stack(found).sum(0), torch.stack(whole), rtol=1e-4, atol=1e-6)


def test_a_batch_is_cut_or_filled_up_to_a_size():
    batch = batch_of()
    assert batch.trimmed(SLOTS) is batch
    longer = batch.trimmed(SLOTS + 2)
    assert longer.longest == longer.positive.size == longer.negatives.size == SLOTS + 2
    assert not longer.anchor.valid[:, SLOTS:].any()
    assert not longer.negatives.descriptors[:, SLOTS:].any()
    assert torch.equal(longer.trimmed(SLOTS).negatives.descriptors, batch.negatives.descriptors)
    assert longer.images is batch.images
    assert longer.share == batch.share
    model = made(0)
    counts = np.array([SLOTS, SLOTS])
    alone, filled = (step_losses(model, None, x, counts, 10.0).loss for x in (batch, longer))
    torch.testing.assert_close(filled, alone)
