"""The landmark generator: the same pictures each time, consistent lists, nothing half-written."""

import json

import cv2
import numpy as np
import pytest

from ames.datasets.landmarks import build as dataset
from ames.datasets.landmarks.build import Parameters, make_landmarks
from ames.datasets.landmarks.facades import FAMILIES, draw_landmark
from ames.datasets.landmarks.textures import draw_tones
from ames.datasets.landmarks.views import DIFFICULTIES, render_clutter, render_view
from ames.errors import AmesError

SMALL = {"landmarks": 3, "easy": 2, "hard": 2, "junk": 1, "distractors": 6, "size": (96, 128)}


def make(folder, *, workers=0, **changes):
    return make_landmarks(folder, Parameters(**{"split": "val", **SMALL, **changes}), workers=workers)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def listed(path):
    rows = [line.split(",") for line in path.read_text().splitlines()]
    return [(name, int(label), int(width), int(height)) for name, label, width, height in rows]


@pytest.fixture(scope="module")
def val_set(tmp_path_factory):
    return make(tmp_path_factory.mktemp("a") / "demo")


def test_the_same_bytes_for_any_number_of_workers(val_set, tmp_path):
    again = make(tmp_path / "demo", workers=2)
    assert contents(again) == contents(val_set)


def test_a_finished_set_is_left_alone(val_set, monkeypatch):
    monkeypatch.setattr(dataset, "draw_all", lambda *_: pytest.fail("drawn again"))
    before = contents(val_set)
    assert make(val_set) == val_set
    assert contents(val_set) == before


def test_more_landmarks_do_not_change_those_there_were(val_set, tmp_path):
    larger = make(tmp_path / "demo", landmarks=4)
    ours, theirs = contents(val_set), contents(larger)
    shared = [name for name in ours if name.startswith("images/landmark_")]
    assert len(shared) == 3 * 6
    assert all(ours[name] == theirs[name] for name in shared)


def test_splits_and_seeds_draw_different_landmarks():
    drawn = []
    for split, seed in (("train", 0), ("val", 0), ("test", 0), ("val", 1)):
        parameters = dataset.Parameters(split, 1, 1, 1, 0, 0, seed, (96, 128))
        canvas, _ = dataset.draw_canvas(parameters, 0)
        drawn.append(cv2.resize(canvas, (64, 64)).astype(float))
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert np.abs(one - other).mean() > 10


def test_lists_and_ground_truth_agree(val_set):
    gnd = json.loads((val_set / "gnd_demo.json").read_text())
    queries, gallery = listed(val_set / "test_query.txt"), listed(val_set / "test_gallery.txt")
    assert gnd["qimlist"] == [row[0] for row in queries]
    assert gnd["imlist"] == [row[0] for row in gallery]
    assert not set(gnd["qimlist"]) & set(gnd["imlist"])
    assert len(queries) == len(gnd["gnd"]) == 3
    assert len(gallery) == len(set(gnd["imlist"])) == 3 * 5 + 6
    for (_, label, _, _), row in zip(queries, gnd["gnd"], strict=True):
        assert (len(row["easy"]), len(row["hard"]), len(row["junk"])) == (2, 2, 1)
        indices = row["easy"] + row["hard"] + row["junk"]
        assert len(set(indices)) == len(indices)
        assert {gallery[i][1] for i in indices} == {label}  # an index out of range fails here as well
        assert sum(other == label for _, other, _, _ in gallery) == len(indices)
    assert [row[1] for row in gallery] != sorted(row[1] for row in gallery)
    for name, _, width, height in queries + gallery:
        assert cv2.imread(str(val_set / name)).shape == (height, width, 3)
    assert {(height, width) for _, _, width, height in gallery} == {(96, 128), (128, 96)}


def test_training_list_has_every_picture_and_labels_of_their_own(tmp_path):
    folder = make(tmp_path / "t", split="train", junk=0)
    rows = listed(folder / "train.txt")
    assert {row[0] for row in rows} == {f"images/{p.name}" for p in (folder / "images").iterdir()}
    assert len(rows) == 3 * 4 + 6
    kinds = {}
    for name, label, _, _ in rows:
        kinds.setdefault(label, set()).add(name.split("/")[1].split("_")[0])
    assert sorted(kinds) == list(range(len(kinds)))
    assert all(len(kind) == 1 for kind in kinds.values())
    assert not (folder / "test_query.txt").exists()


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_views_have_the_size_asked_for_and_are_repeatable(difficulty):
    landmark, mask = draw_landmark(np.random.default_rng(4), (200, 180))
    one, two = (
        render_view(landmark, mask, np.random.default_rng(5), difficulty, (160, 120)) for _ in range(2)
    )
    assert one.shape == (160, 120, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, two)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_families_fill_their_mask(family):
    for size in ((96, 96), (320, 240)):
        rng = np.random.default_rng(7)
        canvas, mask = family(rng, size, draw_tones(rng))
        assert canvas.shape == (*size, 3)
        assert canvas.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}
        assert (mask > 0).mean() > 0.25


def test_easy_views_have_enough_keypoints_on_the_landmark():
    sift = cv2.SIFT_create()
    for number in range(4):
        landmark, mask = draw_landmark(np.random.default_rng([number]), (500, 450))
        assert len(sift.detect(landmark, mask)) > 500
        view = render_view(landmark, mask, np.random.default_rng([number, 1]), "easy", (384, 512))
        sizes = np.array([point.size for point in sift.detect(view, None)])
        assert len(sizes) > 400
        assert (sizes > 8).sum() > 40  # medium and large ones too, not only pixel noise


def test_clutter_is_drawn():
    image = render_clutter(np.random.default_rng(1), (96, 128))
    assert image.shape == (96, 128, 3)
    assert image.std() > 10


def test_a_foreign_folder_is_refused_and_left_as_it_was(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(AmesError, match="not empty"):
        make(folder)
    assert contents(tmp_path) == {"mine/letter.txt": b"dear"}


def test_a_set_of_other_parameters_is_refused_and_left_as_it_was(val_set):
    before = contents(val_set)
    with pytest.raises(AmesError, match="seed=0 not 1"):
        make(val_set, seed=1)
    assert contents(val_set) == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "dev"}, "split 'dev'"),
        ({"easy": 0}, "at least one easy"),
        ({"hard": -1}, "must not be negative"),
        ({"landmarks": 0}, "landmarks=0"),
        ({"size": (10, 128)}, "too small"),
    ],
)
def test_impossible_parameters_are_refused(tmp_path, wrong, message):
    with pytest.raises(AmesError, match=message):
        make(tmp_path / "x", **wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_behind_when_drawing_fails(tmp_path, monkeypatch, failure):
    calls = []

    def failing(*_):
        calls.append(1)
        if len(calls) == 5:
            raise failure("stopped")
        return np.zeros((96, 128, 3), np.uint8)

    monkeypatch.setattr(dataset, "render_view", failing)
    with pytest.raises(failure):
        make(tmp_path / "x")
    assert len(calls) == 5
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_filled(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    make(folder, landmarks=1, distractors=0)
    assert (folder / "dataset.json").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]
