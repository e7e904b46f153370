"""One build at a time in a target: whoever writes owns it, and a second one is refused.

On a local disk the operating system's lock decides, and ends with its process. Elsewhere an object created exclusively
does, which its owner renews; one that was not renewed for `LEASE` seconds, by the store's own clock, is left over
from a build that was killed.

The owner object is renewed and taken over by a conditional put (If-Match), so that no build overwrites the lock of
another. Stores without conditional puts, such as fsspec's filesystems and S3 servers that answer them with 501, are
weaker: the object is read, put and read again, and two builds that do so at once may both run until the next renewal.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from ..errors import InputError, TargetError
from ..stores.target import Target

#: Seconds between two signs of life, and without one until a target may be taken over.
HEARTBEAT = 15.0
LEASE = 60.0
#: Seconds after which a take-over by two at once has settled.
_SETTLING = 1.0
#: How often a lock is created whose owner leaves in the very moment.
_TRIES = 5
_LOCK = "atlaszarr/owner.lock"
_OWNER = "atlaszarr/owner.json"
#: What lies in a target while it is owned.
KEYS = (_LOCK, _OWNER)
#: The leases that this process holds.
_held: set[str] = set()


class Owner:
    """Whoever holds a target; a lock of the operating system is held until it is let go."""

    def check(self) -> None:
        """Raise a TargetError if it is known that another build took over."""

    def confirm(self) -> None:
        """Ask the store, and raise a TargetError if another build took over."""


@contextmanager
def owning(target: Target, take_over: bool = False) -> Iterator[Owner]:
    """Own a target.

    Parameters
    ----------
    target : Target
    take_over : bool
        Whether to take it from an owner that may be alive. A lock on a local disk is never taken from a process
        that is.

    Raises
    ------
    InputError
        If another build owns it.
    """
    with _locked(target) if target.is_local else _leased(target, take_over) as owner:
        yield owner


def tidy(target: Target) -> None:
    """Remove the mark that an owner left who was killed once the target was finished."""
    if any(body is not None for body in target.read_each(KEYS).values()):
        with suppress(InputError), owning(target):
            pass


@contextmanager
def _locked(target: Target) -> Iterator[Owner]:
    target.make_way([_LOCK])
    path = Path(target.url, _LOCK)
    with target.reporting("write to"):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise InputError(f"target {target.url} is being built by another process; wait until it ends") from None
    try:
        yield Owner()
    finally:
        path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def _leased(target: Target, take_over: bool) -> Iterator[Owner]:
    lease = _Lease(target)
    lease.take(take_over)
    ended, answers = threading.Event(), True
    heart = threading.Thread(target=lease.renew_until, args=(ended,), name="atlaszarr-owner", daemon=True)
    heart.start()
    try:
        yield lease
    except TargetError:
        answers = False  # maybe never again; that nobody here holds the lease is enough for whoever comes next
        raise
    finally:
        ended.set()
        _held.discard(lease.name)
        if answers:
            heart.join()
            lease.leave()


class _Lease(Owner):
    """The owner object of a target, and who may hold it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._lost = False
        self._renewed = time.monotonic()
        self._process = _process()
        self.name = uuid.uuid4().hex
        _held.add(self.name)
        mine = {"owner": self.name, "host": socket.gethostname(), "pid": os.getpid(), "process": self._process}
        self._body = json.dumps(mine).encode()

    def take(self, take_over: bool) -> None:
        """Create the owner object, or take it over from an owner that is gone."""
        for _ in range(_TRIES):
            try:
                created = self._target.create(_OWNER, self._body)
            except TargetError:
                created = self.is_ours()  # carried out, and the answer was lost
                if not created:
                    raise
            self._renewed = time.monotonic()
            if created:
                return
            if (found := self._target.read_tagged(_OWNER)) is not None:  # else its owner left in between
                break
        else:
            raise TargetError(f"{self._target.url} cannot be locked: {_OWNER} comes and goes; run the command again")
        body, tag = found
        if body == self._body:  # the answer to an earlier try was lost
            return
        try:
            other = dict(json.loads(body))
        except (ValueError, TypeError):
            other = {}
        if not take_over and not self._is_over(other):
            age = self._target.age(_OWNER)
            if age is None or age < LEASE:
                seen = "" if age is None else f", which gave a sign of life {age:.0f} s ago"
                raise InputError(
                    f"target {self._target.url} is being built by process {other.get('pid')} on "
                    f"{other.get('host')}{seen}; wait until it ends, or give --take-over if it is gone"
                )
        self._target.replace(_OWNER, self._body, tag)
        time.sleep(_SETTLING)
        if not self.is_ours():
            raise InputError(f"target {self._target.url} was taken over by another build; wait until it ends")

    def leave(self) -> None:
        """Remove the owner object, if it is ours."""
        with suppress(TargetError):
            if self.is_ours():
                self._target.remove(_OWNER)

    def _is_over(self, other: dict[str, object]) -> bool:
        """Whether an owner is surely gone: its process is, or it is this one and has left."""
        process = other.get("process")
        if process is not None and process == self._process:
            return other.get("owner") not in _held
        return _is_dead(process)

    def is_ours(self) -> bool:
        """Whether the owner object is still the one we put."""
        return self._target.read(_OWNER) == self._body

    def renew_until(self, ended: threading.Event) -> None:
        """Give signs of life."""
        while not ended.wait(HEARTBEAT):
            # A store that does not answer for a while is no reason to give up; `check` says when it was too long.
            began = time.monotonic()
            with suppress(TargetError, InputError):
                try:
                    found = self._target.read_tagged(_OWNER)
                    if found is None or found[0] != self._body:
                        self._lost = True
                        return
                    # A put that was refused may be ours, carried out before: the next round reads whose it is.
                    if not ended.is_set() and self._target.replace(_OWNER, self._body, found[1]):
                        self._renewed = began
                except RuntimeError:
                    if not ended.is_set():
                        raise
                    return  # the process ends, and takes no more requests

    def confirm(self) -> None:
        """As of `Owner`."""
        self._lost = self._lost or not self.is_ours()
        self.check()

    def check(self) -> None:
        """As of `Owner`."""
        if self._lost:
            raise TargetError(f"{self._target.url} was taken over by another build; this one stops")
        if (silent := time.monotonic() - self._renewed) > LEASE:
            raise TargetError(
                f"{self._target.url} could not be locked again for {silent:.0f} s, and another build may begin; "
                "run the same command to resume"
            )


def _process() -> str | None:
    """The name of this process that no other of any machine has; None where the system cannot say."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").readlink()
        return f"{boot} {space} {os.getpid()} {_started(os.getpid())}"
    return None


def _is_dead(process: object) -> bool:
    """Whether a process ran on this very machine and does no more."""
    own = _process()
    if own is None or not isinstance(process, str) or len(parts := process.split()) != 4:
        return False
    boot, space, pid, started = parts
    if [boot, space] != own.split()[:2] or not pid.isdigit():
        return False
    try:
        return _started(int(pid)) != started
    except OSError:
        return True


def _started(pid: int) -> str:
    """When a process began, in clock ticks since the machine did: field 22 of proc(5)'s stat, after the name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
