"""One-node OpenStack Swift with its s3api filter, on loopback: a real store to kill, to stop and to start anew.

Knows nothing of what is kept in it. Linux only; the folder must lie on a file system with user attributes.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from getpass import getuser
from pathlib import Path
from types import TracebackType
from typing import Self

import boto3
import botocore.config

KEY, SECRET, REGION = "test:tester", "testing", "us-east-1"

# What the wheel `swift` takes to run these four servers; pinned so that a run does not change by itself.
REQUIREMENTS = (
    "swift==2.38.3",
    "cryptography==50.0.2",
    "dnspython==2.9.2",
    "eventlet==0.41.3",
    "greenlet==3.5.6",
    "lxml==6.1.3",
    "PasteDeploy==3.1.0",
    "pyeclib==1.8.0",
    "requests==2.34.2",
    "xattr==1.3.0",
)

#: Seconds that the servers may take until they answer.
_PATIENCE = 60

_SERVERS = {"account": "account", "container": "container", "object": "obj", "proxy": "proxy"}

_SERVE = """
import sys
from importlib import import_module
from swift.common import utils

package, etc, conf = sys.argv[1:]
utils.set_swift_dir(etc)  # before anything reads the policies
sys.argv[1:] = [conf, "-v"]
import_module(f"swift.{package}.server").main()
"""

_MAKE_RINGS = """
import json, sys
from pathlib import Path
from swift.common.ring import RingBuilder

for kind, port in json.loads(sys.argv[2]).items():
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "device": "disk", "weight": 1})
    builder.rebalance()
    builder.get_ring().save(str(Path(sys.argv[1], f"{kind}.ring.gz")))
"""

# Outlives a test run that is killed, just long enough to take the servers with it: each line names those there are.
_WARD = """
import os, signal, sys

pids = []
for line in sys.stdin:
    pids = line.split()
for pid in pids:
    try:
        os.kill(int(pid), signal.SIGKILL)
    except ProcessLookupError:
        pass
"""

_SWIFT_CONF = """
[swift-hash]
swift_hash_path_prefix = atlas
swift_hash_path_suffix = zarr

[storage-policy:0]
name = single
default = yes
"""

# No worker processes, so that a signal to the process reaches all there is.
_DEFAULT = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {etc}
devices = {devices}
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
log_address = {etc}/no-syslog
"""

_STORAGE = """
[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
recon_cache_path = {etc}
"""

# A proxy gives up for a minute on a storage server that failed it ten times, and asks the next: here is no next.
_PROXY = """
[pipeline:main]
pipeline = catch_errors healthcheck proxy-logging listing_formats bulk s3api tempauth slo proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
error_suppression_interval = 1

[filter:catch_errors]
use = egg:swift#catch_errors
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = {region}
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{user} = {secret} .admin
[filter:slo]
use = egg:swift#slo
"""


def environment(folder: Path) -> Path:
    """The Python of a virtual environment that has Swift, made unless it is there and as it should be."""
    recipe, made, python = "\n".join(REQUIREMENTS), folder / "made-from.txt", folder / "bin" / "python"
    if not (made.exists() and made.read_text() == recipe):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--only-binary=:all:"]
        subprocess.run([*install, *REQUIREMENTS], check=True)
        made.write_text(recipe)
    return python


class SwiftNode:
    """A Swift store over a folder, as a context manager; none of its processes outlives the one that made it.

    Parameters
    ----------
    folder : path
        For configuration, logs and objects; a node over a folder that was used before finds its objects again.
    python : path
        The interpreter of `environment`.
    buckets : sequence of str
        Made at the start.

    Attributes
    ----------
    endpoint_url : str
        Where the S3 API answers; the same after `restart`.
    """

    def __init__(self, folder: Path, python: Path, buckets: Sequence[str] = ()) -> None:
        self._folder, self._python, self._buckets = folder.absolute(), python.absolute(), buckets
        self._etc = self._folder / "etc"
        self._ports = dict(zip(_SERVERS, _free_ports(len(_SERVERS)), strict=True))
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._ward: subprocess.Popen[str] | None = None
        self.endpoint_url = f"http://127.0.0.1:{self._ports['proxy']}"

    def __enter__(self) -> Self:
        try:
            self._configure()
            self._ward = subprocess.Popen(
                [sys.executable, "-c", _WARD],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # a Ctrl-C is for the run, which then ends the ward
            )
            self.start()
            for bucket in self._buckets:
                self.make_bucket(bucket)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._close()

    @property
    def storage_options(self) -> dict[str, object]:
        """The options with which fsspec opens ``s3://`` here."""
        return {
            "key": KEY,
            "secret": SECRET,
            "endpoint_url": self.endpoint_url,
            "client_kwargs": {"region_name": REGION},
        }

    def make_bucket(self, name: str) -> None:
        """Make a bucket, or find that it is there."""
        s3 = self._s3()
        with suppress(s3.exceptions.BucketAlreadyOwnedByYou):
            s3.create_bucket(Bucket=name)

    def objects(self, bucket: str, prefix: str) -> dict[str, bytes]:
        """The content of every object whose key starts with `prefix`, by the rest of its key."""
        s3 = self._s3()
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key.removeprefix(prefix): s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def start(self) -> None:
        """Start the servers that do not run, and wait until they answer.

        Raises
        ------
        RuntimeError
            If one ends at once or does not answer in time; with what it logged last.
        """
        for kind, package in _SERVERS.items():
            if kind in self._servers:
                continue
            with self._log(kind).open("ab") as log:
                self._servers[kind] = subprocess.Popen(
                    [self._python, "-c", _SERVE, package, self._etc, self._etc / f"{kind}-server.conf"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            self._tell_ward()
        deadline = time.monotonic() + _PATIENCE
        for kind in _SERVERS:
            self._wait_for(kind, deadline)

    def kill(self) -> None:
        """End all servers as ``kill -9`` does, stopped ones too."""
        for server in self._servers.values():
            server.kill()
        for server in self._servers.values():
            server.wait()
        self._servers.clear()
        self._tell_ward()

    def restart(self) -> None:
        """Start over the same folder and ports, after a `kill` or with one."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """Freeze all servers: their sockets take connections and requests, and nothing answers."""
        for server in self._servers.values():
            server.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Let frozen servers go on."""
        for server in self._servers.values():
            server.send_signal(signal.SIGCONT)

    def _close(self) -> None:
        self.kill()
        if self._ward is not None:
            self._ward.kill()
            self._ward.communicate()

    def _configure(self) -> None:
        devices = self._folder / "devices"
        (devices / "disk").mkdir(parents=True, exist_ok=True)
        self._etc.mkdir(exist_ok=True)
        try:
            os.setxattr(devices, "user.swift.probe", b"")
        except OSError as error:
            raise RuntimeError(f"Swift needs user attributes, which {devices} has not: {error.strerror}") from None
        (self._etc / "swift.conf").write_text(_SWIFT_CONF)
        account, user = KEY.split(":")
        for kind, port in self._ports.items():
            default = _DEFAULT.format(port=port, user=getuser(), etc=self._etc, devices=devices)
            own = (
                _PROXY.format(region=REGION, account=account, user=user, secret=SECRET)
                if kind == "proxy"
                else _STORAGE.format(kind=kind, etc=self._etc)
            )
            (self._etc / f"{kind}-server.conf").write_text(default + own)
        rings = {kind: port for kind, port in self._ports.items() if kind != "proxy"}
        subprocess.run([self._python, "-c", _MAKE_RINGS, self._etc, json.dumps(rings)], check=True)

    def _wait_for(self, kind: str, deadline: float) -> None:
        server, url = self._servers[kind], f"http://127.0.0.1:{self._ports[kind]}/healthcheck"
        while True:
            try:
                # A storage server answers with an error, which tells as much.
                urllib.request.urlopen(url, timeout=2).close()
            except urllib.error.HTTPError:
                return
            except OSError:
                if server.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                why = "does not answer" if server.returncode is None else f"ended with {server.returncode}"
                end = self._log(kind).read_text(errors="replace")[-2000:]
                raise RuntimeError(f"Swift's {kind} server {why}:\n{end}") from None
            else:
                return

    def _log(self, kind: str) -> Path:
        return self._folder / f"{kind}.log"

    def _tell_ward(self) -> None:
        if self._ward is not None:
            self._ward.stdin.write(" ".join(str(server.pid) for server in self._servers.values()) + "\n")
            self._ward.stdin.flush()

    def _s3(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name=REGION,
            config=botocore.config.Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 3}),
        )


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, below those from which the system serves outgoing connections.

    Among those, a client that knocks on the port of a killed server could be given that very port, and meet itself.
    """
    found: list[int] = []
    candidates = random.sample(range(10_000, 32_000), 1000)
    while len(found) < count:
        port = candidates.pop()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found
