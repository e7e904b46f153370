"""The kernels of a stack over long rows of voxels, against the same arithmetic in NumPy, bit for bit."""

import numpy as np
import pytest

from atlaszarr.sections import stack_kernels
from atlaszarr.sections.stack import depth_intervals
from atlaszarr.sections.stack_kernels import StackGeometry

#: Longer than a row is computed at once, and by no multiple of it.
LENGTH = 601
#: Steps of depth along (z, y, x), in um: across a row, along it, against it, and so that few or no voxels are inside.
STEPS = {
    "across": (25.0, 0.0, 0.0),
    "tilted": (25.0, 0.3, 0.01),
    "along": (0.3, -0.2, 10.0),
    "against": (0.3, -0.2, -10.0),
    "exact": (0.0, 0.0, 12.5),
    "wide": (1.0, 0.0, 450.0),
    "narrow": (0.0, 1.0, 1e-9),
}


def stack(step, fill="nearest", seed=0, with_field=False):
    rng = np.random.default_rng(seed)
    start, shape = np.array([3, 40, 17]), (4, 5, LENGTH)
    depths = [100.0 * k for k in (0, 1, 2, 3, 5, 9, 10, 30, 31, 32, 60)]
    depth_row = np.array([*step, 0.0])
    depth_row[3] = 310.0 - depth_row[:3] @ (start + np.array(shape) // 2)
    edges, nearest, neighbour = depth_intervals(depths, 25.0, 100.0, fill)
    n = len(depths)
    sizes = rng.integers(60, 400, (n, 2))
    sizes[4] = 0
    affines = np.zeros((n, 2, 4))
    affines[:, 0, 2], affines[:, 1, 1] = 0.5, -1.25
    affines[:, :, :3] += rng.normal(0, 0.02, (n, 2, 3))
    affines[:, 0, 3], affines[:, 1, 3] = rng.uniform(-150, 20, n), rng.uniform(60, 90, n)
    field_of, fields = np.full(n, -1, np.int32), np.empty((0, 2, 1, 1, 1))
    if with_field:
        field_of[[2, 3]] = [0, 1]
        fields = rng.uniform(-5, 300, (2, 2, 4, 1, LENGTH))
        fields[rng.random(fields.shape) < 0.1] = np.nan
        affines[[2, 3], :, 1:] = 0.0  # what the tilt of an alignment adds across the plane
    geometry = StackGeometry(depth_row, edges, nearest, neighbour, sizes, affines, field_of, fields)
    return geometry, start, shape, np.array(depths)


def expected(geometry, start, shape, section_of):
    """Section and point of each voxel."""
    z, y, x = (index + float(offset) for index, offset in zip(np.indices(shape), start, strict=True))
    row = geometry.depth_row
    depth = (row[0] * z + row[1] * y + row[3]) + row[2] * x
    at = np.searchsorted(geometry.edges, depth, side="right") - 1
    section = np.append(section_of, -1)[np.where((at >= 0) & (at < len(section_of)), at, -1)]
    a = geometry.affines[section]
    points = np.stack([(a[..., k, 0] * z + a[..., k, 1] * y + a[..., k, 3]) + a[..., k, 2] * x for k in range(2)])
    for s in np.flatnonzero(geometry.field_of >= 0):
        field = np.broadcast_to(geometry.fields[geometry.field_of[s]], (2, *shape))
        points = np.where(section == s, field + points, points)
    size = geometry.sizes[section]
    inside = (
        (section >= 0) & (points >= -0.5).all(0) & (points[0] < size[..., 0] - 0.5) & (points[1] < size[..., 1] - 0.5)
    )
    return np.where(inside, section, -1), np.where(inside, points, np.nan), depth


@pytest.mark.parametrize("with_field", [False, True], ids=["affines", "fields"])
@pytest.mark.parametrize("fill", ["none", "nearest", "linear"])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_the_field_of_long_rows_is_that_of_each_voxel(step, fill, with_field):
    geometry, start, shape, _ = stack(step, fill, with_field=with_field)
    section, out = np.empty(shape, np.int32), np.empty((2, *shape))
    stack_kernels.field(start, geometry, section, out)
    sections, points, _ = expected(geometry, start, shape, geometry.nearest)
    np.testing.assert_array_equal(section, sections)
    np.testing.assert_array_equal(out, points)


def test_voxels_without_a_depth_have_no_section():
    geometry, start, shape, _ = stack(STEPS["along"])
    for bad in (np.nan, np.inf, -np.inf):
        depth_row = np.array([0.0, 0.0, 10.0, bad])
        section, out = np.zeros(shape, np.int32), np.zeros((2, *shape))
        stack_kernels.field(start, geometry._replace(depth_row=depth_row), section, out)
        assert (section == -1).all()
        assert np.isnan(out).all()


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_blended_long_rows_are_those_of_each_voxel(step):
    geometry, start, shape, depths = stack(step, "linear")
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (height, width, 3), np.uint8) for width, height in geometry.sizes]
    image, label = np.full((3, *shape), 7, np.uint8), np.zeros(shape, np.uint32)
    pull_back(geometry, start, depths, pictures, image, label)

    sections, points, depth = expected(geometry, start, shape, geometry.nearest)
    others, other_points, _ = expected(geometry, start, shape, geometry.neighbour)
    values, blended = nearest(pictures, sections, points), nearest(pictures, others, other_points)
    both = (sections >= 0) & (others >= 0)
    s, t = sections[both], others[both]
    share = ((depth[both] - depths[s]) / (depths[t] - depths[s])).astype("f4")
    values[:, both] += share * (blended - values)[:, both]
    filled = sections >= 0
    assert filled.any()
    np.testing.assert_array_equal(image, np.where(filled, (values + np.float32(0.5)).astype("u1"), 7))
    np.testing.assert_array_equal(label, np.where(filled, sections + 100, 0))


def pull_back(geometry, start, depths, pictures, image, label, support=1):
    sizes = geometry.sizes
    offsets = np.cumsum([0, *(width * height for width, height in sizes)])[:-1]
    crops = np.array([[offset, 0, 0, *size] for offset, size in zip(offsets, sizes, strict=True)])
    flat = np.concatenate([picture.reshape(-1, 3) for picture in pictures])
    ids = np.arange(len(depths), dtype=np.uint32) + 100
    stack_kernels.pull_back(start, geometry, depths, ids, flat, crops, support, image, label)


def nearest(pictures, sections, points):
    """The nearest pixels: float32, shape (3, z, y, x)."""
    values = np.zeros((3, *sections.shape), np.float32)
    for s, picture in enumerate(pictures):
        x, y = np.rint(points[:, sections == s]).astype(int)
        values[:, sections == s] = picture[y, x].T
    return values


@pytest.mark.parametrize("support", [1, 2, 4, 8])
def test_a_point_beyond_a_crop_takes_its_outermost_pixel(support):
    """Whatever rounding does to huge affines, no pixel outside the crops is read."""
    geometry, start, shape, depths = stack(STEPS["along"], "nearest")
    rng = np.random.default_rng(2)
    flat = rng.integers(0, 256, (len(depths), 3), np.uint8)
    crops = np.array([[s, 10, 10, 11, 11] for s in range(len(depths))])
    image, label = np.zeros((3, *shape), np.uint8), np.zeros(shape, np.uint32)
    ids = np.arange(len(depths), dtype=np.uint32) + 1
    stack_kernels.pull_back(start, geometry, depths, ids, flat, crops, support, image, label)
    filled = label > 0
    assert filled.any()
    np.testing.assert_array_equal(image[:, filled], flat[label[filled] - 1].T)


@pytest.mark.parametrize("fill", ["none", "nearest", "linear"])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_the_sections_that_long_rows_sample_are_found(step, fill):
    geometry, start, shape, depths = stack(step, fill)
    sections, _, _ = expected(geometry, start, shape, geometry.nearest)
    others, _, _ = expected(geometry, start, shape, geometry.neighbour)
    found = {*sections.ravel().tolist(), *others[sections >= 0].ravel().tolist()} - {-1}
    candidate, sampled = np.ones(len(depths), bool), np.zeros(len(depths), bool)
    stack_kernels.find_sampled(start, np.array(shape), geometry, candidate, sampled)
    assert set(np.flatnonzero(sampled).tolist()) == found
    np.testing.assert_array_equal(candidate, ~sampled)


@pytest.mark.parametrize("fill", ["nearest", "linear"])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_the_sections_of_all_chunks_are_those_of_each_chunk(step, fill):
    geometry, _, _, depths = stack(step, fill, seed=3)
    grid, side = np.array([9, 50, 70]), 16
    for slab in range(-(-9 // side)):
        sampled = np.zeros((4, 5, len(depths)), bool)
        stack_kernels.find_sampled_chunks(slab, side, grid, geometry, 1, sampled)
        for j, k in np.ndindex(4, 5):
            start = np.array([slab, j, k]) * side
            candidate, alone = np.ones(len(depths), bool), np.zeros(len(depths), bool)
            stack_kernels.find_sampled(start, np.minimum(grid - start, side), geometry, candidate, alone)
            np.testing.assert_array_equal(sampled[j, k], alone)
