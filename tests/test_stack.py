"""The 3-D pull-back against a plain NumPy oracle, one voxel at a time, on made-up stacks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaszarr.allen.records import SectionDataset
from atlaszarr.errors import InputError, RecordError
from atlaszarr.grid import blocks
from atlaszarr.stack import stack_sections

RESOLUTION = 400.0


def inverse(affine):
    linear = np.linalg.inv(affine[:, :-1])
    return np.hstack([linear, -linear @ affine[:, -1:]])


def made_up(seed, numbers, space=9, plane=1):
    """A dataset of small sections, each with a size and an alignment of its own, tilted against the grid."""
    rng = np.random.default_rng(seed)
    tilt = rng.uniform(-0.1, 0.1, (3, 3))
    axes = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]] if plane == 1 else [[1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
    tvr = np.hstack([axes + tilt, [[13000.0], [0.0], [0.0]] if plane == 1 else [[0.0], [0.0], [0.0]]])
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


def pictures(stack, seed):
    rng = np.random.default_rng(seed)
    return {s: rng.integers(0, 256, (r.height, r.width, 3), np.uint8) for s, r in enumerate(stack.requests)}


def sampled(picture, x, y, interpolation):
    height, width = picture.shape[:2]
    if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
        return None
    if interpolation == "nearest":
        return picture[min(int(np.floor(y + 0.5)), height - 1), min(int(np.floor(x + 0.5)), width - 1)].astype(float)
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    total = np.zeros(3)
    for row, weight_y in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
        for column, weight_x in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
            total += weight_y * weight_x * picture[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return total


def pulled_back(dataset, stack, images, index, fill, interpolation, flipped):
    """Image and section of one voxel, from the records alone; None for the image where it is background."""
    p, i, r = (np.array(index) + 0.5) * RESOLUTION
    trv = np.array(dataset.trv)
    x_um, y_um, depth = trv[:, :3] @ [p, i, 11400 - r if flipped else r] + trv[:, 3]
    depths = [section.depth for section in dataset.sections]
    nominal = dataset.nominal_interval
    s = min(range(len(depths)), key=lambda s: (abs(depth - depths[s]), -s))
    beside = s + (1 if depth >= depths[s] else -1)
    gap = abs(depths[beside] - depths[s]) if 0 <= beside < len(depths) else np.inf
    reach, join = (12.5, 25.0) if fill == "none" else (nominal / 2, 1.5 * nominal)
    if gap > join and not -reach <= depth - depths[s] < reach:
        return None, 0

    def value(s):
        if s not in images:
            return None
        section, tvs = dataset.sections[s], np.array(dataset.sections[s].tvs)
        xy = tvs[:, :2] @ [x_um, y_um] + tvs[:, 2]
        x, y = (xy + 0.5) / 2 ** stack.requests[s].downsample - 0.5
        assert section.image_id == stack.ids[s]
        return sampled(images[s], x, y, interpolation)

    own = value(s)
    if own is None:
        return None, 0
    if fill == "linear" and gap <= join and (other := value(beside)) is not None:
        share = (depth - depths[s]) / (depths[beside] - depths[s])
        own = own + share * (other - own)
    return own, int(stack.ids[s])


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 500), min_size=1, max_size=9, unique=True),
    st.sampled_from(["none", "nearest", "linear"]),
    st.sampled_from(["nearest", "linear"]),
    st.sampled_from([(9, 9), (10, 9), (10, 10)]),
    st.booleans(),
)
def test_a_volume_equals_the_rule_voxel_by_voxel(seed, numbers, fill, interpolation, spaces, with_a_hole):
    native, space = spaces
    dataset = made_up(seed, numbers, native, plane=1 + seed % 2)
    stack = stack_sections(
        dataset, RESOLUTION, fill=fill, interpolation=interpolation, space=space, downsample=seed % 3
    )
    images = pictures(stack, seed)
    if with_a_hole:
        del images[seed % len(images)]
    region = tuple(slice(0, n) for n in stack.grid.shape)
    image, section = stack.pull_back(region, images, background=9)
    for index in np.random.default_rng(seed).integers(0, stack.grid.shape, (400, 3)):
        own, id = pulled_back(dataset, stack, images, index, fill, interpolation, flipped=native != space)
        assert section[tuple(index)] == id
        found = image[(slice(None), *index)].astype(float)
        if own is None:
            assert set(found) == {9.0}
        else:
            # Half a grey level of rounding, and what float32 weights lose of 255.
            np.testing.assert_allclose(found, own, rtol=0, atol=0.5 + 1e-3)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 20), st.sampled_from(["none", "nearest", "linear"]))
def test_blocks_of_any_size_agree_to_the_byte_and_need_just_what_they_show(seed, size, fill):
    stack = stack_sections(made_up(seed, range(4, 500, 40)), RESOLUTION, fill=fill)
    images = pictures(stack, seed)
    whole = stack.pull_back(tuple(slice(0, n) for n in stack.grid.shape), images)
    field = stack.displacement(tuple(slice(0, n) for n in stack.grid.shape))
    for _, region in blocks(stack.grid.shape, size):
        shown = stack.shown(region)
        image, section = stack.pull_back(region, {s: images[s] for s in shown})
        np.testing.assert_array_equal(image, whole[0][(slice(None), *region)])
        np.testing.assert_array_equal(section, whole[1][region])
        np.testing.assert_array_equal(stack.displacement(region), field[(slice(None), *region)])
        seen = set(section[section > 0].tolist())
        assert seen <= {int(stack.ids[s]) for s in shown}
        if fill != "linear":  # there a neighbour may have too small a share to show
            assert seen == {int(stack.ids[s]) for s in shown}


def test_the_displacement_field_says_where_in_the_full_resolution_image_a_voxel_lies():
    dataset = made_up(3, range(4, 500, 40))
    stack = stack_sections(dataset, RESOLUTION, downsample=2)
    region = tuple(slice(0, n) for n in stack.grid.shape)
    field = stack.displacement(region)
    _, section = stack.pull_back(region, pictures(stack, 0))
    np.testing.assert_array_equal(np.isnan(field[0]), section == 0)
    trv = np.array(dataset.trv)
    by_id = {s.image_id: np.array(s.tvs) for s in dataset.sections}
    for index in np.argwhere(section)[::97]:
        plane = trv[:, :3] @ ((index + 0.5) * RESOLUTION) + trv[:, 3]
        tvs = by_id[int(section[tuple(index)])]
        np.testing.assert_allclose(field[(slice(None), *index)], tvs[:, :2] @ plane[:2] + tvs[:, 2], atol=1e-6)


def test_a_tier_is_the_coarsest_whose_pixel_is_not_larger_than_a_voxel():
    dataset = made_up(1, [10, 20])
    tiers = [{r.downsample for r in stack_sections(dataset, um).requests} for um in (10.0, 16.0, 31.0, 32.0, 400.0)]
    assert tiers[:4] == [{0}, {0}, {0}, {1}]
    assert tiers[4] == {s.tier_count - 1 for s in dataset.sections}


@pytest.mark.parametrize(
    "wrong",
    [
        {"fill": "cubic"},
        {"interpolation": "lanczos"},
        {"space": "11"},
        {"view": "nissl"},
        {"downsample": -1},
        {"downsample": 14},
        {"quality": 101},
        {"range": (0, 1, 2)},
        {"range": (0, 5000, 0, 1, 0, 1)},
    ],
)
def test_an_option_that_is_not_known_is_refused_by_name_and_value(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=name):
        stack_sections(made_up(1, [10, 20]), RESOLUTION, **wrong)


def test_a_dataset_without_expression_images_has_no_expression_view():
    with pytest.raises(RecordError, match="expression"):
        stack_sections(made_up(1, [10, 20]), RESOLUTION, view="expression")
