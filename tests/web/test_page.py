"""The page in Chromium: by mouse, by keyboard, on a narrow screen, and when something is wrong."""

import json
import shutil
import time
import urllib.request

import cv2
import pytest

from helpers import photos, serving

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("chromium is not installed: apt-get install chromium", allow_module_level=True)

EXPLAINED = {
    "score": 1.5,
    "links": [[0, 1], [1, 0]],
    "weights": [1.0, 0.5],
    "shares_a": [0.4, -0.2],
    "shares_b": [0.3, 0.1],
    "positions_a": [[0.0, 0.0], [0.5, 0.5]],
    "positions_b": [[1.0, 1.0], [0.25, 0.75]],
}
FEW = {"width": 360, "height": 720}


TOKEN = "a-token-of-24-characters"


@pytest.fixture(scope="module")
def address(shared):
    """Of a server that wants a token."""
    with serving.server(shared, AMES_TOKEN=TOKEN) as (_, made):
        yield made


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, address):
    """A page that has the collection; errors of its script, and what its policy refused, fail the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    page.set_default_timeout(10_000)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
    page.goto(f"{address}?token={TOKEN}")
    page.wait_for_selector(".card")
    yield page
    page.close()
    assert wrong == []


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("query") / "query <b>.png"
    path.write_bytes(serving.query())
    return path


def until(page, expression):
    """Wait until it is true. Not by ``wait_for_function``: the page's policy refuses what that evaluates."""
    end = time.monotonic() + 10
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def search(page, path):
    with page.expect_response("**/api/search**"):
        page.set_input_files("#file", path)
    page.wait_for_selector(".card .scores span")


def names(page):
    return page.locator(".card .text").all_text_contents()


def explained(page):
    page.route("**/api/explain**", lambda route: route.fulfill(json=EXPLAINED))


def test_the_collection_is_named_and_shown(page):
    assert sorted(names(page)) == sorted([*(f"a/{i}.png" for i in range(8)), serving.SCRIPT])
    assert page.locator("#about").text_content().startswith("9 photos · rootsift_ames_dist · ")
    until(page, "[...document.images].every((image) => image.complete)")
    widths = page.evaluate("[...document.querySelectorAll('.card img')].map((image) => image.naturalWidth)")
    assert widths == [160] * 9
    assert all(image.get_attribute("loading") == "lazy" for image in page.locator(".card img").all())


def test_a_search_and_its_scores(page, file):
    search(page, file)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    asked = urllib.request.Request(f"{page.url}api/search", serving.query(), bearer)
    with urllib.request.urlopen(asked) as answer:
        hit = json.load(answer)["hits"][0]
    assert names(page)[0] == "a/3.png"
    assert "9 of 9 photos for query <b>.png" in page.locator("#status").text_content()
    card = page.locator(".card").first
    text = card.locator(".scores").text_content()  # in the page whether or not it is seen
    assert f"Blended {hit['score']:.3f}" in text
    assert f"Global {hit['global']:.3f}" in text
    assert f"Local {hit['local']:.2f}" in text
    opacity = "getComputedStyle(document.querySelector('.scores')).opacity"
    page.mouse.move(2, 2)
    assert page.evaluate(opacity) == "0"
    card.hover()
    assert page.evaluate(opacity) == "1"
    page.mouse.move(2, 2)
    page.keyboard.press("Tab")  # from the keyboard, so that the focus is shown
    card.locator(".open").focus()
    assert page.evaluate(opacity) == "1"


def test_a_box_by_mouse_is_what_is_searched_for(page, file):
    search(page, file)
    area = page.locator("#stage").bounding_box()
    page.mouse.move(area["x"] + area["width"] / 4, area["y"] + area["height"] / 4)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.75, area["y"] + area["height"] + 90, steps=3)  # beyond it
    page.mouse.up()
    sides = [int(page.input_value(f"#box [name={side}]")) for side in ("left", "top", "right", "bottom")]
    assert sides == pytest.approx([40, 30, 120, 120], abs=1)
    with page.expect_request("**/api/search**") as asked:
        page.keyboard.press("Enter")  # the focus is on the button
    assert f"box={'%2C'.join(map(str, sides))}" in asked.value.url
    with page.expect_request("**/api/search**") as asked:
        page.click("#whole")
    assert "box" not in asked.value.url
    assert page.locator("#frame").is_hidden()


def test_a_box_by_keyboard(page, file):
    search(page, file)
    page.focus("#box [name=left]")
    page.keyboard.type("40")
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.type("100")
    with page.expect_request("**/api/search**") as asked:
        page.keyboard.press("Enter")
    assert "box=40%2C0%2C160%2C100" in asked.value.url
    assert page.locator("#frame").is_visible()
    page.focus("#box [name=right]")
    page.keyboard.type("30")
    page.keyboard.press("Tab")
    assert "The box is empty" in page.locator("[role=alert]").text_content()


def test_everything_by_keyboard_alone(page, file):
    explained(page)
    search(page, file)
    reached = []
    page.evaluate("document.activeElement.blur()")
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.name || document.activeElement.className"
            )
        )
        if reached[-1] == "open":
            break
    assert {"file", "left", "top", "right", "bottom", "search", "clear", "browse", "open"} <= set(reached)
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Enter")
    page.wait_for_selector("#drawing .tie")
    page.keyboard.press("Escape")
    assert page.locator("#matches").is_hidden()
    assert page.evaluate("document.activeElement.className") == "open"  # where it was opened


def test_matches_are_drawn_where_they_are(page, file):
    explained(page)
    search(page, file)
    page.locator(".card .open").first.click()
    page.wait_for_selector("#drawing .tie")
    assert page.locator("#drawing image").count() == 2
    first = page.locator("#drawing .tie").first
    # Two photos of 160 x 120, 1,000 high, side by side with a gap of 16.
    ends = [float(first.get_attribute(name)) for name in ("x1", "y1", "x2", "y2")]
    wide = 1000 * 160 / 120
    assert ends == pytest.approx([0, 0, wide + 16 + 0.75 * wide, 250], abs=0.1)
    assert page.locator("#drawing .less").count() == 1
    assert page.locator("#drawing .more").count() == 3
    assert page.locator("#shown-count").text_content() == "2 of 2"
    page.locator("#shown").fill("1")
    assert page.locator("#drawing .tie").count() == 1
    assert "matches between query <b>.png and a/3.png" in page.locator("#drawing title").text_content()
    page.set_viewport_size(FEW)
    until(page, "document.querySelector('#drawing .tie').y2.baseVal.value > 900")  # one above the other
    page.click("#search-this")
    until(page, "document.querySelector('#preview').alt.endsWith('a/3.png')")


def test_matches_of_a_search_that_the_server_forgot(page, file):
    calls = []

    def answer(route):
        calls.append(route.request.url)
        if len(calls) == 1:
            route.fulfill(status=410, json={"error": "this search is no longer known; search again"})
        else:
            route.fulfill(json=EXPLAINED)

    page.route("**/api/explain**", answer)
    search(page, file)
    page.locator(".card .open").first.click()
    page.wait_for_selector("#drawing .tie")
    assert len(set(calls)) == 2  # the second is of a new search


def test_a_photo_of_the_collection_is_searched_with(page):
    with page.expect_response("**/api/search**"):
        page.locator(".card .open", has_text="a/6.png").click()
    page.wait_for_selector(".card .scores span")
    assert names(page)[0] == "a/6.png"
    with page.expect_response("**/api/search**"):
        page.locator(".card .like").nth(1).click()
    page.click("#browse")
    until(page, "document.querySelector('#found-title').textContent === 'Collection'")


def test_a_box_is_in_pixels_of_the_file_not_of_what_is_shown(page):
    small = cv2.imencode(".png", photos.scene(6, size=(60, 80)))[1].tobytes()
    page.route("**/image", lambda route: route.fulfill(body=small, content_type="image/png"))
    with page.expect_response("**/api/search**"):
        page.locator(".card .open", has_text="a/6.png").click()
    until(page, "document.querySelector('#box [name=right]').placeholder === '160'")
    assert page.locator("#box [name=bottom]").get_attribute("max") == "120"


def test_a_dropped_and_a_pasted_photo(page, file):
    data = list(file.read_bytes())
    for event, holder in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        with page.expect_response("**/api/search**"):
            page.evaluate(
                """([event, holder, data]) => {
                  const files = new DataTransfer();
                  files.items.add(new File([new Uint8Array(data)], `${event}.png`, { type: "image/png" }));
                  const made = new Event(event, { bubbles: true, cancelable: true });
                  Object.defineProperty(made, holder, { value: files });
                  document.dispatchEvent(made);
                }""",
                [event, holder, data],
            )
        until(page, f"document.querySelector('#preview').alt.endsWith('{event}.png')")


def test_a_format_that_the_browser_cannot_show(page, tmp_path):
    path = tmp_path / "scan.tiff"
    path.write_bytes(cv2.imencode(".tiff", photos.scene(3, 1, size=serving.SIZE))[1].tobytes())
    search(page, path)
    assert names(page)[0] == "a/3.png"
    assert page.evaluate("document.querySelector('#preview').naturalWidth") == 160


@pytest.mark.parametrize("content", [b"no photo", serving.query()[:900]])
def test_a_file_that_is_no_photo_is_one_line(page, tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    page.set_input_files("#file", path)
    until(page, "document.querySelector('[role=alert]').textContent")
    assert page.locator("[role=alert]").text_content().endswith(".")
    assert len(names(page)) == 9  # the collection stays


def test_a_server_that_is_gone_is_one_line(page, file):
    page.route("**/api/search**", lambda route: route.abort())
    page.set_input_files("#file", file)
    until(page, "document.querySelector('[role=alert]').textContent.includes('cannot be reached')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_has_no_sideways_scrolling(browser, address, file, scheme):
    page = browser.new_page(viewport=FEW, color_scheme=scheme, has_touch=True, is_mobile=True)
    page.goto(f"{address}?token={TOKEN}")
    explained(page)
    search(page, file)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 300) == (scheme == "dark")
    page.locator(".card .open").first.tap()
    page.wait_for_selector("#drawing .tie")
    assert page.evaluate("document.querySelector('#matches').scrollWidth") <= 360
    page.close()


def test_ten_thousand_photos_are_pages(page):
    made = [{"id": f"{i:016x}", "name": f"{i}.jpg"} for i in range(10_000)]

    def answer(route):
        number = int(route.request.url.partition("page=")[2])
        shown = made[(number - 1) * 48 : number * 48]
        route.fulfill(json={"page": number, "pages": 209, "total": 10_000, "photos": shown})

    page.route("**/api/photos?**", answer)
    page.reload()
    until(page, "document.querySelector('#count').textContent === '209'")
    assert page.locator(".card").count() == 48
    assert page.locator("#status").text_content().startswith("10,000 photos")
    page.fill("#page", "209")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.card').length === 16")
    assert page.locator("#next").is_disabled()
    assert names(page)[-1] == "9999.jpg"
    page.click("#previous")
    until(page, "document.querySelectorAll('.card').length === 48")


def test_the_token_stays_out_of_the_address(browser, address):
    page = browser.new_page()
    assert page.goto(address).status == 401
    page.goto(f"{address}?token={TOKEN}")
    page.wait_for_selector(".card")
    assert page.url == address
    assert page.evaluate("document.cookie") == ""  # no script reads it
    assert page.goto(address).status == 200
    page.close()
