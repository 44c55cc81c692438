"""The released files by name: weights, also for ``torch.hub``, and descriptors.

Nothing here touches the network unless a file is asked for. No hashes are published: the SHA-256 of the first
download is shown and noted beside the file, and later loads compare.
"""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urljoin

from ames.errors import AmesError
from ames.io.download import download, pinned

BASE = "http://ptak.felk.cvut.cz/personal/sumapave/public/ames/"


# Weights that are no AMES model.
OTHERS = ("itq_dinov2_D128", "itq_cvnet_D128", "dinov2_detector", "cvnet_detector", "CVPR2022_CVNet_R101")


def _test_set(folder: str) -> list[str]:
    names = ["test_query.txt", "test_gallery.txt", f"gnd_{folder}.pkl", "nn_superglobal.pkl"]
    for desc in ("dinov2", "cvnet"):
        names += [f"nn_{desc}.pkl", f"{desc}_query_local.hdf5", f"{desc}_gallery_local.hdf5"]
    return [f"data/{folder}/{name}" for name in names]


def _training_set() -> list[str]:
    return [f"data/gldv2/{x}" for x in ("train.txt", "nn_dinov2.pkl", "dinov2_local.hdf5")]


def files() -> dict[str, list[str]]:
    """Name -> paths below ``BASE`` of what can be downloaded by name, models apart
    (``ames.models.registry.released_files``).
    """
    others = {name: [f"networks/{name}.pt"] for name in OTHERS}
    data = {folder: _test_set(folder) for folder in ("roxford5k", "rparis6k", "gldv2-test")}
    return others | data | {"gldv2": _training_set()}


def fetch(place: str, folder: Path | str | None = None) -> Path:
    """Return a file's path in ``folder`` (None: torch hub's cache); it is downloaded unless it exists there.

    place: from ``BASE``; "../elvis/x.pt" is beside it. The digest of a first download is shown; AmesError if
    a later one differs.
    """
    path = _in_folder(place, folder)
    size = download(urljoin(BASE, place), path)
    digest, first = pinned(path)
    if first:
        print(f"{path}: {size} bytes, SHA-256 {digest}", file=sys.stderr)
    return path


def given(place: str, folder: Path | str | None, *, home: str, name: str) -> Path:
    """As ``fetch``, of a file that is not downloaded: AmesError unless it lies there already.

    home: where its authors have it, ``place`` there; name: of the model that it is for.
    """
    path = _in_folder(place, folder)
    if not path.is_file():
        raise AmesError(
            f"{name}: no file {path}: take {place} from {home} and put it there, or give its path"
        )
    return path


def _in_folder(place: str, folder: Path | str | None) -> Path:
    if folder is None:
        import torch  # the table alone does not need it

        folder = Path(torch.hub.get_dir()) / "checkpoints"
    return Path(folder) / Path(place).name
