"""What a view shows: the layers of a target, its annotation, and where the page begins."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..annotation_set.precomputed import layer_source
from ..assets.locate import Located, locate, versions_of
from ..assets.names import PRECOMPUTED, TEMPLATE
from ..engine.label_index import index_of
from ..engine.ome import Geometry, exact
from ..engine.ome_reader import StoredImage
from ..engine.zarr_reader import parse_document
from ..errors import AtlaszarrWarning, InputError, brief
from ..geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION, direction
from ..regions.annotation import annotation_of
from ..regions.measured_volume import expression_view, request_of
from ..regions.statistics import options_for
from ..stores.documents import parse_object
from ..stores.locations import shown
from ..stores.target import Target
from ..terminology.terminology import Structure, Terminology, terminology_of
from .images import ViewedImage
from .layers import annotation_layer, colours_of, image_layers, names_of, shell_layer, silhouette_layer
from .planes import Focus, across, ends_of, page, whole
from .server import Source

#: The most sections of a collection: each is a source with several requests; the largest dataset of the Allen API has
#: some 600.
_MOST_SECTIONS = 1000
#: The most bytes of the metadata of a section, which has five levels.
_LARGEST_SECTION = 2**20
#: Sections whose metadata are read at a time.
_READERS = 8
#: Voxels of the level in which the page looks for regions, and of the finest level that it reads for small ones: the
#: CCF at 25 um has 77 million.
_LOOKED_FOR, _MOST_VOXELS = 2**24, 2**27
#: The part of a panel that a chosen region takes.
_REGION = 0.4
#: The folders above an annotation that may hold its meshes: it may be packed as a label group.
_ABOVE = 3
_Serve = Callable[[Source], str]


@dataclass(frozen=True)
class Scene:
    """A page of neuroglancer.

    Attributes
    ----------
    state : dict
        In JSON.
    ends : dict of str to (str, str)
        The names of both ends of z, y and x; empty if the image does not give them.
    """

    state: dict[str, Any]
    ends: dict[str, tuple[str, str]]


@dataclass(frozen=True)
class _Images:
    """What lies under an annotation.

    Attributes
    ----------
    layers : list
    shown : list of ViewedImage
        The volume, the templates or the sections; none if the target is an annotation.
    is_collection : bool
        Whether they are sections.
    labels : Located or None
        The annotation that the target is, or has.
    """

    layers: list[Any]
    shown: list[ViewedImage]
    is_collection: bool = False
    labels: Located | None = None


def scene(
    target: str | os.PathLike[str],
    over: str | os.PathLike[str] | None,
    regions: Sequence[str],
    storage_options: Mapping[str, Any] | None,
    serve: _Serve,
) -> Scene:
    """The page of a target; see `atlaszarr.view`.

    Parameters
    ----------
    serve : callable
        Makes a source available, and returns its URL.
    """
    options = options_for(os.fspath(target), storage_options)
    images = _images(target, options, serve)
    labels = images.labels
    if over is not None:
        if labels is not None:
            raise InputError(
                f"{shown(target)} is an annotation itself; give a volume with --over {shown(over)}, or leave out "
                "--over",
                code="contradictory-options",
            )
        options = options_for(os.fspath(over), storage_options)
        labels = locate(over, options)
    if labels is None:
        if regions:
            raise InputError(
                f"region {regions[0]!r} needs an annotation; give one (--over ANNOTATION)", code="missing-annotation"
            )
        state = page(images.layers, images.shown, whole(images.shown), is_collection=images.is_collection)
        return Scene(state, ends_of(images.shown[0]))
    for remark in labels.remarks:
        warnings.warn(remark, AtlaszarrWarning, stacklevel=4)
    annotation = ViewedImage.at(Target.of(labels.annotation, options))
    if not images.shown:
        images = replace(images, shown=[annotation])
    else:
        _validate_frames(images.shown[0], annotation)
    terminology = _terminology(labels, options, regions)
    sources: list[Any] = [f"zarr://{_served(annotation, serve)}/"]
    meshes = _meshes(labels, options) if annotation.unit else None
    if meshes is not None:
        url = f"{serve(Source(folders={'meshes': meshes}))}/meshes"
        own_names = {"subsources": {"mesh": True, "properties": terminology is None}}
        source = layer_source(url, _in_millimetres(annotation)) | own_names
        sources.append(source)
    if terminology is not None:
        sources.append(f"precomputed://{serve(Source({'info': names_of(terminology)}))}/")
    chosen: list[int] = []
    focus = whole(images.shown)
    if regions and terminology is not None:
        structures = [terminology[region] for region in regions]
        chosen, focus = _regions(structures, terminology, labels, options, annotation)
    layers = list(images.layers)
    if chosen and not layers and annotation.has_plain_labels:
        layers = [silhouette_layer(sources[0])]
    layers.append(annotation_layer(sources, colours_of(terminology, annotation), chosen, is_alone=not layers))
    if meshes is not None and terminology is not None:
        layers.append(shell_layer(source, [root.value for root in terminology.roots if root.value is not None]))
    state = page(
        layers,
        images.shown,
        focus,
        is_collection=images.is_collection,
        has_meshes=meshes is not None,
    )
    return Scene(state, ends_of(images.shown[0]))


def _images(target: str | os.PathLike[str], options: Mapping[str, Any] | None, serve: _Serve) -> _Images:
    """What a target shows under an annotation."""
    layers: list[Any] = []
    located = locate(target, options)
    if located.is_asset:
        urls = _templates(located, Target.of(target, options))
        templates = [ViewedImage.at(Target.of(url, options)) for url in urls]
        for n, template in enumerate(templates):
            found = image_layers(f"template {n}" if n else "template", [(_served(template, serve), template)])
            layers += [{"visible": not n, **layer} for layer in found]
        return _Images(layers, templates, labels=located)
    place = Target.of(target, options)
    if sections := _sections(place):
        layers = image_layers("sections", [(_served(image, serve), image) for image in sections])
        return _Images(layers, sections, is_collection=True)
    image = ViewedImage.at(place)
    if image.is_annotation:
        return _Images([], [], labels=located)
    return _Images(_volume_layers(place, image, serve), [image])


def _templates(located: Located, target: Target) -> tuple[str, ...]:
    """The templates of an atlas: by its manifest, or the only one of a tree that is given by its root."""
    root = located.root
    if located.templates or root is None or root.url != target.url:
        return located.templates
    if len(names := root.folders("atlases") or []) == 1:
        atlas = locate(f"{root.url}/atlases/{names[0]}", json.loads(root.storage_options))
        if atlas.annotation == located.annotation:
            return atlas.templates
    if len(names := root.folders("templates") or []) == 1:
        asset = replace(root, url=f"{root.url}/templates/{names[0]}")
        return tuple(f"{asset.url}/{version}/{TEMPLATE}" for version in versions_of(asset, ("templates",))[:1])
    return ()


def _volume_layers(target: Target, image: ViewedImage, serve: _Serve) -> list[Any]:
    """The layers of an image: itself, and its expression view if there is one next to it."""
    request = request_of(image.image)
    if request.get("view") == "expression":
        return image_layers("expression", [(_served(image, serve), image)])
    layers = image_layers("image", [(_served(image, serve), image)])
    if request.get("view", "primary") == "primary" and request.get("mode") == "volume":
        found = expression_view(image.image.finest.target if image.image.finest else target, request)
        if found is not None:
            expression = ViewedImage.of(found)
            layers += image_layers("expression", [(_served(expression, serve), expression)], is_transparent=True)
    return layers


def _served(image: ViewedImage, serve: _Serve) -> str:
    return serve(Source(image.documents(), image.folders(), image.absent()))


def _sections(target: Target) -> list[ViewedImage]:
    """The images of a collection (bioformats2raw), in the order of their positions; none if it is not one."""
    public = target.public()
    keys = {"zarr.json": ("OME/zarr.json", "zarr.json"), ".zattrs": ("OME/.zattrs", ".zattrs")}
    root = key = None
    for key in keys:
        if (root := _ome(public, key)) is not None:
            break
    if root is None or key is None or "bioformats2raw.layout" not in root or "multiscales" in root:
        return []
    series_key, own_key = keys[key]
    series = (_ome(public, series_key) or {}).get("series")
    names = list(dict.fromkeys(map(str, series))) if isinstance(series, list) else [""]
    if not all(name.isascii() and name.isalnum() for name in names):
        raise InputError(
            f"{target.url}/{series_key} lists the images {brief(series)}; write it with the name of each",
            code="damaged-metadata",
        )
    if not 0 < len(names) <= _MOST_SECTIONS:
        raise InputError(
            f"{target.url} is a collection of {len(names)} images, and 1 to {_MOST_SECTIONS} are drawn; give one that "
            f"it holds, such as {target.url}/0",
            code="out-of-range",
        )
    bodies = public.read_each([f"{name}/{own_key}" for name in names], _LARGEST_SECTION)
    with ThreadPoolExecutor(_READERS, "atlaszarr-view") as pool:
        targets = [replace(public, url=f"{public.url}/{name}") for name in names]
        images = list(pool.map(partial(_section, own_key), targets, bodies.values()))
    axis = across(images)
    return sorted(images, key=lambda image: image.geometry.translation[axis])


def _section(key: str, target: Target, body: bytes | None) -> ViewedImage:
    """The image of a section, given the document of its group."""
    document = parse_document(body or b"{}", f"{target.url}/{key}")
    attributes = document.get("attributes", document)
    return ViewedImage.of(StoredImage.of(target, attributes if isinstance(attributes, dict) else {}))


def _ome(target: Target, key: str) -> dict[str, Any] | None:
    """The OME-Zarr metadata in a document of a group; None if it is missing or damaged."""
    try:
        document = parse_object(target.read(key, _LARGEST_SECTION) or b"")
    except ValueError:
        return None
    attributes = document.get("attributes", document)
    found = attributes.get("ome", attributes) if isinstance(attributes, dict) else None
    return found if isinstance(found, dict) else None


def _meshes(labels: Located, options: Mapping[str, Any] | None) -> Target | None:
    """The folder of the meshes of an annotation; None if it has none."""
    for folder in Target.of(labels.annotation, options).public().above(_ABOVE):
        found = replace(folder, url=f"{folder.url}/{PRECOMPUTED}")
        if (body := found.read("info", _LARGEST_SECTION)) is None:
            continue
        try:
            if "mesh" in parse_object(body):
                return found
        except ValueError:
            return None
    return None


def _terminology(labels: Located, options: Mapping[str, Any] | None, regions: Sequence[str]) -> Terminology | None:
    """The terminology of an annotation; None if it has none and no region is to be found in it."""
    try:
        return terminology_of(None, labels, options)
    except InputError as error:
        if error.code != "file-not-found" or regions:
            raise
        return None


def _validate_frames(image: ViewedImage, annotation: ViewedImage) -> None:
    """Raise an InputError if an image and an annotation have different units or run in different directions."""
    name, other = (shown(one.image.target.url) for one in (image, annotation))
    if image.unit != annotation.unit:
        raise InputError(
            f"{name} has {image.image.numbers}, and {other} has {annotation.image.numbers}; write both in a unit of "
            "length",
            code="different-units",
        )
    for axis in "zyx":
        mine, its = (direction(one.geometry.orientation.get(axis, "")) for one in (image, annotation))
        sides = {ORIENTATION["x"], BRAINGLOBE_SIDES}  # two names of one frame, that of the CCF
        if mine and its and mine != its and not (axis == "x" and {mine, its} == sides):
            raise InputError(
                f"{axis} of {name} runs {mine}, and that of {other} {its}; give an annotation along the axes of the "
                "image",
                code="orientations-differ",
            )


def _regions(
    structures: Sequence[Structure],
    terminology: Terminology,
    labels: Located,
    options: Mapping[str, Any] | None,
    annotation: ViewedImage,
) -> tuple[list[int], Focus]:
    """The labels of structures and their descendants that occur, and the voxel nearest to the middle of them all."""
    wanted = {
        one.value for structure in structures for one in terminology.descendants(structure.id) if one.value is not None
    }
    sizes = [math.prod(shape) for shape in annotation.shapes]
    first = next((level for level, size in enumerate(sizes) if size <= _LOOKED_FOR), len(sizes) - 1)
    image = annotation.image
    is_counted = sizes[0] <= _MOST_VOXELS or index_of(image.target, image.own, 0)[0] is not None
    counts = annotation_of(labels, 0 if is_counted else first, options).counts("threads")
    found = sorted(wanted & set(map(int, counts.ids)))
    if not found:
        named = ", ".join(structure.acronym for structure in structures)
        raise InputError(
            f"{shown(labels.annotation)} has no voxel of {named}; give another region", code="region-without-voxels"
        )
    for level in range(first, -1, -1):
        if sizes[level] > _MOST_VOXELS:
            break
        opened = annotation_of(labels, level, options)
        mask = opened.mask(found).compute(scheduler="threads")
        if mask.any():
            return found, _focus(mask, Geometry(*_level_in_microns(opened.geometry)))
    return found, whole([annotation])


def _level_in_microns(geometry: Geometry) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    micron = geometry.micron or 1
    (a, b, c), (p, q, r) = (
        [float(exact(length) * micron) for length in lengths] for lengths in (geometry.scale, geometry.translation)
    )
    return (a, b, c), (p, q, r)


def _focus(mask: NDArray[np.bool_], geometry: Geometry) -> Focus:
    """The voxel of a mask nearest to the mean of all, which may lie between two halves, and the box of the mask."""
    scale, start = np.array(geometry.scale), np.array(geometry.translation)
    along = [np.arange(n) * size for n, size in zip(mask.shape, scale, strict=True)]
    counts = [mask.sum(axis=tuple(j for j in range(3) if j != k)) for k in range(3)]
    z, y, x = ((at - np.average(at, weights=n)).astype(np.float32) ** 2 for at, n in zip(along, counts, strict=True))
    best, nearest = np.inf, [0, 0, 0]
    for k in np.flatnonzero(counts[0]):  # plane by plane, in little memory
        distance = np.where(mask[k], z[k] + y[:, None] + x, np.inf)
        at = int(distance.argmin())
        if distance.flat[at] < best:
            best, nearest = distance.flat[at], [int(k), *map(int, np.unravel_index(at, distance.shape))]
    ends = [np.flatnonzero(n)[[0, -1]] for n in counts]
    low, high = (start + scale * (np.array([end[side] for end in ends]) + side - 0.5) for side in (0, 1))
    margin = (high - low) * (1 / _REGION - 1) / 2
    return Focus(start + scale * np.array(nearest), low - margin, high + margin)


def _in_millimetres(annotation: ViewedImage) -> Geometry:
    (a, b, c), (p, q, r) = (
        [float(exact(length) / 1000) for length in lengths]
        for lengths in (annotation.geometry.scale, annotation.geometry.translation)
    )
    return Geometry((a, b, c), (p, q, r))
