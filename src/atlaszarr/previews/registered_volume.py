"""A picture of a registered volume: three planes with the borders of an annotation, and the largest regions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..geometry.plane import PLANES
from ..geometry.spaces import reference_space
from ..regions.volumes import region_volumes
from ..stores.local import write_whole
from ..terminology.terminology import terminology_of
from .annotation_planes import label_planes
from .region_bars import volumes_chart
from .three_planes import draw_three_planes

#: Positions of the planes along (p, i, r), as fractions of the reference space: through hippocampus and striatum of a
#: mouse, and to the left of the midline.
_PLANES = (0.53, 0.45, 0.4)
#: Grey level where the volume has no section.
_WHITE = 255


def draw_registered_volume(path: Path, volume: str, annotation: str, title: str, subtitle: str, foot: str) -> None:
    """Draw a coronal, a sagittal and a horizontal plane of a volume that `atlaszarr.build` wrote.

    Parameters
    ----------
    path : Path
        A file ending in ``.png`` or ``.svg``; replaced if it exists.
    volume : str
        An RGB volume in reference space 9.
    annotation : str
        An OME-Zarr of labels in that space, with its terminology.
    title, subtitle, foot : str
        The words above and below.

    Raises
    ------
    InputError
        If the annotation lies in another space or has no terminology.
    TargetError
        If the picture cannot be written.
    """
    import zarr

    space = reference_space(9)
    group: Any = zarr.open_group(volume, mode="r")
    level, section = group["0"], group["labels/section/0"]
    resolution = space.extent[0] / level.shape[1]
    terminology = terminology_of(None, annotation)
    positions, images, labels = {}, {}, {}
    for plane in PLANES.values():
        at = _PLANES[plane.fixed] * space.extent[plane.fixed]
        index: list[Any] = [slice(None)] * 3
        index[plane.fixed] = int(at // resolution)
        image = np.moveaxis(np.asarray(level[(slice(None), *index)]), 0, -1)
        image[np.asarray(section[tuple(index)]) == 0] = _WHITE
        positions[plane.name] = at
        images[plane.name] = image if plane.rows < plane.columns else image.swapaxes(0, 1)
        (labels[plane.name],) = label_planes(annotation, plane, [at], resolution, space)
    chart = volumes_chart(region_volumes(annotation, terminology), terminology)
    body = draw_three_planes(
        title, subtitle, space, positions, images, resolution, labels, terminology, chart, foot, path.suffix.lower()
    )
    write_whole(path, body)
