"""The formats of a terminology: the Allen API's structure graph and BrainGlobe's terminology.csv, validated.

This module parses text and tables; it reads no files.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RecordError

#: Columns of terminology.csv, in order.
COLUMNS = (
    "identifier",
    "parent_identifier",
    "annotation_value",
    "name",
    "abbreviation",
    "color_hex_triplet",
    "root_identifier_path",
)
#: The texts that ``pandas.read_csv`` reads as missing by default, quoted or not (its `na_values`).
MISSING_TO_PANDAS = frozenset((
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
))  # fmt: skip
#: Labels are uint32, and 0 is background.
_LARGEST_ID = 2**32 - 1


@dataclass(frozen=True)
class Row:
    """One structure of a file; `path` is None if the file does not give it."""

    id: int
    parent_id: int | None
    acronym: str
    name: str
    colour: str
    path: tuple[int, ...] | None = None


def rows_of_file(body: bytes, name: str) -> Iterator[Row]:
    """The rows of a terminology.csv, or of a structure graph in JSON, with or without the API's envelope.

    Raises
    ------
    RecordError
        If the file is neither of them.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RecordError(
            f"{name} is not text; give a terminology.csv or a structure graph in JSON", code="not-a-terminology"
        ) from None
    if text.lstrip()[:1] not in ("{", "["):
        reader = csv.DictReader(io.StringIO(text, newline=""))  # cells stay text, so that ``NA`` stays ``NA``
        return rows_of_table(reader.fieldnames or (), _whole_lines(reader, name), name)
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise RecordError(f"{name} starts like JSON, but is not valid JSON: {error}", code="not-json") from None
    if isinstance(answer, dict) and "success" in answer:
        if not answer["success"]:
            raise RecordError(
                f"{name} contains an error of the Allen API, not a structure graph: {answer.get('msg')}",
                code="query-refused",
            )
        answer = answer.get("msg")
    return rows_of_graph([answer] if isinstance(answer, dict) else answer)


def rows_of_graph(roots: Any) -> Iterator[Row]:
    """The rows of the nested nodes that the Allen API returns in ``msg``, depth first."""
    pending: list[tuple[Any, int | None]] = [(node, None) for node in reversed(_nodes(roots))]
    while pending:
        node, parent = pending.pop()
        if not isinstance(node, Mapping) or "id" not in node:
            raise RecordError(
                f"the structure graph has {_short(node)} instead of a node with an id", code="invalid-structure-graph"
            )
        id = _id(node["id"], "a node's id")
        if (given := node.get("parent_structure_id", parent)) != parent:
            raise RecordError(
                f"structure {id} has the parent_structure_id {given}, but is a child of {parent}",
                code="inconsistent-parent",
            )
        colour = _text(node.get("color_hex_triplet"), f"color_hex_triplet of structure {id}")
        yield Row(
            id,
            parent,
            _text(node.get("acronym"), f"acronym of structure {id}"),
            _text(node.get("name"), f"name of structure {id}"),
            _colour(f"#{colour}", id),
        )
        pending.extend((child, id) for child in reversed(_nodes(node.get("children"))))


def rows_of_table(
    columns: Iterable[str], records: Iterable[Mapping[str, Any]], name: str = "the terminology"
) -> Iterator[Row]:
    """The rows of a table with `COLUMNS`; annotation_value and root_identifier_path may be empty."""
    present = set(columns)
    if missing := [column for column in COLUMNS if column not in present]:
        raise RecordError(
            f"{name} lacks the column {missing[0]!r}; it must have {', '.join(COLUMNS)}", code="missing-column"
        )
    for record in records:
        id = _id(record["identifier"], "identifier")
        value, parent = record["annotation_value"], record["parent_identifier"]
        if not _absent(value) and _id(value, f"annotation_value of structure {id}") != id:
            raise RecordError(
                f"structure {id} has the annotation_value {value}; it must be equal to the identifier",
                code="inconsistent-annotation-value",
            )
        yield Row(
            id,
            None if _absent(parent) else _id(parent, f"parent_identifier of structure {id}"),
            _text(record["abbreviation"], f"abbreviation of structure {id}"),
            _text(record["name"], f"name of structure {id}"),
            _colour(_text(record["color_hex_triplet"], f"color_hex_triplet of structure {id}"), id),
            _path(record["root_identifier_path"], id),
        )


def tree(rows: Iterable[Row]) -> list[tuple[Row, tuple[int, ...]]]:
    """Rows with their paths from the root, depth first; siblings stay in the order of the rows.

    Raises
    ------
    RecordError
        If there are no rows, an id or an acronym occurs twice, a parent is missing, the parents form a cycle, or a path
        differs from the one that the parents form.
    """
    by_id: dict[int, Row] = {}
    acronyms: set[str] = set()
    children: dict[int | None, list[Row]] = {}
    for row in rows:
        if row.id in by_id or row.acronym in acronyms:
            what = f"id {row.id}" if row.id in by_id else f"acronym {row.acronym}"
            raise RecordError(f"the terminology has the {what} more than once", code="duplicate-structure")
        by_id[row.id] = row
        acronyms.add(row.acronym)
        children.setdefault(row.parent_id, []).append(row)
    if not by_id:
        raise RecordError("the terminology has no structures", code="empty-terminology")
    for row in by_id.values():
        if row.parent_id is not None and row.parent_id not in by_id:
            raise RecordError(
                f"structure {row.id} ({row.acronym}) has the parent {row.parent_id}, which is missing",
                code="missing-parent",
            )
    pending: list[tuple[Row, tuple[int, ...]]] = [(row, (row.id,)) for row in reversed(children.get(None, []))]
    ordered = []
    while pending:
        row, path = pending.pop()
        if row.path is not None and row.path != path:
            raise RecordError(
                f"structure {row.id} ({row.acronym}) has the path {list(row.path)}, but its parents form {list(path)}",
                code="inconsistent-path",
            )
        ordered.append((row, path))
        pending.extend((child, (*path, child.id)) for child in reversed(children.get(row.id, [])))
    if len(ordered) < len(by_id):
        id = min(by_id.keys() - {row.id for row, _ in ordered})
        raise RecordError(
            f"the parents of structure {id} ({by_id[id].acronym}) form a cycle; it must descend from a root",
            code="parents-in-a-cycle",
        )
    return ordered


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV with the header `COLUMNS`; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue()


def _whole_lines(reader: csv.DictReader[str], name: str) -> Iterator[Mapping[str, Any]]:
    for record in reader:
        if None in record or None in record.values():
            raise RecordError(
                f"{name} has too many or too few cells in line {reader.line_num}", code="wrong-cell-count"
            )
        yield record


def _nodes(nodes: Any) -> Sequence[Any]:
    if nodes is None:
        return ()
    if not isinstance(nodes, list | tuple):
        raise RecordError(
            f"the structure graph has {_short(nodes)} instead of a list of nodes", code="invalid-structure-graph"
        )
    return nodes


def _absent(value: Any) -> bool:
    """Whether a cell is empty: an empty text, None, NaN or pandas.NA."""
    return value is None or value == "" or str(value) in ("nan", "<NA>")


def _id(value: Any, what: str) -> int:
    """An id; in a column with empty cells pandas writes ``997.0``."""
    match = re.fullmatch(r"([0-9]+)(\.0)?", str(value).strip())
    if match is None or not 0 < int(match[1]) <= _LARGEST_ID:
        raise RecordError(
            f"{what} is {_short(value)}; it must be a whole number from 1 to {_LARGEST_ID}", code="invalid-id"
        )
    return int(match[1])


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise RecordError(
            f"the {what} is missing; pandas reads texts such as NA and null as missing: read the file with "
            "Terminology.read or keep_default_na=False",
            code="missing-value",
        )
    return value


def _colour(colour: str, id: int) -> str:
    if not re.fullmatch(r"#[0-9A-Fa-f]{6}", colour):
        raise RecordError(f"structure {id} has the colour {colour!r}; it must be #RRGGBB", code="invalid-colour")
    return colour


def _path(value: Any, id: int) -> tuple[int, ...] | None:
    if _absent(value):
        return None
    try:
        return tuple(int(part) for part in (json.loads(value) if isinstance(value, str) else value))
    except (TypeError, ValueError):
        raise RecordError(
            f"structure {id} has the path {_short(value)}; it must be a list such as [997, 8]", code="invalid-path"
        ) from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
