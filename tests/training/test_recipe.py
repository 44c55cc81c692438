"""What researchers turn on: averaged weights, frozen parts, counts of pairs, fp16; the best that is kept."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.checkpoints import load_model
from ames.reranking.fusion import Fusion
from ames.training import Validation
from ames.training.distributed import Ranks
from ames.training.learner import Learner
from ames.training.resuming import Checkpoints
from ames.training.tasks.pairwise import PairwiseRecipe, PairwiseTask, descriptor_counts
from ames.weights.files import read_weights
from helpers.small_training import RECIPE, fit, loader, made, same, weights

# ---- averaged weights -----------------------------------------------------------------------------------


def test_averaged_weights_are_the_exponential_average_of_every_step(store, tmp_path, monkeypatch):
    decay, seen = 0.8, []
    original = Learner.step

    def recording(self, done, total):
        original(self, done, total)
        seen.append(weights(self.model))

    monkeypatch.setattr(Learner, "step", recording)
    model = made()
    fit(model, loader(store), replace(RECIPE, ema=decay), out=tmp_path / "model.pt")
    expected = seen[0]  # the average starts from what the first step made
    for step in seen[1:]:
        expected = {name: decay * x + (1 - decay) * step[name] for name, x in expected.items()}
    for name, x in weights(model).items():
        torch.testing.assert_close(x, expected[name])
    assert not same(seen[-1], weights(model))
    assert same(weights(load_model(tmp_path / "model.pt")), weights(model))


def test_averaged_weights_are_what_is_validated_and_what_is_resumed(store, tmp_path):
    recipe = replace(RECIPE, ema=0.9, autocast="fp16")
    looked_at = []

    def validate(model):
        looked_at.append(weights(model))
        if len(looked_at) == 1 and not (tmp_path / "again").exists():
            (tmp_path / "again").touch()
            raise AmesError("broken off")
        return Validation({})

    whole = made()
    fit(whole, loader(store), recipe)
    states = tmp_path / "states"
    with pytest.raises(AmesError, match="broken off"):
        fit(made(), loader(store), recipe, checkpoints=Checkpoints(states, every=1), validate=validate)
    resumed = made(5)
    checkpoints = Checkpoints(states, every=1, resume=True)
    fit(resumed, loader(store), recipe, checkpoints=checkpoints, validate=validate)
    assert same(weights(whole), weights(resumed))
    assert same(looked_at[-1], weights(resumed))


# ---- frozen parts ---------------------------------------------------------------------------------------


def test_frozen_parameters_stay_and_the_others_learn(store):
    model = made()
    before = weights(model)
    fit(model, loader(store), replace(RECIPE, freeze=("remap_local", "decoder.layers.0")))
    for name, x in weights(model).items():
        frozen = name.startswith(("remap_local.", "decoder.layers.0."))
        assert torch.equal(x, before[name]) == frozen, name


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (("remap",), "freeze 'remap' names no parameter; they begin with classifier, decoder"),
        (("mtc_token", "remap_local", "decoder", "classifier"), "freeze leaves nothing to learn"),
    ],
)
def test_what_cannot_be_frozen(store, freeze, message):
    with pytest.raises(AmesError, match=message):
        fit(made(), loader(store), replace(RECIPE, freeze=freeze))


# ---- descriptor counts ----------------------------------------------------------------------------------


def test_every_pair_can_have_counts_of_its_own(store, monkeypatch):
    model, seen = made(), []
    pairs = model.pairs

    def recording(query, database):
        seen.append(torch.stack((query.counts, database.counts)))
        return pairs(query, database)

    monkeypatch.setattr(model, "pairs", recording)
    fit(model, loader(store), replace(RECIPE, desc_num_sampling="pair", min_desc=3, max_desc=7))
    counts = torch.cat(seen, 1)
    assert counts.shape == (2, 2 * 4 * 16)
    assert [set(side.tolist()) for side in counts] == [{3, 4, 5, 6}] * 2
    assert len(set(seen[0][0].tolist())) > 1


def test_a_pair_s_counts_do_what_trimming_does():
    model = made().eval()
    torch.manual_seed(0)
    query, database = (LocalFeatures.from_descriptors(torch.randn(3, 8, 16)) for _ in range(2))
    together = model.pairs(query.keep(np.array([2, 8, 5])), database.keep(np.array([7, 1, 8])))
    for i, (n, m) in enumerate(((2, 7), (8, 1), (5, 8))):
        alone = model.pairs(query[i : i + 1].trim(n), database[i : i + 1].trim(m))
        torch.testing.assert_close(together[i : i + 1], alone)


def test_counts_are_those_of_the_whole_batch_whoever_draws_them(store):
    recipe = PairwiseRecipe(desc_num_sampling="pair", min_desc=2, max_desc=8)
    (whole, *_) = loader(store).epoch(0)
    parts = [next(loader(store).epoch(0, ranks=Ranks(rank=rank, count=3))) for rank in range(3)]
    drawn = descriptor_counts(recipe, 1, 2, whole)
    assert drawn.shape == (2, 16)
    for part in parts:
        np.testing.assert_array_equal(descriptor_counts(recipe, 1, 2, part), drawn[:, part.positions])


@pytest.mark.parametrize("counts", ["batch", "pair"])
def test_a_fixed_count_is_not_drawn(store, counts):
    recipe = replace(RECIPE, desc_num_sampling=counts, database_desc=5)
    batch = next(iter(loader(store).epoch(0)))
    queries, databases = [], []
    for number in range(20):
        query, database = descriptor_counts(recipe, 0, number, batch)
        queries.append(np.unique(query))
        databases.append(np.unique(database))
    assert set(np.concatenate(databases)) == {5}
    assert set(np.concatenate(queries)) == {4, 5, 6, 7}


# ---- fp16 -----------------------------------------------------------------------------------------------


def test_an_overflow_in_fp16_lowers_the_scale_and_stops_nothing(store):
    model = made()
    task = PairwiseTask(model, loader(store), replace(RECIPE, autocast="fp16"))
    learner = Learner(task)
    batch = next(task.epoch(0))._replace(counts=np.array([4, 4]))
    before, scale = copy.deepcopy(weights(model)), learner.scaler.get_scale()
    learner.accumulate(batch)
    model.classifier.weight.grad.fill_(float("inf"))
    assert learner.gradients_are_finite()
    learner.step(0, 10)
    assert same(before, weights(model))
    assert learner.scaler.get_scale() == scale / 2


# ---- what is kept ---------------------------------------------------------------------------------------


def test_the_best_in_validation_is_kept_with_the_blend_found_there(store, tmp_path):
    out, seen = tmp_path / "model.pt", []
    results = [
        Validation({"val_map": score}, score, {"blend": {"lamb": lamb, "temp": temp}})
        for score, lamb, temp in ((40.0, 0.1, 1.0), (60.0, 0.3, 0.5), (50.0, 0.2, 2.0))
    ]

    def validate(model):
        seen.append(weights(model))
        return results[len(seen) - 1]

    fit(made(), loader(store), replace(RECIPE, epochs=3), out=out, validate=validate)
    best = tmp_path / "model-best.pt"
    assert same(seen[1], weights(load_model(best)))
    assert same(seen[2], weights(load_model(out)))
    assert Fusion.from_checkpoint(read_weights(best).about, source="x") == Fusion(0.3, 0.5)
    assert Fusion.from_checkpoint(read_weights(out).about, source="x") == Fusion(0.2, 2.0)


def test_without_validation_there_is_no_best_and_no_blend(store, tmp_path):
    fit(made(), loader(store), RECIPE, out=tmp_path / "model.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt"]
    assert "blend" not in read_weights(tmp_path / "model.pt").about


def test_the_best_of_an_earlier_training_does_not_stand_beside_a_new_model(store, tmp_path):
    fit(made(), loader(store), RECIPE, out=tmp_path / "model.pt", validate=lambda model: Validation({}, 50.0))
    assert (tmp_path / "model-best.pt").is_file()
    fit(made(1), loader(store), RECIPE, out=tmp_path / "model.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt"]


def test_figures_of_numpy_and_those_that_are_no_numbers_can_be_kept(store, tmp_path):
    results = iter([float("nan"), 30.0, 20.0])

    def validate(model):
        score = np.float32(next(results))
        return Validation({"val_map": score}, score, {"blend": {"lamb": 0.5, "temp": 1.0}})

    recipe = replace(RECIPE, epochs=3)
    found = fit(
        made(),
        loader(store),
        recipe,
        out=tmp_path / "model.pt",
        validate=validate,
        checkpoints=Checkpoints(tmp_path / "states"),
    )
    assert [type(record["val_map"]) for record in found] == [float] * 3
    best = read_weights(tmp_path / "model-best.pt")
    assert Fusion.from_checkpoint(best.about, source="x") == Fusion(0.5, 1.0)
    assert same(best.state, load_epoch(tmp_path / "states", 2))


def load_epoch(folder, epoch):
    """The weights in the state behind an epoch."""
    return torch.load(sorted(folder.iterdir())[epoch - 2], weights_only=True)["model"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip": 0.0}, "clip 0.0 leaves nothing of a gradient"),
        ({"query_desc": 9}, "query_desc 9 is outside 1 ... 8, the descriptors of an image"),
        ({"database_desc": 0}, "database_desc 0 is outside 1 ... 8"),
        ({"desc_num_sampling": "image"}, "desc_num_sampling 'image' is none of batch, pair"),
        ({"autocast": "fp8"}, "autocast 'fp8' is none of null, bf16, fp16"),
        ({"ema": 1.0}, "ema 1.0 is not between 0 and 1"),
        ({"non_finite": "maybe"}, "non_finite 'maybe' is none of stop, skip"),
        ({"accumulate": 0}, "accumulate 0 must be at least 1"),
    ],
)
def test_options_that_mean_nothing(store, changes, message):
    with pytest.raises(AmesError, match=message):
        fit(made(), loader(store), replace(RECIPE, **changes))


def test_the_rate_stays_constant_after_its_warm_up(store):
    def trained(**changes):
        learner = Learner(PairwiseTask(made(), loader(store), replace(RECIPE, warmup=3, **changes)))
        rates = []
        for done in range(8):
            learner.step(done, 8)
            rates.append(learner.lr / RECIPE.lr)
        return rates

    seen = trained(schedule="constant")
    assert seen == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
    assert trained()[:3] == seen[:3]
    assert trained()[-1] < 0.1
    with pytest.raises(AmesError, match="schedule 'steps' is none of cosine, linear, constant, onecycle"):
        replace(RECIPE, schedule="steps")
