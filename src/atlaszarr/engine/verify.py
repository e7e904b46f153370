"""What a target claims against what it holds: every defect of it, and what mends them. Never writes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..stores.target import Target
from . import checks, label_index, ledger
from .checks import Defect
from .kinds import kind_of, recorded
from .ledger import Ledger, Task
from .multiscale import Multiscale
from .target_state import FINISHED, UNFINISHED, check_layout, read_root
from .writer import Assembly

#: Tasks of a pass whose levels and labels are compared unless all are.
_SAMPLE = 8


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes
    ----------
    target : str
    objects : int
        Chunks and shards that were looked at.
    blocks : int
        Blocks whose coarser levels were compared with what makes them.
    defects : tuple of Defect
    """

    target: str
    objects: int
    blocks: int
    defects: tuple[Defect, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.defects

    def to_dict(self) -> dict[str, Any]:
        """Everything in it, in JSON's types."""
        found = [{"kind": defect.kind, "key": defect.key, "text": defect.text} for defect in self.defects]
        return {
            "target": self.target,
            "ok": self.ok,
            "objects": self.objects,
            "blocks": self.blocks,
            "defects": found,
        }


def verify_image(place: Target, *, deep: bool) -> VerifyReport | None:
    """Check an image or a collection: every object, all metadata, and that each level is what its parent makes.

    Parameters
    ----------
    place : Target
    deep : bool
        See `atlaszarr.verify`.

    Returns
    -------
    VerifyReport or None
        None if there is nothing that atlaszarr wrote.
    """
    root = read_root(place)
    if root is None:
        return None
    if root["state"] != FINISHED:
        unfinished = Defect("unfinished", "", "is unfinished; build again to go on with it")
        return VerifyReport(place.url, 0, 0, (unfinished,))
    check_layout(place, root["request"])
    found = ledger.read(place, finished=True)
    defects, blocks = inspect(place, root, found, deep)
    return VerifyReport(place.url, sum(len(entry.written) for entry in found.done.values()), blocks, tuple(defects))


def unsound(target: Target, state: str | None, found: Ledger) -> list[Defect]:
    """What a build has to make again before it resumes.

    Of a finished target all that its check names; of an unfinished one the recorded objects that do not hold what was
    written, every one of them read.
    """
    if state == UNFINISHED:
        return list(checks.objects(target, found.done))
    if state != FINISHED:
        return []
    defects, _ = inspect(target, read_root(target) or {}, found, deep=False)
    if any(defect.kind == "ledger" for defect in defects):
        defects += checks.objects(target, found.done)
    return defects


def tasks_to_redo(defects: Sequence[Defect], assembly: Assembly) -> set[Task]:
    """What mends defects: the tasks that wrote them, and what reads a level that was wrong."""
    wrong = {defect.task for defect in defects if defect.task and defect.kind in ("inconsistent", "label")}
    return assembly.dependent(wrong) | {defect.task for defect in defects if defect.task}


def inspect(target: Target, root: Mapping[str, Any], found: Ledger, deep: bool) -> tuple[list[Defect], int]:
    """The defects of a finished target, and how many blocks were compared."""
    defects = [Defect("ledger", name, "cannot be read") for name in found.damaged]
    if found.digest is None:
        defects.append(Defect("ledger", ledger.COMPACT, "is not there"))
    elif not defects and found.digest != root.get("ledger"):
        defects.append(Defect("ledger", ledger.COMPACT, "is not the one that the target was finished with"))
    try:
        multiscale = recorded(target, found)
    except (ValueError, KeyError, TypeError):
        return defects, 0  # without its header nothing more can be told
    if not defects or checks.is_of(found, root["request"]):
        defects += checks.documents(target, found)
    if defects and defects[0].kind == "ledger":
        # What was written is not known for sure: only what an object says of itself counts.
        keys = [
            (spec, level, key)
            for spec, level, path in multiscale.paths()
            for key in target.list_keys(path)
            if not key.rsplit("/", 1)[1].startswith((".z", "zarr.json"))
        ]
        return defects + list(checks.undecodable(multiscale, keys)), 0
    defects += checks.objects(target, found.done)
    defects += checks.extra(target, multiscale, found)
    unsound = {defect.task for defect in defects if defect.task}
    tasks = [task for task in _sampled(multiscale, found, deep) if task not in unsound]
    for defect in _contents(multiscale, root["request"], found, tasks):
        # What is missing or altered cannot be compared either; that says nothing new.
        if defect.kind != "undecodable" or not unsound:
            defects.append(defect)
    if not defects:
        defects += label_index.defects(target, found, deep)
    return defects, len(tasks)


def _sampled(multiscale: Multiscale, found: Ledger, deep: bool) -> list[Task]:
    """The tasks to compare: all, or some of every pass, always the same ones."""
    if deep:
        return list(found.done)
    chosen: list[Task] = []
    for step in multiscale.pyramid.passes:
        tasks = sorted(task for task in found.done if task[0] == step.source)
        chosen += random.Random(0).sample(tasks, min(_SAMPLE, len(tasks)))
    return chosen


def _contents(multiscale: Multiscale, request: Mapping[str, Any], found: Ledger, tasks: list[Task]) -> Iterator[Defect]:
    if (contents := kind_of(found).contents) is not None:
        yield from contents(multiscale, request, found, tasks)
        return
    steps = {step.source: step for step in multiscale.pyramid.passes}
    for task in tasks:
        yield from checks.levels(multiscale, steps[task[0]], task)
        for spec in multiscale.arrays:
            if (known := _known_labels(found, multiscale.group(spec, task[1]))) is not None:
                yield from checks.labels(multiscale, spec, known, steps[task[0]], task)


def _known_labels(found: Ledger, path: str) -> list[int] | None:
    """The label values that the metadata of an array's group lists, if it does."""
    header = found.header or {}
    texts = {**header["documents"], **header["root"]}
    for name in ("zarr.json", ".zattrs"):
        if (key := f"{path}/{name}".lstrip("/")) in texts:
            document = json.loads(texts[key])
            attributes = document.get("attributes", document)
            listed = attributes.get("ome", attributes).get("image-label", {}).get("properties")
            return None if listed is None else [int(one["label-value"]) for one in listed]
    return None
