"""A terminology as others write it: the Allen API's structure graph and BrainGlobe's terminology.csv, and their checks.

Only texts and rows; files, services and the tree's questions are not its business.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import RecordError

if TYPE_CHECKING:
    from .terminology import Structure

#: Of terminology.csv, in its order.
COLUMNS = (
    "identifier",
    "parent_identifier",
    "annotation_value",
    "name",
    "abbreviation",
    "color_hex_triplet",
    "root_identifier_path",
)
#: What ``pandas.read_csv`` takes for a missing value, quoted or not, unless it is told otherwise (its `na_values`).
MISSING_TO_PANDAS = frozenset((
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
))  # fmt: skip
#: Labels are uint32, and 0 is no structure.
_LARGEST_ID = 2**32 - 1


@dataclass(frozen=True)
class Row:
    """One structure as it is given, before it has its place in the tree; `path` where one is stated."""

    id: int
    parent_id: int | None
    acronym: str
    name: str
    colour: str
    path: tuple[int, ...] | None = None


def rows_of_file(body: bytes, name: str) -> Iterator[Row]:
    """The rows of a terminology.csv, or of a structure graph in JSON: with the API's envelope, or without.

    Raises
    ------
    RecordError
        If it is neither.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RecordError(f"{name} is not text; give a terminology.csv or a structure graph in JSON") from None
    if text.lstrip()[:1] not in ("{", "["):
        return rows_of_table(_records(text, name))
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise RecordError(f"{name} begins like JSON but is none: {error}") from None
    if isinstance(answer, dict) and "success" in answer:
        if not answer["success"]:
            raise RecordError(f"{name} holds a refusal of the Allen API, no structure graph: {answer.get('msg')}")
        answer = answer.get("msg")
    return rows_of_graph([answer] if isinstance(answer, dict) else answer)


def rows_of_graph(roots: Any) -> Iterator[Row]:
    """The rows of nested nodes, depth first, as the Allen API has them in ``msg``."""
    pending: list[tuple[Any, int | None]] = [(node, None) for node in reversed(_nodes(roots))]
    while pending:
        node, parent = pending.pop()
        if not isinstance(node, Mapping) or "id" not in node:
            raise RecordError(f"the structure graph holds {_short(node)} where a node with an id must be")
        id = _id(node["id"], "a node's id")
        stated = node.get("parent_structure_id", parent)
        if stated != parent:
            raise RecordError(f"structure {id} has the parent_structure_id {stated} but lies below {parent}")
        colour = _text(node.get("color_hex_triplet"), f"color_hex_triplet of structure {id}")
        yield Row(
            id,
            parent,
            _text(node.get("acronym"), f"acronym of structure {id}"),
            _text(node.get("name"), f"name of structure {id}"),
            _colour(f"#{colour}", id),
        )
        pending.extend((child, id) for child in reversed(_nodes(node.get("children"))))


def rows_of_table(records: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """The rows of a table with `COLUMNS`; annotation_value and root_identifier_path may be empty."""
    for record in records:
        if missing := [column for column in COLUMNS if column not in record]:
            raise RecordError(f"the terminology has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
        id = _id(record["identifier"], "identifier")
        value, parent = record["annotation_value"], record["parent_identifier"]
        if not _absent(value) and _id(value, f"annotation_value of structure {id}") != id:
            raise RecordError(f"structure {id} has the annotation_value {value}; voxels must hold the identifier")
        yield Row(
            id,
            None if _absent(parent) else _id(parent, f"parent_identifier of structure {id}"),
            _text(record["abbreviation"], f"abbreviation of structure {id}"),
            _text(record["name"], f"name of structure {id}"),
            _colour(_text(record["color_hex_triplet"], f"color_hex_triplet of structure {id}"), id),
            _path(record["root_identifier_path"], id),
        )


def tree(rows: Iterable[Row]) -> Iterator[tuple[Row, tuple[int, ...]]]:
    """Rows with their paths from the root, depth first; siblings stay in the order of the rows.

    Raises
    ------
    RecordError
        If there are none, an id or acronym occurs twice, a parent is not there, parents form a circle, or a path that
        is stated differs.
    """
    by_id: dict[int, Row] = {}
    acronyms: set[str] = set()
    below: dict[int | None, list[Row]] = {}
    for row in rows:
        if row.id in by_id or row.acronym in acronyms:
            what = f"id {row.id}" if row.id in by_id else f"acronym {row.acronym}"
            raise RecordError(f"the terminology has the {what} more than once")
        by_id[row.id] = row
        acronyms.add(row.acronym)
        below.setdefault(row.parent_id, []).append(row)
    if not by_id:
        raise RecordError("the terminology has no structures")
    for row in by_id.values():
        if row.parent_id is not None and row.parent_id not in by_id:
            raise RecordError(f"structure {row.id} ({row.acronym}) has the parent {row.parent_id}, which is not there")
    pending: list[tuple[Row, tuple[int, ...]]] = [(row, (row.id,)) for row in reversed(below.get(None, []))]
    placed = []
    while pending:
        row, path = pending.pop()
        if row.path is not None and row.path != path:
            raise RecordError(
                f"structure {row.id} ({row.acronym}) has the path {list(row.path)} where its parents make {list(path)}"
            )
        placed.append((row, path))
        pending.extend((child, (*path, child.id)) for child in reversed(below.get(row.id, [])))
    if len(placed) < len(by_id):
        ids = sorted(by_id.keys() - {row.id for row, _ in placed})
        raise RecordError(f"structure {ids[0]} ({by_id[ids[0]].acronym}) is below no root: its parents form a circle")
    yield from placed


def cells(structure: Structure) -> tuple[int, int | None, int, str, str, str, str]:
    """A structure's values in the order of `COLUMNS`."""
    id, path = structure.id, str(list(structure.path))
    return id, structure.parent_id, id, structure.name, structure.acronym, structure.colour, path


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows below `COLUMNS`; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue()


def _records(text: str, name: str) -> Iterator[Mapping[str, Any]]:
    """The records of a CSV; every cell is the text that is written there, so that ``NA`` stays ``NA``."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if missing := [column for column in COLUMNS if column not in (reader.fieldnames or ())]:
        raise RecordError(f"{name} is no terminology.csv: it has no column {missing[0]!r}")
    for record in reader:
        if None in record or None in record.values():
            raise RecordError(f"{name} has too many or too few cells in line {reader.line_num}")
        yield record


def _nodes(nodes: Any) -> Sequence[Any]:
    if nodes is None:
        return ()
    if not isinstance(nodes, list | tuple):
        raise RecordError(f"the structure graph holds {_short(nodes)} where a list of nodes must be")
    return nodes


def _absent(value: Any) -> bool:
    """Whether a cell is empty: no text, None, NaN or pandas.NA."""
    return value is None or value == "" or str(value) in ("nan", "<NA>")


def _id(value: Any, what: str) -> int:
    """An id; pandas writes those of a column with empty cells as ``997.0``."""
    match = re.fullmatch(r"([0-9]+)(\.0)?", str(value).strip())
    if match is None or not 0 < int(match[1]) <= _LARGEST_ID:
        raise RecordError(f"{what} is {_short(value)}; it must be a whole number from 1 to {_LARGEST_ID}")
    return int(match[1])


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise RecordError(
            f"the {what} is missing; if it is one of NA, null and the like, pandas took it for a missing value: "
            "read the file with Terminology.read or keep_default_na=False"
        )
    return value


def _colour(colour: str, id: int) -> str:
    if not re.fullmatch(r"#[0-9A-Fa-f]{6}", colour):
        raise RecordError(f"structure {id} has the colour {colour!r}; it must be #RRGGBB")
    return colour


def _path(value: Any, id: int) -> tuple[int, ...] | None:
    if _absent(value):
        return None
    try:
        return tuple(int(part) for part in (json.loads(value) if isinstance(value, str) else value))
    except (TypeError, ValueError):
        raise RecordError(f"structure {id} has the path {_short(value)}; it must be a list such as [997, 8]") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
