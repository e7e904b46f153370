"""Encode and decode the chunks and shards of a zarr array, and write and read its metadata.

The bytes are the same as those of zarr-python, which takes three times as long; the tests compare the two. zarr-python
decodes the codecs that this module does not know, one object at a time. An object is a chunk or a shard.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import Blosc, GZip, Zstd
from numcodecs import lz4 as _lz4
from numcodecs import zstd as _zstd
from numpy.typing import NDArray

from ..boxes import cells, intersection, within
from ..errors import InputError

#: A higher level of zstd hardly makes labels and smooth images smaller, and makes encoding the bottleneck.
_ZSTD_LEVEL = 1
_BLOSC_LEVEL = 5
#: Offset and size of an absent chunk in the index of a shard.
_ABSENT = np.uint64(2**64 - 1)


def _with_checksum(body: Any) -> bytes:
    plain = bytes(body)
    return plain + int(google_crc32c.value(plain)).to_bytes(4, "little")


def _without_checksum(body: bytes) -> bytes:
    if len(body) < 4 or int(google_crc32c.value(body[:-4])).to_bytes(4, "little") != body[-4:]:
        raise ValueError("the checksum does not match")
    return body[:-4]


def _zstd_frame(body: Any) -> bytes:
    return bytes(_zstd.compress(body.view(np.uint8) if isinstance(body, np.ndarray) else body, _ZSTD_LEVEL))


def _blosc() -> Blosc:
    return Blosc(cname="zstd", clevel=_BLOSC_LEVEL, shuffle=Blosc.SHUFFLE)


def _zstd_size(body: bytes) -> int | None:
    """Size of the content of a zstd frame, by its header (RFC 8878); None if it is not recorded."""
    if len(body) < 6 or body[:4] != b"\x28\xb5\x2f\xfd":
        raise ValueError("not a zstd frame")
    flag, is_single = body[4] >> 6, body[4] >> 5 & 1
    if not flag and not is_single:
        return None
    start = 5 + (not is_single) + (0, 1, 2, 4)[body[4] & 3]
    size = int.from_bytes(body[start : start + (1, 2, 4, 8)[flag]], "little")
    return size + 256 if flag == 1 else size


def _blosc_size(body: bytes) -> int:
    """Size of the content of a blosc buffer, by its header."""
    return int.from_bytes(body[4:8], "little")


def _lz4_size(body: bytes) -> int:
    """Size of the content of an lz4 buffer, by the header of numcodecs."""
    return int.from_bytes(body[:4], "little")


def _from_zstd(body: bytes, most: int) -> Any:
    if (recorded := _zstd_size(body)) is None:  # numcodecs would decode any amount: give it the room
        return _zstd.decompress(body, np.empty(most, np.uint8))
    return _zstd.decompress(_up_to(body, recorded, most))


def _from_gzip(body: bytes, most: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
        return file.read(most + 1)


def _up_to(body: bytes, recorded: int, most: int) -> bytes:
    if recorded > most:
        raise ValueError(f"it holds {recorded} bytes, and its metadata allow {most}")
    return body


#: Encoder of each codec that is written, by its name in the metadata. The first codec of a chunk encodes an array, the
#: others encode bytes.
_ENCODERS: Mapping[str, Callable[[Any], Any]] = {
    "zstd": _zstd_frame,
    "blosc": _blosc().encode,
    "gzip": GZip().encode,
    "crc32c": _with_checksum,
}
_blosc_decode = Blosc().decode
#: Decoder of each codec that is read, by its name, given the most bytes that are decoded.
_DECODERS: Mapping[str, Callable[[bytes, int], Any]] = {
    "zstd": _from_zstd,
    "blosc": lambda body, most: _blosc_decode(_up_to(body, _blosc_size(body), most)),
    "gzip": _from_gzip,
    "zlib": lambda body, most: zlib.decompressobj().decompress(body, most + 1),
    "bz2": lambda body, most: bz2.BZ2Decompressor().decompress(body, most + 1),
    "lz4": lambda body, most: _lz4.decompress(_up_to(body, _lz4_size(body), most)),
    "crc32c": lambda body, _: _without_checksum(body),
}
#: Size of the content by the header of a compressed chunk, for codecs that record it.
_SIZES: Mapping[str, Callable[[bytes], int | None]] = {"zstd": _zstd_size, "blosc": _blosc_size, "lz4": _lz4_size}
_CHECKSUM = 4
#: Largest decoded chunk, in bytes: the limit of blosc.
_LARGEST_CHUNK = 2**31
#: Most chunks of a shard: one of 2048 voxels along each axis in chunks of 16 has 2 million.
_MOST_CHUNKS = 2**22
#: Most axes: those of NumPy 1.
_MOST_AXES = 32
#: An encoded object may be this many times as large as its values, plus a few bytes: noise hardly grows.
_GROWTH, _EXTRA = 2, 2**16


@dataclass(frozen=True)
class Encoding:
    """The codecs that arrays are written with.

    Attributes
    ----------
    compressor : str
        ``zstd``, or ``blosc`` (shuffled bytes under zstd).
    zarr_format : int
        2 or 3. With 3 every chunk ends in a CRC-32C, so that reading detects a flipped bit.

    Raises
    ------
    InputError
        If the compressor is not known.
    """

    compressor: str = "zstd"
    zarr_format: int = 3

    def __post_init__(self) -> None:
        if self.compressor not in ("zstd", "blosc"):
            raise InputError(f"compressor {self.compressor!r} is not known; choose zstd or blosc", code="unknown-value")

    def layout(
        self,
        shape: Sequence[int],
        chunk: Sequence[int],
        dtype: Any,
        fill: float = 0,
        unit: Sequence[int] | None = None,
    ) -> ArrayLayout:
        """The layout of an array in this encoding.

        Parameters
        ----------
        shape, chunk : sequence of int
        dtype : dtype
            Stored in little-endian order.
        fill : int or float
            Value of absent chunks.
        unit : sequence of int, optional
            Shape of a shard, a multiple of `chunk`. Default: no shards.
        """
        stored = np.dtype(dtype).newbyteorder("<")
        is_v2 = self.zarr_format == 2
        return ArrayLayout(
            tuple(shape),
            tuple(chunk),
            tuple(unit or chunk),
            stored.str,
            stored.type(fill).item(),
            (self.compressor,) if is_v2 else (self.compressor, "crc32c"),
            "" if is_v2 else "c/",
            "/",
            self.zarr_format,
        )


@dataclass(frozen=True)
class ArrayLayout:
    """Shape, chunks, shards and codecs of an array. Small and picklable.

    Attributes
    ----------
    shape, chunk : tuple of int
    unit : tuple of int
        Shape of an object: that of a shard, or of a chunk if there are no shards.
    stored : str
        The dtype as it is stored, with its byte order: ``<u2``.
    fill : int or float
        Value of absent chunks.
    codecs : tuple of str or None
        Codecs of a chunk in the order of encoding; None if zarr-python has to decode the objects.
    prefix, separator : str
        The key of an object is `prefix`, and its indices joined by `separator`.
    zarr_format : int
        2 or 3.
    document : mapping
        The array metadata that the layout was read from; empty for an array of `Encoding.layout`.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    unit: tuple[int, ...]
    stored: str
    fill: float
    codecs: tuple[str, ...] | None
    prefix: str
    separator: str
    zarr_format: int = 3
    document: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ArrayLayout:
        """The layout of an array with the given metadata.

        Parameters
        ----------
        document : mapping
            Content of ``zarr.json`` or ``.zarray``.

        Raises
        ------
        ValueError, KeyError, TypeError, AttributeError, IndexError
            If `document` is not the metadata of a numeric array with regular chunks.
        """
        if (zarr_format := document["zarr_format"]) not in (2, 3):
            raise ValueError(f"zarr format {zarr_format!r} is not supported")
        layout = _of_v2(document) if zarr_format == 2 else _of_v3(document)
        lengths = [(n, c, u) for n, c, u in zip(layout.shape, layout.chunk, layout.unit, strict=True)]
        if len(lengths) > _MOST_AXES:
            raise ValueError(f"it has {len(lengths)} axes; at most {_MOST_AXES} are supported")
        if layout.separator not in (".", "/"):
            raise ValueError(f"the separator of chunk keys {layout.separator!r} is not supported")
        if not all(isinstance(n, Integral) and not isinstance(n, bool) for along in lengths for n in along) or not all(
            n >= 0 and c > 0 and u > 0 and u % c == 0 for n, c, u in lengths
        ):
            raise ValueError(f"invalid shape {layout.shape}, chunks {layout.chunk} or shards {layout.unit}")
        if layout._bytes > _LARGEST_CHUNK:
            raise ValueError(
                f"chunks {layout.chunk} have {layout._bytes} bytes; at most {_LARGEST_CHUNK} are supported"
            )
        if math.prod(layout._counts) > _MOST_CHUNKS:
            raise ValueError(
                f"shards {layout.unit} have {math.prod(layout._counts)} chunks; at most {_MOST_CHUNKS} are supported"
            )
        return layout

    def documents(self, dimension_names: Sequence[str] | None = None) -> dict[str, bytes]:
        """The metadata documents of the array, by name: ``zarr.json``, or ``.zarray`` and ``.zattrs``.

        Parameters
        ----------
        dimension_names : sequence of str, optional
            Names of the axes; zarr format 2 does not store them.
        """
        import zarr

        options: dict[str, Any] = {"zarr_format": self.zarr_format}
        if self.zarr_format == 2:
            options["chunk_key_encoding"] = {"name": "v2", "separator": self.separator}
        else:
            options |= {"dimension_names": dimension_names, "shards": self.unit if self.unit != self.chunk else None}
        store: dict[str, Any] = {}
        zarr.create_array(
            store,
            shape=self.shape,
            chunks=self.chunk,
            dtype=self.stored,
            fill_value=self.fill,
            compressors=[_for_zarr(codec, self.zarr_format) for codec in self.codecs or ()],
            **options,
        )
        return {name: body.to_bytes() for name, body in store.items()}

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of decoded values, in native byte order."""
        return np.dtype(self.stored).newbyteorder("=")

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of objects along each axis."""
        return tuple(-(-n // u) for n, u in zip(self.shape, self.unit, strict=True))

    @property
    def index_size(self) -> int:
        """Bytes of the index at the end of a shard; 0 if there are no shards, or zarr-python decodes them."""
        if self.unit == self.chunk or self.codecs is None:
            return 0
        return 16 * math.prod(self._counts) + 4

    @cached_property
    def largest(self) -> int:
        """The most bytes that an encoded object may have."""
        return _GROWTH * self._object_bytes + 32 * math.prod(self._counts) + _EXTRA

    @property
    def _object_bytes(self) -> int:
        """Bytes of a decoded object, along all stored axes: `last_axes` may have dropped some."""
        shape = self.unit
        if self.document:
            grid = self.document.get("chunk_grid", {}).get("configuration", {})
            shape = grid.get("chunk_shape") or self.document["chunks"]
        return math.prod(map(int, shape)) * np.dtype(self.stored).itemsize

    @cached_property
    def _bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return math.prod(map(int, self.chunk)) * np.dtype(self.stored).itemsize

    @property
    def _counts(self) -> tuple[int, ...]:
        return tuple(u // c for u, c in zip(self.unit, self.chunk, strict=True))

    def key(self, index: Sequence[int]) -> str:
        """The key of an object."""
        return self.prefix + self.separator.join(map(str, index))

    def region(self, index: Sequence[int]) -> tuple[slice, ...]:
        """The voxels of an object, without those beyond the end of the array."""
        ends = zip(index, self.unit, self.shape, strict=True)
        return tuple(slice(i * u, min((i + 1) * u, n)) for i, u, n in ends)

    def units(self, region: Sequence[slice]) -> Iterator[tuple[int, ...]]:
        """The indices of the objects that a region touches."""
        return cells(region, self.unit)

    def chunks_of(self, index: Sequence[int]) -> tuple[int, ...]:
        """Number of chunks of an object along each axis, without those beyond the end of the array."""
        return tuple(-(-(axis.stop - axis.start) // c) for axis, c in zip(self.region(index), self.chunk, strict=True))

    def absent_within(self, index: Sequence[int], body: bytes) -> int:
        """Number of absent chunks of a shard, without those beyond the end of the array.

        Parameters
        ----------
        index : sequence of int
            Index of the shard.
        body : bytes
            At least the last `index_size` bytes of the shard.

        Raises
        ------
        ValueError
            If the index at the end of `body` is damaged.
        """
        if not self.index_size:
            return 0
        inside = self._shard_index(body)[tuple(map(slice, self.chunks_of(index)))]
        return int(np.count_nonzero(inside[..., 0] == _ABSENT))

    def last_axes(self, count: int) -> ArrayLayout:
        """The layout of the same objects without the leading axes, which have length 1.

        Parameters
        ----------
        count : int
            Number of axes to keep.
        """
        lead = len(self.shape) - count
        # `decode` cannot drop an axis along which chunks are longer than 1; zarr-python can.
        codecs = self.codecs if set(self.unit[:lead]) <= {1} else None
        prefix = self.prefix + f"0{self.separator}" * lead
        shape, chunk, unit = self.shape[lead:], self.chunk[lead:], self.unit[lead:]
        return replace(self, shape=shape, chunk=chunk, unit=unit, codecs=codecs, prefix=prefix)

    def encode(self, values: NDArray[Any]) -> bytes:
        """Encode an object.

        Parameters
        ----------
        values : ndarray
            Shape `unit`, or shorter at the end of the array: padded with the fill value.
        """
        if values.shape != self.unit:
            whole = np.full(self.unit, self.fill, self.stored)
            whole[tuple(map(slice, values.shape))] = values
            values = whole
        if self.unit == self.chunk:
            return self._encode(values)
        parts, at = [], 0
        index = np.full((*self._counts, 2), _ABSENT, "<u8")
        for corner in np.ndindex(*self._counts):
            body = self._encode(values[_cell(corner, self.chunk)])
            index[corner] = at, len(body)
            parts.append(body)
            at += len(body)
        return b"".join((*parts, _with_checksum(index.tobytes())))

    def decode(self, body: bytes, box: Sequence[slice] | None = None, complete: bool = False) -> NDArray[Any]:
        """Decode an object, or of a shard only the chunks that a box touches.

        Parameters
        ----------
        body : bytes
        box : sequence of slice, optional
            Voxels to return, relative to the object. Default: all, with the padding.
        complete : bool
            Whether absent chunks of a shard raise an error. Otherwise they have the fill value.

        Raises
        ------
        ValueError
            If `body` cannot be decoded.
        """
        part = tuple(slice(0, u) for u in self.unit) if box is None else tuple(box)
        if self.codecs is None:
            return self._decode_by_zarr(body, part)
        if self.unit == self.chunk:
            return self._decode(body)[part]
        index = self._shard_index(body)
        lacks = bool((index[..., 0] == _ABSENT).any())
        if lacks and complete:
            raise ValueError("chunks of the shard are absent")
        lengths = [axis.stop - axis.start for axis in part]
        values = np.full(lengths, self.fill, self.dtype) if lacks else np.empty(lengths, self.dtype)
        for corner in cells(part, self.chunk):
            at, size = index[corner].tolist()
            if at != _ABSENT:
                chunk = _cell(corner, self.chunk)
                shared = intersection(chunk, part)
                values[within(shared, part)] = self._decode(body[at : at + size])[within(shared, chunk)]
        return values

    def _shard_index(self, body: bytes) -> NDArray[np.uint64]:
        """Offset and size of each chunk of a shard, shape (*chunks along each axis, 2)."""
        index = np.frombuffer(_without_checksum(body[-self.index_size :]), "<u8")
        if index.size != 2 * math.prod(self._counts):
            raise ValueError("the index of the shard is incomplete")
        return index.reshape(*self._counts, 2)

    def _encode(self, values: NDArray[Any]) -> bytes:
        body: Any = np.ascontiguousarray(values, self.stored).reshape(-1)
        for codec in self.codecs or ():
            body = _ENCODERS[codec](body)
        return bytes(body)

    def _decode(self, body: Any) -> NDArray[Any]:
        for codec, most in self._decoding:
            try:
                body = _DECODERS[codec](body, most)
            except (RuntimeError, OSError, EOFError, zlib.error) as error:  # raised by the library of the codec
                raise ValueError(f"not a {codec} frame: {error}") from None
        return np.frombuffer(body, self.stored).astype(self.dtype, copy=False).reshape(self.chunk)

    @cached_property
    def _decoding(self) -> list[tuple[str, int]]:
        """The codecs of a chunk in the order of decoding, with the most bytes that each may decode."""
        codecs, steps = self.codecs or (), []
        for position, codec in enumerate(codecs):
            is_last = set(codecs[:position]) <= {"crc32c"}  # otherwise it holds what another compressor made
            most = self._bytes + _CHECKSUM * position if is_last else _GROWTH * self._bytes + _EXTRA
            steps.append((codec, most))
        return steps[::-1]

    def _decode_by_zarr(self, body: bytes, box: tuple[slice, ...]) -> NDArray[Any]:
        """Decode a box of an object by zarr-python: read an array in memory with this single object."""
        import zarr

        _up_to(body, self._recorded_size(body), self.largest)
        from zarr.buffer.cpu import Buffer

        lead = len(self.document["shape"]) - len(self.unit)
        index: tuple[Any, ...] = (*(0,) * lead, *box)
        document = {**self.document, "shape": [*(1,) * lead, *self.unit], "attributes": {}}
        name = "zarr.json" if self.zarr_format == 3 else ".zarray"
        if self.zarr_format == 2:
            del document["attributes"]
        objects = {name: json.dumps(document).encode(), self.key((0,) * len(self.unit)): body}
        try:
            array = zarr.open_array({key: Buffer.from_bytes(value) for key, value in objects.items()}, mode="r")
            return np.asarray(array[index]).astype(self.dtype, copy=False)
        except Exception as error:  # raised by zarr-python or by the library of a codec
            raise ValueError(f"zarr cannot decode it: {error}") from None

    def _recorded_size(self, body: bytes) -> int:
        """Size of the content that the header of the last compressor records; 0 if it is not known."""
        if self.zarr_format == 2:
            names = [(self.document["compressor"] or {}).get("id")]
        else:
            names = [codec["name"] for codec in self.document["codecs"]]
        size = _SIZES.get(str(names[-1]))
        return 0 if size is None else size(body) or 0


def _cell(corner: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(i * n, (i + 1) * n) for i, n in zip(corner, size, strict=True))


def _for_zarr(codec: str, zarr_format: int) -> Any:
    """The codec of zarr-python that writes the same bytes."""
    if zarr_format == 2:
        return {"zstd": Zstd(level=_ZSTD_LEVEL), "blosc": _blosc(), "gzip": GZip()}[codec]
    from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

    return {
        "zstd": ZstdCodec(level=_ZSTD_LEVEL),
        "blosc": BloscCodec(cname="zstd", clevel=_BLOSC_LEVEL, shuffle="shuffle"),
        "gzip": GzipCodec(),
        "crc32c": Crc32cCodec(),
    }[codec]


def _of_v3(document: Mapping[str, Any]) -> ArrayLayout:
    shape, grid = tuple(document["shape"]), document["chunk_grid"]
    if grid["name"] != "regular":
        raise ValueError(f"the chunk grid {grid['name']!r} is not supported")
    unit = chunk = tuple(grid["configuration"]["chunk_shape"])
    known, codecs = True, list(document["codecs"])
    if codecs and codecs[0]["name"] == "sharding_indexed":
        shard = codecs[0]["configuration"]
        index = [codec["name"] for codec in shard["index_codecs"]]
        known = len(codecs) == 1 and index == ["bytes", "crc32c"] and shard.get("index_location", "end") == "end"
        chunk, codecs = tuple(shard["chunk_shape"]), list(shard["codecs"])
    first, others = codecs[0], tuple(codec["name"] for codec in codecs[1:])
    known = known and first["name"] == "bytes" and all(name in _DECODERS for name in others)
    order = {"big": ">"}.get(str((first.get("configuration") or {}).get("endian")), "<")
    stored = np.dtype(document["data_type"]).newbyteorder(order)
    keys, defaults = document["chunk_key_encoding"], {"default": "/", "v2": "."}
    separator = (keys.get("configuration") or {}).get("separator", defaults[keys["name"]])
    prefix = f"c{separator}" if keys["name"] == "default" else ""
    if document.get("storage_transformers"):
        raise ValueError(f"the storage transformers {document['storage_transformers']!r} are not supported")
    fill = _number(document["fill_value"], stored)
    codecs_known = others if known else None
    return ArrayLayout(shape, chunk, unit, stored.str, fill, codecs_known, prefix, separator, 3, document)


def _of_v2(document: Mapping[str, Any]) -> ArrayLayout:
    shape, chunk = tuple(document["shape"]), tuple(document["chunks"])
    compressor, stored = (document["compressor"] or {}).get("id"), np.dtype(document["dtype"])
    known = document["order"] == "C" and not document.get("filters") and compressor in (None, *_DECODERS)
    codecs = () if compressor is None else (compressor,)
    fill = _number(document["fill_value"], stored)
    separator = document.get("dimension_separator") or "."
    return ArrayLayout(shape, chunk, chunk, stored.str, fill, codecs if known else None, "", separator, 2, document)


def _number(value: Any, dtype: np.dtype[Any]) -> float:
    """The fill value in metadata as a number: it may be hexadecimal bits of a float (zarr v3), or null (v2)."""
    if dtype.kind not in "biuf":
        raise ValueError(f"{dtype} is not a numeric dtype")
    if isinstance(value, str) and value.startswith("0x"):
        bits = int(value, 16).to_bytes(dtype.itemsize, "little")
        return float(np.frombuffer(bits, dtype.newbyteorder("<"))[0])
    fill: float = dtype.type(0 if value is None else value).item()
    return fill
