"""Chunks that several regions of lazy arrays depend on, which a process keeps."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import dask.array as da
import numpy as np
import pytest
from dask.highlevelgraph import HighLevelGraph

from atlaszarr.engine.kept import Kept
from atlaszarr.engine.lazy_arrays import LazyArrays

SIDE, CHUNKS = 4, 6


@pytest.fixture
def made():
    """How often each chunk was made."""
    return Counter()


def source(made, wrap=lambda chunk: chunk):
    """A dask array of chunks along x, each made from a value that is given: (array, given)."""

    def make(k, value):
        made[k] += 1
        return wrap(np.full((SIDE, SIDE, SIDE), value + k, np.float32))

    given = {("given", k): f"value {k}" for k in range(CHUNKS)}
    graph = HighLevelGraph(
        {"given": dict.fromkeys(given), "made": {("made", 0, 0, k): (make, k, ("given", k)) for k in range(CHUNKS)}},
        {"given": set(), "made": {"given"}},
    )
    return da.Array(graph, "made", ((SIDE,), (SIDE,), (SIDE,) * CHUNKS), np.float32), given


def computed(lazy, k):
    region = (slice(0, SIDE), slice(0, SIDE), slice(k * SIDE, (k + 1) * SIDE))
    return lazy.compute(region, {name: 10 * int(name[-1]) for name in lazy.needs(region)})[""][0, 0]


def test_a_chunk_that_neighbouring_regions_use_is_made_once(made):
    array, given = source(made)
    lazy = LazyArrays({"": array.map_overlap(np.copy, {2: 1}, boundary="nearest", dtype=np.float32)}, given)
    for k in range(CHUNKS):
        assert computed(lazy, k).tolist() == [11 * k] * SIDE
    assert made == dict.fromkeys(range(CHUNKS), 1)


def test_a_chunk_of_one_region_is_not_kept(made):
    array, given = source(made)
    lazy = LazyArrays({"": array.map_blocks(np.copy)}, given)
    for _ in range(2):
        assert computed(lazy, 1).tolist() == [11] * SIDE
    assert made == {1: 2}


def test_a_step_that_changes_its_input_in_place_changes_no_other_region(made):
    array, given = source(made)

    def spoil(block):
        block += 1000
        return block

    spoilt = array.map_blocks(spoil, dtype=np.float32)
    lazy = LazyArrays({"": da.concatenate([spoilt, array, spoilt], axis=2)}, given)
    for k in range(CHUNKS):
        for part, extra in ((0, 1000), (1, 0), (2, 1000), (0, 1000)):
            assert computed(lazy, k + part * CHUNKS).tolist() == [11 * k + extra] * SIDE
    assert made == dict.fromkeys(range(CHUNKS), 1)


def test_a_value_that_is_no_array_is_made_for_each_region(made):
    array, given = source(made, wrap=lambda chunk: [chunk])
    one, other = (array.map_blocks(step, dtype=np.float32) for step in (np.squeeze, lambda chunk: chunk[0]))
    lazy = LazyArrays({"": da.concatenate([one, other], axis=2)}, given)
    for k in (1, 1 + CHUNKS):
        assert computed(lazy, k).tolist() == [11] * SIDE
    assert made == {1: 2}


def test_a_mean_of_the_whole_array_is_made_once(made):
    array, given = source(made)
    names = {name: 10 * int(name[-1]) for name in given.values()}
    lazy = LazyArrays({"": array - array.mean()}, given)
    for k in range(CHUNKS):
        region = (slice(0, SIDE), slice(0, SIDE), slice(k * SIDE, (k + 1) * SIDE))
        assert lazy.needs(region) == list(names)
        assert (lazy.compute(region, names)[""] == 11 * k - 27.5).all()
    assert made == dict.fromkeys(range(CHUNKS), 1)


def test_a_chunk_across_the_edge_of_two_regions_is_made_once(made):
    array, given = source(made)
    lazy = LazyArrays({"": array}, given)
    for start in range(0, SIDE * CHUNKS, 3):
        region = (slice(0, SIDE), slice(0, SIDE), slice(start, start + 3))
        found = lazy.compute(region, {name: 10 * int(name[-1]) for name in lazy.needs(region)})[""][0, 0]
        assert found.tolist() == [11 * ((start + n) // SIDE) for n in range(3)]
    assert made == dict.fromkeys(range(CHUNKS), 1)


def test_threads_wait_for_the_one_that_makes_what_they_need(made):
    second = threading.Event()

    def slow(chunk):
        if made[0] > 1:
            second.set()
        elif chunk[0, 0, 0] == 0:
            second.wait(1)
        return chunk

    array, given = source(made, wrap=slow)
    lazy = LazyArrays({"": array.map_overlap(np.copy, {2: 1}, boundary="nearest", dtype=np.float32)}, given)
    with ThreadPoolExecutor(2) as pool:
        assert [found.tolist() for found in pool.map(partial(computed, lazy), (0, 1))] == [[0] * SIDE, [11] * SIDE]
    assert made == {0: 1, 1: 1, 2: 1}


def test_what_was_not_used_for_longest_is_dropped_at_the_limit():
    kept = Kept(most=100)
    kept.add({"a": np.zeros(40, "u1"), "b": (np.zeros(20, "u1"), np.zeros(20, "u1"))})
    assert set(kept.get(["a"])) == {"a"}
    kept.add({"c": np.zeros(40, "u1")})
    assert set(kept.get(["a", "b", "c"])) == {"a", "c"}
    kept.add({"d": np.zeros(101, "u1")})
    assert kept.get(["a", "b", "c", "d"]) == {}
    kept.add({"e": "no array", "f": np.zeros(100, "u1")})
    assert set(kept.get(["e", "f"])) == {"f"}
