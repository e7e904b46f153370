"""The codecs of a chunk, such as zstd, blosc and crc32c, as functions of bytes, and their names in zarr's metadata.

The bytes are the same as those of zarr-python, which takes three times as long.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import LZ4, Blosc, GZip
from numcodecs import blosc as _blosc_library
from numcodecs import zstd as _zstd

#: A higher level of zstd hardly makes labels and smooth images smaller, and makes encoding the bottleneck.
_ZSTD_LEVEL = 1
_BLOSC_LEVEL = 5
#: Memory of the decoder of lzma: four times what its highest level takes (xz(1): 65 MiB).
_LZMA_MEMORY = 2**28
# As zarr-python does. In the main thread blosc would use several threads, and the bytes would differ from run to run.
_blosc_library.use_threads = False


def encoded_size(size: int) -> int:
    """The most bytes that a codec makes of `size` bytes; all add less than 1/64 to bytes that cannot be compressed."""
    return size + size // 64 + 2**16


def with_checksum(body: Any) -> bytes:
    """The bytes, and their CRC-32C in little-endian order."""
    plain = bytes(body)
    return plain + int(google_crc32c.value(plain)).to_bytes(4, "little")


def without_checksum(body: Any, _most: int) -> bytes:
    """The bytes before a CRC-32C; raises a ValueError if it is not theirs."""
    plain = bytes(body)
    if len(plain) < 4 or int(google_crc32c.value(plain[:-4])).to_bytes(4, "little") != plain[-4:]:
        raise ValueError("the checksum does not match")
    return plain[:-4]


def _zstd_frame(body: Any) -> bytes:
    return bytes(_zstd.compress(body.view(np.uint8) if isinstance(body, np.ndarray) else body, _ZSTD_LEVEL))


def _zstd_plain(body: Any, most: int) -> Any:
    size = _zstd_size(bytes(body[:18]))
    if size is not None and size > most:
        raise _too_large(size, most)
    # A frame without its size must fill the array, and no other frame may follow.
    return _zstd.decompress(body, np.empty(most if size is None else size, np.uint8))


def _zstd_size(header: bytes) -> int | None:
    """The size that the first bytes of a zstd frame give (RFC 8878, 3.1.1.1); None if they give none."""
    if header[:4] != b"\x28\xb5\x2f\xfd" or len(header) < 6:
        raise ValueError("not a zstd frame")
    flag, is_single, dictionary = header[4] >> 6, header[4] >> 5 & 1, header[4] & 3
    at, length = 6 - is_single + (0, 1, 2, 4)[dictionary], (is_single, 2, 4, 8)[flag]
    size = int.from_bytes(header[at : at + length], "little")
    return None if not length else size + 256 if length == 2 else size


def _blosc() -> Blosc:
    return Blosc(cname="zstd", clevel=_BLOSC_LEVEL, shuffle=Blosc.SHUFFLE)


def _blosc_plain(body: Any, most: int) -> Any:
    # The header of c-blosc: size at byte 4, and at byte 12 that of the frame, which its decoder does not compare.
    frame = bytes(body[:16])
    size, length = (int.from_bytes(frame[at : at + 4], "little") for at in (4, 12))
    if len(frame) < 16 or length != len(body):
        raise ValueError("not a whole blosc frame")
    if size > most:
        raise _too_large(size, most)
    return Blosc().decode(body)


def _lz4_plain(body: Any, most: int) -> Any:
    if (size := int.from_bytes(bytes(body[:4]), "little")) > most:
        raise _too_large(size, most)
    return LZ4().decode(body)


def _stream_plain(decoder: Callable[[], Any]) -> Callable[[Any, int], bytes]:
    """A decoder of frames, one after another, that do not give their size."""

    def plain(body: Any, most: int) -> bytes:
        rest, parts, left = bytes(body), [], most + 1
        while rest and left:
            stream = decoder()
            try:
                parts.append(stream.decompress(rest, left))
            except (zlib.error, lzma.LZMAError) as error:
                raise ValueError(str(error)) from None
            left -= len(parts[-1])
            if left and not stream.eof:
                raise ValueError("the frame is incomplete")
            rest = stream.unused_data
        if not left:
            raise _too_large(most + 1, most)
        return b"".join(parts)

    return plain


def _too_large(size: int, most: int) -> ValueError:
    return ValueError(f"it holds {size} bytes or more, and its metadata gives {most}")


def _no_encoder(_: Any) -> bytes:
    raise NotImplementedError


#: Encoder and decoder of each codec, by its name in the metadata. The first codec of a chunk encodes an array, the
#: others encode bytes. A decoder returns at most the given number of bytes, and allocates no more.
CODECS: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any, int], Any]]] = {
    "zstd": (_zstd_frame, _zstd_plain),
    "blosc": (_blosc().encode, _blosc_plain),
    "gzip": (GZip().encode, _stream_plain(lambda: zlib.decompressobj(31))),
    "crc32c": (with_checksum, without_checksum),
    "zlib": (_no_encoder, _stream_plain(zlib.decompressobj)),
    "bz2": (_no_encoder, _stream_plain(bz2.BZ2Decompressor)),
    "lzma": (_no_encoder, _stream_plain(lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY))),
    "lz4": (_no_encoder, _lz4_plain),
}
#: The compressors of zarr v2; v3 has those of numcodecs with a prefix.
V2 = ("zstd", "blosc", "gzip", "zlib", "bz2", "lzma", "lz4")
_NUMCODECS = "numcodecs."


def outer_start(names: Sequence[str], first: int) -> int:
    """Number of codecs before the last ones that `CODECS` decodes; at least `first`."""
    kept = len(names)
    while kept > first and names[kept - 1] in CODECS:
        kept -= 1
    return kept


def v3_name(codec: Mapping[str, Any]) -> str:
    """The name of a codec of zarr v3; without its prefix for a compressor of numcodecs."""
    name: str = codec["name"]
    bare = name.removeprefix(_NUMCODECS)
    return bare if bare in V2 else name


def decompressed(body: Any, codecs: Sequence[str], size: int) -> Any:
    """Decode the codecs of a chunk of at most `size` bytes, given in the order of encoding.

    Raises
    ------
    ValueError
        If it cannot be decoded, or is larger.
    """
    sizes = [size]
    for _ in codecs[1:]:
        sizes.append(encoded_size(sizes[-1]))
    for codec, most in reversed(list(zip(codecs, sizes, strict=False))):
        try:
            body = CODECS[codec][1](body, most)
        except (RuntimeError, OSError, EOFError) as error:  # raised by the library of the codec
            raise ValueError(f"not a {codec} frame: {error}") from None
    return body


def described(codec: str, zarr_format: int, itemsize: int) -> dict[str, Any]:
    """The metadata of a codec that arrays are written with.

    Parameters
    ----------
    codec : str
        ``zstd``, ``blosc`` or ``crc32c``.
    zarr_format : int
    itemsize : int
        Bytes of a value.
    """
    if codec == "crc32c":
        return {"name": codec}
    if zarr_format == 2:
        levels = {"level": _ZSTD_LEVEL}
        blosc = {"cname": "zstd", "clevel": _BLOSC_LEVEL, "shuffle": Blosc.SHUFFLE, "blocksize": 0}
        return {"id": codec, **(levels if codec == "zstd" else blosc)}
    options: dict[str, Any] = {"level": _ZSTD_LEVEL, "checksum": False}
    if codec == "blosc":
        options = {"typesize": itemsize, "cname": "zstd", "clevel": _BLOSC_LEVEL, "shuffle": "shuffle", "blocksize": 0}
    return {"name": codec, "configuration": options}
