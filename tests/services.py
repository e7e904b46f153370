"""Fixtures for tests that need a server: emulated Allen APIs and their clients, stores on disk and on S3.

The `conftest.py` of `integration`, `faults` and `end_to_end` import them; unit tests do not need them.
"""

from __future__ import annotations

import http.server
import threading
from contextlib import ExitStack
from functools import partial

import pytest

from atlaszarr.allen.client import AllenClient
from atlaszarr.testing import Emulator
from chains import Folder, bucket

__all__ = ["allen", "connect", "emulator", "remote", "serve", "store", "web"]


@pytest.fixture(scope="session")
def emulator():
    """A running Emulator with the built-in records and no faults; call `reset` before counting requests."""
    with Emulator() as running:
        yield running


@pytest.fixture(scope="module")
def allen(emulator):
    """A client of `emulator` without a cache."""
    with AllenClient(emulator.url, cache="none", rate=1e9) as client:
        yield client


@pytest.fixture
def serve(records):
    """Starts Emulators, by default with `records`: ``serve(datasets, images, faults=[...], latency=...)``."""
    with ExitStack() as running:

        def start(datasets=None, images=None, **options):
            datasets = records[0] if datasets is None else datasets
            return running.enter_context(Emulator(datasets, records[1] if images is None else images, **options))

        yield start


@pytest.fixture
def connect():
    """Opens AllenClients with short waits and no cache: ``connect(emulator, cache=..., retries=...)``."""
    with ExitStack() as opened:

        def start(emulator, cache="none", **options):
            hasty = {"rate": 1e9, "timeout": (5.0, 60.0), "retries": 2, "backoff": 0.01}
            return opened.enter_context(AllenClient(emulator.url, cache, **(hasty | options)))

        yield start


@pytest.fixture(scope="module")
def remote():
    """An empty bucket on its own S3 server."""
    with bucket() as opened:
        yield opened


@pytest.fixture(params=["local disk", "S3"])
def store(request, tmp_path, remote):
    """A folder or a bucket in which a build can be killed."""
    return Folder(tmp_path) if request.param == "local disk" else remote


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """The URL of a plain web server that serves `tmp_path`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
