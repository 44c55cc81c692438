"""A collection that changes while it is served, and photos that go."""

import shutil

from ames.retrieval.indexing import index_photos
from ames.web.shelf import photo_id
from helpers import photos, serving


def index(folder):
    return index_photos(folder / "photos", folder / "photos.db", workers=0)


def test_the_next_search_sees_what_was_indexed_again(tmp_path):
    serving.collection(tmp_path, 3)
    with serving.client(tmp_path / "photos.db") as site:
        handle = site.post("/api/search", content=serving.query(2)).json()["query"]
        photos.save(tmp_path / "photos" / "new.png", photos.scene(20, size=serving.SIZE))
        (tmp_path / "photos" / "a" / "0.png").unlink()
        index(tmp_path)
        found = site.post("/api/search", content=serving.query(20)).json()
        assert found["total"] == 4
        assert found["hits"][0]["name"] == "new.png"
        assert {hit["name"] for hit in found["hits"]} == {"new.png", "a/1.png", "a/2.png", serving.SCRIPT}
        assert site.get("/api/about").json()["photos"] == 4
        assert site.get(f"/api/photos/{photo_id('a/0.png')}/thumbnail").status_code == 404
        assert site.get(f"/api/photos/{photo_id('new.png')}/thumbnail").status_code == 200
        known = site.get("/api/explain", params={"query": handle, "photo": photo_id("a/0.png")})
        assert known.json()["error"] == "the collection has no such photo"


def test_pages_see_it_without_a_search(tmp_path):
    serving.collection(tmp_path, 2)
    with serving.client(tmp_path / "photos.db") as site:
        photos.save(tmp_path / "photos" / "new.png", photos.scene(20, size=serving.SIZE))
        index(tmp_path)
        serving.wait_until(lambda: site.get("/api/photos").json()["total"] == 4)


def test_a_collection_that_is_made_anew_with_another_model_is_opened(tmp_path):
    serving.collection(tmp_path, 3)
    with serving.client(tmp_path / "photos.db") as site:
        shutil.rmtree(tmp_path / "photos.db")
        still = site.post("/api/search", content=serving.query(2)).json()
        assert still["hits"][0]["name"] == "a/2.png"  # what is open stays open
        index_photos(tmp_path / "photos", tmp_path / "photos.db", "rootsift_elvis_binary", workers=0)
        found = site.post("/api/search", content=serving.query(2)).json()
        assert found["hits"][0]["name"] == "a/2.png"
        assert site.get("/api/about").json()["model"] == "rootsift_elvis_binary"


def test_a_damaged_manifest_leaves_what_is_open(tmp_path, caplog):
    serving.collection(tmp_path, 3)
    with serving.client(tmp_path / "photos.db") as site:
        (tmp_path / "photos.db" / "manifest.json").write_text("{")
        assert site.post("/api/search", content=serving.query(2)).json()["hits"][0]["name"] == "a/2.png"
        assert "changed, and cannot be read" in caplog.text


def test_a_photo_that_is_gone_is_not_found(tmp_path):
    serving.collection(tmp_path, 2)
    gone = photo_id("a/1.png")
    with serving.client(tmp_path / "photos.db") as site:
        assert site.get(f"/api/photos/{gone}/thumbnail").status_code == 200
        (tmp_path / "photos" / "a" / "1.png").unlink()
        for kind in ("thumbnail", "image"):  # the first is in memory still
            answer = site.get(f"/api/photos/{gone}/{kind}")
            assert (answer.status_code, answer.json()["error"]) == (
                404,
                "this photo is no longer in its folder",
            )
        answer = site.post("/api/search", params={"photo": gone})
        assert (answer.status_code, answer.json()["error"]) == (404, "this photo is no longer in its folder")


def test_a_photo_that_changed_is_shown_as_it_is_now(tmp_path):
    serving.collection(tmp_path, 2)
    with serving.client(tmp_path / "photos.db") as site:
        place = f"/api/photos/{photo_id('a/1.png')}/thumbnail"
        before = site.get(place)
        photos.save(tmp_path / "photos" / "a" / "1.png", photos.plain())
        after = site.get(place, headers={"if-none-match": before.headers["etag"]})
        assert after.status_code == 200
        assert after.content != before.content
