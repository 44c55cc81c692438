"""Pickles: what published files hold is read, everything else is refused by name and never executed."""

import collections
import os
import pickle
import warnings

import numpy as np
import pytest
import torch

from ames.errors import AmesError
from ames.io import pickles
from ames.io.pickles import load_pickle

CONTENT = {
    "containers": {
        "gnd": [{"ok": [1, 2], "bbx": (0.5, 1)}],
        "imlist": ["a", "ç"],
        "n": None,
        "b": b"\xff\x00",
    },
    "ordered": collections.OrderedDict(a=1, b=[2]),
    "sets": [{1, 2}, frozenset((3,)), bytearray(b"x"), 1j],
    "tensor": torch.arange(12).float().reshape(2, 2, 3),
    "half": torch.ones(3).half(),
    "view": torch.arange(20).reshape(4, 5).T[1:4:2],
    "array": np.arange(6.0).reshape(1, 2, 3),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big-endian": np.arange(5, dtype=">i4"),
    "text": np.array(["a", "bcd"]),
    "empty": np.empty((0, 3), np.float32),
    "scalars": [np.float32(0.5), np.int64(-3), np.bool_(True)],
}


def assert_same(found, expected):
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
        assert found.dtype == expected.dtype
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
    else:
        assert type(found) is type(expected)
        assert found == expected


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", CONTENT)
def test_what_published_files_hold(tmp_path, name, protocol):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(CONTENT[name], protocol=protocol))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(load_pickle(path), CONTENT[name])


@pytest.mark.parametrize("name", ["array", "scalars"])
def test_numpy_1_names(tmp_path, name):
    data = pickle.dumps(CONTENT[name], protocol=2)
    assert b"numpy._core" in data
    (tmp_path / "x.pkl").write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    assert_same(load_pickle(tmp_path / "x.pkl"), CONTENT[name])


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"gnd": [x]}, lambda x: torch.nn.Parameter(x.t)])
def test_a_pickle_that_would_execute_code(tmp_path, wrap, protocol):
    path, mark = tmp_path / "x.pkl", tmp_path / "executed"
    call = Call(os.mkdir, str(mark))
    call.t = torch.zeros(1)
    path.write_bytes(pickle.dumps(wrap(call), protocol=protocol))
    refused = "mkdir" if b"mkdir" in path.read_bytes() else "torch._utils._rebuild_parameter"
    with pytest.raises(AmesError, match=f"the pickle asks for .*{refused}.* refused; nothing") as error:
        load_pickle(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert not mark.exists()


def hidden(tmp_path):
    """Code inside the bytes of a tensor's storage, which torch itself would unpickle."""
    from torch.storage import _load_from_bytes

    return Call(_load_from_bytes, pickle.dumps(Call(os.mkdir, str(tmp_path / "executed"))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (hidden, "not a pickle, or a damaged one"),
        (lambda _: Call(eval, "1"), "asks for (builtins|__builtin__).eval"),
        (lambda _: Call(getattr, "text", "upper"), "getattr"),
        (lambda _: np.array([1, None]), "an array of dtype object"),
        (lambda _: np.zeros(2, [("a", "f4")]), "an array of dtype"),
        (lambda _: collections.Counter("a"), "collections.Counter"),
        (lambda _: Call(np.ndarray, (3,)), "a call of numpy.ndarray"),
        (
            lambda _: Call(
                torch._utils._rebuild_tensor_v2, torch.zeros(4)._typed_storage(), 2, (3,), (1,), False, {}
            ),
            "a tensor reaches beyond its storage",
        ),
    ],
)
def test_what_is_refused(tmp_path, make, message):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(make(tmp_path)))
    with pytest.raises(AmesError, match=message):
        load_pickle(path)
    assert not (tmp_path / "executed").exists()


def test_the_reader_s_own_functions_cannot_be_altered(tmp_path):
    # GLOBAL _codecs.encode, then BUILD with a state for it
    (tmp_path / "x.pkl").write_bytes(b"c_codecs\nencode\n}S'_call'\nI1\nsb.")
    with pytest.raises(AmesError, match="a new state of a function"):
        load_pickle(tmp_path / "x.pkl")
    (tmp_path / "x.pkl").write_bytes(b"ccollections\nOrderedDict\nN}S'get'\nI1\ns\x86b.")
    with pytest.raises(AmesError, match="not a pickle, or a damaged one"):
        load_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello\n",
        b"<!DOCTYPE html>",
        b"version https://git-lfs",
        b"\x80\x04",
        b"\xff" * 30,
        b"\x80\x63.",
    ],
)
def test_what_is_no_pickle(tmp_path, data):
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    with pytest.raises(AmesError, match="not a pickle, or a damaged one") as error:
        load_pickle(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["tensor", "array", "containers"])
def test_a_pickle_that_is_cut_off(tmp_path, name):
    whole = pickle.dumps(CONTENT[name])
    for size in (1, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "x.pkl").write_bytes(whole[:size])
        with pytest.raises(AmesError, match="not a pickle, or a damaged one"):
            load_pickle(tmp_path / "x.pkl")


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.pkl", tmp_path):
        with pytest.raises(AmesError, match="no such file"):
            load_pickle(path)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_large_array_is_mapped(tmp_path, monkeypatch, protocol, order):
    monkeypatch.setattr(pickles, "_LARGE", 0)
    array = np.asarray(np.random.default_rng(0).random((2, 90, 200)), order=order)
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(array, protocol=protocol))
    found = load_pickle(path)
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, array)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(AmesError, match="not a pickle, or a damaged one"):
        load_pickle(path)


@pytest.mark.parametrize("name", CONTENT)
def test_a_large_file_of_something_else_is_read(tmp_path, monkeypatch, name):
    monkeypatch.setattr(pickles, "_LARGE", 0)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(CONTENT[name]))
    assert_same(load_pickle(tmp_path / "x.pkl"), CONTENT[name])
    large = [np.arange(9000.0), torch.arange(9000), b"x" * 9000]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"large": large}))
    for found, expected in zip(load_pickle(tmp_path / "x.pkl")["large"], large, strict=True):
        assert_same(found, expected)


def test_a_large_pickle_that_would_execute_code(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "_LARGE", 0)
    calls = Call(bytes.__add__, b"x" * 9000, b""), Call(os.mkdir, str(tmp_path / "executed"))
    for content in (calls[1], [np.zeros(9000), calls[1]], calls):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(AmesError, match="the pickle asks for"):
            load_pickle(tmp_path / "x.pkl")
    assert not (tmp_path / "executed").exists()
