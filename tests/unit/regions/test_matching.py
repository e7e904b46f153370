"""Which level of an annotation a volume or a grid of points is measured on."""

import numpy as np
import pytest

from atlaszarr import Grid
from atlaszarr.dataset_build.records import geometry
from atlaszarr.engine.ome import Geometry, geometry_of_level
from atlaszarr.engine.pyramid import Pyramid
from atlaszarr.errors import InputError
from atlaszarr.geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION, reference_space
from atlaszarr.regions.matching import match
from atlaszarr.regions.measured_volume import MeasuredVolume
from codes import raises

SPACE = reference_space(9)


def levels(resolution, count, sides=ORIENTATION["x"], factors=()):
    """Geometry and shape of the levels over the CCF."""
    grid = Grid(SPACE, resolution)
    pyramid = Pyramid.over(grid.shape, 64, count, factors)
    finest = geometry(grid, sides)
    return [(geometry_of_level(finest, pyramid, level), at.shape) for level, at in enumerate(pyramid.levels)]


def volume(of, is_grid=False):
    geometries, shapes = zip(*of, strict=True)
    return MeasuredVolume("v.ome.zarr", 1, ("grey",), geometries, shapes, (), is_grid)


def points(orientation=ORIENTATION):
    return volume([(Geometry((0.2,) * 3, (-0.005,) * 3, "millimeter", orientation), (67, 41, 58))], is_grid=True)


@pytest.mark.parametrize(
    ("mine", "its", "expected"),
    [
        (levels(25, 4), levels(25, 4), (0, 0)),
        (levels(100, 2), levels(25, 4), (0, 2)),
        (levels(25, 4), levels(100, 1), (2, 0)),
        (levels(10, 3, factors=[2.5]), levels(25, 3), (1, 0)),
        (levels(25, 3), levels(10, 3, factors=[2.5]), (0, 1)),
        (levels(50, 2), levels(25, 2, BRAINGLOBE_SIDES), (0, 1)),
    ],
)
def test_the_finest_level_that_fits_is_measured(mine, its, expected):
    found = match(volume(mine), its, "the annotation")
    assert (found.volume_level, found.annotation_level) == expected
    assert (found.order, found.flipped, found.samples) == ((0, 1, 2), (False, False, False), None)


@pytest.mark.parametrize(("mine", "its"), [(levels(10, 4), levels(25, 3)), (levels(30, 3), levels(25, 3))])
def test_levels_without_a_common_size_are_refused(mine, its):
    with raises(InputError, "no-matching-level") as caught:
        match(volume(mine), its, "the annotation")
    assert "25 um, 50 um, 100 um; build" in str(caught.value)


@pytest.mark.parametrize(
    ("its", "level", "step"),
    [
        (levels(25, 4), 0, 8),
        (levels(10, 3, factors=[2.5]), 1, 8),
        (levels(50, 2), 0, 4),
        (levels(25, 3, BRAINGLOBE_SIDES), 0, 8),
    ],
)
def test_a_grid_of_points_takes_every_nth_label_of_a_fine_level(its, level, step):
    found = match(points(), its, "the annotation")
    assert (found.volume_level, found.annotation_level) == (0, level)
    for axis, count, voxels in zip(found.samples, (67, 41, 58), its[level][1], strict=True):
        wanted = np.arange(count) * step
        assert axis.tolist() == [n if n < voxels else -1 for n in wanted]


def test_a_grid_of_points_is_refused_on_coarser_voxels_or_the_other_way_round():
    with raises(InputError, "no-matching-level"):
        match(points(), levels(400, 1), "the annotation")
    reversed_p = {**ORIENTATION, "z": "posterior-to-anterior"}
    with raises(InputError, "orientations-differ"):
        match(points(reversed_p), levels(25, 3), "the annotation")


def test_right_to_left_is_another_direction_outside_the_ccf():
    half = [(Geometry((0.1,) * 3, orientation=ORIENTATION), (20, 20, 20))]
    other = [(Geometry((0.1,) * 3, orientation={**ORIENTATION, "x": BRAINGLOBE_SIDES}), (20, 20, 20))]
    assert match(volume(half), other, "the annotation").flipped == (False, False, True)
