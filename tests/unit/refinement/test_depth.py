"""The depth of a dataset is found from how well regions explain its sections, that of a section by the others."""

import numpy as np
import pytest

import solid_cells as solid
from atlaszarr.errors import InputError
from atlaszarr.refinement.depth import (
    FAR,
    LEAST_AGREEMENT,
    OFFSETS,
    Expectation,
    correct_dataset,
    correct_section,
    depth_scores,
    find_section,
    passing,
)
from atlaszarr.refinement.levels import RegionLevels
from codes import raises

INSIDE = np.ones(solid.SHAPE, bool)
DEPTHS = np.arange(-600.0, 601.0, 200.0)


def planes(depth):
    return [solid.labels(depth + offset) for offset in OFFSETS]


def scores(image, depth, inside=INSIDE):
    return depth_scores(image, inside, planes(depth), solid.RESOLUTION).explained


@pytest.fixture(scope="module")
def dataset():
    """Sections that lie 270 um deeper than recorded, and what the good ones lead to expect of each.

    The third one lies another 350 um deeper, the fifth one is upside down, the sixth one lies 300 um less deep, and the
    sixth and the seventh have little contrast.
    """
    errors = np.full(len(DEPTHS), 270.0)
    errors[2] += 350.0
    errors[5] -= 300.0
    images = [
        solid.draw(depth + error, (2.0, -1.0 + number), seed=7)
        for number, (depth, error) in enumerate(zip(DEPTHS, errors, strict=True))
    ]
    images[4] = images[4][::-1]
    for k in (5, 6):
        images[k] = pale(images[k])
    found = [
        depth_scores(image, INSIDE, planes(depth), solid.RESOLUTION)
        for image, depth in zip(images, DEPTHS, strict=True)
    ]
    whole = correct_dataset([each.explained for each in found])

    def expected(k):
        others = [j for j in np.flatnonzero(whole.clear) if j != k]
        levels = RegionLevels.expected([found[j].levels for j in others], DEPTHS[others] - DEPTHS[k])
        return Expectation(whole.correction, levels)

    depths = [
        find_section(images[k], INSIDE, planes(DEPTHS[k]), expected(k), solid.RESOLUTION) for k in range(len(images))
    ]
    return errors, found, whole, depths, images


def pale(image):
    """A section of a quarter of the contrast, with a texture of its own."""
    found = (image != image[0, 0]).any(axis=-1, keepdims=True)
    texture = np.random.default_rng(2).normal(0.0, 14.0, (*image.shape[:2], 1))
    levels = image[found[..., 0]].mean() + 0.25 * (image - image[found[..., 0]].mean()) + texture
    return np.where(found, levels, image).clip(0, 255).astype(np.uint8)


def test_offsets_ascend_and_include_the_recorded_depth():
    assert (np.diff(OFFSETS) > 0).all()
    assert 0.0 in OFFSETS
    assert OFFSETS[0] <= -700
    assert OFFSETS[-1] >= 700


def test_the_depths_of_a_dataset_and_of_its_sections_are_found(dataset):
    errors, _, whole, depths, _ = dataset
    found = np.array([each.correction for each in depths])
    right = np.arange(len(DEPTHS)) != 4
    assert whole.correction == pytest.approx(270, abs=50)
    assert np.abs(found - errors)[right].max() < 60
    assert np.flatnonzero(found != whole.correction).tolist() == [2, 5]
    assert [each.far for each in depths] == (np.abs(found - whole.correction) > FAR).tolist()
    assert depths[2].far


def test_a_section_upside_down_is_turned_and_the_others_are_not(dataset):
    *_, depths, _ = dataset
    assert [each.turned for each in depths] == [k == 4 for k in range(len(DEPTHS))]


def test_a_section_of_little_contrast_agrees_less_and_one_upside_down_hardly(dataset):
    _, _, whole, depths, _ = dataset
    agreement = np.array([each.agreement for each in depths])
    assert agreement[4] < 0.8 * agreement[[5, 6]].min()
    assert agreement[[5, 6]].max() < agreement[[0, 1, 2, 3]].min()
    assert depths[4].correction == whole.correction


def test_without_other_sections_a_section_has_the_depth_of_the_dataset(dataset):
    image = dataset[-1][2]
    assert find_section(image, INSIDE, [], Expectation(120.0)) == (120.0, None, False, False)
    assert find_section(image, INSIDE, [], Expectation(-301.0)).far


def test_levels_are_those_of_the_regions_at_the_best_offset(dataset):
    """As dark as they were drawn: the levels of two sections agree where both show a region."""
    _, found, *_ = dataset
    first, second = found[0].levels, found[1].levels
    both = np.intersect1d(first.labels, second.labels)
    assert len(both) > 20
    means = [each.means[np.isin(each.labels, both)] for each in (first, second)]
    assert np.corrcoef(means)[0, 1] > 0.8


def test_scores_are_shares_of_the_variance(dataset):
    explained = np.array([each.explained for each in dataset[1]])
    assert (explained <= 1).all()
    assert explained.max() > 0.5


def test_a_finer_section_has_about_the_same_scores():
    image, labels = solid.draw(100.0), [solid.labels(offset) for offset in OFFSETS]
    coarse = depth_scores(image, INSIDE, labels, solid.RESOLUTION).explained
    twice = (each.repeat(2, axis=0).repeat(2, axis=1) for each in labels)
    fine = depth_scores(
        image.repeat(2, axis=0).repeat(2, axis=1),
        INSIDE.repeat(2, axis=0).repeat(2, axis=1),
        twice,
        solid.RESOLUTION / 2,
    ).explained
    assert np.abs(fine - coarse).max() < 0.05
    assert OFFSETS[coarse.argmax()] == 100.0


def test_a_template_tells_depth_where_labels_do_not():
    """One region, whose darkness in the section is what the template lacks."""
    image = solid.draw(200.0)
    given = planes(0.0)
    whole = [(each > 0).astype(np.uint32) for each in given]
    levels = np.random.default_rng(1).uniform(90.0, 200.0, len(solid.CENTRES) + 1)
    template = [np.where(each > 0, levels[each], 0.0) for each in given]
    blind = depth_scores(image, INSIDE, whole, solid.RESOLUTION).explained
    seeing = depth_scores(image, INSIDE, whole, solid.RESOLUTION, template).explained
    assert OFFSETS[seeing.argmax()] == 200.0
    assert seeing.max() > blind.max() + 0.2


@pytest.mark.parametrize("grey", [0, 240])
def test_a_blank_image_explains_nothing(grey):
    blank = np.full((*solid.SHAPE, 3), grey, np.uint8)
    found = depth_scores(blank, INSIDE, planes(0.0), solid.RESOLUTION)
    assert not found.explained.any()
    assert len(found.levels.labels) == 0
    whole = correct_dataset([found.explained])
    assert (whole.correction, whole.clear.tolist()) == (0.0, [False])
    levels = RegionLevels(np.array([1]), np.array([0.5]), np.array([9.0]))
    assert find_section(blank, INSIDE, planes(0.0), Expectation(0.0, levels), solid.RESOLUTION) == (0, 0, False, False)


def test_planes_outside_the_brain_explain_nothing():
    assert not scores(solid.draw(0.0), 10_000.0).any()


def test_what_is_not_in_the_image_has_no_part():
    image, inside = solid.draw(0.0), INSIDE.copy()
    inside[:, :40] = False
    spoilt = image.copy()
    spoilt[:, :40] = np.random.default_rng(0).integers(0, 255, (solid.SHAPE[0], 40, 1))
    first, second = scores(image, 0.0, inside), scores(spoilt, 0.0, inside)
    np.testing.assert_allclose(first, second)
    assert OFFSETS[first.argmax()] == 0.0


def test_what_is_not_compared_has_no_part():
    """The same bytes whatever the image shows there, and whatever the labels are."""
    image, compared = solid.draw(0.0), INSIDE.copy()
    compared[41:80, 61:100] = False
    spoilt = image.copy()
    spoilt[~compared] = solid.draw(300.0, seed=8)[~compared]
    given = planes(0.0)
    merged = [np.where(compared | (each == 0), each, 1) for each in given]
    levels = depth_scores(solid.draw(0.0), INSIDE, given, solid.RESOLUTION).levels
    found = [
        (
            depth_scores(one, INSIDE, labels, solid.RESOLUTION, compared=compared).explained,
            find_section(one, INSIDE, labels, Expectation(0.0, levels), solid.RESOLUTION, compared),
        )
        for one, labels in ((image, given), (spoilt, given), (image, merged))
    ]
    for explained, depth in found[1:]:
        np.testing.assert_array_equal(explained, found[0][0])
        assert depth == found[0][1]
    assert OFFSETS[found[0][0].argmax()] == 0.0
    assert not depth_scores(image, INSIDE, given, solid.RESOLUTION, compared=~INSIDE).explained.any()


def test_sections_that_pass_or_reach_another_are_found():
    depths = np.arange(6) * 200.0
    assert not passing(depths, np.full(6, 130.0), 130.0).any()
    assert passing(depths, [30, 30, 30, 30, 120, 30], 30.0).tolist() == [False] * 6
    assert passing(depths, [30, 280, 30, 30, 30, -170], 30.0).tolist() == [False, True, False, False, False, True]
    assert passing(depths, [0, 150, -150, 0, 0, 0], 0.0).tolist() == [False, True, True, False, False, False]
    assert passing([], [], 0.0).tolist() == []


def curve(offset, height=0.5, width=250.0):
    return 0.1 + height * np.exp(-0.5 * ((OFFSETS - offset) / width) ** 2)


@pytest.mark.parametrize("shift", [-380.0, 0.0, 140.0, 310.0])
def test_all_sections_share_the_correction_of_the_dataset(shift):
    rng = np.random.default_rng(3)
    curves = [curve(shift + error) for error in rng.normal(0.0, 15.0, 12)]
    found = correct_dataset(curves)
    assert found.correction == pytest.approx(shift, abs=15)
    assert found.clear.all()
    for each in curves:
        depth = correct_section(each, found.correction)
        assert (depth.correction, depth.far) == (found.correction, abs(shift) > FAR)


@pytest.mark.parametrize("departure", [-160.0, -70.0, 70.0, 160.0])
def test_a_section_departs_by_more_than_the_error_of_its_depth_or_not_at_all(departure):
    depth = correct_section(curve(60.0 + departure, width=120.0), 60.0)
    assert depth.correction - 60.0 == pytest.approx(departure if abs(departure) > 100 else 0.0, abs=20)
    assert not depth.far


def test_the_depth_of_a_dataset_that_fits_alike_everywhere_is_not_corrected():
    noise = 0.3 + 0.001 * np.random.default_rng(1).standard_normal((4, len(OFFSETS)))
    found = correct_dataset(noise)
    assert (found.correction, found.clear.any()) == (0.0, False)


@pytest.mark.parametrize(
    ("dataset", "departure", "far"),
    [(200.0, 250.0, True), (-250.0, 320.0, True), (200.0, 0.0, False), (310.0, 0.0, True)],
)
def test_a_section_is_far_if_it_or_its_dataset_moves_or_departs_far(dataset, departure, far):
    depth = correct_section(curve(dataset + departure), dataset)
    assert depth.correction == pytest.approx(dataset + departure, abs=20)
    assert depth.far == far


@pytest.mark.parametrize("scale", [1.0, 0.6, 0.4])
def test_a_departure_does_not_depend_on_how_much_a_section_agrees(scale):
    depth = correct_section(scale * curve(-300.0, 0.8), 60.0)
    assert depth.correction == pytest.approx(-300, abs=15)
    assert depth.agreement == pytest.approx(0.9 * scale, abs=0.02)
    assert depth.far


def test_a_section_that_agrees_with_nothing_has_the_depth_of_the_dataset():
    depth = correct_section(0.3 * curve(-400.0, 0.7), 60.0)
    assert (depth.correction, depth.far) == (60.0, False)
    assert depth.agreement < LEAST_AGREEMENT
    assert correct_section(-curve(-400.0), 60.0).correction == 60.0


def test_a_section_that_fits_elsewhere_is_far_even_if_it_is_not_corrected():
    broad = correct_section(np.where(OFFSETS >= 400.0, 0.5, 0.1), 60.0)
    assert (broad.correction, broad.far) == (60.0, True)


def test_a_highest_score_at_the_last_offset_is_no_peak():
    outside = curve(2000.0, width=900.0)
    assert correct_dataset([outside]).correction == 0.0
    assert not correct_dataset([outside]).clear.any()
    depth = correct_section(outside, 60.0)
    assert (depth.correction, depth.far) == (60.0, True)


def test_no_sections_need_no_correction():
    found = correct_dataset(np.zeros((0, len(OFFSETS))))
    assert (found.correction, found.clear.shape) == (0.0, (0,))


@pytest.mark.parametrize("shape", [(3, 5), (len(OFFSETS),)])
def test_scores_that_do_not_fit_the_offsets_are_refused(shape):
    with raises(InputError, "shape-mismatch"):
        correct_dataset(np.zeros(shape))


def test_scores_that_are_not_finite_are_refused():
    curves = np.array([curve(0.0)] * 9)
    curves[3, 5] = np.nan
    with raises(InputError, "invalid-array"):
        correct_dataset(curves)


def test_planes_that_do_not_fit_are_refused():
    image = solid.draw(0.0)
    same = [solid.labels(0.0)] * len(OFFSETS)
    levels = RegionLevels(np.array([1]), np.array([0.5]), np.array([9.0]))
    for function, more in ((depth_scores, ()), (find_section, (Expectation(0.0, levels),))):
        with raises(InputError, "invalid-length"):
            function(image, INSIDE, same[1:], *more, solid.RESOLUTION)
        with raises(InputError, "shape-mismatch"):
            function(image, INSIDE, [same[0][1:]], *more, solid.RESOLUTION)
        with raises(InputError, "not-supported"):
            function(image, INSIDE, same, *more, 30.0)
    with raises(InputError, "invalid-array"):
        depth_scores(image, INSIDE, same, solid.RESOLUTION, [np.zeros((4, 5))])
    with raises(InputError, "invalid-array"):
        depth_scores(image, INSIDE, same, solid.RESOLUTION, [np.full(solid.SHAPE, np.nan)])
