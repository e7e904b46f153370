"""open_volume: lazy, exact about what it needs, the same data that a build writes."""

import dask
import numpy as np
import pytest

from atlaszarr import AllenClient, open_volume
from atlaszarr.errors import ImageError, InputError
from atlaszarr.testing.emulator import Emulator

DATASET = 74272479


@pytest.fixture
def emulator():
    with Emulator() as running:
        yield running


@pytest.fixture
def client(emulator):
    with AllenClient(emulator.url, cache="none", rate=1e9, backoff=0.01) as client:
        yield client


def images_asked(emulator):
    return [int(r.path.rsplit("/", 1)[-1]) for r in emulator.requests if r.kind == "section_image_download"]


def test_no_image_is_fetched_before_anything_is_computed(emulator, client):
    volume = open_volume(DATASET, resolution=100, client=client, displacement=True)
    assert volume.image.shape == (3, 132, 80, 114)
    assert volume.image.dtype == np.uint8
    assert volume.section.dtype == np.uint32
    assert volume.displacement.dtype == np.float64
    assert images_asked(emulator) == []


def test_each_image_is_fetched_once_however_many_chunks_and_variables_show_it(emulator, client):
    volume = open_volume(DATASET, resolution=100, client=client, chunk=16)
    image, section = dask.compute(volume.image.data, volume.section.data)
    asked = images_asked(emulator)
    assert len(asked) == len(set(asked))
    assert set(asked) == set(np.unique(section).tolist()) - {0}
    assert len(asked) > 50
    assert image.shape == (3, 132, 80, 114)


def test_a_block_asks_only_for_the_images_it_shows(emulator, client):
    volume = open_volume(DATASET, resolution=100, client=client, chunk=16)
    section = volume.section[64:80, 32:48, 48:64].compute()
    assert set(images_asked(emulator)) == set(np.unique(section).tolist()) - {0}
    assert 0 < len(images_asked(emulator)) < 15


def test_a_block_that_geometry_leaves_empty_asks_for_nothing(emulator, client):
    volume = open_volume(DATASET, resolution=100, client=client, chunk=16, background=7)
    corner = volume.isel(z=slice(0, 16), y=slice(0, 16), x=slice(0, 16)).compute()
    assert not corner.section.any()
    assert (corner.image == 7).all()
    assert images_asked(emulator) == []


def test_the_displacement_field_needs_no_image(emulator, client):
    volume = open_volume(DATASET, resolution=200, client=client, displacement=True)
    field = volume.displacement.compute()
    assert images_asked(emulator) == []
    section = volume.section.compute()
    np.testing.assert_array_equal(np.isnan(field.sel(component="x")), section == 0)
    widths = {s.image_id: s.width for s in client.section_dataset(DATASET).sections}
    seen = field.sel(component="x").values[section.values > 0]
    assert seen.min() >= -0.5
    assert seen.max() < max(widths.values()) - 0.5


def test_coordinates_are_millimetres_beside_the_reference_space(client):
    volume = open_volume(DATASET, resolution=100, client=client)
    for axis, um in zip("zyx", ("p_um", "i_um", "r_um"), strict=True):
        np.testing.assert_allclose(volume[um], 1000 * volume[axis] + 5.0, rtol=0, atol=1e-9)
    assert volume.sel(z=6.6, method="nearest").p_um == pytest.approx(6650, abs=50)
    assert volume.attrs["reference_space"] == 9


def test_chunks_of_any_size_hold_the_same(client):
    small, large = (open_volume(DATASET, resolution=200, client=client, chunk=c).compute() for c in (10, 64))
    assert small.equals(large)


def test_an_image_that_cannot_be_had_is_an_error_when_computed():
    faults = [{"match": {"path": "section_image_download/74081221"}, "do": "garbage", "times": None}]
    with Emulator(faults=faults) as emulator, AllenClient(emulator.url, cache="none", rate=1e9) as client:
        volume = open_volume(DATASET, resolution=200, client=client)
        with pytest.raises(ImageError, match="74081221"):
            volume.section.compute()


def test_an_unknown_option_is_refused_with_the_known_ones(client):
    with pytest.raises(InputError, match=r"'fil' is not known; .*choose from .*fill"):
        open_volume(DATASET, client=client, fil="none")
