"""Training of a detector on descriptors of seconds: some say what an image shows, others are everywhere."""

import math
import os
import signal
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from ames.backbones.detector import SpatialAttention, load_detector
from ames.datasets.ground_truth import GroundTruth, save_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import DescriptorFile, create_local
from ames.errors import AmesError
from ames.evaluation.pooled_search import PooledSearch, pool
from ames.evaluation.protocols import ALL, LEAVE_ONE_OUT, Protocol
from ames.features import LocalFeatures
from ames.training import Trainer, Validation
from ames.training.data.candidates import LabelledNeighbours
from ames.training.data.loader import TripletLoader
from ames.training.data.neighbours import Neighbours
from ames.training.data.sampler import TripletSampler
from ames.training.resuming import TERMINATED, Checkpoints
from ames.training.tasks.detector import DetectorRecipe, DetectorTask, triplet_losses
from ames.weights.files import read_weights

IMAGES, CLASSES, WIDTH = 48, 6, 16
TELLING, CLUTTER = 3, 6  # descriptors of an image: those of its class, and those that are everywhere
SLOTS = TELLING + CLUTTER + 2
RECIPE = DetectorRecipe(epochs=3, lr=3e-3, warmup=2, clip=1.0)


def write_store(path, *, seed=0, images=IMAGES, width=WIDTH, spoiled=None):
    """Clutter lies in the second half of the dimensions, and an image has much of one kind of it, which
    is what an average sees; where in the first half the rest lies is what the class says.
    """
    generator, half = torch.Generator().manual_seed(seed), width // 2
    classes = torch.randn(CLASSES, half, generator=torch.Generator().manual_seed(99))
    classes = torch.nn.functional.normalize(classes, dim=-1)
    with create_local(path, images=images, slots=SLOTS, width=width) as write_row:
        for i in range(images):
            x = 0.1 * torch.randn(TELLING + CLUTTER, width, generator=generator)
            x[:TELLING, :half] += classes[i % CLASSES]
            kind = int(torch.randint(width - half, (1,), generator=generator))
            x[TELLING:, half + kind] += 1
            if i == spoiled:
                x[0, 0] = math.nan
            write_row(i, LocalFeatures.from_descriptors(x[torch.randperm(len(x), generator=generator)]))
    return DescriptorFile(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store") / "local.hdf5")


def loader(store, seed=0):
    labels = np.arange(IMAGES) % CLASSES
    ids = np.stack([np.roll(np.arange(IMAGES), -i) for i in range(IMAGES)])
    sampler = TripletSampler(LabelledNeighbours(Neighbours.from_arrays(ids, np.ones(ids.shape)), labels))
    return TripletLoader(sampler, store, triplets=12, count=SLOTS, seed=seed)


def made(seed=0, width=WIDTH):
    torch.manual_seed(seed)
    return SpatialAttention(width)


def fit_detector(detector, loader, recipe, *, validate=None, **options):
    def found(trained):
        metrics = validate(trained)
        return Validation(metrics, metrics["val_map"])

    task = DetectorTask(detector, loader, recipe, validate=None if validate is None else found)
    return Trainer(task, **options).fit()


def weights(detector):
    return {name: x.clone() for name, x in detector.state_dict().items()}


def same(a, b):
    return all(torch.equal(x, b[name]) for name, x in a.items())


def held_back(file):
    """Every image is a query, the others of its class are right."""
    classes = np.arange(len(file)) % CLASSES
    queries = [
        {"ok": np.flatnonzero((classes == classes[i]) & (np.arange(len(file)) != i)), "junk": np.array([i])}
        for i in range(len(file))
    ]
    names = [str(i) for i in range(len(file))]
    return PooledSearch(file, file, GroundTruth(queries, names, names), (LEAVE_ONE_OUT,))


# ---- what it learns -------------------------------------------------------------------------------


def test_descriptors_that_tell_classes_apart_outweigh_clutter(store, tmp_path):
    test = held_back(write_store(tmp_path / "other.hdf5", seed=1))  # other images of the classes
    detector = made()
    history = fit_detector(
        detector, loader(store), replace(RECIPE, epochs=30, lr=1e-2, val_freq=30), validate=test
    )
    local = test.gallery.read(range(IMAGES))
    half = WIDTH // 2
    telling = local.descriptors[..., :half].float().norm(dim=-1) > 0.6
    clutter = local.descriptors[..., half:].float().norm(dim=-1) > 0.6
    assert telling.sum() == IMAGES * TELLING
    assert clutter.sum() == IMAGES * CLUTTER
    with torch.no_grad():
        _, found = detector.locations(local.descriptors, local.valid)
    assert found[telling].mean() > 2 * found[clutter].mean()
    weighted, uniform, raw = test.map(detector), test.map(detector, uniform=True), test.map(None)
    assert weighted > 90
    assert weighted > max(uniform, raw) + 30
    assert history[-1]["val_map"] == weighted
    assert history[-1]["val_map_uniform"] == uniform
    assert history[-1]["loss"] < 0.3 * history[0]["loss"]
    assert history[-1]["accuracy"] > 0.95


def test_the_loss_is_that_of_triplets_by_hand(store):
    batch, detector = next(loader(store).epoch(0)), made().eval()
    with torch.no_grad():
        losses = triplet_losses(detector, batch, 0.7)
    expected, right = [], []
    for i in range(12):
        vectors = []
        for side in (batch.anchor, batch.positive, batch.negatives):
            with torch.no_grad():
                projected, found = detector.locations(side.descriptors[i][side.valid[i]])
            total = (projected * found[:, None]).sum(0)
            vectors.append(total / total.norm())
        a, p, n = vectors
        expected.append(max(0.0, float(2 * a @ n - 2 * a @ p) + 0.7))  # |a - p|^2 = 2 - 2 a.p
        right.append(float(a @ p > a @ n))
    assert float(losses.loss) == pytest.approx(np.mean(expected), rel=1e-4)
    assert float(losses.accuracy) == pytest.approx(np.mean(right))
    assert 0 < np.mean(right) < 1


class OnTheFly:
    """What training needs of a loader, and no more; images of unequal size."""

    def __len__(self):
        return 2

    def epoch(self, number, start, ranks):
        for batch in range(start, 2):
            generator = torch.Generator().manual_seed(10 * number + batch)
            sides = [
                LocalFeatures.from_descriptors(torch.randn(4, n, WIDTH, generator=generator))
                for n in (5, 9, 7)
            ]
            yield type("Batch", (), dict(zip(("anchor", "positive", "negatives"), sides, strict=True)))

    def settings(self):
        return {}


def test_features_may_be_made_on_the_fly():
    detector = made()
    before = weights(detector)
    history = fit_detector(detector, OnTheFly(), RECIPE)
    assert len(history) == 3
    assert not any(torch.equal(x, before[name]) for name, x in weights(detector).items())


def test_the_file_says_where_it_is_from(store, tmp_path):
    detector = made()
    fit_detector(detector, loader(store), RECIPE, out=tmp_path / "x.pt", provenance={"backbone": "x"})
    x = torch.randn(2, 4, WIDTH)
    for a, b in zip(load_detector(tmp_path / "x.pt").locations(x), detector.locations(x), strict=True):
        assert torch.equal(a, b)
    about = read_weights(tmp_path / "x.pt").about
    assert about == {"detector": {"width": WIDTH, "input": "normalized"}, "epochs": 3, "backbone": "x"}


def test_equal_weights_of_the_descriptors_are_their_mean(tmp_path):
    x = torch.randn(5, WIDTH).half()
    with create_local(tmp_path / "x.hdf5", images=2, slots=8, width=WIDTH) as write_row:
        write_row(0, LocalFeatures.from_descriptors(x))  # the second image has none
    found = pool(DescriptorFile(tmp_path / "x.hdf5"))
    mean = torch.nn.functional.normalize(torch.nn.functional.normalize(x.float(), dim=-1).mean(0), dim=0)
    np.testing.assert_allclose(found[0], mean, rtol=1e-5, atol=1e-6)
    assert not found[1].any()
    first = pool(DescriptorFile(tmp_path / "x.hdf5"), count=1)[0]
    np.testing.assert_allclose(first, torch.nn.functional.normalize(x[0].float(), dim=0), atol=1e-6)


# ---- interruptions --------------------------------------------------------------------------------


class Interrupted(Exception):  # noqa: N818 - not an error of anything
    pass


class Failing(TripletLoader):
    """Gives some batches, then stops as if the power had gone."""

    def epoch(self, *place):
        for batch in super().epoch(*place):
            if not self.left:
                raise Interrupted
            self.left -= 1
            yield batch


def broken_off(store, batches, folder, recipe=RECIPE):
    failing = loader(store)
    failing.__class__, failing.left = Failing, batches
    with pytest.raises(Interrupted):
        fit_detector(made(), failing, recipe, checkpoints=Checkpoints(folder, every=1))


@pytest.mark.parametrize("batches", [1, 4, 6, 11])
def test_the_weights_are_those_of_an_uninterrupted_training(store, tmp_path, batches):
    whole = made()
    history = fit_detector(whole, loader(store), RECIPE)
    broken_off(store, batches, tmp_path)
    resumed = made(7)  # whatever it starts from
    found = fit_detector(resumed, loader(store), RECIPE, checkpoints=Checkpoints(tmp_path, resume=True))
    assert same(weights(whole), weights(resumed))
    drop = [{k: v for k, v in record.items() if k != "seconds"} for record in history]
    assert drop == [{k: v for k, v in record.items() if k != "seconds"} for record in found]


def test_sigterm_keeps_the_state(store, tmp_path):
    whole = made()
    fit_detector(whole, loader(store), RECIPE)
    terminated = loader(store)
    read, calls = terminated._read, iter(range(12))

    def reading(triplet, part):
        if next(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(triplet, part)

    terminated._read = reading
    with pytest.raises(SystemExit) as end:
        fit_detector(made(), terminated, RECIPE, checkpoints=Checkpoints(tmp_path))
    assert end.value.code == TERMINATED
    assert max(path.name for path in tmp_path.iterdir()) == "state-000000006.pt"  # an epoch has 4 batches
    resumed = made(7)
    fit_detector(resumed, loader(store), RECIPE, checkpoints=Checkpoints(tmp_path, resume=True))
    assert same(weights(whole), weights(resumed))


@pytest.mark.parametrize(
    "options",
    [{"accumulate": 3}, {"ema": 0.8}, {"freeze": ("conv1",)}, {"autocast": "bf16"}, {"autocast": "fp16"}],
    ids=str,
)
def test_options_of_every_training_serve_the_detector_and_its_resumption(
    store, tmp_path, monkeypatch, options
):
    monkeypatch.setattr("ames.training.recipe.usable", lambda *_, **__: True)  # also where it is imitated
    recipe, plain, whole = replace(RECIPE, **options), made(), made()
    fit_detector(plain, loader(store), RECIPE)
    history = fit_detector(whole, loader(store), recipe)
    assert all(math.isfinite(record["loss"]) for record in history)
    assert not same(weights(plain), weights(whole))
    assert {x.dtype for x in whole.parameters()} == {torch.float32}
    broken_off(store, 7, tmp_path, recipe)
    resumed = made(7)
    fit_detector(resumed, loader(store), recipe, checkpoints=Checkpoints(tmp_path, resume=True))
    assert same(weights(whole), weights(resumed))


def test_a_finished_training_says_so_and_leaves_its_detector(store, tmp_path, caplog):
    out, kept = tmp_path / "detector.pt", Checkpoints(tmp_path / "state", resume=True)
    whole = made()
    fit_detector(whole, loader(store), RECIPE, out=out, checkpoints=kept)
    before = out.stat().st_mtime_ns
    for gone in (False, True):
        if gone:
            out.unlink()
        with caplog.at_level("INFO"):
            fit_detector(made(7), loader(store), RECIPE, out=out, checkpoints=kept)
        assert "is finished already: nothing is left to train" in caplog.text
        assert "goes on" not in caplog.text
        assert out.stat().st_mtime_ns == before or gone
    found, counted = weights(load_detector(out)), "bn.num_batches_tracked"  # which the file does not hold
    assert same(found | {counted: weights(whole)[counted]}, weights(whole))


def test_a_training_begun_otherwise_is_refused(store, tmp_path):
    broken_off(store, 3, tmp_path)
    resume = Checkpoints(tmp_path, resume=True)
    with pytest.raises(AmesError, match=r"was begun with margin 0.1, not 0.2; resume with the same"):
        fit_detector(made(), loader(store), replace(RECIPE, margin=0.2), checkpoints=resume)
    with pytest.raises(AmesError, match="was begun with seed 0, not 1"):
        fit_detector(made(), loader(store, seed=1), RECIPE, checkpoints=resume)
    with pytest.raises(AmesError, match="was begun with width 16, not 8"):
        fit_detector(made(width=8), loader(store), RECIPE, checkpoints=resume)


# ---- wrong input ----------------------------------------------------------------------------------


def test_a_descriptor_that_is_no_number_is_named_and_nothing_is_spoiled(tmp_path):
    spoiled, detector = write_store(tmp_path / "spoiled.hdf5", spoiled=5), made()
    with pytest.raises(AmesError) as error:
        fit_detector(detector, loader(spoiled), RECIPE, out=tmp_path / "x.pt")
    assert str(error.value) == "image 5 has a descriptor that is not finite: extract it again"
    assert all(x.isfinite().all() for x in weights(detector).values())
    assert not (tmp_path / "x.pt").exists()


def test_a_batch_with_such_a_descriptor_can_be_skipped(tmp_path):
    spoiled, detector = write_store(tmp_path / "spoiled.hdf5", spoiled=5), made()
    history = fit_detector(detector, loader(spoiled), replace(RECIPE, non_finite="skip"))
    assert all(record["skipped"] >= 1 for record in history)  # each epoch has the image somewhere
    assert all(x.isfinite().all() for x in weights(detector).values())


def test_a_loss_or_gradient_that_is_not_finite_stops_it(store, tmp_path):
    detector = made()
    detector.conv2.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        AmesError, match=r"its gradient became (nan|inf) in epoch 1, batch 1: lower lr, or set"
    ):
        fit_detector(detector, loader(store), RECIPE, out=tmp_path / "x.pt")
    assert all(x.isfinite().all() for x in weights(detector).values())
    with torch.no_grad():
        detector.conv2.bias.fill_(math.inf)
    with pytest.raises(AmesError, match="the loss became nan in epoch 1, batch 1"):
        fit_detector(detector, loader(store), RECIPE, out=tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


def test_descriptors_of_another_width(store):
    with pytest.raises(AmesError, match="descriptors are 16-d, but the detector takes 8-d"):
        fit_detector(made(width=8), loader(store), RECIPE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs 0 and val_freq 1 must be at least 1"),
        ({"val_freq": 0}, "epochs 3 and val_freq 0 must be at least 1"),
        ({"margin": 0.0}, r"margin 0.0 is outside \(0, 4\]"),
        ({"margin": 5.0}, r"margin 5.0 is outside \(0, 4\]"),
        ({"compile": True}, "torch.compile cannot take a detector's loss; leave it out"),
    ],
)
def test_a_recipe_that_trains_nothing(store, changes, message):
    with pytest.raises(AmesError, match=message):
        fit_detector(made(), loader(store), replace(RECIPE, **changes))


def test_a_file_that_could_not_be_read_again(store, tmp_path):
    with pytest.raises(AmesError, match=r"give a name in \.pt"):
        fit_detector(made(), loader(store), RECIPE, out=tmp_path / "x.safetensors")


def test_packed_bits_have_no_sum(tmp_path):
    path = tmp_path / "packed.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=np.zeros((IMAGES, 4, 2), np.uint8))
    with pytest.raises(AmesError, match="holds packed bits; their sum says nothing"):
        pool(DescriptorFile(path))
    with pytest.raises(AmesError, match="holds packed bits; training needs descriptors"):
        loader(DescriptorFile(path))


def test_a_protocol_without_positives_does_not_take_the_mean_with_it(store):
    test = held_back(store)
    empty = Protocol("none", positives=("no",), junk=("junk",))
    queries = [query | {"no": np.empty(0, np.int64)} for query in test.ground_truth.queries]
    both = replace(
        test,
        ground_truth=replace(test.ground_truth, queries=queries),
        protocols=(LEAVE_ONE_OUT, replace(LEAVE_ONE_OUT, name="half", queries=(0, 6)), empty),
    )
    found = both(made())
    maps = [found["val_leave-one-out_map"], found["val_half_map"]]
    assert list(found) == ["val_map", "val_leave-one-out_map", "val_half_map", "val_map_uniform"]
    assert found["val_map"] == pytest.approx(np.mean(maps))
    assert maps[0] == pytest.approx(test.map(made()))
    with pytest.raises(AmesError, match="no query has a positive under none"):
        replace(both, protocols=(empty,)).map(None)


def test_a_test_set_of_other_images(tmp_path):
    for split, images in (("query", 6), ("gallery", 12)):
        write_store(tmp_path / f"x_{split}_local.hdf5", images=images)
    folder = DatasetFolder(tmp_path, "x")
    truth = [{"ok": np.array([i + 6])} for i in range(6)]
    names = [str(i) for i in range(12)]
    save_ground_truth(folder.ground_truth, GroundTruth(truth, names, names[:6]))
    assert 0 < PooledSearch.open(folder, (ALL,)).map(None) <= 100
    save_ground_truth(folder.ground_truth, GroundTruth(truth[:5], names, names[:5]))
    with pytest.raises(AmesError, match="gnd has 5 queries, but there are 6"):
        PooledSearch.open(folder, (ALL,))
