"""Chunks and shards: the very bytes that zarr-python writes, and read back by it."""

import numpy as np
import pytest
import zarr

from atlaszarr.engine.codecs import Encoding
from atlaszarr.errors import InputError

CHUNK = (4, 6, 5)


def stored(path, values, encoding, shard):
    """What zarr-python makes of an array of one object: (the array, the file that holds it)."""
    version = {"shards": shard} if encoding.zarr_format == 3 else {}
    if encoding.zarr_format == 2:
        version["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
    array = zarr.create_array(
        path,
        shape=values.shape,
        chunks=CHUNK,
        dtype=values.dtype,
        fill_value=0,
        zarr_format=encoding.zarr_format,
        compressors=encoding.zarr_compressors(),
        **version,
    ).with_config({"write_empty_chunks": True})
    array[:] = values
    return array, path / ("c/0/0/0" if encoding.zarr_format == 3 else "0/0/0")


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int16", "uint32", "int64", "uint64", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("compressor", ["zstd", "blosc"])
@pytest.mark.parametrize(("zarr_format", "shard"), [(2, None), (3, None), (3, (8, 6, 15))])
def test_it_is_what_zarr_python_makes(tmp_path, dtype, compressor, zarr_format, shard):
    values = (np.random.default_rng(0).random(shard or CHUNK) * 3).astype(dtype)
    encoding = Encoding(compressor, zarr_format)
    array, file = stored(tmp_path, values, encoding, shard)
    body = encoding.encode(values, CHUNK)
    # Within a shard zarr-python puts chunks in Morton order; the format leaves it open.
    if shard is None:
        assert body == file.read_bytes()
    assert len(body) == file.stat().st_size
    np.testing.assert_array_equal(encoding.decode(body, values.shape, CHUNK, values.dtype), values)
    file.write_bytes(encoding.encode(values[::-1], CHUNK))
    np.testing.assert_array_equal(array[:], values[::-1])


@pytest.mark.parametrize("compressor", ["zstd", "blosc"])
@pytest.mark.parametrize("shape", [CHUNK, (8, 6, 15)])
def test_no_bit_can_flip_unseen(compressor, shape):
    encoding = Encoding(compressor)
    body = bytearray(encoding.encode(np.random.default_rng(0).random(shape), CHUNK))
    for position in range(0, len(body), 101):
        body[position] ^= 4
        with pytest.raises(ValueError, match=r"checksum|frame|shard"):
            encoding.decode(bytes(body), shape, CHUNK, np.dtype(float))
        body[position] ^= 4


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("kept", [0, 3, 10])
def test_a_truncated_object_does_not_decode(zarr_format, kept):
    encoding = Encoding(zarr_format=zarr_format)
    body = encoding.encode(np.arange(120.0).reshape(CHUNK), CHUNK)
    with pytest.raises(ValueError):  # noqa: PT011 - any of several
        encoding.decode(body[:kept], CHUNK, CHUNK, np.dtype(float))


def test_big_endian_values_are_stored_little():
    values = np.arange(120, dtype=">u4").reshape(CHUNK)
    assert Encoding().encode(values, CHUNK) == Encoding().encode(values.astype("<u4"), CHUNK)


def test_an_unknown_compressor_is_refused():
    with pytest.raises(InputError, match="gzip"):
        Encoding("gzip")
