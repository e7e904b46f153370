"""The picture of a refinement: each section before and after under the borders of the annotation, with its flag."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .. import credit
from ..allen.client import AllenClient
from ..allen.images import MissingImage, Pixels
from ..allen.records import SectionDataset
from ..engine.writer import Progress
from ..geometry.plane import Plane
from ..geometry.spaces import ReferenceSpace
from ..previews.annotation_borders import LabelPlane
from ..previews.draw import PLANE_NAMES
from ..previews.paper import DPI, GREY, Paper, print_page, text_width
from ..previews.section_panel import draw_scale, draw_section, draw_sides
from ..sections.planes import SectionPlanes
from .report import Refinement, SectionRow

_WIDTH, _EDGE = 14.0, 0.35
_TITLE, _HEADING, _CAPTION, _FOOT = 0.34, 0.3, 0.2, 0.3
#: Space between panels of one section, and between sections.
_INNER, _GAP = 0.04, 0.14
#: Smallest width of a panel: narrower ones hide what has moved.
_NARROWEST = 1.6
_RED = "#c0392b"
#: Font of the captions, in points.
_FONT = 7.0


@dataclass(frozen=True)
class Layout:
    """Where the panels lie on the page: sections in rows, each with a panel for every stage, before and after.

    Attributes
    ----------
    stages : tuple of str
    columns, rows : int
        Of sections.
    panel : float
        Width of a panel, in inches.
    resolution : float
        Pixel of a PNG in a panel, in um.
    """

    stages: tuple[str, ...]
    columns: int
    rows: int
    panel: float
    resolution: float

    @classmethod
    def of(cls, count: int, stages: Sequence[str], plane: Plane, space: ReferenceSpace) -> Layout:
        """The layout of a number of sections."""
        width, panels = _WIDTH - 2 * _EDGE, len(stages)
        most = max(1, int((width + _GAP) / (panels * _NARROWEST + _GAP)))
        columns = min(most, max(1, math.ceil(math.sqrt(count / panels))))
        section = (width - (columns - 1) * _GAP) / columns
        panel = (section - (panels - 1) * _INNER) / panels
        resolution = space.extent[plane.columns] / (panel * DPI)
        return cls(tuple(stages), columns, math.ceil(count / columns), panel, resolution)


def thumbnails(
    stages: Sequence[SectionPlanes], ids: Sequence[int], client: AllenClient, progress: Progress | None
) -> list[list[Pixels | None]]:
    """Fetch the image of each section once, and register it at every stage; None if it is missing."""

    def registered(id: int) -> list[Pixels | None]:
        image = client.try_fetch(stages[0].imaged.requests[stages[0].positions[id]])
        if isinstance(image, MissingImage):
            return [None] * len(stages)
        return [planes.register_whole(planes.positions[id], image)[0] for planes in stages]

    found = []
    pool = ThreadPoolExecutor(client.concurrency, "atlaszarr-preview")
    try:
        for done, images in enumerate(pool.map(registered, ids), 1):
            found.append(images)
            if progress is not None:
                progress(done, len(ids), "drawing")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return found


def draw_refinement(
    dataset: SectionDataset,
    report: Refinement,
    layout: Layout,
    plane: Plane,
    space: ReferenceSpace,
    images: Sequence[Sequence[Pixels | None]],
    labels: Sequence[Sequence[LabelPlane | None]],
    annotation: str,
    suffix: str,
) -> bytes:
    """Draw a refinement.

    Parameters
    ----------
    dataset : SectionDataset
    report : Refinement
    layout : Layout
    plane : Plane
    space : ReferenceSpace
    images : sequence of sequence of (ndarray, uint8, shape (rows, columns, 3), or None)
        For each row of the report, the section at each stage.
    labels : sequence of sequence of LabelPlane or None
        The labels under each.
    annotation : str
        Source of the labels.
    suffix : str
        One of `atlaszarr.previews.paper.FORMATS`.

    Returns
    -------
    bytes
        The file; see `atlaszarr.previews.paper.print_page`.
    """
    wide, high = space.extent[plane.columns], space.extent[plane.rows]
    panel_height = layout.panel * high / wide
    section_width = len(layout.stages) * (layout.panel + _INNER) - _INNER
    row_height = _CAPTION + panel_height + _GAP
    names = ", ".join(dataset.genes)
    words = (f"Refinement of section dataset {dataset.id}", names, f"{PLANE_NAMES[plane.name]} sections")
    title = "  |  ".join(word for word in words if word)
    stages = " and ".join(layout.stages)
    heading = f"Each section {stages} refinement under the borders of {annotation.rstrip('/').rpartition('/')[2]}"

    def draw(paper: Paper) -> None:
        paper.text(_EDGE, _EDGE, title, size=15)
        top = _EDGE + _TITLE
        paper.text(_EDGE, top, heading, size=9, color=GREY)
        length = 5 if max(space.extent) > 8000 else 1
        draw_scale(paper, _WIDTH - _EDGE, top, 1000 * length * layout.panel / wide, f"{length} mm")
        top += _HEADING
        for position, row in enumerate(report.sections):
            below, along = divmod(position, layout.columns)
            left, panel_top = _EDGE + along * (section_width + _GAP), top + below * row_height + _CAPTION
            _draw_caption(paper, left, panel_top, section_width, row)
            for stage, (image, plane_labels) in enumerate(zip(images[position], labels[position], strict=True)):
                box = (left + stage * (layout.panel + _INNER), panel_top, layout.panel, panel_height)
                axes = draw_section(paper, box, (wide, high), image, layout.resolution, plane_labels)
                if row.flag:
                    axes.spines[:].set(color=_RED, linewidth=1.2)
                if along == 0 and stage == 0:
                    draw_sides(paper, box, plane, 5.0, inside=True)
        paper.text(_EDGE, paper.height - 0.15, credit.SECTIONS["citation"], size=6, color=GREY, va="bottom")

    height = _EDGE + _TITLE + _HEADING + layout.rows * row_height + _FOOT
    metadata = {"Title": title, "Source": credit.SECTIONS["citation"], "Rights": credit.SECTIONS["terms"]}
    return print_page(_WIDTH, height, draw, suffix, metadata)


def _draw_caption(paper: Paper, left: float, bottom: float, width: float, row: SectionRow) -> None:
    """Write section number, figures and flag above the panels of a section, in a smaller font if they are long."""
    number = str(row.section_number)
    paper.text(left, bottom - 0.03, number, weight="bold", va="bottom")
    words = "image missing"
    added, before, after = row.depth_um, row.unseen_before, row.unseen_after
    if added is not None and before is not None and after is not None:
        words = f"depth {round(added):+d} um, unseen half {before:.2f} to {after:.2f}"
        words += ("" if row.kept else ", as recorded") + (f"  FLAG: {row.flag}" if row.flag else "")
    room = width - text_width(number, 8.0, "bold") - 0.1
    size = min(_FONT, _FONT * room / text_width(words, _FONT))
    colour = _RED if row.flag or added is None else GREY
    paper.text(left + width, bottom - 0.03, words, color=colour, ha="right", va="bottom", size=size)
