"""Faces of a box, the pictures of scenes and planes: where perspective says, and only what is seen."""

import cv2
import numpy as np
import pytest

from ames.datasets.landmarks import camera, photo_views
from ames.datasets.landmarks.boxes import Box, Pose, face_homographies, see_box
from ames.datasets.landmarks.packages import draw_make, draw_package
from ames.datasets.landmarks.photo_subjects import Plane
from ames.datasets.landmarks.relief import parallax
from ames.datasets.landmarks.scenes import Conditions, fits, outline_of, overlap_of, scene_homography

VIEW = (384, 512)
FRONT = Pose((0.0, 0.0, 0.0), 0.5, (0.0, 0.0))


def at(homography, x, y):
    point = homography @ np.array([x, y, 1.0])
    return point[:2] / point[2]


def posed(yaw, pitch=0.0):
    return Pose((yaw, pitch, 0.0), 0.5, (0.0, 0.0))


@pytest.mark.parametrize(
    ("yaw", "pitch", "seen"),
    [
        (0, 0, {"front"}),
        (40, 0, {"front", "right"}),
        (-40, 0, {"front", "left"}),
        (40, 20, {"front", "right", "top"}),
        (-40, -20, {"front", "left", "bottom"}),
    ],
)
def test_faces_that_turn_away_disappear(yaw, pitch, seen):
    found = set(face_homographies((200.0, 150.0, 100.0), VIEW, posed(yaw, pitch)))
    # By the rotation: the camera sees the side whose outward normal points to it.
    turn = camera.rotation((yaw, pitch, 0))
    assert ((turn @ [1.0, 0, 0])[2] < -0.2) == ("right" in seen)
    assert ((turn @ [0, -1.0, 0])[2] < -0.2) == ("top" in seen)
    assert found == seen


def test_neighbouring_faces_share_their_corners():
    h, w, d = 200.0, 150.0, 100.0
    faces = face_homographies((h, w, d), VIEW, posed(35, 20))
    front, right, top = faces["front"], faces["right"], faces["top"]
    for y in (0, h / 3, h):
        np.testing.assert_allclose(at(front, w, y), at(right, 0, y), atol=1e-6)
    for x in (0, w / 3, w):
        np.testing.assert_allclose(at(front, x, 0), at(top, x, d), atol=1e-6)
    np.testing.assert_allclose(at(right, d, 0), at(top, w, 0), atol=1e-6)


def test_a_box_without_depth_is_its_front():
    pose = Pose((30.0, 10.0, 5.0), 0.7, (20.0, -10.0))
    front = face_homographies((200.0, 150.0, 0.0), VIEW, pose)["front"]
    plane = camera.plane_homography((200, 150), VIEW, pose.angles, pose.scale, pose.shift)
    for corner in ((0, 0), (150, 0), (150, 200), (0, 200), (40, 70)):
        np.testing.assert_allclose(at(front, *corner), at(plane, *corner), atol=1e-6)


def test_the_front_of_a_box_is_nearer_and_larger_than_a_plane_through_its_middle():
    front = face_homographies((200.0, 150.0, 100.0), VIEW, FRONT)["front"]
    focal, distance = camera.FOCAL * 512, camera.FOCAL * 512 / (0.5 * 384 / 200)
    assert at(front, 150, 0)[0] - at(front, 0, 0)[0] == pytest.approx(focal * 150 / (distance - 50))


def test_a_seen_box_has_the_colours_of_its_faces():
    colours = {"front": (10, 10, 200), "side": (10, 200, 10), "top": (200, 10, 10)}
    faces = ((200, 150), (200, 100), (100, 150))
    box = Box(*(np.full((*s, 3), c, np.uint8) for s, c in zip(faces, colours.values(), strict=True)))
    pose = posed(35, 20)
    image, mask = see_box(box, VIEW, pose, {"right": 0.5})
    homographies = face_homographies((200.0, 150.0, 100.0), VIEW, pose)
    for name, centre, colour in (
        ("front", (75, 100), (10, 10, 200)),
        ("right", (50, 100), (5, 100, 5)),
        ("top", (75, 50), (200, 10, 10)),
    ):
        x, y = at(homographies[name], *centre).round().astype(int)
        assert mask[y, x] == 255
        assert tuple(int(v) for v in image[y, x]) == colour
    assert mask[0, 0] == 0
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    assert len(contours) == 1  # no gap between the faces


def test_siblings_share_the_make_and_differ_in_the_picture_of_the_front():
    make = draw_make(np.random.default_rng(5))
    again = draw_make(np.random.default_rng(5))
    pictures = [np.full((300, 300, 3), grey, np.uint8) for grey in (40, 220)]
    common = np.full((300, 300, 3), 128, np.uint8)
    one, two = (
        draw_package(np.random.default_rng(i), m, pictures[i], common) for i, m in enumerate((make, again))
    )
    assert np.array_equal(one.side, two.side)
    assert np.array_equal(one.top, two.top)
    differs = (one.front != two.front).any(-1)
    left, top, right, bottom = make.window
    h, w = differs.shape
    inside = differs[round(top * h) : round(bottom * h), round(left * w) : round(right * w)]
    assert inside.mean() > 0.6
    name = differs[round(make.name[0] * h) : round((make.name[0] + make.name[1]) * h)]
    assert not name[:, w // 10 : w * 9 // 10].any()


def test_a_marker_on_a_plane_lands_where_the_homography_says():
    image = np.full((300, 400, 3), 90, np.uint8)
    cv2.circle(image, (300, 80), 9, (255, 255, 255), -1)
    plane = Plane(image, np.full((300, 400), 255, np.uint8))
    pose = Pose((30.0, -10.0, 12.0), 0.8, (25.0, 10.0))

    class NoBend:
        def random(self):
            return 1.0

    seen, mask = photo_views.see(plane, NoBend(), VIEW, pose)
    y, x = np.nonzero(seen[..., 0] > 170)
    expected = at(camera.plane_homography((300, 400), VIEW, pose.angles, pose.scale, pose.shift), 300, 80)
    np.testing.assert_allclose((x.mean(), y.mean()), expected, atol=1.0)
    assert mask[int(expected[1]), int(expected[0])] == 255


@pytest.mark.parametrize("view", [(384, 512), (512, 384)])
@pytest.mark.parametrize("region", [(853, 1280), (1280, 620)])
def test_scenes_stay_in_their_photograph_and_overlap(region, view):
    rng = np.random.default_rng(1)
    overlaps = []
    for _ in range(40):
        angles = tuple(float(x) for x in rng.uniform(-35, 35, 3))
        shift = tuple(float(x) for x in rng.uniform(-0.4, 0.4, 2))
        wanted = Conditions(angles, float(rng.uniform(0.6, 2)), shift, 0.3)
        homography = scene_homography(region, view, wanted)
        assert fits(homography, region, view, 0.3)
        overlaps.append(overlap_of(outline_of(homography, view), region, view))
    assert min(overlaps) < 0.95
    assert min(overlaps) >= 0.3


def test_a_scene_shows_the_photograph_where_the_homography_says():
    image = np.full((600, 900, 3), 90, np.uint8)
    cv2.circle(image, (470, 290), 10, (255, 255, 255), -1)
    wanted = Conditions((20.0, 5.0, 4.0), 1.1, (0.05, 0.02), 0.4)
    plane = Plane(image, np.full((600, 900), 255, np.uint8))
    seen, mask = photo_views.see_scene(plane, VIEW, wanted)
    assert mask.all()
    assert (seen > 60).all()  # no empty corner
    y, x = np.nonzero(seen[..., 0] > 170)
    expected = at(scene_homography((600, 900), VIEW, wanted), 470, 290)
    np.testing.assert_allclose((x.mean(), y.mean()), expected, atol=1.0)


def test_a_near_marker_moves_against_a_far_one_as_the_camera_turns():
    image = np.full((200, 300, 3), 90, np.uint8)
    cv2.circle(image, (75, 100), 8, (255, 255, 255), -1)
    cv2.circle(image, (225, 100), 8, (255, 255, 255), -1)
    depth = np.full((48, 48), -0.04, np.float32)
    depth[:, :24] = 0.04

    def places(yaw, pitch):
        moved = parallax(image, depth, (yaw, pitch, 0.0))[..., 0] > 170
        return [np.argwhere(half).mean(0) for half in (moved[:, :150], moved[:, 150:])]

    # A point before the plane by d, turned and seen from far, in units of the turned plane's own axes.
    near = np.array([0, 0, -0.04 * 300])
    move = (camera.rotation((20, 0, 0)) @ near)[0] / np.cos(np.radians(20))
    rise = (camera.rotation((0, 20, 0)) @ near)[1] / np.cos(np.radians(20))
    assert move < 0 < rise
    straight, turned, tilted = places(0, 0), places(20, 0), places(0, 20)
    np.testing.assert_allclose(turned[0] - straight[0], (0, move), atol=0.5)
    np.testing.assert_allclose(turned[1] - straight[1], (0, -move), atol=0.5)
    np.testing.assert_allclose(tilted[0] - straight[0], (rise, 0), atol=0.5)


def test_overlap_is_the_share_of_the_smaller():
    view, region = (384, 512), (853, 1280)
    same = scene_homography(region, view, Conditions((0, 0, 0), 1.0, (0, 0), 0.3))
    moved = scene_homography(region, view, Conditions((0, 0, 0), 1.0, (0.2, 0), 0.3))
    near = scene_homography(region, view, Conditions((0, 0, 0), 2.0, (0, 0), 0.3))
    found = [overlap_of(outline_of(h, view), region, view) for h in (same, moved, near)]
    np.testing.assert_allclose(found, [1.0, 0.8, 1.0], atol=1e-3)
