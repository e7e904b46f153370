"""Region volumes and masks: the voxels of each structure of an annotation, without and with its descendants."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ..assets.locate import Located, locate
from ..engine.ome import exact
from ..engine.schedulers import SchedulerLike
from ..errors import AtlaszarrWarning, InputError
from ..geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION, direction, reference_space
from ..geometry.voxel_size import contradiction, lengths_of, refuse_implausible
from ..stores.locations import shown
from ..terminology.terminology import Terminology, terminology_of
from .annotation import Annotation, annotation_of
from .structure_rows import StructureRows

if TYPE_CHECKING:
    import pandas as pd

#: A warning on left and right of an annotation that is not the whole CCF.
ASSUMED_MIDLINE = (
    "the midline is assumed in the middle of the annotation's x axis; left and right are wrong if the annotation is a "
    "part of a brain, or the brain is not centred"
)
#: Why a half of the CCF has no left and right.
PART_OF_CCF = (
    "the annotation has the extent of the CCF along z and y, but only a part of it along x: its midline is not known"
)


def region_volumes(
    annotation: Any,
    terminology: Terminology | str | os.PathLike[str] | None = None,
    level: int = 0,
    by_hemisphere: bool = False,
    *,
    voxel_size: float | Sequence[float] | None = None,
    allow_unknown: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    scheduler: SchedulerLike = None,
) -> pd.DataFrame:
    """The volume of every structure of an annotation, without and with its descendants.

    The data are read once for all structures, or not at all if the annotation has a valid label index.

    Parameters
    ----------
    annotation : str, path-like, Multiscales, NgffImage, xarray.DataArray, dask or numpy array
        Integer labels, shape (z, y, x), or the path or URL of any OME-Zarr of such labels, of a label group or a level
        in one, or of a zarr array; its axes may have any order. 0 is background. Or the path or URL of an annotation
        set or an atlas of the standard "Atlas Asset Organization" (``ROOT/annotation-sets/NAME/VERSION``,
        ``ROOT/atlases/NAME/VERSION``, without VERSION the newest), of its ``manifest.json``, or of the root of a tree
        with one annotation set or one atlas.
    terminology : Terminology, str or path-like, optional
        Default: that of the manifests for an annotation set or an atlas; ``terminology.csv`` next to the annotation.
    level : int
        Level of the annotation; volumes from coarser levels are estimates.
    by_hemisphere : bool
        Whether to count each side of the midline too. The midline is the middle of level 0 along x, or along the axis
        that runs between left and right by its orientation. The centre of a voxel decides its side; a centre on the
        midline is on the high side. The orientation of that axis decides which side is left. Without an orientation,
        low r is left as in the CCF if the annotation has the extent of the CCF; otherwise, and for a part of the CCF
        along x, the sides are ``low`` and ``high``. BrainGlobe writes ``right-to-left`` on the CCF, which swaps the
        names (brainglobe-atlasapi issue 104); ``attrs["hemispheres"]`` records this.
    voxel_size : float or sequence of 3 float, optional
        Along (z, y, x) at `level`, in um. Default: the voxel size of the annotation. A warning says if they differ.
    allow_unknown : bool
        Whether to accept a terminology that names under half of the labels of the annotation.
    storage_options : mapping, optional
        Options for fsspec, if the annotation or the terminology is a URL.
    scheduler : str, distributed.Client or distributed.LocalCluster, optional
        Counts the voxels: same as in `atlaszarr.build`. An annotation in memory that cannot be sent to workers is
        counted by threads.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``identifier``, in the order of the terminology: ``acronym``, ``name``, ``voxels`` and
        ``volume_mm3`` (with all descendants), ``voxels_direct`` and ``volume_direct_mm3`` (without descendants). By
        hemisphere also each of these four as ``voxels_left``, ``voxels_direct_left``, ``volume_left_mm3``,
        ``volume_direct_left_mm3``, and the same for ``right``; or for ``low`` and ``high``. Labels that are not in the
        terminology are the last rows, with an empty acronym and the label as identifier: with its sign reversed where
        identifiers differ from labels, and as ``label 7`` where identifiers are texts. ``attrs`` has ``level``,
        ``voxel_mm3``, and by hemisphere ``sides``, the names of both sides, and ``hemispheres``, which explains them.

    Raises
    ------
    InputError
        If `annotation` does not hold labels, does not have the level or its voxel size is unknown, or the terminology
        does not exist or names under half of the labels; if it has negative labels of structures of the terminology;
        if by its metadata a voxel is under 0.1 um or over 5 mm, or the annotation is longer than 0.5 m, and no voxel
        size is given.
    SourceError, RecordError
        If the terminology cannot be read or is invalid.
    TargetError
        If a chunk cannot be read, or is absent although the ledger of the annotation records it.

    Warns
    -----
    AtlaszarrWarning
        If chunks are absent that no ledger records (they are read as background), the label index is not used, the
        annotation has labels that are not in the terminology, `voxel_size` is not that of its metadata, or left and
        right are counted by a midline that is assumed: in any annotation without the extent of the CCF.
    """
    annotation = located_annotation(annotation, storage_options)
    opened = annotation_of(annotation, level, storage_options)
    structures = terminology_of(terminology, annotation, storage_options)
    size = list(voxel_um(opened, voxel_size))
    voxel = float(math.prod(size) / 10**9)
    across = axis_across(opened) if by_hemisphere else 2
    opened = opened.turned(across)
    size[across], size[2] = size[2], size[across]
    names, explanation, is_assumed = (
        sides_of(opened, size, "zyx"[across]) if by_hemisphere else (("low", "high"), "", False)
    )
    counts = opened.counts(scheduler)
    labelled = counts.ids != 0
    ids, voxels, low = (column[labelled] for column in counts)
    described = StructureRows.of(structures, ids, allow_unknown)
    direct = np.zeros((len(described), 2), np.int64)
    if ids.size:
        direct[described.rows(ids)] = np.stack([voxels, low], axis=-1)
    total = direct.copy()

    def add(parent: int, child: int) -> None:
        total[parent] += total[child]

    described.add_descendants(add)
    table = described.frame()
    sides = {"": (total[:, 0], direct[:, 0])}
    if by_hemisphere:
        low_side, high_side = (total[:, 1], direct[:, 1]), (total[:, 0] - total[:, 1], direct[:, 0] - direct[:, 1])
        counted = dict(zip(names, (low_side, high_side), strict=True))
        order = sorted(names, key=("left", "right", "low", "high").index)
        sides |= {f"_{side}": counted[side] for side in order}
    for side, (summed, own) in sides.items():
        table[f"voxels{side}"], table[f"voxels_direct{side}"] = summed, own
        table[f"volume{side}_mm3"], table[f"volume_direct{side}_mm3"] = summed * voxel, own * voxel
    table.attrs = {"level": level, "voxel_mm3": voxel}
    if by_hemisphere:
        table.attrs |= {"sides": order, "hemispheres": explanation}
    if is_assumed:
        warnings.warn(ASSUMED_MIDLINE, AtlaszarrWarning, stacklevel=2)
    described.warn(2)
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
        An acronym, a name or an id; a structure without a label has an empty mask, but for its descendants.

    Returns
    -------
    dask array, bool, shape (z, y, x)
        Lazy. With a valid label index, only the chunks that contain the structure are read.

    Raises
    ------
    NotFoundError
        If no structure has the acronym, name or id `region`, or several have the acronym or name.
    InputError
        If `annotation` does not hold labels or does not have the level, or the terminology does not exist.
    SourceError, RecordError
        If the terminology cannot be read or is invalid.
    TargetError
        If a chunk is absent although the ledger of the annotation records it; if the store does not list its objects,
        only when the mask is computed.

    Warns
    -----
    AtlaszarrWarning
        If chunks are absent that no ledger records; if the store does not list its objects, only when the mask is
        computed.
    """
    annotation = located_annotation(annotation, storage_options)
    structures = terminology_of(terminology, annotation, storage_options)
    values = {structure.value for structure in structures.descendants(region) if structure.value is not None}
    return annotation_of(annotation, level, storage_options).mask(values)


def region_bounds(mask: Any) -> tuple[slice, slice, slice] | None:
    """The smallest box around a mask, to crop arrays of the same level; None if the mask is empty.

    Parameters
    ----------
    mask : dask array, bool, shape (z, y, x)
        From `region_mask`; computed chunk by chunk.

    Returns
    -------
    tuple of 3 slice, or None
        Voxels along (z, y, x).
    """
    import dask

    occupied = dask.compute(*(mask.any(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))))
    along = [np.flatnonzero(axis) for axis in occupied]
    if not along[0].size:
        return None
    z, y, x = (slice(int(axis[0]), int(axis[-1]) + 1) for axis in along)
    return z, y, x


def located_annotation(annotation: Any, storage_options: Mapping[str, Any] | None) -> Any:
    """The annotation, of which a path or URL is resolved once; a warning says which version of several is used."""
    found = locate(annotation, storage_options)
    if isinstance(found, Located) and found is not annotation:
        for remark in found.remarks:
            warnings.warn(remark, AtlaszarrWarning, stacklevel=3)
    return found


def voxel_um(annotation: Annotation, given: float | Sequence[float] | None) -> tuple[Fraction, Fraction, Fraction]:
    """The voxel size along (z, y, x) in um, as the exact value of its decimal notation."""
    geometry, image = annotation.geometry, annotation.image
    name = "the annotation" if image is None else shown(image.target.url)
    numbers = image.numbers if image else f"scale {geometry.scale}, unit {geometry.unit!r}"
    recorded = None if (micron := geometry.micron) is None else [exact(size) * micron for size in geometry.scale]
    if given is not None:
        z, y, x = map(exact, lengths_of(given))
        if recorded is not None and (remark := contradiction(name, recorded, (z, y, x), numbers)):
            warnings.warn(remark, AtlaszarrWarning, stacklevel=3)
        return z, y, x
    if recorded is None:
        raise InputError(
            f"the voxel size of {name} is not known ({numbers}); give voxel_size (--voxel-size) in um",
            code="missing-voxel-size",
        )
    refuse_implausible(annotation.shape, [float(size) for size in recorded], name, numbers)
    z, y, x = recorded
    return z, y, x


def axis_across(annotation: Annotation) -> int:
    """The axis between left and right: x, unless another one has such an orientation."""
    words = [direction(annotation.geometry.orientation.get(axis, "")) for axis in "zyx"]
    found = [k for k, word in enumerate(words) if word in (ORIENTATION["x"], BRAINGLOBE_SIDES)]
    return found[0] if len(found) == 1 else 2


def sides_of(annotation: Annotation, size: Sequence[Fraction], axis: str) -> tuple[tuple[str, str], str, bool]:
    """The names of the low and the high side of x, a sentence that explains them, and if the midline is assumed.

    `axis` is the name that x has in the image.
    """
    words = {axis: direction(word) for axis, word in annotation.geometry.orientation.items()}
    orientation, n = words.get("x"), annotation.before_midline
    if orientation not in (None, ORIENTATION["x"], BRAINGLOBE_SIDES):
        raise InputError(
            f"the annotation's x axis runs {orientation}; hemispheres need an x axis that runs between left and right",
            code="unsupported-orientation",
        )
    finest, voxels = annotation.finest
    steps = zip(size, finest.scale, annotation.geometry.scale, strict=True)
    z, y, x = (float(length) * (fine / coarse) for length, fine, coarse in steps)
    # Along (p, i, r): in RAS, z and y run along i and p.
    upright = words.get("z", "").startswith(("inferior", "superior"))
    shape, lengths = ((voxels[1], voxels[0], voxels[2]), (y, z, x)) if upright else (voxels, (z, y, x))
    space = reference_space(9)
    if space.lacks_part_of_x(shape, lengths):
        return ("low", "high"), f"low is {axis} voxels before {n}, high from {n} on; {PART_OF_CCF}", False
    is_ccf = space.is_covered(shape, lengths)
    if orientation is None and not is_ccf:
        return ("low", "high"), f"low is {axis} voxels before {n}, high from {n} on; x has no orientation", False
    low, high = ("right", "left") if orientation == BRAINGLOBE_SIDES else ("left", "right")
    why = f"{axis} runs {orientation}" if orientation else "x has no orientation: named as in the CCF"
    if orientation == BRAINGLOBE_SIDES and is_ccf and not upright:
        why += ", as BrainGlobe names it; the Allen Institute calls low r left"
    if not is_ccf:
        why += "; the midline is assumed in the middle"
    r = axis if upright and orientation == BRAINGLOBE_SIDES else "r"
    return (
        (low, high),
        f"{low} is low {r} ({axis} voxels before {n}), {high} is high {r} (from {n} on); {why}",
        not is_ccf,
    )
