"""LOCORE: a long-context re-ranker that reads a query and a whole list of candidates at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.base import FromZero, Similarity, constructor_arguments
from ames.models.layers.initialization import check_init
from ames.models.layers.longformer import FIRST, Longformer
from ames.models.layers.soft_matcher import fit_unit_projection, match_list
from ames.weights.tensor_names import count_layers

MODES = ("max-start", "max-end", "max-sum", "max-prod")
_ENCODER = "language_model.longformer."


class Locore(Similarity):
    """List-wise re-ranker on a Longformer; parameters carry the names of the published files.

    The sequence has the query first, then the candidates in their order: of each image the global token (none
    if ``global_dim`` is None), ``local_count`` descriptors and a separator. All tokens of the query and all
    separators are global in attention: they see everything, and everything sees them. A linear head gives two
    logits of every token; ``score_mode`` makes a score of those of class 1 of an image, separators left out:
    the first token's (max-start), the last one's (max-end), their sum or their product. Positions are
    absolute: scores depend on the order of the candidates and of the descriptors.

    A descriptor's token is its projection, without L2, plus a vector of its scale (``scales`` 0: without). A
    projection exists where its width is not ``hidden``, or with ``bottleneck``, which makes two of it.
    A missing descriptor is padding: it keeps its place, with the token of a descriptor of zeros of scale 0,
    which sees no token, nor does any see it. max-end reads the last real descriptor of an image; the released
    code reads the last place, whose token says nothing of an image with fewer descriptors.

    ``window``: candidates that a list has at most. ``nhead`` None: 12 heads of a width of 768, else one per
    32. ``activation_checkpointing``: training keeps no activations within a layer.
    ``init``: "paper" starts as text models do; "matching", the library's own, as a soft matcher
    (``ames.models.layers.soft_matcher``), which learns many times faster.
    """

    def __init__(
        self,
        *,
        local_dim: int = 768,
        global_dim: int | None = 768,
        hidden: int = 768,
        num_layers: int = 12,
        nhead: int | None = None,
        intermediate: int = 3072,
        local_count: int = 48,
        window: int = 100,
        attention_window: int = 512,
        max_position_embeddings: int = 5122,
        bottleneck: int | None = None,
        scales: FromZero = 3,
        layer_norm_eps: float = 1e-5,
        score_mode: str = "max-end",
        activation_checkpointing: bool = False,
        init: str = "paper",
    ) -> None:
        arguments = constructor_arguments(locals())
        super().__init__()
        heads = nhead or (12 if hidden == 768 else max(hidden // 32, 1))
        self.arguments = arguments | {"nhead": heads}
        self.local_dim, self.global_dim, self.hidden, self.window = local_dim, global_dim, hidden, window
        self.local_count, self.scales, self.score_mode = local_count, scales, score_mode
        self.most = local_count
        self.reads_vector, self.reads_scale = global_dim is not None, scales > 0
        self.extra_slots = int(self.reads_vector)
        self.code_bytes, self.reach = 2 * hidden, attention_window // 2
        self._check(heads, attention_window, max_position_embeddings)
        sizes = (hidden, heads, num_layers, intermediate, max_position_embeddings)
        longformer = Longformer(*sizes, eps=layer_norm_eps)
        longformer.checkpointing = activation_checkpointing
        self.language_model = nn.ModuleDict({"longformer": longformer, "classifier": nn.Linear(hidden, 2)})
        self.scale_encoder = nn.Embedding(scales, hidden) if scales else None
        self.local_to_lm = _projection(local_dim, hidden, bottleneck)
        self.global_to_lm = None if global_dim is None else _projection(global_dim, hidden, bottleneck)
        check_init(init)
        if init == "matching":
            if not isinstance(self.local_to_lm, nn.Linear):
                need = (
                    "one projection of the descriptors: set a hidden other than local_dim, and no bottleneck"
                )
                raise AmesError(f"init 'matching' needs {need}")
            match_list(longformer, self.local_to_lm, self.slots + 1)

    def _check(self, heads: int, attention_window: int, positions: int) -> None:
        if self.score_mode not in MODES:
            raise AmesError(f"score_mode {self.score_mode!r} is none of {', '.join(MODES)}")
        if self.hidden % heads:
            raise AmesError(f"hidden {self.hidden} is not a multiple of nhead {heads}")
        if attention_window % 2:
            raise AmesError(f"attention_window {attention_window} is odd: give an even one, half to a side")
        needed = FIRST + ((self.window or 0) + 1) * (self.slots + 1)
        if needed > positions:
            images = f"a list of {self.window} candidates of {self.slots} tokens"
            raise AmesError(f"{images} needs {needed} positions, max_position_embeddings is {positions}")

    @property
    def longformer(self) -> Longformer:
        """The encoder."""
        return cast(Longformer, self.language_model["longformer"])

    @property
    def slots(self) -> int:
        """Tokens of an image, the separator left out."""
        return self.extra_slots + self.local_count

    # ---- tokens ---------------------------------------------------------------------------------

    def tokens(self, local: LocalFeatures) -> LocalFeatures:
        """[..., N, D] -> [..., slots, hidden]: the global token, then ``local_count`` descriptors, the rest
        padding.
        """
        local = local.real_first()  # as a database stores them
        values = self.plain(local, self._dtype).where(local.valid.unsqueeze(-1), 0)
        vector = self.vector_of(local, self._dtype) if self.reads_vector else None
        scale = self.scale_of(local, self.scales) if self.reads_scale else None
        return self._tokens(LocalFeatures(values, local.valid, scale=scale, vector=vector))

    def _tokens(self, local: LocalFeatures) -> LocalFeatures:
        local = local.trim(self.local_count).pad(self.local_count)
        values, valid = _apply(self.local_to_lm, local.descriptors.to(self._dtype)), local.valid
        if self.scale_encoder is not None:
            values = values + self.scale_encoder(cast(Tensor, local.scale).long())
        if self.reads_vector:
            vector = cast(Tensor, local.vector).to(self._dtype).unsqueeze(-2)
            values = torch.cat((_apply(self.global_to_lm, vector), values), -2)
            valid = F.pad(valid, (1, 0), value=True)
        return LocalFeatures(values, valid)

    def projection(self) -> dict[str, Tensor]:
        parts = ("local_to_lm.", "global_to_lm.", "scale_encoder.")
        return {name: x for name, x in self.state_dict().items() if name.startswith(parts)}

    @property
    def _dtype(self) -> torch.dtype:
        return self.longformer.sep_embedding.dtype

    # ---- similarity -----------------------------------------------------------------------------

    def score_tokens(self, query: LocalFeatures, candidates: LocalFeatures) -> Tensor:
        query, candidates = self._filled(query), self._filled(candidates)
        full = bool(candidates.valid[..., -1].all())
        first = self.slots - 1 if self.score_mode == "max-end" and full else 0
        slots = slice(first, 1 if self.score_mode == "max-start" else self.slots)
        logits = self._logits(query, candidates, slots)[..., 1]
        if self.score_mode == "max-end":
            place = candidates.lengths.clamp(min=1) - 1 - first
            return logits.gather(-1, place.unsqueeze(-1)).squeeze(-1)
        return logits.prod(-1) if self.score_mode == "max-prod" else logits.sum(-1)

    @property
    def score_unit(self) -> float:  # type: ignore[override]
        return float(self.slots) if self.score_mode == "max-sum" else 1.0

    def token_logits(self, query: LocalFeatures, candidates: LocalFeatures) -> Tensor:
        """query [B, n, hidden], candidates [B, K, m, hidden], tokens -> logits of both classes of every token
        of each candidate, its separator last: [B, K, slots + 1, 2].
        """
        return self._logits(self._filled(query), self._filled(candidates), slice(0, self.slots + 1))

    def list_logits(self, query: LocalFeatures, candidates: LocalFeatures) -> Tensor:
        """query [B, N, D], candidates [B, K, M, D], descriptors -> [B, K, slots + 1]: of every token of each
        candidate, its separator and its padding included, the logit of class 1 minus that of class 0.

        Binary cross-entropy with these, averaged over all, is LOCORE's loss of two classes.
        """
        logits = self.token_logits(self.tokens(query), self.tokens(candidates))
        return logits[..., 1] - logits[..., 0]

    def forward(
        self,
        locals_: tuple[Tensor, Tensor],
        masks: tuple[Tensor, Tensor] | None = None,
        scales: tuple[Tensor, Tensor] | None = None,
        globals_: tuple[Tensor, Tensor] | None = None,
        labels: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        """As published: each argument is of the query and of the candidates; descriptors [B, L, D] and [B, K,
        L, D], masks bool [B, L] and [B, K, L], **True = padding**, indices of scales alike (None: 0), global
        descriptors [B, G] and [B, K, G], labels [B, K] in {0, 1} -> (loss, or None without labels; logits of
        both classes of every token of each candidate, [B, K, slots + 1, 2]).

        Padded descriptors keep the tokens of what they hold, as in the published code.
        """
        sides = []
        for i, x in enumerate(locals_):
            valid = None if masks is None else ~masks[i].bool()
            scale = torch.zeros_like(x[..., 0]) if scales is None else scales[i]
            vector = None if globals_ is None else globals_[i]
            sides.append(self._tokens(LocalFeatures.from_descriptors(x, valid, scale=scale, vector=vector)))
        logits = self._logits(sides[0], sides[1], slice(0, self.slots + 1))
        if labels is None:
            return None, logits
        repeated = labels.long().unsqueeze(-1).expand(logits.shape[:-1])
        return F.cross_entropy(logits.flatten(0, 2), repeated.flatten()), logits

    def _filled(self, tokens: LocalFeatures) -> LocalFeatures:
        """All slots, with the token of padding where there is no descriptor."""
        tokens = LocalFeatures(tokens.descriptors, tokens.valid).trim(self.slots).pad(self.slots)
        missing = _apply(
            self.local_to_lm, torch.zeros(self.local_dim or 0, device=self.device, dtype=self._dtype)
        )
        if self.scale_encoder is not None:
            missing = missing + self.scale_encoder.weight[0]
        return tokens.with_descriptors(tokens.descriptors.where(tokens.valid.unsqueeze(-1), missing))

    def _logits(self, query: LocalFeatures, candidates: LocalFeatures, slots: slice) -> Tensor:
        """Return logits of both classes of these slots (the separator is the last) of each candidate:
        [B, K, slots, 2].
        """
        B, K = candidates.valid.shape[:2]
        if (self.window or 0) < K:
            raise AmesError(f"a list of {K} candidates is longer than the model's {self.window}: use windows")
        if K == 0:
            return candidates.descriptors.new_zeros(B, 0, slots.stop - slots.start, 2)
        sep = self.longformer.sep_embedding
        images = torch.cat((query.descriptors.unsqueeze(1), candidates.descriptors), 1)
        x = torch.cat((images, sep.to(images.dtype).expand(B, K + 1, 1, -1)), 2).flatten(1, 2)
        valid = torch.cat((query.valid.unsqueeze(1), candidates.valid), 1)
        padded = None if bool(valid.all()) else F.pad(valid, (0, 1), value=True).flatten(1)
        anchored, wanted = torch.zeros(2, K + 1, self.slots + 1, dtype=torch.bool, device=x.device)
        anchored[0], anchored[:, -1], wanted[1:, slots] = True, True, True
        found = self.longformer(x, padded, anchored.flatten(), wanted.flatten(), self.reach)
        return cast(Tensor, self.language_model["classifier"](found)).unflatten(1, (K, -1))

    # ---- weights of others ----------------------------------------------------------------------

    def start_from_longformer(self, state: Mapping[str, Tensor], *, source: str = "the state") -> None:
        """Start the encoder from a text model, such as longformer-base-4096 (``Longformer.start_from``).

        What a text model lacks stays as it is: projections, scales, separator and head.
        """
        self.longformer.start_from(state, source=source)

    def fit_projection(self, descriptors: Tensor, *, seed: int = 0) -> None:
        """With ``init`` "matching": start the projection by PCA of real descriptors float [n, D]."""
        if self.arguments["init"] == "matching":
            fit_unit_projection(cast(nn.Linear, self.local_to_lm), descriptors.to(self._dtype))

    @classmethod
    def arguments_of(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """Return the arguments that a published file shows; no tensor shows ``nhead``, ``local_count``,
        ``window``, ``attention_window`` and ``layer_norm_eps``.

        Without a projection of global descriptors there are none if local ones have a projection; else
        tensors do not tell, and they are as wide as ``hidden``. At 768 that is left to the default, so that a
        caller may say None.
        """
        table, sep = (_ENCODER + x for x in ("embeddings.position_embeddings.weight", "sep_embedding"))
        feed_forward = _ENCODER + "encoder.layer.0.intermediate.dense.weight"
        firsts = [f"{name}{x}" for name in ("local_to_lm", "global_to_lm") for x in (".0.weight", ".weight")]
        axes = dict.fromkeys((table, feed_forward, *firsts, "scale_encoder.weight"), 2) | {sep: 1}
        if not {table, sep, feed_forward} <= set(state):
            return None
        if any(state[name].ndim != axes[name] for name in axes.keys() & state.keys()):
            return None
        hidden = len(state[sep])
        found: dict[str, Any] = {
            "hidden": hidden,
            "num_layers": count_layers(state, f"{_ENCODER}encoder.layer"),
            "intermediate": len(state[feed_forward]),
            "max_position_embeddings": len(state[table]),
            "scales": len(state.get("scale_encoder.weight", ())),
        }
        widths = {name.split(".")[0]: state[name].shape[1] for name in firsts if name in state}
        if "local_to_lm.0.weight" in state:
            found["bottleneck"] = len(state["local_to_lm.0.weight"])
        found["local_dim"] = widths.get("local_to_lm", hidden)
        if widths or hidden != 768:
            found["global_dim"] = widths.get("global_to_lm") if widths else hidden
        return found


def _projection(inputs: int, hidden: int, bottleneck: int | None) -> nn.Module | None:
    if bottleneck is not None:
        return nn.Sequential(nn.Linear(inputs, bottleneck), nn.Linear(bottleneck, hidden))
    return None if inputs == hidden else nn.Linear(inputs, hidden)


def _apply(projection: nn.Module | None, x: Tensor) -> Tensor:
    return x if projection is None else cast(Tensor, projection(x))
