"""Parse JSON that another program may have written: no larger, no deeper and with no more values than metadata has."""

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


def parse(body: bytes | str) -> Any:
    """Parse a JSON document.

    Raises
    ------
    ValueError
        If it is not JSON, or exceeds `LARGEST`, `MOST_VALUES` or `DEEPEST`.
    """
    if len(body) > LARGEST:
        raise ValueError(f"it has {len(body)} bytes, and at most {LARGEST} are allowed")
    text = body if isinstance(body, str) else body.decode()
    nested = text.count("[") + text.count("{")
    if len(text) > MOST_VALUES and nested + text.count(",") > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES} values")
    try:
        document, end = _DECODER.raw_decode(text) if text[:1] in ("{", "[") else (json.loads(text), len(text))
    except RecursionError:
        raise ValueError(f"it has more than {DEEPEST} nested lists and objects") from None
    if end < len(text) and text[end:].strip(_SPACE):
        raise ValueError(f"it goes on after its end, at character {end}")
    if nested > DEEPEST:
        _refuse_depth(document)
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


def _refuse_depth(document: Any) -> None:
    level = [document]
    for _ in range(DEEPEST):
        values = (value for outer in level for value in (outer.values() if isinstance(outer, dict) else outer))
        level = [value for value in values if isinstance(value, dict | list)]
        if not level:
            return
    raise ValueError(f"it has more than {DEEPEST} nested lists and objects")
