"""What a store raises, as errors of this package: they name the target or file and show no credential."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import AtlaszarrError, InputError, NotFoundError, SourceError, TargetError

#: The HTTP status in an error of obstore, the error code of S3, and the region that S3 expects.
_STATUS = re.compile(r"status code: (\d{3})")
_WORD = re.compile(r"<Code>(\w+)</Code>")
_BUCKET_REGION = re.compile(r"<Region>([a-z0-9-]+)</Region>")
#: An error code of a store, as the exceptions of its library have it; any other text may hold a secret.
_PLAIN_WORD = re.compile(r"[A-Za-z]{3,60}")
#: What obstore says of an answer that has other bytes than those that were asked for.
_OTHER_RANGE = re.compile(r"Requested \d+\.\.\d+, got|Content-Range header not present|value for CONTENT_RANGE")
_DENIED = "access-denied", "check the credentials and their rights"
_EXPIRED = "access-denied", "the credentials have expired: renew them, then run the same command"
_FORBIDDEN = (
    "store-forbidden",
    "check the credentials and their rights, or whether the object exists: a store whose objects may not be listed "
    "answers the same for an absent one",
)
_REGION = (
    "wrong-region",
    "the bucket is in another region or at another endpoint: give storage option region_name or endpoint_url",
)
_OVERLOADED = "store-overloaded", "it is overloaded: run the same command later, or with fewer workers"
#: Code and advice for an HTTP status or an error code of S3; all others depend on whether the store has failed.
_ADVICE: dict[int | str, tuple[str, str]] = {
    "AccessDenied": _FORBIDDEN,
    "ExpiredToken": _EXPIRED,
    "InvalidAccessKeyId": _DENIED,
    "InvalidToken": _DENIED,
    "NoSuchBucket": ("bucket-not-found", "create the bucket, or correct the URL"),
    "RequestTimeTooSkewed": ("access-denied", "the clock of this machine is wrong: set it"),
    "SignatureDoesNotMatch": _DENIED,
    "SlowDown": _OVERLOADED,
    "TokenRefreshRequired": _EXPIRED,
    301: _REGION,
    307: _REGION,
    401: _DENIED,
    403: _FORBIDDEN,
    407: ("access-denied", "the proxy asks for credentials: write them into HTTP_PROXY or HTTPS_PROXY"),
    429: _OVERLOADED,
    501: ("not-supported", "it does not support this request: choose another store"),
    503: _OVERLOADED,
}
_NOT_ALLOWED = "access-denied", "the store does not allow it; check the credentials and their rights"
_MALFORMED = "malformed"
#: Code and cause for an exception, by the name of its class.
_BY_NAME = {
    "PermissionDeniedError": _NOT_ALLOWED,
    "PermissionError": _NOT_ALLOWED,
    "TooManyRedirects": ("too-many-redirects", "the server redirects too often; check the URL"),
    "UnauthenticatedError": _NOT_ALLOWED,
    "WrongRangeError": (
        "wrong-range",
        "the server sends other bytes of the file than those that were asked for; check the server, or download the "
        "file and give its path",
    ),
    _MALFORMED: ("store-error", "its answer is not valid HTTP (it may be longer than its length); check the server"),
}
#: Code of an error of a disk, and what to do about it.
_DISK = {
    errno.ENOSPC: ("disk-full", "; free some space, then run the same command"),
    errno.EDQUOT: ("disk-full", "; free some space or ask for a larger quota, then run the same command"),
    errno.EROFS: ("read-only", "; choose a folder that can be written to"),
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
        if isinstance(cause, Exception) and _is_failure(cause):
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


def _is_failure(error: Exception) -> bool:
    """Whether an exception says more than that a file is missing: not even whether there is one."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return False
    return (from_client_library(error) or isinstance(error, OSError)) and _status(error, "") not in (404, 410)


def disk_code(error: OSError) -> str:
    """The code of an error of a disk."""
    return _DISK.get(error.errno or 0, ("store-error", ""))[0]


def is_passing(error: Exception) -> bool:
    """Whether a request may succeed if it is sent again: no answer, half of one, or a server that is overloaded."""
    if not (isinstance(error, ConnectionError | TimeoutError) or from_client_library(error)):
        return False
    status = _status(error, str(error))
    return status is None or status in (408, 429) or status >= 500


def is_beyond_end(error: Exception) -> bool:
    """Whether a store answers that an object ends before the range that was asked for (HTTP 416)."""
    return _status(error, str(error)) == 416


def is_forbidden(error: Exception) -> bool:
    """Whether a store answers 403 without a fault of the credentials, as it does for an object that is absent."""
    return _diagnose(error)[0] == "store-forbidden"


def is_missing_bucket(error: Exception) -> bool:
    """Whether the bucket of an object does not exist."""
    return _diagnose(error)[0] == "bucket-not-found"


def _diagnose(error: Exception) -> tuple[str, str]:
    """The code of a fault, and its cause with what to do."""
    text = str(error).partition("Debug source:")[0]
    name = "WrongRangeError" if _OTHER_RANGE.search(text) else type(error).__name__
    word = _word(error, text)
    if (status := _status(error, text)) is not None:
        code, advice = _ADVICE.get(word) or _ADVICE.get(status) or _OTHERWISE[status >= 500]
        if region := _BUCKET_REGION.search(text):
            code, advice = "wrong-region", f"the bucket is in region {region[1]}: give it as storage option region_name"
        return code, f"the store answers HTTP {status}{f' {word}' if word else ''}; {advice}"
    if (known := _BY_NAME.get(_MALFORMED if _is_malformed(error) else name)) is not None:
        return known
    if "range requests" in text or "non-partial response" in text:  # of fsspec, of obstore
        return "not-supported", "the server sends no parts of files; download it, and give its path"
    if isinstance(error, OSError) and error.strerror:
        code, advice = _DISK.get(error.errno or 0, ("store-error", ""))
        return code, error.strerror + advice
    if isinstance(error, TimeoutError) or re.search("error sending request|imeout|timed out", text):
        return "store-unreachable", "the store does not answer"
    return "store-error", name


def _is_malformed(error: Exception) -> bool:
    """Whether aiohttp could not parse an answer; it reports status 400 then, which the server has not sent."""
    return any(type(one).__module__ == "aiohttp.http_exceptions" for one in (error, error.__cause__))


def _word(error: Exception, text: str) -> str:
    """The store's own word for an error: the error code of S3, or that in an exception of another library."""
    if found := _WORD.search(text):
        return found[1]
    values = (getattr(error, name, None) for name in ("error_code", "code") if not hasattr(error, "status"))
    return next((str(value) for value in values if isinstance(value, str) and _PLAIN_WORD.fullmatch(value)), "")


def _status(error: Exception, text: str) -> int | None:
    """The HTTP status in an exception, if it has one."""
    if _is_malformed(error):
        return None
    if "redirect without LOCATION" in text:
        return 301
    if found := _STATUS.search(text):
        return int(found[1])
    names = ("status",) if hasattr(error, "status") else ("status_code", "code")  # `code` of aiohttp is deprecated
    values = (getattr(error, name, None) for name in names)
    return next((value for value in values if isinstance(value, int) and 300 <= value < 600), None)
