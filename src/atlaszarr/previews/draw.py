"""The edges of the sections seen from four sides, each in the orientation that a section seen so is shown in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import credit
from ..allen.records import SectionDataset
from ..geometry.plane import PLANES, Plane
from ..geometry.spaces import AXES, ReferenceSpace
from .annotation_borders import LabelPlane, border_lines
from .paper import Paper, print_page
from .section_edges import ENDS, Edges, corners_in_space, edges_of
from .thumbnails import Thumbnail

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


Colour = tuple[float, float, float, float]
#: Inches.
STRIP_HEIGHT = 0.75
_BAR = 0.16
_MOST_TICKS = 20
#: The end of the colour map, which is too pale for lines on white.
_PALE = 0.9


def section_colours(numbers: Sequence[int]) -> list[Colour]:
    """One colour a section, dark at the lowest number and light at the highest: RGBA, 0 to 1."""
    from matplotlib import colormaps

    first, span = min(numbers), max(max(numbers) - min(numbers), 1)
    return [colormaps["viridis"](_PALE * (number - first) / span) for number in numbers]


def draw_strip(paper: Paper, left: float, top: float, width: float, dataset: SectionDataset) -> None:
    """A bar of section numbers in their colours, with gaps where the dataset lacks a section."""
    numbers = [section.section_number for section in dataset.sections]
    step = round(dataset.nominal_interval / dataset.section_thickness)
    axes = paper.axes(left, top, width, _BAR)
    half = step / 2
    axes.bar(numbers, 1.0, width=step, color=section_colours(numbers), edgecolor="white", linewidth=0.5)
    if missing := dataset.missing_numbers:
        axes.bar(missing, 1.0, width=step, color="none", edgecolor="#aaaaaa", linewidth=0.0, hatch="//////")
    axes.set_xlim(min(numbers) - half, max(numbers) + half)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_xticks(numbers[:: -(-len(numbers) // _MOST_TICKS)])
    axes.tick_params(length=2, pad=2)
    lacking = f"; missing of the regular sampling (hatched): {_listed(missing)}" if missing else ""
    sampled = "sections" if step == 1 else f"every {_ordinal(step)} section"
    axes.set_xlabel(f"section number, {sampled} of {dataset.section_thickness:g} µm{lacking}")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _listed(numbers: Sequence[int], most: int = 12) -> str:
    words = [str(number) for number in numbers[:most]]
    return ", ".join(words) + (f" and {len(numbers) - most} more" if len(numbers) > most else "")


def _ordinal(step: int) -> str:
    ending = "th" if step % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(step % 10, "th")
    return f"{step}{ending}"


#: Inches.
_WIDTH = 14.0
_EDGE = 0.35
_PAGE_TITLE = 0.5
_HEADING = 0.22
_FOOT = 0.3
_ORIENTATIONS = {
    "coronal": "superior up, left hemisphere left",
    "sagittal": "superior up, anterior left",
    "transverse": "anterior up, left hemisphere left",
}


@dataclass(frozen=True, eq=False)
class Page:
    """All that a preview shows.

    Attributes
    ----------
    dataset : SectionDataset
    plane : Plane
    space : ReferenceSpace
    mirror : bool
        Whether left lies on right.
    resolution : float
        Size of a thumbnail's pixel, in um.
    view : str
        Of the thumbnails.
    thumbnails : sequence of Thumbnail
    labels : sequence of LabelPlane or None
        For each.
    annotation : str or None
        What the labels are from.
    """

    dataset: SectionDataset
    plane: Plane
    space: ReferenceSpace
    mirror: bool
    resolution: float
    view: str
    thumbnails: Sequence[Thumbnail]
    labels: Sequence[LabelPlane | None]
    annotation: str | None

    def printed(self, suffix: str) -> bytes:
        """The page as a file; see `atlaszarr.previews.paper.print_page`."""
        width = _WIDTH - 2 * _EDGE
        colours = section_colours([section.section_number for section in self.dataset.sections])
        views = FourViews(edges_of(corners_in_space(self.dataset, self.mirror), self.plane), colours, self.space, width)
        sheet = ContactSheet(self.thumbnails, self.labels, self.plane, self.space, self.resolution, width)

        def draw(paper: Paper) -> None:
            top = _EDGE
            paper.text(_EDGE, top, self._title, size=15)
            key = paper.axes(_WIDTH - _EDGE - 2.9, top, 0.35, 0.2, xlim=(0, 1), ylim=(0, 1))
            key.set_axis_off()
            key.plot([0, 1], [0.5, 0.5], **BOUNDARY)
            paper.text(_WIDTH - _EDGE, top + 0.1, "boundary of the reference space", size=10, ha="right", va="center")
            top += _PAGE_TITLE
            views.draw(paper, _EDGE, top)
            top += views.height
            draw_strip(paper, _EDGE, top, width, self.dataset)
            top += STRIP_HEIGHT
            paper.text(_EDGE, top, self._heading, size=10)
            sheet.draw_scale(paper, _WIDTH - _EDGE, top)
            sheet.draw(paper, _EDGE, top + _HEADING)
            paper.text(_EDGE, paper.height - 0.15, credit.SECTIONS["citation"], size=6, color="#666666", va="bottom")

        height = _EDGE + _PAGE_TITLE + views.height + STRIP_HEIGHT + _HEADING + sheet.height + _FOOT
        metadata = {"Title": self._title, "Source": credit.SECTIONS["citation"], "Rights": credit.SECTIONS["terms"]}
        return print_page(_WIDTH, height, draw, suffix, metadata)

    @property
    def _title(self) -> str:
        space = f"reference space {self.space.id}, {self.space.name}{', mirrored left to right' * self.mirror}"
        words = (f"Section dataset {self.dataset.id}", ", ".join(self.dataset.genes), self.plane.name, space)
        return "  |  ".join(word for word in words if word)

    @property
    def _heading(self) -> str:
        borders = "" if self.annotation is None else f"; lines: borders of {_last(self.annotation)} there"
        view = "" if self.view == "primary" else f" ({self.view} view)"
        return f"Registered sections{view}, {_ORIENTATIONS[self.plane.name]}, with number and slice coordinate{borders}"


def _last(place: str) -> str:
    return place.rstrip("/").rpartition("/")[2]
