"""The name on the package index is not the import's: nothing here leads to the other project of that name."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import ames
from ames.errors import installing
from helpers.commands import ROOT

SCRIPTS = [
    *sorted((ROOT / "src").glob("*.py")),
    *sorted((ROOT / "extract").glob("*.py")),
    *sorted((ROOT / "scripts").glob("*.py")),
]
# A command that installs, and among its words the bare name, with or without extras and versions.
OTHERS = re.compile(r"""\binstall\b[^\n`]*[\s'"=]ames(?=[\s'"`\[<>=~!),.;:]|$)""")


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def texts():
    """Every text of the checkout, but for the log of past changes."""
    made = {"data", "runs", "demo", "demo-photos", "outputs", "multirun", "build", "dist"}  # .gitignore's
    tops = [path for path in ROOT.iterdir() if path.name not in made | {".git"}]
    tops = [path for path in tops if not path.name.startswith((".venv", ".ruff", ".mypy", ".pytest"))]
    for path in (below for top in tops for below in (top.rglob("*") if top.is_dir() else [top])):
        if path.is_file() and path != Path(__file__):
            known = path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".cfg", ".sh"}
            if known or path.name in ("Makefile", "run"):
                yield path, path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("pip install ames", True),
        ("pip install 'ames[plot]'", True),
        ("`pip install ames`", True),
        ("uv pip install --upgrade ames==0.1", True),
        ("pip install 'ames-retrieval[plot]'", False),
        ("pip install -e '.[dev]'", False),
        ("pip uninstall ames", False),
        ("installed packages of ames", False),
    ],
)
def test_what_counts_as_installing_the_other_project(line, bad):
    assert bool(OTHERS.search(line)) == bad


def test_no_command_installs_the_other_project():
    assert {"README.md", "training.md", "trackers.py", "run"} <= {path.name for path, _ in texts()}
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path, text in texts()
        for line in text.splitlines()
        if OTHERS.search(line)
    ]
    assert not found


def test_the_name_is_said_once():
    assert project()["project"]["name"] == ames.DISTRIBUTION == "ames-retrieval"
    assert project()["project"]["version"] == ames.__version__
    for extra in project()["project"]["optional-dependencies"]:
        assert installing(extra) == f"pip install 'ames-retrieval[{extra}]'"
    written = [
        path.name for path, text in texts() if re.search(r"""(requires|version|files)\("ames"\)""", text)
    ]
    assert not written


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_comes_in_by_the_door(script):
    lines = script.read_text().splitlines()
    imports = [line for line in lines if re.match(r"\s*(from|import) ames[._ ]", line)]
    assert imports[0].startswith("import ames_retrieval.door"), imports[0]


def test_the_command_comes_in_by_the_door():
    assert project()["project"]["scripts"] == {"ames": "ames_retrieval.door:main"}
    for entry in metadata.entry_points(group="console_scripts", name="ames"):
        if entry.dist is not None and entry.dist.name == ames.DISTRIBUTION:
            assert entry.value == "ames_retrieval.door:main"


# ---- another package of the name ------------------------------------------------------------------------


def come_in(*first, code="import ames_retrieval.door, ames.errors"):
    """A process that comes in by the door, these folders before all others on its path."""
    path = ":".join(map(str, first))
    words = [sys.executable, "-P", "-S", "-c", code]
    return subprocess.run(words, env={"PYTHONPATH": path}, capture_output=True, text=True, timeout=60)


def one_line(done):
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("content", ["OTHER = True\n", "raise RuntimeError('imported')\n", None])
def test_another_package_before_this_one(tmp_path, content):
    (tmp_path / "ames").mkdir()
    if content is not None:  # else a namespace package, which comes after every real one
        (tmp_path / "ames" / "__init__.py").write_text(content)
        said = one_line(come_in(tmp_path, ROOT / "src"))
        assert f"{tmp_path / 'ames'} instead of {ROOT / 'src' / 'ames'}; " in said
        assert "pip uninstall ames" in said
    else:
        assert come_in(tmp_path, ROOT / "src").returncode == 0


def test_a_module_of_the_name(tmp_path):
    (tmp_path / "ames.py").write_text("OTHER = True\n")
    assert f"{tmp_path} instead of" in one_line(come_in(tmp_path, ROOT / "src"))


@pytest.mark.parametrize("content", ["OTHER = True\n", "raise RuntimeError\n", "import no_such\n"])
def test_another_package_installed_over_this_one(tmp_path, content):
    (tmp_path / "ames").mkdir()
    (tmp_path / "ames" / "__init__.py").write_text(content)
    (tmp_path / "ames_retrieval").mkdir()
    for file in (ROOT / "src" / "ames_retrieval").glob("*.py"):
        (tmp_path / "ames_retrieval" / file.name).write_text(file.read_text())
    said = one_line(come_in(tmp_path))
    assert "was installed over this library" in said
    assert "pip uninstall ames ames-retrieval, then install ames-retrieval again" in said


def test_this_library_alone():
    assert come_in(ROOT / "src").returncode == 0


def test_no_library_beside_the_door(tmp_path):
    (tmp_path / "ames_retrieval").mkdir()
    for file in (ROOT / "src" / "ames_retrieval").glob("*.py"):
        (tmp_path / "ames_retrieval" / file.name).write_text(file.read_text())
    assert "install ames-retrieval again" in one_line(come_in(tmp_path))
