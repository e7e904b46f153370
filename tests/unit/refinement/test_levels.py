"""The levels of regions: their means in a section, those that several sections lead to expect, and a painted plane."""

import numpy as np
import pytest

from atlaszarr.refinement.levels import RegionLevels


def levels(**values):
    """By labels: the mean and the area."""
    found = dict(sorted((int(name[1:]), value) for name, value in values.items()))
    return RegionLevels(np.array(list(found)), *np.array(list(found.values()), float).T)


def test_levels_are_the_means_of_the_pixels_of_each_label():
    found = RegionLevels.of(np.array([7, 0, 3, 7, 3, 7], np.uint32), np.array([1.0, 90.0, 2.0, 3.0, 4.0, 5.0]))
    assert (found.labels.tolist(), found.means.tolist(), found.areas.tolist()) == ([3, 7], [3.0, 3.0], [2.0, 3.0])


def test_no_pixels_have_no_levels():
    none = RegionLevels.of(np.zeros(4, np.uint32), np.ones(4))
    assert none.labels.shape == none.means.shape == none.areas.shape == (0,)
    assert none.painted(np.array([[0, 5]])).tolist() == [[0.0, 0.0]]


def test_expected_levels_are_the_means_of_sections_by_area():
    found = RegionLevels.expected(
        [levels(_3=(1.0, 10.0), _5=(4.0, 2.0)), levels(_3=(2.0, 30.0), _9=(8.0, 1.0))], [200, -200]
    )
    assert found.labels.tolist() == [3, 5, 9]
    assert found.means.tolist() == pytest.approx([1.75, 4.0, 8.0])
    assert found.areas.tolist() == pytest.approx([40.0, 2.0, 1.0])


def test_nearer_sections_count_more():
    near, far = levels(_3=(1.0, 10.0)), levels(_3=(2.0, 10.0))
    weight = np.exp(-0.5 * (2.0**2 - 1.0**2))
    found = RegionLevels.expected([near, far], [1000.0, -2000.0])
    assert found.means.tolist() == pytest.approx([(1.0 + 2.0 * weight) / (1.0 + weight)])


def test_sections_that_are_all_far_away_still_count():
    found = RegionLevels.expected([levels(_3=(1.0, 10.0)), levels(_4=(2.0, 10.0))], [60_000.0, 200_000.0])
    assert found.labels.tolist() == [3]
    assert found.means.tolist() == [1.0]


def test_a_plane_is_painted_with_the_levels_and_with_their_mean_where_a_label_is_new():
    plane = np.array([[0, 3, 5], [9, 2, 0]], np.uint32)
    painted = levels(_3=(1.0, 3e9), _9=(5.0, 1e9)).painted(plane)
    np.testing.assert_allclose(painted, [[0.0, 1.0, 2.0], [5.0, 2.0, 0.0]], atol=1e-6)


def test_a_level_of_a_small_area_is_drawn_to_the_mean():
    painted = levels(_3=(0.0, 98.75), _9=(4.0, 1.25)).painted(np.array([[9]]))
    assert painted[0, 0] == pytest.approx(0.5 * 4.0 + 0.5 * 0.05)


@pytest.mark.parametrize("label", [2**53 + 1, 2**62 + 1, 2**64 - 1])
def test_large_labels_are_told_apart(label):
    plane = np.array([[label, label - 1]], np.uint64)
    found = RegionLevels.of(plane.ravel(), np.array([1.0, 3.0]))
    many = RegionLevels(found.labels, found.means, found.areas * 1e9)
    np.testing.assert_allclose(many.painted(plane), [[1.0, 3.0]], atol=1e-6)


def test_levels_are_restored_from_json():
    one = levels(_3=(0.1, 30.0), _4611686018427387904=(5.0, 10.0))
    again = RegionLevels.from_json(one.to_json())
    for name in ("labels", "means", "areas"):
        np.testing.assert_array_equal(getattr(again, name), getattr(one, name))
        assert getattr(again, name).dtype == getattr(one, name).dtype
