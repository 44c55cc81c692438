"""Sets made of photographs: the same pictures each time, right lists, sets of other photographs refused."""

import json

import cv2
import numpy as np
import pytest

from ames.cli.main import main
from ames.datasets.landmarks import blending, build, development, photo_views
from ames.datasets.landmarks.build import Parameters, make_landmarks
from ames.datasets.landmarks.photo_subjects import Plane, Subject
from ames.datasets.landmarks.photographs import find_photographs
from ames.datasets.landmarks.studio import Studio
from ames.datasets.landmarks.textures import grain
from ames.errors import AmesError

SMALL = {"landmarks": 6, "easy": 2, "hard": 2, "junk": 1, "distractors": 12, "size": (96, 128)}


def photograph(seed, size=(200, 300)):
    rng = np.random.default_rng(seed)
    layers = [128 + 45 * grain(rng, size, 40, 5) for _ in range(3)]
    return cv2.merge([cv2.convertScaleAbs(np.maximum(layer, 0)) for layer in layers])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(60):
        assert cv2.imwrite(str(folder / f"{i:02d}.jpg"), photograph(i))
    cut = np.dstack([photograph(99), np.zeros((200, 300), np.uint8)])
    cv2.circle(cut, (150, 100), 80, (0, 0, 255, 255), -1)
    assert cv2.imwrite(str(folder / "cut.png"), cut)
    return folder


def make(folder, photos, *, workers=0, **changes):
    parameters = Parameters(**{"split": "val", **SMALL, **changes})
    return make_landmarks(folder, parameters, workers=workers, photos=photos)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def listed(path):
    rows = [line.split(",") for line in path.read_text().splitlines()]
    return [(name, int(label), int(width), int(height)) for name, label, width, height in rows]


@pytest.fixture(scope="module")
def val_set(tmp_path_factory, photos):
    return make(tmp_path_factory.mktemp("a") / "demo", photos)


def test_the_same_bytes_for_any_number_of_workers(val_set, photos, tmp_path):
    assert contents(make(tmp_path / "demo", photos, workers=2)) == contents(val_set)


def test_nothing_but_the_set_is_left_in_its_folder(val_set):
    names = {path.name for path in val_set.iterdir()}
    assert names == {"images", "dataset.json", "test_query.txt", "test_gallery.txt", "gnd_demo.json"}


def test_sizes_of_the_lists_are_those_of_the_pictures_and_differ(val_set):
    rows = listed(val_set / "test_query.txt") + listed(val_set / "test_gallery.txt")
    assert len(rows) == 6 * 6 + 12
    for name, _, width, height in rows:
        assert cv2.imread(str(val_set / name)).shape == (height, width, 3)
        assert 64 <= height <= 128
        assert 64 <= width <= 128
    assert len({row[2:] for row in rows}) > 5


def test_more_landmarks_do_not_change_those_there_were(val_set, photos, tmp_path):
    larger = make(tmp_path / "demo", photos, landmarks=8)
    ours, theirs = contents(val_set), contents(larger)
    shared = [name for name in ours if name.startswith("images/landmark_")]
    assert all(ours[name] == theirs[name] for name in shared)


def test_seeds_draw_other_pictures(val_set, photos, tmp_path):
    other = contents(make(tmp_path / "demo", photos, seed=1, landmarks=1, distractors=0))
    ours = contents(val_set)
    assert all(ours[name] != data for name, data in other.items() if name.endswith(".jpg"))


def test_splits_read_no_common_photograph(photos, tmp_path, monkeypatch):
    read = {}
    shelve = build.shelve_all

    def noted(found, split, shelf, each):
        read[split] = set(found.of_split(split))
        return shelve(found, split, shelf, each)

    monkeypatch.setattr(build, "shelve_all", noted)
    for split in ("train", "val", "test"):
        make(tmp_path / split, photos, split=split, landmarks=1, distractors=0)
    assert all(read.values())
    assert sum(map(len, read.values())) == len(set().union(*read.values())) == 61


def test_the_photographs_are_recorded_and_others_refused(val_set, photos, tmp_path):
    described = json.loads((val_set / "dataset.json").read_text())
    assert described["photographs"]["number"] == 61
    assert described["photographs"]["digest"] == find_photographs(photos).record.digest
    before = contents(val_set)
    assert make(val_set, photos) == val_set
    assert cv2.imwrite(str(tmp_path / "one.jpg"), photograph(0))
    with pytest.raises(AmesError, match=r"photographs=.* not "):
        make(val_set, tmp_path)
    with pytest.raises(AmesError, match=r"photographs=.* not "):
        make_landmarks(val_set, Parameters(split="val", **SMALL), workers=0)
    assert contents(val_set) == before


def test_a_drawn_set_says_nothing_of_photographs(photos, tmp_path):
    folder = make(tmp_path / "x", None, landmarks=1, distractors=0)
    described = json.loads((folder / "dataset.json").read_text())
    assert "photographs" not in described
    assert described["format"] == 1
    with pytest.raises(AmesError, match="photographs=None not"):
        make(folder, photos, landmarks=1, distractors=0)


def test_a_set_among_its_photographs_is_refused(photos):
    with pytest.raises(AmesError, match="inside the photographs' folder"):
        make(photos / "set", photos)


def test_where_photographs_do_not_suffice_a_line_says_so(photos, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(build, "draw_place", lambda task: [])
    make(tmp_path / "x", photos, split="train", landmarks=300)
    assert len(caplog.messages) == 1
    assert "suffice for" in caplog.messages[0]


def test_the_command(photos, tmp_path, capsys):
    words = ["landmarks", tmp_path / "set", "--split", "train", "--landmarks", 1, "--distractors", 0]
    assert main([*map(str, words), "--workers", "0", "--photos", str(photos)]) == 0
    assert "photographs" in json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert main([*map(str, words), "--workers", "0", "--photos", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_border_fades_within_the_mask_and_leaves_no_rim():
    image = np.full((40, 40, 3), 200, np.uint8)
    layer, mask = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8)
    layer[10:30, 10:30], mask[10:30, 10:30] = 100, 255
    blending.put(image, (layer, mask))
    assert (image[mask == 0] == 200).all()
    assert (image[13:27, 13:27] == 100).all()
    assert list(np.unique(image[20, 9:14])) == [100, 133, 167, 200]


def test_occlusion_hides_about_the_share_that_was_asked_for(photos):
    studio = Studio(photos, tuple(f"{i:02d}.jpg" for i in range(8)))
    hidden = []
    for seed in range(12):
        image, visible = np.zeros((200, 260, 3), np.uint8), np.zeros((200, 260), np.uint8)
        visible[50:150, 80:180] = 255
        studio.occlude(np.random.default_rng(seed), image, visible, 0.4)
        hidden.append((image[visible > 0] > 0).any(-1).mean())
    assert 0.3 < np.median(hidden) < 0.6
    assert max(hidden) < 0.57


@pytest.mark.parametrize("kind", ["wall", "object", "scene", "facade"])
def test_views_are_repeatable_and_bright_enough(photos, kind):
    studio = Studio(photos, ("01.jpg", "02.jpg"))
    subject = Subject(kind, Plane(photograph(7), np.full((200, 300), 255, np.uint8)))
    for difficulty in ("easy", "hard", "junk"):
        one, two = (
            photo_views.render(subject, studio, np.random.default_rng(5), difficulty, (160, 120))
            for _ in range(2)
        )
        assert np.array_equal(one, two)
        assert one.dtype == np.uint8
        assert one.mean() > 0.2 * development.LEAST_MEAN


def test_warm_light_is_red_and_a_vignette_is_dark_at_the_corners():
    grey = np.full((60, 80, 3), 100, np.uint8)
    assert tuple(development.tinted(grey, 0.2)[0, 0]) == (80, 100, 120)
    seen = development.vignetted(np.random.default_rng(0), grey, 0.5)
    assert seen[30, 40, 0] > 95
    assert seen[[0, 0, -1, -1], [0, -1, 0, -1], 0].max() < 75


def test_local_contrast_moves_pixels_away_from_their_surroundings():
    image = np.full((64, 64, 3), 100, np.uint8)
    image[28:36, 28:36] = 120
    more, less = development.contrasted(image, 0.5), development.contrasted(image, -0.5)
    assert more[32, 32, 0] > 120 > less[32, 32, 0] > 100
