"""The ledger of a target: a record of finished tasks, a line for each, written after their data.

Workers write records under `OPEN` and read none. A build compacts them into `COMPACT` when it resumes and at commit, so
that after a ``kill -9`` both together list the finished tasks: `read` returns them, and `damaged_objects` compares them
with the target.

The compacted ledger is one object of JSON lines: a header with all metadata that a finished target must hold (empty in
an unfinished one), one line for each task, and a last line with the sidecars. The root records the digest of all lines
but the last, which alone depends on the time of the build.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from ..boxes import Index
from ..errors import InputError
from ..stores.documents import parse_object
from ..stores.target import Target

OPEN = "atlaszarr/ledger"
COMPACT = "atlaszarr/ledger.jsonl"
#: Threads that read objects.
_READERS = 8
#: The most bytes of an object that is read whole to compute its digest: the readers hold half a gigabyte.
_WHOLE = 2**26
#: The most bytes and lines of a ledger, twice those of the largest build: sections of 60 images of 50,000 x 30,000
#: pixels have a million objects, with 150 bytes each.
LARGEST = 3 * 2**27
MOST_LINES = 2**21

#: Between the checksum and the content of a line.
_CONTENT = b', "content": '

#: A task: the level that its pass starts from, and its block.
Task = tuple[int, Index]
#: Size in bytes and digest of written objects, by key.
Written = dict[str, tuple[int, str]]


def digest(body: bytes) -> str:
    """BLAKE2b of 128 bits, as ``b2sum -l 128`` prints it."""
    return new_digest(body).hexdigest()


def new_digest(body: bytes = b"") -> hashlib.blake2b:
    """The hash object of `digest`, to be updated with further bytes."""
    return hashlib.blake2b(body, digest_size=16)


def matches(target: Target, key: str, size: int, checksum: str) -> bool:
    """Whether an object has the size and the digest that are recorded; it is read in parts, so it may be large."""
    return target.sizes(key).get(key) == size and target.digest(key, new_digest) == checksum


@dataclass(frozen=True)
class Entry:
    """The record of one finished task.

    Attributes
    ----------
    body : bytes
        A line of JSON; not parsed, since a build of a million objects keeps all records in memory.
    """

    body: bytes

    @classmethod
    def of(cls, task: Task, written: Written, origin: Mapping[str, Any]) -> Entry:
        """Make the record of a task.

        Parameters
        ----------
        task : tuple
        written : dict
            Size and digest of every object that the task wrote, by key.
        origin : mapping
            What the objects were made from, in JSON's types.
        """
        return cls(sealed({"task": _name(task), "objects": written, "from": origin}))

    @classmethod
    def read(cls, body: bytes) -> tuple[Task, Entry]:
        """Parse a line.

        Raises
        ------
        ValueError, KeyError, TypeError, AttributeError
            If it is not a record.
        """
        content = opened(body)
        objects_of(content["objects"])
        if not isinstance(content["from"], dict):
            raise TypeError(f"origin {content['from']!r} is not an object")
        return _task(content["task"]), cls(body)

    @property
    def written(self) -> Written:
        """Size and digest of every object that the task wrote, by key."""
        return {key: (size, checksum) for key, (size, checksum) in self._content["objects"].items()}

    @property
    def origin(self) -> dict[str, Any]:
        """What the objects were made from."""
        return dict(self._content["from"])

    @property
    def _content(self) -> dict[str, Any]:
        # `read` has validated it.
        return parse_object(self.body.partition(_CONTENT)[2][:-1])


@dataclass(frozen=True)
class Ledger:
    """The records of a target.

    Attributes
    ----------
    header : dict or None
        Of a finished target.
    files : dict
        Size and digest of the sidecars, by key.
    digest : str or None
        Of the compacted ledger; None if there is none.
    done : dict of Task to Entry
    damaged : tuple of str
        Records that cannot be read: keys, and lines by their number.
    """

    header: dict[str, Any] | None = None
    files: Written = field(default_factory=dict)
    digest: str | None = None
    done: dict[Task, Entry] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Defect:
    """A difference between a target and its ledger, or between two of its levels.

    Attributes
    ----------
    kind : str
        ``unfinished``, ``ledger``, ``missing``, ``truncated``, ``altered``, ``undecodable``, ``extra``, ``metadata``,
        ``inconsistent``, ``label`` or ``index``.
    key : str
        Of the object; empty for the whole target.
    text : str
        What is wrong with the object.
    task : tuple or None
        The task that wrote the object; to run it again repairs the object.
    """

    kind: str
    key: str
    text: str
    task: Task | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.key}: {self.text}" if self.key else self.text


def record(target: Target, done: Mapping[Task, Entry]) -> None:
    """Write one record for some tasks, named after the first; their data must be written already."""
    if done:
        target.write(f"{OPEN}/{_name(next(iter(done)))}.json", b"\n".join(entry.body for entry in done.values()))


def read(target: Target, finished: bool = False) -> Ledger:
    """Read the compacted ledger and, unless the target is finished, the records that were written since.

    Raises
    ------
    InputError
        If it is larger than any ledger of atlaszarr.
    """
    done: dict[Task, Entry] = {}
    damaged: list[str] = []
    header, files = None, {}
    compacted = target.read(COMPACT, LARGEST)
    if compacted is not None and (count := compacted.count(b"\n")) > MOST_LINES:
        raise InputError(
            f"{target.url}/{COMPACT} has {count} lines, and a ledger at most {MOST_LINES}; it is not one of atlaszarr",
            code="file-too-large",
        )
    first, *lines = (compacted or b"").removesuffix(b"\n").split(b"\n")
    last = lines.pop() if lines else b""
    try:
        header = None if compacted is None else _header(opened(first))
        files = objects_of(opened(last)) if compacted else {}
    except (ValueError, TypeError, AttributeError):
        damaged.append(COMPACT)
    opened_since = {} if finished else target.read_all(OPEN, LARGEST)
    named = chain(
        ((f"{COMPACT} line {position}", line) for position, line in enumerate(lines, 2)),
        ((key, line) for key, record in opened_since.items() for line in record.split(b"\n")),
    )
    for name, body in named:
        try:
            task, entry = Entry.read(body)
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged.append(name)
        else:
            done[task] = entry
    checksum = None if compacted is None else digest(b"\n".join((first, *lines)))
    return Ledger(header, files, checksum, done, tuple(damaged))


def damaged_objects(target: Target, done: Mapping[Task, Entry]) -> Iterator[Defect]:
    """Recorded objects that are missing, truncated or altered; every object is read."""
    sizes = target.sizes()

    def defects(item: tuple[Task, Entry]) -> list[Defect]:
        task, entry = item
        found: list[Defect] = []
        same_size: dict[str, str] = {}
        large: dict[str, str] = {}
        for key, (size, checksum) in entry.written.items():
            if key not in sizes:
                found.append(Defect("missing", key, "is missing", task))
            elif sizes[key] != size:
                found.append(Defect("truncated", key, f"has {sizes[key]} bytes, was written with {size}", task))
            else:
                (same_size if size <= _WHOLE else large)[key] = checksum
        differing = [key for key, checksum in large.items() if target.digest(key, new_digest) != checksum]
        for key, body in target.read_each(same_size, _WHOLE).items():
            if body is None or digest(body) != same_size[key]:
                differing.append(key)
        return [*found, *(Defect("altered", key, "differs from what was written", task) for key in differing)]

    with ThreadPoolExecutor(_READERS) as readers:
        for found in readers.map(defects, done.items()):
            yield from found


def compacted(header: Mapping[str, Any], done: Mapping[Task, Entry]) -> bytes:
    """The compacted ledger without its last line; the root records the digest of these bytes."""
    return b"\n".join((sealed(header), *(done[task].body for task in sorted(done))))


def compact(target: Target, body: bytes, files: Written) -> None:
    """Write the compacted ledger, given the bytes of `compacted` and the sidecars; then remove the single records."""
    target.write(COMPACT, b"\n".join((body, sealed(files), b"")))
    target.remove(OPEN)


def sealed(content: Mapping[str, Any]) -> bytes:
    """A line of JSON with a checksum of its content."""
    text = json.dumps(content)
    return f'{{"check": "{digest(text.encode())}", "content": {text}}}'.encode()


def opened(line: bytes) -> dict[str, Any]:
    """The content of a line of `sealed`.

    Raises
    ------
    ValueError
        If the checksum does not match.
    """
    check, _, rest = line.partition(_CONTENT)
    content = rest[:-1]
    if not rest.endswith(b"}") or check != f'{{"check": "{digest(content)}"'.encode():
        raise ValueError("the checksum of the record does not match")
    return parse_object(content)


def objects_of(objects: Mapping[str, Any]) -> Written:
    """Sizes and digests of objects, of the types that `Entry.of` writes; keys stay inside the target.

    Raises
    ------
    ValueError, TypeError, AttributeError
        If they are not.
    """
    found = {
        key: (size, checksum)
        for key, (size, checksum) in objects.items()
        if type(size) is int and size >= 0 and type(checksum) is str
    }
    if len(found) < len(objects):
        key = next(key for key in objects if key not in found)
        raise ValueError(f"size or digest {objects[key]!r} of {key!r} has the wrong type")
    if ".." in (keys := "\n".join(found)) or "\\" in keys or "\n/" in keys or keys[:1] == "/":
        for key in found:
            validate_key(key)
    return found


def _header(content: dict[str, Any]) -> dict[str, Any]:
    """The header of a compacted ledger.

    Raises
    ------
    ValueError, TypeError, AttributeError
        If it does not hold documents as text by their keys.
    """
    for documents in (content.get("documents", {}), content.get("root", {})):
        for key, text in documents.items():
            validate_key(key)
            if not isinstance(text, str):
                raise TypeError(f"document {key!r} is not text")
    return content


def validate_key(key: str) -> None:
    """Raise a ValueError if a key leads out of the target."""
    if key.startswith("/") or "\\" in key or ".." in key.split("/"):
        raise ValueError(f"key {key!r} is not inside the target")


def _name(task: Task) -> str:
    level, (z, y, x) = task
    return f"{level}-{z}.{y}.{x}"


def _task(name: str) -> Task:
    level, index = name.split("-")
    z, y, x = map(int, index.split("."))
    return int(level), (z, y, x)
