"""Crashes: a process killed at any step of a change leaves the old database or the new one."""

import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from ames.database import build, writer
from ames.database.build import append, compress
from ames.database.index import open_codec
from ames.database.store import Database
from ames.database.writer import writing
from ames.errors import AmesError
from helpers.commands import ROOT
from helpers.databases import database, model, source, state
from helpers.dying import dies_at

SEGMENT = ((writer.SegmentWriter, "add"), (writer.SegmentWriter, "finish"))


def outcomes(tmp_path, action, after):
    """What a database holds after ``action`` died at each of its steps in turn, until it does not die."""
    seen = []
    for step in range(200):
        folder = tmp_path / f"step {step}"
        shutil.copytree(tmp_path / "db", folder)
        died = dies_at(step, lambda folder=folder: action(folder), *SEGMENT)
        db = Database(folder)
        db.verify()
        seen.append(state(db))
        after(folder)  # the next change works, and leaves nothing behind
        db = Database(folder)
        db.verify()
        files = {path.name for path in folder.iterdir()}
        assert files == db.manifest.files | {"manifest.json", "lock"}, files
        if not died:
            return seen
    raise AssertionError("200 steps and no end")


def test_append(tmp_path):
    db, _ = database(tmp_path)
    old = state(db)
    more, scorer = source(tmp_path, 5, seed=9, prefix="new"), model()
    batch = list(build.batches(more.checked(), range(5), scorer, 4, open_codec(db)[0]))

    def action(folder):
        with writing(folder) as changing:
            changing.append(batch)

    def after(folder):
        with writing(folder) as changing:
            changing.delete(["image 0.jpg"])
            changing.compact()

    seen = outcomes(tmp_path, action, after)
    new = seen[-1]
    assert len(new) == 25
    assert all(found in (old, new) for found in seen)
    assert seen.count(old) > 2
    assert seen.count(new) > 1


def test_delete_and_compact(tmp_path):
    db, _ = database(tmp_path)
    old = state(db)
    with writing(tmp_path / "db") as changing:
        changing.delete(["image 1.jpg"])
    less = state(Database(tmp_path / "db"))

    def action(folder):
        with writing(folder) as changing:
            changing.delete(["image 5.jpg", "image 6.jpg"])
            changing.compact()

    def after(folder):
        with writing(folder) as changing:
            changing.delete(["image 0.jpg"])

    seen = outcomes(tmp_path, action, after)
    least = {k: v for k, v in less.items() if k not in ("image 5.jpg", "image 6.jpg")}
    assert all(found in (less, least) for found in seen)
    assert seen[0] == less
    assert seen[-1] == least
    assert old != less


def test_a_build_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SEGMENT_ROWS", 6)
    monkeypatch.setattr(build, "_BATCH_SLOTS", 8)
    made, scorer = source(tmp_path), model()
    whole = state(compress(made, scorer, tmp_path / "whole", desc_num=4))
    resumed = 0
    for step in range(200):
        out = tmp_path / f"step {step}"

        def action(out=out):
            compress(made, scorer, out, desc_num=4)

        died = dies_at(step, action, *SEGMENT)
        if died and (out / "manifest.json").exists():
            with_rows = sum(Database(out, allow_partial=True).manifest.rows)
            resumed += with_rows > 0
            if Database(out, allow_partial=True).manifest.building is not None:
                with pytest.raises(AmesError, match="its building was interrupted: call the same"):
                    Database(out)
                action()
        elif died:
            action()
        db = Database(out)
        db.verify()
        assert state(db) == whole
        files = {path.name for path in out.iterdir()}
        assert files == db.manifest.files | {"manifest.json", "lock"}
        if not died:
            break
    assert resumed > 5


def test_a_build_goes_on_only_as_it_began(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SEGMENT_ROWS", 6)
    made = source(tmp_path)
    out = tmp_path / "db"
    assert dies_at(12, lambda: compress(made, model(), out, desc_num=4), *SEGMENT)
    with pytest.raises(
        AmesError, match=r"unfinished database that was made with other settings \(slots differs\)"
    ):
        compress(made, model(), out, desc_num=3)
    with pytest.raises(AmesError, match=r"\(projection differs\)"):
        compress(made, model(seed=1), out, desc_num=4)
    other = source(tmp_path / "other", seed=4)
    with pytest.raises(AmesError, match=r"\(source differs\)"):
        compress(other, model(), out, desc_num=4)
    compress(made, model(), out, desc_num=4).verify()


def test_two_writers_are_kept_apart_and_readers_are_not(tmp_path):
    db, _ = database(tmp_path)
    folder = tmp_path / "db"
    code = (
        "import sys, time; from ames.database.writer import writing\n"
        "with writing(sys.argv[1]): print('in', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    with pytest.raises(AmesError, match="another process is changing this database"), writing(folder):
        pass
    assert state(Database(folder)) == state(db)
    process.kill()  # the lock goes with the process
    process.wait()
    with writing(folder) as changing:
        changing.delete(["image 0.jpg"])


def full_disk(path):
    """A file system of 64 kB, where one may be mounted."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")


def test_a_full_disk_while_building_and_appending(tmp_path):
    full_disk(tmp_path / "small")
    try:
        many = source(tmp_path, 2000)
        with pytest.raises(AmesError, match="cannot be written"):
            compress(many, model(), tmp_path / "small" / "db", desc_num=6)
        shutil.rmtree(tmp_path / "small" / "db")
        few = source(tmp_path / "few", 20)
        db = compress(few, model(), tmp_path / "small" / "db", desc_num=6)
        old = state(db)
        with pytest.raises(AmesError, match=r"cannot be written .*; the database is as it was"):
            append(source(tmp_path, 2000, prefix="new"), model(), tmp_path / "small" / "db")
        assert state(Database(tmp_path / "small" / "db")) == old
        append(source(tmp_path, 5, prefix="new"), model(), tmp_path / "small" / "db")
        Database(tmp_path / "small" / "db").verify()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "small")], check=True)


def test_files_that_may_not_grow(tmp_path):
    """The same by a limit on the size of files, which needs no rights."""
    database(tmp_path)
    old = state(Database(tmp_path / "db"))
    more = source(tmp_path, 2000, prefix="new")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(AmesError, match=r"cannot be written .*; the database is as it was"):
            append(more, model(), tmp_path / "db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert state(Database(tmp_path / "db")) == old
    assert not [p for p in (tmp_path / "db").iterdir() if p.name.endswith(".part")]


@pytest.mark.slow
def test_a_process_killed_at_random_times(tmp_path):
    """Real processes, real kills: build until it is whole, then append and compact."""
    made = source(tmp_path, 4000, seed=2)
    more = source(tmp_path, 1000, seed=3, prefix="new")
    folder, rng = tmp_path / "db", np.random.default_rng(0)
    script = ROOT / "tests" / "helpers" / "killed_database.py"

    def run(what, kill):
        process = subprocess.Popen([sys.executable, str(script), what, str(tmp_path)])
        if kill:
            time.sleep(rng.uniform(1.0, 6.0))
            process.kill()
        return process.wait() == 0

    while not any(run("build", kill=True) for _ in range(6)):
        run("build", kill=False)
        break
    assert len(Database(folder)) == len(made.local)
    whole = state(Database(folder))
    for _ in range(6):
        done = run("append", kill=True)
        db = Database(folder)
        db.verify()
        assert len(db) in (4000, 5000)
        if done or len(db) == 5000:
            break
    if len(Database(folder)) == 4000:
        assert run("append", kill=False)
    whole |= {k: v for k, v in state(Database(folder)).items() if k.startswith("new")}
    assert len(whole) == len(made.local) + len(more.local)
    for _ in range(4):
        run("compact", kill=True)
        db = Database(folder)
        db.verify()
        assert state(db) == whole
