"""Refined fields: their files, their resampling to other grids, the depths they correct, and what is refused."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from ngff_zarr import from_ngff_zarr

from atlaszarr import Displacement
from atlaszarr.dataset_build.section_layout import section_layout
from atlaszarr.dataset_build.volume_layout import volume_layout
from atlaszarr.engine.target_state import UNFINISHED, Root
from atlaszarr.errors import InputError, NotFoundError, RecordError
from atlaszarr.geometry.grid import Grid
from atlaszarr.geometry.plane import PLANES
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.sections.fields import PlaneGrid, fields_of
from atlaszarr.sections.options import SectionsOptions, VolumeOptions
from atlaszarr.sections.refined import DOCUMENT, RefinedFields, pixels_of, refinement_document, write_field
from atlaszarr.stores.target import Target
from codes import raises
from little_memory import little_memory
from refined_folders import pixels, wave, write_refinement

SPACE = reference_space(9)


def over(name, resolution=25.0, mirror=False, stored=False):
    plane = PLANES[name].as_stored if stored else PLANES[name]
    return PlaneGrid(plane, Grid(SPACE, resolution), mirror)


def sloped(pixels, slopes=(0.02, -0.01, 30.0, 0.015, 0.03, -20.0)):
    """A field that is linear in um of the plane, which any interpolation keeps: x first, and its function."""
    a, b, c, d, e, f = slopes
    across, down = (pixels.grid.centres(axis) for axis in (pixels.plane.columns, pixels.plane.rows))

    def at(x, y):
        return a * x + b * y + c, d * x + e * y + f

    return np.stack(at(*np.meshgrid(across, down))), at


@pytest.fixture
def refined(tmp_path, dataset):
    """A refinement of the dataset of six sections: waves for all but the last, which keeps its registration."""
    ids = [section.image_id for section in dataset.sections]
    fields = {id: wave(dataset, 100.0 + 10 * k)[0] for k, id in enumerate(ids[:-1])}
    corrections = dict(zip(ids, (120.0, 110.0, 130.0, 125.0, 90.0, 100.0), strict=True))
    return RefinedFields.open(write_refinement(tmp_path / "fields", dataset, corrections, fields))


@pytest.mark.parametrize("name", PLANES)
def test_a_stored_field_is_an_ome_zarr_displacement_field_in_micrometres(tmp_path, name):
    pixels = over(name)
    field, _ = sloped(pixels)
    write_field(Target.of(tmp_path), 7, field, pixels)
    loaded = Displacement.load(tmp_path / "7.ome.zarr")
    assert loaded.shape == pixels.shape
    found = np.stack([loaded.delta_x, loaded.delta_y])
    np.testing.assert_allclose(found * 25.0, field, atol=1e-4)  # float32
    read = from_ngff_zarr(str(tmp_path / "7.ome.zarr"), validate=True)
    (declared,) = read.metadata.coordinateTransformations
    assert (declared.type, declared.path) == ("displacements", "0")
    np.testing.assert_allclose(read.images[0].data.compute()[::-1], field, atol=1e-4)
    document = json.loads((tmp_path / "7.ome.zarr/zarr.json").read_text())["attributes"]["ome"]
    (image,) = document["multiscales"]
    intrinsic, reference, _ = image["coordinateSystems"]
    names = ["zyx"[axis] for axis in (pixels.plane.rows, pixels.plane.columns)]
    assert [axis["name"] for axis in intrinsic["axes"]] == ["c", *names]
    assert {axis["unit"] for axis in reference["axes"]} == {"micrometer"}
    scale, translation = image["datasets"][0]["coordinateTransformations"][0]["transformations"]
    # The centre of the first pixel is 7.5 um from that of the first voxel of 10 um, the origin of every image.
    assert (scale["scale"][1:], translation["translation"][1:]) == ([25.0, 25.0], [7.5, 7.5])


@pytest.mark.parametrize("stored", [False, True], ids=["superior-up", "as-stored"])
@pytest.mark.parametrize("mirrored", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("resolution", [10.0, 25.0, 50.0])
@pytest.mark.parametrize("name", ["coronal", "sagittal"])
def test_a_field_is_followed_on_every_grid(tmp_path, dataset, name, resolution, mirrored, stored):
    mine, theirs = mirrored
    stored_over = over(name, mirror=mine)
    field, at = sloped(stored_over)
    target = Target.of(tmp_path)
    image_id = dataset.sections[0].image_id
    digest = write_field(target, image_id, field, stored_over)
    plain = replace(dataset, plane=name)
    target.write(DOCUMENT, refinement_document(plain, stored_over, {image_id: 0.0}, {image_id: digest}))
    build = over(name, resolution, theirs, stored)
    recorded = np.array([[1.7, -0.2, 15.0], [0.3, 2.1, -8.0]])
    found = RefinedFields.open(tmp_path).displacement(image_id, build, recorded)
    assert found.shape == build.shape
    rows, columns = slice(20, 60), slice(3, 50)
    x, y = np.meshgrid(np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop))
    across, down = (x, y) if build.plane.columns == stored_over.plane.columns else (y, x)
    p, q = (across + 0.5) * resolution, (down + 0.5) * resolution
    turned = mine != theirs and stored_over.plane.columns == 2
    u, v = at(SPACE.extent[2] - p if turned else p, q)
    p, q = p + (-u if turned else u), q + v
    across, down = p / resolution - 0.5, q / resolution - 0.5
    x, y = (across, down) if build.plane.columns == stored_over.plane.columns else (down, across)
    expected = np.einsum("ij,jrc->irc", recorded, np.stack([x, y, np.ones_like(x)]))
    np.testing.assert_allclose(found.coordinates(rows, columns), expected, atol=1e-4)


def test_between_pixels_a_field_is_linear(tmp_path, dataset):
    field, at = wave(dataset)
    ids = [section.image_id for section in dataset.sections]
    fields = RefinedFields.open(write_refinement(tmp_path, dataset, dict.fromkeys(ids, 0.0), {ids[0]: field}))
    found = fields.displacement(ids[0], pixels(dataset, 10.0), np.eye(2, 3))
    x, y = np.meshgrid(np.arange(300, 360), np.arange(200, 260))
    shift = (found.coordinates(slice(200, 260), slice(300, 360)) - np.stack([x, y])) * 10.0
    exact = np.stack(at((x + 0.5) * 10.0, (y + 0.5) * 10.0))
    # The second derivative of the wave times an eighth of the squared pixel, along each axis.
    assert 1e-4 < np.abs(shift - exact).max() < 2 * 300.0 / 1500.0**2 * 25.0**2 / 8 * 2


def tilted(dataset, fields, **options):
    """The stack of a coarse volume, and the positions (X, Y) of its voxels in the section images."""
    stack = VolumeOptions(resolution=200.0, **options).stack(dataset, fields)
    return stack, stack.displacement(tuple(slice(0, n) for n in stack.grid.shape))


def test_a_field_of_zeros_changes_nothing(tmp_path, dataset):
    over_all = pixels(dataset)
    ids = [section.image_id for section in dataset.sections]
    zeros = dict.fromkeys(ids, np.zeros((2, *over_all.shape)))
    fields = RefinedFields.open(write_refinement(tmp_path, dataset, dict.fromkeys(ids, 0.0), zeros))
    (one, plain), (other, found) = tilted(dataset, None), tilted(dataset, fields)
    assert np.abs(one.affines[:, :, 0]).max() > 1e-3, "the alignment is not tilted against the grid"
    assert not one.fields
    assert len(other.fields) == 6
    np.testing.assert_allclose(found, plain, rtol=0, atol=1e-8)
    flat, refined = (SectionsOptions(resolution=200.0).planes(dataset, fields=each) for each in (None, fields))
    for a, b in zip(flat.displacements, refined.displacements, strict=True):
        np.testing.assert_allclose(b.coordinates(), a.coordinates(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("mirror", [False, True])
def test_a_volume_follows_fields_and_the_tilt_of_the_alignment(tmp_path, dataset, mirror):
    field, at = sloped(pixels(dataset))
    ids = [section.image_id for section in dataset.sections]
    folder = write_refinement(tmp_path, dataset, dict.fromkeys(ids, 0.0), dict.fromkeys(ids, field))
    _, found = tilted(dataset, RefinedFields.open(folder), mirror=mirror)
    stack, plain = tilted(dataset, None, mirror=mirror)
    region = np.stack([*np.indices(stack.grid.shape), np.ones(stack.grid.shape)])
    position = (region[:3] + 0.5) * 200.0
    u, v = at(SPACE.extent[2] - position[2] if mirror else position[2], position[1])
    region[2] += (-u if mirror else u) / 200.0
    region[1] += v / 200.0
    both = np.isfinite(found[0]) & np.isfinite(plain[0])
    assert both.sum() > 5000
    depth = np.einsum("k,kzyx->zyx", stack.depth_row, np.stack([*np.indices(stack.grid.shape), np.ones(both.shape)]))
    nearest = np.abs(depth[..., np.newaxis] - stack.depths).argmin(axis=-1)
    tier = np.einsum("zyxij,jzyx->izyx", stack.affines[nearest], region)
    downsample = np.array([request.downsample for request in stack.requests])[nearest]
    expected = (tier + 0.5) * 2.0**downsample - 0.5
    np.testing.assert_allclose(found[:, both], expected[:, both], rtol=0, atol=1e-2)


def pixels_at(image, x, y):
    """The values (n, channels) of an image between its pixels, bilinear; beyond its border those of the border."""
    height, width, _ = image.shape
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    u, v = (x - left)[:, np.newaxis], (y - top)[:, np.newaxis]

    def at(rows, columns):
        return image[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)].astype(float)

    upper, lower = (at(rows, left) * (1 - u) + at(rows, left + 1) * u for rows in (top, top + 1))
    return upper * (1 - v) + lower * v


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("fill", ["none", "nearest", "linear"])
def test_a_volume_of_noise_has_the_pixels_that_numpy_finds(tmp_path, dataset, fill, mirror):
    """In noise, a hundredth of a pixel shows; the sections pass each other, and the last one has no field."""
    ids = [section.image_id for section in dataset.sections]
    step, resolution, rng = dataset.nominal_interval, 100.0, np.random.default_rng(5)
    corrections = dict.fromkeys(ids, 0.0) | {ids[1]: 1.5 * step, ids[4]: -30.0}
    fields = {id: wave(dataset, 200.0 + 3 * k)[0].astype("f4") for k, id in enumerate(ids[:-1])}
    refined = RefinedFields.open(write_refinement(tmp_path, dataset, corrections, fields))
    stack = VolumeOptions(resolution=resolution, fill=fill, mirror=mirror).stack(dataset, refined)
    noise = {id: rng.integers(0, 256, (h, w, 3), np.uint8) for id, (w, h) in zip(stack.ids, stack.sizes, strict=True)}
    everything = tuple(slice(0, n) for n in stack.grid.shape)
    image, label = stack.pull_back(everything, lambda s, box: noise[stack.ids[s]][box[1] : box[3], box[0] : box[2]])

    voxels = np.argwhere(label)
    voxels = voxels[rng.integers(0, len(voxels), 5000)]
    pir = (voxels + 0.5) * resolution
    if mirror:
        pir[:, 2] = SPACE.extent[2] - pir[:, 2]
    trv = np.array(dataset.trv)

    def sampled(id, pir):
        """The values of a section at points, and whether these are inside its image."""
        section = next(section for section in dataset.sections if section.image_id == id)
        moved = pir.copy()
        if id in fields:
            across, down = pir[:, 2] / 25.0 - 0.5, pir[:, 1] / 25.0 - 0.5
            moved[:, [2, 1]] += pixels_at(np.moveaxis(fields[id], 0, 2), across, down)
        xy = (moved @ trv[:2, :3].T + trv[:2, 3]) @ np.array(section.tvs)[:, :2].T + np.array(section.tvs)[:, 2]
        tier = 2.0 ** stack.requests[stack.ids.tolist().index(id)].downsample
        x, y = (xy.T + 0.5) / tier - 0.5
        height, width, _ = noise[id].shape
        inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
        return pixels_at(noise[id], x, y), inside

    order = sorted(ids, key=lambda id: dataset.sections[ids.index(id)].depth + corrections[id])
    depths = np.array([dataset.sections[ids.index(id)].depth + corrections[id] for id in order])
    depth = pir @ trv[2, :3] + trv[2, 3]
    nearest = np.abs(depth[:, np.newaxis] - depths).argmin(axis=1)
    np.testing.assert_array_equal(label[tuple(voxels.T)], np.array(order)[nearest])
    expected = np.empty((len(voxels), 3))
    for s, id in enumerate(order):
        mine = nearest == s
        expected[mine], _ = sampled(id, pir[mine])
        for t in (s - 1, s + 1) if fill == "linear" else ():
            between = mine & ((depth - depths[s]) * (t - s) > 0)
            if 0 <= t < len(order) and between.any():
                other, inside = sampled(order[t], pir[between])
                share = (depth[between] - depths[s]) / (depths[t] - depths[s]) * inside
                expected[between] += share[:, np.newaxis] * (other - expected[between])
    assert np.abs(image[(slice(None), *voxels.T)].T - expected).max() < 0.51  # rounded


def test_corrected_sections_are_in_the_order_of_their_depths(refined, dataset):
    corrected = refined.corrected(dataset)
    recorded = {section.image_id: section.depth for section in dataset.sections}
    for section in corrected.sections:
        assert section.depth == recorded[section.image_id] + refined.corrections[section.image_id]
    depths = [section.depth for section in corrected.sections]
    assert depths == sorted(depths)
    assert [s.image_id for s in corrected.sections] == [s.image_id for s in dataset.sections]


def test_the_corrected_depth_decides_and_of_two_at_one_depth_the_one_cut_first_is_first(tmp_path, dataset):
    ids = [section.image_id for section in dataset.sections]
    step = dataset.sections[1].depth - dataset.sections[0].depth
    corrections = dict.fromkeys(ids, 0.0) | {ids[1]: 1.5 * step, ids[3]: step}
    folder = write_refinement(tmp_path, dataset, corrections, {})
    corrected = RefinedFields.open(folder).corrected(dataset)
    assert [section.image_id for section in corrected.sections] == [ids[k] for k in (0, 2, 1, 3, 4, 5)]
    assert corrected.sections[3].depth == corrected.sections[4].depth
    assert corrected.nominal_interval == dataset.nominal_interval
    assert corrected.missing_numbers == dataset.missing_numbers
    stack = VolumeOptions(resolution=50.0, fill="linear").stack(dataset, RefinedFields.open(folder))
    assert (np.diff(stack.edges) >= 0).all()
    # Each of the two at one depth fills the half of the gap on its side.
    sides = [stack.edges[k + 1] - stack.edges[k] for k in range(len(stack.nearest)) if stack.nearest[k] in (3, 4)]
    assert sorted(sides)[:2] == [0.0, 0.0]
    assert min(sorted(sides)[2:]) > 0


def test_sections_that_a_refinement_lacks_or_keeps_are_registered_by_their_records(refined, dataset):
    ids = [section.image_id for section in dataset.sections]
    over_all, recorded = pixels(dataset), np.eye(2, 3)
    assert [refined.registration(id) for id in (*ids, 1)] == [*["refined"] * 5, "depth only", "recorded"]
    assert refined.displacement(ids[0], over_all, recorded) is not None
    assert refined.displacement(ids[-1], over_all, recorded) is None
    assert refined.displacement(1, over_all, recorded) is None
    further = replace(dataset.sections[-1], image_id=1, section_number=dataset.sections[-1].section_number + 4)
    more = replace(dataset, sections=(*dataset.sections, further))
    assert next(section for section in refined.corrected(more).sections if section.image_id == 1) == further


def test_the_digest_is_that_of_depths_and_values_not_of_the_place(tmp_path, dataset):
    ids = [section.image_id for section in dataset.sections]
    field, _ = wave(dataset)

    def digest(name, correction, values, **options):
        folder = write_refinement(tmp_path / name, dataset, dict.fromkeys(ids, correction), {ids[0]: values}, **options)
        return RefinedFields.open(folder).digest

    first = digest("a", 10.0, field, begun="today")
    assert digest("b", 10.0, field, begun="tomorrow") == first
    others = {
        digest("c", 11.0, field),
        digest("d", 10.0, field + 1),
        digest("e", 10.0, np.zeros((2, 800, 1140)), resolution=10.0),
    }
    assert len({first, *others}) == 4


@pytest.mark.parametrize(
    ("name", "resolution", "other", "mirror"),
    [
        ("coronal", 10.0, 25.0, False),
        ("sagittal", 10.0, 25.0, True),
        ("transverse", 25.0, 30.0, True),  # the last pixels extend beyond the space
        ("coronal", 30.0, 200.0, False),
        ("coronal", 50.0, 10.0, True),
    ],
)
def test_a_field_is_exact_up_to_the_border_of_the_plane(tmp_path, dataset, name, resolution, other, mirror):
    stored_over, build = over(name, other), over(name, resolution, mirror)
    field, at = sloped(stored_over)
    image_id = dataset.sections[0].image_id
    digest = write_field(Target.of(tmp_path), image_id, field, stored_over)
    body = refinement_document(dataset, stored_over, {image_id: 0.0}, {image_id: digest})
    Target.of(tmp_path).write(DOCUMENT, body)
    found = RefinedFields.open(tmp_path).displacement(image_id, build, np.eye(2, 3)).coordinates()
    axes = build.plane.columns, build.plane.rows
    own = np.stack(np.meshgrid(*(build.grid.centres(axis) for axis in axes)))
    moved, turned = own.copy(), [mirror and axis == 2 for axis in axes]
    for k in range(2):
        if turned[k]:
            own[k] = SPACE.extent[2] - own[k]
    for k, shift in enumerate(at(*own)):
        moved[k] += -shift if turned[k] else shift
    np.testing.assert_allclose(found, moved / resolution - 0.5, rtol=0, atol=1e-3 / resolution)


@pytest.mark.parametrize("mode", ["volume", "sections"])
def test_a_block_takes_no_more_memory_than_its_layout_says_of_fine_fields(tmp_path, dataset, mode):
    ids = [section.image_id for section in dataset.sections]
    field = np.full((2, 800, 1140), 20.0)
    folder = write_refinement(tmp_path, dataset, dict.fromkeys(ids, 0.0), dict.fromkeys(ids, field), 10.0)
    fields = RefinedFields.open(folder)

    def empty(box):
        left, top, right, bottom = box
        return np.zeros((bottom - top, right - left, 3), np.uint8)

    if mode == "volume":
        layout = volume_layout(dataset, VolumeOptions(resolution=50.0), fields)
        stack = VolumeOptions(resolution=50.0).stack(dataset, fields)
    else:
        layout = section_layout(dataset, SectionsOptions(resolution=50.0), fields)
        planes = SectionsOptions(resolution=50.0).planes(dataset, fields=fields)
    pyramid = layout.non_empty.pyramid
    for block in layout.inputs:
        region = pyramid.region(pyramid.passes[0], block)
        with little_memory(layout.block_bytes):  # the fields are in memory since the layout was made
            if mode == "volume":
                stack.pull_back(region, lambda _, box: empty(box))
            else:
                section, rows, columns = region
                box = planes.box(section.start, rows, columns)
                planes.register(section.start, rows, columns, box, empty(box))


def test_fields_are_small_where_they_are_sent_and_read_once_in_a_process(refined, dataset, tmp_path):
    stack = VolumeOptions(resolution=25.0).stack(dataset, refined)
    sent = pickle.dumps(stack)
    assert len(sent) < 40_000
    region = (slice(250, 290), slice(100, 140), slice(200, 260))
    before = pickle.loads(sent).displacement(region)
    (tmp_path / "fields").rename(tmp_path / "gone")
    after = pickle.loads(sent).displacement(region)
    np.testing.assert_array_equal(before, after)
    assert np.isfinite(before).any()


def altered(refined, **changes):
    """Change values of the document of a refinement."""
    target = refined.target
    document = json.loads(target.read(DOCUMENT))
    target.write(DOCUMENT, json.dumps(document | changes).encode())
    return target.url


def test_a_folder_without_a_refinement_is_refused(tmp_path):
    with raises(NotFoundError, "refinement-not-found") as caught:
        fields_of(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_an_unfinished_refinement_is_refused(refined):
    folder = altered(refined, finished=False)
    with raises(InputError, "refinement-unfinished"):
        RefinedFields.open(folder)
    altered(refined, finished=True)
    assert RefinedFields.open(folder).digest == refined.digest
    Root("0.5", {}).write(refined.target, UNFINISHED)  # a repair has begun
    with raises(InputError, "refinement-unfinished"):
        RefinedFields.open(folder)


def test_a_refinement_that_has_only_begun_is_unfinished(tmp_path):
    Root("0.5", {}).write(Target.of(tmp_path), UNFINISHED)
    with raises(InputError, "refinement-unfinished"):
        RefinedFields.open(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"plane": "oblique"},
        {"resolution_um": "fine"},
        {"resolution_um": -25.0},
        {"reference_space": 4},
        {"sections": []},
        {"sections": {"1": {}}},
        {"sections": {"a": {"depth_correction_um": 0.0, "alignment_sha256": "", "field_sha256": None}}},
        {"sections": {"1": {"depth_correction_um": float("inf"), "alignment_sha256": "", "field_sha256": None}}},
        {"sections": {"1": {"depth_correction_um": 1e5, "alignment_sha256": "", "field_sha256": None}}},
        {"dataset": None},
        {"dataset": 74272479.5},
        {"finished": "false"},
        {"mirror": None},
        {"resolution_um": 1e-310},
    ],
    ids=str,
)
def test_a_damaged_document_is_refused(refined, changes):
    with raises(InputError, "damaged-metadata") as caught:
        RefinedFields.open(altered(refined, **changes))
    assert DOCUMENT in str(caught.value)


@pytest.mark.parametrize("name", ["depth_correction_um", "field_sha256"])
def test_a_document_that_was_edited_is_refused(refined, name):
    """A depth that is moved by hand, and a field that is taken out."""
    sections = json.loads(refined.target.read(DOCUMENT))["sections"]
    first, second, *_ = sections.values()
    first[name] = second[name] if name == "depth_correction_um" else None
    with raises(InputError, "damaged-metadata") as caught:
        RefinedFields.open(altered(refined, sections=sections))
    assert str(caught.value).endswith("run the same `refine` command to repair it")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"zarr_format": 3, "node_type": "group"}'])
def test_the_group_of_another_program_is_no_refinement(tmp_path, body):
    (tmp_path / "zarr.json").write_bytes(body)
    with raises(NotFoundError, "refinement-not-found"):
        RefinedFields.open(tmp_path)


def test_a_refinement_with_a_damaged_root_is_refused(refined):
    refined.target.write("zarr.json", b'{"zarr_format": 3')
    with raises(InputError, "damaged-metadata") as caught:
        RefinedFields.open(refined.target.url)
    assert "zarr.json" in str(caught.value)


def test_fields_too_large_for_memory_are_refused(refined):
    with raises(InputError, "field-too-large") as caught:
        RefinedFields.open(altered(refined, resolution_um=0.5))
    assert "0.5 um" in str(caught.value)


def test_fields_of_another_dataset_are_refused(refined, dataset):
    with raises(InputError, "wrong-dataset") as caught:
        VolumeOptions().stack(replace(dataset, id=5), refined)
    assert f"{dataset.id}, not 5" in str(caught.value)


def test_fields_of_another_plane_or_space_are_refused(refined, dataset):
    with raises(InputError, "wrong-plane"):
        refined.validate(dataset, over("sagittal"))
    with raises(InputError, "wrong-plane") as caught:
        refined.validate(dataset, pixels_of(PLANES["coronal"], Grid(reference_space(8), 25.0)))
    assert "space 8" in str(caught.value)


def test_fields_of_another_alignment_are_refused(refined, dataset):
    first, *rest = dataset.sections
    (a, b, c), row = first.tvs
    moved = replace(first, tvs=((a, b, c + 1.0), row))
    with raises(InputError, "alignment-changed") as caught:
        refined.corrected(replace(dataset, sections=(moved, *rest)))
    assert str(first.image_id) in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "cut", "replaced", "flipped"])
def test_a_field_that_differs_from_what_was_written_is_refused(tmp_path, dataset, damage):
    ids = [section.image_id for section in dataset.sections]
    rng = np.random.default_rng([ord(letter) for letter in damage])
    over_all = pixels(dataset)
    field = rng.uniform(-100, 100, (2, *over_all.shape))
    folder = write_refinement(tmp_path, dataset, dict.fromkeys(ids, 0.0), {ids[2]: field})
    chunk = folder / f"{ids[2]}.ome.zarr/0/c/0/0/0"
    body = chunk.read_bytes()
    if damage == "replaced":
        write_field(Target.of(tmp_path), ids[2], -field, over_all)
    elif damage == "missing":
        chunk.unlink()
    else:
        chunk.write_bytes(body[:-9] if damage == "cut" else body[:50] + bytes([body[50] ^ 1]) + body[51:])
    stack = VolumeOptions(resolution=100.0).stack(dataset, RefinedFields.open(folder))
    with raises(InputError, "field-damaged") as caught:
        stack.sections_by_chunk(64)
    assert str(ids[2]) in str(caught.value)
    assert str(caught.value).endswith("run the same `refine` command to repair it")
    assert "Error(" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda field: field + np.nan,
        lambda field: field + 1e300,  # more than float32 holds
        lambda field: field[:, 1:],
        lambda field: field[:, :0],
        lambda field: field + 1j,
        lambda field: field.astype(str),
        lambda _: 3.0,
    ],
    ids=["nan", "huge", "shape", "empty", "complex", "text", "number"],
)
def test_a_field_that_does_not_fit_is_not_written(tmp_path, wrong):
    pixels = over("coronal", 100.0)
    field = wrong(np.zeros((2, *pixels.shape)))
    with raises(InputError, "invalid-array"):
        write_field(Target.of(tmp_path), 7, field, pixels)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [5e4, -5e4, 1e30, 3e38])
def test_fields_that_lead_outside_all_images_are_named_where_nothing_is_left(tmp_path, dataset, value):
    ids = [section.image_id for section in dataset.sections]
    field = np.full((2, 320, 456), value)
    fields = RefinedFields.open(write_refinement(tmp_path, dataset, dict.fromkeys(ids, 0.0), dict.fromkeys(ids, field)))
    layouts = (volume_layout, VolumeOptions(resolution=100.0)), (section_layout, SectionsOptions(resolution=100.0))
    for layout, options in layouts:
        with raises(RecordError, "no-section-in-grid") as caught:
            layout(dataset, options, fields)
        assert "without fields" in str(caught.value)


def test_the_ids_of_fields_may_be_numbers_of_numpy():
    field = Displacement.identity((3, 4))
    found = fields_of({np.int64(7): field})
    assert found.provenance == {"sections": [7]}
    assert json.dumps(found.provenance)
    assert found.registration(7) == "own"


def test_a_dataset_at_corrected_depths_is_not_corrected_again(refined, dataset):
    with raises(InputError, "alignment-changed") as caught:
        refined.corrected(refined.corrected(dataset))
    assert "as it is recorded" in str(caught.value)


@pytest.mark.parametrize("given", [True, 5, Displacement.identity((3, 4)), [Displacement.identity((3, 4))]], ids=str)
def test_what_is_no_fields_is_refused(given):
    with raises(InputError, "wrong-type"):
        fields_of(given)
