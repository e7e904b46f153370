"""A page with three planes through a registered volume, the borders of its regions, and the largest regions as bars."""

from __future__ import annotations

from collections.abc import Mapping

from ..allen.images import Pixels
from ..geometry.plane import PLANES
from ..geometry.spaces import ReferenceSpace
from ..terminology.terminology import Terminology
from .annotation_borders import LabelPlane
from .draw import PLANE_NAMES
from .paper import GREY, Paper, print_page
from .region_bars import BarChart, draw_chart
from .section_edges import LETTERS
from .section_panel import draw_scale, draw_section, draw_sides

#: The width of the page, its margin, and the space around a panel for the names of its sides and for its title, in
#: inches. At the width of a README, 800 px, text of 8 points is 11 px high.
_WIDTH, _EDGE, _SIDES, _TITLE = 8.0, 0.12, 0.2, 0.3
_PAGE_TITLE, _FOOT = 0.62, 0.36
#: The length of the scale bar, in um.
_SCALE = 2000


def draw_three_planes(
    title: str,
    subtitle: str,
    space: ReferenceSpace,
    positions: Mapping[str, float],
    images: Mapping[str, Pixels],
    resolution: float,
    labels: Mapping[str, LabelPlane | None],
    terminology: Terminology,
    chart: BarChart,
    foot: str,
    suffix: str,
) -> bytes:
    """Draw a coronal, a sagittal and a horizontal plane in the same scale, and a bar chart.

    Parameters
    ----------
    title, subtitle : str
    space : ReferenceSpace
        The space of the volume; each panel is as large as the space.
    positions : mapping of str to float
        The position of each plane of `atlaszarr.geometry.plane.PLANES` along the axis across it, in um.
    images : mapping of str to (ndarray, uint8, shape (rows, columns, 3))
        The plane through the volume by its name, from the corner of the space.
    resolution : float
        Pixel size of the images, in um.
    labels : mapping of str to LabelPlane or None
        The plane through the annotation by its name.
    terminology : Terminology
        Its acronyms are written into the regions.
    chart : BarChart
    foot : str
        A line at the foot of the page, such as a citation.
    suffix : str
        One of `atlaszarr.previews.paper.FORMATS`.

    Returns
    -------
    bytes
        The file.
    """
    p, i, r = space.extent
    inch = (_WIDTH - 2 * _EDGE - 2 * _SIDES - 0.25) / (r + p)  # per um
    second = _EDGE + _SIDES + r * inch + 0.25 + _SIDES
    upper = _PAGE_TITLE + _TITLE
    lower = upper + i * inch + _SIDES + _TITLE + 0.1
    boxes = {
        "coronal": (_EDGE + _SIDES, upper, r * inch, i * inch),
        "sagittal": (second, upper, p * inch, i * inch),
        "transverse": (_EDGE + _SIDES, lower, r * inch, p * inch),
    }
    height = lower + p * inch + _SIDES + _FOOT

    def draw(paper: Paper) -> None:
        paper.text(_EDGE, 0.12, title, size=14)
        paper.text(_EDGE, 0.4, subtitle, size=7, color=GREY)
        for name, box in boxes.items():
            plane = PLANES[name]
            left, top, width, _ = box
            extent = space.extent[plane.columns], space.extent[plane.rows]
            at = f"{LETTERS[plane.fixed]} {positions[name] / 1000:.2f} mm"
            paper.text(left, top - 0.05, PLANE_NAMES[name].capitalize(), size=10, weight="bold", va="bottom")
            paper.text(left + width, top - 0.05, at, size=8, color=GREY, ha="right", va="bottom")
            draw_section(paper, box, extent, images[name], resolution, labels[name], terminology)
            draw_sides(paper, box, plane, 8.0)
        draw_scale(paper, second + p * inch, lower - _TITLE - 0.03, _SCALE * inch, f"{_SCALE // 1000} mm")
        paper.text(second, lower - 0.05, chart.title, size=10, weight="bold", va="bottom")
        draw_chart(paper, (second, lower, p * inch, p * inch), chart, 7.5)
        for k, line in enumerate((*chart.notes, foot)):
            paper.text(_EDGE, height - 0.1 - 0.13 * (len(chart.notes) - k), line, size=6, color=GREY, va="bottom")

    return print_page(_WIDTH, height, draw, suffix, {"Title": title, "Source": foot})
