"""Schedulers and workers of dask in processes of their own, which a test can kill."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager

from distributed import Client

from chains import started

#: Variables with which a scheduler frees what a killed worker had leased after 5 s; dask's default is 30.
SHORT_LEASES = {
    "DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_TIMEOUT": "5s",
    "DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_VALIDATION_INTERVAL": "1s",
}


@contextmanager
def worker(address, folder, *options, python=(sys.executable,), environment=None, nanny=False):
    """A worker process, which has connected to the scheduler."""
    command = [*python, "-m", "dask", "worker", address, "--nthreads", "1", "--no-dashboard", *options]
    command += ["--local-directory", str(folder)] + ([] if nanny else ["--no-nanny"])
    with Client(address, set_as_default=False) as observer:
        before = {*observer.nthreads()}  # perhaps with a worker that was killed, which the scheduler does not know yet
        with started(command, environment) as child:
            while not {*observer.nthreads()} - before:
                assert child.process.poll() is None, child.said()
                time.sleep(0.05)
            yield child


@contextmanager
def scheduler_process(folder, python=(sys.executable,), environment=None):
    """A scheduler process and its address."""
    file = folder / "scheduler.json"
    command = [*python, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with started([*command, "--scheduler-file", str(file)], environment) as child:
        while not (file.exists() and file.read_text()):
            assert child.process.poll() is None, child.said()
            time.sleep(0.05)
        yield child, json.loads(file.read_text())["address"]
