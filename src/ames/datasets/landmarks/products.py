"""Generated products: several views of textured objects, for trainings with class labels.

A product is drawn as a landmark is (``facades``), with colours of its own, and seen from many sides on a
plain ground: what pictures of a shop show, without the clutter of a street.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ames.datasets.landmarks import camera, motifs, scenery
from ames.datasets.landmarks.facades import draw_landmark
from ames.datasets.landmarks.packages import colourful
from ames.datasets.landmarks.plan import SPLITS
from ames.datasets.landmarks.processes import processes
from ames.datasets.landmarks.set_folder import DESCRIPTION, built_aside, is_finished
from ames.datasets.landmarks.textures import Array, smooth_noise
from ames.errors import AmesError

_CANVAS = 320  # pixels of the object's sides, before it is seen from somewhere
_FIRST = 5_000_000  # of the numbers that seed products: no landmark has them
_TINT = 0.35  # share of a product's own colour in its picture


@dataclass(frozen=True)
class ProductSet:
    """The content of a set, recorded in ``dataset.json``. AmesError for impossible values.

    split: "train", "val" or "test"; products of different splits never coincide. products: classes. views:
    pictures of each. side: of a picture in pixels. seed: another one draws other products.
    """

    split: str
    products: int
    views: int = 10
    side: int = 192
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise AmesError(f"split {self.split!r} is none of {', '.join(SPLITS)}")
        for name, least in (("products", 1), ("views", 2), ("side", 32), ("seed", 0)):
            if getattr(self, name) < least:
                raise AmesError(f"{name}={getattr(self, name)} must be at least {least}")

    def to_dict(self) -> dict[str, object]:
        """Return the content of ``dataset.json``."""
        return {"kind": "products"} | asdict(self)

    def generator(self, product: int, view: int) -> np.random.Generator:
        """Return the source of chance of a view (from 1), or as view 0 of the product itself."""
        return np.random.default_rng([self.seed, SPLITS[self.split], _FIRST + product, view])


def draw_product(rng: np.random.Generator) -> tuple[Array, Array]:
    """Return one product: canvas uint8 [H, W, 3] BGR, and its mask of 0 and 255."""
    ratio = float(rng.uniform(0.7, 1.4))
    canvas, mask = draw_landmark(rng, (_CANVAS, int(_CANVAS * ratio)))
    own = np.full_like(canvas, colourful(rng))
    return cv2.addWeighted(canvas, 1 - _TINT, own, _TINT, 0), mask


def render_product(product: Array, mask: Array, rng: np.random.Generator, side: int) -> Array:
    """Return a picture of a product, uint8 [side, side, 3]: turned, lit, some partly hidden."""
    tone = rng.uniform(90, 225, 3) if rng.random() < 0.3 else np.full(3, rng.uniform(90, 235))
    ground = smooth_noise(rng, (side, side), side / 3)[..., None] * rng.uniform(0, 60) + tone
    image = ground.clip(0, 255).astype(np.uint8)
    angles = (rng.uniform(-40, 40), rng.uniform(-20, 20), rng.uniform(-15, 15))
    shift = tuple(rng.uniform(-0.08, 0.08, 2) * side)
    at = camera.plane_homography(mask.shape, (side, side), angles, rng.uniform(0.65, 1.05), shift)
    seen = camera.warp(product, mask, at, (side, side), 0.0)
    motifs.paste(image, seen, 0, 0)
    if rng.random() < 0.15:
        scenery.occlude(rng, image, seen[1], float(rng.uniform(0.1, 0.4)))
    image = camera.lit(rng, image, rng.uniform(0.7, 1.4), rng.uniform(0.7, 1.15), rng.uniform(0, 0.4))
    image = camera.blurred(rng, image, rng.uniform(0, 1.0), 0.0)
    return camera.noisy(rng, image, rng.uniform(1, 8))


@dataclass(frozen=True)
class _Task:
    set: ProductSet
    product: int
    folder: Path

    def name(self, view: int) -> str:
        return f"images/product_{self.product:05}_{view:03}.jpg"


def _draw(task: _Task) -> list[tuple[str, int]]:
    """Write the pictures of one product; return their paths and its number."""
    product, mask = draw_product(task.set.generator(task.product, 0))
    for view in range(1, task.set.views + 1):
        image = render_product(product, mask, task.set.generator(task.product, view), task.set.side)
        written, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        if not written:
            raise OSError(f"{task.name(view)}: OpenCV could not encode the picture")
        (task.folder / task.name(view)).write_bytes(data.tobytes())
    return [(task.name(view), task.product) for view in range(1, task.set.views + 1)]


def make_products(folder: Path | str, wanted: ProductSet, *, workers: int = 2) -> Path:
    """Make a set of generated products in ``folder`` and return it; a set that exists already is kept.

    It gets ``images/``, ``dataset.json``, and for "train" the list ``train.txt``, else ``test_query.txt`` and
    ``test_gallery.txt``, which are equal: every picture asks for the others of its product. Lines are
    path,label. AmesError for a folder of something else.
    """
    folder = Path(folder).resolve()
    if is_finished(folder, wanted.to_dict()):
        return folder
    with built_aside(folder) as aside:
        (aside / "images").mkdir()
        tasks = [_Task(wanted, number, aside) for number in range(wanted.products)]
        pictures: list[tuple[str, int]] = []
        with processes(workers) as each, tqdm(total=len(tasks), unit="product", disable=None) as bar:
            for batch in each(_draw, tasks):
                pictures += batch
                bar.update()
        _write_lists(aside, wanted, pictures)
        (aside / DESCRIPTION).write_text(json.dumps(wanted.to_dict(), indent=2) + "\n")
    return folder


def _write_lists(folder: Path, wanted: ProductSet, pictures: Sequence[tuple[str, int]]) -> None:
    order = (
        wanted.generator(-1, 0).permutation(len(pictures))
        if wanted.split == "train"
        else range(len(pictures))
    )
    text = "".join(f"{pictures[i][0]},{pictures[i][1]}\n" for i in order)
    names = ("train",) if wanted.split == "train" else ("test_query", "test_gallery")
    for name in names:
        (folder / f"{name}.txt").write_text(text)
