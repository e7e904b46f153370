"""What BrainGlobe's reader demands of an atlas: refused before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

from ..credit import Credit
from ..engine.finished_image import Finished
from ..errors import InputError, RecordError
from ..geometry.spaces import BRAINGLOBE_SIDES
from ..terminology.rows import LARGEST_LABEL, Identifier
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
        For the reasons of `refuse_terminology`.
    """
    if unknown:
        raise InputError(f"{unknown[0]}; BrainGlobe needs an ontology with all labels", code="unknown-label")
    refuse_terminology(terminology)
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


def refuse_terminology(terminology: Terminology) -> None:
    """Refuse a terminology that BrainGlobe's reader cannot open.

    Raises
    ------
    RecordError
        If it is not one tree with the root ``root``, an identifier is not the label of its voxels, or two structures
        have the same acronym: the reader takes identifiers for labels and looks structures up by acronym.
    """
    for structure in terminology:
        id, name = structure.id, f"{structure.id} ({structure.acronym})"
        if not isinstance(id, int) or structure.path[-1] != id or not 0 < id <= LARGEST_LABEL:
            raise RecordError(
                f"structure {name} must have an identifier from 1 to {LARGEST_LABEL} for BrainGlobe, which takes "
                "identifiers for labels; give such a terminology",
                code="invalid-id",
            )
        if structure.value not in (None, id):
            raise RecordError(
                f"voxels of structure {name} hold {structure.value}, but BrainGlobe takes identifiers for labels; "
                "give a terminology whose identifiers are the labels",
                code="identifier-is-not-label",
            )
    if [root.acronym for root in terminology.roots] != ["root"]:
        named = ", ".join(root.acronym for root in terminology.roots) or "none"
        raise RecordError(
            f"BrainGlobe needs one tree with the root 'root'; the terminology has the roots {named}",
            code="wrong-root",
        )
    acronyms: dict[str, Identifier] = {}
    for structure in terminology:
        if (other := acronyms.setdefault(structure.acronym, structure.id)) != structure.id:
            raise RecordError(
                f"structures {other} and {structure.id} have the acronym {structure.acronym!r}, by which BrainGlobe "
                "looks structures up; give each its own",
                code="duplicate-acronym",
            )
