"""What the sections of a dataset lead to expect of each: the depth of all, and the levels of those that are clear."""

import numpy as np
import pytest

from atlaszarr.dataset_refinement.expectations import Expectations
from atlaszarr.refinement.depth import OFFSETS
from atlaszarr.refinement.levels import RegionLevels

DEPTHS = [200.0 * k for k in range(60)]


def scores(best=100.0, level=1.0, correlation=0.5):
    levels = RegionLevels(np.array([3]), np.array([level]), np.array([10.0]))
    explained = 0.5 * np.exp(-(((OFFSETS - best) / 300) ** 2))
    return {"explained": explained.tolist(), "levels": levels.to_json(), "correlation": correlation}


def test_a_section_is_expected_to_look_as_the_others_do():
    found = Expectations.found(DEPTHS, {k: scores(level=float(k == 2)) for k in range(5)})
    assert found.correction == pytest.approx(100, abs=20)
    assert found.of(2).correction == found.correction
    assert found.of(2).levels.means.tolist() == [0.0]
    assert 0.2 < found.of(1).levels.means[0] < 0.3  # of the nearest one of four


def test_sections_without_contrast_or_a_clear_depth_have_no_part():
    given = {k: scores() for k in range(5)}
    given |= {5: scores(-900.0, 9.0, correlation=0.0), 6: {**scores(level=9.0), "explained": [0.2] * len(OFFSETS)}}
    found = Expectations.found(DEPTHS, given)
    assert found.clear.tolist() == [0, 1, 2, 3, 4]
    assert found.of(5).levels.means.tolist() == [1.0]


def test_only_the_nearest_sections_count():
    found = Expectations.found(DEPTHS, {k: scores(level=float(k >= 49)) for k in range(60)})
    assert found.of(0).levels.means.tolist() == [0.0]  # of 1 to 48


@pytest.mark.parametrize("others", [0, 1, 2, 3])
def test_few_others_lead_to_expect_no_levels(others):
    """A section alone has the depth that it fits, which is that of the dataset."""
    found = Expectations.found(DEPTHS, {k: scores(-200.0) for k in range(1 + others)})
    assert found.of(0).correction == pytest.approx(-200, abs=20)
    assert (found.of(0).levels is None) == (others < 3)


def test_of_sections_that_are_equally_far_the_first_ones_count():
    found = Expectations.found([0.0] * 60, {k: scores(level=float(k > 48)) for k in range(60)})
    assert found.of(0).levels.means.tolist() == [0.0]


def test_sections_without_contrast_alone_keep_their_depths():
    found = Expectations.found(DEPTHS, {k: scores(300.0, correlation=0.0) for k in (0, 3)})
    assert found.of(3) == (0.0, None)
    assert Expectations.found(DEPTHS, {}).of(0) == (0.0, None)
