"""A truth in terms of a collection: one meaning of all its forms, and names that are nowhere."""

import shutil
from dataclasses import replace

import pytest

from ames.datasets.photo_truth import read_truth
from ames.errors import AmesError
from ames.io.hashing import sha256
from ames.retrieval.photo_record import PhotoFile, PhotoRecord
from ames.retrieval.truth import Finder, find_questions
from helpers import photos

NAMES = ["a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png", "c.png"]


@pytest.fixture
def finder(tmp_path):
    for seed, name in enumerate(NAMES):
        photos.save(tmp_path / "root" / name, photos.scene(seed, size=(16, 16)))
    root = tmp_path / "root"
    held = {name: PhotoFile(1, 1, sha256(root / name)) for name in NAMES}
    held["a/bad.png"] = PhotoFile(1, 1, "0", problem="empty file")
    return Finder(NAMES, PhotoRecord(root, held))


def asked(truth, finder):
    return {q.own: q.answers for q in find_questions(read_truth(truth), finder).asked}


def write(path, text):
    path.write_text(text)
    return path


def test_all_forms_mean_the_same(finder, tmp_path):
    expected = {0: (1, 2), 1: (0, 2), 2: (0, 1), 3: (4,), 4: (3,)}
    root = tmp_path / "root"
    assert asked(root, finder) == expected
    rows = [(name, name[0]) for name in NAMES[:5]]
    text = "photo,object\n" + "".join(f"{name},{of}\n" for name, of in rows)
    assert asked(write(tmp_path / "names.csv", text), finder) == expected
    text = "photo,object\n" + "".join(f"{root / name},{of}\n" for name, of in rows)
    assert asked(write(tmp_path / "paths.csv", text), finder) == expected
    pairs = [(x, y) for x, of in rows for y, other in rows if of == other and x != y]
    text = "query,answer\n" + "".join(f"{x},{y}\n" for x, y in pairs)
    assert asked(write(tmp_path / "pairs.csv", text), finder) == expected
    shutil.copytree(root, tmp_path / "copy")  # known by contents
    assert asked(tmp_path / "copy", finder) == expected


def test_of_exact_copies_the_one_of_the_same_name_is_found(tmp_path):
    for name in ("a/1.png", "a/2.png"):
        photos.save(tmp_path / "root" / name, photos.scene(1))
    held = {x: PhotoFile(1, 1, sha256(tmp_path / "root" / x)) for x in ("a/1.png", "a/2.png")}
    finder = Finder(list(held), PhotoRecord(tmp_path / "root", held))
    shutil.copytree(tmp_path / "root", tmp_path / "copy")
    assert asked(tmp_path / "copy", finder) == {0: (1,), 1: (0,)}


def test_a_name_that_the_system_spells_otherwise_is_found(tmp_path):
    """macOS opens a file by either spelling of an accent; here there is a file of each."""
    listed, typed = "U\u0308ber.png", "\u00dcber.png"
    for name in (listed, typed, "other.png"):
        photos.save(tmp_path / "root" / name, photos.scene(1 + (name == "other.png")))
    held = {x: PhotoFile(1, 1, sha256(tmp_path / "root" / x)) for x in (listed, "other.png")}
    finder = Finder(list(held), PhotoRecord(tmp_path / "root", held))
    truth = write(tmp_path / "t.csv", f"photo,object\nroot/{typed},a\nother.png,a\n")
    found = find_questions(read_truth(truth), finder)
    assert [(q.own, q.answers) for q in found.asked] == [(0, (1,)), (1, (0,))]
    assert found.notes == []


def test_ground_truth_has_the_query_as_junk(finder, tmp_path):
    found = find_questions(read_truth(tmp_path / "root"), finder)
    truth = found.ground_truth()
    assert truth.imlist == NAMES
    assert [(q["ok"].tolist(), q["junk"].tolist()) for q in truth.queries[:2]] == [
        ([1, 2], [0]),
        ([0, 2], [1]),
    ]
    bad = found.ground_truth(frozenset([str(tmp_path / "root" / "a/1.png")]))
    assert bad.queries[0]["ok"].tolist() == []


def test_queries_from_elsewhere_are_answered_by_the_object_of_their_name(finder, tmp_path):
    photos.save(tmp_path / "queries" / "a" / "new.png", photos.scene(50))
    photos.save(tmp_path / "queries" / "nowhere" / "new.png", photos.scene(51))
    found = find_questions(read_truth(tmp_path / "queries"), finder)
    assert [(q.object, q.own, q.answers) for q in found.asked] == [
        ("a", None, (0, 1, 2)),
        ("nowhere", None, ()),
    ]
    assert found.notes == ["2 queries are not in the collection"]
    assert found.ground_truth().queries[0]["junk"].tolist() == []


def test_photos_that_the_collection_could_not_read_are_left_out(finder, tmp_path):
    text = "query,answer\na/1.png,a/2.png\na/1.png,a/bad.png\na/bad.png,a/1.png\n"
    found = find_questions(read_truth(write(tmp_path / "t.csv", text)), finder)
    assert [(q.name, q.answers) for q in found.asked] == [("a/1.png", (1,))]
    assert found.notes == [
        "1 photo is left out, not readable when the collection was made: a/bad.png: empty file"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "photo,object\na/1.png,x\nno.png,x\n",
            "line 3: 'no.png' is no photo of the collection, and no file",
        ),
        ("query,answer\na/1.png,../new.png\n", "line 2: the answer '../new.png' is not in the collection"),
        ("photo,object\na/1.png,x\n{root}/a/1.png,y\n", "are one photo; give it one name"),
        ("photo,object\na/bad.png,x\n", "none of its photos can be a query"),
    ],
)
def test_what_is_nowhere_is_refused(finder, tmp_path, text, message):
    photos.save(tmp_path / "new.png", photos.scene(50))
    (tmp_path / "lists").mkdir()
    path = write(tmp_path / "lists" / "t.csv", text.format(root=tmp_path / "root"))
    with pytest.raises(AmesError) as error:
        find_questions(read_truth(path), finder)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_a_query_without_an_answer_stays(finder, tmp_path):
    found = find_questions(
        read_truth(write(tmp_path / "t.csv", "query,answer\nc.png,\na/1.png,a/3.png\n")), finder
    )
    assert [(q.name, q.own, q.answers) for q in found.asked] == [("c.png", 5, ()), ("a/1.png", 0, (2,))]
    assert replace(found.asked[0], own=None).own is None
