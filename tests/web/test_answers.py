"""What the addresses answer: search, pictures, the collection's pages, and one line for what is wrong."""

import json
import re
import sys
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

from ames.retrieval.retriever import Retriever
from ames.web.shelf import photo_id
from helpers import photos, serving

JPEG = {"content-type": "image/jpeg"}


def search(site, words="", data=None):
    return site.post(f"/api/search{words}", content=serving.query() if data is None else data)


def refused(answer, status, text):
    """Checks the status and the line of a refusal, which names no file of this machine."""
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert list(said) == ["error"]
    assert text in said["error"]
    assert "\n" not in said["error"]
    assert not re.search(r"/(tmp|root|home|usr)\b|\.db\b|\.py\b", answer.text)


def test_a_search_answers_what_the_library_finds(site, shared):
    found = search(site, "?top=4").json()
    assert (found["height"], found["width"], found["total"], found["scored"]) == (*serving.SIZE, 9, 9)
    image = cv2.imdecode(np.frombuffer(serving.query(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    hits = Retriever.open(shared).search(image, 4)
    assert [hit["name"] for hit in found["hits"]] == [hit.name for hit in hits]
    assert found["hits"][0]["name"] == "a/3.png"
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3, 4]
    for row, hit in zip(found["hits"], hits, strict=True):
        assert row["id"] == photo_id(hit.name)
        parts = (row["score"], row["global"], row["local"])
        assert parts == pytest.approx((hit.score, hit.global_, hit.local), abs=1e-5)


def test_a_box_is_searched_for(site, shared):
    image = cv2.imdecode(np.frombuffer(serving.query(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    hits = Retriever.open(shared).search(image, 3, box=(10, 20, 150, 110))
    found = search(site, "?top=3&box=10,20,150,110").json()["hits"]
    assert [hit["score"] for hit in found] == pytest.approx([hit.score for hit in hits], abs=1e-5)


@pytest.mark.parametrize(
    "box", ["1,2,3", "a,b,c,d", "1,2,3,4,5", "9,2,3,40", "1,2,nan,4", "1,2,inf,4", "1e9,2,3,4"]
)
def test_what_is_no_box(site, box):
    refused(search(site, f"?box={box}"), 400, "box: ")


def test_a_box_outside_of_the_photo(site):
    refused(search(site, "?box=500,500,600,600"), 400, "box: 500, 500, 600, 600 shows nothing")


@pytest.mark.parametrize("top", ["0", "-1", "x", "1001", "9" * 30, "1.5", "", "²"])
def test_how_many_results(site, top):
    refused(search(site, f"?top={top}"), 400, "top: give a whole number from 1 to 1,000")


def test_a_photo_of_the_collection_finds_itself(site):
    found = search(site, f"?photo={photo_id('a/5.png')}&top=2", b"").json()["hits"]
    assert found[0]["name"] == "a/5.png"
    assert found[0]["global"] > 0.99


@pytest.mark.parametrize(
    "photo",
    [
        "0" * 16,
        "..",
        "../../etc/passwd",
        "%2e%2e%2fphotos.json",
        "a/5.png",
        "-1",
        "a" * 5000,
        "\x00",
        "/etc/passwd",
    ],
)
def test_no_other_name_leads_to_a_file(site, photo):
    refused(site.post("/api/search", params={"photo": photo}), 404, "no such photo")
    refused(site.get("/api/explain", params={"photo": photo, "query": "x"}), 404, "no such photo")
    for kind in ("thumbnail", "image"):
        answer = site.get(f"/api/photos/{photo.replace(chr(0), '%00')}/{kind}")
        assert answer.status_code == 404
        assert "no such" in answer.json()["error"]


def test_pictures_are_small_jpegs_without_the_files_contents(site):
    one = site.get(f"/api/photos/{photo_id('a/5.png')}/image")
    assert one.headers["content-type"] == "image/jpeg"
    assert one.headers["x-content-type-options"] == "nosniff"
    shown = cv2.imdecode(np.frombuffer(one.content, np.uint8), cv2.IMREAD_COLOR)
    stored = photos.scene(5, size=serving.SIZE)
    assert shown.shape == stored.shape
    assert np.abs(shown.astype(int) - stored).mean() < 12
    again = site.get(
        f"/api/photos/{photo_id('a/5.png')}/image", headers={"if-none-match": one.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


def test_pages_of_the_collection(site):
    first, last = (site.get(f"/api/photos?size=5&page={page}").json() for page in (1, 2))
    assert (first["pages"], first["total"], len(first["photos"]), len(last["photos"])) == (2, 9, 5, 4)
    names = [photo["name"] for photo in first["photos"] + last["photos"]]
    assert sorted(names) == sorted([*(f"a/{i}.png" for i in range(8)), serving.SCRIPT])
    refused(site.get("/api/photos?size=5&page=3"), 404, "there is no page 3: the collection has 2")
    refused(site.get("/api/photos?size=201"), 400, "size: give a whole number from 1 to 200")


def test_names_are_json_and_never_markup(site):
    answer = site.get("/api/photos")
    assert answer.headers["content-type"] == "application/json"
    assert serving.SCRIPT in [photo["name"] for photo in answer.json()["photos"]]
    page = site.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert serving.SCRIPT not in page.text
    assert "<script>" not in page.text
    assert not re.search(r"\son\w+=|style=|https?://", page.text)  # what the policy would refuse
    script = site.get("/serve.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script.text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", script.text + site.get("/serve.css").text)


def test_what_the_page_says_of_the_collection(site, shared):
    about = site.get("/api/about").json()
    database = Retriever.open(shared).database
    assert about == {
        "model": "rootsift_ames_dist",
        "photos": 9,
        "bytes_per_photo": round(database.bytes_per_image),
        "generation": database.manifest.generation,
        "max_upload_bytes": 32 << 20,
    }
    assert site.get("/health").json() == {"status": "ok"}


def test_explaining_asks_the_library_with_both_photos(site, shared, monkeypatch):
    asked = []

    def explain(query, database, model, *, desc_num, top):
        asked.append((query, database, model, desc_num, top))
        return SimpleNamespace(as_dict=lambda: {"links": [[0, 1]], "weights": [1.0]})

    module = ModuleType("ames.retrieval.explanation")
    module.explain = explain
    monkeypatch.setitem(sys.modules, module.__name__, module)
    handle = search(site).json()["query"]
    answer = site.get("/api/explain", params={"query": handle, "photo": photo_id("a/2.png")})
    assert answer.json() == {
        "photo": photo_id("a/2.png"),
        "name": "a/2.png",
        "links": [[0, 1]],
        "weights": [1.0],
    }
    ((query, found, model, counts, top),) = asked
    retriever = Retriever.open(shared)
    assert (counts, top) == (retriever.reranker.desc_num, 50)
    assert type(model) is type(retriever.reranker.model)
    stored = retriever.extract(shared.parent / "photos" / "a" / "2.png")
    assert found.local.descriptors.equal(stored.local.descriptors)
    assert not query.local.descriptors.equal(stored.local.descriptors)
    answer = site.get("/api/explain", params={"query": "other", "photo": photo_id("a/2.png")})
    refused(answer, 410, "this search is no longer known; search again")


def test_what_is_explained_is_the_score_that_was_found(site):
    found = search(site).json()
    for hit in found["hits"][:2]:
        made = site.get("/api/explain", params={"query": found["query"], "photo": hit["id"]}).json()
        assert made["score"] == pytest.approx(hit["local"], abs=1e-3)
        assert 0 < len(made["links"]) == len(made["weights"]) <= 50
        for side, places in enumerate((made["positions_a"], made["positions_b"])):
            assert all(0 <= share <= 1 for link in made["links"] for share in places[link[side]])


@pytest.mark.parametrize(
    ("method", "place", "status", "text"),
    [
        ("GET", "/nothing", 404, "no such address"),
        ("GET", "/static/serve.js", 404, "no such address"),
        ("GET", "/..%2f..%2fetc%2fpasswd", 404, "no such address"),
        ("GET", "/api/search", 405, "another method"),
        ("DELETE", "/api/photos", 405, "another method"),
        ("PUT", "/", 405, "another method"),
    ],
)
def test_addresses_that_do_not_exist(site, method, place, status, text):
    refused(site.request(method, place), status, text)


def test_what_goes_wrong_in_the_library_names_no_file(site, monkeypatch, caplog):
    from ames.errors import AmesError

    def damaged(*_, **__):
        raise AmesError("/tmp/secret/photos.db/segment: damaged")

    monkeypatch.setattr(Retriever, "search", damaged)
    refused(search(site), 500, "the server's terminal says why")
    assert "/tmp/secret" in caplog.text
    monkeypatch.setattr(Retriever, "search", lambda *_, **__: 1 / 0)
    refused(search(site), 500, "the server failed")


def test_scores_that_a_model_does_not_give_are_null(site, monkeypatch):
    from ames.reranking.reranker import Hit, Hits

    hits = Hits([Hit(0, 0.5, float("nan"), None, "a/0.png")], 1)
    monkeypatch.setattr(Retriever, "search", lambda *_, **__: hits)
    (row,) = json.loads(search(site).text)["hits"]
    assert (row["score"], row["local"], row["global"]) == (0.5, None, None)


def test_a_photo_without_features_finds_nothing(site):
    plain = cv2.imencode(".png", photos.plain())[1].tobytes()
    assert search(site, "", plain).json()["hits"] == []
