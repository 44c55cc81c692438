"""Options and help that several commands share."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from ames.io.console import natural


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
