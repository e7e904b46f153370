"""A table of region volumes as text, CSV, JSON and parquet."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import printable
from ..terminology.terminology import Structure, Terminology

if TYPE_CHECKING:
    import pandas as pd


def lines(table: pd.DataFrame, regions: Sequence[Structure]) -> str:
    """A line a region: ``Retrosplenial area: 10.50 mm3``.

    Parameters
    ----------
    table : DataFrame
        From `atlaszarr.region_volumes`.
    regions : sequence of Structure
        In the order of the lines.
    """
    shown = []
    for region in regions:
        volumes = table.loc[[region.id]].select_dtypes("float").iloc[0].to_dict()
        line = f"{printable(region.name)}: {digits(volumes['volume_mm3'])} mm3"
        if "hemispheres" in table.attrs:
            sides = (f"{side} {digits(volumes[f'volume_{side}_mm3'])}" for side in table.attrs["sides"])
            line += f" ({', '.join(sides)})"
        shown.append(line)
    return "\n".join([*shown, *_notes(table)])


def tree(table: pd.DataFrame, terminology: Terminology, width: int | None = None) -> str:
    """All structures that hold a voxel, indented by their depth, and labels without a structure.

    Parameters
    ----------
    table : DataFrame
        From `atlaszarr.region_volumes` with the same terminology.
    terminology : Terminology
    width : int, optional
        Characters of a line; longer names are cut. Default: no limit.
    """
    from rich.console import Console
    from rich.table import Table

    volumes = ["volume_mm3", "volume_direct_mm3"]
    heads = ["mm3", "alone"]
    if "hemispheres" in table.attrs:
        volumes += [f"volume_{side}_mm3" for side in table.attrs["sides"]]
        heads += table.attrs["sides"]
    depths = {structure.id: len(structure.path) - 1 for structure in terminology}
    shown = Table(box=None, pad_edge=False, header_style="")
    shown.add_column("region", no_wrap=True)
    shown.add_column("", no_wrap=True)
    for head in heads:
        shown.add_column(head, justify="right", no_wrap=True)
    held = table[table["voxels"] > 0]
    for id, acronym, name, *sizes in zip(
        held.index, held["acronym"], held["name"], *(held[volume] for volume in volumes), strict=True
    ):
        shown.add_row("  " * depths.get(int(id), 0) + printable(acronym), printable(name), *map(digits, sizes))
    out = io.StringIO()
    # Labels and names are data: nothing in them is markup.
    Console(file=out, width=width or 1000, color_system=None, markup=False, emoji=False, highlight=False).print(shown)
    empty = len(table) - len(held)
    rest = [f"not shown, since they hold no voxel: {empty}"] if empty else []
    return "\n".join([*(line.rstrip() for line in out.getvalue().splitlines()), *rest, *_notes(table)])


def digits(volume: float) -> str:
    """Two decimals, or three significant figures where that is more."""
    if volume <= 0 or volume >= 1:
        return f"{volume:.2f}" if volume else "0"
    return f"{volume:.{2 - math.floor(math.log10(volume))}f}"


def to_json(table: pd.DataFrame) -> str:
    """An object of the table's ``attrs`` and a list ``regions`` of its rows."""
    rows = json.loads(table.reset_index().to_json(orient="records", double_precision=15))
    return json.dumps({**table.attrs, "regions": rows})


def to_csv(table: pd.DataFrame) -> str:
    """Comma-separated, under a line of column names."""
    return str(table.to_csv(lineterminator="\n"))


def to_parquet(table: pd.DataFrame) -> bytes:
    """A parquet file; the table's ``attrs`` are in its metadata, where pandas reads them."""
    out = io.BytesIO()
    table.to_parquet(out, engine="pyarrow")
    return out.getvalue()


def _notes(table: pd.DataFrame) -> list[str]:
    return [str(table.attrs["hemispheres"])] if "hemispheres" in table.attrs else []
