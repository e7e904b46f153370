"""The record of an atlas: one document in the folder of the tree, with its state, sources, images and files."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..assets.names import ANNOTATION, AtlasNames, below
from ..credit import Credit
from ..engine.ledger import digest, objects_of, validate_key
from ..engine.target_state import read_root
from ..errors import InputError
from ..geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION
from ..reference_volumes import ReferenceVolume
from ..stores.backend import LARGEST_SIDECAR
from ..stores.documents import LARGEST, parse_object
from ..stores.target import Target
from ..versions import version

_FOLDER = "atlaszarr"
#: The convention of each orientation of x.
_NAMED_BY = {
    ORIENTATION["x"]: "Allen Institute (low r is left)",
    BRAINGLOBE_SIDES: "BrainGlobe, issue 104 of brainglobe-atlasapi (the Allen Institute calls low r left)",
}
#: The root of the annotation of an atlas, in zarr v3 or v2.
_ANNOTATION_ROOT = re.compile(
    rf"(?P<image>annotation-sets/(?P<name>[^/]+)-annotation/(?P<version>[^/]+)/{re.escape(ANNOTATION)})/"
    r"(?:zarr\.json|\.zgroup)"
)
#: What a record has of sources, images and files, if nothing was built yet.
_EMPTY: dict[str, Any] = {"sources": {}, "images": [], "files": {}}


def key(names: AtlasNames) -> str:
    """The key of the record of an atlas."""
    return f"{_FOLDER}/{names.name}-{names.version}.json"


def leftovers(root: Target, names: AtlasNames, kept: Sequence[str]) -> list[str]:
    """Paths of the images and files of an earlier atlas of the same name and version that the new one does not make.

    Parameters
    ----------
    root : Target
    names : AtlasNames
    kept : sequence of str
        Keys that the new atlas makes; one that ends in ``/`` stands for a folder.
    """
    recorded = _recorded(root, names, overwrite=False)
    folders = tuple(key for key in kept if key.endswith("/"))
    stale = [path for path in recorded["images"] if f"{path}/" not in folders]
    for key in recorded["files"]:
        if key not in kept and not key.startswith(folders):
            # Of an image under a second name, which may be a link, only the root is a file of the record.
            stale.append(key.removesuffix("/zarr.json"))
    return stale


def begin(
    root: Target, names: AtlasNames, files: Mapping[str, bytes], overwrite: bool, stale: Sequence[str] = ()
) -> None:
    """Mark the atlas as unfinished, remove what is stale of an earlier one, and write the files.

    Raises
    ------
    InputError
        If one of the files exists with other content, and `overwrite` is not set; nothing is written.
    """
    recorded = _recorded(root, names, overwrite)
    for path, body in files.items():
        if overwrite or recorded["files"].get(path) == [len(body), digest(body)]:
            continue
        if (existing := root.read(path)) is not None and existing != body:
            raise InputError(
                f"{root.url}/{path} is another one; build from the same sources, choose another target, name or "
                "version, or give --overwrite",
                code="different-options",
            )
    if stale:  # the earlier record is kept until all of it is removed
        _write(root, names, {**_recorded(root, names, overwrite=False), "state": "unfinished"})
        for path in stale:
            root.remove(path)
    _write(root, names, {**recorded, "state": "unfinished"})
    root.write_all(files.items())


def finish(
    root: Target,
    names: AtlasNames,
    files: Mapping[str, bytes],
    sources: Mapping[str, Mapping[int, ReferenceVolume]],
    images: Sequence[str],
    remarks: Sequence[str],
    sides: str,
    credit: Credit,
) -> None:
    """Write the files that are missing or differ, and the record of everything built now and before.

    Parameters
    ----------
    root : Target
    names : AtlasNames
    files : mapping of str to bytes
    sources : mapping
        The source of each level that has one, for ``annotation`` and ``template``.
    images : sequence of str
        URLs of the images that were built.
    remarks : sequence of str
    sides : str
        Orientation of x.
    credit : Credit
    """
    existing = root.read_each(files, LARGEST_SIDECAR)
    root.write_all((path, body) for path, body in files.items() if existing[path] != body)
    recorded = _recorded(root, names, overwrite=False)
    given = {
        name: {str(level): _source(volume) for level, volume in sorted(volumes.items())}
        for name, volumes in sources.items()
    }
    paths = [url.removeprefix(f"{root.url}/") for url in images]
    content = {
        "state": "finished",
        "versions": {package: version(package) for package in ("atlaszarr", "numpy", "zarr")},
        "built": datetime.now(UTC).isoformat(timespec="seconds"),
        "sources": {**recorded["sources"], **given},
        "sides": {"x": sides, "named_by": _NAMED_BY[sides]},
        "remarks": list(remarks),
        "images": list(dict.fromkeys([*recorded["images"], *paths])),
        "files": {**recorded["files"], **{path: [len(body), digest(body)] for path, body in files.items()}},
        "credit": credit.to_dict(),
        **({"registered": recorded["registered"]} if "registered" in recorded else {}),
    }
    _write(root, names, content)


def register(
    root: Target,
    annotation: Target,
    reference: Mapping[str, Any],
    image: str,
    documents: Mapping[str, bytes],
    manifests: Mapping[str, bytes],
    listing: Sequence[str],
) -> None:
    """Add a registered template to the record of an atlas, and the manifests that list it as they are now.

    Nothing is recorded for an atlas without a record, which another program made.

    Parameters
    ----------
    root : Target
    annotation : Target
        The annotation of the atlas.
    reference : mapping
        The reference to the template.
    image : str
        Path of its image.
    documents, manifests : mapping of str to bytes
        The documents of the template and the manifests of the atlas, by key.
    listing : sequence of str
        Keys of the manifests that list it.
    """
    path = annotation.url.removeprefix(f"{root.url}/")
    for key, content in records(root):
        if content is None or path not in content["images"]:
            continue
        own = {name: [len(body), digest(body)] for name, body in documents.items()}
        changed = {name: [len(body), digest(body)] for name, body in manifests.items() if name in content["files"]}
        template = {"reference": dict(reference), "image": image, "files": own, "listed_in": list(listing)}
        new = {
            **content,
            "files": {**content["files"], **changed},
            "registered": {**content.get("registered", {}), reference["location"]: template},
        }
        if new != content:
            root.write(key, json.dumps(new, indent=1).encode())


def registered(root: Target, key: str) -> list[dict[str, Any]]:
    """References to the templates that the records of a tree have as listed in a manifest."""
    return [
        template["reference"]
        for _, content in records(root)
        for template in (content or {}).get("registered", {}).values()
        if key in template["listed_in"]
    ]


def all_images(content: Mapping[str, Any]) -> list[str]:
    """Paths of all images in a record, those of registered templates too."""
    return [*content["images"], *(template["image"] for template in content.get("registered", {}).values())]


def all_files(content: Mapping[str, Any]) -> dict[str, Any]:
    """Size and digest of all files in a record by key, those of registered templates too."""
    templates = content.get("registered", {}).values()
    return {**content["files"], **{key: value for one in templates for key, value in one["files"].items()}}


def records(root: Target) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The records of all atlases in a target, by their keys; None for one that cannot be read."""
    for path in root.list_keys(f"{_FOLDER}/"):
        if path.count("/") != 1 or not path.endswith(".json"):
            continue
        try:
            content = parse_object(root.read(path, LARGEST) or b"")
            if not {"name", "version", "state"} <= content.keys():
                continue
            if any(not isinstance(content[name], type(empty)) for name, empty in _EMPTY.items()):
                raise ValueError
            objects_of(all_files(content))
            for image in all_images(content):
                validate_key(image)
            for template in content.get("registered", {}).values():
                validate_key(template["reference"]["location"].strip("/"))
                list(template["listed_in"])
        except (ValueError, AttributeError, KeyError, TypeError):
            yield path, None
        else:
            yield path, content


def missing(root: Target, found: Collection[str]) -> list[str]:
    """Keys of the records that are missing, of annotations of atlaszarr in a target.

    Parameters
    ----------
    root : Target
    found : collection of str
        Keys of the records that exist.
    """
    keys = []
    for path in root.list_keys("annotation-sets/"):
        if (match := _ANNOTATION_ROOT.fullmatch(path)) is None:
            continue
        record = f"{_FOLDER}/{match['name']}-{match['version'].replace('_', '.')}.json"
        if record not in found and record not in keys and _is_ours(below(root, match["image"])):
            keys.append(record)
    return keys


def _is_ours(image: Target) -> bool:
    try:
        return read_root(image) is not None
    except InputError:
        return False


def _recorded(root: Target, names: AtlasNames, overwrite: bool) -> dict[str, Any]:
    """The sources, images and files of the record; empty with `overwrite` or without a readable record.

    Templates that were registered are kept in any case: they are not part of the atlas that is built.
    """
    content = dict(records(root)).get(key(names)) or {}
    templates = {"registered": content["registered"]} if content.get("registered") else {}
    return {name: empty if overwrite else content.get(name, empty) for name, empty in _EMPTY.items()} | templates


def _write(root: Target, names: AtlasNames, content: Mapping[str, Any]) -> None:
    document = {"name": names.name, "version": names.version, **content}
    root.write(key(names), json.dumps(document, indent=1).encode())


def _source(volume: ReferenceVolume) -> dict[str, Any]:
    return {
        "uri": volume.uri,
        "bytes": volume.size,
        "sha256": volume.sha256,
        "shape": list(volume.array.shape),
        "voxel_size_um": list(volume.voxel_size),
    }
