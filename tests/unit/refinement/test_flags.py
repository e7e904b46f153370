"""A section that fits much worse than the others of its dataset, or exceeds a hard limit, is flagged."""

import numpy as np
import pytest

import tiled_sections as sections
from atlaszarr.refinement.flags import flags
from atlaszarr.refinement.section import Figures, RefinedSection, refine_section


def figures(correlation=0.6, dice=0.97):
    return Figures(correlation, correlation, dice)


def section(reason="refined", after=None, affine=100.0, jacobian=0.7, before=None):
    before, after = before or figures(0.3, 0.94), after or figures()
    return RefinedSection(
        np.zeros((2, 4, 4)), 25.0, reason == "refined", reason, before, after, affine, (9, 20), jacobian
    )


def dataset(count, **bad):
    good = {id: section(after=figures(0.55 + 0.01 * id)) for id in range(1, count)}
    return good | {0: section(**bad)}


def test_good_sections_have_no_flag():
    assert flags(dataset(16)) == {}


@pytest.mark.parametrize(
    ("bad", "flag"),
    [
        ({"after": figures(0.3)}, "correlation"),
        ({"after": figures(0.6, 0.85), "before": figures(0.2, 0.86)}, "tissue"),
        ({"affine": 1001.0}, "affine"),
        ({"jacobian": 0.29}, "jacobian"),
        ({"reason": "no contrast"}, "no contrast"),
    ],
)
def test_a_bad_section_is_flagged_with_the_reason(bad, flag):
    assert flags(dataset(16, **bad)) == {0: flag}


def test_a_section_that_was_right_from_the_start_has_no_flag():
    right = section("no rise on the unseen half", after=figures(0.3), before=figures(0.6))
    assert flags({**dataset(16), 99: right}) == {}


def test_a_section_far_off_in_depth_is_flagged():
    assert flags(dataset(16), far={0, 99}) == {0: "depth"}
    assert flags(dataset(4), far={0}) == {0: "depth"}
    assert flags(dataset(16, jacobian=0.2), far={0}) == {0: "jacobian"}


@pytest.mark.parametrize(("agreement", "flag"), [(0.16, {}), (0.14, {0: "correlation"})])
def test_a_section_of_little_contrast_that_agrees_with_the_others_has_no_flag(agreement, flag):
    agreements = {**dict.fromkeys(range(1, 16), 0.6), 0: agreement}
    assert flags(dataset(16, after=figures(0.1), before=figures(0.0)), agreements=agreements) == flag
    refused = dataset(16, reason="no rise on the unseen half", after=figures(0.1), before=figures(0.1))
    assert flags(refused, agreements=agreements) == flag
    lost = dataset(16, after=figures(0.1, 0.8), before=figures(0.0, 0.8))
    assert flags(lost, agreements=agreements) == {0: "tissue"}


def test_agreement_that_is_next_to_none_is_no_excuse():
    agreements = dict.fromkeys(range(16), 0.05)
    assert flags(dataset(16, after=figures(0.1), before=figures(0.0)), agreements=agreements) == {0: "correlation"}


def test_a_turned_section_is_flagged_first():
    assert flags(dataset(16), turned={0, 99}) == {0: "orientation"}
    assert flags(dataset(16, reason="no contrast"), turned={0}) == {0: "orientation"}
    assert flags(dataset(7, jacobian=0.1), turned={0}) == {0: "orientation"}


def test_a_section_that_passes_another_is_flagged_if_nothing_else_is_wrong():
    assert flags(dataset(16), passing={0}) == {0: "order"}
    assert flags(dataset(16), far={0}, passing={0}) == {0: "depth"}
    assert flags(dataset(16, jacobian=0.2), passing={0}) == {0: "jacobian"}


def test_few_sections_have_only_the_hard_limits():
    assert flags(dataset(7, after=figures(0.1))) == {}
    assert flags(dataset(8, after=figures(0.1))) == {0: "correlation"}
    assert flags(dataset(2, affine=1200.0)) == {0: "affine"}


def test_sections_without_contrast_do_not_count():
    blank = {id: section("no contrast", after=figures(0.0), before=figures(0.0)) for id in range(50, 70)}
    found = flags({**dataset(9, after=figures(0.2)), **blank})
    assert found == {0: "correlation", **dict.fromkeys(blank, "no contrast")}


@pytest.mark.slow
def test_a_section_of_other_regions_is_flagged():
    """Its regions lie elsewhere in the same outline, as in a section that is upside down or far off in depth."""
    inside, labels = np.ones(sections.SHAPE, bool), sections.labels()
    refined = {}
    for seed in range(1, 9):
        image = sections.draw(sections.constant(1.0 + 0.2 * seed, -1.0), seed, sectors=13 if seed == 3 else 9)
        refined[seed] = refine_section(image, inside, labels, sections.RESOLUTION)
    assert flags(refined) == {3: "correlation"}
