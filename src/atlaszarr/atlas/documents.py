"""The documents of an atlas: those of the standard, and those by which BrainGlobe's reader finds it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from ..assets import documents as standard
from ..assets.names import DATA_DESCRIPTION, Asset
from ..brainglobe import manifests
from ..credit import Credit
from ..engine.finished_image import Finished
from ..reference_volumes import ReferenceVolume
from ..stores.documents import LARGEST, parse_object
from ..stores.target import Target
from ..terminology.terminology import Terminology
from .record import source_facts
from .tree import Tree


def documents_of(
    tree: Tree,
    credit: Credit,
    annotation: Finished,
    template: Mapping[int, ReferenceVolume] | None,
    occurring: Terminology,
    overwrite: bool,
) -> dict[str, bytes]:
    """All documents of an atlas in its layout, by key; those of the atlases, by which it is found, are last.

    An asset that exists, such as a template that other atlases have too, keeps its time of creation.

    Parameters
    ----------
    tree : Tree
    credit : Credit
    annotation : Finished
        It need not be written yet.
    template : mapping of int to ReferenceVolume, or None
        The sources of the levels of the template, if there is one.
    occurring : Terminology
        The structures that occur, see `manifests.occurring`.
    overwrite : bool
        Whether the assets are new: then they do not keep the time at which they were created.
    """
    names, now = tree.names, datetime.now(UTC)

    def created(asset: Asset) -> datetime:
        return (None if overwrite else _created(tree.root, asset)) or now

    found: dict[str, bytes] = {}
    if tree.layout.brainglobe:
        found |= manifests.documents(names, credit, annotation, occurring)
    if tree.layout.assets:
        if tree.layout.brainglobe:
            found |= manifests.descriptions(names, credit, annotation, created)
        sources = {f"level {level}": source_facts(volume) for level, volume in sorted((template or {}).items())}
        found |= standard.documents(
            names,
            credit,
            geometry=annotation.geometry,
            resolutions=annotation.resolutions,
            template_sources=None if template is None else sources,
            created=created,
        )
    return dict(sorted(found.items(), key=lambda item: item[0].startswith("atlases/")))


def _created(root: Target, asset: Asset) -> datetime | None:
    """When an asset was created, by its data_description; None if it has none that can be read."""
    try:
        body = root.read(f"{asset.folder}/{DATA_DESCRIPTION}", LARGEST)
        created = datetime.fromisoformat(parse_object(body or b"")["creation_time"])
    except (ValueError, KeyError, TypeError):
        return None
    return created if created.tzinfo else None
