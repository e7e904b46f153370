"""Shape, chunks, shards and codecs of a zarr array: its metadata, and the bytes of its objects.

An object is a chunk or a shard. All bytes are the same as those of zarr-python; the tests compare the two. zarr-python
decodes the codecs that `codecs` does not know, one object at a time.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..boxes import cells, intersection, within
from ..errors import InputError, brief
from .codecs import (
    CODECS,
    V2,
    decompressed,
    described,
    encoded_size,
    outer_start,
    v3_name,
    with_checksum,
    without_checksum,
)

#: Offset and size of an absent chunk in the index of a shard.
_ABSENT = np.uint64(2**64 - 1)
#: Bytes that a thread keeps to encode chunks: 128 x 128 x 128 voxels of eight bytes.
_MOST_SCRATCH = 2**24
_DTYPE = re.compile(r"[<>|=]?[biuf]\d{1,2}|[|]?\?|bool|(?:u?int|float)\d{1,3}", re.ASCII)
#: Bytes of the largest chunk that is decoded: 512 x 512 x 512 voxels of eight bytes. Shards may be larger.
LARGEST_CHUNK = 2**30
#: The most chunks of a shard: one of 2048 voxels along each axis in chunks of 16 has 2 million.
_MOST_CHUNKS = 2**22
#: The most voxels along an axis, which NumPy can index.
_LONGEST_AXIS = 2**63 - 1
#: The most axes of an array: NumPy 1 has 32, and OME-Zarr at most 5.
MOST_AXES = 32


_SHARDS = "sharding_indexed"


class _Scratch(threading.local):
    """Memory of each thread for a chunk that is copied before it is encoded.

    New memory for each chunk would take up to a third of the time of encoding it, since the system clears its pages.
    """

    def __init__(self) -> None:
        self._kept: NDArray[np.uint8] = np.empty(0, np.uint8)

    def array(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """An array with any content, which the next call in this thread may return again."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > _MOST_SCRATCH:
            return np.empty(shape, dtype)
        if size > self._kept.size:
            self._kept = np.empty(size, np.uint8)
        return self._kept[:size].view(dtype).reshape(shape)


_scratch = _Scratch()


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
        Codecs of a chunk in the order of encoding; None if zarr-python has to decode the chunks.
    prefix, separator : str
        The key of an object is `prefix`, and its indices joined by `separator`.
    zarr_format : int
        2 or 3.
    document : mapping
        The array metadata that the layout was read from; empty for an array of `Encoding.layout`.
    index_at_end, index_has_checksum : bool
        Where the index of a shard is, its end or its start, and whether a CRC-32C follows it.
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
    index_at_end: bool = True
    index_has_checksum: bool = True

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
        layout = {2: _of_v2, 3: _of_v3}[document["zarr_format"]](document)
        if layout.separator not in ("/", "."):
            raise ValueError(f"separator {layout.separator!r} is neither '/' nor '.'")
        axes = list(zip(layout.shape, layout.chunk, layout.unit, strict=True))
        whole = all(_is_whole(length) for axis in axes for length in axis)
        if (
            len(axes) > MOST_AXES
            or not whole
            or not all(0 <= n <= _LONGEST_AXIS and c > 0 and u > 0 and u % c == 0 for n, c, u in axes)
        ):
            raise ValueError(
                f"invalid shape {brief(layout.shape)}, chunks {brief(layout.chunk)} or shards {brief(layout.unit)}"
            )
        if layout.chunk_size > LARGEST_CHUNK:
            raise ValueError(f"chunks of {layout.chunk_size} bytes are not supported, the most is {LARGEST_CHUNK}")
        if (chunks := math.prod(layout._index_shape)) > _MOST_CHUNKS:
            raise ValueError(f"shards of {chunks} chunks are not supported, the most is {_MOST_CHUNKS}")
        return layout

    def documents(self, dimension_names: tuple[str, ...] | None = None) -> dict[str, bytes]:
        """The metadata documents of the array, by name: ``zarr.json``, or ``.zarray`` and ``.zattrs``.

        Parameters
        ----------
        dimension_names : tuple of str, optional
            Names of the axes; zarr format 2 does not store them.
        """
        found = (
            {".zarray": _document_v2(self), ".zattrs": {}}
            if self.zarr_format == 2
            else {"zarr.json": _document_v3(self, dimension_names)}
        )
        return {name: json.dumps(document, indent=2).encode() for name, document in found.items()}

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of decoded values, in native byte order."""
        return np.dtype(self.stored).newbyteorder("=")

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """Number of objects along each axis."""
        return tuple(-(-n // u) for n, u in zip(self.shape, self.unit, strict=True))

    @cached_property
    def index_size(self) -> int:
        """Bytes of the index of a shard; 0 if there are no shards."""
        return 16 * math.prod(self._index_shape) + 4 * self.index_has_checksum if self._has_shards else 0

    @cached_property
    def chunk_size(self) -> int:
        """Bytes of a decoded chunk."""
        return math.prod(self.chunk) * np.dtype(self.stored).itemsize

    @cached_property
    def _has_shards(self) -> bool:
        return self.unit != self.chunk or _shard_of(self.document) is not None

    @cached_property
    def _whole_chunk(self) -> tuple[int, ...]:
        """Shape of a chunk with the axes that `last_axes` left out."""
        document = self.document
        if not document:
            return self.chunk
        if self.zarr_format == 2:
            return tuple(document["chunks"])
        shard = _shard_of(document)
        return tuple((document["chunk_grid"]["configuration"] if shard is None else shard)["chunk_shape"])

    @cached_property
    def _index_shape(self) -> tuple[int, ...]:
        """Number of chunks of a shard along each axis, with those that `last_axes` left out."""
        if self.zarr_format == 2 or not self.document:
            return self._counts
        unit = self.document["chunk_grid"]["configuration"]["chunk_shape"]
        return tuple(u // c for u, c in zip(unit, self._whole_chunk, strict=True))

    @cached_property
    def largest(self) -> int:
        """The most bytes that an object can have."""
        if self.codecs is None:  # a filter may widen a dtype, at most from one byte to eight
            size = encoded_size(8 * self._whole_chunk_size)
        else:
            size = self.chunk_size
            for _ in self.codecs:
                size = encoded_size(size)
        return size * math.prod(self._index_shape) + self.index_size

    @property
    def _whole_chunk_size(self) -> int:
        """Bytes of a decoded chunk of shape `_whole_chunk`."""
        return math.prod(self._whole_chunk) * np.dtype(self.stored).itemsize

    @cached_property
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
            The shard, or at least the `index_size` bytes of its index.

        Raises
        ------
        ValueError
            If the index is damaged.
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
        if not self._has_shards:
            return self.encode_chunk(values)
        corners = np.ndindex(*self._counts)
        return self.join({corner: self.encode_chunk(values[_cell(corner, self.chunk)]) for corner in corners})

    def join(self, chunks: Mapping[tuple[int, ...], bytes]) -> bytes:
        """Make an object of encoded chunks.

        Parameters
        ----------
        chunks : mapping of tuple of int to bytes
            Results of `encode_chunk`, by the position of the chunk in the object. The other chunks of a shard are
            absent.
        """
        if not self._has_shards:
            padding = np.empty((0,) * len(self.chunk), self.stored)
            (body,) = chunks.values() or (self.encode_chunk(padding),)
            return body
        parts, at = [], 0
        index = np.full((*self._counts, 2), _ABSENT, "<u8")
        for corner in sorted(chunks):
            index[corner] = at, len(chunks[corner])
            parts.append(chunks[corner])
            at += len(chunks[corner])
        return b"".join((*parts, with_checksum(index.tobytes())))

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
        if not self._has_shards:
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
                if at + size > len(body):
                    raise ValueError(f"the index of the shard gives bytes {at} to {at + size} of {len(body)}")
                chunk = _cell(corner, self.chunk)
                shared = intersection(chunk, part)
                values[within(shared, part)] = self._decode(body[at : at + size])[within(shared, chunk)]
        return values

    def _shard_index(self, body: bytes) -> NDArray[np.uint64]:
        """Offset and size of each chunk of a shard, shape (*chunks along each axis, 2)."""
        part = body[-self.index_size :] if self.index_at_end else body[: self.index_size]
        index = np.frombuffer(without_checksum(part, len(part)) if self.index_has_checksum else part, "<u8")
        whole = self._index_shape
        if index.size != 2 * math.prod(whole):
            raise ValueError("the index of the shard is incomplete")
        found: NDArray[np.uint64] = index.reshape(*whole, 2)[(0,) * (len(whole) - len(self.chunk))]
        return found

    def encode_chunk(self, values: NDArray[Any]) -> bytes:
        """Encode a chunk.

        Parameters
        ----------
        values : ndarray
            Shape `chunk`, or shorter at the end of the array: padded with the fill value.
        """
        if values.shape != self.chunk or values.dtype != self.stored or not values.flags.c_contiguous:
            whole = _scratch.array(self.chunk, self.stored)
            if values.shape != self.chunk:
                whole.fill(self.fill)
            whole[tuple(map(slice, values.shape))] = values
            values = whole
        body: Any = values.reshape(-1)
        for codec in self.codecs or ():
            body = CODECS[codec][0](body)
        return bytes(body)

    def _decode(self, body: Any) -> NDArray[Any]:
        if self.codecs is None:
            return self._decode_by_zarr(body)
        body = decompressed(body, self.codecs or (), self.chunk_size)
        return np.frombuffer(body, self.stored).astype(self.dtype, copy=False).reshape(self.chunk)

    def _without_outer_codecs(self, document: dict[str, Any], body: bytes) -> bytes:
        """Decode the compressors of a chunk that zarr-python decodes, and remove them from its metadata.

        zarr-python decodes as many bytes as a compressor gives.
        """
        if self.zarr_format == 2:
            codecs = [*(document.get("filters") or ()), *filter(None, [document["compressor"]])]
            names = [codec["id"] for codec in codecs]
            kept = outer_start(names, 0)
            document["filters"], document["compressor"] = codecs[:kept] or None, None
            widens = bool(kept)
        else:
            codecs = list(document["codecs"])
            names = list(map(v3_name, codecs))
            kept = outer_start(names, 1)
            document["codecs"] = codecs[:kept]
            widens = not set(names[:kept]) <= {"bytes", "transpose"}
        most = encoded_size(8 * self._whole_chunk_size) if widens else self._whole_chunk_size
        return bytes(decompressed(body, names[kept:], most))

    def _decode_by_zarr(self, body: bytes) -> NDArray[Any]:
        """Decode a chunk by zarr-python: read an array in memory with this single chunk."""
        import zarr
        from zarr.buffer.cpu import Buffer

        whole = self._whole_chunk
        document: dict[str, Any] = {**self.document, "shape": list(whole)}
        if self.zarr_format == 3:
            codecs = (_shard_of(self.document) or self.document)["codecs"]
            grid = {"name": "regular", "configuration": {"chunk_shape": list(whole)}}
            document |= {"attributes": {}, "chunk_grid": grid, "codecs": codecs}
        name = "zarr.json" if self.zarr_format == 3 else ".zarray"
        lead = len(whole) - len(self.chunk)
        try:
            body = self._without_outer_codecs(document, body)
            objects = {name: json.dumps(document).encode(), self.key((0,) * len(self.chunk)): body}
            array = zarr.open_array({key: Buffer.from_bytes(value) for key, value in objects.items()}, mode="r")
            return np.asarray(array[(0,) * lead]).astype(self.dtype, copy=False)
        except Exception as error:  # raised by zarr-python or by the library of a codec
            raise ValueError(f"zarr cannot decode it: {error}") from None


def _shard_of(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The configuration of the shards in the metadata of an array of zarr format 3; None if there are none."""
    codecs = document.get("codecs") or ()
    if not codecs or codecs[0]["name"] != _SHARDS:
        return None
    found: Mapping[str, Any] = codecs[0]["configuration"]
    return found


def _is_whole(length: Any) -> bool:
    return type(length) is int or (isinstance(length, Integral) and not isinstance(length, bool))


def _cell(corner: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(i * n, (i + 1) * n) for i, n in zip(corner, size, strict=True))


def _document_v3(layout: ArrayLayout, dimension_names: Sequence[str] | None) -> dict[str, Any]:
    """The content of ``zarr.json``, as zarr-python writes it."""
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    others = [described(codec, 3, layout.dtype.itemsize) for codec in layout.codecs or ()]
    codecs = [little if layout.dtype.itemsize > 1 else {"name": "bytes"}, *others]
    if layout.unit != layout.chunk:
        index = [little, described("crc32c", 3, 8)]
        shard = {"chunk_shape": layout.chunk, "codecs": codecs, "index_codecs": index, "index_location": "end"}
        codecs = [{"name": _SHARDS, "configuration": shard}]
    return {
        "shape": layout.shape,
        "data_type": layout.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": layout.unit}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": layout.separator}},
        "fill_value": _as_json(layout.fill),
        "codecs": codecs,
        "attributes": {},
        **({} if dimension_names is None else {"dimension_names": dimension_names}),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _document_v2(layout: ArrayLayout) -> dict[str, Any]:
    """The content of ``.zarray``, as zarr-python writes it."""
    (codec,) = layout.codecs or ()
    return {
        "shape": layout.shape,
        "chunks": layout.chunk,
        "dtype": layout.stored,
        "fill_value": _as_json(layout.fill),
        "order": "C",
        "filters": None,
        "dimension_separator": layout.separator,
        "compressor": described(codec, 2, layout.dtype.itemsize),
        "zarr_format": 2,
    }


def _as_json(fill: float) -> float | str:
    """A fill value in metadata."""
    if math.isfinite(fill):
        return fill
    return "NaN" if math.isnan(fill) else "Infinity" if fill > 0 else "-Infinity"


def _of_v3(document: Mapping[str, Any]) -> ArrayLayout:
    shape, grid = tuple(document["shape"]), document["chunk_grid"]
    if grid["name"] != "regular":
        raise ValueError(f"the chunk grid {grid['name']!r} is not supported")
    unit = chunk = tuple(grid["configuration"]["chunk_shape"])
    codecs = list(document["codecs"])
    at_end = has_checksum = True
    if (shard := _shard_of(document)) is not None:
        index = [codec["name"] for codec in shard["index_codecs"]]
        is_big = (shard["index_codecs"][0].get("configuration") or {}).get("endian") == "big"
        if len(codecs) > 1 or index not in (["bytes"], ["bytes", "crc32c"]) or is_big:
            raise ValueError(
                f"shards with the codecs {codecs[1:]} or the index {shard['index_codecs']} are not supported"
            )
        has_checksum = len(index) == 2
        at_end = {"end": True, "start": False}[shard.get("index_location", "end")]
        chunk, codecs = tuple(shard["chunk_shape"]), list(shard["codecs"])
    if any(codec["name"] == _SHARDS for codec in codecs):
        raise ValueError("shards within other codecs are not supported")
    first, others = codecs[0], tuple(map(v3_name, codecs[1:]))
    known = first["name"] == "bytes" and all(name in CODECS for name in others)
    order: Literal["<", ">"] = ">" if (first.get("configuration") or {}).get("endian") == "big" else "<"
    stored = numeric_dtype(document["data_type"]).newbyteorder(order)
    keys, defaults = document["chunk_key_encoding"], {"default": "/", "v2": "."}
    separator = (keys.get("configuration") or {}).get("separator", defaults[keys["name"]])
    prefix = f"c{separator}" if keys["name"] == "default" else ""
    if document.get("storage_transformers"):
        raise ValueError(f"the storage transformers {document['storage_transformers']!r} are not supported")
    fill = _number(document["fill_value"], stored)
    codecs_known = others if known else None
    head = (shape, chunk, unit, stored.str, fill, codecs_known, prefix, separator, 3, document)
    return ArrayLayout(*head, at_end, has_checksum)


def _of_v2(document: Mapping[str, Any]) -> ArrayLayout:
    shape, chunk = tuple(document["shape"]), tuple(document["chunks"])
    compressor, stored = (document["compressor"] or {}).get("id"), numeric_dtype(document["dtype"])
    known = document["order"] == "C" and not document.get("filters") and compressor in (None, *V2)
    codecs = () if compressor is None else (compressor,)
    fill = _number(document["fill_value"], stored)
    separator = document.get("dimension_separator") or "."
    return ArrayLayout(shape, chunk, chunk, stored.str, fill, codecs if known else None, "", separator, 2, document)


def numeric_dtype(name: Any) -> np.dtype[Any]:
    """The dtype with a name in metadata, such as ``uint16`` or ``<u2``.

    Raises
    ------
    ValueError
        If it is not the name of a numeric dtype. NumPy itself evaluates some names as Python.
    """
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise ValueError(f"{name!r} is not a numeric dtype")
    try:
        return np.dtype(name)
    except TypeError:
        raise ValueError(f"{name!r} is not a numeric dtype") from None


def _number(value: Any, dtype: np.dtype[Any]) -> float:
    """The fill value in metadata as a number: it may be hexadecimal bits of a float (zarr v3), or null (v2)."""
    if isinstance(value, str) and value.startswith("0x"):
        bits = int(value, 16).to_bytes(dtype.itemsize, "little")
        return float(np.frombuffer(bits, dtype.newbyteorder("<"))[0])
    try:
        fill: float = dtype.type(0 if value is None else value).item()
    except OverflowError as error:
        raise ValueError(f"fill value: {error}") from None
    return fill
