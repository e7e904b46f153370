"""The journal of a batch: a line for each dataset that has ended, in objects of JSON lines.

A store has no append, so lines are collected in parts of `_LINES` lines; the last part is put again with each new line,
and each put is whole or not at all. Lines that arrive faster than the store takes puts wait for the next one. A
``kill -9`` loses only these: the next run finds their datasets finished, or builds them again.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any
from uuid import uuid4

from ..engine import ledger
from ..errors import TargetError
from ..stores.documents import LARGEST, parse_object
from ..stores.target import Target

#: The folder of a batch in its root, and the document of its request in it.
BATCH = "batch"
REQUEST = "batch.json"
FOLDER = "journal"
TABLE = "batch.csv"
#: Lines of a part: some 60 kB, which a store takes as fast as a single line.
_LINES = 256
#: The most bytes of a part: lines of messages of the greatest length, each character of which is escaped.
_LARGEST_PART = _LINES * 2**15
#: Parts that are read at once.
_AT_ONCE = 16
#: The share of its time that a driver waits for puts while lines arrive.
_SHARE = 0.1
#: Seconds for which the store may refuse puts, as during an outage, before the batch ends: the longest restart of a
#: store that users of clusters wait for.
_PATIENCE = 300.0
#: Seconds between two tries at the end.
_PAUSE = 1.0
#: Codes of faults of a store that may pass.
PASSING = ("store-error", "store-overloaded", "store-unreachable")
#: States of a dataset that the next run leaves alone.
FINISHED = ("built", "resumed", "already finished")


@dataclass(frozen=True)
class Row:
    """The outcome of one dataset.

    Attributes
    ----------
    dataset : int
    state : str
        ``built``, ``resumed``, ``already finished``, ``unfinished`` if images are missing, or ``failed``.
    gene : str
        Acronyms of its genes.
    seconds : float
        From the start of its task to the end.
    images : int
        Section images, or windows of them, that its targets show.
    stored_bytes : int
        Of the chunks of its targets.
    failures : int
        Section images, or windows of them, that are missing.
    code, message : str
        Of the error, if it failed; the reason for the first missing image, if images are missing.
    measured : bool
        Whether the part of the table of measures is written.
    passing : bool
        Whether the fault may pass, so that the dataset is tried again in the same run.
    """

    dataset: int
    state: str
    gene: str = ""
    seconds: float = 0.0
    images: int = 0
    stored_bytes: int = 0
    failures: int = 0
    code: str = ""
    message: str = ""
    measured: bool = False
    passing: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether the next run leaves the dataset alone."""
        return self.state in FINISHED

    @classmethod
    def read(cls, line: bytes) -> Row:
        """Parse a line of the journal.

        Raises
        ------
        ValueError, TypeError
            If it is damaged.
        """
        row = cls(**ledger.opened(line))
        for column in fields(cls):
            value = getattr(row, column.name)
            if type(value) is not type(column.default) and column.name not in ("dataset", "state"):
                raise TypeError(f"{column.name} {value!r} has the wrong type")
        if type(row.dataset) is not int or not isinstance(row.state, str):
            raise TypeError(f"dataset {row.dataset!r} or state {row.state!r} has the wrong type")
        return row


class Journal:
    """The journal in the folder of a batch.

    Parameters
    ----------
    target : Target
        The folder ``ROOT/batch``.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._part = 1 + max((_number(key) for key in target.list_keys(FOLDER)), default=0)
        #: Part of the names of its parts: those of a batch that was taken over keep theirs.
        self._run = uuid4().hex[:8]
        #: The lines of the last part, and how many of them are put.
        self._lines: list[bytes] = []
        self._put = 0
        #: When the next put may start, and since when the store has refused puts.
        self._next = 0.0
        self._refused_since: float | None = None

    def rows(self) -> Iterator[Row]:
        """Every row that is put, in order; a dataset may have several.

        Damaged lines and parts that are too large are left out: the next run finds their datasets finished.
        """
        sizes = self._target.sizes(FOLDER)
        keys = sorted((key for key in sorted(sizes) if sizes[key] <= _LARGEST_PART), key=_number)
        for first in range(0, len(keys), _AT_ONCE):
            for body in self._target.read_each(keys[first : first + _AT_ONCE], _LARGEST_PART).values():
                for line in (body or b"").splitlines():
                    try:
                        yield Row.read(line)
                    except (ValueError, TypeError, AttributeError):
                        continue

    def finished(self, measured: bool = False) -> set[int]:
        """The datasets whose last row calls them finished, or finished and measured."""
        found: set[int] = set()
        for row in self.rows():
            is_done = row.is_finished and (row.measured or not measured)
            (found.add if is_done else found.discard)(row.dataset)
        return found

    def clear(self) -> None:
        """Remove all parts and the table."""
        self._target.remove(FOLDER)
        self._target.remove(TABLE)

    def add(self, row: Row) -> None:
        """Add a row, and put the part unless puts take more than their share of the time.

        Raises
        ------
        TargetError
            If the store has refused all puts for some minutes.
        """
        self._lines.append(ledger.sealed(asdict(row)))
        if time.monotonic() >= self._next or len(self._lines) >= _LINES:
            self._try_put()

    def close(self, patient: bool = True) -> None:
        """Put the lines that are left; try once, or as long as the store may refuse.

        Raises
        ------
        TargetError
            If the store refuses.
        """
        while self._put < len(self._lines):
            self._try_put()
            if not patient:
                return
            if self._put < len(self._lines):
                time.sleep(_PAUSE)

    def write_table(self) -> str:
        """Write ``batch.csv``, the last row of every dataset in the order of their ends; returns its location."""
        last = {row.dataset: position for position, row in enumerate(self.rows())}
        columns = [column.name for column in fields(Row) if column.name not in ("measured", "passing")]

        def parts() -> Iterator[bytes]:
            text = io.StringIO()
            table = csv.writer(text, lineterminator="\n")
            table.writerow(columns)
            for position, row in enumerate(self.rows()):
                if last[row.dataset] == position:
                    table.writerow([_cell(getattr(row, name)) for name in columns])
                if text.tell() > 2**20:
                    yield text.getvalue().encode()
                    text.seek(0)
                    text.truncate()
            yield text.getvalue().encode()

        self._target.write_parts(TABLE, parts())
        return f"{self._target.url}/{TABLE}"

    def _try_put(self) -> None:
        began, count = time.monotonic(), len(self._lines)
        try:
            self._target.write(f"{FOLDER}/{self._part:06}-{self._run}.jsonl", b"\n".join((*self._lines, b"")))
        except TargetError as error:
            self._refused_since = self._refused_since or began
            may_pass = error.code in PASSING and not self._target.is_local
            if not may_pass or time.monotonic() - self._refused_since > _PATIENCE:
                raise
        else:
            self._put, self._refused_since = count, None
            if count >= _LINES:
                self._lines, self._put, self._part = [], 0, self._part + 1
        ended = time.monotonic()
        self._next = ended + (ended - began) * (1 / _SHARE - 1)


def target_name(dataset: int) -> str:
    """The name of the target of a dataset in the root."""
    return f"{dataset}.ome.zarr"


def finished_targets(root: Target) -> list[str]:
    """Names of the targets in a root that the journal of its batch calls finished; those in an atlas are not listed."""
    folder = Target(f"{root.url}/{BATCH}", root.storage_options)
    try:
        is_atlas = parse_object(folder.read(REQUEST, LARGEST) or b"{}")["request"]["atlas"]
    except (ValueError, KeyError, TypeError):  # a batch refuses such a folder
        return []
    return [] if is_atlas else [target_name(dataset) for dataset in sorted(Journal(folder).finished())]


def _number(key: str) -> int:
    name = key.rpartition("/")[2].partition("-")[0]
    return int(name) if name.isdecimal() else 0


def _cell(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
