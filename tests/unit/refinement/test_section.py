"""The registration of a section is refined to a field that is known; what cannot be refined keeps its registration."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import solid_cells as solid
import tiled_sections as sections
from atlaszarr import Displacement
from atlaszarr.errors import InputError
from atlaszarr.refinement.arrays import points_of, smallest_jacobian
from atlaszarr.refinement.section import FITTED, LEAST_GAIN, LEAST_RISE, refine_section
from codes import raises

INSIDE = np.ones(sections.SHAPE, bool)
BRAIN = sections.labels() > 0
UM = sections.RESOLUTION


def refined(image, **options):
    return refine_section(image, INSIDE, sections.labels(), UM, **options)


def error(found, truth):
    """Median and 95th percentile over the brain of the distance between two fields, in um."""
    return np.percentile(np.hypot(*(found - truth))[BRAIN], [50, 95])


def inverse(displacement):
    """The field of a section that is drawn through a displacement in pixels, in um."""
    field, residual = Displacement.from_deltas(*displacement).invert()
    assert np.asarray(residual)[BRAIN].max() < 1e-6
    return np.stack([np.asarray(field.delta_x), np.asarray(field.delta_y)]) * UM


def test_a_translation_is_found():
    section = refined(sections.draw(sections.constant(3.0, -2.0)))
    assert section.reason == "refined"
    median, p95 = error(section.field, sections.constant(-150.0, 100.0))
    assert median < 25
    assert p95 < 60
    assert section.affine == pytest.approx(180.3, abs=25)


def test_an_affine_is_found():
    x, y = sections.grid() - [[[69.5]], [[59.5]]]
    displacement = np.stack([0.03 * x - 0.02 * y, 0.02 * x - 0.03 * y])
    section = refined(sections.draw(displacement))
    median, p95 = error(section.field, inverse(displacement))
    assert section.kept
    assert median < 25
    assert p95 < 60


def test_a_smooth_wave_is_found_without_a_fold():
    x, y = sections.grid()
    wave = np.stack([3.0 * np.sin(2 * np.pi * y / 110.0), 3.0 * np.cos(2 * np.pi * x / 130.0)])
    truth = inverse(wave)
    section = refined(sections.draw(wave))
    start, end = error(0.0 * truth, truth), error(section.field, truth)
    assert section.kept
    assert end[0] < 25
    assert end[1] < 0.6 * start[1]
    assert smallest_jacobian(section.field / UM, INSIDE) > 0.3
    assert section.jacobian > 0.3
    assert section.after.unseen > section.before.unseen + 0.1
    assert section.after.dice > 0.97


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (4, 6))])
def test_tissue_that_is_displaced_by_a_layer_is_put_back(seed):
    """Rings of 200 um in a section that is 5 % too small: a ring further inside, the greys fit nearly as well."""
    x, y = sections.grid() - [[[69.5]], [[59.5]]]

    def rings(x, y):
        radius, angle = np.hypot(x / 50.0, y / 44.0), np.arctan2(y, x)
        ring, sector = np.floor((1.0 - radius) * 11.0), np.floor((angle + np.pi) / (2 * np.pi) * 3.0)
        return np.where(radius < 1.0, 1 + 3 * ring + sector, 0).astype(int)

    levels = np.random.default_rng(seed).uniform(90.0, 200.0, 60)
    levels[0] = sections.PAPER
    image, labels = sections.paint(rings(x / 0.952, y / 0.952), levels, seed), rings(x, y)
    section = refine_section(image, INSIDE, labels, UM)
    wrong = np.hypot(*(section.field + 0.048 * UM * np.stack([x, y])))[labels > 0]
    assert section.kept
    assert np.percentile(wrong, 50) < 25
    assert np.percentile(wrong, 95) < 50


@pytest.mark.parametrize("side", [pytest.param(-16, marks=pytest.mark.slow), 16])
def test_a_section_of_which_an_edge_is_lost_is_not_stretched_over_it(side):
    """800 um of one side: what is left is put where it belongs, or the section is refused."""
    image = solid.draw(0.0, displacement=(2.0, -1.0))
    tissue = solid.labels_at(*(sections.grid() + sections.constant(2.0, -1.0)), 0.0) > 0
    image[tissue & ~np.roll(tissue, side, axis=1)] = int(sections.PAPER)
    section = refine_section(image, INSIDE, solid.labels(0.0), solid.RESOLUTION)
    left = np.roll(solid.labels(0.0) > 0, side, axis=1) & (solid.labels(0.0) > 0)
    wrong = np.hypot(*(section.field - sections.constant(-2.0, 1.0) * solid.RESOLUTION))[left]
    assert section.after.dice < 0.95
    assert np.percentile(wrong, 50) < (30 if section.kept else 115)
    assert np.percentile(wrong, 95) < 200


def test_the_refined_displacement_composes_with_the_recorded_one():
    shift = sections.constant(2.0, 1.0)
    section = refined(sections.draw(shift))
    recorded = Displacement.from_affine(sections.SHAPE, [[2.0, 0.0, 0.5], [0.0, 2.0, 0.5]])
    x, y = recorded.compose(section.displacement).coordinates()
    expected = 2.0 * (points_of(sections.SHAPE) - shift) + 0.5
    assert np.median(np.hypot(x - expected[0], y - expected[1])[BRAIN]) < 2 * 15 / UM


def test_a_section_in_its_place_is_not_moved():
    section = refined(sections.draw(sections.constant(0.0, 0.0)))
    assert not section.kept
    assert section.reason == "no rise on the unseen half"
    assert not section.field.any()


def test_a_section_that_fits_well_is_moved_only_by_a_clear_rise():
    section = refined(sections.draw(sections.constant(0.3, 0.0)))
    rise = section.after.unseen - section.before.unseen
    assert section.kept == (rise >= max(LEAST_RISE, LEAST_GAIN * section.before.unseen))
    assert not section.kept
    assert section.weight == 0.0


def test_a_section_that_fits_unmoved_in_a_plane_nearby_is_not_moved():
    """A deformation makes up for an error of depth in part."""
    image = solid.draw(250.0, seed=3)

    def near(*depths):
        nearby = [solid.labels(depth) for depth in depths]
        return refine_section(image, INSIDE, solid.labels(0.0), solid.RESOLUTION, nearby=nearby)

    assert near(-250.0, -100.0).reason == "refined"
    refused = near(-250.0, 250.0)
    assert (refused.kept, refused.reason, refused.field.any()) == (False, "right nearby", False)
    assert refused.after.unseen > refused.before.unseen + LEAST_RISE


def test_a_section_is_worth_what_it_shows_on_the_unseen_half():
    section = refined(sections.draw(sections.constant(3.0, -2.0)))
    assert section.weight == section.after.unseen > 0.3


@pytest.mark.slow
def test_labels_that_are_held_out_take_no_part():
    """Tissue within them is shuffled, which changes no grey level of the section."""
    image = sections.draw(sections.constant(3.0, -2.0))
    labels = np.where(BRAIN & (sections.grid()[0] >= 85), 1000 + sections.labels(), sections.labels())
    held_out = set(np.unique(labels[labels >= 1000]).tolist())
    spoilt = image.copy()
    shuffled = spoilt[45:75, 100:112]
    shuffled[:] = np.random.default_rng(1).permutation(shuffled.reshape(-1, 3)).reshape(shuffled.shape)
    fields = [refine_section(each, INSIDE, labels, UM, hold_out=held_out).field for each in (image, spoilt)]
    np.testing.assert_allclose(*fields, atol=4.0)
    assert np.median(np.hypot(fields[0][0] + 150.0, fields[0][1] - 100.0)[BRAIN]) < 40
    counted = [refine_section(each, INSIDE, labels, UM).field for each in (image, spoilt)]
    assert np.abs(counted[0] - counted[1]).max() > 10


def test_a_template_refines_a_section_whose_labels_are_one_region():
    """Its greys in the section are the reverse of those in the template."""
    image = sections.draw(sections.constant(2.0, -1.0))
    whole = BRAIN.astype(np.uint32)
    template = np.where(BRAIN, sections.PAPER - sections.greys(1)[sections.labels()], 0.0)
    section = refine_section(image, INSIDE, whole, UM, template=template)
    median, p95 = error(section.field, sections.constant(-100.0, 50.0))
    assert section.kept
    assert median < 25
    assert p95 < 60


def test_greys_that_no_region_explains_are_refused():
    levels = np.full(37, 140.0)
    levels[0] = sections.PAPER
    section = refined(sections.draw(sections.constant(3.0, 0.0), levels=levels))
    assert not section.kept
    assert section.reason in ("no contrast", "no rise on the unseen half")
    assert section.after.unseen < 0.05
    assert not section.field.any()


def test_a_section_of_one_smooth_grey_has_no_contrast():
    levels = np.full(64, 140.0)
    levels[0] = sections.PAPER
    section = refined(sections.draw(sections.constant(3.0, 0.0), levels=levels, texture=0.0))
    assert section.reason == "no contrast"
    assert not section.field.any()


@pytest.mark.parametrize("grey", [0, 240, 255])
def test_a_blank_image_has_no_contrast(grey):
    section = refined(np.full((*sections.SHAPE, 3), grey, np.uint8))
    assert section.reason == "no contrast"
    assert not section.field.any()


def test_a_plane_outside_the_brain_has_no_contrast():
    image = sections.draw(sections.constant(0.0, 0.0))
    section = refine_section(image, INSIDE, np.zeros(sections.SHAPE, np.uint32), UM)
    assert section.reason == "no contrast"


def test_half_a_section_is_not_kept():
    image = sections.draw(sections.constant(3.0, -2.0))
    image[:, 70:] = 240
    section = refined(image)
    assert not section.kept


@pytest.mark.slow
def test_the_same_bytes_on_any_number_of_threads():
    images = [sections.draw(sections.constant(2.0, 1.0), seed) for seed in (1, 2)] * 2
    with ThreadPoolExecutor(4) as threads:
        at_once = [section.field.tobytes() for section in threads.map(refined, images)]
    import SimpleITK as sitk  # noqa: N813

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1 if before > 1 else 2)
    alone = [refined(image).field.tobytes() for image in images[:2]]
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert at_once == alone * 2
    assert alone[0] != alone[1]


def test_a_finer_section_has_the_same_field_in_um():
    coarse = sections.draw(sections.constant(3.0, -2.0))
    fine = refine_section(
        coarse.repeat(2, axis=0).repeat(2, axis=1),
        INSIDE.repeat(2, axis=0).repeat(2, axis=1),
        sections.labels().repeat(2, axis=0).repeat(2, axis=1),
        FITTED / 2,
    )
    assert fine.field.shape == (2, 2 * sections.SHAPE[0], 2 * sections.SHAPE[1])
    assert np.median(np.hypot(fine.field[0] + 150.0, fine.field[1] - 100.0)[BRAIN.repeat(2, 0).repeat(2, 1)]) < 15


@pytest.mark.parametrize("resolution", [0.0, 20.0, 100.0, -25.0, float("nan")])
def test_a_resolution_that_does_not_divide_that_of_the_fit_is_refused(resolution):
    with raises(InputError, "not-supported"):
        refine_section(sections.draw(sections.constant(0.0, 0.0)), INSIDE, sections.labels(), resolution)


@pytest.mark.parametrize(
    ("image", "inside", "labels", "code"),
    [
        (np.zeros((4, 5, 3)), np.ones((4, 5), bool), np.ones((4, 5), int), "invalid-array"),
        (np.zeros((4, 5), np.uint8), np.ones((4, 5), bool), np.ones((4, 5), int), "invalid-array"),
        (np.zeros((4, 5, 3), np.uint8), np.ones((4, 5)), np.ones((4, 5), int), "invalid-array"),
        (np.zeros((4, 5, 3), np.uint8), np.ones((4, 5), bool), np.ones((4, 5)), "invalid-array"),
        (np.zeros((4, 5, 3), np.uint8), np.ones((4, 5), bool), np.ones((5, 4), int), "shape-mismatch"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(image, inside, labels, code):
    with raises(InputError, code):
        refine_section(image, inside, labels, UM)


@pytest.mark.parametrize("template", [np.zeros((4, 5)), np.zeros(sections.SHAPE, bool)])
def test_a_template_that_does_not_fit_is_refused(template):
    with raises(InputError, "invalid-array"):
        refined(sections.draw(sections.constant(0.0, 0.0)), template=template)


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with raises(InputError, "missing-dependency"):
        refined(sections.draw(sections.constant(0.0, 0.0)))
