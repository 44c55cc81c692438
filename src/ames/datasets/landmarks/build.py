"""Write a generated data set: pictures, lists and ground truth in the layout of real ones.

Every picture depends only on (seed, split, landmark number, view number), on the picture size and on the
photographs, so a set is the same however many processes draw it, and sets of different splits share no
landmark for any seed.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ames.datasets.ground_truth import GroundTruth, save_ground_truth
from ames.datasets.landmarks import development, photo_views
from ames.datasets.landmarks.facades import draw_landmark
from ames.datasets.landmarks.photo_subjects import Subject, make_subject
from ames.datasets.landmarks.photographs import Found, find_photographs, read_shot, shelve_all
from ames.datasets.landmarks.plan import (
    CANVAS_VIEW,
    DISTRACTOR_LANDMARK,
    GROUP_LANDMARK,
    LIST_LANDMARK,
    PORTRAIT_SHARE,
    Parameters,
    Place,
    described,
    generator,
    plan,
)
from ames.datasets.landmarks.processes import Each, processes
from ames.datasets.landmarks.roles import Cast, Role, cast
from ames.datasets.landmarks.set_folder import DESCRIPTION, built_aside, is_finished
from ames.datasets.landmarks.studio import Studio
from ames.datasets.landmarks.textures import Array
from ames.datasets.landmarks.views import render_clutter, render_view
from ames.errors import AmesError

QUALITY = 90  # of the JPEG files of drawn sets

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """One written picture."""

    path: str  # relative to the set's folder
    label: int
    width: int
    height: int
    view: str


@dataclass(frozen=True)
class Task:
    """One place to draw. role, studio: of a set made of photographs; clutter has no role."""

    parameters: Parameters
    place: Place
    folder: Path
    role: Role | None = None
    studio: Studio | None = None


def draw_canvas(parameters: Parameters, number: int) -> tuple[Array, Array]:
    """Landmark ``number`` of a set: canvas uint8 [H, W, 3] and mask uint8 [H, W], about 1.5 views wide."""
    rng = generator(parameters, number, CANVAS_VIEW)
    side = 1.45 * min(parameters.size)
    height, width = side * rng.uniform(0.85, 1.2, 2)
    return draw_landmark(rng, (max(96, int(height)), max(96, int(width))))


def draw_place(task: Task) -> list[Picture]:
    """Draw and write all pictures of one place of a set into a folder."""
    parameters, place = task.parameters, task.place
    drawn = _photographed(task) if task.studio is not None else _drawn(task)
    pictures = []
    for view, name in enumerate(place.views, start=1):
        rng = generator(parameters, place.number, view)
        height, width = parameters.size
        if rng.random() < PORTRAIT_SHARE:
            height, width = width, height
        image, quality = drawn(rng, "easy" if name == "query" else name, (height, width))
        path = f"images/{place.kind}_{place.label:05d}_{view:03d}.jpg"
        written, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not written:
            raise OSError(f"{path}: OpenCV could not encode the picture")
        (task.folder / path).write_bytes(data.tobytes())
        pictures.append(Picture(path, place.label, image.shape[1], image.shape[0], name))
    return pictures


View = Callable[[np.random.Generator, str, tuple[int, int]], tuple[Array, int]]


def _drawn(task: Task) -> View:
    """A view of a drawn place: (chance, difficulty, size) → image and its JPEG quality."""
    if task.place.kind == "clutter":
        return lambda rng, _, size: (render_clutter(rng, size), QUALITY)
    canvas = draw_canvas(task.parameters, task.place.number)
    return lambda rng, name, size: (render_view(*canvas, rng, name, size), QUALITY)


def _photographed(task: Task) -> View:
    """As ``_drawn``, of a place made of photographs."""
    studio, subject = task.studio, _subject(task)
    assert studio is not None
    if subject is None:
        return lambda rng, _, size: (
            photo_views.render_plain(studio, rng, size),
            development.draw_quality(rng),
        )
    return lambda rng, name, size: (
        photo_views.render(subject, studio, rng, name, size),
        development.draw_quality(rng),
    )


def _subject(task: Task) -> Subject | None:
    role, parameters, studio = task.role, task.parameters, task.studio
    if role is None or studio is None:
        return None
    rng = generator(parameters, task.place.number, CANVAS_VIEW)
    return make_subject(role, studio, lambda: generator(parameters, GROUP_LANDMARK + role.group, 0), rng)


def draw_all(parameters: Parameters, folder: Path, workers: int, found: Found | None = None) -> list[Picture]:
    """Draw all places of a set with ``workers`` processes, in the order of the plan. found: photographs."""
    places = plan(parameters)
    pictures: list[Picture] = []
    with processes(workers) as each:
        tasks = [Task(parameters, place, folder) for place in places]
        if found is not None:
            tasks = photograph_tasks(parameters, folder, found, each)
        total = sum(len(place.views) for place in places)
        with tqdm(total=total, desc=f"draw {parameters.split}", unit="image", disable=None) as bar:
            for batch in each(draw_place, tasks):
                pictures += batch
                bar.update(len(batch))
    if found is not None:
        shutil.rmtree(folder / SHELF)
        read_shot.cache_clear()
    return pictures


SHELF = "photographs"  # folder of the reduced photographs, while a set is drawn


def photograph_tasks(parameters: Parameters, folder: Path, found: Found, each: Each) -> list[Task]:
    """Reduce the photographs of the split, give them their roles, and say what is to be drawn of them."""
    shots, notes = shelve_all(found, parameters.split, folder / SHELF, each)
    for note in notes:
        log.warning("%s", note)
    parts = cast(generator(parameters, GROUP_LANDMARK, 1), shots)
    studio = Studio(folder / SHELF, parts.backgrounds, parts.cut_outs)
    places = plan(parameters)
    asked = max(sum(p.kind == "landmark" for p in places) // 2, sum(p.kind == "distractor" for p in places))
    if asked > len(parts.groups):
        log.warning(
            "%s: the photographs of the %s split suffice for %d landmarks and %d distractor landmarks; more "
            "are drawn without photographs of their own",
            *(found.folder, parameters.split, 2 * len(parts.groups), len(parts.groups)),
        )
    return [Task(parameters, place, folder, role_of(parts, place), studio) for place in places]


def role_of(parts: Cast, place: Place) -> Role | None:
    """The role of a place: two landmarks and one distractor landmark make a group."""
    if place.kind == "clutter":
        return None
    if place.kind == "distractor":
        return parts.role(place.number - DISTRACTOR_LANDMARK, 2)
    return parts.role(*divmod(place.number, 2))


def write_lists(parameters: Parameters, pictures: Sequence[Picture], folder: Path, name: str) -> None:
    """Write the lists, shuffled, and for a val or test set the ground truth ``gnd_<name>.json``."""
    order = generator(parameters, LIST_LANDMARK, 0).permutation(len(pictures))
    shuffled = [pictures[i] for i in order]
    if parameters.split == "train":
        _write_list(folder / "train.txt", shuffled)
        return
    queries = [p for p in pictures if p.view == "query"]
    gallery = [p for p in shuffled if p.view != "query"]
    _write_list(folder / "test_query.txt", queries)
    _write_list(folder / "test_gallery.txt", gallery)
    found: dict[int, dict[str, list[int]]] = {q.label: {"easy": [], "hard": [], "junk": []} for q in queries}
    for position, picture in enumerate(gallery):
        if picture.label in found:
            found[picture.label][picture.view].append(position)
    relevant = [{view: np.array(ids) for view, ids in found[q.label].items()} for q in queries]
    truth = GroundTruth(relevant, [p.path for p in gallery], [p.path for p in queries])
    save_ground_truth(folder / f"gnd_{name}.json", truth)


def _write_list(path: Path, pictures: Sequence[Picture]) -> None:
    path.write_text("".join(f"{p.path},{p.label},{p.width},{p.height}\n" for p in pictures))


def make_landmarks(
    folder: Path | str, parameters: Parameters, *, workers: int = 2, photos: Path | str | None = None
) -> Path:
    """Make a set of generated landmarks in ``folder`` and return it; a set that exists already is kept.

    folder: a new or an empty one, or one that holds this very set. It gets ``images/``, ``dataset.json``, and
    for "train" the list ``train.txt``, else ``test_query.txt``, ``test_gallery.txt`` and
    ``gnd_<folder's name>.json``. workers: processes that draw; 0 or 1 draws in this one. photos: a folder of
    photographs that the pictures are made of; without it all is drawn. AmesError for a folder of something
    else, or too few photographs.
    """
    folder, found = Path(folder).resolve(), None
    if photos is not None:
        if folder.is_relative_to(Path(photos).resolve()):
            raise AmesError(f"{folder} is inside the photographs' folder; name another one for the dataset")
        found = find_photographs(photos)
        parameters = replace(parameters, photographs=found.record)
    if is_finished(folder, described(parameters)):
        return folder
    with built_aside(folder) as aside:
        (aside / "images").mkdir()
        pictures = draw_all(parameters, aside, workers, found)
        write_lists(parameters, pictures, aside, folder.name)
        (aside / DESCRIPTION).write_text(json.dumps(described(parameters), indent=2) + "\n")
    return folder
