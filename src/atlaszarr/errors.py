"""The errors that a user can cause or meet: each is also the builtin it resembles, and says what to do."""

from __future__ import annotations

import unicodedata
from functools import partial
from typing import Any


class AtlaszarrError(Exception):
    """Base of every error that atlaszarr raises on purpose.

    Parameters
    ----------
    message : str
        What is wrong (the value), where, and what to do.
    code : str
        A stable name of the fault, such as ``target-not-empty``: messages may change, codes do not.
    """

    code: str

    def __init__(self, message: str, *, code: str = "unknown") -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), code=self.code), self.args, self.__dict__


class InputError(AtlaszarrError, ValueError):
    """A value given by the user cannot be used; nothing was written."""


class NotFoundError(AtlaszarrError, LookupError):
    """The source does not have what was asked for."""


class RecordError(AtlaszarrError, ValueError):
    """A metadata record contradicts itself or lacks what a registration needs."""


class ServiceError(AtlaszarrError, OSError):
    """The Allen API does not answer, or answers with an error."""


class SourceError(AtlaszarrError, OSError):
    """A file, such as a reference volume or a terminology, cannot be read."""


class ImageError(AtlaszarrError, OSError):
    """A section image is missing, or failed its checks."""


class TargetError(AtlaszarrError, OSError):
    """A target cannot be read or written."""


class AtlaszarrWarning(UserWarning):
    """A remark on a result that should be looked at."""


def printable(text: str) -> str:
    """Text on one line, safe for a terminal: newlines and control characters are escaped as Python escapes them."""
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()
        for char in text
    )
