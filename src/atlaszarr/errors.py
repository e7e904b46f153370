"""The errors of atlaszarr: each is also a builtin exception, and its message says what to do.

`printable` makes text safe to show; every message of an error or a warning passes it.
"""

from __future__ import annotations

import re
import reprlib
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
        super().__init__(_bounded(printable(message)))
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
    """The Allen API does not answer, or answers with an error.

    Attributes
    ----------
    status : int or None
        HTTP status of the answer, if that is the error.
    """

    status: int | None = None


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

    def __init__(self, message: object) -> None:
        super().__init__(_bounded(printable(str(message))))


#: The most characters of a message, which is cut in its middle: a terminal of 80 x 25 shows 2000.
LONGEST_MESSAGE = 2000


def _bounded(message: str) -> str:
    """A message of at most `LONGEST_MESSAGE` characters: it begins with what is wrong, and ends with what to do."""
    half = LONGEST_MESSAGE // 2 - 5
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:half]} ... {message[-half:]}"


#: The beginning of a URL; no protocol that fsspec knows is longer. That of a common one may lack slashes.
_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://|(?i:https?|ftp|s3|gs|abfs):/?(?=[^/])")
_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(:/*)(.*)", re.DOTALL)
#: Protocols that have ``@`` without a user: ``abfs://container@account...``, ``github://owner:repository@commit/...``.
_WITH_AT = ("abfs", "abfss", "github")
#: Protocols of the local disk: a path may hold any character.
_LOCAL = ("file", "local")
#: Protocols whose URLs have a port, and parameters after ``;``.
_WITH_PORT = ("http", "https", "ftp", "sftp", "ssh")
#: Parameters of the Allen API, which hold no secret.
_PLAIN = frozenset(
    ("criteria", "num_rows", "start_row", "downsample", "quality", "range", "left", "top", "width", "height", "view")
)


def printable(text: str) -> str:
    """Return text as one line that is safe to show: `escaped`, and without the secrets of the URLs in it.

    URLs lose what `without_secrets` removes, except for parameters that all are of the Allen API.
    """
    line = escaped(text)
    return "".join(map(_printable_word, re.split(r"(\s+)", line))) if ":" in line else line


def escaped(text: str) -> str:
    """Return text with newlines and control characters escaped as Python does."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()
        for char in text
    )


def brief(value: object, most: int = 60) -> str:
    """Return the repr of a value, cut to `most` characters."""
    if isinstance(value, int) and value.bit_length() > 3 * most:
        return f"a number of more than {most} digits"
    if isinstance(value, str):
        value = value[:most]
    text = repr(value) if isinstance(value, str | int | float) else _REPR.repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def reason_of(error: Exception, most: int = 150) -> str:
    """Return in words what is wrong with a document, given what Python raised where it was read."""
    match error:
        case AtlaszarrError() | ValueError():
            text = printable(str(error))
            return text if len(text) <= most else f"{text[: most - 3]}..."
        case KeyError(args=(name, *_)):
            return f"it lacks {brief(name)}"
        case ArithmeticError():
            return "a number in it is out of range"
        case RecursionError():
            return "it is nested too deep"
    return "a value in it is of the wrong kind"


#: The repr of nested values, bounded before it is made.
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 200


def without_secrets(url: str) -> str:
    """Return a URL of one protocol without its user name and password, its parameters and its fragment."""
    found = _PARTS.fullmatch(url)
    if found is None or found[1].lower() in _LOCAL:
        return url
    protocol, separator, rest = found.groups()
    rest = re.split(r"[?#]", rest[len(user_of(url)) :])[0]
    if protocol.lower() in _WITH_PORT:
        rest = re.sub(r";[^/]*", "", rest)
    return protocol + separator + rest


def user_of(url: str) -> str:
    """The user name and password of a URL of one protocol with the ``@`` after them; empty if it has none.

    A password may hold ``/``, ``?`` and ``#``, as keys of S3 do: what is before ``@`` counts if it begins like
    ``name:password`` and not like ``host:port/``.
    """
    found = _PARTS.fullmatch(url)
    if found is None:
        return ""
    protocol, rest = found[1].lower(), found[3]
    authority = re.split(r"[/?#]", rest)[0]
    user, at, _ = authority.rpartition("@")
    if protocol in _WITH_AT:
        return user + at if at and protocol != "github" and ":" in user else ""
    if at:
        return user + at
    name, colon, port = authority.partition(":")
    is_host = not colon or name.startswith(("[", "arn")) or (protocol in _WITH_PORT and port.isdecimal())
    return "" if is_host else "".join(rest.rpartition("@")[:2])


def _printable_word(word: str) -> str:
    """A word without the secrets of the URLs in it; quotes and punctuation around them are kept."""
    starts = [found.start() for found in _PROTOCOL.finditer(word)]
    if not starts:
        return word
    bare = word.rstrip("()[]{}<>,.;:'\"")
    shown = word[: starts[0]]
    for start, end in zip(starts, [*starts[1:], len(bare)], strict=True):
        rest = bare[start:]
        cut = re.search(r"[?#]", rest)
        if cut and start + cut.start() < end:
            # A parameter may be another URL: all that follows is removed.
            names = {part.partition("=")[0] for part in rest[cut.end() :].split("&")}
            plain = cut[0] == "?" and "#" not in rest and names <= _PLAIN and not user_of(rest)
            shown += rest if plain else without_secrets(rest)
            break
        shown += without_secrets(bare[start:end])
    return shown + word[len(bare) :]
