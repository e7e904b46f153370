"""The errors of atlaszarr: each is also a builtin exception, and its message says what to do."""

from __future__ import annotations

import unicodedata
from functools import partial
from typing import Any


class AtlaszarrError(Exception):
    """Base of all errors of atlaszarr.

    Parameters
    ----------
    message : str
        What is wrong (the value), where, and what to do.
    code : str
        A stable name of the fault, such as ``target-not-empty``: messages may change, codes do not.
    """

    code: str

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), code=self.code), self.args, self.__dict__


class InputError(AtlaszarrError, ValueError):
    """An argument is not valid; nothing was written."""


class NotFoundError(AtlaszarrError, LookupError):
    """A file, a dataset or an image does not exist."""


class RecordError(AtlaszarrError, ValueError):
    """A metadata record is inconsistent, or a value that a registration needs is missing."""


class ServiceError(AtlaszarrError, OSError):
    """The Allen API does not answer, or answers with an error."""


class SourceError(AtlaszarrError, OSError):
    """A file, such as a reference volume or a terminology, cannot be read."""


class ImageError(AtlaszarrError, OSError):
    """A section image is missing or damaged."""


class TargetError(AtlaszarrError, OSError):
    """A target cannot be read or written."""


class SchedulerError(AtlaszarrError, OSError):
    """A Dask scheduler or its workers have failed; what was written is kept."""


class AtlaszarrWarning(UserWarning):
    """A result needs the attention of the user."""


def printable(text: str) -> str:
    """Escape newlines and control characters as Python does, so that text is one line and safe for a terminal."""
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()
        for char in text
    )
