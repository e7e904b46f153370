"""A sheet of registered thumbnails in rows, each with its number and its place, and borders of an atlas over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..geometry.plane import Plane
from ..geometry.spaces import AXES, ReferenceSpace
from .annotation_borders import LabelPlane, border_lines
from .paper import Paper
from .thumbnails import Thumbnail

#: Inches between thumbnails, and above each for its caption.
_GAP = 0.1
_CAPTION = 0.2
#: Thumbnails beside each other.
_FEWEST, _MOST = 4, 12
#: Dark lines for light tissue, on light ones for dark tissue.
_BORDER: tuple[dict[str, Any], ...] = (
    {"edgecolor": "white", "linewidth": 0.8, "alpha": 0.7},
    {"edgecolor": "black", "linewidth": 0.3},
)


@dataclass(frozen=True, eq=False)
class ContactSheet:
    """Thumbnails in the order of their depth.

    Attributes
    ----------
    thumbnails : sequence of Thumbnail
    labels : sequence of LabelPlane or None
        For each.
    plane : Plane
    space : ReferenceSpace
    resolution : float
        Size of a thumbnail's pixel, in um.
    width : float
        In inches.
    """

    thumbnails: Sequence[Thumbnail]
    labels: Sequence[LabelPlane | None]
    plane: Plane
    space: ReferenceSpace
    resolution: float
    width: float

    @property
    def height(self) -> float:
        """In inches."""
        return math.ceil(len(self.thumbnails) / self._columns) * (self._size[1] + _CAPTION + _GAP)

    def draw(self, paper: Paper, left: float, top: float) -> None:
        """Draw the sheet from a place on, given in inches."""
        width, height = self._size
        for position, (thumbnail, labels) in enumerate(zip(self.thumbnails, self.labels, strict=True)):
            row, column = divmod(position, self._columns)
            at = (left + column * (width + _GAP), top + row * (height + _CAPTION + _GAP))
            self._draw_thumbnail(paper, at, thumbnail, labels)

    def draw_scale(self, paper: Paper, right: float, top: float) -> None:
        """Draw a bar of a round length to the left of a place."""
        length = 5 if max(self.space.extent) > 8000 else 1
        width = 1000 * length * self._size[0] / self.space.extent[self.plane.columns]
        bar = paper.axes(right - width, top, width, 0.16, xlim=(0, 1), ylim=(0, 1))
        bar.set_axis_off()
        bar.plot([0, 1], [0.5, 0.5], color="black", linewidth=2, solid_capstyle="butt")
        paper.text(right - width - 0.08, top, f"{length} mm", size=8, ha="right")

    @property
    def _columns(self) -> int:
        # Nearly as many rows as fill a page that is not much higher than wide.
        return min(max(_FEWEST, math.ceil(math.sqrt(1.6 * len(self.thumbnails)))), _MOST)

    @property
    def _size(self) -> tuple[float, float]:
        width = (self.width - (self._columns - 1) * _GAP) / self._columns
        return width, width * self.space.extent[self.plane.rows] / self.space.extent[self.plane.columns]

    def _draw_thumbnail(
        self, paper: Paper, at: tuple[float, float], thumbnail: Thumbnail, labels: LabelPlane | None
    ) -> None:
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        (left, top), (width, height) = at, self._size
        wide, high = (self.space.extent[axis] for axis in (self.plane.columns, self.plane.rows))
        place = f"{AXES[self.plane.fixed]} {thumbnail.coordinate / 1000:.2f} mm"
        paper.text(left, top + _CAPTION - 0.03, str(thumbnail.section.section_number), weight="bold", va="bottom")
        paper.text(left + width, top + _CAPTION - 0.03, place, va="bottom", ha="right", color="#666666", size=7)
        axes = paper.axes(left, top + _CAPTION, width, height, xticks=[], yticks=[])
        axes.spines[:].set(color="#bbbbbb", linewidth=0.5)
        if thumbnail.image is None:
            axes.plot([0, wide, np.nan, 0, wide], [0, high, np.nan, high, 0], color="#c0392b", linewidth=0.8)
            words: dict[str, Any] = {"ha": "center", "va": "center", "size": 7, "color": "#c0392b"}
            axes.text(wide / 2, high / 2, "image not to be had", bbox={"facecolor": "white", "lw": 0}, **words)
        else:
            rows, columns = thumbnail.image.shape[:2]
            axes.imshow(thumbnail.image, extent=(0, columns * self.resolution, rows * self.resolution, 0))
        axes.set(xlim=(0, wide), ylim=(high, 0), aspect="auto")
        if labels is not None and (lines := border_lines(labels)).size:
            path = Path(lines.reshape(-1, 2), np.tile([Path.MOVETO, Path.LINETO], len(lines)))
            for line in _BORDER:
                axes.add_artist(PathPatch(path, fill=False, capstyle="round", snap=False, **line))
