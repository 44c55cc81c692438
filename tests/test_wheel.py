"""The built packages: complete, and enough for README's programs and the Hydra commands outside the clone."""

import os
import subprocess
import sys
import tarfile
import zipfile

import pytest

from helpers.commands import ROOT
from helpers.documents import blocks
from helpers.photos import save, scene

NEEDED = [
    "ames/py.typed",
    "ames/__init__.pyi",
    "ames/conf/train.yaml",
    "ames/conf/dataset/base/test.yaml",
    "ames/weights/rootsift_ames_dist.safetensors",
    "ames/weights/aliked_elvis_binary.safetensors",
    "ames/weights/photographs.csv",
    "ames/reporting/templates/report.html",
    "ames_retrieval/door.py",
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the source distribution."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def site(built, tmp_path_factory):
    """The wheel's content, as an installation has it."""
    folder = tmp_path_factory.mktemp("site")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def installed(site, folder, *words):
    """``python WORDS`` from a folder outside the clone, with the wheel's packages alone."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HYDRA_FULL_ERROR")}
    environment = kept | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_the_shipped_weights_stay_small(site):
    assert sum(path.stat().st_size for path in (site / "ames" / "weights").glob("*.safetensors")) <= 8_000_000


def test_both_packages_are_complete(built, site):
    assert [name for name in NEEDED if not (site / name).is_file()] == []
    kept = {
        str(path.relative_to(ROOT)) for folder in ("src/ames", "conf") for path in (ROOT / folder).rglob("*")
    }
    kept = {name for name in kept if not name.endswith(".pyc") and (ROOT / name).is_file()}
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert kept <= inside
    in_wheel = {name.replace("src/ames/", "ames/").replace("conf/", "ames/conf/", 1) for name in kept}
    in_wheel = {name.replace("ames/ames/conf/", "ames/conf/") for name in in_wheel}
    assert {name for name in in_wheel if not (site / name).is_file()} == set()


def test_the_readme_s_programs_run_outside_the_clone(site, tmp_path):
    for seed in range(4):
        save(tmp_path / "photos" / f"{seed}.jpg", scene(seed))
    for name, seed in (("query.jpg", 3), ("a.jpg", 3), ("b.jpg", 1), ("new.jpg", 9)):
        save(tmp_path / name, scene(seed, view=1))
    programs = [
        block for block in blocks((ROOT / "README.md").read_text(), "python") if "vector_db" not in block
    ]
    assert len(programs) == 3
    where = "import ames, os\nprint(os.path.dirname(ames.__file__))\n"
    (tmp_path / "program.py").write_text(where + "\n".join(programs))
    done = installed(site, tmp_path, "program.py")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == str(site / "ames")
    assert lines[2].endswith(" 3.jpg")


def test_the_hydra_commands_have_their_configuration(site, tmp_path):
    done = installed(site, tmp_path, "-m", "ames", "evaluate", "experiment=landmarks", "data_root=data")
    assert done.returncode == 2
    assert "evaluate: data/landmarks-test: no such folder" in done.stderr
    assert "Traceback" not in done.stderr
