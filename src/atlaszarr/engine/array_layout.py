"""How a zarr array is stored, by its own metadata, and its objects decoded without the layers in between.

Serves any array of numbers, whoever wrote it. zarr-python takes a chunk through an event loop in another thread, which
costs more than decoding it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codecs import shard_index, unchecked


@dataclass(frozen=True)
class ArrayLayout:
    """Shape, objects and codecs of an array. Small and picklable.

    Attributes
    ----------
    shape, chunk : tuple of int
    unit : tuple of int
        What one object holds: a chunk, or a shard of several.
    stored : str
        The dtype with its byte order, as NumPy writes it.
    fill : int or float
        What a chunk holds that was not written.
    codecs : tuple of str or None
        What a chunk's bytes went through, first to last; None if any of it is not known here.
    prefix, separator : str
        Of the key of an object.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    unit: tuple[int, ...]
    stored: str
    fill: float
    codecs: tuple[str, ...] | None
    prefix: str
    separator: str

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ArrayLayout:
        """From the metadata of an array, ``zarr.json`` or ``.zarray``.

        Raises
        ------
        ValueError, KeyError, TypeError, AttributeError
            If it is not that of an array in regular chunks of numbers.
        """
        return _of_v2(document) if document["zarr_format"] == 2 else _of_v3(document)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the decoded values, in native byte order."""
        return np.dtype(self.stored).newbyteorder("=")

    def key(self, index: Sequence[int]) -> str:
        """The key of an object."""
        return self.prefix + self.separator.join(map(str, index))

    def region(self, index: Sequence[int]) -> tuple[slice, ...]:
        """The voxels of an object that are within the array."""
        ends = zip(index, self.unit, self.shape, strict=True)
        return tuple(slice(i * u, min((i + 1) * u, n)) for i, u, n in ends)

    def units(self, region: Sequence[slice]) -> Iterator[tuple[int, ...]]:
        """The objects that a region touches."""
        ends = zip(region, self.unit, strict=True)
        return itertools.product(*(range(axis.start // u, -(-axis.stop // u)) for axis, u in ends))

    @property
    def grid(self) -> tuple[int, ...]:
        """Objects along each axis."""
        return tuple(-(-n // u) for n, u in zip(self.shape, self.unit, strict=True))

    @property
    def index_size(self) -> int:
        """Bytes of the index that a shard ends in; 0 where objects are no shards, or are not decoded here."""
        if self.unit == self.chunk or self.codecs is None:
            return 0
        return 16 * math.prod(self._counts) + 4

    @property
    def _counts(self) -> tuple[int, ...]:
        return tuple(u // c for u, c in zip(self.unit, self.chunk, strict=True))

    def chunks_of(self, index: Sequence[int]) -> tuple[int, ...]:
        """Chunks of an object along each axis, as far as they are within the array."""
        return tuple(-(-(axis.stop - axis.start) // c) for axis, c in zip(self.region(index), self.chunk, strict=True))

    def absent_within(self, index: Sequence[int], body: bytes) -> int:
        """How many chunks within the array a shard lacks, by its index: of the bytes that it ends in.

        Raises
        ------
        ValueError
            If they do not end in such an index.
        """
        if not self.index_size:
            return 0
        parts = zip(
            itertools.product(*map(range, self._counts)), shard_index(body, math.prod(self._counts)), strict=True
        )
        inside = self.chunks_of(index)
        return sum(part is None and all(k < n for k, n in zip(at, inside, strict=True)) for at, part in parts)

    def decode(self, body: bytes) -> NDArray[Any]:
        """The values of an object with its padding.

        Raises
        ------
        ValueError
            If the bytes are not those of such an object.
        """
        if self.unit == self.chunk:
            return self._chunk(body)
        whole = np.full(self.unit, self.fill, self.dtype)
        places = itertools.product(*(range(0, u, c) for u, c in zip(self.unit, self.chunk, strict=True)))
        for corner, part in zip(places, shard_index(body, math.prod(self._counts)), strict=True):
            if part is not None:
                whole[tuple(slice(o, o + c) for o, c in zip(corner, self.chunk, strict=True))] = self._chunk(body[part])
        return whole

    def _chunk(self, body: bytes) -> NDArray[Any]:
        decoders = _decoders()
        try:
            for codec in reversed(self.codecs or ()):
                body = decoders[codec](body)
        except (RuntimeError, OSError, EOFError) as error:  # as the codecs' libraries say it
            raise ValueError(str(error)) from None
        return np.frombuffer(body, self.stored).astype(self.dtype, copy=False).reshape(self.chunk)


def _decoders() -> dict[str, Callable[[Any], Any]]:
    import numcodecs

    return {
        "zstd": numcodecs.Zstd().decode,
        "blosc": numcodecs.Blosc().decode,
        "gzip": numcodecs.GZip().decode,
        "crc32c": unchecked,
    }


def _of_v3(document: Mapping[str, Any]) -> ArrayLayout:
    shape, grid = tuple(document["shape"]), document["chunk_grid"]
    if grid["name"] != "regular":
        raise ValueError("chunks of different shapes")
    unit = chunk = tuple(grid["configuration"]["chunk_shape"])
    known, codecs = True, list(document["codecs"])
    if codecs and codecs[0]["name"] == "sharding_indexed":
        shard = codecs[0]["configuration"]
        index = [codec["name"] for codec in shard["index_codecs"]]
        known = len(codecs) == 1 and index == ["bytes", "crc32c"] and shard.get("index_location", "end") == "end"
        chunk, codecs = tuple(shard["chunk_shape"]), list(shard["codecs"])
    first, others = codecs[0], tuple(codec["name"] for codec in codecs[1:])
    known = known and first["name"] == "bytes" and all(name in _decoders() for name in others)
    order = {"big": ">"}.get(str((first.get("configuration") or {}).get("endian")), "<")
    stored = np.dtype(document["data_type"]).newbyteorder(order)
    keys = document["chunk_key_encoding"]
    separator = keys.get("configuration", {}).get("separator", "/" if keys["name"] == "default" else ".")
    prefix = f"c{separator}" if keys["name"] == "default" else ""
    fill = _number(document["fill_value"], stored)
    return ArrayLayout(shape, chunk, unit, stored.str, fill, others if known else None, prefix, separator)


def _of_v2(document: Mapping[str, Any]) -> ArrayLayout:
    shape, chunk = tuple(document["shape"]), tuple(document["chunks"])
    compressor, stored = (document["compressor"] or {}).get("id"), np.dtype(document["dtype"])
    known = document["order"] == "C" and not document.get("filters") and compressor in (None, *_decoders())
    codecs = () if compressor is None else (compressor,)
    fill = _number(document["fill_value"], stored)
    separator = document.get("dimension_separator", ".")
    return ArrayLayout(shape, chunk, chunk, stored.str, fill, codecs if known else None, "", separator)


def _number(stated: Any, dtype: np.dtype[Any]) -> float:
    """A fill value as a number: v3 may give the bits of a float in hexadecimal, v2 none at all."""
    if dtype.kind not in "biuf":
        raise ValueError(f"{dtype} is no number")
    if isinstance(stated, str) and stated.startswith("0x"):
        bits = int(stated, 16).to_bytes(dtype.itemsize, "little")
        return float(np.frombuffer(bits, dtype.newbyteorder("<"))[0])
    fill: float = dtype.type(0 if stated is None else stated).item()
    return fill
