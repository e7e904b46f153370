"""JSON documents: those of other programs are no larger, no deeper and have no more values than metadata has."""

from __future__ import annotations

import json
from typing import Any

#: The most bytes of a document: over ten times the largest known, the ledger's header of an image of each of a few
#: thousand sections.
LARGEST = 2**26
#: The most values in a document: an empty list takes 64 bytes in memory, so that they take less than half a gigabyte.
MOST_VALUES = 2**22
#: The most nested lists and objects. The deepest metadata, the codecs of a shard in a ledger, have fewer than 20;
#: functions that call themselves for every nested value stay far below Python's limit of 1000 calls.
DEEPEST = 100
#: Takes two thirds of the time of `json.loads` for a line of a ledger.
_DECODER = json.JSONDecoder()
#: The white space of JSON.
_SPACE = " \t\n\r"


class TooDeepError(ValueError):
    """A document has too many nested lists and objects."""


def parse(body: bytes | str, deepest: int = DEEPEST, **hooks: Any) -> Any:
    """Parse a JSON document.

    Parameters
    ----------
    body : bytes or str
    deepest : int
        The most nested lists and objects.
    **hooks
        Of `json.loads`.

    Raises
    ------
    TooDeepError
        If it has more than `deepest` nested lists and objects.
    ValueError
        If it is not JSON, or exceeds `LARGEST` or `MOST_VALUES`.
    """
    if len(body) > LARGEST:
        raise ValueError(f"it has {len(body)} bytes, and at most {LARGEST} are allowed")
    try:
        text = body if isinstance(body, str) else body.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not text in UTF-8: byte {error.start} is {body[error.start]:#04x}") from None
    nested = text.count("[") + text.count("{")
    if len(text) > MOST_VALUES and nested + text.count(",") > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES} values")
    try:
        is_plain = not hooks and text[:1] in ("{", "[")
        document, end = _DECODER.raw_decode(text) if is_plain else (json.loads(text, **hooks), len(text))
    except json.JSONDecodeError as error:
        if not text[error.pos :].strip(_SPACE):
            raise ValueError("it is empty" if not text.strip(_SPACE) else "it is cut off before its end") from None
        raise ValueError(f"it is not JSON from line {error.lineno}, column {error.colno} on") from None
    except RecursionError:
        raise _too_deep(deepest) from None
    if end < len(text) and text[end:].strip(_SPACE):
        raise ValueError(f"it goes on after its end, at character {end}")
    if nested > deepest:
        _refuse_depth(document, deepest)
    return document


def parse_object(body: bytes | str) -> dict[str, Any]:
    """Parse a JSON document that is an object.

    Raises
    ------
    ValueError
        For the reasons of `parse`, or if it is not an object.
    """
    if not isinstance(document := parse(body), dict):
        raise ValueError("it is not a JSON object")
    return document


def json_bytes(content: Any) -> bytes:
    """A JSON document with a line for each value."""
    return json.dumps(content, indent=1).encode()


def _refuse_depth(document: Any, deepest: int) -> None:
    level = [document]
    for _ in range(deepest):
        values = (value for outer in level for value in (outer.values() if isinstance(outer, dict) else outer))
        level = [value for value in values if isinstance(value, dict | list)]
        if not level:
            return
    raise _too_deep(deepest)


def _too_deep(deepest: int) -> TooDeepError:
    return TooDeepError(f"it has more than {deepest} nested lists and objects")
