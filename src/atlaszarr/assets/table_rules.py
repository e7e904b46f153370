"""The rules for the tables of an asset: terminology.csv, terminology.parquet and parcellation_volumes.csv.

Those for a terminology are stricter than `Terminology.read`, which reads tables of many programs.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..engine.ledger import Defect
from ..errors import InputError, brief
from ..stores.target import Target
from .names import TERMINOLOGY, TERMINOLOGY_PARQUET
from .standard import LARGEST

_COLUMNS = ("identifier", "parent_identifier", "annotation_value", "name", "abbreviation", "color_hex_triplet")
_DESCENDANTS = {"descendant_identifiers": "identifier", "descendant_annotation_values": "annotation_value"}
#: What stands around and between the values of a list in a cell: ``[997, 8]``, ``['MBA:997']``, ``997|8``.
_BETWEEN = re.compile(r"[\[\]\s,;|'\"]+")
#: Rows of a table: ten times those of the largest terminology that is read (`terminology.rows.MOST_STRUCTURES`).
_MOST_ROWS = 1_000_000
#: Columns of a table; that of a terminology has nine.
_MOST_COLUMNS = 1000


def terminology_findings(root: Target, folder: str, entries: Mapping[str, bool]) -> Iterator[Defect]:
    """What is wrong with the tables of a terminology.

    Parameters
    ----------
    root : Target
    folder : str
        Of the terminology, relative to the root.
    entries : mapping of str to bool
        The names in it, see `Target.entries`.
    """
    key = f"{folder}/{TERMINOLOGY}"
    if isinstance(read := _table(root, key), Defect):
        yield read
        return
    names, table = read
    for text in _terminology_faults(table):
        yield Defect("inconsistent", key, text)
    if entries.get(TERMINOLOGY_PARQUET) is False:
        other = f"{folder}/{TERMINOLOGY_PARQUET}"
        if text := _parquet_fault(root, other, names, len(next(iter(table.values()), []))):
            yield Defect("inconsistent", other, text)


def _parquet_fault(root: Target, key: str, names: Sequence[str], rows: int) -> str:
    """In what a table in parquet differs from that in CSV, by its metadata; empty if in nothing."""
    import pyarrow.parquet as pq  # takes a third of a second

    try:
        metadata = pq.read_metadata(io.BytesIO(root.read(key, LARGEST) or b""))
        found = metadata.schema.to_arrow_schema().names
    except (InputError, ValueError, OSError) as error:
        return f"cannot be read as a table: {str(error)[:150]}"
    if found != list(names):
        return f"has the columns {brief(found, 150)}, but {TERMINOLOGY} has {brief(list(names), 150)}"
    return "" if metadata.num_rows == rows else f"has {metadata.num_rows} rows, but {TERMINOLOGY} has {rows}"


def volumes_findings(root: Target, key: str) -> Iterator[Defect]:
    """What is wrong with a parcellation_volumes.csv."""
    if isinstance(read := _table(root, key), Defect):
        yield read
        return
    names, _ = read
    if lacking := [name for name in ("identifier", "voxel_count", "volume_mm3") if name not in names]:
        yield Defect("inconsistent", key, f"lacks the column {', '.join(lacking)}")


def _table(root: Target, key: str) -> tuple[list[str], dict[str, list[str]]] | Defect:
    """The names of the columns of a CSV file, and the cells of each as text; or the defect that it cannot be read."""
    import pandas as pd  # takes half a second

    try:
        body = root.read(key, LARGEST) or b""
        columns = len(next(csv.reader(io.StringIO(body.decode(errors="replace"), newline="")), ()))
        rows = body.count(b"\n")
        if rows > _MOST_ROWS or columns > _MOST_COLUMNS:
            text = f"has {rows} rows and {columns} columns; at most {_MOST_ROWS} and {_MOST_COLUMNS} are read"
            return Defect("metadata", key, text)
        frame = pd.read_csv(io.BytesIO(body), dtype=str, keep_default_na=False)
    except InputError as error:
        return Defect("metadata", key, str(error).removeprefix(f"{root.url}/{key} "))
    except (ValueError, csv.Error) as error:
        return Defect("metadata", key, f"cannot be read as a table: {str(error)[:150]}")
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes the first cells as names of rows
        return Defect("metadata", key, f"has rows of more cells than its {columns} columns")
    names = list(map(str, frame.columns))
    return names, {name: list(map(str, frame[name])) for name in names}


def _terminology_faults(table: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What is wrong with a terminology.csv, by its columns; each rule is named once, with the first value.

    Parameters
    ----------
    table : mapping of str to sequence of str
        The cells of each column; empty text for an empty cell.
    """
    if missing := [name for name in _COLUMNS if name not in table]:
        yield f"lacks the column {', '.join(missing)}"
        return
    identifiers, parents = table["identifier"], [parent.strip() for parent in table["parent_identifier"]]
    values = [value.strip() for value in table["annotation_value"]]
    known = set(identifiers)
    rules = {
        "has a structure without an identifier, row {}": [
            str(row) for row, identifier in enumerate(identifiers, 2) if not identifier.strip()
        ],
        "has the identifier {} more than once": _repeated(identifiers),
        "has the parent_identifier {}, which is not an identifier": [p for p in parents if p and p not in known],
        "has the annotation_value {} more than once": _repeated(filter(None, values)),
        "has the annotation_value {}, which is not a whole number": [
            value for value in values if value and not (value.isascii() and value.isdigit())
        ],
        "has the color_hex_triplet {}, which is not #RRGGBB": [
            colour for colour in table["color_hex_triplet"] if colour and not re.fullmatch("#[0-9A-Fa-f]{6}", colour)
        ],
    }
    for text, wrong in rules.items():
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            yield text.format(brief(wrong[0])) + more
    if len(known) < len(identifiers) or not all(identifier.strip() for identifier in known):
        return
    spans = _spans(identifiers, parents)
    if len(spans) < len(identifiers):
        if not rules["has the parent_identifier {}, which is not an identifier"]:
            lost = next(identifier for identifier in identifiers if identifier not in spans)
            yield f"has parents that form a cycle, with {brief(lost)} in it or below it"
        return
    for column, of in _DESCENDANTS.items():
        if column in table:
            yield from _wrong_descendants(column, table[column], identifiers, spans, table[of])


def _repeated(values: Iterable[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


def _spans(identifiers: Sequence[str], parents: Sequence[str]) -> dict[str, tuple[int, int]]:
    """First and last position of each structure and its descendants, depth first; none of those below a cycle."""
    children: dict[str, list[str]] = {}
    for identifier, parent in zip(identifiers, parents, strict=True):
        children.setdefault(parent, []).append(identifier)
    spans: dict[str, tuple[int, int]] = {}
    firsts: dict[str, int] = {}
    pending = [(root, False) for root in children.get("", ())]
    while pending:
        identifier, is_done = pending.pop()
        if is_done:
            spans[identifier] = firsts[identifier], len(firsts) - 1
            continue
        firsts[identifier] = len(firsts)
        pending.append((identifier, True))
        pending += [(child, False) for child in children.get(identifier, ())]
    return spans


def _wrong_descendants(
    column: str,
    cells: Sequence[str],
    identifiers: Sequence[str],
    spans: Mapping[str, tuple[int, int]],
    values: Sequence[str],
) -> Iterator[str]:
    """The first structure whose list of descendants is not that of the tree.

    By the standard a list leaves out the structure itself; those of the Allen Institute, and its notebooks, include it.
    Both are accepted.
    """
    at = {value: spans[identifier][0] for value, identifier in zip(values, identifiers, strict=True) if value}
    below = [0] * (len(identifiers) + 1)  # how many of the first structures have a value
    for first in at.values():
        below[first + 1] = 1
    for position in range(len(identifiers)):
        below[position + 1] += below[position]
    for identifier, value, cell in zip(identifiers, values, cells, strict=True):
        listed = list(filter(None, _BETWEEN.split(cell)))
        first, last = spans[identifier]
        without_self = {value} if value else set()
        count = below[last + 1] - below[first]
        inside = all(first <= at.get(one, -1) <= last for one in listed)
        is_whole = len({*listed}) == len(listed) and len({*listed} | without_self) == count
        if cell.strip() and not (inside and is_whole):
            yield f"has {column} of {brief(identifier)} that are not its descendants in the tree"
            return
