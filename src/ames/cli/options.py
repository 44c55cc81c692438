"""Options and help that several commands share."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, Protocol

from ames.io.console import natural


class Shown(Protocol):
    """A result as a terminal, a program and a browser show it."""

    def text(self) -> str: ...

    def as_dict(self) -> dict[str, Any]: ...

    def write_page(self, path: Path, *, title: str) -> Path: ...


def show(args: argparse.Namespace, found: Shown, *, title: str) -> None:
    """Write the page that ``--out`` names, and print JSON, or text and the page's path."""
    page = args.out and found.write_page(args.out, title=title)
    if args.json:
        print(json.dumps(found.as_dict(), indent=1))
    else:
        print(found.text())
        if page:
            print(page)


def add_collection(parser: argparse.ArgumentParser) -> None:
    """Add the folder of a collection, ``DB``."""
    parser.add_argument("database", type=Path, metavar="DB", help="folder of the collection")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``, by default as many as there are cores, at most 8."""
    count = min(os.cpu_count() or 1, 8)
    parser.add_argument("--workers", type=natural, default=count, help=f"processes, 0: none ({count})")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` and ``--quiet``; ``tell_progress`` heeds them."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="print no messages but errors")


def add_examples(parser: argparse.ArgumentParser, *commands: str) -> None:
    """Show commands at the end of a help text."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "examples:\n" + "\n".join(f"  {command}" for command in commands)


def tell_progress(args: argparse.Namespace) -> None:
    """Show on stderr what the library says, unless a command is to be quiet; not what OpenCV says."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # damaged photos are named
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("ames")
    logger.handlers = [handler]
    logger.setLevel(logging.ERROR if args.quiet else logging.INFO)


def box(text: str) -> tuple[float, ...]:
    """X1,Y1,X2,Y2 in pixels."""
    try:
        sides = tuple(float(side) for side in text.split(","))
    except ValueError:
        sides = ()
    if len(sides) != 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not a box X1,Y1,X2,Y2 in pixels")
    return sides
