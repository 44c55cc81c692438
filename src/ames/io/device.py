"""The device that a person names."""

from __future__ import annotations

from ames.errors import AmesError, first_line


def check_device(name: str) -> None:
    """AmesError if torch cannot use the device here."""
    import torch

    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # what torch raises differs
        raise AmesError(f"--device {name}: cannot be used here ({first_line(error)})") from error
