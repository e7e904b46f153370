"""A table of region volumes or of region statistics as text, CSV, JSON and Parquet."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError, brief, printable
from ..terminology.terminology import Structure, Terminology

if TYPE_CHECKING:
    import pandas as pd

#: Characters of a name that are printed on a terminal of any width.
_SHORTEST_NAME = 12


@dataclass(frozen=True)
class Selection:
    """Which rows of a table are wanted, and in which order.

    Attributes
    ----------
    regions : tuple of Structure
        These in their order, or those within them if `depth` or `leaves` is given; empty for all.
    depth : int or None
        Structures at this depth of the tree; that of a root is 0.
    leaves : bool
        Structures with voxels, of whose parts none has voxels.
    sort : str or None
        Column by which the rows are sorted, the largest first, or a text from A to Z; the words of the printed table
        are taken too: ``mm3``, a channel, and ``covered`` for the part that is covered.
    top : int or None
        The most rows, of those that are sorted.

    Raises
    ------
    InputError
        If `depth` or `top` is out of range, or `top` is given without `sort`.
    """

    regions: tuple[Structure, ...] = ()
    depth: int | None = None
    leaves: bool = False
    sort: str | None = None
    top: int | None = None

    def __post_init__(self) -> None:
        if self.depth is not None and self.depth < 0:
            raise InputError(f"depth {self.depth} must be at least 0, the depth of the root", code="out-of-range")
        if self.top is not None and self.top < 1:
            raise InputError(f"top {self.top} must be at least 1", code="out-of-range")
        if self.top is not None and self.sort is None:
            raise InputError(f"--top {self.top} needs an order; give --sort COLUMN too", code="missing-option")

    @property
    def is_tree(self) -> bool:
        """Whether parts follow the structure that they belong to."""
        return self.sort is None and self.depth is None and not self.leaves

    def of(self, table: pd.DataFrame, terminology: Terminology) -> pd.DataFrame:
        """The rows of a table of `atlaszarr.region_volumes` or `atlaszarr.region_statistics` with a terminology.

        Raises
        ------
        InputError
            If there is no column `sort`.
        """
        import pandas as pd

        regions = self.regions
        if self.depth is not None or self.leaves:
            regions = tuple(part for region in regions for part in terminology if region.id in part.path)
        if regions:
            table = table.loc[list(dict.fromkeys(region.id for region in regions))]
        if self.depth is not None:
            deep = {one.id for one in terminology if len(one.path) == self.depth + 1}
            table = table[table.index.isin(deep)]
        if self.leaves:
            occurring = set(table.index[table["voxels"] > 0])
            parents = {one.parent_id for one in terminology if one.id in occurring}
            table = table[table.index.isin(occurring - parents)]
        if self.sort is not None:
            values = _values(table, self.sort)
            is_text = not pd.api.types.is_numeric_dtype(values)
            order = values.sort_values(ascending=is_text, kind="stable", na_position="last").index
            table = table.loc[order[: self.top]]
        return table

    def bars(self, tables: Sequence[pd.DataFrame], terminology: Terminology) -> list[Structure]:
        """The structures of a chart of selected tables; empty, for its own choice, if all are selected."""
        if self.is_tree:
            return list(self.regions)
        wanted = {id for table in tables for id in table.index}
        return [structure for structure in terminology if structure.id in wanted]


def _values(table: pd.DataFrame, name: str) -> pd.Series:
    """The values of a column, which may be named as in the printed table."""
    if name == "covered" and name in table:
        return table["covered"] / table["voxels"]
    column = next((column for column in (name, f"mean_{name}", f"volume_{name}") if column in table), None)
    if column is None:
        columns = ", ".join(str(column) for column in table if "_direct" not in str(column))
        raise InputError(f"there is no column {brief(name)} to sort by; choose from {columns}", code="unknown-column")
    return table[column]


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


def tree(table: pd.DataFrame, terminology: Terminology, width: int | None = None, *, is_indented: bool = True) -> str:
    """A printed table of the structures with voxels, indented by depth, and of the labels without a structure.

    Parameters
    ----------
    table : DataFrame
        From `atlaszarr.region_volumes` with the same terminology.
    terminology : Terminology
    width : int, optional
        Characters per line; longer names are cut, to 12 characters at least. Default: no limit.
    is_indented : bool
        Whether the rows are in the order of the tree.
    """
    volumes = ["volume_mm3", "volume_direct_mm3"]
    heads = ["mm3", "alone"]
    if "hemispheres" in table.attrs:
        volumes += [f"volume_{side}_mm3" for side in table.attrs["sides"]]
        heads += table.attrs["sides"]
    rows = table[table["voxels"] > 0]
    columns = [map(digits, rows[volume]) for volume in volumes]
    labels = _labels(rows, terminology) if is_indented else rows["acronym"]
    printed = _printed(zip(labels, rows["name"], *columns, strict=True), heads, width)
    return "\n".join([*printed, *_notes(table, len(rows))])


def statistics_tree(
    table: pd.DataFrame, terminology: Terminology, width: int | None = None, *, is_indented: bool = True
) -> str:
    """A printed table of what a volume shows in the structures with voxels, with their descendants.

    The columns are the volume, the part of it that is covered, the means of the channels, and density, intensity and
    energy if they are known. By hemisphere a line for each side follows that of the structure.

    Parameters
    ----------
    table : DataFrame
        From `atlaszarr.region_statistics` with the same terminology.
    terminology, width, is_indented
        Same as in `tree`.
    """
    rows = table[table["voxels"] > 0]
    sides = ["", *(f"_{side}" for side in table.attrs.get("sides", ()))]
    known = [name for name in ("density", "intensity", "energy") if rows[name].notna().any()]
    means = [name for name in _channels(table) if name not in known]
    labels = _labels(rows, terminology) if is_indented else rows["acronym"]
    entries = []
    for label, (_, row) in zip(labels, rows.iterrows(), strict=True):
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
