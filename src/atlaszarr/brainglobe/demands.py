"""What BrainGlobe's reader demands of an atlas: refused before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

from ..assets import names as paths
from ..assets.names import AtlasNames
from ..credit import Credit
from ..engine.finished_image import Finished
from ..errors import InputError, RecordError
from ..geometry.spaces import BRAINGLOBE_SIDES
from ..terminology.rows import LARGEST_LABEL, Identifier
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
