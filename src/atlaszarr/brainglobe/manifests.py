"""The manifests by which BrainGlobe's reader finds an atlas. Pure functions."""

from __future__ import annotations

import json
from typing import Any

from ..assets.names import AtlasNames
from ..credit import Credit
from ..engine.finished_image import Finished
from ..errors import InputError


def coordinate_space(names: AtlasNames) -> bytes:
    """The manifest of the coordinate space."""
    return _document(names.coordinate_space.reference(template=names.template.reference()))


def atlases(names: AtlasNames, credit: Credit, annotation: Finished) -> dict[str, bytes]:
    """The manifest of the atlas at every resolution of an annotation, by folder.

    Raises
    ------
    InputError
        If the citation or the species is not known; if a resolution is not a whole number of um, which the name of
        the atlas needs.
    """
    if missing := [name for name in ("species", "citation") if not getattr(credit, name)]:
        raise InputError(
            f"BrainGlobe needs the {' and the '.join(missing)} of the atlas, which are known only of the CCF; give "
            f"{' and '.join(f'--{name}' for name in missing)}",
            code="missing-credit",
        )
    template, terminology = names.template.reference(), names.terminology.reference()
    manifests = {}
    for level, sizes in zip(annotation.multiscale.pyramid.levels, annotation.resolutions, strict=True):
        if sizes[0] % 1:
            raise InputError(
                f"the annotation has a level of {sizes[0]:g} um; BrainGlobe needs whole um",
                code="fractional-resolution",
            )
        folder = names.brainglobe_atlas(int(sizes[0])).folder
        manifests[folder] = _document(
            {
                "name": names.name,
                "location": f"/{folder}",
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
                "coordinate_space": names.coordinate_space.reference(template=template),
                "terminology": terminology,
                "annotation_set": names.annotation_set.reference(template=template, terminology=terminology),
                "template": template,
            }
        )
    return manifests


def _document(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=4).encode()
