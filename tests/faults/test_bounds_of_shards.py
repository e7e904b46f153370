"""Every chunk of a shard is decoded into no more than its metadata gives, whatever the codecs and the index."""

import google_crc32c
import numpy as np
import pytest
import zarr
from numcodecs import BZ2, Blosc, GZip, Zlib, Zstd
from zarr.codecs import BloscCodec, GzipCodec, TransposeCodec, ZstdCodec

from atlaszarr.engine.zarr_reader import StoredArray
from atlaszarr.errors import InputError, TargetError
from atlaszarr.stores.target import Target
from codes import raises
from little_memory import little_memory

VALUES = np.arange(512, dtype="uint16").reshape(8, 8, 8) + 1
TRANSPOSED = {"filters": [TransposeCodec(order=(2, 0, 1))]}
FRAMES = {"zstd": (ZstdCodec(), Zstd(9)), "gzip": (GzipCodec(), GZip(9)), "blosc": (BloscCodec(), Blosc("zstd", 9))}


def sharded(store, location="end", codec="zstd", **options):
    array = zarr.create_array(
        store,
        shape=VALUES.shape,
        chunks=(4, 4, 4),
        shards={"shape": (8, 8, 8), "index_location": location},
        dtype="uint16",
        compressors=FRAMES[codec][0],
        **options,
    )
    array[:] = VALUES
    return StoredArray.at(Target.of(store))


def shard_of(body, location):
    """A shard of eight chunks that are one body."""
    at = 132 if location == "start" else 0
    index = np.tile(np.array([at, len(body)], "<u8"), 8).tobytes()
    index += int(google_crc32c.value(index)).to_bytes(4, "little")
    return index + body if location == "start" else body + index


@pytest.mark.parametrize("codec", FRAMES)
@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("options", [{}, TRANSPOSED], ids=["plain", "transposed"])
def test_a_chunk_of_a_shard_is_decoded_into_no_more_than_its_metadata_gives(location, codec, options, tmp_path):
    stored = sharded(tmp_path / "a.zarr", location, codec, **options)
    np.testing.assert_array_equal(stored[...], VALUES)
    np.testing.assert_array_equal(stored[3:7, 5:7, 2], VALUES[3:7, 5:7, 2])
    for size in (2**25, 129, 0):
        frame = bytes(FRAMES[codec][1].encode(np.zeros(size, np.uint8)))
        (tmp_path / "a.zarr/c/0/0/0").write_bytes(shard_of(frame, location))
        with little_memory(2**24), pytest.raises((TargetError, InputError)) as caught:
            stored[...]
        assert caught.value.code in ("damaged-chunk", "file-too-large")
        assert "c/0/0/0" in str(caught.value)


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("options", [{}, TRANSPOSED], ids=["plain", "transposed"])
def test_a_flipped_bit_of_the_index_of_a_shard_is_named(location, options, tmp_path):
    stored = sharded(tmp_path / "a.zarr", location, **options)
    path = tmp_path / "a.zarr/c/0/0/0"
    body = bytearray(path.read_bytes())
    body[3 if location == "start" else -40] ^= 1
    path.write_bytes(body)
    with raises(TargetError, "damaged-chunk") as caught:
        stored[...]
    assert "checksum" in str(caught.value)


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("options", [{}, TRANSPOSED], ids=["plain", "transposed"])
def test_absent_chunks_of_a_shard_are_counted(location, options, tmp_path):
    sharded(tmp_path / "a.zarr", location, **options)
    zarr.open_array(tmp_path / "a.zarr")[:4, :4, :4] = 0
    stored = StoredArray.at(Target.of(tmp_path / "a.zarr"))
    stored.absent.list()
    assert stored.absent.remark("the array").startswith("1 of 8 chunks of the array are absent")
    assert not stored[:4, :4, :4].any()
    np.testing.assert_array_equal(stored[4:], VALUES[4:])


def test_a_shard_of_one_chunk_is_read(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8, 8), chunks=(8, 8, 8), shards=(8, 8, 8), dtype="uint16")
    array[:] = VALUES
    np.testing.assert_array_equal(StoredArray.at(Target.of(tmp_path / "a.zarr"))[...], VALUES)


@pytest.mark.parametrize(
    "options", [{}, {"filters": [TransposeCodec(order=(1, 3, 0, 2))]}], ids=["plain", "transposed"]
)
@pytest.mark.parametrize("lead", [1, 2, 4])
def test_shards_with_a_leading_axis_that_is_left_out_are_read(lead, options, tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=(1, 8, 8, 8),
        chunks=(min(lead, 2), 4, 4, 4),
        shards=(lead, 8, 8, 8),
        dtype="uint16",
        **options,
    )
    array[0] = VALUES
    np.testing.assert_array_equal(StoredArray.at(Target.of(tmp_path / "a.zarr")).labels()[...], VALUES)


@pytest.mark.parametrize("filters", [[Zlib(9)], [BZ2(9), Zlib(9)]], ids=str)
def test_a_compressor_among_the_filters_is_decoded_into_no_more_than_the_metadata_gives(filters, tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(8, 8, 8), chunks=(8, 8, 8), dtype="uint16", zarr_format=2, filters=filters
    )
    array[:] = VALUES
    stored = StoredArray.at(Target.of(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(stored[...], VALUES)
    body = np.zeros(2**26, np.uint8)
    for codec in (*filters, *filter(None, array.compressors)):
        body = codec.encode(body)
    (tmp_path / "a.zarr/0.0.0").write_bytes(bytes(body))
    with little_memory(2**24), pytest.raises((TargetError, InputError)) as caught:
        stored[...]
    assert caught.value.code in ("damaged-chunk", "file-too-large")
