"""The label index of an annotation: the number of voxels of each label in each object. An object is a chunk or a shard.

It is a parquet table in the target, at `KEY`, with a row for each label of each object of each level, made by counting
the voxels. It records the digest of the ledger. `index_of` returns it only if the objects of a level are those that the
ledger records; `defects` compares it with the voxels.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boxes import Index
from ..errors import InputError, TargetError
from ..stores.documents import LARGEST, parse
from ..stores.target import Target
from . import ledger
from .label_counts import LabelCounts, count_labels, merged
from .ledger import Defect, Ledger, Written, digest
from .multiscale import Multiscale, multiscale_of
from .pyramid import Pyramid
from .schedulers import usable_cores
from .target_state import FINISHED

#: Key of the index in its target.
KEY = "atlaszarr/label_index.parquet"
#: The most rows that are read, half a gigabyte; an annotation at 10 um has a fortieth of them.
_MOST_ROWS = 2**23
_COLUMNS = ("level", "z", "y", "x", "label", "voxels", "voxels_low")
#: Number of objects of a level that a shallow verification counts again.
_SAMPLE = 8
#: Number of objects in one request.
_BATCH = 32


@dataclass(frozen=True)
class LabelIndex:
    """Counts of the labels other than 0, by object.

    Attributes
    ----------
    columns : dict of str to ndarray, shape (rows,)
        ``level``, ``z``, ``y``, ``x`` (int32: index of the chunk or shard), ``label`` (int64, or uint64 if the
        annotation is uint64), ``voxels`` and ``voxels_low`` (int64: all voxels, and those on the low side of the
        midline along x). Sorted by the first five.
    ledger : str
        Digest of the ledger of the voxels that were counted.
    """

    columns: Mapping[str, NDArray[Any]]
    ledger: str

    @classmethod
    def of(cls, multiscale: Multiscale, counts: Mapping[str, LabelCounts], ledger: str) -> LabelIndex:
        """Make the index of the first array of a multiscale.

        Parameters
        ----------
        multiscale : Multiscale
        counts : mapping of str to LabelCounts
            Results of `count_unit`, by the key of the object. Objects without an entry are read and counted; entries
            of other arrays are ignored.
        ledger : str
            Digest of the compacted ledger, as the root records it.

        Raises
        ------
        TargetError
            If an object without an entry cannot be read.
        """
        spec = multiscale.arrays[0]
        units, parts = [], []
        for level in range(len(multiscale.pyramid.levels)):
            for unit in sorted(multiscale.non_empty.units(level)):
                known = counts.get(multiscale.key(spec, level, unit))
                known = count_stored(multiscale, level, unit) if known is None else known
                units.append((level, *unit))
                parts.append(LabelCounts(*(column[known.ids != 0] for column in known)))
        objects = np.repeat(np.array(units, np.int32).reshape(-1, 4), [len(part.ids) for part in parts], axis=0)
        dtypes = ("u8" if np.dtype(spec.dtype) == np.uint64 else "i8", "i8", "i8")
        columns = [
            np.concatenate([np.empty(0, dtype), *(np.asarray(part[column], dtype) for part in parts)])
            for column, dtype in enumerate(dtypes)
        ]
        return cls(dict(zip(_COLUMNS, (*objects.T, *columns), strict=True)), ledger)

    def to_bytes(self) -> bytes:
        """Encode the index as parquet. Equal indices have equal bytes if the version of pyarrow is the same."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({name: np.ascontiguousarray(self.columns[name]) for name in _COLUMNS})
        table = table.replace_schema_metadata({"ledger": self.ledger, "check": self._check()})
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, body: bytes) -> LabelIndex:
        """Decode the result of `to_bytes`.

        Raises
        ------
        ValueError
            If the bytes are damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if (rows := pq.read_metadata(pa.BufferReader(body)).num_rows) > _MOST_ROWS:
                raise ValueError(f"not a label index: it has {rows} rows, and at most {_MOST_ROWS} are read")
            schema = pq.read_schema(pa.BufferReader(body))
            # A short text that repeats in every row takes terabytes.
            if any(not pa.types.is_integer(schema.field(name).type) for name in _COLUMNS):
                raise ValueError("not a label index: its columns are not integers")
            table = pq.read_table(pa.BufferReader(body), columns=list(_COLUMNS), use_threads=False)
            columns = {name: table.column(name).to_numpy() for name in _COLUMNS}
            metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            index, check = cls(columns, metadata["ledger"]), metadata["check"]
        except (pa.ArrowException, KeyError, OSError) as error:
            raise ValueError(f"not a label index: {type(error).__name__}") from None
        if check != index._check():
            raise ValueError("a label index with a wrong checksum")
        return index

    def counts(self, level: int) -> LabelCounts:
        """The labels of a level other than 0; `LabelCounts.low` counts the low side of x."""
        return merged([self._counts(self.columns["level"] == level)])

    def units(self, level: int, labels: Iterable[int]) -> list[Index]:
        """Indices of the objects of a level that hold any of the labels."""
        wanted = np.array(sorted(set(labels)), self.columns["label"].dtype)
        rows = (self.columns["level"] == level) & np.isin(self.columns["label"], wanted)
        units = np.unique(np.stack([self.columns[axis][rows] for axis in "zyx"], axis=-1), axis=0)
        return [(int(z), int(y), int(x)) for z, y, x in units]

    def of_unit(self, level: int, unit: Index) -> LabelCounts:
        """The labels of an object other than 0."""
        at = self.columns["level"] == level
        for axis, position in zip("zyx", unit, strict=True):
            at &= self.columns[axis] == position
        return self._counts(at)

    def _counts(self, rows: NDArray[np.bool_]) -> LabelCounts:
        return LabelCounts(*(self.columns[name][rows] for name in _COLUMNS[4:]))

    def _check(self) -> str:
        """Digest of the rows."""
        return digest(b"".join(np.ascontiguousarray(self.columns[name]).tobytes() for name in _COLUMNS))


def columns_before_midline(pyramid: Pyramid, level: int) -> int:
    """Number of columns of a level with their centre on the low side of the midline of level 0 along x.

    A centre on the midline is on the high side.
    """
    middle = Fraction(pyramid.shape[2] - 1, 2)  # voxels from the centre of the first column of level 0
    n = math.ceil((middle - pyramid.first(level)[2]) / pyramid.scale(level)[2])
    return min(max(n, 0), pyramid.levels[level].shape[2])


def count_unit(multiscale: Multiscale, level: int, unit: Index, values: NDArray[Any]) -> LabelCounts:
    """Count the labels of an object.

    Parameters
    ----------
    multiscale : Multiscale
    level : int
    unit : tuple of int
        Index of the object.
    values : ndarray, integers, shape (z, y, x)
        Its voxels, without padding.
    """
    start = multiscale.pyramid.levels[level].region(unit)[2].start
    return count_labels(values, columns_before_midline(multiscale.pyramid, level) - start)


def count_stored(multiscale: Multiscale, level: int, unit: Index) -> LabelCounts:
    """Read an object and count its labels."""
    region = multiscale.pyramid.levels[level].region(unit)
    return count_unit(multiscale, level, unit, multiscale.read_array(multiscale.arrays[0], level, region))


def index_of(target: Target, own: Mapping[str, Any], level: int) -> tuple[LabelIndex | None, str]:
    """Read the index of a target, if it agrees with the stored objects of a level.

    Parameters
    ----------
    target : Target
    own : mapping
        The attributes of atlaszarr in the root; empty if another program wrote the image.
    level : int

    Returns
    -------
    LabelIndex or None
        None if there is no index or it does not agree.
    str
        The reason if an index exists and is not returned; else empty.
    """
    if own.get("state") != FINISHED or (body := target.read(KEY)) is None:
        return None, ""
    try:
        index = LabelIndex.from_bytes(body)
    except ValueError:
        return None, f"{KEY} is damaged"
    recorded = ledger.read(target, finished=True)
    if recorded.damaged or not index.ledger == recorded.digest == own.get("ledger"):
        return None, f"{KEY} was made from other voxels than the ledger or the root records"
    try:
        reason = _changed_metadata(target, level, recorded) or _changed_objects(target, level, recorded)
    except (TargetError, InputError):  # for example a web server
        reason = "the store does not list its objects"
    return (index, "") if reason is None else (None, reason)


def add_index(target: Target) -> LabelIndex:
    """Count the labels of a finished annotation and write its index.

    Raises
    ------
    InputError
        If the target is not a finished image of labels along (z, y, x).
    TargetError
        If an object cannot be read, or the index cannot be written.
    """
    recorded = ledger.read(target, finished=True)
    try:
        multiscale = multiscale_of(target, recorded)
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"target {target.url} is not a finished image of atlaszarr; give one", code="not-a-finished-image"
        ) from None
    spec = multiscale.arrays[0]
    if np.dtype(spec.dtype).kind not in "iu" or spec.axes != ("z", "y", "x"):
        raise InputError(
            f"target {target.url} holds {spec.dtype} along {', '.join(spec.axes)}, not labels", code="not-labels"
        )
    index = LabelIndex.of(multiscale, {}, str(recorded.digest))
    target.write(KEY, index.to_bytes())
    return index


def defects(target: Target, recorded: Ledger, deep: bool) -> Iterator[Defect]:
    """Compare the index of a target, if any, with its voxels; one defect for each object that differs.

    Parameters
    ----------
    target : Target
        A finished target without other defects.
    recorded : Ledger
        The ledger of the target.
    deep : bool
        Whether to count all objects again, not only a sample of each level.

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
    if index.ledger != recorded.digest:
        yield Defect("index", KEY, "was made from other voxels than the ledger records")
        return
    multiscale = multiscale_of(target, recorded)
    for level, at in enumerate(multiscale.pyramid.levels):
        units = sorted(multiscale.non_empty.units(level))
        chosen = units if deep else random.Random(0).sample(units, min(_SAMPLE, len(units)))
        for unit in sorted(chosen):
            try:
                stored = count_stored(multiscale, level, unit)
            except TargetError:
                continue  # another check reports it
            if (text := _contradiction(_rows(index.of_unit(level, unit)), _rows(stored))) is not None:
                yield Defect("index", KEY, f"level {level}, chunk {'/'.join(map(str, unit))}: {text}")
        outside = ~np.logical_and.reduce([index.columns[axis] < n for axis, n in zip("zyx", at.grid, strict=True)]) & (
            index.columns["level"] == level
        )
        if outside.any():
            yield Defect("index", KEY, f"level {level}: {np.count_nonzero(outside)} rows are outside the image")


def _rows(counts: LabelCounts) -> dict[int, tuple[int, int]]:
    columns = (column.tolist() for column in counts)
    return {label: (voxels, low) for label, voxels, low in zip(*columns, strict=True) if label}


def _contradiction(index: Mapping[int, tuple[int, int]], data: Mapping[int, tuple[int, int]]) -> str | None:
    wrong = [label for label in sorted({*index, *data}) if index.get(label) != data.get(label)]
    if not wrong:
        return None
    (voxels, low), (stored, stored_low) = (rows.get(wrong[0], (0, 0)) for rows in (index, data))
    more = f", and {len(wrong) - 1} more labels differ" if len(wrong) > 1 else ""
    return (
        f"label {wrong[0]} has {stored} voxels, {stored_low} of them on the low side of x, and the index has "
        f"{voxels} and {low}{more}"
    )


def _changed_metadata(target: Target, level: int, recorded: Ledger) -> str | None:
    """How the metadata of the array of a level differ from the ledger; None if they do not."""
    for key, text in (recorded.header or {}).get("documents", {}).items():
        if key.startswith(f"{level}/") and (body := target.read(key, LARGEST)) != text.encode():
            try:
                if parse(body or b"") == parse(text):
                    continue
            except ValueError:
                pass
            return f"{key} was changed after it was written"
    return None


def _changed_objects(target: Target, level: int, recorded: Ledger) -> str | None:
    """How the objects of a level differ from the ledger, by key and size, and on a local disk by digest."""
    entries = (item for entry in recorded.done.values() for item in entry.written.items())
    written: Written = {key: record for key, record in entries if key.startswith(f"{level}/")}
    listed = target.sizes(str(level))
    if not listed:  # the metadata of the array exist, so the listing is incomplete
        return "the store does not list its objects"
    sizes = {key: size for key, size in listed.items() if not key.rsplit("/", 1)[1].startswith((".", "zarr.json"))}
    for key in sorted({*sizes, *written}):
        if key not in sizes or key not in written:
            return f"{key} is {'missing' if key in written else 'not in the ledger'}"
        if sizes[key] != written[key][0]:
            return f"{key} has {sizes[key]} bytes, and was written with {written[key][0]}"
    if not target.is_local:
        return None

    def changed(batch: list[str]) -> list[str]:
        bodies = target.read_each(batch).items()
        return [key for key, body in bodies if body is None or digest(body) != written[key][1]]

    keys = sorted(written)
    with ThreadPoolExecutor(usable_cores(), "atlaszarr-digest") as pool:
        for found in pool.map(changed, (keys[k : k + _BATCH] for k in range(0, len(keys), _BATCH))):
            if found:
                return f"{found[0]} was changed after it was written"
    return None
