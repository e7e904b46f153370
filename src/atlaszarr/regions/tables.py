"""A table of region volumes or of region statistics as text, CSV, JSON and Parquet."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import printable
from ..terminology.terminology import Structure, Terminology

if TYPE_CHECKING:
    import pandas as pd

#: Characters of a name that are printed on a terminal of any width.
_SHORTEST_NAME = 12


def lines(table: pd.DataFrame, regions: Sequence[Structure]) -> str:
    """One line for each region: ``Retrosplenial area: 10.50 mm3``.

    Parameters
    ----------
    table : DataFrame
        From `atlaszarr.region_volumes`.
    regions : sequence of Structure
        In the order of the lines.
    """
    text = []
    for region in regions:
        volumes = table.loc[[region.id]].select_dtypes("float").iloc[0].to_dict()
        line = f"{printable(region.name)}: {digits(volumes['volume_mm3'])} mm3"
        if "hemispheres" in table.attrs:
            sides = (f"{side} {digits(volumes[f'volume_{side}_mm3'])}" for side in table.attrs["sides"])
            line += f" ({', '.join(sides)})"
        text.append(line)
    return "\n".join([*text, *_notes(table, len(table))])


def tree(table: pd.DataFrame, terminology: Terminology, width: int | None = None) -> str:
    """A printed table of the structures with voxels, indented by depth, and of the labels without a structure.

    Parameters
    ----------
    table : DataFrame
        From `atlaszarr.region_volumes` with the same terminology.
    terminology : Terminology
    width : int, optional
        Characters per line; longer names are cut, to 12 characters at least. Default: no limit.
    """
    volumes = ["volume_mm3", "volume_direct_mm3"]
    heads = ["mm3", "alone"]
    if "hemispheres" in table.attrs:
        volumes += [f"volume_{side}_mm3" for side in table.attrs["sides"]]
        heads += table.attrs["sides"]
    rows = table[table["voxels"] > 0]
    columns = [map(digits, rows[volume]) for volume in volumes]
    printed = _printed(zip(_labels(rows, terminology), rows["name"], *columns, strict=True), heads, width)
    return "\n".join([*printed, *_notes(table, len(rows))])


def statistics_tree(table: pd.DataFrame, terminology: Terminology, width: int | None = None) -> str:
    """A printed table of what a volume shows in the structures with voxels, with their descendants.

    The columns are the volume, the part of it that is covered, the means of the channels, and density, intensity and
    energy if they are known. By hemisphere a line for each side follows that of the structure.

    Parameters
    ----------
    table : DataFrame
        From `atlaszarr.region_statistics` with the same terminology.
    terminology, width
        Same as in `tree`.
    """
    rows = table[table["voxels"] > 0]
    sides = ["", *(f"_{side}" for side in table.attrs.get("sides", ()))]
    known = [name for name in ("density", "intensity", "energy") if rows[name].notna().any()]
    means = [name for name in _channels(table) if name not in known]
    entries = []
    for label, (_, row) in zip(_labels(rows, terminology), rows.iterrows(), strict=True):
        for side in sides:
            names = ("", f"  {side[1:]}") if side else (label, row["name"])
            voxels = row[f"voxels{side}"]
            entries.append(
                (
                    *names,
                    digits(row[f"volume{side}_mm3"]),
                    f"{100 * row[f'covered{side}'] / voxels:.0f} %" if voxels else "",
                    *(_number(row[f"mean_{name}{side}"]) for name in means),
                    *(_number(row[f"{name}{side}"]) for name in known),
                )
            )
    printed = _printed(entries, ["mm3", "covered", *means, *known], width)
    return "\n".join([*printed, *_notes(table, len(rows))])


def _channels(table: pd.DataFrame) -> list[str]:
    """The channels of a table of `atlaszarr.region_statistics`."""
    sides = tuple(f"_{side}" for side in table.attrs.get("sides", ()))
    names = (str(name).removeprefix("mean_") for name in table.columns if str(name).startswith("mean_"))
    return [name for name in names if not name.endswith(("_direct", *sides))]


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"


def _labels(rows: pd.DataFrame, terminology: Terminology) -> list[str]:
    """The acronyms of structures, indented by depth."""
    depths = {structure.id: len(structure.path) - 1 for structure in terminology}
    return ["  " * depths.get(id, 0) + acronym for id, acronym in zip(rows.index, rows["acronym"], strict=True)]


def _printed(entries: Iterable[Sequence[str]], heads: Sequence[str], width: int | None) -> list[str]:
    """The lines of a table of a label, a name and numbers; names are cut to fit the width, and numbers never are."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    lines = [[printable(text) for text in entry] for entry in entries]
    columns = [max(map(cell_len, column)) for column in zip(["region", "", *heads], *lines, strict=True)]
    gaps = 2 * (len(columns) - 1)
    if width is not None:
        columns[1] = min(columns[1], max(width - gaps - sum(columns) + columns[1], _SHORTEST_NAME))
    printed = Table(box=None, pad_edge=False, header_style="")
    for k, (head, length) in enumerate(zip(["region", "", *heads], columns, strict=True)):
        printed.add_column(head, justify="left" if k < 2 else "right", no_wrap=True, max_width=length)
    for line in lines:
        printed.add_row(*line)
    out = io.StringIO()
    # Names are data, not markup.
    console = Console(
        file=out, width=sum(columns) + gaps, color_system=None, markup=False, emoji=False, highlight=False
    )
    console.print(printed)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def digits(volume: float) -> str:
    """A volume with two decimals, or with three significant digits if it is less than 1."""
    if volume <= 0 or volume >= 1:
        return f"{volume:.2f}" if volume else "0"
    return f"{volume:.{2 - math.floor(math.log10(volume))}f}"


def to_json(table: pd.DataFrame) -> str:
    """A JSON object of the table's ``attrs``, with the list ``regions`` of its rows."""
    rows = json.loads(table.reset_index().to_json(orient="records", double_precision=15))
    return json.dumps({**table.attrs, "regions": rows})


def to_csv(table: pd.DataFrame) -> str:
    """The table as CSV with a header."""
    return str(table.to_csv(lineterminator="\n"))


def to_parcellation_volumes(table: pd.DataFrame) -> str:
    """The volumes of the standard "Atlas Asset Organization" as CSV: ``identifier``, ``voxel_count``, ``volume_mm3``.

    Every structure of the terminology has a row, with its descendants, as in its mask; labels without a structure have
    none.

    Parameters
    ----------
    table : DataFrame
        From `atlaszarr.region_volumes`.
    """
    structures = table[table["acronym"] != ""]
    volumes = structures[["voxels", "volume_mm3"]].rename(columns={"voxels": "voxel_count"})
    return to_csv(volumes)


def to_parquet(table: pd.DataFrame) -> bytes:
    """The table as a Parquet file; pandas reads its ``attrs`` from the file's metadata."""
    out = io.BytesIO()
    if not all(isinstance(id, int) for id in table.index.tolist()):
        table = table.set_axis(table.index.map(str))  # a column of Parquet has one type
    table.to_parquet(out, engine="pyarrow")
    return out.getvalue()


def _notes(table: pd.DataFrame, listed: int) -> list[str]:
    """The lines after a table of which some rows are listed."""
    empty = len(table) - listed
    rest = [f"structures without voxels, not listed: {empty}"] if empty else []
    return [*rest, str(table.attrs["hemispheres"])] if "hemispheres" in table.attrs else rest
