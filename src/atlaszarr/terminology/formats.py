"""The formats of a terminology: structure graphs in JSON, tables with a tree, and lists of labels.

This module parses text and tables; it reads no files.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, NoReturn

from ..errors import RecordError, brief
from ..stores import documents
from ..stores.parquet import MAGIC, ParquetTable, UnreadableTableError
from .rows import MOST_LEVELS, MOST_STRUCTURES, Notes, Row, absent, identifier, row_of
from .tree import BACKGROUND

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
#: The columns of the standard with the descendants of a structure, itself included: the text of the standard leaves it
#: out, but the Allen Institute and its notebooks include it.
DESCENDANTS = ("descendant_identifiers", "descendant_annotation_values")
#: All columns of the standard, in its order.
STANDARD_COLUMNS = (*COLUMNS[:-1], *DESCENDANTS, COLUMNS[-1])
#: The texts that ``pandas.read_csv`` reads as missing by default, quoted or not (its `na_values`).
MISSING_TO_PANDAS = frozenset((
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
))  # fmt: skip
#: The columns of tables, and the keys of JSON, that hold each field of a structure, in any case; the first that is
#: present counts. terminology.csv (BrainGlobe, HOMBA, HMBA), the Allen API, allensdk, ibllib and cortex-lab use these.
_FIELDS = {
    "id": ("identifier", "id", "index", "idx", "label"),
    "parent": ("parent_identifier", "parent_structure_id", "parent_id", "parent"),
    "value": ("annotation_value",),
    "acronym": ("abbreviation", "acronym"),
    "name": ("name", "safe_name", "label", "region", "structure"),
    "colour": ("color_hex_triplet", "rgb_triplet", "color", "colour"),
    "path": ("root_identifier_path", "structure_id_path"),
}
#: What places a node in a tree.
_PLACES = ("children", *_FIELDS["parent"], *_FIELDS["path"])
_CHANNELS = (("r", "g", "b"), ("red", "green", "blue"))
#: Further columns that a list of labels may have; any other means that a tree is expected.
_FURTHER = frozenset(("a", "alpha", "mapping"))
_SEPARATORS = "\t;,"
#: The most lines of a table, or objects and lists in JSON: a node of a structure graph has four at most.
_MOST_PARTS = 10 * MOST_STRUCTURES
#: The most nested lists and objects in JSON: two for each level of the tree, and those around and inside of a node.
_DEEPEST = 2 * MOST_LEVELS + 10
#: Characters of a header, and of a cell: the csv module of Python reads no longer ones, unless it is told to.
_LONGEST_CELL = 131_072
#: The most bytes of a Parquet file, uncompressed: 16 times those of the largest file that is read.
_LARGEST_COLUMNS = 2**28
#: A line of an ITK-SNAP label file: index, red, green, blue, alpha, two flags, label.
_ITKSNAP = re.compile(r'\s*(?P<id>\S+)\s+(?P<rgb>[0-9]+\s+[0-9]+\s+[0-9]+)(?:\s+[0-9.]+){3}\s+"(?P<name>.*)"\s*')
#: A line of a FreeSurfer colour table: number, label name, red, green, blue, alpha.
_FREESURFER = re.compile(r"\s*(?P<id>\S+)\s+(?P<name>\S+)\s+(?P<rgb>[0-9]+\s+[0-9]+\s+[0-9]+)(?:\s+[0-9]+)?\s*")
_FREESURFER_HEAD = re.compile(r"\s*(?:#\s*)?No\.?\s+Label.*", re.IGNORECASE)
#: What is read, for messages.
_READABLE = "a structure graph in JSON, a table with columns such as terminology.csv, or a list of labels and names"


def rows_of_file(body: bytes, name: str, notes: Notes) -> Iterator[Row]:
    """The rows of a file in any of the formats that `Terminology.read` lists.

    Parameters
    ----------
    body : bytes
    name : str
        Of the file, for messages.
    notes : Notes
        Gets remarks on what is replaced.

    Raises
    ------
    RecordError
        If the file has none of the formats, or a value is not valid.
    """
    if body.startswith(MAGIC):
        return _rows_of_parquet(body, name, notes)
    text = _decoded(body, name, notes)
    is_json = text.lstrip()[:1] in ("{", "[")
    if sum(map(text.count, "{[" if is_json else "\n\r")) > _MOST_PARTS:
        raise RecordError(
            f"{name} has more than {_MOST_PARTS} {'objects and lists' if is_json else 'lines'}; the most structures of "
            f"a terminology is {MOST_STRUCTURES}",
            code="too-many-structures",
        )
    if is_json:
        return rows_of_graph(_nodes_of_document(_parsed(text, name), name), notes, f"{name}: ")
    lines = [(number, line) for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1) if _is_content(line)]
    for pattern in (_ITKSNAP, _FREESURFER):
        rows = lines[1:] if lines and _FREESURFER_HEAD.fullmatch(lines[0][1]) else lines
        if rows and pattern.fullmatch(rows[0][1]):
            return _under_one_root(_labels_of(rows, pattern, name), notes)
    return _rows_of_text(text, lines[0] if lines else (1, ""), lines[1:2], name, notes)


def rows_of_graph(roots: Any, notes: Notes, where: str = "") -> Iterator[Row]:
    """The rows of nodes that may be nested, such as those that the Allen API returns in ``msg``, depth first.

    `where` precedes the messages of errors.
    """
    top = _nodes(roots)
    if len(top) > 1 and not any(key in node for node in top if isinstance(node, Mapping) for key in _PLACES):
        notes.add("has structures with neither children nor parents nor paths, all of which are roots", len(top))
    pending: list[tuple[Any, Any, bool]] = [(node, None, True) for node in reversed(top)]
    while pending:
        node, parent, is_top = pending.pop()
        data = node.get("data") if isinstance(node, Mapping) else None
        is_abba = isinstance(data, Mapping)
        if isinstance(data, Mapping):  # of a node of ABBA: its acronym and name
            node = {**data, **node}
        if not isinstance(node, Mapping) or "id" not in node:
            raise RecordError(
                f"{where}the structure graph has {brief(node)} instead of a node with an id",
                code="invalid-structure-graph",
            )
        fields = {field: next((node[key] for key in keys if key in node), None) for field, keys in _FIELDS.items()}
        if fields["acronym"] is None and fields["name"] is None:
            raise RecordError(
                f"{where}structure {brief(node['id'])} has neither an acronym nor a name; give a structure graph",
                code="missing-value",
            )
        if is_abba:  # its data has the parent 0 for a root
            fields["parent"] = parent
        elif not is_top:
            given = fields["parent"]
            if given is not None and identifier(given, f"the parent of structure {brief(node['id'])}", where) != parent:
                raise RecordError(
                    f"{where}structure {brief(node['id'])} has the parent_structure_id {brief(given)}, but is a "
                    f"child of {parent}",
                    code="inconsistent-parent",
                )
            fields["parent"] = parent
        row = row_of(fields, where, notes)
        yield row
        pending.extend((child, row.id, False) for child in reversed(_nodes(node.get("children"))))


def rows_of_table(
    columns: Sequence[str],
    records: Iterable[tuple[str, Mapping[str, Any]]],
    notes: Notes,
    name: str = "the terminology",
) -> Iterator[Row]:
    """The rows of a table.

    Parameters
    ----------
    columns : sequence of str
    records : iterable of (str, mapping)
        For each row its place, for messages, and its values by column.
    notes : Notes
    name : str
        Of the table, for messages.
    """
    found = _columns(columns, name)
    channels = next((names for names in _CHANNELS if all(_column(columns, (each,)) for each in names)), ())
    rgb = [column for each in channels if (column := _column(columns, (each,)))]
    # In the whole table of the standard an empty annotation_value means that no voxel holds the structure.
    value = found.get("value") if _column(columns, DESCENDANTS[1:]) else None
    fields = ((where, _fields(record, found, rgb, value)) for where, record in records)
    if "parent" in found or "path" in found:
        return (row_of(each, where, notes) for where, each in fields)
    known = {*found.values(), *rgb}
    for column in columns:
        if column not in known and column.strip().lower() not in _FURTHER and not column.lower().startswith("unnamed"):
            raise RecordError(
                f"{name} lacks the column 'parent_identifier' or 'root_identifier_path' (its column {brief(column)} "
                f"shows that it is more than a list of labels); it must have {', '.join(COLUMNS)}",
                code="missing-column",
            )
    return _under_one_root(fields, notes)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV with a header; None becomes an empty cell, and a list its text in Python.

    Raises
    ------
    RecordError
        If a list of descendants is longer than readers of CSV take.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    for row in rows:
        cells = [str(cell) if isinstance(cell, list) else cell for cell in row]
        for column, cell in zip(columns, cells, strict=True):
            if column in DESCENDANTS and len(cell) > _LONGEST_CELL:
                raise RecordError(
                    f"the {column} of structure {row[0]} have {len(cell)} characters, and readers of CSV take "
                    f"{_LONGEST_CELL}; build the atlas without the layout assets",
                    code="text-too-long",
                )
        # Python 3.11 leaves a carriage return unquoted.
        (quoting if any("\r" in str(cell) for cell in cells) else writer).writerow(cells)
    return text.getvalue()


def parquet_bytes(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows as Parquet; equal rows have equal bytes if the version of pyarrow is the same.

    Numbers are int64, also in lists; a column with a text in it is all text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {}
    for column, values in zip(columns, zip(*rows, strict=True), strict=True):
        is_list = any(isinstance(value, list) for value in values)
        parts = [part for value in values for part in (value if is_list else [value]) if part is not None]
        kind, cast = (pa.int64(), int) if all(isinstance(part, Integral) for part in parts) else (pa.string(), str)
        if is_list:
            arrays[column] = pa.array([[cast(part) for part in value] for value in values], pa.list_(kind))
        else:
            arrays[column] = pa.array([None if value is None else cast(value) for value in values], kind)
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays), sink, compression="zstd")
    return sink.getvalue()


# Text


def _decoded(body: bytes, name: str, notes: Notes) -> str:
    """The text of a file in UTF-8, in UTF-16 with its mark, or in Latin-1 where nothing else is likely."""
    try:
        if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return body.decode("utf-16")
        if b"\0" in body:
            raise ValueError("a file with null bytes is not text")
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.encoding.startswith("utf-16"):
            _refuse_format(name)
    except ValueError:
        _refuse_format(name)
    foreign = [(number, line) for number, line in enumerate(body.splitlines(), 1) if not line.isascii()]
    for number, line in foreign:
        # 80 to 9f are letters in some encodings and quotes in others; a line that is UTF-8 is in no other encoding.
        if re.search(rb"[\x80-\x9f]", line) or _is_utf8(line):
            raise RecordError(
                f"{name}, line {number}: {brief(line.decode('latin-1'))} is in an unknown encoding; save the file as "
                "UTF-8",
                code="unknown-encoding",
            )
        notes.add("is not in UTF-8 and is read as Latin-1", f"line {number}")
    return body.decode("latin-1")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_content(line: str) -> bool:
    """Whether a line is neither a comment nor blank nor one of empty cells."""
    return not line.lstrip().startswith("#") and bool(line.strip(' \t;,"'))


def _refuse_format(name: str) -> NoReturn:
    raise RecordError(f"{name} is not text; give {_READABLE}", code="not-a-terminology")


# JSON


def _parsed(text: str, name: str) -> Any:
    """The value of a JSON text."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(items)) < len(items):
            twice = next(key for key, count in Counter(key for key, _ in items).items() if count > 1)
            raise RecordError(f"{name} has the key {brief(twice)} twice in one object", code="duplicate-key")
        return found

    def whole(digits: str) -> int | str:
        return int(digits) if len(digits) < 20 else digits  # which `identifier` refuses

    def constant(word: str) -> NoReturn:
        raise RecordError(f"{name} contains {word}, which is not valid JSON", code="not-json")

    try:
        return documents.parse(text, _DEEPEST, object_pairs_hook=pairs, parse_int=whole, parse_constant=constant)
    except documents.TooDeepError:
        raise RecordError(
            f"{name} is nested too deep; give a structure graph of at most {MOST_LEVELS} levels",
            code="terminology-too-deep",
        ) from None
    except RecordError:
        raise
    except ValueError as error:
        message = f"{name} starts like JSON, but cannot be read: {error}; get it again"
        raise RecordError(message, code="not-json") from None


def _nodes_of_document(answer: Any, name: str) -> Any:
    """The nodes of an answer of the Allen API, an ontology of ABBA, one node, or a list of nodes."""
    if isinstance(answer, dict) and "success" in answer and not answer["success"]:
        raise RecordError(
            f"{name} contains an error of the Allen API, not a structure graph: {brief(answer.get('msg'))}",
            code="query-refused",
        )
    if isinstance(answer, dict) and "msg" in answer:
        rows, total = answer.get("num_rows"), answer.get("total_rows")
        if isinstance(rows, int) and isinstance(total, int) and rows < total:
            raise RecordError(
                f"{name} contains {rows} of {total} rows; query the Allen API with num_rows=all",
                code="incomplete-answer",
            )
        answer = answer["msg"]
    elif isinstance(answer, dict) and "id" not in answer:
        answer = answer.get("root", answer)
    return [answer] if isinstance(answer, dict) else answer


def _nodes(nodes: Any) -> Sequence[Any]:
    if nodes is None:
        return ()
    if not isinstance(nodes, list | tuple):
        raise RecordError(
            f"the structure graph has {brief(nodes)} instead of a list of nodes", code="invalid-structure-graph"
        )
    return nodes


# Tables


def _rows_of_text(
    text: str, first: tuple[int, str], second: Sequence[tuple[int, str]], name: str, notes: Notes
) -> Iterator[Row]:
    """The rows of a text with separated cells, with a header or, if it has two columns, without."""
    number, line = first
    if len(line) > _LONGEST_CELL:
        raise RecordError(
            f"{name}, line {number}: a header of {len(line)} characters is too long; give {_READABLE}",
            code="text-too-long",
        )
    heads = {separator: _cells(line, separator) for separator in _SEPARATORS}
    for separator, head in heads.items():
        if _column(head, _FIELDS["id"]) and len(head) > 1:
            return rows_of_table(head, _records(text, separator, number, head, name), notes, name)
    for separator, head in heads.items():
        if len(head) > 1 and _is_number(head[0]):
            if len(head) > 2 or _is_number(head[1]):
                raise RecordError(
                    f"{name}, line {number}: the first line has neither names of columns nor just an identifier and a "
                    "name; give it a header",
                    code="missing-column",
                )
            pair = ("identifier", "name")
            return rows_of_table(pair, _records(text, separator, number - 1, pair, name), notes, name)
    for separator, head in heads.items():
        after = _cells(second[0][1], separator) if second else []
        if len(head) == len(after) == 2 and _is_number(after[0]) and not _is_number(after[1]):
            notes.add("has unknown columns, which are read as identifier and name", " and ".join(map(brief, head)))
            pair = ("identifier", "name")
            return rows_of_table(pair, _records(text, separator, number, pair, name), notes, name)
    raise RecordError(
        f"{name} lacks the column 'identifier' (its first line is {brief(line)}); give {_READABLE}",
        code="missing-column",
    )


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"-?[0-9]+(\.[0-9]*)?", cell) is not None


def _cells(line: str, separator: str) -> list[str]:
    """The cells of one line, without the empty ones at its end."""
    try:
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return []
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _records(
    text: str, separator: str, after: int, columns: Sequence[str], name: str
) -> Iterator[tuple[str, dict[str, str]]]:
    """The cells of each line after line `after`, by column; blank lines and lines of empty cells are left out.

    `strict`, since a quote that is not closed would otherwise swallow the rest of the file.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise RecordError(f"{name}, line {reader.line_num}: {error}", code="invalid-csv") from None
        if cells is None:
            return
        if reader.line_num <= after or not any(cell.strip() for cell in cells):
            continue
        while len(cells) > len(columns) and not cells[-1].strip():
            cells.pop()
        where = f"{name}, line {reader.line_num}"
        if len(cells) != len(columns):
            raise RecordError(
                f"{where} has {len(cells)} cells for {len(columns)} columns; quote cells that contain {separator!r}",
                code="wrong-cell-count",
            )
        yield f"{where}: ", dict(zip(columns, cells, strict=True))


def _columns(columns: Sequence[str], name: str) -> dict[str, str]:
    """The column of each field that a table has."""
    found: dict[str, str] = {}
    for field, names in _FIELDS.items():
        column = _column([each for each in columns if each not in found.values()], names)
        if column is not None:
            if [each.strip().lower() for each in columns].count(column.strip().lower()) > 1:
                raise RecordError(f"{name} has the column {brief(column)} twice", code="duplicate-column")
            found[field] = column
    for field in ("id", "name"):
        if field not in found and not (field == "name" and "acronym" in found):
            raise RecordError(
                f"{name} lacks the column {_FIELDS[field][0]!r}; it must have {', '.join(COLUMNS)}",
                code="missing-column",
            )
    return found


def _column(columns: Iterable[str], names: Sequence[str]) -> str | None:
    """The first column with one of these names, in any case."""
    by_name = {column.strip().lower(): column for column in reversed(list(columns))}
    return next((by_name[name] for name in names if name in by_name), None)


def _fields(
    record: Mapping[str, Any], columns: Mapping[str, str], rgb: Sequence[str], value: str | None
) -> dict[str, Any]:
    """The values of a record by field; 0 for an empty cell in the column `value`."""
    fields = {field: record[column] for field, column in columns.items()}
    if value is not None and absent(record[value]):
        fields["value"] = 0
    if "colour" not in fields and rgb:
        fields["colour"] = [record[column] for column in rgb]
    return fields


# Parquet


def _rows_of_parquet(body: bytes, name: str, notes: Notes) -> Iterator[Row]:
    """The rows of a Parquet file with the columns of a table; its lists are not read, since the parents form them."""
    try:
        table = ParquetTable(body)
        if table.rows > MOST_STRUCTURES:
            raise RecordError(
                f"{name} has {table.rows} rows; the most structures of a terminology is {MOST_STRUCTURES}",
                code="too-many-structures",
            )
        if table.size > _LARGEST_COLUMNS:
            raise RecordError(
                f"{name} has {table.size} bytes, uncompressed; the most that is read is {_LARGEST_COLUMNS}",
                code="file-too-large",
            )
        values = table.values()
    except UnreadableTableError as error:
        raise RecordError(
            f"{name} starts like Parquet, but cannot be read ({error}); get the file again", code="invalid-parquet"
        ) from None
    lists = [column for column in table.columns if column not in values]
    records = (
        (f"{name}, row {number}: ", dict(zip(values, row, strict=True)))
        for number, row in enumerate(zip(*values.values(), strict=True), 1)
    )
    return rows_of_table([*values, *(column for column in lists if column in DESCENDANTS)], records, notes, name)


# Lists of labels


def _labels_of(
    lines: Iterable[tuple[int, str]], pattern: re.Pattern[str], name: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The labels of an ITK-SNAP label file or a FreeSurfer colour table."""
    for number, line in lines:
        if (match := pattern.fullmatch(line)) is None:
            raise RecordError(
                f"{name}, line {number}: {brief(line)} does not have the form of the lines before it",
                code="invalid-label-line",
            )
        yield (
            f"{name}, line {number}: ",
            {"id": match["id"], "name": match["name"], "colour": match["rgb"].split()},
        )


def _under_one_root(records: Iterable[tuple[str, dict[str, Any]]], notes: Notes) -> Iterator[Row]:
    """The rows of a list of labels under a root of identifier 0, which is background in an annotation."""
    rows: list[Row] = []
    for where, fields in records:
        if len(rows) > MOST_STRUCTURES:
            break  # which `tree` refuses
        row = row_of({**fields, "parent": 0}, where, notes)
        if not isinstance(row.id, int) and row.value is None:
            raise RecordError(
                f"{where}the identifier is {brief(row.id)}; without an annotation_value it must be a whole number",
                code="invalid-id",
            )
        if row.id == 0:
            notes.add(BACKGROUND, row.name)
        else:
            rows.append(row)
    if rows:
        notes.add("is a list of labels without a tree, which get a root", "identifier 0, acronym 'root'")
        yield Row(0, None, 0, "root", "root", "#FFFFFF")
    yield from rows
