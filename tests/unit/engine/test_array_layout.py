"""Chunks and shards: the very bytes that zarr-python writes, and read back by it."""

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, TransposeCodec, ZstdCodec

from atlaszarr.engine.array_layout import ArrayLayout, Encoding
from atlaszarr.errors import InputError
from codes import raises

CHUNK = (4, 6, 5)
COMPRESSORS = {
    ("zstd", 2): [numcodecs.Zstd(level=1)],
    ("blosc", 2): [numcodecs.Blosc(cname="zstd", clevel=5, shuffle=numcodecs.Blosc.SHUFFLE)],
    ("zstd", 3): [ZstdCodec(level=1), Crc32cCodec()],
    ("blosc", 3): [BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"), Crc32cCodec()],
}


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
        compressors=COMPRESSORS[encoding.compressor, encoding.zarr_format],
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
    layout = encoding.layout(values.shape, CHUNK, dtype, unit=values.shape)
    body = layout.encode(values)
    # Within a shard zarr-python puts chunks in Morton order; the format leaves it open.
    if shard is None:
        assert body == file.read_bytes()
    assert len(body) == file.stat().st_size
    np.testing.assert_array_equal(layout.decode(body), values)
    file.write_bytes(layout.encode(values[::-1]))
    np.testing.assert_array_equal(array[:], values[::-1])


@pytest.mark.parametrize("compressor", ["zstd", "blosc"])
@pytest.mark.parametrize("shape", [CHUNK, (8, 6, 15)])
def test_every_flipped_bit_is_detected(compressor, shape):
    layout = Encoding(compressor).layout(shape, CHUNK, float, unit=shape)
    body = bytearray(layout.encode(np.random.default_rng(0).random(shape)))
    for position in range(0, len(body), 101):
        body[position] ^= 4
        with pytest.raises(ValueError, match=r"checksum|frame|shard"):
            layout.decode(bytes(body))
        body[position] ^= 4


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("kept", [0, 3, 10])
def test_a_truncated_object_does_not_decode(zarr_format, kept):
    layout = Encoding(zarr_format=zarr_format).layout(CHUNK, CHUNK, float)
    body = layout.encode(np.arange(120.0).reshape(CHUNK))
    with pytest.raises(ValueError):  # noqa: PT011 - several messages
        layout.decode(body[:kept])


def test_big_endian_values_are_stored_as_little_endian():
    values = np.arange(120, dtype=">u4").reshape(CHUNK)
    layout = Encoding().layout(CHUNK, CHUNK, values.dtype)
    assert layout.encode(values) == layout.encode(values.astype("<u4"))


def test_values_at_the_end_of_the_array_are_padded_with_the_fill_value():
    layout = Encoding().layout((3, 6, 2), CHUNK, "u2", fill=7)
    values = np.arange(36, dtype="u2").reshape(3, 6, 2)
    whole = np.full(CHUNK, 7, "u2")
    whole[:3, :, :2] = values
    assert layout.encode(values) == layout.encode(whole)


def test_values_at_the_end_are_padded_whatever_was_encoded_before():
    layout = Encoding().layout((9, 12, 3), CHUNK, "u2", fill=7, unit=(8, 6, 15))
    expected = layout.encode(np.full((1, 6, 3), 9, "u2"))
    layout.encode(np.arange(720, dtype="u2").reshape(8, 6, 15))
    assert layout.encode(np.full((1, 6, 3), 9, "u2")) == expected
    assert (layout.decode(expected)[1:] == 7).all()


def test_threads_encode_copies_of_their_own():
    values = np.random.default_rng(0).integers(0, 2**16, (32, 64, 64, 64), "u2")[..., ::-1]
    layout = Encoding().layout(values.shape[1:], values.shape[1:], "u2")
    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(layout.encode, values))
    for body, value in zip(bodies, values, strict=True):
        np.testing.assert_array_equal(layout.decode(body), value)


def test_an_unknown_compressor_is_refused():
    with raises(InputError, "unknown-value") as caught:
        Encoding("gzip")
    assert "gzip" in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("bool", 1),
        ("u1", 0),
        ("i2", -3),
        ("u8", 2**64 - 1),
        ("f2", 0.1),
        ("f4", np.nan),
        ("f4", np.inf),
        ("f8", -np.inf),
    ],
)
@pytest.mark.parametrize("compressor", ["zstd", "blosc"])
@pytest.mark.parametrize(("zarr_format", "shard"), [(2, None), (3, None), (3, (8, 6, 15))])
@pytest.mark.parametrize("names", [("z", "y", "x"), None])
def test_the_metadata_equals_that_of_zarr_python(tmp_path, dtype, fill, compressor, zarr_format, shard, names):
    v3 = {"shards": shard, "dimension_names": names}
    v2 = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    zarr.create_array(
        tmp_path / "a.zarr",
        shape=(9, 9, 16),
        chunks=CHUNK,
        dtype=dtype,
        fill_value=fill,
        zarr_format=zarr_format,
        compressors=COMPRESSORS[compressor, zarr_format],
        **(v2 if zarr_format == 2 else v3),
    )
    layout = Encoding(compressor, zarr_format).layout((9, 9, 16), CHUNK, dtype, fill, shard)
    written = {path.name: path.read_bytes() for path in (tmp_path / "a.zarr").iterdir()}
    assert layout.documents(names) == written
    again = ArrayLayout.of(json.loads(written["zarr.json" if zarr_format == 3 else ".zarray"]))
    assert str(again) == str(layout)


@st.composite
def layouts(draw):
    """A layout that arrays may be written with, and the names of its axes."""
    axes = draw(st.integers(1, 5))
    lengths = partial(st.lists, min_size=axes, max_size=axes)
    encoding = Encoding(draw(st.sampled_from(["zstd", "blosc"])), draw(st.sampled_from([2, 3])))
    dtype = np.dtype(draw(st.sampled_from(["bool", *"iu", "f2", "f4", "f8"])).replace("i", "i8").replace("u", "u8"))
    if dtype.kind == "f":
        special = st.sampled_from([0.1, 1e-30, 1e22, -0.0, np.nan, np.inf, -np.inf])
        fill = draw(special | st.floats(width=8 * dtype.itemsize))
    else:
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        fill = draw(st.integers(int(low), int(high)))
    chunk = draw(lengths(st.integers(1, 30)))
    counts = draw(lengths(st.integers(1, 3))) if encoding.zarr_format == 3 else [1] * axes
    unit = [c * n for c, n in zip(chunk, counts, strict=True)]
    shape = draw(lengths(st.integers(0, 9) | st.integers(0, 2**40)))
    names = draw(st.sampled_from([None, tuple("tczyx"[-axes:])])) if encoding.zarr_format == 3 else None
    with np.errstate(over="ignore"):
        return encoding, encoding.layout(shape, chunk, dtype, fill, unit), names


@given(layouts())
@settings(deadline=None, max_examples=200)
def test_all_metadata_equals_that_of_zarr_python(case):
    encoding, layout, names = case
    store = {}
    v3 = {"shards": layout.unit if layout.unit != layout.chunk else None, "dimension_names": names}
    v2 = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    zarr.create_array(
        store,
        shape=layout.shape,
        chunks=layout.chunk,
        dtype=layout.dtype,
        fill_value=layout.fill,
        zarr_format=encoding.zarr_format,
        compressors=COMPRESSORS[encoding.compressor, encoding.zarr_format],
        **(v2 if encoding.zarr_format == 2 else v3),
    )
    written = {name: body.to_bytes() for name, body in store.items()}
    assert layout.documents(names) == written
    again = ArrayLayout.of(json.loads(written["zarr.json" if encoding.zarr_format == 3 else ".zarray"]))
    assert str(again) == str(layout)


def test_blosc_encodes_the_same_bytes_in_every_process():
    code = (
        "import hashlib, sys; import numpy as np; from atlaszarr.engine.array_layout import Encoding; "
        "values = np.random.default_rng(0).integers(0, 9, (128, 128, 128), np.uint8); "
        "layout = Encoding('blosc').layout(values.shape, values.shape, values.dtype); "
        "assert 'zarr' not in sys.modules; "
        "print(*{hashlib.sha256(layout.encode(values)).hexdigest() for _ in range(9)})"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    values = np.random.default_rng(0).integers(0, 9, (128, 128, 128), np.uint8)
    body = Encoding("blosc").layout(values.shape, values.shape, values.dtype).encode(values)
    assert found == [hashlib.sha256(body).hexdigest()]


PARTS = {
    "a chunk": {},
    "a shard": {"shards": (8, 12, 10)},
    "a chunk by zarr": {"filters": [TransposeCodec(order=(2, 0, 1))]},
    "a shard by zarr": {"shards": (8, 12, 10), "filters": [TransposeCodec(order=(2, 0, 1))]},
    "a chunk of zarr v2 in Fortran order": {"zarr_format": 2, "order": "F"},
    "a chunk of zarr v2 with a filter": {"zarr_format": 2, "filters": [numcodecs.Delta("u2")]},
}


@pytest.mark.parametrize("kind", PARTS)
def test_any_box_of_an_object_can_be_decoded(tmp_path, kind):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 12, 10), chunks=CHUNK, dtype="u2", **PARTS[kind])
    array[:6] = np.random.default_rng(0).integers(1, 99, (6, 12, 10))
    if PARTS[kind].get("zarr_format") == 2:
        document, key = ".zarray", "0.0.0"
    else:
        document, key = "zarr.json", "c/0/0/0"
    layout = ArrayLayout.of(json.loads((tmp_path / "a.zarr" / document).read_text()))
    assert (layout.codecs is None) == (kind not in ("a chunk", "a shard"))
    body = (tmp_path / "a.zarr" / key).read_bytes()
    whole = array[tuple(slice(n) for n in layout.unit)]
    np.testing.assert_array_equal(layout.decode(body), whole)
    for box in (
        np.s_[1:3, 2:6, 0:5],
        np.s_[0:1, 5:6, 4:5],
        np.s_[0:0, 0:1, 0:1],
        *([np.s_[3:7, 5:7, 4:9]] * ("shard" in kind)),
    ):
        np.testing.assert_array_equal(layout.decode(body, box), whole[box])
    assert layout.decode(body).dtype == np.uint16
    with pytest.raises(ValueError, match=r"checksum|frame|zarr|buffer|reshape|size"):
        layout.decode(body[:-5])


def test_a_shard_with_an_absent_chunk_is_refused_if_it_must_be_complete(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(8, 6, 5), chunks=CHUNK, shards=(8, 6, 5), dtype="u2", fill_value=7
    )
    array[:4] = 1
    layout = ArrayLayout.of(json.loads((tmp_path / "a.zarr/zarr.json").read_text()))
    body = (tmp_path / "a.zarr/c/0/0/0").read_bytes()
    np.testing.assert_array_equal(layout.decode(body), array[:])
    assert layout.absent_within((0, 0, 0), body) == 1
    with pytest.raises(ValueError, match="chunks of the shard are absent"):
        layout.decode(body, complete=True)


@pytest.mark.parametrize("chunk", [(0, 6, 5), (-4, 6, 5), (3, 6, 5)], ids=str)
def test_chunks_that_do_not_divide_their_shard_are_refused(tmp_path, chunk):
    zarr.create_array(tmp_path / "a.zarr", shape=(8, 6, 5), chunks=CHUNK, shards=(8, 6, 5), dtype="u2")
    document = json.loads((tmp_path / "a.zarr/zarr.json").read_text())
    document["codecs"][0]["configuration"]["chunk_shape"] = chunk
    with pytest.raises(ValueError, match="chunks"):
        ArrayLayout.of(document)


@pytest.mark.parametrize("positions", [[], [(1, 0, 2)], [(0, 0, 2), (1, 0, 0)], [(1, 0, 0), (0, 0, 2)]])
def test_chunks_that_a_shard_is_not_joined_of_are_absent(tmp_path, positions):
    shape = (8, 6, 15)
    values, encoding = np.zeros(shape, np.uint8), Encoding()
    parts = {}
    layout = encoding.layout(shape, CHUNK, "uint8", unit=shape)
    for number, position in enumerate(positions):
        cell = tuple(slice(i * n, (i + 1) * n) for i, n in zip(position, CHUNK, strict=True))
        values[cell] = number + 1
        parts[position] = layout.encode_chunk(values[cell])
    array, file = stored(tmp_path, values, encoding, shape)
    file.write_bytes(layout.join(parts))
    np.testing.assert_array_equal(array[:], values)
    np.testing.assert_array_equal(layout.decode(file.read_bytes()), values)
    assert layout.absent_within((0, 0, 0), file.read_bytes()) == 6 - len(positions)


def test_an_object_of_one_chunk_that_is_not_given_holds_the_fill_value():
    layout = Encoding().layout((4, 6, 5), CHUNK, "uint8", fill=3)
    assert (layout.decode(layout.join({})) == 3).all()
