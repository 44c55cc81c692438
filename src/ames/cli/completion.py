"""``ames completion``: a script that completes commands, options and paths in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ames.errors import AmesError

SHELLS = ("bash", "zsh", "tcsh")


def register(commands: Any, parser: Callable[[], argparse.ArgumentParser]) -> None:
    """Add the command to the sub-parsers of ``ames``; ``parser`` makes the whole command line."""
    completion = commands.add_parser(
        "completion",
        help="print a completion script for a shell",
        description='Print a script that completes the words of ames: eval "$(ames completion bash)"',
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=lambda args: print(script(parser(), args.shell)))


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script; arguments that are paths complete file names."""
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise AmesError("completion needs shtab: pip install 'ames-retrieval[completion]'") from error
    _complete_paths(parser, shtab.FILE)
    return str(shtab.complete(parser, shell))


def _complete_paths(parser: argparse.ArgumentParser, files: Any) -> None:
    for action in parser._actions:
        if action.type is Path:
            action.complete = files  # type: ignore[attr-defined]  # where shtab looks for it
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_paths(command, files)
