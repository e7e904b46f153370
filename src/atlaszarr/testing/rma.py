"""Metadata queries (RMA) of the emulated service, evaluated against its catalogue.

Operators: eq, ne, lt, gt, le, ge, in, li (like) and il (like, case-insensitive), where ``*`` matches any text. Records
are in the catalogue's order unless the query has an order, 50 per page unless it has `num_rows`, and have no
associations unless it includes them. Pipes and connected services are not supported.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .catalogue import Catalogue
from .envelope import Answer, failure, success
from .records import Record
from .rma_syntax import Filter, Query, RmaError, Term, parse, parse_parameters


def answer(catalogue: Catalogue, path: str, parameters: Mapping[str, str]) -> Answer:
    """The answer to a metadata query.

    Parameters
    ----------
    catalogue : Catalogue
        The records of the service.
    path : str
        The path after ``/data/``: ``query.json``, ``SectionImage/query.json`` or ``SectionImage/69177654.json``.
    parameters : mapping
        The decoded parameters of the URL.
    """
    stem, _, format = path.rpartition(".")
    if format not in ("json", "xml", "csv"):
        stem, format = path, "xml"
    model, _, what = stem.rpartition("/")
    try:
        if not model:
            query = parse(parameters.get("criteria") or parameters.get("q") or "")
        else:
            query = parse_parameters(model, parameters)
            if what.isdigit():
                query.criteria.append(Term(None, (Filter("id", "eq", (what,)),)))
            elif what != "query":
                raise RmaError(f"no route matches /data/{path}")
        return _evaluate(catalogue, query, format)
    except RmaError as error:
        return failure(str(error), format=format)


def _evaluate(catalogue: Catalogue, query: Query, format: str) -> Answer:
    if query.model not in catalogue.models:
        raise RmaError(f"uninitialized constant ApiModel::{query.model}")
    for term in query.criteria:
        _validate(catalogue, query.model, term)
    records = [
        record
        for record in catalogue.candidates(
            query.model, (item for term in query.criteria if term.name is None for item in term.filters)
        )
        if all(_matches(catalogue, query.model, record, term) for term in query.criteria)
    ]
    for key in reversed(",".join(query.options.get("order", ())).split(",")):
        attribute, _, direction = re.sub(r"[ +]", "$", key.strip()).partition("$")
        if attribute:
            records = _ordered(records, attribute.rpartition(".")[2], descending=direction == "desc")
    start = _whole_number(query.options.get("start_row", ("0",))[0])
    limit = query.options.get("num_rows", ("50",))[0]
    page = records[start:] if limit == "all" else records[start : start + _whole_number(limit)]
    rows = [_with_included(catalogue, query.model, record, query.include) for record in page]
    return success(
        [_selected(row, query) for row in rows],
        name=_dashed(query.model),
        start_row=start,
        total_rows=len(records),
        format=format,
    )


def _validate(catalogue: Catalogue, model: str, term: Term) -> None:
    """Raise RmaError for attributes and associations that the model does not have."""
    if term.name is not None:
        association = catalogue.associated(model, {"id": None, "data_set_id": None}, term.name)
        if association is None:
            raise RmaError(f"{model} has no association named '{term.name}'")
        model = association[0]
    for item in term.filters:
        if not catalogue.has_attribute(model, item.attribute):
            raise RmaError(f"{model} has no attribute named '{item.attribute}'")
    for child in term.children:
        _validate(catalogue, model, child)


def _matches(catalogue: Catalogue, model: str, record: Record, term: Term) -> bool:
    """Whether a record, or a record of the term's association, passes all filters and nested terms."""
    records = [record]
    if term.name is not None:
        association = catalogue.associated(model, record, term.name)
        if association is None:
            return False
        model, _, records = association
    return any(
        all(_passes(candidate.get(item.attribute), item) for item in term.filters)
        and all(_matches(catalogue, model, candidate, child) for child in term.children)
        for candidate in records
    )


def _passes(value: Any, item: Filter) -> bool:
    if value is None:
        return False
    if item.operator in ("li", "il"):
        pattern = re.sub(r"([\[?])", r"[\1]", item.values[0])
        text = str(value)
        if item.operator == "il":
            pattern, text = pattern.lower(), text.lower()
        return fnmatch.fnmatchcase(text, pattern)
    wanted = [_converted(value, text) for text in item.values]
    if item.operator in ("eq", "in"):
        return value in wanted
    if item.operator == "ne":
        return value not in wanted
    if wanted[0] is None:
        return False
    ordered = (value > wanted[0]) - (value < wanted[0])
    return bool({"lt": ordered < 0, "gt": ordered > 0, "le": ordered <= 0, "ge": ordered >= 0}[item.operator])


def _converted(value: Any, text: str) -> Any:
    """The text of a filter, converted to the type of an attribute's value; None if it cannot be converted."""
    if isinstance(value, bool):
        return {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}.get(text.lower())
    if isinstance(value, int | float):
        try:
            return float(text)
        except ValueError:
            return None
    return text


def _with_included(catalogue: Catalogue, model: str, record: Record, include: Sequence[Term]) -> Record:
    """The attributes of a record, and its included associations."""
    row = catalogue.attributes(model, record)
    for term in include:
        association = catalogue.associated(model, record, str(term.name))
        if term.name is None or association is None:
            raise RmaError(f"{model} has no association named '{term.name}'")
        target, many, records = association
        if (invalid := catalogue.invalid(record, term.name)) is not None:
            row[term.name] = invalid
            continue
        rows = [
            _with_included(catalogue, target, related, term.children)
            for related in records
            if all(_passes(related.get(item.attribute), item) for item in term.filters)
        ]
        row[term.name] = rows if many else next(iter(rows), None)
    return row


def _selected(row: Record, query: Query) -> Record:
    """The row without the attributes that `only`, `tabular` and `except` remove; included records stay."""
    included = {term.name for term in query.include}
    for option in ("only", "tabular"):
        if option in query.options:
            wanted = _attribute_names(query.options[option])
            row = {key: value for key, value in row.items() if key in wanted or key in included}
    unwanted = _attribute_names(query.options.get("except", ()))
    return {key: value for key, value in row.items() if key not in unwanted}


def _attribute_names(values: tuple[str, ...]) -> set[str]:
    return {name.strip().rpartition(".")[2] for name in ",".join(values).split(",")}


def _whole_number(text: str) -> int:
    if not text.isdigit():
        raise RmaError(f"'{text}' is not a number of rows")
    return int(text)


def _ordered(records: list[Record], attribute: str, *, descending: bool) -> list[Record]:
    """The records sorted by an attribute; null is smaller than all values."""

    def key(record: Record) -> tuple[bool, Any]:
        value = record.get(attribute)
        return value is not None, 0 if value is None else value

    return sorted(records, key=key, reverse=descending)


def _dashed(model: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", model).lower()
