"""Make ``OME/METADATA.ome.xml``: the images of a collection in OME-XML, as the layout of bioformats2raw asks for.

napari-ome-zarr finds the images of a collection by it, and takes the group of each from its ID.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from ..boxes import Shape
from ..errors import escaped
from ..versions import version
from .ome import Geometry

KEY = "OME/METADATA.ome.xml"
_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
#: Pixel types of OME-XML, by dtype; it has none for integers of 64 bits and floating point numbers of 16 bits.
_TYPES = {
    **{name: name for name in ("int8", "int16", "int32", "uint8", "uint16", "uint32")},
    "float32": "float",
    "float64": "double",
}


@dataclass(frozen=True)
class Described:
    """An image of a collection.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Of level 0, along (z, y, x).
    geometry : Geometry
        Of level 0, in mm.
    """

    name: str
    shape: Shape
    geometry: Geometry


def ome_xml(images: Iterable[Described], dtype: str, channels: Sequence[tuple[str, str]]) -> bytes | None:
    """The OME-XML of a collection; image k is in the group ``k``, and its ID is ``Image:k``.

    Parameters
    ----------
    images : iterable of Described
    dtype : str
    channels : sequence of (str, str)
        Name and colour of each channel, the colour as ``RRGGBB``; without a name ``""``.

    Returns
    -------
    bytes or None
        None if OME-XML has no name for `dtype`.

    Notes
    -----
    Elements and their order are those of the schema of June 2016, https://www.openmicroscopy.org/Schemas/OME/2016-06.
    """
    if dtype not in _TYPES:
        return None
    root = ET.Element(
        "OME",
        {
            "xmlns": _NAMESPACE,
            "xmlns:xsi": _INSTANCE,
            "xsi:schemaLocation": f"{_NAMESPACE} {_NAMESPACE}/ome.xsd",
            "Creator": f"atlaszarr {version()}",
        },
    )
    for k, image in enumerate(images):
        element = ET.SubElement(root, "Image", {"ID": f"Image:{k}", "Name": escaped(image.name)})
        sizes = {f"Size{axis}": str(size) for axis, size in zip("ZYX", image.shape, strict=True)}
        lengths = {f"PhysicalSize{axis}": repr(size) for axis, size in zip("ZYX", image.geometry.scale, strict=True)}
        units = {f"PhysicalSize{axis}Unit": "mm" for axis in "ZYX"}
        fixed = {"ID": f"Pixels:{k}", "DimensionOrder": "XYZCT", "Type": _TYPES[dtype], "BigEndian": "false"}
        counts = {"SizeC": str(len(channels)), "SizeT": "1"}
        pixels = ET.SubElement(element, "Pixels", {**fixed, **sizes, **counts, **lengths, **units})
        for number, (name, colour) in enumerate(channels):
            named = {"Name": escaped(name)} if name else {}
            more = {"Color": str(_colour(colour)), "SamplesPerPixel": "1"}
            ET.SubElement(pixels, "Channel", {"ID": f"Channel:{k}:{number}", **named, **more})
        ET.SubElement(pixels, "MetadataOnly")
    ET.indent(root, " ")
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _colour(colour: str) -> int:
    """An opaque colour as OME-XML has it: red, green, blue and opacity as the bytes of a signed integer of 32 bits."""
    return int.from_bytes(bytes.fromhex(f"{colour}FF"), "big", signed=True)
