"""Any index of a lazy array equals that of NumPy, after any optimization of dask."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import dask
import dask.array as da
import nrrd
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from atlaszarr import Displacement, Terminology, region_mask
from atlaszarr.engine.label_index import add_index
from atlaszarr.engine.zarr_reader import StoredArray
from atlaszarr.reference_volumes import open_annotation, open_template
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure
from atlaszarr.writing import write_multiscales
from indexing import indices, is_same

SHAPE = (70, 66, 9)
TERMINOLOGY = Terminology((Structure(1, "root", "root", "#AABBCC", (1,)),))


@dataclass
class Lazy:
    """Lazy arrays by name, and what each holds."""

    arrays: dict[str, tuple[Any, Any]] = field(repr=False)


def written(folder, values, **options):
    path = folder / f"{len(list(folder.iterdir()))}.ome.zarr"
    write_multiscales(values, path, rule="mode", chunk=32, **options)
    return path


@pytest.fixture(scope="module")
def lazy(tmp_path_factory):
    """Every kind of lazy array that atlaszarr returns, except section images."""
    folder = tmp_path_factory.mktemp("lazy")
    values = np.random.default_rng(0).integers(0, 3, SHAPE).astype("uint32")
    stored, sharded, indexed = written(folder, values), written(folder, values, shard=64), written(folder, values)
    add_index(Target.of(indexed))
    array = zarr.open_array(stored / "0", mode="r")
    masks = {"of stored labels": stored, "of shards": sharded, "with an index": indexed}
    masks |= {"of a dask array": da.from_array(values, chunks=20), "of a zarr array": array, "of numpy": values}
    found = {f"mask {name}": (region_mask(one, TERMINOLOGY, "root"), values == 1) for name, one in masks.items()}
    chunked = StoredArray.of(array)
    found["chunks"] = (da.from_array(chunked, chunks=chunked.chunk), values)
    x, y = np.random.default_rng(1).normal(size=(2, 600, 40))
    fields = {
        "affine": Displacement.simple_affine((600, 40), rotation=0.1),
        "arrays": Displacement.from_coordinates(x, y),
        "dask": Displacement.from_deltas(da.from_array(x, chunks=30), da.from_array(y, chunks=30)),
        "scaled": 0.5 * Displacement.from_coordinates(x, y),
    }
    fields["arrays"].save(folder / "field.zarr")
    fields["arrays"].save(folder / "field.npy")
    fields |= {suffix: Displacement.load(folder / f"field.{suffix}") for suffix in ("zarr", "npy")}
    for name, one in fields.items():
        # Computed with no index fused into its tasks.
        found[f"x of {name}"] = (one.x, one.coordinates()[0])
        found[f"norm of {name}"] = (one.norm, one.norm.compute())
    image = np.random.default_rng(2).integers(0, 255, (50, 60, 3)).astype("uint8")
    warped = fields["affine"].warp(da.from_array(image, chunks=(20, 20, 3)))
    found["warped"] = (warped, fields["affine"].warp(image))
    header = {"space": "left-posterior-superior", "space directions": np.diag([200.0] * 3)}
    with ExitStack() as kept:
        for encoding in ("raw", "gzip"):
            nrrd.write(str(folder / f"{encoding}.nrrd"), values, {**header, "encoding": encoding})
            for opening in (open_annotation, open_template):
                uri = folder / f"{encoding}.nrrd"
                volume = kept.enter_context(opening(uri, folder, orientation="psl", voxel_size=200))
                found[f"{opening.__name__} of {encoding}"] = (volume.array, values[::-1])
        volume = kept.enter_context(open_annotation(stored, folder, orientation="asl", voxel_size=200))
        found["open_annotation of OME-Zarr"] = (volume.array, values)
        yield Lazy(found)


FIELDS = ("affine", "arrays", "dask", "scaled", "zarr", "npy")
NAMES = [
    *(f"mask {name}" for name in ("of stored labels", "of shards", "with an index")),
    *(f"mask {name}" for name in ("of a dask array", "of a zarr array", "of numpy")),
    "chunks",
    *(f"{what} of {name}" for what in ("x", "norm") for name in FIELDS),
    "warped",
    *(f"open_{kind} of {form}" for kind in ("annotation", "template") for form in ("raw", "gzip")),
    "open_annotation of OME-Zarr",
]


@pytest.mark.first(6)
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(data=None)
@given(data=st.data())
def test_any_index_equals_that_of_numpy(lazy, name, data):
    array, whole = lazy.arrays[name]
    if data is not None:
        is_same(array, whole, data.draw(indices(array.shape)))
        return
    assert set(lazy.arrays) == set(NAMES)
    plain = (30, -1, (slice(None), 5, slice(None, None, 2)), np.s_[::-1, ::-2], np.s_[..., 2], [3, 1, 1], np.s_[::-7])
    for index in plain:
        if not (isinstance(index, tuple) and len(index) > array.ndim):
            is_same(array, whole, index)
    # Indices of indices, and several of one array at once.
    is_same(array[10:40][5:20], whole[10:40][5:20], 3)
    one, other = dask.compute(array[30], array[:, 5])
    np.testing.assert_array_equal(one, whole[30])
    np.testing.assert_array_equal(other, whole[:, 5])
