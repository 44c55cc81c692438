"""Uploads that are no photos, too large, damaged, or made to harm: one line each, and the server goes on."""

import asyncio
import struct
import time
import zlib

import cv2
import numpy as np
import pytest

from ames.web import decoding, uploads
from ames.web.app import Limits
from ames.web.decoding import Task
from ames.web.refusals import Refusal
from ames.web.worker import Limits as WorkerLimits
from ames.web.worker import Worker
from fuzz.mutation import damaged
from helpers import image_files, serving


def png(height, width, data=b"\0"):
    """A grey PNG that claims a size."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def bomb(side):
    """A grey PNG of black pixels: a thousandth of its size once decoded."""
    return png(side, side, bytes(side * (side + 1)))


GOOD = serving.query(ending=".jpg")
WRONG = {
    "nothing": (b"", 400, "no photo: the request has no body"),
    "text": (b"hello, this is text", 415, "not a photo of a known format"),
    "page": (b"<!doctype html><script>alert(1)</script>", 415, "not a photo of a known format"),
    "drawing": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not a photo of a known format"),
    "archive": (b"PK\x03\x04" + bytes(200), 415, "not a photo of a known format"),
    "cut": (GOOD[: len(GOOD) // 2], 422, "cut off: the end of the file is missing"),
    "cut header": (GOOD[:30], 422, "the photo cannot be read"),
    "huge": (png(100_000, 100_000), 413, "100000 x 100000 pixels, more than 64,000,000"),
    "wide": (png(1, 2**31 - 1), 413, "pixels, more than 64,000,000"),
    "hidden size": (b"P6\n100000 100000\n255\n" + bytes(99), 422, "the photo"),
    "empty picture": (png(0, 0), 422, "the photo cannot be read"),
    "short of pixels": (png(4000, 4000), 422, "the photo cannot be read"),
    "raw": (b"II*\0" + bytes(60), 422, "the photo cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("place", ["/api/search", "/api/preview"])
def test_what_is_refused(site, name, place):
    data, status, text = WRONG[name]
    answer = site.post(place, content=data, headers={"content-type": "image/jpeg"})
    assert (answer.status_code, text in answer.json()["error"]) == (status, True), answer.text


def test_too_many_bytes_are_refused_before_they_are_read(shared):
    with serving.client(shared, limits=Limits(upload=1 << 20)) as site:
        read = []

        def parts():
            for _ in range(64):
                read.append(1 << 16)
                yield bytes(1 << 16)

        declared = site.post("/api/search", content=parts(), headers={"content-length": str(1 << 22)})
        assert declared.status_code == 413
        assert declared.json() == {"error": "the photo is larger than 1 MB"}
        assert site.post("/api/search", content=parts()).status_code == 413  # in parts, of no declared size
        for length in ("-1", "x", "9" * 400):
            answer = site.post("/api/search", content=parts(), headers={"content-length": length})
            assert answer.status_code == 413
        assert site.post("/api/search", content=GOOD).status_code == 200


def test_a_body_that_does_not_arrive_is_given_up():
    class Slow:
        headers = {}  # noqa: RUF012

        async def stream(self):
            yield b"some"
            await asyncio.sleep(30)

    begun = time.monotonic()
    with pytest.raises(Refusal, match="did not arrive in time") as refused:
        asyncio.run(uploads.read_body(Slow(), 1000, seconds=0.1))
    assert refused.value.status == 408
    assert time.monotonic() - begun < 10


def test_a_turned_photo_is_searched_upright(site):
    answer = site.post("/api/search", content=image_files.with_orientation(GOOD, 6)).json()
    assert (answer["height"], answer["width"]) == serving.SIZE[::-1]


def test_a_preview_says_the_whole_size(site):
    large = cv2.imencode(".jpg", np.full((1200, 4000, 3), 90, np.uint8))[1].tobytes()
    for data, size in ((large, (1200, 4000)), (image_files.with_orientation(large, 6), (4000, 1200))):
        answer = site.post("/api/preview", content=data)
        shown = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        assert (int(answer.headers["x-photo-height"]), int(answer.headers["x-photo-width"])) == size
        assert max(shown.shape) == 1600
        assert (shown.shape[0] > shown.shape[1]) == (size[0] > size[1])
        assert np.abs(shown.astype(int) - 90).max() <= 3


def test_a_bomb_takes_no_more_memory_than_the_worker_may():
    worker = Worker(WorkerLimits(memory=96 << 20))
    try:
        with pytest.raises(Refusal, match="the photo") as refused:
            worker.pixels(Task(bomb(7900), None, None, 64_000_000))
        assert refused.value.status == 422
        assert worker.pixels(Task(GOOD, None, None, 64_000_000)).shape == (*serving.SIZE, 3)
    finally:
        worker.close()


def test_the_largest_photo_fits_the_limits():
    worker = Worker()
    try:
        assert worker.pixels(Task(bomb(8000), None, None, 64_000_000)).shape == (8000, 8000, 3)
        assert worker.starts == 1
    finally:
        worker.close()


def fuzzed(site, count, seed):
    """Searches with damaged photos; the statuses, and that the server answers a good one after them."""
    rng = np.random.default_rng(seed)
    whole = [
        serving.query(ending=ending) for ending in (".jpg", ".png", ".webp", ".tiff", ".bmp", ".avif", ".jp2")
    ]
    statuses = []
    for _ in range(count):
        answer = site.post("/api/search?top=1", content=damaged(whole[rng.integers(len(whole))], rng))
        assert answer.status_code in (200, 400, 413, 415, 422), answer.text
        assert answer.status_code == 200 or list(answer.json()) == ["error"]
        statuses.append(answer.status_code)
    assert site.post("/api/search?top=1", content=GOOD).json()["hits"][0]["name"] == "a/3.png"
    return statuses


def test_damaged_photos(site):
    assert {200, 422} <= set(fuzzed(site, 40, seed=1))


@pytest.mark.slow
def test_many_damaged_photos(site):
    assert {200, 415, 422} <= set(fuzzed(site, 500, seed=2))


def test_a_smaller_copy_of_a_jpeg_says_its_upright_size():
    image = np.full((1000, 3000, 3), 120, np.uint8)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    for orientation, size in ((1, (1000, 3000)), (3, (1000, 3000)), (6, (3000, 1000)), (8, (3000, 1000))):
        turned = image_files.with_orientation(data, orientation)
        found, picture = decoding._picture(turned, 320, 10**8)
        assert (found.height, found.width) == size
        shown = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        assert max(shown.shape) == 320
        assert shown.shape[0] / shown.shape[1] == pytest.approx(size[0] / size[1], rel=0.02)
