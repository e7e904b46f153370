"""A store of zarr-python that reads through a `Target`. Importing it imports zarr-python."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype

from ..stores.backend import LARGEST_OBJECT
from ..stores.target import Target


class TargetStore(Store):
    """The objects of a zarr array in a target, to be read only. Small and picklable.

    Parameters
    ----------
    target : Target
    given : str, optional
        The relative path that identifies the array; see `StoredArray`.
    """

    supports_writes = supports_deletes = supports_listing = False

    def __init__(self, target: Target, given: str = "") -> None:
        super().__init__(read_only=True)
        self.target, self.given = target, given

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TargetStore) and other.target == self.target

    def __hash__(self) -> int:
        return hash(self.target)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Same as in `Store`; raises what reading the target does."""
        body = await asyncio.to_thread(self._read, key, byte_range)
        return None if body is None else prototype.buffer.from_bytes(body)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Same as in `Store`."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Same as in `Store`."""
        return await asyncio.to_thread(self.target.read_range, key, 0, 1, LARGEST_OBJECT) is not None

    def _read(self, key: str, wanted: ByteRequest | None) -> bytes | None:
        if wanted is None:
            return self.target.read(key, LARGEST_OBJECT)
        start, stop = 0, 1  # the answer has the size of the object
        if isinstance(wanted, RangeByteRequest):
            start, stop = wanted.start, wanted.end
        part = self.target.read_range(key, start, stop, LARGEST_OBJECT)
        if part is None or isinstance(wanted, RangeByteRequest):
            return None if part is None else part.body[start - part.start : stop - part.start]
        first = wanted.offset if isinstance(wanted, OffsetByteRequest) else max(part.size - wanted.suffix, 0)
        if len(part.body) < part.size:
            part = self.target.read_range(key, first, part.size, LARGEST_OBJECT)
        return None if part is None else part.body[first - part.start :]

    async def set(self, key: str, value: Buffer) -> None:
        """Not supported."""
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        """Not supported."""
        raise NotImplementedError

    def list(self) -> AsyncIterator[str]:
        """Not supported."""
        raise NotImplementedError

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Not supported."""
        raise NotImplementedError

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Not supported."""
        raise NotImplementedError
