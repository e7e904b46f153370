"""The files of a catalogue: tables whose blocks have digests, and the document that names them.

A reader validates the blocks that it reads, and no others.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import AtlaszarrError, InputError
from ..stores.documents import LARGEST, json_bytes, parse_object
from ..stores.target import Target
from .columns import BY_MODEL, WHOLE, Columns, Record

#: The document of a finished catalogue, written last.
DOCUMENT = "catalogue.json"
FORMAT, VERSION = "atlaszarr-catalogue", 1
#: Bytes that have a digest: about a row group of section images.
BLOCK = 2**18
#: Blocks that an open file keeps, 16 MB: more than a row group has.
_KEPT = 64
#: Largest file of a catalogue: the images of 43,818 section datasets take about 200 MB.
_LARGEST_FILE = 2**34
#: Largest file that an HTTP server may send whole where it sends no parts: 10,000 section datasets have 50 MB.
_LARGEST_WHOLE = 2**26
#: Largest row group, in bytes of decoded columns: 4096 section images take about 1 MB, those of the 50 largest datasets
#: together 150 MB.
_LARGEST_GROUP = 2**29
#: Most rows of a row group, and most items of a list column in it: the images of the 50 largest datasets are half a
#: million.
_MOST_ROWS = 2**20


@dataclass(frozen=True)
class TableFile:
    """A table of a catalogue as its document describes it.

    Attributes
    ----------
    rows : int
    size : int
        Bytes of the file.
    blocks : tuple of str
        SHA-256 of each `BLOCK` bytes.
    misfits : int
        Rows with a value that does not fit its column.
    """

    rows: int
    size: int
    blocks: tuple[str, ...]
    misfits: int

    def to_dict(self) -> dict[str, Any]:
        """All attributes, as JSON types."""
        return {"rows": self.rows, "size": self.size, "misfits": self.misfits, "block": BLOCK, "sha256": self.blocks}

    @classmethod
    def from_dict(cls, described: dict[str, Any]) -> TableFile:
        """The inverse of `to_dict`; ValueError, KeyError or TypeError if it is not one."""
        rows, size, misfits = (described[name] for name in ("rows", "size", "misfits"))
        blocks = tuple(described["sha256"])
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (rows, size, misfits))
        if not whole or not all(isinstance(block, str) for block in blocks):
            raise TypeError("not a table")
        if described["block"] != BLOCK or size > _LARGEST_FILE or len(blocks) != -(-size // BLOCK):
            raise ValueError("digests of other blocks")
        return cls(rows, size, blocks, misfits)


def damaged(target: Target, what: str) -> InputError:
    """The error for a catalogue that is damaged."""
    message = f"catalogue {target.url} is damaged: {what}; write it again into another folder: atlaszarr catalogue DIR"
    return InputError(message, code="damaged-file")


@dataclass(frozen=True)
class Document:
    """The content of ``catalogue.json``.

    Attributes
    ----------
    date : str
        When the first record was fetched, in UTC.
    request : dict
        What the catalogue was written for: the URL of the API, the product, and a checksum of the ids.
    changes : tuple of str
        What changed at the service while the records were fetched.
    tables : dict of str to TableFile
        Each table by the name of its file.
    sha256 : str
        Digest of the document, which it records itself.
    """

    date: str
    request: dict[str, Any]
    changes: tuple[str, ...]
    tables: dict[str, TableFile]
    sha256: str


def read_document(target: Target) -> Document:
    """The document of a finished catalogue.

    Raises
    ------
    InputError
        If there is none, or it is not one of this version, or it is damaged.
    """
    body = target.read(DOCUMENT, LARGEST)
    if body is None:
        raise InputError(
            f"{target.url} is not a finished catalogue: it has no {DOCUMENT}; write or complete one: atlaszarr "
            "catalogue DIR",
            code="not-a-catalogue",
        )
    try:
        document = parse_object(body)
    except ValueError as error:
        raise damaged(target, f"{DOCUMENT} cannot be read: {error}") from None
    if document.get("format") != FORMAT:
        raise InputError(f"{target.url}/{DOCUMENT} is not that of a catalogue of atlaszarr", code="not-a-catalogue")
    if document.get("version") != VERSION:
        raise InputError(
            f"catalogue {target.url} has version {document.get('version')!r:.40}, and this atlaszarr reads version "
            f"{VERSION}; write it again into another folder: atlaszarr catalogue DIR",
            code="unsupported-version",
        )
    sha256 = document.pop("sha256", None)
    if sha256 != _digest_of(document):
        raise damaged(target, f"{DOCUMENT} does not match its digest")
    try:
        date, request, changes, files = (document[name] for name in ("date", "request", "changes", "files"))
        tables = {columns.file: TableFile.from_dict(files[columns.file]) for columns in BY_MODEL.values()}
        if not (isinstance(request, dict) and all(isinstance(text, str) for text in (date, *changes))):
            raise TypeError("not the document of a catalogue")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise damaged(target, f"{DOCUMENT} does not describe its tables") from None
    return Document(date, request, tuple(changes), tables, sha256)


def write_document(target: Target, document: dict[str, Any]) -> None:
    """Write the document of a catalogue, with its own digest: the catalogue is finished."""
    target.write(DOCUMENT, json_bytes({**document, "sha256": _digest_of(document)}))


def _digest_of(document: dict[str, Any]) -> str:
    """SHA-256 of a document as JSON, without the digest."""
    return hashlib.sha256(json_bytes(document)).hexdigest()


def write_table(target: Target, columns: Columns, groups: Iterable[pa.Table]) -> TableFile:
    """Write a table from its row groups, one after another; a reader sees the file whole or not at all."""
    file, digests, rows, misfits = _Sink(), _Digests(), 0, 0

    def parts() -> Iterator[bytes]:
        nonlocal rows, misfits
        with pq.ParquetWriter(file, columns.schema, compression="zstd", use_dictionary=_texts(columns)) as writer:
            for group in groups:
                rows += len(group)
                misfits += len(group) - group.column(WHOLE).null_count
                writer.write_table(group, row_group_size=max(len(group), 1))
                yield digests.add(file.drain())
        yield digests.add(file.drain())

    target.write_parts(columns.file, parts())
    return TableFile(rows, digests.size, digests.finish(), misfits)


def _texts(columns: Columns) -> list[str]:
    """Columns that repeat few values, for which a dictionary is smaller."""
    return [field.name for field in columns.schema if not pa.types.is_floating(field.type) and field.name != "id"]


class _Sink(io.RawIOBase):
    """A file to write to, from which what is written is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._end = 0

    def writable(self) -> bool:
        return True

    def write(self, part: Any) -> int:
        self._parts.append(bytes(part))
        self._end += len(part)
        return len(part)

    def tell(self) -> int:
        return self._end

    def drain(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


class _Digests:
    """The digests of the blocks of a file that is written in parts."""

    def __init__(self) -> None:
        self.size = 0
        self._digests: list[str] = []
        self._block = hashlib.sha256()

    def add(self, part: bytes) -> bytes:
        start = 0
        while start < len(part):
            room = BLOCK - self.size % BLOCK
            piece = part[start : start + room]
            self._block.update(piece)
            self.size += len(piece)
            start += len(piece)
            if self.size % BLOCK == 0:
                self._end_block()
        return part

    def _end_block(self) -> None:
        self._digests.append(self._block.hexdigest())
        self._block = hashlib.sha256()

    def finish(self) -> tuple[str, ...]:
        if self.size % BLOCK:
            self._end_block()
        return tuple(self._digests)


class StoredTable:
    """A table of a catalogue that is open for reading; safe to use from many threads.

    Parameters
    ----------
    target : Target
        The folder of the catalogue.
    columns : Columns
    described : TableFile

    Raises
    ------
    InputError
        If the file is missing, damaged, has other columns or is not in order.
    """

    def __init__(self, target: Target, columns: Columns, described: TableFile) -> None:
        self.columns, self.rows = columns, described.rows
        self._target = target
        self._lock = threading.Lock()
        if not target.is_plain_http and target.sizes(columns.file).get(columns.file) != described.size:
            raise damaged(target, f"{columns.file} does not have the {described.size} bytes that {DOCUMENT} names")
        read_as, paths = _with_dictionaries(columns.schema)
        with self._decoding(f"{columns.file} is not a Parquet file with its columns"):
            blocks = pa.PythonFile(_Blocks(target, columns.file, described), mode="r")
            self._file = pq.ParquetFile(blocks, pre_buffer=True, read_dictionary=paths)
            metadata, schema = self._file.metadata, self._file.schema_arrow
            groups = [metadata.row_group(position) for position in range(metadata.num_row_groups)]
        if not schema.equals(read_as) or metadata.num_rows != described.rows:
            raise damaged(target, f"{columns.file} has other columns or rows than {DOCUMENT} names")
        lists = [
            column for column in range(len(metadata.schema)) if metadata.schema.column(column).max_repetition_level
        ]
        for group in groups:
            items = max([group.num_rows, *(group.column(column).num_values for column in lists)])
            if group.total_byte_size > _LARGEST_GROUP or items > _MOST_ROWS:
                raise self._too_large()
        #: First row of each row group, and the number of rows.
        self.starts = [0]
        for group in groups:
            self.starts.append(self.starts[-1] + group.num_rows)
        place = columns.schema.get_field_index(columns.order[0])
        #: Least and largest id of the section datasets in each row group.
        self.ranges: list[tuple[int, int]] = []
        for position, group in enumerate(groups):
            with self._decoding(what := f"row group {position} of {columns.file} has no range of ids"):
                known = group.column(place).statistics
                if not group.num_rows or known is None or not known.has_min_max or known.null_count:
                    raise damaged(target, what)
                self.ranges.append((int(known.min), int(known.max)))
        if self.starts[-1] != self.rows or any(a[1] >= b[0] for a, b in itertools.pairwise(self.ranges)):
            raise damaged(target, f"{columns.file} is not in order of {' and '.join(columns.order)}")
        #: The row groups whose order was validated.
        self._ordered: set[int] = set()

    def read_group(self, position: int, columns: list[str] | None = None) -> pa.Table:
        """Read columns of a row group; default all columns.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        wanted = self.columns.schema.names if columns is None else columns
        keys = [] if position in self._ordered else [name for name in self.columns.order if name not in wanted]
        with self._decoding(f"row group {position} of {self.columns.file} is not readable"):
            with self._lock:
                encoded = self._file.read_row_group(position, [*wanted, *keys], use_threads=False)
            encoded.validate(full=True)  # text is UTF-8
            if _text_size(encoded) > _LARGEST_GROUP:
                raise self._too_large()
            table = encoded.cast(pa.schema([self.columns.schema.field(name) for name in encoded.column_names]))
        if position not in self._ordered:
            self._validate_order(position, table)
            self._ordered.add(position)
        return table.select(wanted)

    def _validate_order(self, position: int, table: pa.Table) -> None:
        """Raise InputError unless the ids of a row group are those of its range, increase and are not null."""
        names = self.columns.order
        columns = [table.column(name) for name in names]
        if not any(column.null_count for column in columns):
            values = [column.to_numpy() for column in columns]
            steps = [np.diff(each) for each in values]
            increases = steps[-1] > 0 if len(steps) == 1 else (steps[0] > 0) | ((steps[0] == 0) & (steps[1] > 0))
            if increases.all() and (values[0][0], values[0][-1]) == self.ranges[position]:
                return
        raise damaged(
            self._target, f"row group {position} of {self.columns.file} is not in order of {' and '.join(names)}"
        )

    @contextmanager
    def _decoding(self, what: str) -> Iterator[None]:
        """Raise InputError that says what is damaged, for an error of the reader of Parquet."""
        try:
            yield
        except AtlaszarrError:
            raise
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, OverflowError):
            raise damaged(self._target, what) from None

    def _too_large(self) -> InputError:
        return damaged(
            self._target,
            f"{self.columns.file} has a row group of more than {_LARGEST_GROUP:,} bytes or {_MOST_ROWS:,} items",
        )

    def records(self, rows: pa.Table) -> list[Record]:
        """The records of some rows; InputError if a row is not a record."""
        try:
            return self.columns.records(rows)
        except (TypeError, ValueError):
            raise damaged(self._target, f"{self.columns.file} has rows that are not records") from None

    def read(self, columns: list[str], groups: Iterable[int] | None = None) -> pa.Table:
        """Read columns of some row groups; default all."""
        positions = range(len(self.ranges)) if groups is None else groups
        parts = [self.read_group(position, columns) for position in positions]
        return pa.concat_tables(parts) if parts else self.columns.schema.empty_table().select(columns)


def _with_dictionaries(schema: pa.Schema) -> tuple[pa.Schema, list[str]]:
    """A schema whose text is encoded by dictionaries, and the Parquet paths of that text.

    A few bytes of a file can repeat a long text a million times, and a dictionary holds it once.
    """
    text = pa.dictionary(pa.int32(), pa.string())
    fields, paths = [], []
    for field in schema:
        if field.type == pa.string():
            fields.append(field.with_type(text))
            paths.append(field.name)
        elif field.type == pa.list_(pa.string()):
            fields.append(field.with_type(pa.list_(text)))
            paths.append(f"{field.name}.list.element")
        else:
            fields.append(field)
    return pa.schema(fields), paths


def _text_size(table: pa.Table) -> int:
    """Bytes of the text of a table whose text is encoded by dictionaries, once it is decoded."""
    size = 0
    for column in table.columns:
        for chunk in column.chunks:
            values = chunk.flatten() if pa.types.is_list(chunk.type) else chunk
            if pa.types.is_dictionary(values.type):
                lengths = pc.binary_length(values.dictionary).cast(pa.int64())
                size += pc.sum(lengths.take(values.indices)).as_py() or 0
    return size


class _Blocks(io.RawIOBase):
    """An object, read in blocks that are compared with their digests."""

    def __init__(self, target: Target, key: str, described: TableFile) -> None:
        self._target, self._key, self._described = target, key, described
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._described.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._described.size if size < 0 else min(self._at + size, self._described.size)
        first, parts = self._at // BLOCK, []
        for number, block in enumerate(self._read_blocks(first, -(-end // BLOCK)), first):
            parts.append(block[max(self._at - number * BLOCK, 0) : end - number * BLOCK])
        self._at = max(end, self._at)
        return b"".join(parts)

    def _read_blocks(self, start: int, stop: int) -> list[bytes]:
        """Some blocks; adjacent ones that are not kept are read at once."""
        missing = [number for number in range(start, stop) if number not in self._blocks]
        for _, run in itertools.groupby(enumerate(missing), lambda item: item[1] - item[0]):
            numbers = [number for _, number in run]
            self._read_run(numbers[0], numbers[-1] + 1)
        for number in range(start, stop):
            self._blocks.move_to_end(number)
        found = [self._blocks[number] for number in range(start, stop)]
        while len(self._blocks) > _KEPT:
            self._blocks.popitem(last=False)
        return found

    def _read_run(self, start: int, stop: int) -> None:
        first, end = start * BLOCK, min(stop * BLOCK, self._described.size)
        part = self._target.read_range(self._key, first, end, _LARGEST_WHOLE)
        if part is None:
            raise damaged(self._target, f"{self._key} is missing")
        body = memoryview(part.body)[first - part.start : end - part.start]
        for number in range(start, stop):
            block = bytes(body[number * BLOCK - first : (number + 1) * BLOCK - first])
            if hashlib.sha256(block).hexdigest() != self._described.blocks[number]:
                last = min((number + 1) * BLOCK, self._described.size)
                what = f"bytes {number * BLOCK:,} to {last:,} of {self._key} do not match their digest"
                raise damaged(self._target, what)
            self._blocks[number] = block
