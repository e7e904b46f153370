"""What BrainGlobe's reader demands of an atlas: refused before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

from ..annotation_set.structure_order import PostOrder
from ..assets import names as paths
from ..assets.names import AtlasNames
from ..credit import Credit
from ..engine.finished_image import Finished
from ..errors import InputError
from ..geometry.spaces import BRAINGLOBE_SIDES
from ..terminology.terminology import Terminology
from . import manifests


def check(
    annotation: Finished,
    template: Finished,
    names: AtlasNames,
    terminology: Terminology,
    credit: Credit,
    unknown: Sequence[str] = (),
) -> dict[str, bytes]:
    """Refuse an annotation and a template that BrainGlobe's reader cannot open together, before they are written.

    Parameters
    ----------
    annotation, template : Finished
    names : AtlasNames
    terminology : Terminology
    credit : Credit
    unknown : sequence of str
        Remarks on labels that the terminology lacks.

    Returns
    -------
    dict of str to bytes
        The manifests, by key; those of the atlases are last.

    Raises
    ------
    InputError
        If a label, the citation or the species is not known, a dtype or the orientation is wrong, or the template lacks
        a level of the annotation.
    RecordError
        If the terminology is not one tree with the root ``root``.
    """
    if unknown:
        raise InputError(f"{unknown[0]}; BrainGlobe needs an ontology with all labels", code="unknown-label")
    PostOrder.of(terminology)
    for word, image, dtype in (("annotation", annotation, "uint32"), ("template", template, "uint16")):
        if image.multiscale.arrays[0].dtype != dtype:
            raise InputError(
                f"the {word} is {image.multiscale.arrays[0].dtype}; BrainGlobe needs {dtype}", code="unsupported-dtype"
            )
    if (sides := annotation.geometry.orientation.get("x", BRAINGLOBE_SIDES)) != BRAINGLOBE_SIDES:
        raise InputError(
            f"the x axis of the annotation runs {sides}, but BrainGlobe needs {BRAINGLOBE_SIDES}; build the atlas for "
            "BrainGlobe (--brainglobe)",
            code="unsupported-orientation",
        )
    shapes = dict(zip(template.resolutions, (level.shape for level in template.multiscale.pyramid.levels), strict=True))
    for level, resolution in zip(annotation.multiscale.pyramid.levels, annotation.resolutions, strict=True):
        if shapes.get(resolution) != level.shape:
            size = resolution[0]
            raise InputError(
                f"the annotation has {level.shape} voxels at {size:g} um, but the template has "
                f"{shapes.get(resolution, 'no such level')}; give a template with the levels of the annotation",
                code="shape-mismatch",
            )
    atlases = manifests.atlases(names, credit, annotation)
    space = {f"{names.coordinate_space.folder}/{paths.MANIFEST}": manifests.coordinate_space(names)}
    return space | {f"{folder}/{paths.MANIFEST}": body for folder, body in atlases.items()}
