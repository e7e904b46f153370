"""Fields of neighbouring sections agree; what a section shows of itself stays."""

import numpy as np
import pytest
from scipy import ndimage

from atlaszarr.errors import InputError
from atlaszarr.refinement.coherence import WINDOW, coherent
from codes import raises

SHAPE, COUNT = (60, 70), 24
DEPTHS = np.arange(COUNT) * 200.0


def waves(depths):
    """Fields that are smooth in depth, in um: shape (sections, 2, rows, columns)."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] * 100.0
    phase = 2 * np.pi * depths[:, np.newaxis, np.newaxis] / 7000.0
    return 130.0 * np.stack([np.sin(x / 1100.0 + phase), np.cos(y / 1200.0 - phase)], axis=1)


def noise(seed, size=25.0):
    """Smooth errors of a fit, in um."""
    rng = np.random.default_rng(seed)
    found = ndimage.gaussian_filter(rng.standard_normal((COUNT, 2, *SHAPE)), (0, 0, 7, 7))
    return size * found / found.std()


def all_coherent(fields, weights=None):
    weights = np.ones(COUNT) if weights is None else np.asarray(weights)
    found = []
    for index in range(COUNT):
        window = slice(max(index - WINDOW, 0), index + WINDOW + 1)
        found.append(coherent(fields[window], DEPTHS[window], weights[window], index - window.start))
    return np.array(found)


def roughness(fields):
    return np.sqrt((np.diff(fields, 2, axis=0) ** 2).mean())


def rms(fields):
    return np.sqrt((fields**2).mean())


def test_errors_of_single_sections_are_smoothed_and_the_truth_stays():
    truth = waves(DEPTHS)
    fitted = truth + noise(1)
    found = all_coherent(fitted)
    assert roughness(fitted) > 5 * roughness(truth)
    assert roughness(found) < 1.25 * roughness(truth)
    assert rms(found - truth) < 0.5 * rms(fitted - truth)


def test_a_field_that_is_linear_in_depth_is_not_changed():
    slope = waves(DEPTHS)[3]
    fields = slope * (1.0 + DEPTHS / 3000.0).reshape(-1, 1, 1, 1)
    found = all_coherent(fields)
    assert np.abs(found - fields)[8:-8].max() < 0.5
    assert np.abs(found - fields).max() < 3


def test_sections_mounted_each_in_its_way_keep_their_affines():
    rng = np.random.default_rng(2)
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    parts = rng.normal(0.0, 80.0, (3, COUNT, 2, 1, 1))
    truth = waves(DEPTHS) + parts[0] + parts[1] * x + parts[2] * y
    fitted = truth + noise(3)
    found = all_coherent(fitted)
    assert rms(found - truth) < 0.75 * rms(fitted - truth)


def test_an_outlier_is_damped_unless_its_tissue_shows_it():
    truth = waves(DEPTHS)
    fields = truth + noise(4, 15.0)
    fields[7] += np.array([250.0, -150.0])[:, np.newaxis, np.newaxis]
    weights = np.full(COUNT, 0.5)
    kept = all_coherent(fields, weights)
    assert rms(kept[7] - fields[7]) < 20
    weights[7] = 0.2
    damped = all_coherent(fields, weights)
    assert rms(damped[7] - truth[7]) < 0.1 * rms(fields[7] - truth[7])
    # It moves its neighbours less than it would if it counted as much as they do.
    assert rms(damped[6] - truth[6]) < 15


@pytest.mark.parametrize(("worth", "damped"), [(0.2, False), (0.79, False), (0.81, True), (1.0, True)])
def test_a_departure_that_its_tissue_does_not_show_is_damped(worth, damped):
    """Its fit is worth 1: what the others lead to expect of it is worth nearly as much, or clearly less."""
    truth = waves(DEPTHS)
    fields = truth + noise(4, 15.0)
    fields[7] += np.array([250.0, -150.0])[:, np.newaxis, np.newaxis]
    asked = []

    def weigh(field):
        asked.append(field)
        return worth

    found = coherent(fields, DEPTHS, np.ones(COUNT), 7, weigh)
    (other,) = asked
    assert rms(other - truth[7]) < 20
    assert (rms(found - truth[7]) < 20) == damped
    np.testing.assert_array_equal(found, other if damped else coherent(fields, DEPTHS, np.ones(COUNT), 7))
    coherent(fields, DEPTHS, np.ones(COUNT), 3, weigh)
    assert len(asked) == 1  # a section that does not depart is not weighed


@pytest.mark.parametrize("weight", [0.5, 0.2])
def test_a_slightly_larger_departure_changes_the_field_slightly(weight):
    fields = waves(DEPTHS) + noise(4, 15.0)
    weights = np.full(COUNT, 0.5)
    weights[7] = weight
    found = []
    for size in range(0, 400, 5):
        departing = fields.copy()
        departing[7] += size * np.array([0.8, -0.6])[:, np.newaxis, np.newaxis]
        found.append(coherent(departing[: 8 + WINDOW], DEPTHS[: 8 + WINDOW], weights[: 8 + WINDOW], 7))
    steps = np.sqrt((np.diff(found, axis=0) ** 2).sum(axis=1).mean(axis=(1, 2)))
    assert steps.max() < 12


def test_sections_enter_and_leave_the_window_without_a_step():
    depths = np.arange(9 + WINDOW) * 200.0
    fields = waves(depths)
    changed = fields.copy()
    changed[-1] += 60.0
    first, second = (coherent(each, depths, np.ones(len(depths)), 8) for each in (fields, changed))
    assert rms(second - first) < 0.2


def test_a_section_that_keeps_its_registration_is_neither_changed_nor_counted():
    fields = waves(DEPTHS)
    weights = np.ones(COUNT)
    weights[5] = 0.0
    first = all_coherent(fields, weights)
    np.testing.assert_array_equal(first[5], fields[5])
    other = fields.copy()
    other[5] = 1e6
    second = all_coherent(other, weights)
    np.testing.assert_array_equal(np.delete(first, 5, axis=0), np.delete(second, 5, axis=0))


def test_a_section_alone_is_not_changed():
    field = waves(DEPTHS[:1])
    np.testing.assert_array_equal(coherent(field, [0.0], [1.0], 0), field[0])


def test_sections_at_one_depth_have_their_mean_and_sides_do_not_matter():
    fields = waves(DEPTHS[:5]) + noise(6)[:5]
    found = coherent(fields, np.zeros(5), np.ones(5), 2)
    assert np.isfinite(found).all()
    order = coherent(fields[::-1], -DEPTHS[:5][::-1], np.ones(5), 2)
    np.testing.assert_allclose(order, coherent(fields, DEPTHS[:5], np.ones(5), 2))


@pytest.mark.parametrize(
    ("fields", "depths", "weights"),
    [
        (np.zeros((3, 2, 4)), np.zeros(3), np.ones(3)),
        (np.zeros((3, 3, 4, 4)), np.zeros(3), np.ones(3)),
        (np.zeros((3, 2, 4, 4)), np.zeros(4), np.ones(3)),
        (np.zeros((3, 2, 4, 4)), np.zeros(3), np.ones(2)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(fields, depths, weights):
    with raises(InputError, "shape-mismatch"):
        coherent(fields, depths, weights, 0)
