"""torch.hub entry points: torch.hub.load(CLONE, "dinov2_ames", source="local"). They need torch alone."""

import importlib
import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path

dependencies = ["torch"]

_SOURCE = Path(__file__).resolve().parent / "src"


@contextmanager
def _library():
    """This clone's library, importable as ``ames``; another package of that name is put back afterwards."""
    foreign = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "ames"}
    if foreign and _is_own(getattr(foreign.get("ames"), "__file__", None)):
        yield
        return
    found = None if foreign else importlib.util.find_spec("ames")
    keep = not foreign and (found is None or _is_own(found.origin))
    for name in foreign:
        del sys.modules[name]
    sys.path.insert(0, str(_SOURCE))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(_SOURCE))
        if not keep:
            for name in [x for x in sys.modules if x.split(".")[0] == "ames"]:
                del sys.modules[name]
            sys.modules.update(foreign)


def _is_own(file):
    return file is not None and Path(file).resolve() == _SOURCE / "ames" / "__init__.py"


def _model(name, pretrained):
    with _library():
        models = importlib.import_module("ames.models.load")
        return models.load_model(name) if pretrained else models.build_model(name)


def dinov2_ames(pretrained: bool = True):
    """AMES for DINOv2 descriptors (768-d), full precision. pretrained: downloads the released weights."""
    return _model("dinov2_ames", pretrained)


def dinov2_ames_dist(pretrained: bool = True):
    """AMES for DINOv2 descriptors (768-d), binary. pretrained: downloads the released weights."""
    return _model("dinov2_ames_dist", pretrained)


def cvnet_ames(pretrained: bool = True):
    """AMES for CVNet descriptors (1024-d), full precision. pretrained: downloads the released weights."""
    return _model("cvnet_ames", pretrained)


def cvnet_ames_dist(pretrained: bool = True):
    """AMES for CVNet descriptors (1024-d), binary. pretrained: downloads the released weights."""
    return _model("cvnet_ames_dist", pretrained)


def rootsift_ames(pretrained: bool = True):
    """AMES for RootSIFT descriptors (128-d), full precision. pretrained: the shipped ones (safetensors)."""
    return _model("rootsift_ames", pretrained)


def rootsift_ames_dist(pretrained: bool = True):
    """AMES for RootSIFT descriptors (128-d), binary: 16 bytes a database descriptor."""
    return _model("rootsift_ames_dist", pretrained)
