"""One section in a picture: tissue, thin region borders with acronyms, the names of its sides, and a scale bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..allen.images import Pixels
from ..errors import printable
from ..geometry.plane import Plane
from ..terminology.terminology import Terminology
from .annotation_borders import LabelPlane, border_lines
from .legible_regions import Acronym, legible_regions
from .paper import GREY, Paper, text_width
from .section_edges import ENDS, LETTERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Width of borders, in points: one pixel of a PNG is 0.36.
_BORDER = 0.4
#: Opacity of borders, and the share of tissue that they may hide: where they are dense, they are fainter.
_OPACITY, _FAINTEST, _HIDDEN = 0.6, 0.25, 0.1
#: Grey level of tissue below which borders are light.
_DARK = 110
#: Font of acronyms in panels of 3 inches and more, and in those of 1 inch and less, in points.
_FONT, _SMALL_FONT = 6.5, 4.0
#: Height of a line of text, in sizes of its font.
_LINE = 1.1


def draw_section(
    paper: Paper,
    box: tuple[float, float, float, float],
    extent: tuple[float, float],
    image: Pixels | None,
    resolution: float,
    labels: LabelPlane | None = None,
    terminology: Terminology | None = None,
) -> Axes:
    """Draw a registered section and the borders of its regions, or a cross if its image is missing.

    Parameters
    ----------
    paper : Paper
    box : tuple of float
        Left, top, width and height, in inches.
    extent : tuple of float
        Size of the reference space along the axes of columns and rows, in um: that of the box.
    image : ndarray, uint8, shape (rows, columns, 3), or None
        The section from the corner of the reference space; None if its image is missing.
    resolution : float
        Pixel size of the image, in um.
    labels : LabelPlane, optional
        Labels whose borders are drawn.
    terminology : Terminology, optional
        Its acronyms are written into the regions that are large enough; smaller ones are merged.

    Returns
    -------
    Axes
        In um along both axes.
    """
    wide, high = extent
    axes = paper.axes(*box, xticks=[], yticks=[])
    axes.spines[:].set(color="#bbbbbb", linewidth=0.5)
    if image is None:
        axes.plot([0, wide, np.nan, 0, wide], [0, high, np.nan, high, 0], color="#c0392b", linewidth=0.8)
        words: dict[str, Any] = {"ha": "center", "va": "center", "size": 7, "color": "#c0392b"}
        axes.text(wide / 2, high / 2, "image missing", bbox={"facecolor": "white", "lw": 0}, **words)
    else:
        rows, columns = image.shape[:2]
        axes.imshow(image, extent=(0, columns * resolution, rows * resolution, 0))
    axes.set(xlim=(0, wide), ylim=(high, 0), aspect="auto")
    if labels is not None:
        dark = image is not None and _is_dark(image, resolution, labels)
        _draw_regions(axes, labels, terminology, box[2], wide / (72 * box[2]), "white" if dark else "black")
    return axes


def _is_dark(image: Pixels, resolution: float, labels: LabelPlane) -> bool:
    """Whether the median tissue inside the labels is dark."""
    at = [
        np.clip(((np.arange(n) + 0.5) * size + corner) / resolution, 0, length - 1).astype(int)
        for n, size, corner, length in zip(labels.labels.shape, labels.size, labels.corner, image.shape, strict=False)
    ]
    tissue = image[np.ix_(*at)][labels.labels != 0]
    return bool(tissue.size and np.median(tissue) < _DARK)


def _draw_regions(
    axes: Axes, labels: LabelPlane, terminology: Terminology | None, width: float, point: float, ink: str
) -> None:
    """Draw borders and acronyms on axes of a width in inches; `point` is the size of a point in um."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path
    from matplotlib.patheffects import withStroke

    acronyms: list[Acronym] = []
    inside = labels.labels != 0
    font = float(np.interp(width, (1, 3), (_SMALL_FONT, _FONT)))
    if terminology is not None:
        labels, acronyms = legible_regions(labels, terminology, _measure(font, point))
    lines = border_lines(labels)
    if not len(lines):
        return
    length = np.hypot(*(lines[:, 1] - lines[:, 0]).T).sum()
    hidden = length * _BORDER * point / max(inside.sum() * labels.size[0] * labels.size[1], 1)
    path = Path(lines.reshape(-1, 2), np.tile([Path.MOVETO, Path.LINETO], len(lines)))
    opacity = float(np.clip(_HIDDEN / max(hidden, 1e-9), _FAINTEST, _OPACITY))
    style: dict[str, Any] = {"edgecolor": ink, "linewidth": _BORDER, "alpha": opacity, "capstyle": "butt"}
    axes.add_artist(PathPatch(path, fill=False, snap=False, **style))
    around = [withStroke(linewidth=1.2, foreground="black" if ink == "white" else "white", alpha=0.7)]
    for each in acronyms:
        options: dict[str, Any] = {"size": font, "color": ink, "ha": "center", "va": "center", "path_effects": around}
        axes.text(each.column, each.row, printable(each.structure.acronym), parse_math=False, **options)


def _measure(font: float, point: float) -> Callable[[str], tuple[float, float]]:
    """A function for the width and height of a text, in um."""
    return lambda text: (72 * text_width(text, font) * point, _LINE * font * point)


def draw_sides(
    paper: Paper, box: tuple[float, float, float, float], plane: Plane, size: float = 7.0, *, inside: bool = False
) -> None:
    """Write the names of the four sides of a panel at its edges, such as left, right, superior and inferior.

    Outside, the letters of the axes (AP, DV, ML) stand between them.
    """
    left, top, width, height = box
    words: dict[str, Any] = {"size": size, "color": GREY}
    (first, last), (above, below) = ENDS[plane.columns], ENDS[plane.rows]
    if inside:
        gap = 0.03
        words["bbox"] = {"facecolor": "white", "alpha": 0.6, "linewidth": 0, "pad": 0.6}
        paper.text(left + width / 2, top + gap, above, ha="center", **words)
        paper.text(left + width / 2, top + height - gap, below, ha="center", va="bottom", **words)
        for at, word, side in ((left + gap, first, "left"), (left + width - gap, last, "right")):
            paper.text(at, top + height / 2, word, ha=side, va="center", rotation=90, **words)
        return
    gap = 0.05
    paper.text(left, top + height + gap, first, **words)
    paper.text(left + width, top + height + gap, last, ha="right", **words)
    across, down = (f"\N{LEFTWARDS ARROW} {LETTERS[axis]} \N{RIGHTWARDS ARROW}" for axis in (plane.columns, plane.rows))
    paper.text(left + width / 2, top + height + gap, across, ha="center", **words)
    upright: dict[str, Any] = {"ha": "right", "rotation": 90, **words}
    paper.text(left - gap, top, above, va="top", **upright)
    paper.text(left - gap, top + height, below, va="bottom", **upright)
    paper.text(left - gap, top + height / 2, down, va="center", **upright)


def draw_scale(paper: Paper, right: float, top: float, width: float, length: str) -> None:
    """Draw a scale bar with its length to the left."""
    bar = paper.axes(right - width, top, width, 0.16, xlim=(0, 1), ylim=(0, 1))
    bar.set_axis_off()
    bar.plot([0, 1], [0.5, 0.5], color="black", linewidth=2, solid_capstyle="butt")
    paper.text(right - width - 0.08, top + 0.08, length, size=8, ha="right", va="center")
