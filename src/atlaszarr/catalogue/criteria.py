"""The criteria of a query, in the syntax of the Allen API's query language and for the columns of a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError

#: Characters that RMA, the query language, cannot escape.
_UNSAFE = frozenset("'\"[](),$:;\\")


@dataclass(frozen=True)
class Criterion:
    """A criterion on an attribute of a record, or of the records associated with it, of which one must meet it.

    Attributes
    ----------
    attribute : str
    operator : str
        ``eq``, ``gt``, ``in`` (one of several numbers), or ``il``: equal text in any case, where ``*`` matches any
        characters.
    value : int, str, or sequence of int
    association : str, optional
        Name of the association, such as ``genes``.
    name : str
        Name of the value in messages; default the attribute.
    """

    attribute: str
    operator: str
    value: int | str | Sequence[int]
    association: str = ""
    name: str = ""

    def __str__(self) -> str:
        """The criterion in RMA, such as ``genes[acronym$il'Prox1']``; InputError as for `literal`."""
        if isinstance(self.value, int | str):
            text = literal(self.name or self.attribute, self.value)
        else:
            text = ",".join(map(str, self.value))
        return f"{self.association}[{self.attribute}${self.operator}{text}]"


def literal(name: str, value: object) -> str:
    """A value in RMA's syntax: whole numbers as they are, text in single quotes.

    Raises
    ------
    InputError
        If the text holds a character that RMA cannot escape, or that is not printable.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = str(value)
    if not text.isprintable():
        raise InputError(f"{name} {text!r} has characters that are not printable", code="unsupported-character")
    if bad := sorted(_UNSAFE.intersection(text)):
        raise InputError(
            f"{name} {text!r} has {' '.join(bad)}, which a query to the Allen API cannot express",
            code="unsupported-character",
        )
    return f"'{text}'"
