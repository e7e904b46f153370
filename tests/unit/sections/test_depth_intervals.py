"""Depth intervals and the sections that fill them, against the rule for a single depth."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlaszarr.sections.stack import depth_intervals

THICKNESS = 25.0


def filled(depth, depths, fill, nominal, max_gap):
    """The rule for a single depth: (section, neighbour), None for none."""
    nearest = min(range(len(depths)), key=lambda s: (abs(depth - depths[s]), -s))
    distance = depth - depths[nearest]
    neighbour = nearest + (1 if distance >= 0 else -1)
    gap = abs(depths[neighbour] - depths[nearest]) if 0 <= neighbour < len(depths) else np.inf
    reach = THICKNESS / 2 if fill == "none" else nominal / 2
    joined = gap <= (THICKNESS if fill == "none" else max_gap * nominal)
    if not joined and not -reach <= distance < reach:
        return None, None
    return nearest, neighbour if fill == "linear" and joined else None


numbers = st.lists(st.integers(1, 120), min_size=1, max_size=12, unique=True).map(sorted)


@given(
    numbers,
    st.sampled_from(["none", "nearest", "linear"]),
    st.sampled_from([1.0, 1.5, 2.0, 2.5, 3.0, 1000.0]),
    st.lists(st.integers(-4000, 32000).map(lambda eighths: eighths / 8), min_size=1, max_size=50),
)
def test_every_depth_is_filled_by_the_rule(numbers, fill, max_gap, probes):
    depths = [THICKNESS * number for number in numbers]
    steps = Counter(b - a for a, b in pairwise(depths))
    nominal = min((s for s in steps if steps[s] == max(steps.values())), default=THICKNESS)
    edges, nearest, neighbour = depth_intervals(depths, THICKNESS, nominal, fill, max_gap)
    assert (np.diff(edges) >= 0).all()
    for depth in [*probes, *depths]:
        j = np.searchsorted(edges, depth, side="right") - 1
        inside = 0 <= j < len(nearest)
        result = (int(nearest[j]), int(neighbour[j])) if inside else (-1, -1)
        expected = tuple(
            -1 if section is None else section for section in filled(depth, depths, fill, nominal, max_gap)
        )
        assert result == expected, depth


def test_a_wide_gap_is_filled_by_half_a_nominal_interval_at_either_side():
    depths = [1000.0, 1200.0, 1400.0, 2000.0, 2200.0]
    edges, nearest, _ = depth_intervals(depths, THICKNESS, 200.0, "nearest")
    by_depth = [int(nearest[np.searchsorted(edges, d, side="right") - 1]) for d in (1450, 1499, 1501, 1899, 1901)]
    assert by_depth == [2, 2, -1, -1, 3]


def test_the_ends_are_filled_by_half_a_nominal_interval():
    edges, _, _ = depth_intervals([1000.0, 1200.0], THICKNESS, 200.0, "linear")
    assert (edges[0], edges[-1]) == (900.0, 1300.0)


@pytest.mark.parametrize("fill", ["nearest", "linear"])
def test_one_missing_section_is_bridged_and_two_are_not_by_default(fill):
    def sections_at(depths, depth, **options):
        edges, nearest, neighbour = depth_intervals(depths, THICKNESS, 100.0, fill, **options)
        j = np.searchsorted(edges, depth, side="right") - 1
        return int(nearest[j]), int(neighbour[j])

    one_missing, two_missing = [0.0, 100.0, 300.0, 400.0], [0.0, 100.0, 400.0, 500.0]
    other = (2, 1) if fill == "linear" else (-1, -1)
    assert [sections_at(one_missing, d) for d in (199, 201)] == [(1, other[0]), (2, other[1])]
    assert [sections_at(two_missing, d) for d in (151, 249, 251, 349)] == [(-1, -1)] * 4
    assert [sections_at(two_missing, d, max_gap=3) for d in (249, 251)] == [(1, other[0]), (2, other[1])]


@given(st.integers(1, 3000), st.integers(1, 16), st.sampled_from([2.5, 3.0]), st.floats(0.05, 200))
def test_a_gap_of_exactly_the_limit_is_bridged_at_any_depth(number, step, max_gap, thickness):
    depths = [thickness * number, thickness * (number + 2 * step * max_gap)]
    edges, nearest, _ = depth_intervals(depths, thickness, thickness * 2 * step, "nearest", max_gap)
    assert nearest.tolist() == [0, 1]
    assert len(edges) == 3
