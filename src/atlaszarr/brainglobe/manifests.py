"""The documents by which BrainGlobe's reader finds an atlas: its manifests, and a terminology of its own.

They are those that brainglobe-atlasapi 3.0.3 and 3.0.2 open (`brainglobe_atlasapi.core`, `bg_atlas`), and the manifests
also have the keys of the published standard. Pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from ..assets import standard
from ..assets.documents import data_description
from ..assets.names import DATA_DESCRIPTION, MANIFEST, TERMINOLOGY, Asset, AtlasNames
from ..credit import Credit
from ..engine.finished_image import Finished
from ..terminology.terminology import Terminology


def terminology_of(names: AtlasNames) -> Asset:
    """BrainGlobe's terminology of an atlas.

    It has the name and version of the annotation, since that decides which structures occur.
    """
    return Asset("terminologies", f"{names.name}-brainglobe-terminology", names.version)


def atlases_of(names: AtlasNames, annotation: Finished) -> list[Asset]:
    """BrainGlobe's atlas at every resolution of an annotation."""
    return [names.brainglobe_atlas(int(sizes[0])) for sizes in annotation.resolutions]


def occurring(terminology: Terminology, labels: Iterable[int]) -> Terminology:
    """The structures of a terminology that have one of the labels or a descendant that has one, and the root.

    BrainGlobe expects a mesh of every structure (`catch_missing_mesh_files` of its
    `atlas_generation.validate_atlases`), and what occurs nowhere has none.
    """
    kept = {root.path[0] for root in terminology.roots}
    for label in labels:
        if (structure := terminology.by_value.get(label)) is not None:
            kept.update(structure.path)
    return Terminology(tuple(structure for structure in terminology if structure.id in kept))


def documents(names: AtlasNames, credit: Credit, annotation: Finished, terminology: Terminology) -> dict[str, bytes]:
    """All documents that BrainGlobe's reader opens, by key; the manifests of the atlases are last.

    Parameters
    ----------
    names : AtlasNames
    credit : Credit
        With citation and species, see `demands.refuse`.
    annotation : Finished
        It need not be written yet: only its levels are read.
    terminology : Terminology
        The structures that occur in the annotation, see `occurring`.
    """
    pruned, template = terminology_of(names), names.template.reference()
    space = names.coordinate_space.reference(template=template)
    annotation_set = names.annotation_set.reference(template=template, terminology=pruned.reference())
    found = {
        f"{pruned.folder}/{TERMINOLOGY}": terminology.to_csv().encode(),
        f"{pruned.folder}/{MANIFEST}": _manifest(pruned, pruned.reference()),
        f"{names.coordinate_space.folder}/{MANIFEST}": _manifest(names.coordinate_space, space),
    }
    levels = zip(
        atlases_of(names, annotation), annotation.multiscale.pyramid.levels, annotation.resolutions, strict=True
    )
    for atlas, level, sizes in levels:
        found[f"{atlas.folder}/{MANIFEST}"] = _manifest(
            atlas,
            {
                "name": names.name,
                "location": f"/{atlas.folder}",
                "citation": credit.short or credit.citation,
                "atlas_link": credit.link,
                "species": credit.species,
                "symmetric": credit.symmetric,
                "resolution": sizes,
                "orientation": "asr",
                "version": names.version,
                "shape": level.shape,
                "additional_references": [],
                "atlas_packager": "atlaszarr",
                "coordinate_space": space,
                "terminology": pruned.reference(),
                "annotation_set": annotation_set,
                "template": template,
                "templates": [template],
                "annotation_sets": [annotation_set],
            },
        )
    return found


def descriptions(
    names: AtlasNames, credit: Credit, annotation: Finished, created: Callable[[Asset], datetime]
) -> dict[str, bytes]:
    """The data_description.json of each asset of `documents` that only BrainGlobe needs, by key.

    The published standard demands them in a tree that also has its layout.

    Parameters
    ----------
    names : AtlasNames
    credit : Credit
    annotation : Finished
        It need not be written yet: only its levels are read.
    created : callable
        When an asset was first made, with a time zone.

    Raises
    ------
    InputError
        If a time has no time zone.
    """
    titles = {terminology_of(names): "Terminology for BrainGlobe: the structures that occur in an annotation set"}
    titles |= dict.fromkeys(atlases_of(names, annotation), "Atlas for BrainGlobe, at one resolution")
    return {
        f"{asset.folder}/{DATA_DESCRIPTION}": data_description(asset, title, credit, created(asset))
        for asset, title in titles.items()
    }


def _manifest(asset: Asset, content: dict[str, Any]) -> bytes:
    """A manifest with the keys of the standard's, too."""
    own = {"schema_version": standard.VERSION, "described_by": standard.KINDS[asset.kind].url}
    return json.dumps({**content, **own}, indent=4).encode()
