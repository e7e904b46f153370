"""Whether a label index may answer for the data it was made of, and which of its rows they contradict. Only reads.

It may if the root names the ledger that it names, that ledger is whole, and the objects of the level are those of the
ledger: on a local disk by the digest of every one of them, which takes a tenth of the time of counting; on an object
store by the sizes that it lists.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..errors import InputError, TargetError
from ..stores.target import Target
from . import ledger
from .checks import Defect
from .kinds import recorded
from .label_index import KEY, LabelIndex, counted
from .ledger import Ledger
from .multiscale import Written, digest
from .schedulers import usable_cores
from .target_state import FINISHED

#: Objects of a level that are counted again unless all are.
_SAMPLE = 8
#: Objects that a thread reads before it looks at them.
_AT_ONCE = 32


def index_of(target: Target, own: Mapping[str, Any], level: int) -> tuple[LabelIndex | None, str]:
    """The index of a target, if there is one and it may answer for a level.

    Parameters
    ----------
    target : Target
    own : mapping
        What atlaszarr says in the attributes of the root; empty if another wrote it.
    level : int

    Returns
    -------
    LabelIndex or None
    str
        Why not, if there is one that may not; else empty.
    """
    if own.get("state") != FINISHED or (body := target.read(KEY)) is None:
        return None, ""
    try:
        index = LabelIndex.from_bytes(body)
    except ValueError:
        return None, f"{KEY} is damaged"
    found = ledger.read(target, finished=True)
    if found.damaged or not index.ledger == found.digest == own.get("ledger"):
        return None, f"{KEY} is of another state of the data than the ledger or the root"
    try:
        reason = _other_array(target, level, found) or _difference(target, f"{level}/", _written(found, f"{level}/"))
    except (TargetError, InputError):  # as of plain HTTP
        reason = "the store does not list its objects"
    return (index, "") if reason is None else (None, reason)


def add_index(target: Target) -> LabelIndex:
    """Count the data of a finished target that has no index, and write one.

    Raises
    ------
    InputError
        If there is no finished target with one array of labels.
    TargetError
        If its data cannot be read, or the index cannot be written.
    """
    found = ledger.read(target, finished=True)
    try:
        multiscale = recorded(target, found)
    except (ValueError, KeyError, TypeError):
        raise InputError(f"target {target.url} is no finished image of atlaszarr; give the place of one") from None
    spec = multiscale.arrays[0]
    if np.dtype(spec.dtype).kind not in "iu" or spec.axes != ("z", "y", "x"):
        raise InputError(f"target {target.url} holds {spec.dtype} along {', '.join(spec.axes)}, not labels")
    index = LabelIndex.of(multiscale, {}, str(found.digest))
    target.write(KEY, index.to_bytes())
    return index


def disagreements(target: Target, found: Ledger, deep: bool) -> Iterator[Defect]:
    """Rows of the index that the data contradict, an object a defect; nothing where there is no index.

    Parameters
    ----------
    target : Target
        Finished, and sound but for its index.
    found : Ledger
        Of the target.
    deep : bool
        Whether to count all objects again, else a sample of every level.

    Raises
    ------
    ValueError, KeyError, TypeError
        If the ledger's header does not describe the target.
    """
    if (body := target.read(KEY)) is None:
        return
    try:
        index = LabelIndex.from_bytes(body)
    except ValueError as error:
        yield Defect("index", KEY, f"is {error}")
        return
    if index.ledger != found.digest:
        yield Defect("index", KEY, "is of another state of the data than the ledger")
        return
    multiscale = recorded(target, found)
    spec = multiscale.arrays[0]
    for level, at in enumerate(multiscale.pyramid.levels):
        units = sorted(multiscale.occupancy.units(level))
        chosen = units if deep else random.Random(0).sample(units, min(_SAMPLE, len(units)))
        for unit in sorted(chosen):
            try:
                there = counted(multiscale, spec, level, unit)
            except TargetError:
                continue  # the check of the objects says so
            here = index.of_unit(level, unit)
            if (text := _contradiction(_rows(here), _rows(there))) is not None:
                yield Defect("index", KEY, f"level {level}, chunk {'/'.join(map(str, unit))}: {text}")
        outside = ~np.logical_and.reduce([index.columns[axis] < n for axis, n in zip("zyx", at.grid, strict=True)]) & (
            index.columns["level"] == level
        )
        if outside.any():
            yield Defect("index", KEY, f"level {level}: {np.count_nonzero(outside)} rows are of no chunk")


def _rows(counts: Any) -> dict[int, tuple[int, int]]:
    columns = (column.tolist() for column in counts)
    return {label: (voxels, low) for label, voxels, low in zip(*columns, strict=True) if label}


def _contradiction(index: Mapping[int, tuple[int, int]], data: Mapping[int, tuple[int, int]]) -> str | None:
    wrong = [label for label in sorted({*index, *data}) if index.get(label) != data.get(label)]
    if not wrong:
        return None
    (said, said_low), (held, held_low) = (rows.get(wrong[0], (0, 0)) for rows in (index, data))
    more = f", and {len(wrong) - 1} more labels differ" if len(wrong) > 1 else ""
    return (
        f"label {wrong[0]} has {held} voxels, {held_low} of them on the low side of x, where the index says "
        f"{said} and {said_low}{more}"
    )


def _written(found: Ledger, prefix: str) -> Written:
    return {key: what for entry in found.done.values() for key, what in entry.written.items() if key.startswith(prefix)}


def _other_array(target: Target, level: int, found: Ledger) -> str | None:
    """How the metadata of a level's array differ from what the ledger says of them."""
    for key, text in (found.header or {}).get("documents", {}).items():
        if key.startswith(f"{level}/") and (body := target.read(key)) != text.encode():
            try:
                if json.loads(body or b"") == json.loads(text):
                    continue
            except ValueError:
                pass
            return f"{key} is not what was written"
    return None


def _difference(target: Target, prefix: str, written: Written) -> str | None:
    """How the objects of a level differ from what the ledger says of them."""
    listed = target.sizes(prefix.rstrip("/"))
    if not listed:  # not even the array's metadata, which were read
        return "the store does not list its objects"
    sizes = {key: size for key, size in listed.items() if not key.rsplit("/", 1)[1].startswith((".", "zarr.json"))}
    for key in sorted({*sizes, *written}):
        if key not in sizes or key not in written:
            return f"{key} is {'gone' if key in written else 'not in the ledger'}"
        if sizes[key] != written[key][0]:
            return f"{key} holds {sizes[key]} bytes, was written with {written[key][0]}"
    if not target.is_local:
        return None
    keys = sorted(written)
    threads = usable_cores()
    with ThreadPoolExecutor(threads, "atlaszarr-digest") as pool:
        for wrong in pool.map(lambda k: _altered(target, keys[k::threads], written), range(threads)):
            if wrong is not None:
                return f"{wrong} does not hold what was written"
    return None


def _altered(target: Target, keys: list[str], written: Written) -> str | None:
    """The first of some objects that is not what was written; few are in memory at a time."""
    for start in range(0, len(keys), _AT_ONCE):
        for key, body in target.read_each(keys[start : start + _AT_ONCE]).items():
            if body is None or digest(body) != written[key][1]:
                return key
    return None
