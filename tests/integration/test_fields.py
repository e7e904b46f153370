"""Displacement fields with a cluster, and in every kind of store."""

import pickle

import dask.array as da
import numpy as np
from distributed import Client

from atlaszarr import Displacement
from atlaszarr.errors import InputError
from codes import raises
from smooth_fields import SHAPE, smooth


def test_arrays_persisted_on_a_cluster_are_refused_and_those_in_memory_are_not():
    lazy = da.ones(SHAPE, chunks=20)
    assert Displacement.from_deltas(lazy.persist(), lazy).delta_x.sum().compute() == SHAPE[0] * SHAPE[1]
    with Client(processes=False, n_workers=1, dashboard_address=":0"):
        kept = lazy.persist()
        for pair in ((kept, lazy), (lazy, kept + 1), (np.ones(SHAPE), kept)):
            with raises(InputError, "persisted-array"):
                Displacement.from_deltas(*pair)


def test_a_field_has_the_same_objects_in_every_store(store):
    url, field = store.url("kept.ome.zarr"), Displacement.from_deltas(*smooth(3, (520, 530)))
    field.save(url, store.options)
    loaded = Displacement.load(url, store.options)
    assert loaded == field
    assert pickle.loads(pickle.dumps(loaded)) == field
    assert sorted(store.keys("kept.ome.zarr")) == [
        *(f"0/c/0/{i}/{j}" for i in (0, 1) for j in (0, 1)),
        "0/zarr.json",
        "zarr.json",
    ]
