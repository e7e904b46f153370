"""The documents of the assets of an atlas: manifest.json, data_description.json and processing.json. Pure functions.

The manifests have the keys that the pages of the standard "Atlas Asset Organization" v0.2.0 list. The other two are
documents of aind-data-schema 2. That package takes over a second to import, and writes a licence into every document,
of an enumeration that lacks terms such as those of the Allen Institute: so the JSON is made here, without the key
``license``, which it does not need, and the terms are under ``restrictions``. The tests validate it with the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..credit import Credit
from ..engine.ome import Geometry
from ..errors import InputError
from ..stores.documents import json_bytes
from ..versions import version
from . import standard
from .names import DATA_DESCRIPTION, MANIFEST, PROCESSING, Asset, AtlasNames

#: Name in aind-data-schema of an institution, a person or a funder that is not known.
UNKNOWN = "Unknown"
#: Modalities of aind-data-schema-models 6 by the words for them in names of templates. By the standard such a name is
#: ``<organization>-<age>-<species>-<modality>-<technique>-template``. Sections of ``nissl`` and ``ish`` are scanned in
#: a bright field, as the Allen Institute has it for its Nissl template.
_MODALITIES = {
    "stpt": "STPT",
    "spim": "SPIM",
    "mri": "MRI",
    "fmost": "fMOST",
    "nissl": "brightfield",
    "ish": "brightfield",
}


def documents(
    names: AtlasNames,
    credit: Credit,
    *,
    geometry: Geometry,
    resolutions: Sequence[Sequence[float]],
    template_sources: Mapping[str, Mapping[str, Any]] | None,
    created: Callable[[Asset], datetime],
) -> dict[str, bytes]:
    """All documents of an atlas: of its terminology, coordinate space, template and annotation set, and its own.

    The same arguments give the same bytes.

    Parameters
    ----------
    names : AtlasNames
    credit : Credit
    geometry : Geometry
        Scale and translation of the finest level of the annotation in mm, and the orientation of its axes.
    resolutions : sequence of sequence of float
        Size of a voxel of every level of the annotation along (z, y, x), in um.
    template_sources : mapping or None
        What the template is made of, see `processing`; None for an atlas without a template.
    created : callable
        When an asset was first made, with a time zone.

    Returns
    -------
    dict of str to bytes
        By key, relative to the root of the tree; those of the atlas are last.

    Raises
    ------
    InputError
        If a time has no time zone.
    """
    template = None if template_sources is None else names.template.reference()
    defined_by: dict[str, Any] = {} if template is None else {"template": template}
    space = names.coordinate_space.reference(**defined_by)
    terminology = names.terminology.reference()
    annotation_set = names.annotation_set.reference(**defined_by, terminology=terminology)
    modalities = [] if template is None else modalities_of(names.template)

    def both(asset: Asset, title: str, modalities: Sequence[str] = (), **entries: Any) -> dict[str, bytes]:
        described = data_description(asset, title, credit, created(asset), modalities)
        return {DATA_DESCRIPTION: described, MANIFEST: manifest(asset, **entries)}

    parts = {
        names.terminology: both(
            names.terminology,
            "Terminology: the structures of an atlas and their tree. The lists of descendants of a structure contain "
            "the structure itself",
        ),
        names.coordinate_space: both(
            names.coordinate_space,
            "Coordinate space of an atlas",
            origin=_origin(geometry),
            spacing={"values": list(geometry.scale), "axes": list("zyx"), "unit": geometry.unit},
            template=template,
        ),
    }
    if template_sources is not None:
        title = "Template of an atlas"
        parts[names.template] = template_documents(
            names.template, space, title=title, credit=credit, sources=template_sources, created=created(names.template)
        )
    parts[names.annotation_set] = both(
        names.annotation_set,
        "Annotation set of an atlas: labels, masks, meshes and volumes of its structures",
        coordinate_space=space,
        terminology=terminology,
        **defined_by,
        scales=[_scale(sizes) for sizes in resolutions],
    )
    parts[names.atlas] = both(
        names.atlas,
        "Atlas",
        modalities,
        coordinate_space=space,
        templates=[] if template is None else [template],
        annotation_sets=[annotation_set],
    )
    return {f"{asset.folder}/{name}": body for asset, own in parts.items() for name, body in own.items()}


def template_documents(
    asset: Asset,
    space: Mapping[str, Any],
    *,
    title: str,
    credit: Credit,
    sources: Mapping[str, Mapping[str, Any]],
    created: datetime,
) -> dict[str, bytes]:
    """The documents of a template, by name.

    Parameters
    ----------
    asset : Asset
    space : mapping
        The reference to its coordinate space, as in the manifest of the atlas.
    title : str
        What the template shows, without a full stop.
    credit : Credit
    sources : mapping
        See `processing`.
    created : datetime

    Raises
    ------
    InputError
        If `created` has no time zone.
    """
    return {
        DATA_DESCRIPTION: data_description(asset, title, credit, created, modalities_of(asset)),
        PROCESSING: processing(sources, created),
        MANIFEST: manifest(asset, coordinate_space=dict(space)),
    }


def manifest(asset: Asset, **entries: Any) -> bytes:
    """A manifest: the asset itself, the version and the page of the standard, and further entries."""
    url = standard.KINDS[asset.kind].url
    return json_bytes(asset.reference(schema_version=standard.VERSION, described_by=url, **entries))


def data_description(
    asset: Asset, title: str, credit: Credit, created: datetime, modalities: Sequence[str] = ()
) -> bytes:
    """A data_description.json of aind-data-schema 2.

    It requires an institution, investigators and funders: where they are not known, they have its word ``Unknown``.

    Parameters
    ----------
    asset : Asset
    title : str
        What the asset holds, without a full stop.
    credit : Credit
    created : datetime
    modalities : sequence of str
        Abbreviations of aind-data-schema-models; by the standard only templates and atlases have any.

    Raises
    ------
    InputError
        If `created` has no time zone.
    """
    of = "" if credit.species is None else f" Species: {credit.species}."
    cite = "" if credit.citation is None else f" Cite: {credit.citation}"
    terms = {} if credit.terms is None else {"restrictions": f"Terms of use: {credit.terms}"}
    number = asset.version.replace(".", "-")
    return json_bytes(
        {
            "name": f"{asset.name}-{number}_{_utc(created):%Y-%m-%d_%H-%M-%S}",  # as the Allen Institute names its own
            "data_summary": f"{title}.{of}{cite}",
            "modalities": [{"abbreviation": abbreviation} for abbreviation in modalities],
            "data_level": "derived",
            "creation_time": _time(created),
            "institution": {"name": credit.institution or UNKNOWN},
            "investigators": [{"name": name} for name in credit.investigators or (UNKNOWN,)],
            "funding_source": [{"funder": {"name": credit.funder or UNKNOWN}}],
            "project_name": credit.project or asset.name.replace("_", "-"),  # the schema forbids "_"
            **terms,
        }
    )


def processing(sources: Mapping[str, Mapping[str, Any]], created: datetime) -> bytes:
    """A processing.json of aind-data-schema 2 with one process: atlaszarr, and what it read.

    Parameters
    ----------
    sources : mapping
        Facts on every source by its name, in JSON's types: ``uri``, ``sha256`` and others.
    created : datetime

    Raises
    ------
    InputError
        If `created` has no time zone.
    """
    number = version("atlaszarr")
    process = {
        "process_type": "File format conversion",
        "name": "Conversion to multiscale OME-Zarr",
        "stage": "Processing",
        "code": {"url": f"pkg:generic/atlaszarr@{number}", "name": "atlaszarr", "version": number},  # a package URL
        "experimenters": [],
        "start_date_time": _time(created),
        # A list, since the schema warns of keys with dots.
        "output_parameters": {"sources": [{"name": name, **facts} for name, facts in sources.items()]},
    }
    return json_bytes({"data_processes": [process]})


def modalities_of(template: Asset) -> list[str]:
    """The modality that the name of a template contains, as an abbreviation; none if it contains no word for one."""
    return [_MODALITIES[word] for word in template.name.split("-") if word in _MODALITIES][:1]


def _origin(geometry: Geometry) -> dict[str, Any]:
    """The origin of a space: which corner it is near, and where the centre of the first voxel lies from it."""
    where = ", ".join(f"{axis} {length:g}" for axis, length in zip("zyx", geometry.translation, strict=True))
    size = " x ".join(f"{length:g}" for length in geometry.scale)
    text = f"The centre of the first voxel, of {size} {geometry.unit}, is at {where} {geometry.unit}"
    axes = [
        {"name": axis, **({"orientation": geometry.orientation[axis]} if axis in geometry.orientation else {})}
        for axis in "zyx"
    ]
    if len(geometry.orientation) == 3:
        corner = ", ".join(geometry.orientation[axis].partition("-to-")[0] for axis in "zyx")
        text += f"; it is the voxel at the {corner} corner"
    return {
        "description": text,
        "first_voxel": list(geometry.translation),
        "axes": axes,
        "unit": geometry.unit,
    }


def _scale(sizes: Sequence[float]) -> float | list[float]:
    """The size of a voxel in um: one number if it is a cube."""
    numbers = [int(size) if float(size).is_integer() else float(size) for size in sizes]
    return numbers[0] if len(set(numbers)) == 1 else list(numbers)


def _utc(created: datetime) -> datetime:
    if created.tzinfo is None:
        raise InputError(f"the time {created.isoformat()} has no time zone; give it in UTC", code="invalid-value")
    return created.astimezone(UTC)


def _time(created: datetime) -> str:
    return _utc(created).isoformat(timespec="seconds")
