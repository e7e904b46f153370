"""Paths and URLs as text: their normal form, their form without secrets, and whether two of them overlap."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from ..errors import InputError, brief, user_of, without_secrets

_PROTOCOL = r"[A-Za-z][A-Za-z0-9+.-]*"
#: The device and the inode of a file or folder.
_Identity = tuple[int, int]
#: A URL, which may be chained as in ``simplecache::https://...``.
_URL = re.compile(rf"(?:{_PROTOCOL}::)*{_PROTOCOL}://")
#: A URL that begins like ``name:password`` and not like ``host:port/``, and has no ``@``.
_PASSWORD = re.compile(rf"{_PROTOCOL}://(?![a-z]*arn:)[^:/?#@\[]*:(?![0-9]*(?:[/?#]|$))[^@]*")
#: Protocols of the local disk.
_LOCAL = ("file", "local")
#: The most characters of a location: RFC 9110 (4.1) asks servers for 8000, and paths of Linux have 4096.
_LONGEST = 8000
#: Characters of a longer location in a message.
_QUOTED = 80


def normalize(location: str | os.PathLike[str]) -> str:
    """Return the normal form of a location: an absolute local path, or a URL.

    Parameters
    ----------
    location : str or path-like
        A path, which may be relative and contain ``..`` and ``~``; a path after ``file://`` or ``local://``; any other
        URL. ``dir::`` before a URL is ignored, and ``s3a://`` is the same as ``s3://``.

    Returns
    -------
    str
        Contains ``://`` if it is a URL.

    Raises
    ------
    InputError
        If it is empty, too long, not text, or neither a path nor a URL; if a URL contains ``..``, a user name or a
        password, chains ``s3://`` behind another protocol, or has a protocol that is not known or whose package is not
        installed.
    """
    if not isinstance(location, str | os.PathLike) or not isinstance(text := os.fspath(location), str):
        raise InputError(f"{brief(location)} is not a location; give a path or a URL as text", code="wrong-type")
    if _URL.match(text.strip()):
        text = text.strip()
    if len(text) > _LONGEST:
        raise _too_long(text)
    if not text.strip() or "\0" in text:
        raise InputError(f"{text!r} is neither a path nor a URL; give one", code="not-a-location")
    if not _URL.match(text):
        _refuse_half_a_url(text)
        return str(_absolute(text))
    text = re.sub(rf"(?:^|(?<=::)){_PROTOCOL}(?=::|://)", lambda found: found[0].lower(), text)
    while text.startswith("dir::"):
        text = text.removeprefix("dir::")
    text = re.sub(r"(^|::)s3a://", r"\1s3://", text)
    if not text.isascii():
        _refuse_half_characters(text, "utf-8", "strict")
    protocol, _, rest = text.partition("://")
    if not rest.strip("/") and (protocol not in _LOCAL or not rest):
        raise InputError(f"URL {text!r} has no bucket or path; write it after ://", code="incomplete-url")
    if protocol in _LOCAL:
        return str(_absolute(rest))
    for part in _chained(text):
        name, _, rest = part.partition("://")
        if user_of(part):
            message = f"{name}://... holds a user name or password; give them as storage options"
            raise InputError(message, code="credentials-in-url")
        if ".." in re.split(r"[?#]", rest)[0].replace("\\", "/").split("/"):
            raise InputError(f"URL {shown(text)!r} contains '..'; write it without", code="malformed-url")
        _require(name, text)
    return text


def normalize_folder(location: str | os.PathLike[str]) -> str:
    """Same as `normalize`, for the location of many objects.

    Raises
    ------
    InputError
        For the reasons of `normalize`; if a URL has an empty or ``.`` part, parameters or a fragment.
    """
    text = normalize(location)
    if not is_url(text):
        return text
    if shown(text) != text:
        raise InputError(
            f"URL {shown(text)!r} has parameters or a fragment, which are not supported for an image, since it is many "
            "objects; write it without, and give credentials as storage options",
            code="url-with-parameters",
        )
    if "//" in text.rpartition("://")[2].rstrip("/") or "/./" in text:
        raise InputError(f"URL {text!r} has an empty or '.' part; write it without", code="malformed-url")
    return text.rstrip("/")


def local_path(location: str | os.PathLike[str]) -> Path | None:
    """The absolute path of a location on the local disk; None for any other URL.

    Raises
    ------
    InputError
        For the reasons of `normalize`.
    """
    text = normalize(location)
    return None if is_url(text) else Path(text)


def output_file(location: str | os.PathLike[str], suffixes: Sequence[str]) -> Path:
    """The path of an output file with one of the given suffixes, in a folder that exists.

    Raises
    ------
    InputError
        If the suffix is another, the path is a folder, or its folder does not exist; for the reasons of `output_path`.
    """
    path = output_path(location)
    if path.suffix.lower() not in suffixes or path.is_dir():
        message = f"output {str(path)!r} must be a file ending in {' or '.join(suffixes)}"
        raise InputError(message, code="unknown-suffix")
    if not path.parent.is_dir():
        message = f"output {str(path)!r} lies in a folder that does not exist; create it first"
        raise InputError(message, code="folder-not-found")
    return path


def output_path(location: str | os.PathLike[str]) -> Path:
    """The local path of an output, as it is given except for ``~``.

    Raises
    ------
    InputError
        If it is a URL, or for the reasons of `normalize`.
    """
    path, text = local_path(location), os.fspath(location)
    if path is None:
        raise InputError(f"output {shown(text)!r} is a URL; give a local file", code="not-a-local-path")
    return path if is_url(text) else _expanded(text)


def is_url(text: str) -> bool:
    """Whether a location is a URL, not a path."""
    return _URL.match(text) is not None


def protocol_of(location: str | os.PathLike[str]) -> str:
    """The protocol of a URL, with those chained before it; empty for a local path."""
    text = normalize(location)
    return text.partition("://")[0] if is_url(text) else ""


def options_for(
    source: str | os.PathLike[str], target: str | os.PathLike[str] | None, storage_options: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """The storage options of a source: those given, if it has the protocol of the target or the target is a path."""
    own, others = protocol_of(source), "" if target is None else protocol_of(target)
    return storage_options if own and others in ("", own) else None


def options_of_target(
    target: str | os.PathLike[str], storage_options: Mapping[str, Any] | None, *sources: object
) -> Mapping[str, Any] | None:
    """The storage options of a target: those given, but none for a path if one of the sources is a URL."""
    paths = [source for source in sources if isinstance(source, str | os.PathLike)]
    return storage_options if protocol_of(target) or not any(map(protocol_of, paths)) else None


def shown(location: str | os.PathLike[str]) -> str:
    """Return a location without secrets, for messages and records.

    A URL loses its user name and password, and its parameters and fragment, which may be signatures.
    """
    text = os.fspath(location)
    if not is_url(text.strip()):
        return text
    return "::".join(map(without_secrets, _chained(text.strip())))


def overlap(one: str, other: str) -> bool:
    """Whether two locations are the same, or one is inside the other; see `overlapping`."""
    return overlapping([one], [other]) is not None


def overlapping(ones: Iterable[str], others: Iterable[str]) -> tuple[str, str] | None:
    """The first location in `ones` and in `others` that are the same, or one of which is inside the other.

    Links in local paths are resolved. URLs are compared without their protocols, since a store may have several.
    """
    identity = cache(_identity)  # of folders that many of the locations are in
    seconds = [_Place.of(other, identity) for other in others]
    for first in (_Place.of(one, identity) for one in ones):
        for second in seconds:
            if first.overlaps(second):
                return first.text, second.text
    return None


@dataclass(frozen=True)
class _Place:
    """A location and all folders that it is inside.

    One folder may have two paths: upper and lower case on some disks, or a folder that is mounted twice.

    Attributes
    ----------
    text : str
    path : PurePath
        Resolved; a Path if it is local.
    paths : set of PurePath
        The path and its folders.
    own : tuple of int or None
        The identity of what is there on the local disk.
    identities : set
        The identities of the path and its folders, as far as they exist.
    """

    text: str
    path: PurePath
    paths: frozenset[PurePath]
    own: _Identity | None
    identities: frozenset[_Identity | None]

    @classmethod
    def of(cls, text: str, identity: Callable[[Path], _Identity | None]) -> _Place:
        path = _resolved(text)
        paths = frozenset((path, *path.parents))
        if not isinstance(path, Path):
            return cls(text, path, paths, None, frozenset())
        return cls(text, path, paths, identity(path), frozenset(map(identity, (path, *path.parents))) - {None})

    def overlaps(self, other: _Place) -> bool:
        """Whether one of the two is the other, or inside it."""
        if isinstance(self.path, Path) != isinstance(other.path, Path):
            return False
        if self.path in other.paths or other.path in self.paths:
            return True
        return self.own in other.identities or other.own in self.identities


def _identity(path: Path) -> _Identity | None:
    """What two paths of one file or folder have in common; None if there is none."""
    with suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def _resolved(text: str) -> PurePath:
    last = _chained(text)[-1] if is_url(text) else text
    protocol, separator, rest = last.partition("://")
    if not separator or protocol.lower() in _LOCAL:
        return Path(os.path.realpath(_absolute(rest or last)))
    return PurePosixPath("/", re.split(r"[?#]", rest)[0])


def _chained(url: str) -> list[str]:
    """The parts of a chained URL, up to the last part that is a URL; a password may hold ``::``."""
    parts: list[str] = []
    for part in re.split(r"::(?![^\[\]]*\])", url):  # an IPv6 address has :: too
        if parts and "@" in part and _PASSWORD.fullmatch(parts[-1]):
            parts[-1] += f"::{part}"
        else:
            parts.append(part)
    last = max(position for position, part in enumerate(parts) if "://" in part)
    return parts[: last + 1]


def _expanded(text: str) -> Path:
    """A path with the home folder for ``~``; ``./~`` begins a name, which pathlib does not keep apart."""
    return Path(text).expanduser() if text.startswith("~") else Path(text)


def _absolute(text: str) -> Path:
    try:
        path = _expanded(text).absolute()
    except RuntimeError:
        message = f"path {text!r} begins with a user without a home folder; write ./~ for a name that begins with ~"
        raise InputError(message, code="unknown-user") from None
    _refuse_half_characters(text, sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _too_long(text) from None
    # '..' after a link is the folder above the destination of the link.
    return Path(os.path.realpath(path)) if ".." in path.parts else path


def _too_long(text: str) -> InputError:
    start = without_secrets(text)[:_QUOTED]
    message = f"path or URL {start!r}... has {len(text)} characters, or a part that is too long; give a shorter one"
    return InputError(message, code="not-a-location")


def _refuse_half_characters(text: str, encoding: str, errors: str) -> None:
    """Refuse text that no file or URL can have: it has half surrogates, which are no characters."""
    try:
        text.encode(encoding, errors)
    except UnicodeEncodeError:
        message = f"{text[:_QUOTED]!r} is neither a path nor a URL: it holds half of a character; give it as text"
        raise InputError(message, code="not-a-location") from None


def _refuse_half_a_url(text: str) -> None:
    """Refuse a mistyped URL, such as ``s3:/bucket``, which is ``s3://bucket`` after `pathlib`."""
    found = re.match(rf"({_PROTOCOL}):([/:]?)", text)
    if found is None or len(found[1]) == 1:
        return
    from fsspec.registry import known_implementations

    if not found[2] and found[1].lower() not in known_implementations:
        return
    protocol, rest = found[1].lower(), text[found.end(1) + 1 :]
    url = f"{protocol}://{rest if protocol in _LOCAL else rest.lstrip('/')}"
    typed = text[: found.end()] + shown(url).partition("://")[2]
    if found[2] == ":":
        typed, url = re.split(r"[?#]", text)[0], f"{protocol}::protocol://bucket/path"
    raise InputError(f"{typed!r} is neither a path nor a URL; write {shown(url)!r}", code="not-a-location")


def _require(protocol: str, url: str) -> None:
    """Refuse a protocol that is not known or not supported in a chain, or whose package is not installed."""
    if protocol == "s3":
        if len(_chained(url)) > 1:
            message = f"cannot open {shown(url)!r}: s3:// is not supported behind another protocol"
            raise InputError(message, code="not-supported")
        return
    from fsspec.registry import get_filesystem_class, known_implementations

    try:
        get_filesystem_class(protocol)
    except ImportError as error:
        cause = known_implementations.get(protocol, {}).get("err") or error
        raise InputError(f"cannot open {shown(url)!r}: {cause}", code="missing-dependency") from None
    except ValueError:
        message = f"cannot open {shown(url)!r}: protocol {protocol!r} is not known; check the URL"
        raise InputError(message, code="unknown-protocol") from None
