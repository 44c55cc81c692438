"""Every command of the README and of docs/ is one that its parser takes as it is written.

``ames`` and scripts: their argparse parsers; src/*.py: Hydra's configuration. Nothing is run.
"""

import re
import runpy
import shlex

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from ames.cli.main import _parser
from ames.config.launch import arranged, read_override
from helpers.commands import ROOT

TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = {"evaluate": "test", "train": "train", "train_detector": "detector", "extract": "extract"}
# What stands for something else, as the text around it says.
PLACEHOLDERS = {"...": [], "…": [], "$DATA": ["data"], "${PWD}": ["."], "$OUT": ["out"]}
OMITTED = {"extract": {"...": ["--images", "PHOTOS"]}}
# Commands of other programs, and scripts whose parser is not to be had without their work.
NOT_PARSED = {
    "make": "this project's Makefile: the names of its targets are checked",
    "pip": "installs packages; tests/test_distribution.py looks at the names",
    "cd": "the shell's",
    "ln": "the system's",
    "scripts/benchmark.py": "takes minutes; tests/search/test_exact.py runs it",
    "scripts/download.py": "tests/io/test_download.py runs it",
    "scripts/train_rootsift.py": "takes hours",
    "extract/merge_hdf5.py": "tests/commands/test_published.py runs it",
}


def blocks(path, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", path.read_text(), flags=re.M | re.S)


def commands(path):
    """The words of each command of the fenced blocks, in order, with the shell's variables put in."""
    variables = {}
    for block in blocks(path, "sh"):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            words = shlex.split(line, comments=True)
            assigned = re.fullmatch(r"(\w+)=(.*)", words[0], flags=re.S) if len(words) == 1 else None
            if assigned:
                variables[f"${assigned[1]}"] = shlex.split(assigned[2])
            elif words:
                words = [x for word in words for x in variables.get(word, [word])]
                yield from split(words)


def split(words):
    """The commands between ``&&``."""
    if "&&" not in words:
        return [words]
    at = words.index("&&")
    return [words[:at], *split(words[at + 1 :])]


def without_launcher(words):
    """A command without what starts it on several machines or processes."""
    if words[0] == "srun":
        words = words[1:]
    if words[0] != "torchrun":
        return words
    words = words[1:]
    while words[0].startswith("--"):
        words = words[1 if "=" in words[0] or words[0] in ("--standalone", "--no-python") else 2 :]
    return words if words[0] == "ames" else ["python", *words]


def program(words):
    """(program, its words): ``ames``, or a script's place in the repository, or another's name."""
    name, *rest = without_launcher(words)
    name = name.removeprefix(".venv/bin/")
    if name in ("python", "python3"):
        name, *rest = [word for word in rest if word != "-u"]
    return name, rest


def filled(words, more):
    for word in words:
        if word in more:
            yield from more[word]
        else:
            for key, value in PLACEHOLDERS.items():
                word = word.replace(key, "".join(value))
            if word:
                yield word


def first(word):
    """An override of one job in place of those of several."""
    override = read_override(word)
    if not override.is_sweep_override():
        return word
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def check_configuration(script, words):
    given = [w for w in arranged(script, words) if not w.startswith(("--", "hydra"))]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        compose(CONFIGS[script], [first(word) for word in given])


ALL = [(path.name, words) for path in TEXTS for words in commands(path)]


def test_commands_are_found():
    assert len(ALL) > 70
    assert {name for name, _ in ALL} >= {"README.md", "extraction.md", "reproduce.md", "training.md"}


@pytest.mark.parametrize(("name", "words"), ALL, ids=lambda x: " ".join(x)[:60] if isinstance(x, list) else x)
def test_a_command_is_taken_as_it_is_written(name, words):
    place, given = program(words)
    if place == "make":
        assert re.search(rf"^{given[0]}:", (ROOT / "Makefile").read_text(), flags=re.M)
    elif place == "ames":
        _parser().parse_args(list(filled(given, OMITTED.get(given[0], {}))))
    elif place in NOT_PARSED:
        assert "/" not in place or (ROOT / place).is_file()
    elif place.startswith("src/"):
        script = place.removeprefix("src/").removesuffix(".py")
        words = ["--multirun", *given] if "--multirun" not in given else given
        check_configuration(script, list(filled(words, {})))
    else:
        runpy.run_path(str(ROOT / place))["_parser"]().parse_args(list(filled(given, {})))


@pytest.mark.parametrize(
    "words", ["ames prepar data/x", "python src/train.py epoch=3", "ames extract --photos x -o y", "wget x"]
)
def test_a_command_that_is_wrong_or_new_is_not_taken(words):
    with pytest.raises((SystemExit, HydraException, FileNotFoundError)):
        test_a_command_is_taken_as_it_is_written("", words.split())
