"""Arrays that regions of an image have in common, kept in the memory of a process up to a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from itertools import product
from typing import Any

import numpy as np

Key = Hashable
#: Bytes of the values that a process keeps for other regions: 140 chunks of 64^3 voxels of a volume and its label, more
#: than the neighbours of a block of 2^3 chunks (64) in a row of blocks.
KEPT = 2**28
#: Locks of a `Kept`: many more than threads, so that two rarely wait for each other's value.
_LOCKS = 256


class Kept:
    """The arrays that regions had in common last, by key. They are never changed.

    Parameters
    ----------
    most : int
        Bytes that are kept.
    small : int, optional
        Values of at most so many bytes, such as the mean of an array, have a sixteenth more for themselves: they are
        made from much, and chunks do not replace them. Default: a thousandth of `most`.
    """

    def __init__(self, most: int, small: int | None = None) -> None:
        self._small = most // 1000 if small is None else small
        self._most, self._bytes = (most, most // 16), [0, 0]
        self._values: tuple[OrderedDict[Key, Any], ...] = (OrderedDict(), OrderedDict())
        self._lock = threading.Lock()
        self._making = tuple(threading.Lock() for _ in range(_LOCKS))
        self._made: set[Key] = set()

    def __reduce__(self) -> tuple[type[Kept], tuple[int, int]]:
        """A pickled copy is empty."""
        return Kept, (self._most[0], self._small)

    def making(self, key: Key) -> threading.Lock:
        """The lock of the thread that makes a value, which takes no other one; some keys have the same lock."""
        return self._making[hash(key) % _LOCKS]

    def was_made(self, key: Key) -> bool:
        """Whether a value was added once, even if it was dropped since."""
        with self._lock:
            return key in self._made

    def get(self, keys: Iterable[Key]) -> dict[Key, Any]:
        """Those of some values that are kept."""
        with self._lock:
            found = {}
            for key, values in product(keys, self._values):
                if key in values:
                    found[key] = values[key]
                    values.move_to_end(key)
        return found

    def add(self, values: Mapping[Key, Any]) -> None:
        """Keep arrays and tuples of arrays, instead of those that were not used for longest."""
        with self._lock:
            self._made.update(values)
            for key, value in values.items():
                if (size := _bytes(value)) is not None and not any(key in held for held in self._values):
                    part = int(size <= self._small)
                    self._values[part][key] = _alone(value)
                    self._bytes[part] += size
            for part, held in enumerate(self._values):
                while self._bytes[part] > self._most[part]:
                    _, value = held.popitem(last=False)
                    self._bytes[part] -= _bytes(value) or 0


def _bytes(value: Any) -> int | None:
    """Bytes of an array, a scalar of NumPy or a tuple of them; None for any other value."""
    parts = value if isinstance(value, tuple) else (value,)
    is_numpy = all(isinstance(part, np.ndarray | np.generic) for part in parts)
    return sum(part.nbytes for part in parts) if is_numpy else None


def _alone(value: Any) -> Any:
    """A value, copied where it is a view of a larger array, which would stay in memory."""
    if isinstance(value, tuple):
        return tuple(map(_alone, value))
    base = getattr(value, "base", None)
    return value.copy() if isinstance(base, np.ndarray) and base.nbytes > value.nbytes else value
