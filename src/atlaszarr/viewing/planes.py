"""How a page begins: its planes, its position and its zoom, as the state of neuroglancer has them in JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
_UNTURNED = [0.0, 0.0, 0.0, 1.0]  # which neuroglancer leaves out
_PLANES = {"z": [0.5**0.5, 0.0, 0.0, 0.5**0.5], "y": _UNTURNED, "x": [0.5, 0.5, 0.5, 0.5]}
#: In 3-D: from the front, the left and above.
_IN_SPACE = [0.174492, 0.459642, 0.814105, 0.309055]
#: The axes that run across and down a panel, in the order of `_PLANES`.
_RUN = {"z": ("x", "y"), "y": ("x", "z"), "x": ("z", "y")}
_NAMES = {"z": "coronal", "y": "horizontal", "x": "sagittal"}
#: Where a page begins along x, of the width: in the left hemisphere, next to the fissure and the ventricles in the
#: middle, where a sagittal plane shows no cortex; sagittal datasets are of the left hemisphere alone.
_LEFT_OF_MIDLINE = 0.4
#: The directions of z, y and x for which the planes have these names; `BRAINGLOBE_SIDES` names the same frame.
_DIRECTIONS = [{ORIENTATION["z"], ""}, {ORIENTATION["y"], ""}, {ORIENTATION["x"], BRAINGLOBE_SIDES, ""}]


@dataclass(frozen=True)
class Focus:
    """Where a page begins: a point, and the corners of a box that is seen whole, along (z, y, x) in one unit."""

    point: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """A plane on a page whose sides have names.

    Attributes
    ----------
    left, top, width, height : float
        As fractions of the page.
    name : str
    sides : tuple of str
        Left, right, top, bottom.
    """

    left: float
    top: float
    width: float
    height: float
    name: str
    sides: tuple[str, str, str, str]


def panels(state: Mapping[str, Any], ends: Mapping[str, tuple[str, str]]) -> list[Panel]:
    """The planes of a page, unless they are turned or laid out in another way than `page` does.

    Parameters
    ----------
    state : mapping
        Of neuroglancer, in JSON.
    ends : mapping of str to (str, str)
        The names of the low and the high end of each axis, from `ends_of`; empty if they are unknown.
    """
    if not ends or state.get("displayDimensions") != _SHOWN:
        return []
    found = []
    for left, top, width, height, turn in _turns(state):
        near = [axis for axis, plane in _PLANES.items() if len(turn) == 4 and np.allclose(turn, plane, atol=1e-3)]
        for axis in near:
            across, down = (ends[one] for one in _RUN[axis])
            found.append(Panel(left, top, width, height, _NAMES[axis], (*across, *down)))
    return found


def _turns(state: Mapping[str, Any]) -> Iterator[tuple[float, float, float, float, list[float]]]:
    """Left, top, width, height and rotation of the planes of a page."""
    layout = state["layout"]
    if layout == "xy":
        yield 0, 0, 1, 1, state.get("crossSectionOrientation", _UNTURNED)
    if not isinstance(layout, Mapping) or layout.get("type") != "column":
        return
    rows = [row.get("children", [row]) for row in layout["children"]]
    for top, row in enumerate(rows):
        for left, panel in enumerate(row):
            turn = panel.get("crossSectionOrientation", {})
            if panel.get("layout") == "xy" and isinstance(turn, Mapping):
                wide, high = 1 / len(row), 1 / len(rows)
                yield left * wide, top * high, wide, high, turn.get("value", _UNTURNED if turn else [])


def ends_of(image: ViewedImage) -> dict[str, tuple[str, str]]:
    """The names of the low and the high end of each axis of an image; empty unless it gives all three directions."""
    words = [direction(image.geometry.orientation.get(axis, "")) for axis in "zyx"]
    if not all(words) or not _is_anatomical(image):
        return {}
    parts = [word.partition("-to-") for word in words]
    return {axis: (low, high) for axis, (low, _, high) in zip("zyx", parts, strict=True)}


def whole(images: Sequence[ViewedImage]) -> Focus:
    """Where a page of images begins: the centre of a voxel, and the box around them.

    The voxel is in the middle, of several images in that of the middle one; in a volume whose x runs from left to
    right, it is in the left hemisphere.
    """
    lows, highs = zip(*(image.box for image in images), strict=True)
    middle = images[len(images) // 2]
    voxel = np.array(middle.shapes[0]) // 2
    if ends_of(middle) and min(middle.shapes[0]) > 1:
        voxel[2] = int(_LEFT_OF_MIDLINE * middle.shapes[0][2])
    point = np.array(middle.geometry.translation) + middle.geometry.scale * voxel
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
