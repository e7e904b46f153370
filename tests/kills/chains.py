"""Builds as processes of their own that are killed, gone on with and killed again, and what must hold of their targets.

Serves `test_kills.py` and `fifty.py`. Knows nothing of how a target is written: it looks at the objects, and at what
ngff-zarr and `verify` make of them.
"""

import hashlib
import json
import logging
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import ngff_zarr
from moto.server import ThreadedMotoServer

from atlaszarr import verify

HERE = Path(__file__).parent
DATASET = 69289763
#: Seconds within which any process must have come to where it is to be killed, or to its end.
PATIENCE = 240
#: Where a build is killed, and how often of ten times: as it starts, among its blocks, at the last of them or later.
MOMENTS = {"start": 1, "blocks": 7, "commit": 2}


class Folder:
    """A store on the local disk.

    Parameters
    ----------
    root : Path
    """

    #: Seconds that a few writes take.
    pace = 0.03

    def __init__(self, root: Path) -> None:
        self._root = root
        self.options: dict[str, Any] = {}

    def __str__(self) -> str:
        return "local disk"

    def url(self, name: str) -> str:
        """The target of a name."""
        return str(self._root / name)

    def digests(self, name: str) -> dict[str, str]:
        """MD5 of every object of a target, by key."""
        return {key: hashlib.md5((self._root / name / key).read_bytes()).hexdigest() for key in self.keys(name)}

    def keys(self, name: str) -> list[str]:
        """Keys of all objects of a target."""
        root = self._root / name
        return [Path(folder, file).relative_to(root).as_posix() for folder, _, files in os.walk(root) for file in files]

    def read(self, name: str, key: str) -> bytes | None:
        """An object of a target."""
        try:
            return (self._root / name / key).read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, name: str, key: str) -> None:
        """Remove an object of a target."""
        (self._root / name / key).unlink()

    def begun(self, name: str) -> int:
        """A number that is another once a build has put the target's root."""
        with suppress(FileNotFoundError):
            return (self._root / name / "zarr.json").stat().st_mtime_ns
        return 0


class Gate:
    """Stands before an S3 server, counts what is put there, and kills who writes to it.

    Parameters
    ----------
    application : callable
        The server's, of WSGI.

    Attributes
    ----------
    puts : Counter
        How often an object was put, by its path.
    watch : callable
        Called with the environment of each request; a status that it returns is the answer.
    """

    def __init__(self, application: Callable[..., Any]) -> None:
        self._application = application
        self.puts: Counter[str] = Counter()
        self.watch: Callable[[dict[str, Any]], str | None] = lambda _: None
        self._victim: tuple[int, int, bool] | None = None

    def kill_at(self, number: int, pid: int, done: bool) -> None:
        """Kill a process at a coming request that writes, counted from 0: after it is carried out, or instead."""
        self._victim = (number, pid, done)

    def relent(self) -> None:
        """Kill nobody any more."""
        self._victim = None

    def __call__(self, environment: dict[str, Any], start: Callable[..., Any]) -> Any:
        """Answer a request."""
        if (status := self.watch(environment)) is not None:
            environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
            start(status, [])
            return []
        if environment["REQUEST_METHOD"] == "PUT":
            self.puts[environment["PATH_INFO"]] += 1
        if self._victim is None or environment["REQUEST_METHOD"] not in ("PUT", "POST", "DELETE"):
            return self._application(environment, start)
        number, pid, done = self._victim
        self._victim = (number - 1, pid, done)
        if number != 0:
            return self._application(environment, start)
        answer = list(self._application(environment, start)) if done else []
        os.kill(pid, signal.SIGKILL)
        if not done:
            start("503 Service Unavailable", [])
        return answer


class Bucket:
    """A store on an S3 server.

    Parameters
    ----------
    endpoint : str
        Of the server.
    gate : Gate
        Before it.
    """

    pace = 0.1

    def __init__(self, endpoint: str, gate: Gate) -> None:
        key, secret, region = "the-access-key", "the-secret-access-key", "us-east-1"
        self.gate = gate
        self.options: dict[str, Any] = {
            "key": key,
            "secret": secret,
            "endpoint_url": endpoint,
            "client_kwargs": {"region_name": region},
        }
        self._client = boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key=secret, region_name=region
        )
        self._client.create_bucket(Bucket="atlas")

    def __str__(self) -> str:
        return "S3"

    def url(self, name: str) -> str:
        """The target of a name."""
        return f"s3://atlas/{name}"

    def digests(self, name: str) -> dict[str, str]:
        """MD5 of every object of a target, by key."""
        # Not the ETag: moto works it out when it is first asked for, and two who ask at once may read half each.
        return {key: hashlib.md5(self.read(name, key) or b"").hexdigest() for key in self.keys(name)}

    def keys(self, name: str) -> list[str]:
        """Keys of all objects of a target."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket="atlas", Prefix=f"{name}/")
        return [item["Key"].partition("/")[2] for page in pages for item in page.get("Contents", ())]

    def read(self, name: str, key: str) -> bytes | None:
        """An object of a target."""
        try:
            return bytes(self._client.get_object(Bucket="atlas", Key=f"{name}/{key}")["Body"].read())
        except self._client.exceptions.NoSuchKey:
            return None

    def write(self, name: str, key: str, body: bytes) -> None:
        """Put an object of a target."""
        self._client.put_object(Bucket="atlas", Key=f"{name}/{key}", Body=body)

    def delete(self, name: str, key: str) -> None:
        """Remove an object of a target."""
        self._client.delete_object(Bucket="atlas", Key=f"{name}/{key}")

    def begun(self, name: str) -> int:
        """A number that is another once a build has put the target's root."""
        return self.gate.puts[f"/atlas/{name}/zarr.json"]


@contextmanager
def bucket() -> Iterator[Bucket]:
    """An empty bucket on a server in this process."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, ip_address="127.0.0.1", verbose=False)
    server.start()
    gate = server._server.app = Gate(server._server.app)
    host, port = server.get_host_and_port()
    before = os.environ.get("AWS_ALLOW_HTTP")
    os.environ["AWS_ALLOW_HTTP"] = "true"  # ngff-zarr takes it from there
    try:
        yield Bucket(f"http://{host}:{port}", gate)
    finally:
        server.stop()
        if before is None:
            del os.environ["AWS_ALLOW_HTTP"]


Store = Folder | Bucket
#: The command that builds a target, given its URL and storage options.
Command = Callable[[str, dict[str, Any]], list[str]]


def section_build(api_url: str, *further: str) -> Command:
    """`atlaszarr build`, from an Allen API, with further options."""

    def command(url: str, options: dict[str, Any]) -> list[str]:
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in options.items()}
        given = [argument for key, text in texts.items() for argument in ("--storage-option", f"{key}={text}")]
        asked = ["--resolution", "100", "--chunk", "16", "--cache", "none", "--api-url", api_url, *further]
        return [sys.executable, "-m", "atlaszarr", "build", str(DATASET), url, *asked, *given]

    return command


def volume_write(url: str, options: dict[str, Any]) -> list[str]:
    """`write_multiscales` of an image with labels."""
    return [sys.executable, str(HERE / "volume.py"), url, json.dumps(options)]


@dataclass(frozen=True)
class Undisturbed:
    """What a build in peace makes of a target.

    Attributes
    ----------
    digests : dict
        MD5 of every object, by key.
    images : tuple of str
        Paths of the groups that are images.
    """

    digests: dict[str, str]
    images: tuple[str, ...]

    @classmethod
    def of(cls, command: Command, folder: Path) -> "Undisturbed":
        """Build a target in a folder and look at it."""
        store, name = Folder(folder), "undisturbed.ome.zarr"
        with started(command(store.url(name), {})) as child:
            child.end()
        return cls.found(store, name)

    @classmethod
    def found(cls, store: Store, name: str) -> "Undisturbed":
        """Look at a target that was built."""
        digests, images = store.digests(name), []
        for key in digests:
            if key.rpartition("/")[2] in ("zarr.json", ".zattrs"):
                document = json.loads(store.read(name, key) or b"{}")
                attributes = document.get("attributes", document)
                if "multiscales" in attributes.get("ome", attributes):
                    images.append(key.rpartition("/")[0])
        return cls(digests, tuple(images))

    @property
    def chunks(self) -> set[str]:
        """Keys of the objects of the arrays."""
        return {key for key in self.digests if key.rpartition("/")[2].isdigit()}

    def differences(self, found: Mapping[str, str]) -> list[str]:
        """Keys of what is not as it is here, of all that is not of atlaszarr alone."""
        keys = {key for key in {*found, *self.digests} if not key.startswith("atlaszarr/")}
        return sorted(key for key in keys if found.get(key) != self.digests.get(key))

    def lacking(self, found: Mapping[str, str]) -> list[str]:
        """Keys of what is here, and there is not or is not as here."""
        return [key for key in self.differences(found) if key in self.digests]


@dataclass
class Child:
    """A process in a group of its own, and what it says on stderr."""

    process: "subprocess.Popen[bytes]"
    errors: Any

    def kill(self) -> None:
        """End it and all its children at once, as `kill -9` does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """Wait until it has done what it was to do."""
        self.process.wait(PATIENCE)
        hold(self.process.returncode == 0, f"exit {self.process.returncode}: {self.said()}")

    def said(self) -> str:
        """What it has said so far."""
        self.errors.seek(0)
        return str(self.errors.read().decode())


@contextmanager
def started(command: Sequence[str]) -> Iterator[Child]:
    """A process, which does not outlive the context."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        child = Child(process, errors)
        try:
            yield child
        finally:
            child.kill()


class Watched:
    """A target, held to what an undisturbed build makes.

    Parameters
    ----------
    store : Folder or Bucket
    name : str
        Of the target.
    expected : Undisturbed
    """

    def __init__(self, store: Store, name: str, expected: Undisturbed) -> None:
        self._store, self._name, self._expected = store, name, expected
        self.url = store.url(name)

    @property
    def state(self) -> str | None:
        """What the root says of the build; None where there is no root."""
        for key in ("zarr.json", ".zattrs"):
            if (body := self._store.read(self._name, key)) is not None:
                document = json.loads(body)
                return str(document.get("attributes", document)["atlaszarr"]["state"])
        return None

    @property
    def chunks(self) -> int:
        """How many objects of its arrays are there."""
        return len(self._expected.chunks.intersection(self._store.keys(self._name)))

    def hold_shut(self, old: Undisturbed | None = None) -> None:
        """Hold it to what a target must be that is unfinished; in an old one's place, what is in it may be whole."""
        hold(self.state != "finished", f"{self.url} says that it is finished")
        hold(not self._opens(), f"{self.url} opens as an image although it is {self.state}")
        for group in self._expected.images:
            if group and self._opens(group):
                found = self._store.digests(self._name)
                wholes = [self._expected] if old is None else [self._expected, old]
                lacks = [[key for key in whole.lacking(found) if key.startswith(f"{group}/")] for whole in wholes]
                hold(not all(lacks), f"{self.url}/{group} opens as an image although it lacks {lacks}")

    def hold_equal(self) -> None:
        """Hold it to what the undisturbed build made."""
        found = self._store.digests(self._name)
        different = self._expected.differences(found)
        hold(not different, f"{self.url} differs from an undisturbed build in {different}")
        extra = sorted(set(found) - set(self._expected.digests))
        hold(not extra, f"{self.url} holds {extra}, which an undisturbed build does not")
        for group in self._expected.images:
            hold(self._opens(group), f"{self.url}/{group} does not open as an image although it is finished")
        report = verify(self.url, deep=True, storage_options=self._store.options)
        hold(report.ok, f"{self.url} is not sound: {report.defects}")

    def _opens(self, group: str = "") -> bool:
        """Whether ngff-zarr opens it, or a group in it, as an image."""
        place = f"{self.url}/{group}".rstrip("/")
        try:
            ngff_zarr.from_ngff_zarr(place, storage_options=self._store.options or None)
        except Exception:
            return False
        return True


class Chain:
    """One target whose build is killed, over and over, and at last let be.

    Parameters
    ----------
    command : callable
    store : Folder or Bucket
    name : str
        Of the target.
    expected : Undisturbed
    rng : random.Random
        Decides the moments.

    Attributes
    ----------
    target : Watched
    kills : list of tuple
        Every kill: at which of the `MOMENTS`, and how many chunks there were.
    """

    def __init__(self, command: Command, store: Store, name: str, expected: Undisturbed, rng: random.Random) -> None:
        self.target = Watched(store, name, expected)
        self.kills: list[tuple[str, int]] = []
        self._store, self._name, self._command = store, name, command(store.url(name), store.options)
        self._every, self._rng = len(expected.chunks), rng

    def kill(self, moment: str | None = None) -> bool:
        """Start the build, kill it at a random moment, and look at the target.

        Returns
        -------
        bool
            Whether it was killed before it had finished; if it was not, there is nothing more to kill.
        """
        moment = moment or self._rng.choices(list(MOMENTS), list(MOMENTS.values()))[0]
        there, before = self.target.chunks, self._store.begun(self._name)
        # Among the blocks, so early that some are left for the next time.
        among = there + math.ceil((self._every - there) / 2 * self._rng.random())
        goal = among if moment == "blocks" else self._every

        def reached() -> bool:
            return self._store.begun(self._name) != before and self.target.chunks >= goal

        with started(self._command) as child:
            if moment == "start":
                time.sleep(self._rng.uniform(0, 1.5))
            else:
                _wait_until(lambda: reached() or child.process.poll() is not None)
                time.sleep(self._rng.uniform(0, self._store.pace))
            child.kill()
            code = child.process.returncode
            hold(code in (0, -signal.SIGKILL), f"exit {code} of {self.target.url}: {child.said()}")
        if self.target.state == "finished":
            return False
        self.kills.append((moment, self.target.chunks))
        self.target.hold_shut()
        return True

    def finish(self) -> None:
        """Let the build end, and hold the target to that of an undisturbed one."""
        with started(self._command) as child:
            child.end()
        self.target.hold_equal()


def hold(true: bool, otherwise: str) -> None:
    """Raise an AssertionError that says what is otherwise."""
    if not true:
        raise AssertionError(otherwise)


def _wait_until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        hold(time.monotonic() < end, "a build does not get on")
        time.sleep(0.005)
