"""The list scorer: scores lists of candidates with a list-wise model, query by query."""

from __future__ import annotations

import numpy as np
import torch

from ames.errors import AmesError, NotFiniteError
from ames.features import LocalFeatures
from ames.models.base import Similarity
from ames.reranking.fusion import Fusion
from ames.reranking.scorer import PRECISIONS, ComputeConfig, encode_side
from ames.reranking.windows import Windows, rank_by_windows


class ListScorer:
    """A list-wise model ready to score. The model is moved to the device and put into evaluation mode.

    A list is scored as a whole, on one device: of several, the first is used. ``batch_size`` of ``compute``
    is the number of lists scored together (None: one).
    """

    def __init__(self, model: Similarity, compute: ComputeConfig | None = None) -> None:
        assert model.window is not None, "a pair-wise model is scored by PairScorer"
        self.compute = compute or ComputeConfig()
        self.device = torch.device(self.compute.devices[0])
        self.model = model.eval().to(self.device)
        self.window = model.window

    @torch.inference_mode()
    def open(self, query: LocalFeatures, candidates: LocalFeatures) -> CandidateList:
        """Prepare one query [N, D] and its T candidates [T, M, D]; either may hold the model's codes.

        AmesError for another shape or width, NotFiniteError for an image with NaN or infinity; image 0 is the
        query, image 1 the first candidate.
        """
        if query.valid.ndim != 1 or candidates.valid.ndim != 2:
            sides = [list(x.descriptors.shape) for x in (query, candidates)]
            raise AmesError(f"query and candidates are {sides[0]} and {sides[1]}; expected [N, D], [T, M, D]")
        encoded = []
        for first, local, database in ((0, query.map(lambda x: x[None]), False), (1, candidates, True)):
            try:
                encoded.append(encode_side(self.model, local.to(self.device), database=database))
            except NotFiniteError as error:
                raise NotFiniteError(first + error.image) from error
        if encoded[0].width != encoded[1].width:
            raise AmesError(f"the query is {encoded[0].width}-d, its candidates {encoded[1].width}-d")
        return CandidateList(self, *encoded)


class CandidateList:
    """One query and its candidates. A list that was scored before, in the same order, is not scored again."""

    def __init__(self, scorer: ListScorer, query: LocalFeatures, candidates: LocalFeatures) -> None:
        self._scorer, self._query, self._candidates = scorer, query, candidates
        self._known: dict[tuple[int, ...], np.ndarray] = {}

    @property
    def known(self) -> dict[tuple[int, ...], np.ndarray]:
        """Logits float32 [K] of the lists that were scored, by the places of their candidates."""
        return self._known

    def score(self, places: np.ndarray) -> np.ndarray:
        """Logits float32 [L, K] of lists of the same length, int [L, K]: places among the candidates.

        AmesError for a list that is longer than the model's window.
        """
        if places.shape[1] > self._scorer.window:
            raise AmesError(f"a list of {places.shape[1]} is longer than the model's {self._scorer.window}")
        lists = [tuple(int(place) for place in row) for row in places]
        missing = [one for one in dict.fromkeys(lists) if one not in self._known]
        step = self._scorer.compute.batch_size or 1
        for start in range(0, len(missing), step):
            batch = missing[start : start + step]
            self._known.update(zip(batch, self._scored(np.array(batch, np.int64)), strict=True))
        return np.stack([self._known[one] for one in lists])

    def rank(self, similarities: np.ndarray, fusion: Fusion, windows: Windows) -> np.ndarray:
        """Return the order int64 [T] of all candidates by their fused scores, in windows where they are more
        than the model reads. similarities: float32 [T] to the query.
        """
        return rank_by_windows(
            self.score, similarities[None], fusion, window=self._scorer.window, windows=windows
        )[0]

    @torch.inference_mode()
    def _scored(self, places: np.ndarray) -> np.ndarray:
        scorer = self._scorer
        candidates = self._candidates[torch.from_numpy(places).to(scorer.device)]
        query = self._query.map(lambda x: x.expand(len(places), *x.shape[1:]))
        dtype = PRECISIONS[scorer.compute.precision]
        with torch.autocast(scorer.device.type, dtype, enabled=dtype != torch.float32):
            logits = scorer.model.score_tokens(query, candidates)
        return logits.float().cpu().numpy()
