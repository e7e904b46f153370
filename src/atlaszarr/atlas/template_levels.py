"""A template as BrainGlobe's reader needs it: uint16, with every level of the annotation; or the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from ..engine.ome import exact
from ..engine.pyramid import Factor
from ..errors import InputError
from ..geometry.voxel_size import um
from ..reference_volumes import ReferenceVolume
from .levels import SAME_SIZE, Corner, Levels, levels_of

_DTYPE = np.dtype(np.uint16)


def as_uint16(volumes: Sequence[ReferenceVolume]) -> tuple[list[ReferenceVolume], list[str]]:
    """Volumes of a template as uint16, without a change of any value.

    A volume of another dtype than uint16 or uint8 is read as a whole first.

    Parameters
    ----------
    volumes : sequence of ReferenceVolume

    Returns
    -------
    volumes : list of ReferenceVolume
    remarks : list of str
        The conversions.

    Raises
    ------
    InputError
        If a value is not a whole number from 0 to 65535.
    """
    converted, remarks = [], []
    for volume in volumes:
        dtype = np.dtype(volume.array.dtype)
        if dtype == _DTYPE:
            converted.append(volume)
            continue
        if not np.can_cast(dtype, _DTYPE):
            _refuse_other_values(volume)
        converted.append(replace(volume, array=volume.array.astype(_DTYPE)))
        remarks.append(f"{volume.uri} holds {dtype}; for BrainGlobe it is converted to uint16, which changes no value")
    return converted, remarks


def _refuse_other_values(volume: ReferenceVolume) -> None:
    """Refuse a volume with a value that uint16 lacks."""
    most = np.iinfo(_DTYPE).max
    for block in volume.blocks():
        fits = (block >= 0) & (block <= most)
        if block.dtype.kind == "f":
            fits &= np.rint(block) == block
        if not fits.all():
            value = block[~fits][0].item()
            raise InputError(
                f"the template {volume.uri} holds {block.dtype} with the value {value}, and BrainGlobe needs whole "
                f"numbers from 0 to {most}; scale and round it to uint16, or leave out the layout brainglobe",
                code="unsupported-dtype",
            )


def template_levels(
    volumes: Sequence[ReferenceVolume],
    annotation: Levels,
    corner: Corner,
    chunk: int | Sequence[int] | None,
    shard: int | None,
    sides: str,
) -> Levels:
    """Lay out a template so that it has every level of the annotation.

    It has its usual levels if those of the annotation are among them. Otherwise its finest volume is downsampled to the
    finest level of the annotation and, from there, to each other one. The ratio of the voxel sizes may be any fraction
    for which a block of the pyramid fits into memory.

    Parameters
    ----------
    volumes : sequence of ReferenceVolume
        Of the template.
    annotation : Levels
    corner, chunk, shard, sides
        Same as in `levels_of`.

    Raises
    ------
    InputError
        If the template is coarser than the annotation, the ratio is not supported, or for the reasons of `levels_of`.
    """
    finest = min(volumes, key=lambda volume: volume.voxel_size)
    sizes = _sizes(annotation)
    if any(size > other * (1 + SAME_SIZE) for size, other in zip(finest.voxel_size, sizes[0], strict=True)):
        raise InputError(
            f"the template {finest.uri} has voxels of {um(finest.voxel_size)}, but the annotation of {um(sizes[0])}; "
            "BrainGlobe needs both at every level, and a template is not made finer than it is: give a template with "
            f"voxels of {um(sizes[0])} or smaller, or an annotation with those of the template",
            code="resolution-mismatch",
        )
    try:
        usual = levels_of(volumes, corner, chunk, shard, sides)
    except InputError:  # of volumes at other levels, which may be those of the annotation
        usual = None
    if usual is not None and all(any(_same(size, own) for own in _sizes(usual)) for size in sizes):
        return usual
    steps = list(pairwise(sizes if _same(finest.voxel_size, sizes[0]) else [finest.voxel_size, *sizes]))
    try:
        return levels_of(volumes, corner, chunk, shard, sides, [_factor(*step) for step in steps])
    except InputError as error:
        if error.code not in ("blocks-too-large", "invalid-factor"):
            raise
        raise InputError(
            f"the template {finest.uri} has voxels of {um(finest.voxel_size)}, which cannot be reduced to the "
            f"{um(sizes[0])} of the annotation in blocks that fit into memory; give a template with voxels of "
            f"{um(sizes[0])}, or a whole fraction of it",
            code="resolution-mismatch",
        ) from None


def _sizes(levels: Levels) -> list[tuple[float, float, float]]:
    """The voxel size of each level, along (z, y, x), in um."""
    sizes = []
    for level in range(len(levels.pyramid.levels)):
        lengths = zip(levels.volumes[0].voxel_size, levels.pyramid.scale(level), strict=True)
        z, y, x = (float(exact(size) * factor) for size, factor in lengths)
        sizes.append((z, y, x))
    return sizes


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a / b - 1) < SAME_SIZE for a, b in zip(one, other, strict=True))


def _factor(one: Sequence[float], other: Sequence[float]) -> Factor:
    z, y, x = (exact(b) / exact(a) for a, b in zip(one, other, strict=True))
    return z, y, x
