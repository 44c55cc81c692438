"""A Hydra command: its words, its launch, and what it says in one line where one of them is wrong."""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError
from yaml.reader import ReaderError

from ames.config.values import plain
from ames.errors import AmesError, first_line
from ames.io import package
from ames.io.console import OneLineParser, ends_with_its_reader, run_script

T = TypeVar("T")

CONF = str(package.CONF)
_FILES = {
    "evaluate": "test",
    "train_detector": "detector",
    "train_embedder": "embedder",
}  # of commands that are called otherwise
GROUPS = ("dataset", "descriptors", "experiment", "fusion", "method", "model", "network")  # folders of conf/


# ---- launching ----------------------------------------------------------------------------------------


def launch(command: str, main: Callable[[], Any]) -> None:
    """Call a Hydra entry point. What Hydra refuses (unknown keys, values, files of conf/) becomes one line on
    stderr and exit status 2, unless HYDRA_FULL_ERROR asks for the traceback.
    """
    with ends_with_its_reader():
        _launch(_called(command), main, _FILES.get(command, command))


def _called(command: str) -> str:
    """What the command was called: "ames train", or the script's name."""
    return sys.argv[0] if sys.argv[0].startswith("ames ") else command


def _launch(command: str, main: Callable[[], Any], file: str) -> None:
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # which build it is does not matter to anyone
    full = os.environ.setdefault("HYDRA_FULL_ERROR", "0") not in ("", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints several lines itself and exits with 1
    try:
        with _folders_of_others() as more:
            sys.argv[1:] = run_script(command, lambda: arranged(command, sys.argv[1:], more))
            main()
    except Exception as error:
        text = _said(error, file)
        if full or text is None:
            raise
        print(f"{command}: {text}", file=sys.stderr)
        sys.exit(2)


def _said(error: Exception, file: str) -> str | None:
    """One line on a wrong configuration, which ``file`` of conf/ begins; None for a defect."""
    group = re.match(r"Could not override '([^']+)'", str(error))
    if group and re.search("No match in the defaults list|append to your default list", str(error)):
        text = (Path(CONF) / f"{file}.yaml").read_text(encoding="utf-8")
        known = re.findall(r"^  - ((?:\w+@)?\w+):", text, re.MULTILINE)
        return f"{group[1]}: the command has no such group; its groups are {', '.join(known)}"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        parts = [first_line(x).rstrip(".") for x in (error, error.__cause__) if x is not None]
        if isinstance(error, MissingConfigException) and error.options:
            parts.append(f"choose one of {', '.join(error.options)}")
        return _with_key(": ".join(parts), error)
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark
        place = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "a configuration"
        return f"{place}: not YAML ({error.problem or error.context})"
    if isinstance(error, ReaderError):
        return f"{error.name}: not YAML, at character {error.position} ({error.reason})"
    if isinstance(error, UnicodeDecodeError):  # which file it is of, only another look can tell
        return f"{_undecodable(sys.argv[1:])}: not a text file ({error.reason})"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"{str(error.filename)[-100:]}: the name of a file of conf/ that is too long"
    if str(error).startswith("Config group override must be"):
        return str(group_without_file(sys.argv[1:]))
    settings = [word for word in sys.argv[1:] if word.lstrip("+~").startswith("hydra.")]
    if settings and _raised_by_hydra(error):
        return f"{' '.join(settings)}: Hydra cannot use it ({first_line(error)})"
    return None


def _raised_by_hydra(error: Exception) -> bool:
    """Whether no line of a command was running inside of Hydra."""
    names = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)]
    inner = names[next((i for i, name in enumerate(names) if name.startswith("hydra")), len(names)) :]
    return bool(inner) and not any(name == "__main__" or name.startswith("ames") for name in inner)


def _undecodable(words: Sequence[str]) -> str:
    """The first file below the folder of one's own configurations that is not UTF-8."""
    folder = get_args_parser().parse_known_args(list(words))[0].config_dir
    for path in sorted(Path(folder).rglob("*.yaml")) if folder else ():
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return str(path)
    return "a file of conf/"


def _with_key(line: str, error: Exception) -> str:
    """The first line of an error, and the key: OmegaConf says it on a further one."""
    key = getattr(error, "full_key", None)
    return f"{key}: {line}" if key and key not in line else line


@contextmanager
def _folders_of_others() -> Iterator[list[str]]:
    """Yield the overrides by which only the first of several processes (torchrun) keeps its run folder."""
    if int(os.environ.get("RANK", 0)) == 0:
        yield []
        return
    with TemporaryDirectory() as folder:
        words = [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}"]
        yield [*words, "hydra.output_subdir=null", "hydra/job_logging=none"]


def run(command: str, task: Callable[[DictConfig], T], config: DictConfig) -> T:
    """Run a command's task on its configuration; a wrong configuration is one line and status 2."""

    def checked() -> T:
        check_added(config)
        try:
            return task(config)
        except OmegaConfBaseException as error:
            raise AmesError(_with_key(first_line(error), error)) from error

    return run_script(_called(command), checked)


def given_words() -> list[Override]:
    """The overrides of the command line; none outside of a Hydra command."""
    if not HydraConfig.initialized():
        return []
    return [read_override(word) for word in plain(HydraConfig.get().overrides.task, resolve=False)]


def check_added(config: DictConfig) -> None:
    """AmesError for ``+KEY=VALUE`` where nothing reads KEY; it names the nearest key.

    Hydra accepts any new key. Those of a model reach its constructor, which refuses what it does not know.
    """
    hydra = HydraConfig.get()
    folders = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    top, data = _keys(folders, "*.yaml"), _keys(folders, "dataset/**/*.yaml")
    for override in given_words():
        key = override.key_or_group
        if not (override.is_add() or override.is_force_add()) or any((x / key).is_dir() for x in folders):
            continue
        first, *rest = key.split(".")
        if not rest:
            known = override.is_force_add() and key in top
        else:
            known = rest[0] in data if first.endswith("_dataset") else first in top
        if not known:
            near = _nearest(key, plain(config, resolve=False))
            raise AmesError(f"{override.input_line}: the command has no key {key}{near}")


def _keys(folders: list[Path], pattern: str) -> set[str]:
    """Outermost keys of the files, those of their defaults lists included."""
    files = [path for folder in folders for path in folder.glob(pattern)]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    return {key for text in texts for key in re.findall(r"^(?:  - (?:\w+@)?)?(\w+):", text, re.MULTILINE)}


def _nearest(key: str, tree: dict[str, Any]) -> str:
    """What to say of the key of ``tree`` that is spelled most like ``key``, first of those beside it."""
    group, _, name = key.rpartition(".")
    keys = {other: other for other in tree}
    for parent in sorted(tree, key=lambda x: x == group):  # the last one counts
        if isinstance(tree[parent], dict):
            keys |= {other: f"{parent}.{other}" for other in tree[parent]}
    found = get_close_matches(name, [other for other, path in keys.items() if path != key], 1)
    return f"; the nearest is {keys[found[0]]}" if found else ""


# ---- words --------------------------------------------------------------------------------------------


def arranged(command: str, words: Sequence[str], more: Sequence[str] = ()) -> list[str]:
    """Return the words, overrides before flags: Hydra refuses overrides on both sides of a flag.

    more: overrides that win over the given ones. AmesError for an override that Hydra cannot read; an unknown
    flag ends the process with one line and status 2.
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
    """The override in quotes for a shell, after a colon; nothing where Hydra would read another value."""
    key, _, value = word.partition("=")
    text = value.replace('"', '\\"')
    quoted = f'{key}="{text}"'
    try:
        same = OverridesParser.create().parse_override(quoted).value()
    except HydraException:
        return ""
    return f": {shlex.quote(quoted)}" if str(same) == value else ""
