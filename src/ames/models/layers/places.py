"""Where descriptors are, in pixels of the original image."""

from __future__ import annotations

import torch
from torch import Tensor

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.base import sound

_LARGEST_SHARE = 2.0  # cells at an image's border may lie beyond 1; no image has all its points so near 0


def checked_positions(local: LocalFeatures, kind: str) -> Tensor:
    """Return positions float32 [..., N, 2], 0 where padding's are not finite. AmesError without any;
    NotFiniteError for a real one that is not finite.
    """
    if local.positions is None:
        raise AmesError(f"{kind} reads where descriptors are: no positions were given")
    positions = local.positions.float()
    return sound(positions, positions.sum(-1), local.valid)


def checked_size(local: LocalFeatures, kind: str) -> Tensor | None:
    """Return ``image_size`` float32 [..., 2], None without one. AmesError for one that is no size."""
    if local.image_size is None:
        return None
    size = local.image_size.float()
    if not bool((torch.isfinite(size) & (size > 0)).all()):
        raise AmesError(f"{kind}: an image_size is not a height and a width in pixels, above 0")
    return size


def are_shares(local: LocalFeatures) -> Tensor:
    """bool [...]: whether an image's positions are shares of its height and width, as the library extracts
    them, not pixels, as CVNet's published files have them: whether none of them exceeds 2.
    """
    assert local.positions is not None
    if not local.size:
        return torch.ones_like(local.valid[..., :0].any(-1))
    real = local.positions.masked_fill(~local.valid.unsqueeze(-1), 0)
    return real.amax((-1, -2)) <= _LARGEST_SHARE


def size_or_nominal(local: LocalFeatures, kind: str, side: str, nominal: int | None) -> Tensor:
    """float [..., 2]: the images' sizes in pixels; without them ``nominal`` for both sides. AmesError if that
    is None, too.
    """
    size = checked_size(local, kind)
    if size is not None:
        return size
    if nominal is None:
        raise AmesError(
            f"{kind} needs the height and width of each {side} image (image_size): give lists of "
            "path,label,width,height, or the images beside them, or nominal_size=1024"
        )
    return local.valid.new_full((*local.valid.shape[:-1], 2), nominal, dtype=torch.float32)
