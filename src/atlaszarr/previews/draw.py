"""The page of a preview: the edges of the sections from four sides, a bar of section numbers, and thumbnails.

Positions on the page are in inches from its upper left corner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import credit
from ..allen.images import Pixels
from ..allen.records import Section, SectionDataset
from ..geometry.plane import PLANES, Plane
from ..geometry.spaces import ReferenceSpace
from ..terminology.terminology import Terminology
from .annotation_borders import LabelPlane
from .paper import DPI, GREY, Paper, print_page
from .section_edges import ENDS, LETTERS, Edges, corners_in_space, edges_of
from .section_panel import draw_scale, draw_section, draw_sides

Colour = tuple[float, float, float, float]

_WIDTH = 14.0
_EDGE = 0.35
_PAGE_TITLE = 0.68
#: Space for the tick labels and the name of an axis of a view, and for the title above the view.
_LABELS = 0.62
_VIEW_TITLE = 0.3
#: Margin around the content of a view, as a fraction of the longest side.
_MARGIN = 0.03
_STRIP = 0.75
_BAR = 0.16
_MAX_TICKS = 20
_HEADING = 0.22
#: Space between thumbnails, and above each for the caption.
_GAP = 0.1
_CAPTION = 0.2
#: Smallest and largest number of thumbnails in a row.
_MIN_COLUMNS, _MAX_COLUMNS = 4, 12
_FOOT = 0.3

#: Style of the boundary of the reference space.
_BOUNDARY: dict[str, Any] = {"linestyle": ":", "color": "#c0392b", "linewidth": 1.2}
#: End of the used part of the colour map; the rest is too pale for lines on white.
_PALE = 0.9
_EXPLANATION = (
    "Where the sections lie: each line is an edge of a section image in the reference space. AP, DV and ML are its "
    "axes p, i and r, in mm from its anterior, superior and left end."
)
#: The planes in the words of neuroscientists.
PLANE_NAMES = {"coronal": "coronal", "sagittal": "sagittal", "transverse": "horizontal"}


def thumbnail_grid(count: int) -> tuple[int, float]:
    """The number of thumbnails in a row and the width of each, in inches."""
    # So many columns that the page is not much higher than wide.
    columns = min(max(_MIN_COLUMNS, math.ceil(math.sqrt(1.6 * count))), _MAX_COLUMNS)
    return columns, (_WIDTH - 2 * _EDGE - (columns - 1) * _GAP) / columns


def thumbnail_resolution(count: int, plane: Plane, space: ReferenceSpace) -> float:
    """The size of a pixel of a PNG in thumbnails, in um of the reference space."""
    return space.extent[plane.columns] / (thumbnail_grid(count)[1] * DPI)


def draw_page(
    dataset: SectionDataset,
    plane: Plane,
    space: ReferenceSpace,
    *,
    mirror: bool,
    resolution: float,
    view: str,
    sections: Sequence[Section],
    coordinates: Sequence[float],
    images: Sequence[Pixels | None],
    labels: Sequence[LabelPlane | None],
    annotation: str | None,
    terminology: Terminology | None,
    suffix: str,
) -> bytes:
    """Draw a preview.

    Parameters
    ----------
    dataset : SectionDataset
    plane : Plane
        Plane of the thumbnails.
    space : ReferenceSpace
    mirror : bool
        Whether the sections are mirrored left to right.
    resolution : float
        Pixel size of the thumbnails, in um.
    view : str
        View of the thumbnails.
    sections : sequence of Section
        Section of each thumbnail, in order.
    coordinates : sequence of float
        Slice coordinate of each section, in um.
    images : sequence of (ndarray, uint8, shape (rows, columns, 3), or None)
        Thumbnail of each section; None if its image is missing.
    labels : sequence of LabelPlane or None
        Labels over each thumbnail.
    annotation : str or None
        Source of the labels.
    terminology : Terminology or None
        Terminology of the labels: regions get acronyms.
    suffix : str
        One of `atlaszarr.previews.paper.FORMATS`.

    Returns
    -------
    bytes
        The file; see `atlaszarr.previews.paper.print_page`.
    """
    width = _WIDTH - 2 * _EDGE
    edges = edges_of(corners_in_space(dataset, mirror), plane)
    seen_in = [next(across for across in PLANES.values() if across.fixed == side.axis) for side in edges]
    limits = _limits(edges, space)
    spans = limits[1] - limits[0]
    spans *= (width - len(edges) * _LABELS) / sum(spans[across.columns] for across in seen_in)
    views_height = _VIEW_TITLE + max(spans[across.rows] for across in seen_in) + _LABELS

    columns, thumbnail_width = thumbnail_grid(len(images))
    thumbnail_height = thumbnail_width * space.extent[plane.rows] / space.extent[plane.columns]
    row_height = _CAPTION + thumbnail_height + _GAP

    title = _title(dataset, plane, space, mirror)

    def draw(paper: Paper) -> None:
        top = _EDGE
        paper.text(_EDGE, top, title, size=15)
        paper.text(_EDGE, top + 0.34, _EXPLANATION, size=9, color=GREY)
        key = paper.axes(_WIDTH - _EDGE - 2.9, top, 0.35, 0.2, xlim=(0, 1), ylim=(0, 1))
        key.set_axis_off()
        key.plot([0, 1], [0.5, 0.5], **_BOUNDARY)
        paper.text(_WIDTH - _EDGE, top + 0.1, "boundary of the reference space", size=10, ha="right", va="center")
        top += _PAGE_TITLE
        left, colours = _EDGE, _section_colours([section.section_number for section in dataset.sections])
        for side, across in zip(edges, seen_in, strict=True):
            left += _LABELS
            wide, high = float(spans[across.columns]), float(spans[across.rows])
            _draw_edges(paper, (left, top + _VIEW_TITLE, wide, high), side, across, limits, colours, space)
            left += wide
        top += views_height
        _draw_strip(paper, _EDGE, top, width, dataset)
        top += _STRIP
        paper.text(_EDGE, top, _heading(plane, view, annotation), size=10)
        length = 5 if max(space.extent) > 8000 else 1
        draw_scale(
            paper, _WIDTH - _EDGE, top, 1000 * length * thumbnail_width / space.extent[plane.columns], f"{length} mm"
        )
        top += _HEADING
        for position, section in enumerate(sections):
            row, column = divmod(position, columns)
            left, below = _EDGE + column * (thumbnail_width + _GAP), top + row * row_height + _CAPTION
            at = f"{LETTERS[plane.fixed]} {coordinates[position] / 1000:.2f} mm"
            right: dict[str, Any] = {"ha": "right", "color": GREY, "size": 7}
            paper.text(left, below - 0.03, str(section.section_number), weight="bold", va="bottom")
            paper.text(left + thumbnail_width, below - 0.03, at, va="bottom", **right)
            box = (left, below, thumbnail_width, thumbnail_height)
            extent = space.extent[plane.columns], space.extent[plane.rows]
            draw_section(paper, box, extent, images[position], resolution, labels[position], terminology)
            if column == 0:
                draw_sides(paper, box, plane, 5.0, inside=True)
        paper.text(_EDGE, paper.height - 0.15, credit.SECTIONS["citation"], size=6, color=GREY, va="bottom")

    sheet_height = math.ceil(len(images) / columns) * row_height
    height = _EDGE + _PAGE_TITLE + views_height + _STRIP + _HEADING + sheet_height + _FOOT
    metadata = {"Title": title, "Source": credit.SECTIONS["citation"], "Rights": credit.SECTIONS["terms"]}
    return print_page(_WIDTH, height, draw, suffix, metadata)


def _title(dataset: SectionDataset, plane: Plane, space: ReferenceSpace, mirror: bool) -> str:
    frame = f"reference space {space.id}, {space.name}{', mirrored left to right' * mirror}"
    words = (f"Section dataset {dataset.id}", ", ".join(dataset.genes), f"{PLANE_NAMES[plane.name]} sections", frame)
    return "  |  ".join(word for word in words if word)


def _heading(plane: Plane, view: str, annotation: str | None) -> str:
    borders = "" if annotation is None else f"; lines: borders of {annotation.rstrip('/').rpartition('/')[2]}"
    shown = "" if view == "primary" else f" ({view} view)"
    sides = f"{ENDS[plane.rows][0]} is up, {ENDS[plane.columns][0]} is at the left"
    return f"Registered {PLANE_NAMES[plane.name]} sections{shown}, with section number and position: {sides}{borders}"


def _limits(edges: Sequence[Edges], space: ReferenceSpace) -> NDArray[np.float64]:
    """Smallest and largest (p, i, r) in the views, in mm: float64, shape (2, 3)."""
    box = np.array([(0.0, 0.0, 0.0), space.extent])
    points = np.concatenate([each.ends.reshape(-1, 3) for each in edges] + [box]) / 1000
    low, high = points.min(axis=0), points.max(axis=0)
    margin = _MARGIN * (high - low).max()
    return np.stack([low - margin, high + margin])


def _draw_edges(
    paper: Paper,
    box: tuple[float, float, float, float],
    edges: Edges,
    plane: Plane,
    limits: NDArray[np.float64],
    colours: list[Colour],
    space: ReferenceSpace,
) -> None:
    """Draw one edge of each section in a view onto a plane, in the orientation of the plane."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MultipleLocator

    axes = paper.axes(*box)
    (left, right), (top, bottom) = limits[:, plane.columns], limits[:, plane.rows]
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    tick = MultipleLocator(2 if max(space.extent) > 8000 else 1)
    axes.xaxis.set_major_locator(tick)
    axes.yaxis.set_major_locator(tick)
    axes.grid(color="#e8e8e8", linewidth=0.5)
    axes.set_axisbelow(True)
    extent = [length / 1000 for length in space.extent]
    axes.add_patch(Rectangle((0, 0), extent[plane.columns], extent[plane.rows], fill=False, **_BOUNDARY))
    lines = edges.ends[:, :, [plane.columns, plane.rows]] / 1000
    axes.add_collection(LineCollection(list(lines), colors=colours, linewidths=1.2, capstyle="round"))
    x, y = lines.reshape(-1, 2).T
    axes.scatter(x, y, s=4.0, c=np.repeat(colours, 2, axis=0), linewidths=0, zorder=2.5)
    view = PLANE_NAMES[plane.name].capitalize()
    axes.set_title(f"{view} view: {edges.name} edges", fontsize=10, pad=6)
    axes.set_xlabel(_axis_label(plane.columns), labelpad=2)
    axes.set_ylabel(_axis_label(plane.rows, down=True), labelpad=2)
    axes.tick_params(length=2, pad=2, labelsize=7)


def _axis_label(axis: int, *, down: bool = False) -> str:
    """The letters of an axis, in mm, with its ends."""
    low, high = reversed(ENDS[axis]) if down else ENDS[axis]
    return f"{low}  \N{LEFTWARDS ARROW}  {LETTERS[axis]} (mm)  \N{RIGHTWARDS ARROW}  {high}"


def _section_colours(numbers: Sequence[int]) -> list[Colour]:
    """One colour per section, from dark for the lowest number to light for the highest: RGBA, 0 to 1."""
    from matplotlib import colormaps

    first, span = min(numbers), max(max(numbers) - min(numbers), 1)
    return [colormaps["viridis"](_PALE * (number - first) / span) for number in numbers]


def _draw_strip(paper: Paper, left: float, top: float, width: float, dataset: SectionDataset) -> None:
    """Draw a bar of section numbers in the colours of the sections, with missing sections hatched."""
    numbers = [section.section_number for section in dataset.sections]
    step = dataset.step
    axes = paper.axes(left, top, width, _BAR)
    half = step / 2
    axes.bar(numbers, 1.0, width=step, color=_section_colours(numbers), edgecolor="white", linewidth=0.5)
    if missing := dataset.missing_numbers:
        axes.bar(missing, 1.0, width=step, color="none", edgecolor="#aaaaaa", linewidth=0.0, hatch="//////")
    axes.set_xlim(min(numbers) - half, max(numbers) + half)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_xticks(numbers[:: -(-len(numbers) // _MAX_TICKS)])
    axes.tick_params(length=2, pad=2)
    lacking = f"; missing of the regular sampling (hatched): {_listed(missing)}" if missing else ""
    sampled = "sections" if step == 1 else f"every {_ordinal(step)} section"
    axes.set_xlabel(f"section number, {sampled} of {dataset.thickness:g} µm{lacking}")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _listed(numbers: Sequence[int], most: int = 12) -> str:
    words = [str(number) for number in numbers[:most]]
    return ", ".join(words) + (f" and {len(numbers) - most} more" if len(numbers) > most else "")


def _ordinal(step: int) -> str:
    ending = "th" if step % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(step % 10, "th")
    return f"{step}{ending}"
