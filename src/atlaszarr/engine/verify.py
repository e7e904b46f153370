"""Validate a target: compare its objects with its ledger, and its levels with each other. Nothing is written.

A build calls `defects_before_build` before it resumes or repairs a target; `atlaszarr.verify` calls `verify_image` for
every image.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, TargetError
from ..stores.documents import LARGEST, parse
from ..stores.local import is_partial
from ..stores.target import Target
from . import collection, label_index, ledger  # noqa: F401 - collection: a kind of multiscale
from .array_layout import ArrayLayout
from .ledger import COMPACT, OPEN, Defect, Ledger, Task, damaged_objects, digest
from .lock import KEYS
from .multiscale import ArraySpec, Multiscale, multiscale_of
from .notebook import table_html
from .pyramid import Pass
from .target_state import FINISHED, ROOT_KEYS, UNFINISHED, read_root, recorded_root, validate_layout

#: Tasks of a pass whose levels and labels are compared, or objects of a level with their source, unless `deep` is set.
_SAMPLE = 8
#: Records next to a ledger: where one is found without root and ledger, both have been deleted.
_RECORDS = (
    "atlaszarr/build.json",
    "atlaszarr/sections.csv",
    "atlaszarr/failures.csv",
    label_index.KEY,
)


@dataclass(frozen=True)
class VerifyReport:
    """The result of `verify`.

    Attributes
    ----------
    target : str
    objects : int
        Chunks and shards that the ledger records.
    blocks : int
        Blocks whose coarser levels were compared with the finer ones.
    defects : tuple of Defect
    sections, fields : int
        Of refinements: their sections, and those of them that have a field.
    """

    target: str
    objects: int
    blocks: int
    defects: tuple[Defect, ...]
    sections: int = 0
    fields: int = 0

    @property
    def extent(self) -> str:
        """What was validated, in words."""
        parts = [f"{self.objects:,} objects"]
        if self.blocks or not self.sections:
            parts.append(f"the levels of {self.blocks:,} blocks")
        if self.sections:
            parts.append(f"the fields of {self.fields:,} of {self.sections:,} sections")
        return ", ".join(parts)

    @property
    def ok(self) -> bool:
        """Whether there are no defects."""
        return not self.defects

    def to_dict(self) -> dict[str, Any]:
        """The report in JSON's types; `sections` and `fields` only of refinements."""
        return {
            "target": self.target,
            "ok": self.ok,
            "objects": self.objects,
            "blocks": self.blocks,
            **({"sections": self.sections, "fields": self.fields} if self.sections else {}),
            "defects": [{"kind": defect.kind, "key": defect.key, "text": defect.text} for defect in self.defects],
        }

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        defects = [f"{defect.kind}: {defect.key} {defect.text}" for defect in self.defects]
        rows: list[tuple[str, object]] = [
            ("target", self.target),
            ("validated", self.extent),
            ("defects", defects or "none"),
        ]
        return table_html("Sound" if self.ok else f"{len(defects)} defects", rows)


def joined(target: str, parts: Iterable[VerifyReport], defects: Iterable[Defect]) -> VerifyReport:
    """The report on a target with several parts, with the defects of all of them."""
    reports = list(parts)
    names = ("objects", "blocks", "sections", "fields")
    sums = {name: sum(getattr(report, name) for report in reports) for name in names}
    return VerifyReport(target, defects=tuple(defects), **sums)


def verify_image(target: Target, *, deep: bool) -> VerifyReport | None:
    """Validate an image or a collection: every object, all metadata, and each level against the level before it.

    Parameters
    ----------
    target : Target
    deep : bool
        Same as in `atlaszarr.verify`.

    Returns
    -------
    VerifyReport or None
        None if the target has neither a root nor a ledger nor another record of atlaszarr.

    Raises
    ------
    InputError
        If another program wrote the root, or the target follows the rules of another version.
    TargetError
        If the target cannot be read.
    """
    foreign = None
    try:
        root = read_root(target)
    except InputError as error:
        root, foreign = None, error
    if root is None:
        if all(target.read(key) is None for key in _RECORDS):
            if foreign is not None:
                raise foreign
            return None
        name = "zarr.json" if target.read(".zgroup") is None else ".zattrs"
        kind, is_lost = ("missing", "is missing") if foreign is None else ("metadata", "cannot be read")
        text = f"{is_lost}, and the ledger does not record it; remove the target and build it again"
        lost = Defect(kind, name, text), Defect("ledger", COMPACT, "is missing or cannot be read")
        return VerifyReport(target.url, 0, 0, lost)
    if root["state"] != FINISHED:
        unfinished = Defect("unfinished", "", "the target is unfinished; run the same command to resume")
        return VerifyReport(target.url, 0, 0, (unfinished,))
    validate_layout(target, root["request"])
    recorded = ledger.read(target, finished=True)
    defects, counts = _defects(target, root, recorded, deep)
    objects = sum(len(entry.written) for entry in recorded.done.values())
    return VerifyReport(target.url, objects, defects=tuple(defects), **{"blocks": 0, **counts})


def defects_before_build(target: Target, state: str | None, recorded: Ledger) -> list[Defect]:
    """The defects that a build repairs before it resumes.

    Those of a finished target are all that `verify_image` lists; those of an unfinished one are recorded objects that
    differ from what was written. Every recorded object is read.
    """
    if state == UNFINISHED:
        return list(damaged_objects(target, recorded.done))
    if state != FINISHED:
        return []
    defects, _ = _defects(target, read_root(target) or {}, recorded, deep=False)
    if any(defect.kind == "ledger" for defect in defects):
        defects += damaged_objects(target, recorded.done)
    return defects


def _defects(
    target: Target, root: Mapping[str, Any], recorded: Ledger, deep: bool
) -> tuple[list[Defect], Mapping[str, int]]:
    """The defects of a finished target, and what was compared: see `Multiscale.counts`."""
    defects = [Defect("ledger", name, "cannot be read") for name in recorded.damaged]
    if recorded.digest is None:
        defects.append(Defect("ledger", COMPACT, "is missing"))
    elif not defects and recorded.digest != root.get("ledger"):
        defects.append(Defect("ledger", COMPACT, "differs from the one that the target was finished with"))
    try:
        multiscale = multiscale_of(target, recorded)
    except (ValueError, KeyError, TypeError, AttributeError):
        # Nothing else can be compared without the header of the ledger.
        return defects or [Defect("ledger", COMPACT, "does not describe an image of atlaszarr")], {}
    if wrong := list(_wrong_layouts(multiscale, recorded)):
        return defects + wrong, {}  # by this ledger objects may take any amount of memory
    defects += _foreign(multiscale, recorded)
    if not defects or (recorded_root(recorded) or {}).get("request") == root["request"]:
        defects += document_defects(target, recorded)
    if defects and defects[0].kind == "ledger":
        return defects + list(_undecodable(multiscale)), {}  # objects cannot be compared with this ledger
    defects += damaged_objects(target, recorded.done)
    defects += _extra(target, multiscale, recorded)
    defective = {defect.task for defect in defects if defect.task}
    tasks = [task for task in _tasks_to_compare(multiscale, recorded, deep) if task not in defective]
    for defect in _content_defects(multiscale, root["request"], recorded, tasks, None if deep else _SAMPLE):
        # An object that is missing or altered, and so is listed already, cannot be decoded for a comparison either.
        if defect.kind != "undecodable" or not defective:
            defects.append(defect)
    if not defects:
        defects += label_index.defects(target, recorded, deep)
    return defects, multiscale.counts(recorded, tasks)


def _wrong_layouts(multiscale: Multiscale, recorded: Ledger) -> Iterator[Defect]:
    """Arrays of the ledger that are others than those in the metadata documents that it records."""
    documents = (recorded.header or {}).get("documents", {})
    name = "zarr.json" if multiscale.encoding.zarr_format == 3 else ".zarray"
    known: set[tuple[ArraySpec, int, str]] = set()  # the images of a collection have the same ones
    for spec, level, path in multiscale.paths():
        text = documents.get(f"{path}/{name}")
        if text is None or (spec, level, text) in known:
            continue
        known.add((spec, level, text))
        described = multiscale.layout(spec, level)
        try:
            layout = ArrayLayout.of(parse(text))
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            continue  # `document_defects` names it
        both = ((one.shape, one.chunk, one.unit, one.stored) for one in (layout, described))
        if len(set(both)) > 1:
            yield Defect("ledger", COMPACT, f"describes another array {path} than its metadata")


def _foreign(multiscale: Multiscale, recorded: Ledger) -> Iterator[Defect]:
    """Records of blocks that the image does not have."""
    blocks = {step.source: multiscale.blocks(step) for step in multiscale.pyramid.passes}
    for source, index in recorded.done:
        if source not in blocks or not all(0 <= i < n for i, n in zip(index, blocks[source], strict=True)):
            yield Defect("ledger", COMPACT, f"records block {index} of level {source}, which does not exist")


def document_defects(target: Target, recorded: Ledger) -> Iterator[Defect]:
    """Metadata documents and sidecars that differ from what the target was finished with."""
    header = recorded.header or {}
    roots = header.get("root", {})
    for key, text in {**header.get("documents", {}), **roots}.items():
        try:
            written = parse(text)
        except ValueError:
            yield Defect("ledger", COMPACT, f"records a document {key} that is not JSON")
            continue
        body = target.read(key, LARGEST)
        yield from _document_defects(key, _without_ledger(body) if body and key in roots else body, written)
    for key, (size, checksum) in recorded.files.items():
        found = target.sizes(key).get(key)
        if found is None:
            yield Defect("missing", key, "is missing")
        elif found != size or digest(target.read(key) or b"") != checksum:
            yield Defect("altered", key, "differs from what was written")


def _document_defects(key: str, body: bytes | None, written: Any) -> Iterator[Defect]:
    if body is None:
        yield Defect("missing", key, "is missing")
        return
    try:
        found = parse(body)
    except ValueError:
        yield Defect("metadata", key, "is not JSON")
        return
    if (difference := next(_differences(found, written), None)) is not None:
        yield Defect("metadata", key, difference)


def _differences(found: Any, written: Any, path: str = "") -> Iterator[str]:
    """The differences between two documents, in words."""
    if isinstance(found, dict) and isinstance(written, dict):
        for name in {**written, **found}:
            inside = f"{path}.{name}".lstrip(".")
            if name not in found:
                yield f"{inside} is missing"
            elif name not in written:
                yield f"{inside} was added"
            else:
                yield from _differences(found[name], written[name], inside)
    elif isinstance(found, list) and isinstance(written, list) and len(found) == len(written):
        for i, pair in enumerate(zip(found, written, strict=True)):
            yield from _differences(*pair, f"{path}[{i}]")
    elif found != written:
        yield f"{path} is {found!r}, was written as {written!r}"


def _without_ledger(body: bytes) -> bytes:
    """A document of the root without the digest of the ledger, as the ledger itself records it."""
    try:
        document = parse(body)
        inner = document.get("attributes", document)
        inner["atlaszarr"].pop("ledger", None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return body
    return json.dumps(document).encode()


def _undecodable(multiscale: Multiscale) -> Iterator[Defect]:
    """Objects of the arrays that cannot be decoded."""
    for spec, level, path in multiscale.paths():
        most = multiscale.layout(spec, level).largest
        for key, size in multiscale.target.sizes(path).items():
            if key.rsplit("/", 1)[1].startswith((".z", "zarr.json")):
                continue
            try:
                if size > most:
                    raise ValueError(f"it has {size} bytes, and its metadata allow {most}")
                multiscale.validate(spec, level, multiscale.target.read(key, most) or b"")
            except ValueError as error:
                yield Defect("undecodable", key, f"cannot be decoded: {error}")


def _extra(target: Target, multiscale: Multiscale, recorded: Ledger) -> Iterator[Defect]:
    """Objects among the arrays, records and temporary files that the ledger does not list."""
    header = recorded.header or {}
    known = {*header.get("documents", ()), *header.get("root", ()), COMPACT, *KEYS}
    known.update(key for entry in recorded.done.values() for key in entry.written)
    arrays = multiscale.prefixes
    for key in target.list_keys():
        if key not in known and (key.startswith((*arrays, f"{OPEN}/")) or is_partial(key)):
            text = "belongs to no array" if key.startswith(arrays) else "belongs to no finished build"
            yield Defect("extra", key, text)


def _tasks_to_compare(multiscale: Multiscale, recorded: Ledger, deep: bool) -> list[Task]:
    """All tasks, or a sample of every pass, the same in every call."""
    if deep:
        return list(recorded.done)
    chosen: list[Task] = []
    for step in multiscale.pyramid.passes:
        tasks = sorted(task for task in recorded.done if task[0] == step.source)
        chosen += random.Random(0).sample(tasks, min(_SAMPLE, len(tasks)))
    return chosen


def _content_defects(
    multiscale: Multiscale, request: Mapping[str, Any], recorded: Ledger, tasks: list[Task], most: int | None
) -> Iterator[Defect]:
    """Defects of the voxels that tasks wrote; `most` is that of `Multiscale.contents`."""
    if (own := multiscale.contents(request, recorded, tasks, most)) is not None:
        yield from own
        return
    steps = {step.source: step for step in multiscale.pyramid.passes}
    for task in tasks:
        yield from _level_defects(multiscale, steps[task[0]], task)
        for spec in multiscale.arrays:
            if (known := _known_labels(recorded, multiscale.group(spec, task[1]))) is not None:
                yield from _label_defects(multiscale, spec, known, steps[task[0]], task)


def _level_defects(multiscale: Multiscale, step: Pass, task: Task) -> Iterator[Defect]:
    """Objects of a task that differ from the downsampled level before them."""
    region = multiscale.pyramid.region(step, task[1])
    try:
        values = multiscale.read(step.source, region)
        for level in range(step.source + 1, step.writes[-1] + 1):
            inside = multiscale.pyramid.region(step, task[1], level)
            expected, stored = multiscale.coarsened(values, level, inside), multiscale.read(level, inside)
            for spec in multiscale.at(level):
                is_float = np.dtype(spec.dtype).kind == "f"
                if not np.array_equal(expected[spec.path], stored[spec.path], equal_nan=is_float):
                    unit = next(iter(multiscale.pyramid.levels[level].units(inside)))
                    key = multiscale.key(spec, level, unit)
                    yield Defect("inconsistent", key, f"differs from the downsampled level {level - 1}", task)
            values = stored
    except TargetError as error:  # although the bytes are those that were recorded
        unit = next(multiscale.pyramid.levels[step.source].units(region))
        yield Defect("undecodable", multiscale.key(multiscale.arrays[0], step.source, unit), str(error), task)


def _label_defects(
    multiscale: Multiscale, spec: ArraySpec, known: Iterable[int], step: Pass, task: Task
) -> Iterator[Defect]:
    """Objects of a task that contain labels which the metadata does not list."""
    listed = np.asarray(sorted({0, *known}))
    for level in step.writes:
        for unit in multiscale.pyramid.levels[level].units(multiscale.pyramid.region(step, task[1], level)):
            key = multiscale.key(spec, level, unit)
            body = multiscale.target.read(key, multiscale.layout(spec, level).largest)
            if body is None:
                continue
            try:
                labels = np.unique(multiscale.decode(spec, level, body))
            except ValueError:
                continue  # `_level_defects` lists it
            if (unknown := labels[~np.isin(labels, listed)]).size:
                yield Defect("label", key, f"contains label {unknown[0]}, which the metadata does not list", task)


def _known_labels(recorded: Ledger, path: str) -> list[int] | None:
    """The label values that the metadata of a group lists; None if it lists none."""
    header = recorded.header or {}
    texts = {**header["documents"], **header["root"]}
    for name in ROOT_KEYS:
        if (key := f"{path}/{name}".lstrip("/")) in texts:
            with suppress(ValueError, KeyError, TypeError, AttributeError):  # `document_defects` compares it
                document = parse(texts[key])
                attributes = document.get("attributes", document)
                listed = attributes.get("ome", attributes).get("image-label", {}).get("properties")
                return None if listed is None else [int(label["label-value"]) for label in listed]
    return None
