"""Scripted faults: what the emulated service does wrong, to which request, and how often.

A fault is a rule, from Python or a JSON file: ``{"match": {"path": "section_image_download/74081149"},
"times": 2, "do": "status", "status": 503, "retry_after": 1}``. Rules are asked in their order; the first
that matches and has not run out acts, and later ones do not see that request.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import simplejpeg

from ..errors import InputError
from .envelope import Answer

#: What each kind does, and the keys it takes next to `match`, `times`, `after` and `do`.
KINDS: dict[str, tuple[str, ...]] = {
    "status": ("status", "retry_after"),  # an HTTP status instead of the answer
    "hang": ("seconds",),  # the answer, so many seconds late
    "reset": (),  # the connection is reset
    "cut": ("fraction",),  # the connection ends before the announced length is sent
    "truncated": ("fraction",),  # a body cut short, announced as such
    "html": (),  # HTTP 200 with a page about maintenance
    "wrong_size": ("width", "height"),  # an image of another size
    "empty": (),  # no bytes
    "garbage": (),  # bytes that are no image
    "bomb": (),  # a JPEG that declares 60000 x 60000 pixels
    "grey": (),  # a JPEG of one channel
    "fail": ("message",),  # `success` false with a message
    "total_rows": ("delta",),  # `total_rows` differs by so many
    "other_record": ("attribute", "value"),  # the last record of the answer has another value of an attribute
}

#: Kinds that need no answer to spoil, so that none is made.
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
        Found anywhere in the decoded path and query, for instance ``section_image_download/74081149`` or
        ``model::SectionImage``; empty matches everything.
    times : int or None
        How often it acts; None for ever.
    after : int
        How many matching requests it lets pass first.
    status, retry_after, seconds, fraction, width, height, message, delta, attribute, value
        Of the kinds that take them: HTTP status and seconds of its Retry-After, seconds to hang, the part
        of the body to send, the image's size, the message, what to add to `total_rows`, and an attribute of a record
        with its value.
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
        """Refuse what a fault cannot be (InputError)."""
        _check_kind(self.do)
        for name, value in asdict(self).items():
            _check_value(self.do, name, value)

    @classmethod
    def from_dict(cls, rule: Any) -> Rule:
        """From JSON.

        Raises
        ------
        InputError
            One sentence, if the rule is not valid.
        """
        if not isinstance(rule, Mapping):
            raise InputError(f"a fault must be an object, not {rule!r}")
        kind = str(rule.get("do"))
        _check_kind(kind)
        unknown = set(rule) - {"do", "match", "times", "after", *KINDS[kind]}
        if unknown:
            raise InputError(f"a fault of kind '{kind}' has no {', '.join(sorted(map(repr, unknown)))}")
        match = rule.get("match", {})
        if not isinstance(match, Mapping) or set(match) - {"path"} or not isinstance(match.get("path", ""), str):
            raise InputError(f"a fault's match must be an object with the text 'path', not {match!r}")
        return cls(path=match.get("path", ""), **{key: value for key, value in rule.items() if key != "match"})


class FaultScript:
    """Rules with a memory of how often each was asked: safe to use from many threads.

    Parameters
    ----------
    rules : iterable of Rule or dict
        In the order in which they are asked.
    """

    def __init__(self, rules: Iterable[Rule | Mapping[str, Any]] = ()) -> None:
        self.rules = [rule if isinstance(rule, Rule) else Rule.from_dict(rule) for rule in rules]
        self._seen = [0] * len(self.rules)
        self._lock = threading.Lock()

    def next(self, target: str) -> Rule | None:
        """The rule that acts on a request, counted; None if the request is answered as it should be."""
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
    """Rules from a JSON file that holds a list of them.

    Raises
    ------
    InputError
        If the file cannot be read, is not JSON, or holds an invalid rule.
    """
    try:
        rules = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the faults {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"the faults {path} are not JSON: {error}") from error
    if not isinstance(rules, list):
        raise InputError(f"the faults {path} must be a list of objects")
    return [Rule.from_dict(rule) for rule in rules]


def spoiled(rule: Rule, answer: Answer) -> Answer:
    """The answer as a fault leaves it; the kinds of the connection (hang, reset, cut) leave it alone."""
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
            answer = replace(answer, body=_declaring(_jpeg(8, 8, "RGB"), 60000, 60000))
        case "grey":
            answer = replace(answer, body=_grey(body))
        case "total_rows":
            envelope = json.loads(body)
            envelope["total_rows"] += rule.delta
            answer = replace(answer, body=json.dumps(envelope).encode())
        case "other_record":
            envelope = json.loads(body)
            envelope["msg"][-1][rule.attribute] = rule.value
            answer = replace(answer, body=json.dumps(envelope).encode())
    return answer


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise InputError(f"a fault cannot do {kind!r}; the kinds are {', '.join(KINDS)}")


def _check_value(kind: str, name: str, value: Any) -> None:
    """Refuse a value that its key cannot have."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = number and isinstance(value, int)
    sound = {
        "times": value is None or (whole and value >= 1),
        "after": whole and value >= 0,
        "status": whole and 200 <= value <= 599,
        "retry_after": value is None or (number and value >= 0),
        "seconds": number and value >= 0,
        "fraction": number and 0 <= value < 1,
        "width": whole and value >= 1,
        "height": whole and value >= 1,
        "delta": whole,
        "message": isinstance(value, str),
        "attribute": isinstance(value, str),
    }
    if not sound.get(name, True):
        raise InputError(f"a fault of kind '{kind}' cannot have {value!r} as its {name}")


def _jpeg(height: int, width: int, colorspace: Literal["RGB", "GRAY"]) -> bytes:
    picture = np.full((height, width, 3 if colorspace == "RGB" else 1), 128, dtype=np.uint8)
    if colorspace == "GRAY":
        return bytes(simplejpeg.encode_jpeg(picture, 90, colorspace="GRAY", colorsubsampling="Gray"))
    return bytes(simplejpeg.encode_jpeg(picture, 90, colorspace="RGB", colorsubsampling="444"))


def _grey(jpeg: bytes) -> bytes:
    """A picture of the same size with one channel."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    return _jpeg(height, width, "GRAY")


def _declaring(jpeg: bytes, height: int, width: int) -> bytes:
    """A JPEG whose frame header (SOF0) claims another size."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + jpeg[at + 4 :]
