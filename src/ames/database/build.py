"""From descriptor files to a database: ``ames compress``, and appending to one."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ames.database.index import COSINE, SIMILARITY, codec_for_more
from ames.database.manifest import NAME, Manifest
from ames.database.segment import Batch
from ames.database.store import Database, check_codes, read_file
from ames.database.writer import Writer, check_free, remove_orphans, writer_lock, writing
from ames.datasets.lists import list_digest
from ames.descriptors.local import DescriptorFile, GlobalFile, check_backbone, check_same_images
from ames.descriptors.provenance import Provenance, of_both
from ames.descriptors.unit_length import say_normalized, unit
from ames.errors import AmesError, naming
from ames.features import LocalFeatures
from ames.global_search.codes import GlobalCodec
from ames.io.progress import Tick, progress
from ames.models.base import Similarity

log = logging.getLogger(__name__)

SEGMENT_ROWS = 1 << 16  # images of a segment; an interrupted build resumes after the last whole one
_BATCH_SLOTS = 1 << 16  # descriptors compressed at a time
_TRAINED_ON = 200_000  # global vectors that the codec is fitted on, at most
_SEED = 0  # of the codec's sample and training


@dataclass(frozen=True)
class Source:
    """The input of a database: local descriptors, and global ones (None: it will have none).

    names: of the images; None: the file's own, or their numbers.
    """

    local: DescriptorFile
    vectors: GlobalFile | None = None
    names: list[str] | None = None
    _said: set[str] = field(default_factory=set, repr=False, compare=False)  # of ``unit_vectors``

    def checked(self) -> Source:
        """Return this source with names. AmesError if the files are not of the same images, or a name occurs
        twice or cannot be stored.
        """
        images = len(self.local)
        if self.vectors is not None:
            check_same_images(self.vectors, self.local)
        names = self.names or self.local.names or [str(row) for row in range(images)]
        if len(names) != images:
            raise AmesError(f"{len(names)} names for the {images} images of {self.local.path}")
        if len(set(names)) != images:
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise AmesError(f"{self.local.path}: the name {twice!r} comes twice; give other names (--list)")
        for name in names:
            try:
                name.encode()
            except UnicodeEncodeError as error:  # other bytes, which Python keeps as lone surrogates
                raise AmesError(
                    f"{self.local.path}: the name {name!a} is not UTF-8; give other names (--list)"
                ) from error
        return replace(self, names=names)

    @property
    def provenance(self) -> dict[str, Any]:
        """The record of the local descriptors, and of the embedder that made the global ones, if one did."""
        return of_both(self.local.provenance, {} if self.vectors is None else self.vectors.provenance)

    def unit_vectors(self, rows: np.ndarray) -> np.ndarray:
        """Return global descriptors float32 [n, G] of ascending rows, at unit length; a change of length is
        logged once. AmesError names the image whose vector is not finite.
        """
        assert self.vectors is not None
        path, found = str(self.vectors.path), self.vectors.read(rows)
        fixed = unit(found, lambda row: f"{path}: the vector of {self._image(int(rows[row]))}")
        if fixed is not found and path not in self._said:
            self._said.add(path)
            say_normalized(path)
        return fixed

    def describe_descriptors(self, row: int) -> str:
        """Name an image's local descriptors, for a message."""
        return f"{self.local.path}: the descriptors of {self._image(row)}"

    def _image(self, row: int) -> str:
        return f"row {row}" if self.names is None else f"{self.names[row]!r} (row {row})"


def compress(
    source: Source,
    model: Similarity,
    out: Path | str,
    *,
    desc_num: int,
    factory: str = "SQfp16",
    model_name: str = "",
    device: str = "cpu",
) -> Database:
    """Make a database of at most ``desc_num`` local codes per image, and open it.

    factory: of the global codes (``ames.global_search.codes``). The same call resumes an interrupted build,
    and leaves a finished one as it is, whatever was appended or deleted since. AmesError if ``out`` holds
    anything else. Memory is that of a batch and of the names.
    """
    out = Path(out)
    named = bool(source.names or source.local.names)  # not only numbers
    source = source.checked()
    _check_source(source, model)
    if desc_num > source.local.slots:
        raise AmesError(
            f"{source.local.path}: holds {source.local.slots} descriptors per image, {desc_num} asked for"
        )
    manifest = Manifest(
        slots=desc_num + model.extra_slots,
        code_bytes=model.code_bytes,
        codes="float16" if model.code_bits is None else "bits",
        global_bytes=0,
        projection=model.fingerprint(),
        model={"name": model_name, "class": type(model).__name__},
        factory=None if source.vectors is None else factory,
        provenance=source.provenance,
        source=_about(source, named),
        building=len(source.local),
    )
    fitted = None if (out / NAME).exists() else _start(out, source, factory)
    with writer_lock(out):
        existing = _begin(out, manifest)
        if existing.building is not None:
            remove_orphans(out, existing)
            writer = Writer(out, existing)
            _fill(writer, source, model, _codec(writer, source, fitted), device)
            writer.finish()
    return Database(out)


def _start(out: Path, source: Source, factory: str) -> GlobalCodec | None:
    """Check and make the folder of a new build; return its global codec, None without vectors."""
    if out.is_dir():
        check_free(out)  # before a lock is left in another folder
    fitted = _fit(source, factory)  # before anything is written: FAISS may refuse it
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AmesError(f"{out}: cannot be made a folder ({error.strerror or error})") from error
    return fitted


def _fill(writer: Writer, source: Source, model: Similarity, codec: GlobalCodec | None, device: str) -> None:
    """Add the images that the database lacks."""
    start, count = sum(writer.manifest.rows), len(source.local)
    if start:
        log.info("%s: resumes after %d images", writer.folder, start)
    with progress("compress", count, "images", done=start) as tick:
        for first in range(start, count, SEGMENT_ROWS):
            rows = range(first, min(first + SEGMENT_ROWS, count))
            added = batches(source, rows, model, writer.manifest.slots, codec, device, tick)
            writer.append(added, building=count)


def _begin(out: Path, wanted: Manifest) -> Manifest:
    """Return the manifest of the database or build in a folder, or write ``wanted`` if there is none."""
    if (out / NAME).exists():
        existing = Manifest.load(out)
        if existing.building is None or existing.segments or existing.codec is not None:
            _check_same(out, existing, wanted)
            return existing
        # Empty so far: another call may have other arguments.
    wanted.save(out)
    return wanted


def append(source: Source, model: Similarity, folder: Path | str, *, device: str = "cpu") -> int:
    """Add all images of ``source`` to a database or none, and return how many: 0 if it holds all of them
    already, with the same codes.

    AmesError if the model or the descriptors' backbone did not make the database, if a name exists with
    another content, or if global descriptors are missing or not wanted.
    """
    source = source.checked()
    _check_source(source, model)
    with writing(folder) as writer:
        database = Database(folder)  # as it is now that nobody else changes it
        database.check_model(model)
        if source.vectors is not None and database.manifest.codec is not None:
            database.check_space(source.vectors.space, source.vectors.path)
        new, made = source.provenance, database.provenance
        changed = Provenance.from_dict(made).other_features(Provenance.from_dict(new))
        if new and made and changed is not None:
            raise AmesError(
                f"{source.local.path}: its features are other ones than those of {folder} ({changed})"
            )
        if (source.vectors is None) != (database.manifest.codec is None):
            has = "has no" if source.vectors is not None else "has"
            raise AmesError(
                f"{folder}: {has} global descriptors; --global must be given where it has them, only there"
            )
        codec = None if database.manifest.codec is None else codec_for_more(database)
        assert source.names is not None
        added = batches(source, range(len(source.local)), model, database.slots, codec, device)
        known = {name: image for image, name in enumerate(database.names)}
        both = [name for name in source.names if name in known]
        if not both:
            return writer.append(added)
        other = both[0]
        if len(both) == len(source.names):
            found = _first_other(database, known, added)
            if found is None:
                return 0
            other = found
        raise AmesError(f"{folder}: holds {other!r} already; nothing was added")


def _first_other(database: Database, images: Mapping[str, int], added: Iterable[Batch]) -> str | None:
    """Return the first image to add that the database holds with another content; None: none."""
    for batch in added:
        wanted = database.manifest.layout.table(batch)
        stored = database.rows_as_stored([images[name] for name in batch.names])
        other = (stored != wanted).any(1)
        if other.any():
            return batch.names[int(np.argmax(other))]
    return None


@torch.inference_mode()
def batches(
    source: Source,
    rows: range,
    model: Similarity,
    slots: int,
    codec: GlobalCodec | None,
    device: str = "cpu",
    tick: Tick | None = None,
) -> Iterator[Batch]:
    """Yield images as a database stores them, at most ``slots`` descriptors each."""
    assert source.names is not None
    model = model.to(device).eval()
    count = slots - model.extra_slots
    step = max(1, _BATCH_SLOTS // slots)
    for start in range(rows.start, rows.stop, step):
        part = range(start, min(start + step, rows.stop))
        local = source.local.read(part, min(count, source.local.slots), locations=model.reads_locations)
        if model.reads_vector and source.vectors is not None:
            local = replace(local, vector=torch.from_numpy(source.vectors.gather(np.array(part))))
        local = local.real_first().pad(count)
        with naming(source.describe_descriptors, lambda image, start=start: start + image):  # type: ignore[misc]
            codes = local if source.local.packed else model.compress(local.to(device)).to("cpu")
        codes = codes.trim(slots).pad(slots)  # some models read a number of descriptors of their own
        stored = codes.descriptors.numpy()
        stored = np.ascontiguousarray(stored).view(np.uint8).reshape(*stored.shape[:2], -1)
        stored = np.where(codes.valid.numpy()[..., None], stored, 0).astype(np.uint8)
        vectors = present = None
        if codec is not None and source.vectors is not None:
            found = source.unit_vectors(np.arange(part.start, part.stop))
            present = np.linalg.norm(found, axis=1) > 0
            vectors = codec.encode(found)
        names = source.names[part.start : part.stop]
        yield Batch(names, codes.counts.numpy(), stored, vectors, present)
        if tick is not None:
            tick(len(part))


def _check_source(source: Source, model: Similarity) -> None:
    check_codes(model, source.local)
    check_backbone(source.local, width=model.local_dim, backbone=None)
    if model.reads_vector and source.vectors is None and not source.local.packed:
        raise AmesError(f"{type(model).__name__} reads a global descriptor of each image: give --global")
    if not source.local.packed:
        check_storable(model, source.local.width)


def check_storable(model: Similarity, width: int) -> None:
    """AmesError unless a database can hold the codes that a model makes of descriptors of ``width``."""
    nothing = LocalFeatures.from_descriptors(
        torch.zeros(1, 1, width),
        positions=torch.zeros(1, 1, 2),
        scale=torch.zeros(1, 1),
        vector=torch.zeros(1, model.global_dim or 1),
        image_size=torch.ones(1, 2),
    ).to(model.device)
    codes = model.compress(nothing).descriptors
    kind = codes.dtype
    if kind not in (torch.uint8, torch.float16):
        made = f"{type(model).__name__} makes codes of {kind}"
        raise AmesError(f"{made}: a database holds packed bits or float16; take another model")
    if codes.shape[-1] * codes.element_size() != model.code_bytes:
        made = f"{type(model).__name__} was made for descriptors of any width"
        raise AmesError(f"{made}: a database needs one that knows it, local_dim={width}")


def _fit(source: Source, factory: str) -> GlobalCodec | None:
    """Return a global codec that is fitted on a sample of the vectors; None without vectors."""
    if source.vectors is None:
        return None
    rng = np.random.default_rng([_SEED, 21])
    n = len(source.vectors)
    rows = np.sort(rng.choice(n, min(n, _TRAINED_ON), replace=False))
    return GlobalCodec.fit(source.unit_vectors(rows), factory, seed=_SEED)


def _codec(writer: Writer, source: Source, fitted: GlobalCodec | None) -> GlobalCodec | None:
    """Return the global codec of a build, stored before the first image is added."""
    if writer.manifest.codec is not None:
        return GlobalCodec.from_bytes(read_file(writer.folder, writer.manifest.codec))
    codec = fitted or _fit(source, str(writer.manifest.factory))
    if codec is None:
        return None
    file = writer.add_file("codec", codec.to_bytes())
    writer.commit(replace(writer.manifest, codec=file, global_bytes=codec.code_bytes))
    return codec


def _about(source: Source, named: bool) -> dict[str, object]:
    """Describe the input of a build, so that the same call is recognized."""
    assert source.names is not None
    about: dict[str, object] = {"images": len(source.local), "named": named, "seed": _SEED}
    about["names"] = list_digest(source.names)
    for key, file in (("local", source.local), ("global", source.vectors)):
        if file is not None:
            status = file.path.stat()
            about[key] = {"file": file.path.name, "bytes": status.st_size, "changed": status.st_mtime_ns}
    return about if source.vectors is None else about | {SIMILARITY: COSINE}


def finished(out: Path | str) -> int | None:
    """Return the generation of a folder's complete database; None if it holds none."""
    if not (Path(out) / NAME).exists():
        return None
    existing = Manifest.load(Path(out))
    return existing.generation if existing.building is None else None


def _check_same(out: Path, existing: Manifest, wanted: Manifest) -> None:
    """AmesError if a database, or its unfinished build, was made with other settings or from other files."""
    other = _difference(existing, wanted)
    if other is None:
        return
    key, what = other
    if existing.building is None:
        raise AmesError(
            f"{out}: already holds a database that was made with other settings ({what}); "
            "give a new folder, or use ames append"
        )
    raise AmesError(
        f"{out}: holds an unfinished database that was made with other settings ({key} differs): "
        f"{what}; remove the folder, or give another one"
    )


def _difference(existing: Manifest, wanted: Manifest) -> tuple[str, str] | None:
    """Return the first key in which two databases differ, and the difference in words."""
    if existing.projection != wanted.projection:
        return "projection", "the model's projection is another"
    for key, what in (("slots", "descriptors per image"), ("codes", "codes"), ("factory", "global factory")):
        old, new = getattr(existing, key), getattr(wanted, key)
        if old != new:
            return key, f"{what}: there {old}, now {new}"
    source = json.loads(json.dumps(wanted.source))
    for key in (*source, "local", "global"):
        old, new = existing.source.get(key), source.get(key)
        if old != new:
            return "source", _source_difference(key, old, new)
    return None


def _source_difference(key: str, existing: Any, now: Any) -> str:
    if key in ("names", SIMILARITY) and existing is None:
        return "by an earlier version, which did not note of what"
    if key == "names":
        return "other names of the images"
    if isinstance(existing, dict) and isinstance(now, dict) and existing["file"] == now["file"]:
        return f"{now['file']} has changed since"
    told = [x["file"] if isinstance(x, dict) else x for x in (existing, now)]
    return f"{key}: there {told[0]}, now {told[1]}"
