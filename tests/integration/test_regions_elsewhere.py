"""Region volumes of an annotation on a web server, and with a cluster: the same as of that annotation on disk."""

import dask.array as da
import ngff_zarr
import numpy as np
import pandas as pd
import pytest
from distributed import Client

from atlaszarr import Terminology, region_mask, region_volumes
from atlaszarr.engine.label_index import add_index
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import AtlaszarrWarning
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure
from atlaszarr.writing import write_multiscales

LARGE = 2**31 + 5
PATHS = {1: (1,), 10: (1, 10), 11: (1, 10, 11), 12: (1, 10, 12), LARGE: (1, LARGE)}
NAMES = {1: "root", 10: "A", 11: "A1", 12: "A2", LARGE: "B"}
TERMINOLOGY = Terminology(
    tuple(Structure(id, NAMES[id], f"Area {NAMES[id]}", "#AABBCC", path) for id, path in PATHS.items())
)
MICRONS = (25, 50, 100)


@pytest.fixture(scope="module")
def labels():
    coarse = np.random.default_rng(5).choice([0, 10, 11, 12, LARGE], (8, 6, 9)).astype(np.uint32)
    return np.kron(coarse, np.ones((5, 5, 5), np.uint32))


@pytest.fixture
def stored(labels, tmp_path):
    """An annotation with its terminology next to it."""
    path = tmp_path / "annotation.ome.zarr"
    write_multiscales(labels, path, rule="mode", chunk=16, geometry=Geometry((0.025, 0.05, 0.1)))
    (tmp_path / "terminology.csv").write_text(TERMINOLOGY.to_csv())
    return str(path)


@pytest.fixture
def expected(labels):
    return region_volumes(labels, TERMINOLOGY, voxel_size=MICRONS)


def assert_equal(found, wanted):
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False, check_index_type=False, rtol=1e-12)


def test_every_kind_of_annotation_is_read_with_an_active_distributed_client(stored, labels, expected):
    with Client(processes=False, dashboard_address=":0", n_workers=1, threads_per_worker=1):
        multiscales = ngff_zarr.from_ngff_zarr(stored)
        lazy = da.from_zarr(f"{stored}/0")
        for given, size in ((stored, None), (multiscales, None), (lazy, MICRONS), (lazy.persist(), MICRONS)):
            assert_equal(region_volumes(given, TERMINOLOGY, voxel_size=size), expected)
        mask = region_mask(stored, TERMINOLOGY, "A")
        np.testing.assert_array_equal(mask.compute(), np.isin(labels, [10, 11, 12]))


def test_a_web_server_that_does_not_list_objects_is_read_chunk_by_chunk(stored, web, expected):
    add_index(Target(stored))
    with pytest.warns(AtlaszarrWarning, match="does not list"):
        assert_equal(region_volumes(f"{web}/annotation.ome.zarr"), expected)


@pytest.mark.usefixtures("stored")
def test_an_annotation_is_read_through_a_cache_in_front_of_its_url(web, expected, tmp_path):
    options = {"simplecache": {"cache_storage": str(tmp_path / "cache")}}
    assert_equal(region_volumes(f"simplecache::{web}/annotation.ome.zarr", storage_options=options), expected)
    assert any((tmp_path / "cache").iterdir())
    terminology = Terminology.read(f"simplecache::{web.upper()}/terminology.csv?signature=secret", options)
    assert terminology == TERMINOLOGY
