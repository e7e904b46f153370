"""Region volumes and masks: the voxels of each structure in an annotation, alone and with its descendants."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.ome import Geometry
from ..errors import AtlaszarrWarning, InputError
from ..geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION, reference_space
from ..terminology.terminology import Terminology, terminology_of
from .annotation import Annotation, annotation_of

if TYPE_CHECKING:
    import pandas as pd

#: Labels without a structure that a warning names.
_NAMED = 5


def region_volumes(
    annotation: Any,
    terminology: Terminology | str | os.PathLike[str] | None = None,
    level: int = 0,
    by_hemisphere: bool = False,
    *,
    voxel_size: float | Sequence[float] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """The volume of every structure of an annotation, alone and with its descendants.

    The data are read once for all structures, or not at all if the annotation has a label index that agrees with them.

    Parameters
    ----------
    annotation : str, path-like, Multiscales, NgffImage, xarray.DataArray, dask or numpy array
        Integer labels, shape (z, y, x), or the path or URL of any OME-Zarr of such labels. 0 is background.
    terminology : Terminology, str or path-like, optional
        Default ``terminology.csv`` next to the annotation.
    level : int
        Level of the annotation; volumes from coarser levels are estimates.
    by_hemisphere : bool
        Whether to count both sides of the midline, the middle of level 0 along x. The centre of a voxel decides its
        side; one on the midline is on the high side. The orientation of the x axis decides which side is left. Without
        one, the sides are those of the CCF, low r left, if the annotation covers the CCF's space; else they are
        ``low`` and ``high``. BrainGlobe writes ``right-to-left`` on the CCF, and so names its sides the other way
        round (brainglobe-atlasapi issue 104); ``attrs["hemispheres"]`` records this.
    voxel_size : float or three, optional
        Along (z, y, x) at that level, in um, instead of the annotation's own.
    storage_options : mapping, optional
        To fsspec, for URLs.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``identifier``, in the order of the terminology: ``acronym``, ``name``, ``voxels`` and
        ``volume_mm3`` (with all descendants), ``voxels_direct`` and ``volume_direct_mm3`` (the structure's own label).
        By hemisphere also each of these four as ``voxels_left``, ``voxels_direct_left``, ``volume_left_mm3``,
        ``volume_direct_left_mm3``, and likewise ``right``; or ``low`` and ``high``. Labels that the terminology lacks
        are the last rows, without an acronym. ``attrs`` are ``level``, ``voxel_mm3``, and by hemisphere ``sides``, the
        names of both, and ``hemispheres``: which is which and why.

    Raises
    ------
    InputError
        If the annotation or the terminology cannot be read, or the voxel size is not known.
    TargetError
        If a chunk cannot be read, or is absent although the ledger of the annotation records it.

    Warns
    -----
    AtlaszarrWarning
        If chunks are absent that no ledger records (they are read as background), the label index is not used, or the
        annotation has labels that the terminology lacks.
    """
    import pandas as pd

    found = annotation_of(annotation, level, storage_options)
    structures = terminology_of(terminology, annotation, storage_options)
    size = _voxel_um(found.geometry, voxel_size)
    voxel = float(math.prod(size) / 10**9)
    names, explained = _sides(found, size) if by_hemisphere else (("low", "high"), "")
    counts = found.counts()
    held = counts.ids != 0
    ids, voxels, low = (column[held] for column in counts)
    known = {structure.id: position for position, structure in enumerate(structures)}
    unknown = [int(id) for id in ids if int(id) not in known]
    rows = len(structures) + len(unknown)
    row_of = known | {id: len(structures) + position for position, id in enumerate(unknown)}
    direct = np.zeros((rows, 2), np.int64)
    if ids.size:
        direct[[row_of[int(id)] for id in ids]] = np.stack([voxels, low], axis=-1)
    total = _with_descendants(structures, known, direct)

    table = pd.DataFrame(
        {
            "acronym": [*(one.acronym for one in structures), *("" for _ in unknown)],
            "name": [*(one.name for one in structures), *(f"label {id}, not in the terminology" for id in unknown)],
        },
        index=pd.Index([*(one.id for one in structures), *unknown], name="identifier"),
    )
    sides = {"": (total[:, 0], direct[:, 0])}
    if by_hemisphere:
        low_side, high_side = (total[:, 1], direct[:, 1]), (total[:, 0] - total[:, 1], direct[:, 0] - direct[:, 1])
        counted = dict(zip(names, (low_side, high_side), strict=True))
        order = sorted(names, key=("left", "right", "low", "high").index)
        sides |= {f"_{side}": counted[side] for side in order}
    for side, (all_of_it, own) in sides.items():
        table[f"voxels{side}"], table[f"voxels_direct{side}"] = all_of_it, own
        table[f"volume{side}_mm3"], table[f"volume_direct{side}_mm3"] = all_of_it * voxel, own * voxel
    table.attrs = {"level": level, "voxel_mm3": voxel}
    if by_hemisphere:
        table.attrs |= {"sides": order, "hemispheres": explained}
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        warnings.warn(
            f"the annotation holds labels that the terminology lacks: {', '.join(map(str, unknown[:_NAMED]))}{more}; "
            "they are rows of their own",
            AtlaszarrWarning,
            stacklevel=2,
        )
    return table


def region_mask(
    annotation: Any,
    terminology: Terminology | str | os.PathLike[str] | None,
    region: str | int,
    level: int = 0,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Any:
    """The voxels of a structure and its descendants.

    Parameters
    ----------
    annotation, terminology, level, storage_options
        Same as in `region_volumes`.
    region : str or int
        An acronym, a name or an id.

    Returns
    -------
    dask array, bool, shape (z, y, x)
        Lazy. If the annotation has a label index that agrees with the data, only chunks with the structure are read.

    Raises
    ------
    NotFoundError
        If no structure has that acronym, name or id.
    InputError
        If the annotation or the terminology cannot be read.
    TargetError
        If a chunk is absent although the ledger of the annotation records it: at once if the store lists its objects,
        else when the mask is computed.

    Warns
    -----
    AtlaszarrWarning
        If chunks are absent that no ledger records, likewise at once or when the mask is computed.
    """
    structures = terminology_of(terminology, annotation, storage_options)
    ids = {structure.id for structure in structures.descendants(region)}
    return annotation_of(annotation, level, storage_options).mask(ids)


def region_bounds(mask: Any) -> tuple[slice, slice, slice] | None:
    """The smallest box of voxels around a mask, to crop any array of the same level; None if the mask is empty.

    Parameters
    ----------
    mask : dask array, bool, shape (z, y, x)
        From `region_mask`; computed chunk by chunk.
    """
    import dask

    along = dask.compute(*(mask.any(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))))
    held = [np.flatnonzero(one) for one in along]
    if not held[0].size:
        return None
    z, y, x = (slice(int(one[0]), int(one[-1]) + 1) for one in held)
    return z, y, x


def _with_descendants(structures: Terminology, known: Mapping[int, int], direct: Any) -> Any:
    """Counts with all descendants: children follow their parents, so the last are added first."""
    total = direct.copy()
    for position, structure in reversed(list(enumerate(structures))):
        if len(structure.path) > 1:
            total[known[structure.path[-2]]] += total[position]
    return total


def _voxel_um(geometry: Geometry, given: float | Sequence[float] | None) -> tuple[Fraction, Fraction, Fraction]:
    """The voxel size along (z, y, x) in um, exactly as it is written."""
    if given is not None:
        lengths = tuple(map(float, given if isinstance(given, Sequence) else (given,) * 3))
        if len(lengths) != 3 or not all(math.isfinite(length) and length > 0 for length in lengths):
            raise InputError(f"voxel size {given!r} must be one positive length in um, or three along z, y, x")
        geometry = Geometry(lengths, unit="micrometer")
    if (micron := geometry.micron) is None:
        unit = "no unit" if geometry.unit is None else f"the unit {geometry.unit!r}"
        raise InputError(
            f"the annotation's axes have {unit}, so its volumes are not known; give voxel_size (--voxel-size) in um"
        )
    z, y, x = (Fraction(repr(length)) * micron for length in geometry.scale)
    return z, y, x


def _sides(annotation: Annotation, size: Sequence[Fraction]) -> tuple[tuple[str, str], str]:
    """The names of the low and the high side of x, and in words which is which and why."""
    orientation, n = annotation.geometry.orientation.get("x"), annotation.before_midline
    if orientation not in (None, ORIENTATION["x"], BRAINGLOBE_SIDES):
        raise InputError(f"the annotation's x axis runs {orientation}, not across the midline; hemispheres lie along x")
    is_ccf = reference_space(9).is_covered(annotation.shape, [float(length) for length in size])
    if orientation is None and not is_ccf:
        return ("low", "high"), f"low is x voxels before {n}, high from {n} on; x has no orientation"
    low, high = ("right", "left") if orientation == BRAINGLOBE_SIDES else ("left", "right")
    why = f"x runs {orientation}" if orientation else "x has no orientation: named as in the CCF"
    if orientation == BRAINGLOBE_SIDES and is_ccf:
        why += ", as BrainGlobe names it; the Allen Institute calls low r left"
    return (low, high), f"{low} is low r (x voxels before {n}), {high} is high r (from {n} on); {why}"
