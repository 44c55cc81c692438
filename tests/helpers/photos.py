"""Photos for tests: a few scenes with much to see, and images that are none."""

import cv2
import numpy as np


def scene(seed, view=0, size=(96, 128)):
    """One of many different textures; other views of a scene are shifted and have some noise."""
    rng = np.random.default_rng(seed)
    large = cv2.GaussianBlur(rng.random((size[0] + 20, size[1] + 20, 3)), (0, 0), 2.0)
    large = cv2.normalize(large, None, 0, 255, cv2.NORM_MINMAX)
    moved = large[2 * view : 2 * view + size[0], 3 * view : 3 * view + size[1]]
    noise = np.random.default_rng([seed, view]).normal(0, 4, moved.shape)
    return np.clip(moved + noise, 0, 255).astype(np.uint8)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())


def plain(size=(40, 50)):
    """A readable image without a single keypoint."""
    return np.full((*size, 3), 127, np.uint8)


def broken(folder):
    """Images that cannot be read, in every way; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    good = cv2.imencode(".jpg", scene(99))[1].tobytes()
    contents = {
        "cut.jpg": good[: len(good) // 3],
        "empty.jpg": b"",
        "text.jpg": b"this is text\n",
        "header.png": cv2.imencode(".png", scene(99))[1].tobytes()[:20],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return sorted(contents)
