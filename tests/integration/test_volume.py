"""open_volume: lazy, with exactly the images that it needs."""

import pickle
from dataclasses import replace

import dask
import numpy as np
import pytest

from atlaszarr import AllenClient, Displacement, open_volume
from atlaszarr.errors import ImageError, InputError
from atlaszarr.sections.alignment import align_sections
from atlaszarr.sections.planes import section_planes
from atlaszarr.testing.emulator import Emulator
from atlaszarr.transforms import compose, image_to_reference, reference_to_image, tier_affine
from codes import raises

DATASET = 74272479


@pytest.fixture
def emulator():
    with Emulator() as running:
        yield running


@pytest.fixture
def client(emulator):
    with AllenClient(emulator.url, cache="none", rate=1e9, backoff=0.01) as client:
        yield client


def requested_images(emulator):
    return [int(r.path.rsplit("/", 1)[-1]) for r in emulator.requests if r.kind == "section_image_download"]


def test_no_image_is_fetched_before_anything_is_computed(emulator, client):
    volume = open_volume(DATASET, resolution=100, client=client, displacement=True)
    assert volume.image.shape == (3, 132, 80, 114)
    assert volume.image.dtype == np.uint8
    assert volume.section.dtype == np.uint32
    assert volume.displacement.dtype == np.float64
    assert requested_images(emulator) == []


def test_each_image_is_fetched_once_for_all_chunks_and_variables(emulator, client):
    volume = open_volume(DATASET, resolution=100, client=client, chunk=16)
    image, section = dask.compute(volume.image.data, volume.section.data)
    requested = requested_images(emulator)
    assert len(requested) == len(set(requested))
    assert set(requested) == set(np.unique(section).tolist()) - {0}
    assert len(requested) > 50
    assert image.shape == (3, 132, 80, 114)


@pytest.mark.first(1)
@pytest.mark.parametrize("fill", ["nearest", "linear"])
def test_gaps_up_to_max_gap_are_filled(client, fill):
    dataset = client.section_dataset(DATASET)
    kept = [section for k, section in enumerate(dataset.sections) if k not in (20, 30, 31)]
    dataset = replace(dataset, sections=tuple(kept))

    def filled_voxels(**options):
        return np.count_nonzero(open_volume(dataset, 100, fill, client=client, **options).section.values)

    default = filled_voxels()
    assert filled_voxels(max_gap=1.5) < default == filled_voxels(max_gap=2.5) < filled_voxels(max_gap=3)


def test_a_block_fetches_only_the_images_it_samples(emulator, client):
    volume = open_volume(DATASET, resolution=100, client=client, chunk=16)
    section = volume.section[64:80, 32:48, 48:64].compute()
    assert set(requested_images(emulator)) == set(np.unique(section).tolist()) - {0}
    assert 0 < len(requested_images(emulator)) < 15


def test_an_empty_block_fetches_nothing(emulator, client):
    volume = open_volume(DATASET, resolution=100, client=client, chunk=16, background=7)
    corner = volume.isel(z=slice(0, 16), y=slice(0, 16), x=slice(0, 16)).compute()
    assert not corner.section.any()
    assert (corner.image == 7).all()
    assert requested_images(emulator) == []


def test_the_displacement_field_needs_no_image(emulator, client):
    volume = open_volume(DATASET, resolution=200, client=client, displacement=True)
    field = volume.displacement.compute()
    assert requested_images(emulator) == []
    section = volume.section.compute()
    np.testing.assert_array_equal(np.isnan(field.sel(component="x")), section == 0)
    widths = {s.image_id: s.width for s in client.section_dataset(DATASET).sections}
    seen = field.sel(component="x").values[section.values > 0]
    assert seen.min() >= -0.5
    assert seen.max() < max(widths.values()) - 0.5


def test_coordinates_are_in_millimetres_and_in_the_reference_space(client):
    volume = open_volume(DATASET, resolution=100, client=client)
    for axis, um in zip("zyx", ("p_um", "i_um", "r_um"), strict=True):
        np.testing.assert_allclose(volume[um], 1000 * volume[axis] + 5.0, rtol=0, atol=1e-9)
    assert volume.sel(z=6.6, method="nearest").p_um == pytest.approx(6650, abs=50)
    assert volume.attrs["reference_space"] == 9


def test_chunks_of_any_size_have_the_same_values(client):
    small, large = (open_volume(DATASET, resolution=200, client=client, chunk=c).compute() for c in (10, 64))
    assert small.equals(large)


def test_a_damaged_image_is_an_error_when_computed():
    faults = [{"match": {"path": "section_image_download/74081221"}, "do": "garbage", "times": None}]
    with Emulator(faults=faults) as emulator, AllenClient(emulator.url, "none", rate=1e9, retries=1) as client:
        volume = open_volume(DATASET, resolution=200, client=client)
        with pytest.raises(ImageError, match="74081221"):
            volume.section.compute()


def test_an_unknown_option_is_refused_with_the_choices(client):
    with raises(InputError, "unknown-option") as caught:
        open_volume(DATASET, client=client, fil="none")
    assert "'fil'" in str(caught.value)
    assert "fill" in str(caught.value)


def plane_of_a_section(section, dataset, downsample, shape, resolution):
    """The affine field of a coronal section treated as parallel to the plane at the centre of its image."""
    p, _, _ = image_to_reference(
        ((section.width - 1) / 2, (section.height - 1) / 2), section.depth, section.tsv, dataset.tvr
    )
    lying = [[0, 0, p], [0, resolution, resolution / 2], [resolution, 0, resolution / 2]]
    to_section = compose(compose(tier_affine(downsample), section.tvs), np.array(dataset.trv)[:2])
    return Displacement.from_affine(shape, compose(to_section, np.array(lying, float)))


@pytest.mark.slow
def test_the_fields_of_parallel_sections_agree_with_the_alignment_within_a_grey_level(client):
    dataset = client.section_dataset(DATASET)
    fields = {s.image_id: plane_of_a_section(s, dataset, 5, (80, 114), 100) for s in dataset.sections}
    own = open_volume(dataset, 100, client=client, downsample=5, displacement=True, fields=fields).compute()
    aligned = open_volume(dataset, 100, client=client, downsample=5, displacement=True).compute()
    both = (own.section > 0) & (aligned.section > 0)
    assert (own.section == aligned.section).where(both).sum() == both.sum()
    assert both.sum() > 0.98 * (aligned.section > 0).sum()
    difference = np.abs(own.image.astype(int) - aligned.image).where(both)
    assert difference.mean() < 1
    shift = np.abs(own.displacement - aligned.displacement).max()
    assert 1 < shift < 200  # full-resolution pixels: the tilt of the alignment within half an interval


@pytest.mark.parametrize("id", [DATASET, 69289763])
def test_a_volume_with_the_fields_of_planes_has_the_same_pixels(client, id):
    dataset = client.section_dataset(id)
    planes = section_planes(align_sections(dataset, 200), interpolation="lanczos")
    ids = [section.image_id for section in planes.imaged.sections]
    fields = dict(zip(ids, planes.displacements, strict=True))
    volume = open_volume(dataset, 200, client=client, interpolation="lanczos", fields=fields).compute()
    height, width = planes.shape
    compared = 0
    for position in range(2, len(ids), 9):
        request = planes.imaged.requests[position]
        rows, columns = slice(0, height), slice(0, width)
        box = planes.box(position, rows, columns)
        if box is None:
            continue
        left, top, right, bottom = box
        pixels = client.image(ids[position], request.downsample)[top:bottom, left:right]
        image, _ = planes.register(position, rows, columns, box, pixels)
        filled = np.argwhere((volume.section == ids[position]).values)
        values = volume.image.values[(slice(None), *filled.T)].T
        expected = image[filled[:, planes.plane.rows], filled[:, planes.plane.columns]]
        # The volume rounds float32, the plane float64.
        assert np.abs(values.astype(int) - expected).max(initial=0) <= 1
        compared += len(filled)
    assert compared > 1000


@pytest.mark.slow
def test_a_field_that_shifts_moves_the_image_by_the_same_distance(client):
    dataset = client.section_dataset(DATASET)
    affine = np.array([[3.0, 0.2, 40.0], [-0.1, 3.0, 20.0]])  # of the tier of all images
    moved = affine + np.array([[0, 0, 2 * 3.0 + 5 * 0.2], [0, 0, 2 * -0.1 + 5 * 3.0]])  # 2 columns and 5 rows on
    one, other = (
        open_volume(
            dataset,
            100,
            client=client,
            downsample=5,
            fields=dict.fromkeys([s.image_id for s in dataset.sections], Displacement.from_affine((80, 114), a)),
        )
        for a in (affine, moved)
    )
    before, after = dask.compute(one.image.data, other.image.data)
    inside = one.section.values[:, 5:, 2:] > 0
    inside &= one.section.values[:, 5:, 2:] == other.section.values[:, :-5, :-2]
    assert inside.sum() > 10_000
    difference = np.abs(before[:, :, 5:, 2:].astype(int) - after[:, :, :-5, :-2])[:, inside]
    assert difference.max() <= 1
    assert difference.mean() < 1e-3


def test_an_image_with_a_field_of_nan_is_not_fetched(emulator, client):
    dataset = client.section_dataset(DATASET)
    nowhere = Displacement.from_coordinates(*np.full((2, 40, 57), np.nan))
    hidden = [s.image_id for s in dataset.sections[20:25]]
    volume = open_volume(dataset, 200, client=client, fields=dict.fromkeys(hidden, nowhere))
    assert not np.isin(hidden, volume.section).any()
    requested = requested_images(emulator)
    assert len(requested) > 50
    assert not set(requested) & set(hidden)


def test_chunks_of_any_size_have_the_same_values_with_fields(client):
    dataset = client.section_dataset(DATASET)
    rng = np.random.default_rng(0)
    fields = {
        s.image_id: Displacement.from_coordinates(*rng.uniform(-20, 400, (2, 40, 57))) for s in dataset.sections[::3]
    }
    small, large = (
        open_volume(dataset, 200, "linear", client=client, interpolation="cubic", chunk=chunk, fields=fields).compute()
        for chunk in (10, 64)
    )
    assert small.equals(large)


def test_a_volume_with_fields_can_be_sent_to_another_process(client):
    dataset = client.section_dataset(DATASET)
    fields = {s.image_id: plane_of_a_section(s, dataset, 6, (40, 57), 200) for s in dataset.sections}
    volume = open_volume(dataset, 200, client=client, downsample=6, fields=fields)
    sent = pickle.loads(pickle.dumps(volume))
    assert sent.compute().equals(volume.compute())


def test_a_field_of_a_section_of_another_dataset_is_refused_before_images_are_fetched(emulator, client):
    foreign = client.section_dataset(69289763).sections[0].image_id
    with raises(InputError, "unknown-section") as caught:
        open_volume(DATASET, 200, client=client, fields={foreign: Displacement.identity((40, 57))})
    assert str(foreign) in str(caught.value)
    with raises(InputError, "shape-mismatch") as caught:
        open_volume(69289763, 200, client=client, fields={foreign: Displacement.identity((40, 57))})
    assert "40 x 57" in str(caught.value)
    assert requested_images(emulator) == []


def test_fields_that_are_not_by_section_are_refused(client):
    with raises(InputError, "wrong-type"):
        open_volume(DATASET, 200, client=client, fields=Displacement.identity((40, 57)))
    with raises(InputError, "wrong-type") as caught:
        open_volume(DATASET, 200, client=client, displacement={69177654: Displacement.identity((40, 57))})
    assert "to `fields`" in str(caught.value)


@pytest.mark.slow
def test_a_volume_of_large_images_fetches_windows_with_the_same_pixels(serve, connect):
    emulator = serve()
    client = connect(emulator)
    opened = open_volume(DATASET, 50, client=client, downsample=0, chunk=32)
    emulator.reset()
    block = opened.isel(z=slice(130, 140), y=slice(64, 96), x=slice(96, 128)).compute()
    windows = [request.query for request in emulator.requests]
    assert 0 < len(windows) == len({(request.path, str(request.query)) for request in emulator.requests})
    assert max(int(query[side]) for query in windows for side in ("width", "height")) <= 2048
    record = client.section_dataset(DATASET)
    for section in record.sections:
        inside = np.argwhere(block.section.values == section.image_id)
        if not len(inside):
            continue
        pir = (inside + np.array([130.5, 64.5, 96.5])) * 50.0
        xy, _ = reference_to_image(pir, section.tvs, record.trv)
        x, y = np.rint(xy).astype(int).T
        whole = client.image(section.image_id)
        difference = block.image.values[(slice(None), *inside.T)].T.astype(int) - whole[y, x]
        assert np.abs(difference).mean() < 1.0
