"""Search for section datasets and their images; the results are tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ..catalogue.criteria import Criterion
from ..errors import InputError, ServiceError
from .records import (
    MOST_SECTIONS,
    PLANE_NAMES,
    Record,
    names_of,
    number_of,
    optional_number,
    plane_name,
    plane_of_section,
    record_of,
)

if TYPE_CHECKING:
    from pandas import DataFrame

#: `rma.query` of a client's API, or `query` of its catalogue.
Query = Callable[..., tuple[list[dict[str, Any]], int]]

_INCLUDE = ("genes", "products", "specimen(donor(age))")
#: Columns of whole numbers; missing numbers are `pandas.NA`.
_WHOLE = (
    *("id", "reference_space", "specimen", "sections"),
    *("dataset", "section_number", "width", "height", "tiers"),
)
#: Maximum number of datasets whose sections are counted: their ids fit in one URL.
_MAX_COUNTED_DATASETS = 200
#: Maximum number of section images read for the count: two pages.
_MAX_COUNTED_IMAGES = 4000
#: Maximum number of genes compared with a gene that is not found: one page.
_MAX_GENES = 2000


def search(
    query: Query,
    gene: str | None,
    plane: str | None,
    product: str | None,
    specimen: int | None,
    id: int | None,
    images: bool,
    limit: int | None,
) -> DataFrame:
    """Same as `AllenClient.search`."""
    import pandas as pd

    criteria, where = criteria_of(gene, plane, product, specimen, id, limit)
    records, total = query("SectionDataSet", criteria, _INCLUDE, limit, where=where)
    ids = [number_of(record, "id", int, "a section dataset") for record in records]
    if images:
        rows = [
            _image_row(id, image)
            for id in ids
            for image in query("SectionImage", where={"data_set_id": id}, most=MOST_SECTIONS)[0]
        ]
        columns = list(_image_row(0, {"id": 0}))
    else:
        counts = _section_counts(query, ids)
        rows = [_dataset_row(id, record, counts) for id, record in zip(ids, records, strict=True)]
        columns = list(_dataset_row(0, {}, {}))
    table = pd.DataFrame(rows, columns=columns)
    table = table.astype({name: "Int64" for name in _WHOLE if name in columns}).set_index("id")
    table.attrs["datasets"] = total
    return table


def criteria_of(
    gene: str | None,
    plane: str | None,
    product: str | None,
    specimen: int | None,
    id: int | None,
    limit: int | None,
) -> tuple[list[Criterion], dict[str, int]]:
    """The criteria of a search, and the required whole-number values of attributes.

    Raises
    ------
    InputError
        If the plane is unknown or the limit is not positive.
    """
    if plane is not None and (plane := plane_name(plane)) not in PLANE_NAMES.values():
        raise InputError(
            f"plane {plane!r} is not known; choose from coronal, sagittal, transverse", code="unknown-value"
        )
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit} must be at least 1", code="out-of-range")
    where = {key: value for key, value in (("id", id), ("specimen_id", specimen)) if value is not None}
    criteria = []
    if plane is not None:
        criteria.append(Criterion("name", "eq", plane, "plane_of_section", name="plane"))
    if product is not None:
        criteria.append(Criterion("abbreviation", "eq", product, "products", name="product"))
    if gene is not None:
        criteria.append(Criterion("acronym", "il", gene, "genes", name="gene"))
    return criteria, where


def similar_gene(query: Query, gene: str) -> str | None:
    """Same as `AllenClient.similar_gene`; compares the genes with the same first two letters, case-insensitively."""
    if not gene or "*" in gene:
        return None
    criterion = Criterion("acronym", "il", gene[:2] + "*", name="gene")
    records, _ = query("Gene", [criterion], limit=_MAX_GENES, only=["acronym"])
    acronyms = {acronym.lower(): acronym for row in records if isinstance(acronym := row.get("acronym"), str)}
    if gene.lower() in acronyms:
        return None
    return next((acronyms[name] for name in get_close_matches(gene.lower(), acronyms, n=1)), None)


def _section_counts(query: Query, ids: Sequence[int]) -> dict[int, int]:
    """The number of section images of each dataset; empty if counting takes more than a few requests."""
    if not 0 < len(ids) <= _MAX_COUNTED_DATASETS:
        return {}
    images, total = query(
        "SectionImage",
        [Criterion("data_set_id", "in", ids)],
        limit=_MAX_COUNTED_IMAGES,
        only=["id", "data_set_id"],
    )
    if total > len(images):
        return {}
    counts = Counter(optional_number(image, "data_set_id", int, "a section image") for image in images)
    if others := counts.keys() - set(ids):
        raise ServiceError(
            f"the Allen API was asked for section images of {len(ids)} datasets, but answered with an image of dataset "
            f"{others.pop()}; try again",
            code="wrong-record",
        )
    return {id: counts[id] for id in ids}


def _dataset_row(id: int, record: Record, counts: dict[int, int]) -> dict[str, Any]:
    label = f"section dataset {id}"
    donor = record_of(record_of(record, "specimen", label), "donor", label)
    return {
        "id": id,
        "gene": " ".join(names_of(record, "genes", "acronym", label)),
        "plane": plane_of_section(optional_number(record, "plane_of_section_id", int, label)),
        "product": " ".join(names_of(record, "products", "abbreviation", label)),
        "reference_space": optional_number(record, "reference_space_id", int, label),
        "thickness_um": optional_number(record, "section_thickness", float, label),
        "specimen": optional_number(record, "specimen_id", int, label),
        "failed": bool(record.get("failed")),
        "age": str(record_of(donor, "age", label).get("name") or record.get("age") or ""),
        "sex": str(donor.get("sex_full_name") or ""),
        "sections": counts.get(id),
        "gene_name": ", ".join(str(gene.get("name") or "") for gene in record.get("genes") or ()),
    }


def _image_row(dataset: int, image: Record) -> dict[str, Any]:
    id = number_of(image, "id", int, f"a section image of dataset {dataset}")
    label = f"section image {id}"
    return {
        "id": id,
        "dataset": dataset,
        "section_number": optional_number(image, "section_number", int, label),
        "width": optional_number(image, "width", int, label),
        "height": optional_number(image, "height", int, label),
        "resolution_um": optional_number(image, "resolution", float, label),
        "tiers": optional_number(image, "tier_count", int, label),
        "expression": image.get("expression_path") is not None,
        "failed": bool(image.get("failed")),
    }
