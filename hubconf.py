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


def _entry_point(name, entry):
    """The function that torch.hub calls for a model of the table."""

    def load(pretrained: bool = True):
        with _library():
            models = importlib.import_module("ames.models.load")
            return models.load_model(name) if pretrained else models.build_model(name)

    taken = f"{entry.backbone or entry.takes or 'any'} descriptors"
    has = {None: "it has no weights", "shipped": "its weights are in the clone (safetensors)"}
    load.__name__ = load.__qualname__ = name
    fetched = "downloads the released weights" if entry.home is None else "reads a file of the weights folder"
    weights = has.get(entry.weights, fetched)
    load.__doc__ = f"{entry.kind} for {taken}. pretrained: {weights}."
    return load


def _entry_points():
    with _library():
        return importlib.import_module("ames.models.registry").MODELS


for _name, _entry in _entry_points().items():
    globals()[_name] = _entry_point(_name, _entry)
