"""Photographs of a set: each in one split, reduced once, and each part of one landmark alone."""

import hashlib

import cv2
import numpy as np
import pytest

from ames.datasets.landmarks import photographs, roles
from ames.datasets.landmarks.photographs import SHARES, Shot, find_photographs, shelve, shelve_all, split_of
from ames.errors import AmesError


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def noise(seed, size=(200, 300)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def shots(count, size=(600, 900), detail=50, variety=40.0):
    return [
        Shot(f"{i:06d}.jpg", size, bytes([detail]) * photographs.DETAIL**2, variety, False)
        for i in range(count)
    ]


def test_every_photograph_has_one_split_and_shares_are_right():
    splits = [split_of(hashlib.sha256(str(i).encode()).hexdigest()) for i in range(40000)]
    for split, share in SHARES.items():
        assert abs(splits.count(split) / 40000 - share) < 0.01
    assert split_of("0" * 64) == "train"
    assert split_of("f" * 64) == "test"


def test_contents_count_not_names_and_each_once(tmp_path):
    for name in ("a/one.png", "b/again.png"):
        write(tmp_path / "x" / name, noise(1))
    write(tmp_path / "x" / "two.png", noise(2))
    write(tmp_path / "y" / "renamed.png", noise(1))
    write(tmp_path / "y" / "two.png", noise(2))
    one, two = find_photographs(tmp_path / "x"), find_photographs(tmp_path / "y")
    assert one.record == two.record
    assert one.record.number == 2
    write(tmp_path / "y" / "three.png", noise(3))
    assert find_photographs(tmp_path / "y").record != one.record
    files = [path for split in SHARES for path in two.of_split(split)]
    assert len(files) == len(set(files)) == 2


def test_a_photograph_is_reduced_and_its_detail_is_where_it_is(tmp_path):
    image = np.full((1000, 2000, 3), 128, np.uint8)
    image[:, 1000:] = cv2.resize(noise(1, (250, 250)), (1000, 1000), interpolation=cv2.INTER_NEAREST)
    write(tmp_path / "large.png", image)
    shot = shelve((tmp_path / "large.png", tmp_path / "0"))
    assert shot.size == (640, 1280)
    assert not shot.cut_out
    assert shot.variety < 8
    image[:, 1000:] //= 2
    assert photographs.variety_of(image) == pytest.approx(32, abs=2)
    assert cv2.imread(str(tmp_path / shot.name)).shape == (640, 1280, 3)
    assert not roles.detailed(shot, (0.0, 0.0, 0.45, 1.0), "wall")
    assert roles.detailed(shot, (0.55, 0.0, 1.0, 1.0), "wall")
    # Half of it shows something, and a third of its middle.
    assert roles.detailed(shot, (0.0, 0.0, 0.9, 1.0), "wall")
    assert not roles.detailed(shot, (0.0, 0.0, 0.9, 1.0), "scene")


def test_a_cut_out_keeps_its_mask_and_loses_its_empty_border(tmp_path):
    image = np.dstack([noise(1, (300, 400)), np.zeros((300, 400), np.uint8)])
    image[50:250, 100:300, 3] = 255
    image[50:100, 100:150, 3] = 0
    write(tmp_path / "thing.png", image)
    shot = shelve((tmp_path / "thing.png", tmp_path / "0"))
    assert shot.cut_out
    kept = photographs.read_shot(tmp_path / shot.name)
    assert np.array_equal(kept, image[50:250, 100:300])


def test_what_cannot_be_used_is_named_in_one_line_and_left_out(tmp_path):
    for i in range(60):
        write(tmp_path / "in" / f"{i:02d}.png", noise(i))
    found = find_photographs(tmp_path / "in")
    bad, small = found.of_split("train")[:2]
    bad.write_bytes(bad.read_bytes()[:300])
    write(small, noise(1, (50, 900)))
    found = find_photographs(tmp_path / "in")
    for split in SHARES:
        named = {path.name for path in (bad, small)} & {path.name for path in found.of_split(split)}
        good, notes = shelve_all(found, split, tmp_path / split, map)
        assert len(good) == len(found.of_split(split)) - len(named)
        assert len(notes) == bool(named)
        assert all(name in notes[0] for name in named)


def test_too_few_photographs_are_one_line(tmp_path):
    write(tmp_path / "in" / "a.png", noise(1))
    found = find_photographs(tmp_path / "in")
    with pytest.raises(AmesError, match=r"the val split gets \d of 1 photographs, fewer than 4") as error:
        shelve_all(found, "val", tmp_path / "shelf", map)
    assert "\n" not in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AmesError, match="no images"):
        find_photographs(tmp_path / "empty")


def test_no_part_of_a_photograph_serves_two_landmarks():
    parts = roles.cast(np.random.default_rng(3), shots(120))
    owners = {}
    for group in parts.groups:
        assert len(group) == roles.MEMBERS
        for member, role in enumerate(group):
            for i, part in enumerate(role.parts):
                common = role.kind == "box" and i == 1
                owner = (role.group, "make" if common else member)
                owners.setdefault(part.name, set()).add((part.box, owner))
    assert owners
    for used in owners.values():
        boxes = sorted({box for box, _ in used})
        assert len(boxes) == len(used)  # one owner a part
        for i, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[i + 1 :]:
                assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    assert not set(owners) & set(parts.backgrounds)
    kinds = {role.kind for group in parts.groups for role in group}
    assert kinds == set(roles.KINDS)


def test_half_of_the_groups_and_more_are_parts_of_one_photograph():
    parts = roles.cast(np.random.default_rng(3), shots(200))
    photographed = [group for group in parts.groups if group[0].parts]
    together = [g for g in photographed if g[0].parts[0].name == g[1].parts[0].name]
    assert len(together) > 0.5 * len(photographed)


def test_without_photographs_left_a_landmark_is_drawn():
    parts = roles.cast(np.random.default_rng(3), shots(6))
    role = parts.role(len(parts.groups) + 4, 0)
    assert role.parts == ()
    assert role.kind in ("facade", "box")


@pytest.mark.parametrize("poor", [{"detail": 2}, {"variety": 3.0}])
def test_a_photograph_without_detail_or_of_a_texture_is_only_a_background(poor):
    parts = roles.cast(np.random.default_rng(3), shots(8, **poor))
    assert len(parts.backgrounds) == 8
    assert parts.groups == ()
