"""Damaged JPEGs are noticed, odd ones are not taken for damaged, and nobody else's words are lost."""

import ctypes
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cv2
import numpy as np
import pytest

from ames.datasets import jpegs
from ames.datasets.image_headers import is_cut_off
from ames.datasets.images import UnreadableImage, decode
from helpers import photos
from helpers.commands import ROOT
from helpers.image_files import with_orientation

KINDS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
}


def jpeg(kind="baseline", seed=0):
    return cv2.imencode(".jpg", photos.scene(seed, size=(200, 300)), KINDS[kind])[1].tobytes()


def without_middle(data, count=400):
    return data[: len(data) // 2] + data[len(data) // 2 + count :]


def complaint(data):
    image, said = jpegs.decode_jpeg(data)
    assert image is not None
    return said


def test_this_system_s_decoder_is_heard():
    assert jpegs.unheard() is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_without_its_middle_is_never_taken_as_whole(kind):
    whole = jpeg(kind)
    np.testing.assert_array_equal(decode(whole), cv2.imdecode(np.frombuffer(whole, np.uint8), 1))
    damaged = without_middle(whole)
    assert not is_cut_off(damaged)
    with pytest.raises(UnreadableImage, match="damaged: Corrupt JPEG data: "):
        decode(damaged)


@pytest.mark.parametrize("kind", KINDS)
def test_of_many_damages_most_are_found(kind):
    """Those that decode to other pixels without a word cannot be."""
    whole, found = jpeg(kind), 0
    pixels = decode(whole)
    chance = random.Random(0)
    for number in range(60):
        data, start = bytearray(whole), chance.randrange(len(whole) // 4, len(whole) - 500)
        data[start : start + 200] = bytes(200) if number % 2 else chance.randbytes(200)
        try:
            found += np.array_equal(decode(bytes(data)), pixels)
        except UnreadableImage:
            found += 1
    assert found >= 45


def scan(data):
    """Where the picture's data begin: behind the header of the first scan."""
    start = data.find(b"\xff\xda") + 2
    return start + int.from_bytes(data[start : start + 2], "big")


ODD = {
    "bytes between blocks": lambda x: x[:20] + bytes(range(1, 9)) + x[20:],
    "filling before the end": lambda x: x[:-2] + bytes(60) + x[-2:],
    "few bytes before the end": lambda x: x[:-2] + b"\1\2\3" + x[-2:],
    "bytes behind the end": lambda x: x + b"\1\2\3" + x,
    "another JFIF": lambda x: x.replace(b"JFIF\0\1", b"JFIF\0\3"),
    "parameters of progressive ones": lambda x: x[: scan(x) - 3] + b"\0\0\0" + x[scan(x) :],
    "unknown colours": lambda x: x[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x07" + x[2:],
    "an orientation": lambda x: with_orientation(x, 1),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_jpeg_is_no_damaged_one(odd):
    data = ODD[odd](jpeg())
    assert data != jpeg()
    assert complaint(data) is None
    np.testing.assert_array_equal(decode(data), decode(jpeg()))
    assert "Corrupt JPEG data: " in complaint(ODD[odd](without_middle(jpeg())))


def test_what_follows_the_picture_is_too_long_to_be_filling():
    assert "extraneous bytes before marker 0xd9" in complaint(jpeg()[:-2] + bytes(range(50)) + b"\xff\xd9")


def test_bytes_between_two_scans_are_of_the_picture():
    whole = jpeg("progressive")
    second = whole.find(b"\xff\xc4", scan(whole))
    assert "extraneous" in complaint(whole[:second] + bytes(range(50)) + whole[second:])


def test_threads_know_their_own():
    files = [jpeg(seed=seed) for seed in range(4)]
    files = [without_middle(x) if number % 8 == 3 else x for number, x in enumerate(files * 60)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(complaint, files))
    assert [said is not None for said in found] == [number % 8 == 3 for number in range(len(files))]


def c_stderr():
    return ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stderr" if sys.platform != "darwin" else "__stderrp")


def test_other_words_on_stderr_are_kept(capfd):
    library, stream = ctypes.CDLL(None), c_stderr()
    before = stream.value

    def work(stop):
        while not stop:
            complaint(without_middle(jpeg()))

    stop: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work, stop)
        for number in range(200):
            library.fputs(b"from C %d\n" % number, ctypes.c_void_p(stream.value))
            print("from Python", number, file=sys.stderr)
        stop.append(1)
        working.result()
    assert stream.value == before
    lines = capfd.readouterr().err.splitlines()
    assert [x for x in lines if x.startswith("from C")] == [f"from C {number}" for number in range(200)]
    assert not any("Corrupt" in x for x in lines)


def in_child(work):
    """What ``work`` returns in a child made by fork, as a bool; None: it did not come back."""
    child = os.fork()
    if child == 0:
        os._exit(10 + bool(work()))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code == 11 if code in (10, 11) else None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # there are threads, which is the point
def test_a_child_listens_for_itself():
    damaged, whole = without_middle(jpeg()), jpeg()
    stop: list[int] = []

    def work():
        while not stop:
            complaint(damaged)

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(work) for _ in range(2)]
        found = [in_child(partial(complaint, x)) for x in (damaged, whole) * 5]
        stop.append(1)
        for one in working:
            one.result()
    assert found == [True, False] * 5
    assert complaint(whole) is None


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/null", "2>file"])
def test_whatever_stderr_is(tmp_path, stderr):
    (tmp_path / "damaged.jpg").write_bytes(without_middle(jpeg()))
    (tmp_path / "whole.jpg").write_bytes(jpeg())
    code = (
        "import sys; from ames.datasets.images import *\n"
        "decode(open('whole.jpg', 'rb').read())\n"
        "kept = open('kept', 'w+'); kept.write('x'); kept.flush()\n"  # in the place of a closed stderr
        "try: decode(open('damaged.jpg', 'rb').read())\n"
        "except UnreadableImage as error: print(error)\n"
    )
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {stderr}', sys.executable, code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("damaged: Corrupt JPEG data: ")
    assert (tmp_path / "kept").read_text() == "x"
    if stderr == "2>file":
        assert (tmp_path / "file").read_text() == ""


def test_a_decoder_that_is_not_heard_is_said(monkeypatch):
    monkeypatch.setattr(jpegs, "_ear", lambda: None)
    assert jpegs.decode_jpeg(without_middle(jpeg()))[1] is None
    assert "are not noticed on this system" in jpegs.unheard()
