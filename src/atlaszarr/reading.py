"""Regions of a zarr array on a local disk, its chunks decoded where they are asked for. Serves any image.

zarr-python takes the same chunks through an event loop in another thread, which costs more than decoding them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .encoding import unchecked
from .errors import TargetError
from .store import Target

Slices = tuple[slice, ...]


def _decoders() -> dict[str, Callable[[Any], Any]]:
    import numcodecs

    return {
        "zstd": numcodecs.Zstd().decode,
        "blosc": numcodecs.Blosc().decode,
        "gzip": numcodecs.GZip().decode,
        "crc32c": unchecked,
    }


@dataclass(frozen=True)
class ChunkedArray:
    """A zarr array of plain chunks: bytes in C order, behind compressors and checksums that are known here.

    Small and picklable. Slicing it reads: ``array[..., 0:64, 0:64]``, in slices of step 1.

    Attributes
    ----------
    target : Target
        The folder of the array.
    shape, chunk : tuple of int
    stored : str
        The dtype with its byte order, as NumPy writes it.
    fill : int or float
        What a chunk holds that was not written.
    codecs : tuple of str
        Names of what a chunk's bytes went through, first to last.
    key : tuple of str
        Of a chunk: what its indices stand behind, and what is between them.
    """

    target: Target
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    stored: str
    fill: float
    codecs: tuple[str, ...]
    key: tuple[str, str]

    @classmethod
    def of(cls, array: Any) -> ChunkedArray | None:
        """A ``zarr.Array`` as one; None if it lies elsewhere, or is stored in another way (in shards, say)."""
        folder = _local_folder(array.store)
        if folder is None or array.dtype.kind not in "biuf" or not array.ndim:
            return None
        described = array.metadata.to_dict()
        layout = _layout_of_v2(described) if array.metadata.zarr_format == 2 else _layout_of_v3(described)
        if layout is None:
            return None
        codecs, byte_order, key = layout
        fill = 0 if array.fill_value is None else array.fill_value.item()
        stored = array.dtype.newbyteorder(byte_order).str
        place = Target(str(folder / array.path))
        return cls(place, tuple(array.shape), tuple(array.chunks), stored, fill, codecs, key)

    @property
    def ndim(self) -> int:
        """How many axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what a region holds, in native byte order."""
        return np.dtype(self.stored).newbyteorder("=")

    def __getitem__(self, region: Any) -> NDArray[Any]:
        """Read a region.

        Raises
        ------
        TargetError
            If a chunk cannot be read, or is not as it was written.
        """
        asked = self._slices(region)
        grid = [range(axis.start // c, -(-axis.stop // c)) for axis, c in zip(asked, self.chunk, strict=True)]
        lengths = [axis.stop - axis.start for axis in asked]
        whole: NDArray[Any] | None = None
        for index in itertools.product(*grid):
            there = tuple(
                slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, self.chunk, self.shape, strict=True)
            )
            values = self._chunk(index)
            if there == asked and values is not None:
                return values[tuple(map(slice, lengths))]
            whole = np.full(lengths, self.fill, self.dtype) if whole is None else whole
            if values is not None:
                shared = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(there, asked, strict=True)]
                whole[_within(shared, asked)] = values[_within(shared, there)]
        return np.full(lengths, self.fill, self.dtype) if whole is None else whole

    def _slices(self, region: Any) -> tuple[slice, ...]:
        given = region if isinstance(region, tuple) else (region,)
        at = given.index(Ellipsis) if Ellipsis in given else len(given)
        missing = (slice(None),) * (self.ndim - len(given) + (at < len(given)))
        given = (*given[:at], *missing, *given[at + 1 :])
        return tuple(slice(*one.indices(n)[:2]) for one, n in zip(given, self.shape, strict=True))

    def _chunk(self, index: Sequence[int]) -> NDArray[Any] | None:
        """A chunk with its padding; None where none was written."""
        prefix, separator = self.key
        key = prefix + separator.join(map(str, index))
        body = self.target.read(key)
        if body is None:
            return None
        decoders = _decoders()
        try:
            for codec in reversed(self.codecs):
                body = decoders[codec](body)
            values = np.frombuffer(body, self.stored).reshape(self.chunk)
        except (ValueError, RuntimeError, OSError) as error:
            raise TargetError(f"{self.target.url}/{key} is damaged ({error}); restore it first") from None
        return values.astype(self.dtype, copy=False)


def _local_folder(store: Any) -> Path | None:
    """The folder of a zarr store that is one, by whatever way it was opened."""
    from fsspec.implementations.local import LocalFileSystem
    from zarr.storage import FsspecStore, LocalStore

    if isinstance(store, LocalStore):
        return store.root
    if isinstance(store, FsspecStore) and isinstance(getattr(store.fs, "sync_fs", None), LocalFileSystem):
        return Path(store.path)
    return None


def _layout_of_v3(described: dict[str, Any]) -> tuple[tuple[str, ...], str, tuple[str, str]] | None:
    """Codecs, byte order and keys of an array, of which all is as `ChunkedArray` knows it."""
    encoding = described["chunk_key_encoding"]
    if described["chunk_grid"]["name"] != "regular" or encoding["name"] not in ("default", "v2"):
        return None
    separator = encoding.get("configuration", {}).get("separator", "/" if encoding["name"] == "default" else ".")
    prefix = f"c{separator}" if encoding["name"] == "default" else ""
    first, *others = described["codecs"]
    if first["name"] != "bytes" or any(codec["name"] not in _decoders() for codec in others):
        return None
    order = {"big": ">"}.get(str((first.get("configuration") or {}).get("endian")), "<")
    return tuple(codec["name"] for codec in others), order, (prefix, separator)


def _layout_of_v2(described: dict[str, Any]) -> tuple[tuple[str, ...], str, tuple[str, str]] | None:
    compressor = (described["compressor"] or {}).get("id")
    if described["order"] != "C" or described["filters"] or compressor not in (None, *_decoders()):
        return None
    order = ">" if np.dtype(described["dtype"]).str.startswith(">") else "<"
    return (() if compressor is None else (compressor,)), order, ("", described["dimension_separator"])


def _within(inner: Sequence[slice], outer: Sequence[slice]) -> tuple[slice, ...]:
    return tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
