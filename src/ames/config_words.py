"""The words of a Hydra command line: put in an order that Hydra takes, or refused in one line each."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from ames.arguments import OneLineParser
from ames.errors import AmesError, first_line

GROUPS = ("dataset", "descriptors", "experiment", "model")  # folders of conf/


def arranged(command: str, words: Sequence[str], more: Sequence[str] = ()) -> list[str]:
    """The same words, overrides before flags: Hydra refuses overrides on both sides of a flag.

    more: overrides behind the given ones, over which they win. AmesError for an override that Hydra cannot
    read; flags that it does not have end the process with one line and status 2.
    """
    parser = OneLineParser(prog=command, add_help=False, parents=[get_args_parser()])
    args = parser.parse_intermixed_args(words)
    if args.shell_completion:
        return [*words, *more]
    flags = list(words)
    for word in reversed(args.overrides):
        del flags[len(flags) - 1 - flags[::-1].index(word)]
    found = [read_override(word) for word in args.overrides]
    if not args.multirun and not any(one.key_or_group == "hydra.mode" for one in found):
        for word, one in zip(args.overrides, found, strict=True):
            if one.is_sweep_override():
                raise AmesError(
                    f"{word}: several values; add --multirun for a job each, write [A,B] for a list, or "
                    f"quote what is text{_quoted(word)}"
                )
    return [*args.overrides, *more, *flags]


def read_override(word: str) -> Override:
    """What Hydra makes of KEY=VALUE. AmesError that names the word, and says how text is quoted."""
    key, equals, value = word.partition("=")
    try:
        found = OverridesParser.create().parse_override(word)
        if key:
            return found
        reason = "the key is missing"
    except HydraException as error:
        reason = first_line(error)
    if not equals or not _is_key(key):
        raise AmesError(f"{word}: cannot be read ({reason}); give KEY=VALUE")
    if "${" in value:
        raise AmesError(f"{word}: cannot be read ({reason}); ${{KEY}} stands for another key's value")
    close = "close the bracket, or " if value[:1] in ("[", "{") else ""
    raise AmesError(f"{word}: cannot be read ({reason}); {close}quote what is text{_quoted(word)}")


def group_without_file(words: Sequence[str]) -> AmesError:
    """For what Hydra raises where a group of files is given something else than a name, such as null."""
    wrong = [word for word in words if word.split("=")[0].split("@")[0].lstrip("+") in GROUPS]
    wrong = [word for word in wrong if not isinstance(read_override(word).value(), (str, list))]
    group = wrong[-1].split("@")[0].split("=")[0].lstrip("+") if wrong else "GROUP"
    return AmesError(f"{' '.join(wrong)}: give the name of a file of conf/{group}, or leave it out")


def _is_key(key: str) -> bool:
    try:
        OverridesParser.create().parse_override(f"{key}=1")
    except HydraException:
        return False
    return bool(key)


def _quoted(word: str) -> str:
    """The override with quotes, as a shell takes it, behind a colon; nothing where it would be read as
    something else.
    """
    key, _, value = word.partition("=")
    text = value.replace('"', '\\"')
    quoted = f'{key}="{text}"'
    try:
        same = OverridesParser.create().parse_override(quoted).value()
    except HydraException:
        return ""
    return f": {shlex.quote(quoted)}" if str(same) == value else ""
