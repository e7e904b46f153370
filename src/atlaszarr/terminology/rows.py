"""One structure of a file: its identifier, label, texts, colour and place in the tree, each validated on its own.

Pure functions of single values; this module knows neither files nor trees.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from ..errors import RecordError, brief

#: Labels are uint32, and 0 is background.
LARGEST_LABEL = 2**32 - 1
#: The most structures; the largest known terminologies have about 4000.
MOST_STRUCTURES = 100_000
#: The most levels of the tree; the deepest known, that of the developing human brain, has 14.
MOST_LEVELS = 100
#: Identifiers are int64 in tables.
_LARGEST_ID = 2**63 - 1
#: Digits of the largest identifier.
_MOST_DIGITS = 19
#: Characters of an identifier that is a text; the longest known, such as ``AllenCCF-Ontology-2017-614454277``, has 32.
_LONGEST_ID = 128
#: Characters of a name or an acronym; the longest known name has about 140.
_LONGEST_TEXT = 1000
#: Characters that UTF-8 or CSV cannot hold.
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
#: How many structures a remark names.
_NAMED = 5

Identifier = int | str


@dataclass(frozen=True)
class Row:
    """One structure of a file.

    Attributes
    ----------
    id : int or str
    parent_id : int, str or None
    value : int or None
        The label of its voxels; 0 if it has none, None if the file does not give it.
    acronym, name : str
    colour : str
        ``#RRGGBB``; empty if the file does not give it.
    path : tuple or None
        Identifiers from the root to the structure; None if the file does not give it.
    where : str
        Its file and line, for messages; empty if it has none.
    """

    id: Identifier
    parent_id: Identifier | None
    value: int | None
    acronym: str
    name: str
    colour: str
    path: tuple[Identifier, ...] | None = None
    where: str = ""

    @property
    def shown(self) -> str:
        """The identifier and the acronym, for messages."""
        return f"{self.id} ({self.acronym[:60]})"


class Notes:
    """Remarks on what was read, each with the structures or lines that it holds for."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, None]] = {}

    def add(self, remark: str, what: object) -> None:
        """Add a structure or a line to a remark."""
        self._found.setdefault(remark, {})[str(what)] = None

    def texts(self) -> tuple[str, ...]:
        """The remarks, each with its first structures or lines."""
        return tuple(f"the terminology {remark}: {_listed([*found])}" for remark, found in self._found.items())


def row_of(fields: Mapping[str, Any], where: str, notes: Notes) -> Row:
    """The row of one structure.

    Parameters
    ----------
    fields : mapping
        Values as the file has them: ``id``, and where present ``parent``, ``value``, ``acronym``, ``name``, ``colour``
        and ``path``. An empty text or None is an absent value.
    where : str
        Precedes the message of an error: the file and its line.
    notes : Notes
        Gets remarks on what is replaced.

    Raises
    ------
    RecordError
        If a value is not valid.
    """
    id = identifier(fields["id"], "the identifier", where)
    parent, value, colour = (fields.get(name) for name in ("parent", "value", "colour"))
    texts = {}
    for what in ("acronym", "name"):
        text = _text(fields.get(what), f"{where}the {what} of structure {id}")
        texts[what] = text.strip()
        if texts[what] != text:
            notes.add("has names or acronyms with spaces around them, which are removed", id)
    # A format without acronyms has no such field.
    acronym = texts["acronym"] or (texts["name"] if "acronym" not in fields else "")
    if not acronym:
        acronym = str(id)
        notes.add("has structures without an acronym, which get their identifier", id)
    if not texts["name"]:
        notes.add("has structures without a name, which get their acronym", id)
    return Row(
        id,
        None if absent(parent) else identifier(parent, f"the parent of structure {id}", where),
        None if absent(value) else label(value, f"the annotation_value of structure {id}", where),
        acronym,
        texts["name"] or acronym,
        "" if absent(colour) else _colour(colour, id, where, notes),
        None if absent(path := fields.get("path")) else _path(path, id, where),
        where,
    )


def absent(value: Any) -> bool:
    """Whether a cell is empty: None, a blank text, NaN or pandas.NA."""
    if isinstance(value, str):
        return not value or value.isspace()
    return value is None or (not isinstance(value, Sequence | np.ndarray) and str(value) in ("nan", "<NA>"))


def identifier(value: Any, what: str, where: str = "") -> Identifier:
    """An identifier: an int where its text is a whole number, else a text such as ``HOMBA:10154``.

    In a column with empty cells pandas writes ``997.0``.
    """
    if type(value) is int and 0 <= value <= _LARGEST_ID:
        return value
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < _MOST_DIGITS:
        return int(value)
    text = "" if isinstance(value, bool) or not isinstance(value, str | Integral | float) else str(value).strip()
    if match := re.fullmatch(r"(-?)0*([1-9][0-9]*|0)(\.0+)?", text):
        if match[1] and match[2] != "0":
            raise RecordError(
                f"{where}{what} is {brief(text)}; some files number the left and right side of a structure by sign, "
                "but labels are positive: give every structure its own positive number",
                code="negative-id",
            )
        if len(match[2]) <= _MOST_DIGITS and (number := int(match[2])) <= _LARGEST_ID:
            return number
    elif re.fullmatch(r"[^\W\d_][\w.:#+-]*", text) and len(text) <= _LONGEST_ID:
        return text
    raise RecordError(
        f"{where}{what} is {brief(value)}; it must be a whole number, or a name such as MBA:997", code="invalid-id"
    )


def label(value: Any, what: str, where: str = "") -> int:
    """The label of the voxels of a structure; 0 for none."""
    number = identifier(value, what, where)
    if not isinstance(number, int) or number > LARGEST_LABEL:
        raise RecordError(
            f"{where}{what} is {brief(value)}; it must be a whole number from 1 to {LARGEST_LABEL}", code="invalid-id"
        )
    return number


def _listed(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(name[:100] for name in names[:_NAMED]) + more


def _text(value: Any, what: str) -> str:
    """A name or an acronym; empty if it is absent."""
    if value is None:
        return ""
    if isinstance(value, Integral) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise RecordError(
            f"{what} is missing; pandas reads texts such as NA and null as missing: read the file with "
            "Terminology.read or keep_default_na=False",
            code="missing-value",
        )
    if len(value) > _LONGEST_TEXT:
        raise RecordError(
            f"{what} has {len(value)} characters; the most is {_LONGEST_TEXT}: {brief(value)}", code="text-too-long"
        )
    if _NOT_TEXT.search(value):
        raise RecordError(
            f"{what} is {brief(value)}; null characters and halves of surrogate pairs are not text", code="invalid-text"
        )
    return value


def _colour(colour: Any, id: Identifier, where: str, notes: Notes) -> str:
    """``#RRGGBB`` of such a text, or of red, green and blue from 0 to 255."""
    if isinstance(colour, str) and re.fullmatch(r"\[[\s0-9,]*\]", colour.strip()):
        colour = colour.strip()[1:-1].split(",")
    if isinstance(colour, Sequence | np.ndarray) and not isinstance(colour, str):
        channels = [str(channel).strip() for channel in colour[:3]]
        if len(channels) == 3 and all(re.fullmatch(r"[0-9]{1,3}(\.0)?", channel) for channel in channels):
            rgb = [int(float(channel)) for channel in channels]
            if max(rgb) <= 255:
                return "#{:02X}{:02X}{:02X}".format(*rgb)
    else:
        text = str(colour).strip()
        if re.fullmatch(r"#?[0-9A-Fa-f]{6}", text):
            return f"#{text.removeprefix('#')}"
        if re.fullmatch(r"[0-9A-Fa-f]{1,5}", text):
            notes.add("has colours that lost their leading zeros, which are restored", f"{id} ({text})")
            return f"#{text:0>6}"
    raise RecordError(
        f"{where}structure {id} has the colour {brief(colour)}; it must be #RRGGBB, or red, green, blue from 0 to 255",
        code="invalid-colour",
    )


def _path(value: Any, id: Identifier, where: str) -> tuple[Identifier, ...]:
    """The identifiers of ``[997, 8]``, ``/997/8/``, ``997/8``, or of a list."""
    if isinstance(value, str):
        text = value.strip()
        is_list = text[:1] == "[" and text[-1:] == "]"
        texts = text[1:-1].split(",") if is_list else text.strip("/").split("/")
        parts: list[Any] = [part.strip().strip("'\"") for part in texts]
    else:
        parts = list(value) if isinstance(value, Sequence | np.ndarray) else [value]
    if len(parts) > MOST_LEVELS:
        raise RecordError(
            f"{where}structure {id} has a path of {len(parts)} levels; the most is {MOST_LEVELS}",
            code="terminology-too-deep",
        )
    with suppress(RecordError):
        if path := tuple(identifier(part, "") for part in parts):
            return path
    raise RecordError(
        f"{where}structure {id} has the path {brief(value)}; it must be a list such as [997, 8] or /997/8/",
        code="invalid-path",
    )
