"""The errors a user can cause or meet: each is also the builtin it resembles, and says what to do."""

from __future__ import annotations

import unicodedata


class AtlaszarrError(Exception):
    """Base of every error that atlaszarr raises on purpose."""


class InputError(AtlaszarrError, ValueError):
    """A value given by the user cannot be used; nothing was written."""


class NotFoundError(AtlaszarrError, LookupError):
    """What was asked for does not exist at the source."""


class RecordError(AtlaszarrError, ValueError):
    """A metadata record contradicts itself or lacks what a registration needs."""


class ServiceError(AtlaszarrError, OSError):
    """The Allen API could not be reached, or answered with an error."""


class SourceError(AtlaszarrError, OSError):
    """A file of an atlas, as a reference volume or a terminology, could not be read."""


class ImageError(AtlaszarrError, OSError):
    """A section image could not be had, or failed its checks."""


class TargetError(AtlaszarrError, OSError):
    """A target cannot be written, or holds something else."""


class AtlaszarrWarning(UserWarning):
    """What was done all the same, and should be looked at."""


def printable(text: str) -> str:
    """Text on one line, safe for a terminal: newlines and control characters are escaped as Python escapes them."""
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()
        for char in text
    )
