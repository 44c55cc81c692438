"""Statistics of descriptors that show what is wrong with them."""

from __future__ import annotations

from typing import Any

import numpy as np


def about_rows(x: np.ndarray) -> dict[str, Any]:
    """Return statistics of descriptors [n, D]: rows with NaN or infinity, zero rows, L2 norms; of packed ones
    the share of ones.
    """
    if x.dtype == np.uint8:
        return {"rows": len(x), "ones": float(np.unpackbits(x, axis=-1).mean()) if x.size else None}
    finite = np.isfinite(x).all(-1)
    norms = np.linalg.norm(x[finite].astype(np.float64), axis=-1)
    counts = {"rows": len(x), "nan_rows": int((~finite).sum()), "zero_rows": int((norms == 0).sum())}
    norms = norms[norms > 0]
    if not len(norms):
        return counts | {"norms": None, "normalized": None}
    # fp16 rounds each of the norm's terms by up to a thousandth
    return counts | {"norms": spread(norms), "normalized": bool((np.abs(norms - 1) < 0.01).all())}


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Combine several results of ``about_rows``."""
    total = sum(part["rows"] for part in parts)
    if "ones" in parts[0]:
        ones = sum(part["ones"] * part["rows"] for part in parts if part["rows"])
        return {"rows": total, "ones": round(ones / total, 4) if total else None}
    counts = {key: sum(part[key] for part in parts) for key in ("rows", "nan_rows", "zero_rows")}
    parts = [part for part in parts if part["norms"]]
    if not parts:
        return counts | {"norms": None, "normalized": None}
    norms = [part["norms"] for part in parts]
    used = [part["rows"] - part["nan_rows"] - part["zero_rows"] for part in parts]
    mean = sum(norm["mean"] * n for norm, n in zip(norms, used, strict=True)) / sum(used)
    low, high = min(norm["min"] for norm in norms), max(norm["max"] for norm in norms)
    spread = {"mean": round(mean, 4), "min": low, "max": high}
    return counts | {"norms": spread, "normalized": all(part["normalized"] for part in parts)}


def spread(values: np.ndarray) -> dict[str, float]:
    """Return mean, least and largest value, with four digits after the point."""
    return {name: round(float(getattr(values, name)()), 4) for name in ("mean", "min", "max")}
