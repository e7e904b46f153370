"""Bar charts of region tables: the largest regions in the colours of their structures."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, printable
from ..stores.local import write_whole
from ..stores.locations import normalize, output_file, overlap, shown
from ..terminology.terminology import Structure, Terminology
from .paper import FORMATS, GREY, INK, Paper, print_page, text_width

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

#: Most bars of a chart: more are not read at a glance.
MOST_BARS = 20
#: Most values of one region side by side: with four, a bar of a page is 2 px high at the width of a README, 800 px.
MOST_SERIES = 4
#: A structure is divided into its children if they hold this share of its volume.
_DIVIDED = 0.9
#: Most characters of a text, which is then cut to its width.
_LONGEST_NAME = 200
#: Most space for acronyms, in inches: that for ``fiber tracts``, the longest of the adult mouse.
_ACRONYMS = 1.0
#: Width of a page, height of the bars of a region, of one further series, and of title, axis and foot, in inches.
_WIDTH, _ROW, _FURTHER, _FRAME = 8.0, 0.24, 0.1, 1.15
#: Most space for acronyms and names, to the left of the bars, in inches and of the width of a chart.
_NAMES, _NAMES_SHARE = 3.3, 0.6
#: Space between an acronym and a name, and after a name, in inches.
_BETWEEN, _AFTER = 0.12, 0.08
#: Height of the axis below the bars, and the largest of a row, in inches.
_AXIS, _THICKEST = 0.4, 0.5
_FONT = 9.0
#: Opacity of the bars of the first, second, third and fourth series.
_SHADES = (1.0, 0.45, 0.75, 0.25)


@dataclass(frozen=True)
class BarChart:
    """Values of structures, the largest first.

    Attributes
    ----------
    title : str
    label : str
        What the values are, with their unit.
    structures : tuple of Structure
        From top to bottom.
    series : mapping of str to tuple of float
        Name, such as a side, and the value of each structure.
    texts : callable
        The text of a value, with its unit.
    notes : tuple of str
        Lines below the bars.
    """

    title: str
    label: str
    structures: tuple[Structure, ...]
    series: Mapping[str, tuple[float, ...]]
    texts: Callable[[float], str]
    notes: tuple[str, ...] = ()


def picture_file(out: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> Path:
    """The path of a picture, for the option ``--picture``.

    Raises
    ------
    InputError
        If it does not end in ``.png`` or ``.svg``, lies in one of the inputs or in a folder that does not exist.
    """
    path = output_file(out, FORMATS)
    for source in inputs:
        if overlap(normalize(source), str(path)):
            raise InputError(
                f"picture {str(path)!r} overlaps the input {shown(source)}; choose another file",
                code="target-overlaps-source",
            )
    return path


def refuse_many_series(volumes: int, by_hemisphere: bool) -> None:
    """Refuse a chart of more than `MOST_SERIES` values for each region.

    Raises
    ------
    InputError
    """
    count = volumes * (2 if by_hemisphere else 1)
    if count > MOST_SERIES:
        what = f"{volumes} volumes{' by hemisphere' * by_hemisphere}"
        raise InputError(
            f"a picture of {what} has {count} bars for each region, and at most {MOST_SERIES} can be told apart; "
            "draw fewer volumes",
            code="too-many-bars",
        )


def divisions(volumes: Mapping[Any, float], terminology: Terminology, most: int = MOST_BARS) -> list[Structure]:
    """The divisions of a brain: structures that do not overlap, as many of the largest as fit.

    The largest structure is replaced with its children, again and again, if these hold 90 % of its volume and are not
    too many. A root is replaced even if they hold less.

    Parameters
    ----------
    volumes : mapping of id to float
        Volume of each structure with its descendants.
    terminology : Terminology
    most : int
        Largest number of structures.

    Returns
    -------
    list of Structure
        The largest first, without structures that have no volume.
    """
    below: dict[Any, list[Structure]] = {}
    for structure in terminology:
        if volumes.get(structure.id, 0) > 0:
            below.setdefault(structure.parent_id, []).append(structure)

    def size(structure: Structure) -> float:
        return volumes[structure.id]

    whole, divided = below.get(None, []), list[Structure]()
    while whole:
        largest = max(whole, key=size)
        whole.remove(largest)
        parts = below.get(largest.id, [])
        fits = len(whole) + len(divided) + len(parts) <= most
        is_root = largest.parent_id is None
        if parts and fits and (is_root or sum(map(size, parts)) >= _DIVIDED * size(largest)):
            whole += parts
        else:
            divided.append(largest)
    return sorted(divided, key=size, reverse=True)[:most]


def volumes_chart(table: pd.DataFrame, terminology: Terminology, wanted: Sequence[Structure] = ()) -> BarChart:
    """The chart of a table of `atlaszarr.region_volumes`.

    Parameters
    ----------
    table : DataFrame
        With the same terminology.
    terminology : Terminology
    wanted : sequence of Structure
        Regions of the bars. Default: the `divisions` of the brain.

    Raises
    ------
    InputError
        If no region has a volume.
    """
    from ..regions.tables import digits

    structures, notes = _chosen(table, terminology, wanted)
    series = _by_side([table], [""], "volume{}_mm3", structures)
    return _ordered("Region volumes", "volume (mm³)", structures, series, lambda value: f"{digits(value)} mm³", notes)


def statistics_chart(
    tables: Sequence[pd.DataFrame], terminology: Terminology, wanted: Sequence[Structure] = ()
) -> BarChart:
    """The chart of tables of `atlaszarr.region_statistics`.

    The values are the energy of a grid of the Allen Institute, or the density of expression of a volume, if they are
    known, else the mean grey level or that of the first channel. The energy of a volume is not drawn: its grey levels
    are not inverted, so that of two regions that express alike the paler one has more.

    Parameters
    ----------
    tables : sequence of DataFrame
        One for each volume, with the same terminology.
    terminology, wanted
        Same as in `volumes_chart`.

    Raises
    ------
    InputError
        If no region has a value.
    """
    title, label, column = _measured(tables)
    names = [f"dataset {name}" if isinstance(name := table.attrs["dataset"], int) else str(name) for table in tables]
    structures, notes = _chosen(tables[0], terminology, wanted)
    if column == "grey":
        tables = [_with_grey(table) for table in tables]
        notes = (*notes, "Dark is low: where expression is dark on light, a small value is a strong signal.")
    series = _by_side(tables, names if len(tables) > 1 else [""], column + "{}", structures)
    heading = title if len(tables) > 1 else f"{title}, {names[0]}"
    return _ordered(heading, label, structures, series, lambda value: f"{value:.3g}", notes)


def _measured(tables: Sequence[pd.DataFrame]) -> tuple[str, str, str]:
    """The title, the axis label and the column of the values."""
    if all("mean_energy" in table and table["energy"].notna().any() for table in tables):
        return "Expression energy", "expression energy (unit of the Allen Institute's grids)", "energy"
    if all("density" in table and table["density"].notna().any() for table in tables):
        return "Density of expression", "part of the covered voxels that express", "density"
    if all("mean_red" in table and "mean_green" in table and "mean_blue" in table for table in tables):
        return "Mean grey level", "mean of red, green and blue (grey levels, 0 to 255)", "grey"
    means = [
        [str(name) for name in table if str(name).startswith("mean_") and not str(name).endswith("_direct")]
        for table in tables
    ]
    column = next((name for name in means[0] if all(name in names for names in means)), None)
    if column is None:
        raise InputError(
            "the volumes have no channel in common to draw; give --picture with one volume at a time",
            code="no-common-channel",
        )
    name = column.removeprefix("mean_")
    if name == "grey":
        return "Mean grey level", "mean grey level", column
    return f"Mean of channel {name}", f"mean of channel {name}", column


def _with_grey(table: pd.DataFrame) -> pd.DataFrame:
    sides = ["", *(f"_{side}" for side in table.attrs.get("sides", ()))]
    greys = {
        f"grey{side}": (table[f"mean_red{side}"] + table[f"mean_green{side}"] + table[f"mean_blue{side}"]) / 3
        for side in sides
    }
    return table.assign(**greys)


def _chosen(
    table: pd.DataFrame, terminology: Terminology, wanted: Sequence[Structure]
) -> tuple[list[Structure], tuple[str, ...]]:
    """The structures of a chart, and a note on them."""
    if wanted:
        return list(wanted), ()
    volumes = dict(zip(table.index.tolist(), table["volume_mm3"].tolist(), strict=True))
    return divisions(volumes, terminology), ("The regions do not overlap; each includes its subregions.",)


def _by_side(
    tables: Sequence[pd.DataFrame], names: Sequence[str], column: str, structures: Sequence[Structure]
) -> dict[str, list[float]]:
    """The values of each table and side by name."""
    ids = [structure.id for structure in structures]
    series = {}
    for position, (table, name) in enumerate(zip(tables, names, strict=True)):
        for side in [f"_{side}" for side in table.attrs.get("sides", ())] or [""]:
            key = ", ".join(word for word in (name, side[1:]) if word)
            key = key if key not in series else f"{key} ({position + 1})"
            series[key] = [float(value) for value in table[column.format(side)].reindex(ids).astype("float64")]
    return series


def _ordered(
    title: str,
    label: str,
    structures: Sequence[Structure],
    series: Mapping[str, Sequence[float]],
    texts: Callable[[float], str],
    notes: tuple[str, ...],
) -> BarChart:
    """A chart of the structures with values, the largest first and at most `MOST_BARS`."""
    finite = [[value for value in values if math.isfinite(value)] for values in zip(*series.values(), strict=True)]
    means = {k: sum(values) / len(values) for k, values in enumerate(finite) if values}
    if not any(means.values()):
        raise InputError(
            f"no region has a value to draw ({label}); give regions that occur, or leave out --picture",
            code="nothing-to-draw",
        )
    order = sorted(means, key=lambda k: -means[k])
    if len(order) > MOST_BARS:
        notes = (f"The largest {MOST_BARS} of {len(order)} regions.", *notes)
    order = order[:MOST_BARS]
    return BarChart(
        title,
        label,
        tuple(structures[k] for k in order),
        {name: tuple(values[k] for k in order) for name, values in series.items()},
        texts,
        notes,
    )


def write_chart(path: Path, chart: BarChart, source: str) -> str:
    """Write a chart as a PNG or SVG, and return a line that says so.

    Parameters
    ----------
    path : Path
        From `picture_file`.
    chart : BarChart
    source : str
        Where the labels come from, for the foot of the page.

    Raises
    ------
    TargetError
        If the file cannot be written.
    """
    rows = len(chart.structures)
    height = _FRAME + 0.15 * len(chart.notes) + rows * (_ROW + _FURTHER * (len(chart.series) - 1))

    def draw(paper: Paper) -> None:
        paper.text(0.15, 0.12, chart.title, size=13)
        draw_chart(paper, (0.15, 0.45, _WIDTH - 0.3, height - _FRAME + 0.25 - 0.15 * len(chart.notes)), chart)
        for k, line in enumerate((*chart.notes, f"Annotation: {source}")):
            top = height - 0.12 - 0.15 * (len(chart.notes) - k)
            paper.text(0.15, top, _fitted(line, 7, _WIDTH - 0.3), size=7, color=GREY, va="bottom")

    write_whole(path, print_page(_WIDTH, height, draw, path.suffix.lower(), {"Title": chart.title}))
    return f"{path}: bars of {rows} region{'s' * (rows != 1)}"


def draw_chart(paper: Paper, box: tuple[float, float, float, float], chart: BarChart, font: float = _FONT) -> None:
    """Draw the bars of a chart with the acronym and the name of each region and its values.

    Parameters
    ----------
    paper : Paper
    box : tuple of float
        Left, top, width and height, in inches, of names, bars, values and axis.
    chart : BarChart
    font : float
        Size of acronyms and values, in points.
    """
    left, top, width, height = box
    height = min(height, _AXIS + _THICKEST * len(chart.structures))
    column, names = _columns(chart.structures, font, min(_NAMES, _NAMES_SHARE * width))
    count = len(chart.series)
    small = font if count == 1 else 0.72 * font
    finite = [value for values in chart.series.values() for value in values if math.isfinite(value)]
    least, largest = min(0.0, *finite), max(0.0, *finite)
    values_width = max(text_width(chart.texts(value), small) for value in finite) + 0.1
    axes = paper.axes(left + names, top, width - names - values_width, height - _AXIS)
    thick = 0.8 / count
    for k, values in enumerate(chart.series.values()):
        for row, (structure, value) in enumerate(zip(chart.structures, values, strict=True)):
            at = row - 0.4 + (k + 0.5) * thick
            words: dict[str, Any] = {"va": "center", "size": small, "color": INK}
            if math.isfinite(value):
                axes.barh(at, value, thick, color=structure.colour, alpha=_SHADES[k], linewidth=0)
                axes.barh(at, value, thick, fill=False, edgecolor="#777777", linewidth=0.4)
            else:
                words["color"] = GREY
            text, end = (chart.texts(value), max(value, 0.0)) if math.isfinite(value) else ("no data", 0.0)
            axes.annotate(text, (end, at), (4, 0), textcoords="offset points", annotation_clip=False, **words)
    axes.set(
        xlim=(1.004 * least, 1.004 * largest), ylim=(len(chart.structures) - 0.5, -0.5), yticks=[], xlabel=chart.label
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=2, pad=2, labelsize=7)
    row_height = (height - _AXIS) / len(chart.structures)
    for row, structure in enumerate(chart.structures):
        _draw_name(paper, (left, top + (row + 0.5) * row_height, names), column, structure, font)
    if count > 1:
        _draw_legend(axes, chart)


def _columns(structures: Sequence[Structure], font: float, most: float) -> tuple[float, float]:
    """The width of the longest acronym to the left of a name, and that of acronyms and names, in inches."""
    named = [one for one in structures if _has_name(one)]
    widths = {one.id: text_width(one.acronym[:_LONGEST_NAME], font, "bold") for one in structures}
    column = min(max((widths[one.id] for one in named), default=0.0), _ACRONYMS)
    names = max((text_width(one.name[:_LONGEST_NAME], 0.9 * font) for one in named), default=0.0)
    alone = max((widths[one.id] for one in structures if not _has_name(one)), default=0.0)
    return column, min(max(column + _BETWEEN + names, alone) + _AFTER, most)


def _has_name(structure: Structure) -> bool:
    return structure.name.casefold() != structure.acronym.casefold()


def _draw_name(paper: Paper, box: tuple[float, float, float], column: float, structure: Structure, font: float) -> None:
    """Write an acronym, and the name to the right of it, after the width of a column, if it differs."""
    left, at, width = box
    is_named = _has_name(structure) and width - column > 0.5
    acronym = _fitted(structure.acronym, font, column if is_named else width - _AFTER, "bold")
    paper.text(left, at, acronym, size=font, weight="bold", va="center")
    if is_named:
        name = _fitted(structure.name, 0.9 * font, width - column - _BETWEEN - _AFTER)
        paper.text(left + column + _BETWEEN, at, name, size=0.9 * font, color=GREY, va="center")


def _fitted(text: str, size: float, width: float, weight: str = "normal") -> str:
    """A text that is cut to a width in inches."""
    cut = text[:_LONGEST_NAME]
    while cut and text_width(shortened := cut if cut == text else f"{cut.rstrip()}…", size, weight) > width:
        cut = cut[:-1]
    return shortened if cut else ""


def _draw_legend(axes: Axes, chart: BarChart) -> None:
    """Name the series above the bars, in their order."""
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor="#555555", alpha=shade, label=printable(name))
        for name, shade in zip(chart.series, _SHADES, strict=False)
    ]
    where: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 2}
    legend = axes.legend(handles=handles, frameon=False, fontsize=8, **where)
    for text in legend.get_texts():
        text.set_parse_math(False)
