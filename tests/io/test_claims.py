"""Sizes that a file only claims: one line at once, and nothing allocated for what is not there."""

import io
import json
import pickle
import resource
import struct
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ames.database.manifest import NAME, Manifest
from ames.datasets.ground_truth import load_ground_truth
from ames.errors import AmesError
from ames.evaluation.runs import Run
from ames.global_search.shortlist import Shortlist
from ames.inspection.inspect import inspect
from ames.io import claims, pickles
from ames.io.pickles import load_pickle
from ames.models.layers.binarization import read_itq
from ames.training.data.neighbours import Neighbours
from ames.training.logging.journal import read_journal
from ames.weights.files import read_weights

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for its memory")

MEBIBYTE = 2**20
TERA = 2**40


@contextmanager
def within(mebibytes=200, seconds=1.0):
    """Little more memory than there is in use already, and little time."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + mebibytes * MEBIBYTE, hard))
    begun = time.monotonic()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.monotonic() - begun < seconds


def refused(read, path, message):
    """One line that names the file and holds ``message``."""
    with within(), pytest.raises(AmesError, match=message) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


# ---- pickles --------------------------------------------------------------------------------------------

BYTES = rf"at byte \d+ it claims {TERA} bytes, \d+ are left"
FOUR = rf"at byte \d+ it claims {2**31 - 1} bytes, \d+ are left"
MEMO = r"at byte \d+ it claims \d+ objects before it"
LONG = struct.pack("<I", 2**31 - 1)
VAST = struct.pack("<Q", TERA)


@pytest.mark.parametrize(
    "before", [b"", b"K\x01K\x02\x86", b"C\x03abc\x94"], ids=["first", "later", "content"]
)
@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (b"\x8e" + VAST, BYTES),
        (b"\x96" + VAST, BYTES),
        (b"\x8d" + VAST, BYTES),
        (b"\x95" + VAST, BYTES),
        (b"\x8b" + LONG, FOUR),
        (b"B" + LONG, FOUR),
        (b"X" + LONG, FOUR),
        (b"T" + LONG, FOUR),
        (b"U\xf0", "at byte .* claims 240 bytes"),
        (b"\x8c\x30", "at byte .* claims 48 bytes"),
        (b"Nr" + struct.pack("<I", 2**31), MEMO),
        (b"Nr" + struct.pack("<I", 2**21), MEMO),
        (b"Np2147483648\n", MEMO),
    ],
    ids=lambda x: repr(x)[:12] if isinstance(x, bytes) else "",
)
def test_a_pickle_that_claims_too_much(tmp_path, before, operation, message):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x05" + before + operation + b"abc.")
    refused(load_pickle, path, message)
    refused(inspect, path, message)


def test_a_length_beyond_a_large_file_s_end(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "_LARGE", 0)
    data = pickle.dumps(np.arange(9000.0), protocol=4)
    place = data.index(struct.pack("<I", 72000))
    (tmp_path / "x.pkl").write_bytes(data[:place] + struct.pack("<I", 2**32 - 1) + data[place + 4 :])
    refused(load_pickle, tmp_path / "x.pkl", "claims 4294967295 bytes")


def test_content_does_not_count_as_operations(tmp_path):
    # The memo would grow to the place that two million bytes of content make room for.
    content = bytes(2_000_000)
    operations = b"B" + struct.pack("<I", len(content)) + content + b"r" + struct.pack("<I", 1_900_000)
    (tmp_path / "x.pkl").write_bytes(b"\x80\x03" + operations + b".")
    refused(load_pickle, tmp_path / "x.pkl", "claims 1900000 objects")


CONTENT = {
    "names": [f"{n}" * (n % 300) for n in range(3000)],
    "numbers": [n * 7919 for n in range(-3000, 3000)] + [2**n for n in range(0, 3000, 100)],
    "floats": [n / 7 for n in range(5000)],
    "bytes": [bytes(n) for n in (0, 63, 64, 255, 256, 70000)] + [bytearray(300)],
    "nested": {"gnd": [{"ok": [1, 300, 70000], "bbx": (0.5, 1.0)}], "sets": {1, 2}, "none": [None, True]},
    "arrays": [np.arange(5), np.float32(3), torch.arange(3)],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", CONTENT)
def test_every_operation_of_sound_pickles_passes(tmp_path, monkeypatch, name, protocol):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(CONTENT[name], protocol=protocol))
    claims.check_pickle(path)
    # It came to the end: a claim behind the last operation but STOP is found.
    path.write_bytes(path.read_bytes()[:-1] + b"\x8e" + VAST)
    with pytest.raises(ValueError, match="claims"):
        claims.check_pickle(path)


def test_many_objects_in_the_memo(tmp_path):
    several = [[n] for n in range(70_000)]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(several, protocol=2))
    assert load_pickle(tmp_path / "x.pkl") == several


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def repeated(size, stride):
    storage = torch.zeros(1)._typed_storage()
    return Call(torch._utils._rebuild_tensor_v2, storage, 0, size, stride, False, {})


def array_state(shape, dtype, data):
    array = np.zeros(0)
    made = array.__reduce__()
    return Reduced(made[0], made[1], (1, shape, np.dtype(dtype), False, data))


class Reduced:
    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Call(bytearray, TERA), "a bytearray of a int"),
        (lambda: repeated((TERA,), (0,)), f"a tensor claims {TERA} values of 1"),
        (lambda: repeated((2**20, 2**20, 2**20), (0, 0, 0)), "a tensor claims .* values of 1"),
        (lambda: repeated((TERA,), (1,)), "a tensor reaches beyond its storage"),
        (lambda: array_state((TERA,), "f8", b"abc"), "damaged one"),
        (lambda: array_state((2**32, 2**32), "f8", b""), "damaged one"),
        (lambda: array_state((1,), "S2000000000", b"abc"), "damaged one"),
        (lambda: Call(np.float64(0).__reduce__()[0], np.dtype("S2000000000"), b"abc"), "damaged one"),
    ],
    ids=["bytearray", "repeated", "three axes", "beyond", "array", "product", "text", "scalar"],
)
def test_numbers_of_objects_that_a_pickle_builds(tmp_path, make, message):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(make()))
    refused(load_pickle, tmp_path / "x.pkl", message)


def legacy(tensor, **changed):
    """A file of torch before 1.6; its storage claims so many values."""
    file = io.BytesIO()
    torch.save({"W": tensor}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def test_a_storage_inside_a_pickle(tmp_path):
    data = legacy(torch.zeros(4)).replace(b"K\x04", b"\x8a\x06" + struct.pack("<Q", TERA)[:6])
    from torch.storage import _load_from_bytes

    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Call(_load_from_bytes, data)))
    refused(load_pickle, tmp_path / "x.pkl", "damaged one")


# ---- checkpoints ----------------------------------------------------------------------------------------


def archive(path, entries):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def entries_of(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def lying(path, name, *, size, stored=None):
    """The directory of a zip file says that an entry has ``size`` bytes, ``stored`` of them in the file."""
    data = bytearray(path.read_bytes())
    place = data.index(name.encode(), data.index(b"PK\x01\x02")) - 46
    struct.pack_into("<II", data, place + 20, size if stored is None else stored, size)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("changed", [b"K\x04tq", b"K\x04\x85"], ids=["storage", "tensor"])
def test_a_checkpoint_whose_tensor_claims_too_much(tmp_path, changed):
    torch.save({"a": torch.ones(4)}, tmp_path / "a.pt")
    entries = entries_of(tmp_path / "a.pt")
    (name,) = (name for name in entries if name.endswith("data.pkl"))
    vast = b"\x8a\x06" + struct.pack("<Q", TERA)[:6]
    assert changed in entries[name]
    entries[name] = entries[name].replace(changed, vast + changed[2:])
    refused(read_weights, archive(tmp_path / "b.pt", entries), "not a checkpoint, or a damaged one")


@pytest.mark.parametrize("stored", [None, 16], ids=["both sizes", "one size"])
def test_a_checkpoint_whose_directory_lies(tmp_path, stored):
    torch.save({"a": torch.ones(4)}, tmp_path / "a.pt")
    path = archive(tmp_path / "b.pt", entries_of(tmp_path / "a.pt"))
    lying(path, "a/data/0", size=2**31, stored=stored)
    refused(read_weights, path, r"damaged one \(a/data/0 claims 2147483648 bytes")
    refused(inspect, path, "a/data/0 claims 2147483648 bytes")


def test_entries_that_share_their_bytes(tmp_path):
    path = archive(tmp_path / "b.pt", {"a/data/0": bytes(3000), "a/data/1": bytes(8)})
    data = bytearray(path.read_bytes())
    place = data.index(b"a/data/1", data.index(b"PK\x01\x02")) - 46
    struct.pack_into("<II", data, place + 20, 3000, 3000)
    struct.pack_into("<I", data, place + 42, 0)
    path.write_bytes(bytes(data))
    refused(read_weights, path, "the entries claim more bytes together than the file has")


def test_a_checkpoint_of_old_form(tmp_path):
    vast = b"\x8a\x06" + struct.pack("<Q", TERA)[:6]
    data = legacy(torch.zeros(4))
    assert b"K\x04N" in data
    (tmp_path / "a.pt").write_bytes(data.replace(b"K\x04N", vast + b"N"))
    refused(read_weights, tmp_path / "a.pt", "not a checkpoint, or a damaged one")
    (tmp_path / "b.pt").write_bytes(data.replace(b"X\x01\x00\x00\x00W", b"X\xff\xff\xff\x7fW"))
    refused(read_weights, tmp_path / "b.pt", "not a checkpoint, or a damaged one")


def test_one_value_that_stands_for_many(tmp_path):
    torch.save({"W": torch.zeros(1, dtype=torch.half).expand(TERA)}, tmp_path / "a.pt")
    refused(read_weights, tmp_path / "a.pt", f"W claims {TERA} values, in a file of ")
    torch.save({"W": torch.zeros(1).expand(16, 8)}, tmp_path / "a.pt")
    assert read_weights(tmp_path / "a.pt").state["W"].shape == (16, 8)


@pytest.mark.parametrize("lie", ["header", "tensor"])
def test_safetensors(tmp_path, lie):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(4)}, path)
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    if lie == "header":
        data = struct.pack("<Q", TERA) + data[8:]
    else:
        header = json.loads(data[8 : 8 + length])
        header["a"] |= {"shape": [TERA], "data_offsets": [0, 4 * TERA]}
        text = json.dumps(header).encode()
        data = struct.pack("<Q", len(text)) + text + data[8 + length :]
    path.write_bytes(data)
    refused(read_weights, path, "not a readable safetensors file")


@pytest.mark.parametrize("about", ["[" * 100_000, "1" * 5_000], ids=["nested", "digits"])
def test_what_a_checkpoint_says_of_itself(tmp_path, about):
    torch.save({"state": {"a": torch.ones(4)}, "about": about}, tmp_path / "a.pt")
    refused(read_weights, tmp_path / "a.pt", "what it says of itself")


# ---- archives of numpy ----------------------------------------------------------------------------------


def npy(header, content=b""):
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


VASTLY = npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**37},), }}", bytes(64))


def shortlist(path):
    Shortlist(np.tile(np.arange(3), (2, 1)), np.zeros((2, 3), np.float32)).save(path)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "entry",
    [
        VASTLY,
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", bytes(64)),
        npy("{'descr': '|S2000000000', 'fortran_order': False, 'shape': (1,), }", bytes(64)),
        npy("(" * 5000, bytes(64)),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{}",
    ],
    ids=["shape", "negative", "text", "nested", "header"],
)
def test_arrays_that_claim_too_much(tmp_path, entry, compressed):
    path = shortlist(tmp_path / "x.npz")
    form = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    entries = entries_of(path) | {"ids.npy": entry, "proj.npy": entry, "logits.npy": entry}
    for name in ("x.npz", "scores.npz"):
        with zipfile.ZipFile(tmp_path / name, "w", form) as file:
            for member, content in entries.items():
                file.writestr(member, content)
    refused(Shortlist.load, path, "broken, or not an .npz file")
    refused(lambda path: Neighbours.open(path, images=2), path, "broken, or not an .npz file")
    refused(inspect, path, "broken, or not an .npz file")
    refused(read_itq, path, "not a readable .npz file")
    refused(lambda path: Run.load(path.parent), tmp_path / "scores.npz", "not the scores of an evaluation")


@pytest.mark.parametrize("stored", [None, 64])
def test_a_directory_that_lies(tmp_path, stored):
    path = shortlist(tmp_path / "x.npz")
    lying(path, "ids.npy", size=2**31, stored=stored)
    for read in (Shortlist.load, inspect, lambda path: Neighbours.open(path, images=2)):
        refused(read, path, "broken, or not an .npz file")


def test_an_array_under_the_name_of_an_archive(tmp_path):
    (tmp_path / "x.npz").write_bytes(VASTLY)
    for read in (Shortlist.load, inspect, lambda path: Neighbours.open(path, images=2)):
        refused(read, tmp_path / "x.npz", "broken, or not an .npz file")
    refused(read_itq, tmp_path / "x.npz", "not a readable .npz file")


def test_sound_archives_pass(tmp_path):
    arrays = {"a": np.zeros((3, 0)), "b": np.array("text"), "c": np.asfortranarray(np.ones((2, 3))), "d": 1.5}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays, zeros=np.zeros(10**6))
        claims.check_npz(tmp_path / "x.npz")


# ---- JSON -----------------------------------------------------------------------------------------------

NESTED = "[" * 200_000


def test_json_that_is_nested_too_deeply(tmp_path):
    for text in (NESTED, "1" * 5_000, "{"):
        with pytest.raises(ValueError, match=r".") as error:
            claims.parsed(text)
        assert not isinstance(error.value, RecursionError)
    assert claims.parsed(b'{"a": [1]}') == {"a": [1]}
    (tmp_path / NAME).write_text(NESTED)
    (tmp_path / "gnd.json").write_text(NESTED)
    (tmp_path / "a-journal.jsonl").write_text(NESTED + "\n{}\n")
    for read, path, message in (
        (Manifest.load, tmp_path, r"damaged \(not JSON\)"),
        (load_ground_truth, tmp_path / "gnd.json", "not a JSON file, so no ground truth: nested too deeply"),
        (read_journal, tmp_path / "a-journal.jsonl", "journal"),
    ):
        with pytest.raises(AmesError, match=message) as error:
            read(path)
        assert "\n" not in str(error.value)


def test_archives_whose_text_is_nested_too_deeply(tmp_path):
    path = shortlist(tmp_path / "x.npz")
    with np.load(path) as archive:
        arrays = dict(archive) | {"meta": np.array(NESTED)}
    np.savez(path, **arrays)
    np.savez(tmp_path / "scores.npz", **arrays, logits=np.zeros((2, 3)))
    with pytest.raises(AmesError, match="meta of the shortlist is not a JSON dict"):
        Shortlist.load(path)
    with pytest.raises(AmesError, match="not the scores of an evaluation"):
        Run.load(tmp_path)
