"""Development versions of OME-Zarr are read where all of their metadata are understood, and otherwise refused."""

import copy
import json

import ngff_zarr
import numpy as np
import pytest

import institute_assets as institute
import lumps
from atlaszarr import region_volumes
from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.ome_reader import StoredImage
from atlaszarr.errors import InputError
from atlaszarr.geometry.plane import PLANES
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.previews.annotation_planes import label_planes
from atlaszarr.reference_volumes import open_annotation
from atlaszarr.stores.target import Target
from codes import raises
from institute_assets import LABELS, SET

GEOMETRIES = tuple(
    Geometry((0.2 * 2**level,) * 3, institute.START, "millimeter", dict(zip("zyx", institute.RAS, strict=True)))
    for level in (0, 1)
)


def development(version="0.6.dev3", *, is_single=True, is_named=False, is_next_to=False):
    """The metadata of the Institute's labels in a development version.

    The transformation of a level is one (or a list of one), its ends are names (or documents with names), and the
    coordinate systems are in the image or next to ``multiscales``.
    """
    ome = institute.multiscales()
    (entry,) = ome["multiscales"]
    systems = [{"name": "physical", "axes": entry.pop("axes")}]
    (ome if is_next_to else entry)["coordinateSystems"] = systems
    for level in entry["datasets"]:
        ends = {"input": level["path"], "output": "physical"}
        if is_named:
            ends = {"input": {"path": level["path"]}, "output": {"name": "physical"}}
        step = {"type": "sequence", "transformations": level["coordinateTransformations"], **ends}
        level["coordinateTransformations"] = step if is_single else [step]
    return ome | {"version": version}


SHAPES = {
    "names, in the image": {},
    "names, next to multiscales": {"is_next_to": True},
    "a list of one": {"is_single": False},
    "a list of one, next to multiscales": {"is_single": False, "is_next_to": True},
    "documents": {"is_named": True},
    "dev4": {"version": "0.6.dev4", "is_named": True, "is_single": False},
    "a release candidate": {"version": "0.6rc0", "is_next_to": True},
    "a later version": {"version": "0.9.dev1", "is_named": True},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return institute.write_tree(tmp_path_factory.mktemp("development"))


@pytest.fixture
def image(tree):
    """Changes the metadata of the labels: ``image(ome)`` -> path."""

    def change(ome):
        path = tree / LABELS / "zarr.json"
        document = json.loads(path.read_text())
        document["attributes"]["ome"] = ome
        path.write_text(json.dumps(document))
        return tree / LABELS

    return change


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_understood_is_read_by_every_reader(tree, image, shape, tmp_path):
    found = StoredImage.at(Target(str(image(development(**SHAPES[shape])))))
    assert found.geometries == GEOMETRIES
    assert (found.names, found.paths) == (("c", "z", "y", "x"), ("s0", "s1"))
    table = region_volumes(tree / SET, by_hemisphere=True)
    assert table.loc["MBA:10", "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)
    (plane,) = label_planes(tree / SET, PLANES["coronal"], [5100.0], 200.0, reference_space(9))
    np.testing.assert_array_equal(plane.labels == 1, lumps.labels()[25] == 10)
    with open_annotation(tree / SET, tmp_path) as volume:
        np.testing.assert_array_equal(np.asarray(volume.array) == 1, lumps.labels() == 10)


@pytest.mark.parametrize("where", ["image", "next to multiscales"])
def test_a_further_coordinate_system_is_followed(image, where):
    ome = development(is_next_to=True)
    ome["coordinateSystems"].append({"name": "moved", "axes": ome["coordinateSystems"][0]["axes"]})
    shift = {"type": "translation", "translation": [0.0, 1.0, 2.0, 3.0], "input": "physical", "output": "moved"}
    (ome["multiscales"][0] if where == "image" else ome)["coordinateTransformations"] = [shift]
    start = StoredImage.at(Target(str(image(ome)))).geometries[0].translation
    assert start == pytest.approx((-5.0, -7.5, -2.6))


def test_axes_that_repeat_those_of_the_coordinate_system_are_read(image):
    ome = development()
    ome["multiscales"][0]["axes"] = copy.deepcopy(ome["multiscales"][0]["coordinateSystems"][0]["axes"])
    assert StoredImage.at(Target(str(image(ome)))).geometries == GEOMETRIES


def test_a_development_version_without_coordinate_systems_is_read_like_the_published_one(image):
    ome = institute.multiscales() | {"version": "0.5-dev"}
    assert StoredImage.at(Target(str(image(ome)))).geometries == GEOMETRIES


def level(ome):
    return ome["multiscales"][0]["datasets"][0]


CHANGES = {
    "next to multiscales": (lambda ome: ome.update(scene={}), "'scene'"),
    "in the image": (lambda ome: ome["multiscales"][0].update(warp="x"), "'warp'"),
    "in a level": (lambda ome: level(ome).update(offset=[1]), "'offset'"),
    "in a system": (lambda ome: ome["multiscales"][0]["coordinateSystems"][0].update(parent="x"), "'parent'"),
    "in an axis": (
        lambda ome: ome["multiscales"][0]["coordinateSystems"][0]["axes"][1].update(anatomicalOrientation="x"),
        "'anatomicalOrientation'",
    ),
    "in an orientation": (
        lambda ome: ome["multiscales"][0]["coordinateSystems"][0]["axes"][1]["orientation"].update(frame="x"),
        "'frame'",
    ),
    "in a transformation": (lambda ome: level(ome)["coordinateTransformations"].update(inverse=True), "'inverse'"),
    "in a nested transformation": (
        lambda ome: level(ome)["coordinateTransformations"]["transformations"][0].update(path="scales"),
        "'path'",
    ),
    "in a reference": (
        lambda ome: level(ome)["coordinateTransformations"].update(output={"name": "physical", "time": 1}),
        "'time'",
    ),
    "an output": (lambda ome: level(ome)["coordinateTransformations"].update(output="world"), "'world'"),
    "no output": (lambda ome: level(ome)["coordinateTransformations"].pop("output"), "None"),
    "an input": (
        lambda ome: ome.update(coordinateTransformations=[{"type": "identity", "input": "x", "output": "physical"}]),
        "'x'",
    ),
    "an input that is no array": (
        lambda ome: level(ome)["coordinateTransformations"].update(input="physical"),
        "one coordinate system",
    ),
    "another image": (
        lambda ome: ome.update(
            coordinateTransformations=[
                {"type": "identity", "input": {"path": "a.zarr", "name": "physical"}, "output": "physical"}
            ]
        ),
        "a.zarr",
    ),
    "two of a level": (
        lambda ome: level(ome).update(coordinateTransformations=[level(ome)["coordinateTransformations"]] * 2),
        "2 transformations",
    ),
    "other axes": (lambda ome: ome["multiscales"][0].update(axes=institute.axes()[::-1]), "axes that differ"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_understood_is_named_with_the_version(image, change):
    ome = development()
    edit, named = CHANGES[change]
    edit(ome)
    with raises(InputError, "unsupported-version") as caught:
        StoredImage.at(Target(str(image(ome))))
    assert "0.6.dev3" in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize("kind", ["displacements", "coordinates", "bijection", "warpDrive"])
def test_an_unknown_kind_of_transformation_is_named(image, kind):
    ome = development()
    level(ome)["coordinateTransformations"]["transformations"].append({"type": kind, kind: [1.0]})
    with raises(InputError, "unsupported-transformation") as caught:
        StoredImage.at(Target(str(image(ome))))
    assert repr(kind) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda ome: ome["multiscales"][0].update(coordinateSystems=3),
        lambda ome: ome["multiscales"][0].update(coordinateSystems=[3]),
        lambda ome: ome["multiscales"][0].update(datasets=[3]),
        lambda ome: ome["multiscales"][0].update(datasets=[]),
        lambda ome: level(ome).update(coordinateTransformations=[3]),
        lambda ome: level(ome)["coordinateTransformations"].update(transformations=[3]),
        lambda ome: level(ome)["coordinateTransformations"].pop("type"),
        lambda ome: level(ome)["coordinateTransformations"].update(output=[1]),
    ],
)
def test_damaged_metadata_of_a_development_version_are_refused(image, change):
    ome = development()
    change(ome)
    with pytest.raises(InputError) as caught:
        StoredImage.at(Target(str(image(ome))))
    assert caught.value.code in ("damaged-metadata", "unsupported-version")


@pytest.mark.parametrize("version", ["0.5", "0.5.2", "0.6"])
def test_a_further_key_of_a_published_version_is_ignored(image, version):
    ome = institute.multiscales() | {"version": version, "scene": {}}
    assert StoredImage.at(Target(str(image(ome)))).geometries == GEOMETRIES


# itkwasm sets the shape of an array, which NumPy 2.5 warns of.
@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")
@pytest.mark.parametrize("version", ["0.6", "0.9.dev1"])
def test_an_image_of_ngff_zarr_in_a_development_version_is_read(tmp_path, version):
    size, start = {"z": 0.1, "y": 0.2, "x": 0.4}, {"z": 1.0, "y": 2.0, "x": 3.0}
    units = dict.fromkeys("zyx", "millimeter")
    image = ngff_zarr.to_ngff_image(np.ones((8, 8, 8), "u4"), list("zyx"), size, start, axes_units=units)
    pyramid = ngff_zarr.to_multiscales(image, [2], cache=False)
    ngff_zarr.to_ngff_zarr(str(tmp_path / "x.ome.zarr"), pyramid, version=version)
    found = StoredImage.at(Target(str(tmp_path / "x.ome.zarr")))
    assert found.version == version
    assert found.geometries[1].scale == (0.2, 0.4, 0.8)
    assert found.geometries[1].translation == pytest.approx((1.05, 2.1, 3.2))
