"""What is done in a target, and from what: one record a task, written after its data; compacted at commit.

Workers write their own records and read none; only the build that owns the target reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import TargetError
from .pyramid import Index
from .store import Target

_OPEN = "atlaszarr/ledger"
_COMPACT = "atlaszarr/ledger.json"

#: Pass and superblock.
Task = tuple[int, Index]


@dataclass(frozen=True)
class Entry:
    """One task that is done.

    Attributes
    ----------
    chunks : int
        How many chunks it wrote.
    images : dict of int to str or None
        SectionImage ids it used, with the SHA-256 of their JPEG body; None for one that was missing.
    """

    chunks: int
    images: Mapping[int, str | None]

    @property
    def missing(self) -> tuple[int, ...]:
        """The images it had to do without."""
        return tuple(id for id, digest in self.images.items() if digest is None)


def record(target: Target, task: Task, entry: Entry) -> None:
    """Record a task, after its data is written."""
    target.write(f"{_OPEN}/{_name(task)}.json", json.dumps(_to_json(entry)).encode())


def read(target: Target) -> dict[Task, Entry]:
    """All that is recorded as done.

    Raises
    ------
    TargetError
        If a record cannot be read.
    """
    done: dict[Task, Entry] = {}
    for key, body in {_COMPACT: target.read(_COMPACT), **target.read_all(_OPEN)}.items():
        name = key.rsplit("/", 1)[-1].removesuffix(".json")
        if body is None or name.startswith("."):
            continue
        try:
            found = json.loads(body)
            entries = found["tasks"] if key == _COMPACT else {name: found}
            done.update({_task(task): _from_json(entry) for task, entry in entries.items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise TargetError(f"{target.url}/{key} is damaged; build anew with --overwrite") from None
    return done


def compact(target: Target, done: Mapping[Task, Entry]) -> None:
    """Replace the records of a finished build by one object."""
    tasks = {_name(task): _to_json(done[task]) for task in sorted(done)}
    target.write(_COMPACT, json.dumps({"tasks": tasks}).encode())
    target.remove(_OPEN)


def _name(task: Task) -> str:
    step, (z, y, x) = task
    return f"{step}-{z}.{y}.{x}"


def _task(name: str) -> Task:
    step, index = name.split("-")
    z, y, x = map(int, index.split("."))
    return int(step), (z, y, x)


def _to_json(entry: Entry) -> dict[str, object]:
    return {"chunks": entry.chunks, "images": {str(id): digest for id, digest in entry.images.items()}}


def _from_json(entry: Mapping[str, object]) -> Entry:
    images, chunks = entry["images"], entry["chunks"]
    if not isinstance(images, dict) or not isinstance(chunks, int):
        raise ValueError("not a ledger entry")
    return Entry(chunks, {int(id): digest for id, digest in images.items()})
