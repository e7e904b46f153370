"""The label index: which labels lie in which object of an annotation, and how many voxels each has there.

A table beside the image, `KEY`, with a row a label an object a level. Any reader of parquet opens it. It is bound to
the data by the digest of their ledger, and never trusted over them: see `atlaszarr.engine.index_trust`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .label_counts import LabelCounts, count_labels, merged
from .multiscale import ArraySpec, Multiscale, digest
from .pyramid import Index, Pyramid

#: Of the index in its target.
KEY = "atlaszarr/label_index.parquet"
_COLUMNS = ("level", "z", "y", "x", "label", "voxels", "voxels_low")


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
            Of objects, by key, as `count_unit` gives them; objects of other arrays are passed over. What is not here is
            read and counted, so that a build that was resumed need not remember.
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
            for unit in sorted(multiscale.occupancy.units(level)):
                found = counts.get(multiscale.key(spec, level, unit))
                units.append((level, *unit))
                parts.append(counted(multiscale, spec, level, unit) if found is None else found)
        return cls._of_parts(units, parts, spec.dtype, ledger)

    @classmethod
    def _of_parts(
        cls, units: Sequence[tuple[int, ...]], parts: Sequence[LabelCounts], dtype: str, ledger: str
    ) -> LabelIndex:
        parts = [LabelCounts(*(column[part.ids != 0] for column in part)) for part in parts]
        places = np.repeat(np.array(units, np.int32).reshape(-1, 4), [len(part.ids) for part in parts], axis=0)
        label = "u8" if np.dtype(dtype) == np.uint64 else "i8"
        found = [
            np.concatenate([np.empty(0, kind), *(np.asarray(part[column], kind) for part in parts)])
            for column, kind in enumerate((label, "i8", "i8"))
        ]
        return cls(dict(zip(_COLUMNS, (*places.T, *found), strict=True)), ledger)

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
            stated = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            index, check = cls(columns, stated["ledger"]), stated["check"]
        except (pa.ArrowException, KeyError, OSError) as error:
            raise ValueError(f"not a label index: {type(error).__name__}") from None
        if check != index._check():
            raise ValueError("a label index that is not as it was written")
        return index

    def counts(self, level: int) -> LabelCounts:
        """All labels of a level other than 0; `low` counts the side of low x."""
        at = self.columns["level"] == level
        return merged([LabelCounts(*(self.columns[name][at] for name in _COLUMNS[4:]))])

    def units(self, level: int, labels: Iterable[int]) -> list[Index]:
        """The objects of a level that hold any of some labels."""
        wanted = np.array(sorted(set(labels)), self.columns["label"].dtype)
        found = (self.columns["level"] == level) & np.isin(self.columns["label"], wanted)
        places = np.unique(np.stack([self.columns[axis][found] for axis in "zyx"], axis=-1), axis=0)
        return [(int(z), int(y), int(x)) for z, y, x in places]

    def of_unit(self, level: int, unit: Index) -> LabelCounts:
        """The labels of one object other than 0."""
        at = self.columns["level"] == level
        for axis, position in zip("zyx", unit, strict=True):
            at &= self.columns[axis] == position
        return LabelCounts(*(self.columns[name][at] for name in _COLUMNS[4:]))

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


def counted(multiscale: Multiscale, spec: ArraySpec, level: int, unit: Index) -> LabelCounts:
    """Read an object and count it.

    Raises
    ------
    TargetError
        If it cannot be read.
    """
    alone = Multiscale(multiscale.target, (spec,), multiscale.occupancy, multiscale.encoding)
    region = multiscale.pyramid.levels[level].region(unit)
    return count_unit(multiscale, level, unit, alone.read(level, region)[spec.path])
