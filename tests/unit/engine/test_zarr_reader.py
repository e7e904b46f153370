"""Arrays that are read chunk by chunk, compared with what zarr-python reads."""

import os
import pickle
import sys

import dask.array as da
import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, TransposeCodec, ZstdCodec

from atlaszarr.engine.inputs import locations_read, opened
from atlaszarr.engine.zarr_reader import StoredArray
from atlaszarr.errors import InputError, TargetError
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from codes import raises

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
def test_any_region_equals_what_zarr_reads(tmp_path_factory, data):
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
    read = StoredArray.of(zarr.open_array(path, mode="r"))
    assert read.shape == tuple(shape)
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    for region in (data.draw(boxes(shape)), ..., (..., slice(0, 1)), (slice(1), ...), slice(1, None)):
        values = read[region]
        assert values.dtype == read.dtype
        np.testing.assert_array_equal(values, array[region])


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
def test_zarr_reads_arrays_with_shards_filters_or_other_dtypes(tmp_path, kind):
    array = zarr.create_array(tmp_path / "a.zarr", **{"shape": (8, 8), "chunks": (4, 4), "dtype": "u2", **kind})
    assert StoredArray.of(array) is None
    assert opened(array)[0] is array


def test_zarr_reads_arrays_in_other_stores():
    array = zarr.create_array(zarr.storage.MemoryStore(), shape=(8, 8), chunks=(4, 4), dtype="u2")
    assert StoredArray.of(array) is None


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda _: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_a_damaged_chunk_is_named(tmp_path, damage):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8), chunks=(4, 4), dtype="u2", compressors=V3["checked"])
    array[:] = 7
    chunk = tmp_path / "a.zarr" / "c" / "1" / "0"
    chunk.write_bytes(damage(chunk.read_bytes()))
    read = StoredArray.of(zarr.open_array(tmp_path / "a.zarr", mode="r"))
    with raises(TargetError, "damaged-chunk") as caught:
        read[:]
    assert "a.zarr/c/1/0" in str(caught.value)
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
def test_an_array_of_any_library_is_written_as_the_same_image(tmp_path, source, way):
    image = WAYS[way](tmp_path / "source.zarr")
    read = opened(image)[0]
    assert isinstance(read, StoredArray) == (way in ("zarr", "from_zarr", "from_array"))
    assert (locations_read(read) == {str(tmp_path / "source.zarr")}) == (way != "numpy")
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
def test_the_options_of_a_dask_array_are_respected(tmp_path, source, more):
    lazy = da.from_array(source, chunks=16, **more)
    assert isinstance(opened(lazy)[0], StoredArray) == ("lock" not in more and "asarray" not in more)
    write_multiscales(lazy, tmp_path / "x.ome.zarr", chunk=16, levels=1)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "x.ome.zarr/0", mode="r")[:], source[:])


def test_a_zarr_array_with_a_masked_meta_is_refused(source):
    with raises(InputError, "masked-image"):
        opened(da.from_array(source, chunks=16, meta=np.ma.masked_all((0, 0, 0), "u2")))


@pytest.mark.usefixtures("source")
def test_every_chunk_is_read_once(tmp_path):
    opened_files: list[str] = []
    chunks = str(tmp_path / "source.zarr" / "c")
    # Python reports every file that it opens; the hook stays until the process ends.
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
def test_a_changed_source_at_the_same_path_is_a_different_source(tmp_path, way, kind):
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
    with pytest.raises(InputError, match=r"files [0-9a-f]{32} of "):
        write_multiscales(LAZY[way](tmp_path / "source.zarr"), tmp_path / "x.ome.zarr", chunk=16)
    write_multiscales(LAZY[way](tmp_path / "source.zarr"), tmp_path / "x.ome.zarr", chunk=16, overwrite=True)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "x.ome.zarr/0", mode="r")[:], source[:])
    named = write_multiscales(LAZY[way](tmp_path / "source.zarr"), tmp_path / "y.ome.zarr", chunk=16, identity="mine")
    assert named.state == "already finished"


KINDS = {
    "chunks": {},
    "shards": {"shards": (16, 16, 16)},
    "chunks by zarr": {"filters": [TransposeCodec(order=(2, 0, 1))]},
    "shards by zarr": {"shards": (16, 16, 16), "filters": [TransposeCodec(order=(2, 0, 1))]},
    "zarr v2 by zarr": {"zarr_format": 2, "order": "F"},
    "an axis before, in longer chunks": {"shape": (1, 20, 30, 40), "chunks": (2, 8, 8, 8)},
}


@pytest.fixture(params=["disk", "memory"])
def stored(request, tmp_path):
    """Write an array of labels with absent chunks by zarr: ``stored(kind)`` returns its target and its values."""

    def make(kind):
        array = zarr.create_array(
            tmp_path / "a.zarr", **{"shape": (20, 30, 40), "chunks": (8, 8, 8), "dtype": "u2", "fill_value": 3, **kind}
        )
        array[..., :16, :, :] = np.random.default_rng(0).integers(0, 9, (*array.shape[:-3], 16, 30, 40))
        target = Target(str(tmp_path))
        if request.param == "memory":
            target = Target.of(f"memory://{tmp_path.name}")
            target.write_all(Target(str(tmp_path)).read_all("a.zarr").items())
        return target, array[:].reshape(20, 30, 40)

    return make


@pytest.mark.first(4)
@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_read_in_any_codec_from_any_store(stored, kind):
    target, whole = stored(KINDS[kind])
    array = StoredArray.at(target, "a.zarr").labels()
    assert array.shape == whole.shape
    for index in (..., 5, (slice(7, 9), slice(None), 39), ([19, 0], 2, slice(None, None, -3)), np.s_[3:3]):
        np.testing.assert_array_equal(array[index], whole[index])
    found = np.zeros_like(whole)
    for region, values in array.read(array.units):
        found[region] += values
    np.testing.assert_array_equal(found, whole)
    assert sum(array.each(array.units, lambda _, values: int(values.sum()))) == whole.sum()
    again = pickle.loads(pickle.dumps(array))
    np.testing.assert_array_equal(again[2:11], whole[2:11])


def test_objects_that_are_not_requested_have_the_fill_value(stored):
    target, whole = stored({})
    array = StoredArray.at(target, "a.zarr")
    found = array.box(np.s_[0:16, 0:8, 0:8], [(1, 0, 0)])
    np.testing.assert_array_equal(found[8:], whole[8:16, :8, :8])
    assert (found[:8] == 3).all()


def test_a_large_shard_is_read_in_parts(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(272, 400, 400), chunks=(136, 200, 200), shards=(272, 400, 400), dtype="u1"
    )
    array[100:102, 150:350] = 1
    read = StoredArray.at(Target(str(tmp_path)), "a.zarr")
    parts = {tuple((s.start, s.stop) for s in region): int(values.sum()) for region, values in read.read(read.units)}
    assert len(parts) == 8
    assert sum(parts.values()) == 2 * 200 * 400
    np.testing.assert_array_equal(read[100:103, 149:151, 199:201], array[100:103, 149:151, 199:201])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"dtype": "f4"}, "not-labels"),
        ({"shape": (2, 8, 8, 8), "chunks": (1, 8, 8, 8)}, "wrong-dimensions"),
        ({"shape": (8, 8), "chunks": (8, 8)}, "wrong-dimensions"),
    ],
    ids=["dtype", "channels", "plane"],
)
def test_arrays_that_do_not_hold_labels_are_refused(tmp_path, change, code):
    zarr.create_array(tmp_path / "a.zarr", **{"shape": (8, 8, 8), "chunks": (8, 8, 8), "dtype": "u1", **change})
    with raises(InputError, code):
        StoredArray.at(Target(str(tmp_path)), "a.zarr").labels()


def test_a_damaged_object_that_zarr_decodes_is_named(stored):
    target, _ = stored(KINDS["shards by zarr"])
    target.write("a.zarr/c/0/1/0", b"no shard")
    with raises(TargetError, "damaged-chunk") as caught:
        StoredArray.at(target, "a.zarr")[:]
    assert "a.zarr/c/0/1/0" in str(caught.value)
