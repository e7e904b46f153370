"""Temporary folders on a local disk that the next process removes if theirs was killed."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import filelock

#: Beginning of the names of temporary folders and their locks.
TEMPORARY = "atlaszarr-"
#: The locks of `temporary_folder`, each next to the folder of the same name without the suffix.
_LOCK = re.compile(rf"{TEMPORARY}[0-9a-f]{{32}}\.lock")
#: Seconds to wait for the lock of a new folder, which another process holds only while it removes the file.
_PATIENCE = 30.0


@contextmanager
def temporary_folder(parent: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """A new folder, removed at the end of the context.

    The process holds a lock next to the folder, which the operating system releases when the process ends. The folders
    in `parent` whose lock is free, those of killed processes, are removed first. On a file system without locks none
    is removed.

    Parameters
    ----------
    parent : str or path-like, optional
        An existing folder; default that of the system for temporary files.

    Raises
    ------
    OSError
        If the folder cannot be created.
    """
    above = Path(tempfile.gettempdir() if parent is None else parent).expanduser().absolute()
    _remove_abandoned(above)
    folder = above / f"{TEMPORARY}{uuid4().hex}"
    # The lock is held before the folder exists: a folder whose lock is free has no living process. Another process may
    # take the lock for the moment in which it removes the new file.
    lock = filelock.FileLock(f"{folder}.lock", timeout=_PATIENCE, thread_local=False)
    with suppress(NotImplementedError):
        lock.acquire()
    try:
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _remove_abandoned(above: Path) -> None:
    """Remove the folders whose lock is free."""
    for path in list(above.iterdir()):
        if not _LOCK.fullmatch(path.name) or path.is_symlink() or not _is_own(path):
            continue
        lock = filelock.FileLock(path, timeout=0, thread_local=False)
        with suppress(filelock.Timeout, NotImplementedError, OSError), lock:
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)


def _is_own(path: Path) -> bool:
    """Whether a file belongs to the user of this process, as those in a shared folder need not."""
    try:
        return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()
    except OSError:  # removed by its process
        return False
