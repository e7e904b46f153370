"""Objects on S3 through obstore, which has a timeout for every request; the options have the names of s3fs.

s3fs has none for a put: it waits forever if the server freezes after it has accepted the connection.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, PermissionDeniedError, PreconditionError
from obstore.store import S3Store

from ..errors import InputError
from .backend import (
    LARGEST_OBJECT,
    Backend,
    ConcurrentUploads,
    Part,
    TooLargeError,
    Uploads,
    WrongRangeError,
    timeout_of,
)
from .failures import is_beyond_end, is_forbidden, is_missing_bucket

#: Time after which credentials are requested again from their provider.
_CREDENTIALS = timedelta(minutes=10)
#: Stores that are kept open: two for each bucket and its options, of which an atlas and its sources have a few.
_SHARED = 16
#: Seconds after which two processes that put the same object, without conditional puts, read the same body.
_SETTLING = 1.0

_CONFIG = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "token": "session_token",
    "anon": "skip_signature",
    "endpoint_url": "endpoint",
    "region_name": "region",
    "requester_pays": "request_payer",
}
_OPTIONS = (*_CONFIG, "profile", "timeout", "client_kwargs")


class S3Backend(Backend):
    """Objects under a prefix of a bucket; the root is the object at the prefix itself.

    Parameters
    ----------
    url : str
        ``s3://bucket/prefix``.
    options : mapping
        Same as in s3fs: ``key``, ``secret``, ``token``, ``anon``, ``profile``, ``requester_pays``, ``endpoint_url``,
        and ``client_kwargs`` with ``endpoint_url`` and ``region_name``. Without a key, credentials come from the
        environment and the configuration files of the AWS tools. ``timeout`` is the longest duration of a request in
        seconds, and how long a failed request is retried; 30 by default.
    forbidden_is_absent : bool
        Whether an object for which the store answers 403 AccessDenied counts as absent.

    Raises
    ------
    InputError
        If an option or its value is not valid, or if credentials are missing.
    """

    def __init__(self, url: str, options: Mapping[str, Any], forbidden_is_absent: bool = False) -> None:
        self._forbidden_is_absent = forbidden_is_absent
        bucket, _, self._root = url.partition("://")[2].partition("/")
        given = {**options, **dict(options.get("client_kwargs") or {})}
        if unknown := sorted(set(given) - set(_OPTIONS)):
            message = f"storage option {unknown[0]!r} is not known for S3; choose from {', '.join(_OPTIONS)}"
            raise InputError(message, code="unknown-option")
        config: Any = {_CONFIG[name]: value for name, value in given.items() if name in _CONFIG and value is not None}
        session = cache(partial(_session, given.get("profile")))  # reads files: only if an option is missing
        if given.get("profile") is not None:
            session()
        if "region" not in config:
            config["region"] = session().get_config_variable("region") or "us-east-1"
        if "endpoint" not in config:
            settings = {**session().get_scoped_config(), **os.environ}
            for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "endpoint_url"):
                if settings.get(name):
                    config.setdefault("endpoint", settings[name])
        if not str(config.get("endpoint", "https://")).startswith(("http://", "https://")):
            host = str(config["endpoint"]).rpartition("@")[2]  # without a password
            message = f"storage option endpoint_url {host!r} must begin with https:// or http://"
            raise InputError(message, code="invalid-storage-options")
        if ("access_key_id" in config) != ("secret_access_key" in config):
            raise InputError("storage options key and secret must be given together", code="missing-credentials")
        timeout = timedelta(seconds=timeout_of(given))
        if "access_key_id" not in config and not config.get("skip_signature"):
            opened = partial(_opened, bucket, config, timeout, _credentials(session()))
        else:
            opened = partial(_shared, _surroundings(), bucket, tuple(sorted(config.items())), timeout)
        self._store, self._once = opened(10), opened(0)
        self._conditional = True

    def read(self, key: str, most: int = LARGEST_OBJECT) -> bytes | None:
        """Same as in `Backend`."""
        found = self.read_tagged(key, most)
        return None if found is None else found[0]

    def read_range(self, key: str, start: int, stop: int, most: int) -> Part | None:
        """Same as in `Backend`."""
        try:
            found = self._get(key, {"range": (start, stop)})
        except Exception as error:
            if is_beyond_end(error):
                return Part(start, b"", 0, None)
            raise
        if found is None:
            return None
        tag = (found.meta["e_tag"] or "").strip('"') or None
        first, end = found.range
        body = bytes(found.bytes())
        if len(body) != end - first:
            raise WrongRangeError
        return Part(first, body, int(found.meta["size"]), tag)

    def open(self, key: str) -> Any:
        """Same as in `Backend`; the file is read in ranges of a megabyte."""
        return obstore.open_reader(self._store, self._path(key))

    def uploads(self) -> Uploads:
        """Same as in `Backend`."""
        return ConcurrentUploads(self._put, 0)

    def put_file(self, key: str, path: Path) -> None:
        """Same as in `Backend`; a file of more than 5 MB is put in parts of that size, which become visible at once."""
        obstore.put(self._store, self._path(key), path)

    def create(self, key: str, body: bytes) -> bool:
        """Same as in `Backend`; without conditional puts, two concurrent calls may both succeed if puts are slow."""
        if (created := self._put_if(key, body, "create")) is not None:
            return created
        if self.read(key) is not None:
            return False
        obstore.put(self._store, self._path(key), body, use_multipart=False)
        time.sleep(_SETTLING)
        return self.read(key) == body

    def read_tagged(self, key: str, most: int = LARGEST_OBJECT) -> tuple[bytes, str | None] | None:
        """Same as in `Backend`."""
        found = self._get(key)
        if found is None:
            return None
        if found.meta["size"] > most:
            raise TooLargeError(key, most)
        return bytes(found.bytes()), found.meta["e_tag"]

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        """Same as in `Backend`; without conditional puts, the object is always replaced."""
        replaced = None if tag is None else self._put_if(key, body, {"e_tag": tag})
        if replaced is not None:
            return replaced
        obstore.put(self._store, self._path(key), body, use_multipart=False)
        return True

    def _put_if(self, key: str, body: bytes, mode: Any) -> bool | None:
        """Put an object on a condition and return whether it was put; None if the server answers 501 to conditions."""
        for store in (self._once, self._store):  # the second retries
            if not self._conditional:
                return None
            try:
                obstore.put(store, self._path(key), body, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
                if is_missing_bucket(error):
                    raise
                return False
            except Exception as error:
                if "status code: 501" in str(error) or "<Code>NotImplemented</Code>" in str(error):
                    self._conditional = False
                elif store is self._store:
                    raise
            else:
                return True
        return None

    def sizes(self, prefix: str) -> dict[str, int]:
        """Same as in `Backend`."""
        found = {}
        folder = f"{self._root}/{prefix}".rstrip("/")
        for page in obstore.list(self._store, folder, chunk_size=1000):
            for item in page:
                found[item["path"].removeprefix(f"{self._root}/")] = int(item["size"])
        if prefix and not found:  # a listing has the objects under a prefix, and not the one at it
            with suppress(FileNotFoundError):
                found[prefix] = int(obstore.head(self._store, folder)["size"])
        return found

    def entries(self, folder: str) -> dict[str, bool]:
        """Same as in `Backend`."""
        listed = obstore.list_with_delimiter(self._store, f"{self._root}/{folder}".strip("/"))
        folders = {path.rstrip("/").rpartition("/")[2]: True for path in listed["common_prefixes"]}
        return folders | {item["path"].rpartition("/")[2]: False for item in listed["objects"]}

    def delete(self, keys: Iterable[str]) -> None:
        """Same as in `Backend`."""
        if paths := [self._path(key) for key in keys]:
            obstore.delete(self._store, paths)

    def modified(self, key: str) -> datetime | None:
        """Same as in `Backend`."""
        return obstore.head(self._store, self._path(key))["last_modified"]

    def _get(self, key: str, options: Any = None) -> Any:
        """The answer of obstore for an object; None if it is missing."""
        try:
            return obstore.get(self._store, self._path(key), options=options)
        except FileNotFoundError as error:
            if is_missing_bucket(error):
                raise
            return None
        except PermissionDeniedError as error:
            if self._forbidden_is_absent and is_forbidden(error):
                return None
            raise

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def _put(self, bodies: Mapping[str, bytes]) -> None:
        for key, body in bodies.items():
            obstore.put(self._store, self._path(key), body)


def _credentials(session: Any) -> Callable[[], dict[str, Any]]:
    """A provider of the credentials of botocore (environment, configuration files, roles), which renews them."""
    found = session.get_credentials()
    if found is None:
        message = "no credentials for S3; give storage options key and secret, or anon=true"
        raise InputError(message, code="missing-credentials")

    def provide() -> dict[str, Any]:
        frozen = found.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS,
        }

    return provide


def _opened(bucket: str, config: Any, timeout: timedelta, credentials: Any, retries: int) -> S3Store:
    return S3Store(
        bucket,
        config=config,
        client_options={
            "timeout": timeout,
            "connect_timeout": timedelta(seconds=5),
            "allow_http": str(config.get("endpoint", "")).startswith("http://"),
        },
        retry_config={"max_retries": retries, "retry_timeout": timeout},
        credential_provider=credentials,
    )


@lru_cache(maxsize=_SHARED)
def _shared(
    _: tuple[Any, ...], bucket: str, config: tuple[tuple[str, Any], ...], timeout: timedelta, retries: int
) -> S3Store:
    """A store that all targets of a bucket with the same options share, with its connections."""
    return _opened(bucket, dict(config), timeout, None, retries)


def _surroundings() -> tuple[Any, ...]:
    """What else a store depends on: the process, whose forks need stores of their own, and its environment."""
    return os.getpid(), *sorted(os.environ.items())


def _session(profile: str | None) -> Any:
    """The environment and the configuration files of the AWS tools."""
    import botocore.exceptions
    import botocore.session

    session = botocore.session.Session(profile=profile)
    try:
        session.get_scoped_config()
    except botocore.exceptions.ProfileNotFound:
        message = f"storage option profile {profile!r} is not in the configuration files of the AWS tools"
        raise InputError(message, code="unknown-value") from None
    return session
