"""Every command of the README and of docs/ is one that its parser takes as it is written.

``ames`` and scripts: their argparse parsers; src/*.py: Hydra's configuration. Nothing is run:
test_running.py runs what it can.
"""

import re
import runpy

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from ames.cli.main import HYDRA, _parser
from ames.config.launch import arranged, read_override
from helpers.commands import ROOT
from helpers.documents import commands, program

# test_extending.py runs the commands of the last one, which are of a model that the page adds.
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS.remove(ROOT / "docs" / "extending.md")
CONFIGS = {"evaluate": "test", "train": "train", "train_detector": "detector", "extract": "extract"}
CONFIGS["train_embedder"] = "embedder"
# What stands for something else, as the text around it says.
PLACEHOLDERS = {"...": [], "…": [], "$DATA": ["data"], "${PWD}": ["."], "$OUT": ["out"]}
OMITTED = {"extract": {"...": ["--images", "PHOTOS"]}}
# Commands of other programs, and scripts whose parser is not to be had without their work.
NOT_PARSED = {
    "make": "this project's Makefile: the names of its targets are checked",
    "pip": "installs packages; tests/test_distribution.py looks at the names",
    "cd": "the shell's",
    "ln": "the system's",
    "curl": "the system's",
    "scripts/benchmark.py": "takes minutes; tests/global_search/test_exact.py runs it",
    "scripts/download.py": "tests/io/test_download.py runs it",
    "scripts/train_shipped.py": "takes hours",
    "scripts/fetch_photographs.py": "fetches a gigabyte",
    "extract/merge_hdf5.py": "tests/commands/test_published.py runs it",
}


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


ALL = [(path.name, words) for path in TEXTS for words in commands(path.read_text())]


def test_commands_are_found():
    assert len(ALL) > 70
    assert {name for name, _ in ALL} >= {"README.md", "extraction.md", "reproduce.md", "training.md"}


@pytest.mark.parametrize(("name", "words"), ALL, ids=lambda x: " ".join(x)[:60] if isinstance(x, list) else x)
def test_a_command_is_taken_as_it_is_written(name, words):
    place, given = program(words)
    if place == "make":
        assert re.search(rf"^{given[0]}:", (ROOT / "Makefile").read_text(), flags=re.M)
    elif place == "ames" and given[0] in HYDRA:
        check_configuration(given[0].replace("-", "_"), list(filled(given[1:], {})))
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
