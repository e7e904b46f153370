"""What regions of dask arrays have in common, where little of it fits into memory, or the graph is deep."""

import weakref
from collections import Counter
from itertools import product

import dask.array as da
import numpy as np
import pytest

from atlaszarr.engine.kept import Kept
from atlaszarr.engine.lazy_arrays import LazyArrays

SIDE, CHUNKS = 4, 8
BYTES = SIDE**3 * 4


def region(k):
    return slice(0, SIDE), slice(0, SIDE), slice(k * SIDE, (k + 1) * SIDE)


@pytest.mark.parametrize("fits", [0, 4, 8])
@pytest.mark.parametrize("layers", [4, 8])
def test_a_chain_of_steps_computes_each_chunk_at_most_once_for_each_region_and_once_before(layers, fits):
    computed = Counter()

    def step(block, layer):
        computed[layer] += 1
        return block + 1

    array = da.zeros((SIDE, SIDE, SIDE * CHUNKS), chunks=SIDE, dtype="f4")
    for layer in range(layers):
        array = array.map_overlap(step, (0, 0, 1), boundary="none", dtype="f4", layer=layer, meta=np.empty((0,) * 3))
    computed.clear()
    lazy = LazyArrays({"": array}, {}, most=fits * BYTES)
    for k in range(CHUNKS):
        assert (lazy.compute(region(k), {})[""] == layers).all()
    # The first region follows the chain from its end, and computes what was dropped on the way once for each layer.
    assert max(computed.values()) <= CHUNKS * (CHUNKS + layers * 5)
    for layer in range(layers):
        seen = computed[layer]
        lazy.compute(region(3), {})
        assert computed[layer] - seen <= CHUNKS


def test_a_chain_of_a_thousand_steps_is_computed():
    from dask.highlevelgraph import HighLevelGraph

    graph = {("0", 0, 0, k): (np.full, (SIDE, SIDE, SIDE), k) for k in range(2)}
    for n, k in product(range(1, 1001), range(2)):
        graph[str(n), 0, 0, k] = (np.add, (str(n - 1), 0, 0, k), (np.sign, (str(n - 1), 0, 0, 1 - k)))
    whole = HighLevelGraph({"1000": graph}, {"1000": set()})
    array = da.Array(whole, "1000", ((SIDE,), (SIDE,), (SIDE,) * 2), int)
    lazy = LazyArrays({"": array}, {})
    assert [int(lazy.compute(region(k), {})[""].max()) for k in range(2)] == [1000, 1000]


def test_a_view_that_is_kept_does_not_hold_the_array_it_is_a_view_of():
    whole = np.zeros((100, 100))
    gone = weakref.ref(whole)
    kept = Kept(most=10_000)
    kept.add({"view": whole[:2, :3], "views": (whole[:1], whole[:, :1])})
    del whole
    assert gone() is None
    assert kept.get(["view"])["view"].shape == (2, 3)


def test_a_step_in_place_changes_no_other_region_when_nothing_fits():
    def spoil(block):
        block += 1000
        return block

    made = da.zeros((SIDE, SIDE, SIDE * CHUNKS), chunks=SIDE, dtype="f4").map_blocks(np.add, 1, dtype="f4")
    one = made.map_overlap(spoil, (0, 0, 1), boundary="none", dtype="f4", meta=np.empty((0,) * 3, "f4"))
    lazy = LazyArrays({"": da.concatenate([made.map_blocks(spoil, dtype="f4"), made, one + made], axis=2)}, {}, most=0)
    for _ in range(2):
        for k in range(CHUNKS):
            for part, value in ((0, 1001), (1, 1), (2, 1002)):
                assert (lazy.compute(region(k + part * CHUNKS), {})[""] == value).all()


def test_chunks_do_not_replace_a_mean_and_means_do_not_grow_without_bound():
    kept = Kept(most=16_000)
    kept.add({"mean": np.float32(1)})
    for k in range(100):
        kept.add({k: np.zeros(500, "f4")})
    assert list(kept.get(["mean", *range(100)])) == ["mean", *range(92, 100)]
    kept.add({("mean", k): np.float32(k) for k in range(250)})
    assert not kept.get(["mean"])
    assert len(kept.get([("mean", k) for k in range(250)])) == 250
