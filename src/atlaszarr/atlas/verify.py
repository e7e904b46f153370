"""Compare the records of the atlases in a target with what the target holds. Only reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..annotation_set import precomputed_folder
from ..assets.names import ANNOTATION, COMPRESSED, PRECOMPUTED, below
from ..assets.validation import findings
from ..brainglobe import listing
from ..engine.ledger import COMPACT, Defect, matches
from ..engine.target_state import read_root
from ..engine.verify import VerifyReport, verify_image
from ..errors import InputError
from ..stores.target import Target
from .record import all_files, all_images, missing, records
from .second_name import is_link


def verify_atlas(root: Target, *, deep: bool) -> VerifyReport | None:
    """Verify all atlases in a target: every image, every mesh, every table.

    Parameters
    ----------
    root : Target
    deep : bool
        See `atlaszarr.verify`.

    Returns
    -------
    VerifyReport or None
        None if the target holds no atlas.
    """
    documents = list(records(root))
    without = missing(root, [key for key, _ in documents])
    if not documents and not without:
        return None
    objects = blocks = 0
    defects = [Defect("missing", key, "is missing; build the atlas again to write it") for key in without]
    verified: set[Any] = set()  # paths of images, and files as they are recorded: atlases may have the same ones
    for key, document in documents:
        if document is None:
            defects.append(Defect("metadata", key, "cannot be read"))
            continue
        if document["state"] != "finished":
            defects.append(Defect("unfinished", key, "the atlas is unfinished; build it again to resume"))
            continue
        defects += _files(root, document, verified)
        for path in (*all_images(document), *_copies(root, document)):
            if path in verified:
                continue
            verified.add(path)
            report = _image(below(root, path), deep)
            objects, blocks = objects + report.objects, blocks + report.blocks
            named = {defect.key for defect in defects}
            found = (Defect(defect.kind, f"{path}/{defect.key}", defect.text) for defect in report.defects)
            defects += [defect for defect in found if defect.key not in named]
    known = [content for _, content in documents if content is not None]
    if any(map(_has_documents, known)):
        strict = all(content.get("layout", {}).get("strict") is True for content in known)
        named = {defect.key for defect in defects}
        others = _without_documents(known)
        defects += [
            defect
            for defect in findings(root, strict=strict)
            if defect.key not in named and _folder(defect.key) not in others
        ]
    defects += listing.defects(root, (key for content in known for key in content["files"]))
    return VerifyReport(root.url, objects, blocks, tuple(defects))


def _without_documents(known: Sequence[dict[str, Any]]) -> set[str]:
    """Folders of assets that only atlases without the layout of the standard have, or unfinished ones."""
    folders: dict[bool, set[str]] = {False: set(), True: set()}
    for content in known:
        folders[_has_documents(content)].update(map(_folder, (*all_images(content), *all_files(content))))
    return folders[False] - folders[True]


def _has_documents(content: dict[str, Any]) -> bool:
    """Whether the atlas of a record is finished with the layout of the standard."""
    return content["state"] == "finished" and content.get("layout", {}).get("assets") is True


def _folder(key: str) -> str:
    """The folder of the version of an asset, above a key."""
    return "/".join(key.split("/")[:3])


def _copies(root: Target, document: dict[str, Any]) -> Iterator[str]:
    """Folders of annotations that are copied under a second name, and not linked."""
    for path in document["images"]:
        folder, _, name = path.rpartition("/")
        second = f"{folder}/{COMPRESSED}"
        has_second = name == ANNOTATION and f"{second}/zarr.json" in document["files"]
        if has_second and not is_link(below(root, path), below(root, second)):
            yield second


def _image(target: Target, deep: bool) -> VerifyReport:
    if target.url.endswith(PRECOMPUTED):
        return VerifyReport(target.url, 0, 0, tuple(_meshes(target)))
    try:
        exists = read_root(target) is not None
    except InputError:
        exists = False
    report = verify_image(target, deep=deep) if exists else None
    return report or VerifyReport(target.url, 0, 0, (Defect("missing", "", "is missing"),))


def _meshes(target: Target) -> list[Defect]:
    try:
        return precomputed_folder.defects(target)
    except InputError:  # there is no ledger
        if target.list_keys():
            return [Defect("ledger", COMPACT, "is missing")]
        return [Defect("missing", "", "is missing")]


def _files(root: Target, document: dict[str, Any], verified: set[Any]) -> Iterator[Defect]:
    for key, (size, checksum) in all_files(document).items():
        if (file := (key, size, checksum)) in verified:
            continue
        verified.add(file)
        if key not in root.sizes(key):
            yield Defect("missing", key, "is missing")
        elif not matches(root, key, size, checksum):
            yield Defect("altered", key, "differs from what was written")
