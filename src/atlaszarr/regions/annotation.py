"""An annotation, stored or lazy: its geometry, the voxel count of each label, and masks of labels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property, partial
from itertools import islice
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..assets.locate import Located, locate
from ..boxes import Index, split_index
from ..engine.absent_chunks import AbsentChunks
from ..engine.cluster import Cluster
from ..engine.label_counts import LabelCounts, count_labels, merged
from ..engine.label_index import LabelIndex, index_of
from ..engine.ome import Geometry, exact
from ..engine.ome_reader import StoredImage
from ..engine.schedulers import SchedulerLike, active_client, resolve_scheduler, scheduler_for
from ..engine.task_windows import in_window
from ..engine.zarr_reader import StoredArray
from ..errors import AtlaszarrWarning, InputError
from ..stores.locations import shown
from ..stores.target import Target

#: Tasks under way for each thread of a cluster: the next is there when one ends.
_WINDOW = 4
#: Fraction of a voxel: a centre closer than this to the midline is on the midline.
_ROUNDED = Fraction(1, 10**6)


@dataclass(frozen=True)
class Annotation:
    """One level of an annotation.

    Attributes
    ----------
    labels : StoredArray or dask array
        Integers, shape (z, y, x).
    geometry : Geometry
    finest : tuple of Geometry and tuple of int
        Geometry of level 0, and its voxels along (z, y, x).
    absent : AbsentChunks or None
        The absent chunks of `labels`; None if they are unknown.
    image : StoredImage or None
        The image that `labels` belong to, if they are read from a path or URL.
    level : int
        The level of `image`.
    index_of_level : bool
        Whether the label index of the level, which counts the sides along x, is that of `labels`.
    """

    labels: Any
    geometry: Geometry
    finest: tuple[Geometry, tuple[int, int, int]]
    absent: AbsentChunks | None
    image: StoredImage | None = None
    level: int = 0
    index_of_level: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        z, y, x = map(int, self.labels.shape)
        return z, y, x

    @property
    def midline(self) -> Fraction:
        """The middle of level 0 along x, in the unit of `geometry`."""
        geometry, shape = self.finest
        return exact(geometry.translation[2]) + exact(geometry.scale[2]) * Fraction(shape[2] - 1, 2)

    @cached_property
    def before_midline(self) -> int:
        """Columns along x whose centre is before the midline; a centre on it is not before it."""
        start, step = exact(self.geometry.translation[2]), exact(self.geometry.scale[2])
        return min(max(math.ceil((self.midline - start) / step - _ROUNDED), 0), self.shape[2])

    def turned(self, axis: int) -> Annotation:
        """The annotation with an axis exchanged with x, so that its sides are along that axis."""
        if axis == 2:
            return self
        order = [2 if k == axis else axis if k == 2 else k for k in range(3)]
        words = {name: word for name, word in self.geometry.orientation.items() if name not in ("x", "zyx"[axis])}
        for name, other in (("x", "zyx"[axis]), ("zyx"[axis], "x")):
            if other in self.geometry.orientation:
                words[name] = self.geometry.orientation[other]
        finest, shape = self.finest
        z, y, x = (shape[k] for k in order)
        labels = self.labels if self.image is None else self.image.volume(self.level)[0]
        return replace(
            self,
            labels=labels.transpose(order),
            geometry=replace(_permuted(self.geometry, order), orientation=words),
            finest=(_permuted(finest, order), (z, y, x)),
            index_of_level=False,
        )

    def counts(self, scheduler: SchedulerLike = None) -> LabelCounts:
        """The voxel count of each label, and `low`, that before the midline; background (0) may be left out.

        Raises
        ------
        InputError
            If the scheduler is not supported, or its workers cannot read the labels.
        """
        if (index := self._index()) is not None:
            return index.counts(self.level)
        if isinstance(self.labels, StoredArray):
            counts = merged(list(self._count_stored(self.labels, scheduler)))
        else:
            if self.absent is not None:
                self.absent.list()
            counts = _count_lazy(self.labels, self.before_midline, scheduler)
        self._warn_of_absent()
        return counts

    def _count_stored(self, labels: StoredArray, scheduler: SchedulerLike) -> Iterator[LabelCounts]:
        """Count the labels of stored objects, on threads of this process or on a cluster."""
        if scheduler is None and labels.target.url.startswith("memory://"):
            scheduler = "threads"  # the workers of the active client cannot read it
        resolved = resolve_scheduler(scheduler, labels.target.url)
        if resolved == "threads":
            yield from labels.each(
                labels.units, lambda box, values: count_labels(values, self.before_midline - box[2].start)
            )
            return
        units = labels.units
        with scheduler_for(resolved, None) as running:
            shared = running.share(labels)
            batches = iter(lambda: list(islice(units, running.batch)), [])
            starts = (partial(running.compute, _count_units, shared, self.before_midline, batch) for batch in batches)
            for counted, absent in in_window(running, starts, _WINDOW * running.workers):
                labels.absent.add(absent)
                yield counted

    def mask(self, labels: Iterable[int]) -> Any:
        """The voxels with one of some labels: a dask array of bool, shape (z, y, x)."""
        import dask.array as da

        wanted, index = tuple(sorted(labels)), self._index()
        if index is None and self.absent is not None:  # an index is valid only if no chunk is absent
            self.absent.list()
            self._warn_of_absent()
        meta = np.empty((0, 0, 0), bool)
        if not isinstance(self.labels, StoredArray):
            return self.labels.map_blocks(_is_in, wanted, dtype=bool, meta=meta)
        units = None if index is None else frozenset(index.units(self.level, wanted))
        stored = _Mask(self.labels, wanted, units)
        # Not named by its content: the data may change under the same path.
        return da.from_array(stored, chunks=self.labels.layout.unit, name=False, asarray=False, meta=meta)

    def _index(self) -> LabelIndex | None:
        if self.image is None or not self.index_of_level:
            return None
        index, reason = index_of(self.image.target, self.image.own, self.level)
        if reason:
            _warn(f"the label index of {self.image.target.url} is not used, the data are read: {reason}")
        return index

    def _warn_of_absent(self) -> None:
        if self.absent is not None and self.image is not None:
            _warn(self.absent.first_remark(f"level {self.level} of {shown(self.image.target.url)}"))
        elif self.absent is not None:
            _warn(self.absent.remark())


def annotation_of(given: Any, level: int, storage_options: Mapping[str, Any] | None = None) -> Annotation:
    """Open one level of an annotation.

    Parameters
    ----------
    given : str, path-like, Located, Multiscales, NgffImage, xarray.DataArray, dask or numpy array
        A path or URL is that of an annotation, or of an asset that `atlaszarr.assets.locate.locate` takes.
    level : int
        A level of a path, a URL or a Multiscales; other annotations have only level 0.
    storage_options : mapping, optional
        Options for fsspec, if `given` is a URL.

    Raises
    ------
    InputError
        If `given` is not an annotation, or does not have the level.
    """
    if isinstance(level, bool) or not isinstance(level, Integral):
        raise InputError(f"level {level!r} must be a whole number", code="invalid-value")
    level = int(level)
    if isinstance(given := locate(given, storage_options), Located):
        image = StoredImage.at(Target.of(given.annotation, storage_options))
        image.validate_level(level)
        geometry, whole = image.geometries[level], image.finest or image
        labels: Any
        if image.is_ordered:
            labels = image.labels(level)
            absent = labels.absent
        else:
            labels, absent = image.volume(level)
            _validate_labels(labels.dtype, image.target.url)
        return Annotation(labels, geometry, (whole.geometries[0], whole.shape(0)), absent, image, level)
    if storage_options:
        raise InputError(
            f"storage option {next(iter(storage_options))!r} is not supported for an open annotation",
            code="not-supported",
        )
    images = [given] if hasattr(given, "dims") else list(getattr(given, "images", [given]))
    if not 0 <= level < len(images):
        raise InputError(
            f"level {level} does not exist; the annotation has levels 0 to {len(images) - 1}", code="level-not-found"
        )
    from ..engine.inputs import absent_of, opened

    (first, axes, top), (array, _, geometry) = opened(images[0]), opened(images[level])
    if axes[-3:] != ("z", "y", "x") or math.prod(array.shape[:-3]) != 1:
        raise InputError(
            f"the annotation has axes {', '.join(axes)} and shape {array.shape}; it must have axes z, y, x",
            code="wrong-axes",
        )
    _validate_labels(array.dtype, "the annotation")
    absent = absent_of(array)
    if not hasattr(array, "__dask_graph__"):
        import dask.array as da

        array = da.from_array(array, chunks=getattr(array, "chunk", "auto"), name=False)
    if array.ndim == 4:
        array = array[0]
    z, y, x = map(int, first.shape[-3:])
    return Annotation(array, geometry, (top, (z, y, x)), absent)


def annotation_levels(
    given: Any, storage_options: Mapping[str, Any] | None = None
) -> list[tuple[Geometry, tuple[int, int, int]]]:
    """The geometry and the voxels along (z, y, x) of each level of an annotation; see `annotation_of`."""
    if isinstance(given := locate(given, storage_options), Located):
        image = StoredImage.at(Target.of(given.annotation, storage_options))
        return [(geometry, image.shape(level)) for level, geometry in enumerate(image.geometries)]
    images = [given] if hasattr(given, "dims") else list(getattr(given, "images", [given]))
    opened = [annotation_of(given, level) for level in range(len(images))]
    return [(annotation.geometry, annotation.shape) for annotation in opened]


def _permuted(geometry: Geometry, order: Sequence[int]) -> Geometry:
    (a, b, c), (p, q, r) = ([numbers[k] for k in order] for numbers in (geometry.scale, geometry.translation))
    return replace(geometry, scale=(a, b, c), translation=(p, q, r))


def _validate_labels(dtype: np.dtype[Any], name: str) -> None:
    if dtype.kind not in "iub":
        raise InputError(f"{name} holds {dtype}, not labels; labels must be integers", code="not-labels")


def _warn(text: str | None) -> None:
    if text is not None:
        warnings.warn(text, AtlaszarrWarning, stacklevel=5)  # at the call of region_volumes or region_mask


@dataclass(frozen=True)
class _Mask:
    """A mask of labels as an array; reads only the units of `containing`, or all if it is None."""

    array: StoredArray
    ids: tuple[int, ...]
    containing: frozenset[Index] | None
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(bool))
    ndim: int = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        z, y, x = self.array.shape
        return z, y, x

    def __getitem__(self, index: Any) -> Any:
        box, rest = split_index(index, self.shape)
        units = [u for u in self.array.layout.units(box) if self.containing is None or u in self.containing]
        if units:
            mask = _is_in(self.array.box(box, units), self.ids)
        else:
            mask = np.zeros([axis.stop - axis.start for axis in box], np.bool_)
        if (text := self.array.absent.first_remark()) is not None:  # if the store does not list its objects
            warnings.warn(f"{text} (counting the chunks read so far)", AtlaszarrWarning, stacklevel=2)
        return mask[rest]


def _is_in(values: NDArray[Any], ids: tuple[int, ...]) -> NDArray[np.bool_]:
    limits = np.iinfo(np.uint8 if values.dtype == bool else values.dtype)
    return np.isin(values, np.array([id for id in ids if limits.min <= id <= limits.max], values.dtype))


def _count_units(
    labels: StoredArray, midline: int, units: Sequence[Sequence[int]]
) -> tuple[LabelCounts, Mapping[str, int]]:
    """Count the labels of some objects on a worker; return the absent chunks too."""
    parts = [count_labels(values, midline - box[2].start) for box, values in labels.read(units)]
    return merged(parts), labels.absent.take()


def _count_lazy(array: Any, midline: int, scheduler: SchedulerLike) -> LabelCounts:
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
        adjust_chunks={axis: (1,) * len(chunks) for axis, chunks in zip("zyx", array.chunks, strict=True)},
        align_arrays=False,
        dtype=object,
        meta=np.empty((0, 0, 0), object),
    )
    return merged(list(_computed(parts, scheduler).ravel()))


def _count_block(block: NDArray[Any], start: NDArray[np.int64], midline: int) -> NDArray[Any]:
    counts = np.empty((1, 1, 1), object)
    counts[0, 0, 0] = count_labels(block, midline - int(start[0]))
    return counts


def _computed(lazy: Any, scheduler: SchedulerLike) -> Any:
    """Compute a dask array on a scheduler, or with threads if its graph cannot be sent to a cluster."""
    if scheduler is None and active_client() is None:
        return lazy.compute()  # by the settings of dask
    if (resolved := resolve_scheduler(scheduler)) == "threads":
        return lazy.compute(scheduler="threads")
    import cloudpickle

    try:
        cloudpickle.dumps(lazy.__dask_graph__())
    except (TypeError, AttributeError, ValueError, RuntimeError):
        # For example the arrays that from_ngff_zarr returns.
        return lazy.compute(scheduler="threads")
    with Cluster(resolved) as running:
        return running.compute_graph(lazy)
