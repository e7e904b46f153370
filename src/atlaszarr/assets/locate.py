"""Find the labels and the terminology of an atlas that is laid out by the standard "Atlas Asset Organization".

The tree is ``ROOT/KIND/NAME/VERSION``; the manifest of an asset names others by their location in the tree. Nothing
outside of the tree is followed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from ..errors import InputError, TargetError, brief, reason_of
from ..stores.documents import LARGEST, parse_object
from ..stores.locations import is_url, local_path, normalize, shown
from ..stores.target import Target
from .names import (
    ANNOTATION,
    ANNOTATION_VALUES,
    COMPRESSED,
    MANIFEST,
    MASKS,
    SUFFIXES,
    TEMPLATE,
    TERMINOLOGY,
    below,
    referenced,
)

_ATLASES, _SETS, _TEMPLATES, _TERMINOLOGIES = "atlases", "annotation-sets", "templates", "terminologies"
#: What an asset of each kind is called in messages.
_WORDS = {kind: kind.removesuffix("s").replace("-", " ") for kind in SUFFIXES} | {_TERMINOLOGIES: "terminology"}
#: Objects that a group or an array of zarr has, in version 3 and 2.
_ZARR = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
#: The keys by which a manifest names an annotation set or, in that of an annotation set, a terminology.
_KEYS = {"annotation_sets", "annotation_set", "terminology"}
#: A URL whose last part has the suffix of a file.
_FILE = re.compile(r"[^/]*\.[A-Za-z][A-Za-z0-9]*")
#: The most annotation sets of an atlas: the largest known atlas has 2.
_MOST_SETS = 1000
#: How many assets or versions a message lists.
_LISTED = 10


@dataclass(frozen=True)
class Located:
    """The labels of an atlas, and how its terminology is found.

    Attributes
    ----------
    annotation : str
        Path or URL of the labels.
    name, version : str
        Of the annotation set; empty for an annotation that was given directly.
    manifests : tuple of str
        The manifests that were read.
    remarks : tuple of str
        Which version was chosen of several.
    """

    annotation: str
    name: str = ""
    version: str = ""
    manifests: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    _storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    _folder: AssetFolder | None = field(default=None, repr=False)
    _references: tuple[tuple[str, Any], ...] = field(default=(), repr=False)
    _atlas: tuple[AssetFolder, Mapping[str, Any]] | None = field(default=None, repr=False)

    @property
    def is_asset(self) -> bool:
        """Whether it was found in an annotation set, an atlas or a tree, and not given directly."""
        return self._folder is not None

    @property
    def terminology(self) -> str | None:
        """Path or URL of the terminology that the manifests name; None if they name none.

        Raises
        ------
        InputError
            If the reference to it leads outside of the tree or to another kind of asset.
        """
        return self._named[0]

    @property
    def root(self) -> Target | None:
        """The root of the tree of the annotation set; None without a tree."""
        return None if self._folder is None else self._folder.root

    @property
    def templates(self) -> tuple[str, ...]:
        """Paths or URLs of the templates that the manifest of the atlas names; none without an atlas.

        Raises
        ------
        InputError
            If the manifest does not list references, or one leads outside of the tree or to another kind of asset.
        """
        if self._atlas is None:
            return ()
        folder, manifest = self._atlas
        given = next((manifest[key] for key in (_TEMPLATES, "template") if manifest.get(key)), ())
        references = [given] if isinstance(given, Mapping) else given
        if not isinstance(references, Sequence) or isinstance(references, str) or len(references) > _MOST_SETS:
            raise InputError(
                f"{shown(folder.manifest_url)} has the templates {brief(given)}; it must list them, each with name and "
                "version",
                code="damaged-manifest",
            )
        folders = {_referenced(folder, folder.manifest_url, reference, _TEMPLATES): None for reference in references}
        return tuple(f"{found.target.url}/{TEMPLATE}" for found in folders)

    @property
    def _named(self) -> tuple[str | None, str]:
        """The terminology that the manifests name, and the manifest that does."""
        for manifest, reference in self._references:
            if self._folder is not None and reference is not None:
                asset = _referenced(self._folder, manifest, reference, _TERMINOLOGIES)
                return f"{asset.target.url}/{TERMINOLOGY}", manifest
        return None, ""

    def terminologies(self) -> Iterator[tuple[str, str]]:
        """Where the terminology may be, and the manifest that names it or an empty text; the first that exists counts.

        Of an asset it is the terminology that the manifests name; without one, and for an annotation that was given
        directly, the ``terminology.csv`` next to the annotation. An annotation that lies in an annotation set and has
        none next to it has the terminology that the manifest of that set names.

        Raises
        ------
        InputError
            For the reasons of `terminology`, or if a manifest is damaged.
        """
        named, manifest = self._named
        if named is not None:
            yield named, manifest
            return
        folders = [Target.of(self.annotation, self._storage_options).url.rpartition("/")[0]]
        while ".zarr/" in f"{folders[-1]}/":  # of a level or a label group
            folders.append(folders[-1].rpartition("/")[0])
        for folder in dict.fromkeys((folders[0], folders[-1])):
            yield f"{folder}/{TERMINOLOGY}", ""
        if self._folder is None:
            around = AssetFolder.of(Target.of(folders[-1], self._storage_options).public())
            if around.kind == _SETS and (document := around.manifest()) is not None:
                named, manifest = _of_set(around, document, self.annotation)._named
                if named is not None:
                    yield named, manifest


@overload
def locate(given: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Located: ...
@overload
def locate(given: Any, storage_options: Mapping[str, Any] | None = None) -> Any: ...
def locate(given: Any, storage_options: Mapping[str, Any] | None = None) -> Any:
    """The labels of an atlas, given in any way.

    Parameters
    ----------
    given : str or path-like
        A path or URL of an annotation set or an atlas (``ROOT/annotation-sets/NAME/VERSION``,
        ``ROOT/atlases/NAME/VERSION``), without its version for the newest, of the ``manifest.json`` in one, or of a
        tree with one annotation set or one atlas. Any other path or URL is that of an annotation. Anything that is
        neither a path nor a URL is returned as it is.
    storage_options : mapping, optional
        Options for fsspec, if it is a URL.

    Returns
    -------
    Located

    Raises
    ------
    InputError
        If a manifest is damaged, names an asset outside of the tree, of another kind or that does not exist; if an
        atlas or a tree has several annotation sets, a store does not list versions, an annotation set has no labels,
        or the annotation holds masks; if the store cannot be read.
    """
    if not isinstance(given, str | os.PathLike):
        return given
    text = os.fspath(given)
    try:
        return _located(text, storage_options)
    except TargetError as error:
        # A server may answer for the file alone, and not for what could lie below it.
        if is_url(text) and not {*SUFFIXES, MANIFEST} & {*text.split("/")}:
            return Located(text, _storage_options=storage_options)
        raise InputError(str(error), code=error.code) from None


def _located(text: str, storage_options: Mapping[str, Any] | None) -> Located:
    direct = Located(text, _storage_options=storage_options)
    if (target := _folder_of(text, storage_options)) is None:
        _refuse_masks(text, storage_options)
        return direct
    folder = AssetFolder.of(target)
    found = target.read_each((MANIFEST, *_ZARR), LARGEST)
    if any(found[key] is not None for key in _ZARR):
        return direct
    is_manifest = text.rstrip("/").rpartition("/")[2] == MANIFEST
    if found[MANIFEST] is not None:
        manifest = parse_manifest(folder.manifest_url, found[MANIFEST])
        if is_manifest or folder.kind or _KEYS & manifest.keys():  # else it may be that of anything
            return _followed(folder, manifest)
    elif is_manifest:
        raise InputError(
            f"{shown(folder.manifest_url)} does not exist; give that of an annotation set or an atlas, or the labels",
            code="file-not-found",
        )
    if folder.kind == _SETS and (labels := folder.labels()) is not None:
        return _of_set(folder, None, labels.url)
    _refuse_missing_version(folder)
    return _newest(target) or _only_of_tree(target) or direct


@dataclass(frozen=True)
class AssetFolder:
    """The folder of an asset, with its location in the tree by its path.

    Attributes
    ----------
    target : Target
    root : Target or None
        The root of the tree; None if the folder is not ``ROOT/KIND/NAME/VERSION``.
    kind, name, version : str
        Empty without a tree.
    """

    target: Target
    root: Target | None = None
    kind: str = ""
    name: str = ""
    version: str = ""

    @classmethod
    def of(cls, target: Target) -> AssetFolder:
        """The asset whose folder a target is."""
        parts = target.url.rsplit("/", 3)
        if len(parts) < 4 or parts[1] not in SUFFIXES or parts[0].endswith("/"):
            return cls(target)
        return cls(target, replace(target, url=parts[0] or "/"), *parts[1:])

    @property
    def manifest_url(self) -> str:
        """Path or URL of its manifest."""
        return f"{self.target.url}/{MANIFEST}"

    def manifest(self) -> dict[str, Any] | None:
        """The manifest; None if there is none.

        Raises
        ------
        InputError
            If it is damaged.
        """
        body = self.target.read(MANIFEST, LARGEST)
        return None if body is None else parse_manifest(self.manifest_url, body)

    def labels(self) -> Target | None:
        """The labels of an annotation set; None if it has none.

        The Allen Institute also packs them as a label group, ``annotations_compressed.ome.zarr/labels/...``.
        """
        names = (ANNOTATION, COMPRESSED)  # in a tree of atlaszarr the second may be a copy
        groups = {group: name for name in names for group in (name, f"{name}/labels/{name.partition('.')[0]}")}
        bodies = self.target.read_each([f"{group}/{key}" for group in groups for key in _ZARR[:2]], LARGEST)
        found = {group: [bodies[f"{group}/{key}"] or b"" for key in _ZARR[:2]] for group in groups}
        for name in names:
            own = [group for group in groups if groups[group] == name]
            images = [group for group in own if any(b'"multiscales"' in body for body in found[group])]
            if images or any(found[name]):  # without an image it is damaged, or unfinished
                return below(self.target, (images or [name])[0])
        return None


def without_labels(folder: AssetFolder) -> InputError:
    """The error that an annotation set has no labels."""
    return InputError(
        f"{shown(folder.target.url)} has no labels, neither {COMPRESSED} nor {ANNOTATION}; give an annotation set with "
        "labels",
        code="labels-not-found",
    )


def parse_manifest(url: str, body: bytes | None) -> dict[str, Any]:
    """The manifest in a document of a path or URL.

    Raises
    ------
    InputError
        If it is not a JSON object.
    """
    try:
        return parse_object(body or b"")
    except ValueError as error:
        raise InputError(
            f"{shown(url)} is not a manifest ({reason_of(error)}); get it again, or build the atlas again to write it",
            code="damaged-manifest",
        ) from None


def _folder_of(text: str, storage_options: Mapping[str, Any] | None) -> Target | None:
    """The folder that may be an asset or a tree; None for the path or URL of a file or an OME-Zarr."""
    path = local_path(text)
    if path is not None:
        if path.name == MANIFEST and not path.is_dir():
            return Target.of(path.parent, storage_options)
        is_plain = any(part.endswith(".zarr") for part in path.parts) or path.is_file()
        return None if is_plain else Target.of(path, storage_options)
    url = normalize(text)
    parts = url.rstrip("/").split("/")
    if "?" in url or "#" in url or any(part.lower().endswith(".zarr") for part in parts):
        return None
    if parts[-1] == MANIFEST:
        return Target.of("/".join(parts[:-1]), storage_options).public()
    return None if len(parts) > 3 and _FILE.fullmatch(parts[-1]) else Target.of(url, storage_options).public()


def _refuse_masks(text: str, storage_options: Mapping[str, Any] | None) -> None:
    """Refuse the masks of an annotation set, which have one channel for each structure, or a level of them."""
    url = normalize(text)
    head, found, _ = f"{url}/".partition(f"/{MASKS}/")
    if not found or "?" in url:
        return
    masks = Target.of(f"{head}/{MASKS}", storage_options).public()
    groups = ("", f"labels/{MASKS.partition('.')[0]}/")  # the Allen Institute also packs them as a label group
    if any(masks.read(f"{group}{ANNOTATION_VALUES}/{key}", LARGEST) is not None for group in groups for key in _ZARR):
        raise InputError(
            f"{shown(text)} holds masks, one for each structure, not labels; give {head}/{COMPRESSED}, or the "
            "annotation set",
            code="masks-not-labels",
        )


def _followed(folder: AssetFolder, manifest: Mapping[str, Any]) -> Located:
    """The labels that a manifest of an annotation set or an atlas leads to."""
    given = next((manifest[key] for key in ("annotation_sets", "annotation_set") if key in manifest), None)
    is_set = folder.kind == _SETS or (not folder.kind and given is None and "terminology" in manifest)
    if is_set:
        if (found := folder.labels()) is None:
            raise without_labels(folder)
        return _of_set(folder, manifest, found.url)
    if folder.kind not in ("", _ATLASES) or given is None:
        word = _WORDS.get(folder.kind, "")
        raise InputError(
            f"{shown(folder.manifest_url)} is the manifest of {f'a {word}' if word else 'another asset'} and names no "
            "annotation set; give an annotation set or an atlas",
            code="no-annotation-set",
        )
    sets = [given] if isinstance(given, Mapping) else given
    if not isinstance(sets, Sequence) or isinstance(sets, str) or not 0 < len(sets) <= _MOST_SETS:
        raise InputError(
            f"{shown(folder.manifest_url)} has the annotation sets {brief(given)}; it must list one or more, each with "
            "name and version",
            code="damaged-manifest",
        )
    named, *others = {_referenced(folder, folder.manifest_url, reference, _SETS): None for reference in sets}
    if others:
        urls = [found.target.url for found in (named, *others)]
        raise several(f"the atlas {shown(folder.target.url)}", "annotation sets", urls)
    if (labels := named.labels()) is None:
        raise InputError(
            f"{shown(folder.manifest_url)} names {shown(named.target.url)}, which has no labels ({COMPRESSED} or "
            f"{ANNOTATION}); get the missing annotation set, or give the labels",
            code="broken-reference",
        )
    located = _of_set(named, named.manifest(), labels.url)
    own = next((reference.get("terminology") for reference in sets), None) or manifest.get("terminology")
    return replace(
        located,
        manifests=(folder.manifest_url, *located.manifests),
        _references=(*located._references, (folder.manifest_url, own)),
        _atlas=(folder, manifest),
    )


def _of_set(folder: AssetFolder, manifest: Mapping[str, Any] | None, labels: str) -> Located:
    """The labels of an annotation set, with the reference to its terminology."""
    located = Located(labels, folder.name, folder.version, (), (), _options(folder.target), folder)
    if manifest is None:
        return located
    references = ((folder.manifest_url, manifest.get("terminology")),)
    return replace(located, manifests=(folder.manifest_url,), _references=references)


def _referenced(folder: AssetFolder, manifest: str, reference: Any, kind: str) -> AssetFolder:
    """The folder of an asset that a manifest names, by its location or by name and version.

    A location of another kind is refused, so that no chain of references leads back to its start.
    """
    if folder.root is None:
        raise InputError(
            f"{shown(manifest)} names other assets, but does not lie in a tree, ROOT/{_ATLASES} or ROOT/{_SETS}, then "
            f"NAME/VERSION/{MANIFEST}; give it in its tree",
            code="manifest-outside-tree",
        )
    try:
        path = referenced(reference, kind)
    except ValueError as error:
        raise InputError(
            f"{shown(manifest)} has a wrong reference: {error} in {shown(folder.root.url)}; correct it",
            code="invalid-reference",
        ) from None
    return AssetFolder.of(below(replace(folder.root, url=folder.root.url.rstrip("/")), path).public())


def _newest(asset: Target) -> Located | None:
    """The newest version of ``ROOT/KIND/NAME``; None if it is not such a folder, or has no versions."""
    if not (versions := versions_of(asset, (_ATLASES, _SETS))):
        return None
    newest = below(asset, versions[0])
    found = _located(newest.url, _options(asset))
    if not found.is_asset:
        raise InputError(
            f"{shown(newest.url)}, the newest version of {shown(asset.url)}, has no {MANIFEST} and no labels; give "
            "another version",
            code="version-not-found",
        )
    if len(versions) == 1:
        return found
    text = f"{shown(asset.url)} has the versions {_listed(versions)}; {versions[0]} is used, the newest"
    return replace(found, remarks=(text, *found.remarks))


def versions_of(asset: Target, kinds: Sequence[str]) -> list[str]:
    """The versions of ``ROOT/KIND/NAME``, newest first; none if it is not such a folder of any of the kinds.

    Raises
    ------
    InputError
        If the store does not list them.
    """
    parts = asset.url.rsplit("/", 2)
    if len(parts) < 3 or parts[1] not in kinds:
        return []
    if (names := asset.folders()) is None:
        raise InputError(
            f"{shown(asset.url)} has no version, and its server does not list any; give it with its version, such as "
            f"{shown(asset.url)}/2017",
            code="missing-version",
        )
    return newest_first(names)


def newest_first(given: Iterable[str]) -> list[str]:
    """The versions among the names of folders, newest first: by their numbers, so that 1.10 is newer than 1.9."""
    numbers = {name: [int(digits) for digits in re.findall(r"\d{1,18}", name)] for name in given}
    return sorted((name for name in numbers if numbers[name]), key=lambda name: (numbers[name], name), reverse=True)


def _only_of_tree(root: Target) -> Located | None:
    """The only annotation set of a tree, else that of its only atlas; None if it is not a tree."""
    sets, atlases = (root.folders(kind) or [] for kind in (_SETS, _ATLASES))
    only = next(((kind, names[0]) for kind, names in ((_SETS, sets), (_ATLASES, atlases)) if len(names) == 1), None)
    if only is not None:
        return _newest(below(root, "/".join(only)))
    if sets or atlases:
        raise several(
            f"the tree {shown(root.url)}",
            "assets with labels",
            [*(f"{root.url}/{_ATLASES}/{name}" for name in atlases), *(f"{root.url}/{_SETS}/{name}" for name in sets)],
        )
    return None


def _refuse_missing_version(folder: AssetFolder) -> None:
    """Refuse a version that does not exist of an asset that has others."""
    if folder.kind not in (_ATLASES, _SETS) or folder.target.folders() != []:
        return
    asset = replace(folder.target, url=folder.target.url.rpartition("/")[0])
    if versions := newest_first([name for name in asset.folders() or [] if name != folder.version]):
        raise InputError(
            f"{shown(folder.target.url)} has no {MANIFEST} and no labels; {shown(asset.url)} has the versions "
            f"{_listed(versions)}",
            code="version-not-found",
        )


def several(where: str, what: str, urls: Sequence[str]) -> InputError:
    """The error that a tree or an atlas has several assets, with the paths or URLs of some."""
    return InputError(
        f"{where} has {len(urls)} {what}; give one: {_listed(list(map(shown, urls)))}",
        code="ambiguous-asset",
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _options(target: Target) -> dict[str, Any] | None:
    """The storage options of a target; None for a path, which has none."""
    return json.loads(target.storage_options) if is_url(target.url) else None
