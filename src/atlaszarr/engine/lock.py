"""The lock of a target: one build writes at a time, and a second build raises an error.

On a local disk it is a lock of the operating system, which ends with its process: after a ``kill -9`` the next build
takes it at once. Elsewhere, and on file systems without such locks (Lustre without ``flock``, some NFS), it is a lease:
an owner object that is created exclusively and renewed every `HEARTBEAT` seconds. Another build takes the lease if the
owner's process has ended on this machine, or if it was not renewed for `LEASE` seconds by the clock of the store.

The owner object is renewed and taken over by a conditional put (If-Match), so that no build overwrites the lease of
another. On stores without conditional puts, such as fsspec's filesystems and S3 servers that answer with 501, the
object is read, written and read again; two builds that do so at the same time may both run until the next renewal.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import filelock

try:
    import fcntl
except ImportError:  # Windows has locks on every file system
    fcntl = None  # type: ignore[assignment]

from ..errors import AtlaszarrError, InputError, TargetError
from ..stores.documents import LARGEST, parse_object
from ..stores.target import Target

#: Seconds between two renewals of a lease.
HEARTBEAT = 15.0
#: Seconds after its last renewal until a lease may be taken over.
LEASE = 60.0
#: Seconds to wait for other builds that write a document which they share: each takes a few requests, and the lock of
#: one that was killed ends with its lease.
PATIENCE = 2 * LEASE
#: Seconds between a take-over and the read that decides which of two builds has taken the lease.
_SETTLING = 1.0
#: Seconds between two tries to own a target that another owner holds for a moment.
_PAUSE = 0.1
#: Tries to create an owner object that another build removes between creation and read, or a lock in a folder that it
#: removes.
_TRIES = 5
_LOCK = "atlaszarr/owner.lock"
_OWNER = "atlaszarr/owner.json"
#: Keys that a target may have while a build owns it.
KEYS = (_LOCK, _OWNER)
#: Beginnings of the keys by which the age of a lock is measured, see `Target.age`.
PROBES = tuple(f"{key}." for key in KEYS)
#: Errors of `flock` on a file system without locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
#: Names of the leases that this process holds.
_held: set[str] = set()


class Owner:
    """The owner of a target; with a lock of the operating system it is the owner until the lock is released."""

    def validate(self, read: bool = False) -> None:
        """Raise a TargetError if the lease is lost or was not renewed in time; `read` the owner object first."""


@contextmanager
def owning(target: Target, take_over: bool = False, patience: float = 0.0) -> Iterator[Owner]:
    """Own a target.

    Parameters
    ----------
    target : Target
    take_over : bool
        Whether to take a lease whose owner may be running. A lock of the operating system is never taken from a
        running process.
    patience : float
        Seconds to wait for another owner.

    Raises
    ------
    InputError
        If another build owns the target.
    TargetError
        If the owner object cannot be read or written.
    """
    end = time.monotonic() + patience
    lock = _locked if _has_locks(target) else _leased
    while True:
        with ExitStack() as stack:
            try:
                owner = stack.enter_context(lock(target, take_over))
            except InputError as error:
                if error.code not in ("target-locked", "target-taken-over") or time.monotonic() >= end:
                    raise
            else:
                yield owner
                return
        time.sleep(_PAUSE)


def tidy(target: Target) -> None:
    """Remove the lock of a build that was killed after it had finished the target."""
    if any(body is not None for body in target.read_each(KEYS, LARGEST).values()):
        with suppress(InputError), owning(target):
            pass


def _has_locks(target: Target) -> bool:
    """Whether a target is on a file system with locks."""
    if not target.is_local:
        return False
    target.make_way([_LOCK])
    if fcntl is None:
        return True
    folder = Path(target.url, _LOCK).parent

    def opened() -> IO[bytes]:
        return tempfile.TemporaryFile(dir=folder)

    with target.reporting("write to"), _in_folder(folder, opened) as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return False
    return True


def _in_folder(folder: Path, action: Callable[[], Any]) -> Any:
    """Make a folder, and call what needs it; again if another build removes the empty folder in between."""
    for left in reversed(range(_TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return action()
        except (FileNotFoundError, FileExistsError):  # `mkdir` raises the second if the folder is removed meanwhile
            if not left:
                raise
    raise AssertionError


@contextmanager
def _locked(target: Target, take_over: bool) -> Iterator[Owner]:
    path = Path(target.url, _LOCK)
    with target.reporting("write to"):
        lock = filelock.FileLock(path, timeout=0, thread_local=False)
        try:
            _in_folder(path.parent, lock.acquire)
        except filelock.Timeout:
            raise InputError(
                f"target {target.url} is being built by another process; wait until it ends", code="target-locked"
            ) from None
    try:
        if (body := target.read(_OWNER, LARGEST)) is not None:
            if _owner(body).get("owner"):  # on a machine for which the file system has no locks
                with _leased(target, take_over):
                    pass
            else:
                target.remove(_OWNER)
        yield Owner()
    finally:
        path.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # it has records, or another lock
            path.parent.rmdir()


@contextmanager
def _leased(target: Target, take_over: bool) -> Iterator[Owner]:
    lease = _Lease(target)
    try:
        lease.take(take_over)
    except BaseException:
        _held.discard(lease.name)  # the owner object may have been created although the store raised an error
        raise
    ended, answers = threading.Event(), True
    heart = threading.Thread(target=lease.renew_until, args=(ended,), name="atlaszarr-owner", daemon=True)
    heart.start()
    try:
        yield lease
    except TargetError:
        # The store may not answer again; the next build takes the lease, since this process does not hold it any more.
        answers = False
        raise
    finally:
        ended.set()
        _held.discard(lease.name)
        if answers:
            heart.join()
            lease.leave()


class _Lease(Owner):
    """The owner object of a target."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._lost = False
        self._renewed = time.monotonic()
        self._process = _process()
        self.name = uuid.uuid4().hex
        _held.add(self.name)
        self._renewals = 0
        #: Why the last renewal failed.
        self._cause = ""

    def _body(self) -> bytes:
        """The owner object; each renewal has another content, since the tag of an object may be a hash of it."""
        mine = {"owner": self.name, "host": socket.gethostname(), "pid": os.getpid(), "process": self._process}
        return json.dumps({**mine, "renewals": self._renewals}).encode()

    def take(self, take_over: bool) -> None:
        """Create the owner object, or take over that of a build that has ended."""
        for _ in range(_TRIES):
            try:
                created = self._target.create(_OWNER, self._body())
            except TargetError:
                created = self._is_ours()  # the object was created, and the answer lost
                if not created:
                    raise
            self._renewed = time.monotonic()
            if created:
                return
            if (stored := self._target.read_tagged(_OWNER, LARGEST)) is not None:
                break  # else its owner has removed it meanwhile
        else:
            raise TargetError(
                f"{self._target.url} cannot be locked: {_OWNER} was created and removed {_TRIES} times by other "
                "builds; run the command again",
                code="lock-contended",
            )
        body, tag = stored
        other = _owner(body)
        if other.get("owner") == self.name:  # the answer to an earlier try was lost
            return
        if not take_over and not self._has_ended(other):
            age = self._target.age(_OWNER)
            if age is None or age < LEASE:
                renewed = "" if age is None else f", which renewed its lock {age:.0f} s ago"
                raise InputError(
                    f"target {self._target.url} is being built by process {other.get('pid')} on "
                    f"{other.get('host')}{renewed}; wait until it ends, or give --take-over if it has ended",
                    code="target-locked",
                )
        self._target.replace(_OWNER, self._body(), tag)
        time.sleep(_SETTLING)
        if not self._is_ours():
            raise InputError(
                f"target {self._target.url} was taken over by another build; wait until it ends",
                code="target-taken-over",
            )

    def leave(self) -> None:
        """Remove the owner object, unless it is that of another build."""
        with suppress(TargetError):
            if self._is_ours():
                self._target.remove(_OWNER)

    def _has_ended(self, other: dict[str, object]) -> bool:
        """Whether another owner has certainly ended: its process has, or is this one and no longer holds the lease."""
        process = other.get("process")
        if process is not None and process == self._process:
            return other.get("owner") not in _held
        return _is_dead(process)

    def _is_ours(self) -> bool:
        """Whether the owner object is the one that this lease wrote."""
        return _owner(self._target.read(_OWNER, LARGEST)).get("owner") == self.name

    def renew_until(self, ended: threading.Event) -> None:
        """Renew the lease until an event is set."""
        while not ended.wait(HEARTBEAT):
            # Whatever the store raises, the next round tries again; `validate` raises once the lease is too old.
            began = time.monotonic()
            try:
                stored = self._target.read_tagged(_OWNER, LARGEST)
                if stored is None or _owner(stored[0]).get("owner") != self.name:
                    self._lost = True
                    return
                self._renewals += 1
                # A put that fails may follow one of ours whose answer was lost: the next round reads the object.
                if not ended.is_set() and self._target.replace(_OWNER, self._body(), stored[1]):
                    self._renewed = began
            except BaseException as error:  # also of the event loop of a store, or while the interpreter shuts down
                self._cause = f": {error}" if isinstance(error, AtlaszarrError) else f": {type(error).__name__}"

    def validate(self, read: bool = False) -> None:
        """Same as in `Owner`."""
        self._lost = self._lost or (read and not self._is_ours())
        if self._lost:
            raise TargetError(
                f"{self._target.url} was taken over by another build; this one stops", code="target-taken-over"
            )
        if (silent := time.monotonic() - self._renewed) > LEASE:
            raise TargetError(
                f"the lock of {self._target.url} could not be renewed for {silent:.0f} s, and another build may "
                f"start{self._cause}; run the same command to resume",
                code="lock-not-renewed",
            )


def _owner(body: bytes | None) -> dict[str, object]:
    """The content of an owner object; empty if it is missing or damaged."""
    try:
        return parse_object(body or b"")
    except (ValueError, TypeError):
        return {}


def _process() -> str | None:
    """A name of this process that is unique among all machines; None without Linux's ``/proc``."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").readlink()
        return f"{boot} {space} {os.getpid()} {_started(os.getpid())}"
    return None


def _is_dead(process: object) -> bool:
    """Whether a process ran on this machine and has ended."""
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
    """The start of a process in clock ticks since boot: field 22 of ``/proc/PID/stat``, see proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
