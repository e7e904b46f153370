"""The label index: which labels lie in which object of an annotation, and how many voxels each has there.

A parquet table next to the image, `KEY`, with one row for each label of each object of each level. Counting the data
makes it. It names the digest of the ledger of the data, and answers for a level only while the objects of that level
are those that the ledger records (`index_of`); `defects` compares it with the data themselves.
"""

from __future__ import annotations

import io
import json
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
from ..stores.target import Target
from . import ledger
from .checks import Defect
from .label_counts import LabelCounts, count_labels, merged
from .ledger import Ledger
from .multiscale import Multiscale, Written, digest
from .pyramid import Pyramid
from .schedulers import usable_cores
from .target_state import FINISHED

#: Key of the index in its target.
KEY = "atlaszarr/label_index.parquet"
_COLUMNS = ("level", "z", "y", "x", "label", "voxels", "voxels_low")
#: Objects of a level that are counted again by a verification that is not deep.
_SAMPLE = 8
#: Objects that a thread reads at once.
_AT_ONCE = 32


@dataclass(frozen=True)
class LabelIndex:
    """Counts of the labels other than 0, object by object.

    Attributes
    ----------
    columns : dict of str to ndarray, shape (rows,)
        ``level``, ``z``, ``y``, ``x`` (int32: the object, as its chunk or shard index), ``label`` (int64, or uint64 of
        such an annotation), ``voxels`` and ``voxels_low`` (int64: of them, those on the low side of the midline along
        x). In the order of the first five.
    ledger : str
        Digest of the ledger of the data that were counted.
    """

    columns: Mapping[str, NDArray[Any]]
    ledger: str

    @classmethod
    def of(cls, multiscale: Multiscale, counts: Mapping[str, LabelCounts], ledger: str) -> LabelIndex:
        """The index of a target's first array.

        Parameters
        ----------
        multiscale : Multiscale
        counts : mapping of str to LabelCounts
            By the key of the object, as `count_unit` returns them. Objects without an entry are read and counted, so
            that a resumed build need not keep its counts; those of other arrays are ignored.
        ledger : str
            Digest of the compacted ledger, as the root names it.

        Raises
        ------
        TargetError
            If an object that has to be counted cannot be read.
        """
        spec = multiscale.arrays[0]
        units, parts = [], []
        for level in range(len(multiscale.pyramid.levels)):
            for unit in sorted(multiscale.non_empty.units(level)):
                found = counts.get(multiscale.key(spec, level, unit))
                found = _count_stored(multiscale, level, unit) if found is None else found
                units.append((level, *unit))
                parts.append(LabelCounts(*(column[found.ids != 0] for column in found)))
        objects = np.repeat(np.array(units, np.int32).reshape(-1, 4), [len(part.ids) for part in parts], axis=0)
        kinds = ("u8" if np.dtype(spec.dtype) == np.uint64 else "i8", "i8", "i8")
        columns = [
            np.concatenate([np.empty(0, kind), *(np.asarray(part[column], kind) for part in parts)])
            for column, kind in enumerate(kinds)
        ]
        return cls(dict(zip(_COLUMNS, (*objects.T, *columns), strict=True)), ledger)

    def to_bytes(self) -> bytes:
        """The same bytes for the same rows and ledger, given one version of pyarrow."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({name: np.ascontiguousarray(self.columns[name]) for name in _COLUMNS})
        table = table.replace_schema_metadata({"ledger": self.ledger, "check": self._check()})
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, body: bytes) -> LabelIndex:
        """The inverse of `to_bytes`.

        Raises
        ------
        ValueError
            If the bytes are not as they were written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(pa.BufferReader(body), use_threads=False)
            columns = {name: table.column(name).to_numpy() for name in _COLUMNS}
            metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            index, check = cls(columns, metadata["ledger"]), metadata["check"]
        except (pa.ArrowException, KeyError, OSError) as error:
            raise ValueError(f"not a label index: {type(error).__name__}") from None
        if check != index._check():
            raise ValueError("a label index that is not as it was written")
        return index

    def counts(self, level: int) -> LabelCounts:
        """All labels of a level other than 0; `low` counts the side of low x."""
        return merged([self._counts(self.columns["level"] == level)])

    def units(self, level: int, labels: Iterable[int]) -> list[Index]:
        """The objects of a level that hold any of the labels."""
        wanted = np.array(sorted(set(labels)), self.columns["label"].dtype)
        found = (self.columns["level"] == level) & np.isin(self.columns["label"], wanted)
        units = np.unique(np.stack([self.columns[axis][found] for axis in "zyx"], axis=-1), axis=0)
        return [(int(z), int(y), int(x)) for z, y, x in units]

    def of_unit(self, level: int, unit: Index) -> LabelCounts:
        """The labels of one object other than 0."""
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
    """How many columns of a level have their centre on the low side of the middle of level 0 along x.

    A centre exactly on the midline is on the high side.
    """
    middle = Fraction(pyramid.shape[2] - 1, 2)  # from the centre of the first column of level 0
    n = math.ceil((middle - pyramid.first(level)[2]) / pyramid.scale(level)[2])
    return min(max(n, 0), pyramid.levels[level].shape[2])


def count_unit(multiscale: Multiscale, level: int, unit: Index, values: NDArray[Any]) -> LabelCounts:
    """Count an object of an annotation.

    Parameters
    ----------
    multiscale : Multiscale
    level : int
    unit : tuple of int
    values : ndarray, integers, shape (z, y, x)
        Its voxels within the array: without padding.
    """
    start = multiscale.pyramid.levels[level].region(unit)[2].start
    return count_labels(values, columns_before_midline(multiscale.pyramid, level) - start)


def _count_stored(multiscale: Multiscale, level: int, unit: Index) -> LabelCounts:
    region = multiscale.pyramid.levels[level].region(unit)
    return count_unit(multiscale, level, unit, multiscale.read_array(multiscale.arrays[0], level, region))


def index_of(target: Target, own: Mapping[str, Any], level: int) -> tuple[LabelIndex | None, str]:
    """The index of a target, if it holds for the data of a level as they are now.

    Parameters
    ----------
    target : Target
    own : mapping
        The attributes of atlaszarr in the root; empty if another writer made the image.
    level : int

    Returns
    -------
    LabelIndex or None
    str
        Why an index that exists is not returned; else empty.
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
        reason = _changed_metadata(target, level, found) or _changed_objects(target, level, found)
    except (TargetError, InputError):  # plain HTTP, for one
        reason = "the store does not list its objects"
    return (index, "") if reason is None else (None, reason)


def add_index(target: Target) -> LabelIndex:
    """Count the data of a finished target and write its index.

    Raises
    ------
    InputError
        If there is no finished target with one array of labels.
    TargetError
        If its data cannot be read, or the index cannot be written.
    """
    found = ledger.read(target, finished=True)
    try:
        multiscale = ledger.multiscale_of(target, found)
    except (ValueError, KeyError, TypeError):
        raise InputError(f"target {target.url} is not a finished image of atlaszarr; give one") from None
    spec = multiscale.arrays[0]
    if np.dtype(spec.dtype).kind not in "iu" or spec.axes != ("z", "y", "x"):
        raise InputError(f"target {target.url} holds {spec.dtype} along {', '.join(spec.axes)}, not labels")
    index = LabelIndex.of(multiscale, {}, str(found.digest))
    target.write(KEY, index.to_bytes())
    return index


def defects(target: Target, found: Ledger, deep: bool) -> Iterator[Defect]:
    """Rows of the index that the data contradict, one defect for each object; none where there is no index.

    Parameters
    ----------
    target : Target
        Finished, and free of other defects.
    found : Ledger
        Of the target.
    deep : bool
        Whether to count all objects again, and not a sample of every level.

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
    multiscale = ledger.multiscale_of(target, found)
    for level, at in enumerate(multiscale.pyramid.levels):
        units = sorted(multiscale.non_empty.units(level))
        chosen = units if deep else random.Random(0).sample(units, min(_SAMPLE, len(units)))
        for unit in sorted(chosen):
            try:
                stored = _count_stored(multiscale, level, unit)
            except TargetError:
                continue  # a defect of the object
            if (text := _contradiction(_rows(index.of_unit(level, unit)), _rows(stored))) is not None:
                yield Defect("index", KEY, f"level {level}, chunk {'/'.join(map(str, unit))}: {text}")
        outside = ~np.logical_and.reduce([index.columns[axis] < n for axis, n in zip("zyx", at.grid, strict=True)]) & (
            index.columns["level"] == level
        )
        if outside.any():
            yield Defect("index", KEY, f"level {level}: {np.count_nonzero(outside)} rows are of no chunk")


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
        f"label {wrong[0]} has {stored} voxels, {stored_low} of them on the low side of x, where the index says "
        f"{voxels} and {low}{more}"
    )


def _changed_metadata(target: Target, level: int, found: Ledger) -> str | None:
    """How the metadata of a level's array differ from those that the ledger records."""
    for key, text in (found.header or {}).get("documents", {}).items():
        if key.startswith(f"{level}/") and (body := target.read(key)) != text.encode():
            try:
                if json.loads(body or b"") == json.loads(text):
                    continue
            except ValueError:
                pass
            return f"{key} is not what was written"
    return None


def _changed_objects(target: Target, level: int, found: Ledger) -> str | None:
    """How the objects of a level differ from those that the ledger records: on a local disk, by their digests too."""
    entries = (item for entry in found.done.values() for item in entry.written.items())
    written = {key: record for key, record in entries if key.startswith(f"{level}/")}
    listed = target.sizes(str(level))
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
        for altered in pool.map(lambda k: _first_altered(target, keys[k::threads], written), range(threads)):
            if altered is not None:
                return f"{altered} does not hold what was written"
    return None


def _first_altered(target: Target, keys: list[str], written: Written) -> str | None:
    for start in range(0, len(keys), _AT_ONCE):
        for key, body in target.read_each(keys[start : start + _AT_ONCE]).items():
            if body is None or digest(body) != written[key][1]:
                return key
    return None
