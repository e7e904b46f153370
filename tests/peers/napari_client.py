"""Holds the variants of `variants.py` to what napari-ome-zarr, ome-zarr-py and ome-types make of them.

Runs in an environment of one version of napari-ome-zarr, without atlaszarr and without a window. What a release makes
of a place is asserted, right or wrong, as the table of docs/reading.md says, so that a change of it is noticed.
"""

import contextlib
import io
import json
import os
import re
import sys
import warnings
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from checks import check, run
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari_ome_zarr._reader import napari_get_reader

warnings.simplefilter("ignore")
FOLDER = Path(os.environ["VARIANTS_FOLDER"])
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
NAPARI_OME_ZARR = version("napari-ome-zarr")
#: By version of OME-Zarr, where this release puts images: right (``yes``), at the origin without their translation
#: (``shifted``), or nowhere, since it raises (``refused``).
PAGE = (Path(__file__).parents[2] / "docs" / "reading.md").read_text()
RELEASE = re.escape(NAPARI_OME_ZARR.rpartition(".")[0])
(ROW,) = re.findall(rf"^\| napari-ome-zarr [^|]*\b{RELEASE}\b[^|]*\|(.*)\|$", PAGE, re.MULTILINE)
PLACES = dict(zip(("0.4", "0.5", "0.6"), map(str.strip, ROW.split("|")), strict=False))
CHANNELS = 3
#: Layers are made for one image of so many in a collection: napari takes half a second for the layers of one.
_EACH = 20


@cache
def read(name):
    """What the reader returns for a variant."""
    with contextlib.redirect_stdout(io.StringIO()):  # releases print what they read
        return napari_get_reader(str(FOLDER / name))(str(FOLDER / name))


@cache
def opened(name):
    """The layers of a variant, as napari shows them; of a collection those of every 20th image."""
    viewer, images = ViewerModel(), len(EXPECTED[name]["places"])
    each = len(read(name)) // images  # releases leave channels to napari, or give them one by one
    assert len(read(name)) == each * images
    for image in range(0, images, _EACH):
        for layer in read(name)[image * each : (image + 1) * each]:
            viewer._add_layer_from_data(*layer)
    return list(viewer.layers)


def named(kind):
    """The variants of a kind, with what is expected of each, and where this release puts it."""
    return {
        name: (found, PLACES[found["version"]])
        for name, found in EXPECTED.items()
        if found["kind"] == kind and PLACES[found["version"]] != "refused"
    }


def first_voxel(layer):
    return layer.data_to_world((0,) * layer.ndim)


def assert_places(layers, found, word, each):
    """Each image has `each` layers, one after the other, all at its place."""
    places = list(found["places"].values())[::_EACH]
    assert len(layers) == each * len(places), (len(layers), len(places))
    for number, layer in enumerate(layers):
        expected = places[number // each] if word == "yes" else [0, 0, 0]
        np.testing.assert_allclose(first_voxel(layer), expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(np.subtract(layer.data_to_world((1,) * 3), expected), found["scale"], atol=1e-9)


@check
def a_volume_opens_with_its_channels_and_label_where_the_table_says():
    words = {}
    for name, (found, word) in named("volume").items():
        layers = opened(name)
        assert [type(layer) for layer in layers] == [Image] * CHANNELS + [Labels]
        assert_places(layers, found, word, CHANNELS + 1)
        words[name] = word
    return ", ".join(f"{name}: {word}" for name, word in words.items())


@check
def a_collection_opens_with_all_sections_and_labels_where_the_table_says():
    words = {}
    for name, (found, word) in named("sections").items():
        assert_places(opened(name), found, word, CHANNELS + 1)
        kinds = [type(layer) for layer in opened(name)]
        assert kinds == ([Image] * CHANNELS + [Labels]) * len(list(found["places"])[::_EACH])
        words[name] = f"{word}, {len(found['places'])} sections"
    return ", ".join(f"{name}: {word}" for name, word in words.items())


@check
def volume_and_annotation_have_one_corner_exactly_where_places_are_right():
    for name, (found, word) in named("annotation").items():
        layers, volume = opened(name), opened(f"volume-{found['version']}.ome.zarr")[0]
        assert_places(layers, found, word, 1)
        corners = [layer.data_to_world((-0.5,) * 3) for layer in (layers[0], volume)]
        if word == "yes":
            np.testing.assert_allclose(*corners, rtol=0, atol=1e-9)
        else:
            np.testing.assert_allclose(np.subtract(*corners), 0.05, rtol=0, atol=1e-9)


@check
def a_version_that_a_release_does_not_know_raises():
    for name, found in EXPECTED.items():
        if PLACES[found["version"]] == "refused" and found["kind"] == "volume":
            try:
                opened(name)
            except ValueError:
                continue
            raise AssertionError(f"{name} opens")


if find_spec("ome_types"):
    import ome_types
    import xmlschema
    import zarr
    from ome_zarr import OMEZarrMultiscale
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    @cache
    def schema():
        """The schema of OME-XML of June 2016, as ome-types has it."""
        return xmlschema.XMLSchema(str(Path(ome_types.__file__).parent / "ome-2016-06.xsd"), allow="local")

    @check
    def the_list_of_a_collection_follows_the_schema_of_ome_xml():
        for name, found in EXPECTED.items():
            if found["kind"] == "sections":
                path = FOLDER / name / "OME" / "METADATA.ome.xml"
                schema().validate(str(path))
                images = ome_types.from_xml(path).images
                assert [image.id for image in images] == [f"Image:{path}" for path in found["places"]]
                for image, number in zip(images, found["sections"].values(), strict=True):
                    assert image.name.endswith(f", section {number}")
                    pixels = image.pixels
                    lengths = pixels.physical_size_z, pixels.physical_size_y, pixels.physical_size_x
                    assert list(lengths) == found["scale"]
                    assert pixels.physical_size_x_unit.value == "mm"
                    assert [one.name for one in pixels.channels] == ["red", "green", "blue"]
                    assert [one.color.as_hex(format="long") for one in pixels.channels] == [
                        "#ff0000",
                        "#00ff00",
                        "#0000ff",
                    ]

    @check
    def names_of_any_characters_follow_the_schema_too():
        schema().validate(str(FOLDER / "names.ome.xml"))
        first, *others = ome_types.from_xml(FOLDER / "names.ome.xml").images
        assert first.name == "<Image ID=\"Image:9\"/> & 'more' ]]>"
        assert len(others) == 3

    @check
    def ome_zarr_py_reads_axes_and_sizes_of_every_version():
        for name, found in EXPECTED.items():
            for path in list(found["places"])[:3]:
                image = OMEZarrMultiscale.from_ome_zarr(zarr.open_group(FOLDER / name / path, mode="r")).images[0]
                axes = ["z", "y", "x"] if found["kind"] == "annotation" else ["c", "z", "y", "x"]
                assert list(image.axes) == axes
                assert [image.scale[axis] for axis in "zyx"] == found["scale"]

    @check
    def the_older_reader_of_ome_zarr_py_reads_translations_of_0_4_and_0_5_and_other_axes_of_0_6():
        for version_of_ome, axes in (("0.4", "czyx"), ("0.5", "czyx"), ("0.6", "tczyx")):
            name = f"volume-{version_of_ome}.ome.zarr"
            node = next(iter(Reader(parse_url(FOLDER / name))()))
            assert "".join(axis["name"] for axis in node.metadata["axes"]) == axes
            assert node.data[0].ndim == 4
            if version_of_ome != "0.6":
                _, translation = node.metadata["coordinateTransformations"][0]
                assert translation["translation"][1:] == EXPECTED[name]["places"][""]


if __name__ == "__main__":
    sys.exit(run(f"napari-{NAPARI_OME_ZARR}"))
