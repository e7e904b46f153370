"""Lazy Datasets with images that cannot be fetched: an error, or filled, listed and warned of."""

from __future__ import annotations

import copy
import json
import pickle
import warnings

import numpy as np
import pytest

from atlaszarr.errors import AtlaszarrWarning, InputError, ServiceError
from atlaszarr.sections.lazy_sections import iter_sections, open_sections
from atlaszarr.sections.lazy_volume import open_volume
from codes import raises

#: The third of the six sections of the `records` fixture.
IMAGE = 74081221
GONE = [{"match": {"path": f"section_image_download/{IMAGE}"}, "times": None, "do": "status", "status": 404}]


@pytest.fixture
def lacking(serve, connect):
    """A client whose service lacks one image."""
    return connect(serve(faults=GONE))


@pytest.mark.parametrize("opened", [open_sections, open_volume])
def test_a_missing_image_is_an_error_by_default(lacking, dataset, opened):
    data = opened(dataset, 200.0, client=lacking)
    assert "missing" not in data.attrs
    with raises(ServiceError, "http-status") as caught:
        data.compute()
    assert str(IMAGE) in str(caught.value)


@pytest.mark.parametrize("opened", [open_sections, open_volume])
def test_with_fill_a_missing_image_is_listed_and_warned_of(lacking, dataset, opened):
    data = opened(dataset, 200.0, on_missing="fill", background=7, client=lacking)
    assert data.attrs["missing"] == []
    with pytest.warns(AtlaszarrWarning, match=f"section image {IMAGE} is missing"):
        values = data.compute()
    assert data.attrs["missing"] == values.attrs["missing"] == [IMAGE]
    assert json.loads(json.dumps(values.attrs))["missing"] == [IMAGE]


def test_a_volume_without_one_image_is_background_there_and_equal_elsewhere(serve, connect, lacking, dataset):
    whole = open_volume(dataset, 200.0, client=connect(serve()), background=7).compute()
    with pytest.warns(AtlaszarrWarning, match=str(IMAGE)):
        filled = open_volume(dataset, 200.0, on_missing="fill", background=7, client=lacking).compute()
    there = whole.section.values == IMAGE
    assert there.any()
    assert (filled.section.values[there] == 0).all()
    assert (filled.image.values[:, there] == 7).all()
    assert (filled.section.values[~there] == whole.section.values[~there]).all()
    assert (filled.image.values[:, ~there] == whole.image.values[:, ~there]).all()


def test_planes_without_one_image_are_background_there_and_equal_elsewhere(serve, connect, lacking, dataset):
    whole = open_sections(dataset, 200.0, client=connect(serve())).compute()
    opened = open_sections(dataset, 200.0, on_missing="fill", client=lacking)
    with pytest.warns(AtlaszarrWarning, match=str(IMAGE)):
        filled = opened.compute()
    assert (filled.image[2] == 0).all()
    assert whole.image[2].any()
    assert filled.drop_isel(section=2).image.identical(whole.drop_isel(section=2).image)


def test_no_image_is_listed_if_only_others_are_computed(lacking, dataset):
    data = open_sections(dataset, 200.0, on_missing="fill", client=lacking)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.isel(section=[0, 1]).compute()
    assert data.attrs["missing"] == []


def test_iter_sections_goes_past_a_missing_image(lacking, dataset):
    data = open_sections(dataset, 200.0, on_missing="fill", background=9, client=lacking)
    with pytest.warns(AtlaszarrWarning, match=str(IMAGE)):
        sections = list(iter_sections(data))
    assert [section.image_id for section in sections] == data.image_id.values.tolist()
    assert [bool((section.image == 9).all()) for section in sections] == [n == 2 for n in range(6)]
    assert data.attrs["missing"] == [IMAGE]


def test_iter_sections_fills_the_windows_of_a_large_image(serve, connect, records):
    records[1][2] |= {"width": 20000, "height": 12000}
    client = connect(serve(*records, faults=GONE))
    data = open_sections(records[0][0]["id"], 2.0, on_missing="fill", client=client).isel(section=2)
    (section,) = iter_sections(data)
    assert section.image.npartitions > 1
    with pytest.warns(AtlaszarrWarning, match=str(IMAGE)):
        corner = section.image[:100, :100].compute()
    assert not corner.any()
    assert data.attrs["missing"] == [IMAGE]


def test_two_datasets_have_lists_of_their_own(serve, connect, lacking, dataset):
    whole = open_volume(dataset, 200.0, on_missing="fill", client=connect(serve()))
    data = open_volume(dataset, 200.0, on_missing="fill", client=lacking)
    with pytest.warns(AtlaszarrWarning, match=str(IMAGE)):
        data.compute()
    assert (data.attrs["missing"], whole.attrs["missing"]) == ([IMAGE], [])


@pytest.mark.parametrize("copied", [pickle.loads, copy.deepcopy])
def test_a_copy_of_the_dataset_reports_too(lacking, dataset, copied):
    data = open_volume(dataset, 200.0, on_missing="fill", client=lacking)
    again = copied(pickle.dumps(data) if copied is pickle.loads else data)
    with pytest.warns(AtlaszarrWarning, match=str(IMAGE)):
        values = again.compute()
    assert values.attrs["missing"] == again.attrs["missing"] == data.attrs["missing"] == [IMAGE]


@pytest.mark.parametrize("opened", [open_sections, open_volume])
def test_another_value_is_refused(lacking, dataset, opened):
    with raises(InputError, "unknown-value") as caught:
        opened(dataset, on_missing="ignore", client=lacking)
    assert "'ignore'" in str(caught.value)
    assert "raise, fill" in str(caught.value)


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_images_that_workers_of_a_cluster_lack_are_listed(lacking, dataset, processes):
    from distributed import Client, LocalCluster

    data = open_volume(dataset, 200.0, on_missing="fill", client=lacking)
    with (
        LocalCluster(
            n_workers=1 if processes else 2, threads_per_worker=1, processes=processes, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        with pytest.warns(AtlaszarrWarning, match=str(IMAGE)):
            values = data.compute()
        assert values.attrs["missing"] == [IMAGE]
    assert data.attrs["missing"] == [IMAGE]
    assert np.count_nonzero(values.section.values == IMAGE) == 0
