"""OME-XML of a collection. The peers' run validates it with the schema of OME-XML."""

from xml.etree import ElementTree as ET

import pytest

from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.ome_xml import Described, ome_xml

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
GEOMETRY = Geometry((0.025, 0.2, 0.1), (1.0, 2.0, 3.0))
IMAGES = [Described("One", (1, 40, 57), GEOMETRY), Described("Two", (66, 40, 1), GEOMETRY)]
RGB = [("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF")]


def parsed(*given):
    return ET.fromstring(ome_xml(*given))


def test_each_image_has_the_number_of_its_group_as_id_its_name_sizes_and_physical_sizes():
    images = parsed(IMAGES, "uint8", RGB).findall(f"{OME}Image")
    assert [(image.get("ID"), image.get("Name")) for image in images] == [("Image:0", "One"), ("Image:1", "Two")]
    pixels = [image.find(f"{OME}Pixels") for image in images]
    assert [[one.get(f"Size{axis}") for axis in "XYZCT"] for one in pixels] == [
        ["57", "40", "1", "3", "1"],
        ["1", "40", "66", "3", "1"],
    ]
    assert [float(pixels[0].get(f"PhysicalSize{axis}")) for axis in "XYZ"] == [0.1, 0.2, 0.025]
    assert {pixels[0].get(f"PhysicalSize{axis}Unit") for axis in "XYZ"} == {"mm"}


def test_channels_have_names_and_colours_as_signed_integers():
    channels = parsed(IMAGES[:1], "uint8", RGB).findall(f".//{OME}Channel")
    assert [(one.get("Name"), one.get("Color")) for one in channels] == [
        ("red", "-16776961"),
        ("green", "16711935"),
        ("blue", "65535"),
    ]
    (grey,) = parsed(IMAGES[:1], "uint8", [("", "FFFFFF")]).findall(f".//{OME}Channel")
    assert (grey.get("Name"), grey.get("Color")) == (None, "-1")


@pytest.mark.parametrize(
    ("dtype", "named"), [("uint8", "uint8"), ("int16", "int16"), ("float32", "float"), ("float64", "double")]
)
def test_dtypes_have_the_names_of_ome_xml(dtype, named):
    assert parsed(IMAGES, dtype, RGB).find(f".//{OME}Pixels").get("Type") == named


@pytest.mark.parametrize("dtype", ["uint64", "int64", "float16"])
def test_a_dtype_that_ome_xml_has_no_name_for_has_no_document(dtype):
    assert ome_xml(IMAGES, dtype, RGB) is None


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("<Image/> & \"quotes\" 'n' ]]>", "<Image/> & \"quotes\" 'n' ]]>"),
        ("Nrp1 αβ µ 脳", "Nrp1 αβ µ 脳"),
        ("a\x00b\x1b[31mc\nd\te", "a\\x00b\\x1b[31mc\\nd\\te"),
        ("half \ud800 of a character", "half \\ud800 of a character"),
        ("no character \ufffe", "no character \\ufffe"),
    ],
)
def test_any_name_makes_valid_xml_and_characters_that_xml_lacks_are_escaped_as_python_does(name, read):
    root = parsed([Described(name, (1, 2, 3), GEOMETRY)], "uint8", [(name, "FFFFFF")])
    assert root.find(f"{OME}Image").get("Name") == read
    assert root.find(f".//{OME}Channel").get("Name") == read
