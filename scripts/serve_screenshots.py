"""Take the pictures of the search page that the documentation shows, of drawn landmarks only.

    python scripts/serve_screenshots.py docs/pictures

Needs the extra dev (playwright) and Chromium, as Debian's package installs it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.datasets.landmarks.build import Parameters, make_landmarks
from ames.errors import AmesError, installing
from ames.io.console import OneLineParser, run_script
from ames.retrieval.indexing import index_photos

CHROMIUM = "/usr/bin/chromium"
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 360, "height": 720}
_QUALITY = 45  # of the WebP files


def main() -> None:
    parser = OneLineParser(description="Take the documentation's pictures of the search page.")
    parser.add_argument("folder", type=Path, help="folder of the pictures")
    parser.add_argument("--all", action="store_true", help="every page, width and colour scheme, for a look")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as error:
        raise AmesError(f"playwright is not installed: {installing('dev')}") from error
    with tempfile.TemporaryDirectory() as work, served(Path(work)) as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            for name, size in (("wide", WIDE), ("narrow", NARROW)):
                page = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
                take(page, *place, args.folder, f"{name}-{scheme}", args.all)
        browser.close()


@contextmanager
def served(work: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server of drawn landmarks, and a photo to search with."""
    parameters = Parameters(split="test", landmarks=12, easy=3, hard=3, junk=0, distractors=30)
    drawn = make_landmarks(work / "drawn", parameters, workers=0)
    photos, query = drawn / "images", work / "query.jpg"
    (photos / "landmark_00003_001.jpg").rename(query)
    index_photos(photos, work / "photos.db", workers=0)
    words = [sys.executable, "-m", "ames", "serve", str(work / "photos.db"), "--port", "0", "-q"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip(), query
        finally:
            server.terminate()


def take(page: Any, address: str, query: Path, folder: Path, name: str, everything: bool) -> None:
    """Search with a part of a photo, and look at matches; save a picture of each."""
    wanted = everything or name in ("wide-light", "narrow-dark")
    page.goto(address)
    page.wait_for_selector(".card img")
    if everything:
        page.wait_for_timeout(800)
        save(page, folder / f"collection-{name}.webp")
    page.set_input_files("#file", query)
    page.wait_for_selector(".card .scores")
    page.locator("#stage").scroll_into_view_if_needed()
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.12 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.9 * box["height"], steps=4)
    page.mouse.up()
    with page.expect_response("**/api/search**"):
        page.click("#search")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)  # until nothing fades any more
    if wanted:
        save(page, folder / f"results-{name}.webp")
    page.locator(".card .open").nth(1).click()
    page.wait_for_selector("#drawing .tie")
    page.wait_for_load_state("networkidle")
    if everything or name == "wide-dark":
        save(page, folder / f"matches-{name}.webp")


def save(page: Any, path: Path) -> None:
    """A picture of what the browser shows, as a small WebP."""
    pixels = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    path.write_bytes(cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])[1].tobytes())
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    run_script("serve_screenshots.py", main)
