"""Write a generated data set: pictures, lists and ground truth in the layout of real ones.

Every picture depends only on (seed, split, landmark number, view number) and on the picture size, so a set
is the same however many processes draw it, and sets of different splits share no landmark for any seed.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ames.datasets.ground_truth import GroundTruth, save_ground_truth
from ames.datasets.landmarks.facades import draw_landmark
from ames.datasets.landmarks.textures import Array
from ames.datasets.landmarks.views import render_clutter, render_view
from ames.errors import AmesError
from ames.io.claims import parsed

FORMAT = 1  # version of the files and of the drawing; sets of other versions are refused
SPLITS = {"train": 0, "val": 1, "test": 2}
DESCRIPTION = "dataset.json"  # of a set that is whole
QUALITY = 90  # of the JPEG files

CANVAS_VIEW = 0  # "view number" that draws the landmark itself; photographs are numbered from 1
LIST_LANDMARK = 3_000_000  # "landmark number" that shuffles the lists
DISTRACTOR_LANDMARK = 1_000_000  # first number of the landmarks that nobody queries
CLUTTER_LANDMARK = 2_000_000  # first number of the scenes without a landmark
DISTRACTOR_VIEWS = 4  # pictures of one distractor landmark
CLUTTER_SHARE = 0.3  # share of the distractors that show no landmark
PORTRAIT_SHARE = 0.3  # share of the pictures in portrait orientation


@dataclass(frozen=True)
class Parameters:
    """The content of a set, recorded in ``dataset.json``. AmesError for impossible values.

    split: "train", "val" or "test"; landmarks of different splits never coincide. landmarks: their number;
    "val" and "test" have one query each. easy, hard, junk: views of each landmark, the query not counted.
    distractors: pictures of other landmarks or of none. seed: another one draws other landmarks. size:
    (height, width) of landscape pictures in pixels; portrait ones have them swapped.
    """

    split: str
    landmarks: int
    easy: int
    hard: int
    junk: int
    distractors: int
    seed: int = 0
    size: tuple[int, int] = (384, 512)
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise AmesError(f"split {self.split!r} is none of {', '.join(SPLITS)}")
        for name in ("landmarks", "easy", "hard", "junk", "distractors", "seed"):
            if getattr(self, name) < 0:
                raise AmesError(f"{name}={getattr(self, name)} must not be negative")
        if not 0 < self.landmarks < DISTRACTOR_LANDMARK:
            raise AmesError(f"landmarks={self.landmarks} must be from 1 to {DISTRACTOR_LANDMARK - 1}")
        if self.split != "train" and not (self.easy and self.hard):
            raise AmesError("a val or test set needs at least one easy and one hard view per landmark")
        if min(self.size) < 64:
            raise AmesError(f"size={self.size} is too small: both sides need at least 64 pixels")


@dataclass(frozen=True)
class Place:
    """One landmark, or one scene without any, and the difficulty of each of its pictures."""

    number: int
    label: int
    kind: str  # "landmark", "distractor" or "clutter"
    views: tuple[str, ...]  # "query", "easy", "hard", "junk" or "clutter"; numbered from 1


@dataclass(frozen=True)
class Picture:
    """One written picture."""

    path: str  # relative to the set's folder
    label: int
    width: int
    height: int
    view: str


def plan(parameters: Parameters) -> list[Place]:
    """All places of a set. Labels: the landmarks from 0 on, then the distractors, each with its own."""
    views = ["easy"] * parameters.easy + ["hard"] * parameters.hard + ["junk"] * parameters.junk
    if parameters.split != "train":
        views.insert(0, "query")
    places = [Place(n, n, "landmark", tuple(views)) for n in range(parameters.landmarks)]
    scenes = int(parameters.distractors * CLUTTER_SHARE)
    cycle = ("easy", "hard", "easy", "hard")
    for n, start in enumerate(range(0, parameters.distractors - scenes, DISTRACTOR_VIEWS)):
        count = min(DISTRACTOR_VIEWS, parameters.distractors - scenes - start)
        places.append(Place(DISTRACTOR_LANDMARK + n, len(places), "distractor", cycle[:count]))
    for n in range(scenes):
        places.append(Place(CLUTTER_LANDMARK + n, len(places), "clutter", ("clutter",)))
    return places


def generator(parameters: Parameters, landmark: int, view: int) -> np.random.Generator:
    """The one source of chance of one picture (or, as view 0, of one drawn landmark)."""
    return np.random.default_rng([parameters.seed, SPLITS[parameters.split], landmark, view])


def draw_canvas(parameters: Parameters, number: int) -> tuple[Array, Array]:
    """Landmark ``number`` of a set: canvas uint8 [H, W, 3] and mask uint8 [H, W], about 1.5 views wide."""
    rng = generator(parameters, number, CANVAS_VIEW)
    side = 1.45 * min(parameters.size)
    height, width = side * rng.uniform(0.85, 1.2, 2)
    return draw_landmark(rng, (max(96, int(height)), max(96, int(width))))


def draw_place(task: tuple[Parameters, Place, Path]) -> list[Picture]:
    """Draw and write all pictures of one place of a set into a folder."""
    parameters, place, folder = task
    canvas = None if place.kind == "clutter" else draw_canvas(parameters, place.number)
    pictures = []
    for view, name in enumerate(place.views, start=1):
        rng = generator(parameters, place.number, view)
        height, width = parameters.size
        if rng.random() < PORTRAIT_SHARE:
            height, width = width, height
        if canvas is None:
            image = render_clutter(rng, (height, width))
        else:
            image = render_view(*canvas, rng, "easy" if name == "query" else name, (height, width))
        path = f"images/{place.kind}_{place.label:05d}_{view:03d}.jpg"
        written, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not written:
            raise OSError(f"{path}: OpenCV could not encode the picture")
        (folder / path).write_bytes(data.tobytes())
        pictures.append(Picture(path, place.label, width, height, name))
    return pictures


def draw_all(parameters: Parameters, folder: Path, workers: int) -> list[Picture]:
    """Draw all places of a set with ``workers`` processes (0 or 1: in this one), in the order of the plan."""
    tasks = [(parameters, place, folder) for place in plan(parameters)]
    total = sum(len(place.views) for _, place, _ in tasks)
    pictures: list[Picture] = []
    with ExitStack() as stack:
        drawn: Iterator[list[Picture]] = map(draw_place, tasks)
        if workers > 1:
            # Spawned, not forked: the caller may hold threads or a CUDA context, which a fork would break.
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(context.Pool(workers, cv2.setNumThreads, (1,)))
            drawn = pool.imap(draw_place, tasks, chunksize=2)
        bar = tqdm(total=total, desc=f"draw {parameters.split}", unit="image", disable=None)
        stack.enter_context(bar)
        for batch in drawn:
            pictures += batch
            bar.update(len(batch))
    return pictures


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


def is_finished(folder: Path, parameters: Parameters) -> bool:
    """Return whether ``folder`` holds this very set; AmesError if it holds anything else."""
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise AmesError(f"{folder} is not a folder; name a new one for the dataset")
    described = folder / DESCRIPTION
    if not described.is_file():
        if any(folder.iterdir()):
            raise AmesError(f"{folder} is not empty and holds no dataset.json; name a new or empty folder")
        return False
    try:
        found = parsed(described.read_text())
    except ValueError:
        raise AmesError(f"{described} is not valid JSON; name a new folder or delete this one") from None
    wanted = json.loads(json.dumps(asdict(parameters)))
    if found != wanted:
        held = found if isinstance(found, dict) else {}
        other = ", ".join(
            f"{k}={held.get(k)!r} not {wanted[k]!r}" for k in wanted if held.get(k) != wanted[k]
        )
        raise AmesError(f"{folder} holds a dataset of other parameters ({other}); name a new folder")
    return True


@contextmanager
def built_aside(folder: Path) -> Iterator[Path]:
    """A temporary sibling of ``folder`` that takes its name at the end, or vanishes on any failure."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    except OSError as error:
        raise AmesError(f"{folder}: cannot be written ({error.strerror or error})") from error
    try:
        yield aside
        aside.chmod(0o755)  # mkdtemp makes folders that only the owner can read
        if folder.exists():
            folder.rmdir()  # empty, or this fails: nothing of anyone else's is deleted
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def make_landmarks(folder: Path | str, parameters: Parameters, *, workers: int = 2) -> Path:
    """Make a set of generated landmarks in ``folder`` and return it; a set that exists already is kept.

    folder: a new or an empty one, or one that holds this very set. It gets ``images/``, ``dataset.json``, and
    for "train" the list ``train.txt``, else ``test_query.txt``, ``test_gallery.txt`` and
    ``gnd_<folder's name>.json``. workers: processes that draw; 0 or 1 draws in this one.
    """
    folder = Path(folder).resolve()
    if is_finished(folder, parameters):
        return folder
    with built_aside(folder) as aside:
        (aside / "images").mkdir()
        pictures = draw_all(parameters, aside, workers)
        write_lists(parameters, pictures, aside, folder.name)
        (aside / DESCRIPTION).write_text(json.dumps(asdict(parameters), indent=2) + "\n")
    return folder
