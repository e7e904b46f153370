"""What is done in a target, and from what: one record a task, written after its data; compacted at commit.

Workers write their own records and read none; only the build that owns the target reads them. The compacted ledger
is one object of JSON lines: a header with all metadata that a finished target must hold, a line a task, and last a
line with what was written beside the image. The root names the digest of all but the last line, which alone depends on
when a build was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..boxes import Index
from ..stores.target import Target
from .multiscale import Multiscale, Written, digest

OPEN = "atlaszarr/ledger"
COMPACT = "atlaszarr/ledger.jsonl"

#: Source level of its pass, and block.
Task = tuple[int, Index]


@dataclass(frozen=True)
class Entry:
    """The record of one task that is done, as it is stored.

    Attributes
    ----------
    body : bytes
        A line of JSON; kept so, since a build of a million objects holds them all.
    """

    body: bytes

    @classmethod
    def of(cls, task: Task, written: Written, origin: Mapping[str, Any]) -> Entry:
        """The record of what a task wrote, and from what.

        Parameters
        ----------
        task : tuple
        written : dict
            Size and digest of every object, by key.
        origin : mapping
            In JSON's types.
        """
        return cls(sealed({"task": _name(task), "objects": written, "from": origin}))

    @classmethod
    def read(cls, body: bytes) -> tuple[Task, Entry]:
        """A record from its line.

        Raises
        ------
        ValueError, KeyError, TypeError, AttributeError
            If it is none.
        """
        return _task(opened(body)["task"]), cls(body)

    @property
    def written(self) -> Written:
        """Size and digest of every object it wrote, by key."""
        return {key: (size, checksum) for key, (size, checksum) in opened(self.body)["objects"].items()}

    @property
    def origin(self) -> dict[str, Any]:
        """What it was made from."""
        return dict(opened(self.body)["from"])


@dataclass(frozen=True)
class Ledger:
    """All that is recorded.

    Attributes
    ----------
    header : dict or None
        Of a finished target.
    files : dict
        Size and digest of what was written beside the image, by key.
    digest : str or None
        Of the compacted ledger; None where there is none.
    done : dict of Task to Entry
    damaged : tuple of str
        What could not be read: keys, and lines by their number.
    """

    header: dict[str, Any] | None = None
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    digest: str | None = None
    done: dict[Task, Entry] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()


def record(target: Target, task: Task, entry: Entry) -> None:
    """Record a task, after its data is written."""
    target.write(f"{OPEN}/{_name(task)}.json", entry.body)


def read(target: Target, finished: bool = False) -> Ledger:
    """All that is recorded: the compacted ledger and, unless the target is finished, what was done after it."""
    done: dict[Task, Entry] = {}
    damaged: list[str] = []
    header, files = None, {}
    compacted = target.read(COMPACT)
    first, *lines = (compacted or b"").removesuffix(b"\n").split(b"\n")
    last = lines.pop() if lines else b""
    try:
        header = opened(first) if compacted is not None else None
        files = {key: (size, checksum) for key, (size, checksum) in opened(last).items()} if compacted else {}
    except (ValueError, TypeError):
        damaged.append(COMPACT)
    named = [(f"{COMPACT} line {number}", line) for number, line in enumerate(lines, 2)]
    opened_since = {} if finished else target.read_all(OPEN)
    for name, body in (*named, *opened_since.items()):
        try:
            task, entry = Entry.read(body)
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged.append(name)
        else:
            done[task] = entry
    checksum = None if compacted is None else digest(b"\n".join((first, *lines)))
    return Ledger(header, files, checksum, done, tuple(damaged))


def multiscale_of(target: Target, ledger: Ledger) -> Multiscale:
    """The multiscale that a ledger describes.

    Raises
    ------
    ValueError, KeyError, TypeError
        If its header describes none, or one of a kind whose module is not imported.
    """
    described = (ledger.header or {})["multiscale"]
    written = {key for entry in ledger.done.values() for key in entry.written}
    kinds = [Multiscale.kinds[word] for word in described if word not in ("arrays", "levels", "encoding")]
    return (kinds[0] if kinds else Multiscale).recorded(target, described, written)


def compacted(header: Mapping[str, Any], done: Mapping[Task, Entry]) -> bytes:
    """All records as one, but for the line of files; its digest is what a root names."""
    return b"\n".join((sealed(header), *(done[task].body for task in sorted(done))))


def compact(target: Target, body: bytes, files: Written) -> None:
    """Replace the records by what they are as one."""
    target.write(COMPACT, b"\n".join((body, sealed(files), b"")))
    target.remove(OPEN)


def sealed(content: Mapping[str, Any]) -> bytes:
    """A line of JSON that tells whether it is as it was written."""
    text = json.dumps(content)
    return f'{{"check": "{digest(text.encode())}", "content": {text}}}'.encode()


def opened(line: bytes) -> dict[str, Any]:
    """The inverse of `sealed`.

    Raises
    ------
    ValueError
        If the line is not as it was written.
    """
    check, _, rest = line.partition(b', "content": ')
    if not rest.endswith(b"}") or check != f'{{"check": "{digest(rest[:-1])}"'.encode():
        raise ValueError("not a record as it was written")
    return dict(json.loads(rest[:-1]))


def _name(task: Task) -> str:
    level, (z, y, x) = task
    return f"{level}-{z}.{y}.{x}"


def _task(name: str) -> Task:
    level, index = name.split("-")
    z, y, x = map(int, index.split("."))
    return int(level), (z, y, x)
