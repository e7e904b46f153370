"""The record of an atlas: one document in the folder of the tree, with its state, sources, images and files.

Where the tree may only have names of the standard, it is in the folder of the annotation's own records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ..assets.names import ANNOTATION, COMPRESSED, AtlasNames, below
from ..brainglobe.manifests import terminology_of
from ..credit import Credit
from ..engine.ledger import digest, matches, objects_of, validate_key
from ..engine.target_state import WHOLE_KEY, read_root
from ..errors import InputError
from ..geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION
from ..reference_volumes import ReferenceVolume
from ..stores.backend import LARGEST_SIDECAR
from ..stores.documents import LARGEST, parse_object
from ..stores.target import Target
from ..versions import version
from .layouts import Layout

#: Version of the rules by which names and parts are chosen: a tree of another version is not resumed.
#: 2: template, coordinate space and terminology have names and versions of their own, and layouts.
RULES = 2
_FOLDER = "atlaszarr"
#: The convention of each orientation of x.
_NAMED_BY = {
    ORIENTATION["x"]: "Allen Institute (low r is left)",
    BRAINGLOBE_SIDES: "BrainGlobe, issue 104 of brainglobe-atlasapi (the Allen Institute calls low r left)",
}
#: The folder of an annotation set.
_SET = r"annotation-sets/(?P<name>[^/]+)-annotation/(?P<version>[^/]+)"
#: The root of the annotation of an atlas, in zarr v3 or v2.
_ANNOTATION_ROOT = re.compile(
    rf"(?P<image>{_SET}/({re.escape(ANNOTATION)}|{re.escape(COMPRESSED)}))/(?:zarr\.json|\.zgroup)"
)
#: A record in the folder of an annotation.
_INSIDE = re.compile(rf"{_SET}/{re.escape(COMPRESSED)}/{re.escape(WHOLE_KEY)}")
#: What a record has of sources, images and files, if nothing was built yet; ``planned`` are the keys that an unfinished
#: build makes or has made.
_EMPTY: dict[str, Any] = {"sources": {}, "images": [], "files": {}, "planned": []}


@dataclass(frozen=True)
class Record:
    """The record of an atlas.

    Attributes
    ----------
    root : Target
        The tree.
    names : AtlasNames
    layout : Layout
    """

    root: Target
    names: AtlasNames
    layout: Layout

    @property
    def key(self) -> str:
        """The key of the record."""
        return self._strict_key if self.layout.strict else self._named_key

    def of_others(self) -> tuple[set[str], dict[str, Any]]:
        """The paths of images, and size and digest of files, that the records of other atlases of the tree have."""
        images: set[str] = set()
        files: dict[str, Any] = {}
        for _, content in self._others():
            images.update(all_images(content))
            files |= all_files(content)
        return images, files

    def _others(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The records of other atlases of the tree, by their keys."""
        for key, content in records(self.root):
            if content is not None and key not in (self.key, self._other_key):
                yield key, content

    def shared(self, documents: Mapping[str, bytes], overwrite: bool) -> dict[str, bytes]:
        """The documents to write: one that another atlas of the tree has too stays as it is in the tree.

        A layout with less in the manifest of the coordinate space keeps that of an earlier build or another atlas, and
        one with more replaces it.

        Parameters
        ----------
        documents : mapping of str to bytes
            By key.
        overwrite : bool
        """
        recorded: dict[str, Any] = {}
        for _, content in self._others():
            if _has_documents(content) or not self.layout.assets:
                recorded |= all_files(content)
        own = self._content()
        if not overwrite and not self.layout.assets and _has_documents(own):
            of_assets = {key: value for key, value in own["files"].items() if key.startswith("coordinate-spaces/")}
            recorded = of_assets | recorded
        bodies = self.root.read_each([key for key in documents if key in recorded], LARGEST)
        undamaged = {key: body for key, body in bodies.items() if body and recorded[key] == [len(body), digest(body)]}
        return {**documents, **undamaged}

    @property
    def _named_key(self) -> str:
        """The key of the record in a tree that has names which the standard lacks."""
        return f"{_FOLDER}/{self.names.name}-{self.names.version}.json"

    @property
    def _strict_key(self) -> str:
        """The key of the record in a tree with the names of the standard alone: in the folder of the annotation."""
        return f"{self.names.annotation_set.folder}/{COMPRESSED}/{WHOLE_KEY}"

    @property
    def _other_key(self) -> str:
        """The key that the record has in a tree of the other form."""
        return self._named_key if self.layout.strict else self._strict_key

    def refuse_other_names(self) -> None:
        """Refuse a tree that holds this atlas in the other form: strict, or with names that the standard lacks.

        Raises
        ------
        InputError
        """
        if _read(self.root, self._other_key) is not None:
            word, change = ("with", "leave out") if self.layout.strict else ("without", "give")
            raise InputError(
                f"{self.root.url} holds the atlas {self.names.name} {self.names.version} {word} names that the "
                f"standard lacks; {change} --strict, choose another target, or build it again with --overwrite",
                code="different-layout",
            )

    def leftovers(self, kept: Sequence[str]) -> list[str]:
        """Paths of images and files of an earlier atlas of the same name and version that the new one does not make.

        Parameters
        ----------
        kept : sequence of str
            Keys that the new atlas makes; one that ends in ``/`` stands for a folder.
        """
        recorded = self._earlier()
        shared_images, shared_files = self.of_others()
        others = {*shared_files, *(key for _, content in self._others() for key in content["planned"])}
        folders = tuple(key for key in kept if key.endswith("/"))
        stale = [path for path in recorded["images"] if f"{path}/" not in folders and path not in shared_images]
        for key in dict.fromkeys((*recorded["files"], *recorded["planned"])):
            if key not in kept and not key.startswith(folders) and key not in others:
                # Of an image under a second name, which may be a link, only the root is a file of the record.
                stale.append(key.removesuffix("/zarr.json"))
        other = self._other_key
        return stale if self.root.read(other) is None else [*stale, other]

    def refuse_other_files(
        self, files: Mapping[str, bytes], overwrite: bool, replaced: Mapping[str, bytes] | None = None
    ) -> None:
        """Refuse files that exist with other content, and an atlas that another version of atlaszarr wrote.

        With `overwrite`, only files that another atlas of the tree has too are refused.

        Parameters
        ----------
        files : mapping of str to bytes
        overwrite : bool
        replaced : mapping of str to bytes, optional
            Other contents that the files may have, such as those of another layout, and that are replaced.

        Raises
        ------
        InputError
        """
        recorded = _EMPTY if overwrite else self._content()
        self._refuse_other_rules(recorded)
        _, shared = self.of_others()
        for path, body in files.items():
            if (path not in shared and overwrite) or recorded["files"].get(path) == [len(body), digest(body)]:
                continue
            if self.root.read(path) not in (None, body, (replaced or {}).get(path)):
                rest = " (another atlas has this one too)" if path in shared else ", or give --overwrite"
                raise InputError(
                    f"{self.root.url}/{path} has other content; build from the same sources, choose another target, "
                    f"name or version{rest}",
                    code="different-options",
                )

    def refuse_unrecorded(
        self, documents: Mapping[str, bytes], made: Collection[str], others: Collection[str], *, lost: bool
    ) -> None:
        """Refuse files that exist and are of no atlas of the tree, since another program or the user made them.

        Parameters
        ----------
        documents : mapping of str to bytes
            Existing ones with this content are accepted.
        made : collection of str
            Keys of files whose content is not known yet.
        others : collection of str
            Keys of files that are certainly there, and have other content.
        lost : bool
            Whether the atlas exists: without a readable record, its record was lost, and the files are its own.

        Raises
        ------
        InputError
        """
        own = _read(self.root, self.key)
        if own is None and lost:
            return
        known = {
            key
            for content in (own or _EMPTY, *(content for _, content in self._others()))
            for key in (*all_files(content), *content["planned"])
        }
        given = [key for key in documents if key not in known]
        bodies = self.root.read_each(given, LARGEST_SIDECAR)
        sizes = {key: self.root.sizes(key) for key in made if key not in known}
        found = [key for key in given if bodies[key] not in (None, documents[key])]
        found += [*(key for key, sized in sizes.items() if key in sized), *(key for key in others if key not in known)]
        if found:
            raise InputError(
                f"{self.root.url}/{found[0]} exists and is not recorded as a file of an atlas; move it, choose "
                "another target, name or version, or give --overwrite to replace it",
                code="target-not-empty",
            )

    def refuse_other_parts(self, has_template: bool) -> None:
        """Refuse another template, terminology or coordinate space than those of an earlier build of the atlas.

        Parameters
        ----------
        has_template : bool
            Whether the atlas is built with a template; without the layout ``assets`` an earlier one stays.

        Raises
        ------
        InputError
        """
        recorded = self._content()
        keys = [*recorded["images"], *recorded["files"], *recorded["planned"]]
        for asset in (self.names.template, self.names.terminology, self.names.coordinate_space):
            begun = {tuple(key.split("/")[1:3]) for key in keys if key.startswith(f"{asset.kind}/")}
            begun.discard(tuple(terminology_of(self.names).folder.split("/")[1:]))
            is_lacking = asset == self.names.template and not has_template
            if not begun or (tuple(asset.folder.split("/")[1:]) in begun and not is_lacking):
                continue
            if is_lacking and not self.layout.assets:
                continue
            name, number = sorted(begun)[0]
            now = "without a template" if is_lacking else f"with {asset.name} {asset.version}"
            raise InputError(
                f"{self.root.url} holds the atlas {self.names.name} {self.names.version}, which was begun with {name} "
                f"{number.replace('_', '.')}, not {now}; give the same options, choose another target, or give "
                "--overwrite",
                code="different-options",
            )

    def begin(
        self,
        files: Mapping[str, bytes],
        images: Sequence[str],
        planned: Collection[str],
        overwrite: bool,
        stale: Sequence[str] = (),
    ) -> None:
        """Mark the atlas as unfinished, remove what is stale of an earlier one, and write the files.

        All that is known of the atlas is recorded at once, so that another one that is built at the same time neither
        removes nor replaces it.

        Parameters
        ----------
        files : mapping of str to bytes
        images : sequence of str
            Paths of the images whose targets are empty or of this atlas.
        planned : collection of str
            Keys of further files that are made later.
        overwrite : bool
        stale : sequence of str
            Paths of an earlier atlas to remove.
        """
        earlier = self._earlier() if overwrite else self._content()
        recorded = {**_EMPTY, **_registered(earlier)} if overwrite else earlier
        if stale:  # the earlier record is kept until all of it is removed
            self._write({**earlier, "state": "unfinished"})
            for path in stale:
                self.root.remove(path)
        before = recorded.get("layout", {})
        content = {
            **recorded,
            "state": "unfinished",
            "layout": {name: one or before.get(name) is True for name, one in asdict(self.layout).items()},
            "images": list(dict.fromkeys([*recorded["images"], *images])),
            "files": {**recorded["files"], **_described(files)},
            "planned": sorted({*recorded["planned"], *planned}),
        }
        self._write(content)
        self.root.write_all(files.items())
        self._refresh_others(files)

    def _refresh_others(self, files: Mapping[str, bytes]) -> None:
        """Record files that other atlases have too in their records, as they are now."""
        described = _described(files)
        for key, content in self._others():
            own = {path: described[path] for path in described if path in content["files"]}
            if any(content["files"][path] != entry for path, entry in own.items()):
                self.root.write(key, _body({**content, "files": {**content["files"], **own}}))

    def has(self, path: str) -> bool:
        """Whether a file is there as it is recorded; it is read in parts."""
        expected = self._content()["files"].get(path)
        return expected is not None and matches(self.root, path, *expected)

    def of_another(self, path: str) -> tuple[int, str] | None:
        """Size and digest of a file that is there as another atlas records it; else None."""
        _, files = self.of_others()
        if path not in files or not matches(self.root, path, *files[path]):
            return None
        size, checksum = files[path]
        return size, checksum

    def add(self, path: str, size: int, checksum: str) -> None:
        """Record a file that is written, so that a build that is resumed keeps it."""
        recorded = self._content()
        self._write({**recorded, "files": {**recorded["files"], path: [size, checksum]}})

    def finish(
        self,
        files: Mapping[str, bytes],
        sources: Mapping[str, Mapping[int, ReferenceVolume]],
        images: Sequence[str],
        remarks: Sequence[str],
        credit: Credit,
    ) -> None:
        """Write the files that are missing or differ, those of the atlases last, and the record of all that is built.

        Parameters
        ----------
        files : mapping of str to bytes
        sources : mapping
            The source of each level that has one, for ``annotation`` and ``template``.
        images : sequence of str
            URLs of the images that were built.
        remarks : sequence of str
        credit : Credit
        """
        existing = self.root.read_each(files, LARGEST_SIDECAR)
        changed = {path: body for path, body in files.items() if existing[path] != body}
        for last in (False, True):  # by the documents of atlases it is found: they are written once all else is there
            self.root.write_all(item for item in changed.items() if item[0].startswith("atlases/") is last)
        recorded = self._content()
        before = recorded.get("layout", {})
        given = {
            name: {str(level): source_facts(volume) for level, volume in sorted(volumes.items())}
            for name, volumes in sources.items()
        }
        paths = [url.removeprefix(f"{self.root.url}/") for url in images]
        self.root.tidy({key.rpartition("/")[0] for key in (*recorded["files"], *files, self.key)})
        content = {
            "state": "finished",
            "versions": {package: version(package) for package in ("atlaszarr", "numpy", "zarr")},
            "built": datetime.now(UTC).isoformat(timespec="seconds"),
            "layout": {name: one or before.get(name) is True for name, one in asdict(self.layout).items()},
            "sources": {**recorded["sources"], **given},
            "sides": {"x": self.layout.sides, "named_by": _NAMED_BY[self.layout.sides]},
            "remarks": list(remarks),
            "images": list(dict.fromkeys([*recorded["images"], *paths])),
            "files": {**recorded["files"], **_described(files)},
            "credit": credit.to_dict(),
            **_registered(recorded),
        }
        self._write(content)
        self._refresh_others(files)

    def _content(self) -> dict[str, Any]:
        """The content of the record; without a readable one, without sources, images and files."""
        return {**_EMPTY, **(_read(self.root, self.key) or {})}

    def _earlier(self) -> dict[str, Any]:
        """The content of the record, with images and files of one with other names, see `refuse_other_names`."""
        own, other = self._content(), _read(self.root, self._other_key)
        if other is None:
            return own
        own["images"] = list(dict.fromkeys([*own["images"], *other["images"]]))
        own["files"] = {**other["files"], **own["files"]}
        own["planned"] = [*own["planned"], *other["planned"]]
        return {**own, **(_registered(own) or _registered(other))}

    def _write(self, content: Mapping[str, Any]) -> None:
        own = {"name": self.names.name, "version": self.names.version, "rules": RULES}
        self.root.write(self.key, _body({**content, **own}))

    def _refuse_other_rules(self, recorded: Mapping[str, Any]) -> None:
        if "state" in recorded and (rules := recorded.get("rules", 1)) != RULES:
            raise InputError(
                f"{self.root.url} holds an atlas {self.names.name} {self.names.version} that "
                f"{'an earlier' if rules == 1 else 'another'} version of atlaszarr wrote, under other names; build it "
                "again with --overwrite, or choose another target",
                code="different-layout",
            )


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
            root.write(key, _body(new))


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
    """The records of all atlases in a tree, by their keys; None for one that cannot be read."""
    keys = [path for path in root.list_keys(f"{_FOLDER}/") if path.count("/") == 1 and path.endswith(".json")]
    names = [name for name, is_folder in root.entries("annotation-sets").items() if is_folder]
    folders = [
        f"annotation-sets/{name}/{version}" for name in names for version in root.entries(f"annotation-sets/{name}")
    ]
    keys += filter(_INSIDE.fullmatch, (f"{folder}/{COMPRESSED}/{WHOLE_KEY}" for folder in folders))
    for path in keys:
        try:
            body = root.read(path, LARGEST)
            content = None if body is None else _parsed(body)
        except (ValueError, AttributeError, KeyError, TypeError):
            yield path, None
        else:
            if content is not None:
                yield path, content


def missing(root: Target, found: Collection[str]) -> list[str]:
    """Keys of the records that are missing, of annotations of atlaszarr in a tree.

    Parameters
    ----------
    root : Target
    found : collection of str
        Keys of the records that exist.
    """
    keys: dict[str, str] = {}
    for path in root.list_keys("annotation-sets/"):  # in order: an annotation before its second name
        if (match := _ANNOTATION_ROOT.fullmatch(path)) is None:
            continue
        named = f"{_FOLDER}/{match['name']}-{match['version'].replace('_', '.')}.json"
        inside = f"{match['image']}/{WHOLE_KEY}"
        if {named, inside}.isdisjoint(found) and named not in keys and _is_ours(below(root, match["image"])):
            keys[named] = inside if match["image"].endswith(f"/{COMPRESSED}") else named
    return list(keys.values())


def _is_ours(image: Target) -> bool:
    try:
        return read_root(image) is not None
    except InputError:
        return False


def _read(root: Target, path: str) -> dict[str, Any] | None:
    """A record; None if it is missing or cannot be read."""
    if (body := root.read(path, LARGEST)) is None:
        return None
    try:
        return _parsed(body)
    except (ValueError, AttributeError, KeyError, TypeError):
        return None


def _body(content: Mapping[str, Any]) -> bytes:
    """A record with a checksum of its content, by which damage is noticed."""
    own = {name: value for name, value in content.items() if name != "planned" or value}
    return json.dumps({**own, "check": _check(own)}, indent=1).encode()


def _check(content: Mapping[str, Any]) -> str:
    return digest(json.dumps({name: value for name, value in content.items() if name != "check"}).encode())


def _parsed(body: bytes) -> dict[str, Any] | None:
    """The content of a record; None if the document is no record.

    Raises
    ------
    ValueError, AttributeError, KeyError, TypeError
        If it is damaged.
    """
    content = parse_object(body)
    if not {"name", "version", "state"} <= content.keys():
        return None
    if (content.get("rules") == RULES or "check" in content) and content.get("check") != _check(content):
        raise ValueError
    filled = {**_EMPTY, **content}
    if any(not isinstance(filled[name], type(empty)) for name, empty in _EMPTY.items()):
        raise ValueError
    objects_of(all_files(filled))
    for path in (*all_images(filled), *filled["planned"]):
        validate_key(path)
    for template in filled.get("registered", {}).values():
        validate_key(template["reference"]["location"].strip("/"))
        list(template["listed_in"])
    return filled


def _described(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Size and digest of files, as a record has them."""
    return {path: [len(body), digest(body)] for path, body in files.items()}


def _has_documents(content: Mapping[str, Any]) -> bool:
    """Whether the atlas of a record has the documents of the standard."""
    return content.get("layout", {}).get("assets") is True


def _registered(content: Mapping[str, Any]) -> dict[str, Any]:
    """The templates that were registered, which are not part of the atlas that is built."""
    return {"registered": content["registered"]} if content.get("registered") else {}


def source_facts(volume: ReferenceVolume) -> dict[str, Any]:
    """What is recorded of a source, in JSON's types."""
    return {
        "uri": volume.uri,
        "bytes": volume.size,
        "sha256": volume.sha256,
        "shape": list(volume.array.shape),
        "voxel_size_um": list(volume.voxel_size),
    }
