"""What ``ames search`` says: JSON that every reader takes, and why there is nothing to show."""

import json
import math
from pathlib import Path

import pytest

from ames.cli.main import main
from ames.errors import AmesError
from ames.pipelines.duplicates import find_duplicates
from ames.pipelines.search import Answer, search_photos, write_page
from ames.reranking.reranker import Hit
from ames.retrieval.indexing import index_photos
from ames.retrieval.retriever import Retriever
from helpers import photos

MODEL = "rootsift_ames_dist"


@pytest.fixture
def collection(tmp_path):
    for seed in range(2):
        photos.save(tmp_path / "photos" / f"{seed}.jpg", photos.scene(seed))
    index_photos(tmp_path / "photos", tmp_path / "db", MODEL)
    return tmp_path


def test_scores_that_are_no_numbers_are_null():
    """Of a list-wise model in windows, and of candidates that a budget of time left out."""
    hit = Hit(id=3, score=math.nan, local=-math.inf, global_=0.5, name="a.jpg")
    content = Answer(Path("q.jpg"), [hit], [None]).as_dict()
    row = json.loads(json.dumps(content, allow_nan=False))["hits"][0]
    assert (row["score"], row["local"], row["global"]) == (None, None, 0.5)


def test_an_answer_without_hits_says_whose_fault_it_is(collection):
    root, db = collection / "photos", collection / "db"
    photos.save(collection / "plain.png", photos.plain())
    (plain,) = search_photos(db, collection / "plain.png")
    assert plain.text().endswith("plain.png: nothing found: the photo has no features")
    for seed in range(2):
        photos.save(root / f"{seed}.jpg", photos.plain())
    index_photos(root, db)
    photos.save(collection / "query.jpg", photos.scene(0))
    (answer,) = search_photos(db, collection / "query.jpg")
    assert answer.as_dict()["problem"] == "no photo of the collection has features"
    for seed in range(2):
        (root / f"{seed}.jpg").write_bytes(b"no image")
    index_photos(root, db)
    (answer,) = search_photos(db, collection / "query.jpg")
    assert answer.nothing == "the collection holds no photo"


def test_a_query_of_several_that_cannot_be_read_is_named_once(collection):
    queries = collection / "queries"
    photos.save(queries / "0.jpg", photos.scene(0))
    (queries / "bad.jpg").write_bytes(b"")
    good, bad = search_photos(collection / "db", queries, k=50)
    assert [hit.name for hit in good.hits] == ["0.jpg", "1.jpg"]  # more than 50 there are not
    assert bad.text() == f"{queries / 'bad.jpg'}: empty file"
    (queries / "0.jpg").unlink()
    with pytest.raises(
        AmesError, match=r"none of its photos can be searched with \(first: bad.jpg: empty file\)"
    ):
        search_photos(collection / "db", queries)


def test_names_do_not_steer_the_terminal(collection, capsys):
    root, db = collection / "photos", collection / "db"
    (root / "0.jpg").rename(root / "0\x1b[31m.jpg")
    (root / "bad\x1b]0;x\x07.jpg").write_bytes(b"")
    assert main(["index", str(root), "-o", str(db), "--workers", "0"]) == 0
    assert main(["search", str(db), str(root / "1.jpg")]) == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert r"0\x1b[31m.jpg" in said.out
    assert r"bad\x1b]0;x\x07.jpg': empty file" in said.err


def test_a_page_and_json_are_both_made(collection, capsys):
    page = collection / "page.html"
    words = [
        "search",
        str(collection / "db"),
        str(collection / "photos" / "1.jpg"),
        "-o",
        str(page),
        "--json",
    ]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)[0]["hits"][0]["name"] == "1.jpg"
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_pages_of_a_collection_of_listed_files_show_them(collection, monkeypatch):
    monkeypatch.chdir(collection)
    photos.save(collection / "photos" / "2.png", photos.scene(0, view=1))
    Retriever.build("built", sorted((collection / "photos").iterdir()), MODEL)
    answers = search_photos("built", "photos/0.jpg")
    assert write_page(answers, "page.html", title="T").read_text().count("data:image/jpeg") == 3
    found = find_duplicates("built", threshold=0.2)
    assert {"0.jpg", "2.png"} <= {Path(name).name for name in found.groups[0].names}
    assert "data:image/jpeg" in found.write_page("groups.html", title="T").read_text()
