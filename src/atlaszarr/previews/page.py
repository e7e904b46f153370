"""The page of a preview: edges from four sides, the strip of section numbers, and the contact sheet below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..allen.records import SectionDataset
from ..credit import CREDIT
from ..geometry.plane import Plane
from ..geometry.spaces import ReferenceSpace
from .annotation_borders import LabelPlane
from .contact_sheet import ContactSheet
from .four_views import BOUNDARY, FourViews
from .paper import Paper, print_page
from .section_colours import STRIP_HEIGHT, draw_strip, section_colours
from .section_edges import corners_in_space, edges_of
from .thumbnails import Thumbnail

#: Inches.
_WIDTH = 14.0
_EDGE = 0.35
_TITLE = 0.5
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
            top += _TITLE
            views.draw(paper, _EDGE, top)
            top += views.height
            draw_strip(paper, _EDGE, top, width, self.dataset)
            top += STRIP_HEIGHT
            paper.text(_EDGE, top, self._heading, size=10)
            sheet.draw_scale(paper, _WIDTH - _EDGE, top)
            sheet.draw(paper, _EDGE, top + _HEADING)
            paper.text(_EDGE, paper.height - 0.15, CREDIT["citation"], size=6, color="#666666", va="bottom")

        height = _EDGE + _TITLE + views.height + STRIP_HEIGHT + _HEADING + sheet.height + _FOOT
        metadata = {"Title": self._title, "Source": CREDIT["citation"], "Rights": CREDIT["terms"]}
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
