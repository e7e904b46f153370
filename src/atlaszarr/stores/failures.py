"""What a store raises, as errors of this package: they name the target or file and no credential."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import AtlaszarrError, InputError, NotFoundError, SourceError, TargetError

#: The HTTP status in an error of obstore, and the store's word for it.
_STATUS = re.compile(r"status code: (\d{3})")
_WORD = re.compile(r"<Code>(\w+)</Code>")
#: What to do about a status or a word; about others, whether the fault is the store's.
_ADVICE: dict[int | str, str] = {
    "NoSuchBucket": "create the bucket, or correct the URL",
    "SlowDown": "it is overloaded: run the same command later, or with fewer workers",
    301: "the bucket is in another region: give storage option region_name",
    307: "the bucket is in another region: give storage option region_name",
    401: "check the credentials and their rights",
    403: "check the credentials and their rights",
    429: "it is overloaded: run the same command later, or with fewer workers",
    501: "it does not support this request: choose another store",
}
_OTHERWISE = {False: "check the URL, the region and the credentials", True: "run the same command later"}


@contextmanager
def reading(name: str, connecting: bool = True) -> Iterator[None]:
    """Turn what a store raises while a file is read into a NotFoundError, SourceError or InputError that names it."""
    try:
        yield
    except AtlaszarrError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        # fsspec raises this for whatever happens when it opens a file over HTTP, with what happened as the cause.
        cause = error.__cause__
        if isinstance(cause, Exception) and from_client_library(cause):
            status = getattr(cause, "status", None)
            if status not in (404, 410):
                said = reason(cause) if status is None else f"HTTP {status}"
                raise SourceError(f"cannot read {name}: {said}") from None
        raise NotFoundError(f"there is no file {name}; check the path or the URL") from None
    except Exception as error:
        raise as_error(error, f"cannot read {name}", SourceError, connecting) from None


def as_error(
    error: Exception, what: str, kind: type[SourceError] | type[TargetError], connecting: bool
) -> AtlaszarrError:
    """An error of this package for what a store raised, whatever its class; `what` says what failed, and where."""
    # A store's own library raises these for options that it does not know, at the latest when it first connects.
    if connecting and isinstance(error, TypeError | ValueError | ImportError):
        return InputError(f"{what}: {type(error).__name__}; check the URL and the storage options")
    return kind(f"{what}: {reason(error)}")


def from_client_library(error: Exception) -> bool:
    """Whether an error comes from a library that speaks to stores and has error classes of its own."""
    return type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp", "obstore")


def reason(error: Exception) -> str:
    """Why a store refused and what to do; the message of the store itself may hold a key and is not shown."""
    said, name = str(error).partition("Debug source:")[0], type(error).__name__
    word = _WORD.search(said)
    if (status := _status(error, said)) is not None:
        advice = (word and _ADVICE.get(word[1])) or _ADVICE.get(status) or _OTHERWISE[status >= 500]
        return f"the store answers HTTP {status}{f' {word[1]}' if word else ''}; {advice}"
    if name in ("PermissionDeniedError", "UnauthenticatedError", "PermissionError"):
        return "the store does not allow it; check the credentials and their rights"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, TimeoutError) or any(
        word in said for word in ("error sending request", "imeout", "timed out")
    ):
        return "the store does not answer"
    return name


def _status(error: Exception, said: str) -> int | None:
    """The HTTP status of the store's answer, if its error has one."""
    if "redirect without LOCATION" in said:
        return 301
    if found := _STATUS.search(said):
        return int(found[1])
    stated = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((code for code in stated if isinstance(code, int) and 300 <= code < 600), None)
