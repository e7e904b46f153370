"""Builds in child processes that are killed and resumed several times, and assertions on their targets.

Used by `test_kills.py` and `fifty.py`. Independent of how a target is written: the assertions read the objects, and use
ngff-zarr and `verify`.
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
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import ngff_zarr

from atlaszarr import verify
from s3_server import S3Server

HERE = Path(__file__).parent
DATASET = 69289763
#: Seconds within which a process must reach the moment of its kill, or finish.
PATIENCE = 240
#: Moments of a kill and their weights: at the start, while blocks are written, at the last block or later.
MOMENTS = {"start": 1, "blocks": 7, "commit": 2}


class Folder:
    """A store on the local disk.

    Parameters
    ----------
    root : Path
    """

    #: Seconds that a few writes need.
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
        """A number that changes when a build writes the root of the target."""
        with suppress(FileNotFoundError):
            return (self._root / name / "zarr.json").stat().st_mtime_ns
        return 0


class Gate:
    """A WSGI application in front of an S3 server that counts puts, and kills a process that writes.

    Parameters
    ----------
    application : callable
        The WSGI application of the server.

    Attributes
    ----------
    puts : Counter
        Number of puts of each object, by its path.
    watch : callable
        Called with the environment of each request; if it returns a status, that is the response.
    """

    def __init__(self, application: Callable[..., Any]) -> None:
        self._application = application
        self.puts: Counter[str] = Counter()
        self.watch: Callable[[dict[str, Any]], str | None] = lambda _: None
        self._victim: tuple[int, int, bool] | None = None
        self._conditional = threading.Lock()

    def kill_at(self, number: int, pid: int, done: bool) -> None:
        """Kill a process at the writing request `number`, counted from 0: after it is carried out, or instead."""
        self._victim = (number, pid, done)

    def relent(self) -> None:
        """Kill no process any more."""
        self._victim = None

    def __call__(self, environment: dict[str, Any], start: Callable[..., Any]) -> Any:
        """Answer a request."""
        if (status := self.watch(environment)) is not None:
            environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
            start(status, [])
            return []
        if environment["REQUEST_METHOD"] == "PUT":
            self.puts[environment["PATH_INFO"]] += 1
        if "HTTP_IF_NONE_MATCH" in environment or "HTTP_IF_MATCH" in environment:
            # One at a time, as S3 does: moto tests the condition and puts the object in two steps.
            with self._conditional:
                return self._carried_out(environment, start)
        return self._carried_out(environment, start)

    def _carried_out(self, environment: dict[str, Any], start: Callable[..., Any]) -> Any:
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
        In front of the server.
    server : S3Server
    """

    pace = 0.1

    def __init__(self, endpoint: str, gate: Gate, server: S3Server) -> None:
        self._server = server
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
        # Not the ETag: moto computes it at its first use, and two requests at once may each read half of the body.
        return {key: hashlib.md5(self.read(name, key) or b"").hexdigest() for key in self.keys(name)}

    def keys(self, name: str) -> list[str]:
        """Keys of all objects of a target."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket="atlas", Prefix=f"{name}/")
        return [item["Key"][len(name) + 1 :] for page in pages for item in page.get("Contents", ())]

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

    def stop(self) -> None:
        """End the server: connections are refused until `start`, the objects stay."""
        self._server._server.shutdown()
        self._server._server.server_close()

    def start(self) -> None:
        """Start the server again, at the same address."""
        _, port = self._server.get_host_and_port()
        self._server = S3Server(port)
        self._server.start()
        self._server._server.app = self.gate

    def begun(self, name: str) -> int:
        """A number that changes when a build writes the root of the target."""
        return self.gate.puts[f"/atlas/{name}/zarr.json"]


@contextmanager
def bucket() -> Iterator[Bucket]:
    """An empty bucket on a server in this process."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = S3Server()
    server.start()
    gate = server._server.app = Gate(server._server.app)
    before = os.environ.get("AWS_ALLOW_HTTP")
    os.environ["AWS_ALLOW_HTTP"] = "true"  # read by ngff-zarr
    store = Bucket(server.url, gate, server)
    try:
        yield store
    finally:
        store.stop()
        if before is None:
            del os.environ["AWS_ALLOW_HTTP"]


Store = Folder | Bucket
#: The command that builds a target, given its URL and storage options.
Command = Callable[[str, dict[str, Any]], list[str]]


def section_build(api_url: str, *further: str) -> Command:
    """The command ``atlaszarr build`` with an Allen API and further options."""

    def command(url: str, options: dict[str, Any]) -> list[str]:
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in options.items()}
        given = [argument for key, text in texts.items() for argument in ("--storage-option", f"{key}={text}")]
        asked = ["--resolution", "100", "--chunk", "16", "--cache", "none", "--api-url", api_url, *further]
        return [sys.executable, "-m", "atlaszarr", "build", str(DATASET), url, *asked, *given]

    return command


def volume_write(url: str, options: dict[str, Any]) -> list[str]:
    """The command that calls `write_multiscales` with an image and labels."""
    return [sys.executable, str(HERE / "volume.py"), url, json.dumps(options)]


@dataclass(frozen=True)
class Undisturbed:
    """The target of an undisturbed build.

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
        """Build a target in a folder and read it."""
        store, name = Folder(folder), "undisturbed.ome.zarr"
        with started(command(store.url(name), {})) as child:
            child.end()
        return cls.found(store, name)

    @classmethod
    def found(cls, store: Store, name: str) -> "Undisturbed":
        """Read a finished target."""
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
        """Keys outside ``atlaszarr/`` whose objects differ, are missing or are extra."""
        keys = {key for key in {*found, *self.digests} if not key.startswith("atlaszarr/")}
        return sorted(key for key in keys if found.get(key) != self.digests.get(key))

    def lacking(self, found: Mapping[str, str]) -> list[str]:
        """Keys of this target whose objects differ or are missing."""
        return [key for key in self.differences(found) if key in self.digests]


@dataclass
class Child:
    """A process in its own process group, with its stderr."""

    process: "subprocess.Popen[bytes]"
    errors: Any

    def kill(self) -> None:
        """End the process and all its children with SIGKILL."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """Wait until the process has finished, with exit code 0."""
        self.process.wait(PATIENCE)
        hold(self.process.returncode == 0, f"exit {self.process.returncode}: {self.said()}")

    def said(self) -> str:
        """The text on stderr so far."""
        self.errors.seek(0)
        return str(self.errors.read().decode())


@contextmanager
def started(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Child]:
    """A process that is killed at the end of the context."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True, env=environment
        )
        child = Child(process, errors)
        try:
            yield child
        finally:
            child.kill()


class Watched:
    """A target that is compared with that of an undisturbed build.

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
        """The state in the root; None without a root."""
        for key in ("zarr.json", ".zattrs"):
            if (body := self._store.read(self._name, key)) is not None:
                document = json.loads(body)
                return str(document.get("attributes", document)["atlaszarr"]["state"])
        return None

    @property
    def chunks(self) -> int:
        """The number of existing objects of its arrays."""
        return len(self._expected.chunks.intersection(self._store.keys(self._name)))

    def hold_shut(self, old: Undisturbed | None = None) -> None:
        """Assert that the target is unfinished and does not open, and that a group opens only if complete, or `old`."""
        hold(self.state != "finished", f"the state of {self.url} is finished")
        hold(not self._opens(), f"{self.url} opens as an image although it is {self.state}")
        for group in self._expected.images:
            if group and self._opens(group):
                found = self._store.digests(self._name)
                wholes = [self._expected] if old is None else [self._expected, old]
                lacks = [[key for key in whole.lacking(found) if key.startswith(f"{group}/")] for whole in wholes]
                hold(not all(lacks), f"{self.url}/{group} opens as an image although it lacks {lacks}")

    def hold_equal(self) -> None:
        """Assert that the target equals that of the undisturbed build."""
        found = self._store.digests(self._name)
        different = self._expected.differences(found)
        hold(not different, f"{self.url} differs from an undisturbed build in {different}")
        extra = sorted(set(found) - set(self._expected.digests))
        hold(not extra, f"{self.url} contains {extra}, which an undisturbed build does not")
        for group in self._expected.images:
            hold(self._opens(group), f"{self.url}/{group} does not open as an image although it is finished")
        report = verify(self.url, deep=True, storage_options=self._store.options)
        hold(report.ok, f"{self.url} has defects: {report.defects}")

    def _opens(self, group: str = "") -> bool:
        """Whether ngff-zarr opens the target, or a group in it, as an image."""
        url = f"{self.url}/{group}".rstrip("/")
        try:
            ngff_zarr.from_ngff_zarr(url, storage_options=self._store.options or None)
        except Exception:
            return False
        return True


class Chain:
    """One target whose build is killed several times and then completed.

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
        Each kill: one of the `MOMENTS`, and the number of existing chunks.
    """

    def __init__(self, command: Command, store: Store, name: str, expected: Undisturbed, rng: random.Random) -> None:
        self.target = Watched(store, name, expected)
        self.kills: list[tuple[str, int]] = []
        self._store, self._name, self._command = store, name, command(store.url(name), store.options)
        self._every, self._rng = len(expected.chunks), rng

    def kill(self, moment: str | None = None) -> bool:
        """Start the build, kill it at a random moment, and assert that the target is unfinished.

        Returns
        -------
        bool
            Whether the build was killed before it finished; if not, nothing is left to kill.
        """
        moment = moment or self._rng.choices(list(MOMENTS), list(MOMENTS.values()))[0]
        written, before = self.target.chunks, self._store.begun(self._name)
        # While blocks are written, and early enough that some are left for the next kill.
        among = written + math.ceil((self._every - written) / 2 * self._rng.random())
        goal = among if moment == "blocks" else self._every

        def reached() -> bool:
            return self._store.begun(self._name) != before and self.target.chunks >= goal

        with started(self._command) as child:
            if moment == "start":
                time.sleep(self._rng.uniform(0, 1.5))
            else:
                _wait_until(lambda: reached() or child.process.poll() is not None, self._store.pace / 3)
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
        """Complete the build, and assert that the target equals that of an undisturbed build."""
        with started(self._command) as child:
            child.end()
        self.target.hold_equal()


def hold(condition: bool, message: str) -> None:
    """Raise an AssertionError with a message unless a condition is true."""
    if not condition:
        raise AssertionError(message)


def _wait_until(reached: Callable[[], bool], pause: float) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        hold(time.monotonic() < end, "a build makes no progress")
        time.sleep(pause)
