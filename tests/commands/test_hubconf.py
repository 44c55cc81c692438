"""torch.hub entry points: torch alone is enough, other packages are left alone, downloads are checked."""

import sys
import textwrap

import pytest
import torch

from ames.errors import AmesError
from ames.models import registry
from ames.models.ames import AMES
from ames.models.load import build_model, load_model
from ames.models.registry import ModelEntry
from ames.weights import released
from helpers.commands import ROOT, run_process
from helpers.servers import serve

NAMES = (
    "dinov2_ames",
    "dinov2_ames_dist",
    "cvnet_ames",
    "cvnet_ames_dist",
    "rootsift_ames",
    "rootsift_ames_dist",
    "dinov3_elvis_gld",
    "siglip2_elvis_gld",
)

ALONE = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {"hydra", "omegaconf", "h5py", "cv2", "faiss", "safetensors", "tqdm"}:
                raise ModuleNotFoundError(f"blocked: {name}")
            return None

    sys.meta_path.insert(0, Blocker())
    import src  # another package of this name
    import torch

    for name in NAMES:
        model = torch.hub.load(CLONE, name, source="local", pretrained=False)
        assert not model.training
        assert model.binarized == name.endswith("_dist")
        widths = {"dinov2": 768, "cvnet": 1024, "rootsift": 128, "dinov3": 1024, "siglip2": 1152}
        width = widths[name.split("_")[0]]
        logit = model(src_local=torch.randn(1, 100, width), tgt_local=torch.randn(1, 100, width))
        assert logit.shape == (1,) and torch.isfinite(logit).all()
    assert src.MINE
    """


def script(folder, text):
    """A program in a folder with a package ``src`` beside it."""
    (folder / "src").mkdir()
    (folder / "src" / "__init__.py").write_text("MINE = True\n")
    text = textwrap.dedent(text).replace("CLONE", repr(str(ROOT))).replace("NAMES", repr(NAMES))
    (folder / "program.py").write_text(text)
    return folder / "program.py"


def test_the_structures_need_torch_alone(tmp_path):
    done = run_process(script(tmp_path, ALONE), cwd=tmp_path, TORCH_HOME=str(tmp_path / "hub"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "hub").exists() or not list((tmp_path / "hub").rglob("*.pt"))


BESIDE = """
    import sys

    import torch

    if IMPORTED:
        import ames
    model = torch.hub.load(CLONE, "dinov2_ames", source="local", pretrained=False)
    assert type(model).__module__ == "ames.models.ames"
    import ames

    assert ames.OTHER
    assert "ames.models" not in sys.modules
    model(src_local=torch.randn(1, 9, 768), tgt_local=torch.randn(1, 9, 768))
    """


@pytest.mark.parametrize("imported", [False, True])
def test_beside_another_package_called_ames(tmp_path, imported):
    (tmp_path / "ames").mkdir()
    (tmp_path / "ames" / "__init__.py").write_text("OTHER = True\n")
    program = script(tmp_path, BESIDE.replace("IMPORTED", str(imported)))
    done = run_process(program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server of the released files in place of the real one, and an empty cache."""
    torch.manual_seed(0)
    model = AMES(local_dim=1024, binarized=True)
    (tmp_path / "site" / "networks").mkdir(parents=True)
    content = {"state": model.state_dict(), "optim": {}, "epoch": 14}
    torch.save(content, tmp_path / "site" / "networks" / "cvnet_ames_dist.pt")
    torch.save({"state": {}}, tmp_path / "site" / "networks" / "dinov2_ames.pt")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with serve(tmp_path / "site") as server:
        monkeypatch.setattr(released, "BASE", server.url)
        yield server, model, tmp_path / "torch" / "hub" / "checkpoints"


def load(name, monkeypatch):
    """As a hub user does; the library of this process is the clone's where it is run from a checkout."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    return torch.hub.load(str(ROOT), name, source="local")


def test_released_weights_are_downloaded_once_and_pinned(hub, monkeypatch, capsys):
    server, model, cache = hub
    found = load("cvnet_ames_dist", monkeypatch)
    assert not found.training
    for name, x in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], x)
    shown = capsys.readouterr().err
    note = (cache / "cvnet_ames_dist.pt.sha256").read_text()
    size = (cache / "cvnet_ames_dist.pt").stat().st_size
    assert f"{size} bytes, SHA-256 {note.split()[0]}" in shown
    asked = len(server.requests)
    load("cvnet_ames_dist", monkeypatch)
    assert len(server.requests) == asked
    assert capsys.readouterr().err == ""


def test_a_file_that_changed_is_refused(hub, monkeypatch):
    _, _, cache = hub
    load("cvnet_ames_dist", monkeypatch)
    with open(cache / "cvnet_ames_dist.pt", "ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"its SHA-256 is .* as cvnet_ames_dist.pt.sha256 says"):
        load("cvnet_ames_dist", monkeypatch)


def test_what_is_no_such_model_is_refused(hub, monkeypatch):
    with pytest.raises(ValueError, match="not the weights of dinov2_ames"):
        load("dinov2_ames", monkeypatch)
    with pytest.raises(ValueError, match="HTTP status 404"):
        load("cvnet_ames", monkeypatch)
    with pytest.raises(ValueError, match="model 'other' does not exist; choose one of aliked_elvis, "):
        build_model("other")


def test_weights_that_are_not_downloaded_are_read_from_the_folder(tmp_path, monkeypatch):
    sizes = {"local_dim": 8, "model_dim": 8, "num_encoder_layers": 1, "dim_feedforward": 8}
    row = ModelEntry(arguments=sizes, weights="published/mine.pt", home="https://example.org/authors")
    monkeypatch.setitem(registry.MODELS, "mine", row)
    with pytest.raises(AmesError) as error:
        load_model("mine", folder=tmp_path)
    where = f"no file {tmp_path / 'mine.pt'}: take published/mine.pt from https://example.org/authors and put"
    assert str(error.value) == f"mine: {where} it there, or give its path"
    assert "mine" not in registry.released_files()
    model = build_model("mine")
    torch.save({"state": model.state_dict()}, tmp_path / "mine.pt")
    assert torch.equal(load_model("mine", folder=tmp_path).mtc_token, model.mtc_token)
    torch.save({"state": AMES(**sizes | {"local_dim": 9}).state_dict()}, tmp_path / "mine.pt")
    found = r"remap_local.0.weight is \(8, 9\), this model's is \(8, 8\)"
    with pytest.raises(AmesError, match=f"mine.pt: not the weights of mine: {found}"):
        load_model("mine", folder=tmp_path)
