"""An annotation, stored or lazy: its geometry, the voxels of each label, and masks of labels."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boxes import Index, split_index
from ..engine.absent_chunks import AbsentChunks
from ..engine.label_counts import LabelCounts, count_labels, merged
from ..engine.label_index import LabelIndex, index_of
from ..engine.ome import Geometry
from ..engine.ome_reader import StoredImage
from ..engine.schedulers import active_client
from ..engine.zarr_reader import StoredArray
from ..errors import AtlaszarrWarning, InputError
from ..stores.locations import shown
from ..stores.target import Target

#: Part of a voxel: a centre this near to the midline is on it.
_EXACT = Fraction(1, 10**6)


@dataclass(frozen=True)
class Annotation:
    """One level of an annotation.

    Attributes
    ----------
    labels : StoredArray or dask array
        Integers, (z, y, x): an array in a target, or a lazy one.
    geometry : Geometry
        Where its voxels lie.
    before_midline : int
        Columns along x with their centre before the middle of level 0; a centre on the middle is not before it.
    absent : AbsentChunks or None
        Of the array that is read; None if they are not known.
    image : StoredImage or None
        The image of a stored array.
    level : int
        Within it.
    """

    labels: Any
    geometry: Geometry
    before_midline: int
    absent: AbsentChunks | None
    image: StoredImage | None = None
    level: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        z, y, x = map(int, self.labels.shape)
        return z, y, x

    def counts(self) -> LabelCounts:
        """Voxels of each label, `low` before the midline; 0 may be left out."""
        if (index := self._index()) is not None:
            return index.counts(self.level)
        if isinstance(self.labels, StoredArray):
            found = _count_stored(self.labels, self.before_midline)
        else:
            if self.absent is not None:
                self.absent.list()
            found = _count_lazy(self.labels, self.before_midline)
        self._warn_of_absent()
        return found

    def mask(self, ids: Iterable[int]) -> Any:
        """Where any of some labels is: a dask array of bool, shape (z, y, x)."""
        import dask.array as da

        wanted, index = tuple(sorted(ids)), self._index()
        if index is None and self.absent is not None:  # an index is used only if no chunk is absent
            self.absent.list()
            self._warn_of_absent()
        meta = np.empty((0, 0, 0), bool)
        if not isinstance(self.labels, StoredArray):
            return self.labels.map_blocks(_is_in, wanted, dtype=bool, meta=meta)
        holding = None if index is None else frozenset(index.units(self.level, wanted))
        stored = _Mask(self.labels, wanted, holding)
        # No name by content: the data may change under the same path.
        return da.from_array(stored, chunks=self.labels.layout.unit, name=False, asarray=False, meta=meta)

    def _index(self) -> LabelIndex | None:
        if self.image is None:
            return None
        index, reason = index_of(self.image.target, self.image.own, self.level)
        if reason:
            _warn(f"the label index of {self.image.target.url} is not used, and the data are read: {reason}")
        return index

    def _warn_of_absent(self) -> None:
        if self.absent is not None and self.image is not None:
            _warn(self.absent.first_remark(f"level {self.level} of {shown(self.image.target.url)}"))
        elif self.absent is not None:
            _warn(self.absent.remark())


def annotation_of(given: Any, level: int, storage_options: Mapping[str, Any] | None = None) -> Annotation:
    """A level of an annotation.

    Parameters
    ----------
    given : str, path-like, Multiscales, NgffImage, xarray.DataArray, dask or numpy array
    level : int
        Of a path, a URL or a Multiscales; others have only level 0.
    storage_options : mapping, optional
        To fsspec, for a URL.

    Raises
    ------
    InputError
        If it is not an annotation, or has no such level.
    """
    if isinstance(level, bool) or not isinstance(level, Integral):
        raise InputError(f"level {level!r} must be a whole number")
    level = int(level)
    if isinstance(given, str | os.PathLike):
        image = StoredImage.at(Target.of(given, storage_options))
        stored, geometries = image.labels(level), image.geometries
        columns = stored.shape[2]
        before = _columns_before(geometries[0], image.labels(0).shape[2], geometries[level], columns)
        return Annotation(stored, geometries[level], before, stored.absent, image, level)
    if storage_options:
        raise InputError(f"storage option {next(iter(storage_options))!r} is not supported for an open annotation")
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
    return Annotation(array, geometry, _columns_before(top, first.shape[-1], geometry, array.shape[-1]), absent)


def _columns_before(top: Geometry, n: int, geometry: Geometry, columns: int) -> int:
    """Columns of a level with their centre before the middle of level 0, which has n columns."""
    (first, size), (start, step) = (
        (Fraction(repr(one.translation[2])), Fraction(repr(one.scale[2]))) for one in (top, geometry)
    )
    middle = first + size * Fraction(n - 1, 2)
    return min(max(math.ceil((middle - start) / step - _EXACT), 0), columns)


def _warn(text: str | None) -> None:
    if text is not None:
        warnings.warn(text, AtlaszarrWarning, stacklevel=5)  # at the call of region_volumes or region_mask


@dataclass(frozen=True)
class _Mask:
    """A mask of labels as an array that reads the units that an index needs."""

    array: StoredArray
    ids: tuple[int, ...]
    holding: frozenset[Index] | None
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(bool))
    ndim: int = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        z, y, x = self.array.shape
        return z, y, x

    def __getitem__(self, index: Any) -> Any:
        box, rest = split_index(index, self.shape)
        units = [u for u in self.array.layout.units(box) if self.holding is None or u in self.holding]
        if units:
            found = _is_in(self.array.box(box, units), self.ids)
        else:
            found = np.zeros([axis.stop - axis.start for axis in box], np.bool_)
        if (text := self.array.absent.first_remark()) is not None:  # on a web server, which lists nothing
            warnings.warn(f"{text} (counted among the chunks that were read so far)", AtlaszarrWarning, stacklevel=2)
        return found[rest]


def _is_in(values: NDArray[Any], ids: tuple[int, ...]) -> NDArray[np.bool_]:
    limits = np.iinfo(np.uint8 if values.dtype == bool else values.dtype)
    return np.isin(values, np.array([id for id in ids if limits.min <= id <= limits.max], values.dtype))


def _count_stored(array: StoredArray, midline: int) -> LabelCounts:
    def count(region: tuple[slice, ...], values: NDArray[Any]) -> LabelCounts:
        return count_labels(values, midline - region[2].start)

    return merged(list(array.each(array.units, count)))


def _count_lazy(array: Any, midline: int) -> LabelCounts:
    import dask.array as da

    starts = da.from_array(np.cumsum((0, *array.chunks[2][:-1])), chunks=1)
    parts = da.blockwise(
        _count_block,
        "zyx",
        array,
        "zyx",
        starts,
        "x",
        midline=midline,
        adjust_chunks={axis: (1,) * len(own) for axis, own in zip("zyx", array.chunks, strict=True)},
        align_arrays=False,
        dtype=object,
        meta=np.empty((0, 0, 0), object),
    )
    return merged(list(_computed(parts).ravel()))


def _count_block(block: NDArray[Any], start: NDArray[np.int64], midline: int) -> NDArray[Any]:
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
