"""How a command reads its words and how it ends: one line on stderr for whatever is wrong."""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TextIO, TypeVar

from ames.errors import AmesError, first_line

T = TypeVar("T")

_UNREAD = 141  # the status of a program that SIGPIPE ends, which shells expect


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage that would push it out of sight."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def run_script(command: str, main: Callable[[], T]) -> T:
    """Call a script's ``main``; wrong input is one line on stderr and status 2, Ctrl-C one and 130."""
    with ends_with_its_reader():
        try:
            return main()
        except (AmesError, OSError, KeyboardInterrupt) as error:
            status = tell(command, error)
            if status is None:
                raise
            sys.exit(status)


@contextmanager
def ends_with_its_reader() -> Iterator[None]:
    """End the process with status 141, without a word, where nobody reads its output any more (| head)."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # what is left is refused here, not at the interpreter's end
    except BrokenPipeError:
        unread = [stream for stream in (sys.stdout, sys.stderr) if _is_unread(stream)]
        if not unread:  # another pipe, such as a worker's
            raise
        for stream in unread:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # takes what is left
        sys.exit(_UNREAD)


def _is_unread(stream: TextIO | None) -> bool:
    """Whether the stream is a pipe that nobody reads."""
    with suppress(AttributeError, OSError, ValueError):  # no stream, not a file's, closed; no poll
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # type: ignore[union-attr]
        return any(event & select.POLLERR for _, event in poll.poll(0))
    return False


def tell(command: str, error: BaseException) -> int | None:
    """Print in one line on stderr why a command ends; return the exit status, or None for a defect.

    An OSError that names a file is the system's word on that file: a name that is too long, no permission.
    """
    if isinstance(error, KeyboardInterrupt):
        text, status = "interrupted", 130
    elif isinstance(error, AmesError):
        text, status = first_line(error), 2
    elif isinstance(error, OSError) and error.filename is not None:
        text, status = f"{error.filename}: {error.strerror}", 2
    else:
        return None
    print(f"{command}: {text}", file=sys.stderr)
    return status


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (cpu)")


def check_device(name: str, *, option: str = "--device") -> None:
    """AmesError if torch cannot use the device here. option: as the caller calls it."""
    import torch

    if not isinstance(name, str):
        raise AmesError(f"{option} {name}: cannot be used here; give torch's name, such as cpu or cuda")
    try:
        torch.zeros(1, device=name).cpu()
    except Exception as error:  # what torch raises differs
        raise AmesError(f"{option} {name}: cannot be used here ({first_line(error)})") from error


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """A whole number of 0 or more."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
    return value
