"""What long work shows where nobody watches."""

import ames.io.progress
from ames.io.progress import progress


def test_a_line_each_minute_in_a_log(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(ames.io.progress.time, "monotonic", lambda: now[0])
    with progress("score", 5_000, "pairs", done=1_000) as tick:
        for _ in range(4):
            now[0] += 31
            tick(500)
    assert capsys.readouterr().err.splitlines() == [
        "score: 2,000 of 5,000 pairs, 16.1 pairs/s, 0:03:06 left",
        "score: 3,000 of 5,000 pairs, 16.1 pairs/s, 0:02:04 left",
    ]


def test_short_work_says_nothing(capsys):
    with progress("extract", 0, "images"):
        pass
    with progress("extract", 3, "images") as tick:
        tick(3)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress("extract", 4, "images", done=1) as tick:
        tick(3)
    shown = capsys.readouterr().err
    assert "4/4" in shown
    assert "images/s" in shown
