"""What is read of an OME-Zarr's metadata, whichever version of it and whoever wrote it."""

import json

import numpy as np
import pytest

from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.ome_reader import StoredImage
from atlaszarr.errors import InputError
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales

GEOMETRY = Geometry((0.025, 0.05, 0.1), (1.0, 2.0, 3.0), "millimeter", {"x": "right-to-left"})


@pytest.fixture
def edit(tmp_path):
    """An image whose metadata a function changes: ``edit(lambda multiscales: ...)``."""

    def change(function, version="0.5"):
        place = tmp_path / "x.ome.zarr"
        write_multiscales(np.ones((8, 8, 8), "u1"), place, rule="mode", geometry=GEOMETRY, chunk=4, ome_zarr=version)
        path = place / ("zarr.json" if version != "0.4" else ".zattrs")
        document = json.loads(path.read_text())
        attributes = document.get("attributes", document)
        function(attributes.get("ome", attributes)["multiscales"][0])
        path.write_text(json.dumps(document))
        return Target(str(place))

    return change


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_levels_lie_where_they_were_written(edit, version):
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
    ("change", "words"),
    [
        (lambda entry: entry["axes"].reverse(), "has the axes x, y, z; they must end in z, y, x"),
        (lambda entry: entry["axes"][0].update(unit="micrometer"), "axes of different units, micrometer, millimeter"),
        (lambda entry: entry["datasets"][0].pop("path"), "has damaged OME-Zarr metadata"),
        (lambda entry: entry["datasets"][0]["coordinateTransformations"][0].update(type="affine"), "type 'affine'"),
        (
            lambda entry: entry["datasets"][0]["coordinateTransformations"][0].update(scale=[1]),
            r"has the scale \[1\]; it must be 3 positive",
        ),
    ],
    ids=["axes", "units", "path", "affine", "scale"],
)
def test_metadata_that_cannot_be_measured_are_refused_in_a_sentence(edit, change, words):
    with pytest.raises(InputError, match=words):
        StoredImage.at(edit(change)).geometries  # noqa: B018 - reads them


def test_an_unfinished_target_is_named_as_one(edit):
    target = edit(lambda _: None)
    document = json.loads(target.read("zarr.json"))
    document["attributes"] = {"atlaszarr": {"state": "unfinished"}}
    target.write("zarr.json", json.dumps(document).encode())
    with pytest.raises(InputError, match="is unfinished; build it again to resume"):
        StoredImage.at(target)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"attributes": 3}'], ids=repr)
def test_metadata_that_are_none_are_named(edit, body):
    target = edit(lambda _: None)
    target.write("zarr.json", body)
    with pytest.raises(InputError, match=r"zarr\.json is not the metadata of an image"):
        StoredImage.at(target)


@pytest.mark.parametrize("body", [None, b"{}", b"{"], ids=repr)
def test_an_array_that_is_none_is_named(edit, body):
    target = edit(lambda _: None)
    target.remove("1/zarr.json")
    if body is not None:
        target.write("1/zarr.json", body)
    with pytest.raises(InputError, match="1"):
        StoredImage.at(target).labels(0)
