"""Scripted faults of the emulated service.

A fault is a rule, from Python or a JSON file: ``{"match": {"path": "section_image_download/74081149"},
"times": 2, "do": "status", "status": 503, "retry_after": 1}``. The first rule that matches a request and has not run
out applies; later rules do not count the request.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import simplejpeg

from ..errors import InputError, brief
from ..stores.documents import parse
from .envelope import Answer

#: The kinds of faults, each with its keys in addition to `match`, `times`, `after` and `do`.
KINDS: dict[str, tuple[str, ...]] = {
    "status": ("status", "retry_after"),  # an HTTP status instead of the answer
    "hang": ("seconds",),  # the answer, delayed by so many seconds
    "reset": (),  # the connection is reset
    "cut": ("fraction",),  # the connection ends before the announced length is sent
    "truncated": ("fraction",),  # a body cut short, announced as such
    "html": (),  # HTTP 200 with a page about maintenance
    "wrong_size": ("width", "height"),  # an image of another size
    "empty": (),  # no bytes
    "garbage": (),  # bytes that are not an image
    "bomb": (),  # a JPEG that declares 60000 x 60000 pixels
    "grey": (),  # a JPEG of one channel
    "fail": ("message",),  # `success` false with a message
    "total_rows": ("delta",),  # `total_rows` is changed by so many
    "other_record": ("attribute", "value"),  # an attribute of the last record has another value
}

#: Kinds that replace the answer, which is then not computed.
INSTEAD = frozenset({"status", "reset", "html", "fail"})

_PAGE = b"<!DOCTYPE html><html><head><title>Maintenance</title></head><body>The service is down.</body></html>"


@dataclass(frozen=True)
class Rule:
    """One fault.

    Attributes
    ----------
    do : str
        One of `KINDS`.
    path : str
        Substring of the decoded path and query, for instance ``section_image_download/74081149`` or
        ``model::SectionImage``; the empty string matches all requests.
    times : int or None
        Number of requests that fail; None for no limit.
    after : int
        Number of matching requests that succeed first.
    status, retry_after, seconds, fraction, width, height, message, delta, attribute, value
        Values of the kinds that have these keys: HTTP status and its Retry-After in seconds, delay in seconds, part
        of the body that is sent, size of the image, message, number added to `total_rows`, attribute of a record
        and its value.

    Raises
    ------
    InputError
        If the kind is unknown or a value is invalid.
    """

    do: str
    path: str = ""
    times: int | None = 1
    after: int = 0
    status: int = 503
    retry_after: float | None = None
    seconds: float = 30.0
    fraction: float = 0.5
    width: int = 64
    height: int = 48
    message: str = "the service refused the query"
    delta: int = 1
    attribute: str = "id"
    value: Any = None

    def __post_init__(self) -> None:
        """Validate the kind and the values."""
        _validate_kind(self.do)
        for name, value in asdict(self).items():
            if not _is_valid(name, value):
                raise InputError(
                    f"a fault of kind '{self.do}' cannot have {brief(value)} as its {name}", code="invalid-fault"
                )

    @classmethod
    def from_dict(cls, rule: Any) -> Rule:
        """From JSON.

        Raises
        ------
        InputError
            If the rule is invalid.
        """
        if not isinstance(rule, Mapping):
            raise InputError(f"a fault must be an object, not {brief(rule)}", code="invalid-fault")
        kind = str(rule.get("do"))
        _validate_kind(kind)
        keys = ("match", "times", "after", *KINDS[kind])
        if unknown := next((key for key in rule if key not in (*keys, "do")), None):
            raise InputError(
                f"a fault of kind '{kind}' has no {brief(unknown)}; it has {', '.join(keys)}", code="unknown-option"
            )
        match = match_of(rule, "fault", ("path",))
        if not isinstance(match.get("path", ""), str):
            raise InputError(
                f"the path of a fault's match must be a text, not {brief(match['path'])}", code="invalid-fault"
            )
        return cls(path=match.get("path", ""), **{key: value for key, value in rule.items() if key != "match"})


def match_of(rule: Mapping[str, Any], kind: str, keys: Sequence[str]) -> Mapping[str, Any]:
    """What a rule of a JSON file, a ``fault`` or a ``damage``, matches; InputError if it has other keys than `keys`."""
    match = rule.get("match", {})
    if not isinstance(match, Mapping) or set(match) - set(keys):
        named = " or ".join(map(repr, keys))
        raise InputError(f"a {kind}'s match must be an object with {named}, not {brief(match)}", code=f"invalid-{kind}")
    return match


class FaultScript:
    """Rules, and the number of requests that each one matched; thread-safe.

    Parameters
    ----------
    rules : iterable of Rule or dict
        In order of priority.
    """

    def __init__(self, rules: Iterable[Rule | Mapping[str, Any]] = ()) -> None:
        self.rules = [rule if isinstance(rule, Rule) else Rule.from_dict(rule) for rule in rules]
        self._seen = [0] * len(self.rules)
        self._lock = threading.Lock()

    def next(self, target: str) -> Rule | None:
        """Count a request, and return the rule that applies to it; None for a normal answer."""
        with self._lock:
            for index, rule in enumerate(self.rules):
                if rule.path not in target:
                    continue
                acted = self._seen[index] - rule.after
                if rule.times is not None and acted >= rule.times:
                    continue
                self._seen[index] += 1
                if acted >= 0:
                    return rule
        return None


def load_faults(path: str | Path) -> list[Rule]:
    """Rules from a JSON file with a list of objects.

    Raises
    ------
    InputError
        If the file cannot be read, is not JSON, or holds an invalid rule.
    """
    return [Rule.from_dict(rule) for rule in load_rules(path, "faults", "invalid-fault")]


def load_rules(path: str | Path, name: str, code: str) -> list[Any]:
    """A list from a JSON file, called by its name in messages; `code` is that of the error if it is no list."""
    try:
        rules = parse(Path(path).expanduser().read_bytes())
    except OSError as error:
        raise InputError(f"cannot read the {name} {path}: {error.strerror}", code="unreadable-file") from error
    except ValueError as error:
        raise InputError(f"the {name} file {path} is not JSON of rules: {error}", code="not-json") from error
    if not isinstance(rules, list):
        raise InputError(f"the {name} file {path} must be a list of objects", code=code)
    return rules


def apply_fault(rule: Rule, answer: Answer) -> Answer:
    """The answer with a fault applied; faults of the connection (hang, reset, cut) do not change it."""
    body, envelope = answer.body, {"success": False, "id": 0, "start_row": 0, "num_rows": 0, "total_rows": 0}
    match rule.do:
        case "status":
            headers = {} if rule.retry_after is None else {"Retry-After": f"{rule.retry_after:g}"}
            answer = Answer(rule.status, "text/plain", f"status {rule.status}".encode(), headers)
        case "html":
            answer = Answer(200, "text/html", _PAGE)
        case "fail":
            answer = Answer(200, "application/json", json.dumps(envelope | {"msg": rule.message}).encode())
        case "truncated":
            answer = replace(answer, body=body[: int(len(body) * rule.fraction)])
        case "wrong_size":
            answer = replace(answer, body=_jpeg(rule.height, rule.width, "RGB"))
        case "empty":
            answer = replace(answer, body=b"")
        case "garbage":
            answer = replace(answer, body=bytes(range(256)) * 16)
        case "bomb":
            answer = replace(answer, body=_with_size(_jpeg(8, 8, "RGB"), 60000, 60000))
        case "grey":
            height, width, _, _ = simplejpeg.decode_jpeg_header(body)
            answer = replace(answer, body=_jpeg(height, width, "GRAY"))
        case "total_rows":
            envelope = json.loads(body)
            envelope["total_rows"] += rule.delta
            answer = replace(answer, body=json.dumps(envelope).encode())
        case "other_record":
            envelope = json.loads(body)
            envelope["msg"][-1][rule.attribute] = rule.value
            answer = replace(answer, body=json.dumps(envelope).encode())
    return answer


def _validate_kind(kind: str) -> None:
    if kind not in KINDS:
        raise InputError(f"a fault cannot do {brief(kind)}; the kinds are {', '.join(KINDS)}", code="unknown-value")


def _is_valid(name: str, value: Any) -> bool:
    """Whether a key of a rule can have a value."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = number and isinstance(value, int)
    valid = {
        "times": value is None or (whole and value >= 1),
        "after": whole and value >= 0,
        "status": whole and 200 <= value <= 599,
        "retry_after": value is None or (number and value >= 0),
        "seconds": number and 0 <= value <= threading.TIMEOUT_MAX,
        "fraction": number and 0 <= value < 1,
        "width": whole and value >= 1,
        "height": whole and value >= 1,
        "delta": whole,
        "message": isinstance(value, str),
        "attribute": isinstance(value, str),
    }
    return bool(valid.get(name, True))


def _jpeg(height: int, width: int, colorspace: Literal["RGB", "GRAY"]) -> bytes:
    picture = np.full((height, width, 3 if colorspace == "RGB" else 1), 128, dtype=np.uint8)
    if colorspace == "GRAY":
        return bytes(simplejpeg.encode_jpeg(picture, 90, colorspace="GRAY", colorsubsampling="Gray"))
    return bytes(simplejpeg.encode_jpeg(picture, 90, colorspace="RGB", colorsubsampling="444"))


def _with_size(jpeg: bytes, height: int, width: int) -> bytes:
    """The JPEG with another size in its frame header (SOF0)."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + jpeg[at + 4 :]
