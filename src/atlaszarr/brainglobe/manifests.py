"""The manifests by which BrainGlobe's reader finds an atlas. Pure functions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..engine.finished_image import Finished
from ..errors import InputError
from .paths import AtlasLayout


@dataclass(frozen=True)
class About:
    """Metadata of an atlas for its manifests; the defaults are those of the CCFv3.

    Attributes
    ----------
    citation, atlas_link, species, packager : str
    symmetric : bool
        Whether the left half mirrors the right one. If so, the reader makes the hemispheres itself.
    """

    citation: str = "Wang et al 2020, https://doi.org/10.1016/j.cell.2020.04.007"
    atlas_link: str = "https://atlas.brain-map.org"
    species: str = "Mus musculus"
    packager: str = "atlaszarr"
    symmetric: bool = True


def coordinate_space(layout: AtlasLayout) -> bytes:
    """The manifest of the coordinate space."""
    template = layout.component(layout.template)
    return _document(layout.component(layout.coordinate_space, template=template))


def atlases(layout: AtlasLayout, about: About, annotation: Finished) -> dict[str, bytes]:
    """The manifest of the atlas at every resolution of an annotation, by folder.

    Raises
    ------
    InputError
        If a resolution is not a whole number of um, which the name of the atlas needs.
    """
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
                "citation": about.citation,
                "atlas_link": about.atlas_link,
                "species": about.species,
                "symmetric": about.symmetric,
                "resolution": sizes,
                "orientation": "asr",
                "version": layout.version,
                "shape": level.shape,
                "additional_references": [],
                "atlas_packager": about.packager,
                "coordinate_space": layout.component(layout.coordinate_space, template=template),
                "terminology": terminology,
                "annotation_set": layout.component(layout.annotation_set, template=template, terminology=terminology),
                "template": template,
            }
        )
    return manifests


def _document(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=4).encode()
