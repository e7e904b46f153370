"""The edges of the sections seen from four sides, each in the orientation that a section seen so is shown in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.plane import PLANES, Plane
from ..geometry.spaces import AXES, ReferenceSpace
from .paper import Paper
from .section_colours import Colour
from .section_edges import ENDS, Edges

#: How the boundary of the reference space is drawn.
BOUNDARY: dict[str, Any] = {"linestyle": ":", "color": "#c0392b", "linewidth": 1.2}
#: Inches: for the tick labels and name of an axis, and above a view for its title.
_LABELS = 0.62
_TITLE = 0.3
#: Room around what is shown, as a part of the longest side.
_MARGIN = 0.03


@dataclass(frozen=True, eq=False)
class FourViews:
    """Four views beside each other, to one scale.

    Attributes
    ----------
    edges : tuple of Edges
        Of one kind each.
    colours : list of Colour
        Of the sections.
    space : ReferenceSpace
    width : float
        Of all views with their labels, in inches.
    """

    edges: tuple[Edges, ...]
    colours: list[Colour]
    space: ReferenceSpace
    width: float

    @property
    def height(self) -> float:
        """In inches, with titles and labels."""
        return _TITLE + max(self._length(view.rows) for view in self._views) + _LABELS

    def draw(self, paper: Paper, left: float, top: float) -> None:
        """Draw the views from a place on, given in inches."""
        for edges, view in zip(self.edges, self._views, strict=True):
            left += _LABELS
            width, height = self._length(view.columns), self._length(view.rows)
            self._draw_view(paper, (left, top + _TITLE, width, height), edges, view)
            left += width

    @cached_property
    def _views(self) -> list[Plane]:
        return [next(plane for plane in PLANES.values() if plane.fixed == edges.axis) for edges in self.edges]

    @cached_property
    def _limits(self) -> NDArray[np.float64]:
        """Lowest and highest (p, i, r) that is shown, in mm: shape (2, 3)."""
        points = np.concatenate([edges.ends.reshape(-1, 3) for edges in self.edges] + [_box(self.space)]) / 1000
        low, high = points.min(axis=0), points.max(axis=0)
        margin = _MARGIN * (high - low).max()
        return np.stack([low - margin, high + margin])

    @cached_property
    def _scale(self) -> float:
        """Inches a millimetre."""
        spans = self._limits[1] - self._limits[0]
        room = self.width - len(self.edges) * _LABELS
        return float(room / sum(spans[view.columns] for view in self._views))

    def _length(self, axis: int) -> float:
        return float((self._limits[1] - self._limits[0])[axis] * self._scale)

    def _draw_view(self, paper: Paper, place: tuple[float, float, float, float], edges: Edges, view: Plane) -> None:
        from matplotlib.collections import LineCollection
        from matplotlib.patches import Rectangle
        from matplotlib.ticker import MultipleLocator

        axes = paper.axes(*place)
        (left, right), (top, bottom) = self._limits[:, view.columns], self._limits[:, view.rows]
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        tick = MultipleLocator(2 if max(self.space.extent) > 8000 else 1)
        axes.xaxis.set_major_locator(tick)
        axes.yaxis.set_major_locator(tick)
        axes.grid(color="#e8e8e8", linewidth=0.5)
        axes.set_axisbelow(True)
        extent = [length / 1000 for length in self.space.extent]
        axes.add_patch(Rectangle((0, 0), extent[view.columns], extent[view.rows], fill=False, **BOUNDARY))
        lines = edges.ends[:, :, [view.columns, view.rows]] / 1000
        axes.add_collection(LineCollection(list(lines), colors=self.colours, linewidths=1.2, capstyle="round"))
        x, y = lines.reshape(-1, 2).T
        axes.scatter(x, y, s=4.0, c=np.repeat(self.colours, 2, axis=0), linewidths=0, zorder=2.5)
        axes.set_title(f"{edges.name} edges", fontsize=10, pad=6)
        axes.set_xlabel(axis_label(view.columns), labelpad=2)
        axes.set_ylabel(axis_label(view.rows, down=True), labelpad=2)
        axes.tick_params(length=2, pad=2, labelsize=7)


def axis_label(axis: int, *, down: bool = False) -> str:
    """What an axis is called, in mm, with its ends; r has none, since they are disputed."""
    name = f"{AXES[axis]} (mm)"
    if axis == 2:
        return name
    low, high = reversed(ENDS[axis]) if down else ENDS[axis]
    return f"{low}  \N{LEFTWARDS ARROW}  {name}  \N{RIGHTWARDS ARROW}  {high}"


def _box(space: ReferenceSpace) -> NDArray[np.float64]:
    return np.array([(0.0, 0.0, 0.0), space.extent])
