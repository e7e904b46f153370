"""The rules for the OME-Zarr images and the segmentations of an asset, by their metadata alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

from ..engine.ledger import Defect
from ..engine.ome_reader import StoredImage
from ..engine.zarr_reader import StoredArray
from ..errors import InputError, TargetError, brief
from ..stores.target import Target
from .document_rules import fault_of_reading, first_of, is_text, microns, read_object
from .names import ANNOTATION_VALUES, MASKS, PART, TEMPLATE, below

#: Codecs of zarr that compress.
_COMPRESSORS = re.compile(r'"(numcodecs\.)?(zstd|blosc|gzip|zlib|bz2|lzma|lz4)"')
#: The oldest version of OME-Zarr of the standard, and the first two numbers of any version.
_OLDEST = (0, 5)
_NUMBERS = re.compile(r"(\d{1,9})\.(\d{1,9})(?!\d)", re.ASCII)
#: A folder in a segmentation, by an info, and its most characters: a key of S3 has 1024 bytes at most.
_FOLDER = re.compile(rf"{PART}(/{PART})*/?")
_LONGEST_FOLDER = 500


def image_findings(root: Target, folder: str, name: str, scales: Any) -> Iterator[Defect]:
    """What is wrong with the metadata of an image.

    Parameters
    ----------
    root : Target
    folder : str
        Of the image, relative to the root.
    name : str
        Of the image.
    scales : list or None
        The resolutions that a manifest gives it, in um.
    """
    target = below(root, folder)
    try:
        image = StoredImage.at(target)
        arrays = {path: StoredArray.at(target, path) for path in image.paths}
        levels = [(geometry.micron, geometry.scale) for geometry in image.geometries]
    except (InputError, TargetError) as error:
        yield Defect("metadata", folder, fault_of_reading(root, error, folder))
        return
    if other := next((path for path, array in arrays.items() if array.ndim != len(image.axes)), None):
        text = f"has the axes {', '.join(image.names)}, and {arrays[other].ndim} axes in the array {brief(other)}"
        yield Defect("metadata", folder, text)
        return
    for kind, text in (
        *_axes_faults(image, name),
        *(_masks_faults(target, image, arrays) if name == MASKS else ()),
        *_levels_faults(levels, scales),
        *_compression_faults(arrays),
    ):
        yield Defect(kind, folder, text)


def _axes_faults(image: StoredImage, name: str) -> Iterator[tuple[str, str]]:
    number = _NUMBERS.match(image.version)
    if number is None or (int(number[1]), int(number[2])) < _OLDEST:
        yield "metadata", f"is OME-Zarr {brief(image.version)}; the standard has 0.5 and newer"
    if not image.is_scaled:
        yield "metadata", "has a level without the size of its voxels"
    spatial = [axis for axis in image.axes if axis.name in ("z", "y", "x")]
    for axis in spatial:
        if axis.unit != "millimeter":
            yield "metadata", f"has the unit {brief(axis.unit)} along {axis.name}; the standard has millimeter"
        if name == TEMPLATE and axis.orientation is None:
            yield "metadata", f"has no orientation along {axis.name}"


def _compression_faults(arrays: Mapping[str, StoredArray]) -> Iterator[tuple[str, str]]:
    plain = []
    for path, array in arrays.items():
        codecs = [array.layout.document.get(key) for key in ("codecs", "compressor")]
        if not _COMPRESSORS.search(json.dumps(codecs)):
            plain.append(path)
    if plain:
        yield "metadata", f"has the array {first_of(plain)}, which is not compressed"


def _masks_faults(target: Target, image: StoredImage, arrays: dict[str, StoredArray]) -> Iterator[tuple[str, str]]:
    if len(image.axes) != 4 or not image.is_ordered:
        yield "metadata", f"has the axes {', '.join(image.names)}; masks have one for the structures, then z, y, x"
        return
    try:
        values = StoredArray.at(target, ANNOTATION_VALUES)
    except InputError:
        yield "missing", f"lacks the array {ANNOTATION_VALUES}, or it is damaged"
        return
    if other := next((array for array in arrays.values() if array.shape[:1] != values.shape), None):
        yield "inconsistent", f"has {other.shape[0]} masks, and {ANNOTATION_VALUES} of the shape {values.shape}"
    if values.dtype.kind not in "iu":
        yield "metadata", f"has {ANNOTATION_VALUES} of {values.dtype}, which are not whole numbers"
    arrays[ANNOTATION_VALUES] = values


def _levels_faults(levels: Sequence[tuple[Fraction | None, Sequence[float]]], scales: Any) -> Iterator[tuple[str, str]]:
    """Levels, by their unit and scale, that are not from fine to coarse, or others than the scales of the manifest."""
    if any(b < a for (_, fine), (_, coarse) in pairwise(levels) for a, b in zip(fine, coarse, strict=True)):
        yield "inconsistent", "has levels that are not from fine to coarse"
    if not isinstance(scales, list) or None in map(microns, scales) or any(micron is None for micron, _ in levels):
        return
    lengths = [[float(micron or 0) * size for size in scale] for micron, scale in levels]
    if {microns(scale) for scale in scales} != set(map(microns, lengths)):
        found = ", ".join("x".join(f"{size:g}" for size in dict.fromkeys(level)) for level in lengths)
        yield "inconsistent", f"has levels of {found} um, and the manifest has the scales {brief(scales, 100)}"


def precomputed_findings(root: Target, folder: str) -> Iterator[Defect]:
    """What is wrong with the infos of a segmentation."""
    key = f"{folder}/info"
    info = read_object(root, key)
    if isinstance(info, Defect):
        yield info
        return
    if info.get("type") != "segmentation":
        yield Defect("metadata", key, f"has the type {brief(info.get('type'))}, and must have 'segmentation'")
    if not isinstance(scales := info.get("scales"), list) or not scales:
        yield Defect("metadata", key, "lacks scales, the levels of the labels")
    for name, (of, faults) in _FOLDERS.items():
        path = info.get(name)
        if not is_text(path):
            yield Defect("metadata", key, f"lacks {name}, the folder with {of}")
        elif len(str(path)) > _LONGEST_FOLDER or not _FOLDER.fullmatch(str(path)):
            yield Defect("metadata", key, f"has {name} {brief(path)}, which is not a folder in its own")
        else:
            yield from _folder_findings(root, f"{folder}/{str(path).strip('/')}", name, faults)


def _folder_findings(
    root: Target, folder: str, name: str, faults: Callable[[Mapping[str, Any]], str]
) -> Iterator[Defect]:
    found = read_object(root, f"{folder}/info")
    if isinstance(found, Defect):
        if name != "mesh" or found.kind != "missing" or not root.entries(folder):  # legacy meshes need no info
            yield found
    elif text := faults(found):
        yield Defect("metadata", f"{folder}/info", text)


def _mesh_fault(info: Mapping[str, Any]) -> str:
    known = ("neuroglancer_legacy_mesh", "neuroglancer_multilod_draco")
    return "" if info.get("@type") in known else f"has the @type {brief(info.get('@type'))}, not one of {known}"


def _properties_fault(info: Mapping[str, Any]) -> str:
    inline = info.get("inline")
    ids, properties = (inline.get(key) for key in ("ids", "properties")) if isinstance(inline, dict) else (None, None)
    if not isinstance(ids, list) or not isinstance(properties, list) or not properties:
        return "lacks inline ids and properties, the names of the structures"
    for one in properties:
        values = one.get("values") if isinstance(one, dict) else None
        if not isinstance(values, list) or len(values) != len(ids):
            return f"has the property {brief(one)}, which does not have a value for each of the {len(ids)} ids"
    return ""


#: What the folders of a segmentation hold, and what is wrong with their infos; empty if nothing is.
_FOLDERS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "segment_properties": ("the names of the structures", _properties_fault),
    "mesh": ("their meshes", _mesh_fault),
}
