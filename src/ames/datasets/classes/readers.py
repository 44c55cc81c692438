"""The kinds of class-labelled data sets, by the names that the command takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ames.datasets.classes.cars import read_cars
from ames.datasets.classes.class_set import ClassSet
from ames.datasets.classes.own import ClassRule, read_csv, read_folder
from ames.datasets.classes.published import read_cub, read_gldv2_clean, read_inshop, read_sop
from ames.errors import AmesError, unknown

PUBLISHED: dict[str, Callable[[Path], ClassSet]] = {
    "cub": read_cub,
    "cars196": read_cars,
    "sop": read_sop,
    "inshop": read_inshop,
    "gldv2-clean": read_gldv2_clean,
}
OWN: dict[str, Callable[[Path, ClassRule | None], ClassSet]] = {"folder": read_folder, "csv": read_csv}
KINDS = (*PUBLISHED, *OWN)


def read_class_set(kind: str, root: Path | str, rule: ClassRule | None = None) -> ClassSet:
    """Read a data set of one of ``KINDS``.

    root: the folder of the archive or of the images; for "csv" the file. rule: which classes train, for own
    labels without splits (None: half of them). AmesError for an unknown kind, a rule for a published set, and
    for whatever is wrong in the files.
    """
    if kind in OWN:
        return OWN[kind](Path(root), rule)
    if kind not in PUBLISHED:
        raise AmesError(unknown("kind of class-labelled data set", kind, KINDS))
    if rule is not None:
        raise AmesError(f"{kind} has published splits; a share of classes is for {' and '.join(OWN)}")
    return PUBLISHED[kind](Path(root))
