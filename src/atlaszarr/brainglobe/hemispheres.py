"""The side of every voxel: 1 left, 2 right, as BrainGlobe's reader has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..completion import WriteReport
from ..ome import Geometry
from ..pyramid import Pyramid
from ..store import Target
from ..writing import write_multiscales

LEFT, RIGHT = 1, 2


def write_hemispheres(pyramid: Pyramid, geometry: Geometry, target: Target, **options: Any) -> WriteReport:
    """Write the sides of an annotation that is symmetric, at its levels and over all of its voxels.

    x runs from right to left, so that its first half is right. A plane of voxels in the very middle is left, as the
    reader has it.

    Parameters
    ----------
    pyramid : Pyramid
        Of the annotation.
    geometry : Geometry
    target : Target
    **options
        ``ome_zarr``, ``scheduler``, ``workers``, ``overwrite``, ``take_over`` and ``progress``, as of
        `atlaszarr.build`.
    """
    import dask.array as da

    levels = pyramid.levels
    shape: Sequence[int] = levels[0].shape
    side = da.where(da.arange(shape[2], chunks=128) < shape[2] // 2, RIGHT, LEFT).astype("uint8")
    return write_multiscales(
        da.broadcast_to(side, shape, chunks=((128,) * (shape[0] // 128) + _rest(shape[0]), shape[1], side.chunks[0])),
        target.url,
        rule="mode",
        geometry=geometry,
        levels=len(levels),
        factors=[level.factor for level in levels[1:]],
        chunk=[level.unit for level in levels],
        name="hemispheres",
        identity=f"1 left and 2 right of {shape}",
        storage_options=json.loads(target.storage_options),
        **options,
    )


def _rest(length: int) -> tuple[int, ...]:
    return (length % 128,) if length % 128 else ()
