"""What a target holds against what its ledger says it holds. Only reads; serves any image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import TargetError
from ..stores.local import is_partial
from ..stores.target import Target
from .ledger import COMPACT, OPEN, Entry, Ledger, Task
from .lock import KEYS
from .multiscale import ArraySpec, Multiscale, digest
from .pyramid import Pass
from .target_state import ROOT_KEYS

#: Objects that are looked at at once.
_READERS = 8


@dataclass(frozen=True)
class Defect:
    """One thing that is not as it should be.

    Attributes
    ----------
    kind : str
        ``unfinished``, ``ledger``, ``missing``, ``truncated``, ``altered``, ``undecodable``, ``extra``, ``metadata``,
        ``inconsistent`` or ``label``.
    key : str
        Of the object.
    text : str
        What is wrong with it.
    task : tuple or None
        The task that wrote it: doing it again mends it.
    """

    kind: str
    key: str
    text: str
    task: Task | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"


def objects(target: Target, done: Mapping[Task, Entry]) -> Iterator[Defect]:
    """Recorded objects that are missing, truncated or altered; all are read.

    Parameters
    ----------
    target : Target
    done : mapping
    """
    sizes = target.sizes()

    def look(item: tuple[Task, Entry]) -> list[Defect]:
        task, entry = item
        found, there = [], {}
        for key, (size, checksum) in entry.written.items():
            if key not in sizes:
                found.append(Defect("missing", key, "is not there", task))
            elif sizes[key] != size:
                found.append(Defect("truncated", key, f"holds {sizes[key]} bytes, was written with {size}", task))
            else:
                there[key] = checksum
        for key, body in target.read_each(there).items():
            if body is None or digest(body) != there[key]:
                found.append(Defect("altered", key, "does not hold what was written", task))
        return found

    with ThreadPoolExecutor(_READERS) as readers:
        for found in readers.map(look, done.items()):
            yield from found


def undecodable(multiscale: Multiscale, keys: Iterable[tuple[ArraySpec, int, str]]) -> Iterator[Defect]:
    """Objects that do not decode: what can be said of them without their record."""
    for spec, level, key in keys:
        try:
            multiscale.decode(spec, level, multiscale.target.read(key) or b"")
        except ValueError as error:
            yield Defect("undecodable", key, f"does not decode: {error}")


def is_of(ledger: Ledger, request: Mapping[str, Any]) -> bool:
    """Whether the header of a ledger is of a target that was built on a request."""
    for key, text in (ledger.header or {}).get("root", {}).items():
        if key in ROOT_KEYS:
            document = json.loads(text)
            inner = document[ROOT_KEYS[key]] if ROOT_KEYS[key] else document
            return bool(inner["atlaszarr"]["request"] == request)
    return False


def documents(target: Target, ledger: Ledger) -> Iterator[Defect]:
    """Metadata documents and tables that are not those that the target was finished with."""
    header = ledger.header or {}
    for key, text in header.get("documents", {}).items():
        yield from _document(key, target.read(key), json.loads(text))
    for key, text in header.get("root", {}).items():
        body = target.read(key)
        yield from _document(key, body if body is None else _without_ledger(body), json.loads(text))
    for key, (size, checksum) in ledger.files.items():
        body = target.read(key)
        if body is None:
            yield Defect("missing", key, "is not there")
        elif (len(body), digest(body)) != (size, checksum):
            yield Defect("altered", key, "does not hold what was written")


def extra(target: Target, multiscale: Multiscale, ledger: Ledger) -> Iterator[Defect]:
    """Objects among the arrays that are not of them."""
    header = ledger.header or {}
    known = {*header.get("documents", ()), *header.get("root", ()), COMPACT, *KEYS}
    known.update(key for entry in ledger.done.values() for key in entry.written)
    arrays = multiscale.prefixes
    for key in target.list_keys():
        if key not in known and (key.startswith((*arrays, f"{OPEN}/")) or is_partial(key)):
            yield Defect("extra", key, "belongs to no array" if key.startswith(arrays) else "is of no finished build")


def levels(multiscale: Multiscale, step: Pass, task: Task) -> Iterator[Defect]:
    """Objects of a task that are not what the level before them makes."""
    region = multiscale.pyramid.region(step, task[1])
    try:
        values = multiscale.read(step.source, region)
        for level in range(step.source + 1, step.writes[-1] + 1):
            there = multiscale.pyramid.region(step, task[1], level)
            expected, found = multiscale.coarsened(values, level, there), multiscale.read(level, there)
            for spec in multiscale.at(level):
                if not np.array_equal(expected[spec.path], found[spec.path], equal_nan=_is_real(spec)):
                    unit = next(iter(multiscale.pyramid.levels[level].units(there)))
                    key = multiscale.key(spec, level, unit)
                    yield Defect("inconsistent", key, f"is not what level {level - 1} makes of it", task)
            values = found
    except TargetError as error:  # although it is what was recorded
        yield Defect("undecodable", _first_key(multiscale, step, task), str(error), task)


def labels(multiscale: Multiscale, spec: ArraySpec, known: Iterable[int], step: Pass, task: Task) -> Iterator[Defect]:
    """Objects of a task that hold labels which their metadata does not know."""
    values = np.asarray(sorted({0, *known}))
    for level in step.writes:
        for unit in multiscale.pyramid.levels[level].units(multiscale.pyramid.region(step, task[1], level)):
            key = multiscale.key(spec, level, unit)
            body = multiscale.target.read(key)
            if body is None:
                continue
            try:
                found = np.unique(multiscale.decode(spec, level, body))
            except ValueError:
                continue  # `levels` has said so
            if (unknown := found[~np.isin(found, values)]).size:
                yield Defect("label", key, f"holds label {unknown[0]}, which the metadata does not list", task)


def _first_key(multiscale: Multiscale, step: Pass, task: Task) -> str:
    unit = next(multiscale.pyramid.levels[step.source].units(multiscale.pyramid.region(step, task[1])))
    return multiscale.key(multiscale.arrays[0], step.source, unit)


def _document(key: str, body: bytes | None, built: Any) -> Iterator[Defect]:
    if body is None:
        yield Defect("missing", key, "is not there")
        return
    try:
        found = json.loads(body)
    except ValueError:
        yield Defect("metadata", key, "is not JSON")
        return
    if (difference := _difference(found, built)) is not None:
        yield Defect("metadata", key, difference)


def _difference(found: Any, built: Any, at: str = "") -> str | None:
    """The first place where two documents differ, in words."""
    if isinstance(found, dict) and isinstance(built, dict):
        for name in {**built, **found}:
            place = f"{at}.{name}".lstrip(".")
            if name not in found:
                return f"{place} is missing"
            if name not in built:
                return f"{place} was added"
            if (inner := _difference(found[name], built[name], place)) is not None:
                return inner
        return None
    if isinstance(found, list) and isinstance(built, list) and len(found) == len(built):
        pairs = enumerate(zip(found, built, strict=True))
        return next((inner for i, (a, b) in pairs if (inner := _difference(a, b, f"{at}[{i}]")) is not None), None)
    return None if found == built else f"{at} is {found!r}, was built as {built!r}"


def _without_ledger(body: bytes) -> bytes:
    try:
        document = json.loads(body)
        inner = document.get("attributes", document)
        inner["atlaszarr"].pop("ledger", None)
    except (ValueError, KeyError, AttributeError):
        return body
    return json.dumps(document).encode()


def _is_real(spec: ArraySpec) -> bool:
    return np.dtype(spec.dtype).kind == "f"
