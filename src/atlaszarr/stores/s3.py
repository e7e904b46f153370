"""Objects on S3 through obstore, which bounds every wait, under the names that s3fs gives its options.

s3fs itself waits for good in a put to a server that took the connection and then froze.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, wait
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import S3Store

from ..errors import InputError
from .backends import BATCH, Puts, requests

#: Seconds that a request may take, and for which one that failed is tried again.
_TIMEOUT = 30.0
#: For how long credentials that a provider gave are used before it is asked again.
_CREDENTIALS = timedelta(minutes=10)
#: Seconds until two that create an object at once, without conditional puts, see the same one.
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


class S3Objects:
    """Objects under a prefix of a bucket.

    Parameters
    ----------
    url : str
        ``s3://bucket/prefix``.
    options : dict
        As of s3fs: ``key``, ``secret``, ``token``, ``anon``, ``profile``, ``requester_pays``, ``endpoint_url``, and
        ``client_kwargs`` with ``endpoint_url`` and ``region_name``. Without a key, credentials are looked for where
        the AWS tools do. ``timeout`` is how many seconds a request may take, and for how many one that failed is
        tried again; 30 by default.

    Raises
    ------
    InputError
        If an option is not known, or there are no credentials.
    """

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        bucket, _, prefix = url.partition("://")[2].partition("/")
        self._prefix = f"{prefix}/"
        given = {**options, **dict(options.get("client_kwargs") or {})}
        if unknown := sorted(set(given) - set(_OPTIONS)):
            raise InputError(f"storage option {unknown[0]!r} is not known for S3; choose from {', '.join(_OPTIONS)}")
        config: Any = {_CONFIG[name]: value for name, value in given.items() if name in _CONFIG and value is not None}
        session = _session(given.get("profile"))
        config.setdefault("region", session.get_config_variable("region") or "us-east-1")
        stated = {**session.get_scoped_config(), **os.environ}
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "endpoint_url"):
            if stated.get(name):
                config.setdefault("endpoint", stated[name])
        if not str(config.get("endpoint", "https://")).startswith(("http://", "https://")):
            raise InputError(f"storage option endpoint_url {config['endpoint']!r} must begin with https:// or http://")
        if ("access_key_id" in config) != ("secret_access_key" in config):
            raise InputError("storage options key and secret must be given together")
        try:
            timeout = timedelta(seconds=float(given.get("timeout", _TIMEOUT)))
            if timeout <= timedelta():
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"storage option timeout {given['timeout']!r} is not a number of seconds") from None
        kind: dict[str, Any] = {}
        if "access_key_id" not in config and not config.get("skip_signature"):
            kind["credential_provider"] = _Credentials(session)

        def opened(retries: int) -> S3Store:
            return S3Store(
                bucket,
                config=config,
                client_options={
                    "timeout": timeout,
                    "connect_timeout": timedelta(seconds=5),
                    "allow_http": str(config.get("endpoint", "")).startswith("http://"),
                },
                retry_config={"max_retries": retries, "retry_timeout": timeout},
                **kind,
            )

        self._store, self._once = opened(10), opened(0)
        self._conditional = True

    def get(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """As of `Objects`."""
        wanted = list(keys)
        return dict(zip(wanted, requests().map(self._read, wanted), strict=True))

    def puts(self) -> Puts:
        """Same as in `Objects`."""
        return _Puts(self._store, self._prefix)

    def create(self, key: str, body: bytes) -> bool:
        """Same as in `Objects`; without conditional puts, two at once may both succeed if their puts are slow."""
        if (created := self._put_if(key, body, "create")) is not None:
            return created
        if self._read(key) is not None:
            return False
        obstore.put(self._store, self._prefix + key, body, use_multipart=False)
        time.sleep(_SETTLING)
        return self._read(key) == body

    def read_tagged(self, key: str) -> tuple[bytes, str | None] | None:
        """Same as in `Objects`."""
        try:
            found = obstore.get(self._store, self._prefix + key)
        except FileNotFoundError:
            return None
        return bytes(found.bytes()), found.meta["e_tag"]

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        """Same as in `Objects`; without conditional puts, any object is replaced."""
        replaced = None if tag is None else self._put_if(key, body, {"e_tag": tag})
        if replaced is not None:
            return replaced
        obstore.put(self._store, self._prefix + key, body, use_multipart=False)
        return True

    def _put_if(self, key: str, body: bytes, mode: Any) -> bool | None:
        """Put an object on a condition: whether it was met; None if the server answers that it supports none (501)."""
        for store in (self._once, self._store):  # the second tries again what may pass
            if not self._conditional:
                return None
            try:
                obstore.put(store, self._prefix + key, body, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
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
        """As of `Objects`."""
        found = {}
        folder = (self._prefix + prefix).rstrip("/")
        for page in obstore.list(self._store, folder, chunk_size=1000):
            for item in page:
                found[item["path"].removeprefix(self._prefix)] = int(item["size"])
        if prefix and not found:  # a listing shows what lies under a prefix, not the object of that name
            with suppress(FileNotFoundError):
                found[prefix] = int(obstore.head(self._store, folder)["size"])
        return found

    def delete(self, keys: Iterable[str]) -> None:
        """As of `Objects`."""
        if paths := [self._prefix + key for key in keys]:
            obstore.delete(self._store, paths)

    def modified(self, key: str) -> datetime | None:
        """As of `Objects`."""
        return obstore.head(self._store, self._prefix + key)["last_modified"]

    def reader(self, key: str) -> Any:
        """An object as a file that is read from its beginning, or from where it is sought.

        Raises
        ------
        FileNotFoundError
            If there is none.
        """
        return obstore.open_reader(self._store, self._prefix + key)

    def _read(self, key: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._store, self._prefix + key).bytes())
        except FileNotFoundError:
            return None


class _Puts:
    """Objects that are put at the same time, of so many bytes at most."""

    def __init__(self, store: S3Store, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._under_way: deque[tuple[int, Future[Any]]] = deque()
        self._size = 0

    def add(self, key: str, body: bytes) -> None:
        """Same as in `Puts`."""
        put = requests().submit(obstore.put, self._store, self._prefix + key, body)
        self._under_way.append((len(body), put))
        self._size += len(body)
        while self._size > BATCH:
            self._wait()

    def finish(self) -> None:
        """Same as in `Puts`."""
        while self._under_way:
            self._wait()

    def discard(self) -> None:
        """Same as in `Puts`: those that have not begun never do, and the others are not left behind."""
        wait([put for _, put in self._under_way if not put.cancel()])

    def _wait(self) -> None:
        size, put = self._under_way.popleft()
        self._size -= size
        put.result()


class _Credentials:
    """What botocore finds: environment, configuration files, roles; asked again as they expire."""

    def __init__(self, session: Any) -> None:
        self._found = session.get_credentials()
        if self._found is None:
            raise InputError("no credentials for S3; give storage options key and secret, or anon=true")

    def __call__(self) -> dict[str, Any]:
        frozen = self._found.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS,
        }


def _session(profile: str | None) -> Any:
    """What the environment and the configuration files of the AWS tools say."""
    import botocore.exceptions
    import botocore.session

    session = botocore.session.Session(profile=profile)
    try:
        session.get_scoped_config()
    except botocore.exceptions.ProfileNotFound:
        raise InputError(f"storage option profile {profile!r} is in no configuration file") from None
    return session
