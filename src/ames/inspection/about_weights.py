"""What a file of weights holds: the network of its tensors, and the file's own description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ames.backbones.detector import read_detector
from ames.backbones.dinov2_files import describe_dinov2, is_dinov2, released_names
from ames.models.checkpoints import read_arguments, recognize
from ames.models.layers.binarization import read_itq
from ames.weights.files import Weights


def about_weights(path: Path, weights: Weights) -> dict[str, Any]:
    """Describe weights: the network of the tensors, and the file's own description."""
    state = weights.state
    sizes = {
        "tensors": len(state),
        "parameters": sum(x.numel() for x in state.values()),
        "nan_tensors": sum(not bool(torch.isfinite(x).all()) for x in state.values()),
    }
    described = weights.about.get("model")
    found = None if described else recognize(state, source=str(path))
    if found or "mtc_token" in state or "class" in weights.about:
        model = described or (found.arguments if found else read_arguments(state, source=str(path)))
        rest = {key: value for key, value in weights.about.items() if key not in ("class", "model")}
        read = "the file" if described else "names and shapes (others cannot be seen: defaults)"
        kind = {"kind": f"checkpoint of {found.kind if found else weights.about.get('class', 'AMES')}"}
        return kind | sizes | {"model": model, "model_from": read, "about": rest}
    if "conv2.weight" in state and "conv1.weight" in state:
        width = len(read_detector(path)["conv1.bias"])
        return {"kind": "feature detector", "width": width} | sizes | {"about": weights.about}
    if set(state) == {"W"}:
        return about_itq(read_itq(path))
    if any(name.endswith("pos_embed") for name in state):
        network = released_names(state, source=str(path))
        if is_dinov2(network):
            return describe_dinov2(network) | sizes
    return {"kind": "weights"} | sizes | {"first": sorted(state)[:3], "about": weights.about}


def about_itq(W: torch.Tensor) -> dict[str, Any]:
    """Return the sizes of a projection [D, bits]."""
    return {"kind": "ITQ projection", "width": W.shape[0], "bits": W.shape[1]}
