"""Trackers: what they are given is what their own readers find, and none of them ends a training."""

import json
import logging
import struct
import subprocess
import sys

import pytest

from ames.errors import AmesError
from ames.training.logging import trackers
from ames.training.logging.trackers import TensorBoard, WandB, make_trackers


def scalars(folder):
    """Curves as TensorBoard shows them: by tag, (step, value) of all event files of a folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(x.step, x.value) for x in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def installed(monkeypatch, *names):
    found = trackers.find_spec
    monkeypatch.setattr(trackers, "find_spec", lambda name: found("json") if name in names else None)


@pytest.fixture
def tensorboard(monkeypatch):
    """Files of one second are read by the number in their names, of which 10 stands before 9."""
    found = pytest.importorskip("tensorboard")
    writers = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    monkeypatch.setattr(writers, "_global_uid", writers.AtomicCounter(0))
    return found


def test_tensorboard_shows_what_it_was_given(tensorboard, tmp_path):
    tracker = TensorBoard(tmp_path / "new" / "events")
    tracker.log(1, {"loss": 0.5, "accuracy": 0.25})
    assert scalars(tmp_path / "new" / "events")["loss"] == [(1, 0.5)]  # while it runs
    tracker.log(3, {"loss": 0.125})
    tracker.close()
    assert scalars(tmp_path / "new" / "events") == {"loss": [(1, 0.5), (3, 0.125)], "accuracy": [(1, 0.25)]}


def test_curves_of_a_resumed_training_are_not_doubled(tensorboard, tmp_path):
    first = TensorBoard(tmp_path)
    for step in range(1, 8):
        first.log(step, {"loss": float(step)})
    first.close()
    second = TensorBoard(tmp_path, step=4)
    for step in range(5, 10):
        second.log(step, {"loss": step + 0.5})
    second.close()
    assert scalars(tmp_path)["loss"] == [(s, float(s)) for s in range(1, 5)] + [
        (s, s + 0.5) for s in range(5, 10)
    ]


def test_a_new_training_in_the_same_folder_shows_its_own_curves(tensorboard, tmp_path):
    for value in (1.0, 2.0):
        tracker = TensorBoard(tmp_path)
        tracker.log(1, {"loss": value})
        tracker.close()
    assert scalars(tmp_path) == {"loss": [(1, 2.0)]}


@pytest.mark.parametrize("names", [None, "none", []])
def test_none(tmp_path, names):
    assert make_trackers(names, folder=tmp_path / "x", config={}) == []
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("names", ["auto", "tensorboard", ["tensorboard", "tensorboard"]])
def test_by_name(tensorboard, tmp_path, names):
    (tracker,) = make_trackers(names, folder=tmp_path, config={}, step=2)
    tracker.log(3, {"loss": 2.0})
    tracker.close()
    assert scalars(tmp_path / "tensorboard") == {"loss": [(3, 2.0)]}


def test_auto_without_tensorboard(monkeypatch, tmp_path):
    installed(monkeypatch, "wandb")
    assert make_trackers("auto", folder=tmp_path, config={}) == []


def test_a_folder_of_runs_is_no_installed_package(monkeypatch, tmp_path):
    (tmp_path / "runs_of_mine").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not trackers._installed("runs_of_mine")
    assert trackers._installed("json")


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_what_is_asked_for_must_be_installed(monkeypatch, tmp_path, name):
    installed(monkeypatch)
    for names in (name, [name]):
        with pytest.raises(
            AmesError, match=rf"{name} is not installed: pip install 'ames-retrieval\[{name}\]'"
        ):
            make_trackers(names, folder=tmp_path, config={})


@pytest.mark.parametrize("names", ["mlflow", ["tensorboard", "mlflow"], ["auto"], ""])
def test_other_names(tmp_path, names):
    with pytest.raises(AmesError, match=r"tracker '\w*' is none of auto, tensorboard, wandb, none"):
        make_trackers(names, folder=tmp_path, config={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", [None, object()])
def test_a_broken_package(monkeypatch, tmp_path, caplog, module):
    installed(monkeypatch, "tensorboard")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    with pytest.raises(AmesError, match="tracker=tensorboard: tensorboard cannot be loaded"):
        make_trackers("tensorboard", folder=tmp_path, config={})
    assert make_trackers("auto", folder=tmp_path, config={}) == []
    assert "no curves: tracker=tensorboard" in caplog.text


def test_a_folder_that_cannot_be(tensorboard, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AmesError, match="tracker=tensorboard: cannot begin") as error:
        make_trackers("tensorboard", folder=tmp_path / "file", config={})
    assert "\n" not in str(error.value)


class Failing:
    """Works once; counts what it is asked for after that."""

    def __init__(self, *_, **__):
        self.calls = 0

    def log(self, step, figures):
        self.calls += 1
        if self.calls > 1:
            raise OSError(28, "No space left\non device")

    def close(self):
        self.calls += 1
        raise RuntimeError


def test_a_failure_is_one_warning_and_the_training_goes_on(monkeypatch, tmp_path, caplog):
    installed(monkeypatch, "tensorboard")
    made = []
    monkeypatch.setattr(trackers, "TensorBoard", lambda *_, **__: made.append(Failing()) or made[-1])
    (tracker,) = make_trackers("tensorboard", folder=tmp_path, config={})
    with caplog.at_level(logging.WARNING):
        for step in range(1, 5):
            tracker.log(step, {"loss": 1.0})
        tracker.close()
    assert made[0].calls == 2
    assert [record.getMessage() for record in caplog.records] == [
        "tensorboard is off, training continues: [Errno 28] No space left"
    ]
    (tracker,) = make_trackers("auto", folder=tmp_path, config={})
    tracker.close()
    tracker.close()
    assert made[1].calls == 1
    assert caplog.records[1].getMessage() == "tensorboard is off, training continues: RuntimeError"


def test_an_event_file_that_cannot_grow(tensorboard, tmp_path, caplog):
    (tracker,) = make_trackers("tensorboard", folder=tmp_path, config={})
    tracker.log(1, {"loss": 1.0})
    tracker._tracker._writer.file_writer.event_writer.close()  # what a lost disk comes to
    for step in range(2, 5):
        tracker.log(step, {"loss": 1.0})
    tracker.close()
    assert [record.getMessage() for record in caplog.records] == [
        "tensorboard is off, training continues: Writer is closed"
    ]


def test_training_loads_no_tracker_and_a_tracker_says_nothing(tensorboard, tmp_path):
    code = (
        "import sys, ames.training.logging.trackers as t\n"
        "assert not {'tensorboard', 'wandb', 'torch.utils.tensorboard'} & set(sys.modules)\n"
        "t.make_trackers('auto', folder=sys.argv[1], config={})[0].close()\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- Weights & Biases, offline ---------------------------------------------------------------------------


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    """The package, which keeps everything below ``tmp_path`` and could reach no one if it tried."""
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "own"))
    for name, value in {
        "MODE": "offline",
        "SILENT": "true",
        "ERROR_REPORTING": "false",
        "BASE_URL": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    for name in ("PROJECT", "NAME", "RUN_ID", "API_KEY"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    package = pytest.importorskip("wandb")
    yield package
    package.teardown()  # its own process ends with it


def kept(folder, wandb):
    """Records of the one offline run below ``folder``: a log of blocks as LevelDB writes them."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    data, at, found, part = path.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # the rest of a block, too short for a head
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(wandb_internal_pb2.Record.FromString(part))
            part = b""
    return found


def history(records):
    rows = [r.history for r in records if r.WhichOneof("record_type") == "history"]
    items = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in row.item} for row in rows
    ]
    return [{key: value for key, value in row.items() if key[0] != "_"} for row in items]


def test_wandb_keeps_what_it_was_given(wandb, tmp_path):
    folder = tmp_path / "student"
    (tracker,) = make_trackers("wandb", folder=folder, config={"lr": 0.5})
    identity = (folder / "wandb" / "identity.txt").read_text()
    tracker.log(3, {"loss": 0.5})
    tracker.log(6, {"loss": 0.25, "accuracy": 1.0})
    tracker.close()
    records = kept(folder, wandb)
    (run,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    assert (run.project, run.display_name, run.run_id) == ("ames", "student", identity)
    assert {x.key: x.value_json for x in run.config.update}["lr"] == "0.5"
    assert history(records) == [{"loss": 0.5}, {"loss": 0.25, "accuracy": 1.0}]
    steps = [r.history.step.num for r in records if r.WhichOneof("record_type") == "history"]
    assert steps == [3, 6]


def test_wandb_goes_on_under_its_identity(monkeypatch, tmp_path):
    asked = []
    installed(monkeypatch, "wandb")
    monkeypatch.setattr(trackers, "WandB", lambda project, **more: asked.append((project, more)) or Failing())
    monkeypatch.setenv("WANDB_PROJECT", "retrieval")
    monkeypatch.delenv("WANDB_NAME", raising=False)
    for step in (0, 5, 0):
        make_trackers("wandb", folder=tmp_path / "a", config={}, step=step)
    first, resumed, anew = (more["identity"] for _, more in asked)
    assert first == resumed != anew
    assert {(project, more["name"]) for project, more in asked} == {("retrieval", "a")}


def test_wandb_that_cannot_begin(wandb, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    with pytest.raises(AmesError, match="tracker=wandb: cannot begin") as error:
        WandB("p", name="n", config={}, folder=tmp_path, identity="i")
    assert "\n" not in str(error.value)
