"""A folder of photos and its collection: what a second call changes, and what a kill leaves."""

import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from ames.database.store import Database
from ames.database.writer import writing
from ames.datasets import images
from ames.descriptors.provenance import Provenance
from ames.errors import AmesError
from ames.extraction.pipeline import run
from ames.models.checkpoints import save_weights
from ames.models.load import load
from ames.retrieval import collection, indexing, photo_record
from ames.retrieval.changes import Changes
from ames.retrieval.indexing import PENDING, index_photos
from ames.retrieval.photo_record import PhotoRecord, scan
from ames.retrieval.retriever import Retriever
from helpers import photos
from helpers.commands import ROOT
from helpers.dying import dies_at

MODEL = "rootsift_ames_dist"


@pytest.fixture
def folder(tmp_path):
    """Five scenes, one in a sub-folder, and a file that is no image."""
    for seed in range(4):
        photos.save(tmp_path / "photos" / f"{seed}.jpg", photos.scene(seed))
    photos.save(tmp_path / "photos" / "sub" / "4.jpg", photos.scene(4))
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no image")
    return tmp_path


def change(root):
    """One photo goes, one changes, one comes, and the file that was no image becomes one."""
    (root / "0.jpg").unlink()
    photos.save(root / "1.jpg", photos.scene(11))
    photos.save(root / "5.jpg", photos.scene(5))
    photos.save(root / "bad.jpg", photos.scene(12))


def rows(db):
    """What a database holds of each name."""
    database = Database(db)
    table = database.rows_as_stored(np.arange(len(database)))
    return {name: row.tobytes() for name, row in zip(database.names, table, strict=True)}


def as_new(root, tmp_path):
    """What a collection of the photos as they are now holds."""
    shutil.rmtree(tmp_path / "new", ignore_errors=True)
    index_photos(root, tmp_path / "new", MODEL)
    return rows(tmp_path / "new")


def test_a_second_call_adds_drops_and_updates(folder):
    root, db = folder / "photos", folder / "db"
    first = index_photos(root, db, MODEL)
    assert (first.added, first.unchanged) == (5, 0)
    assert first.unreadable == {"bad.jpg": "not an image that OpenCV can decode"}
    change(root)
    second = index_photos(root, db)
    assert second == Changes(added=2, updated=1, deleted=1, unchanged=3)
    assert second.summary() == "2 added, 1 updated, 1 deleted, 3 unchanged"
    assert rows(db) == as_new(root, folder)
    assert index_photos(root, db) == Changes(unchanged=6)
    assert sorted(path.name for path in folder.iterdir()) == ["db", "new", "photos"]


def test_an_unchanged_photo_is_neither_read_nor_extracted_again(folder, monkeypatch):
    root, db = folder / "photos", folder / "db"
    settled = time.time() - 100
    for path in root.rglob("*.jpg"):
        os.utime(path, (settled, settled))
    index_photos(root, db, MODEL)
    read, extracted = [], []
    monkeypatch.setattr(photo_record, "sha256", lambda path: read.append(path.name) or "other")
    monkeypatch.setattr(indexing, "extract_source", lambda images, *_: extracted.extend(images.names))
    index_photos(root, db)
    assert read == extracted == []


def test_what_an_addition_costs_does_not_grow_with_the_collection(folder, monkeypatch):
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    photos.save(root / "5.jpg", photos.scene(5))

    def read_all(*_):
        raise AssertionError("codes of all images are read")

    monkeypatch.setattr(Database, "global_codes", read_all)
    assert index_photos(root, db).added == 1


def test_a_photo_of_the_same_size_and_time_counts_as_unchanged_unless_all_are_read(folder):
    root, db = folder / "photos", folder / "db"
    for seed in (0, 1):  # no compression: the same size
        photos.save(root / f"{seed}.bmp", photos.scene(seed))
    settled = time.time() - 100
    os.utime(root / "0.bmp", (settled, settled))
    index_photos(root, db, MODEL)
    shutil.copyfile(root / "1.bmp", root / "0.bmp")
    os.utime(root / "0.bmp", (settled, settled))
    assert index_photos(root, db).updated == 0
    assert index_photos(root, db, rehash=True).updated == 1
    assert rows(db)["0.bmp"] == rows(db)["1.bmp"]


def test_a_photo_that_changed_just_before_is_read_again(folder):
    """A second change in the same tick of a file system's clock would not show."""
    path = folder / "photos" / "0.jpg"
    now = time.time()
    os.utime(path, (now, now))
    assert scan(folder / "photos", {}).photos["0.jpg"].changed == -1
    os.utime(path, (now - 100, now - 100))
    assert scan(folder / "photos", {}).photos["0.jpg"].changed == path.stat().st_mtime_ns


def test_a_search_gives_the_files_of_its_hits(folder):
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    index = Retriever.open(db)
    hit = index.search(photos.scene(4, view=1)[..., ::-1], k=1)[0]
    assert index.photo(hit.name) == root / "sub" / "4.jpg"
    with pytest.raises(AmesError, match=r"db: holds no photo '\.\./x'"):
        index.photo("../x")
    part = index.search(root / "sub" / "4.jpg", k=1, box=(0, 0, 90, 96))[0]
    assert part.name == "sub/4.jpg"
    assert part.global_ < index.search(root / "sub" / "4.jpg", k=1)[0].global_
    with pytest.raises(AmesError, match="its box 200, 0, 300, 96 shows nothing of 128 x 96 pixels"):
        index.search(root / "0.jpg", box=(200, 0, 300, 96))
    for box in ((1, 2, 3), "all", 5, ("a", 0, 1, 1)):
        with pytest.raises(AmesError, match="give four numbers, x1, y1, x2, y2 in pixels"):
            index.search(root / "0.jpg", box=box)


def test_a_new_photo_that_cannot_be_read_is_named_and_left_out(folder):
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    (root / "worse.jpg").write_bytes(b"no image either")
    (root / "plain.png").write_bytes(b"")
    photos.save(root / "plain.png", photos.plain())
    found = index_photos(root, db)
    assert sorted(found.unreadable) == ["bad.jpg", "worse.jpg"]
    assert found.without_features == ["plain.png"]
    assert "worse.jpg" not in Database(db).names
    assert index_photos(root, db).unchanged == 6


def test_a_folder_that_moved_takes_its_collection_along(folder, caplog):
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    moved = root.rename(folder / "moved")
    assert index_photos(moved, db) == Changes(
        unchanged=5, unreadable={"bad.jpg": "not an image that OpenCV can decode"}
    )
    assert "the photos were in" in caplog.text
    assert Retriever.open(db).photo("0.jpg") == moved / "0.jpg"
    photos.save(folder / "others" / "0.jpg", photos.scene(9))
    with pytest.raises(AmesError, match=r"db: holds the photos of .*moved; give a new folder"):
        index_photos(folder / "others", db)


def test_other_options_and_other_collections_are_refused(folder):
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL, desc_num=30)
    assert index_photos(root, db, MODEL, desc_num=30, factory="SQfp16").unchanged == 5
    for options, what in (
        ({"model": "rootsift_ames"}, "another model"),
        ({"desc_num": 20}, "another desc_num"),
        ({"max_pixels": 10**6}, "other extraction options"),
        ({"factory": "SQ4"}, "factory SQfp16"),
    ):
        with pytest.raises(AmesError, match=f"built with {what}"):
            index_photos(root, db, **options)
    Retriever.build(folder / "built", root, MODEL)
    with pytest.raises(AmesError, match=r"made by Retriever\.build, which records no contents"):
        index_photos(root, folder / "built")
    with pytest.raises(
        AmesError, match=r"db: made by ames index, which updates it too; Retriever\.open opens it"
    ):
        Retriever.build(db, root, MODEL, desc_num=30)
    (folder / "empty").mkdir()
    with pytest.raises(AmesError, match="no images in it or below"):
        index_photos(folder / "empty", folder / "other")
    with pytest.raises(AmesError, match="none: no such folder of photos"):
        index_photos(folder / "none", folder / "other")
    shutil.rmtree(root)
    root.mkdir()
    with pytest.raises(AmesError, match="no images in it or below"):  # a drive that is not there
        index_photos(root, db)
    assert len(Database(db)) == 5


def test_photos_described_by_other_weights_are_not_mixed(folder, monkeypatch):
    """An earlier version's collection, whose global vectors are of another VLAD."""
    root, db = folder / "photos", folder / "db"
    with monkeypatch.context() as earlier:
        earlier.setattr("ames.backbones.vlad.Vlad.fingerprint", lambda _: "before")
        index_photos(root, db, MODEL)
    assert index_photos(root, db).unchanged == 5  # nothing is extracted
    index = Retriever.open(db)
    photos.save(root / "5.jpg", photos.scene(5))
    for change in (
        lambda: index.search(root / "0.jpg"),
        lambda: index_photos(root, db),
    ):
        with pytest.raises(AmesError, match=r'other features \(vlad: there "before", now "\w{12}"\)'):
            change()
    assert len(Database(db)) == 5


def test_photos_of_another_folder_do_not_replace_those_of_one_that_is_not_there(folder):
    """A drive that is not mounted is no folder that moved."""
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    root.rename(folder / "away")
    photos.save(folder / "others" / "6.jpg", photos.scene(6))
    photos.save(folder / "others" / "0.jpg", photos.scene(0, size=(60, 50)))  # of a name, with other contents
    with pytest.raises(AmesError, match=r"photos, which is not there now, and none of them is in .*others;"):
        index_photos(folder / "others", db)
    assert len(Database(db)) == 5
    assert index_photos(folder / "away", db).unchanged == 5


def test_a_collection_of_a_checkpoint_is_updated_without_its_options(folder, monkeypatch):
    root, db = folder / "photos", folder / "db"
    found = load(MODEL)
    about = {"blend": dict(found.about["blend"])}
    save_weights(folder / "own.safetensors", found.model, provenance=about)
    monkeypatch.chdir(folder)
    index_photos("photos", "db", "own.safetensors", backbone="rootsift", desc_num=30)
    photos.save(root / "5.jpg", photos.scene(5))
    monkeypatch.chdir("/")
    assert index_photos(root, db).summary() == "1 added, 5 unchanged, 1 unreadable"
    assert index_photos(root, db, folder / "own.safetensors").unchanged == 6
    with pytest.raises(AmesError, match="built with other extraction options"):
        index_photos(root, db, backbone="aliked")


def test_more_descriptors_than_there_are_is_said_before_any_photo_is_read(folder):
    root, db = folder / "photos", folder / "db"
    for make in (
        index_photos,
        lambda photos, folder, model, **more: Retriever.build(folder, photos, model, **more),
    ):
        with pytest.raises(AmesError, match="desc_num 401: rootsift gives 400 descriptors per photo at most"):
            make(root, db, MODEL, desc_num=401)
    assert [path.name for path in folder.iterdir()] == ["photos"]


def test_a_collection_among_its_photos_is_none_of_them(folder):
    root = folder / "photos"
    db = root / "own" / "photos.db"
    for call in range(2):
        assert index_photos(root, db, MODEL).notes == [], call
    other = index_photos(root, root / "other.db", MODEL)
    assert "own/photos.db/manifest.json" in other.notes[0]  # not its own
    assert "other.db" not in other.notes[0]
    built = Retriever.build(root / "built.db", folder / "photos", MODEL)
    assert "0.jpg" in built.database.names


def test_photos_in_a_folder_that_cannot_be_read_now_are_kept(folder, monkeypatch):
    """As if its drive failed for a moment: root may read all, so the system's answer is made."""
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    before, real = rows(db), os.scandir

    def refusing(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refusing)
        found = index_photos(root, db)
    assert (found.deleted, found.unchanged, rows(db)) == (0, 5, before)
    assert found.notes == [
        "1 folder was not looked into, a link or not readable: sub/",
        "1 photo is kept without a look, for a folder cannot be read now",
    ]
    (root / "sub").rename(folder / "elsewhere")
    (root / "sub").symlink_to(folder / "elsewhere")
    assert index_photos(root, db).deleted == 1  # links to folders are never followed


def test_a_photo_whose_folder_cannot_be_entered_is_named(folder, monkeypatch):
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    real = os.stat

    def refusing(path, **options):
        if str(path).endswith("4.jpg"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(photo_record.os, "stat", refusing)
        found = index_photos(root, db)
    assert (found.deleted, found.unreadable["sub/4.jpg"]) == (0, "Permission denied")
    assert index_photos(root, db).summary() == "1 added, 4 unchanged, 1 unreadable"


def test_weights_that_have_changed_are_noticed_before_any_photo_is_read(folder, monkeypatch):
    root, db = folder / "photos", folder / "db"
    found = load(MODEL)
    about = {"blend": dict(found.about["blend"])}
    save_weights(folder / "own.safetensors", found.model, provenance=about)
    index_photos(root, db, folder / "own.safetensors", backbone="rootsift")
    with torch.no_grad():
        next(found.model.remap_local.parameters()).neg_()
    save_weights(folder / "own.safetensors", found.model, provenance=about)
    photos.save(root / "5.jpg", photos.scene(5))
    monkeypatch.setattr(indexing, "scan", None)
    with pytest.raises(
        AmesError, match=r"made by another projection .* index the photos, again to a new folder"
    ):
        index_photos(root, db)


def test_a_photo_that_a_new_library_can_read_is_added(folder, monkeypatch):
    """As HEIC is, after pillow-heif was installed: the file is the same."""
    root, db = folder / "photos", folder / "db"
    hidden, real = (root / "0.jpg").read_bytes(), images._pixels

    def unable(data):
        if data == hidden:
            raise images.UnreadableImage("needs a library")
        return real(data)

    with monkeypatch.context() as patched:
        patched.setattr(images, "_pixels", unable)
        assert index_photos(root, db, MODEL).unreadable["0.jpg"] == "needs a library"
        assert index_photos(root, db).summary() == "4 unchanged, 2 unreadable"
    assert index_photos(root, db).summary() == "4 unchanged, 2 unreadable"  # nothing was installed
    monkeypatch.setattr(indexing, "decoders", lambda: "a library")
    assert index_photos(root, db).summary() == "1 added, 4 unchanged, 1 unreadable"
    assert rows(db) == as_new(root, folder)
    with monkeypatch.context() as patched:
        patched.setattr(indexing, "read_image", None)  # bad.jpg was tried
        assert index_photos(root, db).summary() == "5 unchanged, 1 unreadable"


def test_a_photo_that_could_not_be_read_for_a_moment_is_tried_again(folder, monkeypatch):
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    photos.save(root / "new.jpg", photos.scene(9))
    photos.save(root / "newer.jpg", photos.scene(10))
    held, real = (root / "new.jpg").read_bytes(), images._pixels
    with monkeypatch.context() as patched:
        calls = []

        def busy(data):
            if data == held and not calls:
                calls.append(data)
                raise images.UnreadableImage("a drive that was busy")
            return real(data)

        patched.setattr(images, "_pixels", busy)
        found = index_photos(root, db)
    assert (found.added, found.unreadable["new.jpg"]) == (1, "a drive that was busy")
    assert index_photos(root, db).summary() == "1 added, 6 unchanged, 1 unreadable"
    assert rows(db) == as_new(root, folder)


@pytest.mark.parametrize("meanwhile", ["half of it", "another photo"])
def test_a_photo_that_has_other_contents_while_it_is_extracted_is_extracted_again(
    folder, monkeypatch, meanwhile
):
    """A copy that begins anew: before and after, its contents are those that were noted."""
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    photos.save(root / "new.jpg", photos.scene(9))
    whole, real = (root / "new.jpg").read_bytes(), indexing.extract_source
    other = whole[: len(whole) // 2] if meanwhile == "half of it" else (root / "1.jpg").read_bytes()

    def while_it_is_written(*words):
        (root / "new.jpg").write_bytes(other)
        try:
            return real(*words)
        finally:
            time.sleep(0.02)  # a tick of the file system's clock
            (root / "new.jpg").write_bytes(whole)

    with monkeypatch.context() as patched:
        patched.setattr(indexing, "extract_source", while_it_is_written)
        index_photos(root, db)
    index_photos(root, db)
    assert rows(db) == as_new(root, folder)
    assert index_photos(root, db).summary() == "6 unchanged, 1 unreadable"


def test_damaged_records_are_refused(folder):
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    for content in (b"{", b"[]", b'{"format": "ames photos", "version": 1, "root": 3}', b"\xff"):
        (db / photo_record.NAME).write_bytes(content)
        with pytest.raises(AmesError, match=r"photos.json: damaged"):
            index_photos(root, db)
    for name in (photo_record.NAME, collection.NAME):  # no permission is no damage
        kept = (db / name).read_bytes()
        (db / name).unlink()
        (db / name).mkdir()
        with pytest.raises(AmesError, match=rf"{name}: cannot be read \(Is a directory\)"):
            index_photos(root, db)
        (db / name).rmdir()
        (db / name).write_bytes(kept)
    (db / photo_record.NAME).write_bytes(b'{"format": "ames photos", "version": 2}')
    with pytest.raises(AmesError, match=r"photos.json: of another version"):
        index_photos(root, db)


@pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["build", "update"])
def test_a_kill_at_any_change_of_the_disk_loses_nothing(folder, what, stride):
    root, db, kept = folder / "photos", folder / "db", folder / "kept"
    if what == "update":
        index_photos(root, db, MODEL)
        shutil.copytree(db, kept)
        change(root)
    wanted, step = as_new(root, folder), 0
    while True:
        for path in (db, db.with_name("db.building")):
            shutil.rmtree(path, ignore_errors=True)
        if what == "update":
            shutil.copytree(kept, db)
        died = dies_at(step, lambda: index_photos(root, db, MODEL))
        if what == "update":
            assert len(Database(db)) >= 3  # it can be searched at any time
        index_photos(root, db, MODEL)
        assert rows(db) == wanted, step
        assert not db.with_name("db.building").exists()
        if not died:
            break
        step += stride
    assert step > 20


def test_photos_that_change_after_a_kill_are_seen(folder, monkeypatch):
    """What was noted before is finished first, and then compared with the folder."""
    root, db = folder / "photos", folder / "db"

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ames.retrieval.photos.compress", stop)
        with pytest.raises(KeyboardInterrupt):
            index_photos(root, db, MODEL)
    assert len(PhotoRecord.load(db.with_name("db.building") / PENDING).photos) == 6
    change(root)
    extracted = []
    real = run

    def counted(images, *more, **options):
        done = real(images, *more, **options)
        extracted.append(0 if done.already else len(images.names))
        return done

    monkeypatch.setattr("ames.retrieval.photos.run", counted)
    index_photos(root, db, MODEL)
    assert rows(db) == as_new(root, folder)
    assert extracted[:2] == [0, 3]  # what was extracted before is not again


def test_what_another_version_left_unfinished_is_not_taken(folder, monkeypatch):
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    photos.save(root / "5.jpg", photos.scene(5))
    with monkeypatch.context() as patched:
        patched.setattr(indexing, "append", lambda *_, **__: exec("raise KeyboardInterrupt"))
        patched.setattr("ames.extraction.base.Provenance.to_dict", lambda _: {"sampling": 9})
        patched.setattr(indexing, "check_features", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            index_photos(root, db)
    index_photos(root, db)
    assert rows(db) == as_new(root, folder)


def interrupted(monkeypatch, where, *words):
    """Call ``index_photos`` and end it in a step."""

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(where, stop)
        with pytest.raises(KeyboardInterrupt):
            index_photos(*words)


@pytest.mark.parametrize("what", ["build", "update"])
def test_photos_that_were_noted_and_are_all_gone_do_not_stop_the_next_call(folder, monkeypatch, what):
    root, db = folder / "photos", folder / "db"
    if what == "update":
        index_photos(root, db, MODEL)
        photos.save(root / "new.jpg", photos.scene(9))
        interrupted(monkeypatch, "ames.retrieval.indexing.extract_source", root, db)
        (root / "new.jpg").unlink()
        assert index_photos(root, db).summary() == "5 unchanged, 1 unreadable"
    else:
        interrupted(monkeypatch, "ames.retrieval.indexing.make_database", root, db, MODEL)
        for path in list(root.rglob("*.jpg")):
            path.rename(path.with_name(f"n{path.name}"))
        assert index_photos(root, db, MODEL).summary() == "5 added, 1 unreadable"
    assert rows(db) == as_new(root, folder)
    assert not db.with_name("db.building").exists()


def test_a_new_photo_that_goes_while_it_is_indexed_is_named_and_forgotten(folder, monkeypatch):
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    photos.save(root / "new.jpg", photos.scene(9))
    real = indexing.extract_source

    def late(*words):
        (root / "new.jpg").unlink()
        return real(*words)

    with monkeypatch.context() as patched:
        patched.setattr(indexing, "extract_source", late)
        assert index_photos(root, db).unreadable["new.jpg"] == "No such file or directory"
    found = index_photos(root, db)
    assert sorted(found.unreadable) == ["bad.jpg"]
    assert found.deleted == 0  # it was never there


def test_what_could_not_be_read_and_goes_is_no_deleted_photo(folder):
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    (root / "bad.jpg").unlink()
    assert index_photos(root, db) == Changes(unchanged=5)


def test_a_folder_of_broken_files_leaves_nothing_and_is_indexed_when_they_are_mended(tmp_path):
    root, db = tmp_path / "photos", tmp_path / "db"
    names = photos.broken(root)
    with pytest.raises(
        AmesError, match=r"photos: none of the 4 images can be read \(first: cut.jpg: cut off"
    ):
        index_photos(root, db, MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    for seed, name in enumerate(names):
        photos.save(root / name, photos.scene(seed))
    assert index_photos(root, db, MODEL) == Changes(added=4)


def test_a_collection_that_follows_a_folder_is_not_changed_by_name(folder):
    """The next call would take the change back without a word."""
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    photos.save(folder / "more" / "6.jpg", photos.scene(6))
    index = Retriever.open(db)
    for call in (lambda: index.add(folder / "more"), lambda: index.delete("0.jpg")):
        with pytest.raises(AmesError, match=r"db: follows the photos in .*photos: change them there"):
            call()
    with writing(db) as writer:  # nobody else knows
        writer.delete(["0.jpg"])
        writer.append([])
    assert index_photos(root, db).summary() == "1 updated, 4 unchanged, 1 unreadable"
    assert rows(db) == as_new(root, folder)


def test_an_update_that_was_interrupted_counts_what_it_drops(folder, monkeypatch):
    root, db = folder / "photos", folder / "db"
    index_photos(root, db, MODEL)
    (root / "0.jpg").unlink()
    interrupted(monkeypatch, "ames.retrieval.indexing.writing", root, db)
    assert "0.jpg" in Database(db).names
    assert index_photos(root, db).deleted == 1
    assert "0.jpg" not in Database(db).names


def test_another_version_of_the_library_does_not_stop_a_call_that_resumes(folder, monkeypatch):
    """What was extracted by the other version is not taken, and goes."""
    root, db = folder / "photos", folder / "db"
    real = Provenance.to_dict
    with monkeypatch.context() as patched:
        patched.setattr(Provenance, "to_dict", lambda self: real(self) | {"opencv": "0.1"})
        interrupted(patched, "ames.retrieval.photos.compress", root, db, MODEL)
    assert list(db.with_name("db.building").glob("*.hdf5"))
    assert index_photos(root, db, MODEL).added == 5
    assert rows(db) == as_new(root, folder)
    assert not db.with_name("db.building").exists()


@pytest.mark.slow
def test_a_process_killed_at_random_times(tmp_path):
    root, db = tmp_path / "photos", tmp_path / "db"
    draw = random.Random(0)
    for seed in range(40):
        photos.save(root / f"{seed}.jpg", photos.scene(seed))
    script = ROOT / "tests" / "helpers" / "killed_indexing.py"
    began = time.monotonic()
    subprocess.run([sys.executable, str(script), str(root), str(db)], check=True)
    whole, died = time.monotonic() - began, 0
    for number in range(200):
        if number % 10 == 0:
            shutil.rmtree(db, ignore_errors=True)
        names = sorted(path.name for path in root.iterdir())
        (root / draw.choice(names)).unlink()
        photos.save(root / draw.choice(names), photos.scene(1000 + number))
        process = subprocess.Popen([sys.executable, str(script), str(root), str(db)])
        try:
            process.wait(draw.random() * 1.1 * whole)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            died += 1
        if number % 10 == 9:
            index_photos(root, db, MODEL)
            assert rows(db) == as_new(root, tmp_path)
    assert died > 50
