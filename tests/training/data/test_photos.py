"""Batches of photos: the same whatever the workers and processes, without what cannot be read."""

import logging
import threading

import numpy as np
import pytest

from ames.datasets.images import UnreadableImage, read_image
from ames.errors import AmesError
from ames.training.data.augmentation import Augmentation
from ames.training.data.photos import PhotoLoader, SquareView, TrainingPhotos
from ames.training.distributed import Ranks
from helpers.photos import broken, save, scene

PLAIN = Augmentation(scale=(1, 1), ratio=(1, 1), flip=0, jitter=(0, 0, 0, 0))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """12 photos of 3 classes, and broken ones."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(12):
        save(folder / f"{i}.png", scene(i, size=(32, 40)))
    broken(folder / "broken")
    return folder


def photos(root, bad=()):
    """The 12 photos; rows of ``bad`` are broken ones instead."""
    names = [f"{i}.png" for i in range(12)]
    for row, name in dict(bad).items():
        names[row] = f"broken/{name}"
    return TrainingPhotos(root, names, ["b", "a", "c"] * 4)


def loader(root, bad=(), **options):
    return PhotoLoader(photos(root, bad), SquareView(16), **{"batch": 4} | options)


class Twins:
    """Two processes as threads: what they say is joined, whatever order they come in."""

    def __init__(self):
        self.barrier, self.said = threading.Barrier(2), {}

    def ranks(self, number):
        twins = self

        class Told(Ranks):
            def _all(self, value):
                twins.said[self.rank] = value
                twins.barrier.wait(10)
                found = [twins.said[i] for i in range(2)]
                twins.barrier.wait(10)
                return found

            def all_reduce_sum(self, values):
                return np.sum(self._all(np.array(values, float)), 0).tolist()

            def all_gather(self, array):
                return np.concatenate(self._all(array), axis=-1)

        return Told(rank=number, count=2)


def by_two(root, **options):
    """The batches of both processes, and the error of each."""
    twins, found, errors = Twins(), ([], []), {}

    def run(number):
        try:
            found[number].extend(loader(root, **options).epoch(0, ranks=twins.ranks(number)))
        except AmesError as error:
            errors[number] = str(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return found, errors


def same(a, b):
    for x, y in zip(a, b, strict=True):
        for one, other in zip((x.rows, x.places, *x.arrays), (y.rows, y.places, *y.arrays), strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_epoch_has_every_image_once_and_each_epoch_another_order(root):
    batches, other = ([*loader(root).epoch(number)] for number in (0, 1))
    rows = np.concatenate([x.rows for x in batches])
    assert rows.tolist() != np.concatenate([x.rows for x in other]).tolist()
    assert sorted(rows.tolist()) == [*range(12)]
    assert {x.pixels.shape for x in batches} == {(4, 16, 16, 3)}
    assert [x.left_out for x in batches] == [0, 0, 0]
    assert len(loader(root)) == 3
    short = loader(root, items=9)
    assert len(short) == 2
    assert [x.rows.tolist() for x in short.epoch(0)] == [x.rows.tolist() for x in batches[:2]]


def test_pixels_are_those_of_the_named_image(root):
    views = SquareView(32, PLAIN)
    for batch in PhotoLoader(photos(root), views, batch=5).epoch(2):
        for row, pixels in zip(batch.rows, batch.pixels, strict=True):
            np.testing.assert_array_equal(pixels, read_image(root / f"{row}.png")[:, 4:36])


def test_labels_are_numbered(root):
    found = photos(root)
    assert found.labels.tolist() == [1, 0, 2] * 4
    assert found.labels.dtype == np.int64
    assert found.classes == 3


def test_the_views_of_an_image_depend_on_seed_epoch_and_row_alone(root):
    def views(**options):
        made = loader(root, **options)
        return {int(row): x for b in made.epoch(1) for row, x in zip(b.rows, b.pixels, strict=True)}

    once, other = views(), views(batch=3)
    for row in range(12):
        np.testing.assert_array_equal(once[row], other[row])
    assert any((once[row] != views(seed=1)[row]).any() for row in range(12))
    again = {int(row): x for b in loader(root).epoch(2) for row, x in zip(b.rows, b.pixels, strict=True)}
    assert any((once[row] != again[row]).any() for row in range(12))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_and_the_start_change_nothing(root, workers):
    whole = [*loader(root).epoch(3)]
    same([*loader(root, workers=workers).epoch(3)], whole)
    same([*loader(root, workers=workers).epoch(3, 2)], whole[2:])


def test_two_processes_read_what_one_reads(root):
    found, errors = by_two(root)
    assert not errors
    for whole, a, b in zip(loader(root).epoch(0), *found, strict=True):
        np.testing.assert_array_equal(np.concatenate((a.rows, b.rows)), whole.rows)
        np.testing.assert_array_equal(np.concatenate((a.pixels, b.pixels)), whole.pixels)


BAD = {2: "cut.jpg", 7: "text.jpg"}


def test_an_image_that_cannot_be_read_is_named_once_left_out_and_counted(root, caplog):
    made, good = loader(root, BAD), loader(root)
    with caplog.at_level(logging.WARNING):
        for number in range(2):
            batches = [*made.epoch(number)]
            assert sum(x.left_out for x in batches) == 2
            for batch, whole in zip(batches, good.epoch(number), strict=True):
                kept = ~np.isin(whole.rows, [*BAD])
                np.testing.assert_array_equal(batch.rows, whole.rows[kept])
                np.testing.assert_array_equal(batch.places, np.flatnonzero(kept))
                np.testing.assert_array_equal(batch.pixels, whole.pixels[kept])
                assert batch.left_out == (~kept).sum()
    assert sorted(x.getMessage() for x in caplog.records) == [
        f"{root}/broken/cut.jpg: left out: cut off: the end of the file is missing",
        f"{root}/broken/text.jpg: left out: not an image that OpenCV can decode",
    ]


def test_both_processes_go_on_when_one_reads_a_bad_image_or_nothing(root, caplog):
    first = loader(root).order(0)[:4]  # of which the first process reads two
    bad = dict.fromkeys(first[:2].tolist(), "empty.jpg")
    found, errors = by_two(root, bad=bad)
    assert not errors
    assert [len(x.rows) for x in found[0]] == [0, 2, 2]
    assert [len(x.rows) for x in found[1]] == [2, 2, 2]
    assert found[0][0].pixels.shape == (0, 16, 16, 3)
    assert [x.left_out for x in found[0]] == [x.left_out for x in found[1]] == [2, 0, 0]
    assert len(caplog.records) == 2  # by the first process alone


def test_a_batch_of_nothing_ends_the_training_in_every_process(root, caplog):
    made = loader(root)
    bad = dict.fromkeys(made.order(0)[4:8].tolist(), "empty.jpg")
    said = f"{root}: none of the 4 images of batch 2 of epoch 1 can be read: see the log"
    with pytest.raises(AmesError) as error:
        [*loader(root, bad).epoch(0)]
    assert str(error.value) == said
    found, errors = by_two(root, bad=bad)
    assert errors == {0: said, 1: said}
    assert [len(x) for x in found] == [1, 1]


def test_items_of_several_images_come_flat_with_their_places(root):
    drawn = np.array([[0, 1, 2], [3, 2, 4], [5, 6, 0], [7, 8, 9]])
    made = PhotoLoader(photos(root, BAD), SquareView(16), batch=2, items=4)
    one, two = made.epoch(0, drawn=drawn)
    assert one.rows.tolist() == [0, 1, 3, 4]
    assert one.places.tolist() == [0, 1, 3, 5]
    assert (one.left_out, two.left_out) == (2, 1)
    assert two.rows.tolist() == [5, 6, 0, 8, 9]
    assert (one.pixels[0] != two.pixels[2]).any()  # as an anchor and as a third: other views


def test_items_may_have_fewer_images(root):
    drawn = np.array([[0, 1, -1], [3, -1, 2], [-1, 6, 0], [8, 9, 10]])
    one, two = PhotoLoader(photos(root, BAD), SquareView(16), batch=2, items=4).epoch(0, drawn=drawn)
    assert one.rows.tolist() == [0, 1, 3]
    assert one.places.tolist() == [0, 1, 3]
    assert (one.left_out, two.left_out) == (1, 0)  # what there is not is not left out
    assert two.places.tolist() == [1, 2, 3, 4, 5]


def test_a_reader_of_its_own_notes_what_it_could_not_read(root, caplog):
    made = photos(root, BAD)
    for _ in range(2):
        with pytest.raises(UnreadableImage):
            made.read(2)
    assert made.unreported == 1
    made.report(Ranks())
    assert made.unreported == 0
    made.report(Ranks())
    assert len(caplog.records) == 1


def test_settings_tell_lists_views_and_seeds_apart(root):
    settings = loader(root).settings()
    assert settings == loader(root, workers=2).settings()
    assert settings["views"] == "SquareView"
    assert settings["size"] == 16
    for other in (
        loader(root, seed=1),
        loader(root, batch=3),
        loader(root, BAD),
        PhotoLoader(photos(root), SquareView(16, PLAIN), batch=4),
    ):
        assert other.settings() != settings


def test_wrong_input_is_one_line(root, tmp_path):
    with pytest.raises(AmesError, match="2 images and 1 labels"):
        TrainingPhotos(root, ["0.png", "1.png"], [0])
    with pytest.raises(AmesError, match="none of the 1 listed images exists"):
        TrainingPhotos(tmp_path, ["0.png"], [0])
    with pytest.raises(AmesError, match="batch 0"):
        loader(root, batch=0)
    with pytest.raises(AmesError, match="a batch of 1 images cannot be shared by 2 ranks"):
        next(loader(root, batch=1).epoch(0, ranks=Twins().ranks(0)))
