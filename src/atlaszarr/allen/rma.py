"""Queries in RMA, the language of the Allen API, and their answers: written safely, paged, checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ..errors import InputError, RecordError, ServiceError

#: RMA has no escape for these.
_UNSAFE = frozenset("'\"[](),$:;\\")
_PAGE = 2000
#: Rows of one query: the whole catalogue of section datasets has fewer.
_MOST_ROWS = 1_000_000

Get = Callable[[str], bytes]


def literal(name: str, value: object) -> str:
    """A value as RMA writes it: a number bare, a text in single quotes.

    Raises
    ------
    InputError
        If the text holds a character that RMA cannot escape.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = str(value)
    if not text.isprintable():
        raise InputError(f"{name} {text!r} holds what cannot be printed")
    if bad := sorted(_UNSAFE.intersection(text)):
        raise InputError(f"{name} {text!r} holds {' '.join(bad)}, which a query to the Allen API cannot express")
    return f"'{text}'"


def identifier(value: object) -> int:
    """An id given as a number or as text.

    Raises
    ------
    InputError
        If it is not a whole number.
    """
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InputError(f"id {text[:40]!r} is not a whole number of at most 18 digits")
    return int(text)


def query(
    get: Get,
    api_url: str,
    model: str,
    criteria: Sequence[str] = (),
    include: Sequence[str] = (),
    limit: int | None = None,
    *,
    where: Mapping[str, object] | None = None,
    only: Sequence[str] = (),
) -> tuple[list[dict[str, Any]], int]:
    """The records that meet the criteria, in order of id, and how many meet them.

    Parameters
    ----------
    get : callable
        URL to body.
    api_url : str
        Ending in ``/api/v2``.
    model : str
        For instance ``SectionDataSet``.
    criteria, include : sequence of str
        In RMA's syntax, with values from `literal`.
    limit : int, optional
        Most records.
    where : mapping, optional
        Whole numbers that attributes of the model must have, checked in the answer too.
    only : sequence of str
        Attributes in the answer; default all.

    Returns
    -------
    tuple of list of dict and int
        The second is larger than the length of the first where `limit` cuts.

    Raises
    ------
    InputError
        If a value of `where` is not a whole number.
    ServiceError
        If the answer is not as documented, is a failure, or holds other records.
    RecordError
        If the number of matches changes between two pages.
    """
    asked = {key: identifier(value) for key, value in (where or {}).items()}
    criteria = [*(f"[{key}$eq{value}]" for key, value in asked.items()), *criteria]
    rows: list[dict[str, Any]] = []
    total: int | None = None
    while total is None or len(rows) < (total if limit is None else min(limit, total)):
        size = _PAGE if limit is None else min(_PAGE, limit - len(rows))
        clauses = [f"model::{model}"]
        clauses += ["rma::criteria", *criteria] if criteria else []
        clauses += ["rma::include", *include] if include else []
        options = f"[num_rows$eq{size}][start_row$eq{len(rows)}][order$eq'id']"
        options += f"[only$eq'{','.join(only)}']" if only else ""
        clauses.append(f"rma::options{options}")
        url = f"{api_url}/data/query.json?criteria={quote(','.join(clauses), safe=chr(39) + ':,$*()')}"
        answer = envelope(get(url), url)
        page, matches = answer["msg"], answer.get("total_rows")
        if not (isinstance(page, list) and all(isinstance(row, dict) for row in page) and isinstance(matches, int)):
            raise ServiceError(f"{url} answered without rows or without their number")
        if total is not None and matches != total:
            raise RecordError(
                f"{url}: the number of matches changed from {total} to {matches} between pages; try again"
            )
        if not page and len(rows) < matches:
            raise ServiceError(f"{url} answered no rows, with {len(rows)} of {matches} read")
        if min(matches, limit or matches) > _MOST_ROWS:
            raise ServiceError(f"{url} has {matches} rows, more than the {_MOST_ROWS} that are read; set a limit")
        for row in page:
            for key, value in asked.items():
                if row.get(key) != value:
                    raise ServiceError(
                        f"{url} asked for {model} records with {key} {value}, but the answer has one with {key} "
                        f"{row.get(key)!r:.40}; try again"
                    )
        total = matches
        rows += page
    return rows, total


def pages(rows: int) -> int:
    """How many requests `query` makes for so many rows."""
    return max(1, -(-rows // _PAGE))


def envelope(body: bytes, url: str) -> Mapping[str, Any]:
    """The JSON around every answer, if it is a success.

    Raises
    ------
    ServiceError
        Naming the URL and the service's own message.
    """
    try:
        answer = json.loads(body)
    except ValueError as error:
        beginning = " ".join(body[:200].decode("utf-8", errors="replace").split())
        raise ServiceError(f"{url} answered something that is not JSON ({error}): {beginning!r}") from None
    if not isinstance(answer, dict) or "msg" not in answer:
        raise ServiceError(f"{url} answered JSON without a msg")
    if not answer.get("success"):
        raise ServiceError(f"{url} was refused by the Allen API: {answer['msg']}")
    return answer
