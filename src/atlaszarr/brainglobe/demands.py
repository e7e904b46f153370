"""What BrainGlobe's reader demands of an atlas: refused before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

from ..annotation_set.structure_order import PostOrder
from ..credit import Credit
from ..engine.finished_image import Finished
from ..errors import InputError
from ..geometry.spaces import BRAINGLOBE_SIDES
from ..terminology.terminology import Terminology


def refuse(
    annotation: Finished, template: Finished, terminology: Terminology, credit: Credit, unknown: Sequence[str] = ()
) -> None:
    """Refuse an annotation and a template that BrainGlobe's reader cannot open together, before they are written.

    Parameters
    ----------
    annotation, template : Finished
        They need not be written yet: only their levels, dtypes and geometry are read.
    terminology : Terminology
    credit : Credit
    unknown : sequence of str
        Remarks on labels that the terminology lacks.

    Raises
    ------
    InputError
        If a label, the citation or the species is not known, a dtype or the orientation is wrong, the template lacks a
        level of the annotation, or a resolution is not a whole number of um, which the names of the atlases need.
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
    if missing := [name for name in ("species", "citation") if not getattr(credit, name)]:
        raise InputError(
            f"BrainGlobe needs the {' and the '.join(missing)} of the atlas, which are known only of the CCF; give "
            f"{' and '.join(f'--{name}' for name in missing)}",
            code="missing-credit",
        )
    shapes = dict(zip(template.resolutions, (level.shape for level in template.multiscale.pyramid.levels), strict=True))
    for level, resolution in zip(annotation.multiscale.pyramid.levels, annotation.resolutions, strict=True):
        size = resolution[0]
        if size % 1:
            raise InputError(
                f"the annotation has a level of {size:g} um; BrainGlobe needs whole um", code="fractional-resolution"
            )
        if shapes.get(resolution) != level.shape:
            raise InputError(
                f"the annotation has {level.shape} voxels at {size:g} um, but the template has "
                f"{shapes.get(resolution, 'no such level')}; give a template with the levels of the annotation",
                code="shape-mismatch",
            )
