"""The manifests by which BrainGlobe's reader finds an atlas. Pure functions."""

from __future__ import annotations

import json
from typing import Any

from ..credit import Credit
from ..engine.finished_image import Finished
from ..errors import InputError
from .paths import AtlasLayout


def coordinate_space(layout: AtlasLayout) -> bytes:
    """The manifest of the coordinate space."""
    template = layout.component(layout.template)
    return _document(layout.component(layout.coordinate_space, template=template))


def atlases(layout: AtlasLayout, credit: Credit, annotation: Finished) -> dict[str, bytes]:
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
    template, terminology = layout.component(layout.template), layout.component(layout.terminology)
    manifests = {}
    for level, sizes in zip(annotation.multiscale.pyramid.levels, annotation.resolutions, strict=True):
        if sizes[0] % 1:
            raise InputError(
                f"the annotation has a level of {sizes[0]:g} um; BrainGlobe needs whole um",
                code="fractional-resolution",
            )
        folder = layout.atlas(int(sizes[0]))
        manifests[folder] = _document(
            {
                "name": layout.name,
                "location": f"/{folder}",
                "citation": credit.short or credit.citation,
                "atlas_link": credit.link,
                "species": credit.species,
                "symmetric": credit.symmetric,
                "resolution": sizes,
                "orientation": "asr",
                "version": layout.version,
                "shape": level.shape,
                "additional_references": [],
                "atlas_packager": "atlaszarr",
                "coordinate_space": layout.component(layout.coordinate_space, template=template),
                "terminology": terminology,
                "annotation_set": layout.component(layout.annotation_set, template=template, terminology=terminology),
                "template": template,
            }
        )
    return manifests


def _document(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=4).encode()
