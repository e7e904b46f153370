"""The depth of a dataset and of single sections is found from how well their regions explain them."""

import numpy as np
import pytest

import solid_cells as solid
from atlaszarr.errors import InputError
from atlaszarr.refinement.depth import FAR, OFFSETS, correct_depths, depth_scores, is_better_depth, passing
from atlaszarr.refinement.section import Figures, RefinedSection
from codes import raises

INSIDE = np.ones(solid.SHAPE, bool)
DEPTHS = np.arange(-600.0, 601.0, 200.0)


def scores(image, depth, inside=INSIDE):
    return depth_scores(image, inside, (solid.labels(depth + offset) for offset in OFFSETS), solid.RESOLUTION)


@pytest.fixture(scope="module")
def dataset():
    """The images of sections that lie 270 um deeper than recorded; one of them another 350 um, one upside down."""
    errors = np.full(len(DEPTHS), 270.0)
    errors[2] += 350.0
    images = [
        solid.draw(depth + error, (2.0, -1.0 + number), seed=7)
        for number, (depth, error) in enumerate(zip(DEPTHS, errors, strict=True))
    ]
    images[4] = images[4][::-1]
    return errors, np.array([scores(image, depth) for image, depth in zip(images, DEPTHS, strict=True)])


def test_offsets_ascend_and_include_the_recorded_depth():
    assert (np.diff(OFFSETS) > 0).all()
    assert 0.0 in OFFSETS
    assert OFFSETS[0] <= -700
    assert OFFSETS[-1] >= 700


def test_the_depth_of_a_dataset_and_of_a_section_is_found(dataset):
    errors, curves = dataset
    found = correct_depths(DEPTHS, curves)
    right = np.arange(len(DEPTHS)) != 4
    assert found.dataset == pytest.approx(270, abs=50)
    assert np.abs(found.sections - errors)[right].max() < 60
    assert (found.sections != found.dataset).tolist() == (np.arange(len(DEPTHS)) == 2).tolist()
    assert found.far[right].tolist() == (errors > 270 + FAR)[right].tolist()
    assert found.clear[right].all()


def test_a_section_upside_down_is_not_clear(dataset):
    found = correct_depths(DEPTHS, dataset[1])
    assert not found.clear[4]
    assert found.sections[4] == found.dataset


def test_scores_are_shares_of_the_variance(dataset):
    assert (dataset[1] <= 1).all()
    assert dataset[1].max() > 0.5


def test_a_finer_section_has_about_the_same_scores():
    image, labels = solid.draw(100.0), [solid.labels(offset) for offset in OFFSETS]
    coarse = depth_scores(image, INSIDE, labels, solid.RESOLUTION)
    twice = (each.repeat(2, axis=0).repeat(2, axis=1) for each in labels)
    fine = depth_scores(
        image.repeat(2, axis=0).repeat(2, axis=1),
        INSIDE.repeat(2, axis=0).repeat(2, axis=1),
        twice,
        solid.RESOLUTION / 2,
    )
    assert np.abs(fine - coarse).max() < 0.05
    assert OFFSETS[coarse.argmax()] == 100.0


def test_a_template_tells_depth_where_labels_do_not():
    """One region, whose darkness in the section is what the template lacks."""
    image = solid.draw(200.0)
    planes = [solid.labels(offset) for offset in OFFSETS]
    whole = [(each > 0).astype(np.uint32) for each in planes]
    levels = np.random.default_rng(1).uniform(90.0, 200.0, len(solid.CENTRES) + 1)
    template = [np.where(each > 0, levels[each], 0.0) for each in planes]
    blind = depth_scores(image, INSIDE, whole, solid.RESOLUTION)
    seeing = depth_scores(image, INSIDE, whole, solid.RESOLUTION, template)
    assert OFFSETS[seeing.argmax()] == 200.0
    assert seeing.max() > blind.max() + 0.2


@pytest.mark.parametrize("grey", [0, 240])
def test_a_blank_image_explains_nothing(grey):
    blank = np.full((*solid.SHAPE, 3), grey, np.uint8)
    assert not scores(blank, 0.0).any()
    found = correct_depths([0.0], np.zeros((1, len(OFFSETS))))
    assert (found.dataset, *found.sections, *found.far, *found.clear) == (0.0, 0.0, False, False)


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
    compared[40:80, 60:100] = False
    spoilt = image.copy()
    spoilt[~compared] = solid.draw(300.0, seed=8)[~compared]
    planes = [solid.labels(offset) for offset in OFFSETS]
    merged = [np.where(compared | (each == 0), each, 1) for each in planes]
    found = [
        depth_scores(one, INSIDE, labels, solid.RESOLUTION, compared=compared)
        for one, labels in ((image, planes), (spoilt, planes), (image, merged))
    ]
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])
    assert OFFSETS[found[0].argmax()] == 0.0
    assert not depth_scores(image, INSIDE, planes, solid.RESOLUTION, compared=~INSIDE).any()


def test_sections_that_pass_or_reach_another_are_found():
    depths = np.arange(6) * 200.0
    assert not passing(depths, np.full(6, 130.0), 130.0).any()
    assert passing(depths, [30, 30, 30, 30, 120, 30], 30.0).tolist() == [False] * 6
    assert passing(depths, [30, 280, 30, 30, 30, -170], 30.0).tolist() == [False, True, False, False, False, True]
    assert passing(depths, [0, 150, -150, 0, 0, 0], 0.0).tolist() == [False, True, True, False, False, False]
    assert passing([], [], 0.0).tolist() == []


def curve(offset, height=0.5, width=250.0):
    return 0.1 + height * np.exp(-0.5 * ((OFFSETS - offset) / width) ** 2)


@pytest.mark.parametrize(("shift", "far"), [(-380.0, True), (0.0, False), (140.0, False), (310.0, True)])
def test_all_sections_share_the_correction_of_the_dataset(shift, far):
    rng = np.random.default_rng(3)
    curves = [curve(shift + error) for error in rng.normal(0.0, 15.0, 12)]
    found = correct_depths(np.arange(12) * 200.0, curves)
    assert found.dataset == pytest.approx(shift, abs=15)
    assert (found.sections == found.dataset).all()
    assert (found.far == far).all()


@pytest.mark.parametrize("departure", [-160.0, -70.0, 70.0, 160.0])
def test_a_section_departs_by_more_than_the_error_of_its_depth_or_not_at_all(departure):
    curves = [*[curve(60.0, width=120.0)] * 9, curve(60.0 + departure, width=120.0)]
    found = correct_depths(np.arange(10) * 200.0, curves)
    expected = departure if abs(departure) > 100 else 0.0
    assert found.sections[9] - found.dataset == pytest.approx(expected, abs=20)
    assert (found.sections[:9] == found.dataset).all()
    assert found.clear.all()


def test_a_section_that_fits_elsewhere_is_far_even_if_it_is_not_corrected():
    broad = curve(60.0)
    unclear = np.where(OFFSETS >= 400.0, 0.5, 0.1)
    found = correct_depths(np.arange(10) * 200.0, [*[broad] * 9, unclear])
    assert found.sections[9] == found.dataset
    assert found.far.tolist() == [False] * 9 + [True]
    assert not found.clear[9]


@pytest.mark.parametrize(("height", "clear"), [(0.25, False), (0.4, True)])
def test_of_sections_whose_fit_is_refused_only_those_that_clearly_fit_keep_a_depth_of_their_own(height, clear):
    """A section that is right within its plane or half of which is lost, and one that is upside down."""
    own = curve(-300.0, height)
    found = correct_depths(np.arange(10) * 200.0, [*[curve(60.0)] * 9, own])
    assert found.sections[9] == pytest.approx(-300, abs=15)
    assert found.clear.tolist() == [*[True] * 9, clear]
    assert (found.refused == np.where(found.clear, found.sections, found.dataset)).all()
    assert found.refused[9] == pytest.approx(-300 if clear else 60, abs=15)


@pytest.mark.parametrize(("own", "doubtful"), [(-200.0, -200.0), (120.0, None), (1500.0, None)])
def test_a_section_that_fits_no_depth_clearly_may_have_one_of_its_own(own, doubtful):
    weak = curve(own, 0.12, width=700.0)
    found = correct_depths(np.arange(10) * 200.0, [*[curve(60.0)] * 9, weak])
    assert found.sections[9] == found.dataset
    assert not found.clear[9]
    assert np.isnan(found.doubtful[:9]).all()
    assert found.doubtful[9] == pytest.approx(np.nan if doubtful is None else doubtful, abs=30, nan_ok=True)


@pytest.mark.parametrize(("here", "there", "better"), [(0.01, 0.05, False), (0.01, 0.12, True), (0.4, 0.5, False)])
def test_a_depth_is_better_where_the_unseen_half_fits_clearly_better(here, there, better):
    def fitted(unseen):
        figures = Figures(0.9, 0.0, 0.9), Figures(0.9, unseen, 0.9)
        return RefinedSection(np.zeros((2, 4, 4)), 50.0, True, "refined", *figures, 1.0, (1.0, 2.0), 0.9)

    assert is_better_depth(fitted(here), fitted(there)) is better
    assert not is_better_depth(fitted(there), fitted(here))


def test_a_highest_score_at_the_last_offset_is_no_peak():
    outside = curve(2000.0, width=900.0)
    of_dataset = correct_depths([0.0], [outside])
    assert (of_dataset.dataset, of_dataset.sections.tolist(), of_dataset.far.tolist()) == (0.0, [0.0], [True])
    of_section = correct_depths(np.arange(10) * 200.0, [*[curve(60.0)] * 9, outside])
    assert of_section.sections[9] == of_section.dataset
    assert of_section.far[9]


def test_no_sections_need_no_correction():
    found = correct_depths([], np.zeros((0, len(OFFSETS))))
    assert found.dataset == 0.0
    assert found.sections.shape == found.far.shape == found.clear.shape == (0,)


@pytest.mark.parametrize("shape", [(3, 5), (2, len(OFFSETS)), (len(OFFSETS),)])
def test_scores_that_do_not_fit_the_sections_are_refused(shape):
    with raises(InputError, "shape-mismatch"):
        correct_depths(np.zeros(3), np.zeros(shape))


def test_planes_that_do_not_fit_are_refused():
    image = solid.draw(0.0)
    planes = [solid.labels(0.0)] * len(OFFSETS)
    with raises(InputError, "invalid-length"):
        depth_scores(image, INSIDE, planes[1:], solid.RESOLUTION)
    with raises(InputError, "shape-mismatch"):
        depth_scores(image, INSIDE, [planes[0][1:]], solid.RESOLUTION)
    with raises(InputError, "invalid-array"):
        depth_scores(image, INSIDE, planes, solid.RESOLUTION, [np.zeros((4, 5))])
    with raises(InputError, "not-supported"):
        depth_scores(image, INSIDE, planes, 30.0)
