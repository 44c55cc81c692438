"""Embedders on disk: files that know their sides, and RAML's released ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ames.embedders.base import BOTH, GALLERY, QUERY, SIDES, Embedder, check_one_space
from ames.embedders.network import GlobalNetwork
from ames.embedders.registry import embedder_class
from ames.embedders.resnet import DEPTHS
from ames.errors import AmesError, first_line
from ames.io.hashing import sha256, weights_digest
from ames.weights.files import Weights, load_state, read_weights, save_content
from ames.weights.tensor_names import count_layers

_KEY = "embedder"  # of a file's description
# Names of RAML's released files: of a teacher at 448 pixels, and of its student at 224.
# cub-448r-resnet50-512-gem-w.pth, cub-S224r-T448r-resnet50-512-gem-w.pth
# Copies in a collection have the side before (ames.retrieval.collection): they are of the same space.
_RELEASED = re.compile(
    r"(?:(?:query|gallery)-)?(?P<set>.+?)-(?:S(?P<student>\d{3})r-T)?(?P<size>\d{3})r-(?P<rest>.+)"
)
_COUNT = "num_batches_tracked"


def save_embedders(
    path: Path | str,
    sides: Mapping[str, Embedder],
    *,
    space: str | None = None,
    provenance: Mapping[str, object] | None = None,
    extra: Mapping[str, Tensor] | None = None,
) -> str:
    """Write embedders of one space in one file, atomically; return the space.

    sides: "query", "gallery", or "both" alone, and the embedder of each. space: None: the digest of the
    gallery's weights (of the only side's), so that a file that is written again has another one. extra:
    tensors of the training that are no embedder's, under their names.
    """
    if not sides or not set(sides) <= {QUERY, GALLERY, BOTH} or (BOTH in sides and len(sides) > 1):
        raise ValueError(f"sides {', '.join(sides)}: give query, gallery or both")
    first = sides.get(GALLERY) or next(iter(sides.values()))
    space = space or weights_digest(first)
    described = {
        side: {"class": type(one).__name__, "arguments": one.arguments} for side, one in sides.items()
    }
    state = {f"{side}.{name}": x for side, one in sides.items() for name, x in one.state_dict().items()}
    about = {_KEY: {"space": space, "sides": described}} | dict(provenance or {})
    save_content(path, {"state": state | dict(extra or {})}, about)
    return space


def load_embedder(path: Path | str, side: str | None = None) -> Embedder:
    """Return an embedder of a file, in evaluation mode.

    side: "query" or "gallery"; None: the only one of the file. A file with one network for both sides serves
    as either. RAML's released files are read, too (one network; ``released_raml``). AmesError where the file
    does not hold the side, or holds no embedder.
    """
    if side is not None and side not in SIDES:
        raise AmesError(f"side {side!r} is none of {', '.join(SIDES)}")
    weights = read_weights(path)
    said = weights.about.get(_KEY)
    if said is None and (found := released_raml(weights, source=str(path))) is not None:
        found.space = _released_space(Path(path))
        return found
    if not isinstance(said, dict) or not isinstance(said.get("sides"), dict):
        raise AmesError(f"{path}: holds no embedder (ames train-embedder writes one)")
    held, space = said["sides"], said.get("space")
    if not held or not isinstance(space, str):
        raise AmesError(f"{path}: describes an embedder without a side or a space: write the file again")
    chosen = BOTH if BOTH in held else side or (next(iter(held)) if len(held) == 1 else None)
    if chosen is None:
        raise AmesError(f"{path}: holds the sides {' and '.join(held)}: say which, query or gallery")
    if chosen not in held:
        raise AmesError(f"{path}: holds the {' and '.join(held)} side alone; give the {chosen} side's file")
    embedder = _build(held[chosen], weights, f"{chosen}.", source=str(path))
    embedder.side, embedder.space = chosen, space
    return embedder.eval()


def sides_of(path: Path | str) -> tuple[str, ...]:
    """Return the sides that a file holds; ("both",) for one network. AmesError as ``load_embedder``."""
    weights = read_weights(path)
    said = weights.about.get(_KEY)
    if isinstance(said, dict) and isinstance(said.get("sides"), dict):
        return tuple(said["sides"])
    return (load_embedder(path).side,)


def load_pair(query: Path | str, gallery: Path | str | None = None) -> tuple[Embedder, Embedder]:
    """Return (query, gallery) embedders of one file with both, or of two. AmesError: not of one space."""
    asked, held = load_embedder(query, QUERY), load_embedder(gallery or query, GALLERY)
    check_one_space(asked, held)
    return asked, held


def fingerprint(embedder: Embedder) -> str:
    """Return 12 hexadecimal digits of what an embedder computes: its class, arguments and weights."""
    said = (
        f"{type(embedder).__name__} {sorted(embedder.arguments.items(), key=str)} {weights_digest(embedder)}"
    )
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def _build(said: Any, weights: Weights, prefix: str, *, source: str) -> Embedder:
    if not isinstance(said, dict) or not isinstance(said.get("arguments"), dict):
        raise AmesError(f"{source}: describes an embedder that cannot be built (no arguments)")
    kind = embedder_class(said.get("class"), source=source)
    try:
        embedder = kind(**said["arguments"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise AmesError(
            f"{source}: describes an embedder that cannot be built ({first_line(error)})"
        ) from error
    own = {k.removeprefix(prefix): x for k, x in weights.state.items() if k.startswith(prefix)}
    load_state(embedder, own, source=source)
    return embedder


def released_raml(weights: Weights, *, source: str) -> GlobalNetwork | None:
    """Return the network of a file that RAML's authors released, None if it is none.

    Tensors are named ``backbone.<number>.…``, ``pool.p``, ``whiten.{weight,bias}``. The size of the input
    is not in the file, but in its name, as released: of a student "S224r" (of "-S224r-T448r-"), of a teacher
    "448r". It is 448 pixels for other names. BatchNorm's counts are added where a file lacks them.
    """
    state = dict(weights.state)
    if not {"backbone.0.weight", "pool.p", "whiten.weight", "whiten.bias"} <= state.keys():
        return None
    shape = tuple(count_layers(state, f"backbone.{stage}") for stage in (4, 5, 6, 7))
    bottleneck = "backbone.4.0.conv3.weight" in state
    names = [name for name, (blocks, deep) in DEPTHS.items() if (tuple(blocks), deep) == (shape, bottleneck)]
    if not names:
        raise AmesError(f"{source}: a ResNet of {shape} blocks, which is none of {', '.join(DEPTHS)}")
    dim = len(state["whiten.bias"])
    known = _RELEASED.fullmatch(Path(source).stem)
    size = 448 if known is None else int(known["student"] or known["size"])
    network = GlobalNetwork(trunk=names[0], dim=dim, size=size)
    for name, x in network.state_dict().items():
        if name.endswith(_COUNT):
            state.setdefault(name, x)
    load_state(network, state, source=source)
    return network.eval()


def _released_space(path: Path) -> str:
    """Return the space of a released file: its teacher's name; of a file of another name its digest, because
    nothing says then what it can be compared with.
    """
    known = _RELEASED.fullmatch(path.stem)
    return sha256(path)[:16] if known is None else f"{known['set']}-{known['size']}r-{known['rest']}"


def load_trunk(network: GlobalNetwork, path: Path | str) -> None:
    """Load the trunk's weights from a file of torchvision's names, or of an embedder, in place.

    A classifier's tensors in the file are left out. AmesError names the first tensor that does not fit.
    """
    state = read_weights(path).state
    wanted = network.backbone.state_dict()
    found = _renamed(state, wanted)
    for name, x in wanted.items():
        if name.endswith(_COUNT):
            found.setdefault(name, x)
    load_state(network.backbone, found, source=str(path))


# Names of torchvision's networks before the numbers that their parts have here.
_PARTS = {
    "conv1.": "0.",
    "bn1.": "1.",
    **{f"layer{n}.": f"{n + 3}." for n in (1, 2, 3, 4)},  # ResNet's stages
    **{f"stage{n}.": f"{n}." for n in (2, 3, 4)},  # ShuffleNetV2's
    "conv5.": "5.",
    "features.": "",  # MobileNetV2's
}
_CLASSIFIERS = ("fc.", "classifier.")


def _renamed(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a file's tensors of a trunk, under the names that they have in it."""
    needed = {name for name in wanted if not name.endswith(_COUNT)}
    for prefix in ("", "backbone.", "query.backbone.", "gallery.backbone.", "both.backbone."):
        own = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
        if needed <= own.keys():
            return {name: own[name] for name in wanted if name in own}
    found = {}
    for name, x in state.items():
        if name.startswith(_CLASSIFIERS):
            continue
        begins = next((old for old in _PARTS if name.startswith(old)), "")
        found[_PARTS.get(begins, begins) + name.removeprefix(begins)] = x
    return found
