"""`region_statistics`: what a registered volume shows in every structure of an annotation, in one pass over both."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assets.locate import Located
from ..boxes import Region, Shape
from ..engine.ome import Geometry
from ..engine.schedulers import Scheduler, SchedulerLike, active_client, resolve_scheduler, scheduler_for, usable_cores
from ..engine.selections import StoredPart
from ..engine.task_windows import in_order
from ..engine.zarr_reader import StoredArray
from ..errors import AtlaszarrWarning
from ..stores.locations import local_path
from ..terminology.terminology import Terminology, terminology_of
from .annotation import annotation_levels, annotation_of
from .block_sums import BlockSums, sum_block
from .matching import match
from .measured_volume import MeasuredVolume, largest_unit, voxels_um
from .placed_arrays import PlacedArray, SampledLabels, read_together
from .region_sums import RegionSums
from .structure_rows import StructureRows
from .volumes import ASSUMED_MIDLINE, axis_across, located_annotation, sides_of, voxel_um

if TYPE_CHECKING:
    import pandas as pd

#: The most bytes of a block, for each thread: a block of 256 x 256 x 256 voxels in colour with its labels, sections and
#: expression view has 302 MB.
_LARGEST_BLOCK = 2**28
#: The most voxels of the annotation that a block of a grid spans along an axis.
_SPAN = 128
#: Threads that read from a store other than a local disk, at least.
_REMOTE_THREADS = 8
#: Blocks under way for each worker.
_WINDOW = 16
#: The least part of the covered voxels that a fitting annotation labels: all of a brain labels 0.38 to 0.62 of them, a
#: half 0.19 to 0.30, a structure of the CCF at most 0.04, the other half of a sagittal dataset none.
LEAST_LABELLED = 0.15


def region_statistics(
    volume: Any,
    annotation: Any,
    terminology: Terminology | str | os.PathLike[str] | None = None,
    by_hemisphere: bool = False,
    *,
    allow_unknown: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    scheduler: SchedulerLike = None,
    workers: int | None = None,
) -> pd.DataFrame:
    """What a registered volume shows in every structure of an annotation, without and with its descendants.

    The volume and the annotation are read once, block by block, at the finest level of the volume whose voxels are
    those of a level of the annotation: of the same physical size at the same position. A voxel is covered if a section
    image was sampled there: its value in the label ``section`` of the volume is not 0. In an image without this label,
    and in any open array or Multiscales, which do not have it, every voxel is covered, except for those that are NaN in
    all channels.

    Parameters
    ----------
    volume : str, path-like, xarray.Dataset, xarray.DataArray, Multiscales, NgffImage, dask or numpy array
        The path or URL of a volume of `atlaszarr.build`, of a grid of ``atlaszarr grid``, or of any other OME-Zarr
        along z, y and x, or of one of its levels (``x.ome.zarr/0``), which is measured with the section label and the
        expression view of the whole; a Dataset of `atlaszarr.open_volume` or `atlaszarr.open_grid`; or an array.

        The expression view is read too if it lies next to the volume as ``x.expression.ome.zarr``, where `build`
        writes it. It may also be given alone: then its colours are not averaged, since what they mean as numbers is
        not documented.
    annotation : str, path-like, Multiscales, NgffImage, xarray.DataArray, dask or numpy array
        Same as in `atlaszarr.region_volumes`; for many volumes what `atlaszarr.assets.locate.locate` returns, and the
        terminology as a `Terminology`, so that neither is looked up again. Both can be pickled.

        The values of a grid are those of points 200 um apart. The label of a point is that of the voxel of the
        annotation that holds it (the one at the higher index if it is on an edge), at the coarsest level with voxels of
        at most an eighth of that distance: every 8th voxel of 25 um.
    terminology : Terminology, str or path-like, optional
        Same as in `atlaszarr.region_volumes`.
    by_hemisphere : bool
        Whether to measure each side of the midline too; same as in `atlaszarr.region_volumes`.
    allow_unknown : bool
        Whether to accept a terminology that names under half of the labels of the annotation.
    storage_options : mapping, optional
        Options for fsspec, for those of `volume`, `annotation` and `terminology` that are URLs.
    scheduler : str, distributed.Client or distributed.LocalCluster, optional
        Same as in `atlaszarr.build`. The result is the same for every scheduler and any number of workers.
    workers : int, optional
        Threads of this process; default one for each core, and at least 8 for a volume that is not on a local disk.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``identifier``, in the order of the terminology, as in `atlaszarr.region_volumes`: ``acronym``,
        ``name``, and for each structure with all its descendants

        - ``voxels``, ``covered`` (int64): voxels of the annotation, and those of them that are covered.
        - ``volume_mm3``, ``covered_mm3`` (float64): the same in mm3.
        - for each channel C (``red``, ``green``, ``blue``; ``grey`` for an image without channels; the labels of its
          metadata for any other image) ``mean_C`` and ``std_C`` (float64): mean and standard deviation (of the
          population, ddof = 0) of the covered voxels, in grey levels, 0 to 255, or in the unit of the image. NaN where
          there are none. Infinite values give what they give in NumPy: a mean that is infinite or NaN, and NaN.
        - ``expression_covered``, ``expressing`` (Int64; NA without an expression view): voxels that the expression view
          covers, and those of them that express: some channel of it is not 0. JPEG and interpolation lighten voxels
          near expression, so this is an upper bound; see docs/expression.md.
        - ``density`` (float64): expressing / expression_covered, 0 to 1.
        - ``intensity`` (float64): the mean grey level of expressing voxels in the primary view, 0 to 255. The grey
          level is the mean of red, green and blue, rounded, as with ``grey`` in `build`. It is not inverted: where
          expression is dark on light, as in ISH, a smaller number is a stronger signal. A voxel that the two views
          took from different sections does not count.
        - ``energy`` (float64): density x intensity.

        These three are NaN without an expression view, except for channels of these names, such as those of a grid,
        of which they are the means over the voxels with data; their unit is that of the Allen Institute.

        All columns but the first two occur also as ``..._direct``: without descendants; and by hemisphere each of both
        as ``..._left`` and ``..._right``, or ``..._low`` and ``..._high``. ``attrs`` has ``dataset``, the id of the
        section dataset or the name of the volume, ``level`` and ``annotation_level``, the levels that were read,
        ``voxel_mm3``, and by hemisphere ``sides`` and ``hemispheres``.

    Raises
    ------
    InputError
        If no levels have voxels of the same size; if the grids or the orientations differ; if the volume or the
        annotation is not supported; for the reasons of `atlaszarr.region_volumes`.
    SourceError, RecordError
        If the terminology cannot be read or is invalid.
    TargetError
        If a chunk cannot be read, or is absent although the ledger of its image records it.
    SchedulerError
        If the workers are lost.

    Warns
    -----
    AtlaszarrWarning
        If chunks are absent that no ledger records; if the expression view was built with other options and is not
        used; if less than 15 % of the covered voxels have a label, as with an annotation of a few structures, or of
        a brain that lies elsewhere; for the reasons of `atlaszarr.region_volumes`.
    """
    its_options = options_for(annotation, storage_options)
    located = located_annotation(annotation, its_options)
    structures = terminology_of(terminology, located, options_for(terminology or annotation, storage_options))
    measured = MeasuredVolume.of(volume, options_for(volume, storage_options))
    found = match(measured, annotation_levels(located, its_options), "the annotation")
    opened = annotation_of(located, found.annotation_level, its_options)
    size = list(voxel_um(opened, None))
    across = axis_across(opened) if by_hemisphere else 2
    turned = opened.turned(across)
    size[across], size[2] = size[2], size[across]
    names, explanation, is_assumed = (
        sides_of(turned, size, "zyx"[across]) if by_hemisphere else (("low", "high"), "", False)
    )
    order = [2 if k == across else across if k == 2 else k for k in range(3)]
    levels = measured.levels[found.volume_level]
    axes, flipped = [found.order[k] for k in order], [found.flipped[k] for k in order]
    arrays = {key: array.arranged(axes, flipped) for key, array in levels.items()}
    voxels = PlacedArray(opened.labels, None, (0, 1, 2)).arranged(order)
    labels: PlacedArray | SampledLabels = voxels
    before, voxel = turned.before_midline, float(math.prod(size) / 10**9)
    if found.samples is not None:
        z, y, x = (found.samples[k] for k in order)
        labels = SampledLabels(voxels, (z, y, x))
        geometry = measured.geometries[found.volume_level]
        before = _points_before(float(turned.midline * (turned.geometry.micron or 1)), geometry, axes[2], len(x))
        voxel = math.prod(voxels_um(geometry, measured.name)) / 1e9
    sums = RegionSums(len(measured.channels))
    if workers is None and not measured.is_local:
        workers = max(_REMOTE_THREADS, usable_cores())
    absent = [opened.absent, *measured.absent]
    task = _Measurement(labels, arrays, before)
    if scheduler is None and not _can_be_sent(task):
        scheduler = "threads"
    for url in (measured.name, located.annotation if isinstance(located, Located) else ""):
        scheduler = resolve_scheduler(scheduler, url)
    with scheduler_for(scheduler, workers) as running:
        for parts, inside, counts in _run(running, task, list(_boxes(labels, list(arrays.values())))):
            sums.covered += inside
            for part in parts:
                sums.add(part)
            for chunks in absent:
                if chunks is not None and (found_absent := counts.get(chunks.url)):
                    chunks.add(found_absent)
    described = StructureRows.of(structures, sums.ids, allow_unknown)
    sides = dict(zip(names, (0, 1), strict=True)) if by_hemisphere else {}
    ordered = sorted(sides, key=("left", "right", "low", "high").index)
    table = sums.table(
        described, measured.channels, measured.has_expression, voxel, {side: sides[side] for side in ordered}
    )
    table.attrs = {
        "dataset": measured.dataset,
        "level": found.volume_level,
        "annotation_level": found.annotation_level,
        "voxel_mm3": voxel,
    }
    if by_hemisphere:
        table.attrs |= {"sides": ordered, "hemispheres": explanation}
    remarks = [chunks.remark() for chunks in absent if chunks is not None]
    for remark in (*remarks, ASSUMED_MIDLINE if is_assumed else None, _misfit(measured.name, sums)):
        if remark is not None:
            warnings.warn(remark, AtlaszarrWarning, stacklevel=2)
    described.warn(2)
    return table


def _misfit(name: str, sums: RegionSums) -> str | None:
    """A remark if the annotation hardly fits the volume; None if it does, or has no labels."""
    labelled, both = sums.voxels
    if not labelled or (both and both >= LEAST_LABELLED * sums.covered):
        return None
    found = f"no section covers any of the {labelled:,} voxels with a label"
    if both:
        found = (
            f"{_part(both, sums.covered)} covered voxels have a label, and {_part(both, labelled)} voxels with a label "
            "are covered"
        )
    return f"{name} and the annotation hardly overlap: {found}; measure with the whole brain in the space of the volume"


def _part(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({100 * part / whole:.2g} %)"


@dataclass(frozen=True)
class _Measurement:
    """Sums blocks by label. Small and picklable.

    Attributes
    ----------
    labels : PlacedArray or SampledLabels
    arrays : mapping of str to PlacedArray
        See `MeasuredVolume.levels`.
    before_midline : int
        Columns along x before the midline.
    """

    labels: PlacedArray | SampledLabels
    arrays: Mapping[str, PlacedArray]
    before_midline: int

    @property
    def all_arrays(self) -> list[PlacedArray]:
        """The labels and all arrays that are summed."""
        labels = self.labels if isinstance(self.labels, PlacedArray) else self.labels.labels
        return [labels, *self.arrays.values()]

    def __call__(self, boxes: Sequence[Region]) -> tuple[list[BlockSums], int, dict[str, dict[str, int]]]:
        """The sums of blocks that hold labels, the covered voxels of all, and the absent chunks found, by URL."""
        found, covered = zip(*map(self._block, boxes), strict=True)
        absent = {
            array.array.absent.url: taken
            for array in self.all_arrays
            if isinstance(array.array, StoredArray | StoredPart) and (taken := array.array.absent.take())
        }
        return [sums for sums in found if sums is not None], sum(covered), absent

    def _block(self, box: Region) -> tuple[BlockSums | None, int]:
        """The sums of a block, None without labels, and its covered voxels."""
        labels = self.labels.read(box)
        if not labels.any():
            return None, self._covered_without_labels(box)
        shape = labels.shape
        arrays = self._read(box)
        section, image = arrays.get("section"), arrays.get("image")
        if image is None:
            image = np.empty((0, *shape), np.uint8)
        elif image.ndim == 3:
            image = image[np.newaxis]
        image = _summable(image)
        if section is None:
            section = np.zeros(shape, np.uint8)
            section[self._inside(box)] = 1
            if image.dtype.kind == "f":
                section[np.isnan(image).all(axis=0)] = 0
        expression = arrays.get("expression")
        if expression is not None and expression.ndim == 3:
            expression = expression[np.newaxis]
        other = arrays.get("expression_section", section)
        if "section" not in arrays:  # the image has no sections to compare
            other = (other != 0).astype(np.uint8)
        sums = sum_block(labels, image, section, expression, other, self.before_midline - box[2].start)
        return sums, int(np.count_nonzero(section))

    def _covered_without_labels(self, box: Region) -> int:
        """The covered voxels of a block without labels; 0 if only its image or a lazy array tells them."""
        section, image = self.arrays.get("section"), self.arrays.get("image")
        if section is not None:
            is_stored = isinstance(section.array, StoredArray | StoredPart)
            return int(np.count_nonzero(read_together([section], box)[0])) if is_stored else 0
        if image is None or image.array.dtype.kind == "f":
            return 0
        return math.prod(part.stop for part in self._inside(box))

    def _inside(self, box: Region) -> tuple[slice, slice, slice]:
        """The part of a block that is inside the arrays, which may end one voxel before the labels."""
        shape = next(iter(self.arrays.values())).shape
        z, y, x = (slice(0, max(min(n, axis.stop) - axis.start, 0)) for n, axis in zip(shape, box, strict=True))
        return z, y, x

    def _read(self, box: Region) -> dict[str, NDArray[Any]]:
        """The arrays in a block; images without a section there are not read, and left out."""
        arrays = dict(self.arrays)
        found: dict[str, NDArray[Any]] = {}
        for label, image in (("section", "image"), ("expression_section", "expression")):
            if label in arrays and isinstance(arrays[label].array, StoredArray | StoredPart):
                (found[label],) = read_together([arrays.pop(label)], box)
                if image in arrays and not found[label].any():
                    del arrays[image]
        if "expression_section" in found and "expression" not in arrays and "expression" in self.arrays:
            del found["expression_section"]
        return {**found, **dict(zip(arrays, read_together(arrays.values(), box), strict=True))}


def _summable(image: NDArray[Any]) -> NDArray[Any]:
    """An image in a dtype that `sum_block` sums: other integers than uint8 and uint16 as float64."""
    if image.dtype == bool:
        return image.view(np.uint8)
    if image.dtype.kind == "u" and image.dtype.itemsize <= 2:
        return image
    return image.astype(np.float32 if image.dtype.itemsize <= 2 else np.float64, copy=False)


def _run(
    running: Scheduler, task: _Measurement, boxes: Sequence[Region]
) -> Iterator[tuple[list[BlockSums], int, dict[str, dict[str, int]]]]:
    """Measure all blocks, in their order, so that sums of floating point are always equal."""
    shared = running.share(task)
    size = max(1, min(running.batch, len(boxes) // (4 * running.workers)))
    starts = (
        partial(running.compute, _call, shared, boxes[first : first + size]) for first in range(0, len(boxes), size)
    )
    yield from in_order(running, starts, _WINDOW * max(running.workers, 2))


def _can_be_sent(task: _Measurement) -> bool:
    """Whether the workers of an active client can be given a task; not the arrays that from_ngff_zarr returns."""
    if active_client() is None or all(isinstance(array.array, StoredArray | StoredPart) for array in task.all_arrays):
        return True
    import cloudpickle

    try:
        cloudpickle.dumps(task)
    except (TypeError, AttributeError, ValueError, RuntimeError):
        return False
    return True


def _call(task: _Measurement, boxes: Sequence[Region]) -> Any:
    return task(boxes)


def _boxes(labels: PlacedArray | SampledLabels, arrays: Sequence[PlacedArray]) -> Iterator[Region]:
    """The blocks of the annotation, or of a grid of points; they do not depend on the scheduler."""
    shape: Shape
    if isinstance(labels, SampledLabels):
        shape = labels.shape
        spans = [max(int(axis.max()) + 1, len(axis)) for axis in labels.indices]
        z, y, x = (max(1, _SPAN * n // span) for n, span in zip(shape, spans, strict=True))
    else:
        shape = labels.shape
        held = [labels, *arrays]
        voxel = sum(max(np.dtype(array.array.dtype).itemsize, 1) * array.channels for array in held)
        z, y, x = map(min, largest_unit(held, max(_LARGEST_BLOCK // voxel, 1)), shape)
    for i in range(0, shape[0], z):
        for j in range(0, shape[1], y):
            for k in range(0, shape[2], x):
                yield (
                    slice(i, min(i + z, shape[0])),
                    slice(j, min(j + y, shape[1])),
                    slice(k, min(k + x, shape[2])),
                )


def _points_before(midline: float, geometry: Geometry, axis: int, count: int) -> int:
    """The number of points along an axis of a grid before the midline, in um; a point on it is not before it."""
    micron = float(geometry.micron or 1)
    step, start = geometry.scale[axis] * micron, geometry.translation[axis] * micron
    return int(np.count_nonzero(start + np.arange(count) * step < midline - 1e-6 * step))


def options_for(given: Any, options: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The storage options, if what is given is a URL; a path has none."""
    location = given.annotation if isinstance(given, Located) else given
    return options if isinstance(location, str) and local_path(location) is None else None
