"""Chunks that a stored array lacks: refused where a ledger records them, else counted.

zarr reads an absent chunk as the fill value, whether it was left out on purpose or was lost.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, TargetError
from ..stores.locations import shown
from ..stores.target import Target
from . import ledger
from .codecs import ArrayLayout
from .target_state import FINISHED, read_root

#: Folders above an array that can be its image: for ``labels/<name>/<level>``, the third.
_DEEPEST = 3


class AbsentChunks:
    """The absent chunks of an array that were found, by listing its store or by reading.

    Threads of one process share it. A copy in another process starts empty: `take` what it finds, and `add` that here.

    Parameters
    ----------
    array : Target
        The folder of the array.
    layout : ArrayLayout
    """

    def __init__(self, array: Target, layout: ArrayLayout) -> None:
        self._array, self._layout = array, layout
        self._found: dict[str, int] = {}
        self._warned = False
        self._lock = threading.Lock()

    def list(self) -> None:
        """Find all absent objects, if the store can be listed, and on a local disk all absent chunks within shards.

        Raises
        ------
        TargetError
            If one of them is recorded in the ledger of the array's image.
        """
        layout = self._layout
        if self._array.is_plain_http:
            return
        try:
            there = self._array.sizes()
        except (TargetError, InputError):  # only reading may be allowed
            return
        if not {"zarr.json", ".zarray"} & there.keys():  # the metadata was read, so this listing is not one
            return
        for index in np.ndindex(*layout.grid):
            if (key := layout.key(index)) not in there:
                self.note(index)
            elif self._array.is_local and layout.index_size:
                with Path(self._array.url, key).open("rb") as file:
                    file.seek(max(there[key] - layout.index_size, 0))
                    self.note_within(index, file.read())

    def note(self, index: tuple[int, ...], count: int | None = None) -> None:
        """Count an object as absent, or some of its chunks.

        Parameters
        ----------
        index : tuple of int
        count : int, optional
            How many of its chunks are absent. Default: the object is.

        Raises
        ------
        TargetError
            If it is recorded in the ledger of the array's image.
        """
        key = self._layout.key(index)
        with self._lock:
            if self._recorded is None:
                self._found[key] = math.prod(self._layout.chunks_of(index)) if count is None else count
            elif key in self._recorded:
                lacks = "is missing" if count is None else "lacks chunks"
                raise TargetError(f"{shown(self._array.url)}/{key} {lacks}; build or fetch it again")

    def note_within(self, index: tuple[int, ...], body: bytes) -> None:
        """Count the chunks that a shard lacks, by its last bytes at least.

        Raises
        ------
        TargetError
            If the shard is recorded in the ledger of the array's image.
        """
        try:
            count = self._layout.absent_within(index, body)
        except ValueError:  # reading it raises an error
            return
        if count:
            self.note(index, count)

    def take(self) -> dict[str, int]:
        """How many chunks were found since the last call, by the key of their object."""
        with self._lock:
            found, self._found = self._found, {}
        return found

    def add(self, found: Mapping[str, int]) -> None:
        """Add what was taken."""
        with self._lock:
            self._found.update(found)

    def first_remark(self, name: str | None = None) -> str | None:
        """Same as `remark`, once: None after it has returned a sentence."""
        with self._lock:
            text = None if self._warned else self.remark(name)
            self._warned |= text is not None
        return text

    def remark(self, name: str | None = None) -> str | None:
        """How many chunks were found absent, in a sentence; None for 0.

        Parameters
        ----------
        name : str, optional
            Of the array; default its URL.
        """
        if not (absent := sum(self._found.values())):
            return None
        total = math.prod(-(-n // c) for n, c in zip(self._layout.shape, self._layout.chunk, strict=True))
        value = f"the fill value {self._layout.fill:g}" if self._layout.fill else "background"
        name = name or shown(self._array.url)
        return f"{absent} of {total} chunks of {name} are absent and read as {value}"

    @cached_property
    def _recorded(self) -> frozenset[str] | None:
        """Keys of the array's objects in the ledger of the finished image that holds it; None without a ledger."""
        for root in islice(self._array.above(), _DEEPEST):
            try:
                if (own := read_root(root)) is None:
                    continue
                found = ledger.read(root, finished=True)
            except (InputError, TargetError):  # a folder of something else
                continue
            if own["state"] != FINISHED or found.damaged:
                return None
            prefix = f"{self._array.url.removeprefix(root.url)}/".lstrip("/")
            if not any(key.startswith(prefix) for key in (found.header or {}).get("documents", {})):
                return None
            keys = (key for entry in found.done.values() for key in entry.written)
            return frozenset(key.removeprefix(prefix) for key in keys if key.startswith(prefix))
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return AbsentChunks, (self._array, self._layout)
