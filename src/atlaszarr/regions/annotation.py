"""An annotation as it is given, stored or lazy: where it lies, what each label has of it, and where labels are."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Integral
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..boxes import Index, shape_of, split_index, within
from ..engine.absent_chunks import AbsentChunks
from ..engine.label_counts import LabelCounts, count_labels, merged
from ..engine.label_index import LabelIndex, index_of
from ..engine.ome import Geometry
from ..engine.ome_reader import StoredImage
from ..engine.schedulers import active_client
from ..engine.stored_array import StoredArray
from ..errors import AtlaszarrWarning, InputError
from ..stores.locations import shown
from ..stores.target import Target

#: Part of a voxel: a centre that is this near to the midline is on it.
_EXACT = Fraction(1, 10**6)


class Annotation(Protocol):
    """One level of an annotation."""

    @property
    def geometry(self) -> Geometry:
        """Where its voxels lie."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        ...

    @property
    def before_midline(self) -> int:
        """Columns along x with their centre before the middle of level 0; one that lies on it is not."""
        ...

    def counts(self) -> LabelCounts:
        """All labels, `low` before the midline; 0 may be left out."""
        ...

    def mask(self, ids: Iterable[int]) -> Any:
        """Where any of some labels is: a dask array of bool, shape (z, y, x)."""
        ...


def annotation_of(given: Any, level: int, storage_options: Mapping[str, Any] | None = None) -> Annotation:
    """A level of an annotation.

    Parameters
    ----------
    given : str, path-like, Multiscales, NgffImage, xarray.DataArray, dask or numpy array
    level : int
        Of a path, a URL or a Multiscales; others have level 0 alone.
    storage_options : mapping, optional
        To fsspec, for a URL.

    Raises
    ------
    InputError
        If it is none, or has no such level.
    """
    if isinstance(level, bool) or not isinstance(level, Integral):
        raise InputError(f"level {level!r} must be a whole number")
    level = int(level)
    if isinstance(given, str | os.PathLike):
        image = StoredImage.at(Target.of(given, storage_options))
        return _Stored(image, level, image.array(level))
    if storage_options:
        raise InputError(f"storage option {next(iter(storage_options))!r} is of no use for what is open already")
    images = [given] if hasattr(given, "dims") else list(getattr(given, "images", [given]))
    if not 0 <= level < len(images):
        raise InputError(f"level {level} is not there; the annotation has levels 0 to {len(images) - 1}")
    from ..engine.inputs import absent_of, opened

    (first, axes, top), (array, _, geometry) = opened(images[0]), opened(images[level])
    if axes[-3:] != ("z", "y", "x") or math.prod(array.shape[:-3]) != 1:
        raise InputError(f"the annotation has axes {', '.join(axes)} and shape {array.shape}; labels have z, y, x")
    if array.dtype.kind not in "iub":
        raise InputError(f"the annotation holds {array.dtype}, not labels; labels are integers")
    absent = absent_of(array)
    if not hasattr(array, "__dask_graph__"):
        import dask.array as da

        array = da.from_array(array, chunks=getattr(array, "chunk", "auto"), name=False)
    if array.ndim == 4:
        array = array[0]
    return _Lazy(array, geometry, _columns_before(top, first.shape[-1], geometry, array.shape[-1]), absent)


def _columns_before(top: Geometry, n: int, geometry: Geometry, columns: int) -> int:
    """How many columns of a level have their centre before the middle of level 0, which has n columns."""
    (first, size), (start, step) = (
        (Fraction(repr(one.translation[2])), Fraction(repr(one.scale[2]))) for one in (top, geometry)
    )
    middle = first + size * Fraction(n - 1, 2)
    return min(max(math.ceil((middle - start) / step - _EXACT), 0), columns)


@dataclass(frozen=True)
class _Stored:
    image: StoredImage
    level: int
    array: StoredArray

    @property
    def geometry(self) -> Geometry:
        return self.image.geometries[self.level]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.array.level.shape

    @property
    def before_midline(self) -> int:
        top = self.image.array(0).level.shape[2]
        return _columns_before(self.image.geometries[0], top, self.geometry, self.array.level.shape[2])

    def counts(self) -> LabelCounts:
        if (index := self._index()) is not None:
            return index.counts(self.level)
        midline, level = self.before_midline, self.array.level

        def count(unit: Index, values: NDArray[Any]) -> LabelCounts:
            return count_labels(values, midline - level.region(unit)[2].start)

        found = merged(list(self.array.each(self.array.units, count)))
        self._warn_of_absent()
        return found

    def mask(self, ids: Iterable[int]) -> Any:
        import dask.array as da

        wanted, index = tuple(sorted(ids)), self._index()
        if index is None:  # else all of it is there
            self.array.absent.list()
            self._warn_of_absent()
        holding = None if index is None else frozenset(index.units(self.level, wanted))
        stored = _Mask(self.array, wanted, holding)
        # No name by content: what is stored may change under the same path.
        return da.from_array(
            stored, chunks=self.array.level.unit, name=False, asarray=False, meta=np.empty((0, 0, 0), bool)
        )

    def _warn_of_absent(self) -> None:
        _warn(self.array.absent.first_remark(f"level {self.level} of {shown(self.image.target.url)}"))

    def _index(self) -> LabelIndex | None:
        index, reason = index_of(self.image.target, self.image.own, self.level)
        if reason:
            _warn(f"the label index of {self.image.target.url} is not used, and the data are read: {reason}")
        return index


def _warn(text: str | None) -> None:
    if text is not None:
        warnings.warn(text, AtlaszarrWarning, stacklevel=5)  # at the call of region_volumes or region_mask


@dataclass(frozen=True)
class _Mask:
    """Where labels are, as an array that reads what an index of it needs."""

    array: StoredArray
    ids: tuple[int, ...]
    holding: frozenset[Index] | None
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(bool))
    ndim: int = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.array.level.shape

    def __getitem__(self, index: Any) -> Any:
        (z, y, x), rest = split_index(index, self.shape)
        box, level = (z, y, x), self.array.level
        found = np.zeros(shape_of(box), bool)
        units = [u for u in level.units(box) if self.holding is None or u in self.holding] if found.size else []
        for unit, values in self.array.read(units):
            there = level.region(unit)
            a, b, c = (slice(max(i.start, o.start), min(i.stop, o.stop)) for i, o in zip(there, box, strict=True))
            found[within((a, b, c), box)] = _is_in(values[within((a, b, c), there)], self.ids)
        if (text := self.array.absent.first_remark()) is not None:  # as of a web server, which lists nothing
            warnings.warn(f"{text} (counted among the chunks that were read so far)", AtlaszarrWarning, stacklevel=2)
        return found[rest]


@dataclass(frozen=True)
class _Lazy:
    array: Any
    geometry: Geometry
    before_midline: int
    absent: AbsentChunks | None

    @property
    def shape(self) -> tuple[int, int, int]:
        z, y, x = map(int, self.array.shape)
        return z, y, x

    def counts(self) -> LabelCounts:
        import dask.array as da

        if self.absent is not None:
            self.absent.list()
        xs = self.array.chunks[2]
        starts = da.from_array(np.cumsum((0, *xs[:-1])), chunks=1)
        parts = da.blockwise(
            _count,
            "zyx",
            self.array,
            "zyx",
            starts,
            "x",
            midline=self.before_midline,
            adjust_chunks={axis: (1,) * len(own) for axis, own in zip("zyx", self.array.chunks, strict=True)},
            align_arrays=False,
            dtype=object,
            meta=np.empty((0, 0, 0), object),
        )
        found = merged(list(_computed(parts).ravel()))
        self._warn_of_absent()
        return found

    def mask(self, ids: Iterable[int]) -> Any:
        if self.absent is not None:
            self.absent.list()
            self._warn_of_absent()
        return self.array.map_blocks(_is_in, tuple(sorted(ids)), dtype=bool, meta=np.empty((0, 0, 0), bool))

    def _warn_of_absent(self) -> None:
        _warn(None if self.absent is None else self.absent.remark())


def _is_in(values: NDArray[Any], ids: tuple[int, ...]) -> NDArray[np.bool_]:
    limits = np.iinfo(np.uint8 if values.dtype == bool else values.dtype)
    return np.isin(values, np.array([id for id in ids if limits.min <= id <= limits.max], values.dtype))


def _count(block: NDArray[Any], start: NDArray[np.int64], midline: int) -> NDArray[Any]:
    found = np.empty((1, 1, 1), object)
    found[0, 0, 0] = count_labels(block, midline - int(start[0]))
    return found


def _computed(lazy: Any) -> Any:
    """A dask array's values, by the scheduler that is current unless its source cannot be sent there."""
    if active_client():
        import cloudpickle

        try:
            cloudpickle.dumps(lazy.__dask_graph__())
        except (TypeError, AttributeError, ValueError, RuntimeError):
            # Such as what from_ngff_zarr returns: a cluster could not compute it.
            return lazy.compute(scheduler="threads")
    return lazy.compute()
