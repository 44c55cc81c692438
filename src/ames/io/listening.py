"""Capture expected lines that C code prints during a call.

C prints to the variable ``stderr``, which the C libraries of Linux and macOS let a program replace: it is a
pipe during a call. File descriptor 2 is unchanged, and so are Python's stderr and other processes.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")
# The variable, and what tells a C library in which it may be set: in others its memory is read only.
_VARIABLES = (("stderr", "gnu_get_libc_version"), ("__stderrp", "__stderrp"))  # glibc; macOS
_UNBUFFERED = 2  # C's _IONBF
_READ = 65_536  # bytes at a time, the most that a pipe holds


class Ear:
    """Captures lines that ``expected`` matches; others are printed where they belong, a moment later.

    Several threads may be listened to at once; a line may then be of any of them, so repeat the work alone.
    One object per process, as there is one ``stderr``; a forked child has its own.
    """

    def __init__(self, expected: re.Pattern[bytes], variable: ctypes.c_void_p) -> None:
        self._expected, self._variable = expected, variable
        self._prepare()
        os.register_at_fork(after_in_child=self._after_fork)

    @classmethod
    def open(cls, expected: re.Pattern[bytes]) -> Ear | None:
        """None where C's ``stderr`` is no variable that can be reached."""
        if os.name != "posix":
            return None
        library = ctypes.CDLL(None)
        for name, sign in _VARIABLES:
            if hasattr(library, sign):
                return cls(expected, ctypes.c_void_p.in_dll(library, name))
        return None

    def among_others(self, work: Callable[[], Result]) -> tuple[Result, bool]:
        """Return the result of ``work``, and whether this or another thread printed a line meanwhile."""
        with self._changed:
            while self._exclusive:
                self._changed.wait()
            before = self._heard
            self._begin()
        try:
            result = work()
        finally:
            self._end()
        return result, self._heard > before

    def alone(self, work: Callable[[], object]) -> list[str]:
        """The lines of ``work``, during which no other thread is listened to."""
        with self._one:
            try:
                with self._changed:
                    self._exclusive = True  # nobody else begins
                    while self._active:
                        self._changed.wait()
                    self._lines.clear()
                    self._begin()
                try:
                    work()
                finally:
                    self._end()
                return [line.decode(errors="replace").rstrip() for line in self._lines]
            finally:
                with self._changed:
                    self._exclusive = False
                    self._changed.notify_all()

    def _begin(self) -> None:
        if not self._active:
            self._original = self._variable.value
        self._active += 1  # before the change: a child forked now restores the variable
        self._variable.value = self._stream

    def _end(self) -> None:
        with self._changed:
            self._take()
            if self._active == 1:
                self._variable.value = self._original
                self._changed.notify_all()
            self._active -= 1

    def _take(self) -> None:
        said = b""
        try:
            while part := os.read(self._pipe, _READ):
                said += part
        except BlockingIOError:  # that is all of it
            pass
        for line in said.splitlines(keepends=True):
            if self._expected.match(line):
                self._heard += 1
                if self._exclusive:
                    self._lines.append(line)
            elif sys.__stderr__ is not None:  # None: it was closed, and 2 may be any file by now
                with suppress(OSError):
                    os.write(2, line)

    def _prepare(self) -> None:
        self._changed, self._one = threading.Condition(), threading.Lock()
        self._active, self._heard, self._exclusive = 0, 0, False
        self._lines: list[bytes] = []
        self._pipe, end = _pipe()
        library = ctypes.CDLL(None)
        library.fdopen.restype = ctypes.c_void_p
        library.setvbuf.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
        self._stream = library.fdopen(end, b"w")
        library.setvbuf(self._stream, None, _UNBUFFERED, 0)

    def _after_fork(self) -> None:
        """In the child, where none of the other threads is; the parent's pipe is not its own."""
        if self._active:
            self._variable.value = self._original
        self._prepare()


def _pipe() -> tuple[int, int]:
    """Both ends, neither of which makes a thread wait, nor is in the place of a closed stdin or stderr."""
    import fcntl  # there is none on Windows

    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends]
    for end in ends:
        os.close(end)
    for end in moved:
        os.set_blocking(end, False)
    return moved[0], moved[1]
