"""Templates of other dtypes and at other levels than the annotation's, for BrainGlobe: converted, or refused."""

from contextlib import ExitStack

import numpy as np
import pytest

from atlaszarr.atlas.images import template_image
from atlaszarr.atlas.levels import corner_of, levels_of
from atlaszarr.atlas.template_levels import as_uint16, template_levels
from atlaszarr.credit import CCF
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.schedulers import Threads
from atlaszarr.engine.writer import write
from atlaszarr.errors import InputError
from atlaszarr.geometry.spaces import BRAINGLOBE_SIDES
from atlaszarr.reference_volumes import open_annotation, open_template
from atlaszarr.stores.target import Target
from codes import raises
from tiny_atlas import labels, save

SHAPE = (40, 32, 36)
UM = 25


@pytest.fixture
def opened(tmp_path):
    """Opens files of labels or intensities (values, um) until the test ends."""
    with ExitStack() as stack:

        def opening(open_volume, *volumes):
            found = []
            for number, (values, um) in enumerate(volumes):
                path = save(tmp_path / f"{open_volume.__name__}-{number}.nrrd", values, um)
                found.append(stack.enter_context(open_volume(path, tmp_path)))
            return found

        yield opening


def laid_out(opened, *template, annotation=None):
    """The levels of the annotation, and of the template with these volumes."""
    annotations = opened(open_annotation, annotation or (labels(SHAPE), UM))
    volumes = opened(open_template, *template)
    corner = corner_of(annotations, volumes)
    layout = levels_of(annotations, corner, None, None, BRAINGLOBE_SIDES)
    return layout, template_levels(volumes, layout, corner, None, None, BRAINGLOBE_SIDES)


def written(levels, folder):
    job = template_image(levels, Target.of(folder / "template.ome.zarr"), "0.5", CCF)
    with Threads(2) as scheduler:
        write(job, scheduler)
    return Finished.at(Target.of(folder / "template.ome.zarr"))


def noise(shape=SHAPE, dtype="uint16", most=4000):
    return np.random.default_rng(0).integers(0, most, shape).astype(dtype)


def read(image, resolution):
    """All voxels of the level with a voxel size in um."""
    level = image.resolutions.index((float(resolution),) * 3)
    return image.read(level, tuple(slice(0, n) for n in image.multiscale.pyramid.levels[level].shape))


@pytest.mark.first(4)
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "u4", "i8", "f4", "f8"])
def test_a_template_whose_values_fit_is_converted_exactly_with_a_remark(opened, tmp_path, dtype):
    values = noise(dtype=dtype, most=200 if dtype == "u1" else 4000)
    (volume,), (remark,) = as_uint16(opened(open_template, (values, UM)))
    assert str(np.dtype(dtype)) in remark
    annotations = opened(open_annotation, (labels(SHAPE), UM))
    corner = corner_of(annotations, [volume])
    levels = template_levels(
        [volume], levels_of(annotations, corner, None, None, BRAINGLOBE_SIDES), corner, None, None, BRAINGLOBE_SIDES
    )
    found = read(written(levels, tmp_path), UM)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, values)


def test_a_template_of_uint16_is_kept_without_a_remark(opened):
    volumes = opened(open_template, (noise(), UM))
    converted, remarks = as_uint16(volumes)
    assert converted == volumes
    assert remarks == []


@pytest.mark.parametrize(
    ("dtype", "value", "named"),
    [
        ("f4", 0.375, "0.375"),
        ("f8", np.nan, "nan"),
        ("f4", np.inf, "inf"),
        ("i2", -1, "-1"),
        ("i4", 65_536, "65536"),
        ("u4", 3_000_000, "3000000"),
    ],
)
def test_a_value_that_uint16_lacks_is_named_with_the_file(opened, dtype, value, named):
    values = noise(dtype=dtype)
    values[-1, -1, -1] = value
    with raises(InputError, "unsupported-dtype") as caught:
        as_uint16(opened(open_template, (values, UM)))
    assert f"the value {named}," in str(caught.value)
    assert "open_template-0.nrrd" in str(caught.value)


def mean_of(values, factor):
    """The mean of whole blocks, rounded half to even."""
    z, y, x = (n // factor for n in values.shape)
    return np.rint(values.reshape(z, factor, y, factor, x, factor).mean(axis=(1, 3, 5))).astype(values.dtype)


@pytest.mark.parametrize(
    ("um", "annotation_um", "levels"),
    [
        (25, 25, [25, 50, 100]),
        (10, 25, [10, 25, 50, 100]),
        (12.5, 25, [12.5, 25, 50, 100]),
        (5, 25, [5, 25, 50, 100]),
        (20, 25, [20, 25, 50, 100]),
        (50 / 3, 25, [50 / 3, 25, 50, 100]),
        (10, 20, [10, 20]),
    ],
)
def test_a_template_of_finer_voxels_has_every_level_of_the_annotation(opened, tmp_path, um, annotation_um, levels):
    shape = tuple(round(n * annotation_um / um) for n in SHAPE)
    values = noise(shape)
    annotation, template = laid_out(opened, (values, um), annotation=(labels(SHAPE), annotation_um))
    image = written(template, tmp_path)
    assert [round(size[0], 3) for size in image.resolutions] == [round(size, 3) for size in levels]
    for level, at in enumerate(annotation.pyramid.levels):
        own = next(i for i, size in enumerate(image.resolutions) if size[0] == annotation_um * 2**level)
        assert image.multiscale.pyramid.levels[own].shape == at.shape
    if annotation_um / um in (1, 2, 5):
        found = read(image, annotation_um)
        np.testing.assert_array_equal(found, mean_of(values, round(annotation_um / um)))


def test_a_template_at_other_levels_is_the_mean_of_the_voxels_that_overlap(opened, tmp_path):
    values = noise((50, 40, 45))
    _, template = laid_out(opened, (values, 20))
    found = read(written(template, tmp_path), 25)
    expected = values.astype(float)
    for axis in range(3):  # 4 voxels of 25 um overlap with 5 of 20 um
        shares = np.array([[20, 5, 0, 0, 0], [0, 15, 10, 0, 0], [0, 0, 10, 15, 0], [0, 0, 0, 5, 20]]) / 25
        parts = np.moveaxis(expected, axis, 0)
        parts = parts.reshape(-1, 5, *parts.shape[1:])
        parts = np.einsum("ij,gj...->gi...", shares, parts)
        expected = np.moveaxis(parts.reshape(-1, *parts.shape[2:]), 0, axis)
    np.testing.assert_allclose(found, expected, atol=0.5 + 1e-9)


def test_volumes_at_the_levels_of_the_annotation_replace_those_that_are_made(opened, tmp_path):
    fine, coarse = noise((50, 40, 45)), noise((20, 16, 18))
    _, template = laid_out(opened, (fine, 20), (coarse, 50))
    np.testing.assert_array_equal(read(written(template, tmp_path), 50), coarse)


def test_a_template_that_is_coarser_than_the_annotation_is_refused_with_both_sizes(opened):
    with raises(InputError, "resolution-mismatch") as caught:
        laid_out(opened, (noise((20, 16, 18)), 50))
    assert "50 um" in str(caught.value)
    assert "25 um" in str(caught.value)


def test_a_ratio_whose_blocks_do_not_fit_into_memory_is_refused(opened):
    with raises(InputError, "resolution-mismatch") as caught:
        laid_out(opened, (noise(tuple(round(n * 25 / 24.999) for n in SHAPE)), 24.999))
    assert "24.999 um" in str(caught.value)


def test_a_template_that_has_the_levels_of_the_annotation_keeps_its_usual_ones(opened):
    annotation = opened(open_annotation, (labels(SHAPE), UM))
    corner = corner_of(annotation, ())
    layout = levels_of(annotation, corner, None, None, BRAINGLOBE_SIDES)
    again = template_levels(annotation, layout, corner, None, None, BRAINGLOBE_SIDES)
    assert again.pyramid == layout.pyramid
