"""One build at a time in a target: a second build raises an error, and the lock of a killed build does not last."""

import json
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta

import numpy as np
import pytest
from moto.s3.models import s3_backends

from atlaszarr import AllenClient, build, verify
from atlaszarr.engine import lock
from atlaszarr.engine.lock import KEYS, owning
from atlaszarr.errors import InputError, TargetError
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from chains import DATASET, Folder, Undisturbed, Watched, section_build, started
from codes import raises
from scripted import Fault, Scripted, StoreFaultError

OWNER = "atlaszarr/owner.json"
IMAGE = np.random.default_rng(0).integers(0, 255, (40, 40, 40)).astype("uint8")


@pytest.fixture
def name(request):
    """A target that no other test uses."""
    return f"{request.node.name.replace(' ', '-')}.ome.zarr"


@contextmanager
def halfway(run):
    """A build in a thread that waits at its third block until the context ends; yields its future."""
    reached, resume = threading.Event(), threading.Event()

    def stop(done, *_):
        if done >= 3:
            reached.set()
            assert resume.wait(200)

    with ThreadPoolExecutor(1) as thread:
        try:
            outcome = thread.submit(run, progress=stop)
            outcome.add_done_callback(lambda _: reached.set())
            assert reached.wait(200)
            assert not outcome.done()
            yield outcome
        finally:
            resume.set()


@pytest.mark.slow
def test_a_second_build_into_a_target_raises_an_error_and_the_first_completes(emulator, store, name, tmp_path):
    url = store.url(name)
    options = {"resolution": 100, "chunk": 16, "storage_options": store.options}
    with AllenClient(emulator.url, cache="none", rate=1e9) as client:

        def run(**further):
            return build(DATASET, url, client=client, **options, **further)

        with halfway(run) as first:
            with started(section_build(emulator.url)(url, store.options)) as second:
                assert second.process.wait(200) == 2
                (line,) = second.said().splitlines()
            assert url in line
            with raises(InputError, "target-locked"):
                run()
        assert first.result().views[0].state == "built"
    expected = Undisturbed.of(section_build(emulator.url), tmp_path)
    Watched(store, name, expected).hold_equal()


def write(store, name, **options):
    return write_multiscales(
        IMAGE, store.url(name), chunk=8, identity="noise", storage_options=store.options, workers=1, **options
    )


@pytest.mark.first(1)
def test_no_lock_stays_in_a_target(store, name):
    class StopError(Exception):
        pass

    def stop(done, *_):
        assert set(KEYS).intersection(store.keys(name))
        if done >= 3:
            raise StopError

    with pytest.raises(StopError):
        write(store, name, progress=stop)
    assert not [key for key in store.keys(name) if "owner" in key]
    write(store, name)
    assert not [key for key in store.keys(name) if "owner" in key]


@pytest.mark.first(1)
def test_the_lock_of_a_killed_process_is_taken_at_once(store, name):
    script = """
import json, sys
from atlaszarr.engine.lock import owning
from atlaszarr.stores.target import Target
with owning(Target.of(sys.argv[1], json.loads(sys.argv[2]))):
    print("owned", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", script, store.url(name), json.dumps(store.options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"owned\n"
        with raises(InputError, "target-locked"):
            write(store, name)
        process.kill()
    assert set(KEYS).intersection(store.keys(name))
    assert write(store, name).state == "built"
    assert not set(KEYS).intersection(store.keys(name))


@pytest.fixture
def stranger(remote, name):
    """Puts the owner object of another machine into a target, last renewed a number of seconds ago."""

    def put(seconds):
        body = {"owner": "0", "host": "elsewhere", "pid": 7, "process": "another-boot pid:[1] 7 99"}
        Target.of(remote.url(name), remote.options).write(OWNER, json.dumps(body).encode())
        (backend,) = (one["aws"] for one in s3_backends.values() if "atlas" in one["aws"].buckets)
        backend.buckets["atlas"].keys[f"{name}/{OWNER}"].last_modified -= timedelta(seconds=seconds)

    return put


@pytest.mark.slow
def test_the_lease_of_another_machine_lasts_a_minute_after_its_last_renewal(remote, name, stranger):
    stranger(50)
    with raises(InputError, "target-locked") as caught:
        write(remote, name)
    assert re.search(r"process 7 on elsewhere\b.* 5\d s", str(caught.value))
    assert remote.keys(name) == [OWNER]
    stranger(61)
    assert write(remote, name).state == "built"
    assert not [key for key in remote.keys(name) if "owner" in key]


@pytest.mark.slow
def test_the_lease_of_another_machine_is_taken_over_at_once_with_take_over(remote, name, stranger):
    stranger(0)
    assert write(remote, name, take_over=True).state == "built"
    assert not [key for key in remote.keys(name) if "owner" in key]


def test_an_owner_renews_its_lease(remote, name, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.05)
    with owning(Target.of(remote.url(name), remote.options)):
        (backend,) = (one["aws"] for one in s3_backends.values() if "atlas" in one["aws"].buckets)
        keys = backend.buckets["atlas"].keys
        first = keys[f"{name}/{OWNER}"].last_modified
        beaten = threading.Event()
        while keys[f"{name}/{OWNER}"].last_modified == first:
            beaten.wait(0.01)


def test_a_put_with_the_tag_from_before_a_renewal_is_refused(remote, name, monkeypatch):
    """On S3 the tag is a hash of the object: an owner that writes the same again would be overwritten."""
    monkeypatch.setattr(lock, "HEARTBEAT", 0.05)
    target = Target.of(remote.url(name), remote.options)
    with owning(target):
        _, before = target.read_tagged(OWNER)
        waiting = threading.Event()
        while (tagged := target.read_tagged(OWNER))[1] == before:
            waiting.wait(0.01)
        assert not target.replace(OWNER, b"another build", before)
        assert json.loads(tagged[0])["owner"] == json.loads(target.read(OWNER))["owner"]


def insisting(store, name):
    """Take over a target, again if its owner renews its lease at the same moment."""
    while True:
        with suppress(InputError):
            return write(store, name, take_over=True)


@pytest.mark.slow
def test_a_build_that_lost_its_target_stops_with_an_error(remote, name, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.5)
    with halfway(lambda **further: write(remote, name, **further)) as first:
        assert insisting(remote, name).state == "resumed"
        done = remote.digests(name)
    with raises(TargetError, "target-taken-over") as caught:
        first.result()
    assert remote.url(name) in str(caught.value)
    assert remote.digests(name) == done
    assert verify(remote.url(name), deep=True, storage_options=remote.options).ok


@pytest.mark.slow
def test_blocks_that_a_build_wrote_after_it_lost_its_target_are_repaired(remote, name, monkeypatch):
    """It reads the owner object only at each renewal, so blocks in progress may be written late."""
    monkeypatch.setattr(lock, "HEARTBEAT", 4.0)
    with halfway(lambda **further: write(remote, name, **further)) as first:
        other = {"chunk": 8, "identity": "other", "storage_options": remote.options, "overwrite": True}
        write_multiscales(255 - IMAGE, remote.url(name), take_over=True, **other)
    with raises(TargetError, "target-taken-over"):
        first.result()
    write_multiscales(255 - IMAGE, remote.url(name), **{**other, "overwrite": False})
    report = verify(remote.url(name), deep=True, storage_options=remote.options)
    assert report.ok, report.defects


def test_a_lock_on_a_local_disk_is_not_taken_from_a_running_process(tmp_path, name):
    store = Folder(tmp_path)
    with (
        halfway(lambda **further: write(store, name, **further)) as first,
        raises(InputError, "target-locked"),
    ):
        write(store, name, take_over=True)
    assert first.result().state == "built"


@pytest.mark.parametrize("left", ["nothing", "a dead owner"])
def test_of_two_builds_that_lock_a_target_at_once_exactly_one_owns_it(store, name, left, request):
    if left == "a dead owner" and isinstance(store, Folder):
        Target.of(store.url(name)).write("atlaszarr/owner.lock", b"")
    elif left == "a dead owner":
        request.getfixturevalue("stranger")(61)
    target = Target.of(store.url(name), store.options)
    together, answered = threading.Barrier(2), threading.Barrier(2)

    def take():
        together.wait(60)
        try:
            with owning(target):
                answered.wait(60)
                return True
        except InputError:
            answered.wait(60)
            return False

    with ThreadPoolExecutor(2) as threads:
        owned = [future.result() for future in [threads.submit(take) for _ in range(2)]]
    assert sorted(owned) == [False, True]
    assert not [key for key in store.keys(name) if "owner" in key]


def test_a_lock_that_was_created_although_the_store_raised_an_error_is_owned(name):
    target = Target.of(f"scripted://{name}")
    Scripted.faults[:] = [Fault("put", OWNER, StoreFaultError("lost"), done=True)]
    with owning(target) as owner:
        owner.validate(read=True)
    assert not Scripted.faults
    assert not target.list_keys()


def test_a_lock_that_was_created_before_the_store_failed_is_taken_by_the_next_build_of_the_process(name):
    target = Target.of(f"scripted://{name}")
    Scripted.faults[:] = [Fault("put", OWNER, StoreFaultError("lost"), done=True)]
    Scripted.faults.append(Fault("get", OWNER, StoreFaultError("down"), times=2))
    with pytest.raises(TargetError), owning(target):
        pass
    Scripted.faults.clear()
    assert target.list_keys() == [OWNER]
    with owning(target) as owner:
        owner.validate(read=True)
    assert not target.list_keys()


def test_a_lease_that_is_not_renewed_in_time_stops_the_build(name, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    monkeypatch.setattr(lock, "LEASE", 0.5)

    def hold():
        with owning(Target.of(f"scripted://{name}")) as owner:
            Scripted.faults[:] = [Fault("put", OWNER, StoreFaultError("down"), times=10**6)]
            waiting = threading.Event()
            while True:
                owner.validate()
                waiting.wait(0.01)

    with raises(TargetError, "lock-not-renewed"):
        hold()
    Scripted.faults.clear()


def test_a_lock_that_is_released_between_creation_and_read_is_taken(name):
    target = Target.of(f"scripted://{name}")
    Scripted.faults[:] = [Fault("put", OWNER, FileExistsError())]
    with owning(target) as owner:
        owner.validate(read=True)
    assert not Scripted.faults


def test_a_lease_that_another_build_takes_between_read_and_renewal_is_lost_and_not_overwritten(
    remote, name, monkeypatch
):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.05)
    target, other = (Target.of(remote.url(name), remote.options) for _ in range(2))
    path, taken, renewed = f"/atlas/{name}/{OWNER}", threading.Event(), threading.Event()

    def take_before_the_renewal(environment):
        if environment["PATH_INFO"] == path:
            if taken.is_set() and environment["REQUEST_METHOD"] == "GET":
                renewed.set()
            elif not taken.is_set() and environment["REQUEST_METHOD"] == "PUT":
                taken.set()
                other.write(OWNER, b"other")

    with owning(target) as owner:
        remote.gate.watch = take_before_the_renewal
        assert renewed.wait(200)
        with raises(TargetError, "target-taken-over"):
            owner.validate(read=True)
    assert remote.read(name, OWNER) == b"other"


@pytest.fixture
def unconditional(remote):
    """Conditional puts are answered with 501, and listed here."""
    refused = []

    def refuse(environment):
        for condition in ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"):
            if condition in environment:
                refused.append(condition)
                return "501 Not Implemented"
        return None

    remote.gate.watch = refuse
    return refused


def test_a_server_without_conditional_puts_is_asked_once_and_locked(remote, name, unconditional, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.05)
    target, other = (Target.of(remote.url(name), remote.options) for _ in range(2))
    with owning(target) as owner:
        assert unconditional == ["HTTP_IF_NONE_MATCH"]
        with raises(InputError, "target-locked"), owning(other):
            pass
        assert unconditional == ["HTTP_IF_NONE_MATCH"] * 2
        before, waiting = remote.gate.puts[f"/atlas/{name}/{OWNER}"], threading.Event()
        while remote.gate.puts[f"/atlas/{name}/{OWNER}"] < before + 2:
            waiting.wait(0.01)
        owner.validate(read=True)
    assert unconditional == ["HTTP_IF_NONE_MATCH"] * 2
    assert not remote.keys(name)


def test_on_a_server_without_conditional_puts_the_lease_of_a_dead_owner_is_taken(remote, name, stranger, unconditional):
    stranger(61)
    with owning(Target.of(remote.url(name), remote.options)) as owner:
        owner.validate(read=True)
    assert unconditional == ["HTTP_IF_NONE_MATCH"]
    assert not remote.keys(name)
