"""Documentation names modules, functions, files and headings that exist."""

import functools
import importlib
import re

import pytest

from helpers.commands import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
DOTTED = re.compile(r"\bames(?:_retrieval)?(?:\.[A-Za-z_]\w*)+")
IMPORT = re.compile(r"^from (ames[\w.]*) import (.+)$", re.MULTILINE)
TOPS = r"(?:src|tests|conf|docs|extract|scripts)"
# Everywhere: a path below a folder of the repository. In back-ticks: the name of a source file, too.
PLACE = re.compile(rf"(?<![\w/.<-]){TOPS}/[\w./*-]*[\w/*]")
SOURCE = re.compile(r"`(?:[\w-]+/)*[\w-]+\.(?:py|md|toml)`")
# A name, a method, a call: `Retriever.open`, `score(query)`. Other back-ticks hold commands, paths, values.
CODE = re.compile(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\([^`]*\))?`")
# Put together from parts; of Slurm and of Hydra's launcher.
ELSEWHERE = {"_cls", "E_map", "priv_map", "k1_map", "whole_map", "srun", "submitit_local"}
LINK = re.compile(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)")
# What docs/extending.md adds to a copy of the repository (test_extending.py).
ADDED = {
    "ames.models.soft_chamfer",
    "ames.models.soft_chamfer.SoftChamfer",
    "src/ames/models/soft_chamfer.py",
    "src/ames/weights/soft_chamfer.safetensors",
    "conf/model/soft_chamfer.yaml",
}


def missing_name(dotted):
    """None, or the part of a dotted name that does not exist."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if not ".".join(parts[:cut]).startswith(str(error.name)):
                raise
            continue
        for part in parts[cut:]:
            if not hasattr(found, part) and part not in getattr(found, "__annotations__", {}):
                return dotted
            found = getattr(found, part, None)
        return None
    return dotted


def missing_paths(text):
    """Paths of the repository, and names of source files, that a text mentions and that do not exist."""
    sources = [
        path for top in ("src", "tests", "docs", "extract", "scripts") for path in (ROOT / top).rglob("*.*")
    ]
    sources += [path for path in ROOT.glob("*.*") if path.is_file()]
    known = ["/" + path.relative_to(ROOT).as_posix() for path in sources]
    found = [place for place in PLACE.findall(text) if not any(ROOT.glob(place.rstrip("/")))]
    names = [name.strip("`") for name in SOURCE.findall(text)]
    return found + [name for name in names if not any(path.endswith("/" + name) for path in known)]


@functools.cache
def words_of_the_code():
    """Every word of sources and configuration."""
    places = (
        "src/**/*.py",
        "scripts/**/*.py",
        "extract/*.py",
        "conf/**/*.yaml",
        "*.py",
        "*.toml",
        "Makefile",
    )
    return {
        word
        for place in places
        for path in ROOT.glob(place)
        for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))
    }


def unknown_words(text):
    """Names in back-ticks of which a part is in no source."""
    names = {
        name for name in CODE.findall(text) if not re.search(r"\.(?:py|md|json|pt|pkl|npz|csv|db)$", name)
    }
    return sorted(n for n in names if not set(n.split(".")) <= words_of_the_code() | ELSEWHERE)


def headings(path):
    lines = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize(
    ("name", "exists"),
    [
        ("ames.features.LocalFeatures.from_descriptors", True),
        ("ames.models.base.Similarity.code_bytes", True),  # declared, and set by each model
        ("ames.features", True),
        ("ames.features.LocalFeatures.nothing", False),
        ("ames.nothing.make_landmarks", False),
    ],
)
def test_which_names_count_as_missing(name, exists):
    assert (missing_name(name) is None) == exists


def test_which_paths_count_as_missing():
    text = "`scorer.py`, `layers/attention.py` and src/train.py; see `tests/nothing/`, `none.py`, `src/*.py`"
    assert missing_paths(text) == ["tests/nothing/", "none.py"]


def test_which_words_count_as_unknown():
    text = (
        "`PairScorer`, `Retriever.open`, `score(query)`, `nn_x.pkl`; `Retriever.shut_down`, `NoSuchThing(1)`"
    )
    assert unknown_words(text) == ["NoSuchThing", "Retriever.shut_down"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_path_and_link_of_the_documentation_exists(page):
    text = page.read_text()
    names = set(DOTTED.findall(re.sub(r"ames-retrieval\S*", "", text)))
    for module, imported in IMPORT.findall(text):
        names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    assert [name for name in sorted(names - ADDED) if missing_name(name)] == []
    assert set(missing_paths(text)) <= ADDED
    assert set(unknown_words(text)) <= ADDED
    for target, heading in LINK.findall(text):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        assert not heading or heading in headings(path), f"{target}#{heading}"


def test_architecture_lists_the_rooms_that_exist_and_no_other():
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.split("## The rooms")[1].split("\n## ")[0]
    first_cells = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
    listed = [room for cell in first_cells for room in re.findall(r"`([\w/]+)`", cell)]
    package = ROOT / "src" / "ames"
    assert sorted(listed) == sorted(
        path.parent.relative_to(package).as_posix() for path in package.glob("*/**/__init__.py")
    )
    assert len(text.splitlines()) <= 70
