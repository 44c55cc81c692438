"""An extraction that is broken off anywhere and continued is one that was not broken off."""

import os
import resource
import shutil
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from ames.datasets.finding import find_images
from ames.descriptors.resumable import ResumableFiles
from ames.errors import AmesError
from ames.extraction.pipeline import Images, plan_output, run
from helpers import photos
from helpers.brightness import Brightness
from helpers.commands import ROOT
from helpers.dying import dies_at
from helpers.killed_extraction import extract, extractor

IMAGES = 40


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images of some sizes, one in eight of them unreadable."""
    root = tmp_path_factory.mktemp("images")
    sizes = ((60, 80), (80, 60), (64, 64), (30, 90))
    for number in range(IMAGES):
        photos.save(root / f"{number:03}.jpg", photos.scene(number, size=sizes[number % 4]))
        if number % 8 == 5:
            (root / f"{number:03}.jpg").write_bytes(b"text")
    return root


def content(out):
    """All arrays and the list of errors."""
    found = {"errors": (out / "x.errors.csv").read_bytes()}
    for kind in ("local", "global"):
        with h5py.File(out / f"x_{kind}.hdf5") as file:
            found[kind] = file["features"][:].tobytes()
            found[f"{kind} names"] = list(file["names"].asstr()[:])
            found[f"{kind} provenance"] = file.attrs["provenance"]
    return found


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    extract(root, out, Brightness())
    return content(out)


def names_of(out):
    return sorted(path.name for path in out.iterdir())


FINISHED = ["x.errors.csv", "x_global.hdf5", "x_local.hdf5"]


def test_killed_at_any_change_of_the_disk(root, whole, tmp_path):
    resumed = 0
    for step in range(200):
        out = tmp_path / f"step {step}"
        died = dies_at(step, lambda out=out: extract(root, out, Brightness()))
        if died:
            resumed += (out / "x.partial.json").exists()
            extract(root, out, Brightness())
        assert content(out) == whole
        assert names_of(out) == FINISHED
        if not died:
            break
        shutil.rmtree(out)
    assert resumed > 10


def killed_at_random(root, out, kills, seed, pause=0.02):
    """A process of its own, killed ``kills`` times and left alone then."""
    rng = np.random.default_rng(seed)
    script = ROOT / "tests" / "helpers" / "killed_extraction.py"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path])}
    words = [sys.executable, str(script), str(root), str(out), str(pause)]
    seen = 0
    for kill in range(kills + 1):
        process = subprocess.Popen(words, env=environment)
        if kill < kills:
            # From when it works on, else most of the time is that of starting.
            began = time.monotonic()
            while process.poll() is None and time.monotonic() - began < 60:
                if (out / "x.partial.json").exists():
                    break
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.08 * IMAGES * pause) + (3.0 if kill else 0))
            process.kill()
            seen += (out / "x.partial.json").exists()
        process.wait()
    assert process.returncode == 0
    return seen


def test_killed_at_random_once(root, whole, tmp_path):
    killed_at_random(root, tmp_path / "out", 1, seed=0)
    assert content(tmp_path / "out") == whole
    assert names_of(tmp_path / "out") == FINISHED


@pytest.mark.slow
def test_killed_at_random_ten_times(root, whole, tmp_path):
    seen = killed_at_random(root, tmp_path / "out", 10, seed=1, pause=1.0)  # two lanes at most
    assert seen >= 5
    assert content(tmp_path / "out") == whole
    assert names_of(tmp_path / "out") == FINISHED


class Broken(Brightness):
    """Is interrupted at its ``left``-th image."""

    left = 34

    def maps(self, images):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().maps(images)


@pytest.fixture
def begun(root, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        extract(root, tmp_path, Broken())
    return tmp_path


def test_what_an_interruption_leaves(begun):
    assert names_of(begun) == [
        "x.errors.csv",
        "x.partial.json",
        "x_global.hdf5.partial",
        "x_local.hdf5.partial",
    ]


def test_what_is_done_is_not_done_again(root, begun, whole):
    seen = []

    class Counting(Brightness):
        def maps(self, images):
            seen.append(len(images))
            return super().maps(images)

    extract(root, begun, Counting())
    assert content(begun) == whole
    assert sum(seen) - 1 <= IMAGES - 8  # but for the network's trial


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (Brightness(long_side=56), {}, "long_side: there 112, now 56"),
        (Brightness(scales=(1.0, 2.0)), {}, r"scales: there \[1.0\], now \[1.0, 2.0\]"),
        (Brightness(), {"dtype": "float32"}, "files: there"),
        (Brightness(), {"vector": "gem"}, 'vector: there "cls", now "gem"'),
    ],
)
def test_other_settings_are_refused(root, begun, whole, network, options, message):
    before = {path.name: path.read_bytes() for path in begun.iterdir()}
    with pytest.raises(AmesError, match=f"partial extraction with different settings \\({message}") as error:
        extract(root, begun, network, **options)
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in begun.iterdir()} == before
    extract(root, begun, network, overwrite=True, **options)
    assert names_of(begun) == FINISHED


def test_another_list_of_as_many_images_is_refused(root, begun):
    def again(**options):
        images, source = Images(root, find_images(root).names[::-1]), extractor(Brightness(), **options)
        return run(images, source, plan_output(begun / "x", images, source), chunk=14)

    with pytest.raises(AmesError, match=r"partial extraction with different settings .list: there"):
        again()
    again(overwrite=True)
    with h5py.File(begun / "x_local.hdf5") as file:
        assert list(file["names"].asstr()[:]) == find_images(root).names[::-1]


def test_a_pass_without_global_descriptors_leaves_a_begun_one_alone(root, begun, whole):
    images, source = Images(root, find_images(root).names), extractor(Brightness())
    plan = plan_output(begun / "x", images, source, kinds=["local"])
    with pytest.raises(AmesError, match=r"partial extraction with different settings .files: there"):
        run(images, source, plan, chunk=14)
    extract(root, begun, Brightness())
    assert content(begun) == whole


def test_a_file_that_grows_beyond_what_is_allowed(root, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    try:
        with pytest.raises(AmesError, match=r"x_local.hdf5: cannot be written \(.*(?i:file too large)"):
            extract(root, tmp_path, Brightness())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names_of(tmp_path) == []


def test_files_that_are_there(root, tmp_path, whole):
    extract(root, tmp_path, Brightness())
    changed = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    done = extract(root, tmp_path, Brightness())
    assert done.already
    assert "exists already, with the same images and settings" in done.summary()
    with pytest.raises(
        AmesError, match=r"exists but was made with different settings .long_side: there 112, now 56"
    ):
        extract(root, tmp_path, Brightness(long_side=56))
    with pytest.raises(AmesError, match=r"different settings .dtype: there float16, now float32"):
        extract(root, tmp_path, Brightness(), dtype="float32")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == changed
    (tmp_path / "x_global.hdf5").unlink()
    with pytest.raises(AmesError, match="exists without the other file"):
        extract(root, tmp_path, Brightness())
    extract(root, tmp_path, Brightness(), overwrite=True)
    assert content(tmp_path) == whole


def test_the_old_files_stay_until_the_new_ones_are_whole(root, tmp_path, whole):
    extract(root, tmp_path, Brightness())
    broken = Broken(long_side=56)
    broken.left = 3
    with pytest.raises(KeyboardInterrupt):
        extract(root, tmp_path, broken, overwrite=True)
    with h5py.File(tmp_path / "x_local.hdf5") as file:
        assert file["features"][:].tobytes() == whole["local"]
    assert (tmp_path / "x.errors.csv").read_bytes() == whole["errors"]
    extract(root, tmp_path, Brightness(long_side=56), overwrite=True)
    with h5py.File(tmp_path / "x_local.hdf5") as file:
        assert file["features"][:].tobytes() != whole["local"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda out: (out / "x.partial.json").write_text("{"), "cannot be read; remove it to start again"),
        (lambda out: (out / "x_local.hdf5.partial").unlink(), "x_local.hdf5.partial: is missing"),
        (lambda out: (out / "x_local.hdf5.partial").write_bytes(b"x"), "partial: damaged"),
    ],
)
def test_what_cannot_be_continued(root, begun, spoil, message):
    spoil(begun)
    with pytest.raises(AmesError, match=message):
        extract(root, begun, Brightness())


def test_one_process_at_a_time(root, tmp_path):
    class Second(Brightness):
        def maps(self, images):
            if len(images) > 1 or images.any():
                with pytest.raises(AmesError, match="another process writes these files"):
                    extract(root, tmp_path, Brightness())
            return super().maps(images)

    extract(root, tmp_path, Second())


def test_no_room_on_the_disk(root, tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=5_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(AmesError, match=r"7\.\d+ kB are needed there, 5 kB are free"):
        extract(root, tmp_path, Brightness())
    assert names_of(tmp_path) == []


def test_a_disk_that_fills_up(root, tmp_path, monkeypatch, whole):
    written = []
    save = ResumableFiles._save

    def full(self):
        written.append(self.state.done)
        if len(written) == 3:
            raise AmesError("x: cannot be written (No space left on device)")
        save(self)

    monkeypatch.setattr(ResumableFiles, "_save", full)
    with pytest.raises(AmesError, match="No space left"):
        extract(root, tmp_path, Brightness())
    extract(root, tmp_path, Brightness())
    assert content(tmp_path) == whole


def test_damaged_files_change_nothing_for_the_rest(root, tmp_path, whole):
    """Fifty of them, of every kind, among the good ones."""
    mixed = tmp_path / "mixed"
    shutil.copytree(root, mixed)
    good = (root / "000.jpg").read_bytes()
    kinds = [b"", b"text", good[:100], good[: len(good) // 2], good[-50:], os.urandom(300)]
    for number in range(50):
        (mixed / f"{number % IMAGES:03}-{number}.jpg").write_bytes(kinds[number % len(kinds)])
    done = extract(mixed, tmp_path / "out", Brightness())
    assert len(done.unreadable) == 50 + 5
    with h5py.File(tmp_path / "out" / "x_local.hdf5") as file:
        rows = dict(zip(file["names"].asstr()[:], file["features"][:], strict=True))
    kept = np.stack([rows[name] for name in find_images(root).names])
    np.testing.assert_allclose(kept, np.frombuffer(whole["local"], np.float16).reshape(kept.shape), atol=2e-3)
    for name in done.unreadable:
        assert (rows[name][:, 3] == 1).all()
        assert not np.delete(rows[name], 3, axis=1).any()
