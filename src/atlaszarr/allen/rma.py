"""Queries in RMA, the query language of the Allen API: escaped values, paging, validated answers."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ..catalogue.criteria import Criterion
from ..errors import InputError, RecordError, ServiceError
from ..stores.documents import parse

_PAGE = 2000
#: Maximum number of rows of a query: the whole catalogue of section datasets has 43,818.
_MAX_ROWS = 250_000
#: Maximum number of requests of a query: twice as many as the largest query takes with full pages.
_MAX_PAGES = 250
#: Largest size of all pages of a query, in bytes: a record of the whole catalogue has about 3 kB.
_LARGEST_QUERY = 2**28
#: Time limit of all pages of a query, in seconds: the whole catalogue takes 22 pages of a few seconds each.
_LONGEST_QUERY = 3600.0

#: Characters of a message of the service that an error repeats: a message names the first mistake of a query.
_EXCERPT = 500

#: An escaped surrogate. Without its other half it is no character: no table, file or terminal takes it.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

Get = Callable[[str], bytes]


def identifier(value: object) -> int:
    """An id from a number or from text.

    Raises
    ------
    InputError
        If the value is not a whole number of at most 18 digits.
    """
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InputError(f"id {text[:40]!r} is not a whole number of at most 18 digits", code="invalid-id")
    return int(text)


def query(
    get: Get,
    api_url: str,
    model: str,
    criteria: Sequence[Criterion] = (),
    include: Sequence[str] = (),
    limit: int | None = None,
    *,
    where: Mapping[str, object] | None = None,
    only: Sequence[str] = (),
    most: int = _MAX_ROWS,
) -> tuple[list[dict[str, Any]], int]:
    """Fetch the records that meet all criteria, in order of id.

    Parameters
    ----------
    get : callable
        Fetches a URL and returns the body.
    api_url : str
        Ending in ``/api/v2``.
    model : str
        For instance ``SectionDataSet``.
    criteria : sequence of Criterion
    include : sequence of str
        Associations, in RMA's syntax.
    limit : int, optional
        Maximum number of records.
    where : mapping, optional
        Required whole-number values of attributes; the answer is validated against them.
    only : sequence of str
        Attributes in the answer; default all.
    most : int
        Number of records beyond which the answer is refused.

    Returns
    -------
    records : list of dict
    matches : int
        The number of records that meet the criteria, regardless of `limit`.

    Raises
    ------
    InputError
        If a value of `where` is not a whole number.
    ServiceError
        If the answer is a failure, is not as documented, holds other records, or has too many rows, pages or bytes.
    RecordError
        If the number of matches changes between two pages.
    """
    required = {key: identifier(value) for key, value in (where or {}).items()}
    conditions = [*(f"[{key}$eq{value}]" for key, value in required.items()), *map(str, criteria)]
    rows: list[dict[str, Any]] = []
    total: int | None = None
    requests, size_read, began = 0, 0, time.monotonic()
    while total is None or len(rows) < (total if limit is None else min(limit, total)):
        size = _PAGE if limit is None else min(_PAGE, limit - len(rows))
        clauses = [f"model::{model}"]
        clauses += ["rma::criteria", *conditions] if conditions else []
        clauses += ["rma::include", *include] if include else []
        options = f"[num_rows$eq{size}][start_row$eq{len(rows)}][order$eq'id']"
        options += f"[only$eq'{','.join(only)}']" if only else ""
        clauses.append(f"rma::options{options}")
        url = f"{api_url}/data/query.json?criteria={quote(','.join(clauses), safe=chr(39) + ':,$*()')}"
        if requests >= _MAX_PAGES or size_read > _LARGEST_QUERY or time.monotonic() - began > _LONGEST_QUERY:
            raise ServiceError(
                f"{url} is refused after {requests} pages ({size_read:,} bytes, {time.monotonic() - began:.0f} s) with "
                f"{len(rows)} of {total} rows; set a limit, or narrow the search",
                code="query-too-long",
            )
        body = get(url)
        requests, size_read = requests + 1, size_read + len(body)
        answer = envelope(body, url)
        page, matches = answer["msg"], answer.get("total_rows")
        valid = isinstance(page, list) and all(isinstance(row, dict) for row in page)
        if not valid or isinstance(matches, bool) or not isinstance(matches, int) or matches < 0:
            raise ServiceError(f"{url} answered without rows or without a row count", code="unexpected-answer")
        if len(page) > (left := min(size, matches - len(rows))):
            raise ServiceError(
                f"{url} answered {len(page)} rows, more than the {left} that are left; try again",
                code="unexpected-answer",
            )
        if total is not None and matches != total:
            raise RecordError(
                f"{url}: the number of matches changed from {total} to {matches} between pages; try again",
                code="matches-changed",
            )
        if not page and len(rows) < matches:
            raise ServiceError(f"{url} answered no rows after {len(rows)} of {matches} rows", code="missing-rows")
        if min(matches, limit or matches) > most:
            raise ServiceError(
                f"{url} has {matches} rows, more than the maximum of {most}; set a limit", code="too-many-rows"
            )
        for row in page:
            for key, value in required.items():
                if row.get(key) != value:
                    raise ServiceError(
                        f"{url} asked for {model} records with {key} {value}, but the answer has one with {key} "
                        f"{row.get(key)!r:.40}; try again",
                        code="wrong-record",
                    )
        total = matches
        if rows and page[0] == rows[0]:
            raise ServiceError(f"{url} answered the rows of the first page again; try again", code="unexpected-answer")
        rows += page
    return rows, total


def pages(rows: int) -> int:
    """The number of requests that `query` makes for a number of rows."""
    return max(1, -(-rows // _PAGE))


def envelope(body: bytes, url: str) -> Mapping[str, Any]:
    """The JSON object around an answer.

    Raises
    ------
    ServiceError
        If the answer is not such an object, or reports a failure; with the URL and the service's message.
    """
    try:
        answer = parse(body)
        if _SURROGATE.search(body):
            answer = json.loads(json.dumps(answer, ensure_ascii=False).encode(errors="replace"))
    except ValueError as error:
        beginning = " ".join(body[:200].decode("utf-8", errors="replace").split())
        raise ServiceError(
            f"{url} answered something that is not JSON ({error}): {beginning!r}", code="not-json"
        ) from None
    if not isinstance(answer, dict) or "msg" not in answer:
        raise ServiceError(f"{url} answered JSON without a msg", code="unexpected-answer")
    if not answer.get("success"):
        raise ServiceError(f"{url} was refused by the Allen API: {str(answer['msg'])[:_EXCERPT]}", code="query-refused")
    return answer
