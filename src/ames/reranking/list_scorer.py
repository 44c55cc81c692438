"""The list scorer: scores lists of candidates with a list-wise model."""

from __future__ import annotations

import numpy as np
import torch

from ames.errors import AmesError, NotFiniteError
from ames.features import LocalFeatures
from ames.models.base import Similarity
from ames.reranking.scorer import PRECISIONS, ComputeConfig, encode_side


class ListScorer:
    """A list-wise model ready to score. The model is moved to the device and put into evaluation mode.

    A list is scored as a whole, on one device: of several, the first is used.
    """

    def __init__(self, model: Similarity, compute: ComputeConfig | None = None) -> None:
        assert model.window is not None, "a pair-wise model is scored by PairScorer"
        self.compute = compute or ComputeConfig()
        if self.compute.precision == "int8":
            raise AmesError("precision int8 is for pair-wise models: give bf16 or fp16 for a list-wise one")
        self.device = torch.device(self.compute.devices[0])
        self.model = model.eval().to(self.device)
        self.window = model.window

    @torch.inference_mode()
    def score(self, queries: LocalFeatures, candidates: LocalFeatures) -> np.ndarray:
        """Return logits float32 [L, K] of L lists, from queries [L, N, D] and candidates
        [L, K, M, D] in their order.

        Either side may hold the model's codes. AmesError for another shape or width, and for lists that are
        longer than the model reads. NotFiniteError for an image with NaN or infinity: image 0 is the first
        query, image L the first candidate of the first list.
        """
        shapes = [list(x.descriptors.shape) for x in (queries, candidates)]
        if [len(shape) for shape in shapes] != [3, 4] or shapes[0][0] != shapes[1][0]:
            expected = "expected [L, N, D] and [L, K, M, D]"
            raise AmesError(f"queries and lists are {shapes[0]} and {shapes[1]}; {expected}")
        count, length = candidates.valid.shape[:2]
        if length > self.window:
            raise AmesError(f"a list of {length} is longer than the model's {self.window}")
        tokens = []
        sides = ((0, queries, False), (count, candidates.reshape(count * length), True))
        for first, local, database in sides:
            try:
                tokens.append(encode_side(self.model, local.to(self.device), database=database))
            except NotFiniteError as error:
                raise NotFiniteError(first + error.image) from error
        if tokens[0].width != tokens[1].width:
            raise AmesError(f"queries are {tokens[0].width}-d, candidates {tokens[1].width}-d")
        dtype = PRECISIONS[self.compute.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            logits = self.model.score_tokens(tokens[0], tokens[1].reshape(count, length))
        return logits.float().cpu().numpy()
