"""The columns of a catalogue, and records of the Allen API as rows of them.

A column has one type, and a value of another type is null in it. The row then has the whole record as JSON in the
column `json`, so that reading it fails in the same way as reading the record of the API.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from ..stores.documents import parse_object

Record = dict[str, Any]

#: Larger than any number of the API, and exact in float64: the bound of `atlaszarr.allen.records`.
_LARGEST = 2**40
_TYPES = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "text": pa.string()}
#: Column of the whole record as JSON, for records with values that do not fit the other columns.
WHOLE = "json"


@dataclass(frozen=True)
class _Associated:
    """An association whose records are columns.

    Attributes
    ----------
    name : str
    kinds : mapping of str to str
        Type of each attribute, whose column is named ``<name>_<attribute>``.
    path : tuple of str
        Names of the associations that lead to it; default the name alone.
    many : bool
        Whether there are several records: the columns are lists.
    required : str
        Attribute that each of many records has.
    differs_if_null : bool
        Whether a record with nulls alone differs from none: it is invalid, and none is allowed.
    """

    name: str
    kinds: Mapping[str, str]
    path: tuple[str, ...] = ()
    many: bool = False
    required: str = ""
    differs_if_null: bool = False

    def column(self, attribute: str) -> str:
        """Name of the column of an attribute."""
        return f"{self.name}_{attribute}"

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that lead to it in a record."""
        return self.path or (self.name,)


@dataclass(frozen=True)
class Columns:
    """The columns of one model.

    Attributes
    ----------
    model : str
        Name of the model in the Allen API.
    file : str
        Name of the file with its table.
    kinds : mapping of str to str
        Type of each attribute.
    associated : tuple
    order : tuple of str
        Columns by which the rows are sorted; the first is the id of the section dataset.
    include : tuple of str
        The associations, as a query includes them.
    group : int
        Least number of rows of a row group, but the last: one is decoded to read a few of its rows.
    """

    model: str
    file: str
    kinds: Mapping[str, str]
    associated: tuple[_Associated, ...]
    order: tuple[str, ...]
    include: tuple[str, ...]
    group: int

    @cached_property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        fields = [(name, _TYPES[kind]) for name, kind in self.kinds.items()]
        for one in self.associated:
            for attribute, kind in one.kinds.items():
                fields.append((one.column(attribute), pa.list_(_TYPES[kind]) if one.many else _TYPES[kind]))
        return pa.schema([*fields, (WHOLE, pa.string())])

    def without(self, associations: Iterable[str]) -> list[str]:
        """Names of the columns, without those of some associations."""
        left_out = {
            one.column(attribute) for one in self.associated if one.name in associations for attribute in one.kinds
        }
        return [name for name in self.schema.names if name not in left_out]

    def table(self, records: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Records as a table, one row for each."""
        misfits = [False] * len(records)
        columns = {name: _fitting(kind, name, records, misfits) for name, kind in self.kinds.items()}
        for one in self.associated:
            if one.many:
                columns |= _lists(one, records, misfits)
                continue
            related = [_related(record, one.keys, misfits, position) for position, record in enumerate(records)]
            for attribute, kind in one.kinds.items():
                columns[one.column(attribute)] = _fitting(kind, attribute, related, misfits)
            for position, record in enumerate(related if one.differs_if_null else ()):
                if record and all(record.get(attribute) is None for attribute in one.kinds):
                    misfits[position] = True
        columns[WHOLE] = [
            json.dumps(record) if misfit else None for record, misfit in zip(records, misfits, strict=True)
        ]
        return pa.table(columns, schema=self.schema)

    def records(self, table: pa.Table) -> list[Record]:
        """The records in a table, which may lack columns; attributes without a column are missing.

        Raises
        ------
        ValueError, TypeError
            If a row is not a record, or its JSON is that of another one.
        """
        return [self._record(row) for row in table.to_pylist()]

    def _record(self, row: Record) -> Record:
        if (whole := row.get(WHOLE)) is not None:
            known: Record = parse_object(whole)
            (columns,) = self.table([known]).to_pylist()
            if any(columns[name] != value for name, value in row.items() if name != WHOLE):
                raise ValueError("the JSON is that of another record")
            return known
        record: Record = {name: row[name] for name in self.kinds if name in row}
        for one in self.associated:
            values = {name: row[one.column(name)] for name in one.kinds if one.column(name) in row}
            if not values:
                continue
            at: Record = record
            *above, last = one.keys
            for key in above:
                at[key] = at = at.get(key) or {}
            if one.many:
                lists = [value or [] for value in values.values()]
                at[last] = [dict(zip(values, items, strict=True)) for items in zip(*lists, strict=True)]
            else:
                present = any(value is not None for value in values.values())
                at[last] = {**(at.get(last) or {}), **values} if present else at.get(last)
        return record


def _related(record: Mapping[str, Any], keys: Sequence[str], misfits: list[bool], position: int) -> Mapping[str, Any]:
    for key in keys:
        value = record.get(key) or {}
        if not isinstance(value, Mapping):
            misfits[position] = True
            return {}
        record = value
    return record


def _fits(kind: str, value: Any) -> bool:
    given = type(value)
    if kind == "int":
        return given is int and -_LARGEST < value < _LARGEST
    if kind == "float":
        return given in (int, float) and -_LARGEST < value < _LARGEST
    return given is (bool if kind == "bool" else str)


def _fitting(kind: str, name: str, records: Sequence[Mapping[str, Any]], misfits: list[bool]) -> list[Any]:
    """The values of an attribute, null where they do not fit the type."""
    values = [record.get(name) for record in records]
    for position, value in enumerate(values):
        if value is not None and not _fits(kind, value):
            values[position] = None
            misfits[position] = True
    return values


def _lists(one: _Associated, records: Sequence[Mapping[str, Any]], misfits: list[bool]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {one.column(attribute): [] for attribute in one.kinds}
    for position, record in enumerate(records):
        rows = record.get(one.name) or []
        fitting = isinstance(rows, list) and all(
            isinstance(row, Mapping)
            and isinstance(row.get(one.required), str)
            and all(row.get(name) is None or _fits(kind, row[name]) for name, kind in one.kinds.items())
            for row in rows
        )
        misfits[position] |= not fitting
        for attribute, kind in one.kinds.items():
            found = [row.get(attribute) for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
            columns[one.column(attribute)].append([value if _fits(kind, value) else None for value in found])
    return columns


def _matrix(name: str, entries: int) -> dict[str, str]:
    return {f"{name}_{entry:02d}": "float" for entry in range(entries)}


#: The attributes and associations of a SectionDataSet record.
DATASETS = Columns(
    "SectionDataSet",
    "datasets.parquet",
    {
        "id": "int",
        "plane_of_section_id": "int",
        "reference_space_id": "int",
        "section_thickness": "float",
        "specimen_id": "int",
        "failed": "bool",
        "expression": "bool",
        "delegate": "bool",
        "name": "text",
        "age": "text",
        "qc_date": "text",
        "red_channel": "text",
        "green_channel": "text",
        "blue_channel": "text",
        "failed_facet": "int",
        "rnaseq_design_id": "int",
        "sphinx_id": "int",
        "weight": "int",
        "storage_directory": "text",
    },
    (
        _Associated("plane_of_section", {"name": "text"}),
        _Associated("donor", {"name": "text", "sex_full_name": "text"}, ("specimen", "donor")),
        _Associated("donor_age", {"name": "text"}, ("specimen", "donor", "age")),
        _Associated(
            "genes", {"id": "int", "acronym": "text", "name": "text", "entrez_id": "int"}, many=True, required="acronym"
        ),
        _Associated("products", {"id": "int", "abbreviation": "text"}, many=True, required="abbreviation"),
        _Associated("treatments", {"name": "text"}, many=True, required="name"),
        _Associated("alignment3d", {"id": "int", **_matrix("tvr", 12), **_matrix("trv", 12)}, differs_if_null=True),
    ),
    ("id",),
    ("alignment3d", "genes", "products", "plane_of_section", "treatments", "specimen(donor(age))"),
    1024,
)
#: The attributes and the alignment of a SectionImage record.
IMAGES = Columns(
    "SectionImage",
    "images.parquet",
    {
        "id": "int",
        "data_set_id": "int",
        "section_number": "int",
        "x": "int",
        "y": "int",
        "width": "int",
        "height": "int",
        "image_width": "int",
        "image_height": "int",
        "resolution": "float",
        "tier_count": "int",
        "bits_per_component": "int",
        "number_of_components": "int",
        "failed": "bool",
        "annotated": "bool",
        "expression_path": "text",
        "path": "text",
        "image_file_name": "text",
        "image_type": "text",
        "axes": "text",
        "expression": "bool",
        "projection_function": "text",
        "lims1_id": "int",
        "specimen_id": "int",
        "structure_id": "int",
        "isi_experiment_id": "int",
        "ophys_experiment_id": "int",
    },
    (_Associated("alignment2d", {"id": "int", **_matrix("tsv", 6), **_matrix("tvs", 6)}, differs_if_null=True),),
    ("data_set_id", "id"),
    ("alignment2d",),
    4096,
)
BY_MODEL = {columns.model: columns for columns in (DATASETS, IMAGES)}
