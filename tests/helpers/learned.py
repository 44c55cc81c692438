"""Networks with random weights, and an installed package that carries some."""

import hashlib

import torch

from ames.backbones import make_backbone
from ames.weights import published

SEED = 3


def made(name):
    """A backbone with random weights, whose normalizations have statistics as after training."""
    network = make_backbone(name, weights=None, vector=False, seed=SEED)
    drawn = torch.Generator().manual_seed(SEED)
    for key, x in network.state_dict().items():
        if key.endswith("running_mean"):
            x.copy_(torch.randn(x.shape, generator=drawn) * 0.05)
        elif key.endswith("running_var"):
            x.copy_(torch.rand(x.shape, generator=drawn) * 0.2 + 0.2)
    return network


def tensors(image):
    """uint8 [H, W, 3] BGR -> float [1, 3, H, W] RGB in 0 ... 1."""
    return torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255


def install(folder, monkeypatch, name, content):
    """Put a package on the path that carries the published file ``name``, of this content; return the file.

    Importing the package ends the program.
    """
    wanted = published.FILES[name]
    file = folder / wanted.place
    file.parent.mkdir(parents=True)
    torch.save(content, file)
    (folder / wanted.place.partition("/")[0] / "__init__.py").write_text("raise SystemExit('imported')")
    about = folder / f"{wanted.package.replace('-', '_')}-{wanted.version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Name: {wanted.package}\nVersion: {wanted.version}\n")
    (about / "RECORD").write_text(f"{wanted.place},,\n")
    monkeypatch.syspath_prepend(folder)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(published.FILES, name, wanted._replace(digest=digest))
    return file
