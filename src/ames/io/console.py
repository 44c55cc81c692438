"""How a command reads its words and how it ends: one line on stderr for whatever is wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from ames.errors import AmesError, first_line

T = TypeVar("T")


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage that would push it out of sight."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def run_script(command: str, main: Callable[[], T]) -> T:
    """Call a script's ``main``; wrong input is one line on stderr and status 2, Ctrl-C one and 130."""
    try:
        return main()
    except (AmesError, OSError, KeyboardInterrupt) as error:
        status = tell(command, error)
        if status is None:
            raise
        sys.exit(status)


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
