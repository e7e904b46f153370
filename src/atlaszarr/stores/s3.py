"""Objects on S3 through obstore, which bounds every wait, under the names that s3fs gives its options.

s3fs waits forever in a put to a server that accepts the connection and then freezes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import S3Store

from ..errors import InputError
from .backend import Backend, Uploads, timeout_of

#: For how long credentials of a provider are used before it is asked again.
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


class S3Backend(Backend):
    """Objects under a prefix of a bucket; the root is the object of that name.

    Parameters
    ----------
    url : str
        ``s3://bucket/prefix``.
    options : mapping
        Same as in s3fs: ``key``, ``secret``, ``token``, ``anon``, ``profile``, ``requester_pays``, ``endpoint_url``,
        and ``client_kwargs`` with ``endpoint_url`` and ``region_name``. Without a key, credentials are taken from
        where the AWS tools find them. ``timeout`` is how many seconds a request may take, and for how many a failed
        one is tried again; 30 by default.

    Raises
    ------
    InputError
        If an option is not known, or there are no credentials.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        bucket, _, self._root = url.partition("://")[2].partition("/")
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
        timeout = timedelta(seconds=timeout_of(given))
        kind: dict[str, Any] = {}
        if "access_key_id" not in config and not config.get("skip_signature"):
            kind["credential_provider"] = _credentials(session)

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

    def read(self, key: str) -> bytes | None:
        """Same as in `Backend`."""
        try:
            return bytes(obstore.get(self._store, self._path(key)).bytes())
        except FileNotFoundError:
            return None

    def open(self, key: str) -> Any:
        """Same as in `Backend`; it is read in ranges of a megabyte."""
        return obstore.open_reader(self._store, self._path(key))

    def uploads(self) -> Uploads:
        """Same as in `Backend`."""
        return Uploads(self._put, 0)

    def create(self, key: str, body: bytes) -> bool:
        """Same as in `Backend`; without conditional puts, two at once may both succeed if their puts are slow."""
        if (created := self._put_if(key, body, "create")) is not None:
            return created
        if self.read(key) is not None:
            return False
        obstore.put(self._store, self._path(key), body, use_multipart=False)
        time.sleep(_SETTLING)
        return self.read(key) == body

    def read_tagged(self, key: str) -> tuple[bytes, str | None] | None:
        """Same as in `Backend`."""
        try:
            found = obstore.get(self._store, self._path(key))
        except FileNotFoundError:
            return None
        return bytes(found.bytes()), found.meta["e_tag"]

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        """Same as in `Backend`; without conditional puts, any object is replaced."""
        replaced = None if tag is None else self._put_if(key, body, {"e_tag": tag})
        if replaced is not None:
            return replaced
        obstore.put(self._store, self._path(key), body, use_multipart=False)
        return True

    def _put_if(self, key: str, body: bytes, mode: Any) -> bool | None:
        """Put an object on a condition: whether it was met; None if the server does not support conditions (501)."""
        for store in (self._once, self._store):  # the second retries
            if not self._conditional:
                return None
            try:
                obstore.put(store, self._path(key), body, mode=mode, use_multipart=False)
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
        """Same as in `Backend`."""
        found = {}
        folder = f"{self._root}/{prefix}".rstrip("/")
        for page in obstore.list(self._store, folder, chunk_size=1000):
            for item in page:
                found[item["path"].removeprefix(f"{self._root}/")] = int(item["size"])
        if prefix and not found:  # a listing shows objects under a prefix, not the one of that name
            with suppress(FileNotFoundError):
                found[prefix] = int(obstore.head(self._store, folder)["size"])
        return found

    def delete(self, keys: Iterable[str]) -> None:
        """Same as in `Backend`."""
        if paths := [self._path(key) for key in keys]:
            obstore.delete(self._store, paths)

    def modified(self, key: str) -> datetime | None:
        """Same as in `Backend`."""
        return obstore.head(self._store, self._path(key))["last_modified"]

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def _put(self, bodies: Mapping[str, bytes]) -> None:
        for key, body in bodies.items():
            obstore.put(self._store, self._path(key), body)


def _credentials(session: Any) -> Callable[[], dict[str, Any]]:
    """A provider of what botocore finds in the environment, configuration files and roles, also once it expires."""
    found = session.get_credentials()
    if found is None:
        raise InputError("no credentials for S3; give storage options key and secret, or anon=true")

    def provide() -> dict[str, Any]:
        frozen = found.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS,
        }

    return provide


def _session(profile: str | None) -> Any:
    """The environment and the configuration files of the AWS tools."""
    import botocore.exceptions
    import botocore.session

    session = botocore.session.Session(profile=profile)
    try:
        session.get_scoped_config()
    except botocore.exceptions.ProfileNotFound:
        raise InputError(f"storage option profile {profile!r} is in no configuration file") from None
    return session
