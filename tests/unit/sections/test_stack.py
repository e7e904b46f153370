"""Stacks of random sections against a NumPy oracle, one voxel at a time.

A user-supplied displacement field of a section replaces its alignment within the plane and nothing else.
"""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaszarr import Displacement
from atlaszarr.allen.records import SectionDataset
from atlaszarr.boxes import blocks
from atlaszarr.displacement.fields import ArrayField
from atlaszarr.errors import InputError, RecordError
from atlaszarr.sections.fields import OwnFields, fields_of
from atlaszarr.sections.options import SectionsOptions, VolumeOptions
from codes import raises

RESOLUTION = 400.0
NUMBERS = range(4, 500, 40)
INTERPOLATIONS = ["nearest", "linear", "cubic", "lanczos"]
#: (x um, y um, depth um) of a section to (p, i, r) um, by plane_of_section_id.
AXES = {
    1: [[0, 0, -1], [0, 1, 0], [1, 0, 0]],
    2: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    6: [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
}
#: Axes of the grid along the rows and columns of a plane of section, and across it.
PLANES = {1: (1, 2, 0), 2: (1, 0, 2), 6: (0, 2, 1)}


class TiltedFields(OwnFields):
    """Fields that follow the tilt of the alignment across the plane, as refined ones do."""

    follows_tilt = True


def stacked(dataset, fields=None, **options):
    """The stack of a volume with these options."""
    return VolumeOptions(**{"resolution": RESOLUTION, **options}).stack(dataset, fields_of(fields))


def inverse(affine):
    linear = np.linalg.inv(affine[:, :-1])
    return np.hstack([linear, -linear @ affine[:, -1:]])


def random_dataset(seed, numbers, space=9, plane=1, tilt=0.1):
    """A dataset of small sections with random sizes and alignments, tilted against the grid."""
    rng = np.random.default_rng(seed)
    axes = np.array(AXES[plane], float) + rng.uniform(-tilt, tilt, (3, 3))
    tvr = np.hstack([axes, [[13000.0 if plane == 1 else 0.0], [0.0], [0.0]]])
    trv = inverse(tvr)
    images = []
    for number in numbers:
        angle = rng.uniform(-0.1, 0.1)
        linear = 16 * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        tsv = np.hstack([linear, rng.uniform(-500, 1500, (2, 1))])
        tvs = inverse(tsv)
        order = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2))
        alignment = {
            f"{name}_0{k}": float(m[i, j]) for name, m in (("tsv", tsv), ("tvs", tvs)) for k, (i, j) in enumerate(order)
        }
        images.append(
            {
                "id": 100 + number,
                "section_number": number,
                "width": int(rng.integers(300, 700)),
                "height": int(rng.integers(200, 500)),
                "resolution": 16.0,
                "expression_path": None,
                "alignment2d": alignment,
            }
        )
    flat = lambda m: [*m[:, :3].ravel(), *m[:, 3]]  # noqa: E731
    alignment3d = {
        f"{name}_{k:02d}": float(v) for name, m in (("tvr", tvr), ("trv", trv)) for k, v in enumerate(flat(m))
    }
    record = {
        "id": 1,
        "plane_of_section_id": plane,
        "reference_space_id": space,
        "section_thickness": 25.0,
        "specimen_id": None,
        "alignment3d": alignment3d,
    }
    return SectionDataset.from_json(record, images)


def everywhere(stack):
    return tuple(slice(0, n) for n in stack.grid.shape)


def plane_shape(stack, plane):
    rows, columns, _ = PLANES[plane]
    return stack.grid.shape[rows], stack.grid.shape[columns]


def pictures(stack, seed):
    rng = np.random.default_rng(seed)
    return {s: rng.integers(0, 256, (r.height, r.width, 3), np.uint8) for s, r in enumerate(stack.requests)}


def of(images):
    """A function that crops such images."""

    def crop(section, box):
        left, top, right, bottom = box
        return images[section][top:bottom, left:right] if section in images else None

    return crop


def random_field(rng, stack, plane):
    """A field over the plane of a grid whose points lie inside and outside an image of up to 700 x 500 pixels."""
    shape = plane_shape(stack, plane)
    down, across = np.indices(shape)
    x = rng.uniform(-20, 50) + rng.uniform(2, 20) * across + rng.uniform(-3, 3, shape)
    y = rng.uniform(-20, 50) + rng.uniform(2, 20) * down + rng.uniform(-3, 3, shape)
    x[rng.random(shape) < 0.1] = np.nan
    return x, y


def weight(distance, interpolation):
    d = np.abs(distance)
    if interpolation == "linear":
        return np.maximum(1 - d, 0)
    if interpolation == "lanczos":
        return np.where(d < 4, np.sinc(d) * np.sinc(d / 4), 0)
    a = -0.75
    near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def sampled(picture, x, y, interpolation):
    height, width = picture.shape[:2]
    if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
        return None
    if interpolation == "nearest":
        return picture[round(y), round(x)].astype(float)
    columns, rows = (np.arange(int(np.floor(at)) - 3, int(np.floor(at)) + 5) for at in (x, y))
    across, down = weight(x - columns, interpolation), weight(y - rows, interpolation)
    pixels = picture[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)]
    return np.clip(np.einsum("i,j,ijc->c", down / down.sum(), across / across.sum(), pixels), 0, 255)


def pulled_back(dataset, stack, images, index, fill, interpolation, flipped, fields):
    """Image and section of one voxel, from records and fields alone; the image is None for background."""
    p, i, r = (np.array(index) + 0.5) * RESOLUTION
    trv = np.array(dataset.trv)
    x_um, y_um, depth = trv[:, :3] @ [p, i, 11400 - r if flipped else r] + trv[:, 3]
    depths = [section.depth for section in dataset.sections]
    nominal = dataset.nominal_interval
    s = min(range(len(depths)), key=lambda s: (abs(depth - depths[s]), -s))
    neighbour = s + (1 if depth >= depths[s] else -1)
    gap = abs(depths[neighbour] - depths[s]) if 0 <= neighbour < len(depths) else np.inf
    reach, join = (12.5, 25.0) if fill == "none" else (nominal / 2, 2.5 * nominal)
    if gap > join and not -reach <= depth - depths[s] < reach:
        return None, 0

    def value(s):
        if s not in images:
            return None
        section, tvs = dataset.sections[s], np.array(dataset.sections[s].tvs)
        xy = tvs[:, :2] @ [x_um, y_um] + tvs[:, 2]
        x, y = (xy + 0.5) / 2 ** stack.requests[s].downsample - 0.5
        if section.image_id in fields:
            x, y = fields[section.image_id]
        assert section.image_id == stack.ids[s]
        return sampled(images[s], x, y, interpolation)

    own = value(s)
    if own is None:
        return None, 0
    if fill == "linear" and gap <= join and (other := value(neighbour)) is not None:
        share = (depth - depths[s]) / (depths[neighbour] - depths[s])
        own = own + share * (other - own)
    return own, int(stack.ids[s])


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 500), min_size=1, max_size=9, unique=True),
    st.sampled_from(["none", "nearest", "linear"]),
    st.sampled_from(INTERPOLATIONS),
    st.sampled_from([(9, False), (10, False), (9, True)]),
    st.booleans(),
    st.sampled_from([1, 2, 6]),
    st.sampled_from([0, 1, 2]),
)
def test_a_volume_equals_the_rule_voxel_by_voxel(
    seed, numbers, fill, interpolation, spaces, with_a_hole, plane, with_a_field
):
    native, mirror = spaces
    dataset = random_dataset(seed, numbers, native, plane)
    options = {"fill": fill, "interpolation": interpolation, "mirror": mirror, "downsample": seed % 3}
    stack = stacked(dataset, **options)
    rng = np.random.default_rng(seed)
    fields = {int(id): random_field(rng, stack, plane) for id in (stack.ids[::with_a_field] if with_a_field else ())}
    own = {id: Displacement.from_coordinates(*xy) for id, xy in fields.items()}
    stack = stacked(dataset, fields=own, **options)
    images = pictures(stack, seed)
    if with_a_hole:
        del images[seed % len(images)]
    image, section = stack.pull_back(everywhere(stack), of(images), background=9)
    rows, columns, _ = PLANES[plane]
    for index in rng.integers(0, stack.grid.shape, (400, 3)):
        here = {id: (x[index[rows], index[columns]], y[index[rows], index[columns]]) for id, (x, y) in fields.items()}
        own, id = pulled_back(dataset, stack, images, index, fill, interpolation, mirror, here)
        assert section[tuple(index)] == id
        pixel_values = image[(slice(None), *index)].astype(float)
        if own is None:
            assert set(pixel_values) == {9.0}
        else:
            # Half a grey level for rounding, and the precision of float32 weights times 255.
            np.testing.assert_allclose(pixel_values, own, rtol=0, atol=0.5 + 1e-3)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(3, 20),
    st.sampled_from(["none", "nearest", "linear"]),
    st.sampled_from(INTERPOLATIONS),
    st.sampled_from([1, 2, 6]),
    st.sampled_from([None, OwnFields, TiltedFields]),
)
def test_blocks_of_any_size_have_the_same_bytes_and_need_only_the_sections_they_sample(
    seed, size, fill, interpolation, plane, kind
):
    options = {"fill": fill, "interpolation": interpolation, "downsample": 0}
    dataset = random_dataset(seed, NUMBERS, plane=plane)
    stack = stacked(dataset, **options)
    if kind is not None:
        rng = np.random.default_rng(seed)
        fields = {int(id): Displacement.from_coordinates(*random_field(rng, stack, plane)) for id in stack.ids[::2]}
        stack = stacked(dataset, fields=kind(fields), **options)
    images = pictures(stack, seed)
    whole = stack.pull_back(everywhere(stack), of(images))
    field = stack.displacement(everywhere(stack))
    by_chunk = stack.sections_by_chunk(size)
    for index, region in blocks(stack.grid.shape, size):
        needed = stack.sampled(region)
        assert by_chunk.get(index, ()) == needed
        image, section = stack.pull_back(region, of({s: images[s] for s in needed}))
        np.testing.assert_array_equal(image, whole[0][(slice(None), *region)])
        np.testing.assert_array_equal(section, whole[1][region])
        np.testing.assert_array_equal(stack.displacement(region), field[(slice(None), *region)])
        seen = set(section[section > 0].tolist())
        assert seen <= {int(stack.ids[s]) for s in needed}
        if fill != "linear":  # a blended neighbour is sampled, too
            assert seen == {int(stack.ids[s]) for s in needed}


def test_the_displacement_field_maps_a_voxel_to_the_full_resolution_image():
    dataset = random_dataset(3, NUMBERS)
    stack = stacked(dataset, downsample=2)
    field = stack.displacement(everywhere(stack))
    _, section = stack.pull_back(everywhere(stack), of(pictures(stack, 0)))
    np.testing.assert_array_equal(np.isnan(field[0]), section == 0)
    trv = np.array(dataset.trv)
    by_id = {s.image_id: np.array(s.tvs) for s in dataset.sections}
    for index in np.argwhere(section)[::97]:
        plane = trv[:, :3] @ ((index + 0.5) * RESOLUTION) + trv[:, 3]
        tvs = by_id[int(section[tuple(index)])]
        np.testing.assert_allclose(field[(slice(None), *index)], tvs[:, :2] @ plane[:2] + tvs[:, 2], atol=1e-6)


def test_a_tier_is_the_coarsest_whose_pixel_is_not_larger_than_a_voxel():
    dataset = random_dataset(1, [10, 20])
    tiers = [{r.downsample for r in stacked(dataset, resolution=um).requests} for um in (10.0, 16.0, 31.0, 32.0, 400.0)]
    assert tiers[:4] == [{0}, {0}, {0}, {1}]
    assert tiers[4] == {s.tier_count - 1 for s in dataset.sections}


@pytest.mark.parametrize(
    "wrong",
    [
        {"fill": "cubic"},
        {"interpolation": "lanczos4"},
        {"max_gap": 0.5},
        {"view": "nissl"},
        {"downsample": -1},
        {"downsample": 14},
        {"quality": 101},
        {"range": (0, 1, 2)},
        {"range": (0, 5000, 0, 1, 0, 1)},
    ],
)
def test_a_wrong_option_is_refused_by_name_and_value(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(InputError) as caught:
        stacked(random_dataset(1, [10, 20]), **wrong)
    assert f"{name} " in str(caught.value)
    assert str(value).strip("()") in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"fill": "cubic"}, "unknown-value"),
        ({"interpolation": "lanczos4"}, "unknown-value"),
        ({"interpolation": "area"}, "not-supported"),
        ({"max_gap": 0.5}, "out-of-range"),
        ({"chunk": 4}, "out-of-range"),
        ({"background": -1}, "out-of-range"),
        ({"resolution": 0.0}, "out-of-range"),
        ({"shard": 128, "ome_zarr": "0.4"}, "not-supported"),
    ],
)
def test_a_wrong_option_of_a_volume_has_a_code(wrong, code):
    with raises(InputError, code):
        stacked(random_dataset(1, [10, 20]), **wrong)


def test_more_chunks_than_a_million_are_refused():
    with raises(InputError, "too-many-chunks"):
        stacked(random_dataset(1, [10, 20]), resolution=10.0).sections_by_chunk(8)


def test_a_dataset_without_expression_images_has_no_expression_view():
    with pytest.raises(RecordError, match="expression"):
        stacked(random_dataset(1, [10, 20]), view="expression")


@pytest.mark.parametrize("plane", [1, 2, 6])
def test_without_tilt_the_field_of_the_alignment_gives_the_same_volume(plane):
    dataset = random_dataset(5, NUMBERS, plane=plane, tilt=0.0)
    aligned = stacked(dataset, interpolation="cubic")
    rows, columns, fixed = PLANES[plane]
    assert not aligned.affines[:, :, fixed].any()
    fields = {
        int(id): Displacement.from_affine(plane_shape(aligned, plane), affine[:, [columns, rows, 3]])
        for id, affine in zip(aligned.ids, aligned.affines, strict=True)
    }
    own = stacked(dataset, interpolation="cubic", fields=fields)
    region, images = everywhere(own), pictures(own, 5)
    np.testing.assert_allclose(own.displacement(region), aligned.displacement(region), rtol=0, atol=1e-6)
    (image, section), (expected, by) = own.pull_back(region, of(images)), aligned.pull_back(region, of(images))
    np.testing.assert_array_equal(section, by)
    assert section.any()
    assert np.abs(image.astype(int) - expected).max() <= 1
    assert (image == expected).mean() > 0.9999


@pytest.mark.parametrize("plane", [1, 2, 6])
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "lanczos"])
def test_a_field_that_shifts_by_whole_pixels_copies_the_shifted_pixels(plane, interpolation):
    dataset = random_dataset(6, NUMBERS, plane=plane)
    shape = plane_shape(stacked(dataset), plane)
    shifted = Displacement.from_affine(shape, [[1, 0, 7], [0, 1, 3]])
    fields = {section.image_id: shifted for section in dataset.sections}
    stack = stacked(dataset, fill="nearest", interpolation=interpolation, downsample=1, fields=fields)
    images = pictures(stack, 6)
    image, section = stack.pull_back(everywhere(stack), of(images))
    by_id = {int(id): images[s] for s, id in enumerate(stack.ids)}
    rows, columns, _ = PLANES[plane]
    filled = np.argwhere(section)
    assert len(filled) > 1000
    for index in filled[::53]:
        pixel = by_id[int(section[tuple(index)])][index[rows] + 3, index[columns] + 7]
        np.testing.assert_array_equal(image[(slice(None), *index)], pixel)


def test_volumes_and_planes_take_the_even_one_of_two_equally_near_pixels():
    dataset = random_dataset(5, NUMBERS, tilt=0)
    options = {"downsample": 0, "interpolation": "nearest", "resolution": RESOLUTION}
    shape = plane_shape(stacked(dataset, **options), 1)
    fields = {
        section.image_id: Displacement.from_affine(shape, [[0.5, 0, -0.5], [0, 0.5, -0.5]])
        for section in dataset.sections
    }
    stack = stacked(dataset, fields, **options)
    planes = SectionsOptions(**options).planes(dataset, fields=fields_of(fields))
    images = pictures(stack, 5)
    volume, section = stack.pull_back(everywhere(stack), of(images))
    rows, columns = (np.array([round(k / 2 - 0.5) for k in range(n)]) for n in shape)
    block = tuple(slice(0, n) for n in shape)
    for s, id in enumerate(stack.ids):
        left, top, right, bottom = box = planes.box(s, *block)
        plane, inside = planes.register(s, *block, box, images[s][top:bottom, left:right])
        assert inside.all()
        np.testing.assert_array_equal(plane, images[s][rows[:, np.newaxis], columns])
        for z in np.unique(np.nonzero(section == id)[0]):
            np.testing.assert_array_equal(volume[:, z], np.moveaxis(plane, -1, 0))
    assert set(stack.ids) <= set(section.ravel())


def test_depth_alone_decides_which_section_fills_a_voxel():
    dataset = random_dataset(7, NUMBERS)
    aligned = stacked(dataset)
    fields = {int(id): Displacement.identity(plane_shape(aligned, 1)) for id in aligned.ids}
    own = stacked(dataset, fields=fields)
    by_depth, by = (stack.pull_back(everywhere(stack), of(pictures(stack, 7)))[1] for stack in (own, aligned))
    both = (by_depth > 0) & (by > 0)
    assert both.sum() > 1000
    np.testing.assert_array_equal(by_depth[both], by[both])
    np.testing.assert_array_equal(by_depth > 0, own.displacement(everywhere(own))[0] >= 0)


def test_the_field_of_a_volume_is_in_full_resolution_pixels_at_any_tier():
    dataset = random_dataset(8, NUMBERS)
    shape = plane_shape(stacked(dataset), 1)
    fields = {section.image_id: Displacement.identity(shape) for section in dataset.sections}
    stack = stacked(dataset, downsample=2, fields=fields)
    field = stack.displacement(everywhere(stack))
    _, y, x = np.nonzero(np.isfinite(field[0]))
    np.testing.assert_allclose(field[:, np.isfinite(field[0])], [4 * x + 1.5, 4 * y + 1.5])


def test_a_block_evaluates_no_field_beyond_itself():
    asked = []

    class Watched(ArrayField):
        def coordinates(self, rows, columns):
            asked.append((rows, columns))
            return super().coordinates(rows, columns)

    dataset = random_dataset(9, NUMBERS, plane=2)
    shape = plane_shape(stacked(dataset), 2)
    zeros = np.zeros(shape)
    fields = {section.image_id: Displacement(Watched(zeros, zeros, relative=True)) for section in dataset.sections}
    stack = stacked(dataset, fields=fields)
    assert asked == []
    region = (slice(4, 9), slice(2, 5), slice(10, 12))
    needed = stack.sampled(region)
    assert 0 < len(needed) <= len(asked) < len(dataset.sections)
    assert set(map(str, asked)) == {str((slice(2, 5), slice(4, 9)))}  # superior up, anterior left


def test_a_section_whose_field_is_nan_is_not_needed():
    dataset = random_dataset(10, NUMBERS)
    stack = stacked(dataset)
    nowhere = np.full(plane_shape(stack, 1), np.nan)
    first = stack.sampled(everywhere(stack))[0]
    field = Displacement.from_coordinates(nowhere, nowhere)
    own = stacked(dataset, fields={int(stack.ids[first]): field})
    assert set(own.sampled(everywhere(own))) == set(stack.sampled(everywhere(stack))) - {first}


def test_a_stack_with_fields_can_be_sent_to_another_process():
    dataset = random_dataset(11, NUMBERS)
    stack = stacked(dataset)
    rng = np.random.default_rng(11)
    fields = {int(id): Displacement.from_coordinates(*random_field(rng, stack, 1)) for id in stack.ids}
    stack = stacked(dataset, fields=fields)
    sent = pickle.loads(pickle.dumps(stack))
    images = pictures(stack, 11)
    for one, other in zip(
        stack.pull_back(everywhere(stack), of(images)), sent.pull_back(everywhere(sent), of(images)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_field_over_another_grid_is_refused_with_both_shapes():
    dataset = random_dataset(12, NUMBERS, plane=2)
    stack = stacked(dataset)
    rows, columns = plane_shape(stack, 2)
    field = Displacement.identity((columns, rows))
    with raises(InputError, "shape-mismatch") as caught:
        stacked(dataset, fields={104: field})
    for value in ("104", f"{columns} x {rows}", f"{rows} x {columns}"):
        assert value in str(caught.value)


def test_a_field_for_a_section_of_another_dataset_is_refused():
    field = Displacement.identity((20, 29))
    with raises(InputError, "unknown-section") as caught:
        stacked(random_dataset(13, NUMBERS), fields={104: field, 1: field})
    assert "section image 1," in str(caught.value)


def test_an_array_is_refused_as_a_displacement():
    dataset = random_dataset(14, NUMBERS)
    field = np.zeros((2, *plane_shape(stacked(dataset), 1)))
    with raises(InputError, "wrong-type"):
        stacked(dataset, fields={104: field})
