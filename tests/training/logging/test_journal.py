"""The journal of a training: whole lines, and after an interruption those of a training without one."""

import json
import math

import numpy as np
import pytest

from ames.errors import AmesError
from ames.training.logging.journal import Journal, journal_path, read_journal


def step(number, **figures):
    return {"kind": "step", "step": number, "epoch": 1 + (number - 1) // 4, "loss": 1 / number} | figures


def epoch(number, **figures):
    return {"kind": "epoch", "step": 4 * number, "epoch": number, "val_map": 50.0 + number} | figures


def train(path, begun, until):
    """Writes what a training of four steps an epoch would, from behind step ``begun``."""
    journal = Journal(path)
    journal.begin(begun)
    for number in range(begun + 1, until + 1):
        journal.write(step(number))
        if number % 4 == 0:
            journal.write(epoch(number // 4))
    journal.close()


def test_records_come_back(tmp_path):
    path = tmp_path / "new" / "model-journal.jsonl"
    journal = Journal(path)
    journal.begin(0)
    journal.write(step(1, loss=np.float32(0.5), pairs=np.int64(7), note=None))
    assert read_journal(path) == [step(1, loss=0.5, pairs=7, note=None)]  # before it is closed
    journal.write(epoch(1, lambdas=(0.5, np.float64(0.25))))
    journal.close()
    journal.close()
    assert read_journal(path)[1] == epoch(1, lambdas=[0.5, 0.25])
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_is_not_finite_is_null(tmp_path, value):
    journal = Journal(tmp_path / "j.jsonl")
    journal.begin(0)
    journal.write(step(1, loss=value, several=[value, 1]))
    journal.close()
    text = (tmp_path / "j.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text) == step(1, loss=None, several=[None, 1])


@pytest.mark.parametrize("kept", [1, 3, 4, 6, 8])
def test_a_resumed_training_leaves_the_journal_of_a_whole_one(tmp_path, kept):
    train(tmp_path / "whole.jsonl", 0, 10)
    path = tmp_path / "resumed.jsonl"
    train(path, 0, 8)
    with open(path, "ab") as file:
        file.write(b'{"kind": "step", "st')  # where the power went
    train(path, kept, 10)
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_killed_between_an_epoch_s_record_and_its_state(tmp_path):
    train(tmp_path / "j.jsonl", 0, 4)
    journal = Journal(tmp_path / "j.jsonl")
    journal.begin(4)  # the state of step 4 does not know that its epoch was measured
    journal.write(epoch(1, val_map=0.0))
    journal.write(step(5))
    journal.close()
    assert read_journal(journal.path) == [*map(step, range(1, 5)), epoch(1), step(5)]


def test_killed_before_an_epoch_s_record(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    journal.begin(0)
    journal.write(step(4))
    journal.begin(4)
    journal.write(epoch(1))
    journal.close()
    assert read_journal(journal.path) == [step(4), epoch(1)]


def test_a_new_training_begins_anew(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_text("of another kind\n")
    train(path, 0, 2)
    assert read_journal(path) == [step(1), step(2)]
    assert [x.name for x in tmp_path.iterdir()] == ["j.jsonl"]
    train(tmp_path / "late.jsonl", 6, 7)  # its first part was removed
    assert read_journal(tmp_path / "late.jsonl") == [step(7)]


@pytest.mark.parametrize("tail", [b'{"kind": "st', b'{"kind": "step", "loss": 1}', b"\0\0\0", b'{"a\0\0'])
def test_a_torn_last_line_is_left_out(tmp_path, tail):
    train(tmp_path / "j.jsonl", 0, 2)
    with open(tmp_path / "j.jsonl", "ab") as file:
        file.write(tail)
    assert read_journal(tmp_path / "j.jsonl") == [step(1), step(2)]


def test_a_last_line_that_lacks_its_end_alone_counts(tmp_path):
    path = tmp_path / "j.jsonl"
    train(path, 0, 2)
    path.write_bytes(path.read_bytes()[:-1])
    assert read_journal(path) == [step(1), step(2)]
    train(path, 2, 3)
    assert read_journal(path) == [step(1), step(2), step(3)]


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"",
        b"\xff\xfe",
        b'{"kind": "st',
        b"[1]",
        b'"step"',
        b"{}",
        b'{"kind": "hour", "step": 1}',
        b'{"kind": ["step"], "step": 1}',
        b'{"kind": "step"}',
        b'{"kind": "step", "step": 1.5}',
        b'{"kind": "step", "step": true}',
        b'{"kind": "step", "step": -1}',
        b'{"kind": "epoch", "step": 4}',
    ],
)
def test_garbage_is_named(tmp_path, line):
    path = tmp_path / "j.jsonl"
    train(path, 0, 2)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], line, *lines[1:]]))
    before = path.read_bytes()
    for act in (read_journal, lambda path: Journal(path).begin(1)):
        with pytest.raises(AmesError, match=r"j\.jsonl, line 2: no record of a training; remove that line"):
            act(path)
    assert path.read_bytes() == before


def test_files_that_are_no_journal(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\x1a")
    with pytest.raises(AmesError, match="line 1: no record"):
        read_journal(tmp_path / "picture.png")
    with pytest.raises(AmesError, match=r"none\.jsonl: cannot be read \(No such file"):
        read_journal(tmp_path / "none.jsonl")
    with pytest.raises(AmesError, match="cannot be read"):
        read_journal(tmp_path)
    (tmp_path / "empty.jsonl").touch()
    assert read_journal(tmp_path / "empty.jsonl") == []
    with pytest.raises(AmesError, match="cannot be written"):
        Journal(tmp_path / "picture.png" / "j.jsonl").begin(0)


def test_a_record_says_where_it_belongs(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    with pytest.raises(ValueError, match=r"begin\(\) opens a journal"):
        journal.write(step(1))
    journal.begin(0)
    for record in ({"step": 1}, {"kind": "step"}, {"kind": "epoch", "step": 4}, {"kind": "era", "step": 1}):
        with pytest.raises(ValueError, match="does not say what kind it is"):
            journal.write(record)
    journal.close()
    assert read_journal(journal.path) == []


def test_a_full_disk_is_said_in_a_line(tmp_path):
    class Full:
        def __init__(self, room):
            self.room = room

        def write(self, line):
            if not self.room:
                raise OSError(28, "No space left on device")
            return self.room

    for room in (0, 5):
        journal = Journal(tmp_path / "j.jsonl")
        journal.begin(0)
        journal.close()
        journal._file = Full(room)
        with pytest.raises(AmesError, match=r"j\.jsonl: cannot be written \((No space|the disk is full)"):
            journal.write(step(1))


def test_where_a_model_s_journal_lies(tmp_path):
    assert journal_path(tmp_path / "v1.2.pt") == tmp_path / "v1.2-journal.jsonl"
