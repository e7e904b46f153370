"""Downsampling equals the documented rules, computed for one voxel at a time with exact fractions."""

import functools
import math
import operator
import runpy
from collections import Counter
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaszarr.engine.downsampling import reduce, reduced_shape
from atlaszarr.errors import InputError
from codes import raises

TIE_RULE = Path(__file__).parents[4] / "shared" / "tools" / "tie_rule.py"
TWO = (Fraction(2),) * 3
LABELS = [np.uint32, np.int64, np.uint64]
HOW = [(rule, np.uint8 if rule == "mean" else np.uint32) for rule in ("mean", "mode", "mode_of_nonzero", "nearest")]

shapes = st.tuples(*(st.integers(1, 9),) * 3)
factors = st.one_of(
    st.just(TWO),
    st.tuples(*(st.sampled_from([Fraction(f) for f in ("1", "2", "3", "5/2", "3/2", "4")]),) * 3),
)
seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["few", "any", "extreme"])


def draw(kind, seed, shape, dtype):
    """Values that tie often, of the whole range, or from its ends."""
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind == "f":
        values = rng.integers(-3, 4, shape) if kind == "few" else rng.normal(0, 100, shape)
        return np.where(rng.random(shape) < (0.02 if kind == "extreme" else 0), np.nan, values).astype(dtype)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if kind == "any":
        return rng.integers(low, high, shape, dtype, endpoint=True)
    few = [0, 0, 1, 2] if kind == "few" else [low, low + 1, 0, 1, high - 1, high]
    return rng.choice(np.array(few, dtype), shape)


def cell(shape, factor, index):
    """Indices of the parent voxels that a voxel overlaps, in C order, and the overlaps along each axis."""
    axes = []
    for n, f, k in zip(shape, factor, index, strict=True):
        overlaps = ((j, min(Fraction(j + 1), (k + 1) * f) - max(Fraction(j), k * f)) for j in range(n))
        axes.append([(j, overlap) for j, overlap in overlaps if overlap > 0])
    return [tuple(zip(*voxel, strict=True)) for voxel in product(*axes)]


def mean(values, factor, index, mask):
    footprint = cell(values.shape, factor, index)
    voxels = [(j, w) for j, w in footprint if mask is None or mask[j] != 0] or footprint
    total = sum(math.prod(w) for _, w in voxels)
    if values.dtype.kind != "f":
        return round(sum(int(values[j]) * math.prod(w) for j, w in voxels) / total)  # half to even, as Fraction does
    q = [f.denominator for f in factor]
    columns = Counter()
    for j, w in voxels:
        columns[j[2], w[2]] += float(values[j]) * float(w[0] * q[0] * w[1] * q[1])
    terms = (column * float(w * q[2]) for (_, w), column in sorted(columns.items()))
    return functools.reduce(operator.add, terms) / float(total * math.prod(q))  # `sum` compensates since Python 3.12


def kept(values, factor, index, nearer):
    """The rule for a tie of foreground and background, with halves by overlap."""
    differences = []
    for axis, (n, f, k) in enumerate(zip(values.shape, factor, index, strict=True)):
        start, end = k * f, min((k + 1) * f, Fraction(n))
        middle = (start + end) / 2
        difference = Fraction(0)
        for j, w in cell(values.shape, factor, index):
            low = max(min(j[axis] + 1, middle) - max(j[axis], start), Fraction(0))
            share = (low - (w[axis] - low)) / w[axis]
            difference += math.prod(w) * share * (values[j] != 0)
        differences.append(abs(difference))
    largest = max(differences)
    return (nearer[differences.index(largest)] if largest else sum(nearer)) % 2 == 0


def mode(values, factor, index, origin, vote, level_shape):
    weights = Counter()
    for j, w in cell(values.shape, factor, index):
        weights[int(values[j])] += math.prod(w)
    background = weights.pop(0, 0)
    foreground = sum(weights.values())
    lost = foreground < background
    if vote and foreground == background:
        at = [k + start for k, start in zip(index, origin, strict=True)]
        nearer = [min(k, n - 1 - k) for k, n in zip(at, level_shape, strict=True)]
        lost = not kept(values, factor, index, nearer)
    if not weights or (vote and lost):
        return 0
    return min(weights, key=lambda label: (-weights[label], label))


def nearest(values, factor, index):
    centres = [(k + Fraction(1, 2)) * f for k, f in zip(index, factor, strict=True)]
    return values[tuple(min(math.ceil(c) - 1, n - 1) for c, n in zip(centres, values.shape, strict=True))]


def reduced(values, factor, rule, origin=(0, 0, 0), mask=None, level_shape=None):
    """One voxel at a time, from the rules as they are documented."""
    if values.ndim == 4:
        return np.stack([reduced(channel, factor, rule, origin, mask, level_shape) for channel in values])
    level = np.empty([math.ceil(n / f) for n, f in zip(values.shape, factor, strict=True)], values.dtype)
    for index in np.ndindex(level.shape):
        if rule == "mean":
            level[index] = mean(values, factor, index, mask)
        elif rule == "nearest":
            level[index] = nearest(values, factor, index)
        else:
            end = level_shape or tuple(np.add(origin, level.shape))
            level[index] = mode(values, factor, index, origin, rule == "mode", end)
    return level


def check(found, expected):
    np.testing.assert_array_equal(found, expected, strict=True)
    assert found.flags.c_contiguous
    assert found.flags.writeable


@settings(max_examples=120)
@given(
    shapes, factors, kinds, seeds, st.sampled_from([np.bool_, np.uint8, np.int32, np.float16, np.float32, np.float64])
)
def test_a_mean_is_exact_for_integers_and_summed_in_float64_for_the_rest(shape, factor, kind, seed, dtype):
    values = draw(kind, seed, shape, dtype)
    check(reduce(values, factor, "mean"), reduced(values, factor, "mean"))


@settings(max_examples=60)
@given(shapes, factors | st.just((Fraction(1023, 1022),) * 3), kinds, seeds, st.sampled_from([np.int64, np.uint64]))
def test_a_mean_of_64_bit_integers_neither_overflows_nor_rounds_early(shape, factor, kind, seed, dtype):
    values = draw(kind, seed, shape, dtype)
    check(reduce(values, factor, "mean"), reduced(values, factor, "mean"))


@pytest.mark.parametrize(("dtype", "seed"), [(np.uint8, 0), (np.int32, 1)])
def test_a_mean_stays_exact_where_the_factor_makes_weights_large(dtype, seed):
    factor = (Fraction(1023, 1022),) * 3
    values = draw("any", seed, (4, 4, 4), dtype)
    check(reduce(values, factor, "mean"), reduced(values, factor, "mean"))


@settings(max_examples=80)
@given(
    shapes,
    factors,
    kinds,
    seeds,
    st.sampled_from([np.bool_, np.uint8, np.float32, np.uint64]),
    st.integers(1, 3),
    st.sampled_from([np.bool_, np.int8, np.uint32, np.uint64]),
)
def test_a_masked_mean_counts_covered_voxels_only_in_every_channel_and_all_where_none_is_covered(
    shape, factor, kind, seed, dtype, channels, mask_dtype
):
    values, mask = draw(kind, seed, (channels, *shape), dtype), draw("few", seed + 1, shape, mask_dtype)
    check(reduce(values, factor, "mean", mask=mask), reduced(values, factor, "mean", mask=mask))


@settings(max_examples=150)
@given(
    shapes,
    factors,
    kinds,
    seeds,
    st.sampled_from(LABELS),
    st.tuples(*(st.integers(0, 3),) * 3),
    st.none() | st.tuples(*(st.integers(12, 16),) * 3),
    st.sampled_from(["mode", "mode_of_nonzero"]),
)
def test_the_mode_has_the_largest_weight_after_a_vote_and_is_the_smallest_of_equals(
    shape, factor, kind, seed, dtype, origin, level_shape, rule
):
    labels = draw(kind, seed, shape, dtype)
    found = reduce(labels, factor, rule, origin=origin, level_shape=level_shape)
    check(found, reduced(labels, factor, rule, origin, level_shape=level_shape))


@settings(max_examples=150)
@given(shapes, factors, seeds, st.sampled_from([np.bool_, *LABELS]))
def test_a_tie_is_broken_by_the_position_of_the_foreground(shape, factor, seed, dtype):
    labels = tied(shape, factor, seed).astype(dtype)
    check(reduce(labels, factor, "mode"), reduced(labels, factor, "mode"))


def tied(shape, factor, seed):
    """Foreground and background, in slabs and in halves at random, so that many footprints hold as much of both."""
    rng = np.random.default_rng(seed)
    labels = rng.random(shape) < 0.5
    for axis, f in enumerate(factor):
        lines = np.arange(shape[axis]) * 2 // f.numerator + rng.integers(2)
        slab = np.expand_dims(lines % 2 == 0, [other for other in range(3) if other != axis])
        labels = np.where(rng.random([math.ceil(n / 4) for n in shape]).repeat(4, 0).repeat(4, 1).repeat(4, 2)[
            tuple(slice(n) for n in shape)
        ] < 0.5, slab, labels)  # fmt: skip
    return labels


@settings(max_examples=60)
@given(shapes, factors, seeds, st.sampled_from([*LABELS, np.float16, np.float64]))
def test_the_nearest_voxel_contains_the_centre_and_is_the_lower_of_two(shape, factor, seed, dtype):
    values = draw("any", seed, shape, dtype)
    check(reduce(values, factor, "nearest"), reduced(values, factor, "nearest"))


def test_the_nearest_of_two_voxels_is_the_first_of_three_the_second():
    values = np.arange(12, dtype=np.int16).reshape(1, 1, 12)
    one = Fraction(1)
    assert reduce(values, (one, one, Fraction(2)), "nearest").tolist() == [[[0, 2, 4, 6, 8, 10]]]
    assert reduce(values, (one, one, Fraction(3)), "nearest").tolist() == [[[1, 4, 7, 10]]]
    assert reduce(values, (one, one, Fraction(5, 2)), "nearest").tolist() == [[[1, 3, 6, 8, 11]]]


@settings(max_examples=60)
@given(
    st.tuples(*(st.integers(1, 24),) * 3),
    factors,
    seeds,
    st.sampled_from([*HOW, ("mean", np.float32)]),
    st.booleans(),
    st.data(),
)
def test_blocks_give_exactly_the_same_as_the_whole(shape, factor, seed, how, masked, data):
    rule, dtype = how
    values = draw("few" if dtype == np.uint32 else "any", seed, (2, *shape), dtype)
    mask = draw("few", seed + 1, shape, np.uint32) if masked and rule == "mean" else None
    whole = reduce(values, factor, rule, mask=mask)
    pieces = np.zeros_like(whole)
    cuts = []
    for n, f in zip(shape, factor, strict=True):
        starts = range(f.numerator, n, f.numerator)
        chosen = data.draw(st.sets(st.sampled_from(starts))) if starts else ()
        cuts.append(list(pairwise([0, *sorted(chosen), n])))
    for block in product(*cuts):
        origin = tuple(start * f.denominator // f.numerator for (start, _), f in zip(block, factor, strict=True))
        part = tuple(slice(start, stop) for start, stop in block)
        made = reduce(
            values[:, *part],
            factor,
            rule,
            origin=origin,
            level_shape=whole.shape[1:],
            mask=None if mask is None else mask[part],
        )
        pieces[:, *(slice(o, o + n) for o, n in zip(origin, made.shape[1:], strict=True))] = made
    check(pieces, whole)


@given(st.tuples(*(st.integers(0, 900),) * 3), factors)
def test_a_level_covers_its_parent_and_no_more(shape, factor):
    for n, m, f in zip(shape, reduced_shape(shape, factor), factor, strict=True):
        assert (m - 1) * f < n <= m * f


@pytest.mark.parametrize("factor", [TWO, (Fraction(5, 2),) * 3])
def test_foreground_does_not_drift_over_levels(factor):
    z, y, x = np.ogrid[-1:1:100j, -1:1:110j, -1:1:120j]
    waves = np.sin(9 * z + 4 * y) + np.sin(8 * x - 5 * z) + np.sin(11 * y + 3 * x)
    labels = (np.where(waves > 0.7, 2**31 + 5, 7) * (z**2 + y**2 + x**2 + 0.1 * waves < 0.7)).astype(np.uint32)
    voxels, swollen = np.count_nonzero(labels), labels
    size = Fraction(1)
    for _ in range(2):
        labels, swollen = reduce(labels, factor, "mode"), reduce(swollen, factor, "mode_of_nonzero")
        size *= math.prod(factor)
        assert abs(np.count_nonzero(labels) * size / voxels - 1) < 0.01
        assert set(np.unique(labels)) == {0, 7, 2**31 + 5}
    assert np.count_nonzero(swollen) * size / voxels > 1.05


def test_a_flat_face_half_way_through_is_kept_or_removed_as_a_whole():
    for axis in range(3):
        labels = np.zeros((14, 14, 14), np.uint32)
        across = np.moveaxis(labels, axis, 0)
        across[5:-5] = 3  # both faces cut footprint 2 from either end in half
        across[1], across[-2] = 3, 3  # footprint 0
        level = np.moveaxis(reduce(labels, TWO, "mode"), axis, 0)
        assert [set(plane.ravel()) for plane in level] == [{3}, {0}, {3}, {3}, {3}, {0}, {3}]
        across[3], across[-4] = 3, 3  # footprint 1 from either end
        level = np.moveaxis(reduce(labels, TWO, "mode"), axis, 0)
        assert [set(plane.ravel()) for plane in level] == [{3}, {0}, {3}, {3}, {3}, {0}, {3}]


def test_the_first_of_equal_differences_decides_a_tie():
    edge = np.zeros((8, 8, 8), np.uint32)
    edge[::2, ::2] = 1  # a quarter of each footprint, and two of its eight voxels more
    edge[1::2, ::2, ::2] = 1
    edge[::2, 1::2, 1::2] = 1
    level = reduce(edge, TWO, "mode")
    np.testing.assert_array_equal(level[:, 1, 1] != 0, [True, False, False, True])
    np.testing.assert_array_equal(level[1, :, :] != 0, False)


def test_without_a_difference_between_halves_the_sum_of_the_indices_decides_a_tie():
    checkerboard = (np.indices((8, 8, 8)).sum(axis=0) % 2).astype(np.uint32)
    near = np.array([0, 1, 1, 0])
    expected = (near[:, None, None] + near[:, None] + near) % 2 == 0
    np.testing.assert_array_equal(reduce(checkerboard, TWO, "mode") != 0, expected)


def test_an_axis_with_one_voxel_does_not_decide_a_tie():
    diagonal = np.tile(np.eye(2, dtype=np.uint32), (4, 4))
    near = np.array([0, 1, 1, 0])
    labels = np.repeat(diagonal[..., None], 3, axis=-1)
    for factor in (Fraction(2), Fraction(3, 2), Fraction(5)):  # the last column of the level has one voxel, or three
        last = reduce(labels, (*TWO[:2], factor), "mode")[..., -1]
        np.testing.assert_array_equal(last != 0, (near[:, None] + near) % 2 == 0)


@settings(max_examples=40)
@given(st.tuples(*(st.integers(1, 9).map(lambda n: 2 * n),) * 3), seeds)
def test_both_sides_of_a_symmetric_image_become_the_same(shape, seed):
    half = tied(shape, TWO, seed)
    whole = np.concatenate([half, half[..., ::-1]], axis=-1)
    level = reduce(whole, TWO, "mode")
    np.testing.assert_array_equal(level, level[..., ::-1])


@pytest.mark.skipif(not TIE_RULE.exists(), reason="the rule in plain NumPy is not next to the project")
@settings(max_examples=40)
@given(st.tuples(*(st.integers(2, 18),) * 3), seeds)
def test_ties_of_whole_cubes_follow_the_rule_in_plain_numpy(shape, seed):
    labels = tied(shape, TWO, seed)
    even = labels[tuple(slice(n // 2 * 2) for n in shape)]
    np.testing.assert_array_equal(reduce(even, TWO, "mode"), runpy.run_path(str(TIE_RULE))["coarser"](even))


def test_labels_beyond_2_to_the_31_are_kept_apart():
    first, second = 2**31 + 1, 2**31 + 2
    labels = np.array([[[first, second], [second, first]], [[second, 0], [first, second]]], np.uint32)
    assert reduce(labels, TWO, "mode").item() == second
    huge = np.array([[[2**64 - 1, 2**64 - 2], [2**64 - 2, 2**64 - 1]]], np.uint64)
    assert reduce(huge, (Fraction(1), *TWO[1:]), "mode").item() == 2**64 - 2


def test_bool_values_are_labels():
    truth = np.zeros((2, 2, 4), bool)
    truth[:, 0], truth[0, 1, 2] = True, True
    check(reduce(truth, TWO, "mode"), np.array([[[True, True]]]))
    check(reduce(truth, TWO, "mode", origin=(0, 1, 0), level_shape=(1, 3, 2)), np.array([[[False, True]]]))
    check(reduce(truth & False, TWO, "mode"), np.array([[[False, False]]]))


def test_a_tissue_edge_gets_no_dark_halo():
    image = np.full((3, 4, 4, 5), 240, np.uint8)
    section = np.full((4, 4, 5), 7, np.uint32)
    image[:, :, :, 1:], section[:, :, 1:] = 9, 0
    for factor in (TWO, (Fraction(1), Fraction(2), Fraction(5, 2))):
        level = reduce(image, factor, "mean", mask=section)
        covered = reduce(section, factor, "mode_of_nonzero")
        assert set(level[..., 0].ravel()) == {240}
        assert set(level[..., 1:].ravel()) == {9}
        assert set(covered[..., 0].ravel()) == {7}
        assert not covered[..., 1:].any()


def test_voxels_outside_the_mask_may_be_nan():
    values = np.full((2, 2, 2), np.nan, np.float32)
    values[0] = 3
    mask = np.isfinite(values)
    assert reduce(values, TWO, "mean", mask=mask).item() == 3
    assert np.isnan(reduce(values, TWO, "mean").item())
    assert np.isnan(reduce(values, TWO, "mean", mask=mask & False).item())


@pytest.mark.parametrize(("rule", "dtype"), [("mean", np.int32), *HOW[1:]])
def test_the_memory_layout_does_not_change_the_result(rule, dtype):
    values = draw("any", 1, (3, 4, 6, 5), dtype)
    expected = reduce(values, TWO, rule)
    frozen = values.copy()
    frozen.flags.writeable = False
    for same in (
        np.asfortranarray(values),
        values.astype(values.dtype.newbyteorder(">")),
        frozen,
        np.repeat(values, 2, axis=-1)[..., ::2],
    ):
        check(reduce(same, TWO, rule), expected)
    check(np.stack([reduce(channel, TWO, rule) for channel in values]), expected)
    assert values.flags.writeable


@pytest.mark.parametrize(("rule", "dtype"), HOW)
def test_an_empty_parent_makes_an_empty_level(rule, dtype):
    assert reduce(np.zeros((0, 4, 6), dtype), TWO, rule).shape == (0, 2, 3)
    assert reduce(np.zeros((0, 4, 6, 5), dtype), (*TWO[:2], Fraction(5, 2)), rule).shape == (0, 2, 3, 2)


CUBE = np.zeros((2, 2, 2), np.uint8)


@pytest.mark.parametrize(
    ("values", "factor", "rule", "options", "code", "named"),
    [
        (CUBE.astype(np.float32), TWO, "mode", {}, "unsupported-dtype", "float32"),
        (CUBE.astype(np.float16), TWO, "mode_of_nonzero", {}, "unsupported-dtype", "float16"),
        (CUBE.astype(complex), TWO, "mean", {}, "unsupported-dtype", "complex128"),
        (CUBE.astype("S2"), TWO, "nearest", {}, "unsupported-dtype", "S2"),
        (CUBE, TWO, "median", {}, "unknown-value", "median"),
        (CUBE[0], TWO, "mean", {}, "wrong-dimensions", "(2, 2)"),
        (CUBE, TWO[:2], "mean", {}, "invalid-factor", "2, 2"),
        (CUBE, (Fraction(1, 2), *TWO[1:]), "mean", {}, "invalid-factor", "1/2"),
        (CUBE, (2.5, 2.5, 2.5), "mean", {}, "invalid-factor", "2.5"),
        (CUBE, (Fraction(1025, 2), *(Fraction(1024),) * 2), "mean", {}, "invalid-factor", "1025/2"),
        (CUBE, TWO, "mode", {"mask": CUBE}, "invalid-mask", "mode"),
        (CUBE, TWO, "mean", {"mask": CUBE[:1]}, "invalid-mask", "(1, 2, 2)"),
    ],
)
def test_values_that_cannot_be_downsampled_are_named(values, factor, rule, options, code, named):
    with raises(InputError, code) as caught:
        reduce(values, factor, rule, **options)
    assert named in str(caught.value)
