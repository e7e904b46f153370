"""Arrays that are read chunk by chunk, against zarr-python's own reading of them."""

import os
import sys

import dask.array as da
import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, TransposeCodec, ZstdCodec

from atlaszarr.engine.inputs import opened, places_read
from atlaszarr.engine.zarr_reader import ChunkedArray
from atlaszarr.errors import InputError, TargetError
from atlaszarr.writing import write_multiscales

V3 = {
    "none": None,
    "zstd": ZstdCodec(level=1),
    "checked": (ZstdCodec(level=1), zarr.codecs.Crc32cCodec()),
    "blosc": BloscCodec(cname="lz4"),
    "gzip": GzipCodec(),
    "two": (BloscCodec(), ZstdCodec()),
}
V2 = {
    "none": None,
    "zstd": numcodecs.Zstd(1),
    "blosc": numcodecs.Blosc(),
    "gzip": numcodecs.GZip(),
}


@st.composite
def boxes(draw, shape):
    ends = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape]
    return tuple(slice(*pair) for pair in ends)


@given(st.data())
def test_any_region_is_what_zarr_reads(tmp_path_factory, data):
    shape = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    chunks = [data.draw(st.integers(1, n)) for n in shape]
    dtype = data.draw(st.sampled_from(["u1", "<i2", ">u4", "<u8", ">f4", "<f8", "?"]))
    fill = data.draw(st.sampled_from([0, 1]))
    zarr_format = data.draw(st.sampled_from([2, 3]))
    kind = data.draw(st.sampled_from(sorted(V2 if zarr_format == 2 else V3)))
    more = {"serializer": BytesCodec(endian="big" if dtype[0] == ">" else "little")} if zarr_format == 3 else {}
    path = tmp_path_factory.mktemp("array") / "a.zarr"
    array = zarr.create_array(
        path,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        zarr_format=zarr_format,
        fill_value=fill,
        compressors=(V2 if zarr_format == 2 else V3)[kind],
        **more,
    )
    written = data.draw(boxes(shape))
    array[written] = np.random.default_rng(0).integers(0, 2, [axis.stop - axis.start for axis in written])
    read = ChunkedArray.of(zarr.open_array(path, mode="r"))
    assert read.shape == tuple(shape)
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    for region in (data.draw(boxes(shape)), ..., (..., slice(0, 1)), (slice(1), ...), slice(1, None)):
        found = read[region]
        assert found.dtype == read.dtype
        np.testing.assert_array_equal(found, array[region])


@pytest.mark.parametrize(
    "kind",
    [
        {"shards": (8, 8)},
        {"filters": [TransposeCodec(order=(1, 0))]},
        {"filters": [numcodecs.Delta("u2")], "zarr_format": 2},
        {"order": "F", "zarr_format": 2},
        {"dtype": "c8"},
    ],
    ids=str,
)
def test_what_is_stored_in_another_way_is_left_to_zarr(tmp_path, kind):
    array = zarr.create_array(tmp_path / "a.zarr", **{"shape": (8, 8), "chunks": (4, 4), "dtype": "u2", **kind})
    assert ChunkedArray.of(array) is None
    assert opened(array)[0] is array


def test_what_lies_elsewhere_is_left_to_zarr():
    array = zarr.create_array(zarr.storage.MemoryStore(), shape=(8, 8), chunks=(4, 4), dtype="u2")
    assert ChunkedArray.of(array) is None


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda _: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_a_damaged_chunk_is_named(tmp_path, damage):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8), chunks=(4, 4), dtype="u2", compressors=V3["checked"])
    array[:] = 7
    chunk = tmp_path / "a.zarr" / "c" / "1" / "0"
    chunk.write_bytes(damage(chunk.read_bytes()))
    read = ChunkedArray.of(zarr.open_array(tmp_path / "a.zarr", mode="r"))
    with pytest.raises(TargetError, match=r"a\.zarr/c/1/0 is damaged"):
        read[:]
    assert (read[:4] == 7).all()


@pytest.fixture
def source(tmp_path):
    array = zarr.create_array(tmp_path / "source.zarr", shape=(20, 30, 40), chunks=(16, 16, 16), dtype="u2")
    array[:] = np.arange(array.size).reshape(array.shape) % 997
    return array


WAYS = {
    "zarr": lambda path: zarr.open_array(path, mode="r"),
    "from_zarr": lambda path: da.from_zarr(str(path)),
    "from_array": lambda path: da.from_array(zarr.open_array(path, mode="r"), chunks=8),
    "computed": lambda path: da.from_zarr(str(path)) + np.uint16(0),
    "numpy": lambda path: zarr.open_array(path, mode="r")[:],
}


@pytest.mark.parametrize("way", WAYS)
def test_an_array_gives_the_same_image_however_it_is_given(tmp_path, source, way):
    image = WAYS[way](tmp_path / "source.zarr")
    read = opened(image)[0]
    assert isinstance(read, ChunkedArray) == (way in ("zarr", "from_zarr", "from_array"))
    assert (places_read(read) == {str(tmp_path / "source.zarr")}) == (way != "numpy")
    write_multiscales(image, tmp_path / "x.ome.zarr", chunk=16, levels=2)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "x.ome.zarr/0", mode="r")[:], source[:])


def plus_one(array, index):
    return array[index] + array.dtype.type(1)


@pytest.mark.parametrize("more", [{}, {"asarray": False}], ids=str)
def test_a_getitem_of_the_user_is_called(tmp_path, source, more):
    lazy = da.from_array(source, chunks=16, getitem=plus_one, **more)
    write_multiscales(lazy, tmp_path / "x.ome.zarr", chunk=16, levels=1)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "x.ome.zarr/0", mode="r")[:], source[:] + 1)


@pytest.mark.parametrize(
    "more", [{"lock": True}, {"asarray": False}, {"inline_array": True}, {"fancy": False}, {"name": "own"}], ids=str
)
def test_what_dask_is_told_of_an_array_is_kept_to(tmp_path, source, more):
    lazy = da.from_array(source, chunks=16, **more)
    assert isinstance(opened(lazy)[0], ChunkedArray) == ("lock" not in more and "asarray" not in more)
    write_multiscales(lazy, tmp_path / "x.ome.zarr", chunk=16, levels=1)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "x.ome.zarr/0", mode="r")[:], source[:])


def test_a_zarr_array_that_dask_is_told_is_masked_is_refused(source):
    with pytest.raises(InputError, match="masked"):
        opened(da.from_array(source, chunks=16, meta=np.ma.masked_all((0, 0, 0), "u2")))


@pytest.mark.usefixtures("source")
def test_every_chunk_is_read_once(tmp_path):
    opened_files: list[str] = []
    chunks = str(tmp_path / "source.zarr" / "c")
    # Python's own notice of every file that is opened; a hook stays for as long as the process does.
    sys.addaudithook(lambda event, args: opened_files.append(str(args[0])) if event == "open" else None)
    write_multiscales(zarr.open_array(tmp_path / "source.zarr", mode="r"), tmp_path / "x.ome.zarr", chunk=8)
    found = sorted(path for path in opened_files if path.startswith(chunks))
    assert found == sorted(f"{chunks}/{z}/{y}/{x}" for z in range(2) for y in range(2) for x in range(3))


SHARDED = {"in shards": {"shards": (16, 16, 16), "chunks": (8, 8, 8)}, "in chunks": {"chunks": (16, 16, 16)}}
LAZY = {
    "zarr": lambda path: zarr.open_array(path, mode="r"),
    "from_zarr": lambda path: da.from_zarr(str(path)),
    "inline": lambda path: da.from_zarr(str(path), inline_array=True),
    "computed": lambda path: da.from_zarr(str(path)) + np.uint16(0),
}


@pytest.mark.parametrize("way", LAZY)
@pytest.mark.parametrize("kind", SHARDED)
def test_a_source_that_changed_under_its_path_is_another_one(tmp_path, way, kind):
    source = zarr.create_array(
        tmp_path / "source.zarr", shape=(16, 16, 16), dtype="u2", compressors=None, **SHARDED[kind]
    )
    source[:] = 7
    write_multiscales(LAZY[way](tmp_path / "source.zarr"), tmp_path / "x.ome.zarr", chunk=16)
    again = write_multiscales(LAZY[way](tmp_path / "source.zarr"), tmp_path / "x.ome.zarr", chunk=16)
    assert again.state == "already finished"
    write_multiscales(LAZY[way](tmp_path / "source.zarr"), tmp_path / "y.ome.zarr", chunk=16, identity="mine")
    source[3, 3, 3] = 8  # in a file of the same size
    for path in (tmp_path / "source.zarr").rglob("*"):  # and later, by a clock of any resolution
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**10))
    with pytest.raises(InputError, match=r"begun with image .*files [0-9a-f]{32} of .*, not with image"):
        write_multiscales(LAZY[way](tmp_path / "source.zarr"), tmp_path / "x.ome.zarr", chunk=16)
    write_multiscales(LAZY[way](tmp_path / "source.zarr"), tmp_path / "x.ome.zarr", chunk=16, overwrite=True)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "x.ome.zarr/0", mode="r")[:], source[:])
    named = write_multiscales(LAZY[way](tmp_path / "source.zarr"), tmp_path / "y.ome.zarr", chunk=16, identity="mine")
    assert named.state == "already finished"
