"""Training of the feature detector: triplets of images, compared by their global descriptors.

The recipe of the published detectors is not known. This one is the library's own: the detector's weights are
attention (DELF, Noh et al., ICCV 2017; DELG, Cao et al., ECCV 2020), the weighted sum of local descriptors
stands for its image (HOW, Tolias et al., ECCV 2020), and what an image shows is the only supervision. The
backbone is frozen: its features come from files.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ames.backbones.detector import SpatialAttention, global_descriptor, save_detector
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.training.resuming import Checkpoints, Interruption
from ames.training.step import lr_factor

log = logging.getLogger(__name__)


class Triplets(Protocol):
    """B triplets of images, each [B, N, D]: features as the frozen backbone gives them."""

    @property
    def anchor(self) -> LocalFeatures: ...
    @property
    def positive(self) -> LocalFeatures: ...
    @property
    def negatives(self) -> LocalFeatures: ...


class Loader(Protocol):
    """Where batches come from: ``training.data.loader.TripletLoader``, or what makes features on the fly."""

    def __len__(self) -> int: ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Triplets]:
        """Epoch ``number`` from its batch ``start`` on: the same batches whatever came before."""

    def settings(self) -> dict[str, object]:
        """What the batches depend on, as JSON can hold it."""


@dataclass(frozen=True, kw_only=True)
class DetectorRecipe:
    """How a detector is trained.

    margin: how much farther than the positive the negative has to be, in squared distance of unit vectors
    (0 ... 4). ``warmup`` batches raise the learning rate from 0; ``clip`` bounds the gradient norm (None: not
    at all). ``val_freq`` epochs lie between validations, ``print_freq`` batches between lines of the log (0:
    none).
    """

    epochs: int = 10
    lr: float = 1e-3
    weight_decay: float = 5e-4
    margin: float = 0.1
    warmup: int = 0
    clip: float | None = None
    val_freq: int = 1
    print_freq: int = 0


@dataclass
class Progress:
    """``batch`` batches of ``epoch`` (from 0) are done; sums of loss and accuracy over them, records of the
    finished epochs, seconds so far.
    """

    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 2)
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


class TripletLosses(NamedTuple):
    """loss is what is minimized; accuracy: the share of triplets whose positive is nearer."""

    loss: Tensor
    accuracy: Tensor


def triplet_losses(detector: SpatialAttention, batch: Triplets, margin: float) -> TripletLosses:
    """mean of max(0, |a - p|^2 - |a - n|^2 + margin) over the global descriptors of B triplets; of several
    negatives, over each of them.

    The three go through the detector together, so that batch normalization sees one set of images.
    AmesError for descriptors that are not finite: in training mode they would spoil its running statistics.
    """
    features = LocalFeatures.cat((batch.anchor, batch.positive, batch.negatives))
    features = features.to(detector.conv1.weight.device)
    sound = (features.descriptors.isfinite().all(-1) | ~features.valid).all(-1)
    if not bool(sound.all()):
        raise AmesError(_spoiled(batch, int(sound.logical_not().nonzero()[0])))
    projected, weights = detector.locations(features.descriptors, features.valid)
    images = global_descriptor(projected, weights).float().unflatten(0, (-1, len(batch.anchor.valid)))
    anchor, positive, negatives = images[0], images[1], images[2:]  # [B, D], [B, D], [n, B, D]
    near = (anchor - positive).square().sum(-1)
    far = (anchor - negatives).square().sum(-1)
    return TripletLosses(F.relu(near - far + margin).mean(), (near < far).float().mean().detach())


def _spoiled(batch: Triplets, place: int) -> str:
    """Names the first image of a batch that has a descriptor which is no number."""
    roles, B = ("anchor", "positive", "negative"), len(batch.anchor.valid)
    name = f"the {roles[min(place // B, 2)]} of triplet {place % B}"
    numbers = getattr(batch, "images", None)  # the loader of files knows their rows
    if numbers is not None:
        name = f"image {int(numbers.reshape(-1)[place])}"
    return f"{name} has a descriptor that is not finite: extract it again"


def fit_detector(
    detector: SpatialAttention,
    loader: Loader,
    recipe: DetectorRecipe,
    *,
    out: Path | str | None = None,
    device: str | torch.device = "cpu",
    validate: Callable[[SpatialAttention], dict[str, float]] | None = None,
    provenance: dict[str, object] | None = None,
    checkpoints: Checkpoints | None = None,
) -> list[dict[str, float]]:
    """Trains ``detector`` in place; returns one record an epoch (loss, accuracy, seconds, validation).

    ``out`` is written after each epoch. ``validate`` gets the detector in evaluation mode. ``checkpoints``:
    where the whole state is kept, and from where training goes on if there is one, with the batches that
    were to come; on a CPU the weights then equal those of a training that was never interrupted, bit for
    bit. SIGTERM writes the state and ends the process (status 143), Ctrl-C writes it and raises
    KeyboardInterrupt. AmesError where the loss or its gradient is not finite; the weights are then those of
    the step before.
    """
    _check(recipe, out)
    run = _Run(detector.to(device), loader, recipe, checkpoints)
    progress = run.progress
    if out is not None and progress.epoch == recipe.epochs and not Path(out).exists():
        run.save(out, provenance)  # of a training that is finished, whose file has gone
    with Interruption(kept=checkpoints is not None) as interruption:
        while progress.epoch < recipe.epochs:
            for _ in run.batches():
                if interruption.asked or (checkpoints is not None and checkpoints.due(progress.batch)):
                    run.keep()
                if interruption.asked:
                    interruption.leave()
            run.end_epoch(validate)
            if out is not None:
                run.save(out, provenance)
            run.keep()
            if interruption.asked:
                interruption.leave()
    detector.eval()
    return progress.history


class _Run:
    """A detector on its way: the optimizer, how far it is, and where its states are kept."""

    def __init__(
        self,
        detector: SpatialAttention,
        loader: Loader,
        recipe: DetectorRecipe,
        checkpoints: Checkpoints | None,
    ) -> None:
        self.detector, self.loader, self.recipe, self.checkpoints = detector, loader, recipe, checkpoints
        self.optimizer = torch.optim.AdamW(
            detector.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        self.progress = Progress()
        self.settings = {"recipe": asdict(recipe), "loader": loader.settings(), "width": detector.width}
        if checkpoints is not None and (found := checkpoints.latest(self.settings)) is not None:
            detector.load_state_dict(found["model"])
            self.optimizer.load_state_dict(found["optimizer"])
            self.progress = Progress(**json.loads(found["progress"]))
            if self.progress.epoch < recipe.epochs:
                log.info("resumes in epoch %d after batch %d", self.progress.epoch + 1, self.progress.batch)
            else:
                log.info("is finished already: nothing is left to train")
        self.started = time.perf_counter() - self.progress.seconds

    def passed(self) -> float:
        """Seconds of training, those before an interruption included."""
        return time.perf_counter() - self.started

    def end_epoch(self, validate: Callable[[SpatialAttention], dict[str, float]] | None) -> None:
        """Measure the detector and note the figures of the epoch."""
        progress, recipe = self.progress, self.recipe
        loss, accuracy = (x / len(self.loader) for x in progress.sums)
        record = {"epoch": progress.epoch + 1, "loss": loss, "accuracy": accuracy}
        record["seconds"] = round(self.passed(), 1)
        self.detector.eval()
        last = progress.epoch + 1 == recipe.epochs
        if validate is not None and ((progress.epoch + 1) % recipe.val_freq == 0 or last):
            record |= validate(self.detector)
        progress.history.append(record)
        log.info(" ".join(f"{k} {v:.4g}" for k, v in record.items()))
        progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, [0.0] * 2

    def save(self, out: Path | str, provenance: dict[str, object] | None) -> None:
        """Writes the detector."""
        save_detector(out, self.detector, provenance={"epochs": self.progress.epoch} | (provenance or {}))

    def keep(self) -> None:
        """Writes the whole state, if states are kept."""
        progress = self.progress
        progress.seconds = self.passed()
        if self.checkpoints is not None:
            state: dict[str, Any] = {"model": self.detector.state_dict()}
            state |= {"optimizer": self.optimizer.state_dict(), "progress": json.dumps(asdict(progress))}
            state |= {"finished": progress.epoch == self.recipe.epochs}
            self.checkpoints.save(state, self.settings, progress.epoch * len(self.loader) + progress.batch)

    def batches(self) -> Iterator[None]:
        """Trains on what is left of an epoch; yields after each batch."""
        progress, recipe, total = self.progress, self.recipe, len(self.loader)
        self.detector.train()
        bar = tqdm(
            self.loader.epoch(progress.epoch, progress.batch),
            desc=f"epoch {progress.epoch + 1}/{recipe.epochs}",
            total=total,
            initial=progress.batch,
            unit="batch",
            disable=None,
        )
        for batch in bar:
            losses = self._step(batch)
            progress.sums = [a + float(x) for a, x in zip(progress.sums, losses, strict=True)]
            progress.batch += 1
            loss, accuracy = (x / progress.batch for x in progress.sums)
            bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.3f}")
            if recipe.print_freq and progress.batch % recipe.print_freq == 0:
                log.info(f"epoch {progress.epoch + 1}, batch {progress.batch}/{total}: loss {loss:.4g}")
            yield

    def _step(self, batch: Triplets) -> tuple[float, float]:
        """One step of the optimizer -> loss, accuracy."""
        progress, recipe = self.progress, self.recipe
        done = progress.epoch * len(self.loader) + progress.batch
        self.optimizer.param_groups[0]["lr"] = recipe.lr * lr_factor(
            done, recipe.epochs * len(self.loader), recipe.warmup
        )
        self.optimizer.zero_grad(set_to_none=True)
        losses = triplet_losses(self.detector, batch, recipe.margin)
        losses.loss.backward()
        bound = math.inf if recipe.clip is None else recipe.clip
        norm = torch.nn.utils.clip_grad_norm_(self.detector.parameters(), bound)
        for what, value in (("the loss", losses.loss.item()), ("its gradient", norm.item())):
            if not math.isfinite(value):
                raise AmesError(
                    f"{what} became {value} in epoch {progress.epoch + 1}, batch {progress.batch + 1}: lower "
                    "lr, or set a clip"
                )
        self.optimizer.step()
        return losses.loss.item(), losses.accuracy.item()


def _check(recipe: DetectorRecipe, out: Path | str | None) -> None:
    """Refuses what would fail only after a while."""
    if recipe.epochs < 1 or recipe.val_freq < 1:
        raise AmesError(f"epochs {recipe.epochs} and val_freq {recipe.val_freq} must be at least 1")
    if not 0 < recipe.margin <= 4:
        raise AmesError(f"margin {recipe.margin} is outside (0, 4], the squared distances of unit vectors")
    if out is not None and Path(out).suffix == ".safetensors":
        raise AmesError(f"{out}: a detector is not a safetensors file: give a name in .pt")
