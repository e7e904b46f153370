"""Reading the metadata of an OME-Zarr of any version, written by any program."""

import json

import numpy as np
import pytest

from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.ome_reader import StoredImage
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from codes import raises

GEOMETRY = Geometry((0.025, 0.05, 0.1), (1.0, 2.0, 3.0), "millimeter", {"x": "right-to-left"})


@pytest.fixture
def edit(tmp_path):
    """Write an image and change its metadata by a function: ``edit(lambda multiscales: ...)``."""

    def change(function, version="0.5"):
        folder = tmp_path / "x.ome.zarr"
        write_multiscales(np.ones((8, 8, 8), "u1"), folder, rule="mode", geometry=GEOMETRY, chunk=4, ome_zarr=version)
        path = folder / ("zarr.json" if version != "0.4" else ".zattrs")
        document = json.loads(path.read_text())
        attributes = document.get("attributes", document)
        function(attributes.get("ome", attributes)["multiscales"][0])
        path.write_text(json.dumps(document))
        return Target(str(folder))

    return change


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_levels_have_the_geometry_that_was_written(edit, version):
    image = StoredImage.at(edit(lambda _: None, version))
    assert image.geometries == (
        GEOMETRY,
        Geometry((0.05, 0.1, 0.2), (1.0125, 2.025, 3.05), "millimeter", {"x": "right-to-left"}),
    )
    assert [image.labels(level).shape for level in (0, 1)] == [(8, 8, 8), (4, 4, 4)]


def test_a_transformation_of_all_levels_follows_those_of_each(edit):
    steps = [{"type": "scale", "scale": [2.0, 2.0, 2.0]}, {"type": "translation", "translation": [1.0, 0.0, 0.0]}]
    image = StoredImage.at(edit(lambda entry: entry.update(coordinateTransformations=steps)))
    assert image.geometries[0].scale == (0.05, 0.1, 0.2)
    assert image.geometries[0].translation == (3.0, 4.0, 6.0)


def test_the_orientation_key_of_the_older_draft_is_read(edit):
    def older(entry):
        for axis in entry["axes"]:
            if "orientation" in axis:
                axis["orientation"] = {"type": "anatomical", "direction": axis["orientation"]["value"]}

    assert StoredImage.at(edit(older)).geometries[0].orientation == {"x": "right-to-left"}


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        (lambda entry: entry["axes"][0].update(name="w"), "missing-axis", "w, y, x"),
        (lambda entry: entry["axes"][0].update(unit="pixel"), "different-units", "millimeter, pixel"),
        (lambda entry: entry["datasets"][0].pop("path"), "damaged-metadata", "path"),
        (
            lambda entry: entry["datasets"][0]["coordinateTransformations"][0].update(type="displacements"),
            "unsupported-transformation",
            "'displacements'",
        ),
        (
            lambda entry: entry["datasets"][0]["coordinateTransformations"][0].update(scale=[1]),
            "invalid-transformation",
            "[1]",
        ),
    ],
    ids=["axes", "units", "path", "displacements", "scale"],
)
def test_metadata_without_a_geometry_is_refused_and_the_value_named(edit, change, code, named):
    with raises(InputError, code) as caught:
        StoredImage.at(edit(change)).geometries  # noqa: B018 - reads them
    assert named in str(caught.value)


def test_an_unfinished_target_is_refused(edit):
    target = edit(lambda _: None)
    document = json.loads(target.read("zarr.json"))
    document["attributes"] = {"atlaszarr": {"state": "unfinished"}}
    target.write("zarr.json", json.dumps(document).encode())
    with raises(InputError, "target-unfinished"):
        StoredImage.at(target)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"attributes": 3}'], ids=repr)
def test_a_document_that_is_not_metadata_is_named(edit, body):
    target = edit(lambda _: None)
    target.write("zarr.json", body)
    with raises(InputError, "damaged-metadata") as caught:
        StoredImage.at(target)
    assert f"{target.url}/zarr.json" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "code"), [(None, "array-not-found"), (b"{}", "damaged-metadata"), (b"{", "damaged-metadata")], ids=repr
)
def test_an_array_without_valid_metadata_is_named(edit, body, code):
    target = edit(lambda _: None)
    target.remove("1/zarr.json")
    if body is not None:
        target.write("1/zarr.json", body)
    with raises(InputError, code) as caught:
        StoredImage.at(target).labels(0)
    assert f"{target.url}/1" in str(caught.value)


def test_a_level_that_does_not_exist_is_named(edit):
    with raises(InputError, "level-not-found") as caught:
        StoredImage.at(edit(lambda _: None)).labels(2)
    assert "2" in str(caught.value)


def test_a_folder_without_an_image_is_named(tmp_path):
    with raises(InputError, "not-an-image") as caught:
        StoredImage.at(Target(str(tmp_path)))
    assert str(tmp_path) in str(caught.value)
