"""Register templates in an atlas of the standard's layout: list them in its manifests, and in its record.

The manifest of an atlas lists its templates under ``templates``; BrainGlobe's manifests of the same atlas, one for each
resolution, have ``additional_references``, which its reader opens as it opens the template (`brainglobe_atlasapi.core`,
`AdditionalRefDict`). Builds that register at the same time own the tree one after another, so that no entry is lost.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..assets.locate import AssetFolder, newest_first, parse_manifest, several, versions_of, without_labels
from ..assets.names import MANIFEST, PART, TEMPLATE, Asset, below, referenced
from ..boxes import Shape
from ..engine.lock import PATIENCE, owning
from ..engine.ome_reader import StoredImage
from ..errors import InputError, TargetError, brief, reason_of
from ..geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION, ReferenceSpace
from ..geometry.voxel_size import um
from ..stores.documents import LARGEST, json_bytes, parse_object
from ..stores.locations import shown
from ..stores.target import Target
from . import record

#: Tries to replace a manifest that another program changes at the same time.
_TRIES = 5
#: The most manifests of BrainGlobe's atlases that are read: the largest known tree has about a hundred.
_MOST_MANIFESTS = 10_000
_ATLAS = re.compile(rf"atlases/{PART}-atlas/{PART}/{re.escape(MANIFEST)}")
_OF_BRAINGLOBE = re.compile(rf"atlases/{PART}_\d+um/{PART}/{re.escape(MANIFEST)}")


@dataclass(frozen=True)
class AtlasAsset:
    """An atlas of the standard's layout, by its manifest.

    Attributes
    ----------
    root : Target
        The root of the tree.
    folder : str
        ``atlases/NAME/VERSION``.
    space : mapping
        The reference to its coordinate space.
    annotation_set : str
        ``annotation-sets/NAME/VERSION``, of its first annotation set.
    own : frozenset of str
        Folders of the templates that belong to the coordinate space and to the annotation sets.
    """

    root: Target
    folder: str
    space: Mapping[str, Any]
    annotation_set: str
    own: frozenset[str]

    @classmethod
    def at(cls, target: Target) -> AtlasAsset:
        """The atlas in a target: its folder, its ``manifest.json``, or a tree that holds one atlas.

        Without a version it is the newest, as everywhere an atlas is read.

        Raises
        ------
        InputError
            If there is no atlas, there are several, or the manifest is damaged.
        """
        given = AssetFolder.of(replace(target, url=target.url.removesuffix(f"/{MANIFEST}")))
        if given.root is None and (known := versions_of(given.target, ("atlases",))):
            given = AssetFolder.of(below(given.target, known[0]))
        if given.root is not None and given.kind == "atlases" and (manifest := given.manifest()) is not None:
            return cls._of(given, manifest)
        # A tree, which may lie in a folder of any name.
        keys = filter(_ATLAS.fullmatch, given.target.list_keys("atlases/"))
        versions: dict[str, list[str]] = {}
        for key in keys:
            name, version, _ = key.rsplit("/", 2)
            versions.setdefault(name, []).append(version)
        newest_ones = [f"{name}/{(newest_first(each) or each)[0]}" for name, each in versions.items()]
        found = [AssetFolder.of(below(given.target, path)) for path in newest_ones]
        if len(found) > 1:
            raise several(f"the tree {shown(target.url)}", "atlases", [one.target.url for one in found])
        manifest = found[0].manifest() if found else None
        if manifest is None:
            raise _no_atlas(shown(given.target.url))
        return cls._of(found[0], manifest)

    @classmethod
    def _of(cls, folder: AssetFolder, manifest: Mapping[str, Any]) -> AtlasAsset:
        assert folder.root is not None
        try:
            sets = manifest["annotation_sets"]
            locations = [_location(one, "annotation-sets") for one in sets]
            space = dict(manifest["coordinate_space"])
            _location(space, "coordinate-spaces")
            _references(manifest["templates"])
            owners = [space, *sets]
            own = frozenset(_location(one["template"], "templates") for one in owners if one.get("template"))
            return cls(folder.root, f"{folder.kind}/{folder.name}/{folder.version}", space, locations[0], own)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{shown(folder.manifest_url)} is not the manifest of an atlas ({reason_of(error)}); it must have "
                "coordinate_space, templates and annotation_sets with name, version and location, as `atlaszarr atlas "
                "--layout assets` writes it",
                code="damaged-manifest",
            ) from None

    @property
    def name(self) -> str:
        """The name of the annotation set without its last word, such as ``allen-adult-mouse``."""
        return self.annotation_set.split("/")[1].removesuffix("-annotation")

    @cached_property
    def annotation(self) -> Target:
        """The labels of the first annotation set.

        Raises
        ------
        InputError
            If there are none.
        """
        folder = AssetFolder.of(below(self.root, self.annotation_set))
        if (labels := folder.labels()) is None:
            raise without_labels(folder)
        return labels

    def sides_in(self, space: ReferenceSpace) -> str:
        """The orientation of x in an atlas that lies in a reference space, in its own words.

        Raises
        ------
        InputError
            If the annotation has another extent, origin or orientation than the space.
        """
        image = StoredImage.at(self.annotation)
        geometry, shape = image.geometries[0], image.shape(0)
        sides = geometry.orientation.get("x", ORIENTATION["x"])
        for axis, wanted in ORIENTATION.items():
            known = (wanted, BRAINGLOBE_SIDES) if axis == "x" else (wanted,)
            if (runs := geometry.orientation.get(axis, wanted)) not in known:
                raise InputError(
                    f"axis {axis} of {shown(self.annotation.url)} runs {runs}, but that of a registered dataset runs "
                    f"{wanted}; build the atlas with `atlaszarr atlas --layout assets`, or leave out --atlas",
                    code="unsupported-orientation",
                )
        micron = float(geometry.micron or 0)
        size = [micron * length for length in geometry.scale]
        first = [micron * length for length in geometry.translation]
        same = (
            all(length > 0 for length in size)
            and space.is_covered(shape, size)
            and all(abs(f - (s - space.anchor) / 2) < s / 1000 for f, s in zip(first, size, strict=True))
        )
        if not same:
            extent = [n * length for n, length in zip(shape, size, strict=True)]
            raise InputError(
                f"the dataset is registered to reference space {space.id} of {um(space.extent)}, which is not the "
                f"space of the atlas: {shown(self.annotation.url)} has {um(extent)} and {image.numbers}; give an atlas "
                "of the same space, or leave out --atlas",
                code="wrong-reference-space",
            )
        return sides


def register(
    atlas: AtlasAsset, asset: Asset, documents: Mapping[str, bytes], levels: Mapping[float, Shape] | None
) -> list[str]:
    """Write the documents of a finished template, and list it in the manifests and the record of an atlas.

    What is there already is not changed. Waits for other builds that do the same.

    Parameters
    ----------
    atlas : AtlasAsset
    asset : Asset
        The template.
    documents : mapping of str to bytes
        Its documents, by name.
    levels : mapping of float to tuple of int, or None
        Shape of each level by its voxel size in um, for BrainGlobe, which takes it where its template has this shape;
        None for a template that BrainGlobe's reader cannot open: one with channels.

    Returns
    -------
    list of str
        Keys of the manifests that list it.

    Raises
    ------
    InputError
        If a manifest is damaged, or another build owns the tree for over two minutes.
    TargetError
        If the tree cannot be written.
    """
    root = atlas.root
    written = {f"{asset.folder}/{name}": body for name, body in documents.items()}
    listing = []
    with owning(root, patience=PATIENCE) as owner:
        existing = root.read_each(written, LARGEST)
        root.write_all((key, body) for key, body in written.items() if existing[key] != body)
        manifests: dict[str, bytes] = {}
        for key, name, is_listed in _manifests(atlas, levels):
            owner.validate()
            manifests[key] = _update(root, key, name, asset, is_listed)
            if is_listed:
                listing.append(key)
        owner.validate()
        image = f"{asset.folder}/{TEMPLATE}"
        record.register(root, atlas.annotation, asset.reference(), image, written, manifests, listing)
    return listing


def with_registered(root: Target, manifests: Mapping[str, bytes], without: Collection[str] = ()) -> dict[str, bytes]:
    """Add the templates that were registered in the manifests of a tree to new manifests of the same atlas.

    Parameters
    ----------
    root : Target
    manifests : mapping of str to bytes
        Documents of an atlas that is built again, by key; those that have no list of templates stay as they are.
    without : collection of str
        Locations of templates that are not added.
    """
    result = dict(manifests)
    for key in manifests:
        if not key.startswith("atlases/") or not key.endswith(f"/{MANIFEST}"):
            continue
        manifest = parse_object(manifests[key])
        name = "additional_references" if "additional_references" in manifest else "templates"
        recorded = {reference["location"]: reference for reference in record.registered(root, key)}
        try:  # those of a tree whose record is lost, and the order of all
            listed = _references(parse_object(root.read(key, LARGEST) or b"{}").get(name, []))
        except (LookupError, TypeError, ValueError):  # it is damaged, and will be replaced
            listed = []
        own = {reference["location"] for reference in manifest.get(name, [])}
        extra = {one["location"]: recorded.get(one["location"], one) for one in listed} | recorded
        for location, reference in extra.items():
            if location not in {*own, *without} and root.read(f"{location.strip('/')}/{MANIFEST}", LARGEST) is not None:
                result[key] = json_bytes(_with(parse_object(result[key]), name, reference))
    return result


def _manifests(atlas: AtlasAsset, levels: Mapping[float, Shape] | None) -> Iterable[tuple[str, str, bool]]:
    """The manifests of an atlas, the list of templates in each, and whether it lists a template of these levels."""
    yield f"{atlas.folder}/{MANIFEST}", "templates", True
    keys = [key for key in atlas.root.list_keys("atlases/") if _OF_BRAINGLOBE.fullmatch(key)]
    if len(keys) > _MOST_MANIFESTS:
        raise InputError(
            f"{shown(atlas.root.url)} has {len(keys)} atlases of BrainGlobe; at most {_MOST_MANIFESTS} are read",
            code="too-many-atlases",
        )
    for key in keys:
        manifest = parse_manifest(f"{atlas.root.url}/{key}", atlas.root.read(key, LARGEST))
        try:
            if _location(manifest["annotation_set"], "annotation-sets") != atlas.annotation_set:
                continue
            size, shape = set(map(float, manifest["resolution"])), tuple(manifest["shape"])
            _references(manifest["additional_references"])
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise InputError(
                f"{shown(atlas.root.url)}/{key} is not a manifest of BrainGlobe ({reason_of(error)}); build the atlas "
                "again to write it",
                code="damaged-manifest",
            ) from None
        fits = levels is not None and len(size) == 1 and levels.get(size.pop()) == shape
        yield key, "additional_references", fits


def _update(root: Target, key: str, name: str, asset: Asset, is_listed: bool) -> bytes:
    """List a template in a manifest, or remove it from the list; the manifest as it is then."""
    reference = asset.reference()
    for _ in range(_TRIES):
        body, tag = root.read_tagged(key, LARGEST) or (None, None)
        manifest = parse_manifest(f"{root.url}/{key}", body)
        try:
            entries = _references(manifest.get(name, []))
        except (LookupError, TypeError, ValueError) as error:  # another program has changed it since it was validated
            raise InputError(
                f"{shown(root.url)}/{key} has a damaged list of {name} ({reason_of(error)}); build the atlas again to "
                "write it, and then run the same command",
                code="damaged-manifest",
            ) from None
        listed = [one for one in entries if one["location"] == reference["location"]]
        if body is not None and listed == ([reference] if is_listed else []):
            return body
        others = {**manifest, name: [one for one in entries if one not in listed]}
        new = json_bytes(_with(others, name, reference) if is_listed else others)
        if root.replace(key, new, tag):
            return new
    raise TargetError(
        f"{shown(root.url)}/{key} was changed by another program {_TRIES} times while a template was listed in it; run "
        "the command again",
        code="manifest-contended",
    )


def _with(manifest: Mapping[str, Any], name: str, reference: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with one more reference in a list."""
    return {**manifest, name: [*manifest.get(name, []), dict(reference)]}


def _references(entries: Any) -> Sequence[Mapping[str, Any]]:
    """The references in a list of a manifest; ValueError or TypeError for anything else."""
    if not isinstance(entries, list):
        raise TypeError(f"{entries!r} is not a list of references")
    for entry in entries:
        _location(entry, "templates")
    return entries


def _location(reference: Mapping[str, Any], kind: str) -> str:
    """The folder that a reference names, inside the tree; KeyError, TypeError or ValueError if it names none."""
    name, version, _ = (reference[word] for word in ("name", "version", "location"))
    for text in (name, version):
        if not isinstance(text, str) or not re.fullmatch(PART, text):
            raise ValueError(f"{brief(text, 100)} is not the name or the version of an asset")
    return referenced(reference, kind)


def _no_atlas(where: str) -> InputError:
    return InputError(
        f"{where} holds no atlas of the standard's layout; give the folder atlases/NAME/VERSION of one that "
        "`atlaszarr atlas --layout assets` built, or the tree that holds it",
        code="not-an-atlas",
    )
