"""What masks hold against the annotation that lies beside them. Only reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..engine.checks import Defect
from ..engine.finished_image import Finished
from ..engine.kinds import Kind
from ..engine.ledger import Ledger, Task
from ..engine.multiscale import digest
from ..errors import InputError, TargetError
from ..stores.target import Target
from .masks import Masks
from .paths import COMPRESSED


def contents(masks: Masks, request: Mapping[str, Any], found: Ledger, tasks: Sequence[Task]) -> Iterator[Defect]:
    """Chunks of tasks that are not what the annotation makes of them; none where no annotation lies beside."""
    above = next(masks.target.above(), None)
    try:
        annotation = Finished.at(Target(f"{above.url}/{COMPRESSED}", above.storage_options)) if above else None
    except InputError:
        return
    if annotation is None:
        return
    if annotation.digest != request["masks_of"]:
        yield Defect("inconsistent", "zarr.json", f"was made from another annotation than {COMPRESSED}")
        return
    for task in tasks:
        level, index = task
        try:
            labels = annotation.read(level, masks.pyramid.levels[level].region(index))
        except TargetError:
            continue  # the annotation's own check says so
        written = found.done[task].written
        expected = dict(masks.bodies(level, index, labels))
        for key in sorted({*written, *expected}):
            if key not in written:
                yield Defect("missing", key, "is not there, although the annotation has the structure", task)
            elif key not in expected:
                yield Defect("inconsistent", key, "is of a structure that the annotation does not have here", task)
            elif digest(expected[key]) != written[key][1] and not _same(masks, level, key, expected[key]):
                yield Defect("inconsistent", key, "is not what the annotation makes of it", task)


def _same(masks: Masks, level: int, key: str, expected: bytes) -> bool:
    """Whether an object holds the same, although another version of the compressor wrote it."""
    (spec,) = masks.arrays
    body = masks.target.read(key)
    try:
        found = masks.decode(spec, level, body or b"")
    except ValueError:
        return False
    return np.array_equal(found, masks.decode(spec, level, expected))


KIND = Kind(Masks.of, contents)
