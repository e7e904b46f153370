"""Dask arrays that only read and slice a zarr array: they are read without dask. All others are computed by it."""

import pickle
import sys
from collections import Counter
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import zarr

from atlaszarr.engine.inputs import identity_of, opened, readable
from atlaszarr.engine.kept import Kept
from atlaszarr.engine.selections import StoredPart
from atlaszarr.engine.zarr_reader import StoredArray
from atlaszarr.errors import AtlaszarrWarning, InputError
from atlaszarr.writing import write_multiscales
from codes import raises
from little_memory import little_memory

SHAPE = (2, 20, 30, 40)


@pytest.fixture
def stored(tmp_path):
    array = zarr.create_array(tmp_path / "source", shape=SHAPE, chunks=(2, 8, 8, 8), dtype="u2")
    array[:] = np.random.default_rng(0).integers(0, 2**16, SHAPE)
    return array


@pytest.mark.parametrize(
    "select",
    [
        lambda a: a[:, 3:],
        lambda a: a[1],
        lambda a: a[-1, 2:-2, ::3][:, 1:],
        lambda a: a[..., ::-1],
        lambda a: a[:, 15:2:-4, 5, 7:8],
        lambda a: a[:, 8:8],
    ],
)
def test_slices_of_a_zarr_array_are_read_without_dask(stored, select):
    part = readable(select(da.from_zarr(stored)))
    expected = select(stored[:])
    assert isinstance(part, StoredPart)
    assert (part.shape, part.dtype, part.ndim) == (expected.shape, expected.dtype, expected.ndim)
    np.testing.assert_array_equal(part[...], expected)
    if expected.size:
        np.testing.assert_array_equal(part[..., -1:], expected[..., -1:])
        assert part[(0,) * part.ndim] == expected[(0,) * part.ndim]


def test_the_whole_of_a_zarr_array_is_read_as_it_is(stored):
    for array in (da.from_zarr(stored), da.from_zarr(stored)[:], da.from_zarr(stored).rechunk((2, 4, 8, 8))):
        read = readable(array)
        assert isinstance(read, StoredArray)
        assert read == StoredArray.of(stored)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a + 0,
        lambda a: a.T,
        lambda a: a[:, [0, 2, 1]],
        lambda a: a[..., None, :, :],
        lambda a: da.concatenate([a[:, :8], a[:, :8]], axis=1),
        lambda a: a.rechunk((2, 12, 8, 8)),
        lambda a: da.from_array(stored_text(a), chunks=8, getitem=lambda array, index: array[index] * 2),
    ],
)
def test_anything_else_is_left_to_dask(stored, change):
    array = change(da.from_zarr(stored))
    assert readable(array) is array


def stored_text(array):
    return np.zeros(array.shape[1:], "u2")


def test_other_slices_have_another_identity(stored):
    texts = [identity_of(readable(da.from_zarr(stored)[index])) for index in (slice(1), slice(1, 2), 0, 1)]
    assert len({*texts, identity_of(readable(stored))}) == 5


def test_a_slice_is_written_as_its_values(stored, tmp_path):
    selected = da.from_zarr(stored)[:, 3:, :, 5:]
    for name, image in (("slice", selected), ("values", selected.compute())):
        write_multiscales(image, tmp_path / name, levels=2, chunk=8, identity="one")
    for level in ("0", "1"):
        one, other = (zarr.open_group(tmp_path / name)[level][:] for name in ("slice", "values"))
        np.testing.assert_array_equal(one, other)


def test_a_slice_that_does_not_match_the_blocks_reads_each_chunk_once(stored, tmp_path):
    part = readable(da.from_zarr(stored)[:, 1:-1, 3:, ::-2])
    read = Counter()

    def count(event, arguments):
        if event == "open" and str(arguments[0]).startswith(f"{tmp_path}/source/c/"):
            read[str(arguments[0])] += 1

    sys.addaudithook(count)
    write_multiscales(part, tmp_path / "x.ome.zarr", chunk=4, levels=2, identity="it", workers=2)
    assert set(read.values()) == {1}
    assert len(read) == 3 * 4 * 5
    written = zarr.open_array(tmp_path / "x.ome.zarr/0", mode="r")
    np.testing.assert_array_equal(written[:], stored[:][:, 1:-1, 3:, ::-2])


def test_slices_of_several_arrays_have_one_limit_and_their_own_chunks(stored, tmp_path):
    other = zarr.create_array(tmp_path / "other", shape=SHAPE, chunks=(2, 8, 8, 8), dtype="u2")
    other[:] = stored[:][:, ::-1]
    chunk = 2 * 8**3 * 2
    kept = Kept(3 * chunk, 0)
    parts = [replace(readable(da.from_zarr(array)[:, 1:-1, 3:]), kept=kept) for array in (stored, other)]
    boxes = [np.s_[:, z : z + 4, :5, x : x + 4] for z in (0, 4, 8) for x in (0, 4, 8, 12)]
    for box in boxes * 2:
        for part, array in zip(parts, (stored, other), strict=True):
            np.testing.assert_array_equal(part[box], array[:, 1:-1, 3:][box])
    units = [(part.stored.target.url, unit) for part in parts for unit in part.stored.units]
    assert len(kept.get(units)) == 3
    one, two = pickle.loads(pickle.dumps(parts))
    assert one.kept is two.kept


def test_what_is_known_of_a_chunk_that_was_read_is_small():
    kept = Kept(1000, 0)
    with little_memory(2_000_000):
        for k in range(10_000):
            with kept.making(("chunk", k)):
                kept.add({("chunk", k): np.zeros(500, "u1")})


def test_a_slice_of_a_source_that_changed_is_another_image(stored, tmp_path):
    part = da.from_zarr(stored)[:, 3:]
    write_multiscales(part, tmp_path / "out", chunk=8, levels=1)
    stored[:] = stored[:] // 2 + 1
    with raises(InputError, "different-options"):
        write_multiscales(part, tmp_path / "out", chunk=8, levels=1)
    write_multiscales(part, tmp_path / "out", chunk=8, levels=1, overwrite=True)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out/0", mode="r")[:], stored[:][:, 3:])


def test_a_pickled_slice_is_read_as_before(stored):
    part = readable(da.from_zarr(stored)[:, 3:])
    expected = part[...]
    _ = part[:, :2]  # keeps chunks
    copied = pickle.loads(pickle.dumps(part))
    assert len(pickle.dumps(part)) < 10_000
    np.testing.assert_array_equal(copied[...], expected)


def test_absent_chunks_of_a_slice_are_counted(stored, tmp_path):
    (tmp_path / "source/c/0/1/0/0").unlink()
    with pytest.warns(AtlaszarrWarning, match="1 of 60 chunks"):
        write_multiscales(da.from_zarr(stored)[:, 3:], tmp_path / "out", levels=1, chunk=8)


def test_a_change_of_axes_reads_the_zarr_array_by_the_engine(stored, tmp_path):
    import xarray as xr

    (tmp_path / "source/c/0/1/0/0").unlink()
    image = xr.DataArray(da.from_zarr(stored), dims=("c", "x", "y", "z"))
    array, axes, _ = opened(image)
    assert (array.shape, axes) == ((2, 40, 30, 20), ("c", "z", "y", "x"))
    with pytest.warns(AtlaszarrWarning, match="1 of 60 chunks"):
        write_multiscales(image, tmp_path / "out", levels=1, chunk=8)
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "out")["0"][:], stored[:].transpose(0, 3, 2, 1))


@pytest.mark.parametrize("chunks", [(2, 5, 30, 40), (2, 7, 11, 13), (2, 20, 30, 3)])
def test_each_chunk_is_computed_once_where_blocks_and_chunks_do_not_match(tmp_path, chunks):
    computed = Counter()

    def step(block, block_info=None):
        computed[tuple(block_info[0]["chunk-location"])] += 1
        return block + 1

    values = np.random.default_rng(0).integers(0, 100, SHAPE).astype("u1")
    image = da.from_array(values, chunks=chunks).map_blocks(step, dtype="u1", meta=np.empty((0,) * 4, "u1"))
    write_multiscales(image, tmp_path / "out", levels=2, chunk=4, workers=2, scheduler="threads")
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "out")["0"][:], values + 1)
    assert computed == dict.fromkeys(np.ndindex(*image.numblocks), 1)


def test_the_mean_of_an_image_is_computed_once(tmp_path):
    computed = Counter()

    def step(block, block_info=None):
        computed[tuple(block_info[0]["chunk-location"])] += 1
        return block.astype("f4")

    values = np.random.default_rng(0).integers(0, 100, SHAPE).astype("u1")
    image = da.from_array(values, chunks=(2, 8, 8, 8)).map_blocks(step, dtype="f4", meta=np.empty((0,) * 4, "f4"))
    write_multiscales(image - image.mean(), tmp_path / "out", levels=1, chunk=8, workers=2, scheduler="threads")
    found = zarr.open_group(tmp_path / "out")["0"][:]
    np.testing.assert_allclose(found, values - values.mean(), atol=1e-4)
    # Once for the mean and once for the difference, or once for both while it is kept.
    assert max(computed.values()) <= 2
