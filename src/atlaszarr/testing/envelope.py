"""Answers of the emulated service, in JSON, XML or CSV."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

_CONTENT_TYPES = {"json": "application/json", "xml": "application/xml", "csv": "text/csv"}


@dataclass(frozen=True)
class Answer:
    """An HTTP answer.

    Attributes
    ----------
    status : int
        HTTP status.
    content_type : str
        Value of the Content-Type header.
    body : bytes
    headers : dict
        Additional headers.
    """

    status: int
    content_type: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def success(
    msg: Any,
    *,
    name: str = "object",
    start_row: int = 0,
    num_rows: int | None = None,
    total_rows: int | None = None,
    format: str = "json",
) -> Answer:
    """A successful answer.

    Parameters
    ----------
    msg : list or dict
        The records.
    name : str
        XML element of a record, for instance ``section-image``.
    start_row, num_rows, total_rows : int
        Row counts of the envelope; the last two default to the length of `msg`.
    format : str
        ``json``, ``xml`` or ``csv``.
    """
    count = len(msg) if isinstance(msg, list) else 1
    figures = {
        "success": True,
        "id": 0,
        "start_row": start_row,
        "num_rows": count if num_rows is None else num_rows,
        "total_rows": count if total_rows is None else total_rows,
    }
    if format == "csv":
        return _answer("csv", _csv(msg))
    if format == "xml":
        return _answer("xml", _xml(figures, msg, name))
    return _answer("json", json.dumps(figures | {"msg": msg}).encode())


def failure(message: str, *, format: str = "json") -> Answer:
    """A failure of a query: HTTP status 200, `success` false and the message as `msg`."""
    figures: dict[str, Any] = {"success": False, "id": 0, "start_row": 0, "num_rows": 0, "total_rows": 0}
    if format == "xml":
        return _answer("xml", _xml(figures, message, "message"))
    if format == "csv":
        return _answer("csv", message.encode())
    return _answer("json", json.dumps(figures | {"msg": message}).encode())


def http_error(message: str, status: int = 404) -> Answer:
    """An HTTP error with a line of text."""
    return Answer(status, "text/plain", message.encode())


def _answer(format: str, body: bytes) -> Answer:
    return Answer(200, f"{_CONTENT_TYPES[format]};charset=utf-8", body)


def _csv(records: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    if records:
        columns = [key for key, value in records[0].items() if not isinstance(value, dict | list)]
        writer = csv.DictWriter(text, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(records)
    return text.getvalue().encode()


def _xml(figures: dict[str, Any], msg: Any, name: str) -> bytes:
    root = ElementTree.Element("Response", {key: _text(value) for key, value in figures.items()})
    _append(root, f"{name}s" if isinstance(msg, list) else name, msg)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _append(parent: ElementTree.Element, name: str, value: Any) -> None:
    """Append a value as an element: items of a list are named in the singular, null has the attribute ``nil``."""
    element = ElementTree.SubElement(parent, name.replace("_", "-"))
    if isinstance(value, dict):
        for key, item in value.items():
            _append(element, key, item)
    elif isinstance(value, list):
        for item in value:
            _append(element, name.removesuffix("s"), item)
    elif value is None:
        element.set("nil", "true")
    else:
        element.text = _text(value)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
