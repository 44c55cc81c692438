"""Pickles read without executing anything: containers, numbers, text, numpy arrays and torch tensors.

A pickle is a program: it names functions and calls them. The published shortlists and ground truths need
a few harmless names; this reader knows those, in implementations of its own, and refuses every other.
"""

from __future__ import annotations

import collections
import io
import math
import os
import pickle
import pickletools
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch

from ames.errors import AmesError, first_line
from ames.io.claims import check_pickle

_LARGE = 2**28  # bytes of a file from which an array is mapped
_HEAD = 4096  # bytes in which all but the array's content has its place


def load_pickle(path: Path | str) -> Any:
    """Content of a pickle: plain containers, numbers, text, numpy arrays and scalars, torch tensors.

    A pickle of one large array (training shortlists of 18 GB) is not read but mapped into memory.

    Raises AmesError naming the file when it is missing, empty, cut off or no pickle, when it claims more
    than its length can hold, and when it names anything else, which is neither imported nor called.
    """
    path = Path(path)
    if not path.is_file():
        raise AmesError(f"{path}: no such file")
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's storages and numpy's alignment
            check_pickle(path)
            if path.stat().st_size >= _LARGE:
                mapped = _mapped(path, file)
                if mapped is not None:
                    return mapped
                file.seek(0)
            return _Reader(file, encoding="latin1").load()  # what numpy arrays of Python 2 are encoded in
    except _RefusedError as error:
        raise AmesError(
            f"{path}: the pickle asks for {error}, which is refused; nothing of it was executed"
        ) from None
    except OSError as error:
        raise AmesError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # what is no pickle can stop the unpickler in any way
        raise AmesError(f"{path}: not a pickle, or a damaged one ({first_line(error)})") from error


def _mapped(path: Path, file: BinaryIO) -> np.ndarray | None:
    """Map the array that the pickle is; None where it is something else.

    The pickle without the array's bytes is read with a random mark in their place.
    """
    head = file.read(_HEAD)
    stream, position = io.BytesIO(head), 0
    try:
        for _ in pickletools.genops(stream):
            position = stream.tell()
        return None
    except ValueError:  # the first thing that reaches beyond the head
        pass
    form = {b"B": "<I", b"\x8e": "<Q", b"\x96": "<Q"}.get(head[position : position + 1])
    if form is None or len(head) < position + 9:
        return None
    (length,) = struct.unpack_from(form, head, position + 1)
    start = position + 1 + struct.calcsize(form)
    file.seek(start + length)
    tail, mark = file.read(_HEAD), os.urandom(16)
    if file.read(1):
        return None
    spliced = io.BytesIO(head[:position] + b"C\x10" + mark + tail)
    try:
        stand_in = _StandInReader(spliced, encoding="latin1").load()
    except _RefusedError:
        raise
    except Exception:  # of another build; what is wrong with it shows when it is read as a whole
        return None
    if not isinstance(stand_in, _StandIn) or not stand_in.state:
        return None
    shape, dtype, fortran, data = stand_in.state
    dtype = _plain(dtype)
    if data != mark or dtype.itemsize * math.prod(shape) != length or not length:
        return None
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")


class _StandIn:
    """An array that only keeps its arguments: (shape, dtype, fortran, data)."""

    __slots__ = ("state",)

    def __init__(self, *state: Any) -> None:
        self.state = state

    def __setstate__(self, state: Any) -> None:
        self.state = tuple(state[1:])  # after the version


class _RefusedError(pickle.UnpicklingError):
    """A name that is not on the list."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _KNOWN.get((module, name))
        if found is None:
            raise _RefusedError(f"{module}.{name}")
        return found

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _RefusedError("an object outside of the file")


class _StandInReader(_Reader):
    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if found is _ARRAY:
            return _Function(lambda *_: _StandIn())
        if found is _BUFFER:
            return _Function(lambda x, dtype, shape, order: _StandIn(shape, dtype, order == "F", bytes(x)))
        return found


class _Function:
    """A function that a pickle may call but not alter, as it could set the state of any other object."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise _RefusedError(f"a new {name} of a function")

    def __setstate__(self, state: Any) -> NoReturn:
        raise _RefusedError("a new state of a function")


class _Dtype:
    """A dtype of numbers or text as a pickle describes it: its kind first, the byte order as its state."""

    __slots__ = ("dtype",)

    def __init__(self, text: str) -> None:
        dtype = np.dtype(text)
        if dtype.kind not in "biufcSU":
            raise _RefusedError(f"an array of dtype {dtype}")
        self.dtype = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array that checks what it is filled with; numpy itself trusts the pickle."""

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, fortran, data = state
        super().__setstate__((version, shape, _plain(dtype), fortran, data))


def _array(kind: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An empty array, which the pickle then fills (``numpy._core.multiarray._reconstruct``)."""
    return np.ndarray((0,), "b").view(_Array)


def _array_from_buffer(buffer: Any, dtype: Any, shape: tuple[int, ...], order: str) -> np.ndarray:
    """``numpy._core.numeric._frombuffer``, of pickle protocol 5."""
    return np.frombuffer(buffer, _plain(dtype)).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: Any, data: str | bytes = b"") -> np.generic:
    return np.frombuffer(_encoded(data), _plain(dtype), 1)[0]


def _never_called(*anything: Any) -> NoReturn:
    """``numpy.ndarray``: pickles name it and never call it."""
    raise _RefusedError("a call of numpy.ndarray")


def _plain(dtype: Any) -> np.dtype:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("an array without a dtype")
    return dtype.dtype


def _encoded(text: str | bytes, encoding: str = "latin1") -> bytes:
    """Bytes, as protocols before 3 write them (``_codecs.encode``)."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"the encoding {encoding!r}")
    return text.encode("latin1") if isinstance(text, str) else bytes(text)


def _bytearray(content: Any = b"", encoding: str = "latin1") -> bytearray:
    """``bytearray`` of bytes or text; of a number it would be as many zeros."""
    if not isinstance(content, (bytes, str)):
        raise pickle.UnpicklingError(f"a bytearray of a {type(content).__name__}")
    return bytearray(_encoded(content, encoding))


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> torch.Tensor:
    """``torch._utils._rebuild_tensor_v2``, which does not check that the view is inside the storage."""
    values = torch.tensor([], dtype=storage.dtype).set_(storage)
    size, stride = tuple(size), tuple(stride)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (math.prod(size) and last >= len(values)):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    if math.prod(size) > len(values):  # a stride of 0 repeats one value as often as is asked for
        raise pickle.UnpicklingError(f"a tensor claims {math.prod(size)} values of {len(values)}")
    return torch.as_strided(values, size, stride, offset)


_ARRAY, _SCALAR, _BUFFER = _Function(_array), _Function(_scalar), _Function(_array_from_buffer)

_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Function(_never_called),
    ("numpy", "dtype"): _Function(lambda text, *flags: _Dtype(str(text))),
    ("_codecs", "encode"): _Function(_encoded),
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_tensor),
    # torch's own would unpickle anything.
    ("torch.storage", "_load_from_bytes"): _Function(
        lambda data: torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    ),
}
for _core in ("numpy._core", "numpy.core"):  # numpy 2 and 1
    _KNOWN |= {
        (f"{_core}.multiarray", "_reconstruct"): _ARRAY,
        (f"{_core}.multiarray", "scalar"): _SCALAR,
        (f"{_core}.numeric", "_frombuffer"): _BUFFER,
    }
for _builtins in ("builtins", "__builtin__"):  # Python 3 and 2
    _KNOWN |= {(_builtins, kind.__name__): kind for kind in (set, frozenset, complex)}
    _KNOWN[_builtins, "bytearray"] = _Function(_bytearray)
    _KNOWN[_builtins, "bytes"] = _Function(lambda: b"")  # as protocols before 3 write empty ones
