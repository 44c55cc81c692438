"""Pictures in memory: within the bound, the last used ones stay."""

from pathlib import Path

from ames.web.decoding import Found
from ames.web.pictures import Pictures


class Drawn:
    """A worker that makes pictures of 100 bytes."""

    def __init__(self):
        self.made = []

    def picture(self, task):
        self.made.append(task.path)
        return Found(200), task.path.encode().ljust(100)


def test_the_bound_holds_and_the_last_used_stay():
    worker = Drawn()
    pictures = Pictures(worker, cache=300)
    for name in "abca":
        assert pictures.make(Path(name), 320, "1").strip() == name.encode()
    pictures.make(Path("d"), 320, "1")  # b is the one that was used longest ago
    assert pictures.bytes == 300
    assert [pictures.kept(Path(name), 320, "1") is not None for name in "abcd"] == [True, False, True, True]
    assert worker.made == ["a", "b", "c", "d"]
    assert pictures.kept(Path("a"), 1600, "1") is None
    assert pictures.kept(Path("a"), 320, "2") is None  # the file changed


def test_a_picture_above_the_bound_is_not_kept():
    pictures = Pictures(Drawn(), cache=50)
    assert pictures.make(Path("a"), 320, "1")
    assert pictures.bytes == 0
