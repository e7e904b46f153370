"""What a store raises, as errors of this package: they name the target or file and show no credential."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import AtlaszarrError, InputError, NotFoundError, SourceError, TargetError

#: The HTTP status in an error of obstore, and the error code of S3.
_STATUS = re.compile(r"status code: (\d{3})")
_WORD = re.compile(r"<Code>(\w+)</Code>")
_DENIED = "access-denied", "check the credentials and their rights"
_REGION = "wrong-region", "the bucket is in another region: give storage option region_name"
_OVERLOADED = "store-overloaded", "it is overloaded: run the same command later, or with fewer workers"
#: Code and advice for an HTTP status or an error code of S3; all others depend on whether the store has failed.
_ADVICE: dict[int | str, tuple[str, str]] = {
    "NoSuchBucket": ("bucket-not-found", "create the bucket, or correct the URL"),
    "SlowDown": _OVERLOADED,
    301: _REGION,
    307: _REGION,
    401: _DENIED,
    403: _DENIED,
    429: _OVERLOADED,
    501: ("not-supported", "it does not support this request: choose another store"),
}
_OTHERWISE = {
    False: ("request-refused", "check the URL, the region and the credentials"),
    True: ("store-error", "run the same command later"),
}


@contextmanager
def reading(name: str, connecting: bool = True) -> Iterator[None]:
    """Turn what a store raises while a file is read into a NotFoundError, SourceError or InputError that names it."""
    try:
        yield
    except AtlaszarrError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        # fsspec raises this for any failure to open a file over HTTP, with the failure as its cause.
        cause = error.__cause__
        if isinstance(cause, Exception) and from_client_library(cause) and _status(cause, "") not in (404, 410):
            raise as_error(cause, f"cannot read {name}", SourceError, connecting=False) from None
        raise NotFoundError(f"there is no file {name}; check the path or the URL", code="file-not-found") from None
    except Exception as error:
        raise as_error(error, f"cannot read {name}", SourceError, connecting) from None


def as_error(
    error: Exception, what: str, kind: type[SourceError] | type[TargetError], connecting: bool
) -> AtlaszarrError:
    """Return the error of this package for an exception of a store; `what` is the operation that failed.

    The message of the exception may hold a key and is not shown.
    """
    # The library of a store raises these for options that it does not know, at the latest when it first connects.
    if connecting and isinstance(error, TypeError | ValueError | ImportError):
        message = f"{what}: {type(error).__name__}; check the URL and the storage options"
        return InputError(message, code="invalid-storage-options")
    code, reason = _diagnose(error)
    return kind(f"{what}: {reason}", code=code)


def from_client_library(error: Exception) -> bool:
    """Whether an exception comes from a library that connects to stores and has exceptions of its own."""
    return type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp", "obstore")


def _diagnose(error: Exception) -> tuple[str, str]:
    """The code of a fault, and its cause with what to do."""
    text, name = str(error).partition("Debug source:")[0], type(error).__name__
    word = _WORD.search(text)
    if (status := _status(error, text)) is not None:
        code, advice = (word and _ADVICE.get(word[1])) or _ADVICE.get(status) or _OTHERWISE[status >= 500]
        return code, f"the store answers HTTP {status}{f' {word[1]}' if word else ''}; {advice}"
    if name in ("PermissionDeniedError", "UnauthenticatedError", "PermissionError"):
        return "access-denied", "the store does not allow it; check the credentials and their rights"
    if isinstance(error, OSError) and error.strerror:
        return "store-error", error.strerror
    if isinstance(error, TimeoutError) or re.search("error sending request|imeout|timed out", text):
        return "store-unreachable", "the store does not answer"
    return "store-error", name


def _status(error: Exception, text: str) -> int | None:
    """The HTTP status in an exception, if it has one."""
    if "redirect without LOCATION" in text:
        return 301
    if found := _STATUS.search(text):
        return int(found[1])
    values = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((value for value in values if isinstance(value, int) and 300 <= value < 600), None)
