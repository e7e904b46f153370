"""The rules for the tables of an asset: terminology.csv, terminology.parquet and parcellation_volumes.csv.

Those for a terminology are stricter than `Terminology.read`, which reads tables of many programs.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..engine.ledger import Defect
from ..errors import InputError, TargetError, brief
from ..stores.parquet import ParquetTable, UnreadableTableError
from ..stores.target import Target
from .document_rules import fault_of_reading, first_of
from .names import TERMINOLOGY, TERMINOLOGY_PARQUET
from .standard import LARGEST

_COLUMNS = ("identifier", "parent_identifier", "annotation_value", "name", "abbreviation", "color_hex_triplet")
_VOLUMES = ("identifier", "voxel_count", "volume_mm3")
_DESCENDANTS = {"descendant_identifiers": "identifier", "descendant_annotation_values": "annotation_value"}
#: What stands around and between the values of a list in a cell: ``[997, 8]``, ``['MBA:997']``, ``997|8``.
_BETWEEN = re.compile(r"[\[\]\s,;|'\"]+")
#: Rows of a table: ten times those of the largest terminology that is read (`terminology.rows.MOST_STRUCTURES`).
_MOST_ROWS = 1_000_000
#: Columns of a table; that of a terminology has nine.
_MOST_COLUMNS = 1000
#: The most bytes of a table in parquet, uncompressed: 16 times those of the largest file, as `Terminology.read` takes.
_LARGEST_PARQUET = 2**28
#: Relative difference up to which a fraction in CSV is one in parquet, which may have 32 bits.
_SAME = 1e-6
#: A whole number of 64 bits.
_WHOLE = re.compile(r"-?[0-9]{1,19}")


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
    if isinstance(table := _table(root, key), Defect):
        yield table
        return
    for text in _terminology_faults(table):
        yield Defect("inconsistent", key, text)
    if entries.get(TERMINOLOGY_PARQUET) is False:
        key = f"{folder}/{TERMINOLOGY_PARQUET}"
        try:
            text = _parquet_fault(root.read(key, LARGEST) or b"", table)
        except (InputError, TargetError) as error:
            text = fault_of_reading(root, error, key)
        if text:
            yield Defect("inconsistent", key, text)


def _parquet_fault(body: bytes, table: Mapping[str, Sequence[str]]) -> str:
    """How a table in parquet differs from that in CSV, except in lists; empty if it does not."""
    try:
        parquet = ParquetTable(body)
        rows = len(next(iter(table.values())))
        if parquet.columns != list(table):
            return f"has the columns {brief(parquet.columns, 150)}, but {TERMINOLOGY} has {brief(list(table), 150)}"
        if parquet.rows != rows:
            return f"has {parquet.rows} rows, but {TERMINOLOGY} has {rows}"
        if parquet.size > _LARGEST_PARQUET:
            return f"has {parquet.size} bytes, uncompressed; at most {_LARGEST_PARQUET} are read"
        columns = parquet.values()
    except UnreadableTableError as error:
        return f"cannot be read as a table ({error})"
    for name, values in columns.items():
        pairs = zip(values, table[name], strict=True)
        if found := next(((value, cell) for value, cell in pairs if not _is_same(value, cell)), None):
            return f"has the {name} {brief(found[0])} where {TERMINOLOGY} has {brief(found[1])}"
    return ""


def _is_same(value: Any, cell: str) -> bool:
    """Whether a value of a table in parquet is the cell of the table in CSV; pandas writes an empty cell as NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return not cell.strip()
    if isinstance(value, str):
        return value == cell
    try:
        return bool(value == int(cell)) if _WHOLE.fullmatch(cell) else math.isclose(value, float(cell), rel_tol=_SAME)
    except (ValueError, OverflowError):
        return False


def volumes_findings(root: Target, key: str) -> Iterator[Defect]:
    """What is wrong with a parcellation_volumes.csv."""
    if isinstance(table := _table(root, key), Defect):
        yield table
        return
    if lacking := [name for name in _VOLUMES if name not in table]:
        yield Defect("inconsistent", key, f"lacks the column {', '.join(lacking)}")
        return
    rules = {
        "has the identifier {} more than once": _repeated(table["identifier"]),
        "has the voxel_count {}, which is not a whole number": [n for n in table["voxel_count"] if not _is_whole(n)],
        "has the volume_mm3 {}, which is not a volume": [n for n in table["volume_mm3"] if not _is_length(n)],
    }
    for text in _first_faults(rules):
        yield Defect("inconsistent", key, text)


def _table(root: Target, key: str) -> dict[str, list[str]] | Defect:
    """The cells of each column of a CSV file as text, by name; or the defect that it cannot be read."""
    try:
        return _columns(root.read(key, LARGEST) or b"")
    except (InputError, TargetError) as error:
        return Defect("metadata", key, fault_of_reading(root, error, key))
    except (ValueError, csv.Error) as error:
        return Defect("metadata", key, f"cannot be read as a table: {str(error)[:150]}")


def _columns(body: bytes) -> dict[str, list[str]]:
    """The cells of each column of a CSV file by name; ValueError or csv.Error if it is no table, or is too large."""
    rows = filter(None, csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    names = next(rows, [])
    if not 0 < len(names) <= _MOST_COLUMNS:
        raise ValueError(f"it has {len(names)} columns, and must have 1 to {_MOST_COLUMNS}")
    if twice := _repeated(names):
        raise ValueError(f"it has the column {first_of(twice)} more than once")
    columns: list[list[str]] = [[] for _ in names]
    for row, cells in enumerate(rows, 2):
        if row > _MOST_ROWS:
            raise ValueError(f"it has more than {_MOST_ROWS} rows")
        if len(cells) != len(names):
            raise ValueError(f"it has {len(cells)} cells for {len(names)} columns in row {row}")
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    return dict(zip(names, columns, strict=True))


def _is_whole(cell: str) -> bool:
    """Whether a cell is a whole number of 64 bits that is not negative."""
    return _WHOLE.fullmatch(cell) is not None and not cell.startswith("-")


def _is_length(cell: str) -> bool:
    """Whether a cell is a number that is neither negative nor infinite."""
    try:
        return 0 <= float(cell) < math.inf
    except ValueError:
        return False


def _first_faults(rules: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """A text for each rule that has wrong values, with the first of them."""
    return (text.format(first_of(wrong)) for text, wrong in rules.items() if wrong)


def _terminology_faults(table: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What is wrong with a terminology.csv, by its columns; each rule is named once, with the first wrong value.

    Parameters
    ----------
    table : mapping of str to sequence of str
        The cells of each column; empty text for an empty cell.
    """
    if missing := [name for name in _COLUMNS if name not in table]:
        yield f"lacks the column {', '.join(missing)}"
        return
    identifiers, parents = table["identifier"], [parent.strip() for parent in table["parent_identifier"]]
    values = [_without_zeros(value.strip()) for value in table["annotation_value"]]
    known = set(identifiers)
    rules: dict[str, Sequence[Any]] = {
        "has a structure without an identifier, row {}": [
            row for row, identifier in enumerate(identifiers, 2) if not identifier.strip()
        ],
        "has the identifier {} more than once": _repeated(identifiers),
        "has the parent_identifier {}, which is not an identifier": [p for p in parents if p and p not in known],
        "has the annotation_value {} more than once": _repeated(filter(None, values)),
        "has the annotation_value {}, which is not a whole number": [
            value for value in values if value and not _is_whole(value)
        ],
        "has the color_hex_triplet {}, which is not #RRGGBB": [
            colour for colour in table["color_hex_triplet"] if colour and not re.fullmatch("#[0-9A-Fa-f]{6}", colour)
        ],
    }
    yield from _first_faults(rules)
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
            own = values if of == "annotation_value" else identifiers
            yield from _wrong_descendants(column, table[column], identifiers, spans, own)


def _without_zeros(value: str) -> str:
    """A number without zeros before it, so that equal numbers are equal texts."""
    return (value.lstrip("0") or "0") if value.startswith("0") else value


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
