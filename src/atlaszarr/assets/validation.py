"""Validate a tree by the rules of the standard "Atlas Asset Organization" (atlas-assets.readthedocs.io, v0.2.0).

What the standard demands is a defect. What it only recommends, such as the names of files and assets, is one if asked
for. Nothing is written, and of images only the metadata are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from ..engine.ledger import Defect
from ..errors import InputError, TargetError, brief
from ..stores.documents import parse_object
from ..stores.target import Target
from .document_rules import (
    description_faults,
    fault_of_reading,
    is_text,
    manifest_faults,
    processing_faults,
    read_object,
)
from .image_rules import image_findings, precomputed_findings
from .names import (
    DATA_DESCRIPTION,
    MANIFEST,
    MASKS,
    PARCELLATION_VOLUMES,
    PART,
    PRECOMPUTED,
    PROCESSING,
    SUFFIXES,
    TERMINOLOGY,
    VERSION_PATTERN,
    Asset,
)
from .standard import KINDS, LARGEST
from .table_rules import terminology_findings, volumes_findings

#: Manifests that are read at once: they take a quarter of a gigabyte at most.
_AT_ONCE = 16
#: The most assets that a manifest refers to: twice the 43,818 section datasets of the Allen Brain Atlas.
_MOST_REFERENCES = 100_000
#: Faults of references of a manifest that are named one by one.
_NAMED = 10
#: Versions of assets that the standard recommends, with any text after ``v`` and a number.
_VERSION = re.compile(rf"{VERSION_PATTERN}|v\d.*")
#: The folder of an asset, by a reference.
_LOCATION = re.compile(rf"({'|'.join(KINDS)})/{PART}/{PART}")
#: Entries of manifests that refer to other assets, and the kind of these.
_REFERENCES = {
    "coordinate_space": "coordinate-spaces",
    "template": "templates",
    "templates": "templates",
    "annotation_set": "annotation-sets",
    "annotation_sets": "annotation-sets",
    "terminology": "terminologies",
}


def findings(root: Target, *, strict: bool = False) -> Iterator[Defect]:
    """What in a tree is against the standard.

    Parameters
    ----------
    root : Target
        The folder of ``atlases``, ``annotation-sets`` and so on, in a store that lists its objects.
    strict : bool
        Whether to name also what the standard only recommends: names of files, folders, assets and versions, and a
        processing.json of each template.

    Yields
    ------
    Defect
        ``missing``: a document, a table or an image; ``metadata``: a document that cannot be read or lacks a key;
        ``inconsistent``: a reference or a table that contradicts others; ``extra``: a name that the standard lacks.

    Raises
    ------
    TargetError
        If the tree cannot be read.
    """
    entries = root.entries()
    if strict:
        for name, is_folder in entries.items():
            if name not in KINDS or not is_folder:
                yield Defect("extra", name, "is not a folder of the standard")
    for kind in KINDS:
        if entries.get(kind):
            yield from _kind_findings(root, kind, strict)


def _kind_findings(root: Target, kind: str, strict: bool) -> Iterator[Defect]:
    for name, is_folder in root.entries(kind).items():
        if not is_folder:
            if strict:
                yield Defect("extra", f"{kind}/{name}", "is a file among the folders of assets")
            continue
        if strict and (text := _name_fault(kind, name)):
            yield Defect("extra", f"{kind}/{name}", text)
        versions = root.entries(f"{kind}/{name}")
        if True not in versions.values():
            yield Defect("missing", f"{kind}/{name}", "has no folder of a version")
        for version, is_version in versions.items():
            folder = f"{kind}/{name}/{version}"
            if is_version:
                yield from _asset_findings(root, Asset(kind, name, version), folder, strict)
            elif strict:
                yield Defect("extra", folder, "is a file among the folders of versions")


def _name_fault(kind: str, name: str) -> str:
    if kind not in SUFFIXES:
        return "" if "_to_" in name else "has a name without _to_ between two templates"
    return "" if name.endswith(f"-{SUFFIXES[kind]}") else f"has a name that does not end in -{SUFFIXES[kind]}"


def _asset_findings(root: Target, asset: Asset, folder: str, strict: bool) -> Iterator[Defect]:
    """What is wrong with one version of an asset."""
    kind = KINDS[asset.kind]
    entries = root.entries(folder)
    required = {MANIFEST: False, DATA_DESCRIPTION: False, **kind.required}
    for name, is_folder in required.items():
        if (given := entries.get(name)) is not is_folder:
            text = "is missing" if given is None else f"is a {_kind_of(given)}, and must be a {_kind_of(is_folder)}"
            yield Defect("missing", f"{folder}/{name}", text)
    if strict:
        yield from _recommendations(asset, folder, entries, required)
    checks: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
        DATA_DESCRIPTION: lambda content: description_faults(content, kind),
        PROCESSING: processing_faults,
        MANIFEST: lambda content: manifest_faults(content, asset, folder),
    }
    manifest: dict[str, Any] = {}
    for name, check in checks.items():
        if entries.get(name) is not False:
            continue
        if isinstance(content := read_object(root, f"{folder}/{name}"), Defect):
            yield content
            continue
        for text in check(content):
            yield Defect("metadata", f"{folder}/{name}", text)
        if name == MANIFEST:
            manifest = content
    yield from reference_findings(root, asset, folder, manifest)
    yield from _content_findings(root, folder, entries, required, manifest.get("scales"))


def _kind_of(is_folder: bool) -> str:
    return "folder" if is_folder else "file"


def _recommendations(
    asset: Asset, folder: str, entries: Mapping[str, bool], required: Mapping[str, bool]
) -> Iterator[Defect]:
    if not _VERSION.fullmatch(asset.version):
        text = f"has the version {asset.version!r}; give a year, a year and a month, or three numbers with dots"
        yield Defect("extra", folder, text)
    if asset.kind in ("templates", "coordinate-transformations") and PROCESSING not in entries:
        yield Defect("missing", f"{folder}/{PROCESSING}", "is missing; an asset that was computed has one")
    further = re.compile(KINDS[asset.kind].further)
    for name in entries:
        if name not in required and not further.fullmatch(name):
            yield Defect("extra", f"{folder}/{name}", "is not a name of the standard")


def _content_findings(
    root: Target, folder: str, entries: Mapping[str, bool], required: Mapping[str, bool], scales: Any
) -> Iterator[Defect]:
    """What is wrong with the tables and images of an asset."""
    if entries.get(TERMINOLOGY) is False and TERMINOLOGY in required:
        yield from terminology_findings(root, folder, entries)
    if entries.get(PARCELLATION_VOLUMES) is False:
        yield from volumes_findings(root, f"{folder}/{PARCELLATION_VOLUMES}")
    for name, is_folder in entries.items():
        if is_folder and name.endswith(".ome.zarr"):
            yield from image_findings(root, f"{folder}/{name}", name, scales if name == MASKS else None)
        elif is_folder and name == PRECOMPUTED:
            yield from precomputed_findings(root, f"{folder}/{name}")


def _references(content: Any, kind: str | None = None, is_own: bool = True) -> Iterator[tuple[str | None, Any]]:
    """The references in a manifest, with the kind of their asset where the key gives it."""
    if isinstance(content, list):
        for value in content:
            yield from _references(value, kind, is_own=False)
    elif isinstance(content, dict):
        if not is_own and (kind is not None or "location" in content):
            yield kind, content
        for name, value in content.items():
            if name in _REFERENCES or isinstance(value, dict | list):
                yield from _references(value, _REFERENCES.get(name), is_own=False)
    elif kind is not None and content is not None:
        yield kind, content


def reference_findings(root: Target, asset: Asset, folder: str, manifest: Mapping[str, Any]) -> Iterator[Defect]:
    """References of a manifest to assets that do not exist, or that lie in another coordinate space than an atlas.

    Parameters
    ----------
    root : Target
    asset : Asset
    folder : str
        Of the asset, relative to the root.
    manifest : mapping
    """
    key, count = f"{folder}/{MANIFEST}", 0
    for count, text in enumerate(_reference_faults(root, asset, folder, manifest), 1):
        if count <= _NAMED:
            yield Defect("inconsistent", key, text)
    if count > _NAMED:
        yield Defect("inconsistent", key, f"has {count - _NAMED} more faults of references")


def _reference_faults(root: Target, asset: Asset, folder: str, manifest: Mapping[str, Any]) -> Iterator[str]:
    locations: dict[str, None] = {}
    for kind, reference in _references(manifest):
        location, text = _location(kind, reference)
        if text:
            yield text
        elif location != folder:
            locations[location] = None
    if len(locations) > _MOST_REFERENCES:
        yield f"refers to {len(locations)} assets; at most {_MOST_REFERENCES} are read"
        return
    space = _identity(manifest.get("coordinate_space"))
    for location, body in _manifests(root, locations):
        if body is None:
            yield f"refers to {location}, which does not exist or has no {MANIFEST}"
            continue
        try:
            other = parse_object(body)
        except ValueError:
            continue  # named as a defect of its own
        if asset.kind != "atlases" or not location.startswith(("templates/", "annotation-sets/")):
            continue
        if (found := _identity(other.get("coordinate_space"))) != space:
            yield f"refers to {location} in the coordinate space {_shown(found)}, but has {_shown(space)} itself"


def _manifests(root: Target, locations: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
    """The manifest of each location, None if there is none; one that cannot be read is left out, see `read_object`."""
    rest = iter(locations)
    while batch := list(islice(rest, _AT_ONCE)):
        try:
            bodies = root.read_each([f"{location}/{MANIFEST}" for location in batch], LARGEST)
        except (InputError, TargetError) as error:
            fault_of_reading(root, error, MANIFEST)  # raises that of a store that has failed
            if len(batch) > 1:
                yield from chain.from_iterable(_manifests(root, [location]) for location in batch)
            continue
        yield from zip(batch, bodies.values(), strict=True)


def _location(kind: str | None, reference: Any) -> tuple[str, str]:
    """The folder that a reference names; and what is wrong with the reference, else an empty text."""
    if (identity := _identity(reference)) is None:
        return "", f"has the reference {brief(reference, 100)} without a name and a version"
    named = Asset(kind, *identity).folder if kind else None
    location = named if reference.get("location") is None else str(reference["location"]).strip("/")
    if not _LOCATION.fullmatch(str(location)):
        return "", f"refers to {brief(location, 100)}; give /kind/name/version of an asset in the tree"
    if named not in (None, location):
        name = brief(" ".join(identity), 100)
        return "", f"refers to {brief(location, 100)} as {name}, which is in {brief(named, 100)}"
    return str(location), ""


def _identity(reference: Any) -> tuple[str, str] | None:
    """Name and version of a reference."""
    if not isinstance(reference, dict) or not is_text(reference.get("name")) or not is_text(reference.get("version")):
        return None
    return reference["name"], reference["version"]


def _shown(identity: tuple[str, str] | None) -> str:
    return "none" if identity is None else brief(" ".join(identity))
