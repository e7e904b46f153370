"""How a page begins: its planes, its position and its zoom, as the state of neuroglancer has them in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION, direction
from .images import ViewedImage
from .layers import dimension

#: Pixels of a panel that are surely seen: width and height of a quarter of a small window.
_PANEL = (640, 420)
#: The part of the space around an image in 3-D.
_AROUND = 1.4
#: The axes of the page, in the order of its colours red, green, blue. In this order right, posterior and inferior are
#: a right-handed frame; x, y, z are a left-handed one, and a 3-D view of them would exchange left and right.
_SHOWN = ["x", "z", "y"]
#: Rotations (quaternions) of a panel in that frame: coronal seen from behind, horizontal from above, sagittal from the
#: left, so that superior is up, or anterior, and left is on the left, or anterior. By the axis across the plane.
_PLANES = {"z": [0.5**0.5, 0.0, 0.0, 0.5**0.5], "y": [0.0, 0.0, 0.0, 1.0], "x": [0.5, 0.5, 0.5, 0.5]}
#: In 3-D: from the front, the left and above.
_IN_SPACE = [0.174492, 0.459642, 0.814105, 0.309055]
#: The directions of z, y and x for which the planes have these names; `BRAINGLOBE_SIDES` names the same frame.
_DIRECTIONS = [{ORIENTATION["z"], ""}, {ORIENTATION["y"], ""}, {ORIENTATION["x"], BRAINGLOBE_SIDES, ""}]


@dataclass(frozen=True)
class Focus:
    """Where a page begins: a point, and the corners of a box that is seen whole, along (z, y, x) in one unit."""

    point: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def whole(images: Sequence[ViewedImage]) -> Focus:
    """The centre of a voxel in the middle of images, of several that of the middle one, and the box around them."""
    lows, highs = zip(*(image.box for image in images), strict=True)
    middle = images[len(images) // 2]
    point = np.array(middle.geometry.translation) + middle.geometry.scale * (np.array(middle.shapes[0]) // 2)
    return Focus(point, np.min(lows, axis=0), np.max(highs, axis=0))


def across(sections: Sequence[ViewedImage]) -> int:
    """The axis among (z, y, x) across sections: that along which each is one voxel, and they lie apart."""
    shape = sections[0].shapes[0]
    spread = np.ptp([image.geometry.translation for image in sections], axis=0)
    return max(range(3), key=lambda k: (shape[k] == 1, spread[k]))


def page(
    layers: list[dict[str, Any]],
    images: Sequence[ViewedImage],
    focus: Focus,
    *,
    is_collection: bool = False,
    has_meshes: bool = False,
) -> dict[str, Any]:
    """The state of a page.

    Parameters
    ----------
    layers : list
    images : sequence of ViewedImage
        The images in it, or the sections of a collection in order.
    focus : Focus
    is_collection : bool
        Whether to show the plane of section alone.
    has_meshes : bool
        Whether to show a 3-D view of meshes.
    """
    base, sizes = images[0], list(images[0].geometry.scale)
    z, y, x = focus.high - focus.low
    width, height = _PANEL
    zoom = max(x / width, z / width, y / height, z / height)
    layout: dict[str, Any]
    if is_collection:
        axis = across(images)
        zoom = max(*((x / width, y / height), (x / width, z / height), (z / width, y / height))[axis]) / 2
        layout = {"layout": "xy", "crossSectionOrientation": _PLANES["zyx"[axis]]}
        if len(images) > 1:  # a turn of the wheel leads to the next section
            steps = np.diff([image.geometry.translation[axis] for image in images])
            sizes[axis] = float(np.median(steps[steps > 0])) if (steps > 0).any() else sizes[axis]
    else:
        names = [layer["name"] for layer in layers]
        layout = {"layout": _panels(names, has_meshes) if _is_anatomical(base) else "4panel"}
    smallest = min(sizes)
    around = whole(images)
    state: dict[str, Any] = {
        "dimensions": {name: dimension(sizes["zyx".index(name)], base.unit) for name in "xyz"},
        "position": [float(focus.point[k] / sizes[k]) for k in (2, 1, 0)],
        "crossSectionScale": float(zoom / smallest),
        "projectionScale": float(np.linalg.norm(around.high - around.low) * _AROUND / smallest),
        "layers": layers,
        "showSlices": not has_meshes,
        "showDefaultAnnotations": not is_collection,  # else a box around each section
        "crossSectionBackgroundColor": "#000000",
        "projectionBackgroundColor": "#000000",
        **layout,
    }
    if _is_anatomical(base):
        state |= {"displayDimensions": _SHOWN, "projectionOrientation": _IN_SPACE}
    else:
        state.pop("crossSectionOrientation", None)
        if is_collection:
            state["layout"] = ("xy", "xz", "yz")[across(images)]
    return state


def _is_anatomical(image: ViewedImage) -> bool:
    """Whether z, y and x run to posterior, inferior and right, as far as their directions are known."""
    words = [direction(image.geometry.orientation.get(axis, "")) for axis in "zyx"]
    return all(word in known for word, known in zip(words, _DIRECTIONS, strict=True))


def _panels(names: list[str], has_meshes: bool) -> dict[str, Any]:
    """The layout of the coronal, horizontal and sagittal plane, and of a 3-D view if there are meshes."""
    coronal, horizontal, sagittal = (
        {
            "type": "viewer",
            "layers": names,
            "layout": "xy",
            "crossSectionOrientation": {"link": "unlinked", "value": _PLANES[axis]},
        }
        for axis in "zyx"
    )
    in_space = [{"type": "viewer", "layers": names, "layout": "3d"}] if has_meshes else []
    rows = [[coronal, horizontal], [sagittal, *in_space]]
    return {"type": "column", "children": [{"type": "row", "children": row} for row in rows]}
