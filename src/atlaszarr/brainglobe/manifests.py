"""The documents by which BrainGlobe's reader finds an atlas: its manifests, and a terminology of its own.

They are those that brainglobe-atlasapi 3.0.3 and 3.0.2 open (`brainglobe_atlasapi.core`, `bg_atlas`), and the manifests
also have the keys of the published standard. Pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..assets import names as paths
from ..assets.names import Asset, AtlasNames
from ..credit import Credit
from ..engine.finished_image import Finished
from ..terminology.terminology import Terminology

#: Version of the standard whose manifests these are (atlas-assets.readthedocs.io).
SCHEMA_VERSION = "0.2.0"


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
    template, pruned, set_ = names.template.reference(), terminology_of(names), names.annotation_set
    space = names.coordinate_space.reference(template=template)
    annotation_set = set_.reference(template=template, terminology=pruned.reference())
    found = {
        f"{pruned.folder}/{paths.TERMINOLOGY}": terminology.to_csv().encode(),
        f"{pruned.folder}/{paths.MANIFEST}": _document(pruned.reference()),
        f"{names.coordinate_space.folder}/{paths.MANIFEST}": _document(space),
    }
    levels = zip(
        atlases_of(names, annotation), annotation.multiscale.pyramid.levels, annotation.resolutions, strict=True
    )
    for atlas, level, sizes in levels:
        found[f"{atlas.folder}/{paths.MANIFEST}"] = _document(
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
            }
        )
    return found


def _document(content: dict[str, Any]) -> bytes:
    return json.dumps({**content, "schema_version": SCHEMA_VERSION}, indent=4).encode()
