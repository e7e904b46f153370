"""Dask arrays that are computed region by region from given values."""

import pickle

import dask.array as da
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaszarr.engine.lazy_arrays import LazyArrays
from atlaszarr.errors import InputError
from codes import raises

SHAPE = (9, 7, 11)


class Source:
    """Arrays of one graph, in which every chunk depends on its own value and on that of its plane of chunks."""

    def __init__(self, chunks):
        self.values = np.random.default_rng(3).integers(0, 99, (2, *SHAPE))
        self.base = da.from_array(self.values, chunks=(2, *chunks), name="base", inline_array=True)
        self.image = self.base.map_overlap(lambda b: b + np.roll(b, 1, axis=2), {2: 1}, boundary="nearest", dtype=int)
        self.label = (self.base[1] > 50).astype("u4")
        keys = [key for key in self.image.dask.to_dict() if isinstance(key, tuple) and key[0] == "base"]
        self.names = {key: f"chunk {key[1:]}" for key in keys}
        self.given = {
            name: self.values[tuple(slice(i * n, (i + 1) * n) for i, n in zip(key[1:], (2, *chunks), strict=True))]
            for key, name in self.names.items()
        }
        self.lazy = LazyArrays({"": self.image, "label": self.label}, self.names)


def axis(n):
    return st.tuples(st.integers(0, n - 1), st.integers(1, n)).map(lambda at: slice(at[0], min(sum(at), n)))


@settings(max_examples=12)
@given(st.tuples(*(st.integers(1, n) for n in SHAPE)), st.tuples(*map(axis, SHAPE)))
def test_a_region_is_that_of_the_whole_and_takes_only_the_values_that_it_needs(chunks, region):
    source = Source(chunks)
    names = source.lazy.needs(region)
    assert names == pickle.loads(pickle.dumps(names)) == source.lazy.needs(region)
    computed = source.lazy.compute(region, {name: source.given[name] for name in names})
    np.testing.assert_array_equal(computed[""], source.image.compute(scheduler="sync")[(slice(None), *region)])
    np.testing.assert_array_equal(computed["label"], source.label.compute(scheduler="sync")[region])


def test_a_copy_computes_the_same_and_holds_no_task_of_a_given_value():
    import cloudpickle

    source = Source((3, 3, 3))
    region = (slice(2, 8), slice(0, 7), slice(5, 6))
    body = cloudpickle.dumps(source.lazy)
    assert len(body) < len(cloudpickle.dumps((source.image, source.label)))
    copy = pickle.loads(body)
    names = source.lazy.needs(region)
    assert copy.needs(region) == names
    given_values = {name: source.given[name] for name in names}
    np.testing.assert_array_equal(copy.compute(region, given_values)[""], source.lazy.compute(region, given_values)[""])


def test_a_value_that_is_given_replaces_its_task():
    source = Source((9, 7, 11))
    (name,) = source.given
    computed = source.lazy.compute((slice(0, 1),) * 3, {name: source.values * 0})
    assert not computed[""].any()


def test_a_chunk_of_another_dtype_or_shape_than_declared_is_refused():
    whole = tuple(slice(0, n) for n in SHAPE)
    for wrong in (lambda block: block.astype("f4"), lambda block: block[1:]):
        image = da.zeros(SHAPE, chunks=4, dtype="u1").map_blocks(wrong, dtype="u1", meta=np.empty((0, 0, 0), "u1"))
        with raises(InputError, "block-mismatch"):
            LazyArrays({"": image}, {}).compute(whole, {})
